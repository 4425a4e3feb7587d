"""pytest fixtures for tests of your own script.

In ``conftest.py``::

    pytest_plugins = ["lightning_chaos.testing.fixtures"]

Then a test may ask for ``fork_server``, ``chaos_cluster``, ``relays`` and ``namespaces``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from lightning_chaos.testing.cluster import LocalCluster
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.lab.wan.means import missing
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.testing.launch import ForkServer, Launcher


class MakeCluster(Protocol):
    """Makes clusters that the test's end closes."""

    def __call__(
        self, script: Path, *args: str, launcher: Launcher | None = None, **env: str
    ) -> LocalCluster:
        """A cluster on that script.

        Args:
            script: what every node runs.
            args: its command line.
            launcher: how nodes start, None for the fork server; see :meth:`Namespaces.launcher`.
            env: variables for every node.
        """
        ...


class MakeNamespaces(Protocol):
    """Makes labs that the test's end removes."""

    def __call__(self, hosts: int, *, congestion: str = "cubic", seed: int = 0) -> Namespaces:
        """See :class:`Namespaces`."""
        ...


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """A process that has imported torch and Lightning, which all nodes can be forked from."""
    with ForkServer() as server:
        yield server


@pytest.fixture
def chaos_cluster(fork_server: ForkServer, tmp_path: Path) -> Iterator[MakeCluster]:
    """Clusters of forked nodes that do not linger; logs and output stay in ``tmp_path``."""
    with contextlib.ExitStack() as stack:
        count = 0

        def make(
            script: Path, *args: str, launcher: Launcher | None = None, **env: str
        ) -> LocalCluster:
            nonlocal count
            count += 1
            cluster = LocalCluster(
                script,
                args=args,
                directory=tmp_path / f"cluster{count}",
                env={"CHAOS_LINGER": "0", **env},
                launcher=launcher or fork_server,
            )
            return stack.enter_context(cluster)

        yield make


@pytest.fixture
def relays() -> Iterator[Relays]:
    """A relay process for the test's nodes."""
    with Relays() as started:
        yield started


@pytest.fixture
def namespaces() -> Iterator[MakeNamespaces]:
    """Labs of namespaces; the test is skipped where they cannot be had, and says why."""
    if why := missing():
        pytest.skip(why)
    with contextlib.ExitStack() as stack:

        def make(hosts: int, *, congestion: str = "cubic", seed: int = 0) -> Namespaces:
            return stack.enter_context(Namespaces(hosts, congestion=congestion, seed=seed))

        yield make
