"""What the site found out about itself: the machine, and what its engines can do. The shell looks."""

from __future__ import annotations

import msgspec


class Cards(msgspec.Struct, frozen=True, kw_only=True):
    """Accelerators of one kind that the vendor's library sees; ``memory_bytes`` is the least that one of them has."""

    kind: str
    vendor: str
    memory_bytes: int
    devices: tuple[int, ...]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Measured, all of it."""

    architecture: str
    core_count: int
    memory_bytes: int
    disk_bytes: int
    cards: tuple[Cards, ...] = ()


class Ability(msgspec.Struct, frozen=True, kw_only=True):
    """What the engines here can do."""

    engines: tuple[str, ...] = ("process",)
    sandbox: str = ""
    networks: tuple[str, ...] = ("host",)
