"""What the demo shows while it runs: the state of the run as its logs tell it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lightning_chaos.monitor.runlog import LogEvent

SHOWN_EVENTS = 10
ROUNDS_PER_LINE = 20


@dataclass(slots=True)
class NodeRow:
    """One node on the board."""

    state: str = "starts"
    epoch: int = 0
    round: int = -1
    loss: float | None = None
    slow: bool = False


@dataclass(slots=True)
class PullBars:
    """A newcomer's pull while it goes on."""

    bytes: int
    total: int
    per_donor: dict[str, int]


@dataclass(slots=True)
class Board:
    """Folds events into what people want to see.

    Args:
        title: first line.
        nodes: every node of the demo.
        started: when the demo began, seconds since 1970.
    """

    title: str
    nodes: Sequence[str]
    started: float
    rows: dict[str, NodeRow] = field(init=False)
    members: list[str] = field(default_factory=list)
    epoch: int = 0
    round: int = -1
    loss: float | None = None
    pulls: dict[str, PullBars] = field(default_factory=dict)
    story: deque[str] = field(default_factory=lambda: deque(maxlen=SHOWN_EVENTS))

    def __post_init__(self) -> None:
        self.rows = {node: NodeRow() for node in self.nodes}

    def tell(self, t: float, text: str) -> str:
        """Add a line to the story; returns it as it is shown."""
        line = f"{t - self.started:6.1f} s  {text}"
        self.story.append(line)
        return line

    def apply(self, event: LogEvent) -> str | None:
        """Take in one event; returns a line for people if it is worth one."""
        row = self.rows.setdefault(event.node, NodeRow())
        match event.event:
            case "round":
                return self._round(event, row)
            case "view":
                return self._view(event, row)
            case "slow":
                return self._slow(event, row)
            case "pulling":
                self.pulls[event.node] = PullBars(
                    event["bytes"], event["total"], dict(event["per_donor"])
                )
                row.state = "pulls"
                return None
            case "pull":
                self.pulls.pop(event.node, None)
                donors = ", ".join(
                    f"{d['bytes'] / 1e6:.1f} from {d['node']}" for d in event["per_donor"]
                )
                text = f"pulled {event['bytes'] / 1e6:.1f} MB in {event['seconds']:.2f} s: {donors}"
                return self.tell(event.t, f"{event.node} {text}")
        if event.event not in _PHRASES:
            return None
        state, phrase = _PHRASES[event.event]
        row.state = state or row.state
        return self.tell(event.t, f"{event.node} {phrase(event)}")

    def _round(self, event: LogEvent, row: NodeRow) -> str | None:
        row.round, row.epoch, row.state = event["round"], event["epoch"], "trains"
        row.loss = event["loss"]
        if event["round"] <= self.round:
            return None
        self.round = event["round"]
        self.loss = event["loss"] if event["loss"] is not None else self.loss
        if self.round % ROUNDS_PER_LINE:
            return None
        loss = "" if self.loss is None else f", loss {self.loss:.3f}"
        members = len(event["members"])
        return f"{event.t - self.started:6.1f} s  round {self.round}, members: {members}{loss}"

    def _slow(self, event: LogEvent, row: NodeRow) -> str | None:
        row.slow, before = event["slow"], row.slow
        if row.slow == before:
            return None  # its share alone has changed
        times = f"{event['seconds']:.2f} s a round, usual are {event['usual']:.2f} s"
        text = f"slow ({times})" if row.slow else "no longer slow"
        return self.tell(event.t, f"{event.node} is {text}")

    def _view(self, event: LogEvent, row: NodeRow) -> str | None:
        row.epoch = event["epoch"]
        row.state = "pulls" if event.node in event["learners"] else "trains"
        if event["epoch"] <= self.epoch:
            return None
        for gone in set(self.members) - {*event["members"], *event["learners"]}:
            self.rows[gone].state = "gone"
        self.epoch, self.members = event["epoch"], list(event["members"])
        learners = f", {', '.join(event['learners'])} learns" if event["learners"] else ""
        # One that nobody planned comes in the middle of a round, when its switch is long past.
        begin = max(event["switch"], event["round"])
        return self.tell(
            event.t,
            f"view {self.epoch}: {' '.join(self.members)}{learners}, from round {begin}: "
            f"{event['reason']}",
        )

    def render(self) -> RenderableType:
        """The board as a picture for the terminal."""
        table = Table(expand=True)
        for name in ("node", "is", "epoch", "round", "loss"):
            table.add_column(name)
        for node, row in self.rows.items():
            member = node in self.members
            lead = " (lead)" if self.members[:1] == [node] else ""
            table.add_row(
                Text(node + lead, style="bold" if member else "dim"),
                f"{row.state}, slow" if row.slow else row.state,
                str(row.epoch) if row.epoch else "",
                str(row.round) if row.round >= 0 else "",
                f"{row.loss:.3f}" if row.loss is not None else "",
            )
        parts: list[RenderableType] = [Text(self.title, style="bold"), table]
        parts += [_bars(node, pull) for node, pull in self.pulls.items()]
        parts.append(Text("\n".join(self.story)))
        return Panel(Group(*parts))


_PHRASES: dict[str, tuple[str, Callable[[LogEvent], str]]] = {
    "start": ("starts", lambda e: f"started: worker {e['pid']}, peer {e['peer_pid']}"),
    "stand-by": ("stands by", lambda e: f"stands by until round {e['round']}"),
    "asks": ("asks to join", lambda e: f"asks to join (round {e['round']})"),
    "hold": ("", lambda e: f"stood still {e['seconds']:.2f} s to serve {', '.join(e['serving'])}"),
    "freeze": (
        "",
        lambda e: (
            f"was frozen {e['seconds'] * 1e3:.0f} ms: {e['reason']}"
            f"{' (operation done again)' if e['redone'] else ''}"
        ),
    ),
    "leave": ("leaves", lambda e: f"leaves after round {e['round']}"),
    "final": ("has trained", lambda e: f"finished: round {e['round']}, state {e['digest'][:12]}"),
    "end": ("ended", lambda e: f"ended: {e['reason']}"),
}


def _bars(node: str, pull: PullBars) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_row(
        Text(f"{node} pulls"), ProgressBar(pull.total, pull.bytes, width=40), _mb(pull.bytes)
    )
    for donor, size in pull.per_donor.items():
        table.add_row(Text(f"from {donor}"), ProgressBar(pull.total, size, width=40), _mb(size))
    return table


def _mb(size: int) -> Text:
    return Text(f"{size / 1e6:5.1f} MB")
