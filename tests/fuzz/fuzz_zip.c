/*
 * Any bytes as an archive: it is refused, or unpacked, and nothing appears outside of the folder.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include <ftw.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64];

static int drop(const char *path, const struct stat *info, int kind, struct FTW *at) {
  (void)info, (void)kind;
  return at->level > 0 ? remove(path) : 0;
}

/** Unpack into folder/in; whatever happens, folder has no other entry. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  swerex__unzip_limits limits = {1 << 22, 1000, 0};
  char target[80], path[96];
  swerex_error err = SWEREX_ERROR_INIT;
  if (folder[0] == '\0') {
    snprintf(folder, sizeof folder, "/tmp/swerex-fuzz-%ld", (long)getpid());
    if (mkdir(folder, 0700) != 0) abort();
  }
  int fd = swerex__sys_open_scratch(path, sizeof path);
  if (fd < 0 || !swerex__sys_fill_scratch(fd, (const char *)data, size)) abort();
  snprintf(target, sizeof target, "%s/in", folder);
  swerex__unzip *unpack = swerex__unzip_new(NULL, fd, target, &limits, &err);
  if (unpack != NULL) {
    swerex__fs_progress progress = SWEREX__FS_MORE;
    while (progress == SWEREX__FS_MORE) progress = swerex__unzip_step(unpack, &err);
    if (progress == SWEREX__FS_FAILED && err.message == NULL) abort();
    swerex__unzip_free(unpack);
  } else if (err.message == NULL) {
    abort();
  }
  swerex_error_clear(&err);
  swerex__sys_close_scratch(&fd, path);
  DIR *entries = opendir(folder);
  for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
        strcmp(entry->d_name, "in") != 0)
      abort();
  closedir(entries);
  nftw(folder, drop, 8, FTW_DEPTH | FTW_PHYS);
  return 0;
}
