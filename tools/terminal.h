/*
 * What the command line waits for and writes, and how it looks on a terminal. Include behind
 * swerex.h with its implementation.
 */
#ifndef TERMINAL_H
#define TERMINAL_H

#include <stdio.h>

enum { TERMINAL_WIDTH = 80, TERMINAL_HEIGHT = 24, TERMINAL_NARROW = 20 };

static volatile sig_atomic_t caught_signal;
static int output_errno; /* of the first write to stdout that failed */

/**
 * Give standard descriptors that are closed to nobody, so that what is opened next is not taken for
 * them: reading and writing fail as before.
 */
SWEREX__SYS_UNUSED static void keep_standard(void) {
  for (int fd = 0; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) return;
}

/** Run the loop until a call is done, and take its response; a signal cancels it. */
SWEREX__SYS_UNUSED static bool await(swerex_loop *loop, swerex_future *future, void *response, swerex_error *err) {
  while (future != NULL && !swerex_future_done(future)) {
    if (caught_signal != 0) swerex_future_cancel(future);
    if (!swerex_loop_run(loop, SWEREX_FOREVER, err)) break;
  }
  return swerex_future_take(future, response, err);
}

/** Write to a descriptor, also one that does not block; false: nobody reads any more, or the like. */
SWEREX__SYS_UNUSED static bool put(int fd, const char *text, size_t size) {
  while (size > 0) {
    ssize_t n = write(fd, text, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      struct pollfd wait = {fd, POLLOUT, 0};
      poll(&wait, 1, -1);
      continue;
    }
    if (n < 0) {
      if (errno == EPIPE)
        caught_signal = SIGPIPE;
      else if (fd == STDOUT_FILENO && output_errno == 0)
        output_errno = errno;
      return false;
    }
    text += n;
    size -= (size_t)n;
  }
  return true;
}

/** Write a finished text to stdout, and release it; one that ran out of memory is not written. */
SWEREX__SYS_UNUSED static void put_text(swerex__str *text) {
  put(STDOUT_FILENO, text->data, text->failed ? 0 : text->size);
  swerex__str_clear(text);
}

/** Add an error as the member "error" of an object. */
SWEREX__SYS_UNUSED static void add_error(swerex__str *json, const swerex_error *err) {
  swerex__json_add_key(json, "error");
  swerex__str_putc(json, '{');
  swerex__json_add_key(json, "code");
  swerex__json_add_text(json, swerex_code_name(err->code));
  swerex__json_add_key(json, "message");
  swerex__json_add_text(json, err->message != NULL ? err->message : "failed");
  swerex__json_add_key(json, "class_path");
  swerex__json_add_text(json, err->class_path != NULL ? err->class_path : "");
  swerex__json_add_key(json, "extra_info");
  swerex__str_puts(json, err->extra_info != NULL ? err->extra_info : "{}");
  swerex__str_putc(json, '}');
}

/** Columns and rows of the terminal that stdout is; usual ones where it is none. */
static void terminal_size(int *columns, int *rows) {
  struct winsize size;
  bool known = ioctl(STDOUT_FILENO, SWEREX__SYS_IOCTL(TIOCGWINSZ), &size) == 0 && size.ws_col > 0;
  *columns = !known ? TERMINAL_WIDTH : size.ws_col < TERMINAL_NARROW ? TERMINAL_NARROW : size.ws_col;
  *rows = known && size.ws_row > 0 ? size.ws_row : TERMINAL_HEIGHT;
}

/** Tell whether stdout is a terminal that can move its cursor. */
SWEREX__SYS_UNUSED static bool terminal_is_live(void) {
  const char *term = getenv("TERM");
  return isatty(STDOUT_FILENO) && term != NULL && term[0] != '\0' && strcmp(term, "dumb") != 0;
}

/** The escape that begins a colour, such as "32"; "" where nobody wants colours. */
SWEREX__SYS_UNUSED static const char *terminal_colour(const char *code, char out[16]) {
  const char *off = getenv("NO_COLOR");
  out[0] = '\0';
  if (terminal_is_live() && (off == NULL || off[0] == '\0')) snprintf(out, 16, "\033[%sm", code);
  return out;
}

/** The bytes of a text that fit into so many columns; wide characters count as two. */
static size_t terminal_fit(const char *text, size_t size, int columns) {
  size_t at = 0, fit = 0;
  while (at < size) {
    unsigned char c = (unsigned char)text[at];
    columns -= c < 0xE1 ? 1 : 2;
    if (columns < 0) break;
    at++;
    while (at < size && ((unsigned char)text[at] & 0xC0) == 0x80) at++;
    fit = at;
  }
  return fit;
}

/** Print text from column `at` on, broken at blanks; more lines begin below its first column. */
static void terminal_wrap(const char *text, int at, int columns) {
  int room = columns - at - 1;
  for (;;) {
    size_t left = strcspn(text, "\n"), size = terminal_fit(text, left, room), end = size;
    if (size < left) {
      while (end > 0 && text[end] != ' ') end--;
      if (end == 0) end = size; /* one long word */
    }
    printf("%.*s\n", (int)end, text);
    text += end;
    while (*text == ' ' || *text == '\n') text++;
    if (*text == '\0') return;
    printf("%*s", at, "");
  }
}

/** Print a row of two columns, the second `at` so many; below it where the screen is narrow. */
static void terminal_row(const char *left, int at, const char *text) {
  int columns, rows, size = (int)strlen(left) + 2;
  terminal_size(&columns, &rows);
  printf("  %s", left);
  if (text[0] == '\0') {
    putchar('\n');
    return;
  }
  if (columns - at < 24) at = 6;
  if (size >= at) putchar('\n');
  printf("%*s", size >= at ? at : at - size, "");
  terminal_wrap(text, at, columns);
}

/** Print a paragraph. */
static void terminal_text(const char *text) {
  int columns, rows;
  terminal_size(&columns, &rows);
  terminal_wrap(text, 0, columns);
}

#endif
