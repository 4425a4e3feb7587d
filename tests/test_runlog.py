"""The run log: what a node writes, a reader gets, whatever happens to the writer."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lightning_chaos.errors import ConfigError
from lightning_chaos.monitor.runlog import LogTail, RunLog, read_log


def test_a_reader_gets_each_event_once_and_in_order_of_time(tmp_path: Path) -> None:
    times = iter([3.0, 1.0, 2.0])
    tail = LogTail(tmp_path)
    assert tail.poll() == []
    a = RunLog(tmp_path / "a.jsonl", "a", clock=lambda: next(times))
    b = RunLog(tmp_path / "b.jsonl", "b", clock=lambda: next(times))
    a.write("round", round=7)
    b.write("round", round=5)
    assert [(e.t, e.node, e["round"]) for e in tail.poll()] == [(1.0, "b", 5), (3.0, "a", 7)]
    a.write("end", reason="done")
    (event,) = tail.poll()
    assert (event.event, event["reason"], event.get("missing")) == ("end", "done", None)
    assert tail.poll() == []
    a.close()
    b.close()


def test_every_machine_may_have_a_directory_of_its_own(tmp_path: Path) -> None:
    for node in ("a", "b"):
        log = RunLog(tmp_path / node / f"{node}.jsonl", node, clock=lambda: 1.0)
        log.write("start")
        log.close()
    assert [e.node for e in read_log(tmp_path)] == ["a", "b"]


def test_a_half_written_last_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    tail = LogTail(tmp_path)
    path.write_bytes(b'{"t":1,"node":"a","event":"x"}\n{"t":2,"no')
    assert [e.t for e in tail.poll()] == [1.0]
    with path.open("ab") as file:
        file.write(b'de":"a","event":"y"}\n')
    assert [e.event for e in tail.poll()] == ["y"]


def test_a_node_that_was_killed_in_a_line_begins_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"t":1,"node":"a","eve')
    log = RunLog(path, "a")
    log.write("start", pid=4)
    log.close()
    assert [e["pid"] for e in LogTail(tmp_path).poll()] == [4]


@pytest.mark.parametrize(
    "line", [b"garbage", b"[1,2]", b'{"t":1,"node":"a"}', b'{"t":"x","node":"a","event":"e"}']
)
def test_a_line_that_is_no_event_is_skipped(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(line + b"\n" + b'{"t":2,"node":"a","event":"ok"}\n')
    assert [e.event for e in LogTail(tmp_path).poll()] == ["ok"]


def test_no_path_writes_nowhere_and_a_closed_log_swallows(tmp_path: Path) -> None:
    nowhere = RunLog(None, "a")
    nowhere.write("round", round=1)
    nowhere.close()
    log = RunLog(tmp_path / "a.jsonl", "a")
    log.close()
    log.close()
    log.write("round", round=1)
    assert LogTail(tmp_path).poll() == []


def test_numbers_of_other_libraries_are_numbers(tmp_path: Path) -> None:
    import numpy as np

    log = RunLog(tmp_path / "a.jsonl", "a")
    log.write("round", loss=np.float32(0.5), nan=float("nan"), ranges=((0, 3),))
    log.close()
    (event,) = LogTail(tmp_path).poll()
    assert event.fields == {"loss": 0.5, "nan": None, "ranges": [[0, 3]]}


def test_what_has_no_encoding_is_written_as_an_escape(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "a.jsonl", "a")
    log.write("script", argv=["ok", os.fsdecode(b"caf\xe9")], env={"PL_X": "\udcff"})
    log.close()
    (event,) = LogTail(tmp_path).poll()
    assert event.fields == {"argv": ["ok", r"caf\udce9"], "env": {"PL_X": r"\udcff"}}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_warns_once_and_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(Path("/dev/full"), "a")
    for r in range(3):
        log.write("round", round=r)
    log.close()
    (record,) = caplog.records
    assert "node a goes on without its run log /dev/full" in record.getMessage()


def test_a_log_that_cannot_be_opened_says_how_to_choose_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/a\.jsonl.*CHAOS_LOG"):
        RunLog(tmp_path / "file" / "a.jsonl", "a")
    with pytest.raises(ConfigError, match=r"null byte.*CHAOS_LOG"):
        RunLog(tmp_path / "a\0b.jsonl", "a")


def test_lines_of_several_threads_never_mix(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "a.jsonl", "a")

    def write(thread: int) -> None:
        for r in range(200):
            log.write("round", thread=thread, round=r, text="x" * 100)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    seen = [(e["thread"], e["round"]) for e in LogTail(tmp_path).poll()]
    assert sorted(seen) == [(t, r) for t in range(4) for r in range(200)]


def test_what_is_written_while_others_are_read_waits_for_what_caused_it(tmp_path: Path) -> None:
    now = 10.0
    tail = LogTail(tmp_path, lambda: now)
    for node, t in (("a", 9.0), ("b", 10.5)):
        log = RunLog(tmp_path / f"{node}.jsonl", node, lambda t=t: t)  # type: ignore[misc]
        log.write("e")
        log.close()
    assert [e.node for e in tail.poll()] == ["a"]
    now = 11.0
    assert [e.node for e in tail.poll()] == ["b"]
    assert tail.poll() == []
