"""One pool as placing sees it: the owner's record of the pool joined with the record of its site."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from tieline.language.family import family
from tieline.language.offer import offer_values
from tieline.model.accelerators import architecture, named
from tieline.model.evidence import Evidence
from tieline.model.record import Status
from tieline.model.spec import PoolSpec, SiteSpec


class PoolRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pool is one site, one accelerator kind and one owner. Counts and sizes are over the whole pool."""

    id: str
    site: str
    owner: str  # prefix
    spec: PoolSpec = PoolSpec()
    tier: str = "edge"
    region: str = ""
    has_door: bool = False
    declared_by: str = ""
    is_sealable: bool = False  # its site's record says what secrets are sealed to
    is_draining: bool = False  # the record says so; a site's own draining is known beside it
    expires_ms: int = 0  # the record's lease; 0: none
    updated_ms: int = 0

    @property
    def sells_accelerators(self) -> bool:
        """Whether accelerators are its unit; otherwise cores are."""
        return self.spec.accelerator_count > 0

    @property
    def unit(self) -> str:
        """What its price is for an hour of."""
        return "accelerator" if self.sells_accelerators else "core"

    @property
    def accelerator(self) -> str:
        """The kind of its accelerators in the one spelling of `model.accelerators`; nothing where cores are sold."""
        return kind_of(self.spec.accelerator) if self.sells_accelerators else ""

    @property
    def family(self) -> str:
        """``gpu`` or ``npu``; nothing where cores are sold."""
        return family(self.spec.accelerator, self.spec.vendor) if self.sells_accelerators else ""

    @property
    def price_micro_cny_per_unit_hour(self) -> int:
        """The owner's price for one accelerator-hour, or for one core-hour where there is no accelerator."""
        return self.spec.price_micro_cny_per_accelerator_hour

    @property
    def evidence(self) -> str:
        """What the size of the pool rests on."""
        said = self.spec.evidence
        if not self.sells_accelerators:
            return said.get("core_count", said.get("cores", Evidence.DECLARED.value))
        if self.spec.is_emulated:
            return Evidence.EMULATED.value
        return said.get("accelerator_count", said.get("count", Evidence.DECLARED.value))

    def values(self) -> dict[str, Any]:
        """Its attributes as a query reads them, without what changes by the minute."""
        status = Status.DRAINING if self.is_draining else Status.ACTIVE
        values = offer_values(self.id, self.spec, status=status.value, updated_ms=self.updated_ms)
        return values | {
            "owner": self.owner,
            "site": self.site,
            "tier": self.tier,
            "region": self.region or None,
            "has_door": self.has_door,
            "declared_by": self.declared_by or None,
        }


@lru_cache(maxsize=4_096)
def kind_of(word: str) -> str:
    """A kind of accelerator in its one spelling; a word that cannot be one stays as it is."""
    try:
        return named(word).kind if word else ""
    except ValueError:
        return word


def architecture_of(word: str) -> str:
    """An instruction set in its one spelling; a word that is none stays as it is."""
    try:
        return architecture(word) if word else ""
    except ValueError:
        return word


def pool_row(
    id: str,  # noqa: A002 - the record's own word
    owner: str,
    spec: PoolSpec,
    site: SiteSpec,
    *,
    site_id: str = "",
    status: Status = Status.ACTIVE,
    expires_ms: int = 0,
    updated_ms: int = 0,
) -> PoolRow:
    """Join a pool's record with its site's. ``site_id`` is the site's identifier where the pool's record is silent."""
    return PoolRow(
        id=id,
        site=site_id or spec.site,
        owner=owner,
        spec=spec,
        tier=site.tier,
        region=site.region,
        has_door=bool(site.door),
        declared_by=site.declared_by,
        is_sealable=bool(site.sealing),
        is_draining=status == Status.DRAINING,
        expires_ms=expires_ms,
        updated_ms=updated_ms,
    )
