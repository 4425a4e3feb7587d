"""The run log: one file per node, one JSON object per line, readable while it grows.

Every line has ``t`` (seconds since 1970), ``node`` and ``event``; the other fields belong to
the event.  A line goes to the operating system in one write, so a process that is killed loses
at most the line it was writing, and a reader takes a line only when its end is there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lightning_chaos.errors import ConfigError, legible

log = logging.getLogger(__name__)


class LogEvent(msgspec.Struct, frozen=True):
    """One line of a run log."""

    t: float
    """Seconds since 1970 at the node that wrote it."""
    node: str
    event: str
    fields: dict[str, Any]
    """What belongs to the event, as JSON types."""

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def get(self, name: str, default: Any = None) -> Any:
        """A field of the event, or the default."""
        return self.fields.get(name, default)


class RunLog:
    """Appends events of one node; any thread may write.

    Args:
        path: file to append to; its directory is made if need be.  None writes nowhere.
        node: name of the node, part of every line.
        clock: seconds since 1970.

    Raises:
        ConfigError: the file cannot be opened.
    """

    def __init__(
        self, path: Path | None, node: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._node = node
        self._clock = clock
        self._lock = threading.Lock()
        self._fd = -1 if path is None else _open_for_append(path)

    def write(self, event: str, **fields: Any) -> None:
        """Append one line; after a failed write (disk full) warn once and write no more."""
        with self._lock:
            if self._fd < 0:
                return
            data = _line({"t": self._clock(), "node": self._node, "event": event, **fields})
            try:
                written = os.write(self._fd, data)
                reason = "the disk is full" if written < len(data) else ""
            except OSError as error:
                reason = error.strerror or str(error)
            if reason:
                log.warning(
                    "node %s goes on without its run log %s: %s", self._node, self._path, reason
                )
                self._shut()

    def close(self) -> None:
        """Write no more.  Idempotent."""
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_log(path: Path) -> list[LogEvent]:
    """Every event of one log, or of all logs in a directory, in order of time.

    Raises:
        ConfigError: there is no such log.
    """
    events = LogTail(path).poll() if path.is_dir() else _events_in(path)
    if not events:
        raise ConfigError(f"{path} is no run log, and no directory that holds any (*.jsonl)")
    return events


def _events_in(path: Path) -> list[LogEvent]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ConfigError(f"cannot read the run log {path}: {error.strerror}") from None
    whole = (line for line in lines if line.endswith(b"\n"))
    return sorted((event for line in whole if (event := _parse(line))), key=lambda e: e.t)


def last_rounds(directory: Path, run: str) -> list[LogEvent]:
    """The last round of every stay of a node in that run, as the logs of a directory tell."""
    found: list[LogEvent] = []
    for path in sorted(p for p in directory.glob("*.jsonl") if p.is_file()):  # no device
        stays, here = [b""], False
        with path.open("rb") as file:
            for line in file:
                if b'"event":"start"' in line:
                    event = _parse(line)
                    here = event is not None and event.get("run") == run
                    stays.append(b"")
                elif here and b'"event":"round"' in line and line.endswith(b"\n"):
                    stays[-1] = line
        found += [event for line in stays if (event := _parse(line))]
    return found


class LogTail:
    """Reads the run logs of a directory while nodes append to them.

    Args:
        directory: holds one ``<node>.jsonl`` per node, or a directory of its own for each; files
            may appear later.
        clock: seconds since 1970, the nodes' own.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock
        self._offsets: dict[Path, int] = {}
        self._later: list[LogEvent] = []

    def poll(self) -> list[LogEvent]:
        """Events that came since the last call, in order of time.

        A last line without its end waits for the next call; a line that is no event (cut off
        by a kill) is skipped.  What is written while the files are read waits, too: else an event
        of one node could come before what caused it at another, whose file was read first.
        """
        began = self._clock()
        events = self._later
        for path in sorted(self._directory.rglob("*.jsonl")):
            events += self._read(path)
        self._later = [e for e in events if e.t > began]
        return sorted((e for e in events if e.t <= began), key=lambda e: e.t)

    def _read(self, path: Path) -> list[LogEvent]:
        offset = self._offsets.get(path, 0)
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offsets[path] = offset + end
        return [event for line in data[:end].splitlines() if (event := _parse(line))]


def _open_for_append(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except (OSError, ValueError) as error:  # the latter of a name with a zero byte
        raise ConfigError(
            f"cannot write the run log {path}: {getattr(error, 'strerror', error)}. "
            "Choose another directory (log_dir=, CHAOS_LOG) or none"
        ) from None
    try:
        # A node killed in the middle of a line comes back: its first line begins afresh.
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")
    except OSError as error:
        os.close(fd)
        raise ConfigError(f"cannot write the run log {path}: {error.strerror}") from None
    return fd


def _line(fields: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(fields, enc_hook=_plain) + b"\n"
    except UnicodeEncodeError:  # names of files and arguments may hold any bytes
        return msgspec.json.encode(_legible(fields), enc_hook=_plain) + b"\n"


def _legible(value: Any) -> Any:
    """The same with every character that has no encoding as an escape."""
    match value:
        case str():
            return legible(value)
        case dict():
            return {_legible(name): _legible(item) for name, item in value.items()}
        case list() | tuple():
            return [_legible(item) for item in value]
        case _:
            return value


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python numbers.

    Raises:
        NotImplementedError: any other type.
    """
    if hasattr(value, "item"):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} cannot stand in a run log")


def _parse(line: bytes) -> LogEvent | None:
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
        return msgspec.convert(
            {
                "t": fields.pop("t"),
                "node": fields.pop("node"),
                "event": fields.pop("event"),
                "fields": fields,
            },
            LogEvent,
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        return None
