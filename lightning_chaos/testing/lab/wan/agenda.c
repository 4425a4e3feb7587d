#include "agenda.h"

#include <stdio.h>
#include <stdlib.h>

static bool before(const struct parcel *a, const struct parcel *b)
{
    return a->at < b->at || (a->at == b->at && a->number < b->number);
}

static void sink(struct agenda *agenda, size_t place)
{
    struct parcel sinking = agenda->heap[place];
    for (;;) {
        size_t child = 2 * place + 1;
        if (child >= agenda->count)
            break;
        if (child + 1 < agenda->count && before(&agenda->heap[child + 1], &agenda->heap[child]))
            child++;
        if (!before(&agenda->heap[child], &sinking))
            break;
        agenda->heap[place] = agenda->heap[child];
        place = child;
    }
    agenda->heap[place] = sinking;
}

void agenda_put(struct agenda *agenda, struct parcel parcel)
{
    if (agenda->count == agenda->room) {
        agenda->room = agenda->room ? 2 * agenda->room : 1024;
        agenda->heap = realloc(agenda->heap, agenda->room * sizeof *agenda->heap);
        if (!agenda->heap) {
            perror("switch: no memory for what is under way");
            exit(1);
        }
    }
    if (!parcel.number)
        parcel.number = ++agenda->next_number;
    size_t place = agenda->count++;
    while (place > 0 && before(&parcel, &agenda->heap[(place - 1) / 2])) {
        agenda->heap[place] = agenda->heap[(place - 1) / 2];
        place = (place - 1) / 2;
    }
    agenda->heap[place] = parcel;
}

struct parcel agenda_take(struct agenda *agenda)
{
    struct parcel first = agenda->heap[0];
    agenda->heap[0] = agenda->heap[--agenda->count];
    if (agenda->count)
        sink(agenda, 0);
    return first;
}

void agenda_sort(struct agenda *agenda)
{
    for (size_t place = agenda->count / 2; place-- > 0;)
        sink(agenda, place);
}
