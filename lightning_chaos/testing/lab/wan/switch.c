/* switch CONTROL SEED TUN...: the network between hosts, in one process.
 *
 * The arguments are inherited file descriptors (and the seed of all chance): TUN i is the network
 * card of host i, whose address is 10.77.0.(i+1); CONTROL is a SOCK_SEQPACKET socket to the owner.
 * When that is closed, the owner has ended, and so does the switch.
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
#include "../machine.h"
#include "network.h"
#include "packet.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MAX_MESSAGE = 64 * 1024,
    READS_PER_TURN = 8, /* so that one busy host does not keep the others waiting */
};

/* ---- orders ---------------------------------------------------------------------------------- */

static bool known(int host) { return host >= 0 && host < host_count; }

static bool obey(const char *line)
{
    int a, b, cut;
    double rate, loss, limit, rate_down, limit_down;
    int64_t delay, jitter, now = now_ns();
    if (sscanf(line, "link %d %d %lf %" SCNd64 " %" SCNd64 " %lf %lf", &a, &b, &rate, &delay,
               &jitter, &loss, &limit) == 7 && known(a) && known(b)) {
        struct link *link = &hosts[a].to[b];
        link_set_rate(a, b, rate, limit, now);
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
        queue_set(&hosts[a].up, rate, limit, now);
        queue_set(&hosts[a].down, rate_down, limit_down, now);
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
        network_take(source, frame, (size_t)size, now_ns());
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

int main(int count, char **arguments)
{
    if (count < 5 || count - 3 > MAX_HOSTS) {
        fprintf(stderr, "usage: switch CONTROL SEED TUN TUN...\n");
        return 2;
    }
    int control = atoi(arguments[1]);
    seed_chance(strtoull(arguments[2], NULL, 10) + 1);
    host_count = count - 3;
    int poll = epoll_create1(EPOLL_CLOEXEC);
    watch(poll, control, MAX_HOSTS);
    for (int i = 0; i < host_count; i++) {
        hosts[i].tun = atoi(arguments[3 + i]);
        watch(poll, hosts[i].tun, i);
    }
    if (!go_first())
        perror("switch: no real-time priority, so delays will be less exact");
    for (;;) {
        network_deliver(now_ns());
        int64_t sleep = sleep_ns(network_next(), now_ns());
        struct timespec wait = {sleep / 1000000000, sleep % 1000000000};
        struct timespec *bound = network_next() < INT64_MAX ? &wait : NULL;
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
