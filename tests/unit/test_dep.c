/* The engine of deployments, with a kind made for the purpose: its steps take time, fail or stay
 * when told to, and everything that they make and take back is written down. */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "test.h"

typedef struct state {
  char log[512]; /* a letter per step: made "a", used "A", taken back "-a" */
  swerex__loop_timer timer;
  swerex_future *pending;
} state;

static struct plan {
  int fail_run, fail_future, fail_undo; /* which step; 0: none */
  double time;
  bool dead, mute;
  char *end; /* where the log goes when the deployment is freed */
} plan;

static state *of(swerex_deployment *box) { return (state *)box->state; }

static void ring(swerex__loop_timer *timer) {
  state *at = (state *)timer->owner;
  swerex_future *future = at->pending;
  at->pending = NULL;
  if (plan.fail_future != 0)
    swerex__loop_fail_with(future, SWEREX_E_RUNTIME, "step %d broke", plan.fail_future);
  else
    swerex__loop_finish(future);
}

static void stop_timer(swerex_future *future) {
  state *at = (state *)future->operation;
  swerex__loop_disarm(future->loop, &at->timer);
  at->pending = NULL;
}

/** A future that ends in plan.time seconds. */
static swerex_future *later(swerex_deployment *box, const char *name, swerex_error *err) {
  state *at = of(box);
  strcat(at->log, name);
  swerex_future *future = swerex__loop_promise(box->loop, NULL, err);
  future->operation = at;
  future->cancel = stop_timer;
  at->pending = future;
  swerex__loop_arm(box->loop, &at->timer, plan.time, ring, at);
  return future;
}

static swerex_future *run_a(swerex_deployment *box, swerex_error *err) {
  strcat(of(box)->log, "a");
  if (plan.fail_run == 1) swerex__err_set(err, SWEREX_E_DEPLOYMENT_STARTUP, "step 1 said no");
  return NULL;
}

static swerex_future *undo_a(swerex_deployment *box, swerex_error *err) {
  strcat(of(box)->log, "-a");
  if (plan.fail_undo == 1) swerex__err_set(err, SWEREX_E_DEPLOYMENT_STARTUP, "a stays");
  return NULL;
}

static swerex_future *run_b(swerex_deployment *box, swerex_error *err) {
  return later(box, "b", err);
}

static bool took_b(swerex_deployment *box, swerex_future *future, swerex_error *err) {
  strcat(of(box)->log, "B");
  return future->ok || swerex__err_move(err, &future->error);
}

static swerex_future *undo_b(swerex_deployment *box, swerex_error *err) {
  plan.fail_future = 0;
  return later(box, "-b", err);
}

static swerex_future *run_c(swerex_deployment *box, swerex_error *err) {
  strcat(of(box)->log, "c");
  swerex_dummy_config dummy;
  memset(&dummy, 0, sizeof dummy);
  swerex__dep_own(box, swerex__dummy_new(box->loop, &dummy, err));
  if (plan.fail_run == 3) swerex__err_set(err, SWEREX_E_RUNTIME, "step 3 said no");
  return NULL;
}

static swerex_future *undo_kept(swerex_deployment *box, swerex_error *err) {
  (void)err;
  strcat(of(box)->log, "-c");
  return NULL;
}

static swerex_future *ask(swerex_deployment *box, swerex_error *err) {
  swerex_future *future =
    swerex__loop_promise(box->loop, swerex__model_of(SWEREX_MODEL_IS_ALIVE_RESPONSE), err);
  if (plan.dead) {
    swerex__dep_deny(future, "the box has ended");
  } else if (!plan.mute) {
    ((swerex_is_alive_response *)future->response)->is_alive = true;
    swerex__loop_finish(future);
  }
  return future;
}

static void release(swerex_deployment *box) {
  if (plan.end != NULL) strcpy(plan.end, of(box)->log);
}

static const swerex__dep_step steps[] = {{"Making a", run_a, NULL, undo_a, false},
                                         {"Making b", run_b, took_b, undo_b, false},
                                         {NULL, run_c, NULL, undo_kept, true}};
static const swerex__dep_kind kind = {"test", sizeof(state), steps, 3, 1.0, NULL, ask, release};

static char seen[512], end[512];

static void on_step(void *user_data, const char *message) {
  (void)user_data;
  strcat(seen, message);
  strcat(seen, ";");
}

static swerex_deployment *make(swerex_loop *loop) {
  static const swerex_deployment_config config = {SWEREX_DEPLOYMENT_DUMMY, {{0}}};
  static const swerex_deployment_hook hook = {on_step, NULL};
  swerex_deployment *box = swerex__dep_new(loop, &kind, &config, NULL);
  memset(&plan, 0, sizeof plan);
  plan.end = end;
  seen[0] = end[0] = '\0';
  CHECK(swerex_deployment_add_hook(box, hook, NULL));
  return box;
}

TEST(steps_are_taken_in_order_and_back_in_reverse) {
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment *box = make(loop);
  plan.time = 0.01;
  CHECK(swerex_deployment_runtime(box, NULL) == NULL);
  CHECK(swerex_deployment_start(box, NULL));
  CHECK(swerex_deployment_runtime(box, NULL) != NULL);
  CHECK(swerex_deployment_start(box, NULL)); /* changes nothing */
  CHECK_STR(of(box)->log, "abBc");
  CHECK(swerex_deployment_stop(box, NULL));
  CHECK_STR(of(box)->log, "abBc-b-a"); /* c is kept */
  CHECK_STR(seen, "Making a;Making b;Stopping runtime;");
  CHECK(swerex_deployment_stop(box, NULL));
  CHECK(swerex_deployment_start(box, NULL)); /* and again */
  CHECK_STR(of(box)->log, "abBc-b-aabBc");
  swerex_loop_free(loop); /* stops it */
  CHECK_STR(end, "abBc-b-aabBc-b-a");
}

TEST(a_failed_start_takes_back_all_and_tells_the_first_failure) {
  static const struct {
    int fail_run, fail_future, fail_undo;
    const char *log, *message;
  } rows[] = {{1, 0, 0, "a-a", "step 1 said no"},
              {1, 0, 1, "a-a", "step 1 said no"},
              {0, 2, 0, "abB-b-a", "step 2 broke"},
              {0, 2, 1, "abB-b-a", "step 2 broke"},
              {3, 0, 0, "abBc-c-b-a", "step 3 said no"}};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(rows); i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    swerex_loop *loop = swerex_loop_new(NULL, NULL);
    swerex_deployment *box = make(loop);
    plan.fail_run = rows[i].fail_run;
    plan.fail_future = rows[i].fail_future;
    plan.fail_undo = rows[i].fail_undo;
    CHECK(!swerex_deployment_start(box, &err));
    CHECK_STR(err.message, rows[i].message);
    CHECK_STR(of(box)->log, rows[i].log);
    CHECK(box->idle && box->runtime == NULL);
    swerex_error_clear(&err);
    swerex_loop_free(loop);
  }
}

TEST(a_stop_goes_on_after_a_failure_and_tells_it) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment *box = make(loop);
  CHECK(swerex_deployment_start(box, NULL));
  plan.fail_undo = 1;
  CHECK(!swerex_deployment_stop(box, &err));
  CHECK_STR(err.message, "a stays");
  CHECK_INT(err.code, SWEREX_E_RUNTIME); /* not that of a start */
  CHECK_STR(err.class_path, "builtins.RuntimeError");
  CHECK_STR(of(box)->log, "abBc-b-a");
  CHECK(box->idle);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(a_start_that_is_cancelled_or_stopped_is_taken_back) {
  for (int way = 0; way < 3; way++) {
    swerex_error err = SWEREX_ERROR_INIT;
    swerex_loop *loop = swerex_loop_new(NULL, NULL);
    swerex_deployment *box = make(loop);
    plan.time = 0.02;
    swerex_future *start = swerex_deployment_start_async(box, NULL);
    CHECK(swerex_loop_run(loop, 0, NULL));
    CHECK(!swerex_deployment_start(box, NULL)); /* one is under way */
    if (way == 0) {
      swerex_future_free(start);
      CHECK(swerex_deployment_stop(box, NULL)); /* waits for what is taken back */
    } else {
      swerex_future *stop = swerex_deployment_stop_async(box, NULL);
      CHECK(!swerex_future_take(start, NULL, &err));
      CHECK_STR(err.message, "the deployment was stopped while it was starting");
      swerex_error_clear(&err);
      CHECK(!swerex_deployment_start(box, &err));
      CHECK_STR(err.message, "the deployment is being stopped");
      plan.fail_undo = way == 1; /* which is the stop's, too */
      if (way == 1) CHECK(!swerex_future_take(stop, NULL, &err));
      if (way == 1) CHECK_INT(err.code, SWEREX_E_RUNTIME);
    }
    swerex_error_clear(&err);
    swerex_loop_free(loop);
    CHECK_STR(end, "ab-b-a");
  }
}

static void free_box(swerex_future *future, void *user_data) {
  swerex_future_free(future);
  swerex_deployment_free((swerex_deployment *)user_data);
}

TEST(a_deployment_freed_in_a_callback_stops_first) {
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment *box = make(loop);
  plan.time = 0.01;
  CHECK(swerex_deployment_start(box, NULL));
  swerex_future *question = swerex_deployment_is_alive_async(box, NULL, NULL);
  swerex_future_then(question, free_box, box);
  for (int i = 0; i < 50 && end[0] == '\0'; i++) CHECK(swerex_loop_run(loop, 0.02, NULL));
  CHECK_STR(end, "abBc-b-a");
  swerex_loop_free(loop);
}

/** A hook that ends the start which it hears of: at the step with this first letter. */
static struct {
  swerex_deployment *box;
  swerex_future *start;
  const char *message;
  int way;
} spoiler;

static void spoil(void *user_data, const char *message) {
  (void)user_data;
  if (spoiler.message == NULL || strcmp(message, spoiler.message) != 0) return;
  spoiler.message = NULL;
  if (spoiler.way == 0) swerex_future_free(swerex_deployment_stop_async(spoiler.box, NULL));
  if (spoiler.way == 1) swerex_future_cancel(spoiler.start);
}

TEST(a_hook_may_end_the_start_it_hears_of) {
  static const swerex_deployment_hook hook = {spoil, NULL};
  static const char *const messages[] = {"Making a", "Making b"};
  for (int i = 0; i < 2; i++) {
    swerex_error err = SWEREX_ERROR_INIT;
    swerex_loop *loop = swerex_loop_new(NULL, NULL);
    swerex_deployment *box = make(loop);
    plan.time = 0.01;
    CHECK(swerex_deployment_add_hook(box, hook, NULL));
    spoiler.box = box;
    spoiler.message = messages[i];
    spoiler.way = 0;
    CHECK(!swerex_deployment_start(box, &err));
    CHECK_STR(err.message, "the deployment was stopped while it was starting");
    for (int k = 0; k < 200 && !box->idle; k++) CHECK(swerex_loop_run(loop, 0.02, NULL));
    CHECK(box->idle && box->runtime == NULL);
    swerex_error_clear(&err);
    swerex_loop_free(loop);
  }
}

static void stop_and_wait(void *user_data, const char *message) {
  (void)message;
  CHECK(!swerex_deployment_stop(spoiler.box, (swerex_error *)user_data));
}

TEST(a_hook_cannot_wait_for_a_stop) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment_hook hook = {stop_and_wait, &err};
  spoiler.box = make(loop);
  CHECK(swerex_deployment_add_hook(spoiler.box, hook, NULL));
  CHECK(swerex_deployment_start(spoiler.box, NULL) && swerex_deployment_stop(spoiler.box, NULL));
  CHECK_STR(err.message, "stop: a hook cannot wait for a stop; use the _async form");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(a_stop_that_is_given_up_goes_on) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment *box = make(loop);
  plan.time = 0.02;
  CHECK(swerex_deployment_start(box, NULL));
  swerex_future *stop = swerex_deployment_stop_async(box, NULL);
  CHECK(!swerex_deployment_stop(box, &err));
  CHECK_STR(err.message, "the deployment is being stopped already");
  swerex_future_free(stop);
  for (int i = 0; i < 200 && !box->idle; i++) CHECK(swerex_loop_run(loop, 0.02, NULL));
  CHECK(box->idle);
  CHECK_STR(of(box)->log, "abBc-b-a");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST(a_hook_without_a_function) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_deployment_hook hook = {NULL, NULL};
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment *box = make(loop);
  CHECK(!swerex_deployment_add_hook(box, hook, &err));
  CHECK_STR(err.message, "on_custom_step is NULL");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

/** Steps that are not cut off, and a runtime that does not close. */
static const swerex__dep_step whole_steps[] = {{"Making a", run_a, NULL, undo_a, false},
                                               {"Making b", run_b, took_b, undo_b, false, true},
                                               {NULL, run_c, NULL, undo_kept, true}};
static const swerex__dep_kind whole_kind = {"test", sizeof(state), whole_steps, 3, 1.0, NULL, ask,
                                            release};

TEST(a_step_that_is_not_cut_off) {
  static const swerex_deployment_config config = {SWEREX_DEPLOYMENT_DUMMY, {{0}}};
  for (int late = 0; late < 2; late++) {
    swerex_loop *loop = swerex_loop_new(NULL, NULL);
    make(loop);
    swerex_deployment *box = swerex__dep_new(loop, &whole_kind, &config, NULL);
    plan.time = late ? 60 : 0.05;
    plan.end = NULL;
    swerex_future *start = swerex_deployment_start_async(box, NULL);
    CHECK(swerex_loop_run(loop, 0, NULL));
    swerex_future_free(start);
    CHECK(box->ending);
    if (late) { /* its time is over */
      swerex__loop_arm(loop, &box->timer, 0, swerex__dep_on_late_step, box);
      while (box->ending) CHECK(swerex_loop_run(loop, 0.02, NULL));
      plan.time = 0;
      swerex__loop_arm(loop, &of(box)->timer, 0, ring, of(box));
    }
    for (int i = 0; i < 200 && !box->idle; i++) CHECK(swerex_loop_run(loop, 0.02, NULL));
    CHECK_STR(of(box)->log, late ? "ab-b-a" : "abB-b-a");
    swerex_loop_free(loop);
  }
}

TEST(is_alive_asks_the_box_before_the_runtime) {
  swerex_is_alive_response answer;
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment *box = make(loop);
  CHECK(swerex_deployment_is_alive(box, NULL, &answer, NULL));
  CHECK(!answer.is_alive);
  CHECK_STR(answer.message.data, "Runtime is None.");
  swerex_is_alive_response_clear(&answer);
  CHECK(swerex_deployment_start(box, NULL));
  CHECK(swerex_deployment_is_alive(box, NULL, &answer, NULL));
  CHECK(answer.is_alive);
  swerex_is_alive_response_clear(&answer);
  plan.dead = true;
  CHECK(swerex_deployment_is_alive(box, NULL, &answer, NULL));
  CHECK(!answer.is_alive);
  CHECK_STR(answer.message.data, "the box has ended");
  swerex_is_alive_response_clear(&answer);
  plan.mute = true;
  plan.dead = false;
  swerex_future *open = swerex_deployment_is_alive_async(box, NULL, NULL);
  swerex_deployment_free(box);
  CHECK(!swerex_future_take(open, NULL, NULL));
  swerex_loop_free(loop);
}

static void note(void *user_data, const swerex_log_record *record) {
  if (record->level == SWEREX_LOG_WARNING) strcat((char *)user_data, record->message);
}

TEST(what_a_free_leaves_behind_is_logged) {
  char told[1000] = "";
  swerex_loop_options options;
  memset(&options, 0, sizeof options);
  options.logger.write = note;
  options.logger.user_data = told;
  swerex_loop *loop = swerex_loop_new(&options, NULL);
  swerex_deployment *box = make(loop);
  CHECK(swerex_deployment_start(box, NULL));
  plan.fail_undo = 1;
  swerex_deployment_free(box);
  CHECK_STR(told, "a stays");
  swerex_loop_free(loop);
}

TEST(is_alive_says_no_once_a_stop_has_begun) {
  swerex_is_alive_response answer;
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_deployment *box = make(loop);
  CHECK(swerex_deployment_start(box, NULL));
  swerex_future *question = swerex_deployment_is_alive_async(box, NULL, NULL);
  swerex_future *stop = swerex_deployment_stop_async(box, NULL);
  CHECK(swerex_future_take(question, &answer, NULL));
  CHECK(!answer.is_alive);
  CHECK_STR(answer.message.data, "Runtime is None.");
  swerex_is_alive_response_clear(&answer);
  CHECK(swerex_future_take(stop, NULL, NULL));
  swerex_loop_free(loop);
}

/** What is not in this build says how to get it. */
TEST(modal_without_libcurl) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  CHECK(swerex_get_deployment_json(loop, "{\"type\":\"modal\"}", 0, &err) == NULL);
  CHECK_INT(err.code, SWEREX_E_UNSUPPORTED);
  CHECK_STR(err.message, "the modal deployment is not in this build: compile with "
                         "-DSWEREX_USE_CURL=1 and -lcurl, or with -DSWEREX_USE_CURL=2 to load "
                         "libcurl when it is needed, as Modal is spoken to by HTTP/2");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

static void *no_memory(void *user_data, void *block, size_t size) {
  (void)user_data, (void)block, (void)size;
  return NULL;
}

TEST(one_check_at_the_end) {
  swerex_loop *loop = swerex_loop_new(NULL, NULL);
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_command command = {.command = "true"};
  swerex_command_response answer = {0};
  swerex_is_alive_response alive = {0};
  swerex_deployment_hook hook = {0};
  swerex_deployment *box = swerex_get_deployment_json(loop, "{\"type\":\"local\",\"x\":1}", 0, &err);
  CHECK(box == NULL && !swerex_deployment_start(box, &err));
  swerex_runtime *runtime = swerex_deployment_runtime(box, &err);
  CHECK(runtime == NULL && !swerex_execute(runtime, &command, &answer, &err));
  CHECK(!swerex_deployment_add_hook(box, hook, &err));
  CHECK(!swerex_deployment_is_alive(box, NULL, &alive, &err) && !swerex_deployment_stop(box, &err));
  CHECK(swerex_deployment_container_name(box) == NULL);
  CHECK_INT(err.code, SWEREX_E_VALIDATION); /* still what was wrong at first */
  CHECK(strstr(err.message, "x") != NULL);
  swerex_error_clear(&err);
  CHECK(!swerex_deployment_start(NULL, &err));
  CHECK_STR(err.message, "the deployment is NULL");
  swerex_error_clear(&err);
  CHECK(!swerex_execute(NULL, &command, &answer, &err));
  CHECK_STR(err.message, "execute: runtime is NULL");
  CHECK(!swerex_deployment_start(NULL, NULL) && !swerex_execute(NULL, &command, &answer, NULL));
  swerex_error_clear(&err);
  CHECK(!swerex_wait_until_alive(NULL, 1, &err) && !swerex_session_write(NULL, NULL, "x", 1, &err));
  CHECK(!swerex_session_resize(NULL, NULL, 24, 80, &err));
  CHECK_STR(err.message, "wait_until_alive: runtime is NULL"); /* the first of them */
  swerex_error_clear(&err);
  CHECK(!swerex_await(NULL, 0, &err) && !swerex_future_take(NULL, &answer, &err));
  CHECK_STR(err.message, "the future is NULL");
  swerex_error_clear(&err);
  CHECK(swerex_get_deployment_json(loop, NULL, 0, &err) == NULL);
  CHECK_STR(err.message, "the JSON is NULL");
  swerex__err_set(&err, SWEREX_E_OS, "what was before");
  CHECK(!swerex_from_json(SWEREX_MODEL_COMMAND, NULL, 0, &command, &err));
  CHECK_STR(err.message, "the JSON is NULL");
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

/** What a program that checks nothing has when its loop could not be made. */
TEST(without_a_loop) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_command command = {.command = "true"};
  swerex_command_response answer = {0};
  swerex_bash_observation output = {0};
  swerex_deployment_config config = {.type = SWEREX_DEPLOYMENT_LOCAL};
  swerex_loop *loop = swerex_loop_new(&(swerex_loop_options){.allocator = {no_memory, NULL}}, &err);
  CHECK(loop == NULL && swerex_get_deployment(loop, &config, &err) == NULL);
  CHECK(swerex_get_deployment_json(loop, "{\"type\":\"local\"}", 0, &err) == NULL);
  CHECK(swerex_local_runtime_new(loop, NULL, &err) == NULL);
  CHECK(swerex_remote_runtime_new(loop, &config.u.remote, &err) == NULL);
  CHECK(swerex_server_new(loop, NULL, &err) == NULL);
  CHECK(!swerex_fargate_teardown(loop, NULL, &err) && swerex_find_free_port(loop, 0, 0, &err) == 0);
  swerex_runtime *runtime = swerex_dummy_runtime_new(loop, NULL, &err);
  CHECK(!swerex_dummy_runtime_set_output(runtime, &output, &err));
  swerex_future *future = swerex_execute_async(runtime, &command, &err);
  CHECK(!swerex_future_take(future, &answer, &err));
  CHECK(!swerex_loop_run(loop, 0, &err) && swerex_loop_wait(loop, 0, &err) == NULL);
  CHECK_INT(err.code, SWEREX_E_NO_MEMORY); /* still what was wrong at first */
  swerex_error_clear(&err);
  swerex_loop_free(loop);
}

TEST_MAIN()
