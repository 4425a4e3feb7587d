"""What the next view would be: without those lost, or with what has been asked for (design §4)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.islands import without
from lightning_chaos.protocol.linkage import Linkage, joined, told
from lightning_chaos.protocol.messages import Fingerprint, Refuse
from lightning_chaos.protocol.permits import Permits
from lightning_chaos.protocol.replanning import Replanning, plan_after
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Lineage, Member, Pair, Uid, View, pair_of
from lightning_chaos.protocol.wishes import Plan, Wishes


class Drafts:
    """Views that this member would propose if it led now.

    Args:
        me: this member.
        timeouts: longest silence tolerated.
        alone: a side without a quorum goes on alone: views tell whom they went on without.
    """

    def __init__(self, me: Uid, timeouts: Timeouts, *, alone: bool) -> None:
        self.wishes = Wishes(me, timeouts)
        """What nodes have asked for."""
        self.linkage = Linkage(timeouts)
        """Which links are given up and taken back."""
        self.replanning = Replanning(timeouts)
        """Whether there is a better plan."""
        self.fingerprint: Fingerprint | None = None
        """Settings of this node's worker, to compare newcomers with."""
        self._me = me
        self._alone = alone
        self._entered = -1
        """First round of the members that came with the view, -1 if none did."""

    def installed(self, now: float, view: View, old: View) -> None:
        """A view is installed: what it settles is settled."""
        self._entered = -1 if view.seated <= old.seated else view.switch
        self.wishes.installed(now, view)
        self.linkage.installed(now, view, old)
        self.replanning.installed(now, view, old)

    # ---- unplanned -------------------------------------------------------------------------

    def left(
        self,
        view: View,
        lost: Mapping[Uid, str],
        cut: Collection[Pair],
        learners: Collection[Uid],
        evidence: Evidence,
    ) -> tuple[tuple[Member, ...], tuple[Member, ...], tuple[Pair, ...]]:
        """Members and learners that are left, and the links that are not."""
        members = tuple(m for m in view.members if m.uid not in lost) if lost else view.members
        learning = tuple(m for m in view.learners if m.uid in learners)
        gone = {*view.missing, *cut}
        if joined(self._me, members, gone) != members:
            # Not even a link that may fail again can be done without.
            gone = {p for p in view.missing if evidence.denied(p)} | {*cut}
            members = joined(self._me, members, gone)
        return members, learning, told(gone, members, learning)

    def without(
        self,
        view: View,
        lost: Mapping[Uid, str],
        cut: Collection[Pair],
        learners: Collection[Uid],
        evidence: Evidence,
    ) -> View:
        """The view that goes on without those lost, over the links that are left."""
        members, learning, missing = self.left(view, lost, cut, learners, evidence)
        plan = plan_after(view, tuple(m.uid for m in members), missing)
        epoch = view.epoch + 1
        lineage = view.lineage
        if self._alone:
            left = [m for m in (*view.sought, *view.members) if m not in members]
            lineage = without(lineage, left)
        return View(
            *(view.run, view.generation, epoch, members, learning, view.switch, plan, missing),
            lineage=lineage,
        )

    # ---- planned ---------------------------------------------------------------------------

    def planned(
        self,
        now: float,
        view: View,
        *,
        gone: set[Uid],
        cut: Collection[Pair],
        permits: Permits,
        least_switch: int,
        reaches: Callable[[Uid], bool],
        evidence: Evidence,
        lineage: Lineage,
    ) -> Plan | list[tuple[Uid, Refuse]] | None:
        """The change that grants what is asked for, or whom to refuse first; None for nothing.

        Args:
            now: seconds.
            view: installed.
            gone: learners that are lost.
            cut: links that are lost.
            permits: of this node's worker.
            least_switch: no round before this one can be its first.
            reaches: whether that one can be reached.
            evidence: what is known of the links.
            lineage: of the new view.
        """
        refusals, joining = self.wishes.admissible(now, view, reaches, self.fingerprint)
        if refusals:
            return refusals
        known = permits.granted
        if permits.begun >= 0:
            # Newcomers have a permit for their first round before others get there.
            known = max(known, self._entered) + 1
        # Never below an earlier view's: those that wait for their round are taken in order.
        switch = max(view.switch, known + 1, least_switch)
        kept = set(view.missing) - self.linkage.back(now, view, evidence)
        never = {
            pair_of(m.uid, uid) for m in joining for uid in view.uids if evidence.says(m.uid, uid)
        }
        missing = kept | never | set(cut)
        better = self.replanning.ripe(now, view) if not view.learners else None
        return self.wishes.plan(view, joining, gone, reaches, switch, missing, lineage, better)
