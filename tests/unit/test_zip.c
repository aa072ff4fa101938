/* Deflate and inflate against Python's zlib, archives against Python's zipfile, and all that an
 * archive is refused for. */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

#include <ftw.h>

/* --- the sections' calls, in one shape for both directions --- */

enum { SWEREX__ZIP_TAIL = 22 };
#define SWEREX__ZIP_LOCAL_SIGN 0x04034B50U
#define SWEREX__ZIP_CENTRAL_SIGN 0x02014B50U
#define SWEREX__ZIP_TAIL_SIGN 0x06054B50U
#define SWEREX__ZIP_TAIL64_SIGN 0x06064B50U
#define SWEREX__ZIP_LOCATOR_SIGN 0x07064B50U
#define SWEREX__ZIP_MORE SWEREX__INFLATE_MORE
#define SWEREX__ZIP_DONE SWEREX__INFLATE_DONE
#define SWEREX__ZIP_BROKEN SWEREX__INFLATE_BROKEN
#define swerex__zip_flow swerex__inflate_status
#define swerex__zip_inflate swerex__inflate
#define swerex__zip_inflate_init swerex__inflate_init
#define swerex__zip_inflate_run swerex__inflate_run

static uint32_t swerex__zip_crc(uint32_t sum, const void *data, size_t size) {
  static swerex__deflate_crc crc;
  if (crc.table[0][1] == 0) swerex__deflate_crc_init(&crc);
  return swerex__deflate_crc_add(&crc, sum, data, size);
}

typedef struct swerex__zip_deflate {
  swerex__deflate state;
  swerex__str out;
  size_t given;
  bool finished;
} swerex__zip_deflate;

static void swerex__zip_deflate_init(swerex__zip_deflate *z) {
  swerex__str_clear(&z->out);
  z->out = swerex__str_new(NULL, SIZE_MAX / 2);
  swerex__deflate_init(&z->state, &z->out);
  z->given = 0;
  z->finished = false;
}

static swerex__inflate_status swerex__zip_deflate_run(swerex__zip_deflate *z, const unsigned char *in,
                                                      size_t *in_size, unsigned char *out,
                                                      size_t *out_size, bool finish) {
  if (!z->finished) swerex__deflate_add(&z->state, in, *in_size, finish);
  z->finished = finish;
  size_t size = z->out.size - z->given < *out_size ? z->out.size - z->given : *out_size;
  if (size > 0) memcpy(out, z->out.data + z->given, size);
  z->given += size;
  *out_size = size;
  bool done = z->finished && z->given == z->out.size;
  if (done) swerex__str_clear(&z->out), z->given = 0;
  return done ? SWEREX__INFLATE_DONE : SWEREX__INFLATE_MORE;
}

static uint32_t dice_state = 1;

/** Return a number below `sides`, the same ones in each run. */
static size_t dice(size_t sides) {
  dice_state = dice_state * 1103515245U + 12345U;
  return (dice_state >> 8) % sides;
}

/* --- places and programs --- */

static char place[64]; /* a folder for the present test */

static int drop(const char *path, const struct stat *info, int kind, struct FTW *at) {
  (void)info, (void)kind, (void)at;
  return remove(path);
}

static int open_up(const char *path, const struct stat *info, int kind, struct FTW *at) {
  (void)info, (void)at;
  return kind == FTW_D ? chmod(path, 0700) : 0;
}

static void leave(void) {
  nftw(place, open_up, 300, FTW_PHYS);
  nftw(place, drop, 300, FTW_DEPTH | FTW_PHYS);
}

static void enter(void) {
  snprintf(place, sizeof place, "/tmp/swerex-zip-%ld", (long)getpid());
  leave();
  CHECK(mkdir(place, 0700) == 0);
}

/** A path in the folder; four live at a time. */
static const char *in(const char *name) {
  static char paths[4][8192];
  static int next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", place, name);
  return path;
}

static void put(const char *name, const void *data, size_t size, mode_t mode) {
  int fd = open(in(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0 && swerex__sys_write_all(fd, (const char *)data, size) && fchmod(fd, mode) == 0);
  close(fd);
}

static swerex__str get(const char *name) {
  swerex__str text = swerex__str_new(NULL, (size_t)1 << 28);
  int fd = open(in(name), O_RDONLY | O_NOFOLLOW);
  ssize_t n = 1;
  CHECK(fd >= 0);
  while (fd >= 0 && n > 0) {
    char *room = swerex__str_reserve(&text, 65536);
    n = read(fd, room, 65536);
    text.size += n > 0 ? (size_t)n : 0;
  }
  swerex__str_add(&text, "", 0);
  close(fd);
  return text;
}

/** Run a script in the folder; -1: there is no python3. */
static int python(const char *script) {
  char command[128];
  if (system("python3 -c 'import zipfile, zlib' 2>/dev/null") != 0) return -1;
  put("script.py", script, strlen(script), 0600);
  snprintf(command, sizeof command, "cd %s && python3 script.py", place);
  return system(command) == 0 ? 0 : 1;
}

#define PYTHON(script)                                                                             \
  do {                                                                                             \
    int status_ = python(script);                                                                  \
    if (status_ < 0) {                                                                             \
      leave();                                                                                     \
      SKIP("no python3");                                                                          \
    }                                                                                              \
    CHECK_INT(status_, 0);                                                                         \
  } while (0)

/* --- data --- */

enum { KINDS = 7 };

/** Make data of a kind: noise, words, runs, few values, far repeats, zeros, mixed. */
static swerex__str make_data(int kind, size_t size) {
  static const char *const words[] = {"return ", "static ", "int ", "x", " = ", ";\n", "  if (",
                                      "swerex", "0x1f", "while"};
  swerex__str text = swerex__str_new(NULL, (size_t)1 << 26);
  while (text.size < size) {
    int how = kind < KINDS - 1 ? kind : (int)dice(KINDS - 1);
    size_t piece = 1 + dice(300);
    if (how == 1) {
      swerex__str_puts(&text, words[dice(10)]);
    } else if (how == 4 && text.size > 40000) {
      size_t back = 1 + dice(40000);
      for (size_t i = 0; i < piece; i++) swerex__str_putc(&text, text.data[text.size - back]);
    } else {
      char c = (char)dice(256);
      for (size_t i = 0; i < piece; i++)
        swerex__str_putc(&text, how == 2   ? c
                                : how == 3 ? (char)('a' + dice(3))
                                : how == 5 ? '\0'
                                           : (char)dice(256));
    }
  }
  swerex__str_add(&text, "", 0);
  text.size = size;
  return text;
}

/** Run with pieces of up to `step` bytes; 0: of any size. */
static size_t step_of(size_t step) {
  return step > 0 ? step : dice(4) == 0 ? dice(100000) : dice(20);
}

static swerex__str deflate(const char *data, size_t size, size_t step) {
  swerex__zip_deflate *z = (swerex__zip_deflate *)swerex__mem_new(NULL, 1, sizeof *z);
  swerex__str out = swerex__str_new(NULL, (size_t)1 << 27);
  swerex__zip_flow flow = SWEREX__ZIP_MORE;
  swerex__zip_deflate_init(z);
  for (size_t at = 0; flow == SWEREX__ZIP_MORE;) {
    size_t used = step_of(step), made = step_of(step);
    if (used > size - at) used = size - at;
    bool last = at + used == size;
    unsigned char *room = (unsigned char *)swerex__str_reserve(&out, made);
    flow = swerex__zip_deflate_run(z, (const unsigned char *)data + at, &used, room, &made, last);
    at += used;
    out.size += made;
  }
  swerex__mem_free(z);
  return out;
}

/** Inflate; the output has at most `most` bytes. */
static swerex__zip_flow inflate(const char *data, size_t size, size_t step, size_t most,
                                swerex__str *out, size_t *used_all) {
  swerex__zip_inflate *z = (swerex__zip_inflate *)swerex__mem_grow(NULL, NULL, 1, sizeof *z);
  swerex__zip_flow flow = SWEREX__ZIP_MORE;
  *out = swerex__str_new(NULL, (size_t)1 << 27);
  memset(z, 0xA5, sizeof *z);
  swerex__zip_inflate_init(z);
  size_t at = 0, made = 1;
  while (flow == SWEREX__ZIP_MORE && out->size <= most) {
    size_t used = step_of(step), room = step_of(step);
    if (used > size - at) used = size - at;
    unsigned char *exact_in = (unsigned char *)malloc(used + 1), *exact = malloc(room + 1);
    memcpy(exact_in, data + at, used);
    made = room;
    flow = swerex__zip_inflate_run(z, exact_in, &used, exact, &made);
    swerex__str_add(out, (char *)exact, made);
    free(exact_in);
    free(exact);
    at += used;
    if (made == 0 && room > 0 && at == size && used == 0) break;
  }
  *used_all = at;
  swerex__mem_free(z);
  return flow;
}

static const size_t steps[] = {1, 2, 7, 64, 300, 4096, 65536, 1000000, 0};

TEST(crc_is_that_of_everyone) {
  char data[300];
  CHECK_INT(swerex__zip_crc(0, "123456789", 9), 0xCBF43926);
  CHECK_INT(swerex__zip_crc(0, "", 0), 0);
  for (size_t i = 0; i < sizeof data; i++) data[i] = (char)dice(256);
  uint32_t slow = 0xFFFFFFFFU;
  for (size_t i = 0; i < sizeof data; i++) {
    slow ^= (unsigned char)data[i];
    for (int bit = 0; bit < 8; bit++) slow = slow & 1U ? slow >> 1 ^ 0xEDB88320U : slow >> 1;
    CHECK_INT(swerex__zip_crc(0, data, i + 1), ~slow);
    CHECK_INT(swerex__zip_crc(swerex__zip_crc(0, data, i / 3), data + i / 3, i + 1 - i / 3), ~slow);
  }
}

TEST(deflated_data_comes_back) {
  static const size_t sizes[] = {0, 1, 2, 3, 4, 5, 100, 32768, 65535, 65536, 131070, 300000};
  for (int kind = 0; kind < KINDS; kind++)
    for (size_t i = 0; i < SWEREX__SYS_COUNT(sizes); i++)
      for (size_t k = 0; k < SWEREX__SYS_COUNT(steps); k++) {
        if (sizes[i] > 1000 && k != i % 4 && k != 4 + i % 5) continue; /* in small and in large steps */
        swerex__str data = make_data(kind, sizes[i]), out;
        swerex__str packed = deflate(data.data, data.size, steps[k]);
        size_t used;
        swerex__str_add(&packed, "behind", 6);
        CHECK_INT(inflate(packed.data, packed.size, steps[k], SIZE_MAX, &out, &used),
                  SWEREX__ZIP_DONE);
        CHECK(used + 6 >= packed.size); /* it may read ahead */
        CHECK(out.size == data.size && memcmp(out.data, data.data, data.size) == 0);
        swerex__str_clear(&data);
        swerex__str_clear(&packed);
        swerex__str_clear(&out);
      }
}

TEST(python_reads_deflated_data) {
  enter();
  for (int kind = 0; kind < KINDS; kind++) {
    char name[32];
    swerex__str data = make_data(kind, 250000), packed = deflate(data.data, data.size, 0);
    snprintf(name, sizeof name, "%d.raw", kind);
    put(name, data.data, data.size, 0600);
    snprintf(name, sizeof name, "%d.packed", kind);
    put(name, packed.data, packed.size, 0600);
    swerex__str_clear(&data);
    swerex__str_clear(&packed);
  }
  PYTHON("import zlib\n"
         "for k in range(7):\n"
         "  d = zlib.decompressobj(-15)\n"
         "  raw, packed = (open('%d.%s' % (k, e), 'rb').read() for e in ('raw', 'packed'))\n"
         "  assert d.decompress(packed) + d.flush() == raw and d.eof and not d.unused_data, k\n"
         "  best = len(zlib.compress(raw, 6))\n"
         "  assert len(packed) <= best * 1.1 + 20, (k, len(packed), best)\n");
  leave();
}

TEST(what_python_deflates_is_read) {
  enter();
  for (int kind = 0; kind < KINDS; kind++) {
    char name[32];
    swerex__str data = make_data(kind, 200000);
    snprintf(name, sizeof name, "%d.raw", kind);
    put(name, data.data, data.size, 0600);
    swerex__str_clear(&data);
  }
  PYTHON("import zlib\n"
         "for k in range(7):\n"
         "  raw = open('%d.raw' % k, 'rb').read()\n"
         "  for i, (level, how) in enumerate([(0, 0), (1, 0), (6, 0), (9, 1), (6, 2), (6, 3),\n"
         "                                    (6, 4)]):\n"
         "    c = zlib.compressobj(level, zlib.DEFLATED, -15, 9 if i % 2 else 1, how)\n"
         "    out = c.compress(raw[:100]) + c.flush(zlib.Z_SYNC_FLUSH) + c.compress(raw[100:])\n"
         "    open('%d.%d' % (k, i), 'wb').write(out + c.flush())\n");
  for (int kind = 0; kind < KINDS; kind++)
    for (int i = 0; i < 7; i++) {
      char name[32];
      size_t used;
      snprintf(name, sizeof name, "%d.raw", kind);
      swerex__str raw = get(name), out;
      snprintf(name, sizeof name, "%d.%d", kind, i);
      swerex__str packed = get(name);
      CHECK_INT(inflate(packed.data, packed.size, steps[(size_t)(kind + i) % 9], SIZE_MAX, &out,
                        &used), SWEREX__ZIP_DONE);
      CHECK(used == packed.size && out.size == raw.size);
      CHECK(memcmp(out.data, raw.data, raw.size) == 0);
      swerex__str_clear(&raw), swerex__str_clear(&packed), swerex__str_clear(&out);
    }
  leave();
}

/** Inflate bits given as text, lowest first; blanks do not count. */
static swerex__zip_flow inflate_bits(const char *bits) {
  char data[512] = "";
  size_t count = 0, used;
  swerex__str out;
  for (; *bits != '\0'; bits++) {
    if (*bits == ' ') continue;
    if (*bits == '1') data[count / 8] = (char)(data[count / 8] | 1 << count % 8);
    count++;
  }
  swerex__zip_flow flow = inflate(data, (count + 7) / 8, 4096, 1 << 20, &out, &used);
  swerex__zip_flow again;
  swerex__str_clear(&out);
  again = inflate(data, (count + 7) / 8, 1, 1 << 20, &out, &used);
  swerex__str_clear(&out);
  CHECK_INT(flow, again);
  return flow;
}

TEST(malformed_deflate_is_refused) {
  CHECK_INT(inflate_bits("1 10 0000000"), SWEREX__ZIP_DONE);           /* fixed, empty */
  CHECK_INT(inflate_bits("1 11 00000 00000000"), SWEREX__ZIP_BROKEN);  /* no such type */
  CHECK_INT(inflate_bits("1 00 00000 0000000000000000 1111111111111110"), SWEREX__ZIP_BROKEN);
  CHECK_INT(inflate_bits("1 00 00000 0000000000000000 1111111111111111"), SWEREX__ZIP_DONE);
  CHECK_INT(inflate_bits("1 10 11000110 000000000000000000000000"), SWEREX__ZIP_BROKEN); /* 286 */
  CHECK_INT(inflate_bits("1 10 0000001 00000 0000000 000000000"), SWEREX__ZIP_BROKEN); /* far */
  CHECK_INT(inflate_bits("1 10 00110000 0000001 00000 0000000"), SWEREX__ZIP_DONE); /* near */
  CHECK_INT(inflate_bits("1 10 00110000 0000001 00001 0000000000000000"), SWEREX__ZIP_BROKEN);
  CHECK_INT(inflate_bits("1 10 00110000 0000001 11110 00000000000"), SWEREX__ZIP_BROKEN); /* 30 */
  CHECK_INT(inflate_bits("1 01 11111 00000 0000 000000000000000000"), SWEREX__ZIP_BROKEN); /* 288 */
  CHECK_INT(inflate_bits("1 01 00000 01111 0000 000000000000000000"), SWEREX__ZIP_BROKEN); /* 31 */
  CHECK_INT(inflate_bits("1 01 00000 00000 0000 100 100 100 000 0000000"), SWEREX__ZIP_BROKEN);
  CHECK_INT(inflate_bits("1 01 00000 00000 0000 100 000 000 000 0000000"), SWEREX__ZIP_BROKEN);
  CHECK_INT(inflate_bits("1 01 00000 00000 0000 010 010 010 000 0000000"), SWEREX__ZIP_BROKEN);
  /* codes 16 and 0: a repetition with nothing before it */
  CHECK_INT(inflate_bits("1 01 00000 00000 0000 100 000 000 100 1 00 0000000000000"),
            SWEREX__ZIP_BROKEN);
  /* codes 18 and 0: no end of block */
  CHECK_INT(inflate_bits("1 01 00000 00000 0000 000 000 100 100 1 1111111 1 1101011 000000"),
            SWEREX__ZIP_BROKEN);
  CHECK_INT(inflate_bits("1 01 00000 00000 0000 000 000 100 100 1 1111111 1 1111111 000000"),
            SWEREX__ZIP_BROKEN); /* a run over the end */
  CHECK_INT(inflate_bits("1"), SWEREX__ZIP_MORE);
}

/* --- archives --- */

/** Pack a folder with pieces of `step` bytes. */
static bool pack(const char *folder, size_t step, swerex__str *out, swerex_error *err) {
  swerex__zip_pack *p = swerex__zip_pack_new(NULL, folder, err);
  size_t got = 1;
  bool ok = p != NULL;
  *out = swerex__str_new(NULL, (size_t)1 << 28);
  while (ok && got > 0) {
    char *room = swerex__str_reserve(out, step);
    ok = swerex__zip_pack_read(p, room, step, &got, err);
    out->size += got;
  }
  swerex__zip_pack_free(p);
  return ok;
}

static bool unpack_fd(int fd, const char *target, const swerex__unzip_limits *limits,
                      swerex_error *err) {
  swerex__err_clear(err);
  swerex__unzip *u = swerex__unzip_new(NULL, fd, target, limits, err);
  swerex__fs_progress progress = u == NULL ? SWEREX__FS_FAILED : SWEREX__FS_MORE;
  while (progress == SWEREX__FS_MORE) progress = swerex__unzip_step(u, err);
  swerex__unzip_free(u);
  CHECK((progress == SWEREX__FS_FAILED) == (err->code != SWEREX_E_OK));
  return progress == SWEREX__FS_DONE;
}

static bool unpack(const char *data, size_t size, const char *target,
                   const swerex__unzip_limits *limits, swerex_error *err) {
  put("archive.zip", data, size, 0600);
  int fd = open(in("archive.zip"), O_RDONLY);
  bool ok = unpack_fd(fd, target, limits, err);
  close(fd);
  return ok;
}

/** Count the steps that it takes. */
static int count_steps(const char *data, size_t size) {
  swerex_error err = SWEREX_ERROR_INIT;
  put("archive.zip", data, size, 0600);
  int fd = open(in("archive.zip"), O_RDONLY), steps = 1;
  swerex__unzip *u = swerex__unzip_new(NULL, fd, in("out"), NULL, &err);
  CHECK(u != NULL);
  for (; u != NULL && swerex__unzip_step(u, &err) == SWEREX__FS_MORE;) steps++;
  CHECK(err.code == SWEREX_E_OK);
  swerex__unzip_free(u);
  close(fd);
  return steps;
}

static void check_same(const char *a, const char *b) {
  static const char list[] = "find . -printf '%y %m %T@ %p %l\\n' |"
                             " sed 's/\\.[0-9]* / /; / \\. *$/d' | sort >";
  char command[1024];
  snprintf(command, sizeof command,
           "cd %s && diff -r --no-dereference %s %s && cd %s && %s ../list.a && cd ../%s && "
           "%s ../list.b && cd .. && diff list.a list.b | head -n 20 >&2 && cmp list.a list.b",
           place, a, b, a, list, b, list);
  CHECK_INT(system(command), 0);
}

/** A tree with all that can be packed. */
static void make_tree(void) {
  static const int seconds[] = {1, 86400 * 365, 1000000007, 1700000001};
  char name[64];
  CHECK(mkdir(in("tree"), 0755) == 0 && mkdir(in("tree/empty"), 0750) == 0);
  CHECK(mkdir(in("tree/a"), 0755) == 0 && mkdir(in("tree/a/b"), 0755) == 0);
  for (int kind = 0; kind < KINDS; kind++) {
    swerex__str data = make_data(kind, (size_t)kind * 40000);
    snprintf(name, sizeof name, "tree/a/%d", kind);
    put(name, data.data, data.size, kind % 2 == 0 ? 0644 : 0755);
    struct timespec times[2] = {{0, UTIME_NOW}, {seconds[kind % 4], 0}};
    CHECK(utimensat(AT_FDCWD, in(name), times, 0) == 0);
    swerex__str_clear(&data);
  }
  put("tree/h\xC3\xA9 \xE2\x82\xAC", "name", 4, 0600);
  put("tree/a/back\\slash", "x", 1, 0640);
  put("tree/read only", "x", 1, 0444);
  put("tree/-", "", 0, 0600);
  CHECK(symlink("a/b", in("tree/to b")) == 0 && symlink("../1", in("tree/a/b/up")) == 0);
  CHECK(symlink("nowhere", in("tree/a/dangling")) == 0);
  CHECK(mkdir(in("tree/locked"), 0755) == 0);
  put("tree/locked/x", "y", 1, 0600);
  CHECK(chmod(in("tree/locked"), 0555) == 0);
}

TEST(python_reads_the_archive) {
  swerex__str out;
  swerex_error err = SWEREX_ERROR_INIT;
  enter();
  make_tree();
  CHECK(pack(in("tree"), 5000, &out, &err));
  put("our.zip", out.data, out.size, 0600);
  swerex__str_clear(&out);
  PYTHON("import zipfile, os, stat, time\n"
         "z = zipfile.ZipFile('our.zip')\n"
         "assert z.testzip() is None\n"
         "seen = set()\n"
         "for i in z.infolist():\n"
         "  path = 'tree/' + i.filename\n"
         "  s = os.lstat(path)\n"
         "  seen.add(path.rstrip('/'))\n"
         "  assert i.external_attr >> 16 == s.st_mode, i\n"
         "  assert i.create_system == 3 and i.is_dir() == stat.S_ISDIR(s.st_mode)\n"
         "  assert i.flag_bits & 0x800\n"
         "  t = time.localtime(s.st_mtime)\n"
         "  if t.tm_year >= 1980: assert i.date_time == t[:5] + (t[5] // 2 * 2,), i\n"
         "  link = stat.S_ISLNK(s.st_mode)\n"
         "  want = os.readlink(path).encode() if link else b'' if i.is_dir() \\\n"
         "    else open(path, 'rb').read()\n"
         "  assert z.read(i) == want and i.file_size == len(want), i\n"
         "have = {os.path.join(d, n) for d, ds, fs in os.walk('tree') for n in ds + fs}\n"
         "assert have == seen, have ^ seen\n");
  leave();
}

TEST(archive_of_python_is_read) {
  swerex_error err = SWEREX_ERROR_INIT;
  enter();
  make_tree();
  PYTHON("import zipfile, os, shutil\n"
         "for d in ('to b', 'a/b/up', 'a/dangling'): os.remove('tree/' + d)\n"
         "for i in range(7): os.utime('tree/a/%d' % i, (1e9, 1e9))\n" /* 1980 or later */
         "shutil.make_archive('a', 'zip', 'tree')\n"
         "with zipfile.ZipFile('b.zip', 'w', zipfile.ZIP_STORED) as z:\n"
         "  z.comment = b'hello PK\\x05\\x06 ' * 3000\n"
         "  for d, ds, fs in os.walk('tree'):\n"
         "    for n in ds + fs: z.write(os.path.join(d, n), os.path.join(d, n)[5:])\n"
         "open('c.zip', 'wb').write(b'#!/bin/sh\\n' + open('b.zip', 'rb').read())\n"
         "with zipfile.ZipFile('d.zip', 'w', zipfile.ZIP_DEFLATED) as z:\n"
         "  for d, ds, fs in os.walk('tree'):\n"
         "    for n in fs:\n"
         "      with z.open(os.path.join(d, n)[5:], 'w', force_zip64=True) as f:\n"
         "        f.write(open(os.path.join(d, n), 'rb').read())\n"
         "zipfile.ZipFile('e.zip', 'w').close()\n");
  for (char c = 'a'; c <= 'e'; c++) {
    char archive[16] = {c, '.', 'z', 'i', 'p', 0}, target[8] = {'o', c, 0}, command[256];
    int fd = open(in(archive), O_RDONLY);
    CHECK(unpack_fd(fd, in(target), NULL, &err));
    CHECK_STR(err.message == NULL ? "" : err.message, "");
    close(fd);
    snprintf(command, sizeof command,
             "cd %s && rmdir tree/empty tree/a/b o%c/empty o%c/a/b 2>/dev/null; "
             "diff -r tree o%c", place, c, c, c);
    if (c < 'e') CHECK_INT(system(command), 0);
    if (c < 'd') CHECK_INT(access(in("tree/a/1"), X_OK), 0);
    swerex__err_clear(&err);
  }
  leave();
}

TEST(names_that_are_not_utf8_come_back) {
  swerex__str out;
  swerex_error err = SWEREX_ERROR_INIT;
  enter();
  CHECK(mkdir(in("tree"), 0700) == 0);
  put("tree/\xFF\xFE", "x", 1, 0600);
  put("tree/\xED\xA0\x80", "x", 1, 0600);
  CHECK(pack(in("tree"), 4096, &out, &err));
  put("our.zip", out.data, out.size, 0600);
  CHECK(unpack(out.data, out.size, in("out"), NULL, &err));
  check_same("tree", "out");
  swerex__str_clear(&out);
  PYTHON("import zipfile\nassert len(zipfile.ZipFile('our.zip').namelist()) == 2\n");
  leave();
}

/* --- archives made by hand --- */

typedef struct item {
  const char *name;
  const char *data;
  unsigned mode;
  size_t name_size, local_extra;     /* 0: strlen; bytes of extra in the local header */
  unsigned method, flags, made_by;   /* made_by 0: Unix */
  uint64_t size, packed, offset;     /* to claim; 0: the true ones */
  const char *local_name;            /* another than in the directory */
  uint32_t crc;                      /* added to the true one */
  unsigned disk;
  const char *extra; size_t extra_size; /* in the directory */
} item;

static swerex__str hand_made(const item *items, size_t count) {
  swerex__str out = swerex__str_new(NULL, (size_t)1 << 26), list = out;
  for (size_t i = 0; i < count; i++) {
    const item *it = &items[i];
    const char *data = it->data == NULL ? "" : it->data;
    size_t name_size = it->name_size > 0 ? it->name_size : strlen(it->name);
    const char *local = it->local_name != NULL ? it->local_name : it->name;
    size_t local_size = it->local_name != NULL ? strlen(local) : name_size, size = strlen(data);
    swerex__str body = swerex__str_new(NULL, (size_t)1 << 24);
    if (it->method == 8)
      body = deflate(data, size, 4096);
    else
      swerex__str_add(&body, data, size);
    uint64_t offset = it->offset != 0 ? it->offset : out.size;
    uint32_t crc = swerex__zip_crc(0, data, size) + it->crc;
    for (int central = 0; central < 2; central++) {
      swerex__str *to = central ? &list : &out;
      swerex__zip_put(to, central ? SWEREX__ZIP_CENTRAL_SIGN : SWEREX__ZIP_LOCAL_SIGN, 4);
      if (central) swerex__zip_put(to, (it->made_by == 0 ? 3U : it->made_by - 1) << 8 | 20U, 2);
      swerex__zip_put(to, 20, 2);
      swerex__zip_put(to, it->flags, 2);
      swerex__zip_put(to, it->method, 2);
      swerex__zip_put(to, 0x5A210000U, 4);
      swerex__zip_put(to, crc, 4);
      swerex__zip_put(to, it->packed != 0 ? it->packed : body.size, 4);
      swerex__zip_put(to, it->size != 0 ? it->size : size, 4);
      swerex__zip_put(to, central ? name_size : local_size, 2);
      swerex__zip_put(to, central ? it->extra_size : it->local_extra, 2);
      if (central) {
        swerex__zip_put(to, 0, 2);
        swerex__zip_put(to, it->disk, 2);
        swerex__zip_put(to, 0, 2);
        swerex__zip_put(to, (uint64_t)it->mode << 16, 4);
        swerex__zip_put(to, offset, 4);
      }
      swerex__str_add(to, central ? it->name : local, central ? name_size : local_size);
      if (central && it->extra_size > 0) swerex__str_add(to, it->extra, it->extra_size);
      for (size_t k = 0; !central && k < it->local_extra; k++) swerex__zip_put(to, 0, 1);
      if (!central) swerex__str_add(to, body.data, body.size);
    }
    swerex__str_clear(&body);
  }
  size_t start = out.size;
  swerex__str_add(&out, list.data == NULL ? "" : list.data, list.size);
  swerex__zip_put(&out, SWEREX__ZIP_TAIL_SIGN, 4);
  swerex__zip_put(&out, 0, 4);
  swerex__zip_put(&out, count, 2);
  swerex__zip_put(&out, count, 2);
  swerex__zip_put(&out, list.size, 4);
  swerex__zip_put(&out, start, 4);
  swerex__zip_put(&out, 0, 2);
  swerex__str_clear(&list);
  return out;
}

/** Unpack, and expect a message; nothing may have been written. */
static void refuse(int line, const item *items, size_t count, const char *why) {
  swerex__str data = hand_made(items, count);
  swerex_error err = SWEREX_ERROR_INIT;
  bool ok = unpack(data.data, data.size, in("out"), NULL, &err);
  if (ok || strstr(err.message, why) == NULL || access(in("out"), F_OK) == 0 ||
      err.code != SWEREX_E_VALUE || strcmp(err.class_path, "zipfile.BadZipFile") != 0) {
    test_fault(__FILE__, line, why);
    printf("#   is %s\n", ok ? "no error" : err.message);
    leave();
    CHECK(mkdir(place, 0700) == 0);
  }
  swerex__str_clear(&data);
  swerex__err_clear(&err);
}

#define REFUSE(why, ...)                                                                           \
  do {                                                                                             \
    const item items_[] = {__VA_ARGS__};                                                           \
    refuse(__LINE__, items_, SWEREX__SYS_COUNT(items_), why);                                      \
  } while (0)

TEST(nothing_is_written_through_what_is_there) {
  const item items[] = {{.name = "file", .data = "new"}};
  const item below[] = {{.name = "folder/file", .data = "new"}};
  swerex__str one = hand_made(items, 1), two = hand_made(below, 1);
  swerex_error err = SWEREX_ERROR_INIT;
  enter();
  put("precious", "old", 3, 0600);
  CHECK(mkdir(in("out"), 0700) == 0 && mkdir(in("elsewhere"), 0700) == 0);
  CHECK(symlink("../precious", in("out/file")) == 0);
  CHECK(symlink("../elsewhere", in("out/folder")) == 0);
  CHECK(unpack(one.data, one.size, in("out"), NULL, &err));
  swerex__str text = get("precious"), made = get("out/file");
  CHECK_MEM(text.data, text.size, "old");
  CHECK_MEM(made.data, made.size, "new");
  CHECK(!unpack(two.data, two.size, in("out"), NULL, &err));
  CHECK(err.message != NULL && strstr(err.message, "out/folder/file") != NULL);
  CHECK(access(in("elsewhere/file"), F_OK) != 0);
  CHECK(link(in("precious"), in("out/hard")) == 0);
  const item hard = {.name = "hard", .data = "new"};
  swerex__str three = hand_made(&hard, 1);
  CHECK(unpack(three.data, three.size, in("out"), NULL, &err));
  swerex__str again = get("precious");
  CHECK_MEM(again.data, again.size, "old");
  swerex__str_clear(&one), swerex__str_clear(&two), swerex__str_clear(&three);
  swerex__str_clear(&text), swerex__str_clear(&made), swerex__str_clear(&again);
  swerex__err_clear(&err);
  leave();
}

TEST(a_file_in_the_place_of_a_folder_is_named) {
  const item folder = {.name = "f/"}, known = {.name = "d/", .mode = 0040700};
  swerex__str one = hand_made(&folder, 1), two = hand_made(&known, 1);
  swerex_error err = SWEREX_ERROR_INIT;
  struct stat info;
  enter();
  CHECK(mkdir(in("out"), 0700) == 0 && mkdir(in("out/d"), 0755) == 0);
  put("out/f", "old", 3, 0600);
  CHECK(!unpack(one.data, one.size, in("out"), NULL, &err));
  CHECK(err.sys_errno == EEXIST && strstr(err.message, "out/f") != NULL);
  CHECK(unpack(two.data, two.size, in("out"), NULL, &err));
  CHECK(stat(in("out/d"), &info) == 0 && (info.st_mode & 0777) == 0700);
  swerex__str_clear(&one), swerex__str_clear(&two);
  swerex__err_clear(&err);
  leave();
}

/* --- memory that runs out --- */

static void *meagre(void *user_data, void *block, size_t size) {
  long *budget = (long *)user_data;
  if (size == 0) {
    free(block);
    return NULL;
  }
  return (*budget)-- > 0 ? realloc(block, size) : NULL;
}

TEST(steps_are_small) {
  enum { SIZE = 8 << 20, FOLDERS = 200 };
  static char names[FOLDERS][8];
  static item items[FOLDERS];
  char *dense = (char *)malloc(SIZE + 1);
  memset(dense, 'x', SIZE);
  dense[SIZE] = '\0';
  const item one = {.name = "dense", .data = dense, .method = 8};
  for (int i = 0; i < FOLDERS; i++) {
    snprintf(names[i], sizeof names[i], "%d/", i);
    items[i].name = names[i];
    items[i].mode = 0040755;
  }
  swerex__str data = hand_made(&one, 1), folders = hand_made(items, FOLDERS);
  enter();
  CHECK(data.size < 65536 && count_steps(data.data, data.size) >= SIZE >> 20);
  CHECK(count_steps(folders.data, folders.size) >= 2 * FOLDERS / SWEREX__ZIP_STEP_ENTRIES);
  swerex__str_clear(&data), swerex__str_clear(&folders);
  free(dense);
  leave();
}

TEST(memory_that_runs_out_is_named) {
  static char room[1 << 16];
  swerex_error err = SWEREX_ERROR_INIT;
  bool ok = false;
  enter();
  CHECK(mkdir(in("tree"), 0700) == 0 && mkdir(in("tree/a"), 0700) == 0);
  put("tree/a/b", "x", 1, 0600);
  for (long enough = 0; !ok; enough++) {
    long budget = enough;
    size_t got = 1;
    swerex_allocator memory = {meagre, &budget};
    swerex__zip_pack *p = swerex__zip_pack_new(&memory, in("tree"), &err);
    for (ok = p != NULL; ok && got > 0;) ok = swerex__zip_pack_read(p, room, sizeof room, &got, &err);
    swerex__zip_pack_free(p);
    CHECK(ok ? enough > 4 : err.code == SWEREX_E_NO_MEMORY);
    if (!ok && err.code != SWEREX_E_NO_MEMORY) printf("# %ld: %s\n", enough, err.message);
    swerex__err_clear(&err);
  }
  leave();
}

TEST(times_after_2038_come_back) {
  struct timespec times[2] = {{0, UTIME_NOW}, {(time_t)4102444801, 0}}; /* 2100; DOS has even seconds */
  struct stat before, after;
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__str out;
  enter();
  CHECK(mkdir(in("tree"), 0700) == 0);
  put("tree/late", "x", 1, 0600);
  CHECK(utimensat(AT_FDCWD, in("tree/late"), times, 0) == 0 && stat(in("tree/late"), &before) == 0);
  CHECK(pack(in("tree"), 4096, &out, &err) && unpack(out.data, out.size, in("out"), NULL, &err));
  CHECK(stat(in("out/late"), &after) == 0);
  CHECK_INT(after.st_mtime / 2, before.st_mtime / 2); /* a file system may have cut it */
  swerex__str_clear(&out);
  leave();
}

/* --- what is refused, from archives that Python makes --- */

typedef struct hostile {
  const char *python, *words; /* lines that write to z; what the refusal says */
} hostile;

#define LINK(name, target)                                                                         \
  "i = zipfile.ZipInfo('" name "'); i.create_system = 3; i.external_attr = 0o120777 << 16; "       \
  "z.writestr(i, '" target "')\n"

TEST(hostile_archives_are_refused_before_anything_is_written) {
  static const hostile rows[] = {
    {"z.writestr('good', 'x'); z.writestr('../up', 'x')\n", "out of the folder"},
    {"z.writestr('a/../../b', 'x')\n", "out of the folder"},
    {"z.writestr('a/..', 'x')\n", "out of the folder"},
    {"z.writestr('/abs', 'x')\n", "out of the folder"},
    {LINK("l", "/etc"), "leads out"},
    {LINK("l", ".."), "leads out"},
    {LINK("d/l", "../.."), "leads out"},
    {LINK("d/e/l", "../..") LINK("m", "d/e/l/.."), "leads out"},
    {LINK("l", "d") "z.writestr('l/x', 'x')\n", "goes through a link"},
    {LINK("l", "d") "z.writestr('l/./x', 'x')\n", "goes through a link"},
    {"z.writestr('b', bytes(8000000))\n", NULL},
  };
  for (size_t i = 0; i < SWEREX__SYS_COUNT(rows); i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    char script[2000];
    enter();
    snprintf(script, sizeof script,
             "import zipfile\nz = zipfile.ZipFile('a.zip', 'w', zipfile.ZIP_DEFLATED)\n%sz.close()\n",
             rows[i].python);
    PYTHON(script);
    int fd = open(in("a.zip"), O_RDONLY);
    bool ok = unpack_fd(fd, in("out"), NULL, &err);
    if (ok != (rows[i].words == NULL)) printf("# row %zu: %s\n", i, ok ? "taken" : err.message);
    CHECK(ok == (rows[i].words == NULL));
    if (!ok && rows[i].words != NULL) {
      CHECK(strstr(err.message, rows[i].words) != NULL);
      CHECK_STR(err.class_path, "zipfile.BadZipFile");
      CHECK(access(in("out"), F_OK) != 0);
    }
    close(fd);
    swerex_error_clear(&err);
    leave();
  }
}

TEST(limits_and_sums_hold) {
  static const swerex__unzip_limits small = {1000, 0, 0}, few = {0, 2, 0}, dense = {0, 0, 10};
  static const struct {
    const swerex__unzip_limits *limits;
    const char *change, *words;
  } rows[] = {{&small, "", "more than 1000 bytes"},
              {&few, "", "more than 2 entries"},
              {&dense, "", "refused as a bomb"},
              {NULL, "d[40] ^= 1\n", ""},
              {NULL, "d = d.replace(b'PK\\x01\\x02', b'PK\\x01\\x03')\n", "central directory"},
              {NULL, "d = d[:-30]\n", "File is not a zip file"}};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(rows); i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    char script[2000];
    enter();
    snprintf(script, sizeof script,
             "import zipfile\nz = zipfile.ZipFile('a.zip', 'w', zipfile.ZIP_DEFLATED)\n"
             "z.writestr('one', bytes(3000000)); z.writestr('two', 'x'); z.writestr('three', 'y')\nz.close()\n"
             "d = bytearray(open('a.zip', 'rb').read())\n%sopen('a.zip', 'wb').write(d)\n",
             rows[i].change);
    PYTHON(script);
    int fd = open(in("a.zip"), O_RDONLY);
    CHECK(!unpack_fd(fd, in("out"), rows[i].limits, &err));
    if (err.message == NULL || strstr(err.message, rows[i].words) == NULL)
      printf("# row %zu: %s\n", i, err.message == NULL ? "taken" : err.message);
    CHECK(err.message != NULL && strstr(err.message, rows[i].words) != NULL);
    CHECK(access(in("out/one"), F_OK) != 0); /* also where its data turned out to be wrong */
    close(fd);
    swerex_error_clear(&err);
    leave();
  }
}

TEST(directories_that_lie_are_refused) {
  static char name[60000], noise[12000];
  for (size_t i = 0; i + 1 < sizeof noise; i++) noise[i] = (char)(1 + dice(255));
  enter();
  REFUSE("l: a link that cannot be read", {.name = "l", .data = noise, .mode = 0120777, .method = 8, .size = 9});
  REFUSE("is encrypted", {.name = "a", .data = "x", .flags = 1});
  REFUSE("compression method 12 is not supported", {.name = "a", .data = "x", .method = 12});
  REFUSE("its two sizes differ", {.name = "a", .data = "x", .size = 7});
  REFUSE("a lies outside of the archive", {.name = "a", .data = "x", .offset = 7777});
  REFUSE("a lies outside of the archive", {.name = "a", .data = "x", .size = 999, .packed = 999});
  REFUSE("l: a link of 0 bytes", {.name = "l", .mode = 0120777});
  REFUSE("l: a link of 1 bytes", {.name = "l/", .data = "x", .mode = 0120777});
  memset(name, 'n', sizeof name);
  REFUSE("Truncated central directory", {.name = name, .data = "x", .name_size = sizeof name});
  REFUSE("Overlapped entries", {.name = "a", .data = "xxxxxxxx"}, {.name = "b", .data = "x", .offset = 8});
  REFUSE("Bad magic number for file header", {.name = "a", .data = "x"},
         {.name = "l", .data = "xxxxxxxxxxxxxxxxx", .mode = 0120777, .offset = 45});
  REFUSE("l/x: its path goes through a link", {.name = "l/x"}, {.name = "l-x"},
         {.name = "l", .data = "d", .mode = 0120777}, {.name = "l"});
  REFUSE("Bad CRC-32 for file 'l'", {.name = "l", .data = "x", .mode = 0120777, .crc = 1});
  REFUSE("Bad CRC-32 for file 'l'", {.name = "l", .data = "x", .mode = 0120777, .method = 8, .size = 2});
  leave();
}

/** Unpack, and expect a message once the data is read. */
static void spoil(int line, const item *it, const char *why) {
  swerex__str data = hand_made(it, 1);
  swerex_error err = SWEREX_ERROR_INIT;
  enter();
  bool ok = unpack(data.data, data.size, in("out"), NULL, &err);
  if (ok || strstr(err.message, why) == NULL || strcmp(err.class_path, "zipfile.BadZipFile") != 0) {
    test_fault(__FILE__, line, why);
    printf("#   is %s\n", ok ? "no error" : err.message);
  }
  swerex__str_clear(&data);
  swerex__err_clear(&err);
  leave();
}

#define SPOILT(why, ...)                                                                           \
  do {                                                                                             \
    const item item_ = {__VA_ARGS__};                                                              \
    spoil(__LINE__, &item_, why);                                                                  \
  } while (0)

TEST(data_that_lies_is_refused) {
  SPOILT("Bad CRC-32 for file 'a'", .name = "a", .data = "x", .crc = 1);
  SPOILT("Bad CRC-32 for file 'a'", .name = "a", .data = "xxxx", .method = 8, .size = 5);
  SPOILT("a is larger than the archive says", .name = "a", .data = "xxxx", .method = 8, .size = 3);
  SPOILT("its compressed data is cut off", .name = "a", .data = "abcdefghij", .method = 8, .packed = 3);
  SPOILT("a lies outside of the archive", .name = "a", .data = "x", .local_extra = 0, .local_name = "aa",
         .offset = 0, .method = 8, .packed = 36, .size = 4);
}

TEST(long_records_are_read) {
  static const struct {
    const char *change, *words;
  } rows[] = {{"", NULL},
              {"at = d.rfind(b'PK\x06\x06'); d[at] = 0\n", "Corrupt zip64 end of central directory"},
              {"at = d.rfind(b'PK\x06\x06'); d[at + 16] = 1\n", "that span multiple disks"},
              {"at = d.rfind(b'PK\x06\x06'); d[at + 45] = 1\n", "Bad offset for central directory"}};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(rows); i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    char script[2000];
    enter();
    snprintf(script, sizeof script,
             "import zipfile\nzipfile.ZIP64_LIMIT = 3; zipfile.ZIP_FILECOUNT_LIMIT = 1\n"
             "z = zipfile.ZipFile('a.zip', 'w')\n"
             "for name in 'one', 'two': z.open(name, 'w', force_zip64=True).write(b'abcdef')\nz.close()\n"
             "d = bytearray(open('a.zip', 'rb').read())\n%sopen('a.zip', 'wb').write(d)\n",
             rows[i].change);
    PYTHON(script);
    int fd = open(in("a.zip"), O_RDONLY);
    bool ok = unpack_fd(fd, in("out"), NULL, &err);
    CHECK(ok == (rows[i].words == NULL));
    if (ok == (rows[i].words != NULL) || (!ok && strstr(err.message, rows[i].words) == NULL)) {
      printf("# row %zu: %s\n", i, ok ? "taken" : err.message);
      test_faults++;
    }
    if (ok) {
      swerex__str text = get("out/two");
      CHECK_MEM(text.data, text.size, "abcdef");
      swerex__str_clear(&text);
    }
    close(fd);
    swerex_error_clear(&err);
    leave();
  }
}

TEST_MAIN()
