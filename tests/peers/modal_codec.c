/* Our codec of protobuf for modal_codec.mjs: `--list` names its messages with their fields, else
 * each line `MESSAGE HEX` is decoded, encoded again, and answered with its hex, or `!` and why. */
#define SWEREX_USE_CURL 2
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#define NONE(...)
#define MESSAGE(type, name) &swerex__modalpb_##type##_message,
static const swerex__pb_message *const messages[] = {
  SWEREX__MODALPB_MESSAGES(NONE, NONE, NONE, NONE, NONE, NONE, NONE, MESSAGE)
  &swerex__grpc_details_message, &swerex__grpc_retry_message};

static void list(void) {
  for (size_t i = 0; i < SWEREX__SYS_COUNT(messages); i++) {
    printf("%s", messages[i]->name);
    for (size_t k = 0; k < messages[i]->count; k++) printf(" %u", messages[i]->rows[k].number);
    printf("\n");
  }
}

static int digit(char c) {
  const char *digits = "0123456789abcdef", *place = c == '\0' ? NULL : strchr(digits, c);
  return place == NULL ? -1 : (int)(place - digits);
}

/** Turn hex into the bytes it stands for, in place. */
static size_t unhex(char *text) {
  size_t size = 0;
  for (; digit(text[2 * size]) >= 0 && digit(text[2 * size + 1]) >= 0; size++)
    text[size] = (char)(digit(text[2 * size]) << 4 | digit(text[2 * size + 1]));
  return size;
}

static void answer(const swerex__pb_message *message, const char *data, size_t size) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__str out = swerex__str_new(NULL, (size_t)1 << 30);
  swerex__pb_doc doc;
  const void *value = swerex__pb_decode(NULL, message, data, size, &doc, &err);
  if (value == NULL) {
    printf("!%s\n", err.message);
    swerex__err_clear(&err);
    return;
  }
  swerex__pb_encode(message, value, &out);
  for (size_t i = 0; i < out.size; i++) printf("%02x", (unsigned)(unsigned char)out.data[i]);
  printf("\n");
  swerex__pb_free(&doc);
  swerex__str_clear(&out);
}

int main(int argc, char **argv) {
  char *line = NULL;
  size_t room = 0;
  if (argc > 1 && strcmp(argv[1], "--list") == 0) {
    list();
    return 0;
  }
  while (getline(&line, &room, stdin) > 0) {
    char *space = strchr(line, ' ');
    size_t i = 0;
    if (space != NULL) *space++ = '\0';
    line[strcspn(line, "\n")] = '\0';
    while (i < SWEREX__SYS_COUNT(messages) && strcmp(messages[i]->name, line) != 0) i++;
    if (i == SWEREX__SYS_COUNT(messages))
      printf("!%s is not known\n", line);
    else
      answer(messages[i], space, space == NULL ? 0 : unhex(space));
    fflush(stdout);
  }
  free(line);
  return 0;
}
