"""``torchrun --rdzv-backend=chaos``: an agent restarts its own worker and nobody else's.

:func:`get_handler` is what the entry point group ``torchrun.handlers`` names.  torchrun calls it
whatever its backend is, so the handler itself is imported when it is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters


def get_handler() -> Callable[[RendezvousParameters], RendezvousHandler]:
    """What makes handlers, as torchrun's entry point wants it."""
    return make_handler


def make_handler(params: RendezvousParameters) -> RendezvousHandler:
    """The rendezvous of one agent.

    Args:
        params: torchrun's flags.

    Raises:
        ConfigError: a flag or ``CHAOS_…`` variable cannot work.
    """
    from lightning_chaos.rendezvous.handler import ChaosRendezvous

    return ChaosRendezvous(params)
