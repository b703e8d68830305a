"""Configuration: what an owner can say of its site. `siteyaml` reads it from a file; every default is here."""

from __future__ import annotations

import msgspec

from tieline.site.pool import PREFERRED, Counter

DAY_S = 86_400
GB = 10**9


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One pool as the owner declares it. None: what the machine has."""

    name: str
    line: int = 0  # where it stands in the file
    title: str = ""
    accelerator: str = ""
    count: int | None = None
    devices: tuple[int, ...] = ()
    accelerator_memory_bytes: int = 0
    vendor: str = ""
    cores: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    architecture: str = ""
    compute_class: str = ""
    energy: str = ""
    price_micro_cny: int = 0
    access: str = "public"
    partners: tuple[str, ...] = ()
    policy: str = ""
    labels: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    sandbox: str = PREFERRED
    counter: Counter | None = None
    offline_percent: int | None = None
    is_emulated: bool = False


class FrontConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Machines or a cloud that install nothing: a list of pools from a CSV file or a URL that is asked now and then."""

    name: str
    line: int = 0
    title: str = ""
    tier: str = "region"
    region: str = ""
    file: str = ""
    url: str = ""
    every_s: int = 300


class DoorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The echo and chunk port that the owner opens."""

    host: str = "127.0.0.1"
    port: int = 0  # TCP and UDP; 0: a free one
    url: str = ""  # under which others reach it; empty: as it listens
    bytes_per_s: int = 12_500_000  # of chunks; of echoes a hundredth of it
    chunk_bytes: int = 10 * GB  # of chunks that are kept


class DataConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner says of data that others' tasks name."""

    held: dict[str, str] = {}  # identifier of a dataset -> the file or folder here that is it
    inner: tuple[str, ...] = ()  # private networks (CIDR) that datasets may be fetched from
    buckets: tuple[str, ...] = ()  # of S3 stores, read with the keys in the environment of the site


class SiteLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What this site spends on others' work beside the work itself."""

    disk_bytes: int = 10 * GB  # of one run that asks for none
    log_bytes: int = 64 * 2**20  # of one node
    cache_bytes: int = 10 * GB  # of blobs that tasks bring along
    output_bytes: int = 4 * 2**30  # of one run
    kept_runs: int = 64  # ended runs whose folder is kept, newest last
    stage_s: int = 3_600  # until the bytes of a run must be here


class SiteConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    name: str = ""
    owner: str = ""
    title: str = ""
    tier: str = "edge"
    region: str = ""
    place: tuple[int, int] | None = None  # latitude and longitude, millionths of a degree
    labels: dict[str, str] = {}
    engines: tuple[str, ...] = ("process", "container")
    readable: tuple[str, ...] = ()  # folders that sandboxed tasks see, read-only
    pools: tuple[PoolConfig, ...] = ()
    fronts: tuple[FrontConfig, ...] = ()
    limits: SiteLimits = SiteLimits()
    data: DataConfig = DataConfig()
    offline_percent: int = 0
    record_lease_s: int = DAY_S
    proxy: str = ""
    ca_file: str = ""
    door: DoorConfig | None = None
    may_exec: bool = True  # users may run commands beside their own runs, and reach ports of these, by the relay
    may_relay: bool = True  # chunks may come and go by the relay, under the exchange's passes
    may_probe: bool = True  # measure the way to others, as the exchange's plan says
    probe_inner: tuple[str, ...] = ()  # private networks (CIDR) that are measured too
