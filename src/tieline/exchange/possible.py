"""Possible: shapes of tasks for which a pool exists that could run them, so that equal tasks are not looked at again.

Only a yes is kept, and only until a record of a pool changes. Tasks whose answer rests on more than records of pools
(readings, datasets, the network, the time) have no shape here.
"""

from __future__ import annotations

from tieline.exchange.jobrow import digest
from tieline.model.task import Task
from tieline.place.demand import Demand

MOST_SHAPES = 10_000


class Possible:
    """What is known of one version of the pools."""

    def __init__(self) -> None:
        self._version = -1
        self._shapes: dict[int, None] = {}

    def has(self, shape: int, version: int) -> bool:
        """Whether it was found possible as the pools are."""
        if version != self._version:
            self._version = version
            self._shapes.clear()
        return shape in self._shapes

    def add(self, shape: int) -> None:
        """Note what was found just now, after `has` was asked."""
        if len(self._shapes) >= MOST_SHAPES:
            self._shapes.clear()
        self._shapes[shape] = None


def plain_shape(task: Task, demand: Demand, has_policies: bool) -> int:
    """64 bits that are equal for tasks of which the same is possible; 0 for a task without a shape.

    ``has_policies``: whether any owner's policy may read names and labels.
    """
    if task.data or task.deadline_s or task.span is not None or any(need.where is not None for need in demand.needs):
        return 0
    caller = demand.caller
    asked = (
        caller.name, caller.owner, task.type, task.nodes, task.resources, task.network, task.is_trusted,
        task.owners, task.max_duration_s, task.grace_s, task.budget_micro_cny, bool(task.secrets), bool(task.token),
        task.priority,
        (task.name, sorted(task.labels.items())) if has_policies else (),
    )  # fmt: skip
    return digest(asked) or 1
