"""Roots that an admin pins without peering: records of far branches prove themselves, whoever relays them."""

import json

import pytest
from test_peers_follow import link

from peer_world import seeded, until
from tieline.exchange.commands import ChangeRoot
from tieline.model.party import SYSTEM
from tieline.registry import Key


def refusal(answer):
    assert answer.status_code >= 400, answer.text
    return answer.json()["code"]


@pytest.fixture
def tiers(exchange):
    """A hub, one region with a mill below it, and a dataset of a lab below another region, which the hub holds."""
    hub, region, other, mill = exchange("cn"), exchange("cn.sh"), exchange("cn.gd"), exchange("cn.sh.mill")
    link(hub, region)
    link(hub, other)
    link(region, mill)
    name = other.own("lab").publish("far")
    until(lambda: hub.counts(name) and region.counts(name))
    return hub, region, other, mill, name


def test_what_other_branches_say_arrives_below_a_region_once_the_hubs_key_is_pinned(tiers, tieline):
    hub, region, other, mill, name = tiers
    near = region.own("lab").publish("near")
    until(lambda: mill.counts(near))
    until(lambda: "cn.gd.lab" in mill.branch(region)["paused"], why=lambda: str(mill.branch(region)))
    assert not mill.holds(name)
    liar = Key(seeded("liar")).public
    tieline(mill, "exchange", "root", "add", "cn", liar)
    until(lambda: mill.branch(region)["refused"], why=lambda: str(mill.branch(region)))
    assert not mill.holds(name)  # what the hub signed is not what that key signs
    tieline(mill, "exchange", "root", "rm", "cn", "--yes")
    public = hub.http.get("/v1/exchange").json()["public"]
    said = tieline(mill, "exchange", "root", "add", "cn", public)
    assert hub.keys.key.fingerprint in said
    until(lambda: mill.counts(name), why=lambda: str(mill.branch(region)))
    assert len(mill.view.catalogue.chain("cn.gd.lab")) == 2
    assert mill.view.peers.keys() == {region.id}
    roots = json.loads(tieline(mill, "exchange", "root", "ls", "--json"))["roots"]
    assert [(root["prefix"], root["peer"]) for root in roots] == [("cn", ""), ("cn.sh", region.id)]
    kinds = [row.kind for row in mill.store.log_rows(0, 10_000) if row.kind == "root_changed" and row.subject == "cn"]
    assert len(kinds) == 3
    mill.stop()
    mill.start()
    assert mill.counts(name)
    later = other.own("lab").publish("later")
    until(lambda: mill.counts(later))
    tieline(mill, "exchange", "root", "rm", "cn", "--yes")
    assert not mill.counts(name)
    assert mill.counts(near)


def test_filters_let_through_what_far_records_rest_on_and_none_of_the_others(exchange):
    hub, region, other, mill = exchange("cn"), exchange("cn.sh"), exchange("cn.gd"), exchange("cn.sh.mill")
    link(hub, region)
    link(hub, other)
    assert mill.add(region, "parent", prefixes=["cn.gd.lab"]).status_code == 201
    assert region.accept(mill).status_code == 200
    mill.do(ChangeRoot(actor=SYSTEM, prefix="cn", public=hub.keys.key.public))
    near, far, third = region.own("lab").publish("near"), other.own("lab").publish("far"), other.own("x").publish("y")
    until(lambda: region.counts(far) and region.counts(third) and region.counts(near))
    until(lambda: mill.counts(far), why=lambda: str(mill.branch(region)))
    until(lambda: mill.branch(region)["lag"] == 0)
    assert not mill.holds(near)
    assert not mill.holds(third)


def test_a_root_is_nobodys_to_take(exchange):
    hub, mill = exchange("cn"), exchange("org.mill")
    key, weak = Key(seeded("k")).public, "A" * 43

    def add(prefix, public):
        return mill.http.post("/v1/roots", json={"prefix": prefix, "public": public})

    assert refusal(add("org.mill", key)) == "conflict"  # ours
    assert refusal(add("org.mill.lab", key)) == "conflict"  # ours to give
    assert refusal(add("cn", weak)) == "record_refused"
    assert refusal(add("CN", key)) == "invalid_request"
    assert refusal(mill.http.delete("/v1/roots/cn")) == "not_found"
    assert refusal(mill.http.delete("/v1/roots/cn~x")) == "not_found"  # no prefix at all
    assert add("cn", key).status_code == 201
    assert add("cn", key).status_code == 201  # the same again
    assert refusal(add("cn", hub.keys.key.public)) == "conflict"
    assert refusal(mill.add(hub)) == "conflict"  # its key is not the one that was pinned
    mill.do(ChangeRoot(actor=SYSTEM, prefix="cn"))
    assert add("cn", hub.keys.key.public).status_code == 201
    link(hub, mill, "peer")
    assert [root["peer"] for root in mill.http.get("/v1/roots").json()["roots"]] == [hub.id]
    mill.change(hub, "remove")
    assert mill.view.catalogue.key("cn#exchange", mill.clock.now_ms() // 1000) == hub.keys.key.public
    mill.do(ChangeRoot(actor=SYSTEM, prefix="cn"))
    assert mill.view.catalogue.key("cn#exchange", mill.clock.now_ms() // 1000) is None
