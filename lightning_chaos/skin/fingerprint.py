"""What the members of a run must have alike (design §8, last but one paragraph)."""

from __future__ import annotations

import os
from typing import Any

import torch

import lightning_chaos
from lightning_chaos.data.loader import LoaderFacts
from lightning_chaos.protocol.messages import Fingerprint
from lightning_chaos.protocol.values import PROTOCOL_VERSION
from lightning_chaos.skin.settings import Settings


def settings_of(
    trainer: Any, facts: LoaderFacts, model: tuple[tuple[str, str], ...], settings: Settings
) -> Fingerprint:
    """Settings in the order in which a newcomer's are compared with the run's.

    Not ``min_members`` as a rule: each waits for that many for itself, and only before its first
    round, so who comes later need not know it.  What a script makes of it with
    ``estimated_stepping_batches`` cannot be seen here.  But who stands by is worked out from it.

    Args:
        trainer: about to train.
        facts: of the training loader.
        model: names and shapes of parameters and buffers, and how they are reduced.
        settings: of the strategy.
    """
    optimizers = ", ".join(type(o).__name__ for o in trainer.optimizers)
    pairs = {
        "protocol": PROTOCOL_VERSION,
        "lightning_chaos": lightning_chaos.__version__,
        "torch": torch.__version__.partition("+")[0],
        "quorum": settings.quorum,
        "slow": settings.slow,
        **({"min_members": settings.min_members} if settings.slow == "standby" else {}),
        "verify_every": settings.verify_every,
        "precision": trainer.precision,
        **{f"model {name}": value for name, value in model},
        "optimizers": optimizers,
        "samples": facts.size,
        "batch_size": facts.batch,
        "shuffle": facts.shuffle,
        "drop_last": facts.drop_last,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "gradient_clip_algorithm": getattr(
            trainer.gradient_clip_algorithm, "value", trainer.gradient_clip_algorithm
        ),
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "limit_train_batches": trainer.limit_train_batches,
        "val_check_interval": trainer.val_check_interval,
        "seed": os.environ.get("PL_GLOBAL_SEED", "none"),
    }
    return tuple((name, str(value)) for name, value in pairs.items())
