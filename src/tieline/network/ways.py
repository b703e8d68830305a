"""Ways: few good paths between two nodes, found when they are asked for and kept.

For transfers: the shortest by delay, then shortest ones whose arcs were made dear by those before, so that they
differ. For circuits: paths in the order of their delay (Yen, Management Science 17, 1971; scipy), over arcs that have
the room.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tieline.network.graph import Floats, Graph, Ints

FEW: Final = 8
TRIES: Final = 16
DEARER: Final = 2.0  # an arc of a path that is known costs so many times more for the next
MOST_PAIRS: Final = 20_000  # then all are forgotten

Path = Ints


class Ways:
    """Few paths of each pair over one graph."""

    def __init__(self, graph: Graph, few: int = FEW) -> None:
        self.graph = graph
        self.few = few
        self._weight = np.where(graph.is_up, graph.delay_us + 1.0, np.inf)
        self._known: dict[tuple[int, int], tuple[Path, ...]] = {}
        self._net: _Net | None = None

    def between(self, source: int, target: int) -> tuple[Path, ...]:
        """At most ``few`` paths, the shortest first; none where the target cannot be reached."""
        known = self._known.get((source, target))
        if known is None:
            if len(self._known) >= MOST_PAIRS:
                self._known.clear()
            known = self._known[source, target] = self._found(source, target)
        return known

    def shortest(self, weight: Floats, source: int, target: int) -> Path | None:
        """As `shortest`, over weights of which none is finite where the graph carries nothing."""
        if self._net is None:
            self._net = _Net(self.graph, self._weight)
        return self._net.shortest(weight, source, target)

    def over(self, graph: Graph) -> Ways:
        """The same over another state of the graph. A path that is still there is still among the few, as long as no
        arc came, or became quicker; else all are looked for again."""
        other = Ways(graph, self.few)
        if not (np.isfinite(other._weight) & (other._weight < self._weight)).any():
            lost = set(np.flatnonzero(other._weight > self._weight).tolist())
            other._known = {
                ends: paths
                for ends, paths in self._known.items()
                if all(lost.isdisjoint(path.tolist()) for path in paths)
            }
        return other

    def _found(self, source: int, target: int) -> tuple[Path, ...]:
        weight = self._weight.copy()
        found: dict[tuple[int, ...], Path] = {}
        for _ in range(TRIES):
            path = self.shortest(weight, source, target)
            if path is None:
                break
            found.setdefault(tuple(path.tolist()), path)
            if len(found) >= self.few:
                break
            weight[path] *= DEARER
        return tuple(sorted(found.values(), key=lambda path: (float(self._weight[path].sum()), path.tolist())))


class _Net:
    """The arcs that carry anything as a sparse matrix that is made once: between two tries weights alone change."""

    def __init__(self, graph: Graph, weight: Floats) -> None:
        from scipy.sparse import csr_array

        n = graph.node_count
        up = np.flatnonzero(np.isfinite(weight))
        key = graph.tail[up].astype(np.int64) * n + graph.head[up]
        order = np.argsort(key, kind="stable")
        self.graph, self.arcs = graph, up[order]
        self.keys = key[order]
        self.has_parallels = bool((self.keys[1:] == self.keys[:-1]).any())
        self.head = graph.head[self.arcs].astype(np.int32)
        self.begins = np.searchsorted(graph.tail[self.arcs], np.arange(n + 1)).astype(np.int32)
        self.arc = dict(zip(self.keys.tolist(), self.arcs.tolist(), strict=True))
        self.matrix: Any = csr_array((weight[self.arcs], self.head, self.begins), shape=(n, n))

    def shortest(self, weight: Floats, source: int, target: int) -> Path | None:
        """As `shortest`, over weights of which none is finite where it was not before."""
        from scipy.sparse.csgraph import dijkstra

        if self.has_parallels:
            return shortest(self.graph, weight, source, target)
        n = self.graph.node_count
        matrix = copy(self.matrix)  # to make one anew, with its checks, takes longer than the search
        matrix.data = weight[self.arcs]
        _, before = dijkstra(matrix, indices=source, return_predecessors=True)
        return _walked(before, self.arc, n, source, target) if source != target else None


def shortest(graph: Graph, weight: Floats, source: int, target: int) -> Path | None:
    """The lightest path over arcs of finite weight; None where there is none, or source and target are one."""
    from scipy.sparse.csgraph import dijkstra

    if source == target:
        return None
    matrix, arc = _matrix(graph, weight)
    _, before = dijkstra(matrix, indices=source, return_predecessors=True)
    return _walked(before, arc, graph.node_count, source, target)


def in_order(graph: Graph, weight: Floats, source: int, target: int, most: int) -> list[Path]:
    """Up to ``most`` loop-free paths, the lightest first. Paths over parallel arcs are different ones."""
    from scipy.sparse.csgraph import yen

    if source == target:
        return []
    # Of several arcs between two nodes a matrix holds one: each of the others gets a node on its way.
    n = graph.node_count
    up = np.flatnonzero(np.isfinite(weight))
    lightest = up[np.lexsort((up, weight[up]))]
    key = graph.tail[lightest].astype(np.int64) * n + graph.head[lightest]
    more = np.delete(lightest, np.unique(key, return_index=True)[1])
    halfway = n + np.arange(len(more), dtype=np.int32)
    whole = np.setdiff1d(up, more)
    tail = np.concatenate([graph.tail[whole], graph.tail[more], halfway]).astype(np.int32)
    head = np.concatenate([graph.head[whole], halfway, graph.head[more]]).astype(np.int32)
    weights = np.concatenate([weight[whole], weight[more], np.zeros(len(more))])
    split = Graph(graph.names + ("",) * len(more), tail, head, weights, weights, weights)
    matrix, arc = _matrix(split, weights)
    distance, before = yen(matrix, source, target, most, return_predecessors=True)
    walked = (_walked(row, arc, split.node_count, source, target) for row in before[: len(distance)])
    of = np.concatenate([whole, more, np.full(len(more), -1)]).astype(np.int32)
    return [of[path][of[path] >= 0] for path in walked if path is not None]


def _matrix(graph: Graph, weight: Floats) -> tuple[Any, dict[int, int]]:
    """The sparse matrix of the lightest arcs, and the arc of each (tail, head)."""
    from scipy.sparse import csr_array

    n = graph.node_count
    up = np.flatnonzero(np.isfinite(weight))
    order = up[np.lexsort((up, weight[up]))]
    key = graph.tail[order].astype(np.int64) * n + graph.head[order]
    unique, first = np.unique(key, return_index=True)
    kept: NDArray[np.int64] = order[first]
    # The sparse matrix reads a weight of 0 as no arc.
    light = np.maximum(weight[kept], 1e-9)
    ends = graph.tail[kept].astype(np.int32), graph.head[kept].astype(np.int32)
    return csr_array((light, ends), shape=(n, n)), dict(zip(unique.tolist(), kept.tolist(), strict=True))


def _walked(before: Any, arc: dict[int, int], n: int, source: int, target: int) -> Path | None:
    steps = []
    at = target
    while at != source:
        last = int(before[at])
        if last < 0:
            return None
        steps.append(arc[last * n + at])
        at = last
    return np.array(steps[::-1], dtype=np.int32)
