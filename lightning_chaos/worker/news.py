"""Waiting for what others bring about: whoever waits looks again whenever there is news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from lightning_chaos.errors import ChaosError

T = TypeVar("T")


class News:
    """One incarnation's news, on its event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.error: ChaosError | None = None
        """What ends every wait, if anything does."""

    def tell(self) -> None:
        """Something changed: whoever waits looks again."""
        self._event.set()
        self._event = asyncio.Event()

    def fail(self, error: ChaosError) -> None:
        """From now on every wait ends with this."""
        self.error = error
        self.tell()

    async def until(self, look: Callable[[], T | None]) -> T:
        """What ``look`` finds, as soon as it finds something.

        Raises:
            ChaosError: there is nothing to wait for any more.
        """
        while True:
            if self.error is not None:
                raise self.error
            found = look()
            if found is not None:
                return found
            await self._event.wait()
