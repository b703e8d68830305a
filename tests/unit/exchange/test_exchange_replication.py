"""Replication: an exchange follows another's logs and ends up with the same records, whatever happens on the way."""

from __future__ import annotations

import pytest
from replica_world import START_MS, Exchange, Following, Owner

from tieline.exchange.commands import TakeBranch, TakePage
from tieline.model.error import TielineError
from tieline.model.event import RecordsTaken
from tieline.model.peer import BranchState
from tieline.model.record import Status
from tieline.ports import FakeClock
from tieline.registry import follow, opened
from tieline.registry.serving import Grant


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(at_ms=START_MS)


@pytest.fixture
def hub(clock: FakeClock) -> Exchange:
    return Exchange("cn", clock)


@pytest.fixture
def region(clock: FakeClock) -> Exchange:
    return Exchange("eu", clock)


def filled(exchange: Exchange, labs: int = 3, datasets: int = 25) -> list[Owner]:
    """Owners below an exchange, and what they offer."""
    parent = Owner(exchange.prefix)
    owners = []
    for number in range(labs):
        exchange.store(parent.give(f"lab{number}"))
        owner = Owner(f"{exchange.prefix}.lab{number}")
        exchange.store(*[owner.write(f"dataset/d{n:03}", size_bytes=n) for n in range(datasets)])
        owners.append(owner)
    return owners


def test_a_cold_follower_ends_with_the_same_records(hub: Exchange, region: Exchange) -> None:
    filled(hub)
    following = Following(region, hub)
    following.run()
    assert region.heads("cn") == hub.heads("cn")
    assert [region.heads(f"cn.lab{n}") for n in range(3)] == [hub.heads(f"cn.lab{n}") for n in range(3)]
    shown = follow.standing(following.state)
    assert (shown.lag, shown.error, shown.fault, shown.is_listening) == (0, None, None, True)
    assert shown.stored == len(hub.heads())


def test_what_the_tail_says_is_taken_without_a_question(hub: Exchange, region: Exchange) -> None:
    (owner,) = filled(hub, labs=1)
    following = Following(region, hub)
    following.run()
    asked = following.counts["AskRecords"]
    for size_bytes in range(5):
        hub.store(owner.write("dataset/fresh", size_bytes=size_bytes))
    following.run()
    assert region.heads("cn.lab0") == hub.heads("cn.lab0")
    assert following.counts["AskRecords"] == asked


def test_a_restart_goes_on_from_the_committed_cursor(hub: Exchange, region: Exchange) -> None:
    (owner,) = filled(hub, labs=1, datasets=50)
    following = Following(region, hub)
    following.run()
    taken = len(region.events)
    hub.store(owner.write("dataset/later"))
    following.begin()
    following.run()
    assert region.heads("cn.lab0") == hub.heads("cn.lab0")
    assert len(region.events) == taken + 1


def test_a_partition_heals_from_where_it_was(hub: Exchange, region: Exchange, clock: FakeClock) -> None:
    (owner,) = filled(hub, labs=1)
    following = Following(region, hub)
    following.run()
    following.is_cut = True
    following.is_tail_open = False
    following.hear(follow.TailEnded(reason=follow.reason_of(TielineError("timeout", "cut"))))
    hub.store(*[owner.write(f"dataset/cut{n}") for n in range(20)])
    following.run(until_ms=clock.now_ms() + 60_000)
    assert follow.standing(following.state).error is not None
    following.is_cut = False
    healed_ms = clock.now_ms()
    following.run(until_ms=healed_ms + 2_000)
    assert region.heads("cn.lab0") == hub.heads("cn.lab0")
    assert follow.standing(following.state).error is None


def test_a_log_waits_for_its_delegation_and_is_taken_when_it_comes(hub: Exchange, region: Exchange) -> None:
    parent, owner = Owner("cn"), Owner("cn.lab9")
    gift = parent.give("lab9")
    hub.store(gift, *[owner.write(f"dataset/d{n}") for n in range(5)])
    hub.archive.forget("cn/owner/lab9")  # the peer does not show it
    following = Following(region, hub)
    following.run()
    assert region.heads("cn.lab9") == {}
    assert follow.standing(following.state).paused == ("cn.lab9",)
    assert not [cursor for cursor in region.view.cursors if cursor[1] == "cn.lab9"]
    region.store(gift)  # it comes from elsewhere
    following.run(until_ms=region.clock.now_ms() + 600_000)
    assert region.heads("cn.lab9") == hub.heads("cn.lab9")


def test_revisions_in_between_are_not_needed(hub: Exchange, region: Exchange) -> None:
    (owner,) = filled(hub, labs=1, datasets=1)
    following = Following(region, hub)
    following.run()
    following.is_cut = True
    for size_bytes in range(7):
        hub.store(owner.write("dataset/d000", size_bytes=size_bytes))
    following.is_cut = False
    following.run(until_ms=region.clock.now_ms() + 120_000)
    head = region.view.catalogue.head("cn.lab0/dataset/d000")
    assert head is not None
    assert head.rev == 8


def test_a_withdrawal_is_final_whatever_is_shown_after_it(hub: Exchange, region: Exchange) -> None:
    (owner,) = filled(hub, labs=1, datasets=2)
    alive = owner.latest["cn.lab0/dataset/d001"]
    hub.store(owner.write("dataset/d001", status=Status.WITHDRAWN))
    following = Following(region, hub)
    following.run()
    again = owner.forge("dataset/d001", rev=3, prev="0" * 64)
    reply = region.do(page(hub, "cn.lab0", [alive, again], serial=99))
    assert (reply.stored, reply.unchanged, reply.refused) == (0, 1, {"withdrawn": 1})
    assert region.heads("cn.lab0") == hub.heads("cn.lab0")


def page(peer: Exchange, prefix: str, envelopes: list[bytes], serial: int = 1, **more: object) -> TakePage:
    return TakePage(
        peer=peer.id, prefix=prefix, session=peer.archive.session, serial=serial, envelopes=tuple(envelopes), **more
    )  # type: ignore[arg-type]


def test_two_payloads_of_one_revision_are_proof_once(hub: Exchange, region: Exchange) -> None:
    (owner,) = filled(hub, labs=1, datasets=1)
    following = Following(region, hub)
    following.run()
    other = owner.forge("dataset/d000", spec={"size_bytes": 77})
    for serial in (50, 51):
        reply = region.do(page(hub, "cn.lab0", [other], serial=serial))
        assert reply.equivocations == 1
    (proof,) = region.proofs()
    assert proof.other_envelope.encode() == other
    assert region.heads("cn.lab0") == hub.heads("cn.lab0")


def test_a_checkpoint_spares_the_signatures_of_whole_pages(hub: Exchange, region: Exchange) -> None:
    (owner,) = filled(hub, labs=1, datasets=45)
    hub.store(owner.checkpoint(page_records=10))
    hub.store(owner.write("dataset/d012", size_bytes=1), owner.write("dataset/later"))  # one page does not match now
    following = Following(region, hub)
    following.run()
    assert region.heads("cn.lab0") == hub.heads("cn.lab0")
    assert following.counts["AskSnapshot"] == 5
    assert following.counts["proved"] == 4


def test_a_checkpoint_that_its_owner_did_not_sign_proves_nothing(hub: Exchange, region: Exchange) -> None:
    owner, thief = filled(hub, labs=2, datasets=5)
    records = [owner.latest[name] for name in sorted(owner.latest)]
    forged = records[0][:-10] + b"AAAAAAAA" + records[0][-2:]
    following = Following(region, hub)
    following.run()
    fresh = Exchange("us", hub.clock)
    fresh.know(hub)
    Following(fresh, hub, grant=Grant(prefixes=("cn.none",)))
    assert fresh.view.catalogue.intake("cn.lab0", START_MS // 1000).is_waiting
    changed = [forged, *records[1:]]
    listing = Owner("cn.lab0", latest=dict(zip(sorted(owner.latest), records, strict=True)))
    theirs = listing.checkpoint()
    reply = region.do(page(hub, "cn.lab0", changed, 60, checkpoint=theirs, page=0))
    assert (reply.is_proved, reply.refused) == (False, {})  # the same payload is held: nothing is verified again
    stolen = thief.checkpoint()
    reply = region.do(page(hub, "cn.lab0", records, 61, checkpoint=stolen, page=0))
    assert not reply.is_proved


def test_filters_bind_downwards(hub: Exchange, region: Exchange) -> None:
    owners = filled(hub, labs=2, datasets=5)
    hub.store(owners[0].write("model/m1"))
    hub.store(owners[1].write("model/m1"))
    following = Following(region, hub, grant=Grant(kinds=("owner", "model"), prefixes=("cn", "cn.lab1")))
    following.run()
    assert sorted(name for name in region.heads() if "/model/" in name) == ["cn.lab0/model/m1", "cn.lab1/model/m1"]
    assert not [name for name in region.heads() if "/dataset/" in name]
    narrow = Exchange("us", hub.clock)
    following = Following(narrow, hub, grant=Grant(prefixes=("cn.lab1",)))
    following.run()
    assert narrow.heads("cn.lab0") == {}


def test_a_digest_finds_what_a_cursor_has_passed(hub: Exchange, region: Exchange, clock: FakeClock) -> None:
    filled(hub, labs=1, datasets=60)
    following = Following(region, hub)
    following.run()
    for number in (3, 17):
        name = f"cn.lab0/dataset/d{number:03}"
        region.view.catalogue.forget(name)
        region.archive.forget(name)
    following.run(until_ms=clock.now_ms() + 1_300_000)
    assert region.heads("cn.lab0") == hub.heads("cn.lab0")
    assert following.counts["AskEnvelopes"] == 1


def test_a_new_log_is_compared_only_where_something_of_it_is_here(
    hub: Exchange, region: Exchange, clock: FakeClock
) -> None:
    (owner,) = filled(hub, labs=1, datasets=600)
    following = Following(region, hub)
    following.run()
    assert following.counts["AskDigest"] == 1  # of what is here
    other = Exchange("us", clock)  # has the same records, which came another way
    other.know(hub)
    Following(other, region).run()
    again = Following(other, hub)
    again.run()
    assert again.counts["AskDigest"] == 2
    assert "AskBuckets" not in again.counts
    assert other.heads(owner.prefix) == hub.heads(owner.prefix)


def test_what_a_page_of_the_log_says_of_its_records_is_what_is_held(hub: Exchange, region: Exchange) -> None:
    (owner,) = filled(hub, labs=1)
    hub.store(owner.write("dataset/d003", status=Status.WITHDRAWN), owner.write("pool/p", site="cn.lab0/site/s"))
    Following(region, hub).run()
    pages = [event for event in region.events if isinstance(event, RecordsTaken)]
    told = {record.id: record for page in pages for record in page.records}
    rows = {row.id: row for row in region.view.catalogue.rows()}
    assert set(told) == {name for name in rows if name.startswith("cn")}
    for name, record in told.items():
        row = rows[name]
        assert (record.kind, record.rev, record.sha256) == (row.kind, row.rev, row.sha256)
        assert (record.exp, record.status, record.kid) == (row.exp, row.status, row.kid)
        assert opened(record.envelope.encode()).sha256.hex() == row.sha256


def test_a_renumbered_log_is_compared_and_not_taken_again(hub: Exchange, region: Exchange, clock: FakeClock) -> None:
    (owner,) = filled(hub, labs=1, datasets=600)
    following = Following(region, hub)
    following.run()
    asked, events = following.counts["AskRecords"], len(region.events)
    hub.archive.session = "s-2"
    hub.store(owner.write("dataset/d000", size_bytes=9_999))
    following.run(until_ms=clock.now_ms() + 120_000)
    assert region.heads("cn.lab0") == hub.heads("cn.lab0")
    assert region.view.cursors[(hub.id, "cn.lab0")].session == "s-2"
    assert following.counts["AskRecords"] - asked <= 3
    assert len(region.events) - events <= 6
    assert not following.blames


def test_an_exchange_that_lost_its_newest_records_gets_them_back(hub: Exchange, clock: FakeClock) -> None:
    (owner,) = filled(hub, labs=1, datasets=5)
    region = Exchange("eu", clock)
    Following(region, hub).run()
    restored = Exchange("cn", clock)  # an old backup: nothing but its key
    restored.archive.session = "s-restored"
    back = Following(restored, region)
    back.run(until_ms=clock.now_ms() + 120_000)
    assert restored.heads("cn") == region.heads("cn")
    assert restored.heads("cn.lab0") == region.heads("cn.lab0")
    assert owner.latest


@pytest.mark.parametrize("seed", range(12))
def test_loss_repetition_and_disorder_end_in_the_same_catalogue(seed: int, clock: FakeClock) -> None:
    hub, region = Exchange("cn", clock), Exchange("eu", clock)
    owners = filled(hub, labs=3, datasets=12)
    following = Following(region, hub, seed, chaos=True)
    for turn in range(12):
        owner = owners[turn % 3]
        hub.store(owner.write(f"dataset/d{turn % 5:03}", size_bytes=turn), owner.write(f"model/m{turn}"))
        following.run(until_ms=clock.now_ms() + 5_000)
        if turn == 5:
            hub.store(owner.checkpoint(page_records=7))
            following.begin()
    following.chaos = False
    following.run(until_ms=clock.now_ms() + 1_500_000)
    for prefix in ("cn", "cn.lab0", "cn.lab1", "cn.lab2"):
        assert region.heads(prefix) == hub.heads(prefix), prefix
    assert not following.blames


def test_a_branch_that_falls_silent_is_frozen_and_not_dead(hub: Exchange, region: Exchange, clock: FakeClock) -> None:
    (owner,) = filled(hub, labs=1, datasets=20)
    hub.store(owner.write("dataset/short", days=1))
    following = Following(region, hub)
    following.run()
    catalogue = region.view.catalogue
    region.do(TakeBranch(peer=hub.id, state=BranchState(exchange=hub.id, at_ms=clock.now_ms(), head=1)))
    fell_silent_ms = clock.now_ms()
    clock.at_ms = fell_silent_ms + 86_400_000 + 600_000
    region.do(TakeBranch(peer=hub.id, state=None, error="timeout"))
    short = catalogue.standing("cn.lab0/dataset/short", clock.now_ms() // 1000)
    assert short is not None, "one lease among many ends"
    assert short.code == "lease_ended"
    clock.at_ms = fell_silent_ms + 30 * 86_400_000 - 3_600_000  # an hour before the other leases end
    region.do(TakeBranch(peer=hub.id, state=BranchState(exchange=hub.id, at_ms=clock.now_ms(), head=1)))
    clock.advance(2 * 3_600_000)
    many = "cn.lab0/dataset/d001"
    region.do(TakeBranch(peer=hub.id, state=None, error="timeout"))
    now_s = clock.now_ms() // 1000
    assert catalogue.standing(many, now_s) is None
    assert catalogue.is_stale(many, now_s)
    clock.advance(23 * 3_600_000)  # a day after it was last heard
    region.do(TakeBranch(peer=hub.id, state=None, error="timeout"))
    assert catalogue.standing(many, clock.now_ms() // 1000) is not None
    clock.advance(-23 * 3_600_000)
    region.do(TakeBranch(peer=hub.id, state=BranchState(exchange=hub.id, at_ms=clock.now_ms(), head=1)))
    assert catalogue.standing(many, clock.now_ms() // 1000) is not None, "it is heard again and renewed nothing"


def test_exchanges_that_hold_two_payloads_of_one_revision_end_with_the_same_one(
    hub: Exchange, region: Exchange
) -> None:
    (owner,) = filled(hub, labs=1, datasets=1)
    Following(region, hub).run()
    hub.know(region)
    name = "cn.lab0/dataset/d000"
    first = owner.latest[name]
    others = [owner.forge("dataset/d000", spec={"size_bytes": 70 + n}) for n in range(4)]
    least = min([first, *others], key=lambda envelope: opened(envelope).sha256)
    for serial, other in enumerate(others):
        region.do(page(hub, "cn.lab0", [other], serial=60 + serial))
        hub.do(page(region, "cn.lab0", [*others[serial:], other], serial=60 + serial))
    for exchange in (hub, region):
        head = exchange.view.catalogue.head(name)
        assert head is not None
        assert head.sha256 == opened(least).sha256.hex()
        assert len(exchange.proofs()) == 1, "it is shown once"
    assert region.heads("cn.lab0") == hub.heads("cn.lab0")
    owner.latest[name] = first  # what comes next follows on whichever of them its owner knows
    hub.store(owner.write("dataset/d000", size_bytes=1))
    assert hub.heads("cn.lab0")[name] != opened(least).sha256.hex()


def test_a_withdrawal_that_comes_late_ends_what_was_signed_beside_it(hub: Exchange, region: Exchange) -> None:
    (owner,) = filled(hub, labs=1, datasets=1)
    Following(region, hub).run()
    hub.know(region)
    name, prev = "cn.lab0/dataset/d000", opened(owner.latest["cn.lab0/dataset/d000"]).sha256.hex()
    dead = owner.forge("dataset/d000", rev=2, prev=prev, status=Status.WITHDRAWN)
    hub.store(dead)
    beside = [owner.forge("dataset/d000", rev=rev, prev=prev, spec={"size_bytes": rev}) for rev in (2, 3)]
    region.do(page(hub, "cn.lab0", beside, serial=60))
    assert hub.do(page(region, "cn.lab0", beside, serial=60)).refused == {"withdrawn": 1}
    assert region.do(page(hub, "cn.lab0", [dead], serial=61)).stored == 1
    assert region.heads("cn.lab0")[name] == hub.heads("cn.lab0")[name] == opened(dead).sha256.hex()
