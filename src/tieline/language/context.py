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
    Kept: TypeAlias = tuple[list[str], Integers, Flags]
    # (function, point, sites) -> (values, known), one of each per site: microseconds for `rtt`, bit/s for `bandwidth`
    Readings: TypeAlias = Callable[[str, str, Sequence[str]], tuple[Integers, Flags]]


RESTS_ON = {"rtt": "measured", "bandwidth": "measured"}  # both are known by measuring alone


@dataclass(frozen=True)
class Context:
    """One asker's view at one time. Readings are asked once per function and point; new readings: a new Context.

    Without ``readings`` every reading is unknown. A set that is not here makes its test unknown; `find` refuses it.
    """

    sets: Mapping[str, Collection[str]] = field(default_factory=dict)
    readings: Readings | None = None
    evidence: Mapping[str, str] = field(
        default_factory=lambda: dict(RESTS_ON)
    )  # what the readings of a function rest on
    _kept: dict[tuple[str, str, int], Kept] = field(default_factory=dict, repr=False, compare=False)

    def reading(self, function: str, point: str, sites: list[str]) -> tuple[Integers, Flags]:
        """(values, known) for each of ``sites``: the words of a table's site column in the order of their codes.

        They are kept for that very list (another table gives other codes), and asked again when it has grown.
        """
        import numpy as np

        kept = self._kept.get((function, point, id(sites)))
        if kept is not None and kept[0] is sites and len(kept[1]) == len(sites):
            return kept[1], kept[2]
        if self.readings is None:
            answer = np.zeros(len(sites), np.int64), np.zeros(len(sites), np.bool_)
        else:
            values, known = self.readings(function, point, sites)
            answer = np.asarray(values, np.int64), np.asarray(known, np.bool_).copy()
            answer[1][:1] = False  # code 0 is no site
        self._kept[function, point, id(sites)] = (sites, *answer)
        return answer


NOWHERE = Context()
