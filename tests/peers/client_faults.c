/*
 * Our client against servers that misbehave: client_faults PORT, where fake_servers.py listens. The
 * first part of a path chooses the behaviour. All are called at once, from one loop: each must end
 * in time, well or with a clear error, and none may disturb another.
 */
#define SWEREX_MAX_FILE ((size_t)8 << 20) /* an answer without end stops here */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

enum { MAX = 200 };

static int port;
static swerex_loop *loop;
static swerex_error err = SWEREX_ERROR_INIT;

static void quiet(void *user_data, const swerex_log_record *record) { (void)user_data, (void)record; }

static swerex_runtime *connect_to(const char *behaviour, int retries) {
  swerex_remote_config config;
  char host[200];
  memset(&config, 0, sizeof config);
  snprintf(host, sizeof host, "http://127.0.0.1:%d/%s", port, behaviour);
  config.auth_token = "t";
  config.host = host;
  config.num_retries = retries;
  config.request_timeout = 8;
  return swerex_remote_runtime_new(loop, &config, &err);
}

static swerex_future *execute(swerex_runtime *runtime) {
  static const char *const argv[] = {"true", NULL};
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.argv = argv;
  return swerex_execute_async(runtime, &command, &err);
}

/** Read an answer of the fake's own: a list, the counts. */
static char *ask(const char *path) {
  static char text[65536];
  char command[200];
  snprintf(command, sizeof command, "curl -s http://127.0.0.1:%d/%s", port, path);
  FILE *pipe = popen(command, "r");
  text[pipe == NULL ? 0 : fread(text, 1, sizeof text - 1, pipe)] = '\0';
  if (pipe != NULL) pclose(pipe);
  return text;
}

static bool among(const char *list, const char *name) {
  char word[100];
  snprintf(word, sizeof word, " %s ", name);
  return strstr(list, word) != NULL;
}

TEST(every_misbehaviour) {
  static const char good[] = " ok chunked chunk-extension no-length http-1-0 interim no-reason odd-header-case "
                             "charset unknown-fields extra-bytes slow late ";
  static char names[MAX][64];
  static swerex_future *futures[MAX];
  int count = 0;
  swerex__json_doc doc;
  char *list = ask("list");
  CHECK(swerex__json_parse(NULL, list, strlen(list), &doc, NULL));
  for (const swerex__json *n = doc.root->child; n != NULL && count < MAX; n = n->next) {
    bool keyed = n->key != NULL;
    snprintf(names[count], sizeof names[count], "%.*s", (int)(keyed ? n->key_size : n->size),
             keyed ? n->key : n->string);
    count++;
  }
  swerex__json_free(&doc);
  CHECK(count > 80);
  for (int i = 0; i < count; i++) futures[i] = execute(connect_to(names[i], -1));
  double start = swerex__util_now();
  for (int i = 0; i < count; i++) {
    swerex_command_response ran;
    memset(&ran, 0, sizeof ran);
    bool ok = swerex_future_take(futures[i], &ran, &err);
    bool told = ok || (err.message != NULL && err.message[0] != '\0' && err.code != SWEREX_E_OK);
    if (!told || (among(good, names[i]) && !ok))
      printf("# %s: %s\n", names[i], ok ? "well" : err.message != NULL ? err.message : "no word");
    CHECK(told);
    CHECK(ok || !among(good, names[i]));
    if (!ok && strncmp(names[i], "raise-", 6) == 0) CHECK(err.http_status == 511 || err.code == SWEREX_E_HTTP);
    if (strcmp(names[i], "raise-os-system") == 0 || strcmp(names[i], "raise-popen") == 0) {
      CHECK(!ok && err.code == SWEREX_E_SWEREX); /* the class path is kept, and nothing comes of it */
      CHECK(strchr(err.class_path, '.') != NULL && strncmp(err.class_path, "swerex.", 7) != 0);
    }
    swerex_command_response_clear(&ran);
  }
  CHECK(swerex__util_now() - start < 20);
  CHECK(access("/tmp/fake-servers-was-here", F_OK) != 0);
}

/** How often requests came for a behaviour: the largest number for one id. */
static int times(const char *behaviour) {
  char *text = ask("count");
  swerex__json_doc doc;
  int most = 0;
  if (!swerex__json_parse(NULL, text, strlen(text), &doc, NULL)) return -1;
  const swerex__json *row = swerex__json_get(doc.root, behaviour);
  for (const swerex__json *n = row == NULL ? NULL : row->child; n != NULL; n = n->next)
    if (n->integer > most) most = (int)n->integer;
  swerex__json_free(&doc);
  return most;
}

TEST(what_may_have_arrived_is_not_sent_twice) {
  swerex_runtime *runtime = connect_to("retry", 3);
  int before = times("retry");
  CHECK(!swerex_future_take(execute(runtime), NULL, &err)); /* not a server that knows ids */
  CHECK_INT(times("retry"), before > 1 ? before : 1);
  swerex_read_file_request harmless = {"/x", NULL, NULL};
  swerex_read_file_response response;
  memset(&response, 0, sizeof response);
  runtime = connect_to("retry-close", 3);
  bool ok = swerex_read_file(runtime, &harmless, &response, &err); /* changes nothing: asked again */
  if (!ok) printf("# %s\n", err.message);
  CHECK(ok);
  swerex_read_file_response_clear(&response);
}

int main(int argc, char **argv) {
  swerex_loop_options options;
  char *self[] = {argv[0], NULL};
  if (argc < 2) return 2;
  port = atoi(argv[1]);
  memset(&options, 0, sizeof options);
  options.logger.write = quiet;
  unlink("/tmp/fake-servers-was-here");
  loop = swerex_loop_new(&options, &err);
  int code = test_main(1, self);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  return code;
}
