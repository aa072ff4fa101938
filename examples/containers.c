/*
 * Twenty containers at once from one thread: each is started, runs a command, and is removed.
 * Build: make -C ../tools static; cc -I.. containers.c swerex.c -o containers
 * Run: SWEREX_REMOTE_BINARY=../tools/build/swerex-remote ./containers [IMAGE [COUNT]]
 */
#include "swerex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct box {
  int number;
  swerex_deployment *deployment;
} box;

static box boxes[200];
static int count = 20, running, failures;
static swerex_error err = SWEREX_ERROR_INIT;

static void say(const box *b, const char *what) {
  printf("%3d  %.*s\n", b->number, (int)strcspn(what, "\n"), what);
  fflush(stdout);
}

static void on_step(void *user_data, const char *message) { say((box *)user_data, message); }

/** The box has nothing more to do. */
static void end(const box *b, bool ok) {
  say(b, ok ? "done" : err.message);
  failures += !ok;
  running--;
}

/** Have `then` called at the end of a call; NULL: it could not be made, and `err` says why. */
static void go_on(swerex_future *future, void (*then)(swerex_future *, void *), box *b) {
  if (future != NULL)
    swerex_future_then(future, then, b);
  else
    end(b, false);
}

static void on_stopped(swerex_future *future, void *user_data) {
  end((box *)user_data, swerex_future_take(future, NULL, &err));
}

static void on_ran(swerex_future *future, void *user_data) {
  box *b = (box *)user_data;
  swerex_command_response ran = {0};
  bool ok = swerex_future_take(future, &ran, &err);
  say(b, ok ? ran.stdout_text.data : err.message);
  failures += !ok;
  swerex_command_response_clear(&ran);
  go_on(swerex_deployment_stop_async(b->deployment, &err), on_stopped, b);
}

static void on_started(swerex_future *future, void *user_data) {
  box *b = (box *)user_data;
  swerex_command command = {.command = "uname -a", .shell = true};
  bool ok = swerex_future_take(future, NULL, &err);
  swerex_runtime *runtime = ok ? swerex_deployment_runtime(b->deployment, &err) : NULL;
  go_on(ok ? swerex_execute_async(runtime, &command, &err) : NULL, on_ran, b);
}

int main(int argc, char **argv) {
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_deployment_config config = {.type = SWEREX_DEPLOYMENT_DOCKER};
  config.u.docker.image = argc > 1 ? argv[1] : "debian";
  if (argc > 2) count = atoi(argv[2]) % 201;
  for (box *b = boxes; b < boxes + count; b++, running++) {
    b->number = (int)(b - boxes);
    b->deployment = swerex_get_deployment(loop, &config, &err);
    swerex_deployment_add_hook(b->deployment, (swerex_deployment_hook){on_step, b}, &err);
    go_on(swerex_deployment_start_async(b->deployment, &err), on_started, b);
  }
  while (running > 0 && swerex_loop_run(loop, SWEREX_FOREVER, NULL)) continue;
  swerex_loop_free(loop);
  return failures > 0;
}
