"""Several nodes on one machine share its cores: one thread each.

With two threads each on two cores, steps were 5 to 19 times slower.  A user's own setting is
respected.
"""

from __future__ import annotations

import logging
import os

import torch

from lightning_chaos import _autoload
from lightning_chaos.protocol.values import Member, View

log = logging.getLogger(__name__)
_DEFAULT = _autoload.threads_at_first or torch.get_num_threads()
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def share_processor(me: Member, view: View) -> None:
    """Use one thread if another node of the view runs on this machine."""
    others = (m for m in (*view.members, *view.learners) if m.uid != me.uid)
    shared = any(m.machine and m.machine == me.machine for m in others)
    untouched = torch.get_num_threads() == _DEFAULT
    if shared and untouched and _DEFAULT > 1 and not any(v in os.environ for v in _VARIABLES):
        log.info("another node runs on this machine: computing with one thread")
        torch.set_num_threads(1)
