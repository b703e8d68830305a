"""How long to wait before the next try: exponential with full jitter, so that a crowd does not come back as one."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Waits drawn evenly between 0 and a ceiling that doubles from ``first_s`` to ``most_s`` until `reset`.

    Full jitter: Brooker, "Exponential Backoff And Jitter" (2015), finds it to need the fewest calls.
    """

    def __init__(self, first_s: float = 0.2, most_s: float = 30.0, draw: Callable[[], float] = random.random) -> None:
        self.first_s = first_s
        self.most_s = most_s
        self.tries = 0
        self._draw = draw

    def next_s(self) -> float:
        """The wait before the next try, in seconds."""
        ceiling = min(self.most_s, self.first_s * float(2 ** min(self.tries, 30)))
        self.tries += 1
        return self._draw() * ceiling

    def reset(self) -> None:
        """It worked: start from the shortest wait again."""
        self.tries = 0
