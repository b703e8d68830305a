"""Pool: what the owner offers of this site, as the site itself decides by it. The record says the same to others."""

from __future__ import annotations

import msgspec

ALWAYS, PREFERRED, OPTIONAL = "required", "preferred", "optional"


class Counter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far the owner goes to meet a question: the lowest price, the longest run, the earliest start."""

    price_floor_micro_cny: int = 0  # per unit-hour; 0: the listed price only
    max_duration_s: int = 0  # 0: no limit
    start_after_s: int = 0  # notice that the owner wants
    ttl_s: int = 60  # how long an answer stands


class Pool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Same-kind accelerators, or plain cores, with the owner's price and rules."""

    id: str  # identifier of its record
    owner: str  # prefix
    accelerator: str = ""  # kind; empty: cores are sold
    vendor: str = ""
    accelerator_memory_bytes: int = 0
    devices: tuple[int, ...] = ()  # indices as the vendor counts them; stand-ins are counted from 0
    core_count: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    price_micro_cny_per_unit_hour: int = 0
    access: str = "public"  # public, partner, private
    partners: tuple[str, ...] = ()
    policy: str = ""
    engines: tuple[str, ...] = ("process",)
    sandbox: str = ""  # what isolates here: bubblewrap, or nothing
    sandbox_rule: str = PREFERRED  # required, preferred or optional
    networks: tuple[str, ...] = ("host",)  # in the owner's order
    counter: Counter | None = None
    is_emulated: bool = False

    @property
    def is_sold_by_core(self) -> bool:
        """Whether the unit is a core."""
        return not self.devices
