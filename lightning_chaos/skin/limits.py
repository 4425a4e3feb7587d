"""What a Trainer can do and members of a run cannot: refused before training begins."""

from __future__ import annotations

from typing import Any

from lightning_chaos.data.loader import LoaderFacts
from lightning_chaos.errors import ConfigError, DataError


def check_devices(count: int) -> None:
    """A node trains on one device.

    Raises:
        ConfigError: there are more.
    """
    if count > 1:
        raise ConfigError(f"devices={count}: a node has one device; start one process per device")


def check_fit(trainer: Any) -> None:
    """Samples come from one loader, and all members validate after the same batch.

    Args:
        trainer: whose loaders are set up.

    Raises:
        ConfigError: validation goes by the clock.
        DataError: there are several training loaders.
    """
    if len(trainer.fit_loop._combined_loader.flattened) > 1:
        raise DataError("Several training loaders at once cannot be shared; pass one.")
    if trainer._val_check_time_interval is not None:
        raise ConfigError(
            "val_check_interval is a time: each member would look at its own clock. Give a "
            "number of batches or a part of the epoch"
        )


def check_reload(facts: LoaderFacts, before: LoaderFacts) -> None:
    """A training loader that is made anew has the samples of the first one.

    Raises:
        DataError: it has others.
    """
    if facts != before:
        raise DataError(
            f"the training loader was reloaded with {facts} after {before}: what is trained on "
            "cannot change during a run"
        )
