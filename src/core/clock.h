/* Time for profiles: nanoseconds from an arbitrary start. */
#ifndef BP_CORE_CLOCK_H
#define BP_CORE_CLOCK_H

#include <stdint.h>

int64_t bp_clock(void);

#endif
