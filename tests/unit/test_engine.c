/* Container engines that fail, each a short script that stands for the engine: what is said then. */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

static char folder[64];

static void quiet(void *user_data, const swerex_log_record *record) {
  (void)user_data, (void)record;
}

/** Have a script stand for the engine, or nothing (NULL). */
static void stand_in(const char *script) {
  char path[100];
  snprintf(folder, sizeof folder, "/tmp/swerex-engine-%ld", (long)getpid());
  mkdir(folder, 0755);
  snprintf(path, sizeof path, "%s/docker", folder);
  unlink(path);
  if (script == NULL) return;
  FILE *file = fopen(path, "w");
  fprintf(file, "#!/bin/sh\nPATH=/usr/bin:/bin\n%s\n", script);
  fclose(file);
  chmod(path, 0755);
}

/** Start a deployment with what `more` adds to its configuration; the error is *err. */
static bool starts(const char *more, swerex_error *err) {
  char json[400], *before = strdup(getenv("PATH"));
  swerex_loop_options options;
  memset(&options, 0, sizeof options);
  options.logger.write = quiet;
  snprintf(json, sizeof json, "{\"type\":\"docker\",\"image\":\"x\"%s}", more);
  unsetenv("SWEREX_REMOTE_BINARY");
  setenv("PATH", folder, 1); /* nor may a real one be found */
  swerex_loop *loop = swerex_loop_new(&options, err);
  swerex_deployment *box = swerex_get_deployment_json(loop, json, 0, err);
  bool ok = box != NULL && swerex_deployment_start(box, err);
  swerex_loop_free(loop);
  setenv("PATH", before, 1);
  free(before);
  return ok;
}

static void remove_stand_in(void) {
  stand_in(NULL);
  rmdir(folder);
}

TEST(what_engines_say_is_passed_on) {
  static const struct {
    const char *script, *more, *words;
  } rows[] = {
    {"echo 'Cannot connect to the daemon' >&2; exit 1", "", "start the engine"},
    {"echo 'permission denied while trying to connect' >&2; exit 1", "", "add it to the group docker"},
    {"case $1 in pull) echo 'toomanyrequests' >&2; exit 1;; image) echo 'No such image' >&2; exit 1;; esac",
     "", "toomanyrequests"},
    {"case $1 in image) echo 'No such image' >&2; exit 1;; esac", ",\"pull\":\"never\"", "x"},
    {"exit 7", "", "it said nothing"},
    {"sleep 60", ",\"startup_timeout\":0.2", "no answer from the engine within 0.2s"},
    {"exit 1", ",\"image\":\"-x\"", "is no name of an image"},
    {"exit 1", ",\"port\":70000", "is not a port"},
    {"case $1 in image) echo s390x;; esac", ",\"transport\":\"stdio\"",
     "needs a static swerex-remote for s390x"},
    {"case $1 in image) echo s390x;; esac", "", "create did not give an id"},
    {"case $1 in image) echo s390x;; create) echo 'port is already allocated' >&2; exit 125;; esac", "",
     "choose another port, or leave it out"},
    {"case $1 in image) echo s390x;; create) echo 12ab;; start) echo 'exec format error' >&2; exit 1;; esac", "",
     "exec format error"},
    {"case $1 in image) echo s390x;; create) echo 12ab;; start) exit 4;; esac", "", "ended with exit code 4"},
    {"case $1 in image) echo s390x;; create) echo 12ab;; start) seq 9000; echo last; exit 4;; esac", "",
     "9000\nlast"},
    {"case $1 in image) echo s390x;; create) echo 12ab;; rm) exit 1;; esac", "", "docker rm: it said nothing"},
    {"exit 1", ",\"container_runtime\":\"rkt\"", "container_runtime"},
    {"exit 1", ",\"docker_args\":\"x\"", "docker_args"},
  };
  for (size_t i = 0; i < SWEREX__SYS_COUNT(rows); i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    stand_in(rows[i].script);
    CHECK(!starts(rows[i].more, &err));
    CHECK(err.message != NULL && strstr(err.message, rows[i].words) != NULL);
    if (err.message != NULL && strstr(err.message, rows[i].words) == NULL)
      printf("# row %zu: %s\n", i, err.message);
    swerex_error_clear(&err);
  }
  remove_stand_in();
}

/** The head of a program for x86-64 with one program header, of this type and at this place. */
static void write_program(const char *path, unsigned char machine, unsigned char type, size_t at) {
  unsigned char head[200] = {0x7F, 'E', 'L', 'F', 2, 1};
  head[18] = machine;
  head[32] = (unsigned char)(at & 255);
  head[33] = (unsigned char)(at >> 8);
  head[54] = 56;
  head[56] = 1;
  if (at < sizeof head) head[at] = type;
  FILE *file = fopen(path, "w");
  CHECK(fwrite(head, 1, sizeof head, file) == sizeof head && fclose(file) == 0);
}

TEST(servers_that_fit_an_image_and_those_that_do_not) {
  static const struct {
    unsigned char machine, type;
    size_t at;
    const char *fault; /* NULL: none */
  } rows[] = {{62, 1, 64, NULL},
              {183, 1, 64, "it is for another processor"},
              {62, 3, 64, "it is not static"},
              {62, 1, 300, "its program headers are out of reach"}};
  char file[64], behind[80], path[PATH_MAX];
  snprintf(file, sizeof file, "/tmp/swerex-elf-%ld", (long)getpid());
  snprintf(behind, sizeof behind, "%s-x86_64", file);
  for (size_t i = 0; i < SWEREX__SYS_COUNT(rows); i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    write_program(file, rows[i].machine, rows[i].type, rows[i].at);
    CHECK(swerex__elf_find(file, "x86_64", path, &err) == (rows[i].fault == NULL));
    if (rows[i].fault == NULL) CHECK_STR(path, file);
    if (rows[i].fault != NULL) CHECK(strstr(err.message, rows[i].fault) != NULL);
    swerex_error_clear(&err);
  }
  write_program(behind, 62, 1, 64); /* the one that was named still is none */
  CHECK(swerex__elf_find(file, "x86_64", path, NULL));
  CHECK_STR(path, behind);
  unlink(file);
  unlink(behind);
}

TEST(servers_for_a_processor_that_is_not_known) {
  char file[64], behind[80], other[80], path[PATH_MAX];
  swerex_error err = SWEREX_ERROR_INIT;
  snprintf(file, sizeof file, "/tmp/swerex-elf-%ld", (long)getpid());
  write_program(file, 22, 1, 64);
  setenv("SWEREX_REMOTE_BINARY", file, 1);
  CHECK(swerex__elf_find(NULL, "s390x", path, &err)); /* it may be for any other */
  CHECK_STR(path, "");
  unsetenv("SWEREX_REMOTE_BINARY");
  CHECK(swerex__elf_find(file, "s390x", path, &err));
  CHECK_STR(path, file);
  snprintf(behind, sizeof behind, "%s-s390x", file);
  CHECK(rename(file, behind) == 0 && swerex__elf_find(file, "s390x", path, &err));
  CHECK_STR(path, behind);
  snprintf(other, sizeof other, "%s-aarch64", file);
  CHECK(rename(behind, other) == 0 && swerex__elf_find(file, "s390x", path, &err)); /* for others */
  CHECK_STR(path, "");
  unlink(other);
  CHECK(!swerex__elf_find(file, "s390x", path, &err) && strstr(err.message, "No such file") != NULL);
  CHECK(!swerex__elf_find("/etc/passwd", "s390x", path, &err));
  CHECK_STR(err.message, "remote_binary /etc/passwd cannot serve in an image for s390x: it is not an ELF program");
  swerex_error_clear(&err);
}

static void *never_memory(void *user_data, void *block, size_t size) {
  (void)user_data, (void)block, (void)size;
  return NULL;
}

TEST(a_server_that_cannot_be_packed) {
  static const swerex_allocator none = {never_memory, NULL};
  char path[64];
  swerex_error err = SWEREX_ERROR_INIT;
  snprintf(path, sizeof path, "/tmp/swerex-pack-%ld", (long)getpid());
  CHECK(swerex__elf_pack(NULL, path, "x", &err) == -1 && err.code == SWEREX_E_FILE_NOT_FOUND);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(ftruncate(fd, SWEREX__ELF_MAX) == 0); /* a hole */
  errno = 0;
  CHECK(swerex__elf_pack(NULL, path, "x", &err) == -1 && err.sys_errno == EFBIG);
  CHECK(strstr(err.message, path) != NULL);
  CHECK(ftruncate(fd, 512) == 0);
  errno = 0;
  CHECK(swerex__elf_pack(&none, path, "x", &err) == -1 && err.code == SWEREX_E_NO_MEMORY);
  close(fd);
  unlink(path);
  swerex_error_clear(&err);
}

#ifdef __linux__ /* whose /proc shows what was given */

TEST(the_token_is_not_that_of_this_environment) {
  swerex_error err = SWEREX_ERROR_INIT;
  setenv("SWEREX_AUTH_TOKEN", "another", 1);
  stand_in("case $1 in image) echo s390x;; start) exit 4;; create) echo 12ab\n"
           "tr '\\0' '\\n' </proc/$$/environ | grep SWEREX_AUTH >${0%/*}/token;; esac");
  CHECK(!starts("", &err));
  unsetenv("SWEREX_AUTH_TOKEN");
  char path[100], text[100] = "";
  snprintf(path, sizeof path, "%s/token", folder);
  FILE *file = fopen(path, "r");
  CHECK(file != NULL && fread(text, 1, sizeof text - 1, file) > 0);
  if (file != NULL) fclose(file);
  unlink(path);
  CHECK(strncmp(text, "SWEREX_AUTH_TOKEN=", 18) == 0 && strstr(text, "another") == NULL);
  swerex_error_clear(&err);
  remove_stand_in();
}

#endif

TEST(an_engine_that_cannot_be_run) {
  for (int i = 0; i < 2; i++) { /* there is none; there is one whose interpreter is missing */
    swerex_error err = SWEREX_ERROR_INIT;
    char path[100];
    stand_in(NULL);
    snprintf(path, sizeof path, "%s/docker", folder);
    FILE *file = i == 0 ? NULL : fopen(path, "w");
    if (file != NULL) {
      fputs("#!/nonexistent/shell\n", file);
      fclose(file);
      chmod(path, 0755);
    }
    CHECK(!starts("", &err));
    CHECK(strstr(err.message, "there is no `docker` on PATH") != NULL);
    swerex_error_clear(&err);
  }
  remove_stand_in();
}

TEST_MAIN()
