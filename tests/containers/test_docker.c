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

/** Count the containers that carry a label, running or not. */
static int labelled(const char *label) {
  char text[300];
  int count = -1;
  snprintf(text, sizeof text, "%s ps -aq --filter label=%s | wc -l", engine, label);
  FILE *pipe = popen(text, "r");
  if (pipe == NULL || fscanf(pipe, "%d", &count) != 1) count = -1;
  if (pipe != NULL) pclose(pipe);
  return count;
}

/** Count the containers of this test. */
static int left(void) {
  char label[60];
  snprintf(label, sizeof label, "swerex.test=%ld", (long)getpid());
  return labelled(label);
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
  char port[100];
  int number = 0;
  bool loopback;
  close(swerex__sock_listen("127.0.0.1", 0, &number, &loopback, NULL)); /* it is free, just now */
  snprintf(port, sizeof port, ",\"docker_internal_host\":\"http://127.0.0.1\",\"port\":%d", number);
  const struct {
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
    {port, false},
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
    {"busybox", ",\"exec_shell\":[\"/bin/sh\",\"-c\",\"yes | head -c 200000; echo last words; exit 7\"]",
     "y\nlast words", SWEREX_E_DEPLOYMENT_STARTUP, "SWEREX_REMOTE_BINARY", ""},
    {"busybox", ",\"docker_args\":[\"--network=none\"]", "needs the transport \"stdio\"",
     SWEREX_E_DEPLOYMENT_STARTUP, NULL, NULL},
    {"busybox", ",\"docker_args\":[\"--user=nosuch\"]", "nosuch", SWEREX_E_DEPLOYMENT_STARTUP, NULL, NULL},
    {"busybox", ",\"docker_args\":[\"--nonsense\"]", "nonsense", SWEREX_E_DEPLOYMENT_STARTUP, NULL, NULL},
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
    CHECK(w.err.message != NULL && strlen(w.err.message) < 5000);
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
  CHECK(says(&w, "start the engine"));
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

/* --- what the log and the hooks hear --------------------------------------------------------- */

static char *heard;
static size_t heard_size, heard_longest;

/** Keep what the log says, up to a mebibyte. */
static void listen_in(void *user_data, const swerex_log_record *record) {
  size_t size = strlen(record->message);
  (void)user_data;
  if (size > heard_longest) heard_longest = size;
  if (heard == NULL || heard_size + size + 2 > 1 << 20) return;
  memcpy(heard + heard_size, record->message, size);
  heard[heard_size + size] = '\n';
  heard[heard_size += size + 1] = '\0';
}

static void start_listening(world *w) {
  heard = calloc(1, 1 << 20);
  heard_size = heard_longest = 0;
  w->box->logger.write = listen_in;
  w->box->logger.level = SWEREX_LOG_DEBUG;
}

static bool was_heard(const char *part) {
  if (strstr(heard, part) != NULL) return true;
  printf("# not heard: [%s] in [%.3000s]\n", part, heard);
  return false;
}

static void stop_listening(void) {
  free(heard);
  heard = NULL;
}

TEST(output_goes_to_the_log_in_pieces_and_delays_nothing) {
  static const char *const flood[] = {
    "sh", "-c", "echo first words >/proc/1/fd/1; head -c 20000000 /dev/zero | tr '\\0' x >/proc/1/fd/2",
    NULL};
  static const char *const after[] = {"sh", "-c", "echo ; echo last words >/proc/1/fd/1", NULL};
  world w = open_box("busybox", ",\"python_standalone_dir\":\"/root\"");
  start_listening(&w);
  CHECK(swerex__container_check(w.box, &w.err)); /* again, with an ear to the log */
  CHECK(was_heard("python_standalone_dir is not needed here"));
  CHECK(works(&w, swerex_deployment_start(w.box, &w.err)));
  CHECK(runs(&w, flood, "") && runs(&w, after, ""));
  for (int i = 0; i < 100 && strstr(heard, "first words") == NULL; i++)
    CHECK(swerex_loop_run(w.loop, 0.05, &w.err));
  CHECK(was_heard("first words"));
  CHECK(heard_longest < 5000);
  CHECK(w.box != NULL && swerex__docker_of(w.box)->attached->pipes[0].keep.room < 40000);
  close_box(&w);
  stop_listening();
}

/* --- an engine that misbehaves --------------------------------------------------------------- */

/** Write a program into build/fake; `name` may be "docker", or podman. */
static void put_program(const char *name, const char *text) {
  char path[200];
  CHECK(sh("mkdir -p build/fake") == 0);
  snprintf(path, sizeof path, "build/fake/%s", name);
  FILE *file = fopen(path, "w");
  CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0 && chmod(path, 0755) == 0);
}

/** Put build/fake before PATH; returns what PATH was. */
static char *lead_path(void) {
  char text[4000], here[2000];
  char *before = strdup(getenv("PATH"));
  snprintf(text, sizeof text, "%s/build/fake:%s", getcwd(here, sizeof here), before);
  setenv("PATH", text, 1);
  return before;
}

TEST(engines_that_misbehave) {
  static const struct {
    const char *engine, *more, *words;
    double most;
  } rows[] = {
    {"sleep 1000", ",\"startup_timeout\":0.7", "no answer from the engine within 0.7s", 5},
    {"case $1 in image) echo amd64;; create) sleep 1000;; esac", ",\"startup_timeout\":0.7",
     " create: no answer from the engine within 0.7s", 5},
    {"head -c 30000000 /dev/zero | tr '\\0' x >&2; echo ' final words' >&2; exit 1", "", "x final words", 9},
    {"head -c 30000000 /dev/zero | tr '\\0' x; exit 1", "", ": it said nothing", 9},
    {"case $1 in image) echo amd64;; esac", "", "create did not give an id", 5},
    {"case $1 in image) echo amd64;; create) echo 123;; cp) cat >/dev/null;; start) echo broken; exit 3;; esac",
     "", "ended with exit code 3: broken", 5},
    {"kill -9 $$", "", ": it said nothing", 5},
  };
  char *before = lead_path();
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char text[400];
    snprintf(text, sizeof text, "#!/bin/sh\n%s\n", rows[i].engine);
    put_program(engine, text);
    double began = swerex__util_now();
    int faults = test_faults;
    world w = open_box("busybox", rows[i].more);
    CHECK(!swerex_deployment_start(w.box, &w.err));
    CHECK(says(&w, rows[i].words));
    CHECK(w.err.message != NULL && strlen(w.err.message) < 5000);
    CHECK(swerex__util_now() - began < rows[i].most);
    if (test_faults > faults) printf("# with %s\n", rows[i].engine);
    close_box(&w);
  }
  setenv("PATH", before, 1);
  free(before);
  CHECK(sh("rm -r build/fake") == 0);
}

/** What a hook does when it hears a message. */
typedef struct spoiler {
  world *w;
  const char *message;
  int what; /* 0: stop, 1: drop the start, 2: free the deployment */
  swerex_future *start, *stop;
  bool done;
} spoiler;

static void spoil(void *user_data, const char *message) {
  spoiler *s = user_data;
  if (s->done || strstr(message, s->message) == NULL) return;
  s->done = true;
  if (s->what == 0) {
    s->stop = swerex_deployment_stop_async(s->w->box, NULL);
  } else if (s->what == 1 && s->start != NULL) {
    swerex_future_free(s->start);
    s->start = NULL;
  } else {
    swerex_deployment_free(s->w->box);
    s->w->box = NULL;
  }
}

/** Start a deployment that a hook ends, and stop what is left of it. */
static void start_and_spoil(world *w, const char *message, int what) {
  static spoiler s; /* the hook may be called until the loop is freed */
  swerex_deployment_hook hook = {spoil, &s};
  memset(&s, 0, sizeof s);
  s.w = w;
  s.message = message;
  s.what = what;
  CHECK(swerex_deployment_add_hook(w->box, hook, &w->err));
  s.start = swerex_deployment_start_async(w->box, &w->err);
  for (int i = 0; i < 200 && !s.done && (s.start == NULL || !swerex_future_done(s.start)); i++)
    CHECK(swerex_loop_run(w->loop, 0.05, &w->err));
  if (!s.done && w->box != NULL) s.stop = swerex_deployment_stop_async(w->box, &w->err);
  if (s.stop != NULL) CHECK(works(w, swerex_future_take(s.stop, NULL, &w->err)));
  CHECK(s.done);
  if (s.start != NULL) swerex_future_free(s.start);
}

TEST(hooks_may_end_what_they_hear_of) {
  static const char *const messages[] = {"Creating", "Starting", "Stopping runtime", "Stopping container"};
  for (int what = 0; what < 3; what++) {
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
      int faults = test_faults;
      world w = open_box("busybox", "");
      start_and_spoil(&w, messages[i], what);
      if (test_faults > faults) printf("# at %s, way %d\n", messages[i], what);
      close_box(&w);
    }
  }
  CHECK_INT(left(), 0);
}

TEST(a_pull_is_told_in_lines) {
  put_program(engine, "#!/bin/sh\n"
    "case $1 in\n"
    "image) test -e build/fake/pulled && echo amd64 && exit; echo 'No such image: x' >&2; exit 1;;\n"
    "create) test -e build/fake/pulled && echo 'boom now' >&2; exit 1;;\n"
    "pull) printf 'one: Down'; sleep 0.1; printf 'loading\\r\\ntwo: '; sleep 0.1; printf Done\\\\n; echo three >&2;\n"
    "  printf four; touch build/fake/pulled;;\n"
    "esac\n");
  char *before = lead_path();
  for (int what = -1; what < 3; what++) {
    world w = open_box("busybox", ",\"pull\":\"missing\"");
    start_listening(&w);
    sh("rm -f build/fake/pulled");
    if (what < 0) {
      CHECK(!swerex_deployment_start(w.box, &w.err));
      CHECK(says(&w, "create: boom now"));
      CHECK(was_heard("Pulling: one: Downloading\nPulling: two: Done\n"));
      CHECK(was_heard("Pulling: three\n") && was_heard("Pulling: four\n"));
    } else {
      start_and_spoil(&w, "Pulling: one", what); /* from within the reading of the output */
    }
    close_box(&w);
    stop_listening();
  }
  setenv("PATH", before, 1);
  free(before);
  CHECK(sh("rm -r build/fake") == 0);
}

/* --- where the server comes from ------------------------------------------------------------- */

/** Set a variable for a while; returns what it was, for set_back. */
static char *set_to(const char *name, const char *value) {
  char *before = getenv(name) == NULL ? NULL : strdup(getenv(name));
  setenv(name, value, 1);
  return before;
}

static void set_back(const char *name, char *before) {
  if (before == NULL) unsetenv(name);
  else setenv(name, before, 1);
  free(before);
}

/** Start a deployment, run `echo hi` in it, and stop. */
static void greet(const char *image, const char *more) {
  static const char *const hi[] = {"echo", "hi", NULL};
  int faults = test_faults;
  world w = open_box(image, more);
  bool ok = works(&w, swerex_deployment_start(w.box, &w.err));
  CHECK(ok && runs(&w, hi, "hi\n"));
  if (test_faults > faults) printf("# with %s%s\n", image, more);
  close_box(&w);
}

TEST(a_server_of_the_images_own) {
  char here[1000], more[3000], file[1200];
  CHECK(getcwd(here, sizeof here) != NULL);
  snprintf(file, sizeof file, "%s-x86_64", getenv("SWEREX_REMOTE_BINARY"));
  char *before = set_to("SWEREX_REMOTE_BINARY", "");
  snprintf(more, sizeof more, ",\"docker_args\":[\"-v\",\"%s:/usr/local/bin/swerex-remote:ro\"]", file);
  greet("busybox", more);
  /* the original's fallback, with programs that note what they are asked for */
  put_program("python3", "#!/bin/sh\necho \"$0 $*\" >>/notes\n");
  put_program("pipx", "#!/bin/sh\necho \"$0 $*\" | sed 's/[0-9a-f]\\{32\\}/TOKEN/' >>/notes\n"
                      "exec /srv/server --auth-token \"$4\"\n");
  snprintf(more, sizeof more, ",\"docker_args\":[\"-v\",\"%s:/srv/server:ro\",\"-v\",\"%s/build/fake:/usr/local/bin\"]",
           file, here);
  world w = open_box("busybox", more);
  static const char *const notes[] = {"cat", "/notes", NULL};
  CHECK(works(&w, swerex_deployment_start(w.box, &w.err)));
  CHECK(runs(&w, notes, "/usr/local/bin/python3 -m pip install pipx\n/usr/local/bin/python3 -m pipx ensurepath\n"
                        "/usr/local/bin/pipx run swe-rex --auth-token TOKEN\n"));
  close_box(&w);
  set_back("SWEREX_REMOTE_BINARY", before);
  CHECK(sh("rm -r build/fake") == 0);
}

TEST(the_server_of_python_in_the_image) {
  char here[1000], more[3000];
  if (access("build/peers/bin/swerex-remote", X_OK) != 0) SKIP("the Python package is not in build/peers");
  CHECK(getcwd(here, sizeof here) != NULL);
  char *before = set_to("SWEREX_REMOTE_BINARY", "");
  snprintf(more, sizeof more, ",\"docker_args\":[\"-v\",\"/:/host\",\"-e\",\"PATH=%s/build/peers/bin:/usr/bin:/bin\"],"
           "\"exec_shell\":[\"chroot\",\"/host\",\"/bin/sh\",\"-c\"],\"startup_timeout\":60", here);
  greet("busybox", more);
  set_back("SWEREX_REMOTE_BINARY", before);
}

TEST(the_file_need_not_be_where_the_engine_is) {
  if (getuid() != 0 || sh("unshare -m true") != 0) SKIP("a mount of one's own needs root");
  CHECK(sh("mkdir -p build/hidden && unshare -m sh -c 'mount -t tmpfs none build/hidden && cp \"%s-x86_64\" "
           "build/hidden/swerex-remote && SWEREX_REMOTE_BINARY=build/hidden/swerex-remote %s --container-runtime "
           "%s --image %sbusybox exec echo hi' >build/hidden.log && grep -qx hi build/hidden.log",
           getenv("SWEREX_REMOTE_BINARY"), tool, engine, prefix) == 0);
  CHECK(sh("ls build/hidden | wc -l | grep -qx 0") == 0);
}

TEST(images_with_users_and_programs_of_their_own) {
  char image[130], box[60];
  snprintf(image, sizeof image, "%suser%ld", prefix, (long)getpid());
  snprintf(box, sizeof box, "swerex-user-%ld", (long)getpid());
  CHECK(sh("%s create --name %s %sbusybox true >/dev/null && %s commit -c 'USER 65534' -c 'ENTRYPOINT "
           "[\"/bin/false\"]' -c 'CMD [\"x\"]' -c 'WORKDIR /tmp' %s %s >/dev/null; %s rm %s >/dev/null",
           engine, box, prefix, engine, box, image, engine, box) == 0);
  static const char *const id[] = {"id", "-u", NULL};
  for (int i = 0; i < 2; i++) {
    world w = open_box(image, i == 0 ? "" : ",\"transport\":\"stdio\"");
    CHECK(works(&w, swerex_deployment_start(w.box, &w.err)));
    CHECK(runs(&w, id, "65534\n"));
    close_box(&w);
  }
  CHECK(sh("%s rmi %s >/dev/null", engine, image) == 0);
}

TEST(images_for_another_processor) {
  char image[130], path[300], binary[320], more[600];
  unsigned char number[2] = {183, 0};
  snprintf(image, sizeof image, "%sarm%ld", prefix, (long)getpid());
  CHECK(sh("mkdir -p build/arm/etc && cd build/arm && tar -cf layer.tar etc && echo '{\"architecture\":\"arm64\","
           "\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:'$(sha256sum <layer.tar "
           "| cut -c 1-64)'\"]}}' >config.json && echo '[{\"Config\":\"config.json\",\"RepoTags\":[\"%s:latest\"],"
           "\"Layers\":[\"layer.tar\"]}]' >manifest.json && tar -c manifest.json config.json layer.tar | %s load >/dev/null",
           image, engine) == 0);
  snprintf(binary, sizeof binary, "%s-x86_64", getenv("SWEREX_REMOTE_BINARY"));
  snprintf(more, sizeof more, ",\"remote_binary\":\"%s\"", binary);
  world w = open_box(image, more);
  CHECK(!swerex_deployment_start(w.box, &w.err));
  CHECK(says(&w, "cannot serve in an image for arm64: it is for another processor"));
  close_box(&w);
  /* a program that only says that it is for the other processor will do to see it chosen */
  snprintf(path, sizeof path, "build/arm/server");
  CHECK(sh("cp %s %s-x86_64; cp %s %s-aarch64", binary, path, binary, path) == 0);
  snprintf(binary, sizeof binary, "%s-aarch64", path);
  int fd = open(binary, O_WRONLY | O_CLOEXEC);
  CHECK(pwrite(fd, number, 2, 18) == 2 && close(fd) == 0);
  snprintf(more, sizeof more, ",\"remote_binary\":\"%s\",\"remove_container\":false", path);
  w = open_box(image, more);
  CHECK(!swerex_deployment_start(w.box, &w.err)); /* whatever the engine says; the container is kept */
  if (access("/proc/sys/fs/binfmt_misc/qemu-aarch64", F_OK) != 0)
    CHECK(says(&w, "the image is for another processor: set platform, or install QEMU"));
  CHECK(sh("%s cp %s:/swerex-remote - | dd bs=1 skip=530 count=1 2>/dev/null | grep -q \"$(printf '\\267')\"",
           engine, swerex__docker_of(w.box)->id) == 0);
  CHECK(sh("%s rm -f %s >/dev/null", engine, swerex__docker_of(w.box)->id) == 0);
  close_box(&w);
  w = open_box("busybox", ",\"platform\":\"linux/arm64\"");
  CHECK(!swerex_deployment_start(w.box, &w.err));
  CHECK(says(&w, "platform"));
  close_box(&w);
  CHECK(sh("%s rmi %s >/dev/null; rm -r build/arm", engine, image) == 0);
  CHECK_INT(left(), 0);
}

TEST(the_last_of_many_removes_the_image) {
  enum { MANY = 3 };
  char image[130], json[100];
  snprintf(image, sizeof image, "%sshared%ld", prefix, (long)getpid());
  CHECK(sh("echo %ld >build/shared; tar -C build -c shared | %s import - %s >/dev/null 2>&1", (long)getpid(), engine,
           image) == 0);
  snprintf(json, sizeof json, ",\"remove_images\":true");
  world w = open_box(image, json);
  swerex_deployment *boxes[MANY];
  swerex_future *futures[MANY];
  for (int i = 0; i < MANY; i++) {
    boxes[i] = swerex_get_deployment(w.loop, &w.box->config, &w.err);
    futures[i] = swerex_deployment_start_async(boxes[i], &w.err);
  }
  for (int i = 0; i < MANY; i++) CHECK(works(&w, swerex_future_take(futures[i], NULL, &w.err)));
  CHECK(works(&w, swerex_deployment_stop(boxes[0], &w.err))); /* the others still use it */
  CHECK(sh("%s image inspect %s >/dev/null 2>&1", engine, image) == 0);
  for (int i = 1; i < MANY; i++) futures[i] = swerex_deployment_stop_async(boxes[i], &w.err);
  for (int i = 1; i < MANY; i++) CHECK(works(&w, swerex_future_take(futures[i], NULL, &w.err)));
  CHECK(sh("%s image inspect %s >/dev/null 2>&1", engine, image) != 0);
  close_box(&w);
  CHECK_INT(left(), 0);
}

TEST(configurations_that_cannot_be) {
  static const char *const rows[][2] = {
    {",\"platform\":\"linux/amd64\",\"docker_args\":[\"--platform=linux/amd64\"]",
     "Cannot specify platform both via"},
    {",\"docker_args\":[\"--platform\"]", "must be followed by a value"},
    {",\"port\":70000", "port"},
    {",\"image\":\"\"", "is no name of an image"},
    {",\"image\":\"--privileged\"", "is no name of an image"},
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

TEST(starts_given_up_at_any_moment_leave_nothing) {
  enum { MANY = 36 };
  double pace = strcmp(engine, "docker") == 0 ? 0.012 : 0.03;
  for (int i = 0; i < MANY; i++) {
    world w = open_box("busybox", i % 2 == 0 ? "" : ",\"transport\":\"stdio\"");
    swerex_future *future = swerex_deployment_start_async(w.box, &w.err);
    for (double end = swerex__util_now() + pace * i; swerex__util_now() < end;)
      CHECK(swerex_loop_run(w.loop, 0.003, &w.err));
    int step = (int)w.box->step, before = test_faults;
    if (i % 3 == 0) swerex_future_free(future);
    if (i % 3 == 1) CHECK(works(&w, swerex_deployment_stop(w.box, &w.err)));
    close_box(&w); /* which is the third way */
    if (i % 4 == 3 || i == MANY - 1) CHECK_INT(left(), 0);
    if (test_faults > before) printf("# after %g s, about step %d\n", pace * i, step);
  }
}

/** Start many, and be killed in the middle of it: some are in use, some are being made. */
static void start_until_killed(int many, int enough, int ready) {
  world w = open_box("busybox", "");
  int started = 0;
  for (int i = 0; i < many; i++)
    swerex_deployment_start_async(swerex_get_deployment(w.loop, &w.box->config, &w.err), &w.err);
  for (swerex_future *done; (done = swerex_loop_wait(w.loop, 60, &w.err)) != NULL;) {
    if (!swerex_future_take(done, NULL, &w.err)) _exit(1);
    if (++started == enough && write(ready, "x", 1) != 1) _exit(1);
  }
  pause();
}

TEST(what_a_killed_program_leaves_is_reaped) {
  bool docker = strcmp(engine, "docker") == 0;
  int ready[2], many = docker ? 50 : 4, enough = docker ? 15 : 2;
  char byte, label[60];
  CHECK(pipe(ready) == 0);
  pid_t pid = fork();
  if (pid == 0) start_until_killed(many, enough, ready[1]);
  close(ready[1]);
  CHECK(read(ready[0], &byte, 1) == 1);
  close(ready[0]);
  snprintf(label, sizeof label, "swerex.test=%ld", (long)pid);
  CHECK(sh("%s docker-reap --container-runtime %s >build/reap.log", tool, engine) == 0);
  CHECK(labelled(label) >= enough); /* they are in use */
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  int count = -1; /* the engine finishes what it has begun */
  for (int now; (now = labelled(label)) != count; count = now) sleep(1);
  CHECK(count >= enough);
  CHECK(sh("%s docker-reap --dry-run --container-runtime %s >build/reap.log", tool, engine) == 0);
  CHECK_INT(labelled(label), count);
  CHECK(sh("%s docker-reap --container-runtime %s >build/reap.log", tool, engine) == 0);
  CHECK(sh("test $(grep -c removed build/reap.log) -ge %d", count) == 0);
  CHECK_INT(labelled(label), 0);
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
