"""Use across exchanges: a run of one exchange's user behind another one, from the offer to both sides' bills."""

from __future__ import annotations

import msgspec
import pytest
from branches_world import PRICE, Federation, keys_of, pair, running
from exchange_world import ADMIN, task

from tieline.exchange.branches import clean
from tieline.exchange.commands import (
    BlamePeer,
    ChangePeer,
    ReadReports,
    RenewSession,
    TakePeerReports,
    WhyJob,
)
from tieline.exchange.guests import load_guests
from tieline.exchange.hosting import active_peer
from tieline.exchange.settlement import verify_usage
from tieline.model.error import TielineError
from tieline.model.event import JobEnded, RunEnded, RunOffered
from tieline.model.job import JobState, Output, RunState
from tieline.model.peer import PeerState
from tieline.model.project import Quota
from tieline.model.protocol import Ended
from tieline.model.reason import Reason
from tieline.model.task import DataUse

replace = msgspec.structs.replace


def test_a_job_runs_behind_a_peer_and_both_sides_hold_the_same_signed_line() -> None:
    world, a, b = pair()
    job, run, guest = running(world, a, b)
    assert run.via == b.id
    assert run.state is RunState.RUNNING
    assert (guest.user, b.view.jobs[guest.job].user_owner) == ("alice@cn.a", "cn.a")
    world.pass_ms(3_000)
    b.end(guest)
    world.pass_ms(3_000)
    over = a.ended(job)
    assert over is not None
    assert over.state is JobState.SUCCEEDED
    ours, theirs = a.usages[run.id], b.usages[guest.id]
    assert ours.charge_micro_cny == theirs.charge_micro_cny == 2 * 5 * 1_000_000
    assert (ours.claim, ours.answer) == (theirs.given_claim, theirs.given_answer)
    assert ours.disputed_micro_cny == theirs.given_disputed_micro_cny == 0
    assert (ours.via, theirs.origin) == (b.id, a.id)
    assert ours.site_receipt == theirs.site_receipt != ""
    for usage in (ours, theirs):
        assert verify_usage(usage, keys_of(world)) == ()
    assert not b.view.guests[a.id].live
    assert not b.view.guests[a.id].unanswered


def test_three_tiers_are_two_times_two() -> None:
    world = Federation()
    a, hub, b = world.add("a"), world.add("hub"), world.add("b")
    b.join("lab", "one")
    world.join_up(hub, b)
    a.knows(b)  # its key is pinned, so that its records are believed; it is not used directly
    world.join_up(a, hub)
    (job,) = a.submit(task(cores=2))
    assert a.run_of(job).via == hub.id
    world.pass_ms(3_000)
    (middle,) = hub.view.runs.values()
    (guest,) = b.own_runs(RunState.OFFERED)
    assert middle.via == b.id
    assert middle.user == "alice@cn.a"
    assert b.view.jobs[guest.job].user == "alice@cn.a@cn.hub"
    assert b.view.jobs[guest.job].origin.path == (a.id, hub.id)
    b.accept(guest)
    b.start(b.view.runs[guest.id])
    world.pass_ms(5_000)
    b.end(b.view.runs[guest.id])
    world.pass_ms(5_000)
    assert a.ended(job).state is JobState.SUCCEEDED
    lines = [next(iter(node.usages.values())) for node in (a, hub, b)]
    assert len({line.charge_micro_cny for line in lines}) == 1
    assert lines[0].claim == lines[1].given_claim
    assert lines[1].claim == lines[2].given_claim
    assert lines[1].answer == lines[2].given_answer != lines[1].given_answer
    for usage in lines:
        assert verify_usage(usage, keys_of(world)) == ()


def test_what_the_peer_or_its_owner_refuses_goes_elsewhere_or_is_explained() -> None:
    world, a, b = pair()
    (job,) = a.submit(task(cores=2))
    world.pass_ms(2_000)
    b.refuse(b.own_runs(RunState.OFFERED)[0])
    world.pass_ms(2_000)
    (over,) = [event for event in a.events if isinstance(event, RunEnded)]
    assert over.reason is not None
    assert (over.state, over.reason.code) == (RunState.REFUSED, "refused_by_owner")
    assert over.reason.values["term"] == "no"
    assert a.view.jobs[job.id].losses == 1
    a.join("home", "own", cores=4)
    world.pass_ms(35_000)  # the second offer runs out
    assert a.run_of(job).via == ""  # the site that refused comes last


def test_what_is_beyond_our_quota_there_is_not_offered_until_the_quota_is_raised() -> None:
    world, a, b = pair(quota=Quota(core_count=2))
    (job,) = a.submit(task(cores=3))
    world.pass_ms(600_000)
    assert a.view.jobs[job.id].state is JobState.QUEUED
    assert not [event for event in a.events if isinstance(event, RunOffered)], "it is not asked for in vain"
    (why,) = a.do(WhyJob(actor=ADMIN, job=job.id)).plan.reasons
    assert (why.code, why.values) == ("quota_behind", {"asked": 3, "most": 2})
    (small,) = a.submit(task(cores=2))
    assert a.run_of(small).via == b.id
    a.stop(small.id)
    b.do(ChangePeer(actor=ADMIN, peer=a.id, what="grant", quota=Quota(core_count=3)))
    world.pass_ms(60_000)
    assert a.run_of(job).via == b.id


def test_what_is_beyond_our_money_there_is_asked_for_less_and_less() -> None:
    world, a, _ = pair(quota=Quota(micro_cny=1))
    (job,) = a.submit(task(cores=2, max_duration_s=60))
    for _ in range(60):
        world.pass_ms(60_000)
    refused = [each.reason for each in a.events if isinstance(each, RunEnded) and each.reason is not None]
    assert {(each.values["why"], each.values["what"]) for each in refused} == {("peer_quota", "money")}
    assert 10 < len(refused) < 20, "not once a minute in an hour"
    assert a.view.jobs[job.id].state is JobState.QUEUED


def test_a_cut_keeps_the_run_going_and_its_end_is_taken_when_it_heals() -> None:
    world, a, b = pair()
    job, run, guest = running(world, a, b)
    world.cut(a, b)
    world.pass_ms(60_000)
    assert a.view.runs[run.id].state is RunState.RUNNING  # frozen, not lost
    assert a.view.supply.pools.site_flags(run.site).is_silent
    assert [reason.code for reason in a.do(WhyJob(actor=ADMIN, job=job.id)).reasons] == ["branch_silent", "running"]
    b.end(guest)
    world.pass_ms(60_000)
    world.heal(a, b)
    world.pass_ms(20_000)
    assert a.ended(job).state is JobState.SUCCEEDED
    assert a.usages[run.id].charge_micro_cny == b.usages[guest.id].charge_micro_cny > 0
    assert b.usages[guest.id].given_answer
    assert not a.view.supply.pools.site_flags(run.site).is_silent


def test_nothing_is_placed_behind_a_branch_that_is_silent() -> None:
    world, a, b = pair()
    world.cut(a, b)
    world.pass_ms(a.limits.lease_ms + 2_000)
    (job,) = a.submit(task())
    assert a.view.jobs[job.id].state is JobState.QUEUED
    world.heal(a, b)
    world.pass_ms(2_000)
    assert a.run_of(job).via == b.id


def test_a_branch_that_stays_silent_loses_its_runs_and_what_it_claims_later_is_disputed() -> None:
    world = Federation()
    a, b = world.add("a", branch_lost_ms=30_000), world.add("b")
    b.join("lab", "one")
    world.join_up(a, b)
    job, run, guest = running(world, a, b)
    a.join("home", "own", cores=4)
    world.cut(a, b)
    world.pass_ms(29_000)
    assert a.view.runs[run.id].state is RunState.RUNNING
    world.pass_ms(5_000)
    again = a.run_of(job)
    assert (again.via, again.epoch) == ("", 2)
    a.accept(again)
    b.end(guest)
    world.heal(a, b)
    world.pass_ms(20_000)
    assert run.id not in a.usages
    theirs = b.usages[guest.id]
    assert theirs.charge_micro_cny == theirs.given_disputed_micro_cny > 0
    assert verify_usage(theirs, keys_of(world)) == ()
    assert a.view.jobs[job.id].run == again.id


def test_a_run_that_was_fenced_over_there_is_stopped_here_and_bills_nothing() -> None:
    world = Federation()
    a, b = world.add("a", branch_lost_ms=30_000), world.add("b")
    b.join("lab", "one")
    world.join_up(a, b)
    _, run, guest = running(world, a, b)
    world.cut(a, b)
    world.pass_ms(40_000)
    assert b.view.runs[guest.id].state is RunState.RUNNING
    world.heal(a, b)
    world.pass_ms(20_000)
    assert b.view.recent[guest.id].state is RunState.LOST
    assert guest.id not in b.usages
    assert b.end(guest).what == "stale"
    assert run.id not in a.usages


def test_the_user_stops_a_run_behind_a_peer_and_pays_for_what_it_took() -> None:
    world, a, b = pair()
    job, run, guest = running(world, a, b)
    a.stop(job.id)
    world.pass_ms(2_000)
    assert b.view.runs[guest.id].is_stop_requested
    b.end(b.view.runs[guest.id], "stopped", 143)
    world.pass_ms(2_000)
    assert a.ended(job).state is JobState.CANCELLED
    assert a.usages[run.id].charge_micro_cny == b.usages[guest.id].charge_micro_cny > 0


def test_what_is_stopped_before_it_was_accepted_is_over_on_both_sides() -> None:
    world, a, b = pair()
    (job,) = a.submit(task())
    world.pass_ms(2_000)
    a.stop(job.id)
    world.pass_ms(3_000)
    assert a.ended(job).state is JobState.CANCELLED
    assert not b.view.runs
    assert not b.view.jobs


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_crash_of_either_side_in_mid_run_changes_nothing(who: str) -> None:
    world, a, b = pair()
    job, run, guest = running(world, a, b)
    node = {"a": a, "b": b}[who]
    node.crash()
    world.pass_ms(3_000)
    b.end(b.view.runs[guest.id])
    node.crash()
    world.pass_ms(5_000)
    node.crash()
    world.pass_ms(5_000)
    assert a.ended(job).state is JobState.SUCCEEDED
    assert a.usages[run.id].answer == b.usages[guest.id].given_answer != ""
    assert a.usages[run.id].charge_micro_cny == b.usages[guest.id].charge_micro_cny > 0


def test_an_answer_that_was_lost_with_the_process_is_given_again_as_it_was() -> None:
    world, a, b = pair()
    _, run, guest = running(world, a, b)
    b.end(guest)
    world.cut(a, b)
    page = b.do(ReadReports(peer=a.id, session="", after=0))
    for report in page.reports:
        a.do(TakePeerReports(peer=b.id, session=page.session, reports=(report,)))
    answer = a.usages[run.id].answer
    a.crash()
    world.heal(a, b)
    world.pass_ms(10_000)
    assert b.usages[guest.id].given_answer == answer != ""


def test_a_peer_that_was_restored_says_its_list_anew_and_loses_what_it_forgot() -> None:
    world, a, b = pair()
    b.tables = {name: dict(rows) for name, rows in b.tables.items()}
    kept = {name: dict(rows) for name, rows in b.tables.items()}
    job, run, guest = running(world, a, b)
    b.tables = kept
    b.crash()
    b.do(RenewSession(actor=ADMIN, session="s2", why="restored"))
    world.pass_ms(10_000)
    assert a.view.recent[run.id].state is RunState.LOST
    assert a.view.recent[run.id].reason.code == "lost_behind"
    assert a.run_of(job).epoch >= 2
    assert guest.id not in b.view.runs


def test_an_exchange_that_was_restored_is_told_again_what_it_forgot() -> None:
    world, a, b = pair()
    (job,) = a.submit(task(cores=2))
    kept = {name: dict(rows) for name, rows in a.tables.items()}
    run = a.run_of(job)
    world.pass_ms(2_000)
    guest = b.own_runs(RunState.OFFERED)[0]
    b.accept(guest)
    b.start(b.view.runs[guest.id])
    world.pass_ms(3_000)
    b.end(b.view.runs[guest.id])
    world.pass_ms(3_000)
    charge = a.usages.pop(run.id).charge_micro_cny
    a.ledger.usages.clear()
    a.ledger.over.clear()
    a.ledger.ended.clear()
    a.ledger.live[job.id] = run.id
    a.ledger.held[run.pool] = (0, 2, 0)
    a.tables = kept
    a.crash()
    assert a.view.runs[run.id].state is RunState.OFFERED
    world.pass_ms(10_000)
    assert a.usages[run.id].charge_micro_cny == charge
    assert [event for event in a.events if isinstance(event, JobEnded)][-1].state is JobState.SUCCEEDED


def test_runs_that_a_restored_exchange_does_not_know_are_fenced_by_its_roll() -> None:
    world, a, b = pair()
    kept = {name: dict(rows) for name, rows in a.tables.items()}
    _, _, guest = running(world, a, b)
    a.tables = kept
    a.crash()
    world.pass_ms(10_000)
    assert b.view.recent[guest.id].state is RunState.LOST
    assert guest.id not in b.usages


def test_a_peer_that_is_removed_takes_its_runs_with_it_on_both_sides() -> None:
    world, a, b = pair()
    job, run, guest = running(world, a, b)
    b.do(ChangePeer(actor=ADMIN, peer=a.id, what="remove"))
    world.pass_ms(2_000)
    assert b.view.runs[guest.id].is_stop_requested
    a.do(ChangePeer(actor=ADMIN, peer=b.id, what="remove"))
    world.pass_ms(2_000)
    assert a.view.recent[run.id].reason.code == "branch_removed"
    assert a.view.jobs[job.id].state is JobState.QUEUED
    with pytest.raises(TielineError, match="no active peer"):
        active_peer(b.view, a.id)


def test_nothing_of_a_peer_at_fault_is_taken_until_it_is_cleared() -> None:
    world, a, b = pair()
    job, run, guest = running(world, a, b)
    a.do(BlamePeer(actor=ADMIN, peer=b.id, code="peer_rolled_back", values={}))
    b.end(guest)
    world.pass_ms(30_000)
    assert a.view.runs[run.id].state is RunState.RUNNING
    assert a.lines[b.id].error is not None
    a.do(ChangePeer(actor=ADMIN, peer=b.id, what="clear"))
    world.pass_ms(30_000)
    assert a.ended(job).state is JobState.SUCCEEDED


def test_bound_data_stays() -> None:
    _, a, _ = pair()
    bound = task(data=(DataUse(id="", path="in", size_bytes=1, site="cn.b.lab/site/one", residency="exchange"),))
    with pytest.raises(TielineError) as refused:
        a.submit(bound)
    assert [reason.code for reason in refused.value.reasons] == ["residency"]


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_a_restart_knows_every_guest_as_before() -> None:
    world, a, b = pair()
    running(world, a, b)
    _, _, guest = running(world, a, b)
    b.end(guest)
    a.submit(task())
    world.pass_ms(1_000)
    again, before = b.reloaded().guests[a.id], b.view.guests[a.id]
    assert again.runs == before.runs
    assert set(again.live) == set(before.live)
    for name in ("serial", "accelerator_count", "core_count", "unanswered", "newest", "waiting", "settled"):
        assert getattr(again, name) == getattr(before, name), name
    assert b.reloaded().spent == b.view.spent


def test_settled_runs_are_remembered_up_to_a_number_and_the_serial_never_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tieline.exchange.guests.MOST_SETTLED", 2)
    world, a, b = pair()
    for _ in range(4):
        _, _, guest = running(world, a, b)
        b.end(guest)
        world.pass_ms(3_000)
    kept = b.view.guests[a.id]
    assert len(kept.runs) == len(kept.settled) == 2
    assert len(b.tables["guest"]) == 2
    assert b.reloaded().guests[a.id].serial == kept.serial == 12
    load_guests(b.reloaded(), ())


def test_an_end_says_nothing_of_outputs_that_cannot_be_files() -> None:
    paths = ("out.txt", "a/b", "../x", "/etc/x", "a/../../x", "")
    outputs = tuple(Output(path=path, sha256="0" * 64, size_bytes=1) for path in paths)
    bad = (Output(path="x", sha256="nope", size_bytes=1), Output(path="x", sha256="0" * 64, size_bytes=-1))
    report = Ended(
        run="r", epoch=1, state="failed", outputs=(*outputs, *bad), exit_codes=(1,) * 1_000, checkpoint="x",
        reason=Reason(code="c" * 10_000, values={"a": "b" * 10_000}),
    )  # fmt: skip
    cleaned = clean(report)
    assert isinstance(cleaned, Ended)
    assert [output.path for output in cleaned.outputs] == ["out.txt", "a/b"]
    assert len(cleaned.exit_codes) == 100
    assert cleaned.checkpoint == ""
    assert len(cleaned.reason.code) == 64


def test_the_month_counts_what_a_peer_used() -> None:
    world, a, b = pair()
    _, _, guest = running(world, a, b)
    b.end(guest)
    (spent,) = b.view.spent.values()
    assert spent.project == a.id
    assert spent.month == "2025-11"
    assert spent.charge_micro_cny == b.usages[guest.id].charge_micro_cny == 2 * 2 * PRICE // 3_600
    assert b.view.peers[a.id].state is PeerState.ACTIVE
