/*
 * Twenty containers at once from one thread: each is started, runs a command, and is removed.
 *
 *     SWEREX_REMOTE_BINARY=../tools/build/swerex-remote build/containers [IMAGE [COUNT]]
 */
#include "swerex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct box {
  int number;
  swerex_deployment *deployment;
} box;

static box boxes[200];
static int count = 20, running, failures;

/** Say what a box does: on a terminal each has a line of its own. */
static void say(const box *b, const char *what) {
  int up = count - b->number, size = (int)strcspn(what, "\n");
  if (size > 70) size = 70;
  if (isatty(STDOUT_FILENO))
    printf("\033[%dA\r%3d  %.*s\033[K\r\033[%dB", up, b->number, size, what, up);
  else
    printf("%3d  %.*s\n", b->number, (int)strcspn(what, "\n"), what);
  fflush(stdout);
}

static void on_step(void *user_data, const char *message) { say((box *)user_data, message); }

static void on_stopped(swerex_future *future, void *user_data) {
  failures += !swerex_future_take(future, NULL, NULL);
  say((box *)user_data, "done");
  running--;
}

static void on_ran(swerex_future *future, void *user_data) {
  box *b = (box *)user_data;
  swerex_command_response ran = {0};
  if (swerex_future_take(future, &ran, NULL))
    say(b, ran.stdout_text.data);
  else
    failures++;
  swerex_command_response_clear(&ran);
  swerex_future_then(swerex_deployment_stop_async(b->deployment, NULL), on_stopped, b);
}

static void on_started(swerex_future *future, void *user_data) {
  const char *const argv[] = {"/swerex-remote", "--version", NULL};
  swerex_command command = {.argv = argv};
  box *b = (box *)user_data;
  swerex_error err = SWEREX_ERROR_INIT;
  if (swerex_future_take(future, NULL, &err)) {
    swerex_runtime *runtime = swerex_deployment_runtime(b->deployment, NULL);
    swerex_future_then(swerex_execute_async(runtime, &command, NULL), on_ran, b);
  } else {
    say(b, err.message);
    failures++;
    running--;
  }
  swerex_error_clear(&err);
}

int main(int argc, char **argv) {
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment_config config = {.type = SWEREX_DEPLOYMENT_DOCKER};
  config.u.docker.image = argc > 1 ? argv[1] : "debian";
  if (argc > 2) count = atoi(argv[2]) % 201;
  for (int i = 0; i < count && isatty(STDOUT_FILENO); i++) putchar('\n');
  for (box *b = boxes; b < boxes + count; b++, running++) {
    b->number = (int)(b - boxes);
    b->deployment = swerex_get_deployment(loop, &config, NULL);
    swerex_deployment_add_hook(b->deployment, (swerex_deployment_hook){on_step, b}, NULL);
    swerex_future_then(swerex_deployment_start_async(b->deployment, NULL), on_started, b);
  }
  while (running > 0 && swerex_loop_run(loop, SWEREX_FOREVER, NULL)) continue;
  swerex_loop_free(loop);
  return failures > 0;
}
