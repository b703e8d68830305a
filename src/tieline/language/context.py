"""What an expression needs beside the values: the asker's named sets, and readings of the network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers: TypeAlias = NDArray[np.int64]
    Flags: TypeAlias = NDArray[np.bool_]
    Kept: TypeAlias = tuple[Integers, Flags, tuple[int, int]]
    # (function, point, sites) -> (values, known), one of each per site: microseconds for `rtt`, bit/s for `bandwidth`
    Readings: TypeAlias = Callable[[str, str, Sequence[str]], tuple[Integers, Flags]]


@dataclass(frozen=True)
class Context:
    """One asker's view at one time. Readings are asked once per function and point; new readings: a new Context.

    Without ``readings`` every reading is unknown. A set that is not here makes its test unknown; `find` refuses it.
    """

    sets: Mapping[str, Collection[str]] = field(default_factory=dict)
    readings: Readings | None = None
    _kept: dict[tuple[str, str], Kept] = field(default_factory=dict, repr=False, compare=False)

    def reading(self, function: str, point: str, sites: Sequence[str], generation: int = 0) -> tuple[Integers, Flags]:
        """(values, known) for each of ``sites``, the words of a table's site column in the order of their codes.

        They are asked again when the column has more words, or (another ``generation``) gave them other codes.
        """
        import numpy as np

        kept = self._kept.get((function, point))
        if kept is not None and kept[2] == (len(sites), generation):
            return kept[0], kept[1]
        if self.readings is None:
            answer = np.zeros(len(sites), np.int64), np.zeros(len(sites), np.bool_)
        else:
            values, known = self.readings(function, point, sites)
            answer = np.asarray(values, np.int64), np.asarray(known, np.bool_).copy()
            answer[1][:1] = False  # code 0 is no site
        self._kept[function, point] = (*answer, (len(sites), generation))
        return answer


NOWHERE = Context()
