/* [text], [term]: decoding against what Python answers, the output filter however its input is
 * split, and the capped keep against a slow one. */
#include "counting.h"

#include "test.h"

static uint32_t dice_state = 1;

/** Return a number below `sides`, the same ones in each run. */
static size_t dice(size_t sides) {
  dice_state = dice_state * 1103515245u + 12345u;
  return (dice_state >> 8) % sides;
}

/* --- decoding --- */

/** Decode from a block of the exact size; gives the error's message if it fails. */
static swerex_bytes decode(const char *data, size_t size, const char *encoding, const char *errors,
                           swerex_code *code) {
  swerex_bytes out = {NULL, 0};
  swerex_error err = SWEREX_ERROR_INIT;
  char *exact = (char *)malloc(size > 0 ? size : 1);
  if (size > 0) memcpy(exact, data, size);
  bool ok = swerex__text_decode(NULL, exact, size, encoding, errors, &out, &err);
  free(exact);
  *code = err.code;
  CHECK(ok == (err.code == SWEREX_E_OK));
  if (ok) {
    CHECK(out.data != NULL && out.data[out.size] == '\0');
  } else {
    CHECK(out.data == NULL);
    out.size = strlen(err.message);
    out.data = swerex__mem_copy(NULL, err.message, out.size);
  }
  swerex__err_clear(&err);
  return out;
}

#define CHECK_DECODE(input, encoding, errors, expected_code, expected)                             \
  do {                                                                                             \
    swerex_code code_;                                                                             \
    swerex_bytes seen_ = decode(input, sizeof(input) - 1, encoding, errors, &code_);               \
    CHECK_INT(code_, expected_code);                                                               \
    CHECK_MEM(seen_.data, seen_.size, expected);                                                   \
    swerex__mem_free(seen_.data);                                                                  \
  } while (0)
#define GIVES(input, encoding, errors, expected)                                                   \
  CHECK_DECODE(input, encoding, errors, SWEREX_E_OK, expected)
#define REFUSES(input, encoding, message)                                                          \
  CHECK_DECODE(input, encoding, NULL, SWEREX_E_UNICODE_DECODE, message)

TEST(valid_text_is_decoded) {
  GIVES("", NULL, NULL, "");
  GIVES("plain", NULL, NULL, "plain");
  GIVES("a\0b", NULL, NULL, "a\0b");
  GIVES("h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\xA6\x96", NULL, "strict",
        "h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\xA6\x96");
  GIVES("\xEF\xBB\xBFx", "utf-8", NULL, "\xEF\xBB\xBFx");
  GIVES("\xEF\xBB\xBFx", "utf-8-sig", NULL, "x");
  GIVES("x\xEF\xBB\xBF", "utf-8-sig", NULL, "x\xEF\xBB\xBF");
  GIVES("ascii", "ascii", NULL, "ascii");
  GIVES("h\xE9\x85", "latin-1", NULL, "h\xC3\xA9\xC2\x85");
  GIVES("\x80 h\xE9 \x9F", "cp1252", NULL, "\xE2\x82\xAC h\xC3\xA9 \xC5\xB8");
  GIVES("a\0\xAC\x20\x3E\xD8\x96\xDD", "utf-16", NULL, "a\xE2\x82\xAC\xF0\x9F\xA6\x96");
  GIVES("\xFF\xFE" "a\0", "utf-16", NULL, "a");
  GIVES("\xFE\xFF\0a\xD8\x3E\xDD\x96", "utf-16", NULL, "a\xF0\x9F\xA6\x96");
  GIVES("\xFF\xFE" "a\0", "utf-16-le", NULL, "\xEF\xBB\xBF" "a");
  GIVES("\0a\x20\xAC", "utf-16-be", NULL, "a\xE2\x82\xAC");
  GIVES("a\0\0\0\x96\xF9\x01\0", "utf-32", NULL, "a\xF0\x9F\xA6\x96");
  GIVES("\xFF\xFE\0\0a\0\0\0", "utf-32", NULL, "a");
  GIVES("\0\0\xFE\xFF\0\0\0a", "utf-32", NULL, "a");
  GIVES("a\0\0\0", "utf-32-le", NULL, "a");
  GIVES("\0\x01\xF9\x96", "utf-32-be", NULL, "\xF0\x9F\xA6\x96");
}

TEST(lines_end_in_lf) {
  GIVES("a\r\nb\rc\nd", NULL, NULL, "a\nb\nc\nd");
  GIVES("\r\r\n\n\r", NULL, NULL, "\n\n\n\n");
  GIVES("\r", NULL, NULL, "\n");
  GIVES("\r\n", "ascii", NULL, "\n");
  GIVES("a\r\n\r\nb\r\n", "cp1252", NULL, "a\n\nb\n");
  GIVES("a\0\r\0\n\0", "utf-16-le", NULL, "a\n");
}

TEST(encodings_have_pythons_names) {
  static const char *const utf_8[] = {"utf-8", "UTF-8",   "utf8",   "UTF_8",    "u8",   " utf 8 ",
                                      "utf",   "utf--8",  "U8",     "cp65001",  "UtF8", "utf.8"};
  static const char *const latin_1[] = {"latin-1",   "latin1", "latin", "L1",   "iso-8859-1",
                                        "ISO8859-1", "8859",   "cp819", "IBM819", "iso_8859_1",
                                        "iso-8859-1-1987", "iso-ir-100", "csISOLatin1"};
  static const char *const ascii[] = {"ascii", "us-ascii", "646", "ANSI_X3.4-1968", "us",
                                      "iso646-us", "cp367", "ISO_646.irv:1991"};
  swerex_code code;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(utf_8); i++) {
    swerex_bytes out = decode("\xC3\xA9", 2, utf_8[i], NULL, &code);
    CHECK_STR(out.data, "\xC3\xA9");
    swerex__mem_free(out.data);
  }
  for (size_t i = 0; i < SWEREX__SYS_COUNT(latin_1); i++) {
    swerex_bytes out = decode("\xE9", 1, latin_1[i], NULL, &code);
    CHECK_STR(out.data, "\xC3\xA9");
    swerex__mem_free(out.data);
  }
  for (size_t i = 0; i < SWEREX__SYS_COUNT(ascii); i++) {
    swerex_bytes out = decode("\xE9", 1, ascii[i], NULL, &code);
    CHECK_STR(out.data, "'ascii' codec can't decode byte 0xe9 in position 0: "
                        "ordinal not in range(128)");
    swerex__mem_free(out.data);
  }
  GIVES("\x80", "windows-1252", NULL, "\xE2\x82\xAC");
  GIVES("\x80", "1252", NULL, "\xE2\x82\xAC");
  GIVES("a\0", "U16", NULL, "a");
  GIVES("a\0", "UTF-16LE", NULL, "a");
  GIVES("\0a", "UTF-16BE", NULL, "a");
}

TEST(unknown_names_are_refused) {
  CHECK_DECODE("x", "nope", NULL, SWEREX_E_LOOKUP, "unknown encoding: nope");
  CHECK_DECODE("", "nope", NULL, SWEREX_E_LOOKUP, "unknown encoding: nope");
  CHECK_DECODE("x", "", NULL, SWEREX_E_LOOKUP, "unknown encoding: ");
  CHECK_DECODE("x", "--", NULL, SWEREX_E_LOOKUP, "unknown encoding: --");
  CHECK_DECODE("x", "utf-8-sig//IGNORE", NULL, SWEREX_E_LOOKUP,
               "unknown encoding: utf-8-sig//IGNORE");
  CHECK_DECODE("x", "utf-8\xC3\xA9", NULL, SWEREX_E_LOOKUP, "unknown encoding: utf-8\xC3\xA9");
  CHECK_DECODE("x", "a-very-long-name-that-no-encoding-will-ever-have-in-any-library", NULL,
               SWEREX_E_LOOKUP,
               "unknown encoding: a-very-long-name-that-no-encoding-will-ever-have-in-any-library");
  CHECK_DECODE("x", NULL, "xyz", SWEREX_E_LOOKUP, "unknown error handler name 'xyz'");
  CHECK_DECODE("x", "utf-16", "", SWEREX_E_LOOKUP, "unknown error handler name ''");
  GIVES("x", NULL, "xmlcharrefreplace", "x");
}

TEST(bad_utf8_is_described_as_python_does) {
#define UTF_8 "'utf-8' codec can't decode "
  REFUSES("a\xFF", NULL, UTF_8 "byte 0xff in position 1: invalid start byte");
  REFUSES("\x80", NULL, UTF_8 "byte 0x80 in position 0: invalid start byte");
  REFUSES("\xC0\x80", NULL, UTF_8 "byte 0xc0 in position 0: invalid start byte");
  REFUSES("\xF5\x80\x80\x80", NULL, UTF_8 "byte 0xf5 in position 0: invalid start byte");
  REFUSES("\xC3(", NULL, UTF_8 "byte 0xc3 in position 0: invalid continuation byte");
  REFUSES("\xE0\x80\x80", NULL, UTF_8 "byte 0xe0 in position 0: invalid continuation byte");
  REFUSES("\xED\xA0\x80", NULL, UTF_8 "byte 0xed in position 0: invalid continuation byte");
  REFUSES("\xF4\x90\x80\x80", NULL, UTF_8 "byte 0xf4 in position 0: invalid continuation byte");
  REFUSES("\xE2\x82(", NULL, UTF_8 "bytes in position 0-1: invalid continuation byte");
  REFUSES("\xF0\x9F\xA6(", NULL, UTF_8 "bytes in position 0-2: invalid continuation byte");
  REFUSES("ab\xC3", NULL, UTF_8 "byte 0xc3 in position 2: unexpected end of data");
  REFUSES("\xE2\x82", NULL, UTF_8 "bytes in position 0-1: unexpected end of data");
  REFUSES("x\xF0\x9F\xA6", NULL, UTF_8 "bytes in position 1-3: unexpected end of data");
  REFUSES("\xEF\xBB\xBF\xFF", "utf-8-sig", UTF_8 "byte 0xff in position 0: invalid start byte");
  REFUSES("\xEF\xBB", "utf-8-sig", UTF_8 "bytes in position 0-1: unexpected end of data");
  REFUSES("0123456789abcdef0123456789\xFF", "u8",
          UTF_8 "byte 0xff in position 26: invalid start byte");
#undef UTF_8
}

TEST(other_bad_bytes_are_described_as_python_does) {
  REFUSES("abc\xE9", "ascii",
          "'ascii' codec can't decode byte 0xe9 in position 3: ordinal not in range(128)");
  REFUSES("\x81", "cp1252",
          "'charmap' codec can't decode byte 0x81 in position 0: character maps to <undefined>");
#define UTF_16 "'utf-16-le' codec can't decode "
  REFUSES("a\0b", "utf-16", UTF_16 "byte 0x62 in position 2: truncated data");
  REFUSES("\xFF\xFE" "a", "utf-16", UTF_16 "byte 0x61 in position 2: truncated data");
  REFUSES("\0\xD8", "utf-16", UTF_16 "bytes in position 0-1: unexpected end of data");
  REFUSES("\0\xD8x", "utf-16", UTF_16 "bytes in position 0-2: unexpected end of data");
  REFUSES("\0\xD8" "a\0", "utf-16", UTF_16 "bytes in position 0-1: illegal UTF-16 surrogate");
  REFUSES("\0\xDC", "utf-16", UTF_16 "bytes in position 0-1: illegal encoding");
#undef UTF_16
  REFUSES("\0a\xDC\0", "utf-16-be",
          "'utf-16-be' codec can't decode bytes in position 2-3: illegal encoding");
  REFUSES("\0\0\x11\0", "utf-32",
          "'utf-32-le' codec can't decode bytes in position 0-3: "
          "code point not in range(0x110000)");
  REFUSES("\0\0\xD8\0", "utf-32-be",
          "'utf-32-be' codec can't decode bytes in position 0-3: "
          "code point in surrogate code point range(0xd800, 0xe000)");
  REFUSES("\0\0\xFE\xFF\0\0", "utf-32",
          "'utf-32-be' codec can't decode bytes in position 4-5: truncated data");
}

TEST(error_handlers_do_what_pythons_do) {
#define BAD "\xEF\xBF\xBD"
  GIVES("a\xFF\xE2\x82(\xF0\x9F\xA6", NULL, "replace", "a" BAD BAD "(" BAD);
  GIVES("\xE0\x80\x80\xED\xA0\x80", NULL, "replace", BAD BAD BAD BAD BAD BAD);
  GIVES("\xF0\x90\x80\xF0\x90\xE1", NULL, "replace", BAD BAD BAD);
  GIVES("a\xFF\xE2\x82(\xF0\x9F\xA6", NULL, "ignore", "a(");
  GIVES("a\xFF\xE2\x82(\xC3", NULL, "backslashreplace", "a\\xff\\xe2\\x82(\\xc3");
  GIVES("a\xFF\xE2\x82(\xC3", NULL, "surrogateescape", "a\xFF\xE2\x82(\xC3");
  GIVES("a\xFF", "ascii", "surrogateescape", "a\xFF");
  GIVES("\xE9t\xE9", "ascii", "backslashreplace", "\\xe9t\\xe9");
  GIVES("\x81x", "cp1252", "replace", BAD "x");
  GIVES("\0\xD8" "a\0b", "utf-16", "replace", BAD "a" BAD);
  GIVES("\0\xD8" "a\0b", "utf-16", "ignore", "a");
  GIVES("\0\xD8" "a\0b", "utf-16", "backslashreplace", "\\x00\\xd8" "a\\x62");
  GIVES("\x80\xD8" "a\0", "utf-16", "surrogateescape", "\x80\xD8" "a");
  CHECK_DECODE("\0\xD8" "a\0", "utf-16", "surrogateescape", SWEREX_E_UNICODE_DECODE,
               "'utf-16-le' codec can't decode bytes in position 0-1: illegal UTF-16 surrogate");
  GIVES("\0\0\x11\0a\0\0\0", "utf-32", "replace", BAD "a");
#undef BAD
}

TEST(other_encodings_come_from_the_system) {
  iconv_t probe = iconv_open("UTF-8", "SHIFT_JIS");
  if (probe == (iconv_t)-1) SKIP("no iconv tables on this system");
  iconv_close(probe);
  GIVES("\x93\xFA\x96\x7B\r\n", "shift_jis", NULL, "\xE6\x97\xA5\xE6\x9C\xAC\n");
  GIVES("\x93\xFA\x96\x7B", "SJIS", NULL, "\xE6\x97\xA5\xE6\x9C\xAC");
  GIVES("\xC6\xFC", "euc-jp", NULL, "\xE6\x97\xA5");
  GIVES("\xF0", "koi8_r", NULL, "\xD0\x9F");
  GIVES("\xCF", "1251", NULL, "\xD0\x9F");
  GIVES("\xA4", "iso8859-15", NULL, "\xE2\x82\xAC");
  GIVES("\xA4", "iso_8859_15", NULL, "\xE2\x82\xAC");
  GIVES("a\xFF" "b", "shift_jis", "replace", "a\xEF\xBF\xBD" "b");
  GIVES("a\x93", "shift_jis", "ignore", "a");
  GIVES("a\xFF", "shift_jis", "backslashreplace", "a\\xff");
  REFUSES("a\x93", "shift_jis",
          "'shift_jis' codec can't decode byte 0x93 in position 1: incomplete multibyte sequence");
  REFUSES("a\xFF" "b", "shift_jis",
          "'shift_jis' codec can't decode byte 0xff in position 1: illegal multibyte sequence");
  REFUSES("a\x98", "cp1251",
          "'charmap' codec can't decode byte 0x98 in position 1: character maps to <undefined>");
}

TEST(decoding_without_memory_leaks_nothing) {
  static const char *const encodings[] = {NULL, "latin-1", "utf-16", "koi8-r", "nope", "ascii"};
  char data[300];
  memset(data, 0xE9, sizeof data);
  for (size_t i = 0; i < SWEREX__SYS_COUNT(encodings); i++) {
    swerex_code code = SWEREX_E_NO_MEMORY;
    for (long n = 0; code == SWEREX_E_NO_MEMORY && n < 50; n++) {
      swerex_bytes out = {NULL, 0};
      swerex_error err = SWEREX_ERROR_INIT;
      budget = n;
      bool ok = swerex__text_decode(NULL, data, sizeof data, encodings[i],
                                    i == 5 ? "backslashreplace" : "replace", &out, &err);
      budget = -1;
      code = err.code;
      CHECK(ok == (code == SWEREX_E_OK) && ok == (out.data != NULL));
      swerex__mem_free(out.data);
      swerex__err_clear(&err);
      CHECK_INT(live, 0);
    }
    CHECK_INT(code, i == 4 ? SWEREX_E_LOOKUP : SWEREX_E_OK);
  }
}

/* --- command output --- */

typedef struct collector {
  char data[65536];
  size_t size, calls;
} collector;

/** Take a piece, which must be made of whole characters. */
static void collect(void *user, const char *text, size_t size) {
  collector *to = (collector *)user;
  CHECK(size > 0 && size <= sizeof to->data - to->size);
  CHECK(swerex__text_run(text, size, false) == size);
  memcpy(to->data + to->size, text, size);
  to->size += size;
  to->calls++;
}

/** Filter data in chunks of one size, or of random ones up to `most`. */
static void filter(collector *to, bool terminal, const char *data, size_t size, size_t most,
                   bool random) {
  swerex__term_filter f;
  swerex__term_filter_init(&f, terminal);
  to->size = to->calls = 0;
  while (size > 0) {
    size_t length = random ? dice(most + 1) : most;
    if (length > size) length = size;
    char *exact = (char *)malloc(length > 0 ? length : 1);
    memcpy(exact, data, length);
    swerex__term_filter_feed(&f, exact, length, collect, to);
    free(exact);
    data += length;
    size -= length;
  }
  swerex__term_filter_finish(&f, collect, to);
  size_t before = to->size;
  swerex__term_filter_finish(&f, collect, to);
  CHECK_INT(to->size, before);
}

static collector whole, pieces;

/** Check that how the data is split makes no difference. The result is in `whole`. */
static void filter_all_ways(bool terminal, const char *data, size_t size) {
  filter(&whole, terminal, data, size, size > 0 ? size : 1, false);
  for (size_t i = 0; i < 8; i++) {
    if (i < 4)
      filter(&pieces, terminal, data, size, i + 1, false);
    else
      filter(&pieces, terminal, data, size, i * i - 10, true);
    CHECK(pieces.size == whole.size && memcmp(pieces.data, whole.data, whole.size) == 0);
  }
}

#define FILTERS(terminal, input, expected)                                                         \
  do {                                                                                             \
    filter_all_ways(terminal, input, sizeof(input) - 1);                                           \
    CHECK_MEM(whole.data, whole.size, expected);                                                   \
  } while (0)
#define SHOWS(input, expected) FILTERS(true, input, expected)

TEST(invalid_bytes_are_shown) {
  FILTERS(false, "", "");
  FILTERS(false, "plain\r\n\x1b[1m\0", "plain\r\n\x1b[1m\0");
  FILTERS(false, "h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\xA6\x96",
          "h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\xA6\x96");
  FILTERS(false, "a\xFF" "b\x80", "a\\xff" "b\\x80");
  FILTERS(false, "\xE2\x82(\xF0\x9F\xA6", "\\xe2\\x82(\\xf0\\x9f\\xa6");
  FILTERS(false, "\xE2\x82\xE2\x82\xAC", "\\xe2\\x82\xE2\x82\xAC");
  FILTERS(false, "\xED\xA0\x80\xC0\x80\xF4\x90\x80\x80",
          "\\xed\\xa0\\x80\\xc0\\x80\\xf4\\x90\\x80\\x80");
  FILTERS(true, "a\xFF\xC3\r\n\xC3\r", "a\\xff\\xc3\n\\xc3\r");
}

TEST(crlf_becomes_lf) {
  SHOWS("a\r\nb\r\n", "a\nb\n");
  SHOWS("a\rb\r", "a\rb\r");
  SHOWS("\r\r\n\n\r", "\r\n\n\r");
  SHOWS("a\r\x1b[K\nb", "a\nb"); /* as if the sequence had not been there */
  SHOWS("a\r\x1b[Kb", "a\rb");
}

TEST(escape_sequences_are_removed) {
  SHOWS("\x1b[1;31mred\x1b[0m", "red");
  SHOWS("\x1b[?2004ha\x1b[?2004l", "a");
  SHOWS("\x1b[2 qa\x1b[!pb\x1b[>0;1cc", "abc");
  SHOWS("\x1b[ma\x1b[Kb\x1b[@c", "abc");
  SHOWS("\x1b(Ba\x1b)0b\x1b#8c\x1b %Gd", "abcd");
  SHOWS("\x1b=a\x1b>b\x1b" "7c\x1b" "8d\x1b" "ce\x1bMf", "abcdef");
  SHOWS("\x1b\\a", "a");
  SHOWS("\x1b]0;the title\ax", "x");
  SHOWS("\x1b]0;the title\x1b\\x", "x");
  SHOWS("\x1b]8;;http://a/\x1b\\link\x1b]8;;\x1b\\", "link");
  SHOWS("\x1b]0;h\xC3\xA9 \xFF\ax", "x");
  SHOWS("\x1bP1$r0m\x1b\\x\x1bXsos\x1b\\y\x1b^pm\x1b\\z\x1b_apc\a\x1b\\", "xyz");
  SHOWS("\x1bPtmux;\x1b\x1b]52;c;YQ==\a\x1b\\x", "x");
}

TEST(what_is_no_sequence_stays) {
  SHOWS("\x1b\x1b[1mx", "\x1bx");
  SHOWS("\x1b\nx\x1b\xC3\xA9\x1b\x7F", "\x1b\nx\x1b\xC3\xA9\x1b\x7F");
  SHOWS("\x1b[1;\nx", "\x1b[1;\nx");
  SHOWS("\x1b[1;\x1b[0mx", "\x1b[1;x");
  SHOWS("\x1b[1 2mx", "\x1b[1 2mx");
  SHOWS("\x1b(\nx", "\x1b(\nx");
  SHOWS("a\x1b[\xC3\xA9", "a\x1b[\xC3\xA9");
  SHOWS("\xC3\x1b[m\xA9", "\\xc3\\xa9");
}

TEST(a_broken_string_loses_only_its_start) {
  SHOWS("\x1b]0;title\nnext", "itle\nnext");
  SHOWS("\x1b]0;\nnext", "\x1b]0;\nnext");
  SHOWS("\x1b]0;title\r\nnext", "itle\nnext");
  SHOWS("\x1b]0;title\x1b[1mbold", "itlebold");
  SHOWS("\x1bPq#0\nx", "#0\nx");
  SHOWS("\x1b]0;t\xC3\x1b[1m\xA9", "\\xc3\\xa9");
}

TEST(what_is_incomplete_at_the_end_stays) {
  SHOWS("a\x1b", "a\x1b");
  SHOWS("a\x1b[", "a\x1b[");
  SHOWS("a\x1b[1;3", "a\x1b[1;3");
  SHOWS("a\x1b(", "a\x1b(");
  SHOWS("a\x1b]0;", "a\x1b]0;");
  SHOWS("a\x1b]0;title", "aitle");
  SHOWS("a\x1b]0;title\x1b", "aitle\x1b");
  SHOWS("a\xE2\x82", "a\\xe2\\x82");
}

TEST(strings_are_bounded) {
  static char data[3 * SWEREX__TERM_SEQUENCE];
  for (size_t extra = 0; extra < 3; extra++) {
    size_t size = SWEREX__TERM_SEQUENCE - 1 + extra;
    memset(data, 'x', sizeof data);
    memcpy(data, "\x1b]0;", 4);
    data[size] = '\a';
    filter_all_ways(true, data, size + 2);
    if (extra < 2)
      CHECK_MEM(whole.data, whole.size, "x");
    else
      CHECK_INT(whole.size, size + 2 - 5);
    memset(data, '1', sizeof data);
    memcpy(data, "\x1b[", 2);
    memcpy(data + size, "mx", 2);
    filter_all_ways(true, data, size + 2);
    CHECK_INT(whole.size, extra < 2 ? 1 : size + 2);
  }
}

TEST(random_output_is_the_same_however_it_is_split) {
  static const char *const parts[] = {"\x1b",   "\x1b[",      "\x1b]0;", "\x1bP", "\x1b\\", "\a",
                                      "\r",     "\n",         "\r\n",    "1;2",   "m",      " ",
                                      "\xC3",   "\xA9",       "\xE2\x82", "\xAC", "\xFF",   "text",
                                      "\x1b[m", "\xC3\xA9 \xE2\x82\xAC", "\x1b\x1b", "(B"};
  char data[400];
  for (int i = 0; i < 3000; i++) {
    size_t size = 0, count = dice(30);
    for (size_t k = 0; k < count; k++) {
      const char *part = parts[dice(SWEREX__SYS_COUNT(parts))];
      memcpy(data + size, part, strlen(part));
      size += strlen(part);
    }
    filter_all_ways(dice(4) > 0, data, size);
  }
}

TEST(small_pieces_come_together) {
  static char data[30000];
  for (size_t i = 0; i < sizeof data; i++) data[i] = i % 10 == 8 ? '\r' : i % 10 == 9 ? '\n' : 'x';
  filter(&whole, true, data, sizeof data, sizeof data, false);
  CHECK_INT(whole.size, sizeof data / 10 * 9);
  CHECK(whole.calls <= 20);
}

/* --- capped keeping --- */

/** Give what a keep of `max` should give for a text. */
static void keep_slowly(swerex__str *s, const char *text, size_t size, size_t max) {
  size_t head = max / 2, tail;
  if (size <= max) {
    swerex__str_add(s, text, size);
    return;
  }
  while (head > 0 && ((unsigned char)text[head] & 0xC0) == 0x80) head--;
  tail = size - (max - head);
  while (tail < size && ((unsigned char)text[tail] & 0xC0) == 0x80) tail++;
  swerex__str_add(s, text, head);
  swerex__str_printf(s, "\n[... %zu bytes left out ...]\n", tail - head);
  swerex__str_add(s, text + tail, size - tail);
}

static void check_keep(swerex__term_keep *k, const char *text, size_t size, size_t max) {
  swerex__str expected = swerex__str_new(NULL, 1 << 20);
  swerex_bytes out = {NULL, 0};
  for (size_t at = 0; at < size;) {
    size_t length = dice(dice(4) == 0 ? size + 1 : 9);
    if (length > size - at) length = size - at;
    swerex__term_keep_add(k, text + at, length);
    at += length;
  }
  CHECK(!k->failed);
  CHECK(swerex__term_keep_take(k, &out, NULL));
  keep_slowly(&expected, text, size, max);
  CHECK(out.size == expected.size && out.data[out.size] == '\0');
  CHECK(memcmp(out.data, expected.size > 0 ? expected.data : "", out.size) == 0);
  CHECK(swerex__text_run(out.data, out.size, false) == out.size);
  swerex__mem_free(out.data);
  swerex__str_clear(&expected);
}

TEST(output_is_kept_up_to_the_cap) {
  static const char *const parts[] = {"a", "bc", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\xA6\x96"};
  char text[2100];
  for (int i = 0; i < 4000; i++) {
    swerex__term_keep k;
    size_t max = dice(dice(2) == 0 ? 40 : 1500);
    swerex__term_keep_init(&k, NULL, max);
    for (int again = 0; again < 2; again++) { /* a keep can be used again */
      size_t size = 0, wanted = dice(dice(2) == 0 ? 100 : 2000);
      while (size < wanted) {
        const char *part = parts[dice(SWEREX__SYS_COUNT(parts))];
        memcpy(text + size, part, strlen(part));
        size += strlen(part);
      }
      check_keep(&k, text, size, max);
    }
    swerex__term_keep_clear(&k);
  }
  CHECK_INT(live, 0);
}

TEST(the_cap_is_exact) {
  swerex__term_keep k;
  swerex_bytes out = {NULL, 0};
  swerex__term_keep_init(&k, NULL, 10);
  swerex__term_keep_add(&k, "0123456789", 10);
  CHECK(swerex__term_keep_take(&k, &out, NULL));
  CHECK_STR(out.data, "0123456789");
  swerex__mem_free(out.data);
  swerex__term_keep_add(&k, "0123456789", 10);
  swerex__term_keep_add(&k, "a", 1);
  CHECK(swerex__term_keep_take(&k, &out, NULL));
  CHECK_STR(out.data, "01234\n[... 1 bytes left out ...]\n6789a");
  swerex__mem_free(out.data);
  for (int i = 0; i < 1000; i++) swerex__term_keep_add(&k, "0123456789", 10);
  CHECK(swerex__term_keep_take(&k, &out, NULL));
  CHECK_STR(out.data, "01234\n[... 9990 bytes left out ...]\n56789");
  swerex__mem_free(out.data);
  CHECK(swerex__term_keep_take(&k, &out, NULL));
  CHECK_STR(out.data, "");
  swerex__mem_free(out.data);
  swerex__term_keep_init(&k, NULL, 0);
  swerex__term_keep_add(&k, "abc", 3);
  CHECK(swerex__term_keep_take(&k, &out, NULL));
  CHECK_STR(out.data, "\n[... 3 bytes left out ...]\n");
  swerex__mem_free(out.data);
}

TEST(what_fits_is_handed_over_without_a_copy) {
  swerex__term_keep k;
  swerex_bytes out = {NULL, 0};
  swerex__term_keep_init(&k, NULL, (size_t)-1);
  calls = 0;
  for (int i = 0; i < 100000; i++) swerex__term_keep_add(&k, "0123456789", 10);
  CHECK(calls < 16);
  const char *block = k.data;
  long before = calls;
  CHECK(swerex__term_keep_take(&k, &out, NULL));
  CHECK(out.data == block && calls == before);
  CHECK_INT(out.size, 1000000);
  swerex__mem_free(out.data);
}

TEST(keeping_without_memory_leaks_nothing) {
  bool ok = false;
  for (long n = 0; !ok && n < 30; n++) {
    swerex__term_keep k;
    swerex_bytes out = {NULL, 0};
    swerex_error err = SWEREX_ERROR_INIT;
    swerex__term_keep_init(&k, NULL, 3000);
    budget = n;
    for (int i = 0; i < 1000; i++) swerex__term_keep_add(&k, "0123456789", 10);
    ok = swerex__term_keep_take(&k, &out, &err);
    budget = -1;
    CHECK_INT(err.code, ok ? SWEREX_E_OK : SWEREX_E_NO_MEMORY);
    CHECK(!k.failed && k.data == NULL);
    swerex__term_keep_add(&k, "again", 5);
    swerex__mem_free(out.data);
    CHECK(swerex__term_keep_take(&k, &out, &err));
    CHECK_STR(out.data, "again");
    swerex__mem_free(out.data);
    swerex__err_clear(&err);
    CHECK_INT(live, 0);
  }
  CHECK(ok);
}

TEST_MAIN()
