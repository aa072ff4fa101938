/* What calls to AWS are made of: hashes, signatures, XML, shared files, names. The signatures and
 * names are those that AWS's and the original's own code give for the same input. */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

TEST(sha256) {
  static const struct {
    const char *text, *hex;
  } rows[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char hex[65];
    swerex__hash_hex(rows[i].text, strlen(rows[i].text), hex);
    CHECK_STR(hex, rows[i].hex);
  }
  /* in pieces of every size, over the edges of blocks */
  char data[300], whole[65], parts[65];
  memset(data, 'x', sizeof data);
  for (size_t size = 0; size < sizeof data; size++) {
    unsigned char sum[32];
    swerex__hash hash;
    swerex__hash_hex(data, size, whole);
    swerex__hash_init(&hash);
    for (size_t at = 0; at < size; at += 7)
      swerex__hash_add(&hash, data + at, size - at < 7 ? size - at : 7);
    swerex__hash_end(&hash, sum);
    swerex__util_hex(parts, sum, sizeof sum);
    CHECK_STR(parts, whole);
  }
}

TEST(hmac) {
  unsigned char sum[32];
  char hex[65];
  /* RFC 4231, case 2 */
  static const char question[] = "what do ya want for nothing?";
  swerex__hash_hmac("Jefe", 4, question, sizeof question - 1, sum);
  swerex__util_hex(hex, sum, sizeof sum);
  CHECK_STR(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  /* RFC 4231, case 6: a key of 131 bytes */
  char key[131];
  memset(key, 0xaa, sizeof key);
  static const char text[] = "Test Using Larger Than Block-Size Key - Hash Key First";
  swerex__hash_hmac(key, sizeof key, text, sizeof text - 1, sum);
  swerex__util_hex(hex, sum, sizeof sum);
  CHECK_STR(hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

typedef struct vector {
  const char *method, *path, *query, *region, *service;
  swerex__sign_header headers[6];
  const char *body, *canonical, *end;
} vector;

#define ID "AKIAIOSFODNN7EXAMPLE"
#define FORM "application/x-www-form-urlencoded; charset=utf-8"
#define JSON "application/x-amz-json-1.1"
#define TARGET "AmazonEC2ContainerServiceV20141113."

static const vector vectors[] = {
  {"POST", "/", "", "us-east-1", "ecs",
   {{"Host", "ecs.us-east-1.amazonaws.com"}, {"X-Amz-Date", "20260115T123045Z"},
    {"X-Amz-Target", TARGET "ListClusters"}, {"Content-Type", JSON}},
   "{}", "b34e05becc1c60ad90e5788c1b333531b9d875159059f9a15a2d89a382dbdc5e",
   "/us-east-1/ecs/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-target, "
   "Signature=69034b6bd869c4b60678c64cbb53b9f73e9191ccd0ccb75e84c837b21928db1e"},
  {"POST", "/", "", "eu-central-1", "ecs",
   {{"Host", "ecs.eu-central-1.amazonaws.com"}, {"X-Amz-Date", "20260115T123045Z"},
    {"X-Amz-Target", TARGET "DescribeTasks"}, {"Content-Type", JSON},
    {"X-Amz-Security-Token", "IQoJb3JpZ2luX2VjEXAMPLETOKEN//////////=="}},
   "{\"cluster\": \"swe-rex-cluster\", \"tasks\": [\"abc\"]}",
   "29044d72b7d73f93d4e5f0db2605ab5e6120f816c57988376b8c648efd98356d",
   "/eu-central-1/ecs/aws4_request, "
   "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, "
   "Signature=1f6165878853bafc18df526d22ca3b2fc557bfa9e1eb94fe94abf34707daf6aa"},
  {"POST", "/", "", "us-east-1", "iam",
   {{"Host", "iam.amazonaws.com"}, {"X-Amz-Date", "20260115T123045Z"}, {"Content-Type", FORM}},
   "Action=GetRole&Version=2010-05-08&RoleName=swe-rex-execution-role-011809e9671d",
   "d22a3de3c9d7f527f01126b213a54e4e6ca6f3424e501ca0a6133281c3633617",
   "/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, "
   "Signature=7f26e9b1f010b34f0d229d08d588b4b4478f2ae1c967a639b1ad5cca0f4252ac"},
  {"POST", "/", "", "us-west-2", "ec2",
   {{"Host", "127.0.0.1:5123"}, {"X-Amz-Date", "20260115T123045Z"}, {"Content-Type", FORM}},
   "Action=DescribeVpcs&Version=2016-11-15&Filter.1.Name=isDefault&Filter.1.Value.1=true",
   "b536a7791c0a150d2368b9d06282db93e1cda5d35ebb0bad22e573f9c53c2ca2",
   "/us-west-2/ec2/aws4_request, SignedHeaders=content-type;host;x-amz-date, "
   "Signature=930f4e94f01ff9eebf5626ab8a62433ec842d5f920632b8c2134628292466637"},
  {"GET", "/a%20b/./c//d/../e", "b=2&a=x%20y&a=%2F&empty=&Z=~-_.", "us-east-1", "execute-api",
   {{"Host", "example.amazonaws.com"}, {"X-Amz-Date", "20260115T123045Z"},
    {"X-Amz-Content-SHA256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"X-Multi", "  a   b  "}},
   "", "52c6897b9587ad558b83fb910a628b67753ebd17d4c412198e2162dd4d7518bf",
   "/us-east-1/execute-api/aws4_request, "
   "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-multi, "
   "Signature=a09c0fc50d28b7f4354b0a938ac6858a358608d35b6f8731f31c44dbae6a8058"},
};

static void fill(const vector *from, swerex__sign_request *request) {
  memset(request, 0, sizeof *request);
  request->method = from->method;
  request->path = from->path;
  request->query = from->query;
  request->region = from->region;
  request->service = from->service;
  request->body = from->body;
  request->body_size = strlen(from->body);
  strcpy(request->date, "20260115T123045Z");
  for (; from->headers[request->header_count].name != NULL; request->header_count++)
    request->headers[request->header_count] = from->headers[request->header_count];
}

TEST(signatures) {
  char id[] = ID, secret[] = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
  swerex__sign_keys keys = {id, secret, NULL, 0};
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
    swerex__sign_request request;
    swerex__str out = swerex__str_new(NULL, 65536), canonical = swerex__str_new(NULL, 65536);
    char hex[65];
    fill(&vectors[i], &request);
    CHECK(swerex__sign(&request, &keys, &out));
    CHECK(swerex__sign_canonical(&canonical, &request));
    swerex__hash_hex(canonical.data, canonical.size, hex);
    CHECK_STR(hex, vectors[i].canonical);
    static const char start[] = "AWS4-HMAC-SHA256 Credential=" ID "/20260115";
    CHECK(strncmp(out.data, start, sizeof start - 1) == 0);
    CHECK_STR(out.data + sizeof start - 1, vectors[i].end);
    swerex__str_clear(&out);
    swerex__str_clear(&canonical);
  }
}

TEST(times) {
  char date[24];
  swerex__sign_write_date((time_t)1768480245, date);
  CHECK_STR(date, "20260115T123045Z");
  CHECK(swerex__sign_read_time("2026-01-15T12:30:45Z") == 1768480245.0);
  CHECK(swerex__sign_read_time("2026-01-15T12:30:45.580048Z") == 1768480245.0);
  CHECK(swerex__sign_read_time("Thu, 15 Jan 2026 12:30:45 GMT") == 1768480245.0);
  CHECK(swerex__sign_read_time("2000-02-29T00:00:00Z") == 951782400.0);
  CHECK(swerex__sign_read_time("") == 0);
  CHECK(swerex__sign_read_time("Thu, 15 Foo 2026 12:30:45 GMT") == 0);
  CHECK(swerex__sign_read_time("2026-13-15T12:30:45Z") == 0);
}

/** Read XML and write it as JSON; an error as it is. */
static const char *as_json(const char *xml) {
  static char shown[512];
  swerex__doc doc;
  swerex_error err = SWEREX_ERROR_INIT;
  if (!swerex__xml_parse(NULL, xml, strlen(xml), &doc, &err)) {
    snprintf(shown, sizeof shown, "%s", err.message);
    swerex_error_clear(&err);
    return shown;
  }
  swerex__str out = swerex__str_new(NULL, 4096);
  swerex__json_add_node(&out, doc.root);
  snprintf(shown, sizeof shown, "%s", out.data);
  swerex__str_clear(&out);
  swerex__doc_free(&doc);
  return shown;
}

TEST(xml) {
  static const struct {
    const char *xml, *json;
  } rows[] = {
    {"<a/>", "\"\""},
    {"<?xml version='1.0'?>\n<!-- x --><a b=\"<>'\" c='\"'>t</a>\n", "\"t\""},
    {"<n:a xmlns:n='x'><n:b>1</n:b><b>2</b><c/></n:a>", "{\"b\":\"1\",\"b\":\"2\",\"c\":\"\"}"},
    {"<a> <b> x </b> </a>", "{\"b\":\" x \"}"},
    {"<a>&lt;&amp;&gt;&quot;&apos;&#65;&#x20AC;</a>", "\"<&>\\\"'A\xE2\x82\xAC\""},
    {"<a>x<![CDATA[<&]]>y</a>", "\"x<&y\""},
    {"<a><![CDATA[]]></a>", "\"\""},
    {"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
     "this is not XML: at byte 0, a document type is not accepted"},
    {"<a>&b;</a>", "this is not XML: at byte 3, an entity is not known"},
    {"<a>&#0;</a>", "this is not XML: at byte 3, a character's number is none"},
    {"<a>&#xD800;</a>", "this is not XML: at byte 3, a character's number is none"},
    {"<a>&#99999999;</a>", "this is not XML: at byte 3, a character's number is none"},
    {"<a><b></a>", "this is not XML: at byte 9, an end is not that of the open element"},
    {"<a>", "this is not XML: at byte 3, an element does not end"},
    {"<a", "this is not XML: at byte 2, a tag does not end"},
    {"<a b='", "this is not XML: at byte 5, a tag does not end"},
    {"<a/><b/>", "this is not XML: at byte 6, there is a second root"},
    {"x<a/>", "this is not XML: at byte 0, there is text outside of the elements"},
    {"<a>\xFF</a>", "this is not XML: at byte 3, a byte is not UTF-8"},
    {"<a><![CDATA[\xFF]]></a>", "this is not XML: at byte 12, a byte is not UTF-8"},
    {"<!-- ", "this is not XML: at byte 0, something does not end"},
    {"< a/>", "this is not XML: at byte 1, a name is missing"},
    {"<1/>", "this is not XML: at byte 2, a name is missing"},
    {"<a\xFF/>", "this is not XML: at byte 2, a byte is not UTF-8"},
    {"", "this is not XML: at byte 0, there is no element"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) CHECK_STR(as_json(rows[i].xml), rows[i].json);
  swerex__str deep = swerex__str_new(NULL, 65536);
  for (int i = 0; i < 1000; i++) swerex__str_puts(&deep, "<a>");
  CHECK(strstr(as_json(deep.data), "nested too deeply") != NULL);
  swerex__str_clear(&deep);
}

/** Read a config file's text; true: it could be. */
static bool read_profile(const char *text, swerex__profile *profile, swerex_error *err) {
  memset(profile, 0, sizeof *profile);
  return swerex__profile_parse(profile, "config", true, text, strlen(text), err);
}

TEST(shared_files) {
  swerex__profile profile;
  swerex_error err = SWEREX_ERROR_INIT;
  CHECK(read_profile("# c\n[default]\nregion = eu-west-1\n; d\n[profile \"a b\"]\r\n"
                     "Role_ARN: arn:aws:iam::1:role/x\r\nempty =\nservices = s\n"
                     "[services s]\necs =\n  endpoint_url = http://x:1\n\nec2=\n\tendpoint_url=y\n"
                     "z = 1\n",
                     &profile, &err));
  CHECK_STR(swerex__profile_get(&profile, "default", "region"), "eu-west-1");
  CHECK_STR(swerex__profile_get(&profile, "a b", "role_arn"), "arn:aws:iam::1:role/x");
  CHECK(swerex__profile_get(&profile, "a b", "empty") == NULL);
  CHECK_STR(swerex__profile_get(&profile, "services s", "ecs.endpoint_url"), "http://x:1");
  CHECK_STR(swerex__profile_get(&profile, "services s", "ec2.endpoint_url"), "y");
  CHECK_STR(swerex__profile_get(&profile, "services s", "z"), "1");
  CHECK(swerex__profile_has(&profile, "a b"));
  CHECK(!swerex__profile_has(&profile, "profile a b"));
  swerex__profile_clear(&profile);
  static const struct {
    const char *text, *why;
  } bad[] = {{"x = 1\n", "line 1"}, {"[a]\n[b\n", "line 2"}, {"[a]\n\nfoo\n", "line 3"},
             {"[]\n", "line 1"}, {"[a] # b\n[\n", "line 2"}, {"[a]\n= 1\n", "line 2"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(!read_profile(bad[i].text, &profile, &err));
    CHECK(strstr(err.message, bad[i].why) != NULL);
    swerex__profile_clear(&profile);
    swerex_error_clear(&err);
  }
}

TEST(addresses) {
  static const struct {
    swerex__profile_service service;
    const char *region, *url, *scope;
  } rows[] = {
    {SWEREX__PROFILE_ECS, "us-east-1", "https://ecs.us-east-1.amazonaws.com", "us-east-1"},
    {SWEREX__PROFILE_IAM, "eu-west-1", "https://iam.amazonaws.com", "us-east-1"},
    {SWEREX__PROFILE_EC2, "cn-north-1", "https://ec2.cn-north-1.amazonaws.com.cn", "cn-north-1"},
    {SWEREX__PROFILE_IAM, "us-gov-east-1", "https://iam.us-gov.amazonaws.com", "us-gov-west-1"},
    {SWEREX__PROFILE_STS, "us-isob-east-1", "https://sts.us-isob-east-1.sc2s.sgov.gov",
     "us-isob-east-1"},
    {SWEREX__PROFILE_LOGS, "xx-new-1", "https://logs.xx-new-1.amazonaws.com", "xx-new-1"},
  };
  swerex__profile profile;
  memset(&profile, 0, sizeof profile);
  profile.name = (char *)"default";
  unsetenv("AWS_ENDPOINT_URL");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char url[512];
    const char *scope;
    swerex__profile_address(&profile, rows[i].service, rows[i].region, url, &scope);
    CHECK_STR(url, rows[i].url);
    CHECK_STR(scope, rows[i].scope);
  }
}

/** Make a deployment whose names can be asked for. */
static swerex_deployment *named(swerex_loop *loop, const char *json) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_deployment *box = swerex_get_deployment_json(loop, json, 0, &err);
  CHECK(box != NULL);
  if (box == NULL) {
    printf("# %s\n", err.message);
    exit(1);
  }
  setenv("AWS_DEFAULT_REGION", "us-east-1", 1);
  setenv("HOME", "/nonexistent", 1);
  CHECK(swerex__task_open(box, &err) == NULL);
  CHECK_INT(err.code, SWEREX_E_OK);
  return box;
}

static const char *name_of(swerex_deployment *box, void (*write)(const void *, swerex__str *),
                           const char *prefix) {
  static char name[256];
  swerex__str text = swerex__str_new(NULL, 65536);
  write(box, &text);
  swerex__fargate_name(name, sizeof name, prefix, &text);
  swerex__str_clear(&text);
  return name;
}

static const char *definition_of(swerex_deployment *box) {
  snprintf(swerex__fargate_of(box)->role_arn, 512,
           "arn:aws:iam::123456789012:role/swe-rex-execution-role-011809e9671d");
  return name_of(box, swerex__fargate_write_definition, "swe-rex-task");
}

TEST(names_are_the_originals) {
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment *box = named(loop, "{\"type\":\"fargate\"}");
  CHECK_STR(name_of(box, swerex__fargate_write_rule, "swe-rex-deployment-sg"),
            "swe-rex-deployment-sg-b9ccad2f016f");
  CHECK_STR(name_of(box, swerex__fargate_write_policy, "swe-rex-execution-role"),
            "swe-rex-execution-role-011809e9671d");
  CHECK_STR(definition_of(box), "swe-rex-task-c0b4b559b6ac");
  CHECK_STR(swerex__fargate_of(box)->container, "python311");
  box = named(loop, "{\"type\":\"fargate\",\"log_group\":null}");
  CHECK_STR(definition_of(box), "swe-rex-task-462ced5935e7");
  box = named(loop, "{\"type\":\"fargate\",\"port\":8000}");
  CHECK_STR(name_of(box, swerex__fargate_write_rule, "swe-rex-deployment-sg"),
            "swe-rex-deployment-sg-acfa4c27f3aa");
  char container[256];
  swerex__fargate_name_container("public.ecr.aws/v0o5q4h6/test-namespace/test-repo-1:latest",
                                 container);
  CHECK_STR(container, "publicecrawsv0o5q4h6test-namespacetest-repo-1latest");
  char image[400];
  memset(image, 'a', sizeof image - 1);
  image[399] = '\0';
  swerex__fargate_name_container(image, container);
  CHECK_INT((int)strlen(container), 64);
  swerex__str text = swerex__str_new(NULL, 256);
  swerex__fargate_quote(&text, "\xC3\xA4\"\\\n\xF0\x9F\x98\x80");
  CHECK_STR(text.data, "\"\\u00e4\\\"\\\\\\n\\ud83d\\ude00\"");
  swerex__str_clear(&text);
  swerex_loop_free(loop);
}

TEST(bad_configurations) {
  static const struct {
    const char *json, *why;
  } rows[] = {
    {"\"port\":70000", "port"},
    {"\"nope\":1", "nope"},
    {"\"cpu_architecture\":\"mips\"", "X86_64"},
    {"\"fargate_args\":{\"vcpus\":\"3\"}", "vcpus"},
    {"\"fargate_args\":{\"vcpus\":\"4\",\"memory\":\"2048\"}", "8192 to 30720"},
    {"\"fargate_args\":{\"vcpus\":\".25\",\"memory\":\"1536\"}", "but not 1536"},
    {"\"fargate_args\":{\"ephemeral_storage\":\"5\"}", "21 to 200"},
    {"\"fargate_args\":{\"containerOverrides\":\"[]\"}", "containerOverrides"},
    {"\"execution_role_prefix\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", "51"},
    {"\"security_groups\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\"]", "at most 5"},
  };
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_error err = SWEREX_ERROR_INIT;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char json[512];
    snprintf(json, sizeof json, "{\"type\":\"fargate\",%s}", rows[i].json);
    CHECK(swerex_get_deployment_json(loop, json, 0, &err) == NULL);
    CHECK_INT(err.code, SWEREX_E_VALIDATION);
    CHECK(strstr(err.message, rows[i].why) != NULL);
  }
  static const struct {
    const char *args;
    int cpu, memory;
  } good[] = {{"", 1024, 2048}, {"\"vcpus\":\"0.25\",\"memory\":\"512\"", 256, 512},
              {"\"vcpus\":\".5\"", 512, 2048}, {"\"vcpus\":\"2\"", 2048, 4096},
              {"\"vcpus\":\"16\",\"memory\":\"40GB\"", 16384, 40960}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    char json[512];
    int cpu, memory, disk;
    snprintf(json, sizeof json, "{\"type\":\"fargate\",\"fargate_args\":{%s}}", good[i].args);
    swerex_deployment *box = swerex_get_deployment_json(loop, json, 0, &err);
    CHECK(box != NULL && swerex__ecs_read_sizes(box, &cpu, &memory, &disk, &err));
    CHECK_INT(cpu, good[i].cpu);
    CHECK_INT(memory, good[i].memory);
  }
  static const char *const args[] = {"vcpus", NULL};
  swerex_deployment_config config;
  memset(&config, 0, sizeof config);
  config.type = SWEREX_DEPLOYMENT_FARGATE;
  config.u.fargate.fargate_args = args;
  CHECK(swerex_get_deployment(loop, &config, &err) == NULL);
  CHECK_STR(err.message, "fargate_args: vcpus is not KEY=VALUE");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(how_long_a_task_lives) {
  static const struct {
    double seconds;
    const char *part;
  } rows[] = {{0, "exec timeout 900 /bin/sh"}, {900, "exec timeout 900 /bin/sh"},
              {0.5, "exec timeout 1 /bin/sh"}, {30.5, "(sleep 31; "},
              {SWEREX_FOREVER, "; exec /bin/sh -c \"$s\""}, {1e300, "; exec /bin/sh -c \"$s\""}};
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    swerex_deployment_config config;
    swerex__str out = swerex__str_new(NULL, 65536);
    memset(&config, 0, sizeof config);
    config.type = SWEREX_DEPLOYMENT_FARGATE;
    config.u.fargate.container_timeout = rows[i].seconds;
    swerex_deployment *box = swerex_get_deployment(loop, &config, NULL);
    CHECK(box != NULL);
    if (box != NULL) swerex__ecs_write_command(box, &out);
    CHECK(out.data != NULL && strstr(out.data, rows[i].part) != NULL);
    swerex__str_clear(&out);
  }
  swerex_loop_free(loop);
}

TEST(overrides_that_are_too_long) {
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_error err = SWEREX_ERROR_INIT;
  char json[9000];
  int size = snprintf(json, sizeof json, "{\"type\":\"fargate\",\"region\":\"eu-west-1\","
                                         "\"fargate_args\":{\"x\":\"%08000d\"}}", 0);
  CHECK(size < (int)sizeof json);
  swerex_deployment *box = swerex_get_deployment_json(loop, json, 0, &err);
  CHECK(box != NULL);
  CHECK(!swerex_deployment_start(box, &err));
  CHECK(strstr(err.message, "8192") != NULL);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

/** Let a row judge an answer to a deployment's call. */
static swerex__aws_verdict judge(swerex_deployment *box, const swerex__aws_row *row,
                                 const char *json, double waited, void *response,
                                 swerex_error *err) {
  swerex__doc doc;
  swerex__answer answer = {200, true, "", "", "", NULL, waited, false, response};
  CHECK(swerex__doc_parse(NULL, json, strlen(json), &doc, NULL));
  answer.root = doc.root;
  swerex__aws_verdict verdict = row->took(box, row, &answer, err);
  swerex__doc_free(&doc);
  return verdict;
}

TEST(tasks_that_are_not_known) {
  static const char missing[] = "{\"tasks\":[],\"failures\":[{\"reason\":\"MISSING\"}]}";
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment *box = named(loop, "{\"type\":\"fargate\"}");
  swerex_error err = SWEREX_ERROR_INIT;
  snprintf(swerex__fargate_of(box)->task, 64, "arn:t/1");
  const swerex__aws_row *row = &swerex__task_task_rows[1];
  CHECK_INT(judge(box, row, missing, 5, NULL, &err), SWEREX__AWS_AGAIN);
  CHECK_INT(judge(box, row, missing, 31, NULL, &err), SWEREX__AWS_FAILED);
  CHECK_STR(err.message, "the task arn:t/1 is not known to AWS");
  swerex_error_clear(&err);
  CHECK_INT(judge(box, row, "{\"tasks\":[{\"lastStatus\":\"PENDING\"}]}", 599, NULL, &err),
            SWEREX__AWS_AGAIN);
  CHECK_STR(err.message, "the task is still PENDING after 599 seconds");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(a_task_whose_answer_was_not_awaited) {
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment *box = named(loop, "{\"type\":\"fargate\"}");
  swerex__fargate *fargate = swerex__fargate_of(box);
  swerex_error err = SWEREX_ERROR_INIT;
  CHECK_INT(judge(box, swerex__task_no_task_rows, "{\"taskArns\":[]}", 0, NULL, &err), SWEREX__AWS_AGAIN);
  CHECK_INT(judge(box, swerex__task_no_task_rows, "{\"taskArns\":[]}", 6, NULL, &err), SWEREX__AWS_DONE);
  CHECK_INT(judge(box, swerex__task_no_task_rows, "{\"taskArns\":[],\"nextToken\":\"n\"}", 0, NULL, &err),
            SWEREX__AWS_DONE); /* with the next page */
  CHECK_INT(judge(box, swerex__task_no_task_rows, "{\"taskArns\":[\"t\"]}", 0, NULL, &err), SWEREX__AWS_DONE);
  CHECK_INT(judge(box, swerex__task_no_task_rows, "{\"taskArns\":[]}", 0, NULL, &err), SWEREX__AWS_DONE);
  CHECK_STR(fargate->task, "t"); /* a page behind it takes nothing back */
  fargate->asked = true; /* and refused: there is none to be looked for */
  CHECK_INT(judge(box, swerex__task_task_rows, "{}", 0, NULL, &err), SWEREX__AWS_FAILED);
  CHECK(!fargate->asked);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(is_alive_says_what_the_task_does) {
  static const struct {
    const char *json, *message; /* NULL: it runs */
  } rows[] = {
    {"{\"tasks\":[{\"lastStatus\":\"RUNNING\"}]}", NULL},
    {"{\"tasks\":[{\"lastStatus\":\"STOPPED\",\"stopCode\":\"SpotInterruption\",\"stoppedReason\":\"r\","
     "\"containers\":[{\"name\":\"c\",\"exitCode\":124}]}]}",
     "the task has stopped: SpotInterruption: r; container c ended with exit code 124 (STOPPED)"},
    {"{\"tasks\":[],\"failures\":[{\"reason\":\"MISSING\"}]}",
     "the task cannot be looked at: it is not known to AWS"},
    {"[]", "the task cannot be looked at: it is not known to AWS"},
  };
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment *box = named(loop, "{\"type\":\"fargate\"}");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    swerex_is_alive_response alive = {0};
    swerex_error err = SWEREX_ERROR_INIT;
    CHECK_INT(judge(box, swerex__task_check_rows, rows[i].json, 0, &alive, &err), SWEREX__AWS_DONE);
    CHECK(alive.is_alive == (rows[i].message == NULL));
    if (rows[i].message != NULL) CHECK_STR(alive.message.data, rows[i].message);
    swerex_is_alive_response_clear(&alive);
  }
  swerex_loop_free(loop);
}

TEST(clocks) {
  double skew = 0, off = 1768480245.0 - (double)time(NULL);
  static const char date[] = "Thu, 15 Jan 2026 12:30:45 GMT";
  CHECK(!swerex__sign_learn_time("AccessDenied", date, &skew));
  CHECK(!swerex__sign_learn_time("SignatureDoesNotMatch", "nonsense", &skew));
  CHECK(skew == 0);
  CHECK(swerex__sign_learn_time("SignatureDoesNotMatch", date, &skew));
  CHECK(skew - off < 2 && off - skew < 2);
  CHECK(!swerex__sign_learn_time("SignatureDoesNotMatch", date, &skew)); /* it is right now */
}

/** Set what a start needs that goes to an address. */
static void set_environment(const char *address) {
  setenv("AWS_ACCESS_KEY_ID", "a", 1);
  setenv("AWS_SECRET_ACCESS_KEY", "b", 1);
  setenv("AWS_MAX_ATTEMPTS", "1", 1);
  setenv("HOME", "/nonexistent", 1);
  if (address == NULL)
    unsetenv("AWS_ENDPOINT_URL");
  else
    setenv("AWS_ENDPOINT_URL", address, 1);
}

TEST(https_needs_libcurl) {
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_error err = SWEREX_ERROR_INIT;
  set_environment(NULL);
  swerex_deployment *box = named(loop, "{\"type\":\"fargate\",\"region\":\"eu-west-1\"}");
  CHECK(!swerex_deployment_start(box, &err));
  CHECK_INT(err.code, SWEREX_E_UNSUPPORTED);
  CHECK_STR(err.message, "ecs.eu-west-1.amazonaws.com:443: https is not in this build: compile with "
                         "-DSWEREX_USE_CURL=1 and -lcurl, or with -DSWEREX_USE_CURL=2 to load "
                         "libcurl when it is needed");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(nobody_answers) {
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_error err = SWEREX_ERROR_INIT;
  set_environment("http://127.0.0.1:1");
  swerex_deployment *box = named(loop, "{\"type\":\"fargate\"}");
  for (int i = 0; i < 2; i++) { /* it can be tried again */
    CHECK(!swerex_deployment_start(box, &err));
    CHECK(strstr(err.message, "DescribeClusters: ") != NULL);
    swerex_error_clear(&err);
  }
  CHECK(!swerex_fargate_teardown(loop, NULL, &err));
  CHECK(strstr(err.message, "ListClusters: ") != NULL);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

/** Listen at an address that is written as a URL; nothing is ever answered there. */
static int listen_deaf(char url[64]) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(bind(fd, (struct sockaddr *)&address, size) == 0 && listen(fd, 8) == 0);
  CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
  snprintf(url, 64, "http://127.0.0.1:%d", ntohs(address.sin_port));
  return fd;
}

TEST(given_up_half_way) {
  char url[64];
  int deaf = listen_deaf(url);
  for (int way = 0; way < 4; way++) {
    swerex_loop *loop = swerex_loop_new(NULL, NULL);
    swerex_error err = SWEREX_ERROR_INIT;
    double began = swerex__util_now();
    set_environment(url);
    swerex_deployment *box = named(loop, "{\"type\":\"fargate\"}");
    swerex_future *future = way == 3 ? swerex_fargate_teardown_async(loop, NULL, &err)
                                     : swerex_deployment_start_async(box, &err);
    CHECK(future != NULL && swerex_loop_wait(loop, 0.2, &err) == NULL);
    if (way == 0) swerex_future_free(future); /* else by the loop, or: */
    if (way == 1) swerex_deployment_free(box);
    swerex_loop_free(loop);
    swerex_error_clear(&err);
    CHECK(swerex__util_now() - began < 2);
  }
  close(deaf);
}

TEST(a_machine_service_that_hangs) {
  char url[64];
  int deaf = listen_deaf(url);
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_error err = SWEREX_ERROR_INIT;
  double began = swerex__util_now();
  set_environment(url);
  unsetenv("AWS_ACCESS_KEY_ID");
  setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url, 1);
  swerex_deployment *box = named(loop, "{\"type\":\"fargate\"}");
  CHECK(!swerex_deployment_start(box, &err));
  CHECK_INT(err.code, SWEREX_E_PERMISSION);
  CHECK(strstr(err.message, "Unable to locate credentials") != NULL);
  CHECK(swerex__util_now() - began < 2);
  unsetenv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  close(deaf);
}

/** An answer that a small AWS has to a call. */
typedef struct scripted {
  const char *action;
  int status;
  const char *body;
} scripted;

typedef struct small_aws {
  pid_t pid;
  int calls; /* a line for each call: its action */
} small_aws;

/** Read a request: its action is what X-Amz-Target or the form says, or a path that is not "/". */
static bool read_call(int client, char action[64]) {
  char text[65536];
  size_t size = 0, wanted = SIZE_MAX;
  while (size < wanted) {
    ssize_t n = read(client, text + size, sizeof text - 1 - size);
    if (n <= 0) return false;
    text[size += (size_t)n] = '\0';
    const char *end = strstr(text, "\r\n\r\n"), *length = strstr(text, "content-length: ");
    if (end != NULL) wanted = (size_t)(end + 4 - text) + (length == NULL ? 0 : strtoul(length + 16, NULL, 10));
  }
  const char *target = strstr(text, "x-amz-target: "), *form = strstr(text, "Action=");
  if (sscanf(text, "%*s %60s", action) != 1 || strcmp(action, "/") != 0) return true;
  return sscanf(target != NULL ? strchr(target, '.') + 1 : form + 7, "%60[A-Za-z]", action) == 1;
}

/** Have the calls of this process go to a small AWS. Each answer is given once, an action's last always. */
static small_aws start_aws(const scripted *rows, size_t count) {
  char url[64];
  int listener = listen_deaf(url), ends[2];
  CHECK(pipe(ends) == 0);
  set_environment(url);
  small_aws aws = {fork(), ends[0]};
  for (bool used[64] = {false}; aws.pid == 0;) {
    char action[64], head[128];
    int client = accept(listener, NULL, NULL);
    if (client < 0 || count > 64) _exit(1);
    if (read_call(client, action)) {
      size_t found = count;
      for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].action, action) == 0 && (found == count || used[found])) found = i;
      const char *body = found < count ? rows[found].body : "{\"__type\":\"NotScripted\"}";
      int size = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\ncontent-length: %zu\r\nconnection: close\r\n\r\n",
                          found < count ? rows[found].status : 400, strlen(body));
      if (found < count) used[found] = true;
      strcat(action, "\n");
      if (write(ends[1], action, strlen(action)) < 0 || write(client, head, (size_t)size) < 0 ||
          write(client, body, strlen(body)) < 0)
        _exit(1);
    }
    close(client);
  }
  close(listener);
  close(ends[1]);
  return aws;
}

/** End a small AWS: the actions that it was called for, each with a line feed. */
static const char *stop_aws(small_aws *aws) {
  static char calls[16384];
  size_t size = 0;
  ssize_t n;
  kill(aws->pid, SIGKILL);
  waitpid(aws->pid, NULL, 0);
  while ((n = read(aws->calls, calls + size, sizeof calls - 1 - size)) > 0) size += (size_t)n;
  calls[size] = '\0';
  close(aws->calls);
  return calls;
}

static bool fill_nothing(void *owner, const swerex__aws_row *row, swerex__str *body) {
  (void)owner, (void)body;
  return row->kind == 0;
}

static swerex__aws_verdict took_third(void *owner, const swerex__aws_row *row,
                                      const swerex__answer *answer, swerex_error *err) {
  (void)row, (void)answer, (void)err;
  return ++*(int *)owner < 3 ? SWEREX__AWS_AGAIN : SWEREX__AWS_DONE;
}

TEST(a_row_behind_one_without_a_call_has_its_own_pauses) {
  static const scripted script[] = {{"StopTask", 200, "{}"}};
  static const swerex__aws_row rows[] = {
    {SWEREX__PROFILE_ECS, "ListTasks", 1, fill_nothing, NULL, 0, 0},
    {SWEREX__PROFILE_ECS, "StopTask", 0, fill_nothing, took_third, 20, 0.1},
  };
  small_aws fake = start_aws(script, 1);
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  int looks = 0;
  double began = swerex__util_now();
  swerex__aws *aws = swerex__aws_new(loop, &loop->logger, "us-east-1", NULL, SWEREX_E_RUNTIME, NULL);
  CHECK(aws != NULL && swerex__loop_take(swerex__aws_start(aws, rows, 2, &looks, NULL, NULL), NULL, NULL));
  CHECK(swerex__util_now() - began >= 0.25);
  swerex__aws_free(aws);
  swerex_loop_free(loop);
  CHECK_STR(stop_aws(&fake), "StopTask\nStopTask\nStopTask\n");
}

#define ROLE                                                                                       \
  "<R><AssumeRoleResult><Credentials><AccessKeyId>i</AccessKeyId><SecretAccessKey>s"               \
  "</SecretAccessKey><SessionToken>t</SessionToken></Credentials></AssumeRoleResult></R>"
#define REFUSED "{\"__type\":\"com.amazonaws.ecs#No\",\"message\":\"not you\"}"

/** Have a teardown look for credentials in a config file, or in the environment (NULL); it fails. */
static void tear_down(const char *config, swerex_error *err) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/swerex-aws-%ld", (long)getpid());
  if (config != NULL) {
    FILE *file = fopen(path, "w");
    fputs(config, file);
    fclose(file);
    unsetenv("AWS_ACCESS_KEY_ID");
    setenv("AWS_CONFIG_FILE", path, 1);
  }
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  CHECK(!swerex_fargate_teardown(loop, NULL, err));
  swerex_loop_free(loop);
  unsetenv("AWS_CONFIG_FILE");
  unlink(path);
}

TEST(an_address_may_have_a_path) {
  static const scripted script[] = {{"/base", 200, ROLE}, {"/base", 400, REFUSED}};
  small_aws fake = start_aws(script, 2);
  swerex_error err = SWEREX_ERROR_INIT;
  char url[80];
  snprintf(url, sizeof url, "%s/base/", getenv("AWS_ENDPOINT_URL"));
  setenv("AWS_ENDPOINT_URL", url, 1);
  tear_down("[default]\nregion=x\nrole_arn=r\nsource_profile=default\naws_access_key_id=a\n"
            "aws_secret_access_key=b\n", &err);
  CHECK(strstr(err.message, "ListClusters: No: not you") != NULL);
  CHECK(strstr(stop_aws(&fake), "/base\n/base\n") != NULL);
  swerex_error_clear(&err);
}

TEST(files_that_give_no_credentials) {
  static const struct {
    const char *config, *said;
  } rows[] = {
    {"[default]\ncredential_process=/nonexistent/x\n", "No such file or directory: 'credential_process'"},
    {"[default]\ncredential_process='x\n", "is not a command line"},
    {"[default]\ncredential_process=sh -c \"printf '%b' 'a\\162 \\\" z' >&2\"\n", "it says: ar \" z"},
    {"[default]\ncredential_process=echo {}\n", "it must end within 60 seconds with status 0"},
    {"[default]\naws_access_key_id=a\n", "in the profile default, missing: aws_secret_access_key"},
    {"[default]\nrole_arn=a\ncredential_source=Environment\n", "no keys are in the environment"},
    {"[default]\nrole_arn=a\nsource_profile=b\n[b]\nx=1\n", "the source profiles of default lead to no"},
    {"[default]\nrole_arn=a\nsource_profile=b\nmfa_serial=x\n[b] ; b\nx=1\n", "asks for an MFA code"},
    {"[default]\nrole_arn=a\nweb_identity_token_file=/dev/null\nendpoint_url=ftp://x\n", "only http, https"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    set_environment(NULL);
    tear_down(rows[i].config, &err);
    CHECK_INT(err.code, SWEREX_E_PERMISSION);
    CHECK_INT(err.http_status, 0);
    CHECK(strstr(err.message, rows[i].said) != NULL);
    if (strstr(err.message, rows[i].said) == NULL) printf("# %s\n", err.message);
    swerex_error_clear(&err);
  }
}

/** Tell whether a service of credentials may be at an address. */
static bool may_ask(const char *address) {
  swerex__web_url url;
  CHECK(swerex__web_parse_url(NULL, address, 0, &url, NULL));
  bool may = swerex__creds_may_ask(&url);
  swerex__web_clear_url(&url);
  return may;
}

TEST(services_that_give_no_credentials) {
  static const struct {
    scripted script[3];
    const char *said;
  } rows[] = {
    {{{"/c", 200, "{}"}}, "/c: status 200, but no keys"},
    {{{"/c", 200, "<a/>"}}, "/c: status 200, but no keys"},
    {{{"/c", 404, "{\"code\":\"x\",\"message\":\"no such task\"}"}}, "/c: status 404: no such task"},
    {{{"/latest/api/token", 200, ""}}, "Unable to locate credentials"},
    {{{"/latest/api/token", 200, "t"}, {"/latest/meta-data/iam/security-credentials/", 200, "a b"}},
     "Unable to locate credentials"},
    {{{"/latest/api/token", 200, "t"}, {"/latest/meta-data/iam/security-credentials/", 200, "r"},
      {"/latest/meta-data/iam/security-credentials/r", 200, "{\"Code\":\"No\",\"Message\":\"no profile\"}"}},
     "/r: status 200: no profile"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    size_t count = 1;
    while (count < 3 && rows[i].script[count].action != NULL) count++;
    small_aws fake = start_aws(rows[i].script, count);
    char url[80];
    snprintf(url, sizeof url, "%s/c", getenv("AWS_ENDPOINT_URL"));
    unsetenv("AWS_ACCESS_KEY_ID");
    setenv(i < 3 ? "AWS_CONTAINER_CREDENTIALS_FULL_URI" : "AWS_EC2_METADATA_SERVICE_ENDPOINT",
           i < 3 ? url : getenv("AWS_ENDPOINT_URL"), 1);
    tear_down(NULL, &err);
    CHECK(strstr(err.message, rows[i].said) != NULL);
    if (strstr(err.message, rows[i].said) == NULL) printf("# %s\n", err.message);
    unsetenv("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    unsetenv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    swerex_error_clear(&err);
    stop_aws(&fake);
  }
  CHECK(may_ask("http://127.0.0.2:1") && may_ask("http://[::1]") && may_ask("https://x"));
  CHECK(!may_ask("http://127.example.com") && !may_ask("http://10.0.0.1"));
}

#define XML(action, inner) "<R><" action "Result>" inner "</" action "Result></R>"

/** What a small AWS says to a start in an account that has nothing, its end, and a teardown. */
static const scripted account[] = {
  {"DescribeClusters", 200, "{\"clusters\":[]}"},
  {"CreateCluster", 200, "{\"cluster\":{\"clusterArn\":\"arn:c\"}}"},
  {"GetRole", 404, "<R><Error><Code>NoSuchEntity</Code></Error></R>"},
  {"CreateRole", 200, "<R/>"},
  {"GetRole", 200, XML("GetRole", "<Role><Arn>arn:r</Arn></Role>")},
  {"ListAttachedRolePolicies", 200, "<R/>"},
  {"AttachRolePolicy", 200, "<R/>"},
  {"ListRolePolicies", 200, "<R/>"},
  {"PutRolePolicy", 200, "<R/>"},
  {"DescribeTaskDefinition", 400, "{\"__type\":\"ClientException\"}"},
  {"RegisterTaskDefinition", 200, "{\"taskDefinition\":{\"taskDefinitionArn\":\"arn:d\"}}"},
  {"DescribeVpcs", 200, "<R><vpcSet><item><vpcId>vpc-1</vpcId></item></vpcSet></R>"},
  {"DescribeSubnets", 200,
   "<R><subnetSet><item><subnetId>s-1</subnetId><state>available</state><vpcId>vpc-1</vpcId>"
   "<defaultForAz>true</defaultForAz></item></subnetSet></R>"},
  {"DescribeSecurityGroups", 200, "<R><securityGroupInfo/></R>"},
  {"CreateSecurityGroup", 200, "<R><groupId>sg-1</groupId></R>"},
  {"AuthorizeSecurityGroupIngress", 200, "<R/>"},
  {"RunTask", 200, "{\"tasks\":[{\"taskArn\":\"arn:t/1\"}]}"},
  {"DescribeTasks", 200,
   "{\"tasks\":[{\"lastStatus\":\"RUNNING\",\"attachments\":[{\"type\":\"ElasticNetworkInterface\",\"details\":["
   "{\"name\":\"privateIPv4Address\",\"value\":\"127.0.0.1\"}]}]}]}"},
  {"/is_alive", 200, "{\"is_alive\":true,\"message\":\"\"}"},
  {"/close", 200, "{}"},
  {"StopTask", 200, "{}"},
  {"DeleteSecurityGroup", 200, "<R/>"},
  {"DeregisterTaskDefinition", 200, "{}"},
  {"DeleteTaskDefinitions", 200, "{}"},
  {"DetachRolePolicy", 200, "<R/>"},
  {"DeleteRolePolicy", 200, "<R/>"},
  {"DeleteRole", 200, "<R/>"},
  {"DeleteCluster", 200, "{}"},
};
enum { ACCOUNT = sizeof account / sizeof *account };

/** Have a small AWS give these answers before those of the account. */
static small_aws start_account(const scripted *rows, size_t count) {
  static scripted script[64];
  memcpy(script, rows, count * sizeof *rows);
  memcpy(script + count, account, sizeof account);
  return start_aws(script, count + ACCOUNT);
}

/** Make a deployment whose task is the small AWS itself. */
static swerex_deployment *box_at(swerex_loop *loop, const char *more) {
  char json[400];
  snprintf(json, sizeof json, "{\"type\":\"fargate\",\"assign_public_ip\":false,\"port\":%s%s}",
           strrchr(getenv("AWS_ENDPOINT_URL"), ':') + 1, more);
  return swerex_get_deployment_json(loop, json, 0, NULL);
}

TEST(each_call_of_a_start_may_be_refused) {
  for (size_t i = 0; strcmp(account[i].action, "/is_alive") != 0; i++) {
    scripted refusal = {account[i].action, 400, REFUSED};
    char words[80], undo[80];
    swerex_error err = SWEREX_ERROR_INIT;
    small_aws fake = start_account(&refusal, 1);
    swerex_loop *loop = swerex_loop_new(NULL, NULL);
    CHECK(!swerex_deployment_start(box_at(loop, ""), &err));
    snprintf(words, sizeof words, "%s: No: not you", refusal.action);
    CHECK_STR(err.message, words);
    CHECK_INT(err.code, SWEREX_E_DEPLOYMENT_STARTUP);
    swerex_error_clear(&err);
    swerex_loop_free(loop);
    const char *calls = stop_aws(&fake);
    /* what was made goes, in the other order */
    static const char *const made[][2] = {{"CreateCluster\n", "DeleteCluster\n"}, {"CreateRole\n", "DeleteRole\n"},
                                          {"RegisterTaskDefinition\n", "DeleteTaskDefinitions\n"},
                                          {"CreateSecurityGroup\n", "DeleteSecurityGroup\n"},
                                          {"RunTask\n", "StopTask\n"}};
    for (size_t k = 0; k < 5; k++) {
      snprintf(undo, sizeof undo, "\n%s", made[k][1]);
      bool refused = strncmp(made[k][0], refusal.action, strlen(made[k][0]) - 1) == 0;
      bool there = strstr(calls, made[k][0]) != NULL && !refused;
      CHECK((strstr(calls, undo) != NULL) == there);
    }
  }
}

/** A task at an address where nobody listens. */
#define NOBODY                                                                                     \
  {                                                                                                \
    "DescribeTasks", 200,                                                                          \
      "{\"tasks\":[{\"lastStatus\":\"RUNNING\",\"attachments\":[{\"type\":\"ElasticNetworkInterface\","    \
      "\"details\":[{\"name\":\"privateIPv4Address\",\"value\":\"127.0.0.2\"}]}]}]}"                     \
  }

TEST(answers_that_a_start_cannot_use) {
  static const struct {
    scripted script[3];
    const char *more, *said;
  } rows[] = {
    {{{"CreateCluster", 200, "{}"}}, "", "CreateCluster: the answer has no clusterArn"},
    {{{"GetRole", 200, "<R/>"}}, "", "GetRole: the answer has no Arn"},
    {{{"RegisterTaskDefinition", 200, "{}"}}, "", "the answer has no taskDefinitionArn"},
    {{{"DescribeSubnets", 200, "<R/>"}}, "", "no subnet to run in"},
    {{{"RunTask", 200, "{}"}}, "", "RunTask: the answer has no taskArn"},
    {{{"RunTask", 200, "{\"failures\":[{\"reason\":\"ENI\",\"detail\":\"d\"}],\"requestId\":\"r-1\"}"}}, "",
     "RunTask: no task was started: ENI: d (request r-1)"},
    {{{"RunTask", 400, REFUSED}, {"DeleteTaskDefinitions", 400, REFUSED}}, "", "RunTask: No: not you"},
    {{{"DescribeClusters", 200, "{\"clusters\":[{\"status\":\"ACTIVE\",\"clusterArn\":\"arn:c\"}]}"},
      {"PutClusterCapacityProviders", 400, REFUSED}}, ",\"capacity_provider\":\"FARGATE_SPOT\"",
     "PutClusterCapacityProviders: No: not you"},
    {{NOBODY, {"GetLogEvents", 200, "{\"events\":[{\"message\":\"bye\"}]}"}}, ",\"runtime_timeout\":0.2",
     "the server in the task has not answered in time (runtime_timeout): "},
    {{NOBODY, {"DescribeTasks", 200, "{\"tasks\":[{\"lastStatus\":\"STOPPED\",\"stopCode\":\"Spot\"}]}"},
      {"GetLogEvents", 200, "{\"events\":[{\"message\":\"bye\"}]}"}}, ",\"runtime_timeout\":0.2",
     "the task has stopped: Spot\nThe last of its log:\nbye\n"},
    {{NOBODY, {"DescribeTasks", 400, REFUSED}}, ",\"runtime_timeout\":0.2", "DescribeTasks: No: not you"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    size_t count = 1;
    while (count < 3 && rows[i].script[count].action != NULL) count++;
    small_aws fake = start_account(rows[i].script, count);
    swerex_loop *loop = swerex_loop_new(NULL, NULL);
    CHECK(!swerex_deployment_start(box_at(loop, rows[i].more), &err));
    CHECK(strstr(err.message, rows[i].said) != NULL);
    if (strstr(err.message, rows[i].said) == NULL) printf("# %s\n", err.message);
    swerex_error_clear(&err);
    swerex_loop_free(loop);
    stop_aws(&fake);
  }
}

TEST(a_task_that_runs_is_asked_after_and_stopped) {
  static const scripted refusals[] = {{"StopTask", 400, REFUSED}};
  small_aws fake = start_account(refusals, 1);
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_is_alive_response alive = {0};
  swerex_deployment *box = box_at(loop, "");
  CHECK(swerex_deployment_start(box, &err));
  for (int i = 0; i < 2; i++) { /* it was just seen to run; it was long ago */
    CHECK(swerex_deployment_is_alive(box, NULL, &alive, &err) && alive.is_alive);
    swerex_is_alive_response_clear(&alive);
    swerex__fargate_of(box)->looked -= 60;
  }
  CHECK(!swerex_deployment_stop(box, &err));
  CHECK_INT(err.code, SWEREX_E_RUNTIME);
  CHECK_STR(err.message, "StopTask: No: not you");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  const char *calls = stop_aws(&fake), *run = strstr(calls, "RunTask\n");
  CHECK_STR(run, "RunTask\nDescribeTasks\n/is_alive\n/is_alive\nDescribeTasks\n/is_alive\n/close\nStopTask\n");
}

#define TAGS "\"tags\":[{\"key\":\"origin\",\"value\":\"swe-rex-deployment-auto\"}]"
#define XML_TAGS "<Tags><member><Key>origin</Key><Value>swe-rex-deployment-auto</Value></member></Tags>"
#define ROLES(name, more) XML("ListRoles", "<Roles><member><RoleName>swe-rex-execution-role-" name "</RoleName></member></Roles>" more)

static char told[4096]; /* items and messages, a line each */

static void on_item(void *user_data, const swerex_fargate_item *item, const swerex_error *err) {
  size_t size = strlen(told);
  (void)user_data;
  snprintf(told + size, sizeof told - size, "%s %s%s\n", item->kind, item->name, err == NULL ? "" : ": stays");
}

static void on_message(void *user_data, const swerex_log_record *record) {
  size_t size = strlen(told);
  (void)user_data;
  if (record->level >= SWEREX_LOG_WARNING)
    snprintf(told + size, sizeof told - size, "%s\n", record->message);
}

TEST(a_teardown_that_may_not_do_all) {
  static const scripted script[] = {
    {"ListClusters", 200, "{\"clusterArns\":[\"arn:cluster/c\",7]}"},
    {"DescribeClusters", 200, "{\"clusters\":[{\"status\":\"ACTIVE\"," TAGS "}]}"},
    {"ListTasks", 200, "{\"taskArns\":[\"arn:t/1\",\"arn:t/2\",7]}"},
    {"DescribeTasks", 200, "{\"tasks\":[{\"lastStatus\":\"RUNNING\"}]}"},
    {"DescribeTasks", 200, "{\"tasks\":[{\"lastStatus\":\"RUNNING\"}]}"},
    {"DescribeTasks", 200, "{\"tasks\":[{\"lastStatus\":\"STOPPED\"}]}"},
    {"StopTask", 400, REFUSED},
    {"StopTask", 200, "{}"},
    {"ListTaskDefinitions", 200, "{\"taskDefinitionArns\":[\"d/swe-rex-task-1:1\",\"d/swe-rex-task-2:1\",\"d/mine:1\"]}"},
    {"ListTaskDefinitions", 200, "{}"},
    {"DescribeTaskDefinition", 400, REFUSED},
    {"DescribeTaskDefinition", 200, "{\"taskDefinition\":{\"status\":\"ACTIVE\"}," TAGS "}"},
    {"DescribeSecurityGroups", 200, "<R><securityGroupInfo><item><groupId>sg-1</groupId></item></securityGroupInfo></R>"},
    {"ListRoles", 200, ROLES("1", "<IsTruncated>true</IsTruncated><Marker>m 1</Marker>")},
    {"ListRoles", 200, ROLES("2", "")},
    {"ListRoleTags", 403, "<R><Error><Code>AccessDenied</Code><Message>not you</Message></Error></R>"},
    {"ListRoleTags", 200, XML("ListRoleTags", XML_TAGS)},
    {"ListAttachedRolePolicies", 200,
     XML("ListAttachedRolePolicies", "<AttachedPolicies><member><PolicyArn>p</PolicyArn></member></AttachedPolicies>")},
    {"DetachRolePolicy", 404, "<R><Error><Code>NoSuchEntity</Code></Error></R>"},
    {"DeleteRole", 403, "<R><Error><Code>AccessDenied</Code></Error></R>"},
  };
  small_aws fake = start_account(script, sizeof script / sizeof *script);
  swerex_fargate_teardown_options options;
  swerex_loop_options quiet;
  swerex_error err = SWEREX_ERROR_INIT;
  memset(&options, 0, sizeof options);
  memset(&quiet, 0, sizeof quiet);
  options.on_item = on_item;
  quiet.logger.write = on_message;
  swerex_loop *loop = swerex_loop_new(&quiet, NULL);
  CHECK(!swerex_fargate_teardown(loop, &options, &err));
  CHECK_INT(err.code, SWEREX_E_RUNTIME);
  CHECK_STR(err.message, "2 failures, of which the first is: task arn:t/1: StopTask: No: not you");
  CHECK_STR(told, "d/swe-rex-task-1:1 is left alone: DescribeTaskDefinition: No: not you\n"
                  "swe-rex-execution-role-1 is left alone: ListRoleTags: AccessDenied: not you\n"
                  "task arn:t/1: stays\ntask arn:t/2\ncluster arn:cluster/c\n"
                  "task definition d/swe-rex-task-2:1\nsecurity group sg-1\n"
                  "role swe-rex-execution-role-2: stays\n");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  stop_aws(&fake);
}

TEST(a_list_without_an_end) {
  static const scripted script[] = {{"ListClusters", 200, "{\"nextToken\":\"t\"}"}};
  small_aws fake = start_aws(script, 1);
  swerex_error err = SWEREX_ERROR_INIT;
  tear_down(NULL, &err);
  CHECK_STR(err.message, "ListClusters: it answers with the same page again");
  swerex_error_clear(&err);
  CHECK_STR(stop_aws(&fake), "ListClusters\nListClusters\n");
}

TEST_MAIN()
