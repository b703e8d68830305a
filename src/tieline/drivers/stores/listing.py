"""Listing: what the store holds that may be due to be let go. Reads in bounded steps; decides nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Engine, Select, exists, or_, select, text

from tieline.drivers.stores import tables as t

PAGE_ROWS = 500
_DIGESTS = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


class _Lease(msgspec.Struct):
    """The one field of a quote that says how old it is."""

    expires_ms: int = 0


class _Payload(msgspec.Struct):
    """The signed part of an envelope (flattened JWS)."""

    payload: str = ""


_lease = msgspec.json.Decoder(_Lease).decode
_payload = msgspec.json.Decoder(_Payload).decode


class EndedJob(NamedTuple):
    """A job that is over. ``is_billed``: a kept usage line names it."""

    id: str
    ended_ms: int
    is_billed: bool


class Listing:
    """Questions of the sweeper about committed state. Every answer is one page; not for the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execute(query).fetchall()

    def idempotency_keys(self, before_ms: int) -> list[str]:
        """Keys whose answers were given before ``before_ms``."""
        table = t.idempotency.c
        query = select(table.key).where(table.time_ms < before_ms).order_by(table.time_ms).limit(PAGE_ROWS)
        return [key for (key,) in self._rows(query)]

    def usage_lines(self, before_ms: int) -> list[str]:
        """Runs whose usage lines ended before ``before_ms``."""
        table = t.usage.c
        query = select(table.run).where(table.ended_ms < before_ms).order_by(table.ended_ms).limit(PAGE_ROWS)
        return [run for (run,) in self._rows(query)]

    def nth_ended_ms(self, count: int) -> int:
        """When the last of the newest ``count`` ended jobs ended; 0 when there are not so many."""
        ended = t.job.c.ended_ms
        query = select(ended).where(ended > 0).order_by(ended.desc()).limit(1).offset(count - 1)
        rows = self._rows(query)
        return int(rows[0][0]) if rows else 0

    def ended_jobs(self, until_ms: int, after: tuple[int, str] = (0, "")) -> list[EndedJob]:
        """Jobs that ended at ``until_ms`` or before, oldest first, those after (ended_ms, id)."""
        table = t.job.c
        billed = exists().where(t.usage.c.job == table.id)
        query = (
            select(table.id, table.ended_ms, billed)
            .where(table.ended_ms > 0, table.ended_ms <= until_ms, table.ended_ms >= after[0])
            .where(or_(table.ended_ms > after[0], table.id > after[1]))
            .order_by(table.ended_ms, table.id)
            .limit(PAGE_ROWS)
        )
        return [EndedJob(name, ended_ms, bool(is_billed)) for name, ended_ms, is_billed in self._rows(query)]

    def runs_of(self, jobs: Sequence[str]) -> list[str]:
        """All runs of these jobs."""
        return [run for (run,) in self._rows(select(t.run.c.id).where(t.run.c.job.in_(jobs)))]

    def ends_of_runs(self, runs: Sequence[str]) -> Mapping[str, int]:
        """When the job of each run ended: 0 while it is live; a run that is not known is missing."""
        query = select(t.run.c.id, t.job.c.ended_ms).join(t.job, t.job.c.id == t.run.c.job).where(t.run.c.id.in_(runs))
        return dict(tuple(row) for row in self._rows(query))

    def closed_quotes(self, before_ms: int, after: str = "") -> tuple[list[str], str]:
        """Quotes that are neither asked nor open and expired before ``before_ms``, and the name to go on from."""
        table = t.quote.c
        query = select(table.id, table.doc).where(table.id > after, table.state.not_in(("asked", "open")))
        rows = self._rows(query.order_by(table.id).limit(PAGE_ROWS))
        due = [name for name, doc in rows if _lease(doc).expires_ms < before_ms]
        return due, rows[-1][0] if len(rows) == PAGE_ROWS else ""

    def expired_records(self, before_s: int) -> list[str]:
        """Records whose lease ended before ``before_s`` (seconds since the epoch)."""
        table = t.record.c
        query = select(table.id).where(table.exp < before_s).order_by(table.exp).limit(PAGE_ROWS)
        return [name for (name,) in self._rows(query)]

    def references(self, ended_after_ms: int, now_s: int) -> Iterator[set[str]]:
        """Every sha256 that is written in something that keeps blobs, page by page.

        Those are live jobs, jobs that ended after ``ended_after_ms``, live runs and quotes, and records whose lease
        runs. Anything that looks like a sha256 counts, whatever the field is called: better kept too long than lost.
        """
        job, run, quote, record = t.job.c, t.run.c, t.quote.c, t.record.c
        kept = or_(job.ended_ms == 0, job.ended_ms > ended_after_ms)
        yield from self._digests(job.id, job.doc, kept)
        yield from self._digests(run.id, run.doc, text(t.RUN_IS_LIVE))
        yield from self._digests(quote.id, quote.doc, text(t.QUOTE_IS_LIVE))
        yield from self._digests(record.id, record.envelope, record.exp >= now_s, is_envelope=True)

    def _digests(self, key: Any, content: Any, condition: Any, *, is_envelope: bool = False) -> Iterator[set[str]]:
        after = ""
        while rows := self._rows(select(key, content).where(condition, key > after).order_by(key).limit(PAGE_ROWS)):
            found: set[str] = set()
            for _, doc in rows:
                found.update(match.decode() for match in _DIGESTS.findall(_signed_part(doc) if is_envelope else doc))
            yield found
            after = rows[-1][0]


def _signed_part(envelope: bytes) -> bytes:
    """The payload of an envelope; the envelope itself when it is none that can be read."""
    try:
        payload = _payload(envelope).payload
        return base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    except (ValueError, msgspec.MsgspecError):
        return envelope
