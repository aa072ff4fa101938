/*
 * The deployment in Modal against the small one of fake_modal.mjs, by the public functions.
 *
 *   PORT=N LOG=FILE modal [--filter TEXT | --list]     where fake_modal.mjs listens, and its log
 *
 * SWEREX_REMOTE_BINARY names a static server. Each failure is met by a start that has to fail with
 * its message in time, and behind each test every sandbox that was started has to have ended.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

#define COUNT(rows) (sizeof(rows) / sizeof *(rows))

static const char *binary;

/* --- the log of the small Modal --------------------------------------------------------------- */

static char *read_log(void) {
  swerex_bytes text = {NULL, 0};
  swerex__fs_read(NULL, getenv("LOG"), (size_t)1 << 30, &text, NULL);
  return text.data;
}

/** Count a text behind the first `from` bytes of the log. */
static int count_in_log(const char *part, size_t from) {
  char *text = read_log();
  int count = 0;
  if (text != NULL && strlen(text) > from)
    for (const char *at = text + from; (at = strstr(at, part)) != NULL; at++) count++;
  swerex__mem_free(text);
  return count;
}

static size_t log_size(void) {
  char *text = read_log();
  size_t size = text == NULL ? 0 : strlen(text);
  swerex__mem_free(text);
  return size;
}

/** Check that no sandbox runs any more. */
static void check_nothing_runs(void) {
  int started = 0, ended = 0;
  for (int i = 0; i < 40 && (i == 0 || started != ended); i++) {
    if (i > 0) usleep(100000);
    started = count_in_log("\"event\":\"started\"", 0);
    ended = count_in_log("\"event\":\"ended\"", 0);
  }
  CHECK_INT(ended, started);
}

/* --- a world ---------------------------------------------------------------------------------- */

typedef struct world {
  swerex_loop *loop;
  swerex_deployment *box;
  swerex_error err;
  char said[65536]; /* by the logger */
  char steps[16384];
  const char *stop_at; /* a step at which the start is given up; NULL: none */
  const char *stop_in_log; /* the same by the logger, which hears of it first */
  swerex_future *starting;
} world;

static void append(char *out, size_t room, const char *text) {
  size_t used = strlen(out);
  if (used + strlen(text) + 2 < room) snprintf(out + used, room - used, "%s\n", text);
}

static void on_log(void *user_data, const swerex_log_record *record) {
  world *w = (world *)user_data;
  append(w->said, sizeof w->said, record->message);
  if (w->stop_in_log != NULL && strncmp(record->message, w->stop_in_log, strlen(w->stop_in_log)) == 0) {
    w->stop_in_log = NULL;
    swerex_future_cancel(w->starting);
  }
}

static void on_step(void *user_data, const char *message) {
  world *w = (world *)user_data;
  append(w->steps, sizeof w->steps, message);
}

/** Make a world with the credentials ak-fake and the faults that are asked for. */
static void begin(world *w, const char *faults) {
  char id[256], url[64];
  const char *tls = getenv("FAKE_TLS");
  swerex_loop_options options;
  memset(w, 0, sizeof *w);
  memset(&options, 0, sizeof options);
  options.logger.write = on_log;
  options.logger.user_data = w;
  options.logger.level = SWEREX_LOG_DEBUG;
  snprintf(id, sizeof id, "ak-fake%s%s", faults[0] == '\0' ? "" : "/", faults);
  snprintf(url, sizeof url, "http%s:%s", tls == NULL ? "://127.0.0.1" : "s://localhost",
           getenv("PORT"));
  setenv("MODAL_TOKEN_ID", id, 1);
  setenv("MODAL_TOKEN_SECRET", "as-fake", 1);
  setenv("MODAL_SERVER_URL", url, 1);
  setenv("MODAL_CONFIG_PATH", "/nonexistent", 1);
  setenv("SWEREX_REMOTE_BINARY", binary, 1);
  w->loop = swerex_loop_new(&options, &w->err);
  CHECK(w->loop != NULL);
}

static bool make(world *w, const char *config) {
  swerex_deployment_hook hook = {on_step, w};
  w->box = swerex_get_deployment_json(w->loop, config, 0, &w->err);
  return w->box != NULL && swerex_deployment_add_hook(w->box, hook, &w->err);
}

static bool start(world *w, const char *config) {
  return make(w, config) && swerex_deployment_start(w->box, &w->err);
}

static void end(world *w) {
  swerex_error_clear(&w->err);
  swerex_loop_free(w->loop);
  check_nothing_runs();
}

static void check_has(const char *text, const char *part) {
  if (text != NULL && strstr(text, part) != NULL) return;
  test_fault(__FILE__, __LINE__, part);
  printf("#   not in [%.3000s]\n", text == NULL ? "(null)" : text);
}

/** Check that a start fails with these words. */
static void check_fails(const char *faults, const char *config, swerex_code code,
                        const char *words) {
  world w;
  begin(&w, faults);
  double began = swerex__util_now();
  CHECK(!start(&w, config));
  double took = swerex__util_now() - began;
  CHECK(took < 60); /* far less, but where others use the machine too */
  if (w.err.code != code || w.err.message == NULL || strstr(w.err.message, words) == NULL) {
    test_fault(__FILE__, __LINE__, faults);
    printf("#   is  %s [%.2000s]\n#   not %s [%s]\n", swerex_code_name(w.err.code),
           w.err.message == NULL ? "" : w.err.message, swerex_code_name(code), words);
  }
  end(&w);
}

/* --- what works ------------------------------------------------------------------------------- */

static void use(world *w) {
  swerex_runtime *runtime = swerex_deployment_runtime(w->box, &w->err);
  swerex_bash_action action = {.command = "x=6; echo $((x * 7))"};
  swerex_bash_observation seen = {0};
  swerex_command command = {.command = "cat up/a.txt", .shell = true, .cwd = "/tmp"};
  swerex_command_response ran = {0};
  char folder[] = "/tmp/modal-test-XXXXXX", file[64], target[64];
  CHECK(runtime != NULL);
  if (runtime == NULL) return;
  CHECK(swerex_create_session(runtime, NULL, NULL, &w->err));
  CHECK(swerex_run_in_session(runtime, &action, &seen, &w->err));
  CHECK_STR(seen.output.data, "42\n");
  swerex_bash_observation_clear(&seen);
  CHECK(mkdtemp(folder) != NULL);
  snprintf(file, sizeof file, "%s/a.txt", folder);
  snprintf(target, sizeof target, "%s-up", folder);
  CHECK(swerex__fs_write(NULL, file, "uploaded\n", 9, NULL));
  swerex_upload_request upload = {.source_path = folder, .target_path = target};
  CHECK(swerex_upload(runtime, &upload, NULL, &w->err));
  command.command = "cat a.txt; cat /proc/self/environ | tr '\\0' '\\n' | grep -c SWEREX_AUTH";
  command.cwd = target;
  CHECK(swerex_execute(runtime, &command, &ran, &w->err));
  CHECK_STR(ran.stdout_text.data, "uploaded\n0\n"); /* the token is in no child's environment */
  swerex_command_response_clear(&ran);
  command.command = "rm -rf /tmp/modal-test-*";
  command.cwd = "/";
  CHECK(swerex_execute(runtime, &command, NULL, &w->err));
}

TEST(start_use_stop) {
  world w;
  swerex_is_alive_response alive = {0};
  begin(&w, "");
  size_t from = log_size();
  CHECK(start(&w, "{\"type\":\"modal\",\"image\":\"python:3.11-slim\",\"deployment_timeout\":77}"));
  if (w.err.code != SWEREX_E_OK) printf("# %s\n", w.err.message);
  use(&w);
  CHECK(swerex_deployment_is_alive(w.box, NULL, &alive, &w.err));
  CHECK(alive.is_alive);
  swerex_is_alive_response_clear(&alive);
  check_has(w.steps, "Looking up app\nPreparing image\nBuilding image\n");
  check_has(w.steps, "Building: => Step 0: FROM python:3.11-slim\n");
  check_has(w.steps, "Starting modal sandbox\nStarting runtime\n");
  check_has(w.said, "Building: => Step 0: FROM python:3.11-slim\n");
  check_has(w.said, "Sandbox created with id sb-");
  CHECK(strstr(w.said, "as-fake") == NULL); /* the log keeps secrets */
  for (int i = 0; i < 40 && strstr(w.said, "taskId=ta-") == NULL; i++)
    swerex_loop_run(w.loop, 0.1, &w.err);
  check_has(w.said, "https://modal.com/apps/default/main/deployed/swe-rex?activeTab=logs&taskId=ta-");
  CHECK(swerex_deployment_start(w.box, &w.err)); /* refused, and nothing is made */
  check_has(w.said, "the deployment is started already: this start changes nothing");
  CHECK_INT(count_in_log("\"method\":\"SandboxCreate", from), 1);
  CHECK_INT(count_in_log("\"timeoutSecs\":77", from), 1);
  CHECK(swerex_deployment_stop(w.box, &w.err));
  CHECK(swerex_deployment_stop(w.box, &w.err));
  check_nothing_runs();
  CHECK(swerex_deployment_is_alive(w.box, NULL, &alive, &w.err));
  CHECK(!alive.is_alive);
  swerex_is_alive_response_clear(&alive);
  CHECK(swerex_deployment_start(w.box, &w.err)); /* once more, with an image that is built */
  use(&w);
  CHECK_INT(count_in_log("\"method\":\"SandboxCreate", from), 2);
  CHECK_INT(count_in_log("\"method\":\"MountPutFile", from) <= 2, 1);
  end(&w); /* stops it */
}

TEST(twenty_at_once) {
  enum { MANY = 20 };
  world w;
  swerex_deployment *boxes[MANY];
  swerex_future *futures[MANY];
  int started = 0, answered = 0;
  begin(&w, "");
  for (int i = 0; i < MANY; i++) {
    boxes[i] = swerex_get_deployment_json(w.loop, "{\"type\":\"modal\"}", 0, &w.err);
    CHECK(boxes[i] != NULL);
    futures[i] = swerex_deployment_start_async(boxes[i], &w.err);
  }
  for (int i = 0; i < MANY; i++) {
    bool ok = swerex_await(futures[i], SWEREX_FOREVER, &w.err);
    started += ok && swerex_future_take(futures[i], NULL, &w.err);
    if (w.err.code != SWEREX_E_OK) printf("# %s\n", w.err.message);
  }
  CHECK_INT(started, MANY);
  for (int i = 0; i < MANY; i++) {
    swerex_command command = {.command = "echo $((0 + 1))", .shell = true};
    swerex_command_response ran = {0};
    swerex_runtime *runtime = swerex_deployment_runtime(boxes[i], &w.err);
    answered += runtime != NULL && swerex_execute(runtime, &command, &ran, &w.err) &&
                strcmp(ran.stdout_text.data, "1\n") == 0;
    swerex_command_response_clear(&ran);
  }
  CHECK_INT(answered, MANY);
  end(&w);
}

/* --- settings --------------------------------------------------------------------------------- */

/** Write a file of settings and have it read. */
static void write_settings(const char *text) {
  CHECK(swerex__fs_write(NULL, "build/modal.toml", text, strlen(text), NULL));
  setenv("MODAL_CONFIG_PATH", "build/modal.toml", 1);
  unsetenv("MODAL_TOKEN_ID");
  unsetenv("MODAL_TOKEN_SECRET");
}

TEST(credentials) {
  static const struct {
    const char *file, *profile;
    swerex_code code;
    const char *words;
  } rows[] = {
    {NULL, NULL, SWEREX_E_PERMISSION,
     "there are no Modal credentials: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or have `modal "
     "token new` write them to /nonexistent, where the profile \"default\" is not"},
    {"[default]\ntoken_id = \"ak-fake\"\n", NULL, SWEREX_E_PERMISSION,
     "where the profile \"default\" has none"},
    {"[a]\ntoken_id=\"ak-no\"\ntoken_secret='as-no'\nactive = true # this\n"
     "[b]\ntoken_id=\"ak-fake\"\ntoken_secret='as-fake'\n",
     NULL, SWEREX_E_PERMISSION,
     "AuthTokenGet at 127.0.0.1"},
    {"[a]\ntoken_id=\"ak-no\"\n[b]\ntoken_id=\"ak-fake\"\ntoken_secret='as-fake'\n", "b",
     SWEREX_E_OK, ""},
    {"[\"a\"]\n\n# a\ntoken_id = 'ak-fake'\ntoken_secret = \"as-fake\"\nactive=true\n[b]\n", NULL,
     SWEREX_E_OK, ""},
    {"[a]\nactive = true\n[b]\nactive = true\n", NULL, SWEREX_E_VALUE,
     "the profiles a and b are both active: set MODAL_PROFILE"},
    {"[a]\ntoken_id = [1]\n", NULL, SWEREX_E_VALUE,
     "build/modal.toml: line 2 cannot be read: it is no key = value"},
    {"a = 1\n", NULL, SWEREX_E_VALUE, "line 1 cannot be read: it stands before the first"},
    {"[a] b\n", NULL, SWEREX_E_VALUE, "line 1 cannot be read: more stands behind it"},
    {"[a\n", NULL, SWEREX_E_VALUE, "line 1 cannot be read: it is no [profile]"},
    {"[a]\nb = \"c\n", NULL, SWEREX_E_VALUE, "line 2 cannot be read"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    world w;
    begin(&w, "");
    if (rows[i].file != NULL)
      write_settings(rows[i].file);
    else
      unsetenv("MODAL_TOKEN_ID");
    if (rows[i].profile != NULL) setenv("MODAL_PROFILE", rows[i].profile, 1);
    bool ok = start(&w, "{\"type\":\"modal\"}");
    CHECK_INT(w.err.code, rows[i].code);
    CHECK(ok == (rows[i].code == SWEREX_E_OK));
    if (!ok) check_has(w.err.message, rows[i].words);
    unsetenv("MODAL_PROFILE");
    end(&w);
  }
}

TEST(wrong_credentials) {
  world w;
  begin(&w, "");
  setenv("MODAL_TOKEN_SECRET", "as-wrong", 1);
  CHECK(!start(&w, "{\"type\":\"modal\"}"));
  CHECK_INT(w.err.code, SWEREX_E_PERMISSION);
  check_has(w.err.message, "UNAUTHENTICATED: Token validation failed");
  check_has(w.err.message, "; check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or have `modal token new`");
  CHECK(strstr(w.err.message, "as-wrong") == NULL && strstr(w.said, "as-wrong") == NULL);
  end(&w);
}

TEST(environment) {
  world w;
  begin(&w, "");
  CHECK(!start(&w, "{\"type\":\"modal\",\"environment\":\"nosuch\"}"));
  check_has(w.err.message, "NOT_FOUND: Environment 'nosuch' not found");
  end(&w);
  size_t from = log_size();
  begin(&w, "");
  setenv("MODAL_ENVIRONMENT", "dev", 1);
  setenv("MODAL_IMAGE_BUILDER_VERSION", "2024.10", 1);
  CHECK(start(&w, "{\"type\":\"modal\",\"app_name\":\"mine\"}"));
  CHECK_INT(count_in_log("\"message\":{\"appName\":\"mine\",\"environmentName\":\"dev\"", from), 1);
  CHECK_INT(count_in_log("\"method\":\"EnvironmentGetOrCreate", from), 0);
  CHECK_INT(count_in_log("\"builderVersion\":\"2024.10\"", from), 1);
  unsetenv("MODAL_ENVIRONMENT");
  unsetenv("MODAL_IMAGE_BUILDER_VERSION");
  end(&w);
}

static char environment_variable[] = "MODAL_ENVIRONMENT=dev";

static void change_environment(void *user_data, const char *message) {
  (void)user_data;
  if (strcmp(message, "Preparing image") == 0)
    memcpy(environment_variable, "MODAL_ENVIRONMENT=new", sizeof environment_variable);
}

/** A start keeps to the environment that it began with, whatever becomes of the variable. */
TEST(environment_that_changes) {
  world w;
  swerex_deployment_hook hook = {change_environment, NULL};
  size_t from = log_size();
  begin(&w, "");
  CHECK(putenv(environment_variable) == 0);
  CHECK(make(&w, "{\"type\":\"modal\"}"));
  CHECK(swerex_deployment_add_hook(w.box, hook, &w.err));
  CHECK(swerex_deployment_start(w.box, &w.err));
  CHECK(count_in_log("\"environmentName\":\"dev\"", from) > 1);
  CHECK_INT(count_in_log("\"environmentName\":\"new\"", from), 0);
  unsetenv("MODAL_ENVIRONMENT");
  end(&w);
}

TEST(settings_that_cannot_be) {
  static const char *const rows[][3] = {
    {"MODAL_MAX_THROTTLE_WAIT", "long", "MODAL_MAX_THROTTLE_WAIT: long is no number of seconds"},
    {"MODAL_MAX_THROTTLE_WAIT", "-1", "MODAL_MAX_THROTTLE_WAIT: -1 is no number of seconds"},
    {"MODAL_SERVER_URL", "ftp://modal", "host ftp://modal: only http, https and unix are known"},
    {"MODAL_SERVER_URL", ",", "there is no server's address"},
    {"MODAL_TOKEN_SECRET", "as fake", "MODAL_TOKEN_ID or MODAL_TOKEN_SECRET has a blank"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    world w;
    begin(&w, "");
    setenv(rows[i][0], rows[i][1], 1);
    CHECK(!start(&w, "{\"type\":\"modal\"}"));
    CHECK_INT(w.err.code, SWEREX_E_VALUE);
    check_has(w.err.message, rows[i][2]);
    unsetenv(rows[i][0]);
    end(&w);
  }
}

/** Run a command in the sandbox, which shall print this. */
static void check_says(world *w, const char *text, const char *expected) {
  swerex_runtime *runtime = swerex_deployment_runtime(w->box, &w->err);
  swerex_command command = {.command = text, .shell = true};
  swerex_command_response ran = {0};
  CHECK(runtime != NULL && swerex_execute(runtime, &command, &ran, &w->err));
  CHECK_STR(ran.stdout_text.data, expected);
  swerex_command_response_clear(&ran);
}

/* --- modal_sandbox_kwargs --------------------------------------------------------------------- */

TEST(kwargs) {
  static const char all[] =
    "{\"type\":\"modal\",\"modal_sandbox_kwargs\":{\"cpu\":[0.5,2],\"memory\":4096,\"gpu\":\"a100:2\","
    "\"region\":[\"us-east\",\"eu\"],\"cloud\":\"aws\",\"workdir\":\"/tmp\",\"env\":{\"E1\":\"v1\"},"
    "\"secrets\":[\"known\",{\"env\":{\"FOO\":\"bar\"},\"name\":null}],\"block_network\":false,"
    "\"cidr_allowlist\":[\"10.0.0.0/8\"],\"encrypted_ports\":[8000],\"i6pn\":true,"
    "\"volumes\":{\"/data\":\"data\",\"/more\":{\"name\":\"more\",\"read_only\":true,"
    "\"create_if_missing\":true,\"sub_path\":null}},\"verbose\":true,\"idle_timeout\":100,\"name\":null,"
    "\"experimental_options\":{\"a\":\"b\",\"c\":true},\"h2_ports\":[8001],\"unencrypted_ports\":[8002],"
    "\"inbound_cidr_allowlist\":[\"10.0.0.0/9\"],\"outbound_domain_allowlist\":[\"a.b\"]}}";
  static const char *const sent[] = {
    "\"resources\":{\"memoryMb\":4096,\"milliCpu\":500,\"gpuConfig\":{\"count\":2,\"gpuType\":\"A100\"}",
    "\"milliCpuMax\":2000", "\"schedulerPlacement\":{\"regions\":[\"us-east\",\"eu\"]}",
    "\"cloudProviderStr\":\"aws\"", "\"workdir\":\"/tmp\"", "\"i6pnEnabled\":true",
    "\"allowedCidrs\":[\"10.0.0.0/8\"],\"allowedDomains\":[\"a.b\"]",
    "\"ports\":[{\"port\":8000},{\"port\":8880,\"unencrypted\":true},{\"port\":8002,\"unencrypted\":true},"
    "{\"port\":8001,", "\"inboundCidrAllowlist\":[\"10.0.0.0/9\"]", "{\"a\":\"b\",\"c\":\"True\"}",
    "\"mountPath\":\"/data\",\"allowBackgroundCommits\":true}", "\"readOnly\":true",
    "\"idleTimeoutSecs\":100", "\"verbose\":true", "\"envDict\":{\"FOO\":\"bar\"}",
  };
  world w;
  begin(&w, "");
  size_t from = log_size();
  CHECK(start(&w, all));
  if (w.err.code != SWEREX_E_OK) printf("# %s\n", w.err.message);
  check_says(&w, "echo $E1 $FOO", "v1 bar\n");
  for (size_t i = 0; i < COUNT(sent); i++) {
    CHECK(count_in_log(sent[i], from) > 0);
    if (count_in_log(sent[i], from) == 0) printf("# %s\n", sent[i]);
  }
  end(&w);
}

/** Secrets of newer sandboxes, and a name that is taken. */
TEST(kwargs_of_newer_sandboxes) {
  static const char config[] =
    "{\"type\":\"modal\",\"modal_sandbox_kwargs\":{\"secrets\":[\"known\",{\"env\":{\"FOO\":\"bar\"}}],"
    "\"name\":\"mine\"}}";
  const char *before = getenv("MODAL_SANDBOX_V2");
  world w;
  setenv("MODAL_SANDBOX_V2", "1", 1);
  begin(&w, "");
  CHECK(start(&w, config));
  if (w.err.code != SWEREX_E_OK) printf("# %s\n", w.err.message);
  check_says(&w, "echo $NAMED_SECRET $FOO", "yes bar\n");
  CHECK(!start(&w, config));
  check_has(w.err.message, "ALREADY_EXISTS: Sandbox 'mine' exists");
  if (before == NULL) unsetenv("MODAL_SANDBOX_V2");
  end(&w);
}

TEST(kwargs_that_are_refused) {
  static const struct {
    const char *kwargs, *words;
  } rows[] = {
    {"{\"cpus\":2}",
     "modal_sandbox_kwargs.cpus is not known here; these are: block_network, cidr_allowlist, "
     "cloud, cpu, encrypted_ports, env, experimental_options, gpu, h2_ports, i6pn,"},
    {"{\"cpu\":\"2\"}", "modal_sandbox_kwargs.cpu: it is not a number, or [request, limit]"},
    {"{\"cpu\":-1}", "modal_sandbox_kwargs.cpu: it is not"},
    {"{\"cpu\":1e99}", "modal_sandbox_kwargs.cpu: it is not"},
    {"{\"memory\":[1,2,3]}", "modal_sandbox_kwargs.memory: it is not a number of MiB"},
    {"{\"gpu\":\"A100:0\"}", "modal_sandbox_kwargs.gpu: it is not a type such as"},
    {"{\"gpu\":\":2\"}", "modal_sandbox_kwargs.gpu: it is not"},
    {"{\"region\":[1]}", "modal_sandbox_kwargs.region: it is not a name"},
    {"{\"workdir\":\"tmp\"}", "modal_sandbox_kwargs.workdir: it is not an absolute path"},
    {"{\"env\":{\"A\":1}}", "modal_sandbox_kwargs.env: it is not an object of texts"},
    {"{\"secrets\":\"a\"}", "modal_sandbox_kwargs.secrets: it is not a list of names"},
    {"{\"secrets\":[\"\"]}", "modal_sandbox_kwargs.secrets: it is not a list of names"},
    {"{\"secrets\":[{}]}", "modal_sandbox_kwargs.secrets: it is not a list of names"},
    {"{\"secrets\":[{\"name\":\"a\",\"env\":{}}]}", "modal_sandbox_kwargs.secrets: it is not"},
    {"{\"secrets\":[{\"env\":{\"A B\":\"c\"}}]}", "modal_sandbox_kwargs.secrets: it is not"},
    {"{\"secrets\":[{\"names\":\"a\"}]}", "modal_sandbox_kwargs.secrets: names is not known"},
    {"{\"volumes\":{\"/a\":{\"name\":\"a\",\"readonly\":true}}}",
     "modal_sandbox_kwargs.volumes: readonly is not known"},
    {"{\"volumes\":{\"/a\":{\"name\":\"a\",\"read_only\":1}}}", "modal_sandbox_kwargs.volumes: it is not"},
    {"{\"volumes\":{\"/a\":{\"env\":{}}}}", "modal_sandbox_kwargs.volumes: env is not known"},
    {"{\"volumes\":[]}", "modal_sandbox_kwargs.volumes: it is not an object of paths"},
    {"{\"experimental_options\":{\"a\":[]}}", "experimental_options: it is not an object of texts"},
    {"{\"experimental_options\":1}", "modal_sandbox_kwargs.experimental_options: it is not"},
    {"{\"block_network\":true}", "could not be reached without a network"},
    {"{\"encrypted_ports\":[8880]}", "port 8880 is that of the server"},
    {"{\"encrypted_ports\":[70000]}", "modal_sandbox_kwargs.encrypted_ports: it is not"},
    {"{\"cidr_allowlist\":[\"a\"],\"outbound_cidr_allowlist\":[\"b\"]}", "give one of them"},
    {"{\"volumes\":{\"/tmp\":\"a\"}}", "no volume can be at \"/tmp\""},
    {"{\"volumes\":{\"data\":\"a\"}}", "no volume can be at \"data\""},
    {"{\"volumes\":{\"/a/\":\"a\"}}", "no volume can be at \"/a/\""},
    {"{\"volumes\":{\"/a/../tmp\":\"a\"}}", "no volume can be at \"/a/../tmp\""},
    {"{\"volumes\":{\"/./tmp\":\"a\"}}", "no volume can be at \"/./tmp\""},
    {"{\"volumes\":{\"//tmp\":\"a\"}}", "no volume can be at \"//tmp\""},
    {"{\"gpu\":\"A100:4294967297\"}", "modal_sandbox_kwargs.gpu: it is not"},
    {"{\"encrypted_ports\":[80.5]}", "modal_sandbox_kwargs.encrypted_ports: it is not"},
    {"{\"timeout\":1}", "modal_sandbox_kwargs.timeout: the configuration's deployment_timeout is it"},
    {"[]", "modal_sandbox_kwargs"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    char config[400];
    world w;
    begin(&w, "");
    snprintf(config, sizeof config, "{\"type\":\"modal\",\"modal_sandbox_kwargs\":%s}",
             rows[i].kwargs);
    CHECK(!make(&w, config));
    CHECK(swerex_code_is(w.err.code, SWEREX_E_VALUE));
    check_has(w.err.message, rows[i].words);
    end(&w);
  }
  static const char *const texts[][2] = {
    {"[]", "modal_sandbox_kwargs: it is no JSON object"},
    {"{", "modal_sandbox_kwargs: Expecting property name"},
  };
  for (size_t i = 0; i < COUNT(texts); i++) { /* of C's struct */
    swerex_deployment_config config = {.type = SWEREX_DEPLOYMENT_MODAL};
    world w;
    begin(&w, "");
    config.u.modal.modal_sandbox_kwargs = texts[i][0];
    CHECK(swerex_get_deployment(w.loop, &config, &w.err) == NULL);
    check_has(w.err.message, texts[i][1]);
    end(&w);
  }
  static const char *const times[] = {"-1", "0", "86401", "1e300"};
  for (size_t i = 0; i < COUNT(times); i++) {
    char config[80];
    world w;
    begin(&w, "");
    snprintf(config, sizeof config, "{\"type\":\"modal\",\"deployment_timeout\":%s}", times[i]);
    CHECK(!make(&w, config));
    CHECK_INT(w.err.code, SWEREX_E_VALIDATION);
    check_has(w.err.message, "deployment_timeout: Modal ends a sandbox after 1 to 86400 seconds");
    end(&w);
  }
  check_fails("", "{\"type\":\"modal\",\"modal_sandbox_kwargs\":{\"secrets\":[\"nosuch\"]}}",
              SWEREX_E_DEPLOYMENT_STARTUP, "SecretGetOrCreate at 127.0.0.1");
  check_fails("", "{\"type\":\"modal\",\"modal_sandbox_kwargs\":{\"volumes\":{\"/a\":\"nosuch\"}}}",
              SWEREX_E_DEPLOYMENT_STARTUP, "NOT_FOUND: Volume 'nosuch' not found");
}

/* --- images ----------------------------------------------------------------------------------- */

TEST(images_that_cannot_be) {
  check_fails("", "{\"type\":\"modal\",\"image\":\"nosuch:1\"}", SWEREX_E_DEPLOYMENT_STARTUP,
              "the build of image nosuch:1 failed: FROM nosuch:1: not found");
  check_fails("", "{\"type\":\"modal\",\"image\":\"nosuch:1\"}", SWEREX_E_DEPLOYMENT_STARTUP,
              "The end of its log:\nBuilding image with 1 steps\n=> Step 0: FROM nosuch:1\n");
  check_fails("", "{\"type\":\"modal\",\"image\":\"./Nofile\"}", SWEREX_E_FILE_NOT_FOUND,
              "image: there is no Dockerfile ./Nofile");
}

TEST(registries) {
  static const char ecr[] =
    "{\"type\":\"modal\",\"image\":\"123456789012.dkr.ecr.eu-west-1.amazonaws.com/a:1\"}";
  world w;
  unsetenv("AWS_ACCESS_KEY_ID");
  check_fails("", ecr, SWEREX_E_PERMISSION, "is in ECR, and there are no AWS credentials");
  setenv("AWS_ACCESS_KEY_ID", "AKIA", 1);
  setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
  size_t from = log_size();
  begin(&w, "");
  CHECK(start(&w, ecr));
  CHECK_INT(count_in_log("\"envDict\":{\"AWS_ACCESS_KEY_ID\":\"AKIA\",\"AWS_SECRET_ACCESS_KEY\":"
                         "\"secret\",\"AWS_REGION\":\"eu-west-1\"}",
                         from),
            1);
  end(&w);
  setenv("DOCKER_USERNAME", "u", 1);
  setenv("DOCKER_PASSWORD", "wrong", 1);
  check_fails("", "{\"type\":\"modal\",\"image\":\"private:1\"}", SWEREX_E_DEPLOYMENT_STARTUP,
              "registry login: 401 Unauthorized");
  setenv("DOCKER_PASSWORD", "right", 1);
  from = log_size();
  begin(&w, "");
  CHECK(start(&w, "{\"type\":\"modal\",\"image\":\"private:2\"}"));
  CHECK_INT(count_in_log("{\"REGISTRY_USERNAME\":\"u\",\"REGISTRY_PASSWORD\":\"right\"}", from), 1);
  unsetenv("DOCKER_USERNAME");
  unsetenv("DOCKER_PASSWORD");
  end(&w);
}

static void put(const char *name, const char *text) {
  char path[128];
  snprintf(path, sizeof path, "build/modal-context/%s", name);
  CHECK(swerex__fs_write(NULL, path, text, strlen(text), NULL));
}

TEST(dockerfiles) {
  static const char config[] =
    "{\"type\":\"modal\",\"image\":\"build/modal-context/Dockerfile\"}";
  world w;
  CHECK(system("rm -rf build/modal-context") == 0);
  put("a.txt", "a");
  put("src/main.c", "m");
  put("src/deep/b.o", "o");
  put("src/deep/b.c", "c");
  put("src/keep.o", "k");
  put("other/no.txt", "n");
  put("with space.txt", "s");
  put(".dockerignore", "# no comment here\n**/*.o\n!src/keep.o\n");
  put("Dockerfile", "FROM python:3.11\n# COPY nothing /\nCOPY a.txt \\\n  # between\n \"with "
                    "space.txt\" /x/\ncopy --chmod=755 ./src /src\nCOPY --from=base /y /y\n");
  size_t from = log_size();
  begin(&w, "");
  CHECK(start(&w, config));
  if (w.err.code != SWEREX_E_OK) printf("# %s\n", w.err.message);
  static const char *const sent[] = {"/a.txt", "/src/deep/b.c", "/src/keep.o", "/src/main.c",
                                     "/with space.txt"};
  for (size_t i = 0; i < COUNT(sent); i++) {
    char name[64];
    snprintf(name, sizeof name, "\"filename\":\"%s\"", sent[i]);
    CHECK_INT(count_in_log(name, from), 1);
  }
  CHECK_INT(count_in_log("\"filename\":", from), (int)COUNT(sent) + 1); /* and the server */
  CHECK_INT(count_in_log("\"dockerfileCommands\":[\"FROM python:3.11\",\"# COPY nothing /\"", from),
            1);
  end(&w);
  put("Dockerfile", "FROM a\nCOPY --mystery=1 a.txt /\n");
  check_fails("", config, SWEREX_E_VALUE, "--mystery=1 is not understood here");
  put("Dockerfile", "FROM a\nCOPY missing.txt /\n");
  check_fails("", config, SWEREX_E_DEPLOYMENT_STARTUP, "file not found in build context");
  CHECK(system("head -c 4194304 /dev/zero >build/modal-context/large.bin") == 0);
  put("Dockerfile", "FROM a\nCOPY *.* /\n");
  put("a.txt", "new");
  from = log_size();
  check_fails("", config, SWEREX_E_VALUE,
              "/large.bin has 4194304 bytes: files of 4 MiB and more cannot be sent to Modal");
  CHECK_INT(count_in_log("\"method\":\"MountPutFile", from), 0); /* nor is one before it */
  CHECK(system("rm -rf build/modal-context") == 0);
}

/** Without a server here: the image's own, or pipx. */
TEST(without_binary) {
  static const struct {
    const char *config;
    int layers;
  } rows[] = {
    {"{\"type\":\"modal\",\"image\":\"own:1\",\"install_pipx\":false}", 1},
    {"{\"type\":\"modal\",\"image\":\"own:2\"}", 3},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    world w;
    size_t from = log_size();
    begin(&w, "");
    unsetenv("SWEREX_REMOTE_BINARY");
    CHECK(start(&w, rows[i].config));
    if (w.err.code != SWEREX_E_OK) printf("# %s\n", w.err.message);
    use(&w);
    CHECK_INT(count_in_log("\"method\":\"ImageGetOrCreate", from), rows[i].layers);
    CHECK_INT(count_in_log("\"method\":\"Mount", from), 0);
    CHECK_INT(count_in_log("RUN apt-get install -y pipx", from) > 0, rows[i].layers > 1);
    end(&w);
  }
  check_fails("", "{\"type\":\"modal\",\"remote_binary\":\"/nonexistent\"}",
              SWEREX_E_DEPLOYMENT_STARTUP, "remote_binary /nonexistent cannot serve");
  char command[600]; /* an ELF file stays one with something behind it */
  snprintf(command, sizeof command, "(cat %s; head -c 4194304 /dev/zero) >build/modal-large && "
                                    "chmod 755 build/modal-large", binary);
  CHECK(system(command) == 0);
  check_fails("", "{\"type\":\"modal\",\"remote_binary\":\"build/modal-large\"}",
              SWEREX_E_DEPLOYMENT_STARTUP, "the static server build/modal-large has ");
  CHECK(unlink("build/modal-large") == 0);
}

/* --- what goes wrong -------------------------------------------------------------------------- */

#define MODAL "{\"type\":\"modal\"}"

TEST(failures) {
  static const struct {
    const char *faults, *words;
  } rows[] = {
    {"permission_denied:SandboxCreate", "PERMISSION_DENIED: SandboxCreate"},
    {"resource_exhausted:SandboxCreate",
     "RESOURCE_EXHAUSTED: SandboxCreate was told to fail: 100% \"\xc3\xa9\"; a limit of the "
     "workspace is reached: stop what runs there (see https://modal.com/apps), try later"},
    {"invalid_argument:MountGetOrCreate", "MountGetOrCreate at 127.0.0.1"},
    {"unavailable:AppGetOrCreate", "UNAVAILABLE: AppGetOrCreate"},
    {"internal:ImageGetOrCreate", "INTERNAL: ImageGetOrCreate"},
    {"refuse:AppGetOrCreate", "UNAVAILABLE: http://127.0.0.1"},
    {"reset:AppGetOrCreate", "UNAVAILABLE: http://127.0.0.1"},
    {"drop:AppGetOrCreate", "UNAVAILABLE: http://127.0.0.1"},
    {"drop:SandboxCreate", "; if a sandbox was made, it runs until its deployment_timeout"},
    {"reset:ImageJoinStreaming", "ImageJoinStreaming at 127.0.0.1"},
    {"drop:ImageJoinStreaming", "ImageJoinStreaming at 127.0.0.1"},
    {"prefix:AppGetOrCreate", "INTERNAL: the answer ends in the middle of a message"},
    {"prefix:ImageJoinStreaming", "INTERNAL: the answer ends in the middle of a message"},
    {"huge:AppGetOrCreate", "DATA_LOSS: a message of 104857601 bytes is announced; the limit is"},
    {"huge:ImageJoinStreaming", "a message of 104857601 bytes is announced; the limit is 104857600"},
    {"compressed:AppGetOrCreate", "DATA_LOSS: a message is compressed, which was not agreed on"},
    {"garbage:AppGetOrCreate", "is no protobuf message: a number has more than 10 bytes"},
    {"garbage:ImageJoinStreaming", "is no protobuf message"},
    {"truncated:AppGetOrCreate", "is no protobuf message: a field is longer than the message"},
    {"two:AppGetOrCreate", "INTERNAL: the answer has more than one message"},
    {"none:AppGetOrCreate", "INTERNAL: the answer has no message"},
    {"none:ImageJoinStreaming", "the stream ends at once and without a word, again and again"},
    {"empty:AppGetOrCreate", "Modal's answer has no app that can be used"},
    {"empty:EnvironmentGetOrCreate", "names no image builder version: set MODAL_IMAGE_BUILDER_VERSION"},
    {"empty:ImageGetOrCreate", "Modal's answer has no image that can be used"},
    {"empty:SecretGetOrCreate", "Modal's answer has no secret that can be used"},
    {"empty:SandboxCreate", "no sandbox that can be used; if a sandbox was made, it runs until its"},
    {"no-trailers:AppGetOrCreate", "UNKNOWN: the answer has no gRPC status at its end"},
    {"no-trailers:ImageJoinStreaming", "UNKNOWN: the answer has no gRPC status at its end"},
    {"html:AppGetOrCreate", "UNAVAILABLE: the answer is HTTP 503 and not gRPC's"},
    {"no-grpc:AppGetOrCreate", "UNKNOWN: the answer is HTTP 200 and not gRPC's"},
    {"unimplemented:SandboxGetTunnels", "UNIMPLEMENTED: SandboxGetTunnels"},
    {"no-tunnels:SandboxGetTunnels", "Modal gave the sandbox no tunnel to port 8880"},
    {"exits:SandboxCreate", "The sandbox has ended with exit code 3"},
    {"init-fails:SandboxCreate", "The sandbox could not be initialised"},
    {"unauthenticated:AuthTokenGet", "UNAUTHENTICATED: AuthTokenGet"},
    {"tls:SandboxGetTunnels/invalid_argument:SandboxWait", "INVALID_ARGUMENT: SandboxWait"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    char config[80]; /* an image for each, so that it is built */
    snprintf(config, sizeof config, "{\"type\":\"modal\",\"image\":\"fault:%zu\"}", i);
    bool denied = strstr(rows[i].words, "PERMISSION_DENIED") != NULL ||
                  strstr(rows[i].words, "UNAUTHENTICATED") != NULL;
    check_fails(rows[i].faults, config, denied ? SWEREX_E_PERMISSION : SWEREX_E_DEPLOYMENT_STARTUP,
                rows[i].words);
  }
}

/** Those that take their time, side by side. */
TEST(a_server_that_stops_answering) {
  static const struct {
    const char *faults, *config, *words;
    double most;
  } rows[] = {
    {"never:AppGetOrCreate", MODAL, "DEADLINE_EXCEEDED: no answer within 30 seconds", 90},
    {"stall:AppGetOrCreate", MODAL, "DEADLINE_EXCEEDED: no answer within 30 seconds", 90},
    {"never:SandboxCreate", "{\"type\":\"modal\",\"startup_timeout\":1}",
     "not done within 1 seconds (startup_timeout)", 70},
    {"late:SandboxCreate", "{\"type\":\"modal\",\"startup_timeout\":1}",
     "not done within 1 seconds (startup_timeout)", 50},
    {"never:SandboxGetTunnels", "{\"type\":\"modal\",\"startup_timeout\":1}",
     "not done within 1 seconds (startup_timeout)", 50},
    {"waits:SandboxGetTunnels", "{\"type\":\"modal\",\"startup_timeout\":1}",
     "not done within 1 seconds (startup_timeout)", 50},
    {"tls:SandboxGetTunnels", "{\"type\":\"modal\",\"startup_timeout\":1}",
     "the runtime has not answered within", 50},
    {"never:SandboxGetTaskId", MODAL, NULL, 50},
    {"full:SandboxGetTaskId", MODAL, NULL, 50},
  };
  world w;
  begin(&w, "");
  swerex_future *futures[COUNT(rows)];
  double began = swerex__util_now(), took[COUNT(rows)] = {0};
  for (size_t i = 0; i < COUNT(rows); i++) {
    char id[128];
    snprintf(id, sizeof id, "ak-fake/%s", rows[i].faults);
    setenv("MODAL_TOKEN_ID", id, 1);
    CHECK(make(&w, rows[i].config));
    futures[i] = swerex_deployment_start_async(w.box, &w.err);
  }
  for (size_t left = COUNT(rows); left > 0;) {
    CHECK(swerex_loop_run(w.loop, 1, &w.err));
    for (size_t i = 0; i < COUNT(rows); i++)
      if (took[i] == 0 && swerex_future_done(futures[i])) {
        took[i] = swerex__util_now() - began;
        left--;
      }
  }
  for (size_t i = 0; i < COUNT(rows); i++) {
    bool ok = swerex_future_take(futures[i], NULL, &w.err);
    CHECK(ok == (rows[i].words == NULL));
    CHECK(took[i] < rows[i].most);
    if (!ok && rows[i].words != NULL) check_has(w.err.message, rows[i].words);
    if (took[i] >= rows[i].most) printf("# %s took %gs\n", rows[i].faults, took[i]);
    swerex_error_clear(&w.err);
  }
  end(&w);
}

TEST(what_passes) {
  static const char *const rows[] = {
    "unavailable:*:2",        "throttle:AppGetOrCreate:2",  "throttle:SandboxCreate:3",
    "reset:SandboxCreate:2",  "drop:SandboxGetTunnels:1",   "reset:ImageJoinStreaming:1",
    "html:AppGetOrCreate:1",  "refuse:MountPutFile:2",      "prefix:AppGetOrCreate:1",
    "drop:SandboxTerminate:2",  "lost:SandboxCreate:2"};
  for (size_t i = 0; i < COUNT(rows); i++) {
    char config[80];
    world w;
    begin(&w, rows[i]);
    snprintf(config, sizeof config, "{\"type\":\"modal\",\"image\":\"passes:%zu\"}", i);
    CHECK(start(&w, config));
    if (w.err.code != SWEREX_E_OK) printf("# %s: %s\n", rows[i], w.err.message);
    swerex_error_clear(&w.err);
    CHECK(swerex_deployment_stop(w.box, &w.err));
    if (w.err.code != SWEREX_E_OK) printf("# %s: %s\n", rows[i], w.err.message);
    end(&w);
  }
}

/** What a sandbox has written is told once it has ended; of newer ones their router has it. */
static void dies(const char *v2) {
  world w;
  swerex_is_alive_response alive = {0};
  const char *before = getenv("MODAL_SANDBOX_V2");
  setenv("MODAL_SANDBOX_V2", v2, 1);
  begin(&w, "dies:SandboxCreate");
  bool ok = start(&w, MODAL);
  for (int i = 0; ok && i < 100; i++) {
    CHECK(swerex_deployment_is_alive(w.box, NULL, &alive, &w.err));
    /* the server may be gone before Modal knows: then it is the runtime's word */
    if (!alive.is_alive && strstr(alive.message.data, "The sandbox") != NULL) break;
    swerex_is_alive_response_clear(&alive);
    usleep(100000);
  }
  if (ok) {
    check_has(alive.message.data, "The sandbox has ended with exit code 137");
    check_has(alive.message.data, "\nstdout:\n");
    check_has(alive.message.data, "listening on");
    check_has(alive.message.data, "\nstderr:\n");
  } else {
    check_has(w.err.message, "The sandbox has ended with exit code 137");
  }
  swerex_is_alive_response_clear(&alive);
  end(&w);
  if (before == NULL) unsetenv("MODAL_SANDBOX_V2");
}

TEST(sandbox_that_dies) { dies("0"); }
TEST(newer_sandbox_that_dies) { dies("1"); }

/** What is known of a sandbox that has ended is told, also where its output cannot be had. */
TEST(output_that_cannot_be_read) {
  world w;
  begin(&w, "exits:SandboxCreate/permission_denied:SandboxGetLogs");
  CHECK(!start(&w, MODAL));
  check_has(w.err.message, "The sandbox has ended with exit code 3\nstdout:\n(SandboxGetLogs at ");
  check_has(w.err.message, "PERMISSION_DENIED");
  end(&w);
}

TEST(output_of_a_newer_sandbox_that_cannot_be_read) {
  static const char *const rows[][2] = {
    {"exits:SandboxCreate/permission_denied:SandboxGetCommandRouterAccess",
     "exit code 3(SandboxGetCommandRouterAccess at "},
    {"exits:SandboxCreate/permission_denied:SandboxStdioRead",
     "exit code 3\nstdout:\n(SandboxStdioReadV2 at "}};
  const char *before = getenv("MODAL_SANDBOX_V2");
  setenv("MODAL_SANDBOX_V2", "1", 1);
  for (size_t i = 0; i < COUNT(rows); i++) {
    world w;
    begin(&w, rows[i][0]);
    CHECK(!start(&w, MODAL));
    check_has(w.err.message, rows[i][1]);
    check_has(w.err.message, "PERMISSION_DENIED");
    end(&w);
  }
  if (before == NULL) unsetenv("MODAL_SANDBOX_V2");
}

/** What fails behind a start is no failure of the start. */
TEST(codes_behind_a_start) {
  world w;
  begin(&w, "invalid_argument:SandboxWait/failed_precondition:SandboxTerminate:1");
  CHECK(start(&w, MODAL));
  CHECK(!swerex_deployment_is_alive(w.box, NULL, NULL, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_RUNTIME);
  check_has(w.err.message, "INVALID_ARGUMENT: SandboxWait");
  swerex_error_clear(&w.err);
  CHECK(!swerex_deployment_stop(w.box, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_RUNTIME);
  check_has(w.err.message, "FAILED_PRECONDITION: SandboxTerminate");
  check_has(w.err.message, "; sandbox sb-");
  check_has(w.err.message, " may run until its deployment_timeout");
  swerex_error_clear(&w.err);
  CHECK(swerex__loop_take(swerex__sandbox_unmake(w.box, &w.err), NULL, &w.err)); /* it still runs */
  end(&w);
  begin(&w, "not_found:SandboxTerminate:1");
  CHECK(start(&w, MODAL));
  CHECK(swerex_deployment_stop(w.box, &w.err)); /* what is gone already has not to be stopped */
  CHECK(swerex__loop_take(swerex__sandbox_unmake(w.box, &w.err), NULL, &w.err));
  end(&w);
}

/** Where the first address has no server, the next one is asked. */
TEST(next_address) {
  char urls[100];
  world w;
  begin(&w, "");
  snprintf(urls, sizeof urls, "http://127.0.0.1:9,%s", getenv("MODAL_SERVER_URL"));
  setenv("MODAL_SERVER_URL", urls, 1);
  CHECK(start(&w, MODAL));
  if (w.err.code != SWEREX_E_OK) printf("# %s\n", w.err.message);
  check_has(w.said, "UNAVAILABLE: ");
  end(&w);
}

/** An is_alive that Modal does not answer ends with the start that comes behind a stop. */
TEST(question_that_outlives_a_stop) {
  world w;
  begin(&w, "never:SandboxWait");
  CHECK(start(&w, MODAL));
  swerex_future *asked = swerex_deployment_is_alive_async(w.box, NULL, &w.err);
  CHECK(asked != NULL);
  for (int i = 0; i < 20; i++) swerex_loop_run(w.loop, 0.02, &w.err);
  CHECK(!swerex_future_done(asked));
  CHECK(swerex_deployment_stop(w.box, &w.err));
  CHECK(swerex_deployment_start(w.box, &w.err));
  CHECK(swerex_await(asked, 5, &w.err));
  CHECK(!swerex_future_take(asked, NULL, &w.err));
  check_has(w.err.message, "the deployment was started again");
  end(&w);
}

typedef struct join {
  int messages, status;
  bool done;
  char words[200];
} join;

static bool on_join_message(void *owner, const void *message, swerex_error *err) {
  (void)message, (void)err;
  ((join *)owner)->messages++;
  return true;
}

static void on_join_done(void *owner, int status, swerex_error *error) {
  join *j = (join *)owner;
  j->status = status;
  j->done = true;
  if (error->message != NULL) snprintf(j->words, sizeof j->words, "%s", error->message);
  swerex_error_clear(error);
}

/** A stream has its time for each message, however many come: a build may take hours. */
TEST(stream_that_goes_on) {
  static const swerex__rpc_method method = {
    "ImageJoinStreaming", &swerex__modalpb_join_request_message, &swerex__modalpb_join_reply_message,
    true, 1.2, 0};
  world w;
  join j;
  begin(&w, "");
  CHECK(start(&w, "{\"type\":\"modal\",\"image\":\"dripping:1\"}"));
  check_has(w.steps, "Building: drop 0\nBuilding: drop 1\n");
  swerex__modal *modal = swerex__modal_of(w.box);
  const char *const images[] = {modal->image, "im-nosuch"};
  for (size_t i = 0; i < COUNT(images); i++) {
    swerex__modalpb_join_request request;
    memset(&request, 0, sizeof request);
    memset(&j, 0, sizeof j);
    request.image_id = swerex__pb_str(images[i]);
    swerex__rpc_call *call = swerex__rpc_call_new(&modal->grpc, &method, &request, &w.err);
    CHECK(call != NULL);
    call->on_message = on_join_message;
    call->done = on_join_done;
    call->owner = &j;
    while (!j.done) swerex_loop_run(w.loop, 1, &w.err);
    CHECK_INT(j.status, i == 0 ? SWEREX__GRPC_OK : SWEREX__GRPC_NOT_FOUND);
    CHECK((j.messages > 8) == (i == 0)); /* 2.4 seconds of them */
    if (j.words[0] != '\0') printf("# %s\n", j.words);
  }
  end(&w);
}

/** A token that cannot be renewed serves on until its end. */
TEST(token_that_is_not_renewed) {
  world w;
  begin(&w, "");
  CHECK(start(&w, MODAL));
  swerex__modal *modal = swerex__modal_of(w.box);
  char id[] = "ak-fake/unavailable:AuthTokenGet\r\n";
  for (int alive = 1; alive >= 0; alive--) {
    swerex_is_alive_response seen = {0};
    swerex__str headers = modal->grpc.headers;
    const char *at = strstr(headers.data, "ak-fake\r\n");
    CHECK(at != NULL || alive == 0);
    if (at != NULL) { /* from here on the server does not give any */
      modal->grpc.headers = swerex__str_new(&w.loop->allocator, 65536);
      swerex__str_add(&modal->grpc.headers, headers.data, (size_t)(at - headers.data));
      swerex__str_puts(&modal->grpc.headers, id);
      swerex__str_puts(&modal->grpc.headers, at + 9);
      swerex__str_clear(&headers);
    }
    double end_of_it = modal->token_end;
    CHECK(end_of_it > modal->token_due);
    modal->token_due = 0;
    if (alive == 0) modal->token_end = 0;
    CHECK_INT(swerex_deployment_is_alive(w.box, NULL, &seen, &w.err), alive);
    swerex_is_alive_response_clear(&seen);
    modal->token_end = end_of_it;
  }
  check_has(w.said, "going on with the older token");
  check_has(w.err.message, "AuthTokenGet at ");
  swerex_error_clear(&w.err);
  CHECK(swerex_deployment_stop(w.box, &w.err)); /* with the older one */
  end(&w);
}

/** A token that has ended sooner than was known here is renewed when the server says so. */
TEST(token_that_has_ended) {
  world w;
  swerex_is_alive_response seen = {0};
  const char *before = getenv("MODAL_SANDBOX_V2");
  setenv("MODAL_SANDBOX_V2", "1", 1); /* the older calls look at no token */
  begin(&w, "");
  size_t from = log_size();
  CHECK(start(&w, MODAL));
  swerex__modal *modal = swerex__modal_of(w.box);
  modal->grpc.token.size = 0;
  swerex__str_puts(&modal->grpc.token, "x-modal-auth-token: old\r\n");
  CHECK(swerex_deployment_is_alive(w.box, NULL, &seen, &w.err));
  CHECK(seen.is_alive);
  CHECK_INT(count_in_log("\"method\":\"AuthTokenGet", from), 2);
  swerex_is_alive_response_clear(&seen);
  end(&w);
  if (before == NULL) unsetenv("MODAL_SANDBOX_V2");
  check_fails("unauthenticated:SandboxCreate", MODAL, SWEREX_E_PERMISSION,
              "UNAUTHENTICATED: SandboxCreate was told to fail");
}

/** A start that is given up at each of its steps leaves nothing. */
static void give_up(void *user_data, const char *message) {
  world *w = (world *)user_data;
  if (w->starting != NULL && strncmp(message, w->stop_at, strlen(w->stop_at)) == 0) {
    w->stop_at = "-";
    swerex_future_cancel(w->starting);
  }
}

TEST(starts_that_are_given_up) {
  static const char *const steps[] = {"Looking up app",   "Building image", "Building: ",
                                      "Uploading server", "Creating secrets",
                                      "Starting modal sandbox", "Starting runtime"};
  for (size_t i = 0; i < COUNT(steps); i++) {
    for (int later = 0; later < 3; later++) {
      world w;
      char config[80];
      begin(&w, "");
      snprintf(config, sizeof config, "{\"type\":\"modal\",\"image\":\"given-up:%zu-%d\"}", i, later);
      CHECK(make(&w, config));
      swerex_deployment_hook hook = {give_up, &w};
      w.stop_at = later == 0 ? steps[i] : "-";
      CHECK(swerex_deployment_add_hook(w.box, hook, &w.err));
      w.starting = swerex_deployment_start_async(w.box, &w.err);
      while (later > 0 && !swerex_future_done(w.starting) && strstr(w.steps, steps[i]) == NULL)
        swerex_loop_run(w.loop, 1, &w.err);
      for (int k = 1; k < later * 3; k++) swerex_loop_run(w.loop, 0.01, &w.err);
      if (later > 0) swerex_future_cancel(w.starting);
      swerex_await(w.starting, 20, &w.err);
      swerex_error_clear(&w.err);
      CHECK(swerex_deployment_stop(w.box, &w.err));
      if (w.err.code != SWEREX_E_OK) printf("# %s, %d: %s\n", steps[i], later, w.err.message);
      end(&w);
    }
  }
}

/** A logger ends a start at once, in the midst of a message and of what it says. */
TEST(start_that_a_logger_gives_up) {
  world w;
  begin(&w, "");
  CHECK(make(&w, "{\"type\":\"modal\",\"image\":\"given-up:log\"}"));
  w.stop_in_log = "Building: => Step 0";
  w.starting = swerex_deployment_start_async(w.box, &w.err);
  CHECK(!swerex_future_take(w.starting, NULL, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_CANCELLED);
  swerex_error_clear(&w.err);
  CHECK(swerex_deployment_start(w.box, &w.err));
  end(&w);
}

int main(int argc, char **argv) {
  binary = getenv("SWEREX_REMOTE_BINARY");
  if (binary == NULL || getenv("PORT") == NULL || getenv("LOG") == NULL) {
    printf("SWEREX_REMOTE_BINARY, PORT and LOG are needed\n0 passed, 1 failed\n");
    return 1;
  }
  binary = strdup(binary);
  return test_main(argc, argv);
}
