"""An exported log proves itself, and every way to alter it is named by its position."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from storerows import log

from tieline.drivers.stores.export import begin_line, end_line, entry_line, verify_export
from tieline.drivers.stores.log import GENESIS, LogRow
from tieline.drivers.stores.reader import event_view
from tieline.model.audit import LogHead, RangeView
from tieline.registry import Key, merkle
from tieline.registry.heads import sign_head

KEY, OTHER = Key(b"k" * 32), Key(b"o" * 32)
EXCHANGE = "cn.a/exchange/main"
ROWS: list[LogRow] = log(60).entries  # type: ignore[assignment]
LEAVES = [merkle.leaf_hash(row.hash) for row in ROWS]


def head(size: int, rows: list[LogRow] = ROWS, exchange: str = EXCHANGE) -> LogHead:
    frontier = merkle.Frontier()
    frontier.extend(merkle.leaf_hash(row.hash) for row in rows[:size])
    end = rows[size - 1].hash if size else GENESIS
    return LogHead(exchange=exchange, size=size, root=frontier.root().hex(), head=end.hex(), at_ms=size)


def signed(size: int, key: Key = KEY, rows: list[LogRow] = ROWS) -> str:
    return sign_head(head(size, rows), key, "cn.a#exchange").decode()


def beside(first: int, last: int, size: int) -> RangeView:
    def nodes(begin: int, end: int) -> tuple[str, ...]:
        return tuple(
            merkle.folded(LEAVES[place << level : place + 1 << level]).hex()
            for level, place in merkle.whole_subtrees(begin, end)
        )

    before = ROWS[first - 2].hash if first > 1 else GENESIS
    return RangeView(
        first=first, last=last, size=size, before=before.hex(), left=nodes(0, first - 1), right=nodes(last, size)
    )


def exported(first: int = 1, last: int = 60, heads: tuple[int, ...] = (20, 40, 60)) -> list[bytes]:
    lines = [begin_line(EXCHANGE, beside(first, last, heads[-1]), [signed(size) for size in heads])]
    lines += [entry_line(event_view(row)) for row in ROWS[first - 1 : last]]
    return [*lines, end_line(last - first + 1)]


@pytest.mark.parametrize(
    ("first", "last"), [(1, 60), (1, 59), (2, 60), (17, 43), (30, 30), (60, 60), (61, 60), (1, 0), (33, 48)]
)
def test_any_part_of_a_log_proves_itself(first: int, last: int) -> None:
    found = verify_export(exported(first, last), KEY.public)
    assert (found.why, found.is_verified) == ("", True)
    assert (found.exchange, found.first, found.last, found.size, found.heads) == (EXCHANGE, first, last, 60, 3)


def test_an_empty_log_proves_itself() -> None:
    assert verify_export(exported(1, 0, heads=(0,)), KEY.public).is_verified


def change(at: int, what: Callable[[bytes], bytes]) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [*lines[:at], what(lines[at]), *lines[at + 1 :]]


def swapped(lines: list[bytes]) -> list[bytes]:
    lines[7], lines[8] = lines[8], lines[7]
    return lines


@pytest.mark.parametrize(
    ("alter", "at", "why"),
    [
        (lambda lines: lines[:30] + lines[31:], 30, "30 is missing"),
        (lambda lines: lines[:30] + lines[29:], 30, "30 is missing"),
        (swapped, 7, "7 is missing"),
        (lambda lines: lines[:31], 31, "entries 31 to 60 are missing"),
        (lambda lines: [*lines[:31], lines[-1]], 31, "entries 31 to 60 are missing"),
        (lambda lines: [*lines[:30], lines[30][:-9]], 30, "cut at entry 30"),
        (lambda lines: [*lines, lines[-1]], 61, "after its end"),
        (change(12, lambda line: line.replace(b'"t-1"', b'"t-2"')), 12, "does not hash"),
        (change(12, lambda line: line.replace(b'"actor":"a"', b'"actor":"b"')), 12, "does not hash"),
        (change(12, lambda line: line.replace(b'"source":""', b'"source":"x"')), 12, "does not hash"),
        (change(12, lambda line: line.replace(b'"subject":"', b'"subject":"x')), 12, "filed under another"),
        (change(12, lambda line: b"not JSON\n"), 12, "cannot be read"),
        (lambda lines: lines[1:], 0, "does not begin"),
        (lambda lines: [], 0, "ends before"),
        (change(0, lambda line: line.replace(b'"format":1', b'"format":2')), 0, "format 2"),
        (change(0, lambda line: line.replace(b'"last":60', b'"last":61')), 0, "no part of"),
        (change(0, lambda line: line.replace(b"cn.a/", b"cn.b/")), 0, "not genuine"),
    ],
)
def test_what_was_altered_is_named_by_its_position(
    alter: Callable[[list[bytes]], list[bytes]], at: int, why: str
) -> None:
    found = verify_export(alter(exported()), KEY.public)
    assert not found.is_verified
    assert why in found.why
    assert found.broken_at == at


def test_every_altered_byte_of_an_entry_or_a_hash_fails() -> None:
    lines = exported(17, 23)
    for at in (0, 3):
        for place in range(0, len(lines[at]) - 1, 7):
            wrong = bytearray(lines[at])
            wrong[place] ^= 1
            found = verify_export([*lines[:at], bytes(wrong), *lines[at + 1 :]], KEY.public)
            assert not found.is_verified, (at, place)


def test_a_log_that_was_rewritten_and_chained_anew_is_found_between_two_heads() -> None:
    forged = list(ROWS[:29])
    from tieline.drivers.stores.log import chain
    from tieline.model.event import Entry, TokenUsed

    entries = [Entry(seq=30, time_ms=30, actor="eve", event=TokenUsed(id="t-1", by="b"))]
    entries += [row.entry() for row in ROWS[30:]]
    forged += chain(entries, forged[-1].hash)
    lines = exported()
    lines[1:-1] = [entry_line(event_view(row)) for row in forged]
    found = verify_export(lines, KEY.public)
    assert (found.is_verified, found.broken_at) == (False, 21)
    assert "up to 40" in found.why


def test_another_key_proves_nothing() -> None:
    lines = exported()
    assert "not genuine" in verify_export(lines, OTHER.public).why
    lines[0] = begin_line(EXCHANGE, beside(1, 60, 60), [signed(60, OTHER)])
    assert verify_export(lines, OTHER.public).is_verified
    assert "not genuine" in verify_export(lines, KEY.public).why


def test_heads_must_rise_and_end_at_the_stated_size() -> None:
    lines = exported()
    lines[0] = begin_line(EXCHANGE, beside(1, 60, 60), [signed(60), signed(40)])
    assert "out of order" in verify_export(lines, KEY.public).why
    lines[0] = begin_line(EXCHANGE, beside(1, 60, 60), [signed(40)])
    assert "over 40 entries" in verify_export(lines, KEY.public).why


def test_a_head_that_was_seen_before_must_hold() -> None:
    assert verify_export(exported(), KEY.public, head(35)).heads == 4
    rolled_back = verify_export(exported(1, 40, heads=(20, 40)), KEY.public, head(60))
    assert (rolled_back.is_verified, rolled_back.broken_at) == (False, 40)
    assert "60 were signed before" in rolled_back.why
    forked = msgspec.structs.replace(head(35), root="ab" * 32)
    assert verify_export(exported(), KEY.public, forked).broken_at == 21
    assert "does not go on" in verify_export(exported(), KEY.public, msgspec.structs.replace(forked, size=60)).why
    assert "not of `cn.b" in verify_export(exported(), KEY.public, head(35, exchange="cn.b/exchange/main")).why
