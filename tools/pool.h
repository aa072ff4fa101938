/*
 * Memory that is kept for the next request. A server makes and releases the same blocks again and
 * again, and musl gives each of them back to the system, which takes microseconds for a small one
 * and milliseconds for one as large as a file. Include behind swerex.h with its implementation.
 */

enum {
  POOL_FIRST = 6,           /* the smallest block has 1 << POOL_FIRST bytes */
  POOL_LAST = 16,           /* from larger ones on they have the size that was asked for */
  POOL_KEPT = 256 << 10,    /* bytes of small blocks that wait at most */
  POOL_LARGE = 4,           /* large blocks that wait at most */
  POOL_LARGEST = 16 << 20   /* of those */
};

#define POOL_PATIENCE 1.0 /* seconds: then large blocks that nobody wanted are given back */

/** In front of each block. */
typedef union pool_head {
  struct {
    size_t room; /* bytes, with this head */
    union pool_head *next;
  } at;
  long double align_;
} pool_head;

typedef struct pool {
  pool_head *small[POOL_LAST + 1]; /* by the logarithm of their room */
  pool_head *large[POOL_LARGE];
  size_t kept;
  double used; /* when a large one was last released */
} pool;

static size_t pool_order(size_t size) {
  size_t order = POOL_FIRST;
  while (order <= POOL_LAST && (size_t)1 << order < size) order++;
  return order;
}

/** Give back large blocks that nobody has wanted for a while; true: some still wait. */
static bool pool_trim(pool *all, double patience) {
  bool waits = false;
  for (int i = 0; i < POOL_LARGE; i++) {
    if (all->large[i] == NULL) continue;
    waits = true;
    if (swerex__util_now() - all->used < patience) continue;
    free(all->large[i]);
    all->large[i] = NULL;
  }
  return waits;
}

static void pool_release(pool *all, pool_head *head) {
  size_t order = pool_order(head->at.room), room = head->at.room;
  if (order <= POOL_LAST && room <= POOL_KEPT - all->kept) {
    head->at.next = all->small[order];
    all->small[order] = head;
    all->kept += room;
    return;
  }
  for (int i = 0; order > POOL_LAST && room <= POOL_LARGEST && i < POOL_LARGE; i++) {
    if (all->large[i] != NULL) continue;
    all->large[i] = head;
    all->used = swerex__util_now();
    return;
  }
  free(head);
}

/** Find a large block that fits, and is not much too large; else make one. */
static pool_head *pool_take_large(pool *all, size_t size) {
  for (int i = 0; i < POOL_LARGE; i++) {
    pool_head *head = all->large[i];
    if (head == NULL || head->at.room < size || head->at.room / 2 > size) continue;
    all->large[i] = NULL;
    return head;
  }
  pool_head *head = (pool_head *)malloc(size);
  if (head == NULL) return NULL;
  head->at.room = size;
  if (size >= SWEREX__MEM_LARGE) swerex__sys_advise(head, size);
  return head;
}

static pool_head *pool_take(pool *all, size_t size) {
  size_t order = pool_order(size);
  if (order > POOL_LAST) return pool_take_large(all, size);
  pool_head *head = all->small[order];
  if (head != NULL) {
    all->small[order] = head->at.next;
    all->kept -= head->at.room;
    return head;
  }
  head = (pool_head *)malloc((size_t)1 << order);
  if (head != NULL) head->at.room = (size_t)1 << order;
  return head;
}

/** A swerex_allocator's function; user_data is a pool, zeroed at first. */
static void *pool_reallocate(void *user_data, void *block, size_t size) {
  pool *all = (pool *)user_data;
  pool_head *old = block == NULL ? NULL : (pool_head *)block - 1, *head;
  if (size > SIZE_MAX - sizeof *head) return NULL;
  if (size == 0) {
    if (old != NULL) pool_release(all, old);
    return NULL;
  }
  size += sizeof *head;
  if (old != NULL && old->at.room >= size && old->at.room / 2 <= size) return block;
  if (old != NULL && pool_order(old->at.room) > POOL_LAST && pool_order(size) > POOL_LAST) {
    head = (pool_head *)realloc(old, size);
    if (head == NULL) return NULL;
    head->at.room = size;
    if (size >= SWEREX__MEM_LARGE) swerex__sys_advise(head, size);
    return head + 1;
  }
  head = pool_take(all, size);
  if (head == NULL || old == NULL) return head == NULL ? NULL : head + 1;
  memcpy(head + 1, block, (old->at.room < size ? old->at.room : size) - sizeof *head);
  pool_release(all, old);
  return head + 1;
}

/** Give back all that waits. */
static void pool_empty(pool *all) {
  for (size_t order = POOL_FIRST; order <= POOL_LAST; order++)
    for (pool_head *head = all->small[order], *next; head != NULL; head = next) {
      next = head->at.next;
      free(head);
    }
  pool_trim(all, 0);
}
