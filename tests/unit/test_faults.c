/* Every allocation and every system call of the host's side fails once: what then? */
#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

static long fault_at = -1, fault_count; /* the count at which to fail; < 0: never */
static pid_t fault_host;
static long memory_at = -1, memory_count, memory_live;

static int fault(void) {
  if (fault_at < 0 || getpid() != fault_host || fault_count++ != fault_at) return 0;
  errno = EMFILE;
  return 1;
}

static void *fault_realloc(void *block, size_t size) {
  if (memory_at >= 0 && memory_count++ == memory_at) return NULL;
  void *fresh = realloc(block, size);
  if (block == NULL && fresh != NULL) memory_live++;
  return fresh;
}

static void fault_free(void *block) {
  if (block != NULL) memory_live--;
  free(block);
}

#define SWEREX_MALLOC(size) fault_realloc(NULL, size)
#define SWEREX_REALLOC(block, size) fault_realloc(block, size)
#define SWEREX_FREE(block) fault_free(block)
#define open(...) (fault() ? -1 : open(__VA_ARGS__))
#define fork() (fault() ? -1 : fork())
#define pipe(ends) (fault() ? -1 : pipe(ends))
#define socketpair(...) (fault() ? -1 : socketpair(__VA_ARGS__))
#define syscall(...) (fault() ? -1 : syscall(__VA_ARGS__))
#define fcntl(...) (fault() ? -1 : fcntl(__VA_ARGS__))
#define ftruncate(fd, size) (fault() ? -1 : ftruncate(fd, size))
#define epoll_create1(flags) (fault() ? -1 : epoll_create1(flags))
#define epoll_ctl(...) (fault() ? -1 : epoll_ctl(__VA_ARGS__))
#define timerfd_create(...) (fault() ? -1 : timerfd_create(__VA_ARGS__))
#define posix_openpt(flags) (fault() ? -1 : posix_openpt(flags))
#define grantpt(fd) (fault() ? -1 : grantpt(fd))
#define unlockpt(fd) (fault() ? -1 : unlockpt(fd))
#define sendmsg(...) (fault() ? -1 : sendmsg(__VA_ARGS__))
#define getcwd(buffer, size) (fault() ? NULL : getcwd(buffer, size))

#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#undef fcntl
#undef open
#undef fork
#include "test.h"

static int clear_errors; /* failures that said nothing */

/** Tell whether a call went well; if not, it must have said why. */
static bool went(bool ok, swerex_error *err) {
  if (!ok && (err->code == SWEREX_E_OK || err->message == NULL || err->message[0] == '\0')) clear_errors++;
  if (!ok) swerex_error_clear(err);
  return ok;
}

/** Use a bit of everything; true: all of it went well. */
static bool use_session(swerex_runtime *runtime, swerex_error *err) {
  static const char *const expect[] = {"zz+", NULL}, *const env[] = {"A=b", NULL};
  swerex_create_bash_session_request create;
  swerex_bash_action action;
  swerex_bash_observation seen;
  bool ok = true;
  memset(&create, 0, sizeof create);
  memset(&action, 0, sizeof action);
  memset(&seen, 0, sizeof seen);
  create.env = env;
  create.startup_timeout = 5;
  if (!went(swerex_create_session(runtime, &create, NULL, err), err)) return false;
  action.timeout = 5;
  action.command = "echo hi; for i in 1 2; do (echo $i); done; declare -A m";
  action.expect = expect;
  if (went(swerex_run_in_session(runtime, &action, &seen, err), err)) {
    ok = strcmp(seen.output.data, "hi\n1\n2\n") == 0;
    swerex_bash_observation_clear(&seen);
  } else {
    ok = false;
  }
  action.command = "echo (";
  ok = !went(swerex_run_in_session(runtime, &action, NULL, err), err) && ok;
  action.expect = NULL;
  action.command = "sleep 3";
  action.timeout = 0.02;
  ok = !went(swerex_run_in_session(runtime, &action, NULL, err), err) && ok;
  ok = went(swerex_interrupt_session(runtime, NULL, NULL, err), err) && ok;
  return went(swerex_close_session(runtime, NULL, NULL, err), err) && ok;
}

static bool use_commands(swerex_runtime *runtime, swerex_error *err) {
  static const char *const argv[] = {"echo", "x", NULL};
  swerex_command command;
  swerex_command_response ran;
  memset(&command, 0, sizeof command);
  memset(&ran, 0, sizeof ran);
  command.argv = argv;
  bool ok = went(swerex_execute(runtime, &command, &ran, err), err);
  swerex_command_response_clear(&ran);
  command.timeout = 5;
  ok = went(swerex_execute(runtime, &command, NULL, err), err) && ok;
  command.argv = NULL;
  command.command = "nosuchprogram";
  ok = !went(swerex_execute(runtime, &command, NULL, err), err) && ok;
  return ok;
}

/** One pass over a scenario with a fault somewhere; true: it went as without. */
static bool pass(bool (*use)(swerex_runtime *runtime, swerex_error *err)) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop_options options;
  bool ok = false;
  memset(&options, 0, sizeof options);
  options.logger.level = SWEREX_LOG_OFF;
  swerex_loop *loop = swerex_loop_new(&options, &err);
  swerex_deployment *box = NULL;
  if (went(loop != NULL, &err)) box = swerex_get_deployment_json(loop, "{\"type\":\"local\"}", 0, &err);
  if (loop != NULL && went(box != NULL, &err) && went(swerex_deployment_start(box, &err), &err))
    ok = use(swerex_deployment_runtime(box, &err), &err);
  fault_at = memory_at = -1;
  if (box != NULL && swerex_deployment_runtime(box, &err) != NULL) {
    swerex_runtime *runtime = swerex_deployment_runtime(box, &err);
    swerex_command command;
    memset(&command, 0, sizeof command);
    command.command = "true";
    CHECK(swerex_execute(runtime, &command, NULL, &err)); /* it is as good as before */
  }
  swerex_loop_free(loop);
  swerex_error_clear(&err);
  return ok;
}

/** Fail each call in turn until nothing is left to fail. */
static void every_fault(bool (*use)(swerex_runtime *runtime, swerex_error *err), long *at, long *count, int least) {
  int passes = 0;
  setenv("HOME", "/nonexistent", 1);
  fault_host = getpid();
  clear_errors = 0;
  for (long n = 0; n < 5000; n++, passes++) {
    int fds = test_count_fds();
    *at = n;
    *count = 0;
    long live = memory_live;
    bool ok = pass(use);
    if (test_count_fds() != fds || memory_live != live) {
      printf("# fault %ld: %d descriptors and %ld blocks too many\n", n, test_count_fds() - fds, memory_live - live);
      test_faults++;
    }
    if (*count <= n) { /* the fault was not reached */
      CHECK(ok);
      break;
    }
  }
  printf("# %d faults\n", passes);
  CHECK(passes >= least);
  CHECK_INT(clear_errors, 0);
}

TEST(allocations_of_commands) { every_fault(use_commands, &memory_at, &memory_count, 30); }
TEST(allocations_of_a_session) { every_fault(use_session, &memory_at, &memory_count, 60); }
TEST(system_calls_of_commands) { every_fault(use_commands, &fault_at, &fault_count, 30); }
TEST(system_calls_of_a_session) { every_fault(use_session, &fault_at, &fault_count, 60); }

/** What to try where only a few processes may exist. */
enum { CROWDED_COMMAND, CROWDED_LIMITED, CROWDED_SESSION, CROWDED_CHECK, CROWDED_COUNT };

/** Try it as a user with so many; returns 0: done, EAGAIN: refused in clear words, -1: else. */
static int run_crowded(rlim_t processes, int what) {
  struct rlimit limit = {processes, processes};
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_command command;
  swerex_bash_action action;
  memset(&command, 0, sizeof command);
  memset(&action, 0, sizeof action);
  command.command = "true";
  command.timeout = what == CROWDED_LIMITED ? 20 : 0;
  action.command = "echo ("; /* parsed by a bash of its own */
  if (setuid(100000 + (uid_t)getpid()) != 0 || /* nobody else's, also beside another such test */
      setrlimit(RLIMIT_NPROC, &limit) != 0)
    return -1;
  setenv("HOME", "/nonexistent", 1);
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_runtime *runtime = swerex_local_runtime_new(loop, NULL, &err);
  bool ok = what < CROWDED_SESSION ? swerex_execute(runtime, &command, NULL, &err)
                                   : swerex_create_session(runtime, NULL, NULL, &err);
  if (ok && what == CROWDED_CHECK) {
    CHECK(!swerex_run_in_session(runtime, &action, NULL, &err));
    ok = err.code == SWEREX_E_BASH_INCORRECT_SYNTAX;
  }
  int number = ok ? 0 : err.sys_errno;
  if (!ok && strstr(err.message, "a limit on processes is reached") == NULL) number = -1;
  if (number < 0) printf("# %d processes, %d: %s\n", (int)processes, what, err.message);
  swerex_error_clear(&err);
  swerex_runtime_free(runtime);
  swerex_loop_free(loop);
  return number;
}

TEST(a_limit_on_processes_is_named) {
  static const int enough[CROWDED_COUNT] = {4, 5, 5, 6};
  if (getuid() != 0) SKIP("needs root, to become a user without processes");
  for (int what = 0; what < CROWDED_COUNT; what++)
    for (int processes = 1; processes < 8; processes++) {
      int status = 0;
      pid_t pid = fork();
      if (pid == 0) {
        int number = run_crowded((rlim_t)processes, what);
        fflush(stdout);
        _exit(number & 255);
      }
      CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
      CHECK_INT(WEXITSTATUS(status), processes < enough[what] ? EAGAIN : 0);
    }
}

TEST_MAIN()
