/*
 * `swerex batch`: one command in many deployments at once, from one thread. Include behind swerex.h
 * with its implementation.
 */
#include "terminal.h"

enum { BATCH_MAX = 10000, BATCH_NAME = 200, BATCH_FAILED = 1 };

/** A deployment that is asked for. */
typedef struct batch_target {
  swerex_bytes config; /* JSON; the batch's to release */
  char name[BATCH_NAME];
} batch_target;

typedef struct batch batch;

/** One run of the command. */
typedef struct batch_item {
  batch *all;
  size_t number; /* from 1 */
  const batch_target *target;
  swerex_deployment *deployment;
  swerex_future *waits; /* for this: what Ctrl-C cancels */
  swerex_command_response ran;
  swerex_error err;
  const char *state;
  char detail[256]; /* a step of the start, then the last line printed */
  double begin, end;
} batch_item;

struct batch {
  swerex_loop *loop;
  const swerex_command *command;
  batch_target *targets;
  size_t target_count, count, jobs; /* of each target; at once */
  bool live;                        /* redraw lines on a terminal; else a JSON object each */
  batch_item **running;             /* jobs of them; NULL: a free place */
  size_t next, done, failed;
  int lines; /* of the terminal that are redrawn */
  double drawn;
};

/* --- the screen --------------------------------------------------------------------------- */

/** Tell whether a run went well. */
static bool batch_is_good(const batch_item *item) {
  return item->err.code == SWEREX_E_OK && item->ran.exit_code == 0;
}

/** Take the lines that are redrawn off the screen. */
static void batch_erase(batch *all) {
  if (all->lines > 0) printf("\r\033[%dA\033[J", all->lines);
  all->lines = 0;
}

/** Print one line of the table, cut to the screen. */
static void batch_print(const batch_item *item, const char *colour, int columns) {
  char line[BATCH_NAME + 400], on[16], off[16];
  double seconds = (item->end > 0 ? item->end : swerex__util_now()) - item->begin;
  int name = columns < 60 ? 10 : 24, n, digits = snprintf(NULL, 0, "%zu", item->all->target_count * item->all->count);
  size_t fit = terminal_fit(item->target->name, strlen(item->target->name), name);
  n = snprintf(line, sizeof line, "%*zu  %-*.*s  %5.1f s  ", digits, item->number, name, (int)fit, item->target->name, seconds);
  for (int i = 0; i < n; i++)
    if ((unsigned char)line[i] < 32) line[i] = '?';
  printf("%s%s%s%s", line, terminal_colour(colour, on), item->state, terminal_colour("0", off));
  int left = columns - 1 - n - (int)strlen(item->state) - 2;
  if (left > 0 && item->detail[0] != '\0')
    printf("  %.*s", (int)terminal_fit(item->detail, strlen(item->detail), left), item->detail);
  putchar('\n');
}

/** Draw what runs now, and how far all is. */
static void batch_draw(batch *all, bool now) {
  int columns, rows;
  size_t total = all->target_count * all->count, running = all->next - all->done;
  if (!all->live || (!now && swerex__util_now() - all->drawn < 0.1)) return;
  all->drawn = swerex__util_now();
  terminal_size(&columns, &rows);
  batch_erase(all);
  for (size_t i = 0; i < all->jobs && all->lines < rows - 2; i++) {
    if (all->running[i] == NULL) continue;
    batch_print(all->running[i], "33", columns);
    all->lines++;
  }
  if (running > 0) {
    char text[128];
    snprintf(text, sizeof text, "%zu of %zu done, %zu failed, %zu running", all->done, total, all->failed, running);
    printf("%.*s\n", columns - 1, text);
    all->lines++;
  }
  fflush(stdout);
}

/** Keep the last line of a text that is not empty, without what would move the cursor. */
static void batch_note(batch_item *item, const char *text, size_t size) {
  while (size > 0 && (unsigned char)text[size - 1] <= ' ') size--;
  size_t begin = size;
  while (begin > 0 && text[begin - 1] != '\n') begin--;
  if (size == begin) return;
  size -= begin;
  size = terminal_fit(text + begin, size < sizeof item->detail ? size : sizeof item->detail - 1, INT_MAX);
  memcpy(item->detail, text + begin, size);
  item->detail[size] = '\0';
  for (size_t i = 0; i < size; i++)
    if ((unsigned char)item->detail[i] < 32 || item->detail[i] == 127) item->detail[i] = ' ';
}

static void batch_on_step(void *user_data, const char *message) {
  batch_item *item = (batch_item *)user_data;
  if (strcmp(item->state, "starting") == 0) batch_note(item, message, strlen(message));
}

static void batch_on_output(void *user_data, swerex_stream stream, const char *text, size_t size) {
  (void)stream;
  batch_note((batch_item *)user_data, text, size);
}

/** A logger that writes above the lines that are redrawn. */
static void batch_log(void *user_data, const swerex_log_record *record) {
  batch *all = (batch *)user_data;
  batch_erase(all);
  fflush(stdout);
  fprintf(stderr, "swerex: %s\n", record->message);
  batch_draw(all, true);
}

/* --- results ------------------------------------------------------------------------------ */

/** Write a result as a JSON object. */
static void batch_add(const batch_item *item) {
  swerex__str json = swerex__str_new(NULL, SIZE_MAX / 2);
  swerex_bytes ran = {NULL, 0};
  swerex__str_putc(&json, '{');
  swerex__json_add_key(&json, "number");
  swerex__json_add_integer(&json, (int64_t)item->number);
  swerex__json_add_key(&json, "deployment");
  swerex__json_add_text(&json, item->target->name);
  swerex__json_add_key(&json, "seconds");
  swerex__str_printf(&json, "%.3f", item->end - item->begin);
  if (item->err.code != SWEREX_E_OK) {
    add_error(&json, &item->err);
  } else if (swerex_to_json(SWEREX_MODEL_COMMAND_RESPONSE, &item->ran, &ran, NULL)) {
    swerex__json_add_comma(&json);
    swerex__str_add(&json, ran.data + 1, ran.size - 2); /* its members */
  }
  swerex__str_puts(&json, "}\n");
  swerex_bytes_clear(&ran);
  put_text(&json);
}

/** Say how a run has ended, for good. */
static void batch_report(batch_item *item) {
  char state[32];
  int columns, rows;
  terminal_size(&columns, &rows);
  if (!item->all->live) {
    batch_add(item);
    return;
  }
  batch_erase(item->all);
  snprintf(state, sizeof state, "exit code %d", item->ran.exit_code);
  bool broken = item->err.code != SWEREX_E_OK;
  item->state = batch_is_good(item) ? "ok" : item->err.code == SWEREX_E_CANCELLED ? "stopped" : broken ? "failed" : state;
  if (broken) item->detail[0] = '\0';
  batch_print(item, batch_is_good(item) ? "32" : "31", columns);
  if (!broken || item->err.code == SWEREX_E_CANCELLED) return;
  printf("%4s", "");
  terminal_wrap(item->err.message, 4, columns);
}

/* --- one run: start, execute, stop -------------------------------------------------------- */

static void batch_free(batch_item *item) {
  swerex_deployment_free(item->deployment);
  swerex_command_response_clear(&item->ran);
  swerex_error_clear(&item->err);
  free(item);
}

static void batch_end(batch_item *item) {
  batch *all = item->all;
  item->end = swerex__util_now();
  all->done++;
  all->failed += !batch_is_good(item);
  for (size_t i = 0; i < all->jobs; i++)
    if (all->running[i] == item) all->running[i] = NULL;
  batch_report(item);
  batch_free(item);
}

/** Go on with `then` when a future is done; without one the run ends here. */
static void batch_wait(batch_item *item, swerex_future *future, void (*then)(swerex_future *, void *)) {
  item->waits = future;
  if (future != NULL)
    swerex_future_then(future, then, item);
  else
    batch_end(item);
}

static void batch_on_stopped(swerex_future *future, void *user_data) {
  batch_item *item = (batch_item *)user_data;
  item->waits = NULL;
  swerex_future_take(future, NULL, item->err.code == SWEREX_E_OK ? &item->err : NULL);
  batch_end(item);
}

static void batch_stop(batch_item *item) {
  item->state = "stopping";
  batch_wait(item, swerex_deployment_stop_async(item->deployment, NULL), batch_on_stopped);
}

static void batch_on_ran(swerex_future *future, void *user_data) {
  batch_item *item = (batch_item *)user_data;
  swerex_future_take(future, &item->ran, &item->err);
  batch_stop(item);
}

static void batch_on_started(swerex_future *future, void *user_data) {
  batch_item *item = (batch_item *)user_data;
  swerex_command command = *item->all->command;
  swerex_runtime *runtime = NULL;
  if (swerex_future_take(future, NULL, &item->err)) runtime = swerex_deployment_runtime(item->deployment, &item->err);
  if (runtime == NULL || caught_signal != 0) {
    if (runtime != NULL) swerex__err_set(&item->err, SWEREX_E_CANCELLED, "interrupted");
    batch_stop(item);
    return;
  }
  item->state = "running";
  item->detail[0] = '\0';
  command.watch.on_output = item->all->live ? batch_on_output : NULL;
  command.watch.user_data = item;
  batch_wait(item, swerex_execute_async(runtime, &command, &item->err), batch_on_ran);
}

/** Begin the next run in a free place; false: there is no memory. */
static bool batch_begin(batch *all, size_t place, swerex_error *err) {
  swerex_deployment_hook hook = {batch_on_step, NULL};
  batch_item *item = (batch_item *)calloc(1, sizeof *item);
  if (item == NULL) return swerex__err_memory(err);
  item->all = all;
  item->target = &all->targets[all->next % all->target_count];
  item->number = ++all->next;
  item->begin = swerex__util_now();
  item->state = "starting";
  hook.user_data = item;
  all->running[place] = item;
  item->deployment = swerex_get_deployment_json(all->loop, item->target->config.data, 0, &item->err);
  bool ok = item->deployment != NULL && swerex_deployment_add_hook(item->deployment, hook, &item->err);
  batch_wait(item, ok ? swerex_deployment_start_async(item->deployment, &item->err) : NULL, batch_on_started);
  return true;
}

/** Stop all that runs, once. What a deployment has made is taken back before its run ends. */
static void batch_interrupt(batch *all) {
  for (size_t i = 0; i < all->jobs; i++) {
    batch_item *item = all->running[i];
    if (item == NULL || strcmp(item->state, "stopping") == 0) continue;
    item->state = "stopping";
    if (item->waits != NULL) swerex_future_cancel(item->waits);
  }
}

/** Run the command everywhere. Returns the exit code; < 0: *err says what is wrong with us. */
static int batch_run(batch *all, swerex_error *err) {
  size_t total = all->target_count * all->count;
  bool ok = true, interrupted = false;
  if (all->jobs > total) all->jobs = total;
  all->running = (batch_item **)calloc(all->jobs, sizeof *all->running); /* NOLINT: it holds pointers */
  if (all->running == NULL) {
    swerex__err_memory(err);
    return -1;
  }
  while (ok && all->done < (caught_signal != 0 ? all->next : total)) {
    if (caught_signal != 0 && !interrupted) {
      interrupted = true;
      batch_interrupt(all);
    }
    for (size_t i = 0; i < all->jobs && all->next < total && !interrupted && ok; i++)
      if (all->running[i] == NULL) ok = batch_begin(all, i, err);
    batch_draw(all, false);
    if (ok && all->done < all->next) ok = swerex_loop_run(all->loop, all->live ? 0.1 : SWEREX_FOREVER, err);
  }
  batch_erase(all);
  if (all->live)
    printf("%zu of %zu done, %zu failed%s\n", all->done, total, all->failed,
           caught_signal != 0 ? ", interrupted" : "");
  for (size_t i = 0; i < all->jobs; i++)
    if (all->running[i] != NULL) batch_free(all->running[i]);
  free(all->running);
  if (!ok) return -1;
  return caught_signal != 0 ? 128 + caught_signal : all->failed > 0 ? BATCH_FAILED : 0;
}
