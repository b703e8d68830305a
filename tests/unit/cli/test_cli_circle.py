"""`tieline circle`: by a file of readings or by an exchange, in both languages, and plans that check themselves."""

import json
from pathlib import Path

import pytest
from api_world import ADMIN

from tieline.exchange.commands import ChangePoints, TakeReadings
from tieline.model.reading import Method, Point, Reading, ReadingBatch

FILES = Path(__file__).parents[3] / "examples" / "circles"
POINTS, READINGS, CANDIDATES = (FILES / name for name in ("points.csv", "readings.jsonl", "candidates.yaml"))
COVERAGE = ("circle", "coverage", "--points", POINTS, "--readings", READINGS)
IMPROVE = ("circle", "improve", "--points", POINTS, "--readings", READINGS, "--candidates", CANDIDATES)


@pytest.fixture
def few(tmp_path):
    """One candidate, which reaches one point."""
    file = tmp_path / "few.yaml"
    file.write_text("candidates:\n- {name: edge, kind: site, cost: 5, reaches: {minhang-1: 0.9ms}}\n")
    return file


def test_a_circle_prints_round_trip_and_both_directions_and_says_what_is_an_estimate(call):
    done = call("circle", "--of", "xuhui-1", "--within", "1ms", "--readings", READINGS)
    assert done.exit_code == 0, done.stderr
    inside, outside = (line.split("\t") for line in done.stdout.splitlines())
    assert inside[:5] == ["cn.sh.edge2/site/b", "inside", "640 us / 730 us / 1.5 ms", "~365 us", "~365 us"]
    assert outside[1] == "outside"
    assert "1 ms round trip (p50): 1 inside, 1 outside, 0 unknown" in done.stderr
    assert "estimate: half of the round trip" in done.stderr
    one_way = call("circle", "--of", "minhang-1", "--one-way", "--readings", READINGS)
    assert [line.split("\t")[1] for line in one_way.stdout.splitlines()] == ["estimate", "estimate"]
    assert "2 of them inside by estimate only" in one_way.stderr
    unknown = call("circle", "--of", "chongming-1", "--readings", READINGS, "--json")
    assert [each["why"]["code"] for each in json.loads(unknown.stdout)["unknown"]] == ["circle_no_reading"] * 2


def test_a_coverage_is_a_table_a_map_and_json_that_gives_itself_again(call, tmp_path):
    drawing, kept = tmp_path / "map.svg", tmp_path / "seen.json"
    done = call(*COVERAGE, "--map", drawing)
    assert done.stdout.splitlines()[-1].split("\t") == ["all", "5", "4,000", "2,900", "0", "700", "400", "72.50 %"]
    assert "75.00 % is the target: not reached" in done.stderr
    assert "10.00 % is unknown and counts as not covered" in done.stderr
    assert drawing.read_text().startswith("<svg")
    chinese = call("--lang", "zh", *COVERAGE, "--map", drawing)
    assert "目标 75.00 %：未达到" in chinese.stderr
    assert "往返" in drawing.read_text()
    whole = call(*COVERAGE, "--json").stdout
    kept.write_text(whole)
    again = call("circle", "coverage", "--points", POINTS, "--readings", kept, "--json")
    assert again.stdout == whole
    assert call(*COVERAGE, "--every").stdout.splitlines()[4].split("\t")[:4] == [
        "chongming-1",
        "chongming",
        "400",
        "unknown",
    ]


def test_a_plan_is_a_file_that_is_checked_by_counting_again(call, tmp_path):
    plan = tmp_path / "plan.yaml"
    made = call(*IMPROVE, "--to", "75%", "--out", plan)
    assert made.exit_code == 0, made.stderr
    assert made.stdout == "edge-minhang\tsite\t900,000.00\t700\n"
    assert "nothing that covers as much costs less: proven" in made.stderr
    assert "expected, not measured" in made.stderr
    held = call(*IMPROVE, "--check", plan)
    assert (held.exit_code, "the plan holds" in held.stderr) == (0, True), held.stderr
    plan.write_text(plan.read_text().replace("cost_micro_cny: 900000000000", "cost_micro_cny: 800000000000"))
    wrong = call(*IMPROVE, "--check", plan)
    assert wrong.exit_code == 1
    assert "`edge-minhang` costs 900,000.00 CNY, the plan says 800,000.00 CNY" in wrong.stderr
    plan.write_text(plan.read_text().replace("name: edge-minhang", "name: castle"))
    assert "`castle` is no candidate any more" in call(*IMPROVE, "--check", plan).stderr


def test_a_plan_of_other_readings_is_counted_by_those_of_now(call, few, tmp_path):
    plan, fewer = tmp_path / "plan.yaml", tmp_path / "fewer.jsonl"
    improve = ("circle", "improve", "--points", POINTS, "--candidates", few)
    assert call(*improve, "--readings", READINGS, "--out", plan).exit_code == 0
    fewer.write_text("\n".join(READINGS.read_text().splitlines()[1:]))
    done = call(*improve, "--readings", fewer, "--check", plan)
    assert done.exit_code == 1
    assert "the readings are not those that the plan was made from" in done.stderr
    assert "60.00 % are expected, and 75.00 % is the target" in done.stderr
    fewer.write_text("\n".join(READINGS.read_text().splitlines()[:-1]))
    assert "the plan still holds" in call(*improve, "--readings", fewer, "--check", plan).stderr


def test_a_budget_is_an_aim_of_its_own(call):
    done = call(*IMPROVE, "--budget", "2300000", "--json")
    plan = json.loads(done.stdout)
    assert (plan["expected_ppm"], plan["gap_ppm"], plan["cost_micro_cny"]) == (1_000_000, 0, 2_300_000_000_000)
    assert plan["evidence"] == "simulated"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("circle",), 2, "a circle is of a place"),
        (("circle", "--within", "2ms", "coverage"), 2, "--within belongs after `coverage`"),
        (("circle", "--of", "p", "--one-way", "improve", "--candidates", CANDIDATES), 2, "belongs after `improve`"),
        (("circle", "--of", "p", "--within", "0ms", "--readings", READINGS), 2, "`0ms` is no time above zero"),
        (("circle", "--of", "p", "--within", "soon", "--readings", READINGS), 2, "`soon` is not a number"),
        (("circle", "--of", "p", "--one-way", "--quantile", "p99", "--readings", READINGS), 2, "medians"),
        (("circle", "coverage", "--readings", READINGS), 2, "no access points"),
        ((*COVERAGE, "--to", "175%"), 2, "175%"),
        ((*IMPROVE, "--to", "75%", "--budget", "3"), 2, "not both"),
        ((*IMPROVE, "--budget", "much"), 2, "`much` is not a number"),
        (("circle", "coverage", "--points", "/nowhere", "--readings", READINGS), 1, "/nowhere"),
        (("circle", "coverage", "--points", CANDIDATES, "--readings", READINGS), 2, "list of points"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(call, words, code, said):
    done = call(*words)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr


def test_a_target_beyond_all_candidates_has_no_feasible_answer(call, few):
    done = call("circle", "improve", "--points", POINTS, "--readings", READINGS, "--candidates", few, "--to", "95%")
    assert done.exit_code == 3
    assert "95.00 % are asked, and with all 1 candidates 90.00 % are covered" in done.stderr


def test_an_exchange_answers_from_what_its_sites_measured(call, exchange, few, tmp_path):
    call("login", exchange.url, "--token", ADMIN)
    site, now_ms = exchange.toy.site.id, exchange.clock.now_ms()
    exchange.do(ChangePoints(put=(Point(name="metro-1", region="metro"), Point(name="metro-2", region="metro"))))
    times = {"count": 9, "sent": 9, "min_us": 800, "p50_us": 900, "p99_us": 990}
    reading = Reading(
        source=site, target="metro-1", method=Method.TCP, begun_ms=now_ms - 900, ended_ms=now_ms - 1, **times
    )
    exchange.do(TakeReadings(site=site, batch=ReadingBatch(site=site, seq=1, at_ms=now_ms, readings=(reading,))))
    done = call("circle", "--of", "metro-1")
    assert done.stdout.split("\t")[:3] == [site, "inside", "800 us / 900 us / 990 us"], done.stderr
    covered = call("circle", "coverage", "--to", "50%")
    assert covered.stdout.splitlines() == ["metro\t2\t2\t1\t0\t0\t1\t50.00 %"]
    assert "reached" in covered.stderr
    few.write_text(few.read_text().replace("minhang-1", "metro-2"))
    planned = call("circle", "improve", "--candidates", few, "--out", tmp_path / "plan.yaml")
    assert planned.stdout == "edge\tsite\t5.00\t1\n", planned.stderr
    assert "50.00 % now, 100.00 % expected" in planned.stderr
    held = call("circle", "improve", "--candidates", few, "--check", tmp_path / "plan.yaml")
    assert "the plan holds" in held.stderr
    few.write_text(few.read_text() + "- {name: ring, kind: link, cost: 1, a: n1, b: n2, delay: 9us}\n")
    assert "there is no topology to put it into" in call("circle", "improve", "--candidates", few).stderr
    near = call("circle", "--of", "metro-3")
    assert near.exit_code == 1
    assert "hint: tieline circle --of metro-1 --within 1ms" in near.stderr
