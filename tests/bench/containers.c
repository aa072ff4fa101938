/* Ours for containers.py: for each line of stdin, "start" or "execute", the seconds that it took. */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include <stdio.h>

enum { ROUNDS = 10 };

int main(int argc, char **argv) {
  static const char *const argv_true[] = {"true", NULL};
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_loop *loop = swerex_loop_new(NULL, &err);
  swerex_deployment *box = NULL;
  swerex_deployment_config config;
  swerex_command command;
  char line[32];
  if (argc < 3) return 2;
  memset(&config, 0, sizeof config);
  memset(&command, 0, sizeof command);
  config.type = SWEREX_DEPLOYMENT_DOCKER;
  config.u.docker.image = argv[2];
  if (strcmp(argv[1], "podman") == 0)
    config.u.docker.container_runtime = SWEREX_CONTAINER_PODMAN;
  command.argv = argv_true;
  for (int round = 1; fgets(line, sizeof line, stdin) != NULL; round++) {
    bool start = strncmp(line, "start", 5) == 0, ok = true;
    double begin = swerex__util_now();
    if (start) {
      box = swerex_get_deployment(loop, &config, &err);
      ok = box != NULL && swerex_deployment_start(box, &err);
    } else {
      ok = swerex_execute(swerex_deployment_runtime(box, &err), &command, NULL, &err);
    }
    if (!ok) return fprintf(stderr, "%s\n", err.message), 1;
    printf("%.9f\n", swerex__util_now() - begin);
    if (start && round < ROUNDS) swerex_deployment_free(box);
    if (round == ROUNDS) printf("%s\n", swerex_deployment_container_name(box));
    fflush(stdout);
  }
  swerex_loop_free(loop);
  return 0;
}
