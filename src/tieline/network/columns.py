"""Columns: a growing set of paths, each of one demand, as two sparse matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tieline.network.graph import Floats, Graph, Ints, Trees


def scattered(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers that differ give ones that look random: splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class Columns:
    """Paths of demands; none twice. Grows only, so that what was solved before stays where it was."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.demand: Ints = np.zeros(0, dtype=np.int32)
        self.start: NDArray[np.int64] = np.zeros(1, dtype=np.int64)  # of path k: arcs[start[k]:start[k + 1]]
        self.arcs: Ints = np.zeros(0, dtype=np.int32)
        self._marks = scattered(np.arange(1, graph.arc_count + 1, dtype=np.uint64))
        self._known: NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)  # marks of paths, sorted

    def __len__(self) -> int:
        return len(self.demand)

    def add(self, demands: Ints, sources: Ints, targets: Ints, trees: Trees, most_us: Floats | None = None) -> int:
        """The paths of ``trees`` for these demands, those that are there already and those longer than ``most_us``
        (one for each of them) left out; returns how many are new."""
        who, arcs = self.graph.walked(trees, sources, targets)
        if most_us is not None and len(who):
            late = np.bincount(who, self.graph.delay_us[arcs], len(demands)) > most_us
            kept = ~late[who]
            who, arcs = who[kept], arcs[kept]
        return self._take(demands, who, arcs)

    def add_path(self, demand: int, arcs: Sequence[int]) -> int:
        """One path, its arcs in order from the source; returns 1 if it is new, else 0."""
        who = np.zeros(len(arcs), dtype=np.int64)
        return self._take(np.array([demand], dtype=np.int32), who, np.array(arcs, dtype=np.int32))

    def _take(self, demands: Ints, who: NDArray[np.int64], arcs: Ints) -> int:
        if not len(who):
            return 0
        path, count = np.unique(who, return_counts=True)
        start = np.r_[0, np.cumsum(count)]
        sums = np.add.reduceat(self._marks[arcs], start[:-1])
        marks = scattered(sums ^ scattered(demands[path].astype(np.uint64) + np.uint64(1 << 40)))
        _, first = np.unique(marks, return_index=True)
        fresh = np.zeros(len(path), dtype=bool)
        fresh[first] = True
        fresh &= ~self._is_known(marks)
        self._known = np.sort(np.concatenate([self._known, marks[fresh]]), kind="stable")
        keep = np.repeat(fresh, count)
        self.demand = np.concatenate([self.demand, demands[path[fresh]].astype(np.int32)])
        self.arcs = np.concatenate([self.arcs, arcs[keep].astype(np.int32)])
        self.start = np.concatenate([self.start, self.start[-1] + np.cumsum(count[fresh])])
        return int(fresh.sum())

    def _is_known(self, marks: NDArray[np.uint64]) -> NDArray[np.bool_]:
        if not len(self._known):
            return np.zeros(len(marks), dtype=bool)
        at = np.minimum(np.searchsorted(self._known, marks), len(self._known) - 1)
        return np.asarray(self._known[at] == marks)

    def path(self, number: int) -> Ints:
        """The arcs of one path, in order from its source."""
        return self.arcs[self.start[number] : self.start[number + 1]]

    def some(self, paths: NDArray[np.int64]) -> tuple[NDArray[np.int64], Ints]:
        """The arcs of these paths one after another, as ``start`` and ``arcs`` are for all."""
        first, count = self.start[paths], self.start[paths + 1] - self.start[paths]
        start = np.zeros(len(paths) + 1, dtype=np.int64)
        np.cumsum(count, out=start[1:])
        return start, self.arcs.take(np.arange(start[-1]) + np.repeat(first - start[:-1], count))

    def least(self, of_arc: Floats, paths: NDArray[np.int64]) -> Floats:
        """The smallest number among those of the arcs of each of these paths."""
        if not len(paths):
            return np.zeros(0)
        start, arcs = self.some(paths)
        return np.asarray(np.minimum.reduceat(of_arc[arcs], start[:-1]))

    def is_clear(self, is_open: NDArray[np.bool_], paths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of which of these paths every arc is open."""
        if not len(paths):
            return np.zeros(0, dtype=bool)
        if 2 * len(paths) > len(self):  # quicker than to pick out their arcs
            return np.asarray(np.logical_and.reduceat(is_open.take(self.arcs), self.start[:-1])[paths])
        start, arcs = self.some(paths)
        return np.asarray(np.logical_and.reduceat(is_open.take(arcs), start[:-1]))

    def crossing(self, these: NDArray[np.bool_]) -> NDArray[np.uint64]:
        """A number of each path that is the same where they cross the same ones of ``these`` arcs."""
        if not len(self):
            return np.zeros(0, dtype=np.uint64)
        return np.asarray(np.add.reduceat(np.where(these, self._marks, np.uint64(0))[self.arcs], self.start[:-1]))

    def by_arc(self) -> Any:
        """Arcs x paths, 1 where a path uses an arc (scipy, CSC)."""
        from scipy.sparse import csc_array

        ones = np.ones(len(self.arcs))
        return csc_array((ones, self.arcs, self.start), shape=(self.graph.arc_count, len(self)))

    def by_demand(self, demand_count: int) -> Any:
        """Demands x paths, 1 where a path is of a demand (scipy, CSC)."""
        from scipy.sparse import csc_array

        return csc_array((np.ones(len(self)), self.demand, np.arange(len(self) + 1)), shape=(demand_count, len(self)))

    def over(self, graph: Graph) -> Columns:
        """The same paths over another state of the same network."""
        assert graph.arc_count == self.graph.arc_count, (graph.arc_count, self.graph.arc_count)
        same = Columns(graph)
        same.demand, same.start, same.arcs, same._known = self.demand, self.start, self.arcs, self._known
        return same
