/*
 * The remote runtime against a server: ours, or the original in Python.
 *
 *   client HOST PORT TOKEN [--python-server | --without "PROGRAM..."]
 *          [--filter TEXT | --list]
 *
 * Both servers must meet the same assertions; a test that only ours can meet is skipped for the
 * Python server, with the reason. The server must see this machine's files.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

#include <arpa/inet.h>

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})
#define COUNT(rows) (sizeof(rows) / sizeof *(rows))
#define ONLY_OURS(reason)                                                                          \
  do {                                                                                             \
    if (target.python) LEAVE_OUT(reason);                                                          \
  } while (0)

/** Leave out a test that an image without a program cannot pass. */
#define NEEDS(program)                                                                             \
  do {                                                                                             \
    if (strstr(target.lacks, program) != NULL) LEAVE_OUT("there is no " program " in that image"); \
  } while (0)

/** How much longer an answer may take, where "speed" is lacking: each connection may be an exec. */
#define PACE (strstr(target.lacks, "speed") != NULL ? 4.0 : 1.0)

enum { LONG = 100000 };

static const char PROMPT[] = "SHELLPS1PREFIX";

/** The server under test. */
static struct {
  const char *host, *token;
  int port;
  bool python;
  const char *lacks; /* what an image does not have: "gdb python3 bash coreutils speed" */
  char folder[64]; /* of this run, for files */
} target;

/* --- texts that live until the end ------------------------------------------------------------ */

typedef struct kept {
  struct kept *next;
  char text[];
} kept;

static kept *all_kept;

static char *keep(size_t size) {
  kept *block = (kept *)calloc(1, sizeof *block + size + 1);
  if (block == NULL) abort();
  block->next = all_kept;
  all_kept = block;
  return block->text;
}

static void forget_kept(void) {
  while (all_kept != NULL) {
    kept *next = all_kept->next;
    free(all_kept);
    all_kept = next;
  }
}

SWEREX_PRINTF(1, 2) static char *format(const char *text, ...) {
  va_list args;
  if (text == NULL) abort();
  va_start(args, text);
  int size = vsnprintf(NULL, 0, text, args);
  va_end(args);
  char *out = keep((size_t)size);
  va_start(args, text);
  vsnprintf(out, (size_t)size + 1, text, args);
  va_end(args);
  return out;
}

/** Put the folder of this run where a text says {TMP}. */
static const char *expand(const char *text) {
  const char *at = text == NULL ? NULL : strstr(text, "{TMP}");
  if (at == NULL) return text;
  return format("%.*s%s%s", (int)(at - text), text, target.folder, expand(at + 5));
}

static const char *const *expand_list(const char *const *list) {
  size_t count = 0;
  if (list == NULL) return NULL;
  while (list[count] != NULL) count++;
  const char **out = (const char **)(void *)keep((count + 1) * sizeof *out);
  for (size_t i = 0; i < count; i++) out[i] = expand(list[i]);
  return out;
}

static char *repeat(const char *text, size_t times) {
  size_t size = strlen(text);
  char *out = keep(size * times);
  for (size_t i = 0; i < times; i++) memcpy(out + i * size, text, size);
  return out;
}

/** A path or a name that nobody used yet. */
static const char *fresh(const char *name) {
  static int number;
  return format("%s/%d-%s", target.folder, ++number, name);
}

static const char *fresh_name(void) {
  static int number;
  return format("c-%ld-%d", (long)getpid(), ++number);
}

/* --- files on this side ----------------------------------------------------------------------- */

static void make_folders(const char *path) {
  char *copy = format("%s", path);
  for (char *slash = strchr(copy + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    mkdir(copy, 0777);
    *slash = '/';
  }
}

static const char *put_bytes(const char *path, const char *data, size_t size, mode_t mode) {
  make_folders(path);
  FILE *file = fopen(path, "wb");
  CHECK(file != NULL);
  if (file == NULL) return path;
  CHECK(fwrite(data, 1, size, file) == size);
  fclose(file);
  CHECK(chmod(path, mode) == 0);
  return path;
}

static const char *put(const char *path, const char *text) {
  return put_bytes(path, text, strlen(text), 0644);
}

static bool exists(const char *path) {
  struct stat info;
  return lstat(path, &info) == 0;
}

static bool is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static long mode_of(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 ? (long)(info.st_mode & 0777) : -1;
}

/** Read a whole file; size SIZE_MAX: it cannot be read. */
static swerex_bytes file_of(const char *path) {
  swerex_bytes got = {NULL, SIZE_MAX};
  struct stat info;
  FILE *file = fopen(path, "rb");
  if (file == NULL) return got;
  if (fstat(fileno(file), &info) == 0 && S_ISREG(info.st_mode)) {
    got.data = keep((size_t)info.st_size);
    got.size = fread(got.data, 1, (size_t)info.st_size, file);
  }
  fclose(file);
  return got;
}

static void check_file(const char *path, const char *data, size_t size) {
  swerex_bytes got = file_of(path);
  if (got.size == size && (size == 0 || memcmp(got.data, data, size) == 0)) return;
  printf("# %s: %zd bytes, not %zu\n", path, (ssize_t)got.size, size);
  CHECK(!"the file's content is as sent");
}

static void check_text_file(const char *path, const char *text) {
  check_file(path, text, strlen(text));
}

static bool shell_true(const char *command) { return system(command) == 0; }

/* --- a world: a loop and a runtime ------------------------------------------------------------ */

typedef struct world {
  swerex_loop *loop;
  swerex_runtime *runtime;
  swerex_error err;
  swerex_bash_observation seen;
  swerex_command_response ran;
  swerex_read_file_response content;
  const char *session; /* of the short forms */
} world;

static void quiet(void *user_data, const swerex_log_record *record) {
  (void)user_data, (void)record;
}

static swerex_remote_config defaults(void) {
  swerex_remote_config config;
  memset(&config, 0, sizeof config);
  config.auth_token = target.token;
  config.host = target.host;
  config.port = target.port;
  return config;
}

static world world_with(const swerex_remote_config *config) {
  world w;
  swerex_loop_options options;
  memset(&w, 0, sizeof w);
  memset(&options, 0, sizeof options);
  options.logger.write = quiet;
  w.loop = swerex_loop_new(&options, &w.err);
  w.runtime = w.loop == NULL ? NULL : swerex_remote_runtime_new(w.loop, config, &w.err);
  if (w.runtime == NULL) {
    printf("not ok: no runtime: %s\n", w.err.message);
    exit(2);
  }
  return w;
}

static world world_open(void) {
  swerex_remote_config config = defaults();
  return world_with(&config);
}

static void world_clear(world *w) {
  swerex_bash_observation_clear(&w->seen);
  swerex_command_response_clear(&w->ran);
  swerex_read_file_response_clear(&w->content);
  swerex_error_clear(&w->err);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void nap(double time) { usleep((useconds_t)(time * 1e6)); }

static bool has(const char *text, const char *part) {
  if (text != NULL && strstr(text, part) != NULL) return true;
  printf("# no [%s] in [%.600s]\n", part, text == NULL ? "(null)" : text);
  return false;
}

/** Note the row in which a test has found a new fault. */
static void row_done(const char *name, int faults) {
  if (test_faults > faults) printf("#   in row: %s\n", name);
}

static void works(world *w, bool ok) {
  if (!ok) printf("# %s: %.2000s\n", swerex_code_name(w->err.code), w->err.message);
  CHECK(ok);
}

/* --- short forms of the verbs ----------------------------------------------------------------- */

static bool execute(world *w, const swerex_command *command) {
  swerex_command_response_clear(&w->ran);
  return swerex_execute(w->runtime, command, &w->ran, &w->err);
}

static bool script(world *w, const char *text, double timeout) {
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = text;
  command.shell = true;
  command.timeout = timeout;
  return execute(w, &command);
}

static bool create(world *w, const char *name) {
  swerex_create_bash_session_request request;
  memset(&request, 0, sizeof request);
  request.session = name;
  return swerex_create_session(w->runtime, &request, NULL, &w->err);
}

static bool close_session(world *w, const char *name) {
  swerex_close_bash_session_request request;
  memset(&request, 0, sizeof request);
  request.session = name;
  return swerex_close_session(w->runtime, &request, NULL, &w->err);
}

/** What the Python server says where it could not split a command: the prompt too. */
static void same_prompt(swerex_bash_observation *seen) {
  if (!target.python || seen->expect_string.data == NULL) return;
  if (strcmp(seen->expect_string.data, "UNIQUESTRING29234") != 0) return;
  strcpy(seen->expect_string.data, PROMPT);
  seen->expect_string.size = sizeof PROMPT - 1;
}

static bool act(world *w, const swerex_bash_action *action) {
  swerex_bash_observation_clear(&w->seen);
  bool ok = swerex_run_in_session(w->runtime, action, &w->seen, &w->err);
  same_prompt(&w->seen);
  return ok;
}

static swerex_bash_action action_of(const world *w, const char *command, double timeout) {
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = command;
  action.session = w->session;
  action.check = SWEREX_CHECK_SILENT;
  action.timeout = timeout;
  return action;
}

static bool run_for(world *w, const char *command, double timeout) {
  swerex_bash_action action = action_of(w, command, timeout);
  return act(w, &action);
}

static bool run(world *w, const char *command) { return run_for(w, command, 15); }

/** Send text to the program in front; done at `expect`, or NULL: the prompt. */
static bool talk(world *w, const char *text, const char *expect) {
  const char *const patterns[] = {expect, NULL};
  swerex_bash_action action = action_of(w, text, 10);
  action.is_interactive_command = true;
  action.expect = expect == NULL ? NULL : patterns;
  action.check = SWEREX_CHECK_RAISE;
  return act(w, &action);
}

static bool quit(world *w, const char *text) {
  swerex_bash_action action = action_of(w, text, 10);
  action.is_interactive_quit = true;
  return act(w, &action);
}

static bool interrupt_with(world *w, double timeout, int n_retry, const char *const *expect) {
  swerex_bash_interrupt_action action;
  memset(&action, 0, sizeof action);
  action.session = w->session;
  action.timeout = timeout;
  action.n_retry = n_retry;
  action.expect = expect;
  swerex_bash_observation_clear(&w->seen);
  bool ok = swerex_interrupt_session(w->runtime, &action, &w->seen, &w->err);
  same_prompt(&w->seen);
  return ok;
}

static bool interrupt(world *w) { return interrupt_with(w, 0, 0, NULL); }

static bool read_file(world *w, const char *path, const char *encoding, const char *errors) {
  swerex_read_file_request request = {path, encoding, errors};
  swerex_read_file_response_clear(&w->content);
  return swerex_read_file(w->runtime, &request, &w->content, &w->err);
}

static bool write_bytes(world *w, const char *path, const char *data, size_t size) {
  swerex_write_file_request request;
  memset(&request, 0, sizeof request);
  request.path = path;
  request.content.data = (char *)(uintptr_t)data;
  request.content.size = size;
  return swerex_write_file(w->runtime, &request, NULL, &w->err);
}

static bool write_text(world *w, const char *path, const char *text) {
  return write_bytes(w, path, text, strlen(text));
}

static bool upload(world *w, const char *source, const char *path) {
  swerex_upload_request request = {source, path};
  return swerex_upload(w->runtime, &request, NULL, &w->err);
}

/** Open a world with a session of its own. */
static world world_with_session(void) {
  world w = world_open();
  w.session = fresh_name();
  works(&w, create(&w, w.session));
  return w;
}

static void world_close(world *w) {
  if (w->session != NULL) works(w, close_session(w, w->session));
  world_clear(w);
  swerex_loop_free(w->loop);
}

/* --- what is expected ------------------------------------------------------------------------- */

/** A text, with a size where it may hold NUL; data NULL: not looked at. */
typedef struct expected {
  const char *data;
  size_t size;
} expected;
#define TEXT(literal) {literal, sizeof(literal) - 1}

static void check_text(const char *what, swerex_bytes got, expected want) {
  if (want.data == NULL) return;
  test_mem(__FILE__, __LINE__, what, got.data, got.size, want.data, want.size);
}

/** An error with a class of its own here. message: the text, "~part", or NULL for any. */
typedef struct failure {
  swerex_code code;
  const char *message;
  const char *extra_info; /* NULL: not looked at */
} failure;

static void check_message(const char *got, const char *want) {
  if (want != NULL && want[0] == '~')
    CHECK(has(got, want + 1));
  else if (want != NULL)
    CHECK_STR(got, want);
}

/** re.error has another name since Python 3.13. */
static bool same_class(const char *got, const char *want) {
  return strcmp(got, want) == 0 || (strcmp(want, "re.error") == 0 && strcmp(got, "re.PatternError") == 0);
}

/** The other side raised this. */
static void check_raised(world *w, bool ok, failure want) {
  const swerex_error *err = &w->err;
  CHECK(!ok);
  if (ok) return;
  CHECK_STR(swerex_code_name(err->code), swerex_code_name(want.code));
  check_message(err->message, expand(want.message));
  CHECK(err->class_path != NULL && same_class(err->class_path, swerex_code_class_path(want.code)));
  CHECK_INT(err->http_status, 511);
  if (target.python) CHECK(has(err->traceback, "Traceback"));
  if (want.extra_info != NULL) CHECK_STR(err->extra_info, want.extra_info);
}

static void raised(world *w, bool ok, swerex_code code, const char *message) {
  failure want = {code, message, NULL};
  check_raised(w, ok, want);
}

/** The call failed on this side. */
static void failed(world *w, bool ok, swerex_code code, const char *part) {
  CHECK(!ok);
  if (ok) return;
  CHECK_STR(swerex_code_name(w->err.code), swerex_code_name(code));
  CHECK(has(w->err.message, part));
}

static void check_seen(world *w, expected output, int exit_code, const char *expect) {
  check_text("output", w->seen.output, output);
  CHECK_INT(w->seen.exit_code, exit_code);
  CHECK_STR(w->seen.expect_string.data, expect == NULL ? PROMPT : expect);
  CHECK_INT(w->seen.failure_reason.size, 0);
}

/** Run a command, which prints and returns exactly this. */
static void gives(world *w, const char *command, int exit_code, const char *output) {
  expected want = {output, strlen(output)};
  int faults = test_faults;
  bool ok = run(w, command);
  works(w, ok);
  if (ok) check_seen(w, want, exit_code, NULL);
  row_done(command, faults);
}

/* --- execute ---------------------------------------------------------------------------------- */

typedef struct execute_row {
  const char *name;
  swerex_command command;
  expected out, err;
  int exit_code;
  failure fails; /* code OK: it works */
} execute_row;

#define OUT(literal) .out = TEXT(literal), .err = TEXT("")
#define BOTH(first, second) .out = TEXT(first), .err = TEXT(second)

static const execute_row execute_rows[] = {
  {"list", {.argv = LIST("echo", "a  b", "$HOME", "*")}, OUT("a  b $HOME *\n")},
  {"one name", {.command = "true"}, OUT("")},
  {"empty argument", {.argv = LIST("printf", "[%s]", "", "x")}, OUT("[][x]")},
  {"unicode argument", {.argv = LIST("printf", "%s", "é☃😀")}, OUT("é☃😀")},
  {"shell", {.command = "echo a; echo b >&2; exit 3", .shell = true}, BOTH("a\n", "b\n"), 3},
  {"shell is sh", {.command = "echo $0", .shell = true}, OUT("/bin/sh\n")},
  {"list with shell",
   {.argv = LIST("echo \"$0\" \"$1\" $#", "zero", "one two"), .shell = true},
   OUT("zero one two 1\n")},
  {"shell program is missing",
   {.command = "nosuchprogram 2>/dev/null", .shell = true, .merge_output_streams = true},
   OUT(""), 127},
  {"streams apart", {.command = "echo out; echo err >&2", .shell = true}, BOTH("out\n", "err\n")},
  {"streams merged",
   {.command = "echo a; echo b >&2; echo c", .shell = true, .merge_output_streams = true},
   OUT("a\nb\nc\n")},
  {"stdin is empty", {.argv = LIST("cat"), .timeout = 5}, OUT("")},
  {"no terminal", {.command = "test -t 0 || test -t 1 || echo none", .shell = true}, OUT("none\n")},
  {"stdin is the null device",
   {.command = "readlink /proc/self/fd/0", .shell = true}, OUT("/dev/null\n")},
  {"line ends are kept", {.argv = LIST("printf", "a\\r\\nb\\rc")}, OUT("a\r\nb\rc")},
  {"escapes are kept", {.argv = LIST("printf", "\\033[31mred")}, OUT("\x1b[31mred")},
  {"NUL in output", {.argv = LIST("printf", "a\\0b")}, OUT("a\0b")},
  {"controls in output", {.argv = LIST("printf", "\\1\\10\\37\\177")}, OUT("\1\10\37\177")},
  {"quotes in output", {.argv = LIST("printf", "%s", "q\" b\\ /")}, OUT("q\" b\\ /")},
  {"unicode line ends in output", {.argv = LIST("printf", "%s", "a\u2028b\xc2\x85" "c")},
   OUT("a\u2028b\xc2\x85" "c")},
  {"invalid UTF-8", {.argv = LIST("printf", "a\\377\\n")}, OUT("a\\xff\n")},
  {"invalid UTF-8 on stderr", {.command = "printf 'a\\200' >&2", .shell = true}, BOTH("", "a\\x80")},
  {"cut UTF-8", {.argv = LIST("printf", "a\\342\\202")}, OUT("a\\xe2\\x82")},
  {"surrogate and overlong", {.argv = LIST("printf", "\\355\\240\\200\\300\\200")},
   OUT("\\xed\\xa0\\x80\\xc0\\x80")},
  {"environment replaced", {.argv = LIST("env"), .env = LIST("A=b c")}, OUT("A=b c\n")},
  {"environment with = and unicode", {.argv = LIST("env"), .env = LIST("É=ü=\"x\"")},
   OUT("É=ü=\"x\"\n")},
  {"environment with an empty value", {.argv = LIST("env"), .env = LIST("A=")}, OUT("A=\n")},
  {"environment empty", {.argv = LIST("env"), .env = (const char *const[]){NULL}}, OUT("")},
  {"environment inherited", {.command = "test -n \"$PATH\" && echo yes", .shell = true}, OUT("yes\n")},
  {"PATH of the environment",
   {.argv = LIST("program"), .env = LIST("PATH=/nonexist:{TMP}/bin"), .cwd = "/"},
   OUT("program /\n")},
  {"not on PATH of the environment", {.argv = LIST("program"), .env = LIST("PATH=/nonexist")},
   .fails = {SWEREX_E_FILE_NOT_FOUND, "[Errno 2] No such file or directory: 'program'", NULL}},
  {"cwd", {.argv = LIST("pwd"), .cwd = "/usr/bin"}, OUT("/usr/bin\n")},
  {"program relative to cwd", {.argv = LIST("./env", "pwd"), .cwd = "/usr/bin"}, OUT("/usr/bin\n")},
  {"exit code", {.command = "exit 255", .shell = true}, OUT(""), 255},
  {"signal 9", {.command = "kill -9 $$", .shell = true}, OUT(""), -9},
  {"signal 15", {.command = "kill $$", .shell = true}, OUT(""), -15},
  {"signal of a list", {.argv = LIST("sh", "-c", "kill -11 $$")},
   OUT(""), -11},
  {"check of success", {.argv = LIST("true"), .check = true, .error_msg = "unused"}, OUT("")},
  {"time limit kept", {.argv = LIST("echo", "quick"), .timeout = 10}, OUT("quick\n")},
  {"check",
   {.command = "echo o; echo \"e'\" >&2; exit 4", .shell = true, .check = true},
   .fails = {SWEREX_E_NON_ZERO_EXIT_CODE,
             "Command 'echo o; echo \"e\\'\" >&2; exit 4' failed with exit code 4. "
             "Stdout:\n'o\\n'\nStderr:\n\"e'\\n\"", NULL}},
  {"check with error_msg", {.argv = LIST("false"), .check = true, .error_msg = "at home"},
   .fails = {SWEREX_E_NON_ZERO_EXIT_CODE,
             "at home: Command ['false'] failed with exit code 1. Stdout:\n''\nStderr:\n''", NULL}},
  {"check shows a list as Python does",
   {.argv = LIST("false", "it's", "say \"x\"", "both ' and \"", "t\tn\nb\\", "é", "\x01\x7f",
                 "\u200b", "😀", "\u00a0"),
    .check = true},
   .fails = {SWEREX_E_NON_ZERO_EXIT_CODE,
             "Command ['false', \"it's\", 'say \"x\"', 'both \\' and \"', 't\\tn\\nb\\\\', 'é', "
             "'\\x01\\x7f', '\\u200b', '😀', '\\xa0'] failed with exit code 1. "
             "Stdout:\n''\nStderr:\n''", NULL}},
  {"check of a signal", {.command = "kill -9 $$", .shell = true, .check = true},
   .fails = {SWEREX_E_NON_ZERO_EXIT_CODE,
             "Command 'kill -9 $$' failed with exit code -9. Stdout:\n''\nStderr:\n''", NULL}},
  {"timeout", {.argv = LIST("sleep", "20"), .timeout = 0.3},
   .fails = {SWEREX_E_COMMAND_TIMEOUT, "Timeout (0.3s) exceeded while running command", NULL}},
  {"timeout as a whole number", {.argv = LIST("sleep", "20"), .timeout = 1},
   .fails = {SWEREX_E_COMMAND_TIMEOUT, "Timeout (1.0s) exceeded while running command", NULL}},
  {"timeout of a shell", {.command = "exec sleep 20", .shell = true, .timeout = 0.25},
   .fails = {SWEREX_E_COMMAND_TIMEOUT, "Timeout (0.25s) exceeded while running command", NULL}},
  {"timeout of nothing", {.argv = LIST("sleep", "20"), .timeout = SWEREX_NOW},
   .fails = {SWEREX_E_COMMAND_TIMEOUT, "Timeout (0.0s) exceeded while running command", NULL}},
  {"timeout of a writer", {.argv = LIST("yes"), .timeout = 0.2},
   .fails = {SWEREX_E_COMMAND_TIMEOUT, "Timeout (0.2s) exceeded while running command", NULL}},
  {"missing program", {.argv = LIST("nosuchprogram", "x")},
   .fails = {SWEREX_E_FILE_NOT_FOUND, "[Errno 2] No such file or directory: 'nosuchprogram'", NULL}},
  {"missing program by path", {.argv = LIST("/no/such")},
   .fails = {SWEREX_E_FILE_NOT_FOUND, "[Errno 2] No such file or directory: '/no/such'", NULL}},
  {"text is one name", {.command = "echo hi"},
   .fails = {SWEREX_E_FILE_NOT_FOUND, "[Errno 2] No such file or directory: 'echo hi'", NULL}},
  {"missing cwd", {.argv = LIST("true"), .cwd = "/no/such"},
   .fails = {SWEREX_E_FILE_NOT_FOUND, "[Errno 2] No such file or directory: '/no/such'", NULL}},
  {"cwd is a file", {.argv = LIST("true"), .cwd = "/etc/passwd"},
   .fails = {SWEREX_E_NOT_A_DIRECTORY, "[Errno 20] Not a directory: '/etc/passwd'", NULL}},
  {"program not executable", {.argv = LIST("{TMP}/bin/plain")},
   .fails = {SWEREX_E_PERMISSION, "[Errno 13] Permission denied: '{TMP}/bin/plain'", NULL}},
  {"program is a folder", {.argv = LIST("{TMP}")},
   .fails = {SWEREX_E_PERMISSION, "[Errno 13] Permission denied: '{TMP}'", NULL}},
  {"program in a file", {.argv = LIST("{TMP}/bin/plain/x")},
   .fails = {SWEREX_E_NOT_A_DIRECTORY, "[Errno 20] Not a directory: '{TMP}/bin/plain/x'", NULL}},
  {"program of no format", {.argv = LIST("{TMP}/bin/garbage")},
   .fails = {SWEREX_E_OS, "[Errno 8] Exec format error: '{TMP}/bin/garbage'", NULL}},
};

static void put_programs(void) {
  static const char program[] = "#!/bin/sh\necho program $PWD\n";
  put_bytes(expand("{TMP}/bin/program"), program, sizeof program - 1, 0755);
  put_bytes(expand("{TMP}/bin/plain"), "#!/bin/sh\n", 10, 0644);
  put_bytes(expand("{TMP}/bin/garbage"), "\1\2\3\4\1\2\3\4\1\2\3\4", 12, 0755);
}

static void check_execute(world *w, const execute_row *row) {
  swerex_command command = row->command;
  command.argv = expand_list(command.argv);
  command.env = expand_list(command.env);
  bool ok = execute(w, &command);
  if (row->fails.code != SWEREX_E_OK) {
    check_raised(w, ok, row->fails);
    return;
  }
  works(w, ok);
  if (!ok) return;
  check_text("stdout", w->ran.stdout_text, row->out);
  check_text("stderr", w->ran.stderr_text, row->err);
  CHECK_INT(w->ran.exit_code, row->exit_code);
}

TEST(execute_rows) {
  NEEDS("coreutils");
  world w = world_open();
  put_programs();
  for (size_t i = 0; i < COUNT(execute_rows); i++) {
    int faults = test_faults;
    check_execute(&w, &execute_rows[i]);
    row_done(execute_rows[i].name, faults);
  }
  world_close(&w);
}

TEST(execute_large_output) {
  NEEDS("coreutils");
  world w = world_open();
  works(&w, script(&w, "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2", 0));
  CHECK_INT(w.ran.stdout_text.size, 1000000);
  CHECK_INT(w.ran.stderr_text.size, 1000000);
  works(&w, script(&w, "head -c 20000000 /dev/zero | tr '\\0' x", 0));
  CHECK_INT(w.ran.stdout_text.size, 20000000);
  CHECK(w.ran.stdout_text.data[19999999] == 'x');
  world_close(&w);
}

TEST(execute_large_argument) {
  NEEDS("coreutils");
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.argv = LIST("printf", "%s", repeat("z", LONG));
  works(&w, execute(&w, &command));
  CHECK_INT(w.ran.stdout_text.size, LONG);
  world_close(&w);
}

TEST(execute_every_code_point_class) {
  NEEDS("coreutils");
  static const unsigned first[] = {0x01, 0x1f, 0x22, 0x5c, 0x7f, 0x80, 0x7ff, 0x800, 0x2028,
                                   0xd7ff, 0xe000, 0xfeff, 0xfffd, 0xffff, 0x10000, 0x10ffff};
  world w = world_open();
  char *text = keep(4 * COUNT(first)), *at = text;
  for (size_t i = 0; i < COUNT(first); i++) {
    unsigned c = first[i];
    if (c < 0x80) *at++ = (char)c;
    if (c >= 0x80 && c < 0x800) *at++ = (char)(0xc0 | c >> 6);
    if (c >= 0x800 && c < 0x10000) *at++ = (char)(0xe0 | c >> 12);
    if (c >= 0x10000) *at++ = (char)(0xf0 | c >> 18), *at++ = (char)(0x80 | (c >> 12 & 0x3f));
    if (c >= 0x800) *at++ = (char)(0x80 | (c >> 6 & 0x3f));
    if (c >= 0x80) *at++ = (char)(0x80 | (c & 0x3f));
  }
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.argv = LIST("printf", "%s", text);
  works(&w, execute(&w, &command));
  CHECK_STR(w.ran.stdout_text.data, text);
  world_close(&w);
}

TEST(execute_checks_the_request_here) {
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  failed(&w, execute(&w, &command), SWEREX_E_VALIDATION, "command");
  world_close(&w);
}

TEST(execute_many_at_once) {
  NEEDS("coreutils");
  enum { MANY = 40 };
  world w = world_open();
  swerex_future *futures[MANY];
  for (int i = 0; i < MANY; i++) {
    swerex_command command;
    memset(&command, 0, sizeof command);
    command.argv = LIST("echo", format("%d", i));
    futures[i] = swerex_execute_async(w.runtime, &command, &w.err);
  }
  for (int i = 0; i < MANY; i++) {
    works(&w, swerex_future_take(futures[i], &w.ran, &w.err));
    CHECK_STR(w.ran.stdout_text.data, format("%d\n", i));
    swerex_command_response_clear(&w.ran);
  }
  world_close(&w);
}

TEST(execute_timeout_ends_grandchildren) {
  NEEDS("coreutils");
  ONLY_OURS("the Python server kills the direct child only and waits for the pipe");
  world w = world_open();
  const char *path = fresh("late");
  double start = seconds();
  raised(&w, script(&w, format("(sleep %g; touch %s) | cat; true", 1.5 * PACE, path), 0.3),
         SWEREX_E_COMMAND_TIMEOUT, NULL);
  CHECK(seconds() - start < 1.2 * PACE);
  nap(1.6 * PACE);
  CHECK(!exists(path));
  world_close(&w);
}

TEST(execute_timeout_keeps_the_output) {
  NEEDS("coreutils");
  ONLY_OURS("the Python server drops it");
  world w = world_open();
  failure want = {SWEREX_E_COMMAND_TIMEOUT, NULL, "{\"stdout\":\"part\\n\",\"stderr\":\"e\\n\"}"};
  check_raised(&w, script(&w, "echo part; echo e >&2; sleep 20", 0.5), want);
  world_close(&w);
}

TEST(execute_with_fields_of_ours) {
  NEEDS("coreutils");
  ONLY_OURS("the Python server does not know them");
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = "seq 1 1000";
  command.shell = true;
  command.max_output = 100;
  works(&w, execute(&w, &command));
  CHECK(has(w.ran.stdout_text.data, "bytes left out"));
  command.command = "echo a; sleep 20";
  command.max_output = 0;
  command.idle_timeout = 0.4;
  raised(&w, execute(&w, &command), SWEREX_E_COMMAND_TIMEOUT, "No output for 0.4s while running command");
  world_close(&w);
}

/* --- commands in a session -------------------------------------------------------------------- */

typedef struct session_row {
  const char *name;
  swerex_bash_action action;
  expected output;
  int exit_code;
  const char *part; /* of the output, where that is not one fixed text */
} session_row;

#define SILENT(text) {.command = text, .check = SWEREX_CHECK_SILENT, .timeout = 10}
#define RAISE(text) {.command = text, .timeout = 10}

static const session_row session_rows[] = {
  {"echo", RAISE("echo hi"), .output = TEXT("hi\n")},
  {"nothing printed", RAISE("true"), .output = TEXT("")},
  {"blank", RAISE(""), .output = TEXT("")},
  {"blanks", RAISE("  \t "), .output = TEXT("")},
  {"blank lines", RAISE("\n\n"), .output = TEXT("")},
  {"comment", RAISE("# only a comment"), .output = TEXT("")},
  {"comments on lines", RAISE("# one\n  # two\n"), .output = TEXT("")},
  {"comment behind", RAISE("echo a # b"), .output = TEXT("a\n")},
  {"two lines", RAISE("echo a\necho b"), .output = TEXT("a\nb\n")},
  {"lines around", RAISE("\n\necho a\n\n"), .output = TEXT("a\n")},
  {"stderr is merged in", RAISE("echo a; echo b >&2; echo c"), .output = TEXT("a\nb\nc\n")},
  {"no line feed at the end", RAISE("printf abc"), .output = TEXT("abc")},
  {"ANSI colours go", RAISE("printf '\\033[1;31mred\\033[0m\\n'"), .output = TEXT("red\n")},
  {"the terminal's CRLF becomes LF, once", RAISE("printf 'a\\nb\\n'; printf 'c\\r\\nd'"),
   .output = TEXT("a\nb\nc\r\nd")},
  {"invalid UTF-8", RAISE("printf 'a\\377b\\n'"), .output = TEXT("a\\xffb\n")},
  {"unicode", RAISE("echo 'héllo ☃ 😀'"), .output = TEXT("héllo ☃ 😀\n")},
  {"quotes", RAISE("echo \"it's\" 'a \"b\"' \\' $'x\\'y'"), .output = TEXT("it's a \"b\" ' x'y\n")},
  {"backslashes", RAISE("printf '%s\\n' 'a\\nb' \"c\\\\d\" e\\\\f"), .output = TEXT("a\\nb\nc\\d\ne\\f\n")},
  {"line goes on", RAISE("echo a \\\n  b"), .output = TEXT("a b\n")},
  {"here document", RAISE("cat <<EOF\none $((1 + 1))\nthree\nEOF"), .output = TEXT("one 2\nthree\n")},
  {"quoted here document", RAISE("cat <<'EOF'\n$HOME `x`\nEOF"), .output = TEXT("$HOME `x`\n")},
  {"here string", RAISE("cat <<<hello"), .output = TEXT("hello\n")},
  {"pipe", RAISE("printf 'b\\na\\n' | sort"), .output = TEXT("a\nb\n")},
  {"and or", RAISE("false && echo a || echo b"), .output = TEXT("b\n")},
  {"loop on lines", RAISE("for i in 1 2 3; do\n  echo $i\ndone"), .output = TEXT("1\n2\n3\n")},
  {"case", RAISE("case abc in a*) echo yes ;; *) echo no ;; esac"), .output = TEXT("yes\n")},
  {"arithmetic for", RAISE("for ((i = 0; i < 3; i++)); do echo -n $i; done; echo"), .output = TEXT("012\n")},
  {"double brackets", RAISE("[[ abc =~ b.$ && 2 -gt 1 ]] && echo yes"), .output = TEXT("yes\n")},
  {"process substitution", RAISE("cat <(echo a) <(echo b)"), .output = TEXT("a\nb\n")},
  {"subshell", RAISE("(cd / && pwd); (exit 3) || echo $?"), .output = TEXT("/\n3\n")},
  {"a terminal", RAISE("test -t 0 && test -t 1 && test -t 2 && echo tty"), .output = TEXT("tty\n")},
  {"the server's environment", RAISE("test -n \"$PATH\" && echo yes"), .output = TEXT("yes\n")},
  {"exit code 1", SILENT("false"), TEXT(""), 1, NULL},
  {"exit code 255", SILENT("(exit 255)"), TEXT(""), 255, NULL},
  {"exit code with output", SILENT("echo a; (exit 42)"), TEXT("a\n"), 42, NULL},
  {"exit code of a missing program", SILENT("nosuchprogram"), {NULL, 0}, 127,
   "nosuchprogram: command not found"},
  {"exit code of a signal", SILENT("bash -c 'kill -9 $$'"), {NULL, 0}, 137, ""},
  {"exit code of the last line", SILENT("false\ntrue"), TEXT(""), 0, NULL},
  {"no exit code with ignore",
   {.command = "false", .check = SWEREX_CHECK_IGNORE, .timeout = 10}, TEXT(""), SWEREX_NO_EXIT_CODE,
   NULL},
  {"success with raise", {.command = "true", .error_msg = "unused", .timeout = 10}, .output = TEXT("")},
};

TEST(session_rows) {
  NEEDS("bash");
  world w = world_with_session();
  for (size_t i = 0; i < COUNT(session_rows); i++) {
    const session_row *row = &session_rows[i];
    swerex_bash_action action = row->action;
    int faults = test_faults;
    action.session = w.session;
    bool ok = act(&w, &action);
    works(&w, ok);
    if (ok) check_seen(&w, row->output, row->exit_code, NULL);
    if (ok && row->part != NULL) CHECK(has(w.seen.output.data, row->part));
    row_done(row->name, faults);
  }
  world_close(&w);
}

TEST(session_large_output_and_command) {
  NEEDS("coreutils");
  world w = world_with_session();
  char *lines = keep(20000 * 6), *at = lines;
  for (int i = 1; i <= 20000; i++) at += sprintf(at, "%d\n", i);
  gives(&w, "seq 1 20000", 0, lines);
  gives(&w, "head -c 50000 /dev/zero | tr '\\0' x; echo", 0, format("%s\n", repeat("x", 50000)));
  gives(&w, format("echo %s", repeat("y", 3000)), 0, format("%s\n", repeat("y", 3000)));
  world_close(&w);
}

static const struct {
  const char *command, *error_msg, *message;
} non_zero_rows[] = {
  {"false", NULL, "Command 'false' failed with exit code 1. Here is the output:\n''"},
  {"false", "while here",
   "while here: Command 'false' failed with exit code 1. Here is the output:\n''"},
  {"echo out; (exit 7)", "",
   "Command 'echo out; (exit 7)' failed with exit code 7. Here is the output:\n'out\\n'"},
  {"echo \"it's\"; false", "",
   "Command 'echo \"it\\'s\"; false' failed with exit code 1. Here is the output:\n\"it's\\n\""},
  {"echo é\nfalse", "",
   "Command 'echo é\\nfalse' failed with exit code 1. Here is the output:\n'é\\n'"},
};

TEST(session_non_zero_exit_code) {
  NEEDS("coreutils");
  world w = world_with_session();
  for (size_t i = 0; i < COUNT(non_zero_rows); i++) {
    swerex_bash_action action = action_of(&w, non_zero_rows[i].command, 10);
    int faults = test_faults;
    action.check = SWEREX_CHECK_RAISE;
    action.error_msg = non_zero_rows[i].error_msg;
    raised(&w, act(&w, &action), SWEREX_E_NON_ZERO_EXIT_CODE, non_zero_rows[i].message);
    CHECK(w.err.extra_info == NULL || has(w.err.extra_info, "{\"output\":\"")); /* ours adds it */
    CHECK(swerex_code_is(w.err.code, SWEREX_E_SWEREX) && swerex_code_is(w.err.code, SWEREX_E_RUNTIME));
    row_done(non_zero_rows[i].command, faults);
  }
  gives(&w, "echo on", 0, "on\n");
  world_close(&w);
}

TEST(session_state_persists) {
  NEEDS("bash");
  static const struct {
    const char *command, *output;
  } rows[] = {
    {"cd /usr/bin", ""}, {"pwd", "/usr/bin\n"},
    {"export A='x y'; b=2", ""}, {"echo $A $b", "x y 2\n"}, {"sh -c 'echo \"$A\"'", "x y\n"},
    {"f() { echo \"f $1\"; return 3; }", ""}, {"f 1 || echo $?", "f 1\n3\n"},
    {"alias hi='echo hello'", ""}, {"hi you", "hello you\n"},
    {"list=(a b c)", ""}, {"echo ${list[1]} ${#list[@]}", "b 3\n"},
    {"set -f", ""}, {"echo *", "*\n"}, {"umask 027; umask", "0027\n"},
    {"unset A", ""}, {"echo [$A]", "[]\n"},
  };
  world w = world_with_session();
  for (size_t i = 0; i < COUNT(rows); i++) gives(&w, rows[i].command, 0, rows[i].output);
  world_close(&w);
}

TEST(session_jobs_persist) {
  NEEDS("coreutils");
  world w = world_with_session();
  works(&w, run(&w, "sleep 30 &"));
  works(&w, run(&w, "jobs"));
  CHECK(has(w.seen.output.data, "sleep 30"));
  works(&w, run(&w, "kill -9 %1; wait; true")); /* ash's child ignores a TERM right behind its fork */
  world_close(&w);
}

TEST(session_name_may_be_anything) {
  NEEDS("coreutils");
  const char *const names[] = {"ünï ☃/..", "a\"b\\c", "it's", repeat("x", 200)};
  world w = world_open();
  for (size_t i = 0; i < COUNT(names); i++) {
    w.session = names[i];
    works(&w, create(&w, w.session));
    gives(&w, "echo in", 0, "in\n");
    works(&w, close_session(&w, w.session));
  }
  w.session = NULL;
  world_close(&w);
}

TEST(session_default_is_its_name) {
  NEEDS("coreutils");
  world w = world_open();
  works(&w, swerex_create_session(w.runtime, NULL, NULL, &w.err));
  gives(&w, "echo d", 0, "d\n");
  swerex_bash_observation_clear(&w.seen);
  works(&w, swerex_interrupt_session(w.runtime, NULL, &w.seen, &w.err));
  CHECK_INT(w.seen.exit_code, 0);
  w.session = "default";
  gives(&w, "echo e", 0, "e\n");
  works(&w, swerex_close_session(w.runtime, NULL, NULL, &w.err));
  w.session = NULL;
  world_close(&w);
}

TEST(session_exists) {
  NEEDS("coreutils");
  world w = world_with_session();
  raised(&w, create(&w, w.session), SWEREX_E_SESSION_EXISTS,
         format("session %s already exists", w.session));
  CHECK(swerex_code_is(w.err.code, SWEREX_E_VALUE));
  gives(&w, "echo alive", 0, "alive\n");
  world_close(&w);
}

TEST(session_does_not_exist) {
  static const char message[] = "session \"no'such\" does not exist";
  world w = world_open();
  w.session = "no'such";
  raised(&w, run(&w, "true"), SWEREX_E_SESSION_DOES_NOT_EXIST, message);
  raised(&w, interrupt(&w), SWEREX_E_SESSION_DOES_NOT_EXIST, message);
  raised(&w, close_session(&w, w.session), SWEREX_E_SESSION_DOES_NOT_EXIST, message);
  w.session = NULL;
  world_close(&w);
}

/** Wait until a process has ended. */
static bool gone(int pid) {
  for (int i = 0; i < 100; i++) {
    char path[64], state[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) return true;
    char *line = fgets(state, sizeof state, file);
    fclose(file);
    char *at = line == NULL ? NULL : strrchr(state, ')');
    if (at == NULL || at[2] == 'Z' || at[2] == 'X') return true;
    nap(0.05);
  }
  return false;
}

TEST(session_closed_and_made_again) {
  NEEDS("coreutils");
  world w = world_with_session();
  works(&w, run(&w, "X=1; echo $$"));
  int pid = w.seen.output.data == NULL ? 0 : atoi(w.seen.output.data);
  works(&w, close_session(&w, w.session));
  raised(&w, run(&w, "true"), SWEREX_E_SESSION_DOES_NOT_EXIST, NULL);
  CHECK(pid > 1 && gone(pid));
  works(&w, create(&w, w.session));
  gives(&w, "echo [$X]", 0, "[]\n");
  world_close(&w);
}

TEST(session_whose_shell_exits) {
  NEEDS("coreutils");
  world w = world_with_session();
  CHECK(!run_for(&w, "exit 3", 3) || w.seen.failure_reason.size > 0);
  CHECK(!run_for(&w, "echo more", 3));
  CHECK(swerex_code_is(w.err.code, SWEREX_E_SWEREX) || swerex_code_is(w.err.code, SWEREX_E_OS));
  works(&w, close_session(&w, w.session));
  works(&w, create(&w, w.session));
  gives(&w, "echo back", 0, "back\n");
  world_close(&w);
}

TEST(session_startup_source) {
  NEEDS("coreutils");
  world w = world_open();
  swerex_create_bash_session_request request;
  swerex_create_bash_session_response response;
  memset(&request, 0, sizeof request);
  memset(&response, 0, sizeof response);
  request.session = fresh_name();
  request.startup_source =
    LIST(put(expand("{TMP}/source/one.sh"), "export ONE=1\necho from-one\nPS1='odd> '\n"),
         put(expand("{TMP}/source/two.sh"), "TWO=$((ONE + 1))\nhelper() { echo helped; }\n"));
  request.startup_timeout = 10;
  works(&w, swerex_create_session(w.runtime, &request, &response, &w.err));
  CHECK(has(response.output.data, "from-one\n"));
  swerex_create_bash_session_response_clear(&response);
  w.session = request.session;
  gives(&w, "echo $ONE $TWO; helper", 0, "1 2\nhelped\n");
  world_close(&w);
}

TEST(session_startup_source_is_missing) {
  NEEDS("bash");
  world w = world_open();
  swerex_create_bash_session_request request;
  swerex_create_bash_session_response response;
  memset(&request, 0, sizeof request);
  memset(&response, 0, sizeof response);
  request.session = w.session = fresh_name();
  request.startup_source = LIST("/nonexist");
  works(&w, swerex_create_session(w.runtime, &request, &response, &w.err));
  CHECK(has(response.output.data, "bash: /nonexist: No such file or directory\n"));
  swerex_create_bash_session_response_clear(&response);
  world_close(&w);
}

TEST(session_startup_timeout) {
  world w = world_open();
  swerex_create_bash_session_request request;
  double start = seconds();
  memset(&request, 0, sizeof request);
  request.session = fresh_name();
  request.startup_source = LIST(put(expand("{TMP}/source/slow.sh"), format("sleep %g\n", 4 * PACE)));
  request.startup_timeout = 0.5;
  CHECK(!swerex_create_session(w.runtime, &request, NULL, &w.err));
  CHECK_INT(w.err.http_status, 511);
  CHECK(seconds() - start < 3 * PACE);
  world_close(&w);
}

TEST(syntax_error_message) {
  NEEDS("bash");
  static const char errors[] =
    "bash: line 1: syntax error near unexpected token `a'\nbash: line 1: `echo (a'\n";
  world w = world_with_session();
  failure want = {SWEREX_E_BASH_INCORRECT_SYNTAX,
                  format("Error (exit code 2) while checking bash command \n'echo (a'\n"
                         "---- Stderr ----\n%s\n---- Stdout ----\n", errors),
                  "{\"bash_stdout\":\"\",\"bash_stderr\":\"bash: line 1: syntax error near "
                  "unexpected token `a'\\nbash: line 1: `echo (a'\\n\"}"};
  check_raised(&w, run(&w, "echo (a"), want);
  world_close(&w);
}

TEST(syntax_error_runs_nothing) {
  NEEDS("bash");
  static const char *const commands[] = {"echo (a", "if true; then", "echo 'open",
                                         "for", "echo a; )", "touch /nonexist/x; done"};
  static const swerex_check checks[] = {SWEREX_CHECK_RAISE, SWEREX_CHECK_SILENT, SWEREX_CHECK_IGNORE};
  world w = world_with_session();
  for (size_t i = 0; i < COUNT(commands) * COUNT(checks); i++) {
    const char *path = fresh("ran"), *command = commands[i / COUNT(checks)];
    int faults = test_faults;
    swerex_bash_action action = action_of(&w, format("touch %s\n%s", path, command), 5);
    action.check = checks[i % COUNT(checks)];
    raised(&w, act(&w, &action), SWEREX_E_BASH_INCORRECT_SYNTAX,
           "~Error (exit code 2) while checking bash command \n");
    CHECK(has(w.err.message, "\n---- Stderr ----\nbash: line "));
    CHECK(has(w.err.extra_info, "\"bash_stdout\":\"\""));
    CHECK(has(w.err.extra_info, "\"bash_stderr\":\"bash: line "));
    CHECK(!exists(path));
    row_done(command, faults);
  }
  gives(&w, "echo on", 0, "on\n");
  world_close(&w);
}

TEST(session_command_keeps_tabs_and_exclamation_marks) {
  NEEDS("coreutils");
  ONLY_OURS("readline of the Python server's shell eats them");
  world w = world_with_session();
  gives(&w, "cat <<'EOF'\na\tb\nEOF\necho \"wow!x\"", 0, "a\tb\nwow!x\n");
  world_close(&w);
}

/* --- sessions next to each other -------------------------------------------------------------- */

static swerex_future *start_run(world *w, const char *session, const char *command) {
  swerex_bash_action action = action_of(w, command, 20);
  action.session = session;
  return swerex_run_in_session_async(w->runtime, &action, &w->err);
}

static void take_run(world *w, swerex_future *future, const char *output) {
  swerex_bash_observation_clear(&w->seen);
  bool ok = swerex_future_take(future, &w->seen, &w->err);
  works(w, ok);
  if (ok) CHECK_STR(w->seen.output.data, output);
}

TEST(sessions_are_apart) {
  NEEDS("coreutils");
  world w = world_with_session();
  const char *other = fresh_name(), *own = w.session;
  works(&w, create(&w, other));
  swerex_future *a = start_run(&w, own, "X=1; cd /"), *b = start_run(&w, other, "X=2; cd /tmp");
  take_run(&w, a, "");
  take_run(&w, b, "");
  a = start_run(&w, own, "echo $X $PWD");
  b = start_run(&w, other, "echo $X $PWD");
  take_run(&w, b, "2 /tmp\n");
  take_run(&w, a, "1 /\n");
  raised(&w, run_for(&w, "sleep 20", 0.2), SWEREX_E_COMMAND_TIMEOUT, NULL);
  w.session = other;
  gives(&w, "echo b", 0, "b\n");
  w.session = own;
  works(&w, interrupt(&w));
  gives(&w, "echo a", 0, "a\n");
  works(&w, close_session(&w, other));
  world_close(&w);
}

TEST(actions_on_one_session_keep_their_order) {
  NEEDS("coreutils");
  enum { MANY = 30 };
  world w = world_with_session();
  const char *path = fresh("order");
  swerex_future *futures[MANY];
  char *want = keep(MANY * 4), *at = want;
  for (int i = 0; i < MANY; i++) {
    futures[i] = start_run(&w, w.session, format("echo %d >>%s", i, path));
    at += sprintf(at, "%d\n", i);
  }
  for (int i = 0; i < MANY; i++) take_run(&w, futures[i], "");
  swerex_bytes got = file_of(path);
  CHECK_STR(got.data, want);
  world_close(&w);
}

TEST(sessions_run_at_the_same_time) {
  NEEDS("coreutils");
  ONLY_OURS("one command blocks the whole Python server");
  world w = world_with_session();
  const char *other = fresh_name();
  swerex_command command;
  works(&w, create(&w, other));
  double start = seconds();
  const char *nap_for_a_while = format("sleep %g", PACE);
  swerex_future *a = start_run(&w, w.session, nap_for_a_while);
  swerex_future *b = start_run(&w, other, nap_for_a_while);
  memset(&command, 0, sizeof command);
  command.argv = LIST("sleep", format("%g", PACE));
  works(&w, execute(&w, &command));
  take_run(&w, a, "");
  take_run(&w, b, "");
  CHECK(seconds() - start < 1.9 * PACE);
  works(&w, close_session(&w, other));
  world_close(&w);
}

TEST(interrupt_goes_ahead_of_what_waits) {
  NEEDS("coreutils");
  ONLY_OURS("one command blocks the whole Python server");
  world w = world_with_session();
  double start = seconds();
  swerex_future *first = start_run(&w, w.session, "echo before; sleep 30");
  swerex_future *second = start_run(&w, w.session, "echo next");
  for (int i = 0; i < 10; i++) swerex_loop_run(w.loop, 0.05, NULL);
  works(&w, interrupt(&w));
  swerex_future_take(first, NULL, &w.err);
  take_run(&w, second, "next\n");
  CHECK(seconds() - start < 5 * PACE);
  world_close(&w);
}

TEST(is_alive_answers_while_a_command_runs) {
  NEEDS("coreutils");
  ONLY_OURS("one command blocks the whole Python server");
  world w = world_with_session();
  swerex_is_alive_request request = {PACE};
  swerex_is_alive_response alive;
  memset(&alive, 0, sizeof alive);
  swerex_future *busy = start_run(&w, w.session, format("sleep %g", 1.5 * PACE));
  for (int i = 0; i < 10; i++) swerex_loop_run(w.loop, 0.03, NULL);
  double start = seconds();
  works(&w, swerex_is_alive(w.runtime, &request, &alive, &w.err));
  CHECK(alive.is_alive && seconds() - start < 0.5 * PACE && !swerex_future_done(busy));
  swerex_is_alive_response_clear(&alive);
  take_run(&w, busy, "");
  world_close(&w);
}

/* --- expect and interactive programs ---------------------------------------------------------- */

static const struct {
  const char *name, *command;
  const char *const *patterns;
  const char *matched;
  expected before;
} expect_rows[] = {
  {"text", "echo start; echo END; sleep 20", LIST("END"), "END", TEXT("start\n")},
  {"regular expression", "echo a1b22c; sleep 20", LIST("b\\d+"), "b\\d+", TEXT("a1")},
  {"dot matches a line feed", "echo one; echo two; sleep 20", LIST("on.*tw"), "on.*tw", TEXT("")},
  {"first match in the text wins", "echo xbxa; sleep 20", LIST("a", "b"), "b", TEXT("x")},
  {"first in the list wins", "echo zab; sleep 20", LIST("ab", "a"), "ab", TEXT("z")},
  {"groups and classes", "echo 'key=[v]'; sleep 20", LIST("(?P<k>k\\w+)=\\[(v|w)\\]"),
   "(?P<k>k\\w+)=\\[(v|w)\\]", TEXT("")},
  {"case flag", "echo READY; sleep 20", LIST("(?i)ready"), "(?i)ready", TEXT("")},
  {"escaped prompt", "echo '(gdb) '; sleep 20", LIST("\\(gdb\\) "), "\\(gdb\\) ", TEXT("")},
  {"unicode", "echo 'a☃b'; sleep 20", LIST("☃"), "☃", TEXT("a")},
};

TEST(expect_rows) {
  NEEDS("coreutils");
  for (size_t i = 0; i < COUNT(expect_rows); i++) {
    world w = world_with_session();
    int faults = test_faults;
    swerex_bash_action action = action_of(&w, expect_rows[i].command, 8);
    action.expect = expect_rows[i].patterns;
    action.check = SWEREX_CHECK_IGNORE;
    bool ok = act(&w, &action);
    works(&w, ok);
    if (ok) check_seen(&w, expect_rows[i].before, SWEREX_NO_EXIT_CODE, expect_rows[i].matched);
    works(&w, interrupt(&w));
    row_done(expect_rows[i].name, faults);
    world_close(&w);
  }
}

TEST(expect_without_a_match_ends_at_the_prompt) {
  NEEDS("coreutils");
  world w = world_with_session();
  swerex_bash_action action = action_of(&w, "echo abc", 5);
  expected want = TEXT("abc\n");
  action.expect = LIST("never", "\\d{3}");
  works(&w, act(&w, &action));
  check_seen(&w, want, 0, NULL);
  world_close(&w);
}

TEST(expect_while_the_command_goes_on) {
  NEEDS("coreutils");
  world w = world_with_session();
  swerex_bash_action action = action_of(&w, "echo abc; sleep 20", 5);
  action.expect = LIST("b");
  works(&w, act(&w, &action));
  CHECK_INT(w.seen.exit_code, SWEREX_NO_EXIT_CODE);
  CHECK_STR(w.seen.expect_string.data, "b");
  const char *before = format("%s", w.seen.output.data == NULL ? "" : w.seen.output.data);
  works(&w, interrupt(&w)); /* what follows the match is in either output */
  const char *both = format("%s%s", before, w.seen.output.data == NULL ? "" : w.seen.output.data);
  CHECK(strncmp(both, "ac", 2) == 0 && strspn(both + 2, "\n") == strlen(both + 2));
  action.check = SWEREX_CHECK_RAISE;
  raised(&w, act(&w, &action), SWEREX_E_NO_EXIT_CODE, "~timeout while getting exit code");
  works(&w, interrupt(&w));
  gives(&w, "echo on", 0, "on\n");
  world_close(&w);
}

TEST(expect_pattern_that_is_not_valid) {
  NEEDS("coreutils");
  static const char *const patterns[] = {"(", "[a", "*", "a{2,1}"};
  for (size_t i = 0; i < COUNT(patterns); i++) {
    world w = world_with_session();
    int faults = test_faults;
    swerex_bash_action action = action_of(&w, "echo abc", 5);
    action.expect = LIST(patterns[i]);
    raised(&w, act(&w, &action), SWEREX_E_PATTERN, NULL);
    row_done(patterns[i], faults);
    world_close(&w);
  }
}

TEST(interactive_python) {
  NEEDS("python3");
  static const struct {
    const char *line, *output;
  } rows[] = {{"print('hello world')", "hello world"}, {"x = 21", ""}, {"print(x * 2)", "42"}, {"", ""}};
  world w = world_with_session();
  works(&w, talk(&w, "python3 -q", ">>> "));
  CHECK_INT(w.seen.exit_code, 0);
  CHECK_STR(w.seen.expect_string.data, ">>> ");
  for (size_t i = 0; i < COUNT(rows); i++) {
    expected want = {rows[i].output, strlen(rows[i].output)};
    int faults = test_faults;
    works(&w, talk(&w, rows[i].line, ">>> "));
    check_seen(&w, want, 0, ">>> ");
    row_done(rows[i].line, faults);
  }
  works(&w, talk(&w, "1 / 0", ">>> "));
  CHECK(has(w.seen.output.data, "ZeroDivisionError"));
  works(&w, talk(&w, "def f():", "\\.\\.\\. "));
  CHECK_STR(w.seen.expect_string.data, "\\.\\.\\. ");
  works(&w, talk(&w, "  return 'in'", "\\.\\.\\. "));
  works(&w, talk(&w, "", ">>> "));
  works(&w, talk(&w, "f()", ">>> "));
  CHECK(has(w.seen.output.data, "'in'"));
  works(&w, quit(&w, "quit()\n"));
  CHECK_INT(w.seen.exit_code, 0);
  CHECK_STR(w.seen.expect_string.data, PROMPT);
  gives(&w, "echo back; (exit 4)", 4, "back\n");
  world_close(&w);
}

/** A debugger as far as this test goes: a prompt, and an answer to each line. */
static const char fake_gdb[] =
  "#!/bin/sh\n"
  "echo 'GNU gdb'\n"
  "while printf '(gdb) ' && read -r line; do\n"
  "  case $line in\n"
  "  break*) echo \"Breakpoint 1 at 0x1139: file a.c, line 3.\" ;;\n"
  "  run) echo 'Starting program'; sleep 0.3; echo 'Breakpoint 1, main () at a.c:3' ;;\n"
  "  print*) echo '$1 = 42' ;;\n"
  "  kill) printf 'Kill it? (y or n) '; read -r yes; echo \"said $yes\" ;;\n"
  "  q*) exit 0 ;;\n"
  "  esac\n"
  "done\n";

TEST(interactive_debugger) {
  NEEDS("coreutils");
  static const struct {
    const char *line, *expect, *part;
  } rows[] = {{"break main", "\\(gdb\\) ", "Breakpoint 1 at 0x1139: file a.c, line 3."},
              {"run", "\\(gdb\\) ", "Breakpoint 1, main () at a.c:3"},
              {"print x", "\\(gdb\\) ", "$1 = 42"},
              {"kill", "\\(y or n\\) ", "Kill it?"},
              {"y", "\\(gdb\\) ", "said y"}};
  world w = world_with_session();
  const char *program = put_bytes(fresh("gdb"), fake_gdb, sizeof fake_gdb - 1, 0755);
  works(&w, talk(&w, program, "\\(gdb\\) "));
  CHECK(has(w.seen.output.data, "GNU gdb"));
  for (size_t i = 0; i < COUNT(rows); i++) {
    int faults = test_faults;
    works(&w, talk(&w, rows[i].line, rows[i].expect));
    CHECK_STR(w.seen.expect_string.data, rows[i].expect);
    CHECK(has(w.seen.output.data, rows[i].part));
    row_done(rows[i].line, faults);
  }
  works(&w, quit(&w, "quit"));
  gives(&w, "echo back", 0, "back\n");
  world_close(&w);
}

TEST(interactive_real_gdb) {
  NEEDS("gdb");
  if (!shell_true("command -v gdb >/dev/null")) SKIP("gdb is not installed");
  world w = world_with_session();
  works(&w, talk(&w, "gdb -q -nx", "\\(gdb\\) "));
  works(&w, talk(&w, "print 6 * 7", "\\(gdb\\) "));
  CHECK(has(w.seen.output.data, "$1 = 42"));
  works(&w, talk(&w, "info registers", "\\(gdb\\) "));
  CHECK(has(w.seen.output.data, "no registers"));
  works(&w, quit(&w, "quit"));
  gives(&w, "echo back", 0, "back\n");
  world_close(&w);
}

TEST(interactive_answer_to_read) {
  NEEDS("coreutils");
  world w = world_with_session();
  works(&w, talk(&w, "read -p 'name? ' n; echo hello $n", "name\\? "));
  CHECK_STR(w.seen.expect_string.data, "name\\? ");
  works(&w, talk(&w, "Ada", NULL));
  CHECK(has(w.seen.output.data, "hello Ada"));
  CHECK_INT(w.seen.exit_code, 0);
  CHECK_STR(w.seen.expect_string.data, PROMPT);
  world_close(&w);
}

TEST(interactive_command_that_ends_by_itself) {
  NEEDS("coreutils");
  world w = world_with_session();
  expected want = TEXT("hi");
  works(&w, talk(&w, "echo hi", NULL));
  check_seen(&w, want, 0, NULL);
  world_close(&w);
}

TEST(interactive_timeout) {
  NEEDS("coreutils");
  world w = world_with_session();
  swerex_bash_action action = action_of(&w, "cat", 0.4);
  action.is_interactive_command = true;
  action.expect = LIST("never");
  raised(&w, act(&w, &action), SWEREX_E_COMMAND_TIMEOUT,
         "timeout after 0.4 seconds while running command 'cat'");
  works(&w, interrupt(&w));
  gives(&w, "echo on", 0, "on\n");
  world_close(&w);
}

/* --- interrupts and time limits --------------------------------------------------------------- */

TEST(timeout_then_interrupt_then_go_on) {
  NEEDS("coreutils");
  static const struct {
    double limit;
    const char *shown;
  } rows[] = {{0.3, "0.3"}, {0.25, "0.25"}, {1, "1.0"}};
  world w = world_with_session();
  expected nothing = TEXT("");
  works(&w, run(&w, "X=kept"));
  for (size_t i = 0; i < COUNT(rows); i++) {
    double start = seconds();
    raised(&w, run_for(&w, "sleep 30", rows[i].limit), SWEREX_E_COMMAND_TIMEOUT,
           format("timeout after %s seconds while running command 'sleep 30'", rows[i].shown));
    CHECK(swerex_code_is(w.err.code, SWEREX_E_TIMEOUT) && swerex_code_is(w.err.code, SWEREX_E_SWEREX));
    CHECK(seconds() - start < rows[i].limit + 1.7 * PACE);
    works(&w, interrupt(&w));
    check_seen(&w, nothing, 0, NULL);
    gives(&w, "echo $X", 0, "kept\n");
  }
  world_close(&w);
}

TEST(interrupt_while_idle) {
  NEEDS("coreutils");
  world w = world_with_session();
  works(&w, interrupt(&w));
  CHECK(w.seen.output.size == 0 || strcmp(w.seen.output.data, "^C") == 0);
  CHECK_INT(w.seen.exit_code, 0);
  gives(&w, "echo on", 0, "on\n");
  world_close(&w);
}

TEST(interrupt_returns_the_output) {
  NEEDS("coreutils");
  world w = world_with_session();
  raised(&w, run_for(&w, "echo before; sleep 30", 0.5), SWEREX_E_COMMAND_TIMEOUT, NULL);
  works(&w, interrupt_with(&w, 1, 0, NULL));
  CHECK(has(w.seen.output.data, "before"));
  gives(&w, "echo on", 0, "on\n");
  world_close(&w);
}

TEST(interrupt_runs_nothing_behind) {
  NEEDS("coreutils");
  world w = world_with_session();
  const char *path = fresh("behind");
  raised(&w, run_for(&w, format("sleep 30\ntouch %s", path), 0.5), SWEREX_E_COMMAND_TIMEOUT, NULL);
  works(&w, interrupt(&w));
  gives(&w, "echo on", 0, "on\n");
  CHECK(!exists(path));
  world_close(&w);
}

static void start_program(world *w, const char *text) {
  swerex_bash_action action = action_of(w, format("python3 %s", put(fresh("p.py"), text)), 10);
  action.expect = LIST("up");
  action.check = SWEREX_CHECK_IGNORE;
  works(w, act(w, &action));
  CHECK_STR(w->seen.expect_string.data, "up");
}

TEST(interrupt_of_a_program_that_ignores_it) {
  NEEDS("python3");
  world w = world_with_session();
  start_program(&w, "import signal, time\nsignal.signal(2, signal.SIG_IGN)\n"
                    "print('up', flush=True)\ntime.sleep(60)\n");
  works(&w, interrupt_with(&w, 0, 2, NULL));
  CHECK_INT(w.seen.exit_code, 0);
  works(&w, run(&w, "echo on")); /* bash's notice of the killed job may stand around it */
  CHECK(has(w.seen.output.data, "on\n"));
  gives(&w, "echo on", 0, "on\n");
  world_close(&w);
}

TEST(interrupt_with_expect) {
  NEEDS("python3");
  world w = world_with_session();
  start_program(&w, "import signal, time\n"
                    "signal.signal(2, lambda *a: print('CAUGHT', flush=True))\n"
                    "print('up', flush=True)\nwhile True: time.sleep(1)\n");
  works(&w, interrupt_with(&w, 1, 0, LIST("C.UGHT")));
  CHECK_INT(w.seen.exit_code, 0);
  CHECK_STR(w.seen.expect_string.data, "C.UGHT");
  works(&w, interrupt_with(&w, 0, 1, NULL));
  world_close(&w);
}

/* --- output as it arrives --------------------------------------------------------------------- */

typedef struct heard {
  char *text[2]; /* of stdout and stderr */
  size_t size[2];
  int pieces;
  double first; /* when the first piece came */
} heard;

static void hear(void *user_data, swerex_stream stream, const char *text, size_t size) {
  heard *h = (heard *)user_data;
  int i = stream == SWEREX_STDERR;
  h->text[i] = (char *)realloc(h->text[i], h->size[i] + size + 1);
  if (h->text[i] == NULL) abort();
  memcpy(h->text[i] + h->size[i], text, size);
  h->size[i] += size;
  h->text[i][h->size[i]] = '\0';
  if (h->pieces++ == 0) h->first = seconds();
}

static void heard_clear(heard *h) {
  free(h->text[0]);
  free(h->text[1]);
  memset(h, 0, sizeof *h);
}

static void check_heard(const heard *h, int stream, swerex_bytes want) {
  test_mem(__FILE__, __LINE__, "heard", h->text[stream], h->size[stream],
           want.data == NULL ? "" : want.data, want.size);
}

static const char *const watched[] = {
  "echo a; echo b >&2; echo c",
  "true",
  "seq 1 30000; seq 1 20000 >&2",
  "printf 'a\\r\\nb\\rc'; sleep 0.1; printf '\\nd'",
  "printf 'a\\377\\342\\202'; sleep 0.1; printf '\\254b\\300'",
  "for i in 1 2 3 4 5; do printf 'x☃\"\\\\%s' $i; sleep 0.05; done",
  "printf '\\033[1mbold\\033[0m'",
};

TEST(watch_hears_what_execute_returns) {
  NEEDS("coreutils");
  world w = world_open();
  for (size_t i = 0; i < COUNT(watched); i++) {
    int faults = test_faults;
    heard h;
    swerex_command command;
    memset(&h, 0, sizeof h);
    memset(&command, 0, sizeof command);
    command.command = watched[i];
    command.shell = true;
    command.watch.on_output = hear;
    command.watch.user_data = &h;
    works(&w, execute(&w, &command));
    check_heard(&h, 0, w.ran.stdout_text);
    check_heard(&h, 1, w.ran.stderr_text);
    row_done(watched[i], faults);
    heard_clear(&h);
  }
  world_close(&w);
}

TEST(watch_hears_what_a_session_returns) {
  NEEDS("coreutils");
  world w = world_with_session();
  for (size_t i = 0; i < COUNT(watched); i++) {
    int faults = test_faults;
    heard h;
    swerex_bash_action action = action_of(&w, watched[i], 20);
    memset(&h, 0, sizeof h);
    action.watch.on_output = hear;
    action.watch.user_data = &h;
    works(&w, act(&w, &action));
    check_heard(&h, 0, w.seen.output);
    CHECK_INT(h.size[1], 0);
    row_done(watched[i], faults);
    heard_clear(&h);
  }
  world_close(&w);
}

TEST(watch_hears_before_the_end) {
  NEEDS("coreutils");
  ONLY_OURS("the Python server sends all at the end");
  world w = world_with_session();
  for (int i = 0; i < 2; i++) {
    heard h;
    swerex_bash_action action = action_of(&w, "echo first; sleep 1; echo second", 20);
    swerex_command command;
    memset(&h, 0, sizeof h);
    memset(&command, 0, sizeof command);
    command.command = action.command;
    command.shell = true;
    command.watch.on_output = action.watch.on_output = hear;
    command.watch.user_data = action.watch.user_data = &h;
    works(&w, i == 0 ? execute(&w, &command) : act(&w, &action));
    CHECK(h.pieces >= 2 && seconds() - h.first > 0.6);
    heard_clear(&h);
  }
  world_close(&w);
}

TEST(watch_hears_what_a_timeout_cuts) {
  NEEDS("coreutils");
  ONLY_OURS("the Python server sends no output then");
  world w = world_open();
  heard h;
  swerex_command command;
  memset(&h, 0, sizeof h);
  memset(&command, 0, sizeof command);
  command.command = "echo part; sleep 20";
  command.shell = true;
  command.timeout = 0.5;
  command.watch.on_output = hear;
  command.watch.user_data = &h;
  raised(&w, execute(&w, &command), SWEREX_E_COMMAND_TIMEOUT, NULL);
  CHECK_STR(h.text[0], "part\n");
  heard_clear(&h);
  world_close(&w);
}

TEST(watch_does_not_hide_errors) {
  NEEDS("coreutils");
  world w = world_open();
  heard h;
  swerex_command command;
  memset(&h, 0, sizeof h);
  memset(&command, 0, sizeof command);
  command.command = "nosuchprogram";
  command.watch.on_output = hear;
  command.watch.user_data = &h;
  raised(&w, execute(&w, &command), SWEREX_E_FILE_NOT_FOUND,
         "[Errno 2] No such file or directory: 'nosuchprogram'");
  CHECK_INT(h.pieces, 0);
  command.command = "exit 3";
  command.shell = command.check = true;
  raised(&w, execute(&w, &command), SWEREX_E_NON_ZERO_EXIT_CODE, "~failed with exit code 3");
  heard_clear(&h);
  world_close(&w);
}

/** Two things are watched at once: each hears its own. */
TEST(watch_two_at_once) {
  NEEDS("coreutils");
  world w = world_open();
  heard h[2];
  swerex_future *futures[2];
  memset(h, 0, sizeof h);
  for (int i = 0; i < 2; i++) {
    swerex_command command;
    memset(&command, 0, sizeof command);
    command.command = i == 0 ? "seq 1 2000; sleep 0.2; seq 1 9" : "seq 5000 9000; sleep 0.1; seq 7 8";
    command.shell = true;
    command.watch.on_output = hear;
    command.watch.user_data = &h[i];
    futures[i] = swerex_execute_async(w.runtime, &command, &w.err);
  }
  for (int i = 0; i < 2; i++) {
    swerex_command_response_clear(&w.ran);
    works(&w, swerex_future_take(futures[i], &w.ran, &w.err));
    check_heard(&h[i], 0, w.ran.stdout_text);
    heard_clear(&h[i]);
  }
  world_close(&w);
}

/* --- files ------------------------------------------------------------------------------------ */

#define UNI "a\xc3\xa9\xe2\x98\x83\xf0\x9f\x98\x80\n" /* aé☃😀 */

typedef struct read_row {
  const char *name;
  const char *path; /* NULL: a file with `bytes` */
  expected bytes;
  const char *encoding, *errors;
  expected content;
  failure fails; /* code OK: it works */
} read_row;

static const read_row read_rows[] = {
  {"empty", NULL, TEXT(""), NULL, NULL, .content = TEXT("")},
  {"UTF-8", NULL, TEXT(UNI), NULL, NULL, .content = TEXT(UNI)},
  {"UTF-8 named", NULL, TEXT(UNI), "UTF8", NULL, .content = TEXT(UNI)},
  {"UTF-8 with a mark", NULL, TEXT("\xef\xbb\xbf" "a"), NULL, NULL,
   .content = TEXT("\xef\xbb\xbf" "a")},
  {"utf-8-sig", NULL, TEXT("\xef\xbb\xbf" "a"), "utf-8-sig", NULL, .content = TEXT("a")},
  {"utf-16", NULL, TEXT("\xff\xfe" "a\0\xe9\0=\xd8\0\xde"), "utf-16", NULL,
   .content = TEXT("aé😀")},
  {"utf-16-le", NULL, TEXT("a\0\xe9\0=\xd8\0\xde"), "utf-16-le", NULL, .content = TEXT("aé😀")},
  {"utf-16-be", NULL, TEXT("\0a\0\xe9\xd8=\xde\0"), "utf_16_be", NULL, .content = TEXT("aé😀")},
  {"latin-1", NULL, TEXT("a\xe9\xff"), "latin-1", NULL, .content = TEXT("aéÿ")},
  {"ISO-8859-1", NULL, TEXT("\xe9"), "ISO-8859-1", NULL, .content = TEXT("é")},
  {"cp1252", NULL, TEXT("\x80\x93"), "cp1252", NULL, .content = TEXT("€“")},
  {"ascii", NULL, TEXT("abc"), "ascii", NULL, .content = TEXT("abc")},
  {"NUL and controls", NULL, TEXT("a\0b\x01\x1b\x7f"), NULL, NULL,
   .content = TEXT("a\0b\x01\x1b\x7f")},
  {"CRLF and CR", NULL, TEXT("a\r\nb\rc\n\r\n\rd\r"), NULL, NULL,
   .content = TEXT("a\nb\nc\n\n\nd\n")},
  {"errors ignore", NULL, TEXT("a\xff" "b"), NULL, "ignore", .content = TEXT("ab")},
  {"errors replace", NULL, TEXT("a\xff\xe2\x82" "b"), NULL, "replace",
   .content = TEXT("a\ufffd\ufffdb")},
  {"errors backslashreplace", NULL, TEXT("\xff" "a\xe2\x82"), NULL, "backslashreplace",
   .content = TEXT("\\xffa\\xe2\\x82")},
  {"errors strict, valid", NULL, TEXT("ok"), NULL, "strict", .content = TEXT("ok")},
  {"ascii replace", NULL, TEXT("a\xe9"), "ascii", "replace", .content = TEXT("a\ufffd")},
  {"symbolic link", "{TMP}/link", TEXT(""), NULL, NULL, .content = TEXT("a\nb\n")},
  {"undecodable", NULL, TEXT("a\xff"), NULL, NULL,
   .fails = {SWEREX_E_UNICODE_DECODE,
             "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte", NULL}},
  {"undecodable, cut", NULL, TEXT("ab\xe2\x82"), NULL, NULL,
   .fails = {SWEREX_E_UNICODE_DECODE,
             "'utf-8' codec can't decode bytes in position 2-3: unexpected end of data", NULL}},
  {"undecodable, continuation", NULL, TEXT("\xe2("), NULL, NULL,
   .fails = {SWEREX_E_UNICODE_DECODE,
             "'utf-8' codec can't decode byte 0xe2 in position 0: invalid continuation byte", NULL}},
  {"undecodable ascii", NULL, TEXT("ab\xe9"), "ascii", NULL,
   .fails = {SWEREX_E_UNICODE_DECODE,
             "'ascii' codec can't decode byte 0xe9 in position 2: ordinal not in range(128)", NULL}},
  {"unknown encoding", NULL, TEXT("a"), "nope", NULL,
   .fails = {SWEREX_E_LOOKUP, "unknown encoding: nope", NULL}},
  {"unknown errors", NULL, TEXT("\xff"), NULL, "nope",
   .fails = {SWEREX_E_LOOKUP, "unknown error handler name 'nope'", NULL}},
  {"missing", "/no/such", TEXT(""), NULL, NULL,
   .fails = {SWEREX_E_FILE_NOT_FOUND, "[Errno 2] No such file or directory: '/no/such'", NULL}},
  {"missing, odd name", "/no/it's\n", TEXT(""), NULL, NULL,
   .fails = {SWEREX_E_FILE_NOT_FOUND, "[Errno 2] No such file or directory: \"/no/it's\\n\"", NULL}},
  {"folder", "{TMP}", TEXT(""), NULL, NULL,
   .fails = {SWEREX_E_IS_A_DIRECTORY, "[Errno 21] Is a directory: '{TMP}'", NULL}},
  {"below a file", "{TMP}/bin/plain/x", TEXT(""), NULL, NULL,
   .fails = {SWEREX_E_NOT_A_DIRECTORY, "[Errno 20] Not a directory: '{TMP}/bin/plain/x'", NULL}},
  {"loop of links", "{TMP}/loop", TEXT(""), NULL, NULL,
   .fails = {SWEREX_E_OS, "[Errno 40] Too many levels of symbolic links: '{TMP}/loop'", NULL}},
  {"no permission", "/proc/1/mem-nope/x", TEXT(""), NULL, NULL,
   .fails = {SWEREX_E_FILE_NOT_FOUND, NULL, NULL}},
};

static void put_links(void) {
  put_programs();
  put(expand("{TMP}/crlf"), "a\r\nb\r\n");
  if (!exists(expand("{TMP}/link"))) CHECK(symlink("crlf", expand("{TMP}/link")) == 0);
  if (!exists(expand("{TMP}/loop"))) CHECK(symlink("loop", expand("{TMP}/loop")) == 0);
}

TEST(read_file_rows) {
  world w = world_open();
  put_links();
  for (size_t i = 0; i < COUNT(read_rows); i++) {
    const read_row *row = &read_rows[i];
    int faults = test_faults;
    const char *path = expand(row->path);
    if (path == NULL) path = put_bytes(fresh("read"), row->bytes.data, row->bytes.size, 0644);
    bool ok = read_file(&w, path, row->encoding, row->errors);
    if (row->fails.code != SWEREX_E_OK) {
      check_raised(&w, ok, row->fails);
    } else {
      works(&w, ok);
      if (ok) check_text("content", w.content.content, row->content);
    }
    row_done(row->name, faults);
  }
  world_close(&w);
}

TEST(read_file_name_too_long) {
  world w = world_open();
  const char *path = format("/tmp/%s", repeat("n", 300));
  raised(&w, read_file(&w, path, NULL, NULL), SWEREX_E_OS,
         format("[Errno 36] File name too long: '%s'", path));
  world_close(&w);
}

TEST(read_file_large) {
  world w = world_open();
  const char *text = repeat("0123456789abcde\n", 131072);
  works(&w, read_file(&w, put(fresh("large"), text), NULL, NULL));
  CHECK_INT(w.content.content.size, 2097152);
  CHECK(w.content.content.data != NULL && strcmp(w.content.content.data, text) == 0);
  world_close(&w);
}

static const struct {
  const char *name, *path;
  expected content;
} write_rows[] = {
  {"new file", "{TMP}/w/new", TEXT("text\n")},
  {"empty", "{TMP}/w/empty", TEXT("")},
  {"parents", "{TMP}/w/a/b/c/d/file", TEXT("deep")},
  {"unicode name and content", "{TMP}/w/é☃/😀", TEXT(UNI)},
  {"odd name", "{TMP}/w/a b'\"\\\n", TEXT("x")},
  {"line ends are kept", "{TMP}/w/crlf", TEXT("a\r\nb\rc\n")},
  {"NUL and controls", "{TMP}/w/ctl", TEXT("a\0b\x01\x1b\x7f\u2028")},
};

TEST(write_file_rows) {
  world w = world_open();
  for (size_t i = 0; i < COUNT(write_rows); i++) {
    expected content = write_rows[i].content;
    int faults = test_faults;
    const char *path = expand(write_rows[i].path);
    works(&w, write_bytes(&w, path, content.data, content.size));
    check_file(path, content.data, content.size);
    row_done(write_rows[i].name, faults);
  }
  world_close(&w);
}

static const struct {
  const char *name, *path;
  failure fails;
} write_errors[] = {
  {"folder", "{TMP}", {SWEREX_E_IS_A_DIRECTORY, "[Errno 21] Is a directory: '{TMP}'", NULL}},
  {"parent is a file", "{TMP}/bin/plain/x",
   {SWEREX_E_FILE_EXISTS, "[Errno 17] File exists: '{TMP}/bin/plain'", NULL}},
  {"grandparent is a file", "{TMP}/bin/plain/x/y",
   {SWEREX_E_NOT_A_DIRECTORY, "[Errno 20] Not a directory: '{TMP}/bin/plain/x'", NULL}},
  {"parent cannot be made", "/proc/nope/x",
   {SWEREX_E_FILE_NOT_FOUND, "[Errno 2] No such file or directory: '/proc/nope'", NULL}},
  {"loop of links", "{TMP}/loop",
   {SWEREX_E_OS, "[Errno 40] Too many levels of symbolic links: '{TMP}/loop'", NULL}},
};

TEST(write_file_errors) {
  world w = world_open();
  put_links();
  for (size_t i = 0; i < COUNT(write_errors); i++) {
    int faults = test_faults;
    check_raised(&w, write_text(&w, expand(write_errors[i].path), "x"), write_errors[i].fails);
    row_done(write_errors[i].name, faults);
  }
  const char *path = format("%s/%s", target.folder, repeat("n", 300));
  raised(&w, write_text(&w, path, "x"), SWEREX_E_OS,
         format("[Errno 36] File name too long: '%s'", path));
  world_close(&w);
}

TEST(write_file_large) {
  world w = world_open();
  const char *path = fresh("large"), *text = repeat("0123456789\n", 500000);
  works(&w, write_text(&w, path, text));
  check_text_file(path, text);
  world_close(&w);
}

TEST(write_file_replaces_content_and_keeps_the_mode) {
  world w = world_open();
  const char *path = put_bytes(fresh("mode"), "long old content", 16, 0750);
  works(&w, write_text(&w, path, "new"));
  check_text_file(path, "new");
  CHECK_INT(mode_of(path), 0750);
  world_close(&w);
}

TEST(write_file_through_a_link) {
  world w = world_open();
  const char *path = put(fresh("linked"), "old"), *name = fresh("lnk");
  struct stat info;
  CHECK(symlink(path, name) == 0);
  works(&w, write_text(&w, name, "new"));
  CHECK(lstat(name, &info) == 0 && S_ISLNK(info.st_mode));
  check_text_file(path, "new");
  world_close(&w);
}

TEST(written_file_is_read_back) {
  world w = world_open();
  const char *path = fresh("back"), *texts[] = {UNI, "", repeat("a", 70000)};
  for (size_t i = 0; i < COUNT(texts); i++) {
    works(&w, write_text(&w, path, texts[i]));
    works(&w, read_file(&w, path, NULL, NULL));
    CHECK_INT(w.content.content.size, strlen(texts[i]));
    CHECK_STR(w.content.content.size == 0 ? "" : w.content.content.data, texts[i]);
  }
  world_close(&w);
}

/* --- uploads ---------------------------------------------------------------------------------- */

/** Bytes that are no text, among them what looks like a form's boundary. */
static const char *bytes_of(size_t size) {
  static const char trap[] = "\r\n--boundary\r\n\r\n--\r\n--swerex-\r\n--\r\n\r-\n";
  char *out = keep(size);
  unsigned state = 12345;
  for (size_t i = 0; i < size; i++) {
    state = state * 1103515245U + 12345U;
    out[i] = (char)(state >> 16);
  }
  for (size_t at = 100; at + sizeof trap < size; at += 20000) memcpy(out + at, trap, sizeof trap - 1);
  return out;
}

static const struct {
  const char *name, *source, *path;
  size_t size;
} file_rows[] = {
  {"binary", "bin", "{TMP}/up/bin", 10313},
  {"empty", "none", "{TMP}/up/none", 0},
  {"one byte", "one", "{TMP}/up/one", 1},
  {"unicode name", "é ☃ \"q\".txt", "{TMP}/up/é ☃ \"q\".txt", 100},
  {"name with a line feed", "a\nb; c=d\\", "{TMP}/up/a\nb; c=d\\", 100},
  {"into new folders", "deep", "{TMP}/up/a/b/file", 4},
  {"other name", "first", "{TMP}/up/second", 5000},
  {"size of a buffer", "buffer", "{TMP}/up/buffer", 16384},
  {"5 MB", "large", "{TMP}/up/large", 5242880},
  {"40 MB", "larger", "{TMP}/up/larger", 41943040},
};

TEST(upload_file_rows) {
  world w = world_open();
  for (size_t i = 0; i < COUNT(file_rows); i++) {
    size_t size = file_rows[i].size;
    int faults = test_faults;
    const char *data = bytes_of(size), *path = expand(file_rows[i].path);
    const char *source = format("%s/up-src/%s", target.folder, file_rows[i].source);
    put_bytes(source, data, size, 0644);
    works(&w, upload(&w, source, path));
    check_file(path, data, size);
    check_file(source, data, size);
    row_done(file_rows[i].name, faults);
  }
  world_close(&w);
}

typedef struct entry {
  const char *name; /* ends in '/': a folder; NULL: the end */
  size_t size;
  mode_t mode; /* 0: 0644 */
} entry;

static const char *make_tree(const entry *entries) {
  const char *root = fresh("tree");
  make_folders(format("%s/", root));
  for (; entries->name != NULL; entries++) {
    const char *path = format("%s/%s", root, entries->name);
    make_folders(path);
    if (path[strlen(path) - 1] != '/')
      put_bytes(path, bytes_of(entries->size), entries->size, entries->mode != 0 ? entries->mode : 0644);
  }
  return root;
}

/** Both folders hold the same, symbolic links as links. */
static bool same_tree(const char *one, const char *other) {
  return shell_true(format("diff -r --no-dereference '%s' '%s'", one, other));
}

static const entry nested[] = {
  {"a", 1, 0}, {"b/c", 2, 0}, {"b/d/e/f", 10300, 0}, {"g/empty/", 0, 0}, {NULL, 0, 0}};
static const entry unicode[] = {
  {"é☃/😀.txt", 3, 0}, {"b c/d'e", 4, 0}, {"ü/", 0, 0}, {NULL, 0, 0}};
static const entry odd[] = {
  {"a\"b", 5, 0}, {"*?[x]", 6, 0}, {"-rf", 7, 0}, {"a\nb", 8, 0}, {"...", 9, 0}, {NULL, 0, 0}};
static const entry backslash[] = {{"dev\\x2dfsck.slice", 5, 0}, {NULL, 0, 0}};
static const entry sizes[] = {
  {"large", 3000000, 0}, {"none", 0, 0}, {"block", 65536, 0}, {NULL, 0, 0}};
static const entry empty[] = {{NULL, 0, 0}};

static const struct {
  const char *name;
  const entry *entries;
} folder_rows[] = {{"nested", nested}, {"unicode names", unicode}, {"sizes", sizes},
                 {"odd names", odd}, {"a backslash in a name", backslash}};

TEST(upload_folder_rows) {
  world w = world_open();
  for (size_t i = 0; i < COUNT(folder_rows); i++) {
    int faults = test_faults;
    const char *source = make_tree(folder_rows[i].entries), *path = fresh("parent/target");
    works(&w, upload(&w, source, path));
    CHECK(same_tree(source, path));
    row_done(folder_rows[i].name, faults);
  }
  world_close(&w);
}

TEST(upload_folder_of_300_small_files) {
  entry entries[301];
  world w = world_open();
  memset(entries, 0, sizeof entries);
  for (int i = 0; i < 300; i++) {
    entries[i].name = format("d%d/f%d", i % 7, i);
    entries[i].size = (size_t)i % 50;
  }
  const char *source = make_tree(entries), *path = fresh("parent/target");
  works(&w, upload(&w, source, path));
  CHECK(same_tree(source, path));
  world_close(&w);
}

TEST(upload_folder_with_a_slash_at_its_end) {
  world w = world_open();
  const char *source = make_tree(nested), *path = fresh("parent/target");
  works(&w, upload(&w, format("%s/", source), format("%s/", path)));
  CHECK(same_tree(source, path));
  world_close(&w);
}

TEST(upload_folder_that_compresses_well) {
  world w = world_open();
  const char *source = make_tree(empty), *path = fresh("target");
  put(format("%s/zeros", source), repeat("0", 8000000));
  works(&w, upload(&w, source, path));
  CHECK(same_tree(source, path));
  world_close(&w);
}

TEST(upload_empty_folder) {
  world w = world_open();
  const char *path = fresh("parent/target");
  works(&w, upload(&w, make_tree(empty), path));
  CHECK(is_folder(format("%.*s", (int)(strrchr(path, '/') - path), path)));
  if (!target.python) CHECK(is_folder(path)); /* Python's extractall makes nothing of nothing */
  CHECK(!exists(path) || same_tree(make_tree(empty), path));
  world_close(&w);
}

TEST(upload_merges_into_a_folder) {
  static const entry before[] = {{"old", 10, 0}, {"both", 20, 0}, {"d/x", 30, 0}, {NULL, 0, 0}};
  static const entry after[] = {{"both", 40, 0}, {"d/y", 50, 0}, {NULL, 0, 0}};
  static const entry merged[] = {
    {"old", 10, 0}, {"both", 40, 0}, {"d/x", 30, 0}, {"d/y", 50, 0}, {NULL, 0, 0}};
  world w = world_open();
  const char *path = make_tree(before);
  works(&w, upload(&w, make_tree(after), path));
  CHECK(same_tree(make_tree(merged), path));
  world_close(&w);
}

/** A file's bytes may not end its part of the form, nor add a field to it. */
TEST(upload_of_a_file_that_knows_the_boundary) {
  static const char *const contents[] = {
    "a\r\n--swerex-7b1d0f4c5a2e4e0f9c3a--\r\n",
    "a\r\n--swerex-7b1d0f4c5a2e4e0f9c3a\r\n"
    "content-disposition: form-data; name=\"target_path\"\r\n\r\n{TMP}/stolen",
  };
  world w = world_open();
  for (size_t i = 0; i < COUNT(contents); i++) {
    const char *path = fresh("target"), *content = expand(contents[i]);
    works(&w, upload(&w, put(fresh("src"), content), path));
    check_text_file(path, content);
  }
  CHECK(!exists(expand("{TMP}/stolen")));
  world_close(&w);
}

TEST(upload_overwrites_a_file) {
  world w = world_open();
  const char *path = put(fresh("over"), "old and long");
  works(&w, upload(&w, put(fresh("over-src"), "new"), path));
  check_text_file(path, "new");
  world_close(&w);
}

TEST(upload_without_a_source) {
  world w = world_open();
  const char *source = fresh("nothing"), *path = fresh("target");
  failed(&w, upload(&w, source, path), SWEREX_E_FILE_NOT_FOUND,
         format("[Errno 2] No such file or directory: '%s'", source));
  CHECK_INT(w.err.sys_errno, ENOENT);
  failed(&w, upload(&w, "/dev/null", path), SWEREX_E_VALUE,
         "Source path /dev/null is not a file or directory");
  CHECK(!exists(path));
  world_close(&w);
}

TEST(upload_to_where_a_file_is_in_the_way) {
  world w = world_open();
  put_programs();
  raised(&w, upload(&w, put(fresh("src"), "x"), expand("{TMP}/bin/plain/x")), SWEREX_E_FILE_EXISTS,
         "[Errno 17] File exists: '{TMP}/bin/plain'");
  world_close(&w);
}

TEST(upload_to_where_a_file_is_in_the_way_of_much) {
  world w = world_open();
  put_programs();
  const char *source = put_bytes(fresh("src"), bytes_of(20000000), 20000000, 0644);
  raised(&w, upload(&w, source, expand("{TMP}/bin/plain/x")), SWEREX_E_FILE_EXISTS,
         "[Errno 17] File exists: '{TMP}/bin/plain'");
  world_close(&w);
}

TEST(upload_keeps_modes_and_times) {
  ONLY_OURS("the Python server does not restore them");
  static const entry modes[] = {
    {"run", 20, 0755}, {"private", 20, 0600}, {"plain", 20, 0644}, {"d/read-only", 20, 0444}, {NULL, 0, 0}};
  world w = world_open();
  const char *source = make_tree(modes), *path = fresh("target");
  CHECK(shell_true(format("touch -d '2001-02-03 04:05:06 UTC' %s/run", source)));
  works(&w, upload(&w, source, path));
  for (const entry *e = modes; e->name != NULL; e++)
    CHECK_INT(mode_of(format("%s/%s", path, e->name)), e->mode);
  struct stat info;
  CHECK(stat(format("%s/run", path), &info) == 0 && info.st_mtime == 981173106);
  path = fresh("run");
  works(&w, upload(&w, format("%s/run", source), path));
  CHECK_INT(mode_of(path), 0755);
  CHECK(stat(path, &info) == 0 && info.st_mtime == 981173106);
  world_close(&w);
}

TEST(upload_keeps_symbolic_links) {
  ONLY_OURS("the Python server writes their targets as files");
  world w = world_open();
  const char *source = make_tree(nested), *path = fresh("target");
  CHECK(symlink("b/c", format("%s/link", source)) == 0);
  CHECK(symlink("nowhere", format("%s/dangling", source)) == 0);
  CHECK(symlink("../a", format("%s/b/up", source)) == 0);
  works(&w, upload(&w, source, path));
  CHECK(same_tree(source, path));
  world_close(&w);
}

/** As in a Python venv: they arrive as what they lead to. */
TEST(upload_follows_symbolic_links_that_lead_out) {
  world w = world_open();
  const char *source = make_tree(nested), *path = fresh("target");
  CHECK(symlink("/bin/sh", format("%s/shell", source)) == 0);
  CHECK(symlink("/nowhere", format("%s/dangling", source)) == 0);
  works(&w, upload(&w, source, path));
  CHECK(shell_true(format("cmp /bin/sh %s/shell && test ! -L %s/shell && test ! -e %s/dangling", path, path, path)));
  CHECK(unlink(format("%s/shell", source)) == 0 && unlink(format("%s/dangling", source)) == 0);
  CHECK(unlink(format("%s/shell", path)) == 0);
  CHECK(same_tree(source, path));
  world_close(&w);
}

TEST(upload_two_at_once) {
  world w = world_open();
  swerex_future *futures[2];
  const char *paths[2], *sources[2] = {make_tree(sizes), make_tree(nested)};
  for (int i = 0; i < 2; i++) {
    paths[i] = fresh("target");
    swerex_upload_request request = {sources[i], paths[i]};
    futures[i] = swerex_upload_async(w.runtime, &request, &w.err);
  }
  for (int i = 0; i < 2; i++) {
    works(&w, swerex_future_take(futures[i], NULL, &w.err));
    CHECK(same_tree(sources[i], paths[i]));
  }
  world_close(&w);
}

/* --- other servers: a relay, and sockets that do not answer ----------------------------------- */

/** A process that hands connections on to the server under test. */
typedef struct relay {
  pid_t pid;
  int port;
} relay;

static int listener(int *port, int backlog) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
  CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
  if (backlog >= 0) CHECK(listen(fd, backlog) == 0);
  *port = ntohs(address.sin_port);
  return fd;
}

static int dial(const char *host, int port) {
  struct sockaddr_in address;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)port);
  inet_pton(AF_INET, host, &address.sin_addr);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

static void send_all(int fd, const char *data, size_t size) {
  while (size > 0) {
    ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
    if (n <= 0) return;
    data += n;
    size -= (size_t)n;
  }
}

/** Cut the prefix from a request line; each request starts in a read of its own. */
static size_t cut_prefix(char *data, size_t size, const char *prefix) {
  size_t length = strlen(prefix);
  char *slash = memchr(data, '/', size < 8 ? size : 8);
  if (slash == NULL || length > size - (size_t)(slash - data)) return size;
  if (memcmp(slash, prefix, length) != 0) return size;
  memmove(slash, slash + length, size - length - (size_t)(slash - data));
  return size - length;
}

static void relay_connection(int client, const char *prefix) {
  static char data[1 << 20];
  struct pollfd fds[2] = {{client, POLLIN, 0}, {dial(target.host, target.port), POLLIN, 0}};
  while (fds[1].fd >= 0 && poll(fds, 2, -1) > 0)
    for (int i = 0; i < 2; i++) {
      if (fds[i].revents == 0) continue;
      ssize_t n = recv(fds[i].fd, data, sizeof data, 0);
      if (n <= 0) _exit(0);
      send_all(fds[!i].fd, data, i == 0 ? cut_prefix(data, (size_t)n, prefix) : (size_t)n);
    }
}

/** Start a relay that listens after some seconds, and takes a prefix from paths. */
static relay relay_start(const char *prefix, double delay) {
  relay r = {-1, 0};
  int fd = listener(&r.port, delay > 0 ? -1 : 16);
  r.pid = fork();
  if (r.pid != 0) {
    setpgid(r.pid, r.pid);
    close(fd);
    return r;
  }
  setpgid(0, 0);
  alarm(60);
  signal(SIGALRM, SIG_DFL);
  signal(SIGCHLD, SIG_IGN);
  nap(delay);
  listen(fd, 16);
  for (;;) {
    int client = accept(fd, NULL, NULL);
    if (fork() == 0) {
      close(fd);
      relay_connection(client, prefix);
      _exit(0);
    }
    close(client);
  }
}

static void relay_stop(relay *r) {
  kill(-r->pid, SIGKILL);
  waitpid(r->pid, NULL, 0);
}

/** A port where nobody listens. */
static int dead_port(void) {
  int port;
  close(listener(&port, 1));
  return port;
}

/* --- is_alive --------------------------------------------------------------------------------- */

/** Ask; it never fails. part: of the message, NULL: it is alive. */
static void check_alive(const swerex_remote_config *config, double timeout, const char *part) {
  world w = world_with(config);
  swerex_is_alive_request request = {timeout};
  swerex_is_alive_response alive;
  double start = seconds();
  memset(&alive, 0, sizeof alive);
  works(&w, swerex_is_alive(w.runtime, timeout == 0 ? NULL : &request, &alive, &w.err));
  CHECK(seconds() - start < (timeout == 0 ? 0.15 : timeout) + PACE);
  CHECK_INT(alive.is_alive, part == NULL);
  if (part == NULL)
    CHECK_INT(alive.message.size, 0);
  else
    CHECK(has(alive.message.data, part));
  swerex_is_alive_response_clear(&alive);
  world_close(&w);
}

TEST(is_alive_says_so) {
  swerex_remote_config config = defaults();
  check_alive(&config, 5, NULL);
  config.timeout = 5;
  check_alive(&config, 0, NULL);
}

TEST(is_alive_without_a_server) {
  swerex_remote_config config = defaults();
  config.port = dead_port();
  check_alive(&config, 1, "Failed to connect");
  check_alive(&config, 0, format("127.0.0.1:%d", config.port));
  check_alive(&config, 1, "Connection refused");
}

TEST(is_alive_with_a_wrong_token) {
  swerex_remote_config config = defaults();
  config.auth_token = "wrong";
  check_alive(&config, 5, "Status code 401 from ");
  check_alive(&config, 5, "Message: Invalid API Key");
}

TEST(is_alive_for_a_name_that_does_not_resolve) {
  swerex_remote_config config = defaults();
  config.host = "http://no-such-host.invalid";
  check_alive(&config, 1, "no-such-host.invalid");
}

TEST(is_alive_for_https_that_is_not_in_the_build) {
#if SWEREX_USE_CURL
  LEAVE_OUT("it is in this build");
#endif
  swerex_remote_config config = defaults();
  config.host = "https://127.0.0.1";
  check_alive(&config, 1, "https is not in this build");
}

TEST(is_alive_for_a_server_that_does_not_answer) {
  swerex_remote_config config = defaults();
  int fd = listener(&config.port, 8);
  config.host = "127.0.0.1";
  double start = seconds();
  check_alive(&config, 0, "within 0.15 seconds");
  check_alive(&config, 0.3, "within 0.3 seconds");
  config.timeout = 0.2;
  check_alive(&config, 0, "within 0.2 seconds");
  CHECK(seconds() - start > 0.6 && seconds() - start < 5);
  close(fd);
}

/* --- wait_until_alive ------------------------------------------------------------------------- */

TEST(wait_until_alive_returns) {
  world w = world_open();
  double start = seconds();
  works(&w, swerex_wait_until_alive(w.runtime, 5, &w.err));
  CHECK(seconds() - start < 1 + PACE);
  works(&w, swerex_wait_until_alive(w.runtime, 0, &w.err));
  world_close(&w);
}

TEST(wait_until_alive_for_a_server_that_starts_late) {
  NEEDS("coreutils");
  swerex_remote_config config = defaults();
  relay r = relay_start("", 0.7);
  config.host = "127.0.0.1";
  config.port = r.port;
  config.timeout = 2;
  world w = world_with(&config);
  double start = seconds();
  works(&w, swerex_wait_until_alive(w.runtime, 10, &w.err));
  CHECK(seconds() - start > 0.5 && seconds() - start < 4);
  works(&w, script(&w, "echo late", 5));
  CHECK_STR(w.ran.stdout_text.data, "late\n");
  world_close(&w);
  relay_stop(&r);
}

static void check_never_alive(const swerex_remote_config *config, const char *part) {
  world w = world_with(config);
  double start = seconds();
  failed(&w, swerex_wait_until_alive(w.runtime, 0.5 * PACE, &w.err), SWEREX_E_TIMEOUT,
         format("Runtime did not start within %s", PACE > 1 ? "2s" : "0.5s"));
  CHECK(has(w.err.message, part));
  CHECK(seconds() - start > 0.4 && seconds() - start < 2 * PACE);
  world_close(&w);
}

TEST(wait_until_alive_gives_up) {
  swerex_remote_config config = defaults();
  config.auth_token = "wrong";
  config.timeout = 0.4 * PACE; /* the servers are slow under a sanitizer */
  check_never_alive(&config, "401");
  config.port = dead_port();
  check_never_alive(&config, "Connection refused");
  int fd = listener(&config.port, 8);
  config.host = "127.0.0.1";
  config.timeout = 0;
  check_never_alive(&config, "no answer from ");
  close(fd);
}

TEST(wait_until_alive_next_to_other_calls) {
  swerex_remote_config config = defaults();
  config.port = dead_port();
  world w = world_with(&config);
  swerex_future *waiting = swerex_wait_until_alive_async(w.runtime, 20, &w.err);
  for (int i = 0; i < 5; i++) swerex_loop_run(w.loop, 0.05, NULL);
  CHECK(!swerex_future_done(waiting));
  swerex_future_cancel(waiting);
  failed(&w, swerex_future_take(waiting, NULL, &w.err), SWEREX_E_CANCELLED, "");
  world_close(&w);
}

/* --- connections and time limits -------------------------------------------------------------- */

TEST(no_server_is_tried_again) {
  swerex_remote_config config = defaults();
  config.port = dead_port();
  world w = world_with(&config);
  double start = seconds();
  failed(&w, script(&w, "true", 0), SWEREX_E_OS, "Connection refused");
  CHECK_INT(w.err.sys_errno, ECONNREFUSED);
  CHECK(seconds() - start > 0.6 && seconds() - start < 5); /* after 0.1, 0.2, 0.4 s */
  world_close(&w);
  config.num_retries = -1;
  w = world_with(&config);
  start = seconds();
  failed(&w, script(&w, "true", 0), SWEREX_E_OS, format("127.0.0.1:%d", config.port));
  CHECK(seconds() - start < 0.6); /* with the tries: 0.7 */
  world_close(&w);
}

TEST(server_that_starts_late_is_reached_by_a_retry) {
  NEEDS("coreutils");
  swerex_remote_config config = defaults();
  relay r = relay_start("", 0.3);
  config.host = "127.0.0.1";
  config.port = r.port;
  world w = world_with(&config);
  works(&w, script(&w, "echo late", 5));
  CHECK_STR(w.ran.stdout_text.data, "late\n");
  world_close(&w);
  relay_stop(&r);
}

TEST(name_that_does_not_resolve) {
  swerex_remote_config config = defaults();
  config.host = "no-such-host.invalid";
  config.connect_timeout = 1;
  config.num_retries = -1;
  world w = world_with(&config);
  double start = seconds();
  CHECK(!script(&w, "true", 0));
  CHECK(w.err.code == SWEREX_E_OS || w.err.code == SWEREX_E_TIMEOUT);
  CHECK(has(w.err.message, "no-such-host.invalid"));
  CHECK(seconds() - start < 4);
  world_close(&w);
}

TEST(connect_timeout) {
  enum { MANY = 8 };
  swerex_remote_config config = defaults();
  int fds[MANY], fd = listener(&config.port, 0);
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
  for (int i = 0; i < MANY; i++) { /* fill its queue: the next one hears nothing */
    fds[i] = socket(AF_INET, SOCK_STREAM, 0);
    fcntl(fds[i], F_SETFL, O_NONBLOCK);
    (void)!connect(fds[i], (struct sockaddr *)&address, sizeof address);
  }
  nap(0.1);
  config.host = "127.0.0.1";
  config.connect_timeout = 0.4;
  world w = world_with(&config);
  double start = seconds();
  CHECK(!script(&w, "true", 0));
  CHECK_STR(swerex_code_name(w.err.code), "TIMEOUT");
  CHECK(has(w.err.message, format("127.0.0.1:%d", config.port)));
  CHECK(seconds() - start > 0.3 && seconds() - start < 3);
  world_close(&w);
  for (int i = 0; i < MANY; i++) close(fds[i]);
  close(fd);
}

TEST(request_timeout) {
  NEEDS("coreutils");
  swerex_remote_config config = defaults();
  config.request_timeout = 0.5;
  world w = world_with(&config);
  double start = seconds();
  failed(&w, script(&w, format("sleep %g", 1.5 * PACE), 0), SWEREX_E_TIMEOUT, "within 0.5 seconds");
  CHECK_INT(w.err.http_status, 0);
  CHECK(seconds() - start > 0.4 && seconds() - start < 1.3 * PACE);
  world_close(&w);
  nap(1.5 * PACE - 0.3); /* the Python server answers nobody until then */
}

TEST(request_timeout_of_a_server_that_does_not_answer) {
  swerex_remote_config config = defaults();
  int fd = listener(&config.port, 8);
  config.host = "127.0.0.1";
  config.request_timeout = 0.3;
  world w = world_with(&config);
  double start = seconds();
  failed(&w, script(&w, "true", 0), SWEREX_E_TIMEOUT, "within 0.3 seconds");
  failed(&w, read_file(&w, "/etc/passwd", NULL, NULL), SWEREX_E_TIMEOUT, "within 0.3 seconds");
  failed(&w, upload(&w, put_bytes(fresh("l"), bytes_of(9000000), 9000000, 0644), "/nope"),
         SWEREX_E_TIMEOUT, "within 0.3 seconds");
  CHECK(seconds() - start > 0.8 && seconds() - start < 6);
  world_close(&w);
  close(fd);
}

TEST(cancelled_call) {
  NEEDS("coreutils");
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.argv = LIST("sleep", "0.5");
  swerex_future *future = swerex_execute_async(w.runtime, &command, &w.err);
  swerex_loop_run(w.loop, 0.1, &w.err);
  swerex_future_cancel(future);
  failed(&w, swerex_future_take(future, NULL, &w.err), SWEREX_E_CANCELLED, "");
  future = swerex_execute_async(w.runtime, &command, &w.err);
  swerex_future_free(future);
  nap(0.8);
  works(&w, script(&w, "echo on", 10));
  CHECK_STR(w.ran.stdout_text.data, "on\n");
  world_close(&w);
}

/** Cancel a call that writes a file after a second; tell whether it did. */
static bool written_after_cancel(bool kill_it) {
  swerex_remote_config config = defaults();
  config.kill_on_disconnect = kill_it;
  world w = world_with(&config);
  const char *path = fresh("after");
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = format("sleep 1; touch %s", path);
  command.shell = true;
  swerex_future *future = swerex_execute_async(w.runtime, &command, &w.err);
  for (int i = 0; i < 6; i++) swerex_loop_run(w.loop, 0.05, &w.err);
  swerex_future_cancel(future);
  swerex_future_take(future, NULL, &w.err);
  for (int i = 0; i < 30; i++) swerex_loop_run(w.loop, 0.05, &w.err);
  world_close(&w);
  nap(0.3);
  return exists(path);
}

TEST(cancelled_call_goes_on_at_the_server) {
  NEEDS("coreutils");
  CHECK(written_after_cancel(false));
}

TEST(cancelled_call_is_killed_where_asked) {
  ONLY_OURS("the Python server never notices");
  CHECK(!written_after_cancel(true));
}

TEST(loop_is_freed_with_calls_under_way) {
  NEEDS("coreutils");
  world w = world_with_session();
  start_run(&w, w.session, "sleep 0.3");
  swerex_upload_request request = {put_bytes(fresh("l"), bytes_of(900000), 900000, 0644), fresh("t")};
  swerex_upload_async(w.runtime, &request, &w.err);
  swerex_loop_run(w.loop, 0.05, &w.err);
  world_clear(&w);
  swerex_loop_free(w.loop);
  nap(0.6);
  world again = world_open();
  works(&again, close_session(&again, w.session));
  world_close(&again);
}

TEST(runtime_is_freed_with_calls_under_way) {
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.argv = LIST("sleep", "0.3");
  swerex_future *future = swerex_execute_async(w.runtime, &command, &w.err);
  swerex_loop_run(w.loop, 0.05, &w.err);
  swerex_runtime_free(w.runtime);
  failed(&w, swerex_future_take(future, NULL, &w.err), SWEREX_E_CANCELLED, "");
  world_close(&w);
  nap(0.5);
}

TEST(terminals_are_not_at_a_server) {
  NEEDS("coreutils");
  world w = world_with_session();
  failed(&w, swerex_session_write(w.runtime, w.session, "x", 1, &w.err), SWEREX_E_UNSUPPORTED, "remote");
  failed(&w, swerex_session_resize(w.runtime, w.session, 24, 80, &w.err), SWEREX_E_UNSUPPORTED, "remote");
  world_close(&w);
}

/* --- host forms ------------------------------------------------------------------------------- */

/** host: %s is the server's address, %d its port. */
static const struct {
  const char *host;
  bool port; /* given apart */
} host_rows[] = {
  {"%s", true}, {"http://%s", true}, {"http://%s/", true}, {"%s/", true},
  {"http://%s:%d", false}, {"http://%s:%d/", false}, {"%s:%d", false}, {"%s:%d/", false},
  {"http://%s:1", true}, {"%s:1", true}, {"http://%s:%d", true},
};

TEST(host_forms) {
  NEEDS("coreutils");
  for (size_t i = 0; i < COUNT(host_rows); i++) {
    swerex_remote_config config = defaults();
    char host[300];
    int faults = test_faults;
    snprintf(host, sizeof host, host_rows[i].host, target.host, target.port);
    config.host = host;
    config.port = host_rows[i].port ? target.port : 0;
    world w = world_with(&config);
    works(&w, script(&w, "echo reached", 5));
    CHECK_STR(w.ran.stdout_text.data, "reached\n");
    row_done(host, faults);
    world_close(&w);
  }
}

TEST(host_default_and_name) {
  NEEDS("coreutils");
  if (strcmp(target.host, "127.0.0.1") != 0) LEAVE_OUT("the server is elsewhere");
  static const char *const hosts[] = {NULL, "localhost", "http://localhost"};
  for (size_t i = 0; i < COUNT(hosts); i++) {
    swerex_remote_config config = defaults();
    config.host = hosts[i];
    world w = world_with(&config);
    works(&w, script(&w, "echo reached", 5));
    world_close(&w);
  }
}

TEST(host_with_a_path_prefix) {
  NEEDS("coreutils");
  static const char *const forms[] = {"http://127.0.0.1:%d/a/b", "http://127.0.0.1:%d/a/b/",
                                      "127.0.0.1:%d/a/b"};
  relay r = relay_start("/a/b", 0);
  for (size_t i = 0; i < COUNT(forms); i++) {
    swerex_remote_config config = defaults();
    char host[100];
    int faults = test_faults;
    snprintf(host, sizeof host, forms[i], r.port);
    config.host = host;
    config.port = 0;
    check_alive(&config, 5, NULL);
    world w = world_with(&config);
    works(&w, script(&w, "echo reached", 5));
    works(&w, script(&w, "echo again", 5));
    CHECK_STR(w.ran.stdout_text.data, "again\n");
    world_close(&w);
    row_done(forms[i], faults);
  }
  relay_stop(&r);
}

TEST(host_with_a_prefix_that_the_server_does_not_have) {
  swerex_remote_config config = defaults();
  config.host = format("http://%s/prefix", target.host);
  world w = world_with(&config);
  failed(&w, script(&w, "true", 0), SWEREX_E_HTTP, "Message: Not Found");
  CHECK_INT(w.err.http_status, 404);
  CHECK(has(w.err.message, "/prefix/execute"));
  world_close(&w);
}

TEST(host_that_is_none) {
  static const char *const hosts[] = {"", "http://", "https://", "ftp://127.0.0.1", "http://a b", "a\nb",
                                      "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x", "127.0.0.1:",
                                      "http://user@127.0.0.1", "127.0.0.1?x", "[::1", "unix:"};
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  for (size_t i = 0; i < COUNT(hosts); i++) {
    swerex_remote_config config = defaults();
    int faults = test_faults;
    config.host = hosts[i];
    CHECK(swerex_remote_runtime_new(loop, &config, &err) == NULL);
    CHECK_STR(swerex_code_name(err.code), "VALUE");
    row_done(hosts[i], faults);
  }
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(token_that_cannot_be_a_header) {
  static const char *const tokens[] = {"a\r\nX-Evil: 1", "a\n", "\x7f"};
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  for (size_t i = 0; i < COUNT(tokens); i++) {
    swerex_remote_config config = defaults();
    config.auth_token = tokens[i];
    CHECK(swerex_remote_runtime_new(loop, &config, &err) == NULL);
    CHECK_STR(swerex_code_name(err.code), "VALUE");
  }
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

/* --- tokens ----------------------------------------------------------------------------------- */

static void refused(world *w, bool ok, const char *verb) {
  int faults = test_faults;
  failed(w, ok, SWEREX_E_HTTP, "Invalid API Key");
  CHECK_INT(w->err.http_status, 401);
  CHECK_STR(w->err.class_path, "aiohttp.client_exceptions.ClientResponseError");
  CHECK(has(w->err.message, verb));
  row_done(verb, faults);
}

TEST(wrong_token) {
  swerex_remote_config config = defaults();
  config.auth_token = "wrong";
  world w = world_with(&config);
  const char *path = fresh("refused"), *source = put(fresh("source"), "x");
  double start = seconds();
  refused(&w, script(&w, format("touch %s", path), 0), "/execute");
  refused(&w, write_text(&w, path, "x"), "/write_file");
  refused(&w, read_file(&w, source, NULL, NULL), "/read_file");
  refused(&w, upload(&w, source, path), "/upload");
  refused(&w, create(&w, "refused"), "/create_session");
  refused(&w, run(&w, "true"), "/run_in_session");
  refused(&w, interrupt(&w), "/run_in_session");
  refused(&w, close_session(&w, "refused"), "/close_session");
  refused(&w, swerex_close(w.runtime, NULL, NULL, &w.err), "/close");
  CHECK(seconds() - start < 2.5 + 0.5 * PACE); /* nothing is tried again */
  CHECK(!exists(path));
  world_close(&w);
}

TEST(wrong_token_for_much) {
  swerex_remote_config config = defaults();
  config.auth_token = "wrong";
  world w = world_with(&config);
  const char *source = put_bytes(fresh("l"), bytes_of(9000000), 9000000, 0644);
  refused(&w, upload(&w, source, fresh("refused")), "/upload");
  refused(&w, write_text(&w, fresh("refused"), repeat("y", 9000000)), "/write_file");
  world_close(&w);
}

TEST(wrong_token_with_a_watch) {
  swerex_remote_config config = defaults();
  config.auth_token = "wrong";
  world w = world_with(&config);
  heard h;
  swerex_command command;
  memset(&h, 0, sizeof h);
  memset(&command, 0, sizeof command);
  command.command = "true";
  command.watch.on_output = hear;
  command.watch.user_data = &h;
  refused(&w, execute(&w, &command), "/execute");
  CHECK_INT(h.pieces, 0);
  world_close(&w);
}

TEST(no_token) {
  static const char *const tokens[] = {NULL, ""};
  for (size_t i = 0; i < COUNT(tokens); i++) {
    swerex_remote_config config = defaults();
    config.auth_token = tokens[i];
    world w = world_with(&config);
    failed(&w, script(&w, "true", 0), SWEREX_E_HTTP, "Not authenticated");
    CHECK(w.err.http_status == 401 || w.err.http_status == 403);
    world_close(&w);
  }
}

/* --- the deployment, and the end of all sessions ---------------------------------------------- */

static swerex_deployment *deployment_of(swerex_loop *loop, swerex_error *err) {
  swerex_deployment_config config;
  memset(&config, 0, sizeof config);
  config.type = SWEREX_DEPLOYMENT_REMOTE;
  config.u.remote = defaults();
  config.u.remote.timeout = 5;
  return swerex_get_deployment(loop, &config, err);
}

static void check_stopped(world *w, swerex_deployment *deployment) {
  swerex_is_alive_response alive;
  memset(&alive, 0, sizeof alive);
  works(w, swerex_deployment_is_alive(deployment, NULL, &alive, &w->err));
  CHECK(!alive.is_alive && alive.message.size > 0);
  swerex_is_alive_response_clear(&alive);
  works(w, swerex_deployment_is_alive(deployment, NULL, NULL, &w->err));
}

TEST(deployment_before_its_start) {
  world w = world_open();
  swerex_deployment *deployment = deployment_of(w.loop, &w.err);
  check_stopped(&w, deployment);
  failed(&w, swerex_deployment_runtime(deployment, &w.err) != NULL, SWEREX_E_DEPLOYMENT_NOT_STARTED,
         "Deployment not started");
  swerex_deployment_free(deployment);
  world_close(&w);
}

TEST(deployment_start_use_and_stop) {
  NEEDS("coreutils");
  world w = world_open();
  swerex_runtime *own = w.runtime;
  swerex_is_alive_response alive;
  swerex_deployment *deployment = deployment_of(w.loop, &w.err);
  memset(&alive, 0, sizeof alive);
  works(&w, swerex_deployment_start(deployment, &w.err));
  works(&w, swerex_deployment_is_alive(deployment, NULL, &alive, &w.err));
  CHECK(alive.is_alive);
  swerex_is_alive_response_clear(&alive);
  w.runtime = swerex_deployment_runtime(deployment, &w.err);
  CHECK(w.runtime != NULL);
  w.session = fresh_name();
  works(&w, create(&w, w.session));
  works(&w, run(&w, "echo $$"));
  int pid = w.seen.output.data == NULL ? 0 : atoi(w.seen.output.data);
  works(&w, swerex_deployment_stop(deployment, &w.err));
  CHECK(pid > 1 && gone(pid));
  check_stopped(&w, deployment);
  swerex_deployment_free(deployment);
  w.runtime = own;
  w.session = NULL;
  world_close(&w);
}

TEST(close_twice_and_the_server_lives) {
  NEEDS("coreutils");
  world w = world_open();
  swerex_remote_config config = defaults();
  works(&w, swerex_close(w.runtime, NULL, NULL, &w.err));
  works(&w, swerex_close(w.runtime, NULL, NULL, &w.err));
  check_alive(&config, 5, NULL);
  w.session = fresh_name();
  works(&w, create(&w, w.session));
  gives(&w, "echo new", 0, "new\n");
  world_close(&w);
}

/* ---------------------------------------------------------------------------------------------- */

static int usage(void) {
  fputs("usage: client HOST PORT TOKEN [--python-server | --without PROGRAMS] [--filter TEXT | --list]\n", stderr);
  return 2;
}

int main(int argc, char **argv) {
  if (argc < 4) return usage();
  target.host = strncmp(argv[1], "http://", 7) == 0 ? argv[1] + 7 : argv[1];
  target.port = atoi(argv[2]);
  target.token = argv[3];
  target.python = argc > 4 && strcmp(argv[4], "--python-server") == 0;
  bool without = argc > 5 && strcmp(argv[4], "--without") == 0;
  target.lacks = without ? argv[5] : "";
  int used = target.python ? 4 : without ? 5 : 3;
  if (target.port <= 0 || target.port > 65535) return usage();
  strcpy(target.folder, "/tmp/swerex-client-XXXXXX");
  if (mkdtemp(target.folder) == NULL) return usage();
  int failed_tests = test_main(argc - used, argv + used);
  CHECK(shell_true(format("chmod -R u+w %s && rm -rf %s", target.folder, target.folder)));
  forget_kept();
  return failed_tests;
}
