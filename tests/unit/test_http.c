/* The HTTP parser, multipart forms, addresses and sockets: what is read, and what is refused. */
#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE 1
#include <netdb.h>
#include <string.h>
#include <unistd.h>

/** A name whose lookup ends when we say so. */
#define SLOW_NAME "slow.test"

static int slow_gate[2];

static int slow_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                            struct addrinfo **list) {
  char c;
  if (strcmp(host, SLOW_NAME) != 0) return getaddrinfo(host, service, hints, list);
  if (hints->ai_flags != 0 || read(slow_gate[0], &c, 1) != 1) return EAI_NONAME;
  return getaddrinfo("127.0.0.1", service, hints, list);
}

#define getaddrinfo slow_getaddrinfo

#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

/** Read a message, `step` bytes at a time, into a line such as "200 [body] end". */
static void trace(bool response, const char *text, size_t size, size_t step, swerex__str *out) {
  swerex__http http;
  bool over = false;
  out->size = 0;
  swerex__http_init(&http, NULL, response);
  for (size_t at = 0; at < size && !over; at += step) {
    char *copy = swerex__mem_copy(NULL, text + at, size - at < step ? size - at : step);
    const char *data = copy;
    size_t left = size - at < step ? size - at : step;
    for (bool more = true; more;) {
      swerex__http_event event = swerex__http_read(&http, &data, &left);
      more = event != SWEREX__HTTP_MORE;
      if (event == SWEREX__HTTP_HEAD && response) swerex__str_printf(out, "%d ", http.status);
      if (event == SWEREX__HTTP_HEAD && !response)
        swerex__str_printf(out, "%.*s %s", (int)http.target.size, http.target.data, http.expects ? "expects " : "");
      if (event == SWEREX__HTTP_BODY) swerex__str_add(out, http.piece, http.piece_size);
      if (event == SWEREX__HTTP_END) {
        swerex__str_printf(out, " end%s ", http.keep_alive ? "" : " close");
        swerex__http_restart(&http);
      }
      if (event == SWEREX__HTTP_BROKEN) {
        swerex__str_printf(out, "broken %d", http.fault);
        more = false;
        over = true;
      }
    }
    swerex__mem_free(copy);
  }
  if (!over && !swerex__http_is_idle(&http))
    swerex__str_puts(out, swerex__http_close(&http) == SWEREX__HTTP_END ? " closed" : " cut");
  swerex__http_free(&http);
}

typedef struct row {
  const char *text, *expected;
} row;

static void check_rows(bool response, const row *rows, size_t count) {
  swerex__str out = swerex__str_new(NULL, 1 << 20);
  for (size_t i = 0; i < count; i++) {
    size_t size = strlen(rows[i].text);
    for (size_t step = 1; step <= size; step += step < 8 ? 1 : size) {
      trace(response, rows[i].text, size, step, &out);
      if (out.data == NULL || strcmp(out.data, rows[i].expected) != 0) {
        printf("# row %zu, step %zu\n", i, step);
        CHECK_STR(out.data, rows[i].expected);
        break;
      }
    }
  }
  swerex__str_clear(&out);
}

#define HOST "Host: a\r\n"
#define CHUNKED "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"

TEST(requests) {
  static const row rows[] = {
    {"GET /x HTTP/1.1\r\n" HOST "\r\n", "/x  end "},
    {"GET /x HTTP/1.0\r\n\r\n", "/x  end close "},
    {"GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "/x  end "},
    {"GET /x HTTP/1.1\r\n" HOST "Connection: a, close\r\n\r\n", "/x  end close "},
    {"GET /x HTTP/1.1\r\n" HOST "Connection: a\r\nConnection: close\r\n\r\n", "/x  end close "},
    {"\r\n\r\nGET /x HTTP/1.1\r\n" HOST "\r\n", "/x  end "},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello", "/ hello end "},
    {"POST / HTTP/1.1\r\n" HOST "content-length:0\r\n\r\n", "/  end "},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nabGET /y HTTP/1.1\r\n" HOST "\r\n", "/ ab end /y  end "},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\nT: x\r\n\r\n",
     "/ abc0123456789 end "},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "/  end "},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhel", "/ hel cut"},
    {"POST / HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx", "/ expects x end "},
    {"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", "/ x end close "},
    {"GET / HTTP/1.1\r\nHost", " cut"},
  };
  check_rows(false, rows, sizeof rows / sizeof *rows);
}

TEST(malformed_requests) {
  static const row rows[] = {
    {"GET / HTTP/1.1\r\n\r\n", "broken 400"},
    {"GET / HTTP/1.1\r\n" HOST HOST "\r\n", "broken 400"},
    {"GET / HTTP/2.0\r\n" HOST "\r\n", "broken 505"},
    {"GET / HTTP/1.1 x\r\n" HOST "\r\n", "broken 505"},
    {"GET /\r\n\r\n", "broken 400"},
    {"GET  / HTTP/1.1\r\n" HOST "\r\n", "broken 400"},
    {"G(T / HTTP/1.1\r\n" HOST "\r\n", "broken 400"},
    {"GET /\x01 HTTP/1.1\r\n" HOST "\r\n", "broken 400"},
    {"GET / HTTP/1.1\n" HOST "\r\n", "broken 400"},
    {"GET / HTTP/1.1\r\n" HOST "\n", "broken 400"},
    {"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "broken 400"},
    {"GET / HTTP/1.1\r\n" HOST "X: a\r\n folded\r\n\r\n", "broken 400"},
    {"GET / HTTP/1.1\r\n" HOST "X : a\r\n\r\n", "broken 400"},
    {"GET / HTTP/1.1\r\n" HOST "no colon\r\n\r\n", "broken 400"},
    {"GET / HTTP/1.1\r\n" HOST "X: a\x01z\r\n\r\n", "broken 400"},
    {"GET / HTTP/1.1\r\n" HOST ": a\r\n\r\n", "broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", "broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\nx", "broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\nx", "broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\nx", "broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999\r\n\r\nx", "broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\nx", "broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx", "broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\nx", "broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\nx", "broken 501"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\nx", "broken 501"},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\nx", "broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Expect: 200-ok\r\n\r\n", "broken 417"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nx\r\n", "/ broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n\r\n", "/ broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n-1\r\n", "/ broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0x1\r\n", "/ broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\nx", "/ broken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n", "/ xbroken 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", "/ broken 400"},
    {"\r\n\r\n\r\n\r\n\r\n\r\n", "broken 400"},
  };
  check_rows(false, rows, sizeof rows / sizeof *rows);
}

TEST(responses) {
  static const row rows[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 hi end "},
    {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200  end "},
    {"HTTP/1.1 200 OK\r\nExpect: x\r\nContent-Length: 2\r\n\r\nhi", "200 hi end "},
    {"HTTP/1.1 200 OK\r\n\r\nall of it", "200 all of it closed"},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 hi end close "},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", "100  end 204  end "},
    {"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", "304  end "},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "200 hi end "},
    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", "200 hi cut"},
    {"HTTP/1.1 999 OK\r\n\r\n", "broken 502"},
    {"HTTP/1.1 20 OK\r\n\r\n", "broken 502"},
    {"HTP/1.1 200 OK\r\n\r\n", "broken 502"},
    {"garbage\r\n\r\n", "broken 502"},
    {"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "broken 400"},
  };
  check_rows(true, rows, sizeof rows / sizeof *rows);
}

/** Read a message with a long part, which ends in an empty line; returns why it is refused, or 0. */
static int limit_of(const char *start, const char *part, int times) {
  swerex__str text = swerex__str_new(NULL, 1 << 24), out = swerex__str_new(NULL, 1 << 24);
  int fault = 0;
  swerex__str_puts(&text, start);
  for (int i = 0; i < times; i++) swerex__str_puts(&text, part);
  swerex__str_puts(&text, "\r\n");
  trace(false, text.data, text.size, text.size, &out);
  const char *broken = strstr(out.data, "broken ");
  if (broken == NULL || sscanf(broken, "broken %d", &fault) != 1) fault = 0;
  swerex__str_clear(&text);
  swerex__str_clear(&out);
  return fault;
}

TEST(limits) {
  CHECK_INT(limit_of("GET /", "x", 70000), 414);
  CHECK_INT(limit_of("GET / HTTP/1.1\r\nX: ", "x", 70000), 431);
  CHECK_INT(limit_of("GET / HTTP/1.1\r\n" HOST, "X: y\r\n", 99), 0);
  CHECK_INT(limit_of("GET / HTTP/1.1\r\n" HOST, "X: y\r\n", 100), 431);
  CHECK_INT(limit_of("GET / HTTP/1.1\r\n" HOST, "X: y\r\n", 20000), 431);
  CHECK_INT(limit_of(CHUNKED "1;", "x", 2000), 400);
  CHECK_INT(limit_of(CHUNKED "0\r\nX: ", "x", 2000), 431);
  CHECK_INT(limit_of(CHUNKED "0\r\n", "X: y\r\n", 20000), 431);
}

/* --- forms --- */

typedef struct form_log {
  swerex__str text;
  swerex__multi *multi;
} form_log;

static bool log_content(void *owner, const char *data, size_t size, bool last) {
  form_log *log = (form_log *)owner;
  if (size == 0 && !last && log->text.size == 0) swerex__str_puts(&log->text, "");
  swerex__str_add(&log->text, data, size);
  if (last) swerex__str_printf(&log->text, "<%s|%s>", log->multi->name, log->multi->file);
  return true;
}

static void check_form(const char *type, const char *text, size_t size, const char *expected) {
  for (size_t step = 1; step <= size; step += step < 8 ? 1 : size) {
    swerex__multi multi;
    form_log log = {swerex__str_new(NULL, 1 << 20), &multi};
    swerex__http_text header = {type, strlen(type)};
    swerex__multi_init(&multi, NULL, header);
    multi.content = log_content;
    multi.owner = &log;
    bool ok = multi.state != SWEREX__MULTI_FAILED;
    for (size_t at = 0; ok && at < size; at += step) {
      char *copy = swerex__mem_copy(NULL, text + at, size - at < step ? size - at : step);
      ok = swerex__multi_read(&multi, copy, size - at < step ? size - at : step);
      swerex__mem_free(copy);
    }
    swerex__str_puts(&log.text, !ok ? " broken" : swerex__multi_complete(&multi) ? " complete" : " cut");
    if (strcmp(log.text.data, expected) != 0) {
      printf("# step %zu\n", step);
      CHECK_STR(log.text.data, expected);
    }
    swerex__str_clear(&log.text);
    swerex__multi_free(&multi);
  }
}

#define FORM "multipart/form-data; boundary=AB"
#define PART(name, text) "--AB\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" text "\r\n"
#define FILE_PART(file, text) \
  "--AB\r\nContent-Type: x/y\r\ncontent-disposition: form-data; filename=\"" file "\"; name=f\r\n\r\n" text "\r\n"
#define CHECK_FORM(type, text, expected) check_form(type, text, sizeof(text) - 1, expected)

TEST(forms) {
  CHECK_FORM(FORM, PART("a", "1") PART("b", "") "--AB--\r\n", "1<a|><b|> complete");
  CHECK_FORM(FORM, FILE_PART("x.txt", "a\r\n--A\r\n--ABB") "--AB--", "a\r\n--A<f|x.txt> broken");
  CHECK_FORM(FORM, FILE_PART("x.txt", "a\r\r\n\r\n--A\r\n-") "--AB--", "a\r\r\n\r\n--A\r\n-<f|x.txt> complete");
  CHECK_FORM("Multipart/Form-Data; charset=x; boundary=\"A B\"", "--A B\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--A B--", "x<a|> complete");
  CHECK_FORM(FORM, "preamble\r\n" PART("a", "1") "--AB--epilogue", "1<a|> complete");
  CHECK_FORM(FORM, PART("a", "1"), "1 cut");
  CHECK_FORM(FORM, "--AB\r\nX: y\r\n\r\n1\r\n--AB--", " broken");
  CHECK_FORM(FORM, "--AB\r\nnonsense\r\n\r\n1\r\n--AB--", " broken");
  CHECK_FORM("multipart/form-data", PART("a", "1"), " broken");
  CHECK_FORM("text/plain", "x", " complete");
  CHECK_FORM(FORM, "--AB\r\nContent-Disposition: form-data; name=\"q\\\"\\\\\"\r\n\r\n1\r\n--AB--", "1<q\"\\|> complete");
}

TEST(forms_that_are_refused_say_why) {
  static const struct {
    const char *start, *more;
    int times; /* that `more` comes */
    const char *why;
  } rows[] = {
    {"--AB\r\nContent-Disposition: form-data; name=a\r\n\r\n", "x", SWEREX__FORM_FIELD_MAX + 1, "a field is too long"},
    {"--AB\r\nX: ", "x", SWEREX__MULTI_HEAD + 1, "a part's headers are too long"},
    {"", "--AB\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\n1\r\n", 3, "the form has more than one file"},
    {"", PART("a", "1"), SWEREX__MULTI_PARTS + 1, "the form has too many parts"},
    {"--AB\r\nX\r\n\r\n", "", 0, "a part's header is malformed"},
    {"--AB\r\nContent-Disposition: form-data\r\n\r\n", "", 0, "a part has no name that can be read"},
    {"--AB", " ", SWEREX__MULTI_PADDING + 1, "a boundary does not end its line"},
    {"--ABC\r\n", "", 0, "a boundary does not end its line"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    swerex__http_text type = {FORM, sizeof FORM - 1};
    swerex__form *form = swerex__form_new(NULL, type);
    bool ok = swerex__multi_read(&form->multi, rows[i].start, strlen(rows[i].start));
    for (int k = 0; ok && k < rows[i].times; k++)
      ok = swerex__multi_read(&form->multi, rows[i].more, strlen(rows[i].more));
    CHECK(!ok);
    CHECK_STR(form->multi.why, rows[i].why);
    swerex__form_free(form);
  }
}

/* --- addresses --- */

TEST(addresses) {
  static const struct {
    const char *text;
    int port;
    const char *host;
    int wanted;
    const char *prefix;
    bool tls;
  } rows[] = {
    {"http://127.0.0.1", 0, "127.0.0.1", 80, "", false},
    {"127.0.0.1", 8000, "127.0.0.1", 8000, "", false},
    {"https://a.b/c/d/", 0, "a.b", 443, "/c/d", true},
    {"http://a:81/x", 0, "a", 81, "/x", false},
    {"http://[::1]:99", 0, "::1", 99, "", false},
    {"http://a:81", 82, "a", 82, "", false},
    {"unix:/tmp/a b", 0, "unix:/tmp/a b", 80, "", false},
    {"unix:@s", 0, "unix:@s", 80, "", false},
    {"unix:", 0, NULL, 0, NULL, false},
    {"unix:/tmp/s", 0, "unix:/tmp/s", 80, "", false},
    {"ftp://a", 0, NULL, 0, NULL, false},
    {"http://", 0, NULL, 0, NULL, false},
    {"", 0, NULL, 0, NULL, false},
    {"http://a:x", 0, NULL, 0, NULL, false},
    {"http://a:70000", 0, NULL, 0, NULL, false},
    {"http://user@a", 0, NULL, 0, NULL, false},
    {"http://a?b", 0, NULL, 0, NULL, false},
    {"http://a b", 0, NULL, 0, NULL, false},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    swerex__web_url url;
    bool ok = swerex__web_parse_url(NULL, rows[i].text, rows[i].port, &url, &err);
    CHECK(ok == (rows[i].host != NULL));
    if (ok && rows[i].host != NULL) {
      CHECK_STR(url.host, rows[i].host);
      CHECK_STR(url.prefix, rows[i].prefix);
      CHECK_INT(url.port, rows[i].wanted);
      CHECK(url.tls == rows[i].tls);
    } else {
      CHECK(err.message != NULL);
    }
    if (ok) swerex__web_clear_url(&url);
    swerex_error_clear(&err);
  }
}

TEST(paths) {
  static const row rows[] = {
    {"/a", "/a"}, {"/a?b", "/a"}, {"/%61", "/a"}, {"http://h/a", "/a"}, {"/%2", NULL},
    {"/%zz", NULL}, {"/%00", NULL}, {"/%-1", NULL}, {"http://h", NULL},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char path[64];
    swerex__http_text target = {rows[i].text, strlen(rows[i].text)};
    bool ok = swerex__route_path(target, path, sizeof path);
    CHECK(ok == (rows[i].expected != NULL));
    if (ok) CHECK_STR(path, rows[i].expected == NULL ? "" : rows[i].expected);
  }
}

/* --- connecting --- */

typedef struct dialled {
  int fd, number; /* errno; -1 until it has ended */
  char message[200];
} dialled;

static void on_dialled(void *owner, int fd, swerex_error *error) {
  dialled *d = (dialled *)owner;
  d->fd = fd;
  d->number = error->sys_errno;
  snprintf(d->message, sizeof d->message, "%s", error->message == NULL ? "" : error->message);
}

static swerex__sock_dial *dial(swerex_loop *loop, const char *host, int port, double patience, dialled *d) {
  d->fd = d->number = -1;
  return swerex__sock_dial_new(loop, host, port, patience, host, on_dialled, d, NULL);
}

/** Run the loop until a dial has ended, for a few seconds at most. */
static void finish(swerex_loop *loop, const dialled *d) {
  for (double end = swerex__util_now() + 5; d->number < 0 && swerex__util_now() < end;)
    CHECK(swerex_loop_run(loop, 0.05, NULL));
}

TEST(a_lookup_that_takes_too_long_is_named) {
  dialled d;
  int fds = test_count_fds();
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  CHECK(pipe(slow_gate) == 0 && dial(loop, SLOW_NAME, 80, 0.02, &d) != NULL);
  finish(loop, &d);
  CHECK_INT(d.number, ETIMEDOUT);
  CHECK_STR(d.message, SLOW_NAME ": no name server has answered in time");
  swerex_loop_free(loop);
  close(slow_gate[1]); /* the thread ends, and lets go of its pipe */
  for (int i = 0; i < 1000 && test_count_fds() > fds + 1; i++) usleep(1000);
  close(slow_gate[0]);
}

TEST(a_lookup_ends_though_the_host_has_forked) {
  dialled d;
  int port;
  bool loopback;
  int listener = swerex__sock_listen("127.0.0.1", 0, &port, &loopback, NULL);
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  CHECK(pipe(slow_gate) == 0 && dial(loop, SLOW_NAME, port, 2, &d) != NULL);
  pid_t pid = fork(); /* it has all our descriptors, as long as it lives */
  if (pid == 0) {
    pause();
    _exit(0);
  }
  CHECK(write(slow_gate[1], "", 1) == 1);
  finish(loop, &d);
  CHECK(d.fd >= 0 && d.number == 0);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  swerex__sys_close(&d.fd);
  close(listener);
  close(slow_gate[0]);
  close(slow_gate[1]);
  swerex_loop_free(loop);
}

TEST(lookups_that_fail_say_why) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__sock_fail_lookup("a:1", EAI_NONAME, 0, &err);
  CHECK(err.code == SWEREX_E_OS && strncmp(err.message, "a:1: ", 5) == 0);
  swerex__sock_fail_lookup("a:1", EAI_SYSTEM, EMFILE, &err);
  CHECK_STR(err.message, "[Errno 24] Too many open files: 'a:1'");
  swerex__sock_fail_lookup("a:1", EAI_MEMORY, 0, &err);
  CHECK(err.code == SWEREX_E_NO_MEMORY);
  swerex_error_clear(&err);
}

#ifdef __linux__ /* a full queue swallows what comes, as a filter on the way would */
/** Listen at 127.0.0.1 without room for one more; `clients` fill the queue. */
static int listen_silently(swerex__sock_target *target, int clients[4]) {
  int listener = swerex__sock_new(AF_INET, SOCK_STREAM, 0);
  swerex__sock_address *address = &target->address;
  memset(target, 0, sizeof *target);
  target->size = sizeof address->v4;
  address->v4.sin_family = AF_INET;
  address->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(bind(listener, &address->any, target->size) == 0 && listen(listener, 0) == 0);
  CHECK(getsockname(listener, &address->any, &target->size) == 0);
  for (int i = 0; i < 4; i++) {
    clients[i] = swerex__sock_new(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(clients[i], &address->any, target->size) == 0 || errno == EINPROGRESS);
  }
  return listener;
}

TEST(an_address_that_says_nothing_does_not_hold_up_the_next) {
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex__sock_target silent, refused, answering;
  dialled d;
  int clients[4], port, fds = test_count_fds(), listener = listen_silently(&silent, clients);
  bool loopback;
  int server = swerex__sock_listen("127.0.0.1", 0, &port, &loopback, NULL);
  answering = refused = silent;
  answering.address.v4.sin_port = htons((unsigned short)port);
  refused.address.v4.sin_port = htons(1);
  CHECK(dial(loop, "127.0.0.1", ntohs(silent.address.v4.sin_port), 0.3, &d) != NULL);
  finish(loop, &d);
  CHECK_INT(d.number, ETIMEDOUT); /* it does say nothing */
  swerex__sock_dial *three = dial(loop, "127.0.0.1", port, 20, &d);
  three->targets[0] = silent;
  three->targets[1] = refused;
  three->targets[2] = answering;
  three->count = 3;
  finish(loop, &d);
  CHECK_INT(d.number, 0);
  CHECK(getpeername(d.fd, &silent.address.any, &silent.size) == 0);
  CHECK_INT(ntohs(silent.address.v4.sin_port), port);
  swerex__sys_close(&d.fd);
  swerex__sock_dial *two = dial(loop, "127.0.0.1", port, 20, &d);
  two->targets[0] = two->targets[1] = refused;
  two->count = 2;
  finish(loop, &d);
  CHECK_INT(d.number, ECONNREFUSED);
  for (int i = 0; i < 4; i++) close(clients[i]);
  close(listener);
  close(server);
  CHECK_INT(test_count_fds(), fds);
  swerex_loop_free(loop);
}
#endif

/* --- local sockets --- */

static char socket_path[64];

/** Listen for up to `queue` connections that nobody accepts, and fill the queue. */
static int fill_queue(int queue, int clients[16]) {
  swerex__sock_target target;
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), count = 0;
  snprintf(socket_path, sizeof socket_path, "/tmp/swerex-http-%ld", (long)getpid());
  unlink(socket_path);
  CHECK(swerex__sock_local_target(socket_path, &target, NULL));
  CHECK(bind(listener, &target.address.any, target.size) == 0 && listen(listener, queue) == 0);
  for (; count < 16; count++) {
    clients[count] = swerex__sock_new(AF_UNIX, SOCK_STREAM, 0);
    if (connect(clients[count], &target.address.any, target.size) != 0) break;
  }
  for (int i = count; i < 16; i++) clients[i] = i == count ? clients[i] : -1;
  return listener;
}

static void empty_queue(int listener, int clients[16]) {
  for (int i = 0; i < 16; i++) swerex__sys_close(&clients[i]);
  close(listener);
  unlink(socket_path);
}

TEST(a_file_at_the_path_of_a_local_socket_stays) {
  swerex_error err = SWEREX_ERROR_INIT;
  struct stat info;
  snprintf(socket_path, sizeof socket_path, "/tmp/swerex-http-%ld", (long)getpid());
  int fd = open(socket_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  CHECK(write(fd, "precious", 8) == 8);
  close(fd);
  CHECK(swerex__sock_listen_local(socket_path, &err) == -1 && err.sys_errno == EADDRINUSE);
  CHECK(stat(socket_path, &info) == 0 && S_ISREG(info.st_mode) && info.st_size == 8);
  unlink(socket_path);
  fd = swerex__sock_listen_local(socket_path, &err);
  CHECK(fd >= 0 && stat(socket_path, &info) == 0 && (info.st_mode & 0777) == 0600);
  swerex__sys_close(&fd);
  fd = swerex__sock_listen_local(socket_path, &err); /* in the place of a dead one */
  CHECK(fd >= 0);
  swerex__sys_close(&fd);
  unlink(socket_path);
  CHECK(swerex__sock_listen_local("", &err) == -1 && err.sys_errno == ENOENT);
  swerex_error_clear(&err);
}

#ifdef __linux__ /* elsewhere a full queue looks like nobody */
TEST(a_local_socket_whose_queue_is_full_is_taken) {
  swerex_error err = SWEREX_ERROR_INIT;
  int clients[16], listener = fill_queue(0, clients);
  CHECK(swerex__sock_listen_local(socket_path, &err) == -1 && err.sys_errno == EADDRINUSE);
  CHECK(access(socket_path, F_OK) == 0);
  empty_queue(listener, clients);
  swerex_error_clear(&err);
}

TEST(a_local_server_whose_queue_is_full_is_waited_for) {
  dialled d;
  char host[80];
  int clients[16], listener = fill_queue(0, clients);
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  snprintf(host, sizeof host, "unix:%s", socket_path);
  CHECK(dial(loop, host, 0, 0.05, &d) != NULL);
  finish(loop, &d);
  CHECK_INT(d.number, ETIMEDOUT);
  CHECK(dial(loop, host, 0, 5, &d) != NULL);
  CHECK(swerex_loop_run(loop, 0, NULL) && d.number < 0);
  close(accept(listener, NULL, NULL)); /* room for one */
  finish(loop, &d);
  CHECK(d.fd >= 0 && d.number == 0);
  swerex__sys_close(&d.fd);
  swerex__sock_dial_free(dial(loop, host, 0, 5, &d)); /* given up by its owner */
  empty_queue(listener, clients);
  swerex_loop_free(loop);
}
#endif

TEST_MAIN()
