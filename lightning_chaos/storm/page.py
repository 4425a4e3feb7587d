"""The report: one HTML file that needs nothing else, neither a network nor scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from lightning_chaos.storm.costs import TIMES, Priced
from lightning_chaos.storm.figures import Figures
from lightning_chaos.storm.lanes import State
from lightning_chaos.storm.plot import clock, picture, short, tone

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
HEADS = {
    "detect_s": "detect",
    "view_s": "view",
    "resume_s": "resume",
    "back_s": "back",
    "still_s": "stand-still",
}
PARTS = ("working", "waiting", *(state for state in State if state is not State.MEMBER))


@dataclass(frozen=True, slots=True)
class Cell:
    """A time of a fault, or the letter of why there is none."""

    text: str
    why: str = ""
    letter: str = ""


def render(figures: Figures) -> str:
    """The page as text; whatever comes from names and logs is escaped."""
    environment = Environment(
        loader=PackageLoader("lightning_chaos.storm", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": clock,
        "seconds": seconds,
        "size": size,
        "short": short,
        "tone": tone,
        "count": lambda number: f"{number:,.0f}",
    }
    letters, rows = _cost_rows(figures.faults)
    return environment.get_template("report.html").render(
        f=figures,
        facts=figures.facts,
        verdict=figures.verdict,
        picture=picture(figures),
        headline=headline(figures),
        cost_rows=rows,
        letters=letters,
        heads=HEADS,
        parts=PARTS,
        states=list(State),
    )


def headline(figures: Figures) -> str:
    """The verdict in one sentence."""
    verdict, facts = figures.verdict, figures.facts
    lost = verdict.carried_out - verdict.survived
    if verdict.passed and not lost:
        met = {0: "without a fault", 1: "through its one fault"}
        many = f"through all {verdict.carried_out} faults"
        said = f"The run lived {met.get(verdict.carried_out, many)}."
    elif lost:
        said = f"The run did not live through {lost} of {verdict.carried_out} faults."
    else:
        said = "The run did not keep its promises."
    if facts.ending:
        said += (
            f" {facts.ending[:1].upper()}{facts.ending[1:]} after {clock(facts.over)}, "
            f"{verdict.carried_out} of {facts.planned} faults carried out."
        )
    return said


def seconds(value: float | None) -> str:
    """A duration for people, three digits or so; a dash for none."""
    if value is None:
        return "—"
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms"
    return f"{value:.2f} s" if value < 99.5 else f"{value:.0f} s"


def size(count: int) -> str:
    """Bytes for people."""
    if count < 1_000_000:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1_000_000_000 else f"{count / 1e9:.2f} GB"


def _cost_rows(faults: Sequence[Priced]) -> tuple[dict[str, str], list[tuple[Priced, list[Cell]]]]:
    """Reasons by letter, and a row of times per fault."""
    letters: dict[str, str] = {}
    rows = []
    for one in faults:
        cells = []
        for name in TIMES:
            why = one.whys.get(name, "")
            letter = letters.setdefault(why, _LETTERS[len(letters)]) if why else ""
            cells.append(Cell(seconds(getattr(one.cost, name)), why, letter))
        rows.append((one, cells))
    return {letter: why for why, letter in letters.items()}, rows
