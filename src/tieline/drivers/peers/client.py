"""Client: calls to one peer: signed, to the pinned address, bounded in bytes and in time.

How to use it (a task that works with a peer holds one, and closes it)::

    client = PeerClient(peer.url, peer.id, signer)
    view = await client.call("GET", "/v1/peer/state", BranchState)            # typed JSON
    await client.call("POST", "/v1/peer/orders", Answers, body=Orders(...))   # a struct as JSON, one Idempotency-Key
    async for event in client.listen("/v1/peer/reports", after=cursor): ...   # server-sent events, one connection
    await client.upload("/v1/peer/blobs/" + sha256, sha256, chunks)           # a stream whose hash is known beforehand
    async for chunk in client.download(path, limit_bytes=n): ...              # a bounded stream
    lines = await client.page("/v1/logs/cn.sh/records", params={...})         # gzip NDJSON, bounded before and after

Every call raises TielineError: what the peer said, or `exchange_unreachable`, `timeout`, `too_large`, `check_failed`,
`address_refused` with a reason. Redirects are refused: a peer has no way to make this exchange call another address.
Each try is signed anew, so a try is never a replay.
"""

from __future__ import annotations

import contextlib
import urllib.parse
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tieline.drivers.http.client import CONNECTIONS, KEEPALIVE_S, HttpClient, whole_answer
from tieline.drivers.peers.address import check_url, guarded_resolver, is_private_stated
from tieline.drivers.peers.signing import Signer
from tieline.drivers.peers.tally import Tally
from tieline.model.error import TielineError

if TYPE_CHECKING:
    import aiohttp

PAGE_BYTES = 8 * 2**20  # of a page once it is unpacked
ANSWER_BYTES = 8 * 2**20  # of a JSON answer
TOTAL_S = 20.0
DIGEST = "x-tieline-digest"  # inside this class only: the sha256 of a body that is streamed


class PeerClient(HttpClient):
    """Signed calls to one peer. Connections are kept alive; close it, or use ``async with``."""

    def __init__(
        self,
        url: str,
        peer: str,
        signer: Signer,
        *,
        connect_s: float = 5.0,
        total_s: float = TOTAL_S,
        attempts: int = 1,
        limit_bytes: int = ANSWER_BYTES,
        tally: Tally | None = None,
    ) -> None:
        """``peer`` is the identifier that requests are addressed to; empty before it is known (nothing is signed then).
        What is moved is counted in ``tally``.

        Raises TielineError `address_refused`, `invalid_request`.
        """
        super().__init__(url, connect_s=connect_s, total_s=total_s, attempts=attempts, limit_bytes=limit_bytes)
        check_url(self.base_url)
        self.peer = peer
        self.signer = signer
        self.tally = tally or Tally()
        self.is_near = is_private_stated(self.base_url)  # packing would cost more than it saves

    async def upload(
        self,
        path: str,
        sha256: str,
        chunks: Callable[[], AsyncIterator[bytes]],
        *,
        method: str = "PUT",
        headers: Mapping[str, str] | None = None,
        total_s: float = 600.0,
    ) -> bytes:
        """Send a stream whose sha256 (hex) is known; the peer refuses it when the bytes are others."""
        return await self.raw(method, path, body=chunks, headers={**(headers or {}), DIGEST: sha256}, total_s=total_s)

    async def page(
        self,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
        limit_bytes: int = PAGE_BYTES,
        total_s: float | None = None,
    ) -> bytes:
        """A bounded answer that the peer may send packed: neither the packed nor the unpacked bytes pass the limit.

        ``body``, where given, is sent as JSON by POST. Tried once.
        """
        sent = {"Accept-Encoding": "identity" if self.is_near else "gzip"}
        data, method = None, "GET"
        if body is not None:
            data, method = msgspec.json.encode(body), "POST"
            sent["Content-Type"] = "application/json"
        async with self._opened(
            method, path, params=params, headers=sent, total_s=total_s or self.total_s, read_s=None, data=data
        ) as response:
            found = await whole_answer(response, limit_bytes, f"{method} {path}")
            if response.headers.get("Content-Encoding", "") != "gzip":
                return found
        return unpacked(found, limit_bytes, f"{method} {path}")

    # -- below --------------------------------------------------------------------------------------------------------

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
        from yarl import URL

        query = "?" + urllib.parse.urlencode(params) if params else ""
        url = URL(self.base_url + path + query)
        sent = dict(headers)
        digest = sent.pop(DIGEST, "")
        if self.peer:
            body = data if isinstance(data, bytes) else None
            sent = self.signer.headers(method, str(url), self.peer, sent, body=body, digest=digest)
        data = self.tally.counted(data)
        async with super()._opened(
            method, path + query, params=None, headers=sent, total_s=total_s, read_s=read_s, data=data
        ) as response:
            self.tally.opened(response)
            try:
                yield response
            finally:
                self.tally.closed(response)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            from tieline import __version__

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=CONNECTIONS,
                    keepalive_timeout=KEEPALIVE_S,
                    ssl=self._tls(),
                    use_dns_cache=False,
                    resolver=guarded_resolver(self.base_url),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,  # a proxy would resolve the name again, and nobody could say to what
                headers={"User-Agent": f"tieline/{__version__}", "Accept-Encoding": "identity"},
            )
        return self._session


def unpacked(body: bytes, limit_bytes: int, what: str) -> bytes:
    """Unpack gzip up to ``limit_bytes``. Raises TielineError `too_large`, `check_failed`."""
    packed = zlib.decompressobj(wbits=31)
    try:
        found = packed.decompress(body, limit_bytes)
    except zlib.error as error:
        raise TielineError("check_failed", f"{what}: the answer is no gzip: {error}") from None
    if packed.unconsumed_tail:
        raise TielineError("too_large", f"{what}: the answer is over {limit_bytes:,} bytes once it is unpacked")
    if not packed.eof or packed.unused_data:
        raise TielineError("check_failed", f"{what}: the answer is cut off, or more follows it")
    return found
