"""Transfers, circuits, the calendar and prices over HTTP: booked once, seen by whose they are, billed by receipts."""

import pytest
from api_world import NOW_MS
from test_api_gate import refused

from tieline.model.party import Role

GB = 10**9
HOUR_MS = 3_600_000
TOPOLOGY = {
    "name": "pair",
    "nodes": [{"name": "east", "site": "cn.demo.lab7/site/gz1"}, {"name": "west"}],
    "links": [
        {"name": "ew", "a": "east", "b": "west", "capacity_bps": 10**9, "delay_us": 1_000, "mtu_bytes": 9_000},
        {"name": "we", "a": "west", "b": "east", "capacity_bps": 10**9, "delay_us": 2_000, "mtu_bytes": 9_000},
    ],
}
TARIFF = {"deadline_micro_cny_per_gb": 1_000, "circuit_micro_cny_per_gbps_hour": 6_000_000}


@pytest.fixture
def net(fresh):
    """An exchange with a network of two links, one site on it, its operator, and two users."""
    world = fresh()
    world.gz = world.site("lab7", "gz1")
    world.oscar = world.as_("oscar", Role.OPERATOR)
    world.alice, world.bob = world.as_("alice", Role.USER), world.as_("bob", Role.USER)
    made = world.oscar.post("/v1/network/topology", json={"topology": TOPOLOGY})
    assert made.status_code == 200, made.text
    assert world.oscar.post("/v1/tariff", json={"tariff": TARIFF}).json()["deadline_micro_cny_per_gb"] == 1_000
    return world


def transfer(gigabytes=10, **more):
    return {"source": "east", "target": "west", "size_bytes": gigabytes * GB, "deadline_ms": NOW_MS + HOUR_MS, **more}


def said(answer, status=200):
    assert answer.status_code == status, answer.text
    return answer.json()


def names(page, what):
    return [each["id"] for each in page[what]]


def test_a_transfer_is_booked_once_moved_and_billed(net):
    body = {"order": transfer()}
    dry = said(net.alice.post("/v1/transfers", json={**body, "is_dry_run": True}), 201)
    assert dry["is_dry_run"]
    assert said(net.alice.get("/v1/transfers"))["transfers"] == []
    first = said(net.alice.post("/v1/transfers", json=body, headers={"Idempotency-Key": "k"}), 201)
    again = said(net.alice.post("/v1/transfers", json=body, headers={"Idempotency-Key": "k"}), 201)
    assert first == again, "booked once"
    name = first["transfer"]["id"]
    for client in (net.alice, net.oscar, net.admin, net.gz.http, net.as_("audrey", Role.AUDITOR)):
        assert names(said(client.get("/v1/transfers")), "transfers") == [name]
        assert said(client.get(f"/v1/transfers/{name}"))["transfer"]["price_micro_cny"] == 10_000
    assert said(net.bob.get("/v1/transfers"))["transfers"] == []
    assert said(net.bob.get("/v1/transfers?user=alice"))["transfers"] == []
    refused(net.bob.get(f"/v1/transfers/{name}"), "not_found")
    refused(net.bob.post(f"/v1/transfers/{name}/cancel"), "not_found")
    receipt = {"subject": name, "seq": 1, "begun_ms": NOW_MS - 1_000, "ended_ms": NOW_MS, "moved_bytes": 10 * GB}
    refused(net.bob.post("/v1/receipts", json={"receipt": receipt}), "not_found")
    taken = said(net.gz.http.post("/v1/receipts", json={"receipt": receipt}))
    assert (taken["state"], taken["charged_micro_cny"]) == ("arrived", 10_000)
    assert said(net.alice.get(f"/v1/receipts/{name}"))["receipts"][0]["moved_bytes"] == 10 * GB
    refused(net.bob.get(f"/v1/receipts/{name}"), "not_found")
    (line,) = said(net.alice.get("/v1/usage"))["lines"]
    assert (line["run"], line["unit"], line["charge_micro_cny"]) == (name, "transfer", 10_000)
    (bill,) = said(net.alice.get("/v1/bills"))["bills"]
    assert (bill["charge_micro_cny"], bill["lines"][0]["carried"]["moved_bytes"]) == (10_000, 10 * GB)
    assert said(net.bob.get("/v1/bills"))["bills"] == []
    assert names(said(net.alice.get("/v1/transfers?state=arrived")), "transfers") == [name]
    kinds = [event["kind"] for event in said(net.alice.get("/v1/events?limit=1000"))["events"]]
    assert "transfer_changed" in kinds
    hidden = [event["kind"] for event in said(net.bob.get("/v1/events?limit=1000"))["events"]]
    assert "transfer_changed" not in hidden


def test_a_circuit_is_booked_proven_resized_and_cancelled(net):
    order = {"a": "east", "b": "west", "rate_bps": 10**8, "diversity": "link"}
    made = said(net.alice.post("/v1/circuits", json={"order": order}), 201)["circuit"]
    name = made["id"]
    assert made["spare"]["links"] == ["we"]
    assert names(said(net.oscar.get("/v1/circuits?user=alice")), "circuits") == [name]
    assert said(net.bob.get("/v1/circuits"))["circuits"] == []
    refused(net.bob.get(f"/v1/circuits/{name}"), "not_found")
    more = said(net.alice.post(f"/v1/circuits/{name}/resize", json={"rate_bps": 2 * 10**8}))
    assert more["circuit"]["price_micro_cny_per_hour"] == 1_800_000
    answer = refused(net.alice.post(f"/v1/circuits/{name}/resize", json={"rate_bps": 2 * 10**9}), "not_admitted")
    assert answer["reasons"][0]["values"]["most_bps"] == 10**9
    seen = {"subject": name, "seq": 1, "begun_ms": NOW_MS, "ended_ms": NOW_MS, "path": ["ew"], "is_path_proven": True}
    refused(net.alice.post("/v1/receipts", json={"receipt": seen}), "forbidden")
    assert said(net.oscar.post("/v1/receipts", json={"receipt": seen}))["state"] == "up"
    cut = said(net.oscar.post("/v1/network/links", json={"down": ["ew"]}))
    assert cut["moved_circuits"] == [name]
    now = said(net.alice.get(f"/v1/circuits/{name}"))["circuit"]
    assert (now["state"], now["route"]["links"]) == ("degraded", ["we"])
    assert said(net.alice.post(f"/v1/circuits/{name}/cancel"))["circuit"]["state"] == "cancelled"
    refused(net.alice.post(f"/v1/circuits/{name}/cancel"), "not_found")


def test_a_refusal_carries_the_bound(net):
    answer = refused(net.alice.post("/v1/transfers", json={"order": transfer(10_000)}), "not_admitted")
    (reason,) = answer["reasons"]
    assert reason["code"] == "transfer_physical"
    assert reason["values"]["asked_us"] < reason["values"]["needed_us"]
    order = {"a": "east", "b": "west", "rate_bps": 1, "latency_us": 10}
    answer = refused(net.alice.post("/v1/circuits", json={"order": order}), "not_admitted")
    assert answer["reasons"][0]["values"]["least_us"] == 1_000


MALFORMED = (
    ("/v1/transfers", {"order": transfer(size_bytes=0)}),
    ("/v1/transfers", {"order": transfer(size_bytes=-1)}),
    ("/v1/transfers", {"order": transfer(deadline_ms=2**60)}),
    ("/v1/transfers", {"order": {**transfer(), "rate": 1}}),
    ("/v1/circuits", {"order": {"a": "east", "b": "west", "rate_bps": 10**16}}),
    ("/v1/circuits", {"order": {"a": "east", "b": "west", "rate_bps": -1}}),
    ("/v1/circuits", {"order": {"a": "east", "b": "west", "rate_bps": 1, "latency_us": -1}}),
    ("/v1/circuits", {"order": {"a": "east", "b": "west", "rate_bps": 1, "recurrence": {"period_s": 1}}}),
    ("/v1/nights", {"orders": []}),
    ("/v1/nights", {"orders": [{"source": "east", "target": "west", "size_bytes": 1}]}),
)


def test_what_is_malformed_changes_nothing(net):
    before = net.writer.position
    for path, body in MALFORMED:
        refused(net.alice.post(path, json=body), "invalid_request")
    assert net.writer.position == before


def test_a_night_is_planned_beside_the_writer_and_booked(net):
    orders = [transfer(200), transfer(200), transfer(800)]
    night = said(net.alice.post("/v1/nights", json={"orders": orders}), 201)
    carried = sum(each["order"]["size_bytes"] for each in night["transfers"])
    assert carried == night["carried_bytes"] <= night["bound_bytes"]
    assert night["asked_bytes"] == 1_200 * GB
    assert len(said(net.alice.get("/v1/transfers"))["transfers"]) == len(night["transfers"]) >= 1
    week = [transfer(1, deadline_ms=NOW_MS + 160 * HOUR_MS)] * 100
    answer = refused(net.alice.post("/v1/nights", json={"orders": week}), "not_admitted")
    assert answer["reasons"][0]["code"] == "night_large"
    partial = said(net.alice.post("/v1/nights", json={"orders": orders, "is_partial": True, "is_dry_run": True}), 201)
    assert partial["carried_bytes"] <= partial["bound_bytes"]


def test_the_calendar_is_for_everybody_and_the_tariff_for_who_runs_the_network(net):
    said(net.alice.post("/v1/transfers", json={"order": transfer()}), 201)
    shown = said(net.bob.get("/v1/calendar?link=ew&columns=2"))
    assert [len(each["free_bps"]) for each in shown["links"]] == [2, 2]
    assert shown["links"][0]["transfer_bps"][0] > 0
    refused(net.bob.get("/v1/calendar?link=zz"), "not_found")
    refused(net.bob.get("/v1/calendar?columns=0"), "invalid_request")
    refused(net.bob.post("/v1/tariff", json={"tariff": TARIFF}), "forbidden")
    assert said(net.bob.get("/v1/tariff"))["circuit_micro_cny_per_gbps_hour"] == 6_000_000


def test_without_a_topology_nothing_is_promised(world):
    alice = world.as_("alice", Role.USER)
    answer = refused(alice.post("/v1/transfers", json={"order": transfer()}), "not_admitted")
    assert answer["reasons"][0]["code"] == "network_none"
    refused(alice.get("/v1/calendar"), "not_admitted")
    assert said(alice.get("/v1/transfers"))["next_before"] == ""
