"""Whatever is asked of an exchange, in whatever order: its books stay right. And the checker finds planted mistakes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from exchange_ledger import Ledger
from exchange_world import ADMIN, ALICE, PREFIX, World, task
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.exchange import runs, sites, ticking
from tieline.exchange.commands import ChangeSite, StopJob, TakeReport, Tick, WhyJob
from tieline.exchange.decide import decide
from tieline.exchange.projection import ROW, load, rows
from tieline.exchange.supply import Supply
from tieline.exchange.view import View
from tieline.market import bills_of, usage_of
from tieline.model.error import TielineError
from tieline.model.event import RunEnded
from tieline.model.job import JobState, Run, RunState
from tieline.model.protocol import Accepted, CheckpointKept, Ended, PoolBeat, Quoted, Refused, Started
from tieline.model.reason import Reason
from tieline.model.task import Checkpoint, Resources, Retry

GB = 10**9
SITES = (("lab7", "gz1", 4, 0, 3_600_000), ("lab8", "sh1", 8, 0, 7_200_001), ("lab9", "bj1", 8, 4, 9_999_999))
OPS = (
    "submit", "submit", "submit", "pipeline", "impossible", "accept", "accept", "start", "start", "end", "end", "fail",
    "refuse", "checkpoint", "repeat", "forge", "pass", "pass", "silence", "open", "drain", "stop", "quote", "answer",
    "take", "shrink", "restart",
)  # fmt: skip
Op = tuple[str, int, int]


class Checked(World):
    """A world whose every event and answer is checked by the second books, and whose state is read back at will."""

    def __post_init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[Any, int]] = []
        self.said: list[tuple[str, Any]] = []
        self.reported = 0
        self.ledger = Ledger({f"{PREFIX}.{o}/pool/{s}": (a, c, 64 * GB) for o, s, c, a, _ in SITES})
        self.faults: Counter[str] = Counter()
        super().__post_init__()
        self.names = [
            self.join(
                owner,
                site,
                core_count=cores,
                memory_bytes=64 * GB,
                price_micro_cny_per_accelerator_hour=price,
                **({"accelerator": "a100", "accelerator_count": cards} if cards else {}),
            )
            for owner, site, cores, cards, price in SITES
        ]

    def do(self, command: Any) -> Any:
        try:
            return super().do(command)
        except TielineError as error:
            if error.code in ("unplaceable", "kind_not_offered"):
                self.ledger.hold_true("every refusal has a reason", bool(error.reasons), error)
            raise
        finally:
            for table, key, row in rows(self.view):
                if row is None:
                    self.tables.setdefault(table, {}).pop(key, None)
                else:
                    self.tables.setdefault(table, {})[key] = row

    def take(self, events: Iterable[Any], now_ms: int) -> None:
        for event in events:
            self.view.apply(event, now_ms)
            self.events.append(event)
            self.log.append((event, now_ms))
            self.ledger.take(event)
            if isinstance(event, RunEnded) and event.usage is not None:
                self.ledger.hold_true("the view's sum is the books'", self._charged() == self.view.charged_micro_cny)

    def _charged(self) -> int:
        return sum(usage.charge_micro_cny for usage in self.ledger.usages.values())

    # -- what may happen ----------------------------------------------------------------------------------------------

    def play(self, ops: Sequence[Op]) -> None:
        """Each operation, then what must hold between any two of them."""
        for name, one, two in ops:
            self.faults[name] += 1
            try:
                getattr(self, f"op_{name}")(one, two)
            except TielineError as error:
                assert error.code != "internal", error  # noqa: PT017 - a refusal is an answer
            self.compare()
        self.close()

    def compare(self) -> None:
        """Every acknowledged job is live or has ended, and what is held is what live runs hold."""
        self.ledger.hold_true("no acknowledged job is lost", set(self.view.jobs) == set(self.ledger.waiting))
        live = {run for run in self.ledger.runs if run not in self.ledger.over}
        self.ledger.hold_true("live runs are those of the books", set(self.view.runs) == live)
        for pool in self.ledger.capacity:
            held = tuple(self.view.supply.pools.held(pool))
            self.ledger.hold_true("holds are those of the books", held == self.ledger.held.get(pool, (0, 0, 0)), pool)

    def close(self) -> None:
        """Reasons, bills, replay and reload."""
        for name, job in list(self.view.jobs.items()):
            if job.state is JobState.QUEUED and not job.after:
                why = self.do(WhyJob(actor=ALICE, job=name))
                self.ledger.hold_true("why has an answer", bool(why.reasons or why.plan), name)
        usages = list(self.ledger.usages.values())
        for side in ("owner", "user"):
            total = sum(bill.charge_micro_cny for bill in bills_of(usages, side))
            self.ledger.hold_true("bills add up", total == self.view.charged_micro_cny, side)
        again = View(self.keys)
        for event, now_ms in self.log:
            again.apply(event, now_ms)
        self.ledger.hold_true("replay gives the same view", picture(again) == picture(self.view))
        self.ledger.hold_true("the projections load to the same view", picture(self.reloaded()) == picture(self.view))

    def reloaded(self) -> View:
        """A view as a restart fills it."""
        view = View(self.keys)
        tables = {name: list(self.tables.get(name, {}).values()) for name in ROW}
        tables["job"].sort(key=lambda row: row["submitted_ms"])
        tables["run"].sort(key=lambda row: row["offered_ms"])
        load(view, tables, self.clock.now_ms())
        return view

    def a_run(self, pick: int, *states: RunState) -> Run | None:
        found = [run for run in self.view.runs.values() if not states or run.state in states]
        return found[pick % len(found)] if found else None

    def say(self, site: str, report: Any) -> Any:
        """A report of a site; one that is not of the newest run of its job must change nothing."""
        run = self.view.runs.get(getattr(report, "run", ""))
        is_fenced = run is not None and (run.epoch != report.epoch or run.site != site)
        self.said.append((site, report))
        command = TakeReport(site=site, report=report)
        if is_fenced or (run is None and not isinstance(report, Quoted)):
            decision = decide(self.view, command, self.clock.now_ms(), self.ids)
            self.ledger.hold_true("a fenced report changes nothing", not decision.events, report)
            self.ledger.hold_true(
                "a fenced report is not taken", not (is_fenced and decision.reply.is_ok), (report, decision.reply)
            )
        return self.do(command)

    def op_submit(self, one: int, two: int) -> None:
        cards = {"accelerator": "a100", "accelerator_count": 1 + two % 4} if one % 4 == 0 else {}
        self.submit(
            task(
                resources=(Resources(core_count=1 + one % 5, memory_bytes=(two % 3) * GB, **cards),),
                retry=Retry(limit=two % 3, on_exit_codes=(75,) if one % 2 else ()),
                max_duration_s=(0, 0, 60)[one % 3],
                budget_micro_cny=(0, 0, 900_000)[two % 3],
                deadline_s=(0, 0, 0, 20)[two % 4],
                priority=one % 3,
                checkpoint=Checkpoint(path="ckpt") if one % 3 == 0 else None,
            )
        )

    def op_pipeline(self, one: int, two: int) -> None:
        self.submit(*(task(f"s{at}", cores=1 + two % 3) for at in range(2 + one % 2)))

    def op_impossible(self, one: int, two: int) -> None:
        before = len(self.log)
        with pytest.raises(TielineError):
            self.submit(task(), task(cores=100 + two))
        self.ledger.hold_true("a refusal changes nothing", len(self.log) == before)

    def op_accept(self, one: int, two: int) -> None:
        if run := self.a_run(one, RunState.OFFERED):
            self.say(run.site, Accepted(run=run.id, epoch=run.epoch, sandbox="bubblewrap", network="host"))

    def op_start(self, one: int, two: int) -> None:
        if run := self.a_run(one, RunState.ACCEPTED):
            self.say(run.site, Started(run=run.id, epoch=run.epoch, at_ms=self.clock.now_ms()))

    def op_end(self, one: int, two: int) -> None:
        if run := self.a_run(one):
            state = ("succeeded", "stopped")[two % 5 == 4]
            self.say(run.site, Ended(run=run.id, epoch=run.epoch, state=state, exit_codes=(0,), duration_ms=two * 997))

    def op_fail(self, one: int, two: int) -> None:
        if run := self.a_run(one, RunState.RUNNING, RunState.ACCEPTED):
            code = (1, 75, 137)[two % 3]
            fields = {"exit_codes": (code,), "duration_ms": 1_000, "is_start_failure": two % 4 == 3}
            self.say(run.site, Ended(run=run.id, epoch=run.epoch, state="failed", **fields))

    def op_refuse(self, one: int, two: int) -> None:
        if run := self.a_run(one, RunState.OFFERED):
            self.say(run.site, Refused(run=run.id, epoch=run.epoch, reason=Reason(code="policy_not_met")))

    def op_checkpoint(self, one: int, two: int) -> None:
        if run := self.a_run(one, RunState.RUNNING):
            self.say(run.site, CheckpointKept(run=run.id, epoch=run.epoch, sha256=f"{two:064x}"))

    def op_repeat(self, one: int, two: int) -> None:
        """A report from any time before, once more: late, doubled or out of order."""
        if self.said:
            site, report = self.said[one % len(self.said)]
            self.say(site, report)

    def op_forge(self, one: int, two: int) -> None:
        """A report about a live run under another epoch, or by another site."""
        run = self.a_run(one)
        if run is None:
            return
        report = Ended(run=run.id, epoch=run.epoch, state="succeeded", exit_codes=(0,), duration_ms=5_000)
        if two % 2:
            self.say(run.site, msgspec.structs.replace(report, epoch=run.epoch + 1 - two % 3))
        else:
            self.say(next(name for name in self.names if name != run.site), report)

    def op_pass(self, one: int, two: int) -> None:
        self.clock.advance(100 + one * 31)
        for name in self.names:
            self.beat(name)
        self.do(Tick())

    def op_silence(self, one: int, two: int) -> None:
        """One site is not heard for longer than its lease."""
        self.pass_ms(12_000, *(name for at, name in enumerate(self.names) if at != one % len(self.names)))

    def op_open(self, one: int, two: int) -> None:
        self.open(self.names[one % len(self.names)])

    def op_drain(self, one: int, two: int) -> None:
        what = ("drain", "undrain", "undrain")[two % 3]
        self.do(ChangeSite(actor=ADMIN, site=self.names[one % len(self.names)], what=what))

    def op_stop(self, one: int, two: int) -> None:
        if self.view.jobs:
            self.do(StopJob(actor=ALICE, job=list(self.view.jobs)[one % len(self.view.jobs)]))

    def op_quote(self, one: int, two: int) -> None:
        self.quote(task(cores=1 + one % 4), price_micro_cny=two * 10_000)

    def op_answer(self, one: int, two: int) -> None:
        asked = [quote for quote in self.view.quotes.values() if quote.state == "asked"]
        if asked:
            quote = asked[one % len(asked)]
            price = quote.listed_price_micro_cny_per_unit_hour + two
            self.say(quote.site, Quoted(quote=quote.id, is_refused=two % 4 == 3, price_micro_cny_per_unit_hour=price))

    def op_take(self, one: int, two: int) -> None:
        if self.view.quotes:
            self.accept_quote(list(self.view.quotes)[one % len(self.view.quotes)])

    def op_shrink(self, one: int, two: int) -> None:
        """The owner makes less (or all again) available than the record says."""
        owner, site, cores, cards, _ = SITES[one % len(SITES)]
        part = PoolBeat(
            pool=f"{PREFIX}.{owner}/pool/{site}", accelerators=cards, cores=(cores, 1)[two % 2], memory_bytes=64 * GB
        )
        self.beat(self.names[one % len(SITES)], pools=(part,))

    def op_restart(self, one: int, two: int) -> None:
        """The process is killed and loads what was kept."""
        self.view = self.reloaded()


def picture(view: View) -> dict[str, Any]:
    """Everything of a view that is durable."""
    return {
        "exchange": view.exchange,
        "tokens": view.tokens,
        "sites": view.sites,
        "jobs": view.jobs,
        "runs": view.runs,
        "runs_at": {site: set(names) for site, names in view.runs_at.items() if names},
        "quotes": view.quotes,
        "charged": view.charged_micro_cny,
        "waiting": set(view.waiting),
        "dependents": {
            name: [one for one in after if one in view.jobs]
            for name, after in view.dependents.items()
            if name in view.jobs and any(one in view.jobs for one in after)
        },
        "held": {name: view.supply.pools.held(f"{PREFIX}.{o}/pool/{name}") for o, name, *_ in SITES},
    }


operations = st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 60), st.integers(0, 60)), max_size=60)


@settings(deadline=None, max_examples=60)
@given(operations)
def test_whatever_is_asked_in_whatever_order_the_books_stay_right(ops: list[Op]) -> None:
    Checked().play(ops)


def a_story(seed: int) -> list[Op]:
    pick = random.Random(seed)
    return [(pick.choice(OPS), pick.randrange(60), pick.randrange(60)) for _ in range(120)]


def test_long_random_stories_visit_every_fault_and_check_every_invariant(capsys: pytest.CaptureFixture[str]) -> None:
    faults: Counter[str] = Counter()
    checked: Counter[str] = Counter()
    for seed in range(25):
        world = Checked()
        world.play(a_story(seed))
        faults += world.faults
        checked += world.ledger.checked
    with capsys.disabled():
        print(f"\nexchange: injected {dict(faults)}\nexchange: checked {dict(checked)}")
    assert set(faults) == set(OPS)
    for invariant in ("a fenced report changes nothing", "a fenced run bills nothing", "no pool is oversold"):
        assert checked[invariant] > 20, invariant


def without_epochs(patch: pytest.MonkeyPatch) -> None:
    """The epoch of a report is not compared."""
    judge = runs.judge

    def blind(view: View, site: str, report: Any, now_ms: int) -> Any:
        run = view.runs.get(getattr(report, "run", ""))
        return judge(view, site, msgspec.structs.replace(report, epoch=run.epoch) if run else report, now_ms)

    patch.setattr(runs, "judge", blind)


def with_lost_runs_billed(patch: pytest.MonkeyPatch) -> None:
    """A lost run is billed for what was seen of it."""
    lose = runs.lose_run

    def billed(view: View, run: Run, now_ms: int, code: str) -> list[Any]:
        first, *rest = lose(view, run, now_ms, code)
        usage = usage_of(run, duration_ms=max(0, now_ms - run.accepted_ms), ended_ms=now_ms)
        return [msgspec.structs.replace(first, usage=usage), *rest]

    patch.setattr(sites, "lose_run", billed)
    patch.setattr(ticking, "lose_run", billed)


def without_holds(patch: pytest.MonkeyPatch) -> None:
    """A booking holds nothing of its pool."""
    patch.setattr(Supply, "hold", lambda self, run: None)
    patch.setattr(Supply, "hold_again", lambda self, run: None)
    patch.setattr(Supply, "release", lambda self, run: setattr(self, "version", self.version + 1))
    patch.setattr(Checked, "compare", lambda self: None)  # the books of events alone must show it


@pytest.mark.parametrize(
    ("plant", "found_by"),
    [
        (without_epochs, "a fenced report"),
        (with_lost_runs_billed, "fenced run bills nothing|only an accepted run is billed"),
        (without_holds, "no pool is oversold"),
    ],
)
def test_a_planted_mistake_is_found(plant: Any, found_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=found_by):
        play_stories(25)


def play_stories(count: int) -> None:
    for seed in range(count):
        Checked().play(a_story(seed))
