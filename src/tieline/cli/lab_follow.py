"""Following: bring a laboratory to what the exchange has booked, and tell the exchange what is seen there.

::

    exchange                                    laboratory
      circuits, transfers  ------ apply ------>   routers
      cut, restored        <----- light -------   ports
      receipts             <----- verify ------   probes, counters, a second of traffic

A receipt covers the time since the one before if that one was proven and the circuit stood on the same way ever since,
else the time of its own test. What a router refused is told as a receipt that proves nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from tieline.cli import words
from tieline.cli.paging import collected
from tieline.drivers.circuits.kernel.traffic import FRAME_BYTES, TCP_HEADERS_BYTES
from tieline.model.circuit import Circuit, CircuitOrder, CircuitState, Receipt, Route
from tieline.model.error import TielineError
from tieline.model.quantity import show_duration, show_rate
from tieline.model.topology import Line
from tieline.model.transfer import Transfer, TransferState
from tieline.network.lease import ENCAPSULATION_BYTES
from tieline.network.tariff import FULL_PERMILLE

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.drivers.lab.control import Laboratory
    from tieline.drivers.lab.wording import Seen, Stands
    from tieline.model.network_api import TopologyView
    from tieline.ports import Circuits

LIVE: Final = (CircuitState.ORDERED, CircuitState.UP, CircuitState.DEGRADED, CircuitState.DOWN)
MOVING: Final = (TransferState.BOOKED, TransferState.MOVING, TransferState.SHORT)
MOST: Final = 10_000  # circuits or transfers of one state that are followed
REREAD_S: Final = 10.0  # what is booked is read when it is said to be another, and so often in any case
IDLE_BPS: Final = 64_000  # held for the answers of a transfer, and for a way that waits; more where there is room
MOST_BPS: Final = 10**12  # what the port has
LEAD_MS: Final = 60_000
LATE_MS: Final = 5_000
PACKET_BYTES: Final = 1_400
EVERY_S: Final = 30.0  # between two proofs of a circuit that stands
AGAIN_S: Final = 3.0  # after a test that proved nothing, or less than the whole
PAUSE_S: Final = 0.2

replace = msgspec.structs.replace


class Follower:
    """One laboratory that follows one exchange."""

    def __init__(
        self, client: AsyncClient, laboratory: Laboratory, circuits: Circuits, say: Callable[[str], None]
    ) -> None:
        self.client = client
        self.laboratory = laboratory
        self.circuits = circuits
        self.say = say
        self._proven: dict[str, tuple[Receipt, tuple[str, ...]]] = {}  # newest receipt that proved, and on which links
        self._next_s: dict[str, float] = {}  # when a circuit is to be proven again
        self._refused: dict[str, Circuit] = {}  # not tried again until it is another
        self._booked: tuple[list[Circuit], list[Transfer]] = ([], [])
        self._booked_at: tuple[int, float] | None = None  # `changes` of the exchange, and when that was read

    async def follow(self) -> None:
        """Until cancelled. What may pass, such as an exchange that is started anew, is said and waited for."""
        while True:
            try:
                await self.once()
            except TielineError as error:
                if not error.transient:
                    raise
                self.say(error.message)
                await asyncio.sleep(AGAIN_S)
            await asyncio.sleep(PAUSE_S)

    async def once(self) -> None:
        """Light to the exchange, bookings to the routers, proofs to the exchange."""
        known = await self._told(await self.laboratory.show())
        await self._read(known.changes)
        wanted = self._wanted(known, time.time_ns() // 1_000_000)
        seen = await self.laboratory.show()
        standing = {each.circuit.id: each for each in seen.circuits}
        for name in standing:
            if name not in wanted:
                await self.circuits.withdraw(name)
                self.say(words.say("lab_withdrawn", circuit=name))
        for kept in (self._proven, self._next_s, self._refused):  # also of what never stood
            for name in [each for each in kept if each not in wanted]:
                del kept[name]
        # those that want less go first, so that others find the room
        for circuit in sorted(wanted.values(), key=lambda each: each.held_bps):
            await self._lay(circuit, standing.get(circuit.id), seen)
        for name, circuit in wanted.items():
            if "." not in name and time.monotonic() >= self._next_s.get(name, 0.0) and name not in self._refused:
                await self._prove(circuit)

    async def _told(self, seen: Seen) -> TopologyView:
        """The network as the exchange knows it, told which of its links have light."""
        known = await self.client.topology()
        names = {link.name for link in known.topology.links}
        lost = [
            each.name for each in seen.links if not each.is_up and each.name in names and each.name not in known.down
        ]
        back = [each.name for each in seen.links if each.is_up and each.name in known.down]
        if not lost and not back:
            return known
        await self.client.change_links(down=lost, up=back, why="seen at the ports")
        for key, found in (("lab_link_lost", lost), ("lab_link_back", back)):
            for name in found:
                self.say(words.say(key, link=name))
        return await self.client.topology()

    async def _read(self, changes: int) -> None:
        """What is booked, where anything is another than at the last look."""
        now_s = time.monotonic()
        if self._booked_at is not None and self._booked_at[0] == changes and now_s - self._booked_at[1] < REREAD_S:
            return
        self._booked_at = None
        circuits: list[Circuit] = []
        transfers: list[Transfer] = []
        for state in LIVE:

            async def some_circuits(before: str, count: int, state: str = state.value) -> tuple[Sequence[Circuit], str]:
                page = await self.client.circuits(state=state, before=before, limit=count)
                return page.circuits, page.next_before

            circuits += await collected(some_circuits, MOST)
        for moving in MOVING:

            async def some_transfers(
                before: str, count: int, state: str = moving.value
            ) -> tuple[Sequence[Transfer], str]:
                page = await self.client.transfers(state=state, before=before, limit=count)
                return page.transfers, page.next_before

            transfers += await collected(some_transfers, MOST)
        self._booked, self._booked_at = (circuits, transfers), (changes, now_s)

    def _wanted(self, known: TopologyView, now_ms: int) -> dict[str, Circuit]:
        """What should stand now: circuits in their windows, and the paths of transfers that are under way."""
        circuits, transfers = self._booked
        found: dict[str, Circuit] = {}
        for circuit in circuits:
            is_now = any(each.from_ms <= now_ms < each.until_ms for each in circuit.windows)
            if is_now and circuit.route is not None and circuit.order.line is Line.IP:
                found[circuit.id] = circuit
        ends = {link.name: (link.a, link.b) for link in known.topology.links}
        for transfer in transfers:
            found.update(ways_of(transfer, ends, now_ms))
        return found

    async def _lay(self, circuit: Circuit, held: Stands | None, seen: Seen) -> None:
        down = {each.name for each in seen.links if not each.is_up}
        assert circuit.route is not None
        is_there = (
            held is not None
            and _laid(held.circuit) == _laid(circuit)
            and (held.on == circuit.route.links or not down.isdisjoint(circuit.route.links))
        )
        if is_there or _laid(self._refused.get(circuit.id)) == _laid(circuit):
            return
        try:
            await self.circuits.apply((circuit,))
        except TielineError as error:
            if error.code == "timeout":  # nobody refused it
                raise
            self._refused[circuit.id] = circuit
            self.say(f"{circuit.id}: {error.message}")
            if "." not in circuit.id:
                now_ms = time.time_ns() // 1_000_000
                receipt = Receipt(subject=circuit.id, seq=circuit.seq + 1, begun_ms=now_ms, ended_ms=now_ms)
                await self.client.give_receipt(receipt)
            return
        self._refused.pop(circuit.id, None)
        self._next_s[circuit.id] = 0.0
        links = ", ".join(circuit.route.links)
        self.say(words.say("lab_laid", circuit=circuit.id, rate=show_rate(circuit.held_bps), links=links))

    async def _prove(self, circuit: Circuit) -> None:
        try:
            receipt = await self.circuits.verify(circuit, circuit.seq + 1)
        except TielineError as error:  # it stands on no way of its own, or nothing stands at its ends
            self.say(f"{circuit.id}: {error.message}")
            now_ms = time.time_ns() // 1_000_000
            receipt = Receipt(subject=circuit.id, seq=circuit.seq + 1, begun_ms=now_ms, ended_ms=now_ms)
        seen = await self.laboratory.show()
        before = self._proven.pop(circuit.id, None)
        if receipt.is_path_proven:
            if before is not None and before[1] == receipt.path and not _moved(seen, circuit.id, before[0].ended_ms):
                receipt = replace(receipt, begun_ms=before[0].ended_ms)
            self._proven[circuit.id] = (receipt, receipt.path)
        try:
            await self.client.give_receipt(receipt)
        except TielineError as error:  # it was moved or ended meanwhile: it is looked at again at once
            self._booked_at = None
            self.say(f"{circuit.id}: {error.message}")
            return
        is_well = receipt.is_path_proven and receipt.goodput_bps * 1_000 >= receipt.computed_bps * FULL_PERMILLE
        self._next_s[circuit.id] = time.monotonic() + (EVERY_S if is_well else AGAIN_S)
        self.say(
            words.say(
                "lab_receipt", circuit=circuit.id,
                path=words.say("lab_proven" if receipt.is_path_proven else "lab_unproven"),
                goodput=show_rate(receipt.goodput_bps), computed=show_rate(receipt.computed_bps),
                rtt=show_duration(receipt.min_rtt_us),
            )
        )  # fmt: skip


def _moved(seen: Seen, name: str, since_ms: int) -> bool:
    return any(each.subject == name and each.what.startswith("to ") and each.at_ms >= since_ms for each in seen.events)


def _laid(circuit: Circuit | None) -> object:
    """What routers know of a circuit."""
    if circuit is None:
        return None
    spare = circuit.spare.links if circuit.spare is not None else ()
    route = circuit.route.links if circuit.route is not None else ()
    return route, spare, circuit.held_bps, circuit.back_bps, circuit.order.mtu_bytes, circuit.order.most_bps


def ways_of(transfer: Transfer, ends: Mapping[str, tuple[str, str]], now_ms: int) -> dict[str, Circuit]:
    """The paths of a transfer, each as a one-way circuit `TRANSFER.N` that holds what is booked on it now.

    It lies there a while before the bytes come, so that its ends have addresses, and a moment longer for those that are
    late. It is sure of what is booked, and may have what others leave: whoever moves the bytes paces them. What is
    booked counts bytes, what is held counts frames with all headers.
    """
    found = {}
    for number, path in enumerate(dict.fromkeys(segment.path for segment in transfer.segments), 1):
        its = [each for each in transfer.segments if each.path == path]
        begin_ms, end_ms = min(each.from_ms for each in its), max(each.until_ms for each in its)
        if not begin_ms - LEAD_MS <= now_ms < end_ms + LATE_MS or any(link not in ends for link in path):
            continue
        nodes = [ends[path[0]][0 if its[0].is_forward[0] else 1]]
        nodes += [ends[link][1 if forth else 0] for link, forth in zip(path, its[0].is_forward, strict=True)]
        booked = sum(each.rate_bps for each in its if each.from_ms <= now_ms < each.until_ms)
        order = CircuitOrder(a=nodes[0], b=nodes[-1], rate_bps=wire_bps(booked) or IDLE_BPS, most_bps=MOST_BPS)
        route = Route(nodes=tuple(nodes), links=path, delay_us=0)
        name = f"{transfer.id}.{number}"
        found[name] = Circuit(id=name, order=order, user=transfer.user, route=route, back_bps=IDLE_BPS)
    return found


def wire_bps(rate_bps: int) -> int:
    """What frames take on a wire for bytes at ``rate_bps``: packets of 1,400 bytes, wrapped, with TCP inside."""
    return rate_bps * (PACKET_BYTES + ENCAPSULATION_BYTES + FRAME_BYTES) // (PACKET_BYTES - TCP_HEADERS_BYTES)
