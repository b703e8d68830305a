"""Violation: an invariant that does not hold, and the count of how often each was looked at."""

from __future__ import annotations

from collections import Counter


class ViolationError(Exception):
    """``invariant`` does not hold; ``what`` is where and how."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant
        self.what = what


class Checks:
    """Counts every check and raises at the first that fails."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def hold(self, invariant: str, is_so: bool, *what: object) -> None:
        """Look at ``invariant`` once. Raises ViolationError when it does not hold."""
        self.counts[invariant] += 1
        if not is_so:
            raise ViolationError(invariant, " ".join(str(each)[-1_500:] for each in what))
