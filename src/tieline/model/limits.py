"""Limits: every bound of an exchange's configuration, with its default, unit (the last word of its name) and meaning.

This table is the one source: the configuration file, ``status``, the reference page and the checks read it.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from tieline.model.record import MAX_LEASE_S

KIB = 2**10
MIB = 2**20
GIB = 2**30
TIB = 2**40
PEER_SHARE = 8  # peers that may bring their most of blobs before all are full, where `peer_blobs_bytes` is not stated
DAY_S = 86_400

UNITS: dict[str, str] = {"bytes": "bytes", "ms": "milliseconds", "s": "seconds", "days": "days"}


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one exchange allows. A name without a unit counts things."""

    # -- what one caller may send --------------------------------------------------------------------------------------
    body_bytes: Annotated[
        int,
        Meta(ge=64 * KIB, le=256 * MIB, description="largest request body; blobs and logs have limits of their own"),
    ] = 8 * MIB
    requests_per_s: Annotated[
        int, Meta(ge=1, le=1_000_000, description="sustained requests of one caller in a second")
    ] = 500
    requests_burst: Annotated[
        int, Meta(ge=1, le=1_000_000, description="requests that one caller may send at once")
    ] = 2_000
    upload_bytes_per_s: Annotated[
        int, Meta(ge=64 * KIB, le=TIB, description="sustained bytes of bodies of one caller in a second")
    ] = 256 * MIB
    streams: Annotated[int, Meta(ge=1, le=100_000, description="open event and log streams of all callers")] = 8_000
    streams_per_caller: Annotated[int, Meta(ge=1, le=100_000, description="open streams of one caller")] = 64

    relay_streams: Annotated[int, Meta(ge=0, le=100_000, description="streams of the relay that are open")] = 512
    relay_bytes_per_s: Annotated[
        int, Meta(ge=1_024, le=TIB, description="what the relay carries in a second for the sites of one owner")
    ] = 16 * MIB
    relay_day_bytes: Annotated[
        int, Meta(ge=0, le=1024 * TIB, description="what it carries in a day (UTC) for the sites of one owner")
    ] = 256 * GIB
    relay_site_day_bytes: Annotated[int, Meta(ge=0, le=1024 * TIB, description="of that for one of these sites")] = (
        128 * GIB
    )

    # -- work ----------------------------------------------------------------------------------------------------------
    live_jobs: Annotated[int, Meta(ge=1, le=10_000_000, description="jobs that wait or run")] = 2_000_000
    queue: Annotated[int, Meta(ge=1, le=1_000_000, description="commands that wait for the writer")] = 10_000
    batch: Annotated[int, Meta(ge=1, le=10_000, description="commands that are committed in one transaction")] = 256
    tick_ms: Annotated[
        int, Meta(ge=10, le=60_000, description="how often leases, offers and deadlines are looked at")
    ] = 250
    beat_ms: Annotated[int, Meta(ge=100, le=3_600_000, description="how often a site sends its heartbeat")] = 3_000
    lease_ms: Annotated[
        int,
        Meta(ge=300, le=86_400_000, description="a site that was not heard for so long is silent, its runs are lost"),
    ] = 10_000
    offer_ttl_ms: Annotated[
        int, Meta(ge=100, le=3_600_000, description="how long a booking is held for the answer of the owner's site")
    ] = 5_000
    peer_offer_ttl_ms: Annotated[
        int, Meta(ge=100, le=3_600_000, description="the same, of a booking behind another exchange")
    ] = 30_000
    branch_lost_ms: Annotated[
        int,
        Meta(
            ge=1_000,
            le=31_536_000_000,
            description="an exchange that was not heard for so long lost the runs behind it",
        ),
    ] = 3_600_000
    quote_ttl_s: Annotated[int, Meta(ge=1, le=604_800, description="how long an answered quote can be accepted")] = 300

    priority_most: Annotated[
        int, Meta(ge=-1_000, le=1_000, description="highest priority of a job without a project; an admin's has none")
    ] = 50
    project_needed: Annotated[
        int, Meta(ge=0, le=1, description="1: every job counts for a project, but an admin's and a peer's")
    ] = 0

    user_bookings: Annotated[
        int, Meta(ge=1, le=12_000, description="transfers and circuits that one user may have booked at once")
    ] = 1_000
    project_bookings: Annotated[
        int, Meta(ge=1, le=12_000, description="transfers and circuits that one project may have booked at once")
    ] = 4_000

    # -- bytes that are kept -------------------------------------------------------------------------------------------
    blob_bytes: Annotated[int, Meta(ge=MIB, le=16 * TIB, description="largest single blob")] = 4 * GIB
    blobs_bytes: Annotated[int, Meta(ge=MIB, le=1024 * TIB, description="all blobs together")] = 64 * GIB
    peer_blobs_bytes: Annotated[
        int,
        Meta(ge=0, le=1024 * TIB, description="blobs that one peer brought here; 0: an eighth of `blobs_bytes`"),
    ] = 0
    log_bytes: Annotated[int, Meta(ge=64 * KIB, le=TIB, description="log of one node of one run; it is cut there")] = (
        64 * MIB
    )
    logs_bytes: Annotated[int, Meta(ge=MIB, le=1024 * TIB, description="all logs together")] = 16 * GIB
    reserve_bytes: Annotated[
        int, Meta(ge=0, le=16 * TIB, description="free disk below which new work and blobs are refused")
    ] = 256 * MIB

    # -- how long things are kept --------------------------------------------------------------------------------------
    sweep_s: Annotated[int, Meta(ge=1, le=86_400, description="how often garbage is collected")] = 60
    blob_unused_s: Annotated[
        int,
        Meta(ge=60, le=31_536_000, description="a blob that nothing refers to is kept this long after its last use"),
    ] = 86_400
    log_days: Annotated[int, Meta(ge=1, le=36_500, description="a log is kept this long after its job ended")] = 30
    finished_jobs: Annotated[int, Meta(ge=0, le=100_000_000, description="ended jobs that are kept, newest first")] = (
        100_000
    )
    finished_days: Annotated[int, Meta(ge=1, le=36_500, description="an ended job is kept this long")] = 90
    usage_days: Annotated[
        int, Meta(ge=1, le=36_500, description="a usage line, and the job and run that it names, are kept this long")
    ] = 400
    record_days: Annotated[
        int,
        Meta(
            ge=MAX_LEASE_S // DAY_S + 1,
            le=36_500,
            description="a record is forgotten this long after its lease ended; longer than any lease, so that "
            "no older revision of it can be played again",
        ),
    ] = 430
    audit_head_s: Annotated[
        int, Meta(ge=1, le=86_400, description="how often the end of the log is signed and kept, when it moved")
    ] = 60
    idempotency_s: Annotated[
        int, Meta(ge=60, le=31_536_000, description="how long a repeated idempotency key is answered as before")
    ] = 86_400


def share_bytes(limits: Limits) -> int:
    """Bytes of blobs that one peer may bring here."""
    return limits.peer_blobs_bytes or limits.blobs_bytes // PEER_SHARE


def conflicts(limits: Limits) -> tuple[str, ...]:
    """What two limits together cannot mean, one sentence each; empty when all is well."""
    found = []
    if limits.lease_ms < 2 * limits.beat_ms:
        found.append(
            f"`lease_ms` {limits.lease_ms} is below twice `beat_ms` {limits.beat_ms}: one late heartbeat loses a site"
        )
    if limits.tick_ms > limits.lease_ms:
        found.append(f"`tick_ms` {limits.tick_ms} is above `lease_ms` {limits.lease_ms}: leases would end late")
    if limits.blob_bytes > limits.blobs_bytes:
        found.append(f"`blob_bytes` {limits.blob_bytes} is above `blobs_bytes` {limits.blobs_bytes}")
    if limits.peer_blobs_bytes > limits.blobs_bytes:
        found.append(f"`peer_blobs_bytes` {limits.peer_blobs_bytes} is above `blobs_bytes` {limits.blobs_bytes}")
    if limits.log_bytes > limits.logs_bytes:
        found.append(f"`log_bytes` {limits.log_bytes} is above `logs_bytes` {limits.logs_bytes}")
    if limits.usage_days < limits.finished_days:
        found.append(
            f"`usage_days` {limits.usage_days} is below `finished_days` {limits.finished_days}: "
            "a job would outlive its usage line"
        )
    return tuple(found)


class Limit(NamedTuple):
    """One row of the reference: name, default, least, most, unit (empty: a count) and meaning."""

    name: str
    default: int
    least: int
    most: int
    unit: str
    meaning: str


def reference() -> tuple[Limit, ...]:
    """Every limit in the order of the table, for the documentation and for ``status``."""
    info = msgspec.inspect.type_info(Limits)
    assert isinstance(info, msgspec.inspect.StructType)
    rows: list[Limit] = []
    for field in info.fields:
        typed = field.type
        assert isinstance(typed, msgspec.inspect.Metadata), field.name
        inner, schema = typed.type, typed.extra_json_schema or {}
        assert isinstance(inner, msgspec.inspect.IntType), field.name
        unit = UNITS.get(field.name.rpartition("_")[2], "")
        if field.name.endswith("_per_s"):
            unit = "bytes per second" if "bytes" in field.name else "per second"
        rows.append(Limit(field.name, field.default, inner.ge or 0, inner.le or 0, unit, schema["description"]))
    return tuple(rows)
