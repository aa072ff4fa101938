/*
 * Patterns, one a line, up to the first empty line, and behind it a stream, whose first byte tells
 * how to cut it. After each piece the answer must be that of a new matcher for all up to there.
 */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_PATTERNS = 8, MOST_BYTES = 1024 };

static void require(bool condition) {
  if (!condition) abort();
}

/** Feed a piece from a block of its exact size, so that a read beyond it is noticed. */
static bool feed(swerex__re *re, const char *piece, size_t size, swerex__re_match *match) {
  char *exact = (char *)malloc(size > 0 ? size : 1);
  require(exact != NULL);
  if (size > 0) memcpy(exact, piece, size);
  uint64_t pending = swerex__match_pending(re);
  bool found = swerex__match_feed(re, exact, size, match);
  require(!found || (match->start >= pending && match->end >= match->start));
  free(exact);
  return found;
}

/** Cut a stream into pieces, and compare each answer with that for the whole up to there. */
static void run(swerex__re *re, swerex__re *other, const char *stream, size_t size, uint32_t cut,
                size_t patterns) {
  swerex__re_match match, expected;
  bool found = false;
  for (size_t at = 0, n; !found && at < size; at += n) {
    cut = cut * 1664525 + 1013904223;
    n = (cut >> 24) % 7;
    if (n > size - at) n = size - at;
    found = feed(re, stream + at, n, &match);
    swerex__match_reset(other);
    require(found == feed(other, stream, at + n, &expected));
    if (!found) continue;
    require(match.pattern == expected.pattern && match.pattern < patterns);
    require(match.start == expected.start && match.end == expected.end);
    require(match.end <= at + n);
  }
  swerex__match_reset(re);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char text[MOST_BYTES + 1];
  const char *patterns[MOST_PATTERNS + 1];
  size_t count = 0, at = 0;
  if (size > MOST_BYTES) return 0;
  if (size > 0) memcpy(text, data, size);
  text[size] = '\0';
  while (count < MOST_PATTERNS && at < size && text[at] != '\n') {
    patterns[count++] = text + at;
    while (at < size && text[at] != '\n') at++;
    if (at < size) text[at++] = '\0';
  }
  patterns[count] = NULL;
  at += at < size;
  swerex_error err = SWEREX_ERROR_INIT;
  swerex__re *re = swerex__match_new(NULL, patterns, &err);
  if (re == NULL) {
    require(err.code == SWEREX_E_PATTERN && strstr(err.message, " at position ") != NULL);
    swerex__err_clear(&err);
    return 0;
  }
  swerex__re *other = swerex__match_new(NULL, patterns, NULL);
  require(other != NULL);
  uint32_t cut = at < size ? (uint8_t)text[at] : 0;
  for (uint32_t i = 0; i < 2; i++) run(re, other, text + at, size - at, cut + i, count);
  swerex__match_free(other);
  swerex__match_free(re);
  return 0;
}
