"""The topology over HTTP: whole or not at all, cut and restored, and what is refused with which numbers."""

import copy

import pytest

from tieline.api.topology import EXAMPLE
from tieline.model.party import Role


def sent(client, **changes):
    topology = copy.deepcopy(EXAMPLE["topology"])
    topology.update(changes)
    return client.post("/v1/network/topology", json={"topology": topology})


def link(**more):
    return {"name": "l", "a": "east", "b": "west", "capacity_bps": 10, **more}


@pytest.fixture
def owen(world):
    return world.as_("owen", Role.OPERATOR)


def test_a_topology_is_taken_whole_cut_restored_and_kept(world, fresh, owen):
    made = sent(owen, name="round")
    assert made.status_code == 200, made.text
    assert (made.json()["node_count"], made.json()["link_count"], made.json()["down"]) == (2, 1, [])
    cut = owen.post("/v1/network/links", json={"down": ["east-west"], "why": "a digger"})
    assert cut.json()["down"] == ["east-west"]
    again = owen.post("/v1/network/links", json={"down": ["east-west"]})
    assert again.json()["down"] == ["east-west"]
    seen = world.as_("ann", Role.USER).get("/v1/network/topology").json()
    assert (seen["topology"]["name"], seen["down"]) == ("round", ["east-west"])
    back = owen.post("/v1/network/links", json={"up": ["east-west"]})
    assert back.json()["down"] == []
    before = world.writer.position
    assert sent(owen, name="round").status_code == 200
    assert world.writer.position == before  # a change of nothing is no fact


REFUSED = (
    ({"nodes": []}, 400, "0 nodes"),
    ({"links": []}, 400, "falls into 2 parts"),
    ({"links": [link(), link()]}, 400, "2 links are named `l`"),
    ({"links": [link(b="east"), link(name="m")]}, 400, "begins and ends at `east`"),
    ({"links": [link(b="north"), link(name="m")]}, 400, "ends at `north`, which is no node"),
    ({"links": [link(capacity_bps=-1)]}, 400, ">= 0"),
    ({"links": [link(capacity_bps=10**15 + 1)]}, 400, "<= 1000000000000000"),
    ({"links": [link(capacity_bps=0)]}, 400, "falls into 2 parts"),
    ({"links": [link(speed=3)]}, 400, "speed"),
    ({"links": [link(maintenance=[{"from_ms": 5, "until_ms": 5}])]}, 400, "ends before it begins"),
    ({"nodes": [{"name": "east"}, {"name": "west", "locator": "fc00::1/16"}]}, 400, "is no IPv6 prefix"),
    (
        {
            "nodes": [
                {"name": "east", "place": {"latitude_udeg": 0, "longitude_udeg": 0}},
                {"name": "west", "place": {"latitude_udeg": 0, "longitude_udeg": 90_000_000}},
            ],
            "links": [link(delay_us=10)],
        },
        400,
        "claims 10 us for 10008 km",
    ),
)


@pytest.mark.parametrize(("changes", "status", "said"), REFUSED, ids=[said for _, _, said in REFUSED])
def test_what_is_not_sound_is_refused_whole_with_numbers(world, owen, changes, status, said):
    before = world.writer.position
    refused = sent(owen, **changes)
    assert (refused.status_code, said in refused.json()["message"]) == (status, True), refused.text
    assert refused.json()["where"].startswith("topology")
    assert world.writer.position == before


def test_who_is_no_operator_changes_nothing(world, owen):
    sent(owen)
    roles = (Role.USER, Role.OWNER, Role.AUDITOR)
    clients = [world.as_(f"no-{role}", role, owner="lab7" if role is Role.OWNER else "") for role in roles]
    before = world.writer.position
    for client in clients:
        assert sent(client, name="other").status_code == 403
        assert client.post("/v1/network/links", json={"down": ["east-west"]}).status_code == 403
    assert world.writer.position == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"down": ["nowhere"]}, 404, "not_found"),
        ({"down": ["east-west"], "up": ["east-west"]}, 400, "invalid_request"),
        ({"down": ["a b"]}, 400, "invalid_request"),
        ({"down": "east-west"}, 400, "invalid_request"),
    ],
)
def test_a_cut_of_nothing_or_of_what_is_not_there_is_refused(world, owen, body, status, code):
    sent(owen)
    refused = owen.post("/v1/network/links", json=body)
    assert (refused.status_code, refused.json()["code"]) == (status, code)


def test_no_topology_is_not_found_with_the_way_to_one(fresh):
    world = fresh()
    none = world.as_("ann", Role.USER).get("/v1/network/topology")
    assert (none.status_code, none.json()["hints"]) == (404, ["tieline network import FILE"])
