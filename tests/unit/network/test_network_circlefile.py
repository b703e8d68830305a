"""Files of circles: what people write becomes integers, anything else is refused whole; maps stand for themselves."""

import xml.etree.ElementTree as ET

import msgspec
import pytest
from test_network_circle import NOW, measure, reading

from tieline.model.circle import AccessPoint, Bound, SitePlace
from tieline.model.error import TielineError
from tieline.model.improvement import CandidateKind
from tieline.network.circlefile import candidates_of, plan_of, points_of, readings_of, sha256_of
from tieline.network.coverage import coverage_of
from tieline.network.coveragemap import drawn
from tieline.network.improve import improved

CSV = b"point,weight,region,latitude,longitude\npudong-1,1200,\xe6\xb5\xa6\xe4\xb8\x9c,31.22,121.54\nxuhui-1,,,-0.5,\n"
PUDONG = AccessPoint(point="pudong-1", weight=1200, region="浦东", latitude_udeg=31_220_000, longitude_udeg=121_540_000)


def test_points_are_read_from_csv_json_and_yaml_alike():
    assert points_of(CSV, "f") == (PUDONG, AccessPoint(point="xuhui-1", latitude_udeg=-500_000))
    row = "point: pudong-1, weight: 1200, region: 浦东, latitude: 31.22, longitude: 121.54"
    assert points_of(f"points:\n- {{{row}}}\n".encode(), "f") == (PUDONG,)
    row = '"point": "pudong-1", "weight": 1200, "region": "浦东", "latitude": 31.22, "longitude": 121.54'
    assert points_of(f"[{{{row}}}]".encode(), "f") == (PUDONG,)
    assert points_of(msgspec.json.encode([PUDONG]), "f") == (PUDONG,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 documents"),
        (b"point,weight\n", "0 points"),
        (b"point,weigth\np,3\n", "column `weigth`"),
        (b"point,point\np,3\n", "there twice"),
        (b"point,weight\np,3,4\n", "line 2 has 3 cells"),
        (b"point,weight\np,-3\n", "row 1.*>= 0"),
        (b"point,weight\np,1.5\n", "row 1"),
        (b"point,latitude\np,NaN\n", "no number of degrees"),
        (b"point,latitude\np,95\n", "<= 90000000"),
        (b"point,latitude\np,1_0\n", "latitude"),
        (b'point,weight\n"p,3\n', "no CSV"),
        (b"point,weight\n\xff,3\n", "not UTF-8"),
        (b"point,weight\na b,3\n", "row 1.*matching regex"),
        (b"{}", "no list of points"),
        (b"[1]", "row 1"),
        (b'[{"point": "p", "latitude": 1, "latitude_udeg": 1}]', "says the same"),
        (b"[" * 5_000, "not JSON"),
        (b"a: &a [1]\nb: *a\n", "neither CSV"),
    ],
)
def test_points_that_cannot_be_are_refused_with_their_place(content, said):
    with pytest.raises(TielineError, match=said):
        points_of(content, "f")


CANDIDATES = b"""
assumptions: {detour: 1.5, access: 0.4ms}
candidates:
- {name: edge, kind: site, cost: 900000, latitude: 31.2, longitude: 121.5, reaches: {pudong-1: 0.8ms}}
- {name: ring, kind: link, cost: 50 fen, a: n1, b: n2, delay: 120us}
- {name: cards, kind: upgrade, cost: 5 CNY, site: cn.sh/site/a, saves: 200us}
"""


def test_candidates_say_costs_times_and_places_with_their_units():
    read = candidates_of(CANDIDATES, "f")
    edge, ring, cards = read.candidates
    assert (read.assumptions.detour_permille, read.assumptions.access_us) == (1_500, 400)
    assert (edge.cost_micro_cny, edge.latitude_udeg, edge.reaches_us) == (
        900_000_000_000,
        31_200_000,
        {"pudong-1": 800},
    )
    assert (ring.kind, ring.cost_micro_cny, ring.delay_us) == (CandidateKind.LINK, 500_000, 120)
    assert (cards.saves_us, cards.site) == (200, "cn.sh/site/a")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"candidates: [{name: x, kind: tower, cost: 1}]", "tower"),
        (b"candidates: [{name: x, kind: site, cost: -1}]", "-1"),
        (b"candidates: [{name: x, kind: site, cost: inf}]", "inf"),
        (b"candidates: [{name: x, kind: site}]", "cost_micro_cny"),
        (b"candidates: [{name: x, kind: site, cost: 1, colour: red}]", "colour"),
        (b"candidates: [{name: x, kind: site, cost: 1, reaches: [1]}]", "mapping of points"),
        (b"candidates: [{name: x, kind: site, cost: 1, reaches: {p: 3 light-years}}]", "light-years"),
        (b"assumptions: {detour: 0.5}\ncandidates: []", ">= 1000"),
        (b"a: [", "line 2"),
    ],
)
def test_candidates_that_cannot_be_are_refused(content, said):
    with pytest.raises(TielineError) as refused:
        candidates_of(content, "f")
    assert said in refused.value.message + "".join(str(reason.values) for reason in refused.value.reasons)


def test_readings_come_alone_in_lines_or_with_the_answer_that_names_them():
    found = (reading(900, source="cn.sh/site/a", target="p"), reading(800, source="cn.sh/site/b", target="p"))
    lines = b"\n".join(msgspec.json.encode(each) for each in found)
    for content in (lines, msgspec.json.encode(found)):
        read = readings_of(content, "f")
        assert (read.readings, [site.site for site in read.sites]) == (found, ["cn.sh/site/a", "cn.sh/site/b"])
        assert read.as_of_ms == NOW - 1_000
    seen = coverage_of([AccessPoint(point="p")], [SitePlace(site="cn.sh/site/a")], found, measure(), NOW)
    for content in (msgspec.json.encode(seen), msgspec.json.format(msgspec.json.encode(seen))):
        read = readings_of(content, "f")
        assert (read.readings, read.sites, read.as_of_ms) == (seen.readings, seen.sites, NOW)
    for content in (b"{}", b"[1]", b"\xff", b"[" * 5_000, b'{"source": 1}'):
        with pytest.raises(TielineError, match="neither a coverage"):
            readings_of(content, "f")


def test_a_plan_reads_back_as_it_was_written():
    import yaml

    asked = points_of(CSV.replace(b"-0.5", b""), "f")
    read = candidates_of(CANDIDATES.replace(b"- {name: ring", b"#"), "f")
    seen = coverage_of(asked, [], [], measure(), NOW)
    plan = improved(seen, read.candidates, target_ppm=900_000, assumptions=read.assumptions)
    written = yaml.safe_dump(msgspec.to_builtins(plan), sort_keys=False, allow_unicode=True).encode()
    assert plan_of(written, "f") == plan
    assert sha256_of(asked) == sha256_of(tuple(asked)) != sha256_of(asked[:1])


def seen_of(*places, region="<b>&浦东", site_at=(1, 2)):
    asked = [
        AccessPoint(point=f"p{n}", region=region, weight=n + 1, latitude_udeg=a, longitude_udeg=b)
        for n, (a, b) in enumerate(places)
    ]
    return coverage_of(
        asked, [SitePlace(site="s<&\x07", latitude_udeg=site_at[0], longitude_udeg=site_at[1])],
        [reading(1_600, source="s<&\x07", target="p0")], measure(bound=Bound.ONE_WAY), NOW,
    )  # fmt: skip


@pytest.mark.parametrize(
    "places",
    [
        [(31_220_000, 121_540_000)],
        [(10_000_000, 179_900_000), (-10_000_000, -179_900_000)],
        [(90_000_000, 0), (-90_000_000, 180_000_000), (0, -90_000_000)],
        [(None, None)],
        [(31_220_000, 121_540_000)] * 30,
    ],
)
def test_a_map_is_one_sound_file_with_every_point_inside_its_frame(places):
    seen = seen_of(*places)
    drawing = drawn(seen)
    root = ET.fromstring(drawing)
    assert drawn(seen) == drawing
    assert "prefers-color-scheme:dark" in drawing
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    shapes = [each for each in root.iter() if each.tag.endswith("circle")]
    assert all(0 <= float(each.attrib["cx"]) <= width and 0 <= float(each.attrib["cy"]) <= height for each in shapes)
    said = "".join(root.itertext())
    assert "<b>&浦东" in said
    assert ("without a place, not drawn: 1" in said) == (places[0][0] is None)


def test_a_map_across_the_date_line_is_as_narrow_as_it_is_there():
    root = ET.fromstring(
        drawn(seen_of((10_000_000, 179_900_000), (-10_000_000, -179_900_000), site_at=(0, 179_950_000)))
    )
    across = [float(each.attrib["cx"]) for each in root.iter() if each.attrib.get("class") in ("unknown", "estimated")
              and "cy" in each.attrib and float(each.attrib["cy"]) < 540]  # fmt: skip
    assert max(across) - min(across) < 10
