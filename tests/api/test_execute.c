/* One-off commands: what subprocess.run does, and nothing left behind. */
#include "world.h"

#include <signal.h>
#include <sys/stat.h>

static bool execute(world *w, const swerex_command *command) {
  swerex_command_response_clear(&w->ran);
  return swerex_execute(w->runtime, command, &w->ran, &w->err);
}

/** Run a script with /bin/sh -c. */
static bool script(world *w, const char *text, double timeout) {
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = text;
  command.shell = true;
  command.timeout = timeout;
  return execute(w, &command);
}

static bool argv(world *w, const char *const *list) {
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.argv = list;
  return execute(w, &command);
}
#define ARGV(w, ...) argv(w, (const char *const[]){__VA_ARGS__, NULL})

TEST(streams_and_exit_codes) {
  world w = world_open();
  CHECK(script(&w, "echo out; echo err >&2; exit 3", 0));
  CHECK_STR(w.ran.stdout_text.data, "out\n");
  CHECK_STR(w.ran.stderr_text.data, "err\n");
  CHECK_INT(w.ran.exit_code, 3);
  CHECK(script(&w, "kill -9 $$", 0));
  CHECK_INT(w.ran.exit_code, -9);
  CHECK(ARGV(&w, "printf", "%s|", "a b", "", "c'd"));
  CHECK_STR(w.ran.stdout_text.data, "a b||c'd|");
  CHECK(ARGV(&w, "cat"));
  CHECK_STR(w.ran.stdout_text.data, "");
  CHECK(script(&w, "printf 'a\\0\\377b\\r\\n\\033[1m'", 0));
  CHECK_MEM(w.ran.stdout_text.data, w.ran.stdout_text.size, "a\0\\xffb\r\n\033[1m");
  world_close(&w);
}

TEST(merged_streams) {
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = "echo 1; echo 2 >&2; echo 3";
  command.shell = command.merge_output_streams = true;
  CHECK(execute(&w, &command));
  CHECK_STR(w.ran.stdout_text.data, "1\n2\n3\n");
  CHECK_STR(w.ran.stderr_text.data, "");
  world_close(&w);
}

TEST(shell_with_a_list) {
  static const char *const list[] = {"echo \"$0-$1\"", "a", "b", NULL}, *const echo[] = {"echo", "a", NULL};
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.shell = true;
  command.argv = echo;
  CHECK(execute(&w, &command));
  CHECK_STR(w.ran.stdout_text.data, "\n");
  command.argv = list;
  CHECK(execute(&w, &command));
  CHECK_STR(w.ran.stdout_text.data, "a-b\n");
  world_close(&w);
}

TEST(what_cannot_start) {
  static const char *const empty[] = {NULL};
  world w = world_open();
  swerex_command command;
  CHECK(!ARGV(&w, "nonexistentcmd"));
  CHECK_INT(w.err.code, SWEREX_E_FILE_NOT_FOUND);
  CHECK_STR(w.err.message, "[Errno 2] No such file or directory: 'nonexistentcmd'");
  CHECK_INT(w.err.sys_errno, 2);
  memset(&command, 0, sizeof command);
  command.command = "echo hi";
  CHECK(!execute(&w, &command));
  CHECK_STR(w.err.message, "[Errno 2] No such file or directory: 'echo hi'");
  command.command = "pwd";
  command.cwd = "/nonexist";
  CHECK(!execute(&w, &command));
  CHECK_STR(w.err.message, "[Errno 2] No such file or directory: '/nonexist'");
  command.cwd = "/etc/passwd";
  CHECK(!execute(&w, &command));
  CHECK_INT(w.err.code, SWEREX_E_NOT_A_DIRECTORY);
  CHECK(!ARGV(&w, "/etc/passwd"));
  CHECK_INT(w.err.code, SWEREX_E_PERMISSION);
  CHECK_STR(w.err.message, "[Errno 13] Permission denied: '/etc/passwd'");
  CHECK(!argv(&w, empty));
  CHECK_INT(w.err.code, SWEREX_E_VALUE);
  memset(&command, 0, sizeof command);
  CHECK(!execute(&w, &command));
  CHECK_INT(w.err.code, SWEREX_E_VALIDATION);
  command.command = "";
  CHECK(!execute(&w, &command));
  CHECK_INT(w.err.code, SWEREX_E_FILE_NOT_FOUND);
  world_close(&w);
}

TEST(checked_exit_code) {
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = "exit 3";
  command.shell = command.check = true;
  command.error_msg = "ctx";
  CHECK(!execute(&w, &command));
  CHECK_INT(w.err.code, SWEREX_E_NON_ZERO_EXIT_CODE);
  CHECK_STR(w.err.message, "ctx: Command 'exit 3' failed with exit code 3. Stdout:\n''\nStderr:\n''");
  world_close(&w);
}

TEST(environment_and_folder) {
  static const char *const env[] = {"A=b", NULL}, *const none[] = {NULL};
  static const char *const list[] = {"/usr/bin/env", NULL};
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.argv = list;
  command.env = env;
  CHECK(execute(&w, &command));
  CHECK_STR(w.ran.stdout_text.data, "A=b\n");
  command.env = none;
  CHECK(execute(&w, &command));
  CHECK_STR(w.ran.stdout_text.data, "");
  command.env = NULL;
  CHECK(execute(&w, &command));
  CHECK(has(w.ran.stdout_text.data, "PATH="));
  command.cwd = "/usr/bin";
  command.argv = (const char *const[]){"./env", "pwd", NULL};
  CHECK(execute(&w, &command));
  CHECK_STR(w.ran.stdout_text.data, "/usr/bin\n");
  world_close(&w);
}

TEST(follows_the_folder_of_the_host) {
  world w = world_open();
  char before[1024];
  CHECK(getcwd(before, sizeof before) != NULL);
  CHECK(chdir("/usr") == 0);
  CHECK(ARGV(&w, "pwd"));
  CHECK_STR(w.ran.stdout_text.data, "/usr\n");
  char gone[] = "/tmp/swerex-gone-XXXXXX";
  CHECK(mkdtemp(gone) != NULL && chdir(gone) == 0 && rmdir(gone) == 0);
  CHECK(ARGV(&w, "readlink", "/proc/self/cwd"));
  CHECK(strstr(w.ran.stdout_text.data, " (deleted)\n") != NULL);
  CHECK(chdir(before) == 0);
  world_close(&w);
}

/** Run a command as somebody who may not enter the folder where we are (NULL: it is gone). */
static int run_shut_in(const char *folder) {
  if (setgid(65534) != 0 || setuid(65534) != 0) return 1;
  world w = world_open();
  CHECK(ARGV(&w, folder == NULL ? "true" : "pwd"));
  CHECK(folder == NULL || strncmp(w.ran.stdout_text.data, folder, strlen(folder)) == 0);
  CHECK(create(&w, NULL));
  world_close(&w);
  return test_faults != 0;
}

TEST(a_folder_that_only_its_owner_may_enter) {
  if (getuid() != 0) SKIP("needs root, to become another");
  char before[1024], folder[] = "/tmp/swerex-shut-XXXXXX";
  int status = -1;
  CHECK(getcwd(before, sizeof before) != NULL && mkdtemp(folder) != NULL && chdir(folder) == 0);
  for (int gone = 0; gone < 2; gone++) {
    CHECK(!gone || rmdir(folder) == 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
      status = run_shut_in(gone ? NULL : folder);
      fflush(stdout);
      _exit(status);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
  }
  CHECK(chdir(before) == 0);
}

TEST(timeout_kills_all) {
  static const char *const scripts[] = {"echo part; echo e >&2; sleep 7771 & setsid sleep 7771 & wait",
                                        "echo part; echo e >&2; (setsid sleep 7771 &); sleep 7771",
                                        "echo part; echo e >&2; sh -c 'trap \"\" TERM HUP INT; sleep 7771' | cat"};
  for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
    world w = world_open();
    double start = seconds();
    CHECK(!script(&w, scripts[i], 0.3));
    CHECK(seconds() - start < 3);
    CHECK_INT(w.err.code, SWEREX_E_COMMAND_TIMEOUT);
    CHECK_STR(w.err.message, "Timeout (0.3s) exceeded while running command");
    CHECK_STR(w.err.extra_info, "{\"stdout\":\"part\\n\",\"stderr\":\"e\\n\"}");
    CHECK_INT(processes("sleep 7771"), 0);
    world_close(&w);
  }
}

TEST(idle_timeout) {
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = "echo a; sleep 0.2; echo b; sleep 20";
  command.shell = true;
  command.idle_timeout = 0.6;
  CHECK(!execute(&w, &command));
  CHECK_STR(w.err.message, "No output for 0.6s while running command");
  CHECK_STR(w.err.extra_info, "{\"stdout\":\"a\\nb\\n\",\"stderr\":\"\"}");
  world_close(&w);
}

TEST(daemons_live_until_the_runtime_closes) {
  world w = world_open();
  CHECK(script(&w, "(setsid sleep 7772 >/dev/null 2>&1 &); echo started", 0));
  CHECK(script(&w, "(setsid sleep 7772 >/dev/null 2>&1 &); echo started", 5));
  CHECK_STR(w.ran.stdout_text.data, "started\n");
  await_processes("sleep 7772", 2);
  CHECK(swerex_close(w.runtime, NULL, NULL, &w.err));
  CHECK_INT(processes("sleep 7772"), 0);
  CHECK(swerex_close(w.runtime, NULL, NULL, &w.err));
  CHECK(ARGV(&w, "true"));
  world_close(&w);
}

TEST(daemons_may_be_kept) {
  world w = world_open();
  swerex_local_config config;
  memset(&config, 0, sizeof config);
  config.keep_daemons = true;
  swerex_runtime *keeping = swerex_local_runtime_new(w.loop, &config, &w.err);
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = "(setsid sleep 7773 >/dev/null 2>&1 &); echo started";
  command.shell = true;
  CHECK(swerex_execute(keeping, &command, NULL, &w.err));
  swerex_runtime_free(keeping);
  world_close(&w);
  await_processes("sleep 7773", 1);
  CHECK_INT(signal_processes("sleep 7773", SIGKILL), 1);
}

TEST(sessions_leave_nothing) {
  static const char *const command =
    "sleep 7774 & nohup sleep 7774 >/dev/null 2>&1 & setsid sleep 7774 & "
    "(setsid sh -c 'sleep 7774 & exec >/dev/null 2>&1 </dev/null; (setsid sleep 7774 &)' &); disown -a; "
    "sh -c 'trap \"\" HUP TERM; sleep 7774'";
  world w = world_with_session();
  CHECK(!run_for(&w, command, 0.5));
  CHECK(processes("sleep 7774") >= 5);
  double start = seconds();
  CHECK(swerex_close_session(w.runtime, NULL, NULL, &w.err));
  CHECK(seconds() - start < 2);
  CHECK_INT(processes("sleep 7774"), 0);
  world_close(&w);
}

TEST(sessions_may_keep_daemons) {
  world w = world_open();
  swerex_create_bash_session_request request;
  memset(&request, 0, sizeof request);
  request.keep_daemons = true;
  CHECK(swerex_create_session(w.runtime, &request, NULL, &w.err));
  CHECK(run(&w, "sleep 7775 & (setsid sleep 7776 >/dev/null 2>&1 &)"));
  await_processes("sleep 7776", 1);
  CHECK(swerex_close_session(w.runtime, NULL, NULL, &w.err));
  CHECK_INT(processes("sleep 7775"), 0);
  CHECK_INT(processes("sleep 7776"), 1);
  world_close(&w);
  CHECK_INT(processes("sleep 7776"), 0);
}

TEST(the_end_of_the_host_ends_its_children) {
  pid_t host = fork();
  if (host == 0) {
    world w = world_with_session();
    run_for(&w, "setsid sleep 7777 & sleep 7777", 0.3);
    script(&w, "(setsid sleep 7777 >/dev/null 2>&1 &)", 0);
    kill(getpid(), SIGKILL);
  }
  CHECK(waitpid(host, NULL, 0) == host);
  await_processes("sleep 7777", 0);
}

/** Kill the keepers below a process, and nobody else's. */
static void kill_keepers(long parent) {
  char path[64], name[64] = "";
  long child;
  snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", parent, parent);
  FILE *children = fopen(path, "r");
  while (children != NULL && fscanf(children, "%ld", &child) == 1) {
    snprintf(path, sizeof path, "/proc/%ld/comm", child);
    FILE *comm = fopen(path, "r");
    if (comm != NULL && fgets(name, sizeof name, comm) != NULL && strncmp(name, "swerex-keeper", 13) == 0) {
      kill_keepers(child);
      kill((pid_t)child, SIGKILL);
    }
    if (comm != NULL) fclose(comm);
  }
  if (children != NULL) fclose(children);
}

TEST(the_keeper_may_die) {
  world w = world_with_session();
  kill_keepers((long)getpid());
  usleep(100000);
  CHECK(!run(&w, "echo x"));
  CHECK_INT(w.err.code, SWEREX_E_SESSION_TERMINATED);
  CHECK(ARGV(&w, "echo", "again"));
  CHECK_STR(w.ran.stdout_text.data, "again\n");
  CHECK(create(&w, "new"));
  world_close(&w);
}

TEST(commands_whose_keeper_dies_fail) {
  world w = world_open();
  swerex_future *futures[2];
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = "exec sleep 7779";
  command.shell = true;
  futures[0] = swerex_execute_async(w.runtime, &command, &w.err);
  command.timeout = 60; /* so that it has a keeper of its own */
  futures[1] = swerex_execute_async(w.runtime, &command, &w.err);
  CHECK(script(&w, "true", 0)); /* by now both are there */
  kill_keepers((long)getpid());
  for (int i = 0; i < 2; i++) {
    CHECK(!swerex_future_take(futures[i], NULL, &w.err));
    CHECK_STR(w.err.message, "the process that starts programs was killed; the next call starts another");
  }
  signal_processes("sleep 7779", SIGKILL);
  world_close(&w);
}

TEST(many_at_once) {
  enum { COUNT = 300 };
  world w = world_open();
  swerex_future *futures[COUNT];
  swerex_command command;
  double start = seconds();
  memset(&command, 0, sizeof command);
  command.command = "sleep 0.5; echo $0";
  command.shell = true;
  for (int i = 0; i < COUNT; i++) futures[i] = swerex_execute_async(w.runtime, &command, &w.err);
  for (int i = 0; i < COUNT; i++) {
    CHECK(swerex_future_take(futures[i], &w.ran, &w.err));
    CHECK_STR(w.ran.stdout_text.data, "/bin/sh\n");
    swerex_command_response_clear(&w.ran);
  }
  CHECK(seconds() - start < 60);
  world_close(&w);
}

TEST(cancelled) {
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = "sleep 7778 & sleep 7778";
  command.shell = true;
  swerex_future *future = swerex_execute_async(w.runtime, &command, &w.err);
  swerex_loop_run(w.loop, 0.1, &w.err);
  usleep(100000);
  CHECK(processes("sleep 7778") > 0);
  swerex_future_cancel(future);
  CHECK(!swerex_future_take(future, NULL, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_CANCELLED);
  for (int i = 0; i < 100 && processes("sleep 7778") > 0; i++) swerex_loop_run(w.loop, 0.05, NULL);
  CHECK_INT(processes("sleep 7778"), 0);
  world_close(&w);
}

/** Who waits for what is killed dies before it. */
TEST(what_follows_does_not_run_when_a_command_is_ended) {
  world w = world_open();
  char path[] = "/tmp/swerex-after-XXXXXX", text[200];
  struct stat info = {0};
  int file = mkstemp(path);
  swerex_command command;
  memset(&command, 0, sizeof command);
  snprintf(text, sizeof text, "(for i in $(seq 200); do sleep 7779 & done; wait); echo y >>%s", path);
  command.command = text;
  command.shell = true;
  for (int i = 0; i < 5; i++) {
    swerex_future *future = swerex_execute_async(w.runtime, &command, &w.err);
    for (int k = 0; k < 500 && processes("sleep 7779") < 200; k++) swerex_loop_run(w.loop, 0.01, NULL);
    CHECK_INT(processes("sleep 7779"), 200);
    swerex_future_cancel(future);
    CHECK(!swerex_future_take(future, NULL, &w.err));
    await_processes("/bin/sh -c (for", 0);
  }
  CHECK(fstat(file, &info) == 0 && info.st_size == 0);
  unlink(path);
  close(file);
  world_close(&w);
}

TEST(host_with_many_descriptors_and_no_environment) {
  int fds[1100], count = 0;
  extern char **environ;
  char **before = environ;
  while (count < 1100 && (fds[count] = dup(1)) >= 0) count++;
  world w = world_open();
  environ = NULL;
  CHECK(ARGV(&w, "echo", "x"));
  CHECK_STR(w.ran.stdout_text.data, "x\n");
  CHECK(create(&w, NULL));
  CHECK(gives(&w, "echo y", 0, "y\n"));
  environ = before;
  world_close(&w);
  while (count > 0) close(fds[--count]);
}

TEST(large_output) {
  world w = world_open();
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = "head -c 50000000 /dev/zero; head -c 1000000 /dev/zero >&2";
  command.shell = true;
  CHECK(execute(&w, &command));
  CHECK_INT((int)w.ran.stdout_text.size, 50000000);
  CHECK_INT((int)w.ran.stderr_text.size, 1000000);
  command.max_output = 100;
  command.command = "seq 1 1000";
  CHECK(execute(&w, &command));
  CHECK(has(w.ran.stdout_text.data, "bytes left out"));
  CHECK(has(w.ran.stdout_text.data, "\n1000\n"));
  world_close(&w);
}

TEST_MAIN()
