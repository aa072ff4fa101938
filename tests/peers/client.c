/*
 * Our client against a server that runs already, ours or the Python one:
 *
 *     client HOST PORT TOKEN [--python-server]
 *
 * The same assertions hold for both. What the Python server's own accidents rule out is left out
 * for it, each place with its reason.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

static const char *host, *token;
static int port;
static bool python;
static swerex_loop *loop;
static swerex_runtime *runtime;
static swerex_error err = SWEREX_ERROR_INIT;
static swerex_bash_observation seen;
static swerex_command_response ran;
static char folder[64];

static swerex_runtime *connect_with(const char *key) {
  swerex_remote_config config;
  memset(&config, 0, sizeof config);
  config.auth_token = key;
  config.host = host;
  config.port = port;
  config.timeout = 5;
  return swerex_remote_runtime_new(loop, &config, &err);
}

/** Complain with the error that a call left. */
static void check_ok(bool ok, const char *what) {
  CHECK(ok);
  if (!ok) printf("# %s: %s: %s\n", what, swerex_code_name(err.code), err.message);
}

static bool act(const char *session, const swerex_bash_action *action) {
  swerex_bash_action copy = *action;
  copy.session = session;
  swerex_bash_observation_clear(&seen);
  return swerex_run_in_session(runtime, &copy, &seen, &err);
}

static bool run(const char *session, const char *command) {
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = command;
  action.timeout = 20;
  action.check = SWEREX_CHECK_SILENT;
  return act(session, &action);
}

static bool create(const char *session) {
  swerex_create_bash_session_request request;
  memset(&request, 0, sizeof request);
  request.session = session;
  return swerex_create_session(runtime, &request, NULL, &err);
}

static void end(const char *session) {
  swerex_close_bash_session_request request = {session};
  check_ok(swerex_close_session(runtime, &request, NULL, &err), "close_session");
}

/* --- tables --- */

TEST(sessions) {
  static const struct {
    const char *command, *output;
    int code;
  } rows[] = {
    {"echo hi", "hi\n", 0}, {"(exit 7)", "", 7}, {"echo a; echo b >&2", "a\nb\n", 0}, {"", "", 0},
    {"   ", "", 0}, {"# only this", "", 0}, {"x=5; f() { echo f$x; }", "", 0}, {"f", "f5\n", 0},
    {"cd /", "", 0}, {"pwd", "/\n", 0}, {"export Y=z", "", 0}, {"bash -c 'echo $Y'", "z\n", 0},
    {"for i in 1 2\ndo echo $i\ndone", "1\n2\n", 0}, {"cat <<X\na 'b' \"c\"\nX", "a 'b' \"c\"\n", 0},
    {"echo caf\xC3\xA9", "caf\xC3\xA9\n", 0}, {"printf '\\033[31mred\\033[0m\\n'", "red\n", 0},
    {"printf 'no end'", "no end", 0}, {"sh -c 'kill -9 $$'", NULL, 137}, {"echo '$x' \\$x", "$x $x\n", 0},
  };
  check_ok(create("rows"), "create");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    check_ok(run("rows", rows[i].command), rows[i].command);
    if (rows[i].output != NULL) CHECK_STR(seen.output.data, rows[i].output);
    CHECK_INT(seen.exit_code, rows[i].code);
    CHECK_STR(seen.failure_reason.data, "");
  }
  end("rows");
}

TEST(errors_of_sessions) {
  static const struct {
    const char *session, *command, *error_msg;
    double timeout;
    swerex_code code;
    const char *class_path, *message;
  } rows[] = {
    {"none", "x", NULL, 5, SWEREX_E_SESSION_DOES_NOT_EXIST, "swerex.exceptions.SessionDoesNotExistError",
     "session 'none' does not exist"},
    {"errors", "(exit 3)", NULL, 5, SWEREX_E_NON_ZERO_EXIT_CODE, "swerex.exceptions.NonZeroExitCodeError",
     "Command '(exit 3)' failed with exit code 3. Here is the output:\n''"},
    {"errors", "echo o; false", "ctx", 5, SWEREX_E_NON_ZERO_EXIT_CODE, "swerex.exceptions.NonZeroExitCodeError",
     "ctx: Command 'echo o; false' failed with exit code 1. Here is the output:\n'o\\n'"},
    {"errors", "echo (a", NULL, 5, SWEREX_E_BASH_INCORRECT_SYNTAX, "swerex.exceptions.BashIncorrectSyntaxError", NULL},
    {"errors", "sleep 30", NULL, 0.3, SWEREX_E_COMMAND_TIMEOUT, "swerex.exceptions.CommandTimeoutError",
     "timeout after 0.3 seconds while running command 'sleep 30'"},
  };
  check_ok(create("errors"), "create");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    swerex_bash_action action;
    memset(&action, 0, sizeof action);
    action.command = rows[i].command;
    action.error_msg = rows[i].error_msg;
    action.timeout = rows[i].timeout;
    CHECK(!act(rows[i].session, &action));
    CHECK_INT(err.code, rows[i].code);
    CHECK_INT(err.http_status, 511);
    CHECK_STR(err.class_path, rows[i].class_path);
    if (rows[i].message != NULL) CHECK_STR(err.message, rows[i].message);
    if (rows[i].code == SWEREX_E_BASH_INCORRECT_SYNTAX)
      CHECK(err.extra_info != NULL && strstr(err.extra_info, "bash_stderr") != NULL);
  }
  CHECK(!create("errors") && err.code == SWEREX_E_SESSION_EXISTS);
  CHECK_STR(err.message, "session errors already exists");
  swerex_bash_interrupt_action interrupt;
  memset(&interrupt, 0, sizeof interrupt);
  interrupt.session = "errors";
  interrupt.timeout = 1;
  check_ok(swerex_interrupt_session(runtime, &interrupt, NULL, &err), "interrupt");
  check_ok(run("errors", "echo on"), "echo on");
  CHECK_STR(seen.output.data, "on\n");
  end("errors");
  swerex_close_bash_session_request gone = {"errors"};
  CHECK(!swerex_close_session(runtime, &gone, NULL, &err) && err.code == SWEREX_E_SESSION_DOES_NOT_EXIST);
}

TEST(interactive_programs) {
  static const char *const prompt[] = {">>> ", NULL};
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = "python3 -q";
  action.is_interactive_command = true;
  action.expect = prompt;
  action.timeout = 10;
  check_ok(create("python"), "create");
  check_ok(act("python", &action), "python3");
  CHECK_STR(seen.expect_string.data, ">>> ");
  action.command = "print(6 * 7)";
  check_ok(act("python", &action), "print");
  CHECK(strstr(seen.output.data, "42") != NULL);
  action.command = "quit()";
  action.is_interactive_command = false;
  action.is_interactive_quit = true;
  action.expect = NULL;
  check_ok(act("python", &action), "quit");
  check_ok(run("python", "echo back"), "echo back");
  CHECK_STR(seen.output.data, "back\n");
  end("python");
}

TEST(startup_files) {
  char path[100];
  const char *const sources[] = {path, NULL};
  swerex_write_file_request file;
  swerex_create_bash_session_request request;
  snprintf(path, sizeof path, "%s/rc", folder);
  memset(&request, 0, sizeof request);
  memset(&file, 0, sizeof file);
  file.path = path;
  file.content.data = (char *)(uintptr_t)"FROM_RC=yes\n";
  file.content.size = 12;
  check_ok(swerex_write_file(runtime, &file, NULL, &err), "write_file");
  request.session = "rc";
  request.startup_source = sources;
  check_ok(swerex_create_session(runtime, &request, NULL, &err), "create");
  check_ok(run("rc", "echo $FROM_RC"), "echo");
  CHECK_STR(seen.output.data, "yes\n");
  end("rc");
}

typedef struct execute_row {
  const char *argv[4], *command;
  bool shell, check, merge;
  double timeout;
  const char *env, *cwd;
  int code; /* exit code; of a failure, the error's */
  const char *output, *errors; /* of a failure, the message and the class path */
  bool fails;
} execute_row;

TEST(commands) {
  static const execute_row rows[] = {
    {{"echo", "hi"}, NULL, 0, 0, 0, 0, NULL, NULL, 0, "hi\n", "", 0},
    {{NULL}, "echo $((1+1)); echo e >&2", 1, 0, 0, 0, NULL, NULL, 0, "2\n", "e\n", 0},
    {{"echo $0 $1", "a", "b"}, NULL, 1, 0, 0, 0, NULL, NULL, 0, "a b\n", "", 0},
    {{NULL}, "echo o; echo e >&2", 1, 0, 1, 0, NULL, NULL, 0, "o\ne\n", "", 0},
    {{"env"}, NULL, 0, 0, 0, 0, "A=b", NULL, 0, "A=b\n", "", 0},
    {{"pwd"}, NULL, 0, 0, 0, 0, NULL, "/", 0, "/\n", "", 0},
    {{NULL}, "kill -9 $$", 1, 0, 0, 0, NULL, NULL, -9, "", "", 0},
    {{NULL}, "exit 3", 1, 0, 0, 0, NULL, NULL, 3, "", "", 0},
    {{NULL}, "printf 'a\\377b'", 1, 0, 0, 0, NULL, NULL, 0, "a\\xffb", "", 0},
    {{"cat"}, NULL, 0, 0, 0, 0, NULL, NULL, 0, "", "", 0},
    {{NULL}, "exit 3", 1, 1, 0, 0, NULL, NULL, SWEREX_E_NON_ZERO_EXIT_CODE,
     "Command 'exit 3' failed with exit code 3. Stdout:\n''\nStderr:\n''",
     "swerex.exceptions.NonZeroExitCodeError", 1},
    {{"sleep", "30"}, NULL, 0, 0, 0, 0.2, NULL, NULL, SWEREX_E_COMMAND_TIMEOUT,
     "Timeout (0.2s) exceeded while running command", "swerex.exceptions.CommandTimeoutError", 1},
    {{"nonexistentcmd"}, NULL, 0, 0, 0, 0, NULL, NULL, SWEREX_E_FILE_NOT_FOUND,
     "[Errno 2] No such file or directory: 'nonexistentcmd'", "builtins.FileNotFoundError", 1},
    {{"pwd"}, NULL, 0, 0, 0, 0, NULL, "/nonexist", SWEREX_E_FILE_NOT_FOUND,
     "[Errno 2] No such file or directory: '/nonexist'", "builtins.FileNotFoundError", 1},
    {{"/etc/passwd"}, NULL, 0, 0, 0, 0, NULL, NULL, SWEREX_E_PERMISSION,
     "[Errno 13] Permission denied: '/etc/passwd'", "builtins.PermissionError", 1},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const execute_row *row = &rows[i];
    const char *const env[] = {row->env, NULL};
    swerex_command command;
    memset(&command, 0, sizeof command);
    command.command = row->command;
    command.argv = row->command == NULL ? row->argv : NULL;
    command.shell = row->shell;
    command.check = row->check;
    command.merge_output_streams = row->merge;
    command.timeout = row->timeout;
    command.env = row->env == NULL ? NULL : env;
    command.cwd = row->cwd;
    swerex_command_response_clear(&ran);
    bool ok = swerex_execute(runtime, &command, &ran, &err);
    if (ok == row->fails) printf("# row %zu: %s\n", i, ok ? "well" : err.message);
    CHECK(ok != row->fails);
    if (ok != row->fails && !row->fails) {
      CHECK_STR(ran.stdout_text.data, row->output);
      CHECK_STR(ran.stderr_text.data, row->errors);
      CHECK_INT(ran.exit_code, row->code);
    } else if (ok != row->fails) {
      CHECK_INT(err.code, row->code);
      CHECK_STR(err.message, row->output);
      CHECK_STR(err.class_path, row->errors);
    }
  }
}

TEST(files) {
  static const struct {
    const char *make, *encoding, *errors, *content;
    swerex_code code;
    const char *message;
  } rows[] = {
    {"printf 'a\\r\\nb\\rc\\n'", NULL, NULL, "a\nb\nc\n", SWEREX_E_OK, NULL},
    {"printf 'a\\377'", NULL, NULL, NULL, SWEREX_E_UNICODE_DECODE,
     "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"},
    {"printf 'a\\377'", "latin-1", NULL, "a\xC3\xBF", SWEREX_E_OK, NULL},
    {"printf 'a\\377'", NULL, "replace", "a\xEF\xBF\xBD", SWEREX_E_OK, NULL},
    {"printf 'a\\377'", NULL, "ignore", "a", SWEREX_E_OK, NULL},
    {"printf 'a\\377'", NULL, "backslashreplace", "a\\xff", SWEREX_E_OK, NULL},
    {"printf 'a'", "nope", NULL, NULL, SWEREX_E_LOOKUP, "unknown encoding: nope"},
    {"printf '\\377\\376h\\0i\\0'", "utf-16", NULL, "hi", SWEREX_E_OK, NULL},
  };
  char path[100], script[200];
  snprintf(path, sizeof path, "%s/file", folder);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    swerex_read_file_request request = {path, rows[i].encoding, rows[i].errors};
    swerex_read_file_response response;
    memset(&response, 0, sizeof response);
    snprintf(script, sizeof script, "%s >%s", rows[i].make, path);
    CHECK(system(script) == 0);
    bool ok = swerex_read_file(runtime, &request, &response, &err);
    CHECK(ok == (rows[i].code == SWEREX_E_OK));
    if (ok && rows[i].content != NULL) CHECK_STR(response.content.data, rows[i].content);
    if (!ok) CHECK_INT(err.code, rows[i].code);
    if (!ok && rows[i].message != NULL) CHECK_STR(err.message, rows[i].message);
    swerex_read_file_response_clear(&response);
  }
  swerex_read_file_request none = {"/nonexist", NULL, NULL}, directory = {"/tmp", NULL, NULL};
  CHECK(!swerex_read_file(runtime, &none, NULL, &err) && err.code == SWEREX_E_FILE_NOT_FOUND);
  CHECK_STR(err.message, "[Errno 2] No such file or directory: '/nonexist'");
  CHECK(!swerex_read_file(runtime, &directory, NULL, &err) && err.code == SWEREX_E_IS_A_DIRECTORY);
}

TEST(writing) {
  char path[100];
  swerex_write_file_request file;
  swerex_read_file_response response;
  memset(&file, 0, sizeof file);
  memset(&response, 0, sizeof response);
  snprintf(path, sizeof path, "%s/new/folders/file", folder);
  file.path = path;
  file.content.data = (char *)(uintptr_t)"caf\xC3\xA9 \"quoted\" \\ \t\n\0end";
  file.content.size = 23;
  check_ok(swerex_write_file(runtime, &file, NULL, &err), "write_file");
  swerex_read_file_request request = {path, NULL, NULL};
  check_ok(swerex_read_file(runtime, &request, &response, &err), "read_file");
  CHECK(response.content.size == file.content.size &&
        memcmp(response.content.data, file.content.data, file.content.size) == 0);
  swerex_read_file_response_clear(&response);
  file.path = "/tmp";
  CHECK(!swerex_write_file(runtime, &file, NULL, &err) && err.code == SWEREX_E_IS_A_DIRECTORY);
  CHECK_STR(err.message, "[Errno 21] Is a directory: '/tmp'");
}

TEST(uploads) {
  char source[100], target[100], script[600];
  swerex_upload_request upload = {source, target};
  snprintf(source, sizeof source, "%s/from", folder);
  snprintf(target, sizeof target, "%s/to/it", folder);
  snprintf(script, sizeof script,
           "mkdir -p %s/a/b %s/c && cd %s && seq 100000 >a/b/big && echo x >'a/na me' && : >c/none && "
           "for i in $(seq 200); do echo $i >c/f$i; done && head -c 50000 /dev/urandom >caf\xC3\xA9",
           source, source, source);
  CHECK(system(script) == 0);
  check_ok(swerex_upload(runtime, &upload, NULL, &err), "a folder");
  snprintf(script, sizeof script, "diff -r %s %s", source, target);
  CHECK(system(script) == 0);
  snprintf(source, sizeof source, "%s/from/a/b/big", folder);
  snprintf(target, sizeof target, "%s/one/big", folder);
  check_ok(swerex_upload(runtime, &upload, NULL, &err), "a file");
  snprintf(script, sizeof script, "cmp %s %s", source, target);
  CHECK(system(script) == 0);
  upload.source_path = "/nonexistent";
  CHECK(!swerex_upload(runtime, &upload, NULL, &err) && err.code == SWEREX_E_FILE_NOT_FOUND);
}

static void collect(void *user_data, swerex_stream stream, const char *text, size_t size) {
  (void)stream;
  swerex__str_add((swerex__str *)user_data, text, size);
}

TEST(output_is_watched) {
  swerex__str heard = swerex__str_new(NULL, 1 << 20);
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = "echo one; sleep 0.2; echo two";
  command.shell = true;
  command.watch.on_output = collect;
  command.watch.user_data = &heard;
  swerex_command_response_clear(&ran);
  check_ok(swerex_execute(runtime, &command, &ran, &err), "execute");
  CHECK_STR(ran.stdout_text.data, "one\ntwo\n");
  CHECK_STR(heard.data, "one\ntwo\n");
  swerex__str_clear(&heard);
}

TEST(the_wrong_token) {
  swerex_runtime *stranger = connect_with("wrong");
  swerex_is_alive_response alive;
  swerex_command command;
  static const char *const argv[] = {"true", NULL};
  memset(&command, 0, sizeof command);
  memset(&alive, 0, sizeof alive);
  command.argv = argv;
  CHECK(!swerex_execute(stranger, &command, NULL, &err) && err.code == SWEREX_E_HTTP);
  CHECK_INT(err.http_status, 401);
  CHECK(strstr(err.message, "Invalid API Key") != NULL);
  CHECK(swerex_is_alive(stranger, NULL, &alive, &err) && !alive.is_alive);
  CHECK(strstr(alive.message.data, "401") != NULL);
  swerex_is_alive_response_clear(&alive);
  swerex_runtime_free(stranger);
}

TEST(deployment_start_use_and_stop) {
  swerex_deployment_config config;
  memset(&config, 0, sizeof config);
  config.type = SWEREX_DEPLOYMENT_REMOTE;
  config.u.remote.auth_token = token;
  config.u.remote.host = host;
  config.u.remote.port = port;
  config.u.remote.timeout = 5;
  swerex_deployment *deployment = swerex_get_deployment(loop, &config, &err);
  CHECK(swerex_deployment_runtime(deployment, &err) == NULL && err.code == SWEREX_E_DEPLOYMENT_NOT_STARTED);
  check_ok(swerex_deployment_start(deployment, &err), "start");
  check_ok(swerex_wait_until_alive(swerex_deployment_runtime(deployment, &err), 5, &err), "alive");
  check_ok(create("last"), "create");
  check_ok(swerex_deployment_stop(deployment, &err), "stop"); /* closes all sessions there */
  CHECK(!run("last", "x"));
  CHECK(python || err.code == SWEREX_E_SESSION_DOES_NOT_EXIST); /* Python keeps the dead session */
}

int main(int argc, char **argv) {
  char *self[] = {argv[0], NULL};
  char script[100];
  if (argc < 4) return 2;
  host = argv[1];
  port = atoi(argv[2]);
  token = argv[3];
  python = argc > 4;
  snprintf(folder, sizeof folder, "/tmp/swerex-client-%ld", (long)getpid());
  loop = swerex_loop_new(NULL, &err);
  runtime = connect_with(token);
  if (mkdir(folder, 0755) != 0 || !swerex_wait_until_alive(runtime, 10, &err)) return 3;
  swerex_is_alive(runtime, NULL, NULL, &err); /* its connection may stay: no leak of the first test */
  int code = test_main(1, self);
  snprintf(script, sizeof script, "rm -rf %s", folder);
  if (system(script) != 0) code = 1;
  swerex_bash_observation_clear(&seen);
  swerex_command_response_clear(&ran);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  return code;
}
