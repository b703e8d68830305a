"""An exported log proves itself, and every way to alter it is named by its position."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from storerows import log

from tieline.drivers.stores import export
from tieline.drivers.stores.export import Growth, begin_line, end_line, entry_line, verify_export
from tieline.drivers.stores.log import GENESIS, LogRow, chain
from tieline.drivers.stores.reader import event_view
from tieline.model.audit import LogHead, RangeView
from tieline.model.event import Entry, TokenUsed
from tieline.registry import Key, merkle, open_statement
from tieline.registry.heads import checked_head, sign_head

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


def growth(old: int, new: int = 60, leaves: list[bytes] = LEAVES) -> Growth:
    def hashes(level: int, place: int) -> bytes:
        return merkle.folded(leaves[place << level : place + 1 << level])

    return Growth(size=old, proof=tuple(each.hex() for each in merkle.consistency_proof(old, new, hashes)))


def exported(
    first: int = 1, last: int = 60, heads: tuple[int, ...] = (20, 40, 60), seen: tuple[int, ...] = ()
) -> list[bytes]:
    outside = [size for size in (*heads[:-1], *seen) if not first - 1 <= size <= last]
    growths = [growth(size, heads[-1]) for size in outside]
    lines = [begin_line(EXCHANGE, beside(first, last, heads[-1]), [signed(size) for size in heads], growths)]
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


def with_head(statement: str) -> Callable[[list[bytes]], list[bytes]]:
    """The last head in the file is another one."""
    return lambda lines: [
        begin_line(EXCHANGE, beside(1, 60, 60), [signed(20), signed(40), statement]), *lines[1:]
    ]  # fmt: skip


def of_another_log(lines: list[bytes]) -> list[bytes]:
    return with_head(sign_head(head(60, exchange="cn.b/exchange/main"), KEY, "cn.b#exchange").decode())(lines)


ALTERATIONS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int, str, str]] = {
    # what was done, where it is noticed, under which name, and what the sentence says
    "an entry removed": (lambda lines: lines[:30] + lines[31:], 30, "log_gap", "30 is missing"),
    "an entry put in": (lambda lines: lines[:30] + lines[29:], 30, "log_gap", "30 is missing"),
    "two entries swapped": (swapped, 7, "log_gap", "7 is missing"),
    "the end cut off": (lambda lines: lines[:31], 31, "export_cut", "entries 31 to 60 are missing"),
    "the end cut out": (lambda lines: [*lines[:31], lines[-1]], 31, "export_cut", "entries 31 to 60 are missing"),
    "cut within a line": (lambda lines: [*lines[:30], lines[30][:-9]], 30, "export_cut_line", "cut at entry 30"),
    "something after the end": (lambda lines: [*lines, lines[-1]], 61, "export_more", "after its end"),
    "a body changed": (change(12, lambda line: line.replace(b'"t-1"', b'"t-2"')), 12, "log_changed", "not hash"),
    "an actor changed": (
        change(12, lambda line: line.replace(b'"actor":"a"', b'"actor":"b"')), 12, "log_changed", "not hash",
    ),
    "a source changed": (
        change(12, lambda line: line.replace(b'"source":""', b'"source":"x"')), 12, "log_changed", "not hash",
    ),
    "a subject changed": (
        change(12, lambda line: line.replace(b'"subject":"', b'"subject":"x')), 12, "log_misfiled", "under another",
    ),
    "no JSON": (change(12, lambda line: b"not JSON\n"), 12, "export_form", "cannot be read"),
    "the beginning removed": (lambda lines: lines[1:], 0, "export_form", "does not begin"),
    "everything removed": (lambda lines: [], 0, "export_form", "ends before"),
    "another format": (
        change(0, lambda line: line.replace(b'"format":1', b'"format":2')), 0, "export_form", "format 2",
    ),
    "more entries stated": (
        change(0, lambda line: line.replace(b'"last":60', b'"last":61')), 0, "export_form", "no part of",
    ),
    "another exchange stated": (
        change(0, lambda line: line.replace(b"cn.a/", b"cn.b/")), 0, "export_head_foreign", "not genuine",
    ),
    "a head of another log": (of_another_log, 0, "export_head_foreign", "`cn.b/exchange/main`"),
    "a head by another key": (with_head(signed(60, OTHER)), 0, "export_signature", "not genuine"),
    "a head over another size": (with_head(signed(59)), 0, "export_size", "over 59 entries"),
    "a head of another tree": (
        with_head(sign_head(msgspec.structs.replace(head(60), root="ab" * 32), KEY, "k#exchange").decode()),
        41, "export_root", "up to 60",
    ),
    "a head with another end of the chain": (
        with_head(sign_head(msgspec.structs.replace(head(60), head="ab" * 32), KEY, "k#exchange").decode()),
        41, "export_root", "up to 60",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERATIONS)
def test_what_was_altered_is_named_with_its_position(name: str) -> None:
    alter, at, code, why = ALTERATIONS[name]
    found = verify_export(alter(exported()), KEY.public)
    assert not found.is_verified
    assert found.reason is not None
    assert (found.reason.code, found.broken_at) == (code, at)
    assert why in found.why


BUGS: dict[str, tuple[str, object, str]] = {
    # a check that is left out, and what then passes or is called something else
    "the chain is not compared": ("fault", lambda row, seq, previous: None, "a subject changed"),
    "whose log a head is of is not asked": (
        "_Reading._check_heads",
        lambda self, begin: self._heads.extend(checked_head(each.encode(), KEY.public) for each in begin.heads),
        "a head of another log",
    ),
    "signatures are believed": (
        "checked_head",
        lambda statement, public: open_statement(statement, "log-head", LogHead)[0],
        "a head by another key",
    ),
    "the tree is not compared": ("_Reading._vouch", lambda self, frontier, end: None, "a head of another tree"),
    "the root alone is compared": (
        "_Reading._vouch",
        lambda self, frontier, end: VOUCH(self, frontier, None),
        "a head with another end of the chain",
    ),
    "the end is not waited for": (
        "_Reading._check_entries",
        lambda self, begin, frontier: CHECK_ENTRIES(self, begin, frontier) and begin.last,
        "the end cut out",
    ),
    "lines need no end": ("_Reading._decoded", lambda self, data, at: DECODE(data), "cut within a line"),
}
VOUCH, CHECK_ENTRIES = export._Reading._vouch, export._Reading._check_entries
DECODE = msgspec.json.Decoder(export.Line).decode


@pytest.mark.parametrize("bug", BUGS)
def test_a_check_that_is_left_out_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, instead, victim = BUGS[bug]
    monkeypatch.setattr(f"tieline.drivers.stores.export.{where}", instead)
    noticed = []
    for name, (alter, at, code, _) in ALTERATIONS.items():
        try:
            found = verify_export(alter(exported()), KEY.public)
            seen = (found.reason.code if found.reason else "", found.broken_at)
        except Exception:  # noqa: BLE001 - a planted bug may break anything
            seen = ("crash", 0)
        if seen != (code, at):
            noticed.append(name)
    assert victim in noticed, noticed


def test_every_flipped_byte_of_an_export_is_found() -> None:
    """Every bit of it."""
    data = b"".join(exported(57, 59, heads=(40, 58, 60)))
    assert verify_export(data.splitlines(keepends=True), KEY.public).is_verified
    unfound = []
    for place in range(len(data)):
        for bit in (1, 2, 4, 8, 16, 32, 64, 128):
            wrong = bytearray(data)
            wrong[place] ^= bit
            found = verify_export(bytes(wrong).splitlines(keepends=True), KEY.public)
            if found.is_verified or found.reason is None or not found.why:
                unfound.append((place, bit))
    assert unfound == []
    assert len(data) > 2_500


def test_a_log_that_was_rewritten_and_chained_anew_is_found_between_two_heads() -> None:
    lines = exported()
    lines[1:-1] = [entry_line(event_view(row)) for row in forked(30)]
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


def test_a_head_from_before_the_part_holds_by_a_proof_or_not_at_all() -> None:
    """A part says nothing of what came before it: a head over fewer entries needs its own proof."""
    for first, last, seen in ((41, 60, 35), (41, 50, 35), (41, 50, 55), (61, 60, 1)):
        part = exported(first, last, heads=(60,))
        unproved = verify_export(part, KEY.public, head(seen))
        assert unproved.reason is not None
        assert (unproved.reason.code, unproved.reason.values) == ("export_unproved", {"known": seen})
        found = verify_export(exported(first, last, heads=(60,), seen=(seen,)), KEY.public, head(seen))
        assert (found.why, found.heads) == ("", 2)
    assert verify_export(exported(41, 60, heads=(60,)), KEY.public, head(0)).is_verified  # nothing was seen


def forked(at: int) -> list[LogRow]:
    """Another log of the same exchange, from entry ``at`` on."""
    kept = list(ROWS[: at - 1])
    entries = [Entry(seq=at, time_ms=30, actor="eve", event=TokenUsed(id="t-1", by="b"))]
    entries += [row.entry() for row in ROWS[at:]]
    return [*kept, *chain(entries, kept[-1].hash)]  # type: ignore[list-item]


def test_two_histories_with_a_genuine_head_each_are_found_by_whoever_saw_the_other() -> None:
    other = forked(30)
    leaves = [merkle.leaf_hash(row.hash) for row in other]
    lines = exported(41, 60, heads=(60,), seen=(35,))
    begin = export._line(lines[0])
    assert isinstance(begin, export.Begin)

    def shown(old: int, proof: Growth) -> str:
        seen = msgspec.structs.replace(begin, heads=(signed(60),), growths=(proof,))
        found = verify_export([msgspec.json.encode(seen) + b"\n", *lines[1:]], KEY.public, head(old, other))
        return found.reason.code if found.reason else ""

    assert shown(35, growth(35)) == "log_forked"  # the proof of this history does not begin with the other
    assert shown(35, growth(35, 60, leaves)) == "log_forked"  # that of the other does not end in this
    assert shown(29, growth(29)) == ""  # so far they are one
    whole = verify_export(exported(), KEY.public, head(35, other))
    assert (whole.reason and whole.reason.code, whole.broken_at) == ("export_root", 21)
    same = verify_export(exported(), KEY.public, head(60, other))
    assert same.reason is not None
    assert same.reason.code == "log_forked"
