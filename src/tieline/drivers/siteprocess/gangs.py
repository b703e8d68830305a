"""Gangs: the nodes of gangs over several sites, brought together by the site processes beside them.

::

    node --127.x.y.z:port--> this process --one link--> the other site's process --127.x.y.z:port--> node

For every node that stands elsewhere this process listens at that node's own address. To each other site of a gang it
keeps one link (`drivers.doors.link`): through that site's door, else through its own, else through the relay. What
comes over a link reaches the nodes that stand here at the ports that the task names, and nothing else.

Two sites on one machine share its loopback, where nodes meet without help. Each process says that it is there at a
socket that only this network name space has, and proves it with its site's key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tieline.drivers.http import HttpClient
from tieline.drivers.siteprocess.gang import Gang
from tieline.drivers.siteprocess.presence import Presence, is_here
from tieline.model.error import TielineError
from tieline.ports import Clock
from tieline.registry import Key
from tieline.site import Held
from tieline.site.meeting import address_of, checked_part

if TYPE_CHECKING:
    from tieline.drivers.doors.link import Stream

log = logging.getLogger("tieline.site")


class Gangs:
    """All gangs of a site. ``door_url`` gives the site's own door's address, ``address`` that of a node.

    ``inner`` are networks that the owner lists: doors of others are dialled there; ``is_local``: on this machine too.
    """

    def __init__(
        self,
        client: HttpClient,
        site: str,
        owner: str,
        key: Key,
        clock: Clock,
        door_url: Callable[[], str],
        inner: Sequence[str] = (),
        *,
        is_local: bool = False,
        address: Callable[[int, int], str] = address_of,
    ) -> None:
        self.client = client
        self.site = site
        self.key = key
        self.kid = f"{owner}#site"
        self.clock = clock
        self.door_url = door_url
        self.inner = tuple(inner)
        self.is_local = is_local
        self.address = address
        self.gangs: dict[tuple[str, int], Gang] = {}  # by job and epoch
        self._ending: list[Gang] = []  # whose nodes have ended; what they said last goes out
        self.presence = Presence(key, self.kid)

    # -- runs ---------------------------------------------------------------------------------------------------------

    def has(self, run: str) -> bool:
        """Whether anything is kept here of a run."""
        return run in self.presence or any(run in gang.runs for gang in self.gangs.values())

    def announce(self, held: Held) -> None:
        """Say on this machine that the run is here; before the exchange hears that it was accepted."""
        if held.offer.part is not None:
            self.presence.announce(held.run)

    async def open(self, held: Held) -> None:
        """Before its nodes start: listen for those elsewhere. Raises TielineError where an address cannot be had."""
        await self._open(held, is_adopted=False)

    async def adopt(self, held: Held) -> None:
        """Its nodes run already: listen again, at what can be had."""
        try:
            await self._open(held, is_adopted=True)
        except TielineError as error:
            log.warning("a gang does not meet", extra={"run": held.run, "why": error.message})

    async def _open(self, held: Held, *, is_adopted: bool) -> None:
        part = held.offer.part
        if part is None:
            return
        checked_part(part, self.site)
        self.announce(held)
        name = held.offer.job, held.offer.epoch
        gang = self.gangs.get(name)
        if gang is None:
            gang = self.gangs[name] = Gang(self, part)
        gang.runs[held.run] = held.sandbox
        try:
            await gang.open(is_adopted=is_adopted)
        except TielineError:
            await self.close_run(held.run)
            raise

    async def close_run(self, run: str) -> None:
        """The run is over here."""
        self.presence.leave(run)
        for name, gang in list(self.gangs.items()):
            if gang.runs.pop(run, None) is not None and not gang.runs:
                del self.gangs[name]
                self._ending.append(gang)
                try:
                    await gang.close()
                finally:
                    self._ending.remove(gang)

    async def close(self) -> None:
        """The process ends; nodes go on, and are met again by the next one."""
        await self.presence.close()
        gangs = [*self.gangs.values(), *self._ending]
        self.gangs.clear()
        await asyncio.gather(*(gang.close(0.0) for gang in gangs))

    # -- links from others: see `doors.door.Meets` --------------------------------------------------------------------

    def expect(self, run: str, holder: str) -> None:
        """Raises TielineError where ``run`` is no live member of a gang here to which the site ``holder`` belongs."""
        self._gang(run, holder)

    async def serve(self, run: str, holder: str, stream: Stream, key: bytes) -> None:
        """Carry connections over ``stream`` until either side has enough."""
        try:
            gang = self._gang(run, holder)
        except TielineError:  # it ended while the stream was opened
            await stream.close()
            return
        await gang.joined(holder, stream, key, is_caller=False)

    def _gang(self, run: str, holder: str) -> Gang:
        gang = next((each for each in self.gangs.values() if run in each.runs), None)
        if gang is None:
            raise TielineError("conflict", f"`{run}` does not run here now")
        if holder not in gang.others:
            raise TielineError("forbidden", f"`{holder}` has no part in the gang of `{run}`")
        return gang

    async def is_here(self, run: str, public: str) -> bool:
        """Whether the process of the site with that key, which has ``run``, is on this machine."""
        return await is_here(run, public)
