/*
 * `swerex docker-reap`: the containers that programs left behind. Include behind swerex.h with its
 * implementation.
 */

/** What is known of a container that carries our label. */
typedef struct reap_container {
  const char *id, *name, *owner; /* in a line of the engine's answer */
} reap_container;

/** Run a command of the engine; false with an error where it fails. */
static bool reap_run(swerex_runtime *runtime, const char *const *argv,
                     swerex_command_response *ran, swerex_error *err) {
  swerex_command command;
  memset(&command, 0, sizeof command);
  command.argv = argv;
  command.timeout = 60;
  swerex_command_response_clear(ran);
  if (!swerex_execute(runtime, &command, ran, err)) return false;
  return ran->exit_code == 0 || swerex__engine_fail(err, SWEREX_E_RUNTIME, argv[0], &ran->stderr_text);
}

/** Split "id name owner"; false: it is something else. */
static bool reap_split(char *line, reap_container *out) {
  char *name = strchr(line, ' '), *owner = name == NULL ? NULL : strchr(name + 1, ' ');
  if (owner == NULL) return false;
  *name = *owner = '\0';
  out->id = line;
  out->name = name[1] == '/' ? name + 2 : name + 1;
  out->owner = owner + 1;
  return true;
}

/** Tell whether the process that made a container still runs; elsewhere: it is another machine's. */
static bool reap_is_owned(const char *owner, bool *elsewhere) {
  char now[400];
  const char *host = owner, *slash = strrchr(owner, '/');
  while (slash != NULL && slash > host && slash[-1] != '/') slash--;
  long pid = slash == NULL ? 0 : strtol(slash, NULL, 10);
  swerex__docker_owner(pid, now, sizeof now);
  const char *here = strchr(now, '=') + 1;
  *elsewhere = slash == NULL || strncmp(here, host, (size_t)(slash - host)) != 0;
  return !*elsewhere && pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM) && strcmp(here, owner) == 0;
}

/** Look at one container: remove it, or say why not. */
static bool reap_one(swerex_runtime *runtime, const char *engine, const reap_container *box, bool all,
                     bool dry, swerex_error *err) {
  swerex_command_response ran;
  bool elsewhere = false;
  const char *const argv[] = {engine, "rm", "-f", "-v", box->id, NULL};
  bool owned = reap_is_owned(box->owner, &elsewhere);
  const char *what = owned && !all       ? "in use"
                     : elsewhere && !all ? "made on another machine (--all removes it)"
                     : dry               ? "would be removed"
                                         : "removed";
  bool keep = (owned || elsewhere) && !all;
  memset(&ran, 0, sizeof ran);
  bool ok = keep || dry || reap_run(runtime, argv, &ran, err);
  if (ok) printf("%.12s  %-40s  %s\n", box->id, box->name, what);
  swerex_command_response_clear(&ran);
  return ok;
}

/** Remove the containers whose program is gone. False: a failure is in *err, the rest was done. */
static bool reap(swerex_runtime *runtime, const char *engine, bool all, bool dry, swerex_error *err) {
  const char *const list[] = {engine, "ps", "-a", "-q", "--no-trunc", "--filter", "label=swerex.owner", NULL};
  swerex_command_response ids, ran;
  bool ok = true;
  memset(&ids, 0, sizeof ids);
  memset(&ran, 0, sizeof ran);
  if (!reap_run(runtime, list, &ids, err)) return false;
  for (char *id = strtok(ids.stdout_text.data, "\n"); id != NULL; id = strtok(NULL, "\n")) {
    const char *const inspect[] = {engine, "inspect", "--format",
                                   "{{.Id}} {{.Name}} {{index .Config.Labels \"swerex.owner\"}}", id, NULL};
    swerex_error error = SWEREX_ERROR_INIT;
    reap_container box;
    if (reap_run(runtime, inspect, &ran, &error)) {
      ran.stdout_text.data[strcspn(ran.stdout_text.data, "\n")] = '\0';
      if (reap_split(ran.stdout_text.data, &box) && !reap_one(runtime, engine, &box, all, dry, &error))
        ok = swerex__err_move(err, &error);
    }
    swerex_error_clear(&error); /* it has gone meanwhile */
  }
  swerex_command_response_clear(&ids);
  swerex_command_response_clear(&ran);
  return ok;
}
