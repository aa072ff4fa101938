/*
 * swerex: the runtime on the command line. `swerex --help` teaches it.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "batch.h"
#include "doctor.h"
#include "reap.h"
#include "serve.h"
#include "teardown.h"
#include "terminal.h"

enum { EXIT_USAGE = 2, EXIT_TIMEOUT = 124, EXIT_OURS = 125, EXIT_CANNOT = 126, EXIT_NOT_FOUND = 127 };
enum { MAX_LIST = 256, CLOSE_TIME = 10 /* seconds */ };

typedef struct settings {
  const char *configs[MAX_LIST + 1], *hosts[MAX_LIST + 1], *images[MAX_LIST + 1];
  const char *token, *token_file, *cwd, *encoding, *errors, *content;
  const char *engine, *pull, *transport, *platform, *docker_args[MAX_LIST + 1];
  double timeout, idle_timeout;
  size_t max_output, count, jobs;
  const char *env[MAX_LIST + 1], *sources[MAX_LIST + 1];
  const char *region, *profile, *definition_prefix, *role_prefix;
  bool all, dry_run, yes, json, shell, check, verbose, quiet, help, version;
} settings;

/** What a command works with. */
typedef struct job {
  settings set;
  bool given[64]; /* options, by their rows */
  bool local; /* children inherit our environment */
  const char *container, *engine; /* NULL: it runs elsewhere */
  char **operands; /* ends in NULL */
  int count;
  swerex_loop *loop;
  void (*log)(void *user_data, const swerex_log_record *record); /* NULL: to stderr */
  void *log_data;
  swerex_runtime *runtime;
  swerex_error err;
} job;

static volatile sig_atomic_t window_changed;
static swerex_loop *signal_loop;

static void on_signal(int number) {
  if (number == SIGWINCH)
    window_changed = 1;
  else
    caught_signal = number;
  if (signal_loop != NULL) swerex_loop_wake(signal_loop);
}

static void catch_signal(int number) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  sigemptyset(&action.sa_mask);
  action.sa_handler = on_signal;
  sigaction(number, &action, NULL);
}

/* --- output ------------------------------------------------------------------------------- */

static void print_live(void *user_data, swerex_stream stream, const char *text, size_t size) {
  (void)user_data;
  put(stream == SWEREX_STDERR ? STDERR_FILENO : STDOUT_FILENO, text, size);
}

/** End what was printed: false, with a word, if not all of it could be written. */
static bool end_output(void) {
  if (fflush(stdout) != 0 && output_errno == 0 && errno != EPIPE) output_errno = errno;
  if (output_errno == 0) return true;
  fprintf(stderr, "swerex: writing to stdout: %s\n", strerror(output_errno));
  return false;
}

/** Report an error; returns the exit code that says what it was. */
static int fail(job *j) {
  const swerex_error *err = &j->err;
  if (j->set.json) {
    swerex__str line = swerex__str_new(NULL, SIZE_MAX / 2);
    swerex__str_putc(&line, '{');
    add_error(&line, err);
    swerex__str_puts(&line, "}\n");
    put_text(&line);
  } else {
    fprintf(stderr, "swerex: %s\n", err->message != NULL ? err->message : "failed");
  }
  if (swerex_code_is(err->code, SWEREX_E_COMMAND_TIMEOUT)) return EXIT_TIMEOUT;
  if (err->code == SWEREX_E_BASH_INCORRECT_SYNTAX) return EXIT_USAGE;
  return EXIT_OURS;
}

/** The exit code of a command that a signal has ended, or an error, which is reported. */
static int give_up(job *j) { return caught_signal != 0 ? 128 + caught_signal : fail(j); }

/** Print a response as one JSON object. */
static int print_model(job *j, swerex_model model, const void *value) {
  swerex_bytes json = {NULL, 0};
  if (!swerex_to_json(model, value, &json, &j->err)) return fail(j);
  put(STDOUT_FILENO, json.data, json.size);
  put(STDOUT_FILENO, "\n", 1);
  swerex_bytes_clear(&json);
  return 0;
}

/** Turn a wait-like code into one that a shell would show. */
static int exit_code_of(int code) {
  if (code == SWEREX_NO_EXIT_CODE) return 0;
  return code < 0 ? 128 - code : code;
}

/* --- commands ----------------------------------------------------------------------------- */

/** Wait for a call; a signal cancels it. */
static bool wait_for(job *j, swerex_future *future, void *response) {
  return await(j->loop, future, response, &j->err);
}

/** Add the --env settings to the environment of this process, for the children to inherit. */
static void apply_environment(const job *j) {
  for (size_t i = 0; j->set.env[i] != NULL; i++) {
    char *entry = (char *)(uintptr_t)j->set.env[i];
    putenv(entry);
  }
}

/**
 * The argument vector with --env in front of it, for a deployment elsewhere: there `env` adds to
 * the environment, which execute's own `env` would replace. NULL: out of memory.
 */
static const char **add_environment(const job *j) {
  size_t count = 0, at = 0;
  while (j->set.env[count] != NULL) count++;
  const char **argv = (const char **)calloc(count + (size_t)j->count + 4, sizeof *argv);
  if (argv == NULL) return NULL;
  argv[at++] = "env";
  for (size_t i = 0; i < count; i++) argv[at++] = j->set.env[i];
  if (j->set.shell) {
    argv[at++] = "/bin/sh";
    argv[at++] = "-c";
  }
  for (int i = 0; i < j->count; i++) argv[at++] = j->operands[i];
  return argv;
}

/** The exit code for a program that was not run: as a shell's where the program is to blame. */
static int refused(job *j) {
  int code = fail(j);
  bool asked = j->local || j->err.http_status != 0; /* else its server was out of reach */
  bool program = asked && (j->set.cwd == NULL || strstr(j->err.message, j->operands[0]) != NULL);
  if (program && j->err.code == SWEREX_E_FILE_NOT_FOUND) return EXIT_NOT_FOUND;
  return program && j->err.code == SWEREX_E_PERMISSION ? EXIT_CANNOT : code;
}

/** Describe the program to run. `owned` is the caller's to free. */
static bool make_command(job *j, bool kept, swerex_command *command, const char ***owned) {
  bool elsewhere = !j->local && j->set.env[0] != NULL;
  memset(command, 0, sizeof *command);
  *owned = elsewhere ? add_environment(j) : NULL;
  if (elsewhere && *owned == NULL) return swerex__err_memory(&j->err);
  command->argv = *owned != NULL ? *owned : (const char *const *)j->operands;
  command->shell = j->set.shell && *owned == NULL;
  command->cwd = j->set.cwd;
  command->timeout = j->set.timeout;
  command->idle_timeout = j->set.idle_timeout;
  command->max_output = j->set.max_output;
  if (command->max_output == 0 && !kept) command->max_output = 4096; /* it is printed */
  return true;
}

static int do_exec(job *j) {
  swerex_command command;
  swerex_command_response ran;
  memset(&ran, 0, sizeof ran);
  const char **argv = NULL;
  if (!make_command(j, j->set.json, &command, &argv)) return fail(j);
  if (j->local) apply_environment(j);
  if (!j->set.json) {
    command.watch.on_output = print_live;
    command.watch.raw = true;
  }
  bool ok = wait_for(j, swerex_execute_async(j->runtime, &command, &j->err), &ran);
  free(argv);
  if (!ok) return caught_signal != 0 ? 128 + caught_signal : refused(j);
  int code = exit_code_of(ran.exit_code);
  if (j->set.json && print_model(j, SWEREX_MODEL_COMMAND_RESPONSE, &ran) != 0) code = EXIT_OURS;
  swerex_command_response_clear(&ran);
  return code;
}

static char session_name[64]; /* of this run alone: a server has those of others */

static bool open_session(job *j) {
  swerex_create_bash_session_request request;
  swerex_create_bash_session_response response;
  memset(&response, 0, sizeof response);
  memset(&request, 0, sizeof request);
  snprintf(session_name, sizeof session_name, "swerex-%ld-%ld", (long)getpid(), (long)time(NULL));
  request.session = session_name;
  request.startup_source = j->set.sources;
  request.cwd = j->set.cwd;
  request.env = j->set.env;
  if (!wait_for(j, swerex_create_session_async(j->runtime, &request, &j->err), &response)) return false;
  if (j->set.sources[0] != NULL && j->set.json)
    print_model(j, SWEREX_MODEL_CREATE_BASH_SESSION_RESPONSE, &response);
  else if (j->set.sources[0] != NULL)
    put(STDOUT_FILENO, response.output.data, response.output.size);
  swerex_create_bash_session_response_clear(&response);
  return true;
}

/** Read a descriptor to its end; NULL and an error on failure. The caller frees it. */
static char *read_all(job *j, int fd, const char *name, size_t *size) {
  char *text = NULL;
  size_t room = 0;
  for (*size = 0;;) {
    if (*size + 1 >= room) {
      room = room == 0 ? 65536 : room * 2;
      char *grown = (char *)realloc(text, room);
      if (grown == NULL) break;
      text = grown;
    }
    ssize_t n = read(fd, text + *size, room - 1 - *size);
    if (n < 0 && errno == EINTR && caught_signal == 0) continue;
    if (n < 0) break;
    if (n == 0) {
      text[*size] = '\0';
      return text;
    }
    *size += (size_t)n;
  }
  swerex__err_system(&j->err, errno, name);
  free(text);
  return NULL;
}

/** Read a script from stdin; NULL and an error on failure. The caller frees it. */
static char *read_script(job *j) {
  size_t size = 0;
  char *text = read_all(j, STDIN_FILENO, "stdin", &size);
  if (text == NULL || strlen(text) == size) return text;
  swerex__err_set(&j->err, SWEREX_E_VALUE,
                  "stdin: the script holds a NUL byte at offset %zu, which no shell can run", strlen(text));
  free(text);
  return NULL;
}

/** Run one script in the session; true: go on with the next. */
static bool run_script(job *j, const char *script, int *code) {
  swerex_bash_action action;
  swerex_bash_observation seen;
  memset(&action, 0, sizeof action);
  memset(&seen, 0, sizeof seen);
  action.command = script;
  action.session = session_name;
  action.check = SWEREX_CHECK_SILENT;
  action.timeout = j->set.timeout;
  action.idle_timeout = j->set.idle_timeout;
  action.max_output = j->set.max_output;
  if (!j->set.json) {
    action.watch.on_output = print_live;
    if (action.max_output == 0) action.max_output = 4096; /* it is printed, not kept */
  }
  if (!wait_for(j, swerex_run_in_session_async(j->runtime, &action, &j->err), &seen)) {
    *code = give_up(j);
    return false;
  }
  *code = exit_code_of(seen.exit_code);
  bool ended = seen.failure_reason.size > 0;
  if (ended && !j->set.json) fprintf(stderr, "swerex: %s\n", seen.failure_reason.data);
  if (j->set.json) print_model(j, SWEREX_MODEL_BASH_OBSERVATION, &seen);
  swerex_bash_observation_clear(&seen);
  return !ended && !(j->set.check && *code != 0);
}

/** End the session, which a server would keep for ever; one that does not answer is left. */
static void close_session(job *j) {
  swerex_close_bash_session_request request;
  memset(&request, 0, sizeof request);
  request.session = session_name;
  swerex_future *future = swerex_close_session_async(j->runtime, &request, NULL);
  swerex_await(future, CLOSE_TIME, NULL);
  swerex_future_free(future);
}

static int do_run(job *j) {
  int code = 0;
  if (!open_session(j)) return give_up(j);
  for (int i = 0; i < j->count; i++) {
    bool from_stdin = strcmp(j->operands[i], "-") == 0;
    char *text = from_stdin ? read_script(j) : NULL;
    if (from_stdin && text == NULL) {
      code = give_up(j);
      break;
    }
    bool more = run_script(j, text != NULL ? text : j->operands[i], &code);
    free(text);
    if (more) continue;
    if (i + 1 < j->count && !j->set.quiet)
      fprintf(stderr, "swerex: %d of the %d scripts did not run\n", j->count - i - 1, j->count);
    break;
  }
  close_session(j);
  return code;
}

static int do_read(job *j) {
  swerex_read_file_request request = {j->operands[0], j->set.encoding, j->set.errors};
  swerex_read_file_response response;
  memset(&response, 0, sizeof response);
  if (!wait_for(j, swerex_read_file_async(j->runtime, &request, &j->err), &response))
    return give_up(j);
  if (j->set.json)
    print_model(j, SWEREX_MODEL_READ_FILE_RESPONSE, &response);
  else
    put(STDOUT_FILENO, response.content.data, response.content.size);
  swerex_read_file_response_clear(&response);
  return 0;
}

static int do_write(job *j) {
  swerex_write_file_request request;
  char *owned = NULL;
  request.path = j->operands[0];
  request.content.data = (char *)(uintptr_t)j->set.content;
  request.content.size = j->set.content != NULL ? strlen(j->set.content) : 0;
  if (j->set.content == NULL)
    request.content.data = owned = read_all(j, STDIN_FILENO, "stdin", &request.content.size);
  bool ok = caught_signal == 0 && request.content.data != NULL &&
            wait_for(j, swerex_write_file_async(j->runtime, &request, &j->err), NULL);
  free(owned);
  if (!ok) return give_up(j);
  if (j->set.json) put(STDOUT_FILENO, "{}\n", 3);
  return 0;
}

static int do_upload(job *j) {
  swerex_upload_request request = {j->operands[0], j->operands[1]};
  if (!wait_for(j, swerex_upload_async(j->runtime, &request, &j->err), NULL))
    return give_up(j);
  if (j->set.json) put(STDOUT_FILENO, "{}\n", 3);
  return 0;
}

/* --- the live shell ----------------------------------------------------------------------- */

/** Tell the session how large our terminal is. */
static void follow_window(job *j) {
  struct winsize size;
  window_changed = 0;
  if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0)
    swerex_session_resize(j->runtime, session_name, size.ws_row, size.ws_col, NULL);
}

/** Hand keys on to the session; false: there are no more. */
static bool pass_keys(job *j) {
  char keys[1024];
  ssize_t n = read(STDIN_FILENO, keys, sizeof keys);
  if (n > 0) return swerex_session_write(j->runtime, session_name, keys, (size_t)n, NULL);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return true;
  swerex_session_write(j->runtime, session_name, "\004", 1, NULL);
  return false;
}

/** Move keys in and output out until the shell ends. */
static void pump(job *j, const swerex_future *future) {
  enum { ROOM = 63 }; /* one session has far fewer descriptors */
  bool keys = true; /* after their end, ^D is said again: the shell may not have listened yet */
  while (!swerex_future_done(future) && caught_signal == 0) {
    struct pollfd fds[1 + ROOM];
    fds[0].fd = keys ? STDIN_FILENO : -1;
    fds[0].events = POLLIN;
    fds[0].revents = 0;
    size_t count = swerex_loop_pollfds(j->loop, fds + 1, ROOM);
    double wait = swerex_loop_timeout(j->loop);
    if (!keys && (wait < 0 || wait > 0.2)) wait = 0.2;
    int ready = poll(fds, (nfds_t)(1 + (count < ROOM ? count : ROOM)), wait < 0 ? -1 : (int)(wait * 1000) + 1);
    if (!keys && ready == 0) swerex_session_write(j->runtime, session_name, "\004", 1, NULL);
    if (window_changed) follow_window(j);
    if (keys && fds[0].revents != 0) keys = pass_keys(j);
    if (!swerex_loop_run(j->loop, 0, &j->err)) break;
  }
}

/** Open a shell in our container by the engine, which has a terminal for it. */
static int shell_in_container(job *j) {
  static const char *const script[] = {"sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"};
  const char *argv[2 * MAX_LIST + 16] = {j->engine, "exec", isatty(STDIN_FILENO) ? "-it" : "-i"};
  size_t at = 3;
  int status = 0;
  if (j->set.cwd != NULL) {
    argv[at++] = "-w";
    argv[at++] = j->set.cwd;
  }
  for (size_t i = 0; j->set.env[i] != NULL; i++) {
    argv[at++] = "-e";
    argv[at++] = j->set.env[i];
  }
  argv[at++] = j->container;
  memcpy(argv + at, script, sizeof script);
  signal(SIGINT, SIG_IGN);
  pid_t pid = fork();
  if (pid == 0) {
    signal(SIGINT, SIG_DFL);
    execvp(j->engine, (char *const *)(uintptr_t)argv);
    _exit(EXIT_NOT_FOUND);
  }
  while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR && caught_signal == 0) continue;
  if (caught_signal != 0) return 128 + caught_signal;
  return pid < 0 ? EXIT_OURS : exit_code_of(swerex__proc_exit_code(status));
}

static int do_reap(job *j) {
  const char *engine = j->set.engine != NULL ? j->set.engine : "docker";
  return reap(j->runtime, engine, j->set.all, j->set.dry_run, &j->err) ? 0 : give_up(j);
}

static int do_doctor(job *j) {
  bool works = doctor_all(j->runtime, j->set.json);
  return caught_signal != 0 ? 128 + caught_signal : works ? 0 : 1;
}

static int do_teardown(job *j) {
  swerex_fargate_teardown_options options;
  memset(&options, 0, sizeof options);
  options.region = j->set.region;
  options.profile = j->set.profile;
  options.task_definition_prefix = j->set.definition_prefix;
  options.execution_role_prefix = j->set.role_prefix;
  teardown state = {j->set.yes, j->set.dry_run, false};
  if (!wait_for(j, teardown_start(j->loop, &options, &state, &j->err), NULL))
    return give_up(j);
  return state.refused ? 1 : 0;
}

static int do_shell(job *j) {
  static const char command[] =
    "stty sane; PS1= PS2= PS0= ; env -u PS1 -u PS2 -u PS0 bash --rcfile <(echo '[ -f ~/.bashrc ] && . ~/.bashrc; "
    "[ -n \"$PS1\" ] && [ \"$PS1\" != \"\\\\s-\\\\v\\\\\\$ \" ] || PS1=\"\\\\u@\\\\h:\\\\w\\\\\\$ \"') -i";
  struct termios before, raw;
  swerex_bash_action action;
  swerex_bash_observation seen;
  memset(&action, 0, sizeof action);
  memset(&seen, 0, sizeof seen);
  if (j->container != NULL && j->set.sources[0] == NULL) return shell_in_container(j);
  if (!j->local) {
    swerex__err_set(&j->err, SWEREX_E_UNSUPPORTED,
                    j->container != NULL ? "shell: --source does not go with a container; `swerex run` takes it"
                                         : "shell: only this machine and containers have a terminal to type at; "
                                           "`swerex run` goes everywhere");
    return fail(j);
  }
  if (!open_session(j)) return give_up(j);
  bool terminal = tcgetattr(STDIN_FILENO, &before) == 0;
  action.command = command;
  action.check = SWEREX_CHECK_SILENT;
  action.max_output = 4096; /* it is printed, not kept */
  action.watch.on_output = print_live;
  action.watch.raw = true;
  catch_signal(SIGWINCH);
  follow_window(j);
  if (terminal) {
    raw = before;
    raw.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
    raw.c_oflag &= ~(tcflag_t)OPOST;
    raw.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
  }
  action.session = session_name;
  swerex_future *future = swerex_run_in_session_async(j->runtime, &action, &j->err);
  if (future != NULL) pump(j, future);
  bool done = future != NULL && swerex_future_done(future);
  bool ok = done && swerex_future_take(future, &seen, &j->err);
  if (terminal) tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
  int code = ok ? exit_code_of(seen.exit_code) : give_up(j);
  swerex_bash_observation_clear(&seen);
  return code;
}

/* --- the deployment ----------------------------------------------------------------------- */

/** Describe the server that --host names as a deployment. */
static bool describe_remote(job *j, const char *host, swerex_bytes *json) {
  char token[SERVE_TOKEN_MAX];
  swerex_remote_config config;
  memset(&config, 0, sizeof config);
  config.auth_token = j->set.token != NULL ? j->set.token : getenv("SWEREX_AUTH_TOKEN");
  if (j->set.token_file != NULL && !serve_read_token(j->set.token_file, token, &j->err))
    return swerex__err_set(&j->err, j->err.code, "--auth-token-file: %s", j->err.message);
  if (j->set.token_file != NULL) config.auth_token = token;
  if (config.auth_token == NULL) config.auth_token = "";
  config.host = host;
  config.kill_on_disconnect = true; /* Ctrl-C here ends what runs there */
  return swerex_to_json(SWEREX_MODEL_REMOTE_CONFIG, &config, json, &j->err);
}

/** Add `"name": "text"` to an object, if there is a text. */
static void describe(swerex__str *json, const char *name, const char *text) {
  if (text == NULL) return;
  swerex__json_add_key(json, name);
  swerex__json_add_text(json, text);
}

/** Describe the container that --image names as a deployment. */
static bool describe_container(job *j, const char *image, swerex_bytes *json) {
  const settings *set = &j->set;
  swerex__str out = swerex__str_new(NULL, 1 << 24);
  swerex__str_puts(&out, "{\"type\":\"docker\"");
  describe(&out, "image", image);
  describe(&out, "container_runtime", set->engine);
  describe(&out, "pull", set->pull);
  describe(&out, "platform", set->platform);
  describe(&out, "transport", set->transport);
  swerex__json_add_key(&out, "docker_args");
  swerex__str_putc(&out, '[');
  for (size_t i = 0; set->docker_args[i] != NULL; i++) {
    swerex__json_add_comma(&out);
    swerex__json_add_text(&out, set->docker_args[i]);
  }
  swerex__str_puts(&out, "]}");
  return swerex__str_take(&out, json, &j->err);
}

/** Start a deployment, until a signal comes. */
static bool start_deployment(job *j, swerex_deployment *deployment) {
  swerex_future *starting = swerex_deployment_start_async(deployment, &j->err);
  while (starting != NULL && !swerex_future_done(starting) && caught_signal == 0)
    if (!swerex_loop_run(j->loop, SWEREX_FOREVER, &j->err)) break;
  if (starting != NULL && swerex_future_done(starting)) return swerex_future_take(starting, NULL, &j->err);
  swerex_future_free(starting); /* what it has made is taken back when the loop is freed */
  if (caught_signal != 0) swerex__err_set(&j->err, SWEREX_E_CANCELLED, "the start was interrupted");
  return false;
}

/** Find a deployment of --config: a type's name, JSON, or a file that holds it. */
static bool describe_config(job *j, const char *config, swerex_bytes *json) {
  swerex__str out = swerex__str_new(NULL, 1 << 24);
  size_t size = 0;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(swerex__kinds_rows); i++)
    if (strcmp(config, swerex__kinds_rows[i].name) == 0) swerex__str_printf(&out, "{\"type\":\"%s\"}", config);
  if (config[strspn(config, " \t\n")] == '{') swerex__str_puts(&out, config);
  if (out.size > 0 || out.failed) return swerex__str_take(&out, json, &j->err);
  int fd = open(config, O_RDONLY | O_CLOEXEC);
  char *text = fd < 0 ? NULL : read_all(j, fd, config, &size);
  if (fd < 0 && errno == ENOENT && strpbrk(config, "./") == NULL)
    swerex__err_set(&j->err, SWEREX_E_FILE_NOT_FOUND,
                    "--config %s: that is no type (local, dummy, remote, docker, fargate, modal), no JSON and no file",
                    config);
  else if (fd < 0)
    swerex__err_system(&j->err, errno, config);
  if (fd >= 0) close(fd);
  if (text != NULL) swerex__str_add(&out, text, size);
  free(text);
  return text != NULL && swerex__str_take(&out, json, &j->err);
}

static bool make_loop(job *j) {
  swerex_loop_options options;
  memset(&options, 0, sizeof options);
  options.logger.write = j->log;
  options.logger.user_data = j->log_data;
  options.logger.level = j->set.quiet     ? SWEREX_LOG_OFF
                         : j->set.verbose ? SWEREX_LOG_DEBUG
                                          : SWEREX_LOG_DEFAULT_;
  j->loop = signal_loop = swerex_loop_new(&options, &j->err);
  return j->loop != NULL;
}

/** Make and start the deployment that the options describe. */
static bool start(job *j) {
  const settings *set = &j->set;
  swerex_bytes config = {NULL, 0};
  bool ok = set->hosts[0] != NULL    ? describe_remote(j, set->hosts[0], &config)
            : set->images[0] != NULL ? describe_container(j, set->images[0], &config)
                                     : describe_config(j, set->configs[0] != NULL ? set->configs[0] : "local", &config);
  swerex_deployment *deployment = NULL;
  if (ok && make_loop(j)) deployment = swerex_get_deployment_json(j->loop, config.data, 0, &j->err);
  swerex_bytes_clear(&config);
  bool invalid = j->err.code == SWEREX_E_JSON || j->err.code == SWEREX_E_VALIDATION;
  if (invalid && set->configs[0] != NULL && strchr(set->configs[0], '{') == NULL) /* a file or type: not told yet */
    swerex__err_set(&j->err, j->err.code, "--config %s: %s", set->configs[0], j->err.message);
  if (deployment == NULL || !start_deployment(j, deployment)) return false;
  j->local = strcmp(deployment->kind->name, "local") == 0;
  j->container = swerex_deployment_container_name(deployment);
  if (j->container != NULL) j->engine = swerex__docker_program(deployment);
  j->runtime = swerex_deployment_runtime(deployment, &j->err);
  return j->runtime != NULL;
}

/* --- many deployments --------------------------------------------------------------------- */

/** Add a deployment under the name that it was given by; a long one of JSON by its image or type. */
static bool add_target(job *j, batch *all, const char *name, bool (*make)(job *, const char *, swerex_bytes *)) {
  batch_target *target = &all->targets[all->target_count++];
  swerex_bytes json = {NULL, 0};
  swerex__doc doc;
  if (!make(j, name, &json)) return false;
  target->config = json;
  snprintf(target->name, sizeof target->name, "%s", name);
  if (name[strspn(name, " \t\n")] != '{' ||
      !swerex__doc_parse(NULL, json.data, json.size, &doc, NULL))
    return true;
  static const char *const keys[] = {"type", "host", "image"};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(keys); i++) {
    const swerex__json *value = swerex__json_get(doc.root, keys[i]);
    if (value != NULL && value->type == SWEREX__JSON_STRING)
      snprintf(target->name, sizeof target->name, "%.*s", (int)value->size, value->string);
  }
  swerex__doc_free(&doc);
  return true;
}

/** Describe all that the options name; local, if they name nothing. */
static bool add_targets(job *j, batch *all) {
  const settings *set = &j->set;
  bool ok = true;
  for (size_t i = 0; set->configs[i] != NULL && ok; i++) ok = add_target(j, all, set->configs[i], describe_config);
  for (size_t i = 0; set->hosts[i] != NULL && ok; i++) ok = add_target(j, all, set->hosts[i], describe_remote);
  for (size_t i = 0; set->images[i] != NULL && ok; i++) ok = add_target(j, all, set->images[i], describe_container);
  if (ok && all->target_count == 0) ok = add_target(j, all, "local", describe_config);
  if (!ok || all->target_count * all->count <= BATCH_MAX) return ok;
  return swerex__err_set(&j->err, SWEREX_E_VALUE, "--count: more than %d runs", BATCH_MAX);
}

static int do_batch(job *j) {
  batch all;
  swerex_command command;
  batch_target *targets = (batch_target *)calloc(3 * MAX_LIST + 1, sizeof *targets);
  char *script = NULL;
  const char **argv = NULL;
  memset(&all, 0, sizeof all);
  all.targets = targets;
  all.count = j->set.count > 0 ? j->set.count < BATCH_MAX ? j->set.count : BATCH_MAX + 1 : 1;
  all.jobs = j->set.jobs > 0 ? j->set.jobs : 10;
  all.live = !j->set.json && terminal_is_live();
  all.command = &command;
  if (all.live && !j->set.verbose) {
    j->log = batch_log;
    j->log_data = &all;
  }
  bool ok = targets != NULL || swerex__err_memory(&j->err);
  if (ok && strcmp(j->operands[0], "-") == 0 && j->set.shell) {
    ok = (script = read_script(j)) != NULL;
    j->operands[0] = script;
  }
  ok = ok && make_command(j, !all.live, &command, &argv) && add_targets(j, &all) && make_loop(j);
  all.loop = j->loop;
  int code = ok ? batch_run(&all, &j->err) : -1;
  if (code < 0) code = give_up(j);
  for (size_t i = 0; i < all.target_count; i++) swerex_bytes_clear(&targets[i].config);
  free(targets);
  free(argv);
  free(script);
  return code;
}

/* --- the tables --------------------------------------------------------------------------- */

typedef struct verb {
  const char *name, *operands;
  int least, most; /* operands; -1: any number */
  int (*run)(job *j);
  bool alone; /* it makes its own deployments */
  const char *what, *example;
} verb;

static const verb verbs[] = {
  {"exec", " [--] CMD [ARG...]", 1, -1, do_exec, false,
   "run one program; its exit code is passed through, its stdin is empty", "swerex exec --timeout 10 -- make -j2"},
  {"run", " SCRIPT [SCRIPT...]", 1, -1, do_run, false,
   "run scripts in one live bash session, which they share; - reads one from stdin",
   "swerex run 'cd /tmp; x=1' 'pwd; echo $x'"},
  {"shell", "", 0, 0, do_shell, false, "open a live session at this terminal", "swerex --image debian shell"},
  {"batch", " [--] CMD [ARG...]", 1, -1, do_batch, true,
   "run one program in many deployments at once; a JSON object per run, but on a terminal a line",
   "swerex batch --image debian --image alpine --count 5 -- uname -a"},
  {"read", " PATH", 1, 1, do_read, false, "print a text file", "swerex read --encoding latin-1 old.txt"},
  {"write", " PATH", 1, 1, do_write, false, "write stdin to a file, and the folders above it",
   "date | swerex write /tmp/a/b/now.txt"},
  {"upload", " SOURCE TARGET", 2, 2, do_upload, false, "copy a file or folder, with modes, links and times",
   "swerex upload ./project /tmp/project"},
  {"serve", "", 0, -1, NULL, true, "let others run commands here by HTTP, as swerex-remote does",
   "swerex serve --host 127.0.0.1 --port 0"},
  {"doctor", "", 0, 0, do_doctor, false, "say what works here, and what to do where it does not", "swerex doctor"},
  {"docker-reap", "", 0, 0, do_reap, false, "remove containers whose program is gone",
   "swerex docker-reap --dry-run"},
  {"fargate-teardown", "", 0, 0, do_teardown, false, "remove what fargate deployments have left in AWS",
   "swerex fargate-teardown --region eu-central-1 --dry-run"},
};

/** What most people want, in this order; the rest is told by the tables. */
static const struct {
  const char *type, *what;
} uses[] = {
  {"swerex exec -- ls -l", "one program here"},
  {"swerex run 'cd /tmp; x=1' 'pwd; echo $x'", "scripts that share a live session"},
  {"swerex --image debian run 'apt list'", "the same in a new container"},
  {"swerex --image debian shell", "a shell in one"},
  {"swerex --host http://box:8000 exec -- ls", "the same at a server"},
  {"swerex doctor", "what works here"},
};

enum kind { FLAG, TEXT, SECONDS, SIZE, LIST };

typedef struct option {
  const char *name;
  enum kind kind;
  size_t offset;
  const char *verbs; /* that take it; NULL: all */
  const char *what;
} option;

#define OPTION(name, kind, member, verbs, what) {name, kind, offsetof(settings, member), verbs, what}
#define SERVED "exec run batch read write upload"
#define DEPLOYED SERVED " shell"
static const option options[] = {
  OPTION("--image", LIST, images, DEPLOYED, "NAME  run in a new container of this image"),
  OPTION("--host", LIST, hosts, SERVED, "ADDRESS  of a swerex-remote, such as http://box:8000 or unix:/path"),
  OPTION("--config", LIST, configs, DEPLOYED, "TYPE|JSON|FILE  of the deployment (default local)"),
  OPTION("--auth-token", TEXT, token, SERVED,
         "TOKEN  for --host (better: SWEREX_AUTH_TOKEN, which `ps` does not show)"),
  OPTION("--auth-token-file", TEXT, token_file, SERVED, "FILE  whose first line is the token"),
  OPTION("--container-runtime", TEXT, engine, DEPLOYED " docker-reap", "NAME  docker (default) or podman"),
  OPTION("--pull", TEXT, pull, DEPLOYED, "WHEN  missing (default), never or always"),
  OPTION("--platform", TEXT, platform, DEPLOYED, "NAME  of the container, such as linux/arm64"),
  OPTION("--docker-arg", LIST, docker_args, DEPLOYED, "ARG  an option for `docker run`; may be repeated"),
  OPTION("--transport", TEXT, transport, DEPLOYED, "NAME  tcp (default), or stdio: no port at all"),
  OPTION("--count", SIZE, count, "batch", "N  runs in each deployment (default 1)"),
  OPTION("--jobs", SIZE, jobs, "batch", "N  runs at once (default 10)"),
  OPTION("--all", FLAG, all, "docker-reap", "also those in use, and those of other machines"),
  OPTION("--dry-run", FLAG, dry_run, "docker-reap fargate-teardown", "only say what would be removed"),
  OPTION("--yes", FLAG, yes, "fargate-teardown", "remove without asking"),
  OPTION("--region", TEXT, region, "fargate-teardown", "NAME  of AWS (default AWS_DEFAULT_REGION, or the profile's)"),
  OPTION("--profile", TEXT, profile, "fargate-teardown", "NAME  of ~/.aws"),
  OPTION("--definition-prefix", TEXT, definition_prefix, "fargate-teardown",
         "NAME  of the task definitions to look at (default swe-rex-task; \"\": all)"),
  OPTION("--role-prefix", TEXT, role_prefix, "fargate-teardown",
         "NAME  of the roles to look at (default swe-rex-execution-role; \"\": all)"),
  OPTION("--json", FLAG, json, NULL, "answers and errors as one JSON object a line"),
  OPTION("--timeout", SECONDS, timeout, "exec run batch", "SECONDS  give up after so long (exit code 124)"),
  OPTION("--idle-timeout", SECONDS, idle_timeout, "exec run batch", "SECONDS  give up after so long without output"),
  OPTION("--max-output", SIZE, max_output, "exec run batch", "BYTES  of output to keep with --json: head and tail"),
  OPTION("--cwd", TEXT, cwd, "exec run shell batch", "FOLDER  working directory"),
  OPTION("--env", LIST, env, "exec run shell batch", "NAME=VALUE  set a variable; may be repeated"),
  OPTION("--source", LIST, sources, "run shell", "FILE  source it first; may be repeated"),
  OPTION("--shell", FLAG, shell, "exec batch", "run by /bin/sh -c; with batch, - reads the script from stdin"),
  OPTION("--check", FLAG, check, "run", "stop at the first script that fails"),
  OPTION("--encoding", TEXT, encoding, "read", "NAME  of the file (default utf-8)"),
  OPTION("--errors", TEXT, errors, "read", "NAME  strict, ignore, replace, backslashreplace, surrogateescape"),
  OPTION("--content", TEXT, content, "write", "TEXT  to write instead of stdin"),
  OPTION("--verbose", FLAG, verbose, NULL, "log what happens"),
  OPTION("--quiet", FLAG, quiet, NULL, "log nothing"),
  OPTION("--version", FLAG, version, NULL, "print the version"),
  OPTION("--help", FLAG, help, NULL, "this, or with a command: about it"),
};

enum { VERBS = sizeof verbs / sizeof *verbs, OPTIONS = sizeof options / sizeof *options };
SWEREX__SYS_STATIC_ASSERT(OPTIONS <= sizeof((job *)NULL)->given, options_given);

/** Tell whether a word stands in a list of words. */
static bool listed(const char *list, const char *word) {
  size_t size = strlen(word);
  for (const char *at = list; (at = strstr(at, word)) != NULL; at += size)
    if ((at == list || at[-1] == ' ') && (at[size] == ' ' || at[size] == '\0')) return true;
  return false;
}

static const verb *find_verb(const char *name) {
  for (size_t i = 0; i < VERBS; i++)
    if (strcmp(verbs[i].name, name) == 0) return &verbs[i];
  return NULL;
}

static void print_option(const option *o) {
  const char *what = strstr(o->what, "  "); /* behind the name of its value */
  char left[64];
  snprintf(left, sizeof left, "%s %.*s", o->name, what != NULL ? (int)(what - o->what) : 0, o->what);
  terminal_row(left, 28, what != NULL ? what + 2 : o->what);
}

/** Print the options of a command; NULL: those that most commands have. */
static void print_options(const char *name) {
  printf("\nOptions:\n");
  for (size_t i = 0; i < OPTIONS; i++) {
    const char *of = options[i].verbs;
    if (of == NULL || (name == NULL ? listed(of, "exec") && listed(of, "upload") : listed(of, name)))
      print_option(&options[i]);
  }
}

static void print_types(void) {
  swerex__str text = swerex__str_new(NULL, 1 << 16);
  swerex__str_puts(&text, "Deployment types:");
  for (size_t i = 0; i < SWEREX__SYS_COUNT(swerex__kinds_rows); i++)
    if (swerex__kinds_rows[i].kind != NULL) swerex__str_printf(&text, " %s", swerex__kinds_rows[i].name);
  putchar('\n');
  terminal_text(text.data != NULL ? text.data : "");
  swerex__str_clear(&text);
}

static int print_help(const verb *v) {
  if (v != NULL && v->run == NULL) {
    serve_help("swerex serve");
    return 0;
  }
  if (v != NULL) {
    char line[128];
    snprintf(line, sizeof line, "usage: swerex %s [OPTIONS]%s", v->name, v->operands);
    terminal_text(line);
    putchar('\n');
    terminal_text(v->what);
    printf("\n  %s\n", v->example);
    print_options(v->name);
    if (listed(DEPLOYED, v->name)) print_types();
    return 0;
  }
  terminal_text("swerex: run commands in a deployment, by default on this machine.");
  printf("\nExamples:\n");
  for (size_t i = 0; i < SWEREX__SYS_COUNT(uses); i++) terminal_row(uses[i].type, 45, uses[i].what);
  printf("\nCommands:\n");
  for (size_t i = 0; i < VERBS; i++) terminal_row(verbs[i].name, 20, verbs[i].what);
  print_options(NULL);
  print_types();
  putchar('\n');
  terminal_text("`swerex COMMAND --help` tells more.");
  putchar('\n');
  terminal_text("Exit codes: those of the command; 128+N for signal N; 124 a time limit, 125 a failure of swerex "
                "itself, 126 and 127 a program that cannot be run or found, 2 a usage or syntax error. Of batch: 1 if "
                "a run failed; of doctor: 1 if the local runtime does not work.");
  return 0;
}

/* --- reading the command line ------------------------------------------------------------- */

static const char *usage_verb = ""; /* whose help is worth a look */

static int usage(const char *format, ...) {
  va_list args;
  fprintf(stderr, "swerex: ");
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fprintf(stderr, "; see swerex %s%s--help\n", usage_verb, usage_verb[0] != '\0' ? " " : "");
  return EXIT_USAGE;
}

/** The length of what an option takes, such as SECONDS, at the start of its description. */
static int takes(const option *o) {
  const char *end = strstr(o->what, "  ");
  return end == NULL ? 0 : (int)(end - o->what);
}

static size_t count_list(const char *const *list) {
  size_t count = 0;
  while (list[count] != NULL) count++;
  return count;
}

/** Store an option's value; false: it is not of its kind. */
static bool store(settings *set, const option *o, const char *value) {
  void *slot = (char *)set + o->offset;
  char *end = NULL;
  if (o->kind == FLAG) {
    *(bool *)slot = true;
  } else if (o->kind == TEXT) {
    *(const char **)slot = value;
  } else if (o->kind == SECONDS) {
    double seconds = strtod(value, &end);
    if (end == value || *end != '\0' || !(seconds >= 0)) return false;
    *(double *)slot = seconds > 0 ? seconds : SWEREX_NOW;
  } else if (o->kind == SIZE) {
    unsigned long long size = strtoull(value, &end, 10);
    if (end == value || *end != '\0' || value[0] == '-' || size == 0) return false;
    *(size_t *)slot = (size_t)size;
  } else {
    const char **list = (const char **)slot;
    size_t count = count_list(list);
    bool variable = o->offset == offsetof(settings, env);
    if (count == MAX_LIST || (variable && (strchr(value, '=') == NULL || value[0] == '='))) return false;
    list[count] = value;
  }
  return true;
}

/** Read an option at argv[*at]; 0, or the exit code after a complaint. */
static int read_option(job *j, char **argv, int *at) {
  const char *word = argv[*at], *equals = strchr(word, '=');
  size_t size = equals != NULL ? (size_t)(equals - word) : strlen(word);
  for (size_t i = 0; i < OPTIONS; i++) {
    const option *o = &options[i];
    if (strlen(o->name) != size || strncmp(o->name, word, size) != 0) continue;
    if (o->kind == FLAG && equals != NULL) return usage("option %s takes no value", o->name);
    const char *value = equals != NULL ? equals + 1 : o->kind == FLAG ? "" : argv[++*at];
    if (value == NULL) return usage("option %s needs a value: %.*s", o->name, takes(o), o->what);
    if (!store(&j->set, o, value))
      return usage("'%s' is not a value for %s, which takes %.*s", value, o->name, takes(o), o->what);
    j->given[i] = true;
    return 0;
  }
  return usage("there is no option '%s'", word);
}

/** Read the whole command line; 0, or an exit code. */
static int read_arguments(job *j, char **argv, const verb **chosen) {
  int at = 1;
  *chosen = NULL;
  for (; argv[at] != NULL; at++) {
    const char *word = argv[at];
    if (strcmp(word, "-h") == 0 || (*chosen == NULL && strcmp(word, "help") == 0)) {
      j->set.help = true;
      continue;
    }
    if (strcmp(word, "--") == 0 && *chosen != NULL) {
      at++;
      break;
    }
    if (word[0] == '-' && word[1] != '\0') {
      int code = read_option(j, argv, &at);
      if (code != 0) return code;
    } else if (*chosen == NULL) {
      *chosen = find_verb(word);
      if (*chosen == NULL) return usage("there is no command '%s'", word);
      usage_verb = (*chosen)->name;
    } else {
      break;
    }
  }
  j->operands = argv + at;
  while (j->operands[j->count] != NULL) j->count++;
  if (j->set.help || j->set.version) return 0;
  if (*chosen == NULL) return usage("no command given");
  if ((*chosen)->run == NULL) return usage("%s comes first, and its options behind it", (*chosen)->name);
  for (size_t i = 0; i < OPTIONS; i++)
    if (j->given[i] && options[i].verbs != NULL && !listed(options[i].verbs, (*chosen)->name))
      return usage("option %s does not go with this command (it goes with: %s)", options[i].name, options[i].verbs);
  const settings *set = &j->set;
  bool reaps = (*chosen)->run == do_reap;
  if (set->images[0] == NULL && ((set->engine != NULL && !reaps) || set->pull != NULL || set->platform != NULL ||
                                 set->transport != NULL || set->docker_args[0] != NULL))
    return usage("--container-runtime, --pull, --platform, --docker-arg and --transport go with --image "
                 "(--config has fields for them)");
  if (set->hosts[0] == NULL && (set->token != NULL || set->token_file != NULL))
    return usage("--auth-token and --auth-token-file go with --host (--config has a field for it)");
  if (set->token != NULL && set->token_file != NULL) return usage("--auth-token and --auth-token-file exclude each other");
  if ((*chosen)->run != do_batch && count_list(j->set.hosts) + count_list(j->set.configs) + count_list(j->set.images) > 1)
    return usage("--config, --host and --image each name a deployment: give one of them, or use batch");
  if (j->count < (*chosen)->least || ((*chosen)->most >= 0 && j->count > (*chosen)->most))
    return usage("usage: swerex %s [OPTIONS]%s", (*chosen)->name, (*chosen)->operands);
  return 0;
}

int main(int argc, char **argv) {
  job j;
  const verb *chosen;
  memset(&j, 0, sizeof j);
  keep_standard();
  if (argc > 1 && strcmp(argv[1], "serve") == 0) return serve("swerex serve", argv + 1);
  int code = read_arguments(&j, argv, &chosen);
  if (code != 0) return code;
  if (j.set.help) return print_help(chosen);
  if (j.set.version) return printf("swerex %s\n", swerex_version()) < 0;
  catch_signal(SIGINT);
  catch_signal(SIGTERM);
  catch_signal(SIGHUP);
  signal(SIGPIPE, SIG_IGN);
  code = chosen->alone || start(&j) ? chosen->run(&j) : fail(&j);
  signal_loop = NULL;
  swerex_loop_free(j.loop);
  swerex_error_clear(&j.err);
  return end_output() ? code : EXIT_OURS;
}
