"""What is random in training: a function of the run's seed and of the samples.

Dropout masks, augmentation and the like of a micro-batch are drawn from generators that begin
anew with it.  Members draw differently, because no two have the same samples; a replay draws
the same, whoever had them and whatever happened before.  In a validation, where all have the
same samples, all draw the same.
"""

from __future__ import annotations

import hashlib
import os
import random

import numpy as np
import torch


def seed_of_script() -> int:
    """What Lightning was told to seed with; torch's own, which may be any number, if nothing."""
    return int(os.environ.get("PL_GLOBAL_SEED") or torch.initial_seed())


def begin_chance(seed: int, epoch: int, position: int, device: torch.device) -> None:
    """Seed every generator that training draws from: Python's, numpy's, torch's.

    Args:
        seed: of the run.
        epoch: data epoch, from 0.
        position: first position of the micro-batch in the epoch's permutation.
        device: of the model; its generator is seeded beside the CPU's.
    """
    _begin(f"chance/{seed}/{epoch}/{position}", device)


def begin_common_chance(seed: int, step: int, device: torch.device) -> None:
    """Seed every generator that a validation draws from, alike at all members.

    Each validates on the whole set; what follows from it (a scheduler that watches a metric, an
    early stop) is state that they share.

    Args:
        seed: of the run.
        step: global step after which it takes place.
        device: of the model.
    """
    _begin(f"validation/{seed}/{step}", device)


def _begin(name: str, device: torch.device) -> None:
    words = name.encode()
    number = int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big") >> 1
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    # Not torch.manual_seed, which sees to devices that nobody uses, at a millisecond each time.
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)
