/* [poll] by poll(2), the sibling for any system, and the timers of a [loop] that waits by it. */
#define SWEREX_IMPLEMENTATION
#define SWEREX_POLLER SWEREX_POLLER_POLL
#include "swerex.h"

#include "test.h"

enum { WATCHES = 100 }; /* more than a batch holds */

static int calls[WATCHES];

static void count_call(swerex__poll_watch *watch) { ++*(int *)watch->owner; }

TEST(each_ready_descriptor_has_its_turn) {
  static swerex__poll_watch watches[WATCHES];
  int ends[2];
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  memset(calls, 0, sizeof calls);
  CHECK(pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
  for (int i = 0; i < WATCHES; i++) {
    watches[i].fd = ends[0];
    watches[i].ready = count_call;
    watches[i].owner = &calls[i];
    CHECK(swerex__poll_set(&loop->poll, &watches[i], SWEREX__POLL_READ));
  }
  for (int run = 0; run < WATCHES; run++) CHECK(swerex_loop_run(loop, 0, NULL));
  for (int i = 0; i < WATCHES; i++) CHECK_INT(calls[i], SWEREX__POLL_BATCH);
  for (int i = 0; i < WATCHES; i++) swerex__poll_set(&loop->poll, &watches[i], 0);
  CHECK_INT(loop->poll.count, 1); /* the loop's own */
  swerex_loop_free(loop);
  close(ends[0]);
  close(ends[1]);
}

static void count_fire(swerex__loop_timer *timer) { ++*(int *)timer->owner; }

TEST(timers_fire_in_order_of_time) {
  swerex__loop_timer timers[3] = {{{0}}};
  int fired = 0;
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  CHECK(swerex_loop_timeout(loop) < 0);
  swerex__loop_arm(loop, &timers[0], 1e300, count_fire, &fired); /* no clock goes so far */
  CHECK(!swerex__loop_armed(&timers[0]));
  CHECK(swerex_loop_timeout(loop) == SWEREX_FOREVER);
  swerex__loop_arm(loop, &timers[0], 3600, count_fire, &fired);
  swerex__loop_arm(loop, &timers[1], 0, count_fire, &fired);
  swerex__loop_arm(loop, &timers[2], 7200, count_fire, &fired);
  CHECK(swerex_loop_run(loop, SWEREX_FOREVER, NULL));
  CHECK_INT(fired, 1);
  CHECK(swerex__loop_armed(&timers[0]) && !swerex__loop_armed(&timers[1]));
  double left = swerex_loop_timeout(loop);
  CHECK(left > 3500 && left <= 3600);
  swerex__loop_disarm(loop, &timers[0]);
  left = swerex_loop_timeout(loop);
  CHECK(left <= 7200);
  swerex__loop_disarm(loop, &timers[2]);
  CHECK(swerex_loop_timeout(loop) == SWEREX_FOREVER);
  swerex_loop_free(loop);
}

static int refused; /* the allocation that fails */

static void *refuse(void *user_data, void *block, size_t size) {
  (void)user_data;
  if (size == 0) {
    free(block);
    return NULL;
  }
  errno = 0;
  return refused-- == 0 ? NULL : realloc(block, size);
}

TEST(a_loop_without_memory_says_so) {
  swerex_loop_options options = {.allocator = {refuse, NULL}};
  swerex_error err = SWEREX_ERROR_INIT;
  for (int i = 0; i < 2; i++) {
    refused = i;
    CHECK(swerex_loop_new(&options, &err) == NULL);
    CHECK_INT(err.code, SWEREX_E_NO_MEMORY);
  }
  swerex_error_clear(&err);
  swerex_loop *loop = swerex_loop_new(&options, NULL);
  CHECK(loop != NULL);
  swerex_loop_free(loop);
}

TEST_MAIN()
