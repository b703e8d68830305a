"""CATS: the metrics of the pools that everybody may see, from one point. The figures are `network.cats`'s."""

from __future__ import annotations

from tieline.exchange.commands import Decision, ReadCats
from tieline.exchange.measuring import known_end
from tieline.exchange.readings import FRESH_MS
from tieline.exchange.view import View
from tieline.model.cats import CatsView, Instance
from tieline.model.evidence import Evidence
from tieline.network.cats import DRAFT, SCALE, Computing, Way, metrics
from tieline.place import PoolRow
from tieline.ports import Ids

MOST_INSTANCES = 10_000


def read_cats(view: View, command: ReadCats, now_ms: int, ids: Ids) -> Decision:
    """Public pools of sites that are heard, by site and pool; of the first `MOST_INSTANCES` of them."""
    view.readings.turn(now_ms)
    point = known_end(view, command.point) if command.point else ""
    instances: list[Instance] = []
    for name in sorted(view.sites):
        site = view.sites[name]
        if not site.is_admitted or site.is_silent or site.has_left or len(instances) >= MOST_INSTANCES:
            continue
        way = _way(view, point, name) if point else Way()
        for row in view.supply.pools.site_pools(name):
            if row.spec.access == "public":
                found = metrics(_computing(view, row), way, FRESH_MS)
                instances.append(Instance(pool=row.id, site=name, metrics=found))
    return Decision(
        (),
        CatsView(
            as_of_ms=now_ms, point=point, draft=DRAFT, scale=SCALE, instances=tuple(instances[:MOST_INSTANCES])
        ),
    )  # fmt: skip


def _computing(view: View, row: PoolRow) -> Computing:
    free = view.supply.pools.free(row.id)
    return Computing(
        unit="accelerator" if row.sells_accelerators else "core",
        total=row.spec.accelerator_count if row.sells_accelerators else row.spec.core_count,
        free=free.accelerators if row.sells_accelerators else free.cores,
        price_micro_cny_per_unit_hour=row.price_micro_cny_per_unit_hour,
        evidence=Evidence.EMULATED if row.spec.is_emulated else Evidence.DECLARED,
    )


def _way(view: View, point: str, site: str) -> Way:
    readings = view.readings
    return Way(
        rtt_us=readings.rtt_us(point, site),
        rate_bps=readings.rate_bps(point, site),
        loss_ppm=readings.loss_ppm(point, site),
        evidence=Evidence(readings.evidence["rtt"]),
    )
