"""A record as a query reads it: attribute values by name, in base units.

Which field an attribute comes from is said by the row's ``source``; what those rows cannot say is here. A size, rate or
time of 0 and an empty text mean that the owner did not state it, which is unknown. What changes by the minute (what is
free) is not in a record and is set beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from tieline.language.attributes import OFFER, Attribute
from tieline.language.family import family
from tieline.language.types import Type
from tieline.model.accelerators import architecture, named
from tieline.model.evidence import Evidence
from tieline.model.record import Delegation
from tieline.model.spec import ModelSpec, PoolSpec, SiteSpec, Spec

_OF_ACCELERATOR = frozenset({"accelerator", "vendor", "count", "gpu", "npu", "accelerator_memory"})
_UNSTATED_AT_ZERO = frozenset({Type.SIZE, Type.RATE, Type.DURATION})


@cache
def fields_of(spec: type[Spec | Delegation]) -> tuple[tuple[Attribute, str], ...]:
    """The attributes that state a field of ``spec`` as it is, each with that field, from the rows' sources."""
    fields = set(spec.__struct_fields__)
    found = []
    for row in OFFER:
        for source in row.source.replace(";", ",").split(","):
            owner, _, field = source.strip().partition(".")
            if owner in (spec.__name__, "Spec") and field in fields and not row.argument:
                found.append((row, field))
    return tuple(found)


def offer_values(
    id: str,  # noqa: A002 - the record's own word
    spec: Spec | Delegation,
    *,
    status: str = "active",
    site: SiteSpec | None = None,
    updated_ms: int = 0,
) -> dict[str, Any]:
    """Attribute values of one record; ``site`` is the record of the pool's site, where it is known.

    >>> spec = PoolSpec(accelerator="ascend-910b", accelerator_count=8, price_micro_cny_per_accelerator_hour=3_200_000)
    >>> values = offer_values("cn.demo.lab7/pool/npus", spec)
    >>> values["kind"], values["owner"], values["npu"], values["gpu"], values["price"], values["memory"]
    ('pool', 'cn.demo.lab7', 8, 0, 3200000, None)
    """
    owner, kind, name = id.split("/", 2)
    values: dict[str, Any] = {}
    for row, field in fields_of(type(spec)):
        value = getattr(spec, field)
        values[row.name] = None if not value and (row.type is Type.TEXT or row.type in _UNSTATED_AT_ZERO) else value
    values |= {
        "id": id,
        "kind": kind,
        "owner": owner,
        "name": name,
        "title": spec.title or None,
        "status": status,
        "updated": updated_ms or None,
    }
    if isinstance(spec, Spec):
        values["label"] = spec.labels
        values["evidence"] = evidence_of(spec)
    if isinstance(spec, SiteSpec):
        values |= {"site": id, **site_values(spec)}
    if isinstance(spec, PoolSpec):
        group = family(spec.accelerator, spec.vendor) if spec.accelerator_count else ""
        values |= {"gpu": 0, "npu": 0, "sandbox": spec.sandbox or "none"}
        values["accelerator"] = _word(spec.accelerator, lambda word: named(word).kind) if group else "none"
        values["architecture"] = _word(spec.architecture, architecture) or None
        if group:
            values[group] = spec.accelerator_count
        if site is not None:
            values |= site_values(site)
    if isinstance(spec, ModelSpec):
        values["metric"] = spec.metrics_millionths
    return values


def evidence_of(spec: Spec) -> dict[str, str]:
    """What each attribute of ``spec`` rests on; what its owner does not say otherwise is declared 申报."""
    found = {}
    is_emulated = isinstance(spec, PoolSpec) and spec.is_emulated
    for row, field in fields_of(type(spec)):
        word = spec.evidence.get(field, spec.evidence.get(row.name, Evidence.DECLARED.value))
        found[row.name] = Evidence.EMULATED.value if is_emulated and row.name in _OF_ACCELERATOR else word
    if isinstance(spec, PoolSpec):
        found["gpu"] = found["npu"] = found["count"]
    return found


def _word(text: str, spelled: Callable[[str], str]) -> str:
    """One spelling for the many; a word that is in no table stays as it is."""
    try:
        return spelled(text) if text else text
    except ValueError:
        return text


def site_values(spec: SiteSpec) -> dict[str, Any]:
    """What a site's record says of the site and of every pool there."""
    return {
        "tier": spec.tier,
        "region": spec.region or None,
        "has_door": bool(spec.door),
        "declared_by": spec.declared_by or None,
    }
