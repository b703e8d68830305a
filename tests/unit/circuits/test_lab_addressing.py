"""Addresses and routes of a laboratory: the same file gives the same, hostile ones are refused."""

from __future__ import annotations

import msgspec
import pytest
from fabric_world import fabric_of

from tieline.drivers.circuits.kernel.addressing import Addressing, segment, site_address
from tieline.drivers.lab.igp import next_hops
from tieline.model.error import TielineError
from tieline.model.topology import Link, Node, Topology

replace = msgspec.structs.replace
FIVE = fabric_of([0]).topology


def test_every_node_has_segments_and_every_port_an_address():
    addressing = Addressing(FIVE)
    assert addressing.locators["a"] == "fc00:0:1"
    assert segment("fc00:0:1", 2, 0, 6) == "fc00:0:1:2:0::6"
    assert site_address(4, 255) == "fd00:0:4:ff::1"
    assert addressing.node_of("cn.d/site/s") == "d"
    addresses = {addressing.port_address(link, node) for link in FIVE.links for node in (link.a, link.b)}
    assert len(addresses) == 12
    with pytest.raises(TielineError, match="no node and no site"):
        addressing.node_of("nowhere")


@pytest.mark.parametrize(
    ("locator", "said"),
    [("fc00::/40", "40 bits; 48 are needed"), ("10.0.0.0/8", "no prefix"), ("fc00:0:2::/48", "have one locator")],
)
def test_a_wrong_locator_is_refused(locator, said):
    nodes = (replace(FIVE.nodes[0], locator=locator), *FIVE.nodes[1:])
    with pytest.raises(TielineError, match=said):
        Addressing(replace(FIVE, nodes=nodes))


@pytest.mark.parametrize("change", [{"name": "manager"}, {"site": "manager"}, {"site": "cn.d/site/s"}, {"site": "b"}])
def test_two_networks_of_one_name_are_refused(change):
    nodes = (replace(FIVE.nodes[0], **change), *FIVE.nodes[1:])
    links = tuple(link for link in FIVE.links if link.a != "a")
    with pytest.raises(TielineError, match="would name two networks of the laboratory"):
        Addressing(replace(FIVE, nodes=nodes, links=links))


def test_a_topology_beyond_what_a_laboratory_holds_is_refused():
    nodes = tuple(Node(name=f"n{at}") for at in range(65))
    with pytest.raises(TielineError, match="65 nodes and 0 links; a laboratory holds 64 and 256"):
        Addressing(Topology(name="large", nodes=nodes))
    links = (replace(FIVE.links[0], mtu_bytes=65_522), *FIVE.links[1:])
    with pytest.raises(TielineError, match="packets of 65522 bytes; a port of a laboratory carries 65521"):
        Addressing(replace(FIVE, links=links))


def test_other_packets_take_the_quickest_way_over_what_has_light():
    topology = replace(
        FIVE,
        links=(
            Link(name="ab", a="a", b="b", capacity_bps=1, delay_us=100),
            Link(name="bc", a="b", b="c", capacity_bps=1, delay_us=100),
            Link(name="ac", a="a", b="c", capacity_bps=1, delay_us=500),
            Link(name="cd", a="c", b="d", capacity_bps=1, delay_us=100),
        ),
    )
    hops = next_hops(topology)
    assert hops["a"]["d"][0].name == "ab"
    assert "e" not in hops["a"]
    assert next_hops(topology, ("ab",))["a"]["b"][0].name == "ac"
    assert next_hops(topology, ("cd",))["a"].keys() == {"b", "c"}
