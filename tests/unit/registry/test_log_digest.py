"""Digests find what differs; pages and checkpoints are whole or refused; serving stays within its bounds."""

from __future__ import annotations

import hashlib
import random

import pytest

from tieline.model.error import TielineError
from tieline.ports import FakeArchive
from tieline.registry.digest import (
    BUCKETS,
    differing,
    digest_of,
    entry_lines,
    packed,
    read_entries,
    unpacked,
    wanted,
)
from tieline.registry.serving import (
    AskBuckets,
    AskRecords,
    AskSnapshot,
    BucketsAnswer,
    Grant,
    PageAnswer,
    answer,
    granted_line,
    tail_line,
)


def hashes(count: int, seed: int = 0) -> dict[str, str]:
    return {f"cn.lab/pool/n{n}": hashlib.sha256(f"{seed} {n}".encode()).hexdigest() for n in range(count)}


def joined(found: dict[str, str]) -> str:
    return "".join(digits[:32] for digits in found.values())


def test_a_digest_counts_every_record_and_survives_its_compact_form() -> None:
    digest = digest_of(joined(hashes(10_000)))
    assert digest.count == 10_000
    again = unpacked(packed(digest))
    assert differing(digest, again) == ()
    assert len(packed(digest)) <= 6 + BUCKETS * 22
    assert packed(digest_of("")) == b"TLD1\x00\x00"


def test_order_does_not_matter_and_each_difference_is_in_its_buckets() -> None:
    pick = random.Random(3)
    ours = hashes(5_000)
    theirs = dict(pick.sample(sorted(ours.items()), len(ours)))
    assert differing(digest_of(joined(ours)), digest_of(joined(theirs))) == ()
    changed = pick.sample(sorted(theirs), 40)
    for name in changed:
        theirs[name] = hashlib.sha256(name.encode()).hexdigest()
    extra = hashes(3, seed=9)
    theirs |= {f"cn.lab/model/m{n}": digits for n, digits in enumerate(extra.values())}
    buckets = differing(digest_of(joined(ours)), digest_of(joined(theirs)))
    expected = {int(digits[:3], 16) for name in changed for digits in (ours[name], theirs[name])}
    expected |= {int(digits[:3], 16) for digits in extra.values()}
    assert set(buckets) == expected
    names = {f"{bucket:03x}" for bucket in buckets}
    here = [(name, digits) for name, digits in ours.items() if digits[:3] in names]
    there = [(name, digits) for name, digits in theirs.items() if digits[:3] in names]
    read = [read_entries("cn.lab", entry_lines("cn.lab", each)) for each in (here, there)]
    assert set(wanted(*read)) == {*changed, *[f"cn.lab/model/m{n}" for n in range(3)]}


@pytest.mark.parametrize(
    "data",
    [b"", b"TLD1", b"TLD2\x00\x00", b"TLD1\x01\x00", b"TLD1\x00\x00x", b"TLD1\x01\x00" + b"\xff" * 22, b"A" * 200_000],
)
def test_what_is_no_digest_is_refused(data: bytes) -> None:
    with pytest.raises(TielineError) as caught:
        unpacked(data)
    assert (caught.value.code, caught.value.reasons[0].code) == ("page_refused", "page_form")


def test_buckets_twice_or_out_of_order_are_refused() -> None:
    good = packed(digest_of(joined(hashes(50))))
    rows = [good[at : at + 22] for at in range(6, len(good), 22)]
    for broken in (rows[::-1], [rows[0], *rows]):
        with pytest.raises(TielineError):
            unpacked(b"TLD1" + len(broken).to_bytes(2, "little") + b"".join(broken))


@pytest.mark.parametrize(
    "body", [b"x\n", b"pool/a \n", b"pool/a !!!!!!!!!!!!!!!!!!!!!!\n", b"\xff\n", b" " + b"A" * 22]
)
def test_what_is_no_list_of_entries_is_refused(body: bytes) -> None:
    with pytest.raises(TielineError) as caught:
        read_entries("cn.lab", body)
    assert caught.value.reasons[0].code == "page_form"


def archive(count: int = 10, size_bytes: int = 10) -> FakeArchive:
    made = FakeArchive()
    for name, digits in hashes(count).items():
        made.put(name, digits, b"x" * size_bytes)
    return made


def test_a_page_ends_where_its_bytes_do_and_the_next_one_goes_on() -> None:
    made = archive(300, 60_000)
    after, seen, pages = 0, 0, 0
    while True:
        page = answer(made, AskRecords(prefix="cn.lab", after=after), Grant())
        assert isinstance(page, PageAnswer)
        assert len(page.body) <= 4 * 2**20
        seen, pages, after = seen + page.count, pages + 1, page.serial
        if page.is_last:
            break
    assert (seen, pages) == (300, 5)


def test_what_is_not_granted_looks_as_if_it_were_not_there() -> None:
    made = archive()
    made.put("us/pool/a", "0" * 64, b"x")
    refusals = []
    for request, grant in (
        (AskRecords(prefix="us"), Grant(prefixes=("cn",))),
        (AskRecords(prefix="us.none"), Grant()),
        (AskSnapshot(prefix="cn.lab"), Grant()),
    ):
        with pytest.raises(TielineError) as caught:
            answer(made, request, grant)
        refusals.append(caught.value.code)
    assert refusals == ["not_found"] * 3


def test_of_a_log_above_what_is_granted_only_delegations_are_shown() -> None:
    made = archive()
    made.put("cn/owner/lab", "1" * 64, b"gift")
    made.put("cn/pool/secret", "2" * 64, b"pool")
    page = answer(made, AskRecords(prefix="cn"), Grant(prefixes=("cn.lab",)))
    assert isinstance(page, PageAnswer)
    assert page.body == b"gift\n"
    assert page.serial == 2


def test_bucket_lists_are_cut_between_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    from tieline.registry import serving

    monkeypatch.setattr(serving, "MOST_ENTRIES", 20)
    made = archive(200)
    asked, seen = list(range(BUCKETS)), 0
    for _ in range(200):
        found = answer(made, AskBuckets(prefix="cn.lab", buckets=tuple(asked)), Grant())
        assert isinstance(found, BucketsAnswer)
        assert found.count <= 20
        seen += found.count
        if found.next_bucket < 0:
            break
        asked = asked[asked.index(found.next_bucket) :]
    assert seen == 200


def test_a_tail_line_that_is_too_long_is_a_hint() -> None:
    assert tail_line("s", "cn", 0, 1, [b"x" * 300_000]).body == b""
    line = tail_line("s", "cn", 4, 6, [b"a", b"b"])
    assert (line.count, line.body) == (2, b"a\nb\n")
    assert granted_line(line, Grant(prefixes=("us",))) is None
    assert granted_line(line, Grant(prefixes=("cn",))) == line
