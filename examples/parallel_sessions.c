/* Eight sessions at once, in one thread. Build: cc -I.. parallel_sessions.c swerex.c */
#define _XOPEN_SOURCE 700
#include "swerex.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SESSIONS = 8 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void stop(const swerex_error *err) {
  fprintf(stderr, "%s: %s\n", swerex_code_name(err->code), err->message);
  exit(1);
}

int main(void) {
  static const char *const names[SESSIONS] = {"a", "b", "c", "d", "e", "f", "g", "h"};
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_runtime *runtime = loop == NULL ? NULL : swerex_local_runtime_new(loop, NULL, &err);
  if (runtime == NULL) stop(&err);

  for (int i = 0; i < SESSIONS; i++) {
    swerex_create_bash_session_request request = {.session = names[i]};
    if (!swerex_create_session(runtime, &request, NULL, &err)) stop(&err);
  }

  double start = now();
  for (int i = 0; i < SESSIONS; i++) {
    swerex_bash_action action = {.command = "sleep 1; echo done in $$", .session = names[i]};
    swerex_future *future = swerex_run_in_session_async(runtime, &action, &err);
    if (future == NULL) stop(&err);
    swerex_future_set_user_data(future, (void *)(uintptr_t)names[i]);
  }
  for (swerex_future *done; (done = swerex_loop_wait(loop, SWEREX_FOREVER, &err)) != NULL;) {
    const char *name = (const char *)swerex_future_user_data(done);
    swerex_bash_observation seen;
    if (!swerex_future_take(done, &seen, &err)) stop(&err);
    printf("%s: %s", name, seen.output.data);
    swerex_bash_observation_clear(&seen);
  }
  printf("%d sessions, each asleep for a second: %.2f s\n", SESSIONS, now() - start);
  swerex_loop_free(loop);
  return 0;
}
