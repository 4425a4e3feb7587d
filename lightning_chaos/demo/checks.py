"""What a run must have kept to: each check reads the run logs and names every failure.

Pure functions of events; an empty list of failures means the promise was kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lightning_chaos.monitor.runlog import LogEvent

MIN_DONOR_SHARE = 0.10
MAX_OFF_PLAN = 0.10
MIN_ACCURACY = 0.95
SAME_IN_ALL_LOGS = (
    "data_epoch",
    "epoch",
    "members",
    "weights",
    "ranges",
    "size",
    "seed",
    "shuffle",
)


@dataclass(frozen=True, slots=True)
class Donor:
    """What one member served of a pull."""

    node: str
    bytes: int
    share: float
    """Of all bytes of the pull, 0 to 1."""
    first_t: float
    last_t: float
    planned_bytes: int | None = None
    """By the last plan; None if the log does not say."""
    planned_bytes_per_s: float | None = None
    """Rate of its link that the plan counted on."""
    bytes_per_s: float | None = None
    """Rate that the transfer showed."""


@dataclass(frozen=True, slots=True)
class PullFacts:
    """One newcomer's pull."""

    node: str
    round: int
    bytes: int
    seconds: float
    shards: int
    donors: tuple[Donor, ...]
    """Every member of the view under which it pulled, also those that served nothing."""
    overlap_s: float
    """Seconds during which all donors were serving."""
    shard_bytes: int = 0
    planned_s: float | None = None
    """When the last plan was made, seconds since the pull began; None if the log does not say."""
    predicted_s: float | None = None
    """When it expected the end; None if it knew no rate."""


@dataclass(frozen=True, slots=True)
class EpochFacts:
    """How often the samples of one epoch of the data counted."""

    epoch: int
    size: int
    committed: int
    rounds: int
    complete: bool
    """A later epoch was begun, so every sample must have counted."""


def digests(events: Iterable[LogEvent]) -> dict[str, str]:
    """Digest of the shared state with which each node finished."""
    return {e.node: str(e["digest"]) for e in events if e.event == "final" and e.get("digest")}


def check_digests(found: Mapping[str, str], finishing: Sequence[str]) -> list[str]:
    """Every finishing node holds the same state, bit for bit."""
    missing = [n for n in finishing if n not in found]
    failures = [f"{n} finished without a digest of its state" for n in missing]
    different = {found[n] for n in finishing if n in found}
    if len(different) > 1:
        told = ", ".join(f"{n} {found[n][:12]}" for n in finishing if n in found)
        failures.append(f"digests of the final state differ: {told}")
    return failures


def pulls(events: Sequence[LogEvent]) -> list[PullFacts]:
    """Every pull that was finished, in order of time."""
    return [_pull_facts(events, e) for e in events if e.event == "pull"]


def _pull_facts(events: Sequence[LogEvent], pull: LogEvent) -> PullFacts:
    expected: list[str] = []
    newcomers: set[str] = set()
    for event in events:
        if event.event == "view" and pull.node in event["learners"] and event.t <= pull.t:
            expected, newcomers = list(event["members"]), set(event["learners"])
    served = {str(d["node"]): d for d in pull["per_donor"]}
    total = sum(int(d["bytes"]) for d in served.values())
    donors = []
    for node in dict.fromkeys([*expected, *(n for n in served if n not in newcomers)]):
        size = int(served[node]["bytes"]) if node in served else 0
        first, last = (
            (float(served[node]["first_t"]), float(served[node]["last_t"])) if size else (0.0, 0.0)
        )
        told = served.get(node, {})
        donors.append(
            Donor(
                node,
                size,
                size / total if total else 0.0,
                first,
                last,
                told.get("planned_bytes"),
                told.get("planned_bytes_per_s"),
                told.get("bytes_per_s"),
            )
        )
    overlap_s = (
        min(d.last_t for d in donors) - max(d.first_t for d in donors)
        if donors and all(d.bytes for d in donors)
        else 0.0
    )
    return PullFacts(
        node=pull.node,
        round=int(pull["round"]),
        bytes=int(pull["bytes"]),
        seconds=float(pull["seconds"]),
        shards=int(pull["shards"]),
        donors=tuple(donors),
        overlap_s=max(0.0, overlap_s),
        shard_bytes=int(pull["shard_bytes"]),
        planned_s=pull.fields.get("planned_s"),
        predicted_s=pull.fields.get("predicted_s"),
    )


def too_few_shards(found: Sequence[PullFacts], newcomer: str) -> bool:
    """The newcomer's pull had so few shards that not every donor could get its part."""
    mine = [p for p in found if p.node == newcomer]
    return bool(mine) and mine[-1].shards < len(mine[-1].donors) / MIN_DONOR_SHARE


def check_donors(found: Sequence[PullFacts], newcomer: str) -> list[str]:
    """Every member served its part of the newcomer's pull, if there was enough to pull."""
    mine = [p for p in found if p.node == newcomer]
    if not mine:
        return [f"{newcomer} never pulled the state"]
    if too_few_shards(found, newcomer):
        return []
    return [
        f"{donor.node} served {donor.share:.0%} of the bytes that {newcomer} pulled, "
        f"less than {MIN_DONOR_SHARE:.0%}"
        for donor in mine[-1].donors
        if donor.share < MIN_DONOR_SHARE
    ]


def check_plan(found: Sequence[PullFacts], newcomer: str) -> list[str]:
    """Every donor gave what was planned for it, within a tenth and one shard."""
    mine = [p for p in found if p.node == newcomer]
    if not mine:
        return []
    return [
        f"{donor.node} gave {donor.bytes} bytes to {newcomer}, planned were {donor.planned_bytes}"
        for donor in mine[-1].donors
        if donor.planned_bytes is not None
        and abs(donor.bytes - donor.planned_bytes)
        > MAX_OFF_PLAN * donor.planned_bytes + mine[-1].shard_bytes
    ]


def stable_rounds(events: Iterable[LogEvent]) -> tuple[dict[int, LogEvent], list[str]]:
    """The union of all logs' rounds, and where two logs tell a round differently."""
    rounds: dict[int, LogEvent] = {}
    failures: list[str] = []
    for event in (e for e in events if e.event == "round"):
        known = rounds.setdefault(int(event["round"]), event)
        failures += [
            f"round {event['round']} has other {name} in the log of {event.node} "
            f"than in that of {known.node}"
            for name in SAME_IN_ALL_LOGS
            if known[name] != event[name]
        ]
    gaps = [r for r in range(min(rounds, default=0), max(rounds, default=-1)) if r not in rounds]
    failures += [f"round {r} is in no log" for r in gaps]
    return dict(sorted(rounds.items())), failures


def check_once(rounds: Mapping[int, LogEvent]) -> tuple[list[EpochFacts], list[str]]:
    """Every sample counts at most once per epoch, and exactly once in a complete one."""
    by_epoch: dict[int, list[LogEvent]] = {}
    for event in rounds.values():
        by_epoch.setdefault(int(event["data_epoch"]), []).append(event)
    if not by_epoch:
        return [], ["no round became stable"]
    last = max(by_epoch)
    facts: list[EpochFacts] = []
    failures: list[str] = []
    for epoch in range(min(by_epoch), last + 1):
        told = by_epoch.get(epoch, [])
        if not told:
            failures.append(f"epoch {epoch} of the data was skipped")
            continue
        size = int(told[0]["size"])
        count = bytearray(size)
        outside = 0
        for a, b in (r for e in told for ranges in e["ranges"] for r in ranges):
            if not 0 <= a <= b <= size:
                outside += 1
                continue
            for position in range(a, b):
                count[position] = min(255, count[position] + 1)
        double = sum(c > 1 for c in count)
        missing = count.count(0)
        complete = epoch < last
        facts.append(EpochFacts(epoch, size, size - missing, len(told), complete))
        if outside:
            failures.append(f"epoch {epoch}: {outside} ranges lie outside the {size} samples")
        if double:
            first = next(i for i, c in enumerate(count) if c > 1)
            failures.append(
                f"epoch {epoch}: {double} samples counted more than once (first: position {first})"
            )
        if complete and missing:
            failures.append(
                f"epoch {epoch}: {missing} of {size} samples never counted "
                f"(first: position {count.index(0)})"
            )
    return facts, failures


def accuracies(events: Iterable[LogEvent]) -> dict[str, tuple[str, float]]:
    """Per node the test metric whose name has ``acc`` in it, and its value."""
    found: dict[str, tuple[str, float]] = {}
    for event in events:
        if event.event == "metrics" and event["stage"] == "test":
            for name, value in event["values"].items():
                if "acc" in name.lower() and value is not None:
                    found[event.node] = (str(name), float(value))
    return found


def check_accuracy(
    found: Mapping[str, tuple[str, float]], finishing: Sequence[str], *, required: bool
) -> list[str]:
    """The training was worth it.

    Args:
        found: see :func:`accuracies`.
        finishing: nodes that ended by themselves.
        required: whether a node without such a metric is a failure.
    """
    failures = [
        f"{node}: {found[node][0]} is {found[node][1]:.3f}, less than {MIN_ACCURACY}"
        for node in finishing
        if node in found and not found[node][1] >= MIN_ACCURACY
    ]
    if required:
        failures += [f"{n} reported no test accuracy" for n in finishing if n not in found]
    return failures


def check_left(events: Iterable[LogEvent], leaver: str) -> list[str]:
    """The node that got SIGTERM was planned out, not lost."""
    if any(e.event == "leave" and e.node == leaver for e in events):
        return []
    return [f"{leaver} got SIGTERM but did not leave politely"]
