/* The gdb debugger driven by what it prints. Build: cc -I.. gdb.c swerex.c */
#include "swerex.h"

#include <stdio.h>

static swerex_error err = SWEREX_ERROR_INIT;

/** Send a line to the program in front, and print what it answers up to its prompt. */
static bool say(swerex_runtime *runtime, const char *line, bool last) {
  static const char *const prompt[] = {"(gdb) ", NULL};
  swerex_bash_action action = {.command = line, .timeout = 20};
  swerex_bash_observation seen;
  if (last)
    action.is_interactive_quit = true;
  else
    action.is_interactive_command = true, action.expect = prompt;
  if (!swerex_run_in_session(runtime, &action, &seen, &err)) return false;
  printf("%s\n  %s\n", line, seen.output.data);
  swerex_bash_observation_clear(&seen);
  return true;
}

int main(void) {
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_runtime *runtime = loop == NULL ? NULL : swerex_local_runtime_new(loop, NULL, &err);
  swerex_bash_action there = {.command = "command -v gdb"};
  bool ok = runtime != NULL && swerex_create_session(runtime, NULL, NULL, &err);
  if (ok && !swerex_run_in_session(runtime, &there, NULL, &err)) {
    printf("gdb is not installed here\n");
  } else {
    ok = ok && say(runtime, "gdb -q -nx", false) && say(runtime, "set confirm off", false) &&
         say(runtime, "print 6 * 7", false) && say(runtime, "quit", true);
    if (!ok) fprintf(stderr, "%s: %s\n", swerex_code_name(err.code), err.message);
  }
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  return ok ? 0 : 1;
}
