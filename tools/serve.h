/*
 * The server's command line, for swerex-remote and `swerex serve`. Include behind swerex.h with its
 * implementation.
 */
#include <stdarg.h>
#include <stdio.h>

#include "pool.h"
#include "terminal.h"

enum { SERVE_EXIT_USAGE = 2, SERVE_TOKEN_MAX = 4096, SERVE_FILES = 65536 };

typedef struct serve_settings {
  swerex_server_options server;
  const char *token_file, *connect;
  bool help, version, verbose;
} serve_settings;

typedef enum serve_kind { SERVE_TEXT, SERVE_FLAG, SERVE_SECONDS, SERVE_PORT } serve_kind;

typedef struct serve_option {
  const char *name, *argument;
  serve_kind kind;
  size_t offset; /* in serve_settings */
  const char *help;
} serve_option;

#define SERVE_AT(member) offsetof(serve_settings, member)

static const serve_option serve_options[] = {
  {"--host", "ADDRESS", SERVE_TEXT, SERVE_AT(server.host), "listen there (default 0.0.0.0: everywhere)"},
  {"--port", "NUMBER", SERVE_PORT, SERVE_AT(server.port), "0: a free one, which is printed (default 8000)"},
  {"--unix", "PATH", SERVE_TEXT, SERVE_AT(server.unix_path), "listen on a local socket instead"},
  {"--stdio", NULL, SERVE_FLAG, SERVE_AT(server.stdio), "serve one client over stdin and stdout instead"},
  {"--connect", "PATH", SERVE_TEXT, SERVE_AT(connect),
   "join stdin and stdout to the local socket of a server here"},
  {"--auth-token", "TOKEN", SERVE_TEXT, SERVE_AT(server.auth_token),
   "what clients must send as X-API-Key"},
  {"--auth-token-file", "FILE", SERVE_TEXT, SERVE_AT(token_file), "the same, from a file's first line"},
  {"--no-auth", NULL, SERVE_FLAG, SERVE_AT(server.no_auth),
   "no token, although other machines can reach the address"},
  {"--idle-timeout", "SECONDS", SERVE_SECONDS, SERVE_AT(server.idle_timeout),
   "end after so long without a connection"},
  {"--max-lifetime", "SECONDS", SERVE_SECONDS, SERVE_AT(server.max_lifetime), "end after so long"},
  {"--verbose", NULL, SERVE_FLAG, SERVE_AT(verbose), "log requests to stderr"},
  {"--version", NULL, SERVE_FLAG, SERVE_AT(version), "print the version"},
  {"--help", NULL, SERVE_FLAG, SERVE_AT(help), "print this"},
};

static volatile sig_atomic_t serve_signal;
static swerex_loop *serve_loop;
static pid_t serve_child;

static void serve_on_signal(int number) {
  serve_signal = number;
  if (serve_loop != NULL) swerex_loop_wake(serve_loop);
  if (serve_child > 0) kill(serve_child, number);
}

static void serve_catch(void) {
  static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
  struct sigaction action;
  memset(&action, 0, sizeof action);
  sigemptyset(&action.sa_mask);
  action.sa_handler = serve_on_signal;
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
  signal(SIGPIPE, SIG_IGN);
}

static int serve_usage(const char *program, const char *format, ...) {
  va_list args;
  fprintf(stderr, "%s: ", program);
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fprintf(stderr, "; see %s --help\n", program);
  return SERVE_EXIT_USAGE;
}

static void serve_help(const char *program) {
  char left[128];
  printf("usage: %s [OPTIONS]\n\n", program);
  terminal_text("Lets others run commands here by HTTP: bash sessions, single commands, files. It speaks the "
                "protocol of SWE-ReX and takes the place of its Python server.");
  putchar('\n');
  snprintf(left, sizeof left, "%s --host 127.0.0.1 --port 0", program);
  terminal_row(left, 46, "try it here, without a token");
  snprintf(left, sizeof left, "SWEREX_AUTH_TOKEN=secret %s", program);
  terminal_row(left, 46, "as the original does");
  printf("\nOptions:\n");
  for (size_t i = 0; i < sizeof serve_options / sizeof *serve_options; i++) {
    const serve_option *o = &serve_options[i];
    snprintf(left, sizeof left, "%s %s", o->name, o->argument == NULL ? "" : o->argument);
    terminal_row(left, 28, o->help);
  }
  putchar('\n');
  terminal_text("The token can also come from SWEREX_AUTH_TOKEN, which `ps` does not show. Whoever has it can run "
                "anything here as this user. It ends at SIGTERM, with all it has started.");
}

/** Store an option's value; false: it is not one. */
static bool serve_store(const serve_option *o, serve_settings *set, char *value) {
  char *at = (char *)set + o->offset, *end = NULL;
  if (o->kind == SERVE_FLAG) {
    *(bool *)(void *)at = true;
  } else if (o->kind == SERVE_TEXT) {
    *(const char **)(void *)at = value;
  } else if (o->kind == SERVE_PORT) {
    long port = strtol(value, &end, 10);
    if (end == value || *end != '\0' || port < 0 || port > 65535) return false;
    *(int *)(void *)at = (int)port;
  } else {
    double seconds = strtod(value, &end);
    if (end == value || *end != '\0' || !(seconds > 0)) return false;
    *(double *)(void *)at = seconds;
  }
  return true;
}

/** Read the arguments behind argv[0]; returns 0, or the exit code. */
static int serve_read(const char *program, char **argv, serve_settings *set) {
  for (int i = 1; argv[i] != NULL; i++) {
    const serve_option *o = NULL;
    char *word = argv[i], *equals = strchr(word, '=');
    size_t size = equals == NULL ? strlen(word) : (size_t)(equals - word);
    if (strcmp(word, "-v") == 0) word = (char *)(uintptr_t)"--version", size = strlen(word);
    if (strcmp(word, "-h") == 0) word = (char *)(uintptr_t)"--help", size = strlen(word);
    for (size_t k = 0; k < sizeof serve_options / sizeof *serve_options; k++)
      if (strlen(serve_options[k].name) == size && memcmp(serve_options[k].name, word, size) == 0)
        o = &serve_options[k];
    if (o == NULL) return serve_usage(program, "there is no option '%s'", word);
    if (o->argument == NULL && equals != NULL)
      return serve_usage(program, "%s takes no value", o->name);
    char *value = equals != NULL ? equals + 1 : NULL;
    if (o->argument != NULL && value == NULL && (value = argv[++i]) == NULL)
      return serve_usage(program, "%s needs a value: %s", o->name, o->argument);
    if (!serve_store(o, set, value))
      return serve_usage(program, "%s: '%s' is not %s", o->name, value,
                         o->kind == SERVE_PORT ? "a port" : "a number of seconds above 0");
  }
  return 0;
}

/** Read the token in a file's first line; false: there is none, and *err says why. */
static bool serve_read_token(const char *path, char token[SERVE_TOKEN_MAX], swerex_error *err) {
  errno = 0;
  token[0] = '\0';
  FILE *file = fopen(path, "r");
  bool ok = file != NULL && fgets(token, SERVE_TOKEN_MAX, file) != NULL;
  int number = errno;
  if (file != NULL) fclose(file);
  if (!ok && number != 0) return swerex__err_system(err, number, path);
  token[strcspn(token, "\r\n")] = '\0';
  return token[0] != '\0' || swerex__err_set(err, SWEREX_E_VALUE, "the first line of %s is empty", path);
}

/** Find the token, copy it, and wipe it where `ps` and the children could see it. */
static int serve_find_token(const char *program, serve_settings *set, char token[SERVE_TOKEN_MAX]) {
  char *given = (char *)(uintptr_t)set->server.auth_token, *from = getenv("SWEREX_AUTH_TOKEN");
  swerex_error err = SWEREX_ERROR_INIT;
  token[0] = '\0';
  if (given != NULL && set->token_file != NULL)
    return serve_usage(program, "--auth-token and --auth-token-file exclude each other");
  if (set->token_file != NULL) {
    if (!serve_read_token(set->token_file, token, &err)) {
      fprintf(stderr, "%s: --auth-token-file: %s\n", program, err.message);
      return SERVE_EXIT_USAGE;
    }
  } else if (given != NULL || from != NULL) {
    snprintf(token, SERVE_TOKEN_MAX, "%s", given != NULL ? given : from);
  }
  if (given != NULL) memset(given, 'x', strlen(given));
  if (from != NULL) memset(from, 'x', strlen(from));
  unsetenv("SWEREX_AUTH_TOKEN");
  set->server.auth_token = token;
  return 0;
}

/** As process 1, stay to reap what others leave behind, and let a child do the work. */
static int serve_as_first(void) {
  int status = 0, code = -1;
  pid_t pid;
  if (getpid() != 1) return -1;
  serve_child = fork();
  if (serve_child <= 0) {
    serve_child = 0;
    return -1;
  }
  while ((pid = waitpid(-1, &status, 0)) > 0 || errno == EINTR) {
    if (pid != serve_child) continue;
    code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    break;
  }
  return code < 0 ? 1 : code;
}

/** Let the server have as many connections as the system allows; what it starts has less. */
static void serve_raise_files(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= SERVE_FILES) return;
  files.rlim_cur = files.rlim_max < SERVE_FILES ? files.rlim_max : SERVE_FILES;
  setrlimit(RLIMIT_NOFILE, &files);
}

static int serve_run(const char *program, const serve_settings *set) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop_options options;
  pool memory;
  memset(&memory, 0, sizeof memory);
  memset(&options, 0, sizeof options);
  options.allocator.reallocate = pool_reallocate;
  options.allocator.user_data = &memory;
  if (set->verbose) options.logger.level = SWEREX_LOG_DEBUG;
  serve_loop = swerex_loop_new(&options, &err);
  swerex_server *server =
    serve_loop == NULL ? NULL : swerex_server_new(serve_loop, &set->server, &err);
  bool ok = server != NULL;
  if (ok) serve_raise_files();
  if (ok && !set->server.stdio)
    ok = (printf("%s %s listening on %s\n", program, SWEREX_VERSION, swerex_server_address(server)) > 0 &&
          fflush(stdout) == 0) ||
         swerex__err_system(&err, errno, "stdout");
  while (ok && serve_signal == 0 && !swerex_server_done(server))
    ok = swerex_loop_run(serve_loop, pool_trim(&memory, POOL_PATIENCE) ? POOL_PATIENCE : SWEREX_FOREVER, &err);
  bool tcp = !set->server.stdio && set->server.unix_path == NULL;
  bool open_door = tcp && err.code == SWEREX_E_VALUE && set->server.auth_token[0] == '\0' && !set->server.no_auth;
  if (!ok && open_door)
    fprintf(stderr, "%s: others could reach %s and run anything here: set SWEREX_AUTH_TOKEN or give "
                    "--auth-token-file, listen on --host 127.0.0.1, or say --no-auth\n",
            program, set->server.host);
  else if (!ok)
    fprintf(stderr, "%s: %s\n", program, err.message);
  swerex_server_free(server);
  swerex_loop *loop = serve_loop;
  serve_loop = NULL;
  swerex_loop_free(loop);
  swerex_error_clear(&err);
  pool_empty(&memory);
  return ok ? 0 : 1;
}

/** Copy what can be read now from one descriptor to another; 0: its end has come, -1: it failed. */
static int serve_copy(int from, int to) {
  char bytes[65536];
  ssize_t n = read(from, bytes, sizeof bytes);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return 1;
  return n <= 0 ? (int)n : put(to, bytes, (size_t)n) ? 1 : -1;
}

/**
 * Join stdin and stdout to a server's local socket until the server closes it. A server that has
 * refused a request still reads the rest of it: who ended before that would have an engine drop
 * the answer, as input came that nobody took. Returns the exit code.
 */
static int serve_connect(const char *program, const char *path) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__sock_target target;
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  bool ok = swerex__sock_local_target(path, &target, &err) &&
            ((fd >= 0 && connect(fd, &target.address.any, target.size) == 0) ||
             swerex__err_system(&err, errno, path));
  signal(SIGPIPE, SIG_IGN);
  struct pollfd ends[2] = {{STDIN_FILENO, POLLIN, 0}, {fd, POLLIN, 0}};
  for (int ready; ok && ((ready = poll(ends, 2, -1)) > 0 || errno == EINTR);) {
    if (ready < 0) continue; /* stopped and continued: revents are those of before */
    int copied = ends[1].revents == 0 ? 1 : serve_copy(fd, STDOUT_FILENO);
    if (copied < 0 || (copied == 0 && (ends[1].revents & (POLLHUP | POLLERR)) != 0)) break;
    if (copied == 0) ends[1].events = 0; /* no more answers */
    if (ends[0].revents == 0 || serve_copy(STDIN_FILENO, fd) > 0) continue;
    shutdown(fd, SHUT_WR); /* no more requests; the answers still come */
    ends[0].fd = -1;
    ends[0].revents = 0;
  }
  if (fd >= 0) close(fd);
  if (output_errno != 0) ok = swerex__err_system(&err, output_errno, "stdout");
  if (!ok) fprintf(stderr, "%s: --connect: %s\n", program, err.message);
  swerex_error_clear(&err);
  return ok ? 0 : 1;
}

/** Serve as the arguments say. Returns the exit code. */
static int serve(const char *program, char **argv) {
  char token[SERVE_TOKEN_MAX];
  serve_settings set;
  memset(&set, 0, sizeof set);
  set.server.port = -1;
  int code = serve_read(program, argv, &set);
  if (code != 0) return code;
  if (set.help) {
    serve_help(program);
    return 0;
  }
  if (set.version) {
    printf("%s\n", swerex_version());
    return 0;
  }
  if (set.connect != NULL) return serve_connect(program, set.connect);
  if (set.server.stdio && set.server.unix_path != NULL)
    return serve_usage(program, "--stdio and --unix exclude each other");
  if ((set.server.stdio || set.server.unix_path != NULL) && (set.server.host != NULL || set.server.port >= 0))
    return serve_usage(program, "%s takes no --host and no --port", set.server.stdio ? "--stdio" : "--unix");
  if (set.server.host == NULL) set.server.host = "0.0.0.0";
  if (set.server.port < 0) set.server.port = 8000;
  code = serve_find_token(program, &set, token);
  if (code != 0) return code;
  serve_catch();
  code = serve_as_first();
  return code >= 0 ? code : serve_run(program, &set);
}
