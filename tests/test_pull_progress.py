"""The pull's bars are for whoever looks at a terminal, and nothing hangs on them."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import sys
from collections.abc import Iterator

import pytest

from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.replication.values import Progress
from lightning_chaos.skin import progress as progress_module
from lightning_chaos.skin.progress import PullProgress
from lightning_chaos.worker.node import Node


@pytest.fixture
def node() -> Iterator[Node]:
    """One that has not been opened."""
    node = Node(PeerConfig(run="r", node="a"))
    yield node
    node.close()


@contextlib.contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other side of a terminal that is standard error."""
    ours, theirs = pty.openpty()
    monkeypatch.setattr(progress_module, "_EVERY_S", 0.0)
    stream = os.fdopen(theirs, "w")
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        yield ours
    with contextlib.suppress(OSError):  # what could not be written is still to be
        stream.close()
    with contextlib.suppress(OSError):
        os.close(ours)


def show(node: Node, *donors: str) -> Iterator[None]:
    """A pull of ten bytes, one donor after the other."""
    with PullProgress(node, on_terminal=True) as bars:
        for count, donor in enumerate(donors, 1):
            bars.show(Progress(count, 10, {donor: count}))
            yield


def test_bars_are_drawn_where_the_terminal_is(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as screen, contextlib.redirect_stdout(io.StringIO()) as output:
        for _ in show(node, "a", "b"):
            print("the user's own")
        assert "pull from b" in os.read(screen, 1 << 16).decode()
    assert output.getvalue() == "the user's own\n" * 2


def test_a_terminal_that_goes_does_not_end_the_pull(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(monkeypatch) as screen, contextlib.redirect_stdout(sys.stderr):
        pull = show(node, "a", "b", "c")
        next(pull)
        os.close(screen)
        assert len(list(pull)) == 2
