#include "network.h"
#include "../machine.h"
#include "agenda.h"
#include "packet.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct host hosts[MAX_HOSTS];
int host_count;

static struct agenda agenda;

static const uint8_t NETWORK[3] = {10, 77, 0};

static int64_t later(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- queues ---------------------------------------------------------------------------------- */

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

/* Cuts off the segments after the first ones. */
static void keep_first(struct parcel *parcel, struct packet *packet, int count)
{
    static uint8_t shorter[MAX_FRAME];
    if (count == packet->segments)
        return;
    parcel->size = packet_cut(packet, 0, count, shorter);
    memcpy(parcel->frame, shorter, parcel->size);
    packet_parse(packet, parcel->frame, parcel->size);
}

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
    keep_first(&parcel, &run, fit);
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

void network_take(int source, const uint8_t *frame, size_t size, int64_t now)
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
    keep_first(&parcel, &packet, fit);
    int64_t through = pass(card, parcel.first, packet_wire_bytes(&packet, 0, packet.segments));
    parcel.received = true;
    if (through <= parcel.at) {
        hand_over(&parcel, &packet);
        return;
    }
    parcel.at = parcel.leaves = through;
    agenda_put(&agenda, parcel);
}

void network_deliver(int64_t now)
{
    while (network_next() <= now)
        arrive(agenda_take(&agenda));
}

int64_t network_next(void) { return agenda.count ? agenda.heap[0].at : INT64_MAX; }

/* ---- changes --------------------------------------------------------------------------------- */

void queue_set(struct queue *queue, double rate, double limit, int64_t now)
{
    double scale = rate > 0 ? queue->rate / rate : 0;
    if (queue->busy_until > now)
        queue->busy_until = now + (int64_t)((double)(queue->busy_until - now) * scale);
    queue->rate = rate;
    queue->limit = limit;
}

/* What waits on the link waits so much longer or shorter. */
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

void link_set_rate(int source, int target, double rate, double limit, int64_t now)
{
    struct queue *queue = &hosts[source].to[target].queue;
    double old = queue->rate;
    queue_set(queue, rate, limit, now);
    if (old > 0 && old != rate)
        reschedule(source, target, rate > 0 ? old / rate : 0, now);
}
