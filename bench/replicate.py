"""Replication between two exchanges: what a record costs both sides, from one committed store into another.

One side answers the puller's questions from its SQLite store (`registry.serving` over `StoredArchive`), the other
drives the puller's machine (`registry.follow`), verifies in its writer and commits pages with their cursors, synced to
disk. CPU seconds of the whole process are counted, so both sides and the writer's thread are in them; HTTP is not.
The anchor, in the same turn on the same records, calls libsodium's verify through PyNaCl on messages that are laid out
for it beforehand.

Rows: record by record; with the owners' checkpoints (a signature for each page instead of each record); and digests of
two catalogues of a million records that differ in 100: bytes moved against the bytes of a snapshot.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any, NamedTuple

import msgspec
from nacl.bindings import crypto_sign_open

from bench.record_world import NOW_S, World
from bench.row import Row
from tieline.drivers.clock import SystemIds
from tieline.drivers.garbage import collect_rarely
from tieline.drivers.stores.archive import StoredArchive
from tieline.drivers.stores.store import Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import CreateExchange, TakePage
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.placing import schedule
from tieline.exchange.projection import load, rows
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.peer import Peer, PeerRole, PeerState
from tieline.model.record import MAX_RECORD_BYTES, Record
from tieline.ports import FakeArchive, FakeClock
from tieline.registry import Key, follow, sign
from tieline.registry.digest import differing, digest_of, read_entries, unpacked, wanted
from tieline.registry.envelope import RECORD_TYPE, opened, taken_apart
from tieline.registry.keys import public_bytes
from tieline.registry.pages import CHECKPOINT_NAME, checkpoint_of
from tieline.registry.serving import (
    AskBuckets,
    AskDigest,
    AskEnvelopes,
    BucketsAnswer,
    DigestAnswer,
    Grant,
    PageAnswer,
    answer,
)

OWNERS = 10
RECORDS = 20_000
TURNS = 5
SEED = 20_261
MILLION = 1_000_000
DIFFERING = 100
PEER = "cn/exchange/main"
CLOCK = FakeClock(at_ms=NOW_S * 1000)


class Side(NamedTuple):
    """One exchange: its store and its writer."""

    store: Store
    writer: Writer[View]

    def close(self) -> None:
        """Stop deciding and let go of the file."""
        self.writer.close()
        self.store.close()


class Moved(NamedTuple):
    """What one replication took."""

    records: int
    proved: int  # pages that their owner's checkpoint proved
    cpu_s: float
    wall_s: float


def side(folder: Path, prefix: str, world: World) -> Side:
    """An exchange's own store and writer, as `cli.compose` puts them together, with one peer and the bench's root."""
    keys = ExchangeKeys(Key(hashlib.sha256(prefix.encode()).digest()), prefix)
    folder.mkdir()
    store = Store(f"sqlite:///{folder / 'tieline.db'}").open()
    peer = Peer(
        id=PEER, prefix="cn", public=world.key("cn").public, url="http://peer.example", role=PeerRole.PEER,
        state=PeerState.ACTIVE,
    )  # fmt: skip

    def filled(view: View, tables: Any, now_ms: int) -> None:
        load(view, tables, now_ms)
        view.peers[PEER] = peer
        view.catalogue.pin(world.root)

    writer: Writer[View] = Writer(
        store, lambda: View(keys), decide, schedule, rows, filled, CLOCK, SystemIds(CLOCK), tick_ms=0
    ).start()
    writer.submit(
        CreateExchange(
            id=f"{prefix}/exchange/main",
            prefix=prefix,
            public=keys.key.public,
            admin_token_sha256="0" * 64,
            session=f"s-{prefix}",
        )
    ).result(60)
    collect_rarely()
    return Side(store, writer)


def made(world: World) -> tuple[dict[str, list[bytes]], list[bytes]]:
    """The records by prefix, parents first, and what the owners sign of their pages."""
    logs: dict[str, list[bytes]] = {}
    for envelope in (*world.delegations(), *world.records(RECORDS)):
        logs.setdefault(opened(envelope).record.id.partition("/")[0], []).append(envelope)
    checkpoints = []
    for prefix, envelopes in logs.items():
        kid = f"{prefix}#k1"
        spec = checkpoint_of(prefix, envelopes, {kid: world.key(prefix).public}, NOW_S).spec
        record = Record(
            id=f"{prefix}/{CHECKPOINT_NAME}", kind="checkpoint", rev=1, nb=NOW_S - 60, exp=NOW_S + 86_400,
            spec=msgspec.to_builtins(spec),
        )  # fmt: skip
        checkpoints.append(sign(record, world.key(prefix), kid))
    return logs, checkpoints


def fill(writer: Writer[View], logs: dict[str, list[bytes]]) -> None:
    """Put the records into the serving side."""
    for prefix, envelopes in logs.items():
        known = writer.view.serials.get(prefix, 0)
        for at in range(0, len(envelopes), 2_000):
            page = tuple(envelopes[at : at + 2_000])
            serial = known + at + len(page)
            command = TakePage(peer=PEER, prefix=prefix, session="fill", serial=serial, envelopes=page)
            taken = writer.submit(command).result(120)
            if taken.stored != len(page):
                raise AssertionError(f"{taken.stored} of {len(page)} records of {prefix} were stored: {taken.refused}")


def replicate(theirs: Side, ours: Side) -> Moved:
    """Drive the puller until it rests: questions are answered from the one store, pages committed in the other."""
    archives = {False: StoredArchive(theirs.store.engine), True: StoredArchive(ours.store.engine)}
    stored = proved = 0
    grant = Grant()
    began, cpu = perf_counter(), process_time()
    state, actions = follow.begin(PEER, (), CLOCK.now_ms())
    while actions:
        heard: list[follow.Input] = []
        for action in actions:
            if isinstance(action, follow.Ask):
                try:
                    reply = answer(archives[action.is_own], action.request, grant)
                    heard.append(follow.Answered(ask=action.ask, answer=reply))
                except TielineError as error:
                    heard.append(follow.Failed(ask=action.ask, reason=follow.reason_of(error)))
            elif isinstance(action, follow.Listen):
                heard.append(follow.TailOpened())
            elif isinstance(action, follow.Take):
                command = TakePage(
                    peer=PEER, prefix=action.prefix, session=action.session, serial=action.serial,
                    envelopes=action.envelopes, checkpoint=action.checkpoint, page=action.page,
                )  # fmt: skip
                taken = ours.writer.submit(command).result(120)
                stored, proved = stored + taken.stored, proved + taken.is_proved
                heard.append(follow.Taken(take=action.take, stored=taken.stored, refused=taken.refused))
        actions = []
        for what in heard:
            state, more = follow.step(state, what, CLOCK.now_ms())
            actions += more
    return Moved(stored, proved, process_time() - cpu, perf_counter() - began)


def verify_s(world: World, logs: dict[str, list[bytes]]) -> tuple[int, float]:
    """How many records there are, and CPU seconds to verify their signatures and nothing else."""
    signed = []
    for prefix, envelopes in logs.items():
        public = public_bytes(world.key(prefix).public)
        signed += [(taken_apart(envelope, RECORD_TYPE, MAX_RECORD_BYTES).signed, public) for envelope in envelopes]
    began = process_time()
    for message, public in signed:
        crypto_sign_open(message, public)
    return len(signed), process_time() - began


def turns(folder: Path, name: str, theirs: Side, world: World, logs: dict[str, list[bytes]]) -> list[tuple[float, ...]]:
    """Records per CPU second, anchor per CPU second, their ratio, and records per second of the wall clock."""
    found = []
    for number in range(TURNS):
        count, anchor_s = verify_s(world, logs)
        ours = side(folder / f"{name}{number}", "eu", world)
        try:
            moved = replicate(theirs, ours)
            held, known = len(ours.writer.view.catalogue), len(theirs.writer.view.catalogue)
        finally:
            ours.close()
        if held != known:
            raise AssertionError(f"{held} records arrived, {known} are held over there")
        if (moved.proved > 0) != (name == "checkpoints"):
            raise AssertionError(f"{moved.proved} pages were proved by a checkpoint")
        rate, anchor = moved.records / moved.cpu_s, count / anchor_s
        found.append((rate, anchor, rate / anchor, moved.records / moved.wall_s))
    return found


def row_of(claim: str, found: list[tuple[float, ...]], target: str) -> Row:
    """The medians of the turns."""
    rate, anchor, ratio, wall = (median(column) for column in zip(*found, strict=True))
    return Row(
        claim=claim,
        figure=rate,
        unit="records/CPU s",
        anchor=anchor,
        anchor_name="PyNaCl verify alone, same records",
        ratio=ratio,
        target=target,
        note=f"{RECORDS:,} records of {OWNERS} owners, SQLite both sides, median of {len(found)}, {wall:,.0f}/s wall",
    )


def catalogues() -> tuple[FakeArchive, FakeArchive, int]:
    """Two archives of a million names and hashes that differ in 100, and the bytes of a record of a usual world."""
    world = World(SEED, owner_count=OWNERS)
    sample = [len(envelope) for envelope in world.records(2_000)]
    mean_bytes = sum(sample) // len(sample)
    pick = random.Random(SEED)
    here, there = FakeArchive(), FakeArchive()
    changed = dict.fromkeys(pick.sample(range(MILLION), DIFFERING))
    for number in range(MILLION):
        name = f"cn.sh.lab7/pool/n{number}"
        digest = hashlib.sha256(name.encode()).hexdigest()
        here.put(name, digest, b"{}")
        there.put(name, hashlib.sha256(digest.encode()).hexdigest() if number in changed else digest, b"{}")
    return here, there, mean_bytes


def digests() -> Row:
    """Find what differs as `registry.comparison` does, and count what would travel."""
    here, there, mean_bytes = catalogues()
    prefix = "cn.sh.lab7"
    began = process_time()
    theirs = answer(there, AskDigest(prefix=prefix), Grant())
    assert isinstance(theirs, DigestAnswer)
    ours = digest_of(here.digits(prefix))
    moved = len(theirs.body)
    buckets = differing(ours, unpacked(theirs.body))
    asked, ids = list(buckets), []
    while asked:
        found = answer(there, AskBuckets(prefix=prefix, buckets=tuple(asked)), Grant())
        assert isinstance(found, BucketsAnswer)
        cut = asked.index(found.next_bucket) if found.next_bucket >= 0 else len(asked)
        known = answer(here, AskBuckets(prefix=prefix, buckets=tuple(asked[:cut])), Grant())
        assert isinstance(known, BucketsAnswer)
        moved += len(msgspec.json.encode(asked)) + len(found.body)
        ids += wanted(read_entries(prefix, known.body), read_entries(prefix, found.body))
        asked = asked[cut:]
    page = answer(there, AskEnvelopes(prefix=prefix, ids=tuple(ids)), Grant())
    assert isinstance(page, PageAnswer)
    moved += len(msgspec.json.encode(ids)) + page.count * mean_bytes
    cpu_s = process_time() - began
    if page.count != DIFFERING or len(ids) != DIFFERING:
        raise AssertionError(f"{page.count} of {DIFFERING} differing records were found")
    snapshot = MILLION * (mean_bytes + 1)
    return Row(
        claim=f"replicate: digest of two catalogues of {MILLION:,} that differ in {DIFFERING}",
        figure=moved / 1e6,
        unit="MB moved",
        anchor=snapshot / 1e6,
        anchor_name=f"snapshot at {mean_bytes} bytes a record",
        ratio=moved / snapshot,
        target="0.005x at most",
        note=f"{len(buckets)} buckets differed; {cpu_s:.2f} CPU s both sides, archives in memory",
    )


def run() -> list[Row]:
    """Three rows: record by record, with checkpoints, and the digest."""
    world = World(SEED, owner_count=OWNERS)
    logs, checkpoints = made(world)
    with TemporaryDirectory(prefix="tieline-bench-") as name:
        folder = Path(name)
        theirs = side(folder / "theirs", "hub", world)
        try:
            fill(theirs.writer, logs)
            plain = turns(folder, "records", theirs, world, logs)
            fill(theirs.writer, {opened(each).record.id.partition("/")[0]: [each] for each in checkpoints})
            signed = turns(folder, "checkpoints", theirs, world, logs)
        finally:
            theirs.close()
    return [
        row_of("replicate: verified records, both sides", plain, "0.65x"),
        row_of("replicate: cold sync with the owners' checkpoints, both sides", signed, "2.5x"),
        digests(),
    ]
