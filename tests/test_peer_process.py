"""Real peer processes, started by this one as their worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from lightning_chaos.errors import JoinError, WireError
from lightning_chaos.peer.client import PeerClient, start_peer
from lightning_chaos.peer.config import PeerConfig, decode_config
from lightning_chaos.peer.discovery import DiscoveryDir
from lightning_chaos.peer.machine import machine_key, process_gone
from lightning_chaos.peer.ward import QUIT_MARGIN_S
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import OpId, Past, Report
from lightning_chaos.testing.lab.conditions import Cut, Shape
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.transport.address import Address, parse_address
from lightning_chaos.transport.dial import dial, dial_tcp
from lightning_chaos.transport.door import Kind, open_door
from lightning_chaos.visit import look

needs_proc = pytest.mark.skipif(not machine_key(), reason="needs /proc to see other processes")
SETTINGS = (("model", "a"),)
MessageT = TypeVar("MessageT", bound=local.Local)


BOUND_S = 30.0
"""Interpreters start meanwhile, on a machine that may be busy."""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.002)


class Worker:
    """A worker's side of one peer: remembers what it said and handed over."""

    def __init__(self, name: str, door: socket.socket) -> None:
        self.name = name
        self.door = door
        self.said: list[local.AnyLocal] = []
        self.sockets: list[tuple[Kind, socket.socket]] = []
        self.gone: list[str] = []

    async def start(self, **settings: object) -> None:
        silence_s = settings.pop("silence_s", 10.0)
        config = {"run": "r", "node": self.name, "linger_s": 0.5, **settings}
        self.client = await PeerClient.connect(
            start_peer(PeerConfig(**config), self.door),  # type: ignore[arg-type]
            on_message=self.said.append,
            on_socket=lambda kind, sock: self.sockets.append((kind, sock)),
            on_gone=self.gone.append,
            silence_s=silence_s,  # type: ignore[arg-type]
        )

    def last(self, kind: type[MessageT]) -> MessageT | None:
        return next((m for m in reversed(self.said) if isinstance(m, kind)), None)

    async def hear(self, kind: type[MessageT]) -> MessageT:
        await until(lambda: self.last(kind))
        found = self.last(kind)
        assert found is not None
        return found

    async def join(self) -> None:
        """Take a seat without pulling anything."""
        self.client.send(local.AskSeat(SETTINGS))
        install = await self.hear(local.Install)
        self.client.send(local.Pulled(install.view.epoch, install.view.switch))
        await until(lambda: self.members.count(self.name) == 1)

    @property
    def members(self) -> list[str]:
        install = self.last(local.Install)
        return [m.node for m in install.view.members] if install else []

    async def aclose(self) -> None:
        await self.client.aclose()
        for _, sock in self.sockets:
            sock.close()


@contextlib.asynccontextmanager
async def workers(*names: str, **settings: object) -> AsyncIterator[list[Worker]]:
    with contextlib.ExitStack() as doors:
        found = [Worker(name, doors.enter_context(open_door("127.0.0.1", 0))) for name in names]
        await asyncio.gather(*(worker.start(**settings) for worker in found))
        try:
            yield found
        finally:
            await asyncio.gather(*(worker.aclose() for worker in found))


@needs_proc
def test_a_peer_is_small_and_imports_no_torch() -> None:
    async def scene() -> None:
        started = time.monotonic()
        async with workers("n1") as (n1,):
            assert not (await n1.hear(local.Standing)).newcomer
            print(f"ready after {time.monotonic() - started:.3f} s")
            process = psutil.Process(n1.client.pid)
            assert process.memory_info().rss < 60e6
            maps = Path(f"/proc/{n1.client.pid}/maps").read_text()
            assert "msgspec" in maps
            assert not [name for name in ("torch", "numpy", "lightning/") if name in maps]

    asyncio.run(scene())


def test_ten_nodes_that_start_at_once_found_one_cluster() -> None:
    async def scene() -> None:
        async with workers(*(f"n{k}" for k in range(10))) as nodes:
            standing = [await node.hear(local.Standing) for node in nodes]
            assert [s.newcomer for s in standing].count(False) == 1
            assert len({s.view.members[0].uid for s in standing}) == 1
            await until(lambda: len(DiscoveryDir("r").live()) == 10)
        assert DiscoveryDir("r").live() == []

    asyncio.run(scene())


def test_of_nodes_that_meet_as_candidates_the_newest_checkpoint_founds() -> None:
    async def scene() -> None:
        async with contextlib.AsyncExitStack() as stack:
            nodes: dict[str, Worker] = {}
            directory = DiscoveryDir("r")
            for name, past in (
                ("none", Past(told=(0, 70))),
                ("older", Past(0, 500, 50)),
                ("newest", Past(0, 600, 60, told=(0, 66))),
            ):
                said = [m for node in nodes.values() for m in node.said]
                assert all(isinstance(m, local.Waiting) for m in said)
                settings = {
                    "past": past,
                    "generation": past.generation + 1,
                    "gather": True,
                    "min_members": 3,
                }
                [nodes[name]] = await stack.enter_async_context(workers(name, **settings))
                if name != "newest":
                    await until(lambda: len(directory.candidates()) == len(nodes))
            standing = {name: await node.hear(local.Standing) for name, node in nodes.items()}
            assert [name for name, s in standing.items() if not s.newcomer] == ["newest"]
            assert standing["newest"].view.generation == 1
            assert standing["newest"].told == (0, 70)
            await until(lambda: not directory.candidates())

    asyncio.run(scene())


@pytest.mark.parametrize("newest", ["n1", "n2", "n3"])
def test_candidates_that_know_one_address_in_common_found_one_run(newest: str) -> None:
    async def scene() -> None:
        async with contextlib.AsyncExitStack() as stack:
            nodes: dict[str, Worker] = {}
            peers: tuple[str, ...] = ()  # of the first: it looks in the directory
            for name in ("n1", "n2", "n3"):
                past = Past(0, 600 if name == newest else 500)
                made = workers(name, gather=True, min_members=3, past=past, peers=peers)
                [nodes[name]] = await stack.enter_async_context(made)
                peers = (f"127.0.0.1:{nodes['n1'].door.getsockname()[1]}",)
            standing = {name: await node.hear(local.Standing) for name, node in nodes.items()}
            assert [name for name, s in standing.items() if not s.newcomer] == [newest]
            assert {s.view.members[0].node for s in standing.values()} == {newest}

    asyncio.run(scene())


def test_a_node_finds_the_run_after_its_founder_died() -> None:
    async def scene() -> None:
        async with workers("n1") as (n1,):
            n1.client.send(local.AskSeat(SETTINGS))
            await n1.hear(local.Standing)
            async with workers("n2") as (n2,):
                await n2.join()
                os.kill(n1.client.pid, signal.SIGKILL)
                n2.client.send(
                    local.Frozen(
                        (await n2.hear(local.Freeze)).ballot,
                        Report(OpId(-1, 0), True, None, (), 0, (), -1),
                    )
                )
                await until(lambda: n2.members == ["n2"])
                async with workers("n3") as (n3,):
                    standing = await n3.hear(local.Standing)
                    assert [m.node for m in standing.view.members] == ["n2"]

    asyncio.run(scene())


def test_the_other_of_two_members_freezes_soon_after_a_peer_was_killed() -> None:
    async def scene() -> None:
        timeout_s = 10.0
        async with workers("n1", timeout_s=timeout_s) as (n1,):
            n1.client.send(local.AskSeat(SETTINGS))
            await n1.hear(local.Standing)
            async with workers("n2", timeout_s=timeout_s) as (n2,):
                await n2.join()
                started = time.monotonic()
                os.kill(n1.client.pid, signal.SIGKILL)
                await n2.hear(local.Freeze)
                took = time.monotonic() - started
                print(f"froze after {took * 1000:.1f} ms")
                # Its last heartbeat may have come up to a fifth of the timeout before.
                assert took < 0.8 * timeout_s, "evidence of death must not wait for the timeout"

    asyncio.run(scene())


def test_peers_find_each_other_by_address() -> None:
    async def scene() -> None:
        async with workers("n1", discovery="", run="r") as (n1,):
            await n1.hear(local.Standing)
            address = f"127.0.0.1:{n1.door.getsockname()[1]}"
            async with workers("n2", peers=(address,)) as (n2,):
                standing = await n2.hear(local.Standing)
                assert standing.newcomer
                assert standing.view.members[0].node == "n1"

    asyncio.run(scene())


@pytest.mark.parametrize(("founder", "caller"), [("a", "b"), ("b", "a")])
def test_a_caller_that_comes_before_the_run_is_founded_joins_it(founder: str, caller: str) -> None:
    async def scene() -> None:
        with open_door("127.0.0.1", 0) as one, open_door("127.0.0.1", 0) as two:
            first, second = Worker(founder, one), Worker(caller, two)
            await second.start(peers=(f"127.0.0.1:{one.getsockname()[1]}",))
            await first.start()
            assert not (await first.hear(local.Standing)).newcomer
            assert (await second.hear(local.Standing)).newcomer
            await asyncio.gather(first.aclose(), second.aclose())

    asyncio.run(scene())


def test_nodes_that_list_each_other_found_one_run() -> None:
    async def scene() -> None:
        with contextlib.ExitStack() as doors:
            nodes = [Worker(f"n{k}", doors.enter_context(open_door("127.0.0.1", 0))) for k in "012"]
            addresses = tuple(f"127.0.0.1:{n.door.getsockname()[1]}" for n in nodes)
            await asyncio.gather(*(n.start(peers=addresses, min_members=2) for n in nodes))
            standing = [await node.hear(local.Standing) for node in nodes]
            assert len({s.view.members[0].uid for s in standing}) == 1
            await asyncio.gather(*(node.aclose() for node in nodes))

    asyncio.run(scene())


def test_a_peer_of_another_run_is_named_and_undisturbed() -> None:
    async def scene() -> None:
        async with workers("n1", run="theirs") as (n1,):
            await n1.hear(local.Standing)
            address = f"127.0.0.1:{n1.door.getsockname()[1]}"
            async with workers("n2", run="ours", peers=(address,)) as (n2,):
                refused = await n2.hear(local.Refused)
                assert "'theirs'" in refused.reason
                assert "'ours'" in refused.reason
                assert not n1.gone

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"host": "10.0.0.1"}, "insecure=True"),
        ({"peers": ("nonsense",)}, "write host:port"),
        ({"peers": ("10.0.0.1:4711",)}, "not a loopback address"),
    ],
)
def test_a_bad_address_is_refused_with_the_reason(settings: dict[str, object], why: str) -> None:
    async def scene() -> None:
        async with workers("n1", **settings) as (n1,):
            assert why in (await n1.hear(local.Refused)).reason

    asyncio.run(scene())


def test_a_finished_run_is_told_to_latecomers() -> None:
    async def scene() -> None:
        async with workers("n1", linger_s=0.5) as (n1,):
            n1.client.send(local.AskSeat(SETTINGS))
            await n1.hear(local.Permit)
            n1.client.send(local.Begun(0))
            n1.client.send(local.Done(0))
            await n1.hear(local.AllDone)
            async with workers("n2") as (n2,):
                assert await n2.hear(local.RunOver) == local.RunOver(0)

    asyncio.run(scene())


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.SHARDS])
def test_a_data_connection_reaches_the_worker_with_every_byte_after_its_preamble(
    kind: Kind,
) -> None:
    async def scene() -> None:
        async with workers("n1") as (n1,):
            address = parse_address(f"127.0.0.1:{n1.door.getsockname()[1]}")
            with await dial(dial_tcp, address, kind, BOUND_S) as mine:
                mine.sendall(b"first bytes")
                await until(lambda: n1.sockets)
                ((found, theirs),) = n1.sockets
                loop = asyncio.get_running_loop()
                assert found is kind
                assert await loop.sock_recv(theirs, 100) == b"first bytes"
                theirs.sendall(b"answer")
                assert await loop.sock_recv(mine, 100) == b"answer"
                theirs.close()
                assert await loop.sock_recv(mine, 100) == b"", "the peer keeps no copy"

    asyncio.run(scene())


def test_many_data_connections_at_once_all_reach_the_worker() -> None:
    async def scene() -> None:
        async with workers("n1") as (n1,):
            address = parse_address(f"127.0.0.1:{n1.door.getsockname()[1]}")
            dialled = await asyncio.gather(
                *(dial(dial_tcp, address, Kind.DATA, BOUND_S) for _ in range(50))
            )
            await until(lambda: len(n1.sockets) == 50)
            for sock in dialled:
                sock.close()

    asyncio.run(scene())


def test_the_death_of_the_peer_is_told_once_and_a_new_one_runs_on_the_same_door() -> None:
    async def scene() -> None:
        async with workers("n1") as (n1,):
            first = (await n1.hear(local.Standing)).me
            os.kill(n1.client.pid, signal.SIGKILL)
            await until(lambda: n1.gone)
            assert "SIGKILL" in n1.gone[0]
            await n1.client.aclose()
            n1.client.send(local.Begun(0))
            n1.said.clear()
            await n1.start()
            second = (await n1.hear(local.Standing)).me
            assert second.port == first.port
            assert second.incarnation > first.incarnation
            assert len(n1.gone) == 1

    asyncio.run(scene())


def test_an_asked_peer_ends_by_itself_and_leaves_no_file() -> None:
    async def scene() -> None:
        async with workers("n1") as (n1,):
            await n1.hear(local.Standing)
            pid = n1.client.pid
            assert len(DiscoveryDir("r").live()) == 1
            started = time.monotonic()
            await n1.client.aclose(grace_s=QUIT_MARGIN_S)
            assert time.monotonic() - started < QUIT_MARGIN_S, "nobody had to make it"
            assert not psutil.pid_exists(pid)
            assert not list(DiscoveryDir("r").path.glob("*.json"))
            assert not n1.gone

    asyncio.run(scene())


def test_a_stopped_peer_is_killed_when_the_worker_closes() -> None:
    async def scene() -> None:
        async with workers("n1") as (n1,):
            await n1.hear(local.Standing)
            os.kill(n1.client.pid, signal.SIGSTOP)
            await n1.client.aclose(grace_s=0.05)
            assert not psutil.pid_exists(n1.client.pid)

    asyncio.run(scene())


def test_a_stopped_peer_does_not_keep_a_worker_that_has_finished() -> None:
    async def scene() -> None:
        async with workers("n1") as (n1,):
            await n1.hear(local.Standing)
            os.kill(n1.client.pid, signal.SIGSTOP)
            try:
                for _ in range(100):  # more than the socket holds
                    n1.client.send(local.Farewell("x" * 10_000))
                async with asyncio.timeout(BOUND_S):
                    await n1.client.release()
            finally:
                os.kill(n1.client.pid, signal.SIGKILL)

    asyncio.run(scene())


def test_a_peer_that_hangs_is_killed_and_its_worker_told() -> None:
    async def scene() -> None:
        async with workers("n1", silence_s=2.0) as (n1,):
            await n1.hear(local.Standing)
            os.kill(n1.client.pid, signal.SIGSTOP)
            await until(lambda: n1.gone)
            assert "was killed by SIGKILL; it had said nothing for 2 s" in n1.gone[0]
            assert not psutil.pid_exists(n1.client.pid)

    asyncio.run(scene())


def test_a_peer_that_hangs_before_its_first_word_is_killed_too() -> None:
    async def scene() -> None:
        with open_door("127.0.0.1", 0) as door:
            process = start_peer(PeerConfig(run="r", node="n1", linger_s=0.5), door)
            os.kill(process.pid, signal.SIGSTOP)
            gone: list[str] = []
            client = await PeerClient.connect(
                process,
                on_message=lambda _: None,
                on_socket=lambda _, sock: sock.close(),
                on_gone=gone.append,
                silence_s=0.2,
                start_s=0.5,
            )
            try:
                await until(lambda: gone)
            finally:
                await client.aclose()
            assert "was killed by SIGKILL" in gone[0]

    asyncio.run(scene())


def test_peers_on_a_long_link_find_out_how_long_it_is_and_keep_it(relays: Relays) -> None:
    """A round trip of 0.8 s: with a timeout of one second nobody could even be dialled."""

    async def scene() -> None:
        relays.shape(Shape(delay_ms=400))
        relay = str(relays.address)
        async with workers("n1", relay=relay) as (n1,):
            relays.place("n1", parse_address((await n1.hear(local.Standing)).me.address))
            n1.client.send(local.AskSeat(SETTINGS))
            async with workers("n2", relay=relay) as (n2,):
                await n2.hear(local.Standing)
                await n2.join()
                n1.client.send(local.Begun(0))
                for node in (n1, n2):
                    assert (await node.hear(local.Timeout)).seconds > 1.5
                await asyncio.sleep(2.0)  # nothing may happen, so there is nothing to wait for
                for node in (n1, n2):
                    assert all(not m.reasons for m in node.said if isinstance(m, local.NoLink))
                    assert node.members == ["n1", "n2"]

    asyncio.run(scene())


def test_a_worker_hears_that_a_lost_link_is_there_again(relays: Relays) -> None:
    async def scene() -> None:
        relay = str(relays.address)
        async with workers("n1", relay=relay) as (n1,):
            first = (await n1.hear(local.Standing)).me
            relays.place("n1", parse_address(first.address))
            n1.client.send(local.AskSeat(SETTINGS))
            async with workers("n2", relay=relay) as (n2,):
                relays.place("n2", parse_address((await n2.hear(local.Standing)).me.address))
                await n2.join()
                relays.cut("n1", "n2", Cut.RESET)
                await until(lambda: (lost := n2.last(local.NoLink)) and lost.reasons)
                relays.heal("n1", "n2")
                assert (await n2.hear(local.Reached)).uid == first.uid

    asyncio.run(scene())


def test_candidates_say_for_whom_they_wait() -> None:
    async def scene() -> None:
        settings = {"gather": True, "min_members": 3, "start_timeout_s": 600.0}
        async with workers("n1", "n2", **settings):
            await until(lambda: len(DiscoveryDir("r").candidates()) == 2)
            addresses = [entry.address for entry in DiscoveryDir("r").entries()]
            told = "2 of 3 nodes are here to found the run (n1, n2); giving up after 600 s"
            async with asyncio.timeout(BOUND_S):
                while told not in (why := await why_not(addresses)):
                    pass
            assert "has not found the run yet" in why

    asyncio.run(scene())


def test_candidates_give_up_in_the_end() -> None:
    async def scene() -> None:
        settings = {"gather": True, "min_members": 3, "start_timeout_s": 1.0}
        async with workers("n1", "n2", **settings) as nodes:
            for node in nodes:
                refused = await node.hear(local.Refused)
                assert "waited 1 s: " in refused.reason
                assert "CHAOS_START_TIMEOUT" in refused.reason

    asyncio.run(scene())


async def why_not(addresses: list[Address]) -> str:
    """Why a visitor cannot see the run."""
    with pytest.raises(JoinError) as caught:
        await look(addresses, "r")
    return str(caught.value)


def test_ctrl_c_is_ignored_and_sigterm_ends_the_peer_politely() -> None:
    async def scene() -> None:
        async with workers("n1") as (n1,):
            await n1.hear(local.Standing)
            os.kill(n1.client.pid, signal.SIGINT)
            os.kill(n1.client.pid, signal.SIGTERM)
            await until(lambda: n1.gone)
            assert n1.gone == [f"peer process {n1.client.pid} ended with exit code 0"]
            assert not list(DiscoveryDir("r").path.glob("*.json"))

    asyncio.run(scene())


WORKER = """
import os, sys, time
from lightning_chaos.peer.client import start_peer
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.transport.door import open_door
peer = start_peer(PeerConfig(run="r", node="n1", linger_s=0.5), open_door("127.0.0.1", 0))
child = os.fork() if "fork" in sys.argv else 0
if "fork" in sys.argv and child == 0:
    time.sleep(60)
print(peer.pid, child, flush=True)
time.sleep(60)
"""


@needs_proc
@pytest.mark.parametrize("argument", ["plain", "fork"])
def test_the_peer_ends_when_its_worker_is_killed(argument: str) -> None:
    """Also when a child that the worker forked still holds the worker's end of the channel."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, argument], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    pid, child = (int(text) for text in worker.stdout.readline().split())
    try:
        asyncio.run(until(lambda: DiscoveryDir("r").live()))
        worker.kill()
        worker.wait()
        asyncio.run(until(lambda: process_gone(pid)))
        assert DiscoveryDir("r").live() == []
    finally:
        worker.stdout.close()
        for orphan in (child, pid):
            if orphan and not process_gone(orphan):
                os.kill(orphan, signal.SIGKILL)


def test_settings_that_are_not_understood_are_an_error() -> None:
    with pytest.raises(WireError, match="not the settings"):
        decode_config(b"\x80")
