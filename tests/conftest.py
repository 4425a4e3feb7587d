"""What holds for every test: nothing is left behind, and no test meets another one's run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import leaks
import pytest
from cluster_fixtures import cluster
from hypothesis import settings

__all__ = ["cluster"]

pytest_plugins = ["lightning_chaos.testing.fixtures"]

REAL = {"fork_server", "relays", "namespaces"}
"""Fixtures of training nodes and of the networks between them."""

# Machines are shared and slow at times: the bound is pytest's timeout, not a deadline per example.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")


def pytest_configure() -> None:
    """Mark whatever this run starts."""
    leaks.mark_this_process()


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what can bear nothing beside it; skip what needs root where there is none.

    What takes longest and needs least goes first, so that others end before it.
    """
    is_root = os.geteuid() == 0
    for item in items:
        markers = {marker.name for marker in item.iter_markers()}
        real = "root" in markers or not REAL.isdisjoint(getattr(item, "fixturenames", ()))
        if real and "patient" not in markers:
            item.add_marker(pytest.mark.alone)
        if "root" in markers and not is_root:
            item.add_marker(pytest.mark.skip(reason="needs root (network namespaces)"))
    items.sort(key=lambda item: item.get_closest_marker("patient") is None)


@pytest.fixture(scope="session", autouse=True)
def _session_leaves_nothing_behind() -> Iterator[None]:
    before = leaks.Holdings.now()
    yield
    if found := leaks.leaked_since(before):
        pytest.fail("the tests left behind: " + "; ".join(found), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _runtime_root(
    _session_leaves_nothing_behind: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Where nodes find each other in this run of the tests; never the user's own directory."""
    root = tmp_path_factory.mktemp("runtime")
    root.chmod(0o700)
    users = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(root)
    yield root
    if users is None:
        del os.environ["XDG_RUNTIME_DIR"]
    else:
        os.environ["XDG_RUNTIME_DIR"] = users


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(_runtime_root: Path) -> Iterator[None]:
    """Fail the test that leaves a process, thread, socket, file, variable or handler behind."""
    before, environment = leaks.Holdings.now(), dict(os.environ)
    handlers = leaks.signal_handlers()
    yield
    found = [
        *leaks.changed_environment(environment),
        *leaks.changed_handlers(handlers),
        *leaks.leaked_since(before),
    ]
    if found:
        pytest.fail("the test left behind: " + "; ".join(found), pytrace=False)


@pytest.fixture(autouse=True)
def runtime_dir(_leaves_nothing_behind: None, _runtime_root: Path) -> Iterator[Path]:
    """The test's own runtime directory (0700), in which the nodes it starts find each other."""
    path = _runtime_root / f"t{len(list(_runtime_root.iterdir()))}"
    path.mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(path)
    yield path
    os.environ["XDG_RUNTIME_DIR"] = str(_runtime_root)
