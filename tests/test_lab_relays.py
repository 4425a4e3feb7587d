"""What a relay does to a connection, each fact over real sockets through a real relay process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab_sockets import (
    BOUND_S,
    RESET_ON_CLOSE,
    call,
    connected,
    door_of,
    nothing_arrives,
    play,
    push,
    receive,
    receive_all,
    send,
    until,
)
from places import EmptyPlace

from lightning_chaos.errors import AddressError, ConfigError, LabError
from lightning_chaos.peer.machine import process_gone
from lightning_chaos.skin.settings import resolve
from lightning_chaos.testing.lab.conditions import Cut, Shape, bandwidth_delay_bytes
from lightning_chaos.testing.lab.relays import KERNEL_BYTES, Relays
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import dial_tcp
from lightning_chaos.transport.door import open_door
from lightning_chaos.transport.relayed import RelayedDialler

# How late a timer of a busy machine may make a piece; too early it never is.
LATE_S = 0.25
# A rate is seen between two moments, each of which this process may be late for: then it looks
# again.  A link that has another rate shows that each time.
TRIES = 5


async def seconds_for(near: socket.socket, far: socket.socket, size: int) -> float:
    """From the first byte's arrival to the last one's."""
    sending = asyncio.ensure_future(send(near, bytes(size)))
    await receive(far, 1)
    begin = time.monotonic()
    await receive_all(far, size - 1)
    seconds = time.monotonic() - begin
    await sending
    return seconds


async def trip_s(near: socket.socket, far: socket.socket) -> float:
    """How long one byte takes."""
    begin = time.monotonic()
    await send(near, b"x")
    assert await receive(far) == b"x"
    return time.monotonic() - begin


# ---- bytes -----------------------------------------------------------------------------------


def test_bytes_arrive_unchanged_in_order_both_ways_and_are_counted(relays: Relays) -> None:
    async def scene() -> None:
        relays.shape(Shape(delay_ms=3, jitter_ms=3))
        there, back = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(2_000_000)
        async with connected(relays, "a", "b") as (near, far):
            got = await asyncio.gather(
                receive_all(far, len(there)),
                receive_all(near, len(back)),
                send(near, there),
                send(far, back),
            )
            assert got[:2] == [there, back]
            assert relays.carried_bytes() == {("a", "b"): len(there), ("b", "a"): len(back)}

    play(scene())


# ---- rate, delay, jitter ---------------------------------------------------------------------


@pytest.mark.parametrize(("mbit", "delay_ms"), [(8, 0), (100, 10)])
def test_a_link_carries_its_rate(relays: Relays, mbit: float, delay_ms: float) -> None:
    async def scene() -> None:
        relays.shape(Shape(rate_mbit=mbit, delay_ms=delay_ms))
        size = int(mbit * 1e6 / 8 * 0.8)
        seen: list[float] = []
        async with connected(relays, "a", "b") as (near, far):
            while pytest.approx(0.8, rel=0.1) not in seen:
                assert len(seen) < TRIES, seen
                seen.append(await seconds_for(near, far, size))

    play(scene())


def test_connections_of_a_link_share_its_rate_and_a_small_message_need_not_queue(
    relays: Relays,
) -> None:
    async def scene() -> None:
        relays.shape(Shape(rate_mbit=16))
        size = 600_000
        seen: list[float] = []
        async with connected(relays, "a", "b") as one, connected(relays, "a", "b") as two:
            while pytest.approx(2 * size * 8 / 16e6, rel=0.1) not in seen:
                assert len(seen) < TRIES, seen
                begin = time.monotonic()
                both = asyncio.gather(seconds_for(*one, size), seconds_for(*two, size))
                async with connected(relays, "a", "b") as third:
                    assert await trip_s(*third) < LATE_S
                await both
                seen.append(time.monotonic() - begin)

    play(scene())


def test_each_direction_has_its_own_delay(relays: Relays) -> None:
    async def scene() -> None:
        relays.shape_one_way(Shape(delay_ms=40), "a", "b")
        relays.shape_one_way(Shape(delay_ms=5), "b", "a")
        begin = time.monotonic()
        async with connected(relays, "a", "b") as (near, far):
            assert 0.045 <= time.monotonic() - begin < 0.045 + LATE_S  # a call is a round trip
            there = [await trip_s(near, far) for _ in range(10)]
            back = [await trip_s(far, near) for _ in range(10)]
        assert 0.040 <= min(there) < 0.045
        assert 0.005 <= min(back) < 0.010

    play(scene())


def test_jitter_stays_within_its_bounds_and_uses_them(relays: Relays) -> None:
    async def scene() -> None:
        relays.shape(Shape(delay_ms=20, jitter_ms=15))
        async with connected(relays, "a", "b") as (near, far):
            trips = sorted([await trip_s(near, far) for _ in range(40)])
        assert 0.005 <= trips[0] < 0.012
        assert trips[-10] < 0.035  # some may be late
        assert 0.028 < trips[-2] < 0.035 + LATE_S
        assert statistics.median(trips) == pytest.approx(0.020, abs=0.007)

    play(scene())


def test_conditions_change_while_bytes_flow(relays: Relays) -> None:
    async def scene() -> None:
        async with connected(relays, "a", "b") as (near, far):
            assert min([await trip_s(near, far) for _ in range(10)]) < 0.030
            relays.shape(Shape(delay_ms=40), "a", "b")
            assert await trip_s(near, far) >= 0.040
            relays.shape(Shape(rate_mbit=0.02), "a", "b")
            slow = asyncio.ensure_future(seconds_for(near, far, 500_000))  # 200 s at that rate
            await asyncio.sleep(0.3)
            relays.shape(Shape(rate_mbit=40), "a", "b")
            assert await slow < 0.5

    play(scene())


def test_the_latest_word_about_a_pair_counts_also_for_nodes_to_come(relays: Relays) -> None:
    async def scene() -> None:
        relays.shape(Shape(delay_ms=100), "a", "b")
        relays.shape(Shape(delay_ms=20))
        relays.shape(Shape(delay_ms=60), "a", "c")
        for node, least, most in (("b", 0.020, 0.060), ("c", 0.060, 0.100)):
            async with connected(relays, "a", node) as (near, far):
                assert least <= min([await trip_s(near, far) for _ in range(3)]) < most

    play(scene())


# ---- black holes -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [Shape(), Shape(rate_mbit=100, delay_ms=20)])
def test_into_a_black_hole_go_no_more_than_a_bandwidth_delay_product_and_a_kernel_buffer(
    relays: Relays, shape: Shape
) -> None:
    async def scene() -> None:
        relays.shape(shape)
        async with connected(relays, "a", "b") as (near, far):
            relays.cut("a", "b")
            delivered = await push(near)
            assert 0 < delivered <= bandwidth_delay_bytes(shape, shape) + KERNEL_BYTES
            await nothing_arrives(far, 0.1)
            assert relays.carried_bytes()["a", "b"] == 0

    play(scene())


def test_a_healed_link_goes_on_where_it_was_cut(relays: Relays) -> None:
    async def scene() -> None:
        relays.shape(Shape(rate_mbit=80, delay_ms=5))
        data = random.Random(3).randbytes(1_000_000)
        async with connected(relays, "a", "b") as (near, far):
            sending = asyncio.ensure_future(send(near, data))
            first = await receive(far)
            relays.cut("a", "b")
            await asyncio.sleep(0.2)
            relays.heal("a", "b")
            assert first + await receive_all(far, len(data) - len(first)) == data
            await sending

    play(scene())


def test_a_one_way_cut_lets_the_other_way_send_what_needs_no_acknowledgement(
    relays: Relays,
) -> None:
    async def scene() -> None:
        async with connected(relays, "a", "b") as (near, far):
            relays.cut_one_way("a", "b")
            await send(near, b"lost")
            await nothing_arrives(far, 0.1)
            await send(far, b"heard")
            assert await receive_all(near, 5) == b"heard"
            await push(far)
            assert 0 < relays.carried_bytes()["b", "a"] <= bandwidth_delay_bytes(Shape(), Shape())
            relays.heal()
            assert await receive_all(far, 4) == b"lost"

    play(scene())


@pytest.mark.parametrize("ways", [[("a", "b")], [("b", "a")]])
def test_a_call_into_a_black_hole_is_not_answered_and_leaves_nothing(
    relays: Relays, ways: list[tuple[str, str]]
) -> None:
    async def scene() -> None:
        async with door_of(relays, "b") as door:
            for source, target in ways:
                relays.cut_one_way(source, target)
            begin = time.monotonic()
            with pytest.raises(OSError, match=r"did not answer within 0\.2 s"):
                await call(relays, "a", door, timeout_s=0.2)
            assert time.monotonic() - begin >= 0.2
            await until(lambda: relays.connections() == 0, "the relay to forget the call")

    play(scene())


# ---- refusal, reset, the end, silence --------------------------------------------------------


def test_a_refusal_is_passed_on_after_a_round_trip(relays: Relays) -> None:
    async def scene() -> None:
        relays.shape(Shape(delay_ms=15))
        with EmptyPlace() as place:
            begin = time.monotonic()
            with pytest.raises(ConnectionRefusedError):
                await RelayedDialler(relays.address, "a")(place.address, BOUND_S)
        assert time.monotonic() - begin >= 0.030

    play(scene())


def test_a_refusing_link_takes_no_new_connection_and_keeps_the_old_one(relays: Relays) -> None:
    async def scene() -> None:
        async with door_of(relays, "c") as other, connected(relays, "a", "b") as (near, far):
            relays.cut_one_way("a", "c", Cut.REFUSE)
            relays.cut("a", "b", Cut.REFUSE)
            with pytest.raises(ConnectionRefusedError):
                await call(relays, "a", other)
            (await call(relays, "b", other)).close()
            await trip_s(near, far)

    play(scene())


def test_a_reset_link_resets_both_ends_and_new_calls(relays: Relays) -> None:
    async def scene() -> None:
        async with door_of(relays, "c") as other, connected(relays, "a", "b") as (near, far):
            (await call(relays, "a", other)).close()
            relays.cut_one_way("b", "a", Cut.RESET)
            for end in (near, far):
                with pytest.raises(ConnectionResetError):
                    await receive(end)
            relays.cut("a", "c", Cut.RESET)
            with pytest.raises(ConnectionResetError):
                await call(relays, "a", other)
            relays.heal("a", "c")
            (await call(relays, "a", other)).close()

    play(scene())


@pytest.mark.parametrize("ends", ["near", "far"])
def test_a_reset_of_one_end_reaches_the_other(relays: Relays, ends: str) -> None:
    async def scene() -> None:
        relays.shape(Shape(delay_ms=20))
        async with connected(relays, "a", "b") as pair:
            gone, left = pair if ends == "near" else pair[::-1]
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            begin = time.monotonic()
            gone.close()
            with pytest.raises(ConnectionResetError):
                await receive(left)
            assert time.monotonic() - begin >= 0.020
            await until(lambda: relays.connections() == 0, "the relay to close it")

    play(scene())


def test_a_reset_is_passed_on_also_when_nobody_reads(relays: Relays) -> None:
    async def scene() -> None:
        async with connected(relays, "a", "b") as (near, far):
            await push(near)  # the relay takes no more
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            near.close()
            with pytest.raises(ConnectionResetError):
                await receive_all(far, 1 << 40)

    play(scene())


def test_a_half_closed_connection_still_carries_the_other_way(relays: Relays) -> None:
    async def scene() -> None:
        async with connected(relays, "a", "b") as (near, far):
            await send(near, b"question")
            near.shutdown(socket.SHUT_WR)
            assert await receive_all(far, 8) == b"question"
            assert await receive(far) == b""
            await send(far, b"answer")
            assert await receive_all(near, 6) == b"answer"
            far.close()
            assert await receive(near) == b""
            await until(lambda: relays.connections() == 0, "the relay to close it")

    play(scene())


def test_silence_is_passed_on_as_silence(relays: Relays) -> None:
    async def scene() -> None:
        async with connected(relays, "a", "b") as (near, far):
            await nothing_arrives(far, 0.3)
            await trip_s(near, far)
            delivered = await push(near)  # and nobody reads
            # The receiver's kernel takes what it likes; the relay adds no more than it may hold.
            held = delivered - relays.carried_bytes()["a", "b"]
            assert held <= bandwidth_delay_bytes(Shape(), Shape()) + KERNEL_BYTES
            assert relays.connections() == 1

    play(scene())


# ---- the process -----------------------------------------------------------------------------


def test_a_relay_that_ends_resets_what_it_carried_and_is_named_when_it_is_missed() -> None:
    async def scene() -> None:
        with Relays() as relays:
            async with connected(relays, "a", "b") as (near, far):
                relays.close()
                for end in (near, far):
                    with pytest.raises(ConnectionResetError):
                        await receive(end)
        with pytest.raises(OSError, match=r"the relay .*CHAOS_RELAY\) cannot be reached"):
            await RelayedDialler(relays.address, "a")(Address("127.0.0.1", 1), BOUND_S)
        with pytest.raises(RuntimeError, match="the lab's relay"):
            relays.heal()

    play(scene())


def test_the_relay_goes_when_its_lab_is_killed() -> None:
    script = (
        "import time; from lightning_chaos.testing.lab.relays import Relays\n"
        "relays = Relays(); print(relays._process.pid, flush=True); time.sleep(60)"
    )
    lab = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with lab:
        assert lab.stdout is not None
        pid = int(lab.stdout.readline())
        assert not process_gone(pid)
        lab.kill()
    deadline = time.monotonic() + BOUND_S
    while not process_gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def _say_and_hear_nothing(relays: Relays, words: bytes) -> None:
    with await dial_tcp(relays.address, BOUND_S) as stranger:
        await send(stranger, words)
        stranger.shutdown(socket.SHUT_WR)
        assert await receive(stranger) == b""


def test_what_is_no_call_is_closed_and_disturbs_nobody(relays: Relays) -> None:
    async def scene() -> None:
        async with connected(relays, "a", "b") as (near, far):
            stranger = b"127.0.0.1\x001\0" + 300 * b"n" + b"\0"
            for words in (
                b"GET / HTTP/1.1\r\n\r\n",
                b"\x00\x03abc",
                b"\x00\x03\0\0\0",
                len(stranger).to_bytes(2, "big") + stranger,
                b"",
            ):
                with contextlib.suppress(OSError):  # it may reset at any moment
                    await _say_and_hear_nothing(relays, words)
            await trip_s(near, far)

    play(scene())


def test_without_a_compiler_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="with gcc or clang; install one"):
        Relays()


def test_a_compiler_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = tmp_path / "gcc"
    compiler.write_text("#!/bin/sh\necho no such luck >&2; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigError, match="no such luck"):
        Relays()


def test_where_nothing_can_be_kept_the_error_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME"):
        Relays()


def test_a_name_that_cannot_be_told_is_refused_and_costs_nothing(relays: Relays) -> None:
    with pytest.raises(LabError, match="not understood: cut"):
        relays.cut("a\tb", "c")
    with pytest.raises(LabError, match="not understood: place"):
        relays.place("n" * 300, Address("127.0.0.1", 1))
    assert relays.connections() == 0


# ---- what can be said ------------------------------------------------------------------------


def test_a_port_given_to_a_node_is_its_own(relays: Relays) -> None:
    env = relays.env_for("n1")
    assert env == relays.env_for("n1")
    settings = resolve(env)
    assert settings.relay == str(relays.address)
    assert settings.node == "n1"
    with open_door(settings.host, settings.port) as door:
        assert door.getsockname()[1] == int(env["CHAOS_PORT"])


def test_a_relay_must_be_on_this_machine() -> None:
    with pytest.raises(AddressError, match="must be on this machine"):
        resolve({"CHAOS_RELAY": "10.0.0.1:5000"})
    with pytest.raises(AddressError, match="is not an address"):
        resolve({"CHAOS_RELAY": "nonsense"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_mbit": 0},
        {"rate_mbit": 1001},
        {"delay_ms": -1},
        {"delay_ms": float("inf")},
        {"delay_ms": 5, "jitter_ms": 6},
    ],
)
def test_a_shape_that_no_link_can_have_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Shape(**wrong)
