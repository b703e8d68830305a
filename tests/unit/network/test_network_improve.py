"""Improve: least cost and most coverage against every subset; ways over links; what means nothing is refused whole."""

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_network_circle import NOW, measure, reading

from tieline.model.circle import AccessPoint, Bound, SitePlace
from tieline.model.error import TielineError
from tieline.model.improvement import Candidate, CandidateKind
from tieline.model.topology import Link, Node, Place, Topology
from tieline.network.coverage import coverage_of
from tieline.network.improve import Cover, Group, cheapest, improved, widest

CNY = 10**6


def seen_of(points, readings=(), sites=("a",), **more):
    return coverage_of(points, [SitePlace(site=site) for site in sites], readings, measure(**more), NOW)


def site(name, cost, **more):
    return Candidate(name=name, kind=CandidateKind.SITE, cost_micro_cny=cost * CNY, **more)


def points(*weights):
    return [AccessPoint(point=f"p{n}", weight=weight) for n, weight in enumerate(weights)]


def best_by_trying(cover, needed):
    """The least cost over every subset that covers enough; None where none does."""
    numbers = range(len(cover.costs))
    every = [chosen for size in range(len(numbers) + 1) for chosen in combinations(numbers, size)]
    return min((cover.cost_of(chosen) for chosen in every if cover.weight_of(chosen) >= needed), default=None)


def most_by_trying(cover, budget):
    numbers = range(len(cover.costs))
    every = [chosen for size in range(len(numbers) + 1) for chosen in combinations(numbers, size)]
    return max(cover.weight_of(chosen) for chosen in every if cover.cost_of(chosen) <= budget)


@st.composite
def covers(draw):
    count = draw(st.integers(1, 7))
    ways = st.lists(st.integers(0, count - 1), min_size=1, max_size=3, unique=True).map(lambda way: tuple(sorted(way)))
    groups = draw(
        st.lists(
            st.builds(
                lambda ways, weight: Group(tuple(ways), weight, 1),
                st.lists(ways, min_size=1, max_size=3, unique=True),
                st.integers(0, 1_000),
            ),
            max_size=6,
        )
    )
    costs = tuple(draw(st.lists(st.integers(0, 50).map(lambda cost: cost * CNY), min_size=count, max_size=count)))
    covered = draw(st.integers(0, 100))
    missing = draw(st.integers(0, 100))
    return Cover(costs, tuple(groups), covered, covered + missing + sum(group.weight for group in groups))


@settings(max_examples=60, deadline=None)
@given(covers(), st.integers(0, 1_000_000), st.integers(0, 120))
def test_the_plan_is_the_best_of_all_subsets(cover, share_ppm, budget):
    everything = cover.weight_of(range(len(cover.costs)))
    needed = everything * share_ppm // 1_000_000
    chosen, bound = cheapest(cover, needed)
    assert cover.weight_of(chosen) >= needed
    assert cover.cost_of(chosen) == bound == best_by_trying(cover, needed)
    chosen, bound = widest(cover, budget * CNY)
    assert cover.cost_of(chosen) <= budget * CNY
    assert cover.weight_of(chosen) == bound == most_by_trying(cover, budget * CNY)


def test_a_plan_says_what_it_costs_what_it_covers_and_what_each_part_is_for():
    asked = points(50, 30, 20)
    seen = seen_of(asked, [reading(900, source="a", target="p0")])
    offered = [site("one", 9, reaches_us={"p1": 800, "p2": 800}), site("two", 5, reaches_us={"p1": 700}),
               site("far", 1, reaches_us={"p2": 1_001})]  # fmt: skip
    plan = improved(seen, offered, target_ppm=750_000)
    assert [(each.name, each.loses_weight, each.loses_points) for each in plan.chosen] == [("two", 30, 1)]
    assert (plan.cost_micro_cny, plan.bound_micro_cny, plan.gap_ppm) == (5 * CNY, 5 * CNY, 0)
    assert (plan.before.share_ppm, plan.expected_ppm, plan.most_ppm) == (500_000, 800_000, 1_000_000)
    assert plan.measure_first == ("p1", "p2")
    assert improved(seen, offered, target_ppm=500_000).chosen == ()
    wide = improved(seen, offered, budget_micro_cny=9 * CNY)
    assert ([each.name for each in wide.chosen], wide.expected_weight, wide.bound_weight) == (["one"], 100, 100)


def test_a_target_beyond_everything_is_refused_with_the_most_that_there_is():
    asked = points(50, 50)
    with pytest.raises(TielineError, match=r"75\.00 % are asked, and with all 1 candidates 50\.00 % are") as refused:
        improved(seen_of(asked), [site("one", 1, reaches_us={"p0": 1})], target_ppm=750_000)
    assert refused.value.code == "unplaceable"


def test_an_expected_time_follows_from_places_with_a_detour_and_equipment():
    here = {"latitude_udeg": 31_230_000, "longitude_udeg": 121_470_000}
    asked = [AccessPoint(point="p", **here)]
    near = site("near", 1, latitude_udeg=31_330_000, longitude_udeg=121_470_000)  # 11 km: 0.15 ms and equipment
    far = site("far", 1, latitude_udeg=31_830_000, longitude_udeg=121_470_000)  # 67 km: 0.92 ms and equipment
    assert [each.name for each in improved(seen_of(asked), [far, near], target_ppm=10**6).chosen] == ["near"]
    one_way = seen_of(asked, bound=Bound.ONE_WAY)
    assert improved(one_way, [far], target_ppm=10**6).cost_micro_cny == CNY


def test_an_upgrade_starts_from_what_was_measured_also_where_there_is_no_compute_yet():
    asked = points(1, 1)
    found = [reading(1_300, source="a", target="p0"), reading(900, source="idle", target="p1")]
    seen = coverage_of(asked, [SitePlace(site="a")], found, measure(), NOW, idle=("idle",))
    assert seen.whole.covered == 0

    def upgrade(name, site, saves_us):
        return Candidate(name=name, kind=CandidateKind.UPGRADE, cost_micro_cny=CNY, site=site, saves_us=saves_us)

    plan = improved(seen, [upgrade("faster", "a", 300), upgrade("cards", "idle", 0)], target_ppm=10**6)
    assert [each.name for each in plan.chosen] == ["faster", "cards"]
    with pytest.raises(TielineError, match="saves 1300 us of the 1300 us to `p0`"):
        improved(seen, [upgrade("magic", "a", 1_300)], target_ppm=10**6)


def line(*delays_us, site_at="n0"):
    """Nodes n0, n1, ... in a row; the site `a` hangs on one of them."""
    nodes = [Node(name=f"n{n}", site="a" if f"n{n}" == site_at else "") for n in range(len(delays_us) + 1)]
    links = [
        Link(name=f"l{n}", a=f"n{n}", b=f"n{n + 1}", capacity_bps=10**9, delay_us=delay)
        for n, delay in enumerate(delays_us)
    ]
    return Topology(name="line", nodes=tuple(nodes), links=tuple(links))


def link(name, a, b, delay_us, cost=1):
    return Candidate(name=name, kind=CandidateKind.LINK, cost_micro_cny=cost * CNY, a=a, b=b, delay_us=delay_us)


def test_links_cover_together_what_none_of_them_covers_alone():
    topology = line(400, 400, 400, 400)
    asked = [AccessPoint(point="p", node="n4")]
    offered = [link("x", "n4", "n2", 100), link("y", "n2", "n0", 100), link("z", "n4", "n0", 900)]
    plan = improved(seen_of(asked), offered, target_ppm=10**6, topology=topology)
    assert [each.name for each in plan.chosen] == ["x", "y"]  # 200 us each way and 360 us of equipment
    assert [(each.loses_weight, plan.ways) for each in plan.chosen] == [(1, 1), (1, 1)]


def test_a_new_site_and_a_link_to_it_are_one_way_and_measured_doubt_beats_the_topology():
    topology = line(400, 400, 400, 400)
    asked = [AccessPoint(point="p", node="n4"), AccessPoint(point="q", node="n1")]
    offered = [link("x", "n4", "n2", 100), site("edge", 3, node="n1")]
    with pytest.raises(TielineError, match="all 2 candidates"):  # 400 + 100 us one way is too long
        improved(seen_of(asked[:1]), offered, target_ppm=10**6, topology=topology)
    offered = [link("x", "n4", "n2", 100), site("edge", 3, node="n2")]
    plan = improved(seen_of(asked[:1]), offered, target_ppm=10**6, topology=topology)
    assert [each.name for each in plan.chosen] == ["x", "edge"]
    near = line(100)  # by the topology q is 560 us away and inside, which nobody measured
    with pytest.raises(TielineError, match=r" 0\.00 % are covered"):
        improved(seen_of(asked[1:]), [link("x", "n1", "n0", 50)], target_ppm=10**6, topology=near)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(10, 400)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(10, 400)), min_size=1, max_size=5),
)
def test_ways_over_links_are_those_that_trying_every_subset_finds(there, wanted):
    """Against Floyd and Warshall over every set of at most three new links."""
    nodes = tuple(Node(name=f"n{n}", site="a" if n == 0 else "") for n in range(5))
    links = tuple(
        Link(name=f"l{n}", a=f"n{a}", b=f"n{b}", capacity_bps=1, delay_us=us)
        for n, (a, b, us) in enumerate(there)
        if a != b
    )
    offered = [link(f"c{n}", f"n{a}", f"n{b}", us) for n, (a, b, us) in enumerate(wanted) if a != b]
    topology = Topology(name="t", nodes=nodes, links=links)
    asked = [AccessPoint(point="p", node="n4")]

    def reach_us(chosen):
        far = {(a.name, b.name): 0 if a is b else 10**9 for a in nodes for b in nodes}
        for each in (*links, *chosen):
            for ends in ((each.a, each.b), (each.b, each.a)):
                far[ends] = min(far[ends], each.delay_us)
        for via in nodes:
            for a in nodes:
                for b in nodes:
                    by = far[a.name, via.name] + far[via.name, b.name]
                    far[a.name, b.name] = min(far[a.name, b.name], by)
        return far["n4", "n0"]

    fits = [chosen for size in range(4) for chosen in combinations(offered, size) if reach_us(chosen) <= 320]
    seen = seen_of(asked)
    if not fits or fits[0] == ():
        with pytest.raises(TielineError, match="are covered"):
            improved(seen, offered, target_ppm=10**6, topology=topology)
        return
    plan = improved(seen, offered, target_ppm=10**6, topology=topology)
    assert plan.cost_micro_cny == min(len(chosen) for chosen in fits) * CNY


FAST = Topology(
    name="t",
    nodes=(
        Node(name="sh", place=Place(latitude_udeg=31_230_000, longitude_udeg=121_470_000)),
        Node(name="bj", place=Place(latitude_udeg=39_900_000, longitude_udeg=116_400_000)),
    ),
)


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (link("x", "sh", "nowhere", 5), "`nowhere` is no node"),
        (link("x", "sh", "sh", 5), "to itself"),
        (link("x", "sh", "bj", 900), "900 us one way, and light needs"),
        (site("x", 1, reaches_us={"q": 5}), "`q`, which is none of the points"),
        (site("x", 1, node="nowhere"), "`nowhere` is no node"),
        (site("x", 1, reaches_us={"p": 900}, latitude_udeg=39_900_000, longitude_udeg=116_400_000), "light needs 7"),
        (Candidate(name="x", kind=CandidateKind.UPGRADE, cost_micro_cny=1), "says of which site"),
    ],
)
def test_a_candidate_that_cannot_be_is_refused_with_numbers(candidate, said):
    asked = [AccessPoint(point="p", latitude_udeg=31_230_000, longitude_udeg=121_470_000)]
    with pytest.raises(TielineError, match=said) as refused:
        improved(seen_of(asked), [candidate], target_ppm=1, topology=FAST)
    assert refused.value.code == "invalid_request"
    assert refused.value.where.startswith("candidates[0]")


def test_one_thing_twice_a_link_without_topology_and_two_aims_are_refused():
    asked = points(1)
    for offered, said in (([site("x", 1), site("x", 2)], "twice"), ([link("x", "a", "b", 1)], "no topology")):
        with pytest.raises(TielineError, match=said):
            improved(seen_of(asked), offered, target_ppm=1)
    with pytest.raises(TielineError, match="one of both"):
        improved(seen_of(asked), [], target_ppm=1, budget_micro_cny=1)


def test_too_many_partial_paths_are_refused(monkeypatch):
    monkeypatch.setattr("tieline.network.reach.MOST_LABELS", 3)
    asked = [AccessPoint(point="p", node="n4")]
    with pytest.raises(TielineError, match="partial paths") as refused:
        improved(seen_of(asked), [link("x", "n4", "n2", 10), link("y", "n2", "n0", 10)], target_ppm=1,
                 topology=line(1, 1, 1, 1, site_at="n9"))  # fmt: skip
    assert refused.value.code == "too_large"


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_search_that_ends_before_its_proof_says_how_far_it_may_be_from_the_best(seed):
    lot = random.Random(seed)
    groups = tuple(
        Group(tuple(sorted({(lot.randrange(60),) for _ in range(lot.randint(1, 3))})), lot.randint(1, 1_000), 1)
        for _ in range(150)
    )
    costs = tuple(lot.randint(10, 99) * CNY for _ in range(60))
    cover = Cover(costs, groups, 0, sum(group.weight for group in groups))
    needed = cover.weight * 8 // 10
    best, proven = cheapest(cover, needed)
    assert cover.cost_of(best) == proven
    found, bound = cheapest(cover, needed, nodes=1)
    assert cover.weight_of(found) >= needed
    assert bound <= proven <= cover.cost_of(found)
    assert bound >= proven * 9 // 10
