"""Which machine this is, and which of its processes are gone.

On one machine the death of a process is a fact, not a suspicion: "no such process" is never
said of a live one, whatever the network does.  A process id used anew only delays that.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def machine_key() -> str:
    """Equal for two processes if and only if each can see the other's process id.

    Made of the boot id and the pid namespace; '' where the system does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:16]


def process_gone(pid: int) -> bool:
    """True if no live process of this machine has that id (a zombie is not alive)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    except OverflowError:
        return True
    return _stat_fields(pid)[:1] in (["Z"], ["X"])


def process_stopped(pid: int) -> bool:
    """True while a signal (SIGSTOP, Ctrl-Z) has stopped it; a debugger's stop does not count."""
    return _stat_fields(pid)[:1] == ["T"]


def process_birth(pid: int) -> int:
    """Clock ticks between boot and the start of the process, 0 if unknown.

    With the process id it names a process for as long as the machine is up.
    """
    fields = _stat_fields(pid)
    return int(fields[19]) if len(fields) > 19 else 0


def _stat_fields(pid: int) -> list[str]:
    """Fields of ``/proc/<pid>/stat`` from the state on, see proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.readall()
    except OSError:
        return []
    return text.rpartition(b")")[2].decode().split()
