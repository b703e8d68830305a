"""Gang: one gang over several sites, as far as it concerns this one: listeners, links, and what may pass them."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import resource
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tieline.drivers.http import HttpClient
from tieline.drivers.http.backoff import Backoff
from tieline.drivers.siteprocess.caller import caller_user
from tieline.drivers.siteprocess.presence import is_marked
from tieline.model.door import Right
from tieline.model.error import TielineError
from tieline.model.passing import PassBody, PassView
from tieline.site.meeting import Listener, listeners, member_of, others, ports_of

if TYPE_CHECKING:
    from tieline.drivers.doors.link import Link, Stream
    from tieline.drivers.probes.addresses import Addresses
    from tieline.drivers.siteprocess.gangs import Gangs
    from tieline.model.protocol import Part

log = logging.getLogger("tieline.site")
CONNECTIONS = 512  # of one gang, that nodes here began
DESCRIPTORS = 16_384  # of a process with gangs: many systems begin at 1,024
WAIT_S = 30.0  # a connection waits so long for a link, and then for the node at the other end
TURN_S = 10.0  # whose turn it is not to dial waits so long
TRIES, RELAY_TRY = 4, 3  # of so many tries the last goes by the relay, where the others have a door to go by
LINKS = 4  # of one gang to one site: who was cut off and did not notice comes again
SPARE_MS = 60_000  # a pass that ends within this is asked for again
PASS_MS = 600_000
LOOK_S = 0.1
LINGER_S = 30.0  # nodes have ended, and what they said last goes out
TURNS = 8  # of the loop, in which connections that stand in a queue are accepted
NOBODY = 65_534  # whom a sandbox's processes are, where the site runs as root


class Gang:
    """One gang, as far as it concerns this site."""

    def __init__(self, site: Gangs, part: Part) -> None:
        self.site = site
        self.part = part
        self.others = others(part, site.site)
        self.runs: dict[str, str] = {}  # that live here, and how they are kept apart
        self.links: dict[str, list[Link]] = {other: [] for other in self.others}
        self.met: dict[str, asyncio.Event] = {other: asyncio.Event() for other in self.others}
        self.refused = 0
        self._passes: dict[str, tuple[str, PassView]] = {}  # and the run that each leads to
        self._parted: list[Link] = []  # of which something is still being given to nodes here
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._count = 0
        self._arriving = 0  # connections that are not carried yet
        self._opening = asyncio.Lock()
        self._is_open = False

    async def open(self, *, is_adopted: bool) -> None:
        """Listen, and begin to look for the others. Raises TielineError `conflict` where an address is taken."""
        async with self._opening:
            if self._is_open:
                return
            self._is_open = True
            make_room()
            apart = [other for other in self.others if not await self._is_here(other)]
            for each in listeners(self.part, self.site.site):
                if each.site in apart:
                    await self._listen(each, is_adopted=is_adopted)
            self._keepers = [asyncio.create_task(self._keep(other)) for other in apart]

    async def close(self, linger_s: float = LINGER_S) -> None:
        """Listen no more, let out what nodes that have ended said last, and end every connection."""
        for _ in range(TURNS if linger_s else 0):
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(linger_s):
                while self._arriving:  # noqa: ASYNC110 - at the end of a gang alone
                    await asyncio.sleep(LOOK_S)
        links = [link for links in self.links.values() for link in links]
        if linger_s:
            await asyncio.gather(*(link.settle(linger_s) for link in links))
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for link in links:
            await link.close()
        for link in [*links, *self._parted]:
            link.cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def alive(self, other: str) -> list[Link]:
        """The links to another site, the newest last."""
        return [link for link in self.links[other] if not link.is_over]

    def runs_at(self, other: str) -> list[str]:
        """The runs of the gang at another site; each stands for all that are there."""
        return [each.run for each in self.part.members if each.site == other]

    # -- connections of nodes here ------------------------------------------------------------------------------------

    async def _listen(self, each: Listener, *, is_adopted: bool) -> None:
        where = self.site.address(self.part.number, each.rank)

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._accepted(each, reader, writer)

        try:
            self._servers.append(await asyncio.start_server(accepted, where, each.port, backlog=CONNECTIONS))
        except OSError as error:
            said = f"node {each.rank} of `{each.site}` cannot be met at {where} port {each.port}: {error.strerror}"
            if not is_adopted:
                raise TielineError("conflict", said) from None
            log.warning("a node is not met", extra={"site": each.site, "why": said})

    async def _accepted(self, each: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from tieline.drivers.doors.link import cut

        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._count += 1
        try:
            link = await self._let_in(each, writer)
            if link is None:
                cut(writer)
            else:
                await link.carry(reader, writer, each.rank, each.port)
        finally:
            self._count -= 1
            self._tasks.discard(task)
            if not writer.transport.is_closing():
                cut(writer)

    async def _let_in(self, each: Listener, writer: asyncio.StreamWriter) -> Link | None:
        """What is to carry a connection; None: nothing is."""
        self._arriving += 1
        try:
            if self._count <= CONNECTIONS and await self._is_ours(writer):
                return await self._link(each.site)
        finally:
            self._arriving -= 1
        self.refused += 1
        return None

    async def _is_ours(self, writer: asyncio.StreamWriter) -> bool:
        """Whether the caller may be of this gang: of the users that its runs have here, as the kernel says."""
        if "container" in self.runs.values():
            return True  # an image's own users, as its runtime maps them
        ends = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        user = await asyncio.to_thread(caller_user, *ends)
        return user in (os.geteuid(), NOBODY, -1)

    async def _link(self, other: str) -> Link | None:
        """A link that lives; None where there is none in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while not (alive := self.alive(other)):
                    self.met[other].clear()
                    await self.met[other].wait()
                return alive[-1]
        return None

    # -- connections of nodes elsewhere -------------------------------------------------------------------------------

    async def connect(self, rank: int, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Reach a node that stands here, as soon as it listens. Raises OSError for what is not to be reached."""
        member = member_of(self.part, rank)
        if member is None or member.run not in self.runs or port not in ports_of(self.part, rank):
            self.refused += 1
            raise ConnectionRefusedError(f"port {port} of node {rank} is not for others")
        where = self.site.address(self.part.number, rank)
        until = asyncio.get_running_loop().time() + WAIT_S
        while True:
            try:
                return await asyncio.open_connection(where, port)
            except ConnectionRefusedError:
                if asyncio.get_running_loop().time() > until or member.run not in self.runs:
                    raise
            await asyncio.sleep(LOOK_S)

    # -- links --------------------------------------------------------------------------------------------------------

    async def joined(self, other: str, stream: Stream, key: bytes, *, is_caller: bool) -> None:
        """Use a stream to another site until it ends."""
        from tieline.drivers.doors.link import Link

        link = Link(stream, key, is_caller=is_caller, connect=self.connect)
        links = self.links[other]
        while len(links) >= LINKS:
            await links.pop(0).close()
        links.append(link)
        self.met[other].set()
        log.info("gang linked", extra={"run": next(iter(self.runs), ""), "site": other})
        try:
            await link.run()
        finally:
            if link in links:
                links.remove(link)
            self._parted = [each for each in (*self._parted, link) if each.channels]
            log.info("gang parted", extra={"site": other, "size_bytes": link.moved_bytes})

    async def _keep(self, other: str) -> None:
        """Keep a link to another site, whoever of the two can dial."""
        backoff, tries = Backoff(first_s=0.2, most_s=10.0), 0
        while True:
            alive = self.alive(other)
            if alive:
                backoff.reset()
                tries = 0
                await alive[-1].ended.wait()
                continue
            try:
                run, view = await self._pass(other, tries)
                if self._is_turn(other, view.url, tries):
                    await self._dial(other, run, view, by_relay=not view.url or tries % TRIES == RELAY_TRY)
                    continue
                await self._awaited(other)
            except (TielineError, OSError) as error:
                self._passes.pop(other, None)
                if isinstance(error, TielineError) and error.code == "address_refused":
                    tries += (RELAY_TRY - 1 - tries) % TRIES
                if not tries & (tries + 1):
                    log.warning("a gang waits for a site", extra={"site": other, "why": str(error)})
            if not self.alive(other):
                tries += 1
                await asyncio.sleep(backoff.next_s())

    def _is_turn(self, other: str, url: str, tries: int) -> bool:
        """Whether to dial, or to wait for the other: a door is used from whichever side it can be, by one of both."""
        if tries:
            return True
        is_first = self.part.members[self.part.member].rank < next(
            each.rank for each in self.part.members if each.site == other
        )
        mine, its = bool(self.site.door_url()), bool(url)
        return is_first if mine == its else its

    async def _awaited(self, other: str) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_S):
                self.met[other].clear()
                if not self.alive(other):
                    await self.met[other].wait()

    async def _dial(self, other: str, run: str, view: PassView, *, by_relay: bool) -> None:
        from tieline.drivers.doors.through import relayed_door
        from tieline.drivers.doors.visitor import Visitor
        from tieline.drivers.probes.addresses import Addresses, CheckedClient

        site = self.site
        async with contextlib.AsyncExitStack() as stack:
            client: HttpClient
            if by_relay:
                client = await stack.enter_async_context(relayed_door(site.client, other, view.door_pass))
            else:
                addresses = Addresses(site.inner, is_local=site.is_local)
                check_literal(view.url, addresses)
                client = CheckedClient(view.url, addresses)
            visitor = Visitor(view.url, view.door_pass, view.public, site.key, site.kid, site.clock, client)
            stack.push_async_callback(visitor.close)
            stream, key = await stack.enter_async_context(visitor.linked(run))
            await self.joined(other, stream, key, is_caller=True)

    async def _pass(self, other: str, tries: int = 0) -> tuple[str, PassView]:
        """A run at another site and a pass to it, asked for again before it ends; one of several may be over."""
        run, view = self._passes.get(other, ("", None))
        if view is None or view.until_ms - self.site.clock.now_ms() < SPARE_MS:
            runs = self.runs_at(other)
            run = runs[tries % len(runs)]
            path = f"/v1/sites/{other.replace('/', '~')}/passes"
            body = PassBody(public=self.site.key.public, rights=(Right.PORT,), run=run, ttl_ms=PASS_MS, most_bytes=0)
            view = await self.site.client.call("POST", path, PassView, body=body, key=None)
            self._passes[other] = run, view
        return run, view

    async def _is_here(self, other: str) -> bool:
        """Whether another site is on this machine; nobody is asked where nobody says so."""
        marked = [run for run in self.runs_at(other) if is_marked(run)]
        if not marked:
            return False
        try:
            _, view = await self._pass(other)
        except TielineError as error:
            log.warning("a gang waits for a site", extra={"site": other, "why": error.message})
            return False
        return await self.site.is_here(marked[0], view.public)


def make_room() -> None:
    """Let this process have as many descriptors as gangs may take, where the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check_literal(url: str, addresses: Addresses) -> None:
    """Look at an address that a URL states; names are looked at when they are resolved. Raises `address_refused`."""
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        addresses.check(host, ipaddress.ip_address(host.partition("%")[0]))
