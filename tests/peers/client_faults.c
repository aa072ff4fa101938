/*
 * The remote runtime against servers that misbehave.
 *
 *   client_faults PORT [--filter TEXT | --list]      PORT: where fake_servers.py listens
 *
 * Each behaviour of fake_servers.py is met by execute, which must succeed or fail with a clear
 * error within 3 s, in bounded memory, and leave nothing behind. What fake_servers.py cannot say
 * (streams, tracebacks) comes from a server of fixed bytes in here.
 */
#define SWEREX_MAX_FILE ((size_t)16 << 20) /* an answer without end stops here */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

#include <arpa/inet.h>

#define COUNT(rows) (sizeof(rows) / sizeof *(rows))
#define ANSWER_TIME 2.0 /* of request_timeout */
#define MEMORY ((size_t)300 << 20)
#define TRAP "/tmp/fake-servers-was-here"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static int fake_port;

/* --- a world, whose memory is counted --------------------------------------------------------- */

typedef struct world {
  swerex_loop *loop;
  swerex_runtime *runtime;
  swerex_error err;
  swerex_command_response ran;
  size_t live, peak; /* bytes */
} world;

typedef union block_size {
  size_t size;
  long double align;
} block_size;

static void *counted(void *user_data, void *block, size_t size) {
  world *w = (world *)user_data;
  block_size *header = block == NULL ? NULL : (block_size *)block - 1;
  size_t before = header == NULL ? 0 : header->size;
  if (size == 0) {
    w->live -= before;
    free(header);
    return NULL;
  }
  if (w->live - before + size > MEMORY) return NULL;
  header = (block_size *)realloc(header, sizeof *header + size);
  if (header == NULL) return NULL;
  header->size = size;
  w->live += size - before;
  if (w->live > w->peak) w->peak = w->live;
  return header + 1;
}

static void quiet(void *user_data, const swerex_log_record *record) {
  (void)user_data, (void)record;
}

/** Connect to a port, below a path, with some number of retries. */
static void world_open(world *w, int port, const char *path, int retries) {
  swerex_loop_options options;
  swerex_remote_config config;
  char host[200];
  memset(w, 0, sizeof *w);
  memset(&options, 0, sizeof options);
  memset(&config, 0, sizeof config);
  options.logger.write = quiet;
  options.allocator.reallocate = counted;
  options.allocator.user_data = w;
  snprintf(host, sizeof host, "http://127.0.0.1:%d/%s", port, path);
  config.auth_token = "token";
  config.host = host;
  config.request_timeout = ANSWER_TIME;
  config.num_retries = retries;
  w->loop = swerex_loop_new(&options, &w->err);
  w->runtime = w->loop == NULL ? NULL : swerex_remote_runtime_new(w->loop, &config, &w->err);
  if (w->runtime != NULL) return;
  printf("not ok: no runtime: %s\n", w->err.message);
  exit(2);
}

static void world_close(world *w) {
  swerex_command_response_clear(&w->ran);
  swerex_error_clear(&w->err);
  swerex_loop_free(w->loop);
  CHECK_INT(w->live, 0);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool has(const char *text, const char *part) {
  if (text != NULL && strstr(text, part) != NULL) return true;
  printf("# no [%s] in [%.600s]\n", part, text == NULL ? "(null)" : text);
  return false;
}

static void row_done(const char *name, int faults) {
  if (test_faults > faults) printf("#   in row: %s\n", name);
}

static bool execute(world *w) {
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = "true";
  swerex_command_response_clear(&w->ran);
  return swerex_execute(w->runtime, &command, &w->ran, &w->err);
}

static bool read_file(world *w, swerex_read_file_response *response) {
  swerex_read_file_request request = {"/x", NULL, NULL};
  memset(response, 0, sizeof *response);
  return swerex_read_file(w->runtime, &request, response, &w->err);
}

/* --- what each behaviour must give ------------------------------------------------------------ */

typedef enum verdict {
  GOOD,   /* it succeeds, with the answer of a server that works */
  EITHER, /* it may succeed, or fail with one of the codes */
  BAD     /* it fails with one of the codes */
} verdict;

typedef struct row {
  const char *name;
  verdict verdict;
  swerex_code code, other; /* other OK: none */
  int status;              /* of HTTP; 0: not looked at */
  const char *part;        /* of the message, NULL: any */
} row;

#define ACCEPTED(name) {name, GOOD, SWEREX_E_OK, SWEREX_E_OK, 0, NULL}
#define BROKEN(name) {name, BAD, SWEREX_E_HTTP, SWEREX_E_OK, 0, NULL}
#define OPEN(name) {name, EITHER, SWEREX_E_HTTP, SWEREX_E_OK, 0, NULL}
#define STATUS(name, number, text) {name, BAD, SWEREX_E_HTTP, SWEREX_E_OK, number, text}
#define LOST(name) {name, BAD, SWEREX_E_HTTP, SWEREX_E_OS, 0, NULL}
#define LATE(name) {name, BAD, SWEREX_E_TIMEOUT, SWEREX_E_OK, 0, "within 2 seconds"}
#define ENDLESS(name) {name, BAD, SWEREX_E_HTTP, SWEREX_E_TIMEOUT, 0, NULL}

static const row accepted_rows[] = {
  ACCEPTED("ok"), ACCEPTED("chunked"), ACCEPTED("chunk-extension"), ACCEPTED("no-length"),
  ACCEPTED("http-1-0"), ACCEPTED("interim"), ACCEPTED("no-reason"), ACCEPTED("odd-header-case"),
  ACCEPTED("charset"), ACCEPTED("unknown-fields"), ACCEPTED("extra-bytes"), ACCEPTED("slow"),
};

static const row broken_rows[] = {
  BROKEN("garbage"), LOST("close-at-once"), BROKEN("close-in-status"), BROKEN("close-in-headers"),
  BROKEN("close-in-body"), BROKEN("close-in-chunk"), BROKEN("close-in-chunk-size"),
  BROKEN("close-before-last-chunk"), BROKEN("bad-status"), BROKEN("bad-version"),
  BROKEN("bad-length"), BROKEN("negative-length"), BROKEN("huge-length"), BROKEN("two-lengths"),
  OPEN("length-and-chunks"), BROKEN("bad-chunk-size"), BROKEN("negative-chunk-size"),
  BROKEN("huge-chunk-size"), BROKEN("bad-chunk-end"), BROKEN("nul-in-header"), OPEN("no-colon"),
};

static const row content_rows[] = {
  BROKEN("empty-body"), STATUS("no-content", 204, NULL), OPEN("wrong-type"), OPEN("no-type"),
  BROKEN("bad-json"), BROKEN("cut-json"), BROKEN("trailing-json"), OPEN("bad-utf8"),
  OPEN("lone-surrogate"), BROKEN("deep-json"), BROKEN("json-list"), BROKEN("json-null"),
  BROKEN("wrong-types"), BROKEN("huge-number"), OPEN("no-fields"),
};

static const row status_rows[] = {
  STATUS("error-400", 400, "Message: bad"), STATUS("error-401", 401, "Message: Invalid API Key"),
  STATUS("error-403", 403, "Message: Not authenticated"), STATUS("error-404", 404, "Message: Not Found"),
  STATUS("error-422", 422, "Field required"), STATUS("error-500", 500, "Oops"),
  STATUS("error-502", 502, "bad gateway"), STATUS("error-503", 503, "503"),
  STATUS("redirect", 302, "302"), STATUS("redirect-away", 307, "307"),
  STATUS("redirect-nowhere", 301, "301"), BROKEN("status-999"),
  STATUS("no-such-behaviour", 404, "no such behaviour"),
};

static const row late_rows[] = {LATE("late"), LATE("never"), LATE("half-then-never"), LATE("drip")};

static const row endless_rows[] = {
  ENDLESS("endless-status"), ENDLESS("endless-headers"), ENDLESS("endless-header"),
  ENDLESS("endless-body"), ENDLESS("endless-chunks"), ENDLESS("endless-interim"),
  ENDLESS("endless-trailers"),
};

static const row lost_rows[] = {LOST("reset"), LOST("retry"), LOST("retry-3"), LOST("retry-close"),
                                STATUS("retry-503", 503, "503")};

/** The error tells what and where, in words: no control characters, valid in length. */
static void check_clear(const swerex_error *err) {
  CHECK(err->message != NULL && err->message[0] != '\0');
  for (const char *c = err->message; c != NULL && *c != '\0'; c++)
    if ((unsigned char)*c < 0x20 && *c != '\n') {
      printf("# byte %02x in [%.300s]\n", (unsigned char)*c, err->message);
      CHECK(!"the message has no control characters");
      break;
    }
  CHECK(has(err->message, "127.0.0.1:"));
  CHECK(strlen(err->message) < 4000);
}

static void check_failure(const row *r, const world *w) {
  const swerex_error *err = &w->err;
  if (err->code != r->code && (r->other == SWEREX_E_OK || err->code != r->other)) {
    printf("# %s: %.500s\n", swerex_code_name(err->code), err->message);
    CHECK(!"the code fits");
  }
  check_clear(err);
  if (r->status != 0) CHECK_INT(err->http_status, r->status);
  if (r->part != NULL) CHECK(has(err->message, r->part));
}

static void check_row(const row *r) {
  world w;
  int faults = test_faults;
  world_open(&w, fake_port, r->name, -1);
  double start = seconds();
  bool ok = execute(&w);
  CHECK(seconds() - start < ANSWER_TIME + 1);
  CHECK(w.peak < (size_t)100 << 20);
  if (r->verdict == GOOD || (r->verdict == EITHER && ok)) {
    if (!ok) printf("# %s: %.500s\n", swerex_code_name(w.err.code), w.err.message);
    CHECK(ok);
  } else {
    CHECK(!ok);
    if (!ok) check_failure(r, &w);
  }
  if (r->verdict == GOOD && ok) {
    CHECK_STR(w.ran.stdout_text.data, "hi\n");
    CHECK_INT(w.ran.stderr_text.size, 0);
    CHECK_INT(w.ran.exit_code, 0);
  }
  world_close(&w);
  row_done(r->name, faults);
}

#define CHECK_ROWS(rows)                                                                           \
  for (size_t i = 0; i < COUNT(rows); i++) check_row(&(rows)[i])

TEST(accepted) { CHECK_ROWS(accepted_rows); }
TEST(broken_http) { CHECK_ROWS(broken_rows); }
TEST(wrong_content) { CHECK_ROWS(content_rows); }
TEST(other_statuses) { CHECK_ROWS(status_rows); }
TEST(late_answers) { CHECK_ROWS(late_rows); }
TEST(endless_answers) { CHECK_ROWS(endless_rows); }
TEST(lost_connections) { CHECK_ROWS(lost_rows); }

/* --- exceptions of the other side ------------------------------------------------------------- */

static const struct {
  const char *name;
  swerex_code code;
  const char *message, *class_path, *extra_info; /* NULL: not looked at */
} raise_rows[] = {
  {"raise-value", SWEREX_E_VALUE, "a value", "builtins.ValueError", NULL},
  {"raise-timeout", SWEREX_E_COMMAND_TIMEOUT, "too long", "swerex.exceptions.CommandTimeoutError", NULL},
  {"raise-syntax", SWEREX_E_BASH_INCORRECT_SYNTAX, "bad bash",
   "swerex.exceptions.BashIncorrectSyntaxError", "{\"bash_stdout\":\"o\",\"bash_stderr\":\"e\"}"},
  {"raise-os-system", SWEREX_E_SWEREX, "touch " TRAP, "os.system", NULL},
  {"raise-popen", SWEREX_E_SWEREX, "touch " TRAP, "subprocess.Popen", NULL},
  {"raise-unknown", SWEREX_E_SWEREX, "boom", "no.such.module.Error", NULL},
  {"raise-no-module", SWEREX_E_SWEREX, "boom", "Error", NULL},
  {"raise-empty-class", SWEREX_E_SWEREX, "boom", NULL, NULL},
  {"raise-odd-class", SWEREX_E_SWEREX, "boom", NULL, NULL},
  {"raise-missing-fields", SWEREX_E_SWEREX, NULL, NULL, NULL},
  {"raise-wrong-types", SWEREX_E_SWEREX, NULL, NULL, NULL},
};

TEST(raised) {
  for (size_t i = 0; i < COUNT(raise_rows); i++) {
    world w;
    int faults = test_faults;
    world_open(&w, fake_port, raise_rows[i].name, 3);
    CHECK(!execute(&w));
    CHECK_STR(swerex_code_name(w.err.code), swerex_code_name(raise_rows[i].code));
    CHECK_INT(w.err.http_status, 511);
    CHECK(w.err.message != NULL && w.err.class_path != NULL);
    if (raise_rows[i].message != NULL) CHECK_STR(w.err.message, raise_rows[i].message);
    if (raise_rows[i].class_path != NULL) CHECK_STR(w.err.class_path, raise_rows[i].class_path);
    if (raise_rows[i].extra_info != NULL)
      CHECK_STR(w.err.extra_info, raise_rows[i].extra_info);
    else
      CHECK(w.err.extra_info == NULL);
    CHECK(w.err.traceback == NULL);
    world_close(&w);
    row_done(raise_rows[i].name, faults);
  }
  CHECK(access(TRAP, F_OK) != 0);
}

TEST(raised_in_a_wrong_form) {
  static const row rows[] = {STATUS("raise-html", 511, "<html>"), STATUS("raise-missing", 511, NULL),
                             STATUS("raise-null", 511, NULL), STATUS("raise-bad-json", 511, NULL)};
  CHECK_ROWS(rows);
}

TEST(raised_with_a_long_message) {
  world w;
  world_open(&w, fake_port, "raise-long", 3);
  CHECK(!execute(&w));
  CHECK_STR(swerex_code_name(w.err.code), "VALUE");
  CHECK(w.err.message != NULL && strspn(w.err.message, "x") >= 1000);
  world_close(&w);
}

TEST(raised_with_an_odd_class) {
  world w;
  world_open(&w, fake_port, "raise-odd-class", 3);
  CHECK(!execute(&w));
  CHECK(w.err.class_path != NULL && strncmp(w.err.class_path, "..a b\n", 6) == 0);
  world_close(&w);
}

/* --- the other verbs -------------------------------------------------------------------------- */

/** Call each verb; it must end, in time, and leave nothing. */
static void call_all(world *w) {
  swerex_bash_action action;
  swerex_write_file_request write;
  swerex_upload_request upload = {"/etc/passwd", "/x"};
  swerex_read_file_response content;
  memset(&action, 0, sizeof action);
  memset(&write, 0, sizeof write);
  action.command = "true";
  write.path = "/x";
  double start = seconds();
  swerex_create_session(w->runtime, NULL, NULL, &w->err);
  swerex_run_in_session(w->runtime, &action, NULL, &w->err);
  swerex_interrupt_session(w->runtime, NULL, NULL, &w->err);
  swerex_close_session(w->runtime, NULL, NULL, &w->err);
  read_file(w, &content);
  swerex_read_file_response_clear(&content);
  swerex_write_file(w->runtime, &write, NULL, &w->err);
  swerex_upload(w->runtime, &upload, NULL, &w->err);
  swerex_close(w->runtime, NULL, NULL, &w->err);
  CHECK(seconds() - start < 8 * ANSWER_TIME);
}

/** is_alive never fails; what it says depends on the server. */
static void ask_alive(world *w, bool expected) {
  swerex_is_alive_request request = {1};
  swerex_is_alive_response alive;
  memset(&alive, 0, sizeof alive);
  double start = seconds();
  CHECK(swerex_is_alive(w->runtime, &request, &alive, &w->err));
  CHECK(seconds() - start < 2);
  CHECK_INT(alive.is_alive, expected);
  CHECK(alive.is_alive || alive.message.size > 0);
  swerex_is_alive_response_clear(&alive);
}

static void all_verbs(const row *rows, size_t count) {
  for (size_t i = 0; i < count; i++) {
    world w;
    int faults = test_faults;
    world_open(&w, fake_port, rows[i].name, -1);
    call_all(&w);
    if (rows[i].verdict != EITHER) ask_alive(&w, rows[i].verdict == GOOD);
    world_close(&w);
    row_done(rows[i].name, faults);
  }
}

TEST(all_verbs_accepted) { all_verbs(accepted_rows, COUNT(accepted_rows)); }
TEST(all_verbs_broken_http) { all_verbs(broken_rows, COUNT(broken_rows)); }
TEST(all_verbs_wrong_content) { all_verbs(content_rows, COUNT(content_rows)); }
TEST(all_verbs_other_statuses) { all_verbs(status_rows, COUNT(status_rows)); }
TEST(is_alive_of_late_and_endless_servers) {
  for (size_t i = 0; i < COUNT(late_rows) + COUNT(endless_rows); i++) {
    const row *r = i < COUNT(late_rows) ? &late_rows[i] : &endless_rows[i - COUNT(late_rows)];
    world w;
    int faults = test_faults;
    world_open(&w, fake_port, r->name, 3);
    ask_alive(&w, false);
    CHECK(w.peak < (size_t)100 << 20);
    world_close(&w);
    row_done(r->name, faults);
  }
}

/* --- requests that are made again ------------------------------------------------------------- */

static int dial(int port) {
  struct sockaddr_in address;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

/** GET a page of fake_servers.py. */
static const char *get(const char *path) {
  static char text[1 << 20];
  size_t size = 0;
  ssize_t n;
  int fd = dial(fake_port);
  char line[100];
  int length = snprintf(line, sizeof line, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path);
  CHECK(fd >= 0 && send(fd, line, (size_t)length, MSG_NOSIGNAL) == length);
  while (size + 1 < sizeof text && (n = recv(fd, text + size, sizeof text - 1 - size, 0)) > 0)
    size += (size_t)n;
  close(fd);
  text[size] = '\0';
  return text;
}

typedef struct tally {
  int ids, requests;
} tally;

/** What a behaviour was asked so far. */
static tally count_of(const char *behaviour) {
  tally sum = {0, 0};
  char key[100];
  snprintf(key, sizeof key, "\"%s\": {", behaviour);
  const char *at = strstr(get("/count"), key), *end = at == NULL ? NULL : strchr(at, '}');
  for (at = at == NULL ? NULL : at + strlen(key); at != NULL && at < end; at++)
    if (at[0] == ':') {
      sum.ids++;
      sum.requests += atoi(at + 1);
    }
  return sum;
}

static const struct {
  const char *behaviour;
  bool reads; /* by read_file, which changes nothing; else by execute */
  int retries;
  bool ok;
  int requests;
} retry_rows[] = {
  {"ok", false, 3, true, 1},
  /* it may have arrived: not sent twice */
  {"reset", false, 3, false, 1},
  {"retry", false, 3, false, 1},
  {"retry-3", false, 3, false, 1},
  {"retry-close", false, 3, false, 1},
  {"close-at-once", false, 3, false, 1},
  {"close-in-headers", false, 3, false, 1},
  {"close-in-body", false, 3, false, 1},
  /* it changes nothing: sent again, under the same id */
  {"retry", true, 3, true, 2},
  {"retry-close", true, 3, true, 2},
  {"retry-3", true, 3, true, 4},
  {"retry-3", true, 2, false, 3},
  {"reset", true, 2, false, 3},
  {"reset", true, -1, false, 1},
  {"retry", true, -1, false, 1},
  /* an answer, or no time left: that is the end */
  {"retry-503", false, 3, false, 1},
  {"retry-503", true, 3, false, 1},
  {"raise-value", true, 3, false, 1},
  {"error-500", true, 3, false, 1},
  {"never", true, 3, false, 1},
};

TEST(requests_that_are_made_again) {
  for (size_t i = 0; i < COUNT(retry_rows); i++) {
    world w;
    swerex_read_file_response content;
    int faults = test_faults;
    memset(&content, 0, sizeof content);
    tally before = count_of(retry_rows[i].behaviour);
    world_open(&w, fake_port, retry_rows[i].behaviour, retry_rows[i].retries);
    CHECK_INT(retry_rows[i].reads ? read_file(&w, &content) : execute(&w), retry_rows[i].ok);
    swerex_read_file_response_clear(&content);
    world_close(&w);
    tally after = count_of(retry_rows[i].behaviour);
    CHECK_INT(after.requests - before.requests, retry_rows[i].requests);
    CHECK_INT(after.ids - before.ids, 1);
    row_done(retry_rows[i].behaviour, faults);
  }
}

TEST(is_alive_is_not_made_again) {
  world w;
  tally before = count_of("reset");
  world_open(&w, fake_port, "reset", 3);
  ask_alive(&w, false);
  world_close(&w);
  CHECK_INT(count_of("reset").requests - before.requests, 1);
}

TEST(every_behaviour_is_tested) {
  static const struct {
    const row *rows;
    size_t count;
  } groups[] = {{accepted_rows, COUNT(accepted_rows)}, {broken_rows, COUNT(broken_rows)},
                {content_rows, COUNT(content_rows)},   {status_rows, COUNT(status_rows)},
                {late_rows, COUNT(late_rows)},         {endless_rows, COUNT(endless_rows)},
                {lost_rows, COUNT(lost_rows)}};
  const char *list = strchr(get("/list"), '[');
  int unknown = 0;
  for (const char *at = list; at != NULL && (at = strchr(at, '"')) != NULL; at = strchr(at + 1, '"') + 1) {
    size_t size = strcspn(at + 1, "\"");
    bool known = strncmp(at + 1, "raise-", 6) == 0;
    for (size_t g = 0; g < COUNT(groups); g++)
      for (size_t i = 0; i < groups[g].count; i++)
        known = known || (strlen(groups[g].rows[i].name) == size &&
                          memcmp(groups[g].rows[i].name, at + 1, size) == 0);
    if (!known) printf("# no row for %.*s\n", (int)size, at + 1);
    unknown += !known;
  }
  CHECK(list != NULL);
  CHECK_INT(unknown, 0);
}

/* --- a server of fixed bytes ------------------------------------------------------------------ */

typedef struct fixed {
  pid_t pid;
  int port;
  int *connections; /* shared */
} fixed;

/** Read a request with a length, or without a body. */
static void take_request(int fd) {
  char text[65536], *head_end = NULL;
  size_t size = 0, want = 0;
  while (head_end == NULL || size < want) {
    ssize_t n = recv(fd, text + size, sizeof text - 1 - size, 0);
    if (n <= 0) return;
    size += (size_t)n;
    text[size] = '\0';
    head_end = strstr(text, "\r\n\r\n");
    const char *length = head_end == NULL ? NULL : strstr(text, "content-length: ");
    want = length == NULL ? 0 : (size_t)(head_end + 4 - text) + (size_t)atoi(length + 16);
  }
}

/** Answer connection i with answers[i], and later ones with the last; a connection each. */
static fixed fixed_start(const char *const *answers, double delay) {
  fixed f;
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
  CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
  if (delay <= 0) CHECK(listen(fd, 16) == 0);
  f.port = ntohs(address.sin_port);
  f.connections = (int *)mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  f.pid = fork();
  if (f.pid == 0) {
    signal(SIGALRM, SIG_DFL);
    alarm(30);
    usleep((useconds_t)(delay * 1e6));
    listen(fd, 16);
    for (;; answers += answers[1] != NULL) {
      int client = accept(fd, NULL, NULL);
      ++*f.connections;
      take_request(client);
      if (send(client, *answers, strlen(*answers), MSG_NOSIGNAL) < 0) _exit(1);
      shutdown(client, SHUT_WR);
      close(client);
    }
  }
  close(fd);
  return f;
}

static int fixed_stop(fixed *f) {
  int connections = *f->connections;
  kill(f->pid, SIGKILL);
  waitpid(f->pid, NULL, 0);
  munmap(f->connections, sizeof(int));
  return connections;
}

#define JSON_HEAD(status) "HTTP/1.1 " status "\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
#define OUR_HEAD(type)                                                                             \
  "HTTP/1.1 200 OK\r\nserver: swerex/0.1.0\r\ncontent-type: " type "\r\nconnection: close\r\n\r\n"
#define STREAM_HEAD OUR_HEAD("application/x-ndjson")
#define HI "{\"stdout\":\"hi\\n\",\"stderr\":\"\",\"exit_code\":0}"
#define HI_END "{\"status\":200,\"answer\":" HI "}\n"

TEST(class_path_and_traceback_are_kept) {
  static const char *const answers[] = {
    JSON_HEAD("511 X") "{\"swerexception\":{\"message\":\"m\",\"class_path\":\"my.own.Error\","
                       "\"traceback\":\"Traceback (most recent call last):\\n  é\\n\","
                       "\"extra_info\":{\"a\":[1,null,\"b\"]}}}", NULL};
  fixed f = fixed_start(answers, 0);
  world w;
  world_open(&w, f.port, "", 3);
  CHECK(!execute(&w));
  CHECK_STR(swerex_code_name(w.err.code), "SWEREX");
  CHECK_STR(w.err.class_path, "my.own.Error");
  CHECK_STR(w.err.message, "m");
  CHECK_STR(w.err.traceback, "Traceback (most recent call last):\n  é\n");
  CHECK_STR(w.err.extra_info, "{\"a\":[1,null,\"b\"]}");
  world_close(&w);
  CHECK_INT(fixed_stop(&f), 1);
}

TEST(refused_connections_are_tried_again) {
  static const char *const answers[] = {JSON_HEAD("200 OK") HI, NULL};
  fixed f = fixed_start(answers, 0.4);
  world w;
  world_open(&w, f.port, "", 3);
  double start = seconds();
  CHECK(execute(&w));
  CHECK(seconds() - start > 0.3 && seconds() - start < 2);
  CHECK_STR(w.ran.stdout_text.data, "hi\n");
  world_close(&w);
  CHECK_INT(fixed_stop(&f), 1);
}

TEST(refused_connections_are_not_tried_for_ever) {
  static const char *const answers[] = {"", NULL};
  fixed f = fixed_start(answers, 30);
  world w;
  world_open(&w, f.port, "", 2);
  double start = seconds();
  CHECK(!execute(&w));
  CHECK_STR(swerex_code_name(w.err.code), "OS");
  CHECK_INT(w.err.sys_errno, ECONNREFUSED);
  CHECK(seconds() - start > 0.25 && seconds() - start < 1);
  world_close(&w);
  fixed_stop(&f);
}

/** A server of ours knows ids: what it may have seen is sent again. */
TEST(server_of_ours_is_asked_again) {
  static const char *const answers[] = {OUR_HEAD("application/json") HI, "",
                                        OUR_HEAD("application/json") HI, NULL};
  fixed f = fixed_start(answers, 0);
  world w;
  world_open(&w, f.port, "", 3);
  CHECK(execute(&w)); /* now it is known to be ours */
  CHECK(execute(&w));
  world_close(&w);
  CHECK_INT(fixed_stop(&f), 3);
}

/* --- streams ---------------------------------------------------------------------------------- */

typedef struct heard {
  char text[100];
  size_t size, total;
} heard;

static void hear(void *user_data, swerex_stream stream, const char *text, size_t size) {
  heard *h = (heard *)user_data;
  (void)stream;
  h->total += size;
  if (h->size + size >= sizeof h->text) return;
  memcpy(h->text + h->size, text, size);
  h->size += size;
}

static bool watch(world *w, heard *h) {
  swerex_command command;
  memset(&command, 0, sizeof command);
  memset(h, 0, sizeof *h);
  command.command = "true";
  command.watch.on_output = hear;
  command.watch.user_data = h;
  return swerex_execute(w->runtime, &command, &w->ran, &w->err);
}

static const struct {
  const char *name, *stream;
  bool ok;
  const char *heard; /* NULL: not looked at */
} stream_rows[] = {
  {"well", "{\"stdout\":\"hi\\n\"}\n" HI_END, true, "hi\n"},
  {"signs of life", "\n\n{\"stdout\":\"hi\\n\"}\n\n" HI_END, true, "hi\n"},
  {"both streams", "{\"stdout\":\"a\"}\n{\"stderr\":\"b\"}\n" HI_END, true, "ab"},
  {"unknown lines", "{\"later\":1}\n[]\n{}\n" HI_END, true, ""},
  {"empty", "", false, ""},
  {"no end", "{\"stdout\":\"hi\\n\"}\n", false, "hi\n"},
  {"end without a line feed", "{\"stdout\":\"hi\\n\"}\n{\"status\":200,\"answer\":" HI "}", false, "hi\n"},
  {"bad JSON", "{\"stdout\":\"hi\\n\"}\n{oops\n" HI_END, false, "hi\n"},
  {"output of a wrong type", "{\"stdout\":5}\n{\"stderr\":null}\n{\"stdout\":[\"x\"]}\n" HI_END, true, ""},
  {"status of a wrong type", "{\"status\":\"200\",\"answer\":" HI "}\n", false, ""},
  {"status null", "{\"status\":null,\"answer\":" HI "}\n", false, ""},
  {"status of a list", "{\"status\":[],\"answer\":" HI "}\n", false, ""},
  {"status 0", "{\"status\":0,\"answer\":" HI "}\n", false, ""},
  {"status too large", "{\"status\":99999999999999999999,\"answer\":" HI "}\n", false, ""},
  {"no answer", "{\"status\":200}\n", false, ""},
  {"answer null", "{\"status\":200,\"answer\":null}\n", false, ""},
  {"answer of a wrong type", "{\"status\":200,\"answer\":\"x\"}\n", false, ""},
  {"exception", "{\"status\":511,\"answer\":{\"swerexception\":{\"message\":\"m\",\"class_path\":"
                "\"builtins.ValueError\",\"traceback\":\"\",\"extra_info\":{}}}}\n", false, ""},
  {"lost of a wrong type", "{\"lost\":true,\"at\":\"x\"}\n" HI_END, true, ""},
  {"lost, negative", "{\"lost\":true,\"at\":-5}\n" HI_END, true, ""},
};

TEST(streams) {
  for (size_t i = 0; i < COUNT(stream_rows); i++) {
    char text[2000];
    const char *const answers[] = {text, NULL};
    int faults = test_faults;
    heard h;
    world w;
    snprintf(text, sizeof text, "%s%s", STREAM_HEAD, stream_rows[i].stream);
    fixed f = fixed_start(answers, 0);
    world_open(&w, f.port, "", -1);
    bool ok = watch(&w, &h);
    CHECK_INT(ok, stream_rows[i].ok);
    if (!ok && w.err.code != SWEREX_E_VALUE) {
      CHECK_STR(swerex_code_name(w.err.code), "HTTP");
      check_clear(&w.err);
    }
    if (stream_rows[i].heard != NULL)
      test_mem(__FILE__, __LINE__, "heard", h.text, h.size, stream_rows[i].heard,
               strlen(stream_rows[i].heard));
    world_close(&w);
    fixed_stop(&f);
    row_done(stream_rows[i].name, faults);
  }
}

/** A stream that breaks is taken up where it ended. */
TEST(stream_is_taken_up) {
  static const char *const answers[] = {STREAM_HEAD "{\"stdout\":\"a\"}\n{\"stdo",
                                        STREAM_HEAD "{\"stdout\":\"b\"}\n" HI_END, NULL};
  fixed f = fixed_start(answers, 0);
  world w;
  heard h;
  world_open(&w, f.port, "", 3);
  bool ok = watch(&w, &h);
  if (!ok) printf("# %s\n", w.err.message);
  CHECK(ok);
  CHECK_INT(h.size, 2);
  CHECK(memcmp(h.text, "ab", 2) == 0);
  world_close(&w);
  CHECK_INT(fixed_stop(&f), 2);
}

/** What it is taken up with may be no stream: a server that was started anew, say. */
TEST(stream_is_refused_when_taken_up) {
  static const char *const answers[] = {
    STREAM_HEAD "{\"stdout\":\"a\"}\n{\"stdo",
    JSON_HEAD("401 Unauthorized") "{\"detail\":\"Invalid API Key\"}", NULL};
  fixed f = fixed_start(answers, 0);
  world w;
  heard h;
  world_open(&w, f.port, "", 3);
  CHECK(!watch(&w, &h));
  CHECK_INT(w.err.http_status, 401);
  CHECK(has(w.err.message, "Message: Invalid API Key"));
  world_close(&w);
  CHECK_INT(fixed_stop(&f), 2);
}

TEST(stream_without_end) {
  enum { PIECE = 4000000, TIMES = 8 };
  char *text = (char *)calloc(1, sizeof STREAM_HEAD + (size_t)PIECE * TIMES);
  const char *const answers[] = {text, NULL};
  world w;
  heard h;
  if (text == NULL) abort();
  strcpy(text, STREAM_HEAD); /* one line of 32 MB */
  memset(text + strlen(text), 'x', (size_t)PIECE * TIMES);
  fixed f = fixed_start(answers, 0);
  world_open(&w, f.port, "", -1);
  CHECK(!watch(&w, &h));
  CHECK_STR(swerex_code_name(w.err.code), "HTTP");
  CHECK(w.peak < (size_t)100 << 20);
  world_close(&w);
  fixed_stop(&f);
  free(text);
}

/* ---------------------------------------------------------------------------------------------- */

static void bound_memory(void) {
  struct rlimit limit = {MEMORY, MEMORY};
  if (!SANITIZED && setrlimit(RLIMIT_AS, &limit) != 0) puts("# no bound for the memory");
}

int main(int argc, char **argv) {
  fake_port = argc < 2 ? 0 : atoi(argv[1]);
  if (fake_port <= 0 || fake_port > 65535) {
    fputs("usage: client_faults PORT [--filter TEXT | --list]\n", stderr);
    return 2;
  }
  bound_memory();
  unlink(TRAP);
  int code = test_main(argc - 1, argv + 1);
  if (access(TRAP, F_OK) == 0) {
    puts("not ok: the message of an exception was run: " TRAP);
    code = 1;
  }
  return code;
}
