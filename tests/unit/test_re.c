/* [re], [pattern], [match]: matching against what Python's re finds, errors in its words, bounds,
 * memory failures. */
#include "counting.h"

#include "test.h"

#define TEXT(literal) literal, sizeof(literal) - 1

typedef struct match_case {
  const char *patterns[5];
  const char *text;
  size_t size;
  const char *whole, *bytewise; /* what is found: "pattern start-end", or "none" */
} match_case;

/** Feed a piece from a block of its exact size, so that a read beyond it is noticed. */
static bool feed(swerex__re *re, const char *text, size_t size, swerex__re_match *match) {
  char *exact = (char *)malloc(size > 0 ? size : 1);
  long before = calls;
  if (size > 0) memcpy(exact, text, size);
  bool found = swerex__match_feed(re, exact, size, match);
  CHECK_INT(calls, before);
  free(exact);
  return found;
}

static swerex__re *make(const char *const *patterns) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__re *re = swerex__match_new(NULL, patterns, &err);
  if (re == NULL) printf("# %s\n", err.message);
  CHECK(re != NULL);
  swerex__err_clear(&err);
  return re;
}

/** Print a match. Valid until the next call. */
static const char *show(bool found, const swerex__re_match *match) {
  static char text[64];
  if (!found) return "none";
  snprintf(text, sizeof text, "%zu %llu-%llu", match->pattern, (unsigned long long)match->start,
           (unsigned long long)match->end);
  return text;
}

/** What is found in a text that comes at once. */
static const char *search(const char *const *patterns, const char *text, size_t size) {
  swerex__re_match match;
  swerex__re *re = make(patterns);
  bool found = re != NULL && feed(re, text, size, &match);
  swerex__match_free(re);
  return show(found, &match);
}

/**
 * Feed a text in pieces, whose sizes come from a seed (0: single bytes). After each, the answer
 * must be that of a new matcher for all the text up to there.
 */
static void check_pieces(const match_case *row, uint32_t seed) {
  swerex__re_match match;
  swerex__re *re = make(row->patterns);
  size_t at = 0;
  bool found = false;
  if (re == NULL) return;
  for (int round = 0; round < 2; round++, at = 0, found = false) {
    do {
      size_t size = 1;
      if (seed > 0) size = (seed = seed * 1664525 + 1013904223) >> 16 & 3;
      if (size > row->size - at) size = row->size - at;
      uint64_t pending = swerex__match_pending(re);
      CHECK(pending <= at);
      found = feed(re, row->text + at, size, &match);
      at += size;
      if (found) CHECK(match.start >= pending && match.start <= match.end && match.end <= at);
      char expected[64];
      snprintf(expected, sizeof expected, "%s", search(row->patterns, row->text, at));
      CHECK_STR(show(found, &match), expected);
    } while (at < row->size && !found);
    if (seed == 0) CHECK_STR(show(found, &match), row->bytewise);
    swerex__match_reset(re);
  }
  swerex__match_free(re);
}

static void check_cases(const match_case *cases, size_t count) {
  for (size_t i = 0; i < count; i++) {
    int before = test_faults;
    CHECK_STR(search(cases[i].patterns, cases[i].text, cases[i].size), cases[i].whole);
    for (uint32_t seed = 0; seed < 6; seed++) check_pieces(&cases[i], seed);
    if (test_faults > before) printf("# in row %zu, pattern %s\n", i, cases[i].patterns[0]);
  }
  CHECK_INT(live, 0);
}

#define CASES(name)                                                                                \
  TEST(name) { check_cases(name, SWEREX__SYS_COUNT(name)); }

static const match_case literals[] = {
  {{"abc"}, TEXT("xxabcabc"), "0 2-5", "0 2-5"},
  {{"abc"}, TEXT("ab ab abd"), "none", "none"},
  {{"(gdb) "}, TEXT("hello\n(gdb) "), "0 6-12", "0 6-12"},
  {{"\\(gdb\\) "}, TEXT("x (gdb (gdb) y"), "0 7-13", "0 7-13"},
  {{"[y/N]"}, TEXT("go on? [y/N] "), "0 7-12", "0 8-9"},
  {{"a.c"}, TEXT("abc a.c"), "0 0-3", "0 0-3"},
  {{"a+b?"}, TEXT("ca+b?"), "0 1-5", "0 1-2"},
  {{">>> "}, TEXT(">> >>> >>>> "), "0 3-7", "0 3-7"},
  {{"$ "}, TEXT("user@host:~$ ls"), "0 11-13", "0 11-13"},
  {{"caf\xC3\xA9"}, TEXT("caf\xC3\xA9 caf\xC3\xA9"), "0 0-5", "0 0-5"},
  {{"\xE6\x97\xA5\xE6\x9C\xAC"}, TEXT("x\xE6\x97\xA5\xE6\x97\xA5\xE6\x9C\xAC"), "0 4-10", "0 4-10"},
  {{"\\x00b"}, TEXT("a\x00""b"), "0 1-3", "0 1-3"},
  {{"aab"}, TEXT("aaab"), "0 1-4", "0 1-4"},
  {{"What?"}, TEXT("Wha What?"), "0 0-3", "0 0-3"},
  {{"(a)(b)"}, TEXT("(a)(b) ab"), "0 0-6", "0 0-6"},
  {{""}, TEXT(""), "0 0-0", "0 0-0"},
  {{""}, TEXT("abc"), "0 0-0", "0 0-0"},
};
CASES(literals)

static const match_case several[] = {
  {{"b", "ab"}, TEXT("xab"), "1 1-3", "1 1-3"},
  {{"ab", "a"}, TEXT("xab"), "0 1-3", "1 1-2"},
  {{"a", "ab"}, TEXT("xab"), "0 1-2", "0 1-2"},
  {{"c", "b", "a"}, TEXT("abc"), "2 0-1", "2 0-1"},
  {{"x", "y"}, TEXT("abc"), "none", "none"},
  {{"a{2}", "a"}, TEXT("caa"), "0 1-3", "1 1-2"},
  {{"\\d+", "[0-9]"}, TEXT("a12"), "0 1-3", "0 1-2"},
  {{"zz", ""}, TEXT("ab"), "1 0-0", "1 0-0"},
  {{"ab$", "a"}, TEXT("ab"), "0 0-2", "1 0-1"},
  {{"abc|", "b"}, TEXT("zb"), "0 0-0", "0 0-0"},
  {{"a+?b", "aa"}, TEXT("aaab"), "0 0-4", "1 0-2"},
  {{"foo", "fo+"}, TEXT("fooo"), "0 0-3", "1 0-2"},
  {{">>> ", "\\.\\.\\. ", "\\(Pdb\\) "}, TEXT("x\n... "), "1 2-6", "1 2-6"},
  {{"a", "a"}, TEXT("a"), "0 0-1", "0 0-1"},
};
CASES(several)

static const match_case classes[] = {
  {{"[a-c]+"}, TEXT("xxabcd"), "0 2-5", "0 2-3"},
  {{"[^a-c]+"}, TEXT("abcxyz"), "0 3-6", "0 3-4"},
  {{"[]]"}, TEXT("a]"), "0 1-2", "0 1-2"},
  {{"[^]]"}, TEXT("]]a"), "0 2-3", "0 2-3"},
  {{"[a-]+"}, TEXT("x-a-b"), "0 1-4", "0 1-2"},
  {{"[-a]+"}, TEXT("x-a-b"), "0 1-4", "0 1-2"},
  {{"[\\d.]+"}, TEXT("v1.25b"), "0 1-5", "0 1-2"},
  {{"[\\w-]+"}, TEXT("  a-b_9 "), "0 2-7", "0 2-3"},
  {{"[\\s\\S]"}, TEXT("\n"), "0 0-1", "0 0-1"},
  {{"[^\\s\\S]"}, TEXT("ab\n"), "none", "none"},
  {{"[^\\W\\d]+"}, TEXT("12ab3"), "0 2-4", "0 2-3"},
  {{"[\\]\\\\]+"}, TEXT("a\\]]"), "0 1-4", "0 1-2"},
  {{"[\\n\\t]+"}, TEXT("a\t\nb"), "0 1-3", "0 1-2"},
  {{"[\\x41-\\x43]+"}, TEXT("zABCD"), "0 1-4", "0 1-2"},
  {{"[\xC3\xA9-\xC3\xBC]+"}, TEXT("a\xC3\xA9\xC3\xB4z"), "0 1-5", "0 1-3"},
  {{"[^\xC3\xA9]"}, TEXT("\xC3\xA9\xC3\xA9\xE6\x97\xA5"), "0 4-7", "0 4-7"},
  {{"[\\101]"}, TEXT("zA"), "0 1-2", "0 1-2"},
  {{"[\\b]"}, TEXT("a\bb"), "0 1-2", "0 1-2"},
  {{"[a-cx-z]{3}"}, TEXT("abxq ayz"), "0 0-3", "0 0-3"},
  {{"[[:]"}, TEXT("a["), "0 1-2", "0 1-2"},
  {{"\\d\\D\\w\\W\\s\\S"}, TEXT("1aa! a"), "0 0-6", "0 0-6"},
  {{"\\w+"}, TEXT("--\xC3\x9Cn\xC3\xAF_1--"), "0 2-9", "0 2-4"},
  {{"\\d+"}, TEXT("x\xD9\xA3\xD9\xA4"), "0 1-5", "0 1-3"},
  {{"(?a)\\d+"}, TEXT("\xD9\xA3""4"), "0 2-3", "0 2-3"},
  {{"(?a)\\w+"}, TEXT("\xC3\xA9""a"), "0 2-3", "0 2-3"},
  {{"\\s+"}, TEXT("a\xC2\xA0\xE2\x80\x83""b"), "0 1-6", "0 1-3"},
  {{"(?a)\\s"}, TEXT("\xC2\xA0 "), "0 2-3", "0 2-3"},
  {{".+"}, TEXT("a\nb"), "0 0-3", "0 0-1"},
  {{"(?-s:.)+"}, TEXT("a\nb"), "0 0-1", "0 0-1"},
  {{"\\W"}, TEXT("a\xC3\xA9\xE6\x97\xA5"), "none", "none"},
  {{"\xE2\x9D\xAF "}, TEXT("~ \xE2\x9D\xAF "), "0 2-6", "0 2-6"},
};
CASES(classes)

static const match_case escapes[] = {
  {{"\\t\\r\\n\\f\\v\\a"}, TEXT("x\t\r\n\f\v\a"), "0 1-7", "0 1-7"},
  {{"\\x41\\u00e9\\U0001F600"}, TEXT("zA\xC3\xA9\xF0\x9F\x98\x80"), "0 1-8", "0 1-8"},
  {{"\\0"}, TEXT("a\x00"), "0 1-2", "0 1-2"},
  {{"\\012"}, TEXT("a\nb"), "0 1-2", "0 1-2"},
  {{"\\101\\060"}, TEXT("A0"), "0 0-2", "0 0-2"},
  {{"\\.\\*\\+\\?\\[\\]\\{\\}\\(\\)\\|\\^\\$\\\\"}, TEXT(".*+?[]{}()|^$\\"), "0 0-14", "0 0-14"},
  {{"\\-\\_\\ \\\xC3\xA9"}, TEXT("-_ \xC3\xA9"), "0 0-5", "0 0-5"},
  {{"a\\{2}"}, TEXT("aa a{2}"), "0 3-7", "0 3-7"},
  {{"\\00a"}, TEXT("\x00""a"), "0 0-2", "0 0-2"},
  {{"\\08"}, TEXT("\x00""8"), "0 0-2", "0 0-2"},
};
CASES(escapes)

static const match_case repeats[] = {
  {{"a*"}, TEXT("baa"), "0 0-0", "0 0-0"},
  {{"ba*"}, TEXT("aab"), "0 2-3", "0 2-3"},
  {{"ba*"}, TEXT("baac"), "0 0-3", "0 0-1"},
  {{"ba*?c"}, TEXT("baac"), "0 0-4", "0 0-4"},
  {{"ba+"}, TEXT("b baaa"), "0 2-6", "0 2-4"},
  {{"ba+?"}, TEXT("baaa"), "0 0-2", "0 0-2"},
  {{"ba?a"}, TEXT("ba"), "0 0-2", "0 0-2"},
  {{"ba?\?a"}, TEXT("baa"), "0 0-2", "0 0-2"},
  {{"a{2}"}, TEXT("aaa"), "0 0-2", "0 0-2"},
  {{"a{2,}"}, TEXT("a aaaa"), "0 2-6", "0 2-4"},
  {{"a{2,}?"}, TEXT("aaaa"), "0 0-2", "0 0-2"},
  {{"a{,2}b"}, TEXT("aaab"), "0 1-4", "0 1-4"},
  {{"a{2,3}"}, TEXT("aaaaa"), "0 0-3", "0 0-2"},
  {{"a{2,3}?"}, TEXT("aaaaa"), "0 0-2", "0 0-2"},
  {{"a{0}b"}, TEXT("ab"), "0 1-2", "0 1-2"},
  {{"a{,}b"}, TEXT("aab"), "0 0-3", "0 0-3"},
  {{"a{b"}, TEXT("aa{b"), "0 1-4", "0 1-4"},
  {{"a{1,b"}, TEXT("aa{1,b"), "0 1-6", "0 1-6"},
  {{"a{}"}, TEXT("aa{}"), "0 1-4", "0 1-4"},
  {{"(ab)*c"}, TEXT("ababc"), "0 0-5", "0 0-5"},
  {{"(?:ab|a)*b"}, TEXT("aabab"), "0 0-5", "0 0-3"},
  {{"(?:a|ab)*?b"}, TEXT("aabab"), "0 0-3", "0 0-3"},
  {{"(a*)*b"}, TEXT("aaab"), "0 0-4", "0 0-4"},
  {{"(a*)+"}, TEXT("aab"), "0 0-2", "0 0-1"},
  {{"(?:a|b)*c"}, TEXT("xabac"), "0 1-5", "0 1-5"},
  {{"(?:(?:a{2}){2}){2}"}, TEXT("aaaaaaaaa"), "0 0-8", "0 0-8"},
  {{"x*"}, TEXT("aaa"), "0 0-0", "0 0-0"},
  {{"a.*b"}, TEXT("xaabbab "), "0 1-7", "0 1-4"},
  {{"a.*?b"}, TEXT("xaabbab "), "0 1-4", "0 1-4"},
  {{"<.+>"}, TEXT("<a><b>"), "0 0-6", "0 0-3"},
  {{"<.+?>"}, TEXT("<a><b>"), "0 0-3", "0 0-3"},
  {{"(a|b|cd)+?d"}, TEXT("acdabd"), "0 0-6", "0 0-6"},
};
CASES(repeats)

static const match_case nothing_in_loops[] = {
  {{"(?:|a)*"}, TEXT("aa"), "0 0-0", "0 0-0"},
  {{"(?:|a)+"}, TEXT("aa"), "0 0-0", "0 0-0"},
  {{"(?:a|)+"}, TEXT("aa"), "0 0-2", "0 0-1"},
  {{"(?:a?\?)*b"}, TEXT("aab"), "0 0-3", "0 0-3"},
  {{"(?:|.)*d"}, TEXT("adbd"), "0 0-2", "0 0-2"},
  {{"(?:.|)*d"}, TEXT("adbd"), "0 0-4", "0 0-2"},
  {{"(?:|.)+d"}, TEXT("adbd"), "0 0-2", "0 0-2"},
  {{"(?:a?b?\?)*c?"}, TEXT("ababc"), "0 0-1", "0 0-1"},
  {{"(?:(?:|a)(?:|b))+"}, TEXT("ab"), "0 0-0", "0 0-0"},
  {{"(?:(?:|a){0,2}){2}b"}, TEXT("aaab"), "0 0-4", "0 0-4"},
  {{"(?:|a){0,2}(?:c|ac|)"}, TEXT("aac"), "0 0-0", "0 0-0"},
  {{"(?:\\b)*a"}, TEXT("ba a"), "0 1-2", "0 1-2"},
  {{"(?:^)*a"}, TEXT("ba"), "0 1-2", "0 1-2"},
  {{"(?:a*?)*?b"}, TEXT("aab"), "0 0-3", "0 0-3"},
  {{"(?:(?:a|)*|b)*c"}, TEXT("abac"), "0 0-4", "0 0-4"},
  {{"(?:(?:|a)*|b){1,3}."}, TEXT("ab"), "0 0-1", "0 0-1"},
  {{"(?:(?:a?){2,3}b?)*c"}, TEXT("aabaaaabac"), "0 0-10", "0 0-10"},
  {{"(?:(?:a?\?){2}?|b)*?c"}, TEXT("aabac"), "0 0-5", "0 0-5"},
  {{"(?:(?:a|){2,}b?\?)*"}, TEXT("aaba"), "0 0-2", "0 0-1"},
  {{"(?:a{0,1}?){1,3}a"}, TEXT("aaa"), "0 0-1", "0 0-1"},
  {{"()*a"}, TEXT("ba"), "0 1-2", "0 1-2"},
  {{"(|a|ab)(|bc|c)d"}, TEXT("abcd"), "0 0-4", "0 0-4"},
};
CASES(nothing_in_loops)

static const match_case alternatives[] = {
  {{"a|ab"}, TEXT("ab"), "0 0-1", "0 0-1"},
  {{"ab|a"}, TEXT("ab"), "0 0-2", "0 0-1"},
  {{"|a"}, TEXT("a"), "0 0-0", "0 0-0"},
  {{"a|"}, TEXT("a"), "0 0-1", "0 0-1"},
  {{"a|b|c"}, TEXT("xc"), "0 1-2", "0 1-2"},
  {{"(a|ab)(c|bcd)"}, TEXT("abcd"), "0 0-4", "0 0-3"},
  {{"(?:a|ab)(?:c|bcd)(?:d*)"}, TEXT("abcd"), "0 0-4", "0 0-3"},
  {{"yes|no"}, TEXT("maybe no"), "0 6-8", "0 6-8"},
  {{"(?P<one>a)(?P<two>b)"}, TEXT("ab"), "0 0-2", "0 0-2"},
  {{"a(?#comment)b"}, TEXT("ab"), "0 0-2", "0 0-2"},
  {{"abc|b"}, TEXT("abc"), "0 0-3", "0 1-2"},
  {{"xabcy|b"}, TEXT("xabc"), "0 2-3", "0 2-3"},
};
CASES(alternatives)

static const match_case positions[] = {
  {{"^a"}, TEXT("ba"), "none", "none"},
  {{"^b"}, TEXT("ba"), "0 0-1", "0 0-1"},
  {{"\\Ab"}, TEXT("ba"), "0 0-1", "0 0-1"},
  {{"(?m)^a"}, TEXT("b\na"), "0 2-3", "0 2-3"},
  {{"a$"}, TEXT("aba"), "0 2-3", "0 0-1"},
  {{"a$"}, TEXT("ba\n"), "0 1-2", "0 1-2"},
  {{"a$"}, TEXT("a\nb"), "none", "0 0-1"},
  {{"a\\n$"}, TEXT("a\n"), "0 0-2", "0 0-2"},
  {{"a$\\n"}, TEXT("a\n"), "0 0-2", "0 0-2"},
  {{"a$\\nb"}, TEXT("a\nb"), "none", "none"},
  {{"a\\Z"}, TEXT("a\n"), "none", "0 0-1"},
  {{"a\\Z"}, TEXT("ba"), "0 1-2", "0 1-2"},
  {{"(?m)a$"}, TEXT("a\nb"), "0 0-1", "0 0-1"},
  {{"(?m)a$\\nb"}, TEXT("a\nb"), "0 0-3", "0 0-3"},
  {{"$"}, TEXT("ab"), "0 2-2", "0 1-1"},
  {{"$"}, TEXT("a\n"), "0 1-1", "0 1-1"},
  {{"(?m)$"}, TEXT("a\n"), "0 1-1", "0 1-1"},
  {{"\\Z"}, TEXT("a\n"), "0 2-2", "0 1-1"},
  {{"^"}, TEXT("a"), "0 0-0", "0 0-0"},
  {{"^$"}, TEXT(""), "0 0-0", "0 0-0"},
  {{"^$"}, TEXT("a"), "none", "none"},
  {{"(?m)^$"}, TEXT("a\n\nb"), "0 2-2", "0 2-2"},
  {{"\\bab\\b"}, TEXT("cab ab"), "0 4-6", "0 4-6"},
  {{"\\bab\\b"}, TEXT("ab"), "0 0-2", "0 0-2"},
  {{"\\Bb"}, TEXT("b ab"), "0 3-4", "0 3-4"},
  {{"\\b"}, TEXT("  a"), "0 2-2", "0 2-2"},
  {{"\\b"}, TEXT(""), "none", "none"},
  {{"\\B"}, TEXT(""), "none", "none"},
  {{"\\B"}, TEXT("  "), "0 0-0", "0 0-0"},
  {{"\xC3\xA9\\b"}, TEXT("\xC3\xA9""a \xC3\xA9"), "0 4-6", "0 0-2"},
  {{"(?a)\xC3\xA9\\b"}, TEXT("\xC3\xA9""a"), "0 0-2", "0 0-2"},
  {{"\\b\xE6\x97\xA5"}, TEXT("a\xE6\x97\xA5 \xE6\x97\xA5"), "0 5-8", "0 5-8"},
  {{"a(?:\\Z|$)"}, TEXT("a\n"), "0 0-1", "0 0-1"},
  {{"\\$ $"}, TEXT("$ ls\n$ "), "0 5-7", "0 0-2"},
  {{"\\w\\b."}, TEXT("ab c"), "0 1-3", "0 1-3"},
};
CASES(positions)

static const match_case flags[] = {
  {{"(?i)abc"}, TEXT("xABC"), "0 1-4", "0 1-4"},
  {{"(?i)\xC3\x89"}, TEXT("\xC3\xA9"), "0 0-2", "0 0-2"},
  {{"(?i)[a-c]+"}, TEXT("xABcd"), "0 1-4", "0 1-2"},
  {{"(?i)[^a]"}, TEXT("Aab"), "0 2-3", "0 2-3"},
  {{"(?i)k"}, TEXT("\xE2\x84\xAA"), "0 0-3", "0 0-3"},
  {{"(?i)S"}, TEXT("\xC5\xBF"), "0 0-2", "0 0-2"},
  {{"(?ia)k"}, TEXT("\xE2\x84\xAAK"), "0 3-4", "0 3-4"},
  {{"(?i)\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82"},
   TEXT("\xD0\xBF\xD0\xA0\xD0\x98\xD0\x92\xD0\x95\xD0\xA2"), "0 0-12", "0 0-12"},
  {{"(?i)\xCE\xA3\xCE\x91\xCE\xA3"}, TEXT("\xCF\x83\xCE\xB1\xCF\x82"), "0 0-6", "0 0-6"},
  {{"a(?i:b)c"}, TEXT("abC aBc"), "0 4-7", "0 4-7"},
  {{"(?i:a)b"}, TEXT("AB Ab"), "0 3-5", "0 3-5"},
  {{"(?i)a(?-i:b)"}, TEXT("AB Ab"), "0 3-5", "0 3-5"},
  {{"(?x) a b # c"}, TEXT("a ab"), "0 2-4", "0 2-4"},
  {{"(?x: a b )c d"}, TEXT("abc d"), "0 0-5", "0 0-5"},
  {{"(?x)a\\ b[ ]c"}, TEXT("a b c"), "0 0-5", "0 0-5"},
  {{"(?x)a + b"}, TEXT("aab"), "0 0-3", "0 0-3"},
  {{"(?s-m:.)"}, TEXT("\n"), "0 0-1", "0 0-1"},
  {{"(?m)^b(?-m:$)"}, TEXT("b\nb"), "0 2-3", "0 0-1"},
  {{"(?is)A.b"}, TEXT("a\nB"), "0 0-3", "0 0-3"},
  {{"(?i)(?m)^B$"}, TEXT("a\nb\nc"), "0 2-3", "0 2-3"},
  {{"(?u)\xC3\xA9"}, TEXT("\xC3\xA9"), "0 0-2", "0 0-2"},
  {{"(?i)\xC2\xB5"}, TEXT("\xCE\x9C"), "0 0-2", "0 0-2"},
};
CASES(flags)

static const match_case bytes[] = {
  {{"a.b"}, TEXT("a\xFF""b"), "0 0-3", "0 0-3"},
  {{"[^x]+"}, TEXT("x\xE2\x82x"), "0 1-3", "0 1-3"},
  {{"\\W+"}, TEXT("a\xF0\x9F\x98""a"), "0 1-4", "0 1-4"},
  {{"\\w+"}, TEXT("\xC3\xA9\xC3"), "0 0-2", "0 0-2"},
  {{"\xC3\xA9"}, TEXT("\xE2\xC3\xA9"), "0 1-3", "0 1-3"},
  {{"[\\x80-\\uDBFF]"}, TEXT("\xFF\xC3\xA9"), "0 1-3", "0 1-3"},
  {{".$"}, TEXT("\xF0\x9F\n"), "0 1-2", "0 1-2"},
  {{"."}, TEXT("\xED\xC0\xAF"), "0 0-1", "0 0-1"},
  {{"\\s\\S"}, TEXT("\x80 \x80"), "0 1-3", "0 1-3"},
  {{"b\\b"}, TEXT("ab\xFF"), "0 1-2", "0 1-2"},
  {{"\\Bb"}, TEXT("\xFF""b \xC3\xA9""b"), "0 5-6", "0 5-6"},
  {{"\xE2\x9D\xAF"}, TEXT("\xE2\x9D\xE2\x9D\xAF"), "0 2-5", "0 2-5"},
  {{"a\\x00b"}, TEXT("a\x00\x00""a\x00""b"), "0 3-6", "0 3-6"},
};
CASES(bytes)

/** Return the message of a pattern that is refused. Valid until the next call. */
static const char *refuse(const char *pattern) {
  static char text[512];
  const char *list[] = {"ok", pattern, NULL};
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__re *re = swerex__match_new(NULL, list, &err);
  CHECK(re == NULL);
  swerex__match_free(re);
  if (re == NULL) CHECK_INT(err.code, SWEREX_E_PATTERN);
  snprintf(text, sizeof text, "%s", re == NULL ? err.message : "no error");
  swerex__err_clear(&err);
  return text;
}

TEST(malformed) {
  static const struct {
    const char *pattern, *reason;
  } cases[] = {
    {"***", "nothing to repeat at position 0"},
    {"a**", "multiple repeat at position 2"},
    {"(*)", "nothing to repeat at position 1"},
    {"(", "missing ), unterminated subpattern at position 0"},
    {"(()", "missing ), unterminated subpattern at position 0"},
    {"a)", "unbalanced parenthesis at position 1"},
    {"[", "unterminated character set at position 0"},
    {"[a", "unterminated character set at position 0"},
    {"[]", "unterminated character set at position 0"},
    {"[^]", "unterminated character set at position 0"},
    {"[b-a]", "bad character range b-a at position 1"},
    {"[\\w-a]", "bad character range \\w-a at position 1"},
    {"a{2,1}", "min repeat greater than max repeat at position 2"},
    {"\\", "bad escape (end of pattern) at position 0"},
    {"\\1", "invalid group reference 1 at position 1"},
    {"(?P=x)", "unknown group name 'x' at position 4"},
    {"(?P<x>a)(?P<x>b)", "redefinition of group name 'x' as group 2; was group 1 at position 12"},
    {"(?P<1>a)", "bad character in group name '1' at position 4"},
    {"(?P<x", "missing >, unterminated name at position 4"},
    {"(?P>", "unknown extension ?P> at position 1"},
    {"(?Pz)", "unknown extension ?Pz at position 1"},
    {"(?#abc", "missing ), unterminated comment at position 0"},
    {"a(?i)", "global flags not at the start of the expression at position 1"},
    {"(?iz)a", "unknown flag at position 3"},
    {"(?i-", "missing flag at position 4"},
    {"(?L)a", "bad inline flags: cannot use 'L' flag with a str pattern at position 3"},
    {"(?au)a", "bad inline flags: flags 'a', 'u' and 'L' are incompatible at position 4"},
    {"(?i", "missing -, : or ) at position 3"},
    {"(?", "unexpected end of pattern at position 2"},
    {"(?z", "unknown extension ?z at position 1"},
    {"\\xg", "incomplete escape \\x at position 0"},
    {"\\x1", "incomplete escape \\x1 at position 0"},
    {"\\u12", "incomplete escape \\u12 at position 0"},
    {"\\U00110000", "bad escape \\U00110000 at position 0"},
    {"\\q", "bad escape \\q at position 0"},
    {"\\Q", "bad escape \\Q at position 0"},
    {"\\8", "invalid group reference 8 at position 1"},
    {"\\400", "octal escape value \\400 outside of range 0-0o377 at position 0"},
    {"[\\400]", "octal escape value \\400 outside of range 0-0o377 at position 1"},
    {"[\\q]", "bad escape \\q at position 1"},
    {"[\\A]", "bad escape \\A at position 1"},
    {"{1}", "nothing to repeat at position 0"},
    {"a{1}{2}", "multiple repeat at position 4"},
    {"a{1}*", "multiple repeat at position 4"},
    {"a{1}?\?", "multiple repeat at position 5"},
    {"a*?+", "multiple repeat at position 3"},
    {"^*", "nothing to repeat at position 1"},
    {"\\b*", "nothing to repeat at position 2"},
    {"$+", "nothing to repeat at position 1"},
    {"[a-\\d]", "bad character range a-\\d at position 1"},
    {"(?i:a", "missing ), unterminated subpattern at position 0"},
    {" (?i)a", "global flags not at the start of the expression at position 1"},
    {"(?<", "unexpected end of pattern at position 3"},
    {"(?<x>a)", "unknown extension ?<x at position 1"},
    {"(?P", "unexpected end of pattern at position 3"},
    {"(?P<", "missing group name at position 4"},
    {"\\z", "bad escape \\z at position 0"},
    {"[\\Z]", "bad escape \\Z at position 1"},
    {"(?-i)a", "missing : at position 4"},
    {"(?i-i:a)", "bad inline flags: flag turned on and off at position 5"},
    {"(?au:b)", "bad inline flags: flags 'a', 'u' and 'L' are incompatible at position 4"},
    {"(?L:b)", "bad inline flags: cannot use 'L' flag with a str pattern at position 3"},
    {"(?i-u:b)", "bad inline flags: cannot turn off flags 'a', 'u' and 'L' at position 5"},
    {"(?P<>a)", "missing group name at position 4"},
    {"a|*", "nothing to repeat at position 2"},
    {"(|*)", "nothing to repeat at position 2"},
    {"[a-z", "unterminated character set at position 0"},
    {"[a-", "unterminated character set at position 0"},
    {"[\\d-z]", "bad character range \\d-z at position 1"},
    {"\\19", "invalid group reference 19 at position 1"},
    {"\\199", "invalid group reference 19 at position 1"},
    {"[\\8]", "bad escape \\8 at position 1"},
    {"\xC3\xA9{2}*+", "multiple repeat at position 4"},
    {"\xC3\xA9(", "missing ), unterminated subpattern at position 1"},
    {"(?P<a b>x)", "bad character in group name 'a b' at position 4"},
    {"(?P=a b)", "bad character in group name 'a b' at position 4"},
    {"a{1,2}{3}", "multiple repeat at position 6"},
    {"(?#", "missing ), unterminated comment at position 0"},
    {"(?x", "missing -, : or ) at position 3"},
    {"(?:", "missing ), unterminated subpattern at position 0"},
    {"(?i)*", "nothing to repeat at position 4"},
    {"(?#a)*", "nothing to repeat at position 5"},
    {"(?x)a{2} ?", "multiple repeat at position 9"},
    {"(?x)a * ?", "multiple repeat at position 8"},
    {"(?x)( ?:a)", "nothing to repeat at position 6"},
    {"(?x) ?i", "nothing to repeat at position 5"},
    {"(?i-:a)", "missing flag at position 4"},
    {"(?-:a)", "missing flag at position 3"},
    {"(?-", "missing flag at position 3"},
    {"(?i-z:a)", "unknown flag at position 4"},
    {"(?i:", "missing ), unterminated subpattern at position 0"},
    {"(?iL)a", "bad inline flags: cannot use 'L' flag with a str pattern at position 4"},
    {"(?-a:b)", "bad inline flags: cannot turn off flags 'a', 'u' and 'L' at position 4"},
    {"(a", "missing ), unterminated subpattern at position 0"},
    {"(?P<x", "missing >, unterminated name at position 4"},
    {"[\\x4]", "incomplete escape \\x4 at position 1"},
    {"[\\u1]", "incomplete escape \\u1 at position 1"},
    {"[\\U1]", "incomplete escape \\U1 at position 1"},
    {"[\\", "bad escape (end of pattern) at position 1"},
    {"[a\\", "bad escape (end of pattern) at position 2"},
    {"[\\w-", "unterminated character set at position 0"},
    {"\\U0000", "incomplete escape \\U0000 at position 0"},
    {"(?:(?i)a)", "global flags not at the start of the expression at position 3"},
    {"(?:a", "missing ), unterminated subpattern at position 0"},
    {"(a|b", "missing ), unterminated subpattern at position 0"},
    {"a|b)", "unbalanced parenthesis at position 3"},
    {"(?-", "missing flag at position 3"},
    {"(?--", "missing flag at position 3"},
    {"a*?\?", "multiple repeat at position 3"},
    {"a*?*", "multiple repeat at position 3"},
    {"a{2}*", "multiple repeat at position 4"},
    {"^+", "nothing to repeat at position 1"},
    {"\\B{2}", "nothing to repeat at position 2"},
  };
  char expected[512];
  for (size_t i = 0; i < SWEREX__SYS_COUNT(cases); i++) {
    snprintf(expected, sizeof expected, "expect pattern '%s': %s; escape it to match it literally",
             cases[i].pattern, cases[i].reason);
    CHECK_STR(refuse(cases[i].pattern), expected);
  }
  CHECK_INT(live, 0);
}

TEST(not_supported) {
  static const struct {
    const char *pattern, *reason;
  } cases[] = {
    {"a(?=b)", "lookahead is not supported at position 1"},
    {"a(?!b)", "lookahead is not supported at position 1"},
    {"(?<=a)b", "lookbehind is not supported at position 0"},
    {"(?<!a)b", "lookbehind is not supported at position 0"},
    {"(a)\\1", "back references are not supported at position 3"},
    {"(?P<x>a)(?P=x)", "back references are not supported at position 8"},
    {"(a)?(?(1)b|c)", "conditional groups are not supported at position 4"},
    {"(?>a)", "atomic groups are not supported at position 0"},
    {"a*+", "possessive quantifiers are not supported at position 1"},
    {"ab{2}+", "possessive quantifiers are not supported at position 2"},
    {"\\N{DASH}", "the escape \\N is not supported at position 0"},
    {"[a\\N{DASH}]", "the escape \\N is not supported at position 2"},
    {"[z-\\x41]", "bad character range z-\\x41 at position 1"},
  };
  char expected[512];
  for (size_t i = 0; i < SWEREX__SYS_COUNT(cases); i++) {
    snprintf(expected, sizeof expected, "expect pattern '%s': %s; escape it to match it literally",
             cases[i].pattern, cases[i].reason);
    CHECK_STR(refuse(cases[i].pattern), expected);
  }
  CHECK_INT(live, 0);
}

/** Repeat a text into a buffer that is valid until the next call. */
static const char *times(size_t count, const char *text, const char *middle, const char *end) {
  static char buffer[200000];
  size_t size = strlen(text), at = 0;
  for (size_t i = 0; i < count; i++, at += size) memcpy(buffer + at, text, size);
  at += (size_t)sprintf(buffer + at, "%s", middle);
  size = strlen(end);
  for (size_t i = 0; i < count; i++, at += size) memcpy(buffer + at, end, size);
  buffer[at] = '\0';
  return buffer;
}

TEST(bounds) {
  const char *list[] = {NULL, NULL};
  CHECK(strstr(refuse("a{1001}"), "the repeat count is over 1000 at position 1") != NULL);
  CHECK(strstr(refuse("a{0,99999999999999999999}"), "over 1000 at position 1") != NULL);
  CHECK(strstr(refuse("(?:a{1000}){1000}"), "too large") != NULL);
  CHECK(strstr(refuse("(?:(?:(?:(?:){1000}){1000}){1000}){1000}"), "too large") != NULL);
  CHECK(strstr(refuse("(?:(?:a{0}){1000}){1000}"), "too large") != NULL);
  CHECK(strstr(refuse(times(51, "(", "a", ")")), "more than 50 deep at position 50") != NULL);
  CHECK(strstr(refuse(times(15000, "(", "", "")), "more than 50 deep") != NULL);
  CHECK(strstr(refuse(times(20001, "a", "", "")), "too large") != NULL);
  CHECK(strstr(refuse(times(100000, "a", "", "")), "too large") != NULL);
  CHECK(strstr(refuse(times(40, "(?:", "a?", ")*")), "too large") != NULL);
  CHECK(strlen(refuse(times(300, "\xC3\xA9", "*+", ""))) < 350);
  list[0] = times(50, "(", "a", ")");
  CHECK_STR(search(list, TEXT("((ba")), "0 3-4");
  list[0] = "(?:a{100}b?){50}c";
  const char *text = times(5000, "a", "c", "");
  CHECK_STR(search(list, text, 5001), "0 0-5001");
  list[0] = times(10000, "ab", "", "") + 10001;
  CHECK_INT(strlen(list[0]), 9999);
  CHECK_STR(search(list, list[0], 9999), "0 0-9999");
  CHECK_INT(live, 0);
}

/** Patterns over which a matcher that goes back would never come to an end. */
TEST(linear) {
  static const char *const lists[][4] = {
    {"(a*)*b", NULL},         {"(a|aa)+b", NULL},          {"(a|a)*b", "(?:a?){100}a{100}b", NULL},
    {"(.*)(.*)(.*)x$", NULL}, {"(?:(?:a+)+)+b", "a*a*b"}, {"([a-z]+)*\\d", NULL},
  };
  static char text[20000];
  memset(text, 'a', sizeof text);
  for (size_t i = 0; i < SWEREX__SYS_COUNT(lists); i++) {
    swerex__re_match match;
    swerex__re *re = make(lists[i]);
    for (size_t k = 0; k < 10; k++) CHECK(!feed(re, text, sizeof text, &match));
    CHECK(swerex__match_pending(re) == 0);
    swerex__match_free(re);
  }
}

TEST(pending) {
  const char *list[] = {"abc+d", "\xE2\x9D\xAF x", NULL};
  swerex__re_match match;
  swerex__re *re = make(list);
  CHECK(!feed(re, TEXT("xxab"), &match));
  CHECK_INT(swerex__match_pending(re), 2);
  CHECK(!feed(re, TEXT("cc"), &match));
  CHECK_INT(swerex__match_pending(re), 2);
  CHECK(!feed(re, TEXT("x"), &match));
  CHECK_INT(swerex__match_pending(re), 7);
  CHECK(!feed(re, TEXT("y\xE2\x9D"), &match));
  CHECK_INT(swerex__match_pending(re), 8);
  CHECK(!feed(re, TEXT(""), &match));
  CHECK(!feed(re, TEXT("\xAF"), &match));
  CHECK_INT(swerex__match_pending(re), 8);
  CHECK(feed(re, TEXT(" x"), &match));
  CHECK_STR(show(true, &match), "1 8-13");
  swerex__match_free(re);
}

TEST(lists) {
  static const char *const none[] = {NULL};
  swerex__re_match match = {7, 7, 7};
  swerex__re *re = make(NULL);
  CHECK(!feed(re, TEXT("abc"), &match));
  CHECK(!feed(re, TEXT(""), &match));
  CHECK_INT(swerex__match_pending(re), 3);
  swerex__match_reset(re);
  CHECK_INT(swerex__match_pending(re), 0);
  swerex__match_free(re);
  CHECK_STR(search(none, TEXT("abc")), "none");
  CHECK_INT(match.start, 7);
  swerex__match_free(NULL);
  const char *bad[] = {"a", "(", "[", NULL};
  swerex_error err = SWEREX_ERROR_INIT;
  CHECK(swerex__match_new(NULL, bad, &err) == NULL);
  CHECK_STR(err.message, "expect pattern '(': missing ), unterminated subpattern at position 0; "
                         "escape it to match it literally");
  swerex__err_clear(&err);
  CHECK(swerex__match_new(NULL, bad, NULL) == NULL);
  CHECK_INT(live, 0);
}

/** A byte in a pattern that is not UTF-8 stands for itself. */
TEST(byte_in_pattern) {
  static const match_case cases[] = {
    {{"a\xFF"}, TEXT("a\xC3\xBF" "a\xFF"), "0 3-5", "0 3-5"},
    {{"[\xFE\xFF]+"}, TEXT("\xFD\xFF\xFE" "a"), "0 1-3", "0 1-2"},
    {{"\xE2\x82"}, TEXT("\xE2\x82\xAC\xE2\x82 "), "0 3-5", "0 3-5"},
  };
  check_cases(cases, SWEREX__SYS_COUNT(cases));
}

/** The count of rounds wraps around at some time. */
TEST(long_stream) {
  const char *list[] = {"a[bc]+d", "(?:x|y)*z", NULL};
  swerex__re_match match;
  swerex__re *re = make(list);
  re->round = UINT32_MAX - 3;
  re->offset = (uint64_t)1 << 40;
  CHECK(!feed(re, TEXT("abcbcbabcxyxyab"), &match));
  CHECK(re->round < 100);
  CHECK(feed(re, TEXT("cd"), &match));
  CHECK(match.start == ((uint64_t)1 << 40) + 13 && match.end == match.start + 4);
  swerex__match_free(re);
}

TEST(memory_failures) {
  static const char *const lists[][4] = {
    {"(?i)(?P<a>x|[^\\w\\d]+?)(?P<b>y{2,3})|(?:a?|b)*$", "\\(gdb\\) ", "[\\W\\d]", NULL},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa(", NULL},
    {NULL},
  };
  for (size_t i = 0; i < SWEREX__SYS_COUNT(lists); i++) {
    bool done = false;
    for (long n = 0; !done && n < 1000; n++) {
      swerex_error err = SWEREX_ERROR_INIT;
      budget = n;
      swerex__re *re = swerex__match_new(NULL, lists[i], &err);
      budget = -1;
      done = re != NULL || err.code == SWEREX_E_PATTERN;
      if (!done) CHECK_INT(err.code, SWEREX_E_NO_MEMORY);
      if (err.code == SWEREX_E_PATTERN && err.block_ == NULL) done = false;
      swerex__match_free(re);
      swerex__err_clear(&err);
      CHECK_INT(live, 0);
    }
    CHECK(done);
  }
}

TEST_MAIN()
