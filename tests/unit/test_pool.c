/* The server's memory (tools/pool.h): blocks keep what is in them, and little waits for long. */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "../../tools/pool.h"
#include "test.h"

static size_t waiting(const pool *all) {
  size_t bytes = 0;
  for (int i = 0; i < POOL_LARGE; i++) bytes += all->large[i] != NULL ? all->large[i]->at.room : 0;
  return bytes;
}

static bool is_full_of(const char *block, size_t size, char c) {
  for (size_t i = 0; i < size; i++)
    if (block[i] != c) return false;
  return true;
}

TEST(blocks_keep_their_bytes) {
  enum { BLOCKS = 40, STEPS = 4000 };
  char *blocks[BLOCKS] = {NULL};
  size_t sizes[BLOCKS] = {0};
  pool all;
  memset(&all, 0, sizeof all);
  srand(1);
  for (int step = 0; step < STEPS; step++) {
    int i = rand() % BLOCKS;
    size_t least, size = rand() % 4 == 0 ? 0 : (size_t)1 << rand() % 19;
    size += size == 0 ? 0 : (size_t)rand() % size;
    CHECK(is_full_of(blocks[i], sizes[i], (char)i));
    least = size < sizes[i] ? size : sizes[i];
    blocks[i] = (char *)pool_reallocate(&all, blocks[i], size);
    CHECK((blocks[i] == NULL) == (size == 0));
    CHECK(is_full_of(blocks[i], least, (char)i));
    if (size > 0) memset(blocks[i], i, size);
    sizes[i] = size;
    CHECK(all.kept <= POOL_KEPT && waiting(&all) <= POOL_LARGE * (size_t)POOL_LARGEST);
  }
  for (int i = 0; i < BLOCKS; i++) pool_reallocate(&all, blocks[i], 0);
  pool_empty(&all);
}

TEST(large_blocks_wait_for_a_while) {
  pool all;
  memset(&all, 0, sizeof all);
  void *block = pool_reallocate(&all, NULL, 5 << 20), *other;
  pool_reallocate(&all, block, 0);
  CHECK(waiting(&all) > 5 << 20 && pool_trim(&all, 100));
  other = pool_reallocate(&all, NULL, 4 << 20);
  CHECK(other == block && waiting(&all) == 0); /* it fits */
  pool_reallocate(&all, other, 0);
  pool_trim(&all, 0);
  CHECK(waiting(&all) == 0 && !pool_trim(&all, 0));
  block = pool_reallocate(&all, NULL, (size_t)POOL_LARGEST + 1);
  pool_reallocate(&all, block, 0);
  CHECK(waiting(&all) == 0); /* too large to wait */
  CHECK(pool_reallocate(&all, NULL, SIZE_MAX - 3) == NULL);
  pool_empty(&all);
}

TEST_MAIN()
