"""What is random in training: a function of the run's seed and of the samples.

Dropout masks, augmentation and the like of a micro-batch are drawn from generators that begin
anew with it.  Members draw differently, because no two have the same samples; a replay draws the
same, whoever had them and whatever happened before.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def begin_chance(seed: int, epoch: int, position: int, device: torch.device) -> None:
    """Seed every generator that training draws from: Python's, numpy's, torch's.

    Args:
        seed: of the run.
        epoch: data epoch, from 0.
        position: first position of the micro-batch in the epoch's permutation.
        device: of the model; its generator is seeded beside the CPU's.
    """
    words = f"chance/{seed}/{epoch}/{position}".encode()
    number = int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big") >> 1
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    # Not torch.manual_seed, which sees to devices that nobody uses, at a millisecond each time.
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)
