"""A node's seat in the run: founded or found, its rank by the view, and given back."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from lightning_chaos import agent
from lightning_chaos.errors import RunFinished
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.skin import promotion
from lightning_chaos.skin.origin import origin
from lightning_chaos.skin.story import Story
from lightning_chaos.skin.threads import share_processor
from lightning_chaos.transport.address import Address
from lightning_chaos.worker.chronicle import run_log_of
from lightning_chaos.worker.node import Node

if TYPE_CHECKING:
    from lightning_chaos.callbacks import SelfHealingHooks
    from lightning_chaos.collective.reducer import Reducer
    from lightning_chaos.protocol.local import Standing
    from lightning_chaos.protocol.values import Past, View
    from lightning_chaos.skin.leaving import PoliteSignals
    from lightning_chaos.skin.samples import Samples
    from lightning_chaos.skin.settings import Settings
    from lightning_chaos.transport.dial import Dialler

log = logging.getLogger(__name__)

_fits: Counter[str] = Counter()
"""Fits of this process by run: the second one is a run of its own, also at the other nodes."""


class Seat:
    """What every part of the strategy stands on: the node, its rank, and what ends with it."""

    settings: Settings
    _dialler: Dialler
    _node: Node | None
    _rank: int
    _world: int
    _view: View | None
    _samples: Samples | None
    _reducer: Reducer | None
    _signals: PoliteSignals | None
    _story: Story | None
    _healing: SelfHealingHooks | None

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

    @property
    def _tells_digests(self) -> bool:
        """Somebody reads digests of the state, which read the whole state once."""
        return bool(self.settings.log_dir or self.settings.replay)

    @staticmethod
    def clock() -> float:
        """Seconds since 1970, as in the run log."""
        return time.time()

    @property
    def _run_id(self) -> str:
        """Id of the next fit's run."""
        fit, run = _fits[self.settings.run], self.settings.run
        return f"{run}+{fit}" if fit else run

    def _open_node(self, past: Past, *, resuming: bool) -> Standing:
        """Found the run or find it.

        Args:
            past: the checkpoint that this node brings.
            resuming: it was told to go on from one, if there is one.
        """
        agent.end_with_agent()  # if torch did not call our hook
        settings, run = self.settings, self._run_id
        config = PeerConfig(
            run=run,
            past=past,
            generation=past.generation + 1,
            gather=resuming and settings.min_members > 1 and settings.join_at_round < 0,
            node=settings.node,
            host=settings.host,
            peers=tuple(str(address) for address in settings.peers),
            min_members=settings.min_members,
            may_found=settings.join_at_round < 0,
            alone=settings.quorum == "any",
            timeout_s=settings.timeout_s,
            worker_timeout_s=settings.worker_timeout_s,
            start_timeout_s=settings.start_timeout_s,
            quorum_timeout_s=settings.quorum_timeout_s,
            linger_s=settings.linger_s,
            insecure=settings.insecure,
            relay=settings.relay,
        )
        self._node = Node(
            config,
            port=settings.port,
            rate_bytes_per_s=settings.link_rate_bytes_per_s,
            run_log=settings.log_dir,
            dialler=self._dialler,
        )
        self._story = Story(self._where)
        # Before another node on this machine makes it one thread.
        facts = origin(settings.min_members, self.root_device)
        _fits[settings.run] += 1
        try:
            standing = self._node.open()
        except RunFinished as finished:
            self._close_node("the run is over")
            self._exit_finished(finished)
        except BaseException:
            _fits[settings.run] -= 1  # a fit that is tried again means the same run
            self._close_node("it did not get in")
            raise
        view = standing.view
        self._node.log("script", **facts)
        self._note_others(view)
        self._rank = len(view.members) if standing.newcomer else 0
        self._world = self._rank + 1
        promotion.set_rank(self._rank)
        share_processor(standing.me, view)
        doing = "joining" if standing.newcomer else "founded"
        log.info("%s run %s; this node is %s", doing, config.run, standing.me.address)
        return standing

    def _note_others(self, view: View) -> None:
        """For the next incarnation, if torchrun has to start one."""
        name = self.settings.node
        agent.note_others(f"{Address(m.host, m.port)}" for m in view.members if m.node != name)

    def _where(self) -> str:
        if self._view is None or self._node is None:
            return self.settings.node
        return f"{self.settings.node} epoch {self._view.epoch} round {max(self._node.round, 0)}"

    def _exit_finished(self, finished: RunFinished) -> NoReturn:
        """A latecomer leaves without training; the script ends with exit code 0."""
        log.warning(
            "%s. Nothing is left to train. For a new run wait up to %g s (linger), or name another "
            "one with CHAOS_RUN.",
            finished,
            self.settings.linger_s,
        )
        raise SystemExit(0)

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

    def _log_metrics(self) -> None:
        """The figures of a test or validation that follows a fit, into the same run log."""
        if not self.settings.log_dir:
            return
        values = {k: float(v) for k, v in self._trainer.callback_metrics.items() if v.numel() == 1}
        with closing(run_log_of(self.settings.log_dir, self.settings.node)) as run_log:
            run_log.write("metrics", stage=str(self._trainer.state.fn.value), values=values)
