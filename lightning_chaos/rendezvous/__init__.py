"""``torchrun --rdzv-backend=chaos``: an agent restarts its own worker and nobody else's.

:func:`get_handler` is what the entry point group ``torchrun.handlers`` names.
"""

from __future__ import annotations

from lightning_chaos.rendezvous.handler import ChaosRendezvous, get_handler

__all__ = ["ChaosRendezvous", "get_handler"]
