"""Backfill: when will enough of a pool be free for a demand that waits for it?

The rule is EASY backfill (Lifka, "The ANL/IBM SP scheduling system", 1995): the demand at the head of the line is given
the earliest time at which the runs that are there now will have ended, and others may use the pool meanwhile only if
they end before that time. Here the ends are upper bounds (a run's `stop_after_s`); a run without one never ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tieline.place.pools import Amount


class RunEnd(NamedTuple):
    """When a run will have ended at the latest, and what it then gives back."""

    end_ms: int
    amount: Amount


def shadow_ms(needed: Amount, free: Amount, ends: Sequence[RunEnd]) -> int | None:
    """The earliest time at which ``needed`` is free if nothing new comes; None where it is not known."""
    have = list(free)
    for end in sorted(ends):
        have = [one + more for one, more in zip(have, end.amount, strict=True)]
        if all(one >= asked for one, asked in zip(have, needed, strict=True)):
            return end.end_ms
    return None
