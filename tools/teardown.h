/*
 * `swerex fargate-teardown`: what fargate deployments have left in AWS. Include behind swerex.h.
 */

typedef struct teardown {
  bool yes, dry_run, refused; /* refused: nobody said yes */
} teardown;

/** Write an age such as "3 h"; "" where it is not known. */
static const char *teardown_age(double age, char out[24]) {
  static const struct {
    double seconds;
    const char *name;
  } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
  size_t i = 0;
  out[0] = '\0';
  if (age < 0) return out;
  while (i < 3 && age < units[i].seconds) i++;
  snprintf(out, 24, "%.0f %s", age / units[i].seconds, units[i].name);
  return out;
}

static bool teardown_ask(void) {
  char line[16] = "";
  printf("Remove them all? They may be other people's. [y/N] ");
  fflush(stdout);
  return fgets(line, sizeof line, stdin) != NULL && (line[0] == 'y' || line[0] == 'Y');
}

/** Show what was found, and ask whether it is to go. */
static bool teardown_confirm(void *user_data, const swerex_fargate_item *items, size_t count) {
  teardown *state = (teardown *)user_data;
  char age[24];
  for (size_t i = 0; i < count; i++)
    printf("%-16s %-6s %-12s %s\n", items[i].kind, teardown_age(items[i].age, age), items[i].state, items[i].name);
  if (count == 0) printf("nothing is tagged origin=swe-rex-deployment-auto\n");
  if (count == 0 || state->dry_run) return false;
  state->refused = !state->yes && !teardown_ask();
  if (state->refused) printf("nothing was removed\n");
  return !state->refused;
}

static void teardown_tell(void *user_data, const swerex_fargate_item *item, const swerex_error *error) {
  (void)user_data;
  if (error == NULL)
    printf("removed  %s %s\n", item->kind, item->name);
  else
    printf("FAILED   %s\n", error->message);
}

/** Begin to remove them; the state is the caller's until the end. */
static swerex_future *teardown_start(swerex_loop *loop, swerex_fargate_teardown_options *options,
                                     teardown *state, swerex_error *err) {
  options->confirm = teardown_confirm;
  options->on_item = teardown_tell;
  options->user_data = state;
  return swerex_fargate_teardown_async(loop, options, err);
}
