"""Nodes of one run on one machine find each other through a directory of the user's.

One sub-directory per run id; in it one file per live node and a lock that is held while a node
looks for the run and, finding nobody, founds it.  The directory belongs to the user and is
closed to all others, so a file in it is as trustworthy as the user's own processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import filelock
import msgspec

from lightning_chaos.errors import AddressError
from lightning_chaos.peer.machine import machine_key, process_birth, process_gone
from lightning_chaos.protocol.values import Member, Uid
from lightning_chaos.transport.address import Address

LOCK_WAIT_S = 30.0
_LOCK_POLL_S = 0.01


class Entry(msgspec.Struct, frozen=True):
    """What a live node's file says."""

    run: str
    uid: Uid
    node: str
    host: str
    port: int
    machine: str
    pid: int
    born: int
    """See :func:`process_birth`: tells a process from a later one with the same id."""
    candidate: bool
    """It has no part in a run yet: it waits for others to found one with."""

    @property
    def address(self) -> Address:
        """The node's door."""
        return Address(self.host, self.port)

    @property
    def checkable(self) -> bool:
        """Whether this process can see that one's process id."""
        return self.machine != "" and self.machine == machine_key()

    @property
    def gone(self) -> bool:
        """The peer that wrote the file is gone for sure."""
        return self.checkable and (process_gone(self.pid) or process_birth(self.pid) != self.born)


class DiscoveryDir:
    """The live nodes of one run on this machine.

    Args:
        run: id of the run.
        root: directory for all runs, None for the user's runtime directory.

    Raises:
        AddressError: the directory belongs to somebody else or is open to others.
    """

    def __init__(self, run: str, root: Path | None = None) -> None:
        top = root if root is not None else runtime_dir()
        self._run = run
        self.path = top / _file_name(run)
        _make_private(top)
        _make_private(self.path)

    def entries(self) -> list[Entry]:
        """What the files of all live nodes say, in order of their names; removes stale ones."""
        return _live_entries(self.path)

    def inside(self) -> list[Entry]:
        """Those that have founded or found the run, or are about to."""
        return [entry for entry in self.entries() if not entry.candidate]

    def candidates(self) -> list[Entry]:
        """Those that wait for the run to be founded."""
        return [entry for entry in self.entries() if entry.candidate]

    def live(self) -> list[Address]:
        """Doors of all live nodes on this machine that have a part in the run."""
        return [entry.address for entry in self.inside()]

    def add(self, member: Member, *, candidate: bool = False) -> None:
        """Let others find this process, the peer of that member.

        Args:
            member: this incarnation.
            candidate: it waits for others to found the run with.
        """
        entry = Entry(
            run=self._run,
            uid=member.uid,
            node=member.node,
            host=member.host,
            port=member.port,
            machine=member.machine,
            pid=member.pid,
            born=process_birth(member.pid),
            candidate=candidate,
        )
        path = self._file(member.uid)
        draft = path.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(entry))
        draft.replace(path)

    def remove(self, uid: Uid) -> None:
        """Let nobody find that incarnation any more."""
        self._file(uid).unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def founding(self, wait_s: float = LOCK_WAIT_S) -> AsyncIterator[None]:
        """While inside, no other node of this machine may look for the run or found it.

        Raises:
            AddressError: somebody else has held the lock for ``wait_s`` seconds.
        """
        lock = filelock.FileLock(self.path / "founding.lock", thread_local=False)
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except filelock.Timeout:
                if asyncio.get_running_loop().time() > deadline:
                    raise AddressError(
                        f"another node has held {lock.lock_file} for {wait_s:g} s and neither "
                        "founded the run nor found it; end that process or choose another run "
                        "(run=, CHAOS_RUN)"
                    ) from None
                await asyncio.sleep(_LOCK_POLL_S)
        try:
            yield
        finally:
            lock.release()

    def _file(self, uid: Uid) -> Path:
        return self.path / f"{_file_name(uid)}.json"


def live_runs() -> list[str]:
    """Ids of all runs of this user with a live node on this machine, in order."""
    folders = [path for path in runtime_dir().glob("*") if path.is_dir()]
    return sorted({entry.run for folder in folders for entry in _live_entries(folder)})


def runtime_dir() -> Path:
    """Where this user's nodes of all runs meet on this machine.

    ``$XDG_RUNTIME_DIR``, else ``/run/user/<uid>`` where that exists (also for processes that
    were not started from a login), else a directory of ours among the temporary files.
    """
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    for base in (Path(named) if named else None, Path(f"/run/user/{os.geteuid()}")):
        if base is not None and base.is_dir() and os.access(base, os.W_OK | os.X_OK):
            return base / "lightning-chaos"
    return Path(tempfile.gettempdir()) / f"lightning-chaos-{os.geteuid()}"


def default_run(script: str, user: Callable[[], int] = os.geteuid) -> str:
    """Run id of a script that names none: the same for the same file and user."""
    path = Path(script).resolve()
    digest = hashlib.sha256(f"{path} {user()}".encode()).hexdigest()[:8]
    return f"{path.stem or 'run'}-{digest}"


def _live_entries(folder: Path) -> list[Entry]:
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=Entry)
        except FileNotFoundError:
            continue
        except (OSError, msgspec.MsgspecError):
            # Files appear whole, so this one is nobody's.
            path.unlink(missing_ok=True)
            continue
        if entry.gone:
            path.unlink(missing_ok=True)
        else:
            found.append(entry)
    return found


def _make_private(path: Path) -> None:
    """Make the directory if need be and see that it is the user's alone."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise AddressError(f"cannot use {path} to find other nodes: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise AddressError(
            f"{path} is not a directory that belongs to you alone (mode 0700), so others could "
            "lead this node astray; remove it or set XDG_RUNTIME_DIR to a directory of yours"
        )


def _file_name(text: str) -> str:
    """A file name for any text: readable, and different for different texts."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", text)[:80]
    if safe == text:
        return safe
    return f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
