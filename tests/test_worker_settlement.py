"""Members that compare their states between two rounds: who is right, who pulls, who waits.

Nodes with peer processes of their own, whose training threads do nothing but keep rounds.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.replication.image import StateImage, assemble
from lightning_chaos.worker.node import Node
from lightning_chaos.worker.settlement import Settled
from lightning_chaos.worker.turns import Apart, Go, Hold

BOUND_S = 40.0
SHARD_BYTES = 64
Work = Callable[[Node, str], Settled | None]


def state(value: float = 0.0, at: int = 0) -> torch.Tensor:
    """Four shards, one of which differs from the others' by that value."""
    values = torch.arange(64.0)
    values[at] += value
    return values


def image(node: Node, tensor: torch.Tensor) -> StateImage:
    return StateImage.of(
        {"w": tensor},
        {},
        round=node.round + 1,
        operation=node.last_operation,
        shard_bytes=SHARD_BYTES,
    )


class Members:
    """Nodes of one run; each has a thread that brings it to the end of round 0."""

    def __init__(self, names: str) -> None:
        run = uuid.uuid4().hex
        self.nodes = {
            name: Node(
                # Other tests take the processors meanwhile: no silence is to cost a seat here.
                PeerConfig(run, name, min_members=len(names), timeout_s=BOUND_S, linger_s=0.0)
            )
            for name in names
        }
        self._founded = threading.Event()

    def all(self, work: Work) -> dict[str, Settled | None]:
        """What that gives at every member between round 0 and round 1."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            tasks = {n: pool.submit(self._live, n, work) for n in self.nodes}
            return {name: task.result(BOUND_S) for name, task in tasks.items()}

    def _live(self, name: str, work: Work) -> Settled | None:
        node, first = self.nodes[name], name == next(iter(self.nodes))
        if not first:
            assert self._founded.wait(BOUND_S)
        node.open()
        self._founded.set()
        node.ask_seat(())
        while not isinstance(turn := node.turn(), Go):
            match turn:
                case Hold():
                    node.hold(turn, image(node, state()))
                case Apart():
                    pulled = node.learn(lambda: image(node, state()), lambda _: None)
                    node.take_seat(pulled.manifest.operation)
        node.begin_round()
        node.operate("round")
        return work(node, name)

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()


@pytest.fixture
def members() -> Iterator[Callable[[str], Members]]:
    with contextlib.ExitStack() as stack:

        def make(names: str) -> Members:
            made = Members(names)
            stack.callback(made.close)
            return made

        yield make


def settle_with(states: dict[str, torch.Tensor], trusted: str = "") -> Work:
    def work(node: Node, name: str) -> Settled | None:
        uids = [uid for uid in node.view.uids if uid[0] in trusted]
        return node.settle(image(node, states[name]), uids)

    return work


def names(uids: tuple[str, ...]) -> str:
    return "".join(uid.partition("/")[0] for uid in uids)


def test_who_differs_pulls_what_differs_from_all_who_are_right(
    members: Callable[[str], Members],
) -> None:
    states = {"a": state(), "b": state(1.0, at=20), "c": state()}
    settled = members("abc").all(settle_with(states))
    for name, one in settled.items():
        assert one is not None
        assert (sorted(names(one.ruling.right)), names(one.ruling.wrong)) == (["a", "c"], "b")
        assert (one.pulled is not None, one.problem) == (name == "b", "")
    pulled = settled["b"].pulled  # type: ignore[union-attr]
    assert pulled is not None
    assert {share.name for share in pulled.donors} == {"a", "c"}
    assert pulled.manifest.total_bytes - pulled.kept_bytes == SHARD_BYTES
    assert torch.equal(assemble(pulled.manifest, pulled.buffer)["w"], state())


def test_equal_states_stand_and_nobody_pulls(members: Callable[[str], Members]) -> None:
    settled = members("ab").all(settle_with({"a": state(), "b": state()}))
    for one in settled.values():
        assert one is not None
        assert (one.ruling.wrong, one.pulled) == ((), None)


def test_of_three_states_one_that_was_right_about_the_segment_is_taken_by_all(
    members: Callable[[str], Members],
) -> None:
    states = {"a": state(1.0), "b": state(2.0), "c": state(3.0)}
    settled = members("abc").all(settle_with(states, trusted="c"))
    for name in "ab":
        pulled = settled[name].pulled  # type: ignore[union-attr]
        assert pulled is not None
        assert torch.equal(assemble(pulled.manifest, pulled.buffer)["w"], state(3.0))


def test_the_others_wait_for_the_one_who_pulls_and_no_longer_when_it_dies(
    members: Callable[[str], Members],
) -> None:
    together = members("abc")
    states = {"a": state(), "b": state(1.0), "c": state()}

    def work(node: Node, name: str) -> Settled | None:
        if name == "b":
            node.operate("comparison of states", image(node, states["b"]).manifest.root)
            node.close("dies before it has pulled")
            return None
        return settle_with(states)(node, name)

    settled = together.all(work)
    for name in "ac":
        one = settled[name]
        assert one is not None
        assert names(one.ruling.wrong) == "b"
        assert len(together.nodes[name].view.members) == 2


def test_one_whose_state_cannot_be_laid_out_is_not_compared(
    members: Callable[[str], Members],
) -> None:
    def work(node: Node, name: str) -> Settled | None:
        return node.settle(None if name == "a" else image(node, state(float(ord(name)))), ())

    settled = members("abc").all(work)
    for one in settled.values():
        assert one is not None
        assert "a" not in names(one.ruling.right + one.ruling.wrong)
