"""Serving: what an exchange answers to whoever follows its logs: ``answer(archive, request, grant) -> answer``, pure.

::

    AskLogs       what is here            LogsAnswer      prefix, serial, count of each log; session; head
    AskRecords    from a serial on        PageAnswer      at most a page, in order of serial
    AskSnapshot   a page of the owner's   SnapshotAnswer  the page's records, with the owner's checkpoint
                  last checkpoint
    AskDigest     what is held            DigestAnswer    4,096 buckets (registry/digest.py), compact
    AskBuckets    of some buckets         BucketsAnswer   identifier and hash of each record in them
    AskEnvelopes  by identifier           PageAnswer      the records themselves

Nothing here is believed by the asker: a page proves itself record by record, or by its owner's checkpoint. Each body is
whole: it carries its count and sha256, so that a cut or a mix-up is seen before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from tieline.model.identifier import MAX_IDENTIFIER_BYTES
from tieline.model.peer import Prefix
from tieline.model.spec import Word
from tieline.ports import Archive

MOST_LOGS_ASKED = 10_000
MOST_IDS_ASKED = 2_000
MOST_BUCKETS_ASKED = 4_096
MOST_ENTRIES = 50_000  # identifiers in one answer to AskBuckets, unless a single bucket holds more

Kinds = Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)]
Serial = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Name = Annotated[str, msgspec.Meta(max_length=MAX_IDENTIFIER_BYTES)]


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What an asker may read: these kinds, these prefixes and what is below them. Empty: all."""

    kinds: Kinds = ()
    prefixes: Annotated[tuple[Prefix, ...], msgspec.Meta(max_length=256)] = ()


# -- requests ---------------------------------------------------------------------------------------------------------


class AskLogs(msgspec.Struct, frozen=True, kw_only=True, tag="logs"):
    """Which logs are here, after the prefix ``after``. Answer: LogsAnswer."""

    after: Name = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_LOGS_ASKED)] = 1_000


class AskRecords(msgspec.Struct, frozen=True, kw_only=True, tag="records"):
    """Records of a log above the serial ``after``. Answer: PageAnswer."""

    prefix: Prefix
    after: Serial = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=2_000)] = 2_000
    kinds: Kinds = ()


class AskSnapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """Page ``page`` of the owner's last checkpoint. Answer: SnapshotAnswer; `not_found` when there is no usable one."""

    prefix: Prefix
    page: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0


class AskDigest(msgspec.Struct, frozen=True, kw_only=True, tag="digest"):
    """The buckets of a log. Answer: DigestAnswer."""

    prefix: Prefix
    kinds: Kinds = ()


class AskBuckets(msgspec.Struct, frozen=True, kw_only=True, tag="buckets"):
    """Identifiers and hashes in ``buckets``, which are in ascending order. Answer: BucketsAnswer."""

    prefix: Prefix
    buckets: Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=MOST_BUCKETS_ASKED)]
    kinds: Kinds = ()


class AskEnvelopes(msgspec.Struct, frozen=True, kw_only=True, tag="envelopes"):
    """Records of one log by identifier. Answer: PageAnswer with those that are here, as far as a page goes."""

    prefix: Prefix
    ids: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=MOST_IDS_ASKED)]


Request = AskLogs | AskRecords | AskSnapshot | AskDigest | AskBuckets | AskEnvelopes


# -- answers ----------------------------------------------------------------------------------------------------------


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One log: its newest serial, how many records it holds, and whether its owner's checkpoint is among them."""

    prefix: Prefix
    serial: Serial
    count: Serial = 0
    has_checkpoint: bool = False


class LogsAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="logs"):
    """Logs in order of prefix. ``head`` is the newest position of the event log: in one session it never goes back."""

    session: str
    head: int
    logs: Annotated[tuple[LogLine, ...], msgspec.Meta(max_length=MOST_LOGS_ASKED)]
    is_last: bool = True


class PageAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="page"):
    """Records as NDJSON of envelopes. ``serial``: where to go on from; ``is_last``: nothing was left out after it."""

    session: str
    prefix: Prefix
    serial: Serial
    count: int
    sha256: str  # of the body, hex
    body: bytes
    is_last: bool = True


class SnapshotAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """A page of a checkpoint. After the last one the log is taken from ``serial`` on: it holds whatever came later."""

    session: str
    prefix: Prefix
    serial: Serial
    page: int
    pages: int
    count: int
    sha256: str
    body: bytes
    checkpoint: bytes  # the owner's envelope


class DigestAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="digest"):
    """The buckets in their compact form (`registry/digest.py`)."""

    session: str
    prefix: Prefix
    serial: Serial
    body: bytes


class BucketsAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="buckets"):
    """Lines ``<kind>/<name> <22 base64url digits of the hash>``. ``next_bucket``: the first left out; -1: none."""

    session: str
    prefix: Prefix
    serial: Serial
    count: int
    sha256: str
    body: bytes
    next_bucket: int = -1


Answer = LogsAnswer | PageAnswer | SnapshotAnswer | DigestAnswer | BucketsAnswer


class TailLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a tail says when a log grew: the records themselves, from after ``after`` up to ``serial``.

    ``body`` may be empty (too much at once): then it is only a hint that there is more.
    """

    session: str
    prefix: Prefix
    after: Serial
    serial: Serial
    count: int = 0
    sha256: str = ""
    body: bytes = b""


def answer(archive: Archive, request: Request, grant: Grant) -> Answer:
    """The answer to ``request`` as far as ``grant`` goes.

    Raises TielineError `not_found` for a log that is not here or not granted (the two look alike), and for a snapshot
    where the owner's checkpoint is missing or too old to help; `invalid_request` for what no follower asks.
    """
    raise NotImplementedError


def tail_line(session: str, prefix: str, after: int, serial: int, envelopes: Sequence[bytes]) -> TailLine:
    """What to tell those who listen when the log of ``prefix`` grew from ``after`` to ``serial`` by ``envelopes``."""
    raise NotImplementedError


def granted_line(archive: Archive, line: TailLine, grant: Grant) -> TailLine | None:
    """``line`` as far as ``grant`` goes: None when nothing of it does."""
    raise NotImplementedError
