"""The commands, against real peers: what they say, what they change, how they fail."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from places import EmptyPlace
from rich.console import Console

from lightning_chaos import __version__, cli
from lightning_chaos.peer.client import PeerClient, start_peer
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.peer.discovery import DiscoveryDir
from lightning_chaos.peer.machine import machine_key
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol import scales
from lightning_chaos.protocol.local import AnyLocal, Measured, Standing, Stop
from lightning_chaos.protocol.messages import Gauges, LinkFigures, Status
from lightning_chaos.protocol.readings import Trust
from lightning_chaos.protocol.values import Host, Lineage, Member, View
from lightning_chaos.status import tables
from lightning_chaos.transport.door import open_door
from lightning_chaos.visit import Sight

RUN = "cli-test"
BOUND_S = 30.0
"""Interpreters start meanwhile, on a machine that may be busy."""


class Node:
    """A real peer process; the test is its worker."""

    def __init__(self, door: socket.socket) -> None:
        self.address = f"127.0.0.1:{door.getsockname()[1]}"
        self.said: asyncio.Queue[AnyLocal] = asyncio.Queue()
        self.say: Callable[[AnyLocal], None]
        """To the peer."""

    async def hears(self, kind: type[AnyLocal]) -> AnyLocal:
        """The next message of that kind from the peer."""
        async with asyncio.timeout(BOUND_S):
            while not isinstance(message := await self.said.get(), kind):
                pass
        return message


@contextlib.asynccontextmanager
async def running_node() -> AsyncIterator[Node]:
    """A node that has founded the run."""
    with open_door("127.0.0.1", 0) as door:
        node = Node(door)
        client = await PeerClient.connect(
            start_peer(PeerConfig(run=RUN, node="n1", linger_s=0.0), door),
            on_message=node.said.put_nowait,
            on_socket=lambda kind, sock: sock.close(),
            on_gone=lambda reason: None,
        )
        node.say = client.send
        try:
            await node.hears(Standing)
            yield node
        finally:
            await client.aclose()


def with_node(story: Callable[[Node], Awaitable[None]]) -> None:
    async def play() -> None:
        async with running_node() as node:
            await story(node)

    asyncio.run(play())


async def command(*args: str) -> Result:
    """Run a command in a thread of its own, as it would run in a process of its own."""
    return await asyncio.to_thread(CliRunner().invoke, cli.main, args)


def test_status_marks_an_island_and_says_what_is_waited_for() -> None:
    me = Member("n4", 1, "127.0.0.1", 1)
    lineage = Lineage("n1/1", "n4/1@7")
    view = View("r", 0, 9, (me,), (), 0, mesh_plan((me.uid,)), lineage=lineage)
    why = "1 of 3 members reachable; waiting for quorum since 12 s; quorum='any' would go on alone"
    console = Console(width=200, record=True, file=io.StringIO())
    for table in tables(Sight(me, view, Status(9, 40, waiting=why)), {}):
        console.print(table)
    told = " ".join(console.export_text().split())
    assert "the island of n4, split off in epoch 7" in told
    assert f"n4 waits: {why}" in told


def test_status_marks_slow_members() -> None:
    members = tuple(Member(name, 1, "127.0.0.1", 1) for name in ("n1", "n2"))
    view = View("r", 0, 2, members, (), 0, mesh_plan([m.uid for m in members]))
    console = Console(width=200, record=True, file=io.StringIO())
    status = Status(2, 9, slow=(members[1].uid,))
    for table in tables(Sight(members[0], view, status), {}):
        console.print(table)
    told = console.export_text()
    assert "member, slow" in told
    assert "lead, slow" not in told


def test_status_shows_what_nodes_measure_of_their_machines_and_links() -> None:
    async def story(node: Node) -> None:
        host = Host(4, 25, 8 << 30, 2 << 30, 2_500_000, 125_000, 1000)
        node.say(Measured({}, 0, host))
        async with asyncio.timeout(BOUND_S):  # the peer takes in what its worker says when it will
            while "25 % of 4" not in " ".join(
                (await command("status", "--run", RUN)).output.split()
            ):
                pass

    with_node(story)


def test_status_cuts_no_address_off_where_the_output_is_no_terminal() -> None:
    async def story(node: Node) -> None:
        node.say(Measured({}, 0, Host(64, 25, 2 << 39, 2 << 38, 2_500_000_000, 125_000, 10_000)))
        async with asyncio.timeout(BOUND_S):
            while "25 % of 64" not in (told := (await command("status", "--run", RUN)).output):
                pass
        assert f"│ {node.address} │" in told

    with_node(story)


def test_names_are_shown_as_they_are() -> None:
    me = Member("[red]n1[/red] :smile:", 1, "127.0.0.1", 1)
    view = View("r", 0, 1, (me,), (), 0, mesh_plan((me.uid,)))
    console = cli.plain_console()
    with console.capture() as said:
        for table in tables(Sight(me, view, Status(1, 0)), {}):
            console.print(table)
    assert me.node in said.get()


def test_links_are_shown_as_the_one_that_hears_has_measured_them() -> None:
    one, two = (Member(f"n{i}", 1, "127.0.0.1", i) for i in (1, 2))
    view = View("r", 0, 9, (one, two), (), 0, mesh_plan((one.uid, two.uid)))
    host = Host(4, 25, 8 << 30, 2 << 30, 2_500_000, 125_000, 1000)
    row = LinkFigures(
        9,
        rates=(scales.RATE.step(2.5e6), 0),
        trips=(scales.TRIP.step(0.02), 0),
        trusts=(Trust.MEASURED, Trust.NOTHING),
        ages=(scales.AGE.step(64), 0),
        losses=(0, 0),
    )
    sent = LinkFigures(9, (0, 0), (0, 0), (Trust.NOTHING,) * 2, (0, 0), (0, scales.LOSS.step(0.03)))
    gauges = {two.uid: Gauges(host, row, (1, 0)), one.uid: Gauges(host, sent, (0, 3))}
    console = Console(width=200, record=True, file=io.StringIO())
    for table in tables(Sight(one, view, Status(9, 40)), gauges):
        console.print(table)
    told = console.export_text()
    assert "2.0 of 8.0 GiB" in told
    assert "20.0, 1.0 of 1000 Mbit/s" in told
    (links,) = (line.split() for line in told.splitlines() if "n1" in line and "n2" in line)
    figures = [float(cell) for cell in links if cell.replace(".", "").isdigit()]
    assert figures == pytest.approx([20, 64, 20, 3], rel=0.2)
    assert "measured" in links


def test_status_and_stop_find_the_run_on_this_machine_and_reach_it() -> None:
    async def story(node: Node) -> None:
        status = await command("status", "--run", RUN)
        assert status.exit_code == 0
        assert f"run {RUN}" in status.output
        assert node.address in status.output
        assert "lead" in status.output
        stop = await command("stop", "--run", RUN)
        assert (stop.exit_code, stop.output) == (0, f"asked n1 to end run {RUN}\n")
        assert await node.hears(Stop) == Stop("lightning-chaos stop")
        assert f"run {RUN}" in (await command("status")).output  # the only one here
        again = await command("status", "--run", RUN, "--peer", node.address)
        assert again.exit_code == 0

    with_node(story)


def test_a_node_of_another_run_refuses_by_name() -> None:
    async def story(node: Node) -> None:
        result = await command("stop", "--run", "other", "--peer", node.address)
        assert result.exit_code == 2
        assert "'other'" in result.stderr
        assert f"'{RUN}'" in result.stderr
        assert result.stderr.count("\n") == 1

    with_node(story)


def failing(*args: str) -> str:
    """What a command says when it fails as it should: one line, exit code 2."""
    result = CliRunner().invoke(cli.main, args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


def test_a_run_that_nobody_knows_is_one_line() -> None:
    told = failing("status", "--run", "nobody")
    assert told.startswith("lightning-chaos: no node of run nobody is known on this machine")
    assert told.count("\n") == 1


def test_without_any_run_here_one_must_be_named() -> None:
    told = failing("status")
    assert told == (
        "lightning-chaos: no run has a node on this machine; name one with --run and --peer\n"
    )


def test_of_several_runs_one_must_be_chosen() -> None:
    me = Member("n1", 1, "127.0.0.1", 4711, machine_key(), os.getpid())
    for run in ("one", "two"):
        DiscoveryDir(run).add(me)
    assert "several runs have nodes here: one, two; choose with --run" in failing("stop")


def test_a_malformed_address_is_one_line() -> None:
    assert "write host:port" in failing("stop", "--run", RUN, "--peer", "nonsense")


def test_a_port_where_nobody_listens_is_one_line() -> None:
    with EmptyPlace() as place:
        told = failing("stop", "--run", RUN, "--peer", str(place.address))
    assert f"{place.address} cannot be reached" in told
    assert told.count("\n") == 1


def test_somebody_who_does_not_speak_the_protocol_is_one_line() -> None:
    async def story() -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read(1000)
            writer.close()

        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            result = await command("status", "--run", RUN, "--peer", f"127.0.0.1:{port}")
        assert result.exit_code == 2
        assert result.stderr.startswith("lightning-chaos: ")
        assert result.stderr.count("\n") == 1

    asyncio.run(story())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--keep-logs", "."), "holds the logs of an older run"),
        (("--link-rate", "nan"), "give a rate, in Mbit/s"),
    ],
)
def test_the_demo_refuses_what_cannot_work(
    tmp_path: Path, words: tuple[str, str], why: str
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "n1.jsonl").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "lightning_chaos.cli", "demo", *words],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert why in done.stderr


def test_the_version_is_the_packages() -> None:
    assert __version__ in CliRunner().invoke(cli.main, ["--version"]).output


@pytest.mark.parametrize("nodes", ["1", "x"])
def test_the_demo_needs_two_nodes(nodes: str) -> None:
    assert CliRunner().invoke(cli.main, ["demo", "--nodes", nodes]).exit_code == 2


def test_the_commands_load_neither_torch_nor_lightning_nor_numpy() -> None:
    code = (
        "import sys, lightning_chaos.cli, lightning_chaos.demo.play\n"
        "print([m for m in ('torch', 'lightning', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=BOUND_S, check=True
    )
    assert done.stdout == "[]\n"
