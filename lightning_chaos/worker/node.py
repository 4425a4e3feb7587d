"""What training sees of its node: one object with plain, blocking calls.

The node owns the I/O thread and, on it, the present :class:`Station`.  Every call here is made
by the training thread; it waits on the loop's side, where every wait has its own bound or is
ended by a view change.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
import threading
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lightning_chaos.collective.roots import Floats
from lightning_chaos.errors import (
    ChaosError,
    JoinError,
    NodeLost,
    PeerGone,
    StateDeclined,
    StateError,
)
from lightning_chaos.monitor.runlog import RunLog
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.protocol.local import AskSeat, Pulling, Standing
from lightning_chaos.protocol.messages import Fingerprint
from lightning_chaos.protocol.values import Member, OpId, Past, Uid, View
from lightning_chaos.replication.image import StateImage
from lightning_chaos.replication.puller import pull
from lightning_chaos.replication.values import Progress, Pulled, Source
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import Dialler, dial_tcp
from lightning_chaos.transport.door import open_door
from lightning_chaos.worker.settlement import Settled, settle
from lightning_chaos.worker.station import Station
from lightning_chaos.worker.turns import Hold, Outcome, Turn

log = logging.getLogger(__name__)
T = TypeVar("T")
END_BOUND_S = 5.0
PULL_STALL_S = 5.0
MAX_STATE_BYTES = 1 << 40
ASSUMED_RATE_BYTES_PER_S = 125e6


class Node:
    """This machine's share of the run, as the training thread uses it.

    Args:
        config: for the peer process.
        port: of the one inbound door, 0 for any free one.
        rate_bytes_per_s: speed limit of each link, None for none.
        run_log: directory for the run log, '' for none.
        dialler: opens connections.
        dial_tls: context for connections this side opens, None for plain bytes.
        accept_tls: context for connections it takes.

    Raises:
        AddressError: the port is in use.
    """

    def __init__(
        self,
        config: PeerConfig,
        *,
        port: int = 0,
        rate_bytes_per_s: float | None = None,
        run_log: str = "",
        dialler: Dialler = dial_tcp,
        dial_tls: ssl.SSLContext | None = None,
        accept_tls: ssl.SSLContext | None = None,
    ) -> None:
        self._config = config
        self._rate = rate_bytes_per_s
        self._dialler, self._dial_tls, self._accept_tls = dialler, dial_tls, accept_tls
        self._door = open_door(config.host, port)
        path = Path(run_log) / f"{_file_name(config.node)}.jsonl" if run_log else None
        self._run_log = RunLog(path, config.node)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-io")
        self._thread.start()
        self._leaving = False
        self._station = self._new_station()
        self._round = -1
        self._k = 0
        self._open = ""
        """Label of the operation begun and not ended, if any."""
        self._in_step = False
        self.stop_asked = ""
        """Why somebody asked the whole run to end, '' if nobody did."""

    def _new_station(self) -> Station:
        return Station(
            config=self._config,
            door=self._door,
            dialler=self._dialler,
            dial_tls=self._dial_tls,
            accept_tls=self._accept_tls,
            rate_bytes_per_s=self._rate,
            run_log=self._run_log,
            on_stop=self._note_stop,
        )

    def _note_stop(self, reason: str) -> None:
        self.stop_asked = reason

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the loop and wait; an interrupt of the training thread cancels it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    # ---- life ------------------------------------------------------------------------------

    def open(self) -> Standing:
        """Found the run or find it.

        Raises:
            JoinError: neither was possible.
            RunFinished: the run is over.
        """
        standing = self._call(self._station.open())
        self._run_log.write(
            "start",
            uid=standing.me.uid,
            pid=os.getpid(),
            peer_pid=self._station.peer_pid,
            address=standing.me.address,
            run=self._config.run,
        )
        return standing

    def open_again(self, past: Past, restarts: Restarts) -> Standing:
        """After this incarnation fell out of the run: a new peer, a new incarnation.

        Args:
            past: names the state that this node still has.
            restarts: also used when the new peer ends before it has found the run.

        Raises:
            NodeLost: once too often.
            JoinError: the run does not take this node.
            RunFinished: the run is over.
        """
        self._in_step = False
        before = self._station
        self._call(before.aclose(before.apart))
        last = before.course.view
        where = before.where or tuple(m.address for m in last.members if m.uid != before.me.uid)
        self._config = msgspec.structs.replace(
            self._config,
            base_epoch=last.epoch,
            generation=last.generation,
            past=past,
            known=where,
            gather=False,
        )
        standing = self._open_station(restarts)
        if not standing.newcomer:
            self._tell(lambda station: station.go_on_from(before))
        return standing

    def _open_station(self, restarts: Restarts) -> Standing:
        while True:
            self._station = self._new_station()
            if self._leaving:  # told to the last incarnation only
                self._tell(Station.leave)
            try:
                return self.open()
            except PeerGone as gone:
                restarts.use(str(gone))
                self._call(self._station.aclose(str(gone)))

    def close(self, reason: str = "the worker ends") -> None:
        """Say goodbye and give back every thread, process and socket; may be called twice."""
        if not self._thread.is_alive():
            return
        try:
            self._call(self._station.aclose(reason))
        finally:
            self._run_log.write("end", reason=reason)
            self._run_log.close()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._door.close()

    # ---- what is known ---------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The newest view this node knows."""
        return self._station.course.view

    @property
    def view_in_force(self) -> View | None:
        """The view that the present round runs under."""
        return self._station.in_force

    @property
    def uid(self) -> Uid:
        """This incarnation."""
        return self._station.me.uid

    @property
    def apart(self) -> str:
        """Why this node is not in the run, '' if it is (or has not joined yet)."""
        return self._station.apart

    @property
    def in_step(self) -> bool:
        """Collective operations go to the other members; else they are this node's own."""
        return self._in_step and not self._station.apart

    @property
    def round(self) -> int:
        """The round that has begun, -1 before the first."""
        return self._round

    @property
    def waiting(self) -> str:
        """Why permits do not come, '' if they do."""
        return self._station.waiting

    def log(self, event: str, **fields: Any) -> None:
        """Write to the run log."""
        self._run_log.write(event, **fields)

    def tell_initial(self, image: StateImage) -> None:
        """Write to the run log with which state the run begins: a replay must begin with it."""
        self.log("initial", digest=image.digest)

    # ---- rounds ----------------------------------------------------------------------------

    def ask_seat(self, fingerprint: Fingerprint, at_round: int = -1, samples: int = 0) -> None:
        """Training is ready; a newcomer now asks to join.

        Args:
            fingerprint: what members must have alike.
            at_round: ask only when the run has begun this round.
            samples: committed by the rounds that this node's state holds, over all data epochs.
        """
        if at_round >= 0:
            self.log("asks", round=at_round)
        self.log("ready")
        self._tell(lambda station: station.tell_peer(AskSeat(fingerprint, at_round, samples)))

    def _tell(self, work: Callable[[Station], None]) -> None:
        self._loop.call_soon_threadsafe(work, self._station)

    def turn(self, samples: int = 0) -> Turn:
        """What may be done at the begin of the next round; waits until it is known.

        Args:
            samples: committed by all rounds so far, over all data epochs.
        """
        return self._call(self._station.turn(self._round + 1, samples))

    def begin_round(self) -> int:
        """After a :class:`Go`: the round has begun; its number."""
        self._round, self._k, self._in_step = self._round + 1, 0, True
        return self._round

    def hold(self, hold: Hold, image: StateImage | str) -> None:
        """Serve the state to the learners for whom it stands still, until none is left.

        Args:
            hold: as :meth:`turn` gave it.
            image: the state, or why there is none.
        """
        self._call(self._hold(hold, image))

    async def _hold(self, hold: Hold, image: StateImage | str) -> None:
        begun, donor, learners = self._loop.time(), self._station.donor, hold.view.learners
        if isinstance(image, str):
            donor.decline(image, [m.uid for m in learners])
        else:
            donor.offer(image, [m.uid for m in learners])
        try:
            await self._station.hold(hold)
        finally:
            donor.withdraw()
            self.log(
                "hold",
                round=self._round + 1,
                epoch=hold.view.epoch,
                seconds=self._loop.time() - begun,
                serving=[m.node for m in learners],
            )

    # ---- operations ------------------------------------------------------------------------

    @property
    def last_operation(self) -> OpId:
        """Number of the last operation finished here; all members' between two rounds."""
        return self._station.last_operation

    def operate(
        self,
        label: str,
        blob: bytes = b"",
        vector: Floats | None = None,
        weight: float = 0.0,
        buckets: tuple[tuple[int, int], ...] | None = None,
    ) -> Outcome | None:
        """Run the next operation of this round with the other members.

        Args:
            label: kind and call site; the same at all members.
            blob: this member's part of the header.
            vector: float32, flat, multiplied by ``weight``; or None.
            weight: of this member in the mean.
            buckets: (offset, length) in bytes, tiling the vector.

        Returns:
            None when this node has fallen out of the run.

        Raises:
            OperationMismatch: members asked for different operations.
            ChaosError: asked for within another operation, that is by a hook inside backward.
        """
        if self._open:
            raise ChaosError(
                f"{label} was asked for during backward, while {self._open} are being reduced: "
                "no collective can run there. Use it in training_step or on_after_backward"
            )
        op = self._next_op()
        return self._call(
            self._station.operations.operate(op, label, blob, vector, weight, buckets)
        )

    def _next_op(self) -> OpId:
        op = OpId(self._round, self._k)
        self._k += 1
        return op

    def begin_operation(
        self,
        label: str,
        vector: Floats,
        weight: float,
        buckets: tuple[tuple[int, int], ...],
    ) -> None:
        """Begin the next operation of this round before its contribution is there; returns at once.

        :meth:`give` and :meth:`end_operation` bring it.

        Args:
            label: as for :meth:`operate`; the others too.
            vector: each bucket must keep its values from when it is given until the end.
            weight: of this member in the mean.
            buckets: (offset, length) in bytes, tiling the vector.
        """
        op, self._open = self._next_op(), label
        self._tell(lambda station: station.operations.begin(op, label, vector, weight, buckets))

    def give(self, bucket: int) -> None:
        """That bucket of the operation begun has its values; returns at once."""
        self._tell(lambda station: station.operations.give(bucket))

    def end_operation(self, blob: bytes) -> Outcome | None:
        """Contribute the rest of the operation begun, and wait for its end; see :meth:`operate`.

        Args:
            blob: this member's part of the header.
        """
        label, self._open = self._open, ""
        return self._call(self._station.operations.end(label, blob))

    @property
    def operation_begun(self) -> bool:
        """Between :meth:`begin_operation` and :meth:`end_operation`."""
        return bool(self._open)

    def record(self, op: OpId, **fields: Any) -> None:
        """Write a round to the run log as soon as it is stable."""
        self._tell(lambda station: station.record(op, fields))

    def settle(self, image: StateImage | None, trusted: Collection[Uid]) -> Settled | None:
        """Between two rounds: compare states; who differs takes what is right.

        Args:
            image: this member's state, None if it cannot be laid out; then it is not compared.
            trusted: who may be right; anybody if empty.

        Returns:
            None when this node has fallen out of the run.
        """

        async def pull_from(members: Collection[Member]) -> Pulled:
            return await self._pull_from(members, image, lambda _: None)

        return self._call(settle(self._station, image, trusted, self._next_op, pull_from))

    # ---- joining, leaving, ending ----------------------------------------------------------

    def learn(self, held: Callable[[], StateImage], show: Callable[[Progress], None]) -> Pulled:
        """Wait for a place as learner, then pull the state from all members at once.

        Args:
            held: makes this node's own state, asked when the place is there: shards that are
                equal are not pulled.
            show: told of the progress, on the I/O thread.

        Raises:
            JoinError: the run does not take this node, or has lost it again.
        """
        view = self._call(self._station.learn())
        pulled = self._call(self._pull(view, held(), show))
        self._round = view.switch - 1
        return pulled

    async def _pull(self, view: View, held: StateImage, show: Callable[[Progress], None]) -> Pulled:
        def tell(progress: Progress) -> None:
            self._station.course.pulling = True
            self._station.tell_peer(Pulling(progress.bytes, progress.total))
            show(progress)

        try:
            return await self._pull_from(view.members, held, tell)
        except StateDeclined as error:
            raise JoinError(str(error)) from None
        except StateError as error:
            # All donors let go of it: the run has gone on, so another incarnation may try.
            self._station.fall_out(str(error))
            raise JoinError(str(error)) from None

    async def _pull_from(
        self,
        members: Collection[Member],
        held: StateImage | None,
        progress: Callable[[Progress], None],
    ) -> Pulled:
        rate, view = self._rate or ASSUMED_RATE_BYTES_PER_S, self.view
        sources = [
            Source(m.uid, m.node, Address(m.host, m.port), rate)
            for m in members
            if m.uid != self.uid and view.joins(m.uid, self.uid)
        ]
        work = pull(
            sources,
            run=self._config.run,
            uid=self.uid,
            local_from=next((source.uid for source in sources), ""),
            dialler=self._dialler,
            tls=self._dial_tls,
            held=held,
            progress=progress,
            stall_s=PULL_STALL_S,
            max_bytes=MAX_STATE_BYTES,
        )
        return await self._station.unless_apart(work)

    def take_seat(self, last: OpId) -> None:
        """The state is in place: become a member.

        Raises:
            JoinError: the run has lost this node again.
        """
        self._call(self._station.take_seat(self.view, last))

    def ask_to_leave(self) -> None:
        """Ask to be planned out; safe in a signal handler."""
        self._leaving = True
        self._tell(Station.leave)

    def part(self) -> None:
        """Left as planned: wait until the others have let go."""
        self._in_step = False
        self._call(self._station.part_from_others(END_BOUND_S))

    def finish(self, final: dict[str, Any]) -> None:
        """Training is over here after the present round; wait for the others.

        Args:
            final: what the run log says of the end, once the last round is stable.
        """
        self._in_step = False
        self._call(self._station.finish(self._round, final, END_BOUND_S))

    @staticmethod
    def reopen_log(directory: str, node: str) -> RunLog:
        """The run log of a node that is closed."""
        return RunLog(Path(directory) / f"{_file_name(node)}.jsonl", node)


class Restarts:
    """How often a node may fall out of the run and come back."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most

    def use(self, reason: str) -> None:
        """One more time, because of that.

        Raises:
            NodeLost: that was once too often without a round between.
        """
        if self._left == 0:
            raise NodeLost(
                f"this node fell out of the run {self._most + 1} times without finishing a round "
                f"between, the last time because: {reason}"
            )
        self._left -= 1

    def reset(self) -> None:
        """A round was finished."""
        self._left = self._most


def _file_name(node: str) -> str:
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in node)
    return safe if safe == node else f"{safe}-{hashlib.sha256(node.encode()).hexdigest()[:6]}"
