/* switch CONTROL SEED TUN...: the network between hosts, in one process.
 *
 * The arguments are inherited file descriptors (and the seed of all chance): TUN i is the network
 * card of host i, whose address is 10.77.0.(i+1); CONTROL is a SOCK_SEQPACKET socket to the owner.
 * When that is closed, the owner has ended, and so does the switch.
 *
 * A packet from A to B goes through A's card (a rate and a queue), the link A->B (loss, a queue, a
 * rate, then a delay) and B's card (a queue and a rate).  All of it is reckoned in virtual time: a
 * packet gets the moment of its arrival when it comes, so that a late turn of this process makes
 * one packet late and costs no rate.
 *
 * Orders are lines of text, several in one message; the answer is one message, "ok" or otherwise
 * what went wrong.  A and B are numbers of hosts; rates are bits/s on the wire, 0 for no limit:
 *
 *   link A B RATE DELAY_NS JITTER_NS LOSS QUEUE_BYTES    LOSS from 0 to 1
 *   cut A B 0|1                                          1: a black hole, with what is under way
 *   card A RATE_UP QUEUE_UP RATE_DOWN QUEUE_DOWN         queues in bytes
 *   count A                                              alone; answered with a line for each B:
 *                                                        payload bytes arrived, segments lost by
 *                                                        chance, dropped by full queues, cut off
 */
#define _GNU_SOURCE
#include "agenda.h"
#include "packet.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_HOSTS = 64,
    MAX_MESSAGE = 64 * 1024,
    READS_PER_TURN = 8, /* so that one busy host does not keep the others waiting */
    PRIORITY = 20,
};

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
    uint64_t arrived_bytes, lost, dropped, cut_off;
};

struct host {
    int tun;
    struct queue up, down;
    struct link to[MAX_HOSTS];
};

static struct host hosts[MAX_HOSTS];
static int host_count;
static struct agenda agenda;
static uint64_t random_state;

static const uint8_t NETWORK[3] = {10, 77, 0};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* From 0 to 1: xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift"). */
static double chance(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (double)((random_state * UINT64_C(2685821657736338717)) >> 11) * 0x1p-53;
}

/* ---- queues ---------------------------------------------------------------------------------- */

static int64_t later(int64_t a, int64_t b) { return a > b ? a : b; }

/* When a byte that comes at that moment begins to pass. */
static int64_t turn(const struct queue *queue, int64_t at)
{
    return queue->rate > 0 ? later(queue->busy_until, at) : at;
}

/* How many segments of the packet find room in the queue, at that moment. */
static int admitted(const struct queue *queue, const struct packet *packet, int64_t at)
{
    if (queue->rate <= 0)
        return packet->segments;
    double waiting = (double)(turn(queue, at) - at) * queue->rate / 8e9;
    int count = packet_segments_within(packet, queue->limit - waiting);
    return count < 1 && waiting <= 0 ? 1 : count; /* the wire itself has room for one */
}

/* Passes so many bytes that come from that moment on; returns when the last one is through. */
static int64_t pass(struct queue *queue, int64_t at, size_t wire_bytes)
{
    if (queue->rate <= 0)
        return at;
    queue->busy_until = turn(queue, at) + (int64_t)((double)wire_bytes * 8e9 / queue->rate);
    return queue->busy_until;
}

/* ---- the way of a packet --------------------------------------------------------------------- */

/* Sends these segments, of which none is lost by chance, through the sender's card and the link. */
static void send_run(int source, int target, const struct packet *whole, int first, int end,
                     int64_t now)
{
    struct queue *card = &hosts[source].up;
    struct link *link = &hosts[source].to[target];
    struct parcel parcel = {.source = source, .target = target, .frame = malloc(MAX_FRAME)};
    if (!parcel.frame) {
        link->dropped += (uint64_t)(end - first);
        return;
    }
    parcel.size = packet_cut(whole, first, end, parcel.frame);
    struct packet run;
    packet_parse(&run, parcel.frame, parcel.size);

    int64_t begins = turn(card, now);
    int fit = admitted(card, &run, now), fit_link = admitted(&link->queue, &run, begins);
    if (fit_link < fit)
        fit = fit_link;
    link->dropped += (uint64_t)(run.segments - fit); /* the last ones: drop tail */
    if (fit < 1) {
        free(parcel.frame);
        return;
    }
    if (fit < run.segments) {
        static uint8_t shorter[MAX_FRAME];
        parcel.size = packet_cut(&run, 0, fit, shorter);
        memcpy(parcel.frame, shorter, parcel.size);
        packet_parse(&run, parcel.frame, parcel.size);
    }
    parcel.frame = realloc(parcel.frame, parcel.size); /* smaller: cannot fail */

    /* The link passes on what the card lets through while it still comes: one does not wait for
     * the other's last byte. */
    size_t wire = packet_wire_bytes(&run, 0, run.segments);
    int64_t first_byte = turn(&link->queue, begins);
    int64_t through_card = pass(card, now, wire);
    int64_t through_link = pass(&link->queue, begins, wire);
    parcel.leaves = later(through_card, through_link);

    int64_t delay = link->delay + (int64_t)((2 * chance() - 1) * (double)link->jitter);
    parcel.at = later(parcel.leaves + delay, link->last_arrival);
    parcel.first = first_byte + (parcel.at - parcel.leaves);
    link->last_arrival = parcel.at;
    agenda_put(&agenda, parcel);
}

static void take_from(int source, const uint8_t *frame, size_t size, int64_t now)
{
    struct packet packet;
    if (!packet_parse(&packet, frame, size))
        return;
    const uint8_t *address = packet_destination(&packet);
    int target = address[3] - 1;
    if (memcmp(address, NETWORK, sizeof NETWORK) || target < 0 || target >= host_count ||
        target == source)
        return;
    struct link *link = &hosts[source].to[target];
    if (link->cut) {
        link->cut_off += (uint64_t)packet.segments;
        return;
    }
    int first = 0; /* of the run of segments that have not been lost */
    for (int i = 0; link->loss > 0 && i < packet.segments; i++) {
        if (chance() >= link->loss)
            continue;
        link->lost++;
        if (i > first)
            send_run(source, target, &packet, first, i, now);
        first = i + 1;
    }
    if (first < packet.segments)
        send_run(source, target, &packet, first, packet.segments, now);
}

static void hand_over(struct parcel *parcel, const struct packet *packet)
{
    struct link *link = &hosts[parcel->source].to[parcel->target];
    /* A host that is being taken down, or whose kernel has no room, loses it as a real one would. */
    if (write(hosts[parcel->target].tun, parcel->frame, parcel->size) > 0)
        link->arrived_bytes += packet->payload;
    free(parcel->frame);
}

/* A parcel's last byte has come to its target; it may have to wait for the target's card. */
static void arrive(struct parcel parcel)
{
    struct link *link = &hosts[parcel.source].to[parcel.target];
    struct queue *card = &hosts[parcel.target].down;
    struct packet packet;
    packet_parse(&packet, parcel.frame, parcel.size);
    if (link->cut) {
        link->cut_off += (uint64_t)packet.segments;
        free(parcel.frame);
        return;
    }
    if (parcel.received || card->rate <= 0) {
        hand_over(&parcel, &packet);
        return;
    }
    int fit = admitted(card, &packet, parcel.first);
    link->dropped += (uint64_t)(packet.segments - fit);
    if (fit < 1) {
        free(parcel.frame);
        return;
    }
    if (fit < packet.segments) {
        static uint8_t shorter[MAX_FRAME];
        parcel.size = packet_cut(&packet, 0, fit, shorter);
        memcpy(parcel.frame, shorter, parcel.size);
        packet_parse(&packet, parcel.frame, parcel.size);
    }
    int64_t through = pass(card, parcel.first, packet_wire_bytes(&packet, 0, packet.segments));
    parcel.received = true;
    if (through <= parcel.at) {
        hand_over(&parcel, &packet);
        return;
    }
    parcel.at = parcel.leaves = through;
    agenda_put(&agenda, parcel);
}

/* ---- orders ---------------------------------------------------------------------------------- */

static bool known(int host) { return host >= 0 && host < host_count; }

static void set_rate(struct queue *queue, double rate, double limit, int64_t now)
{
    double scale = rate > 0 ? queue->rate / rate : 0;
    if (queue->busy_until > now)
        queue->busy_until = now + (int64_t)((double)(queue->busy_until - now) * scale);
    queue->rate = rate;
    queue->limit = limit;
}

/* What waits on the link waits for the new rate: a throttled link must not stay slow when freed. */
static void reschedule(int source, int target, double scale, int64_t now)
{
    struct link *link = &hosts[source].to[target];
    link->last_arrival = 0;
    for (size_t i = 0; i < agenda.count; i++) {
        struct parcel *parcel = &agenda.heap[i];
        if (parcel->source != source || parcel->target != target || parcel->received)
            continue;
        if (parcel->leaves > now) {
            int64_t leaves = now + (int64_t)((double)(parcel->leaves - now) * scale);
            parcel->at += leaves - parcel->leaves;
            parcel->first = later(now, parcel->first + leaves - parcel->leaves);
            parcel->leaves = leaves;
        }
        link->last_arrival = later(link->last_arrival, parcel->at);
    }
    agenda_sort(&agenda);
}

static bool obey(const char *line)
{
    int a, b, cut;
    double rate, loss, limit, rate_down, limit_down;
    int64_t delay, jitter, now = now_ns();
    if (sscanf(line, "link %d %d %lf %" SCNd64 " %" SCNd64 " %lf %lf", &a, &b, &rate, &delay,
               &jitter, &loss, &limit) == 7 && known(a) && known(b)) {
        struct link *link = &hosts[a].to[b];
        double old = link->queue.rate;
        set_rate(&link->queue, rate, limit, now);
        if (old > 0 && old != rate)
            reschedule(a, b, rate > 0 ? old / rate : 0, now);
        link->delay = delay;
        link->jitter = jitter;
        link->loss = loss;
        return true;
    }
    if (sscanf(line, "cut %d %d %d", &a, &b, &cut) == 3 && known(a) && known(b)) {
        hosts[a].to[b].cut = cut != 0;
        return true;
    }
    if (sscanf(line, "card %d %lf %lf %lf %lf", &a, &rate, &limit, &rate_down, &limit_down) == 5 &&
        known(a)) {
        set_rate(&hosts[a].up, rate, limit, now);
        set_rate(&hosts[a].down, rate_down, limit_down, now);
        return true;
    }
    return false;
}

static void write_counts(int source, char *out, size_t room)
{
    size_t used = 0;
    for (int target = 0; target < host_count; target++) {
        const struct link *link = &hosts[source].to[target];
        int more = snprintf(out + used, room - used,
                            "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
                            link->arrived_bytes, link->lost, link->dropped, link->cut_off);
        used += (size_t)more;
    }
}

/* False once the owner is gone. */
static bool hear(int control)
{
    static char message[MAX_MESSAGE + 1], answer[MAX_MESSAGE];
    ssize_t size = recv(control, message, MAX_MESSAGE, 0);
    if (size <= 0)
        return size < 0 && (errno == EINTR || errno == EAGAIN);
    message[size] = 0;
    strcpy(answer, "ok");
    int source;
    if (sscanf(message, "count %d", &source) == 1 && known(source)) {
        write_counts(source, answer, sizeof answer);
    } else {
        char *rest = message;
        for (char *line; (line = strsep(&rest, "\n"));)
            if (*line && !obey(line))
                snprintf(answer, sizeof answer, "not understood: %.100s", line);
    }
    return send(control, answer, strlen(answer), MSG_NOSIGNAL) >= 0;
}

/* ---- the process ----------------------------------------------------------------------------- */

static void take_all(int source)
{
    static uint8_t frame[MAX_FRAME];
    for (int i = 0; i < READS_PER_TURN; i++) {
        ssize_t size = read(hosts[source].tun, frame, sizeof frame);
        if (size <= 0)
            return;
        take_from(source, frame, (size_t)size, now_ns());
    }
}

static void watch(int poll, int fd, int name)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)name};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event)) {
        perror("switch: a descriptor it was given cannot be used");
        exit(1);
    }
}

/* Other processes must not make packets late: this one goes first whenever it has something to do. */
static void go_first(void)
{
    struct sched_param priority = {.sched_priority = PRIORITY};
    if (sched_setscheduler(0, SCHED_FIFO, &priority) || mlockall(MCL_CURRENT))
        perror("switch: no real-time priority, so delays will be less exact");
}

int main(int count, char **arguments)
{
    if (count < 5 || count - 3 > MAX_HOSTS) {
        fprintf(stderr, "usage: switch CONTROL SEED TUN TUN...\n");
        return 2;
    }
    int control = atoi(arguments[1]);
    random_state = strtoull(arguments[2], NULL, 10) + UINT64_C(0x9e3779b97f4a7c15); /* never 0 */
    host_count = count - 3;
    int poll = epoll_create1(EPOLL_CLOEXEC);
    watch(poll, control, MAX_HOSTS);
    for (int i = 0; i < host_count; i++) {
        hosts[i].tun = atoi(arguments[3 + i]);
        watch(poll, hosts[i].tun, i);
    }
    go_first();
    for (;;) {
        while (agenda.count && agenda.heap[0].at <= now_ns())
            arrive(agenda_take(&agenda));
        struct timespec wait, *bound = NULL;
        if (agenda.count) {
            int64_t left = later(0, agenda.heap[0].at - now_ns());
            wait = (struct timespec){left / 1000000000, left % 1000000000};
            bound = &wait;
        }
        struct epoll_event events[MAX_HOSTS + 1];
        int ready = epoll_pwait2(poll, events, MAX_HOSTS + 1, bound, NULL);
        if (ready < 0 && errno != EINTR) {
            perror("switch");
            return 1;
        }
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u32 < MAX_HOSTS)
                take_all((int)events[i].data.u32);
            else if (!hear(control))
                return 0;
        }
    }
}
