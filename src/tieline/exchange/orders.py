"""Orders: what an event means for the stream of the site that it concerns."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from tieline.exchange.bringing import transfers_of
from tieline.exchange.view import View
from tieline.model import event as fact
from tieline.model.job import Job, Member, Run, RunState
from tieline.model.peer import DelegatedToken
from tieline.model.plan import Quote
from tieline.model.protocol import Ask, Drain, Offer, Orders, Part, Resync, Stop
from tieline.model.task import Task
from tieline.registry.delegated import MOST_TTL_S, TTL_S, sealed_token

replace = msgspec.structs.replace


def offer_of(view: View, run: Run, now_ms: int) -> Offer:
    """The order that offers ``run`` to its site, as things stand."""
    job = view.jobs[run.job]
    task = task_of(run, job)
    origin = job.origin
    path = origin.path if origin is not None else ()
    if run.via and view.exchange is not None:
        path = (*path, view.exchange.id)
    return Offer(
        run=run.id,
        job=job.id,
        epoch=run.epoch,
        pool=run.pool,
        task=task,
        alternative=run.alternative,
        user=job.user,
        user_owner=job.user_owner,
        accelerator_count=run.accelerator_count,
        core_count=run.core_count,
        memory_bytes=run.memory_bytes,
        price_micro_cny_per_unit_hour=run.price_micro_cny_per_unit_hour,
        stop_after_s=run.stop_after_s,
        checkpoint=run.checkpoint,
        data_class=_merged(data_classes(view, job.task), origin.data_class if origin is not None else ()),
        residency=_merged(residencies(view, job.task), origin.residency if origin is not None else ()),
        ttl_ms=max(0, run.expires_ms - now_ms),
        project=job.project,
        path=path,
        first_run=first_run_of(view, run, job),
        token=token_of(view, run, job, now_ms) if run.via else "",
        quote=job.quote if run.via else "",
        offered_ms=run.offered_ms,
        state=run.state.value,
        transfers=transfers_of(view.network, run),
        part=part_of(view, run, job) if run.members else None,
    )


def task_of(run: Run, job: Job) -> Task:
    """The task as a run has it: a member of a gang has some of its nodes, which meet on the host's network."""
    task = job.task
    if run.members:
        return replace(task, nodes=run.nodes, network="host")
    return task if task.span is None else replace(task, span=None)  # which sites of an older version do not know


def as_gang(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs of one gang, in order of rank, as they are to be offered: each knows all of them."""
    gang = tuple(Member(run=each.id, site=each.site, rank=each.rank, nodes=each.nodes) for each in runs)
    return tuple(replace(each, members=len(gang), member=at, gang=gang) for at, each in enumerate(runs))


def part_of(view: View, run: Run, job: Job) -> Part:
    """What a run is of its gang."""
    span = job.task.span
    return Part(
        member=run.member,
        members=run.gang,
        number=int.from_bytes(blake2b(f"{job.id}.{run.epoch}".encode(), digest_size=2).digest(), "big"),
        ports=span.ports if span is not None else (),
        circuits=tuple(view.network.joins.get(job.id, ())),
    )


def first_run_of(view: View, run: Run, job: Job) -> str:
    """What a run is called where it was asked for first, in every exchange and at the site; empty: it stays with us."""
    if job.origin is not None:
        return job.origin.first_run
    return f"{view.exchange.id}#{run.id}" if run.via and view.exchange is not None else ""


def _merged(known: tuple[str, ...], said: tuple[str, ...]) -> tuple[str, ...]:
    """What is known here of the data, and what the exchange knows that asked for the job."""
    return tuple(sorted({*known, *said}))


def token_of(view: View, run: Run, job: Job, now_ms: int) -> str:
    """The right that goes with an offer to another exchange: this user, this run, that pool, until its limits are over.

    It is made when it is said and never stored.
    """
    assert view.exchange is not None
    now_s = now_ms // 1_000
    life_s = run.stop_after_s + job.task.grace_s + TTL_S if run.stop_after_s else MOST_TTL_S
    token = DelegatedToken(
        id=run.id,
        by=view.exchange.id,
        to=run.via,
        user=job.user,
        scopes=("run",),
        nb_s=now_s,
        exp_s=now_s + min(life_s, MOST_TTL_S),
        owner=job.user_owner,
        project=job.project,
        job=job.id,
        run=run.id,
        pool=run.pool,
    )
    return sealed_token(token, view.keys.key, view.keys.kid)


def live_orders(view: View, site: str, now_ms: int) -> tuple[Orders, ...]:
    """Everything that a site must know when it opens a session: its live runs, stops and open questions."""
    orders: list[Orders] = []
    for name in view.runs_at.get(site, ()):
        run = view.runs[name]
        if run.members and run.state is RunState.OFFERED and view.gangs[run.job].is_over:
            continue  # another member of its gang is gone: it is not asked any more
        orders.append(offer_of(view, run, now_ms))
        if run.is_stop_requested:
            orders.append(Stop(run=run.id, epoch=run.epoch, why="stop requested"))
    orders.extend(
        ask_of(view, quote) for quote in view.quotes.values() if quote.station == site and quote.state == "asked"
    )
    return tuple(orders)


def ask_of(view: View, quote: Quote) -> Ask:
    """The question behind a quote."""
    assert view.exchange is not None
    return Ask(
        quote=quote.id,
        pool=quote.pool,
        task=quote.task,
        alternative=quote.alternative,
        user=quote.user,
        user_owner=quote.user_owner,
        unit_count=quote.unit_count,
        price_micro_cny_per_unit_hour=quote.listed_price_micro_cny_per_unit_hour,
        asked_price_micro_cny_per_unit_hour=quote.asked_price_micro_cny_per_unit_hour,
        duration_s=quote.asked_duration_s,
        data_class=_merged(data_classes(view, quote.task), quote.data_class),
        residency=_merged(residencies(view, quote.task), quote.residency),
        path=(*quote.path, view.exchange.id) if quote.via else (),
    )


def data_classes(view: View, task: Task) -> tuple[str, ...]:
    """The classes of the datasets that the task reads, as far as they are known here: owners' policies ask for them."""
    known = view.supply.datasets
    return tuple(sorted({known[use.id].spec.data_class for use in task.data if use.id in known} - {""}))


def residencies(view: View, task: Task) -> tuple[str, ...]:
    """How far the task's data may travel, by its own word and by that of the datasets' records."""
    known = view.supply.datasets
    stated = {use.residency for use in task.data} | {
        known[use.id].spec.residency for use in task.data if use.id in known
    }
    return tuple(sorted(stated - {""}))


def order_of(event: fact.Event, view: View, now_ms: int) -> tuple[str, Orders] | None:
    """The site and the order that follow from ``event``, if any. Call it right after the event was applied."""
    if isinstance(event, fact.RunOffered):
        return event.run.station, offer_of(view, event.run, now_ms)
    if isinstance(event, fact.RunConfirmed):
        confirmed = view.runs[event.run]
        return confirmed.station, offer_of(view, confirmed, now_ms)
    if isinstance(event, fact.RunEnded):
        return _fence_of(event, view)
    if isinstance(event, fact.StopRequested):
        run = view.runs.get(event.run)
        return (run.station, Stop(run=run.id, epoch=run.epoch, why=event.why)) if run is not None else None
    if isinstance(event, fact.QuoteChanged) and event.quote.state == "asked":
        return event.quote.station, ask_of(view, event.quote)
    if isinstance(event, fact.SiteChanged):
        if event.site.has_left or event.why.startswith("accept"):
            return event.site.id, Resync(why=event.why)
        if event.why.startswith(("drain", "undrain")):
            return event.site.id, Drain(is_draining=event.site.is_draining)
    return None


def _fence_of(event: fact.RunEnded, view: View) -> tuple[str, Orders] | None:
    """A run that ended by our word alone is to stop where it is: behind a peer, or here when its peer fenced it.

    A site hears of all others in the answer to its next heartbeat.
    """
    run = view.recent.get(event.run)
    if run is None or event.usage is not None or event.state not in (RunState.LOST, RunState.STOPPED):
        return None
    code = event.reason.code if event.reason is not None else ""
    if not run.via and code != "run_fenced":
        return None
    return run.station, Stop(run=run.id, epoch=run.epoch, why=code, is_fenced=True)
