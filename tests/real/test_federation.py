"""Exchanges of different owners as processes: the example, kills and cuts in mid-run, claims that are too high."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from federation_world import LIMITS, ROOT, World, books
from use_world import ended, job, lines, log, submit

from peer_world import until
from tieline.exchange.settlement import verify_usage
from tieline.model.job import Usage

pytestmark = pytest.mark.slow

STEPS = 40
TASK = {
    "run": f"for i in $(seq 1 {STEPS}); do echo line $i; sleep 0.1; done; echo $((6 * 7)) > result.txt",
    "outputs": ["result.txt"],
    "is_trusted": True,
}
EXAMPLE = ROOT / "examples" / "federation"


def test_the_example_runs_and_every_check_in_it_holds(tmp_path: Path) -> None:
    (command, *_) = re.findall(r"^\$ (.+)$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    assert command == "make federation"
    rules = re.search(r"^federation: .*\n\t@\$\(BIN\)/python (\S+) ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rules is not None
    done = subprocess.run(
        [sys.executable, rules[1], "--json"], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads(done.stdout)
    assert summary["failed"] == []
    assert summary["checks"] >= 55
    assert (len(summary["owners"]), summary["links"], summary["pools"]) == (6, 5, 6)
    assert summary["between"] == 5
    assert summary["lines"] == {"hub": 1, "shanghai": 2, "guangdong": 4, "steel": 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("federation"))
    yield made
    made.close()


def begun(world, at, site):
    """A job on that site's pool, once it has printed something."""
    where = {"core_count": 1, "where": f'id == "{site.pool}"'}
    name = submit(at, name="steps", **TASK, resources=[where])
    until(lambda: "line 3" in log(at, name), 60, lambda: str(job(at, name)))
    return name


def whole(world, payer, name, owner):
    """Whether it went as if nothing had happened: one attempt, every line once, and one line in each one's books."""
    view = ended(payer, name)
    assert [run["state"] for run in view["runs"]] == ["succeeded"], view
    run = view["runs"][0]
    assert run["via"] == owner.id
    assert log(payer, name).split("\n")[:-1] == [f"line {i}" for i in range(1, STEPS + 1)]
    (output,) = view["job"]["outputs"]
    assert payer.http.get(f"/v1/blobs/{output['sha256']}").text == "42\n"
    ours, theirs = books(payer, run["id"], owner)
    assert ours["answer"] == theirs["given_answer"]
    assert ours["charge_micro_cny"] == theirs["charge_micro_cny"] > 0
    assert not ours.get("disputed_micro_cny")
    for line in (ours, theirs):
        assert verify_usage(msgspec.convert(line, Usage), world.keys()) == ()
    return ours


@pytest.mark.parametrize("who", ["the exchange that asked", "the exchange that runs it", "the site"])
def test_a_run_outlives_the_kill_of_whoever_has_to_do_with_it(world, who):
    name = begun(world, world.region, world.near_site)
    victim = {
        "the exchange that asked": world.region,
        "the exchange that runs it": world.hub,
        "the site": world.near_site,
    }[who]
    before = len(lines(world.hub))
    victim.kill()
    if victim is world.region:  # nobody is there to hear of the end
        until(lambda: len(lines(world.hub)) > before, 60)
    victim.start()
    whole(world, world.region, name, world.hub)
    world.await_places()


def test_a_cut_for_longer_than_the_leases_loses_nothing_and_doubles_nothing(world):
    name = begun(world, world.region, world.near_site)
    before = len(lines(world.hub))
    world.line.cut()
    try:
        until(lambda: world.region.branch(world.hub)["stale_ms"] > 2 * LIMITS["lease_ms"], 60)
        until(lambda: len(lines(world.hub)) > before, 60)
        view = job(world.region, name)
        assert (view["job"]["state"], len(view["runs"])) == ("running", 1), view
        assert not world.region.can_place(world.near_site.pool)
        assert not [line for line in lines(world.region) if line["job"] == name]
    finally:
        world.line.mend()
    whole(world, world.region, name, world.hub)
    world.await_places()
    until(lambda: world.region.branch(world.hub)["is_listening"])


def test_usage_beyond_what_was_observed_is_disputed_on_both_sides_and_not_billed(world):
    name = begun(world, world.region, world.far_site)
    view = ended(world.region, name)
    ours, theirs = books(world.region, view["runs"][0]["id"], world.far)
    hour_micro_cny = 3_600 * 1_000_000  # the pool's price is 1 CNY a second
    assert theirs["charge_micro_cny"] >= hour_micro_cny
    assert 0 < ours["charge_micro_cny"] < 120 * 1_000_000
    assert ours["charge_micro_cny"] + ours["disputed_micro_cny"] == theirs["charge_micro_cny"]
    assert theirs["given_disputed_micro_cny"] == ours["disputed_micro_cny"]
    assert "claim_over_meter" in str(msgspec.json.decode(_payload(ours["answer"]))["why"])
    keys = world.keys()
    for line in (ours, theirs):
        assert verify_usage(msgspec.convert(line, Usage), keys) == ()
    bills = world.region.http.get("/v1/bills", params={"side": "user"}).json()["bills"]
    assert sum(bill["disputed_micro_cny"] for bill in bills) >= ours["disputed_micro_cny"]


def test_the_third_tier_is_found_and_used_from_the_top_and_the_middle_passes_no_lie_on(world):
    (offer,) = world.hub.find(f'owner == "{world.far.prefix}.mine"')["offers"]
    assert offer["id"] == world.far_site.pool
    assert world.hub.http.get(f"/v1/records/{offer['id'].replace('/', '~')}").status_code == 200
    name = begun(world, world.hub, world.far_site)
    view = ended(world.hub, name)
    (run,) = view["runs"]
    assert (run["state"], run["via"]) == ("succeeded", world.region.id)
    top, middle = books(world.hub, run["id"], world.region)
    assert not top.get("disputed_micro_cny")
    assert top["charge_micro_cny"] == middle["charge_micro_cny"] > 0
    between, far = books(world.region, middle["run"], world.far)
    assert between["disputed_micro_cny"] > 0
    assert between["charge_micro_cny"] == top["charge_micro_cny"]
    assert far["user"].endswith("@cn@cn.a")


def test_a_run_two_exchanges_away_outlives_the_kill_of_the_one_between(world):
    name = begun(world, world.hub, world.far_site)
    world.region.kill()
    world.region.start()
    line = whole(world, world.hub, name, world.region)
    (between,) = [each for each in lines(world.region) if each.get("given_claim") == line["claim"]]
    assert (between["via"], between["origin"]) == (world.far.id, world.hub.id)
    assert len([each for each in lines(world.far) if each.get("given_claim") == between["claim"]]) == 1
    world.await_places()


def test_who_is_below_a_region_does_not_believe_what_only_the_top_gave(world):
    """The region is what it pinned: the top's own records wait there, and the status says for what."""

    def waits():
        standing = world.far.branch(world.region)
        return "cn" in standing["paused"] and (standing["error"] or {}).get("code") == "log_parked"

    until(waits, 60, lambda: str(world.far.branch(world.region)))
    assert not world.far.find('owner == "cn.lab"')["offers"]


def _payload(statement: str) -> bytes:
    import base64

    text = json.loads(statement)["payload"]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
