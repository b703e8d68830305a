"""Keeper: the process that holds a laboratory. It builds it, carries its packets, lays circuits, and sees light go out.

::

    keeper ---- unix socket `control` in the laboratory's folder: a JSON line asked, a JSON line answered
      |  \\---- thread: netlink            |
      |   \\--- eyes: whether each port has light, looked at every 5 ms
      \\------- fibre: a process of its own, ends with the keeper

When a port loses its light, circuits leave their way for their spare one at once, and then the routes of all other
packets are reckoned anew. When the keeper ends, the kernel takes everything away.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from tieline.drivers.circuits.kernel.driver import KernelCircuits
from tieline.drivers.circuits.kernel.fabric import Port
from tieline.drivers.circuits.kernel.namespaces import inside, leave
from tieline.drivers.extras import bring
from tieline.drivers.lab.build import Laboratory, built
from tieline.drivers.lab.fibre import carry
from tieline.drivers.lab.wording import MOST_LINE_BYTES, SOCKET, Answer, Happened, LinkSeen, Question, Seen, Stands
from tieline.model.circuit import Circuit
from tieline.model.error import ErrorEnvelope, TielineError
from tieline.model.topology import Topology

MOST_EVENTS: Final = 1_000
MOST_CALLERS: Final = 32
LOOK_S: Final = 0.005
SIOCETHTOOL: Final = 0x8946
ETHTOOL_GLINK: Final = 0x0000_000A


class Eye:
    """Looks whether one port has light, by `ethtool`: its cable is ours, no bridge or modem lies between."""

    def __init__(self, laboratory: Laboratory, port: Port) -> None:
        with inside(laboratory.fabric.routers[port.node].network):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            name = socket.if_indextoname(port.index)
        self._asked = array.array("I", [ETHTOOL_GLINK, 0])
        self._request = struct.pack("16sP8x", name.encode(), self._asked.buffer_info()[0])

    def sees_light(self) -> bool:
        """Whether it has light now."""
        fcntl.ioctl(self._socket, SIOCETHTOOL, self._request)
        return bool(self._asked[1])

    def close(self) -> None:
        """Look no more."""
        self._socket.close()


class Keeper:
    """One laboratory and who may ask for what of it."""

    def __init__(self, laboratory: Laboratory, fibre: socket.socket) -> None:
        self.laboratory = laboratory
        self.fibre = fibre
        self.circuits = KernelCircuits(laboratory.fabric)
        self.dark: tuple[str, ...] = ()  # links on which a port has no light now
        self.down: tuple[str, ...] = ()  # those that all routes keep away from
        self.events: deque[Happened] = deque(maxlen=MOST_EVENTS)
        self.ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._fibre_lock = asyncio.Lock()
        self._verify_lock = asyncio.Lock()
        self._callers = 0
        self._verbs: dict[str, Callable[[dict[str, Any]], Awaitable[object]]] = {
            "show": self._show,
            "cut": self._cut,
            "restore": self._restore,
            "apply": self._apply,
            "verify": self._verify,
            "withdraw": self._withdraw,
            "counters": self._counters,
        }

    # -- what is asked --------------------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One caller: questions and answers until it goes."""
        self._callers += 1
        try:
            while self._callers <= MOST_CALLERS and (line := await reader.readline()):
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError):
            pass  # a line over the limit, or a caller that went away
        finally:
            self._callers -= 1
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            asked = msgspec.json.decode(line, type=Question)
            if asked.verb not in self._verbs:
                return Answer(
                    error=ErrorEnvelope(code="invalid_request", message=f"a laboratory knows no `{asked.verb}`")
                )
            return Answer(reply=await self._verbs[asked.verb](asked.given))
        except TielineError as error:
            return Answer(error=error.envelope)
        except (msgspec.DecodeError, msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
            return Answer(error=ErrorEnvelope(code="invalid_request", message=f"the question is malformed: {error}"))
        except OSError as error:
            return Answer(error=ErrorEnvelope(code="internal", message=f"the laboratory failed: {error}"))

    async def _show(self, _given: dict[str, Any]) -> Seen:
        fabric = self.laboratory.fabric
        ports = {(each.node, each.link): each for each in await self.circuits.counters()}
        links = tuple(
            LinkSeen(
                name=link.name, a=link.a, b=link.b, is_up=link.name not in self.down, delay_us=link.delay_us,
                capacity_bps=link.capacity_bps, sent_bytes=ports[link.a, link.name].sent_bytes,
                sent_back_bytes=ports[link.b, link.name].sent_bytes,
            )
            for link in fabric.topology.links
        )  # fmt: skip
        standing = tuple(
            Stands(circuit=each.circuit, on=each.on, ends=self._ends(each.number, each.circuit))
            for each in self.circuits.standing.values()
        )
        return Seen(
            topology=fabric.topology.name, links=links, circuits=standing, events=tuple(self.events),
            sites={site: fabric.behind[node].host.network for node, site in fabric.addressing.sites.items()},
            nodes={node: router.network for node, router in fabric.routers.items()},
            manager=self.laboratory.manager,
            fibre=self.laboratory.fibre,
        )  # fmt: skip

    def _ends(self, number: int, circuit: Circuit) -> tuple[str, ...]:
        from tieline.drivers.circuits.kernel.addressing import site_address

        assert circuit.route is not None
        numbers = self.laboratory.fabric.addressing.numbers
        return tuple(site_address(numbers[node], number) for node in (circuit.route.nodes[0], circuit.route.nodes[-1]))

    async def _cut(self, given: dict[str, Any]) -> None:
        await self._light("cut", str(given["link"]))

    async def _restore(self, given: dict[str, Any]) -> None:
        await self._light("light", str(given["link"]))

    async def _light(self, verb: str, link: str) -> None:
        if link not in self.laboratory.taps:
            raise TielineError("not_found", f"there is no link `{link}`", where=link)
        async with self._fibre_lock:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(self.fibre, f"{verb} {link}\n".encode())
            if not await loop.sock_recv(self.fibre, 64):
                raise TielineError("internal", "the process that carries the packets has ended")

    async def _apply(self, given: dict[str, Any]) -> object:
        circuits = msgspec.convert(given["circuits"], tuple[Circuit, ...])
        applied = await self.circuits.apply(circuits)
        self._note("applied", ", ".join(applied.circuits), applied.took_us)
        self._changed.set()  # a way that was laid over a link without light is left again
        return applied

    async def _verify(self, given: dict[str, Any]) -> object:
        held = self.circuits.standing.get(str(given["circuit"]))
        if held is None:
            raise TielineError("not_found", f"circuit `{given['circuit']}` does not stand here")
        seq = int(given["seq"])
        async with self._verify_lock:  # two tests at once would take from each other
            return await self.circuits.verify(held.circuit, seq)

    async def _withdraw(self, given: dict[str, Any]) -> None:
        await self.circuits.withdraw(str(given["circuit"]))
        self._note("withdrawn", str(given["circuit"]), 0)

    async def _counters(self, _given: dict[str, Any]) -> object:
        return await self.circuits.counters()

    # -- what happens ---------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Look at the light of every port, again and again: what a router tells of itself may be a second late."""
        eyes = [(port.link, Eye(self.laboratory, port)) for port in self.laboratory.fabric.ports.values()]
        try:
            while True:
                dark = tuple({link: None for link, eye in eyes if not eye.sees_light()})
                if dark != self.dark:
                    self.dark = dark
                    self._changed.set()
                await asyncio.sleep(LOOK_S)
        finally:
            for _, eye in eyes:
                eye.close()

    async def mend(self) -> None:
        """Whenever light changed: circuits to their spare ways, then the routes of everything else."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            begun = time.perf_counter_ns()
            down = self.dark
            moved = await self.circuits.run(lambda down=down: self.circuits.spare(down))  # type: ignore[misc]
            spared_us = (time.perf_counter_ns() - begun) // 1_000
            if down != self.down:
                lost = [name for name in down if name not in self.down]
                back = [name for name in self.down if name not in down]
                self.down = down
                await self.circuits.run(lambda down=down: self.laboratory.converge(down))  # type: ignore[misc]
                for what, names in (("lost", lost), ("restored", back)):
                    if names:
                        self._note(what, ", ".join(names), (time.perf_counter_ns() - begun) // 1_000)
            for name, where in moved.items():
                self._note(f"to {where}", name, spared_us)

    def _note(self, what: str, subject: str, took_us: int) -> None:
        self.events.append(Happened(at_ms=time.time_ns() // 1_000_000, what=what, subject=subject, took_us=took_us))


async def keep(laboratory: Laboratory, fibre: socket.socket) -> None:
    """Serve until somebody asks to end it, or a signal does."""
    fibre.setblocking(False)
    keeper = Keeper(laboratory, fibre)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, keeper.ended.set)
    working = asyncio.gather(keeper.watch(), keeper.mend())
    with suppress(FileNotFoundError):
        os.unlink(SOCKET)  # noqa: PTH108 - relative on purpose: the path may be longer than an address
    server = await asyncio.start_unix_server(keeper.serve, SOCKET, limit=MOST_LINE_BYTES)
    Path("ready").write_text(f"{os.getpid()}\n")  # noqa: ASYNC240 - a few bytes, once
    ending = asyncio.create_task(keeper.ended.wait())
    await asyncio.wait((ending, working), return_when=asyncio.FIRST_COMPLETED)
    working.cancel()
    server.close()
    with suppress(asyncio.CancelledError):
        await working
    keeper.circuits.close()


def _built(topology: Topology) -> Laboratory:
    """The laboratory. Raises TielineError `lab_refused` with what this machine does not have or allow."""
    try:
        from pyroute2.netlink.exceptions import NetlinkError
    except ImportError:
        raise TielineError("lab_refused", "pyroute2 is not installed", hints=(bring("circuits"),)) from None
    leave()
    try:
        return built(topology)
    except (NetlinkError, OSError) as error:
        raise TielineError("lab_refused", f"this kernel does not build it: {error}") from error


def main(folder: Path) -> None:
    """Build the laboratory of a folder and keep it. The folder holds `topology.json`."""
    os.umask(0o077)
    os.chdir(folder)
    lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # held until both processes have ended
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"another process keeps the laboratory in {folder}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a network of each node, two ports of each link
    here, there = socket.socketpair()  # before all others: `select` cannot name a descriptor over 1,023
    topology = msgspec.json.decode(Path("topology.json").read_bytes(), type=Topology)
    try:
        laboratory = _built(topology)
    except TielineError as error:
        Path("refused.json").write_bytes(msgspec.json.encode(error.envelope))
        sys.exit(1)
    child = os.fork()
    if child == 0:
        here.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        carry(laboratory.taps, there)
        os._exit(0)
    there.close()
    laboratory.let_go()
    try:
        asyncio.run(keep(laboratory, here))
    finally:
        here.close()
        os.waitpid(child, 0)
        laboratory.close()
