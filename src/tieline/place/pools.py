"""The state that placing works on: every pool as a row of columns, with what is free of it now.

Slow facts come from records (`put`, `remove`, `set_price`), fast ones from heartbeats (`set_available`, `set_site`),
and bookings from the exchange's own events (`hold`, `release`). ``free = min(capacity, available) - held``. Holding
more than is free, or releasing more than is held, is a defect and an assertion: a pool is never oversold here. A pool
whose owner withdrew it or shrank it below what is held keeps its holds until they are released; it offers nothing
meanwhile.

Postings hold the rows of one kind of accelerator, of one family, of all accelerators, or of all cores, in order of
price and identifier, so that a demand looks only at candidates and finds the cheapest first.

Cost: `put` about 60 us; `hold` and `release` about 1 us; a posting is sorted again (2,500 rows: 0.4 ms) when it is read
after a price or a record of it changed. About 1 KB a pool.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
import numpy as np

from tieline.language.attributes import OFFER
from tieline.language.column import IntegerColumn
from tieline.language.table import Table
from tieline.place.coded import Coded, Flags, Numbers, Rows
from tieline.place.policy import OwnerPolicy
from tieline.place.row import PoolRow

CORES: Final = ""  # the posting of pools that sell cores
ANY: Final = "any"  # the posting of all pools that sell accelerators
CONTAINER_ENGINES: Final = frozenset({"container", "podman", "docker", "apptainer", "kubernetes"})
NEVER_MS: Final = 2**62


class Amount(NamedTuple):
    """Capacity in the three dimensions that are held."""

    accelerators: int = 0
    cores: int = 0
    memory_bytes: int = 0


class SiteFlags(NamedTuple):
    """What the exchange knows of a site now. A site that nobody spoke of is not admitted."""

    is_admitted: bool = False
    is_draining: bool = False
    is_silent: bool = False
    is_remote: bool = False  # it is behind another exchange


OPEN_SITE: Final = SiteFlags(is_admitted=True)


class Posting(NamedTuple):
    """Rows of one kind, by price and then by identifier, with their prices (micro-yuan per unit-hour)."""

    rows: Rows
    prices: Numbers


class Dimension:
    """One of the three kinds of capacity: in all (of the record), open (of the heartbeat), held (by bookings), free."""

    def __init__(self, table: Table, total: str, free: str) -> None:
        self._total: IntegerColumn = _integers(table, total)
        self._free: IntegerColumn = _integers(table, free)
        self.open: Numbers = np.zeros(0, np.int64)
        self.held: Numbers = np.zeros(0, np.int64)

    @property
    def total(self) -> Numbers:
        """What the record says there is in all."""
        return self._total.array

    @property
    def free(self) -> Numbers:
        """What may be booked now; below zero where the owner shrank the pool below what is held."""
        return self._free.array

    def grow(self, size: int) -> None:
        """Make room for ``size`` rows."""
        more = np.zeros(size - len(self.open), np.int64)
        self.open, self.held = np.concatenate([self.open, more]), np.concatenate([self.held, more])

    def set_open(self, at: int, amount: int) -> None:
        """What the owner makes available, booked parts included."""
        opened = min(max(amount, 0), int(self.total[at]))
        self.open[at] = opened
        self._free.array[at] = opened - int(self.held[at])
        self._free.known[at] = self._total.known[at]

    def hold(self, at: int, amount: int) -> None:
        """Book ``amount``; more than is free is an assertion."""
        assert 0 < amount <= self._free.array[at], (at, amount, int(self.free[at]))
        self._free.array[at] -= amount
        self.held[at] += amount

    def hold_again(self, at: int, amount: int) -> None:
        """Book ``amount`` although less may be free."""
        assert amount >= 0, (at, amount)
        self._free.array[at] -= amount
        self.held[at] += amount

    def release(self, at: int, amount: int) -> None:
        """Give back ``amount``; more than is held is an assertion."""
        assert 0 < amount <= self.held[at], (at, amount, int(self.held[at]))
        self.held[at] -= amount
        self._free.array[at] += amount


class Pools:
    """Rows are reused; a pool keeps its row while it is known. All numbers are int64 in base units."""

    def __init__(self, rows: Iterable[PoolRow] = ()) -> None:
        self.table = Table(OFFER)
        self.accelerators = Dimension(self.table, "count", "free")
        self.cores = Dimension(self.table, "cores", "cores_free")
        self.memory = Dimension(self.table, "memory", "memory_free")
        self._dimensions = (self.accelerators, self.cores, self.memory)
        self.expires_ms: Numbers = np.zeros(0, np.int64)
        self.granted: Numbers = np.zeros(0, np.int64)  # units that we may hold of it at once; 0: no bound
        self.flags: dict[str, Flags] = {
            name: np.zeros(0, np.bool_)
            for name in ("live", "site_open", "remote", "sealable", "boxed", "plain", "images")
        }
        self.partners: Coded[tuple[str, ...]] = Coded(())
        self.policy: Coded[OwnerPolicy] = Coded(OwnerPolicy())
        self.is_granted = False  # whether any row has, or had, a bound in `granted`
        self.policies = 0  # live rows that have one
        self.version = 0  # grows with every change of a record, not with holds and heartbeats
        self._rows: list[PoolRow | None] = []
        self._sites: dict[str, SiteFlags] = {}
        self._site_rows: dict[str, dict[int, None]] = {}
        self._postings: dict[str, dict[int, None]] = {}
        self._ordered: dict[str, Posting] = {}
        self._rank: Numbers | None = None
        self._live: Rows | None = None
        self._next_expiry_ms = 0
        for row in rows:
            self.put(row)
            self.set_site(row.site, OPEN_SITE)

    # -- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.live)

    @property
    def live(self) -> Rows:
        """Rows of the pools that have a record now, in order of row."""
        if self._live is None:
            self._live = np.flatnonzero(self.flags["live"])
        return self._live

    @property
    def price(self) -> Numbers:
        """Micro-yuan per unit-hour."""
        return _integers(self.table, "price").array

    def index(self, pool: str) -> int | None:
        """The row of a pool that has a record now."""
        at = self.table.row(pool)
        return at if at is not None and self.flags["live"][at] else None

    def at(self, index: int) -> PoolRow:
        """The pool of a row."""
        row = self._rows[index]
        assert row is not None, index
        return row

    def accelerator_of(self, index: int) -> str:
        """The kind that the pool of a row sells; nothing where it sells cores."""
        column = self.table.texts("accelerator")
        return column.texts[column.codes[index]] if self.accelerators.total[index] else ""

    def get(self, pool: str) -> PoolRow | None:
        """The pool of that identifier, where it has a record now."""
        at = self.index(pool)
        return None if at is None else self._rows[at]

    def free(self, pool: str) -> Amount:
        """What of a pool is free now; nothing where its owner shrank it below what is held."""
        at = self._known(pool)
        return Amount(*(max(0, int(each.free[at])) for each in self._dimensions))

    def held(self, pool: str) -> Amount:
        """What bookings hold of a pool, nothing where it is not known."""
        at = self.table.row(pool)
        return Amount() if at is None else Amount(*(int(each.held[at]) for each in self._dimensions))

    def site_flags(self, site: str) -> SiteFlags:
        """What is known of a site now."""
        return self._sites.get(site, SiteFlags())

    def site_pools(self, site: str) -> list[PoolRow]:
        """The pools of one site, in order of identifier."""
        return sorted((self.at(row) for row in self._site_rows.get(site, ())), key=lambda row: row.id)

    def posting(self, asked: str) -> Posting:
        """What a demand for ``asked`` looks at: a kind, a family, `any`, or nothing (cores)."""
        ordered = self._ordered.get(asked)
        if ordered is None:
            rows = np.fromiter(self._postings.get(asked, ()), np.int64)
            rows = rows[np.lexsort((self.rank[rows], self.price[rows]))]
            ordered = self._ordered[asked] = Posting(rows, self.price[rows])
        return ordered

    @property
    def rank(self) -> Numbers:
        """The place of every row in the order of identifiers: it breaks the last tie, whatever came first."""
        if self._rank is None:
            self._rank = np.zeros(len(self._rows), np.int64)
            known = sorted((row.id, at) for at, row in enumerate(self._rows) if row is not None)
            self._rank[[at for _, at in known]] = np.arange(len(known))
        return self._rank

    def may_expire(self, now_ms: int) -> bool:
        """Whether any record can be over by now."""
        if not self._next_expiry_ms:
            expires = self.expires_ms[self.live]
            self._next_expiry_ms = int(expires.min(initial=NEVER_MS, where=expires > 0))
        return now_ms >= self._next_expiry_ms

    # -- slow facts: records ------------------------------------------------------------------------------------------

    def put(self, row: PoolRow) -> int:
        """Take a pool's newest record; what is held of it stays held. Returns its row."""
        if self.index(row.id) is not None:
            self._unlist(row.id)
        at = self.table.put(row.id, row.values())
        self._grow()
        if self._rows[at] is None:
            self._rank = None
        self._rows[at] = row
        self.expires_ms[at] = row.expires_ms
        for each in self._dimensions:
            each.set_open(at, int(each.total[at]))
        spec, policy = row.spec, OwnerPolicy(row.spec.policy, row.spec.partners)
        self.granted[at] = 0
        self.flags["live"][at] = True
        self.flags["boxed"][at] = spec.sandbox not in ("", "none")
        self.flags["images"][at] = any(engine in CONTAINER_ENGINES for engine in spec.engines)
        self.flags["remote"][at] = False
        self.flags["sealable"][at] = row.is_sealable
        self.flags["plain"][at] = any(engine not in CONTAINER_ENGINES for engine in spec.engines)
        self.partners.put(at, spec.partners)
        self.policy.put(at, policy)
        self.policies += bool(policy.text)
        self._site_rows.setdefault(row.site, {})[at] = None
        self._open(at)
        for posting in _postings(row):
            self._postings.setdefault(posting, {})[at] = None
            self._ordered.pop(posting, None)
        self._changed()
        return at

    def remove(self, pool: str) -> None:
        """Forget a pool's record; its row stays, and offers nothing, until all of its holds are released."""
        at = self.index(pool)
        if at is None:
            return
        self._unlist(pool)
        self.flags["live"][at] = False
        self._changed()
        self._drop_unheld(at)

    def set_price(self, pool: str, price_micro_cny_per_unit_hour: int) -> None:
        """Change a pool's price alone."""
        at = self._known(pool)
        row = self.at(at)
        spec = msgspec.structs.replace(row.spec, price_micro_cny_per_accelerator_hour=price_micro_cny_per_unit_hour)
        self._rows[at] = msgspec.structs.replace(row, spec=spec)
        self.price[at] = price_micro_cny_per_unit_hour
        for posting in _postings(row):
            self._ordered.pop(posting, None)
        self._changed()

    # -- fast facts: heartbeats ---------------------------------------------------------------------------------------

    def set_available(self, pool: str, available: Amount) -> None:
        """What the owner makes available now, booked parts included; never more than the record's capacity."""
        at = self.index(pool)
        if at is not None:
            for each, amount in zip(self._dimensions, available, strict=True):
                each.set_open(at, amount)

    def set_granted(self, pool: str, units: int) -> None:
        """How many units of it we may hold at once by the quota of whoever leads there; 0: no bound."""
        at = self.index(pool)
        if at is not None:
            self.granted[at] = units
            self.is_granted |= units > 0

    def set_site(self, site: str, flags: SiteFlags) -> None:
        """What the exchange knows of a site; also before its pools are known."""
        if flags.is_remote != self.site_flags(site).is_remote:
            self.version += 1  # what data and secrets may go there depends on it
        self._sites[site] = flags
        for at in self._site_rows.get(site, ()):
            self._open(at)

    def forget_site(self, site: str) -> None:
        """Its pools, if any, count as not admitted from now on."""
        before = self._sites.pop(site, None)
        self.version += before is not None and before.is_remote
        for at in self._site_rows.get(site, ()):
            self._open(at)

    # -- bookings -----------------------------------------------------------------------------------------------------

    def hold(self, pool: str, amount: Amount) -> None:
        """Book a part of a pool. More than is free is an assertion."""
        self.hold_at(self._known(pool), amount)

    def hold_again(self, pool: str, amount: Amount) -> bool:
        """Book what was booked before, whatever is free now: after a restart a record may have shrunk meanwhile.

        False, and nothing held, where the pool is not known.
        """
        at = self.table.row(pool)
        if at is None:
            return False
        for each, asked in zip(self._dimensions, amount, strict=True):
            each.hold_again(at, asked)
        return True

    def hold_at(self, at: int, amount: Amount) -> None:
        """`hold` by row."""
        for each, asked in zip(self._dimensions, amount, strict=True):
            if asked:
                each.hold(at, asked)

    def release(self, pool: str, amount: Amount) -> None:
        """Give back what was held, also of a pool that was withdrawn meanwhile. More than is held is an assertion."""
        self.release_at(self._known(pool), amount)

    def release_at(self, at: int, amount: Amount) -> None:
        """`release` by row."""
        for each, asked in zip(self._dimensions, amount, strict=True):
            if asked:
                each.release(at, asked)
        if not self.flags["live"][at]:
            self._drop_unheld(at)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _known(self, pool: str) -> int:
        at = self.table.row(pool)
        assert at is not None, pool
        return at

    def _grow(self) -> None:
        size = self.table.capacity
        more = size - len(self._rows)
        if not more:
            return
        self._rows.extend([None] * more)
        self.expires_ms = np.concatenate([self.expires_ms, np.zeros(more, np.int64)])
        self.granted = np.concatenate([self.granted, np.zeros(more, np.int64)])
        for name, flags in self.flags.items():
            self.flags[name] = np.concatenate([flags, np.zeros(more, np.bool_)])
        for each in self._dimensions:
            each.grow(size)
        self.partners.grow(size)
        self.policy.grow(size)
        self._rank = None

    def _changed(self) -> None:
        self._next_expiry_ms = 0
        self._live = None
        self.version += 1

    def _open(self, at: int) -> None:
        row = self.at(at)
        flags = self.site_flags(row.site)
        if flags.is_remote != self.flags["remote"][at]:
            # Behind another exchange the user is another one to the owner, whose policy is asked there.
            self.flags["remote"][at] = flags.is_remote
            self.policy.put(at, OwnerPolicy() if flags.is_remote else OwnerPolicy(row.spec.policy, row.spec.partners))
        if not flags.is_remote:
            self.granted[at] = 0
        self.flags["site_open"][at] = flags._replace(is_remote=False) == OPEN_SITE and not row.is_draining

    def _unlist(self, pool: str) -> None:
        """Take a live row out of the postings and its site, so that it can be put anew."""
        at = self._known(pool)
        row = self.at(at)
        for posting in _postings(row):
            del self._postings[posting][at]
            self._ordered.pop(posting, None)
        del self._site_rows[row.site][at]
        self.policies -= bool(row.spec.policy.strip())

    def _drop_unheld(self, at: int) -> None:
        if any(each.held[at] for each in self._dimensions):
            return
        self.table.remove(self.at(at).id)
        self._rows[at] = None
        self._rank = None
        self.partners.clear(at)
        self.policy.clear(at)


def _postings(row: PoolRow) -> tuple[str, ...]:
    """The postings that a pool is on, each once."""
    if not row.sells_accelerators:
        return (CORES,)
    return tuple(dict.fromkeys(word for word in (row.accelerator, row.family, ANY) if word))


def _integers(table: Table, name: str) -> IntegerColumn:
    column = table.integers(name)
    assert column is not None, name
    return column
