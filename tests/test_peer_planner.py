"""Plans are made beside the event loop, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable

import pytest

from lightning_chaos.peer.planner import Planner
from lightning_chaos.planning.graph import Graph, Link
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.events import Replan, Replanned

NAMES = ("a", "b", "c")
BOUND_S = 40.0
"""It rests twenty times as long as a plan has taken, on a machine that may be busy."""


def ask(rate_mbit: float, without: tuple[str, ...] = (), of: tuple[str, ...] = NAMES) -> Replan:
    pairs = ((a, b) for a in NAMES for b in NAMES if a != b and {a, b} != set(without))
    links = {pair: Link(rate_mbit, 1.0) for pair in pairs}
    return Replan(Graph(NAMES, links), mesh_plan(of), 1_000_000)


def with_planner(
    story: Callable[[Planner, asyncio.Queue[Replanned]], Awaitable[None]],
) -> None:
    async def play() -> None:
        answers: asyncio.Queue[Replanned] = asyncio.Queue()
        planner = Planner(answers.put_nowait)
        task = asyncio.get_running_loop().create_task(planner.run())
        async with asyncio.timeout(BOUND_S):
            await story(planner, answers)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(play())


def test_the_answer_names_the_graph_that_was_asked_about() -> None:
    async def story(planner: Planner, answers: asyncio.Queue[Replanned]) -> None:
        planner.ask(ask(100.0))
        answer = await answers.get()
        assert answer.graph == ask(100.0).graph
        assert answer.seconds == pytest.approx(answer.present_s)

    with_planner(story)


def test_of_what_is_asked_before_there_is_time_only_the_last_is_answered() -> None:
    async def story(planner: Planner, answers: asyncio.Queue[Replanned]) -> None:
        for rate_mbit in (100.0, 200.0, 300.0):
            planner.ask(ask(rate_mbit))
        assert (await answers.get()).graph == ask(300.0).graph
        planner.ask(ask(400.0))
        assert (await answers.get()).graph == ask(400.0).graph

    with_planner(story)


def test_while_a_plan_is_made_the_loop_gets_its_turn_sooner_than_usual() -> None:
    async def story(planner: Planner, answers: asyncio.Queue[Replanned]) -> None:
        usual_s = sys.getswitchinterval()
        planner.ask(ask(100.0))
        turns_s = set()
        while answers.empty():
            await asyncio.sleep(0)
            turns_s.add(sys.getswitchinterval())
        assert min(turns_s) <= usual_s / 10
        assert sys.getswitchinterval() == usual_s

    with_planner(story)


def test_what_cannot_be_planned_is_told_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(planner: Planner, answers: asyncio.Queue[Replanned]) -> None:
        with caplog.at_level(logging.WARNING):
            planner.ask(ask(100.0, without=("a", "b")))
            while not caplog.records:
                await asyncio.sleep(0.01)
        assert "the link a - b, which is not there" in caplog.text
        planner.ask(ask(200.0))
        assert (await answers.get()).graph == ask(200.0).graph

    with_planner(story)


def test_a_failure_of_the_planner_is_told_once_and_costs_only_that_plan(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(planner: Planner, answers: asyncio.Queue[Replanned]) -> None:
        with caplog.at_level(logging.DEBUG, "lightning_chaos.peer.planner"):
            for times in (1, 2):  # a plan in force for more members than the graph has
                planner.ask(ask(100.0 * times, of=(*NAMES, "d")))
                while len(caplog.records) < times:
                    await asyncio.sleep(0.01)
        assert [r.levelno for r in caplog.records] == [logging.WARNING, logging.DEBUG]
        assert "the planner failed: IndexError" in caplog.records[0].message
        planner.ask(ask(300.0))
        assert (await answers.get()).graph == ask(300.0).graph

    with_planner(story)
