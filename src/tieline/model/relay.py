"""Relay 中继: a stream between a site, which listens to nobody, and somebody who may reach it. Both ends dial out.

::

    caller   POST /v1/jobs/{job}/shells          -> RelayView: the name of a stream
             POST /v1/sites/{site}/streams          to the door of a site, with a pass
    exchange order `summon` to the site          -> Summons, signed with the exchange's pinned key
    caller, site   GET /v1/relay/{stream}        WebSocket, each with its own bearer: bytes from one end to the other

    binary messages   one byte that says what (`Channel`), then the bytes
    text messages     JSON of `Notice`
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated

import msgspec

SUMMONS = "site-summons"  # type of the statement that a `Summons` is signed as
MESSAGE_BYTES = 65_536  # largest message; the relay hangs up on a larger one
WORDS_MOST = 256
WORDS_BYTES = 65_536
WAIT_MS = 30_000  # both ends are there by then

StreamName = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Words = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=16_384)], ...], msgspec.Meta(max_length=WORDS_MOST)]
Lines = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
TcpPort = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class Purpose(StrEnum):
    """What a stream is for."""

    SHELL = "shell"  # a command beside a run
    PORT = "port"  # a connection to a port of a run
    DOOR = "door"  # a connection to the door of a site that listens to nobody


class Channel(IntEnum):
    """First byte of a binary message."""

    INPUT = 0
    OUTPUT = 1
    ERRORS = 2


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is said beside the bytes. The last one of a site carries the exit code, or why there is none."""

    rows: Lines = 0  # of the caller's terminal, when its size changed
    columns: Lines = 0
    is_end: bool = False  # no more input
    exit_code: Annotated[int, msgspec.Meta(ge=-1, le=255)] = -1
    error: Annotated[str, msgspec.Meta(max_length=500)] = ""


class ShellBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller wants of a run: a command beside it, or one of its ports."""

    command: Words = ()  # empty, with `port` 0: a shell
    port: TcpPort = 0
    node: Annotated[int, msgspec.Meta(ge=0, le=99_999, description="rank within the gang")] = 0
    has_terminal: bool = False
    rows: Lines = 0
    columns: Lines = 0
    term: Annotated[str, msgspec.Meta(max_length=64, pattern=r"\A[A-Za-z0-9._+-]*\Z")] = ""


class StreamBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stream to a site's door."""

    door_pass: Annotated[str, msgspec.Meta(max_length=8_192)]


class RelayView(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that waits for both its ends."""

    stream: StreamName
    run: str
    site: str
    until_ms: int  # the caller must be there by then


class Summons(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the exchange asks of the site: dial the relay, and do this with the stream."""

    stream: StreamName
    site: Annotated[str, msgspec.Meta(max_length=200)]
    purpose: Purpose
    run: Annotated[str, msgspec.Meta(max_length=200)]
    who: Annotated[str, msgspec.Meta(max_length=200)]
    until_ms: Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
    node: Annotated[int, msgspec.Meta(ge=0, le=99_999)] = 0
    command: Words = ()
    port: TcpPort = 0
    has_terminal: bool = False
    rows: Lines = 0
    columns: Lines = 0
    term: Annotated[str, msgspec.Meta(max_length=64)] = ""


class RelayedView(msgspec.Struct, frozen=True, kw_only=True):
    """What one party moved through the relay since the exchange started, and today (UTC)."""

    party: str  # prefix of the owner of the sites, or a user
    streams: int  # open now
    bytes: int
    today_bytes: int


class RelayPage(msgspec.Struct, frozen=True, kw_only=True):
    """What the relay carries."""

    streams: int
    day_bytes: int  # most of one owner in a day
    parties: tuple[RelayedView, ...]
