"""Real storms: by the command, cut short by a signal, and with a script that ends too early."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from cluster_fixtures import BOUND_S, SCRIPTS
from rich.console import Console
from test_storm_page import Page

from lightning_chaos import cli
from lightning_chaos.demo.board import Board
from lightning_chaos.errors import ConfigError
from lightning_chaos.monitor.runlog import LogEvent, read_log
from lightning_chaos.storm.figures import gather
from lightning_chaos.storm.interrupts import Interrupts
from lightning_chaos.storm.page import headline, render
from lightning_chaos.storm.play import Played, play
from lightning_chaos.storm.screen import Screen
from lightning_chaos.storm.settings import Settings, prepare
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.launch import ForkServer

pytestmark = pytest.mark.alone

FAULTS = """
- {at: {seconds: 1}, do: stop, node: n3}
- {at: {seconds: 4}, do: cont, node: n3}
- {at: {seconds: 5}, do: cut, a: n1, b: n2, how: reset}
- {at: {seconds: 5.5}, do: heal, a: n1, b: n2}
- {at: {seconds: 7}, do: kill, node: n2}
"""


def settings(tmp_path: Path, faults: str, minutes: float, *args: str) -> Settings:
    """A storm of three nodes that train the tests' script."""
    file = tmp_path / "faults.yaml"
    file.write_text(faults)
    return prepare(
        script=SCRIPTS / "train.py",
        script_args=args,
        nodes=3,
        minutes=minutes,
        seed=7,
        every_s=8.0,
        most_ended=8,
        faults=file,
        shape=Shape(rate_mbit=100.0, delay_ms=2.0),
        directory=tmp_path / "storm",
    )


def played(chosen: Settings, server: ForkServer) -> tuple[Played, str]:
    """Play it with forked nodes; returns what came of it, and what was shown."""
    shown = io.StringIO()
    board = Board(chosen.command, chosen.nodes, time.time())
    console = Console(file=shown, width=120)
    with Interrupts() as interrupts, Screen(console, board) as screen:
        return play(chosen, screen, interrupts, server), shown.getvalue()


# A command that starts its own fork server, three nodes and nine seconds of faults: not below 15 s.
def test_the_command_writes_a_report_whose_figures_are_those_of_the_logs(tmp_path: Path) -> None:
    (tmp_path / "faults.yaml").write_text(FAULTS)
    words = ["storm", "--script", str(SCRIPTS / "train.py"), "--nodes", "3", "--minutes", "0.15"]
    words += ["--faults", str(tmp_path / "faults.yaml"), "--rate", "100", "--delay", "2"]
    words += ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "figures.json")]
    result = CliRunner().invoke(cli.main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "---- kill n2 both" in result.output

    figures = json.loads((tmp_path / "figures.json").read_bytes())
    events = read_log(tmp_path / "out" / "logs")
    rounds = {e["round"] for e in events if e.event == "round"}
    assert figures["verdict"]["rounds"] == len(rounds)
    assert figures["verdict"]["finishing"] == ["n1", "n3"]
    digests = {e["digest"] for e in events if e.event == "final"}
    assert digests == {figures["verdict"]["digest"]}
    assert [lane["node"] for lane in figures["lanes"]] == ["n1", "n2", "n3"]
    stop, _, kill = figures["faults"]
    assert 0 < stop["cost"]["detect_s"] < stop["cost"]["view_s"] < 3
    assert "stopped" in {span["state"] for span in figures["lanes"][2]["spans"]}
    assert [(t["link"], t["kind"]) for t in figures["links"]["troubles"]] == [("n1 – n2", "cut")]
    assert kill["whys"]["back_s"] == "its worker is gone for good"
    assert min(figures["links"]["carried"][a][b] for a, b in (("n1", "n3"), ("n3", "n1"))) > 10_000

    page = Page((tmp_path / "out" / "report.html").read_text("utf-8"))
    assert "The run lived through all 3 faults." in page.text
    assert f"{len(rounds):,} an ordinary one takes" in page.text
    assert str(tmp_path) not in page.text.replace(figures["facts"]["command"], "")


def test_a_signal_ends_a_storm_politely_and_all_come_back_for_the_report(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    chosen = settings(tmp_path, "- {at: {round: 20}, do: stop, node: n3}", 5.0)
    with signal_once(chosen.directory / "truth.jsonl", '"do":"stop"'):
        storm, shown = played(chosen, fork_server)
    figures = gather(storm.events, storm.truth, storm.facts)
    assert storm.facts.ending == "ended by SIGTERM"
    assert figures.verdict.passed, figures.verdict.failures
    assert figures.verdict.finishing == ("n1", "n2", "n3")
    assert "Ended by SIGTERM after 0:" in headline(figures)
    assert "Ended by SIGTERM" in Page(render(figures)).text
    assert "---- cont n3" in shown


def test_a_script_that_ends_before_its_storm_is_no_failure(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    faults = (
        "- {at: {round: 1}, do: kill, node: n2, part: peer}\n"
        "- {at: {round: 100000}, do: kill, node: n1}\n"
    )
    chosen = settings(tmp_path, faults, 5.0, "--max-steps", "150")
    storm, _ = played(chosen, fork_server)
    figures = gather(storm.events, storm.truth, storm.facts)
    assert storm.facts.finished_itself
    assert figures.verdict.passed, figures.verdict.failures
    said = headline(figures)
    assert "Training came to its end after 0:" in said
    assert said.endswith("1 of 2 faults carried out.")


def test_a_script_that_cannot_run_is_one_error_with_its_last_words(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('no such data set')")
    chosen = replace(settings(tmp_path, "[]", 1.0), script=script)
    with pytest.raises(ConfigError, match=r"n1 ended with 1 and printed last:\nno such data set"):
        played(chosen, fork_server)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "0.1"], "0.1 minutes are too short for a storm; take 1 or more"),
        (["--faults", "late.yaml"], "1 faults come after 300 s, when the storm is over"),
        (["--minutes", "inf"], "a storm of inf minutes, a fault each 8 s: neither 0"),
        (["--every", "nan"], "a fault each nan s"),
        (["--faults", "alien.yaml"], "kill n9: n9 does not run then"),
        (["--rate", "5000"], "at most 1000 Mbit/s"),
        (["--out", "."], "holds an older storm; name another with --out DIR"),
    ],
)
def test_what_cannot_work_is_one_error_before_anything_starts(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("late.yaml").write_text("- {at: {seconds: 900}, do: heal}")
    Path("alien.yaml").write_text("- {at: {seconds: 9}, do: kill, node: n9}")
    Path("truth.jsonl").write_text("")
    result = CliRunner().invoke(cli.main, ["storm", *words])
    assert result.exit_code == 2
    assert said in result.output
    assert not Path("storm-7").exists()


def test_the_second_signal_ends_at_once_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.name == "SIGTERM"
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGINT)
    assert ended.value.code == 128 + signal.SIGINT
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_terminal_shows_a_picture_and_anything_else_a_story() -> None:
    event = LogEvent(1.0, "n1", "start", {"pid": 1, "peer_pid": 2})
    for terminal in (True, False):
        shown = io.StringIO()
        console = Console(file=shown, width=80, force_terminal=terminal)
        with Screen(console, Board("a storm", ["n1"], 0.0)) as screen:
            screen.take(event)
            screen.tell(2.0, "---- kill n1")
            screen.show(3.0, "storm · 4:50 left")
        assert ("╭" in shown.getvalue()) == terminal
        for text in ("a storm", "---- kill n1", "storm · 4:50 left"):
            assert text in shown.getvalue()


@contextlib.contextmanager
def signal_once(file: Path, text: str) -> Iterator[None]:
    """Send SIGTERM to this process as soon as that stands in the file."""

    def watch() -> None:
        deadline = time.monotonic() + 2 * BOUND_S  # nodes start meanwhile
        while time.monotonic() < deadline:
            if file.exists() and text in file.read_text():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()
