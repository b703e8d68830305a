"""Design: the cheapest network that carries every demand whole, whatever single thing fails.

Which links are built, with which capacity, is a binary programme over capacities alone. Whether capacities suffice in
one state of the network (nothing lost, one link cut, one shared risk lost) is a question of routing, answered exactly
over all paths that are quick enough (`traffic.routed`). Where they do not, the prices ``p`` of the arcs in that state
give an inequality that every network which suffices fulfils (Onaga and Kakusho, IEEE Trans. Circuit Theory 18, 1971;
metric inequalities as Benders cuts)::

    sum of p x capacity  >=  sum over demands of rate x min(1, cheapest path by p over everything that may be built)

It is added, and the programme solved again. Its lower bound is a proven lower bound of the price at any moment; when
its answer suffices in every state that answer is the cheapest. Where that takes more than ``rounds``, the last answer
is enlarged until it suffices and then reduced link by link, and the gap says how far that may be from the cheapest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import ceil
from typing import Any, Final, NamedTuple

import numpy as np

from tieline.model.design import Candidate, DesignNode, DesignRequest, Survival
from tieline.model.error import TielineError
from tieline.network.bounded import Guide
from tieline.network.graph import FAINT, Floats, Graph, Ints, graph_of, trees_of
from tieline.network.import_values import guessed_us
from tieline.network.physics import distance_m
from tieline.network.traffic import Flows, Traffic, routed

ROUNDS: Final = 120
MOST_NODES: Final = 20_000  # of the search of one binary programme
TRUST: Final = 1e-7  # of a bound: what a solver's tolerance may have added to it
GAP: Final = 1e-4  # of the price, at which the search of the last programme ends
WHOLE: Final = 1e-6  # of what is asked: what may be missing of it by the solvers' tolerances
ROUTING_ROUNDS: Final = 60
EXACT: Final = 1e-8  # of the routing of one state: its gap, and the worth of a new path
MOST_LEVELS: Final = 64  # capacities of one link that are worth their price
MOST_MIXES: Final = 4_000  # of one count of modules that are worth their price
MOST_NAME: Final = 200  # letters of a link's name
MOST_SETS: Final = 2_000  # sets of nodes whose cut is looked at before anything is solved
DETOUR: Final = 1.4  # fibre over great circle


class Level(NamedTuple):
    """One capacity of a link, and the least that it costs."""

    capacity_bps: float
    price_micro_cny: int
    modules: tuple[int, ...]  # how many of each


class State(NamedTuple):
    """The network with links lost that fall together, and the demands that are to survive it."""

    name: tuple[str, ...]
    lost: tuple[int, ...]
    demands: Ints


class Question(NamedTuple):
    """A request in numbers. ``graph`` holds every candidate with all the capacity that it can have."""

    request: DesignRequest
    candidates: tuple[Candidate, ...]
    levels: tuple[tuple[Level, ...], ...]  # of each candidate, growing; the first costs nothing
    graph: Graph
    traffic: Traffic  # both directions are two
    asked_by: tuple[tuple[int, bool], ...]  # of each of them: the place of its demand, and whether it is the way back
    states: tuple[State, ...]


class Built(NamedTuple):
    """The level of each candidate, its price and the proven least price."""

    chosen: tuple[int, ...]
    price_micro_cny: int
    least_micro_cny: int
    flows: tuple[Flows, ...]  # of each state
    rounds: int


def designed(request: DesignRequest, *, rounds: int = ROUNDS) -> tuple[Question, Built]:
    """The network. Raises TielineError for a request that cannot be met by anything, with the numbers that say why."""
    question = question_of(request)
    _check_possible(question)
    cuts = _Cuts(question)
    chosen: tuple[int, ...] | None = None
    least, done = 0, 0
    best: tuple[tuple[int, ...], tuple[Flows, ...]] | None = None
    for turn in range(rounds):
        done = turn + 1
        chosen, bound = cuts.cheapest(question)
        least = max(least, bound)
        flows, lacking = _tried(question, chosen, starts=cuts.starts)
        if not lacking:
            best = chosen, flows
            break
        if not cuts.add(question, chosen, lacking):
            break  # the solvers' tolerances: nothing more can be proven
    if best is None:
        assert chosen is not None
        best = _reduced(question, chosen, cuts.starts)
    price = price_of(question, best[0])
    return question, Built(best[0], price, min(least, price), best[1], done)


def question_of(request: DesignRequest) -> Question:
    """The request in numbers, names checked."""
    number = {node.name: at for at, node in enumerate(request.nodes)}
    if len(number) < len(request.nodes):
        raise TielineError("invalid_request", "two nodes have one name", where="nodes")
    candidates = tuple(_stated(request, number))
    levels = tuple(_levels(request, each) for each in candidates)
    fill = request.most_filled_percent / 100.0
    ends = [
        (number[each.a], number[each.b], fill * of[-1].capacity_bps, float(each.delay_us))
        for each, of in zip(candidates, levels, strict=True)
    ]
    graph = graph_of([node.name for node in request.nodes], ends)
    traffic, asked_by = _traffic(request, number)
    survives = [request.demands[place].survives for place, _ in asked_by]
    return Question(request, candidates, levels, graph, traffic, asked_by, tuple(_states(candidates, survives)))


def price_of(question: Question, chosen: Sequence[int]) -> int:
    """What a choice of levels costs, routers included."""
    links = sum(of[level].price_micro_cny for of, level in zip(question.levels, chosen, strict=True))
    return links + sum(node.price_micro_cny for node in bought(question, chosen))


def bought(question: Question, chosen: Sequence[int]) -> tuple[DesignNode, ...]:
    """The places that get a router: something is built there, and no link was there before."""
    ends = {
        end
        for candidate, level in zip(question.candidates, chosen, strict=True)
        if level
        for end in (candidate.a, candidate.b)
    }
    return tuple(node for node in _new(question) if node.name in ends)


def _new(question: Question) -> tuple[DesignNode, ...]:
    """The places where no link is yet."""
    there = {end for each in question.candidates if each.capacity_bps for end in (each.a, each.b)}
    return tuple(node for node in question.request.nodes if node.name not in there)


def capacity_of(question: Question, chosen: Sequence[int]) -> Floats:
    """What each arc may carry under a choice."""
    fill = question.request.most_filled_percent / 100.0
    links = [fill * of[level].capacity_bps for of, level in zip(question.levels, chosen, strict=True)]
    return np.repeat(np.array(links, dtype=np.float64), 2)


# -- the request in numbers -------------------------------------------------------------------------------------------


def _stated(request: DesignRequest, number: dict[str, int]) -> list[Candidate]:
    """Every candidate with its name, length and delay."""
    from msgspec.structs import replace

    given = request.links
    if not given:
        given = tuple(Candidate(a=a.name, b=b.name) for a, b in combinations(request.nodes, 2))
    made, seen = [], set()
    for at, each in enumerate(given):
        where = f"links[{at}]"
        for end in (each.a, each.b):
            if end not in number:
                raise TielineError("invalid_request", f"`{end}` is no node of the request", where=where)
        if each.a == each.b:
            raise TielineError("invalid_request", f"a link begins and ends at `{each.a}`", where=where)
        name = each.name or f"{each.a}-{each.b}"
        if len(name) > MOST_NAME:
            what = f"the name of the link would have {len(name)} letters, over {MOST_NAME}: give it one"
            raise TielineError("invalid_request", what, where=where)
        if name in seen:
            raise TielineError("invalid_request", f"two links are named `{name}`", where=where)
        seen.add(name)
        a, b = (request.nodes[number[end]].place for end in (each.a, each.b))
        metres = DETOUR * distance_m(a, b) if a is not None and b is not None else 0.0
        if not each.delay_us and not metres and not each.length_km:
            raise TielineError("invalid_request", f"link `{name}` has no delay, no length and no places", where=where)
        length_km = each.length_km or round(metres / 1_000)
        guess_us = (
            round(length_km * 1_000 * 1.468 / 299.792_458) if each.length_km else _fibre_us(request, number, each)
        )
        made.append(replace(each, name=name, length_km=length_km, delay_us=each.delay_us or guess_us))
    return made


def _fibre_us(request: DesignRequest, number: dict[str, int], each: Candidate) -> int:
    a, b = (request.nodes[number[end]].place for end in (each.a, each.b))
    if a is None or b is None:
        return 0
    places = ({"latitude_udeg": place.latitude_udeg, "longitude_udeg": place.longitude_udeg} for place in (a, b))
    return guessed_us(*places)


def _levels(request: DesignRequest, candidate: Candidate) -> tuple[Level, ...]:
    """Capacities of a link that no cheaper one reaches, growing. With a capacity that is there the first is that."""
    nothing = Level(float(candidate.capacity_bps), 0, (0,) * len(request.modules))
    price = 0 if candidate.capacity_bps else candidate.price_micro_cny
    found, newest = [nothing], [nothing._replace(price_micro_cny=price)]
    for _ in range(candidate.most_modules):
        # So many modules are worth their price only where all but one of them are: to those one more is added.
        newest = _worthy(
            _more(request, candidate, level, kind) for level in newest for kind in range(len(level.modules))
        )
        found += newest
        if len(newest) > MOST_MIXES:
            break  # more than enough to refuse
    kept = _worthy(found)
    count = max(len(kept), len(newest) if len(newest) > MOST_MIXES else 0)
    if count > MOST_LEVELS:
        raise TielineError(
            "too_large",
            f"link `{candidate.name}` has {count} capacities worth their price, over {MOST_LEVELS}",
            where=f"links.{candidate.name}",
            hints=("write a lower `most_modules`",),
        )
    return tuple(kept)


def _more(request: DesignRequest, candidate: Candidate, level: Level, kind: int) -> Level:
    """The same with one module more."""
    module, has = request.modules[kind], level.modules
    price = module.price_micro_cny + module.price_per_km_micro_cny * candidate.length_km
    modules = (*has[:kind], has[kind] + 1, *has[kind + 1 :])
    return Level(level.capacity_bps + module.capacity_bps, level.price_micro_cny + price, modules)


def _worthy(levels: Iterable[Level]) -> list[Level]:
    """Those that have more than every cheaper one, growing."""
    kept: list[Level] = []
    for level in sorted(levels, key=lambda level: (level.price_micro_cny, -level.capacity_bps)):
        if not kept or level.capacity_bps > kept[-1].capacity_bps:
            kept.append(level)
    return kept


def _traffic(request: DesignRequest, number: dict[str, int]) -> tuple[Traffic, tuple[tuple[int, bool], ...]]:
    rows: list[tuple[int, int, float, float]] = []
    asked_by: list[tuple[int, bool]] = []
    for at, each in enumerate(request.demands):
        for end in (each.source, each.target):
            if end not in number:
                raise TielineError("invalid_request", f"`{end}` is no node of the request", where=f"demands[{at}]")
        if each.source == each.target:
            what = f"a demand begins and ends at `{each.source}`"
            raise TielineError("invalid_request", what, where=f"demands[{at}]")
        latency = each.latency_us or np.inf
        ends = number[each.source], number[each.target]
        for is_back in (False, True)[: 2 if each.both_ways else 1]:
            source, target = ends[::-1] if is_back else ends
            rows.append((source, target, float(each.rate_bps), latency))
            asked_by.append((at, is_back))
    table = np.array(rows, dtype=np.float64)
    ends32 = table[:, 0].astype(np.int32), table[:, 1].astype(np.int32)
    bounded = table[:, 3] if np.isfinite(table[:, 3]).any() else None
    return Traffic(*ends32, table[:, 2], np.ones(len(rows)), most_us=bounded), tuple(asked_by)


def _states(candidates: Sequence[Candidate], survives: Sequence[Survival]) -> list[State]:
    every = np.arange(len(survives), dtype=np.int32)
    of_link = np.array([at for at, each in enumerate(survives) if each is not Survival.NONE], dtype=np.int32)
    of_group = np.array([at for at, each in enumerate(survives) if each is Survival.GROUP], dtype=np.int32)
    states = [State((), (), every)]
    if len(of_link):
        states += [State((each.name,), (at,), of_link) for at, each in enumerate(candidates)]
    groups: dict[str, list[int]] = {}
    for at, each in enumerate(candidates):
        for group in each.groups:
            groups.setdefault(group, []).append(at)
    if len(of_group):
        states += [
            State(tuple(candidates[at].name for at in links), tuple(links), of_group)
            for links in groups.values()
            if len(links) > 1
        ]
    return states


# -- one state --------------------------------------------------------------------------------------------------------


def _asked(question: Question, state: State) -> Traffic:
    traffic, at = question.traffic, state.demands
    most_us = None if traffic.most_us is None else traffic.most_us[at]
    return Traffic(traffic.source[at], traffic.target[at], traffic.asked_bps[at], traffic.value[at], most_us=most_us)


def _tried(
    question: Question, chosen: Sequence[int], starts: dict[int, Flows], is_first_enough: bool = False
) -> tuple[tuple[Flows, ...], list[int]]:
    """The routing of every state, and the states in which something is lacking."""
    capacity = capacity_of(question, chosen)
    flows, lacking = [], []
    for at, state in enumerate(question.states):
        graph = question.graph.holding(capacity).without(state.lost)
        traffic = _asked(question, state)
        made = _exactly(graph, traffic, starts.get(at))
        starts[at] = made
        flows.append(made)
        if not is_whole(made):
            lacking.append(at)
            if is_first_enough:
                break
    return tuple(flows), lacking


def _exactly(graph: Graph, traffic: Traffic, start: Flows | None = None) -> Flows:
    return routed(graph, traffic, start=start, rounds=ROUTING_ROUNDS, enough=EXACT, slack=EXACT)


def is_whole(flows: Flows) -> bool:
    """Whether every demand has all that it asks."""
    return bool(np.all(flows.carried_bps() >= flows.traffic.asked_bps * (1.0 - WHOLE)))


def _check_possible(question: Question) -> None:
    """Refuse what even everything that may be built cannot do: latencies first, then rates."""
    traffic, names = question.traffic, question.graph.names
    for state in question.states:
        graph = question.graph.without(state.lost)
        after = f" after the loss of {', '.join(state.name)}" if state.name else ""
        asked = _asked(question, state)
        sources = np.unique(asked.source)
        trees = trees_of(graph, graph.delay_us, sources)
        least = trees.distance[trees.row[asked.source], asked.target]
        for at in range(asked.count):
            most = np.inf if asked.most_us is None else float(asked.most_us[at])
            if not np.isfinite(least[at]) or least[at] > most + 0.5:
                pair = f"`{names[asked.source[at]]}` to `{names[asked.target[at]]}`"
                quickest = f"the quickest way takes {least[at]:.0f} us" if np.isfinite(least[at]) else "there is no way"
                bound = f" and may take {most:.0f} us one way" if np.isfinite(most) else ""
                raise TielineError(
                    "unplaceable",
                    f"{pair} is asked for{bound}; over everything that may be built {quickest}{after}",
                    where="demands",
                )
        made = _exactly(graph, asked)
        if not is_whole(made):
            raise TielineError(
                "unplaceable",
                f"everything that may be built carries {made.worth:.0f} of {asked.asked_bps.sum():.0f} bit/s{after}",
                where="links",
                hints=("allow more modules (`most_modules`), larger ones, or more links",),
            )
    assert traffic.count


# -- the programme over capacities ------------------------------------------------------------------------------------


class _Cuts:
    """Inequalities over the capacities of links: ``coefficients @ capacity >= least``."""

    def __init__(self, question: Question) -> None:
        self.coefficients: list[Floats] = []
        self.least: list[float] = []
        self.starts: dict[int, Flows] = {}
        self._sets(question)

    def _sets(self, question: Question) -> None:
        """What leaves a set of nodes crosses its edge, whatever is lost: all sets of few nodes, both directions."""
        count = question.graph.node_count
        tail, head = question.graph.tail, question.graph.head
        looked = 0
        for size in range(1, count // 2 + 1):
            for inside in combinations(range(count), size):
                looked += 1
                if looked > MOST_SETS:
                    return
                is_in = np.zeros(count, dtype=bool)
                is_in[list(inside)] = True
                for state in question.states:
                    crosses = (is_in[tail] & ~is_in[head])[::2] | (~is_in[tail] & is_in[head])[::2]
                    if state.lost and not crosses[list(state.lost)].any():
                        continue
                    asked = _asked(question, state)
                    out = asked.asked_bps[is_in[asked.source] & ~is_in[asked.target]].sum()
                    into = asked.asked_bps[~is_in[asked.source] & is_in[asked.target]].sum()
                    if max(out, into) > 0:
                        row = crosses.astype(np.float64)
                        row[list(state.lost)] = 0.0
                        self._keep(row, float(max(out, into)))

    def _keep(self, row: Floats, least: float) -> None:
        self.coefficients.append(row)
        self.least.append(least)

    def add(self, question: Question, chosen: Sequence[int], lacking: Sequence[int]) -> int:
        """The inequalities that this choice breaks in the states where something is lacking; how many are new."""
        capacity = capacity_of(question, chosen)
        fresh = 0
        for at in lacking:
            state = question.states[at]
            asked = _asked(question, state)
            # What is not built gets a trifle, so that it has a price in this state too.
            trifle = 1e-7 * float(asked.asked_bps.sum())
            there = question.graph.holding(np.maximum(capacity, trifle)).without(state.lost)
            priced = _exactly(there, asked, self.starts.get(at))
            for price in (priced.solved.arc_price, np.where(capacity > 0, priced.solved.arc_price, 1.0)):
                row, least = _metric(question.graph.without(state.lost), asked, price)
                if row @ capacity[::2] < least * (1.0 - 1e-7) - 1e-6:
                    self._keep(row, least)
                    fresh += 1
                    break
        return fresh

    def cheapest(self, question: Question) -> tuple[tuple[int, ...], int]:
        """The cheapest levels that keep every inequality so far, and the least that any do cost."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array, vstack

        of_link = [at for at, of in enumerate(question.levels) for _ in of[1:]]
        rank = [level for of in question.levels for level in range(1, len(of))]
        fill = question.request.most_filled_percent / 100.0
        base = np.array([fill * of[0].capacity_bps for of in question.levels])
        more = np.array(
            [
                fill * (question.levels[at][level].capacity_bps - question.levels[at][0].capacity_bps)
                for at, level in zip(of_link, rank, strict=True)
            ]
        )
        dear = [node for node in _new(question) if node.price_micro_cny]
        prices = [question.levels[at][level].price_micro_cny for at, level in zip(of_link, rank, strict=True)]
        cost = np.array([*prices, *(node.price_micro_cny for node in dear)], dtype=np.float64)
        scale = max(1.0, float(np.median(cost[cost > 0]))) if (cost > 0).any() else 1.0
        width = len(cost)
        matrix = np.array(self.coefficients)
        needed = np.array(self.least) - matrix @ base
        unit = max(1.0, float(np.abs(needed).max(initial=1.0)))
        # No level is worth more to an inequality than what that inequality needs.
        rows = np.minimum(matrix[:, of_link] * more[None, :], np.maximum(needed, 0.0)[:, None]) / unit
        padded = csr_array(np.hstack([rows, np.zeros((len(rows), len(dear)))]))
        one = csr_array(
            (np.ones(len(of_link)), (of_link, np.arange(len(of_link)))), shape=(len(question.levels), width)
        )
        joined = self._routers(question, of_link, dear, width)
        low = np.concatenate([needed / unit, np.zeros(len(question.levels)), np.zeros(joined.shape[0])])
        high = np.concatenate(
            [np.full(len(rows), np.inf), np.ones(len(question.levels)), np.full(joined.shape[0], np.inf)]
        )
        answer = milp(
            cost / scale,
            integrality=np.ones(width),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(vstack([padded, one, joined]).tocsc(), low - 1e-9, high),
            options={"node_limit": MOST_NODES, "mip_rel_gap": GAP},
        )
        bound = float(answer.mip_dual_bound) if answer.mip_dual_bound is not None else 0.0
        least = max(0, ceil(bound * scale * (1.0 - TRUST)))  # prices are whole
        if answer.x is None:  # nothing found in so many nodes: everything is a network too
            return tuple(len(of) - 1 for of in question.levels), least
        chosen = [0] * len(question.levels)
        for at in np.flatnonzero(answer.x[: len(of_link)] > 0.5).tolist():
            chosen[of_link[at]] = rank[at]
        return tuple(chosen), least

    def _routers(self, question: Question, of_link: Sequence[int], dear: Sequence[DesignNode], width: int) -> Any:
        """A link that is built needs the routers at its ends."""
        from scipy.sparse import csr_array

        place = {node.name: at for at, node in enumerate(dear)}
        rows = [
            (column, len(of_link) + place[end])
            for column, at in enumerate(of_link)
            for end in (question.candidates[at].a, question.candidates[at].b)
            if end in place
        ]
        data = np.array([[-1.0, 1.0]] * len(rows)).reshape(-1)
        index = np.array(rows, dtype=np.int64).reshape(-1)
        return csr_array((data, (np.repeat(np.arange(len(rows)), 2), index)), shape=(len(rows), width))


def _metric(graph: Graph, asked: Traffic, price: Floats) -> tuple[Floats, float]:
    """An inequality that holds for every network that suffices in this state, from any prices of arcs."""
    price = np.where(graph.is_up, np.maximum(price, 0.0), 0.0)
    trees = trees_of(graph, price, np.unique(asked.source))
    way = np.maximum(trees.distance[trees.row[asked.source], asked.target] - FAINT * len(price), 0.0)
    if asked.most_us is not None and np.isfinite(asked.most_us).any():
        is_bounded = np.isfinite(asked.most_us)
        guide = Guide(graph, asked.target[is_bounded])
        to = guide.priced(price)
        for demand in np.flatnonzero(is_bounded).tolist():
            source, target = int(asked.source[demand]), int(asked.target[demand])
            found = guide.cheapest(price, to, source, target, float(asked.most_us[demand]), 1.0)
            way[demand] = max(way[demand], min(1.0, found.least - FAINT * len(price)))
    least = float(asked.asked_bps @ np.minimum(1.0, way))
    return price.reshape(-1, 2).sum(axis=1), least


def _reduced(
    question: Question, chosen: Sequence[int], starts: dict[int, Flows]
) -> tuple[tuple[int, ...], tuple[Flows, ...]]:
    """A network that suffices: everything, each link brought down as far as it may, towards ``chosen``; what that did
    not choose goes first, the dearest first."""
    now = [len(of) - 1 for of in question.levels]
    order = sorted(range(len(now)), key=lambda at: (chosen[at] > 0, -question.levels[at][-1].price_micro_cny, at))
    for at in order:
        low, high = 0, now[at]
        aim = chosen[at]
        while low < high:  # the least level with which all suffices, the chosen one looked at first
            middle = aim if low <= aim < high else (low + high) // 2
            aim = -1
            trial = [*now[:at], middle, *now[at + 1 :]]
            if _tried(question, trial, starts, is_first_enough=True)[1]:
                low = middle + 1
            else:
                high = middle
        now[at] = high
    flows, lacking = _tried(question, now, starts)
    assert not lacking
    return tuple(now), flows
