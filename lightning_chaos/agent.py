"""What a worker owes the torchrun agent that started it: to end with it, and to say whom it met.

The two speak through the worker's environment, which the rendezvous fills, and one small file.
This module is imported at the end of ``import torch``, so it imports next to nothing.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path

PID = "CHAOS_AGENT"
"""Variable with the agent's process id."""
MEMBERS = "CHAOS_AGENT_MEMBERS"
"""Variable with the path of the file for :func:`note_others`."""
GRACE_S = 10.0
"""How long a worker without an agent has for its polite leave, seconds."""

log = logging.getLogger(__name__)
_watched = False


def end_with_agent() -> None:
    """See that this process ends when its agent does; nothing without one.

    torchrun's workers have a session of their own, so without this one would train on for
    ever after its agent was killed.  Called again it does nothing.
    """
    global _watched
    text = os.environ.get(PID, "")
    if not text.isdigit() or _watched:
        return
    _watched = True
    try:
        agent = os.pidfd_open(int(text))
    except ProcessLookupError:
        agent = None
    except OSError as error:
        log.warning("cannot see whether torchrun (process %s) lives: %s", text, error)
        return
    # It waits in the kernel until the process ends, whose life is what it is there for.
    threading.Thread(target=_watch, args=(agent,), name="chaos-agent", daemon=True).start()


def _watch(agent: int | None) -> None:
    if agent is not None:
        poll = select.poll()
        poll.register(agent, select.POLLIN)
        poll.poll()
    log.warning("torchrun is gone: this worker leaves")
    os.kill(os.getpid(), signal.SIGTERM)  # in a fit a polite leave, elsewhere the end
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def note_others(addresses: Iterable[str]) -> None:
    """Tell the agent the addresses ``host:port`` of the other members of the view.

    A worker that is started again looks for the run there: it must not found a second one
    because its first address, its own say, has nobody to answer.
    """
    name = os.environ.get(MEMBERS, "")
    if not name:
        return
    path = Path(name)
    draft = path.with_suffix(".new")
    try:
        draft.write_text("".join(f"{address}\n" for address in addresses))
        draft.replace(path)
    except OSError as error:
        log.warning("cannot tell torchrun who else is in the run: %s", error)


def others_noted(path: Path) -> list[str] | None:
    """What the last worker noted: none if it was alone, None if it never was in the run."""
    try:
        return path.read_text().split()
    except FileNotFoundError:
        return None
