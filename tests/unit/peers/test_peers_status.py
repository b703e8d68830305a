"""What `exchange status` says of branches that are silent, and of peers that ask or send what they may not."""

import asyncio
import gzip
import json

import pytest
from aiohttp import web
from liar import Liar
from use_world import LIMITS, MAKERS

from peer_world import until
from tieline.drivers.peers.client import PeerClient
from tieline.model.peer import BranchState, DelegatedToken, PoolState, SiteState
from tieline.model.protocol import Offer, PeerAnswers, PeerOrders
from tieline.model.task import Task
from tieline.registry.delegated import sealed_token

HOUR_MS = 3_600_000


def peered(exchange, one="cn.a", other="cn.b", **grants):
    a, b = exchange(one, limits=LIMITS, makers=MAKERS), exchange(other, limits=LIMITS, makers=MAKERS)
    a.add(b)
    b.accept(a, **grants)
    until(lambda: a.is_active(b) and b.is_active(a))
    return a, b


def test_a_branch_that_falls_silent_is_frozen_and_what_is_behind_it_is_stale_until_it_is_heard(exchange, tieline):
    a, b = peered(exchange)
    now_s = a.clock.now_ms() // 1000
    lab = b.own("lab")
    names = [lab.publish(f"d{number}", exp=now_s + 1_800) for number in range(3)]
    own = a.own("home").publish("d", exp=now_s + 1_800)
    until(lambda: b.holds(own))  # what is ours comes back from every peer, and yet no silence of theirs keeps it
    until(lambda: all(a.counts(name) for name in names) and a.branch(b)["freshness"] == "fresh")
    moved = until(lambda: (found := a.branch(b))["lag"] == found["lag_ms"] == 0 and found)  # its log of ours too
    assert moved["in_bytes"] > 0
    assert moved["silence"] is None
    b.stop()
    until(lambda: a.branch(b)["freshness"] == "silent")
    real = type(a.clock)()
    a.clock.now_ms = lambda: real.now_ms() + HOUR_MS  # an hour later
    shown = until(lambda: (found := a.branch(b))["freshness"] == "frozen" and found)
    assert shown["silence"]["stale"] >= 3
    assert shown["silence"]["alive"] >= shown["silence"]["stale"]
    until(lambda: all(a.counts(name) for name in names))
    assert not a.counts(own)
    said = tieline(a, "exchange", "status")
    (row,) = [line.split("\t") for line in said.splitlines() if line.startswith(b.id + "\t")]
    assert row[3] == "frozen"
    assert f"{b.id} is silent for 1 h" in said
    assert "they are frozen until" in said
    found = json.loads(tieline(a, "find", "--kind", "dataset", "--json", ""))
    assert {offer["id"]: offer.get("is_stale") for offer in found["offers"]} == dict.fromkeys(names, True)
    (branch,) = found["branches"]
    assert branch["is_frozen"]
    assert branch["stale"] == shown["silence"]["stale"]
    assert "and are frozen: they stay, as stale" in tieline(a, "find", "--kind", "dataset", "")
    a.clock.now_ms = real.now_ms
    b.start()
    until(lambda: a.branch(b)["freshness"] == "fresh")
    assert a.branch(b)["silence"] is None
    found = json.loads(tieline(a, "find", "--kind", "dataset", "--json", ""))
    assert {offer["id"]: offer.get("is_stale") for offer in found["offers"]} == dict.fromkeys([*names])


def test_a_child_that_holds_more_than_it_was_given_room_for_is_refused_the_rest_and_shown(exchange, monkeypatch):
    monkeypatch.setattr("tieline.exchange.keys.EXCHANGE_QUOTA", 6)
    monkeypatch.setattr("tieline.exchange.keys.OWNER_QUOTA", 5)
    up, down, honest = exchange("cn"), exchange("cn.sh"), exchange("org.good")
    for other, role in ((down, "child"), (honest, "peer")):
        up.add(other, role)
        other.add(up, "parent" if role == "child" else "peer")
    until(lambda: up.is_active(down) and up.is_active(honest))
    names = [down.own(owner).publish(f"d{number}") for owner in ("lab", "mill") for number in range(4)]
    until(lambda: up.branch(down)["refused"].get("quota_full"), why=lambda: str(up.branch(down)))
    assert 0 < sum(up.holds(name) for name in names) < 6
    other = honest.own("lab").publish("d")
    until(lambda: up.counts(other))
    assert up.branch(honest)["refused"] == {}


def offer(a, b, cores):
    now_s = a.clock.now_ms() // 1000
    said = DelegatedToken(
        id=f"j-{cores}.1", by=a.id, to=b.id, user="u", scopes=("run",), nb_s=now_s, exp_s=now_s + 600,
        job=f"cn.a/job/j-{cores}", run=f"j-{cores}.1", pool="cn.b.lab/pool/cpu",
    )  # fmt: skip
    return Offer(
        path=(a.id,),
        first_run=f"{a.id}#j-{cores}.1",
        token=sealed_token(said, a.keys.key, a.keys.kid),
        run=f"j-{cores}.1", job=f"cn.a/job/j-{cores}", epoch=1, pool="cn.b.lab/pool/cpu", task=Task(run="true"),
        alternative=0, user="u", user_owner="cn.a", core_count=cores, memory_bytes=0, accelerator_count=0,
        price_micro_cny_per_unit_hour=1, stop_after_s=0, ttl_ms=60_000, state="offered",
    )  # fmt: skip


def test_offers_over_the_quota_of_a_peer_are_refused_and_shown_where_they_came(exchange, tieline):
    a, b = peered(exchange, may_use=True, quota={"core_count": 2})

    async def call():
        async with PeerClient(b.url, b.id, a.platform.signer) as client:
            body = PeerOrders(orders=(offer(a, b, 3), offer(a, b, 4)))
            return await client.call("POST", "/v1/peer/orders", PeerAnswers, body=body, key=None)

    said = asyncio.run(call())
    assert [answer.reports[0].reason.code for answer in said.answers] == ["peer_quota", "peer_quota"]
    assert b.branch(a)["rejected"] == {"peer_quota": 2}
    assert b.branch(a)["in_bytes"] > 0
    assert f"{a.id}: refused 2 times: peer_quota" in tieline(b, "exchange", "status")


@pytest.mark.parametrize(
    ("body", "packing", "code"),
    [
        (gzip.compress(b'{"exchange":"' + b"0" * (80 * 2**20)), "gzip", "peer_too_large"),
        (b"0" * (65 * 2**20), "", "peer_too_large"),
        (b'{"exchange": "cn.b/exchange/main", "sites": [[[', "", "peer_garbled"),
    ],
    ids=["a bomb", "too much", "nonsense"],
)
def test_what_is_said_of_free_capacity_is_bounded_and_named(exchange, body, packing, code):
    a, b = exchange("cn.a", limits=LIMITS, makers=MAKERS), exchange("cn.b", limits=LIMITS, makers=MAKERS)
    liar = Liar(b)

    async def twist(request, said):
        if request.path != "/v1/peer/state":
            return None
        return web.Response(body=body, headers={"Content-Encoding": packing} if packing else {})

    try:
        a.http.post("/v1/peers", json={"url": liar.url, "role": "peer"})
        b.accept(a)
        until(lambda: a.is_active(b) and a.branch(b)["use_error"] == "")
        liar.twist = twist
        # it is counted when it is read, and shown once placing has been told
        shown = until(lambda: (found := a.branch(b))["rejected"].get(code) and found["use_error"] and found)
        assert shown["freshness"] == "silent"
        name = b.own("lab").publish("d")
        until(lambda: a.counts(name))  # what is not twisted goes on
        liar.twist = None
        until(lambda: a.branch(b)["freshness"] == "fresh")
    finally:
        a.stop()
        liar.stop()


def test_much_free_capacity_is_told_packed(exchange):
    a, b = peered(exchange, may_use=True)

    async def raw(packing):
        how = {"params": None, "headers": {"Accept-Encoding": packing}, "total_s": 30, "read_s": None}
        client = PeerClient(b.url, b.id, a.platform.signer)
        async with client, client._opened("GET", "/v1/peer/state", **how) as answer:
            return answer.headers.get("Content-Encoding", ""), await answer.read()

    sites = tuple(
        SiteState(id=f"cn.b.lab/site/s{n}", owner="cn.b.lab", path=(b.id,), pools=(PoolState(pool=f"p{n}"),))
        for n in range(200)
    )
    state = BranchState(exchange=b.id, at_ms=1, head=0, sites=sites)
    asking = b.platform.ask

    async def ask(command, aside=None):
        return state if type(command).__name__ == "ReadState" else await asking(command, aside)

    b.platform.ask = ask
    (packing, packed), (plain, whole) = asyncio.run(raw("gzip")), asyncio.run(raw("identity"))
    assert (packing, plain) == ("gzip", "")
    assert gzip.decompress(packed) == whole
    assert len(packed) * 5 < len(whole)
