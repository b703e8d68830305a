"""Sites, tokens, records and quotes: who gets in, and what an owner's word is worth."""

import msgspec
import pytest
from exchange_world import ADMIN, ALICE, PREFIX, World, seed, task

from tieline.exchange.commands import ChangeSite, CreateToken, JoinSite, ReadSituation, RevokeToken, Tick
from tieline.exchange.orders import order_of
from tieline.exchange.projection import ROW, load, rows
from tieline.exchange.view import View
from tieline.model.api import JoinStatement
from tieline.model.error import TielineError
from tieline.model.event import QuoteChanged, SiteChanged
from tieline.model.party import Actor, Role
from tieline.model.protocol import Ask, Offer, PoolBeat, Quoted
from tieline.model.task import DataUse
from tieline.registry import Key, sign_statement

SMALL = {"core_count": 4, "price_micro_cny_per_accelerator_hour": 3_600_000}


def test_a_site_without_a_token_waits_until_it_is_accepted(world: World) -> None:
    site = world.join("lab7", "gz1", token="", **SMALL)
    assert not world.view.sites[site].is_admitted
    with pytest.raises(TielineError) as refused:
        world.submit(task(cores=9))
    assert refused.value.code == "unplaceable"
    (job,) = world.submit(task())
    assert world.view.jobs[job.id].run == ""
    world.do(ChangeSite(actor=ADMIN, site=site, what="accept"))
    assert world.run_of(job).site == site


def test_a_used_up_wrong_or_revoked_token_is_refused_in_the_same_words(world: World) -> None:
    once = world.token("lab7", uses=1)
    world.join("lab7", "gz1", token=once, **SMALL)
    revoked = world.token("lab7")
    world.do(RevokeToken(actor=ADMIN, id=world.view.tokens[revoked].id))
    said = set()
    for token in (once, revoked, "f" * 64):
        with pytest.raises(TielineError) as refused:
            world.join("lab7", "gz2", token=token, **SMALL)
        said.add((refused.value.code, refused.value.message))
    assert said == {("token_refused", "the token is wrong, expired or used up")}


def test_a_token_of_one_owner_does_not_admit_another(world: World) -> None:
    with pytest.raises(TielineError, match="does not let"):
        world.join("lab8", "gz1", token=world.token("lab7"), **SMALL)


def test_a_known_owner_joins_with_its_own_key_only(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    thief = Key(seed("thief"))
    statement = JoinStatement(
        owner="lab7", owner_public=thief.public, site="gz9", site_public=thief.public, sealing=thief.public,
        nonce=world.nonce(), at_ms=world.clock.now_ms(),
    )  # fmt: skip
    for kid in (f"{PREFIX}.lab7#k1", f"{PREFIX}.lab7#k2"):
        signed = sign_statement(statement, thief, kid, "site-join")
        with pytest.raises(TielineError) as refused:
            world.do(JoinSite(statement=signed, token_sha256=world.token("lab7")))
        assert refused.value.code == "unauthenticated"
    assert f"{PREFIX}.lab7/site/gz9" not in world.view.sites


def test_a_statement_is_taken_once_and_not_from_the_past(world: World) -> None:
    key = Key(seed("lab7"))
    statement = JoinStatement(
        owner="lab7", owner_public=key.public, site="gz1", site_public=key.public, sealing=key.public,
        nonce=world.nonce(), at_ms=world.clock.now_ms(),
    )  # fmt: skip
    signed = sign_statement(statement, key, f"{PREFIX}.lab7#k1", "site-join")
    world.do(JoinSite(statement=signed))
    with pytest.raises(TielineError, match="used before"):
        world.do(JoinSite(statement=signed))
    old = msgspec.structs.replace(statement, nonce=world.nonce(), at_ms=world.clock.now_ms() - 3_600_000)
    with pytest.raises(TielineError, match="clock"):
        world.do(JoinSite(statement=sign_statement(old, key, f"{PREFIX}.lab7#k1", "site-join")))


def test_only_admins_make_tokens_and_owners_make_join_tokens_of_their_own(world: World) -> None:
    owner = Actor(name="lab7", roles=(Role.OWNER,), owner=f"{PREFIX}.lab7")
    made = world.do(CreateToken(actor=owner, sha256="1" * 64, name="mine", roles=(Role.JOIN,), owner=f"{PREFIX}.lab7"))
    assert made.owner == f"{PREFIX}.lab7"
    for roles, whose in (((Role.JOIN,), f"{PREFIX}.lab8"), ((Role.ADMIN,), ""), ((Role.USER,), "")):
        with pytest.raises(TielineError) as refused:
            world.do(CreateToken(actor=owner, sha256="2" * 64, name="x", roles=roles, owner=whose))
        assert refused.value.code == "forbidden"


def test_a_silent_site_is_shown_silent_and_comes_back_when_heard(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    world.pass_ms(12_000)
    assert world.view.sites[site].is_silent
    world.beat(site)
    assert not world.view.sites[site].is_silent
    assert [event.site.is_silent for event in world.events if isinstance(event, SiteChanged)] == [True, False]


def test_an_old_heartbeat_changes_nothing(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    world.beat(site)
    world.beats[site] = -5
    with pytest.raises(TielineError, match="not newer"):
        world.beat(site)


def test_what_the_owner_takes_away_by_heartbeat_is_not_placed_on(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    world.beat(site, pools=(PoolBeat(pool=f"{PREFIX}.lab7/pool/gz1", cores=1),))
    (job,) = world.submit(task(cores=2))
    assert world.view.jobs[job.id].run == ""
    world.beat(site, pools=(PoolBeat(pool=f"{PREFIX}.lab7/pool/gz1", cores=4),))
    world.do(Tick())
    assert world.run_of(job).site == site


def test_a_countered_quote_is_accepted_and_books_its_pool_at_its_price(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    quote = world.quote(task(), price_micro_cny=1_000_000, duration_s=60)
    asked = next(event for event in world.events if isinstance(event, QuoteChanged))
    order = order_of(asked, world.view, world.clock.now_ms())
    assert order is not None
    assert isinstance(order[1], Ask)
    world.report(site, Quoted(quote=quote.id, price_micro_cny_per_unit_hour=2_000_000, duration_s=60, ttl_s=30))
    opened = world.view.quotes[quote.id]
    assert (opened.state, opened.is_countered) == ("open", True)
    job = world.accept_quote(quote.id)
    run = world.run_of(job)
    assert (run.price_micro_cny_per_unit_hour, run.site, run.stop_after_s) == (2_000_000, site, 60)


def test_an_expired_quote_cannot_be_accepted(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    quote = world.quote(task())
    world.report(site, Quoted(quote=quote.id, price_micro_cny_per_unit_hour=3_600_000, ttl_s=5))
    world.clock.advance(6_000)
    with pytest.raises(TielineError) as refused:
        world.accept_quote(quote.id)
    assert refused.value.code == "quote_expired"
    world.do(Tick())
    assert not world.view.quotes


def test_a_quote_is_accepted_by_its_asker_alone_and_once(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    quote = world.quote(task())
    world.report(site, Quoted(quote=quote.id, price_micro_cny_per_unit_hour=3_600_000))
    world.accept_quote(quote.id)
    with pytest.raises(TielineError, match="no open quote"):
        world.accept_quote(quote.id)


def test_the_situation_names_no_owner_user_or_job(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task())
    said = msgspec.json.encode(world.do(ReadSituation(actor=ADMIN))).decode()
    for word in ("lab7", "alice", job.id.rsplit("/", 1)[1]):
        assert word not in said


def test_a_view_loaded_from_the_projections_is_the_view_that_made_them(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    world.join("lab8", "sh1", **{**SMALL, "core_count": 5})
    world.join("lab9", "bj1", **{**SMALL, "core_count": 2})
    running = world.submit(task(cores=4))[0]
    world.submit(task(cores=5))
    waiting = world.submit(task(cores=5))[0]
    world.submit(task("a"), task("b"))
    world.start(world.run_of(running))
    world.quote(task())
    tables: dict[str, dict[str, object]] = {name: {} for name in ROW}
    for table, key, row in rows(world.view):
        tables[table][key] = row
    again = View(world.keys)
    load(again, {name: list(kept.values()) for name, kept in tables.items()}, world.clock.now_ms())  # type: ignore[misc]
    assert again.jobs == world.view.jobs
    assert again.runs == world.view.runs
    assert again.quotes == world.view.quotes
    assert again.sites == world.view.sites
    assert again.tokens == world.view.tokens
    assert again.dependents == world.view.dependents
    pool = f"{PREFIX}.lab7/pool/gz1"
    assert again.supply.pools.free(pool) == world.view.supply.pools.free(pool)
    assert waiting.id in again.waiting
    assert site in again.sites
    assert not again.touched


def test_after_a_start_no_site_is_silent_before_all_could_come_back(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task())
    world.start(world.run_of(job))
    tables: dict[str, list[object]] = {name: [] for name in ROW}
    for table, _, row in rows(world.view):
        tables[table].append(row)
    again = View(world.keys)
    load(again, tables, world.clock.now_ms())  # type: ignore[arg-type]
    world.view = again
    world.clock.advance(60_000)  # so long it took to fill the view
    world.do(Tick())
    assert not world.view.sites[site].is_silent
    world.clock.advance(world.view.limits.lease_ms + 1)
    world.do(Tick())
    assert not world.view.sites[site].is_silent, "one more site needs a little longer than a lease"
    world.clock.advance(1_000)
    world.do(Tick())
    assert world.view.sites[site].is_silent
    assert world.view.jobs[job.id].losses == 1


def test_an_offer_that_is_repeated_after_a_reconnect_says_what_the_exchange_believes(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task())
    world.start(world.run_of(job))
    _, orders = world.open(site)
    assert [(order.run, order.state) for order in orders if isinstance(order, Offer)] == [
        (world.run_of(job).id, "running")
    ]
    assert ALICE.name == orders[0].user


def test_a_delegation_is_signed_anew_before_its_lease_ends(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    name = f"{PREFIX}/owner/lab7"
    world.clock.advance(350 * 86_400_000)
    world.open(site)
    head = world.view.catalogue.head(name)
    assert head is not None
    assert (head.rev, head.exp - world.clock.now_ms() // 1000 > 300 * 86_400) == (2, True)


def test_an_offer_says_what_class_of_data_the_task_reads(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    world.register("lab7", "dataset/scans", {"sites": [site], "data_class": "secret", "residency": "owner"})
    world.submit(task(data=(DataUse(id=f"{PREFIX}.lab7/dataset/scans"),)))
    _, orders = world.open(site)
    assert [(order.data_class, order.residency) for order in orders if isinstance(order, Offer)] == [
        (("secret",), ("owner",))
    ]
