/*
 * Speed: medians of this build, beside what limits them (a bare posix_spawn, a bare terminal) and
 * beside the Python original where it is installed. It never judges time: it fails only where a
 * command fails.
 *
 *   make -C tests bench
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>

static swerex_loop *loop;
static swerex_runtime *runtime;
static swerex_error err;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void need(bool ok, const char *what) {
  if (ok) return;
  printf("%s: %s\n", what, err.message == NULL ? "failed" : err.message);
  exit(1);
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, compare);
  return values[count / 2];
}

static void create(const char *name) {
  swerex_create_bash_session_request request;
  memset(&request, 0, sizeof request);
  request.session = name;
  need(swerex_create_session(runtime, &request, NULL, &err), "create_session");
}

static void close_session(const char *name) {
  swerex_close_bash_session_request request = {name};
  need(swerex_close_session(runtime, &request, NULL, &err), "close_session");
}

static double time_create(int rounds) {
  double times[64];
  for (int i = 0; i < rounds; i++) {
    double start = now();
    create("bench");
    times[i] = now() - start;
    close_session("bench");
  }
  return median(times, rounds);
}

static double time_run(const char *command, int rounds) {
  double *times = (double *)calloc((size_t)rounds, sizeof *times);
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = command;
  for (int i = -20; i < rounds; i++) {
    double start = now();
    need(swerex_run_in_session(runtime, &action, NULL, &err), command);
    if (i >= 0) times[i] = now() - start;
  }
  double result = median(times, rounds);
  free(times);
  return result;
}

static double spawn_once(void) {
  char *const argv[] = {(char *)(uintptr_t)"true", NULL};
  double start = now();
  pid_t pid;
  int status;
  if (posix_spawnp(&pid, "true", NULL, NULL, argv, environ) != 0) exit(1);
  waitpid(pid, &status, 0);
  return now() - start;
}

static double execute_once(void) {
  static const char *const argv[] = {"true", NULL};
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.argv = argv;
  double start = now();
  need(swerex_execute(runtime, &command, NULL, &err), "execute");
  return now() - start;
}

/** Time execute and posix_spawn in turn, so that both see the same machine. */
static void time_execute(int rounds, double *ours, double *bare) {
  double *a = (double *)calloc((size_t)rounds, sizeof *a), *b = (double *)calloc((size_t)rounds, sizeof *b);
  for (int i = 0; i < 20; i++) execute_once(), spawn_once();
  for (int i = 0; i < rounds; i++) {
    a[i] = execute_once();
    b[i] = spawn_once();
  }
  *ours = median(a, rounds);
  *bare = median(b, rounds);
  free(a);
  free(b);
}

/** Read what a command writes to a bare terminal; returns MB/s. */
static double bare_terminal(const char *command) {
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  char path[64], buffer[65536];
  size_t total = 0;
  ssize_t n;
  if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0 ||
      !swerex__sys_terminal_name(master, path, sizeof path))
    exit(1);
  double start = now();
  pid_t pid = fork();
  if (pid == 0) {
    setsid();
    int slave = open(path, O_RDWR);
    dup2(slave, 1);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
  }
  while ((n = read(master, buffer, sizeof buffer)) > 0) total += (size_t)n;
  double took = now() - start;
  waitpid(pid, NULL, 0);
  close(master);
  return (double)total / took / 1e3;
}

#define BIG_FILE "/tmp/swerex-bench.txt"
enum { BIG_SIZE = 100000000, BIG_LINE = 80 };

/** Write 100 MB of lines. */
static void make_big_file(void) {
  char block[BIG_LINE * 1000];
  memset(block, 'x', sizeof block);
  for (size_t i = BIG_LINE - 1; i < sizeof block; i += BIG_LINE) block[i] = '\n';
  int fd = open(BIG_FILE, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  for (size_t i = 0; i < BIG_SIZE / sizeof block; i++)
    need(write(fd, block, sizeof block) == (ssize_t)sizeof block, BIG_FILE);
  close(fd);
}

static long peak_kb(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

static double session_output(const char *command, size_t cap, size_t expected) {
  swerex_bash_action action;
  swerex_bash_observation seen;
  memset(&action, 0, sizeof action);
  memset(&seen, 0, sizeof seen);
  action.command = command;
  action.max_output = cap;
  double start = now();
  need(swerex_run_in_session(runtime, &action, &seen, &err), command);
  double took = now() - start;
  if (cap == 0) need(seen.output.size == expected, "output size");
  swerex_bash_observation_clear(&seen);
  return (double)expected / took / 1e3;
}

/** Read 100 MB from a session and from a bare terminal in turns, as the machine's speed changes. */
static void time_output(double *ours, double *bare) {
  enum { ROUNDS = 5 };
  double a[ROUNDS], b[ROUNDS];
  for (int i = 0; i < ROUNDS; i++) {
    a[i] = session_output("cat " BIG_FILE, 0, BIG_SIZE);
    b[i] = bare_terminal("cat " BIG_FILE);
  }
  *ours = median(a, ROUNDS);
  *bare = median(b, ROUNDS);
}

enum { SESSIONS = 1000 };

/** Open sessions, run a command in all at once, close them; prints the times. */
static void many_sessions(void) {
  static swerex_future *futures[SESSIONS];
  static char names[SESSIONS][16];
  swerex_create_bash_session_request request;
  swerex_bash_action action;
  swerex_bash_observation seen;
  memset(&request, 0, sizeof request);
  memset(&action, 0, sizeof action);
  double start = now();
  request.startup_timeout = 120;
  for (int i = 0; i < SESSIONS; i++) {
    snprintf(names[i], sizeof names[i], "s%d", i);
    request.session = names[i];
    futures[i] = swerex_create_session_async(runtime, &request, &err);
  }
  for (int i = 0; i < SESSIONS; i++) need(swerex_future_take(futures[i], NULL, &err), "create");
  double opened = now();
  action.command = "echo hi";
  for (int i = 0; i < SESSIONS; i++) {
    action.session = names[i];
    futures[i] = swerex_run_in_session_async(runtime, &action, &err);
  }
  for (int i = 0; i < SESSIONS; i++) {
    need(swerex_future_take(futures[i], &seen, &err), "run");
    need(strcmp(seen.output.data, "hi\n") == 0, "answer");
    swerex_bash_observation_clear(&seen);
  }
  double answered = now();
  for (int i = 0; i < SESSIONS; i++) {
    swerex_close_bash_session_request close = {names[i]};
    futures[i] = swerex_close_session_async(runtime, &close, &err);
  }
  for (int i = 0; i < SESSIONS; i++) need(swerex_future_take(futures[i], NULL, &err), "close");
  printf("%d sessions at once: open %.0f ms, `echo hi` in all %.0f ms, close %.0f ms\n", SESSIONS,
         opened - start, answered - opened, now() - answered);
}

/** Read a figure of the original from its script's answer; < 0: not there. */
static double original(const char *text, const char *name) {
  const char *line = strstr(text, name);
  return line == NULL ? -1 : strtod(line + strlen(name), NULL);
}

static void row(const char *what, const char *unit, double ours, double limit, const char *target,
                double theirs) {
  char a[32] = "", b[48] = "";
  if (limit > 0) snprintf(a, sizeof a, "%.3f", limit);
  if (theirs > 0) snprintf(b, sizeof b, "%.1f (%.0fx)", theirs, strcmp(unit, "MB/s") == 0 ? ours / theirs : theirs / ours);
  printf("| %-28s | %-4s | %9.3f | %9s | %-26s | %-16s |\n", what, unit, ours, a, target, b);
}

int main(int argc, char **argv) {
  static char text[4096];
  struct rlimit files;
  double ours, bare;
  FILE *script = argc > 1 ? popen(argv[1], "r") : NULL;
  if (script != NULL) {
    text[fread(text, 1, sizeof text - 1, script)] = '\0';
    pclose(script);
  }
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max < 16384 ? files.rlim_max : 16384;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  setenv("HOME", "/nonexistent", 1);
  loop = swerex_loop_new(NULL, &err);
  runtime = loop == NULL ? NULL : swerex_local_runtime_new(loop, NULL, &err);
  need(runtime != NULL, "runtime");
  printf("| %-28s | %-4s | %9s | %9s | %-26s | %-16s |\n", "what (median)", "unit", "ours", "limit", "wanted", "original");
  printf("| --- | --- | --- | --- | --- | --- |\n");
  row("create_session", "ms", time_create(50), -1, "under 10", original(text, "create_session "));
  create("default");
  row("run_in_session `true`", "ms", time_run("true", 2000), -1, "under 0.3", original(text, "true "));
  row("run_in_session `echo hi`", "ms", time_run("echo hi", 2000), -1, "under 0.3", original(text, "echo "));
  row("run_in_session `cd /; ls`", "ms", time_run("cd / && ls", 300), -1, "", original(text, "ls "));
  time_execute(500, &ours, &bare);
  row("execute `true`", "ms", ours, bare, "under 1.2 x limit", original(text, "execute "));
  printf("|   ratio to posix_spawn+wait: %.2f\n", ours / bare);
  make_big_file();
  session_output("head -c 1000000 " BIG_FILE, 4096, 0);
  long before = peak_kb();
  double capped = session_output("cat " BIG_FILE, 1 << 20, BIG_SIZE);
  long after = peak_kb();
  time_output(&ours, &bare);
  row("session output, 100 MB", "MB/s", ours, bare, "over 60, or the limit", original(text, "output "));
  printf("|   ratio to a bare reader: %.2f\n", ours / bare);
  unlink(BIG_FILE);
  row("the same, 1 MiB of it kept", "MB/s", capped, -1, "", -1);
  printf("|   memory it took: %ld KiB with 1 MiB kept\n", after - before);
  many_sessions();
  swerex_loop_free(loop);
  swerex_error_clear(&err);
  return 0;
}
