"""Task 子任务 as every part reads it: what a task file becomes once its author's dialect is left behind.

Sizes, money and times are integers with their unit last. Secret values are never here: only their names.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.spec import Bytes, Count, Expression, MicroCny, OptionalWord

NAME = r"\A[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z"
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63, pattern=NAME)]
EnvName = Annotated[str, msgspec.Meta(max_length=200, pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\Z")]
RunScope = Annotated[str, msgspec.Meta(pattern=r"\A(read:(job|log|blob|transfer)|write:receipt|stop)\Z")]
Script = Annotated[str, msgspec.Meta(max_length=262_144)]
Path = Annotated[str, msgspec.Meta(max_length=1_024)]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Nodes = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=31_536_000)]


class Resources(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one node of the task needs. Zero and empty mean: no such requirement."""

    accelerator: OptionalWord = ""  # kind; "any" with a count asks for any accelerator
    accelerator_count: Count = 0  # per node
    accelerator_memory_bytes: Bytes = 0  # least, of one accelerator
    accelerator_memory_most_bytes: Bytes = 0  # most, 0: no limit
    core_count: Count = 0
    memory_bytes: Bytes = 0
    disk_bytes: Bytes = 0
    architecture: OptionalWord = ""
    image: Annotated[str, msgspec.Meta(max_length=400)] = ""
    max_price_micro_cny: MicroCny | None = None  # per unit-hour
    where: Expression = ""  # expression over offers
    infra: Annotated[str, msgspec.Meta(max_length=200)] = ""  # a site, a region, or CLOUD[/REGION[/ZONE]]


class Mount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Bytes that are laid at ``path`` (relative to the working directory) before setup."""

    path: Path
    sha256: Digest
    size_bytes: Bytes = 0
    is_archive: bool = False  # a tar to be unpacked there


class Retry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How often a run that ended badly is tried again. A lost run never counts against ``limit``."""

    limit: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 0
    on_exit_codes: Annotated[tuple[int, ...], msgspec.Meta(max_length=256)] = ()  # these always mean: recover


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A folder that is uploaded on a period and on a signal, and restored on the next run."""

    path: Path
    every_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 60
    signal: Annotated[str, msgspec.Meta(max_length=16)] = "SIGUSR1"


class DataUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A dataset (by identifier) or bytes of a stated size at a stated site that the task reads."""

    id: Annotated[str, msgspec.Meta(max_length=200)] = ""
    path: Path = ""  # where it is laid
    size_bytes: Bytes = 0
    site: Annotated[str, msgspec.Meta(max_length=200)] = ""
    residency: Annotated[str, msgspec.Meta(pattern=r"\A(anywhere|site|owner|exchange)?\Z")] = ""


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the nodes of one gang ask of each other where they stand at several sites 跨域组网."""

    sites: Annotated[int, msgspec.Meta(ge=2, le=8)] = 8  # at most
    rate_bps: Annotated[int, msgspec.Meta(ge=0, le=10**15)] = 0  # between every two sites, both ways, at once
    rtt_us: Annotated[int, msgspec.Meta(ge=0, le=60_000_000)] = 0  # between every two, at most; 0: whatever
    # TCP ports on which nodes listen, reached from every other site; beside them the gang's own meeting port.
    ports: Annotated[tuple[Port, ...], msgspec.Meta(max_length=16)] = ()


class NotApplied(msgspec.Struct, frozen=True, kw_only=True):
    """A field that was understood and cannot mean anything here."""

    field: str
    why: str


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One thing to run. ``resources`` holds alternatives: any of them, or the first that fits when ``is_ordered``."""

    name: Name = "task"
    type: OptionalWord = "task"
    run: Script = ""
    setup: Script = ""
    nodes: Nodes = 1
    span: Span | None = None  # its nodes may stand at several sites; None: within one pool
    resources: Annotated[tuple[Resources, ...], msgspec.Meta(min_length=1, max_length=64)] = (Resources(),)
    is_ordered: bool = False
    envs: Annotated[dict[EnvName, Annotated[str, msgspec.Meta(max_length=65_536)]], msgspec.Meta(max_length=512)] = {}
    secrets: Annotated[tuple[EnvName, ...], msgspec.Meta(max_length=64)] = ()
    token: Annotated[tuple[RunScope, ...], msgspec.Meta(max_length=6)] = ()  # what its runs may do, as its user
    workdir: Mount | None = None
    mounts: Annotated[tuple[Mount, ...], msgspec.Meta(max_length=256)] = ()
    outputs: Annotated[tuple[Path, ...], msgspec.Meta(max_length=64)] = ()  # paths or globs fetched back by hash
    network: Annotated[str, msgspec.Meta(pattern=r"\A(none|host)?\Z")] = ""  # required network; empty: any
    is_trusted: bool = False  # the submitter asks to run without a sandbox; owners decide
    owners: Annotated[tuple[str, ...], msgspec.Meta(max_length=256)] = ()  # only these; empty: any
    data: Annotated[tuple[DataUse, ...], msgspec.Meta(max_length=64)] = ()
    checkpoint: Checkpoint | None = None
    retry: Retry = Retry()
    priority: Annotated[int, msgspec.Meta(ge=-1_000, le=1_000)] = 0
    deadline_s: Seconds = 0  # from submission; 0: none
    max_duration_s: Seconds = 0  # of one run; 0: none
    grace_s: Annotated[int, msgspec.Meta(ge=0, le=3_600)] = 5  # between SIGTERM and SIGKILL
    budget_micro_cny: MicroCny = 0  # 0: none
    labels: Annotated[dict[str, Annotated[str, msgspec.Meta(max_length=400)]], msgspec.Meta(max_length=64)] = {}
    not_applied: Annotated[tuple[NotApplied, ...], msgspec.Meta(max_length=256)] = ()
