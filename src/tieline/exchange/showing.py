"""Showing: what is free here and behind us, for a peer that asks; last value only, and looked at site by site.

::

    a booking, heartbeat, record or flag --> Supply.changes (the site) --> that site's state is made anew when one asks
    plain: sites as every peer sees them, by the peer that leads there ("": ours) --.
    apart: pools that not everybody sees, and what the asker's own runs hold -------+--> BranchState

What peers see alike is made once and kept for all of them, so that an answer costs what changed since the last one,
and the few sites that are another thing to the asker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tieline.exchange.supply import amount_of
from tieline.model.job import JobState
from tieline.model.peer import Peer, PoolState, SiteState
from tieline.place import Amount, PoolRow

if TYPE_CHECKING:
    from tieline.exchange.view import View

replace = msgspec.structs.replace
MOST_WAY = 3  # exchanges between us and a site
OURS = ""


class Showing:
    """The states of sites as every peer sees them, and which sites are another thing to some."""

    def __init__(self) -> None:
        self.change = 0  # of `Supply` that was looked at last
        self.plain: dict[str, dict[str, SiteState]] = {}  # way (a peer, or `OURS`) -> site -> its state
        self.apart: dict[str, None] = {}  # sites with pools that not everybody sees
        self.runs: dict[tuple[str, str], str] = {}  # peer and its name of a run -> ours, once there is one
        self._way: dict[str, str] = {}
        self._whole: dict[str, tuple[SiteState, ...]] = {}
        self._through: dict[str, dict[str, None]] = {}  # way -> every exchange that some path of it passes

    def catch_up(self, view: View) -> None:
        """Look at the sites that changed since the last time."""
        supply = view.supply
        changed = []
        for site, change in reversed(supply.changes.items()):
            if change <= self.change:
                break
            changed.append(site)
        self.change = supply.change
        for site in reversed(changed):
            self._look(view, site)

    def _look(self, view: View, site: str) -> None:
        before = self._way.pop(site, None)
        if before is not None:
            self._forget(before)
            self.plain[before].pop(site, None)
        self.apart.pop(site, None)
        way = way_of(view, site)
        if way is None:
            return
        rows = view.supply.pools.site_pools(site)
        if any(not is_plain(row) for row in rows):
            self.apart[site] = None
        state = state_of(view, site, way, [row for row in rows if is_plain(row)], {})
        self._way[site] = way
        self._forget(way)
        group = self.plain.setdefault(way, {})
        if state is not None:
            group[site] = state

    def _forget(self, way: str) -> None:
        self._whole.pop(way, None)
        self._through.pop(way, None)

    def way(self, site: str) -> str | None:
        """The way to a site as it was looked at; None: it is not shown to anybody."""
        return self._way.get(site)

    def whole(self, way: str) -> tuple[SiteState, ...]:
        """The states of one way, in the order of identifiers."""
        found = self._whole.get(way)
        if found is None:
            group = self.plain[way]
            found = self._whole[way] = tuple(group[site] for site in sorted(group))
        return found

    def passes(self, way: str, exchange: str) -> bool:
        """Whether some path of ``way`` passes an exchange."""
        found = self._through.get(way)
        if found is None:
            found = self._through[way] = dict.fromkeys(name for state in self.whole(way) for name in state.path)
        return exchange in found


def shown_to(view: View, peer: Peer) -> tuple[SiteState, ...]:
    """What a peer is shown: ours first, then what is behind each other peer; what its own runs hold counts as free.

    Nothing that is behind the asker itself, and no pool that its owner's access rules would not show to it.
    """
    showing = view.showing
    showing.catch_up(view)
    apart = _apart(view, peer)
    found: tuple[SiteState, ...] = ()
    for way in sorted(showing.plain):
        if way == peer.id:
            continue
        states = showing.whole(way)
        ours = {site: state for site, state in apart.items() if showing.way(site) == way}
        if ours:
            merged = {state.id: state for state in states if state.id not in ours}
            merged.update((site, state) for site, state in ours.items() if state is not None)
            states = tuple(merged[site] for site in sorted(merged))
        if showing.passes(way, peer.id):
            states = tuple(state for state in states if peer.id not in state.path)
        found += states
    return found


def _apart(view: View, peer: Peer) -> dict[str, SiteState | None]:
    """The sites that are another thing to this peer than to others, as it sees them; None: not at all."""
    held = _held_by(view, peer.id)
    pools, showing = view.supply.pools, view.showing
    holding = (row.site for pool in held if (row := pools.get(pool)) is not None)
    found: dict[str, SiteState | None] = {}
    for site in dict.fromkeys((*showing.apart, *holding)):
        way = showing.way(site)
        if way is not None:
            rows = [row for row in pools.site_pools(site) if may_see(row, peer)]
            found[site] = state_of(view, site, way, rows, held)
    return found


def way_of(view: View, site: str) -> str | None:
    """Which way leads to a site that may be shown: `OURS`, or a peer; None where none does."""
    ours = view.sites.get(site)
    if ours is not None and not ours.has_left:
        return OURS if ours.is_admitted else None
    way, said = view.remote_sites.get(site), view.said.get(site)
    return way if said is not None and len(said.path) < MOST_WAY else None


def state_of(view: View, site: str, way: str, rows: list[PoolRow], held: dict[str, Amount]) -> SiteState | None:
    """A site with these of its pools, what is in ``held`` counted as free; None where there are none."""
    assert view.exchange is not None
    shown = tuple(_pool_state(view, row, held.get(row.id, Amount())) for row in rows)
    if not shown:
        return None
    us = view.exchange.id
    if way != OURS:
        said = view.said[site]
        return replace(said, path=(us, *said.path), pools=shown)
    found = view.sites[site]
    return SiteState(
        id=site,
        owner=found.owner,
        path=(us,),
        is_draining=found.is_draining,
        is_silent=found.is_silent,
        pools=shown,
    )


def _pool_state(view: View, row: PoolRow, own: Amount) -> PoolState:
    free = view.supply.pools.free(row.id)
    return PoolState(
        pool=row.id,
        accelerators=free.accelerators + own.accelerators,
        cores=free.cores + own.cores,
        memory_bytes=free.memory_bytes + own.memory_bytes,
    )


def is_plain(row: PoolRow) -> bool:
    """Whether every peer sees a pool."""
    return row.spec.access == "public"


def may_see(row: PoolRow, peer: Peer) -> bool:
    """Whether a pool's owner lets a peer's users see it, also one behind us: what we may use as a partner is not ours
    to pass on.
    """
    is_partner = row.spec.access == "partner" and peer.prefix in row.spec.partners
    return is_plain(row) or is_partner or peer.prefix == row.owner


def _held_by(view: View, peer: str) -> dict[str, Amount]:
    """What the live runs of a peer hold of each pool."""
    guest, names = view.guests.get(peer), view.showing.runs
    held: dict[str, Amount] = {}
    for name in guest.live if guest is not None else ():
        assert guest is not None
        row = view.jobs.rows.get(guest.runs[name].job)
        if row is None or row.state is JobState.QUEUED:
            continue
        key = (peer, name)
        if names.get(key) not in view.runs:
            names[key] = view.jobs[row.id].run
        run = view.runs.get(names[key])
        if run is not None:
            had, more = held.get(run.pool, Amount()), amount_of(run)
            held[run.pool] = Amount(
                had.accelerators + more.accelerators, had.cores + more.cores, had.memory_bytes + more.memory_bytes
            )
    for key in [key for key in names if key[0] == peer and (guest is None or key[1] not in guest.live)]:
        del names[key]
    return held
