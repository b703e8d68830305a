"""site.yaml: the owner's file, read strictly, every mistake with its line and column.

The file is optional: without it the site offers what the machine really has. The rows below drive reading,
did-you-mean, the JSON Schema and the reference table.
"""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal
from typing import Any

from tieline.model.accelerators import Named, named
from tieline.model.door import door_url
from tieline.model.error import TielineError
from tieline.model.quantity import MONEY_MICRO_CNY, RATE_BPS, scaled
from tieline.model.taskfile.compose import compose
from tieline.model.taskfile.fields import Field, Section, at, table
from tieline.model.taskfile.problem import Problems
from tieline.model.taskfile.shapes import Choice, Convert, Reading, Text, Value, Whole
from tieline.model.taskfile.values import ARCHITECTURE, CARDS, FLAG, LINE, SECONDS, SIZE_ONE, VENDOR
from tieline.site.configuration import DAY_S, DataConfig, DoorConfig, FrontConfig, PoolConfig, SiteConfig, SiteLimits
from tieline.site.pool import ALWAYS, OPTIONAL, PREFERRED, Counter

MAX_POOLS = 64
MAX_FRONTS = 16
HINT = "docs/guides/join-a-site.md lists every field of site.yaml"
LABEL = r"[a-z0-9]+(?:-+[a-z0-9]+)*"


def _money(text: str) -> int:
    micro = scaled(text, MONEY_MICRO_CNY, "CNY")
    if micro > 10**12:
        raise ValueError(f"{micro // 10**6:,} CNY an hour is more than 1,000,000")
    return micro


def _percent(text: str) -> int:
    match = re.fullmatch(r"(100|[0-9]{1,2})\s*%", text)
    if match is None:
        raise ValueError(f"`{text[:20]}` is not a share such as `25%`")
    return int(match[1])


def _listen(text: str) -> tuple[str, int]:
    """`7443` or `host:7443`; IPv6 addresses in brackets."""
    match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):)?([0-9]{1,5})", text)
    if match is None or int(match[2]) > 65_535:
        raise ValueError(f"`{text[:60]}` is not `PORT` or `HOST:PORT`")
    return (match[1] or "127.0.0.1").strip("[]"), int(match[2])


def _place(text: str) -> tuple[int, int]:
    """Degrees north and east, as millionths."""
    match = re.fullmatch(r"(-?[0-9]{1,2}(?:\.[0-9]{1,9})?)\s*,\s*(-?[0-9]{1,3}(?:\.[0-9]{1,9})?)", text)
    if match is None or abs(Decimal(match[1])) > 90 or abs(Decimal(match[2])) > 180:
        raise ValueError(f"`{text[:40]}` is not `LATITUDE,LONGITUDE` in degrees")
    return int(Decimal(match[1]) * 1_000_000), int(Decimal(match[2]) * 1_000_000)


def _network(text: str) -> str:
    try:
        found = ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        raise ValueError(f"`{text[:60]}` is no network: {error}") from None
    return str(found)


def _door_rate(text: str) -> int:
    bps = scaled(text, RATE_BPS, "")
    if not 10_000 <= bps <= 10**15:
        raise ValueError(f"{bps:,} bit/s is not between 10 kbit/s and 1 Pbit/s")
    return bps // 8


NAME = Text("a name of lower-case letters, digits and `-`", 63, LABEL, "such as `gz1`")
LABEL_NAME = Text(
    "a name of a label", 64, r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", "lower-case letters, digits, `.`, `_`, `-`"
)
WORD = Text("a word", 64, r"[a-z0-9][a-z0-9._-]*", "lower-case letters, digits, `.`, `_`, `-`")
PARTNER = Text("a party or a user", 200, r"[A-Za-z0-9][A-Za-z0-9._/@-]*")
MONEY = Convert("money in CNY such as `3.20`", _money, {"type": ["number", "string"]})
KIND = Convert("a kind of accelerator such as `a100`", named, {"type": "string"})
SHARE = Convert("a share such as `25%`", _percent, {"type": "string", "pattern": "^(100|[0-9]{1,2})\\s*%$"})
TIER = Choice("hub", "region", "edge")
DEVICE = Whole(0, 4_095)
COUNT = Whole(1, 100_000)
PATH = Text("a path", 1_024, r"[^\x00-\x1f\x7f]+")
FOLDER = Text("an absolute path", 1_024, r"/[^\x00-\x1f\x7f]*")
LISTEN = Convert("a port such as `7443`, or `host:port`", _listen, {"type": ["integer", "string"]})
PLACE = Convert("a place in degrees such as `31.23,121.47`", _place, {"type": "string"})
DOOR_RATE = Convert("a rate with its unit, such as `100Mbit/s`", _door_rate, {"type": "string"})
NETWORK = Convert("a network such as `10.0.0.0/8`", _network, {"type": "string"})
DATASET = Text("an identifier such as `cn.sh.lab7/dataset/digits`", 200, r"[a-z0-9][a-z0-9._-]*/dataset/[a-z0-9._-]+")
BUCKET = Text("the name of a bucket", 63, r"[a-z0-9][a-z0-9.-]{1,62}")
URL = Text("an address such as `https://cloud.example/pools.json`", 500, r"https?://[^\s@]+")

FIELDS: tuple[Field, ...] = (
    Field("name", NAME, "name of the site; `tieline site join` sets it"),
    Field("owner", NAME, "name of the owner below the exchange's prefix; `tieline site join` sets it"),
    Field("title", LINE, "title for people, in any language"),
    Field("tier", TIER, "`hub`, `region` or `edge`; default `edge`"),
    Field("region", WORD, "where the site stands, as a word"),
    Field("place", PLACE, "where it stands, in degrees north and east: what light allows is held against its readings"),
    Field("labels.*", LINE, "words of the owner's choice, for queries", key=LABEL_NAME, most=64),
    Field("engines[]", Choice("process", "container"), "engines that may run work; default: what works here", most=4),
    Field("readable[]", FOLDER, "folders that a sandboxed task sees too, read-only, such as a dataset", most=32),
    Field("offline", SHARE, "share of every pool that is kept off the line for the owner's own work"),
    Field("record_lease", SECONDS, "how long the site's signed records hold until they are renewed; default 1 day"),
    Field("proxy", URL, "HTTP proxy towards the exchange; otherwise HTTPS_PROXY and HTTP_PROXY count"),
    Field("ca_file", PATH, "the one certificate authority that is believed for the exchange's TLS"),
    Field("door.listen", LISTEN, "opens the door, TCP and UDP: a port of this machine, or `host:port` for others"),
    Field("door.url", URL, "under which address others reach it, behind a proxy or a forwarded port"),
    Field("door.rate", DOOR_RATE, "most that chunks may take; echoes take a hundredth of it; default 100 Mbit/s"),
    Field("door.chunks", SIZE_ONE, "chunks that are kept; default 10 GB"),
    Field("exec", FLAG, "users may run commands beside their own runs and reach their ports; default `true`"),
    Field("relay", FLAG, "chunks may come and go by the relay, where there is no door; default `true`"),
    Field("probe", FLAG, "measure the way to other sites' doors and reference points; default `true`"),
    Field(
        "probe_inner[]", NETWORK,
        "private networks whose doors and points are measured too, such as `10.0.0.0/8`; default: none", most=32,
    ),
    Field("pools[].name", NAME, "name of the pool; part of its identifier, so it never changes"),
    Field("pools[].title", LINE, "title for people"),
    Field("pools[].accelerator", KIND, "kind of accelerator in any usual spelling; left out: cores are sold"),
    Field("pools[].count", CARDS, "accelerators offered; default: all of that kind that are found"),
    Field("pools[].devices[]", DEVICE, "which of them, by the vendor's index", most=4_096),
    Field("pools[].accelerator_memory", SIZE_ONE, "memory of one accelerator"),
    Field("pools[].vendor", VENDOR, "vendor, where the kind does not tell it"),
    Field("pools[].cores", COUNT, "processor cores offered; default: an even share of what no other pool names"),
    Field("pools[].memory", SIZE_ONE, "memory offered; default as for cores"),
    Field("pools[].disk", SIZE_ONE, "disk offered; default: what the file system of the runs has"),
    Field("pools[].architecture", ARCHITECTURE, "instruction set; default: this machine's"),
    Field("pools[].class", Choice("general", "ai", "super"), "default `ai` with accelerators, else `general`"),
    Field("pools[].energy", WORD, "energy source"),
    Field("pools[].price", MONEY, "CNY per accelerator-hour, per core-hour where there is no accelerator; default 0"),
    Field("pools[].access", Choice("public", "partner", "private"), "who may use it; default `public`"),
    Field("pools[].partners[]", PARTNER, "parties and users that `partner` access and policies mean", most=1_000),
    Field("pools[].policy", Text("an expression over the demand", 4_000), "the work that is taken: `duration < 2 h`"),
    Field("pools[].labels.*", LINE, "words of the owner's choice, for queries", key=LABEL_NAME, most=64),
    Field("pools[].tags[]", LINE, "words that search finds", most=64),
    Field("pools[].networks[]", Choice("host", "none"), "networks that a task may have, the default first", most=2),
    Field(
        "pools[].sandbox", Choice(ALWAYS, PREFERRED, OPTIONAL),
        "`required`: never without; `preferred`: work that asks for none gets none only where there is no sandbox; "
        "`optional`: it gets none; default `preferred`",
    ),
    Field("pools[].counter.price_floor", MONEY, "lowest price that a quote may go down to"),
    Field("pools[].counter.max_duration", SECONDS, "longest run that a quote promises"),
    Field("pools[].counter.start_after", SECONDS, "notice that a quote asks for"),
    Field("pools[].counter.ttl", SECONDS, "how long a quote stands; default 60 s"),
    Field("pools[].offline", SHARE, "share kept off the line, instead of the site's own"),
    Field("pools[].emulated", FLAG, "the accelerators are stand-ins: shown as such wherever they are shown"),
    Field("fronts[].name", NAME, "name of the place that is fronted for; it becomes a site record of its own"),
    Field("fronts[].title", LINE, "title for people"),
    Field("fronts[].tier", TIER, "default `region`"),
    Field("fronts[].region", WORD, "where it stands"),
    Field("fronts[].file", PATH, "CSV file with a header line"),
    Field("fronts[].url", URL, "address that answers with a JSON list of the same columns"),
    Field("fronts[].every", SECONDS, "how often it is looked at; default 300 s"),
    Field("data.held[].id", DATASET, "a dataset that lies here: tasks that name it see it, read-only, without a copy"),
    Field("data.held[].path", FOLDER, "the file or folder that is this dataset"),
    Field("data.inner[]", NETWORK, "private networks that datasets may be fetched from; default: none", most=32),
    Field(
        "data.buckets[]", BUCKET,
        "S3 buckets that datasets may be fetched from, with the keys in this site's environment; default: none",
        most=256,
    ),
    Field("limits.disk", SIZE_ONE, "disk of one run that asks for none; default 10 GB"),
    Field("limits.log", SIZE_ONE, "log of one node; it is cut there; default 64 MiB"),
    Field("limits.cache", SIZE_ONE, "blobs that are kept to be used again; default 10 GB"),
    Field("limits.outputs", SIZE_ONE, "results of one run; default 4 GiB"),
    Field("limits.kept_runs", Whole(0, 10_000), "ended runs whose folder is kept; default 64"),
    Field("limits.stage", SECONDS, "how long a run may wait for its bytes; default 1 h"),
)  # fmt: skip
MAX_HELD = 1_000
_LISTS = (("pools[]", MAX_POOLS), ("fronts[]", MAX_FRONTS), ("data.held[]", MAX_HELD))
_table = table((*FIELDS, *(Field(name, None, most=most) for name, most in _LISTS)))


def parse_site(text: bytes, source: str = "site.yaml") -> SiteConfig:
    """Read the owner's file. Raises TielineError `invalid_request` with one reason per mistake and its place."""
    problems = Problems(source)
    try:
        documents = compose(text, problems)
        if len(documents) > 1:
            problems.add("task_yaml", documents[1].at, what="one document is expected, not several")
        reading = Reading(problems)
        value = _table.read(documents[0], "", reading) if documents else None
        config = _config(value.value, reading) if value is not None else SiteConfig()
        problems.raise_any()
    except TielineError as error:
        raise TielineError(
            "invalid_request", error.message, reasons=error.reasons, hints=(HINT,), where=error.where
        ) from None
    return config


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``site.yaml``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "site.yaml", **_table.schema()}


def _config(section: Section, reading: Reading) -> SiteConfig:
    limits = at(section, "limits", {})
    default = SiteLimits()
    return SiteConfig(
        name=at(section, "name", ""),
        owner=at(section, "owner", ""),
        title=at(section, "title", ""),
        tier=at(section, "tier", "edge"),
        region=at(section, "region", ""),
        place=at(section, "place"),
        labels=_words(section, "labels"),
        engines=_list(section, "engines") or SiteConfig().engines,
        pools=tuple(_pool(value, reading) for value in at(section, "pools", ()) if value.value),
        fronts=tuple(_front(value, reading) for value in at(section, "fronts", ()) if value.value),
        limits=SiteLimits(
            disk_bytes=at(limits, "disk", default.disk_bytes),
            log_bytes=at(limits, "log", default.log_bytes),
            cache_bytes=at(limits, "cache", default.cache_bytes),
            output_bytes=at(limits, "outputs", default.output_bytes),
            kept_runs=at(limits, "kept_runs", default.kept_runs),
            stage_s=at(limits, "stage", default.stage_s),
        ),
        data=_data(section.get("data"), reading),
        readable=_list(section, "readable"),
        offline_percent=at(section, "offline", 0),
        record_lease_s=_lease(section, reading),
        proxy=at(section, "proxy", ""),
        ca_file=at(section, "ca_file", ""),
        door=_door(section.get("door"), reading),
        may_exec=at(section, "exec", True),
        may_relay=at(section, "relay", True),
        may_probe=at(section, "probe", True),
        probe_inner=_list(section, "probe_inner"),
    )


def _data(value: Value | None, reading: Reading) -> DataConfig:
    if value is None:
        return DataConfig()
    section: Section = value.value
    held: dict[str, str] = {}
    for entry in at(section, "held", ()):
        for name in ("id", "path"):
            _must(entry.value, name, entry, reading)
        name = at(entry.value, "id", "")
        if name in held:
            reading.wrong(entry.at, entry.path, f"`{name}` is named twice")
        held[name] = at(entry.value, "path", "")
    return DataConfig(held=held, inner=_list(section, "inner"), buckets=_list(section, "buckets"))


def _door(value: Value | None, reading: Reading) -> DoorConfig | None:
    if value is None:
        return None
    section: Section = value.value
    default = DoorConfig()
    _must(section, "listen", value, reading)
    stated = section.get("url")
    if stated is not None and not door_url(stated.value.rstrip("/")):
        reading.wrong(stated.at, stated.path, "`http://HOST:PORT` or `https://HOST`: nobody comes to another")
    host, port = at(section, "listen", (default.host, default.port))
    return DoorConfig(
        host=host,
        port=port,
        url=at(section, "url", "").rstrip("/"),
        bytes_per_s=at(section, "rate", default.bytes_per_s),
        chunk_bytes=at(section, "chunks", default.chunk_bytes),
    )


def _lease(section: Section, reading: Reading) -> int:
    lease = section.get("record_lease")
    if lease is not None and not 300 <= lease.value <= 400 * DAY_S:
        reading.wrong(lease.at, lease.path, "between 5 minutes and 400 days")
    return at(section, "record_lease", DAY_S)  # type: ignore[no-any-return]


def _pool(value: Value, reading: Reading) -> PoolConfig:
    section: Section = value.value
    _must(section, "name", value, reading)
    _check_policy(section, reading)
    kind: Named | None = at(section, "accelerator")
    cards = at(section, "count")
    devices = _list(section, "devices")
    if kind is None and (cards or devices or at(section, "emulated")):
        reading.wrong(value.at, value.path, "`count`, `devices` and `emulated` speak of an accelerator: name its kind")
    if devices and (len(set(devices)) != len(devices) or (cards or len(devices)) != len(devices)):
        reading.wrong(section["devices"].at, section["devices"].path, "must name `count` different devices")
    return PoolConfig(
        name=at(section, "name", ""),
        line=value.at.line,
        title=at(section, "title", ""),
        accelerator=kind.kind if kind else "",
        count=cards,
        devices=devices,
        accelerator_memory_bytes=at(section, "accelerator_memory", kind.memory_bytes if kind else 0),
        vendor=at(section, "vendor", ""),
        cores=at(section, "cores"),
        memory_bytes=at(section, "memory"),
        disk_bytes=at(section, "disk"),
        architecture=at(section, "architecture", ""),
        compute_class=at(section, "class", ""),
        energy=at(section, "energy", ""),
        price_micro_cny=at(section, "price", 0),
        access=at(section, "access", "public"),
        partners=_list(section, "partners"),
        policy=at(section, "policy", ""),
        labels=_words(section, "labels"),
        tags=_list(section, "tags"),
        networks=_list(section, "networks"),
        sandbox=at(section, "sandbox", PREFERRED),
        counter=_counter(at(section, "counter"), at(section, "price", 0), value, reading),
        offline_percent=at(section, "offline"),
        is_emulated=at(section, "emulated", False),
    )


def _counter(section: Section | None, price: int, pool: Value, reading: Reading) -> Counter | None:
    if section is None:
        return None
    floor = at(section, "price_floor", 0)
    if floor > price:
        reading.wrong(pool.at, f"{pool.path}.counter.price_floor", "is above the pool's `price`")
    return Counter(
        price_floor_micro_cny=floor,
        max_duration_s=at(section, "max_duration", 0),
        start_after_s=at(section, "start_after", 0),
        ttl_s=at(section, "ttl", 60),
    )


def _check_policy(section: Section, reading: Reading) -> None:
    """A policy that cannot be read would refuse everybody: say so before anybody asks."""
    policy = section.get("policy")
    if policy is None or not policy.value.strip():
        return
    from tieline.language import compile_policy  # here: only an owner with a policy pays for the grammar

    try:
        compile_policy(policy.value)
    except TielineError as error:
        reading.wrong(policy.at, policy.path, error.message)


def _front(value: Value, reading: Reading) -> FrontConfig:
    section: Section = value.value
    _must(section, "name", value, reading)
    if bool(at(section, "file")) == bool(at(section, "url")):
        reading.wrong(value.at, value.path, "name either a `file` or a `url`")
    return FrontConfig(
        name=at(section, "name", ""),
        line=value.at.line,
        title=at(section, "title", ""),
        tier=at(section, "tier", "region"),
        region=at(section, "region", ""),
        file=at(section, "file", ""),
        url=at(section, "url", ""),
        every_s=at(section, "every", 300),
    )


def _must(section: Section, name: str, value: Value, reading: Reading) -> None:
    if name not in section:
        reading.wrong(value.at, f"{value.path}.{name}", "is missing")


def _list(section: Section, name: str) -> tuple[Any, ...]:
    return tuple(item.value for item in at(section, name, ()))


def _words(section: Section, name: str) -> dict[str, str]:
    return {key: held.value for key, held in at(section, name, {}).items()}
