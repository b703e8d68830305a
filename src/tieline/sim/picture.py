"""Picture: everything of a view that must outlive its process, to be compared before and after a restart."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from tieline.exchange.view import View

NOT_KEPT = Fraction(0)  # what a share is of follows from the pools, which the pass looks at


def picture(view: View) -> dict[str, Any]:
    """The durable parts of ``view`` by name."""
    pools = sorted(row.id for site in view.sites for row in view.supply.pools.site_pools(site))
    return {
        "exchange": view.exchange,
        "tokens": dict(view.tokens),
        "sites": dict(view.sites),
        "jobs": {name: view.jobs[name] for name in sorted(view.jobs)},
        "runs": {name: view.runs[name] for name in sorted(view.runs)},
        "stations": {site: sorted(names) for site, names in view.runs_at.items() if names},
        "gangs": {name: (sorted(gang.runs), gang.is_over) for name, gang in sorted(view.gangs.items())},
        "joins": {name: sorted(circuits) for name, circuits in sorted(view.network.joins.items())},
        "circuits": dict(sorted(view.network.circuits.items())),
        "quotes": dict(view.quotes),
        "peers": dict(view.peers),
        "cursors": dict(view.cursors),
        "serials": dict(view.serials),
        "records": sorted((head.id, head.rev, head.sha256) for head in view.catalogue.rows()),
        "charged": view.charged_micro_cny,
        "waiting": sorted(view.waiting),
        "projects": dict(view.projects),
        "spent": dict(view.spent),
        "shares": _shares(view),
        "holds": {pool: tuple(view.supply.pools.held(pool)) for pool in pools},
    }


def _shares(view: View) -> dict[str, Any]:
    """What the runs of each project hold, and what is pledged to them."""
    if view.shares is None:
        return {}
    names = sorted({run.project for run in view.runs.values()} | set(view.projects))
    return {name: view.shares.standing(name)._replace(share=NOT_KEPT) for name in names}
