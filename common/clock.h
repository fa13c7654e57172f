/*
 * Time. All durations are in the unit that the name says. The monotonic clock can be replaced, so
 * that unit tests run in virtual time; nothing else in Sluice reads a clock.
 */
#ifndef SLUICE_COMMON_CLOCK_H
#define SLUICE_COMMON_CLOCK_H

#include <stdint.h>

uint64_t sl_clock_now_us(void); /* Monotonic, from an arbitrary start. */
uint64_t sl_clock_now_ms(void); /* The same clock. */
int64_t
sl_clock_unix_ms(void); /* This machine's wall clock: for logs and ids, never for deadlines. */

/* Virtual time for tests: both clocks then read *now_us. NULL restores the real ones. */
void sl_clock_use(const uint64_t *now_us);

#endif
