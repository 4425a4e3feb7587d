"""How other systems bring a newcomer its state, predicted for the same cluster as ours.

Every policy gets one :class:`Scene` and says where the bytes come from, how long they take and how
long everybody else stands still.  Only source, split and stall differ; the newcomer's own start
(process, imports) happens beside training in all of them but Pollux and is left out.

| policy | state comes from | stands still |
|---|---|---|
| pollux | a store, to everybody: Qiao et al., OSDI'21 | all: write, restart, N + 1 reads |
| edl | one member by chance: Wu et al., arXiv 1909.11985 | all, while it is sent |
| elan | the best member: Xie et al., ICDCS'20 | all, while it is sent |
| autoscaling | equal bytes of every member: Or et al., MLSys'20 | all, while they are sent |
| autoscaling-counts | equal numbers of tensors, as its code does it | all, while they are sent |
| chaos-v1 | least-loaded greedy, binary search of the size: arXiv 2505.12815v1 | all, while sent |
| chaos | the exact schedule (:mod:`~lightning_chaos.planning.pull`) | as long, in a pause join |
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import msgspec

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning.chain import check_chain, plan_over_chain
from lightning_chaos.planning.completion import max_min, rounding
from lightning_chaos.planning.pull import DonorLink, PullPlan, check_pull


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is not the transfer.

    Raises:
        ConfigError: a negative time or a store without a rate.
    """

    restart_s: float = 30.0
    """Pollux: to stop and start everybody, seconds; its paper's mean, of 15 to 120."""
    store_mbit: float = 1000.0
    """Pollux: what the checkpoint store carries, Mbit/s."""
    regroup_s: float = 0.0
    """EDL, Elan, Autoscaling: to build the communicator anew, seconds."""

    def __post_init__(self) -> None:
        for what, value in (("restart_s", self.restart_s), ("regroup_s", self.regroup_s)):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"costs: {what} of {value}; it must be finite and not negative")
        if not (math.isfinite(self.store_mbit) and self.store_mbit > 0):
            raise ConfigError(f"costs: store_mbit of {self.store_mbit} is not a rate")


class Scene(msgspec.Struct, frozen=True):
    """One newcomer, its donors, and what all policies share.

    Raises:
        ConfigError: no donor, nothing to pull, sizes that are no chain or larger than the state,
            or an ingress that is not positive.
    """

    total_bytes: int
    donors: tuple[DonorLink, ...]
    sizes: tuple[int, ...]
    """Bytes per shard that may be chosen, a divisibility chain."""
    ingress_bytes_per_s: float = math.inf
    tensors: tuple[int, ...] = ()
    """Bytes of each tensor in order; only autoscaling-counts asks for them."""
    costs: Costs = Costs()
    joining: int = 1
    """How many newcomers there are; only pollux, which starts all of them at once, asks."""

    def __post_init__(self) -> None:
        check_chain(self.sizes)
        check_pull(self.total_bytes, self.sizes[0], self.donors, self.ingress_bytes_per_s)


class Outcome(msgspec.Struct, frozen=True):
    """What a policy comes to."""

    policy: str
    source: str
    """Where the bytes come from, in words."""
    transfer_s: float
    """Until the newcomer has the state, from the first request."""
    stall_s: float
    """How long everybody else stands still."""
    bytes_from: dict[str, int]
    """Bytes that each donor sends, a short shard counted whole; empty where that is chance or no
    donor sends."""
    ends_s: dict[str, float]
    """When each of them has sent them."""
    plan: PullPlan | None = None
    """The shards, where there are any."""


Policy = Callable[[Scene], Outcome]


def pollux(scene: Scene) -> Outcome:
    """Checkpoint to a store, stop everybody, start them and the newcomers, who all read it.

    The wait for its scheduler (up to 60 s) and for the end of the step is left out.
    """
    one_s = scene.total_bytes * 8 / (scene.costs.store_mbit * 1e6)
    members = len(scene.donors)
    stall_s = one_s + scene.costs.restart_s + (members + scene.joining) * one_s
    return Outcome("pollux", "store", stall_s, stall_s, {}, {})


def edl(scene: Scene) -> Outcome:
    """One member by chance sends everything; the times are the mean over that chance."""
    times = [_sent(scene, "", "", [_Part(d, scene.total_bytes)]).transfer_s for d in scene.donors]
    mean_s = sum(times) / len(times)
    return _regrouped(scene, Outcome("edl", "one by chance", mean_s, mean_s, {}, {}))


def elan(scene: Scene) -> Outcome:
    """The member that would be done first sends everything."""
    alone = (
        _sent(scene, "elan", f"{donor.name} alone", [_Part(donor, scene.total_bytes)])
        for donor in scene.donors
    )
    return _regrouped(scene, min(alone, key=lambda outcome: outcome.transfer_s))


def autoscaling(scene: Scene) -> Outcome:
    """Every member sends the same number of bytes: its authors' idea at its best."""
    cuts = [scene.total_bytes * i // len(scene.donors) for i in range(len(scene.donors) + 1)]
    parts = [
        _Part(donor, end - begin)
        for donor, (begin, end) in zip(scene.donors, itertools.pairwise(cuts), strict=True)
    ]
    return _regrouped(scene, _sent(scene, "autoscaling", "equal bytes", parts))


def autoscaling_counts(scene: Scene) -> Outcome:
    """Every member sends the same number of whole tensors, in their order, as its code does it.

    Its code then gathers the slices on all members, which can only take longer than this.

    Raises:
        ConfigError: the sizes of the tensors are not given, or are not those of the state.
    """
    if not scene.tensors:
        raise ConfigError("a split by tensors needs the size of each; give tensors_mb")
    if sum(scene.tensors) != scene.total_bytes or min(scene.tensors) < 0:
        raise ConfigError(
            f"the tensors sum up to {sum(scene.tensors)} bytes and the state has "
            f"{scene.total_bytes}; give every tensor's size, none negative"
        )
    each, more = divmod(len(scene.tensors), len(scene.donors))
    parts = []
    begin = 0
    for i, donor in enumerate(scene.donors):
        end = begin + each + (i < more)
        parts.append(_Part(donor, sum(scene.tensors[begin:end])))
        begin = end
    return _regrouped(scene, _sent(scene, "autoscaling-counts", "equal tensor counts", parts))


def chaos_v1(scene: Scene) -> Outcome:
    """The paper's first version: each shard to the least loaded; binary search of the size.

    The search takes the makespan to fall and then rise along the chain, which it need not do.
    """

    def of(size: int) -> Outcome:
        parts = [
            _Part(donor, count * size, count)
            for donor, count in zip(scene.donors, _least_load(scene, size), strict=True)
        ]
        return _sent(scene, "chaos-v1", f"shards of {size / 1024:g} KiB", parts)

    low, high = 0, len(scene.sizes) - 1
    while low < high:
        middle = (low + high) // 2
        if of(scene.sizes[middle]).transfer_s <= of(scene.sizes[middle + 1]).transfer_s:
            high = middle
        else:
            low = middle + 1
    return of(scene.sizes[low])


def chaos(scene: Scene) -> Outcome:
    """The exact schedule; a pause join stalls the others as long, a live one not at all."""
    plan = plan_over_chain(scene.total_bytes, scene.sizes, scene.donors, scene.ingress_bytes_per_s)
    used = [name for name, count in plan.counts.items() if count]
    return Outcome(
        policy="chaos",
        source=f"shards of {plan.shard_bytes / 1024:g} KiB",
        transfer_s=plan.makespan_s,
        stall_s=plan.makespan_s,
        bytes_from={name: plan.counts[name] * plan.shard_bytes for name in used},
        ends_s={name: plan.ends_s[name] for name in used},
        plan=plan,
    )


POLICIES: dict[str, Policy] = {
    "pollux": pollux,
    "edl": edl,
    "elan": elan,
    "autoscaling": autoscaling,
    "autoscaling-counts": autoscaling_counts,
    "chaos-v1": chaos_v1,
    "chaos": chaos,
}


class _Part(msgspec.Struct, frozen=True):
    """What a donor sends under a policy."""

    donor: DonorLink
    bytes: int
    pieces: int = 1
    """In so many pieces, each with the donor's overhead."""


def _sent(scene: Scene, policy: str, source: str, parts: Sequence[_Part]) -> Outcome:
    """All parts are sent at once; those who send share fairly what the newcomer can take in."""
    senders = [part for part in parts if part.bytes]
    rates = _rates([part.donor for part in senders], scene)
    ends_s = {
        part.donor.name: part.donor.release_s
        + part.pieces * part.donor.overhead_s
        + part.bytes / rate
        for part, rate in zip(senders, rates, strict=True)
    }
    end_s = max(ends_s.values())
    sent = {part.donor.name: part.bytes for part in senders}
    return Outcome(policy, source, end_s, end_s, sent, ends_s)


def _least_load(scene: Scene, size: int) -> list[int]:
    """Shards per donor if each goes to the one that would be free first; ties to the first."""
    rates = _rates(scene.donors, scene)
    periods = [d.overhead_s + size / rate for d, rate in zip(scene.donors, rates, strict=True)]
    # A donor is free for a shard when it would have completed it had it begun a period earlier.
    earlier = [d.release_s - period for d, period in zip(scene.donors, periods, strict=True)]
    return rounding(-(-scene.total_bytes // size), periods, earlier)[0]


def _rates(donors: Sequence[DonorLink], scene: Scene) -> list[float]:
    return max_min([donor.rate_bytes_per_s for donor in donors], scene.ingress_bytes_per_s)


def _regrouped(scene: Scene, outcome: Outcome) -> Outcome:
    """The same, with the communicator built anew before anybody goes on."""
    return msgspec.structs.replace(outcome, stall_s=outcome.stall_s + scene.costs.regroup_s)
