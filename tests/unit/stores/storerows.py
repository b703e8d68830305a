"""Rows of a store, as tests need them."""

from __future__ import annotations

import msgspec
from toycore import SITE, row_of

from tieline.drivers.stores.log import GENESIS, chain
from tieline.drivers.stores.store import Batch, Change, Store
from tieline.model.event import Entry, EquivocationSeen, TokenUsed
from tieline.model.job import Job, JobState, Run, RunState, Usage
from tieline.model.party import Role, Token
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


def token_change() -> Change:
    held = Token(id="t-1", sha256="ab", name="n", roles=(Role.USER,))
    return ("token", "ab", row_of("token", "ab", held))


def tampered(store: Store, statement: str) -> None:
    """Change what is stored, past the store; ``statement`` is SQLite's, said in PostgreSQL's words where it differs."""
    if store.is_server:
        for theirs, ours in IN_POSTGRESQL:
            statement = statement.replace(theirs, ours)
    engine = store._database.writing()
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


IN_POSTGRESQL = (
    ("zeroblob(32)", "decode(repeat('00', 32), 'hex')"),
    (
        "CAST(replace(body, 't-1', 't-2') AS BLOB)",
        "convert_to(replace(convert_from(body, 'UTF8'), 't-1', 't-2'), 'UTF8')",
    ),
)


def equivocation(name: str) -> dict[str, object]:
    seen = EquivocationSeen(id=name, rev=1, kept_sha256="a", other_sha256="b", other_envelope="{}")
    return {"id": name, "rev": 1, "doc": msgspec.json.encode(seen)}
