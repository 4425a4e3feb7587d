"""What the run logs say of a run, checked to be whole: everything that a replay follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from lightning_chaos.data.ledger import Slice
from lightning_chaos.demo.checks import digests, stable_rounds
from lightning_chaos.errors import ReplayError
from lightning_chaos.monitor.runlog import LogEvent, read_log
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.planning.values import ReducePlan
from lightning_chaos.protocol.values import Member, Uid, View


class Contributors(msgspec.Struct, frozen=True):
    """Who contributed to an operation."""

    members: tuple[Uid, ...]
    """Oldest first."""
    epoch: int
    """Of the view by whose plan they added up."""


class Row(msgspec.Struct, frozen=True):
    """One stable round."""

    round: int
    epoch: int
    """Of the view whose members contributed, by its plan."""
    members: tuple[Uid, ...]
    """Who contributed, oldest first."""
    sharers: tuple[Uid, ...]
    """Among whom its samples were shared out; some may have died in the round."""
    weights: tuple[float, ...]
    ranges: tuple[Slice, ...]
    busy_s: tuple[float, ...]
    """For how long each had computed: later shares of the samples may follow from it."""
    mark: int
    """Checksum of the mean of the gradients."""
    stop: bool
    """Somebody had asked the run to end after this round."""
    threads: int
    seed: int
    """Of the permutations and of chance."""


class Script(msgspec.Struct, frozen=True):
    """What a node ran; see :func:`lightning_chaos.skin.origin.origin`."""

    file: str
    digest: str
    module: str
    argv: list[str]
    cwd: str
    env: dict[str, str]
    threads: int
    min_members: int
    platform: dict[str, str]


class Book(msgspec.Struct, frozen=True):
    """One run from its first round to its end."""

    node: str
    """Who began it: scripts may look at the node's name."""
    script: Script
    settings: dict[str, str]
    """What all members had alike."""
    rounds: dict[int, Row]
    views: dict[int, View]
    """By epoch."""
    activated: dict[int, Contributors]
    """Who contributed when float buffers became active in a round."""
    initial: str
    """Digest of the state before the first round, '' if no log tells."""
    final: str
    """Digest of the state at the end."""
    stopped: bool
    """The end came before the limits of the script."""

    @property
    def last(self) -> int:
        """The last round."""
        return max(self.rounds)

    @property
    def members(self) -> list[str]:
        """Names of all nodes that contributed, in order of their first round."""
        uids = dict.fromkeys(uid for row in self.rounds.values() for uid in row.members)
        return list(dict.fromkeys(uid.rpartition("/")[0] for uid in uids))

    @property
    def samples(self) -> int:
        """Samples that counted, over all epochs."""
        ranges = (r for row in self.rounds.values() for one in row.ranges for r in one)
        return sum(stop - start for start, stop in ranges)


def read_book(path: Path) -> Book:
    """The run that these logs tell of.

    Args:
        path: the log of one node that was there from the first round to the end, or a directory
            with the logs of several nodes.

    Raises:
        ReplayError: there is no run, more than one, or not all of one; or logs contradict each
            other.
    """
    events = read_log(path)
    runs = sorted({str(e["run"]) for e in events if e.event == "start"})
    if len(runs) != 1:
        raise ReplayError(
            f"{path} tells of {len(runs)} runs{': ' if runs else ''}{', '.join(runs)}; name the "
            "log, or the directory of logs, of exactly one run (one fit)"
        )
    generations = sorted({int(e.get("generation", 0)) for e in events if e.event == "view"})
    if len(generations) > 1:
        raise ReplayError(
            f"{path} tells of generations {', '.join(map(str, generations))}: the run went on from "
            "a checkpoint. Name logs of one generation, from one start of the nodes to their end"
        )
    final, end = _end(events)
    _check_whole(events, end, path)
    scripts = [e for e in events if e.event == "script"]
    settings = next((e for e in events if e.event == "settings"), None)
    if not scripts or settings is None:
        raise ReplayError(f"{path} does not tell which script was run: it is of an older version")
    _check_platforms(scripts)
    _check_no_drift(events)
    try:
        rows = _rows(events, end)
        oldest = rows[0].members[0].rpartition("/")[0]
        begun = next((e for e in scripts if e.node == oldest), scripts[0])
        return Book(
            node=oldest,
            script=msgspec.convert(begun.fields, Script),
            settings=settings["values"],
            rounds=rows,
            views={int(e["epoch"]): view_told(e, runs[0]) for e in events if e.event == "view"},
            activated={
                int(e["round"]): msgspec.convert(e.fields, Contributors)
                for e in events
                if e.event == "buffers"
            },
            initial=next((str(e["digest"]) for e in events if e.event == "initial"), ""),
            final=final,
            stopped=any(bool(e.get("stopped")) for e in events if e.event == "final"),
        )
    except (msgspec.ValidationError, ValueError, KeyError) as error:
        raise ReplayError(f"{path} cannot be read: {error}") from error


def _end(events: Sequence[LogEvent]) -> tuple[str, int]:
    """Digest of the final state and the last round."""
    found = digests(events)
    rounds = sorted({int(e["round"]) for e in events if e.event == "final"})
    if not found or not rounds:
        raise ReplayError(
            "no log tells of the run's end: a node that trained to the end writes the digest of "
            "its state"
        )
    if len(set(found.values())) > 1 or len(rounds) > 1:
        told = ", ".join(f"{node} {digest[:12]}" for node, digest in found.items())
        raise ReplayError(
            f"the nodes did not end alike (rounds {rounds}, states {told}): there is no one end "
            "to arrive at"
        )
    return next(iter(found.values())), rounds[0]


def _check_whole(events: Sequence[LogEvent], end: int, path: Path) -> None:
    rounds, contradictions = stable_rounds(events)
    missing = [r for r in range(end + 1) if r not in rounds]
    if missing:
        raise ReplayError(
            f"{path} lacks rounds {_spans(missing)} of {end + 1}: add the logs of the nodes that "
            "were members then (in one directory)"
        )
    if contradictions:
        raise ReplayError(f"the logs contradict each other: {contradictions[0]}")


def _spans(numbers: Iterable[int]) -> str:
    """``0-4, 7`` for 0, 1, 2, 3, 4, 7."""
    ordered = sorted(numbers)
    edges = [ordered[0], *(x for a, b in pairwise(ordered) if b > a + 1 for x in (a, b))]
    parts = zip(edges[::2], [*edges[1::2], ordered[-1]], strict=True)
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _rows(events: Sequence[LogEvent], end: int) -> dict[int, Row]:
    rows: dict[int, Row] = {}
    for event in (e for e in events if e.event == "round" and e["round"] <= end):
        row = msgspec.convert(event.fields, Row)
        known = rows.setdefault(row.round, row)
        if known.threads != row.threads:
            raise ReplayError(
                f"in round {row.round} members computed with {known.threads} and with "
                f"{row.threads} threads, one process cannot do the same: give all nodes one "
                "number (OMP_NUM_THREADS)"
            )
    return rows


def view_told(event: LogEvent, run: str) -> View:
    """The view of an event ``view``, as far as a replay needs it."""
    members = tuple(
        Member(node, int(uid.rpartition("/")[2], 16), "", 0)
        for node, uid in zip(event["members"], event["uids"], strict=True)
    )
    switch = int(event["switch"])
    told = event.get("plan")
    plan = msgspec.convert(told, ReducePlan) if told else mesh_plan([m.uid for m in members])
    return View(run, 0, int(event["epoch"]), members, (), switch, plan)


def _check_platforms(scripts: Sequence[LogEvent]) -> None:
    first = scripts[0]
    for other in scripts[1:]:
        if difference := differs(first["platform"], other["platform"]):
            name, mine, theirs = difference
            raise ReplayError(
                f"{first.node} computed with {name} {mine}, {other.node} with {theirs}: a replay "
                "is bit for bit only where all members are alike"
            )


def _check_no_drift(events: Sequence[LogEvent]) -> None:
    drift = next((e for e in events if e.event == "drift"), None)
    if drift is not None:
        raise ReplayError(
            f"in round {drift['round']} {', '.join(drift['members'])} differed from the other "
            f"members ({drift['content']}) and was corrected: what it contributed before came from "
            "a state that no log tells"
        )


def differs(ours: Mapping[str, str], theirs: Mapping[str, str]) -> tuple[str, str, str] | None:
    """First name under which the two say different things, and both; None if there is none."""
    for name in dict.fromkeys([*ours, *theirs]):
        pair = ours.get(name, "nothing"), theirs.get(name, "nothing")
        if pair[0] != pair[1]:
            return name, *pair
    return None
