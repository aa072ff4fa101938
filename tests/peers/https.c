/* Scenarios for https by libcurl; https.py builds it, starts the servers and runs each one. */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      printf("line %d: %s\n", __LINE__, #condition);                                               \
      if (err.message != NULL) printf("  error: %s\n", err.message);                               \
      fflush(stdout);                                                                              \
      _Exit(1);                                                                                    \
    }                                                                                              \
  } while (0)

static swerex_error err = SWEREX_ERROR_INIT;
static swerex_loop *loop;

static swerex_runtime *runtime_at(const char *host, double connect, double call, int retries) {
  swerex_remote_config config;
  memset(&config, 0, sizeof config);
  config.auth_token = "T";
  config.host = host;
  config.timeout = 10;
  config.connect_timeout = connect;
  config.request_timeout = call;
  config.num_retries = retries;
  swerex_runtime *runtime = swerex_remote_runtime_new(loop, &config, &err);
  CHECK(runtime != NULL);
  return runtime;
}

static swerex_future *execute_async(swerex_runtime *runtime, const char *text,
                                    swerex_output_watch watch) {
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = text;
  command.shell = true;
  command.watch = watch;
  return swerex_execute_async(runtime, &command, &err);
}

static const swerex_output_watch no_watch;

static bool execute(swerex_runtime *runtime, const char *text, swerex_command_response *response) {
  return swerex_future_take(execute_async(runtime, text, no_watch), response, &err);
}

/* --- the runtime -------------------------------------------------------------------------- */

typedef struct heard {
  swerex__str text;
  int pieces;
  double first, last;
} heard;

static void hear(void *user_data, swerex_stream stream, const char *text, size_t size) {
  heard *h = (heard *)user_data;
  (void)stream;
  if (h->pieces++ == 0) h->first = swerex__util_now();
  h->last = swerex__util_now();
  swerex__str_add(&h->text, text, size);
}

static void basics(const char *host) {
  swerex_runtime *runtime = runtime_at(host, 0, 0, -1);
  swerex_command_response response = {0};
  swerex_create_bash_session_request session = {0};
  swerex_bash_observation seen = {0};
  swerex_is_alive_response alive = {0};
  CHECK(swerex_is_alive(runtime, NULL, &alive, &err) && alive.is_alive);
  swerex_is_alive_response_clear(&alive);
  CHECK(execute(runtime, "echo hello; echo wrong >&2; exit 3", &response));
  CHECK(strcmp(response.stdout_text.data, "hello\n") == 0 && response.exit_code == 3);
  swerex_command_response_clear(&response);
  CHECK(swerex_create_session(runtime, &session, NULL, &err));
  swerex_bash_action action = {0};
  action.command = "x=7; cd /";
  CHECK(swerex_run_in_session(runtime, &action, &seen, &err));
  swerex_bash_observation_clear(&seen);
  action.command = "echo $x; pwd";
  CHECK(swerex_run_in_session(runtime, &action, &seen, &err));
  CHECK(strcmp(seen.output.data, "7\r\n/\r\n") == 0 || strcmp(seen.output.data, "7\n/\n") == 0);
  swerex_bash_observation_clear(&seen);
  action.command = "false";
  CHECK(!swerex_run_in_session(runtime, &action, &seen, &err));
  CHECK(err.code == SWEREX_E_NON_ZERO_EXIT_CODE);
  swerex_error_clear(&err);
  /* live */
  heard live = {{NULL, NULL, 0, 0, 0, false}, 0, 0, 0};
  live.text = swerex__str_new(NULL, 65536);
  swerex_output_watch watch = {hear, &live, false};
  action.command = "for i in 1 2 3 4; do echo $i; sleep 0.2; done";
  action.watch = watch;
  CHECK(swerex_run_in_session(runtime, &action, &seen, &err));
  CHECK(live.pieces >= 3 && live.last - live.first > 0.4);
  CHECK(strstr(live.text.data, "1\n2\n3\n4\n") != NULL);
  swerex_bash_observation_clear(&seen);
  live.text.size = 0;
  live.pieces = 0;
  CHECK(swerex_future_take(execute_async(runtime, "echo a; sleep 0.3; echo b", watch), &response,
                           &err));
  CHECK(live.pieces >= 2 && live.last - live.first > 0.2 && strcmp(live.text.data, "a\nb\n") == 0);
  swerex_command_response_clear(&response);
  swerex__str_clear(&live.text);
  swerex_close_bash_session_request close = {0};
  CHECK(swerex_close_session(runtime, &close, NULL, &err));
}

static void fill(const char *path, size_t size) {
  FILE *file = fopen(path, "w");
  CHECK(file != NULL);
  for (size_t i = 0; i < size; i++) fputc((int)((i * 2654435761U >> 13) & 255U), file);
  fclose(file);
}

static void upload(const char *host) {
  swerex_runtime *runtime = runtime_at(host, 0, 0, -1);
  swerex_command_response response = {0};
  char from[128], to[128], text[512];
  snprintf(from, sizeof from, "/tmp/swerex-https.up.%d", (int)getpid());
  snprintf(to, sizeof to, "/tmp/swerex-https.down.%d", (int)getpid());
  swerex_upload_request request = {from, to};
  static const size_t sizes[] = {5 * 1024 * 1024, 0, 1, 65536, 262144};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    fill(from, sizes[i]);
    CHECK(swerex_upload(runtime, &request, NULL, &err));
    snprintf(text, sizeof text, "cmp %s %s && stat -c %%s %s", from, to, to);
    CHECK(execute(runtime, text, &response) && response.exit_code == 0);
    CHECK((size_t)atol(response.stdout_text.data) == sizes[i]);
    swerex_command_response_clear(&response);
    unlink(to);
  }
  /* a folder: length unknown, in chunks */
  snprintf(text, sizeof text, "rm -f %s; mkdir -p %s/d; seq 300000 >%s/d/x; echo y >%s/z", from, from,
           from, from);
  CHECK(system(text) == 0);
  CHECK(swerex_upload(runtime, &request, NULL, &err));
  snprintf(text, sizeof text, "diff -r %s %s && rm -rf %s %s", from, to, from, to);
  CHECK(execute(runtime, text, &response) && response.exit_code == 0);
  swerex_command_response_clear(&response);
  /* a large body from memory, and a large answer */
  char *big = (char *)malloc(8000000);
  memset(big, 'q', 8000000);
  swerex_write_file_request write = {{big, 8000000}, to};
  CHECK(swerex_write_file(runtime, &write, NULL, &err));
  swerex_read_file_request read = {to, NULL, NULL};
  swerex_read_file_response content = {0};
  CHECK(swerex_read_file(runtime, &read, &content, &err));
  CHECK(content.content.size == 8000000 && memcmp(content.content.data, big, 8000000) == 0);
  swerex_read_file_response_clear(&content);
  free(big);
  unlink(to);
}

static void many(const char *host) {
  swerex_runtime *runtime = runtime_at(host, 0, 0, -1);
  double start = swerex__util_now();
  for (int turn = 0; turn < 3; turn++) {
    int done = 0;
    swerex_future *all[50];
    for (int i = 0; i < 50; i++) {
      char text[64];
      snprintf(text, sizeof text, "sleep 0.3; echo %d", i);
      all[i] = execute_async(runtime, text, no_watch);
      CHECK(all[i] != NULL);
    }
    for (int i = 0; i < 50; i++) {
      swerex_command_response response = {0};
      CHECK(swerex_future_take(all[i], &response, &err));
      done += atoi(response.stdout_text.data) == i;
      swerex_command_response_clear(&response);
    }
    CHECK(done == 50);
  }
  printf("3 x 50 calls of 0.3 s: %.2f s; ", swerex__util_now() - start);
  start = swerex__util_now();
  for (int i = 0; i < 200; i++) {
    swerex_command_response response = {0};
    CHECK(execute(runtime, "true", &response));
    swerex_command_response_clear(&response);
  }
  printf("200 in turn: %.2f s\n", swerex__util_now() - start);
}

/** Fail with a code, words in the message, and within so many seconds. */
static void refused(const char *host, double connect, double call, int retries, swerex_code code,
                    const char *words, double within) {
  swerex_runtime *runtime = runtime_at(host, connect, call, retries);
  double start = swerex__util_now();
  swerex_command_response response = {0};
  CHECK(!execute(runtime, "echo hello", &response));
  printf("%s: %s\n", swerex_code_name(err.code), err.message);
  CHECK(err.code == code);
  CHECK(strstr(err.message, words) != NULL);
  CHECK(swerex__util_now() - start < within);
  swerex_error_clear(&err);
}

static void cancel(const char *host) {
  swerex_runtime *runtime = runtime_at(host, 0, 0, -1);
  swerex_command_response response = {0};
  for (int i = 0; i < 30; i++) {
    swerex_future *future = execute_async(runtime, "sleep 20", no_watch);
    double until = swerex__util_now() + 0.004 * i;
    while (swerex__util_now() < until) CHECK(swerex_loop_run(loop, 0.001, &err));
    swerex_future_cancel(future);
    CHECK(swerex_future_done(future));
    CHECK(!swerex_future_take(future, &response, &err) && err.code == SWEREX_E_CANCELLED);
  }
  swerex_error_clear(&err);
  CHECK(execute(runtime, "echo still", &response));
  swerex_command_response_clear(&response);
  /* a body on its way */
  char path[128];
  snprintf(path, sizeof path, "/tmp/swerex-https.cancel.%d", (int)getpid());
  fill(path, 5 * 1024 * 1024);
  swerex_upload_request request = {path, "/tmp/swerex-https.never"};
  for (int i = 0; i < 10; i++) {
    swerex_future *future = swerex_upload_async(runtime, &request, &err);
    CHECK(future != NULL);
    for (int j = 0; j < i * 3; j++) CHECK(swerex_loop_run(loop, 0.002, &err));
    swerex_future_free(future);
  }
  unlink(path);
  CHECK(execute(runtime, "echo still", &response));
  swerex_command_response_clear(&response);
}

typedef struct killer {
  swerex_future *victims[8];
  swerex_runtime *runtime;
  swerex_future *started;
} killer;

static void kill_others(void *user_data, swerex_stream stream, const char *text, size_t size) {
  killer *k = (killer *)user_data;
  (void)stream;
  (void)text;
  (void)size;
  for (int i = 0; i < 8; i++) {
    swerex_future_free(k->victims[i]);
    k->victims[i] = NULL;
  }
  if (k->started == NULL) k->started = execute_async(k->runtime, "echo started", no_watch);
}

/** From inside a callback: cancel others, start one. */
static void inside(const char *host) {
  swerex_runtime *runtime = runtime_at(host, 0, 0, -1);
  swerex_command_response response = {0};
  killer k = {{NULL}, runtime, NULL};
  swerex_output_watch watch = {kill_others, &k, false};
  CHECK(execute(runtime, "true", &response));
  swerex_command_response_clear(&response);
  for (int i = 0; i < 8; i++)
    k.victims[i] = execute_async(runtime, i % 2 ? "seq 200000; sleep 9" : "sleep 9", no_watch);
  swerex_future *future = execute_async(runtime, "sleep 0.2; echo now; sleep 0.2; echo x", watch);
  CHECK(swerex_future_take(future, &response, &err));
  swerex_command_response_clear(&response);
  CHECK(k.started != NULL && swerex_future_take(k.started, &response, &err));
  CHECK(strcmp(response.stdout_text.data, "started\n") == 0);
  swerex_command_response_clear(&response);
}

/** Free the loop while calls are on their way, at many points. */
static void freed(const char *host) {
  char path[128];
  snprintf(path, sizeof path, "/tmp/swerex-https.freed.%d", (int)getpid());
  fill(path, 3000000);
  for (int i = 0; i < 12; i++) {
    heard live = {{NULL, NULL, 0, 0, 0, false}, 0, 0, 0};
    live.text = swerex__str_new(NULL, 1 << 26);
    swerex_output_watch watch = {hear, &live, false};
    swerex_runtime *runtime = runtime_at(host, 0, 0, -1);
    swerex_upload_request request = {path, "/tmp/swerex-https.never"};
    for (int j = 0; j < 6; j++)
      CHECK(execute_async(runtime, "seq 100000; sleep 5", j % 2 ? watch : no_watch) != NULL);
    CHECK(swerex_upload_async(runtime, &request, &err) != NULL);
    double until = swerex__util_now() + 0.01 * i;
    while (swerex__util_now() < until) CHECK(swerex_loop_run(loop, 0.001, &err));
    if (i % 2) swerex_runtime_free(runtime);
    swerex_loop_free(loop);
    loop = swerex_loop_new(NULL, &err);
    CHECK(loop != NULL);
    swerex__str_clear(&live.text);
  }
  unlink(path);
}

/** The server has closed the connections that we kept. */
static void idle(const char *host) {
  swerex_runtime *runtime = runtime_at(host, 0, 0, -1);
  swerex_command_response response = {0};
  for (int i = 0; i < 3; i++) {
    CHECK(execute(runtime, "echo hello", &response));
    swerex_command_response_clear(&response);
    double until = swerex__util_now() + 0.8; /* its limit is 0.4 */
    while (swerex__util_now() < until) CHECK(swerex_loop_run(loop, 0.1, &err));
  }
}

/* --- calls -------------------------------------------------------------------------------- */

typedef struct probe {
  swerex__web web;
  swerex__web_call call, other;
  swerex__str headers;
  int done, pieces, mode, done_when_gone;
  bool gone;
  swerex_error error;
  size_t sent, total;
} probe;

static void on_done(void *owner, swerex_error *error) {
  probe *p = (probe *)owner;
  p->done++;
  swerex__err_move(&p->error, error);
}

static void on_header(void *owner, const char *name, size_t name_size, const char *value,
                      size_t value_size) {
  probe *p = (probe *)owner;
  swerex__str_printf(&p->headers, "%.*s=%.*s;", (int)name_size, name, (int)value_size, value);
}

static bool on_data(void *owner, const char *data, size_t size, swerex_error *error) {
  probe *p = (probe *)owner;
  p->pieces++;
  if (p->mode == 0) {
    swerex__str_add(&p->call.answer, data, size);
    return true;
  }
  if (p->mode == 1) return swerex__err_set(error, SWEREX_E_VALUE, "given up");
  p->done_when_gone = p->done;
  p->gone = true; /* end both calls here, in libcurl's callback; with 3 the connections too */
  swerex__web_clear_call(&p->other);
  swerex__web_clear_call(&p->call);
  if (p->mode == 3) swerex__web_close(&p->web);
  return p->mode != 2;
}

static bool give(void *owner, char *out, size_t room, size_t *got, swerex_error *error) {
  probe *p = (probe *)owner;
  (void)error;
  *got = p->total - p->sent < room ? p->total - p->sent : room;
  memset(out, 'g', *got);
  p->sent += *got;
  return true;
}

static bool give_error(void *owner, char *out, size_t room, size_t *got, swerex_error *error) {
  (void)owner;
  (void)out;
  (void)room;
  (void)got;
  return swerex__err_set(error, SWEREX_E_PERMISSION, "no reading");
}

static void open_probe(probe *p, const char *host, const char *path) {
  memset(p, 0, sizeof *p);
  CHECK(swerex__web_open(&p->web, loop, host, 0, &err));
  swerex__web_init_call(&p->call, &p->web, p);
  swerex__web_init_call(&p->other, &p->web, p);
  p->headers = swerex__str_new(NULL, 65536);
  p->call.method = p->other.method = "POST";
  p->call.path = p->other.path = path;
  p->call.done = p->other.done = on_done;
  p->call.on_header = on_header;
  p->call.timeout = p->other.timeout = 10;
  p->call.connect_timeout = p->other.connect_timeout = 10;
  swerex__str_puts(&p->call.headers, "x-one: 1\r\nX-Two: a:b, c\r\n");
}

static void run_probe(probe *p, int done) {
  while (p->done < done && !p->gone) CHECK(swerex_loop_run(loop, 5, &err));
}

static void close_probe(probe *p) {
  if (!p->gone) {
    swerex__web_clear_call(&p->call);
    swerex__web_clear_call(&p->other);
  }
  if (p->mode != 3) swerex__web_close(&p->web);
  swerex__str_clear(&p->headers);
  swerex__err_clear(&p->error);
}

/** Requests as a server that repeats them sees them. */
static void requests(const char *host) {
  static const char *const paths[] = {"/base/echo", "/base/echo/../a//b"};
  probe p;
  for (int http2 = 0; http2 < 2; http2++)
    for (int i = 0; i < 6; i++) {
      open_probe(&p, host, paths[i == 5]);
      p.call.http2 = http2 != 0;
      p.call.on_data = i % 2 ? on_data : NULL;
      if (i == 0) p.call.method = "GET";
      if (i == 1) swerex__str_puts(&p.call.body, "some text");
      if (i == 2 || i == 3) {
        p.call.read = give;
        p.total = 300000;
        p.call.length = i == 2 ? SWEREX__WEB_UNKNOWN : p.total;
      }
      if (i == 4) p.call.method = "DELETE";
      CHECK(swerex__web_start(&p.call, &err));
      run_probe(&p, 1);
      swerex__str_add(&p.call.answer, "", 0);
      printf("%s%s", p.call.answer.data, i == 0 ? p.headers.data : "");
      if (i == 0) printf("\n");
      CHECK(p.error.code == SWEREX_E_OK && p.call.status == 200 && !p.call.ours && p.call.sent);
      CHECK(strcmp(p.call.type, "text/plain") == 0);
      close_probe(&p);
    }
}

static void trailers(const char *host) {
  probe p;
  for (int http2 = 0; http2 < 2; http2++) {
    open_probe(&p, host, "/trailers");
    p.call.http2 = http2 != 0;
    CHECK(swerex__web_start(&p.call, &err));
    run_probe(&p, 1);
    printf("%s\n", p.headers.data);
    CHECK(p.error.code == SWEREX_E_OK && strstr(p.headers.data, "grpc-status=0;") != NULL);
    CHECK(strcmp(p.call.answer.data, "hello") == 0);
    close_probe(&p);
  }
}

/** Give up, and end calls and web, inside a callback; readers that fail or lie. */
static void callbacks(const char *host) {
  static const swerex_code codes[] = {SWEREX_E_OK, SWEREX_E_VALUE};
  probe p;
  for (int http2 = 0; http2 < 2; http2++) {
    for (int mode = 0; mode < 5; mode++) {
      open_probe(&p, host, "/large");
      p.mode = mode;
      p.call.http2 = p.other.http2 = http2 != 0;
      p.call.on_data = on_data;
      CHECK(swerex__web_start(&p.call, &err) && swerex__web_start(&p.other, &err));
      run_probe(&p, 2);
      if (mode == 0) CHECK(p.call.answer.size == 3000000 && p.other.answer.size == 3000000);
      if (mode < 2) CHECK(p.error.code == codes[mode] || p.error.code == SWEREX_E_OK);
      if (mode >= 2) CHECK(p.gone && p.pieces == 1);
      CHECK(swerex_loop_run(loop, 0.05, &err));
      if (mode >= 2) CHECK(p.done == p.done_when_gone && p.pieces == 1);
      close_probe(&p);
    }
    for (int i = 0; i < 3; i++) {
      open_probe(&p, host, "/base/echo");
      p.call.read = i == 0 ? give_error : give;
      p.call.http2 = http2 != 0;
      p.call.length = 200000;
      p.total = i == 1 ? 199999 : 200001;
      CHECK(swerex__web_start(&p.call, &err));
      run_probe(&p, 1);
      CHECK(p.error.code == (i == 0 ? SWEREX_E_PERMISSION : SWEREX_E_OS));
      CHECK(strstr(p.error.message, i == 0 ? "no reading" : "changed its size") != NULL);
      close_probe(&p);
    }
  }
}

/** What servers do wrong. */
static void wrong(const char *host) {
  static const struct {
    const char *path;
    swerex_code code;
    int status;
  } rows[] = {{"/garbage", SWEREX_E_HTTP, 0},  {"/cut", SWEREX_E_HTTP, 200},
              {"/nothing", SWEREX_E_HTTP, 0},  {"/reset", SWEREX_E_HTTP, 0},
              {"/redirect", SWEREX_E_OK, 302}, {"/continue", SWEREX_E_OK, 200},
              {"/bare", SWEREX_E_OK, 200},     {"/early", SWEREX_E_OK, 413}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    probe p;
    open_probe(&p, host, rows[i].path);
    if (strcmp(rows[i].path, "/early") == 0) {
      p.call.read = give;
      p.call.length = p.total = 20000000;
    }
    CHECK(swerex__web_start(&p.call, &err));
    run_probe(&p, 1);
    printf("%s: %s %d %s\n", rows[i].path, swerex_code_name(p.error.code), p.call.status,
           p.error.code ? p.error.message : "");
    CHECK(p.error.code == rows[i].code && p.call.status == rows[i].status);
    CHECK(p.call.sent);
    close_probe(&p);
  }
}

/** A server that is not ours: one connection for each call, and none is left. */
static void foreign(const char *host) {
  probe p;
  open_probe(&p, host, "/count");
  for (int i = 0; i < 4; i++) {
    p.done = 0;
    CHECK(swerex__web_start(&p.call, &err));
    run_probe(&p, 1);
    CHECK(p.error.code == SWEREX_E_OK);
    printf("connections, open: %s\n", p.call.answer.data);
  }
  CHECK(strcmp(p.call.answer.data, "4 1") == 0);
  close_probe(&p);
}

/** A server of ours: one connection serves all calls in turn. */
static void ours(const char *host) {
  probe p;
  open_probe(&p, host, "/ours");
  for (int i = 0; i < 4; i++) {
    p.done = 0;
    CHECK(swerex__web_start(&p.call, &err));
    run_probe(&p, 1);
    CHECK(p.error.code == SWEREX_E_OK && p.call.ours);
  }
  printf("connections, open: %s\n", p.call.answer.data);
  CHECK(strcmp(p.call.answer.data, "1 1") == 0);
  /* and with HTTP/2 many at once */
  close_probe(&p);
}

/** HTTP/2: many calls at once on one connection. */
static void multiplex(const char *host) {
  probe p;
  swerex__web_call calls[30];
  open_probe(&p, host, "/large");
  p.web.reuse = true;
  for (int i = 0; i < 30; i++) {
    swerex__web_init_call(&calls[i], &p.web, &p);
    calls[i].method = "POST";
    calls[i].path = i % 3 == 0 ? "/large" : "/trailers";
    calls[i].done = on_done;
    calls[i].timeout = calls[i].connect_timeout = 20;
    calls[i].http2 = true;
    CHECK(swerex__web_start(&calls[i], &err));
  }
  run_probe(&p, 30);
  for (int i = 0; i < 30; i++) {
    CHECK(calls[i].status == 200 && calls[i].answer.size == (i % 3 == 0 ? 3000000 : 5));
    swerex__web_clear_call(&calls[i]);
  }
  p.done = 0;
  p.call.path = "/count";
  CHECK(swerex__web_start(&p.call, &err));
  run_probe(&p, 1);
  printf("connections, open: %s\n", p.call.answer.data);
  CHECK(strncmp(p.call.answer.data, "2 ", 2) == 0); /* one for HTTP/2, this one */
  close_probe(&p);
}

/** SIGPIPE is held back in libcurl, and only there. */
static void signals(const char *host) {
#if SWEREX_USE_CURL
  swerex__lib_guard guard, inner;
  sigset_t mask;
  swerex__lib_enter(&guard);
  pthread_kill(pthread_self(), SIGPIPE);
  swerex__lib_enter(&inner);
  pthread_kill(pthread_self(), SIGPIPE);
  swerex__lib_leave(&inner);
  swerex__lib_leave(&guard);
  pthread_sigmask(SIG_BLOCK, NULL, &mask);
  CHECK(sigismember(&mask, SIGPIPE) == 0);
#endif
  basics(host);
}

static void resolving(const char *host) {
  swerex_runtime *runtime = runtime_at(host, 0, 0, -1);
  for (int i = 0; i < 5; i++) {
    swerex_future *future = execute_async(runtime, "true", no_watch);
    double start = swerex__util_now();
    for (int j = 0; j < i; j++) CHECK(swerex_loop_run(loop, 0.001, &err));
    swerex_future_free(future);
    CHECK(swerex__util_now() - start < 0.3);
  }
  swerex_loop_free(loop);
  loop = swerex_loop_new(NULL, &err);
}

/** No descriptor is left for a connection. */
static void crowded(const char *host) {
  struct rlimit limit, before;
  probe p;
  open_probe(&p, host, "/count");
  CHECK(swerex__web_start(&p.call, &err));
  run_probe(&p, 1); /* however it ends, libcurl has what it needs for all calls */
  int next = dup(0);
  CHECK(next > 0 && close(next) == 0 && getrlimit(RLIMIT_NOFILE, &before) == 0);
  limit = before;
  limit.rlim_cur = (rlim_t)next;
  CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0 && swerex__web_start(&p.call, &err));
  run_probe(&p, 2);
  CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
  printf("%s: %s\n", swerex_code_name(p.error.code), p.error.message);
  CHECK(p.error.code == SWEREX_E_OS && strstr(p.error.message, "Too many open files") != NULL);
  close_probe(&p);
}

static int open_descriptors(void) {
  int count = 0;
  DIR *folder = opendir("/proc/self/fd");
  while (readdir(folder) != NULL) count++;
  closedir(folder);
  return count;
}

int main(int argc, char **argv) {
  const char *what = argc > 2 ? argv[1] : "", *host = argc > 2 ? argv[2] : "";
  static const struct {
    const char *name;
    void (*run)(const char *);
  } rows[] = {{"basics", basics},       {"upload", upload},     {"many", many},
              {"cancel", cancel},       {"inside", inside},     {"freed", freed},
              {"idle", idle},           {"requests", requests}, {"trailers", trailers},
              {"callbacks", callbacks}, {"wrong", wrong},       {"foreign", foreign},
              {"ours", ours},           {"resolving", resolving}, {"signals", signals},
              {"multiplex", multiplex}, {"crowded", crowded}};
  int before = open_descriptors();
  bool known = false;
  loop = swerex_loop_new(NULL, &err);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (strcmp(what, rows[i].name) == 0) {
      rows[i].run(host);
      known = true;
    }
  if (strcmp(what, "refused") == 0) { /* HOST CONNECT CALL RETRIES CODE WORDS WITHIN */
    swerex_code code = SWEREX_E_OK;
    for (int i = 0; i < SWEREX_E_COUNT_; i++)
      if (strcmp(swerex_code_name((swerex_code)i), argv[6]) == 0) code = (swerex_code)i;
    refused(host, atof(argv[3]), atof(argv[4]), atoi(argv[5]), code, argv[7], atof(argv[8]));
    known = true;
  }
  swerex_loop_free(loop);
  CHECK(known);
  for (int i = 0; i < 100 && open_descriptors() > before + 1; i++) /* libcurl's resolver ends late */
    nanosleep(&(struct timespec){0, 50000000}, NULL);
  CHECK(open_descriptors() <= before + 1); /* /dev/urandom may stay with TLS */
  swerex_error_clear(&err);
  return 0;
}
