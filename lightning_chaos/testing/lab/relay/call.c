#define _GNU_SOURCE
#include "call.h"
#include "rules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SPEAK_NS INT64_C(5000000000)

int kernel_bytes = 64 << 10;

/* ---- connections ----------------------------------------------------------------------------- */

static void close_one(int *file, bool reset)
{
    struct linger linger = {.l_onoff = 1};
    if (*file < 0)
        return;
    if (reset)
        setsockopt(*file, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(*file);
    *file = -1;
}

void call_end(struct call *call, bool reset)
{
    for (int i = 0; i < 2; i++)
        if (call->pipes[i]) {
            pipe_close(call->pipes[i]);
            call->pipes[i] = NULL;
        }
    close_one(&call->near, reset);
    close_one(&call->far, reset);
    call->stage = OVER;
}

struct call *call_begin(int near, int64_t now)
{
    struct call *call = calloc(1, sizeof *call);
    if (!call) {
        perror("relay: no memory for a call");
        exit(1);
    }
    call->near = near;
    call->far = -1;
    call->begun = now;
    return call;
}

bool call_counts(const struct call *call) { return call->stage > SPEAKING && call->stage < OVER; }

/* ---- the call -------------------------------------------------------------------------------- */

/* host, port and name of the node that calls, with a zero byte behind each; false: it is no call. */
static bool understood(struct call *call, int64_t now)
{
    const char *fields[3], *at = (const char *)call->words + 2;
    const char *end = (const char *)call->words + call->heard;
    for (int i = 0; i < 3; i++) {
        const char *zero = memchr(at, 0, (size_t)(end - at));
        if (!zero)
            return false;
        fields[i] = at;
        at = zero + 1;
    }
    int port = atoi(fields[1]);
    if (at != end || port < 1 || port > 65535 || strlen(fields[0]) >= sizeof call->host)
        return false;
    strcpy(call->host, fields[0]);
    snprintf(call->port, sizeof call->port, "%d", port);
    int source = node_number(fields[2]), target = node_at(call->host, port);
    if (source <= EVERY || target <= EVERY)
        return false;
    call->there = road_between(source, target, now);
    call->back = road_between(target, source, now);
    return true;
}

/* Reads what is there; false: it is no call. */
static bool listen_to(struct call *call, int64_t now)
{
    for (;;) {
        size_t wanted = call->heard < 2 ? 2 : 2 + (size_t)(call->words[0] << 8 | call->words[1]);
        if (wanted > sizeof call->words)
            return false;
        if (call->heard >= 2 && call->heard == wanted)
            break;
        ssize_t size = recv(call->near, call->words + call->heard, wanted - call->heard, 0);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return now < call->begun + SPEAK_NS;
        if (size <= 0)
            return false;
        call->heard += (size_t)size;
    }
    if (!understood(call, now))
        return false;
    call->stage = GOING;
    call->trip = trip_begin(call->there, now);
    return true;
}

static void answer(struct call *call, int code, int64_t now)
{
    call->code = code;
    call->stage = ANSWERING;
    call->trip = trip_begin(call->back, now);
}

/* Returns the error number, EINPROGRESS while it goes on. */
static int dial(struct call *call)
{
    struct addrinfo *found, like = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    int half = kernel_bytes / 2; /* the kernel doubles what it is asked for */
    if (getaddrinfo(call->host, call->port, &like, &found))
        return EHOSTUNREACH;
    int code = 0;
    call->far = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (call->far >= 0) {
        setsockopt(call->far, SOL_SOCKET, SO_RCVBUF, &half, sizeof half);
        setsockopt(call->far, SOL_SOCKET, SO_SNDBUF, &half, sizeof half);
    }
    if (call->far < 0 || connect(call->far, found->ai_addr, found->ai_addrlen))
        code = errno;
    freeaddrinfo(found);
    return code;
}

static void arrive(struct call *call, int64_t now)
{
    int code = 0;
    if (call->there->cut == CUT_RESET || call->back->cut == CUT_RESET)
        code = ECONNRESET;
    else if (call->there->cut == CUT_REFUSE)
        code = ECONNREFUSED;
    else
        code = dial(call);
    if (code == EINPROGRESS)
        call->stage = DIALLING;
    else
        answer(call, code, now);
}

static void reply(struct call *call)
{
    uint32_t code = htonl((uint32_t)call->code);
    int at_once = 1;
    bool told = send(call->near, &code, sizeof code, MSG_NOSIGNAL) == sizeof code;
    if (!told || call->code) {
        call_end(call, false);
        return;
    }
    setsockopt(call->near, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
    setsockopt(call->far, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
    call->pipes[0] = pipe_open(call->near, call->far, call->there, call->back);
    call->pipes[1] = pipe_open(call->far, call->near, call->back, call->there);
    call->there->idle = call->back->idle = false;
    call->stage = CARRYING;
}

/* ---- going on -------------------------------------------------------------------------------- */

static void carry(struct call *call, int64_t now)
{
    for (int i = 0; i < 2; i++)
        pipe_give(call->pipes[i], now);
    if (call->pipes[0]->state == WAS_RESET || call->pipes[1]->state == WAS_RESET)
        call_end(call, true);
    else if (call->pipes[0]->state == ENDED && call->pipes[1]->state == ENDED)
        call_end(call, false);
}

void call_go_on(struct call *call, int64_t now)
{
    if (call->stage == SPEAKING && !listen_to(call, now))
        call_end(call, false);
    if (call->stage == GOING && trip_ended(&call->trip, call->there, now))
        arrive(call, now);
    if (call->stage == ANSWERING && trip_ended(&call->trip, call->back, now))
        reply(call);
    if (call->stage == CARRYING)
        carry(call, now);
}

void call_await(const struct call *call, struct pollfd waits[2])
{
    short events[2] = {POLLIN, 0};
    if (call->stage == DIALLING)
        events[1] = POLLOUT;
    if (call->stage == CARRYING)
        for (int i = 0; i < 2; i++) {
            const struct pipe *takes = call->pipes[i], *gives = call->pipes[1 - i];
            bool take = takes->road->idle && pipe_wants(takes);
            events[i] = (short)((take ? POLLIN : 0) | (gives->full ? POLLOUT : 0));
        }
    waits[0] = (struct pollfd){.fd = events[0] ? call->near : -1, .events = events[0]};
    waits[1] = (struct pollfd){.fd = events[1] ? call->far : -1, .events = events[1]};
}

void call_wake(struct call *call, const struct pollfd waits[2], int64_t now)
{
    if (call->stage == CARRYING) {
        for (int i = 0; i < 2; i++) {
            if (waits[i].revents & ~POLLOUT)
                road_wake(call->pipes[i]->road, now);
            if (waits[i].revents & ~POLLIN)
                call->pipes[1 - i]->full = false;
        }
    } else if (call->stage != SPEAKING && waits[0].revents) {
        call_end(call, false); /* it has hung up: it says nothing until it is answered */
    } else if (call->stage == DIALLING && waits[1].revents) {
        int code = 0;
        socklen_t size = sizeof code;
        getsockopt(call->far, SOL_SOCKET, SO_ERROR, &code, &size);
        answer(call, code, now);
    }
}

int64_t call_next(const struct call *call)
{
    switch (call->stage) {
    case SPEAKING:
        return call->begun + SPEAK_NS;
    case GOING:
        return trip_next(&call->trip, call->there);
    case ANSWERING:
        return trip_next(&call->trip, call->back);
    case CARRYING: {
        int64_t there = pipe_next(call->pipes[0]), back = pipe_next(call->pipes[1]);
        return there < back ? there : back;
    }
    default:
        return INT64_MAX;
    }
}
