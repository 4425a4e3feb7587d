"""Every error that lightning-chaos raises.

ChaosError
├── ConfigError             an argument or environment variable that cannot work
│   └── AddressError        a peer address that is malformed, refused or not allowed
├── JoinError               the run did not take this node
│   ├── FingerprintError    because its settings differ from the run's
│   ├── LineageError        because this node has the newer state
│   └── PeerGone            because its own peer process has ended
├── RunFinished             the run this node looked for has ended already
├── WireError               a malformed, truncated or oversized message
├── StateError              training state that cannot be laid out, pulled, saved or loaded
│   └── StateDeclined       because members cannot send theirs, or this node cannot take it
├── DataError               a DataLoader that cannot be shared exactly
├── PlanError               a plan that cannot be made, or not be proved the best
├── OperationMismatch       members asked for different operations under one number
├── LabError                the lab's network is not what it was told to be
├── ReplayError             a run log that cannot be replayed here
└── NodeLost                this node can no longer take part in the run
    └── QuorumLost          because too few of the members could be reached for too long
"""

from __future__ import annotations


class ChaosError(Exception):
    """Base of all errors of lightning-chaos."""


class ConfigError(ChaosError, ValueError):
    """An argument or environment variable cannot work; the message says which and what to do."""


class AddressError(ConfigError):
    """A peer address is malformed, cannot be reached or may not be used."""


class JoinError(ChaosError, RuntimeError):
    """The run did not take this node."""


class FingerprintError(JoinError):
    """This node's settings differ from the run's; the message names the first difference."""


class LineageError(JoinError):
    """The run's state is older than the checkpoint that this node was to go on from."""


class PeerGone(JoinError):
    """The peer process ended before it had founded the run or found it; another one may."""


class RunFinished(ChaosError):
    """The run this node looked for has ended already.

    Args:
        round_: its last.
    """

    def __init__(self, round_: int) -> None:
        super().__init__(f"the run finished after round {round_}")
        self.round = round_


class WireError(ChaosError):
    """A message is malformed, truncated, oversized or of another protocol version."""


class StateError(ChaosError, RuntimeError):
    """The training state cannot be laid out, pulled, saved or restored."""


class StateDeclined(StateError):
    """The members cannot send their state, or this node not take it, now or later; says why."""


class DataError(ChaosError, ValueError):
    """A DataLoader cannot be shared so that every sample counts exactly once."""


class PlanError(ChaosError, RuntimeError):
    """A plan cannot be made, or not be proved the best; the message says what to change."""


class OperationMismatch(ChaosError, RuntimeError):
    """Members asked for different collective operations under the same number."""


class NodeLost(ChaosError, RuntimeError):
    """This node can no longer take part in the run (its peer process died too often, say)."""


class QuorumLost(NodeLost):
    """Too few members could be reached for too long; the message says how many, and what to do."""


class ReplayError(ChaosError, RuntimeError):
    """A run log does not say enough, contradicts itself, or is of another machine or script."""


class LabError(ChaosError, RuntimeError):
    """The lab's network does not do what it was told to; the message says what is amiss."""


_LONGEST_LINE = 1000


def in_a_line(error: BaseException) -> str:
    """Kind and message of any error, a user's too, as a line that can be logged and sent."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # its own message is one more mistake
        text = ""
    line = f"{type(error).__name__}: {text}".rstrip(": ")
    return legible(line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…")


def legible(text: str) -> str:
    """That text with an escape for whatever has no encoding, as names of files may hold."""
    return text.encode(errors="backslashreplace").decode()
