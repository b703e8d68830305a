"""Planted mistakes: switches that break the product in one place for one run, each of which the checks must notice.

A check that finds nothing may be a check that looks at nothing. `tieline sim run --planted NAME` plays with a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from tieline.drivers.stores import writer as writing
from tieline.drivers.stores.inbox import deliver
from tieline.exchange import (
    effects,
    gangs,
    jobs,
    line,
    offering,
    preempting,
    projection,
    runs,
    sites,
    supply,
    ticking,
    view,
)
from tieline.exchange.supply import amount_of
from tieline.market import usage_of
from tieline.model.error import TielineError
from tieline.model.event import RunOffered
from tieline.model.job import JobState, Run
from tieline.model.protocol import Accepted, Ended
from tieline.place import share
from tieline.registry import admission, authority, catalogue, envelope, intake
from tieline.sim import exchange as sim_exchange
from tieline.sim import site as sim_site
from tieline.site import admission as site_admission
from tieline.site import instruction as told
from tieline.site.capacity import Free

replace = msgspec.structs.replace


class Patch:
    """Changes that are taken back in the end."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def put(self, where: Any, name: str, what: Any) -> Any:
        """Replace ``where.name``; gives what was there."""
        before = getattr(where, name)
        self._before.append((where, name, before))
        setattr(where, name, what)
        return before

    def undo(self) -> None:
        """As it was."""
        while self._before:
            where, name, before = self._before.pop()
            setattr(where, name, before)


class Mistake(NamedTuple):
    """What is broken, and the invariants of which one must say so."""

    told: str
    found_by: tuple[str, ...]
    plant: Callable[[Patch], None]


def _nothing(*_: Any, **__: Any) -> None:
    return None


# -- the exchange ------------------------------------------------------------------------------------------------------


def _answer_first(patch: Patch) -> None:
    def commit(self: Any, items: Any, draft: Any) -> None:
        deliver(draft.answers)
        before(self, items, draft)

    before = patch.put(writing.Writer, "_commit", commit)


def _forget_answers(patch: Patch) -> None:
    patch.put(writing.Writer, "_stored_replies", lambda _self, _items: {})


def _drop_fence(patch: Patch) -> None:
    def judge(seen: Any, site: str, report: Any, now_ms: int) -> Any:
        run = seen.runs.get(getattr(report, "run", ""))
        return before(seen, site, replace(report, epoch=run.epoch) if run is not None else report, now_ms)

    before = patch.put(runs, "judge", judge)


def _believe_anybody(patch: Patch) -> None:
    def judge(seen: Any, site: str, report: Any, now_ms: int) -> Any:
        run = seen.runs.get(getattr(report, "run", ""))
        return before(seen, run.station if run is not None else site, report, now_ms)

    before = patch.put(runs, "judge", judge)


def _bill_lost(patch: Patch) -> None:
    def lose(seen: Any, run: Run, now_ms: int, code: str, *more: Any) -> list[Any]:
        first, *rest = before(seen, run, now_ms, code, *more)
        usage = usage_of(run, duration_ms=max(0, now_ms - run.accepted_ms), ended_ms=now_ms)
        return [replace(first, usage=usage), *rest]

    before = patch.put(runs, "lose_run", lose)
    patch.put(sites, "lose_run", lose)
    patch.put(ticking, "lose_run", lose)


def _forget_holds(patch: Patch) -> None:
    patch.put(supply.Supply, "hold_again", _nothing)
    patch.put(supply.Supply, "release", lambda self, _run: setattr(self, "version", self.version + 1))


def _offer_twice(patch: Patch) -> None:
    def schedule(seen: Any, now_ms: int, ids: Any, limit: int) -> list[Any]:
        events: list[Any] = list(before(seen, now_ms, ids, limit))
        if not events and seen.runs and now_ms % 7 == 0:
            run = next(iter(seen.runs.values()))
            free = seen.supply.pools.free(run.pool)
            if any(less < want for less, want in zip(free, amount_of(run), strict=True)):
                return events
            epoch = run.epoch + 1
            again = replace(run, id=f"{run.id.rpartition('.')[0]}.{epoch}", epoch=epoch)
            events.append(RunOffered(run=replace(again, state=type(run.state)("offered"), offered_ms=now_ms)))
        return events

    before = patch.put(sim_exchange, "schedule", schedule)
    patch.put(view, "JOB_NEXT", {state: tuple(JobState) for state in JobState})  # else the view objects itself


def _ignore_budget(patch: Patch) -> None:
    patch.put(offering, "stop_after_s", lambda **_: 0)
    patch.put(offering, "hold_of", lambda **_: 0)


def _pay_claims(patch: Patch) -> None:
    def usage(_view: Any, _job: Any, run: Run, report: Any, now_ms: int) -> Any:
        return usage_of(run, duration_ms=report.duration_ms, ended_ms=now_ms)

    patch.put(runs, "_usage", usage)


def _pay_peers(patch: Patch) -> None:
    def settle(terms: Any, run: Run, receipt: str, _held: int, now_ms: int) -> Any:
        return before(terms, replace(run, offered_ms=0, accepted_ms=0), receipt, 0, now_ms)

    before = patch.put(runs, "settle", settle)


def _lose_answers(patch: Patch) -> None:
    patch.put(line, "payments_of", lambda _peer, _claims: ())


def _forget_steps(patch: Patch) -> None:
    def ended(seen: Any, event: Any, now_ms: int) -> None:
        seen.dependents.pop(event.job, None)
        before(seen, event, now_ms)

    kind = next(each for each in effects.APPLY if each.__name__ == "JobEnded")
    before = effects.APPLY[kind]
    patch.put(view, "APPLY", {**effects.APPLY, kind: ended})


def _keep_offers(patch: Patch) -> None:
    def lose(seen: Any, run: Run, now_ms: int, code: str) -> list[Any]:
        return [] if code == "offer_expired" else before(seen, run, now_ms, code)

    before = patch.put(ticking, "lose_run", lose)


def _say_nothing(patch: Patch) -> None:
    def end(seen: Any, job: Any, state: Any, reasons: Sequence[Any], *rest: Any, **more: Any) -> Any:
        return [replace(each, reasons=()) for each in before(seen, job, state, reasons, *rest, **more)]

    before = patch.put(jobs, "end_job", end)
    patch.put(runs, "end_job", end)
    patch.put(ticking, "end_job", end)


# -- gangs ------------------------------------------------------------------------------------------------------------


def _start_alone(patch: Patch) -> None:
    patch.put(runs, "WAIT", runs.OK)


def _leave_others(patch: Patch) -> None:
    patch.put(gangs, "stops_of", lambda *_: [])


def _keep_joins(patch: Patch) -> None:
    patch.put(gangs, "_joins_over", lambda *_: [])


def _forget_gangs(patch: Patch) -> None:
    patch.put(projection, "_load_gangs", _nothing)


# -- the registry ------------------------------------------------------------------------------------------------------


def _skip_signature(patch: Patch) -> None:
    patch.put(catalogue, "check_signature", _nothing)


def _believe_beats(patch: Patch) -> None:
    patch.put(envelope, "check_signature", _nothing)


def _raise_dead(patch: Patch) -> None:
    patch.put(admission, "check_tombstone", _nothing)


def _trust_relay(patch: Patch) -> None:
    patch.put(intake, "check_signature", _nothing)


def _take_older(patch: Patch) -> None:
    patch.put(catalogue, "check_succession", _nothing)


def _keep_first(patch: Patch) -> None:
    patch.put(intake, "prevails", lambda fresh, held: fresh.rev > held.rev)


def _ignore_revocation(patch: Patch) -> None:
    patch.put(authority, "check_revocation", _nothing)


# -- the site ----------------------------------------------------------------------------------------------------------


def _start_early(patch: Patch) -> None:
    def step(state: Any, what: Any, now_ms: int) -> Any:
        after, instructions = before(state, what, now_ms)
        for each in list(instructions):
            if isinstance(each, told.Send) and isinstance(each.report, Accepted):
                instructions.append(told.Start(held=after.runs[each.report.run]))
        return after, instructions

    before = patch.put(sim_site, "step", step)


def _skip_journal(patch: Patch) -> None:
    def step(state: Any, what: Any, now_ms: int) -> Any:
        after, instructions = before(state, what, now_ms)
        return after, [each for each in instructions if not (isinstance(each, told.Persist) and each.is_durable)]

    before = patch.put(sim_site, "step", step)


def _count_nothing(patch: Patch) -> None:
    patch.put(site_admission, "free_of", lambda _state, pool: Free(pool.devices, pool.core_count, pool.memory_bytes))


def _forget_ends(patch: Patch) -> None:
    def step(state: Any, what: Any, now_ms: int) -> Any:
        after, instructions = before(state, what, now_ms)
        ends = [each for each in instructions if isinstance(each, told.Send) and isinstance(each.report, Ended)]
        if ends:
            gone = [each.report.run for each in ends if isinstance(each.report, Ended)]
            after = replace(
                after,
                runs={name: held for name, held in after.runs.items() if name not in gone},
                owed={name: held for name, held in after.owed.items() if name not in gone},
            )
        return after, [each for each in instructions if each not in ends]

    before = patch.put(sim_site, "step", step)


# -- projects ----------------------------------------------------------------------------------------------------------


def _lend_for_ever(patch: Patch) -> None:
    patch.put(preempting.Preempting, "make_way", lambda _self, _row, _demand: [])


def _blame_who_gave_way(patch: Patch) -> None:
    def again(*given: Any, **more: Any) -> Any:
        return before(*given, **{**more, "is_preempted": False})

    before = patch.put(runs, "again_or_end", again)


def _forget_quotas(patch: Patch) -> None:
    patch.put(share.Shares, "refusal", _nothing)


MISTAKES: dict[str, Mistake] = {
    "start-alone": Mistake(
        "a member of a gang may start before the others are accepted",
        ("no member starts before all are accepted",),
        _start_alone,
    ),
    "leave-others": Mistake(
        "nobody is asked to end when another member of its gang has ended badly",
        ("when one ends badly no other goes on for long",),
        _leave_others,
    ),
    "keep-joins": Mistake(
        "the circuits of a gang stay when it is over", ("no circuit lives without its gang",), _keep_joins
    ),
    "forget-gangs": Mistake(
        "a restart forgets which gangs are being ended",
        ("a restart changes nothing", "every waiting job is explained"),
        _forget_gangs,
    ),
    "lend-for-ever": Mistake(
        "borrowers give nothing back", ("nobody below its share waits for a borrower",), _lend_for_ever
    ),
    "blame-who-gave-way": Mistake(
        "giving way counts as an attempt", ("who gives way loses nothing",), _blame_who_gave_way
    ),
    "forget-quotas": Mistake("no quota of a project is looked at", ("a project keeps its quotas",), _forget_quotas),
    "answer-first": Mistake(
        "the writer answers before it keeps",
        ("what is acknowledged is kept", "no acknowledged job is lost"),
        _answer_first,
    ),
    "forget-answers": Mistake("a repeated request is decided again", ("a request is taken once",), _forget_answers),
    "drop-fence": Mistake(
        "the epoch of a report is not compared",
        ("a fenced report is not taken", "a fenced run bills nothing"),
        _drop_fence,
    ),
    "believe-anybody": Mistake(
        "a report of another site is believed", ("a fenced report is not taken",), _believe_anybody
    ),
    "bill-lost": Mistake("a lost run is billed", ("a fenced run bills nothing",), _bill_lost),
    "forget-holds": Mistake(
        "bookings are forgotten at a restart",
        ("a restart changes nothing", "holds are those of the books", "no pool is booked twice"),
        _forget_holds,
    ),
    "offer-twice": Mistake("a job that is booked is offered again", ("a job has one live run",), _offer_twice),
    "ignore-budget": Mistake("no run is stopped for its budget", ("a budget is never exceeded",), _ignore_budget),
    "pay-claims": Mistake(
        "what a site claims is paid unseen",
        ("nobody pays for more than was seen", "a budget is never exceeded"),
        _pay_claims,
    ),
    "pay-peers": Mistake(
        "what a peer claims is paid unseen",
        ("nobody pays for more than was seen", "a budget is never exceeded"),
        _pay_peers,
    ),
    "lose-answers": Mistake("what is paid of a claim is not kept", ("a claim is answered",), _lose_answers),
    "forget-steps": Mistake(
        "the next step of a pipeline is not told", ("no job waits for what is over",), _forget_steps
    ),
    "keep-offers": Mistake(
        "an offer that nobody answers never ends", ("what runs comes to an end", "everything settles"), _keep_offers
    ),
    "say-nothing": Mistake("jobs end without a reason", ("a job that did not succeed says why",), _say_nothing),
    "skip-signature": Mistake(
        "a record's signature is not checked", ("no record without a valid chain",), _skip_signature
    ),
    "believe-beats": Mistake(
        "a heartbeat's signature is not checked", ("a forged heartbeat is not heard",), _believe_beats
    ),
    "raise-dead": Mistake("a withdrawn record may come back", ("a withdrawn record stays withdrawn",), _raise_dead),
    "take-older": Mistake(
        "an older revision is taken", ("revisions only grow", "a withdrawn record stays withdrawn"), _take_older
    ),
    "keep-first": Mistake(
        "of two payloads of one revision the one that came first is kept", ("catalogues converge",), _keep_first
    ),
    "trust-relay": Mistake("a copy is taken as the relay gives it", ("no record without a valid chain",), _trust_relay),
    "ignore-revocation": Mistake("a revoked key goes on speaking", ("a revoked key says nothing",), _ignore_revocation),
    "start-early": Mistake(
        "a site starts what it was not given yet", ("nothing starts before the exchange's ok",), _start_early
    ),
    "skip-journal": Mistake(
        "a site accepts what it has not written down", ("what is accepted is journalled",), _skip_journal
    ),
    "count-nothing": Mistake(
        "a site gives away what it has given",
        ("no card is sold twice", "no core or byte is sold twice"),
        _count_nothing,
    ),
    "forget-ends": Mistake(
        "a site forgets to say how a run ended",
        ("what runs comes to an end", "everything settles", "nothing is forgotten while it runs"),
        _forget_ends,
    ),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The product with one mistake in it; with an empty ``name``, as it is. Raises TielineError for no such mistake."""
    if name and name not in MISTAKES:
        raise TielineError(
            "invalid_request", f"there is no planted mistake `{name}`", hints=(f"one of {', '.join(MISTAKES)}",)
        )
    patch = Patch()
    try:
        if name:
            MISTAKES[name].plant(patch)
        yield
    finally:
        patch.undo()
