/*
 * The first two bytes choose, the rest is the text. Decoding must give valid UTF-8 or the right
 * error; the filter must give the same however its input is split; the keep must hold head and
 * tail; Python's notation must be printable, and numbers must survive writing and reading.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
  if (!condition) abort();
}

static void collect(void *user, const char *text, size_t size) {
  require(size > 0 && swerex__text_run(text, size, false) == size);
  swerex__str_add((swerex__str *)user, text, size);
}

static void try_decode(unsigned choice, const char *text, size_t size) {
  static const char *const encodings[] = {NULL,     "utf-8-sig", "ascii",  "latin-1",   "cp1252",
                                          "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le",
                                          "utf-32-be", "shift_jis", "iso2022_jp", "gb18030",
                                          "koi8-r", "utf-7"};
  static const char *const handlers[] = {NULL, "ignore", "replace", "backslashreplace",
                                         "surrogateescape"};
  size_t encoding = choice % SWEREX__SYS_COUNT(encodings);
  size_t handler = choice / SWEREX__SYS_COUNT(encodings) % SWEREX__SYS_COUNT(handlers);
  swerex_bytes out = {NULL, 0};
  swerex_error err = SWEREX_ERROR_INIT;
  if (swerex__text_decode(NULL, text, size, encodings[encoding], handlers[handler], &out, &err)) {
    require(memchr(out.data, '\r', out.size) == NULL && out.data[out.size] == '\0');
    require(handler == 4 || swerex__text_run(out.data, out.size, false) == out.size);
  } else {
    require(out.data == NULL);
    require(err.code == SWEREX_E_UNICODE_DECODE ||
            (err.code == SWEREX_E_LOOKUP && encoding > 10));
    require(err.code == SWEREX_E_LOOKUP || handler == 0 || handler == 4);
  }
  swerex__mem_free(out.data);
  swerex__err_clear(&err);
}

/** Filter in chunks of at most `most` bytes, of lengths that depend on the text. */
static void filter(swerex__str *to, bool terminal, const char *text, size_t size, size_t most) {
  static swerex__term_filter f;
  swerex__term_filter_init(&f, terminal);
  for (size_t at = 0; at < size;) {
    size_t length = 1 + ((unsigned char)text[at] * 7u + at) % most;
    if (length > size - at) length = size - at;
    swerex__term_filter_feed(&f, text + at, length, collect, to);
    at += length;
  }
  swerex__term_filter_finish(&f, collect, to);
}

static void try_filter(bool terminal, const char *text, size_t size) {
  swerex__str whole = swerex__str_new(NULL, (size_t)1 << 26);
  static swerex__term_filter f;
  swerex__term_filter_init(&f, terminal);
  swerex__term_filter_feed(&f, text, size, collect, &whole);
  swerex__term_filter_finish(&f, collect, &whole);
  for (size_t most = 1; most <= 64; most = most * 4 - 1) {
    swerex__str pieces = swerex__str_new(NULL, (size_t)1 << 26);
    filter(&pieces, terminal, text, size, most);
    require(pieces.size == whole.size);
    require(whole.size == 0 || memcmp(pieces.data, whole.data, whole.size) == 0);
    swerex__str_clear(&pieces);
  }
  if (!terminal) { /* then it is what decoding gives, but for the ends of lines */
    swerex_bytes out = {NULL, 0};
    require(swerex__text_decode(NULL, text, size, NULL, "backslashreplace", &out, NULL));
    swerex__text_join_lines(&whole);
    require(out.size == whole.size);
    require(whole.size == 0 || memcmp(out.data, whole.data, whole.size) == 0);
    swerex__mem_free(out.data);
  }
  swerex__str_clear(&whole);
}

static void try_keep(size_t max, const char *text, size_t size) {
  swerex__term_keep k;
  swerex_bytes out = {NULL, 0};
  swerex__term_keep_init(&k, NULL, max);
  for (size_t at = 0; at < size;) {
    size_t length = 1 + (unsigned char)text[at] % 29u;
    if (length > size - at) length = size - at;
    swerex__term_keep_add(&k, text + at, length);
    at += length;
  }
  require(swerex__term_keep_take(&k, &out, NULL));
  if (size <= max) {
    require(out.size == size && (size == 0 || memcmp(out.data, text, size) == 0));
  } else {
    const char *note = strstr(out.data, "\n[... ");
    require(out.size <= max + SWEREX__TERM_MARKER && (note != NULL || strlen(out.data) < out.size));
    size_t tail = max / 2 > 3 ? max / 2 - 3 : 0;
    require(memcmp(out.data + out.size - tail, text + size - tail, tail) == 0);
    require(memcmp(out.data, text, tail) == 0);
  }
  swerex__mem_free(out.data);
  swerex__term_keep_clear(&k);
}

static void try_notation(const char *text, size_t size) {
  swerex__str s = swerex__str_new(NULL, (size_t)1 << 26);
  double value, again;
  swerex__util_add_repr(&s, text, size);
  require(!s.failed && s.size >= 2 && swerex__text_run(s.data, s.size, true) == s.size);
  require(memchr(s.data, '\n', s.size) == NULL && memchr(s.data, '\0', s.size) == NULL);
  swerex__str_clear(&s);
  if (swerex__util_parse_double(text, size, &value) && value - value == 0) {
    swerex__util_add_double(&s, value);
    require(swerex__util_parse_double(s.data, s.size, &again));
    require(memcmp(&value, &again, sizeof value) == 0);
    swerex__str_clear(&s);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  char *text = (char *)malloc(size - 1); /* its own block, so that a read beyond it is noticed */
  require(text != NULL);
  size -= 2;
  memcpy(text, data + 2, size);
  try_decode(data[0], text, size);
  try_filter(data[1] % 4 > 0, text, size);
  try_keep(data[1], text, size);
  try_notation(text, size);
  free(text);
  return 0;
}
