"""The owner's policy, decided at the site once more: the owner's word is final, whatever an exchange made of it.

The language is imported only where a policy exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tieline.model.accelerators import named
from tieline.model.error import TielineError
from tieline.model.protocol import Ask, Offer
from tieline.model.reason import Reason
from tieline.model.task import Resources


def demand_values(asked: Offer | Ask) -> dict[str, Any]:
    """What a policy reads of an order: the rows of the table `demand`; None is unknown.

    The user, its party and the facts of datasets are the exchange's word; the rest is the task's own.
    """
    task = asked.task
    resources = task.resources[asked.alternative]
    has_accelerators = bool(resources.accelerator or resources.accelerator_count)
    accelerators = max(1, resources.accelerator_count) if has_accelerators else 0
    cores = resources.core_count if has_accelerators else max(1, resources.core_count)
    return {
        "user": asked.user,
        "user_owner": asked.user_owner,
        "role": "user",
        "signed": False,
        "name": task.name,
        "kind": task.type,
        "accelerator": _kind(resources) if has_accelerators else "",
        "accelerators": accelerators * task.nodes,
        "accelerators_per_node": accelerators,
        "cores": cores * task.nodes,
        "memory": resources.memory_bytes * task.nodes,
        "disk": resources.disk_bytes * task.nodes,
        "nodes": task.nodes,
        "image": resources.image,
        "network": task.network or "any",
        "is_trusted": task.is_trusted,
        "duration": task.max_duration_s * 1_000_000 or None,
        "deadline": task.deadline_s * 1_000_000 or None,
        "priority": task.priority,
        "price": _price(asked, resources),
        "budget": task.budget_micro_cny or None,
        "data_class": asked.data_class,
        "residency": tuple(sorted({*asked.residency, *(use.residency for use in task.data)} - {""})),
        "has_secrets": bool(task.secrets),
        "label": dict(task.labels),
    }


def _kind(resources: Resources) -> str:
    try:
        return named(resources.accelerator).kind if resources.accelerator else "any"
    except ValueError:
        return resources.accelerator


def _price(asked: Offer | Ask, resources: Resources) -> int | None:
    """What the asker would pay: the price asked for, or the most that the task says, or what was booked."""
    if isinstance(asked, Ask):
        return asked.asked_price_micro_cny_per_unit_hour or resources.max_price_micro_cny
    if resources.max_price_micro_cny is not None:
        return resources.max_price_micro_cny
    return asked.price_micro_cny_per_unit_hour


def policy_refusal(policy: str, partners: Sequence[str], values: dict[str, Any]) -> Reason | None:
    """The first term that does not hold, or else the first that is unknown; None when the policy admits."""
    if not policy.strip():
        return None
    from tieline.language import compile_policy, scalar

    try:
        terms = compile_policy(policy).terms
    except TielineError:
        return Reason(code="policy_unknown", values={"term": "(unreadable)"})
    unknown = None
    for term in terms:
        holds = scalar.decide(term.node, values, {"partners": partners})
        if holds is False:
            return Reason(code="policy_not_met", values={"term": term.text})
        if holds is None and unknown is None:
            unknown = Reason(code="policy_unknown", values={"term": term.text})
    return unknown
