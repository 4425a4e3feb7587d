"""Several newcomers under a policy made for one: all at once, sharing what the donors can send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from lightning_chaos.planning.policies import POLICIES, Outcome, Scene
from lightning_chaos.planning.pull import DonorLink
from lightning_chaos.planning.several import shared_out


class Pull(msgspec.Struct, frozen=True):
    """One newcomer's pull."""

    newcomer: str
    scene: Scene
    """With the rates that the other newcomers leave it."""
    outcome: Outcome


def at_once(policy: str, scenes: Mapping[str, Scene], egress: Mapping[str, float]) -> list[Pull]:
    """What becomes of each newcomer.

    Under elan each has one source, who is another one for each as far as that pays; under all
    others each has all donors (under edl the one that chance takes sends to all newcomers).

    Args:
        policy: name of one of :data:`POLICIES`.
        scenes: of each newcomer if it were the only one, at least one.
        egress: bytes/s that each donor sends to all newcomers together.

    Raises:
        ConfigError: the policy cannot be predicted for one of them.
    """
    donors: Sequence[Sequence[DonorLink]] = [scene.donors for scene in scenes.values()]
    if policy == "elan" and len(scenes) > 1:
        donors = _one_each(scenes, egress)
    pulls = []
    for (newcomer, alone), theirs in zip(scenes.items(), shared_out(donors, egress), strict=True):
        scene = msgspec.structs.replace(alone, donors=tuple(theirs))
        pulls.append(Pull(newcomer, scene, POLICIES[policy](scene)))
    return pulls


def _one_each(scenes: Mapping[str, Scene], egress: Mapping[str, float]) -> list[list[DonorLink]]:
    """The source of each newcomer: who would be done first, beside those that it has already."""
    served: Counter[str] = Counter()
    sources = []
    for scene in scenes.values():

        def end_s(donor: DonorLink, scene: Scene = scene) -> float:
            share = min(donor.rate_bytes_per_s, egress[donor.name] / (served[donor.name] + 1))
            return donor.release_s + scene.total_bytes / share

        best = min(scene.donors, key=end_s)
        served[best.name] += 1
        sources.append([best])
    return sources


def summed_up(pulls: Sequence[Pull]) -> Outcome:
    """What all pulls of a policy come to; who sends what is left to the pulls."""
    outcomes = [pull.outcome for pull in pulls]
    return Outcome(
        policy=outcomes[0].policy,
        source=", ".join(dict.fromkeys(outcome.source for outcome in outcomes)),
        transfer_s=max(outcome.transfer_s for outcome in outcomes),
        stall_s=max(outcome.stall_s for outcome in outcomes),
        bytes_from={},
        ends_s={},
    )
