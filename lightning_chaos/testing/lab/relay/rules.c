#include "rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rule {
    int source, target;
    struct shape shape;
    enum cut cut;
};

struct rules {
    struct rule *said;
    size_t count, room;
};

static char *names[MAX_NODES] = {"*"};
static int name_count = 1;
static char *addresses[MAX_NODES]; /* by the number of the node whose door is there */
static struct rules shapes, cuts;

/* ---- names ----------------------------------------------------------------------------------- */

int node_number(const char *name)
{
    for (int node = 0; node < name_count; node++)
        if (!strcmp(names[node], name))
            return node;
    if (name_count == MAX_NODES || strlen(name) > MAX_NAME || strpbrk(name, "\t\n"))
        return -1;
    if (!(names[name_count] = strdup(name)))
        return -1;
    return name_count++;
}

const char *node_name(int node) { return names[node]; }

static void write_address(const char *host, int port, char *out, size_t room)
{
    snprintf(out, room, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port);
}

bool place(const char *name, const char *host, int port)
{
    char address[MAX_NAME];
    write_address(host, port, address, sizeof address);
    int node = node_number(name);
    if (node <= EVERY)
        return false;
    for (int other = 0; other < name_count; other++)
        if (addresses[other] && !strcmp(addresses[other], address)) {
            free(addresses[other]);
            addresses[other] = NULL;
        }
    free(addresses[node]);
    return (addresses[node] = strdup(address)) != NULL;
}

int node_at(const char *host, int port)
{
    char address[MAX_NAME];
    write_address(host, port, address, sizeof address);
    for (int node = 0; node < name_count; node++)
        if (addresses[node] && !strcmp(addresses[node], address))
            return node;
    return node_number(address);
}

/* ---- rules ----------------------------------------------------------------------------------- */

static bool holds(int said, int node) { return said == EVERY || said == node; }

static void say(struct rules *rules, struct rule rule)
{
    size_t kept = 0;
    for (size_t i = 0; i < rules->count; i++) {
        const struct rule *old = &rules->said[i];
        if (!holds(rule.source, old->source) || !holds(rule.target, old->target))
            rules->said[kept++] = *old;
    }
    rules->count = kept;
    if (rules->count == rules->room) {
        rules->room = rules->room ? 2 * rules->room : 64;
        rules->said = realloc(rules->said, rules->room * sizeof *rules->said);
        if (!rules->said) {
            perror("relay: no memory for what is said");
            exit(1);
        }
    }
    rules->said[rules->count++] = rule;
}

static struct rule said(const struct rules *rules, int source, int target)
{
    if (source != target)
        for (size_t i = rules->count; i-- > 0;) {
            const struct rule *rule = &rules->said[i];
            if (holds(rule->source, source) && holds(rule->target, target))
                return *rule;
        }
    return (struct rule){.cut = CUT_NONE};
}

void say_shape(int source, int target, struct shape shape)
{
    say(&shapes, (struct rule){.source = source, .target = target, .shape = shape});
}

void say_cut(int source, int target, enum cut cut)
{
    say(&cuts, (struct rule){.source = source, .target = target, .cut = cut});
}

struct shape shape_of(int source, int target) { return said(&shapes, source, target).shape; }

enum cut cut_of(int source, int target) { return said(&cuts, source, target).cut; }
