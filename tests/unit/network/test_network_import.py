"""Topologies of others: read, refused whole where they are hostile or absurd, and written so that they come back the
same."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.model.topology import Line, Link, Node, Place, Topology, TrafficDemand, Window
from tieline.network import import_graphml, import_rfc8345, import_sndlib, import_values
from tieline.network.survey import surveyed

ZOO = Path(__file__).parents[3] / "bench" / "topologies"
NAMES = st.from_regex(r"[A-Za-z0-9<&>\"'äß中._-]{1,12}", fullmatch=True)
WORDS = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cn"]), max_size=8)
WINDOWS = st.builds(lambda a, b: Window(from_ms=a, until_ms=b), st.integers(0, 10**12), st.integers(0, 10**12))
PLACES = st.builds(
    lambda a, b: Place(latitude_udeg=a, longitude_udeg=b),
    st.integers(-90_000_000, 90_000_000),
    st.integers(-180_000_000, 180_000_000),
)


@st.composite
def topologies(draw, plain=False):
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    words = st.just("") if plain else WORDS
    nodes = tuple(
        Node(name=name, owner=draw(words), region=draw(words), place=draw(st.none() | PLACES), locator=draw(words))
        for name in names
    )
    links = []
    for name in draw(st.lists(NAMES, max_size=6, unique=True)):
        given_ = (
            {}
            if plain
            else {
                "capacity_back_bps": draw(st.none() | st.integers(0, 10**15)),
                "delay_us": draw(st.integers(0, 60_000_000)),
                "mtu_bytes": draw(st.integers(1280, 65535)),
                "price_micro_cny_per_gb": draw(st.integers(0, 10**12)),
                "owner": draw(words),
                "groups": tuple(draw(st.lists(NAMES, max_size=3))),
                "maintenance": tuple(draw(st.lists(WINDOWS, max_size=3))),
                "line": draw(st.sampled_from(Line)),
                "evidence": draw(st.sampled_from(Evidence)),
            }
        )
        a, b = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        links.append(Link(name=name, a=a, b=b, capacity_bps=draw(st.integers(0, 10**15)), **given_))
    return Topology(name=draw(NAMES), nodes=nodes, links=tuple(links))


@given(topologies())
@settings(max_examples=100, deadline=None)
def test_graphml_comes_back_as_it_went(topology):
    assert import_graphml.read(import_graphml.written(topology)) == topology


@given(topologies())
@settings(max_examples=100, deadline=None)
def test_json_after_rfc_8345_comes_back_as_it_went(topology):
    assert import_rfc8345.read(import_rfc8345.written(topology)) == topology


@given(topologies(plain=True))
@settings(max_examples=60, deadline=None)
def test_sndlib_keeps_what_its_format_can_say(topology):
    demands = (
        TrafficDemand(name="d", source=topology.nodes[0].name, target=topology.nodes[-1].name, rate_bps=123_456_789),
    )
    back = import_sndlib.read(import_sndlib.written(topology, demands), name=topology.name)
    assert back.demands == demands
    assert back.topology.nodes == topology.nodes
    ends = [(link.name, link.a, link.b, link.capacity_bps) for link in topology.links]
    assert [(link.name, link.a, link.b, link.capacity_bps) for link in back.topology.links] == ends


@pytest.mark.parametrize(
    ("file", "nodes", "links", "placed"),
    [("Abilene", 11, 14, 11), ("Geant2012", 40, 61, 37), ("Cogentco", 197, 245, 186)],
)
def test_the_topology_zoo_is_read_with_duplicate_edges_and_missing_places(file, nodes, links, placed):
    topology = import_graphml.read((ZOO / f"{file}.graphml").read_bytes())
    assert (len(topology.nodes), len(topology.links)) == (nodes, links)
    assert len({link.name for link in topology.links}) == links
    assert sum(node.place is not None for node in topology.nodes) == placed
    assert {link.evidence for link in topology.links} == {Evidence.SIMULATED}  # nobody declared these delays
    assert [finding for finding in surveyed(topology) if finding.is_fatal] == []
    assert import_graphml.read(import_graphml.written(topology)) == topology


def test_places_and_stated_speeds_of_the_zoo_are_used():
    geant = import_graphml.read((ZOO / "Geant2012.graphml").read_bytes(), capacity_bps=7)
    rates = {link.capacity_bps for link in geant.links}
    assert 7 in rates
    assert max(rates) > 10**9
    abilene = import_graphml.read((ZOO / "Abilene.graphml").read_bytes())
    delays = {(link.a, link.b): link.delay_us for link in abilene.links}
    assert 7_000 < delays["New-York", "Chicago"] < 9_000  # 1145 km x 1.4 of fibre


SND = """?SNDlib native format; type: network; version: 1.0
# network tiny
META ( granularity = 5min )
NODES (
  A ( 4.35 50.85 ) # Brussels
  B ( 2.35 48.86 )
)
LINKS (
  L1 ( A B ) 0.0 0.0 0.0 1.5 ( 40.0 2.5 10.0 1.0 )
  L2 ( B A ) 9.5 0.0 0.0 1.5 ( )
)
DEMANDS (
  D1 ( A B ) 2 12.5 UNLIMITED
)
ADMISSIBLE_PATHS ( D1 ( P_0 ( L1 ) ) )
"""


def test_sndlib_modules_units_and_comments_are_understood():
    library = import_sndlib.read(SND.encode(), name="tiny")
    assert [link.capacity_bps for link in library.topology.links] == [40_000_000, 9_500_000]
    assert library.demands[0].rate_bps == 25_000_000
    assert library.topology.nodes[0].place == Place(latitude_udeg=50_850_000, longitude_udeg=4_350_000)


RFC = {
    "ietf-network:networks": {
        "network": [
            {
                "network-id": "n",
                "node": [{"node-id": "a"}, {"node-id": "b"}],
                "ietf-network-topology:link": [
                    {
                        "link-id": f"{a}-{b}",
                        "source": {"source-node": a},
                        "destination": {"dest-node": b},
                        "ietf-te-topology:te": {
                            "te-link-attributes": {
                                "max-link-bandwidth": {"te-bandwidth": {"generic": rate}},
                                "te-delay-metric": us,
                                "te-srlgs": {"value": [7]},
                            }
                        },
                    }
                    for a, b, rate, us in (("a", "b", "0x1p20", 30), ("b", "a", "125000", 40))
                ],
            }
        ]
    }
}


def test_two_arcs_of_rfc_8345_are_one_link_of_two_capacities():
    (link,) = import_rfc8345.read(json.dumps(RFC).encode()).links
    assert (link.capacity_bps, link.capacity_back_bps, link.delay_us) == (8 * 2**20, 1_000_000, 40)
    assert link.groups == ("srlg-7",)


BOMB = b"""<?xml version="1.0"?><!DOCTYPE g [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph><node id="&b;"/></graph></graphml>"""
OUTSIDE = b"""<?xml version="1.0"?><!DOCTYPE g SYSTEM "file:///etc/passwd"><graphml/>"""


def graphml(inside, keys=""):
    text = f'<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{keys}<graph id="g">{inside}</graph></graphml>'
    return text.encode()


SPEED = (
    '<key id="s" for="edge" attr.name="LinkSpeedRaw"/><key id="y" for="node" attr.name="Latitude"/>'
    '<key id="x" for="node" attr.name="Longitude"/>'
)
TWO = '<node id="a"/><node id="b"/>'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (BOMB, "document type"),
        (OUTSIDE, "document type"),
        (b"<graphml>", "not well-formed"),
        (b"", "not well-formed"),
        (b"<svg/>", "no `graph`"),
        (graphml(TWO + '<edge source="a" target="c"/>'), "ends at `c`"),
        (graphml(TWO + '<node id="a"/>'), "two nodes have the id `a`"),
        (graphml(TWO + "<hyperedge/>"), "`hyperedge` is not read"),
        (
            graphml(TWO + '<edge source="a" target="b"><data key="s">-5</data></edge>', SPEED),
            "-5 bit/s is not between",
        ),
        (graphml(TWO + '<edge source="a" target="b"><data key="s">inf</data></edge>', SPEED), "not a finite number"),
        (graphml(TWO + '<edge source="a" target="b"><data key="s">nan</data></edge>', SPEED), "not a finite number"),
        (
            graphml(TWO + '<edge source="a" target="b"><data key="s">1e30</data></edge>', SPEED),
            "1e+30 bit/s is not between",
        ),
        (graphml('<node id="a"><data key="y">91</data><data key="x">0</data></node>', SPEED), "no place on Earth"),
        (graphml("<node id='a'><graph>" + "</graph></node>"), "more than one graph"),
        (graphml("<data>" * 9 + "</data>" * 9), "nested deeper than 8"),
        (graphml('<node id="a"><data key="y">' + "1" * 70_000 + "</data></node>", SPEED), "more than 65536 letters"),
    ],
)
def test_hostile_graphml_is_refused_with_the_place_and_the_number(content, says):
    with pytest.raises(TielineError, match=says.replace("+", r"\+")) as caught:
        import_graphml.read(content)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("?SNDlib", "SNDlib", "does not begin with"),
        ("L1 ( A B )", "L1 ( A Z )", "ends at `Z`"),
        ("L1 ( A B )", "L1 ( A )", "brackets hold two words"),
        ("9.5 0.0", "-9.5 0.0", "is not between"),
        ("9.5 0.0", "NaN 0.0", "not a finite number"),
        ("B ( 2.35", "A ( 2.35", "two nodes are named `A`"),
        ("DEMANDS (", "NODES (", "section NODES occurs twice"),
        ("UNLIMITED\n)", "UNLIMITED\n", "the file ends"),
        ("( P_0 ( L1 ) )", "( ( ( ( ( P ) ) ) ) )", "nested deeper than 4"),
        ("META (", "meta (", "a section is expected"),
    ],
)
def test_hostile_sndlib_is_refused_with_the_place_and_the_number(was, now, says):
    assert was in SND
    with pytest.raises(TielineError, match=says) as caught:
        import_sndlib.read(SND.replace(was, now).encode())
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ('"0x1p20"', '"0x1p2000"', "no bandwidth"),
        ('"0x1p20"', '"-4"', "not a finite positive number"),
        ('"0x1p20"', '"much"', "no bandwidth"),
        ('"0x1p20"', "1e20", "is not between"),
        ('"te-delay-metric": 30', '"te-delay-metric": -1', "breaks a bound"),
        ('"te-delay-metric": 30', '"te-delay-metric": "soon"', "whole number of us"),
        ('"dest-node": "b"', '"dest-node": "c"', "ends at `c`"),
        ('"node-id": "b"', '"node-id": "a"', "two nodes have the id `a`"),
        ('"node-id": "b"', '"node-id": 3', "a text that is not empty"),
        ('"network-id"', '"network-name"', "`network-id` is a text"),
        ('"network": [', '"network": [4, ', "a list of objects"),
        ('"network": [', '"network": [{"network-id": "m"}, ', "holds 2 networks"),
        ('{"ietf', '{"' + "x", "an object is expected"),
        ('{"ietf', "[" * 100_000, "not JSON"),
    ],
)
def test_hostile_json_is_refused_with_the_place_and_the_number(was, now, says):
    text = json.dumps(RFC)
    assert was in text
    with pytest.raises(TielineError, match=says) as caught:
        import_rfc8345.read(text.replace(was, now, 1).encode())
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("read", [import_graphml.read, import_sndlib.read, import_rfc8345.read])
def test_files_that_are_too_large_are_not_looked_at(read, monkeypatch):
    monkeypatch.setattr(import_values, "MOST_BYTES", 10)
    with pytest.raises(TielineError) as caught:
        read(b"x" * 11)
    assert caught.value.code == "too_large"


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_damaged_files_are_read_or_refused_and_nothing_else(noise, at, cut):
    for read, whole in (
        (import_graphml.read, graphml(TWO + '<edge source="a" target="b"><data key="s">10</data></edge>', SPEED)),
        (import_sndlib.read, SND.encode()),
        (import_rfc8345.read, json.dumps(RFC).encode()),
    ):
        with suppress(TielineError):
            assert read(whole[:at] + noise + whole[at + cut :])
