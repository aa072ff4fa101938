/*
 * `swerex doctor`: what works here, and what to do where it does not. Include behind swerex.h with
 * its implementation. It asks programs and sockets of this machine only, and shows no secret.
 */
#include "terminal.h"

enum { DOCTOR_ENGINE_TIME = 15, DOCTOR_COLUMN = 19 };

typedef enum doctor_state { DOCTOR_WORKS, DOCTOR_ABSENT, DOCTOR_BROKEN } doctor_state;

/** What one look has found. */
typedef struct doctor_finding {
  doctor_state state;
  char text[1024];
  char remedy[1024]; /* what to do; "" where it works */
} doctor_finding;

typedef struct doctor {
  swerex_runtime *runtime; /* the local one */
  swerex_error err;
} doctor;

static void doctor_say(doctor_finding *found, const char *format, ...) SWEREX_PRINTF(2, 3);
static void doctor_say(doctor_finding *found, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(found->text, sizeof found->text, format, args);
  va_end(args);
}

static void doctor_complain(doctor_finding *found, doctor_state state, const char *remedy, const char *format,
                            ...) SWEREX_PRINTF(4, 5);
static void doctor_complain(doctor_finding *found, doctor_state state, const char *remedy, const char *format,
                            ...) {
  va_list args;
  found->state = state;
  snprintf(found->remedy, sizeof found->remedy, "%s", remedy);
  va_start(args, format);
  vsnprintf(found->text, sizeof found->text, format, args);
  va_end(args);
}

/** Say what an error says. */
static void doctor_fail(doctor *d, doctor_finding *found, doctor_state state, const char *remedy) {
  doctor_complain(found, state, remedy, "%s", d->err.message != NULL ? d->err.message : "failed");
  swerex_error_clear(&d->err);
}

/** Run a program, and give the first line that it prints; false: d->err, or its own words. */
static bool doctor_run(doctor *d, const char *const *argv, char line[256]) {
  swerex_command command;
  swerex_command_response ran;
  memset(&command, 0, sizeof command);
  memset(&ran, 0, sizeof ran);
  command.argv = argv;
  command.timeout = DOCTOR_ENGINE_TIME;
  line[0] = '\0';
  if (!await(d->runtime->loop, swerex_execute_async(d->runtime, &command, &d->err), &ran, &d->err)) return false;
  const char *text = ran.exit_code == 0 || ran.stderr_text.size == 0 ? ran.stdout_text.data : ran.stderr_text.data;
  if (text != NULL) snprintf(line, 256, "%.*s", (int)strcspn(text, "\n"), text);
  bool ok = ran.exit_code == 0;
  if (!ok && line[0] == '\0') snprintf(line, 256, "%s ends with exit code %d", argv[0], ran.exit_code);
  if (!ok) swerex__err_set(&d->err, SWEREX_E_RUNTIME, "%s", line);
  swerex_command_response_clear(&ran);
  return ok;
}

/* --- the local runtime -------------------------------------------------------------------- */

static void doctor_poller(doctor *d, doctor_finding *found) {
  static const char *const names[] = {"", "epoll", "kqueue", "poll"};
  (void)d;
  doctor_say(found, "%s", names[SWEREX__SYS_POLLER]);
}

static void doctor_keeper(doctor *d, doctor_finding *found) {
  const char *const argv[] = {"/bin/sh", "-c", "echo $PPID", NULL};
  char line[256];
  if (doctor_run(d, argv, line))
    doctor_say(found, "starts and ends programs, as process %s", line);
  else
    doctor_fail(d, found, DOCTOR_BROKEN,
                "this user needs room for more processes and descriptors (ulimit -u, ulimit -n), and /bin/sh");
}

static void doctor_bash(doctor *d, doctor_finding *found) {
  const char *const argv[] = {"bash", "-c", "echo \"$BASH_VERSION at $BASH\"", NULL};
  char line[256];
  if (doctor_run(d, argv, line))
    doctor_say(found, "%s", line);
  else
    doctor_fail(d, found, DOCTOR_ABSENT, "install the package bash; until then sessions are of sh");
}

/** Open a session, run something in it that only a live one can, and end it. */
static void doctor_session(doctor *d, doctor_finding *found) {
  swerex_create_bash_session_request create;
  swerex_close_bash_session_request end;
  swerex_bash_action action;
  swerex_bash_observation seen;
  memset(&create, 0, sizeof create);
  memset(&end, 0, sizeof end);
  memset(&action, 0, sizeof action);
  memset(&seen, 0, sizeof seen);
  create.session = action.session = end.session = "swerex-doctor";
  action.command = "x=4; echo $((x * 10 + 2)); (exit 3)";
  action.check = SWEREX_CHECK_SILENT;
  action.timeout = 10;
  double begin = swerex__util_now(), opened = begin;
  bool ok = await(d->runtime->loop, swerex_create_session_async(d->runtime, &create, &d->err), NULL, &d->err);
  if (ok) opened = swerex__util_now();
  ok = ok && await(d->runtime->loop, swerex_run_in_session_async(d->runtime, &action, &d->err), &seen, &d->err);
  double answered = swerex__util_now();
  bool right = ok && seen.exit_code == 3 && seen.output.size == 3 && memcmp(seen.output.data, "42\n", 3) == 0;
  if (right)
    doctor_say(found, "opens in %.1f ms, answers in %.2f ms", (opened - begin) * 1e3, (answered - opened) * 1e3);
  else if (ok)
    doctor_complain(found, DOCTOR_BROKEN, "look for what ~/.bashrc prints or changes, and try with another HOME",
                    "gives a wrong answer: exit code %d, %.200s", seen.exit_code,
                    seen.output.data != NULL ? seen.output.data : "");
  else
    doctor_fail(d, found, DOCTOR_BROKEN, "look at ~/.bashrc, and at /dev/pts: sessions need a terminal each");
  swerex_bash_observation_clear(&seen);
  swerex_close_session(d->runtime, &end, NULL, NULL);
}

/* --- what goes elsewhere ------------------------------------------------------------------ */

static void doctor_server(doctor *d, doctor_finding *found) {
  struct utsname system;
  char path[PATH_MAX] = "";
  uname(&system);
  const swerex__elf_machine *machine = swerex__elf_find_machine(system.machine);
  const char *remedy = "build it with `make -C tools static`, and name it in SWEREX_REMOTE_BINARY; containers "
                       "need it, or an image that has a swerex-remote or Python of its own";
  if (machine == NULL)
    doctor_complain(found, DOCTOR_ABSENT, "name one for the images' processor by the field remote_binary",
                    "none is looked for on %.60s", system.machine);
  else if (!swerex__elf_find(NULL, machine->names[0], path, &d->err))
    doctor_fail(d, found, DOCTOR_BROKEN, remedy);
  else if (path[0] != '\0')
    doctor_say(found, "%.900s", path);
  else
    doctor_complain(found, DOCTOR_ABSENT, remedy,
                    "no static swerex-remote[-%s]: SWEREX_REMOTE_BINARY is not set, and none stands beside "
                    "this program or on PATH",
                    machine->names[2]);
}

#if SWEREX_USE_CURL
static void doctor_https(doctor *d, doctor_finding *found) {
  swerex__lib_api api;
  memset(&api, 0, sizeof api);
  if (!swerex__lib_load(&api, &d->err)) {
    doctor_fail(d, found, DOCTOR_ABSENT, "install libcurl4, or what the system's package is called");
    return;
  }
  api.global_init(SWEREX__LIB__GLOBAL_ALL);
  swerex__lib_easy *easy = api.easy_init();
  bool http2 =
    easy != NULL && api.easy_setopt(easy, (swerex__lib_option)SWEREX__LIB_OPT_HTTP_VERSION,
                                    (long)SWEREX__LIB__HTTP_VERSION_2TLS) == 0;
  if (easy != NULL) api.easy_cleanup(easy);
  if (http2)
    doctor_say(found, "libcurl, with HTTP/2");
  else
    doctor_complain(found, DOCTOR_BROKEN, "install a libcurl that was built with nghttp2; Modal needs it",
                    "libcurl, without HTTP/2");
}
#else
static void doctor_https(doctor *d, doctor_finding *found) {
  (void)d;
  doctor_complain(found, DOCTOR_ABSENT, "build with -DSWEREX_USE_CURL=2, or =1 and -lcurl",
                  "not in this build: servers by https, and clouds, are out of reach");
}
#endif

/** Ask a container engine for its version, which its daemon gives. */
static void doctor_engine(doctor *d, doctor_finding *found, const char *name, const char *remedy) {
  const char *const docker[] = {name, "version", "--format", "{{.Server.Version}}", NULL};
  const char *const podman[] = {name, "info", "--log-level=error", "--format", "{{.Version.Version}}", NULL};
  char line[256];
  bool is_docker = strcmp(name, "docker") == 0;
  if (doctor_run(d, is_docker ? docker : podman, line))
    doctor_say(found, "%s", line);
  else if (d->err.code == SWEREX_E_FILE_NOT_FOUND)
    doctor_complain(found, DOCTOR_ABSENT, "install it, if you want containers of it", "there is no command %s", name);
  else
    doctor_fail(d, found, DOCTOR_BROKEN, remedy);
  swerex_error_clear(&d->err);
}

static void doctor_docker(doctor *d, doctor_finding *found) {
  doctor_engine(d, found, "docker",
                "start its daemon (systemctl start docker), join the group docker, or set DOCKER_HOST");
}

static void doctor_podman(doctor *d, doctor_finding *found) {
  doctor_engine(d, found, "podman", "see what `podman info` says: it may need subuids, runc or netavark");
}

/** Name where AWS's keys would come from, without asking anyone for them; NULL: nowhere. */
static const char *doctor_aws_keys(const swerex__profile *profile) {
  static const struct {
    const char *key, *what;
  } sources[] = {{"role_arn", "a role of the profile"},
                 {"aws_access_key_id", "keys of the profile"},
                 {"credential_process", "a program of the profile"}};
  if (!profile->chosen && swerex__profile_env("AWS_ACCESS_KEY_ID") != NULL)
    return swerex__profile_env("AWS_SECRET_ACCESS_KEY") != NULL ? "keys in the environment" : NULL;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(sources); i++)
    if (swerex__profile_get(profile, profile->name, sources[i].key) != NULL) return sources[i].what;
  if (swerex__profile_env("AWS_WEB_IDENTITY_TOKEN_FILE") != NULL && swerex__profile_env("AWS_ROLE_ARN") != NULL)
    return "a web identity";
  if (swerex__profile_env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != NULL ||
      swerex__profile_env("AWS_CONTAINER_CREDENTIALS_FULL_URI") != NULL)
    return "the service of this container";
  return NULL;
}

static void doctor_aws(doctor *d, doctor_finding *found) {
  swerex__profile profile;
  if (!swerex__profile_open(&profile, NULL, NULL, &d->err)) {
    doctor_fail(d, found, DOCTOR_BROKEN, "mend ~/.aws/config, or set AWS_PROFILE to a profile that is in it");
    return;
  }
  const char *keys = doctor_aws_keys(&profile), *region = swerex__profile_region(&profile, NULL, &d->err);
  if (keys == NULL)
    doctor_complain(found, DOCTOR_ABSENT,
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`; on a machine of "
                    "AWS's its own service is asked when it is needed",
                    "no credentials in the environment or in the profile %.100s", profile.name);
  else if (region == NULL)
    doctor_fail(d, found, DOCTOR_BROKEN, "export AWS_DEFAULT_REGION=eu-central-1, or another");
  else
    doctor_say(found, "%s, in %s", keys, region);
  swerex_error_clear(&d->err);
  swerex__profile_clear(&profile);
}

static void doctor_modal(doctor *d, doctor_finding *found) {
#ifdef SWEREX__SYS_MODAL
  swerex__modalrc rc;
  if (!swerex__modalrc_open(&rc, NULL, &d->err)) {
    doctor_fail(d, found, DOCTOR_BROKEN, "mend that file, or set MODAL_PROFILE");
    return;
  }
  bool known = swerex__modalrc_get(&rc, "token_id") != NULL && swerex__modalrc_get(&rc, "token_secret") != NULL;
  if (known && swerex__modalrc_env("MODAL_TOKEN_ID") != NULL && swerex__modalrc_env("MODAL_TOKEN_SECRET") != NULL)
    doctor_say(found, "a token in the environment");
  else if (known)
    doctor_say(found, "a token in %.900s", rc.path);
  else
    doctor_complain(found, DOCTOR_ABSENT, "set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal token new`",
                    "no token in the environment or for the profile %.80s in %.800s", rc.profile, rc.path);
  swerex__modalrc_clear(&rc);
#else
  (void)d;
  doctor_complain(found, DOCTOR_ABSENT, "build with -DSWEREX_USE_CURL=2, or =1 and -lcurl", "left out of this build");
#endif
}

/* --- all of it ---------------------------------------------------------------------------- */

static const struct doctor_look {
  const char *name;
  void (*look)(doctor *d, doctor_finding *found);
  bool local; /* the local runtime does not work without it */
} doctor_looks[] = {
  {"poller", doctor_poller, true},   {"keeper", doctor_keeper, true},
  {"bash", doctor_bash, false},      {"session", doctor_session, true},
  {"server", doctor_server, false},  {"https", doctor_https, false},
  {"docker", doctor_docker, false},  {"podman", doctor_podman, false},
  {"aws", doctor_aws, false},        {"modal", doctor_modal, false},
};

static void doctor_print(const char *name, const doctor_finding *found) {
  static const struct {
    const char *word, *colour;
  } states[] = {{"works", "32"}, {"not here", "33"}, {"broken", "31"}};
  char on[16], off[16];
  int columns, rows;
  terminal_size(&columns, &rows);
  terminal_colour(states[found->state].colour, on);
  terminal_colour("0", off);
  printf("%s%-8s%s  %-7s  ", on, states[found->state].word, off, name);
  int at = columns < 60 ? 2 : DOCTOR_COLUMN;
  if (at < DOCTOR_COLUMN && (int)strlen(found->text) >= columns - DOCTOR_COLUMN) printf("\n%*s", at, "");
  terminal_wrap(found->text, at, columns);
  if (found->remedy[0] == '\0') return;
  printf("%*s-> ", at, "");
  terminal_wrap(found->remedy, at + 3, columns);
}

static void doctor_add(swerex__str *json, const char *name, const doctor_finding *found) {
  static const char *const states[] = {"works", "absent", "broken"};
  swerex__json_add_comma(json);
  swerex__str_putc(json, '{');
  swerex__json_add_key(json, "name");
  swerex__json_add_text(json, name);
  swerex__json_add_key(json, "state");
  swerex__json_add_text(json, states[found->state]);
  swerex__json_add_key(json, "text");
  swerex__json_add_text(json, found->text);
  swerex__json_add_key(json, "remedy");
  swerex__json_add_text(json, found->remedy);
  swerex__str_putc(json, '}');
}

/** Look at everything, until a signal comes; true: the local runtime works. */
static bool doctor_all(swerex_runtime *runtime, bool as_json) {
  bool works = true;
  doctor d = {runtime, SWEREX_ERROR_INIT};
  swerex__str json = swerex__str_new(NULL, 1 << 20);
  swerex__str_puts(&json, "{\"version\":");
  swerex__json_add_text(&json, swerex_version());
  swerex__json_add_key(&json, "checks");
  swerex__str_putc(&json, '[');
  if (!as_json) printf("swerex %s\n\n", swerex_version());
  for (size_t i = 0; i < SWEREX__SYS_COUNT(doctor_looks) && caught_signal == 0; i++) {
    doctor_finding found;
    memset(&found, 0, sizeof found);
    doctor_looks[i].look(&d, &found);
    if (caught_signal != 0) break;
    works = works && (found.state == DOCTOR_WORKS || !doctor_looks[i].local);
    doctor_add(&json, doctor_looks[i].name, &found);
    if (as_json) continue;
    doctor_print(doctor_looks[i].name, &found);
    fflush(stdout);
  }
  swerex__str_puts(&json, "]");
  swerex__json_add_key(&json, "local_runtime");
  swerex__json_add_bool(&json, works);
  swerex__str_puts(&json, "}\n");
  if (caught_signal != 0)
    works = false;
  else if (as_json)
    put_text(&json);
  else
    printf("\n%s\n", works ? "The local runtime works." : "The local runtime does not work.");
  swerex__str_clear(&json);
  swerex_error_clear(&d.err);
  return works;
}
