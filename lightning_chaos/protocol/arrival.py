"""How a peer gets to know the run: it founds it, or is told its view (design §4, founding)."""

from __future__ import annotations

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol import local
from lightning_chaos.protocol.events import Connect, Searched
from lightning_chaos.protocol.founding import Founding
from lightning_chaos.protocol.messages import (
    Accept,
    AskCommit,
    Introduce,
    Offer,
    ViewNews,
    Withdraw,
)
from lightning_chaos.protocol.standing import START_ADVICE, Role, Standing
from lightning_chaos.protocol.values import Lineage, Member, Uid, View

PATIENCE = 10
"""How long somebody who must answer may not, in timeouts."""


class Arrival:
    """From the search to the first view known; later, news of views that passed by this peer.

    Args:
        standing: shared with the other parts of this peer.
        min_members: acceptances that a founder needs when candidates meet.
        base_epoch: last epoch this node knew.
        generation: of a view that it founds.
        start_timeout_s: longest time that candidates wait for each other, seconds.
        guarded: who has won among candidates founds only when a search says that nobody else can.
    """

    def __init__(
        self,
        standing: Standing,
        min_members: int,
        base_epoch: int,
        generation: int,
        start_timeout_s: float,
        *,
        guarded: bool,
    ) -> None:
        self._standing = standing
        self._founding = Founding(standing.me, min_members)
        self._min_members = min_members
        self._base_epoch = base_epoch
        self._generation = generation
        self._start_timeout_s = start_timeout_s
        self._guarded = guarded
        self._began_at: float | None = None
        self._silent: tuple[str, ...] = ()
        self._problem_at: float | None = None
        self._asked_at = float("-inf")
        self._alone_since: float | None = None
        self._yields: tuple[str, float] | None = None
        """For which lineage it will drop out, and since when, once somebody there is heard."""

    def met(self, member: Member) -> None:
        """A link came up."""
        standing = self._standing
        if standing.role is Role.SEARCHING and member.port != 0:
            standing.do_all(self._founding.met(member))
            if self._min_members > 1:
                self._introduce(member)

    def _introduce(self, member: Member) -> None:
        """Candidates that were told of one in common must meet, too."""
        standing = self._standing
        others = [m for m in self._others if m.uid != member.uid]
        if others:
            standing.send(member.uid, Introduce(tuple(others)))
        for other in others:
            standing.send(other.uid, Introduce((member,)))

    def introduced(self, members: tuple[Member, ...]) -> None:
        """Others that may found the run, or are in it."""
        standing = self._standing
        if standing.role is Role.SEARCHING:
            new = (m for m in members if m.uid not in standing.linked and m.uid != standing.me.uid)
            standing.do_all(Connect(member) for member in new)

    def lost(self, uid: Uid) -> None:
        """A link went down."""
        if self._standing.role is Role.SEARCHING:
            self._standing.do_all(self._founding.lost(uid))

    def heard(self, sender: Uid, message: Offer | Accept | Withdraw) -> None:
        """Another candidate speaks."""
        if self._standing.role is Role.SEARCHING:
            self._standing.do_all(self._founding.heard(sender, message))

    @property
    def acceptors(self) -> frozenset[Uid]:
        """See :attr:`Founding.acceptors`."""
        return self._founding.acceptors

    @property
    def _others(self) -> list[Member]:
        """Everybody linked but visitors, who have no door."""
        return [m for m in self._standing.linked.values() if m.port != 0]

    @property
    def waiting(self) -> str:
        """What a candidate waits for, for people; '' for nothing."""
        standing = self._standing
        if standing.role is not Role.SEARCHING or self._min_members == 1 or self._began_at is None:
            return ""
        names = sorted(m.node for m in (standing.me, *self._others))
        here = f"({', '.join(names)})"
        if len(names) >= self._min_members:
            return f"{len(names)} nodes are here and agree who founds the run {here}"
        text = f"{len(names)} of {self._min_members} nodes are here to found the run {here}"
        return f"{text}; nobody answers at {', '.join(self._silent)}" if self._silent else text

    @property
    def hint(self) -> str:
        """How long it waits."""
        return f"giving up after {self._start_timeout_s:g} s"

    def searched(self, found: Searched) -> None:
        """Discovery has tried every address it knows."""
        standing, exclusive = self._standing, found.exclusive
        if standing.role is not Role.SEARCHING:
            return
        self._silent = found.silent
        if self._began_at is None:
            self._began_at = standing.now
        if found.problem:
            self._give_up(found.problem)
        elif exclusive and (self._founding.won or not self._others):
            self._found()
        elif exclusive:
            # Whoever is linked is of the run and will tell its view; if not, that is a problem.
            self._problem_at = standing.now + PATIENCE * standing.timeout_s
        else:
            standing.do_all(self._founding.open())

    def check(self) -> None:
        """This candidate may have won."""
        if self._standing.role is Role.SEARCHING and self._founding.won and not self._guarded:
            self._found()

    def tick(self) -> None:
        """See that the search, and the stay outside the view, come to an end."""
        if self._standing.role is Role.SEARCHING:
            self._check_search()
        elif self._standing.role in (Role.NEWCOMER, Role.LEARNER, Role.LEAVING):
            self._check_contact()

    def _check_search(self) -> None:
        """Say again what may have been lost, and ask who showed a view; give up in the end."""
        standing = self._standing
        if standing.now - self._asked_at >= standing.timeout_s:
            self._asked_at = standing.now
            standing.do_all(self._founding.again())
            for uid, status in standing.statuses.items():
                if status.epoch > 0:
                    standing.send(uid, AskCommit(status.epoch))
        if self._began_at is not None and standing.now - self._began_at > self._start_timeout_s:
            what = self.waiting or "no run was found"
            self._give_up(f"waited {self._start_timeout_s:g} s: {what}. {START_ADVICE}")
        elif self._problem_at is not None and standing.now > self._problem_at:
            names = ", ".join(m.node for m in standing.linked.values())
            self._give_up(f"{names or 'nobody'} answered but told no view; end it or use CHAOS_RUN")

    def _check_contact(self) -> None:
        """All members that one outside the view knew may have gone, and nobody tells it more."""
        standing = self._standing
        dead = standing.evidence.dead
        here = standing.linked.keys() - dead.keys()
        if standing.view is None or not here.isdisjoint(standing.view.uids):
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = standing.now
        elif standing.now - self._alone_since > PATIENCE * standing.timeout_s:
            standing.drop_out("none of the members that it knew can be reached")

    def news(self, sender: Uid, view: View) -> None:
        """Somebody says which view is installed there."""
        standing = self._standing
        if view.run != standing.run:
            return
        if standing.role is Role.SEARCHING:
            self._find(view)
        elif standing.view is None:
            return
        elif standing.foreign(view):
            self._meet(sender, view)
        elif view.epoch <= standing.view.epoch:
            return
        elif standing.role is Role.NEWCOMER:
            standing.view = view
            standing.connect_all(view)
            self._pass_on(view)
        elif view.find(standing.me.uid) is not None:
            standing.send(sender, AskCommit(view.epoch))
        elif standing.role in (Role.MEMBER, Role.LEARNER):
            standing.drop_out(f"the run went on without this node in epoch {view.epoch}", view)

    def _meet(self, sender: Uid, view: View) -> None:
        """Somebody is of another lineage: founded apart, or an island."""
        standing, mine = self._standing, self._standing.view
        assert mine is not None
        first = view.lineage.name not in standing.islands.known
        if not standing.islands.hear(view):
            return
        if standing.role is Role.NEWCOMER:
            self._pass_on(view)  # perhaps it alone knows both
            alike = view.worth == mine.worth and view.epoch > mine.epoch
            if view.worth > mine.worth or alike:
                standing.view = view
                standing.connect_all(view)
        elif standing.role in (Role.LEARNER, Role.LEAVING):
            # Whom it works with may have gone on there, and it cannot know who has not.
            shared = any(mine.find(uid) is not None for uid in view.uids)
            if shared or (standing.role is Role.LEARNER and view.worth > mine.worth):
                standing.drop_out(f"{view.lineage.story} goes on in epoch {view.epoch}", view)
        elif standing.role is Role.MEMBER:
            if first:
                standing.log(f"met {view.lineage.story}: epoch {view.epoch}")
            standing.connect_all(view)
            if mine.find(sender) is None:
                standing.ask_members(ViewNews(view))

    def check_islands(self) -> None:
        """Give this lineage up for one that is better beyond doubt, and still there."""
        standing, mine = self._standing, self._standing.view
        if standing.role is not Role.MEMBER or mine is None or not standing.islands.known:
            return
        agreed = [p.view for p in standing.acceptor.acked]
        paused = standing.samples if not standing.alone and standing.lacks_quorum else None
        view = standing.islands.better(mine, agreed, standing.linked, paused)
        if view is None:
            self._yields = None
            return
        if self._yields is None or self._yields[0] != view.lineage.name:
            self._yields = view.lineage.name, standing.now
        sure = self._yields[1] + standing.timeout_s / 4
        if any(standing.evidence.heard_at(uid) >= sure for uid in view.uids):
            samples = max(view.worth[1], 0)
            standing.drop_out(f"{view.lineage.story} stays, it has {samples} samples", view)

    def _find(self, view: View) -> None:
        standing = self._standing
        standing.role, standing.view = Role.NEWCOMER, view
        round_ = max((s.round for s in standing.statuses.values()), default=-1)
        standing.log(f"found the run in epoch {view.epoch}, members: {len(view.members)}")
        standing.tell(local.Standing(standing.me, True, view, round_))
        standing.connect_all(view)
        self._pass_on(view)

    def _pass_on(self, view: View) -> None:
        """Tell those who have no part in it: perhaps the run went on without them."""
        for uid in self._standing.linked:
            if view.find(uid) is None:
                self._standing.send(uid, ViewNews(view))

    def _found(self) -> None:
        standing = self._standing
        told = max(m.past.told for m in (standing.me, *standing.linked.values()))
        view = View(
            standing.run,
            self._generation,
            self._base_epoch + 1,
            (standing.me,),
            (),
            0,
            mesh_plan((standing.me.uid,)),
            lineage=Lineage(standing.me.uid),
        )
        standing.view, standing.role = view, Role.MEMBER
        standing.log("founded the run")
        standing.tell(local.Standing(standing.me, False, view, -1, told))
        standing.send_all(ViewNews(view))

    def _give_up(self, reason: str) -> None:
        standing = self._standing
        standing.role = Role.OUT
        standing.tell(local.Refused(reason))
        for uid in list(standing.linked):  # no candidate may wait for this one's offer
            standing.hang_up(uid, reason)
