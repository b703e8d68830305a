"""Reading what only the view knows: why a job is where it is, the sites as they stand, the situation in sums."""

from __future__ import annotations

from statistics import median_low

from tieline.exchange.commands import Decision, ReadSites, ReadSituation, ReadState, WhyJob
from tieline.exchange.hosting import active_peer
from tieline.exchange.permission import no_such, owns
from tieline.exchange.placing import demand_for, plan_demand
from tieline.exchange.projects import sees_work
from tieline.exchange.showing import shown_to
from tieline.exchange.view import View
from tieline.exchange.ways import with_ways
from tieline.model.api import PoolView, SiteView, SituationView, WhyView
from tieline.model.job import Job, JobState, Run, RunState
from tieline.model.party import Actor, Role, Site
from tieline.model.peer import BranchState
from tieline.model.plan import Plan
from tieline.model.reason import Reason, Value
from tieline.place import PoolRow
from tieline.ports import Ids


def why_job(view: View, command: WhyJob, now_ms: int, ids: Ids) -> Decision:
    """The binding constraint of a live job; ended jobs answer from the store with the reasons they ended with."""
    row = view.jobs.rows.get(command.job)
    if row is None or not sees_work(view, command.actor, row.user, row.project):
        raise no_such("live job", command.job)
    job = view.jobs[row.id]
    reasons, plan = _waits(view, job, now_ms)
    run = view.runs.get(job.run)
    if job.state is not JobState.QUEUED:
        reasons = _goes_on(view, job)
    return Decision(
        (),
        WhyView(
            job=job.id,
            state=job.state.value,
            reasons=(*reasons, *job.reasons),
            considered=plan.considered if plan else 0,
            nearest=plan.nearest if plan else None,
            plan=with_ways(view, plan) if plan is not None else None,
            via=run.via if run is not None else "",
            as_of_ms=run.as_of_ms if run is not None else 0,
        ),
    )


def _waits(view: View, job: Job, now_ms: int) -> tuple[tuple[Reason, ...], Plan | None]:
    if job.state is not JobState.QUEUED:
        return (), None
    if job.after:
        before = view.jobs.rows.get(job.after)
        state = before.state.value if before else "gone"
        return (Reason(code="waiting_for_dependency", values={"job": job.after, "state": state}),), None
    if job.eligible_ms > now_ms:
        return (Reason(code="waiting_for_retry", values={"wait_us": (job.eligible_ms - now_ms) * 1000}),), None
    plan = plan_demand(view, demand_for(view, job, now_ms), now_ms, job.project)
    if plan.candidates or plan.gang is not None:
        return (Reason(code="waiting_for_pass"),), plan
    return plan.reasons, plan


def _goes_on(view: View, job: Job) -> tuple[Reason, ...]:
    if job.id in view.gangs:
        return _gang_stands(view, job)
    run = view.runs.get(job.run)
    if run is None:
        return ()
    if run.via and run.via not in view.ways:  # what is known of it is what was heard last
        return (Reason(code="branch_silent", values={"exchange": run.via}), *_stands(run))
    return _stands(run)


def _stands(run: Run) -> tuple[Reason, ...]:
    if run.state is RunState.OFFERED:
        return (Reason(code="waiting_for_answer", values={"site": run.station, "run": run.id}),)
    if run.state is RunState.ACCEPTED:
        return (Reason(code="staging_at", values={"pool": run.pool}),)
    return (Reason(code="running", values={"pool": run.pool, "since_ms": run.started_ms}),)


def _gang_stands(view: View, job: Job) -> tuple[Reason, ...]:
    """How far a gang over several pools is, and whom it waits for."""
    runs = sorted((view.runs[name] for name in view.gangs[job.id].runs), key=lambda each: each.rank)
    values: dict[str, Value] = {"members": job.members}
    if job.broken is not None or not runs:
        broken = job.broken
        site, why = (broken.site, broken.reason.code) if broken is not None else ("-", "-")
        return (Reason(code="gang_ending", values={**values, "site": site, "why": why, "left": len(runs)}),)
    open_runs = [run for run in runs if run.state is RunState.OFFERED]
    if open_runs:
        values |= {"accepted": job.members - len(open_runs), "site": _named([run.site for run in open_runs])}
        return (Reason(code="gang_waits", values=values),)
    staged = [run for run in runs if run.state is RunState.ACCEPTED]
    if staged:
        values |= {"started": job.members - len(staged), "pool": _named([run.pool for run in staged])}
        return (Reason(code="gang_staging", values=values),)
    sites = len({run.site for run in runs})
    pools = _named([run.pool for run in runs])
    return (Reason(code="gang_running", values={**values, "sites": sites, "pool": pools}),)


def _named(names: list[str]) -> str:
    """Names in their order, each once."""
    return ", ".join(dict.fromkeys(names))


def read_sites(view: View, command: ReadSites, now_ms: int, ids: Ids) -> Decision:
    """Sites in order of identifier; a private pool is shown to its owner, admins and auditors only."""
    if command.site:
        site = view.sites.get(command.site)
        if site is None:
            raise no_such("site", command.site)
        return Decision((), (_site_view(view, command.actor, site),))
    return Decision((), tuple(_site_view(view, command.actor, view.sites[name]) for name in sorted(view.sites)))


def _site_view(view: View, actor: Actor, site: Site) -> SiteView:
    spec = view.supply.site_specs.get(site.id)
    is_insider = actor.has(Role.ADMIN, Role.AUDITOR) or owns(actor, site.owner) or actor.name == site.id
    pools = [row for row in view.supply.pools.site_pools(site.id) if is_insider or row.spec.access != "private"]
    return SiteView(
        id=site.id,
        owner=site.owner,
        tier=spec.tier if spec else "edge",
        region=spec.region if spec else "",
        is_admitted=site.is_admitted,
        is_draining=site.is_draining,
        is_silent=site.is_silent,
        has_left=site.has_left,
        heard_ms=view.heard_ms.get(site.id, 0),
        joined_ms=site.joined_ms,
        runs=len(view.runs_at.get(site.id, ())),
        readings=spec.readings if spec else {},
        declared_by=spec.declared_by if spec else "",
        pools=tuple(_pool_view(view, row) for row in pools),
    )


def _pool_view(view: View, row: PoolRow) -> PoolView:
    free = view.supply.pools.free(row.id)
    return PoolView(
        id=row.id,
        accelerator=row.spec.accelerator,
        accelerator_count=row.spec.accelerator_count,
        accelerators_free=free.accelerators,
        core_count=row.spec.core_count,
        cores_free=free.cores,
        memory_bytes=row.spec.memory_bytes,
        memory_free_bytes=free.memory_bytes,
        price_micro_cny_per_unit_hour=row.price_micro_cny_per_unit_hour,
        sandbox=row.spec.sandbox,
        networks=row.spec.networks,
        evidence=row.spec.evidence,
        is_emulated=row.spec.is_emulated,
    )


def read_state(view: View, command: ReadState, now_ms: int, ids: Ids) -> Decision:
    """What is free here and behind us, for a peer that may use it. Last value only."""
    peer = active_peer(view, command.peer)
    assert view.exchange is not None
    sites = shown_to(view, peer) if peer.may_use else ()
    state = BranchState(exchange=view.exchange.id, at_ms=now_ms, head=0, sites=sites, quota=peer.quota)
    return Decision((), state)


def read_situation(view: View, command: ReadSituation, now_ms: int, ids: Ids) -> Decision:
    """Supply, demand, prices and load in sums over public and partner pools; no owner, user or job is named."""
    supply: dict[str, dict[str, int]] = {}
    prices: dict[str, list[int]] = {}
    for site in sorted(view.sites):
        for row in view.supply.pools.site_pools(site):
            kind = row.spec.accelerator if row.sells_accelerators else "cores"
            free = view.supply.pools.free(row.id)
            total = row.spec.accelerator_count if row.sells_accelerators else row.spec.core_count
            sums = supply.setdefault(kind, {"total": 0, "free": 0, "pools": 0})
            sums["total"] += total
            sums["free"] += free.accelerators if row.sells_accelerators else free.cores
            sums["pools"] += 1
            prices.setdefault(kind, []).append(row.price_micro_cny_per_unit_hour)
    return Decision(
        (),
        SituationView(
            as_of_ms=now_ms,
            sites=count_sites(view),
            supply=supply,
            price_micro_cny={
                kind: {"least": min(listed), "median": median_low(listed), "most": max(listed)}
                for kind, listed in sorted(prices.items())
            },
            demand=count_jobs(view),
            charged_micro_cny=view.charged_micro_cny,
        ),
    )


def count_sites(view: View) -> dict[str, int]:
    """Sites by how they stand; one site may count under several words."""
    sites = [site for site in list(view.sites.values()) if not site.has_left]
    return {
        "admitted": sum(site.is_admitted for site in sites),
        "waiting": sum(not site.is_admitted for site in sites),
        "silent": sum(site.is_silent for site in sites),
        "draining": sum(site.is_draining for site in sites),
    }


def count_jobs(view: View) -> dict[str, int]:
    """Live jobs by state."""
    return {state.value: view.jobs.counts[state] for state in JobState}
