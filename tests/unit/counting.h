/* The implementation, with memory that is counted and runs out when a test says so. */
#ifndef COUNTING_H
#define COUNTING_H

#include <stddef.h>
static void *counting_malloc(size_t size);
static void *counting_realloc(void *block, size_t size);
static void counting_free(void *block);

#define SWEREX_IMPLEMENTATION
#define SWEREX_MALLOC(size) counting_malloc(size)
#define SWEREX_REALLOC(block, size) counting_realloc(block, size)
#define SWEREX_FREE(block) counting_free(block)
#include "swerex.h"

static long budget = -1; /* calls until one fails, and all after it; -1: none does */
static long calls;       /* so far, to make a block or to resize one */
static long resizes;     /* of them, to resize one */
static long live;        /* blocks in use */

static bool spend(void) {
  calls++;
  if (budget == 0) return false;
  if (budget > 0) budget--;
  return true;
}

static void *counting_malloc(size_t size) {
  void *block = spend() ? malloc(size) : NULL;
  live += block != NULL;
  return block;
}

static void *counting_realloc(void *block, size_t size) {
  resizes++;
  return spend() ? realloc(block, size) : NULL;
}

static void counting_free(void *block) {
  live -= block != NULL;
  free(block);
}

#endif
