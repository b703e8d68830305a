"""The archive of the store answers as the one in memory does."""

from __future__ import annotations

import hashlib
import random

import pytest

from tieline.drivers.stores.archive import StoredArchive
from tieline.drivers.stores.store import Batch, Change, Store
from tieline.ports import Archive, FakeArchive
from tieline.registry.serving import AskLogs, AskRecords, Grant, LogsAnswer, PageAnswer, answer

PREFIXES = ("cn", "cn.lab", "cn.lab-1", "cn.lab.team", "eu")
NOW_S = 1_790_000_000


@pytest.fixture
def archives(store: Store) -> tuple[FakeArchive, Archive]:
    """The same 300 records in both: some revised, some withdrawn, some expired, one let go."""
    fake = FakeArchive(session="")
    pick = random.Random(7)
    changes: dict[tuple[str, str], Change] = {}
    for number in range(400):
        prefix = pick.choice(PREFIXES)
        kind = pick.choice(("pool", "dataset", "checkpoint"))
        word = "records" if kind == "checkpoint" else f"{pick.choice('abz')}{pick.choice('._-')}{pick.randrange(40)}x"
        name = f"{prefix}/{kind}/{word}"
        envelope = f"envelope {number}".encode()
        sha256 = hashlib.sha256(envelope).hexdigest()
        exp = NOW_S + pick.randrange(-100, 100)
        status = pick.choice(("active", "active", "withdrawn")) if kind == "pool" else "active"
        serial = fake.put(name, sha256, envelope, exp, status)
        row = {
            "id": name,
            "prefix": prefix,
            "kind": kind,
            "rev": number + 1,
            "sha256": sha256,
            "exp": exp,
            "status": status,
            "kid": f"{prefix}#k1",
            "envelope": envelope,
            "serial": serial,
            "nb": 0,
            "envelope_sha256": None,
        }
        changes["record", name] = ("record", name, row)
        changes["serial", prefix] = ("serial", prefix, {"prefix": prefix, "serial": serial})
        if number % 50 == 49:  # what is revised later goes over what is there
            store.append(Batch(changes=list(changes.values())))
            changes.clear()
    gone = next(each for each in fake.delta("cn", 0, 10) if "/pool/" in each.id)
    fake.forget(gone.id)
    rows = [dict(row._mapping) for row in store._rows(store_records())]
    row = next(row for row in rows if row["id"] == gone.id)
    store.append(Batch(changes=[("record", gone.id, row | {"envelope": b""})]))
    return fake, StoredArchive(store.engine)


def store_records():
    from sqlalchemy import select

    from tieline.drivers.stores import tables as t

    return select(t.record)


def test_logs_are_listed_in_order_of_prefix(archives: tuple[FakeArchive, Archive]) -> None:
    fake, stored = archives
    for limit in (1, 2, 10):
        after = ""
        for _ in range(10):
            ours, theirs = stored.logs(after, limit), fake.logs(after, limit)
            assert [(head.prefix, head.serial, head.has_checkpoint) for head in ours] == [
                (head.prefix, head.serial, head.has_checkpoint) for head in theirs
            ]
            if not ours:
                break
            after = ours[-1].prefix
    assert stored.log("cn.none") is None
    for prefix in PREFIXES:
        log = stored.log(prefix)
        assert log is not None
        assert log.serial == fake.log(prefix).serial  # type: ignore[union-attr]


def test_records_come_in_the_same_order_with_the_same_bytes(archives: tuple[FakeArchive, Archive]) -> None:
    fake, stored = archives
    assert all(fake.delta(prefix, 0, 600) for prefix in PREFIXES)
    for prefix in PREFIXES:
        for after, limit, kinds in ((0, 2_000, ()), (20, 7, ()), (3, 50, ("pool",)), (10_000, 5, ())):
            assert stored.delta(prefix, after, limit, kinds) == fake.delta(prefix, after, limit, kinds)
        first, until = f"{prefix}/dataset/a.2x", f"{prefix}/pool/z_1"
        for bound in ((f"{prefix}/", f"{prefix}0"), (first, until)):
            assert stored.between(*bound, 40, 2_000) == fake.between(*bound, 40, 2_000)
        names = [each.id for each in fake.delta(prefix, 0, 600)][::-1]
        assert stored.envelopes([*names, f"{prefix}/pool/none"]) == fake.envelopes(names)


def test_digests_leave_out_what_expired_but_no_tombstone(archives: tuple[FakeArchive, Archive]) -> None:
    fake, stored = archives
    for prefix in PREFIXES:
        for kinds, alive_s in (((), 0), ((), NOW_S), (("pool",), NOW_S)):
            ours, theirs = stored.digits(prefix, kinds, alive_s), fake.digits(prefix, kinds, alive_s)
            assert sorted(parts(ours)) == sorted(parts(theirs))
            buckets = sorted({digits[:3] for digits in parts(ours)})[:20] or ["000"]
            found = stored.hashes(prefix, buckets, kinds, alive_s)
            assert sorted(found) == sorted(fake.hashes(prefix, buckets, kinds, alive_s))
    assert stored.digits("cn.none") == ""


def parts(digits: str) -> list[str]:
    assert len(digits) % 32 == 0
    return [digits[at : at + 32] for at in range(0, len(digits), 32)]


def test_whoever_asks_gets_the_same_answers(archives: tuple[FakeArchive, Archive]) -> None:
    fake, stored = archives
    grant = Grant(prefixes=("cn.lab",))
    for archive in archives:
        logs = answer(archive, AskLogs(limit=2), grant)
        assert isinstance(logs, LogsAnswer)
        assert [log.prefix for log in logs.logs] == ["cn", "cn.lab"]
        assert logs.next_after == "cn.lab"
    pages = [answer(archive, AskRecords(prefix="cn.lab", limit=9), grant) for archive in (fake, stored)]
    assert isinstance(pages[0], PageAnswer)
    assert pages[0].body == pages[1].body  # type: ignore[union-attr]
    assert (pages[0].count, pages[0].is_last) == (9, False)


def test_an_empty_store_has_no_logs(store: Store) -> None:
    archive = StoredArchive(store.engine)
    assert archive.position() == ("", 0)
    assert archive.logs("", 10) == []
