/* relay CONTROL DOOR SEED KERNEL_BYTES LEAST_UNDER_WAY MOST_RATE: the network between nodes that
 * dial it instead of each other, in one process.
 *
 * CONTROL and DOOR are inherited file descriptors: a SOCK_SEQPACKET socket to the owner, and where
 * nodes call.  When CONTROL is closed, the owner has ended, and so does the relay: what it carried
 * is reset.  The rest are figures: of chance, and what a connection may hold (kernel, relay) and a
 * rate that stands for none, in bytes and bytes/s.
 *
 * A call is two bytes of length (big endian), then host, port and name of the node that calls, each
 * with a zero byte behind it; the host is numeric.  The answer is four bytes, 0 or an error number.
 *
 * Orders are lines of words between tabs, several in one message; the answer is one message, "ok"
 * or otherwise what went wrong.  A and B are names of nodes, "*" for all:
 *
 *   place A HOST PORT                         the door of A is there
 *   shape A B RATE DELAY JITTER               of what goes from A to B: bytes/s (0: no limit), ns
 *   cut A B 0|1|2|3                           not, black hole, reset, refusing
 *   count FIRST                               alone; answered with connections and roads, then,
 *                                             from road number FIRST on, a line for each as far as
 *                                             there is room: A, B, bytes arrived
 */
#define _GNU_SOURCE
#include "../machine.h"
#include "call.h"
#include "rules.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MAX_MESSAGE = 64 * 1024,
    LONGEST_LINE = 2 * MAX_NAME + 32,
    LOOK_NS = 50 * 1000 * 1000, /* so often sources that nothing is taken of are looked at */
};

struct road **roads;
size_t road_count;
static struct call *calls;
static int64_t deaf_until; /* no call is accepted before, since it could not be */

/* ---- roads ----------------------------------------------------------------------------------- */

struct road *road_between(int source, int target, int64_t now)
{
    for (size_t i = 0; i < road_count; i++)
        if (roads[i]->source == source && roads[i]->target == target)
            return roads[i];
    struct road *road = calloc(1, sizeof *road);
    struct road **more = realloc(roads, (road_count + 1) * sizeof *roads);
    if (!road || !more) {
        perror("relay: no memory for a road");
        exit(1);
    }
    roads = more;
    roads[road_count++] = road;
    *road = (struct road){.source = source, .target = target, .idle = true, .free_at = now};
    road_change(road, shape_of(source, target), cut_of(source, target), now);
    return road;
}

static void change_all(int64_t now)
{
    for (size_t i = 0; i < road_count; i++) {
        struct road *road = roads[i];
        struct shape shape = shape_of(road->source, road->target);
        if (road_change(road, shape, cut_of(road->source, road->target), now))
            road_send_again(road, now);
    }
    for (struct call *call = calls; call; call = call->next)
        if (call_counts(call) && (call->there->cut == CUT_RESET || call->back->cut == CUT_RESET))
            call_end(call, true);
}

/* ---- orders ---------------------------------------------------------------------------------- */

static bool obey(char *line)
{
    char *words[8];
    int count = 0;
    for (char *word; count < 8 && (word = strsep(&line, "\t"));)
        words[count++] = word;
    if (count == 4 && !strcmp(words[0], "place"))
        return place(words[1], words[2], atoi(words[3]));
    if (count < 4)
        return false;
    int source = node_number(words[1]), target = node_number(words[2]);
    if (source < 0 || target < 0)
        return false;
    if (count == 6 && !strcmp(words[0], "shape")) {
        struct shape shape = {.rate = atof(words[3]), .delay = atoll(words[4]),
                              .jitter = atoll(words[5])};
        say_shape(source, target, shape);
        return true;
    }
    if (count == 4 && !strcmp(words[0], "cut")) {
        say_cut(source, target, (enum cut)atoi(words[3]));
        return true;
    }
    return false;
}

static size_t write_counts(size_t first, char *out)
{
    int connections = 0;
    for (const struct call *call = calls; call; call = call->next)
        connections += call_counts(call);
    int used = sprintf(out, "%d\t%zu\n", connections, road_count);
    for (size_t i = first; i < road_count && used + LONGEST_LINE < MAX_MESSAGE; i++)
        used += sprintf(out + used, "%s\t%s\t%" PRIu64 "\n", node_name(roads[i]->source),
                        node_name(roads[i]->target), roads[i]->carried);
    return (size_t)used;
}

/* False once the owner is gone. */
static bool hear(int control)
{
    static char message[MAX_MESSAGE + 1], answer[MAX_MESSAGE];
    ssize_t size = recv(control, message, MAX_MESSAGE, 0);
    if (size <= 0)
        return size < 0 && (errno == EINTR || errno == EAGAIN);
    message[size] = 0;
    size_t first;
    size_t length = 2;
    strcpy(answer, "ok");
    if (sscanf(message, "count\t%zu", &first) == 1) {
        length = write_counts(first, answer);
    } else {
        char *rest = message;
        for (char *line; (line = strsep(&rest, "\n"));)
            if (*line && !obey(line))
                length = (size_t)snprintf(answer, sizeof answer, "not understood: %.100s", line);
        change_all(now_ns());
    }
    return send(control, answer, length, MSG_NOSIGNAL) >= 0;
}

/* ---- the process ----------------------------------------------------------------------------- */

static void accept_all(int door, int64_t now)
{
    for (int near; now >= deaf_until;) {
        if ((near = accept4(door, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
            struct call *call = call_begin(near, now);
            call->next = calls;
            calls = call;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            perror("relay: a connection cannot be accepted");
            deaf_until = now + 2 * LOOK_NS;
        }
    }
}

static void look_at_all(int64_t now)
{
    static int64_t looked;
    if (now - looked < LOOK_NS)
        return;
    looked = now;
    for (struct call *call = calls; call; call = call->next)
        for (int i = 0; i < 2; i++)
            if (call->pipes[i])
                pipe_look(call->pipes[i], now);
}

static void go_on(int64_t now)
{
    for (size_t i = 0; i < road_count; i++)
        if (!roads[i]->idle)
            road_serve(roads[i], now);
    for (struct call **place = &calls; *place;) {
        struct call *call = *place;
        call_go_on(call, now);
        if (call->stage == OVER) {
            *place = call->next;
            free(call);
        } else {
            place = &call->next;
        }
    }
    look_at_all(now);
}

/* When to go on whatever comes. */
static int64_t next(int64_t now)
{
    int64_t first = deaf_until > now ? deaf_until : INT64_MAX;
    for (size_t i = 0; i < road_count; i++)
        if (!roads[i]->idle && roads[i]->free_at < first)
            first = roads[i]->free_at;
    for (const struct call *call = calls; call; call = call->next) {
        int64_t due = call_next(call);
        bool unread = call->stage == CARRYING && (pipe_is_stuffed(call->pipes[0]) ||
                                                  pipe_is_stuffed(call->pipes[1]));
        if (unread && now + LOOK_NS < due)
            due = now + LOOK_NS;
        if (due < first)
            first = due;
    }
    return first;
}

/* The control socket, the door, then two for each call. */
static struct pollfd *awaited(int control, int door, int64_t now, nfds_t *count)
{
    static struct pollfd *waits;
    static size_t room;
    size_t needed = 2;
    for (const struct call *call = calls; call; call = call->next)
        needed += 2;
    if (needed > room) {
        room = 2 * needed;
        if (!(waits = realloc(waits, room * sizeof *waits))) {
            perror("relay: no memory to wait");
            exit(1);
        }
    }
    waits[0] = (struct pollfd){.fd = control, .events = POLLIN};
    waits[1] = (struct pollfd){.fd = now < deaf_until ? -1 : door, .events = POLLIN};
    *count = 2;
    for (const struct call *call = calls; call; call = call->next, *count += 2)
        call_await(call, &waits[*count]);
    return waits;
}

static void run(int control, int door)
{
    for (;;) {
        int64_t now = now_ns();
        go_on(now);
        int64_t due = next(now);
        nfds_t count;
        struct pollfd *waits = awaited(control, door, now, &count);
        int64_t sleep = sleep_ns(due, now_ns());
        struct timespec wait = {sleep / 1000000000, sleep % 1000000000};
        if (ppoll(waits, count, due < INT64_MAX ? &wait : NULL, NULL) <= 0)
            continue;
        now = now_ns();
        struct pollfd *mine = &waits[2];
        for (struct call *call = calls; call; call = call->next, mine += 2)
            if (mine[0].revents || mine[1].revents)
                call_wake(call, mine, now);
        if (waits[1].revents)
            accept_all(door, now);
        if (waits[0].revents && !hear(control))
            return;
    }
}

int main(int count, char **arguments)
{
    if (count != 7) {
        fprintf(stderr, "usage: relay CONTROL DOOR SEED KERNEL_BYTES LEAST_UNDER_WAY MOST_RATE\n");
        return 2;
    }
    seed_chance(strtoull(arguments[3], NULL, 10) + 1);
    kernel_bytes = atoi(arguments[4]);
    least_under_way = (size_t)atoll(arguments[5]);
    most_rate = atof(arguments[6]);
    go_first();
    run(atoi(arguments[1]), atoi(arguments[2]));
    for (struct call *call = calls; call; call = call->next)
        call_end(call, true);
    return 0;
}
