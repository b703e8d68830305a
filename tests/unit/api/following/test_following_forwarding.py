"""What only the leader can answer is passed on to it; when it goes away, only what may be said twice is said twice."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from following_parts import NOW_MS, SIBLINGS, WAIT_S, Caller, LeaderStub, forwarding, operation, scope
from test_api_serve import self_signed

from tieline.api.answer import GoneError, ThrottledError
from tieline.api.following import forwarding as module
from tieline.cli.standing import fingerprint
from tieline.drivers.stores.leadership import Leader
from tieline.model.error import TielineError

DEAD = Leader(term=1, url="http://127.0.0.1:9")  # nobody listens there


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            await story()

    asyncio.run(bounded())


async def fine(_: web.Request) -> web.StreamResponse:
    return web.Response(status=201, text="done", headers={"Tieline-As-Of": "41;at=5", "X-Kept": "1"})


async def dies(request: web.Request) -> web.StreamResponse:
    """The leader is killed while it has the request."""
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(WAIT_S)
    raise AssertionError


def test_a_request_travels_whole_and_so_does_its_answer() -> None:
    async def story() -> None:
        leader = LeaderStub(fine)
        seen: list[int] = []

        async def reached(position: int) -> None:
            seen.append(position)

        async with leader.running() as led, forwarding() as (forwarder, _):
            forwarder.turn(led)
            request = scope(
                "POST",
                "/v1/jobs/cn.demo%2Fjob%2Fj-1/stop",
                "a=%20b",
                host="exchange.example",
                authorization="Bearer tl-1",
                idempotency_key="k1",
                content_type="application/json",
                content_length="12",
                connection="keep-alive, x-mine",
                x_mine="1",
                te="trailers",
                tieline_forwarded="at=1;for=198.51.100.1;mac=" + "0" * 64,
            )
            caller = Caller(b'{"why"', b':"no"}')
            await forwarder.forward(request, caller.receive, caller.send, operation("stop_job"), reached)
        (asked,) = leader.asked
        assert (asked.method, asked.raw_path) == ("POST", "/v1/jobs/cn.demo%2Fjob%2Fj-1/stop?a=%20b")
        assert leader.bodies == [b'{"why":"no"}']
        assert asked.headers["host"] == "exchange.example"
        assert asked.headers["authorization"] == "Bearer tl-1"
        assert asked.headers["idempotency-key"] == "k1"
        assert not {"te", "x-mine", "user-agent", "accept-encoding"} & {name.lower() for name in asked.headers}
        (stated,) = asked.headers.getall("tieline-forwarded")
        assert SIBLINGS.address(stated.encode(), "POST", asked.raw_path.encode(), NOW_MS) == "203.0.113.9"
        assert (caller.status, caller.body, caller.headers["x-kept"]) == (201, b"done", "1")
        assert seen == [41]

    run(story)


@pytest.mark.parametrize(
    ("method", "path", "name", "headers"),
    [
        ("POST", "/v1/jobs", "submit_jobs", {"idempotency_key": "k1"}),
        ("GET", "/v1/status", "read_status", {}),
        ("DELETE", "/v1/tokens/t-1", "revoke_token", {}),
        ("POST", "/v1/plans", "plan", {}),
        ("POST", "/v1/site/reports", "report", {}),
    ],
)
def test_what_may_be_said_twice_goes_to_the_next_leader(method: str, path: str, name: str, headers: Any) -> None:
    async def story() -> None:
        first, second = LeaderStub(dies), LeaderStub(fine)
        async with first.running() as old, second.running(2) as new, forwarding() as (forwarder, suspected):
            forwarder.turn(old)
            caller = Caller(b"{}")
            asking = asyncio.create_task(
                forwarder.forward(
                    scope(method, path, content_length="2", **headers), caller.receive, caller.send, operation(name)
                )
            )
            await first.came.wait()
            forwarder.turn(new)
            await asking
            assert caller.status == 201
            assert first.bodies[0] == second.bodies[0] == b"{}"
            assert suspected

    run(story)


@pytest.mark.parametrize(
    ("path", "name", "headers"),
    [
        ("/v1/jobs", "submit_jobs", {}),
        ("/v1/site/sessions", "open_session", {}),
        ("/v1/peer/orders", "take_peer_orders", {"idempotency_key": "k1", "tieline_from": "cn/exchange/a"}),
    ],
)
def test_what_may_have_been_kept_and_cannot_be_said_twice_is_refused(path: str, name: str, headers: Any) -> None:
    async def story() -> None:
        first, second = LeaderStub(dies), LeaderStub(fine)
        async with first.running() as old, second.running(2) as new, forwarding() as (forwarder, _):
            forwarder.turn(old)
            caller = Caller(b"{}")
            asking = asyncio.create_task(
                forwarder.forward(
                    scope("POST", path, content_length="2", **headers), caller.receive, caller.send, operation(name)
                )
            )
            await first.came.wait()
            forwarder.turn(new)
            with pytest.raises(TielineError, match="may have kept it") as caught:
                await asking
            assert caught.value.code == "not_leader"
            assert (second.asked, caller.messages) == ([], [])

    run(story)


def test_a_leader_that_stands_still_is_not_waited_for_once_another_leads() -> None:
    async def story() -> None:
        async def hangs(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(WAIT_S)
            raise AssertionError

        first, second = LeaderStub(hangs), LeaderStub(fine)
        async with first.running() as old, second.running(2) as new, forwarding() as (forwarder, _):
            forwarder.turn(old)
            caller = Caller()
            asking = asyncio.create_task(
                forwarder.forward(scope(), caller.receive, caller.send, operation("read_status"))
            )
            await first.came.wait()
            forwarder.turn(new)
            await asking
            assert caller.status == 201

    run(story)


def test_what_was_never_sent_is_sent_to_the_next_leader() -> None:
    async def story() -> None:
        second = LeaderStub(fine)
        async with second.running(2) as new, forwarding() as (forwarder, suspected):
            forwarder.turn(DEAD)
            caller = Caller(b"{}")
            asking = asyncio.create_task(
                forwarder.forward(
                    scope("POST", "/v1/jobs", content_length="2"),
                    caller.receive,
                    caller.send,
                    operation("submit_jobs"),
                )
            )
            while not suspected:  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.01)
            forwarder.turn(new)
            await asking
            assert (caller.status, second.bodies) == (201, [b"{}"])

    run(story)


def test_a_refusal_of_one_that_does_not_lead_is_no_answer() -> None:
    async def story() -> None:
        refusals = [
            web.json_response({"code": "not_leader", "message": "no"}, status=503, headers={"tieline-untaken": "1"})
        ]

        async def at_first(request: web.Request) -> web.StreamResponse:
            return refusals.pop() if refusals else await fine(request)

        leader = LeaderStub(at_first)
        async with leader.running() as led, forwarding() as (forwarder, _):
            forwarder.turn(led)
            caller = Caller(b"{}")
            await forwarder.forward(
                scope("POST", "/v1/jobs", content_length="2"), caller.receive, caller.send, operation("submit_jobs")
            )
            assert (caller.status, len(leader.asked)) == (201, 2)

    run(story)


def test_a_full_queue_is_the_callers_to_wait_for() -> None:
    async def story() -> None:
        async def full(_: web.Request) -> web.StreamResponse:
            return web.json_response(
                {"code": "overloaded", "message": "full"}, status=503, headers={"Retry-After": "7"}
            )

        leader = LeaderStub(full)
        async with leader.running() as led, forwarding() as (forwarder, _):
            forwarder.turn(led)
            caller = Caller()
            await forwarder.forward(
                scope("POST", "/v1/jobs", idempotency_key="k"), caller.receive, caller.send, operation("submit_jobs")
            )
            assert (caller.status, caller.headers["retry-after"], len(leader.asked)) == (503, "7", 1)
            assert b"overloaded" in caller.body

    run(story)


def test_without_a_leader_a_request_waits_for_one_and_then_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        leader = LeaderStub(fine)
        async with leader.running() as led, forwarding() as (forwarder, _):
            caller = Caller()
            asking = asyncio.create_task(
                forwarder.forward(scope(), caller.receive, caller.send, operation("read_status"))
            )
            while not forwarder.waiting:  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.01)
            forwarder.turn(led)
            await asking
            assert caller.status == 201
            forwarder.turn(None)
            monkeypatch.setattr(module, "WAIT_S", 0.05)
            with pytest.raises(ThrottledError, match="nothing was changed") as caught:
                await forwarder.forward(scope(), Caller().receive, Caller().send, operation("read_status"))
            assert caught.value.code == "not_leader"

    run(story)


def test_only_so_many_wait_and_only_so_many_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with forwarding() as (forwarder, _):
            for name, code in (("MOST_WAITING", "not_leader"), ("MOST_OPEN", "overloaded")):
                monkeypatch.setattr(module, name, 0)
                with pytest.raises(ThrottledError) as caught:
                    await forwarder.forward(scope(), Caller().receive, Caller().send, operation("read_status"))
                assert caught.value.code == code
            assert (forwarder.waiting, forwarder.open) == (0, 0)

    run(story)


def test_a_stream_ends_when_another_one_leads_so_that_its_reader_listens_to_that() -> None:
    async def story() -> None:
        async def streams(request: web.Request) -> web.StreamResponse:
            stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await stream.prepare(request)
            await stream.write(b"data: 1\n\n")
            await asyncio.sleep(WAIT_S)
            raise AssertionError

        leader = LeaderStub(streams)
        async with leader.running() as led, forwarding() as (forwarder, _):
            forwarder.turn(led)
            caller = Caller()
            asking = asyncio.create_task(
                forwarder.forward(
                    scope("GET", "/v1/site/stream"), caller.receive, caller.send, operation("stream_orders")
                )
            )
            while len(caller.messages) < 2:  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.01)
            forwarder.turn(None)
            await asking
            assert caller.body == b"data: 1\n\n"
            assert caller.messages[-1]["more_body"] is False

    run(story)


def test_an_answer_that_breaks_off_is_not_passed_on_as_whole() -> None:
    async def story() -> None:
        async def breaks(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse(headers={"Content-Length": "100"})
            await answer.prepare(request)
            await answer.write(b"half")
            assert request.transport is not None
            request.transport.close()
            await asyncio.sleep(WAIT_S)
            raise AssertionError

        leader = LeaderStub(breaks)
        async with leader.running() as led, forwarding() as (forwarder, _):
            forwarder.turn(led)
            caller = Caller()
            with pytest.raises(GoneError):
                await forwarder.forward(
                    scope("GET", "/v1/blobs/x"), caller.receive, caller.send, operation("read_blob")
                )
            assert all(message.get("more_body", True) for message in caller.messages)

    run(story)


def test_a_caller_that_leaves_is_not_asked_for_any_more() -> None:
    async def story() -> None:
        async def hangs(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(WAIT_S)
            raise AssertionError

        leader = LeaderStub(hangs)
        async with leader.running() as led, forwarding() as (forwarder, _):
            forwarder.turn(led)
            caller = Caller()
            asking = asyncio.create_task(
                forwarder.forward(scope(), caller.receive, caller.send, operation("read_status"))
            )
            await leader.came.wait()
            caller.left.set()
            with pytest.raises(GoneError):
                await asking
            assert forwarder.open == 0

    run(story)


def test_a_large_body_is_streamed_and_so_is_not_said_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr(module, "KEPT_BYTES", 10)
        first, second = LeaderStub(fine), LeaderStub(dies)
        async with first.running() as good, second.running(2) as bad, forwarding() as (forwarder, _):
            forwarder.turn(good)
            request = scope("POST", "/v1/blobs", content_length="12", idempotency_key="k1")
            caller = Caller(b"twelve", b" bytes")
            await forwarder.forward(request, caller.receive, caller.send, operation("store_blob"))
            assert (caller.status, first.bodies) == (201, [b"twelve bytes"])
            assert first.asked[0].headers["content-length"] == "12"
            forwarder.turn(bad)
            caller = Caller(b"twelve", b" bytes")
            with pytest.raises(TielineError, match="may have kept it"):
                await forwarder.forward(request, caller.receive, caller.send, operation("store_blob"))

    run(story)


def test_what_is_asked_for_this_process_itself_is_signed_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        answers = [web.Response(body=b"[1]"), web.Response(status=503), web.Response(body=b"x" * 100)]
        leader = LeaderStub(lambda _: asyncio.sleep(0, answers.pop(0)))
        async with leader.running() as led, forwarding() as (forwarder, _):
            with pytest.raises(module.LeaderGoneError):
                await forwarder.ask("/siblings/available")
            forwarder.turn(led)
            assert await forwarder.ask("/siblings/available") == b"[1]"
            stated = leader.asked[0].headers["tieline-forwarded"].encode()
            assert SIBLINGS.address(stated, "GET", b"/siblings/available", NOW_MS) == ""
            with pytest.raises(module.LeaderGoneError, match="503"):
                await forwarder.ask("/siblings/available")
            monkeypatch.setattr(module, "ASKED_BYTES", 99)
            with pytest.raises(module.LeaderGoneError, match="more than 99"):
                await forwarder.ask("/siblings/available")

    run(story)


def test_only_the_certificate_that_the_leaders_row_names_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def story() -> None:
        leader = LeaderStub(fine)
        async with leader.running(tls=context) as led, forwarding() as (forwarder, _):
            caller = Caller()
            forwarder.turn(msgspec.structs.replace(led, certificate=fingerprint(certificate)))
            await forwarder.forward(scope(), caller.receive, caller.send, operation("read_status"))
            assert caller.status == 201
            monkeypatch.setattr(module, "WAIT_S", 0.05)
            for other in ("", "00" * 32):  # no authority signed it; it is another one
                forwarder.turn(msgspec.structs.replace(led, term=2, certificate=other))
                with pytest.raises(ThrottledError, match="does not answer"):
                    await forwarder.forward(scope(), Caller().receive, Caller().send, operation("read_status"))
            assert len(leader.asked) == 1

    run(story)
