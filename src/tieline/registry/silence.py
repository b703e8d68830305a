"""Silence: a branch that is not heard is a partition until shown otherwise, and not a mass death of what it holds.

Leases of records end one by one, as their owners renew them or do not. While a branch is silent nobody can tell which:
so as soon as more than 15 % of what was alive would have ended since it fell silent, its leases are frozen. What is
frozen stays, is shown as stale, and ends when the branch is heard again and says nothing better, or at the latest a day
after it fell silent. (Eureka guards its registry alike: it stops evicting below a share of expected renewals.)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import msgspec

from tieline.registry.rules import SKEW_S

FROZEN_ABOVE_PERCENT = 15
FROZEN_MOST_S = 86_400


class Staleness(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a silent branch is stale."""

    alive: int  # leases that ran when it fell silent
    stale: int  # of those, that would have ended since
    is_frozen: bool  # so many at once that they do not end
    until_s: int  # from when on they end whatever happens


class Silence(msgspec.Struct, frozen=True):
    """One branch that fell silent at ``since_s``, and when the leases that ran then end, ascending."""

    since_s: int
    ends_s: tuple[int, ...]

    @classmethod
    def of(cls, since_s: int, ends_s: Iterable[int]) -> Silence:
        """A branch falls silent; leases that had ended before are none of its concern."""
        return cls(since_s, tuple(sorted(end_s for end_s in ends_s if end_s + SKEW_S > since_s)))

    def staleness(self, now_s: int) -> Staleness:
        """How it stands now."""
        alive = len(self.ends_s)
        stale = bisect_right(self.ends_s, now_s - SKEW_S)
        until_s = self.since_s + FROZEN_MOST_S
        is_frozen = stale * 100 > alive * FROZEN_ABOVE_PERCENT and now_s < until_s
        return Staleness(alive=alive, stale=stale, is_frozen=is_frozen, until_s=until_s)
