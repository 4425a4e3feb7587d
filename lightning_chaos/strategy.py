"""``Trainer(strategy="chaos")``: the Lightning skin, thin.

:class:`ChaosHooks` holds what the strategy does; the classes below it put it on the
``ParallelStrategy`` of either Lightning namespace.  There is no launcher and no default process
group; ranks and world size follow the view; up to the first round and after the last one all
collectives are this node's own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ParallelStrategy
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_chaos.callbacks import (
    SelfHealing,
    SelfHealingHooks,
    ShardPull,
    ShardPullHooks,
    ensured,
)
from lightning_chaos.collective.reducer import Reducer
from lightning_chaos.data.loader import elastic_loader, inspect_loader
from lightning_chaos.errors import DataError, QuorumLost, StateError, in_a_line
from lightning_chaos.protocol.messages import Fingerprint
from lightning_chaos.protocol.values import View
from lightning_chaos.replay.book import read_book
from lightning_chaos.replay.node import ReplayNode
from lightning_chaos.replay.parts import Parts
from lightning_chaos.replay.quiet import quiet
from lightning_chaos.replication.image import check_sendable
from lightning_chaos.skin.chance import begin_common_chance, seed_of_script
from lightning_chaos.skin.checkpoints import Checkpoints
from lightning_chaos.skin.fingerprint import settings_of
from lightning_chaos.skin.leaving import LeftRun, PoliteSignals
from lightning_chaos.skin.limits import check_devices, check_fit, check_reload
from lightning_chaos.skin.samples import Samples
from lightning_chaos.skin.settings import Settings, resolve
from lightning_chaos.skin.story import Story
from lightning_chaos.transport.dial import Dialler
from lightning_chaos.transport.relayed import dialler_for
from lightning_chaos.worker.node import Node

log = logging.getLogger(__name__)


class ChaosHooks(Parts, Checkpoints):
    """What the strategy does, whatever Lightning class it sits on.

    Args:
        peers: addresses ``host:port`` of other nodes; without any, nodes of the same user on
            this machine find each other by the run's id.
        run: id of the run; by default from the script's path and the user.
        node: name of this node, unique in the run.
        host: address this node listens on and others dial.
        port: of its one inbound door, 0 for any free one.
        min_members: members needed before the first round.
        timeout: longest silence tolerated between two nodes, seconds; by default one, or more
            on links whose measured round trip asks for it.
        worker_timeout: longest time a worker may work on one round, seconds; by default ten times
            its longest so far, at least a minute. Ten times that for the first round, and between
            rounds.
        start_timeout: longest time to wait for ``min_members`` before the first round, seconds.
        quorum_timeout: longest time that a side of a cut network waits for the others before its
            nodes give up, seconds.
        linger: how long a finished run is told to latecomers, seconds.
        link_rate: speed limit of each outgoing link, Mbit/s; 0 for none.
        insecure: allow addresses that are not loopback, unencrypted.
        log_dir: directory for the run log, none by default.
        join_at_round: stand by: never found the run, and ask for a seat only when the run has
            begun this round.
        savers: how many members, the oldest ones, write checkpoints; more than one is for
            nodes with disks of their own.
        buffers: float buffers become the ``"mean"`` of the members', those of the ``"first"``
            (oldest), or stay each member's own (``"local"``).
        quorum: what a side of a cut network does that has not more than half of the members:
            wait (``"majority"``) or go on alone as an island (``"any"``), until they meet.
        slow: what becomes of a member that takes three times as long as usual: it is shown
            (``"keep"``), and takes fewer samples (``"share"``) or gives its seat back for a
            while (``"standby"``).
        verify_every: rounds between two checks that members have the same state, each of another
            segment of it; who differs is corrected. 0 for no checks.
        dialler: opens the worker's connections in its own way (tests put theirs here).
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
        start_timeout: float | None = None,
        quorum_timeout: float | None = None,
        linger: float | None = None,
        link_rate: float | None = None,
        insecure: bool | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        join_at_round: int | None = None,
        savers: int | None = None,
        buffers: str = "mean",
        quorum: str | None = None,
        slow: str | None = None,
        verify_every: int | None = None,
        dialler: Dialler | None = None,
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
            start_timeout=start_timeout,
            quorum_timeout=quorum_timeout,
            linger=linger,
            link_rate=link_rate,
            insecure=insecure,
            log_dir=log_dir,
            join_at_round=join_at_round,
            savers=savers,
            buffers=buffers,
            quorum=quorum,
            slow=slow,
            verify_every=verify_every,
        )
        self.fingerprint: Fingerprint = ()
        """What members must have alike, as it was when training began."""
        self._dialler = dialler or dialler_for(self.settings.relay, self.settings.node)
        self._node: Node | None = None
        self._rank, self._world = 0, 1
        self._samples: Samples | None = None
        self._reducer: Reducer | None = None
        self._signals: PoliteSignals | None = None
        self._story: Story | None = None
        self._pull: ShardPullHooks | None = None
        self._healing: SelfHealingHooks | None = None
        self._view: View | None = None

    # ---- set-up ----------------------------------------------------------------------------

    def setup_environment(self) -> None:
        """Found the run or find it, before anything asks for a rank."""
        super().setup_environment()  # type: ignore[misc]
        check_devices(len(self.parallel_devices or []))  # type: ignore[attr-defined]
        if self._trainer.state.fn == "fit":
            # Members share samples out themselves; each validates on the whole set.
            self._trainer._accelerator_connector.use_distributed_sampler = False
            self._pull = ensured(self._trainer.callbacks, self.pull_class)
            self._healing = ensured(self._trainer.callbacks, self.healing_class)
            if self.settings.replay:
                quiet(self._trainer)
                self._node = ReplayNode(read_book(Path(self.settings.replay)), self)
            else:
                resuming = self._look_back()
                self._tell_restart(self._open_node(self._past, resuming=resuming))

    def process_dataloader(self, dataloader: Any) -> Any:
        """The training loader follows the ledger; the others stay as they are."""
        dataloader = super().process_dataloader(dataloader)  # type: ignore[misc]
        trainer = self._trainer
        if self._node is None or not trainer.training:
            return dataloader
        facts = inspect_loader(dataloader)
        assert isinstance(dataloader, DataLoader)
        if self._samples is None:
            settings, seed = self.settings, seed_of_script()
            self._samples = Samples(
                trainer, facts, seed, self._begin_round, settings.min_members, settings.slow
            )
            assert self._healing is not None
            self._samples.resume(self._healing.resumed)
            self._healing.samples, self._healing.resumed = self._samples, {}
        check_reload(facts, self._samples.facts)
        if self.settings.replay:
            self.read_for_others(dataloader, self._samples)
        return elastic_loader(dataloader, self._samples)

    def on_train_start(self) -> None:
        """Training is ready: newcomers ask for their seat from now on."""
        super().on_train_start()  # type: ignore[misc]
        trainer = self._trainer
        if self._samples is None:
            raise DataError("there is no training loader that could be shared")
        check_fit(trainer)
        self._reducer = Reducer(self.lightning_module, buffers=self.settings.buffers)  # type: ignore[attr-defined]
        self._set_up_validation()
        check_sendable(*self._state())
        model = self._reducer.fingerprint
        self.fingerprint = settings_of(trainer, self._samples.facts, model, self.settings)
        self._signals = PoliteSignals(self.node.ask_to_leave)
        if trainer.received_sigterm:  # Lightning alone listened until now
            raise LeftRun(0)
        self.node.log("settings", values=dict(self.fingerprint))
        self.node.ask_seat(self.fingerprint, self.settings.join_at_round, self._samples.committed)

    def _set_up_validation(self) -> None:
        """Now, on this node's own: in the first validation a newcomer would have to do it alone."""
        trainer = self._trainer
        if trainer.enable_validation:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.setup_data()
            trainer.training = True

    def on_validation_start(self) -> None:
        """All members validate on the same samples, and draw the same."""
        super().on_validation_start()  # type: ignore[misc]
        if self._samples is not None:
            seed = self._samples.ledger.seed
            begin_common_chance(seed, self._trainer.global_step, self.root_device)

    # ---- the end ---------------------------------------------------------------------------

    def on_train_end(self) -> None:
        """The last round is made stable everywhere; then this node is on its own again."""
        super().on_train_end()  # type: ignore[misc]
        if self._node is None:
            return
        if self._node.in_step and self._node.round >= 0:
            if self.settings.verify_every and self._world > 1:
                self._settle()
            else:
                self.barrier("end of fit")
        if self._node.in_step or self.settings.replay:
            self._node.finish(self._final())
        self._note_lineage()
        self._view = None

    def _final(self) -> dict[str, Any]:
        """What the run log says of the end."""
        final = {"round": self.node.round, "stopped": self._trainer.should_stop}
        if self._tells_digests:
            try:
                final["digest"] = self.image().digest
            except StateError as error:
                log.error("the final state has no digest: %s", error)
        return final

    def on_exception(self, exception: BaseException) -> None:
        """The node says its last word before the error goes on."""
        super().on_exception(exception)  # type: ignore[misc]
        if isinstance(exception, QuorumLost):
            exception.add_note(self.newest_checkpoint)
        self._close_node(in_a_line(exception))

    def teardown(self) -> None:
        """Give everything back; what comes after a fit is this node's own."""
        self._close_node("fit ended")
        if self._trainer.state.fn != "fit":
            self._log_metrics()
        super().teardown()  # type: ignore[misc]


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
