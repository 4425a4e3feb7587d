"""What torchrun's agent hands its worker: flags as settings, a place to be, and whom to ask."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from typing import Any

import pytest
from cluster_fixtures import BOUND_S, MakeCluster
from places import EmptyPlace
from torch.distributed.elastic.rendezvous import RendezvousParameters

from lightning_chaos import agent
from lightning_chaos.errors import AddressError, ConfigError, JoinError
from lightning_chaos.rendezvous.doorstep import Doorstep, address_towards, is_here
from lightning_chaos.rendezvous.flags import Flags, read_flags
from lightning_chaos.rendezvous.handler import ChaosRendezvous
from lightning_chaos.skin.settings import resolve
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.door import open_door


def flags(environ: dict[str, str] | None = None, **given: Any) -> Flags:
    """What comes of these flags; torchrun's defaults for the others."""
    torchruns: dict[str, Any] = {
        "endpoint": "",
        "run_id": "none",
        "min_nodes": 1,
        "local_addr": None,
        "conf": {"timeout": 900},
    }
    return read_flags(environ or {}, **{**torchruns, **given})


def handler(endpoint: str, run_id: str = "none", **conf: str) -> ChaosRendezvous:
    """An agent's rendezvous."""
    return ChaosRendezvous(
        RendezvousParameters("chaos", endpoint, run_id, 1, 8, **{"timeout": 900, **conf})
    )


@pytest.fixture
def _environment() -> Iterator[None]:
    """What the handler puts into this process's environment goes again."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def free() -> Iterator[str]:
    """An address of this machine where nobody is, and nobody else comes."""
    with EmptyPlace() as place:
        yield str(place.address)


# ---- flags -------------------------------------------------------------------------------------


def test_torchrun_finds_the_handler_by_its_name() -> None:
    (entry,) = entry_points(group="torchrun.handlers", name="chaos")
    assert entry.value == "lightning_chaos.rendezvous:get_handler"
    params = RendezvousParameters("chaos", "", "none", 1, 1)
    made = entry.load()()(params)
    assert made.get_backend() == entry.name
    made.shutdown()


def test_flags_become_settings() -> None:
    told = flags(
        endpoint="127.0.0.1:4711, localhost:4712",
        run_id="digits",
        min_nodes=3,
        local_addr="127.0.0.2",
        conf={"timeout": "0.5", "linger": "0", "port": "4713", "join_timeout": "7"},
    )
    assert [str(a) for a in told.endpoints] == ["127.0.0.1:4711", "localhost:4712"]
    assert (told.settings.run, told.settings.min_members, told.settings.host) == (
        "digits",
        3,
        "127.0.0.2",
    )
    assert (told.settings.timeout_s, told.settings.linger_s, told.settings.port) == (0.5, 0, 4713)
    assert told.join_timeout_s == 7


def test_torchruns_own_timeout_is_not_the_users() -> None:
    assert flags().settings.timeout_s == resolve({}).timeout_s
    assert flags(conf={"timeout": "900"}).settings.timeout_s == 900


def test_the_run_is_named_by_flag_then_by_environment() -> None:
    environ = {"CHAOS_RUN": "mine"}
    assert flags(environ, run_id="digits").settings.run == "digits"
    assert flags(environ, endpoint="127.0.0.1:1").settings.run == "mine"
    nameless = flags(endpoint="127.0.0.1:1")  # who has the same endpoint has the same run
    assert (nameless.settings.run, nameless.named_run) == ("none", False)
    assert flags().settings.run == resolve({}).run  # by script and user, as without torchrun


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"conf": {"join_timeout": "1", "last_call": "3", "foo": "1"}}, "option foo, last_call;"),
        ({"conf": {"join_timeout": "soon"}}, "join_timeout=soon: write a number of seconds"),
        ({"conf": {"linger": "-1"}}, "CHAOS_LINGER='-1' is out of range"),
        ({"endpoint": "127.0.0.1"}, "write host:port"),
        ({"endpoint": "a..b:4711"}, "a..b:4711: no machine can have that name"),
        ({"endpoint": "192.0.2.1:4711"}, "set CHAOS_INSECURE=1"),
    ],
)
def test_what_cannot_work_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        flags(**given)


def test_several_workers_of_one_agent_are_refused() -> None:
    environ = {agent.PID: "1", "LOCAL_WORLD_SIZE": "2"}
    with pytest.raises(ConfigError, match="--nproc-per-node=2: a node has one worker"):
        resolve(environ)
    assert resolve({**environ, "LOCAL_WORLD_SIZE": "1"})
    assert resolve({"LOCAL_WORLD_SIZE": "2"})  # another backend's workers are nodes of their own


# ---- the worker's end --------------------------------------------------------------------------

WORKER = """
import os, signal, time
from lightning_chaos import agent
agent.GRACE_S = 0.2
signal.signal(signal.SIGTERM, {handler})
agent.end_with_agent()
print("watches", flush=True)
time.sleep(30)
"""


@pytest.mark.parametrize(
    ("handler", "signal_"),
    [("signal.SIG_DFL", signal.SIGTERM), ("signal.SIG_IGN", signal.SIGKILL)],
)
@pytest.mark.parametrize("when", ["while the worker runs", "before it started"])
def test_a_worker_ends_with_its_agent_also_if_it_does_not_listen(
    handler: str, signal_: int, when: str
) -> None:
    before = when.startswith("before")
    with subprocess.Popen(["sleep", "30"]) as torchrun:
        if before:
            torchrun.kill()
            torchrun.wait()
        with subprocess.Popen(
            [sys.executable, "-c", WORKER.format(handler=handler)],
            env={**os.environ, agent.PID: str(torchrun.pid)},
            stdout=subprocess.PIPE,
        ) as worker:
            assert worker.stdout is not None
            assert before or worker.stdout.readline() == b"watches\n"
            torchrun.kill()
            assert worker.wait(BOUND_S) == -signal_


# ---- the node's place --------------------------------------------------------------------------


def test_a_place_is_held_for_workers_and_from_all_others() -> None:
    step = Doorstep("127.0.0.1", 0)
    host, port = step.address
    try:
        with pytest.raises(AddressError, match=f"cannot have 127.0.0.1:{port}"):
            Doorstep(host, port)  # another agent
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(step.address, timeout=1.0)
        for _ in range(2):  # one worker after another
            assert step.wait_free(0.0)
            with open_door(host, port):
                assert not step.wait_free(0.0)
    finally:
        step.close()
    Doorstep(host, port).close()


def test_a_place_where_somebody_listens_is_not_free() -> None:
    with open_door("127.0.0.1", 0) as door, pytest.raises(AddressError, match="already in use"):
        Doorstep(*door.getsockname())


def test_which_names_are_this_machines() -> None:
    assert is_here("127.0.0.1")
    assert is_here("localhost")
    assert not is_here("198.51.100.1")
    assert address_towards(Address("127.0.0.1", 4711)) == "127.0.0.1"


# ---- whom the worker asks ----------------------------------------------------------------------


@pytest.mark.usefixtures("_environment")
def test_the_first_at_an_endpoint_founds_the_run_there(free: str) -> None:
    founder = handler(free)
    info = founder.next_rendezvous()
    assert (info.rank, info.world_size, founder.num_nodes_waiting()) == (0, 1, 0)
    worker = resolve(os.environ)
    assert [str(a) for a in worker.peers] == [free] == [f"{worker.host}:{worker.port}"]
    assert os.environ[agent.PID] == str(os.getpid())
    founder.shutdown()


@pytest.mark.usefixtures("_environment")
def test_a_run_with_a_name_is_looked_for_on_this_machine_before_it_is_founded(free: str) -> None:
    founder = handler(free, run_id="digits")
    founder.next_rendezvous()
    worker = resolve(os.environ)
    assert (worker.run, worker.peers, f"{worker.host}:{worker.port}") == ("digits", (), free)
    founder.shutdown()


@pytest.mark.usefixtures("_environment")
def test_a_worker_that_is_started_again_asks_whom_the_last_one_knew(free: str) -> None:
    node = handler(free)
    node.next_rendezvous()
    first = resolve(os.environ)
    agent.note_others(["127.0.0.1:1", "127.0.0.1:2"])
    node.next_rendezvous()
    again = resolve(os.environ)
    assert [str(a) for a in again.peers] == ["127.0.0.1:1", "127.0.0.1:2"]  # and may not found
    assert (again.node, again.port) == (first.node, first.port)
    agent.note_others([])  # the others have left since
    node.next_rendezvous()
    assert [str(a) for a in resolve(os.environ).peers] == [free]
    node.shutdown()


@pytest.mark.usefixtures("_environment")
def test_the_last_one_left_of_a_run_may_found_it_again(free: str) -> None:
    with open_door("127.0.0.1", 0) as door:  # so that the endpoint is somebody else's
        elsewhere = f"127.0.0.1:{door.getsockname()[1]}"
        node = handler(f"{free},{elsewhere}")
        node.next_rendezvous()
        agent.note_others([])
        node.next_rendezvous()
        assert [str(a) for a in resolve(os.environ).peers] == [elsewhere, free]
        node.shutdown()


@pytest.mark.usefixtures("_environment")
def test_an_endpoint_where_nobody_answers_is_an_error_in_time() -> None:
    with open_door("127.0.0.1", 0) as door:  # taken, and silent
        endpoint = f"127.0.0.1:{door.getsockname()[1]}"
        node = handler(endpoint, join_timeout="0.3")
        with pytest.raises(JoinError, match=r"no node of run none answered within 0.3 s") as error:
            node.next_rendezvous()
        assert endpoint in str(error.value)
        node.shutdown()


@pytest.mark.usefixtures("_environment")
def test_an_endpoint_where_something_else_answers_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:
        endpoint = f"127.0.0.1:{web.getsockname()[1]}"
        node = handler(endpoint)
        with ThreadPoolExecutor(1) as other:
            other.submit(answer_as_a_web_server, web)
            with pytest.raises(JoinError, match=rf"{endpoint} is no node .* something else"):
                node.next_rendezvous()
        node.shutdown()


def answer_as_a_web_server(door: socket.socket) -> None:
    with door.accept()[0] as sock:
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        while sock.recv(1024):
            pass


@pytest.mark.usefixtures("_environment")
def test_a_node_without_torchrun_is_joined_by_its_address_and_the_runs_name(
    cluster: MakeCluster, free: str
) -> None:
    run = cluster(CHAOS_PORT=free.partition(":")[2])
    run.up("a")
    node = handler(free, run_id=run.run)
    node.next_rendezvous()
    assert [str(a) for a in resolve(os.environ).peers] == [free]
    assert resolve(os.environ).port != int(free.partition(":")[2])
    node.shutdown()
    other = handler(free, run_id="another")
    with pytest.raises(JoinError, match="these are two different runs"):
        other.next_rendezvous()
    other.shutdown()
    run.wait_rounds(2)
    run.finish("a")
