"""Chance: one generator for each concern, all from one seed, so that what one concern draws disturbs no other."""

from __future__ import annotations

from random import Random


class Chance:
    """Generators by name. Text seeds are hashed by `random` itself (sha512): the same in every process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._made: dict[str, Random] = {}

    def of(self, concern: str) -> Random:
        """The generator of ``concern``, such as ``link x1>s3``; it goes on where it stopped."""
        made = self._made.get(concern)
        if made is None:
            made = self._made[concern] = Random(f"{self.seed} {concern}")  # noqa: S311 - a seed is what is wanted
        return made
