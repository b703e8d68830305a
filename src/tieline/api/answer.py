"""Answers: what goes back over the wire. Every answer that is no success is one error envelope."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable
from typing import Any

import msgspec
from litestar.exceptions import HTTPException, MethodNotAllowedException
from litestar.types import Receive, Scope, Send

from tieline.model.error import CODES, ErrorEnvelope, TielineError

Headers = Iterable[tuple[bytes, bytes]]
encode = msgspec.json.Encoder().encode
PLAIN = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
PACKED_BYTES = 2_048  # a smaller answer is not packed
PACK_LEVEL = 1
STATUS_CODES = {400: "invalid_request", 404: "not_found", 413: "too_large"}


class Answer:
    """A whole answer in one piece: an ASGI application that Litestar calls."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, body: bytes = b"", *, status: int = 200, media: str = "application/json", headers: Headers = ()
    ) -> None:
        self.status = status
        self.body = body
        length = str(len(body)).encode()
        self.headers = [(b"content-type", media.encode()), (b"content-length", length), *PLAIN, *headers]

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def packed(body: bytes, accepted: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """``body`` and its headers, by gzip where the caller takes that and it helps. Not for the loop: it takes time."""
    headers = [(b"vary", b"accept-encoding")]
    if "gzip" not in accepted or len(body) <= PACKED_BYTES:
        return body, headers
    return gzip.compress(body, PACK_LEVEL, mtime=0), [*headers, (b"content-encoding", b"gzip")]


def json_answer(value: Any, status: int = 200, headers: Headers = ()) -> Answer:
    """``value`` as JSON."""
    return Answer(encode(value), status=status, headers=headers)


class ThrottledError(TielineError):
    """A refusal that says when to come back."""

    def __init__(self, code: str, message: str, wait_s: float, *, hints: tuple[str, ...] = ()) -> None:
        super().__init__(code, message, hints=hints)
        self.wait_s = wait_s


class GoneError(Exception):
    """The caller closed the connection before its request was whole: there is nobody to answer."""


def as_refusal(error: Exception) -> TielineError | None:
    """The refusal that ``error`` means, or None for a defect."""
    if isinstance(error, TielineError):
        return error
    if isinstance(error, MethodNotAllowedException):
        allowed = ", ".join(allowed_by(error))
        return TielineError("method_not_allowed", f"this path has no such method; it has {allowed}")
    if isinstance(error, HTTPException):
        code = STATUS_CODES.get(error.status_code)
        if code == "not_found":
            return TielineError(code, "there is no such path here", hints=("GET /v1/openapi.json  # lists every path",))
        if code is not None:
            return TielineError(code, error.detail[:400] or "the request is malformed")
    return None


def refusal_answer(error: TielineError, request_id: str, headers: Headers = ()) -> Answer:
    """The envelope of ``error`` with the headers that its status calls for."""
    found = error.envelope
    envelope = ErrorEnvelope(
        code=found.code,
        message=found.message,
        where=found.where,
        reasons=found.reasons,
        hints=found.hints,
        request_id=request_id,
    )
    status = CODES[error.code].status
    more = list(headers)
    if status == 401:
        more.append((b"www-authenticate", b'Bearer realm="tieline"'))
    elif status == 413:
        more.append((b"connection", b"close"))  # what was not read is not wanted
    if status in (429, 503) and error.transient:
        wait_s = error.wait_s if isinstance(error, ThrottledError) else _wait_s(error)
        more.append((b"retry-after", str(max(1, math.ceil(wait_s))).encode()))
    return json_answer(envelope, status, more)


def _wait_s(error: TielineError) -> float:
    """The time after which a full queue asks to be asked again."""
    waits = (reason.values.get("wait_us") for reason in error.reasons)
    return max((wait_us / 1e6 for wait_us in waits if isinstance(wait_us, int)), default=1.0)


def allowed_by(error: MethodNotAllowedException) -> tuple[str, ...]:
    """The methods that a path has, in order of name."""
    given = (error.headers or {}).get("allow", "")
    return tuple(sorted(name.strip() for name in given.split(",")))


def allow_of(error: Exception) -> Headers:
    """The ``Allow`` header of a refused method."""
    if not isinstance(error, MethodNotAllowedException):
        return ()
    return ((b"allow", ", ".join(allowed_by(error)).encode()),)
