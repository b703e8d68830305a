"""The HTTP client against a server in the test: typed answers, errors as data, retries that change nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from aiohttp import web

from tieline.drivers.http import HttpClient, ServerEvent
from tieline.drivers.http.backoff import Backoff
from tieline.drivers.http.client import checked_url, is_loopback
from tieline.drivers.http.resume import resumed
from tieline.model.error import ErrorEnvelope, TielineError
from tieline.model.reason import Reason

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SOON = Backoff(first_s=0.001, most_s=0.001)


class Pair(msgspec.Struct):
    a: int
    b: str = ""


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """An HTTP server on loopback whose every path is answered by ``handler``."""
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def with_server(handler: Handler, ask: Callable[[HttpClient], Awaitable[T]], **options: object) -> T:
    async def both() -> T:
        async with serving(handler) as url, HttpClient(url, **options) as client:  # type: ignore[arg-type]
            return await ask(client)

    return asyncio.run(both())


def test_a_struct_goes_out_as_json_and_comes_back_typed():
    async def echo(request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["Authorization"] == "Bearer tl-abc"
        assert request.query == {"n": "1"}
        return web.Response(body=await request.read())

    reply = with_server(
        echo, lambda client: client.call("POST", "/x", Pair, body=Pair(a=1, b="汇"), params={"n": 1}), bearer="tl-abc"
    )
    assert reply == Pair(a=1, b="汇")


def test_the_error_envelope_becomes_the_same_error_with_its_reasons_and_hints():
    sent = TielineError(
        "unplaceable",
        "nothing fits",
        reasons=(Reason(code="site_silent", count=3),),
        hints=("tieline find",),
        where="x",
    )

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=422, body=msgspec.json.encode(sent.envelope))

    with pytest.raises(TielineError) as caught:
        with_server(refuse, lambda client: client.raw("GET", "/x"))
    assert caught.value.envelope == sent.envelope


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "unauthenticated"), (404, "not_found"), (413, "too_large"), (418, "invalid_request"), (500, "internal")],
)
def test_a_page_of_some_other_server_is_an_error_by_its_status(status: int, code: str):
    async def page(_: web.Request) -> web.Response:
        return web.Response(status=status, text="<html>oops</html>")

    with pytest.raises(TielineError) as caught:
        with_server(page, lambda client: client.raw("GET", "/x"))
    assert caught.value.code == code


def test_a_redirect_is_not_followed_because_it_would_carry_the_bearer_away():
    async def away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://example.invalid/"})

    with pytest.raises(TielineError, match="redirected"):
        with_server(away, lambda client: client.raw("GET", "/x"), bearer="secret")


def test_an_answer_that_is_not_understood_says_so():
    async def other(_: web.Request) -> web.Response:
        return web.Response(text='{"a": "one"}')

    with pytest.raises(TielineError) as caught:
        with_server(other, lambda client: client.call("GET", "/x", Pair))
    assert caught.value.code == "check_failed"


def test_a_post_is_tried_again_with_the_same_idempotency_key():
    keys: list[str] = []

    async def busy(request: web.Request) -> web.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) < 3:
            body = msgspec.json.encode(ErrorEnvelope(code="overloaded", message="full"))
            return web.Response(status=503, body=body, headers={"Retry-After": "0"})
        return web.Response(body=b'{"a":1}')

    assert with_server(busy, lambda client: client.call("POST", "/x", Pair, body=b"{}")) == Pair(a=1)
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_post_without_a_key_is_tried_once():
    calls: list[str] = []

    async def busy(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=503)

    with pytest.raises(TielineError) as caught:
        with_server(busy, lambda client: client.raw("POST", "/x", key=None))
    assert caught.value.code == "exchange_unreachable"
    assert type(caught.value) is TielineError
    assert len(calls) == 1


def test_tries_are_bounded():
    calls: list[str] = []

    async def busy(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=429)

    with pytest.raises(TielineError) as caught:
        with_server(busy, lambda client: client.raw("GET", "/x"), attempts=2)
    assert caught.value.code == "rate_limited"
    assert len(calls) == 2


def test_a_connection_that_breaks_in_the_answer_is_made_again_for_a_get():
    calls: list[int] = []

    async def cut(request: web.Request) -> web.StreamResponse:
        calls.append(1)
        if len(calls) == 1:
            response = web.StreamResponse(headers={"Content-Length": "100"})
            await response.prepare(request)
            await response.write(b"half")
            assert request.transport is not None
            request.transport.close()
            return response
        return web.Response(body=b"whole")

    assert with_server(cut, lambda client: client.raw("GET", "/x")) == b"whole"


def test_nobody_there_is_exchange_unreachable():
    async def never(_: web.Request) -> web.Response:
        raise AssertionError

    async def ask() -> None:
        async with serving(never) as url:
            pass
        async with HttpClient(url, attempts=1) as client:
            await client.raw("GET", "/x")

    with pytest.raises(TielineError) as caught:
        asyncio.run(ask())
    assert caught.value.code == "exchange_unreachable"
    assert caught.value.transient


def test_a_silent_server_is_a_timeout():
    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    with pytest.raises(TielineError) as caught:
        with_server(silent, lambda client: client.raw("GET", "/x", total_s=0.05, attempts=1))
    assert caught.value.code == "timeout"


def test_an_answer_over_the_limit_is_refused_while_it_arrives():
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(10_000):
                await response.write(b"x" * 65_536)
        return response

    with pytest.raises(TielineError) as caught:
        with_server(flood, lambda client: client.raw("GET", "/x"), limit_bytes=100_000)
    assert caught.value.code == "too_large"


def test_a_compressed_answer_is_not_blown_up():
    async def bomb(_: web.Request) -> web.Response:
        return web.Response(body=b"\x1f\x8b not unpacked", headers={"Content-Encoding": "gzip"})

    assert with_server(bomb, lambda client: client.raw("GET", "/x")) == b"\x1f\x8b not unpacked"


def test_a_stream_goes_up_and_down_without_being_held_whole():
    seen: list[int] = []

    async def mirror(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            seen.append(len(chunk))
            await response.write(chunk)
        return response

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"z" * 32_768

    async def ask(client: HttpClient) -> int:
        up = await client.raw("POST", "/up", body=chunks)
        size = 0
        async with contextlib.aclosing(client.download("/down", limit_bytes=1_000)) as stream:
            async for chunk in stream:
                size += len(chunk)
        return len(up) + size

    assert with_server(mirror, ask) == 64 * 32_768
    assert max(seen) < 2**20


def test_a_download_over_its_limit_is_refused():
    async def big(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 5_000)

    async def ask(client: HttpClient) -> None:
        async for _ in client.download("/x", limit_bytes=4_999):
            pass

    with pytest.raises(TielineError) as caught:
        with_server(big, ask)
    assert caught.value.code == "too_large"


CONTENT = bytes(range(256)) * 40


def downloaded(handle):
    """What `resumed` gives of a server's bytes, and the ranges that it asked for."""
    asked: list[tuple[str, str]] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        asked.append((request.headers.get("Range", ""), request.headers.get("If-Range", "")))
        return await handle(request, len(asked))

    async def ask(client: HttpClient) -> bytes:
        chunks = [chunk async for chunk in resumed(client, "/x", "abc", limit_bytes=len(CONTENT), tries=3)]
        return b"".join(chunks)

    return with_server(serve, ask), asked


async def cut_after(request: web.Request, size: int, start: int = 0) -> web.StreamResponse:
    """An answer that breaks off."""
    headers = {"Content-Length": str(len(CONTENT) - start)}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    response = web.StreamResponse(status=206 if start else 200, headers=headers)
    await response.prepare(request)
    await response.write(CONTENT[start : start + size])
    assert request.transport is not None
    request.transport.close()
    return response


def test_a_download_goes_on_where_it_was_cut():
    async def serve(request: web.Request, number: int) -> web.StreamResponse:
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        return await cut_after(request, 1_000 if number < 3 else len(CONTENT), start)

    content, asked = downloaded(serve)
    assert content == CONTENT
    assert asked == [("", ""), ("bytes=1000-", '"abc"'), ("bytes=2000-", '"abc"')]


def test_a_server_that_sends_the_whole_again_is_not_written_twice():
    async def serve(request: web.Request, number: int) -> web.StreamResponse:
        return await cut_after(request, 1_000 if number < 2 else len(CONTENT))

    assert downloaded(serve)[0] == CONTENT


def test_a_download_that_is_cut_after_its_last_byte_is_whole():
    async def serve(request: web.Request, number: int) -> web.StreamResponse:
        if number > 1:
            return web.Response(status=416, text='{"code":"range_not_satisfiable","message":"no such range"}')
        response = web.StreamResponse(headers={"Content-Length": str(len(CONTENT) + 1)})
        await response.prepare(request)
        await response.write(CONTENT)
        assert request.transport is not None
        request.transport.close()
        return response

    content, asked = downloaded(serve)
    assert content == CONTENT
    assert len(asked) == 2


@pytest.mark.parametrize(("size", "calls", "code"), [(1, 3, "exchange_unreachable"), (0, 3, "exchange_unreachable")])
def test_a_download_that_gets_nowhere_ends(size: int, calls: int, code: str):
    tried: list[int] = []

    async def serve(request: web.Request, number: int) -> web.StreamResponse:
        tried.append(number)
        return await cut_after(request, size, int(request.headers.get("Range", "bytes=0-")[6:-1]))

    with pytest.raises(TielineError) as caught:
        downloaded(serve)
    assert caught.value.code == code
    assert len(tried) == calls


def test_another_part_than_was_asked_for_is_not_taken():
    async def serve(request: web.Request, number: int) -> web.StreamResponse:
        return await cut_after(request, 1_000, 0 if number == 1 else 7)

    with pytest.raises(TielineError) as caught:
        downloaded(serve)
    assert caught.value.code == "check_failed"


def test_events_go_on_after_a_cut_from_the_last_identifier():
    asked: list[str] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Last-Event-ID", ""))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        first = int(asked[-1] or 0) + 1
        await response.write(
            f": hi\n\nid: {first}\ndata: {first}\n\nid: {first + 1}\ndata: {first + 1}\n\nid: 99\nda".encode()
        )
        assert request.transport is not None
        request.transport.close()
        return response

    async def ask(client: HttpClient) -> list[ServerEvent]:
        seen: list[ServerEvent] = []
        async with contextlib.aclosing(client.events("/stream", backoff=SOON)) as events:
            async for event in events:
                seen.append(event)
                if len(seen) == 5:
                    break
        return seen

    assert [event.data for event in with_server(stream, ask)] == [b"1", b"2", b"3", b"4", b"5"]
    assert asked == ["", "2", "4"]


def test_events_end_with_the_error_that_trying_again_cannot_mend():
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=401, body=msgspec.json.encode(ErrorEnvelope(code="unauthenticated", message="who?")))

    async def ask(client: HttpClient) -> None:
        async for _ in client.events("/stream", backoff=SOON):
            raise AssertionError

    with pytest.raises(TielineError, match=r"who\?"):
        with_server(refuse, ask)


def test_a_page_is_no_event_stream():
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def ask(client: HttpClient) -> None:
        async for _ in client.listen("/stream"):
            raise AssertionError

    with pytest.raises(TielineError, match="no event stream"):
        with_server(page, ask)


def test_a_stream_that_is_silent_too_long_is_given_up():
    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.sleep(60)
        return response

    async def ask(client: HttpClient) -> None:
        async for _ in client.listen("/stream", silence_s=0.05):
            raise AssertionError

    with pytest.raises(TielineError) as caught:
        with_server(silent, ask)
    assert caught.value.code == "timeout"


def test_an_explicit_proxy_is_used_even_for_a_name_that_only_the_proxy_knows():
    asked: list[str] = []

    async def proxy(request: web.Request) -> web.Response:
        asked.append(str(request.url))
        return web.Response(body=b"through")

    async def both() -> bytes:
        async with serving(proxy) as url, HttpClient("http://exchange.invalid:7070", proxy=url) as client:
            return await client.raw("GET", "/v1/exchange")

    assert asyncio.run(both()) == b"through"
    assert asked == ["http://exchange.invalid:7070/v1/exchange"]


def test_a_proxy_of_the_environment_is_used_but_not_for_loopback(monkeypatch: pytest.MonkeyPatch):
    async def proxy(_: web.Request) -> web.Response:
        return web.Response(body=b"through")

    async def direct(_: web.Request) -> web.Response:
        return web.Response(body=b"direct")

    async def both() -> tuple[bytes, bytes]:
        async with serving(proxy) as proxy_url, serving(direct) as direct_url:
            monkeypatch.setenv("http_proxy", proxy_url)
            monkeypatch.delenv("no_proxy", raising=False)
            async with HttpClient("http://exchange.invalid") as far, HttpClient(direct_url) as near:
                return await far.raw("GET", "/x"), await near.raw("GET", "/x")

    assert asyncio.run(both()) == (b"through", b"direct")


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "127.0.0.1:7070", "http://", "http://a:b@c", "http://h?q=1", "http://h:99999", "http://h:0"]
)
def test_an_address_that_is_none_is_refused_with_an_example(url: str):
    with pytest.raises(TielineError, match=r"not an address such as"):
        checked_url(url)


def test_loopback_is_known_by_its_literal_names_only():
    assert is_loopback("http://127.0.0.1:1")
    assert is_loopback("http://[::1]:1")
    assert is_loopback("http://localhost")
    assert not is_loopback("http://127.0.0.1.example.com")


def test_a_missing_certificate_authority_is_named(tmp_path: Path):
    async def ask() -> None:
        async with HttpClient("https://127.0.0.1:1", ca_file=str(tmp_path / "none.pem")) as client:
            await client.raw("GET", "/x")

    with pytest.raises(TielineError, match=r"none\.pem"):
        asyncio.run(ask())


def test_importing_the_client_does_not_import_aiohttp():
    code = "import sys, tieline.drivers.http; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
