from __future__ import annotations

import pytest
from storerows import log, tampered

from tieline.drivers.stores.log import GENESIS, link
from tieline.drivers.stores.store import Store
from tieline.model.error import TielineError


@pytest.mark.parametrize(
    ("statement", "broken_at", "why"),
    [
        ("UPDATE event SET body = CAST(replace(body, 't-1', 't-2') AS BLOB) WHERE seq = 2500", 2500, "does not hash"),
        ("UPDATE event SET actor = 'eve' WHERE seq = 1", 1, "does not hash"),
        ("UPDATE event SET hash = zeroblob(32) WHERE seq = 7", 7, "does not hash"),
        ("UPDATE event SET seq = CASE seq WHEN 8 THEN -9 WHEN 9 THEN -8 END WHERE seq IN (8, 9)", 8, "8 is missing"),
        ("UPDATE event SET job = 'j-1' WHERE seq = 12", 12, "filed under another"),
        ("DELETE FROM event WHERE seq = 2000", 2000, "2,000 is missing"),
        ("DELETE FROM event WHERE seq > 2990", 2991, "the end is missing"),
        ("DELETE FROM event", 1, "the end is missing"),
    ],
)
def test_verification_says_where_a_stored_log_was_changed(
    store: Store, statement: str, broken_at: int, why: str
) -> None:
    store.append(log(3_000))
    assert store.verify_chain().is_verified
    tampered(store, statement)
    found = store.verify_chain()
    assert (found.is_verified, found.broken_at) == (False, broken_at)
    assert why in found.why


@pytest.mark.parametrize("change", ["body = CAST(body AS TEXT)", "actor = CAST(x'ff' AS TEXT)", "time_ms = 1.5"])
def test_a_value_of_another_type_is_found(file_store: Store, change: str) -> None:
    file_store.append(log(60))
    tampered(file_store, f"UPDATE event SET {change} WHERE seq = 50")  # PostgreSQL keeps no such thing
    found = file_store.verify_chain()
    assert (found.is_verified, found.broken_at) == (False, 50)
    assert "cannot be read" in found.why


def test_two_rows_that_changed_places_are_found(store: Store) -> None:
    store.append(log(30))
    for statement in (
        "UPDATE event SET seq = -1 WHERE seq = 11",
        "UPDATE event SET seq = 11 WHERE seq = 12",
        "UPDATE event SET seq = 12 WHERE seq = -1",
    ):
        tampered(store, statement)
    assert store.verify_chain().broken_at == 11


def test_verification_goes_on_from_a_position_that_is_known(store: Store) -> None:
    store.append(log(100))
    row = store.log_rows(39, 1)[0]
    assert store.verify_chain(40, row.hash).is_verified
    assert not store.verify_chain(40, link(GENESIS, 1, 1, b"", b"")).is_verified
    assert not store.verify_chain(101).is_verified


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM event WHERE seq = 30",
        "DELETE FROM event",
        "UPDATE event SET hash = zeroblob(32) WHERE seq = 30",
        "DELETE FROM meta",
        "UPDATE meta SET value = 'x' WHERE key = 'head'",
    ],
)
def test_a_store_whose_log_was_cut_does_not_open(store: Store, address: str, statement: str) -> None:
    store.append(log(30))
    store.close()
    tampered(store, statement)
    with pytest.raises(TielineError) as caught:
        Store(address).open()
    assert caught.value.code == "check_failed"
