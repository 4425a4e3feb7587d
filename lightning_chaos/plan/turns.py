"""Several newcomers under a policy made for one: who begins when."""

from __future__ import annotations

import msgspec

from lightning_chaos.planning.policies import POLICIES, Outcome, Scene


class Turn(msgspec.Struct, frozen=True):
    """One newcomer's pull."""

    newcomer: str
    scene: Scene
    outcome: Outcome
    begin_s: float
    """After the others before it, seconds."""

    @property
    def end_s(self) -> float:
        """When this newcomer has its state."""
        return self.begin_s + self.outcome.transfer_s


def take_turns(policy: str, scenes: dict[str, Scene]) -> list[Turn]:
    """The newcomers one after the other, each when the others go on again.

    Under pollux all begin at once: it starts everybody anew anyway.

    Args:
        policy: name of one of :data:`POLICIES`.
        scenes: of each newcomer, at least one.

    Raises:
        ConfigError: the policy cannot be predicted for one of them.
    """
    turns: list[Turn] = []
    begin_s = 0.0
    for newcomer, scene in scenes.items():
        outcome = POLICIES[policy](scene)
        turns.append(Turn(newcomer, scene, outcome, begin_s))
        if policy != "pollux":
            begin_s += outcome.stall_s
    return turns


def summed_up(turns: list[Turn]) -> Outcome:
    """What all turns of a policy come to; who sends what is left to the turns."""
    outcomes = [turn.outcome for turn in turns]
    return Outcome(
        policy=outcomes[0].policy,
        source=", ".join(dict.fromkeys(outcome.source for outcome in outcomes)),
        transfer_s=max(turn.end_s for turn in turns),
        stall_s=max(turn.begin_s + turn.outcome.stall_s for turn in turns),
        bytes_from={},
        ends_s={},
    )
