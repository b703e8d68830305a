"""One application for the life of a process: as a leader it speaks while its lease holds, else the leader is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from following_parts import NOW_MS, SIBLINGS, Caller, scope

from tieline.api.answer import Answer, GoneError
from tieline.api.following.front import Front, Leading
from tieline.drivers.stores.leadership import LEASE_S, Lease
from tieline.ports import FakeClock


class App:
    """An exchange's application that answers who called."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(dict(scope))
        await Answer(b"exchange")(scope, receive, send)


class Led:
    """A front that leads; its lease holds until `late`."""

    def __init__(self, *, peers_from_ms: int = 0) -> None:
        self.now_s = 100.0
        self.lease = Lease(timer=lambda: self.now_s)
        self.lease.renew(self.lease.begun())
        self.app, self.front = App(), Front()
        self.closed = 0
        self.front.part = Leading(
            self.app,
            SIBLINGS,
            self.lease,
            FakeClock(at_ms=NOW_MS),
            lambda: 41,
            lambda: b"[]",
            self.close,
            peers_from_ms=peers_from_ms,
        )

    def close(self) -> None:
        self.closed += 1

    def ask(self, request: dict[str, Any]) -> Caller:
        return asked(self.front, request)


def asked(front: Front, request: Any) -> Caller:
    caller = Caller()
    asyncio.run(front(request, caller.receive, caller.send))
    return caller


def test_a_process_without_a_part_tells_everybody_to_wait() -> None:
    caller = asked(Front(), scope())
    assert (caller.status, caller.headers["retry-after"]) == (503, "1")


def test_an_answer_says_how_far_it_knows_the_log() -> None:
    caller = Led().ask(scope())
    assert (caller.status, caller.headers["tieline-as-of"]) == (200, f"41;at={NOW_MS}")


@pytest.mark.parametrize(("path", "status"), [("/v1/me", 503), ("/v1/jobs", 503), ("/readyz", 503), ("/healthz", 200)])
def test_a_leader_whose_lease_is_over_says_nothing_as_one(path: str, status: int) -> None:
    led = Led()
    led.now_s += LEASE_S
    caller = led.ask(scope("GET", path))
    assert caller.status == status
    assert ("tieline-untaken" in caller.headers) == (status == 503)
    assert bool(led.app.seen) == (status == 200)


def test_a_sibling_says_from_where_a_request_came() -> None:
    led = Led()
    stated = SIBLINGS.stated("198.51.100.7", "GET", b"/v1/me?x=1", NOW_MS).decode()
    assert led.ask(scope("GET", "/v1/me", "x=1", tieline_forwarded=stated)).status == 200
    (seen,) = led.app.seen
    assert seen["client"] == ("198.51.100.7", 0)
    assert [name for name, _ in seen["headers"]] == []


@pytest.mark.parametrize("stated", ["198.51.100.7", "at=1;for=198.51.100.7;mac=" + "0" * 64])
def test_nobody_else_says_from_where_a_request_came(stated: str) -> None:
    led = Led()
    caller = led.ask(scope(tieline_forwarded=stated))
    assert (caller.status, led.app.seen) == (401, [])
    assert b"unauthenticated" in caller.body


def test_only_a_sibling_is_told_what_heartbeats_say() -> None:
    led = Led()
    stated = SIBLINGS.stated("", "GET", b"/siblings/available", NOW_MS).decode()
    assert led.ask(scope("GET", "/siblings/available", tieline_forwarded=stated)).body == b"[]"
    assert led.app.seen == []
    assert led.ask(scope("GET", "/siblings/available")).body == b"exchange"


def test_signed_requests_of_peers_wait_for_a_new_leader() -> None:
    led = Led(peers_from_ms=NOW_MS + 4_001)
    caller = led.ask(scope(tieline_from="cn/exchange/a"))
    assert (caller.status, caller.headers["retry-after"], led.app.seen) == (503, "5", [])
    assert led.ask(scope()).status == 200
    assert Led(peers_from_ms=NOW_MS).ask(scope(tieline_from="cn/exchange/a")).status == 200


def test_a_part_that_was_replaced_answers_those_whom_it_has() -> None:
    async def story() -> None:
        front, began, go_on = Front(), asyncio.Event(), asyncio.Event()

        class Slow:
            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                began.set()
                await go_on.wait()
                await Answer(b"slow")(scope, receive, send)

            def closing(self) -> None:
                """Nothing."""

        slow = Slow()
        front.part = slow
        caller = Caller()
        asking = asyncio.create_task(front(scope(), caller.receive, caller.send))  # type: ignore[arg-type]
        await began.wait()
        front.part = None
        assert not await front.quiet(slow, 0.05)
        go_on.set()
        assert await front.quiet(slow)
        await asking
        assert caller.body == b"slow"

    asyncio.run(story())


def test_a_caller_that_has_gone_is_no_defect() -> None:
    class Gone:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            raise GoneError

        def closing(self) -> None:
            """Nothing."""

    front = Front()
    front.part = Gone()
    assert asked(front, scope()).messages == []


def test_the_end_of_the_process_ends_the_streams_of_its_part() -> None:
    led = Led()
    led.front.closing()
    assert led.closed == 1
    Front().closing()


def test_sockets_of_other_kinds_are_closed_and_a_lifespan_is_answered() -> None:
    async def story() -> None:
        front = Front()
        closed = Caller()
        await front({"type": "websocket"}, closed.receive, closed.send)  # type: ignore[arg-type,typeddict-item]
        assert closed.messages[0]["code"] == 4404
        said = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        life = Caller()

        async def receive() -> Any:
            return next(said)

        await front({"type": "lifespan"}, receive, life.send)  # type: ignore[arg-type,typeddict-item]
        assert [message["type"] for message in life.messages] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]

    asyncio.run(story())
