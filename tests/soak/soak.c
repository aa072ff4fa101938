/*
 * A random walk over sessions and commands, which checks that no output is lost or mixed up, and
 * that no process, descriptor or byte is left over. The seed is printed; the same seed makes the
 * same choices.
 *
 *   soak [SECONDS [SEED]]
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include <stdio.h>

enum { SESSIONS = 8 };

typedef struct slot {
  swerex_future *future; /* of the action under way */
  bool open, opening;
  int step;           /* counts commands, so that each prints what no other prints */
  char expected[128]; /* the whole output, or its last line */
  bool whole;
} slot;

static swerex_loop *loop;
static swerex_runtime *runtime;
static slot slots[SESSIONS];
static long failures, commands, timeouts, interrupts, deaths, closes;
static size_t live;
static uint64_t state;

static unsigned pick(unsigned range) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (unsigned)(state >> 33) % range;
}

/** Memory that counts its live blocks. */
static void *count_memory(void *user_data, void *block, size_t size) {
  (void)user_data;
  if (size == 0) {
    if (block != NULL) live--;
    free(block);
    return NULL;
  }
  void *fresh = realloc(block, size);
  if (block == NULL && fresh != NULL) live++;
  return fresh;
}

static int count_fds(void) {
  int count = 0;
  for (int fd = 0; fd < 1024; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

static int count_children(void) {
  char path[64], text[65536];
  int count = 0;
  snprintf(path, sizeof path, "/proc/self/task/%ld/children", (long)getpid());
  FILE *file = fopen(path, "r");
  size_t size = file == NULL ? 0 : fread(text, 1, sizeof text - 1, file);
  if (file != NULL) fclose(file);
  for (size_t i = 0; i < size; i++) count += text[i] == ' ';
  return count;
}

static void fail(int index, const char *what, const char *got) {
  failures++;
  printf("FAILED: session %d, step %d: %s: got [%.300s], wanted [%s]\n", index, slots[index].step,
         what, got == NULL ? "" : got, slots[index].expected);
}

static void name_of(int index, char name[16]) { snprintf(name, 16, "s%d", index); }

static void open_session(int index) {
  char name[16];
  swerex_create_bash_session_request request;
  memset(&request, 0, sizeof request);
  name_of(index, name);
  request.session = name;
  slots[index].future = swerex_create_session_async(runtime, &request, NULL);
  slots[index].opening = true;
}

/** The kinds of commands, each given the session's number and step. */
typedef enum kind {
  RUN_ECHO,
  RUN_LINES,
  RUN_BIG,
  RUN_SLOW,
  RUN_FOREVER,
  RUN_STUBBORN,
  RUN_EXITS,
  RUN_KILLED,
  RUN_BACKGROUND,
  RUN_BROKEN,
  RUN_LONG
} kind;

static void compose(int index, kind what, char *text, size_t room) {
  slot *s = &slots[index];
  int id = index * 1000000 + ++s->step;
  s->whole = true;
  snprintf(s->expected, sizeof s->expected, "<%d>\n", id);
  switch (what) {
  case RUN_LINES: snprintf(text, room, "for i in 1 2 3; do :; done\necho '<%d>'", id); break;
  case RUN_BIG:
    s->whole = false;
    snprintf(text, room, "seq 1 %u; echo '<%d>'", 1 + pick(200000), id);
    break;
  case RUN_SLOW: snprintf(text, room, "sleep 0.0%u; echo '<%d>'", 1 + pick(9), id); break;
  case RUN_FOREVER: snprintf(text, room, "echo '<%d>'; sleep 100", id); break;
  case RUN_STUBBORN: snprintf(text, room, "echo '<%d>'; sh -c 'trap \"\" INT; sleep 100'", id); break;
  case RUN_EXITS: snprintf(text, room, "echo '<%d>'; exec 2>/dev/null; exit 3", id); break;
  case RUN_KILLED: snprintf(text, room, "echo '<%d>'; kill -9 $$", id); break;
  case RUN_BACKGROUND: snprintf(text, room, "(setsid sleep 100 &) 2>/dev/null; echo '<%d>'", id); break;
  case RUN_BROKEN: snprintf(text, room, "echo '<%d>' )", id); break;
  case RUN_LONG: snprintf(text, room, "echo '<%d>' %5000s# x", id, ""); break;
  default: snprintf(text, room, "echo '<%d>'", id);
  }
}

static void *tag(int index, kind what) { return (void *)(uintptr_t)(unsigned)(index * 100 + (int)what + 1); }

static void start_command(int index) {
  static const kind weights[] = {
    RUN_ECHO,    RUN_ECHO,     RUN_ECHO,  RUN_LINES,  RUN_LINES,      RUN_BIG,    RUN_SLOW, RUN_SLOW,
    RUN_FOREVER, RUN_STUBBORN, RUN_EXITS, RUN_KILLED, RUN_BACKGROUND, RUN_BROKEN, RUN_LONG};
  char name[16], text[8192];
  kind what = weights[pick(sizeof weights / sizeof *weights)];
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  name_of(index, name);
  compose(index, what, text, sizeof text);
  action.command = text;
  action.session = name;
  action.check = SWEREX_CHECK_SILENT;
  action.timeout = what == RUN_FOREVER || what == RUN_STUBBORN ? 0.4 + pick(20) / 100.0 : 60;
  slots[index].future = swerex_run_in_session_async(runtime, &action, NULL);
  swerex_future_set_user_data(slots[index].future, tag(index, what));
  commands++;
}

/** Interrupt a session and check that it obeys. */
static void interrupt(int index) {
  char name[16];
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_bash_interrupt_action action;
  memset(&action, 0, sizeof action);
  name_of(index, name);
  action.session = name;
  if (!swerex_interrupt_session(runtime, &action, NULL, &err)) fail(index, "interrupt", err.message);
  swerex_error_clear(&err);
  interrupts++;
}

static void close_session(int index) {
  char name[16];
  swerex_error err = SWEREX_ERROR_INIT;
  name_of(index, name);
  swerex_close_bash_session_request request = {name};
  if (!swerex_close_session(runtime, &request, NULL, &err)) fail(index, "close", err.message);
  swerex_error_clear(&err);
  slots[index].open = false;
  closes++;
}

/** Check the answer to a command. */
static void check_answer(int index, kind what, bool ok, const swerex_bash_observation *seen,
                         const swerex_error *err) {
  slot *s = &slots[index];
  char part[160];
  if (what == RUN_FOREVER || what == RUN_STUBBORN) {
    snprintf(part, sizeof part, "<%d>", index * 1000000 + s->step);
    timeouts++;
    if (ok || err->code != SWEREX_E_COMMAND_TIMEOUT) fail(index, "timeout", ok ? seen->output.data : err->message);
    else if (strstr(err->extra_info, part) == NULL) fail(index, "partial output", err->extra_info);
    if (pick(3) == 0) close_session(index);
    else interrupt(index);
    return;
  }
  if (what == RUN_BROKEN) {
    if (ok || err->code != SWEREX_E_BASH_INCORRECT_SYNTAX) fail(index, "syntax", ok ? seen->output.data : err->message);
    return;
  }
  if (!ok) {
    fail(index, "command", err->message);
    close_session(index);
    return;
  }
  const char *text = seen->output.data;
  size_t size = strlen(s->expected);
  if (what == RUN_EXITS || what == RUN_KILLED) {
    deaths++;
    if (strncmp(text, s->expected, size) != 0) fail(index, "last words", text);
    if (seen->exit_code != (what == RUN_EXITS ? 3 : -9)) fail(index, "exit code of the shell", text);
    close_session(index);
    return;
  }
  bool right = seen->output.size >= size && strcmp(text + seen->output.size - size, s->expected) == 0 &&
               (!s->whole || seen->output.size == size);
  if (!right || seen->exit_code != 0) fail(index, "output", text);
}

static void finish(int index) {
  slot *s = &slots[index];
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_bash_observation seen;
  memset(&seen, 0, sizeof seen);
  swerex_future *future = s->future;
  s->future = NULL;
  if (s->opening) {
    s->opening = false;
    s->open = swerex_future_take(future, NULL, &err);
    if (!s->open) fail(index, "open", err.message);
  } else {
    kind what = (kind)((uintptr_t)swerex_future_user_data(future) % 100 - 1);
    bool ok = swerex_future_take(future, &seen, &err);
    check_answer(index, what, ok, &seen, &err);
  }
  swerex_bash_observation_clear(&seen);
  swerex_error_clear(&err);
}

/** Walk until the time is up, then let everything end. */
static void walk(double seconds) {
  double end = swerex__util_now() + seconds;
  for (bool busy = true; busy;) {
    bool more = swerex__util_now() < end;
    busy = more;
    for (int i = 0; i < SESSIONS; i++) {
      if (slots[i].future == NULL && more) {
        if (!slots[i].open) open_session(i);
        else if (pick(60) == 0) close_session(i);
        else start_command(i);
      }
      if (slots[i].future != NULL && swerex_future_done(slots[i].future)) finish(i);
      busy = busy || slots[i].future != NULL;
    }
    swerex_loop_run(loop, 0.01, NULL);
    while (swerex_loop_next(loop) != NULL) continue;
  }
}

int main(int argc, char **argv) {
  double seconds = argc > 1 ? strtod(argv[1], NULL) : 60;
  unsigned seed = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : (unsigned)time(NULL);
  swerex_loop_options options;
  memset(&options, 0, sizeof options);
  options.allocator.reallocate = count_memory;
  options.logger.level = SWEREX_LOG_OFF;
  setenv("HOME", "/nonexistent", 1);
  state = 88172645463325252ULL ^ seed;
  printf("seed %u, %.0f seconds, %d sessions\n", seed, seconds, SESSIONS);
  fflush(stdout);
  int fds = count_fds();
  loop = swerex_loop_new(&options, NULL);
  runtime = swerex_local_runtime_new(loop, NULL, NULL);
  walk(seconds);
  swerex_loop_free(loop);
  printf("%ld commands, %ld timeouts, %ld interrupts, %ld shells ended, %ld sessions closed\n", commands, timeouts,
         interrupts, deaths, closes);
  if (count_fds() != fds) failures++, printf("FAILED: %d descriptors, %d at first\n", count_fds(), fds);
  if (count_children() != 0) failures++, printf("FAILED: %d children left\n", count_children());
  if (live != 0) failures++, printf("FAILED: %zu blocks of memory left\n", live);
  if (commands < 10) failures++, printf("FAILED: too few commands\n");
  printf("%d passed, %ld failed\n", failures == 0 ? 1 : 0, failures);
  return failures != 0;
}
