/* Carries a connection's bytes: a pipe is one direction of it. */
#ifndef CARRIAGE_H
#define CARRIAGE_H

#include "road.h"

struct piece {
    struct piece *next;
    enum { BYTES, END, RESET } what; /* end and reset travel like bytes, after those before them */
    int64_t leaves;
    struct trip trip;
    size_t size, given;
    char data[];
};

struct pipe {
    int in, out; /* taken from, given to; both belong to the connection */
    struct road *road, *back;
    struct piece *first, *last; /* under way, in order */
    size_t held;                /* their bytes */
    size_t unacknowledged;      /* given while the way back was a black hole */
    size_t fresh;               /* taken since the last silence */
    int64_t taken_at;
    bool drained;    /* the source has ended, or was reset */
    bool full;       /* the sink takes no more for now */
    bool broken;     /* the sink is gone; the news is on its way to the source */
    struct trip news;
    enum { OPEN, ENDED, WAS_RESET } state;
};

/* Begins to carry, and takes its turns on the road. */
struct pipe *pipe_open(int in, int out, struct road *road, struct road *back);

/* Leaves the road; what is under way is lost. */
void pipe_close(struct pipe *pipe);

/* Whether it would take something now. */
bool pipe_wants(const struct pipe *pipe);

/* Whether more would be taken if there were room: then a reset of the source must be looked for. */
bool pipe_is_stuffed(const struct pipe *pipe);
void pipe_look(struct pipe *pipe, int64_t now);

/* Gives what has arrived.  The state says what became of the connection. */
void pipe_give(struct pipe *pipe, int64_t now);

/* When to give again; INT64_MAX: when the sink takes more, more is taken, or conditions change. */
int64_t pipe_next(const struct pipe *pipe);

/* Lets those that share the road send what they have, in turn, until the road is busy. */
void road_serve(struct road *road, int64_t now);

/* What is leaving at this moment leaves anew, under new conditions. */
void road_send_again(struct road *road, int64_t now);

#endif
