"""Archive: the logs of records as the committed store holds them (port `Archive`). Safe from any thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Engine, Select, and_, bindparam, func, or_, select

from tieline.drivers.stores import tables as t
from tieline.exchange.view import ExchangeRow
from tieline.model.record import Status
from tieline.ports import Logged, LogHead
from tieline.registry.digest import HASH_DIGITS
from tieline.registry.pages import CHECKPOINT_NAME

MOST_ROWS = 2_001  # a page, and one more to see whether there is another
MOST_NAMES = 500  # of one statement

_record = t.record.c
_LOGGED = (_record.id, _record.serial, _record.sha256, _record.envelope)
_POSITION = select(
    select(t.exchange.c.doc).limit(1).scalar_subquery(),
    select(t.meta.c.value).where(t.meta.c.key == "head").scalar_subquery(),
)
_LOG = select(
    t.serial.c.serial, select(_record.status).where(_record.id == bindparam("checkpoint")).scalar_subquery()
).where(t.serial.c.prefix == bindparam("prefix"))
_DELTA = (
    select(*_LOGGED)
    .where(_record.prefix == bindparam("prefix"), _record.serial > bindparam("after"))
    .order_by(_record.serial)
    .limit(bindparam("limit"))
)
_NAMED = select(*_LOGGED).where(_record.id.in_(bindparam("names", expanding=True)))
_made = partial(tuple.__new__, Logged)  # as `Logged._make`, which counts the columns of each row
_exchange = msgspec.json.Decoder(ExchangeRow).decode


class StoredArchive:
    """Questions about the logs, on an engine that reads. Records whose bytes were let go are in none of the answers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_bytewise = engine.dialect.name == "sqlite"  # elsewhere texts may be ordered by a language's rules
        name = self._bytes(_record.id)
        terms = (name >= bindparam("first"), name < bindparam("until"), _record.serial < bindparam("below"))
        self._between = select(*_LOGGED).where(*terms).order_by(name).limit(bindparam("limit"))

    def position(self) -> tuple[str, int]:
        """Session of the logs, and the newest position of the event log; ("", 0) before there is an exchange."""
        with self._engine.connect() as connection:
            doc, head = connection.execute(_POSITION).one()
        session = _exchange(doc).session if doc is not None else ""
        return session, int.from_bytes(head[:8], "big") if head else 0

    def logs(self, after: str, limit: int) -> Sequence[LogHead]:
        """Logs in order of prefix, those after the prefix ``after``."""
        prefix = t.serial.c.prefix
        query = select(prefix, t.serial.c.serial).where(self._bytes(prefix) > after)
        query = query.order_by(self._bytes(prefix)).limit(max(1, limit))
        with self._engine.connect() as connection:
            heads = connection.execute(query).all()
            if not heads:
                return []
            span = and_(self._bytes(_record.prefix) >= heads[0][0], self._bytes(_record.prefix) <= heads[-1][0])
            sums = select(_record.prefix, func.count()).where(span).group_by(_record.prefix)
            counts = dict(tuple(row) for row in connection.execute(sums))
            with_checkpoint: dict[str, None] = {}
            for at in range(0, len(heads), MOST_NAMES):
                names = [f"{name}/{CHECKPOINT_NAME}" for name, _ in heads[at : at + MOST_NAMES]]
                signed = select(_record.prefix).where(_record.id.in_(names), _record.status != Status.WITHDRAWN)
                with_checkpoint |= dict.fromkeys(row[0] for row in connection.execute(signed))
        return [
            LogHead(prefix=name, serial=serial, count=counts.get(name, 0), has_checkpoint=name in with_checkpoint)
            for name, serial in heads
        ]

    def log(self, prefix: str) -> LogHead | None:
        """One of them, without its count; None when no record of that prefix was ever stored."""
        with self._engine.connect() as connection:
            row = connection.execute(_LOG, {"prefix": prefix, "checkpoint": f"{prefix}/{CHECKPOINT_NAME}"}).first()
        if row is None:
            return None
        serial, status = row
        is_signed = status is not None and status != Status.WITHDRAWN
        return LogHead(prefix=prefix, serial=serial, has_checkpoint=is_signed)

    def delta(self, prefix: str, after: int, limit: int, kinds: Sequence[str] = ()) -> Sequence[Logged]:
        """Records above the serial ``after`` in order of serial; ``kinds`` empty: of every kind."""
        query = _DELTA.where(_record.kind.in_(kinds)) if kinds else _DELTA
        return self._logged(query, {"prefix": prefix, "after": after, "limit": _bounded(limit)})

    def between(self, first: str, until: str, below: int, limit: int) -> Sequence[Logged]:
        """Records of one prefix from the identifier ``first`` to before ``until``, with a serial below ``below``."""
        values = {"first": first, "until": until, "below": below, "limit": _bounded(limit)}
        return self._logged(self._between, values)

    def digits(self, prefix: str, kinds: Sequence[str] = (), alive_s: int = 0) -> str:
        """The first 32 hex digits of the payload hash of every record of the log, joined by the database itself."""
        digits = func.substr(_record.sha256, 1, HASH_DIGITS)
        with self._engine.connect() as connection:
            query = select(func.aggregate_strings(digits, "")).where(*_alive(prefix, kinds, alive_s))
            return connection.execute(query).scalar() or ""

    def hashes(
        self, prefix: str, buckets: Sequence[str], kinds: Sequence[str] = (), alive_s: int = 0
    ) -> Sequence[tuple[str, str]]:
        """Identifier and payload hash (hex) of those of the same records whose hash begins with one of ``buckets``."""
        query = select(_record.id, _record.sha256).where(*_alive(prefix, kinds, alive_s))
        query = query.where(func.substr(_record.sha256, 1, 3).in_(buckets))
        with self._engine.connect() as connection:
            return [(name, sha256) for name, sha256 in connection.execute(query)]

    def envelopes(self, ids: Sequence[str]) -> Sequence[Logged]:
        """Those of ``ids`` that are here, in the order asked."""
        found: dict[str, Logged] = {}
        for at in range(0, len(ids), MOST_NAMES):
            for row in self._logged(_NAMED, {"names": ids[at : at + MOST_NAMES]}):
                found[row.id] = row
        return [found[name] for name in ids if name in found]

    def _logged(self, query: Select[Any], values: Mapping[str, Any]) -> list[Logged]:
        """The rows as the driver gives them, who gives plain tuples of plain values."""
        with self._engine.connect() as connection:
            rows = connection.execute(query, values).cursor.fetchall()
        return [_made(row) for row in rows if row[3]]

    def _bytes(self, column: ColumnElement[str]) -> ColumnElement[str]:
        """The column, ordered byte by byte as identifiers are everywhere."""
        return column if self._is_bytewise else column.collate("C")


def _alive(prefix: str, kinds: Sequence[str], alive_s: int) -> list[ColumnElement[bool]]:
    terms = [_record.prefix == prefix, func.length(_record.envelope) > 0]
    if kinds:
        terms.append(_record.kind.in_(kinds))
    if alive_s:
        terms.append(or_(_record.exp > alive_s, _record.status == Status.WITHDRAWN))
    return terms


def _bounded(limit: int) -> int:
    return max(1, min(limit, MOST_ROWS))
