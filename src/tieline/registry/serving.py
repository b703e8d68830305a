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
from functools import lru_cache
from hashlib import sha256
from typing import Annotated

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import MAX_IDENTIFIER_BYTES, is_under
from tieline.model.peer import Prefix
from tieline.model.record import Seconds, Status
from tieline.model.spec import CheckpointSpec, Word
from tieline.ports import Archive, Logged, LogHead
from tieline.registry.authority import GIVING
from tieline.registry.digest import bucket_name, digest_of, entry_lines, packed
from tieline.registry.envelope import opened, payload_of
from tieline.registry.pages import CHECKPOINT_NAME, MAX_PAGE_BYTES, MAX_PAGE_RECORDS, page_of

MOST_LOGS_ASKED = 10_000
MOST_IDS_ASKED = 2_000
MOST_BUCKETS_ASKED = 4_096
MOST_TAIL_BYTES = 256 * 2**10  # of records in one line of a tail; a line that would be longer is a mere hint
MOST_ENTRIES = 50_000  # identifiers in one answer to AskBuckets, unless a single bucket holds more

Kinds = Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)]
Serial = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Name = Annotated[str, msgspec.Meta(max_length=MAX_IDENTIFIER_BYTES)]


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What an asker may read: these kinds, these prefixes and what is below them. Empty: all.

    Delegations are always granted, also those above: without them nothing could be verified.
    """

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
    """The buckets of a log, without what expired at ``alive_s``. Answer: DigestAnswer."""

    prefix: Prefix
    kinds: Kinds = ()
    alive_s: Seconds = 0


class AskBuckets(msgspec.Struct, frozen=True, kw_only=True, tag="buckets"):
    """Identifiers and hashes in ``buckets``, which are in ascending order. Answer: BucketsAnswer."""

    prefix: Prefix
    buckets: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0, lt=4_096)], ...],
        msgspec.Meta(min_length=1, max_length=MOST_BUCKETS_ASKED),
    ]
    kinds: Kinds = ()
    alive_s: Seconds = 0


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
    """Logs in order of prefix. ``head`` is the newest position of the event log: in one session it never goes back.

    ``next_after``: there are more, after this prefix.
    """

    session: str
    head: int
    logs: Annotated[tuple[LogLine, ...], msgspec.Meta(max_length=MOST_LOGS_ASKED)]
    next_after: Name = ""


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
    where the owner's checkpoint is missing or too old to help.
    """
    session, head = archive.position()
    if isinstance(request, AskLogs):
        return _logs(archive, request, grant, session, head)
    log = archive.log(request.prefix) if is_granted(grant, request.prefix) else None
    if log is None:
        raise TielineError("not_found", f"there is no log of `{request.prefix}` here, or you may not read it")
    if isinstance(request, AskRecords):
        return _records(archive, request, grant, session, log)
    if isinstance(request, AskSnapshot):
        return _snapshot(archive, request, grant, session)
    if isinstance(request, AskEnvelopes):
        return _envelopes(archive, request, grant, session, log)
    if isinstance(request, AskDigest):
        digits = archive.digits(request.prefix, _kinds(grant, request.prefix, request.kinds), request.alive_s)
        body = packed(digest_of(digits))
        return DigestAnswer(session=session, prefix=request.prefix, serial=log.serial, body=body)
    return _buckets(archive, request, grant, session, log)


def is_granted(grant: Grant, prefix: str) -> bool:
    """Whether the log of ``prefix`` may be read, if only its delegations: what is granted below rests on them."""
    return not grant.prefixes or any(is_under(prefix, each) or is_under(each, prefix) for each in grant.prefixes)


def granted_kinds(grant: Grant, prefix: str) -> tuple[str, ...]:
    """The kinds that may be read of a log that is granted; empty: all."""
    if grant.prefixes and not any(is_under(prefix, each) for each in grant.prefixes):
        return GIVING
    return tuple(dict.fromkeys((*GIVING, *grant.kinds))) if grant.kinds else ()


def tail_line(session: str, prefix: str, after: int, serial: int, envelopes: Sequence[bytes]) -> TailLine:
    """What to tell those who listen when the log of ``prefix`` grew from ``after`` to ``serial`` by ``envelopes``."""
    body = page_of(envelopes) if sum(map(len, envelopes)) <= MOST_TAIL_BYTES else b""
    if not body:
        return TailLine(session=session, prefix=prefix, after=after, serial=serial)
    count = len(envelopes)
    digest = sha256(body).hexdigest()
    return TailLine(session=session, prefix=prefix, after=after, serial=serial, count=count, sha256=digest, body=body)


def granted_line(line: TailLine, grant: Grant) -> TailLine | None:
    """``line`` as far as ``grant`` goes: None when its log may not be read; without the kinds that may not."""
    if not is_granted(grant, line.prefix):
        return None
    kinds = granted_kinds(grant, line.prefix)
    if not kinds or not line.body:
        return line
    kept = [envelope for envelope in line.body.split(b"\n")[:-1] if _kind_of(envelope) in kinds]
    if len(kept) == line.count:
        return line
    body = page_of(kept)
    return msgspec.structs.replace(line, count=len(kept), sha256=sha256(body).hexdigest(), body=body)


# -- one function per question ----------------------------------------------------------------------------------------


def _logs(archive: Archive, request: AskLogs, grant: Grant, session: str, head: int) -> LogsAnswer:
    found = archive.logs(request.after, request.limit)
    lines = tuple(
        LogLine(prefix=log.prefix, serial=log.serial, count=log.count, has_checkpoint=log.has_checkpoint)
        for log in found
        if is_granted(grant, log.prefix)
    )
    next_after = found[-1].prefix if len(found) == request.limit else ""
    return LogsAnswer(session=session, head=head, logs=lines, next_after=next_after)


def _records(archive: Archive, request: AskRecords, grant: Grant, session: str, log: LogHead) -> PageAnswer:
    rows = archive.delta(request.prefix, request.after, request.limit + 1, _kinds(grant, request.prefix, request.kinds))
    taken = _as_far_as_a_page(rows[: request.limit])
    is_last = len(taken) == len(rows)
    serial = log.serial if not taken else taken[-1].serial
    return _page(session, request.prefix, max(serial, log.serial) if is_last else serial, taken, is_last)


def _envelopes(archive: Archive, request: AskEnvelopes, grant: Grant, session: str, log: LogHead) -> PageAnswer:
    begin = request.prefix + "/"
    kinds = granted_kinds(grant, request.prefix)
    names = [name for name in request.ids if name.startswith(begin) and (not kinds or name.split("/")[1] in kinds)]
    rows = archive.envelopes(names)
    taken = _as_far_as_a_page(rows)
    return _page(session, request.prefix, log.serial, taken, len(taken) == len(rows))


def _snapshot(archive: Archive, request: AskSnapshot, grant: Grant, session: str) -> SnapshotAnswer:
    prefix = request.prefix
    found = archive.envelopes((f"{prefix}/{CHECKPOINT_NAME}",))
    listed = _checkpoint_of(found[0].envelope) if found and not granted_kinds(grant, prefix) else None
    if listed is None or request.page >= len(listed.pages):
        raise TielineError(
            "not_found", f"there is no page {request.page} of a checkpoint of `{prefix}` here; take its log instead"
        )
    pages, page = listed.pages, request.page
    first = f"{prefix}/{pages[page].first}" if page else f"{prefix}/"
    until = f"{prefix}/{pages[page + 1].first}" if page + 1 < len(pages) else f"{prefix}0"  # "0" follows "/"
    rows = archive.between(first, until, found[0].serial, MAX_PAGE_RECORDS + 1)
    taken = _as_far_as_a_page(rows[:MAX_PAGE_RECORDS])
    if len(taken) < len(rows):
        raise TielineError("not_found", f"the checkpoint of `{prefix}` is too old to help; take its log instead")
    body = page_of([row.envelope for row in taken])
    return SnapshotAnswer(
        session=session,
        prefix=prefix,
        serial=found[0].serial - 1,  # what follows it is in the log, the checkpoint first
        page=page,
        pages=len(pages),
        count=len(taken),
        sha256=sha256(body).hexdigest(),
        body=body,
        checkpoint=found[0].envelope,
    )


def _buckets(archive: Archive, request: AskBuckets, grant: Grant, session: str, log: LogHead) -> BucketsAnswer:
    names = [bucket_name(bucket) for bucket in sorted(request.buckets)]
    hashes = archive.hashes(request.prefix, names, _kinds(grant, request.prefix, request.kinds), request.alive_s)
    by_bucket: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    for each in hashes:
        by_bucket[each[1][:3]].append(each)
    taken: list[tuple[str, str]] = []
    next_bucket = -1
    for name in names:
        if taken and len(taken) + len(by_bucket[name]) > MOST_ENTRIES:
            next_bucket = int(name, 16)
            break
        taken += by_bucket[name]
    body = entry_lines(request.prefix, taken)
    return BucketsAnswer(
        session=session,
        prefix=request.prefix,
        serial=log.serial,
        count=len(taken),
        sha256=sha256(body).hexdigest(),
        body=body,
        next_bucket=next_bucket,
    )


# -- inside -----------------------------------------------------------------------------------------------------------


def _kinds(grant: Grant, prefix: str, asked: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds to answer with; empty: all."""
    granted = granted_kinds(grant, prefix)
    if not granted:
        return asked
    if not asked:
        return granted
    return tuple(kind for kind in asked if kind in granted) or ("none",)  # no kind has that name


def _as_far_as_a_page(rows: Sequence[Logged]) -> Sequence[Logged]:
    if sum([len(row.envelope) for row in rows]) + len(rows) <= MAX_PAGE_BYTES:
        return rows
    room_bytes = MAX_PAGE_BYTES
    for at, row in enumerate(rows):
        room_bytes -= len(row.envelope) + 1
        if room_bytes < 0:
            return rows[:at]
    return rows


def _page(session: str, prefix: str, serial: int, rows: Sequence[Logged], is_last: bool) -> PageAnswer:
    body = page_of([row.envelope for row in rows])
    return PageAnswer(
        session=session,
        prefix=prefix,
        serial=serial,
        count=len(rows),
        sha256=sha256(body).hexdigest(),
        body=body,
        is_last=is_last,
    )


class _Named(msgspec.Struct):
    """The part of a record that says what it is."""

    kind: str = ""


_named = msgspec.json.Decoder(_Named).decode


def _kind_of(envelope: bytes) -> str:
    return _named(payload_of(envelope)).kind


@lru_cache(maxsize=64)  # the pages of a snapshot are asked for one after the other
def _checkpoint_of(envelope: bytes) -> CheckpointSpec | None:
    record = opened(envelope).record
    return msgspec.convert(record.spec, CheckpointSpec) if record.status is not Status.WITHDRAWN else None
