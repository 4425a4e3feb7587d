#define _GNU_SOURCE
#include "machine.h"

#include <sched.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

enum {
    PRIORITY = 20,
    WAKING_NS = 150 * 1000,      /* a processor that was asleep may be so late */
    AWAKE_SHARE = 10,            /* so much of the time, a tenth, may be waited awake, */
    MOST_AWAKE_NS = 2000 * 1000, /* and of a long sleep so much is made up for */
};

int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int64_t sleep_ns(int64_t due, int64_t now)
{
    static int64_t allowed = MOST_AWAKE_NS, before;
    static bool awake;
    allowed += (now - before) / AWAKE_SHARE - (awake ? now - before : 0);
    if (allowed > MOST_AWAKE_NS)
        allowed = MOST_AWAKE_NS;
    before = now;
    int64_t left = due > now ? due - now : 0;
    int64_t early = allowed > 0 ? WAKING_NS : 0;
    awake = left <= early;
    return awake ? 0 : left - early;
}

bool go_first(void)
{
    struct sched_param priority = {.sched_priority = PRIORITY};
    prctl(PR_SET_TIMERSLACK, 1UL); /* by default the kernel takes 50 microseconds more */
    return !sched_setscheduler(0, SCHED_FIFO, &priority) && !mlockall(MCL_CURRENT);
}

/* ---- chance ---------------------------------------------------------------------------------- */

static uint64_t random_state = 1;

void seed_chance(uint64_t seed)
{
    random_state = seed ^ UINT64_C(0x9e3779b97f4a7c15); /* small seeds begin with small numbers */
    if (!random_state)
        random_state = 1; /* zero would stay zero */
}

/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift"). */
double chance(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (double)((random_state * UINT64_C(2685821657736338717)) >> 11) * 0x1p-53;
}
