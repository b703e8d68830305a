"""Networks from a request: as cheap as the cheapest of all choices, every one of which is looked at on small ones."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import Everything

from tieline.model.design import Candidate, DesignDemand, DesignNode, DesignRequest, Module, Survival
from tieline.model.error import TielineError
from tieline.model.topology import Link, Node, Topology
from tieline.network.configuration import addresses, frr
from tieline.network.design import capacity_of, designed, price_of, question_of
from tieline.network.traffic import Traffic

CHEAP = Module(name="10G", capacity_bps=10, price_micro_cny=10)


def request(links, demands, modules=(CHEAP,), nodes="abcd", prices=None, **more):
    return DesignRequest(
        name="t",
        nodes=tuple(DesignNode(name=name, price_micro_cny=(prices or {}).get(name, 0)) for name in nodes),
        modules=modules,
        links=links,
        demands=demands,
        most_filled_percent=100,
        **more,
    )


def candidate(ends, price=0, us=1, **more):
    return Candidate(a=ends[0], b=ends[1], price_micro_cny=price, delay_us=us, **more)


def demand(ends, rate, **more):
    return DesignDemand(source=ends[0], target=ends[1], rate_bps=rate, **more)


def suffices(question, chosen):
    """Whether a choice carries all in every state, by the programme over every path of the small network."""
    for state in question.states:
        graph = question.graph.holding(capacity_of(question, chosen)).without(state.lost)
        of, at = question.traffic, state.demands
        most = None if of.most_us is None else of.most_us[at]
        asked = Traffic(of.source[at], of.target[at], of.asked_bps[at], of.value[at], most_us=most)
        if Everything(graph, asked).best() < asked.asked_bps.sum() * (1 - 1e-6) - 1e-9:
            return False
    return True


def cheapest(question):
    """The least price of all choices; None: none suffices."""
    choices = itertools.product(*(range(len(of)) for of in question.levels))
    lacking: list[tuple[int, ...]] = []
    for price, chosen in sorted((price_of(question, chosen), chosen) for chosen in choices):
        if any(all(a <= b for a, b in zip(chosen, more, strict=True)) for more in lacking):
            continue  # less of everything than what did not suffice
        if suffices(question, chosen):
            return price
        lacking.append(chosen)
    return None


def test_a_ring_is_built_where_every_cut_is_to_be_survived_and_a_tree_where_none_is():
    links = tuple(candidate(ends, 5) for ends in ("ab", "bc", "cd", "da", "ac"))
    through = (demand("ac", 8, survives=Survival.NONE),)
    _, plain = designed(request(links, through))
    assert (plain.chosen, plain.price_micro_cny, plain.least_micro_cny) == ((0, 0, 0, 0, 1), 15, 15)
    safe = (demand("ac", 8),)
    _, ring = designed(request(links, safe))
    assert ring.price_micro_cny == ring.least_micro_cny == 45  # the direct link, and two round one side
    question, dear = designed(request(links, safe, prices={"b": 100, "d": 20}))
    assert dear.chosen == (0, 0, 1, 1, 1)
    assert price_of(question, dear.chosen) == dear.price_micro_cny == 65


def test_links_of_one_duct_are_no_spare_of_each_other():
    links = (
        candidate("ab", 1, name="one", groups=("duct",)),
        candidate("ab", 1, name="two", groups=("duct",)),
        candidate("ac", 50),
        candidate("cb", 50),
    )
    _, cheap = designed(request(links, (demand("ab", 5),), nodes="abc"))
    assert cheap.chosen == (1, 1, 0, 0)
    _, apart = designed(request(links, (demand("ab", 5, survives=Survival.GROUP),), nodes="abc"))
    assert apart.chosen in ((1, 0, 1, 1), (0, 1, 1, 1))


def test_a_latency_bound_makes_the_short_way_dear():
    links = (candidate("ab", 90, 10), candidate("ac", 1, 40), candidate("cb", 1, 40), candidate("ab", 95, 12, name="x"))
    _, slow = designed(request(links, (demand("ab", 5),), nodes="abc"))
    assert slow.price_micro_cny == 100 + 2 * 11
    _, quick = designed(request(links, (demand("ab", 5, latency_us=30),), nodes="abc"))
    assert quick.chosen == (1, 0, 0, 1)


def test_what_is_there_already_costs_nothing():
    links = (candidate("ab", 70, capacity_bps=10), candidate("ab", 7, name="x"), candidate("ac", 1), candidate("cb", 1))
    _, built = designed(request(links, (demand("ab", 10),), nodes="abc", prices={"a": 9, "c": 100}))
    assert built.chosen == (0, 1, 0, 0)
    assert built.price_micro_cny == 17


REFUSED = (
    ((candidate("ab"),), (demand("ab", 5),), "there is no way after the loss of a-b"),
    (
        (candidate("ab"), candidate("ab", us=9, name="x")),
        (demand("ab", 5, latency_us=4),),
        "takes 9 us after the loss of",
    ),
    (
        (candidate("ab"), candidate("ab", name="x")),
        (demand("ab", 81),),
        "carries 160 of 162 bit/s after the loss of a-b",
    ),
)


@pytest.mark.parametrize(("links", "demands", "said"), REFUSED)
def test_what_nothing_can_meet_is_refused_with_numbers(links, demands, said):
    with pytest.raises(TielineError) as refusal:
        designed(request(links, demands, nodes="ab"))
    assert refusal.value.code == "unplaceable"
    assert said in refusal.value.message


@pytest.mark.parametrize(
    ("links", "demands", "nodes", "said"),
    [
        ((candidate("az"),), (demand("ab", 1),), "ab", "`z` is no node"),
        ((candidate("aa"),), (demand("ab", 1),), "ab", "begins and ends at `a`"),
        ((candidate("ab"), candidate("ab")), (demand("ab", 1),), "ab", "two links are named `a-b`"),
        ((candidate("ab", us=0),), (demand("ab", 1),), "ab", "no delay, no length and no places"),
        ((candidate("ab"),), (demand("ax", 1),), "ab", "`x` is no node"),
        ((candidate("ab"),), (demand("aa", 1),), "ab", "a demand begins and ends"),
        ((candidate("ab"),), (demand("ab", 1),), "aab", "two nodes have one name"),
    ],
)
def test_a_request_that_means_nothing_is_refused(links, demands, nodes, said):
    with pytest.raises(TielineError) as refusal:
        question_of(request(links, demands, nodes=nodes))
    assert said in refusal.value.message


@st.composite
def requests(draw):
    nodes = "abcd"[: draw(st.integers(3, 4))]
    pairs = [a + b for a, b in itertools.combinations(nodes, 2)]
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=3, max_size=5))
    kinds = draw(st.integers(1, 2))
    links = tuple(
        candidate(
            ends, draw(st.integers(0, 9)), draw(st.integers(1, 6)), name=f"l{at}", most_modules=3 - kinds,
            capacity_bps=draw(st.sampled_from((0, 0, 4))), groups=draw(st.sampled_from(((), (), ("duct",)))),
        )
        for at, ends in enumerate(chosen)
    )  # fmt: skip
    modules = (CHEAP, Module(name="25", capacity_bps=25, price_micro_cny=18))[:kinds]
    demands = tuple(
        demand(
            ends, draw(st.integers(1, 12)), survives=draw(st.sampled_from(list(Survival))),
            latency_us=draw(st.sampled_from((0, 0, 8))), both_ways=draw(st.booleans()),
        )
        for ends in draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=3))
    )  # fmt: skip
    prices = {name: draw(st.sampled_from((0, 7))) for name in nodes}
    return request(links, demands, modules, nodes, prices)


@given(requests())
@settings(max_examples=10, deadline=None)
def test_no_choice_of_levels_that_suffices_is_cheaper(asked):
    question = question_of(asked)
    best = cheapest(question)
    if best is None:
        with pytest.raises(TielineError):
            designed(asked)
        return
    question, built = designed(asked)
    assert suffices(question, built.chosen)
    assert built.price_micro_cny == price_of(question, built.chosen)
    assert built.least_micro_cny <= best <= built.price_micro_cny
    assert built.price_micro_cny - best <= 1e-3 * best  # the search of the programme ends at a gap of 1e-4


@given(requests())
@settings(max_examples=5, deadline=None)
def test_where_rounds_run_out_it_suffices_all_the_same_and_the_bound_is_true(asked):
    question = question_of(asked)
    best = cheapest(question)
    if best is None:
        return
    question, built = designed(asked, rounds=1)
    assert suffices(question, built.chosen)
    assert built.least_micro_cny <= best <= built.price_micro_cny
    for state, flows in zip(question.states, built.flows, strict=True):
        assert np.all(flows.carried_bps() >= question.traffic.asked_bps[state.demands] * (1 - 1e-6))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=3),
    st.integers(0, 4), st.integers(0, 9), st.integers(0, 5),
)  # fmt: skip
def test_the_levels_of_a_link_are_all_mixes_of_modules_that_are_worth_their_price(kinds, most, there, price):
    modules = tuple(Module(name=f"m{at}", capacity_bps=bps, price_micro_cny=cny) for at, (bps, cny) in enumerate(kinds))
    link = candidate("ab", price=price, capacity_bps=there, most_modules=most)
    question = question_of(request((link,), (demand("ab", 1),), modules=modules, nodes="ab"))
    every = {(there, 0)}
    for count in range(1, most + 1):
        for bought in itertools.combinations_with_replacement(kinds, count):
            every.add((there + sum(bps for bps, _ in bought), sum(cny for _, cny in bought) + (0 if there else price)))
    worth = [
        (bps, cny) for bps, cny in every if not any(b >= bps and c <= cny and (b, c) != (bps, cny) for b, c in every)
    ]
    found = [(level.capacity_bps, level.price_micro_cny) for level in question.levels[0]]
    assert found == sorted(worth)
    for level in question.levels[0]:
        assert level.capacity_bps == there + sum(n * bps for n, (bps, _) in zip(level.modules, kinds, strict=True))


def test_many_modules_of_many_kinds_are_all_looked_at():
    kinds = [Module(name=f"m{at}", capacity_bps=1, price_micro_cny=10 + at) for at in range(8)]
    link = candidate("ab", most_modules=63)
    question = question_of(
        request((link,), (demand("ab", 63, survives=Survival.NONE),), modules=tuple(kinds), nodes="ab")
    )
    assert [level.capacity_bps for level in question.levels[0]] == list(range(64))
    assert question.levels[0][-1].price_micro_cny == 630


@pytest.mark.parametrize(
    ("link", "said"),
    [
        (candidate(("e" * 200, "w" * 200)), "would have 401 letters, over 200"),
        (candidate(("a", "w" * 200), most_modules=0), "would have 202 letters, over 200"),
    ],
)
def test_a_link_whose_name_would_be_too_long_is_refused(link, said):
    with pytest.raises(TielineError, match=said):
        question_of(request((link,), (demand((link.a, link.b), 1),), nodes=(link.a, link.b)))


@pytest.mark.parametrize("name", ["x\nrouter bgp 666", "x y", "x\u2028y", "x\0"])
def test_a_name_that_would_be_a_line_of_its_own_is_refused_by_the_request_and_by_the_configuration(name):
    text = msgspec.json.encode({"a": "a", "b": "b", "name": name})
    with pytest.raises(msgspec.ValidationError, match="matching regex"):
        msgspec.json.decode(text, type=Candidate)
    topology = Topology(
        name="t", nodes=(Node(name="a"), Node(name="b")), links=(Link(name=name, a="a", b="b", capacity_bps=1),)
    )
    with pytest.raises(TielineError, match="no name that a configuration holds"):
        frr(addresses(topology)[0])
