"""The draft: what the readers of a dialect fill in, and what turns it into a `ParsedTask`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tieline.model.accelerators import nearest
from tieline.model.quantity import show_money
from tieline.model.reason import Reason
from tieline.model.task import Task
from tieline.model.taskfile.nodes import Mark
from tieline.model.taskfile.parsed import LocalFile, ParsedTask, Rate
from tieline.model.taskfile.paths import inside, source
from tieline.model.taskfile.shapes import Reading
from tieline.model.taskfile.values import Ask, Price, Span

_CREDENTIALS = re.compile(r"://[^/@\s]*@")
MAX_ALTERNATIVES = 64
MAX_FILES = 256
MAX_SECRETS = 64
MAX_ENVS = 512
MAX_DATA = 64
MAX_EXPRESSION = 4_000
MAX_INFRA = 200
MAX_NOT_APPLIED = 256


def place(cloud: str | None, region: str | None, zone: str | None) -> str:
    """`Resources.infra` of what was said: a region alone may be one of a site here; a cloud is written before it."""
    if region and not cloud and not zone:
        return region
    said = "/".join(part or "*" for part in (cloud, region, zone))
    while said.endswith("/*"):
        said = said.removesuffix("/*")
    return "" if said == "*" else said


@dataclass
class Alternative:
    """One entry of `Task.resources` in the making: ``fields`` of `Resources`, ``price`` per node-hour."""

    fields: dict[str, Any] = field(default_factory=dict)
    where: list[str] = field(default_factory=list)
    price: Price | None = None


@dataclass
class Draft:
    """One task while it is read."""

    reading: Reading
    at: Mark
    rate: Rate
    before: int = 0  # problems that were known when this task began
    task: dict[str, Any] = field(default_factory=dict)
    alternatives: list[Alternative] = field(default_factory=lambda: [Alternative()])
    where: list[str] = field(default_factory=list)
    image: str = ""
    project: str = ""
    workdir: str = ""
    files: dict[str, LocalFile] = field(default_factory=dict)
    envs: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    secrets_from: dict[str, str] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    notes: list[Reason] = field(default_factory=list)

    def wrong(self, at: Mark, path: str, what: str) -> None:
        """Note that the value at ``path`` cannot be."""
        self.reading.wrong(at, path, what)

    def missing(self, at: Mark, path: str, what: str) -> None:
        """Note that something is not said, unless a mistake was found before: it may be said wrongly."""
        if self.reading.problems.count == self.before:
            self.wrong(at, path, what)

    def note(self, code: str, **values: str | int) -> None:
        """Tell the reader something, once."""
        reason = Reason(code=code, values=values)
        if reason not in self.notes and len(self.notes) < MAX_NOT_APPLIED:
            self.notes.append(reason)

    def lay(self, at: Mark, path: str, target: str, local: str) -> None:
        """Lay the local file or folder ``local`` at ``target``; `.` is the working directory itself."""
        try:
            laid, taken = inside(target), source(local)
        except ValueError as error:
            self.wrong(at, path, str(error))
            return
        if laid == ".":
            if self.workdir and self.workdir != taken:
                self.wrong(at, path, "two folders would be the working directory; lay this one below it")
            self.workdir = taken
        elif laid in self.files:
            self.wrong(at, path, f"something is already laid at `{laid}`")
        elif len(self.files) >= MAX_FILES:
            self.wrong(at, path, f"more than {MAX_FILES} files and folders; put them into one folder")
        else:
            self.files[laid] = LocalFile(path=laid, source=taken)

    def need(self, at: Mark, path: str, name: str, target: str = "") -> None:
        """Need data that only a record of that name could provide; without one the plan says so."""
        name = _CREDENTIALS.sub("://", name)  # an address may carry a password, which is no part of a name
        if len(name) > 200:
            self.wrong(at, path, "a name of data has at most 200 characters")
        else:
            laid = target.removeprefix("~/").strip("/")
            self.data.append({"id": name, "path": laid if ".." not in laid.split("/") else ""})

    def secret(self, at: Mark, path: str, name: str, value: str | None, variable: str = "") -> None:
        """Carry a secret: its value, or the submitter's variable that holds it."""
        if name in self.secrets or name in self.secrets_from:
            self.wrong(at, path, f"the secret `{name}` is named twice")
        elif len(self.secrets) + len(self.secrets_from) >= MAX_SECRETS:
            self.wrong(at, path, f"more than {MAX_SECRETS} secrets")
        elif value is None:
            self.secrets_from[name] = variable or name
        else:
            self.secrets[name] = value

    def fill(self, fields: dict[str, Any], ask: Ask, at: Mark, path: str) -> None:
        """Put one kind of accelerator into an alternative: the least of its ranges."""
        count = ask.cards.least if ask.cards.least is not None else 1
        if ask.cards.most is not None and ask.cards.most > count:
            self.note("task_range_least", field=path, taken=count)
        if count < 1:
            return
        fields["accelerator"] = ask.kind
        fields["accelerator_count"] = count
        self.memory(fields, ask.memory)
        if not ask.is_known:
            values: dict[str, str | int] = {"line": at.line, "column": at.column, "asked": ask.kind}
            if near := nearest(ask.kind):
                self.note("task_accelerator_near", near=near, **values)
            else:
                self.note("task_accelerator_unknown", **values)

    @staticmethod
    def memory(fields: dict[str, Any], memory: Span) -> None:
        """The memory that one card has at least and at most."""
        if memory.least is not None:
            fields["accelerator_memory_bytes"] = memory.least
        if memory.most is not None:
            fields["accelerator_memory_most_bytes"] = memory.most

    def finish(self) -> ParsedTask | None:
        """The parsed task; None after noting why there is none."""
        before = self.reading.problems.count
        if len(self.alternatives) > MAX_ALTERNATIVES:
            what = f"{len(self.alternatives)} alternatives of resources; at most {MAX_ALTERNATIVES}"
            self.wrong(self.at, "resources", what)
            return None
        if len(self.data) > MAX_DATA:
            self.wrong(self.at, "data", f"{len(self.data)} datasets, buckets and volumes; at most {MAX_DATA}")
        if clash := [name for name in (*self.secrets, *self.secrets_from) if name in self.envs]:
            self.wrong(self.at, "secrets", f"`{clash[0]}` is under envs as well; keep one of them")
        self.task["resources"] = [self._resources(alternative) for alternative in self.alternatives]
        self.task["envs"] = self.envs
        self.task["secrets"] = [*self.secrets, *self.secrets_from]
        self.task["data"] = self.data
        self.task["not_applied"] = list(self.reading.not_applied.values())[:MAX_NOT_APPLIED]
        if self.reading.problems.count > before:
            return None
        try:
            task = msgspec.convert(self.task, Task)
        except msgspec.ValidationError as error:
            self.wrong(self.at, "the task", str(error))
            return None
        return ParsedTask(
            task=task,
            project=self.project,
            workdir=self.workdir,
            files=tuple(self.files.values()),
            secrets=self.secrets,
            secrets_from=self.secrets_from,
            notes=tuple(self.notes),
        )

    def _resources(self, alternative: Alternative) -> dict[str, Any]:
        """One alternative as `Resources` has it."""
        fields = alternative.fields
        if self.image and fields.setdefault("image", self.image) != self.image:
            self.wrong(self.at, "image", "another image stands under resources; keep one of them")
        terms = [term.strip() for term in (*alternative.where, *self.where) if term.strip()]
        if terms:
            where = terms[0] if len(terms) == 1 else " and ".join(f"({term})" for term in terms)
            if len(where) > MAX_EXPRESSION:
                self.wrong(
                    self.at, "where", f"{len(where):,} characters with what `network` adds; at most {MAX_EXPRESSION:,}"
                )
            fields["where"] = where
        if len(fields.get("infra", "")) > MAX_INFRA:
            self.wrong(self.at, "resources.infra", f"is longer than {MAX_INFRA} characters")
        if alternative.price is not None:
            fields["max_price_micro_cny"] = self._unit_price(alternative.price, fields)
        return fields

    def _unit_price(self, price: Price, fields: dict[str, Any]) -> int:
        """A price per node-hour as one per unit-hour: of its accelerators, else of its cores, rounded down."""
        units: int = fields.get("accelerator_count") or max(1, fields.get("core_count", 0))
        unit = "accelerator" if fields.get("accelerator_count") else "core"
        rate = (
            f"{show_money(self.rate.micro_cny_per_usd)} CNY/USD of {self.rate.date}" if price.currency == "USD" else "-"
        )
        per_node = price.micro * (self.rate.micro_cny_per_usd if price.currency == "USD" else 10**6) // 10**6
        per_unit = per_node // units
        self.note(
            "task_price",
            asked=f"{show_money(price.micro)} {price.currency}",
            rate=rate,
            units=units,
            unit=unit,
            limit_micro_cny=per_unit,
        )
        return per_unit
