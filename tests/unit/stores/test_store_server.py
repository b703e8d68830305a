"""What holds of a store in a database server alone: sessions break, servers restart, other processes take over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from storerows import job, log
from toycore import submit, toy_writer
from writerparts import WAIT_S, Timer, done, refused

from postgres import Postgres
from tieline.drivers.stores.failure import code_of_state, is_connection_lost
from tieline.drivers.stores.following import Follower
from tieline.drivers.stores.log import GENESIS
from tieline.drivers.stores.store import Batch, Store, StoreError
from tieline.model.error import TielineError


@pytest.fixture
def store(server_url: str) -> Iterator[Store]:
    opened = Store(server_url).open()
    yield opened
    opened.close()


@pytest.fixture
def follower(store: Store, server_url: str) -> Iterator[Follower]:
    opened = Follower(server_url).open()
    yield opened
    opened.close()


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A server of the test's own, which it may crash."""
    server = Postgres(is_durable=True)
    yield server
    server.remove()


def awaited(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(store: Store, follower: Follower) -> None:
    """End the session that holds the writer's lock, while the store does nothing."""
    found = follower.holder()
    assert found is not None
    assert follower.depose(found)
    awaited(lambda: follower.holder() is None)


def session(store: Store) -> Any:
    assert store._connection is not None
    return store._connection.connection.driver_connection


# -- one writer --------------------------------------------------------------------------------------------------------


def test_what_is_acknowledged_is_on_disk_whatever_the_role_says(postgres: Postgres, server_url: str) -> None:
    with postgres.admin() as connection:
        connection.execute("ALTER ROLE tieline SET synchronous_commit = off")
    try:
        store = Store(server_url).open()
        assert session(store).execute("SHOW synchronous_commit").fetchone() == ("on",)
        store.close()
    finally:
        with postgres.admin() as connection:
            connection.execute("ALTER ROLE tieline RESET ALL")


def test_terms_only_grow(store: Store, server_url: str) -> None:
    before = store.term
    store.close()
    again = Store(server_url).open()
    assert again.term == before + 1
    again.close()


def test_a_session_that_was_cut_is_replaced_and_nothing_is_lost_or_written_twice(
    store: Store, follower: Follower
) -> None:
    store.append(log(3))
    ended(store, follower)
    store.append(Batch(log(2, 4, store.position()[1]).entries, [job("j-1")]))
    assert store.position()[0] == 5
    ended(store, follower)
    assert store.replies(["k"]) == {}
    assert store.verify_chain().is_verified
    assert follower.holder() is not None


def test_a_commit_whose_answer_was_lost_is_not_written_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    transaction, is_cut = store._database.transaction, []

    @contextmanager
    def cut(connection: Any) -> Iterator[Any]:
        with transaction(connection) as cursor:
            yield cursor
        if not is_cut:
            is_cut.append(1)
            session(store).close()
            raise psycopg.OperationalError("the connection was lost")

    monkeypatch.setattr(store._database, "transaction", cut)
    store.append(log(3))
    assert is_cut
    assert store.position()[0] == 3
    assert store.verify_chain().is_verified


def test_a_writer_that_was_replaced_never_writes_again(store: Store, follower: Follower, server_url: str) -> None:
    store.append(log(3))
    ended(store, follower)
    other = Store(server_url).open()
    assert other.term == store.term + 1
    other.append(log(1, 4, other.position()[1]))
    for _ in range(2):
        with pytest.raises(StoreError, match=r"came after this one|has another writer") as caught:
            store.append(log(1, 4, other.position()[1]))
        assert caught.value.code == "not_leader"
        with pytest.raises(StoreError) as caught:
            store.recover()
        assert caught.value.code == "not_leader"
    other.close()
    with pytest.raises(StoreError) as caught:
        store.recover()
    assert caught.value.code == "not_leader", "not even when nobody holds the lock"
    assert follower.position()[0] == 4


def test_a_writer_that_was_replaced_answers_what_waits_and_ends(
    store: Store, follower: Follower, server_url: str
) -> None:
    timer = Timer()
    writer = toy_writer(store, timer=timer).start()
    done(writer.submit(submit("a")))
    ended(store, follower)
    other = Store(server_url).open()
    assert refused(writer.submit(submit("b"))).code == "not_leader"
    timer.at_s += 2
    try:
        assert refused(writer.submit(submit("c"))).code == "not_leader"
    except TielineError as error:  # it may have ended already
        assert error.code == "overloaded"  # noqa: PT017
    awaited(lambda: not writer.alive)
    assert len(other.jobs()) == 1
    other.close()


def test_a_writer_outlives_a_restart_of_the_server(own_server: Postgres) -> None:
    url = own_server.url(own_server.database(is_made=False))
    store = Store(url).open()
    timer = Timer()
    writer = toy_writer(store, timer=timer).start()
    done(writer.submit(submit("a")))
    own_server.stop()
    assert refused(writer.submit(submit("b"))).code == "store_unreachable"
    assert not writer.is_writable
    own_server.start()
    timer.at_s += 2
    assert len(done(writer.submit(submit("c")))) == 1
    assert writer.is_writable
    assert sorted(held.task.name for held in store.jobs()) == ["a", "c"]
    assert writer.close(WAIT_S)
    store.close()


def test_a_server_that_crashes_loses_nothing_that_was_acknowledged(own_server: Postgres) -> None:
    url = own_server.url(own_server.database(is_made=False))
    store = Store(url).open()
    writer = toy_writer(store, batch=16).start()
    acknowledged: list[str] = []

    def ask() -> None:
        for _ in range(10_000):
            try:
                acknowledged.append(writer.submit(submit("a")).result(WAIT_S)[0].id)
            except TielineError:
                return

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    awaited(lambda: len(acknowledged) > 200)
    own_server.crash()
    for thread in threads:
        thread.join(WAIT_S)
    assert writer.close(WAIT_S)
    store.close()
    own_server.start()
    again = Store(url).open()
    with again.engine.connect() as connection:
        kept = set(connection.exec_driver_sql("SELECT id FROM job").scalars())
    assert set(acknowledged) - kept == set()
    assert again.verify_chain().is_verified
    again.close()


# -- following ---------------------------------------------------------------------------------------------------------


def test_a_follower_is_woken_by_a_commit_and_takes_no_lock(store: Store, follower: Follower) -> None:
    found = follower.holder()
    assert found is not None
    assert found.pid == session(store).info.backend_pid
    assert follower.term() == store.term
    assert follower.wait(0, 0.01) == 0
    timer = threading.Timer(0.2, lambda: store.append(log(2)))
    timer.start()
    assert follower.wait(0, WAIT_S) == 2
    timer.join()
    assert [entry.seq for entry in follower.entries(0)] == [1, 2]
    with pytest.raises(Exception, match="read-only"), follower.engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM meta")


def test_a_follower_goes_on_after_its_sessions_were_cut(store: Store, follower: Follower, postgres: Postgres) -> None:
    assert follower.wait(0, 0.01) == 0
    with postgres.admin() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    store.append(log(2))
    assert follower.wait(0, WAIT_S) == 2
    assert follower.wait(2, 0.3) == 2
    store.append(log(1, 3, store.position()[1]))
    assert follower.wait(2, WAIT_S) == 3


def test_there_is_nothing_to_follow_before_a_writer_was_there(postgres: Postgres) -> None:
    name = postgres.database(is_made=False)
    with pytest.raises(TielineError) as caught:
        Follower(postgres.url(name)).open()
    assert caught.value.code == "not_found"
    postgres.drop(name)
    with pytest.raises(TielineError, match="does not exist") as caught:
        Store(postgres.url(name)).open()
    assert caught.value.code == "store_unreachable"
    assert caught.value.hints


def test_a_database_in_another_encoding_is_refused(postgres: Postgres) -> None:
    with postgres.admin() as connection:
        connection.execute("CREATE DATABASE latin OWNER tieline TEMPLATE template0 ENCODING latin1 LOCALE 'C'")
    with pytest.raises(TielineError, match="encoded in LATIN1, UTF8 is needed") as caught:
        Store(postgres.url("latin")).open()
    assert caught.value.code == "invalid_request"
    postgres.drop("latin")


# -- what errors mean --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "is_lost"),
    [
        (psycopg.errors.DiskFull("no space"), "storage_full", False),
        (psycopg.errors.SerializationFailure("again"), "store_unreachable", False),
        (psycopg.errors.AdminShutdown("going down"), "store_unreachable", True),
        (psycopg.errors.CannotConnectNow("starting up"), "store_unreachable", True),
        (psycopg.errors.TooManyConnections("no slot"), "store_unreachable", True),
        (psycopg.errors.ConnectionFailure("broken"), "store_unreachable", True),
        (psycopg.OperationalError("the connection is closed"), "store_unreachable", True),
        (psycopg.errors.UniqueViolation("twice"), "internal", False),
        (psycopg.DataError("a NUL"), "internal", False),
        (KeyError("x"), "internal", False),
    ],
)
def test_an_error_of_the_server_is_told_apart(error: Exception, code: str, is_lost: bool) -> None:
    assert (code_of_state(error), is_connection_lost(error)) == (code, is_lost)


def test_a_name_that_no_text_can_hold_fails_its_batch_alone(store: Store) -> None:
    with pytest.raises(StoreError) as caught:
        store.append(Batch(log(1).entries, [job("j-\0")]))
    assert (caught.value.code, caught.value.is_lost) == ("internal", False)
    assert store.position() == (0, GENESIS)
    assert not store.recover(), "the session is the same, and so is the lock"
    store.append(log(1))
    assert store.position()[0] == 1
