"""Newcomers that pull the same state at the same time pass on to each other what comes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import pytest
from pull_stage import MB, RUN, Node, Stage, assert_whole, image_of, in_a_loop, stage, state

from lightning_chaos.errors import StateError
from lightning_chaos.replication.donor import Donor
from lightning_chaos.replication.image import StateImage
from lightning_chaos.replication.puller import pull
from lightning_chaos.replication.schedule import Portion
from lightning_chaos.replication.shelf import Shelf
from lightning_chaos.replication.values import Company, Progress, Pulled, Source
from lightning_chaos.transport.dial import dial_tcp
from lightning_chaos.transport.pacer import Pacer


@dataclass
class Newcomer:
    """One that pulls, and whose door is open to the others."""

    node: Node
    shelf: Shelf
    seen: list[Progress] = field(default_factory=list)

    async def pull(self, members: list[Node], newcomers: list[Newcomer]) -> Pulled:
        fellows = tuple(_source(n.node) for n in newcomers if n is not self)
        return await pull(
            [_source(node) for node in members],
            run=RUN,
            uid=self.node.uid,
            local_from=members[0].uid,
            dialler=dial_tcp,
            tls=None,
            held=None,
            progress=self.seen.append,
            stall_s=5.0,
            max_bytes=100 * MB,
            company=Company(newcomers.index(self), fellows, self.shelf),
        )


def _source(node: Node) -> Source:
    return Source(node.uid, node.name, node.address)


def members_of(s: Stage, tree: object, learners: list[str], rate: float) -> list[Node]:
    """One member, with so many bytes/s for all learners together."""
    pacer = Pacer(rate, time.monotonic)
    donor = Donor(RUN, lambda _: pacer, None)
    s.push(donor.aclose)
    donor.offer(image_of(tree), learners)
    return [s.node("a", donor.serve)]


def newcomers_of(s: Stage, names: str) -> list[Newcomer]:
    """Newcomers whose donors pass on what they pull."""
    uids = [f"{name}/1" for name in names]
    found = []
    for name, uid in zip(names, uids, strict=True):
        donor = Donor(RUN, lambda _: Pacer(None, time.monotonic), None)
        s.push(donor.aclose)
        donor.admit(uids)
        shelf = Shelf([other for other in uids if other != uid])
        donor.pass_on(shelf)
        found.append(Newcomer(s.node(name, donor.serve), shelf))
    return found


def from_each(pulled: Pulled) -> dict[str, int]:
    return {share.name: share.bytes for share in pulled.donors}


@pytest.mark.parametrize("names", ["xy", "xyz"])
def test_each_byte_leaves_the_slow_member_about_once(names: str) -> None:
    async def main() -> None:
        async with stage() as s:
            tree, newcomers = state(12 * MB), newcomers_of(s, names)
            # So slow that it, and not this process, limits them also on a busy machine.
            members = members_of(s, tree, [n.node.uid for n in newcomers], rate=6e6)
            all_pulled = await asyncio.gather(*(n.pull(members, newcomers) for n in newcomers))
            for pulled in all_pulled:
                assert_whole(pulled, tree)
                assert pulled.local == "mine"
                assert from_each(pulled)["a"] <= 1.3 * 12 * MB / len(names)
                for name in set(names) & set(from_each(pulled)):
                    assert from_each(pulled)[name] >= 0.5 * 12 * MB / len(names)
            assert sum(from_each(p)["a"] for p in all_pulled) <= 1.3 * 12 * MB

    asyncio.run(main())


@in_a_loop
async def test_a_newcomer_that_dies_costs_the_other_nothing_but_its_help() -> None:
    async with stage() as s:
        tree, newcomers = state(6 * MB), newcomers_of(s, "xy")
        members = members_of(s, tree, ["x/1", "y/1"], rate=12e6)
        first, second = newcomers
        dying = asyncio.create_task(second.pull(members, newcomers))
        living = asyncio.create_task(first.pull(members, newcomers))
        while not any(seen.per_donor["y"] for seen in first.seen):
            await asyncio.sleep(0.01)
        dying.cancel()
        second.node.kill()
        pulled = await living
        assert_whole(pulled, tree)
        assert 0 < from_each(pulled)["y"] < from_each(pulled)["a"]


@in_a_loop
async def test_wrong_shards_of_another_newcomer_are_never_taken() -> None:
    async with stage() as s:
        tree, newcomers = state(6 * MB), newcomers_of(s, "xy")
        members = members_of(s, tree, ["x/1"], rate=12e6)
        good, liar = newcomers
        image = image_of(tree)
        liar.shelf.open(image.manifest, memoryview(bytearray(image.manifest.total_bytes)))
        for index in reversed(range(image.manifest.shards)):
            liar.shelf.put(index)
        pulled = await good.pull(members, newcomers)
        assert_whole(pulled, tree)
        assert from_each(pulled)["y"] == 0
        assert "sent 2 wrong shards" in pulled.donors[1].problem


@in_a_loop
async def test_a_newcomer_that_pulls_another_state_is_left_alone() -> None:
    async with stage() as s:
        tree, newcomers = state(), newcomers_of(s, "xy")
        members = members_of(s, tree, ["x/1"], rate=12e6)
        other: StateImage = image_of(state(seed=2))
        newcomers[1].shelf.open(other.manifest, memoryview(b""))
        pulled = await newcomers[0].pull(members, newcomers)
        assert_whole(pulled, tree)
        assert "sits out" in pulled.donors[1].problem


@in_a_loop
async def test_a_newcomer_alone_cannot_stand_in_for_the_members() -> None:
    async with stage() as s:
        newcomers = newcomers_of(s, "xy")
        members = members_of(s, state(), ["x/1"], rate=12e6)
        await members[0].aclose()
        with pytest.raises(StateError, match="no donor is left"):
            await newcomers[0].pull(members, newcomers)


def test_all_newcomers_begin_elsewhere_and_end_where_the_others_end() -> None:
    assert Portion().parts([0, 1, 2, 5], 6) == [[0, 1, 2, 5]]
    assert Portion(0, 2).parts(range(6), 6) == [[0, 1, 2], [5, 4, 3]]
    assert Portion(1, 2).parts(range(6), 6) == [[3, 4, 5], [2, 1, 0]]
    assert Portion(1, 3).parts([0, 3, 4, 5], 6) == [[3], [5, 4], [0]]
