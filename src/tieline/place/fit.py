"""Steps that compare what a pool is with what the task needs: they hold until a record changes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tieline.model.quantity import show_size
from tieline.model.reason import Reason, Relaxation
from tieline.place.coded import Flags, Rows
from tieline.place.pools import ANY, CORES, Dimension, Pools
from tieline.place.scene import Asking
from tieline.place.step import Step, none_of, reason

OFFERED_TYPES = ("task",)  # kinds of task that a site can run; others are read, and refused with their name
FAMILIES = ("gpu", "npu")


class TypeOffered(Step):
    """Services, fleets and other kinds that nothing here runs are refused by name, before anything else confuses."""

    codes: tuple[str, ...] = ("kind_not_offered",)

    def asked(self, asking: Asking) -> bool:
        """Whether the type is none that is run."""
        return asking.demand.type not in OFFERED_TYPES

    def test(self, _asking: Asking, rows: Rows) -> Flags:
        """No pool."""
        return none_of(rows)

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The type that was asked."""
        return reason("kind_not_offered", rows, asked=asking.demand.type)


class Kind(Step):
    """Accelerators by kind, family or any; a demand for cores alone goes to pools that sell cores, by the core-hour."""

    codes: tuple[str, ...] = ("accelerator_kind", "cores_not_sold")
    is_searched: ClassVar[bool] = False  # the posting says it

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools whose accelerator is the one asked, or that sell cores."""
        table, asked = asking.pools.table, asking.need.asked
        sells: Flags = asking.pools.accelerators.total[rows] > 0
        if asked == CORES:
            return ~sells
        if asked == ANY:
            return sells
        column = table.texts("accelerator")
        same: Flags = sells & (column.codes[rows] == column.code(asked))
        if asked in FAMILIES:
            count = table.integers(asked)
            assert count is not None
            same |= count.array[rows] > 0
        return same

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The kind that was asked."""
        if asking.need.asked == CORES:
            return reason("cores_not_sold", rows)
        return reason("accelerator_kind", rows, asked=asking.need.asked)

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """The kind of the cheapest pool that would do."""
        if asking.need.asked == CORES:
            return None
        rows = rows[asking.pools.accelerators.total[rows] > 0]
        column = asking.pools.table.texts("accelerator")
        codes = column.codes[rows]
        rows = rows[codes > 0]
        if not len(rows):
            return None
        cheapest = int(rows[asking.price(rows).argmin()])
        code = column.codes[cheapest]
        admits = int((column.codes[rows] == code).sum())
        return Relaxation(term="accelerator", asked=asking.need.asked, needed=column.texts[int(code)], admits=admits)


class Architecture(Step):
    """Binaries run on the instruction set that they were built for; a pool that states none is unknown."""

    codes: tuple[str, ...] = ("architecture",)

    def asked(self, asking: Asking) -> bool:
        """Whether one is asked."""
        return bool(asking.need.architecture)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools of that architecture."""
        column = asking.pools.table.texts("architecture")
        kept: Flags = column.codes[rows] == column.code(asking.need.architecture)
        return kept

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The architecture that was asked."""
        return reason("architecture", rows, asked=asking.need.architecture)

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """Any other."""
        return Relaxation(term="architecture", asked=asking.need.architecture, needed="any", admits=len(rows))


class AcceleratorMemory(Step):
    """A model that does not fit one accelerator fails late and dearly, so its memory is compared first."""

    codes: tuple[str, ...] = ("accelerator_memory", "accelerator_memory_over")

    def asked(self, asking: Asking) -> bool:
        """Whether a bound is asked."""
        return bool(asking.need.accelerator_memory_bytes or asking.need.accelerator_memory_most_bytes)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Within the bounds; a pool that states no memory is in none."""
        memory = _accelerator_memory(asking.pools, rows)
        kept = (memory > 0) & (memory >= asking.need.accelerator_memory_bytes)
        most = asking.need.accelerator_memory_most_bytes
        return kept & (memory <= most) if most else kept

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """Too small with the most there is, too large with the least."""
        memory = _accelerator_memory(asking.pools, rows)
        large = memory > (asking.need.accelerator_memory_most_bytes or 2**62)
        found = []
        if not large.all():
            most = int(memory[~large].max())
            least = max(asking.need.accelerator_memory_bytes, 1)
            found += reason("accelerator_memory", rows[~large], asked_bytes=least, most_bytes=most)
        if large.any():
            most, least = asking.need.accelerator_memory_most_bytes, int(memory[large].min())
            found += reason("accelerator_memory_over", rows[large], asked_bytes=most, least_bytes=least)
        return found

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """The largest memory below the bound."""
        memory = _accelerator_memory(asking.pools, rows)
        asked, most = asking.need.accelerator_memory_bytes, asking.need.accelerator_memory_most_bytes
        below = memory[(memory > 0) & (memory < asked)]
        if len(below):
            best = int(below.max())
            admits = int((below == best).sum())
            return Relaxation(term="accelerator_memory", asked=show_size(asked), needed=show_size(best), admits=admits)
        above = memory[memory > most]
        if most and len(above):
            best = int(above.min())
            admits = int((above == best).sum())
            return Relaxation(term="accelerator_memory", asked=show_size(most), needed=show_size(best), admits=admits)
        return None


class Total(Step):
    """A gang stands within one pool, whole or not at all: more than a pool has in all can never run there."""

    is_searched: ClassVar[bool] = False  # what is free now says it

    def __init__(self, dimension: str) -> None:
        self.dimension = dimension  # accelerators, cores or memory
        self.codes = (f"{dimension}_total",)

    def asked(self, asking: Asking) -> bool:
        """Whether any is needed."""
        return self._amount(asking) > 0

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Enough in all."""
        kept: Flags = self._of(asking).total[rows] >= self._amount(asking)
        return kept

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """What is needed over all nodes, and the most that one of them has."""
        asked, most = self._amount(asking), int(self._of(asking).total[rows].max())
        if self.dimension == "memory":
            return reason("memory_total", rows, asked_bytes=asked, most_bytes=most)
        return reason(f"{self.dimension}_total", rows, asked=asked, most=most)

    def _of(self, asking: Asking) -> Dimension:
        return {
            "accelerators": asking.pools.accelerators,
            "cores": asking.pools.cores,
            "memory": asking.pools.memory,
        }[self.dimension]

    def _amount(self, asking: Asking) -> int:
        amount = asking.need.amount
        return {"accelerators": amount.accelerators, "cores": amount.cores, "memory": amount.memory_bytes}[
            self.dimension
        ]


class DiskTotal(Step):
    """Disk is not held, so only the pool's whole disk can be compared."""

    codes: tuple[str, ...] = ("disk_total",)

    def asked(self, asking: Asking) -> bool:
        """Whether any is needed."""
        return asking.need.disk_bytes > 0

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Enough in all."""
        kept: Flags = _disk(asking.pools, rows) >= asking.need.disk_bytes
        return kept

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """What is needed, and the most that one of them has."""
        most = int(_disk(asking.pools, rows).max())
        return reason("disk_total", rows, asked_bytes=asking.need.disk_bytes, most_bytes=most)

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """The largest disk."""
        disk = _disk(asking.pools, rows)
        most = int(disk.max())
        asked = show_size(asking.need.disk_bytes)
        if not most:
            return None
        return Relaxation(term="disk", asked=asked, needed=show_size(most), admits=int((disk == most).sum()))


class Engine(Step):
    """An `image` is a requirement, not a hint: it runs where a container engine is; the rest where another is."""

    codes: tuple[str, ...] = ("image_not_offered", "image_required")

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools with an engine that runs this."""
        return asking.pools.flags["images" if asking.need.image else "plain"][rows]

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """No engine for the image, or for work without one."""
        if asking.need.image:
            return reason("image_not_offered", rows, asked=asking.need.image)
        return reason("image_required", rows)

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """Another kind of packaging."""
        image = asking.need.image
        return Relaxation(term="image", asked=image or "none", needed="none" if image else "an image", admits=len(rows))


class Network(Step):
    """The network that a run must have, or must not have, is the owner's to offer."""

    codes: tuple[str, ...] = ("network_not_offered",)

    def asked(self, asking: Asking) -> bool:
        """Whether one is required."""
        return bool(asking.demand.network)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools that offer it."""
        column = asking.pools.table.words("networks")
        return column.holders(asking.demand.network)[column.codes[rows]]

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The network that was asked."""
        return reason("network_not_offered", rows, asked=asking.demand.network)

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """Any other."""
        return Relaxation(term="network", asked=asking.demand.network, needed="any", admits=len(rows))


class Sandbox(Step):
    """Untrusted work is refused where there is no sandbox, never run bare.

    A pool without a sandbox takes work of its own owner; work whose image a container engine isolates; and work whose
    submitter marked it `is_trusted`, where the owner's policy speaks of `is_trusted` and so has decided about it.
    """

    codes: tuple[str, ...] = ("sandbox_missing",)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Pools that isolate it, or whose owner trusts it."""
        pools = asking.pools
        boxed = pools.flags["boxed"][rows]
        if np.count_nonzero(boxed) == len(rows):
            return boxed
        kept = boxed | same_owner(asking, rows)
        if asking.need.image:
            kept |= pools.flags["images"][rows]
        if asking.demand.is_trusted and pools.policies:
            kept |= pools.policy.test(rows, lambda policy: policy.speaks_of_trust)
        return kept

    def explain(self, _asking: Asking, rows: Rows) -> list[Reason]:
        """There is none."""
        return reason("sandbox_missing", rows)


def same_owner(asking: Asking, rows: Rows) -> Flags:
    """Rows of the owner that the caller belongs to."""
    if not asking.demand.caller.owner:
        return none_of(rows)
    column = asking.pools.table.texts("owner")
    mine: Flags = column.codes[rows] == column.code(asking.demand.caller.owner)
    return mine


def _accelerator_memory(pools: Pools, rows: Rows) -> Rows:
    column = pools.table.integers("accelerator_memory")
    assert column is not None
    return column.array[rows]


def _disk(pools: Pools, rows: Rows) -> Rows:
    column = pools.table.integers("disk")
    assert column is not None
    return column.array[rows]
