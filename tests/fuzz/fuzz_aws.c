/*
 * What comes from AWS's side of a call, whatever it is. The first byte says which: a shared file, a
 * command line of one, credentials as JSON or from STS, or answers, one on each line, which all the
 * rows of a start, of taking it back and of a teardown are given in turn. What is then sent must be
 * well formed: JSON that is read again, a form without a byte that is not encoded.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static swerex_loop *loop;
static swerex_deployment *box;

static void require(bool condition) {
  if (!condition) abort();
}

/* --- files and credentials ------------------------------------------------------------------ */

static void try_profile(const char *text, size_t size) {
  swerex__profile profile;
  swerex_error err = SWEREX_ERROR_INIT;
  memset(&profile, 0, sizeof profile);
  profile.name = swerex__mem_copy(NULL, "default", 7);
  bool read = swerex__profile_parse(&profile, "f", size % 2 == 0, text, size, &err);
  require(read || (err.code == SWEREX_E_VALUE && strstr(err.message, "f: line ") == err.message));
  for (int i = 0; i < SWEREX__PROFILE_SERVICES; i++) {
    char url[512];
    const char *scope;
    swerex__profile_address(&profile, (swerex__profile_service)i, "us-east-1", url, &scope);
  }
  swerex__err_clear(&err);
  swerex__profile_region(&profile, NULL, &err);
  swerex__err_clear(&err);
  swerex__profile_clear(&profile);
}

static void try_command_line(const char *text) {
  const char *argv[16];
  char *line = swerex__mem_copy(NULL, text, strlen(text) + 1);
  const char *end = line + strlen(line) + 1;
  if (swerex__creds_split(line, argv, 16))
    for (size_t i = 0; argv[i] != NULL; i++) require(argv[i] >= line && argv[i] < end);
  swerex__mem_free(line);
}

static int ended; /* logins */

static void on_login(void *owner, swerex_error *error) {
  swerex__login *login = *(swerex__login **)owner;
  ended++;
  require((error->code == SWEREX_E_OK) == (login->keys.id != NULL && login->keys.secret != NULL));
}

/** Give an answer to what waits for credentials; it must end once. */
static void try_login(const char *text, size_t size, int status, void (*took)(swerex__login *)) {
  swerex__profile profile;
  swerex__login login, *self = &login;
  char url[] = "x";
  memset(&profile, 0, sizeof profile);
  memset(&login, 0, sizeof login);
  login.loop = loop;
  login.profile = &profile;
  login.done = on_login;
  login.owner = &self;
  login.web.url.text = url;
  login.call.status = status;
  login.call.answer = swerex__str_new(NULL, size + 1);
  login.tries = SWEREX__LOGIN_TRIES;
  login.set_clock = true;
  swerex__str_add(&login.call.answer, text, size);
  ended = 0;
  took(&login);
  require(ended == 1);
  swerex__str_clear(&login.call.answer);
  swerex__sign_clear_keys(&login.keys);
}

/* --- calls ---------------------------------------------------------------------------------- */

/** What is sent must be what the service can read. */
static void check_body(const swerex__aws_row *row, const swerex__str *body) {
  swerex__doc doc;
  require(!body->failed);
  if (swerex__profile_services[row->service].target != NULL) {
    require(body->size == 0 || swerex__doc_parse(NULL, body->data, body->size, &doc, NULL));
    if (body->size > 0) swerex__doc_free(&doc);
    return;
  }
  for (size_t i = 0; i < body->size; i++)
    require(body->data[i] > ' ' && body->data[i] < 127 &&
            strchr("<>\"{}/#?;", body->data[i]) == NULL);
}

/** Let a row judge an answer, as a call would. */
static swerex__aws_verdict judge(void *owner, const swerex__aws_row *row, const char *text,
                                 size_t size, int status, double waited) {
  swerex__aws_run run;
  swerex__answer answer = {status, status == 200, "", "", "", NULL, waited, false, NULL};
  swerex__doc doc;
  swerex_is_alive_response alive;
  swerex_error err = SWEREX_ERROR_INIT;
  char code[128] = "";
  memset(&run, 0, sizeof run);
  memset(&alive, 0, sizeof alive);
  run.aws = swerex__fargate_of(box)->aws;
  run.call.answer = swerex__str_new(NULL, size + 1);
  answer.response = &alive;
  swerex__str_add(&run.call.answer, text, size);
  bool readable = swerex__aws_read(&run, &doc, &err);
  swerex__err_clear(&err);
  answer.root = readable ? doc.root : NULL;
  swerex__aws_read_request_id(&run, answer.root, answer.request_id);
  if (!answer.ok) swerex__aws_read_error(&run, answer.root, code, &answer);
  answer.code = code;
  require(answer.ok || (code[0] != '\0' && strlen(code) < sizeof code) || !readable);
  swerex__aws_verdict verdict = SWEREX__AWS_DONE;
  if (row->took != NULL && (readable || !answer.ok))
    verdict = row->took(owner, row, &answer, &err);
  if (readable && answer.ok) swerex__aws_page(row, answer.root);
  if (readable) swerex__doc_free(&doc);
  swerex__mem_free(alive.message.data);
  swerex__err_clear(&err);
  swerex__str_clear(&run.call.answer);
  return verdict;
}

typedef struct lines {
  const char *text;
  size_t size, at;
  int number;
} lines;

/** Return the next line; begin anew behind the last. */
static const char *next_line(lines *from, size_t *size) {
  if (from->at >= from->size) from->at = 0;
  const char *start = from->text + from->at;
  const char *end = from->size == 0 ? NULL : memchr(start, '\n', from->size - from->at);
  *size = end == NULL ? from->size - from->at : (size_t)(end - start);
  from->at += *size + 1;
  from->number++;
  return start;
}

/** Run rows, with a bound on how often each is run. */
static void run_rows(void *owner, const swerex__aws_row *rows, size_t count, lines *answers) {
  static const int statuses[] = {200, 200, 200, 400, 200, 500};
  for (size_t i = 0; i < count; i++)
    for (int turn = 0; turn < 6; turn++) {
      swerex__str body = swerex__str_new(NULL, (size_t)1 << 24);
      bool calls = rows[i].fill == NULL || rows[i].fill(owner, &rows[i], &body);
      size_t size;
      if (calls) check_body(&rows[i], &body);
      swerex__str_clear(&body);
      if (!calls) break;
      const char *text = next_line(answers, &size);
      swerex__aws_verdict verdict =
        judge(owner, &rows[i], text, size, statuses[answers->number % 6], turn > 3 ? 1000 : 0);
      if (verdict == SWEREX__AWS_DONE || verdict == SWEREX__AWS_FAILED) break;
    }
}

static void try_deployment(lines *answers) {
  swerex_error err = SWEREX_ERROR_INIT;
  require(swerex__task_open(box, &err) == NULL && err.code == SWEREX_E_OK);
  size_t count = SWEREX__SYS_COUNT(swerex__task_groups);
  for (size_t i = 0; i < count; i++)
    run_rows(box, swerex__task_groups[i].rows, swerex__task_groups[i].count, answers);
  run_rows(box, swerex__task_look_rows, SWEREX__SYS_COUNT(swerex__task_look_rows), answers);
  run_rows(box, swerex__task_check_rows, SWEREX__SYS_COUNT(swerex__task_check_rows), answers);
  for (size_t i = count; i-- > 0;)
    run_rows(box, swerex__task_groups[i].undo, swerex__task_groups[i].undo_count, answers);
}

static void try_teardown(lines *answers) {
  char task[] = "swe-rex-task", role[] = "swe-rex-execution-role";
  swerex__teardown teardown;
  memset(&teardown, 0, sizeof teardown);
  teardown.loop = loop;
  teardown.logger = loop->logger;
  teardown.task_definition_prefix = task;
  teardown.execution_role_prefix = role;
  run_rows(&teardown, swerex__teardown_look_rows, SWEREX__SYS_COUNT(swerex__teardown_look_rows),
           answers);
  require(swerex__removal_confirm(&teardown, NULL) || true);
  run_rows(&teardown, swerex__removal_remove_rows,
           SWEREX__SYS_COUNT(swerex__removal_remove_rows), answers);
  swerex__err_clear(&teardown.failure);
  swerex__mem_free(teardown.items);
}

static void quiet(void *user_data, const swerex_log_record *record) {
  (void)user_data, (void)record;
}

static void set_up(void) {
  static const char config[] = "{\"type\":\"fargate\",\"region\":\"us-east-1\",\"port\":1234}";
  swerex_loop_options options;
  memset(&options, 0, sizeof options);
  options.logger.write = quiet;
  setenv("HOME", "/nonexistent", 1);
  loop = swerex_loop_new(&options, NULL);
  box = swerex_get_deployment_json(loop, config, 0, NULL);
  require(box != NULL && swerex__task_open(box, NULL) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  if (loop == NULL) set_up();
  int kind = data[0] % 8;
  char *text = (char *)malloc(size); /* the rest, and a NUL */
  memcpy(text, data + 1, --size);
  text[size] = '\0';
  lines answers = {text, size, 0, data[0]};
  switch (kind) {
    case 0: try_profile(text, size); break;
    case 1: try_command_line(text); break;
    case 2: try_login(text, size, 200, swerex__creds_on_keys); break;
    case 3: try_login(text, size, 200, swerex__login_on_role); break;
    case 4: try_login(text, size, 403, swerex__login_on_role); break;
    case 5: try_teardown(&answers); break;
    default: try_deployment(&answers); break;
  }
  free(text);
  return 0;
}
