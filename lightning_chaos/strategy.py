"""``Trainer(strategy="chaos")``: the Lightning skin, thin.

:class:`ChaosHooks` holds what the strategy does; the classes below it put it on the
``ParallelStrategy`` of either Lightning namespace.  There is no launcher and no default process
group; ranks and world size follow the view; up to the first round and after the last one all
collectives are this node's own.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_chaos.callbacks import SelfHealing, SelfHealingHooks, ShardPull, ShardPullHooks
from lightning_chaos.collective.reducer import Reducer
from lightning_chaos.data.loader import elastic_loader, inspect_loader
from lightning_chaos.errors import ConfigError, DataError, StateError
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.protocol.messages import Fingerprint
from lightning_chaos.protocol.values import View
from lightning_chaos.replication.image import StateImage, check_sendable
from lightning_chaos.replication.tree import pack, unpack
from lightning_chaos.skin import handover, promotion
from lightning_chaos.skin.fingerprint import settings_of
from lightning_chaos.skin.leaving import PoliteSignals
from lightning_chaos.skin.reductions import combine
from lightning_chaos.skin.round_header import RoundHeader, decode_header, encode_header
from lightning_chaos.skin.samples import Samples
from lightning_chaos.skin.settings import Settings, resolve
from lightning_chaos.skin.story import Story
from lightning_chaos.skin.threads import share_processor
from lightning_chaos.transport.dial import Dialler, dial_tcp
from lightning_chaos.worker.node import Node
from lightning_chaos.worker.station import RunFinished
from lightning_chaos.worker.turns import Apart, Go, Gone, Hold, Outcome

log = logging.getLogger(__name__)

_fits: Counter[str] = Counter()
"""Fits of this process by run: the second one is a run of its own, also at the other nodes."""


class ChaosHooks:
    """What the strategy does, whatever Lightning class it sits on.

    Args:
        peers: addresses ``host:port`` of other nodes; without any, nodes of the same user on
            this machine find each other by the run's id.
        run: id of the run; by default from the script's path and the user.
        node: name of this node, unique in the run.
        host: address this node listens on and others dial.
        port: of its one inbound door, 0 for any free one.
        min_members: members needed before the first round.
        timeout: longest silence of another node tolerated, seconds.
        worker_timeout: longest time a worker may take to make progress, seconds.
        linger: how long a finished run is told to latecomers, seconds.
        link_rate: speed limit of each outgoing link, Mbit/s; 0 for none.
        insecure: allow addresses that are not loopback, unencrypted.
        log_dir: directory for the run log, none by default.
        join_at_round: stand by: never found the run, and ask for a seat only when the run has
            begun this round.
        buffers: float buffers become the ``"mean"`` of the members', those of the ``"first"``
            (oldest), or stay each member's own (``"local"``).
        dialler: opens connections (relays and tests put theirs here).
        lightning: what every Lightning strategy takes (``accelerator``, ``checkpoint_io`` …).

    Raises:
        ConfigError: an argument or ``CHAOS_…`` variable cannot work.
    """

    strategy_name = "chaos"
    is_distributed = True
    pull_class: type[ShardPullHooks] = ShardPull
    healing_class: type[SelfHealingHooks] = SelfHealing

    def __init__(
        self,
        peers: str | Sequence[str] | None = None,
        *,
        run: str | None = None,
        node: str | None = None,
        host: str | None = None,
        port: int | None = None,
        min_members: int | None = None,
        timeout: float | None = None,
        worker_timeout: float | None = None,
        linger: float | None = None,
        link_rate: float | None = None,
        insecure: bool | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        join_at_round: int | None = None,
        buffers: str = "mean",
        dialler: Dialler = dial_tcp,
        **lightning: Any,
    ) -> None:
        super().__init__(**lightning)
        self.settings: Settings = resolve(
            os.environ,
            peers=peers,
            run=run,
            node=node,
            host=host,
            port=port,
            min_members=min_members,
            timeout=timeout,
            worker_timeout=worker_timeout,
            linger=linger,
            link_rate=link_rate,
            insecure=insecure,
            log_dir=log_dir,
            join_at_round=join_at_round,
            buffers=buffers,
        )
        self.fingerprint: Fingerprint = ()
        """What members must have alike, as it was when training began."""
        self._dialler = dialler
        self._node: Node | None = None
        self._rank, self._world = 0, 1
        self._samples: Samples | None = None
        self._reducer: Reducer | None = None
        self._signals: PoliteSignals | None = None
        self._story: Story | None = None
        self._pull: ShardPullHooks | None = None
        self._healing: SelfHealingHooks | None = None
        self._view: View | None = None
        self._blocked = False
        self._reduced = False
        self._loss_sum = 0.0
        self._mean_loss: float | None = None
        self._begun_at = 0.0
        self._wait_s = 0.0
        self._figures: dict[str, float] = {}

    # ---- ranks -----------------------------------------------------------------------------

    @property
    def root_device(self) -> torch.device:
        """The one device of this node."""
        devices: list[torch.device] = self.parallel_devices or [torch.device("cpu")]  # type: ignore[attr-defined]
        return devices[0]

    @property
    def global_rank(self) -> int:
        """Place in the view by age; a newcomer's is past the last."""
        return self._rank

    @property
    def world_size(self) -> int:
        """Members of the view."""
        return self._world

    @property
    def is_global_zero(self) -> bool:
        """The oldest member writes checkpoints and logs."""
        return self._rank == 0

    @property
    def node(self) -> Node:
        """This node while it fits."""
        assert self._node is not None, "only while fitting"
        return self._node

    @property
    def _trainer(self) -> Any:
        return self.lightning_module.trainer  # type: ignore[attr-defined]

    @staticmethod
    def clock() -> float:
        """Seconds since 1970, as in the run log."""
        return time.time()

    # ---- set-up ----------------------------------------------------------------------------

    def setup_environment(self) -> None:
        """Found the run or find it, before anything asks for a rank."""
        super().setup_environment()  # type: ignore[misc]
        devices = self.parallel_devices or []  # type: ignore[attr-defined]
        if len(devices) > 1:
            raise ConfigError(
                f"devices={len(devices)}: a node has one device; start one process per device"
            )
        if self._trainer.state.fn == "fit":
            # Members share samples out themselves; each validates on the whole set.
            self._trainer._accelerator_connector.use_distributed_sampler = False
            self._add_callbacks()
            self._open_node()

    def _add_callbacks(self) -> None:
        callbacks = self._trainer.callbacks
        for name, kind in (("_pull", self.pull_class), ("_healing", self.healing_class)):
            found = next((c for c in callbacks if isinstance(c, kind)), None)
            if found is None:
                found = kind()
                callbacks.append(found)
            setattr(self, name, found)

    def _open_node(self) -> None:
        settings = self.settings
        fit, run = _fits[settings.run], settings.run
        _fits[settings.run] += 1
        config = PeerConfig(
            run=f"{run}+{fit}" if fit else run,
            node=settings.node,
            host=settings.host,
            peers=tuple(str(address) for address in settings.peers),
            min_members=settings.min_members,
            may_found=settings.join_at_round < 0,
            timeout_s=settings.timeout_s,
            worker_timeout_s=settings.worker_timeout_s,
            linger_s=settings.linger_s,
            insecure=settings.insecure,
        )
        self._node = Node(
            config,
            port=settings.port,
            rate_bytes_per_s=settings.link_rate_bytes_per_s,
            run_log=settings.log_dir,
            dialler=self._dialler,
        )
        self._story = Story(self._where)
        try:
            standing = self._node.open()
        except RunFinished as finished:
            self._close_node("the run is over")
            self._exit_finished(finished)
        except BaseException:
            self._close_node("it did not get in")
            raise
        view = standing.view
        self._rank = len(view.members) if standing.newcomer else 0
        self._world = self._rank + 1
        promotion.set_rank(self._rank)
        share_processor(standing.me, view)
        doing = "joining" if standing.newcomer else "founded"
        log.info("%s run %s; this node is %s", doing, config.run, standing.me.address)

    def _where(self) -> str:
        epoch = self._view.epoch if self._view else 0
        round_ = self._node.round if self._node else -1
        return f"{self.settings.node} epoch {epoch} round {max(round_, 0)}"

    def _exit_finished(self, finished: RunFinished) -> None:
        """A latecomer leaves without training; the script ends with exit code 0."""
        log.warning(
            "%s. Nothing is left to train. For a new run wait up to %g s (linger), or name another "
            "one with CHAOS_RUN.",
            finished,
            self.settings.linger_s,
        )
        raise SystemExit(0)

    def process_dataloader(self, dataloader: Any) -> Any:
        """The training loader follows the ledger; the others stay as they are."""
        dataloader = super().process_dataloader(dataloader)  # type: ignore[misc]
        trainer = self._trainer
        if self._node is None or not trainer.training:
            return dataloader
        facts = inspect_loader(dataloader)
        if self._samples is not None and facts != self._samples.facts:
            raise DataError(
                f"the training loader was reloaded with {facts} after {self._samples.facts}: what "
                "is trained on cannot change during a run"
            )
        assert isinstance(dataloader, DataLoader)
        if self._samples is None:
            seed = int(os.environ.get("PL_GLOBAL_SEED") or random.SystemRandom().getrandbits(32))
            self._samples = Samples(
                trainer, facts, seed, self._begin_round, self.settings.min_members
            )
            assert self._healing is not None
            self._samples.resume(self._healing.resumed)
            self._healing.samples, self._healing.resumed = self._samples, {}
        return elastic_loader(dataloader, self._samples)

    def on_train_start(self) -> None:
        """Training is ready: newcomers ask for their seat from now on."""
        super().on_train_start()  # type: ignore[misc]
        trainer = self._trainer
        if self._samples is None:
            raise DataError("there is no training loader that could be shared")
        if len(trainer.fit_loop._combined_loader.flattened) > 1:
            raise DataError("Several training loaders at once cannot be shared; pass one.")
        if trainer._val_check_time_interval is not None:
            raise ConfigError(
                "val_check_interval is a time: each member would look at its own clock. Give a "
                "number of batches or a part of the epoch"
            )
        self._reducer = Reducer(self.lightning_module, buffers=self.settings.buffers)  # type: ignore[attr-defined]
        self._set_up_validation()
        check_sendable(*self._state())
        self.fingerprint = settings_of(trainer, self._samples.facts, self._reducer.fingerprint)
        self._signals = PoliteSignals(self.node.ask_to_leave)
        self.node.ask_seat(self.fingerprint, self.settings.join_at_round)

    def _set_up_validation(self) -> None:
        """Now, on this node's own: in the first validation a newcomer would have to do it alone."""
        trainer = self._trainer
        if trainer.enable_validation:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.setup_data()
            trainer.training = True

    # ---- rounds ----------------------------------------------------------------------------

    def _begin_round(self) -> tuple[int, int]:
        """Wait until the next round may begin; serve or join meanwhile."""
        assert self._pull is not None and self._healing is not None
        self._end_round()
        while True:
            turn = self.node.turn()
            match turn:
                case Go(view=view, sharers=sharers):
                    self.node.begin_round()
                    self._follow(view)
                    self._begun_at, self._wait_s = time.monotonic(), 0.0
                    self._reduced, self._loss_sum = False, 0.0
                    return len(sharers), sharers.index(self.node.uid)
                case Hold(view=view):
                    self.node.hold(view, self._image_or_reason())
                case Gone():
                    self.node.part()
                    assert self._signals is not None
                    self.node.log("leave", round=self.node.round)
                    raise self._signals.ending()
                case Apart():
                    self._step_out()
                    try:
                        self._healing.come_in(self, self._pull, turn)
                    except RunFinished as finished:
                        self._exit_finished(finished)

    def _follow(self, view: View) -> None:
        """Ranks, threads and callbacks follow the view in force."""
        if self._view is not None and view.epoch == self._view.epoch:
            return
        assert self._healing is not None
        self._view = view
        rank = view.rank(self.node.uid)
        promoted = rank == 0 and self._rank != 0
        self._rank, self._world = rank if rank is not None else self._rank, len(view.members)
        promotion.set_rank(self._rank)
        if promoted:
            promotion.promote(self._trainer)
        me = view.find(self.node.uid)
        if me is not None:
            share_processor(me, view)
        self._healing.on_view(self._trainer, view)

    def _step_out(self) -> None:
        """Out of the run: write nothing that the run's rank zero may write too."""
        assert self._samples is not None
        self._samples.drop()
        if self._view is not None:
            self._view = None
            self._rank, self._world = max(1, self._world), self._world + 1
            promotion.set_rank(self._rank)

    def _end_round(self) -> None:
        if self._begun_at:
            assert self._healing is not None
            if self.node.in_step:
                self._healing.round_finished()
            self._begun_at = 0.0

    def image(self) -> StateImage:
        """This member's state between two rounds."""
        shared, local = self._state()
        node = self.node
        return StateImage.of(shared, local, round=node.round + 1, operation=node.last_operation)

    def _image_or_reason(self) -> StateImage | str:
        try:
            return self.image()
        except StateError as error:  # no reason to end the run: only nobody can join it
            log.error("cannot take anybody in: %s", error)
            return str(error)

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        assert self._samples is not None and self._reducer is not None
        shared, local = handover.take(self._trainer)
        shared["samples"] = self._samples.state_dict()
        shared["reducer"] = self._reducer.state_dict()
        return shared, local

    def take_over(self, shared: Any, local: Any) -> None:
        """Make this node's training what the members' is."""
        assert self._samples is not None and self._reducer is not None
        handover.give(self._trainer, shared, local)
        self._samples.load_state_dict(shared["samples"])
        self._reducer.load_state_dict(shared["reducer"])

    # ---- gradients -------------------------------------------------------------------------

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Only the last micro-batch of an accumulation sends its gradients."""
        self._blocked = True
        try:
            yield
        finally:
            self._blocked = False

    def backward(self, closure_loss: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Backward of a loss scaled so that the round is the mean over its samples."""
        if self._samples is not None and self._node is not None and self._node.round >= 0:
            scale = self._samples.loss_scale()
            if scale == 0.0:  # of stand-ins, which must not even touch a parameter
                closure_loss = torch.zeros_like(closure_loss, requires_grad=True)
            elif scale != 1.0:
                closure_loss = closure_loss * scale
            self._loss_sum += float(closure_loss.detach())
        loss: Tensor = super().backward(closure_loss, *args, **kwargs)  # type: ignore[misc]
        return loss

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """A step without gradients (None, or no ``manual_backward``) takes part in its round.

        Lightning refuses None where there are several processes, so its loss becomes one that
        reaches no parameter.  In manual optimization the module itself leaves out the optimizer's
        step, so all members must: the label sees to that.
        """
        output = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if self._samples is None or self._node is None:
            return output
        if not self.lightning_module.automatic_optimization:  # type: ignore[attr-defined]
            if not self._reduced:
                self._samples.silence()
                self._reduce_round("a manual training_step without gradients")
        elif output is None:
            self._samples.silence()
            return torch.zeros((), device=self.root_device, requires_grad=True)
        return output

    def post_backward(self, closure_loss: Tensor) -> None:
        """Gradients are complete: reduce them, before they are unscaled or clipped."""
        super().post_backward(closure_loss)  # type: ignore[misc]
        if not self._blocked and self._reducer is not None:
            self._reduce_round()

    def optimizer_step(self, optimizer: Any, closure: Any, *args: Any, **kwargs: Any) -> Any:
        """An optimizer that looks at the loss (LBFGS) sees the mean, the same at all members."""

        def closure_of_all() -> Any:
            self._mean_loss = None
            return self._mean_of(closure())

        return super().optimizer_step(optimizer, closure_of_all, *args, **kwargs)  # type: ignore[misc]

    def _mean_of(self, loss: Any) -> Any:
        mean = self._mean_loss
        return loss if loss is None or mean is None else loss.new_tensor(mean)

    def _reduce_round(self, label: str = "gradients") -> None:
        """One gradient operation; its result replaces every member's own gradients."""
        assert self._reducer is not None and self._samples is not None
        reducer, samples, node = self._reducer, self._samples, self.node
        self._reduced = True
        weight, share = float(samples.weight), float(samples.share)
        given = reducer.contribution(weight, divided_by=share)
        loss = self._loss_sum * share / weight if weight else None
        self._loss_sum = 0.0
        header = RoundHeader(
            samples.slice, given.used, given.buffers, given.values, bool(node.stop_asked), loss
        )
        outcome = self._operate(label, encode_header(header), given, weight)
        if outcome is None:
            for parameter in self.lightning_module.parameters():  # type: ignore[attr-defined]
                parameter.grad = None
            return
        headers = [decode_header(blob) for blob in outcome.blobs]
        assert outcome.result is not None
        reducer.apply(
            torch.from_numpy(outcome.result),
            [h.used for h in headers],
            [h.values for h in headers],
        )
        samples.commit([h.slices for h in headers])
        self._record(outcome, headers)
        self._activate_buffers(headers, weight)
        if any(h.stop for h in headers):
            self._trainer.should_stop = True

    def _activate_buffers(self, headers: list[RoundHeader], weight: float) -> None:
        """Buffers that changed for the first time at any member are made equal at once."""
        assert self._reducer is not None
        names = self._reducer.newly_active([h.buffers for h in headers])
        if not names:
            return
        extra = self._reducer.extra_contribution(names, weight)
        outcome = self._operate("buffers", extra.values, extra, weight)
        if outcome is not None and outcome.result is not None:
            self._reducer.apply_extra(names, torch.from_numpy(outcome.result), outcome.blobs)

    def _operate(self, label: str, blob: bytes, given: Any, weight: float) -> Outcome | None:
        begun = time.monotonic()
        outcome = self.node.operate(label, blob, given.vector.numpy(), weight, given.buckets)
        self._wait_s += time.monotonic() - begun
        self._after_operation(outcome)
        return outcome

    def _after_operation(self, outcome: Outcome | None) -> None:
        view = self.node.view_in_force
        if outcome is not None and view is not None and view.rank(self.node.uid) is not None:
            self._follow(view)
        elif outcome is None:
            self._step_out()

    def _record(self, outcome: Outcome, headers: list[RoundHeader]) -> None:
        """Figures for the loggers, and the round for the run log once it is stable."""
        assert self._samples is not None
        round_s = time.monotonic() - self._begun_at
        samples = outcome.total
        self._figures = {
            "chaos/members": float(len(outcome.members)),
            "chaos/round_s": round_s,
            "chaos/wait_s": self._wait_s,
            "chaos/samples_per_s": samples / round_s if round_s > 0 else 0.0,
        }
        parts = zip(outcome.weights, headers, strict=True)
        losses = [(w, h.loss) for w, h in parts if h.loss is not None]
        counted = sum(w for w, _ in losses)
        self._mean_loss = sum(w * loss for w, loss in losses) / counted if counted else None
        if not any(header.slices for header in headers):
            return  # a further reduction of the same round: of manual optimization, or LBFGS
        facts, ledger = self._samples.facts, self._samples.ledger
        self.node.record(
            outcome.op,
            round=outcome.op.round,
            epoch=self._view.epoch if self._view else 0,
            data_epoch=ledger.epoch,
            members=list(outcome.members),
            weights=list(outcome.weights),
            ranges=[[list(r) for r in h.slices] for h in headers],
            size=facts.size,
            seed=ledger.seed,
            shuffle=facts.shuffle,
            drop_last=facts.drop_last,
            loss=self._mean_loss,
            round_s=round_s,
            wait_s=self._wait_s,
        )

    def figures(self) -> dict[str, float]:
        """Of the last round: members, its seconds, seconds waited, samples per second."""
        return self._figures

    # ---- Lightning's own collectives -------------------------------------------------------

    def _gather(self, label: str, value: Any) -> list[Any]:
        """Everybody's value, oldest member's first; this node's alone outside of rounds."""
        if self._node is None or not self._node.in_step:
            return [value]
        outcome = self._node.operate(label, pack(value, label))
        self._after_operation(outcome)
        return [value] if outcome is None else [unpack(blob) for blob in outcome.blobs]

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Mean, sum, … of a tensor over the members, in float order of their age."""
        if not isinstance(tensor, Tensor):
            return tensor
        parts = self._gather("reduce", tensor.detach())
        return combine(parts, reduce_op).to(tensor.device)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Whether all (or any) of the members say yes."""
        parts = self._gather("reduce_boolean_decision", bool(decision))
        return sum(parts) == len(parts) if all else any(parts)

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """Every member's tensor, stacked in order of age."""
        if sync_grads:
            raise ConfigError("all_gather(sync_grads=True) is not supported by strategy='chaos'")
        parts = self._gather("all_gather", tensor.detach())
        return torch.stack([part.to(tensor.device) for part in parts])

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """The object of the member at that place by age, the youngest's if there are not so many.

        Members may have gone since the place was chosen.
        """
        parts = self._gather("broadcast", obj)
        return parts[min(src, len(parts) - 1)]

    def barrier(self, name: str | None = None) -> None:
        """Wait until every member is here."""
        self._gather(f"barrier {name or ''}".rstrip(), None)

    # ---- checkpoints -----------------------------------------------------------------------

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Rank zero writes; if it dies meanwhile, the next one writes again.

        The first exchange makes the round stable that the checkpoint tells of.
        """
        self.barrier("before a checkpoint")
        while True:
            written = self.is_global_zero
            super().save_checkpoint(checkpoint, filepath, storage_options)  # type: ignore[misc]
            if any(self._gather("checkpoint written", written)):
                return
            if not self._node or not self._node.in_step:
                return

    # ---- the end ---------------------------------------------------------------------------

    def on_train_end(self) -> None:
        """The last round is made stable everywhere; then this node is on its own again."""
        super().on_train_end()  # type: ignore[misc]
        if self._node is None:
            return
        if self._node.in_step and self._node.round >= 0:
            self.barrier("end of fit")
        if self._node.in_step:
            assert self._samples is not None
            final: dict[str, Any] = {"round": self._node.round}
            if self.settings.log_dir:  # reads the whole state once
                try:
                    final["digest"] = self.image().digest
                except StateError as error:
                    log.error("the final state has no digest: %s", error)
            self._node.finish(final)
        self._view = None

    def on_exception(self, exception: BaseException) -> None:
        """The node says its last word before the error goes on."""
        super().on_exception(exception)  # type: ignore[misc]
        text = f"{type(exception).__name__}: {exception}".rstrip(": ")
        self._close_node(text)

    def teardown(self) -> None:
        """Give everything back; what comes after a fit is this node's own."""
        self._close_node("fit ended")
        if self._trainer.state.fn != "fit":
            self._log_metrics()
        super().teardown()  # type: ignore[misc]

    def _log_metrics(self) -> None:
        """The figures of a test or validation that follows a fit, into the same run log."""
        if not self.settings.log_dir:
            return
        values = {k: float(v) for k, v in self._trainer.callback_metrics.items() if v.numel() == 1}
        with closing(Node.reopen_log(self.settings.log_dir, self.settings.node)) as run_log:
            run_log.write("metrics", stage=str(self._trainer.state.fn.value), values=values)

    def _close_node(self, reason: str) -> None:
        if self._signals is not None:
            self._signals.close()
            self._signals = None
        if self._reducer is not None:
            self._reducer.close()
            self._reducer = None
        if self._node is not None:
            self._node.close(reason)
            self._node = None
        if self._story is not None:
            self._story.close()
            self._story = None
        self._samples = self._view = None
        if self._healing is not None:
            self._healing.samples = None
        if self._rank != 0 or self._world != 1:
            # A test after the fit is this node's own; its loggers stay quiet unless it was zero.
            self._world = 1


class ChaosStrategy(ChaosHooks, ParallelStrategy):
    __doc__ = ChaosHooks.__doc__

    @override
    def model_to_device(self) -> None:
        assert self.model is not None
        self.model.to(self.root_device)


def strategy_class(namespace: str) -> type[Any]:
    """The strategy for ``lightning.pytorch`` or ``pytorch_lightning``.

    The two are unrelated copies of the same classes, so each needs a strategy (and callbacks) of
    its own.
    """
    if namespace == "lightning.pytorch":
        return ChaosStrategy
    from lightning_chaos.skin.twin import TwinStrategy

    return TwinStrategy
