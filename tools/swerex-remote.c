/*
 * swerex-remote: the server that runs in a container or on another machine. `--help` tells more.
 */
#define SWEREX_NO_REMOTE
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include "serve.h"

int main(int argc, char **argv) {
  (void)argc;
  keep_standard();
  return serve("swerex-remote", argv);
}
