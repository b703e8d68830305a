"""Orders: what an event means for the stream of the site that it concerns."""

from __future__ import annotations

from tieline.exchange.view import View
from tieline.model import event as fact
from tieline.model.job import Run
from tieline.model.plan import Quote
from tieline.model.protocol import Ask, Drain, Offer, Orders, Resync, Stop
from tieline.model.task import Task


def offer_of(view: View, run: Run, now_ms: int) -> Offer:
    """The order that offers ``run`` to its site, as things stand."""
    job = view.jobs[run.job]
    return Offer(
        run=run.id,
        job=job.id,
        epoch=run.epoch,
        pool=run.pool,
        task=job.task,
        alternative=run.alternative,
        user=job.user,
        user_owner=job.user_owner,
        accelerator_count=run.accelerator_count,
        core_count=run.core_count,
        memory_bytes=run.memory_bytes,
        price_micro_cny_per_unit_hour=run.price_micro_cny_per_unit_hour,
        stop_after_s=run.stop_after_s,
        checkpoint=run.checkpoint,
        data_class=data_classes(view, job.task),
        residency=residencies(view, job.task),
        ttl_ms=max(0, run.expires_ms - now_ms),
        state=run.state.value,
    )


def live_orders(view: View, site: str, now_ms: int) -> tuple[Orders, ...]:
    """Everything that a site must know when it opens a session: its live runs, stops and open questions."""
    orders: list[Orders] = []
    for name in view.runs_at.get(site, ()):
        run = view.runs[name]
        orders.append(offer_of(view, run, now_ms))
        if run.is_stop_requested:
            orders.append(Stop(run=run.id, epoch=run.epoch, why="stop requested"))
    orders.extend(
        ask_of(view, quote) for quote in view.quotes.values() if quote.site == site and quote.state == "asked"
    )
    return tuple(orders)


def ask_of(view: View, quote: Quote) -> Ask:
    """The question behind a quote."""
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
        data_class=data_classes(view, quote.task),
        residency=residencies(view, quote.task),
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
        return event.run.site, offer_of(view, event.run, now_ms)
    if isinstance(event, fact.StopRequested):
        run = view.runs.get(event.run)
        return (run.site, Stop(run=run.id, epoch=run.epoch, why=event.why)) if run is not None else None
    if isinstance(event, fact.QuoteChanged) and event.quote.state == "asked":
        return event.quote.site, ask_of(view, event.quote)
    if isinstance(event, fact.SiteChanged):
        if event.site.has_left or event.why.startswith("accept"):
            return event.site.id, Resync(why=event.why)
        if event.why.startswith(("drain", "undrain")):
            return event.site.id, Drain(is_draining=event.site.is_draining)
    return None
