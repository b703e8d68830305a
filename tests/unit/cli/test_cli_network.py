"""`tieline network`: topologies in and out, what is wrong with a file, plans, cuts."""

import json
from xml.etree import ElementTree as ET

import pytest
from api_world import ADMIN

from tieline.cli.calendar_svg import drawn as calendar_picture
from tieline.cli.network_svg import drawn
from tieline.model.booking_api import CalendarView, LinkBooked
from tieline.model.network_api import TopologyView
from tieline.model.party import Role
from tieline.model.topology import Link, Node, Place, Topology

SVG = "{http://www.w3.org/2000/svg}"

RING = """\
name: ring
nodes:
  - {name: east, site: cn.demo.lab7/site/gz1}
  - {name: north}
  - {name: west}
  - {name: south}
links:
  - {name: e-n, a: east, b: north, capacity: 10Gbit/s, delay: 1ms, owner: cn.a}
  - {name: n-w, a: north, b: west, capacity: 10Gbit/s, delay: 1ms}
  - {name: w-s, a: west, b: south, capacity: 4Gbit/s, delay: 2ms, price_per_gb: 0.02}
  - {name: s-e, a: south, b: east, capacity: 4Gbit/s, capacity_back: 2Gbit/s, delay: 2ms}
"""
DEMANDS = """\
demands:
  - {from: cn.demo.lab7/site/gz1, to: west, rate: 6Gbit/s, class: protected, latency: 2ms, name: line}
  - {from: east, to: west, rate: 8Gbit/s}
  - {from: west, to: east, rate: 3Gbit/s, weight: 2}
classes:
  protected: {split: no}
  best_effort: {fair: yes}
"""


def data(done):
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def operator(exchange, call):
    call("login", exchange.url, "--token", ADMIN, "--name", "admin")
    call("login", exchange.url, "--token", exchange.token("owen", Role.OPERATOR), "--name", "owen")
    return lambda *args, **more: call("-x", "owen", *args, **more)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "ring.yaml").write_text(RING)
    (tmp_path / "demands.yaml").write_text(DEMANDS)
    return tmp_path


def test_a_topology_goes_in_is_planned_over_cut_and_comes_out_in_each_form(operator, files):
    made = operator("network", "import", files / "ring.yaml", "--why", "first")
    assert made.exit_code == 0, made.stderr
    assert made.stderr.startswith("ring: 4 nodes, 4 links, 0 down\nhint: tieline network show\n")
    shown = operator("network", "show").stdout.splitlines()
    assert shown[3] == "s-e\tsouth - east\t4 Gbit/s / 2 Gbit/s\t2 ms\t-\tup\tdeclared"
    plan = data(operator("network", "plan", "--demands", files / "demands.yaml", "--json"))
    assert [each["carried_bps"] for each in plan["demands"]] == [6 * 10**9, 6 * 10**9, 3 * 10**9]
    (path,) = plan["demands"][0]["paths"]
    assert (path["links"], path["delay_us"], path["rate_bps"]) == (["e-n", "n-w"], 2_000, 6 * 10**9)
    cut = operator("network", "cut", "e-n", "--why", "a digger")
    assert (cut.exit_code, cut.stderr) == (0, "ring: 4 nodes, 4 links, 1 down\n")
    assert "e-n\teast - north\t10 Gbit/s\t1 ms\tcn.a\tdown\tdeclared" in operator("network", "show").stdout
    less = data(operator("network", "plan", "--demands", files / "demands.yaml", "--json"))
    assert [each["carried_bps"] for each in less["demands"]] == [0, 2 * 10**9, 3 * 10**9]
    assert data(operator("network", "restore", "e-n", "--json"))["down"] == []
    for form in ("tieline", "graphml", "rfc8345"):
        written = operator("network", "show", "--as", form).stdout
        (files / f"out.{form}").write_text(written)
        again = operator("network", "import", files / f"out.{form}", "--json")
        assert data(again)["link_count"] == 4
        assert operator("network", "show", "--json").stdout == operator("network", "show", "--json").stdout
    topology = data(operator("network", "show", "--json"))["topology"]
    assert (topology["name"], topology["links"][2]["price_micro_cny_per_gb"]) == ("ring", 20_000)
    refused = operator("network", "show", "--as", "sndlib")
    assert refused.exit_code == 2  # it has no word for two capacities of one link


def test_a_plan_of_a_file_says_what_a_cut_does(call, files):
    done = call("network", "plan", "--demands", files / "demands.yaml", "--topology", files / "ring.yaml",
                "--cut", "e-n", "--json")  # fmt: skip
    cut = data(done)["cut"]
    assert (cut["untouched_bps"], cut["refilled_bps"], cut["replanned_bps"]) == (2 * 10**9, 5 * 10**9, 5 * 10**9)
    told = call(
        "network", "plan", "--demands", files / "demands.yaml", "--topology", files / "ring.yaml", "--cut", "e-n"
    )
    assert "after the cut of e-n: 2 Gbit/s carried untouched, 5 Gbit/s after the first repair" in told.stderr
    assert (
        "steps to the new plan: 1, none of which overloads a link; at least 5 Gbit/s is carried meanwhile"
        in told.stderr
    )
    assert "line\tprotected\t6 Gbit/s\t6 Gbit/s\t6 Gbit/s east > north > west\n" in told.stdout
    zh = call("--lang", "zh", "network", "plan", "--demands", "-", "--topology", files / "ring.yaml", text=DEMANDS)
    assert "尽力而为：承载 9 Gbit/s" in zh.stderr


TRADE = """\
demands:
  - {from: a, to: c, rate: 6Gbit/s, name: big}
  - {from: a, to: b, rate: 5Gbit/s, name: small}
classes:
  best_effort: {split: no}
"""


def test_a_plan_names_the_whole_demands_that_stop_while_others_take_their_place(call, tmp_path):
    # Two full ways, as good for either demand: the new plan has them trade, so one must leave before the other comes.
    (tmp_path / "net.yaml").write_text(
        "name: t\nnodes: [{name: a}, {name: b}, {name: c}]\nlinks:\n"
        "  - {name: ab, a: a, b: b, capacity: 8Gbit/s, delay: 1ms}\n"
        "  - {name: bc, a: b, b: c, capacity: 8Gbit/s, delay: 1ms}\n"
        "  - {name: ac, a: a, b: c, capacity: 8Gbit/s, delay: 9ms}\n"
        "  - {name: over, a: a, b: c, capacity: 1Gbit/s, delay: 1ms}\n"
    )
    (tmp_path / "demands.yaml").write_text(TRADE)
    plain = ("network", "plan", "--demands", tmp_path / "demands.yaml", "--topology", tmp_path / "net.yaml")
    cut = data(call(*plain, "--cut", "over", "--json"))["cut"]
    assert (cut["stopped"], cut["steps"], cut["least_bps"]) == (["small"], 2, 6 * 10**9)
    told = call(*plain, "--cut", "over").stderr
    assert "steps to the new plan: 2" in told
    assert "no room for the old and the new path at once, stopped in between: small" in told


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (RING, 0, "ring is sound: 4 nodes, 4 links"),
        (RING.replace("b: west", "b: north"), 1, "fault\tself_loop"),
        (RING[: RING.index("  - {name: s-e")], 0, "weak\tbridge\ta cut of link `e-n` alone splits the network"),
        (RING.replace("delay: 2ms}", "delay: 2ms, speed: 4}"), 2, "at `links[3]`: object contains unknown field"),
        (RING.replace("4Gbit/s, cap", "4Gbit/s, capacity_bps: 3, cap"), 2, "says the same as `capacity_bps`"),
        (RING.replace("10Gbit/s, delay: 1ms, o", "-1Gbit/s, delay: 1ms, o"), 2, "`-1Gbit/s` is not a number"),
        (RING.replace("10Gbit/s, delay: 1ms, o", "inf, delay: 1ms, o"), 2, "`inf` is not a number"),
        ("nodes: [a", 2, "not closed"),
        ("- 1", 2, "is no topology"),
        ("nodes: &a [*a]", 2, "names no anchor"),
        ("<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><graphml/>", 2, "document type"),
        ('{"nodes": ' + "[" * 100_000, 2, "is not JSON"),
        ("", 2, "holds 0 documents"),
    ],
)
def test_check_says_what_is_wrong_or_weak_and_touches_nothing(call, tmp_path, text, code, said):
    (tmp_path / "it.yaml").write_text(text)
    done = call("network", "check", tmp_path / "it.yaml")
    assert done.exit_code == code, done.output
    assert said in done.output


def test_a_user_may_look_and_plan_and_not_change(exchange, operator, call, files):
    operator("network", "import", files / "ring.yaml")
    call("login", exchange.url, "--token", exchange.token("ann", Role.USER), "--name", "ann")
    for words in (("import", files / "ring.yaml"), ("cut", "e-n"), ("restore", "e-n")):
        done = call("-x", "ann", "network", *words)
        assert (done.exit_code, "needs the role admin or operator" in done.stderr or "role" in done.stderr) == (4, True)
    assert call("-x", "ann", "network", "plan", "--demands", files / "demands.yaml").exit_code == 0
    wrong = call("-x", "ann", "network", "plan", "--demands", "-", text="demands: [{from: a, to: east, rate: 1bps}]")
    assert (wrong.exit_code, "`a` is no node of `ring` and no site at one" in wrong.stderr) == (2, True)
    missing = call("-x", "ann", "network", "plan", "--demands", files / "none.yaml")
    assert missing.exit_code == 2


NAMES = "<script>alert('x')</script>&amp;\"-->" + "&" * 60  # fits in a name, and is cut where it is drawn


def test_a_map_shows_capacity_load_and_cuts_and_harms_no_reader(operator, files):
    ring = RING.replace("name: north}", "name: north, place: {latitude_udeg: 31000000, longitude_udeg: 121000000}}")
    (files / "it.yaml").write_text(ring.replace("name: ring", f"name: {json.dumps(NAMES)}").replace("s-e", "'s<e'"))
    operator("network", "import", files / "it.yaml")
    operator("network", "cut", "n-w")
    made = operator("circuit", "order", "east", "north", "9.5Gbit/s")
    done = operator("network", "show", "--svg", files / "map.svg")
    assert (done.exit_code, "4 nodes, 4 links" in done.stderr) == (0, True), done.stderr
    text = (files / "map.svg").read_text()
    assert "<script" not in text
    root = ET.fromstring(text)
    titles = {each.findtext(f"{SVG}title"): each for each in root.iter(f"{SVG}g")}
    (held,) = (each for said, each in titles.items() if said.startswith("e-n;"))
    assert "9.5 Gbit/s of 10 Gbit/s booked (95 %)" in held.findtext(f"{SVG}title")
    assert held.find(f"{SVG}path").get("class") == "link full"
    wide = {said.split(";")[0]: float(each.find(f"{SVG}path").get("stroke-width")) for said, each in titles.items()
            if each.find(f"{SVG}path") is not None}  # fmt: skip
    assert wide["e-n"] == 6.0 > wide["s<e"]  # 10 Gbit/s against 4
    (cut,) = (each for said, each in titles.items() if said.startswith("n-w;"))
    assert cut.find(f"{SVG}path").get("class") == "link down"
    assert "drawn on a circle" in text  # three of four have no place
    zh = operator("--lang", "zh", "network", "show", "--svg", files / "zh.svg")
    assert (zh.exit_code, "断开" in (files / "zh.svg").read_text()) == (0, True)
    operator("circuit", "cancel", made.stdout.strip(), "-y")
    operator("network", "restore", "n-w")


def test_a_map_is_true_to_places_the_same_every_time_and_bends_what_lies_over_each_other():
    def node(name, latitude, longitude):
        place = Place(latitude_udeg=int(latitude * 1e6), longitude_udeg=int(longitude * 1e6))
        return Node(name=name, place=place)

    nodes = (node("west", 0, 179), node("east", 0, -179), node("north", 1, 179))
    links = tuple(Link(name=f"{at}", a=a, b=b, capacity_bps=10**9) for at, (a, b) in enumerate(
        (("west", "east"), ("east", "west"), ("west", "east"), ("north", "east"))))  # fmt: skip
    found = TopologyView(topology=Topology(name="sea", nodes=nodes, links=links), down=())
    text = drawn(found)
    assert text == drawn(found)
    root = ET.fromstring(text)
    at = {each.findtext(f"{SVG}title"): each.find(f"{SVG}circle") for each in root.iter(f"{SVG}g")}
    x, y = ({name: float(at[name].get(which)) for name in ("west", "east", "north")} for which in ("cx", "cy"))
    assert x["west"] == x["north"] < x["east"]  # over the date line
    assert y["north"] < y["west"] == y["east"]
    assert x["east"] - x["west"] == pytest.approx(2 * (y["west"] - y["north"]), rel=1e-3)
    lines = [each.find(f"{SVG}path") for each in root.iter(f"{SVG}g") if each.find(f"{SVG}path") is not None]
    assert len({line.get("d") for line in lines}) == 4
    assert {line.get("class") for line in lines} == {"link"}  # nothing is said of load where it is not known
    for empty in (Topology(name="none"), Topology(name="one", nodes=nodes[:1])):
        ET.fromstring(drawn(TopologyView(topology=empty, down=())))


def test_a_name_that_is_cut_in_the_calendars_picture_leaves_it_whole():
    for letters in range(40, 60):
        booked = LinkBooked(
            link="l" * letters + "&<",
            a="a",
            b="b",
            capacity_bps=(1,),
            circuit_bps=(0,),
            transfer_bps=(0,),
            free_bps=(1,),
        )
        root = ET.fromstring(calendar_picture(CalendarView(from_ms=0, column_ms=1, slot_ms=1, links=(booked,))))
        assert f"{'l' * letters}&<: a > b"[:60] in [each.text for each in root.iter(f"{SVG}text")]
