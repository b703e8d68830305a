"""Snapshot: everything of one moment, read while others go on writing. What a start, a follower and a backup read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Select, false, func, select, text, union

from tieline.drivers.stores import tables as t
from tieline.drivers.stores.log import GENESIS
from tieline.exchange.supply import PLACEABLE
from tieline.model.error import TielineError
from tieline.registry.authority import GIVING

Row = Mapping[str, Any]
RECENT_JOBS = 2_000  # whose runs are loaded at a start, so that a report that is repeated is answered as before
ROWS_AT_ONCE = 500


class Snapshot:
    """One moment of a store: position and rows belong together. Lives inside `snapshot_of`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def position(self) -> tuple[int, bytes]:
        """Number and hash of the newest entry of this moment. Raises `check_failed`."""
        value = self._connection.execute(select(t.meta.c.value).where(t.meta.c.key == "head")).scalar()
        return head_of(value)

    def rows(self, query: Select[Any]) -> Iterator[Row]:
        """The rows of ``query`` as mappings, read as they are asked for and never all in memory."""
        found = self._connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query)
        names = tuple(found.keys())
        for row in found:
            yield dict(zip(names, row, strict=True))  # a third of what SQLAlchemy's own mappings cost

    def tables(self) -> dict[str, Rows]:
        """The state tables as a view is filled from them; see `state_queries`."""
        return {name: Rows(query, self._again) for name, query in state_queries().items()}

    @contextmanager
    def _again(self) -> Iterator[Connection]:
        yield self._connection


class Rows:
    """The rows of a query as mappings, read anew at each iteration."""

    def __init__(self, query: Select[Any], connect: Callable[[], AbstractContextManager[Connection]]) -> None:
        self.query = query
        self._connect = connect

    def __iter__(self) -> Iterator[Row]:
        with self._connect() as connection:
            yield from Snapshot(connection).rows(self.query)


def head_of(value: Any) -> tuple[int, bytes]:
    """Number and hash of the newest entry, as the row `head` of `meta` holds them; None: the log is empty."""
    if value is None:
        return 0, GENESIS
    if not isinstance(value, bytes) or len(value) != 8 + len(GENESIS):
        raise TielineError("check_failed", "the position of the log cannot be read: the store was changed")
    return int.from_bytes(value[:8], "big"), value[8:]


@contextmanager
def connection_of(engine: Engine) -> Iterator[Connection]:
    """A connection of a reading engine that sees one moment until the block ends."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            with connection.execution_options(isolation_level="REPEATABLE READ").begin():
                yield connection
            return
        connection.exec_driver_sql("BEGIN")
        try:
            yield connection
        finally:
            connection.exec_driver_sql("ROLLBACK")


@contextmanager
def snapshot_of(engine: Engine) -> Iterator[Snapshot]:
    """One moment of the store behind a reading engine."""
    with connection_of(engine) as connection:
        snapshot = Snapshot(connection)
        snapshot.position()  # SQLite's moment is that of the first read
        yield snapshot


def state_queries() -> dict[str, Select[Any]]:
    """The state tables as a view is filled from them: all rows, but of jobs, runs and quotes the live ones.

    Runs also come for the jobs that ended last; of usage lines comes their sum. ``brief`` is what stays in memory of
    the live jobs, ``given`` are the delegations among the records, ``head`` what stays in memory of all others: these
    come in no order. ``placeable`` are the records that placing reads, sites first. All else comes oldest first.
    """
    jobs, runs = t.job.c, t.run.c
    live_jobs = select(jobs.id).where(jobs.ended_ms == 0)
    recent_jobs = select(jobs.id).where(jobs.ended_ms > 0).order_by(jobs.ended_ms.desc()).limit(RECENT_JOBS)
    wanted = union(  # and not OR: each part is found by an index of its own
        select(runs.id).where(text(t.RUN_IS_LIVE)),
        select(runs.id).where(runs.job.in_(live_jobs)),
        select(runs.id).where(runs.job.in_(recent_jobs)),
    )
    narrowed = {
        "job": select(t.job).where(jobs.ended_ms == 0).order_by(jobs.submitted_ms, jobs.id),
        "run": select(t.run).where(runs.id.in_(wanted)).order_by(runs.offered_ms, runs.id),
        "quote": select(t.quote).where(text(t.QUOTE_IS_LIVE)).order_by(t.quote.c.id),
        "usage": select(func.sum(t.usage.c.charge_micro_cny).label("charge_micro_cny")),
        "given": select(t.record).where(t.record.c.kind.in_(GIVING)),
        "head": select(*(column for column in t.record.c if column.name != "envelope")).where(
            t.record.c.kind.not_in(GIVING)
        ),
        "placeable": select(t.record).where(t.record.c.kind.in_(PLACEABLE)).order_by(t.record.c.kind.desc()),
        "transfer": select(t.transfer).where(text(t.TRANSFER_IS_LIVE)).order_by(t.transfer.c.id),
        "circuit": select(t.circuit).where(text(t.CIRCUIT_IS_LIVE)).order_by(t.circuit.c.id),
        "receipt": select(t.receipt).where(false()),  # none: what was seen is read from the store
        "brief": select(jobs.id, jobs.brief).where(jobs.ended_ms == 0),
    }
    return {name: whole(t.metadata.tables[name]) for name in t.STATE} | narrowed


def whole(table: Any) -> Select[Any]:
    """Every row of ``table`` in order of its key."""
    return select(table).order_by(*table.primary_key)
