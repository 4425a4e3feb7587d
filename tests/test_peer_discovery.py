"""Nodes of one machine find each other through a directory; given addresses are asked."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from places import EmptyPlace

from lightning_chaos.errors import AddressError
from lightning_chaos.peer.caller import Caller
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.peer.discovery import DiscoveryDir, default_run, runtime_dir
from lightning_chaos.peer.links import Links
from lightning_chaos.peer.machine import machine_key, process_gone
from lightning_chaos.peer.search import AddressSearch, DirectorySearch
from lightning_chaos.protocol.events import Event, Linked, Searched
from lightning_chaos.protocol.values import Member
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import Dialler, dial_tcp
from lightning_chaos.transport.door import Kind, open_door, receive_kind

LONG_S = 5.0
"""Where somebody answers, nobody waits so long."""
SHORT_S = 0.3
needs_proc = pytest.mark.skipif(not machine_key(), reason="needs /proc to see other processes")


def member(node: str, port: int = 4711, pid: int | None = None) -> Member:
    return Member(
        node, time.time_ns(), "127.0.0.1", port, machine_key(), os.getpid() if pid is None else pid
    )


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    return child.pid


class Node:
    """Links with a door, and what they reported."""

    def __init__(
        self,
        name: str,
        run: str,
        door: socket.socket,
        group: asyncio.TaskGroup,
        dialler: Dialler,
    ) -> None:
        self.me = member(name, door.getsockname()[1])
        self.events: list[Event] = []
        self.links = Links(
            Caller(self.me, run, insecure=False, dialler=dialler),
            timeout_of=lambda _: LONG_S,
            emit=self.events.append,
            in_view=lambda _: False,
            spawn=group.create_task,
        )
        self._door = door
        self._accepting = group.create_task(self._accept())

    @property
    def address(self) -> str:
        return self.me.address

    async def _accept(self) -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(self._door)
            assert await receive_kind(sock) is Kind.CONTROL
            await self.links.adopt(sock)

    async def aclose(self) -> None:
        await self.links.aclose()
        self._accepting.cancel()


@contextlib.asynccontextmanager
async def nodes(
    *names: str, run: str = "r", dialler: Dialler = dial_tcp
) -> AsyncIterator[list[Node]]:
    async with asyncio.TaskGroup() as group:
        with contextlib.ExitStack() as doors:
            found = []
            for name in names:
                door = doors.enter_context(open_door("127.0.0.1", 0))
                found.append(Node(name, run, door, group, dialler))
            yield found
            for node in found:
                await node.aclose()


async def search_addresses(node: Node, *addresses: str, patience_s: float = LONG_S) -> Searched:
    search = AddressSearch(
        node.links, node.me, addresses, patience_s=patience_s, candidate_patience_s=patience_s
    )
    async with search.attempt() as result:
        return result


async def search_directory(
    node: Node, directory: DiscoveryDir, patience_s: float = LONG_S
) -> Searched:
    search = DirectorySearch(node.links, node.me, directory, patience_s=patience_s)
    async with search.attempt() as result:
        return result


# ---- the directory -------------------------------------------------------------------------


def test_a_live_node_is_found_until_it_is_removed(tmp_path: Path) -> None:
    me = member("n1", 4711)
    DiscoveryDir("run", tmp_path).add(me)
    assert [str(a) for a in DiscoveryDir("run", tmp_path).live()] == ["127.0.0.1:4711"]
    assert DiscoveryDir("other run", tmp_path).live() == []
    DiscoveryDir("run", tmp_path).remove(me.uid)
    assert DiscoveryDir("run", tmp_path).live() == []


@needs_proc
def test_files_of_dead_nodes_and_broken_files_are_removed(tmp_path: Path) -> None:
    directory = DiscoveryDir("run", tmp_path)
    directory.add(member("dead", pid=dead_pid()))
    (directory.path / "broken.json").write_text("{")
    assert directory.live() == []
    assert list(directory.path.glob("*.json")) == []


@needs_proc
def test_a_process_id_used_anew_does_not_keep_a_node_alive(tmp_path: Path) -> None:
    directory = DiscoveryDir("run", tmp_path)
    directory.add(member("old"))
    (path,) = directory.path.glob("*.json")
    text = path.read_text()
    assert '"born":' in text
    path.write_text(text.replace('"born":', '"born":1'))
    assert directory.live() == []


@needs_proc
def test_a_zombie_counts_as_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_gone(child.pid)
    child.communicate()


@pytest.mark.parametrize("run", ["a/b", "../x", "ü", "x" * 300, "a b"])
def test_any_run_id_has_a_directory_of_its_own_below_the_root(tmp_path: Path, run: str) -> None:
    path = DiscoveryDir(run, tmp_path).path
    assert path.parent == tmp_path
    assert path != DiscoveryDir("a_b", tmp_path).path


def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(AddressError, match="belongs to you alone"):
        DiscoveryDir("run", tmp_path)


def test_a_link_instead_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(AddressError, match="belongs to you alone"):
        DiscoveryDir("run", tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(AddressError, match="belongs to you alone"):
        DiscoveryDir("run", tmp_path)


def test_the_runtime_directory_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_dir() == tmp_path / "lightning-chaos"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert str(os.geteuid()) in str(runtime_dir())


def test_the_default_run_is_named_after_script_and_user(tmp_path: Path) -> None:
    one, two = str(tmp_path / "train.py"), str(tmp_path / "sub" / "train.py")
    assert default_run(one).startswith("train-")
    assert default_run(one) == default_run(one)
    assert default_run(one) != default_run(two)
    assert default_run(one, lambda: 1) != default_run(one, lambda: 2)


def test_the_founding_lock_keeps_others_out_for_a_bounded_time(tmp_path: Path) -> None:
    async def scene() -> None:
        async with DiscoveryDir("run", tmp_path).founding():
            with pytest.raises(AddressError, match=r"founding\.lock"):
                async with DiscoveryDir("run", tmp_path).founding(wait_s=0.05):
                    pass
        async with DiscoveryDir("run", tmp_path).founding(wait_s=0.05):
            pass

    asyncio.run(scene())


# ---- searching the directory ---------------------------------------------------------------


def test_nobody_in_the_directory_means_this_node_may_found(tmp_path: Path) -> None:
    async def scene() -> None:
        async with nodes("a") as (a,):
            result = await search_directory(a, DiscoveryDir("r", tmp_path))
            assert result == Searched(exclusive=True)

    asyncio.run(scene())


def test_a_live_node_in_the_directory_is_linked_when_the_search_ends(tmp_path: Path) -> None:
    async def scene() -> None:
        directory = DiscoveryDir("r", tmp_path)
        async with nodes("a", "b") as (a, b):
            directory.add(a.me)
            assert await search_directory(b, directory) == Searched(exclusive=True)
            assert b.events == [Linked(a.me)]

    asyncio.run(scene())


def test_a_live_node_that_does_not_answer_is_named(tmp_path: Path) -> None:
    async def scene() -> None:
        directory = DiscoveryDir("r", tmp_path)
        with open_door("127.0.0.1", 0) as silent:
            directory.add(member("stuck", silent.getsockname()[1]))
            async with nodes("a") as (a,):
                result = await search_directory(a, directory, SHORT_S)
        assert f"node stuck (process {os.getpid()})" in result.problem
        assert "CHAOS_RUN" in result.problem

    asyncio.run(scene())


def test_a_node_that_does_not_answer_does_not_hide_one_that_does(tmp_path: Path) -> None:
    async def scene() -> None:
        directory = DiscoveryDir("r", tmp_path)
        with open_door("127.0.0.1", 0) as silent:
            directory.add(member("stuck", silent.getsockname()[1]))
            async with nodes("a", "b") as (a, b):
                directory.add(a.me)
                assert await search_directory(b, directory) == Searched(exclusive=True)

    asyncio.run(scene())


# ---- searching given addresses -------------------------------------------------------------


def test_a_given_peer_that_answers_is_linked_when_the_search_ends() -> None:
    async def scene() -> None:
        async with nodes("a", "b") as (a, b):
            assert await search_addresses(b, a.address) == Searched(exclusive=False)
            assert b.events == [Linked(a.me)]

    asyncio.run(scene())


def test_no_answer_from_any_given_peer_is_a_problem_that_names_each() -> None:
    async def scene() -> None:
        async with nodes("a") as (a,):
            with EmptyPlace() as place:
                gone = str(place.address)
                result = await search_addresses(a, gone, patience_s=SHORT_S)
        assert gone in result.problem
        assert "refused" in result.problem
        assert "CHAOS_PEERS" in result.problem

    asyncio.run(scene())


def test_a_last_call_that_is_cut_short_does_not_hide_what_is_known() -> None:
    async def scene() -> None:
        called = []

        async def refuse_once(address: Address, timeout_s: float) -> socket.socket:
            called.append(address)
            if len(called) == 1:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed")
            await asyncio.sleep(timeout_s)
            raise OSError(f"{address} did not answer within {timeout_s:g} s")

        async with nodes("a", dialler=refuse_once) as (a,):
            result = await search_addresses(a, "127.0.0.1:1", patience_s=SHORT_S)
        assert "127.0.0.1:1: connection refused." in result.problem

    asyncio.run(scene())


@pytest.mark.parametrize("own", ["127.0.0.1", "localhost", "127.8.8.8"])
def test_a_node_on_its_own_list_may_found_when_nobody_answers(own: str) -> None:
    async def scene() -> None:
        async with nodes("a") as (a,):
            with EmptyPlace() as place:
                other = str(place.address)
                mine = f"{own}:{a.me.port}"
                result = await search_addresses(a, mine, other, patience_s=SHORT_S)
            assert result == Searched(exclusive=False, silent=(other,))

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("address", "why"),
    [("nonsense", "write host:port"), ("10.0.0.1:4711", "not a loopback address")],
    ids=["malformed", "in the clear"],
)
def test_an_address_that_cannot_work_is_a_problem_at_once(address: str, why: str) -> None:
    async def scene() -> None:
        async with nodes("a") as (a,):
            assert why in (await search_addresses(a, address)).problem

    asyncio.run(scene())


def test_a_peer_of_another_run_is_a_problem_that_names_both_runs() -> None:
    async def scene() -> None:
        async with nodes("a", run="theirs") as (a,), nodes("b", run="ours") as (b,):
            problem = (await search_addresses(b, a.address, b.address)).problem
            assert "'theirs'" in problem
            assert "'ours'" in problem
            assert not a.events
            assert not b.events

    asyncio.run(scene())


# ---- the node's own host -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "insecure", "why"),
    [("10.0.0.1", False, "insecure=True"), ("0.0.0.0", True, "others can dial")],
)
def test_a_host_that_cannot_work_is_refused(host: str, insecure: bool, why: str) -> None:
    with pytest.raises(AddressError, match=why):
        PeerConfig(run="r", node="n", host=host, insecure=insecure).check_host()


def test_loopback_and_trusted_hosts_are_taken() -> None:
    PeerConfig(run="r", node="n").check_host()
    PeerConfig(run="r", node="n", host="10.0.0.1", insecure=True).check_host()
    PeerConfig(run="r", node="n", host="node7.example", insecure=True).check_host()
