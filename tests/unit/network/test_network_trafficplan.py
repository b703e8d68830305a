"""Traffic plans as others read them: whole numbers that add up, within capacities, whatever is asked and cut."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.model.error import TielineError
from tieline.model.topology import Link, Node, Topology
from tieline.model.trafficplan import ClassTerms, DemandFile, PlanDemand
from tieline.model.transfer import TrafficClass
from tieline.network.documents import read
from tieline.network.trafficplan import traffic_plan

NAMES = "abcd"
RING = Topology(
    name="ring",
    nodes=tuple(Node(name=name, site=f"cn.x/site/{name}") for name in NAMES),
    links=tuple(
        Link(name=ends, a=ends[0], b=ends[1], capacity_bps=rate, delay_us=100)
        for ends, rate in (("ab", 1_000), ("bc", 700), ("cd", 900), ("da", 400), ("ac", 333))
    ),
)


@st.composite
def asked(draw):
    pairs = st.permutations(NAMES).map(lambda names: names[:2])
    demands = draw(
        st.lists(
            st.builds(
                lambda ends, rate, traffic_class, weight, latency: PlanDemand(
                    source=ends[0], target=f"cn.x/site/{ends[1]}", rate_bps=rate, traffic_class=traffic_class,
                    weight=weight, latency_us=latency,
                ),
                pairs, st.integers(0, 1_500), st.sampled_from([None, *TrafficClass]), st.integers(1, 3),
                st.sampled_from((0, 0, 150, 250)),
            ),
            min_size=1, max_size=6,
        )
    )  # fmt: skip
    terms = st.sampled_from((ClassTerms(), ClassTerms(fair=True), ClassTerms(split=False)))
    return DemandFile(demands=tuple(demands), classes={each: draw(terms) for each in TrafficClass})


def adds_up(demands, links=None):
    """Paths join their ends within their bound and sum up to what is carried; the load of each direction."""
    load = Counter()
    for each in demands:
        assert 0 <= each.carried_bps <= each.asked_bps
        assert abs(sum(path.rate_bps for path in each.paths) - each.carried_bps) <= len(each.paths) + 2  # parts of 1
        for path in each.paths:
            assert (path.nodes[0], f"cn.x/site/{path.nodes[-1]}") == (each.source, each.target)
            assert len(path.links) == len(path.nodes) - 1
            assert path.delay_us == 100 * len(path.links)
            for at, link in enumerate(path.links):
                assert {path.nodes[at], path.nodes[at + 1]} == set(link)
                load[link, path.nodes[at]] += path.rate_bps
    for (link, _), rate in load.items():
        assert rate <= next(each.capacity_bps for each in RING.links if each.name == link)
    return load


@given(asked(), st.sets(st.sampled_from(["ab", "bc", "ac"]), min_size=1).map(sorted))
@settings(max_examples=20, deadline=None)
def test_a_plan_adds_up_before_and_after_a_cut(file, cut):
    plan = traffic_plan(RING, file, cut=cut)
    load = adds_up(plan.demands)
    for each in plan.links:
        assert abs(each.load_bps - load[each.link, each.source]) <= len(plan.demands) * 4
    assert all(0 <= each.carried_bps <= each.asked_bps for each in plan.classes)
    assert plan.cut is not None
    after = adds_up(plan.cut.demands)
    assert not {link for link, _ in after} & set(cut)
    for each, asked_for in zip(plan.cut.demands, file.demands, strict=True):
        for path in each.paths:
            assert not asked_for.latency_us or path.delay_us <= asked_for.latency_us
    assert plan.cut.untouched_bps <= sum(each.carried_bps for each in plan.demands) + 1
    assert plan.cut.untouched_bps <= plan.cut.refilled_bps + len(file.demands)
    assert plan.cut.steps in (1, 2)
    assert plan.cut.least_bps <= min(plan.cut.refilled_bps, plan.cut.replanned_bps) + len(file.demands)
    whole = {each.name for each in plan.cut.demands if not file.classes[each.traffic_class].split}
    assert set(plan.cut.stopped) <= whole
    assert plan.cut.steps == 2 or not plan.cut.stopped


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"demands: [{from: a, to: b, rate: 1Gbit/s, rate_bps: 3}]", "says the same as `rate_bps`"),
        (b"demands: [{from: a, to: b, rate: fast}]", "`fast` is not a number with a unit"),
        (b"demands: [{from: a, to: b, rate: 1e400}]", "is not a unit here"),
        (b"demands: [{from: a, to: b}]", "missing required field `rate_bps`"),
        (b"demands: [{from: a, to: b, rate: 1bps, class: gold}]", "invalid enum value 'gold'"),
        (b"demands: [{from: a, to: b, rate: 1bps, weight: 0}]", "expected `int` >= 1"),
        (b"demands: {from: a}", "expected `array`"),
        (b"{\"demands\": [], \"demand\": 1}", "unknown field `demand`"),
        (b"demands: []\n---\ndemands: []", "holds 2 documents"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_refused_with_its_place(text, said):
    with pytest.raises(TielineError) as refusal:
        read(text, DemandFile, "it")
    assert said in refusal.value.message


def test_a_demand_of_nowhere_and_a_cut_of_nothing_are_refused():
    one = DemandFile(
        demands=(PlanDemand(source="a", target="z", rate_bps=1), PlanDemand(source="a", target="a", rate_bps=1))
    )
    with pytest.raises(TielineError) as refusal:
        traffic_plan(RING, one)
    assert refusal.value.message == "`z` is no node of `ring` and no site at one; a demand begins and ends at `a`"
    good = DemandFile(demands=(PlanDemand(source="a", target="b", rate_bps=1),))
    with pytest.raises(TielineError) as refusal:
        traffic_plan(RING, good, cut=("zz",))
    assert refusal.value.code == "not_found"
    both = DemandFile(demands=good.demands, classes={TrafficClass.BEST_EFFORT: ClassTerms(fair=True, split=False)})
    with pytest.raises(TielineError) as refusal:
        traffic_plan(RING, both)
    assert refusal.value.where == "classes.best_effort"
