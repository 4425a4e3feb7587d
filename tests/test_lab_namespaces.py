"""What the switch does to packets between hosts, each fact over the kernel's own sockets.

Here bounds are wide, since other work may run on the machine; how exact the lab is on a quiet one
is what ``lightning-chaos lab calibrate`` says.  The file takes some 15 seconds: rates take time.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lightning_chaos.errors import ConfigError, LabError
from lightning_chaos.testing.lab.conditions import Cut, Shape
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.lab.wan import hosts as making
from lightning_chaos.testing.lab.wan.calibration import Calibration, Reading, calibrate, into, mesh
from lightning_chaos.testing.lab.wan.means import missing
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.testing.lab.wan.traffic import goodputs_mbit, round_trips_s

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

BOUND_S = 10.0
QUIET_S = 0.3
LATE_S = 0.1  # how late a busy machine may make a packet; too early it never is
TRIES = 5  # this process measures, and may have to wait for a processor meanwhile
SLEEPER = ["sh", "-c", "echo; exec sleep 60"]
ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
PORT = 7
RCVBUFFORCE = 33  # SO_RCVBUFFORCE of asm-generic/socket.h


@pytest.fixture(scope="module")
def lab(_runtime_root: Path) -> Iterator[Namespaces]:
    """Three hosts for all tests; a, b and c have one each."""
    with Namespaces(3, seed=1) as network:
        for node in ("a", "b", "c"):
            network.host_of(node)
        yield network


@pytest.fixture
def network(lab: Namespaces) -> Namespaces:
    """The same, with nothing said about its links."""
    lab.shape(Shape())
    lab.heal()
    lab.nic()
    return lab


def packets(network: Namespaces, a: str, b: str, count: int, size: int = 1000) -> list[float]:
    """How long each of so many UDP packets took, sent all at once; those that arrived."""
    with (
        network.socket(a, socket.SOCK_DGRAM) as near,
        network.socket(b, socket.SOCK_DGRAM) as far,
    ):
        far.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 1 << 24)
        far.bind((network.address_of(b), PORT))
        begin, times = time.monotonic(), []
        for _ in range(count):
            near.sendto(bytes(size), (network.address_of(b), PORT))
        far.settimeout(QUIET_S)
        try:
            while len(times) < count:
                far.recv(size)
                times.append(time.monotonic() - begin)
        except TimeoutError:
            pass
        return times


def trips(network: Namespaces, count: int) -> list[float]:
    """How long single packets from a to b took."""
    return [packets(network, "a", "b", 1, 1)[0] for _ in range(count)]


def rate_of(network: Namespaces, *pairs: tuple[str, str], window: int = 200_000) -> float:
    """Mbit/s of payload that all pairs get together."""
    windows = dict.fromkeys(pairs, window)
    return sum(goodputs_mbit(network, windows, warm_up_s=0.3, seconds=0.7).values())


def carries(
    network: Namespaces, mbit: float, *pairs: tuple[str, str], window: int = 200_000
) -> None:
    """All pairs together get that rate, as far as TCP's payload can have it."""
    seen: list[float] = []
    while pytest.approx(0.956 * mbit, rel=0.15) not in seen:
        assert len(seen) < TRIES, seen
        seen.append(rate_of(network, *pairs, window=window))


# ---- links -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("mbit", "delay_ms"), [(20, 0), (100, 10)])
def test_a_link_carries_its_rate(network: Namespaces, mbit: float, delay_ms: float) -> None:
    network.shape(Shape(rate_mbit=mbit, delay_ms=delay_ms, queue_kib=1024), "a", "b")
    # So much is under way that the link stays busy while this process has to wait.
    carries(network, mbit, ("a", "b"), window=700_000)


def test_a_delay_is_never_shorter_than_said_and_each_direction_has_its_own(
    network: Namespaces,
) -> None:
    network.shape_one_way(Shape(delay_ms=30), "a", "b")
    network.shape_one_way(Shape(delay_ms=5), "b", "a")
    found = trips(network, 10)
    assert 0.030 <= min(found) < statistics.median(found) < 0.030 + LATE_S
    there_and_back = round_trips_s(network, [("b", "a")])["b", "a"]
    assert 0.035 <= there_and_back < 0.035 + LATE_S


def test_jitter_stays_within_its_bounds_and_uses_them(network: Namespaces) -> None:
    network.shape(Shape(delay_ms=20, jitter_ms=15))
    found = sorted(trips(network, 30))
    assert 0.005 <= found[0] < 0.014
    assert 0.024 < found[-2] < 0.035 + LATE_S


def test_packets_are_lost_by_chance_as_often_as_said(network: Namespaces) -> None:
    network.shape_one_way(Shape(loss_percent=10), "a", "b")
    before = network.counts()["a", "b"].lost
    arrived = len(packets(network, "a", "b", 2000, 100))
    assert 1740 < arrived < 1860  # 4.5 standard deviations
    assert network.counts()["a", "b"].lost - before == 2000 - arrived


def test_tcp_delivers_its_bytes_unchanged_over_a_link_that_loses(network: Namespaces) -> None:
    network.shape(Shape(rate_mbit=100, delay_ms=1, loss_percent=1))
    data = os.urandom(1_000_000)
    with network.socket("b") as door, network.socket("a") as near:
        door.bind((network.address_of("b"), 0))
        door.listen()
        near.settimeout(BOUND_S)
        near.connect(door.getsockname())
        far, _ = door.accept()
        with far:
            far.settimeout(BOUND_S)
            got, sent = bytearray(), 0
            while len(got) < len(data):
                sent += near.send(data[sent : sent + (64 << 10)])
                got += far.recv(64 << 10)
    assert bytes(got) == data
    assert network.counts()["a", "b"].lost > 0


def test_a_full_queue_drops_what_comes_last(network: Namespaces) -> None:
    network.shape_one_way(Shape(rate_mbit=1, queue_kib=32), "a", "b")
    before = network.counts()["a", "b"].dropped
    arrived = packets(network, "a", "b", 100)  # 1042 bytes each on the wire
    assert 31 <= len(arrived) <= 60  # while the rest is sent, one leaves every 8 ms
    assert network.counts()["a", "b"].dropped - before == 100 - len(arrived)
    assert arrived[-1] >= 31 * 1042 * 8 / 1e6


def test_a_network_card_limits_all_its_links_together(network: Namespaces) -> None:
    network.nic("a", up_mbit=40)
    carries(network, 40, ("a", "b"), ("a", "c"))
    network.nic("a")
    network.nic("c", down_mbit=40)
    carries(network, 40, ("a", "c"), ("b", "c"))
    assert rate_of(network, ("c", "a")) > 80


# ---- changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [("a", "b"), ("b", "a")])
def test_a_one_way_cut_is_a_black_hole_in_one_direction(
    network: Namespaces, way: tuple[str, str]
) -> None:
    network.cut_one_way(*way)
    assert packets(network, *way, 3) == []
    assert len(packets(network, *way[::-1], 3)) == 3
    assert len(packets(network, "a", "c", 3)) == 3
    network.heal()
    assert len(packets(network, *way, 3)) == 3


def test_a_cut_loses_what_is_under_way(network: Namespaces) -> None:
    network.shape(Shape(delay_ms=1000))
    with (
        network.socket("a", socket.SOCK_DGRAM) as near,
        network.socket("b", socket.SOCK_DGRAM) as far,
    ):
        far.bind((network.address_of("b"), PORT))
        far.settimeout(1.3)
        near.sendto(b"x", (network.address_of("b"), PORT))
        network.cut("a", "b")
        with pytest.raises(TimeoutError):
            far.recv(1)


def test_what_waits_for_a_slow_link_goes_at_once_when_it_is_fast(network: Namespaces) -> None:
    network.shape_one_way(Shape(rate_mbit=0.02), "a", "b")  # 100 packets take 40 seconds
    with (
        network.socket("a", socket.SOCK_DGRAM) as near,
        network.socket("b", socket.SOCK_DGRAM) as far,
    ):
        far.bind((network.address_of("b"), PORT))
        far.settimeout(BOUND_S)
        for number in range(100):
            near.sendto(bytes([number]) * 1000, (network.address_of("b"), PORT))
        network.shape_one_way(Shape(rate_mbit=100), "a", "b")
        begin = time.monotonic()
        assert [far.recv(1000)[0] for _ in range(100)] == [*range(100)]
        assert time.monotonic() - begin < 5


def test_the_latest_word_counts_also_for_nodes_to_come() -> None:
    with Namespaces(2) as network:
        network.shape(Shape(delay_ms=100), "x", "y")
        network.shape(Shape(delay_ms=20))
        network.cut_one_way("y", "x")
        assert packets(network, "x", "y", 1)[0] >= 0.020
        assert packets(network, "y", "x", 1) == []
        assert network.shape_of("x", "y") == Shape(delay_ms=20)
        with pytest.raises(ConfigError, match=r"z has no host: all 2 have a node"):
            network.env_for("z")


def test_what_arrived_is_counted(network: Namespaces) -> None:
    before = network.carried_bytes()["a", "c"]
    assert len(packets(network, "a", "c", 10, 500)) == 10
    assert network.carried_bytes()["a", "c"] - before == 5000


# ---- hosts -----------------------------------------------------------------------------------


def test_a_process_on_a_host_sees_another_machine_but_keeps_its_process_id(
    network: Namespaces,
) -> None:
    script = (
        "import os, socket; from lightning_chaos.peer.machine import machine_key\n"
        "print(os.getpid(), socket.gethostname(), machine_key(), os.environ['CHAOS_HOST'])"
    )
    seen = []
    for node in ("a", "b"):
        command = [sys.executable, "-c", script]
        with network.popen(node, command, stdout=subprocess.PIPE, text=True) as process:
            pid, *words = process.communicate(timeout=BOUND_S)[0].split()
        assert int(pid) == process.pid
        seen.append(words)
    (name_a, key_a, host_a), (name_b, key_b, host_b) = seen
    assert name_a == host_a == network.address_of("a")
    assert name_b == host_b == network.address_of("b")
    assert key_a != key_b


@pytest.mark.parametrize("congestion", ["reno", "cubic"])
def test_hosts_have_the_congestion_control_asked_for_and_the_machine_keeps_its_own(
    congestion: str,
) -> None:
    before = ALLOWED.read_text()
    with Namespaces(2, congestion=congestion) as network, network.socket("a") as sock:
        got = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        assert got.rstrip(b"\0").decode() == congestion
        assert ALLOWED.read_text() == before


def remains(key: str) -> list[str]:
    """What there is of a lab."""
    found = [*Path("/run/netns").glob(f"{key}*"), *making.RUN.glob(f"{key}*")]
    return sorted(path.name for path in found)


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def await_gone(pid: int) -> None:
    deadline = time.monotonic() + BOUND_S
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.02)


def test_nothing_is_left_of_a_lab_that_ends_not_even_its_processes() -> None:
    with Namespaces(2) as network:
        sleeper = network.popen("a", SLEEPER, stdout=subprocess.PIPE)
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        key = network.host_of("a").namespace.rpartition("-")[0]
        assert remains(key) == [key, f"{key}-0", f"{key}-1"]
    with sleeper:
        assert sleeper.wait(BOUND_S) == -signal.SIGKILL
    assert remains(key) == []
    with pytest.raises(LabError, match="switch"):
        network.nic("a", up_mbit=1)


def test_what_a_killed_owner_left_behind_is_removed_by_the_next_start() -> None:
    script = (
        "import time; from lightning_chaos.testing.lab.wan.namespaces import Namespaces\n"
        "network = Namespaces(2)\n"
        "print(network.hosts[0].namespace, network._switch._process.pid, flush=True)\n"
        f"print(network.popen('a', {SLEEPER}).pid, flush=True)\n"
        "time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        namespace, switch = owner.stdout.readline().split()
        sleeper, _ = owner.stdout.readline(), owner.stdout.readline()
        owner.kill()
    key = namespace.rpartition("-")[0]
    await_gone(int(switch))  # at once, with its owner
    assert remains(key) == [key, f"{key}-0", f"{key}-1"]
    assert not gone(int(sleeper))
    with Namespaces(2):
        await_gone(int(sleeper))
        assert remains(key) == []


def test_a_lab_that_lives_is_left_alone(network: Namespaces) -> None:
    with Namespaces(2):
        pass
    assert len(packets(network, "a", "b", 3)) == 3


def test_a_lab_that_cannot_be_made_leaves_nothing() -> None:
    before = remains("chaos-")
    with pytest.raises(ConfigError, match=r"congestion='none'.* this kernel has .*reno"):
        Namespaces(2, congestion="none")
    assert remains("chaos-") == before


# ---- what can be said ------------------------------------------------------------------------


def test_what_cannot_be_done_is_refused_and_says_by_whom_it_can(network: Namespaces) -> None:
    for how in (Cut.RESET, Cut.REFUSE):
        with pytest.raises(ConfigError, match="relays can"):
            network.cut("a", "b", how)
    with pytest.raises(ConfigError, match="2 to 64"):
        Namespaces(1)
    with pytest.raises(ConfigError, match="10 Gbit/s"):
        network.nic("a", up_mbit=0)
    with Relays() as relays:
        for shape in (Shape(loss_percent=1), Shape(queue_kib=64)):
            with pytest.raises(ConfigError, match="need namespaces"):
                relays.shape(shape)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="compiled on the spot, with gcc or clang"):
        Namespaces(2)
    (tmp_path / "gcc").touch(mode=0o755)
    with pytest.raises(ConfigError, match=r"need the command ip .*; the lab's relays need none"):
        Namespaces(2)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing() == "namespaces need root"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert missing() == "the lab's networks need Linux"


# ---- calibration -----------------------------------------------------------------------------


def test_a_calibration_measures_every_link(network: Namespaces) -> None:
    network.shape(Shape(rate_mbit=50, delay_ms=5))
    links, seen = mesh(["a", "b", "c"]), set[tuple[str, str]]()
    for _ in range(TRIES):
        found = calibrate(network, links, seconds=0.5)
        assert [(r.source, r.target) for r in found.readings] == links
        assert len(found.lines()) == 2 + 6 + 2
        for reading in found.readings:
            assert 0 <= reading.trip_error_ms < LATE_S * 1e3
            if abs(reading.rate_error) < 0.15:
                seen.add((reading.source, reading.target))
        if seen == set(links):
            return
    raise AssertionError("\n".join(found.lines()))


def test_links_that_cannot_be_calibrated_are_refused(network: Namespaces) -> None:
    network.nic("a", up_mbit=10)
    with pytest.raises(ConfigError, match="cannot be calibrated"):
        calibrate(network, into("a", ["a", "b"]))
    network.nic()
    network.shape(Shape(loss_percent=1))
    with pytest.raises(ConfigError, match="cannot be calibrated"):
        calibrate(network, into("a", ["a", "b"]))


@pytest.mark.parametrize(
    ("goodput", "trip_ms", "ok"),
    [(95.6, 20.3, True), (91, 20, True), (90, 20, False), (101, 20, False), (95.6, 21.1, False)],
)
def test_a_link_is_off_beyond_five_percent(goodput: float, trip_ms: float, ok: bool) -> None:
    reading = Reading("a", "b", 95.6, goodput, 20.0, trip_ms, 0.0)
    found = Calibration((reading,))
    assert found.ok is reading.ok is ok
    if ok:
        found.require()
    else:
        with pytest.raises(LabError, match=r"\| a to b \| 95\.6 Mbit/s \|"):
            found.require()
