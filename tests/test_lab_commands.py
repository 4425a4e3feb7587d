"""``lightning-chaos lab``: as typed by a user."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from lightning_chaos.cli import main
from lightning_chaos.testing.fixtures import MakeNamespaces

BOUND_S = 20.0
NETWORKS = [
    pytest.param((), marks=pytest.mark.root, id="namespaces"),
    pytest.param(("--relays",), id="relays"),
]


@pytest.fixture
def _networks_can_be_had(request: pytest.FixtureRequest) -> None:
    """Skips tests that would start namespaces where there are none."""
    if request.node.get_closest_marker("root"):
        request.getfixturevalue("namespaces")


def lab(*words: str) -> tuple[int, str]:
    """Exit code and output of the command."""
    result = CliRunner().invoke(main, ["lab", *words])
    return result.exit_code, result.output


def script(directory: Path, text: str) -> str:
    path = directory / "script.py"
    path.write_text(text)
    return str(path)


def faults(directory: Path, text: str) -> str:
    path = directory / "faults.yaml"
    path.write_text(text)
    return str(path)


# ---- check -----------------------------------------------------------------------------------


def test_check_says_who_is_left_of_a_schedule_that_must_be_survived(tmp_path: Path) -> None:
    file = faults(tmp_path, "[{at: {round: 5}, do: kill, node: n2}]")
    assert lab("check", file, "--nodes", "3") == (0, "survivable; members at the end: n1, n3\n")


def test_check_names_the_fault_that_need_not_be_survived(tmp_path: Path) -> None:
    file = faults(tmp_path, "[{at: {round: 5}, do: kill, node: n1}]")
    code, output = lab("check", file, "--nodes", "2")
    assert code == 1
    assert output.startswith("not survivable, after at={'round': 5} do=kill node=n1")
    assert lab("check", file, "--nodes", "2", "--relays")[0] == 0


def test_a_file_that_is_no_schedule_is_one_line_that_says_where(tmp_path: Path) -> None:
    file = faults(tmp_path, "[{at: {round: 5}, do: explode}]")
    code, output = lab("check", file, "--nodes", "2")
    assert code == 2
    assert output.startswith(f"lightning-chaos: {file}, fault 1: ")
    assert output.count("\n") == 1


# ---- run -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_networks_can_be_had")
@pytest.mark.parametrize("network", NETWORKS)
def test_run_starts_the_script_on_every_host(tmp_path: Path, network: tuple[str, ...]) -> None:
    text = "import os, sys; print(os.environ['CHAOS_NODE'], os.environ['CHAOS_HOST'], sys.argv[1:])"
    if network:
        text = text.replace("CHAOS_HOST", "CHAOS_RELAY")
    file = script(tmp_path, text)
    logs = ("--keep-logs", str(tmp_path / "kept"))
    code, output = lab("run", *network, "--hosts", "2", *logs, file, "--", "--size", "7")
    assert code == 0, output
    assert "started n1, n2" in output
    for node in ("n1", "n2"):
        assert f"{node} ended with 0" in output
        said = (tmp_path / "kept" / f"{node}.out").read_text()
        assert said.startswith(f"{node} 1")
        assert said.endswith("['--size', '7']\n")


@pytest.mark.usefixtures("_networks_can_be_had")
@pytest.mark.parametrize("network", NETWORKS)
def test_run_shows_what_a_node_that_failed_said_last(
    tmp_path: Path, network: tuple[str, ...]
) -> None:
    text = "import os, sys; sys.exit('a mistake' if os.environ['CHAOS_NODE'] == 'n2' else 0)"
    code, output = lab("run", *network, "--hosts", "2", script(tmp_path, text))
    assert code == 1
    assert "n2 ended with 1" in output
    assert "a mistake" in output


def test_run_tells_of_faults_whose_time_never_came(tmp_path: Path) -> None:
    file = faults(tmp_path, "[{at: {round: 1}, do: leave, node: n1}]")
    words = ("run", "--relays", "--hosts", "1", "--faults", file, script(tmp_path, ""))
    code, output = lab(*words)
    assert code == 1
    assert "some faults are left" in output


def test_run_refuses_a_directory_with_older_logs(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "n1.jsonl").write_text("")
    code, output = lab(
        "run", "--relays", "--keep-logs", str(tmp_path), script(tmp_path, "raise SystemExit(9)")
    )
    assert code == 2
    assert "holds the logs of an older run" in output


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--relays", "--loss", "1"), "loss and queues need namespaces"),
        (("--relays", "--congestion", "reno"), "--congestion is for namespaces"),
        pytest.param(
            ("--faults", "[{at: {round: 1}, do: cut, a: n1, b: n2, how: reset}]"),
            "can be cut silently only",
            marks=pytest.mark.root,
        ),
    ],
)
@pytest.mark.usefixtures("_networks_can_be_had")
def test_run_refuses_what_its_network_cannot_do(
    tmp_path: Path, words: tuple[str, str], why: str
) -> None:
    if words[0] == "--faults":
        words = ("--faults", faults(tmp_path, words[1]))
    code, output = lab("run", *words, script(tmp_path, ""))
    assert code == 2
    assert why in output


@pytest.mark.usefixtures("_networks_can_be_had")
@pytest.mark.parametrize("network", NETWORKS)
def test_ctrl_c_and_sigterm_end_the_nodes_and_take_the_network_down(
    tmp_path: Path, network: tuple[str, ...]
) -> None:
    file = script(tmp_path, "import time; print('here', flush=True); time.sleep(60)")
    kept = tmp_path / "kept"
    command = [sys.executable, "-m", "lightning_chaos.cli", "lab", "run", *network, "--hosts", "2"]
    lab = subprocess.Popen(
        [*command, "--keep-logs", str(kept), file],
        stdout=subprocess.PIPE,
        text=True,
        # A shell may have started this test in the background, where Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with lab:
        deadline = time.monotonic() + BOUND_S
        outputs = [kept / "n1.out", kept / "n2.out"]
        while not all(path.exists() and path.read_text() for path in outputs):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        lab.send_signal(signal.SIGINT if network else signal.SIGTERM)
        lab.communicate(timeout=BOUND_S)
    # What it left behind, the check around every test would find.
    assert lab.returncode == (1 if network else 128 + signal.SIGTERM)
    assert not list(Path("/run/netns").glob(f"chaos-{lab.pid}-*"))


# ---- calibrate -------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize(("pattern", "links"), [("into-one", 2), ("mesh", 6)])
def test_calibrate_prints_a_line_for_each_link(
    namespaces: MakeNamespaces, pattern: str, links: int
) -> None:
    words = ("--hosts", "3", "--rate", "20", "--delay", "1", "--seconds", "0.3")
    code, output = lab("calibrate", *words, "--pattern", pattern)
    assert output.count("19.1 Mbit/s") >= links
    # On a busy machine links may be off indeed: then it says so.
    assert code == (0 if "all links are as told" in output else 1)
