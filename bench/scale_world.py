"""A large exchange on disk: owners, sites, pools, other records and queued jobs, as its own projections write them.

Every record is signed by its owner and every delegation by the exchange; what the log would hold of how they came is
left out. `secret_of` gives the key of a site, so that `bench.light_sites` can speak for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tieline.cli.compose import Exchange, identity_of
from tieline.drivers.stores.store import Batch, Change, Store
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.projection import ROW
from tieline.model.job import Job, JobState
from tieline.model.party import Role, Site, Token
from tieline.model.record import Record
from tieline.model.task import Resources, Task
from tieline.registry import Judged, Key, Outcome, opened, sealing_public, sign
from tieline.registry.admission import held_of
from tieline.registry.authority import Authority, named_key

PREFIX = "cn.demo"
USERS = 200
SHAPES = 25  # of the jobs of one user
SITES_OF_OWNER = 10
POOLS_OF_SITE = 1
CARDS = 8
STEP = 2_000
GB = 10**9
TOKEN = "tl-bench-user"
KINDS = ("a100", "h100", "ascend-910b", "mi300x")


class Size(NamedTuple):
    """How much of everything."""

    sites: int
    records: int
    jobs: int


FULL = Size(3_500, 1_000_000, 1_000_000)
QUICK = Size(100, 10_000, 10_000)


def seed(name: str) -> bytes:
    """32 bytes that stand for ``name``."""
    return hashlib.sha256(name.encode()).digest()


def owner_of(site: int) -> str:
    """The owner's word within the exchange's prefix."""
    return f"o{site // SITES_OF_OWNER}"


def site_name(site: int) -> str:
    """The identifier of a site by its number."""
    return f"{PREFIX}.{owner_of(site)}/site/s{site}"


def secret_of(site: int) -> Key:
    """The key of a site's process."""
    return Key(seed(f"site {site}"))


def fill(folder: Path, size: Size, now_ms: int) -> None:
    """Make the exchange of ``folder``."""
    exchange = Exchange(folder, identity_of(folder, PREFIX))
    keys = exchange.keys
    exchange.close()
    with_jobs(folder, size.jobs, now_ms)
    store = Store(f"sqlite:///{folder / 'tieline.db'}").open()
    try:
        _keep(store, _parties(size.sites, now_ms))
        _keep(store, _records(size, keys, now_ms // 1_000))
    finally:
        store.close()


def with_jobs(folder: Path, count: int, now_ms: int, first: int = 0) -> None:
    """Add queued jobs; those that the sites have no room for wait."""
    store = Store(f"sqlite:///{folder / 'tieline.db'}").open()
    try:
        _keep(
            store,
            (
                ("job", job.id, ROW["job"](job.id, job))
                for job in map(_job, range(first, first + count), _again(now_ms))
            ),
        )
    finally:
        store.close()


def _again(value: int) -> Iterator[int]:
    while True:
        yield value


def _keep(store: Store, changes: Iterable[Change]) -> None:
    left = iter(changes)
    while step := list(islice(left, STEP)):
        store.append(Batch(changes=step))


def _job(number: int, now_ms: int) -> Job:
    at_ms = now_ms - 10_000_000 + number
    return Job(
        id=f"{PREFIX}/job/j-{number:010d}",
        user=f"user{number % USERS}",
        state=JobState.QUEUED,
        task=task_of(number // USERS % SHAPES, f"wait{number}"),
        submitted_ms=at_ms,
        eligible_ms=at_ms,
    )


def task_of(shape: int, name: str) -> Task:
    """One of a few shapes, with a script of an ordinary length."""
    return Task(
        name=name,
        run=f"#!/bin/sh\nset -e\n# {name}\n" + "python train.py --epochs 3 --data /data/corpus\n" * 4,
        resources=(
            Resources(accelerator=KINDS[shape % len(KINDS)], accelerator_count=1 + shape % CARDS, core_count=1),
        ),
        envs={"RANK": "0", "NAME": name},
        max_duration_s=3_600,
    )


def _parties(sites: int, now_ms: int) -> Iterator[Change]:
    sha256 = hashlib.sha256(TOKEN.encode()).hexdigest()
    token = Token(id="t-bench", sha256=sha256, name="bench", roles=(Role.USER, Role.ADMIN), created_ms=now_ms)
    yield "token", sha256, ROW["token"](sha256, token)
    for number in range(sites):
        name = site_name(number)
        site = Site(
            id=name,
            owner=name.partition("/")[0],
            public=secret_of(number).public,
            sealing=sealing_public(seed("sealing")),
            is_admitted=True,
            joined_ms=now_ms,
        )
        yield "site", name, ROW["site"](name, site)


def _records(size: Size, keys: ExchangeKeys, now_s: int) -> Iterator[Change]:
    """Delegations, sites, pools; and models, datasets and endpoints until there are enough of all together."""
    serials: dict[str, int] = {}
    count = 0
    for change in _placeable(size, keys, now_s, serials):
        count += 1
        yield change
    owners = -(-size.sites // SITES_OF_OWNER)
    for number in range(size.records - count):
        owner = f"o{number % owners}"
        kind, spec = _other(number)
        yield _signed(owner, f"{kind}/x{number}", spec, now_s, serials)


def _placeable(size: Size, keys: ExchangeKeys, now_s: int, serials: dict[str, int]) -> Iterator[Change]:
    for number in range(-(-size.sites // SITES_OF_OWNER)):
        prefix = f"{PREFIX}.o{number}"
        envelope = keys.delegate(prefix, f"{prefix}#k1", _owner(f"o{number}").public, "", now_s)
        yield _row(envelope, serials)
    for number in range(size.sites):
        owner, name = owner_of(number), site_name(number)
        yield _signed(owner, f"site/s{number}", {"tier": "edge", "region": "shanghai"}, now_s, serials)
        for pool in range(POOLS_OF_SITE):
            spec = {
                "site": name,
                "accelerator": KINDS[(number + pool) % len(KINDS)],
                "accelerator_count": CARDS,
                "core_count": 64,
                "memory_bytes": 512 * GB,
                "price_micro_cny_per_accelerator_hour": 5_000_000 + pool * 10_000 + number,
                "networks": ["host", "none"],
                "sandbox": "bubblewrap",
            }
            yield _signed(owner, f"pool/s{number}-{pool}", spec, now_s, serials)


def _other(number: int) -> tuple[str, Mapping[str, Any]]:
    size_bytes = 10**9 + number
    if number % 4 == 0:
        return "dataset", {"title": f"corpus {number}", "size_bytes": size_bytes, "residency": "owner"}
    if number % 4 == 1:
        return "endpoint", {"title": f"endpoint {number}", "url": f"https://e{number}.example"}
    return "model", {"title": f"model {number}", "size_bytes": size_bytes, "task": "text", "framework": "pytorch"}


def _owner(owner: str) -> Key:
    key = OWNERS.get(owner)
    if key is None:
        key = OWNERS[owner] = Key(seed(f"owner {owner}"))
    return key


OWNERS: dict[str, Key] = {}


def _signed(owner: str, name: str, spec: Mapping[str, Any], now_s: int, serials: dict[str, int]) -> Change:
    record = Record(
        id=f"{PREFIX}.{owner}/{name}",
        kind=name.partition("/")[0],
        rev=1,
        nb=now_s - 60,
        exp=now_s + 90 * 86_400,
        spec=dict(spec),
    )
    return _row(sign(record, _owner(owner), f"{PREFIX}.{owner}#k1"), serials)


def _row(envelope: bytes, serials: dict[str, int]) -> Change:
    parcel = opened(envelope)
    record = parcel.record
    prefix = record.id.partition("/")[0]
    serial = serials[prefix] = serials.get(prefix, 0) + 1
    held = held_of(parcel, named_key(parcel.parts.kid), Authority(prefix, None))
    judged = Judged(Outcome.STORED, record.id, held, record, None, envelope)
    return "record", record.id, ROW["record"](record.id, (judged, serial))
