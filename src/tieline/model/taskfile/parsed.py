"""What a task file becomes: tasks without their bytes, and what the submitter still has to bring."""

from __future__ import annotations

import msgspec

from tieline.model.reason import Reason
from tieline.model.task import Task


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A dated rate of exchange, by which prices that peers write in USD become CNY."""

    micro_cny_per_usd: int
    date: str  # ISO 8601


DEFAULT_RATE = Rate(micro_cny_per_usd=7_000_000, date="2026-01-01")
"""A round figure for whoever gives no other; an exchange's own dated rate replaces it and is printed in the plan."""


class LocalFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder of the submitter that is laid in the run's working directory."""

    path: str  # relative to the working directory
    source: str  # on the submitter's machine, as written


class ParsedTask(msgspec.Struct, frozen=True, kw_only=True):
    """One document of a task file; ``task`` lacks what only the submitter has: bytes and secrets.

    Showing one never shows the value of a secret.
    """

    task: Task
    project: str = ""  # that it counts for; empty: the submitter's only one, or none
    workdir: str = ""  # local folder that becomes the working directory; empty: none
    files: tuple[LocalFile, ...] = ()
    secrets: dict[str, str] = {}  # values that the file itself holds
    secrets_from: dict[str, str] = {}  # secret: the submitter's environment variable that holds its value
    pipeline: str = ""  # name that the leading document gave
    after: int | None = None  # index of the task that must succeed before this one
    notes: tuple[Reason, ...] = ()  # prices converted, ranges read by their least, kinds that are not known

    def __repr__(self) -> str:
        names = list(self.task.secrets)
        return f"ParsedTask({self.task.name!r}, workdir={self.workdir!r}, files={len(self.files)}, secrets={names})"
