"""Faults as a script: what is done to whom and when, as values.

In Python::

    Schedule.of(at(round=5).kill("n2"), at(round=9).cut("n1", "n3"), at(round=15).heal("n1", "n3"))

In YAML the same, read by :meth:`Schedule.read`::

    - {at: {round: 5}, do: kill, node: n2}
    - {at: {round: 9}, do: cut, a: n1, b: n3}
    - {at: {round: 15}, do: heal, a: n1, b: n3}
    - {at: {round: 20}, do: throttle, a: n1, b: n2, shape: {rate_mbit: 20, delay_ms: 30}}
"""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import Any

import msgspec

from lightning_chaos.errors import ConfigError
from lightning_chaos.testing.lab.conditions import Cut, Shape


class Part(enum.StrEnum):
    """Which process of a node is meant."""

    BOTH = "both"
    WORKER = "worker"
    PEER = "peer"


class _Deed(msgspec.Struct, frozen=True, tag_field="do", forbid_unknown_fields=True):
    """Something that is done to a node or a link."""


class Kill(_Deed, frozen=True, tag="kill"):
    """SIGKILL."""

    node: str
    part: Part = Part.BOTH


class Stop(_Deed, frozen=True, tag="stop"):
    """SIGSTOP, as when a laptop's lid is shut."""

    node: str
    part: Part = Part.BOTH


class Cont(_Deed, frozen=True, tag="cont"):
    """SIGCONT to all that was stopped of a node."""

    node: str


class Leave(_Deed, frozen=True, tag="leave"):
    """SIGTERM to the worker: it leaves politely."""

    node: str


class Join(_Deed, frozen=True, tag="join"):
    """A node is started, under a name that was not used before."""

    node: str


class CutLink(_Deed, frozen=True, tag="cut"):
    """Both directions of a link are cut."""

    a: str
    b: str
    how: Cut = Cut.SILENT


class CutOneWay(_Deed, frozen=True, tag="cut_one_way"):
    """The direction from ``a`` to ``b`` is cut."""

    a: str
    b: str
    how: Cut = Cut.SILENT


class Throttle(_Deed, frozen=True, tag="throttle"):
    """A link gets another shape, both ways."""

    a: str
    b: str
    shape: Shape


class Heal(_Deed, frozen=True, tag="heal"):
    """Links carry again, both ways, in the shape they had; '*' is every node."""

    a: str = "*"
    b: str = "*"


Deed = Kill | Stop | Cont | Leave | Join | CutLink | CutOneWay | Throttle | Heal


class At(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When: once that round is stable anywhere, or so many seconds after the begin."""

    round: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.round is None) == (self.seconds is None) or not 0 <= self.place < math.inf:
            raise ConfigError(
                f"at round={self.round}, seconds={self.seconds}: give one of the two, from 0 on"
            )

    @property
    def place(self) -> float:
        """In the order of things."""
        return float(self.round if self.round is not None else self.seconds or 0.0)

    # ---- the fluent way ----------------------------------------------------------------------

    def kill(self, node: str, part: Part = Part.BOTH) -> Fault:
        """See :class:`Kill`."""
        return Fault(self, Kill(node, part))

    def stop(self, node: str, part: Part = Part.BOTH) -> Fault:
        """See :class:`Stop`."""
        return Fault(self, Stop(node, part))

    def cont(self, node: str) -> Fault:
        """See :class:`Cont`."""
        return Fault(self, Cont(node))

    def leave(self, node: str) -> Fault:
        """See :class:`Leave`."""
        return Fault(self, Leave(node))

    def join(self, node: str) -> Fault:
        """See :class:`Join`."""
        return Fault(self, Join(node))

    def cut(self, a: str, b: str, how: Cut = Cut.SILENT) -> Fault:
        """See :class:`CutLink`."""
        return Fault(self, CutLink(a, b, how))

    def cut_one_way(self, a: str, b: str, how: Cut = Cut.SILENT) -> Fault:
        """See :class:`CutOneWay`."""
        return Fault(self, CutOneWay(a, b, how))

    def throttle(self, a: str, b: str, shape: Shape) -> Fault:
        """See :class:`Throttle`."""
        return Fault(self, Throttle(a, b, shape))

    def heal(self, a: str = "*", b: str = "*") -> Fault:
        """See :class:`Heal`."""
        return Fault(self, Heal(a, b))


def at(*, round: int | None = None, seconds: float | None = None) -> At:
    """When a fault happens: ``at(round=5).kill("n2")``.

    Raises:
        ConfigError: neither or both are given, or less than 0.
    """
    return At(round, seconds)


class Fault(msgspec.Struct, frozen=True):
    """What happens when."""

    at: At
    deed: Deed

    def plain(self) -> dict[str, Any]:
        """As in YAML."""
        when = msgspec.to_builtins(self.at)
        return {
            "at": {k: v for k, v in when.items() if v is not None},
            **msgspec.to_builtins(self.deed),
        }


class Schedule(msgspec.Struct, frozen=True):
    """Faults in the order in which they happen."""

    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, *faults: Fault) -> Schedule:
        """Faults in any order; those of the same time happen in the order given.

        Raises:
            ConfigError: some go by rounds and some by seconds; a name joins twice.
        """
        if len({fault.at.round is None for fault in faults}) > 1:
            raise ConfigError(
                "some faults go by rounds and some by seconds: which comes first is not known "
                "before the run; give all of a schedule in one of them"
            )
        joined = [fault.deed.node for fault in faults if isinstance(fault.deed, Join)]
        if twice := {node for node in joined if joined.count(node) > 1}:
            raise ConfigError(f"{', '.join(sorted(twice))} joins twice: take a new name each time")
        return cls(tuple(sorted(faults, key=lambda fault: fault.at.place)))

    @classmethod
    def read(cls, path: Path) -> Schedule:
        """A schedule from a YAML file.

        Raises:
            ConfigError: the file cannot be read or holds something else; says where.
        """
        try:
            entries = msgspec.yaml.decode(path.read_bytes(), type=list[dict[str, Any]])
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(f"{path} is not a schedule of faults: {error}") from None
        return cls.of(*(_fault(entry, f"{path}, fault {n}") for n, entry in enumerate(entries, 1)))

    def write(self, path: Path) -> None:
        """Into a YAML file that :meth:`read` takes."""
        path.write_bytes(msgspec.yaml.encode([fault.plain() for fault in self.faults]))


def _fault(entry: dict[str, Any], where: str) -> Fault:
    rest = dict(entry)
    try:
        when = msgspec.convert(rest.pop("at", {}), At)
        return Fault(when, msgspec.convert(rest, Deed))
    except (msgspec.MsgspecError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from None
