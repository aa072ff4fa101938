/* [fs], [copy]: reading, replacing and copying against Python's answers, odd files, and refusals
 * of the system at every call. As root some cases run in a child that is nobody. */
#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700
#endif
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE 1
#endif
#ifndef _DARWIN_C_SOURCE
#define _DARWIN_C_SOURCE 1
#endif
/* every header of the implementation, so that the names below are replaced in it alone */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <iconv.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#endif

/* --- system calls that fail on demand ------------------------------------------------------- */

static long call_budget = -1;   /* system calls until one fails; -1: none does */
static int call_errno = EIO;    /* what it fails with */
static const char *only = NULL; /* NULL, or the one call that may fail */
static const char *refused_call = ""; /* which one has failed */
static bool clumsy = false;     /* reads and writes are short and interrupted */
static unsigned turn = 0;

static bool fault(const char *name) {
  if (call_budget < 0 || (only != NULL && strcmp(only, name) != 0)) return false;
  if (call_budget-- > 0) return false;
  refused_call = name;
  errno = call_errno;
  return true;
}

static int fault_openat(int folder, const char *path, int flags, mode_t mode) {
  if (clumsy && ++turn % 2 == 0) return errno = EINTR, -1;
  return fault("openat") ? -1 : openat(folder, path, flags, mode);
}
static int fault_close(int fd) {
  int result = close(fd);
  return fault("close") ? -1 : result;
}
static ssize_t fault_read(int fd, void *data, size_t size) {
  if (clumsy && ++turn % 2 == 0) return errno = EINTR, -1;
  return fault("read") ? -1 : read(fd, data, clumsy && size > 7 ? 7 : size);
}
static ssize_t fault_write(int fd, const void *data, size_t size) {
  if (clumsy && ++turn % 2 == 0) return errno = EINTR, -1;
  return fault("write") ? -1 : write(fd, data, clumsy && size > 3 ? 3 : size);
}
static struct dirent *fault_readdir(DIR *entries) {
  return fault("readdir") ? NULL : readdir(entries);
}
static DIR *fault_fdopendir(int fd) { return fault("fdopendir") ? NULL : fdopendir(fd); }
static int fault_fstat(int fd, struct stat *info) { return fault("fstat") ? -1 : fstat(fd, info); }
static int fault_fstatat(int folder, const char *path, struct stat *info, int flags) {
  return fault("fstatat") ? -1 : fstatat(folder, path, info, flags);
}
static int fault_mkdirat(int folder, const char *path, mode_t mode) {
  return fault("mkdirat") ? -1 : mkdirat(folder, path, mode);
}
static int fault_renameat(int from, const char *path, int to, const char *name) {
  return fault("renameat") ? -1 : renameat(from, path, to, name);
}
static ssize_t fault_readlinkat(int folder, const char *path, char *link, size_t room) {
  return fault("readlinkat") ? -1 : readlinkat(folder, path, link, room);
}
static int fault_symlinkat(const char *link, int folder, const char *path) {
  return fault("symlinkat") ? -1 : symlinkat(link, folder, path);
}
static int fault_mkfifoat(int folder, const char *path, mode_t mode) {
  return fault("mkfifoat") ? -1 : mkfifoat(folder, path, mode);
}
static int fault_fchmod(int fd, mode_t mode) { return fault("fchmod") ? -1 : fchmod(fd, mode); }
static int fault_fchown(int fd, uid_t user, gid_t group) {
  return fault("fchown") ? -1 : fchown(fd, user, group);
}
static int fault_futimens(int fd, const struct timespec times[2]) {
  return fault("futimens") ? -1 : futimens(fd, times);
}
static int fault_ftruncate(int fd, off_t size) {
  return fault("ftruncate") ? -1 : ftruncate(fd, size);
}
static off_t fault_lseek(int fd, off_t offset, int whence) {
  return fault("lseek") ? -1 : lseek(fd, offset, whence);
}

#define openat fault_openat
#define close fault_close
#define read fault_read
#define write fault_write
#define readdir fault_readdir
#define fdopendir fault_fdopendir
#define fstat fault_fstat
#define fstatat fault_fstatat
#define mkdirat fault_mkdirat
#define renameat fault_renameat
#define readlinkat fault_readlinkat
#define symlinkat fault_symlinkat
#define mkfifoat fault_mkfifoat
#define fchmod fault_fchmod
#define fchown fault_fchown
#define futimens fault_futimens
#define ftruncate fault_ftruncate
#define lseek fault_lseek
#include "counting.h"
#undef openat
#undef close
#undef read
#undef write
#undef readdir
#undef fdopendir
#undef fstat
#undef fstatat
#undef mkdirat
#undef renameat
#undef readlinkat
#undef symlinkat
#undef mkfifoat
#undef fchmod
#undef fchown
#undef futimens
#undef ftruncate
#undef lseek

#include "test.h"

/* --- helpers -------------------------------------------------------------------------------- */

static char box[64];      /* the folder of the present test, and our working folder */
static long files_before; /* descriptors open when the box was made */

static long open_files(void) {
  long count = 0;
  DIR *entries = opendir("/proc/self/fd");
  if (entries == NULL) return 0;
  while (readdir(entries) != NULL) count++;
  closedir(entries);
  return count;
}

static void sh(const char *command) {
  int status = system(command);
  CHECK_INT(status, 0);
}

static void make_box(void) {
  snprintf(box, sizeof box, "/tmp/swerex-fs-XXXXXX");
  /* files are removed below it: without a box nothing may go on */
  if (mkdtemp(box) == NULL || chmod(box, 0777) != 0 || chdir(box) != 0) {
    perror(box);
    exit(1);
  }
  umask(022);
  files_before = open_files();
}

static void drop_box(void) {
  char command[160];
  CHECK_INT(open_files(), files_before);
  CHECK_INT(live, 0);
  CHECK(chdir("/") == 0);
  snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s", box, box);
  sh(command);
}

static void put(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
  close(fd);
}

/** Read a small file without the code under test. */
static const char *get(const char *path) {
  static char text[4][512];
  static int slot;
  char *into = text[slot++ & 3];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, into, 511);
  if (fd >= 0) close(fd);
  into[n < 0 ? 0 : n] = '\0';
  return n < 0 ? "(unreadable)" : into;
}

static int mode_of(const char *path) {
  struct stat info;
  return lstat(path, &info) != 0 ? -1 : (int)(info.st_mode & 07777);
}

static long inode_of(const char *path) {
  struct stat info;
  return lstat(path, &info) != 0 ? -1 : (long)info.st_ino;
}

/** Count names below a folder that begin as temporary files do; clean: remove everything. */
static int walk(const char *folder, bool clean) {
  int count = 0;
  DIR *entries = opendir(folder);
  const struct dirent *entry;
  if (entries == NULL) return 0;
  while ((entry = readdir(entries)) != NULL) {
    char path[1024];
    struct stat info;
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path) continue;
    count += strncmp(entry->d_name, ".swerex-", 8) == 0;
    if (lstat(path, &info) == 0 && S_ISDIR(info.st_mode)) count += walk(path, clean);
    if (clean && remove(path) != 0) count = -1000;
  }
  closedir(entries);
  return count;
}

static int leftovers(void) { return walk(".", false); }

/** Write text; returns "ok" or the error's message. */
static const char *write_text(const char *path, const char *text) {
  static char message[1024];
  swerex_error err = SWEREX_ERROR_INIT;
  bool ok = swerex__fs_write(NULL, path, text, text == NULL ? 0 : strlen(text), &err);
  CHECK(ok == (err.code == SWEREX_E_OK));
  snprintf(message, sizeof message, "%s", ok ? "ok" : err.message);
  swerex__err_clear(&err);
  return message;
}

/** Read a file of at most max bytes; returns its content or the error's message. */
static const char *read_text(const char *path, size_t max) {
  static char text[1024];
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_bytes out = {NULL, 0};
  bool ok = swerex__fs_read(NULL, path, max, &out, &err);
  snprintf(text, sizeof text, "%s", ok ? out.data : err.message);
  if (ok) CHECK_INT(out.data[out.size], 0);
  if (!ok) CHECK(out.data == NULL);
  swerex__mem_free(out.data);
  swerex__err_clear(&err);
  return text;
}

static int steps; /* of the last copy */

/** Copy to the end; returns "ok" or the error's message. */
static const char *copy_all(const char *source, const char *target) {
  static char message[1024];
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__fs_progress progress = SWEREX__FS_FAILED;
  swerex__copy *copy = swerex__copy_new(NULL, source, target, &err);
  for (steps = 0; copy != NULL; steps++) {
    progress = swerex__copy_step(copy, &err);
    if (progress != SWEREX__FS_MORE) break;
  }
  if (progress == SWEREX__FS_DONE) CHECK_INT(swerex__copy_step(copy, &err), SWEREX__FS_DONE);
  swerex__copy_free(copy);
  CHECK((progress == SWEREX__FS_DONE) == (err.code == SWEREX_E_OK));
  snprintf(message, sizeof message, "%s", progress == SWEREX__FS_DONE ? "ok" : err.message);
  swerex__err_clear(&err);
  return message;
}

/** Run something in a child, as nobody if we are root; returns what it reports. */
static const char *in_child(void (*run)(char *report), bool nobody) {
  static char *shared = NULL;
  int status = -1;
  if (shared == NULL)
    shared = (char *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | SWEREX__SYS_ANONYMOUS,
                          -1, 0);
  memset(shared, 0, 4096);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    if (nobody && geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(1);
    run(shared);
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  return shared;
}

static bool same_content(const char *a, const char *b) {
  char command[2100];
  snprintf(command, sizeof command, "cmp -s '%s' '%s'", a, b);
  return system(command) == 0;
}

static bool same_entry(const char *a, const char *b) {
  struct stat x, y;
  char from[512] = "", to[512] = "";
  if (lstat(a, &x) != 0 || lstat(b, &y) != 0 || x.st_mode != y.st_mode) return false;
  if (SWEREX__SYS_MTIME(&x).tv_sec != SWEREX__SYS_MTIME(&y).tv_sec) return false;
  if (SWEREX__SYS_MTIME(&x).tv_nsec != SWEREX__SYS_MTIME(&y).tv_nsec) return false;
  if (S_ISLNK(x.st_mode))
    return readlink(a, from, 511) > 0 && readlink(b, to, 511) > 0 && strcmp(from, to) == 0;
  return !S_ISREG(x.st_mode) || (x.st_size == y.st_size && same_content(a, b));
}

/** Compare two trees in kinds, modes, times, content. Returns how many entries differ. */
static int differences(const char *a, const char *b) {
  int count = !same_entry(a, b);
  int names = 0;
  const struct dirent *entry;
  DIR *entries = opendir(a);
  for (; entries != NULL && (entry = readdir(entries)) != NULL; names++) {
    char x[1024], y[1024];
    struct stat info;
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (snprintf(x, sizeof x, "%s/%s", a, entry->d_name) >= (int)sizeof x) return -1;
    if (snprintf(y, sizeof y, "%s/%s", b, entry->d_name) >= (int)sizeof y) return -1;
    bool folder = lstat(x, &info) == 0 && S_ISDIR(info.st_mode);
    count += folder ? differences(x, y) : !same_entry(x, y);
  }
  if (entries != NULL) closedir(entries);
  entries = opendir(b);
  while (entries != NULL && readdir(entries) != NULL) names--;
  if (entries != NULL) closedir(entries);
  return count + (names != 0);
}

/** Give a device that a fault of ours cannot spoil for the machine; NULL: there is none. */
static const char *device(const char *name, const char *system_path, int minor) {
  char command[64];
  if (geteuid() != 0) return system_path; /* not ours to change */
  snprintf(command, sizeof command, "mknod %s c 1 %d 2>/dev/null && chmod 666 %s", name, minor,
           name);
  if (system(command) != 0) return NULL;
  int fd = open(name, O_WRONLY | O_CLOEXEC); /* refused where devices do not work */
  if (fd < 0) return NULL;
  close(fd);
  return name;
}

/* --- paths ---------------------------------------------------------------------------------- */

TEST(paths_are_cleaned_as_by_python) {
  static const char *const cases[][2] = {
    {"", "."},         {".", "."},       {"./", "."},          {"/", "/"},      {"//", "//"},
    {"///", "/"},      {"a", "a"},       {"a/", "a"},          {"a//", "a"},    {"./a", "a"},
    {"a/./b", "a/b"},  {"a/.", "a"},     {"a//b", "a/b"},      {"/a/", "/a"},   {"//a//b", "//a/b"},
    {"///a", "/a"},    {"a/..", "a/.."}, {"../a", "../a"},     {"/./a", "/a"},  {"...", "..."},
    {".a/.b", ".a/.b"}, {"/.", "/"},     {"//./a/.", "//a"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char *clean = swerex__fs_clean(NULL, cases[i][0]);
    CHECK_STR(clean, cases[i][1]);
    swerex__mem_free(clean);
  }
  CHECK_INT(live, 0);
}

/* --- reading -------------------------------------------------------------------------------- */

TEST(read_gives_content) {
  make_box();
  put("f", "hello\n");
  put("empty", "");
  CHECK_STR(read_text("f", 100), "hello\n");
  CHECK_STR(read_text("./f/", 100), "hello\n");
  CHECK_STR(read_text("empty", 0), "");
  CHECK_STR(read_text("f", SIZE_MAX), "hello\n");
  CHECK_STR(read_text("f", 6), "hello\n");
  swerex_bytes out = {NULL, 0};
  CHECK(!swerex__fs_read(NULL, "nope", 10, &out, NULL));
  sh("head -c 1000000 /dev/zero >large");
  resizes = 0;
  CHECK(swerex__fs_read(NULL, "large", 1 << 24, &out, NULL));
  CHECK_INT(out.size, 1000000);
  CHECK_INT(resizes, 0); /* its size was known */
  swerex__mem_free(out.data);
  drop_box();
}

TEST(read_errors_are_pythons) {
  make_box();
  put("f", "x");
  CHECK(symlink("loop", "loop") == 0);
  CHECK_STR(read_text("nope", 9), "[Errno 2] No such file or directory: 'nope'");
  CHECK_STR(read_text("./nope//", 9), "[Errno 2] No such file or directory: 'nope'");
  CHECK_STR(read_text("/tmp", 9), "[Errno 21] Is a directory: '/tmp'");
  CHECK_STR(read_text("", 9), "[Errno 21] Is a directory: '.'");
  CHECK_STR(read_text("f/x", 9), "[Errno 20] Not a directory: 'f/x'");
  CHECK_STR(read_text("loop", 9), "[Errno 40] Too many levels of symbolic links: 'loop'");
  drop_box();
}

TEST(read_has_a_limit) {
  make_box();
  put("f", "1234567");
  CHECK_STR(read_text("f", 7), "1234567");
  CHECK_STR(read_text("f", 6),
            "[Errno 27] File too large: 'f' (it has 7 bytes, the limit is 6 bytes: raise max_file, "
            "or read a part of it with a command such as head)");
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_bytes out = {NULL, 0};
  CHECK(!swerex__fs_read(NULL, "f", 0, &out, &err));
  CHECK_INT(err.code, SWEREX_E_OS);
  CHECK_INT(err.sys_errno, EFBIG);
  swerex__err_clear(&err);
  drop_box();
}

TEST(read_of_unknown_size) {
  if (access("/proc/self/status", R_OK) != 0) SKIP("no /proc");
  make_box();
  CHECK(strncmp(read_text("/proc/self/status", 1 << 20), "Name:", 5) == 0);
  CHECK_STR(read_text("/proc/self/status", 5),
            "[Errno 27] File too large: '/proc/self/status' (the limit is 5 bytes: raise max_file, "
            "or read a part of it with a command such as head)");
  CHECK(strstr(read_text("/dev/zero", 100000), "the limit is 100000 bytes") != NULL);
  CHECK_STR(read_text("/dev/zero", (size_t)1 << 40),
            "[Errno 27] File too large: '/dev/zero' (a device that has more than 16 MiB to say, or no "
            "end: read a part of it with a command such as head)");
  CHECK_STR(read_text("/dev/null", 0), "");
  for (size_t size = 4090; size < 4100; size++) { /* around the first read */
    swerex_error err = SWEREX_ERROR_INIT;
    swerex_bytes out = {NULL, 0};
    char command[64];
    CHECK(mkfifo("pipe", 0600) == 0);
    int both = open("pipe", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(command, sizeof command, "head -c %d /dev/zero >pipe", (int)size);
    sh(command);
    int keep = open("pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    close(both); /* the data stays, no writer does */
    CHECK(swerex__fs_read(NULL, "pipe", size, &out, &err));
    CHECK_INT(out.size, size);
    swerex__mem_free(out.data);
    swerex__err_clear(&err);
    close(keep);
    unlink("pipe");
  }
  drop_box();
}

TEST(read_never_waits) {
  make_box();
  CHECK(mkfifo("pipe", 0600) == 0);
  CHECK_STR(read_text("pipe", 9), "");
  int both = open("pipe", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  CHECK_STR(read_text("pipe", 9),
            "[Errno 11] Resource temporarily unavailable: 'pipe' (it would have to wait for "
            "another process, which file operations do not)");
  close(both);
  drop_box();
}

TEST(read_text_decodes) {
  make_box();
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_bytes out = {NULL, 0};
  swerex_read_file_request request;
  memset(&request, 0, sizeof request);
  put("f", "h\xC3\xA9");
  put("bad", "ab\xff");
  request.path = "f";
  CHECK(swerex__fs_read_text(NULL, &request, 100, &out, &err));
  CHECK_MEM(out.data, out.size, "h\xC3\xA9");
  swerex__mem_free(out.data);
  request.path = "bad";
  CHECK(!swerex__fs_read_text(NULL, &request, 100, &out, &err));
  CHECK_INT(err.code, SWEREX_E_UNICODE_DECODE);
  CHECK_STR(err.message,
            "'utf-8' codec can't decode byte 0xff in position 2: invalid start byte");
  swerex__err_clear(&err);
  drop_box();
}

/* --- writing -------------------------------------------------------------------------------- */

TEST(write_makes_files_and_folders) {
  make_box();
  umask(027);
  CHECK_STR(write_text("a/b//./c/f/", "text"), "ok");
  CHECK_STR(get("a/b/c/f"), "text");
  CHECK_INT(mode_of("a/b/c/f"), 0640);
  CHECK_INT(mode_of("a"), 0750);
  CHECK_INT(mode_of("a/b/c"), 0750);
  CHECK_STR(write_text("a/b/c/f", NULL), "ok");
  CHECK_STR(get("a/b/c/f"), "");
  CHECK_STR(write_text("a/../up", "x"), "ok");
  CHECK_STR(get("up"), "x");
  CHECK(swerex__fs_write(NULL, "nul", "a\0b", 3, NULL));
  struct stat info;
  CHECK(stat("nul", &info) == 0 && info.st_size == 3);
  CHECK_INT(leftovers(), 0);
  mode_t mask = umask(0);
  CHECK_INT(mask, 027);
  drop_box();
}

TEST(write_errors_are_pythons) {
  make_box();
  char name[300];
  char message[400];
  put("f", "old");
  memset(name, 'n', sizeof name);
  name[299] = '\0';
  CHECK_STR(write_text("f/x", "y"), "[Errno 17] File exists: 'f'");
  CHECK_STR(write_text("f/x/y", "y"), "[Errno 20] Not a directory: 'f/x'");
  CHECK_STR(write_text("/proc/nope/x", "y"), "[Errno 2] No such file or directory: '/proc/nope'");
  CHECK_STR(write_text("/proc/nope/a/x", "y"), "[Errno 2] No such file or directory: '/proc/nope'");
  CHECK_STR(write_text("/tmp", "y"), "[Errno 21] Is a directory: '/tmp'");
  CHECK_STR(write_text("", "y"), "[Errno 21] Is a directory: '.'");
  CHECK_STR(write_text("/", "y"), "[Errno 21] Is a directory: '/'");
  snprintf(message, sizeof message, "[Errno 36] File name too long: '%s'", name);
  CHECK_STR(write_text(name, "y"), message);
  CHECK_STR(get("f"), "old");
  CHECK(!swerex__fs_write(NULL, "/tmp", "y", 1, NULL));
  drop_box();
}

TEST(write_replaces_and_keeps_the_mode) {
  make_box();
  put("f", "a longer old content");
  CHECK(chmod("f", 0604) == 0 && link("f", "other") == 0);
  CHECK_STR(write_text("f", "new"), "ok");
  CHECK_STR(get("f"), "new");
  CHECK_STR(get("other"), "a longer old content");
  CHECK_INT(mode_of("f"), 0604);
  CHECK_INT(leftovers(), 0);
  drop_box();
}

TEST(write_keeps_the_owner) {
  if (geteuid() != 0) SKIP("only root may have files of others");
  make_box();
  struct stat info;
  put("f", "old");
  CHECK(chown("f", 1234, 1235) == 0 && chmod("f", 06751) == 0);
  CHECK_STR(write_text("f", "new"), "ok");
  CHECK(stat("f", &info) == 0 && info.st_uid == 1234 && info.st_gid == 1235);
  CHECK_INT(mode_of("f"), 06751);
  drop_box();
}

TEST(write_follows_links) {
  make_box();
  CHECK(mkdir("d", 0755) == 0);
  put("d/f", "old");
  CHECK(chmod("d/f", 0600) == 0);
  CHECK(symlink("d/f", "direct") == 0 && symlink("../direct", "d/chain") == 0);
  char absolute[128];
  snprintf(absolute, sizeof absolute, "%s/d/chain", box);
  CHECK(symlink(absolute, "absolute") == 0 && symlink("d/new", "dangling") == 0);
  CHECK(symlink("loop", "loop") == 0 && symlink("none/x", "lost") == 0);
  CHECK_STR(write_text("direct", "1"), "ok");
  CHECK_STR(get("d/f"), "1");
  CHECK_STR(write_text("absolute", "2"), "ok");
  CHECK_STR(get("d/f"), "2");
  CHECK_INT(mode_of("d/f"), 0600);
  CHECK_STR(write_text("dangling", "3"), "ok");
  CHECK_STR(get("d/new"), "3");
  CHECK_INT(mode_of("d/new"), 0644);
  CHECK_STR(write_text("loop", "4"), "[Errno 40] Too many levels of symbolic links: 'loop'");
  CHECK_STR(write_text("lost", "5"), "[Errno 2] No such file or directory: 'lost'");
  char link[8];
  CHECK_INT(readlink("direct", link, sizeof link), 3);
  CHECK_INT(readlink("dangling", link, sizeof link), 5);
  CHECK_INT(leftovers(), 0);
  drop_box();
}

TEST(write_to_devices_and_pipes_is_in_place) {
  make_box();
  struct stat info;
  const char *null = device("null", "/dev/null", 3);
  const char *full = device("full", "/dev/full", 7);
  if (null != NULL) {
    CHECK_STR(write_text(null, "gone"), "ok");
    CHECK(stat(null, &info) == 0 && S_ISCHR(info.st_mode));
    CHECK_INT(info.st_mode & 07777, 0666);
  }
  if (full != NULL)
    CHECK(strstr(write_text(full, "x"), "[Errno 28] No space left on device: '") != NULL);
  CHECK(mkfifo("pipe", 0600) == 0);
  CHECK_STR(write_text("pipe", "x"),
            "[Errno 6] No such device or address: 'pipe' (a pipe that nobody reads, a socket, or a "
            "device that is not there)");
  int reader = open("pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  char text[8] = "";
  CHECK_STR(write_text("pipe", "hello"), "ok");
  CHECK_INT(read(reader, text, sizeof text), 5);
  CHECK_STR(text, "hello");
  size_t size = 1 << 20; /* more than a pipe holds */
  char *much = (char *)calloc(1, size);
  swerex_error err = SWEREX_ERROR_INIT;
  CHECK(!swerex__fs_write(NULL, "pipe", much, size, &err));
  CHECK_INT(err.sys_errno, EAGAIN);
  swerex__err_clear(&err);
  free(much);
  close(reader);
  drop_box();
}

TEST(write_to_a_file_without_a_name) {
  if (access("/proc/self/fd", X_OK) != 0) SKIP("no /proc");
  make_box();
  char path[64], text[8] = "";
  put("gone", "a longer old content");
  int fd = open("gone", O_RDWR | O_CLOEXEC);
  unlink("gone");
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  CHECK_STR(write_text(path, "new"), "ok");
  CHECK_INT(pread(fd, text, sizeof text, 0), 3);
  CHECK_STR(text, "new");
  put("gone (deleted)", "not this one");
  CHECK_STR(write_text(path, "again"), "ok");
  CHECK_STR(get("gone (deleted)"), "not this one");
  close(fd);
  drop_box();
}

static void run_full_disk(char *report) {
  struct rlimit limit = {1000, 1000};
  static char much[5000];
  memset(much, 'x', sizeof much - 1);
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  snprintf(report, 4096, "%s %s", write_text("f", much), get("f"));
}

TEST(write_to_a_full_disk_keeps_the_old_file) {
  make_box();
  put("f", "old");
  CHECK_STR(in_child(run_full_disk, false), "[Errno 27] File too large: 'f' old");
  CHECK_INT(leftovers(), 0);
  drop_box();
}

static void run_permissions(char *report) {
  snprintf(report, 1000, "%s|", write_text("closed/open.txt", "new"));
  snprintf(report + strlen(report), 1000, "%s|", write_text("closed/none.txt", "new"));
  snprintf(report + strlen(report), 1000, "%s|", write_text("readonly", "new"));
  snprintf(report + strlen(report), 1000, "%s|", write_text("closed/sub/x", "new"));
  snprintf(report + strlen(report), 1000, "%s", read_text("secret", 99));
}

TEST(write_obeys_permissions) {
  make_box();
  CHECK(mkdir("closed", 0755) == 0);
  put("closed/open.txt", "a longer old content");
  put("readonly", "old");
  put("secret", "old");
  long inode = inode_of("closed/open.txt");
  CHECK(chmod("closed/open.txt", 0666) == 0 && chmod("closed", 0555) == 0);
  CHECK(chmod("readonly", 0444) == 0 && chmod("secret", 0) == 0);
  CHECK_STR(in_child(run_permissions, true),
            "ok|[Errno 13] Permission denied: 'closed/none.txt'|"
            "[Errno 13] Permission denied: 'readonly'|[Errno 13] Permission denied: 'closed/sub'|"
            "[Errno 13] Permission denied: 'secret'");
  CHECK_STR(get("closed/open.txt"), "new");
  CHECK(inode_of("closed/open.txt") == inode);
  CHECK_STR(get("readonly"), "old");
  CHECK_INT(leftovers(), 0);
  drop_box();
}

static void run_sticky(char *report) {
  snprintf(report, 1000, "%s|", write_text("sticky/f", "new"));
  snprintf(report + strlen(report), 1000, "%s", write_text("shared/f", "new"));
}

TEST(write_of_anothers_file) {
  if (geteuid() != 0) SKIP("only root may have files of others");
  make_box();
  CHECK(mkdir("sticky", 0755) == 0 && chmod("sticky", 01777) == 0);
  CHECK(mkdir("shared", 0755) == 0 && chmod("shared", 0777) == 0);
  put("sticky/f", "a longer old content");
  put("shared/f", "a longer old content");
  CHECK(chmod("sticky/f", 0666) == 0 && chmod("shared/f", 06777) == 0);
  long inode = inode_of("sticky/f");
  CHECK_STR(in_child(run_sticky, true), "ok|ok");
  CHECK_STR(get("sticky/f"), "new");
  CHECK(inode_of("sticky/f") == inode); /* not ours to replace, ours to write */
  CHECK_STR(get("shared/f"), "new");
  CHECK_INT(mode_of("shared/f"), 0777); /* another owner: no set-id bits */
  CHECK_INT(leftovers(), 0);
  drop_box();
}

TEST(write_notices_a_failed_close) {
  make_box();
  put("f", "old");
  sh("mkdir s && echo x >s/f");
  only = "close", call_errno = ENOSPC, call_budget = 0;
  CHECK_STR(write_text("f", "new"), "[Errno 28] No space left on device: 'f'");
  call_budget = 0;
  CHECK_STR(copy_all("s", "t"), "[Errno 28] No space left on device: 't/f'");
  call_errno = EINTR, call_budget = 0;
  CHECK_STR(write_text("g", "new"), "ok");
  only = NULL, call_errno = EIO, call_budget = -1;
  CHECK_STR(get("f"), "old");
  CHECK(access("t/f", F_OK) != 0);
  CHECK_INT(leftovers(), 0);
  drop_box();
}

TEST(write_over_a_mount_point_is_in_place) {
  make_box();
  put("f", "a longer old content");
  long inode = inode_of("f");
  only = "renameat", call_errno = EBUSY, call_budget = 0;
  CHECK_STR(write_text("f", "new"), "ok");
  CHECK_STR(get("f"), "new");
  CHECK(inode_of("f") == inode);
  put("s", "source");
  CHECK(chmod("s", 0751) == 0);
  call_budget = 0;
  CHECK_STR(copy_all("s", "f"), "ok");
  only = NULL, call_errno = EIO, call_budget = -1;
  CHECK_STR(get("f"), "source");
  CHECK(inode_of("f") == inode);
  CHECK_INT(mode_of("f"), 0751);
  CHECK_INT(leftovers(), 0);
  drop_box();
}

/* --- copying a file ------------------------------------------------------------------------- */

static void age(const char *path, long seconds) {
  struct timespec times[2];
  times[0].tv_sec = 1000000000 + seconds, times[0].tv_nsec = 111;
  times[1].tv_sec = 1100000000 + seconds, times[1].tv_nsec = 987654321;
  CHECK(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) == 0);
}

TEST(copy_of_a_file) {
  make_box();
  struct stat info;
  put("s", "source");
  CHECK(chmod("s", 0751) == 0 && mkdir("d", 0755) == 0);
  age("s", 7);
  CHECK_STR(copy_all("s", "new/folders/t"), "ok");
  CHECK_STR(get("new/folders/t"), "source");
  CHECK_INT(mode_of("new/folders/t"), 0751);
  CHECK(stat("new/folders/t", &info) == 0);
  CHECK_INT(SWEREX__SYS_MTIME(&info).tv_sec, 1100000007);
  CHECK_INT(SWEREX__SYS_MTIME(&info).tv_nsec, 987654321);
  CHECK_STR(copy_all("./s", "d/"), "ok");
  CHECK_STR(get("d/s"), "source");
  put("t", "a longer old content");
  CHECK(chmod("t", 0600) == 0 && symlink("t", "link") == 0);
  CHECK_STR(copy_all("s", "link"), "ok");
  CHECK_STR(get("t"), "source");
  CHECK_INT(mode_of("t"), 0751);
  CHECK(symlink("s", "source-link") == 0);
  CHECK_STR(copy_all("source-link", "t2"), "ok");
  CHECK_STR(get("t2"), "source");
  put("empty", "");
  CHECK_STR(copy_all("empty", "t"), "ok");
  CHECK_STR(get("t"), "");
  CHECK_INT(leftovers(), 0);
  drop_box();
}

TEST(copy_of_a_large_file_takes_steps) {
  make_box();
  sh("head -c 5000000 /dev/urandom >s");
  put("t", "old");
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__copy *copy = swerex__copy_new(NULL, "s", "t", &err);
  CHECK(copy != NULL && swerex__copy_step(copy, &err) == SWEREX__FS_MORE);
  CHECK_INT(leftovers(), 1);
  CHECK_STR(get("t"), "old");
  swerex__copy_free(copy);
  CHECK_INT(leftovers(), 0);
  CHECK_STR(get("t"), "old");
  CHECK_STR(copy_all("s", "t"), "ok");
  CHECK(steps >= 4 && steps <= 6);
  sh("cmp s t");
  drop_box();
}

TEST(copy_refuses_what_is_no_file) {
  make_box();
  put("s", "source");
  CHECK(mkfifo("pipe", 0600) == 0 && link("s", "hard") == 0 && mkdir("d", 0755) == 0);
  CHECK(mkdir("d/s", 0755) == 0 && symlink("s", "soft") == 0);
  const char *same = "[Errno 22] Invalid argument: 's' (source and target are the same file)";
  CHECK_STR(copy_all("s", "s"), same);
  CHECK_STR(copy_all("s", "."), "[Errno 22] Invalid argument: './s' "
                                "(source and target are the same file)");
  CHECK_STR(copy_all("hard", "s"), same);
  CHECK_STR(copy_all("soft", "s"), same);
  put("it's\n", "");
  CHECK_STR(copy_all("it's\n", "it's\n"), "[Errno 22] Invalid argument: \"it's\\n\" "
                                          "(source and target are the same file)");
  CHECK_STR(copy_all("nope", "t"), "[Errno 2] No such file or directory: 'nope'");
  CHECK_STR(copy_all("s", "d"), "[Errno 21] Is a directory: 'd/s'");
  CHECK_STR(copy_all("s", "hard/x"), "[Errno 17] File exists: 'hard'");
  CHECK_STR(copy_all("pipe", "t"), "[Errno 95] Operation not supported: 'pipe' "
                                   "(a named pipe has no content to copy)");
  CHECK_STR(copy_all("/dev/null", "t"),
            "[Errno 95] Operation not supported: '/dev/null' (a device cannot be copied)");
  CHECK_STR(get("s"), "source");
  CHECK(access("t", F_OK) != 0);
  const char *null = device("null", "/dev/null", 3);
  if (null != NULL) {
    struct stat info;
    CHECK_STR(copy_all("s", null), "ok");
    CHECK(stat(null, &info) == 0 && S_ISCHR(info.st_mode));
    CHECK_INT(info.st_mode & 07777, 0666);
  }
  CHECK_INT(leftovers(), 0);
  drop_box();
}

/* --- copying a folder ----------------------------------------------------------------------- */

/** Build a folder "s" with everything that a folder can hold. */
static void build_tree(void) {
  sh("mkdir -p s/empty s/locked s/a/b/c && printf text >s/file && printf '' >s/zero &&"
     "head -c 300000 /dev/urandom >s/a/big && printf x >s/locked/f && printf y >s/a/b/c/leaf &&"
     "printf z >'s/strange \n name' && ln -s ../file s/a/link && ln -s nowhere s/dangling &&"
     "ln -s . s/a/self && ln -s /etc/passwd s/absolute && mkfifo s/pipe && chmod 610 s/pipe &&"
     "chmod 0 s/zero && chmod 4755 s/file && chmod 600 s/a/big && chmod 1777 s/empty &&"
     "chmod 555 s/locked && chmod 700 s/a");
  age("s/file", 1), age("s/zero", 2), age("s/a/big", 3), age("s/a/link", 4), age("s/pipe", 5);
  age("s/locked/f", 6), age("s/a/b/c", 7), age("s/a/b", 8), age("s/a", 9), age("s/empty", 10);
  age("s/locked", 11), age("s/dangling", 12), age("s/a/self", 13), age("s", 14);
}

static void run_copy_tree(char *report) {
  snprintf(report, 1000, "%s", copy_all("s", "t"));
}

TEST(copy_of_a_folder) {
  make_box();
  build_tree();
  if (geteuid() != 0) sh("chmod 444 s/zero");
  CHECK_STR(copy_all("s", "new/t/"), "ok");
  CHECK_INT(differences("s", "new/t"), 0);
  CHECK_INT(mode_of("new/t/file"), 04755);
  CHECK_INT(mode_of("new/t/locked"), 0555);
  CHECK(symlink("s", "l") == 0);
  CHECK_STR(copy_all("l/", "t2"), "ok");
  CHECK_INT(differences("s", "t2"), 0);
  umask(0777 & ~0700);
  CHECK_STR(copy_all("s", "t3"), "ok");
  CHECK_INT(differences("s", "t3"), 0);
  umask(022);
  drop_box();
}

TEST(copy_of_a_folder_as_nobody) {
  make_box();
  build_tree();
  CHECK(chmod("s/zero", 0444) == 0 && chmod("s/a", 0755) == 0 && chmod("s/a/big", 0644) == 0);
  CHECK_STR(in_child(run_copy_tree, true), "ok");
  CHECK_INT(mode_of("t/locked"), 0555);
  CHECK_INT(mode_of("t/locked/f"), 0644);
  if (geteuid() == 0) CHECK_INT(mode_of("t/file"), 0755); /* another owner: no set-id bits */
  if (geteuid() == 0) CHECK_INT(mode_of("t/empty"), 01777);
  drop_box();
}

TEST(copy_of_what_may_not_be_read) {
  make_box();
  sh("mkdir -p s/d && printf x >s/d/f && chmod 0 s/d/f");
  CHECK_STR(in_child(run_copy_tree, true), "[Errno 13] Permission denied: 's/d/f'");
  sh("chmod -R u+rwx t && rm -r t && chmod 0 s/d");
  CHECK_STR(in_child(run_copy_tree, true), "[Errno 13] Permission denied: 's/d'");
  CHECK_INT(leftovers(), 0);
  drop_box();
}

/** Tell whether a folder may not be copied below itself. Only begins: the source may be "/". */
static bool is_refused(const char *source, const char *target) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__copy *copy = swerex__copy_new(NULL, source, target, &err);
  bool refused = copy == NULL && err.sys_errno == EINVAL &&
                 strstr(err.message, "(a folder cannot be copied into itself)") != NULL;
  swerex__copy_free(copy);
  swerex__err_clear(&err);
  return refused;
}

TEST(copy_of_a_folder_refuses) {
  make_box();
  sh("mkdir -p s/d t2 && printf x >s/f && ln -s nowhere lost && ln -s s/d door && printf f >file");
  CHECK_STR(copy_all("s", "t2"), "[Errno 17] File exists: 't2'");
  CHECK_STR(copy_all("s", "s"), "[Errno 17] File exists: 's'");
  CHECK_STR(copy_all("s", "file"), "[Errno 17] File exists: 'file'");
  CHECK_STR(copy_all("s", "lost"), "[Errno 17] File exists: 'lost'");
  CHECK_STR(copy_all("s", "file/x"), "[Errno 17] File exists: 'file'");
  static const char *const inside[] = {"s/t",       "s/d/t", "s/x/y/z/t", "door/t",
                                       "t2/../s/t", "./s/t", "s/d/../t",  "door/x/../../t"};
  for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) CHECK(is_refused("s", inside[i]));
  char absolute[128];
  snprintf(absolute, sizeof absolute, "%s/s/d/t", box);
  CHECK(is_refused("s", absolute));
  CHECK(is_refused("/", "x/t"));
  CHECK(is_refused(".", "x"));
  CHECK(is_refused("..", "x"));
  CHECK(access("x", F_OK) != 0 && access("s/x", F_OK) != 0);
  CHECK_STR(copy_all("s", "sibling"), "ok");
  CHECK_STR(copy_all("s", "s2/t"), "ok");
  drop_box();
}

TEST(copy_names_the_entry_it_refuses) {
  make_box();
  struct sockaddr_un address;
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "s/d/sock");
  sh("mkdir -p s/d");
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
  close(fd);
  CHECK_STR(copy_all("s", "t"),
            "[Errno 95] Operation not supported: 's/d/sock' (a socket cannot be copied)");
  unlink("s/d/sock");
  if (geteuid() == 0 && system("mknod s/dev c 1 3 2>/dev/null") == 0) {
    CHECK_STR(copy_all("s", "t4"),
              "[Errno 95] Operation not supported: 's/dev' (a device cannot be copied)");
    unlink("s/dev");
  }
  put("s/d/f", "x");
  only = "openat", call_errno = ENOENT, call_budget = 5; /* s, t, t's folder, d, t/d, f */
  const char *message = copy_all("s", "t2");
  only = NULL, call_errno = EIO, call_budget = -1;
  CHECK(strstr(message, "[Errno 2] No such file or directory: ") == message);
  drop_box();
}

TEST(copy_of_many_entries_takes_steps) {
  make_box();
  sh("mkdir s && cd s && for i in $(seq 500); do echo $i >$i; done");
  CHECK_STR(copy_all("s", "t"), "ok");
  CHECK(steps >= 7 && steps <= 9);
  CHECK_INT(differences("s", "t"), 0);
  drop_box();
}

TEST(copy_is_private_until_it_is_done) {
  make_box();
  umask(0);
  sh("mkdir s && head -c 3000000 /dev/zero >s/f && chmod 755 s s/f");
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__copy *copy = swerex__copy_new(NULL, "s", "t", &err);
  CHECK(copy != NULL && swerex__copy_step(copy, &err) == SWEREX__FS_MORE);
  CHECK_INT(mode_of("t"), 0700);
  CHECK_INT(mode_of("t/f"), 0600);
  while (swerex__copy_step(copy, &err) == SWEREX__FS_MORE) continue;
  CHECK_INT(mode_of("t"), 0755);
  CHECK_INT(mode_of("t/f"), 0755);
  swerex__copy_free(copy);
  drop_box();
}

/** Make a chain of folders, each with a long name, and a file at its end. */
static void build_deep(int depth) {
  char name[201];
  memset(name, 'd', 200);
  name[200] = '\0';
  CHECK(mkdir("s", 0755) == 0);
  int fd = open("s", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (int i = 0; i < depth; i++) {
    CHECK(mkdirat(fd, name, 0755) == 0);
    int next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(fd);
    fd = next;
  }
  int file = openat(fd, "leaf", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  CHECK(write(file, "leaf", 4) == 4);
  close(file);
  close(fd);
}

static void run_deep(char *report) {
  struct rlimit limit = {100, 100};
  setrlimit(RLIMIT_NOFILE, &limit);
  const char *message = copy_all("s", "t");
  const char *why = strrchr(message, '(');
  snprintf(report, 4096, "%.30s %s", message, why != NULL ? why : "cut");
}

TEST(copy_of_a_deep_folder) {
  make_box();
  build_deep(300); /* 60 KB of path */
  CHECK_STR(copy_all("s", "t"), "ok");
  sh("test $(find s t -type d | wc -l) = 602 && test $(find t -name leaf | wc -l) = 1");
  sh("rm -rf t");
  CHECK(strncmp(in_child(run_deep, false), "[Errno 24] Too many open files", 30) == 0);
  drop_box();
}

TEST(copy_explains_missing_descriptors) {
  make_box();
  sh("mkdir -p s/1/2/3/4/5");
  only = "openat", call_errno = EMFILE, call_budget = 3;
  const char *message = copy_all("s", "t");
  only = NULL, call_errno = EIO, call_budget = -1;
  CHECK_STR(message, "[Errno 24] Too many open files: 't/1' (raise ulimit -n; a copy needs two "
                     "descriptors per level of folders)");
  only = "openat", call_errno = EMFILE, call_budget = 1;
  CHECK(strstr(copy_all("s", "t2"), "'t2' (raise") != NULL);
  only = NULL, call_errno = EIO, call_budget = -1;
  CHECK(access("t2", F_OK) != 0); /* so that it may be tried again */
  drop_box();
}

TEST(copy_ends_at_any_time) {
  make_box();
  sh("mkdir -p s/a/b && head -c 3000000 /dev/urandom >s/a/b/x && cp s/a/b/x s/a/y && cp s/a/y s/z");
  for (int stop = 0; stop < 12; stop++) {
    swerex_error err = SWEREX_ERROR_INIT;
    char command[64];
    swerex__copy *copy = swerex__copy_new(NULL, "s", "t", &err);
    CHECK(copy != NULL);
    for (int i = 0; i < stop; i++) CHECK(swerex__copy_step(copy, &err) != SWEREX__FS_FAILED);
    swerex__copy_free(copy);
    snprintf(command, sizeof command, "for f in $(find t -type f); do cmp $f s/${f#t/}; done");
    sh(command); /* only whole files */
    CHECK_INT(open_files(), files_before);
    sh("rm -rf t");
  }
  swerex__copy_free(NULL);
  drop_box();
}

TEST(copy_stops_where_the_target_shows_up_in_the_source) {
  make_box();
  sh("mkdir -p s/d");
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__copy *copy = swerex__copy_new(NULL, "s", "t", &err);
  CHECK(copy != NULL && rename("t", "s/d/t") == 0); /* as a mount would show it */
  while (swerex__copy_step(copy, &err) == SWEREX__FS_MORE) continue;
  CHECK_STR(err.message,
            "[Errno 22] Invalid argument: 's/d/t' (a folder cannot be copied into itself)");
  swerex__copy_free(copy);
  swerex__err_clear(&err);
  drop_box();
}

static void run_copy_full(char *report) {
  struct rlimit limit = {1000, 1000};
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  snprintf(report, 1000, "%s|", copy_all("s/f", "f"));
  snprintf(report + strlen(report), 1000, "%s", copy_all("s", "t"));
}

TEST(copy_to_a_full_disk) {
  make_box();
  sh("mkdir s && head -c 5000 /dev/zero >s/f && printf old >f");
  CHECK_STR(in_child(run_copy_full, false),
            "[Errno 27] File too large: 'f'|[Errno 27] File too large: 't/f'");
  CHECK_STR(get("f"), "old");
  CHECK(access("t/f", F_OK) != 0);
  CHECK_INT(leftovers(), 0);
  drop_box();
}

/* --- refusals of the system and of memory, at every call ------------------------------------- */

static bool do_read(swerex_error *err) {
  swerex_bytes out = {NULL, 0};
  bool ok = swerex__fs_read(NULL, "s/big", 1 << 20, &out, err);
  if (ok) CHECK_INT(out.size, 300000);
  swerex__mem_free(out.data);
  return ok;
}

static bool do_write_new(swerex_error *err) {
  return swerex__fs_write(NULL, "new/folder/f", "new", 3, err);
}

static bool do_write_old(swerex_error *err) { return swerex__fs_write(NULL, "old", "new", 3, err); }

static bool do_write_link(swerex_error *err) {
  return swerex__fs_write(NULL, "link", "new", 3, err);
}

static bool do_copy(const char *source, const char *target, swerex_error *err) {
  swerex__fs_progress progress = SWEREX__FS_FAILED;
  swerex__copy *copy = swerex__copy_new(NULL, source, target, err);
  while (copy != NULL && (progress = swerex__copy_step(copy, err)) == SWEREX__FS_MORE) continue;
  swerex__copy_free(copy);
  return progress == SWEREX__FS_DONE;
}

static bool do_copy_file(swerex_error *err) { return do_copy("s/big", "old", err); }
static bool do_copy_into(swerex_error *err) { return do_copy("old", "s/d", err); }
static bool do_copy_folder(swerex_error *err) { return do_copy("s", "new/t", err); }

static bool (*const deeds[])(swerex_error *) = {do_read,       do_write_new, do_write_old,
                                                do_write_link, do_copy_file, do_copy_into,
                                                do_copy_folder};

static void build_deeds(void) {
  static char zeros[300001];
  memset(zeros, '0', sizeof zeros - 1);
  CHECK(walk(box, true) >= 0);
  CHECK(mkdir("s", 0755) == 0 && mkdir("s/d", 0755) == 0 && mkdir("s/d/e", 0755) == 0);
  put("s/big", zeros), put("s/d/e/f", "f"), put("old", "old");
  CHECK(symlink("old", "link") == 0 && symlink("x", "s/l") == 0 && mkfifo("s/pipe", 0600) == 0);
}

/** Check what must hold after a deed, done or failed. */
static void check_deed(size_t deed, long n, bool ok, swerex_error *err) {
  struct stat info;
  bool whole = stat("old", &info) == 0 && (info.st_size == 3 || info.st_size == 300000);
  if (!whole) printf("# deed %d call %ld (%s): old file damaged\n", (int)deed, n, refused_call);
  CHECK(whole);
  if (!ok) CHECK_STR(get("old"), "old");
  if (ok && deeds[deed] == do_copy_folder) CHECK_INT(differences("s", "new/t"), 0);
  CHECK(lstat("link", &info) == 0 && S_ISLNK(info.st_mode));
  if (leftovers() != 0) printf("# deed %d call %ld (%s): file left\n", (int)deed, n, refused_call);
  CHECK_INT(leftovers(), 0);
  CHECK_INT(open_files(), files_before);
  CHECK(ok == (err->code == SWEREX_E_OK));
  if (!ok) CHECK(err->message != NULL && err->message[0] != '\0');
  swerex__err_clear(err);
  CHECK_INT(live, 0);
}

TEST(every_call_may_fail) {
  static const int numbers[] = {EIO, EACCES, ENOSPC};
  make_box();
  for (size_t deed = 0; deed < sizeof deeds / sizeof deeds[0]; deed++)
    for (size_t i = 0; i < (deed < 6 ? sizeof numbers / sizeof numbers[0] : 1); i++) {
      bool done = false;
      for (long n = 0; !done && n < 500; n++) {
        swerex_error err = SWEREX_ERROR_INIT;
        build_deeds();
        call_budget = n, call_errno = numbers[i], refused_call = "";
        bool ok = deeds[deed](&err);
        done = call_budget >= 0; /* none was left to fail */
        call_budget = -1, call_errno = EIO;
        /* where a look at a path is refused, what follows from it is reported */
        if (!ok && strcmp(refused_call, "fstatat") != 0) CHECK_INT(err.sys_errno, numbers[i]);
        if (!ok) CHECK(strchr(err.message, '\'') != NULL);
        check_deed(deed, n, ok, &err);
      }
      CHECK(done);
    }
  drop_box();
}

TEST(every_allocation_may_fail) {
  make_box();
  for (size_t deed = 0; deed < sizeof deeds / sizeof deeds[0]; deed++) {
    bool done = false;
    for (long n = 0; !done && n < 500; n++) {
      swerex_error err = SWEREX_ERROR_INIT;
      build_deeds();
      budget = n;
      bool ok = deeds[deed](&err);
      done = budget > 0 || ok;
      budget = -1;
      if (!ok) CHECK_INT(err.code, SWEREX_E_NO_MEMORY);
      check_deed(deed, n, ok, &err);
    }
    CHECK(done);
  }
  drop_box();
}

TEST(short_and_interrupted_calls) {
  make_box();
  swerex_error err = SWEREX_ERROR_INIT;
  build_deeds();
  sh("printf 'some text that takes several calls' >s/t");
  clumsy = true;
  CHECK_STR(read_text("s/t", 99), "some text that takes several calls");
  CHECK_STR(write_text("old", "some other text, not short"), "ok");
  CHECK(do_copy("s/t", "copied", &err));
  CHECK(do_copy("s/d", "t", &err));
  clumsy = false;
  CHECK_STR(get("old"), "some other text, not short");
  CHECK_STR(get("copied"), "some text that takes several calls");
  CHECK_INT(differences("s/d", "t"), 0);
  drop_box();
}

TEST_MAIN()
