"""Circles over HTTP: what sites measured decides, places have several names, and bad questions are refused."""

import msgspec
import pytest

from tieline.exchange.commands import ChangePoints, TakeReadings
from tieline.model.circle import AccessPoint, CoverageView
from tieline.model.party import Role
from tieline.model.reading import Method, Point, Reading, ReadingBatch
from tieline.network.coverage import coverage_of

WITHIN = {"within_us": 1_000}
NODES = [
    {"name": "east", "place": {"latitude_udeg": 31_230_000, "longitude_udeg": 121_470_000}},
    {"name": "west", "place": {"latitude_udeg": 31_330_000, "longitude_udeg": 121_470_000}},
]
LINKS = [{"name": "l", "a": "east", "b": "west", "capacity_bps": 10**9, "delay_us": 100}]


@pytest.fixture
def known(world):
    """Two sites, one of them with compute, that measured two points; readings as a session would bring them."""
    if not hasattr(world, "circle_sites"):
        world.circle_sites = [world.site("lab8", "near"), world.site("lab8b", "far")]
    near, far = (site.id for site in world.circle_sites)
    now_ms = world.clock.now_ms()
    nodes = [{**NODES[0], "site": near}, NODES[1]]
    topology = {"name": "metro", "nodes": nodes, "links": LINKS}
    answer = world.as_("owen", Role.OPERATOR).post("/v1/network/topology", json={"topology": topology})
    assert answer.status_code == 200, answer.text
    world.do(ChangePoints(put=(Point(name="p1", region="a"), Point(name="west", region="b"))))
    world.circle_seq = getattr(world, "circle_seq", 0) + 1
    for site, found in ((near, {"p1": 800, "west": 1_300}), (far, {"p1": 1_500, "west": 700})):
        batch = tuple(
            Reading(source=site, target=target, method=Method.TCP, count=10, sent=10, min_us=us, p50_us=us, p99_us=us,
                    begun_ms=now_ms - 900, ended_ms=now_ms - 1)
            for target, us in found.items()
        )  # fmt: skip
        taken = ReadingBatch(site=site, seq=world.circle_seq, at_ms=now_ms, readings=batch)
        assert world.do(TakeReadings(site=site, batch=taken)).refuted == ()
    return near, far


def test_a_circle_tells_inside_outside_and_unknown_with_the_readings(world, known):
    near, far = known
    ann = world.as_("ann", Role.USER)
    made = ann.post("/v1/circles", json={"place": "p1", "measure": WITHIN})
    assert made.status_code == 200, made.text
    circle = made.json()
    assert [each["site"] for each in circle["inside"]] == [near]
    assert far in [each["site"] for each in circle["outside"]]
    inside = circle["inside"][0]
    assert (inside["p50_us"], inside["there_us"], inside["back_us"], inside["one_way"]) == (800, 400, 400, "half")
    assert inside["readings"][0]["target"] == "p1"
    west = ann.post("/v1/circles", json={"place": "west", "measure": WITHIN}).json()
    assert [each["site"] for each in west["inside"]] == [far]
    east = ann.post("/v1/circles", json={"place": "east", "measure": WITHIN}).json()
    assert [each["why"]["code"] for each in east["inside"]] == ["circle_itself"]  # the node is where the site is
    assert {each["why"]["code"] for each in east["unknown"]} == {"circle_no_reading"}


def test_coverage_by_region_can_be_computed_again_by_anybody(world, known):
    points = [{"point": "p1", "weight": 3, "region": "a"}, {"point": "west", "weight": 1, "region": "b"}]
    body = {"measure": WITHIN, "points": points, "target_ppm": 750_000}
    answer = world.as_("ann", Role.USER).post("/v1/circles/coverage", json=body)
    assert answer.status_code == 200, answer.text
    seen = msgspec.json.decode(answer.content, type=CoverageView)
    assert seen.whole.weight == 4
    assert [each.region for each in seen.regions] == ["a", "b"]
    asked = msgspec.convert(points, tuple[AccessPoint, ...])
    again = coverage_of(asked, seen.sites, seen.readings, seen.measure, seen.as_of_ms, seen.target_ppm, seen.idle)
    assert again == seen
    by_itself = world.as_("ann", Role.USER).post("/v1/circles/coverage", json={"measure": WITHIN}).json()
    assert {each["point"] for each in by_itself["points"]} >= {"p1", "west"}  # the reference points


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("", {"place": "shanghay", "measure": WITHIN}, 404, "no site, reference point or node"),
        ("", {"place": "p1", "measure": {"within_us": 0}}, 400, ">= 1"),
        ("", {"place": "p1", "measure": {**WITHIN, "bound": "one_way", "quantile": "p99"}}, 400, "medians"),
        ("", {"place": "a b", "measure": WITHIN}, 400, "regex"),
        ("/coverage", {"measure": WITHIN, "target_ppm": 1_000_001}, 400, "<= 1000000"),
        ("/coverage", {"measure": WITHIN, "points": [{"point": "p"}, {"point": "p"}]}, 400, "twice"),
        ("/coverage", {"measure": WITHIN, "points": [{"point": "p", "weight": -1}]}, 400, ">= 0"),
        ("/coverage", {"measure": WITHIN, "points": [{"point": "p", "latitude_udeg": 1}]}, 400, "both"),
    ],
)
def test_a_bad_question_is_refused_with_what_is_wrong(world, known, path, body, status, said):
    answer = world.as_("ann", Role.USER).post(f"/v1/circles{path}", json=body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["message"]
