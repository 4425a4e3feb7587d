"""How often a node may fall out of the run and come back."""

from __future__ import annotations

from lightning_chaos.errors import NodeLost


class Restarts:
    """Counts falls with no round between them.

    Args:
        most: that many are allowed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most

    def use(self, reason: str) -> None:
        """One more time, because of that.

        Raises:
            NodeLost: that was once too often without a round between.
        """
        if self._left == 0:
            raise NodeLost(
                f"this node fell out of the run {self._most + 1} times without finishing a round "
                f"between, the last time because: {reason}"
            )
        self._left -= 1

    def reset(self) -> None:
        """A round was finished."""
        self._left = self._most
