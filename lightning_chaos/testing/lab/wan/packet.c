#include "packet.h"

#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <string.h>

enum {
    VIRTIO_HEADER = sizeof(struct virtio_net_hdr),
    IP_HEADER = 20,
    TCP_HEADER = 20,
    UDP_HEADER = 8,
    IP_PROTOCOL_AT = 9,
    IP_CHECKSUM_AT = 10,
    IP_SOURCE_AT = 12,
    IP_DESTINATION_AT = 16,
    TCP_SEQUENCE_AT = 4,
    TCP_LENGTH_AT = 12,
    TCP_FLAGS_AT = 13,
    TCP_CHECKSUM_AT = 16,
    TCP_FIN = 0x01,
    TCP_PSH = 0x08,
    TCP_CWR = 0x80,
};

static uint32_t load16(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }
static uint32_t load32(const uint8_t *at) { return load16(at) << 16 | load16(at + 2); }

static void store16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void store32(uint8_t *at, uint32_t value)
{
    store16(at, value >> 16);
    store16(at + 2, value);
}

/* The internet checksum before its final complement (RFC 1071). */
static uint16_t ones_sum(const uint8_t *bytes, size_t even_size, uint32_t sum)
{
    for (size_t i = 0; i < even_size; i += 2)
        sum += load16(bytes + i);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static const uint8_t *ip_of(const struct packet *packet) { return packet->frame + VIRTIO_HEADER; }
static size_t ip_header_size(const uint8_t *ip) { return (size_t)(ip[0] & 15) * 4; }

bool packet_parse(struct packet *packet, const uint8_t *frame, size_t size)
{
    if (size < VIRTIO_HEADER + IP_HEADER || frame[VIRTIO_HEADER] >> 4 != 4)
        return false;
    const uint8_t *ip = frame + VIRTIO_HEADER;
    size_t ip_size = size - VIRTIO_HEADER;
    size_t headers = ip_header_size(ip);
    uint8_t protocol = ip[IP_PROTOCOL_AT];
    if (protocol == IPPROTO_TCP && ip_size >= headers + TCP_HEADER)
        headers += (size_t)(ip[headers + TCP_LENGTH_AT] >> 4) * 4;
    else if (protocol == IPPROTO_UDP)
        headers += UDP_HEADER;
    if (headers > ip_size)
        return false;

    *packet = (struct packet){
        .frame = frame,
        .size = size,
        .headers = headers,
        .payload = ip_size - headers,
        .segment_payload = ip_size - headers,
        .segments = 1,
    };
    struct virtio_net_hdr virtio;
    memcpy(&virtio, frame, sizeof virtio);
    bool tso = (virtio.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == VIRTIO_NET_HDR_GSO_TCPV4;
    if (tso && virtio.gso_size && packet->payload > virtio.gso_size) {
        packet->segment_payload = virtio.gso_size;
        packet->segments = (int)((packet->payload + virtio.gso_size - 1) / virtio.gso_size);
    }
    return true;
}

const uint8_t *packet_destination(const struct packet *packet)
{
    return ip_of(packet) + IP_DESTINATION_AT;
}

size_t packet_payload(const struct packet *packet, int first, int end)
{
    size_t from = (size_t)first * packet->segment_payload;
    size_t to = end == packet->segments ? packet->payload : (size_t)end * packet->segment_payload;
    return to - from;
}

size_t packet_wire_bytes(const struct packet *packet, int first, int end)
{
    size_t per_segment = packet->headers + ETHERNET_HEADER;
    return packet_payload(packet, first, end) + (size_t)(end - first) * per_segment;
}

int packet_segments_within(const struct packet *packet, double wire_bytes)
{
    if ((double)packet_wire_bytes(packet, 0, packet->segments) <= wire_bytes)
        return packet->segments;
    double full = (double)(packet->segment_payload + packet->headers + ETHERNET_HEADER);
    int count = (int)(wire_bytes / full);
    return count < packet->segments ? count : packet->segments - 1;
}

size_t packet_cut(const struct packet *packet, int first, int end, uint8_t *out)
{
    size_t offset = (size_t)first * packet->segment_payload;
    size_t payload = packet_payload(packet, first, end);
    size_t ip_size = packet->headers + payload;
    uint8_t *ip = out + VIRTIO_HEADER;
    memcpy(out, packet->frame, VIRTIO_HEADER + packet->headers);
    memcpy(ip + packet->headers, ip_of(packet) + packet->headers + offset, payload);
    if (packet->segments == 1)
        return VIRTIO_HEADER + ip_size; /* nothing was left undone, nothing is cut */

    /* What the kernel's own segmentation would have written into these headers. */
    size_t ip_header = ip_header_size(ip);
    uint8_t *tcp = ip + ip_header;
    store16(ip + 2, (uint32_t)ip_size);
    store16(ip + 4, load16(ip + 4) + (uint32_t)first);
    store16(ip + IP_CHECKSUM_AT, 0);
    store16(ip + IP_CHECKSUM_AT, (uint16_t)~ones_sum(ip, ip_header, 0));
    store32(tcp + TCP_SEQUENCE_AT, load32(tcp + TCP_SEQUENCE_AT) + (uint32_t)offset);
    if (end < packet->segments)
        tcp[TCP_FLAGS_AT] &= (uint8_t)~(TCP_FIN | TCP_PSH);
    if (first > 0)
        tcp[TCP_FLAGS_AT] &= (uint8_t)~TCP_CWR;
    /* The receiving kernel completes the checksum; it starts from that of the pseudo header. */
    uint32_t pseudo = IPPROTO_TCP + (uint32_t)(ip_size - ip_header);
    store16(tcp + TCP_CHECKSUM_AT, ones_sum(ip + IP_SOURCE_AT, 8, pseudo));

    struct virtio_net_hdr virtio;
    memcpy(&virtio, out, sizeof virtio);
    virtio.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    virtio.csum_start = (uint16_t)ip_header;
    virtio.csum_offset = TCP_CHECKSUM_AT;
    virtio.hdr_len = (uint16_t)packet->headers;
    if (end - first == 1) {
        virtio.gso_type = VIRTIO_NET_HDR_GSO_NONE;
        virtio.gso_size = 0;
    }
    memcpy(out, &virtio, sizeof virtio);
    return VIRTIO_HEADER + ip_size;
}
