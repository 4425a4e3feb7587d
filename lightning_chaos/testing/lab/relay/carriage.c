#include "carriage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    FINE_BYTES = 128 << 10, /* so many after a silence are carried in fine pieces: two trains */
    SILENCE_NS = 5 * 1000 * 1000,
};

static void *need(void *memory)
{
    if (!memory) {
        perror("relay: no memory for what is under way");
        exit(1);
    }
    return memory;
}

struct pipe *pipe_open(int in, int out, struct road *road, struct road *back)
{
    struct pipe *pipe = need(calloc(1, sizeof *pipe));
    pipe->in = in;
    pipe->out = out;
    pipe->road = road;
    pipe->back = back;
    if (road->count == road->room) {
        road->room = road->room ? 2 * road->room : 4;
        road->pipes = need(realloc(road->pipes, road->room * sizeof(struct pipe *)));
    }
    road->pipes[road->count++] = pipe;
    return pipe;
}

void pipe_close(struct pipe *pipe)
{
    struct road *road = pipe->road;
    size_t place = 0;
    while (road->pipes[place] != pipe)
        place++;
    road->count--;
    memmove(&road->pipes[place], &road->pipes[place + 1],
            (road->count - place) * sizeof(struct pipe *));
    for (struct piece *piece = pipe->first; piece;) {
        struct piece *next = piece->next;
        free(piece);
        piece = next;
    }
    free(pipe);
}

/* ---- taking ---------------------------------------------------------------------------------- */

static size_t next_piece(const struct pipe *pipe)
{
    return road_piece(pipe->road, pipe->fresh < FINE_BYTES);
}

static bool has_room(const struct pipe *pipe)
{
    return pipe->held + next_piece(pipe) <= under_way(pipe->road, pipe->back);
}

bool pipe_wants(const struct pipe *pipe)
{
    return !pipe->drained && !pipe->broken && has_room(pipe);
}

bool pipe_is_stuffed(const struct pipe *pipe)
{
    return !pipe->drained && !pipe->broken && !has_room(pipe);
}

static void put(struct pipe *pipe, struct piece *piece, int64_t now)
{
    piece->next = NULL;
    piece->given = 0;
    piece->leaves = road_send(pipe->road, piece->size, now);
    piece->trip = trip_begin(pipe->road, piece->leaves);
    if (pipe->first)
        pipe->last->next = piece;
    else
        pipe->first = piece;
    pipe->last = piece;
    pipe->held += piece->size;
    pipe->drained = piece->what != BYTES;
}

/* Returns the bytes taken, 0 for the end or a reset, -1 if there is nothing to take. */
static ssize_t take(struct pipe *pipe, int64_t now)
{
    static char data[64 << 10];
    if (now - pipe->taken_at > SILENCE_NS)
        pipe->fresh = 0;
    ssize_t size = recv(pipe->in, data, next_piece(pipe), MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return -1;
    struct piece *piece = need(malloc(sizeof *piece + (size > 0 ? (size_t)size : 0)));
    piece->what = size > 0 ? BYTES : size == 0 ? END : RESET;
    piece->size = size > 0 ? (size_t)size : 0;
    memcpy(piece->data, data, piece->size);
    pipe->fresh += piece->size;
    pipe->taken_at = now;
    put(pipe, piece, now);
    return (ssize_t)piece->size;
}

void pipe_look(struct pipe *pipe, int64_t now)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (pipe_is_stuffed(pipe) && !getsockopt(pipe->in, SOL_SOCKET, SO_ERROR, &error, &size) &&
        error) {
        struct piece *piece = need(calloc(1, sizeof *piece));
        piece->what = RESET;
        put(pipe, piece, now);
    }
}

void road_serve(struct road *road, int64_t now)
{
    bool more = false;
    for (size_t i = 0, first = road->turn; i < road->count && road->free_at <= now; i++) {
        size_t place = (first + i) % road->count;
        struct pipe *pipe = road->pipes[place];
        if (!pipe_wants(pipe))
            continue;
        size_t asked = next_piece(pipe);
        ssize_t taken = take(pipe, now);
        if (taken >= 0)
            road->turn = (place + 1) % road->count;
        more |= taken == (ssize_t)asked || (taken >= 0 && road->shape.rate > 0);
    }
    road->idle |= !more && road->free_at <= now;
}

void road_send_again(struct road *road, int64_t now)
{
    for (size_t i = 0; i < road->count; i++) {
        struct piece *piece = road->pipes[i]->last;
        if (piece && piece->leaves > now) { /* at most one: the next one leaves after it */
            piece->leaves = road_send(road, piece->size, now);
            piece->trip = trip_begin(road, piece->leaves);
        }
    }
}

/* ---- giving ---------------------------------------------------------------------------------- */

/* While nothing comes back, no more is sent than may be under way. */
static bool may_arrive(const struct pipe *pipe, size_t size)
{
    return pipe->back->cut != CUT_SILENT || !pipe->unacknowledged ||
           pipe->unacknowledged + size <= under_way(pipe->road, pipe->back);
}

/* False if the sink takes no more for now. */
static bool give(struct pipe *pipe, struct piece *piece, int64_t now)
{
    while (piece->given < piece->size) {
        ssize_t size = send(pipe->out, piece->data + piece->given, piece->size - piece->given,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0 && errno == EAGAIN) {
            pipe->full = true;
            return false;
        }
        if (size < 0) {
            pipe->broken = true;
            pipe->news = trip_begin(pipe->back, now);
            return false;
        }
        piece->given += (size_t)size;
        pipe->held -= (size_t)size;
        pipe->unacknowledged =
            pipe->back->cut == CUT_SILENT ? pipe->unacknowledged + (size_t)size : 0;
        pipe->road->carried += (uint64_t)size;
    }
    if (piece->what == END)
        shutdown(pipe->out, SHUT_WR);
    if (piece->what != BYTES)
        pipe->state = piece->what == END ? ENDED : WAS_RESET;
    return true;
}

void pipe_give(struct pipe *pipe, int64_t now)
{
    if (pipe->broken && trip_ended(&pipe->news, pipe->back, now))
        pipe->state = WAS_RESET;
    while (pipe->first && pipe->state == OPEN && !pipe->broken && !pipe->full) {
        struct piece *piece = pipe->first;
        if (!piece->given && !(trip_ended(&piece->trip, pipe->road, now) &&
                               may_arrive(pipe, piece->size)))
            return;
        if (!give(pipe, piece, now))
            return;
        if (!(pipe->first = piece->next))
            pipe->last = NULL;
        free(piece);
    }
}

int64_t pipe_next(const struct pipe *pipe)
{
    if (pipe->broken)
        return trip_next(&pipe->news, pipe->back);
    const struct piece *piece = pipe->first;
    if (!piece || pipe->full || pipe->state != OPEN || !may_arrive(pipe, piece->size))
        return INT64_MAX;
    return trip_next(&piece->trip, pipe->road);
}
