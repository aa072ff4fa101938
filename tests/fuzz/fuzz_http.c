/*
 * Any bytes as requests, as responses and as a form: cut at other places, they must give the same
 * events and the same content.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
  if (!condition) abort();
}

/** Read everything, `step` bytes at a time, into a record of what came. */
static void read_http(const char *data, size_t size, size_t step, bool response, swerex__str *out) {
  swerex__http http;
  swerex__http_event event = SWEREX__HTTP_MORE;
  swerex__http_init(&http, NULL, response);
  for (size_t at = 0; at < size && event != SWEREX__HTTP_BROKEN; at += step) {
    const char *part = data + at;
    size_t left = size - at < step ? size - at : step;
    do {
      event = swerex__http_read(&http, &part, &left);
      if (event == SWEREX__HTTP_HEAD)
        swerex__str_printf(out, "<%d %zu %d>", http.status, http.count, http.chunked);
      if (event == SWEREX__HTTP_BODY) swerex__str_add(out, http.piece, http.piece_size);
      if (event == SWEREX__HTTP_END) {
        swerex__str_printf(out, "<end %d>", http.keep_alive);
        swerex__http_restart(&http);
      }
      if (event == SWEREX__HTTP_BROKEN) {
        swerex__str_printf(out, "<broken %s>", http.why);
        require(http.fault >= 400 && http.fault < 600);
      }
    } while (event != SWEREX__HTTP_MORE && event != SWEREX__HTTP_BROKEN);
    require(event == SWEREX__HTTP_BROKEN || left == 0);
  }
  if (event != SWEREX__HTTP_BROKEN) swerex__str_printf(out, "<close %d>", swerex__http_close(&http));
  swerex__http_free(&http);
}

typedef struct form_log {
  swerex__str text;
  const swerex__multi *multi;
} form_log;

static bool log_content(void *owner, const char *data, size_t size, bool last) {
  form_log *log = (form_log *)owner;
  swerex__str_add(&log->text, data, size);
  if (last) swerex__str_printf(&log->text, "<%s|%s>", log->multi->name, log->multi->file);
  return true;
}

static swerex__str read_form(const char *data, size_t size, size_t step) {
  static const char type[] = "multipart/form-data; boundary=AB";
  swerex__http_text header = {type, sizeof type - 1};
  swerex__multi multi;
  form_log log = {swerex__str_new(NULL, (size_t)1 << 26), &multi};
  bool ok = true;
  require(swerex__multi_init(&multi, NULL, header));
  multi.content = log_content;
  multi.owner = &log;
  for (size_t at = 0; ok && at < size; at += step)
    ok = swerex__multi_read(&multi, data + at, size - at < step ? size - at : step);
  swerex__str_printf(&log.text, "<%d %d>", ok, swerex__multi_complete(&multi));
  require(ok || multi.why != NULL);
  swerex__multi_free(&multi);
  return log.text;
}

static void require_same(swerex__str *a, swerex__str *b) {
  require(!a->failed && !b->failed && a->size == b->size && memcmp(a->data, b->data, a->size) == 0);
  swerex__str_clear(a);
  swerex__str_clear(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 || size > 65536) return 0;
  size_t step = data[0] % 16U + 1;
  const char *text = (const char *)data + 1;
  for (int response = 0; response < 2; response++) {
    swerex__str whole = swerex__str_new(NULL, (size_t)1 << 26), parts = whole;
    read_http(text, size - 1, size, response != 0, &whole);
    read_http(text, size - 1, step, response != 0, &parts);
    require_same(&whole, &parts);
  }
  swerex__str whole = read_form(text, size - 1, size), parts = read_form(text, size - 1, step);
  require_same(&whole, &parts);
  swerex__web_url url;
  char *host = swerex__mem_copy(NULL, text, size - 1), path[64];
  if (swerex__web_parse_url(NULL, host, 0, &url, NULL)) swerex__web_clear_url(&url);
  swerex__http_text target = {text, size - 1};
  swerex__route_path(target, path, sizeof path);
  swerex__mem_free(host);
  return 0;
}
