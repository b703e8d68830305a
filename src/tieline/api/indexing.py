"""Indexing: keeps the find index in step with what was committed, on the event loop's thread.

Records come from the log; what is free and which site is silent are last values, read from the writer's view when
something touched them. The index is a projection: it is built anew from the store at every start.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from tieline.drivers.stores.draft import Committed
from tieline.exchange.ways import is_ours
from tieline.find import Index, find
from tieline.language import Context
from tieline.model import event as fact
from tieline.model.api import FindBody
from tieline.model.error import TielineError
from tieline.model.event import RecordStored
from tieline.model.kinds import KINDS
from tieline.model.party import Site
from tieline.model.plan import Answer
from tieline.model.record import Status
from tieline.registry import opened
from tieline.registry.silence import FROZEN_MOST_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tieline.api.platform import Platform

PAGE = 200
FEW_RECORDS = 20_000
GIVE_WAY_S = 0.25
JUDGE_MS = 3_600_000  # how often leases that do not end are looked at again
log = logging.getLogger("tieline.api")


class Indexing:
    """The index, and what has to be looked at before it is asked."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.index = Index()
        self.is_loaded = False
        self.is_given_up = False  # the process ends before it was built
        self._came: list[Committed] = []  # while it was loaded
        self._dirty: dict[str, None] = {}  # pools whose free capacity changed
        self._branches: dict[str, int] = {}  # peer -> when it said what was taken in last
        self._silences: dict[str, int] = {}  # peers that are not heard -> since when (s), as was looked at last
        self._silent: dict[str, None] = {}  # prefixes of logs that come from nobody who is heard
        self._judged_ms = 0

    # -- keeping in step ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Build the index: at once for few records, beside everything else for many; `find` is refused until then.

        Raises what a short build raised; a long one that fails is told to the log, and `find` stays refused.
        """
        self._building = asyncio.create_task(self._build())
        if len(self.platform.view.catalogue) <= FEW_RECORDS:
            await self._building
        else:
            self._building.add_done_callback(_told)

    async def _build(self) -> None:
        await self.platform.read(self.load)
        self.loaded()

    def load(self) -> None:
        """Fill the index from the store. Runs in a thread before the first question; nothing else touches it then."""
        store, after = self.platform.store, ""
        while not self.is_given_up:
            began_s, busy_s = time.perf_counter(), time.thread_time()
            records = store.records(after=after, limit=PAGE)
            for record in records:
                self._put(record, 0)
            if len(records) < PAGE:
                return
            after = records[-1].id
            took_s, busy_s = time.perf_counter() - began_s, time.thread_time() - busy_s
            if took_s > 1.5 * busy_s:  # the threads that answer are at work: they come first
                time.sleep(min(GIVE_WAY_S, 2 * took_s))

    def loaded(self) -> None:
        """Take in what came meanwhile, and how the sites stand. On the loop's thread."""
        self.is_loaded = True
        came, self._came = self._came, []
        for site in list(self.platform.view.sites.values()):
            self._site(site)
        self.note(came)

    def note(self, entries: Sequence[Committed]) -> None:
        """Learn from what was committed."""
        if not self.is_loaded:
            self._came.extend(entries)
            return
        for entry in entries:
            event = entry.event
            if isinstance(event, RecordStored):
                self._stored(event, entry.time_ms)
            elif isinstance(event, fact.RecordsTaken):
                for record in event.records:
                    self._stored(record, entry.time_ms)
            elif isinstance(event, fact.SiteJoined | fact.SiteChanged | fact.SessionOpened):
                self._site(event.site)
            elif isinstance(event, fact.RunOffered):
                self._dirty[event.run.pool] = None
            elif isinstance(event, fact.RunEnded):
                self.heard(entry.site or "")

    def heard(self, site: str) -> None:
        """Something may have changed in what a site has free."""
        for row in self.platform.view.supply.pools.site_pools(site):
            self._dirty[row.id] = None

    def heard_branches(self) -> None:
        """Take in what peers said of what is free behind them since the last question."""
        view = self.platform.view
        for peer, branch in view.branches.copy().items():
            heard_ms = 0 if branch.error else branch.heard_ms  # what is free where nobody answers is unknown
            if branch.state is None or self._branches.get(peer) == heard_ms:
                continue
            self._branches[peer] = heard_ms
            for site in branch.state.sites:
                if site.id not in view.sites and view.remote_sites.get(site.id, peer) == peer:
                    status = "draining" if site.is_draining else "silent" if site.is_silent else "active"
                    self.index.set_status(site.id, status, is_heard=bool(heard_ms))
                    if heard_ms:
                        self.heard(site.id)

    def _stored(self, event: RecordStored, time_ms: int) -> None:
        self._put(event, time_ms)
        if event.kind == "site":
            site = self.platform.view.sites.get(event.id)
            if site is not None:
                self._site(site)
        elif event.kind == "pool":
            self._dirty[event.id] = None

    def _put(self, stored: RecordStored, updated_ms: int) -> None:
        if stored.kind not in KINDS or not KINDS[stored.kind].is_findable:
            return
        if stored.status == Status.WITHDRAWN or not stored.envelope:
            self.index.remove(stored.id)
            return
        record = opened(stored.envelope.encode()).record
        spec = msgspec.convert(record.spec, KINDS[stored.kind].spec)
        self.index.put_record(
            stored.id,
            spec,
            status=stored.status,
            expires_ms=stored.exp * 1000,
            updated_ms=updated_ms or record.nb * 1000,
        )

    def _site(self, site: Site) -> None:
        if site.has_left or not site.is_admitted or site.is_silent:
            status = "silent"
        else:
            status = "draining" if site.is_draining else "active"
        self.index.set_status(site.id, status, is_heard=status != "silent")
        if status != "silent":
            self.heard(site.id)

    def _refresh(self) -> None:
        """Bring what is free up to date, for the pools that were touched."""
        if not self._dirty:
            return
        view = self.platform.view
        pools = view.supply.pools
        names = []
        for name in self._dirty:
            row = pools.get(name)
            site = view.sites.get(row.site) if row is not None else None
            is_heard = row is not None and (
                not site.is_silent if site is not None and not site.has_left else row.site in view.remote_sites
            )
            if name in self.index and is_heard:
                names.append(name)
        self._dirty.clear()
        amounts = [pools.free(name) for name in names]
        self.index.set_free(
            names,
            free=[amount.accelerators for amount in amounts],
            cores_free=[amount.cores for amount in amounts],
            memory_free=[amount.memory_bytes for amount in amounts],
        )

    # -- asking -------------------------------------------------------------------------------------------------------

    def find(self, body: FindBody) -> Answer:
        """The answer to a question, as of now. Raises TielineError `invalid_expression`, `invalid_request`."""
        if not self.is_loaded:
            raise TielineError("overloaded", f"the index is being built, {len(self.index):,} records so far; ask again")
        now_ms = self.platform.clock.now_ms()
        self._listen(now_ms)
        self.index.expire(now_ms, self._is_silent)
        self._refresh()
        return find(
            self.index,
            body.query,
            words=body.words,
            kind=body.kind,
            order=body.order,
            limit=body.limit,
            context=Context(
                sets={"partners": body.partners}, readings=self._readings, evidence=self.platform.view.readings.evidence
            ),
            as_of_ms=now_ms,
        )

    def _listen(self, now_ms: int) -> None:
        """Whose leases do not end now, because nobody can tell whether they were renewed (`registry/silence.py`)."""
        view = self.platform.view
        silences = {peer: silence.since_s for peer, silence in view.silences.copy().items()}
        if silences == self._silences and now_ms < self._judged_ms + JUDGE_MS:
            return
        self._silences, self._judged_ms = silences, now_ms
        lately = {peer: None for peer, since_s in silences.items() if now_ms // 1000 < since_s + FROZEN_MOST_S}
        cursors = [name for name in list(view.cursors) if not is_ours(view, name[1])]
        heard = {prefix: None for peer, prefix in cursors if peer not in silences}
        self._silent = {prefix: None for peer, prefix in cursors if peer in lately and prefix not in heard}
        self.index.judge_again()

    def _is_silent(self, key: str) -> bool:
        return key.partition("/")[0] in self._silent

    def _readings(self, function: str, point: str, sites: Iterable[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Readings from ``point`` to each of ``sites``; where there is none it is unknown."""
        distances = self.platform.view.distances
        ask = distances.rtt_us if function == "rtt" else distances.read_bps
        found = [ask(point, site) for site in sites]
        known = np.array([value is not None for value in found], np.bool_)
        return np.array([value or 0 for value in found], np.int64), known


def _told(building: asyncio.Task[None]) -> None:
    """Say in the log how a long build ended."""
    if building.cancelled() or building.exception() is None:
        return
    log.critical("the index could not be built; find stays refused", exc_info=building.exception())
