"""Reader: everything that can be asked of the committed state. Safe from any thread; never sees an open transaction.

Pages are bounded (`MOST_ROWS_READ`) and resume after the last row seen, not by offset, so that each costs the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Column, Connection, Engine, Select, Table, and_, func, or_, select, tuple_
from sqlalchemy.exc import DatabaseError

from tieline.drivers.stores import tables as t
from tieline.drivers.stores.columns import short
from tieline.drivers.stores.log import GENESIS, LogRow, unreadable, verify
from tieline.drivers.stores.snapshot import head_of
from tieline.model.api import EventView, VerifyView
from tieline.model.circuit import Circuit, Receipt
from tieline.model.error import TielineError
from tieline.model.event import Entry, EquivocationSeen, RecordStored
from tieline.model.job import Job, Run, Usage
from tieline.model.party import Token
from tieline.model.plan import Quote
from tieline.model.transfer import Transfer

MOST_ROWS_READ = 1_000
MOST_NAMED = 256
VERIFY_ROWS = 2_000

T = TypeVar("T")

_job = msgspec.json.Decoder(Job).decode
_run = msgspec.json.Decoder(Run).decode
_usage = msgspec.json.Decoder(Usage).decode
_quote = msgspec.json.Decoder(Quote).decode
_token = msgspec.json.Decoder(Token).decode
_transfer = msgspec.json.Decoder(Transfer).decode
_circuit = msgspec.json.Decoder(Circuit).decode
_receipt = msgspec.json.Decoder(Receipt).decode
_equivocation = msgspec.json.Decoder(EquivocationSeen).decode
_RECORD = (t.record.c.id, *[column for column in t.record.c if column.name in RecordStored.__struct_fields__[1:]])


def _bounded(limit: int) -> int:
    return max(1, min(limit, MOST_ROWS_READ))


class Reader:
    """Questions about the committed state, on an engine whose connections can change nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """The engine that reads, for questions that are asked elsewhere."""
        return self._engine

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execute(query).fetchall()

    def _one(self, query: Select[Any]) -> Any:
        with self._engine.connect() as connection:
            return connection.execute(query).scalar()

    # -- the log ------------------------------------------------------------------------------------------------------

    def position(self) -> tuple[int, bytes]:
        """Number and hash of the newest entry; (0, `GENESIS`) for an empty log. Raises `check_failed`."""
        return head_of(self._one(select(t.meta.c.value).where(t.meta.c.key == "head")))

    def check_end(self) -> None:
        """Raise `check_failed` unless the log ends where the store says that it does. Costs one row."""
        seq, head = self.position()
        rows = self._rows(select(t.event.c.seq, t.event.c.hash).order_by(t.event.c.seq.desc()).limit(1))
        if (tuple(rows[0]) if rows else (0, GENESIS)) != (seq, head):
            end = rows[0][0] if rows else 0
            raise TielineError(
                "check_failed",
                f"the log ends at entry {end} and not, as the store states, at entry {seq} with hash {head.hex()[:16]}",
                hints=("restore the store's folder from a copy, as a whole",),
            )

    def log_rows(
        self, after: int = 0, limit: int = 100, *, job: str = "", site: str = "", kinds: Sequence[str] = ()
    ) -> list[LogRow]:
        """Stored entries above ``after`` in order; each filter that is given must hold."""
        query = select(t.event).where(t.event.c.seq > after).order_by(t.event.c.seq).limit(_bounded(limit))
        if job:
            query = query.where(t.event.c.job == short(job))
        if site:
            query = query.where(t.event.c.site == site)
        if kinds:
            query = query.where(t.event.c.kind.in_(kinds))
        return [LogRow(*row) for row in self._rows(query)]

    def events(
        self, after: int = 0, limit: int = 100, *, job: str = "", site: str = "", kinds: Sequence[str] = ()
    ) -> list[EventView]:
        """The same as readers see it, with the bodies as stored."""
        return [event_view(row) for row in self.log_rows(after, limit, job=job, site=site, kinds=kinds)]

    def entries(
        self, after: int = 0, limit: int = 100, *, job: str = "", site: str = "", kinds: Sequence[str] = ()
    ) -> list[Entry]:
        """The same, decoded."""
        return [row.entry() for row in self.log_rows(after, limit, job=job, site=site, kinds=kinds)]

    def verify_chain(self, after: int = 0, from_hash: bytes = GENESIS) -> VerifyView:
        """Check the log from ``after`` (whose hash the caller knows) to its end, the kept head included.

        Reads page by page, so that no long transaction holds back the database's own upkeep.
        """
        seq, head = self.position()
        if seq < after:
            why = f"the log ends at entry {seq}, before entry {after}"
            return VerifyView(is_verified=False, events=seq, head=head.hex(), broken_at=seq + 1, why=why)
        return verify(self._pages(after), from_hash, after, {seq: head} if seq else {})

    def _pages(self, after: int) -> Iterator[Sequence[Any]]:
        page = select(t.event).order_by(t.event.c.seq)
        count = VERIFY_ROWS
        while True:
            try:
                rows = self._rows(page.where(t.event.c.seq > after).limit(count))
            except DatabaseError:  # of a damaged file: find the row
                if count == 1:
                    yield unreadable(after + 1)
                    return
                count = 1
                continue
            if not rows:
                return
            yield from rows
            after = rows[-1][0]

    # -- jobs and runs ------------------------------------------------------------------------------------------------

    def job(self, name: str) -> Job | None:
        """One job by its identifier."""
        doc = self._one(select(t.job.c.doc).where(t.job.c.id == name))
        return _job(doc) if doc is not None else None

    def jobs_named(self, names: Sequence[str]) -> dict[str, Job]:
        """Jobs by identifier; those that are not kept are left out."""
        found: dict[str, Job] = {}
        for at in range(0, len(names), MOST_NAMED):
            query = select(t.job.c.id, t.job.c.doc).where(t.job.c.id.in_(names[at : at + MOST_NAMED]))
            found.update((name, _job(doc)) for name, doc in self._rows(query))
        return found

    def jobs(
        self,
        *,
        user: str = "",
        states: Sequence[str] = (),
        pipeline: str = "",
        project: str = "",
        before: str = "",
        limit: int = 100,
    ) -> list[Job]:
        """Jobs, newest first, those before the job ``before``. Raises `invalid_cursor` when that is not known."""
        table = t.job.c
        query = select(table.doc).order_by(table.submitted_ms.desc(), table.id.desc()).limit(_bounded(limit))
        if user:
            query = query.where(table.user == user)
        if states:
            query = query.where(table.state.in_(states))
        if pipeline:
            query = query.where(table.pipeline == pipeline)
        if project:
            query = query.where(table.project == project)
        with self._engine.connect() as connection:
            if before:
                query = _after(connection, query, t.job, table.submitted_ms, before, descending=True)
            return [_job(doc) for (doc,) in connection.execute(query)]

    def run(self, name: str) -> Run | None:
        """One run by its short name."""
        doc = self._one(select(t.run.c.doc).where(t.run.c.id == name))
        return _run(doc) if doc is not None else None

    def runs(self, job: str) -> list[Run]:
        """All runs of a job, oldest first."""
        query = select(t.run.c.doc).where(t.run.c.job == job).order_by(t.run.c.offered_ms, t.run.c.id)
        return [_run(doc) for (doc,) in self._rows(query)]

    def runs_at(self, site: str, *, before: str = "", limit: int = 100) -> list[Run]:
        """Runs at a site, newest first, those before the run ``before``."""
        table = t.run.c
        query = select(table.doc).where(table.site == site)
        query = query.order_by(table.offered_ms.desc(), table.id.desc()).limit(_bounded(limit))
        with self._engine.connect() as connection:
            if before:
                query = _after(connection, query, t.run, table.offered_ms, before, descending=True)
            return [_run(doc) for (doc,) in connection.execute(query)]

    # -- money --------------------------------------------------------------------------------------------------------

    def usage(self, run: str) -> Usage | None:
        """The usage line of a run, if it was billed."""
        doc = self._one(select(t.usage.c.doc).where(t.usage.c.run == run))
        return _usage(doc) if doc is not None else None

    def usages(
        self, *, user: str = "", owner: str = "", job: str = "", project: str = "", after: str = "", limit: int = 100
    ) -> list[Usage]:
        """Usage lines in order of their end, those after the line of the run ``after``."""
        table = t.usage.c
        query = select(table.doc).order_by(table.ended_ms, table.run).limit(_bounded(limit))
        wanted = ((table.user, user), (table.owner, owner), (table.job, job), (table.project, project))
        for column, value in wanted:
            if value:
                query = query.where(column == value)
        with self._engine.connect() as connection:
            if after:
                query = _after(connection, query, t.usage, table.ended_ms, after)
            return [_usage(doc) for (doc,) in connection.execute(query)]

    # -- quotes -------------------------------------------------------------------------------------------------------

    def quote(self, name: str) -> Quote | None:
        """One quote."""
        doc = self._one(select(t.quote.c.doc).where(t.quote.c.id == name))
        return _quote(doc) if doc is not None else None

    def quotes(self, *, user: str = "", states: Sequence[str] = (), before: str = "", limit: int = 100) -> list[Quote]:
        """Quotes, newest name first, those before the quote ``before``."""
        table = t.quote.c
        query = select(table.doc).order_by(table.id.desc()).limit(_bounded(limit))
        if user:
            query = query.where(table.user == user)
        if states:
            query = query.where(table.state.in_(states))
        if before:
            query = query.where(table.id < before)
        return [_quote(doc) for (doc,) in self._rows(query)]

    # -- the network --------------------------------------------------------------------------------------------------

    def transfer(self, name: str) -> Transfer | None:
        """One transfer."""
        doc = self._one(select(t.transfer.c.doc).where(t.transfer.c.id == name))
        return _transfer(doc) if doc is not None else None

    def transfers(
        self, *, user: str = "", states: Sequence[str] = (), before: str = "", limit: int = 100
    ) -> list[Transfer]:
        """Transfers, newest name first, those before the transfer ``before``."""
        query = self._bookings(t.transfer, user, states, before, limit)
        return [_transfer(doc) for (doc,) in self._rows(query)]

    def circuit(self, name: str) -> Circuit | None:
        """One circuit."""
        doc = self._one(select(t.circuit.c.doc).where(t.circuit.c.id == name))
        return _circuit(doc) if doc is not None else None

    def circuits(
        self, *, user: str = "", states: Sequence[str] = (), before: str = "", limit: int = 100
    ) -> list[Circuit]:
        """Circuits, newest name first, those before the circuit ``before``."""
        query = self._bookings(t.circuit, user, states, before, limit)
        return [_circuit(doc) for (doc,) in self._rows(query)]

    def receipts(self, subject: str, *, after: int = 0, limit: int = 100) -> list[Receipt]:
        """What was seen of a transfer or a circuit, oldest first, those above the number ``after``."""
        table = t.receipt.c
        query = select(table.doc).where(table.subject == subject, table.seq > after)
        return [_receipt(doc) for (doc,) in self._rows(query.order_by(table.seq).limit(_bounded(limit)))]

    @staticmethod
    def _bookings(table: Table, user: str, states: Sequence[str], before: str, limit: int) -> Select[Any]:
        query = select(table.c.doc).order_by(table.c.id.desc()).limit(_bounded(limit))
        if user:
            query = query.where(table.c.user == user)
        if states:
            query = query.where(table.c.state.in_(states))
        return query.where(table.c.id < before) if before else query

    # -- tokens, records ----------------------------------------------------------------------------------------------

    def tokens(self, *, after: str = "", limit: int = 1_000) -> list[Token]:
        """Tokens in order of identifier, those after ``after``."""
        query = select(t.token.c.doc).where(t.token.c.id > after).order_by(t.token.c.id).limit(_bounded(limit))
        return [_token(doc) for (doc,) in self._rows(query)]

    def record(self, name: str) -> RecordStored | None:
        """The kept revision of a record. Its envelope is empty once its bytes were let go (long after it expired)."""
        found = self._rows(select(*_RECORD).where(t.record.c.id == name))
        return _record(found[0]) if found else None

    def records(self, *, prefix: str = "", kind: str = "", after: str = "", limit: int = 100) -> list[RecordStored]:
        """Records in order of identifier: those of ``prefix`` and everything delegated below it."""
        table = t.record.c
        query = select(*_RECORD).where(table.id > after).order_by(table.id).limit(_bounded(limit))
        if prefix:
            query = query.where(or_(table.prefix == prefix, table.prefix.startswith(prefix + ".", autoescape=True)))
        if kind:
            query = query.where(table.kind == kind)
        return [_record(row) for row in self._rows(query)]

    def equivocations(self, name: str) -> list[EquivocationSeen]:
        """The proofs that a record's writer signed two payloads of one revision."""
        query = select(t.equivocation.c.doc).where(t.equivocation.c.id == name).order_by(t.equivocation.c.rev)
        return [_equivocation(doc) for (doc,) in self._rows(query)]

    def secret(self, job: str) -> bytes | None:
        """The sealed secrets of a job that has not ended."""
        sealed = self._one(select(t.secret.c.sealed).where(t.secret.c.job == job))
        return bytes(sealed) if sealed is not None else None

    # -- sums ---------------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Rows: ``events``, ``records``, ``usage``, ``jobs`` and ``jobs.<state>``."""
        with self._engine.connect() as connection:
            states = connection.execute(select(t.job.c.state, func.count()).group_by(t.job.c.state)).all()
            records = connection.execute(select(func.count()).select_from(t.record)).scalar() or 0
            usage = connection.execute(select(func.count()).select_from(t.usage)).scalar() or 0
        found = {"events": self.position()[0], "records": records, "usage": usage, "jobs": 0}
        for state, count in sorted(tuple(row) for row in states):
            found["jobs"] += count
            found[f"jobs.{state}"] = count
        return found


def event_view(row: LogRow) -> EventView:
    """A stored entry as its readers see it."""
    return EventView(
        seq=row.seq,
        time_ms=row.time_ms,
        kind=row.kind,
        subject=row.subject,
        actor=row.actor,
        source=row.source or "",
        hash=row.hash.hex(),
        body=msgspec.Raw(row.body),
    )


def _record(row: Any) -> RecordStored:
    values = dict(row._mapping)
    values["envelope"] = bytes(values["envelope"]).decode()
    return RecordStored(**values)


def _after(
    connection: Connection, query: Select[T], table: Table, order: Column[Any], cursor: str, *, descending: bool = False
) -> Select[T]:
    """Only rows beyond the row named ``cursor`` in the order of (``order``, key)."""
    key = next(iter(table.primary_key))
    at = connection.execute(select(order).where(key == cursor)).scalar()
    if at is None:
        raise TielineError("invalid_cursor", f"`{cursor}` is not a {table.name} to go on from", where="after")
    if descending:
        return query.where(and_(order <= at, tuple_(order, key) < (at, cursor)))
    return query.where(and_(order >= at, tuple_(order, key) > (at, cursor)))
