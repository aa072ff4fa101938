/* [valid], [model], [encode], [decode], [union]: structs to JSON and back, pydantic's errors,
 * copies, memory failures. */
#include "counting.h"

#include "test.h"

/** Any of the structs. */
typedef union any_model {
  swerex_is_alive_response is_alive;
  swerex_create_bash_session_request create;
  swerex_bash_action action;
  swerex_bash_interrupt_action interrupt;
  swerex_bash_observation observation;
  swerex_command command;
  swerex_command_response executed;
  swerex_read_file_request read_file;
  swerex_write_file_request write_file;
  swerex_upload_request upload;
  swerex_local_config local;
  swerex_dummy_config dummy;
  swerex_docker_config docker;
} any_model;

static char shown[200000];

static bool decode(swerex_model id, const char *json, void *value, swerex_error *err) {
  swerex__doc doc;
  bool ok = swerex__doc_parse(NULL, json, strlen(json), &doc, err) &&
            swerex__decode_model(NULL, swerex__model_of(id), doc.root, value, err);
  swerex__doc_free(&doc);
  return ok;
}

/** The JSON of a struct, or the error's message. Valid until the next call. */
static const char *encode(swerex_model id, const void *value) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__str s = swerex__str_new(NULL, sizeof shown - 1);
  bool ok = swerex__encode_model(swerex__model_of(id), value, &s, &err);
  snprintf(shown, sizeof shown, "%s", ok ? s.data : err.message);
  swerex__str_clear(&s);
  swerex__err_clear(&err);
  return shown;
}

/** JSON read into a struct, copied, and written again; or the error's message. */
static const char *again(swerex_model id, const char *json) {
  any_model value, copy;
  swerex_error err = SWEREX_ERROR_INIT;
  if (decode(id, json, &value, &err)) {
    CHECK(swerex__model_copy(NULL, swerex__model_of(id), &value, &copy, &err));
    swerex__model_clear(swerex__model_of(id), &value);
    encode(id, &copy);
    swerex__model_clear(swerex__model_of(id), &copy);
  } else {
    snprintf(shown, sizeof shown, "%s", err.message);
  }
  swerex__err_clear(&err);
  return shown;
}

/** The extra_info of a failure to read a struct. */
static const char *details(swerex_model id, const char *json) {
  any_model value;
  swerex_error err = SWEREX_ERROR_INIT;
  CHECK(!decode(id, json, &value, &err));
  CHECK_INT(err.code, SWEREX_E_VALIDATION);
  snprintf(shown, sizeof shown, "%s", err.extra_info == NULL ? "" : err.extra_info);
  swerex__err_clear(&err);
  return shown;
}

typedef struct model_case {
  swerex_model id;
  const char *json, *expected; /* expected NULL: json itself */
} model_case;

TEST(round_trips) {
  static const model_case cases[] = {
    {SWEREX_MODEL_IS_ALIVE_RESPONSE, "{\"is_alive\":true,\"message\":\"\"}", NULL},
    {SWEREX_MODEL_CREATE_BASH_SESSION_REQUEST, "{}",
     "{\"startup_source\":[],\"session\":\"default\",\"session_type\":\"bash\","
     "\"startup_timeout\":10.0}"},
    {SWEREX_MODEL_CREATE_BASH_SESSION_REQUEST,
     "{\"startup_source\":[\"/a\",\"b c\"],\"session\":\"s\",\"session_type\":\"bash\","
     "\"startup_timeout\":1.0,\"cwd\":\"/x\",\"env\":{\"A\":\"b=c\",\"\":\"\"},"
     "\"keep_daemons\":true}",
     NULL},
    {SWEREX_MODEL_CREATE_BASH_SESSION_RESPONSE, "{}",
     "{\"output\":\"\",\"session_type\":\"bash\"}"},
    {SWEREX_MODEL_BASH_ACTION, "{\"command\":\"ls\",\"unknown\":[1]}",
     "{\"command\":\"ls\",\"session\":\"default\",\"timeout\":null,"
     "\"is_interactive_command\":false,\"is_interactive_quit\":false,\"check\":\"raise\","
     "\"error_msg\":\"\",\"expect\":[],\"action_type\":\"bash\"}"},
    {SWEREX_MODEL_BASH_ACTION,
     "{\"command\":\"\",\"session\":\"\",\"timeout\":0.5,\"is_interactive_command\":true,"
     "\"is_interactive_quit\":true,\"check\":\"ignore\",\"error_msg\":\"no\",\"expect\":[\"\"],"
     "\"action_type\":\"bash\",\"idle_timeout\":3.5,\"max_output\":9000000000}",
     NULL},
    {SWEREX_MODEL_BASH_INTERRUPT_ACTION, "{}",
     "{\"session\":\"default\",\"timeout\":0.2,\"n_retry\":3,\"expect\":[],"
     "\"action_type\":\"bash_interrupt\"}"},
    {SWEREX_MODEL_BASH_INTERRUPT_ACTION,
     "{\"session\":\"x\",\"timeout\":null,\"n_retry\":0,\"expect\":[\"a\"],"
     "\"action_type\":\"bash_interrupt\"}",
     NULL},
    {SWEREX_MODEL_BASH_OBSERVATION, "{}",
     "{\"output\":\"\",\"exit_code\":null,\"failure_reason\":\"\",\"expect_string\":\"\","
     "\"session_type\":\"bash\"}"},
    {SWEREX_MODEL_BASH_OBSERVATION,
     "{\"output\":\"a\\u0000\\udcff\",\"exit_code\":-9,\"failure_reason\":\"f\","
     "\"expect_string\":\"e\",\"session_type\":\"bash\"}",
     NULL},
    {SWEREX_MODEL_CLOSE_BASH_SESSION_REQUEST, "{}",
     "{\"session\":\"default\",\"session_type\":\"bash\"}"},
    {SWEREX_MODEL_CLOSE_BASH_SESSION_RESPONSE, "{}", "{\"session_type\":\"bash\"}"},
    {SWEREX_MODEL_COMMAND, "{\"command\":\"x\"}",
     "{\"command\":\"x\",\"timeout\":null,\"shell\":false,\"check\":false,\"error_msg\":\"\","
     "\"env\":null,\"cwd\":null,\"merge_output_streams\":false}"},
    {SWEREX_MODEL_COMMAND,
     "{\"command\":[\"a\",\"\",\"c\"],\"timeout\":1e3,\"shell\":true,\"check\":true,"
     "\"error_msg\":\"m\",\"env\":{},\"cwd\":\"/\",\"merge_output_streams\":true}",
     "{\"command\":[\"a\",\"\",\"c\"],\"timeout\":1000.0,\"shell\":true,\"check\":true,"
     "\"error_msg\":\"m\",\"env\":{},\"cwd\":\"/\",\"merge_output_streams\":true}"},
    {SWEREX_MODEL_COMMAND_RESPONSE, "{\"stdout\":\"o\",\"stderr\":\"e\",\"exit_code\":0}", NULL},
    {SWEREX_MODEL_READ_FILE_REQUEST, "{\"path\":\"p\",\"encoding\":null,\"errors\":\"ignore\"}",
     NULL},
    {SWEREX_MODEL_READ_FILE_RESPONSE, "{\"content\":\"x\"}", NULL},
    {SWEREX_MODEL_WRITE_FILE_REQUEST, "{\"content\":\"a\\u0000b\",\"path\":\"p\"}", NULL},
    {SWEREX_MODEL_WRITE_FILE_RESPONSE, "{}", NULL},
    {SWEREX_MODEL_UPLOAD_REQUEST, "{\"source_path\":\"a\",\"target_path\":\"b\"}", NULL},
    {SWEREX_MODEL_UPLOAD_RESPONSE, "{}", NULL},
    {SWEREX_MODEL_CLOSE_RESPONSE, "{}", NULL},
    {SWEREX_MODEL_LOCAL_CONFIG, "{}", "{\"type\":\"local\"}"},
    {SWEREX_MODEL_LOCAL_CONFIG,
     "{\"type\":\"local\",\"max_output\":1,\"max_file\":2,\"keep_daemons\":true}", NULL},
    {SWEREX_MODEL_DUMMY_CONFIG, "{\"outputs\":null}", "{\"type\":\"dummy\"}"},
    {SWEREX_MODEL_DUMMY_CONFIG, "{\"type\":\"dummy\",\"outputs\":[]}", NULL},
    {SWEREX_MODEL_DUMMY_CONFIG, "{\"type\":\"dummy\",\"outputs\":[\"a\",\"b\"]}", NULL},
  };
  long before = live;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(cases); i++)
    CHECK_STR(again(cases[i].id, cases[i].json),
              cases[i].expected != NULL ? cases[i].expected : cases[i].json);
  CHECK_INT(live, before);
}

TEST(lax_values) {
  static const char *const yes[] = {"true", "1", "1.0", "\"1\"", "\"TRUE\"", "\"yes\"", "\"On\""};
  static const char *const no[] = {"false", "0", "0.0", "\"0\"", "\"f\"", "\"No\"", "\"off\""};
  static const struct {
    const char *json;
    int n;
  } integers[] = {{"5", 5},       {"5.0", 5},   {"\"5\"", 5},     {"\" 5 \"", 5}, {"\"5.00\"", 5},
                  {"\"+5\"", 5},  {"true", 1},  {"\"0005\"", 5},  {"0", -1},      {"-7", -1},
                  {"\"-3\"", -1}, {"-0.0", -1}, {"2147483647", INT_MAX}};
  static const struct {
    const char *json;
    double seconds;
  } times[] = {{"5", 5},        {"\"5\"", 5},    {"\" 1e3 \"", 1000},   {"\"+5\"", 5},
               {"true", 1},     {"0", SWEREX_NOW}, {"-3", SWEREX_NOW},  {"1e400", SWEREX_FOREVER},
               {"\"0\"", SWEREX_NOW}, {"null", SWEREX_FOREVER}, {"0.25", 0.25}};
  char json[200];
  any_model value;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(yes); i++) {
    snprintf(json, sizeof json, "{\"is_alive\":%s}", yes[i]);
    CHECK(decode(SWEREX_MODEL_IS_ALIVE_RESPONSE, json, &value, NULL) && value.is_alive.is_alive);
    swerex__model_clear(swerex__model_of(SWEREX_MODEL_IS_ALIVE_RESPONSE), &value);
    snprintf(json, sizeof json, "{\"is_alive\":%s}", no[i]);
    CHECK(decode(SWEREX_MODEL_IS_ALIVE_RESPONSE, json, &value, NULL) && !value.is_alive.is_alive);
    swerex__model_clear(swerex__model_of(SWEREX_MODEL_IS_ALIVE_RESPONSE), &value);
  }
  for (size_t i = 0; i < SWEREX__SYS_COUNT(integers); i++) {
    snprintf(json, sizeof json, "{\"n_retry\":%s}", integers[i].json);
    CHECK(decode(SWEREX_MODEL_BASH_INTERRUPT_ACTION, json, &value, NULL));
    CHECK_INT(value.interrupt.n_retry, integers[i].n);
    swerex__model_clear(swerex__model_of(SWEREX_MODEL_BASH_INTERRUPT_ACTION), &value);
  }
  for (size_t i = 0; i < SWEREX__SYS_COUNT(times); i++) {
    snprintf(json, sizeof json, "{\"timeout\":%s}", times[i].json);
    CHECK(decode(SWEREX_MODEL_BASH_INTERRUPT_ACTION, json, &value, NULL));
    CHECK(value.interrupt.timeout == times[i].seconds);
    swerex__model_clear(swerex__model_of(SWEREX_MODEL_BASH_INTERRUPT_ACTION), &value);
  }
}

TEST(messages) {
  static const model_case cases[] = {
    {SWEREX_MODEL_COMMAND, "{}", "command: Field required"},
    {SWEREX_MODEL_COMMAND, "{\"command\":null}",
     "command.str: Input should be a valid string; "
     "command.list[str]: Input should be a valid list"},
    {SWEREX_MODEL_COMMAND, "{\"command\":\"x\",\"env\":[],\"cwd\":1}",
     "env: Input should be a valid dictionary; cwd: Input should be a valid string"},
    {SWEREX_MODEL_COMMAND, "{\"command\":\"x\",\"env\":{\"a\":1}}",
     "env.a: Input should be a valid string"},
    {SWEREX_MODEL_CREATE_BASH_SESSION_REQUEST, "{\"startup_source\":[\"a\",1]}",
     "startup_source.1: Input should be a valid string"},
    {SWEREX_MODEL_CREATE_BASH_SESSION_REQUEST, "{\"session_type\":\"zsh\"}",
     "session_type: Input should be 'bash'"},
    {SWEREX_MODEL_BASH_ACTION, "{\"command\":\"x\",\"check\":\"no\"}",
     "check: Input should be 'silent', 'raise' or 'ignore'"},
    {SWEREX_MODEL_BASH_ACTION, "{\"command\":\"x\",\"max_output\":-1}",
     "max_output: Input should be greater than or equal to 0"},
    {SWEREX_MODEL_BASH_ACTION, "{\"command\":\"x\",\"timeout\":\"abc\"}",
     "timeout: Input should be a valid number, unable to parse string as a number"},
    {SWEREX_MODEL_BASH_ACTION, "{\"command\":\"x\",\"timeout\":\"1\\u00000\"}",
     "timeout: Input should be a valid number, unable to parse string as a number"},
    {SWEREX_MODEL_BASH_INTERRUPT_ACTION, "{\"n_retry\":1.5}",
     "n_retry: Input should be a valid integer, got a number with a fractional part"},
    {SWEREX_MODEL_BASH_INTERRUPT_ACTION, "{\"n_retry\":2147483648}",
     "n_retry: Unable to parse input string as an integer, exceeded maximum size"},
    {SWEREX_MODEL_BASH_INTERRUPT_ACTION, "{\"n_retry\":\"99999999999999999999\"}",
     "n_retry: Unable to parse input string as an integer, exceeded maximum size"},
    {SWEREX_MODEL_BASH_OBSERVATION, "{\"exit_code\":-2147483648}",
     "exit_code: Unable to parse input string as an integer, exceeded maximum size"},
    {SWEREX_MODEL_IS_ALIVE_RESPONSE, "{\"is_alive\":2}",
     "is_alive: Input should be a valid boolean, unable to interpret input"},
    {SWEREX_MODEL_IS_ALIVE_RESPONSE, "{\"is_alive\":\"\\u0000\"}",
     "is_alive: Input should be a valid boolean, unable to interpret input"},
    {SWEREX_MODEL_IS_ALIVE_RESPONSE, "{\"is_alive\":\"\\u0011\"}", /* 1, but for one bit */
     "is_alive: Input should be a valid boolean, unable to interpret input"},
    {SWEREX_MODEL_LOCAL_CONFIG, "{\"nope\":1,\"a\\nb\":2}",
     "nope: Extra inputs are not permitted; a?b: Extra inputs are not permitted"},
    {SWEREX_MODEL_COMMAND, "[]",
     "Command: Input should be a valid dictionary or object to extract fields from"},
    {SWEREX_MODEL_COMMAND, "{\"command\":\"a\\u0000\"}", "command: embedded null byte"},
    {SWEREX_MODEL_COMMAND, "{\"command\":[\"a\",\"\\u0000\"]}", "command: embedded null byte"},
    {SWEREX_MODEL_COMMAND, "{\"command\":\"a\",\"env\":{\"A\":\"\\u0000\"}}",
     "env: embedded null byte"},
    {SWEREX_MODEL_COMMAND, "{\"command\":\"a\",\"env\":{\"A=B\":\"\"}}",
     "env: illegal environment variable name"},
    {SWEREX_MODEL_DOCKER_CONFIG, "{\"labels\":{\"a=b\":\"\"}}",
     "labels: a key cannot have '=' in it"},
    {SWEREX_MODEL_COMMAND, "{\"command\":\"a\\u0000\",\"shell\":{}}",
     "shell: Input should be a valid boolean"},
  };
  long before = live;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(cases); i++)
    CHECK_STR(again(cases[i].id, cases[i].json), cases[i].expected);
  CHECK_INT(live, before);
}

TEST(answers_of_fastapi) {
  CHECK_STR(details(SWEREX_MODEL_COMMAND, "{}"),
            "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\",\"command\"],"
            "\"msg\":\"Field required\",\"input\":{}}]}");
  CHECK_STR(details(SWEREX_MODEL_COMMAND, "{\"command\":5}"),
            "{\"detail\":[{\"type\":\"string_type\",\"loc\":[\"body\",\"command\",\"str\"],"
            "\"msg\":\"Input should be a valid string\",\"input\":5},"
            "{\"type\":\"list_type\",\"loc\":[\"body\",\"command\",\"list[str]\"],"
            "\"msg\":\"Input should be a valid list\",\"input\":5}]}");
  CHECK_STR(details(SWEREX_MODEL_COMMAND, "{\"command\":[1]}"),
            "{\"detail\":[{\"type\":\"string_type\",\"loc\":[\"body\",\"command\",\"str\"],"
            "\"msg\":\"Input should be a valid string\",\"input\":[1]},"
            "{\"type\":\"string_type\",\"loc\":[\"body\",\"command\",\"list[str]\",0],"
            "\"msg\":\"Input should be a valid string\",\"input\":1}]}");
  CHECK_STR(details(SWEREX_MODEL_COMMAND, "[]"),
            "{\"detail\":[{\"type\":\"model_attributes_type\",\"loc\":[\"body\"],\"msg\":\"Input "
            "should be a valid dictionary or object to extract fields from\",\"input\":[]}]}");
  CHECK_STR(details(SWEREX_MODEL_BASH_ACTION, "{\"command\":\"x\",\"check\":5}"),
            "{\"detail\":[{\"type\":\"literal_error\",\"loc\":[\"body\",\"bash\",\"check\"],"
            "\"msg\":\"Input should be 'silent', 'raise' or 'ignore'\",\"input\":5,"
            "\"ctx\":{\"expected\":\"'silent', 'raise' or 'ignore'\"}}]}");
  CHECK_STR(details(SWEREX_MODEL_LOCAL_CONFIG, "{\"max_file\":-1,\"x\":[\"\\\"\"]}"),
            "{\"detail\":[{\"type\":\"greater_than_equal\",\"loc\":[\"body\",\"max_file\"],"
            "\"msg\":\"Input should be greater than or equal to 0\",\"input\":-1,"
            "\"ctx\":{\"ge\":0}},{\"type\":\"extra_forbidden\",\"loc\":[\"body\",\"x\"],"
            "\"msg\":\"Extra inputs are not permitted\",\"input\":[\"\\\"\"]}]}");
}

TEST(problems_are_bounded) {
  swerex__str s = swerex__str_new(NULL, 1 << 20);
  swerex__str_puts(&s, "{\"type\":\"local\"");
  for (int i = 0; i < 50; i++) swerex__str_printf(&s, ",\"k%d\":1", i);
  swerex__str_putc(&s, '}');
  again(SWEREX_MODEL_LOCAL_CONFIG, s.data);
  CHECK(strstr(shown, "k19: Extra") != NULL && strstr(shown, "k20") == NULL);
  CHECK(strstr(shown, "; and 30 more") != NULL);
  swerex__str_clear(&s);
  swerex__str_puts(&s, "{\"");
  for (int i = 0; i < 50000; i++) swerex__str_puts(&s, "\xC3\xA9");
  swerex__str_puts(&s, "\":\"");
  for (int i = 0; i < 50000; i++) swerex__str_putc(&s, 'x');
  swerex__str_puts(&s, "\"}");
  CHECK_INT(strlen(again(SWEREX_MODEL_LOCAL_CONFIG, s.data)),
            200 + strlen(": Extra inputs are not permitted"));
  details(SWEREX_MODEL_LOCAL_CONFIG, s.data);
  CHECK(strlen(shown) < 400 && strstr(shown, "\"input\":null") != NULL);
  swerex__str_clear(&s);
}

TEST(encode_from_c) {
  static const char *const argv[] = {"echo", "\xFF", NULL};
  static const char *const env[] = {"A=1", "B", NULL};
  swerex_command command;
  swerex_bash_action action;
  swerex_bash_interrupt_action interrupt;
  swerex_write_file_request write_file;
  memset(&command, 0, sizeof command);
  memset(&action, 0, sizeof action);
  memset(&interrupt, 0, sizeof interrupt);
  memset(&write_file, 0, sizeof write_file);
  CHECK_STR(encode(SWEREX_MODEL_COMMAND, &command), "command: Field required");
  command.argv = argv;
  command.timeout = SWEREX_NOW;
  command.idle_timeout = SWEREX_FOREVER;
  CHECK_STR(encode(SWEREX_MODEL_COMMAND, &command),
            "{\"command\":[\"echo\",\"\\udcff\"],\"timeout\":0.0,\"shell\":false,\"check\":false,"
            "\"error_msg\":\"\",\"env\":null,\"cwd\":null,\"merge_output_streams\":false}");
  command.command = "x";
  CHECK_STR(encode(SWEREX_MODEL_COMMAND, &command), "command: given as text and as list");
  command.argv = NULL;
  command.env = env;
  CHECK_STR(encode(SWEREX_MODEL_COMMAND, &command), "env.1: 'B' is not KEY=VALUE");
  CHECK_STR(encode(SWEREX_MODEL_BASH_ACTION, &action), "command: Field required");
  action.command = "x";
  action.check = (swerex_check)7;
  CHECK_STR(encode(SWEREX_MODEL_BASH_ACTION, &action),
            "check: Input should be 'silent', 'raise' or 'ignore'");
  interrupt.n_retry = -1;
  double none = 0;
  interrupt.timeout = none / none;
  CHECK_STR(encode(SWEREX_MODEL_BASH_INTERRUPT_ACTION, &interrupt),
            "timeout: NaN is not a number of seconds");
  interrupt.timeout = SWEREX_FOREVER;
  CHECK_STR(encode(SWEREX_MODEL_BASH_INTERRUPT_ACTION, &interrupt),
            "{\"session\":\"default\",\"timeout\":null,\"n_retry\":0,\"expect\":[],"
            "\"action_type\":\"bash_interrupt\"}");
  CHECK_STR(encode(SWEREX_MODEL_WRITE_FILE_REQUEST, &write_file), "path: Field required");
  write_file.path = "p";
  CHECK_STR(encode(SWEREX_MODEL_WRITE_FILE_REQUEST, &write_file),
            "{\"content\":\"\",\"path\":\"p\"}");
  write_file.content.size = 3;
  CHECK_STR(encode(SWEREX_MODEL_WRITE_FILE_REQUEST, &write_file), "content: 3 bytes at NULL");
  swerex_remote_config remote;
  memset(&remote, 0, sizeof remote);
  remote.auth_token = "t";
  CHECK_STR(encode(SWEREX_MODEL_REMOTE_CONFIG, &remote), /* a port of 0 would be one, in Python */
            "{\"type\":\"remote\",\"auth_token\":\"t\",\"host\":\"http://127.0.0.1\",\"port\":null,"
            "\"timeout\":0.15}");
}

static void on_output(void *user_data, swerex_stream stream, const char *text, size_t size) {
  (void)user_data, (void)stream, (void)text, (void)size;
}

TEST(copy_keeps_what_json_has_not) {
  static const char *const expect[] = {"a", "", "b", NULL};
  int mark = 0;
  char text[] = "ls";
  swerex_bash_action action, copy;
  memset(&action, 0, sizeof action);
  action.command = text;
  action.expect = expect;
  action.watch.on_output = on_output;
  action.watch.user_data = &mark;
  action.watch.raw = true;
  action.timeout = 3;
  const swerex__model *model = swerex__model_of(SWEREX_MODEL_BASH_ACTION);
  CHECK(swerex__model_copy(NULL, model, &action, &copy, NULL));
  text[0] = 'x';
  CHECK_STR(copy.command, "ls");
  CHECK(copy.session == NULL && copy.error_msg == NULL && copy.timeout == 3);
  CHECK(copy.watch.on_output == on_output && copy.watch.user_data == &mark && copy.watch.raw);
  CHECK(copy.expect != expect);
  CHECK_STR(copy.expect[1], "");
  CHECK_STR(copy.expect[2], "b");
  CHECK(copy.expect[3] == NULL);
  swerex__model_clear(model, &copy);
  CHECK(copy.command == NULL && copy.watch.on_output == NULL && copy.timeout == 0);
}

TEST(models_without_a_number) {
  swerex_is_alive_request request = {2.5};
  swerex__str s = swerex__str_new(NULL, 1000);
  CHECK(swerex__encode_model(&swerex__model_is_alive_request, &request, &s, NULL));
  CHECK_STR(s.data, "{\"timeout\":2.5}");
  swerex__str_clear(&s);
  swerex_close_request none = {0}, copy;
  CHECK(swerex__encode_model(&swerex__model_close_request, &none, &s, NULL));
  CHECK_STR(s.data, "{}");
  swerex__str_clear(&s);
  CHECK(swerex__model_copy(NULL, &swerex__model_close_request, &none, &copy, NULL));
  CHECK(swerex__model_of((swerex_model)0) == NULL);
  CHECK(swerex__model_of(SWEREX_MODEL_COUNT_) == NULL);
}

/** The tag of the variant that is selected, or the message. */
static const char *chosen(const swerex__union *all, const char *json) {
  swerex__doc doc;
  swerex_error err = SWEREX_ERROR_INIT;
  CHECK(swerex__doc_parse(NULL, json, strlen(json), &doc, NULL));
  const swerex__union_variant *variant = swerex__union_select(NULL, all, doc.root, &err);
  snprintf(shown, sizeof shown, "%s", variant != NULL ? variant->tag : err.message);
  swerex__doc_free(&doc);
  swerex__err_clear(&err);
  return shown;
}

TEST(unions) {
  CHECK_STR(chosen(&swerex__union_actions, "{}"), "bash");
  CHECK_STR(chosen(&swerex__union_actions, "{\"action_type\":\"bash\"}"), "bash");
  CHECK_STR(chosen(&swerex__union_actions, "{\"action_type\":\"bash_interrupt\"}"),
            "bash_interrupt");
  CHECK_STR(chosen(&swerex__union_actions, "{\"action_type\":5}"),
            "action_type: Input tag '5' found using 'action_type' does not match any of the "
            "expected tags: 'bash', 'bash_interrupt'");
  CHECK_STR(chosen(&swerex__union_deployments, "{}"),
            "type: Unable to extract tag using discriminator 'type'");
  static const char told[] = "type: Input tag 'x?'' found using 'type' does not match any of the expected tags: "
                             "'local', 'dummy', 'remote'";
  CHECK(strncmp(chosen(&swerex__union_deployments, "{\"type\":\"x\\u0000'\"}"), told,
                sizeof told - 1) == 0);
  for (size_t size = SWEREX__VALID_ECHO - 1; size <= SWEREX__VALID_ECHO + 1; size++) {
    static char json[SWEREX__VALID_ECHO + 64]; /* just repeated, or not */
    snprintf(json, sizeof json, "{\"type\":[\"%0*d\"]}", (int)size - 4, 0);
    chosen(&swerex__union_deployments, json);
    const char *tag = size > SWEREX__VALID_ECHO ? "type: Input tag 'null'" : "type: Input tag '[\"0";
    CHECK(strncmp(shown, tag, strlen(tag)) == 0);
  }
  CHECK_STR(chosen(&swerex__union_deployments, "{\"type\":\"\"}"),
            "type: Input tag '' found using 'type' does not match any of the expected tags: "
            "'local', 'dummy', 'remote', 'docker', 'fargate', 'modal'");
  CHECK_STR(chosen(&swerex__union_deployments, "[]"),
            "DeploymentConfig: Input should be a valid dictionary or object to extract fields "
            "from");
}

/** Read a deployment's JSON, copy it, and say what came of it. */
static const char *deploy(const char *json) {
  swerex__doc doc;
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_deployment_config config, copy;
  CHECK(swerex__doc_parse(NULL, json, strlen(json), &doc, NULL));
  if (!swerex__union_decode_deployment(NULL, doc.root, &config, &err)) {
    snprintf(shown, sizeof shown, "%s", err.message);
    CHECK(config.type == 0);
  } else {
    CHECK(swerex__union_copy_deployment(NULL, &config, &copy, &err));
    swerex__union_clear_deployment(&config);
    if (copy.type == SWEREX_DEPLOYMENT_LOCAL)
      snprintf(shown, sizeof shown, "local %zu", copy.u.local.max_file);
    else
      snprintf(shown, sizeof shown, "dummy %s",
               copy.u.dummy.outputs == NULL ? "none" : copy.u.dummy.outputs[0]);
    swerex__union_clear_deployment(&copy);
    CHECK(copy.type == 0);
  }
  swerex__doc_free(&doc);
  swerex__err_clear(&err);
  return shown;
}

TEST(deployments) {
  CHECK_STR(deploy("{\"type\":\"local\",\"max_file\":7}"), "local 7");
  CHECK_STR(deploy("{\"type\":\"dummy\"}"), "dummy none");
  CHECK_STR(deploy("{\"type\":\"dummy\",\"outputs\":[\"o\"]}"), "dummy o");
  CHECK_STR(deploy("{\"type\":\"dummy\",\"outputs\":[1],\"image\":\"x\"}"),
            "outputs.0: Input should be a valid string; image: Extra inputs are not permitted");
  swerex_deployment_config config, copy;
  swerex_error err = SWEREX_ERROR_INIT;
  memset(&config, 0, sizeof config);
  CHECK(!swerex__union_copy_deployment(NULL, &config, &copy, &err));
  CHECK_STR(err.message, "type: there is no deployment type 0");
  swerex__err_clear(&err);
  swerex__union_clear_deployment(&config);
}

TEST(memory_failures) {
  static const model_case cases[] = {
    {SWEREX_MODEL_COMMAND, "{\"command\":[\"a\",\"b\"],\"env\":{\"A\":\"b\"},\"cwd\":\"/\"}", ""},
    {SWEREX_MODEL_BASH_ACTION, "{\"command\":\"x\",\"expect\":[\"a\"]}", ""},
    {SWEREX_MODEL_BASH_OBSERVATION, "{\"output\":\"x\"}", ""},
    {SWEREX_MODEL_COMMAND, "{\"command\":[1],\"env\":3,\"shell\":\"q\"}", NULL},
    {SWEREX_MODEL_BASH_ACTION, "{\"check\":3,\"max_output\":-1}", NULL},
    {SWEREX_MODEL_LOCAL_CONFIG, "{\"type\":\"x\",\"y\":{\"z\":[1,2,3]}}", NULL},
  };
  long before = live;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(cases); i++) {
    const swerex__model *model = swerex__model_of(cases[i].id);
    swerex__doc doc;
    swerex_error err = SWEREX_ERROR_INIT;
    bool done = false;
    CHECK(swerex__doc_parse(NULL, cases[i].json, strlen(cases[i].json), &doc, NULL));
    for (long n = 0; !done && n < 1000; n++) {
      any_model value, copy;
      budget = n;
      bool ok = swerex__decode_model(NULL, model, doc.root, &value, &err);
      if (ok && (ok = swerex__model_copy(NULL, model, &value, &copy, &err)))
        swerex__model_clear(model, &copy);
      budget = -1;
      done = ok || (cases[i].expected == NULL && err.extra_info != NULL);
      CHECK(ok || err.code == SWEREX_E_NO_MEMORY || err.code == SWEREX_E_VALIDATION);
      swerex__model_clear(model, &value);
      swerex__err_clear(&err);
    }
    CHECK(done);
    swerex__doc_free(&doc);
    CHECK_INT(live, before);
  }
}

TEST(objects_that_are_kept_as_json) {
  swerex_modal_config config, bad = {.modal_sandbox_kwargs = "[1]"};
  swerex_bytes json = {NULL, 0};
  swerex_error err = SWEREX_ERROR_INIT;
  CHECK(swerex_from_json(SWEREX_MODEL_MODAL_CONFIG,
                         "{\"type\":\"modal\",\"modal_sandbox_kwargs\": {\"cpu\": 2, \"a\": [1, null, "
                         "\"\\u0000\"]}, \"install_pipx\": false}",
                         0, &config, &err));
  CHECK_STR(config.modal_sandbox_kwargs, "{\"cpu\":2,\"a\":[1,null,\"\\u0000\"]}");
  CHECK(config.skip_pipx);
  CHECK(swerex_to_json(SWEREX_MODEL_MODAL_CONFIG, &config, &json, &err));
  CHECK_STR(json.data,
            "{\"image\":\"python:3.11\",\"startup_timeout\":180.0,\"runtime_timeout\":60.0,"
            "\"deployment_timeout\":3600.0,\"modal_sandbox_kwargs\":{\"cpu\":2,\"a\":[1,null,"
            "\"\\u0000\"]},\"type\":\"modal\",\"install_pipx\":false}");
  swerex_free(json.data);
  swerex_model_clear(SWEREX_MODEL_MODAL_CONFIG, &config);
  CHECK(!swerex_to_json(SWEREX_MODEL_MODAL_CONFIG, &bad, &json, &err));
  CHECK_STR(err.message, "modal_sandbox_kwargs: it is no JSON object");
  bad.modal_sandbox_kwargs = "{";
  CHECK(!swerex_to_json(SWEREX_MODEL_MODAL_CONFIG, &bad, &json, &err));
  CHECK(strncmp(err.message, "modal_sandbox_kwargs: it is not JSON: ", 38) == 0);
  bad.modal_sandbox_kwargs = "{}";
  budget = 0;
  CHECK(!swerex_to_json(SWEREX_MODEL_MODAL_CONFIG, &bad, &json, &err));
  budget = -1;
  CHECK_INT(err.code, SWEREX_E_NO_MEMORY);
  CHECK(!swerex_from_json(SWEREX_MODEL_MODAL_CONFIG, "{\"modal_sandbox_kwargs\":[]}", 0, &config,
                          &err));
  CHECK_INT(err.code, SWEREX_E_VALIDATION);
  swerex_error_clear(&err);
}

TEST_MAIN()
