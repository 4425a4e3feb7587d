"""The lab's processes in C: compiled on the spot, then spoken to in messages of text."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from lightning_chaos.errors import ConfigError, LabError

_HERE = Path(__file__).parent
_ROOMS = {"relay": "relay", "switch": "wan"}
_COMPILERS = ("gcc", "cc", "clang")
_OPTIONS = ("-std=gnu11", "-O2")
_COMPILE_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 5.0
_MESSAGE_BYTES = 32 << 10
_ANSWER_BYTES = 64 << 10


def missing() -> str:
    """What keeps them from working here, '' if nothing does."""
    if sys.platform != "linux":
        return "the lab's networks need Linux"
    if _compiler() is None:
        return "the lab's networks are compiled on the spot, with gcc or clang; install one"
    return ""


def compiled(name: str) -> Path:
    """The program of that name for this machine; compiled once for each version of its source.

    Args:
        name: "relay" or "switch".

    Raises:
        ConfigError: there is no compiler, or it refuses; shows what it said.
    """
    if why := missing():
        raise ConfigError(why)
    sources = sorted((*_HERE.glob("*.[ch]"), *(_HERE / _ROOMS[name]).glob("*.[ch]")))
    text = b"\0".join(path.read_bytes() for path in sources)
    digest = hashlib.sha256(" ".join(_OPTIONS).encode() + text).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning-chaos"
    binary = cache / f"{name}-{digest}"
    if binary.exists():
        return binary
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            draft = Path(directory, name)
            compile_c([path for path in sources if path.suffix == ".c"], draft)
            draft.replace(binary)
    except OSError as error:
        raise ConfigError(
            f"what the lab compiles is kept in {cache}, where nothing can be written: {error}; "
            "set XDG_CACHE_HOME to a directory of yours"
        ) from None
    return binary


class Native:
    """A process that ends with this one, however that ends.

    Args:
        name: see :func:`compiled`.
        arguments: after the first one, which is its control socket.
        files: file descriptors that it inherits.

    Raises:
        ConfigError: see :func:`compiled`.
    """

    def __init__(self, name: str, arguments: Sequence[str], files: Sequence[int]) -> None:
        self._name = name
        binary = compiled(name)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [str(binary), str(theirs.fileno()), *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *files),
                start_new_session=True,
            )
        ours.settimeout(_ANSWER_TIMEOUT_S)
        self._socket = ours
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def obey(self, orders: Sequence[str]) -> None:
        """Do this; as many as fit one message take effect in one moment.

        Raises:
            LabError: it has ended, or does not understand.
        """
        message = ""
        for order in orders:
            if len(message) + len(order) >= _MESSAGE_BYTES:
                self.ask(message)
                message = ""
            message += order + "\n"
        if message:
            self.ask(message)

    def ask(self, *messages: str) -> str:
        """Its answer to the last; all are under way before the first is answered.

        Raises:
            LabError: see :meth:`obey`.
        """
        with self._lock:
            try:
                for message in messages:
                    self._socket.send(message.encode())
                answers = [self._socket.recv(_ANSWER_BYTES).decode() for _ in messages]
            except OSError as error:
                raise LabError(f"the lab's {self._name} does not answer: {error}") from error
        for answer in answers:
            if not answer:
                raise LabError(f"the lab's {self._name} has ended; see what it printed")
            if answer.startswith("not understood"):
                raise LabError(f"the lab's {self._name}: {answer}")
        return answers[-1]

    def close(self) -> None:
        """End the process.  Idempotent."""
        self._socket.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def compile_c(sources: Sequence[Path], target: Path, *options: str) -> None:
    """Make a program, or with such options something else, of sources in C.

    Raises:
        ConfigError: see :func:`compiled`.
    """
    compiler = _compiler()
    if compiler is None:
        raise ConfigError(missing())
    result = subprocess.run(
        [compiler, *_OPTIONS, *options, "-o", str(target), *map(str, sources)],
        capture_output=True,
        text=True,
        timeout=_COMPILE_TIMEOUT_S,
    )
    if result.returncode:
        raise ConfigError(f"{compiler} cannot compile the lab's {target.name}:\n{result.stderr}")


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, _COMPILERS)), None)
