/* The loop, futures, deployments, the dummy runtime, logging. */
#include "world.h"

#include <poll.h>
#include <pthread.h>

static swerex_future *start_script(world *w, const char *text) {
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.command = text;
  command.shell = true;
  return swerex_execute_async(w->runtime, &command, &w->err);
}

TEST(completion_queue) {
  static const char *const scripts[] = {"sleep 0.3; echo 0", "sleep 0.1; echo 1", "sleep 0.2; echo 2"};
  static const char order[] = {'1', '2', '0'};
  world w = world_open();
  CHECK(swerex_loop_wait(w.loop, 1, &w.err) == NULL);
  for (int i = 0; i < 3; i++) {
    swerex_future *future = start_script(&w, scripts[i]);
    CHECK(swerex_future_user_data(future) == NULL);
    swerex_future_set_user_data(future, (void *)(uintptr_t)scripts[i]);
  }
  swerex_error_clear(&w.err);
  CHECK(swerex_loop_wait(w.loop, 0, &w.err) == NULL);
  CHECK_INT(w.err.code, SWEREX_E_TIMEOUT);
  for (int i = 0; i < 3; i++) {
    swerex_future *done = swerex_loop_wait(w.loop, 10, &w.err);
    CHECK(done != NULL && swerex_future_done(done));
    CHECK(swerex_future_user_data(done) == (const void *)scripts[order[i] - '0']);
    CHECK(swerex_future_take(done, &w.ran, &w.err));
    CHECK_INT(w.ran.stdout_text.data[0], order[i]);
    swerex_command_response_clear(&w.ran);
  }
  CHECK(swerex_loop_wait(w.loop, 10, NULL) == NULL);
  swerex_future *last = start_script(&w, "true"), *done = NULL;
  for (double end = seconds() + 10; done == NULL && seconds() < end;)
    done = swerex_loop_wait(w.loop, 0, NULL); /* no time, but a look each time */
  CHECK(done == last);
  world_close(&w);
}

TEST(await_with_a_limit) {
  world w = world_open();
  swerex_future *future = start_script(&w, "sleep 0.4; echo x");
  CHECK(!swerex_await(future, 0.05, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_TIMEOUT);
  CHECK(!swerex_future_done(future));
  CHECK(swerex_await(future, 10, &w.err));
  CHECK(swerex_future_take(future, NULL, &w.err));
  world_close(&w);
}

TEST(a_call_that_could_not_be_made_says_why) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_command command = {.command = "true"};
  CHECK(!swerex_future_take(swerex_execute_async(NULL, &command, &err), NULL, &err));
  CHECK_STR(err.message, "execute: runtime is NULL");
  swerex_error_clear(&err);
  CHECK(!swerex_future_take(NULL, NULL, &err));
  CHECK_STR(err.message, "the future is NULL");
  swerex_error_clear(&err);
}

typedef struct chain {
  world *w;
  int steps;
  swerex_code code;
} chain;

static void next_step(swerex_future *future, void *user_data) {
  chain *c = (chain *)user_data;
  swerex_error err = SWEREX_ERROR_INIT;
  CHECK(swerex_future_take(future, NULL, &err));
  if (c->steps == 0) {
    CHECK(!swerex_execute(c->w->runtime, &(swerex_command){.command = "true"}, NULL, &err));
    c->code = err.code;
  }
  if (++c->steps < 5)
    swerex_future_then(start_script(c->w, "true"), next_step, c);
  swerex_error_clear(&err);
}

TEST(then_chains_and_may_not_wait) {
  world w = world_open();
  chain c = {&w, 0, SWEREX_E_OK};
  swerex_future_then(start_script(&w, "true"), next_step, &c);
  CHECK_INT(c.steps, 0);
  for (double end = seconds() + 10; c.steps < 5 && seconds() < end;) swerex_loop_run(w.loop, 0.1, &w.err);
  CHECK_INT(c.steps, 5);
  CHECK_INT(c.code, SWEREX_E_RUNTIME);
  world_close(&w);
}

static void count_call(swerex_future *future, void *user_data) {
  ++*(int *)user_data;
  swerex_future_free(future);
}

TEST(then_fires_also_for_what_is_done_already) {
  for (int way = 0; way < 3; way++) {
    world w = world_open();
    int calls = 0;
    swerex_future *future = start_script(&w, "true");
    CHECK(swerex_await(future, 20, &w.err));
    if (way == 1) CHECK(swerex_loop_run(w.loop, 0, &w.err)); /* it is in the queue now */
    if (way == 2) CHECK(swerex_loop_wait(w.loop, 20, &w.err) == future);
    swerex_future_then(future, count_call, &calls);
    CHECK_INT(calls, 0);
    CHECK(swerex_loop_run(w.loop, 5, &w.err));
    CHECK_INT(calls, 1);
    CHECK(swerex_loop_next(w.loop) == NULL);
    world_close(&w);
  }
}

TEST(the_host_polls) {
  world w = world_open();
  swerex_future *future = start_script(&w, "sleep 0.1; echo x");
  int rounds = 0;
  while (!swerex_future_done(future) && rounds++ < 1000) {
    struct pollfd fds[64];
    size_t count = swerex_loop_pollfds(w.loop, fds, 64);
    double wait = swerex_loop_timeout(w.loop);
    CHECK(count <= 64);
    CHECK((swerex_loop_fd(w.loop) >= 0) == (SWEREX_POLLER != SWEREX_POLLER_POLL));
    poll(fds, (nfds_t)count, wait < 0 ? 1000 : (int)(wait * 1000) + 1);
    CHECK(swerex_loop_run(w.loop, 0, &w.err));
  }
  CHECK(rounds < 50);
  CHECK(swerex_future_take(future, NULL, &w.err));
  world_close(&w);
}

static void *wake(void *loop) {
  usleep(100000);
  swerex_loop_wake((swerex_loop *)loop);
  return NULL;
}

TEST(wake_from_another_thread) {
  world w = world_open();
  pthread_t thread;
  double start = seconds();
  CHECK(pthread_create(&thread, NULL, wake, w.loop) == 0);
  CHECK(swerex_loop_run(w.loop, 20, &w.err));
  CHECK(seconds() - start < 10);
  CHECK(pthread_join(thread, NULL) == 0);
  world_close(&w);
}

TEST(freeing_the_loop_frees_all) {
  world w = world_with_session();
  start_script(&w, "sleep 7779");
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = "sleep 7779";
  for (int i = 0; i < 3; i++) swerex_run_in_session_async(w.runtime, &action, &w.err);
  swerex_get_deployment_json(w.loop, "{\"type\":\"local\"}", 0, &w.err);
  for (int i = 0; i < 5; i++) swerex_loop_run(w.loop, 0.02, &w.err);
  world_close(&w);
  CHECK_INT(processes("sleep 7779"), 0);
}

/** Add up how often the keepers below a process have gone to sleep. */
static long keeper_sleeps(long parent) {
  char path[64], line[128];
  long total = 0, child, count;
  snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", parent, parent);
  FILE *children = fopen(path, "r");
  while (children != NULL && fscanf(children, "%ld", &child) == 1) {
    snprintf(path, sizeof path, "/proc/%ld/status", child);
    FILE *status = fopen(path, "r");
    bool keeper = status != NULL && fgets(line, sizeof line, status) != NULL && strstr(line, "swerex-keeper") != NULL;
    while (keeper && fgets(line, sizeof line, status) != NULL)
      if (sscanf(line, "voluntary_ctxt_switches: %ld", &count) == 1) total += count;
    if (status != NULL) fclose(status);
    if (keeper) total += keeper_sleeps(child);
  }
  if (children != NULL) fclose(children);
  return total;
}

TEST(idle_means_no_wake_ups) {
  world w = world_with_session();
  CHECK(create(&w, "second"));
  CHECK(gives(&w, "echo a; false", 1, "a\n"));
  CHECK(!run_for(&w, "sleep 20", 0.1));
  while (swerex_loop_timeout(w.loop) >= 0) CHECK(swerex_loop_run(w.loop, SWEREX_FOREVER, &w.err));
  for (int i = 0; i < 20; i++) swerex_loop_run(w.loop, 0.01, &w.err);
  long before = keeper_sleeps((long)getpid());
  CHECK(before > 0);
  double start = seconds();
  CHECK(swerex_loop_run(w.loop, 1.0, &w.err));
  CHECK(seconds() - start > 0.99);
  CHECK_INT(keeper_sleeps((long)getpid()) - before, 0);
  world_close(&w);
}

TEST(freeing_while_things_end) {
  for (int what = 0; what < 6; what++) {
    world w = world_with_session();
    swerex_future *future = NULL;
    if (what == 0) future = swerex_close_session_async(w.runtime, NULL, &w.err);
    if (what == 1) future = swerex_close_async(w.runtime, NULL, &w.err);
    if (what == 2) future = start_script(&w, "sleep 20");
    if (what == 3) future = swerex_interrupt_session_async(w.runtime, NULL, &w.err);
    if (what == 4) future = swerex_upload_async(w.runtime, &(swerex_upload_request){"/etc", "/tmp/swerex-never"}, &w.err);
    if (what == 5) future = swerex_run_in_session_async(w.runtime, &(swerex_bash_action){.command = "declare -A m"}, &w.err);
    CHECK(future != NULL);
    swerex_runtime_free(w.runtime);
    swerex_error_clear(&w.err);
    CHECK(swerex_future_take(future, NULL, &w.err) == (what == 3));
    world_close(&w);
  }
  CHECK(system("rm -rf /tmp/swerex-never") == 0);
}

static swerex_future *doomed;

static void free_it(void *user_data, swerex_stream stream, const char *text, size_t size) {
  (void)stream, (void)text, (void)size;
  swerex_future_free(doomed);
  doomed = NULL;
  swerex_future_free(swerex_close_session_async((swerex_runtime *)user_data, NULL, NULL));
}

TEST(callbacks_may_free_and_close) {
  world w = world_with_session();
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = "echo a; sleep 0.1; echo b; sleep 20";
  action.watch.on_output = free_it;
  action.watch.user_data = w.runtime;
  doomed = swerex_run_in_session_async(w.runtime, &action, &w.err);
  for (double end = seconds() + 5; doomed != NULL && seconds() < end;) swerex_loop_run(w.loop, 0.1, &w.err);
  CHECK(doomed == NULL);
  for (int i = 0; i < 20; i++) swerex_loop_run(w.loop, 0.02, &w.err);
  CHECK(!run(&w, "echo x"));
  CHECK_INT(w.err.code, SWEREX_E_SESSION_DOES_NOT_EXIST);
  CHECK(create(&w, NULL));
  CHECK(gives(&w, "echo new", 0, "new\n"));
  world_close(&w);
}

static int calls_started;

static void start_more(void *user_data, swerex_stream stream, const char *text, size_t size) {
  (void)stream, (void)text, (void)size;
  if (calls_started++ > 5) return;
  swerex_run_in_session_async((swerex_runtime *)user_data, &(swerex_bash_action){.command = "echo more"}, NULL);
  swerex_interrupt_session_async((swerex_runtime *)user_data, NULL, NULL);
}

TEST(callbacks_may_start_calls) {
  world w = world_with_session();
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = "echo a; sleep 0.05; echo b; echo c";
  action.check = SWEREX_CHECK_SILENT;
  action.watch.on_output = start_more;
  action.watch.user_data = w.runtime;
  CHECK(act(&w, &action));
  while (swerex_loop_wait(w.loop, 10, NULL) != NULL) continue;
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  world_close(&w);
}

static void count_step(void *user_data, const char *message) {
  CHECK(message[0] != '\0');
  ++*(int *)user_data;
}

TEST(deployment_life) {
  world w = world_open();
  int steps = 0;
  swerex_deployment_hook hook = {count_step, &steps};
  swerex_is_alive_response alive;
  swerex_deployment *box = swerex_get_deployment_json(w.loop, " {\"type\": \"local\"} ", 0, &w.err);
  CHECK(box != NULL);
  CHECK(swerex_deployment_add_hook(box, hook, &w.err));
  CHECK(swerex_deployment_runtime(box, &w.err) == NULL);
  CHECK_INT(w.err.code, SWEREX_E_DEPLOYMENT_NOT_STARTED);
  CHECK_STR(w.err.message, "Deployment not started");
  CHECK(swerex_deployment_is_alive(box, NULL, &alive, &w.err));
  CHECK(!alive.is_alive);
  CHECK_STR(alive.message.data, "Runtime is None.");
  swerex_is_alive_response_clear(&alive);
  CHECK(swerex_deployment_stop(box, &w.err));
  for (int i = 0; i < 2; i++) {
    CHECK(swerex_deployment_start(box, &w.err));
    CHECK(swerex_deployment_start(box, &w.err));
    CHECK(swerex_deployment_is_alive(box, NULL, &alive, &w.err));
    CHECK(alive.is_alive);
    swerex_is_alive_response_clear(&alive);
    swerex_runtime *runtime = swerex_deployment_runtime(box, &w.err);
    CHECK(swerex_create_session(runtime, NULL, NULL, &w.err));
    swerex_bash_action action;
    memset(&action, 0, sizeof action);
    action.command = "setsid sleep 7780 & sleep 0.05";
    CHECK(swerex_run_in_session(runtime, &action, NULL, &w.err));
    CHECK(swerex_deployment_stop(box, &w.err));
    CHECK_INT(processes("sleep 7780"), 0);
    CHECK(swerex_deployment_stop(box, &w.err));
  }
  CHECK_INT(steps, 4);
  swerex_deployment_free(box);
  world_close(&w);
}

TEST(bad_configurations) {
  static const struct {
    const char *json;
    swerex_code code;
    const char *part;
  } bad[] = {{"{\"type\":\"local\",\"nope\":1}", SWEREX_E_VALIDATION, "nope: Extra inputs are not permitted"},
             {"{\"type\":\"local\",\"max_output\":\"x\"}", SWEREX_E_VALIDATION, "max_output"},
             {"{\"type\":\"nope\"}", SWEREX_E_VALIDATION, "'local', 'dummy'"},
             {"{}", SWEREX_E_VALIDATION, "type"},
             {"[]", SWEREX_E_VALIDATION, ""},
             {"{\"type\":\"dummy\",\"outputs\":[1]}", SWEREX_E_VALIDATION, "outputs.0"},
             {"{\"type\":", SWEREX_E_JSON, "line 1 column 9 (char 8)"},
             {"{bad", SWEREX_E_JSON, "line 1 column 2 (char 1)"}};
  world w = world_open();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(swerex_get_deployment_json(w.loop, bad[i].json, 0, &w.err) == NULL);
    CHECK_INT(w.err.code, bad[i].code);
    CHECK(has(w.err.message, bad[i].part));
  }
  swerex_deployment_config config;
  memset(&config, 0, sizeof config);
  CHECK(swerex_get_deployment(w.loop, &config, &w.err) == NULL);
  config.type = SWEREX_DEPLOYMENT_LOCAL;
  CHECK(swerex_get_deployment(w.loop, &config, &w.err) != NULL);
  world_close(&w);
}

TEST(dummy) {
  world w = world_open();
  swerex_bash_observation seen, script[2];
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  memset(&seen, 0, sizeof seen);
  memset(script, 0, sizeof script);
  action.command = "ls";
  swerex_deployment *box = swerex_get_deployment_json(
    w.loop, "{\"type\":\"dummy\",\"outputs\":[\"output1\",\"output2\"]}", 0, &w.err);
  CHECK(swerex_deployment_start(box, &w.err));
  swerex_runtime *runtime = swerex_deployment_runtime(box, &w.err);
  CHECK(swerex_create_session(runtime, NULL, NULL, &w.err));
  for (int i = 0; i < 2; i++) {
    CHECK(swerex_run_in_session(runtime, &action, &seen, &w.err));
    CHECK_STR(seen.output.data, i == 0 ? "output1" : "output2");
    CHECK_INT(seen.exit_code, 0);
    swerex_bash_observation_clear(&seen);
  }
  CHECK(!swerex_run_in_session(runtime, &action, &seen, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_DUMMY_OUTPUTS_EXHAUSTED);
  CHECK_STR(w.err.message,
            "Dummy runtime's run_in_session_outputs list is empty: No output for 'ls'");
  script[0].exit_code = 3;
  CHECK(swerex_dummy_runtime_set_outputs(runtime, script, 1, &w.err));
  CHECK(swerex_run_in_session(runtime, &action, &seen, &w.err));
  CHECK_INT(seen.exit_code, 3);
  swerex_bash_observation_clear(&seen);
  CHECK(swerex_dummy_runtime_set_output(runtime, script, &w.err));
  for (int i = 0; i < 3; i++) CHECK(swerex_run_in_session(runtime, &action, NULL, &w.err));
  CHECK(swerex_execute(runtime, &(swerex_command){.command = "x"}, NULL, &w.err));
  CHECK(swerex_close(runtime, NULL, NULL, &w.err));
  CHECK(!swerex_dummy_runtime_set_output(w.runtime, script, &w.err));
  CHECK(!swerex_session_write(runtime, NULL, "x", 1, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_UNSUPPORTED);
  world_close(&w);
}

TEST(error_tree) {
  CHECK(swerex_code_is(SWEREX_E_DOCKER_PULL, SWEREX_E_DEPLOYMENT_STARTUP));
  CHECK(swerex_code_is(SWEREX_E_DOCKER_PULL, SWEREX_E_RUNTIME));
  CHECK(swerex_code_is(SWEREX_E_COMMAND_TIMEOUT, SWEREX_E_TIMEOUT));
  CHECK(swerex_code_is(SWEREX_E_SESSION_EXISTS, SWEREX_E_VALUE));
  CHECK(!swerex_code_is(SWEREX_E_OS, SWEREX_E_SWEREX));
  CHECK(!swerex_code_is(SWEREX_E_SWEREX, SWEREX_E_DOCKER_PULL));
  CHECK(!swerex_code_is((swerex_code)999, SWEREX_E_OS));
  for (int i = 1; i < SWEREX_E_COUNT_; i++) {
    swerex_code code = (swerex_code)i;
    CHECK(swerex_code_is(code, SWEREX_E_EXCEPTION));
    if (code != SWEREX_E_SESSION_TERMINATED)
      CHECK_INT(swerex_code_from_class_path(swerex_code_class_path(code)), i);
  }
  CHECK_INT(swerex_code_from_class_path("some.other.Error"), SWEREX_E_SWEREX);
  CHECK_STR(swerex_code_name(SWEREX_E_FILE_NOT_FOUND), "FILE_NOT_FOUND");
  CHECK_STR(swerex_code_name((swerex_code)-1), "UNKNOWN");
}

typedef struct record {
  int count;
  swerex_log_level level;
  char text[256];
} record;

static void keep_record(void *user_data, const swerex_log_record *from) {
  record *to = (record *)user_data;
  to->count++;
  to->level = from->level;
  errno = EIO;
  snprintf(to->text, sizeof to->text, "%s %s %s", from->emoji, from->name, from->message);
}

TEST(logging) {
  record seen;
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop_options options;
  memset(&seen, 0, sizeof seen);
  memset(&options, 0, sizeof options);
  options.logger.write = keep_record;
  options.logger.user_data = &seen;
  setenv("SWE_REX_LOG_STREAM_LEVEL", "INFO", 1);
  swerex_loop *loop = swerex_loop_new(&options, &err);
  unsetenv("SWE_REX_LOG_STREAM_LEVEL");
  swerex_logger logger = swerex_get_logger(loop, "rex-test", NULL);
  swerex_log(&logger, SWEREX_LOG_DEBUG, "hidden");
  CHECK_INT(seen.count, 0);
  errno = ENOENT;
  swerex_log(&logger, SWEREX_LOG_INFO, "%d %s", 5, "five");
  CHECK_INT(errno, ENOENT);
  CHECK_STR(seen.text, "\xF0\x9F\xA6\x96 rex-test 5 five");
  logger = swerex_get_logger(loop, NULL, "*");
  swerex_log(&logger, SWEREX_LOG_ERROR, "x");
  CHECK_STR(seen.text, "* rex x");
  CHECK_INT(seen.level, SWEREX_LOG_ERROR);
  swerex_loop_free(loop);
}

TEST(free_ports) {
  world w = world_open();
  int ports[20];
  for (int i = 0; i < 20; i++) {
    ports[i] = swerex_find_free_port(w.loop, 0, 0, &w.err);
    CHECK(ports[i] > 0 && ports[i] < 65536);
    for (int k = 0; k < i; k++) CHECK(ports[k] != ports[i]);
  }
  world_close(&w);
}

TEST_MAIN()
