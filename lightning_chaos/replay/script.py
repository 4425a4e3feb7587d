"""Runs a run's script again, alone, in this process."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from pathlib import Path

import torch

from lightning_chaos.errors import ChaosError, ReplayError
from lightning_chaos.replay.book import Book, Script, differs, read_book
from lightning_chaos.replay.verdict import ReplayDone, Verdict
from lightning_chaos.skin.origin import platform_of, script_digest


def replay(log: Path, script: Path | None = None) -> Verdict:
    """Recompute a run from its logs.  The process is the script's from here on: directory,
    arguments, environment and threads become what they were.

    Args:
        log: of one node, or a directory with those of several.
        script: where the script is now, None for where it was.

    Raises:
        ReplayError: log, script or machine do not allow it; the message says why.
    """
    log = log.resolve()
    book = read_book(log)
    was = book.script
    device = torch.device(was.platform["device"].partition(" ")[0])
    if found := differs(was.platform, platform_of(device)):
        name, then, now = found
        raise ReplayError(f"{name} was {then} in the run and is {now} here: bits would differ")
    file = _find(was, script)
    _become(book, file, log)
    try:
        if was.module and script is None:
            runpy.run_module(was.module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(file, run_name="__main__")
    except ReplayDone as done:
        return done.verdict
    except ChaosError:
        raise
    except SystemExit as end:
        raise ReplayError(f"the script ended with {end.code!r} before it had trained") from end
    except Exception as error:
        traceback.print_exc()
        raise ReplayError(f"the script failed: {type(error).__name__}: {error}") from error
    raise ReplayError('the script ended without a fit of Trainer(strategy="chaos")')


def _find(was: Script, script: Path | None) -> str:
    file = os.path.abspath(script) if script is not None else was.file
    if not file:
        raise ReplayError("the run was not started from a script; name one with --script")
    digest = script_digest(file)
    if not digest:
        raise ReplayError(f"the script {file} cannot be read; say where it is with --script")
    if digest != was.digest:
        print(f"{file} has changed since the run; going on with what it is now", file=sys.stderr)
    if not os.path.isdir(was.cwd):
        raise ReplayError(f"the directory {was.cwd}, in which the script ran, is gone")
    return file


def _become(book: Book, file: str, log: Path) -> None:
    """What the node was that began the run."""
    was = book.script
    for name in [n for n in os.environ if n.startswith("CHAOS_")]:
        del os.environ[name]
    os.environ |= was.env | {
        "CHAOS_NODE": book.node,
        "CHAOS_MIN_MEMBERS": str(was.min_members),
        "CHAOS_QUORUM": book.settings.get("quorum", ""),
        "CHAOS_SLOW": book.settings.get("slow", ""),
        "CHAOS_VERIFY_EVERY": book.settings.get("verify_every", ""),
        "CHAOS_REPLAY": str(log),
    }
    os.chdir(was.cwd)
    sys.argv = [file, *was.argv]
    sys.path[0] = os.path.dirname(file)
    torch.set_num_threads(was.threads)
