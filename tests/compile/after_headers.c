#include <stdio.h>
#include <stdlib.h>
#define SWEREX_IMPLEMENTATION
#include "swerex.h"
