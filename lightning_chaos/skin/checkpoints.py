"""Checkpoints tell their lineage, and a node knows its own before it founds or finds the run."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.utilities.migration.utils import pl_legacy_patch

from lightning_chaos.errors import LineageError, StateError, in_a_line
from lightning_chaos.protocol.local import Standing
from lightning_chaos.protocol.values import Past
from lightning_chaos.skin.collectives import Collectives
from lightning_chaos.skin.lineage import Lineage, lost_rounds, past_of, stamp

log = logging.getLogger(__name__)


class Listener:
    """Stands where Lightning has a launcher: starts nothing, hears which checkpoint is asked for.

    A strategy is told that only when the model is set up, and founding cannot wait so long.
    """

    is_interactive_compatible = True

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        """Arguments of the call that runs, of ``Trainer.fit`` for example."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any, **kwargs: Any) -> Any:
        """What Lightning calls instead of the function."""
        self.asked = dict(inspect.signature(function).bind(*args, **kwargs).arguments)
        try:
            return function(*args, **kwargs)
        finally:
            self.asked = {}

    def kill(self, signum: Any) -> None:
        """There are no other processes."""


class Checkpoints(Collectives):
    """What the strategy does when checkpoints are written and read."""

    _launcher: Any

    def __init__(self, **lightning: Any) -> None:
        super().__init__(**lightning)
        self._past = Past()
        self._ahead: tuple[str, Any] | None = None
        """Path and content of a checkpoint that was read before Lightning asks for it."""
        self._newest = "", False
        """Path of the last checkpoint that is known, and whether it is this node's own."""
        self._lineage: Lineage | None = None
        """Of the state that the last fit ended with."""

    def _configure_launcher(self) -> None:
        self._launcher = Listener()

    def _look_back(self) -> bool:
        """Read the checkpoint that ``fit`` was asked to go on from.

        Returns:
            Whether it was asked to, even if there is none yet.
        """
        trainer, asked = self._trainer, self._launcher.asked
        path = trainer._checkpoint_connector._select_ckpt_path(
            trainer.state.fn, asked.get("ckpt_path"), model_provided=True, model_connected=True
        )
        self._ahead = self._lineage = None
        if path is not None:
            how = {"weights_only": asked["weights_only"]} if "weights_only" in asked else {}
            self._ahead = str(path), self._read(path, **how)
        content = self._ahead[1] if self._ahead else None
        self._newest = str(path or ""), True
        self._past = past_of(content, self._run_id, self.settings.log_dir)
        return path is not None or asked.get("ckpt_path") is not None

    def _read(self, path: Any, **how: Any) -> Mapping[str, Any]:
        """The checkpoint there.

        Raises:
            FileNotFoundError: there is none.
            StateError: what is there cannot be loaded, or is something else.
        """
        try:
            with pl_legacy_patch():
                content = super().load_checkpoint(path, **how)  # type: ignore[misc]
        except FileNotFoundError:
            raise
        except Exception as error:  # what was cut short can look like anything
            raise _useless(path, in_a_line(error)) from error
        if not isinstance(content, Mapping):
            raise _useless(path, f"it holds a {type(content).__name__}")
        return content

    def load_checkpoint(self, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a checkpoint, unless it was read ahead."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == str(checkpoint_path):
            return ahead[1]
        return super().load_checkpoint(checkpoint_path, *args, **kwargs)  # type: ignore[misc]

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """The oldest members write (``savers``); if all of them die meanwhile, the next ones do.

        The first exchange makes the round stable that the checkpoint tells of.

        Raises:
            StateError: this member's disk is full, say: another one writes its own.
        """
        self.barrier("before a checkpoint")
        self._note_lineage()
        if self._lineage is not None:
            stamp(checkpoint, self._lineage)
        while True:
            written = self._saves
            if written:
                self._write(checkpoint, filepath, storage_options)
                self._newest = str(filepath), True  # it is there whatever becomes of the others
            if any(self._gather("checkpoint written", written)):
                self._newest = str(filepath), written
                return
            if not self._node or not self._node.in_step:
                return

    def _write(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any) -> None:
        try:
            self.checkpoint_io.save_checkpoint(  # type: ignore[attr-defined]
                checkpoint, filepath, storage_options=storage_options
            )
        except OSError as error:
            # Not to be passed over: older checkpoints are deleted because of the newer one.
            raise StateError(
                f"the checkpoint {filepath} cannot be written ({in_a_line(error)}): see to its "
                f"disk and start this node again. {self.newest_checkpoint}"
            ) from error

    def remove_checkpoint(self, filepath: Any) -> None:
        """Who writes checkpoints removes the old ones."""
        if self._saves:
            self.checkpoint_io.remove_checkpoint(filepath)  # type: ignore[attr-defined]

    @property
    def newest_checkpoint(self) -> str:
        """Where the newest checkpoint lies, for people."""
        path, here = self._newest
        if not path:
            return "No checkpoint is known here."
        where = "" if here else ", written by the run's oldest member, perhaps to its own disk"
        return f"The newest checkpoint: {path}{where}"

    @property
    def _saves(self) -> bool:
        """This member writes checkpoints to its disk."""
        return self._rank < self.settings.savers

    # ---- lineage ---------------------------------------------------------------------------

    def _note_lineage(self) -> None:
        """Name the present state, also for checkpoints that are written after the fit."""
        if self._view is not None and self._samples is not None:
            view, samples = self._view, self._samples
            trained = samples.trained_samples, samples.trained_rounds
            self._lineage = Lineage(view.run, view.generation, view.epoch, *trained)

    def take_over(self, shared: Any, local: Any) -> None:
        """Make this node's training what the members' is, unless that is older.

        Raises:
            LineageError: the run's state is older than the checkpoint that this node brought.
        """
        samples = shared["samples"]
        theirs = Past(self.node.view.generation, int(samples["samples"]), int(samples["rounds"]))
        if theirs.lineage < self._past.lineage:
            raise LineageError(
                f"this node was to go on from a checkpoint ({_in_words(self._past)}), but the run "
                f"that it found has an older state ({_in_words(theirs)}), which must not replace "
                "it. To go on from the checkpoint, stop the run and start its nodes with ckpt_path "
                "and min_members, so that the newest checkpoint among them is taken; to give the "
                "checkpoint up, start this node without ckpt_path"
            )
        super().take_over(shared, local)
        self._past = Past()

    def _tell_restart(self, standing: Standing) -> None:
        """The founder tells from which checkpoint the run goes on, and what is lost."""
        past, generation = self._past, standing.view.generation
        if standing.newcomer or past.generation < 0:
            return
        lost = lost_rounds(past, standing.told)
        self.node.log(
            "restart",
            generation=generation,
            round=past.rounds,
            samples=past.samples,
            lost_rounds=lost,
        )
        log.info(
            "going on from a checkpoint (%s) as generation %d; rounds that came after it and are "
            "lost: %s",
            _in_words(past),
            generation,
            "unknown, no run log here tells" if lost is None else lost,
        )


def _useless(path: Any, problem: str) -> StateError:
    return StateError(
        f"the checkpoint {path} cannot be loaded ({problem}): go on from another one, or start "
        "this node without ckpt_path, to take the state from the others of the run"
    )


def _in_words(past: Past) -> str:
    return f"generation {past.generation}, {past.rounds} rounds, {past.samples} samples"
