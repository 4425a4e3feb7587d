/* An IP packet as a TUN device hands it over when its kernel may leave work undone (IFF_VNET_HDR).
 *
 * Before each packet stands a virtio_net header.  A TCP packet may be far bigger than the MTU: the
 * kernel has not cut it into segments (TSO) and says in the header how big they are to be.  We carry
 * it as it is, 64 KiB at a time, which is why one core can carry gigabits; but rate, loss and queue
 * count in segments, and a packet that loses some is cut here. */
#ifndef PACKET_H
#define PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MAX_FRAME = 66 * 1024, /* virtio_net header and the biggest IP packet, 64 KiB */
    ETHERNET_HEADER = 14,  /* counts for the rate with every segment, as on a real wire */
};

struct packet {
    const uint8_t *frame;   /* virtio_net header, IP header, ... */
    size_t size;            /* of the frame */
    size_t headers;         /* of IP and of TCP or UDP, as every segment will have them */
    size_t payload;         /* of all segments together */
    size_t segment_payload; /* of each but the last */
    int segments;
};

/* False if it is not IPv4: nothing else is carried. */
bool packet_parse(struct packet *packet, const uint8_t *frame, size_t size);

/* The four bytes of its destination address. */
const uint8_t *packet_destination(const struct packet *packet);

/* Payload of the segments from first to end (exclusive). */
size_t packet_payload(const struct packet *packet, int first, int end);

/* Bytes that these segments would have on an Ethernet. */
size_t packet_wire_bytes(const struct packet *packet, int first, int end);

/* How many segments, from the first on, have together at most that many bytes on the wire. */
int packet_segments_within(const struct packet *packet, double wire_bytes);

/* Writes a frame with only these segments into out (MAX_FRAME bytes); returns its size. */
size_t packet_cut(const struct packet *packet, int first, int end, uint8_t *out);

#endif
