/* The implementation, in a file of its own. Build: cc -c swerex.c */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"
