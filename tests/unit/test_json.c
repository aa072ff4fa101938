/* [json], [doc]: the reader against the grammar and Python's error texts, the writer, memory
 * failures. */
#include "counting.h"

#include "test.h"

/** Write a document, or the place of its fault. */
static swerex__str shown(const swerex__doc *doc, bool ok) {
  swerex__str s = swerex__str_new(NULL, (size_t)1 << 26);
  if (ok)
    swerex__json_add_node(&s, doc->root);
  else
    swerex__str_printf(&s, "%s: %zu %zu %zu %zu", doc->fault.reason, doc->fault.byte, doc->fault.position,
                       doc->fault.line, doc->fault.column);
  return s;
}

/** Read a text in place, which must give the same. */
static void check_in_place(char *exact, size_t size, const swerex__doc *doc, bool ok) {
  swerex__doc other;
  swerex__str want = shown(doc, ok);
  CHECK_INT(swerex__doc_parse_in_place(NULL, exact, size, &other, NULL), ok);
  swerex__str got = shown(&other, ok);
  CHECK(got.size == want.size && memcmp(got.data, want.data, got.size) == 0);
  swerex__doc_free(&other);
  swerex__str_clear(&want);
  swerex__str_clear(&got);
}

/** Read a text from a block of its exact size, so that a read beyond it is noticed. */
static bool parse(const char *text, size_t size, swerex__doc *doc, swerex_error *err) {
  char *exact = (char *)malloc(size > 0 ? size : 1);
  if (size > 0) memcpy(exact, text, size);
  bool ok = swerex__doc_parse(NULL, exact, size, doc, err);
  if (ok || doc->fault.reason != NULL) check_in_place(exact, size, doc, ok);
  free(exact);
  return ok;
}

/** Read a text and write it again; or give the error's message. Valid until the next call. */
static const char *again(const char *text, size_t size) {
  static char result[4096];
  swerex__doc doc;
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__str s = swerex__str_new(NULL, sizeof result - 1);
  if (parse(text, size, &doc, &err)) {
    swerex__json_add_node(&s, doc.root);
    CHECK(!s.failed);
  } else {
    CHECK_INT(err.code, SWEREX_E_JSON);
    CHECK(doc.root == NULL && doc.block == NULL);
    swerex__str_puts(&s, err.message);
  }
  memcpy(result, s.data, s.size + 1);
  swerex__str_clear(&s);
  swerex__doc_free(&doc);
  swerex__err_clear(&err);
  return result;
}

typedef struct text_case {
  const char *text, *expected;
} text_case;

static void check_cases(const text_case *cases, size_t count) {
  for (size_t i = 0; i < count; i++)
    CHECK_STR(again(cases[i].text, strlen(cases[i].text)), cases[i].expected);
}

TEST(values) {
  static const text_case cases[] = {
    {"null", "null"},
    {" true ", "true"},
    {"\t\r\n false", "false"},
    {"0", "0"},
    {"-0", "0"},
    {"-0.0", "-0.0"},
    {"12", "12"},
    {"1.5", "1.5"},
    {"1E2", "100.0"},
    {"1e+2", "100.0"},
    {"25e-1", "2.5"},
    {"9223372036854775807", "9223372036854775807"},
    {"-9223372036854775808", "-9223372036854775808"},
    {"1e400", "1e999"},
    {"-1e400", "-1e999"},
    {"\"\"", "\"\""},
    {"[]", "[]"},
    {"[ ]", "[]"},
    {"{ }", "{}"},
    {"[1,[2,{}],\"x\" , null]", "[1,[2,{}],\"x\",null]"},
    {"{\"a\" : 1 , \"b\":{\"c\":[]}}", "{\"a\":1,\"b\":{\"c\":[]}}"},
    {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\\"\\\\/\\b\\f\\n\\r\\t\""},
    {"\"\\u0000\\u001F\\u007f\"", "\"\\u0000\\u001f\x7F\""},
    {"\"\\u00e9\\u20AC\\ud83d\\uDE00\"", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""},
    {"\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""},
    {"\"12345678\\\"12345678\\n\"", "\"12345678\\\"12345678\\n\""},
    {"\"\\\\\"", "\"\\\\\""},
    {"{\"a\":1,\"a\":{\"b\":2},\"c\":3,\"a\":4}", "{\"c\":3,\"a\":4}"},
    {"{\"\":1}", "{\"\":1}"},
  };
  check_cases(cases, SWEREX__SYS_COUNT(cases));
}

TEST(errors) {
  static const text_case cases[] = {
    {"", "Expecting value: line 1 column 1 (char 0)"},
    {" \n ", "Expecting value: line 2 column 2 (char 3)"},
    {"{bad", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"},
    {"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"},
    {"{\"a\":1,}", "Expecting property name enclosed in double quotes: line 1 column 8 (char 7)"},
    {"[", "Expecting value: line 1 column 2 (char 1)"},
    {"[1,]", "Expecting value: line 1 column 4 (char 3)"},
    {"[1 2]", "Expecting ',' delimiter: line 1 column 4 (char 3)"},
    {"[1}", "Expecting ',' delimiter: line 1 column 3 (char 2)"},
    {"{\"a\":1]", "Expecting ',' delimiter: line 1 column 7 (char 6)"},
    {"{\"a\" 1}", "Expecting ':' delimiter: line 1 column 6 (char 5)"},
    {"{\"a\"", "Expecting ':' delimiter: line 1 column 5 (char 4)"},
    {"{\"a\":}", "Expecting value: line 1 column 6 (char 5)"},
    {"{}\n x", "Extra data: line 2 column 2 (char 4)"},
    {"nul", "Expecting value: line 1 column 1 (char 0)"},
    {"True", "Expecting value: line 1 column 1 (char 0)"},
    {"NaN", "Expecting value: line 1 column 1 (char 0)"},
    {"Infinity", "Expecting value: line 1 column 1 (char 0)"},
    {"-", "Expecting value: line 1 column 1 (char 0)"},
    {"-a", "Expecting value: line 1 column 1 (char 0)"},
    {"+1", "Expecting value: line 1 column 1 (char 0)"},
    {".5", "Expecting value: line 1 column 1 (char 0)"},
    {"01", "Extra data: line 1 column 2 (char 1)"},
    {"1.", "Extra data: line 1 column 2 (char 1)"},
    {"1e", "Extra data: line 1 column 2 (char 1)"},
    {"1e+", "Extra data: line 1 column 2 (char 1)"},
    {"0x1", "Extra data: line 1 column 2 (char 1)"},
    {"'a'", "Expecting value: line 1 column 1 (char 0)"},
    {" \"abc", "Unterminated string starting at: line 1 column 2 (char 1)"},
    {"\"abc\\", "Unterminated string starting at: line 1 column 1 (char 0)"},
    {"\"abc\\\"", "Unterminated string starting at: line 1 column 1 (char 0)"},
    {"\"a\nb\"", "Invalid control character at: line 1 column 3 (char 2)"},
    {"\"12345678\tb", "Invalid control character at: line 1 column 10 (char 9)"},
    {"\"\\x\"", "Invalid \\escape: line 1 column 2 (char 1)"},
    {"\"\\u12g4\"", "Invalid \\uXXXX escape: line 1 column 3 (char 2)"},
    {"\"\\u 123\"", "Invalid \\uXXXX escape: line 1 column 3 (char 2)"},
    {"\"\\u123", "Invalid \\uXXXX escape: line 1 column 3 (char 2)"},
    {"\"\\u1234", "Invalid \\uXXXX escape: line 1 column 3 (char 2)"},
    {"\"\\ud800\"", "Unpaired surrogate escape: line 1 column 2 (char 1)"},
    {"\"a\\ud800\\u0041\"", "Unpaired surrogate escape: line 1 column 3 (char 2)"},
    {"\"\\ud800\\udbff\"", "Unpaired surrogate escape: line 1 column 2 (char 1)"},
    {"\"\\ud800\\n\"", "Unpaired surrogate escape: line 1 column 2 (char 1)"},
    {"\"\\udc7f\"", "Unpaired surrogate escape: line 1 column 2 (char 1)"},
    {"\"\\udd00\"", "Unpaired surrogate escape: line 1 column 2 (char 1)"},
    {"\"\\ud800\\u12\"", "Invalid \\uXXXX escape: line 1 column 9 (char 8)"},
    {"\"\xC3\xA9\xE2\x82\xAC\" x", "Extra data: line 1 column 6 (char 5)"},
    {"\"\xFF\"", "Invalid UTF-8 at: line 1 column 2 (char 1)"},
    {"\"\xC0\x80\"", "Invalid UTF-8 at: line 1 column 2 (char 1)"},
    {"\"\xED\xA0\x80\"", "Invalid UTF-8 at: line 1 column 2 (char 1)"},
    {"\"\xF4\x90\x80\x80\"", "Invalid UTF-8 at: line 1 column 2 (char 1)"},
    {"\"\xE2\x82\"", "Invalid UTF-8 at: line 1 column 2 (char 1)"},
    {"\xEF\xBB\xBF{}", "Unexpected UTF-8 byte order mark: line 1 column 1 (char 0)"},
    {"{\"a\":1,\"b\" 2,\"a\":3}", "Expecting ':' delimiter: line 1 column 12 (char 11)"},
  };
  check_cases(cases, SWEREX__SYS_COUNT(cases));
  CHECK_STR(again("[\0]", 3), "Expecting value: line 1 column 2 (char 1)");
  CHECK_STR(again("\"\0\"", 3), "Invalid control character at: line 1 column 2 (char 1)");
  CHECK_STR(again("1\0", 2), "Extra data: line 1 column 2 (char 1)");
}

TEST(fault_places) {
  swerex__doc doc;
  swerex_error err = SWEREX_ERROR_INIT;
  CHECK(!parse("{\"\xC3\xA9\":\n \\}", 10, &doc, &err));
  CHECK_INT(doc.fault.byte, 8);
  CHECK_INT(doc.fault.position, 7);
  CHECK_INT(doc.fault.line, 2);
  CHECK_INT(doc.fault.column, 2);
  CHECK_STR(doc.fault.reason, "Expecting value");
  CHECK(!parse("\"\\x\"", 4, &doc, &err));
  CHECK_STR(err.extra_info, "{\"detail\":[{\"type\":\"json_invalid\",\"loc\":[\"body\",1],"
                            "\"msg\":\"JSON decode error\",\"input\":{},"
                            "\"ctx\":{\"error\":\"Invalid \\\\escape\"}}]}");
  swerex__err_clear(&err);
  CHECK(!parse("]", 1, &doc, NULL));
  CHECK(!swerex__doc_parse(NULL, NULL, 0, &doc, NULL));
}

TEST(strings_hold_any_byte) {
  swerex__doc doc;
  CHECK(parse("\"a\\u0000\\udcff\\udc80b\"", 22, &doc, NULL));
  CHECK_MEM(doc.root->string, doc.root->size, "a\0\xFF\x80"
                                              "b");
  CHECK_INT(doc.root->string[doc.root->size], 0);
  swerex__doc_free(&doc);
  swerex__str s = swerex__str_new(NULL, 1000);
  swerex__json_add_string(&s, "a\0\xFF\x80\xE2\x82\"\x1F\x7F\n/", 11);
  CHECK_STR(s.data, "\"a\\u0000\\udcff\\udc80\\udce2\\udc82\\\"\\u001f\x7F\\n/\"");
  swerex__str_clear(&s);
  swerex__json_add_string(&s, NULL, 0);
  CHECK_STR(s.data, "\"\"");
  swerex__str_clear(&s);
}

TEST(every_byte_comes_back) {
  char text[512];
  swerex__doc doc;
  for (size_t i = 0; i < sizeof text; i++) text[i] = (char)(i * 7 + i / 256);
  for (size_t size = 0; size < sizeof text; size++) {
    swerex__str s = swerex__str_new(NULL, 10000);
    swerex__json_add_string(&s, text, size);
    CHECK(parse(s.data, s.size, &doc, NULL));
    CHECK(doc.root->size == size && memcmp(doc.root->string, text, size) == 0);
    swerex__doc_free(&doc);
    swerex__str_clear(&s);
  }
}

TEST(nodes) {
  const char *text = "{\"n\":3,\"x\":2.5,\"l\":[1,2,3],\"s\":\"v\","
                     "\"t\":true,\"big\":1e30,\"o\":{}}";
  swerex__doc doc;
  CHECK(parse(text, strlen(text), &doc, NULL));
  CHECK_INT(doc.root->size, 7);
  CHECK_INT(swerex__json_get(doc.root, "n")->integer, 3);
  CHECK(swerex__json_get(doc.root, "n")->is_integer);
  CHECK(swerex__json_get(doc.root, "n")->number == 3.0);
  CHECK(!swerex__json_get(doc.root, "x")->is_integer);
  CHECK(swerex__json_get(doc.root, "x")->number == 2.5);
  CHECK(!swerex__json_get(doc.root, "big")->is_integer);
  CHECK_INT(swerex__json_get(doc.root, "l")->size, 3);
  CHECK_INT(swerex__json_get(doc.root, "l")->child->next->integer, 2);
  CHECK(swerex__json_is(swerex__json_get(doc.root, "s"), "v"));
  CHECK(!swerex__json_is(swerex__json_get(doc.root, "s"), "vv"));
  CHECK(swerex__json_get(doc.root, "t")->boolean);
  CHECK(swerex__json_get(doc.root, "none") == NULL);
  CHECK(swerex__json_get(swerex__json_get(doc.root, "l"), "n") == NULL);
  CHECK(swerex__json_get(NULL, "n") == NULL);
  swerex__doc_free(&doc);
  swerex__doc_free(&doc);
}

TEST(last_of_many_duplicates_wins) {
  swerex__str s = swerex__str_new(NULL, 1 << 20);
  swerex__doc doc;
  char key[16];
  swerex__str_putc(&s, '{');
  for (int i = 0; i < 5000; i++) {
    snprintf(key, sizeof key, "k%d", i % 1000);
    swerex__json_add_key(&s, key);
    swerex__json_add_integer(&s, i);
  }
  swerex__str_putc(&s, '}');
  CHECK(parse(s.data, s.size, &doc, NULL));
  CHECK_INT(doc.root->size, 1000);
  CHECK_INT(swerex__json_get(doc.root, "k0")->integer, 4000);
  CHECK_INT(swerex__json_get(doc.root, "k999")->integer, 4999);
  swerex__doc_free(&doc);
  swerex__str_clear(&s);
}

TEST(depth) {
  static char text[2 * SWEREX_MAX_JSON_DEPTH + 2];
  swerex__doc doc;
  swerex_error err = SWEREX_ERROR_INIT;
  size_t depth = SWEREX_MAX_JSON_DEPTH;
  memset(text, '[', depth);
  memset(text + depth, ']', depth);
  CHECK(parse(text, 2 * depth, &doc, &err));
  swerex__doc_free(&doc);
  memset(text, '[', depth + 1);
  memset(text + depth + 1, ']', depth + 1);
  CHECK(!parse(text, 2 * depth + 2, &doc, &err));
  char expected[100];
  snprintf(expected, sizeof expected, "Nested too deeply at: line 1 column %zu (char %zu)",
           depth + 1, depth);
  CHECK_STR(err.message, expected);
  swerex__err_clear(&err);
}

TEST(writer) {
  swerex__str s = swerex__str_new(NULL, 1000);
  swerex__str_putc(&s, '{');
  swerex__json_add_key(&s, "a");
  swerex__json_add_bool(&s, true);
  swerex__json_add_key(&s, "b\n");
  swerex__str_putc(&s, '[');
  for (int i = -1; i < 2; i++) {
    swerex__json_add_comma(&s);
    swerex__json_add_integer(&s, i);
  }
  swerex__str_puts(&s, "]");
  swerex__json_add_key(&s, "c");
  swerex__json_add_number(&s, 0.1);
  swerex__json_add_key(&s, "d");
  swerex__json_add_text(&s, "{");
  swerex__json_add_key(&s, "e");
  swerex__str_puts(&s, "{}}");
  CHECK_STR(s.data, "{\"a\":true,\"b\\n\":[-1,0,1],\"c\":0.1,\"d\":\"{\",\"e\":{}}");
  swerex__str_clear(&s);
  s = swerex__str_new(NULL, 5);
  swerex__json_add_text(&s, "longer than five bytes");
  CHECK(s.failed);
  swerex__str_clear(&s);
  char text[100];
  memset(text, 'x', sizeof text);
  for (size_t max = 101; max <= 102; max++) {
    s = swerex__str_new(NULL, max);
    swerex__json_add_string(&s, text, sizeof text);
    CHECK_INT(s.failed, max < sizeof text + 2); /* only what is over the cap fails */
    swerex__str_clear(&s);
  }
}

TEST(memory_failures) {
  static const char text[] =
    "{\"a\":[1,2,[3,[4,[5,[6,[7,[8,[9,[]]]]]]]]],\"b\":\"x\\n\",\"c\":{\"d\":0.5},\"e\":"
    "{\"0\":0,\"1\":0,\"2\":0,\"3\":0,\"4\":0,\"5\":0,\"6\":0,\"7\":0,\"8\":0,\"9\":0,\"10\":0,"
    "\"11\":0,\"12\":0,\"13\":0,\"14\":0,\"15\":0,\"16\":0}}";
  long before = live;
  bool ok = false;
  for (long n = 0; !ok && n < 1000; n++) {
    swerex__doc doc;
    swerex_error err = SWEREX_ERROR_INIT;
    budget = n;
    ok = swerex__doc_parse(NULL, text, sizeof text - 1, &doc, &err);
    budget = -1;
    if (!ok) CHECK_INT(err.code, SWEREX_E_NO_MEMORY);
    swerex__doc_free(&doc);
    swerex__err_clear(&err);
    CHECK_INT(live, before);
  }
  CHECK(ok);
  for (long n = 0; n < 10; n++) {
    swerex__doc doc;
    swerex_error err = SWEREX_ERROR_INIT;
    budget = n;
    CHECK(!swerex__doc_parse(NULL, "[1,\"a\\x", 8, &doc, &err));
    budget = -1;
    CHECK(err.code == SWEREX_E_NO_MEMORY || err.code == SWEREX_E_JSON);
    swerex__err_clear(&err);
    CHECK_INT(live, before);
  }
}

TEST_MAIN()
