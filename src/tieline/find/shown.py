"""A row of the index as an offer: attribute values under their field names, units last, and what they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tieline.language.context import Context
from tieline.language.tree import Ref
from tieline.language.types import SUFFIX
from tieline.language.vector import Rows, integers_of
from tieline.model.evidence import Evidence
from tieline.model.plan import Offer

if TYPE_CHECKING:
    from tieline.find.index import Index

_OWN = ("id", "kind", "owner", "title")  # fields of the offer itself
READINGS = ("rtt", "bandwidth")
FREE = ("free", "cores_free", "memory_free")  # what the owner's site says every few seconds


class Reading(NamedTuple):
    """A value beside the columns, and what it rests on. None: unknown."""

    value: int | None
    evidence: str


def offer(index: Index, row: int, score: float = 0.0, readings: Mapping[str, Reading] | None = None) -> Offer:
    """One row; ``readings`` by field name are added."""
    values = index.table.values(row)
    evidence: dict[str, str] = values.pop("evidence", {})
    attributes: dict[str, Any] = {}
    rests_on: dict[str, str] = {}
    metrics: dict[str, int] = {}
    for name, value in values.items():
        described = index.table.attributes.get(name)
        if described is None:
            metrics[name.removeprefix("metric(").removesuffix(")")] = value
        elif name not in _OWN and value not in ((), {}):
            attributes[described.field] = value
            if name in evidence or name in FREE:
                rests_on[described.field] = evidence.get(name, Evidence.DECLARED.value)
    if metrics:
        attributes["metric_millionths"] = metrics
    for field, reading in (readings or {}).items():
        if reading.value is not None:
            attributes[field] = reading.value
        rests_on[field] = Evidence.UNKNOWN.value if reading.value is None else reading.evidence
    return Offer(
        id=values["id"],
        kind=values["kind"],
        owner=values.get("owner", ""),
        title=values.get("title", ""),
        attributes=attributes,
        evidence=rests_on,
        score=score,
    )


def readings_of(index: Index, rows: Iterable[int], refs: Iterable[Ref], context: Context) -> list[dict[str, Reading]]:
    """For each row, the readings that a query or ranking speaks of, by field name such as ``rtt(shanghai)_us``."""
    chosen = np.fromiter(rows, np.int64)
    found: list[dict[str, Reading]] = [{} for _ in chosen]
    for ref in refs:
        if ref.name not in READINGS:
            continue
        values, known = integers_of(ref, index.table, context)(Rows(index.table, chosen))
        field = ref.key + SUFFIX[ref.type]
        evidence = context.evidence.get(ref.name, Evidence.DECLARED.value)
        for at, holder in enumerate(found):
            holder[field] = Reading(int(values[at]) if known is None or known[at] else None, evidence)
    return found
