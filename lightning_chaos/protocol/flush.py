"""What the frozen workers of a new view do with the operation they were in (design §6).

Two members are never more than one finished operation apart, because every member contributes
to every operation.  So from the reports of all members of the new view:

* ``t``, the highest finished operation: whoever lacks it gets its kept result.
* the operation after it: if the members together hold every chunk's result, with one
  contributor set, it stands and is passed on; else, if the new view has the same members, the
  held chunks are kept and the others done again; else it is done again from the contributions.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning_chaos.protocol.values import Decision, Report, Uid


class Unrecoverable(Exception):
    """Some members lack an operation whose result nobody holds any more; they must rejoin."""

    def __init__(self, uids: tuple[Uid, ...]) -> None:
        super().__init__(f"nobody holds what {', '.join(uids)} lack")
        self.uids = uids


def decide(reports: Mapping[Uid, Report], members: tuple[Uid, ...]) -> Decision:
    """The plan of recovery; not a fact: the next change decides afresh.

    Args:
        reports: of every member of the new view.
        members: of the new view, oldest first.

    Raises:
        Unrecoverable: see there; leave these members out of the new view.
    """
    finished = max(reports[uid].finished for uid in members)
    behind = tuple(uid for uid in members if reports[uid].finished < finished)
    source = ""
    if behind:
        source = next(
            (u for u in members if reports[u].finished == finished and reports[u].keeps), ""
        )
        # A member that has not even begun it did not contribute, so nobody can have finished it
        # with the same members: it is out of step for another reason and cannot be helped.
        lost = tuple(u for u in behind if not source or reports[u].current != finished)
        if lost:
            raise Unrecoverable(lost)
    held, contributors = _kept_chunks(reports, members) if not behind else ({}, ())
    return Decision(
        finished=finished,
        source=source,
        behind=behind,
        held=held,
        contributors=contributors,
        data_from=1 + max(reports[uid].begun_round for uid in members),
    )


def _kept_chunks(
    reports: Mapping[Uid, Report], members: tuple[Uid, ...]
) -> tuple[dict[int, Uid], tuple[Uid, ...]]:
    """Which results of the next operation stand, who passes each on, and whose they are."""
    groups: dict[tuple[object, tuple[Uid, ...]], dict[int, Uid]] = {}
    for uid in members:
        report = reports[uid]
        if report.current is not None and report.held:
            holders = groups.setdefault((report.current, report.contributors), {})
            for chunk in report.held:
                holders.setdefault(chunk, uid)
    for (current, contributors), holders in groups.items():
        chunks = max(r.chunks for r in reports.values() if r.current == current)
        whole = len(holders) == chunks
        if whole or set(contributors) == set(members):
            return dict(sorted(holders.items())), contributors
    return {}, ()
