"""Dialects: whose words a document is written in, and what a word of the other one is called here.

::

    `type:` is there                                      dstack
    a key that only dstack has, none that only SkyPilot has   dstack (a task)
    otherwise                                             SkyPilot

Tieline's own fields may stand in either. Words of both in one document are refused, each with its equivalent.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from tieline.model.taskfile.fields import Field, Table, table
from tieline.model.taskfile.fields_dstack import DSTACK
from tieline.model.taskfile.fields_own import OWN
from tieline.model.taskfile.fields_skypilot import SKYPILOT
from tieline.model.taskfile.nodes import Mapping, Scalar
from tieline.model.taskfile.shapes import Choice

EXECUTION = Choice("serial", "parallel")
HEADER_KEYS = ("name", "execution", "placement", "primary_tasks", "termination_delay")  # of a leading document

TO_SKYPILOT = {
    "commands": "run",
    "nodes": "num_nodes",
    "env": "envs",
    "files": "file_mounts",
    "repos": "workdir",
    "working_dir": "workdir",
    "ports": "resources.ports",
    "tags": "labels",
    "max_price": "resources.max_hourly_cost",
    "spot_policy": "resources.use_spot",
    "backends": "resources.infra",
    "regions": "resources.infra",
    "accelerators": "resources.accelerators",
    "resources.gpu": "accelerators",
    "resources.cpu": "cpus",
    "resources.disk": "disk_size",
    "resources.image": "image_id",
    "any_of": "resources.any_of",
    "ordered": "resources.ordered",
}
TO_DSTACK = {
    "run": "commands",
    "num_nodes": "nodes",
    "envs": "env",
    "workdir": "repos",
    "file_mounts": "files",
    "gpu": "resources.gpu",
    "service": "type: service",
    "resources.accelerators": "gpu",
    "resources.cpus": "cpu",
    "resources.disk_size": "disk",
    "resources.max_hourly_cost": "max_price (outside resources)",
    "resources.image_id": "image (outside resources)",
    "resources.use_spot": "spot_policy (outside resources)",
    "resources.infra": "backends (outside resources)",
    "resources.any_of": "gpu with several names",
    "resources.ordered": "gpu with several names",
}
EQUIVALENTS = {"skypilot": TO_SKYPILOT, "dstack": TO_DSTACK}


def equivalent(dialect: str, path: str, cutoff: float) -> str:
    """What a key of the other dialect (or one nearly spelled so, from ``cutoff`` on) is called in ``dialect``."""
    from difflib import get_close_matches  # here: only a mistake pays for it

    words = EQUIVALENTS[dialect]
    plain = path.replace("any_of[].", "").replace("ordered[].", "")
    near = [plain] if plain in words else get_close_matches(plain[:64], words, n=1, cutoff=cutoff)
    return words[near[0]] if near else ""


def _heads(rows: Iterable[Field]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.path.split(".")[0].removesuffix("[]") for row in rows))


@cache
def markers(dialect: str) -> tuple[str, ...]:
    """The top-level keys that only ``dialect`` has."""
    names = {"skypilot": _heads(SKYPILOT), "dstack": _heads(DSTACK)}
    shared = {*names["dstack" if dialect == "skypilot" else "skypilot"], *_heads(OWN)}
    return tuple(name for name in names[dialect] if name not in shared)


def dialect_of(document: Mapping) -> str:
    """``skypilot`` or ``dstack``."""
    keys = {key.text for key, _ in document.pairs}
    if "type" in keys:
        return "dstack"
    is_dstack = any(name in keys for name in markers("dstack"))
    return "dstack" if is_dstack and not any(name in keys for name in markers("skypilot")) else "skypilot"


def type_of(document: Mapping) -> str:
    """What dstack's `type` says, if it is one that has a table; else ``task``."""
    for key, value in document.pairs:
        if key.text == "type" and isinstance(value, Scalar):
            known = next(row for row in DSTACK if row.path == "type").shape
            return value.text if value.text in getattr(known, "options", ()) else "task"
    return "task"


def rows(dialect: str, kind: str = "task") -> tuple[Field, ...]:
    """The rows that a document of ``dialect`` may use; of dstack's, those that the type ``kind`` knows."""
    if dialect == "skypilot":
        return (*OWN, *SKYPILOT)
    kept = [row for row in DSTACK if not row.types or kind in row.types]
    paths = {row.path for row in kept}
    gone = tuple(f"{row.path}." for row in DSTACK if row.path not in paths)
    return (*OWN, *(row for row in kept if not row.path.startswith(gone)))


@cache
def table_of(dialect: str, kind: str = "task") -> Table:
    """The table of ``rows``."""
    return table(rows(dialect, kind), lambda path, cutoff: equivalent(dialect, path, cutoff))
