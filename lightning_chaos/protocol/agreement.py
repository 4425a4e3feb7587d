"""One peer's part in a view change: it answers, proposes, commits, installs (design §4)."""

from __future__ import annotations

from lightning_chaos.protocol import local
from lightning_chaos.protocol.events import Level
from lightning_chaos.protocol.lead import Lead
from lightning_chaos.protocol.messages import (
    Ack,
    AskCommit,
    Commit,
    LastWord,
    Nack,
    Prepare,
    Refuse,
    Unreachable,
    ViewNews,
)
from lightning_chaos.protocol.requests import Requests
from lightning_chaos.protocol.standing import Role, Standing
from lightning_chaos.protocol.survey import Survey
from lightning_chaos.protocol.values import Ballot, Uid, View


class Agreement:
    """From PREPARE to the installed view.

    Args:
        standing: shared with the other parts of this peer.
        requests: of this node; a view may grant them.
    """

    def __init__(self, standing: Standing, requests: Requests) -> None:
        self._standing = standing
        self._requests = requests
        self.lead = Lead(standing.me.uid, standing.timeouts, alone=standing.alone)
        self.survey = Survey(standing, self.lead.drafts.replanning)
        """What is measured of the links, for plans."""
        self.leaves_at: int | None = None
        """Round from which on this leaver has no part any more."""
        self._told: tuple[Uid, ...] = ()
        """To whom this peer had no link when its worker was told last."""
        self._speaks: dict[Uid, float] = {}
        """Since when newer incarnations of these have been speaking."""
        self._freezes = self._answers = 0
        """So often the worker was told to freeze, and has answered."""
        self._settled = 0
        """So often it had been told to when the last view was installed."""

    # ---- answers ---------------------------------------------------------------------------

    def on_prepare(self, sender: Uid, message: Prepare) -> None:
        """Somebody proposes a view."""
        standing = self._standing
        if standing.view is None or standing.role in (Role.SEARCHING, Role.NEWCOMER, Role.OUT):
            return
        epoch = standing.view.epoch
        if message.proposal.base < epoch:
            self.pass_commit(sender, epoch)
        elif message.proposal.base > epoch:
            standing.send(sender, AskCommit(message.proposal.base))
        acceptor = standing.acceptor
        was_freezing = acceptor.frozen
        answer = acceptor.prepare(standing.now, message, epoch, standing.permits.granted)
        if answer is not None:
            standing.send(sender, answer)
        elif not was_freezing:
            self._freeze(message.proposal.ballot)

    def _freeze(self, ballot: Ballot) -> None:
        self._freezes += 1
        self._standing.tell(local.Freeze(ballot))

    def on_frozen(self, said: local.Frozen) -> None:
        """The worker is frozen: whoever waits for that gets its answer.

        Unless a view has been installed since it was told to: that view has let it go.
        """
        self._answers += 1
        if self._answers <= self._settled:
            return
        waiting = self._standing.acceptor.freezing
        answer = self._standing.acceptor.frozen_with(said.report)
        if waiting is not None and answer is not None:
            self._standing.send(waiting.proposal.ballot.proposer, answer)

    def check_freeze(self) -> None:
        """A worker that does not freeze costs the node its seat."""
        standing, since = self._standing, self._standing.acceptor.since
        if standing.role is Role.OUT or standing.acceptor.freezing is None or since is None:
            return
        if standing.now - since > standing.worker_timeout_s:
            standing.resign(f"the worker did not freeze within {standing.worker_timeout_s:g} s")

    def on_ack(self, sender: Uid, ack: Ack) -> None:
        """A member agrees."""
        self.lead.proposer.on_ack(sender, ack)

    def on_nack(self, sender: Uid, nack: Nack) -> None:
        """A member does not agree."""
        standing = self._standing
        standing.log(f"{sender} does not agree: {nack.reason}", Level.DEBUG)
        if standing.view and nack.epoch < standing.view.epoch:
            self.pass_commit(sender, standing.view.epoch)
        self.lead.proposer.on_nack(sender, nack)

    def pass_commit(self, to: Uid, epoch: int) -> None:
        """Pass on what is installed here to one who lacks it."""
        standing = self._standing
        view = standing.view
        if view is not None and view.epoch >= epoch and standing.role is not Role.NEWCOMER:
            standing.send(to, standing.commit or ViewNews(view))

    # ---- a view ----------------------------------------------------------------------------

    def install(self, commit: Commit) -> None:
        """Take over a committed view; one that is known already changes nothing."""
        standing = self._standing
        view, old = commit.proposal.view, standing.view
        assert old is not None
        known = view.epoch <= old.epoch and standing.role is not Role.NEWCOMER
        if view.run != standing.run or known or view.epoch < old.epoch:
            return
        if commit.proposal.base > old.epoch and standing.role in (Role.LEARNER, Role.LEAVING):
            # Nobody waits for its ACK, so it may have missed a view that did operations again
            # without it: then it cannot know what its own state is worth.
            standing.drop_out(f"it missed what came between epoch {old.epoch} and {view.epoch}")
            return
        standing.view, standing.commit = view, commit
        recovered = commit.decision is not None
        stays_frozen = standing.acceptor.frozen and not recovered
        self._settled = self._freezes
        standing.acceptor.installed(view.epoch)
        reason = commit.proposal.reason
        since = f" from round {view.switch}" if commit.proposal.planned else ""
        standing.log(f"epoch {view.epoch}{since}: {_names(view)} ({reason})")
        entered = self._enter(view, commit)  # the worker waits; the rest is for this peer alone
        self.lead.installed(standing.now, view, old)
        self.survey.installed(view)
        self._requests.installed(view, old, recovered=recovered)
        if stays_frozen or standing.acceptor.frozen:
            # For a change that came to nothing, or a later one that most likely will.
            self._requests.flush("a worker was frozen for a change that came to nothing")
        if view.uids[0] != old.uids[0]:
            standing.evidence.lead_changed()
        standing.said_unreachable = self._known_to_lead(view, old)
        within = (*view.everybody, *self._requests.leavers)
        standing.evidence.keep_only(within)
        standing.routes.keep_only(within)
        standing.forget_strangers()
        if entered:
            if standing.acceptor.frozen:
                # A later change that it was frozen for may be committed: what it reported holds.
                self._freeze(standing.acceptor.promised)
            standing.connect_all(view)
            self._tell_strangers(view, old, commit)

    def _enter(self, view: View, commit: Commit) -> bool:
        """Take the role this view gives; False if there is nothing new to do for the worker."""
        standing, me = self._standing, self._standing.me.uid
        if view.rank(me) is not None:
            if standing.role is Role.LEARNER:
                standing.permits.enter(view.switch)
            standing.role = Role.MEMBER
        elif view.find(me) is not None and standing.role is not Role.MEMBER:
            if standing.role is Role.NEWCOMER:
                self._requests.learns()
            standing.role = Role.LEARNER
        elif standing.role is Role.MEMBER and self._requests.leaving and commit.proposal.planned:
            standing.role, self.leaves_at = Role.LEAVING, view.switch
        elif standing.role is Role.LEAVING and commit.proposal.planned:
            return False  # its last round has been named, and stays
        elif standing.role is Role.NEWCOMER:
            standing.connect_all(view)
            return False
        else:
            standing.drop_out(commit.proposal.reason)
            return False
        standing.tell(local.Install(view, commit.decision, commit.proposal.reason))
        return True

    def _tell_strangers(self, view: View, old: View, commit: Commit) -> None:
        standing = self._standing
        for uid in standing.linked:
            if view.find(uid) is None:
                standing.send(uid, commit if old.find(uid) is not None else ViewNews(view))

    def check_superseded(self) -> None:
        """A newer incarnation of a node speaks: older ones vote no more.

        That counts only after a while, for they may have voted before: the node that comes back
        may be about to hear, and to pass on, with whom its older incarnation had gone on.
        """
        standing, view = self._standing, self._standing.view
        if view is None:
            return
        speaks, dead = dict[Uid, float](), standing.evidence.dead
        newest: dict[str, int] = {}
        for member in standing.linked.values():
            newest[member.node] = max(member.incarnation, newest.get(member.node, 0))
        for old in (*view.members, *view.learners):
            if old.uid == standing.me.uid or old.uid in standing.linked:
                continue
            if newest.get(old.node, 0) > old.incarnation:
                since = speaks[old.uid] = self._speaks.get(old.uid, standing.now)
                late = standing.now - since > standing.timeout_s
                # Who can be reached lives: two nodes have been given one name.
                if late and old.uid not in dead and not standing.reaches(old.uid):
                    reason = "a newer incarnation of it speaks"
                    standing.evidence.declare_dead(old.uid, reason)
                    # Those who wait for it may have no link to where it is now.
                    standing.send_all(LastWord(old.uid, reason))
        self._speaks = speaks

    # ---- leading ---------------------------------------------------------------------------

    def say_unreachable(self, view: View) -> None:
        """Tell the lead, and who would lead next, to whom this peer has no link, when that changes.

        The others hear it with the next heartbeat; but if it is the lead, perhaps one of them must
        lead now: then all are told at once, and the lead through them.
        """
        standing = self._standing
        uids = view.everybody
        mine = standing.evidence.no_link(uids)
        before = standing.said_unreachable
        if mine == before:
            return
        standing.said_unreachable = mine
        lead = view.uids[0]
        later = {u for u in mine if u not in self._told and not standing.routes.direct(u)} - {lead}
        if mine != self._told:
            reasons = {uid: standing.evidence.why(uid) for uid in mine}
            for uid in mine:
                if uid not in self._told:
                    standing.log(f"no link to {uid}: {reasons[uid]}")
            standing.tell(local.NoLink(reasons))
            self._told = mine
        standing.evidence.others_say(standing.now, standing.me.uid, mine)
        if mine or before:
            said = Unreachable(view.epoch, mine)
            me, direct = standing.me.uid, standing.routes.direct
            near = [uid for uid in view.uids if uid == me or direct(uid)][:2]
            all_hear = lead in mine or lead in (before or ())
            for uid in uids if all_hear else dict.fromkeys((lead, *near)):
                if uid != me and uid not in later:
                    standing.send(uid, said)

    def _known_to_lead(self, view: View, old: View) -> tuple[Uid, ...] | None:
        """What was said under the last view, if this one shows that its lead had heard it."""
        standing = self._standing
        said, me = standing.said_unreachable, standing.me.uid
        if said is None or not view.everybody <= old.everybody:
            return None
        left = tuple(uid for uid in said if uid in view.everybody)
        if any(view.joins(me, uid) for uid in left):
            return None
        standing.evidence.others_say(standing.now, me, left)
        return left

    def run_lead(self) -> str:
        """Propose, commit or wait, as the lead's rules say; several steps may follow at once.

        Returns:
            What an open change waits for, for people.
        """
        standing = self._standing
        for _ in range(8):
            if standing.view is None or not standing.active:
                return ""
            steps = self.lead.next_steps(
                standing.now,
                standing.view,
                evidence=standing.evidence,
                acceptor=standing.acceptor,
                permits=standing.permits,
                reaches=standing.reaches,
                islands=standing.islands,
                samples=standing.samples,
            )
            if self.lead.proposer.resigns:
                standing.resign("it lacks results that nobody holds any more")
                return ""
            if not steps:
                break
            for to, message in steps:
                standing.send(to, message)
                if isinstance(message, Refuse):
                    standing.hang_up(to, message.reason)
        return self.lead.proposer.waiting


def _names(view: View) -> str:
    names = ", ".join(m.node for m in view.members)
    learners = ", ".join(m.node for m in view.learners)
    return f"{names}; {learners} learning" if learners else names
