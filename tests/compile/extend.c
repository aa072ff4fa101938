/*
 * Uses what extend.sh has added to a copy of the header, from end to end: the server and its client
 * in one loop, JSON both ways.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

static int failures;

static void check(bool ok, const char *what, const swerex_error *err) {
  if (ok) return;
  printf("not ok: %s: %s\n", what, err->message != NULL ? err->message : "");
  failures++;
}

#ifdef WITH_field
static void use_field(swerex_loop *loop, swerex_error *err) {
  swerex_command command;
  swerex_bytes json = {NULL, 0};
  (void)loop;
  check(swerex_from_json(SWEREX_MODEL_COMMAND, "{\"command\": [\"true\"], \"tag\": \"mine\"}", 0, &command, err) &&
          strcmp(command.tag, "mine") == 0,
        "a field is read", err);
  check(swerex_to_json(SWEREX_MODEL_COMMAND, &command, &json, err) &&
          strstr(json.data, "\"tag\":\"mine\"") != NULL,
        "a field is written", err);
  swerex_bytes_clear(&json);
  swerex_model_clear(SWEREX_MODEL_COMMAND, &command);
  check(!swerex_from_json(SWEREX_MODEL_COMMAND, "{\"command\": \"x\", \"tag\": 1}", 0, &command, err) &&
          err->code == SWEREX_E_VALIDATION && strstr(err->message, "tag") != NULL,
        "a field's type is checked", err);
}
#endif

#ifdef WITH_verb
/** Ask a runtime for the lines of our own header; -1: it fails. */
static int lines_by(swerex_runtime *runtime, swerex_error *err) {
  swerex_read_file_request request = {"/etc/passwd", NULL, NULL};
  swerex_command_response response;
  memset(&response, 0, sizeof response);
  bool ok = swerex_count_lines(runtime, &request, &response, err);
  int lines = ok ? response.exit_code : -1;
  swerex_command_response_clear(&response);
  return lines;
}

static void use_verb(swerex_loop *loop, swerex_error *err) {
  swerex_server *server = swerex_server_new(loop, NULL, err);
  swerex_remote_config config;
  swerex_read_file_request missing = {"/nonexistent", NULL, NULL};
  memset(&config, 0, sizeof config);
  config.host = swerex_server_address(server);
  swerex_runtime *remote = swerex_remote_runtime_new(loop, &config, err);
  int here = lines_by(swerex_local_runtime_new(loop, NULL, err), err), there = lines_by(remote, err);
  check(here > 0, "a verb of the local runtime", err);
  check(there == here, "a verb by the server", err);
  check(!swerex_count_lines(remote, &missing, NULL, err) && err->code == SWEREX_E_FILE_NOT_FOUND,
        "a verb's error by the server", err);
  check(lines_by(swerex_dummy_runtime_new(loop, NULL, err), err) == 0, "a verb of the dummy runtime", err);
  swerex_server_free(server);
}
#endif

#ifdef WITH_deployment
static void use_deployment(swerex_loop *loop, swerex_error *err) {
  swerex_bash_action action;
  swerex_bash_observation seen;
  memset(&action, 0, sizeof action);
  memset(&seen, 0, sizeof seen);
  action.command = "anything";
  swerex_deployment *twin = swerex_get_deployment_json(loop, "{\"type\":\"twin\",\"answer\":\"me too\"}", 0, err);
  check(twin != NULL && swerex_deployment_start(twin, err), "a deployment starts", err);
  check(swerex_run_in_session(swerex_deployment_runtime(twin, err), &action, &seen, err) &&
          strcmp(seen.output.data, "me too") == 0,
        "a deployment runs a command", err);
  swerex_bash_observation_clear(&seen);
  check(swerex_deployment_stop(twin, err), "a deployment stops", err);
  check(swerex_get_deployment_json(loop, "{\"type\":\"twin\"}", 0, err) == NULL &&
          strstr(err->message, "answer") != NULL,
        "a deployment's fields are checked", err);
}
#endif

#ifdef WITH_error
static void use_error(swerex_loop *loop, swerex_error *err) {
  (void)loop;
  check(swerex_code_from_class_path("my.package.QuotaError") == SWEREX_E_QUOTA, "an error by its class", err);
  check(strcmp(swerex_code_class_path(SWEREX_E_QUOTA), "my.package.QuotaError") == 0, "an error's class", err);
  check(swerex_code_is(SWEREX_E_QUOTA, SWEREX_E_SWEREX) && swerex_code_is(SWEREX_E_QUOTA, SWEREX_E_RUNTIME) &&
          !swerex_code_is(SWEREX_E_QUOTA, SWEREX_E_OS),
        "an error's parents", err);
  check(strcmp(swerex_code_name(SWEREX_E_QUOTA), "QUOTA") == 0, "an error's name", err);
}
#endif

int main(void) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  check(loop != NULL, "a loop", &err);
#ifdef WITH_field
  use_field(loop, &err);
#endif
#ifdef WITH_verb
  use_verb(loop, &err);
#endif
#ifdef WITH_deployment
  use_deployment(loop, &err);
#endif
#ifdef WITH_error
  use_error(loop, &err);
#endif
  swerex_loop_free(loop);
  swerex_error_clear(&err);
  return failures > 0;
}
