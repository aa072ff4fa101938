#define SWEREX_IMPLEMENTATION
#include "swerex.h"
#ifdef SWEREX_STATIC
int swerex_static_is_used(void);
int swerex_static_is_used(void) { return swerex_version()[0]; }
#endif
