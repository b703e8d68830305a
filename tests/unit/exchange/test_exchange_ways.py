"""Ways: what is free behind a peer, over whom a site is reached, and what each peer is told of it."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import msgspec
import pytest
from branches_world import Federation, Node, pair, running
from exchange_world import ADMIN, task

from tieline.exchange.commands import (
    ChangePeer,
    ChangeSite,
    ReadState,
    TakeBranch,
    TakeOffer,
    WhyJob,
)
from tieline.exchange.decide import decide
from tieline.exchange.orders import offer_of
from tieline.exchange.showing import Showing
from tieline.model.error import TielineError
from tieline.model.job import JobState, RunState
from tieline.model.peer import BranchState, PoolState, SiteState
from tieline.model.protocol import Refused

replace = msgspec.structs.replace


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
