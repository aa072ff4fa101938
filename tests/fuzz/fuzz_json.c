/*
 * Any text: what the reader accepts must come back from the writer as the same text again, and
 * every model must read it, or refuse it, without a fault.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef union any_model {
  swerex_command command;
  swerex_bash_action action;
  swerex_create_bash_session_request create;
  swerex_bash_observation observation;
  swerex_deployment_config deployment;
} any_model;

static void require(bool condition) {
  if (!condition) abort();
}

static swerex__str write_node(const swerex__json *node) {
  swerex__str s = swerex__str_new(NULL, (size_t)1 << 26);
  swerex__json_add_node(&s, node);
  require(!s.failed);
  return s;
}

/** What was read must encode, and read back as the same. */
static void try_model(const swerex__model *model, const swerex__json *node) {
  any_model value, other;
  swerex__doc doc;
  swerex_error err = SWEREX_ERROR_INIT;
  if (!swerex__decode_model(NULL, model, node, &value, &err)) {
    require(err.code == SWEREX_E_VALIDATION || err.code == SWEREX_E_VALUE);
    if (err.extra_info != NULL) {
      require(swerex__doc_parse(NULL, err.extra_info, strlen(err.extra_info), &doc, NULL));
      swerex__doc_free(&doc);
    }
    swerex__err_clear(&err);
    return;
  }
  swerex__str first = swerex__str_new(NULL, (size_t)1 << 26), second = first;
  require(swerex__encode_model(model, &value, &first, NULL));
  require(swerex__doc_parse(NULL, first.data, first.size, &doc, NULL));
  require(swerex__decode_model(NULL, model, doc.root, &other, NULL));
  require(swerex__encode_model(model, &other, &second, NULL));
  require(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
  swerex__doc_free(&doc);
  swerex__model_clear(model, &value);
  swerex__model_clear(model, &other);
  swerex__str_clear(&first);
  swerex__str_clear(&second);
}

/** The place of a fault, counted over the text itself. */
static void check_fault(const uint8_t *data, const swerex__doc_fault *fault) {
  size_t position = 0, line = 1, column = 1;
  for (size_t i = 0; i < fault->byte; i++) {
    if ((data[i] & 0xC0) == 0x80) continue;
    position++;
    column++;
    if (data[i] != '\n') continue;
    line++;
    column = 1;
  }
  require(fault->position == position && fault->line == line && fault->column == column);
}

/** Read in place must be as read beside it. */
static void try_in_place(const uint8_t *data, size_t size, bool ok, const swerex__doc *doc) {
  swerex__doc other;
  char *text = (char *)malloc(size > 0 ? size : 1);
  require(text != NULL);
  memcpy(text, data, size);
  require(swerex__doc_parse_in_place(NULL, text, size, &other, NULL) == ok);
  if (ok) {
    swerex__str first = write_node(doc->root), second = write_node(other.root);
    require(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
    swerex__str_clear(&first);
    swerex__str_clear(&second);
  } else {
    require(other.fault.byte == doc->fault.byte && other.fault.position == doc->fault.position);
  }
  swerex__doc_free(&other);
  free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  swerex__doc doc, again;
  swerex_error err = SWEREX_ERROR_INIT;
  bool ok = swerex__doc_parse(NULL, (const char *)data, size, &doc, &err);
  try_in_place(data, size, ok, &doc);
  if (!ok) {
    require(err.code == SWEREX_E_JSON && doc.fault.byte <= size);
    check_fault(data, &doc.fault);
    swerex__err_clear(&err);
    return 0;
  }
  swerex__str first = write_node(doc.root);
  require(swerex__doc_parse(NULL, first.data, first.size, &again, NULL));
  swerex__str second = write_node(again.root);
  require(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
  swerex__str_clear(&first);
  swerex__str_clear(&second);
  swerex__doc_free(&again);
  for (int id = 1; id < (int)SWEREX_MODEL_COUNT_; id++)
    try_model(swerex__model_of((swerex_model)id), doc.root);
  any_model value;
  if (swerex__union_decode_deployment(NULL, doc.root, &value.deployment, NULL))
    swerex__union_clear_deployment(&value.deployment);
  swerex__union_select(NULL, &swerex__union_actions, doc.root, NULL);
  swerex__doc_free(&doc);
  return 0;
}
