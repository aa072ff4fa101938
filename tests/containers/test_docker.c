/*
 * The deployment in containers, by the public functions, with a real engine:
 *
 *   test_docker docker|podman SWEREX [--filter TEXT]      SWEREX: the command line tool
 *
 * Needs the images of images.sh, and the static server where SWEREX_REMOTE_BINARY says.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

static const char *engine, *tool, *prefix;

typedef struct world {
  swerex_loop *loop;
  swerex_deployment *box;
  swerex_error err;
} world;

static void quiet(void *user_data, const swerex_log_record *record) {
  (void)user_data, (void)record;
}

/** Make a deployment of an image; `more` are further fields, each with its comma in front. */
static world open_box(const char *image, const char *more) {
  world w;
  char json[1500];
  swerex_loop_options options;
  memset(&w, 0, sizeof w);
  memset(&options, 0, sizeof options);
  options.logger.write = quiet;
  snprintf(json, sizeof json,
           "{\"type\":\"docker\",\"container_runtime\":\"%s\",\"image\":\"%s%s\",\"pull\":\"never\","
           "\"labels\":{\"swerex.test\":\"%ld\"}%s}",
           engine, strchr(image, '/') != NULL ? "" : prefix, image, (long)getpid(), more);
  w.loop = swerex_loop_new(&options, &w.err);
  w.box = swerex_get_deployment_json(w.loop, json, 0, &w.err);
  return w;
}

static void close_box(world *w) {
  swerex_error_clear(&w->err);
  swerex_loop_free(w->loop);
}

static bool says(const world *w, const char *part) {
  if (w->err.message != NULL && strstr(w->err.message, part) != NULL) return true;
  printf("# [%s] does not say [%s]\n", w->err.message == NULL ? "" : w->err.message, part);
  return false;
}

static bool works(world *w, bool ok) {
  if (!ok) printf("# %s\n", w->err.message);
  return ok;
}

/** Run a shell command; its exit code. */
SWEREX_PRINTF(1, 2) static int sh(const char *format, ...) {
  char text[2000];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  int status = system(text);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/** Count the containers of this test, also those that are not running. */
static int left(void) {
  char text[300];
  int count = -1;
  snprintf(text, sizeof text, "%s ps -aq --filter label=swerex.test=%ld | wc -l", engine, (long)getpid());
  FILE *pipe = popen(text, "r");
  if (pipe == NULL || fscanf(pipe, "%d", &count) != 1) count = -1;
  if (pipe != NULL) pclose(pipe);
  return count;
}

static bool runs(world *w, const char *const *argv, const char *part) {
  swerex_command command;
  swerex_command_response ran;
  memset(&command, 0, sizeof command);
  memset(&ran, 0, sizeof ran);
  command.argv = argv;
  command.timeout = 20;
  bool ok = works(w, swerex_execute(swerex_deployment_runtime(w->box, NULL), &command, &ran, &w->err));
  ok = ok && ran.exit_code == 0 && strstr(ran.stdout_text.data, part) != NULL;
  if (!ok) printf("# %s gave %d [%s]\n", argv[0], ran.exit_code, ran.stdout_text.data);
  swerex_command_response_clear(&ran);
  return ok;
}

/** Use a started deployment: a program, a session or what is said without a shell, files. */
static void use(world *w, bool shell) {
  static const char *const version[] = {"/proc/1/exe", "--version", NULL};
  swerex_runtime *runtime = swerex_deployment_runtime(w->box, &w->err);
  swerex_bash_observation seen;
  swerex_read_file_response content;
  memset(&seen, 0, sizeof seen);
  memset(&content, 0, sizeof content);
  CHECK(runs(w, version, SWEREX_VERSION));
  swerex_bash_action set = {.command = "x=5; cd /tmp"}, get = {.command = "echo $x; pwd"};
  bool created = swerex_create_session(runtime, NULL, NULL, &w->err);
  CHECK(created == shell);
  if (!shell) CHECK(says(w, "sh"));
  if (created) {
    CHECK(works(w, swerex_run_in_session(runtime, &set, NULL, &w->err)));
    CHECK(works(w, swerex_run_in_session(runtime, &get, &seen, &w->err)));
    CHECK_STR(seen.output.data, "5\n/tmp\n");
  }
  swerex_write_file_request write = {{(char *)(uintptr_t) "text\n", 5}, "/tmp/a/b"};
  swerex_read_file_request read = {.path = "/tmp/a/b"};
  CHECK(works(w, swerex_write_file(runtime, &write, NULL, &w->err)));
  CHECK(works(w, swerex_read_file(runtime, &read, &content, &w->err)));
  CHECK_STR(content.content.data, "text\n");
  swerex_upload_request upload = {"containers", "/tmp/up"};
  read.path = "/tmp/up/engine.sh";
  swerex_read_file_response_clear(&content);
  CHECK(works(w, swerex_upload(runtime, &upload, NULL, &w->err)));
  CHECK(works(w, swerex_read_file(runtime, &read, &content, &w->err)));
  CHECK(strncmp(content.content.data, "#!/usr/bin/env bash", 19) == 0);
  swerex_read_file_response_clear(&content);
  swerex_bash_observation_clear(&seen);
}

TEST(every_image_by_both_transports) {
  static const char *const images[] = {"debian", "musl", "busybox", "empty"};
  static const char *const transports[] = {"tcp", "stdio"};
  for (size_t i = 0; i < 4; i++) {
    for (size_t k = 0; k < 2; k++) {
      char more[100];
      snprintf(more, sizeof more, ",\"transport\":\"%s\"", transports[k]);
      world w = open_box(images[i], more);
      int faults = test_faults;
      CHECK(works(&w, swerex_deployment_start(w.box, &w.err)));
      CHECK(swerex_deployment_container_name(w.box) != NULL);
      if (swerex_deployment_runtime(w.box, NULL) != NULL) use(&w, i < 3);
      CHECK(works(&w, swerex_deployment_stop(w.box, &w.err)));
      CHECK(works(&w, swerex_deployment_stop(w.box, &w.err))); /* twice is fine */
      if (test_faults > faults) printf("# with %s by %s\n", images[i], transports[k]);
      close_box(&w);
    }
  }
  CHECK_INT(left(), 0);
}

TEST(options_of_the_engine) {
  static const struct {
    const char *more;
    bool docker_only;
  } rows[] = {
    {",\"docker_args\":[\"--read-only\",\"--tmpfs\",\"/tmp\"]", false},
    {",\"docker_args\":[\"--read-only\",\"--tmpfs=/tmp\"],\"transport\":\"stdio\"", false},
    {",\"docker_args\":[\"--user=65534\"]", false},
    {",\"docker_args\":[\"--user\",\"65534\",\"--network\",\"none\"],\"transport\":\"stdio\"", false},
    {",\"docker_args\":[\"--network=host\"]", false},
    {",\"docker_args\":[\"--platform=linux/amd64\",\"--rm\",\"-d\"]", true},
    {",\"docker_args\":[\"--entrypoint\",\"/usr/bin/env\"]", true},
    {",\"docker_internal_host\":\"http://127.0.0.1\",\"port\":47113", false},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    if (rows[i].docker_only && strcmp(engine, "docker") != 0) continue;
    world w = open_box("busybox", rows[i].more);
    int faults = test_faults;
    CHECK(works(&w, swerex_deployment_start(w.box, &w.err)));
    if (swerex_deployment_runtime(w.box, NULL) != NULL) use(&w, true);
    if (test_faults > faults) printf("# with %s\n", rows[i].more);
    close_box(&w);
  }
  CHECK_INT(left(), 0);
}

TEST(refused_starts_say_why_and_leave_nothing) {
  char taken[64];
  snprintf(taken, sizeof taken, "swerex-taken-%ld", (long)getpid());
  CHECK(sh("%s create --name %s %sbusybox true >/dev/null", engine, taken, prefix) == 0);
  char name[160], port[60];
  int number = 0;
  bool loopback;
  int listener = swerex__sock_listen("127.0.0.1", 0, &number, &loopback, NULL);
  snprintf(name, sizeof name, ",\"docker_args\":[\"--name\",\"%s\"]", taken);
  snprintf(port, sizeof port, ",\"port\":%d", number);
  const struct {
    const char *image, *more, *words;
    swerex_code code;
    const char *variable, *value;
  } rows[] = {
    {"swerex-test/none", "", "pull is \"never\"", SWEREX_E_DOCKER_PULL, NULL, NULL},
    {"localhost:9/none", ",\"pull\":\"missing\"", "Failed to pull image localhost:9/none",
     SWEREX_E_DOCKER_PULL, NULL, NULL},
    {"busybox", "", "on PATH: install it", SWEREX_E_DEPLOYMENT_STARTUP, "PATH", "/nonexistent"},
    {"busybox", name, "name", SWEREX_E_DEPLOYMENT_STARTUP, NULL, NULL},
    {"busybox", port, "choose another port", SWEREX_E_DEPLOYMENT_STARTUP, NULL, NULL},
    {"busybox", ",\"remote_binary\":\"/bin/ls\"", "it is not static", SWEREX_E_DEPLOYMENT_STARTUP, NULL,
     NULL},
    {"busybox", ",\"remote_binary\":\"/nonexistent\"", "No such file", SWEREX_E_DEPLOYMENT_STARTUP, NULL,
     NULL},
    {"busybox", "", "python3: not found", SWEREX_E_DEPLOYMENT_STARTUP, "SWEREX_REMOTE_BINARY", ""},
    {"busybox", ",\"transport\":\"stdio\"", "needs a static swerex-remote", SWEREX_E_DEPLOYMENT_STARTUP,
     "SWEREX_REMOTE_BINARY", ""},
    {"busybox", ",\"exec_shell\":[\"/bin/sh\",\"-c\",\"echo broken; exit 7\"]",
     "ended with exit code 7: broken", SWEREX_E_DEPLOYMENT_STARTUP, "SWEREX_REMOTE_BINARY", ""},
    {"empty", "", "could not be started", SWEREX_E_DEPLOYMENT_STARTUP, "SWEREX_REMOTE_BINARY", ""},
    {"busybox", ",\"exec_shell\":[\"/bin/sh\",\"-c\",\"echo slow; sleep 60\"],\"startup_timeout\":2",
     "did not start within 2s", SWEREX_E_DEPLOYMENT_STARTUP, "SWEREX_REMOTE_BINARY", ""},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const char *old = rows[i].variable == NULL ? NULL : getenv(rows[i].variable);
    char *before = old == NULL ? NULL : strdup(old);
    if (rows[i].variable != NULL) setenv(rows[i].variable, rows[i].value, 1);
    double began = swerex__util_now();
    int faults = test_faults;
    world w = open_box(rows[i].image, rows[i].more);
    CHECK(!swerex_deployment_start(w.box, &w.err));
    CHECK(says(&w, rows[i].words));
    CHECK(swerex_code_is(w.err.code, rows[i].code));
    double took = swerex__util_now() - began;
    CHECK(took < 10);
    if (test_faults > faults) printf("# with %s%s after %.1f s\n", rows[i].image, rows[i].more, took);
    swerex_error_clear(&w.err);
    CHECK(swerex_deployment_stop(w.box, NULL));
    close_box(&w);
    if (before != NULL) setenv(rows[i].variable, before, 1);
    free(before);
  }
  close(listener);
  CHECK_INT(left(), 0);
  CHECK(sh("%s rm %s >/dev/null", engine, taken) == 0); /* another's container is left alone */
}

TEST(engines_that_do_not_answer) {
  if (strcmp(engine, "docker") != 0) LEAVE_OUT("podman has no daemon");
  char *host = getenv("DOCKER_HOST") == NULL ? NULL : strdup(getenv("DOCKER_HOST"));
  setenv("DOCKER_HOST", "unix:///nonexistent", 1);
  world w = open_box("busybox", "");
  CHECK(!swerex_deployment_start(w.box, &w.err));
  CHECK(says(&w, "is the engine running?"));
  close_box(&w);
  unsetenv("DOCKER_HOST");
  if (host != NULL) setenv("DOCKER_HOST", host, 1);
  free(host);
  if (getuid() != 0) SKIP("another user's view of the socket needs root");
  CHECK(sh("chmod 755 $(dirname %s); setpriv --reuid 65534 --clear-groups env HOME=/ %s --image "
           "%sbusybox exec true >build/denied.log 2>&1; test $? -eq 125 && grep -q 'add it to the "
           "group docker' build/denied.log",
           tool, tool, prefix) == 0);
}

TEST(configurations_that_cannot_be) {
  static const char *const rows[][2] = {
    {",\"platform\":\"linux/amd64\",\"docker_args\":[\"--platform=linux/amd64\"]",
     "Cannot specify platform both via"},
    {",\"docker_args\":[\"--platform\"]", "must be followed by a value"},
    {",\"port\":70000", "port"},
    {",\"transport\":\"smoke\"", "transport"},
    {",\"nonsense\":1", "nonsense"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    world w = open_box("busybox", rows[i][0]);
    CHECK(w.box == NULL && says(&w, rows[i][1]));
    CHECK_INT(w.err.code, SWEREX_E_VALIDATION);
    close_box(&w);
  }
}

TEST(a_container_that_dies_is_noticed) {
  world w = open_box("busybox", "");
  swerex_is_alive_response alive;
  CHECK(works(&w, swerex_deployment_start(w.box, &w.err)));
  CHECK(swerex_deployment_is_alive(w.box, NULL, &alive, &w.err) && alive.is_alive);
  swerex_is_alive_response_clear(&alive);
  CHECK(sh("%s kill %s >/dev/null", engine, swerex_deployment_container_name(w.box)) == 0);
  for (int i = 0; i < 100; i++) {
    swerex_is_alive_response_clear(&alive);
    CHECK(swerex_deployment_is_alive(w.box, NULL, &alive, &w.err));
    if (strstr(alive.message.data, "ended with exit code") != NULL) break;
    CHECK(swerex_loop_run(w.loop, 0.05, NULL));
  }
  CHECK(!alive.is_alive && strstr(alive.message.data, "ended with exit code 137") != NULL);
  swerex_is_alive_response_clear(&alive);
  CHECK(works(&w, swerex_deployment_stop(w.box, &w.err)));
  CHECK(works(&w, swerex_deployment_start(w.box, &w.err))); /* and a new one */
  use(&w, true);
  close_box(&w);
  CHECK_INT(left(), 0);
}

TEST(what_is_kept_and_what_is_removed) {
  char copy[100], image[130];
  snprintf(copy, sizeof copy, "%scopy%ld", prefix, (long)getpid());
  CHECK(sh("echo %ld | %s import - %s >build/import.log 2>&1 || %s tag %sbusybox %s", (long)getpid(),
           engine, copy, engine, prefix, copy) == 0);
  snprintf(image, sizeof image, "%s", copy);
  world w = open_box(image, ",\"remove_images\":true,\"remove_container\":false");
  CHECK(works(&w, swerex_deployment_start(w.box, &w.err)));
  char name[200];
  snprintf(name, sizeof name, "%s", swerex_deployment_container_name(w.box));
  swerex_deployment_stop(w.box, &w.err); /* the image is in use by what is kept */
  CHECK_INT(left(), 1);
  CHECK(sh("%s rm -f %s >/dev/null", engine, name) == 0);
  close_box(&w);
  sh("%s rmi -f %s >/dev/null 2>&1; %s tag %sbusybox %s", engine, copy, engine, prefix, copy);
  w = open_box(image, ",\"remove_images\":true");
  CHECK(works(&w, swerex_deployment_start(w.box, &w.err)));
  CHECK(works(&w, swerex_deployment_stop(w.box, &w.err)));
  CHECK(sh("%s image inspect %s >/dev/null 2>&1", engine, copy) != 0);
  close_box(&w);
  CHECK_INT(left(), 0);
}

TEST(fifty_at_once) {
  enum { MANY = 50 };
  static const char *const argv[] = {"/swerex-remote", "--version", NULL};
  if (strcmp(engine, "docker") != 0) LEAVE_OUT("podman takes too long for many");
  world w = open_box("busybox", "");
  swerex_deployment *boxes[MANY];
  swerex_future *futures[MANY];
  for (int i = 0; i < MANY; i++) {
    boxes[i] = swerex_get_deployment(w.loop, &w.box->config, &w.err);
    futures[i] = swerex_deployment_start_async(boxes[i], &w.err);
  }
  swerex_deployment *spare = w.box;
  for (int i = 0; i < MANY; i++) CHECK(works(&w, swerex_future_take(futures[i], NULL, &w.err)));
  for (int i = 0; i < MANY; i++) {
    w.box = boxes[i];
    CHECK(runs(&w, argv, SWEREX_VERSION));
    futures[i] = swerex_deployment_stop_async(boxes[i], &w.err);
  }
  for (int i = 0; i < MANY; i++) CHECK(works(&w, swerex_future_take(futures[i], NULL, &w.err)));
  w.box = spare;
  CHECK_INT(left(), 0);
  close_box(&w);
}

TEST(a_start_that_is_cancelled_leaves_nothing) {
  for (int wait = 0; wait < 6; wait++) {
    world w = open_box("busybox", "");
    swerex_future *future = swerex_deployment_start_async(w.box, &w.err);
    for (double end = swerex__util_now() + 0.1 * wait; swerex__util_now() < end;)
      CHECK(swerex_loop_run(w.loop, 0.01, &w.err));
    swerex_future_free(future);
    CHECK(works(&w, swerex_deployment_stop(w.box, &w.err)));
    close_box(&w);
  }
  CHECK_INT(left(), 0);
}

TEST(what_a_killed_program_leaves_is_reaped) {
  int ready[2];
  char byte;
  CHECK(pipe(ready) == 0);
  pid_t pid = fork();
  if (pid == 0) {
    world w = open_box("busybox", "");
    for (int i = 0; i < 3; i++) {
      swerex_deployment *box = swerex_get_deployment(w.loop, &w.box->config, &w.err);
      if (!swerex_deployment_start(box, &w.err)) _exit(1);
    }
    if (write(ready[1], "x", 1) != 1) _exit(1);
    pause();
  }
  close(ready[1]);
  CHECK(read(ready[0], &byte, 1) == 1);
  close(ready[0]);
  char label[60], count[200];
  snprintf(label, sizeof label, "swerex.test=%ld", (long)pid);
  snprintf(count, sizeof count, "test $(%s ps -q --filter label=%s | wc -l) -eq", engine, label);
  CHECK(sh("%s docker-reap --container-runtime %s >build/reap.log", tool, engine) == 0);
  CHECK(sh("%s 3", count) == 0); /* they are in use */
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  CHECK(sh("%s docker-reap --dry-run --container-runtime %s >build/reap.log", tool, engine) == 0);
  CHECK(sh("%s 3", count) == 0);
  CHECK(sh("%s docker-reap --container-runtime %s >build/reap.log", tool, engine) == 0);
  CHECK(sh("test $(grep -c removed build/reap.log) -ge 3") == 0);
  CHECK(sh("%s 0", count) == 0);
}

TEST(the_command_line) {
  const char *const flags = "--container-runtime";
  CHECK(sh("test \"$(%s %s %s --image %sbusybox --pull never run 'x=1' 'echo $x')\" = 1", tool, flags,
           engine, prefix) == 0);
  CHECK(sh("test \"$(%s %s %s --image %sbusybox exec --env A=b -- sh -c 'echo $A')\" = b", tool, flags,
           engine, prefix) == 0);
  CHECK(sh("test \"$(echo 'cat /etc/passwd' | %s %s %s --image %sbusybox shell | head -c 4)\" = root",
           tool, flags, engine, prefix) == 0);
  CHECK(sh("%s %s %s --image %sbusybox exec -- sh -c 'exit 9'; test $? -eq 9", tool, flags, engine,
           prefix) == 0);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  engine = argv[1];
  tool = argv[2];
  prefix = strcmp(engine, "podman") == 0 ? "localhost/swerex-test/" : "swerex-test/";
  return test_main(argc - 2, argv + 2);
}
