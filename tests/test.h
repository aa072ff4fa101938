/*
 * A small test harness. One file is one program:
 *
 *   TEST(name) { CHECK(1 + 1 == 2); }
 *   TEST_MAIN()
 *
 * Run it with --filter TEXT for the tests whose names hold a text, --list for their names. It
 * prints a line for each test and ends in `N passed, N failed`. After each test it looks for
 * descriptors that were left open; a test that takes too long is ended with its name.
 */
#ifndef TEST_H
#define TEST_H

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEST_SECONDS = 180 };

typedef struct test_case {
  const char *name;
  void (*run)(void);
  struct test_case *next;
} test_case;

static test_case *test_first, **test_last = &test_first;
static const char *test_current;
static int test_faults;             /* of the test that runs */
static const char *test_skip_reason; /* of the test that runs */
static bool test_left_out;           /* that reason is no want of this machine */

#define TEST(name)                                                                                 \
  static void test_##name(void);                                                                   \
  static test_case test_case_##name = {#name, test_##name, NULL};                                  \
  __attribute__((constructor)) static void test_add_##name(void) {                                 \
    *test_last = &test_case_##name;                                                                \
    test_last = &test_case_##name.next;                                                            \
  }                                                                                                \
  static void test_##name(void)

/** Note a fault and where it is. */
__attribute__((unused)) static void test_fault(const char *file, int line, const char *what) {
  test_faults++;
  printf("# %s:%d: %s\n", file, line, what);
}

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) test_fault(__FILE__, __LINE__, #condition);                                  \
  } while (0)

__attribute__((unused)) static void test_int(const char *file, int line, const char *what,
                                             long long actual, long long expected) {
  if (actual == expected) return;
  test_fault(file, line, what);
  printf("#   is %lld, not %lld\n", actual, expected);
}
#define CHECK_INT(actual, expected)                                                                \
  test_int(__FILE__, __LINE__, #actual, (long long)(actual), (long long)(expected))

__attribute__((unused)) static void test_str(const char *file, int line, const char *what,
                                             const char *actual, const char *expected) {
  if (actual != NULL && strcmp(actual, expected) == 0) return;
  test_fault(file, line, what);
  printf("#   is  [%.2000s]\n#   not [%.2000s]\n", actual == NULL ? "(null)" : actual, expected);
}
#define CHECK_STR(actual, expected) test_str(__FILE__, __LINE__, #actual, actual, expected)

__attribute__((unused)) static void test_mem(const char *file, int line, const char *what,
                                             const char *actual, size_t size, const char *expected,
                                             size_t expected_size) {
  if (size == expected_size && (size == 0 || memcmp(actual, expected, size) == 0)) return;
  test_fault(file, line, what);
  printf("#   is (%zu bytes)  [", size);
  for (size_t i = 0; i < size && i < 400; i++)
    printf(actual[i] >= ' ' && actual[i] < 127 ? "%c" : "\\x%02x", (unsigned char)actual[i]);
  printf("]\n#   not (%zu bytes) [", expected_size);
  for (size_t i = 0; i < expected_size && i < 400; i++)
    printf(expected[i] >= ' ' && expected[i] < 127 ? "%c" : "\\x%02x", (unsigned char)expected[i]);
  printf("]\n");
}
/** Compare with a literal, which may hold NUL. */
#define CHECK_MEM(actual, size, expected)                                                          \
  test_mem(__FILE__, __LINE__, #actual, actual, size, expected, sizeof(expected) - 1)

/** Leave the test, saying why it cannot run here. */
#define SKIP(reason)                                                                               \
  do {                                                                                             \
    test_skip_reason = reason;                                                                     \
    return;                                                                                        \
  } while (0)

/** Leave a test that is not meant for what is tested; it is not counted. */
#define LEAVE_OUT(reason)                                                                          \
  do {                                                                                             \
    test_left_out = true;                                                                          \
    SKIP(reason);                                                                                  \
  } while (0)

__attribute__((unused)) static int test_count_fds(void) {
  int count = 0;
  for (int fd = 0; fd < 1024; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

static void test_on_alarm(int number) {
  static const char text[] = "\nnot ok: a test took too long: ";
  (void)number;
  if (write(1, text, sizeof text - 1) < 0 || write(1, test_current, strlen(test_current)) < 0 ||
      write(1, "\n0 passed, 1 failed\n", 20) < 0)
    _exit(2);
  _exit(1);
}

static int test_main(int argc, char **argv) {
  const char *filter = argc > 2 && strcmp(argv[1], "--filter") == 0 ? argv[2] : "";
  int number = 0, failed = 0, skipped = 0, left_out = 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  signal(SIGALRM, test_on_alarm);
  for (test_case *test = test_first; test != NULL; test = test->next) {
    if (strstr(test->name, filter) == NULL) continue;
    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
      puts(test->name);
      continue;
    }
    int fds = test_count_fds();
    test_faults = 0;
    test_skip_reason = NULL;
    test_left_out = false;
    test_current = test->name;
    alarm(TEST_SECONDS);
    test->run();
    alarm(0);
    CHECK_INT(test_count_fds(), fds);
    number++;
    failed += test_faults > 0;
    skipped += test_faults == 0 && test_skip_reason != NULL && !test_left_out;
    left_out += test_faults == 0 && test_left_out;
    printf("%s %d %s%s%s\n", test_faults > 0 ? "not ok" : "ok", number, test->name,
           test_left_out ? " # left out: " : test_skip_reason != NULL ? " # SKIP " : "",
           test_skip_reason != NULL ? test_skip_reason : "");
  }
  if (argc > 1 && strcmp(argv[1], "--list") == 0) return 0;
  printf("%d passed, %d failed", number - failed - skipped - left_out, failed);
  if (skipped > 0) printf(", %d skipped", skipped);
  printf("\n");
  return failed > 0;
}

#ifndef TEST_MAIN /* where several files are one program */
#define TEST_MAIN()                                                                                \
  int main(int argc, char **argv) { return test_main(argc, argv); }
#endif

#endif
