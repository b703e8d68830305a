"""Demand 需求: a task and who asks, reduced to the numbers that placing compares.

Each entry of ``task.resources`` becomes a `Need`: one alternative, with its amounts summed over the nodes of the gang.
A gang stands within one pool, whole or not at all, and the site's engine spreads it over machines; with a `span` it may
stand over pools of several sites instead (`gangs`). A need that names or counts accelerators is met by pools that sell
accelerators; a need for cores alone by pools that sell cores, whose unit and price are the core-hour. Nothing asked is
one core for each node. Memory is held only where it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tieline.language import Expression, compile_query
from tieline.model.spec import DatasetSpec
from tieline.model.task import DataUse, Resources, Span, Task
from tieline.place.pools import ANY, CORES, Amount
from tieline.place.row import architecture_of, kind_of

STRICTNESS = {"": 0, "anywhere": 0, "exchange": 1, "owner": 2, "site": 3}  # residency 驻留


class Caller(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who asks. ``owner`` is the prefix of the caller's party; ``partners`` is the caller's named set."""

    name: str
    owner: str = ""
    roles: tuple[str, ...] = ()
    partners: tuple[str, ...] = ()
    has_signed: bool = False  # the submission carries the caller's own signature


class DataFact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What placing needs of a dataset's record."""

    owner: str
    spec: DatasetSpec


class DataTerm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bytes that the task reads: where copies are, how many bytes, and how far they may travel."""

    name: str
    sites: tuple[str, ...] = ()
    size_bytes: int = 0
    residency: str = ""
    owner: str = ""
    is_laid: bool = False  # the site lays the bytes; otherwise the work has to fetch them


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """One alternative of a task. Amounts are over all nodes."""

    index: int
    asked: str  # accelerator kind, family, `any`, or nothing: cores
    amount: Amount
    unit: str  # accelerator or core
    unit_count: int
    per_node: int  # units of one node
    accelerator_memory_bytes: int = 0
    accelerator_memory_most_bytes: int = 0
    disk_bytes: int = 0
    architecture: str = ""
    image: str = ""
    infra: str = ""
    max_price_micro_cny: int | None = None
    where: Expression | None = None


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one task that decides where it may go. ``values`` are what owners' policies read, per need."""

    id: str
    name: str
    type: str
    caller: Caller
    needs: tuple[Need, ...]
    values: tuple[dict[str, Any], ...]
    nodes: int = 1
    span: Span | None = None  # what its nodes ask of each other at several sites; None: it stands within one pool
    is_ordered: bool = False
    network: str = ""
    is_trusted: bool = False
    owners: tuple[str, ...] = ()
    data: tuple[DataTerm, ...] = ()
    unknown_data: tuple[str, ...] = ()  # datasets that have no record here
    deadline_ms: int = 0
    max_duration_s: int = 0
    grace_s: int = 0
    budget_micro_cny: int | None = None  # what is left of it
    avoid: tuple[str, ...] = ()  # sites that come last: a run was lost or could not start there
    refused: tuple[tuple[str, str], ...] = ()  # pools that are out for now, each with why
    pool: str = ""  # only this one: an accepted quote, or a quote to be asked there
    price_micro_cny: int | None = None  # agreed in a quote, in place of the listed price
    waits_since_ms: int = 0
    has_secrets: bool = False
    not_applied: tuple[Any, ...] = ()

    @property
    def due_ms(self) -> int:
        """Until when the data has to be there so that the longest run ends before the deadline; 0: whenever."""
        return max(1, self.deadline_ms - self.max_duration_s * 1_000) if self.deadline_ms else 0


def demand_of(
    task: Task,
    caller: Caller,
    *,
    id: str = "",  # noqa: A002 - the job's own word
    data: Mapping[str, DataFact] | None = None,
    submitted_ms: int = 0,
    waits_since_ms: int = 0,
    spent_micro_cny: int = 0,
    avoid: tuple[str, ...] = (),
    refused: Mapping[str, str] | None = None,
    pool: str = "",
    price_micro_cny: int | None = None,
    alternative: int | None = None,
) -> Demand:
    """Reduce ``task`` for placing. ``data`` holds the facts of the datasets that it names, by identifier.

    Times are milliseconds since the epoch; ``waits_since_ms`` 0 means since submission. ``spent_micro_cny`` is what
    earlier runs of the job were charged. ``refused`` maps pools to the owner's reason. ``pool``, ``alternative`` and
    ``price_micro_cny`` are those of a quote: only that pool, that alternative, at that price. Raises TielineError
    `invalid_expression` for a ``where`` that does not compile.
    """
    facts = data or {}
    terms, unknown = _terms(task.data, facts)
    needs = tuple(_need(task, index, resources) for index, resources in enumerate(task.resources))
    return Demand(
        id=id or task.name,
        name=task.name,
        type=task.type,
        caller=caller,
        needs=needs if alternative is None else needs[alternative : alternative + 1],
        values=tuple(
            _values(task, need, caller, facts, need.max_price_micro_cny if price_micro_cny is None else price_micro_cny)
            for need in needs
        ),
        nodes=task.nodes,
        span=task.span if task.nodes > 1 and task.network != "none" and not pool else None,
        is_ordered=task.is_ordered,
        network=task.network,
        is_trusted=task.is_trusted,
        owners=task.owners,
        data=terms,
        unknown_data=unknown,
        deadline_ms=submitted_ms + task.deadline_s * 1_000 if task.deadline_s else 0,
        max_duration_s=task.max_duration_s,
        grace_s=task.grace_s,
        budget_micro_cny=max(0, task.budget_micro_cny - spent_micro_cny) if task.budget_micro_cny else None,
        avoid=avoid,
        refused=tuple((refused or {}).items()),
        pool=pool,
        price_micro_cny=price_micro_cny,
        waits_since_ms=waits_since_ms or submitted_ms,
        not_applied=task.not_applied,
        has_secrets=bool(task.secrets or task.token),
    )


def demand_values(
    task: Task,
    alternative: int,
    caller: Caller,
    *,
    facts: Mapping[str, DataFact] | None = None,
    price_micro_cny: int | None = None,
) -> dict[str, Any]:
    """One alternative of a task as an owner's policy reads it: the rows of the table `demand`; None is unknown."""
    need = _need(task, alternative, msgspec.structs.replace(task.resources[alternative], where=""))
    return _values(
        task, need, caller, facts or {}, need.max_price_micro_cny if price_micro_cny is None else price_micro_cny
    )


def _values(
    task: Task, need: Need, caller: Caller, facts: Mapping[str, DataFact], price_micro_cny: int | None
) -> dict[str, Any]:
    known = [facts[use.id].spec for use in task.data if use.id in facts]
    return {
        "user": caller.name,
        "user_owner": caller.owner,
        "role": caller.roles[0] if caller.roles else "",
        "signed": caller.has_signed,
        "name": task.name,
        "kind": task.type,
        "accelerator": need.asked,
        "accelerators": need.amount.accelerators,
        "accelerators_per_node": need.per_node if need.amount.accelerators else 0,
        "cores": need.amount.cores,
        "memory": need.amount.memory_bytes,
        "disk": need.disk_bytes,
        "nodes": task.nodes,
        "image": need.image,
        "network": task.network or "any",
        "is_trusted": task.is_trusted,
        "duration": task.max_duration_s * 1_000_000 or None,
        "deadline": task.deadline_s * 1_000_000 or None,
        "priority": task.priority,
        "price": price_micro_cny,
        "budget": task.budget_micro_cny or None,
        "data_class": tuple(sorted({spec.data_class for spec in known if spec.data_class})),
        "residency": tuple(sorted({*(use.residency for use in task.data), *(spec.residency for spec in known)} - {""})),
        "has_secrets": bool(task.secrets),
        "label": dict(task.labels),
    }


def _need(task: Task, index: int, resources: Resources) -> Need:
    nodes = task.nodes
    has_accelerators = bool(resources.accelerator or resources.accelerator_count)
    accelerators = max(1, resources.accelerator_count) if has_accelerators else 0
    cores = resources.core_count if has_accelerators else max(1, resources.core_count)
    return Need(
        index=index,
        asked=(kind_of(resources.accelerator) or ANY) if has_accelerators else CORES,
        amount=Amount(accelerators * nodes, cores * nodes, resources.memory_bytes * nodes),
        unit="accelerator" if has_accelerators else "core",
        unit_count=(accelerators if has_accelerators else cores) * nodes,
        per_node=accelerators if has_accelerators else cores,
        accelerator_memory_bytes=resources.accelerator_memory_bytes if has_accelerators else 0,
        accelerator_memory_most_bytes=resources.accelerator_memory_most_bytes if has_accelerators else 0,
        disk_bytes=resources.disk_bytes * nodes,
        architecture=architecture_of(resources.architecture),
        image=resources.image,
        infra=resources.infra,
        max_price_micro_cny=resources.max_price_micro_cny,
        where=compile_query(resources.where) if resources.where.strip() else None,
    )


def _terms(uses: tuple[DataUse, ...], facts: Mapping[str, DataFact]) -> tuple[tuple[DataTerm, ...], tuple[str, ...]]:
    """The data of a task with the stricter of its own and its record's residency, and the datasets without a record."""
    terms: list[DataTerm] = []
    unknown: list[str] = []
    for use in uses:
        fact = facts.get(use.id) if use.id else None
        if use.id and fact is None:
            unknown.append(use.id)
            continue
        spec = fact.spec if fact else DatasetSpec(residency="anywhere")
        is_laid = bool(spec.fetched and use.path)
        is_its = is_laid or spec.residency == "site"  # where copies are is for its owner to say, not for who asks
        terms.append(
            DataTerm(
                name=use.id or use.path or use.site,
                sites=tuple(dict.fromkeys([*([use.site] if use.site and not is_its else []), *spec.copies])),
                size_bytes=spec.size_bytes if is_laid else use.size_bytes or spec.size_bytes,  # a site lays all of it
                residency=max(use.residency, spec.residency, key=lambda word: STRICTNESS[word]),
                owner=fact.owner if fact else "",
                is_laid=is_laid,
            )
        )
    return tuple(terms), tuple(unknown)
