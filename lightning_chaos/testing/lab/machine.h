/* The machine under the lab's processes: its clock, and how to be in time for what is due. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdint.h>

/* Time of the system's clock that never goes back, ns. */
int64_t now_ns(void);

/* How long to sleep before what is due then; 0: not at all.  Of things that come in a row after a
 * silence the first would be so late that they came as one; so it is waited for awake.  Not all
 * the time: nobody else can use the processor meanwhile. */
int64_t sleep_ns(int64_t due, int64_t now);

/* Other processes must not make this one late: it goes first whenever it has something to do.
 * Where that needs a privilege that is not there, delays are less exact; returns false then. */
_Bool go_first(void);

/* Of all chance from now on. */
void seed_chance(uint64_t seed);

/* From 0 to 1. */
double chance(void);

#endif
