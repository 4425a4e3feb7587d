"""What training sees of its node: one object with plain, blocking calls.

Every call here is made by the training thread; it waits on the side of the I/O thread, where the
present :class:`Station` lives and every wait has its own bound or is ended by a view change.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.protocol.local import AskSeat, Slow, Standing
from lightning_chaos.protocol.messages import Fingerprint
from lightning_chaos.protocol.values import Member, OpId, Past, Uid, View
from lightning_chaos.replication.image import StateImage
from lightning_chaos.replication.values import Progress, Pulled
from lightning_chaos.transport.dial import Dialler, dial_tcp
from lightning_chaos.transport.door import open_door
from lightning_chaos.worker import between, ending, joining
from lightning_chaos.worker.chronicle import run_log_of
from lightning_chaos.worker.incarnations import Incarnations
from lightning_chaos.worker.outfit import Wiring
from lightning_chaos.worker.restarts import Restarts
from lightning_chaos.worker.sequence import OperationSequence
from lightning_chaos.worker.settlement import Settled, settle
from lightning_chaos.worker.station import Station
from lightning_chaos.worker.turns import Hold, Turn


class Node(OperationSequence):
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
        ConfigError: the run log cannot be written.
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
        self._wiring = Wiring(
            dialler=dialler,
            dial_tls=dial_tls,
            accept_tls=accept_tls,
            rate_bytes_per_s=rate_bytes_per_s,
        )
        with ExitStack() as opened:
            door = opened.enter_context(open_door(config.host, port))
            self._run_log = run_log_of(run_log, config.node)
            opened.callback(self._run_log.close)
            life = Incarnations(config, door, self._wiring, self._run_log, self._note_stop)
            opened.pop_all()
        super().__init__(life)
        self._rates: dict[str, float] = {}
        """Of links from other nodes, bytes/s, as earlier pulls have shown them."""
        self._in_step = False
        self.stop_asked = ""
        """Why somebody asked the whole run to end, '' if nobody did."""

    def _note_stop(self, reason: str) -> None:
        self.stop_asked = reason

    # ---- life ------------------------------------------------------------------------------

    def open(self) -> Standing:
        """Found the run or find it.

        Raises:
            JoinError: neither was possible.
            RunFinished: the run is over.
        """
        return self._life.open()

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
        return self._life.open_again(past, restarts)

    def close(self, reason: str = "the worker ends") -> None:
        """Say goodbye and give back every thread, process and socket; may be called twice."""
        self._life.close(reason)

    # ---- what is known ---------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The newest view this node knows."""
        return self._station.course.view

    @property
    def uid(self) -> Uid:
        """This incarnation."""
        return self._station.outfit.me.uid

    @property
    def apart(self) -> str:
        """Why this node is not in the run, '' if it is (or has not joined yet)."""
        return self._station.apart

    @property
    def in_step(self) -> bool:
        """Collective operations go to the other members; else they are this node's own."""
        return self._in_step and not self._station.apart

    @contextmanager
    def out_of_step(self) -> Iterator[None]:
        """What is asked of all members meanwhile is this node's own: only it is busy with that."""
        before, self._in_step = self._in_step, False
        try:
            yield
        finally:
            self._in_step = before

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
        self._life.tell(lambda station: station.tell_peer(AskSeat(fingerprint, at_round, samples)))

    def turn(self, samples: int = 0) -> Turn:
        """What may be done at the begin of the next round; waits until it is known.

        Args:
            samples: committed by all rounds so far, over all data epochs.
        """
        return self._life.call(between.turn(self._station, self._round + 1, samples))

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
        self._life.call(between.hold(self._station, hold, image, self._round + 1))

    def settle(self, image: StateImage | None, trusted: Collection[Uid]) -> Settled | None:
        """Compare states with the other members; who differs pulls what is right.

        Args:
            image: this member's state, None if it cannot be laid out; then it is not compared.
            trusted: who may be right; anybody if empty.

        Returns:
            None when this node has fallen out of the run.
        """

        async def pull(donors: Collection[Member]) -> Pulled:
            return await joining.pull_from(
                self._station, self._wiring, donors, image, self._rates, lambda _: None
            )

        return self._life.call(settle(self._station, image, trusted, self._next_op, pull))

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
        view = self._life.call(joining.learn(self._station))
        work = joining.pull_state(self._station, self._wiring, view, held(), self._rates, show)
        pulled = self._life.call(work)
        self._round = view.switch - 1
        return pulled

    def take_seat(self, last: OpId) -> None:
        """The state is in place: become a member.

        Raises:
            JoinError: the run has lost this node again.
        """
        self._life.call(joining.take_seat(self._station, self.view, last))

    def ask_to_leave(self) -> None:
        """Ask to be planned out; safe in a signal handler."""
        self._life.leave()

    def tell_slow(self, uids: Sequence[Uid]) -> None:
        """Who is slow, for whoever asks this node's peer for the status."""
        said = Slow(tuple(uids))
        self._life.tell(lambda station: station.tell_peer(said))

    def give_seat_back(self) -> None:
        """Ask to be planned out, to come again as another incarnation."""
        self._life.tell(Station.leave)

    def part(self) -> None:
        """Left as planned: wait until the others have let go."""
        self._in_step = False
        self._life.call(ending.part_from_others(self._station))

    def finish(self, final: dict[str, Any]) -> None:
        """Training is over here after the present round; wait for the others.

        Args:
            final: what the run log says of the end, once the last round is stable.
        """
        self._in_step = False
        self._life.call(ending.finish(self._station, self._round, final))
