"""Protocols that are broken on purpose: each function takes one promise of design §4 or §6 away."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Any

import msgspec
import pytest

from lightning_chaos.collective.actions import Finished, Landing, Verdict
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.collective.frames import Frame
from lightning_chaos.collective.operation import Operation
from lightning_chaos.collective.succession import Succession
from lightning_chaos.protocol import change, flush, islands, proposer, quorum, standing
from lightning_chaos.protocol.acceptor import Acceptor
from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.linkage import Linkage
from lightning_chaos.protocol.messages import Ack
from lightning_chaos.protocol.values import Decision, Pair, Proposal, Report, Uid, View
from lightning_chaos.worker.course import Course

Patch = pytest.MonkeyPatch

# ---- the twelve that must be caught --------------------------------------------------------------


def the_quorum_is_not_checked(patch: Patch) -> None:
    """Commit with all that can be reached, however few."""
    patch.setattr(change, "may_commit", lambda last, acks, dead: (True, "all reachable agreed"))


def a_promise_is_forgotten(patch: Patch) -> None:
    """ACK a lower ballot than was promised, or a switch round that is permitted already."""
    right = Acceptor._objection

    def objection(self: Acceptor, proposal: Proposal, epoch: int, granted: int) -> str:
        reason = right(self, proposal, epoch, granted)
        return "" if reason.startswith(("a higher ballot", "round ")) else reason

    patch.setattr(Acceptor, "_objection", objection)


def not_all_members_of_the_new_view_have_agreed(patch: Patch) -> None:
    """COMMIT once a quorum of the new view has ACKed, and decide from their reports alone."""
    right = change.Change.missing.fget
    assert right is not None

    def missing(self: change.Change) -> tuple[Uid, ...]:
        enough = quorum.has_quorum(self.proposal.view.uids, self.acks)
        return () if enough else right(self)

    def decide(reports: Mapping[Uid, Report], view: View) -> Decision:
        told = tuple(m for m in view.members if m.uid in reports)
        return flush.decide(reports, msgspec.structs.replace(view, members=told))

    patch.setattr(change.Change, "missing", property(missing))
    patch.setattr(proposer, "decide", decide)


def an_older_epoch_is_accepted(patch: Patch) -> None:
    """ACK a proposal whatever view it builds on."""
    right = Acceptor._objection

    def objection(self: Acceptor, proposal: Proposal, epoch: int, granted: int) -> str:
        reason = right(self, proposal, epoch, granted)
        return "" if reason.startswith(("it builds on", "epoch ")) else reason

    patch.setattr(Acceptor, "_objection", objection)


def a_ballot_is_reused(patch: Patch) -> None:
    """Propose another view under the number of the last one."""
    right = proposer.Proposer.propose

    def propose(self: proposer.Proposer, *given: object) -> proposer.Steps:
        self._counter -= 1
        return right(self, *given)  # type: ignore[arg-type]

    patch.setattr(proposer.Proposer, "propose", propose)


def a_silent_member_counts_as_dead(patch: Patch) -> None:
    """Whoever has said nothing for a timeout votes no more."""
    right = Evidence.tick

    def tick(self: Evidence, now: float, *rest: Any) -> list[Uid]:
        fresh = right(self, now, *rest)
        for uid in fresh:
            self.declare_dead(uid, "silent")
        return fresh

    patch.setattr(Evidence, "tick", tick)


def a_refusing_member_counts_as_dead(patch: Patch) -> None:
    """Whoever cannot be dialled again votes no more."""
    right = Evidence.unlinked

    def unlinked(self: Evidence, uid: Uid, reason: str) -> None:
        right(self, uid, reason)
        self.declare_dead(uid, reason)

    patch.setattr(Evidence, "unlinked", unlinked)


def an_ack_comes_before_the_freeze(patch: Patch) -> None:
    """ACK with the report of a worker that goes on."""
    patch.setattr(Exchange, "freeze", lambda self: None)


def half_a_round_counts_as_whole(patch: Patch) -> None:
    """Keep what one member holds of an operation, though the rest cannot be had any more."""

    def kept(reports: Mapping[Uid, Report], view: View) -> tuple[dict[int, Uid], tuple[Uid, ...]]:
        for uid in view.uids:
            if reports[uid].current is not None and reports[uid].held:
                return dict.fromkeys(reports[uid].held, uid), reports[uid].contributors
        return {}, ()

    patch.setattr(flush, "_kept_chunks", kept)


def the_last_result_is_freed_early(patch: Patch) -> None:
    """Let a result go when it is here, not when all others have it."""
    right = Succession.finish

    def finish(self: Succession, operation: Operation) -> Finished:
        finished = right(self, operation)
        self.kept = None
        return finished

    patch.setattr(Succession, "finish", finish)


def a_learner_contributes(patch: Patch) -> None:
    """A newcomer that is still pulling votes and contributes."""
    everybody = property(lambda self: tuple(m.uid for m in (*self.members, *self.learners)))
    patch.setattr(View, "uids", everybody)


def an_older_lineage_stays(patch: Patch) -> None:
    """Where two lineages meet, take the state of the one that was trained less."""
    right = islands.outranks
    patch.setattr(islands, "outranks", lambda one, other: right(other, one))


def a_worker_runs_without_a_permit(patch: Patch) -> None:
    """Begin rounds whatever the peer has promised."""
    right = Course.permit
    patch.setattr(Course, "permit", lambda self, upto: right(self, 1_000_000))


# ---- and others ---------------------------------------------------------------------------------


def half_is_enough(patch: Patch) -> None:
    """Half of the last view needs not include its oldest."""

    def has_quorum(last: tuple[Uid, ...], acks: Collection[Uid]) -> bool:
        return 2 * sum(uid in acks for uid in last) >= len(last)

    patch.setattr(quorum, "has_quorum", has_quorum)


def permits_do_not_wait(patch: Patch) -> None:
    """Go on granting rounds between the ACK of a planned change and its outcome."""
    patch.setattr(Acceptor, "blocked", None)


def what_may_be_committed_is_forgotten(patch: Patch) -> None:
    """Count the quorum over the last view installed alone."""
    patch.setattr(change.Change, "uncertain", lambda self, me, last: ())


def older_agreements_are_not_told(patch: Patch) -> None:
    """Answer with the newest proposal that was ACKed only."""
    right = Acceptor._ack

    def ack(self: Acceptor, proposal: Proposal, report: Report | None) -> Ack:
        answer = right(self, proposal, report)
        self.acked = (proposal,)
        return answer

    patch.setattr(Acceptor, "_ack", ack)


def a_frame_of_an_older_epoch_is_taken(patch: Patch) -> None:
    """Take frames of an earlier attempt for those of the present one."""
    right = Exchange.place

    def place(self: Exchange, sender: Uid, frame: Frame) -> Landing | Verdict:
        epoch = max(frame.epoch, self._views.epoch)
        return right(self, sender, msgspec.structs.replace(frame, epoch=epoch))

    patch.setattr(Exchange, "place", place)


def data_is_shared_out_too_early(patch: Patch) -> None:
    """The new view's members share out rounds that some had begun under the old one."""
    right = flush.decide

    def decide(reports: Mapping[Uid, Report], view: View) -> Decision:
        decision = right(reports, view)
        return msgspec.structs.replace(decision, data_from=decision.finished.round)

    patch.setattr(proposer, "decide", decide)


def one_end_of_a_link_costs_the_other_its_seat(patch: Patch) -> None:
    """Leave out whoever one member says it has no link to."""
    right = Evidence._apart

    def apart(
        self: Evidence, now: float, uids: Set[Uid], missing: Collection[Pair], first: Uid
    ) -> Set[Uid]:
        found = right(self, now, uids, missing, first)
        return found | (uids & self._denied.keys() - {self._me, first})

    patch.setattr(Evidence, "_apart", apart)


def a_link_is_taken_back_that_an_end_denies(patch: Patch) -> None:
    """Count on a link again without asking whether it works."""
    patch.setattr(Linkage, "back", lambda self, now, view, evidence: frozenset(view.missing))


def a_data_link_that_is_lost_is_forgotten(patch: Patch) -> None:
    """Count on a link again as soon as the worker gets on without it."""

    def settle(self: Evidence, missing: Collection[Pair]) -> None:
        self._complaints.clear()
        self._no_data.clear()

    patch.setattr(Evidence, "settle", settle)


def a_carried_message_has_no_end(patch: Patch) -> None:
    """Forward whatever comes, however many have done so before."""
    patch.setattr(standing, "MOST_HOPS", 1_000_000)
