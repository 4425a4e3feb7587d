/* One direction of a link: all connections from one node to another share it. */
#ifndef ROAD_H
#define ROAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shape {
    double rate;           /* bytes/s, 0 for no limit */
    int64_t delay, jitter; /* ns */
};

enum cut { CUT_NONE, CUT_SILENT, CUT_RESET, CUT_REFUSE };

struct pipe;

struct road {
    int source, target;
    struct shape shape;
    enum cut cut;
    int64_t free_at;  /* when what was sent so far will have left */
    bool idle;        /* when it was free last, nobody had anything to send */
    uint64_t carried; /* bytes that arrived */

    /* Those that send, one piece each in turn. */
    struct pipe **pipes;
    size_t count, room, turn;
};

/* Something of no size, or the last byte of a piece, on its way from one end to the other. */
struct trip {
    int64_t due;
    bool held_up; /* it met a black hole, and is sent anew when that is over */
};

/* How much to send at once: what takes two milliseconds; of the first bytes after a silence a few
 * packets, so that who looks at how they are spaced sees the rate. */
size_t road_piece(const struct road *road, bool fine);

/* Sends a piece when those before it have left; returns when it will have left. */
int64_t road_send(struct road *road, size_t size, int64_t now);

/* Somebody has something to send, and until now nobody had: nothing is caught up for that. */
void road_wake(struct road *road, int64_t now);

/* New conditions.  True if what is leaving at this moment must be sent again, at the new rate. */
bool road_change(struct road *road, struct shape shape, enum cut cut, int64_t now);

/* What leaves then is on its way. */
struct trip trip_begin(const struct road *road, int64_t leaves);

/* Whether it has arrived. */
bool trip_ended(struct trip *trip, const struct road *road, int64_t now);

/* When to ask again; INT64_MAX: after the next change. */
int64_t trip_next(const struct trip *trip, const struct road *road);

/* What one direction of a connection may have under way: rate x round trip. */
size_t under_way(const struct road *there, const struct road *back);

/* Told by the owner: the least of that, and the rate that stands for none, bytes/s. */
extern size_t least_under_way;
extern double most_rate;

#endif
