"""Readings over HTTP: signed by the site that measured, refuted or kept, and what find, ways and CATS say of them."""

import pytest
from api_world import World

from tieline.model.door import Right
from tieline.model.party import Role
from tieline.model.reading import READINGS, Method, Reading, ReadingBatch
from tieline.model.reason import Reason
from tieline.network.probing import SPAN_MS
from tieline.registry import Key
from tieline.registry.passes import checked_pass

POINT = {"name": "shanghai", "address": "192.0.2.7:443", "latitude_udeg": 31_230_000, "longitude_udeg": 121_470_000}


@pytest.fixture
def world(fresh):
    return fresh()


@pytest.fixture
def owen(world):
    return world.as_("owen", Role.OPERATOR)


@pytest.fixture
def sites(world, owen):
    """Two sites, the second with a door, and a reference point."""
    gz, sz = world.site("lab7", "gz1").offer(), world.site("lab8", "sz1").offer()
    door = {"public": sz.site_key.public, "tier": "edge", "door": "http://192.0.2.9:7443"}
    assert sz.record("site", "sz1", door).status_code == 201
    assert owen.post("/v1/points", json={"put": [POINT]}).status_code == 200
    return gz, sz


def reading(world, source, target, p50_us, **more):
    now_ms = world.clock.now_ms()
    values = {"count": 5, "sent": 5, "min_us": p50_us, "p50_us": p50_us, "p99_us": p50_us, "method": Method.TCP}
    return Reading(source=source, target=target, begun_ms=now_ms - 400, ended_ms=now_ms, **{**values, **more})


def brought(by, *readings, key=None, seq=None, **more):
    by.seq = seq if seq is not None else getattr(by, "seq", 0) + 1
    said = {"site": by.id, "seq": by.seq, "at_ms": by.world.clock.now_ms(), "readings": readings, **more}
    statement = by.statement(READINGS, ReadingBatch(**said), key)
    return by.http.post("/v1/site/readings", json={"statement": statement})


def test_what_a_site_signed_is_kept_found_by_and_shown_and_unknown_is_counted_apart(world, sites):
    gz, sz = sites
    ann = world.as_("ann", Role.USER)
    taken = brought(gz, reading(world, gz.id, "shanghai", 700), reading(world, gz.id, sz.id, 4_000))
    assert (taken.status_code, taken.json()) == (200, {"kept": 2, "unchanged": 0, "refuted": []})
    found = ann.post("/v1/find", json={"query": "rtt(shanghai) < 1ms", "kind": "site"}).json()
    assert [offer["id"] for offer in found["offers"]] == [gz.id]
    assert found["offers"][0]["attributes"]["rtt(shanghai)_us"] == 700
    assert found["offers"][0]["evidence"]["rtt(shanghai)_us"] == "measured"
    assert [(why["code"], why.get("count", 1)) for why in found["reasons"]] == [("query_unknown", 1)]
    far = ann.post("/v1/find", json={"query": f'rtt("{gz.id}") > 3ms', "kind": "site"}).json()
    assert [offer["id"] for offer in far["offers"]] == [sz.id]
    none = ann.post("/v1/find", json={"query": "bandwidth(shanghai) > 1bps", "kind": "site"}).json()
    assert (none["offers"], none["reasons"][0]["code"]) == ([], "query_unknown")
    page = ann.get("/v1/readings", params={"source": gz.id}).json()
    assert [(each["reading"]["target"], each["is_fresh"]) for each in page["readings"]] == [
        (sz.id, True),
        ("shanghai", True),
    ]
    way = ann.get("/v1/ways", params={"source": "shanghai", "target": gz.id}).json()
    assert (way["rtt_us"], way["rtt_evidence"], way["rate_bps"], way["rate_evidence"]) == (
        700,
        "measured",
        None,
        "unknown",
    )
    assert ann.get("/v1/ways", params={"source": "atlantis", "target": gz.id}).status_code == 404


def test_batches_are_believed_with_the_sites_key_only_and_lies_in_them_are_shown(world, sites):
    gz, sz = sites
    mine = reading(world, gz.id, "shanghai", 700)
    forged = brought(gz, mine, key=Key(b"x" * 32))
    assert (forged.status_code, forged.json()["code"]) == (401, "unauthenticated")
    assert brought(gz, mine, site=sz.id).status_code == 403
    assert brought(gz, mine, at_ms=1).status_code == 401
    lies = brought(gz, reading(world, sz.id, "shanghai", 5), reading(world, gz.id, "nowhere", 5), mine).json()
    assert (lies["kept"], [why["code"] for why in lies["refuted"]]) == (1, ["reading_not_own", "reading_target"])
    assert brought(gz, mine, seq=gz.seq).status_code == 409
    page = world.admin.get("/v1/readings").json()
    assert [(each["site"], each["reason"]["code"]) for each in page["refuted"]] == [
        (gz.id, "reading_target"),
        (gz.id, "reading_not_own"),
    ]
    assert page["counts"][0]["site"] == gz.id
    assert len(page["readings"]) == 1


def test_pages_of_readings_follow_each_other(world, sites):
    gz, sz = sites
    brought(gz, reading(world, gz.id, "shanghai", 700), reading(world, gz.id, sz.id, 4_000))
    first = world.admin.get("/v1/readings", params={"limit": 1}).json()
    second = world.admin.get("/v1/readings", params={"limit": 1, "after": first["next"]}).json()
    assert [page["readings"][0]["reading"]["target"] for page in (first, second)] == [sz.id, "shanghai"]
    assert (first["next"], second["next"]) == ("1", "")


def test_probes_come_with_a_pass_for_each_door_and_once_a_span(world, sites):
    gz, sz = sites
    world.clock.advance(2 * SPAN_MS)
    gz.beat(), sz.beat()
    plan = gz.http.get("/v1/site/probes").json()
    doors = [probe for probe in plan["probes"] if probe["target"] == sz.id]
    assert {probe["address"] for probe in doors} == {"http://192.0.2.9:7443"}
    assert len({probe["door_pass"] for probe in doors}) == 1
    now_ms, public = world.clock.now_ms(), world.keys.key.public
    given = checked_pass(doors[0]["door_pass"], public, sz.id, Right.ECHO, now_ms)
    assert (given.holder, given.public) == (gz.id, gz.site_key.public)
    assert given.most_bytes == sum(probe["most_bytes"] for probe in doors)
    point = next(probe for probe in plan["probes"] if probe["target"] == "shanghai")
    assert (point["address"], "door_pass" in point) == ("192.0.2.7:443", False)
    assert "probes" not in gz.http.get("/v1/site/probes").json()
    assert world.admin.get("/v1/site/probes").status_code == 403


def test_points_are_an_operators_and_outlast_a_restart(world, sites, owen):
    ann = world.as_("ann", Role.USER)
    assert ann.post("/v1/points", json={"put": [POINT]}).status_code == 403
    refused = owen.post("/v1/points", json={"put": [{**POINT, "address": "no port"}]})
    assert (refused.status_code, refused.json()["where"]) == (400, "put[0].address")
    refused = owen.post("/v1/points", json={"put": [{**POINT, "address": "noport"}]})
    assert (refused.status_code, "host:port" in refused.json()["message"]) == (400, True)
    assert owen.post("/v1/points", json={"remove": ["nobody"]}).status_code == 404
    assert [point["name"] for point in ann.get("/v1/points").json()["points"]] == ["shanghai"]
    world.stop()
    again = World(world.folder, address=world.address, is_new=False).start()
    try:
        assert again.writer.view.network.points["shanghai"].address == POINT["address"]
    finally:
        again.stop()


def test_probes_that_an_owner_does_not_allow_are_counted_and_shown_and_made_up_words_are_not(world, sites):
    gz, _ = sites
    undone = [{"code": "probe_inner", "count": 7}, {"code": "made_up", "count": 9, "values": {"a": "b"}}]
    undone.append({"code": "probe_senseless", "count": -5})
    assert brought(gz, undone=[Reason(**each) for each in undone]).status_code == 200
    page = world.as_("ann", Role.USER).get("/v1/readings").json()
    assert page["undone"] == [{"site": gz.id, "reasons": [{"code": "probe_inner", "count": 7}]}]
    assert page["readings"] == []


def test_cats_metrics_are_published_by_point(world, sites):
    gz, _ = sites
    brought(gz, reading(world, gz.id, "shanghai", 1_000))
    said = world.as_("ann", Role.USER).get("/v1/cats", params={"point": "shanghai"}).json()
    assert said["draft"].startswith("draft-ietf-cats-metric-definition")
    near, far = said["instances"]
    assert {metric["metric_type"]: metric["value"] for metric in near["metrics"] if metric["level"]} == {
        "computing_comb": 10,
        "communication_comb": 10,
        "norm_fi": 10,
    }
    assert [metric["metric_type"] for metric in far["metrics"] if metric["level"]] == ["computing_comb"]
    assert world.admin.get("/v1/cats", params={"point": "atlantis"}).status_code == 404
