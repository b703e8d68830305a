from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect
from storerows import log
from toycore import url_of

from tieline.drivers.stores.database import database_of
from tieline.drivers.stores.store import Store
from tieline.model.error import TielineError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_files_belong_to_their_owner_alone_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    store = Store(url_of(folder)).open()
    store.append(log(3))
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == dict.fromkeys(
        ("tieline.db", "tieline.db-wal", "tieline.db-shm", "tieline.db.lock"), 0o600
    )
    store.close()


def test_rights_that_were_too_wide_are_taken_away(tmp_path: Path) -> None:
    Store(url_of(tmp_path)).open().close()
    (tmp_path / "tieline.db").chmod(0o644)
    Store(url_of(tmp_path)).open().close()
    assert mode(tmp_path / "tieline.db") == 0o600


def test_the_database_is_as_durable_as_promised(file_store: Store) -> None:
    connection = file_store._connection
    assert connection is not None
    asked = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")}
    assert asked == {"journal_mode": "wal", "synchronous": 2}
    assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1


def test_a_second_process_is_told_who_has_the_store(store: Store, address: str) -> None:
    with pytest.raises(TielineError, match=rf"in use by (process |`tieline .*:){os.getpid()}") as caught:
        Store(address).open()
    assert caught.value.code == "conflict"
    assert caught.value.hints


def test_a_store_opens_again_where_it_was_left(store: Store, address: str) -> None:
    store.append(log(5))
    store.close()
    again = Store(address).open()
    assert again.position()[0] == 5
    assert again.verify_chain().is_verified
    assert again.sizes()["wal_bytes"] == 0
    assert again.sizes()["database_bytes"] > 100_000
    again.close()


NO_STORES = (
    "sqlite://",
    "sqlite:///:memory:",
    "mysql://u:hidden@h/db",
    "hidden",
    "postgresql://u@h",
    "postgresql://u:hidden@h/db",
    "postgresql://u@h/db?password=hidden",
    "postgresql://u@h/db?options=-csynchronous_commit%3Doff",
)


@pytest.mark.parametrize("address", NO_STORES)
def test_an_url_that_is_no_store_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(TielineError) as caught:
        Store(address)
    assert caught.value.code == "invalid_request"
    assert "hidden" not in caught.value.message


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tieline.db"
    path.write_bytes(b"something else" * 500)
    with pytest.raises(TielineError, match="is not a store"):
        Store(url_of(tmp_path)).open()
    assert path.read_bytes() == b"something else" * 500


def test_a_database_of_somebody_else_is_refused_and_left_alone(url: str) -> None:
    database = database_of(url)
    if database.folder is not None:
        database.folder.mkdir()
    engine = database.writing()
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (a int)")
    with pytest.raises(TielineError, match="not a store"):
        Store(url).open()
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["theirs"]
    engine.dispose()
