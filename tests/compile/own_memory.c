#include <stddef.h>
void *own_malloc(size_t size);
void *own_realloc(void *block, size_t size);
void own_free(void *block);
#define SWEREX_MALLOC(size) own_malloc(size)
#define SWEREX_REALLOC(block, size) own_realloc(block, size)
#define SWEREX_FREE(block) own_free(block)
#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE 1
#define SWEREX_IMPLEMENTATION
#include "swerex.h"
