/*
 * Starts a deployment of containers and holds it while its stdin is open, so that a client of the
 * server in it, in whatever language, can be tested:
 *
 *   hold '{"type": "docker", ...}'     prints "PORT TOKEN"
 *
 * With the transport "stdio" the port is one of this program, which joins each connection to one
 * that the deployment opens by `exec`.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include <stdio.h>

enum { MOST = 500 };

static struct pair {
  int ends[2];
} pairs[MOST];
static int pair_count;

/** Move what can be read from one end to the other, -1: to nobody; false: the end is over. */
static bool copy(int from, int to) {
  char bytes[65536];
  ssize_t n = read(from, bytes, sizeof bytes);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (to < 0) return n > 0;
  for (ssize_t at = 0, put; at < n; at += put) {
    put = send(to, bytes + at, (size_t)(n - at), MSG_NOSIGNAL);
    if (put < 0 && errno == EAGAIN) {
      struct pollfd wait = {to, POLLOUT, 0};
      poll(&wait, 1, -1);
      put = 0;
    }
    if (put < 0) return true; /* nobody takes it any more; an answer may still come */
  }
  if (n <= 0) shutdown(to, SHUT_WR); /* also where the end was reset: its program has gone */
  return n > 0;
}

/** Take a connection and open its other half. */
static void join(int listener, swerex_deployment *box) {
  int fd = accept(listener, NULL, NULL);
  if (fd < 0 || pair_count == MOST) return;
  swerex__sys_prepare_fd(fd, true);
  int other = swerex__container_open(box, NULL);
  if (other < 0) {
    close(fd);
    return;
  }
  pairs[pair_count].ends[0] = fd;
  pairs[pair_count++].ends[1] = other;
}

/** Wait for traffic, and pass it on; false: stdin has ended. */
static bool turn(swerex_loop *loop, int listener, swerex_deployment *box) {
  struct pollfd fds[2 * MOST + 3];
  nfds_t count = 3;
  int pairs_now = pair_count;
  memset(fds, 0, sizeof fds);
  fds[0].fd = STDIN_FILENO;
  fds[1].fd = swerex_loop_fd(loop);
  fds[2].fd = listener;
  for (int i = 0; i < pairs_now; i++)
    for (int k = 0; k < 2; k++) fds[count++].fd = pairs[i].ends[k];
  for (nfds_t i = 0; i < count; i++) fds[i].events = POLLIN;
  poll(fds, count, 1000);
  if (fds[0].revents != 0) return false;
  swerex_loop_run(loop, 0, NULL);
  for (int i = pairs_now - 1; i >= 0; i--)
    for (int k = 0; k < 2 && pairs[i].ends[0] >= 0; k++) {
      int *ends = pairs[i].ends;
      if (fds[3 + 2 * i + k].revents == 0 || copy(ends[k], ends[1 - k])) continue;
      if (ends[1] >= 0) close(ends[1]);
      ends[1] = -1;
      if (k == 1) continue; /* to close the other now, unread, would take the answer back */
      close(ends[0]);
      ends[0] = -1;
    }
  for (int i = pair_count - 1; i >= 0; i--)
    if (pairs[i].ends[0] < 0) pairs[i] = pairs[--pair_count];
  if (fds[2].revents != 0) join(listener, box);
  return true;
}

int main(int argc, char **argv) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_deployment *box = argc < 2 ? NULL : swerex_get_deployment_json(loop, argv[1], 0, &err);
  if (box == NULL || !swerex_deployment_start(box, &err)) {
    fprintf(stderr, "hold: %s\n", err.message != NULL ? err.message : "usage: hold JSON");
    return 1;
  }
  const swerex__docker *docker = swerex__docker_of(box);
  int listener = -1, port = docker->port;
  bool loopback;
  if (box->config.u.docker.transport == SWEREX_TRANSPORT_STDIO)
    listener = swerex__sock_listen("127.0.0.1", 0, &port, &loopback, &err);
  printf("%d %s\n", port, docker->token);
  fflush(stdout);
  while (turn(loop, listener, box)) continue;
  bool ok = swerex_deployment_stop(box, &err);
  if (!ok) fprintf(stderr, "hold: %s\n", err.message);
  swerex_loop_free(loop);
  return !ok;
}
