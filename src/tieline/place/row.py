"""One pool as placing sees it: the owner's record of the pool joined with the record of its site."""

from __future__ import annotations

from typing import Any

import msgspec

from tieline.language.attributes import OFFER
from tieline.language.family import family
from tieline.model.record import Status
from tieline.model.spec import PoolSpec, SiteSpec

# attribute -> field of the pool's record, for those that state a field as it is
FIELDS: dict[str, str] = {
    row.name: row.source.removeprefix("PoolSpec.").split()[0].rstrip(";")
    for row in OFFER
    if row.source.startswith("PoolSpec.")
}
ACCELERATOR_FIELDS = ("accelerator", "accelerator_count", "accelerator_memory_bytes", "vendor")


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
        field = "accelerator_count" if self.sells_accelerators else "core_count"
        return _evidence(self.spec, field)

    def values(self) -> dict[str, Any]:
        """Its attributes as a query reads them: name to value in base units, without what changes by the minute.

        A size of 0 in the record means that the owner did not state it, which is unknown.
        """
        spec, family_word = self.spec, self.family
        values = {name: getattr(spec, field) for name, field in FIELDS.items()}
        for name in ("accelerator_memory", "memory", "disk"):
            values[name] = values[name] or None
        values |= {
            "id": self.id,
            "kind": "pool",
            "owner": self.owner,
            "name": self.id.rsplit("/", 1)[-1],
            "title": spec.title,
            "status": "draining" if self.is_draining else "active",
            "tags": spec.tags,
            "updated": self.updated_ms or None,
            "site": self.site,
            "tier": self.tier,
            "region": self.region,
            "has_door": self.has_door,
            "declared_by": self.declared_by,
            "gpu": spec.accelerator_count if family_word == "gpu" else 0,
            "npu": spec.accelerator_count if family_word == "npu" else 0,
            "sandbox": spec.sandbox or "none",
            "label": spec.labels,
            "evidence": {name: _evidence(spec, field) for name, field in FIELDS.items()},
        }
        return values


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
        is_draining=status is Status.DRAINING,
        expires_ms=expires_ms,
        updated_ms=updated_ms,
    )


def _evidence(spec: PoolSpec, field: str) -> str:
    if spec.is_emulated and field in ACCELERATOR_FIELDS:
        return "emulated"
    return spec.evidence.get(field, "declared")
