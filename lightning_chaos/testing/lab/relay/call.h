/* A connection through the relay: a node calls another, then their bytes are carried. */
#ifndef CALL_H
#define CALL_H

#include "carriage.h"

#include <poll.h>

enum { MOST_CALL = 1024 };

struct call {
    struct call *next;
    int near, far; /* to the node that called, and to the one that is called; -1: none */
    enum { SPEAKING, GOING, DIALLING, ANSWERING, CARRYING, OVER } stage;
    int64_t begun;
    unsigned char words[2 + MOST_CALL];
    size_t heard;
    char host[64], port[8];
    struct trip trip;
    int code; /* what became of it: 0 or an error number */
    struct road *there, *back;
    struct pipe *pipes[2]; /* there and back */
};

/* The road from one node to another, made when it is first needed. */
struct road *road_between(int source, int target, int64_t now);

/* All roads, in order of their making. */
extern struct road **roads;
extern size_t road_count;

/* Somebody calls; owns the socket from now on. */
struct call *call_begin(int near, int64_t now);

/* Whether it is more than a stranger's beginning. */
bool call_counts(const struct call *call);

/* Does what can be done now. */
void call_go_on(struct call *call, int64_t now);

/* What to wait for, by file: two entries, unused ones with a negative one. */
void call_await(const struct call *call, struct pollfd waits[2]);

/* What was awaited has come. */
void call_wake(struct call *call, const struct pollfd waits[2], int64_t now);

/* When to go on whatever comes. */
int64_t call_next(const struct call *call);

/* Ends it: both ends are told of a reset if the connection had not ended by itself. */
void call_end(struct call *call, bool reset);

/* Told by the owner: what the kernel may hold of a connection, bytes. */
extern int kernel_bytes;

#endif
