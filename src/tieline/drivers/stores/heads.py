"""Heads: signed heads of logs as a store keeps them, our own and those that peers showed us (table `checkpoint`)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Select, and_, func, select

from tieline.drivers.stores import tables as t
from tieline.drivers.stores.store import Change
from tieline.model.audit import HeadView, LogHead
from tieline.registry.heads import head_view

MOST_HEADS = 1_000
MOST_KEPT = 1_000  # of one log; of the older half of more, every second one is let go of


def kept(head: LogHead, statement: bytes, at_ms: int) -> Change:
    """The row of a head that is kept from ``at_ms`` on, for the writer."""
    row = {
        "exchange": head.exchange,
        "size": head.size,
        "root": bytes.fromhex(head.root),
        "at_ms": at_ms,
        "statement": statement,
    }
    return ("checkpoint", f"{head.exchange} {head.size}", row)


def heads_of(engine: Engine, exchange: str, after: int = 0, limit: int = MOST_HEADS) -> list[HeadView]:
    """The kept heads of one log above ``after`` entries, in order of size."""
    table = t.checkpoint.c
    query = select(table.statement).where(table.exchange == exchange, table.size > after)
    return _heads(engine, query.order_by(table.size).limit(min(limit, MOST_HEADS)))


def thinned(engine: Engine) -> list[Change]:
    """What is let go of where more than `MOST_KEPT` heads of one log are kept: the older, the fewer stay.

    The first one stays, and the newest half: a log can be held against any of them.
    """
    table = t.checkpoint.c
    many = select(table.exchange).group_by(table.exchange).having(func.count() > MOST_KEPT)
    gone: list[Change] = []
    with engine.connect() as connection:
        for (exchange,) in connection.execute(many.order_by(table.exchange)).fetchall():
            kept = select(table.size).where(table.exchange == exchange).order_by(table.at_ms, table.size)
            sizes = connection.execute(kept).scalars().all()
            gone += [("checkpoint", f"{exchange} {size}", None) for size in sizes[1 : len(sizes) // 2 : 2]]
    return gone


def newest_heads(engine: Engine, exchange: str = "", after_ms: int = 0) -> list[HeadView]:
    """The head of every log, or of one, that was kept last; only what was kept after ``after_ms``, by our clock."""
    table = t.checkpoint.c
    newest = select(table.exchange, func.max(table.at_ms).label("at_ms")).group_by(table.exchange)
    newest = newest.where(table.at_ms > after_ms)
    if exchange:
        newest = newest.where(table.exchange == exchange)
    found = newest.limit(MOST_HEADS).subquery()
    is_it = and_(table.exchange == found.c.exchange, table.at_ms == found.c.at_ms)
    heads = _heads(engine, select(table.statement).join(found, is_it).order_by(table.exchange, table.size))
    return list({head.exchange: head for head in heads}.values())  # of one moment the longest


def _heads(engine: Engine, query: Select[Any]) -> list[HeadView]:
    with engine.connect() as connection:
        return [head_view(bytes(statement)) for (statement,) in connection.execute(query)]
