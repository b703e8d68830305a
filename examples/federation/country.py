"""Country: four exchanges of different owners and six sites, each a process of its own, and the lines between them.

::

                    hub cn
                /     |     X           X  lines that the story cuts
    shanghai cn.sh    |    guangdong cn.gd
                \\     |     X
                 steel cn.steel         an industry: its prefix is the hub's, and it hangs under both regions
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fibre import Fibre

from tieline.cli.processes import is_alive
from tieline.cli.stage import Stage
from tieline.client import AsyncClient
from tieline.client.context import Context, Contexts, write
from tieline.model.party import Role
from tieline.model.peering import BranchPage, BranchView
from tieline.registry import fingerprint

HERE = Path(__file__).resolve().parent
PATIENCE_S = 90.0
COMMAND_S = 120.0


class Place(NamedTuple):
    """An exchange: its prefix, its scope, and its sites as ``(site, owner)``."""

    prefix: str
    scope: str
    sites: tuple[tuple[str, str], ...]


PLACES = {
    "hub": Place("cn", "national", (("ningxia", "centre"),)),
    "shanghai": Place("cn.sh", "regional", (("pudong", "carrier"), ("minhang", "lab"))),
    "guangdong": Place("cn.gd", "regional", (("shenzhen", "cloud"), ("dongguan", "park"))),
    "steel": Place("cn.steel", "industry", (("baoshan", "mill"),)),
}
USERS = {"alice": "steel", "bob": "shanghai", "carol": "guangdong"}
LINKS = (("shanghai", "hub"), ("steel", "hub"), ("steel", "shanghai"))  # the first asks its parent, which accepts
CUT_LINKS = (("guangdong", "hub"), ("steel", "guangdong"))  # over relays; each names the other, which is two consents
SHARES = ("hub", "shanghai", "guangdong")  # who lets its peers' users run there; the mill's box is the mill's
BRANCH = "guangdong"

# Shorter than the defaults, so that a silence is seen soon. Sites get more time: a busy machine is no lost site.
LIMITS = {"beat_ms": 1_000, "lease_ms": 4_000, "tick_ms": 100, "audit_head_s": 1}
PATIENT = {**LIMITS, "lease_ms": 30_000}


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


async def together(*works: Awaitable[Any]) -> None:
    """All of them, each to its end, so that nothing is started after a failure ended the rest. Raises the first one."""
    for found in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(found, BaseException):
            raise found


@dataclass
class Country:
    """Everything is below ``folder``; `close` ends every process that was started here."""

    folder: Path
    stages: dict[str, Stage] = field(default_factory=dict)
    clients: dict[str, AsyncClient] = field(default_factory=dict)
    fibres: dict[tuple[str, str], Fibre] = field(default_factory=dict)  # by who dials, and whom
    keys: dict[str, str] = field(default_factory=dict)  # of exchanges, as their owners told them, not their peers
    commands: int = 0

    # -- up and down --------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start every exchange and every site, and wait until all sites are heard."""
        for name, place in PLACES.items():
            limits = PATIENT if name == BRANCH else LIMITS
            self.stages[name] = Stage(self.folder / name, dict(limits), place.prefix, place.scope)
        await together(*(asyncio.to_thread(stage.open) for stage in self.stages.values()))
        for name, stage in self.stages.items():
            client = self.clients[name] = stage.client()
            self.keys[self.id(name)] = (await client.exchange()).public
            for site, owner in PLACES[name].sites:
                stage.add(site, owner, HERE / "sites" / f"{site}.yaml")
        await together(*(self._people(name) for name in self.stages))
        await together(*(self._joined(name, site) for name in self.stages for site in self.stages[name].sites))
        await together(*(stage.await_sites(self.clients[name]) for name, stage in self.stages.items()))
        self._remember()
        for pair in CUT_LINKS:
            for one, other in (pair, pair[::-1]):
                self.fibres[one, other] = await Fibre(int(self.stages[other].url.rpartition(":")[2])).start()

    async def _joined(self, name: str, site: str) -> None:
        await self.stages[name].join(self.clients[name], self.stages[name].sites[site])

    async def _people(self, name: str) -> None:
        for user, at in USERS.items():
            if at == name:
                made = await self.clients[name].create_token(user, [Role.USER])
                self.clients[user] = self.stages[name].client(made.secret)

    def _remember(self) -> None:
        """What `tieline login` would store: a context for the admin of each exchange, and one for each user."""
        contexts = {}
        for who, client in self.clients.items():
            at = USERS.get(who, who)
            stage = self.stages[at]
            contexts[who] = Context(
                url=stage.url,
                token=client.http.bearer,
                fingerprint=fingerprint(self.keys[self.id(at)]),
                prefix=stage.prefix,
            )
        write(Contexts(current="hub", contexts=contexts))

    async def close(self) -> None:
        """End everything."""
        await asyncio.gather(*(fibre.close() for fibre in self.fibres.values()), return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self.clients.values()), return_exceptions=True)
        await asyncio.gather(*(asyncio.to_thread(stage.close) for stage in self.stages.values()))

    def alive(self) -> list[str]:
        """Who still runs of those that were started."""
        started = [stage.exchange for stage in self.stages.values()]
        started += [actor.process for stage in self.stages.values() for actor in stage.sites.values()]
        return [each.name for each in started if each is not None and is_alive(each)]

    # -- the command line ---------------------------------------------------------------------------------------------

    def id(self, name: str) -> str:
        """The identifier of an exchange."""
        return f"{PLACES[name].prefix}/exchange/main"

    async def tieline(self, who: str, *words: str, status: int | None = 0) -> Said:
        """Run the command line as ``who``. Raises RuntimeError where it ends with another code than ``status``."""
        self.commands += 1
        environment = {**os.environ, "TIELINE_HOME": str(self.folder / "home"), "TIELINE_LANG": "en", "NO_COLOR": "1"}
        environment.pop("TIELINE_TOKEN", None)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tieline.cli", "-x", who, *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=HERE, env=environment,
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(process.communicate(), COMMAND_S)
        except TimeoutError:
            raise RuntimeError(f"`tieline -x {who} {' '.join(words)}` took longer than {COMMAND_S:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = Said(process.returncode or 0, out.decode(), err.decode())
        if status is not None and said.code != status:
            raise RuntimeError(f"`tieline -x {who} {' '.join(words)}` ended with {said.code}: {said.err[-600:]}")
        return said

    # -- lines between exchanges --------------------------------------------------------------------------------------

    async def peer(self) -> None:
        """Two consents for each link, by the command line."""
        await together(*(self._asked(*pair) for pair in LINKS), *(self._named(*pair) for pair in CUT_LINKS))

    async def _asked(self, child: str, parent: str) -> None:
        url = self.stages[parent].url
        await self.tieline(child, "exchange", "peer", "add", url, "--role", "parent", *self._grants(child))
        await self.tieline(parent, "exchange", "peer", "accept", self.id(child), *self._grants(parent), "-y")

    async def _named(self, child: str, parent: str) -> None:
        for one, other, role in ((child, parent, "parent"), (parent, child, "child")):
            url = self.fibres[one, other].url
            await self.tieline(one, "exchange", "peer", "add", url, "--role", role, "--elsewhere", *self._grants(one))

    @staticmethod
    def _grants(name: str) -> tuple[str, ...]:
        """What an exchange lets its peers' users have at once, and in a month."""
        return ("--use", "--cards", "8", "--card-hours", "100") if name in SHARES else ("--no-use",)

    def cut(self) -> None:
        """Every line of the branch at once."""
        for fibre in self.fibres.values():
            fibre.cut()

    async def mend(self) -> None:
        for fibre in self.fibres.values():
            await fibre.mend()

    async def branch(self, at: str, other: str) -> BranchView:
        """How ``other`` stands at ``at``."""
        page = await self.clients[at].http.call("GET", "/v1/peers", BranchPage)
        return next(each for each in page.branches if each.exchange == self.id(other))

    async def until(self, what: str, holds: Callable[[], Awaitable[Any]]) -> Any:
        """The first true answer of ``holds``. Raises TimeoutError after `PATIENCE_S`."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            found = await holds()
            if found:
                return found
            if time.monotonic() > end_s:
                raise TimeoutError(f"not within {PATIENCE_S:.0f} s: {what}")
            await asyncio.sleep(0.1)
