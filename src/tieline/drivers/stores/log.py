"""The event log's hash chain: how each entry commits to everything before it, and how that is checked.

::

    hash(n) = sha256( hash(n-1) | seq, 8 bytes | time_ms, 8 bytes | length of caller, 4 bytes | caller | body )
    caller  = actor, UTF-8; and, where the entry has a source: a zero byte, source, UTF-8

Integers are big-endian and unsigned; `GENESIS` stands for the hash before the first entry; the body is the event's JSON
as it was stored, never serialised again. A chain shows every change, exchange, gap and insertion. That its end is
missing it cannot show by itself: the *anchors* do (positions whose hash is known from elsewhere, such as the head that
the store keeps, a signed checkpoint, or what a peer has witnessed).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from tieline.drivers.stores.columns import columns_of, kind_of
from tieline.model.api import VerifyView
from tieline.model.event import Entry, Event, Events
from tieline.model.reason import Reason, sentence

GENESIS = bytes(32)
MAX_ACTOR_BYTES = 800

encode = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(Events).decode


class LogRow(NamedTuple):
    """One row of the table `event`, in the order of its columns."""

    seq: int
    time_ms: int
    kind: str
    subject: str
    job: str | None
    site: str | None
    actor: str
    body: bytes
    hash: bytes
    source: str | None = None  # from where and under which right: `127.0.0.1 token t-...`

    def entry(self) -> Entry:
        """The entry that is stored here."""
        return Entry(seq=self.seq, time_ms=self.time_ms, actor=self.actor, event=decode_event(self.body))


def caller_of(actor: str, source: str | None) -> bytes:
    """What the hash covers of who asked. Entries of before revision 0002 have no source."""
    return actor.encode() if source is None else b"%s\0%s" % (actor.encode(), source.encode())


def link(previous: bytes, seq: int, time_ms: int, actor: bytes, body: bytes) -> bytes:
    """The hash of one entry; ``actor`` as `caller_of` gives it."""
    return sha256(
        b"".join(
            (previous, seq.to_bytes(8, "big"), time_ms.to_bytes(8, "big"), len(actor).to_bytes(4, "big"), actor, body)
        )
    ).digest()


def log_row(
    previous: bytes,
    seq: int,
    time_ms: int,
    actor: str,
    event: Event,
    job: str | None,
    site: str | None,
    source: str | None = None,
) -> LogRow:
    """The row of one entry, chained to ``previous``; ``job`` and ``site`` are its filter columns."""
    body = encode(event)
    digest = link(previous, seq, time_ms, caller_of(actor, source), body)
    return LogRow(seq, time_ms, kind_of(event), event.subject, job, site, actor, body, digest, source)


def chain(entries: Iterable[Entry], previous: bytes = GENESIS) -> list[LogRow]:
    """The rows of ``entries``, each chained to the one before; filter columns as far as the events themselves say."""
    rows: list[LogRow] = []
    for entry in entries:
        filed = columns_of(entry.event, None)
        row = log_row(previous, entry.seq, entry.time_ms, entry.actor, entry.event, *filed)
        rows.append(row)
        previous = row.hash
    return rows


def verify(
    rows: Iterable[Sequence[Any]],
    from_hash: bytes = GENESIS,
    from_seq: int = 0,
    anchors: Mapping[int, bytes] | None = None,
) -> VerifyView:
    """Check a stream of rows that follow entry ``from_seq``; memory does not grow with the log.

    The answer names the first position that does not hold (``broken_at``, 0 when all do) and why. Columns that repeat
    what the body says (kind, subject, job) are checked against the body, since histories are filtered by them.
    """
    seq, previous = from_seq, from_hash
    last_anchor = max(anchors, default=0) if anchors else 0
    for values in rows:
        row = LogRow(*values)
        found = fault(row, seq, previous)
        if found is None and anchors and anchors.get(row.seq, row.hash) != row.hash:
            found = Reason(code="log_witnessed", values={"entry": row.seq})
        if found is not None:
            return _broken(seq, previous, found)
        seq, previous = row.seq, row.hash
    if seq < last_anchor:
        return _broken(seq, previous, Reason(code="log_end_missing", values={"entry": seq, "known": last_anchor}))
    return VerifyView(is_verified=True, events=seq, head=previous.hex(), broken_at=0, why="")


def _broken(seq: int, previous: bytes, found: Reason) -> VerifyView:
    return VerifyView(is_verified=False, events=seq, head=previous.hex(), broken_at=seq + 1, why=sentence(found))


def unreadable(seq: int) -> LogRow:
    """What stands for a row that the database cannot give."""
    return LogRow(seq, -1, "", "", None, None, "", b"", b"")


def _is_readable(row: LogRow) -> bool:
    """Whether every value has the type that it was written with; a changed database may hold any other."""
    texts = (row.kind, row.subject, row.actor)
    return (
        isinstance(row.time_ms, int)
        and 0 <= row.time_ms < 2**63
        and all(isinstance(value, str) for value in texts)
        and (row.source is None or isinstance(row.source, str))
        and isinstance(row.body, bytes)
        and isinstance(row.hash, bytes)
    )


def fault(row: LogRow, seq: int, previous: bytes) -> Reason | None:
    """What is wrong with the row that follows entry ``seq``; None when nothing is."""
    if row.seq != seq + 1:
        return Reason(code="log_gap", values={"entry": seq + 1, "seen": row.seq, "last": seq})
    if not _is_readable(row):
        return Reason(code="log_unreadable", values={"entry": row.seq})
    if link(previous, row.seq, row.time_ms, caller_of(row.actor, row.source), row.body) != row.hash:
        return Reason(code="log_changed", values={"entry": row.seq})
    try:
        event = decode_event(row.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Reason(code="log_unknown", values={"entry": row.seq})
    job, site = columns_of(event, None)
    stated = (kind_of(event), event.subject, job, site if site is not None else row.site)
    if (row.kind, row.subject, row.job, row.site) != stated:
        return Reason(code="log_misfiled", values={"entry": row.seq})
    return None
