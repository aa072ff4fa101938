/* The server and the remote runtime: what one connection, many, or broken ones get. */
#include "world.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/un.h>

#include "test.h"

/* --- a server in a process of its own --- */

typedef struct server {
  pid_t pid;
  int stop; /* closing it ends the server */
  int port;
} server;

static void serve_until(int stop, int ready, const swerex_server_options *options) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_server *srv = loop == NULL ? NULL : swerex_server_new(loop, options, &err);
  int port = 0;
  char byte;
  if (srv == NULL) _exit(3);
  const char *colon = strrchr(swerex_server_address(srv), ':');
  if (colon != NULL) port = atoi(colon + 1);
  if (write(ready, &port, sizeof port) != (ssize_t)sizeof port) _exit(4);
  fcntl(stop, F_SETFL, O_NONBLOCK);
  while (!swerex_server_done(srv) && (read(stop, &byte, 1) < 0)) swerex_loop_run(loop, 0.02, &err);
  swerex_server_free(srv);
  swerex_loop_free(loop);
  exit(0); /* with the sanitizer's look at leaks */
}

static server start_server(const swerex_server_options *options) {
  int stop[2], ready[2];
  server s = {-1, -1, 0};
  if (pipe(stop) != 0 || pipe(ready) != 0) return s;
  s.pid = fork();
  if (s.pid == 0) {
    close(stop[1]);
    close(ready[0]);
    serve_until(stop[0], ready[1], options);
  }
  close(stop[0]);
  close(ready[1]);
  s.stop = stop[1];
  CHECK(read(ready[0], &s.port, sizeof s.port) == (ssize_t)sizeof s.port);
  close(ready[0]);
  return s;
}

static void stop_server(server *s) {
  int status = -1;
  close(s->stop);
  CHECK(waitpid(s->pid, &status, 0) == s->pid);
  CHECK_INT(status, 0);
}

static swerex_runtime *connect_to(swerex_loop *loop, const server *s, const char *token,
                                  swerex_error *err) {
  swerex_remote_config config;
  memset(&config, 0, sizeof config);
  config.auth_token = token;
  config.port = s->port;
  config.timeout = 5; /* the machine may be busy */
  return swerex_remote_runtime_new(loop, &config, err);
}

/* --- plain sockets --- */

static int dial(const server *s) {
  struct sockaddr_in address;
  struct timeval patience = {5, 0};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)s->port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
  return fd;
}

static void say(int fd, const char *format, ...) {
  char text[4096];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  CHECK(send(fd, text, (size_t)n, MSG_NOSIGNAL) == n);
}

/** Read until a text has come, the connection ends, or 5 s are over; returns what came. */
static const char *hear(int fd, const char *until) {
  static char text[1 << 16];
  size_t size = 0;
  text[0] = '\0';
  while (size + 1 < sizeof text && (until == NULL || strstr(text, until) == NULL)) {
    ssize_t n = recv(fd, text + size, sizeof text - 1 - size, 0);
    if (n <= 0) break;
    size += (size_t)n;
    text[size] = '\0';
  }
  return text;
}

#define GET_ALIVE "GET /is_alive HTTP/1.1\r\nHost: a\r\n\r\n"

static void post(int fd, const char *path, const char *headers, const char *body) {
  say(fd, "POST %s HTTP/1.1\r\nHost: a\r\n%sContent-Length: %zu\r\n\r\n%s", path, headers,
      strlen(body), body);
}

/* --- tests --- */

TEST(both_ends_in_one_loop) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_server *srv = swerex_server_new(loop, NULL, &err);
  CHECK(srv != NULL && strncmp(swerex_server_address(srv), "http://127.0.0.1:", 17) == 0);
  swerex_remote_config config;
  memset(&config, 0, sizeof config);
  config.auth_token = "";
  config.host = swerex_server_address(srv);
  swerex_runtime *runtime = swerex_remote_runtime_new(loop, &config, &err);
  CHECK(swerex_wait_until_alive(runtime, 5, &err));
  CHECK(swerex_create_session(runtime, NULL, NULL, &err));
  swerex_bash_action action;
  swerex_bash_observation seen;
  memset(&action, 0, sizeof action);
  memset(&seen, 0, sizeof seen);
  action.command = "echo hi; (exit 3)";
  action.check = SWEREX_CHECK_SILENT;
  CHECK(swerex_run_in_session(runtime, &action, &seen, &err));
  CHECK_STR(seen.output.data, "hi\n");
  CHECK_INT(seen.exit_code, 3);
  swerex_bash_observation_clear(&seen);
  action.session = "none";
  CHECK(!swerex_run_in_session(runtime, &action, &seen, &err));
  CHECK_INT(err.code, SWEREX_E_SESSION_DOES_NOT_EXIST);
  CHECK_INT(err.http_status, 511);
  CHECK_STR(err.message, "session 'none' does not exist");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(an_open_door_is_refused) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_server_options options;
  memset(&options, 0, sizeof options);
  options.host = "0.0.0.0";
  CHECK(swerex_server_new(loop, &options, &err) == NULL);
  CHECK_INT(err.code, SWEREX_E_VALUE);
  options.no_auth = true;
  CHECK(swerex_server_new(loop, &options, &err) != NULL);
  options.host = "256.1.1.1";
  CHECK(swerex_server_new(loop, &options, &err) == NULL);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(pipelined_requests_are_answered_in_order) {
  server s = start_server(NULL);
  int fd = dial(&s);
  say(fd, "POST /execute HTTP/1.1\r\nHost: a\r\nContent-Length: 41\r\n\r\n"
          "{\"command\":\"sleep 0.2; echo 1\",\"shell\":1}" GET_ALIVE "GET /nope HTTP/1.1\r\nHost: a\r\n\r\n"
          "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const char *text = hear(fd, NULL);
  const char *one = strstr(text, "\"stdout\":\"1"), *two = strstr(text, "is_alive");
  const char *three = strstr(text, "Not Found"), *four = strstr(text, "hello world");
  CHECK(one != NULL && two > one && three > two && four > three);
  close(fd);
  stop_server(&s);
}

TEST(a_client_that_has_said_all_hears_all) {
  server s = start_server(NULL);
  int fd = dial(&s);
  post(fd, "/execute", "", "{\"command\":[\"sleep\",\"0.1\"]}");
  say(fd, GET_ALIVE GET_ALIVE);
  shutdown(fd, SHUT_WR);
  const char *text = hear(fd, NULL), *first = strstr(text, "is_alive");
  CHECK(strstr(text, "exit_code") != NULL && first != NULL && strstr(first + 1, "is_alive") != NULL);
  close(fd);
  stop_server(&s);
}

TEST(requests_in_pieces_and_with_continue) {
  server s = start_server(NULL);
  int fd = dial(&s);
  const char *whole = GET_ALIVE;
  for (const char *c = whole; *c != '\0'; c++) say(fd, "%c", *c);
  CHECK(strstr(hear(fd, "\"is_alive\":true"), "200 OK") != NULL);
  say(fd, "POST /execute HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
  CHECK(strstr(hear(fd, "\r\n\r\n"), "100 Continue") != NULL);
  say(fd, "12\r\n{\"command\":[\"true\"\r\n");
  say(fd, "2;x\r\n]}\r\n0\r\n\r\n");
  CHECK(strstr(hear(fd, "exit_code"), "200 OK") != NULL);
  close(fd);
  stop_server(&s);
}

TEST(what_is_no_request_is_refused_and_others_are_served) {
  static const struct {
    const char *text;
    int status;
  } rows[] = {
    {"nonsense\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n\r\n", 400},
    {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
    {"POST /execute HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400},
    {"POST /execute HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
    {"POST /execute HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
    {"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"PUT /execute HTTP/1.1\r\nHost: a\r\n\r\n", 405},
    {"POST /execute HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", 413},
    {"POST /execute HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n{", 422},
    {"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data\r\nContent-Length: 1\r\n\r\nx", 400},
    {"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 422},
  };
  server s = start_server(NULL);
  int other = dial(&s);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    int status = 0, fd = dial(&s);
    say(fd, "%s", rows[i].text);
    sscanf(hear(fd, "\r\n\r\n"), "HTTP/1.1 %d", &status);
    if (status != rows[i].status) printf("# row %zu\n", i);
    CHECK_INT(status, rows[i].status);
    close(fd);
    say(other, GET_ALIVE);
    CHECK(strstr(hear(other, "\"is_alive\":true,\"message\":\"\"}"), "200 OK") != NULL);
  }
  close(other);
  stop_server(&s);
}

TEST(the_token_is_asked_for) {
  swerex_server_options options;
  memset(&options, 0, sizeof options);
  options.auth_token = "sesame";
  server s = start_server(&options);
  static const char *const keys[] = {"", "X-API-Key: \r\n", "X-API-Key: sesam\r\n",
                                     "X-API-Key: sesamesesame\r\n", "x-api-key: sesame\r\n"};
  for (int i = 0; i < 5; i++) {
    int fd = dial(&s);
    post(fd, "/execute", keys[i], "{\"command\":[\"true\"]}");
    const char *text = hear(fd, "}");
    CHECK(strncmp(text, i == 4 ? "HTTP/1.1 200" : "HTTP/1.1 401", 12) == 0);
    CHECK(i != 0 || strstr(text, "Not authenticated") != NULL);
    close(fd);
  }
  int fd = dial(&s); /* the token is in no child's environment */
  post(fd, "/execute", "x-api-key: sesame\r\n", "{\"command\":[\"env\"]}");
  CHECK(strstr(hear(fd, "exit_code"), "sesame") == NULL);
  close(fd);
  stop_server(&s);
}

TEST(a_repeated_id_runs_once) {
  server s = start_server(NULL);
  char path[] = "/tmp/swerex-once-XXXXXX", body[256];
  int file = mkstemp(path), fds[8];
  snprintf(body, sizeof body, "{\"command\":\"sleep 0.3; echo x >>%s; echo done\",\"shell\":true}", path);
  for (int i = 0; i < 8; i++) post(fds[i] = dial(&s), "/execute", "X-Request-ID: one\r\n", body);
  for (int i = 0; i < 8; i++) {
    CHECK(strstr(hear(fds[i], "exit_code"), "done") != NULL);
    close(fds[i]);
  }
  int late = dial(&s); /* long over: the same answer */
  post(late, "/execute", "X-Request-ID: one\r\n", body);
  CHECK(strstr(hear(late, "exit_code"), "done") != NULL);
  close(late);
  struct stat info;
  CHECK(fstat(file, &info) == 0);
  CHECK_INT(info.st_size, 2);
  unlink(path);
  close(file);
  stop_server(&s);
}

TEST(an_id_that_others_use_too_means_another_call) {
  static const struct {
    const char *path, *body, *answer;
  } rows[] = {
    {"/execute", "{\"command\":[\"echo\",\"1\"]}", "\"stdout\":\"1\\n\""},
    {"/execute", "{\"command\":[\"echo\",\"2\"]}", "\"stdout\":\"2\\n\""},
    {"/execute", "{\"command\":[\"echo\", \"2\"]}", "\"stdout\":\"2\\n\""},
    {"/read_file", "{\"path\":\"/dev/null\"}", "{\"content\":\"\"}"},
    {"/write_file", "{\"path\":\"/dev/null\"}", "Field required"},
    {"/execute", "{\"command\":[\"echo\",\"1\"]}", "\"stdout\":\"1\\n\""},
  };
  server s = start_server(NULL);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    int fd = dial(&s);
    post(fd, rows[i].path, "X-Request-ID: of a proxy\r\nConnection: close\r\n", rows[i].body);
    CHECK(has(hear(fd, NULL), rows[i].answer));
    close(fd);
  }
  stop_server(&s);
}

/** Wait until a file has grown to some bytes. */
static void await_size(int file, int size) {
  struct stat info = {0};
  for (int i = 0; i < 1000 && fstat(file, &info) == 0 && info.st_size < size; i++) usleep(10000);
  CHECK_INT(info.st_size, size);
}

TEST(a_client_that_vanishes) {
  static const struct {
    const char *headers, *nap;
    int size; /* what its command has written in the end, behind the one before */
  } rows[] = {{"", "0.5", 4}, {"X-On-Disconnect: kill\r\n", "7782", 6}};
  server s = start_server(NULL);
  char path[] = "/tmp/swerex-gone-XXXXXX", body[256], shell[64];
  int file = mkstemp(path);
  for (int i = 0; i < 2; i++) {
    snprintf(body, sizeof body, "{\"command\":\"echo x >>%s; sleep %s; echo y >>%s\",\"shell\":true}", path,
             rows[i].nap, path);
    snprintf(shell, sizeof shell, "/bin/sh -c echo x >>%s", path);
    int fd = dial(&s);
    post(fd, "/execute", rows[i].headers, body);
    await_size(file, 2 + 4 * i); /* it is at work */
    if (i > 0) await_processes(shell, 1);
    await_processes("sleep 7782", i);
    close(fd);
    await_processes(shell, 0);
    await_size(file, rows[i].size);
  }
  unlink(path);
  close(file);
  stop_server(&s);
}

/** Who was refused behind an answer that had been given before does not hold the connection. */
TEST(a_refusal_behind_a_repeated_request_ends) {
  static const char request[] = "POST /execute HTTP/1.1\r\nHost: a\r\nX-Request-ID: r1\r\nContent-Length: 31\r\n\r\n"
                                "{\"command\":\"true\",\"shell\":true}";
  server s = start_server(NULL);
  int fd = dial(&s), tries = 0;
  say(fd, "%s", request);
  CHECK(has(hear(fd, "exit_code"), "200 OK"));
  say(fd, "%sPOST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n", request);
  CHECK(has(hear(fd, NULL), "404"));
  while (send(fd, "x", 1, MSG_NOSIGNAL) == 1 && tries++ < 200) usleep(50000);
  CHECK(tries < 200); /* the server has read on for a while, and closed */
  close(fd);
  stop_server(&s);
}

TEST(a_stream_is_taken_up_where_it_ended) {
  static const char body[] =
    "{\"command\":\"for i in 1 2 3 4; do echo line$i; sleep 0.1; done; exit 5\",\"shell\":true}";
  static const char accept[] = "X-Request-ID: s1\r\nAccept: application/x-ndjson\r\n";
  server s = start_server(NULL);
  int fd = dial(&s);
  post(fd, "/execute", accept, body);
  const char *text = hear(fd, "line2");
  CHECK(strstr(text, "application/x-ndjson") != NULL);
  close(fd);
  size_t first = strlen("{\"stdout\":\"line1\\n\"}\n");
  char headers[200];
  snprintf(headers, sizeof headers, "%sX-Stream-Offset: %zu\r\n", accept, first);
  fd = dial(&s);
  post(fd, "/execute", headers, body);
  text = hear(fd, "\r\n0\r\n\r\n");
  CHECK(strstr(text, "line1\\n\"}\n") == NULL && strstr(text, "{\"stdout\":\"line2\\n\"}") != NULL);
  CHECK(strstr(text, "{\"status\":200,\"answer\":{\"stdout\":\"line1\\nline2\\nline3\\nline4\\n\"") != NULL);
  close(fd);
  stop_server(&s);
}

/** Read a chunked answer to its end and take the chunks off; the caller frees it. */
static char *hear_chunks(int fd) {
  size_t size = 0, room = 32 << 20;
  char *text = (char *)malloc(room), *to = text;
  ssize_t n = 1;
  while (n > 0 && size + 1 < room && (size < 7 || memcmp(text + size - 7, "\r\n0\r\n\r\n", 7) != 0)) {
    n = recv(fd, text + size, room - 1 - size, 0);
    if (n > 0) size += (size_t)n;
  }
  text[size] = '\0';
  char *at = strstr(text, "\r\n\r\n");
  for (at = at == NULL ? text : at + 4; at < text + size;) {
    size_t count = strtoul(at, &at, 16);
    at += 2;
    if (count == 0 || at + count > text + size) break;
    memmove(to, at, count);
    to += count;
    at += count + 2;
  }
  *to = '\0';
  return text;
}

/** A client that does not keep up loses whole lines, and is told so. */
TEST(lines_of_a_stream_stay_whole) {
  static const char body[] = "{\"command\":\"seq 2000000\",\"shell\":true,\"max_output\":1000}";
  swerex_server_options options;
  struct sockaddr_un address;
  memset(&options, 0, sizeof options);
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX; /* which holds little that was not read */
  snprintf(address.sun_path, sizeof address.sun_path, "/tmp/swerex-slow-%ld", (long)getpid());
  options.unix_path = address.sun_path;
  server s = start_server(&options);
  int slow = socket(AF_UNIX, SOCK_STREAM, 0), other = socket(AF_UNIX, SOCK_STREAM, 0);
  int lost = 0, odd = 0;
  char byte;
  CHECK(connect(slow, (struct sockaddr *)&address, sizeof address) == 0);
  CHECK(connect(other, (struct sockaddr *)&address, sizeof address) == 0);
  post(slow, "/execute", "X-Request-ID: l\r\nAccept: application/x-ndjson\r\n", body);
  CHECK(recv(slow, &byte, 1, MSG_PEEK) == 1); /* it is this one's stream */
  post(other, "/execute", "X-Request-ID: l\r\n", body);
  CHECK(has(hear(other, "exit_code"), "exit_code")); /* it has ended, and little was read of it */
  char *text = hear_chunks(slow);
  for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
    bool marked = strncmp(line, "{\"lost\":", 8) == 0;
    *end = '\0';
    lost += marked;
    odd += end == line || line[0] != '{' || end[-1] != '}' || (!marked && strstr(line, "{\"lost") != NULL);
  }
  CHECK(lost > 0);
  CHECK_INT(odd, 0);
  free(text);
  close(slow);
  close(other);
  stop_server(&s);
}

/** What came: its size, and its beginning. */
typedef struct heard {
  size_t size;
  char data[64];
} heard;

static void collect(void *user_data, swerex_stream stream, const char *text, size_t size) {
  heard *out = (heard *)user_data;
  bool mark = stream == SWEREX_STDERR;
  for (size_t i = 0; i < size + mark; i++, out->size++)
    if (out->size < sizeof out->data) out->data[out->size] = i < mark ? '!' : text[i - mark];
}

TEST(live_output_over_the_wire) {
  swerex_error err = SWEREX_ERROR_INIT;
  server s = start_server(NULL);
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_runtime *runtime = connect_to(loop, &s, "", &err);
  heard seen;
  swerex_command command;
  swerex_command_response ran;
  memset(&seen, 0, sizeof seen);
  memset(&command, 0, sizeof command);
  memset(&ran, 0, sizeof ran);
  command.command = "echo a; sleep 0.3; echo b >&2; seq 100000";
  command.shell = true;
  command.watch.on_output = collect;
  command.watch.user_data = &seen;
  swerex_future *future = swerex_execute_async(runtime, &command, &err);
  double start = seconds();
  while (seen.size == 0 && seconds() - start < 5) swerex_loop_run(loop, 0.1, &err);
  CHECK(!swerex_future_done(future));
  CHECK(swerex_future_take(future, &ran, &err));
  CHECK_INT(seen.size, ran.stdout_text.size + ran.stderr_text.size + 1);
  CHECK(strncmp(seen.data, "a\n!b\n1\n2\n", 9) == 0);
  swerex_command_response_clear(&ran);
  char startup[64];
  const char *const sources[] = {startup, NULL};
  swerex_create_bash_session_request create;
  snprintf(startup, sizeof startup, "/tmp/swerex-start-%ld", (long)getpid());
  FILE *file = fopen(startup, "w");
  CHECK(fputs("echo hello\n", file) >= 0 && fclose(file) == 0);
  memset(&create, 0, sizeof create);
  create.startup_source = sources;
  create.watch = command.watch;
  seen.size = 0;
  CHECK(swerex_create_session(runtime, &create, NULL, &err));
  CHECK_INT(seen.size, 6);
  CHECK(strncmp(seen.data, "hello\n", 6) == 0);
  unlink(startup);
  seen.size = 0;
  swerex_bash_action action;
  swerex_bash_observation observed;
  memset(&action, 0, sizeof action);
  memset(&observed, 0, sizeof observed);
  action.command = "seq 200000; false";
  action.watch = command.watch;
  CHECK(!swerex_run_in_session(runtime, &action, &observed, &err));
  CHECK_INT(err.code, SWEREX_E_NON_ZERO_EXIT_CODE);
  CHECK_INT(seen.size, 1288895);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  stop_server(&s);
}

TEST(a_thousand_connections) {
  enum { COUNT = 1000 };
  static int fds[COUNT];
  struct rlimit files;
  CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
  struct rlimit more = {files.rlim_max < 4096 ? files.rlim_max : 4096, files.rlim_max};
  if (more.rlim_cur < 2 * COUNT) SKIP("ulimit -n cannot be raised");
  setrlimit(RLIMIT_NOFILE, &more);
  server s = start_server(NULL);
  for (int i = 0; i < COUNT; i++) fds[i] = dial(&s);
  for (int i = 0; i < COUNT; i++) say(fds[i], "GET /is_alive HTTP/1.1\r\n"); /* slow ones */
  int other = dial(&s);
  say(other, GET_ALIVE);
  CHECK(strstr(hear(other, "true"), "200 OK") != NULL);
  for (int i = 0; i < COUNT; i++) say(fds[i], "Host: a\r\n\r\n");
  for (int i = 0; i < COUNT; i++) {
    CHECK(strstr(hear(fds[i], "true"), "200 OK") != NULL);
    close(fds[i]);
  }
  close(other);
  stop_server(&s);
  setrlimit(RLIMIT_NOFILE, &files);
}

TEST(nothing_waits_for_another) {
  swerex_error err = SWEREX_ERROR_INIT;
  server s = start_server(NULL);
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_runtime *runtime = connect_to(loop, &s, "", &err);
  swerex_future *futures[8];
  char names[8][8];
  swerex_create_bash_session_request create;
  swerex_bash_action action;
  memset(&create, 0, sizeof create);
  memset(&action, 0, sizeof action);
  for (int i = 0; i < 8; i++) {
    snprintf(names[i], sizeof names[i], "s%d", i);
    create.session = names[i];
    CHECK(swerex_create_session(runtime, &create, NULL, &err));
  }
  action.command = "sleep 1";
  double start = seconds();
  for (int i = 0; i < 8; i++) {
    action.session = names[i];
    futures[i] = swerex_run_in_session_async(runtime, &action, &err);
  }
  swerex_is_alive_response alive;
  memset(&alive, 0, sizeof alive);
  CHECK(swerex_is_alive(runtime, NULL, &alive, &err) && alive.is_alive);
  swerex_is_alive_response_clear(&alive);
  CHECK(!swerex_future_done(futures[0])); /* it did not wait for them */
  for (int i = 0; i < 8; i++) CHECK(swerex_future_take(futures[i], NULL, &err));
  CHECK(seconds() - start < 6); /* one after the other: 8 */
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  stop_server(&s);
}

TEST(local_sockets_and_ends) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_server_options options;
  char path[64], host[80];
  memset(&options, 0, sizeof options);
  snprintf(path, sizeof path, "/tmp/swerex sock-%ld", (long)getpid());
  snprintf(host, sizeof host, "unix:%s", path);
  options.unix_path = path;
  options.idle_timeout = 0.3;
  server s = start_server(&options);
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_remote_config config;
  memset(&config, 0, sizeof config);
  config.auth_token = "";
  config.host = host;
  swerex_runtime *runtime = swerex_remote_runtime_new(loop, &config, &err);
  CHECK(swerex_wait_until_alive(runtime, 5, &err));
  swerex_server *second = swerex_server_new(loop, &options, &err);
  CHECK(second == NULL && err.sys_errno == EADDRINUSE);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  int status = -1; /* nobody is there any more: it ends by itself */
  CHECK(waitpid(s.pid, &status, 0) == s.pid && status == 0);
  CHECK(access(path, F_OK) != 0);
  close(s.stop);
}

TEST(the_dead_and_the_deaf) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_remote_config config;
  swerex_is_alive_response alive;
  swerex_command command;
  static const char *const argv[] = {"true", NULL};
  memset(&config, 0, sizeof config);
  memset(&command, 0, sizeof command);
  memset(&alive, 0, sizeof alive);
  command.argv = argv;
  config.auth_token = "";
  config.port = swerex_find_free_port(loop, 0, 0, &err);
  config.num_retries = -1;
  config.request_timeout = 0.3;
  swerex_runtime *dead = swerex_remote_runtime_new(loop, &config, &err);
  CHECK(swerex_is_alive(dead, NULL, &alive, &err) && !alive.is_alive);
  CHECK(strstr(alive.message.data, "Failed to connect") != NULL);
  swerex_is_alive_response_clear(&alive);
  CHECK(!swerex_execute(dead, &command, NULL, &err) && err.sys_errno == ECONNREFUSED);
  CHECK(!swerex_wait_until_alive(dead, 0.2, &err) && err.code == SWEREX_E_TIMEOUT);
  config.num_retries = 6;
  config.request_timeout = 0.5; /* for all its tries, which would take 6 s */
  swerex_runtime *again = swerex_remote_runtime_new(loop, &config, &err);
  double start = seconds();
  CHECK(!swerex_execute(again, &command, NULL, &err));
  CHECK(err.sys_errno == ECONNREFUSED && seconds() - start < 3);
  int deaf = socket(AF_INET, SOCK_STREAM, 0); /* connects, and never says a word */
  struct sockaddr_in address;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)config.port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  swerex_future *waiting = swerex_wait_until_alive_async(dead, 1, &err);
  for (int i = 0; i < 5; i++) swerex_loop_run(loop, 0.02, NULL); /* it hears that nobody is there */
  CHECK(bind(deaf, (struct sockaddr *)&address, sizeof address) == 0 && listen(deaf, 5) == 0);
  CHECK(!swerex_future_take(waiting, NULL, &err) && err.code == SWEREX_E_TIMEOUT);
  CHECK(has(err.message, "Connection refused")); /* the last answer: then there was none */
  struct pollfd asked = {deaf, POLLIN, 0};
  if (poll(&asked, 1, 0) > 0) close(accept(deaf, NULL, NULL));
  start = seconds();
  swerex_read_file_request file = {"/etc/passwd", NULL, NULL}; /* can be asked for twice */
  swerex_future *future = swerex_read_file_async(again, &file, &err);
  CHECK(swerex_loop_run(loop, 0, &err) && close(accept(deaf, NULL, NULL)) == 0);
  CHECK(!swerex_future_take(future, NULL, &err) && err.code == SWEREX_E_TIMEOUT);
  CHECK(has(err.message, "/read_file within 0.5 seconds") && seconds() - start < 3);
  CHECK(swerex_is_alive(dead, NULL, &alive, &err) && !alive.is_alive);
  swerex_is_alive_response_clear(&alive);
  future = swerex_execute_async(dead, &command, &err);
  swerex_future_cancel(future);
  CHECK(!swerex_future_take(future, NULL, &err) && err.code == SWEREX_E_CANCELLED);
  swerex_execute_async(dead, &command, &err); /* left to the loop */
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  close(deaf);
}

TEST(the_last_answer_is_told_though_it_came_late) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_server_options options;
  swerex_remote_config config;
  bool told = false;
  memset(&options, 0, sizeof options);
  memset(&config, 0, sizeof config);
  options.auth_token = "right";
  config.auth_token = "wrong";
  for (int i = 0; i < 5 && !told; i++) { /* the question that is asked last has 50 ms */
    options.port = config.port = swerex_find_free_port(loop, 0, 0, &err);
    swerex_runtime *runtime = swerex_remote_runtime_new(loop, &config, &err);
    double start = seconds();
    swerex_future *waiting = swerex_wait_until_alive_async(runtime, 0.3, &err);
    while (seconds() - start < 0.2) swerex_loop_run(loop, 0.02, NULL); /* nobody is there */
    for (int turn = 0; turn < 4; turn++) swerex_loop_run(loop, 0, NULL); /* that is heard */
    swerex_server *srv = swerex_server_new(loop, &options, &err);
    while (seconds() - start < 0.32) usleep(10000);
    CHECK(srv != NULL && !swerex_future_take(waiting, NULL, &err));
    told = strstr(err.message, "Invalid API Key") != NULL;
    if (!told) printf("# %s\n", err.message);
    swerex_server_free(srv);
    swerex_runtime_free(runtime);
  }
  CHECK(told);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(uploads_come_whole) {
  swerex_error err = SWEREX_ERROR_INIT;
  char up[64], source[100], target[100];
  snprintf(up, sizeof up, "/tmp/swerex-up-%ld", (long)getpid());
  setenv("UP", up, 1);
  server s = start_server(NULL);
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_runtime *runtime = connect_to(loop, &s, "", &err);
  swerex_command command;
  swerex_upload_request upload = {source, target};
  swerex_command_response ran;
  memset(&command, 0, sizeof command);
  memset(&ran, 0, sizeof ran);
  command.shell = true;
  command.check = true;
  command.command = "rm -rf $UP; mkdir -p $UP/from/a/b $UP/from/empty; "
                    "cd $UP/from; seq 300000 >a/b/big; echo x >a/'na me'; chmod 750 a/'na me'; "
                    "ln -s b/big a/link; touch -d 2001-02-03 a/b/big; head -c 100000 /dev/urandom >noise";
  CHECK(swerex_execute(runtime, &command, NULL, &err));
  snprintf(source, sizeof source, "%s/from", up);
  snprintf(target, sizeof target, "%s/x/to", up);
  CHECK(swerex_upload(runtime, &upload, NULL, &err));
  snprintf(source, sizeof source, "%s/from/noise", up);
  snprintf(target, sizeof target, "%s/y/z/noise", up);
  CHECK(swerex_upload(runtime, &upload, NULL, &err));
  command.command = "cd $UP && diff -r from x/to && cmp from/noise y/z/noise && "
                    "stat -c '%n %a %Y' x/to/a/* x/to/a/b/big >two && cd from && "
                    "stat -c 'x/to/%n %a %Y' a/* a/b/big | diff - ../two && readlink ../x/to/a/link";
  CHECK(swerex_execute(runtime, &command, &ran, &err));
  if (err.message != NULL) printf("# %s\n", err.message);
  CHECK_STR(ran.stdout_text.data, "b/big\n");
  swerex_command_response_clear(&ran);
  upload.source_path = "/nonexistent";
  CHECK(!swerex_upload(runtime, &upload, NULL, &err) && err.code == SWEREX_E_FILE_NOT_FOUND);
  upload.source_path = "/dev/null";
  CHECK(!swerex_upload(runtime, &upload, NULL, &err) && err.code == SWEREX_E_VALUE);
  command.command = "rm -rf $UP";
  CHECK(swerex_execute(runtime, &command, NULL, &err));
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  stop_server(&s);
}

static void count_tries(void *user_data, const swerex_log_record *record) {
  if (strstr(record->message, "trying again") != NULL) ++*(int *)user_data;
}

/** What cannot be read stops an upload with a clear word, also by a connection in use again. */
TEST(uploads_that_end_early) {
  swerex_error err = SWEREX_ERROR_INIT;
  char folder[64], path[100], target[100];
  snprintf(folder, sizeof folder, "/tmp/swerex-odd-%ld", (long)getpid());
  snprintf(path, sizeof path, "%s/pipe", folder);
  snprintf(target, sizeof target, "%s-to", folder);
  CHECK(mkdir(folder, 0755) == 0 && mkfifo(path, 0600) == 0);
  server s = start_server(NULL);
  int tries = 0;
  swerex_loop_options options;
  memset(&options, 0, sizeof options);
  options.logger.level = SWEREX_LOG_INFO;
  options.logger.write = count_tries;
  options.logger.user_data = &tries;
  swerex_loop *loop = swerex_loop_new(&options, &err);
  swerex_remote_config config;
  swerex_upload_request upload = {folder, target};
  swerex_is_alive_response alive;
  memset(&config, 0, sizeof config);
  memset(&alive, 0, sizeof alive);
  config.auth_token = "";
  config.port = s.port;
  config.timeout = 5;
  swerex_runtime *runtime = swerex_remote_runtime_new(loop, &config, &err);
  for (int i = 0; i < 3; i++) {
    CHECK(!swerex_upload(runtime, &upload, NULL, &err) && err.code == SWEREX_E_VALUE);
    CHECK(has(err.message, "pipe is neither a file nor a folder nor a link"));
    CHECK(swerex_is_alive(runtime, NULL, &alive, &err) && alive.is_alive);
    swerex_is_alive_response_clear(&alive);
  }
  CHECK_INT(tries, 0);
  CHECK(access(target, F_OK) != 0);
  unlink(path);
  rmdir(folder);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  stop_server(&s);
}

/** Start a server with a limit, which its programs have too. */
static server start_limited(int resource, rlim_t most) {
  struct rlimit before, limit;
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  getrlimit(resource, &before);
  limit = before;
  limit.rlim_cur = most;
  setrlimit(resource, &limit);
  server s = start_server(NULL);
  setrlimit(resource, &before);
  signal(SIGXFSZ, handler);
  return s;
}

TEST(a_server_whose_disk_is_full) {
  swerex_error err = SWEREX_ERROR_INIT;
  char folder[64], source[100], target[100], small[100];
  static char text[200000];
  memset(text, 'x', sizeof text);
  snprintf(folder, sizeof folder, "/tmp/swerex-full-%ld", (long)getpid());
  snprintf(source, sizeof source, "%s/large", folder);
  snprintf(target, sizeof target, "%s-to", folder);
  snprintf(small, sizeof small, "%s-small", folder);
  CHECK(mkdir(folder, 0755) == 0);
  FILE *file = fopen(source, "w");
  CHECK(fwrite(text, 1, sizeof text, file) == sizeof text && fclose(file) == 0);
  server s = start_limited(RLIMIT_FSIZE, 100000);
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_runtime *runtime = connect_to(loop, &s, "", &err);
  swerex_upload_request upload = {source, target};
  swerex_write_file_request put = {{text, sizeof text}, small};
  CHECK(!swerex_upload(runtime, &upload, NULL, &err));
  CHECK(has(err.message, "[Errno 27] File too large"));
  upload.source_path = folder;
  CHECK(!swerex_upload(runtime, &upload, NULL, &err));
  CHECK(has(err.message, "[Errno 27] File too large"));
  CHECK(!swerex_write_file(runtime, &put, NULL, &err));
  CHECK(has(err.message, "[Errno 27] File too large"));
  put.content.size = 5;
  CHECK(swerex_write_file(runtime, &put, NULL, &err));
  upload.source_path = small; /* where no folder can be */
  upload.target_path = "/dev/null/x/y";
  CHECK(!swerex_upload(runtime, &upload, NULL, &err) && err.code == SWEREX_E_NOT_A_DIRECTORY);
  upload.target_path = "/proc/x"; /* only when it is brought to its place */
  CHECK(!swerex_upload(runtime, &upload, NULL, &err) && err.code != SWEREX_E_OK);
  upload.target_path = folder; /* takes the file under its own name */
  CHECK(swerex_upload(runtime, &upload, NULL, &err));
  snprintf(source, sizeof source, "%s%s", folder, strrchr(small, '/'));
  CHECK(access(source, F_OK) == 0);
  snprintf(text, sizeof text, "rm -rf %s %s %s", folder, target, small);
  CHECK(system(text) == 0);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  stop_server(&s);
}

/** A server that may open no more files serves those that it has, and others when some have gone. */
TEST(a_server_without_descriptors) {
  enum { COUNT = 40 };
  int fds[COUNT];
  server s = start_limited(RLIMIT_NOFILE, 30);
  for (int i = 0; i < COUNT; i++) fds[i] = dial(&s);
  say(fds[0], GET_ALIVE);
  CHECK(has(hear(fds[0], "true"), "200 OK"));
  for (int i = 0; i < COUNT - 1; i++) close(fds[i]);
  say(fds[COUNT - 1], GET_ALIVE);
  CHECK(has(hear(fds[COUNT - 1], "true"), "200 OK"));
  close(fds[COUNT - 1]);
  stop_server(&s);
}

/* --- servers that are none --- */

typedef struct fake {
  pid_t pid;
  int port;
} fake;

/** Answer each connection some time after its request has come; delay < 0: but for the first. */
static fake start_fake(const char *answer, size_t size, double delay) {
  struct sockaddr_in address;
  socklen_t length = sizeof address;
  fake f = {-1, 0};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 5) == 0);
  CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
  f.port = ntohs(address.sin_port);
  f.pid = fork();
  if (f.pid == 0 && delay < 0) accept(fd, NULL, NULL);
  if (delay < 0) delay = 0;
  while (f.pid == 0) {
    char request[65536];
    int client = accept(fd, NULL, NULL);
    ssize_t got = read(client, request, sizeof request);
    usleep((useconds_t)(delay * 1e6));
    if (got > 0) got = send(client, answer, size, MSG_NOSIGNAL); /* who asked may have gone */
    close(client);
  }
  close(fd);
  return f;
}

/** Have a server that gives this answer run a command, once. */
static bool run_at_fake(const char *answer, const swerex_command *command, swerex_error *err) {
  fake f = start_fake(answer, strlen(answer), 0);
  swerex_loop *loop = swerex_loop_new(NULL, err);
  swerex_remote_config config;
  memset(&config, 0, sizeof config);
  config.auth_token = "";
  config.num_retries = -1;
  config.request_timeout = 10;
  config.port = f.port;
  bool ok = swerex_execute(swerex_remote_runtime_new(loop, &config, err), command, NULL, err);
  swerex_loop_free(loop);
  kill(f.pid, SIGKILL);
  waitpid(f.pid, NULL, 0);
  return ok;
}

TEST(slow_and_lost_answers_are_waited_for) {
  static const char yes[] = "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{\"is_alive\":true,\"message\":\"\"}";
  static const struct {
    double delay, timeout;
  } rows[] = {{1.3, 1.9}, {1.3, SWEREX_FOREVER}, {-1, 60}}; /* the last one is asked again soon */
  enum { ROWS = sizeof rows / sizeof *rows };
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_remote_config config;
  fake fakes[ROWS];
  swerex_future *waits[ROWS];
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  memset(&config, 0, sizeof config);
  config.auth_token = "";
  for (int i = 0; i < ROWS; i++) {
    fakes[i] = start_fake(yes, sizeof yes - 1, rows[i].delay);
    config.port = fakes[i].port;
    config.timeout = rows[i].timeout;
    waits[i] = swerex_wait_until_alive_async(swerex_remote_runtime_new(loop, &config, &err), 20, &err);
  }
  for (int i = 0; i < ROWS; i++) {
    CHECK(swerex_future_take(waits[i], NULL, &err));
    kill(fakes[i].pid, SIGKILL);
    waitpid(fakes[i].pid, NULL, 0);
  }
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(answers_that_are_none) {
  static const struct {
    const char *answer, *said;
    int status;
  } rows[] = {
    {"", "the connection closed without an answer from 127.0.0.1:", 0},
    {"nonsense\r\n\r\n", " from 127.0.0.1:", 0},
    {"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", "the connection closed in the middle of the answer", 0},
    {"HTTP/1.1 200 OK\r\n\r\n[]", "cannot be read", 0},
    {"HTTP/1.1 200 OK\r\n\r\nno json", "cannot be read", 0},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n{\"detail\":\"Not Found\"}",
     "Message: Not Found", 404},
    {"HTTP/1.1 422 No\r\n\r\n{\"detail\":[{\"msg\":\"odd\"}]}", "Message: [{\"msg\":\"odd\"}]", 422},
    {"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>\tsorry", "Message: <html> sorry", 502},
    {"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n", "Message: none", 500},
    {"HTTP/1.1 511 X\r\n\r\n{\"swerexception\":3}", "", 511}};
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = "true";
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    CHECK(!run_at_fake(rows[i].answer, &command, &err));
    CHECK(has(err.message, rows[i].said) && err.code != SWEREX_E_TIMEOUT);
    CHECK_INT(err.http_status, rows[i].status);
  }
  swerex_error_clear(&err);
}

/** A server that does not stream gives the output at the end; a stream may end too early. */
TEST(output_without_a_stream) {
  static const struct {
    const char *answer, *told, *said;
  } rows[] = {
    {"HTTP/1.1 200 OK\r\n\r\n{\"stdout\":\"a\",\"stderr\":\"b\",\"exit_code\":0}", "a!b", NULL},
    {"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{\"stdout\":\"a\"}\n", "a",
     "ended without an answer"},
    {"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{\"stdout\":\n", "", "cannot be read"}};
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_command command;
  heard seen;
  memset(&command, 0, sizeof command);
  command.command = "true";
  command.watch.on_output = collect;
  command.watch.user_data = &seen;
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    memset(&seen, 0, sizeof seen);
    bool ok = run_at_fake(rows[i].answer, &command, &err);
    CHECK(ok == (rows[i].said == NULL) && (ok || has(err.message, rows[i].said)));
    CHECK_STR(seen.data, rows[i].told);
  }
  swerex_error_clear(&err);
}

static swerex_future *doomed;

static void cancel_it(void *user_data, swerex_stream stream, const char *text, size_t size) {
  (void)stream, (void)text, (void)size;
  ++*(int *)user_data;
  swerex_future_cancel(doomed);
}

static void free_it(void *user_data, swerex_stream stream, const char *text, size_t size) {
  (void)stream, (void)text, (void)size;
  ++*(int *)user_data;
  swerex_future_free(doomed);
  doomed = NULL;
}

TEST(a_watch_may_end_its_call) {
  static const char *const answers[] = {
    "HTTP/1.1 200 OK\r\n\r\n{\"stdout\":\"a\",\"stderr\":\"b\",\"exit_code\":0}",
    "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n"
    "{\"stdout\":\"a\",\"stderr\":\"b\"}\n{\"stdout\":\"c\"}\n"};
  for (int i = 0; i < 4; i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    swerex_command command;
    swerex_remote_config config;
    int calls = 0;
    fake f = start_fake(answers[i / 2], strlen(answers[i / 2]), 0);
    swerex_loop *loop = swerex_loop_new(NULL, &err);
    memset(&command, 0, sizeof command);
    memset(&config, 0, sizeof config);
    config.auth_token = "";
    config.port = f.port;
    command.command = "true";
    command.watch.on_output = i % 2 == 0 ? cancel_it : free_it;
    command.watch.user_data = &calls;
    doomed = swerex_execute_async(swerex_remote_runtime_new(loop, &config, &err), &command, &err);
    for (double end = seconds() + 5; calls == 0 && seconds() < end;) swerex_loop_run(loop, 0.1, &err);
    CHECK(swerex_loop_run(loop, 0, &err));
    CHECK_INT(calls, 1);
    if (i % 2 == 0) CHECK(!swerex_future_take(doomed, NULL, &err) && err.code == SWEREX_E_CANCELLED);
    swerex_error_clear(&err);
    swerex_loop_free(loop);
    kill(f.pid, SIGKILL);
    waitpid(f.pid, NULL, 0);
  }
}

TEST_MAIN()
