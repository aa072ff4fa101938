/* [str]: caps, and why a string has failed. [util]: numbers against Python's repr and float, its
 * string notation, UTF-8, clock, random. */
#include "counting.h"

#include <locale.h>
#include <math.h>

#include "test.h"

TEST(a_string_says_why_it_failed) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_bytes bytes = {NULL, 0};
  swerex__str s = swerex__str_new(NULL, 5);
  swerex__str_puts(&s, "12345");
  CHECK(swerex__str_take(&s, &bytes, &err));
  CHECK_MEM(bytes.data, bytes.size, "12345");
  swerex_bytes_clear(&bytes);
  swerex__str_puts(&s, "larger");
  CHECK(!swerex__str_take(&s, &bytes, &err));
  CHECK_INT(err.code, SWEREX_E_VALUE);
  CHECK_STR(err.message, "text is larger than 5 bytes");
  swerex__str_puts(&s, "123");
  swerex__str_printf(&s, "%d", 456);
  swerex__str_putc(&s, '4'); /* it would fit */
  CHECK_MEM(s.data, s.size, "123");
  CHECK(!swerex__str_take(&s, &bytes, &err));
  CHECK_STR(err.message, "text is larger than 5 bytes");
  s = swerex__str_new(NULL, 200);
  swerex__str_puts(&s, "123");
  budget = 0;
  swerex__str_printf(&s, "%190d", 4);
  budget = -1;
  CHECK(!swerex__str_take(&s, &bytes, &err));
  CHECK_INT(err.code, SWEREX_E_NO_MEMORY);
  CHECK(bytes.data == NULL);
  swerex_error_clear(&err);
  CHECK_INT(live, 0);
}

/** Write a number in Python's notation. Valid until the next call. */
static const char *number(double value) {
  static char text[64];
  swerex__str s = swerex__str_new(NULL, sizeof text - 1);
  swerex__util_add_double(&s, value);
  CHECK(!s.failed);
  memcpy(text, s.data, s.size + 1);
  swerex__str_clear(&s);
  return text;
}

/** Read a number from a block of its exact size. */
static bool parse(const char *text, double *out) {
  size_t size = strlen(text);
  char *exact = (char *)malloc(size > 0 ? size : 1);
  memcpy(exact, text, size);
  bool ok = swerex__util_parse_double(exact, size, out);
  free(exact);
  return ok;
}

/** Check that a text reads as a number, to the bit. */
static void reads_as(const char *text, double expected) {
  double value = -1;
  CHECK(parse(text, &value));
  CHECK(memcmp(&value, &expected, sizeof value) == 0);
}

static const struct {
  double value;
  const char *text;
} numbers[] = {
  {0.0, "0.0"},
  {-0.0, "-0.0"},
  {1.0, "1.0"},
  {5.0, "5.0"},
  {0.2, "0.2"},
  {-0.1, "-0.1"},
  {100.0, "100.0"},
  {1234567.875, "1234567.875"},
  {0.1 + 0.2, "0.30000000000000004"},
  {1.0 / 3.0, "0.3333333333333333"},
  {2.0 / 3.0, "0.6666666666666666"},
  {0.0001, "0.0001"},
  {0.00012345, "0.00012345"},
  {0.00001, "1e-05"},
  {0.000012345, "1.2345e-05"},
  {9999999999999998.0, "9999999999999998.0"},
  {1e15, "1000000000000000.0"},
  {1e16, "1e+16"},
  {123456789012345680.0, "1.2345678901234568e+17"},
  {1e22, "1e+22"},
  {1e100, "1e+100"},
  {9007199254740993.0, "9007199254740992.0"},
  {1.7976931348623157e308, "1.7976931348623157e+308"},
  {2.2250738585072014e-308, "2.2250738585072014e-308"},
  {5e-324, "5e-324"},
  /* powers of two, where the nearest number of 16 digits does not read back, but its neighbour */
  {5.9604644775390625e-08, "5.960464477539063e-08"},
  {9.5367431640625e-07, "9.5367431640625e-07"},
  {1.1102230246251565e-16, "1.1102230246251565e-16"},
};

TEST(numbers_are_written_as_python_writes_them) {
  for (size_t i = 0; i < SWEREX__SYS_COUNT(numbers); i++) {
    CHECK_STR(number(numbers[i].value), numbers[i].text);
    reads_as(numbers[i].text, numbers[i].value);
  }
  CHECK_STR(number(HUGE_VAL), "inf");
  CHECK_STR(number(-HUGE_VAL), "-inf");
  CHECK_STR(number(HUGE_VAL - HUGE_VAL), "nan");
}

TEST(numbers_survive_writing_and_reading) {
  uint64_t state = 88172645463325252u;
  for (int i = 0; i < 20000; i++) {
    double value;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    memcpy(&value, &state, sizeof value);
    if (value - value != 0) continue;
    const char *text = number(value);
    CHECK(strlen(text) <= 24);
    reads_as(text, value);
  }
}

TEST(numbers_are_read_exactly) {
  reads_as("0", 0.0);
  reads_as("-0", -0.0);
  reads_as("0e999999999999999999999", 0.0);
  reads_as("12", 12.0);
  reads_as("1e2", 100.0);
  reads_as("1E+2", 100.0);
  reads_as("25e-2", 0.25);
  reads_as("1e400", HUGE_VAL);
  reads_as("-1e99999999999999999999", -HUGE_VAL);
  reads_as("1e-99999999999999999999", 0.0);
  reads_as("2.4703282292062327e-324", 0.0); /* below half of the smallest */
  reads_as("2.4703282292062328e-324", 5e-324);
  reads_as("9007199254740993", 9007199254740992.0); /* a tie goes to even */
  reads_as("9007199254740993.0000000000000000000000000000000000001", 9007199254740994.0);
  reads_as("05", 5.0);
  reads_as(".5", 0.5);
  reads_as("5.", 5.0);
}

TEST(very_long_numbers_are_read_exactly) {
  enum { ZEROS = 3000 };
  char text[ZEROS + 64];
  strcpy(text, "9007199254740993.");
  size_t n = strlen(text);
  memset(text + n, '0', ZEROS);
  strcpy(text + n + ZEROS, "");
  reads_as(text, 9007199254740992.0);
  strcpy(text + n + ZEROS, "1");
  reads_as(text, 9007199254740994.0);
  text[0] = '0', text[1] = '.';
  memset(text + 2, '0', ZEROS);
  strcpy(text + 2 + ZEROS, "15e3000");
  reads_as(text, 0.15);
  text[0] = '1';
  memset(text + 1, '0', ZEROS);
  strcpy(text + 1 + ZEROS, "e-2999");
  reads_as(text, 10.0);
}

TEST(what_is_no_number_is_refused) {
  static const char *const texts[] = {"",    "-",   ".",     "-.",  "e5",  ".e1",  "1e",  "1e+",
                                      "1e-", "1 ",  " 1",    "+1",  "--1", "1..2", "1.2.3",
                                      "0x1", "inf", "nan",   "1_0", "1,5", "1e5.", "1e5e5"};
  double value;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(texts); i++) CHECK(!parse(texts[i], &value));
  CHECK(!swerex__util_parse_double("1\0", 2, &value));
  CHECK(swerex__util_parse_double("12", 1, &value));
  CHECK(value == 1.0);
}

TEST(the_locale_changes_nothing) {
  static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "ps_AF.UTF-8",
                                      "de_DE"};
  const char *found = NULL;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(names) && found == NULL; i++)
    found = setlocale(LC_NUMERIC, names[i]);
  if (found == NULL) SKIP("no locale with a decimal comma");
  CHECK_STR(number(0.25), "0.25");
  CHECK_STR(number(1.5e300), "1.5e+300");
  reads_as("1234.5e-1", 123.45);
  setlocale(LC_NUMERIC, "C");
}

/** Write a text in Python's notation. Valid until the next call. */
static const char *repr(const char *text, size_t size) {
  static char result[512];
  swerex__str s = swerex__str_new(NULL, sizeof result - 1);
  char *exact = (char *)malloc(size > 0 ? size : 1);
  memcpy(exact, text, size);
  swerex__util_add_repr(&s, exact, size);
  free(exact);
  CHECK(!s.failed);
  memcpy(result, s.data, s.size + 1);
  swerex__str_clear(&s);
  return result;
}
#define REPR(literal) repr(literal, sizeof(literal) - 1)

TEST(text_is_shown_as_python_shows_it) {
  CHECK_STR(REPR(""), "''");
  CHECK_STR(REPR("plain text"), "'plain text'");
  CHECK_STR(REPR("it's"), "\"it's\"");
  CHECK_STR(REPR("say \"hi\""), "'say \"hi\"'");
  CHECK_STR(REPR("it's \"hi\""), "'it\\'s \"hi\"'");
  CHECK_STR(REPR("a\\b"), "'a\\\\b'");
  CHECK_STR(REPR("a\nb\r\n\tc"), "'a\\nb\\r\\n\\tc'");
  CHECK_STR(REPR("\0\1\x1b\x7f"), "'\\x00\\x01\\x1b\\x7f'");
  CHECK_STR(REPR("h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\xA6\x96"),
            "'h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\xA6\x96'");
  CHECK_STR(REPR("\xC2\x85\xC2\xA0\xC2\xAD"), "'\\x85\\xa0\\xad'");
  CHECK_STR(REPR("\xE2\x80\x8B\xEF\xBB\xBF\xE3\x80\x80"), "'\\u200b\\ufeff\\u3000'");
  CHECK_STR(REPR("\xEE\x80\x80\xEF\xBF\xBE"), "'\\ue000\\ufffe'");
  CHECK_STR(REPR("\xF3\xA0\x80\x81\xF4\x8F\xBF\xBF"), "'\\U000e0001\\U0010ffff'");
  CHECK_STR(REPR("\xFF\xC3"), "'\\udcff\\udcc3'");
  CHECK_STR(REPR("\xED\xA0\x80"), "'\\udced\\udca0\\udc80'");
  CHECK_STR(REPR("\xE2\x82"), "'\\udce2\\udc82'");
}

TEST(lists_are_shown_as_python_shows_them) {
  static const char *const none[] = {NULL};
  static const char *const two[] = {"a", "it's", NULL};
  swerex__str s = swerex__str_new(NULL, 100);
  swerex__util_add_repr_list(&s, NULL);
  swerex__util_add_repr_list(&s, none);
  swerex__util_add_repr_list(&s, two);
  CHECK_STR(s.data, "[][]['a', \"it's\"]");
  swerex__str_clear(&s);
}

/** Say by other means what a valid character is. */
static size_t slow_utf8(const unsigned char *b, size_t size) {
  if (b[0] < 0x80) return 1;
  for (uint32_t length = 2; length <= 4; length++) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t point = b[0] & (0x7Fu >> length);
    if ((b[0] | (0x7Fu >> length)) != (0xFFu & ~(0x80u >> length)) || length > size) continue;
    bool fine = true;
    for (uint32_t i = 1; i < length; i++) {
      fine = fine && b[i] / 64 == 2;
      point = point * 64 + b[i] % 64;
    }
    fine = fine && point >= least[length] && point <= 0x10FFFF;
    return fine && (point < 0xD800 || point > 0xDFFF) ? length : 0;
  }
  return 0;
}

TEST(utf8_is_read_strictly) {
  static const unsigned char others[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F,
                                         0xA0, 0xBF, 0xC0, 0xC3, 0xE2, 0xFF};
  const size_t count = SWEREX__SYS_COUNT(others);
  for (unsigned i = 0; i < 256 * count * count * count; i++) {
    const unsigned char bytes[4] = {(unsigned char)(i % 256), others[i / 256 % count],
                                    others[i / 256 / count % count],
                                    others[i / 256 / count / count]};
    for (size_t size = 1; size <= 4; size++) {
      uint32_t point = 0;
      size_t length = swerex__util_utf8_next((const char *)bytes, size, &point);
      if (length != slow_utf8(bytes, size)) CHECK_INT(i, -1);
    }
  }
}

TEST(utf8_is_written_as_it_is_read) {
  for (uint32_t point = 0; point <= 0x10FFFF; point++) {
    char bytes[4];
    uint32_t again = 0;
    size_t length = swerex__util_utf8_put(bytes, point);
    bool surrogate = point >= 0xD800 && point <= 0xDFFF;
    size_t read = swerex__util_utf8_next(bytes, length, &again);
    if (read != (surrogate ? 0 : length) || (!surrogate && again != point)) CHECK_INT(point, -1);
  }
}

TEST(the_clock_goes_forward) {
  double start = swerex__util_now(), now = start;
  struct timespec wait = {0, 20000000};
  for (int i = 0; i < 1000; i++) {
    double next = swerex__util_now();
    CHECK(next >= now);
    now = next;
  }
  nanosleep(&wait, NULL);
  now = swerex__util_now();
  CHECK(now - start >= 0.019 && now - start < 30);
}

TEST(random_bytes_differ) {
  unsigned char a[32] = {0}, b[32] = {0};
  char text[65];
  CHECK(swerex__util_random(a, sizeof a) && swerex__util_random(b, sizeof b));
  CHECK(memcmp(a, b, sizeof a) != 0);
  CHECK(swerex__util_random(a, 0));
  swerex__util_hex(text, a, sizeof a);
  CHECK_INT(strlen(text), 64);
  swerex__util_hex(text, (const unsigned char *)"\x00\x1f\xA0\xff", 4);
  CHECK_STR(text, "001fa0ff");
  swerex__util_hex(text, a, 0);
  CHECK_STR(text, "");
}

TEST(no_memory_is_noticed_and_nothing_leaks) {
  static const char *const items[] = {"one", "it's \"two\"\n", "\xFF\xE2\x80\x8B", NULL};
  bool ok = false;
  for (long n = 0; !ok && n < 100; n++) {
    swerex__str s = swerex__str_new(NULL, 1000);
    budget = n;
    for (int i = 0; i < 8; i++) {
      swerex__util_add_repr_list(&s, items);
      swerex__util_add_double(&s, 1.5e300);
      swerex__util_add_double(&s, 0.001);
    }
    budget = -1;
    ok = !s.failed;
    swerex__str_clear(&s);
    CHECK_INT(live, 0);
  }
  CHECK(ok);
}

TEST_MAIN()
