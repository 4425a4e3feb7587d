"""How this process was started and what it computes with: what the run log says for a replay."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import torch

_PASSED_ON = ("PL_",)


def origin(min_members: int, device: torch.device) -> dict[str, Any]:
    """Fields of the ``script`` event.

    Args:
        min_members: as the node's settings say.
        device: that it trains on.

    Returns:
        ``file`` ('' where there is none) and ``digest`` of the script, ``module`` if it was
        started as one, ``argv``, ``cwd``, ``env`` (Lightning's variables), ``threads`` and
        ``min_members``, and ``platform``, on which the bits depend.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None) or ""
    spec = getattr(main, "__spec__", None)
    return {
        "file": os.path.abspath(file) if file else "",
        "digest": script_digest(file),
        "module": spec.name if spec is not None else "",
        "argv": sys.argv[1:],
        "cwd": os.getcwd(),
        "env": {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)},
        "threads": torch.get_num_threads(),
        "min_members": min_members,
        "platform": platform_of(device),
    }


def script_digest(file: str) -> str:
    """SHA-256 of a script in hex, '' if it cannot be read."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    except OSError:
        return ""


def platform_of(device: torch.device) -> dict[str, str]:
    """What must be alike for bits to be alike."""
    name = torch.get_device_module(device).get_device_name(device) if device.type != "cpu" else ""
    return {
        "torch": str(torch.__version__),
        "device": f"{device.type} {name}".rstrip(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
