/* What lies between the hosts: a network card for each, and a link for each ordered pair.
 *
 * A packet from A to B goes through A's card (a rate and a queue), the link A->B (loss, a queue, a
 * rate, then a delay) and B's card (a queue and a rate).  All of it is reckoned in virtual time: a
 * packet gets the moment of its arrival when it comes, so that a late turn of this process makes
 * one packet late and costs no rate. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_HOSTS = 64 };

struct queue {
    double rate;        /* bits/s, 0 for no limit */
    double limit;       /* bytes that may wait */
    int64_t busy_until; /* ns; when all that waits now has passed */
};

struct link {
    struct queue queue;
    int64_t delay, jitter; /* ns */
    int64_t last_arrival;  /* jitter must not change the order */
    double loss;           /* of 1 */
    bool cut;
    uint64_t arrived_bytes, lost, dropped, cut_off; /* see switch.c */
};

struct host {
    int tun; /* the wire of its network card */
    struct queue up, down;
    struct link to[MAX_HOSTS];
};

extern struct host hosts[MAX_HOSTS];
extern int host_count;

/* A host sends a packet (see packet.h) at that moment. */
void network_take(int source, const uint8_t *frame, size_t size, int64_t now);

/* Hands over what has arrived by that moment. */
void network_deliver(int64_t now);

/* When something will arrive next, INT64_MAX if nothing is under way. */
int64_t network_next(void);

/* From now on a queue passes on so much; what waits in it waits accordingly. */
void queue_set(struct queue *queue, double rate, double limit, int64_t now);

/* The same for a link's queue: a throttled link must not stay slow when it is freed. */
void link_set_rate(int source, int target, double rate, double limit, int64_t now);

#endif
