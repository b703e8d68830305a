"""Door 直达口: the authenticated echo and chunk port that an owner opens at its site, and what lets callers through.

::

    exchange --Pass, signed with the key that the site pinned--> holder
    holder   --Pass and a Knock, signed with the holder's key--> door of the site that the pass names

    POST {door}/v1/echo                  -> EchoSession: a key sealed to the holder, for echoes over UDP and TCP
    GET  {door}/v1/echo/{session}        WebSocket: echoes over TCP
    POST {door}/v1/rate                  -> RateSeen: what the door saw of a short bounded upload
    HEAD, GET, PUT {door}/v1/chunks/{sha256}
    GET  {door}/v1/runs/{run}/link       WebSocket: connections between the nodes of a gang (`drivers.doors.link`)

A pass is short-lived, names both ends, and is worth nothing without the holder's key: every request carries a knock of
its own, which counts once.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import msgspec

PASS = "door-pass"  # noqa: S105 - type of the statement that a `Pass` is signed as
KNOCK = "door-knock"
PASS_HEADER = "Tieline-Pass"  # noqa: S105 - its name
KNOCK_HEADER = "Tieline-Knock"
PASS_MOST_MS = 900_000  # longest life of a pass
CHUNKS_MOST = 32  # chunks that one pass names
CHUNK_BYTES = 64 * 2**20  # largest chunk that is put through a door

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Nonce = Annotated[str, msgspec.Meta(min_length=16, max_length=64, pattern=r"\A[A-Za-z0-9_-]+\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Public = Annotated[str, msgspec.Meta(max_length=64, pattern=r"\A[A-Za-z0-9_-]*\Z")]
Ms = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


URL = re.compile(
    r"https?://(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::([1-9][0-9]{0,4}))?(?:/[A-Za-z0-9._~/-]{0,100})?"
)


def door_url(stated: str) -> str:
    """The URL of a door as a record states it; empty for what is none. Nothing in it may say more than where it is."""
    match = URL.fullmatch(stated) if len(stated) <= 255 else None
    return stated if match is not None and int(match[1] or 1) < 65_536 else ""


class Right(StrEnum):
    """What a pass allows."""

    ECHO = "echo"  # echoes over UDP and TCP
    RATE = "rate"  # a short bounded upload that is thrown away
    READ = "read"  # the chunks that it names
    WRITE = "write"
    SHELL = "shell"  # through the relay only: a command beside a run
    PORT = "port"  # of a user through the relay only: a port of a run; of a site of the same gang: a link to its nodes


class Pass(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who may do what at which door until when. Signed by the exchange to which the door's site is admitted."""

    id: Nonce
    door: Name  # identifier of the site
    holder: Name  # identifier of a site, or a user's name
    public: Public  # Ed25519 key of the holder, base64url: every knock is signed with it
    rights: Annotated[tuple[Right, ...], msgspec.Meta(min_length=1, max_length=8)]
    from_ms: Ms
    until_ms: Ms
    chunks: Annotated[tuple[Sha256, ...], msgspec.Meta(max_length=CHUNKS_MOST)] = ()
    most_bytes: Bytes = 0  # that may be moved under it, both directions
    run: Annotated[str, msgspec.Meta(max_length=200)] = ""  # of a link: the member of the gang that stands there


class Knock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request of the holder: it counts once, for this door, method and path."""

    id: Nonce  # of the pass
    door: Name
    method: Annotated[str, msgspec.Meta(max_length=8)]
    path: Annotated[str, msgspec.Meta(max_length=200)]
    nonce: Nonce
    at_ms: Ms
    sealing: Public = ""  # X25519 key, base64url: what the session's key is sealed to


class EchoSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the door gives for a pass with `Right.ECHO`, signed with the site's key as a statement `SESSION`."""

    session: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    sealed: Annotated[str, msgspec.Meta(max_length=200)]  # 32 bytes for keyed BLAKE2b, sealed to the knock's key
    nonce: Nonce  # of the knock that is answered
    udp_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    until_ms: Ms
    packet_bytes: Annotated[int, msgspec.Meta(ge=0, le=65_535)]  # largest packet that is answered
    rate_bytes_per_s: Bytes  # beyond this, packets are dropped
    clock_error_us: Annotated[int, msgspec.Meta(ge=0, le=10**12)] | None = None  # of the door's clock; None: not known


SESSION = "door-session"
LINK = "door-link"


class Linked(msgspec.Struct, frozen=True, kw_only=True):
    """The first message of a link, signed with the site's key as a statement `LINK`."""

    run: Annotated[str, msgspec.Meta(max_length=200)]
    nonce: Nonce  # of the knock that is answered
    sealed: Annotated[str, msgspec.Meta(max_length=200)]  # the link's key, sealed to the knock's key


class RateSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What the door saw of an upload: all of it, and its part after slow start."""

    moved_bytes: Bytes
    took_us: Bytes
    counted_bytes: Bytes  # after the first quarter
    counted_us: Bytes


class ChunkKept(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a chunk that was put."""

    sha256: Sha256
    size_bytes: Bytes
