"""What the frozen workers of a new view do with the operation they were in (design §6).

Two members are never more than one finished operation apart, because every member contributes
to every operation.  So from the reports of all members of the new view:

* ``t``, the highest finished operation: whoever lacks it gets its kept result, along the links of
  the new view, from those who keep it and through others who lacked it.
* the operation after it: if the members together hold every chunk's result, with one
  contributor set, it stands and is passed on; else, if the new view has the same members and the
  same plan, the held chunks are kept and the others done again; else it is done again from the
  contributions.  So every operation is added up by one plan.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning_chaos.planning.forest import forest
from lightning_chaos.protocol.values import Decision, Report, Uid, View


class Unrecoverable(Exception):
    """Some members lack an operation whose result nobody holds any more; they must rejoin."""

    def __init__(self, uids: tuple[Uid, ...]) -> None:
        super().__init__(f"nobody holds what {', '.join(uids)} lack")
        self.uids = uids


def decide(reports: Mapping[Uid, Report], view: View) -> Decision:
    """The plan of recovery; not a fact: the next change decides afresh.

    Args:
        reports: of every member of the new view.
        view: the new one.

    Raises:
        Unrecoverable: see there; leave these members out of the new view.
    """
    members = view.uids
    finished = max(reports[uid].finished for uid in members)
    behind = tuple(uid for uid in members if reports[uid].finished < finished)
    sources: tuple[Uid, ...] = ()
    if behind:
        sources = tuple(u for u in members if reports[u].finished == finished and reports[u].keeps)
        reached = forest(members, view.missing, sources, behind)
        # A member that has not even begun it did not contribute, so nobody can have finished it
        # with the same members: it is out of step for another reason and cannot be helped.
        lost = tuple(u for u in behind if u not in reached or reports[u].current != finished)
        if lost:
            raise Unrecoverable(lost)
    held, contributors = _kept_chunks(reports, view) if not behind else ({}, ())
    return Decision(
        finished=finished,
        sources=sources,
        behind=behind,
        held=held,
        contributors=contributors,
        data_from=1 + max(reports[uid].begun_round for uid in members),
    )


def _kept_chunks(
    reports: Mapping[Uid, Report], view: View
) -> tuple[dict[int, Uid], tuple[Uid, ...]]:
    """Which results of the next operation stand, who passes each on, and whose they are."""
    first, *others = (reports[uid] for uid in view.uids)
    attempt = first.current, first.contributors, first.plan, first.chunks
    if any((r.current, r.contributors, r.plan, r.chunks) != attempt for r in others):
        return {}, ()  # somebody did not contribute, or has let go of what is held elsewhere
    holders: dict[int, Uid] = {}
    for uid in view.uids:
        for chunk in reports[uid].held:
            holders.setdefault(chunk, uid)
    whole = len(holders) == first.chunks
    same = set(first.contributors) == set(view.uids) and first.plan == view.plan.mark
    if holders and (whole or same):
        return dict(sorted(holders.items())), first.contributors
    return {}, ()
