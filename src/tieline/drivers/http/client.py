"""The one HTTP client: typed JSON, bytes and streams; errors as TielineError; retries only where they change nothing.

A call is tried again only when it is idempotent: GET, HEAD, PUT, DELETE, and POST with an ``Idempotency-Key`` (the same
key for every try). Redirects are not followed (they would carry the bearer elsewhere) and bodies are not decompressed
(a small answer cannot become a large one).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

import msgspec

from tieline import __version__
from tieline.drivers.http.backoff import Backoff
from tieline.drivers.http.failure import ENVELOPE_BYTES, refused, unreachable
from tieline.drivers.http.sse import ServerEvent, SseParser
from tieline.model.error import TielineError

if TYPE_CHECKING:
    import ssl

    import aiohttp

T = TypeVar("T")
Body: TypeAlias = "bytes | msgspec.Struct | Callable[[], AsyncIterator[bytes]] | None"
SAFE = ("GET", "HEAD", "PUT", "DELETE")
AGAIN = (429, 502, 503, 504)  # the server says: not now
PARTIAL = 206
REPLY_BYTES = 64 * 2**20
MOST_RETRY_AFTER_S = 10.0
CONNECTIONS = 64
KEEPALIVE_S = 60.0
OPEN_S, ALIVE_S, CLOSE_S = 15.0, 20.0, 5.0  # of a WebSocket: opened by then, asked so often, closed by then


class HttpClient:
    """Calls to one base URL. One connection is kept alive per concurrent call; close it, or use ``async with``."""

    def __init__(
        self,
        base_url: str,
        *,
        bearer: str = "",
        proxy: str = "",
        ca_file: str = "",
        connect_s: float = 5.0,
        total_s: float = 30.0,
        attempts: int = 4,
        limit_bytes: int = REPLY_BYTES,
    ) -> None:
        """``proxy`` overrides HTTP(S)_PROXY, which is honoured for all but loopback addresses. ``ca_file`` is the only
        certificate authority believed when given. Raises TielineError `invalid_request` for a URL that is none.
        """
        self.base_url = checked_url(base_url)
        self.bearer = bearer
        self.proxy = proxy
        self.ca_file = ca_file
        self.connect_s = connect_s
        self.total_s = total_s
        self.attempts = attempts
        self.limit_bytes = limit_bytes
        self.renew: Callable[[], Awaitable[str]] | None = None  # gives the bearer anew where it is one that ends
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. Calling again opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # -- calls --------------------------------------------------------------------------------------------------------

    async def call(self, method: str, path: str, reply: type[T], **options: Any) -> T:
        """Send a request and decode its JSON answer as ``reply``. Options as for `raw`.

        Raises the TielineError that the other side sent; `exchange_unreachable` or `timeout` when there was no answer;
        `check_failed` for an answer that is not what this version understands.
        """
        body = await self.raw(method, path, **options)
        try:
            return msgspec.json.decode(body, type=reply)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            raise TielineError(
                "check_failed",
                f"{method} {path}: the answer is not what this version understands: {error}",
                hints=("tieline check  # is this address a Tieline exchange of a version that fits?",),
            ) from None

    async def raw(
        self,
        method: str,
        path: str,
        *,
        body: Body = None,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = "",
        total_s: float | None = None,
        attempts: int | None = None,
    ) -> bytes:
        """Send a request and return its whole answer.

        ``body``: bytes, a struct (sent as JSON), or a function that opens a fresh stream of chunks for each try.
        ``key``: the Idempotency-Key of a POST; "" makes one, None sends none (then it is tried once).
        """
        sent = dict(headers or {})
        content = self._content(body, sent)
        if method == "POST" and key is not None:
            sent["Idempotency-Key"] = key or os.urandom(16).hex()
        is_safe = method in SAFE or "Idempotency-Key" in sent
        tries = (attempts or self.attempts) if is_safe else 1
        backoff = Backoff(first_s=0.1, most_s=2.0)
        await self._freshen()
        while True:
            tries -= 1
            try:
                return await self._once(method, path, content, params, sent, total_s or self.total_s)
            except _NotNowError as not_now:
                if tries <= 0:
                    raise not_now.error from None
                await asyncio.sleep(max(backoff.next_s(), not_now.wait_s))

    async def download(
        self,
        path: str,
        *,
        limit_bytes: int,
        params: Mapping[str, str | int] | None = None,
        start: int = 0,
        end: int = 0,
        etag: str = "",
    ) -> AsyncGenerator[bytes, None]:
        """Stream an answer of at most ``limit_bytes`` in all; a stall of 30 s ends it (`resume` goes on after a cut).

        The first ``start`` bytes are left out: not sent while ``etag`` names the content, and dropped otherwise. Those
        from ``end`` on (0: to the last) are not sent either, but may come where ``etag`` names the content no more.
        """
        await self._freshen()
        last = str(end - 1) if end else ""
        headers = {"Range": f"bytes={start}-{last}", "If-Range": etag} if start or end else {}
        async with self._opened("GET", path, params=params, headers=headers, total_s=None, read_s=30.0) as response:
            size = start if start and response.status == PARTIAL else 0
            if size and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise TielineError("check_failed", f"GET {path}: the answer is another part than was asked for")
            known = start - size
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > limit_bytes:
                    raise TielineError("too_large", f"GET {path}: the answer is over {limit_bytes:,} bytes")
                fresh, known = chunk[known:], max(0, known - len(chunk))
                if fresh:
                    yield fresh

    async def size_of(self, path: str) -> int:
        """How many bytes a GET would give. Asked by a range of one byte: unlike a HEAD, a refusal says why."""
        await self._freshen()
        headers = {"Range": "bytes=0-0"}
        async with self._opened(
            "GET", path, params=None, headers=headers, total_s=self.total_s, read_s=None
        ) as response:
            if response.status != PARTIAL:
                stated = response.headers.get("Content-Length", "")
            else:
                stated = response.headers.get("Content-Range", "").rpartition("/")[2]
            if not stated.isdecimal():
                raise TielineError("check_failed", f"GET {path}: the answer does not say how many bytes there are")
            return int(stated)

    # -- server-sent events -------------------------------------------------------------------------------------------

    async def listen(
        self,
        path: str,
        after: str = "",
        *,
        params: Mapping[str, str | int] | None = None,
        silence_s: float = 45.0,
        on_open: Callable[[], None] | None = None,
    ) -> AsyncGenerator[ServerEvent, None]:
        """One connection to an event stream, until it ends or was silent (comments included) for ``silence_s``."""
        await self._freshen()
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after:
            headers["Last-Event-ID"] = after
        async with self._opened(
            "GET", path, params=params, headers=headers, total_s=None, read_s=silence_s
        ) as response:
            if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise TielineError("check_failed", f"GET {path}: the answer is no event stream")
            if on_open is not None:
                on_open()
            parser = SseParser()
            parser.last_id = after
            async for chunk in response.content.iter_any():
                for event in parser.feed(chunk):
                    yield event

    async def events(
        self,
        path: str,
        after: str = "",
        *,
        params: Mapping[str, str | int] | None = None,
        silence_s: float = 45.0,
        backoff: Backoff | None = None,
    ) -> AsyncGenerator[ServerEvent, None]:
        """An event stream for as long as it is wanted: broken connections are made again from the last identifier.

        Raises TielineError for an answer that trying again cannot mend (401, 404 ...).
        """
        waits = backoff or Backoff()
        while True:
            try:
                async with contextlib.aclosing(self.listen(path, after, params=params, silence_s=silence_s)) as stream:
                    async for event in stream:
                        waits.reset()
                        after = event.id or after
                        yield event
            except TielineError as error:
                if not error.transient:
                    raise
            await asyncio.sleep(waits.next_s())

    # -- WebSocket ----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def websocket(
        self, path: str, *, limit_bytes: int, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket of messages of at most ``limit_bytes``. It is closed with the block; a dead peer is noticed.

        Raises TielineError: `exchange_unreachable`, or `forbidden` where the other side does not open it.
        """
        import aiohttp

        await self._freshen()
        bearer = {"Authorization": f"Bearer {self.bearer}"} if self.bearer else {}
        try:
            async with asyncio.timeout(OPEN_S):
                stream = await self._open_session().ws_connect(
                    self.base_url + path,
                    headers={**(headers or {}), **bearer},
                    max_msg_size=2 * limit_bytes,
                    heartbeat=ALIVE_S,
                    compress=0,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                    proxy=self.proxy or None,
                )
            async with stream:
                yield stream
        except aiohttp.WSServerHandshakeError as error:
            raise TielineError("forbidden", f"`{self.base_url}` does not open {path}: {error.status}") from None
        except TimeoutError:
            raise TielineError("timeout", f"no answer in time from `{self.base_url}`") from None
        except aiohttp.ClientError as error:
            raise unreachable(self.base_url, error) from None

    # -- below --------------------------------------------------------------------------------------------------------

    async def _freshen(self) -> None:
        if self.renew is not None:
            self.bearer = await self.renew()

    def _content(self, body: Body, headers: dict[str, str]) -> bytes | Callable[[], AsyncIterator[bytes]] | None:
        if isinstance(body, msgspec.Struct):
            headers.setdefault("Content-Type", "application/json")
            return msgspec.json.encode(body)
        if body is not None:
            headers.setdefault("Content-Type", "application/octet-stream")
        return body

    async def _once(
        self,
        method: str,
        path: str,
        content: bytes | Callable[[], AsyncIterator[bytes]] | None,
        params: Mapping[str, str | int] | None,
        headers: dict[str, str],
        total_s: float,
    ) -> bytes:
        data = content() if callable(content) else content
        try:
            async with self._opened(
                method, path, params=params, headers=headers, total_s=total_s, read_s=None, data=data
            ) as response:
                return await whole_answer(response, self.limit_bytes, f"{method} {path}")
        finally:
            if data is not None and not isinstance(data, bytes) and hasattr(data, "aclose"):
                await data.aclose()

    @contextlib.asynccontextmanager
    async def _opened(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None,
        headers: Mapping[str, str],
        total_s: float | None,
        read_s: float | None,
        data: bytes | AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=self.connect_s, sock_read=read_s)
        sent = {"Authorization": f"Bearer {self.bearer}", **headers} if self.bearer else dict(headers)
        try:
            async with self._open_session().request(
                method,
                self.base_url + path,
                params=params,
                headers=sent,
                data=data,
                timeout=timeout,
                allow_redirects=False,
                proxy=self.proxy or None,
            ) as response:
                if not 200 <= response.status < 300:
                    await _refuse(response, f"{method} {path}")
                yield response
        except aiohttp.ConnectionTimeoutError as error:
            raise _NotNowError(unreachable(self.base_url, error)) from None
        except TimeoutError:
            raise _NotNowError(
                TielineError("timeout", f"{method} {path}: no answer in time from `{self.base_url}`")
            ) from None
        except aiohttp.InvalidURL as error:
            raise TielineError("invalid_request", f"`{error}` is no address") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _NotNowError(unreachable(self.base_url, error)) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=CONNECTIONS, keepalive_timeout=KEEPALIVE_S, ssl=self._tls(), ttl_dns_cache=60
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=not is_loopback(self.base_url),
                headers={"User-Agent": f"tieline/{__version__}", "Accept-Encoding": "identity"},
            )
        return self._session

    def _tls(self) -> ssl.SSLContext | bool:
        if not self.ca_file:
            return True
        import ssl

        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise TielineError("invalid_request", f"`{self.ca_file}` holds no certificate authority: {error}") from None


class _NotNowError(TielineError):
    """A failure that the same call may get past: nothing was answered, or the server said to come back."""

    def __init__(self, error: TielineError, wait_s: float = 0.0) -> None:
        super().__init__(error.code, error.message, reasons=error.reasons, hints=error.hints, where=error.where)
        self.error = error
        self.wait_s = wait_s


async def _refuse(response: aiohttp.ClientResponse, what: str) -> None:
    body = b""
    with contextlib.suppress(TielineError):
        body = await whole_answer(response, ENVELOPE_BYTES, what)
    error = refused(response.status, body, what)
    if response.status in AGAIN:
        asked = response.headers.get("Retry-After", "")
        raise _NotNowError(error, min(float(asked), MOST_RETRY_AFTER_S) if asked.isdigit() else 0.0)
    raise error


async def whole_answer(response: aiohttp.ClientResponse, limit_bytes: int, what: str) -> bytes:
    """The whole body of an answer. Raises TielineError `too_large` beyond ``limit_bytes``."""
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limit_bytes:
            raise TielineError("too_large", f"{what}: the answer is over {limit_bytes:,} bytes")
        parts.append(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def checked_url(base_url: str) -> str:
    """``base_url`` without its last slash. Raises TielineError `invalid_request` unless it is http(s)://host[:port][/path]."""
    try:
        parts = urllib.parse.urlsplit(base_url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        is_good = (
            is_good and parts.netloc.isascii() and "%" not in parts.netloc
        )  # else it is read as another host later
    except ValueError:
        is_good = False
    if not is_good or parts.username or parts.query or parts.fragment or len(base_url) > 500:
        raise TielineError("invalid_request", f"`{base_url[:200]}` is not an address such as http://127.0.0.1:7070")
    return base_url.rstrip("/")


def is_loopback(base_url: str) -> bool:
    """Whether the host of ``base_url`` is this machine by its literal name."""
    host = urllib.parse.urlsplit(base_url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
