"""A run's own token and the network: it sees the transfers of its job, says what they carried, and nothing else."""

import pytest
from api_world import NOW_MS
from test_api_bookings import GB, TARIFF, TOPOLOGY, said, transfer
from test_api_gate import refused
from test_api_jobs import submit
from test_api_secrets import given, reasons_of

from tieline.model.party import Role

TASK = {"name": "t", "run": "x", "resources": [{"core_count": 1}]}


@pytest.fixture
def net(fresh):
    """A user with two jobs at one site of a network."""
    world = fresh()
    world.gz = world.site("lab7", "gz1")
    world.alice, world.oscar = world.as_("alice", Role.USER), world.as_("oscar", Role.OPERATOR)
    assert world.oscar.post("/v1/network/topology", json={"topology": TOPOLOGY}).status_code == 200
    assert world.oscar.post("/v1/tariff", json={"tariff": TARIFF}).status_code == 200
    return world


def booked(client, **more):
    return said(client.post("/v1/transfers", json={"order": transfer(**more)}), 201)["transfer"]["id"]


def receipt(name, seq=1):
    return {"subject": name, "seq": seq, "begun_ms": NOW_MS - 1_000, "ended_ms": NOW_MS, "moved_bytes": GB}


def test_a_run_reads_the_transfers_of_its_job_and_gives_receipts_for_them_and_for_no_other(net):
    scopes = ["read:transfer", "write:receipt"]
    own, other = (submit(net.alice, {"tasks": [{**TASK, "token": scopes}]})[0] for _ in range(2))
    mine, its, free = booked(net.alice, job=own["id"]), booked(net.alice, job=other["id"]), booked(net.alice)
    values, _ = given(net, net.gz, own)
    holder = net.bearer(values["TIELINE_TOKEN"])
    assert holder.get("/v1/me").json()["scopes"] == scopes
    assert [each["id"] for each in said(holder.get("/v1/transfers"))["transfers"]] == [mine]
    assert said(holder.get(f"/v1/transfers/{mine}"))["transfer"]["order"]["job"] == own["id"]
    taken = said(holder.post("/v1/receipts", json={"receipt": receipt(mine)}))
    assert (taken["state"], taken["moved_bytes"]) == ("moving", GB)
    (kept,) = said(holder.get(f"/v1/receipts/{mine}"))["receipts"]
    assert kept["evidence"] == "declared"
    for name in (its, free):
        refused(holder.get(f"/v1/transfers/{name}"), "not_found")
        refused(holder.get(f"/v1/receipts/{name}"), "not_found")
        refused(holder.post("/v1/receipts", json={"receipt": receipt(name)}), "not_found")
        assert said(net.alice.get(f"/v1/transfers/{name}"))["transfer"].get("moved_bytes", 0) == 0
    assert reasons_of(holder.post(f"/v1/transfers/{mine}/cancel"), "forbidden") == ["scope_missing"]
    assert reasons_of(holder.post("/v1/transfers", json={"order": transfer()}), "forbidden") == ["scope_missing"]


def test_without_the_scope_a_run_does_neither(net):
    (own,) = submit(net.alice, {"tasks": [{**TASK, "token": ["read:transfer"]}]})
    mine = booked(net.alice, job=own["id"])
    values, _ = given(net, net.gz, own)
    holder = net.bearer(values["TIELINE_TOKEN"])
    assert holder.get(f"/v1/transfers/{mine}").status_code == 200
    assert reasons_of(holder.post("/v1/receipts", json={"receipt": receipt(mine)}), "forbidden") == ["scope_missing"]


def test_who_runs_the_network_passes_no_more_than_one_job_on_when_a_token_is_bound_to_it(net):
    """The roles of an operator would open every transfer: what is bound to a job stays with the job."""
    both = net.bearer(net.token("olga", Role.USER, Role.OPERATOR))
    (own,) = submit(both, {"tasks": [TASK]})
    mine, other = booked(both, job=own["id"]), booked(net.alice)
    body = {"scopes": ["read:transfer", "write:receipt"], "job": own["id"].rpartition("/")[2]}
    holder = net.bearer(said(both.post("/v1/tokens/delegated", json=body), 201)["secret"])
    assert holder.get(f"/v1/transfers/{mine}").status_code == 200
    refused(holder.get(f"/v1/transfers/{other}"), "not_found")
    refused(holder.post("/v1/receipts", json={"receipt": receipt(other)}), "not_found")
