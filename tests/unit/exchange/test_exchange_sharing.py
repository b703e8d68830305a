"""Projects share what there is: quotas are walls, guarantees come before loans, and who gives way loses nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from exchange_world import ADMIN, task
from shared_world import PRICE, Shared, cards

from tieline.exchange.commands import StopJob, SubmitJobs, TakeReport, Tick
from tieline.exchange.decide import decide
from tieline.exchange.placing import schedule
from tieline.model.job import JobState, RunState
from tieline.model.party import Actor, Role
from tieline.model.protocol import Ended, PoolBeat, Started
from tieline.model.reason import Reason
from tieline.place import Amount
from tieline.ports import FakeClock

HOUR_MS = 3_600_000


def world(count: int = 8) -> Shared:
    made = Shared()
    made.cards(count)
    return made


# -- quotas -----------------------------------------------------------------------------------------------------------


def test_a_project_over_its_cards_waits_and_is_told_with_numbers_in_plan_and_why() -> None:
    found = world()
    found.project("a", 4, may_borrow=False)
    first, second = found.run("a", cards(3)), found.run("a", cards(2))
    assert (found.job(first).state, found.job(second).state) == (JobState.BOOKED, JobState.QUEUED)
    reason = found.reasons(second)[0]
    assert (reason.code, reason.count) == ("quota_cards", 1)
    assert reason.values == {"project": "a", "used": 3, "bound": 4, "asked": 2}
    plan = found.plan("a", cards(2))
    assert (plan.chosen, plan.fitting, plan.is_possible) == ("", 0, True)
    assert plan.reasons[0] == reason
    assert plan.considered == plan.fitting + sum(each.count for each in plan.reasons)
    assert found.plan("a", cards(1)).fitting == 1
    found.run("a", cards(1))
    found.start(found.run_of(first))
    found.end(found.run_of(first))
    assert found.job(second).state is JobState.BOOKED


def test_cores_of_pools_without_cards_are_a_quota_of_their_own() -> None:
    found = world()
    found.join("lab8", "gz1", core_count=16, memory_bytes=10**9)
    found.project("a", 0, core_count=4)
    found.run("a", task(cores=3))
    waiting = found.run("a", task(cores=2))
    assert found.reasons(waiting)[0].values == {"project": "a", "used": 3, "bound": 4, "asked": 2}
    assert found.job(found.run("a", cards(1))).state is JobState.BOOKED, "cores beside cards are not counted"


def test_an_alternative_within_the_quota_is_taken_where_the_first_is_not() -> None:
    found = world()
    found.project("a", 4, may_borrow=False)
    both = cards(6).resources + cards(2).resources
    run = found.run_of(found.run("a", task(resources=both, is_ordered=True)))
    assert (run.accelerator_count, run.alternative) == (2, 1)


def test_card_hours_of_the_month_bound_the_run_and_are_pledged_while_it_lives() -> None:
    found = world()
    found.project("a", 0, card_hours=8)
    job = found.run("a", cards(4))
    run = found.run_of(job)
    assert run.stop_after_s == 2 * 3_600 - run_end_s(job)
    assert run.pledged_card_ms == 8 * HOUR_MS
    waiting = found.run("a", cards(1))
    assert found.why(waiting)[0] == "quota_card_hours"
    found.start(run)
    found.clock.advance(60_000)
    found.end(run, duration_ms=60_000)
    assert found.view.spent["a", "2025-11"].card_ms == 240_000
    second = found.run_of(waiting)
    assert second.pledged_card_ms <= 8 * HOUR_MS - 240_000


def run_end_s(job: object) -> int:
    """What the end of a run may take beyond its stop."""
    return job.task.grace_s + 1  # type: ignore[attr-defined, no-any-return]


def test_money_of_the_month_bounds_the_run_and_is_never_exceeded() -> None:
    found = world()
    found.project("a", 0, micro_cny=PRICE)  # an hour of one card
    job = found.run("a", cards(2))
    run = found.run_of(job)
    assert run.stop_after_s == 1_800 - run_end_s(job)
    assert run.pledged_micro_cny == found.job(job).held_micro_cny <= PRICE
    waiting = found.run("a", cards(1))
    assert found.reasons(waiting)[0].values == {"project": "a", "used_micro_cny": PRICE, "bound_micro_cny": PRICE}
    found.accept(run)
    found.report(run.site, Started(run=run.id, epoch=1, at_ms=found.clock.now_ms()))
    found.clock.advance(3 * HOUR_MS)  # its site was cut off and stopped it late
    found.end(run, duration_ms=3 * HOUR_MS)
    assert found.view.spent["a", "2025-11"].charge_micro_cny == PRICE
    assert found.why(waiting)[0] == "quota_money"


def test_money_that_pays_for_no_second_is_told_as_the_quota_that_it_is() -> None:
    found = world()
    found.project("a", 0, micro_cny=1_003_000)
    first = found.started("a", cards(1, max_duration_s=994))
    assert found.view.shares is not None
    waiting = found.run("a", cards(1))
    (reason,) = found.reasons(waiting)[:1]
    assert (reason.code, reason.count) == ("quota_money", 1)
    assert reason.values["used_micro_cny"] == first.pledged_micro_cny
    plan = found.plan("a", cards(1))
    assert (plan.fitting, plan.nearest, plan.is_possible) == (0, None, True)
    assert found.plan("a", cards(1, budget_micro_cny=1)).reasons[0].code == "budget_below", "its own budget is less"


def test_what_the_project_has_left_ends_a_run_with_both_reasons() -> None:
    found = world()
    found.project("a", 0, card_hours=1)
    job = found.run("a", cards(1))
    run = found.run_of(job)
    found.start(run)
    found.clock.advance(HOUR_MS)
    over = Reason(code="limit_reached", values={"limit": "time", "value": "1 h"})
    found.end(run, "stopped", 143, duration_ms=HOUR_MS, reason=over)
    ended = next(each for each in found.events if each.subject == job.id and hasattr(each, "outputs"))
    assert [reason.code for reason in ended.reasons] == ["limit_reached", "quota_card_hours"]


def test_a_new_month_lets_those_who_wait_have_a_turn_at_its_first_tick() -> None:
    at_ms = int(datetime(2025, 11, 30, 23, 40, tzinfo=UTC).timestamp() * 1000)
    found = Shared(clock=FakeClock(at_ms=at_ms))
    found.cards(8)
    found.project("a", 0, card_hours=1)
    first = found.started("a", cards(6, max_duration_s=500))
    found.clock.advance(500_000)
    found.end(first, duration_ms=500_000)
    waiting = found.run("a", cards(6, max_duration_s=500))
    assert found.run_of(waiting).stop_after_s < 100, "what is left of November"
    found.start(found.run_of(waiting))
    found.end(found.run_of(waiting), duration_ms=0)
    short = found.run("a", cards(1, max_duration_s=550))
    later = found.run("a", cards(7, max_duration_s=400))
    assert found.why(later)[0] == "quota_card_hours"
    found.start(found.run_of(short))
    version = found.view.supply.version
    found.pass_ms(at_ms + 20 * 60_000 - found.clock.now_ms() - 1, found.site)
    assert found.why(later)[0] == "quota_card_hours", "the last millisecond of November"
    assert found.view.supply.version <= version + 1
    found.clock.advance(1)
    found.do(Tick())
    assert found.job(later).state is JobState.BOOKED


# -- whose turn it is -------------------------------------------------------------------------------------------------


def test_who_holds_least_goes_first_and_weight_counts() -> None:
    found = world(6)
    for name, weight in (("a", 1), ("b", 2)):
        found.project(name, weight=weight)
    blocking = found.started("a", cards(6))
    jobs = [(name, found.run(name, cards(1))) for name in "aaaaaabbbbbb"]
    found.end(blocking)
    booked = [name for name, job in jobs if found.job(job).state is JobState.BOOKED]
    assert (booked.count("a"), booked.count("b")) == (2, 4)


def test_who_comes_by_right_goes_before_who_would_borrow_whoever_came_first() -> None:
    found = world(8)
    found.project("a", 4)
    found.project("b", 4)
    blocking = found.started("a", cards(8))
    borrowing = [found.run("a", cards(8)), found.run("", cards(8))]
    found.clock.advance(1_000)
    by_right = found.run("b", cards(4))
    found.end(blocking)
    assert found.job(by_right).state is JobState.BOOKED
    assert [found.job(job).state for job in borrowing] == [JobState.QUEUED] * 2


def test_cards_are_lent_while_nobody_waits_for_them_by_right() -> None:
    found = world(8)
    found.project("a", 2)
    found.project("b", 6)
    for _ in range(8):
        found.run("a", cards(1))
    assert found.view.shares is not None
    assert found.view.shares.borrowed("a") == 6


# -- who gives way ----------------------------------------------------------------------------------------------------


def borrowed_world() -> Shared:
    found = world(8)
    found.project("a", 2)
    found.project("b", 6)
    return found


def test_a_borrower_gives_way_to_who_comes_by_right_and_goes_on_later() -> None:
    found = borrowed_world()
    older = found.started("a", cards(4, "older", keeps=True))
    found.clock.advance(60_000)
    newer = found.started("a", cards(4, "newer", keeps=True))
    found.clock.advance(5_000)
    wanted = found.run("b", cards(4))
    reason = found.stops()[newer.id]
    assert list(found.stops()) == [newer.id], "the one that loses least, and no more than needed"
    assert (reason.code, reason.values) == ("preempted_for_share", {"job": wanted.id, "project": "b"})
    assert found.reasons(wanted)[0].code == "waiting_for_room"
    assert found.reasons(wanted)[0].values["runs"] == 1
    found.kept(newer, "c" * 64)
    found.stopped(newer, 5_000)
    assert found.job(wanted).state is JobState.BOOKED
    back = found.view.jobs[newer.job]
    assert (back.state, back.attempts, back.losses, back.preemptions, back.avoid) == (JobState.QUEUED, 0, 0, 1, ())
    assert back.reasons == (reason,)
    assert found.ended(newer).usage is not None
    assert found.ended(newer).reason == reason
    assert found.view.runs[older.id].is_stop_requested is False
    found.start(found.run_of(wanted))
    found.end(found.run_of(wanted))
    again = found.run_of(back)
    assert (again.checkpoint, again.preemptions, again.epoch) == ("c" * 64, 1, 2)
    usages = [
        each.usage for each in found.events if getattr(each, "usage", None) is not None and each.usage.job == back.id
    ]
    assert len(usages) == 1


def test_nobody_takes_the_room_that_was_made_for_another() -> None:
    found = borrowed_world()
    victim = found.started("a", cards(8, keeps=True))
    wanted = found.run("b", cards(6))
    assert list(found.stops()) == [victim.id]
    sneaking = [found.run("", cards(1)) for _ in range(3)] + [found.run("a", cards(2))]
    found.stopped(victim)
    assert found.job(wanted).state is JobState.BOOKED
    assert found.run_of(wanted).accelerator_count == 6
    assert sum(found.job(job).state is JobState.BOOKED for job in sneaking) == 1, "two cards were left over"
    assert found.job(sneaking[3]).state is JobState.BOOKED, "by right before those who are in no project"
    assert not found.view.yielding.kept


def test_several_of_one_shape_have_room_made_for_them_at_once_and_within_their_share() -> None:
    found = borrowed_world()
    victims = [found.started("a", cards(2, keeps=True)) for _ in range(4)]
    wanted = [found.run("b", cards(2)) for _ in range(5)]
    assert len(found.stops()) == 3, "b may hold six, and a gives back what it borrowed"
    asked = [run for run in victims if run.id in found.stops()]
    found.stopped(asked[2])
    found.stopped(asked[0])
    assert [found.job(job).state for job in wanted[:3]] == [JobState.BOOKED, JobState.BOOKED, JobState.QUEUED]
    found.stopped(asked[1])
    assert [found.job(job).state for job in wanted] == [JobState.BOOKED] * 3 + [JobState.QUEUED] * 2
    assert len(found.stops()) == 3


def test_room_that_is_kept_for_one_lets_nobody_else_of_its_shape_go_first() -> None:
    found = world(12)
    for name, guaranteed in (("a", 2), ("b", 2), ("c", 4)):
        found.project(name, guaranteed)
    runs = [found.started("a", cards(2, keeps=True)) for _ in range(6)]
    of_b = [found.run("b", cards(2)) for _ in range(4)]
    (asked,) = found.stops()
    now_ms = found.clock.now_ms()
    of_c = []
    for _ in range(2):
        submitted = SubmitJobs(actor=Actor(name="c", roles=(Role.USER,)), tasks=(cards(2),), project="c")
        decision = decide(found.view, submitted, now_ms, found.ids)
        found.take(decision.events, now_ms)
        of_c += decision.reply
    others = [run for run in runs if run.id != asked][:2]
    for run, state in ((found.view.runs[asked], "stopped"), *((run, "succeeded") for run in others)):
        report = TakeReport(site=run.site, report=Ended(run=run.id, epoch=1, state=state, exit_codes=(0,)))
        found.take(decide(found.view, report, now_ms, found.ids).events, now_ms)
    found.take(schedule(found.view, now_ms, found.ids, 1_000), now_ms)
    assert [found.job(job).state for job in of_b] == [JobState.BOOKED] + [JobState.QUEUED] * 3
    assert [found.job(job).state for job in of_c] == [JobState.BOOKED] * 2


def test_only_runs_that_keep_checkpoints_give_way_and_others_are_asked_once_they_are_there() -> None:
    found = borrowed_world()
    found.started("a", cards(4))
    wanted = found.run("b", cards(6))
    assert not found.stops()
    keeping = found.run_of(found.run("a", cards(4, keeps=True)))
    assert not found.stops(), "its owner has not accepted it yet"
    found.start(keeping)
    assert not found.stops(), "four cards more are not six"
    assert found.job(wanted).state is JobState.QUEUED


def test_a_run_that_is_accepted_later_is_asked_then() -> None:
    found = borrowed_world()
    job = found.run("a", cards(8, keeps=True))
    wanted = found.run("b", cards(6))
    assert not found.stops()
    found.start(found.run_of(job))
    assert list(found.stops()) == [found.run_of(job).id]
    found.stopped(found.run_of(job))
    assert found.job(wanted).state is JobState.BOOKED


def test_two_do_not_take_turns_at_the_same_cards() -> None:
    found = borrowed_world()
    found.project("a", 2)
    first = found.started("a", cards(8, keeps=True))
    wanted = found.run("b", cards(6, keeps=True))
    found.stopped(first)
    found.start(found.run_of(wanted))
    for _ in range(30):
        found.pass_ms(4_000, found.site)
    assert list(found.stops()) == [first.id]
    assert found.view.jobs[first.job].state is JobState.QUEUED
    assert found.job(wanted).state is JobState.RUNNING


def test_a_higher_priority_takes_from_borrowers_and_from_its_own_project_by_a_margin() -> None:
    found = world(8)
    found.project("a", 8)
    found.project("b", 0)
    low = found.started("a", cards(8, keeps=True))
    found.run("a", cards(8, "equal", priority=9))
    found.run("b", cards(8, "other", priority=50))
    assert not found.stops(), "too little, or from within a guaranteed share"
    high = found.run("a", cards(8, "high", priority=10))
    assert found.stops()[low.id].code == "preempted_for_priority"
    assert found.stops()[low.id].values == {"job": high.id, "priority": 10, "own": 0}
    found.stopped(low)
    assert found.job(high).state is JobState.BOOKED


def test_nobody_gives_way_for_what_a_quota_would_not_let_them_take() -> None:
    found = world(8)
    found.project("a", 2)
    found.project("b", 4, may_borrow=False)
    for _ in range(2):
        found.started("a", cards(4, keeps=True))
    wanted = [found.run("b", cards(4, priority=20)) for _ in range(2)]
    assert len(found.stops()) == 1
    assert found.why(wanted[1])[0] == "quota_cards"


def test_who_is_in_no_project_makes_nobody_give_way() -> None:
    found = world(8)
    found.project("a", 0)
    found.started("", cards(8, keeps=True))
    found.run("", cards(8, "urgent", priority=50))
    assert not found.stops()


def test_without_projects_nobody_gives_way() -> None:
    found = world(8)
    found.started("", cards(8, keeps=True))
    found.run("", cards(8, "urgent", priority=50))
    assert not found.stops()
    assert found.view.shares is None


def test_a_job_that_was_cancelled_keeps_no_room() -> None:
    found = borrowed_world()
    victim = found.started("a", cards(8, keeps=True))
    wanted = found.run("b", cards(6))
    found.do(StopJob(actor=ADMIN, job=wanted.id))
    assert not found.view.yielding.kept
    found.stopped(victim)
    assert found.view.jobs[victim.job].state is JobState.BOOKED, "it goes on at once"


def test_room_that_did_not_come_is_kept_no_longer() -> None:
    found = borrowed_world()
    victim = found.started("a", cards(8, keeps=True))
    wanted = found.run("b", cards(6))
    pool = PoolBeat(pool=victim.pool, accelerators=4, cores=64, memory_bytes=10**12)
    found.beat(found.site, pools=(pool,))
    found.stopped(victim)
    assert found.job(wanted).state is JobState.QUEUED
    assert not found.view.yielding.kept
    small = found.run("", cards(3))
    assert found.job(small).state is JobState.BOOKED


def test_what_is_stopping_anyway_is_kept_too() -> None:
    found = borrowed_world()
    leaving = found.started("a", cards(8))
    found.do(StopJob(actor=ADMIN, job=leaving.job))
    wanted = found.run("b", cards(6))
    assert found.reasons(wanted)[0].code == "waiting_for_room"
    found.run("", cards(8))
    found.stopped(leaving)
    assert found.job(wanted).state is JobState.BOOKED


def test_a_victim_that_succeeded_meanwhile_is_done() -> None:
    found = borrowed_world()
    victim = found.started("a", cards(8, keeps=True))
    wanted = found.run("b", cards(6))
    found.end(victim)
    assert victim.job not in found.view.jobs
    assert found.job(wanted).state is JobState.BOOKED


def test_what_a_site_says_of_a_victim_itself_stands() -> None:
    found = borrowed_world()
    victim = found.started("a", cards(8, keeps=True))
    found.run("b", cards(6))
    found.end(victim, "stopped", 143, reason=Reason(code="reclaimed", values={"why": "mine"}))
    back = found.view.jobs[victim.job]
    assert (back.preemptions, back.losses) == (0, 1)


def test_a_site_cannot_claim_that_a_run_gave_way() -> None:
    found = borrowed_world()
    run = found.started("a", cards(2, keeps=True))
    said = Reason(code="preempted_for_share", values={"job": "x", "project": "b"})
    found.end(run, "stopped", 143, reason=said)
    back = found.view.jobs[run.job]
    assert (back.preemptions, back.losses) == (0, 1)


# -- a restart --------------------------------------------------------------------------------------------------------


def test_a_restart_gives_the_same_shares_and_room_is_kept_again() -> None:
    found = borrowed_world()
    found.project("c", 0, card_hours=100, micro_cny=10**9)
    tables: dict[str, dict[str, object]] = {}
    found.started("c", cards(1))
    victim = found.started("a", cards(7, keeps=True))
    wanted = found.run("b", cards(6))
    found.keep(tables)
    fresh = found.restarted(tables)
    assert fresh.shares is not None
    assert found.view.shares is not None
    for name in ("a", "b", "c", ""):
        before, after = found.view.shares._known(name), fresh.shares._known(name)
        for field in ("held", "bare_cores", "pledged_card_ms", "pledged_micro_cny", "project"):
            assert getattr(before, field) == getattr(after, field), (name, field)
    assert fresh.spent == found.view.spent
    assert fresh.yielding.pools == found.view.yielding.pools
    found.view = fresh
    found.beat(found.site)
    assert list(fresh.yielding.kept) == [wanted.id]
    assert list(found.stops()) == [victim.id], "nobody is asked twice"
    found.run("", cards(7))
    found.stopped(victim)
    assert found.job(wanted).state is JobState.BOOKED


def test_a_project_that_is_made_later_holds_what_its_runs_hold() -> None:
    found = world(8)
    found.project("a", 4)
    found.started("a", cards(3))
    found.started("", cards(2))
    assert found.view.shares is not None
    assert found.view.shares.standing("a").held == Amount(3, 1, 0)
    assert found.view.shares.standing("").held.accelerators == 2
    for run in found.live(RunState.RUNNING):
        found.end(run)
    assert found.view.shares.standing("a").held == found.view.shares.standing("").held == Amount()


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_a_pass_looks_at_a_bounded_number_of_lines_and_everybody_has_a_turn() -> None:
    found = world(8)
    found.project("a", 1, may_borrow=False)
    found.started("a", cards(1))
    large = found.started("", cards(7))
    for at in range(300):
        found.run("a", cards(1, max_duration_s=10 + at))
    last = found.run("", cards(7, priority=-1_000))
    assert found.view.waiting.shapes == 301
    now_ms = found.clock.now_ms()
    report = TakeReport(site=found.site, report=Ended(run=large.id, epoch=1, state="succeeded"))
    found.take(decide(found.view, report, now_ms, found.ids).events, now_ms)
    passes = 0
    while found.job(last).state is JobState.QUEUED:
        passes += 1
        assert passes < 100
        found.take(schedule(found.view, now_ms, found.ids, 1), now_ms)
    assert passes > 5
