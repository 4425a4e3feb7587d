"""The demo's driver: what it starts, and that every way to fail has a name and leaves nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from lightning_chaos.demo.play import Settings, play, rates_of
from lightning_chaos.errors import ConfigError

BOUND_S = 30.0
"""Interpreters start meanwhile, on a machine that may be busy."""
WAITS = "import time; time.sleep(60)"
CRASHES = """
import os, time
if os.environ["CHAOS_NODE"] == "n2":
    raise SystemExit("no such data set")
time.sleep(60)
"""
TELLS = """
import os, sys, time
from pathlib import Path
from lightning_chaos.monitor.runlog import RunLog
node = os.environ["CHAOS_NODE"]
log = RunLog(Path(os.environ["CHAOS_LOG"]) / f"{node}.jsonl", node)
names = ("CHAOS_MIN_MEMBERS", "CHAOS_JOIN_AT", "CHAOS_LINK_RATE", "OMP_NUM_THREADS")
log.write("environment", args=sys.argv[1:], **{n: os.environ.get(n) for n in names})
logs = Path(os.environ["CHAOS_LOG"])
while sum(p.stat().st_size > 0 for p in logs.glob("*.jsonl")) < 3:
    time.sleep(0.01)
"""


def failure_of(tmp_path: Path, script: str, limit_s: float) -> tuple[str, str]:
    """The one failure that ended a demo of that script, and what was printed."""
    path = tmp_path / "train.py"
    path.write_text(script)
    screen = io.StringIO()
    settings = Settings(2, path, ("--fast",), 50.0, tmp_path / "kept", limit_s)
    report = play(settings, Console(file=screen, width=200))
    assert not report.passed
    (failure,) = report.failures
    return failure, screen.getvalue()


def test_the_time_limit_names_what_was_waited_for(tmp_path: Path) -> None:
    failure, screen = failure_of(tmp_path, WAITS, limit_s=0.3)
    assert failure == "0.3 s have passed; still waiting for the first round"
    assert "2 nodes and a newcomer" in screen
    assert "paced to 50 Mbit/s" in screen


def test_a_node_that_ends_by_itself_too_early_is_named_with_its_last_words(tmp_path: Path) -> None:
    failure, _ = failure_of(tmp_path, CRASHES, limit_s=BOUND_S)
    assert failure.startswith("n2 ended with exit code 1 while the demo was waiting for")
    assert failure.endswith("no such data set")


def test_every_node_gets_its_part_through_the_environment(tmp_path: Path) -> None:
    failure, _ = failure_of(tmp_path, TELLS, limit_s=BOUND_S)
    assert "ended with exit code 0 while" in failure
    told = {p.stem: p.read_text() for p in (tmp_path / "kept" / "logs").glob("*.jsonl")}
    assert set(told) == {"n1", "n2", "n3"}
    for node, text in told.items():
        assert '"args":["--fast"]' in text
        assert '"CHAOS_MIN_MEMBERS":"2"' in text
        assert '"CHAOS_LINK_RATE":"50"' in text
        assert ('"CHAOS_JOIN_AT":"30"' in text) == (node == "n3")


def test_links_of_their_own_put_every_node_behind_a_relay(tmp_path: Path) -> None:
    told = TELLS.replace('"CHAOS_LINK_RATE"', '"CHAOS_LINK_RATE", "CHAOS_RELAY", "CHAOS_PORT"')
    path = tmp_path / "train.py"
    path.write_text(told)
    screen = io.StringIO()
    settings = Settings(2, path, keep_logs=tmp_path / "kept", limit_s=BOUND_S, links_mbit=(20, 5))
    play(settings, Console(file=screen, width=200))
    assert "the newcomer's links carry 20, 5 Mbit/s with a round trip of 10 ms" in screen.getvalue()
    for node in ("n1", "n2", "n3"):
        text = (tmp_path / "kept" / "logs" / f"{node}.jsonl").read_text()
        assert '"CHAOS_LINK_RATE":"0"' in text
        assert '"CHAOS_RELAY":"127.0.0.1:' in text
        assert '"CHAOS_PORT":"' in text


@pytest.mark.parametrize(
    ("links", "problem"),
    [
        ("200,fast", "give one rate for each node, in Mbit/s"),
        ("200,100", "--links has 2 rates, and 3 nodes start"),
        ("200,100,0", "rate_mbit=0"),
        ("200,100,nan", "rate_mbit=nan"),
    ],
)
def test_links_that_cannot_be_are_refused(links: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        play(Settings(links_mbit=rates_of(links)), Console(file=io.StringIO()))


def test_a_script_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.py does not exist.*--script"):
        play(Settings(script=tmp_path / "nothing.py"), Console(file=io.StringIO()))
