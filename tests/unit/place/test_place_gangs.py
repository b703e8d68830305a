"""Gangs: all or nothing, within what is asked between sites, and as cheap as trying everything, or within the gap."""

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from place_world import NOW_MS, a_demand, a_pool

from tieline.model.protocol import MOST_MEMBERS, MOST_NODES
from tieline.model.spec import DatasetSpec
from tieline.model.task import DataUse, Span
from tieline.place import Amount, DataFact, Pools
from tieline.place.gangs import Gang, NoGang, gang, is_possible_gang
from tieline.place.scene import Scene
from tieline.ports import ConstantDistances

NODE = {"accelerator": "a100", "accelerator_count": 8}


class Hose:
    """Ways without a network: each site can be joined with so many others, some pairs not at all."""

    def __init__(self, joins=None, apart=(), out=(), shut=()):
        self.joins, self.apart, self.out, self.shut = joins or {}, {frozenset(each) for each in apart}, out, shut

    def _of(self, site):
        return self.joins.get(site.rpartition("/")[2], 99)

    def takes_part(self, sites):
        return np.array([site.rpartition("/")[2] not in self.out for site in sites])

    def meeting(self, sites):
        open_ = np.array([site.rpartition("/")[2] not in self.shut for site in sites])
        return open_[:, None] | open_[None, :]

    def allowed(self, sites, span):
        ends = [site.rpartition("/")[2] for site in sites]
        return np.array([[frozenset((a, b)) not in self.apart for b in ends] for a in ends])

    def most_joined(self, sites, span):
        return np.array([self._of(site) for site in sites], np.int64)

    def first(self, site):
        return (site,)

    def extended(self, held, site, span):
        more = (*held, site)
        return more if all(self._of(each) >= len(more) - 1 for each in more) else None


def a_gang(nodes=10, **fields):
    return a_demand(NODE, nodes=nodes, **fields)


def asking(sites=8, rate_bps=1):
    return Span(sites=sites, rate_bps=rate_bps)


def found(demand, pools, between=None, span=None, **more):
    pools = pools if isinstance(pools, Pools) else Pools(pools)
    demand = replace(demand, span=span or asking())
    return gang(demand, pools, ConstantDistances(), between or Hose(), now_ms=NOW_MS, **more)


def sites_of(answer):
    return sorted({member.candidate.site.rpartition("/")[2] for member in answer.members})


def small(name, nodes, price, **spec):
    return a_pool(name, price=price, accelerator_count=8 * nodes, core_count=64 * nodes, memory_bytes=2**40, **spec)


def test_a_gang_takes_the_cheapest_nodes_of_few_sites():
    pools = [small("a", 6, 3), small("b", 6, 1), small("c", 6, 2)]
    answer = found(a_gang(), pools)
    assert isinstance(answer, Gang)
    assert [(member.candidate.pool.rpartition("/")[2], member.nodes) for member in answer.members] == [
        ("b", 6),
        ("c", 4),
    ]
    assert answer.members[1].amount.accelerators == 32
    assert answer.cost_micro_cny_per_hour == answer.bound_micro_cny_per_hour == 8 * (6 * 1 + 4 * 2) * 10**6
    assert answer.gap == 0


def test_no_more_sites_than_asked_even_if_they_are_cheaper():
    pools = [*(small(f"s{at}", 2, 1) for at in range(9)), small("big", 10, 5)]
    answer = found(a_gang(), pools, span=asking(3))
    assert isinstance(answer, Gang)
    assert len(sites_of(answer)) <= 3
    assert answer.cost_micro_cny_per_hour == 8 * (4 * 1 + 6 * 5) * 10**6


def test_sites_that_are_apart_are_not_in_one_gang():
    pools = [small("a", 6, 1), small("b", 6, 1), small("c", 6, 9)]
    answer = found(a_gang(), pools, Hose(apart=[("a", "b")]))
    assert isinstance(answer, Gang)
    assert sites_of(answer) in (["a", "c"], ["b", "c"])


def test_sites_of_which_neither_lets_the_other_in_are_not_in_one_gang():
    pools = [small("a", 6, 1), small("b", 6, 1), small("c", 6, 9), small("d", 6, 9)]
    answer = found(a_gang(), pools, Hose(shut="abc"), span=asking(rate_bps=0))
    assert isinstance(answer, Gang)
    assert sites_of(answer) in (["a", "d"], ["b", "d"])
    # A way that is fast enough does not help, and what is let in may be too far.
    far = found(a_gang(), pools[:3], Hose(shut="ab", apart=[("a", "c"), ("b", "c")]))
    assert isinstance(far, NoGang)
    assert far.reasons[0].code == "gang_apart"


def test_rates_that_do_not_fit_together_are_told():
    pools = [small("a", 4, 1), small("b", 4, 1), small("c", 4, 1)]
    answer = found(a_gang(), pools, Hose({"a": 1, "b": 1, "c": 1}))
    assert isinstance(answer, NoGang)
    assert [(reason.code, reason.count) for reason in answer.reasons] == [("gang_joint", 3)]


def test_a_gang_has_no_more_parts_than_its_sites_take():
    ones = [small(f"{at}-{one}", 1, 1, site=f"cn.lab/site/{at}") for at in range(8) for one in range(10)]
    large = [small(f"{at}-large", 8, 2, site=f"cn.lab/site/{at}") for at in range(8)]
    answer = found(a_gang(70), [*ones, *large])
    assert isinstance(answer, Gang)
    assert len(answer.members) <= MOST_MEMBERS
    assert sum(member.nodes for member in answer.members) == 70
    assert answer.bound_micro_cny_per_hour <= 8 * 70 * 10**6 < answer.cost_micro_cny_per_hour
    assert len(found(a_gang(64), ones).members) == MOST_MEMBERS
    for nodes, pools in ((70, ones), (MOST_NODES + 1, [small("a", 40_000, 1), small("b", 40_000, 1)])):
        refused = found(a_gang(nodes), pools)
        assert isinstance(refused, NoGang)
        assert refused.reasons[0].code == "gang_large"
        assert refused.reasons[0].values == {"asked": nodes, "most": MOST_NODES, "parts": MOST_MEMBERS}
        scene = Scene(Pools(pools), ConstantDistances(), NOW_MS)
        assert not is_possible_gang(scene, replace(a_gang(nodes), span=asking()), Hose())
    halves = [small(f"{at}-{one}", 1, 1, site=f"cn.lab/site/{at}") for at in range(9) for one in range(9)]
    apart = found(a_gang(66), [*halves, small("9", 6, 1)], Hose(apart=[("9", str(at)) for at in range(9)]))
    assert isinstance(apart, NoGang), "64 pools with 69 nodes, but not at sites that are joined"
    assert apart.reasons[0].code == "gang_large"


def test_every_refusal_counts_every_pool_once():
    few = [small("a", 1, 1), a_pool("cores", accelerator="", accelerator_count=0, accelerator_memory_bytes=0)]
    cases = {
        "gang_nodes": found(a_gang(), few),
        "gang_sites": found(a_gang(), [small(f"s{at}", 2, 1) for at in range(6)], span=asking(3)),
        "gang_unmet": found(a_gang(), [small("a", 6, 1), small("b", 6, 1)], Hose(shut="ab")),
        "gang_apart": found(a_gang(), [small("a", 6, 1), small("b", 6, 1)], Hose(apart=[("a", "b")])),
    }
    for code, answer in cases.items():
        assert isinstance(answer, NoGang), code
        assert answer.reasons[0].code == code
        assert sum(reason.count for reason in answer.reasons) == answer.considered
    nowhere = found(a_gang(), [])
    assert isinstance(nowhere, NoGang)
    assert [reason.code for reason in nowhere.reasons] == ["no_pools"]


def test_owners_who_refuse_give_nothing():
    pools = [small("a", 10, 1, policy="user == 'bob'"), small("b", 10, 5)]
    answer = found(a_gang(), pools)
    assert isinstance(answer, Gang)
    assert sites_of(answer) == ["b"]


def test_an_owner_gives_as_many_nodes_as_its_policy_admits_of_its_own_part():
    at_most_two = small("a", 10, 1, policy="nodes <= 2 and accelerators <= 16 and network == 'host'")
    answer = found(a_gang(), [at_most_two, small("b", 10, 5)])
    assert isinstance(answer, Gang)
    assert [member.nodes for member in answer.members] == [2, 8]
    # What admits more nodes and not fewer is left out where it cannot be met.
    at_least_four = small("a", 10, 1, policy="nodes >= 4 or nodes == 1")
    answer = found(a_gang(nodes=10), [at_least_four, small("b", 8, 5), small("c", 8, 9)])
    assert isinstance(answer, Gang)
    assert sum(member.nodes for member in answer.members) == 10
    assert all(member.nodes >= 4 or sites_of(answer) == ["b", "c"] for member in answer.members)


def test_sites_that_take_no_part_are_told_apart_and_those_where_a_run_was_lost_come_last():
    pools = [small("a", 6, 1), small("b", 6, 2), small("c", 6, 3)]
    answer = found(a_gang(), pools, Hose(out=("a",)))
    assert isinstance(answer, Gang)
    assert sites_of(answer) == ["b", "c"]
    none = found(a_gang(nodes=13), pools, Hose(out=("a",)))
    assert isinstance(none, NoGang)
    assert [(reason.code, reason.count) for reason in none.reasons] == [("gang_nodes", 2), ("gang_no_part", 1)]
    late = found(a_gang(avoid=("cn.lab/site/a",)), pools)
    assert isinstance(late, Gang)
    assert sites_of(late) == ["b", "c"]
    all_of_them = found(a_gang(nodes=18, avoid=("cn.lab/site/a",)), pools)
    assert isinstance(all_of_them, Gang)
    assert sites_of(all_of_them) == ["a", "b", "c"]


def test_the_cheapest_alternative_is_taken_or_the_first_where_they_are_ordered():
    pools = [small("a", 3, 5), small("b", 3, 5), *(small(name, 3, 1, accelerator="h100") for name in "cd")]
    either = ({"accelerator": "a100", "accelerator_count": 8}, {"accelerator": "h100", "accelerator_count": 8})
    cheap = found(a_demand(*either, nodes=6), pools)
    first = found(a_demand(*either, nodes=6, is_ordered=True), pools)
    assert isinstance(cheap, Gang)
    assert isinstance(first, Gang)
    assert (sites_of(cheap), sites_of(first)) == (["c", "d"], ["a", "b"])
    assert {member.candidate.alternative for member in cheap.members} == {1}


def test_what_idle_sites_could_hold_is_possible_whatever_is_free():
    pools = Pools([small("a", 6, 1), small("b", 6, 1)])
    pools.hold("cn.lab/pool/a", Amount(48))
    for nodes, apart, expected in ((12, (), True), (13, (), False), (12, (("a", "b"),), False)):
        demand = replace(a_gang(nodes=nodes), span=asking())
        scene = Scene(pools, ConstantDistances(), NOW_MS)
        assert is_possible_gang(scene, demand, Hose(apart=apart)) is expected


def test_the_data_is_brought_to_every_site_and_counts():
    pools = [small("home", 5, 4), small("far", 10, 4)]
    fact = DataFact(owner="cn.lab", spec=DatasetSpec(size_bytes=10**15, sites=("cn.lab/site/home",)))
    reading = a_gang(nodes=5, data=(DataUse(id="d"),), data_facts={"d": fact})
    answer = found(reading, pools)
    assert isinstance(answer, Gang)
    assert sites_of(answer) == ["home"]


def test_nothing_is_held_and_the_same_question_has_the_same_answer():
    pools = Pools([small("a", 6, 3), small("b", 6, 1), small("c", 6, 2)])
    assert found(a_gang(), pools) == found(a_gang(), pools)
    assert pools.held("cn.lab/pool/b").accelerators == 0


SITES = "abcdef"


@settings(deadline=None)
@given(
    supply=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=6),
    apart=st.lists(st.tuples(st.sampled_from(SITES), st.sampled_from(SITES)).filter(lambda ends: ends[0] != ends[1])),
    joins=st.dictionaries(st.sampled_from(SITES), st.integers(0, 3)),
    wanted=st.integers(1, 16),
    most=st.integers(1, 4),
    looks=st.sampled_from((0, 3, 800)),
    way=st.sampled_from((0, 1, 7, 40)),
)
def test_the_answer_is_that_of_trying_everything_or_within_its_gap(supply, apart, joins, wanted, most, looks, way):
    pools = [small(SITES[at], nodes, price) for at, (nodes, price) in enumerate(supply)]
    hose = Hose(joins, apart)
    best = None
    for size in range(1, most + 1):
        for chosen in combinations(range(len(supply)), size):
            names = [SITES[at] for at in chosen]
            if any(frozenset(pair) in hose.apart for pair in combinations(names, 2)):
                continue
            if any(hose.joins.get(name, 99) < size - 1 for name in names):
                continue
            left, cost = wanted, 0
            for price, nodes in sorted((supply[at][1], supply[at][0]) for at in chosen):
                cost += min(left, nodes) * price
                left -= min(left, nodes)
            cost += way * size * (size - 1) // 2
            if not left and (best is None or cost < best):
                best = cost
    answer = found(a_gang(nodes=wanted), pools, hose, asking(most), most_looks=looks, way_micro_cny=way * 8 * 10**6)
    if isinstance(answer, NoGang):
        assert best is None or looks < 800
        return
    assert best is not None
    assert answer.bound_micro_cny_per_hour <= best * 8 * 10**6 <= answer.cost_micro_cny_per_hour
    if looks == 800:
        assert answer.cost_micro_cny_per_hour == best * 8 * 10**6
    assert sum(member.nodes for member in answer.members) == wanted
    assert len(sites_of(answer)) <= most
