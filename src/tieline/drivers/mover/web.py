"""Web servers as ends of a move: ranges of a GET, and a PUT of the whole.

A source is asked with `Range` (RFC 9110, section 14); each answer must be of the bytes that the first one named, by its
`ETag`, `Last-Modified` and size. Redirects of a source are followed, since nothing secret is sent with a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from tieline import __version__
from tieline.drivers.http.client import is_loopback
from tieline.drivers.http.failure import refused
from tieline.drivers.mover.address import Address
from tieline.drivers.mover.body import OrderedTarget
from tieline.drivers.mover.ends import About, Division
from tieline.drivers.mover.pacing import Lane
from tieline.model.error import TielineError

if TYPE_CHECKING:
    import aiohttp

CONNECT_S = 10.0
READ_BYTES = 2**18
MOST_REDIRECTS = 5
SO_MARK = 36  # asm-generic/socket.h; Python's socket has no name for it
Check = Callable[[str, ipaddress.IPv4Address | ipaddress.IPv6Address], None]  # (what is called, where it leads)
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


class Web:
    """Sessions, one for each way out of this machine."""

    def __init__(self, address: Address, bearer: str = "", socket_path: str = "", check: Check | None = None) -> None:
        """``socket_path`` is a socket of this machine that leads to the server; no lane is bound then.

        ``check`` raises TielineError for what must not be called. It sees every address that a connection is about to
        go to, that of a redirect too; no proxy is asked then, for it would go where nobody here looks.
        """
        self.name = address.name
        self._check = check
        self._refused: TielineError | None = None
        self.bearer = bearer
        self.socket_path = socket_path
        self._is_loopback = is_loopback(address.url)
        self._sessions: dict[tuple[str, int], aiohttp.ClientSession] = {}

    def session(self, lane: Lane) -> aiohttp.ClientSession:
        """The session whose connections go over the path of ``lane``."""
        key = (lane.source_address, lane.mark)
        if key not in self._sessions:
            import aiohttp

            made: dict[str, Any] = {}
            if lane.mark or self._check is not None:
                made["socket_factory"] = lambda info: self._connected(info, lane.mark)
            connector: aiohttp.BaseConnector
            if self.socket_path:
                connector = aiohttp.UnixConnector(self.socket_path)
            else:
                way_out = (lane.source_address, 0) if lane.source_address else None
                connector = aiohttp.TCPConnector(limit=0, local_addr=way_out, ttl_dns_cache=60, **made)
            headers = {"User-Agent": f"tieline/{__version__}", "Accept-Encoding": "identity"}
            if self.bearer:
                headers["Authorization"] = f"Bearer {self.bearer}"
            self._sessions[key] = aiohttp.ClientSession(
                connector=connector,
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                # a proxy would take another way
                trust_env=not (lane.is_bound or self._is_loopback or self._check is not None),
                read_bufsize=READ_BYTES,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            )
        return self._sessions[key]

    def _connected(self, info: Any, mark: int) -> socket.socket:
        """A socket for an address that may be called. Raises OSError, and remembers why it refused."""
        if self._check is not None:
            try:
                self._check(self.name, ipaddress.ip_address(str(info[4][0]).partition("%")[0]))
            except TielineError as error:
                self._refused = error
                raise PermissionError("refused") from None
        return _marked(info, mark) if mark else socket.socket(info[0], info[1], info[2])

    @contextlib.asynccontextmanager
    async def asked(self, method: str, url: str, lane: Lane, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is a success. Raises TielineError, which never shows a query."""
        import aiohttp

        what = f"{method} `{self.name}`"
        try:
            async with self.session(lane).request(method, url, **options) as answer:
                if url.startswith("https:") and answer.url.scheme != "https":
                    raise TielineError("check_failed", f"{what}: redirected to an address without TLS")
                self._refused = None  # another of its addresses was no matter
                if answer.status >= 300:
                    error = refused(answer.status, await _start_of(answer), what)
                    raise error if self.bearer else _of_stranger(error, method)
                yield answer
        except (aiohttp.InvalidURL, aiohttp.TooManyRedirects, UnicodeError):  # the last: a name that is none
            raise TielineError("invalid_request", f"{what}: this address leads nowhere") from None
        except TimeoutError:
            raise TielineError("timeout", f"{what}: no answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            refused_here, self._refused = self._refused, None
            if refused_here is not None:
                raise refused_here from None
            raise TielineError("exchange_unreachable", f"{what}: {_without_address(error)}") from None

    async def close(self) -> None:
        """Close every connection."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()


class HttpSource:
    """What a server gives for one address."""

    def __init__(self, address: Address, bearer: str = "", check: Check | None = None) -> None:
        """``check`` as `Web` takes it."""
        self.name = address.name
        self._url = address.url
        self._web = Web(address, bearer, check=check)
        self._is_trusted = bool(bearer)
        self._first = Lane()
        self._rest: _Rest | None = None

    async def about(self) -> About:
        """As `Source`."""
        try:
            return await self._looked("bytes=0-0")
        except TielineError as error:
            if error.code != "range_not_satisfiable":  # so some answer for an empty file
                raise
        return await self._looked("")

    async def _looked(self, span: str) -> About:
        async with self._asked(self._first, span) as answer:
            if answer.status != 206:
                size = answer.content_length
                if size is None:
                    raise TielineError("check_failed", f"`{self.name}` does not say how many bytes it has")
                return About(size, _tag(answer), is_ranged=size == 0)
            found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if found is None:
                raise TielineError("check_failed", f"`{self.name}` does not say which part it sends, of how many bytes")
            return About(int(found[3]), _tag(answer))

    async def read(self, about: About, start: int, end: int, lane: Lane) -> AsyncGenerator[bytes, None]:
        """As `Source`."""
        if not about.is_ranged:
            async for piece in self._in_order(about, start, end, lane):
                yield piece
            return
        async with self._asked(lane, f"bytes={start}-{end - 1}") as answer:
            found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status != 206 or found is None:
                raise TielineError("exchange_unreachable", f"`{self.name}` gave no range this time")
            self._check_same(about, int(found[3]), answer)
            if (int(found[1]), int(found[2])) != (start, end - 1):
                raise TielineError("check_failed", f"`{self.name}` sent another part than was asked for")
            async for piece in answer.content.iter_any():
                yield piece

    async def close(self) -> None:
        """As `Source`."""
        await self._end_rest()
        await self._web.close()

    def _asked(self, lane: Lane, span: str) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers = {"Range": span} if span else {}
        return self._web.asked(
            "GET",
            self._url,
            lane,
            headers=headers,
            allow_redirects=not self._is_trusted,
            max_redirects=MOST_REDIRECTS,
        )

    def _check_same(self, about: About, size: int | None, answer: aiohttp.ClientResponse) -> None:
        if (size, _tag(answer)) != (about.size_bytes, about.tag):
            raise TielineError("conflict", f"`{self.name}` changed while it was moved")

    async def _in_order(self, about: About, start: int, end: int, lane: Lane) -> AsyncGenerator[bytes, None]:
        """A part of a server that gives no ranges: one answer is read on and on, and begun anew when it broke."""
        if self._rest is None or self._rest.at != start:
            await self._end_rest()
            self._rest = _Rest(self._asked(lane, ""))
            self._check_same(about, (await self._rest.open()).content_length, self._rest.answer)
        rest = self._rest
        try:
            while rest.at < end:
                piece = await rest.piece(end)
                first = max(0, start - (rest.at - len(piece)))
                if first < len(piece):
                    yield piece[first:]
        except (TielineError, asyncio.CancelledError):
            await self._end_rest()
            raise

    async def _end_rest(self) -> None:
        rest, self._rest = self._rest, None
        if rest is not None:
            await rest.close()


class _Rest:
    """An answer that is read over several chunks."""

    def __init__(self, asked: contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]) -> None:
        self.at = 0
        self._asked = asked
        self.answer: Any = None

    async def open(self) -> aiohttp.ClientResponse:
        answer = await self._asked.__aenter__()
        self.answer = answer
        return answer

    async def piece(self, end: int) -> bytes:
        import aiohttp

        try:
            piece: bytes = await self.answer.content.read(min(READ_BYTES, end - self.at))
        except (aiohttp.ClientError, OSError) as error:
            raise TielineError("exchange_unreachable", f"the answer broke: {_without_address(error)}") from None
        if not piece:
            raise TielineError("exchange_unreachable", "the answer ended before its last byte")
        self.at += len(piece)
        return piece

    async def close(self) -> None:
        with contextlib.suppress(TielineError):
            await self._asked.__aexit__(None, None, None)


class HttpTarget(OrderedTarget):
    """One PUT of the whole; a server shows a body that is shorter than it was announced to nobody (RFC 9112, 8)."""

    def __init__(self, address: Address, bearer: str = "") -> None:
        super().__init__(address.name)
        self._url = address.url
        self._web = Web(address, bearer)
        self._lane = Lane()

    async def close(self) -> None:
        """As `Target`."""
        await super().close()
        await self._web.close()

    async def _send(self, chunks: AsyncIterator[bytes], division: Division) -> None:
        headers = {"Content-Length": str(division.size_bytes), "Content-Type": "application/octet-stream"}
        async with self._web.asked(
            "PUT", self._url, self._lane, headers=headers, data=chunks, allow_redirects=False
        ) as answer:
            await answer.read()


def _tag(answer: aiohttp.ClientResponse) -> str:
    tag, modified = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
    return _plain(f"{tag} {modified}".strip()[:500])


async def _start_of(answer: aiohttp.ClientResponse) -> bytes:
    with contextlib.suppress(Exception):
        return await answer.content.read(65_536)
    return b""


def _without_address(error: BaseException) -> str:
    """The words of an error without an address, which may hold a signature."""
    return _plain(re.sub(r"https?://\S+", "...", str(error) or type(error).__name__)[:300])


def _of_stranger(error: TielineError, method: str) -> TielineError:
    """What a server that need not be one of ours says: its code and one line, none of its reasons and commands.

    That something is full is said of this machine's own disk, unless bytes were sent there.
    """
    is_other = error.code == "storage_full" and method != "PUT"
    return TielineError("exchange_unreachable" if is_other else error.code, _plain(error.message[:300]))


def _plain(text: str) -> str:
    """One line of ASCII, whatever a server put into it."""
    return " ".join(text.encode("ascii", "backslashreplace").decode().split())


def _marked(info: Any, mark: int) -> socket.socket:
    made = socket.socket(info[0], info[1], info[2])
    try:
        made.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
    except OSError as error:
        made.close()
        raise TielineError("forbidden", f"packets cannot be marked {mark} here: {error.strerror}") from None
    return made
