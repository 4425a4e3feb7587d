"""What a socket tells of its packets, over real connections of this machine."""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import termios
import time
from collections.abc import Iterator

import pytest

from lightning_chaos.transport.packets import PacketSocket

BOUND_S = 20.0
CLOCKS_S = 0.01
"""The clock of stamps is set now and then."""
CORK_S = 0.2
"""So long the kernel holds back what does not fill a packet (tcp(7), TCP_CORK)."""
_DATA_SEGMENTS_OUT = 156
"""Where in Linux's ``struct tcp_info``."""


@pytest.fixture
def ends() -> Iterator[tuple[PacketSocket, PacketSocket]]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        near = socket.create_connection(door.getsockname(), BOUND_S)
        far, _ = door.accept()
    far.settimeout(BOUND_S)
    with PacketSocket(near) as one, PacketSocket(far) as other:
        other.start_stamps()
        yield one, other


def segments_sent(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _DATA_SEGMENTS_OUT + 4)
    return int(struct.unpack_from("@I", info, _DATA_SEGMENTS_OUT)[0])


def read(sock: socket.socket) -> int:
    assert select.select([sock], [], [], BOUND_S)[0]
    return sock.recv_into(bytearray(1 << 16))


def wait_for(sock: socket.socket, size: int) -> None:
    """So many bytes wait to be read."""
    deadline = time.monotonic() + BOUND_S
    while struct.unpack("@i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0] < size:
        assert time.monotonic() < deadline


def stamps_begin(near: PacketSocket, far: PacketSocket) -> None:
    """The kernel begins a little after it was asked to."""
    deadline = time.monotonic() + BOUND_S
    while far.stamp_t is None:
        assert time.monotonic() < deadline
        near.send(b"x")
        read(far)


def test_bytes_read_late_are_told_to_have_come_when_they_came(
    ends: tuple[PacketSocket, PacketSocket],
) -> None:
    near, far = ends
    stamps_begin(near, far)
    before = time.monotonic()
    near.send(b"y")
    assert select.select([far], [], [], BOUND_S)[0]
    here = time.monotonic()
    time.sleep(0.1)
    assert read(far) == 1
    assert far.stamp_t is not None
    assert before - CLOCKS_S <= far.stamp_t <= here + CLOCKS_S


def test_bytes_seen_waiting_had_come_though_later_ones_are_joined_to_them(
    ends: tuple[PacketSocket, PacketSocket],
) -> None:
    near, far = ends
    stamps_begin(near, far)
    near.sendall(bytes(4 * 1448))
    wait_for(far, 4 * 1448)
    read(far)
    here = time.monotonic()
    time.sleep(0.1)
    near.sendall(bytes(4 * 1448))
    wait_for(far, 7 * 1448)
    stamps = [far.stamp_t for _ in range(7) if read(far) == 1448]
    assert len(stamps) == 7
    assert all(stamp_t is not None and stamp_t <= here + CLOCKS_S for stamp_t in stamps[:3])
    assert stamps[-1] is not None
    assert stamps[-1] >= here + 0.1 - CLOCKS_S


def test_without_stamps_it_reads_as_any_socket(ends: tuple[PacketSocket, PacketSocket]) -> None:
    near, far = ends
    stamps_begin(near, far)
    near.sendall(bytes(8000))
    assert read(far) <= 1448
    far.stop_stamps()
    assert far.stamp_t is None
    assert read(far) > 1448
    assert far.stamp_t is None
    far.start_stamps()
    near.sendall(bytes(8000))
    assert read(far) <= 1448
    assert far.stamp_t is not None


@pytest.mark.parametrize(("apart", "packets"), [(False, 1), (True, 3)])
def test_what_is_written_apart_travels_apart(
    ends: tuple[PacketSocket, PacketSocket], apart: bool, packets: int
) -> None:
    near, far = ends
    near.apart = apart
    took_s = CORK_S
    while took_s >= CORK_S:  # this process was stopped meanwhile: nobody knows what was held back
        before, began = segments_sent(near), time.monotonic()
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        for _ in range(3):
            near.send(bytes(100))
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        took_s = time.monotonic() - began
        got = 0
        while got < 300:
            got += read(far)
    assert segments_sent(near) - before == packets


def test_an_event_loop_uses_it_as_the_socket_that_it_took_over() -> None:
    async def scene() -> None:
        ours, theirs = socket.socketpair()
        packets = PacketSocket(ours)
        assert ours.fileno() == -1
        packets.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=packets)
        with theirs:
            theirs.sendall(b"question")
            assert await reader.readexactly(8) == b"question"
            writer.write(b"answer")
            assert theirs.recv(6) == b"answer"
            writer.close()
            await writer.wait_closed()
            assert theirs.recv(1) == b""

    asyncio.run(scene())
