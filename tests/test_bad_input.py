"""What is wrong is said once, clearly and soon, and a run that others train is not touched."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from cluster_fixtures import BOUND_S, SCRIPTS, Cluster, MakeCluster, cluster
from lightning.pytorch.callbacks import Callback
from scripts.exercise import Lesson, dataset
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from lightning_chaos import ChaosStrategy
from lightning_chaos.errors import AddressError, ChaosError, ConfigError, DataError, StateError
from lightning_chaos.protocol.messages import Hello, Refuse, decode, encode
from lightning_chaos.protocol.values import PROTOCOL_VERSION, Member
from lightning_chaos.transport.door import MAGIC, Kind, preamble

__all__ = ["cluster"]


# ---- guests that a run cannot take -------------------------------------------------------------

DIFFERENT = {
    "precision": "precision",
    "model": "model net.0.weight",
    "size": "samples",
    "batch": "batch_size",
    "clipping": "gradient_clip_val",
}


def address_of(run: Cluster, node: str) -> str:
    return str(run.told("start", node)[0]["address"])


def untouched(run: Cluster) -> bool:
    """The run has had one view, and nobody stood still in it."""
    return len(run.told("view")) == 1 and not run.told("hold") and not run.told("freeze")


def told_why(run: Cluster, node: str, *words: str) -> None:
    """It ends with 1, and its last line has these words."""
    assert run.wait_exit(node, BOUND_S) == 1
    said = run.tail(node, 1)
    assert all(word in said for word in words), said


def test_guests_that_the_run_cannot_take_are_told_why(cluster: MakeCluster) -> None:
    run = cluster(script=SCRIPTS / "bad_guest.py")
    run.up("a")
    address = address_of(run, "a")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers there
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        run.start("lost", env={"CHAOS_PEERS": nobody})
        run.start("astray", env={"CHAOS_PEERS": address, "CHAOS_RUN": "another"})
        for what in DIFFERENT:
            run.start(what, env={"BUT": what})
        for what, name in DIFFERENT.items():
            told_why(run, what, "FingerprintError", f"{name} differs")
        told_why(run, "astray", "JoinError", "run 'another'", f"{run.run!r}", "two different runs")
        run.wait_rounds(5)
        assert untouched(run)
        run.start("like the others")
        run.wait_members("a", "like the others")
        run.finish("a", "like the others")
        told_why(run, "lost", "JoinError", nobody, "CHAOS_PEERS")  # it looks for ten seconds


def test_a_state_that_can_be_sent_no_more_is_named_to_the_newcomer_at_once(
    cluster: MakeCluster,
) -> None:
    run = cluster(script=SCRIPTS / "bad_guest.py", BUT="hoards")
    run.up("a")
    run.start("b")
    assert run.wait_exit("b", BOUND_S) == 1
    said = run.tail("b", 1)
    assert "JoinError" in said
    assert "callbacks.Hoarder.kept[0] has type Hoarder" in said
    run.wait_rounds(5)
    assert len(run.told("hold")) == 1  # nobody stood still a second time for nothing
    run.stop()
    assert run.wait_exit("a", BOUND_S) == 0


def test_strange_bytes_at_the_door_disturb_nobody(cluster: MakeCluster) -> None:
    run = cluster(script=SCRIPTS / "bad_guest.py")
    run.up("a")
    host, _, port = address_of(run, "a").rpartition(":")
    stranger = Member(node="stranger", incarnation=1, host="127.0.0.1", port=9)
    myself = run.told("view")[0]["uids"][0].rpartition("/")
    twin = Member(node=myself[0], incarnation=int(myself[2], 16), host="127.0.0.1", port=9)

    def message(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    def hello(version: int, run_id: str, who: Member) -> bytes:
        return preamble(Kind.CONTROL) + message(encode(Hello(version, run_id, who)))

    known = hello(PROTOCOL_VERSION, run.run, stranger)
    kinds = [preamble(kind) for kind in Kind]
    sent = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        preamble(Kind.CONTROL)[:5],
        MAGIC[:5] + b"\x09\x01\x00",
        MAGIC + b"\x63\x00",
        *(kind + b"\xff\xff\xff\xff" for kind in kinds),
        *(kind + message(b"\x00garbage" * 20) for kind in kinds),
        *(kind + message(b"x" * 100)[:50] for kind in kinds),
        known + message(b"\xc1" * 8),
        known + b"\x7f\xff\xff\xff",
        hello(PROTOCOL_VERSION, run.run, twin),
    ]
    with ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection((host, int(port)), 5.0))

        connect()  # and never says a word
        for data in sent:
            sock = connect()
            sock.sendall(data)
            with suppress(OSError):  # it may have been thrown out by then
                sock.shutdown(socket.SHUT_WR)
        for version, run_id, word in (
            (PROTOCOL_VERSION + 1, run.run, "version"),
            (PROTOCOL_VERSION, "another", "different runs"),
        ):
            sock = connect()
            sock.sendall(hello(version, run_id, stranger))
            assert any(word in reason for reason in refusals(sock)), word
        run.wait_rounds(20)
    assert untouched(run)
    run.start("b")
    run.wait_members("a", "b")
    run.finish("a", "b")
    assert len(run.peer_pids("a")) == 1


def refusals(sock: socket.socket) -> list[str]:
    """What the other side says before it closes the connection."""
    with sock.makefile("rb") as stream:
        reasons = []
        while head := stream.read(4):
            said = decode(stream.read(int.from_bytes(head, "big")))
            if isinstance(said, Refuse):
                reasons.append(said.reason)
    return reasons


# ---- users' own mistakes, with others around -----------------------------------------------------


def test_state_that_cannot_be_sent_keeps_newcomers_out_but_the_run_going(
    cluster: MakeCluster,
) -> None:
    wants = {"trainer": {"max_epochs": 100_000}, "round_s": 0.003, "spoil_at": 5}
    run = cluster(json.dumps(wants), script=SCRIPTS / "features.py")
    run.start("a")
    run.wait_for(lambda _: run.round > 5, BOUND_S, "a to train")
    run.start("b")
    assert run.wait_exit("b", BOUND_S) == 1
    assert "callbacks.Witness.thing has type Unsendable" in run.tail("b")
    run.wait_rounds(20)
    run.stop()
    assert run.wait_exit("a", BOUND_S) == 0, run.tail("a")


def test_a_mistake_in_a_hook_ends_the_node_it_is_made_at(cluster: MakeCluster) -> None:
    wants = {"trainer": {"max_epochs": 100_000}, "round_s": 0.003, "break_hook": "b"}
    run = cluster(json.dumps(wants), script=SCRIPTS / "features.py")
    run.start("a")
    run.wait_told("round", "a")
    run.start("b")
    assert run.wait_exit("b", BOUND_S) == 1
    assert "ValueError: a mistake in the user's hook" in run.tail("b")
    run.wait_members("a")
    run.wait_rounds(10)
    run.finish("a")


# ---- users' own mistakes, alone ----------------------------------------------------------------


@pytest.fixture
def fit(tmp_path: Path) -> Iterator[Callable[..., pl.Trainer]]:
    """Fits a small module with these arguments; nothing may be left behind if that fails."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(
        module: pl.LightningModule | None = None,
        loaders: Any = None,
        strategy: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> pl.Trainer:
        mine = {"run": uuid.uuid4().hex, "node": "a", "linger": 0.0, "log_dir": tmp_path}
        trainer = pl.Trainer(
            strategy=ChaosStrategy(**(mine | (strategy or {}))),
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"max_epochs": 1, "devices": 1, **arguments},
        )
        loaders = DataLoader(dataset(16), batch_size=4) if loaders is None else loaders
        trainer.fit(module or Lesson(), loaders)
        return trainer

    yield run
    torch.set_num_threads(before)


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(8))


@pytest.mark.parametrize(
    ("loaders", "said"),
    [
        (lambda: DataLoader(dataset(8), num_workers=1), "num_workers=1"),
        (lambda: DataLoader(Stream()), "IterableDataset Stream"),
        (
            lambda: DataLoader(dataset(8), sampler=WeightedRandomSampler([1.0] * 8, 8)),
            "WeightedRandomSampler",
        ),
        (lambda: DataLoader(dataset(8), batch_size=None), "batch_size=None"),
        (lambda: [DataLoader(dataset(8)), DataLoader(dataset(8))], "Several training loaders"),
        (lambda: [torch.ones(2, 4)], "a Tensor"),
    ],
    ids=["workers", "stream", "sampler", "no batch", "two loaders", "no loader"],
)
def test_a_loader_that_cannot_be_shared_is_refused(
    fit: Callable[..., pl.Trainer], loaders: Callable[[], Any], said: str
) -> None:
    with pytest.raises(DataError) as error:
        fit(loaders=loaders())
    assert said in str(error.value)


def test_a_reloaded_loader_must_be_the_same(fit: Callable[..., pl.Trainer]) -> None:
    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            epoch = self.trainer.current_epoch if self.trainer else 0
            return DataLoader(dataset(8 * (epoch + 1)), batch_size=4)

    with pytest.raises(DataError, match=r"size=16.* after .*size=8"):
        fit(loaders=Data(), max_epochs=2, reload_dataloaders_every_n_epochs=1)


def test_one_node_has_one_device(fit: Callable[..., pl.Trainer]) -> None:
    with pytest.raises(ConfigError, match="devices=2: a node has one device"):
        fit(devices=2)


def test_validation_by_the_clock_is_refused(fit: Callable[..., pl.Trainer]) -> None:
    with pytest.raises(ConfigError, match="each member would look at its own clock"):
        fit(val_check_interval=timedelta(seconds=5))


def test_min_members_must_be_alike_where_members_decide_by_it(
    fit: Callable[..., pl.Trainer],
) -> None:
    kept = fit(strategy={"min_members": 1}).strategy
    assert "min_members" not in dict(kept.fingerprint)
    standby = fit(strategy={"min_members": 1, "slow": "standby"}).strategy
    assert dict(standby.fingerprint)["min_members"] == "1"


def test_a_port_in_use_is_said_before_training(fit: Callable[..., pl.Trainer]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=rf"127.0.0.1:{port}.*CHAOS_PORT"):
            fit(strategy={"port": port})


class Odd:
    """Cannot be sent."""


class Hoarder(Callback):
    def state_dict(self) -> dict[str, Any]:
        return {"kept": [1, {"here": Odd()}]}


def test_state_that_cannot_be_sent_is_named_before_training(
    fit: Callable[..., pl.Trainer],
) -> None:
    with pytest.raises(StateError) as error:
        fit(callbacks=[Hoarder()])
    assert "local.callbacks.Hoarder.kept[1].here has type Odd" in str(error.value)


class Thawing(Lesson):
    """Trains a parameter that was frozen when training began."""

    def __init__(self) -> None:
        super().__init__()
        self.body.requires_grad_(False)

    def on_train_batch_end(self, *_: Any) -> None:
        self.body.requires_grad_(True)


class Sparse(Lesson):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 4, sparse=True)

    def losses(self, batch: list[torch.Tensor]) -> list[torch.Tensor]:
        return super().losses([self.table(batch[2]), *batch[1:]])


class Gathering(Lesson):
    def training_step(self, batch: list[torch.Tensor], index: int) -> Any:
        loss = super().training_step(batch, index)
        return self.all_gather(loss, sync_grads=True).mean()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Thawing, "body.* was frozen"),
        (Sparse, "gradient of table.weight is sparse"),
        (Gathering, "sync_grads=True"),
    ],
)
def test_a_module_that_cannot_be_shared_is_refused(
    fit: Callable[..., pl.Trainer], module: Callable[[], Lesson], said: str
) -> None:
    with pytest.raises(ChaosError, match=said):
        fit(module())


def test_a_full_disk_ends_the_run_log_but_not_the_run(
    fit: Callable[..., pl.Trainer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").symlink_to("/dev/full")
    trainer = fit(max_epochs=2)
    assert trainer.global_step == 8
    assert sum("goes on without its run log" in r.getMessage() for r in caplog.records) == 1


def test_a_mistake_in_training_is_the_error_that_shows(fit: Callable[..., pl.Trainer]) -> None:
    class Wrong(Lesson):
        def on_chaos_view(self, *_: Any) -> None:
            raise ZeroDivisionError("the user's own")

    with pytest.raises(ZeroDivisionError, match="the user's own"):
        fit(Wrong())
    assert fit().global_step == 4
