/* read_file, write_file and upload, as the original answers them. */
#include "world.h"

#include <sys/stat.h>

static char content[1024];

/** Read a file; NULL, and w->err, on failure. */
static const char *read_with(world *w, const char *path, const char *encoding, const char *errors) {
  swerex_read_file_request request = {path, encoding, errors};
  swerex_read_file_response response;
  memset(&response, 0, sizeof response);
  if (!swerex_read_file(w->runtime, &request, &response, &w->err)) return NULL;
  snprintf(content, sizeof content, "%s", response.content.data);
  swerex_read_file_response_clear(&response);
  return content;
}

static bool write_to(world *w, const char *path, const char *data, size_t size) {
  swerex_write_file_request request;
  request.content.data = (char *)(uintptr_t)data;
  request.content.size = size;
  request.path = path;
  return swerex_write_file(w->runtime, &request, NULL, &w->err);
}

static bool upload(world *w, const char *source, const char *target) {
  swerex_upload_request request = {source, target};
  return swerex_upload(w->runtime, &request, NULL, &w->err);
}

TEST(read_what_was_written) {
  world w = world_open();
  char folder[] = "/tmp/swerex-files-XXXXXX", path[128], command[160];
  CHECK(mkdtemp(folder) != NULL);
  snprintf(path, sizeof path, "%s/a/b/c.txt", folder);
  CHECK(write_to(&w, path, "x\xC3\xA9\n", 4));
  CHECK_STR(read_with(&w, path, NULL, NULL), "x\xC3\xA9\n");
  CHECK(write_to(&w, path, "", 0));
  CHECK_STR(read_with(&w, path, NULL, NULL), "");
  CHECK(write_to(&w, path, "a\r\nb\rc\n", 7));
  CHECK_STR(read_with(&w, path, NULL, NULL), "a\nb\nc\n");
  CHECK(write_to(&w, path, "a\xff", 2));
  CHECK(read_with(&w, path, NULL, NULL) == NULL);
  CHECK_INT(w.err.code, SWEREX_E_UNICODE_DECODE);
  CHECK_STR(w.err.message, "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte");
  CHECK_STR(read_with(&w, path, NULL, "backslashreplace"), "a\\xff");
  CHECK_STR(read_with(&w, path, NULL, "ignore"), "a");
  CHECK_STR(read_with(&w, path, NULL, "replace"), "a\xEF\xBF\xBD");
  CHECK_STR(read_with(&w, path, NULL, "surrogateescape"), "a\xff");
  CHECK_STR(read_with(&w, path, "latin-1", NULL), "a\xC3\xBF");
  CHECK(read_with(&w, path, "nope", NULL) == NULL);
  CHECK_INT(w.err.code, SWEREX_E_LOOKUP);
  CHECK_STR(w.err.message, "unknown encoding: nope");
  snprintf(command, sizeof command, "rm -r %s", folder);
  CHECK(system(command) == 0);
  world_close(&w);
}

TEST(what_cannot_be_read_or_written) {
  world w = world_open();
  CHECK(read_with(&w, "/nonexist", NULL, NULL) == NULL);
  CHECK_INT(w.err.code, SWEREX_E_FILE_NOT_FOUND);
  CHECK_STR(w.err.message, "[Errno 2] No such file or directory: '/nonexist'");
  CHECK(read_with(&w, "/tmp", NULL, NULL) == NULL);
  CHECK_STR(w.err.message, "[Errno 21] Is a directory: '/tmp'");
  CHECK(!write_to(&w, "/proc/nope/x", "x", 1));
  CHECK_STR(w.err.message, "[Errno 2] No such file or directory: '/proc/nope'");
  CHECK(!write_to(&w, "/tmp", "x", 1));
  CHECK_STR(w.err.message, "[Errno 21] Is a directory: '/tmp'");
  swerex_local_config config;
  memset(&config, 0, sizeof config);
  config.max_file = 10;
  swerex_runtime *small = swerex_local_runtime_new(w.loop, &config, &w.err);
  swerex_read_file_request request = {"/etc/passwd", NULL, NULL};
  CHECK(!swerex_read_file(small, &request, NULL, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_OS);
  CHECK(has(w.err.message, "/etc/passwd"));
  swerex_runtime_free(small);
  memset(&request, 0, sizeof request);
  CHECK(!swerex_read_file(w.runtime, &request, NULL, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_VALIDATION);
  world_close(&w);
}

TEST(upload_of_a_folder) {
  world w = world_with_session();
  char folder[] = "/tmp/swerex-files-XXXXXX", source[128], target[128], command[512];
  CHECK(mkdtemp(folder) != NULL);
  snprintf(command, sizeof command,
           "cd %s && mkdir -p s/d/empty && echo run >s/x.sh && chmod 755 s/x.sh && ln -s x.sh s/l && "
           "ln -s d s/dl && touch -d '2001-02-03 04:05:06' s/x.sh && seq 1 500000 >s/d/big && chmod 700 s/d",
           folder);
  CHECK(gives(&w, command, 0, ""));
  snprintf(source, sizeof source, "%s/s", folder);
  snprintf(target, sizeof target, "%s/t/u", folder);
  CHECK(upload(&w, source, target));
  snprintf(command, sizeof command,
           "diff -r s t/u && stat -c '%%a %%y' t/u/x.sh | cut -c1-23 && readlink t/u/l t/u/dl && stat -c %%a t/u/d && "
           "ls -d t/u/d/empty");
  CHECK(gives(&w, command, 0, "755 2001-02-03 04:05:06\nx.sh\nd\n700\nt/u/d/empty\n"));
  CHECK(!upload(&w, source, target));
  CHECK_INT(w.err.code, SWEREX_E_FILE_EXISTS);
  snprintf(source, sizeof source, "%s/s/x.sh", folder);
  snprintf(target, sizeof target, "%s/v/w.sh", folder);
  CHECK(upload(&w, source, target));
  CHECK(gives(&w, "cat v/w.sh", 0, "run\n"));
  CHECK(!upload(&w, "/nonexist", target));
  CHECK_INT(w.err.code, SWEREX_E_FILE_NOT_FOUND);
  CHECK(gives(&w, "cat v/w.sh", 0, "run\n"));
  snprintf(command, sizeof command, "rm -r %s", folder);
  CHECK(run(&w, command));
  world_close(&w);
}

TEST(an_upload_lets_others_work) {
  world w = world_with_session();
  char folder[] = "/tmp/swerex-files-XXXXXX", source[128], target[128], command[256];
  CHECK(mkdtemp(folder) != NULL);
  snprintf(command, sizeof command, "cd %s && mkdir s && for i in 1 2 3 4; do head -c 30000000 /dev/zero >s/$i; done", folder);
  CHECK(gives(&w, command, 0, ""));
  snprintf(source, sizeof source, "%s/s", folder);
  snprintf(target, sizeof target, "%s/t", folder);
  swerex_upload_request request = {source, target};
  swerex_future *future = swerex_upload_async(w.runtime, &request, &w.err);
  int answers = 0;
  while (!swerex_future_done(future) && answers < 1000) answers += gives(&w, "echo hi", 0, "hi\n") ? 1 : 0;
  CHECK(answers > 1);
  CHECK(swerex_future_take(future, NULL, &w.err));
  CHECK(gives(&w, "diff -r s t && echo same", 0, "same\n"));
  snprintf(target, sizeof target, "%s/cancelled", folder);
  future = swerex_upload_async(w.runtime, &request, &w.err);
  swerex_loop_run(w.loop, 0, &w.err);
  swerex_future_free(future);
  snprintf(command, sizeof command, "rm -r %s", folder);
  CHECK(run(&w, command));
  world_close(&w);
}

TEST_MAIN()
