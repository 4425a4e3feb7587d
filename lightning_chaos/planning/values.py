"""Value types of plans; they travel inside views."""

from __future__ import annotations

import msgspec


class ReducePlan(msgspec.Struct, frozen=True, array_like=True):
    """Who reduces which share of every bucket on a full mesh.

    Direct reduce-scatter and all-gather: every bucket is cut into one piece per member, sized
    by :attr:`shares`; everybody sends piece i to member i (its root) and gets its result back.
    """

    shares: tuple[int, ...]
    """Relative size of each member's piece, in member order; zero: not a root."""

    def check(self, members: int) -> str | None:
        """Why this plan does not serve that many members, or None if it does."""
        if len(self.shares) != members:
            return f"plan has {len(self.shares)} shares for {members} members"
        if any(s < 0 for s in self.shares) or sum(self.shares) == 0:
            return "shares must not be negative and not all zero"
        return None


def mesh_plan(members: int) -> ReducePlan:
    """Equal shares for a full mesh of equal links."""
    return ReducePlan(shares=(1,) * members)
