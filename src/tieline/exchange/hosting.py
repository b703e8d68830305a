"""Hosting: runs that users of a peer have here. To us, a peer's offer becomes a job with an origin, like any other job.

It is bound to the one pool that was asked at the price that was asked, with no attempt elsewhere. Our own policy, the
peer's quota and the owner's site must all agree; what does not fit is refused in a report with the reasons, so that one
bad order never stops the others. The same offer again is answered with what there is to say of the run now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice

import msgspec

from tieline.exchange.commands import (
    Decision,
    OfferTaken,
    ReadReports,
    StopJob,
    TakeAnswer,
    TakeOffer,
    TakeRoll,
    TakeStop,
)
from tieline.exchange.guests import Guest, GuestRun
from tieline.exchange.jobs import end_job, new_job, stop_job
from tieline.exchange.permission import no_such
from tieline.exchange.placing import demand_for, plan_demand
from tieline.exchange.runs import lose_run
from tieline.exchange.settlement import answered
from tieline.exchange.showing import may_see
from tieline.exchange.view import View, month_of
from tieline.market import charge_of, unit_seconds_of
from tieline.model.error import TielineError
from tieline.model.event import Events, JobSubmitted, QuoteChanged, UsageAnswered
from tieline.model.job import Job, JobState
from tieline.model.party import Actor, Role
from tieline.model.peer import ANSWER, Origin, Peer, PeerState, UsageAnswer
from tieline.model.plan import Quote
from tieline.model.protocol import Lost, Offer, Refused, ReportPage, Reports
from tieline.model.quantity import show_money
from tieline.model.reason import Reason, Value
from tieline.model.task import Retry, Task
from tieline.place.share import Use, first_over
from tieline.ports import Ids
from tieline.registry import open_statement
from tieline.registry.delegated import opened_token, require

replace = msgspec.structs.replace

MOST_HOPS = 3  # exchanges that an offer may have passed
MOST_UNANSWERED = 10_000  # claims to one peer; more: it gets nothing new until it answers
MOST_NAME = 200
MOST = 2**53 - 1
SHA256 = re.compile(r"[0-9a-f]{64}")
QUOTAS = {"card_count": "cards", "core_count": "cores", "card_hours": "card-hours", "micro_cny": "money"}
MOST_EXPIRED = 1_000  # offers that were not booked in time, of one tick; the others follow at the next
MOST_FENCED = 1_000  # runs that one roll, or one tick, fences; the others follow at the next tick
MOST_STOPPED = 1_000  # runs of one peer that is none any more, asked to stop at one tick; the others follow


def active_peer(view: View, name: str) -> Peer:
    """A peer that may speak now. Raises TielineError `not_found`, or `forbidden` while there is proof against it."""
    peer = view.peers.get(name)
    if peer is None or peer.state is not PeerState.ACTIVE:
        raise no_such("active peer", name)
    if peer.fault is not None:
        raise TielineError("forbidden", f"nothing of `{name}` is taken while it is at fault", reasons=(peer.fault,))
    return peer


# -- offers -----------------------------------------------------------------------------------------------------------


def take_offer(view: View, command: TakeOffer, now_ms: int, ids: Ids) -> Decision:
    """A peer asks for a run here, or says again that it did. Reply: `OfferTaken`."""
    peer = active_peer(view, command.peer)
    offer = command.offer
    guest = view.guests.get(peer.id) or Guest()
    known = guest.runs.get(offer.run)
    if known is not None:
        return Decision((), OfferTaken(reports=_said_of(known, offer)))
    if offer.state != "offered":  # it goes on over there and nobody here knows of it: an older state was restored
        why = Reason(code="run_unknown", values={"run": offer.run[:MOST_NAME]})
        return Decision((), OfferTaken(reports=(Lost(run=offer.run, epoch=offer.epoch, reason=why),)))
    events: list[Events] = _older_fenced(view, guest, offer, now_ms)
    quote = quote_for(view, peer, offer, now_ms)
    try:
        job = _asked_for(view, peer, offer, quote, now_ms, ids)
        reasons = _refusals(view, peer, guest, offer, job, now_ms)
    except TielineError as error:  # what it says cannot be read or proved: refused, with the reason
        reasons = error.reasons or (Reason(code="offer_wrong", values={"why": error.message[:400]}),)
    if reasons:
        refused = Refused(run=offer.run, epoch=offer.epoch, reason=reasons[0])
        return Decision(tuple(events), OfferTaken(reports=(refused,)))
    if quote is not None:
        events.append(QuoteChanged(quote=replace(quote, state="accepted", job=job.id)))
    return Decision((*events, JobSubmitted(job=job)), OfferTaken(run=offer.run, job=job.id))


def _said_of(known: GuestRun, offer: Offer) -> tuple[Reports, ...]:
    """Everything that was told of a run, in order; a name that stands for another attempt is refused."""
    if (known.epoch, known.origin_job) != (offer.epoch, offer.job):
        why = Reason(code="epoch_stale", values={"newest": known.run})
        return (Refused(run=offer.run, epoch=offer.epoch, reason=why),)
    return tuple(each.report for each in known.reports)


def _older_fenced(view: View, guest: Guest, offer: Offer, now_ms: int) -> list[Events]:
    """A newer attempt at the same job of the peer fences the one before it."""
    older = guest.runs.get(guest.newest.get(offer.job, ""))
    return fence(view, older, now_ms) if older is not None and older.epoch < offer.epoch else []


def quote_for(view: View, peer: Peer, offer: Offer, now_ms: int) -> Quote | None:
    """The open quote that an offer is made on, where it keeps to it: user, pool, price, units, and how long."""
    if not offer.quote:
        return None
    quote = next((q for q in view.quotes.values() if (q.origin, q.origin_quote) == (peer.id, offer.quote)), None)
    if quote is None or quote.state != "open" or now_ms >= quote.expires_ms:
        return None
    units = offer.accelerator_count or offer.core_count
    agreed = (quote.user, quote.pool, quote.price_micro_cny_per_unit_hour, quote.unit_count)
    offered = (f"{offer.user}@{peer.prefix}", offer.pool, offer.price_micro_cny_per_unit_hour, units)
    is_in_time = not quote.duration_s or 0 < offer.stop_after_s <= quote.duration_s
    return quote if agreed == offered and is_in_time else None


def hosted_task(task: Task, alternative: int, max_duration_s: int) -> Task:
    """A peer's task as one of ours: that alternative alone, without what its own exchange sees to."""
    return replace(
        task,
        resources=(task.resources[alternative],),
        retry=Retry(),
        priority=min(task.priority, 0),
        deadline_s=0,
        budget_micro_cny=0,
        max_duration_s=max_duration_s,
    )


def _asked_for(view: View, peer: Peer, offer: Offer, quote: Quote | None, now_ms: int, ids: Ids) -> Job:
    """The job that an offer becomes. Raises TielineError when it cannot be read or is not proved by its token."""
    assert view.exchange is not None
    token = opened_token(offer.token, peer.public, by=peer.id, to=view.exchange.id, now_s=now_ms // 1_000)
    require(token, "run", job=offer.job, run=offer.run, pool=offer.pool, user=offer.user)
    user = f"{offer.user}@{peer.prefix}"
    names = (offer.user, offer.run, offer.job, offer.pool)
    if not all(names) or not all(name.isprintable() for name in names) or max(map(len, (*names, user))) > MOST_NAME:
        raise TielineError("invalid_request", "a name in the offer is empty, too long or not printable")
    numbers = (
        offer.epoch, offer.accelerator_count, offer.core_count, offer.memory_bytes, offer.stop_after_s,
        offer.price_micro_cny_per_unit_hour,
    )  # fmt: skip
    if min(numbers) < 0 or max(numbers) > MOST or (offer.checkpoint and not SHA256.fullmatch(offer.checkpoint)):
        raise TielineError("invalid_request", "a number in the offer is out of range, or its checkpoint is no hash")
    if not (token.job and token.run and token.pool) or not 0 <= offer.alternative < len(offer.task.resources):
        raise TielineError("invalid_request", "the offer names no run of its own, or no alternative of its task")
    task = hosted_task(offer.task, offer.alternative, offer.stop_after_s)  # the peer's limits are reckoned into this
    origin = Origin(
        peer=peer.id,
        run=offer.run,
        epoch=offer.epoch,
        job=offer.job,
        user=offer.user,
        token=token.id,
        path=offer.path,
        first_run=offer.first_run,
        data_class=offer.data_class,
        residency=offer.residency,
        offered_ms=offer.offered_ms,
        expires_ms=now_ms + min(offer.ttl_ms, view.limits.peer_offer_ttl_ms),
        accelerator_count=offer.accelerator_count,
        core_count=0 if offer.accelerator_count else offer.core_count,  # as the quota counts them
    )
    actor = Actor(name=user, roles=(Role.USER,), owner=peer.prefix)
    return replace(
        new_job(view, actor, task, now_ms, ids),
        origin=origin,
        quote=quote.id if quote is not None else "",
        eligible_ms=max(now_ms, quote.start_ms) if quote is not None else now_ms,
        quote_pool=offer.pool,
        quote_price_micro_cny=offer.price_micro_cny_per_unit_hour,
        checkpoint=offer.checkpoint,
    )


def _refusals(view: View, peer: Peer, guest: Guest, offer: Offer, job: Job, now_ms: int) -> tuple[Reason, ...]:
    """Why it is not taken; the peer's rights first, then its quota, then the pool itself."""
    return (
        way_wrong(view, peer, offer.path)
        or _first_wrong(offer)
        or _sealed(offer)
        or _rights(view, peer, guest)
        or _quota(view, peer, guest, offer, now_ms)
        or _room(view, peer, offer, job, now_ms)
    )


def way_wrong(view: View, peer: Peer, path: tuple[str, ...]) -> tuple[Reason, ...]:
    """The way of an offer or a question ends with the peer, never comes here twice, and is bounded."""
    assert view.exchange is not None
    shown = " > ".join(path)[:400]
    if not path or path[-1] != peer.id:
        return (Reason(code="path_wrong", values={"path": shown}),)
    if view.exchange.id in path or len(set(path)) < len(path):
        return (Reason(code="path_loops", values={"path": shown}),)
    if len(path) > MOST_HOPS:
        return (Reason(code="path_long", values={"hops": len(path), "most": MOST_HOPS}),)
    return ()


def _first_wrong(offer: Offer) -> tuple[Reason, ...]:
    """What the run is called where it was asked for first: a name that the first exchange of its way gave."""
    exchange, _, name = offer.first_run.partition("#")
    is_named = exchange == offer.path[0] and 0 < len(name) <= MOST_NAME and name.isprintable()
    if is_named and (len(offer.path) > 1 or name == offer.run):
        return ()
    return (Reason(code="offer_wrong", values={"why": f"its first run is `{offer.first_run[:MOST_NAME]}`"}),)


def _sealed(offer: Offer) -> tuple[Reason, ...]:
    """Secrets come sealed to the site, with the offer, or not at all: there is nobody to be asked for them later."""
    task = offer.task
    return () if bool(offer.sealed) == bool(task.secrets or task.token) else (Reason(code="secrets_missing"),)


def _rights(view: View, peer: Peer, guest: Guest) -> tuple[Reason, ...]:
    if not peer.may_use:
        return (Reason(code="use_not_granted", values={"exchange": peer.id}),)
    if len(guest.unanswered) >= MOST_UNANSWERED:
        return (Reason(code="claims_waiting", values={"claims": len(guest.unanswered), "exchange": peer.id}),)
    if len(view.jobs) >= view.limits.live_jobs:
        return (Reason(code="offer_wrong", values={"why": f"{len(view.jobs):,} jobs wait or run here"}),)
    return ()


def _quota(view: View, peer: Peer, guest: Guest, offer: Offer, now_ms: int) -> tuple[Reason, ...]:
    """The peer's quota: cards and cores of its live runs, card-hours and money of this month with what may come.

    What a live run may still cost counts as far as it is bounded by time.
    """
    quota = peer.quota
    asked_ms = asked_micro_cny = 0
    if offer.stop_after_s:
        units = offer.accelerator_count or offer.core_count
        asked_ms = offer.accelerator_count * offer.stop_after_s * 1_000
        price = offer.price_micro_cny_per_unit_hour
        asked_micro_cny = charge_of(unit_seconds_of(units, offer.stop_after_s * 1_000), price).charge_micro_cny
    asked_cores = 0 if offer.accelerator_count else offer.core_count
    asked_ms = max(1, asked_ms) if offer.accelerator_count else 0
    asked = Use(offer.accelerator_count, asked_cores, asked_ms, max(1, asked_micro_cny))
    used = Use(guest.accelerator_count, guest.core_count)
    if quota.card_hours or quota.micro_cny:
        spent = view.spent.get((peer.id, month_of(now_ms)))
        card_ms, micro_cny = (spent.card_ms, spent.charge_micro_cny) if spent is not None else (0, 0)
        held_ms, held_micro_cny = _to_come(view, guest)
        used = used._replace(card_ms=card_ms + held_ms, micro_cny=micro_cny + held_micro_cny)
    over = first_over(quota, used, asked, may_borrow=False)
    if over is None:
        return ()
    what = QUOTAS[over.what]
    amounts: dict[str, Value] = {"limit": over.bound, "held": over.used, "asked": over.asked}
    if what == "money":
        amounts = {name: f"{show_money(int(amount))} CNY" for name, amount in amounts.items()}
    if over.asked > over.bound:
        amounts["beyond"] = 1  # it never fits: no need to ask again soon
    return (Reason(code="peer_quota", values={"exchange": peer.id, "what": what, **amounts}),)


def _to_come(view: View, guest: Guest) -> tuple[int, int]:
    """Card-milliseconds and micro-yuan that the peer's live runs may still take, as far as they are bounded."""
    card_ms = micro_cny = 0
    for name in guest.live:
        run = guest.runs[name]
        job = view.jobs.get(run.job)
        if job is not None:
            card_ms += run.accelerator_count * job.task.max_duration_s * 1_000
            micro_cny += job.held_micro_cny
    return card_ms, micro_cny


def _room(view: View, peer: Peer, offer: Offer, job: Job, now_ms: int) -> tuple[Reason, ...]:
    """Whether the pool is what the peer thinks it is, and takes the job now."""
    row = view.supply.pools.get(offer.pool)
    if row is None:
        return (Reason(code="pool_not_here", values={"pool": offer.pool}),)
    if not may_see(row, peer):
        return (Reason(code="access_partner" if row.spec.access == "partner" else "access_private"),)
    listed = row.price_micro_cny_per_unit_hour
    if offer.price_micro_cny_per_unit_hour < listed and offer.quote and not job.quote:
        return (Reason(code="quote_not_open", values={"quote": offer.quote[:MOST_NAME], "pool": offer.pool}),)
    if offer.price_micro_cny_per_unit_hour < listed and not job.quote:
        values: dict[str, Value] = {
            "pool": offer.pool,
            "listed_micro_cny": listed,
            "offered_micro_cny": offer.price_micro_cny_per_unit_hour,
        }
        return (Reason(code="price_differs", values=values),)
    plan = plan_demand(view, demand_for(view, job, now_ms), now_ms)
    view.supply.demands.pop(job.id, None)  # it is no job yet
    if not plan.candidates:
        return plan.reasons or (Reason(code="no_pools"),)
    offered = offer.accelerator_count if row.sells_accelerators else offer.core_count
    booked = plan.candidates[0].unit_count
    if booked != offered or (offer.accelerator_count and not row.sells_accelerators):
        return (Reason(code="units_differ", values={"pool": offer.pool, "booked": booked, "offered": offered}),)
    return ()


# -- stops ------------------------------------------------------------------------------------------------------------


def take_stop(view: View, command: TakeStop, now_ms: int, ids: Ids) -> Decision:
    """A peer wants its run to end, or fenced it. Reply: the reports of a run that is over; of a live one, nothing."""
    peer = active_peer(view, command.peer)
    run = _run_of(view, peer.id, command.run)
    if run is None or run.epoch != command.epoch:
        return Decision((), ())
    if not run.is_live:
        return Decision((), tuple(each.report for each in run.reports))
    if command.is_fenced:
        return Decision(tuple(fence(view, run, now_ms)), ())
    return Decision(stop_guest(view, run, command.why or f"asked by {peer.id}", now_ms, ids), ())


def take_roll(view: View, command: TakeRoll, now_ms: int, ids: Ids) -> Decision:
    """A peer names every run that it believes to be here: the others, if they were offered before that, are fenced.

    Reply: those that are fenced at once, `MOST_FENCED` at most. The next ticks see to the rest, as many each; what
    is left of it when this exchange restarts is found by the next roll.
    """
    peer = active_peer(view, command.peer)
    guest = view.guests.get(peer.id)
    if guest is None:
        return Decision((), ())
    named = dict.fromkeys(command.roll.runs)
    unnamed = [name for name in guest.live if name not in named and guest.runs[name].offered_ms < command.roll.at_ms]
    for name in [name for name in guest.unnamed if name in named]:
        del guest.unnamed[name]
    guest.unnamed.update(dict.fromkeys(unnamed[MOST_FENCED:]))
    fenced = unnamed[:MOST_FENCED]
    events: list[Events] = []
    for name in fenced:
        events.extend(fence(view, guest.runs[name], now_ms))
    return Decision(tuple(events), tuple(fenced))


def fence(view: View, run: GuestRun, now_ms: int) -> list[Events]:
    """End a run of a peer that will not take its end: it bills nothing, and is lost to the peer."""
    job = view.jobs[run.job]
    why = Reason(code="run_fenced", values={"exchange": run.peer, "run": run.run})
    live = view.runs.get(job.run)
    if live is None:
        return end_job(view, job, JobState.CANCELLED, (why,), now_ms)
    return lose_run(view, live, now_ms, "run_fenced", {"exchange": run.peer, "run": run.run})


def stop_guest(view: View, run: GuestRun, why: str, now_ms: int, ids: Ids) -> tuple[Events, ...]:
    """Ask for the end of a peer's run, checkpoint first."""
    job = view.jobs[run.job]
    if job.is_cancel_requested:
        return ()
    actor = Actor(name=run.peer, roles=(Role.ADMIN,))
    return stop_job(view, StopJob(actor=actor, job=job.id, why=why[:400]), now_ms, ids).events


def _run_of(view: View, peer: str, name: str) -> GuestRun | None:
    guest = view.guests.get(peer)
    return guest.runs.get(name) if guest is not None else None


# -- reports and answers ----------------------------------------------------------------------------------------------


def read_reports(view: View, command: ReadReports, now_ms: int, ids: Ids) -> Decision:
    """The next reports to a peer; all that are kept, where it knows another list than ours."""
    peer = active_peer(view, command.peer)
    assert view.exchange is not None
    session = view.exchange.session
    after = command.after if command.session == session else 0
    guest = view.guests.get(peer.id)
    reports, is_more = guest.after(after, min(command.most, 256)) if guest is not None else ((), False)
    return Decision((), ReportPage(session=session, reports=reports, is_more=is_more))


def take_answer(view: View, command: TakeAnswer, now_ms: int, ids: Ids) -> Decision:
    """Keep what a peer signed of a claim of ours; the first sound answer stands.

    Raises TielineError `unauthenticated` or `conflict`; then the claim stays unanswered.
    """
    peer = active_peer(view, command.peer)
    said, _ = open_statement(command.answer.encode(), ANSWER, UsageAnswer)
    guest = view.guests.get(peer.id)
    run = guest.runs.get(guest.unanswered.get(said.run, "")) if guest is not None else None
    if run is None or run.usage is None:
        return Decision()
    return Decision((UsageAnswered(usage=answered(run.usage, command.answer, peer.public)),))


# -- time -------------------------------------------------------------------------------------------------------------


def guests_due(view: View, over: Mapping[str, None], now_ms: int, ids: Ids) -> list[Events]:
    """Offers that found no place in time, and everything of peers that are peers no more; not the jobs in ``over``."""
    events: list[Events] = []
    for peer, guest in view.guests.items():
        late = [
            name
            for name, expires_ms in guest.waiting.items()
            if now_ms >= expires_ms and guest.runs[name].job not in over
        ][:MOST_EXPIRED]
        for name in late:
            job = view.jobs[guest.runs[name].job]
            if job.state is JobState.QUEUED:
                why = Reason(code="offer_expired", values={"site": job.quote_pool, "run": name})
                events.extend(end_job(view, job, JobState.FAILED, (*job.reasons, why), now_ms))
        gone = dict.fromkeys(late)
        for name in _unnamed(guest, gone, over):
            gone[name] = None
            events.extend(fence(view, guest.runs[name], now_ms))
        if guest.live and view.peers[peer].state is not PeerState.ACTIVE:
            events.extend(_without_peer(view, guest, gone, over, now_ms, ids))
    return events


def _unnamed(guest: Guest, gone: Mapping[str, None], over: Mapping[str, None]) -> list[str]:
    """The next runs that the peer's roll did not name, as far as they still live and nothing else ends them now."""
    for name in [name for name in guest.unnamed if name not in guest.live]:
        del guest.unnamed[name]
    due = (name for name in guest.unnamed if name not in gone and guest.runs[name].job not in over)
    return list(islice(due, MOST_FENCED))


def _without_peer(
    view: View, guest: Guest, gone: Mapping[str, None], over: Mapping[str, None], now_ms: int, ids: Ids
) -> list[Events]:
    """The next runs of a peer that is none any more are asked to stop."""
    events: list[Events] = []
    asked = 0
    for name in guest.live:
        if asked == MOST_STOPPED:
            break
        if name not in gone and guest.runs[name].job not in over:
            found = stop_guest(view, guest.runs[name], "it is no peer any more", now_ms, ids)
            events.extend(found)
            asked += bool(found)
    return events
