"""Steps that ask who may use a pool, and whose pools the task may use: the owner disposes."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from tieline.model.reason import Reason, Relaxation
from tieline.place.coded import Flags, Rows
from tieline.place.demand import DataTerm
from tieline.place.fit import same_owner
from tieline.place.scene import Asking, among
from tieline.place.step import Step, none_of, reason

BOUND: Final = ("site", "owner", "exchange")


class Pinned(Step):
    """A quote is for one pool."""

    codes: tuple[str, ...] = ("pool_not_asked",)

    def asked(self, asking: Asking) -> bool:
        """Whether one pool is asked."""
        return bool(asking.demand.pool)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """That pool."""
        at = asking.pools.index(asking.demand.pool)
        kept: Flags = rows == (-1 if at is None else at)
        return kept

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The pool that was asked."""
        return reason("pool_not_asked", rows, asked=asking.demand.pool)


class Access(Step):
    """Private pools serve their owner, partner pools their owner's partners as well.

    What is behind another exchange is asked there: it shows us what we may use, as the partner that we are.
    """

    codes: tuple[str, ...] = ("access_private", "access_partner")

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools that the caller may use."""
        column = asking.pools.table.texts("access")
        codes = column.codes[rows]
        kept: Flags = codes == column.code("public")
        if np.count_nonzero(kept) == len(kept):
            return kept
        kept |= same_owner(asking, rows) | asking.pools.flags["remote"][rows]
        names = {name for name in (asking.demand.caller.owner, asking.demand.caller.name) if name}
        partner = np.flatnonzero(~kept & (codes == column.code("partner")))
        if len(partner):
            kept[partner] = asking.pools.partners.test(rows[partner], lambda partners: not names.isdisjoint(partners))
        return kept

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """Private, or for partners only."""
        column = asking.pools.table.texts("access")
        private = column.codes[rows] == column.code("private")
        found = reason("access_private", rows[private]) if private.any() else []
        return found + (reason("access_partner", rows[~private]) if not private.all() else [])


class Owners(Step):
    """The task names the owners that it trusts with its work."""

    codes: tuple[str, ...] = ("owner_not_asked",)

    def asked(self, asking: Asking) -> bool:
        """Whether owners are named."""
        return bool(asking.demand.owners)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Their pools."""
        column = asking.pools.table.texts("owner")
        codes = [column.code(owner) for owner in asking.demand.owners]
        return among(column.codes[rows], [code for code in codes if code > 0])

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The owners that were named."""
        return reason("owner_not_asked", rows, asked=_some(asking.demand.owners))

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """The owner of the cheapest pool."""
        owner = asking.pools.table.texts("owner")
        code = owner.codes[int(rows[asking.price(rows).argmin()])]
        admits = int((owner.codes[rows] == code).sum())
        asked = _some(asking.demand.owners)
        return Relaxation(term="owners", asked=asked, needed=owner.texts[int(code)], admits=admits)


class Infra(Step):
    """`infra` names a site (its identifier or its last part) or a region; a cloud that none of them is fits nothing."""

    codes: tuple[str, ...] = ("infra_not_here", "site_not_asked")

    def asked(self, asking: Asking) -> bool:
        """Whether it is named."""
        return bool(asking.need.infra)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools there."""
        asked = asking.need.infra.lower()
        site, region = asking.pools.table.texts("site"), asking.pools.table.texts("region")
        there = np.fromiter(
            (asked in (text, text.rsplit("/", 1)[-1]) for text in site.texts), np.bool_, len(site.texts)
        )
        kept: Flags = there[site.codes[rows]] | (region.codes[rows] == region.code(asked))
        return kept

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """Not there, or nowhere here."""
        is_here = bool(self.test(asking, asking.pools.live).any())
        return reason("site_not_asked" if is_here else "infra_not_here", rows, asked=asking.need.infra)

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """Anywhere."""
        return Relaxation(term="infra", asked=asking.need.infra, needed="any", admits=len(rows))


class Policy(Step):
    """The owner's own words about the demand; unknown admits nothing. Asked once per distinct policy."""

    codes: tuple[str, ...] = ("policy_not_met", "policy_unknown")
    is_searched: ClassVar[bool] = False  # a search asks only the owners of its best pools

    def asked(self, asking: Asking) -> bool:
        """Whether any owner has one."""
        return asking.pools.policies > 0

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools whose policy holds."""
        return asking.pools.policy.test(rows, lambda policy: asking.admits(policy) is True)

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The first term of each policy that does not hold, counted over owners who say the same."""
        counts: dict[tuple[str, str], int] = {}
        for policy, held_by in asking.pools.policy.distinct(rows):
            key = policy.binding(asking.values)
            counts[key] = counts.get(key, 0) + len(held_by)
        return [Reason(code=code, count=count, values={"term": term}) for (code, term), count in counts.items()]


class DataKnown(Step):
    """Where data is, how large and how bound, only its record says; without one nothing can be promised."""

    codes: tuple[str, ...] = ("data_unknown",)

    def asked(self, asking: Asking) -> bool:
        """Whether a dataset has no record here."""
        return bool(asking.demand.unknown_data)

    def test(self, _asking: Asking, rows: Rows) -> Flags:
        """No pool."""
        return none_of(rows)

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The first dataset without a record."""
        return reason("data_unknown", rows, data=_some(asking.demand.unknown_data))


class Residency(Step):
    """Data that may not leave its site or its owner binds the placer as it binds the mover."""

    codes: tuple[str, ...] = ("residency",)

    def asked(self, asking: Asking) -> bool:
        """Whether any of the data is bound to a site, an owner or this exchange."""
        return any(term.residency in BOUND for term in asking.demand.data)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools where all of the data may be."""
        kept = np.ones(len(rows), np.bool_)
        for term in asking.demand.data:
            kept &= self._may(asking, rows, term)
        return kept

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The first of the data that may not come there."""
        found: list[Reason] = []
        for term in asking.demand.data:
            may = self._may(asking, rows, term)
            if not may.all():
                found += reason("residency", rows[~may], data=term.name, scope=term.residency)
                rows = rows[may]
        return found

    def _may(self, asking: Asking, rows: Rows, term: DataTerm) -> Flags:
        table = asking.pools.table
        if term.residency not in BOUND:
            return np.ones(len(rows), np.bool_)
        if term.residency == "exchange":
            return ~asking.pools.flags["remote"][rows]
        site = table.texts("site")
        sites = [code for code in map(site.code, term.sites) if code > 0]
        if term.residency == "site":
            return among(site.codes[rows], sites)
        owner = table.texts("owner")
        if term.owner:
            same: Flags = owner.codes[rows] == owner.code(term.owner)
            return same
        live = asking.pools.live  # bytes without a record belong to whoever owns the site where they are
        return np.isin(owner.codes[rows], owner.codes[live[np.isin(site.codes[live], sites)]])


class Secrets(Step):
    """Secrets pass through another exchange only where they can be sealed to the site behind it."""

    codes: tuple[str, ...] = ("sealing_unknown",)

    def asked(self, asking: Asking) -> bool:
        """Whether the task has any."""
        return asking.demand.has_secrets

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools of this exchange, and those of sites whose record names a key."""
        flags = asking.pools.flags
        return ~flags["remote"][rows] | flags["sealable"][rows]

    def explain(self, _asking: Asking, rows: Rows) -> list[Reason]:
        """It is behind another exchange, and nothing can be sealed to it."""
        return reason("sealing_unknown", rows)


def _some(words: tuple[str, ...]) -> str:
    """A few of the words, and how many more."""
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return ", ".join(words[:3]) + more
