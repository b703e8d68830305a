"""Blueprint: a designed network as others read it: a topology with addresses, a bill of materials, and the proof of
every state that it is to survive.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tieline.model.design import Design, DesignRequest, Item, Proof, ProofLine
from tieline.model.topology import Link, Node, Topology
from tieline.network.design import Built, Question, State, bought, capacity_of, designed
from tieline.network.traffic import Flows

PPM: Final = 1_000_000
USED_BPS: Final = 1.0  # below this a path is a solver's trifle


def drawn(request: DesignRequest) -> Design:
    """The network that a request asks for (`design.designed`)."""
    question, built = designed(request)
    price, least = built.price_micro_cny, built.least_micro_cny
    return Design(
        topology=topology_of(question, built),
        price_micro_cny=price,
        least_micro_cny=least,
        gap_ppm=round((price - least) * PPM / price) if price else 0,
        is_within_budget=not request.budget_micro_cny or price <= request.budget_micro_cny,
        items=items_of(question, built),
        proofs=tuple(
            _proof(question, built, state, flows)
            for state, flows in zip(question.states, built.flows, strict=True)
            if not state.lost or _is_built(question, built, state)
        ),
        rounds=built.rounds,
    )


def topology_of(question: Question, built: Built) -> Topology:
    """What is built: nodes with their segment prefixes, links with all their capacity."""
    links = [
        Link(
            name=each.name,
            a=each.a,
            b=each.b,
            capacity_bps=int(of[level].capacity_bps),
            delay_us=each.delay_us,
            mtu_bytes=each.mtu_bytes,
            groups=each.groups,
        )
        for each, level, of in zip(question.candidates, built.chosen, question.levels, strict=True)
        if of[level].capacity_bps > 0
    ]
    used = {end for link in links for end in (link.a, link.b)}
    nodes = [
        Node(
            name=each.name,
            owner=each.owner,
            site=each.site,
            place=each.place,
            region=each.region,
            locator=f"fc00:0:{at + 1:x}::/48",
        )
        for at, each in enumerate(node for node in question.request.nodes if node.name in used)
    ]
    return Topology(name=question.request.name, nodes=tuple(nodes), links=tuple(links))


def items_of(question: Question, built: Built) -> tuple[Item, ...]:
    """The bill of materials: routers, then of each link its price and its modules. Its total is the price."""
    made = [_item("router", "router", node.name, 1, node.price_micro_cny) for node in bought(question, built.chosen)]
    for each, level, of in zip(question.candidates, built.chosen, question.levels, strict=True):
        if not level:
            continue
        if each.price_micro_cny and not each.capacity_bps:
            made.append(_item("link", "line", each.name, 1, each.price_micro_cny))
        for module, count in zip(question.request.modules, of[level].modules, strict=True):
            if count:
                price = module.price_micro_cny + module.price_per_km_micro_cny * each.length_km
                made.append(_item("module", module.name, each.name, count, price))
    return tuple(made)


def _item(what: str, name: str, where: str, count: int, price: int) -> Item:
    return Item(what=what, name=name, where=where, count=count, price_micro_cny=price, total_micro_cny=count * price)


def _is_built(question: Question, built: Built, state: State) -> bool:
    """Whether the network loses anything in this state."""
    return any(question.levels[at][built.chosen[at]].capacity_bps > 0 for at in state.lost)


def _proof(question: Question, built: Built, state: State, flows: Flows) -> Proof:
    columns, rate = flows.columns, flows.rate_bps
    delays = [float(flows.graph.delay_us[columns.path(at)].sum()) for at in np.flatnonzero(rate >= USED_BPS).tolist()]
    fill = question.request.most_filled_percent / 100.0
    whole = capacity_of(question, built.chosen) / fill
    used = np.divide(flows.load_bps(), whole, out=np.zeros(len(whole)), where=whole > 0)
    return Proof(
        cut=state.name,
        demands=flows.traffic.count,
        asked_bps=round(float(flows.traffic.asked_bps.sum())),
        carried_bps=round(float(flows.carried_bps().sum())),
        slowest_us=round(max(delays, default=0.0)),
        fullest_ppm=round(float(used.max(initial=0.0)) * PPM),
        lines=_lines(question, state, flows),
    )


def _lines(question: Question, state: State, flows: Flows) -> tuple[ProofLine, ...]:
    """The paths of each demand. A demand with both directions has half of what each direction uses in both: where a
    routing fits, so does its mirror image, and so does the mean of the two."""
    found: dict[tuple[int, tuple[int, ...]], float] = {}
    for at in np.flatnonzero(flows.rate_bps >= USED_BPS).tolist():
        place, is_back = question.asked_by[int(state.demands[flows.columns.demand[at]])]
        arcs = tuple(flows.columns.path(at).tolist())
        way = tuple(arc ^ 1 for arc in reversed(arcs)) if is_back else arcs
        half = 0.5 if question.request.demands[place].both_ways else 1.0
        found[place, way] = found.get((place, way), 0.0) + half * float(flows.rate_bps[at])
    graph = flows.graph
    return tuple(
        ProofLine(
            demand=place,
            nodes=(graph.names[int(graph.tail[way[0]])], *(graph.names[int(graph.head[arc])] for arc in way)),
            links=tuple(question.candidates[arc // 2].name for arc in way),
            delay_us=round(float(graph.delay_us[list(way)].sum())),
            rate_bps=int(rate),
            latency_us=question.request.demands[place].latency_us,
        )
        for (place, way), rate in sorted(found.items())
    )
