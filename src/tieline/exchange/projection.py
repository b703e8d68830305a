"""Projections: the state tables that are written in the transaction of their events, and read back at a start.

A restart reads live rows only and needs no replay of the log; replaying the log gives the same rows (tested).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from tieline.exchange.guests import GuestRun, load_guests
from tieline.exchange.jobrow import JobRow, brief_of, row_again, row_of
from tieline.exchange.supply import PLACEABLE
from tieline.exchange.view import ExchangeRow, LiveGang, View
from tieline.model.circuit import Circuit, Receipt
from tieline.model.event import EquivocationSeen, RecordStored
from tieline.model.job import JOB_ENDED, RUN_ENDED, Job, JobState, Run, Usage
from tieline.model.party import Site, Token
from tieline.model.peer import Cursor, Peer, PeerState
from tieline.model.plan import Quote
from tieline.model.project import Project, Spending
from tieline.model.reading import Point
from tieline.model.record import Status
from tieline.model.tariff import Tariff
from tieline.model.topology import Topology
from tieline.model.transfer import Transfer
from tieline.place import SiteFlags
from tieline.registry import Head, Judged
from tieline.registry.authority import GIVING

_encode = msgspec.json.Encoder().encode
Row = Mapping[str, Any]


def _token(key: str, token: Token) -> Row:
    return {"sha256": key, "id": token.id, "doc": _encode(token)}


def _record(key: str, kept: tuple[Judged, int]) -> Row:
    judged, serial = kept
    held = judged.held
    return {
        "id": key,
        "prefix": held.authority.prefix,
        "kind": held.kind,
        "rev": held.rev,
        "sha256": held.sha256.hex(),
        "exp": held.exp,
        "status": "active" if held.status is Status.ACTIVE else held.status.value,  # hashing an enum takes longer
        "kid": held.key.kid,
        "envelope": judged.envelope,
        "serial": serial,
        "nb": held.nb,
        "envelope_sha256": held.envelope_sha256.hex(),
    }


def _equivocation(_: str, event: EquivocationSeen) -> Row:
    return {"id": event.id, "rev": event.rev, "doc": _encode(event)}


def _job(key: str, job: Job, row: JobRow | None = None) -> Row:
    return {
        "id": key,
        "state": job.state.value,
        "user": job.user,
        "pipeline": job.pipeline,
        "submitted_ms": job.submitted_ms,
        "ended_ms": job.ended_ms,
        "doc": _encode(job),
        "brief": None if job.state in JOB_ENDED else brief_of(row or row_of(job, 0)),
        "project": job.project or None,
    }


def _run(key: str, run: Run) -> Row:
    return {
        "id": key,
        "job": run.job,
        "site": run.site,
        "owner": run.owner,
        "state": run.state.value,
        "offered_ms": run.offered_ms,
        "doc": _encode(run),
    }


def _quote(key: str, quote: Quote) -> Row:
    return {"id": key, "user": quote.user, "state": quote.state, "doc": _encode(quote)}


def _usage(key: str, usage: Usage) -> Row:
    return {
        "run": key,
        "job": usage.job,
        "user": usage.user,
        "owner": usage.owner,
        "ended_ms": usage.ended_ms,
        "doc": _encode(usage),
        "charge_micro_cny": usage.charge_micro_cny,
        "project": usage.project or None,
    }


def _booked(key: str, booked: Transfer | Circuit) -> Row:
    return {"id": key, "user": booked.user, "state": booked.state.value, "doc": _encode(booked)}


def _receipt(key: str, receipt: Receipt) -> Row:
    return {"id": key, "subject": receipt.subject, "seq": receipt.seq, "doc": _encode(receipt)}


def _plain(key: str, value: Any) -> Row:
    return {"id": key, "doc": _encode(value)}


def _serial(key: str, serial: int) -> Row:
    return {"prefix": key, "serial": serial}


def _guest(key: str, run: GuestRun) -> Row:
    return {"id": key, "peer": run.peer, "doc": _encode(run)}


def _cursor(key: str, cursor: Cursor) -> Row:
    return {"id": key, "peer": cursor.peer, "doc": _encode(cursor)}


ROW: dict[str, Callable[[str, Any], Row]] = {
    "exchange": _plain,
    "token": _token,
    "record": _record,
    "equivocation": _equivocation,
    "site": _plain,
    "job": _job,
    "run": _run,
    "quote": _quote,
    "usage": _usage,
    "serial": _serial,
    "peer": _plain,
    "cursor": _cursor,
    "project": _plain,
    "spending": _plain,
    "guest": _guest,
    "network": _plain,
    "transfer": _booked,
    "circuit": _booked,
    "receipt": _receipt,
}


def rows(view: View) -> list[tuple[str, str, Row | None]]:
    """Drain what was touched into upserts, in the order in which it was first touched. The caller keeps them."""
    live = view.jobs.rows  # made already, of the jobs as they are
    drained: list[tuple[str, str, Row | None]] = [
        (
            table,
            key,
            None if value is None else _job(key, value, live.get(key)) if table == "job" else ROW[table](key, value),
        )
        for (table, key), value in view.touched.items()
    ]
    view.touched.clear()
    view.jobs.settle()
    return drained


def load(view: View, tables: Mapping[str, Iterable[Row]], now_ms: int) -> None:
    """Fill an empty view from the state tables: live jobs, runs and quotes, every token, site and record head.

    What is last value only starts anew: every site has a whole lease to be heard again, and as long as it takes so many
    to come back, and sessions are reopened.
    """
    if "head" not in tables:
        tables = _narrowed(tables)
    for row in tables["exchange"]:
        view.put_exchange(msgspec.json.decode(row["doc"], type=ExchangeRow))
    for row in tables["token"]:
        token = msgspec.json.decode(row["doc"], type=Token)
        view.tokens[token.sha256] = token
        view.token_sha256[token.id] = token.sha256
    sites = [msgspec.json.decode(row["doc"], type=Site) for row in tables["site"]]
    for site in sites:
        view.put_site(site)
        if not site.is_silent:
            view.heard_ms.setdefault(site.id, now_ms)
    view.is_restored = True
    _load_peers(view, tables)
    for row in tables["project"]:
        view.put_project(msgspec.json.decode(row["doc"], type=Project))
    for row in tables["spending"]:
        spending = msgspec.json.decode(row["doc"], type=Spending)
        view.spent[(spending.project, spending.month)] = spending
    _load_records(view, tables)
    for site in sites:
        view.supply.flag_site(site)
    _flag_elsewhere(view)
    _load_work(view, tables)
    _load_network(view, tables)
    for row in tables["usage"]:
        view.charged_micro_cny += int(row["charge_micro_cny"] or 0)
    view.touched.clear()


def _load_network(view: View, tables: Mapping[str, Iterable[Row]]) -> None:
    """The network as it stands, then what is booked of it; what has ended stays in the store."""
    network = view.network
    kept = {row["id"]: row["doc"] for row in tables["network"]}
    if "tariff" in kept:
        network.tariff = msgspec.json.decode(kept["tariff"], type=Tariff)
    if "topology" in kept:
        network.put_topology(msgspec.json.decode(kept["topology"], type=Topology))
    if "down" in kept:
        network.put_links(msgspec.json.decode(kept["down"], type=tuple[str, ...]), ())
    if "points" in kept:
        network.put_points(msgspec.json.decode(kept["points"], type=tuple[Point, ...]))
    for row in tables["transfer"]:
        network.put_transfer(msgspec.json.decode(row["doc"], type=Transfer))
    for row in tables["circuit"]:
        network.put_circuit(msgspec.json.decode(row["doc"], type=Circuit))


def _load_jobs(view: View, tables: Mapping[str, Iterable[Row]]) -> None:
    """Rows alone, where the view can ask for whole jobs later: a start decodes no task."""
    if view.jobs.fetch is None:
        for row in tables["job"]:
            job = msgspec.json.decode(row["doc"], type=Job)
            if job.state not in JOB_ENDED:
                view.put_job(job)
                if job.after:
                    view.dependents.setdefault(job.after, []).append(job.id)
        return
    rows: list[JobRow] = []
    for row in tables["brief"]:
        brief = row["brief"]
        if brief is None:  # an older version wrote it
            brief = brief_of(row_of(view.jobs.fetch((row["id"],))[row["id"]], 0))
        rows.append(row_again(brief))
    for found in view.jobs.fill(rows):
        if found.state is JobState.QUEUED:
            view.waiting.add(found)
        if found.after:
            view.dependents.setdefault(found.after, []).append(found.id)


def _load_work(view: View, tables: Mapping[str, Iterable[Row]]) -> None:
    _load_jobs(view, tables)
    load_guests(view, (msgspec.json.decode(row["doc"], type=GuestRun) for row in tables["guest"]))
    for row in tables["run"]:
        run = msgspec.json.decode(row["doc"], type=Run)
        if run.state not in RUN_ENDED:
            view.put_run(run, is_restored=True)
        else:
            view.recent[run.id] = run
    _load_gangs(view)
    for row in tables["quote"]:
        quote = msgspec.json.decode(row["doc"], type=Quote)
        if quote.state in ("asked", "open"):
            view.quotes[quote.id] = quote


def _load_gangs(view: View) -> None:
    """Gangs that broke are still being ended, and some have no live run left: the next tick goes on with them."""
    have_runs = {run.job for run in view.runs.values()}
    placed = len(view.jobs) - view.jobs.counts[JobState.QUEUED]
    if not view.gangs and placed == len(have_runs):
        return  # every job that is not waiting has its one run: a start reads no more of them
    for row in view.jobs.rows.values():
        if row.state is not JobState.QUEUED and (row.id in view.gangs or row.id not in have_runs):
            job = view.jobs[row.id]
            gang = view.gangs.setdefault(job.id, LiveGang())
            gang.is_over = job.broken is not None or job.is_cancel_requested


def _load_peers(view: View, tables: Mapping[str, Iterable[Row]]) -> None:
    """Peers before records: their pinned keys are roots of what follows."""
    for row in tables["peer"]:
        view.put_peer(msgspec.json.decode(row["doc"], type=Peer))
    for row in tables["cursor"]:
        view.put_cursor(msgspec.json.decode(row["doc"], type=Cursor))
    for row in tables["serial"]:
        view.serials[row["prefix"]] = row["serial"]


def _load_records(view: View, tables: Mapping[str, Iterable[Row]]) -> None:
    """Delegations first, shortest prefix first; of all others the heads; what placing reads comes last, sites first."""
    for row in sorted(tables["given"], key=lambda row: (len(row["prefix"]), row["id"])):
        view.catalogue.restore(row["envelope"])
    view.catalogue.load(map(_head, tables["head"]), _nothing)
    for row in tables["equivocation"]:
        view.catalogue.note_equivocation(row["id"], row["rev"])
    for row in tables["placeable"]:
        if row["envelope"]:
            view.supply.put_record(_stored(row), view.sites)


def _flag_elsewhere(view: View) -> None:
    """Sites of others count as behind a peer, closed until it is heard: who may use them is asked there, as before."""
    if all(peer.state is not PeerState.ACTIVE for peer in view.peers.values()):
        return
    for name in view.supply.site_specs:
        if name not in view.sites:
            view.supply.pools.set_site(name, SiteFlags(is_remote=True))


def _nothing(name: str) -> bytes | None:
    raise AssertionError(name)  # only delegations are asked for, and those are not among the heads


def _head(row: Row) -> Head:
    return Head(
        id=row["id"],
        prefix=row["prefix"],
        kind=row["kind"],
        rev=row["rev"],
        sha256=row["sha256"],
        envelope_sha256=row["envelope_sha256"],
        nb=row["nb"],
        exp=row["exp"],
        status=row["status"],
        kid=row["kid"],
        public="",
    )


def _stored(row: Row) -> RecordStored:
    return RecordStored(
        id=row["id"],
        kind=row["kind"],
        rev=row["rev"],
        sha256=row["sha256"],
        exp=row["exp"],
        status=row["status"],
        kid=row["kid"],
        envelope=row["envelope"].decode(),
    )


def _narrowed(tables: Mapping[str, Iterable[Row]]) -> dict[str, list[Row]]:
    """What a store answers beside its tables, from the rows that `rows` gave: for worlds without one."""
    records = sorted(tables.get("record", ()), key=lambda row: (row["kind"] == "pool", row["id"]))
    return {
        **{name: list(tables.get(name, ())) for name in ROW},
        "given": [row for row in records if row["kind"] in GIVING],
        "head": [row for row in records if row["kind"] not in GIVING],
        "placeable": [row for row in records if row["kind"] in PLACEABLE],
        "brief": [row for row in tables.get("job", ()) if row["brief"] is not None],
    }
