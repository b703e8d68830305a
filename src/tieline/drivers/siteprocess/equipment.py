"""Equipment: the engines that work here, and what the machine has, in the words of `tieline.site`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tieline.drivers.siteprocess.look import has_nvidia, machine_of
from tieline.model.error import TielineError
from tieline.ports import Engine
from tieline.site.found import Ability, Machine


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


async def machine_seen(folder: Path) -> Machine:
    """This machine, measured. Raises TielineError `check_failed` when it cannot be looked at."""
    if not has_nvidia():
        return await asyncio.to_thread(machine_of, folder)
    looking = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tieline.drivers.siteprocess.look", str(folder), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await looking.communicate()
    try:
        return msgspec.json.decode(said, type=Machine)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise TielineError(
            "check_failed", f"the machine cannot be looked at: {error}", hints=("tieline check",)
        ) from None
