"""Peer log: what runs printed at another exchange, asked for in pieces, for many runs and nodes at once."""

from __future__ import annotations

from typing import Annotated

import msgspec

RunName = Annotated[str, msgspec.Meta(max_length=200)]
Rank = Annotated[int, msgspec.Meta(ge=0, le=99_999)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
MOST_LOGS = 64  # of one question


class LogMark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node's log and what of it is known: the run by the name that the asker gave it."""

    run: RunName
    node: Rank = 0
    offset: Offset = 0


class LogsWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which logs, and how long the answer may wait for something to say."""

    logs: Annotated[tuple[LogMark, ...], msgspec.Meta(min_length=1, max_length=MOST_LOGS)]
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=20_000)] = 0


class LogPiece(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What follows ``offset`` in one log; ``is_over``: nothing follows it any more."""

    run: RunName
    node: Rank = 0
    offset: Offset = 0
    data: bytes = b""  # base64 in JSON
    is_over: bool = False


class LogPieces(msgspec.Struct, frozen=True, kw_only=True):
    """The logs that have something to say."""

    pieces: Annotated[tuple[LogPiece, ...], msgspec.Meta(max_length=MOST_LOGS)] = ()
