/*
 * `swerex docker-reap`: the containers that programs left behind. Include behind swerex.h with its
 * implementation.
 */

enum { REAP_MOST = 1000 }; /* containers looked at in one go */

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
  command.timeout = 600; /* for all of them */
  swerex_command_response_clear(ran);
  if (!await(runtime->loop, swerex_execute_async(runtime, &command, err), ran, err))
    return err->code == SWEREX_E_FILE_NOT_FOUND
             ? swerex__err_set(err, err->code,
                               "there is no `%s` on PATH: install it, or name another by --container-runtime", argv[0])
             : false;
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

/** Ask for the containers that carry our label: lines of "id name owner". */
static bool reap_list(swerex_runtime *runtime, const char *engine, swerex_command_response *out,
                      swerex_error *err) {
  const char *const list[] = {engine, "ps", "-a", "-q", "--no-trunc", "--filter", "label=swerex.owner", NULL};
  const char *const look[] = {engine, "inspect", "--format",
                              "{{.Id}} {{.Name}} {{index .Config.Labels \"swerex.owner\"}}", NULL};
  swerex_command_response ids;
  memset(&ids, 0, sizeof ids);
  if (!reap_run(runtime, list, &ids, err)) return false;
  const char *argv[REAP_MOST + 5];
  memcpy(argv, look, sizeof look);
  size_t count = 4;
  for (char *id = strtok(ids.stdout_text.data, "\n"); id != NULL && count < REAP_MOST + 4; id = strtok(NULL, "\n"))
    argv[count++] = id;
  argv[count] = NULL;
  bool ok = count == 4 || reap_run(runtime, argv, out, err);
  if (!ok && out->stdout_text.size > 0) { /* some have gone meanwhile */
    swerex_error_clear(err);
    ok = true;
  }
  swerex_command_response_clear(&ids);
  return ok;
}

/** Remove containers with one command, and say which have gone. */
static bool reap_remove(swerex_runtime *runtime, const char *engine, const reap_container *boxes,
                        size_t count, swerex_error *err) {
  const char *argv[REAP_MOST + 5] = {engine, "rm", "-f", "-v"};
  swerex_command_response ran;
  memset(&ran, 0, sizeof ran);
  for (size_t i = 0; i < count; i++) argv[4 + i] = boxes[i].id;
  bool ok = count == 0 || reap_run(runtime, argv, &ran, err);
  for (size_t i = 0; i < count; i++)
    if (ran.stdout_text.data != NULL && strstr(ran.stdout_text.data, boxes[i].id) != NULL)
      printf("%.12s  %-40s  removed\n", boxes[i].id, boxes[i].name);
  swerex_command_response_clear(&ran);
  return ok;
}

/** Remove the containers whose program is gone. False: a failure is in *err, the rest was done. */
static bool reap(swerex_runtime *runtime, const char *engine, bool all, bool dry, swerex_error *err) {
  reap_container gone[REAP_MOST];
  size_t count = 0;
  swerex_command_response found;
  memset(&found, 0, sizeof found);
  bool ok = reap_list(runtime, engine, &found, err);
  char *line = !ok || found.stdout_text.data == NULL ? NULL : strtok(found.stdout_text.data, "\n");
  for (; line != NULL; line = strtok(NULL, "\n")) {
    reap_container box;
    bool elsewhere = false;
    if (count == REAP_MOST || !reap_split(line, &box)) continue;
    bool owned = reap_is_owned(box.owner, &elsewhere);
    bool keep = (owned || elsewhere) && !all;
    if (keep || dry)
      printf("%.12s  %-40s  %s\n", box.id, box.name,
             !keep   ? "would be removed"
             : owned ? "in use"
                     : "made on another machine (--all removes it)");
    else
      gone[count++] = box;
  }
  ok = ok && reap_remove(runtime, engine, gone, count, err);
  swerex_command_response_clear(&found);
  return ok;
}
