"""What a peer may not have, and what of it is not believed: bytes, runs and statements that are not its own."""

import asyncio
import hashlib

import pytest
from use_world import LIMITS, MAKERS

from peer_world import until
from tieline.drivers.peers.client import PeerClient
from tieline.model.error import TielineError
from tieline.model.peer import DelegatedToken
from tieline.model.peerlog import LogMark, LogPieces, LogsWanted
from tieline.model.protocol import Offer, PaidClaims, PeerAnswers, PeerOrders, ReportPage
from tieline.model.task import Mount, Task
from tieline.registry.delegated import sealed_token

CONTENT = b"bytes of somebody else"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def pair(exchange):
    a, b = exchange("cn.a", limits=LIMITS, makers=MAKERS[:1]), exchange("cn.b", limits=LIMITS, makers=MAKERS[:1])
    a.add(b)
    b.accept(a, may_use=True)
    until(lambda: a.is_active(b) and b.is_active(a))
    return a, b


def as_peer(a, b, work):
    """What ``work(client)`` gives, signed by ``a``."""

    async def call():
        async with PeerClient(b.url, b.id, a.platform.signer) as client:
            return await work(client)

    return asyncio.run(call())


def refused(code, a, b, work):
    with pytest.raises(TielineError) as caught:
        as_peer(a, b, work)
    assert caught.value.code == code, caught.value.message


async def _chunks(content):
    yield content


def upload(sha256, content):
    return lambda client: client.upload(f"/v1/peer/blobs/{sha256}", sha256, lambda: _chunks(content), headers=BYTES)


def test_bytes_are_kept_by_their_hash_for_who_sent_them(pair):
    a, b = pair
    path = f"/v1/peer/blobs/{SHA256}"
    refused("not_found", a, b, lambda client: client.raw("HEAD", path))
    as_peer(a, b, upload(SHA256, CONTENT))
    as_peer(a, b, lambda client: client.raw("HEAD", path))
    refused("not_found", a, b, lambda client: client.raw("GET", path, params={"run": "j-0.1"}))


def test_bytes_of_another_hash_are_not_kept(pair):
    a, b = pair
    other = hashlib.sha256(b"other").hexdigest()

    async def lie(client):
        sent = {**BYTES, "x-tieline-digest": SHA256}
        return await client.raw("PUT", f"/v1/peer/blobs/{other}", body=lambda: _chunks(CONTENT), headers=sent)

    refused("check_failed", a, b, lie)
    assert b.platform.blobs.count == 0


def test_an_offer_that_came_over_more_exchanges_than_are_allowed_is_refused_by_name(pair):
    a, b = pair
    middle = tuple(f"cn.{name}/exchange/main" for name in "xyz")
    now_s = a.clock.now_ms() // 1000
    right = DelegatedToken(
        id="j-1.1", by=a.id, to=b.id, user="u", scopes=("run",), nb_s=now_s, exp_s=now_s + 600, owner="cn.a",
        job="cn.a/job/j-1", run="j-1.1", pool="cn.b.lab/pool/cpu",
    )  # fmt: skip
    token = sealed_token(right, a.keys.key, a.keys.kid)
    for path, code in (((*middle, a.id), "path_long"), ((*middle, "cn.w/exchange/main"), "path_wrong")):
        offer = Offer(
            run="j-1.1", job="cn.a/job/j-1", epoch=1, pool="cn.b.lab/pool/cpu", task=Task(run="true"), alternative=0,
            user="u", user_owner="cn.a", core_count=1, memory_bytes=0, accelerator_count=0, stop_after_s=0,
            price_micro_cny_per_unit_hour=1, ttl_ms=60_000, state="offered", path=path,
            token=token,
        )  # fmt: skip
        orders = PeerOrders(orders=(offer,))
        said = as_peer(
            a, b, lambda client, body=orders: client.call("POST", "/v1/peer/orders", PeerAnswers, body=body, key=None)
        )
        (report,) = said.answers[0].reports
        assert (report.run, report.reason.code) == ("j-1.1", code)
    assert not b.view.guests


def test_an_offer_does_not_name_the_bytes_of_others(pair):
    a, b = pair
    kept = b.http.post("/v1/blobs", content=CONTENT, headers=BYTES)
    assert kept.json()["sha256"] == SHA256
    refused("not_found", a, b, lambda client: client.raw("HEAD", f"/v1/peer/blobs/{SHA256}"))
    task = Task(run="cat it", mounts=(Mount(path="it", sha256=SHA256),))
    offer = Offer(
        run="j-1.1", job="cn.a/job/j-1", epoch=1, pool="cn.b.lab/pool/cpu", task=task, alternative=0, user="u",
        user_owner="cn.a", core_count=1, memory_bytes=0, accelerator_count=0, price_micro_cny_per_unit_hour=1,
        stop_after_s=0, ttl_ms=60_000, state="offered",
    )  # fmt: skip
    said = as_peer(
        a,
        b,
        lambda client: client.call("POST", "/v1/peer/orders", PeerAnswers, body=PeerOrders(orders=(offer,)), key=None),
    )
    (answer,) = said.answers
    assert "was not sent before it" in str(answer.reports[0].reason.values)
    assert not b.view.guests


def test_logs_and_reports_of_runs_that_are_not_its_own_say_nothing(pair):
    a, b = pair
    wanted = LogsWanted(logs=(LogMark(run="j-1.1"), LogMark(run="../x", node=1)))
    found = as_peer(a, b, lambda client: client.call("POST", "/v1/peer/logs", LogPieces, body=wanted, key=None))
    assert [(piece.data, piece.is_over) for piece in found.pieces] == [(b"", True), (b"", True)]
    page = as_peer(a, b, lambda client: client.call("GET", "/v1/peer/reports", ReportPage))
    assert page.reports == ()
    paid = as_peer(
        a, b, lambda client: client.raw("POST", "/v1/peer/answers", body=PaidClaims(answers=("{}",)), key=None)
    )
    assert paid == b'{"kept":0}'


def test_nothing_is_used_without_a_grant_or_a_signature(pair):
    a, b = pair
    b.change(a, "grant", may_use=False)
    refused("forbidden", a, b, upload(SHA256, CONTENT))
    assert as_peer(a, b, lambda client: client.raw("GET", "/v1/peer/state")).count(b"pools") == 0
    assert b.http.get("/v1/peer/state").status_code == 403
    b.change(a, "remove")
    for path in ("/v1/peer/state", "/v1/peer/reports"):
        refused("unauthenticated", a, b, lambda client, path=path: client.raw("GET", path))
