from __future__ import annotations

import re
from typing import Any, cast

import msgspec
import pytest
from storerows import equivocation, job, quote, record, run, token_change, usage
from toycore import SITE

from tieline.drivers.stores.log import chain
from tieline.drivers.stores.store import Batch, Change, Store
from tieline.model.error import TielineError
from tieline.model.event import Entry, JobSubmitted, QuoteChanged, RunOffered, SiteJoined, TokenUsed
from tieline.model.job import Job, JobState, Run
from tieline.model.party import Site
from tieline.model.plan import Quote
from tieline.model.task import Task


def planned(store: Store, query: str) -> list[str]:
    """The steps by which the database answers; a server is told that its tables are not as small as they are."""
    with store.engine.connect() as connection:
        if store.is_server:
            connection.exec_driver_sql("SET enable_seqscan = off")
            found = connection.exec_driver_sql(f"EXPLAIN {query}".replace("%", "%%")).all()
            connection.exec_driver_sql("RESET enable_seqscan")
        else:
            found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    return [row[-1] for row in found]


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
    plan = planned(store, f"SELECT * FROM event WHERE {where} AND seq > 5 ORDER BY seq LIMIT 10")
    assert [step for step in plan if re.search(r"SCAN|SEARCH|Scan", step) and not re.search("INDEX|Index", step)] == []
    assert "event_" in " ".join(plan)


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
    plan = planned(store, str(query))
    assert [step for step in plan if step.startswith(("SCAN", "SEARCH")) and "INDEX" not in step] == []
    assert [step for step in plan if "Seq Scan" in step] == []
