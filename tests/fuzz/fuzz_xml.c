/*
 * Any text as an XML answer: it is read or refused with a reason and a place; what was read is a
 * tree of the promised kind and depth, and comes back the same when it is written as XML again.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
  if (!condition) abort();
}

static void write_text(swerex__str *out, const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (strchr("<>&\"'\r", text[i]) != NULL)
      swerex__str_printf(out, "&#%d;", text[i]);
    else
      swerex__str_putc(out, text[i]);
  }
}

/** Write an element as XML; `depth` elements are open. */
static void write_element(swerex__str *out, const swerex__json *node, int depth) {
  require(depth < SWEREX__XML_DEPTH && node->key_size > 0);
  require(node->type == SWEREX__JSON_STRING || node->type == SWEREX__JSON_OBJECT);
  swerex__str_putc(out, '<');
  swerex__str_add(out, node->key, node->key_size);
  swerex__str_putc(out, '>');
  if (node->type == SWEREX__JSON_OBJECT) {
    size_t count = 0;
    for (const swerex__json *child = node->child; child != NULL; child = child->next, count++)
      write_element(out, child, depth + 1);
    require(count == node->size && count > 0);
  } else {
    write_text(out, node->string, node->size);
  }
  swerex__str_puts(out, "</");
  swerex__str_add(out, node->key, node->key_size);
  swerex__str_putc(out, '>');
}

static swerex__str write_tree(const swerex__json *root) {
  swerex__str out = swerex__str_new(NULL, (size_t)1 << 26);
  write_element(&out, root, 0);
  require(!out.failed);
  return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  swerex__doc doc, again;
  swerex_error err = SWEREX_ERROR_INIT;
  char *exact = (char *)malloc(size); /* without a byte behind it */
  if (size > 0) memcpy(exact, data, size);
  bool read = swerex__xml_parse(NULL, exact, size, &doc, &err);
  free(exact);
  if (!read) {
    require(err.code == SWEREX_E_VALUE && strstr(err.message, "at byte") != NULL);
    swerex__err_clear(&err);
    return 0;
  }
  swerex__str first = write_tree(doc.root);
  require(swerex__xml_parse(NULL, first.data, first.size, &again, NULL));
  swerex__str second = write_tree(again.root);
  require(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
  swerex__str json = swerex__str_new(NULL, (size_t)1 << 26);
  swerex__json_add_node(&json, doc.root);
  swerex__doc_free(&again);
  swerex__doc_free(&doc);
  require(swerex__doc_parse(NULL, json.data, json.size, &doc, NULL));
  swerex__doc_free(&doc);
  swerex__str_clear(&json);
  swerex__str_clear(&first);
  swerex__str_clear(&second);
  return 0;
}
