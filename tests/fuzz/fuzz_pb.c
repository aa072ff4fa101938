/*
 * Any bytes as each of Modal's messages: what can be read is written, read again and written to the
 * same bytes. The same as an answer of gRPC: cut at other places, it must give the same messages and
 * the same judgement. And as what people write: settings in TOML, a Dockerfile with patterns.
 */
#define SWEREX_USE_CURL 2
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
  if (!condition) abort();
}

#define NONE(...)
#define MESSAGE(type, name) &swerex__modalpb_##type##_message,
static const swerex__pb_message *const messages[] = {
  SWEREX__MODALPB_MESSAGES(NONE, NONE, NONE, NONE, NONE, NONE, NONE, MESSAGE)
  &swerex__grpc_details_message, &swerex__grpc_retry_message, &swerex__modalpb_empty_message};

/** Read a message and write it to `out`. */
static bool rewrite(const swerex__pb_message *message, const char *data, size_t size,
                    swerex__str *out) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__pb_doc doc;
  const void *value = swerex__pb_decode(NULL, message, data, size, &doc, &err);
  *out = swerex__str_new(NULL, (size_t)1 << 30);
  if (value != NULL) swerex__pb_encode(message, value, out);
  require((value != NULL) == (err.code == SWEREX_E_OK));
  require(value != NULL || doc.blocks == NULL);
  if (value != NULL) swerex__pb_free(&doc);
  swerex__err_clear(&err);
  return value != NULL;
}

static void try_message(const swerex__pb_message *message, const char *data, size_t size) {
  swerex__str once, twice;
  if (rewrite(message, data, size, &once)) {
    require(rewrite(message, once.data, once.size, &twice));
    require(once.size == twice.size);
    require(once.size == 0 || memcmp(once.data, twice.data, once.size) == 0);
    swerex__str_clear(&twice);
  }
  swerex__str_clear(&once);
}

/** Take an answer: lines up to an empty one are headers, the rest comes in pieces. */
static swerex__str take_answer(const char *data, size_t size, size_t step) {
  swerex__str out = swerex__str_new(NULL, (size_t)1 << 26);
  swerex__grpc_reply reply;
  swerex_error err = SWEREX_ERROR_INIT;
  const char *message;
  char words[SWEREX__GRPC_TEXT];
  size_t length, at = 0;
  memset(&reply, 0, sizeof reply);
  reply.frames = swerex__str_new(NULL, (size_t)1 << 26);
  swerex__grpc_restart(&reply);
  reply.http_status = 200;
  reply.typed = true;
  while (at < size && data[at] != '\n') {
    const char *end = (const char *)memchr(data + at, '\n', size - at);
    size_t line = end == NULL ? size - at : (size_t)(end - data) - at;
    const char *colon = (const char *)memchr(data + at, ':', line);
    size_t name = colon == NULL ? line : (size_t)(colon - data) - at;
    swerex__http_text key = {data + at, name};
    swerex__http_text value = {data + at + name + (colon != NULL), line - name - (colon != NULL)};
    swerex__grpc_take_header(&reply, key, value);
    at += line + 1;
  }
  for (at++; at < size && err.code == SWEREX_E_OK; at += step) {
    swerex__grpc_take_data(&reply, data + at, size - at < step ? size - at : step);
    while (swerex__grpc_next(&reply, &message, &length, &err)) {
      swerex__str_printf(&out, "<%zu>", length);
      swerex__str_add(&out, message, length);
    }
  }
  int status = err.code != SWEREX_E_OK ? -1 : swerex__grpc_judge(&reply, true, words);
  require(status == -1 || (size_t)status < SWEREX__SYS_COUNT(swerex__grpc_statuses));
  swerex__str_printf(&out, "<%d %g %s %s>", status, reply.retry_after, reply.message,
                     status == -1 ? err.message : words);
  swerex__err_clear(&err);
  swerex__str_clear(&reply.frames);
  return out;
}

static void try_answer(const char *data, size_t size, size_t step) {
  swerex__str whole = take_answer(data, size, size + 1), parts = take_answer(data, size, step);
  require(!whole.failed && whole.size == parts.size);
  require(memcmp(whole.data, parts.data, whole.size) == 0);
  swerex__str_clear(&whole);
  swerex__str_clear(&parts);
}

static void try_settings(const char *data, size_t size) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__modalrc rc;
  memset(&rc, 0, sizeof rc);
  bool ok = swerex__modalrc_parse(&rc, data, size, &err) && swerex__modalrc_choose(&rc, &err);
  require(ok == (err.code == SWEREX_E_OK));
  if (ok) swerex__modalrc_get(&rc, "token_id");
  swerex__modalrc_clear(&rc);
  swerex__err_clear(&err);
}

static void try_dockerfile(const char *data, size_t size) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__context context;
  memset(&context, 0, sizeof context);
  bool ok = swerex__context_read_dockerfile(&context, data, size, &err);
  require(ok == (err.code == SWEREX_E_OK));
  for (size_t i = 0; i < context.source_count; i++) {
    const char *pattern = ((char **)context.sources)[i];
    if (strlen(pattern) < 12) swerex__context_matches(pattern, "some/folder/with a/file.txt");
  }
  swerex__context_clear(&context);
  swerex__err_clear(&err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 || size > 65536) return 0;
  const char *text = (const char *)data + 1;
  try_message(messages[data[0] % SWEREX__SYS_COUNT(messages)], text, size - 1);
  try_answer(text, size - 1, data[0] % 16U + 1);
  try_settings(text, size - 1);
  try_dockerfile(text, size - 1);
  return 0;
}
