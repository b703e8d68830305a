"""Equipment: the engines that work here, and what the machine has, in the words of `tieline.site`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tieline.ports import Engine
from tieline.site.found import Ability, Cards, Machine


def engines_for(folder: Path, wanted: Sequence[str]) -> dict[str, Engine]:
    """The engines of ``wanted`` that work on this machine. ``folder`` is the site's own: no sandboxed task sees it.

    Looks for sandboxes and container runtimes, which takes a moment.
    """
    engines: dict[str, Engine] = {}
    if "process" in wanted:
        from tieline.drivers.engines.process import ProcessEngine

        engines["process"] = ProcessEngine(hidden=(str(folder),))
    if "container" in wanted:
        from tieline.drivers.engines.container import ContainerEngine

        engines["container"] = ContainerEngine()
    return {name: engine for name, engine in engines.items() if engine.offers()}


def ability_of(engines: Mapping[str, Engine]) -> Ability:
    """What they can do together."""
    offers = engines["process"].offers() if "process" in engines else {}
    networks = offers or {"networks": "host"}
    return Ability(
        engines=tuple(engines),
        sandbox=offers.get("sandbox", ""),
        networks=tuple(name for name in networks["networks"].split(",") if name),
    )


def machine_of(folder: Path) -> Machine:
    """What the kernel and the vendors' libraries say. Cards of one kind are counted together, by the least memory."""
    from tieline.drivers.engines.inventory import take

    found = take(str(folder))
    cards: dict[str, Cards] = {}
    for group in found.accelerators:
        same = cards.get(group.kind)
        cards[group.kind] = Cards(
            kind=group.kind,
            vendor=group.vendor,
            memory_bytes=min(group.memory_bytes, same.memory_bytes) if same else group.memory_bytes,
            devices=tuple(sorted((*(same.devices if same else ()), *group.indices))),
        )
    return Machine(
        architecture=found.architecture,
        core_count=found.core_count,
        memory_bytes=found.memory_bytes,
        disk_bytes=found.disk_bytes,
        cards=tuple(cards.values()),
    )
