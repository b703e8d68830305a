from __future__ import annotations

import pytest

from tieline.drivers.stores.columns import FILE, KIND, columns_of, kind_of
from tieline.drivers.stores.log import GENESIS, LogRow, chain, link, verify
from tieline.model.event import (
    CancelRequested,
    Entry,
    Event,
    GangBroken,
    JobEnded,
    RunAccepted,
    RunConfirmed,
    RunEnded,
    SiteChanged,
    TokenUsed,
)
from tieline.model.job import Break, JobState, RunState
from tieline.model.party import Site
from tieline.model.reason import Reason


def entries(count: int) -> list[Entry]:
    return [
        Entry(seq=seq, time_ms=1_000 + seq, actor="alice", event=TokenUsed(id=f"t-{seq}", by="cn.demo.lab7/site/gz1"))
        for seq in range(1, count + 1)
    ]


def test_the_hash_of_an_entry_is_stated_byte_by_byte() -> None:
    (row,) = chain(entries(1))
    by_hand = GENESIS + bytes([0] * 7 + [1]) + (1_001).to_bytes(8, "big") + b"\x00\x00\x00\x05alice" + row.body
    import hashlib

    assert row.hash == hashlib.sha256(by_hand).digest()
    assert row.body == b'{"event":"token_used","id":"t-1","by":"cn.demo.lab7/site/gz1"}'


def test_an_actor_and_a_body_cannot_be_shifted_into_each_other() -> None:
    assert link(GENESIS, 1, 0, b"ab", b"c") != link(GENESIS, 1, 0, b"a", b"bc")


def test_a_chain_verifies_and_states_its_head() -> None:
    rows = chain(entries(50))
    found = verify(rows)
    assert (found.is_verified, found.events, found.head, found.broken_at) == (True, 50, rows[-1].hash.hex(), 0)


def test_an_empty_chain_verifies() -> None:
    found = verify([])
    assert (found.is_verified, found.events, found.head) == (True, 0, GENESIS.hex())


def test_a_chain_verifies_from_the_middle_when_the_hash_there_is_known() -> None:
    rows = chain(entries(50))
    assert verify(rows[20:], rows[19].hash, 20).is_verified
    assert not verify(rows[20:], rows[18].hash, 20).is_verified


def flip(rows: list[LogRow]) -> list[LogRow]:
    body = bytearray(rows[16].body)
    body[-4] ^= 1  # inside the text of `by`
    rows[16] = rows[16]._replace(body=bytes(body))
    return rows


def flip_and_rehash(rows: list[LogRow]) -> list[LogRow]:
    row = flip(rows)[16]
    rows[16] = row._replace(hash=link(rows[15].hash, row.seq, row.time_ms, row.actor.encode(), row.body))
    return rows


def swap(rows: list[LogRow]) -> list[LogRow]:
    rows[16], rows[17] = rows[17]._replace(seq=17), rows[16]._replace(seq=18)
    return rows


def swap_in_place(rows: list[LogRow]) -> list[LogRow]:
    rows[16], rows[17] = rows[17], rows[16]
    return rows


def drop(rows: list[LogRow]) -> list[LogRow]:
    del rows[16]
    return rows


def drop_and_renumber(rows: list[LogRow]) -> list[LogRow]:
    return rows[:16] + [row._replace(seq=row.seq - 1) for row in rows[17:]]


def repeat(rows: list[LogRow]) -> list[LogRow]:
    return [*rows[:17], rows[16], *rows[17:]]


def change_time(rows: list[LogRow]) -> list[LogRow]:
    rows[16] = rows[16]._replace(time_ms=rows[16].time_ms - 1)
    return rows


def change_actor(rows: list[LogRow]) -> list[LogRow]:
    rows[16] = rows[16]._replace(actor="bob")
    return rows


def change_kind(rows: list[LogRow]) -> list[LogRow]:
    rows[16] = rows[16]._replace(kind="job_ended")
    return rows


def change_subject(rows: list[LogRow]) -> list[LogRow]:
    rows[16] = rows[16]._replace(subject="t-99")
    return rows


def hide_from_a_job(rows: list[LogRow]) -> list[LogRow]:
    rows[16] = rows[16]._replace(job="j-other")
    return rows


@pytest.mark.parametrize(
    ("planted", "broken_at", "why"),
    [
        (flip, 17, "does not hash"),
        (flip_and_rehash, 18, "does not hash"),
        (swap, 17, "does not hash"),
        (swap_in_place, 17, "17 is missing"),
        (drop, 17, "17 is missing"),
        (drop_and_renumber, 17, "does not hash"),
        (repeat, 18, "18 is missing"),
        (change_time, 17, "does not hash"),
        (change_actor, 17, "does not hash"),
        (change_kind, 17, "filed under another"),
        (change_subject, 17, "filed under another"),
        (hide_from_a_job, 17, "filed under another"),
    ],
)
def test_a_planted_change_is_found_where_it_is(planted: object, broken_at: int, why: str) -> None:
    assert callable(planted)
    found = verify(planted(chain(entries(50))))
    assert (found.is_verified, found.broken_at, found.events) == (False, broken_at, broken_at - 1)
    assert why in found.why


def test_a_cut_tail_is_found_by_an_anchor_and_by_nothing_else() -> None:
    rows = chain(entries(50))
    assert verify(rows[:40]).is_verified
    found = verify(rows[:40], anchors={50: rows[-1].hash})
    assert (found.is_verified, found.broken_at) == (False, 41)
    assert "the end is missing" in found.why


def test_a_chain_that_was_written_anew_is_found_by_a_witness() -> None:
    rows, other = (
        chain(entries(50)),
        chain([*entries(49), Entry(seq=50, time_ms=1, actor="eve", event=entries(1)[0].event)]),
    )
    found = verify(other, anchors={50: rows[-1].hash})
    assert (found.is_verified, found.broken_at) == (False, 50)
    assert "was witnessed" in found.why


def test_a_body_that_is_no_event_is_said() -> None:
    body = b'{"event":"from_the_future"}'
    row = LogRow(1, 5, "from_the_future", "x", None, None, "a", body, link(GENESIS, 1, 5, b"a", body))
    found = verify([row])
    assert (found.is_verified, found.broken_at) == (False, 1)
    assert "not an event" in found.why


def _leaves(kind: type[Event]) -> list[type[Event]]:
    return [leaf for each in kind.__subclasses__() for leaf in _leaves(each)] or [kind]


def test_every_kind_of_event_has_a_tag_of_its_own() -> None:
    assert len(set(KIND.values())) == len(KIND)
    assert sorted(KIND, key=str) == sorted(_leaves(Event), key=str)
    assert set(FILE) <= set(KIND)
    assert kind_of(CancelRequested(job="j", by="a")) == "cancel_requested"


def test_events_are_filed_under_the_short_name_of_their_job() -> None:
    ended = JobEnded(job="cn.demo/job/j-1", state=JobState.FAILED, at_ms=1)
    run = RunEnded(run="j-1.2", state=RunState.LOST, at_ms=1)
    assert columns_of(ended, None) == ("j-1", None)
    assert columns_of(run, None) == ("j-1", None)
    assert columns_of(RunConfirmed(run="j-1.2.7", at_ms=1), None) == ("j-1", None)  # a part of a gang
    why = Break(reason=Reason(code="lost"), site="cn.demo.lab7/site/gz1")
    assert columns_of(GangBroken(job="cn.demo/job/j-1", run="j-1.2.7", why=why), None) == ("j-1", why.site)
    site = Site(id="cn.demo.lab7/site/gz1", owner="cn.demo.lab7", public="k")
    assert columns_of(SiteChanged(site=site, why="x"), None) == (None, site.id)


def test_the_site_of_a_run_comes_from_the_view() -> None:
    class Seen:
        site = "cn.demo.lab7/site/gz1"

    class Live:
        runs = {"j-1.1": Seen}

    class Ended:
        runs: dict[str, object] = {}
        recent = {"j-1.1": Seen}

    accepted = RunAccepted(run="j-1.1", at_ms=1)
    assert columns_of(accepted, Live) == columns_of(accepted, Ended) == ("j-1", Seen.site)
