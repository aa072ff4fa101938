/* Every allocation and every system call of the host's side fails once: what then? */
#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

static long fault_at = -1, fault_count; /* the count at which to fail; < 0: never */
static const char *fault_name = "an allocation";
static pid_t fault_host;
static long memory_at = -1, memory_count, memory_live;
static bool memory_gone; /* every allocation fails */
static bool vfork_is_fork; /* as under qemu-user, and elsewhere than on Linux */

static int fault(const char *name) {
  if (fault_at < 0 || getpid() != fault_host || fault_count++ != fault_at) return 0;
  fault_name = name;
  errno = EMFILE;
  return 1;
}

/** A connection that the other side has given up. */
static int fault_reset(int fd) {
  shutdown(fd, SHUT_RDWR);
  errno = ECONNRESET;
  return -1;
}

static int closed_twice; /* by the host: another thread may have had that number by then */

static int fault_close(int fd) {
  int status = close(fd);
  if (status != 0 && errno == EBADF && getpid() == fault_host) closed_twice++;
  return status;
}

static void *fault_realloc(void *block, size_t size) {
  if (memory_gone || (memory_at >= 0 && memory_count++ == memory_at)) return NULL;
  void *fresh = realloc(block, size);
  if (block == NULL && fresh != NULL) __sync_add_and_fetch(&memory_live, 1);
  return fresh;
}

static void fault_free(void *block) { /* also in the thread that looks a name up */
  if (block != NULL) __sync_sub_and_fetch(&memory_live, 1);
  free(block);
}

/** A name that needs a resolver, which knows it without asking anybody. */
#define FAR_NAME "far.test"

static int far_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                           struct addrinfo **list) {
  if (strcmp(host, FAR_NAME) != 0) return getaddrinfo(host, service, hints, list);
  return hints->ai_flags != 0 ? EAI_NONAME : getaddrinfo("127.0.0.1", service, hints, list);
}

#define SWEREX_MALLOC(size) fault_realloc(NULL, size)
#define SWEREX_REALLOC(block, size) fault_realloc(block, size)
#define SWEREX_FREE(block) fault_free(block)
#define close(fd) fault_close(fd)
#define open(...) (fault("open") ? -1 : open(__VA_ARGS__))
#define vfork() (vfork_is_fork ? fork() : vfork())
#define fork() (fault("fork") ? -1 : fork())
#define pipe(ends) (fault("pipe") ? -1 : pipe(ends))
#define socketpair(...) (fault("socketpair") ? -1 : socketpair(__VA_ARGS__))
#define syscall(...) (fault("syscall") ? -1 : syscall(__VA_ARGS__))
#define fcntl(...) (fault("fcntl") ? -1 : fcntl(__VA_ARGS__))
#define ftruncate(fd, size) (fault("ftruncate") ? -1 : ftruncate(fd, size))
#define epoll_create1(flags) (fault("epoll_create1") ? -1 : epoll_create1(flags))
#define epoll_ctl(...) (fault("epoll_ctl") ? -1 : epoll_ctl(__VA_ARGS__))
#define timerfd_create(...) (fault("timerfd_create") ? -1 : timerfd_create(__VA_ARGS__))
#define posix_openpt(flags) (fault("posix_openpt") ? -1 : posix_openpt(flags))
#define grantpt(fd) (fault("grantpt") ? -1 : grantpt(fd))
#define unlockpt(fd) (fault("unlockpt") ? -1 : unlockpt(fd))
#define sendmsg(...) (fault("sendmsg") ? -1 : sendmsg(__VA_ARGS__))
#define getcwd(buffer, size) (fault("getcwd") ? NULL : getcwd(buffer, size))
#define socket(...) (fault("socket") ? -1 : socket(__VA_ARGS__))
#define connect(...) (fault("connect") ? -1 : connect(__VA_ARGS__))
#define bind(...) (fault("bind") ? -1 : bind(__VA_ARGS__))
#define listen(...) (fault("listen") ? -1 : listen(__VA_ARGS__))
#define accept(...) (fault("accept") ? -1 : accept(__VA_ARGS__))
#define getsockname(...) (fault("getsockname") ? -1 : getsockname(__VA_ARGS__))
#define send(fd, ...) (fault("send") ? fault_reset(fd) : send(fd, __VA_ARGS__))
#define mkstemp(path) (fault("mkstemp") ? -1 : mkstemp(path))
#define rename(from, to) (fault("rename") ? -1 : rename(from, to))
#define fstat(...) (fault("fstat") ? -1 : fstat(__VA_ARGS__))
#define mkdir(...) (fault("mkdir") ? -1 : mkdir(__VA_ARGS__))
#define fdopendir(fd) (fault("fdopendir") ? NULL : fdopendir(fd))
#define pthread_create(...) (fault("pthread_create") ? EMFILE : pthread_create(__VA_ARGS__))
#define getaddrinfo far_getaddrinfo

#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#undef close
#undef fcntl
#undef open
#undef fork
#undef vfork
#undef mkdir
#include "test.h"

/** A use of a runtime; true: all of it went well. */
typedef bool (*scenario)(swerex_runtime *runtime, swerex_error *err);

static char last_error[400];
static int clear_errors; /* failures that said nothing */

/** Tell whether a call went well; if not, it must have said why. */
static bool went(bool ok, swerex_error *err) {
  if (!ok && (err->code == SWEREX_E_OK || err->message == NULL || err->message[0] == '\0')) clear_errors++;
  if (!ok) snprintf(last_error, sizeof last_error, "%s", err->message == NULL ? "" : err->message);
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
static bool pass(scenario use) {
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

TEST(a_session_that_has_no_memory_to_read_waits_for_it) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_bash_action action;
  swerex_bash_observation seen;
  int turns = 0;
  memset(&action, 0, sizeof action);
  memset(&seen, 0, sizeof seen);
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_runtime *runtime = swerex_local_runtime_new(loop, NULL, &err);
  CHECK(swerex_create_session(runtime, NULL, NULL, &err));
  action.command = "sleep 0.1; echo hi";
  action.timeout = 20;
  swerex_future *future = swerex_run_in_session_async(runtime, &action, &err);
  swerex__sess *sess = swerex__local_find((swerex__local *)runtime, NULL, &err);
  while (sess->front != SWEREX__SESS_RUNNING || sess->in.size > 0) CHECK(swerex_loop_run(loop, 0.01, &err));
  swerex__mem_free(sess->in.data); /* what it has would be enough */
  sess->in.data = NULL;
  sess->in.room = 0;
  memory_gone = true;
  for (double end = swerex__util_now() + 0.3; swerex__util_now() < end; turns++)
    CHECK(swerex_loop_run(loop, 0.05, &err));
  memory_gone = false;
  CHECK(turns < 100);
  CHECK(swerex_future_take(future, &seen, &err));
  CHECK_STR(seen.output.data, "hi\n");
  swerex_bash_observation_clear(&seen);
  swerex_loop_free(loop);
  swerex_error_clear(&err);
}

/* --- a server and its client --- */

enum { WIRE_PATIENCE = 2 };

static char wire_folder[64];

static void wire_output(void *user_data, swerex_stream stream, const char *text, size_t size) {
  (void)user_data, (void)stream, (void)text, (void)size;
}

static bool use_wire_commands(swerex_runtime *runtime, swerex_error *err) {
  static const char *const argv[] = {"echo", "x", NULL};
  swerex_command command;
  swerex_command_response ran;
  memset(&command, 0, sizeof command);
  memset(&ran, 0, sizeof ran);
  command.argv = argv;
  command.watch.on_output = wire_output;
  bool ok = went(swerex_execute(runtime, &command, &ran, err), err);
  swerex_command_response_clear(&ran);
  command.argv = NULL;
  command.command = "nosuchprogram";
  return !went(swerex_execute(runtime, &command, NULL, err), err) && ok;
}

static bool use_wire_files(swerex_runtime *runtime, swerex_error *err) {
  static int passes;
  char text[70000], path[100], from[100], to[100];
  swerex_is_alive_response alive;
  swerex_write_file_request put = {{text, sizeof text - 1}, path};
  swerex_read_file_request get;
  swerex_read_file_response got;
  swerex_upload_request upload = {from, to};
  memset(&alive, 0, sizeof alive);
  memset(&get, 0, sizeof get);
  memset(&got, 0, sizeof got);
  memset(text, 'a', sizeof text);
  text[sizeof text - 1] = '\0';
  snprintf(path, sizeof path, "%s/text%d", wire_folder, ++passes);
  get.path = path;
  bool ok = went(swerex_is_alive(runtime, NULL, &alive, err), err) && alive.is_alive;
  swerex_is_alive_response_clear(&alive);
  ok = went(swerex_write_file(runtime, &put, NULL, err), err) && ok;
  if (went(swerex_read_file(runtime, &get, &got, err), err))
    ok = got.content.size == sizeof text - 1 && ok;
  else
    ok = false;
  swerex_read_file_response_clear(&got);
  snprintf(from, sizeof from, "%s/from", wire_folder);
  snprintf(to, sizeof to, "%s/to%d", wire_folder, passes);
  ok = went(swerex_upload(runtime, &upload, NULL, err), err) && ok;
  snprintf(from, sizeof from, "%s/file", wire_folder);
  snprintf(to, sizeof to, "%s/to%d/x", wire_folder, passes);
  return went(swerex_upload(runtime, &upload, NULL, err), err) && ok;
}

/** One pass over a scenario by a server in the same loop; true: it went as without a fault. */
static bool wire_pass(scenario use) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop_options options;
  swerex_remote_config config;
  swerex_server *server = NULL;
  swerex_runtime *runtime = NULL;
  long fault_then = fault_at, memory_then = memory_at;
  bool ok = false;
  if (use == use_wire_files) fault_at = memory_at = -1; /* the start has had its faults */
  memset(&options, 0, sizeof options);
  memset(&config, 0, sizeof config);
  options.logger.level = SWEREX_LOG_OFF;
  swerex_loop *loop = swerex_loop_new(&options, &err);
  if (went(loop != NULL, &err)) server = swerex_server_new(loop, NULL, &err);
  if (loop != NULL && went(server != NULL, &err)) {
    config.auth_token = "";
    config.host = FAR_NAME;
    config.port = atoi(strrchr(swerex_server_address(server), ':') + 1);
    config.timeout = config.request_timeout = WIRE_PATIENCE;
    config.num_retries = -1;
    runtime = swerex_remote_runtime_new(loop, &config, &err);
    fault_at = fault_then;
    memory_at = memory_then;
    if (went(runtime != NULL, &err)) ok = use(runtime, &err);
  }
  fault_at = memory_at = -1;
  if (runtime != NULL) {
    CHECK(swerex_wait_until_alive(runtime, WIRE_PATIENCE, &err)); /* it is as good as before */
    if (err.code != SWEREX_E_OK) printf("# %s\n", err.message);
  }
  swerex_loop_free(loop);
  swerex_error_clear(&err);
  return ok;
}

static void wire_make(void) {
  char line[300];
  snprintf(wire_folder, sizeof wire_folder, "/tmp/swerex-faults-%ld", (long)getpid());
  snprintf(line, sizeof line, "mkdir -p %s/from/a && cd %s && seq 20000 >file && seq 999 >from/a/b && ln -s b from/a/c",
           wire_folder, wire_folder);
  CHECK(system(line) == 0);
}

static void wire_clean(void) {
  char line[100];
  snprintf(line, sizeof line, "rm -rf %s", wire_folder);
  CHECK(system(line) == 0);
}

/** Wait for the thread that looked a name up to let go of what it has. */
static void settle(long live) {
  for (int i = 0; i < 1000 && memory_live > live; i++) usleep(1000);
}

/** Fail each call in turn until nothing is left to fail. */
static void every_fault(bool (*run)(scenario use), scenario use, long *at, long *count, int least) {
  int passes = 0;
  setenv("HOME", "/nonexistent", 1);
  fault_host = getpid();
  clear_errors = 0;
  for (long n = 0; n < 5000; n++, passes++) {
    int fds = test_count_fds();
    long live = memory_live;
    double start = swerex__util_now();
    *at = n;
    *count = 0;
    closed_twice = 0;
    bool ok = run(use);
    settle(live);
    if (closed_twice > 0) {
      printf("# fault %ld, %s: a descriptor was closed twice\n", n, fault_name);
      test_faults++;
    }
    if (test_count_fds() != fds || memory_live != live) {
      printf("# fault %ld, %s: %d descriptors and %ld blocks too many\n", n, fault_name, test_count_fds() - fds, memory_live - live);
      test_faults++;
    }
    if (run == wire_pass && swerex__util_now() - start > WIRE_PATIENCE) {
      printf("# fault %ld, %s: nobody noticed for %.1f s\n", n, fault_name, swerex__util_now() - start);
      test_faults++;
    }
    if (*count <= n) { /* the fault was not reached */
      CHECK(ok);
      if (!ok) printf("# %s\n", last_error);
      break;
    }
  }
  printf("# %d faults\n", passes);
  CHECK(passes >= least);
  CHECK_INT(clear_errors, 0);
}

TEST(allocations_of_commands) { every_fault(pass, use_commands, &memory_at, &memory_count, 30); }
TEST(allocations_of_a_session) { every_fault(pass, use_session, &memory_at, &memory_count, 60); }
TEST(system_calls_of_commands) { every_fault(pass, use_commands, &fault_at, &fault_count, 30); }
TEST(system_calls_of_a_session) { every_fault(pass, use_session, &fault_at, &fault_count, 60); }

TEST(allocations_over_the_wire) { every_fault(wire_pass, use_wire_commands, &memory_at, &memory_count, 60); }
TEST(system_calls_over_the_wire) { every_fault(wire_pass, use_wire_commands, &fault_at, &fault_count, 60); }

TEST(allocations_of_files_over_the_wire) {
  wire_make();
  every_fault(wire_pass, use_wire_files, &memory_at, &memory_count, 60);
  wire_clean();
}

TEST(system_calls_of_files_over_the_wire) {
  wire_make();
  every_fault(wire_pass, use_wire_files, &fault_at, &fault_count, 60);
  wire_clean();
}

static int witness = -1; /* a descriptor that is nobody's business, and what memory is full of */

static void *full_realloc(void *user_data, void *block, size_t size) {
  (void)user_data;
  void *fresh = size > 0 ? realloc(block, size) : NULL;
  if (size == 0) free(block);
  for (size_t i = 0; block == NULL && i + sizeof witness <= size; i += sizeof witness)
    memcpy((char *)fresh + i, &witness, sizeof witness);
  return fresh;
}

TEST(a_request_that_cannot_wait_leaves_nothing) {
  swerex_loop_options options;
  swerex__keeper_request request = {SWEREX__KEEPER_SPAWN, 0, 1, 3, 0};
  swerex_error err = SWEREX_ERROR_INIT;
  int ends[2], tries = 0;
  memset(&options, 0, sizeof options);
  options.allocator.reallocate = full_realloc;
  CHECK(swerex__sys_socketpair(ends));
  witness = dup(ends[1]);
  swerex_loop *loop = swerex_loop_new(&options, &err);
  swerex__keep *keep = swerex__keep_wrap(loop, ends[0], &err);
  const int fds[] = {ends[1], ends[1], ends[1]};
  while (write(ends[0], &options, sizeof options) > 0) continue; /* no room from now on */
  for (bool ok = false; !ok; tries++) {
    fault_host = getpid();
    fault_count = 0;
    fault_at = tries;
    ok = swerex__keep_submit(keep, &request, fds, NULL, &err);
    fault_at = -1;
    CHECK(fcntl(witness, F_GETFD) >= 0);
    CHECK_INT(swerex__loop_link_empty(&keep->pending), !ok);
    if (!ok) CHECK_INT(err.sys_errno, EMFILE);
  }
  CHECK(tries > 4);
  swerex_error_clear(&err);
  swerex__keep_free(keep);
  swerex_loop_free(loop);
  close(witness);
  close(ends[1]);
}

static swerex__keeper_report told;

static void on_told(swerex__keep_child *child, const swerex__keeper_report *report) {
  (void)child;
  told = *report;
}

TEST(a_child_hears_that_its_request_was_not_sent) {
  swerex__keeper_request request = {SWEREX__KEEPER_SPAWN, 0, 1, 1, 0};
  swerex__keep_child child;
  swerex_error err = SWEREX_ERROR_INIT;
  char bytes[256];
  int ends[2];
  memset(&child, 0, sizeof child);
  CHECK(swerex__sys_socketpair(ends) && swerex__sys_prepare_fd(ends[1], true));
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex__keep *keep = swerex__keep_wrap(loop, ends[0], &err);
  while (write(ends[0], bytes, sizeof bytes) > 0) continue;
  child.id = 1;
  child.report = on_told;
  CHECK(swerex__keep_submit(keep, &request, &ends[1], NULL, &err));
  swerex__loop_link_insert(&keep->children, &child.link);
  while (read(ends[1], bytes, sizeof bytes) > 0) continue;
  fault_host = getpid();
  fault_count = fault_at = 0;
  keep->watch.ready(&keep->watch); /* there is room now, but sendmsg fails */
  fault_at = -1;
  CHECK_STR(fault_name, "sendmsg");
  CHECK_INT(told.news, SWEREX__KEEPER_FAILED);
  CHECK_INT(told.value, EMFILE);
  CHECK(swerex__loop_link_empty(&keep->pending) && swerex__loop_link_empty(&keep->children));
  swerex__keep_free(keep);
  swerex_loop_free(loop);
  close(ends[1]);
}

TEST(a_request_goes_out_in_pieces) {
  static char text[12000];
  swerex__keeper_request request = {SWEREX__KEEPER_SPAWN, 0, 1, 1, sizeof text}, seen;
  swerex__keeper_state keeper;
  swerex__keeper_text got, none;
  swerex_error err = SWEREX_ERROR_INIT;
  int ends[2], fds[SWEREX__KEEPER_FDS], size = 1;
  memset(&keeper, 0, sizeof keeper);
  memset(text, 'x', sizeof text);
  CHECK(swerex__sys_socketpair(ends));
  CHECK(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex__keep *keep = swerex__keep_wrap(loop, ends[0], &err);
  CHECK(swerex__keep_submit(keep, &request, &ends[1], text, &err)); /* though nobody reads */
  CHECK(!swerex__loop_link_empty(&keep->pending));
  request.text = 0;
  CHECK(swerex__keep_submit(keep, &request, &ends[1], NULL, &err));
  keeper.fd = ends[1];
  CHECK(recv(ends[1], &seen, sizeof seen, MSG_PEEK) == sizeof seen && seen.text == sizeof text);
  for (pid_t pid = fork(); pid == 0;) { /* the writing side */
    while (!swerex__loop_link_empty(&keep->pending)) keep->watch.ready(&keep->watch);
    _exit(0);
  }
  CHECK(swerex__keeper_receive(&keeper, &seen, fds, &got) && fcntl(fds[0], F_GETFD) >= 0);
  CHECK(memcmp(got.bytes, text, sizeof text) == 0);
  close(fds[0]);
  CHECK(swerex__keeper_receive(&keeper, &seen, fds, &none) && fcntl(fds[0], F_GETFD) >= 0);
  CHECK_INT(seen.text, 0);
  close(fds[0]);
  CHECK(wait(NULL) > 0);
  swerex__keep_free(keep);
  swerex_loop_free(loop);
  close(ends[1]);
}

TEST(a_keeper_that_dies_takes_those_with_it_that_it_was_to_fork) {
  swerex__keeper_request request = {SWEREX__KEEPER_FORK, 0, 0, 1, 0};
  swerex_error err = SWEREX_ERROR_INIT;
  char bytes[256];
  int ends[2], below[2];
  CHECK(swerex__sys_socketpair(ends) && swerex__sys_socketpair(below));
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex__keep *keep = swerex__keep_wrap(loop, ends[0], &err);
  while (write(ends[0], bytes, sizeof bytes) > 0) continue;
  CHECK(swerex__keep_submit(keep, &request, &below[1], NULL, &err));
  close(below[1]);
  CHECK(read(below[0], bytes, 1) < 0 && errno == EAGAIN); /* its other end waits to be sent */
  close(ends[1]);
  keep->watch.ready(&keep->watch);
  CHECK(keep->lost);
  CHECK_INT(read(below[0], bytes, 1), 0);
  close(below[0]);
  swerex__keep_free(keep);
  swerex_loop_free(loop);
}

TEST(what_cannot_start_is_heard_of_without_vfork) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_command command;
  memset(&command, 0, sizeof command);
  vfork_is_fork = true;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_runtime *runtime = swerex_local_runtime_new(loop, NULL, &err);
  command.command = "true";
  CHECK(swerex_execute(runtime, &command, NULL, &err));
  command.cwd = "/nonexistent";
  CHECK(!swerex_execute(runtime, &command, NULL, &err));
  CHECK_STR(err.message, "[Errno 2] No such file or directory: '/nonexistent'");
  command.cwd = NULL;
  command.command = "/etc/passwd";
  CHECK(!swerex_execute(runtime, &command, NULL, &err));
  CHECK_STR(err.message, "[Errno 13] Permission denied: '/etc/passwd'");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  vfork_is_fork = false;
}

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
