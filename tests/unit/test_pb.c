/* Protocol Buffers, gRPC's frames and trailers, and the patterns of a Dockerfile's folder. The bytes
 * are those of Modal's own encoder for the same messages. */
#define SWEREX_USE_CURL 2
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

#define COUNT(rows) (sizeof(rows) / sizeof *(rows))
#define TEXT(text) {text, sizeof(text) - 1}

/* --- messages --------------------------------------------------------------------------------- */

static void check_hex(const swerex__pb_message *message, const void *value, const char *hex) {
  swerex__str out = swerex__str_new(NULL, 65536), text = out;
  swerex__pb_doc doc;
  swerex__pb_encode(message, value, &out);
  for (size_t i = 0; i < out.size; i++) swerex__str_printf(&text, "%02x", (unsigned char)out.data[i]);
  swerex__str_puts(&text, "");
  CHECK_STR(text.data, hex);
  /* and there and back again */
  const void *read = swerex__pb_decode(NULL, message, out.data, out.size, &doc, NULL);
  CHECK(read != NULL);
  if (read != NULL) {
    swerex__str again = swerex__str_new(NULL, 65536);
    swerex__pb_encode(message, read, &again);
    CHECK(again.size == out.size && (out.size == 0 || memcmp(again.data, out.data, out.size) == 0));
    swerex__str_clear(&again);
    swerex__pb_free(&doc);
  }
  swerex__str_clear(&out);
  swerex__str_clear(&text);
}

TEST(reference_encodings) {
  swerex__modalpb_wait_request wait = {TEXT("sb-1"), 0};
  check_hex(&swerex__modalpb_wait_request_message, &wait, "0a0473622d31");
  wait.timeout = 10;
  check_hex(&swerex__modalpb_wait_request_message, &wait, "0a0473622d311500002041");
  swerex__modalpb_tunnels_request tunnels = {TEXT("sb-1"), 50};
  check_hex(&swerex__modalpb_tunnels_request_message, &tunnels, "0a0473622d311500004842");
  swerex__modalpb_logs_request logs = {TEXT("sb-1"), 1, 55, {NULL, 0}};
  check_hex(&swerex__modalpb_logs_request_message, &logs, "0a0473622d3110011d00005c42");
  swerex__modalpb_join_request join = {TEXT("im-1"), 55, {NULL, 0}, false};
  check_hex(&swerex__modalpb_join_request_message, &join, "0a04696d2d311500005c42");
  swerex__pb_pair pair = {TEXT("A"), TEXT("b")};
  swerex__modalpb_secret_request secret;
  memset(&secret, 0, sizeof secret);
  secret.environment_name = swerex__pb_str("main");
  secret.object_creation_type = 4;
  secret.env_dict.items = &pair;
  secret.env_dict.count = 1;
  secret.app_id = swerex__pb_str("ap-1");
  check_hex(&swerex__modalpb_secret_request_message, &secret,
            "1a046d61696e20042a060a0141120162320461702d31");
  swerex__modalpb_app_request app = {TEXT("swe-rex"), {NULL, 0}, 1};
  check_hex(&swerex__modalpb_app_request_message, &app, "0a077377652d7265781801");
  swerex__modalpb_empty nothing = {0};
  check_hex(&swerex__modalpb_empty_message, &nothing, "");
}

TEST(reference_image) {
  swerex__modalpb_base base = {TEXT("im-2"), TEXT("base")};
  swerex__pb_text lines[] = {TEXT("FROM base"), TEXT("RUN pipx ensurepath")};
  swerex__modalpb_gpu gpu;
  swerex__modalpb_registry registry;
  swerex__modalpb_image image;
  swerex__modalpb_image_request request;
  memset(&gpu, 0, sizeof gpu);
  memset(&registry, 0, sizeof registry);
  memset(&image, 0, sizeof image);
  memset(&request, 0, sizeof request);
  image.base_images.items = &base;
  image.base_images.count = 1;
  image.dockerfile_commands.items = lines;
  image.dockerfile_commands.count = 2;
  image.gpu_config = &gpu;
  image.image_registry_config = &registry;
  request.image = &image;
  request.app_id = swerex__pb_str("ap-1");
  request.builder_version = swerex__pb_str("2025.06");
  check_hex(&swerex__modalpb_image_request_message, &request,
            "12342a0c0a04696d2d32120462617365320946524f4d2062617365321352554e207069707820656e7375726570"
            "6174688201008a0100220461702d314a07323032352e3036");
}

TEST(reference_sandbox) {
  swerex__pb_text argv[] = {TEXT("/usr/bin/env"), TEXT("bash"), TEXT("-c"), TEXT("true")};
  swerex__modalpb_resources resources;
  swerex__modalpb_port port;
  swerex__modalpb_ports ports = {{&port, 1}};
  swerex__modalpb_network network;
  swerex__modalpb_gpu gpu;
  swerex__modalpb_sandbox sandbox;
  swerex__modalpb_create_request request;
  memset(&resources, 0, sizeof resources);
  memset(&port, 0, sizeof port);
  memset(&network, 0, sizeof network);
  memset(&gpu, 0, sizeof gpu);
  memset(&sandbox, 0, sizeof sandbox);
  memset(&request, 0, sizeof request);
  resources.memory_mb = 4096;
  resources.milli_cpu = 2000;
  resources.gpu_config = &gpu;
  port.port = 8880;
  port.unencrypted = true;
  network.network_access_type = 1;
  sandbox.entrypoint_args.items = argv;
  sandbox.entrypoint_args.count = 4;
  sandbox.image_id = swerex__pb_str("im-3");
  sandbox.resources = &resources;
  sandbox.timeout_secs = 3600;
  sandbox.open_ports = &ports;
  sandbox.network_access = &network;
  request.app_id = swerex__pb_str("ap-1");
  request.definition = &sandbox;
  check_hex(&swerex__modalpb_create_request_message, &request,
            "0a0461702d3112400a0c2f7573722f62696e2f656e760a04626173680a022d630a04747275651a04696d2d332a08"
            "10802018d00f220038901ca201070a0508b0451001b201020801");
}

/* One of every kind, with lists and members that may be zero. */
typedef struct sample {
  bool flag;
  int32_t small, maybe;
  int64_t large;
  uint32_t natural;
  uint64_t huge;
  float single;
  double twice;
  swerex__pb_text text;
  bool has_maybe;
  swerex__pb_list numbers, singles, texts, samples;
  const struct sample *inner;
} sample;

static const swerex__pb_message sample_message;
static const swerex__pb_row sample_rows[] = {
  SWEREX__PB_ROW(sample, 1, BOOL, flag)
  SWEREX__PB_ROW(sample, 2, I32, small)
  SWEREX__PB_ROW(sample, 3, I64, large)
  SWEREX__PB_ROW(sample, 4, U32, natural)
  SWEREX__PB_ROW(sample, 5, U64, huge)
  SWEREX__PB_ROW(sample, 6, FLOAT, single)
  SWEREX__PB_ROW(sample, 7, DOUBLE, twice)
  SWEREX__PB_ROW(sample, 8, TEXT, text)
  SWEREX__PB_MAY_ROW(sample, 9, I32, maybe)
  SWEREX__PB_LIST_ROW(sample, 10, I32, numbers)
  SWEREX__PB_LIST_ROW(sample, 11, FLOAT, singles)
  SWEREX__PB_LIST_ROW(sample, 12, TEXT, texts)
  SWEREX__PB_SUBS_ROW(sample, 13, sample_message, samples)
  SWEREX__PB_SUB_ROW(sample, 14, sample_message, inner)
};
static const swerex__pb_message sample_message = SWEREX__PB_OF("sample", sample, sample_rows);

TEST(every_kind) {
  static const int32_t numbers[] = {0, 1, -1, INT32_MAX, INT32_MIN};
  static const float singles[] = {0.5F, -1};
  swerex__pb_text texts[] = {TEXT(""), TEXT("a")};
  sample value, inner;
  memset(&value, 0, sizeof value);
  memset(&inner, 0, sizeof inner);
  check_hex(&sample_message, &value, "");
  value.has_maybe = true; /* zero, and there */
  check_hex(&sample_message, &value, "4800");
  value.flag = true;
  value.small = -1;
  value.large = INT64_MIN;
  value.natural = UINT32_MAX;
  value.huge = UINT64_MAX;
  value.single = 1;
  value.twice = -2;
  value.text = swerex__pb_str("xy");
  value.maybe = 300;
  check_hex(&sample_message, &value,
            "0801"
            "10ffffffffffffffffff01"
            "1880808080808080808001"
            "20ffffffff0f"
            "28ffffffffffffffffff01"
            "350000803f"
            "3900000000000000c0"
            "42027879"
            "48ac02");
  memset(&value, 0, sizeof value);
  value.numbers.items = numbers;
  value.numbers.count = COUNT(numbers);
  value.singles.items = singles;
  value.singles.count = 2;
  value.texts.items = texts;
  value.texts.count = 2;
  value.samples.items = &inner;
  value.samples.count = 1;
  value.inner = &inner;
  check_hex(&sample_message, &value,
            "521b" "00" "01" "ffffffffffffffffff01" "ffffffff07" "80808080f8ffffffff01"
            "5a08" "0000003f" "000080bf"
            "6200" "620161"
            "6a00" "7200");
}

static const sample *decode(const char *data, size_t size, swerex__pb_doc *doc, swerex_error *err) {
  return (const sample *)swerex__pb_decode(NULL, &sample_message, data, size, doc, err);
}
#define DECODE(data, doc) decode(data, sizeof(data) - 1, doc, NULL)

TEST(what_decoders_have_to_take) {
  swerex__pb_doc doc;
  /* a list of numbers in pieces, packed and not; the last of a single field; other wire types */
  const sample *value = DECODE("\x50\x01\x52\x02\x02\x03\x50\x04\x10\x01\x10\x02\x15\x01\x02\x03\x04", &doc);
  CHECK(value != NULL && value->numbers.count == 4 && value->small == 2);
  for (size_t i = 0; value != NULL && i < value->numbers.count; i++)
    CHECK_INT(((const int32_t *)value->numbers.items)[i], (int)i + 1);
  swerex__pb_free(&doc);
  /* a message that comes in two parts is one */
  value = DECODE("\x72\x02\x10\x05\x72\x02\x20\x06", &doc);
  CHECK(value != NULL && value->inner != NULL && value->inner->small == 5 &&
        value->inner->natural == 6);
  swerex__pb_free(&doc);
  /* unknown fields of every form: varint, 64 bits, sized, a group in a group, 32 bits */
  value = DECODE("\xa0\x06\x01\xa1\x06" "12345678" "\xa2\x06\x01x\xa3\x06\xab\x06\x08\x01\xac\x06\xa4\x06\xa5\x06"
                 "1234\x10\x07", &doc);
  CHECK(value != NULL && value->small == 7);
  swerex__pb_free(&doc);
  /* a varint with more bits than its kind has, and a long one for a bool */
  value = DECODE("\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x08\x80\x80\x01", &doc);
  CHECK(value != NULL && value->natural == UINT32_MAX && value->flag);
  swerex__pb_free(&doc);
  value = DECODE("", &doc);
  CHECK(value != NULL && value->inner == NULL);
  swerex__pb_free(&doc);
}

TEST(what_is_no_message) {
  static const struct {
    swerex__pb_text data;
    const char *why;
  } rows[] = {
    {TEXT("\x10"), "it is cut off in a number"},
    {TEXT("\x10\x80"), "it is cut off in a number"},
    {TEXT("\x35\x01\x02\x03"), "it is cut off in a number"},
    {TEXT("\x39\x01\x02\x03\x04\x05\x06\x07"), "it is cut off in a number"},
    {TEXT("\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "a number has more than 10 bytes"},
    {TEXT("\x42\x05xy"), "a field is longer than the message"},
    {TEXT("\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "a field is longer than the message"},
    {TEXT("\x02\x00"), "a field has a number that cannot be"},
    {TEXT("\x80\x80\x80\x80\x80\x80\x01\x00"), "a field has a number that cannot be"},
    {TEXT("\x17"), "a field has no known form"},
    {TEXT("\x16"), "a field has no known form"},
    {TEXT("\xa4\x06"), "a group ends that has not begun"},
    {TEXT("\xa3\x06\xac\x06"), "a group ends that has not begun"},
    {TEXT("\xa3\x06"), "it is cut off in a number"},
    {TEXT("\x52\x02\x01\x80"), "it is cut off in a number"},
    {TEXT("\x5a\x03\x01\x02\x03"), "it is cut off in a number"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    swerex__pb_doc doc;
    CHECK(decode(rows[i].data.data, rows[i].data.size, &doc, &err) == NULL);
    CHECK(err.message != NULL && strstr(err.message, rows[i].why) != NULL);
    if (err.message != NULL && strstr(err.message, rows[i].why) == NULL)
      printf("# %zu: %s\n", i, err.message);
    CHECK(doc.blocks == NULL);
    swerex_error_clear(&err);
  }
}

TEST(depth_and_size_have_limits) {
  swerex__str text = swerex__str_new(NULL, (size_t)1 << 28);
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__pb_doc doc;
  for (int depth = 1; depth < 60; depth++) { /* messages in messages */
    size_t start = 0;
    text.size = 0;
    for (int i = 0; i < depth; i++) {
      swerex__pb_add_length(&text, start);
      char tag = 0x72;
      swerex__str_reserve(&text, 1);
      memmove(text.data + 1, text.data, text.size++);
      text.data[0] = tag;
    }
    const sample *value = decode(text.data, text.size, &doc, &err);
    CHECK((value != NULL) == (depth < SWEREX__PB_DEPTH));
    if (value != NULL) swerex__pb_free(&doc);
    text.size = 0;
    for (int i = 0; i < depth; i++) swerex__str_add(&text, "\xa3\x06", 2); /* groups in groups */
    for (int i = 0; i < depth; i++) swerex__str_add(&text, "\xa4\x06", 2);
    value = decode(text.data, text.size, &doc, &err);
    CHECK((value != NULL) == (depth <= SWEREX__PB_DEPTH));
    if (value != NULL) swerex__pb_free(&doc);
  }
  text.size = 0;
  for (int i = 0; i < 2000000; i++) swerex__str_add(&text, "\x6a\x00", 2);
  CHECK(decode(text.data, text.size, &doc, &err) == NULL);
  CHECK(err.message != NULL && strstr(err.message, "it has too many elements") != NULL);
  swerex_error_clear(&err);
  swerex__str_clear(&text);
}

/* --- frames and trailers ---------------------------------------------------------------------- */

static swerex__grpc_reply new_reply(void) {
  swerex__grpc_reply reply;
  memset(&reply, 0, sizeof reply);
  reply.frames = swerex__str_new(NULL, (size_t)1 << 20);
  swerex__grpc_restart(&reply);
  reply.http_status = 200;
  reply.typed = true;
  return reply;
}

static void header(swerex__grpc_reply *reply, const char *name, const char *value) {
  swerex__http_text key = {name, strlen(name)}, text = {value, strlen(value)};
  swerex__grpc_take_header(reply, key, text);
}

TEST(frames_in_any_pieces) {
  static const char frames[] = "\0\0\0\0\3abc\0\0\0\0\0\0\0\0\1\4" "0123456789";
  for (size_t step = 1; step < 20; step++) {
    swerex__grpc_reply reply = new_reply();
    swerex__str sizes = swerex__str_new(NULL, 1024);
    swerex_error err = SWEREX_ERROR_INIT;
    const char *data;
    size_t size;
    for (size_t at = 0; at < sizeof frames - 1; at += step) {
      size_t left = sizeof frames - 1 - at;
      CHECK(swerex__grpc_take_data(&reply, frames + at, left < step ? left : step));
      while (swerex__grpc_next(&reply, &data, &size, &err)) swerex__str_printf(&sizes, "%zu ", size);
      CHECK_INT(err.code, SWEREX_E_OK);
    }
    CHECK_STR(sizes.data, "3 0 ");
    CHECK_INT(reply.frames.size - reply.at, 15); /* of 260 that are announced, and the 5 */
    swerex__str_clear(&sizes);
    swerex__str_clear(&reply.frames);
  }
}

TEST(frames_that_cannot_be) {
  static const struct {
    swerex__pb_text data;
    const char *why;
  } rows[] = {
    {TEXT("\1\0\0\0\0"), "a message is compressed"},
    {TEXT("\2\0\0\0\0"), "what came is no gRPC message"},
    {TEXT("<html>"), "what came is no gRPC message"},
    {TEXT("\0\6\100\0\1"), "a message of 104857601 bytes is announced; the limit is 104857600"},
    {TEXT("\0\377\377\377\377"), "a message of 4294967295 bytes is announced"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    swerex__grpc_reply reply = new_reply();
    swerex_error err = SWEREX_ERROR_INIT;
    const char *data;
    size_t size;
    swerex__grpc_take_data(&reply, rows[i].data.data, rows[i].data.size);
    CHECK(!swerex__grpc_next(&reply, &data, &size, &err));
    CHECK(err.message != NULL && strstr(err.message, rows[i].why) != NULL);
    swerex_error_clear(&err);
    swerex__str_clear(&reply.frames);
  }
}

TEST(messages_of_a_status) {
  static const char *const rows[][2] = {
    {"injected%20failure:%20100%25%20%22%C3%A9%22", "injected failure: 100% \"\xc3\xa9\""},
    {"with spaces, not escaped", "with spaces, not escaped"},
    {"100%", "100%"},
    {"%", "%"},
    {"%4", "%4"},
    {"%zz%41%4", "%zzA%4"},
    {"a%00b", "a b"},
    {"", ""},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    swerex__grpc_reply reply = new_reply();
    header(&reply, "grpc-message", rows[i][0]);
    CHECK_STR(reply.message, rows[i][1]);
  }
  swerex__grpc_reply reply = new_reply();
  char large[5000];
  memset(large, 'x', sizeof large - 1);
  large[sizeof large - 1] = '\0';
  header(&reply, "grpc-message", large);
  CHECK_INT(strlen(reply.message), SWEREX__GRPC_TEXT - 1);
}

TEST(when_to_try_again) {
  static const struct {
    const char *value;
    double seconds;
  } rows[] = {
    /* RPCStatus{8, "slow", [Any{".../modal.client.RPCRetryPolicy", {2.5}}]} */
    {"CAgSBHNsb3caOAovdHlwZS5nb29nbGVhcGlzLmNvbS9tb2RhbC5jbGllbnQuUlBDUmV0cnlQb2xpY3kSBQ0AACBA", 2.5},
    {"CAgSBHNsb3caOAovdHlwZS5nb29nbGVhcGlzLmNvbS9tb2RhbC5jbGllbnQuUlBDUmV0cnlQb2xpY3kSBQ0AACBA==", 2.5},
    /* the same with no policy in it: at least 0.1 */
    {"CAgSBHNsb3caMQovdHlwZS5nb29nbGVhcGlzLmNvbS9tb2RhbC5jbGllbnQuUlBDUmV0cnlQb2xpY3k=", 0.1},
    /* one that is too long for anybody: nobody waits 0.1 for it */
    {"CAgSBHNsb3caOAovdHlwZS5nb29nbGVhcGlzLmNvbS9tb2RhbC5jbGllbnQuUlBDUmV0cnlQb2xpY3kSBQ0AAIB/", 1e6},
    {"CAgSBHNsb3c", -1},
    {"!!!", -1},
    {"CAgSBHNsb3ca", -1},
    {"", -1},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    swerex__grpc_reply reply = new_reply();
    header(&reply, "grpc-status-details-bin", rows[i].value);
    CHECK(reply.retry_after == rows[i].seconds);
    if (reply.retry_after != rows[i].seconds) printf("# %zu: %g\n", i, reply.retry_after);
  }
}

TEST(how_an_answer_is_judged) {
  static const struct {
    int http;
    const char *type, *status, *data;
    size_t size;
    bool stream;
    int judged;
    const char *words;
  } rows[] = {
    {200, "application/grpc", "0", "\0\0\0\0\0", 5, false, 0, ""},
    {200, "application/grpc+proto", "0", "\0\0\0\0\1a", 6, false, 0, ""},
    {200, "application/grpc", "0", "", 0, true, 0, ""},
    {200, "application/grpc", "0", "", 0, false, 13, "the answer has no message"},
    {200, "application/grpc", "0", "\0\0\0\0\0\0\0\0\0\0", 10, false, 13,
     "the answer has more than one message"},
    {200, "application/grpc", "0", "\0\0\0\0\2a", 6, false, 13,
     "the answer ends in the middle of a message"},
    {200, "application/grpc", "0", "\0\0", 2, true, 13, "the answer ends in the middle of a message"},
    {200, "application/grpc", "16", "", 0, false, 16, "told"},
    {200, "application/grpc", "99", "", 0, false, 2, "told"},
    {200, "application/grpc", "-1", "", 0, false, 2, "told"},
    {200, "application/grpc", NULL, "\0\0\0\0\0", 5, false, 2,
     "the answer has no gRPC status at its end"},
    {200, "text/html", "0", "", 0, false, 2, "the answer is HTTP 200 and not gRPC's"},
    {400, "text/html", NULL, "", 0, false, 13, "the answer is HTTP 400 and not gRPC's"},
    {401, "text/html", NULL, "", 0, false, 16, "the answer is HTTP 401 and not gRPC's"},
    {403, "text/html", NULL, "", 0, false, 7, "the answer is HTTP 403 and not gRPC's"},
    {404, "text/html", NULL, "", 0, false, 12, "the answer is HTTP 404 and not gRPC's"},
    {429, "text/html", NULL, "", 0, false, 14, "the answer is HTTP 429 and not gRPC's"},
    {503, "text/html", NULL, "", 0, false, 14, "the answer is HTTP 503 and not gRPC's"},
    {500, "text/html", NULL, "", 0, false, 2, "the answer is HTTP 500 and not gRPC's"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    swerex__grpc_reply reply = new_reply();
    char words[SWEREX__GRPC_TEXT];
    reply.http_status = rows[i].http;
    header(&reply, "Content-Type", rows[i].type);
    if (rows[i].status != NULL) header(&reply, "grpc-status", rows[i].status);
    if (rows[i].status != NULL && rows[i].status[0] != '0') header(&reply, "grpc-message", "told");
    swerex__grpc_take_data(&reply, rows[i].data, rows[i].size);
    CHECK_INT(swerex__grpc_judge(&reply, rows[i].stream, words), rows[i].judged);
    CHECK_STR(words, rows[i].words);
    swerex__str_clear(&reply.frames);
  }
}

/** Calls that meet no server at the same address go on to the next one, not past it. */
TEST(two_calls_and_two_addresses) {
  static const swerex__rpc_method method = {
    "AuthTokenGet", &swerex__modalpb_empty_message, &swerex__modalpb_token_reply_message, false, 9, 1};
  static const swerex__modalpb_empty request = {0};
  swerex_loop_options options;
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__rpc rpc;
  swerex__rpc_call *calls[2];
  memset(&options, 0, sizeof options);
  options.logger.level = SWEREX_LOG_OFF;
  swerex_loop *loop = swerex_loop_new(&options, &err);
  CHECK(swerex__rpc_open(&rpc, loop, "a.B", "http://a,,http://b", &err));
  rpc.logger = &loop->logger;
  for (size_t i = 0; i < COUNT(calls); i++) {
    calls[i] = swerex__rpc_call_new(&rpc, &method, &request, &err);
    CHECK(calls[i] != NULL);
  }
  for (size_t i = 0; i < COUNT(calls); i++) {
    swerex__err_set(&err, SWEREX_E_HTTP, "nobody is there");
    swerex__rpc_explain(calls[i], SWEREX__GRPC_UNAVAILABLE, "nobody is there", &err);
    CHECK_STR(err.message, "AuthTokenGet at a:80: UNAVAILABLE: nobody is there");
    swerex__rpc_end(calls[i], SWEREX__GRPC_UNAVAILABLE, &err);
    CHECK_INT(rpc.url, 1);
  }
  swerex__err_memory(&err); /* no status, as no server has said one */
  swerex__rpc_explain(calls[0], SWEREX__GRPC_DATA_LOSS, "no memory", &err);
  CHECK_INT(err.code, SWEREX_E_NO_MEMORY);
  CHECK_STR(err.message, "AuthTokenGet at a:80: no memory");
  swerex_error_clear(&err);
  swerex__rpc_close(&rpc);
  swerex_loop_free(loop);
}

TEST(life_of_a_token) {
  char text[200], body[100];
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  size_t used = 2;
  int n = snprintf(body, sizeof body, "{\"exp\":%lld}", (long long)time(NULL) + 1000);
  snprintf(text, sizeof text, "h.");
  for (int i = 0; i < n; i += 3) { /* base64url without padding */
    uint32_t three = (uint32_t)(unsigned char)body[i] << 16;
    if (i + 1 < n) three |= (uint32_t)(unsigned char)body[i + 1] << 8;
    if (i + 2 < n) three |= (unsigned char)body[i + 2];
    for (int k = 0; k < 4 && i + k <= n; k++) text[used++] = letters[three >> (18 - 6 * k) & 63];
  }
  memcpy(text + used, ".s", 3);
  double life = swerex__modal_token_life(NULL, swerex__pb_str(text));
  CHECK(life > 490 && life < 510);
  CHECK(swerex__modal_token_life(NULL, swerex__pb_str("no token")) == SWEREX__MODAL_TOKEN_TIME / 2);
  CHECK(swerex__modal_token_life(NULL, swerex__pb_str("a.b.c")) == SWEREX__MODAL_TOKEN_TIME / 2);
  CHECK(swerex__modal_token_life(NULL, swerex__pb_str("")) == SWEREX__MODAL_TOKEN_TIME / 2);
}

/* --- what a build and a sandbox have said ----------------------------------------------------- */

static void keep_step(void *user_data, const char *message) {
  snprintf((char *)user_data, SWEREX__MODAL_LINE, "%s", message);
}

/** Long lines are told up to a whole character, and the tail begins with a whole line. */
TEST(lines_of_a_build) {
  char told[SWEREX__MODAL_LINE], piece[64];
  swerex_deployment_hook hook = {keep_step, told};
  swerex_deployment deployment;
  swerex__modal modal;
  memset(&deployment, 0, sizeof deployment);
  memset(&modal, 0, sizeof modal);
  deployment.hooks = &hook;
  deployment.hook_count = 1;
  deployment.logger.level = SWEREX_LOG_OFF;
  modal.deployment = &deployment;
  modal.lines.line = modal.lines.tail = swerex__str_new(NULL, 65536);
  for (int shift = 0; shift < 2; shift++) {
    swerex__image_take_log(&modal, swerex__pb_str(shift == 0 ? "" : "x"));
    for (int i = 0; i < 300; i++) swerex__image_take_log(&modal, swerex__pb_str("\xc3\xa9"));
    swerex__image_take_log(&modal, swerex__pb_str("\n"));
    CHECK_INT(strlen(told), 10 + 380 - shift);
    CHECK_INT((unsigned char)told[strlen(told) - 1], 0xA9);
  }
  for (int i = 0; i < 1000; i++) {
    snprintf(piece, sizeof piece, "line %d of the log\n", i);
    swerex__image_take_log(&modal, swerex__pb_str(piece));
    CHECK(modal.lines.tail.size <= SWEREX__MODAL_TAIL);
  }
  CHECK(modal.lines.tail.size > SWEREX__MODAL_TAIL - 30);
  CHECK(strncmp(modal.lines.tail.data, "line ", 5) == 0);
  CHECK_STR(told, "Building: line 999 of the log");
  swerex__str_clear(&modal.lines.line);
  swerex__str_clear(&modal.lines.tail);
}

/** The beginning of each stream is kept, whatever the other one has said. */
TEST(output_of_a_sandbox) {
  static char large[(1 << 20) - 2];
  swerex__pb_text parts[] = {{large, sizeof large}, TEXT("abcd"), TEXT("ef")}, word = TEXT("broken");
  swerex__modal_run run;
  memset(&run, 0, sizeof run);
  memset(large, 'x', sizeof large);
  run.text = swerex__str_new(NULL, SWEREX__MODAL_LOG_MAX * 3);
  run.rows = swerex__box_alive_rows;
  run.at = 1;
  CHECK_INT(swerex__box_stream(&run), 1);
  for (size_t i = 0; i < COUNT(parts); i++) swerex__box_add_output(&run, parts[i]);
  run.at = 2;
  CHECK_INT(swerex__box_stream(&run), 2);
  swerex__box_add_output(&run, word);
  CHECK(run.text.size > sizeof large + 9);
  CHECK_STR(run.text.data + 9 + sizeof large, /* behind "\nstdout:\n" */
            "ab\n(what comes behind the first 1048576 bytes is left out)\nstderr:\nbroken");
  swerex__str_clear(&run.text);
}

/** The token for a router goes to it as a whole, however long it is. */
TEST(token_of_a_router) {
  static const char before[] = "authorization: Bearer ";
  static char jwt[9000];
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_deployment deployment;
  swerex__modal modal;
  swerex__modal_run run;
  swerex__modalpb_access_reply reply = {{jwt, sizeof jwt}, TEXT("http://127.0.0.1:1")};
  memset(&deployment, 0, sizeof deployment);
  memset(&modal, 0, sizeof modal);
  memset(&run, 0, sizeof run);
  memset(jwt, 'j', sizeof jwt);
  deployment.loop = loop;
  modal.deployment = &deployment;
  run.modal = &modal;
  CHECK_INT(swerex__box_took_access(&run, &reply, &err), SWEREX__MODAL_DONE);
  CHECK_INT(run.router.token.size, sizeof before - 1 + sizeof jwt + 2);
  swerex__rpc_close(&run.router);
  swerex__modalpb_token_reply blank = {TEXT("j w t")};
  CHECK(!swerex__modal_take_token(&run, &blank, &err));
  CHECK_STR(err.message, "AuthTokenGet: that is no token");
  static const swerex__modalpb_access_reply bad[] = {
    {TEXT("j w t"), TEXT("http://a")}, {TEXT("jwt"), {NULL, 0}}, {TEXT("jwt"), TEXT("ftp://a")}};
  for (size_t i = 0; i < COUNT(bad); i++) {
    memset(&run.router, 0, sizeof run.router);
    CHECK_INT(swerex__box_took_access(&run, &bad[i], &err), SWEREX__MODAL_FAILED);
    CHECK(err.message != NULL && run.router.loop == NULL);
    swerex_error_clear(&err);
  }
  swerex_loop_free(loop);
}

/* --- the folder of a Dockerfile --------------------------------------------------------------- */

TEST(patterns) {
  static const struct {
    const char *pattern, *path;
    bool matches;
  } rows[] = {
    {"a", "a", true},           {"a", "b", false},        {"a", "a/b/c", true},
    {"a/b", "a", false},        {"*", "a/b", true},       {"*.c", "a.c", true},
    {"*.c", "d/a.c", false},    {"d/*.c", "d/a.c", true}, {"**/*.c", "a.c", true},
    {"**/*.c", "d/e/a.c", true}, {"d/**", "d/e/f", true}, {"d/**/f", "d/f", true},
    {"d/**/f", "d/e/g/f", true}, {"d/**/f", "e/f", false}, {"?", "a", true},
    {"?", "ab", false},         {"a?c", "a/c", false},    {"[a-c]x", "bx", true},
    {"[a-c]x", "dx", false},    {"[^a-c]x", "dx", true},  {"[]]", "]", true},
    {"[a", "[a", false},        {"\\*", "*", true},       {"\\*", "a", false},
    {"a*b*c", "aXbYc", true},   {"a*b*c", "aXbY", false}, {"**", "a/b", true},
    {"a**", "abc", true},       {"", "a", false},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    CHECK_INT(swerex__context_matches(rows[i].pattern, rows[i].path), rows[i].matches);
    if (swerex__context_matches(rows[i].pattern, rows[i].path) != rows[i].matches)
      printf("# %s %s\n", rows[i].pattern, rows[i].path);
  }
}

/** A folder that is reached by a link, and a COPY to where a variable says. */
TEST(files_of_a_dockerfile) {
  static const struct {
    const char *text;
    int count; /* of files; < 0: it is refused */
  } rows[] = {
    {"FROM a\nCOPY f.txt $HOME/x\n", 1},  {"FROM a\nCOPY . ${APP}\n", 5},
    {"FROM a\nCOPY d /x\n", 1},            {"FROM a\nCOPY $WHAT /x\n", -1},
    {"FROM a\nCOPY --new=1 d /x\n", -1},   {"FROM a\n", 0},
    {"COPY --link [\"a b\", \"f.txt\" , \"/x\"]", 2}, {"copy\t[\"a\\ b\",\"/x\"]\n", 1},
    {"COPY [\"f.txt\",\n", 0},             {"COPY [a]?b [f].txt /x\n", 2},
    {"COPY f.txt /x \\\n\n# end\n", 1},    {"COPYf.txt /x\n", 0},
  };
  char folder[] = "/tmp/swerex-context-XXXXXX", path[512], target[64];
  CHECK(mkdtemp(folder) != NULL);
  size_t used = (size_t)snprintf(path, sizeof path, "%s/real/skip", folder);
  for (int i = 0; i < SWEREX__CONTEXT_DEPTH; i++) /* deeper than what is entered */
    used += (size_t)snprintf(path + used, sizeof path - used, "/s");
  CHECK(swerex__fs_write(NULL, path, "s", 1, NULL));
  snprintf(path, sizeof path, "%s/real/Dockerfile.dockerignore", folder);
  CHECK(swerex__fs_write(NULL, path, "skip\n", 5, NULL));
  snprintf(path, sizeof path, "%s/real/a b", folder);
  CHECK(swerex__fs_write(NULL, path, "a", 1, NULL));
  snprintf(path, sizeof path, "%s/real/d/g.txt", folder);
  CHECK(swerex__fs_write(NULL, path, "g", 1, NULL));
  snprintf(path, sizeof path, "%s/real/f.txt", folder);
  CHECK(swerex__fs_write(NULL, path, "f", 1, NULL));
  snprintf(path, sizeof path, "%s/real/Dockerfile", folder);
  CHECK(swerex__fs_write(NULL, path, "", 0, NULL));
  snprintf(path, sizeof path, "%s/link", folder);
  CHECK(symlink("real", path) == 0);
  snprintf(target, sizeof target, "%s/real/no", folder); /* a link in it is not followed */
  CHECK(symlink("d", target) == 0);
  snprintf(path, sizeof path, "%s/link/Dockerfile", folder);
  for (size_t i = 0; i < COUNT(rows); i++) {
    swerex_allocator memory = {0};
    swerex_bytes text = {(char *)(uintptr_t)rows[i].text, strlen(rows[i].text)};
    swerex__context context;
    swerex_error err = SWEREX_ERROR_INIT;
    bool ok = swerex__context_open(&context, &memory, path, &text, &err);
    CHECK_INT(ok ? (int)context.count : -1, rows[i].count);
    if (!ok) printf("# %s\n", err.message);
    swerex__context_clear(&context);
    swerex_error_clear(&err);
  }
  snprintf(target, sizeof target, "%s/real/Dockerfile.dockerignore", folder);
  CHECK(swerex__fs_write(NULL, target, "skip\n!skip/a\n", 13, NULL)); /* so it is entered */
  swerex_allocator memory = {0};
  swerex_bytes text = {(char *)(uintptr_t) "COPY . /x", 9};
  swerex__context context;
  swerex_error err = SWEREX_ERROR_INIT;
  CHECK(!swerex__context_open(&context, &memory, path, &text, &err));
  CHECK(err.message != NULL && strstr(err.message, "folders are nested too deeply") != NULL);
  swerex__context_clear(&context);
  swerex_error_clear(&err);
  snprintf(path, sizeof path, "rm -rf %s", folder);
  CHECK(system(path) == 0);
}

TEST_MAIN()
