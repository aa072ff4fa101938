/*
 * Twenty containers at once from one thread: each is started, runs a command, and is removed.
 * Build: make -C ../tools static; cc -I.. containers.c swerex.c -o containers
 * Run: SWEREX_REMOTE_BINARY=../tools/build/swerex-remote ./containers [IMAGE [COUNT]]
 */
#include "swerex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static swerex_deployment *boxes[200];
static int count = 20, running, failures;
static swerex_error err = SWEREX_ERROR_INIT;

/** Say what a box does: on a terminal each has a line of its own. */
static void say(void *box, const char *what) {
  int number = (int)((swerex_deployment **)box - boxes), up = count - number;
  int size = (int)strcspn(what, "\n");
  if (isatty(STDOUT_FILENO))
    printf("\033[%dA\r%3d  %.*s\033[K\r\033[%dB", up, number, size < 70 ? size : 70, what, up);
  else
    printf("%3d  %.*s\n", number, size, what);
  fflush(stdout);
}

/** The box has nothing more to do. */
static void end(void *box, bool ok) {
  say(box, ok ? "done" : err.message);
  failures += !ok;
  running--;
}

/** Have `then` called at the end of a call; NULL: it could not be made, and `err` says why. */
static void go_on(swerex_future *future, void (*then)(swerex_future *, void *), void *box) {
  if (future != NULL)
    swerex_future_then(future, then, box);
  else
    end(box, false);
}

static void on_stopped(swerex_future *future, void *box) {
  end(box, swerex_future_take(future, NULL, &err));
}

static void on_ran(swerex_future *future, void *box) {
  swerex_command_response ran = {0};
  bool ok = swerex_future_take(future, &ran, &err);
  say(box, ok ? ran.stdout_text.data : err.message);
  failures += !ok;
  swerex_command_response_clear(&ran);
  go_on(swerex_deployment_stop_async(*(swerex_deployment **)box, &err), on_stopped, box);
}

static void on_started(swerex_future *future, void *box) {
  swerex_command command = {.command = "uname -a", .shell = true};
  bool ok = swerex_future_take(future, NULL, &err);
  swerex_runtime *runtime = ok ? swerex_deployment_runtime(*(swerex_deployment **)box, &err) : NULL;
  go_on(ok ? swerex_execute_async(runtime, &command, &err) : NULL, on_ran, box);
}

int main(int argc, char **argv) {
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_deployment_config config = {.type = SWEREX_DEPLOYMENT_DOCKER};
  config.u.docker.image = argc > 1 ? argv[1] : "debian";
  if (argc > 2) count = atoi(argv[2]) % 201;
  for (int i = 0; i < count && isatty(STDOUT_FILENO); i++) putchar('\n');
  for (swerex_deployment **box = boxes; box < boxes + count; box++, running++) {
    *box = swerex_get_deployment(loop, &config, &err);
    swerex_deployment_add_hook(*box, (swerex_deployment_hook){say, box}, &err);
    go_on(swerex_deployment_start_async(*box, &err), on_started, box);
  }
  while (running > 0 && swerex_loop_run(loop, SWEREX_FOREVER, NULL)) continue;
  swerex_loop_free(loop);
  return failures > 0;
}
