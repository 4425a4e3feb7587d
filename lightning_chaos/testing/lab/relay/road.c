#include "road.h"
#include "../machine.h"

enum {
    CATCH_UP_NS = 4 * 1000 * 1000, /* a busy machine is late with what waits; so much may be made up */
    PIECE_NS = 2 * 1000 * 1000,
    LEAST_PIECE = 1 << 10,
    MOST_PIECE = 32 << 10,
    FINE_PIECE = 4 * 1448, /* four packets of Ethernet; of a train that is eleven pieces */
};

size_t least_under_way = 64 << 10;
double most_rate = 1e9 / 8;

static int64_t later(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t time_for(const struct road *road, size_t size)
{
    return road->shape.rate > 0 ? (int64_t)((double)size * 1e9 / road->shape.rate) : 0;
}

static int64_t delay(const struct road *road)
{
    const struct shape *shape = &road->shape;
    return shape->delay + (int64_t)((2 * chance() - 1) * (double)shape->jitter);
}

static bool silent(const struct road *road) { return road->cut == CUT_SILENT; }

static size_t within(double size, size_t least, size_t most)
{
    return size < (double)least ? least : size > (double)most ? most : (size_t)size;
}

size_t road_piece(const struct road *road, bool fine)
{
    double rate = road->shape.rate / 1e9;
    if (rate <= 0)
        return MOST_PIECE;
    size_t piece = within(rate * PIECE_NS, LEAST_PIECE, MOST_PIECE);
    return fine && piece > FINE_PIECE ? FINE_PIECE : piece;
}

int64_t road_send(struct road *road, size_t size, int64_t now)
{
    road->free_at = later(road->free_at, now - CATCH_UP_NS) + time_for(road, size);
    return later(road->free_at, now);
}

void road_wake(struct road *road, int64_t now)
{
    if (road->idle)
        road->free_at = later(road->free_at, now);
    road->idle = false;
}

bool road_change(struct road *road, struct shape shape, enum cut cut, int64_t now)
{
    const struct shape *old = &road->shape;
    bool other = shape.rate != old->rate || shape.delay != old->delay || shape.jitter != old->jitter;
    bool leaving = other && road->free_at > now;
    if (other)
        road->free_at = now;
    road->shape = shape;
    road->cut = cut;
    return leaving;
}

struct trip trip_begin(const struct road *road, int64_t leaves)
{
    return (struct trip){.due = leaves + delay(road)};
}

bool trip_ended(struct trip *trip, const struct road *road, int64_t now)
{
    if (now < trip->due)
        return false;
    if (silent(road)) {
        trip->held_up = true;
        return false;
    }
    if (trip->held_up)
        *trip = trip_begin(road, now);
    return now >= trip->due;
}

int64_t trip_next(const struct trip *trip, const struct road *road)
{
    return trip->held_up && silent(road) ? INT64_MAX : trip->due;
}

size_t under_way(const struct road *there, const struct road *back)
{
    const struct shape *a = &there->shape, *b = &back->shape;
    double rate = a->rate > 0 ? a->rate : most_rate;
    double bytes = rate / 1e9 * (double)(a->delay + a->jitter + b->delay + b->jitter);
    return bytes < (double)least_under_way ? least_under_way : (size_t)bytes + 1;
}
