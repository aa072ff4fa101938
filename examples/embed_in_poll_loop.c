/* The loop inside a host's own poll loop. Build: cc -I.. embed_in_poll_loop.c swerex.c */
#define _XOPEN_SOURCE 700
#include "swerex.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

enum { ROOM = 64 };

static void finished(swerex_future *future, void *user_data) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_command_response ran;
  if (swerex_future_take(future, &ran, &err)) {
    printf("command: %s", ran.stdout_text.data);
    swerex_command_response_clear(&ran);
  } else {
    printf("command failed: %s\n", err.message);
  }
  swerex_error_clear(&err);
  *(bool *)user_data = true;
}

int main(void) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_runtime *runtime = loop == NULL ? NULL : swerex_local_runtime_new(loop, NULL, &err);
  swerex_command command = {.command = "sleep 0.3; date", .shell = true};
  bool done = false;
  int ends[2];
  if (runtime == NULL || pipe(ends) != 0) return 1;
  swerex_future *future = swerex_execute_async(runtime, &command, &err);
  if (future == NULL || write(ends[1], "x", 1) != 1) return 1;
  swerex_future_then(future, finished, &done);

  while (!done) {
    struct pollfd fds[1 + ROOM];
    fds[0].fd = ends[0]; /* something of the host's */
    fds[0].events = POLLIN;
    size_t count = swerex_loop_pollfds(loop, fds + 1, ROOM);
    if (count > ROOM) return 1; /* many sessions: more room, or swerex_loop_fd, one for them all */
    double wait = swerex_loop_timeout(loop);
    if (poll(fds, (nfds_t)(1 + count), wait < 0 ? -1 : (int)(wait * 1000) + 1) < 0) return 1;
    if (fds[0].revents != 0) {
      char byte;
      if (read(ends[0], &byte, 1) == 1) printf("the host has read its own pipe\n");
    }
    if (!swerex_loop_run(loop, 0, &err)) return 1;
  }
  swerex_loop_free(loop);
  close(ends[0]);
  close(ends[1]);
  return 0;
}
