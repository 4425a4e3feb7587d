"""What other peers say, and to which part of this one each of it goes."""

from __future__ import annotations

import msgspec

from lightning_chaos.errors import WireError
from lightning_chaos.protocol import local
from lightning_chaos.protocol.agreement import Agreement
from lightning_chaos.protocol.arrival import Arrival
from lightning_chaos.protocol.events import Level
from lightning_chaos.protocol.messages import (
    Abort,
    Accept,
    Ack,
    AnyMessage,
    AskCommit,
    Carry,
    Commit,
    FlushRequest,
    Introduce,
    JoinReady,
    JoinRequest,
    LastWord,
    LeaveRequest,
    LinkFigures,
    Nack,
    Offer,
    Prepare,
    Refuse,
    Status,
    StopRequest,
    Unreachable,
    ViewNews,
    Withdraw,
    decode,
)
from lightning_chaos.protocol.standing import Role, Standing
from lightning_chaos.protocol.survey import Survey
from lightning_chaos.protocol.values import Ballot, Proposal, Uid, View

_LEAP = 1 << 32


class Hearing:
    """Takes the messages of others in, straight or carried.

    Args:
        standing: shared with the other parts of this peer.
        arrival: for what candidates and views of strangers are about.
        agreement: for what views are agreed by.
        survey: for what others have measured.
    """

    def __init__(
        self, standing: Standing, arrival: Arrival, agreement: Agreement, survey: Survey
    ) -> None:
        self._standing = standing
        self._arrival = arrival
        self._agreement = agreement
        self._survey = survey
        self._evidence = standing.evidence

    def nothing_new(self, sender: Uid, message: AnyMessage) -> bool:
        """A heartbeat that tells a member no more than the one before but the round; it is noted.

        Most of what comes in is that; what depends on others' rounds can wait for the next tick.
        """
        standing, view = self._standing, self._standing.view
        if not isinstance(message, Status) or standing.role is not Role.MEMBER or view is None:
            return False
        before = standing.statuses.get(sender)
        if before is None or self._evidence.silent(sender) or message.epoch != view.epoch:
            return False
        standing.statuses[sender] = message
        if not self._evidence.told(sender, message.unreachable):
            return False
        self._evidence.spoke(sender)
        return (before.epoch, before.finished) == (message.epoch, message.finished)

    def hear(self, sender: Uid, message: AnyMessage) -> None:
        """Give it to the part that it is for."""
        match message:
            case Status():
                self._on_status(sender, message)
            case ViewNews(view=view) if self._fit(sender, view):
                self._arrival.news(sender, view)
            case Offer() | Accept() | Withdraw():
                self._arrival.heard(sender, message)
            case Introduce(members=members):
                self._arrival.introduced(members)
            case Refuse(reason=reason, setting=setting):
                if self._standing.role is Role.NEWCOMER:
                    self._standing.role = Role.OUT
                    self._standing.tell(local.Refused(reason, setting))
            case JoinRequest() | JoinReady() | LeaveRequest() | FlushRequest():
                if self._standing.active:
                    self._on_request(sender, message)
            case Unreachable(epoch=epoch, uids=uids):
                self._on_unreachable(sender, epoch, uids)
            case LastWord(uid=uid, reason=reason):
                self._on_last_word(sender, uid, reason)
            case Prepare() if self._may_propose(sender, message.proposal):
                self._agreement.on_prepare(sender, message)
            case Ack():
                self._agreement.on_ack(sender, message)
            case Nack() if not self._leaps(message.promised):
                self._agreement.on_nack(sender, message)
            case Commit() if self._fit(sender, message.proposal.view):
                self._on_commit(sender, message)
            case Abort(ballot=ballot):
                self._standing.acceptor.abort(ballot)
            case AskCommit(epoch=epoch):
                self._agreement.pass_commit(sender, epoch)
            case LinkFigures():
                self._survey.hear(sender, message)
            case Carry():
                self._on_carry(sender, message)
            case StopRequest(reason=reason):
                self._standing.tell(local.Stop(reason))
            case _:
                pass

    def _fit(self, sender: Uid, view: View) -> bool:
        """Nobody can work by a view whose plan does not serve its members."""
        if any(p.view == view for p in self._standing.acceptor.acked):
            return True  # it was looked at when it was agreed to
        if view.plan_problem is None:
            return True
        text = f"{sender} tells a view that is none: {view.plan_problem}"
        self._standing.log(text, Level.WARNING)
        return False

    def _may_propose(self, sender: Uid, proposal: Proposal) -> bool:
        """Of those who build on the view installed here, only its members propose."""
        view = self._standing.view
        if proposal.ballot.proposer != sender or self._leaps(proposal.ballot):
            return False
        return view is None or proposal.base != view.epoch or view.rank(sender) is not None

    def _leaps(self, ballot: Ballot) -> bool:
        """No run gets there: who took it for a promise could hardly count on from it."""
        return ballot.counter - self._standing.acceptor.promised.counter > _LEAP

    def _on_carry(self, hop: Uid, carry: Carry) -> None:
        """Take in what is for this peer; pass on what is not."""
        standing = self._standing
        if carry.origin == standing.me.uid:
            return
        within = standing.view.everybody if standing.view is not None else ()
        if not standing.routes.came(carry.origin, hop, within):
            return
        if carry.to != standing.me.uid:
            further = standing.hop(carry.to)
            if further is not None and further != hop and carry.hops > 1:
                standing.pass_on(further, msgspec.structs.replace(carry, hops=carry.hops - 1))
            return
        try:
            message = decode(carry.content)
        except WireError as error:
            standing.log(f"{hop} passed on what is no message: {error}", Level.WARNING)
            return
        if not isinstance(message, Carry):
            self._evidence.carried(standing.now, carry.origin)
            self.hear(carry.origin, message)

    def _on_request(
        self, sender: Uid, message: JoinRequest | JoinReady | LeaveRequest | FlushRequest
    ) -> None:
        wishes = self._agreement.lead.drafts.wishes
        match message:
            case JoinRequest(member=member, unreachable=uids) if member.uid == sender:
                self._evidence.others_say(self._standing.now, member.uid, uids)
                wishes.join(self._standing.now, message)
            case JoinReady(round=round_):
                wishes.learner_ready(sender, round_)
            case LeaveRequest(uid=uid) if uid == sender:
                wishes.leave(uid)
            case FlushRequest(epoch=epoch, reason=reason):
                view = self._standing.view
                if view is not None and epoch == view.epoch:
                    self._agreement.lead.want_flush(reason)

    def _on_status(self, sender: Uid, status: Status) -> None:
        standing, view = self._standing, self._standing.view
        standing.statuses[sender] = status
        outside = (Role.SEARCHING, Role.NEWCOMER, Role.LEARNER)
        if status.finished >= 0 and standing.role in outside:
            standing.role = Role.OUT
            standing.tell(local.RunOver(status.finished))
        elif view is not None and view.find(sender) is None and standing.islands.has(sender):
            return  # its epochs are of another lineage
        elif view is not None and status.epoch > view.epoch:
            standing.send(sender, AskCommit(status.epoch))
        else:
            self._on_unreachable(sender, status.epoch, status.unreachable)

    def _on_unreachable(self, sender: Uid, epoch: int, uids: tuple[Uid, ...]) -> None:
        view = self._standing.view
        if view is not None and epoch == view.epoch:
            self._evidence.spoke(sender)
            self._evidence.others_say(self._standing.now, sender, uids)

    def _on_commit(self, sender: Uid, commit: Commit) -> None:
        view = commit.proposal.view
        if self._standing.view is None or (self._standing.foreign(view) and not self._admits(view)):
            self._arrival.news(sender, view)
        else:
            self._agreement.install(self._as_agreed(commit))

    def _as_agreed(self, commit: Commit) -> Commit:
        """The same, with the view that was agreed to: what follows from it is worked out."""
        for proposal in self._standing.acceptor.acked:
            if proposal == commit.proposal:
                return msgspec.structs.replace(commit, proposal=proposal)
        return commit

    def _admits(self, view: View) -> bool:
        """A view of another lineage that gives this newcomer a place."""
        return self._standing.role is Role.NEWCOMER and view.find(self._standing.me.uid) is not None

    def _on_last_word(self, sender: Uid, uid: Uid, reason: str) -> None:
        if uid == self._standing.me.uid:
            return
        known = uid in self._evidence.dead
        self._evidence.declare_dead(uid, reason)
        if sender == uid and not known:
            self._standing.log(f"{uid} said its last word: {reason}")
            # Not everybody may have heard it, and it cannot be asked again.
            for other in self._standing.linked:
                if other != uid:
                    self._standing.send(other, LastWord(uid, reason))
