/* The reader that says "surely complete", and quoting: no crash, no overrun, bounded time, and the
 * answers that must agree do. */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** Undo swerex__bash_quote; false if it is not one $'...' word of printable bytes. */
static bool fuzz_unquote(const char *word, size_t size, char *text, size_t *length) {
  *length = 0;
  if (size < 3 || word[0] != '$' || word[1] != '\'' || word[size - 1] != '\'') return false;
  for (size_t i = 2; i < size - 1; i++) {
    unsigned char c = (unsigned char)word[i];
    if (c < ' ' || c == 127 || c == '\'') return false;
    if (c == '\\') {
      c = (unsigned char)word[++i];
      if (c == 'n') {
        c = '\n';
      } else if (c >= '0' && c <= '3') {
        c = (unsigned char)((c - '0') * 64 + (word[i + 1] - '0') * 8 + (word[i + 2] - '0'));
        i += 2;
      } else if (c != '\'' && c != '\\') {
        return false;
      }
    }
    text[(*length)++] = (char)c;
  }
  return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  /* A copy of exactly this size, so that a sanitizer sees one byte too far. */
  char *text = (char *)calloc(size == 0 ? 1 : size, 1);
  char *back = (char *)malloc(size * 4 + 4);
  swerex__str quoted = swerex__str_new(NULL, size * 4 + 16);
  size_t length = 0;
  if (text == NULL || back == NULL) abort();
  if (size > 0) memcpy(text, data, size);
  bool sure = swerex__bash_is_sure(text, size);
  if (swerex__bash_is_blank(text, size) && swerex__bash_is_plain(text, size) && !sure) abort();
  if (sure && memchr(text, '\0', size) != NULL) abort();
  if (sure && swerex__word_count_escapes(text, size) % 2 == 1) {
    const char *line = text + size; /* only a comment may end like this */
    while (line > text && line[-1] != '\n') line--;
    if (memchr(line, '#', (size_t)(text + size - line)) == NULL) abort();
  }
  swerex__bash_quote(&quoted, text, size);
  if (quoted.failed || !fuzz_unquote(quoted.data, quoted.size, back, &length)) abort();
  if (length != size || (size > 0 && memcmp(back, text, size) != 0)) abort();
  if (!swerex__bash_is_sure(quoted.data, quoted.size) && swerex__bash_is_plain(text, size)) abort();
  swerex__str_clear(&quoted);
  free(text);
  free(back);
  return 0;
}
