"""Draft: what one batch has become so far, before it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from tieline.drivers.stores.columns import columns_of
from tieline.drivers.stores.inbox import Answer
from tieline.drivers.stores.log import log_row
from tieline.drivers.stores.store import Change
from tieline.model.event import Events

V = TypeVar("V")
Ordered = tuple[int, str, Any]  # seq, site, the order that follows from the entry
OrderOf = Callable[[Any, Any, int], tuple[str, Any] | None]


class Committed(NamedTuple):
    """One entry of the log as subscribers get it: its row and the event itself."""

    seq: int
    time_ms: int
    kind: str
    subject: str
    job: str | None  # short name
    site: str | None
    actor: str
    body: bytes
    hash: bytes
    source: str | None
    event: Events


class Draft(Generic[V]):
    """A batch in the making: `view` has every event of `entries` applied; nothing of it is known to anybody yet."""

    def __init__(self, view: V, seq: int, head: bytes, now_ms: int, order_of: OrderOf | None) -> None:
        self.view = view
        self.seq = seq
        self.head = head
        self.now_ms = now_ms
        self._order_of = order_of
        self.entries: list[Committed] = []
        self.orders: list[Ordered] = []
        self.changes: list[Change] = []
        self.replies: list[tuple[str, str, int, bytes]] = []
        self.fresh: dict[str, tuple[str, Any]] = {}  # idempotency key -> digest, reply of this very batch
        self.answers: list[Answer] = []
        self.rejects = 0
        self.replays = 0

    def add(self, event: Events, actor: str, source: str | None = None) -> None:
        """Apply one fact and chain it; what it orders of a site is asked while the view stands as it left it."""
        view: Any = self.view
        view.apply(event, self.now_ms)
        self.seq += 1
        row = log_row(self.head, self.seq, self.now_ms, actor, event, *columns_of(event, view), source)
        self.head = row.hash
        self.entries.append(Committed(*row, event))
        if self._order_of is not None and (order := self._order_of(event, view, self.now_ms)) is not None:
            self.orders.append((self.seq, *order))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be kept."""
        return not (self.entries or self.changes or self.replies)
