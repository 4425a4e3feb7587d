/* What is under way, in order of the moment at which something must be done about it: a heap. */
#ifndef AGENDA_H
#define AGENDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct parcel {
    int64_t at;      /* when its last byte reaches its target, ns */
    int64_t first;   /* when its first byte does */
    int64_t leaves;  /* when it has passed the rate of its link, and only the delay is left */
    uint64_t number; /* earlier ones go first when times are equal */
    int source, target;
    bool received; /* it has passed its target's network card too */
    size_t size;
    uint8_t *frame; /* owned by the agenda while it is in there */
};

struct agenda {
    struct parcel *heap;
    size_t count, room;
    uint64_t next_number;
};

/* Keeps the parcel's number if it has one, so that a second entry keeps its place. */
void agenda_put(struct agenda *agenda, struct parcel parcel);

/* The first one; the agenda must not be empty. */
struct parcel agenda_take(struct agenda *agenda);

/* To be called after times of entries were changed in place. */
void agenda_sort(struct agenda *agenda);

#endif
