/* A live session on this machine. Build: cc -I.. quickstart.c swerex.c -o quickstart */
#include "swerex.h"

#include <stdio.h>

int main(void) {
  static const char *const commands[] = {"cd /tmp", "echo \"I am in $(pwd)\"", "export NAME=session",
                                         "for i in 1 2 3; do\n  echo $NAME $i\ndone", "ls /nonexistent"};
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_deployment *box = swerex_get_deployment_json(loop, "{\"type\": \"local\"}", 0, &err);
  if (box == NULL || !swerex_deployment_start(box, &err)) goto failed;
  swerex_runtime *runtime = swerex_deployment_runtime(box, &err);
  if (!swerex_create_session(runtime, NULL, NULL, &err)) goto failed;

  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    swerex_bash_action action = {.command = commands[i], .check = SWEREX_CHECK_SILENT, .timeout = 10};
    swerex_bash_observation seen = {0};
    if (!swerex_run_in_session(runtime, &action, &seen, &err)) goto failed;
    printf("$ %s\n%s[exit code %d]\n", commands[i], seen.output.data, seen.exit_code);
    swerex_bash_observation_clear(&seen);
  }
  swerex_loop_free(loop);
  return 0;

failed:
  fprintf(stderr, "%s: %s\n", swerex_code_name(err.code), err.message);
  swerex_error_clear(&err);
  swerex_loop_free(loop);
  return 1;
}
