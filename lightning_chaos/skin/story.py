"""Log lines of a worker: who, epoch and round, then what happened."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TextIO

from typing_extensions import override

_ROOM = logging.getLogger("lightning_chaos")


class Story(logging.StreamHandler[TextIO]):
    """Shows the package's INFO lines on standard error while a node fits.

    It stands back where the user has configured logging: then the lines go where that says.

    Args:
        where: "node epoch e round r", or the node alone before it has a view; asked for every line.
    """

    def __init__(self, where: Callable[[], str]) -> None:
        super().__init__(sys.stderr)
        self._where = where
        self._level_before = _ROOM.level
        self._shown = not logging.root.handlers and not _ROOM.handlers
        if self._shown:
            _ROOM.addHandler(self)
            if _ROOM.level == logging.NOTSET:
                _ROOM.setLevel(logging.INFO)

    @override
    def format(self, record: logging.LogRecord) -> str:
        return f"[{self._where()}] {record.getMessage()}"

    @override
    def close(self) -> None:
        if self._shown:
            _ROOM.removeHandler(self)
            _ROOM.setLevel(self._level_before)
        super().close()
