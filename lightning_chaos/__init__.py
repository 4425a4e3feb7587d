"""Train one model together on machines that come and go, with nobody in charge.

``Trainer(strategy="chaos")`` needs no import of this package.  Importing it costs next to
nothing: neither torch nor Lightning is loaded before one of the names below is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_chaos._autoload import autoload

if TYPE_CHECKING:
    from lightning_chaos.callbacks import SelfHealing, ShardPull
    from lightning_chaos.strategy import ChaosStrategy

__version__ = "0.1.0"
__all__ = ["ChaosStrategy", "SelfHealing", "ShardPull", "__version__"]

_LAZY = {
    "ChaosStrategy": "lightning_chaos.strategy",
    "SelfHealing": "lightning_chaos.callbacks",
    "ShardPull": "lightning_chaos.callbacks",
}

# Importing the package is the documented fallback when torch's own autoload is switched off.
autoload()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
