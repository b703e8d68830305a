from __future__ import annotations

import os

import pytest
from storerows import job, log, token_change

from tieline.drivers.stores import tables as t
from tieline.drivers.stores.store import Batch, Store, StoreError
from tieline.model.job import JobState


def test_a_batch_is_kept_with_its_projections_and_answers(store: Store) -> None:
    store.append(Batch(log(300).entries, [token_change()], [("alice k1", "d", 7, b"reply")]))
    assert store.position()[0] == 300
    assert store.tokens()[0].id == "t-1"
    assert store.replies(["alice k1", "alice k2"]) == {"alice k1": ("d", 7, b"reply")}
    assert store.verify_chain().events == 300


def test_a_batch_that_cannot_be_kept_whole_is_not_kept_at_all(store: Store) -> None:
    store.append(log(3))
    head = store.position()
    bad = {
        "id": "cn.demo/job/j-1",
        "state": None,
        "user": "a",
        "pipeline": "",
        "submitted_ms": 1,
        "ended_ms": 0,
        "doc": b"",
        "brief": None,
        "project": None,
    }
    with pytest.raises(StoreError):
        store.append(Batch(log(5, 4, head[1]).entries, [token_change(), ("job", "cn.demo/job/j-1", bad)]))
    assert store.position() == head
    assert store.tokens() == []
    assert store.verify_chain().is_verified
    store.append(log(5, 4, head[1]))
    assert store.position()[0] == 8


def test_an_entry_is_never_written_over(store: Store) -> None:
    store.append(log(3))
    with pytest.raises(StoreError):
        store.append(log(1, 3))
    assert store.verify_chain().is_verified


def test_a_row_is_replaced_and_deleted(store: Store) -> None:
    store.append(Batch(changes=[job("j-1"), job("j-2")]))
    store.append(Batch(changes=[job("j-1", state="running"), ("job", "cn.demo/job/j-2", None), ("job", "none", None)]))
    assert [(held.id, held.state) for held in store.jobs()] == [("cn.demo/job/j-1", JobState.RUNNING)]


def test_a_probe_leaves_nothing_behind(store: Store) -> None:
    store.append(log(2))
    store.probe()
    store.recover()
    store.probe()
    with store.engine.connect() as connection:
        assert connection.execute(t.meta.select()).scalars().all() in (["head"], ["term", "head"])
    assert store.position()[0] == 2


def test_readers_can_change_nothing(store: Store) -> None:
    with store.engine.connect() as connection, pytest.raises(Exception, match=r"read-?only"):
        connection.exec_driver_sql("DELETE FROM meta")


def test_what_is_deleted_leaves_no_bytes_in_the_file(file_store: Store) -> None:
    sealed = b"sealed-" + os.urandom(40).hex().encode() * 200
    file_store.append(Batch(changes=[("secret", "j", {"job": "j", "sealed": sealed})]))
    assert file_store.secret("j") == sealed
    file_store.append(Batch(changes=[("secret", "j", None)]))
    assert file_store.secret("j") is None
    file_store.close()
    assert b"sealed-" not in file_store.path.read_bytes()
