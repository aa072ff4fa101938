/*
 * What the black-box tests share: a loop with a local runtime, and short forms of the verbs. They
 * see the public half alone; the implementation is an object that they are linked with.
 */
#ifndef WORLD_H
#define WORLD_H

#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE 1
#define _DARWIN_C_SOURCE 1

#include "swerex.h"
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct world {
  swerex_loop *loop;
  swerex_runtime *runtime;
  swerex_error err;
  swerex_bash_observation seen;
  swerex_command_response ran;
} world;

static void quiet(void *user_data, const swerex_log_record *record) {
  (void)user_data, (void)record;
}

/** Mark all that this program starts, as others may run the same test beside it. */
static char own_mark[40];
__attribute__((constructor)) static void mark_own_processes(void) {
  snprintf(own_mark, sizeof own_mark, "SWEREX_TEST_MARK=%ld", (long)getpid());
  setenv("SWEREX_TEST_MARK", strchr(own_mark, '=') + 1, 1);
}

/** Open a world without the startup files of whoever runs the tests. */
__attribute__((unused)) static world world_open(void) {
  world w;
  swerex_loop_options options;
  memset(&w, 0, sizeof w);
  memset(&options, 0, sizeof options);
  options.logger.write = quiet;
  setenv("HOME", "/nonexistent", 1);
  unsetenv("PROMPT_COMMAND");
  w.loop = swerex_loop_new(&options, &w.err);
  w.runtime = w.loop == NULL ? NULL : swerex_local_runtime_new(w.loop, NULL, &w.err);
  CHECK(w.runtime != NULL);
  return w;
}

__attribute__((unused)) static void world_close(world *w) {
  swerex_bash_observation_clear(&w->seen);
  swerex_command_response_clear(&w->ran);
  swerex_error_clear(&w->err);
  swerex_loop_free(w->loop);
}

__attribute__((unused)) static bool create(world *w, const char *name) {
  swerex_create_bash_session_request request;
  memset(&request, 0, sizeof request);
  request.session = name;
  return swerex_create_session(w->runtime, &request, NULL, &w->err);
}

/** Open a world with a session named "default". */
__attribute__((unused)) static world world_with_session(void) {
  world w = world_open();
  bool created = create(&w, NULL);
  if (!created) printf("# %s\n", w.err.message);
  CHECK(created);
  return w;
}

/** Run an action; the observation is in w->seen. */
__attribute__((unused)) static bool act(world *w, const swerex_bash_action *action) {
  swerex_bash_observation_clear(&w->seen);
  return swerex_run_in_session(w->runtime, action, &w->seen, &w->err);
}

/** Run a command in "default" with check "silent" and a time limit that only a fault reaches. */
__attribute__((unused)) static bool run(world *w, const char *command) {
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = command;
  action.check = SWEREX_CHECK_SILENT;
  action.timeout = 20;
  return act(w, &action);
}

/** Run a command, and tell whether it printed and returned exactly this. */
__attribute__((unused)) static bool gives(world *w, const char *command, int code,
                                          const char *output) {
  if (!run(w, command)) {
    printf("# %s: %s\n", command, w->err.message);
    return false;
  }
  if (w->seen.exit_code == code && w->seen.output.size == strlen(output) &&
      memcmp(w->seen.output.data, output, w->seen.output.size) == 0)
    return true;
  printf("# %s: exit code %d, output [%.400s]\n", command, w->seen.exit_code, w->seen.output.data);
  return false;
}

__attribute__((unused)) static bool has(const char *text, const char *part) {
  if (text != NULL && strstr(text, part) != NULL) return true;
  printf("# no [%s] in [%.400s]\n", part, text == NULL ? "(null)" : text);
  return false;
}

__attribute__((unused)) static bool run_for(world *w, const char *command, double timeout) {
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = command;
  action.check = SWEREX_CHECK_SILENT;
  action.timeout = timeout;
  return act(w, &action);
}

__attribute__((unused)) static bool interrupt(world *w) {
  swerex_bash_observation_clear(&w->seen);
  return swerex_interrupt_session(w->runtime, NULL, &w->seen, &w->err);
}

/** Send text to the program in front; done at `expect` (or NULL: the prompt). */
__attribute__((unused)) static bool talk(world *w, const char *text, const char *expect,
                                         double timeout) {
  const char *const patterns[] = {expect, NULL};
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = text;
  action.is_interactive_command = true;
  action.expect = expect == NULL ? NULL : patterns;
  action.timeout = timeout;
  return act(w, &action);
}

__attribute__((unused)) static bool quit(world *w, const char *text) {
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = text;
  action.is_interactive_quit = true;
  action.timeout = 10;
  return act(w, &action);
}

__attribute__((unused)) static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/** Tell whether a program is on this machine. */
__attribute__((unused)) static bool installed(const char *program) {
  char line[256];
  snprintf(line, sizeof line, "command -v %s >/dev/null 2>&1", program);
  return system(line) == 0;
}

/** Read a file of a process, whose strings end in NUL, as text whose strings end in `end`. */
__attribute__((unused)) static void read_process(const char *id, const char *name, char end,
                                                 char *text, size_t room) {
  char path[300];
  snprintf(path, sizeof path, "/proc/%s/%s", id, name);
  FILE *file = id[0] < '0' || id[0] > '9' ? NULL : fopen(path, "r");
  size_t size = file == NULL ? 0 : fread(text, 1, room - 1, file);
  if (file != NULL) fclose(file);
  text[size] = '\0';
  for (size_t i = 0; i < size; i++)
    if (text[i] == '\0') text[i] = end;
}

/** Count our processes whose command line starts with a text ("sleep 7"), and signal them. */
__attribute__((unused)) static int signal_processes(const char *text, int number) {
  static char line[512], environment[1 << 17];
  int count = 0;
  DIR *proc = opendir("/proc");
  for (struct dirent *entry; proc != NULL && (entry = readdir(proc)) != NULL;) {
    read_process(entry->d_name, "cmdline", ' ', line, sizeof line);
    if (strncmp(line, text, strlen(text)) != 0) continue;
    read_process(entry->d_name, "environ", '\n', environment, sizeof environment);
    if (strstr(environment, own_mark) == NULL) continue;
    count++;
    if (number != 0) kill((pid_t)atol(entry->d_name), number);
  }
  if (proc != NULL) closedir(proc);
  return count;
}

__attribute__((unused)) static int processes(const char *text) {
  return signal_processes(text, 0);
}

/** Wait until so many of our processes, or none, have such a command line; gives up after 10 s. */
__attribute__((unused)) static void await_processes(const char *text, int count) {
  for (int i = 0; i < 1000 && processes(text) != count; i++) usleep(10000);
  CHECK_INT(processes(text), count);
}

#endif
