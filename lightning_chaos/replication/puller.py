"""The newcomer's pull: the whole state, from all donors at once.

Plan with what is known of the links, go on with what happens: every donor begins with its part of
the optimal schedule, the schedule is made anew when the transfer has shown a link's rate, and
:class:`~lightning_chaos.replication.assignment.Assignment` moves work between donors.  Newcomers
that pull at the same time pass on to each other what they have.  Each shard is checked against the
manifest that most members agree on, so a pull ends with that state bit for bit or with an error
that names every donor.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from typing import Never

from lightning_chaos.errors import ChaosError, StateDeclined, StateError, WireError
from lightning_chaos.protocol.values import Uid
from lightning_chaos.replication.call import Caller
from lightning_chaos.replication.candidate import Candidate, choice_of
from lightning_chaos.replication.goal import Goal
from lightning_chaos.replication.image import StateImage, digest_of
from lightning_chaos.replication.inflow import Arrived, Heard
from lightning_chaos.replication.schedule import ALONE, LOOK_AGAIN_S, Portion, Schedule
from lightning_chaos.replication.shard_channel import ShardChannel
from lightning_chaos.replication.tree import unpack
from lightning_chaos.replication.values import Company, Progress, Pulled, Source
from lightning_chaos.replication.wire import Ask, LocalReply, NotYet, Want, WantLocal
from lightning_chaos.transport.dial import Dialler

_WRONG_SHARDS_TOLERATED = 1


async def pull(
    donors: Sequence[Source],
    *,
    run: str,
    uid: Uid,
    local_from: Uid,
    dialler: Dialler,
    tls: ssl.SSLContext | None,
    held: StateImage | None,
    progress: Callable[[Progress], None],
    stall_s: float,
    max_bytes: int,
    company: Company | None = None,
) -> Pulled:
    """Pull the state at the switch round of a view.

    Args:
        donors: the members of the view.
        run: id of the run.
        uid: the learner.
        local_from: the donor of the local part; another one if this one fails.
        dialler: opens connections.
        tls: context for handshakes, None for plain bytes.
        held: the learner's own state; shards equal in both are not pulled.
        progress: called after every shard, on the event loop; must not block.
        stall_s: longest silence of a donor that is asked for something, seconds.
        max_bytes: largest state taken.
        company: other newcomers that pull it too, if there are any.

    Raises:
        ConfigError: a remembered rate that is not positive and finite.
        StateError: no donor is left; the message names each one's reason.
        StateDeclined: because they cannot send their state, or this machine cannot hold it.
    """
    caller = Caller(Ask(run, uid), dialler, tls, stall_s, max_bytes)
    return await _Pull(donors, company, caller, local_from, held, progress).run()


class _Pull:
    """One pull; owns a task and a connection per donor and fellow while it runs."""

    def __init__(
        self,
        sources: Sequence[Source],
        company: Company | None,
        caller: Caller,
        local_from: Uid,
        held: StateImage | None,
        progress: Callable[[Progress], None],
    ) -> None:
        fellows = company.fellows if company else ()
        self._donors = [Candidate.of(source) for source in sources]
        self._fellows = [Candidate.of(source, fellow=True) for source in fellows]
        self._company = company
        self._caller = caller
        self._local_from = local_from
        self._held = held
        self._progress = progress
        self._goal: Goal | None = None
        self._hopeless = ""
        """Why no donor can help, '' if one may."""
        self._schedule: Schedule | None = None
        self._local: object = None
        self._local_here = False
        self._local_asked: Uid | None = None
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    async def run(self) -> Pulled:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._attend(donor)) for donor in self._everybody]
            while not (self._complete or self._hopeless or all(d.out for d in self._donors)):
                await self._changed.wait()
            for task in tasks:
                task.cancel()
        if self._hopeless:
            raise StateDeclined(self._hopeless)
        goal, schedule = self._goal, self._schedule
        if goal is None or schedule is None or not self._complete:
            reasons = "; ".join(f"{d.source.name}: {d.share.problem}" for d in self._donors)
            error = StateDeclined if any(d.declined for d in self._donors) else StateError
            raise error(f"the state could not be pulled: no donor is left ({reasons or 'none'})")
        return Pulled(
            manifest=goal.manifest,
            buffer=goal.buffer,
            local=self._local,
            donors=tuple(donor.told() for donor in self._everybody),
            seconds=self._now_s,
            kept_bytes=goal.kept_bytes,
            planned_s=schedule.planned_s,
            predicted_s=schedule.predicted_s,
        )

    @property
    def _everybody(self) -> list[Candidate]:
        return [*self._donors, *self._fellows]

    @property
    def _complete(self) -> bool:
        return self._goal is not None and self._goal.assignment.done and self._local_here

    @property
    def _now_s(self) -> float:
        return self._loop.time() - self._began

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # ---- one donor -------------------------------------------------------------------------

    async def _attend(self, donor: Candidate) -> None:
        """Take what a donor gives until it is of no use any more."""
        channel: ShardChannel | None = None
        try:
            channel = await self._caller.connect(donor.source.address, donor.gauge)
            await self._converse(donor, channel)
        except (OSError, ChaosError) as error:
            donor.declined = isinstance(error, StateDeclined)
            self._drop(donor, str(error) or f"did not answer within {self._caller.stall_s:g} s")
        finally:
            if channel is not None:
                channel.abort()
                await channel.wait_closed()

    async def _converse(self, donor: Candidate, channel: ShardChannel) -> None:
        donor.manifest = await self._caller.manifest(channel, donor.gauge)
        self._choose()
        while self._goal is None:
            await self._changed.wait()
        goal = self._goal
        if donor.manifest != goal.manifest:
            raise StateError(
                f"sits out: its state {donor.manifest.digest} of round {donor.manifest.round} "
                f"is not the {goal.manifest.digest} of round {goal.manifest.round} that most have"
            )
        channel.expect_shards(goal.manifest.shard_bytes)
        if donor.fellow:
            await self._listen(donor, channel, goal)
        channel.feed(donor.gauge.live)
        while True:
            if self._request(donor, channel, goal):
                donor.gauge.live.begin()
                self._take(donor, await self._caller.hear(channel), goal)
            else:
                donor.gauge.live.end()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await self._changed.wait()

    async def _listen(self, fellow: Candidate, channel: ShardChannel, goal: Goal) -> Never:
        """Take what another newcomer passes on, unasked."""
        while True:
            match await self._caller.hear(channel):
                case NotYet():
                    pass
                case Arrived() as shard if 0 <= shard.index < goal.manifest.shards:
                    self._take_shard(fellow, shard, goal)
                    self._announce()
                case heard:
                    raise WireError(f"sent {type(heard).__name__} that is of no use")

    def _request(self, donor: Candidate, channel: ShardChannel, goal: Goal) -> bool:
        """Ask the donor for as much as it should have under way; False if for nothing."""
        assert self._schedule is not None
        uid = donor.source.uid
        if not self._local_here and self._local_asked is None and self._may_give_local(uid):
            self._local_asked = uid
            channel.send(WantLocal())
        for index in self._schedule.requests(donor, self._now_s):
            channel.send(Want(index))
        return goal.assignment.under_way(uid) > 0 or (
            self._local_asked == uid and not self._local_here
        )

    def _may_give_local(self, uid: Uid) -> bool:
        """True for the donor named, and for any once that one is out."""
        return uid == self._local_from or all(
            donor.out for donor in self._donors if donor.source.uid == self._local_from
        )

    def _take(self, donor: Candidate, heard: Heard, goal: Goal) -> None:
        match heard:
            case Arrived():
                self._take_shard(donor, heard, goal)
            case LocalReply(blob) if self._local_asked == donor.source.uid:
                self._local = unpack(blob)
                self._local_here = True
            case _:
                raise WireError(f"sent {type(heard).__name__} that nobody asked for")
        self._announce()

    def _take_shard(self, donor: Candidate, shard: Arrived, goal: Goal) -> None:
        assert self._schedule is not None
        uid, manifest, index = donor.source.uid, goal.manifest, shard.index
        began_s, now_s = shard.began_t - self._began, self._now_s
        if not donor.fellow:
            if not goal.assignment.asked_of(uid, index):
                raise WireError(f"sent shard {index} that nobody asked for")
            donor.gauge.pace.answered(len(shard.data), began_s, now_s)
        offset, length = manifest.span(index)
        if len(shard.data) != length or digest_of(shard.data) != manifest.digests[index]:
            goal.assignment.failed(uid, index)
            donor.wrong_shards += 1
            if donor.wrong_shards > _WRONG_SHARDS_TOLERATED:
                raise WireError(f"sent {donor.wrong_shards} wrong shards, {index} the last")
            return
        if not goal.assignment.arrived(uid, index):
            return
        goal.buffer[offset : offset + length] = shard.data
        donor.gave(length, began_s, now_s)
        if self._company and not donor.fellow:
            self._company.shelf.put(index)
        per_donor = {d.source.name: d.share.bytes for d in self._everybody}
        total = manifest.total_bytes - goal.kept_bytes
        self._progress(Progress(sum(per_donor.values()), total, per_donor))
        if not donor.fellow and self._schedule.outdated(donor, now_s):
            self._plan()

    def _drop(self, donor: Candidate, problem: str) -> None:
        donor.out = True
        donor.share.problem = problem
        if donor.fellow:
            return
        if self._local_asked == donor.source.uid and not self._local_here:
            self._local_asked = None
        if self._goal is not None:
            self._goal.assignment.lost(donor.source.uid)
        else:
            self._choose()
        self._announce()

    # ---- what all donors together say ------------------------------------------------------

    def _choose(self) -> None:
        """Settle on a manifest once most donors have it, or all have spoken."""
        if self._goal is not None or self._hopeless:
            return
        manifest = choice_of(self._donors, self._local_from)
        if manifest is None:
            return
        try:
            self._goal = Goal.of(manifest, self._held, [d.source.uid for d in self._donors])
        except StateDeclined as error:
            self._hopeless = str(error)
            self._announce()
            return
        portion = ALONE
        if self._company:
            portion = Portion(self._company.rank, len(self._fellows) + 1)
            self._company.shelf.open(manifest, self._goal.buffer)
        self._schedule = Schedule(self._goal, self._donors, portion)
        self._plan()
        self._announce()

    def _plan(self) -> None:
        """Share out what nobody was asked for yet among those who serve, or have not spoken yet."""
        assert self._goal is not None
        assert self._schedule is not None
        wanted = (self._goal.manifest, None)
        in_play = [d for d in self._donors if not d.out and d.manifest in wanted]
        self._schedule.plan(in_play, self._now_s)
