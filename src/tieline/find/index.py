"""The index: every findable thing as a row of columns, with postings by kind and accelerator, and words.

It is kept from the event log by its shell: `put_record` for records, `set_free` for heartbeats and bookings,
`set_status` for what becomes of a site, `expire` for leases. It is a projection like others: dropped and built anew,
it answers the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tieline.find.posting import TIE_BITS, UNPRICED, Posting, tie
from tieline.find.shown import FREE
from tieline.find.words import Words
from tieline.language.attributes import OFFER
from tieline.language.offer import offer_values, site_values
from tieline.language.table import Table
from tieline.model.record import Delegation
from tieline.model.spec import SiteSpec, Spec

Integers = NDArray[np.int64]


class Index:
    """One writer. Reading and writing are synchronous and never overlap."""

    def __init__(self, capacity: int = 64) -> None:
        self.table = Table(OFFER, capacity)
        self.words = Words()
        self.postings: dict[tuple[str, str], Posting] = {}
        self.shape = 0  # grows when a posting comes or goes
        self.ties: Integers = np.zeros(self.table.capacity, np.int64)
        self._places: Integers = np.full(self.table.capacity, -1, np.int64)
        self._posting_of: dict[int, Posting] = {}
        self._sites: dict[str, SiteSpec] = {}
        self._stands: dict[str, tuple[str, bool]] = {}  # site -> its status now, and whether it is heard
        self._said: dict[str, str] = {}  # the status in the record, where it is not active
        self._pools_of: dict[str, dict[str, None]] = {}  # site -> its pools, in the order in which they came
        self._expiry: list[tuple[int, str]] = []
        self._expires: dict[str, int] = {}
        self._over: dict[str, int] = {}  # rows that stay although their lease has ended -> when it did

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, key: str) -> bool:
        return key in self.table

    # -- records ------------------------------------------------------------------------------------------------------

    def put_record(
        self,
        id: str,  # noqa: A002 - the record's own word
        spec: Spec | Delegation,
        *,
        status: str = "active",
        expires_ms: int = 0,
        updated_ms: int = 0,
    ) -> None:
        """Add or replace the record of a findable thing. What is free of a pool stays as it was.

        A pool is joined with its site's record and standing, whichever comes first. ``expires_ms`` 0: no lease.
        """
        site = getattr(spec, "site", "")
        values = offer_values(id, spec, site=self._sites.get(site), updated_ms=updated_ms)
        row = self.table.row(id)
        if row is not None:
            values |= {name: self.table.value(name, row) for name in FREE}
        self._said.pop(id, None)
        if status != "active":
            self._said[id] = status
        values |= self._standing(id, site or id)
        description = getattr(spec, "description", "")
        self.put(values, description, expires_ms=expires_ms)
        if isinstance(spec, SiteSpec):
            self._sites[id] = spec
            for pool in self._pools_of.get(id, ()):
                self.update(pool, site_values(spec))

    def put(self, values: Mapping[str, Any], description: str = "", *, expires_ms: int = 0) -> None:
        """Add or replace a row by its attribute values (``id`` and ``kind`` are needed), in base units."""
        key = str(values["id"])
        self._leave_site(key)
        row = self.table.put(key, values)
        self._grow()
        self.ties[row] = tie(key)
        self._post(row)
        self.words.put(row, _text(values, description))
        site = values.get("site")
        if values["kind"] == "pool" and site:
            self._pools_of.setdefault(str(site), {})[key] = None
        self._expires[key] = expires_ms
        if expires_ms:
            heapq.heappush(self._expiry, (expires_ms, key))
            if len(self._expiry) > 2 * len(self.table) + 1_024:
                self._expiry = [(at, name) for name, at in self._expires.items() if at]
                heapq.heapify(self._expiry)

    def update(self, key: str, values: Mapping[str, Any]) -> bool:
        """Change some attributes of a row; False when it is not here."""
        row = self.table.row(key)
        if row is None:
            return False
        self.table.update(key, values)
        self._post(row)
        return True

    def remove(self, key: str) -> bool:
        """Remove a row; False when it is not here."""
        row = self.table.row(key)
        if row is None:
            return False
        self._leave_site(key)
        self._unpost(row)
        self.words.remove(row)
        self.table.remove(key)
        for held in (self._sites, self._stands, self._said, self._expires):
            held.pop(key, None)
        return True

    def expire(self, now_ms: int, is_kept: Callable[[str], bool] | None = None) -> tuple[str, ...]:
        """Remove every row whose lease has ended, and say which. What ``is_kept`` stays until it is judged again."""
        ended = []
        while self._expiry and self._expiry[0][0] <= now_ms:
            at, key = heapq.heappop(self._expiry)
            if self._expires.get(key) != at:
                continue
            if is_kept is not None and is_kept(key):
                self._over[key] = at
            elif self.remove(key):
                ended.append(key)
        return tuple(ended)

    def judge_again(self) -> None:
        """Let the next `expire` decide anew about what stayed."""
        for key, at in self._over.items():
            if self._expires.get(key) == at:
                heapq.heappush(self._expiry, (at, key))
        self._over.clear()

    def is_over(self, key: str) -> bool:
        """Whether a row is here although its lease has ended."""
        return key in self._over and self._over[key] == self._expires.get(key)

    # -- what changes by the minute -----------------------------------------------------------------------------------

    def set_free(self, keys: Sequence[str], **free: Sequence[int] | Integers) -> None:
        """Set ``free``, ``cores_free`` and ``memory_free`` of many pools at once; those not here are passed over."""
        found = [(at, row) for at, row in enumerate(map(self.table.row, keys)) if row is not None]
        if not found:
            return
        rows = np.array([row for _, row in found], np.int64)
        at = [place for place, _ in found]
        for name, values in free.items():
            self.table.set_integers(name, rows, np.asarray(values, np.int64)[at])
            for row in rows.tolist():
                self._posting_of[row].refresh(row, name, self._places)

    def set_status(self, site: str, status: str, *, is_heard: bool = True) -> None:
        """Say how a site stands now: active, draining or silent. What is free of one that is not heard is unknown.

        A pool that its own record calls draining stays so; a silent site's pools are silent.
        """
        self._stands[site] = status, is_heard
        for key in (site, *self._pools_of.get(site, ())):
            self.update(key, self._standing(key, site))

    # -- many at once -------------------------------------------------------------------------------------------------

    def extend(self, keys: Sequence[str], columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> None:
        """Add many new rows at once, from a snapshot: every column has a value for every row, `kind` must be there.

        Texts are not read for words. Raises ValueError as `Table.extend` does.
        """
        span = self.table.extend(keys, {"id": keys, **columns})
        self._grow()
        self.ties[span.start : span.stop] = [tie(key) for key in keys]
        self._expires.update(dict.fromkeys(keys, 0))
        rows = np.arange(span.start, span.stop, dtype=np.int64)
        kinds, accelerators = self.table.texts("kind"), self.table.texts("accelerator")
        groups = kinds.codes[rows].astype(np.int64) << 32 | accelerators.codes[rows]
        prices = self._keys(rows)
        order = np.argsort(groups, kind="stable")
        bounds = np.flatnonzero(np.diff(groups[order])) + 1
        for part in np.split(order, bounds):
            row = int(rows[part[0]])
            posting = self._posting(kinds.get(row) or "", accelerators.get(row) or "")
            posting.fill(rows[part], prices[part], self._places)
            self._posting_of.update(dict.fromkeys(rows[part].tolist(), posting))
        for key, kind, site in zip(keys, columns["kind"], columns.get("site", ()), strict=False):
            if kind == "pool" and site:
                self._pools_of.setdefault(str(site), {})[key] = None

    # -- within -------------------------------------------------------------------------------------------------------

    def postings_of(self, kinds: Iterable[str]) -> list[Posting]:
        """The postings of some kinds, in the order in which they came to be."""
        wanted = frozenset(kinds)
        return [posting for (kind, _), posting in self.postings.items() if kind in wanted]

    def _standing(self, key: str, site: str) -> dict[str, Any]:
        """The status of a row, the worse of its record's and its site's; unheard, nothing is known free."""
        status, is_heard = self._stands.get(site, ("active", True))
        said = self._said.get(key, "active")
        values: dict[str, Any] = {"status": said if status == "active" else status}
        return values if is_heard else values | dict.fromkeys(FREE)

    def _post(self, row: int) -> None:
        """Let a row stand in its posting, at its price."""
        kind = self.table.texts("kind").get(row) or ""
        name = kind, (self.table.texts("accelerator").get(row) or "") if kind == "pool" else ""
        key = int(self._keys(np.array([row], np.int64))[0])
        held = self._posting_of.get(row)
        if held is not None:
            if held.name == name and held.key_of(row, self._places) == key:
                held.refresh_row(row, self._places)
                return
            self._unpost(row)
        posting = self._posting_of[row] = self._posting(*name)
        posting.add(row, key, self._places)

    def _unpost(self, row: int) -> None:
        posting = self._posting_of.pop(row)
        posting.remove(row, self._places)
        if not len(posting):
            del self.postings[posting.name]
            self.shape += 1

    def _posting(self, kind: str, accelerator: str) -> Posting:
        posting = self.postings.get((kind, accelerator))
        if posting is None:
            posting = self.postings[kind, accelerator] = Posting(self.table, kind, accelerator)
            self.shape += 1
        return posting

    def _keys(self, rows: Integers) -> Integers:
        column = self.table.integers("price")
        assert column is not None
        price = np.where(column.known[rows], np.clip(column.array[rows], 0, UNPRICED - 1), UNPRICED)
        return (price << TIE_BITS) | self.ties[rows]

    def _leave_site(self, key: str) -> None:
        row = self.table.row(key)
        site = None if row is None else self.table.value("site", row)
        if site in self._pools_of:
            self._pools_of[site].pop(key, None)
            if not self._pools_of[site]:
                del self._pools_of[site]

    def _grow(self) -> None:
        more = self.table.capacity - len(self.ties)
        if more > 0:
            self.ties = np.concatenate([self.ties, np.zeros(more, np.int64)])
            self._places = np.concatenate([self._places, np.full(more, -1, np.int64)])


def _text(values: Mapping[str, Any], description: str) -> str:
    parts = [str(values.get(name) or "") for name in ("name", "title", "task", "accelerator")]
    for name in ("tags", "skills"):
        parts.extend(values.get(name) or ())
    return " \n".join([*parts, description])
