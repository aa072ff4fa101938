/*
 * Any request, its parts divided by NUL: method, path, query, two headers, body. The canonical form
 * has the lines that it must have, a path without dots, a query and headers in order; the signature
 * does not depend on the order of the query and the headers, and does on the body. The times,
 * encodings and form fields of calls are tried with the same text.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PARTS = 7 };

static void require(bool condition) {
  if (!condition) abort();
}

static void fill(swerex__sign_request *request, char *const parts[PARTS], bool turned) {
  memset(request, 0, sizeof *request);
  request->method = parts[0];
  request->path = parts[1];
  request->query = parts[2];
  request->headers[turned ? 1 : 0].name = "X-One";
  request->headers[turned ? 1 : 0].value = parts[3];
  request->headers[turned ? 0 : 1].name = parts[4];
  request->headers[turned ? 0 : 1].value = parts[5];
  request->header_count = 2;
  request->body = parts[6];
  request->body_size = strlen(parts[6]);
  request->region = "r";
  request->service = "s";
  strcpy(request->date, "20260115T123045Z");
}

static swerex__str sign(swerex__sign_request *request) {
  char id[] = "ID", secret[] = "secret";
  swerex__sign_keys keys = {id, secret, NULL, 0};
  swerex__str out = swerex__str_new(NULL, (size_t)1 << 20);
  if (!swerex__sign(request, &keys, &out)) swerex__str_clear(&out);
  return out;
}

/** Tell whether two requests have the same signature, or both none. */
static bool same(swerex__sign_request *a, swerex__sign_request *b) {
  swerex__str left = sign(a), right = sign(b);
  bool equal = left.size == right.size &&
               (left.size == 0 || memcmp(left.data, right.data, left.size) == 0);
  swerex__str_clear(&left);
  swerex__str_clear(&right);
  return equal;
}

static void check_path(const char *path) {
  swerex__str out = swerex__str_new(NULL, (size_t)1 << 20);
  swerex__sign_add_path(&out, path);
  swerex__str_add(&out, "", 0);
  require(!out.failed && out.data[0] == '/' && strstr(out.data, "//") == NULL);
  require(strstr(out.data, "/./") == NULL && strstr(out.data, "/../") == NULL);
  for (size_t i = 0; i < out.size; i++)
    require(out.data[i] > ' ' && out.data[i] < 127 && strchr("?#&=+", out.data[i]) == NULL);
  swerex__str_clear(&out);
}

static void check_query(const char *query) {
  swerex__str out = swerex__str_new(NULL, (size_t)1 << 20);
  if (swerex__sign_add_query(&out, query) && out.size > 0) {
    swerex__http_text last = {NULL, 0};
    for (const char *at = out.data;; at++) {
      swerex__http_text pair = {at, strcspn(at, "&")};
      require(memchr(pair.data, '=', pair.size) != NULL);
      if (last.data != NULL) require(swerex__sign_compare(&last, &pair) <= 0);
      last = pair;
      at += pair.size;
      if (*at == '\0') break;
    }
  }
  swerex__str_clear(&out);
}

/** What a form holds must be what a form's reader finds. */
static void check_field(const char *text) {
  swerex__str form = swerex__str_new(NULL, (size_t)1 << 20);
  swerex__sign_add_field(&form, "n", text);
  require(!form.failed && memcmp(form.data, "&n=", 3) == 0);
  const char *at = form.data + 3;
  for (; *text != '\0'; text++) {
    char c = *at++;
    if (c == '+') c = ' ';
    if (c == '%') {
      char hex[3] = {at[0], at[1], '\0'};
      c = (char)strtol(hex, NULL, 16);
      at += 2;
    }
    require(c == *text);
  }
  require(*at == '\0');
  swerex__str_clear(&form);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  swerex__sign_request one, other;
  char *parts[PARTS];
  size_t at = 0;
  for (size_t i = 0; i < PARTS; i++) {
    size_t end = at;
    while (end < size && data[end] != '\0') end++;
    parts[i] = (char *)malloc(end - at + 2); /* room for a byte more */
    memcpy(parts[i], data + at, end - at);
    parts[i][end - at] = '\0';
    at = end < size ? end + 1 : size;
    check_field(parts[i]);
    require(swerex__sign_read_time(parts[i]) >= -1e9);
  }
  check_path(parts[1]);
  check_query(parts[2]);
  fill(&one, parts, false);
  fill(&other, parts, true);
  if (swerex__sign_compare_names(parts[4], "x-one") != 0) require(same(&one, &other));
  bool hashed = swerex__sign_compare_names(parts[4], "x-amz-content-sha256") == 0;
  swerex__str before = sign(&one);
  size_t length = strlen(parts[6]);
  parts[6][length] = 'x';
  parts[6][length + 1] = '\0';
  fill(&other, parts, false);
  swerex__str after = sign(&other);
  if (before.size > 0 && !hashed)
    require(before.size == after.size && memcmp(before.data, after.data, after.size) != 0);
  swerex__str_clear(&before);
  swerex__str_clear(&after);
  for (size_t i = 0; i < PARTS; i++) free(parts[i]);
  return 0;
}
