"""Survey: whether a topology is sound, with numbers. What is fatal is refused whole; the rest is worth knowing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv6Network
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tieline.model.error import TielineError
from tieline.model.topology import Link, Place, Topology
from tieline.network.graph import Graph
from tieline.network.physics import distance_m, light_us
from tieline.network.state import graph_at, groups

MOST_FINDINGS: Final = 200  # that are kept of each kind of trouble
MOST_GROUPS: Final = 1_000  # shared risks whose loss is looked at


class Finding(NamedTuple):
    """One thing that was found, in a sentence with numbers."""

    code: str
    where: str
    sentence: str
    is_fatal: bool


def surveyed(topology: Topology) -> tuple[Finding, ...]:
    """Everything that is wrong or weak; what is fatal first."""
    return faults(topology) or tuple(_bounded(_weak(topology, graph_at(topology))))


def faults(topology: Topology) -> tuple[Finding, ...]:
    """What is fatal, in time that grows with the topology alone."""
    return tuple(_bounded(_faults(topology))) or tuple(_bounded(_parts(graph_at(topology))))


def checked(topology: Topology, where: str = "") -> Topology:
    """The same topology, or a refusal of the whole that names the first faults and counts the others. ``where``: what
    the caller calls it, instead of the name of what is at fault."""
    try:
        topology = msgspec.convert(msgspec.to_builtins(topology), Topology)
    except msgspec.ValidationError as error:
        what = f"the topology breaks a bound: {error}"
        raise TielineError("invalid_request", what, where=where or topology.name) from None
    fatal = faults(topology)
    if fatal:
        first = "; ".join(finding.sentence for finding in fatal[:3])
        more = f"; and {len(fatal) - 3} more faults" if len(fatal) > 3 else ""
        raise TielineError("invalid_request", first + more, where=where or fatal[0].where)
    return topology


def _bounded(findings: Iterator[Finding]) -> Iterator[Finding]:
    seen: Counter[str] = Counter()
    for finding in findings:
        seen[finding.code] += 1
        if seen[finding.code] <= MOST_FINDINGS:
            yield finding


def _faults(topology: Topology) -> Iterator[Finding]:
    def fault(code: str, where: str, sentence: str) -> Finding:
        return Finding(code, where, sentence, is_fatal=True)

    if not topology.nodes:
        yield fault("no_nodes", topology.name, "the topology has 0 nodes")
    for name, count in Counter(node.name for node in topology.nodes).items():
        if count > 1:
            yield fault("duplicate_node", name, f"{count} nodes are named `{name}`")
    for name, count in Counter(link.name for link in topology.links).items():
        if count > 1:
            yield fault("duplicate_link", name, f"{count} links are named `{name}`")
    places = {node.name: node.place for node in topology.nodes}
    for link in topology.links:
        unknown = [end for end in (link.a, link.b) if end not in places]
        for end in unknown:
            yield fault("unknown_end", link.name, f"link `{link.name}` ends at `{end}`, which is no node")
        if link.a == link.b:
            yield fault("self_loop", link.name, f"link `{link.name}` begins and ends at `{link.a}`")
        for window in link.maintenance:
            if window.until_ms <= window.from_ms:
                span = f"{window.from_ms} ms to {window.until_ms} ms"
                yield fault(
                    "window_backwards", link.name, f"maintenance of `{link.name}` ends before it begins: {span}"
                )
        if not unknown and (late := _too_fast(link, places[link.a], places[link.b])):
            yield fault("faster_than_light", link.name, late)
    for where, sentence in _locators(topology):
        yield fault("locator", where, sentence)


def _locators(topology: Topology) -> Iterator[tuple[str, str]]:
    """Segments of two nodes must not be told apart by luck: prefixes are prefixes, and none holds another."""
    stated = []
    for node in topology.nodes:
        if node.locator:
            try:
                stated.append((IPv6Network(node.locator), node.name))
            except ValueError:
                yield (
                    node.name,
                    f"`{node.locator[:60]}` of node `{node.name}` is no IPv6 prefix such as `fc00:0:1::/48`",
                )
    stated.sort(key=lambda each: (int(each[0].network_address), each[0].prefixlen))
    for (one, name), (other, second) in pairwise(stated):
        if other.subnet_of(one):
            yield second, f"locator {other} of node `{second}` lies in {one} of node `{name}`"


def _too_fast(link: Link, a: Place | None, b: Place | None) -> str:
    """Why a stated delay cannot be; 0 us is a delay that is not stated."""
    if a is None or b is None or link.delay_us == 0:
        return ""
    least_us = light_us(a, b)
    if link.delay_us + 1 >= least_us:
        return ""
    return (
        f"link `{link.name}` claims {link.delay_us} us for {distance_m(a, b) / 1000:.0f} km; "
        f"light in vacuum takes {least_us:.0f} us"
    )


def _parts(graph: Graph) -> Iterator[Finding]:
    """A network in several parts is several networks."""
    count, part = _components(graph)
    if count > 1:
        sizes = np.bincount(part)
        least = int(np.argmin(sizes))
        some = [graph.names[at] for at in np.flatnonzero(part == least)[:5]]
        sentence = (
            f"the network falls into {count} parts that no link with capacity joins, the smallest of {sizes[least]} "
            f"nodes ({', '.join(f'`{name}`' for name in some)})"
        )
        yield Finding("disconnected", some[0], sentence, is_fatal=True)


def _components(graph: Graph, strong: bool = False) -> tuple[int, NDArray[np.int32]]:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    up, n = np.flatnonzero(graph.is_up), graph.node_count
    joined = csr_array((np.ones(len(up)), (graph.tail[up], graph.head[up])), shape=(n, n))
    count, part = connected_components(joined, directed=True, connection="strong" if strong else "weak")
    return int(count), part


def _weak(topology: Topology, graph: Graph) -> Iterator[Finding]:
    def note(code: str, where: str, sentence: str) -> Finding:
        return Finding(code, where, sentence, is_fatal=False)

    idle = [link.name for at, link in enumerate(topology.links) if not graph.is_up[2 * at : 2 * at + 2].any()]
    if idle:
        yield note("no_capacity", idle[0], f"{len(idle)} links have a capacity of 0 bit/s both ways, first `{idle[0]}`")
    silent = [link.name for link in topology.links if link.delay_us == 0]
    if silent:
        yield note("no_delay", silent[0], f"{len(silent)} links state no delay and count as 0 us, first `{silent[0]}`")
    count, _ = _components(graph, strong=True)
    if count > 1:
        yield note("one_way", topology.name, f"{count} parts are joined in one direction only")
    for at in bridges(graph):
        name = topology.links[at].name
        yield note("bridge", name, f"a cut of link `{name}` alone splits the network")
    single = set(bridges(graph))
    for name, links in list(groups(topology).items())[:MOST_GROUPS]:
        if not single.intersection(links) and _components(graph.without(links))[0] > 1:
            yield note("shared_risk", name, f"the loss of group `{name}` ({len(links)} links) splits the network")


def bridges(graph: Graph) -> tuple[int, ...]:
    """The links whose loss alone splits the network (Tarjan 1974), in the order of their numbers."""
    around: list[list[tuple[int, int]]] = [[] for _ in range(graph.node_count)]
    for link in range(graph.arc_count // 2):
        if graph.is_up[2 * link : 2 * link + 2].any():
            a, b = int(graph.tail[2 * link]), int(graph.head[2 * link])
            around[a].append((b, link))
            around[b].append((a, link))
    order, low, found = [-1] * graph.node_count, [0] * graph.node_count, []
    clock = 0
    for root in range(graph.node_count):
        if order[root] >= 0:
            continue
        order[root] = low[root] = clock
        clock += 1
        stack = [(root, -1, iter(around[root]))]
        while stack:
            node, came, rest = stack[-1]
            step = next(rest, None)
            if step is None:
                stack.pop()
                if stack:
                    above = stack[-1][0]
                    low[above] = min(low[above], low[node])
                    if low[node] > order[above]:
                        found.append(came)
                continue
            head, link = step
            if link == came:
                continue
            if order[head] >= 0:
                low[node] = min(low[node], order[head])
            else:
                order[head] = low[head] = clock
                clock += 1
                stack.append((head, link, iter(around[head])))
    return tuple(sorted(found))
