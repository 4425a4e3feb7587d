"""A run can be recomputed by one process from its logs, bit for bit, whatever happened to it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cluster_fixtures import SCRIPTS, Cluster, replayed

from lightning_chaos.errors import ReplayError
from lightning_chaos.replay.book import read_book
from lightning_chaos.skin.chance import begin_chance
from lightning_chaos.testing.launch import ForkServer

pytestmark = pytest.mark.timeout(120)
Line = dict[str, Any]


@dataclass(frozen=True)
class Recorded:
    """A run that has ended, and where its logs are."""

    logs: Path
    digest: str
    fork_server: ForkServer

    def replay(self, logs: Path, *args: str) -> tuple[int, str]:
        """Exit code and output of ``lightning-chaos replay``."""
        return replayed(self.fork_server, logs, *args)

    def changed(self, directory: Path, change: Callable[[Line], None]) -> Path:
        """A copy of the logs in which every line went through ``change``."""
        logs = directory / "logs"
        shutil.copytree(self.logs, logs)
        for path in logs.glob("*.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                change(line)
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return logs


@pytest.fixture(scope="module")
def recorded(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Three nodes train, a fourth joins, the oldest is killed, another one leaves."""
    with Cluster(
        SCRIPTS / "replayed.py",
        directory=tmp_path_factory.mktemp("recorded"),
        env={"CHAOS_LINGER": "0"},
        launcher=fork_server,
    ) as run:
        run.up("a", "b", "c")
        run.start("d")
        run.wait_members("a", "b", "c", "d")
        run.wait_rounds(3)
        run.kill("a")
        run.wait_members("b", "c", "d")
        run.wait_rounds(3)
        run.leave("c")
        run.wait_members("b", "d")
        run.wait_rounds(3)
        run.finish("b", "d")
        digest = run.told("final")[-1]["digest"]
    return Recorded(run.log_dir, digest, fork_server)


def test_one_process_arrives_at_the_state_of_a_run_that_grew_was_hurt_and_shrank(
    recorded: Recorded, tmp_path: Path
) -> None:
    logs = recorded.changed(tmp_path, lambda line: None)
    before = sorted(recorded.logs.parent.rglob("*"))
    code, said = recorded.replay(logs)
    assert code == 0, said
    assert "of 4 nodes (a, b, c, d)" in said
    assert said.count(recorded.digest) == 2
    assert "equal, bit for bit" in said
    assert sorted(recorded.logs.parent.rglob("*")) == before, "a replay writes nothing"


def test_another_order_of_the_members_is_another_sum(recorded: Recorded, tmp_path: Path) -> None:
    def swap(line: Line) -> None:
        if line["event"] == "round" and line["round"] == 2:
            for name in ("members", "ranges", "weights"):
                line[name][1:] = reversed(line[name][1:])

    code, said = recorded.replay(recorded.changed(tmp_path, swap))
    assert code == 1, said
    assert "NOT EQUAL; the sums differ first in round 2" in said


def test_a_weight_that_the_samples_do_not_make_is_named(recorded: Recorded, tmp_path: Path) -> None:
    def heavier(line: Line) -> None:
        if line["event"] == "round" and line["round"] == 3:
            line["weights"][0] += 1

    code, said = recorded.replay(recorded.changed(tmp_path, heavier))
    assert code == 2
    assert "round 3: the log gives weights [9.0, 8.0" in said


def test_samples_that_were_somebody_elses_are_named(recorded: Recorded, tmp_path: Path) -> None:
    def shift(line: Line) -> None:
        if line["event"] == "round" and line["round"] == 1:
            line["ranges"][1][0][1] -= 1

    code, said = recorded.replay(recorded.changed(tmp_path, shift))
    assert code == 2
    assert "round 1: the log gives b/" in said
    assert "by what was committed before they are" in said


def test_a_script_that_begins_elsewhere_is_told_to_seed(recorded: Recorded, tmp_path: Path) -> None:
    code, said = recorded.replay(*_with_script(recorded, tmp_path, ".encode()", ".encode()[:0]"))
    assert code == 2
    assert "began with another state" in said
    assert "seed_everything" in said


def test_another_script_is_told_what_differs(recorded: Recorded, tmp_path: Path) -> None:
    code, said = recorded.replay(*_with_script(recorded, tmp_path, "val=0.5", "val=0.25"))
    assert code == 2
    assert "other.py has changed since the run" in said
    assert "gradient_clip_val was 0.5 in the run and is 0.25 here" in said


def _with_script(recorded: Recorded, tmp_path: Path, old: str, new: str) -> tuple[Path, str, str]:
    """Arguments for a replay by a script that is not quite the run's."""
    script = tmp_path / "other.py"
    script.write_text((SCRIPTS / "replayed.py").read_text().replace(old, new))
    return recorded.changed(tmp_path, lambda line: None), "--script", str(script)


def test_one_log_is_enough_where_it_has_every_round(recorded: Recorded) -> None:
    whole = read_book(recorded.logs)
    of_one = read_book(recorded.logs / "b.jsonl")
    for name in ("node", "settings", "rounds", "initial", "final", "stopped"):
        assert getattr(of_one, name) == getattr(whole, name)
    with pytest.raises(ReplayError, match=r"d\.jsonl lacks rounds 0-\d+ of"):
        read_book(recorded.logs / "d.jsonl")


def of(event: str, **fields: Any) -> Callable[[Line], bool]:
    """Whether a line is that event and has these values."""
    return lambda line: {**fields, "event": event}.items() <= line.items()


@pytest.mark.parametrize(
    ("which", "change", "error"),
    [
        (of("final"), {"event": "lost"}, "no log tells of the run's end"),
        (of("final", node="b"), {"digest": "0" * 32}, "nodes did not end alike"),
        (of("round", round=4), {"event": "lost"}, r"lacks rounds 4 of \d+"),
        (of("round", round=4, node="b"), {"weights": [1.0]}, "contradict.*round 4.*weights"),
        (of("round", round=4, node="b"), {"threads": 7}, "round 4 .* 7.* threads"),
        (of("start", node="b"), {"run": "other"}, "tells of 2 runs"),
        (of("view", node="b"), {"generation": 1}, "tells of generations 0, 1"),
        (of("script", node="b"), {"platform": {"torch": "1.0"}}, "computed with torch"),
        (of("script"), {"event": "lost"}, "does not tell which script"),
        (
            of("end", node="b"),
            {"event": "drift", "round": 3, "members": ["b"], "content": "a weight"},
            r"in round 3 b differed from the other members \(a weight\)",
        ),
    ],
)
def test_logs_that_are_not_one_whole_run_are_refused_with_the_reason(
    recorded: Recorded,
    tmp_path: Path,
    which: Callable[[Line], bool],
    change: Line,
    error: str,
) -> None:
    def spoil(line: Line) -> None:
        if which(line):
            line.update(change)

    with pytest.raises(ReplayError, match=error):
        read_book(recorded.changed(tmp_path, spoil))


def draws(seed: int, epoch: int, position: int) -> tuple[float, float, float]:
    begin_chance(seed, epoch, position, torch.device("cpu"))
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_chance_is_a_function_of_seed_epoch_and_samples() -> None:
    seen = {draws(s, e, p) for s in (0, 1, 2**63) for e in (0, 1) for p in (0, 8)}
    assert len(seen) == 12
    random.random()
    torch.rand(3)
    assert draws(1, 1, 8) in seen
