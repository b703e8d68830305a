"""Improve: which candidates to build so that enough weight is covered at least cost, or most weight within a budget.

Maximum coverage (Church and ReVelle, 1974) with ways of several candidates, exact by a mixed-integer programme (HiGHS
through scipy): x is whether a candidate is built, z whether a way is whole, y how much of a group of points is covered.

::

    least   sum cost x                or   most   sum weight y
    y_g <= sum of z over its ways          z_w <= x_c for each candidate c of way w          x in {0, 1}
    sum weight y >= what is missing        sum cost x <= budget

Points with the same ways are one group. The answer is checked again in integers, by counting, and carries the bound
that the solver proved (up to its tolerance, a millionth of the dearest candidate or the heaviest group). The work is
bounded by nodes of the search, not by time: the same input gives the same plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Final, NamedTuple

import numpy as np

from tieline.model.circle import CoverageView, Standing
from tieline.model.error import TielineError
from tieline.model.improvement import Assumptions, Candidate, CandidateKind, Chosen, Improvement, PlanCheck
from tieline.model.quantity import show_money
from tieline.model.topology import Topology
from tieline.network.circle import Heard, member_of
from tieline.network.reach import MOST_WAY_LINKS, Ground, Way, ways_of

NODES: Final = 20_000  # of the search
ROUNDS: Final = 4  # of a target that the solver's tolerance misses by less than one weight
MOST_FIRST: Final = 100  # points that are named to be measured first


class Group(NamedTuple):
    """Points that the same ways cover."""

    ways: tuple[Way, ...]
    weight: int
    points: int


class Cover(NamedTuple):
    """The problem that is solved, in integers."""

    costs: tuple[int, ...]
    groups: tuple[Group, ...]
    covered: int  # weight that is covered already
    weight: int  # of all points

    def cost_of(self, chosen: Sequence[int]) -> int:
        """What a choice costs, micro-yuan."""
        return sum(self.costs[number] for number in chosen)

    def weight_of(self, chosen: Sequence[int]) -> int:
        """What is covered with a choice, by counting."""
        built = frozenset(chosen)
        return self.covered + sum(group.weight for group in self.groups if is_whole(group, built))


def is_whole(group: Group, built: frozenset[int]) -> bool:
    """Whether one of its ways is built."""
    return any(built.issuperset(way) for way in group.ways)


def improved(
    seen: CoverageView,
    candidates: Sequence[Candidate],
    *,
    target_ppm: int | None = None,
    budget_micro_cny: int | None = None,
    topology: Topology | None = None,
    assumptions: Assumptions | None = None,
    nodes: int = NODES,
) -> Improvement:
    """A plan that reaches ``target_ppm`` at least cost, or covers the most within a budget.

    ``seen`` is the coverage now. Raises `invalid_request` for candidates that mean nothing or for both or
    neither of target and budget, `too_large` for too many, and `unplaceable` where all of them do not reach the target
    or none was found within ``nodes``.
    """
    if (target_ppm is None) == (budget_micro_cny is None):
        said = "a target or a budget says what the plan is for, and one of both is needed"
        raise TielineError("invalid_request", said, where="target_ppm")
    assumptions = assumptions or Assumptions()
    cover = _cover(seen, candidates, topology, assumptions)
    everything = cover.weight_of(range(len(candidates)))
    if target_ppm is not None:
        needed = -(-target_ppm * cover.weight // 1_000_000)
        if everything < needed:
            raise _beyond(target_ppm, everything, cover)
        chosen, bound = cheapest(cover, needed, nodes)
    else:
        assert budget_micro_cny is not None
        chosen, bound = widest(cover, budget_micro_cny, nodes)
    cost, covered = cover.cost_of(chosen), cover.weight_of(chosen)
    short, whole = (cost - bound, cost) if target_ppm is not None else (bound - covered, bound)
    return Improvement(
        measure=seen.measure,
        target_ppm=target_ppm,
        budget_micro_cny=budget_micro_cny,
        as_of_ms=seen.as_of_ms,
        before=seen.whole,
        chosen=tuple(_chosen(number, chosen, candidates, cover) for number in chosen),
        cost_micro_cny=cost,
        expected_weight=covered,
        expected_ppm=covered * 1_000_000 // cover.weight,
        bound_micro_cny=bound if target_ppm is not None else 0,
        bound_weight=bound if target_ppm is None else 0,
        gap_ppm=-(-short * 1_000_000 // whole) if short else 0,
        most_ppm=everything * 1_000_000 // cover.weight,
        candidates=len(candidates),
        ways=len({way: None for group in cover.groups for way in group.ways}),
        most_links=MOST_WAY_LINKS,
        measure_first=_measure_first(seen),
        assumptions=assumptions,
    )


def recounted(
    plan: Improvement,
    seen: CoverageView,
    candidates: Sequence[Candidate],
    *,
    topology: Topology | None = None,
    assumptions: Assumptions | None = None,
) -> PlanCheck:
    """What a plan costs and is expected to cover by the candidates and readings of now, by counting alone."""
    cover = _cover(seen, candidates, topology, assumptions or Assumptions())
    numbers = {candidate.name: number for number, candidate in enumerate(candidates)}
    chosen, problems = [], []
    for each in plan.chosen:
        number = numbers.get(each.name)
        if number is None:
            problems.append(f"`{each.name}` is no candidate any more")
        elif number in chosen:
            problems.append(f"`{each.name}` is there twice")
        else:
            chosen.append(number)
            if cover.costs[number] != each.cost_micro_cny:
                now, then = show_money(cover.costs[number]), show_money(each.cost_micro_cny)
                problems.append(f"`{each.name}` costs {now} CNY, the plan says {then} CNY")
    cost, weight = cover.cost_of(chosen), cover.weight_of(chosen)
    if cost != plan.cost_micro_cny:
        problems.append(f"all of it costs {show_money(cost)} CNY, the plan says {show_money(plan.cost_micro_cny)} CNY")
    expected_ppm = weight * 1_000_000 // cover.weight
    if plan.target_ppm is not None and weight * 1_000_000 < plan.target_ppm * cover.weight:
        target = percent(plan.target_ppm)
        problems.append(f"{percent(expected_ppm)} % are expected, and {target} % is the target")
    if plan.budget_micro_cny is not None and cost > plan.budget_micro_cny:
        budget = show_money(plan.budget_micro_cny)
        problems.append(f"all of it costs {show_money(cost)} CNY, and {budget} CNY is the budget")
    return PlanCheck(
        problems=tuple(problems),
        measured_ppm=seen.whole.share_ppm,
        expected_ppm=expected_ppm,
        cost_micro_cny=cost,
    )


def cheapest(cover: Cover, needed: int, nodes: int = NODES) -> tuple[tuple[int, ...], int]:
    """Candidates of least cost that cover ``needed`` weight, and a cost that nothing that does goes below."""
    if cover.covered >= needed:
        return (), 0
    asked, bound = needed, 0
    for turn in range(ROUNDS):
        answer = _solved(cover, nodes, needed=asked - cover.covered)
        if not turn:
            bound = cover.cost_of(answer.chosen) if answer.is_proven else max(0, floor(answer.bound))
        missing = needed - cover.weight_of(answer.chosen)
        if missing <= 0:
            chosen = _pruned(cover, answer.chosen, needed)
            return chosen, min(bound, cover.cost_of(chosen))
        asked += missing  # what the tolerance of the solver let pass
    raise ArithmeticError(f"the solver's answer misses {missing} of {needed} in {ROUNDS} rounds")


def widest(cover: Cover, budget_micro_cny: int, nodes: int = NODES) -> tuple[tuple[int, ...], int]:
    """Candidates within a budget that cover the most weight, and a weight that nothing within it goes beyond."""
    answer = _solved(cover, nodes, budget_micro_cny=budget_micro_cny)
    bound = cover.weight_of(answer.chosen) if answer.is_proven else cover.covered + ceil(answer.bound)
    kept = sorted(answer.chosen, key=lambda number: (-cover.costs[number], number))
    while cover.cost_of(kept) > budget_micro_cny:  # by less than the solver's tolerance
        kept.pop()
    covered = cover.weight_of(kept)
    return _pruned(cover, tuple(sorted(kept)), covered), max(covered, min(bound, cover.weight))


class Answer(NamedTuple):
    """What the solver said: the bound is of the cost, or of the added weight."""

    chosen: tuple[int, ...]
    bound: float
    is_proven: bool  # nothing is better, up to its tolerance


def _solved(cover: Cover, nodes: int, *, needed: int | None = None, budget_micro_cny: int | None = None) -> Answer:
    """The programme above, by HiGHS."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    count, groups = len(cover.costs), [group for group in cover.groups if group.weight]
    ways = list({way: None for group in groups for way in group.ways if len(way) > 1})
    if not groups or not count:
        return Answer((), 0.0, is_proven=True)
    way_at = {way: count + row for row, way in enumerate(ways)}
    width = count + len(ways) + len(groups)
    rows: list[tuple[int, int, float]] = []  # row, column, factor
    height = 0
    for row, group in enumerate(groups):
        rows.append((height, count + len(ways) + row, 1.0))
        rows += [(height, way[0] if len(way) == 1 else way_at[way], -1.0) for way in group.ways]
        height += 1
    for way in ways:
        for number in way:
            rows += [(height, way_at[way], 1.0), (height, number, -1.0)]
            height += 1
    weight = np.array([group.weight for group in groups], float)
    cost = np.array(cover.costs, float)
    scale, dear = weight.max(), max(1.0, cost.max(initial=0.0))
    if needed is not None:
        rows += [(height, count + len(ways) + row, -float(each) / scale) for row, each in enumerate(weight)]
        limit = -needed / scale
        aim = np.r_[cost / dear, np.zeros(len(ways) + len(groups))]
    else:
        assert budget_micro_cny is not None
        rows += [(height, number, each / dear) for number, each in enumerate(cost)]
        limit = budget_micro_cny / dear
        aim = np.r_[np.zeros(count + len(ways)), -weight / scale]
    at, column, factor = (np.array(each) for each in zip(*rows, strict=True))
    answer = milp(
        aim,
        integrality=np.r_[np.ones(count), np.zeros(len(ways) + len(groups))],
        bounds=Bounds(0.0, 1.0),
        constraints=LinearConstraint(
            csr_array((factor, (at, column)), shape=(height + 1, width)), -np.inf, np.r_[np.zeros(height), limit]
        ),
        options={"node_limit": nodes, "mip_rel_gap": 0.0},
    )
    if answer.x is None:
        said = f"no plan was found within {nodes:,} nodes of the search over {count:,} candidates"
        raise TielineError(
            "unplaceable",
            said,
            hints=("tieline circle improve --points POINTS --candidates CANDIDATES --nodes 200000",),
        )
    chosen = tuple(number for number in range(count) if answer.x[number] > 0.5)
    proven = -np.inf if answer.mip_dual_bound is None else float(answer.mip_dual_bound)
    bound = proven * dear if needed is not None else min(-proven, float(weight.sum()) / scale) * scale
    return Answer(chosen, max(0.0, bound), is_proven=answer.status == 0)


def _pruned(cover: Cover, chosen: tuple[int, ...], needed: int) -> tuple[int, ...]:
    """The same without what is not needed, the dearest first."""
    kept = list(chosen)
    for number in sorted(chosen, key=lambda number: (-cover.costs[number], number)):
        without = [each for each in kept if each != number]
        if cover.weight_of(without) >= needed:
            kept = without
    return tuple(kept)


def _cover(
    seen: CoverageView,
    candidates: Sequence[Candidate],
    topology: Topology | None,
    assumptions: Assumptions,
) -> Cover:
    standings = [Standing.UNKNOWN if each.is_estimate else each.standing for each in seen.points]
    ground = Ground(
        points=seen.points,
        standings=standings,
        round_trips_us=_round_trips(seen, candidates),
        sites=[site.site for site in seen.sites],
        topology=topology,
        measure=seen.measure,
        assumptions=assumptions,
    )
    groups: dict[tuple[Way, ...], list[int]] = {}
    for point, ways in zip(seen.points, ways_of(candidates, ground), strict=True):
        if ways:
            groups.setdefault(ways, []).append(point.weight)
    return Cover(
        costs=tuple(candidate.cost_micro_cny for candidate in candidates),
        groups=tuple(Group(ways, sum(weights), len(weights)) for ways, weights in groups.items()),
        covered=seen.whole.covered,
        weight=seen.whole.weight,
    )


def _round_trips(seen: CoverageView, candidates: Sequence[Candidate]) -> dict[tuple[str, str], int]:
    """What was measured between the points and the sites that may be upgraded."""
    heard, found = Heard(seen.readings), {}
    upgraded = {each.site: None for each in candidates if each.kind is CandidateKind.UPGRADE}
    for each in seen.points:
        for site in upgraded:
            member = member_of((each.point,), site, seen.measure, heard, {}, seen.as_of_ms)
            if member.p50_us:
                found[each.point, site] = member.p50_us
    return found


def _chosen(number: int, chosen: Sequence[int], candidates: Sequence[Candidate], cover: Cover) -> Chosen:
    candidate = candidates[number]
    whole, without = frozenset(chosen), frozenset(each for each in chosen if each != number)
    lost = [group for group in cover.groups if is_whole(group, whole) and not is_whole(group, without)]
    return Chosen(
        name=candidate.name,
        kind=candidate.kind,
        cost_micro_cny=candidate.cost_micro_cny,
        loses_points=sum(group.points for group in lost),
        loses_weight=sum(group.weight for group in lost),
    )


def _measure_first(seen: CoverageView) -> tuple[str, ...]:
    """Points of which nobody knows whether they are inside, the heaviest first."""
    unknown = [each for each in seen.points if each.standing is Standing.UNKNOWN or each.is_estimate]
    unknown.sort(key=lambda each: (-each.weight, each.point))
    return tuple(each.point for each in unknown[:MOST_FIRST])


def _beyond(target_ppm: int, everything: int, cover: Cover) -> TielineError:
    most = percent(everything * 1_000_000 // cover.weight)
    return TielineError(
        "unplaceable",
        f"{percent(target_ppm)} % are asked, and with all {len(cover.costs)} candidates {most} % are covered",
        where="target_ppm",
        hints=(f"tieline circle improve --points POINTS --candidates CANDIDATES --to {most}%",),
    )


def percent(ppm: int) -> str:
    """754321 -> ``75.43``, rounded down."""
    return f"{ppm // 10_000}.{ppm % 10_000 // 100:02d}"
