"""Steps that ask how a pool is just now. They come last: what exists but is busy is told from what never fits."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tieline.model.quantity import show_size
from tieline.model.reason import Reason, Relaxation
from tieline.place.coded import Flags, Rows
from tieline.place.pools import Dimension
from tieline.place.scene import Asking
from tieline.place.step import Step, reason


class Unexpired(Step):
    """A record is a lease: after its end the owner says nothing any more."""

    codes: tuple[str, ...] = ("record_expired",)
    is_lasting: ClassVar[bool] = False

    def asked(self, asking: Asking) -> bool:
        """Whether any record can be over."""
        return asking.pools.may_expire(asking.scene.now_ms)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Records that still hold."""
        expires = asking.pools.expires_ms[rows]
        kept: Flags = (expires == 0) | (expires > asking.scene.now_ms)
        return kept

    def explain(self, _asking: Asking, rows: Rows) -> list[Reason]:
        """It is over."""
        return reason("record_expired", rows)


class SiteOpen(Step):
    """A site that is not admitted, drains or is silent takes nothing new."""

    codes: tuple[str, ...] = ("site_not_admitted", "site_draining", "pool_draining", "site_silent")
    is_lasting: ClassVar[bool] = False

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Sites that take work, and pools that do not drain by themselves."""
        return asking.pools.flags["site_open"][rows]

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """How many for each cause; not admitted before draining before silent."""
        counts: dict[str, int] = {}
        for row in rows.tolist():
            pool = asking.pools.at(row)
            site = asking.pools.site_flags(pool.site)
            if not site.is_admitted:
                code = "site_not_admitted"
            elif site.is_draining:
                code = "site_draining"
            else:
                code = "pool_draining" if pool.is_draining else "site_silent"
            counts[code] = counts.get(code, 0) + 1
        return [Reason(code=code, count=count) for code, count in sorted(counts.items())]


class Granted(Step):
    """Behind another exchange nobody has more than the quota there: what is beyond it would be offered in vain."""

    codes: tuple[str, ...] = ("quota_behind",)
    is_lasting: ClassVar[bool] = False

    def asked(self, asking: Asking) -> bool:
        """Whether any pool has such a bound."""
        return asking.pools.is_granted

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools without a bound, or with one that is wide enough."""
        granted = asking.pools.granted[rows]
        kept: Flags = (granted == 0) | (granted >= _units(asking))
        return kept

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The widest of the bounds."""
        most = int(asking.pools.granted[rows].max())
        return reason("quota_behind", rows, asked=_units(asking), most=most)


def _units(asking: Asking) -> int:
    """What a quota counts: accelerators, or else cores."""
    return asking.need.amount.accelerators or asking.need.amount.cores


class NotRefused(Step):
    """The owner's site has just said no to this demand; asking again at once would only hear it again."""

    codes: tuple[str, ...] = ("refused_by_owner",)
    is_lasting: ClassVar[bool] = False

    def asked(self, asking: Asking) -> bool:
        """Whether any did."""
        return bool(asking.demand.refused)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """All others."""
        known = (asking.pools.index(pool) for pool, _ in asking.demand.refused)
        return ~np.isin(rows, [at for at in known if at is not None])

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The owners' words, counted where they are the same."""
        words = dict(asking.demand.refused)
        counts: dict[str, int] = {}
        for row in rows.tolist():
            why = words[asking.pools.at(row).id]
            counts[why] = counts.get(why, 0) + 1
        return [Reason(code="refused_by_owner", count=count, values={"why": why}) for why, count in counts.items()]


class NotHeldBack(Step):
    """The best pool is kept for whoever was passed over for too long; work that ends in time may still run there."""

    codes: tuple[str, ...] = ("held_back",)
    is_lasting: ClassVar[bool] = False

    def asked(self, asking: Asking) -> bool:
        """Whether any pool is held back."""
        return bool(asking.scene.held_back)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools that wait for nobody, or whose waiter comes after this would have ended."""
        kept = np.ones(len(rows), np.bool_)
        demand, now_ms = asking.demand, asking.scene.now_ms
        for row, held in asking.scene.held_back.items():
            if held.demand == demand.id:
                continue
            at = np.flatnonzero(rows == row)
            if not len(at):
                continue
            ends_ms = now_ms + int(asking.moves(rows[at]).time_us[0]) // 1_000 + demand.max_duration_s * 1_000
            kept[at] = bool(demand.max_duration_s and held.until_ms is not None and ends_ms <= held.until_ms)
        return kept

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """For whom."""
        counts: dict[str, int] = {}
        for row in rows.tolist():
            job = asking.scene.held_back[row].demand
            counts[job] = counts.get(job, 0) + 1
        return [Reason(code="held_back", count=count, values={"job": job}) for job, count in counts.items()]


class Free(Step):
    """What is free now, in every dimension that the demand holds: the last question, as it changes fastest."""

    codes: tuple[str, ...] = ("accelerators_free", "cores_free", "memory_free")
    is_lasting: ClassVar[bool] = False

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Enough of everything."""
        kept = None
        for _, dimension, amount in _dimensions(asking):
            enough = dimension.free[rows] >= amount
            kept = enough if kept is None else kept & enough
        assert kept is not None
        return kept

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The first dimension that is short, with the most that one of them has free."""
        found: list[Reason] = []
        for name, dimension, amount in _dimensions(asking):
            free = dimension.free[rows]
            short = free < amount
            if short.any():
                most = max(0, int(free[short].max()))
                if name == "memory":
                    found += reason("memory_free", rows[short], asked_bytes=amount, most_bytes=most)
                else:
                    found += reason(f"{name}_free", rows[short], asked=amount, most=most)
                rows = rows[~short]
        return found

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """The most that is free in the first dimension which alone is short."""
        needed = _dimensions(asking)
        enough = [dimension.free[rows] >= amount for _, dimension, amount in needed]
        misses = np.sum([~each for each in enough], axis=0)
        for (name, dimension, _), each in zip(needed, enough, strict=True):
            free = dimension.free[rows[(misses == 1) & ~each]]
            if len(free) and free.max() > 0:
                found = _smaller(asking, name, int(free.max()))
                if found is not None:
                    return Relaxation(
                        term=found[0], asked=found[1], needed=found[2], admits=int((free == free.max()).sum())
                    )
        return None


def _dimensions(asking: Asking) -> list[tuple[str, Dimension, int]]:
    pools, amount = asking.pools, asking.need.amount
    return [
        (name, dimension, asked)
        for name, dimension, asked in (
            ("accelerators", pools.accelerators, amount.accelerators),
            ("cores", pools.cores, amount.cores),
            ("memory", pools.memory, amount.memory_bytes),
        )
        if asked
    ]


def _smaller(asking: Asking, name: str, free: int) -> tuple[str, str, str] | None:
    """(term, asked, needed) of the same demand made to fit ``free``: less for each node, or else fewer nodes."""
    nodes = asking.demand.nodes
    amount = asking.need.amount
    asked = {"accelerators": amount.accelerators, "cores": amount.cores, "memory": amount.memory_bytes}[name] // nodes
    each = free // nodes
    if each:
        say = show_size if name == "memory" else str
        return name, say(asked), say(each)
    fewer = free // asked
    return ("nodes", str(nodes), str(fewer)) if fewer else None
