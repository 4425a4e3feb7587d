/* What the owner said: where nodes are, and what holds for ordered pairs of them. */
#ifndef RULES_H
#define RULES_H

#include "road.h"

enum { MAX_NODES = 1024, MAX_NAME = 255, EVERY = 0 };

/* The number of a node, EVERY for "*"; -1: there are too many, or it is no name that can be told. */
int node_number(const char *name);

const char *node_name(int node);

/* That node's door is there; false: no room. */
bool place(const char *name, const char *host, int port);

/* Whose door is there; one of which nothing was said bears its address's name.  -1 as above. */
int node_at(const char *host, int port);

/* From now on, the latest word counts; either node may be EVERY. */
void say_shape(int source, int target, struct shape shape);
void say_cut(int source, int target, enum cut cut);

/* What holds; what a node says to itself crosses no network. */
struct shape shape_of(int source, int target);
enum cut cut_of(int source, int target);

#endif
