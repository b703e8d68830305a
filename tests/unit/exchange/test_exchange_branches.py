"""Use across exchanges: a run of one exchange's user behind another one, from the offer to both sides' bills."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import msgspec
import pytest
from branches_world import PRICE, Federation, Node, keys_of
from exchange_world import ADMIN, task

from tieline.exchange.branches import clean
from tieline.exchange.commands import (
    BlamePeer,
    ChangePeer,
    ChangeSite,
    ReadReports,
    ReadState,
    RenewSession,
    TakeBranch,
    TakeOffer,
    TakePeerReports,
    WhyJob,
)
from tieline.exchange.decide import decide
from tieline.exchange.guests import load_guests
from tieline.exchange.hosting import active_peer
from tieline.exchange.orders import offer_of
from tieline.exchange.settlement import verify_usage
from tieline.exchange.showing import Showing
from tieline.model.error import TielineError
from tieline.model.event import JobEnded, RunEnded, RunOffered
from tieline.model.job import Job, JobState, Output, Run, RunState
from tieline.model.peer import BranchState, PeerState, PoolState, SiteState
from tieline.model.project import Quota
from tieline.model.protocol import Ended, Refused
from tieline.model.reason import Reason
from tieline.model.task import DataUse

replace = msgspec.structs.replace


def pair(**grants: object) -> tuple[Federation, Node, Node]:
    world = Federation()
    a, b = world.add("a"), world.add("b")
    b.join("lab", "one")
    world.join_up(a, b, **grants)
    return world, a, b


def running(world: Federation, a: Node, b: Node, **fields: object) -> tuple[Job, Run, Run]:
    """A job of A's user that runs at B, A's run and B's."""
    (job,) = a.submit(task(**{"cores": 2, **fields}))
    world.pass_ms(2_000)
    (guest,) = b.own_runs(RunState.OFFERED)
    b.accept(guest)
    b.start(b.view.runs[guest.id])
    world.pass_ms(2_000)
    return job, a.run_of(job), b.view.runs[guest.id]


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


# -- what is free -----------------------------------------------------------------------------------------------------


def free(node: Node, asker: Node) -> dict[str, tuple[tuple[str, ...], dict[str, int]]]:
    """Site -> its way and the free cores of its pools, as ``node`` tells ``asker``."""
    state: BranchState = node.do(ReadState(peer=asker.id))
    return {site.id: (site.path, {pool.pool: pool.cores for pool in site.pools}) for site in state.sites}


def test_what_a_peer_holds_itself_counts_as_free_to_it_and_not_to_others() -> None:
    world, a, b = pair()
    c = world.add("c")
    b.knows(c, may_use=True)
    running(world, a, b, cores=3)
    assert free(b, a)["cn.b.lab/site/one"] == ((b.id,), {"cn.b.lab/pool/one": 8})
    assert free(b, c)["cn.b.lab/site/one"] == ((b.id,), {"cn.b.lab/pool/one": 5})
    world.pass_ms(3_000)
    assert a.view.supply.pools.free("cn.b.lab/pool/one").cores == 5


def test_pools_that_the_owner_does_not_show_are_not_shown_and_not_placed_on() -> None:
    world = Federation()
    a, b = world.add("a"), world.add("b")
    b.join("lab", "private", access="private")
    b.join("lab", "partner", access="partner", partners=("cn.a",))
    b.join("lab", "others", access="partner", partners=("cn.x",))
    world.join_up(a, b)
    assert list(free(b, a)) == ["cn.b.lab/site/partner"]
    (job,) = a.submit(task())
    assert a.run_of(job).site == "cn.b.lab/site/partner"
    world.pass_ms(2_000)
    assert b.own_runs(RunState.OFFERED)  # the owner's partner is the exchange, not each of its users


def test_a_peer_without_the_grant_sees_nothing() -> None:
    world, a, b = pair()
    b.do(ChangePeer(actor=ADMIN, peer=a.id, what="grant", may_use=False))
    assert free(b, a) == {}
    world.pass_ms(2_000)
    (job,) = a.submit(task())
    assert a.view.jobs[job.id].state is JobState.QUEUED


def test_the_shortest_way_wins_and_the_next_one_when_it_falls_silent() -> None:
    world = Federation()
    a, hub, b = world.add("a"), world.add("hub"), world.add("b")
    b.join("lab", "one")
    world.join_up(hub, b)
    world.join_up(a, b)
    world.join_up(a, hub)
    world.pass_ms(2_000)
    assert a.view.remote_sites == {"cn.b.lab/site/one": b.id}
    assert free(hub, a)["cn.b.lab/site/one"][0] == (hub.id, b.id)
    world.cut(a, b)
    world.pass_ms(15_000)
    assert a.view.remote_sites == {"cn.b.lab/site/one": hub.id}
    assert not a.view.supply.pools.site_flags("cn.b.lab/site/one").is_silent
    (job,) = a.submit(task())
    assert a.run_of(job).via == hub.id
    world.heal(a, b)
    world.pass_ms(3_000)
    assert a.view.remote_sites == {"cn.b.lab/site/one": b.id}


def test_a_job_waits_for_a_site_to_which_no_way_leads_any_more_and_its_owner_is_asked_over_there() -> None:
    """Here alice is nobody to that owner; over there she is a user of this exchange, whatever leads there just now."""
    world = Federation()
    a, b = world.add("a"), world.add("b")
    b.join("lab", "one", policy='user_owner == "cn.a"')
    world.join_up(a, b)
    a.do(TakeBranch(peer=b.id, state=BranchState(exchange=b.id, at_ms=world.clock.now_ms(), head=0)))
    assert a.view.remote_sites == {}
    (job,) = a.submit(task())
    assert a.view.jobs[job.id].state is JobState.QUEUED
    assert [reason.code for reason in a.do(WhyJob(actor=ADMIN, job=job.id)).reasons] == ["site_not_admitted"]
    a.look(b)
    assert a.run_of(job).via == b.id


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_restart_refuses_nothing_that_its_peers_were_not_asked_about(is_silent: bool) -> None:
    """The owner's policy names the exchange, and its pools are known before anything is heard from behind the peer."""
    world = Federation()
    a, b = world.add("a"), world.add("b")
    b.join("lab", "one", policy='user_owner == "cn.a"')
    world.join_up(a, b)
    a.crash()
    if is_silent:
        a.do(TakeBranch(peer=b.id, state=None, error="no answer"))
    (job,) = a.submit(task())
    assert [reason.code for reason in a.do(WhyJob(actor=ADMIN, job=job.id)).reasons] == ["site_not_admitted"]
    with pytest.raises(TielineError, match="none can ever run it"):
        a.submit(task(cores=9))
    a.look(b)
    assert a.run_of(job).via == b.id


def test_what_is_behind_the_asker_is_not_told_to_it_and_loops_lead_nowhere() -> None:
    world = Federation()
    a, b = world.add("a"), world.add("b")
    a.join("home", "own")
    b.join("lab", "one")
    world.join_up(a, b)
    b.uses(a)
    a.do(ChangePeer(actor=ADMIN, peer=b.id, what="grant", may_use=True))
    world.pass_ms(3_000)
    assert list(free(b, a)) == ["cn.b.lab/site/one"]
    assert list(free(a, b)) == ["cn.a.home/site/own"]
    ways = [(), (a.id,), (b.id, a.id), (b.id, b.id), (b.id, "x", "y", "z"), ("x",)]
    sites = tuple(SiteState(id=f"cn.b.lab/site/s{at}", owner="cn.b.lab", path=way) for at, way in enumerate(ways))
    mine = SiteState(id="cn.a.home/site/own", owner="cn.a.home", path=(b.id,))
    a.do(TakeBranch(peer=b.id, state=BranchState(exchange=b.id, at_ms=0, head=0, sites=(*sites, mine))))
    assert a.view.remote_sites == {}
    assert a.view.supply.pools.site_flags("cn.a.home/site/own").is_admitted


def says(node: Node, peer: str, *sites: SiteState) -> None:
    node.do(TakeBranch(peer=peer, state=BranchState(exchange=peer, at_ms=0, head=0, sites=sites)))


@pytest.mark.parametrize("is_heard", [False, True])
def test_a_peer_that_says_that_it_leads_to_a_site_that_another_admitted_draws_nothing(is_heard: bool) -> None:
    """The owner's prefix was given by `cn.b`: whoever else says that the site is its own has no way to it."""
    world = Federation()
    a, b = world.add("a"), world.add("b")
    liar = world.add("aa")  # the first by name
    one = b.join("lab", "one")
    a.knows(liar)
    a.knows(b)
    a.copy_records(b)
    pool = PoolState(pool="cn.b.lab/pool/one", cores=8, memory_bytes=2**36)
    state = SiteState(id=one, owner="cn.b.lab", path=(liar.id,), pools=(pool,))
    twice = replace(state, path=(liar.id, b.id, liar.id))
    lies = (
        state,
        replace(state, path=(liar.id, "cn.b.lab/exchange/main")),
        replace(state, path=(liar.id, "cn.bb/x/y")),
    )
    if is_heard:
        b.knows(a, may_use=True)
        a.uses(b)
        a.look(b)
    for lie in (*lies, twice, replace(state, owner="cn.aa.lab"), replace(state, id=f"/{one}")):
        says(a, liar.id, lie)
        assert not a.view.ways[liar.id]
        assert a.view.way_to(one) == (b.id if is_heard else "")
    (job,) = a.submit(task())
    via = a.run_of(job).via if a.view.jobs[job.id].run else ""
    assert via == (b.id if is_heard else "")
    honest = replace(state, path=(liar.id, b.id), pools=())
    says(a, liar.id, honest, *lies)  # the same site again, another way: each is judged by itself
    assert a.view.way_to(one) == (b.id if is_heard else liar.id)
    world.cut(a, b)
    world.pass_ms(15_000)
    says(a, liar.id, honest, *lies)
    assert a.view.said[one] == honest


def test_of_several_ways_that_over_an_exchange_above_the_site_wins_and_then_the_shortest() -> None:
    """A far exchange can be named by anybody; who signed for the site's prefix is known."""
    world = Federation()
    a, liar, hub = world.add("a"), world.add("aa"), world.add("b")
    for node in (liar, hub):
        a.knows(node)
    far, name = "cn.b.gd/exchange/main", "cn.b.gd.lab/site/one"
    near = SiteState(id=name, owner="cn.b.gd.lab", path=(liar.id, far))
    says(a, liar.id, near)
    assert a.view.way_to(name) == liar.id
    says(a, hub.id, replace(near, path=(hub.id, "cn.x/exchange/main", far)))
    assert a.view.way_to(name) == hub.id
    says(a, liar.id, near)
    assert a.view.way_to(name) == hub.id
    says(a, hub.id)
    assert a.view.way_to(name) == liar.id


def test_a_machine_that_two_exchanges_admitted_is_reached_over_each_by_its_name_there() -> None:
    """An industry exchange takes in what a region has taken in; each leads to what it gave the owner's prefix for."""
    world = Federation()
    a, region, trade = world.add("a"), world.add("region"), world.add("trade")
    names = (region.join("lab", "one"), trade.join("lab", "one"))
    world.join_up(a, region)
    world.join_up(a, trade)
    assert a.view.remote_sites == dict(zip(names, (region.id, trade.id), strict=True))
    world.join_up(region, trade)
    world.pass_ms(2_000)
    world.cut(a, trade)
    world.pass_ms(15_000)
    assert a.view.remote_sites == dict.fromkeys(names, region.id)


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


def told(node: Node, asker: Node) -> tuple[SiteState, ...]:
    state: BranchState = decide(node.view, ReadState(peer=asker.id), node.now_ms, node.ids).reply
    return state.sites


def walked(node: Node, asker: Node) -> tuple[SiteState, ...]:
    """The same, by a walk over everything that is known, with nothing remembered."""
    view, supply = node.view, node.view.supply
    kept = view.showing, supply.change, dict(supply.changes)
    view.showing = Showing()
    for site in (*view.sites, *view.remote_sites):
        supply.touch(site)
    found = told(node, asker)
    view.showing, supply.change, supply.changes = kept
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_a_peer_is_told_is_what_a_walk_over_everything_gives(seed: int) -> None:
    random = Random(seed)
    world = Federation()
    a, b, c, hub = nodes = [world.add(name) for name in ("a", "b", "c", "hub")]
    b.join("lab", "one")
    b.join("mill", "two", access="partner", partners=["cn.a"])
    c.join("yard", "one")
    c.join("mine", "two", access="private")
    hub.join("own", "one")
    links = [(a, hub), (b, hub), (c, hub), (a, b)]
    for one, other in links:
        one.knows(other, may_use=True)
        other.knows(one, may_use=True)
    for one, other in links:
        one.uses(other)
        other.uses(one)
    seen: dict[str, None] = {}
    for _ in range(60):
        step, (one, other) = random.randrange(5), random.choice(links)
        host = random.choice((b, c, hub))
        if step == 0:
            with suppress(TielineError):
                random.choice(nodes).submit(task())
        elif step == 1:
            site = random.choice(sorted(host.view.sites))
            host.do(ChangeSite(actor=ADMIN, site=site, what=random.choice(("drain", "undrain"))))
        elif step == 2:
            world.cut(one, other)
        elif step == 3:
            world.heal(one, other)
        elif guests := host.own_runs(RunState.OFFERED):
            host.refuse(random.choice(guests))
        world.pass_ms(random.choice((500, 3_000, 20_000)))
        for node in nodes:
            for asker in nodes:
                if asker.id in node.view.peers:
                    sites = told(node, asker)
                    assert sites == walked(node, asker)
                    seen.update((f"{node.name} {asker.name} {site.id} {len(site.path)}", None) for site in sites)
    assert {"b a cn.b.mill/site/two 1", "hub a cn.c.yard/site/one 2", "hub b cn.c.yard/site/one 2"} <= set(seen)
    assert not [each for each in seen if "mine" in each or each.startswith(("b hub cn.b.mill", "b c "))]
    assert not [each for each in seen if "mill" in each and each != "b a cn.b.mill/site/two 1"], "nobody passes it on"


def test_what_a_partner_may_use_is_not_the_partners_to_pass_on() -> None:
    world = Federation()
    hub, a, b = (world.add(name) for name in ("hub", "a", "b"))
    b.join("mill", "two", access="partner", partners=["cn.a"])
    world.join_up(a, b)
    world.join_up(hub, a)
    hub.knows(b)  # its key is pinned; nothing is used there
    hub.copy_records(a)
    (job,) = a.submit(task())
    assert a.run_of(job).via == b.id
    assert free(a, hub) == {}
    world.cut(hub, a)
    pool = PoolState(pool="cn.b.mill/pool/two", cores=8, memory_bytes=2**36)
    made_up = SiteState(id="cn.b.mill/site/two", owner="cn.b.mill", path=(a.id, b.id), pools=(pool,))
    hub.do(TakeBranch(peer=a.id, state=BranchState(exchange=a.id, at_ms=0, head=0, sites=(made_up,))))
    (forced,) = hub.submit(task())
    offered = offer_of(hub.view, hub.run_of(forced), hub.now_ms)
    (said,) = a.do(TakeOffer(peer=hub.id, offer=offered)).reports
    assert isinstance(said, Refused)
    assert said.reason.code == "access_partner"
