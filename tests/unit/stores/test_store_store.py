from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable
from toycore import SITE, row_of, url_of

from tieline.drivers.stores import arrays
from tieline.drivers.stores import tables as t
from tieline.drivers.stores.log import GENESIS, chain, link
from tieline.drivers.stores.statements import chunks
from tieline.drivers.stores.store import Batch, Change, Store, StoreError
from tieline.model.error import TielineError
from tieline.model.event import Entry, EquivocationSeen, JobSubmitted, QuoteChanged, RunOffered, SiteJoined, TokenUsed
from tieline.model.job import Job, JobState, Run, RunState, Usage
from tieline.model.party import Role, Site, Token
from tieline.model.plan import Quote
from tieline.model.task import Task


def log(count: int, start: int = 1, previous: bytes = GENESIS) -> Batch:
    entries = [
        Entry(seq=seq, time_ms=seq, actor="a", event=TokenUsed(id="t-1", by="b")) for seq in range(start, start + count)
    ]
    return Batch(chain(entries, previous))


def job(name: str, *, user: str = "alice", at_ms: int = 1, ended_ms: int = 0, state: str = "queued") -> Change:
    doc = Job(
        id=f"cn.demo/job/{name}",
        user=user,
        state=JobState(state),
        task=Task(),
        submitted_ms=at_ms,
        ended_ms=ended_ms,
        pipeline="p" if name.endswith("p") else "",
    )
    return ("job", doc.id, row_of("job", doc.id, doc))


def run(name: str, of: str, *, at_ms: int = 1, state: str = "running") -> Change:
    doc = Run(
        id=name,
        job=f"cn.demo/job/{of}",
        epoch=1,
        state=RunState(state),
        pool="p",
        site=SITE,
        owner="cn.demo.lab7",
        user="alice",
        price_micro_cny_per_unit_hour=1,
        offered_ms=at_ms,
    )
    return ("run", name, row_of("run", name, doc))


def usage(name: str, *, user: str = "alice", owner: str = "cn.demo.lab7", ended_ms: int = 1) -> Change:
    doc = Usage(
        run=name,
        job=f"cn.demo/job/{name.partition('.')[0]}",
        user=user,
        owner=owner,
        pool="p",
        unit="core",
        unit_count=1,
        duration_ms=1,
        unit_seconds=1,
        price_micro_cny_per_unit_hour=1,
        charge_micro_cny=0,
        remainder=1,
        ended_ms=ended_ms,
    )
    return ("usage", name, row_of("usage", name, doc))


def record(name: str, *, kind: str = "pool", prefix: str = "cn.demo.lab7", exp: int = 10) -> Change:
    row = {
        "id": f"{prefix}/{kind}/{name}",
        "prefix": prefix,
        "kind": kind,
        "rev": 1,
        "sha256": "ab",
        "exp": exp,
        "status": "active",
        "kid": f"{prefix}#k",
        "envelope": b"{}",
        "serial": 1,
        "nb": 1,
        "envelope_sha256": None,
    }
    return ("record", str(row["id"]), row)


def quote(name: str, *, user: str = "alice", state: str = "open", expires_ms: int = 5) -> Change:
    doc = {"id": name, "state": state, "expires_ms": expires_ms}
    return ("quote", name, {"id": name, "user": user, "state": state, "doc": msgspec.json.encode(doc)})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


# -- opening -----------------------------------------------------------------------------------------------------------


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


def test_the_database_is_as_durable_as_promised(store: Store) -> None:
    connection = store._connection
    assert connection is not None
    asked = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")}
    assert asked == {"journal_mode": "wal", "synchronous": 2}
    assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1


def test_a_second_process_is_told_who_has_the_store(store: Store) -> None:
    with pytest.raises(TielineError, match=f"in use by process {os.getpid()}") as caught:
        Store(f"sqlite:///{store.path}").open()
    assert caught.value.code == "conflict"


def test_a_store_opens_again_where_it_was_left(store: Store) -> None:
    store.append(log(5))
    store.close()
    again = Store(f"sqlite:///{store.path}").open()
    assert again.position()[0] == 5
    assert again.verify_chain().is_verified
    assert not store.path.with_name("tieline.db-wal").exists() or again.sizes()["wal_bytes"] == 0
    again.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql://u:hidden@h/db"])
def test_an_url_that_is_no_file_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(TielineError) as caught:
        Store(url)
    assert caught.value.code == "invalid_request"
    assert "hidden" not in caught.value.message


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tieline.db"
    path.write_bytes(b"something else" * 500)
    with pytest.raises(TielineError, match="is not a store"):
        Store(url_of(tmp_path)).open()
    assert path.read_bytes() == b"something else" * 500


def test_a_database_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "tieline.db")
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(TielineError, match="not a store"):
        Store(url_of(tmp_path)).open()
    connection = sqlite3.connect(tmp_path / "tieline.db")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    connection.close()


# -- upgrading ---------------------------------------------------------------------------------------------------------

REVISION_9 = """
import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0002"


def upgrade():
    op.add_column("token", sa.Column("colour", sa.String(8), nullable=False, server_default="grey"))
    op.execute("UPDATE token SET colour = 'red' WHERE id = 't-1'")
    {more}
"""


def token_change() -> Change:
    held = Token(id="t-1", sha256="ab", name="n", roles=(Role.USER,))
    return ("token", "ab", row_of("token", "ab", held))


def test_alembic_is_imported_only_when_the_store_is_of_another_revision(tmp_path: Path) -> None:
    script = (
        "import sys; from tieline.drivers.stores.store import Store\n"
        f"Store('{url_of(tmp_path)}').open().close(); Store('{url_of(tmp_path)}').open().close()\n"
        "print('alembic' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_an_upgrade_migrates_the_store_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    older = Store(url_of(tmp_path / "data")).open()
    older.append(Batch(log(20).entries, [token_change()]))
    head = older.position()
    older.close()
    revisions = tmp_path / "revisions"
    revisions.mkdir()
    (revisions / "0009_colour.py").write_text(REVISION_9.format(more=""))
    newer = Store(url_of(tmp_path / "data"), revision="0009", migrations=[revisions]).open()
    assert newer.position() == head
    assert newer.verify_chain().is_verified
    with newer.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT id, colour FROM token").all() == [("t-1", "red")]
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").all() == [("0009",)]
    newer.append(log(1, 21, head[1]))
    newer.close()


def test_an_upgrade_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    older = Store(url_of(tmp_path / "data")).open()
    older.append(Batch(log(20).entries, [token_change()]))
    older.close()
    revisions = tmp_path / "revisions"
    revisions.mkdir()
    (revisions / "0009_colour.py").write_text(REVISION_9.format(more="raise RuntimeError('half way')"))
    with pytest.raises(RuntimeError, match="half way"):
        Store(url_of(tmp_path / "data"), revision="0009", migrations=[revisions]).open()
    again = Store(url_of(tmp_path / "data")).open()
    with again.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM token").all() == [
            ("ab", "t-1", token_change()[2]["doc"])  # type: ignore[index]
        ]
    assert again.tokens()[0].id == "t-1"
    again.close()


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store(url_of(tmp_path)).open().close()
    connection = sqlite3.connect(tmp_path / "tieline.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(TielineError, match="9999") as caught:
        Store(url_of(tmp_path)).open()
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


# -- writing -----------------------------------------------------------------------------------------------------------


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
        assert connection.execute(t.meta.select()).scalars().all() == ["head"]
    assert store.position()[0] == 2


def test_readers_can_change_nothing(store: Store) -> None:
    with store.engine.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM meta")


def test_what_is_deleted_leaves_no_bytes_in_the_file(store: Store) -> None:
    sealed = b"sealed-" + os.urandom(40).hex().encode() * 200
    store.append(Batch(changes=[("secret", "j", {"job": "j", "sealed": sealed})]))
    assert store.secret("j") == sealed
    store.append(Batch(changes=[("secret", "j", None)]))
    assert store.secret("j") is None
    store.close()
    assert b"sealed-" not in store.path.read_bytes()


# -- reading -----------------------------------------------------------------------------------------------------------


def test_events_are_paged_and_filtered(store: Store) -> None:
    held = Job(id="cn.demo/job/j-1", user="alice", state=JobState.QUEUED, task=Task(), submitted_ms=1)
    offered = msgspec.convert(
        {
            "id": "j-1.1",
            "job": held.id,
            "epoch": 1,
            "state": "offered",
            "pool": "p",
            "site": SITE,
            "owner": "o",
            "user": "alice",
            "price_micro_cny_per_unit_hour": 1,
        },
        Run,
    )
    site = Site(id=SITE, owner="cn.demo.lab7", public="k")
    facts = [SiteJoined(site=site), JobSubmitted(job=held), RunOffered(run=offered), TokenUsed(id="t", by="b")]
    store.append(Batch(chain([Entry(seq=n, time_ms=n, actor="a", event=each) for n, each in enumerate(facts, 1)])))
    assert [view.seq for view in store.events()] == [1, 2, 3, 4]
    assert [view.seq for view in store.events(2)] == [3, 4]
    assert [view.seq for view in store.events(0, 2)] == [1, 2]
    assert [view.kind for view in store.events(job="j-1")] == ["job_submitted", "run_offered"]
    assert [view.seq for view in store.events(job="cn.demo/job/j-1", site=SITE)] == [3]
    assert [view.seq for view in store.events(site=SITE)] == [1, 3]
    assert [view.seq for view in store.events(kinds=("token_used", "site_joined"))] == [1, 4]
    assert [entry.event for entry in store.entries()] == facts
    assert bytes(store.events(3)[0].body) == b'{"event":"token_used","id":"t","by":"b"}'
    assert store.events(3)[0].hash == store.position()[1].hex()


@pytest.mark.parametrize("where", ["job = 'j-1'", "site = 's'", "kind = 'job_ended'"])
def test_histories_are_read_by_an_index(store: Store, where: str) -> None:
    with store.engine.connect() as connection:
        plan = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN SELECT * FROM event WHERE {where} AND seq > 5 ORDER BY seq LIMIT 10"
        ).all()
    assert len(plan) == 1
    assert "USING INDEX event_" in plan[0][-1]


def test_jobs_are_paged_newest_first(store: Store) -> None:
    store.append(Batch(changes=[job(f"j-{n}", at_ms=n // 2, user="bob" if n == 3 else "alice") for n in range(7)]))
    assert [held.id[-1] for held in store.jobs()] == list("6543210")
    assert [held.id[-1] for held in store.jobs(limit=2)] == ["6", "5"]
    assert [held.id[-1] for held in store.jobs(limit=2, before="cn.demo/job/j-5")] == ["4", "3"]
    assert [held.id[-1] for held in store.jobs(user="bob")] == ["3"]
    with pytest.raises(TielineError, match="not a job to go on from") as caught:
        store.jobs(before="cn.demo/job/j-none")
    assert caught.value.code == "invalid_cursor"


def test_jobs_are_filtered_by_state_and_pipeline(store: Store) -> None:
    store.append(Batch(changes=[job("j-1"), job("j-2", state="failed", ended_ms=5), job("j-3p", state="running")]))
    assert [held.id for held in store.jobs(states=("failed", "running"))] == ["cn.demo/job/j-3p", "cn.demo/job/j-2"]
    assert [held.id for held in store.jobs(pipeline="p")] == ["cn.demo/job/j-3p"]
    assert store.counts() == {
        "events": 0,
        "records": 0,
        "usage": 0,
        "jobs": 3,
        "jobs.failed": 1,
        "jobs.queued": 1,
        "jobs.running": 1,
    }


def test_runs_and_usage_are_found_and_paged(store: Store) -> None:
    changes = [job("j-1"), *[run(f"j-1.{n}", "j-1", at_ms=n) for n in (1, 2, 3)]]
    changes += [usage(f"j-1.{n}", ended_ms=10 - n, user="bob" if n == 2 else "alice") for n in (1, 2, 3)]
    store.append(Batch(changes=changes))
    assert [found.id for found in store.runs("cn.demo/job/j-1")] == ["j-1.1", "j-1.2", "j-1.3"]
    assert [found.id for found in store.runs_at(SITE, limit=2)] == ["j-1.3", "j-1.2"]
    assert [found.id for found in store.runs_at(SITE, before="j-1.2")] == ["j-1.1"]
    assert [line.run for line in store.usages()] == ["j-1.3", "j-1.2", "j-1.1"]
    assert [line.run for line in store.usages(after="j-1.3", limit=1)] == ["j-1.2"]
    assert [line.run for line in store.usages(user="bob")] == ["j-1.2"]
    assert store.usages(owner="cn.demo.other") == []
    assert (store.usage("j-1.1"), store.usage("none")) == (store.usages()[-1], None)
    assert (store.run("j-1.2"), store.run("none")) == (store.runs("cn.demo/job/j-1")[1], None)
    assert store.job("none") is None


def test_records_are_paged_by_prefix_and_everything_below_it(store: Store) -> None:
    store.append(
        Batch(
            changes=[
                record("a"),
                record("b", kind="model"),
                record("c", prefix="cn.demo.lab7.sub"),
                record("d", prefix="cn.demo.lab70"),
                ("equivocation", "x#1", equivocation("cn.demo.lab7/pool/a")),
            ]
        )
    )
    assert [held.id for held in store.records(prefix="cn.demo.lab7")] == [
        "cn.demo.lab7.sub/pool/c",
        "cn.demo.lab7/model/b",
        "cn.demo.lab7/pool/a",
    ]
    assert [held.id for held in store.records(kind="model")] == ["cn.demo.lab7/model/b"]
    assert [held.id for held in store.records(after="cn.demo.lab7/model/b", limit=1)] == ["cn.demo.lab7/pool/a"]
    found = store.record("cn.demo.lab7/pool/a")
    assert found is not None
    assert (found.rev, found.envelope) == (1, "{}")
    assert store.record("none") is None
    assert [proof.rev for proof in store.equivocations("cn.demo.lab7/pool/a")] == [1]


def equivocation(name: str) -> dict[str, object]:
    seen = EquivocationSeen(id=name, rev=1, kept_sha256="a", other_sha256="b", other_envelope="{}")
    return {"id": name, "rev": 1, "doc": msgspec.json.encode(seen)}


def test_quotes_and_tokens_are_paged(store: Store) -> None:
    fields = {
        "user": "alice",
        "pool": "p",
        "site": SITE,
        "owner": "o",
        "unit": "core",
        "unit_count": 1,
        "price_micro_cny_per_unit_hour": 1,
        "task": {},
    }
    docs = [msgspec.convert({"id": f"q-{n}", "state": "open" if n else "refused", **fields}, Quote) for n in range(3)]
    changes: list[Change] = [
        ("quote", doc.id, {"id": doc.id, "user": doc.user, "state": doc.state, "doc": msgspec.json.encode(doc)})
        for doc in docs
    ]
    store.append(Batch(changes=[*changes, token_change()]))
    assert store.quote("q-1") == docs[1]
    assert [found.id for found in store.quotes(user="alice", limit=2)] == ["q-2", "q-1"]
    assert [found.id for found in store.quotes(before="q-2", states=("open",))] == ["q-1"]
    assert [held.id for held in store.tokens()] == ["t-1"]
    assert store.tokens(after="t-1") == []
    assert QuoteChanged(quote=docs[0]).subject == "q-0"


def test_a_start_reads_what_is_live_and_the_runs_of_what_ended_last(store: Store) -> None:
    store.append(
        Batch(
            changes=[
                job("j-2", at_ms=2),
                job("j-1", at_ms=1),
                job("j-0", at_ms=0, ended_ms=9, state="failed"),
                run("j-1.2", "j-1", at_ms=3),
                run("j-1.1", "j-1", at_ms=1, state="lost"),
                run("j-0.1", "j-0", at_ms=0, state="failed"),
                run("j-9.1", "j-9", at_ms=0, state="running"),
                quote("q-1"),
                quote("q-2", state="expired"),
                token_change(),
            ]
        )
    )
    tables = store.tables()
    assert [row["id"] for row in tables["job"]] == ["cn.demo/job/j-1", "cn.demo/job/j-2"]
    assert [row["id"] for row in tables["run"]] == ["j-0.1", "j-9.1", "j-1.1", "j-1.2"]
    assert [row["id"] for row in tables["quote"]] == ["q-1"]
    assert [row["sha256"] for row in tables["token"]] == ["ab"]
    assert [row["id"] for row in tables["job"]] == ["cn.demo/job/j-1", "cn.demo/job/j-2"], "rows can be read twice"


@pytest.mark.parametrize("table", ["job", "run", "quote"])
def test_a_start_finds_what_is_live_by_indices(store: Store, table: str) -> None:
    query = cast("Any", store.tables()[table]).query.compile(store.engine, compile_kwargs={"literal_binds": True})
    with store.engine.connect() as connection:
        plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]
    assert [step for step in plan if step.startswith(("SCAN", "SEARCH")) and "INDEX" not in step] == []


# -- a store that somebody changed -------------------------------------------------------------------------------------


def tampered(store: Store, statement: str) -> None:
    connection = sqlite3.connect(store.path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "broken_at", "why"),
    [
        ("UPDATE event SET body = CAST(replace(body, 't-1', 't-2') AS BLOB) WHERE seq = 2500", 2500, "does not hash"),
        ("UPDATE event SET body = CAST(body AS TEXT) WHERE seq = 2500", 2500, "cannot be read"),
        ("UPDATE event SET actor = CAST(x'ff' AS TEXT) WHERE seq = 2500", 2500, "cannot be read"),
        ("UPDATE event SET time_ms = 1.5 WHERE seq = 2500", 2500, "cannot be read"),
        ("UPDATE event SET actor = 'eve' WHERE seq = 1", 1, "does not hash"),
        ("UPDATE event SET hash = zeroblob(32) WHERE seq = 7", 7, "does not hash"),
        ("UPDATE event SET seq = CASE seq WHEN 8 THEN -9 WHEN 9 THEN -8 END WHERE seq IN (8, 9)", 8, "8 is missing"),
        ("UPDATE event SET job = 'j-1' WHERE seq = 12", 12, "filed under another"),
        ("DELETE FROM event WHERE seq = 2000", 2000, "2000 is missing"),
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
def test_a_store_whose_log_was_cut_does_not_open(store: Store, statement: str) -> None:
    store.append(log(30))
    store.close()
    tampered(store, statement)
    with pytest.raises(TielineError) as caught:
        Store(f"sqlite:///{store.path}").open()
    assert caught.value.code == "check_failed"
