"""When a better reduce plan is worth a change of the view (design §5, hysteresis).

A plan that promises less than :data:`BETTER` of the time of the present one, on the same figures,
is proposed once it has done so for :data:`CALM` timeouts, and not within :data:`REST` timeouts of
the one before.  What the present plan promises is worked out anew on the newest figures, so a plan
made for links that have changed since is held to no promise of old.
"""

from __future__ import annotations

from lightning_chaos.planning.graph import Graph, counted
from lightning_chaos.planning.mesh import mesh_plan, reroute
from lightning_chaos.planning.values import Pair, ReducePlan
from lightning_chaos.protocol.events import Replan, Replanned
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Uid, View

BETTER = 0.8
LEAST_GAIN_S = 0.005
"""A plan that saves a round less than that is worth no change, seconds."""
CALM = 5
REST = 30


class Replanning:
    """The lead's side: asks for plans on new figures, and waits until one has proved better.

    Args:
        timeouts: longest silence tolerated.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._asked: tuple[Graph, ReducePlan, int] | None = None
        self._better: Replanned | None = None
        self._since = 0.0
        self._not_before = float("-inf")

    def ask(self, view: View, graph: Graph | None, total_bytes: int) -> Replan | None:
        """What must be worked out now, None for nothing.

        Args:
            view: installed.
            graph: its links as measured, None while nothing is known of them.
            total_bytes: of the longest vector that is reduced, 0 if it is not known.
        """
        if graph is None or not total_bytes:
            return None
        question = (counted(graph), view.plan, total_bytes)
        if question == self._asked:
            return None
        self._asked = question
        return Replan(*question)

    def answer(self, now: float, answer: Replanned, view: View) -> None:
        """A plan has been worked out; one for another view or plan says nothing any more."""
        if self._asked is None or answer.graph != self._asked[0] or view.plan != self._asked[1]:
            return
        gain_s = answer.present_s - answer.seconds
        if answer.seconds > BETTER * answer.present_s or gain_s < LEAST_GAIN_S:
            self._better = None
            return
        self._since = now if self._better is None else self._since
        self._better = answer

    def ripe(self, now: float, view: View) -> Replanned | None:
        """The plan that is to be proposed now for this view, None if none is."""
        better, longest_s = self._better, self._timeouts.longest_s
        if better is None or better.graph.members != view.uids or now < self._not_before:
            return None
        fits = better.plan.check(view.uids, view.missing) is None
        return better if fits and now - self._since >= CALM * longest_s else None

    def installed(self, now: float, view: View, old: View) -> None:
        """A view is installed: with other members or links everything begins anew."""
        if view.uids != old.uids:
            self._not_before = float("-inf")
        elif view.plan != old.plan and view.missing == old.missing:
            self._not_before = now + REST * self._timeouts.longest_s
        if (view.uids, view.plan, view.missing) != (old.uids, old.plan, old.missing):
            self._asked, self._better = None, None


def plan_after(view: View, uids: tuple[Uid, ...], missing: tuple[Pair, ...]) -> ReducePlan:
    """The plan of the view that follows without a better one being known.

    With the same members a plan made for measured links stays, and only those of its trees move
    that used a link which is lost; else the links count as equal.

    Args:
        view: installed.
        uids: its members then.
        missing: links that are not there then.
    """
    if uids == view.uids:
        if set(missing) == set(view.missing):
            return view.plan
        if view.plan != mesh_plan(view.uids, view.missing):
            return reroute(view.plan, uids, missing)
    return mesh_plan(uids, missing)
