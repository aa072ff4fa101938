#include "swerex.h"

int second_file(void);
int main(void) { return second_file() + (swerex_version()[1] == '.' ? 0 : 1); }
