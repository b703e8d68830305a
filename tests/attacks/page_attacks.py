"""What one page of a log can be."""

from __future__ import annotations

import msgspec
from page_world import (
    LAB,
    NEIGHBOUR,
    PageWorld,
    caught,
    changed_signature,
    digest_of,
    told,
)
from replica_world import DAY_S, START_MS, Owner, key_of

from tieline.exchange.commands import BlamePeer, TakePage
from tieline.model.record import Record, Status
from tieline.registry import opened, sign, sign_statement

replace = msgspec.structs.replace


def replayed(world: PageWorld) -> str:
    world.taken()
    return told(world.page(LAB, world.old))


def reordered(world: PageWorld) -> str:
    world.delegated()
    return told(world.page(LAB, world.latest(world.lab)[::-1]))


def repeated(world: PageWorld) -> str:
    world.delegated()
    return told(world.page(LAB, world.latest(world.lab) * 2))


def old_after_new(world: PageWorld) -> str:
    world.delegated()
    return told(world.page(LAB, [*world.latest(world.lab), *world.old]))


def flooded(world: PageWorld) -> str:
    world.taken()
    flood = [Owner(LAB).forge(f"dataset/flood{n}") for n in range(100)]
    reply = world.page(LAB, flood)
    assert world.region.view.catalogue.count(LAB) <= 40
    for envelope in flood:  # what was good of it was signed by the lab, after all
        name = _name(envelope)
        if name in world.region.heads():
            world.lab.latest[name] = envelope
    return told(reply)


def _name(envelope: bytes) -> str:
    return opened(envelope).record.id


def foreign(world: PageWorld) -> str:
    world.delegated()
    return told(world.page(LAB, world.latest(world.neighbour)))


def foreign_below(world: PageWorld) -> str:
    world.delegated()
    return told(world.page("cn", world.latest(world.lab)[:3]))


def bytes_changed(world: PageWorld) -> str:
    world.delegated()
    records = world.latest(world.lab)
    return told(world.page(LAB, [changed_signature(records[0]), *records[1:]]))


def payload_changed(world: PageWorld) -> str:
    world.delegated()
    forged = Owner(LAB).forge("dataset/d00", rev=9, prev="0" * 64, key=key_of("thief"))
    return told(world.page(LAB, [forged]))


def key_of_neighbour(world: PageWorld) -> str:
    world.delegated()
    envelope = Owner(NEIGHBOUR).forge("dataset/d00")
    record = Owner(LAB).forge("dataset/d00", key=key_of(NEIGHBOUR))
    assert envelope
    return told(world.page(LAB, [record]))


def kid_of_neighbour(world: PageWorld) -> str:
    world.delegated()
    now_s = START_MS // 1000
    record = Record(id=f"{LAB}/dataset/x", kind="dataset", rev=1, nb=now_s - 60, exp=now_s + DAY_S)
    return told(world.page(LAB, [sign(record, key_of(NEIGHBOUR), f"{NEIGHBOUR}#exchange")]))


def resurrected(world: PageWorld) -> str:
    world.taken()
    again = Owner(LAB).forge("dataset/d04", rev=3, prev="0" * 64)
    return told(world.page(LAB, [again]))


def resurrected_by_age(world: PageWorld) -> str:
    world.taken()
    return told(world.page(LAB, [world.old[4]]))


def tombstone_hidden(world: PageWorld) -> str:
    """The lease of the tombstone is over and the older revision's is not: the late comer must believe the tombstone."""
    world.delegated()
    long, short = Owner(LAB).forge("model/m", days=40), Owner(LAB)
    short.latest[f"{LAB}/model/m"] = long
    tombstone = short.write("model/m", status=Status.WITHDRAWN, days=1)
    world.clock.advance(5 * DAY_S * 1000)
    world.lab.latest[f"{LAB}/model/m"] = tombstone
    return told(world.page(LAB, [tombstone, long]))


def expired(world: PageWorld) -> str:
    world.delegated()
    world.clock.advance(31 * DAY_S * 1000)
    return told(world.page(LAB, world.latest(world.lab)[:5]))


def equivocated(world: PageWorld) -> str:
    world.taken()
    other = Owner(LAB).forge("dataset/d07", spec={"size_bytes": 1})
    first = told(world.page(LAB, [other], serial=91))
    again = told(world.page(LAB, [other], serial=92))
    return f"{first}; {again}; kept={len(world.region.proofs())}"


def equivocated_in_one_page(world: PageWorld) -> str:
    world.delegated()
    other = Owner(LAB).forge("dataset/d07", spec={"size_bytes": 1})
    return told(world.page(LAB, [world.lab.latest[f"{LAB}/dataset/d07"], other]))


def garbage(world: PageWorld) -> str:
    world.delegated()
    lines = [b"", b"{}", b"\xff\xfe", b"null", b'{"payload":"', b"\x00" * 50, world.lab.latest[f"{LAB}/dataset/d00"]]
    return told(world.page(LAB, lines))


def long_line(world: PageWorld) -> str:
    world.delegated()
    record = world.lab.latest[f"{LAB}/dataset/d00"]
    return told(world.page(LAB, [record[:-2] + b"A" * 70_000 + record[-2:], record]))


def statement_as_record(world: PageWorld) -> str:
    world.delegated()
    beat = sign_statement({"seq": 1}, key_of(LAB), f"{LAB}#exchange", "site-beat")
    return told(world.page(LAB, [beat]))


def widened(world: PageWorld) -> str:
    """A lab gives away more than it was given."""
    world.delegated()
    gift = Owner(LAB).give("team", max_records=1_000)
    return told(world.page(LAB, [gift]))


def unknown_delegation(world: PageWorld) -> str:
    return told(world.page("cn.lab9", [Owner("cn.lab9").forge("dataset/x")]))


def unknown_root(world: PageWorld) -> str:
    return told(world.page("us.lab", [Owner("us.lab").forge("dataset/x")]))


def own_prefix_forged(world: PageWorld) -> str:
    forged = Owner("eu").forge("dataset/ours", key=key_of("cn"))
    return told(world.page("eu", [forged]))


def own_prefix_older(world: PageWorld) -> str:
    owner = Owner("eu")
    first, second = owner.write("dataset/ours", size_bytes=1), owner.write("dataset/ours", size_bytes=2)
    world.region.store(first, second)
    verdict = told(world.page("eu", [first]))
    assert world.region.heads("eu")["eu/dataset/ours"] == digest_of(second)
    return verdict


def too_many(world: PageWorld) -> str:
    world.delegated()
    return caught(lambda: world.page(LAB, [b"x"] * 2_001))


def too_big(world: PageWorld) -> str:
    world.delegated()
    return caught(lambda: world.page(LAB, [b"x" * 65_536] * 65))


def by_a_stranger(world: PageWorld) -> str:
    return caught(
        lambda: world.region.do(
            TakePage(peer="us/exchange/main", prefix=LAB, session="s", serial=1, envelopes=tuple(world.old))
        )
    )


def by_a_liar(world: PageWorld) -> str:
    world.delegated()
    world.region.do(BlamePeer(peer=world.hub.id, code="peer_rolled_back", values={"what": LAB, "seen": 1, "known": 2}))
    return caught(lambda: world.page(LAB, world.old))
