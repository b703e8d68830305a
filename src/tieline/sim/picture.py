"""Picture: everything of a view that must outlive its process, to be compared before and after a restart."""

from __future__ import annotations

from typing import Any

from tieline.exchange.view import View


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
        "quotes": dict(view.quotes),
        "peers": dict(view.peers),
        "cursors": dict(view.cursors),
        "serials": dict(view.serials),
        "records": sorted((head.id, head.rev, head.sha256) for head in view.catalogue.rows()),
        "charged": view.charged_micro_cny,
        "waiting": sorted(view.waiting),
        "holds": {pool: tuple(view.supply.pools.held(pool)) for pool in pools},
    }
