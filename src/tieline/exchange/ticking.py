"""Time passing: leases, offers, quotes and deadlines end here and nowhere else."""

from __future__ import annotations

from tieline.exchange.branches import branches_due
from tieline.exchange.bringing import brought_due
from tieline.exchange.calendar import bookings_due
from tieline.exchange.commands import Decision, Tick
from tieline.exchange.gangs import gangs_due
from tieline.exchange.hosting import guests_due
from tieline.exchange.jobs import end_job
from tieline.exchange.quotes import expired_quotes
from tieline.exchange.runs import lose_run
from tieline.exchange.sharing import look_again
from tieline.exchange.sites import silent_sites
from tieline.exchange.view import View
from tieline.model.event import CircuitChanged, Events, JobEnded, RunEnded
from tieline.model.job import JobState
from tieline.model.reason import Reason
from tieline.ports import Ids

MOST_ENDED = 1_000  # jobs whose deadline is over, of one tick; the others follow at the next


def tick(view: View, command: Tick, now_ms: int, ids: Ids) -> Decision:
    """Everything that is due. Each run and each job is touched by one rule at most."""
    if view.exchange is None:
        return Decision()
    look_again(view, now_ms)
    view.readings.turn(now_ms)
    view.supply.version += view.readings.has_news()  # a job may wait for a way that nobody had measured
    events: list[Events] = [*silent_sites(view, now_ms), *branches_due(view, now_ms)]
    gone = {event.run for event in events if isinstance(event, RunEnded)}
    for name in tuple(view.offered):
        run = view.runs[name]
        if name not in gone and now_ms >= run.expires_ms:
            gone.add(name)
            events.extend(lose_run(view, run, now_ms, "offer_expired"))
    changed = {view.runs[name].job for name in gone}
    gangs = gangs_due(view, now_ms, changed)
    events.extend(gangs)
    ended = {event.job: None for event in events if isinstance(event, JobEnded)}
    events.extend(_deadlines(view, now_ms, ended))
    events.extend(guests_due(view, ended, now_ms, ids))
    events.extend(expired_quotes(view, now_ms))
    over = brought_due(view, now_ms)
    events.extend(over or _beside(gangs, bookings_due(view, now_ms)))
    return Decision(tuple(events))


def _beside(gangs: list[Events], bookings: list[Events]) -> list[Events]:
    """What becomes of bookings by time, but for circuits that end with their gang in the same tick."""
    ended = {event.circuit.id for event in gangs if isinstance(event, CircuitChanged)}
    return [event for event in bookings if not (isinstance(event, CircuitChanged) and event.circuit.id in ended)]


def _deadlines(view: View, now_ms: int, ended: dict[str, None]) -> list[Events]:
    """What waits beyond its deadline ends; ``ended`` holds the jobs that this tick has ended, and gets those too."""
    events: list[Events] = []
    for row in view.waiting.overdue(now_ms, MOST_ENDED):
        if row.id in ended:
            continue
        why = Reason(code="deadline_missed", values={"earliest_us": (now_ms - row.deadline_ms) * 1000})
        for event in end_job(view, view.jobs[row.id], JobState.FAILED, (why,), now_ms):
            if event.subject not in ended:
                ended[event.subject] = None
                events.append(event)
    return events
