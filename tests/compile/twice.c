#include "swerex.h"
#include "swerex.h"

int second_file(void);
int second_file(void) {
  swerex_error err = SWEREX_ERROR_INIT;
  swerex_error_clear(&err);
  return swerex_version()[0] == '0' ? 0 : 1;
}
