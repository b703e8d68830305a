"""The attack corpus on pages of logs: what a hostile peer serves, and what must come of it, by name.

A region follows a hub that holds the records of two labs. Every attack ends with a verdict, one word and a reason; and
whatever it was, afterwards the region still holds exactly what the labs signed (`honest`), and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "exchange"))

from replica_world import DAY_S, START_MS, Exchange, Following, Owner, key_of

from tieline.exchange.commands import BlamePeer, PageTaken, TakePage
from tieline.model.error import TielineError
from tieline.model.reason import Reason
from tieline.model.record import Record, Status
from tieline.ports import FakeClock
from tieline.registry import follow, opened, sign, sign_statement
from tieline.registry.pages import CHECKPOINT_NAME, MAX_PAGE_BYTES, checkpoint_of, page_of
from tieline.registry.serving import (
    BucketsAnswer,
    DigestAnswer,
    LogLine,
    LogsAnswer,
    PageAnswer,
    SnapshotAnswer,
)

LAB, NEIGHBOUR = "cn.lab0", "cn.lab1"
replace = msgspec.structs.replace


@dataclass
class PageWorld:
    """The hub, what the labs signed, and the region before it has taken anything of the labs."""

    clock: FakeClock = field(default_factory=lambda: FakeClock(at_ms=START_MS))

    def __post_init__(self) -> None:
        self.hub = Exchange("cn", self.clock)
        self.region = Exchange("eu", self.clock)
        parent = Owner("cn")
        self.lab, self.neighbour = Owner(LAB), Owner(NEIGHBOUR)
        self.hub.store(parent.give("lab0", max_records=40), parent.give("lab1", max_records=40))
        self.old = [self.lab.write(f"dataset/d{n:02}", size_bytes=n) for n in range(25)]
        self.hub.store(*self.old)
        self.hub.store(*[self.neighbour.write(f"dataset/e{n:02}", size_bytes=n) for n in range(8)])
        self.hub.store(self.lab.write("dataset/d03", size_bytes=303))
        self.hub.store(self.lab.write("dataset/d04", status=Status.WITHDRAWN))
        self.hub.store(*[self.lab.write("pool/gone", days=1), self.lab.write("pool/gone", status=Status.WITHDRAWN)])
        self.region.know(self.hub)
        self.delegations = [parent.latest[name] for name in sorted(parent.latest)]

    def latest(self, owner: Owner) -> list[bytes]:
        """What an owner holds now, in order of identifier."""
        return [owner.latest[name] for name in sorted(owner.latest)]

    def delegated(self) -> None:
        """The region knows who the labs are."""
        self.page("cn", self.delegations)

    def taken(self) -> None:
        """The region holds what the hub holds."""
        self.delegated()
        for prefix, owner in ((LAB, self.lab), (NEIGHBOUR, self.neighbour)):
            reply = self.page(prefix, self.latest(owner))
            assert not reply.refused, reply

    def page(self, prefix: str, envelopes: list[bytes], *, serial: int = 90, **more: Any) -> PageTaken:
        command = TakePage(
            peer=self.hub.id, prefix=prefix, session="s", serial=serial, envelopes=tuple(envelopes), **more
        )  # fmt: skip
        reply = self.region.do(command)
        assert isinstance(reply, PageTaken)
        return reply

    def honest(self) -> str:
        """Empty when all that the region holds of the labs is what they signed last, as far as it came."""
        held = self.region.heads()
        for prefix, owner in ((LAB, self.lab), (NEIGHBOUR, self.neighbour)):
            signed = {name: _sha256(data) for name, data in owner.latest.items()}
            for name, digest in held.items():
                if name.partition("/")[0] == prefix and signed.get(name) != digest:
                    return f"{name} is not what its owner signed last"
        return ""


def _sha256(envelope: bytes) -> str:
    return opened(envelope).sha256.hex()


class Attack(NamedTuple):
    name: str
    verdict: str
    run: Callable[[PageWorld], str]


def told(reply: PageTaken) -> str:
    """What a page came to, in words: how many were stored, and every rule that refused one."""
    rules = " ".join(f"{rule}={count}" for rule, count in sorted(reply.refused.items()))
    parts = [f"stored={reply.stored}", rules]
    parts += ["proved"] if reply.is_proved else []
    parts += ["parked"] if reply.parked else []
    parts += [f"proof={reply.equivocations}"] if reply.equivocations else []
    return " ".join(part for part in parts if part)


def caught(run: Callable[[], object]) -> str:
    """The reason of a refusal of the whole."""
    try:
        return f"not refused: {run()}"
    except TielineError as error:
        return error.reasons[0].code if error.reasons else error.code


def changed_byte(envelope: bytes, at: int = 40) -> bytes:
    """One digit of the payload is another."""
    other = b"B" if envelope[at : at + 1] != b"B" else b"C"
    return envelope[:at] + other + envelope[at + 1 :]


def changed_signature(envelope: bytes) -> bytes:
    at = len(envelope) - 30
    return changed_byte(envelope, at)


# -- what one page can be ---------------------------------------------------------------------------------------------


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
    assert world.region.heads("eu")["eu/dataset/ours"] == _sha256(second)
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


# -- checkpoints ------------------------------------------------------------------------------------------------------


def good_checkpoint(world: PageWorld) -> str:
    world.delegated()
    return told(world.page(LAB, world.latest(world.lab), checkpoint=world.lab.checkpoint(100), page=0))


def old_checkpoint(world: PageWorld) -> str:
    """An outdated checkpoint over pages as they were then: true once, and not the owner's word any more."""
    world.delegated()
    records = world.latest(world.lab)
    first = world.lab.checkpoint(100)
    second = world.lab.checkpoint(50)
    world.page(LAB, [second])
    return told(world.page(LAB, records, checkpoint=first, page=0))


def withdrawn_checkpoint(world: PageWorld) -> str:
    world.delegated()
    records = world.latest(world.lab)
    first = world.lab.checkpoint(100)
    world.page(LAB, [world.lab.write(CHECKPOINT_NAME, status=Status.WITHDRAWN)])
    return told(world.page(LAB, records, checkpoint=first, page=0))


def forged_checkpoint(world: PageWorld) -> str:
    """The peer signs digests of pages that it changed, in the owner's name."""
    world.delegated()
    records = [changed_signature(each) for each in world.latest(world.lab)]
    body = page_of(records)
    digest = {"first": "dataset/d00", "count": len(records), "sha256": sha256(body).hexdigest()}
    spec = {"count": len(records), "pages": [digest]}
    checkpoint = Owner(LAB).forge(CHECKPOINT_NAME, spec=spec, key=key_of("thief"))
    return told(world.page(LAB, records, checkpoint=checkpoint, page=0))


def checkpoint_of_neighbour(world: PageWorld) -> str:
    """The neighbour signs digests of the lab's pages, changed by it."""
    world.delegated()
    records = [changed_signature(each) for each in world.latest(world.lab)]
    digest = {"first": "dataset/d00", "count": len(records), "sha256": sha256(page_of(records)).hexdigest()}
    checkpoint = Owner(NEIGHBOUR).forge(CHECKPOINT_NAME, spec={"count": len(records), "pages": [digest]})
    return told(world.page(LAB, records, checkpoint=checkpoint, page=0))


def swapped_page(world: PageWorld) -> str:
    world.delegated()
    records = world.latest(world.lab)
    checkpoint = world.lab.checkpoint(10)
    return told(world.page(LAB, [changed_signature(each) for each in records[:10]], checkpoint=checkpoint, page=1))


def page_out_of_range(world: PageWorld) -> str:
    world.delegated()
    records = world.latest(world.lab)
    return told(world.page(LAB, records, checkpoint=world.lab.checkpoint(100), page=7))


def checkpoint_over_others(world: PageWorld) -> str:
    """The lab's own checkpoint lists the neighbour's records: a signature for others proves nothing of theirs."""
    world.delegated()
    records = [changed_signature(each) for each in world.latest(world.neighbour)]
    digest = {"first": "dataset/e00", "count": len(records), "sha256": sha256(page_of(records)).hexdigest()}
    checkpoint = world.lab.write(CHECKPOINT_NAME, count=len(records), pages=[digest])
    return told(world.page(LAB, records, checkpoint=checkpoint, page=0))


def checkpoint_of_what_one_did_not_write(world: PageWorld) -> str:
    """An owner is shown a record that it never signed, and asked to sign a page with it."""
    forged = Owner(LAB).forge("dataset/planted", key=key_of("thief"))
    records = [*world.latest(world.lab), forged]
    keys = {f"{LAB}#exchange": key_of(LAB).public}
    return caught(lambda: checkpoint_of(LAB, records, keys, START_MS // 1000))


# -- what a peer can do to a follower ---------------------------------------------------------------------------------


def followed(world: PageWorld, twist: Callable[[Any], Any], *, before: int = 0) -> Following:
    """Follow a peer whose answers are twisted, after ``before`` ms of honesty."""
    following = Following(world.region, world.hub)
    if before:
        following.run(until_ms=world.clock.now_ms() + before)
    following.twist = twist
    following.run(until_ms=world.clock.now_ms() + 400_000)
    return following


def seen(following: Following) -> str:
    """What is shown of the peer: the fault, or else the last error."""
    shown = follow.standing(following.state)
    if shown.fault is not None:
        assert following.blames == [shown.fault.code]
        return f"blamed {shown.fault.code}"
    return f"paused {shown.error.code}" if shown.error is not None else "well"


def on_pages(change: Callable[[PageAnswer], Any], prefix: str = LAB) -> Callable[[Any], Any]:
    """Twist the pages of one log."""
    return lambda reply: change(reply) if isinstance(reply, PageAnswer) and reply.prefix == prefix else reply


def others_arrive(world: PageWorld, verdict: str) -> str:
    """The neighbour's log is not held up by what happens to the lab's."""
    assert world.region.heads(NEIGHBOUR) == world.hub.heads(NEIGHBOUR), verdict
    return verdict


def paged(change: Callable[[PageAnswer], Any]) -> Callable[[PageWorld], str]:
    return lambda world: others_arrive(world, seen(followed(world, on_pages(change))))


def grown(reply: PageAnswer) -> PageAnswer:
    body = b"A" * (MAX_PAGE_BYTES + 1)
    return replace(reply, body=body)


def with_body(reply: PageAnswer, body: bytes, **more: Any) -> PageAnswer:
    return replace(reply, body=body, sha256=sha256(body).hexdigest(), **more)


def foreign_in_log(reply: PageAnswer) -> PageAnswer:
    body = page_of([Owner(NEIGHBOUR).forge("dataset/e00")])
    return with_body(reply, body, count=1)


def rolled_back_log(world: PageWorld) -> str:
    def shrink(reply: Any) -> Any:
        if not isinstance(reply, LogsAnswer):
            return reply
        logs = tuple(replace(log, serial=3) if log.prefix == LAB else log for log in reply.logs)
        return replace(reply, logs=logs)

    return seen(followed(world, shrink, before=50_000))


def rolled_back_head(world: PageWorld) -> str:
    return seen(
        followed(world, lambda reply: replace(reply, head=1) if isinstance(reply, LogsAnswer) else reply, before=50_000)
    )


def ever_new_sessions(world: PageWorld) -> str:
    count = [0]

    def renumber(reply: Any) -> Any:
        count[0] += 1
        return replace(reply, session=f"s{count[0]}")

    following = followed(world, renumber)
    asked = sum(following.counts.values())
    return "bounded" if asked < 5_000 else f"{asked} questions"


def many_logs(world: PageWorld) -> str:
    def multiply(reply: Any) -> Any:
        if not isinstance(reply, LogsAnswer):
            return reply
        number = int(reply.next_after.removeprefix("zz.l") or 0) if reply.next_after else 0
        lines = tuple(LogLine(prefix=f"zz.l{number * 5_000 + n:07}", serial=0) for n in range(5_000))
        return replace(reply, logs=(*reply.logs, *lines), next_after=f"zz.l{number + 1:07}")

    following = Following(world.region, world.hub)
    following.twist = multiply
    for _ in range(60):
        if following.mail:
            following.hear(following.mail.pop(0))
    return "bounded" if len(following.state.logs) <= 100_000 else f"{len(following.state.logs)} logs"


def stalled(world: PageWorld) -> str:
    following = Following(world.region, world.hub)
    following.run()
    following._ask = lambda action: None  # type: ignore[method-assign] # it takes the question and says nothing
    following.hear(follow.TailEnded(reason=Reason(code="peer_stalled")))
    following.run(until_ms=world.clock.now_ms() + 200_000)
    return seen(following)


def on_digests(change: Callable[[Any], Any]) -> Callable[[PageWorld], str]:
    """Twist what is compared, when something is missing here."""

    def run(world: PageWorld) -> str:
        following = Following(world.region, world.hub)
        following.run()
        world.region.archive.forget(f"{LAB}/dataset/d09")
        following.twist = change
        following.run(until_ms=world.clock.now_ms() + 700_000)
        return others_arrive(world, seen(following))

    return run


def bad_digest(reply: Any) -> Any:
    return replace(reply, body=reply.body[:-3]) if isinstance(reply, DigestAnswer) and reply.prefix == LAB else reply


def bad_buckets(reply: Any) -> Any:
    if not isinstance(reply, BucketsAnswer):
        return reply
    body = b"dataset/d00 not-a-hash\n"
    return replace(reply, body=body, sha256=sha256(body).hexdigest())


def endless_buckets(reply: Any) -> Any:
    return replace(reply, next_bucket=4_095) if isinstance(reply, BucketsAnswer) else reply


def lying_snapshot(world: PageWorld) -> str:
    world.hub.store(world.lab.checkpoint(10))

    def lie(reply: Any) -> Any:
        return replace(reply, pages=reply.page) if isinstance(reply, SnapshotAnswer) else reply

    return others_arrive(world, seen(followed(world, lie)))


ATTACKS = (
    Attack("a page is replayed", "stored=0", replayed),
    Attack("a page is turned round", "stored=26", reordered),
    Attack("every record comes twice", "stored=26", repeated),
    Attack("old revisions follow new ones", "stored=26", old_after_new),
    Attack("a flood over the quota", "stored=14 quota_full=86", flooded),
    Attack("another owner's records in a log", "stored=0 log_foreign=8", foreign),
    Attack("records from below in a log", "stored=0 log_foreign=3", foreign_below),
    Attack("a signature was changed", "stored=25 signature_wrong=1", bytes_changed),
    Attack("forged with a key of one's own", "stored=0 signature_wrong=1", payload_changed),
    Attack("signed by the neighbour", "stored=0 signature_wrong=1", key_of_neighbour),
    Attack("signed in the neighbour's name", "stored=0 kid_prefix=1", kid_of_neighbour),
    Attack("a tombstone is outbid", "stored=0 withdrawn=1", resurrected),
    Attack("a tombstone is replaced by what it ended", "stored=0", resurrected_by_age),
    Attack("a tombstone whose lease is over is hidden", "stored=1", tombstone_hidden),
    Attack("what expired is served", "stored=1 lease_ended=4", expired),
    Attack("two payloads of one revision", "stored=0 proof=1; stored=0 proof=1; kept=1", equivocated),
    Attack("two payloads of one revision in one page", "stored=1 proof=1", equivocated_in_one_page),
    Attack("lines of garbage", "stored=1", garbage),
    Attack("a line beyond all bounds", "stored=1 envelope_size=1", long_line),
    Attack("a statement as a record", "stored=0 header_type=1", statement_as_record),
    Attack("a delegation that widens", "stored=0 delegation_quota=1", widened),
    Attack("a prefix that nobody gave", "stored=0 parked", unknown_delegation),
    Attack("a prefix without a root", "stored=0 root_unknown=1 parked", unknown_root),
    Attack("our own prefix, forged", "stored=0 signature_wrong=1", own_prefix_forged),
    Attack("our own prefix, older", "stored=0", own_prefix_older),
    Attack("a page of too many records", "page_records", too_many),
    Attack("a page of too many bytes", "page_size", too_big),
    Attack("a page of a stranger", "not_found", by_a_stranger),
    Attack("a page of a peer that lied", "peer_rolled_back", by_a_liar),
    Attack("a checkpoint that is good", "stored=26 proved", good_checkpoint),
    Attack("a checkpoint replayed", "stored=26", old_checkpoint),
    Attack("a checkpoint that was withdrawn", "stored=26", withdrawn_checkpoint),
    Attack("a checkpoint forged", "stored=0 signature_wrong=26", forged_checkpoint),
    Attack("a checkpoint by another owner", "stored=0 signature_wrong=26", checkpoint_of_neighbour),
    Attack("a page in the place of another", "stored=0 signature_wrong=10", swapped_page),
    Attack("a page that the checkpoint does not have", "stored=26", page_out_of_range),
    Attack("a checkpoint over others' records", "stored=0 log_foreign=8 proved", checkpoint_over_others),
    Attack("a checkpoint of what one did not write", "signature_wrong", checkpoint_of_what_one_did_not_write),
    Attack("a page cut in a line", "paused page_cut", paged(lambda reply: replace(reply, body=reply.body[:-20]))),
    Attack(
        "a page cut between lines",
        "paused page_count",
        paged(lambda reply: replace(reply, body=b"\n".join(reply.body.split(b"\n")[:-3]) + b"\n")),
    ),
    Attack("a line exchanged on the way", "paused page_digest", paged(lambda reply: replace(reply, sha256="0" * 64))),
    Attack("an endless line", "paused page_size", paged(grown)),
    Attack("more lines than a page", "paused page_records", paged(lambda reply: replace(reply, count=10**9))),
    Attack("another log's page", "paused page_other", paged(lambda reply: replace(reply, prefix=NEIGHBOUR))),
    Attack(
        "a page that never ends",
        "paused page_order",
        paged(lambda reply: with_body(reply, b"", count=0, serial=0, is_last=False)),
    ),
    Attack(
        "a follower is fed another owner's records",
        "blamed peer_foreign",
        lambda world: seen(followed(world, on_pages(foreign_in_log))),
    ),
    Attack("a log that was rolled back", "blamed peer_rolled_back", rolled_back_log),
    Attack("an event log that was rolled back", "blamed peer_rolled_back", rolled_back_head),
    Attack("a new session with every answer", "bounded", ever_new_sessions),
    Attack("logs without end", "bounded", many_logs),
    Attack("a peer that takes questions and says nothing", "paused peer_stalled", stalled),
    Attack("a digest that was cut", "paused page_form", on_digests(bad_digest)),
    Attack("buckets of garbage", "paused page_form", on_digests(bad_buckets)),
    Attack("buckets without end", "paused page_order", on_digests(endless_buckets)),
    Attack("a snapshot that lies about its pages", "paused page_order", lying_snapshot),
)


def outcome(attack: Attack) -> str:
    """What came of it; a world that does not hold what the owners signed is a verdict of its own."""
    world = PageWorld()
    verdict = attack.run(world)
    return world.honest() or verdict
