"""Bytes by their sha256."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from litestar.types import Receive, Scope, Send

from tieline.api.answer import PLAIN, Answer
from tieline.api.call import Call
from tieline.api.operation import BYTES, Follow, Parameter, operation
from tieline.api.reading import may_read
from tieline.model.api import BlobView
from tieline.model.error import TielineError

DIGEST = re.compile(r"[0-9a-f]{64}")
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
IMMUTABLE = ((b"accept-ranges", b"bytes"),)
RANGES = (
    Parameter(
        name="Range",
        description="One range, such as `bytes=0-1023`; what is not understood is ignored (RFC 9110, 14.2).",
        schema={"type": "string"},
    ),
    Parameter(
        name="If-Range",
        description="The `ETag` of the bytes that the caller has a part of: the range is only of these.",
        schema={"type": "string"},
    ),
)
TAG = Parameter(name="ETag", description="The sha256, in quotation marks.", schema={"type": "string"}, is_required=True)
LENGTH = Parameter(
    name="Content-Length", description="size in bytes", schema={"type": "integer", "minimum": 0}, is_required=True
)


@operation(
    "POST",
    "/v1/blobs",
    tag="blobs",
    status=201,
    takes=BYTES,
    errors=("storage_full",),
    follows=(
        Follow(operation="read_blob", parameter="sha256", pointer="/sha256"),
        Follow(operation="check_blob", parameter="sha256", pointer="/sha256"),
    ),
    example="twelve bytes",
)
async def store_blob(call: Call) -> BlobView:
    """Keep bytes. They are there whole or not at all, and the same bytes are kept once.

    The caller may read them back; so may whoever runs or owns the jobs that refer to them.
    """
    call.expect(BYTES)
    platform = call.platform
    limit = platform.limits.blob_bytes
    sha256, size = await platform.blobs.write(call.chunks(limit), limit)
    platform.facts.allow(call.actor.name, sha256)
    return BlobView(sha256=sha256, size_bytes=size)


@operation("HEAD", "/v1/blobs/{sha256}", tag="blobs", gives="", answers=(LENGTH,))
async def check_blob(call: Call, sha256: str) -> Answer:
    """Whether the bytes are here for this caller, and how many they are."""
    size = await readable_size(call, sha256)
    answer = Answer(media=BYTES, headers=IMMUTABLE)
    answer.headers[1] = (b"content-length", str(size).encode())
    return answer


class BlobAnswer:
    """A blob, or a part of it, sent as it is read."""

    __slots__ = ("end", "pieces", "sha256", "size", "start")

    def __init__(self, pieces: AsyncIterator[bytes], sha256: str, start: int, end: int, size: int) -> None:
        self.pieces, self.sha256, self.start, self.end, self.size = pieces, sha256, start, end, size

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        is_part = self.end - self.start != self.size
        headers = [
            (b"content-type", BYTES.encode()),
            (b"content-length", str(self.end - self.start).encode()),
            (b"etag", tag_of(self.sha256).encode()),
            *IMMUTABLE,
            *PLAIN,
        ]
        if is_part:
            headers.append((b"content-range", f"bytes {self.start}-{self.end - 1}/{self.size}".encode()))
        await send({"type": "http.response.start", "status": 206 if is_part else 200, "headers": headers})
        async for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@operation(
    "GET",
    "/v1/blobs/{sha256}",
    tag="blobs",
    gives=BYTES,
    errors=("range_not_satisfiable",),
    headers=RANGES,
    answers=(TAG,),
)
async def read_blob(call: Call, sha256: str) -> BlobAnswer | Answer:
    """The bytes, or one range of them."""
    return blob_answer(call, sha256, await readable_size(call, sha256))


def blob_answer(call: Call, sha256: str, size: int) -> BlobAnswer:
    """The bytes, or the range of them that is asked for. Raises TielineError `range_not_satisfiable`."""
    is_same = call.header(b"if-range") in ("", tag_of(sha256))
    start, end = part_of(call.header(b"range") if is_same else "", size)
    if start >= end and size:  # an empty blob has no range, and is sent whole
        raise TielineError("range_not_satisfiable", f"the blob has {size:,} bytes", where="Range")
    return BlobAnswer(call.platform.blobs.read(sha256, start, end), sha256, start, end, size)


def tag_of(sha256: str) -> str:
    """The entity tag of a blob: its name."""
    return f'"{sha256}"'


def part_of(asked: str, size: int) -> tuple[int, int]:
    """The half-open range that a `Range` header asks for; everything when it asks for nothing that is understood."""
    match = RANGE.fullmatch(asked)
    if match is None or not (match[1] or match[2]) or not size:
        return 0, size
    if not match[1]:
        return max(0, size - int(match[2])), size
    if match[2] and int(match[2]) < int(match[1]):
        return 0, size
    return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size


async def readable_size(call: Call, sha256: str) -> int:
    """The size of a blob that the caller may read. Raises `not_found` for what is not there or not for it."""
    if not DIGEST.fullmatch(sha256):
        raise TielineError("invalid_identifier", "a blob is named by its sha256: 64 letters of 0-9a-f", where="path")
    if not await may_read(call.platform, call.actor, sha256):
        raise TielineError("not_found", f"there is no blob `{sha256}` here, or you may not read it")
    return await call.platform.blobs.size(sha256)
