"""Rankings: a sum of numeric attributes by which answers are ordered, the least first.

``price + 0.5 * rtt(shanghai)`` counts money in CNY, durations in ms, sizes in GB, rates in Gbps, instants in days and
everything else as it is. ``-free`` puts the most first. An offer of which one part is unknown comes after all others.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tieline.language.tree import Ref
from tieline.language.types import RANKED_BASE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tieline.language.context import Context
    from tieline.language.table import Table
    from tieline.language.vector import Flags, Frame


class Ranking(NamedTuple):
    """A compiled ranking: weights and what they weigh."""

    text: str
    parts: tuple[tuple[float, Ref], ...]

    def keys(self, frame: Frame, table: Table, context: Context) -> tuple[NDArray[np.float64], Flags | None]:
        """The sum for each row of ``frame``, and which of them are known (None: all)."""
        import numpy as np

        from tieline.language.vector import integers_of

        total = np.zeros(frame.length, np.float64)
        known: Any = None
        for weight, ref in self.parts:
            values, is_known = integers_of(ref, table, context)(frame)
            total += values * (weight / RANKED_BASE[ref.type])
            if is_known is not None:
                known = is_known if known is None else known & is_known
        return total, known


@lru_cache(maxsize=256)
def compile_ranking(text: str) -> Ranking:
    """Compile a ranking. Raises TielineError `invalid_expression` with line, column and a caret."""
    from tieline.language.check import check_ranking
    from tieline.language.parser import parse

    return Ranking(text, check_ranking(text, parse(text, "ranking")))
