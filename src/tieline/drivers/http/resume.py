"""Resume: a download that goes on where it was cut. The whole is known by its hash, so no part is asked for twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping

from tieline.drivers.http.backoff import Backoff
from tieline.drivers.http.client import HttpClient
from tieline.model.error import TielineError

PROGRESS_BYTES = 2**20  # a connection that brought so much counts as none in vain
TRIES = 8  # connections in vain, one after the other
MOST_WAIT_S = 15.0


async def resumed(
    client: HttpClient,
    path: str,
    sha256: str,
    *,
    limit_bytes: int,
    params: Mapping[str, str | int] | None = None,
    tries: int = TRIES,
    counts: Callable[[], bool] = lambda: True,
) -> AsyncGenerator[bytes, None]:
    """The bytes of ``path``, whose ETag is their ``sha256``, over as many connections as it takes.

    Each asks for what is still missing (RFC 9110, sections 13.1.5 and 14.2). Raises TielineError: what is final at
    once, what is passing after ``tries`` connections in a row that brought less than `PROGRESS_BYTES`, of those for
    which ``counts()``. The hash is not checked here.
    """
    at, left = 0, tries
    waits = Backoff(first_s=0.2, most_s=MOST_WAIT_S)
    while True:
        began = at
        try:
            part = client.download(path, limit_bytes=limit_bytes, params=params, start=at, etag=f'"{sha256}"')
            async with contextlib.aclosing(part) as chunks:
                async for chunk in chunks:
                    at += len(chunk)
                    yield chunk
        except TielineError as error:
            if at and error.code == "range_not_satisfiable":  # the cut came after the last byte
                return
            if not error.transient:
                raise
            if at - began >= PROGRESS_BYTES:
                left = tries
                waits.reset()
            left -= counts()
            if left <= 0:
                raise
        else:
            return
        await asyncio.sleep(waits.next_s())
