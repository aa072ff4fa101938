/* What is seldom said, and what takes too long to wait for: messages of the log and of errors, calls
 * that a runtime cannot do now, and the time limits of the server, whose clock is put forward. */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include <arpa/inet.h>

#include "test.h"

/* --- messages --- */

TEST(levels_are_numbers_or_names) {
  static const struct {
    const char *text;
    int level;
  } rows[] = {{NULL, SWEREX_LOG_WARNING},    {"", SWEREX_LOG_WARNING}, {"Info", SWEREX_LOG_INFO},
              {"CRITICAL", SWEREX_LOG_OFF},  {"0", SWEREX_LOG_DEBUG},  {"40", SWEREX_LOG_ERROR},
              {"999", SWEREX_LOG_OFF},        {"15", 15},               {"loud", SWEREX_LOG_WARNING},
              {"debugger", SWEREX_LOG_WARNING}};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(rows); i++)
    CHECK_INT(swerex__log_parse_level(rows[i].text, SWEREX_LOG_WARNING), rows[i].level);
}

/** Log one message to what stands for stderr, and return that. */
static const char *logged(const char *message) {
  static char text[4096];
  swerex_logger logger;
  memset(&logger, 0, sizeof logger);
  FILE *file = tmpfile();
  int before = dup(STDERR_FILENO);
  dup2(fileno(file), STDERR_FILENO);
  swerex__log(&logger, SWEREX_LOG_ERROR, "%s", message);
  dup2(before, STDERR_FILENO);
  close(before);
  rewind(file);
  text[fread(text, 1, sizeof text - 1, file)] = '\0';
  fclose(file);
  return text;
}

TEST(lines_on_stderr) {
  char large[3000], stamp[3];
  CHECK_STR(logged("hi"), SWEREX__LOG_EMOJI " ERROR    rex: hi\n");
  setenv("SWE_AGENT_LOG_TIME", "1", 1);
  const char *line = logged("hi");
  CHECK(sscanf(line, "[%*2d/%*2d/%*2d %*2d:%*2d:%*2d%2[]]", stamp) == 1);
  CHECK(strstr(line, "rex: hi\n") != NULL);
  unsetenv("SWE_AGENT_LOG_TIME");
  memset(large, 'x', sizeof large);
  large[sizeof large - 1] = '\0';
  line = logged(large);
  size_t size = strlen(line);
  CHECK(size < SWEREX__LOG_LINE + 100 && size > 4);
  CHECK_STR(line + size - 5, "x...\n");
}

TEST(a_logger_with_a_name_of_its_own) {
  swerex_loop_options options;
  memset(&options, 0, sizeof options);
  options.logger.name = "mine";
  options.logger.emoji = "*";
  swerex_loop *loop = swerex_loop_new(&options, NULL);
  CHECK_STR(loop->logger.name, "mine");
  CHECK_STR(loop->logger.emoji, "*");
  swerex_loop_free(loop);
}

TEST(system_errors_in_pythons_words) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__err_system(&err, ENOSPC, NULL);
  CHECK_STR(err.message, "[Errno 28] No space left on device");
  swerex__err_system(&err, ENOENT, "a\t\x01'\x7f");
  CHECK_STR(err.message, "[Errno 2] No such file or directory: \"a\\t\\x01'\\x7f\"");
  swerex__err_system(&err, 4095, "x");
  CHECK_STR(err.message, "[Errno 4095] Unknown error 4095: 'x'");
  swerex__err_system(&err, EDOM, "x"); /* none of those that are listed */
  CHECK_INT(err.code, SWEREX_E_OS);
  CHECK(strstr(err.message, "Unknown") == NULL);
  swerex_error_clear(&err);
}

#if defined(__linux__)
TEST(a_number_that_was_cut_off_is_nobodys) {
  pid_t list[4];
  CHECK_INT(swerex__keeper_add_pids("12 345 67", list, 0, 4), 2);
  CHECK(list[0] == 12 && list[1] == 345);
  CHECK_INT(swerex__keeper_add_pids("6 7 8 ", list, 2, 4), 4);
  CHECK(list[2] == 6 && list[3] == 7);
}
#endif

/* --- runtimes --- */

static void no_log(void *user_data, const swerex_log_record *record) {
  (void)user_data, (void)record;
}

static swerex_loop *quiet_loop(void) {
  swerex_loop_options options;
  memset(&options, 0, sizeof options);
  options.logger.write = no_log;
  setenv("HOME", "/nonexistent", 1);
  return swerex_loop_new(&options, NULL);
}

TEST(a_dummy_is_interrupted) {
  static const char *const outputs[] = {"^C\n", NULL};
  swerex_dummy_config config = {outputs};
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_bash_observation seen;
  memset(&seen, 0, sizeof seen);
  swerex_loop *loop = quiet_loop();
  swerex_runtime *runtime = swerex_dummy_runtime_new(loop, &config, &err);
  CHECK(swerex_interrupt_session(runtime, NULL, &seen, &err));
  CHECK_STR(seen.output.data, "^C\n");
  swerex_bash_observation_clear(&seen);
  CHECK(!swerex_interrupt_session(runtime, NULL, &seen, &err));
  CHECK_INT(err.code, SWEREX_E_DUMMY_OUTPUTS_EXHAUSTED);
  CHECK(!swerex_session_resize(runtime, NULL, 24, 80, &err));
  CHECK_STR(err.message, "a dummy runtime has no terminals");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(terminals_of_sessions) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_bash_action action;
  swerex_bash_observation seen;
  memset(&action, 0, sizeof action);
  memset(&seen, 0, sizeof seen);
  swerex_loop *loop = quiet_loop();
  swerex_runtime *runtime = swerex_local_runtime_new(loop, NULL, &err);
  CHECK(!swerex_session_resize(runtime, NULL, 24, 80, &err));
  CHECK_INT(err.code, SWEREX_E_SESSION_DOES_NOT_EXIST);
  CHECK(swerex_create_session(runtime, NULL, NULL, &err));
  CHECK(swerex_session_resize(runtime, NULL, 31, 77, &err));
  CHECK(!swerex_session_resize(runtime, NULL, 0, 80, &err) && err.code == SWEREX_E_VALUE);
  CHECK(!swerex_session_resize(runtime, NULL, 24, 65536, &err) && err.code == SWEREX_E_VALUE);
  action.command = "stty size";
  action.timeout = 20;
  CHECK(swerex_run_in_session(runtime, &action, &seen, &err));
  CHECK_STR(seen.output.data, "31 77\n");
  swerex_bash_observation_clear(&seen);
  action.command = "exit 3";
  action.check = SWEREX_CHECK_SILENT;
  swerex_run_in_session(runtime, &action, &seen, &err);
  swerex_bash_observation_clear(&seen);
  CHECK(!swerex_session_resize(runtime, NULL, 24, 80, &err));
  CHECK_INT(err.code, SWEREX_E_SESSION_TERMINATED);
  CHECK_STR(err.message, "session 'default' has ended");
  CHECK(!swerex_session_write(runtime, NULL, "x", 1, &err));
  CHECK_INT(err.code, SWEREX_E_SESSION_TERMINATED);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(a_runtime_that_closes_ends_what_runs) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_command command;
  swerex_future *running[3];
  memset(&command, 0, sizeof command);
  command.command = "sleep 60";
  command.shell = true;
  swerex_loop *loop = quiet_loop();
  swerex_runtime *runtime = swerex_local_runtime_new(loop, NULL, &err);
  for (int i = 0; i < 3; i++) running[i] = swerex_execute_async(runtime, &command, &err);
  CHECK(swerex_loop_run(loop, 0.02, &err));
  swerex_future *closing = swerex_close_async(runtime, NULL, &err);
  CHECK(!swerex_close(runtime, NULL, NULL, &err));
  CHECK_STR(err.message, "the runtime is being closed already");
  for (int i = 0; i < 3; i++) {
    CHECK(!swerex_future_take(running[i], NULL, &err));
    CHECK_INT(err.code, SWEREX_E_CANCELLED);
  }
  CHECK(swerex_future_take(closing, NULL, &err));
  running[0] = swerex_execute_async(runtime, &command, &err);
  closing = swerex_close_async(runtime, NULL, &err);
  swerex_future_free(running[0]);
  swerex_future_free(closing); /* nobody hears of it; it goes on */
  CHECK(swerex_loop_run(loop, 0.02, &err));
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(waits_that_are_given_up) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_remote_config config;
  memset(&config, 0, sizeof config);
  config.auth_token = "";
  config.host = "unix:/nonexistent/socket";
  swerex_loop *loop = quiet_loop();
  swerex_runtime *runtime = swerex_remote_runtime_new(loop, &config, &err);
  swerex_future *wait = swerex_wait_until_alive_async(runtime, 60, &err);
  CHECK(wait != NULL && swerex_loop_run(loop, 0.02, &err));
  swerex_future_cancel(wait);
  CHECK(!swerex_future_take(wait, NULL, &err) && err.code == SWEREX_E_CANCELLED);
  for (int turns = 0; turns < 2; turns++) { /* before the first question, and between two */
    runtime = swerex_remote_runtime_new(loop, &config, &err);
    wait = swerex_wait_until_alive_async(runtime, 60, &err);
    for (int i = 0; i < turns; i++) CHECK(swerex_loop_run(loop, 0, &err));
    swerex_runtime_free(runtime);
    CHECK(!swerex_future_take(wait, NULL, &err) && err.code == SWEREX_E_CANCELLED);
  }
  swerex_error_clear(&err);
  CHECK(!swerex_wait_until_alive(NULL, 0, &err));
  CHECK_STR(err.message, "wait_until_alive: runtime is NULL");
  runtime = swerex_remote_runtime_new(loop, &config, &err);
  CHECK(swerex_wait_until_alive_async(runtime, 60, &err) != NULL);
  swerex_error_clear(&err);
  swerex_loop_free(loop); /* with a wait under way */
}

TEST(hosts_that_cannot_be) {
  char path[300] = "unix:/tmp/";
  memset(path + strlen(path), 'x', 200);
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_remote_config config;
  swerex_server_options options;
  swerex_command command;
  memset(&config, 0, sizeof config);
  memset(&options, 0, sizeof options);
  memset(&command, 0, sizeof command);
  command.command = "true";
  config.auth_token = "";
  config.num_retries = -1;
  config.host = path;
  swerex_loop *loop = quiet_loop();
  swerex_runtime *runtime = swerex_remote_runtime_new(loop, &config, &err);
  CHECK(!swerex_execute(runtime, &command, NULL, &err) && err.sys_errno == ENAMETOOLONG);
  options.unix_path = path + 5;
  CHECK(swerex_server_new(loop, &options, &err) == NULL && err.sys_errno == ENAMETOOLONG);
  options.unix_path = "/nonexistent/socket";
  CHECK(swerex_server_new(loop, &options, &err) == NULL && err.sys_errno == ENOENT);
  options.unix_path = NULL;
  options.host = "192.0.2.1"; /* of nobody */
  options.auth_token = "t";
  CHECK(swerex_server_new(loop, &options, &err) == NULL && err.sys_errno == EADDRNOTAVAIL);
  config.auth_token = "a\nb";
  CHECK(swerex_remote_runtime_new(loop, &config, &err) == NULL);
  CHECK_STR(err.message, "auth_token has a control character");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

#ifdef __linux__
TEST(a_local_socket_without_a_file) {
  char name[64], host[80];
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_server_options options;
  memset(&options, 0, sizeof options);
  swerex_remote_config config;
  memset(&config, 0, sizeof config);
  snprintf(name, sizeof name, "@swerex-test-%ld", (long)getpid());
  options.unix_path = name;
  options.auth_token = "t";
  swerex_loop *loop = quiet_loop();
  swerex_server *server = swerex_server_new(loop, &options, &err);
  CHECK(server != NULL && access(name, F_OK) != 0);
  snprintf(host, sizeof host, "unix:%s", name);
  CHECK(swerex_server_new(loop, &options, &err) == NULL && err.sys_errno == EADDRINUSE);
  config.auth_token = "t";
  config.host = host;
  CHECK(swerex_wait_until_alive(swerex_remote_runtime_new(loop, &config, NULL), 5, NULL));
  swerex_server_free(server);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}
#endif

/* --- the server's clock --- */

typedef struct plain {
  swerex_loop *loop;
  swerex_server *server;
  int fd;
  char text[8192];
} plain;

static plain plain_open(void) {
  plain p;
  struct sockaddr_in address;
  memset(&p, 0, sizeof p);
  memset(&address, 0, sizeof address);
  p.loop = quiet_loop();
  p.server = swerex_server_new(p.loop, NULL, NULL);
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)atoi(strrchr(swerex_server_address(p.server), ':') + 1));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  p.fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(p.fd, (struct sockaddr *)&address, sizeof address) == 0);
  fcntl(p.fd, F_SETFL, O_NONBLOCK);
  return p;
}

static void plain_close(plain *p) {
  close(p->fd);
  swerex_loop_free(p->loop);
}

static void turn(plain *p) { CHECK(swerex_loop_run(p->loop, 0.02, NULL)); }

/** Run the server until the peer has read a text, or the end ("" for that), within 5 s. */
static bool reads(plain *p, const char *until) {
  size_t size = strlen(p->text);
  for (int i = 0; i < 250; i++) {
    ssize_t n = read(p->fd, p->text + size, sizeof p->text - 1 - size);
    if (n == 0) return until[0] == '\0';
    if (n > 0) size += (size_t)n;
    p->text[size] = '\0';
    if (until[0] != '\0' && strstr(p->text, until) != NULL) return true;
    turn(p);
  }
  printf("# [%s] has not come: [%s]\n", until, p->text);
  return false;
}

static void say(plain *p, const char *text) {
  CHECK(write(p->fd, text, strlen(text)) == (ssize_t)strlen(text));
  for (int i = 0; i < 5; i++) turn(p);
}

/** Let the time be over that the only connection has. */
static void late(plain *p) {
  for (int i = 0; i < 100 && swerex__loop_link_empty(&p->server->conns); i++) turn(p);
  swerex__srv_conn *conn = (swerex__srv_conn *)p->server->conns.next;
  CHECK(!swerex__loop_link_empty(&p->server->conns));
  conn->due = swerex__util_now() - 1;
  swerex__loop_arm(p->loop, &conn->timer, 0, conn->timer.fire, conn);
}

TEST(a_head_that_does_not_end) {
  plain p = plain_open();
  say(&p, "GET / HTTP/1.1\r\nHost");
  late(&p);
  CHECK(reads(&p, "the request took too long to arrive") && strstr(p.text, " 408 ") != NULL);
  plain_close(&p);
}

TEST(a_connection_that_says_nothing) {
  plain p = plain_open();
  late(&p);
  CHECK(reads(&p, ""));
  plain_close(&p);
}

TEST(a_command_that_prints_nothing_is_heard_of) {
  static const char body[] = "{\"command\":\"sleep 60\",\"shell\":true}";
  char request[400];
  plain p = plain_open();
  snprintf(request, sizeof request,
           "POST /execute HTTP/1.1\r\nHost: a\r\nx-on-disconnect: kill\r\n"
           "accept: application/x-ndjson\r\ncontent-length: %zu\r\n\r\n%s",
           sizeof body - 1, body);
  say(&p, request);
  CHECK(reads(&p, "200 OK"));
  late(&p);
  CHECK(reads(&p, "\r\n1\r\n\n\r\n"));
  plain_close(&p);
}

/** Pipelined requests before it do not take its signs of life. */
TEST(a_stream_behind_other_requests_is_watched) {
  static const char body[] = "{\"command\":\"sleep 60\",\"shell\":true}";
  static const char alive[] = "GET /is_alive HTTP/1.1\r\nHost: a\r\n\r\n"
                              "GET /is_alive HTTP/1.1\r\nHost: a\r\n\r\n";
  char request[400];
  plain p = plain_open();
  int n = snprintf(request, sizeof request,
                   "POST /execute HTTP/1.1\r\nHost: a\r\nx-on-disconnect: kill\r\n"
                   "accept: application/x-ndjson\r\ncontent-length: %zu\r\n\r\n%s",
                   sizeof body - 1, body);
  CHECK(write(p.fd, alive, sizeof alive - 1) == (ssize_t)sizeof alive - 1);
  CHECK(reads(&p, "}HTTP/1.1 200 OK"));
  CHECK(write(p.fd, request, (size_t)n) == n);
  CHECK(reads(&p, "ndjson"));
  turn(&p);
  CHECK(swerex__loop_armed(&((swerex__srv_conn *)p.server->conns.next)->timer));
  plain_close(&p);
}

TEST(a_peer_that_does_not_read) {
  plain p = plain_open();
  char path[64], request[400], body[128];
  snprintf(path, sizeof path, "/tmp/swerex-large-%ld", (long)getpid());
  FILE *file = fopen(path, "w");
  for (int i = 0; i < 1 << 18; i++) fputs("0123456789abcdef0123456789abcde\n", file);
  fclose(file);
  int n = snprintf(body, sizeof body, "{\"path\":\"%s\"}", path);
  snprintf(request, sizeof request,
           "POST /read_file HTTP/1.1\r\nHost: a\r\ncontent-length: %d\r\n\r\n%s", n, body);
  say(&p, request);
  swerex__srv_conn *conn = (swerex__srv_conn *)p.server->conns.next;
  for (int i = 0; i < 100 && swerex__sock_waiting(&conn->stream) == 0; i++) turn(&p);
  CHECK(swerex__sock_waiting(&conn->stream) > 0);
  conn->seen_unsent = 0;
  late(&p); /* some has gone since: it has time again */
  turn(&p);
  turn(&p);
  CHECK(!swerex__loop_link_empty(&p.server->conns) && conn->due > swerex__util_now());
  late(&p);
  for (int i = 0; i < 100 && !swerex__loop_link_empty(&p.server->conns); i++) turn(&p);
  CHECK(swerex__loop_link_empty(&p.server->conns));
  unlink(path);
  plain_close(&p);
}

TEST(bodies_that_are_not_taken) {
  plain p = plain_open();
  say(&p, "POST /execute HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\n\r\n");
  CHECK(reads(&p, "Field required") && strstr(p.text, " 422 ") != NULL);
  p.text[0] = '\0';
  p.server->options.max_body = 100;
  ((swerex__srv_conn *)p.server->conns.next)->body.max = 100;
  say(&p, "POST /execute HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n80\r\n");
  for (int i = 0; i < 8; i++) say(&p, "xxxxxxxxxxxxxxxx");
  CHECK(reads(&p, "the body is larger than the server's limit") && strstr(p.text, " 413 ") != NULL);
  plain_close(&p);
}

TEST(forms_with_odd_fields) {
  static const struct {
    const char *name, *value;
    size_t size;
    const char *said;
  } rows[] = {{"target_path", "a\0b", 3, "target_path: embedded null byte"},
              {"unzip", "perhaps", 7, "bool_parsing"}};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(rows); i++) {
    char form[600], head[300];
    plain p = plain_open();
    int n = snprintf(form, sizeof form,
                     "--b\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n", rows[i].name);
    memcpy(form + n, rows[i].value, rows[i].size);
    size_t size = (size_t)n + rows[i].size;
    size += (size_t)snprintf(form + size, sizeof form - size,
                             "\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; "
                             "filename=\"f\"\r\n\r\nx\r\n--b\r\nContent-Disposition: form-data; "
                             "name=\"%s\"\r\n\r\n%s\r\n--b--\r\n",
                             i == 0 ? "unzip" : "target_path", i == 0 ? "false" : "/tmp/x/y");
    snprintf(head, sizeof head,
             "POST /upload HTTP/1.1\r\nHost: a\r\ncontent-type: multipart/form-data; boundary=b\r\n"
             "content-length: %zu\r\n\r\n", size);
    say(&p, head);
    CHECK(write(p.fd, form, size) == (ssize_t)size);
    CHECK(reads(&p, rows[i].said));
    plain_close(&p);
  }
}

TEST(forms_that_are_refused) {
  static const char file[] = "\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; "
                             "filename=\"f\"\r\n\r\nx";
  static const char *const said[] = {"the form has more than one file", "a field is too long"};
  for (int i = 0; i < 2; i++) {
    static char form[SWEREX__FORM_FIELD_MAX + 1000];
    char head[300];
    plain p = plain_open();
    size_t size = (size_t)snprintf(form, sizeof form, "--b\r\nContent-Disposition: form-data; "
                                                      "name=\"target_path\"\r\n\r\n/tmp/x");
    if (i == 1) memset(form + size, 'y', SWEREX__FORM_FIELD_MAX);
    if (i == 1) size += SWEREX__FORM_FIELD_MAX;
    size += (size_t)snprintf(form + size, sizeof form - size, "%s%s\r\n--b--\r\n", file, file);
    snprintf(head, sizeof head,
             "POST /upload HTTP/1.1\r\nHost: a\r\ncontent-type: multipart/form-data; boundary=b\r\n"
             "content-length: %zu\r\n\r\n", size);
    say(&p, head);
    CHECK(write(p.fd, form, size) == (ssize_t)size);
    CHECK(reads(&p, said[i]) && strstr(p.text, " 400 ") != NULL);
    plain_close(&p);
  }
}

TEST_MAIN()
