/* Time for profiles; see clock.h. */
#define _POSIX_C_SOURCE 199309L
#include "clock.h"

#include <time.h>

int64_t bp_clock(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
