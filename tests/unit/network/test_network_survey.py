"""What a topology can carry at a moment, and what the survey finds wrong or weak in it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from network_cases import cases

from tieline.model.error import TielineError
from tieline.model.topology import Link, Node, Place, Topology, Window
from tieline.network.state import failures, graph_at, groups, turns
from tieline.network.survey import bridges, checked, surveyed
from tieline.network.traffic import Traffic, routed


def link(name, a, b, rate=10, **more):
    return Link(name=name, a=a, b=b, capacity_bps=rate, **more)


def network(*links, nodes="abcd"):
    return Topology(name="n", nodes=tuple(Node(name=name) for name in nodes), links=links)


RING = network(
    link("ab", "a", "b", groups=("duct",), delay_us=5),
    link("bc", "b", "c", maintenance=(Window(from_ms=10, until_ms=20),), delay_us=5),
    link("cd", "c", "d", groups=("duct",), delay_us=5),
    link("da", "d", "a", capacity_back_bps=3, delay_us=5),
)


def test_maintenance_cuts_a_link_from_its_begin_to_before_its_end():
    assert [graph_at(RING, at).capacity_bps[2] for at in (9, 10, 19, 20)] == [10, 0, 0, 10]
    assert graph_at(RING).capacity_bps.tolist() == [10, 10, 10, 10, 10, 10, 10, 3]
    assert turns(RING, 0, 100) == (0, 10, 20)
    assert turns(RING, 10, 20) == (10,)


def test_what_shares_a_risk_fails_together():
    assert groups(RING) == {"duct": (0, 2)}
    assert [(failure.name, failure.links) for failure in failures(RING)][-1] == ("duct", (0, 2))
    assert graph_at(RING, down=groups(RING)["duct"]).is_up.tolist() == [
        False,
        False,
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert [(finding.code, finding.where) for finding in surveyed(RING)] == [("shared_risk", "duct")]


FAR = (
    Node(name="a", place=Place(latitude_udeg=31_230_000, longitude_udeg=121_470_000)),
    Node(name="b", place=Place(latitude_udeg=39_900_000, longitude_udeg=116_400_000)),
)


@pytest.mark.parametrize(
    ("topology", "code", "says"),
    [
        (Topology(name="n"), "no_nodes", "0 nodes"),
        (network(nodes="aab"), "duplicate_node", "2 nodes are named `a`"),
        (network(link("x", "a", "b"), link("x", "b", "c"), nodes="abc"), "duplicate_link", "2 links are named `x`"),
        (network(link("x", "a", "z"), nodes="ab"), "unknown_end", "ends at `z`"),
        (network(link("x", "a", "a"), nodes="a"), "self_loop", "begins and ends at `a`"),
        (network(link("x", "a", "b"), nodes="abc"), "disconnected", "2 parts .* the smallest of 1 nodes"),
        (network(link("x", "a", "b", 0), nodes="ab"), "disconnected", "2 parts"),
        (
            network(link("x", "a", "b", maintenance=(Window(from_ms=9, until_ms=9),)), nodes="ab"),
            "window_backwards",
            "9 ms to 9 ms",
        ),
        (
            Topology(name="n", nodes=FAR, links=(link("x", "a", "b", delay_us=500),)),
            "faster_than_light",
            "500 us for 106[0-9] km",
        ),
    ],
)
def test_an_unsound_topology_is_refused_whole_with_numbers(topology, code, says):
    assert surveyed(topology)[0].code == code
    with pytest.raises(TielineError, match=says) as caught:
        checked(topology)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("rate", [-1, 10**16])
def test_a_capacity_out_of_bounds_is_refused_although_a_program_made_it(rate):
    with pytest.raises(TielineError, match="breaks a bound"):
        checked(network(link("x", "a", "b", rate), nodes="ab"))


def test_a_sound_topology_is_let_through_and_weak_points_are_told():
    topology = network(
        link("ab", "a", "b", delay_us=1),
        link("bc", "b", "c", capacity_back_bps=0),
        link("ab2", "a", "b", 0),
        nodes="abc",
    )
    assert checked(topology) == topology
    assert {finding.code: finding.where for finding in surveyed(topology)} == {
        "no_capacity": "ab2",
        "no_delay": "bc",
        "one_way": "n",
        "bridge": "bc",
    }


@given(cases())
@settings(max_examples=60, deadline=None)
def test_bridges_are_the_links_whose_cut_leaves_more_parts(case):
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    graph, _ = case

    def parts(of):
        up = np.flatnonzero(of.is_up)
        matrix = csr_array((np.ones(len(up)), (of.tail[up], of.head[up])), shape=(graph.node_count,) * 2)
        return connected_components(matrix, directed=False)[0]

    whole = parts(graph)
    assert bridges(graph) == tuple(at for at in range(graph.arc_count // 2) if parts(graph.without([at])) > whole)


def demands(*asked):
    source, target, rate = zip(*asked, strict=True)
    return Traffic(np.array(source, np.int32), np.array(target, np.int32), np.array(rate, float), np.ones(len(asked)))


@pytest.mark.parametrize(
    ("topology", "traffic", "carried"),
    [
        (network(nodes="a"), demands((0, 0, 5)), [0]),  # one node: there is nowhere to carry it to
        (network(nodes="ab"), demands((0, 1, 5)), [0]),  # no links
        (network(link("x", "a", "b", 0), nodes="ab"), demands((0, 1, 5)), [0]),
        (network(link("x", "a", "b", 10**15), nodes="ab"), demands((0, 1, 5), (1, 0, 0)), [5, 0]),
        (network(link("x", "a", "b", 1), link("y", "a", "b", 2), nodes="ab"), demands((0, 1, 1e18)), [3]),  # parallel
        (network(link("x", "a", "b", 10, capacity_back_bps=0), nodes="ab"), demands((0, 1, 9), (1, 0, 9)), [9, 0]),
    ],
)
def test_degenerate_networks_carry_what_they_can_with_no_gap(topology, traffic, carried):
    flows = routed(graph_at(topology), traffic)
    assert flows.carried_bps() == pytest.approx(carried)
    assert flows.gap == pytest.approx(0.0, abs=1e-9)


def test_no_demands_at_all_are_carried_by_nothing():
    none = np.zeros(0, dtype=np.int32)
    flows = routed(graph_at(RING), Traffic(none, none, np.zeros(0), np.zeros(0)))
    assert (flows.worth, flows.gap, len(flows.columns)) == (0.0, 0.0, 0)


def test_every_state_of_the_ring_is_planned_and_none_oversubscribed():
    traffic = demands((0, 2, 12), (1, 3, 12), (3, 1, 12))
    whole = routed(graph_at(RING), traffic)
    for failure, at in itertools.product(failures(RING), (0, 15)):
        graph = graph_at(RING, at, failure.links)
        flows = routed(graph, traffic, start=whole)
        assert np.all(flows.load_bps() <= graph.capacity_bps + 1e-6)
        assert flows.gap < 3e-3


@pytest.mark.parametrize(
    ("locators", "said"),
    [
        (("fc00:0:1::/48", "fc00:0:1::/48"), "locator fc00:0:1::/48 of node `b` lies in fc00:0:1::/48 of node `a`"),
        (("fc00::/32", "fc00:0:7::/48"), "locator fc00:0:7::/48 of node `b` lies in fc00::/32 of node `a`"),
        (("10.0.0.0/8", ""), "`10.0.0.0/8` of node `a` is no IPv6 prefix"),
        (("fc00:0:1::1/48", ""), "`fc00:0:1::1/48` of node `a` is no IPv6 prefix"),
    ],
)
def test_locators_that_cannot_be_told_apart_are_faults(locators, said):
    nodes = tuple(Node(name=name, locator=locator) for name, locator in zip("ab", locators, strict=True))
    topology = Topology(name="t", nodes=nodes, links=(Link(name="x", a="a", b="b", capacity_bps=1),))
    with pytest.raises(TielineError) as refusal:
        checked(topology)
    assert said in refusal.value.message
