"""One-shot calls: the HTTP client of a process that makes two calls and ends.

Importing aiohttp takes 0.2 s of CPU, more than everything else that `tieline ps` does. Plain calls therefore go through
the standard library's client, each in a thread that nobody waits for when the process ends; what streams, and what goes
through a proxy, goes through aiohttp as ever. Retries, limits and errors are those of `HttpClient`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import threading
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from tieline import __version__
from tieline.drivers.http.client import AGAIN, MOST_RETRY_AFTER_S, HttpClient, _NotNowError, is_loopback
from tieline.drivers.http.failure import ENVELOPE_BYTES, refused, unreachable
from tieline.model.error import TielineError

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class OneShot(HttpClient):
    """`HttpClient` for a short life."""

    async def _once(
        self,
        method: str,
        path: str,
        content: bytes | Callable[[], AsyncIterator[bytes]] | None,
        params: Mapping[str, str | int] | None,
        headers: dict[str, str],
        total_s: float,
    ) -> bytes:
        if callable(content) or self._session is not None or self._has_proxy():
            return await super()._once(method, path, content, params, headers, total_s)
        query = "?" + urllib.parse.urlencode(params) if params else ""
        sent = {"User-Agent": f"tieline/{__version__}", "Accept-Encoding": "identity", **headers}
        if self.bearer:
            sent["Authorization"] = f"Bearer {self.bearer}"
        return await _in_thread(self._exchanged, method, path, query, content, sent, total_s)

    def _has_proxy(self) -> bool:
        is_stated = any(os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES)
        return bool(self.proxy) or (is_stated and not is_loopback(self.base_url))

    def _exchanged(
        self, method: str, path: str, query: str, content: bytes | None, headers: dict[str, str], total_s: float
    ) -> bytes:
        """One request and its answer. Raises what `HttpClient` raises."""
        what = f"{method} {path}"
        parts = urllib.parse.urlsplit(self.base_url)
        connection = self._connection(parts, min(self.connect_s, total_s))
        try:
            connection.connect()
            assert connection.sock is not None
            connection.sock.settimeout(total_s)
            connection.request(method, parts.path + path + query, content, headers)
            answer = connection.getresponse()
            is_good = 200 <= answer.status < 300
            limit = self.limit_bytes if is_good else ENVELOPE_BYTES
            body = answer.read(limit + 1)
            if is_good and len(body) > limit:
                raise TielineError("too_large", f"{what}: the answer is over {limit:,} bytes")
            if is_good and answer.length:
                raise http.client.IncompleteRead(body, answer.length)
            if is_good:
                return body
            error = refused(answer.status, body[:ENVELOPE_BYTES], what)
            if answer.status in AGAIN:
                asked = answer.headers.get("Retry-After", "")
                raise _NotNowError(error, min(float(asked), MOST_RETRY_AFTER_S) if asked.isdigit() else 0.0)
            raise error
        except TimeoutError:
            message = f"{what}: no answer in time from `{self.base_url}`"
            raise _NotNowError(TielineError("timeout", message)) from None
        except (OSError, http.client.HTTPException) as error:
            raise _NotNowError(unreachable(self.base_url, error)) from None
        finally:
            connection.close()

    def _connection(self, parts: urllib.parse.SplitResult, timeout_s: float) -> http.client.HTTPConnection:
        host = parts.hostname or ""
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
        import ssl

        tls = self._tls()
        context = tls if isinstance(tls, ssl.SSLContext) else ssl.create_default_context()
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)


async def _in_thread(work: Callable[..., bytes], *args: Any) -> bytes:
    """The result of ``work`` in a thread of its own; an interrupted process does not wait for it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def tell(act: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if done.done() else act(value))

    def run() -> None:
        try:
            result = work(*args)
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            tell(done.set_exception, error)
        else:
            tell(done.set_result, result)

    threading.Thread(target=run, name="tieline-call", daemon=True).start()
    return await done
