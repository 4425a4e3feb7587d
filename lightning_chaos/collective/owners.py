"""Whom data links ask and tell; all on their loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lightning_chaos.collective.actions import Landing, Verdict
from lightning_chaos.collective.frames import Frame, Greeting
from lightning_chaos.protocol.values import Uid

if TYPE_CHECKING:
    from lightning_chaos.collective.link import Link


class LinkOwner(Protocol):
    """Whom a link asks and tells; all on the loop."""

    def greeted(self, link: Link, greeting: Greeting) -> bool:
        """The other side has said who it is; False closes the connection."""
        ...

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        """Where a payload goes (see :meth:`Exchange.place`)."""
        ...

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        """A payload is whole."""
        ...

    def ended(self, link: Link, reason: str) -> None:
        """The connection is gone, whoever closed it; said once."""
        ...


class LinksOwner(Protocol):
    """The driver of an exchange; called on the loop, may call back at once."""

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        """See :meth:`Exchange.place`."""
        ...

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        """See :meth:`Exchange.complete`."""
        ...

    def connected(self, uid: Uid) -> None:
        """There is a link to that member (again)."""
        ...

    def broken(self, uid: Uid, reason: str) -> None:
        """The link to that member is gone, and frames with it; not said of :meth:`drop`."""
        ...

    def word(self, uid: Uid, reason: str) -> None:
        """That incarnation says through its worker that it votes no more."""
        ...
