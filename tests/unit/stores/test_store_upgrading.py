from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable
from storerows import log, tampered, token_change
from toycore import url_of

from postgres import Postgres
from tieline.drivers.stores import arrays
from tieline.drivers.stores import tables as t
from tieline.drivers.stores.database import database_of
from tieline.drivers.stores.following import Follower
from tieline.drivers.stores.statements import chunks
from tieline.drivers.stores.store import Batch, Store
from tieline.model.error import TielineError

REVISION_9 = """
import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0003"


def upgrade():
    op.add_column("token", sa.Column("colour", sa.String(8), nullable=False, server_default="grey"))
    op.execute("UPDATE token SET colour = 'red' WHERE id = 't-1'")
    {more}
"""


def test_alembic_is_imported_only_when_the_store_is_of_another_revision(tmp_path: Path) -> None:
    script = (
        "import sys; from tieline.drivers.stores.store import Store\n"
        f"Store('{url_of(tmp_path)}').open().close(); Store('{url_of(tmp_path)}').open().close()\n"
        "print('alembic' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_an_upgrade_migrates_the_store_and_keeps_what_is_in_it(url: str, tmp_path: Path) -> None:
    older = Store(url).open()
    older.append(Batch(log(20).entries, [token_change()]))
    head = older.position()
    older.close()
    revisions = tmp_path / "revisions"
    revisions.mkdir()
    (revisions / "0009_colour.py").write_text(REVISION_9.format(more=""))
    newer = Store(url, revision="0009", migrations=[revisions]).open()
    assert newer.position() == head
    assert newer.verify_chain().is_verified
    with newer.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT id, colour FROM token").all() == [("t-1", "red")]
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").all() == [("0009",)]
    newer.append(log(1, 21, head[1]))
    newer.close()


def test_an_upgrade_that_fails_half_way_changes_nothing(url: str, tmp_path: Path) -> None:
    older = Store(url).open()
    older.append(Batch(log(20).entries, [token_change()]))
    older.close()
    revisions = tmp_path / "revisions"
    revisions.mkdir()
    (revisions / "0009_colour.py").write_text(REVISION_9.format(more="raise RuntimeError('half way')"))
    with pytest.raises(RuntimeError, match="half way"):
        Store(url, revision="0009", migrations=[revisions]).open()
    again = Store(url).open()
    with again.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM token").all() == [
            ("ab", "t-1", token_change()[2]["doc"])  # type: ignore[index]
        ]
    assert again.tokens()[0].id == "t-1"
    again.close()


def test_a_store_of_a_newer_version_is_refused_and_left_alone(store: Store, address: str) -> None:
    store.close()
    tampered(store, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(TielineError, match="9999") as caught:
        Store(address).open()
    assert caught.value.code == "version_not_supported"
    with pytest.raises(TielineError, match="9999") as caught:
        Follower(address).open()
    assert caught.value.code == "version_not_supported"


def test_revisions_and_tables_lead_to_the_same_database(tmp_path: Path) -> None:
    from alembic import command
    from sqlalchemy import create_engine

    from tieline.drivers.stores.migrations import configuration

    Store(url_of(tmp_path / "fresh")).open().close()
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    config = configuration()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == t.REVISION
    engine.dispose()

    def shape(path: Path) -> dict[str, object]:
        connection = sqlite3.connect(path)
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found: dict[str, object] = {name: connection.execute(f"PRAGMA table_info({name})").fetchall() for name in names}
        indices = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
        found |= {name: " ".join(sql.split()) for name, sql in indices}
        connection.close()
        found.pop("alembic_version")
        return found

    assert shape(tmp_path / "migrated.db") == shape(tmp_path / "fresh" / "tieline.db")


SHAPE = (
    (
        "SELECT table_name, column_name, ordinal_position, data_type, is_nullable, column_default, collation_name"
        " FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
        " ORDER BY 1, 3"
    ),
    (
        "SELECT indexname, indexdef, NULL, NULL, NULL, NULL, NULL FROM pg_indexes"
        " WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1"
    ),
)


def test_revisions_and_tables_lead_to_the_same_database_of_a_server(postgres: Postgres) -> None:
    from alembic import command

    from tieline.drivers.stores.migrations import configuration

    names = [postgres.database(), postgres.database(is_made=False)]
    engine = database_of(postgres.url(names[1])).writing()
    config = configuration()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
    shapes = []
    for name in names:
        with postgres.admin(name) as server:
            shapes.append([row for query in SHAPE for row in server.execute(query).fetchall()])
        postgres.drop(name)
    assert shapes[0] == shapes[1]
    assert {row[6] for row in shapes[0] if row[3] == "text"} == {"C"}, "names are ordered as in SQLite"


def test_the_tables_and_statements_are_ready_for_postgresql() -> None:
    dialect = postgresql.dialect()
    for table in t.metadata.sorted_tables:
        text = str(CreateTable(table).compile(dialect=dialect))
        assert "CREATE TABLE" in text
        for index in table.indexes:
            assert "CREATE INDEX" in str(CreateIndex(index).compile(dialect=dialect))
    assert "BYTEA" in str(CreateTable(t.event).compile(dialect=dialect))
    assert arrays.Upsert(t.quote, dialect).text == (
        'INSERT INTO quote (id, "user", state, doc) SELECT * FROM '
        "unnest(%b::text[], %b::text[], %b::text[], %b::bytea[]) "
        "ON CONFLICT (id) DO UPDATE SET state = excluded.state, doc = excluded.doc"
    )
    assert arrays.Delete(t.secret, dialect).text == "DELETE FROM secret WHERE job = ANY(%b::text[])"


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (7, [4, 2, 1]), (300, [256, 32, 8, 4]), (512, [256, 256])]
)
def test_rows_travel_in_powers_of_two(count: int, sizes: list[int]) -> None:
    assert list(chunks(count)) == sizes
