"""Peering between real exchanges: greetings, requests, grants, and signed callers at the gate."""

import asyncio
import hashlib
import json

import httpx
import pytest

from peer_world import until
from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.greeting import ask_to_peer, checked_introduction
from tieline.drivers.peers.signing import Signer
from tieline.model.error import TielineError
from tieline.model.limits import Limits
from tieline.model.peer import Peer, PeerRole, PeerState
from tieline.model.peering import PeerStanding
from tieline.registry import Key
from tieline.registry.serving import LogsAnswer


def code(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["code"]


def signer_of(exchange, key=None):
    return Signer(exchange.id, key or exchange.keys.key, exchange.keys.kid, exchange.clock)


def called(caller, to, reply=LogsAnswer, path="/v1/logs", key=None, **options):
    """One signed call of one exchange to another; the reply or the refusal."""

    async def story():
        async with PeerClient(to.url, to.id, signer_of(caller, key)) as client:
            return await client.call("GET", path, reply, **options)

    return asyncio.run(story())


def refused(caller, to, **options):
    with pytest.raises(TielineError) as caught:
        called(caller, to, **options)
    return caught.value


@pytest.fixture
def pair(exchange):
    """cn and its child cn.sh, active on both sides; no logs are followed."""
    up, down = exchange("cn", makers=()), exchange("cn.sh", makers=())
    assert down.add(up, "parent").json()["state"] == "asked"
    assert up.accept(down).json()["state"] == "active"
    until(lambda: down.is_active(up))
    return up, down


def test_both_sides_say_yes_and_the_child_is_given_its_prefix(exchange):
    up, down = exchange("cn", makers=()), exchange("cn.sh", makers=())
    assert down.add(up, "parent").json()["state"] == "asked"
    branch = up.branch(down)
    assert (branch["state"], branch["role"], branch["url"]) == ("offered", "child", down.url)
    assert up.accept(down, may_use=True, quota={"card_count": 2}).json()["may_use"] is True
    until(lambda: down.is_active(up))
    assert up.holds("cn/exchange/sh")
    standing = called(down, up, PeerStanding, "/v1/standing")
    assert (standing.role, standing.may_use, standing.quota.card_count) == (PeerRole.CHILD, True, 2)


def test_two_admins_who_add_each_other_need_no_acceptance(exchange):
    one, two = exchange("cn.sh", makers=()), exchange("cn.gd", makers=())
    assert one.add(two).json()["state"] == "asked"
    assert two.add(one).json()["state"] == "active"
    until(lambda: one.is_active(two))


def test_a_greeting_is_signed_with_the_nonce_of_whoever_asks(exchange):
    here = exchange("cn", makers=())
    nonce = "n" * 24
    statement = here.http.get("/v1/greeting", params={"nonce": nonce}).json()["statement"]
    said = checked_introduction(statement, nonce, here.clock.now_ms())
    assert (said.id, said.url, said.public) == (here.id, here.url, here.keys.key.public)
    with pytest.raises(TielineError, match="nonce"):
        checked_introduction(statement, "m" * 24, here.clock.now_ms())
    with pytest.raises(TielineError, match="away"):
        checked_introduction(statement, nonce, here.clock.now_ms() + 10**6)
    assert code(here.http.get("/v1/greeting", params={"nonce": "short"}), 400) == "invalid_request"


def test_the_fingerprint_that_an_admin_was_told_must_be_that_of_the_key(exchange):
    one, two = exchange("cn.sh", makers=()), exchange("cn.gd", makers=())
    assert code(one.add(two, fingerprint="0" * 32), 500) == "check_failed"
    assert one.view.peers == {}
    assert one.add(two, fingerprint=two.keys.key.fingerprint).status_code == 201


def test_an_address_that_differs_from_the_dialled_one_needs_an_admins_word(exchange):
    one, two = exchange("cn.sh", makers=()), exchange("cn.gd", makers=())
    dialled = two.url
    two.platform.url = "http://127.0.0.1:9/elsewhere"
    assert code(one.add(two), 409) == "conflict"
    assert one.view.peers == {}
    assert one.http.post("/v1/peers", json={"url": dialled, "role": "peer", "is_elsewhere": True}).status_code == 201
    assert one.view.peers[two.id].url == dialled


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0:1",
        "http://224.0.0.1",
        "http://exchange.example",
        "http://100.100.100.200",
    ],
)
def test_an_address_that_is_never_called_is_refused_by_name(exchange, url):
    here = exchange("cn", makers=())
    assert code(here.http.post("/v1/peers", json={"url": url, "role": "peer"}), 403) == "address_refused"
    assert here.view.peers == {}


def test_the_address_of_a_stranger_is_looked_at_when_it_is_accepted(exchange):
    up, down = exchange("cn", makers=()), exchange("cn.sh", makers=())
    peer = Peer(
        id=up.id, prefix="cn", public=up.keys.key.public, url=up.url, role=PeerRole.PARENT, state=PeerState.ASKED
    )
    down.platform.url = "http://169.254.169.254/"
    said = down.platform.introduced("n" * 20)
    standing = asyncio.run(ask_to_peer(signer_of(down), peer, said, down.keys))
    assert standing.state is PeerState.OFFERED
    assert code(up.accept(down), 403) == "address_refused"
    assert up.view.peers[down.id].state is PeerState.OFFERED


def test_a_request_that_is_meant_for_another_exchange_is_refused(exchange):
    up, down = exchange("cn", makers=()), exchange("cn.sh", makers=())
    peer = Peer(
        id="cn.gd/exchange/main",
        prefix="cn.gd",
        public=up.keys.key.public,
        url=up.url,
        role=PeerRole.PARENT,
        state=PeerState.ASKED,
    )
    with pytest.raises(TielineError) as caught:
        asyncio.run(ask_to_peer(signer_of(down), peer, down.platform.introduced("n" * 20), down.keys))
    assert caught.value.reasons[0].code == "peer_misdirected"
    assert up.view.peers == {}


def test_only_an_active_peer_gets_in_and_only_with_its_own_key(exchange, pair):
    up, down = pair
    stranger = exchange("org.x", makers=())
    assert called(down, up, PeerStanding, "/v1/standing").state is PeerState.ACTIVE
    assert refused(stranger, up).reasons[0].code == "peer_unknown"
    assert refused(down, up, key=Key(hashlib.sha256(b"thief").digest())).reasons[0].code == "peer_signature"
    stranger.add(up)
    assert refused(stranger, up).reasons[0].code == "peer_not_active"
    up.change(down, "remove")
    assert refused(down, up).reasons[0].code == "peer_unknown"


def test_a_peer_reads_only_what_it_was_granted(pair):
    up, down = pair
    up.change(down, "grant", may_read=False)
    assert refused(down, up).code == "forbidden"
    assert called(down, up, PeerStanding, "/v1/standing").may_read is False
    for path in ("/v1/jobs", "/v1/status", "/v1/peers", "/v1/events", "/v1/tokens"):
        assert refused(down, up, path=path, reply=dict).code == "forbidden", path


def signed_request(pair, method="GET", path="/v1/standing", body=None, **headers):
    up, down = pair
    sent = {"Host": up.url.removeprefix("http://"), **headers}
    return path, signer_of(down).headers(method, up.url + path, up.id, sent, body=body)


def test_a_signed_request_that_is_sent_again_is_refused_and_shown(pair):
    up, down = pair
    path, headers = signed_request(pair)
    with httpx.Client(base_url=up.url) as plain:
        assert plain.get(path, headers=headers).status_code == 200
        again = plain.get(path, headers=headers)
    assert again.json()["reasons"][0]["code"] == "peer_replayed"
    assert up.branch(down)["calls"]["unproved"] == 1
    assert up.branch(down)["rejected"] == {"peer_replayed": 1}


def test_a_body_that_was_changed_on_the_way_does_not_reach_its_handler(pair):
    up, down = pair
    body = json.dumps({"buckets": [1]}).encode()
    changed = json.dumps({"buckets": [2]}).encode()
    path, headers = signed_request(pair, "POST", "/v1/logs/cn/buckets", body, **{"Content-Type": "application/json"})
    with httpx.Client(base_url=up.url) as plain:
        answer = plain.post(path, content=changed, headers=headers)
        assert code(answer, 401) == "unauthenticated"
        assert answer.json()["reasons"][0]["code"] == "peer_body"
        path, headers = signed_request(
            pair, "POST", "/v1/logs/cn/buckets", None, **{"Content-Type": "application/json"}
        )
        assert plain.post(path, content=body, headers=headers).json()["reasons"][0]["code"] == "peer_body"
    assert up.branch(down)["rejected"] == {"peer_body": 2}


def test_a_peer_that_floods_is_slowed_and_shown_and_others_are_not(exchange):
    up = exchange("cn", makers=(), limits=Limits(requests_per_s=1, requests_burst=3))
    down = exchange("cn.sh", makers=())
    up.do(_asked(down))
    down.do(_asked(up))
    up.change(down, "confirm")
    down.change(up, "confirm")

    def flood():
        for _ in range(40):
            called(down, up, PeerStanding, "/v1/standing")

    with pytest.raises(TielineError) as caught:
        flood()
    assert caught.value.code == "rate_limited"
    counts = up.platform.peer_calls.of(down.id)
    assert counts["limited"] >= 1
    assert counts["calls"] > counts["limited"]
    assert up.platform.peer_calls.tally(down.id).rejected == {"rate_limited": counts["limited"]}
    assert httpx.get(up.url + "/v1/exchange").status_code == 200


def _asked(other):
    from tieline.exchange.commands import AskPeer, Greeting
    from tieline.model.party import SYSTEM

    greeting = Greeting(id=other.id, prefix=other.prefix, public=other.keys.key.public, url=other.url)
    role = PeerRole.CHILD if "." in other.prefix else PeerRole.PARENT
    return AskPeer(actor=SYSTEM, greeting=greeting, role=role)


def test_what_is_granted_and_pulled_is_changed_by_an_admin_and_shown(pair):
    up, down = pair
    name = down.id.replace("/", "~")
    changed = up.http.post(
        f"/v1/peers/{name}/grant", json={"kinds": ["pool"], "prefixes": ["cn.sh"], "may_read": False}
    )
    assert changed.json()["kinds"] == ["pool"]
    assert up.branch(down)["may_read"] is False
    assert code(up.http.post(f"/v1/peers/{name}/grant", json={"kinds": ["nonsense"]}), 400) == "invalid_request"
    assert code(up.http.post("/v1/peers/cn.xx~exchange~main/grant", json={}), 404) == "not_found"
    up.do(_blame(down))
    assert up.branch(down)["fault"]["code"] == "peer_body"
    assert up.http.post(f"/v1/peers/{name}/clear").json()["fault"] is None
    assert up.http.delete(f"/v1/peers/{name}").json()["state"] == "removed"


def _blame(peer):
    from tieline.exchange.commands import BlamePeer

    return BlamePeer(peer=peer.id, code="peer_body", values={})


def test_a_token_cannot_be_that_of_a_peer(exchange):
    here = exchange("cn", makers=())
    answer = here.http.post("/v1/tokens", json={"roles": ["peer"], "name": "evil"})
    assert code(answer, 400) == "invalid_request"
