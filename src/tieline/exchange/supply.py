"""Supply: what can be placed on now, kept from records, heartbeats and bookings: from records to `place.Pools`."""

from __future__ import annotations

from tieline.exchange.possible import Possible
from tieline.model.event import RecordStored
from tieline.model.job import Run
from tieline.model.party import Site
from tieline.model.protocol import PoolBeat
from tieline.model.record import Status
from tieline.model.spec import DatasetSpec, PoolSpec, SiteSpec
from tieline.place import Amount, DataFact, Demand, Pools, SiteFlags, pool_row
from tieline.place.pools import OPEN_SITE
from tieline.registry import Kept, opened

PLACEABLE = ("dataset", "site", "pool")  # kinds of records that placing reads
MOST_DEMANDS = 20_000


class Supply:
    """Pools with their holds, the specs of sites, and the facts of datasets."""

    def __init__(self) -> None:
        self.pools = Pools()
        self.site_specs: dict[str, SiteSpec] = {}
        self.datasets: dict[str, DataFact] = {}
        self.demands: dict[str, Demand] = {}  # of jobs that wait, the newest, so that a pass compiles nothing twice
        self.possible = Possible()
        self.version = 0  # grows whenever something may fit that did not before
        self.change = 0  # grows with every change of what is free or shown
        self.changes: dict[str, int] = {}  # site -> its last change, in the order of these
        self._pool_records: dict[str, dict[str, RecordStored]] = {}  # site -> pools' records
        self._orphans: dict[str, Run] = {}  # live runs whose pool is not held here any more

    def touch(self, site: str) -> None:
        """Something of a site changed that whoever asks for what is free should know."""
        self.change += 1
        self.changes.pop(site, None)
        self.changes[site] = self.change

    # -- records ------------------------------------------------------------------------------------------------------

    def put_record(self, event: RecordStored, sites: dict[str, Site], kept: Kept | None = None) -> None:
        """Let a stored record of a kind in `PLACEABLE` take effect; ``kept``: what it says, if that is known."""
        if event.kind not in PLACEABLE:
            return
        self.version += 1
        kept = kept or Kept(opened(event.envelope.encode()).record, None)
        is_gone = kept.record.status is Status.WITHDRAWN
        if event.kind == "dataset":
            self.datasets.pop(event.id, None)
            self.demands.clear()  # some may rest on it
            if not is_gone:
                owner = event.id.partition("/")[0]
                self.datasets[event.id] = DataFact(owner=owner, spec=kept.says(DatasetSpec))
        elif event.kind == "site":
            self.touch(event.id)
            self.site_specs.pop(event.id, None)
            if not is_gone:
                self.site_specs[event.id] = kept.says(SiteSpec)
            for pool in tuple(self._pool_records.get(event.id, {}).values()):
                self._put_pool(pool)
            if event.id in sites:
                self.flag_site(sites[event.id])
        else:
            self._put_pool(event, kept)

    def _put_pool(self, event: RecordStored, kept: Kept | None = None) -> None:
        kept = kept or Kept(opened(event.envelope.encode()).record, None)
        record = kept.record
        before = self.pools.get(event.id)
        if before is not None:
            self.touch(before.site)
        if record.status is Status.WITHDRAWN:
            for pools in self._pool_records.values():
                pools.pop(event.id, None)
            self.pools.remove(event.id)
            return
        spec = kept.says(PoolSpec)
        self.touch(spec.site)
        self._pool_records.setdefault(spec.site, {})[event.id] = event
        site = self.site_specs.get(spec.site)
        if site is None:
            return  # it waits for the record of its site
        self.pools.put(
            pool_row(
                event.id,
                event.id.partition("/")[0],
                spec,
                site,
                status=record.status,
                expires_ms=record.exp * 1000,
                updated_ms=record.nb * 1000,
            )
        )

    def forget_record(self, name: str) -> None:
        """A record is kept no more."""
        before = self.pools.get(name)
        if before is not None:
            self.touch(before.site)
        if self.datasets.pop(name, None) is not None:
            self.demands.clear()
        self.site_specs.pop(name, None)
        for pools in self._pool_records.values():
            pools.pop(name, None)
        self.pools.remove(name)

    def remember(self, job: str, demand: Demand) -> None:
        """Keep what a job asks for; the oldest of too many is compiled again when its turn comes."""
        self.demands[job] = demand
        if len(self.demands) > MOST_DEMANDS:
            del self.demands[next(iter(self.demands))]

    # -- sites and heartbeats -----------------------------------------------------------------------------------------

    def flag_site(self, site: Site) -> None:
        """Whether its pools can be placed on now."""
        flags = SiteFlags(is_admitted=site.is_admitted, is_draining=site.is_draining, is_silent=site.is_silent)
        if flags != self.pools.site_flags(site.id):
            self.version += flags == OPEN_SITE
            self.pools.set_site(site.id, flags)

    def limit(self, site: str, beat: PoolBeat) -> None:
        """What the owner makes available of one of its pools now."""
        row = self.pools.get(beat.pool)
        if row is None or row.site != site:
            return
        before = self.pools.free(beat.pool)
        available = Amount(beat.accelerators, beat.cores, beat.memory_bytes)
        self.pools.set_available(beat.pool, available)
        after = self.pools.free(beat.pool)
        if after != before:
            self.touch(site)
        if any(now > then for now, then in zip(after, before, strict=True)):
            self.version += 1

    # -- bookings -----------------------------------------------------------------------------------------------------

    def hold(self, run: Run) -> None:
        """Hold what a run books. More than is free is a defect, and an assertion."""
        self.pools.hold(run.pool, amount_of(run))
        self.touch(run.site)

    def hold_again(self, run: Run) -> None:
        """Hold what a run booked before a restart, also of a pool that shrank; one that went holds nothing for it."""
        self.touch(run.site)
        if not self.pools.hold_again(run.pool, amount_of(run)):
            self._orphans[run.id] = run

    def release(self, run: Run) -> None:
        """Give back what a run held."""
        self.version += 1
        self.touch(run.site)
        if self._orphans.pop(run.id, None) is None:
            self.pools.release(run.pool, amount_of(run))


def amount_of(run: Run) -> Amount:
    """What a run holds of its pool."""
    return Amount(run.accelerator_count, run.core_count, run.memory_bytes)
