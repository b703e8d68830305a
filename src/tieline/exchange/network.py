"""Network: what the exchange knows of the wide area, and what is booked of it. A part of the view.

`topology`, `tariff`, links that are down, and live transfers and circuits are durable; the calendar follows from them
and is made when something asks for it (it brings scipy along). Changed by events and by nothing else, but for
`calendar_at`, which lets time pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tieline.model import event as fact
from tieline.model.circuit import CIRCUIT_ENDED, Circuit, CircuitState
from tieline.model.evidence import Evidence
from tieline.model.reading import Point
from tieline.model.tariff import Tariff
from tieline.model.topology import Topology
from tieline.model.transfer import TRANSFER_ENDED, Transfer, TransferState

if TYPE_CHECKING:
    from tieline.network.calendar import Calendar
    from tieline.network.joint import Joint

replace = msgspec.structs.replace
BACK_MS: Final = 86_400_000  # a clock that goes back by more was wrong before

NetworkEvent = (
    fact.TopologyChanged
    | fact.TariffChanged
    | fact.LinksChanged
    | fact.PointsChanged
    | fact.TransferChanged
    | fact.CircuitChanged
    | fact.ReceiptStored
)
Change = tuple[str, str, Any]  # table, key, value


def is_its_own(booked: Transfer | Circuit) -> bool:
    """Whether the exchange booked it by itself, for a run or a gang: these are bounded by what runs."""
    return bool(booked.run) if isinstance(booked, Transfer) else bool(booked.job)


class Network:
    """State of the wide area of one exchange."""

    def __init__(self) -> None:
        self.topology: Topology | None = None
        self.site_of: dict[str, str] = {}  # node -> the site whose traffic begins and ends there
        self.tariff = Tariff()
        self.down: dict[str, None] = {}  # names of links that are cut now, in the order in which they were
        self.points: dict[str, Point] = {}  # reference points, by name
        self.transfers: dict[str, Transfer] = {}
        self.circuits: dict[str, Circuit] = {}
        self.version = 0  # of the topology and of what is down
        self.changes = 0  # of anything that says how long bytes take
        self.brings: dict[str, dict[str, None]] = {}  # job -> live transfers that bring data to it
        self.joins: dict[str, dict[str, None]] = {}  # job -> live circuits between the sites of its gang
        self.due_ms = 0  # before then no booking changes by time alone; 0: look
        self.grants = 0  # of what circuits may have more room by
        self.tried: dict[str, None] = {}  # who lacks something, and was looked at since then
        self.tried_at = -1  # `grants` when that began
        self.is_tried = False  # whether all of them were
        self.topping: list[str] = []  # transfers that are still to look for more room in this round
        self.top_ms = 0  # when the next round begins; 0: at once
        self.waiting: frozenset[str] = frozenset()  # bookings that wait to be mended
        self.bookings_of: Counter[str] = Counter()  # live ones of each user
        self.project_bookings: Counter[str] = Counter()
        self._standing: tuple[int, Topology] | None = None  # with the version that it is of
        self._calendar: Calendar | None = None
        self.held: list[Transfer] = []  # bookings of a pass that goes on
        self.held_circuits: list[Circuit] = []
        self.is_mend_awaited = False  # a job waits for what is booked to be mended
        self.room_ms = 0  # when a gang that lacks a rate is looked at again; 0: by changes alone
        self._room_key: tuple[int, ...] = ()  # of what that was found
        self.joints: dict[tuple[int, ...], Joint] = {}  # what is free for gangs, of the newest changes

    def may_help(self, event: NetworkEvent) -> bool:
        """Whether bytes that found no room may find some once this took effect."""
        match event:
            case fact.TopologyChanged():
                return True
            case fact.LinksChanged():
                return bool(event.up)
            case fact.TransferChanged(transfer=transfer):
                return transfer.state in TRANSFER_ENDED and transfer.id in self.transfers
            case fact.CircuitChanged(circuit=circuit):
                return circuit.state in CIRCUIT_ENDED and circuit.id in self.circuits
            case _:
                return False

    def apply(self, event: NetworkEvent) -> tuple[Change, ...]:
        """Let one fact take effect; answers with the rows that changed."""
        match event:
            case fact.TopologyChanged(topology=topology):
                self.put_topology(topology)
                return (("network", "topology", topology), ("network", "down", tuple(self.down)))
            case fact.TariffChanged(tariff=tariff):
                self.tariff = tariff
                return (("network", "tariff", tariff),)
            case fact.LinksChanged():
                self.put_links(event.down, event.up)
                return (("network", "down", tuple(self.down)),)
            case fact.PointsChanged():
                self.put_points(event.put, event.removed)
                return (("network", "points", tuple(self.points.values())),)
            case fact.TransferChanged(transfer=transfer):
                self.put_transfer(transfer)
                return (("transfer", transfer.id, transfer),)
            case fact.CircuitChanged(circuit=circuit):
                self.put_circuit(circuit)
                return (("circuit", circuit.id, circuit),)
            case fact.ReceiptStored(receipt=receipt, usage=usage):
                number = f"{receipt.seq}{'d' if receipt.evidence is Evidence.DECLARED else ''}"
                kept = ("receipt", f"{receipt.subject} {number}", receipt)
                return (kept,) if usage is None else (kept, ("usage", usage.run, usage))

    def standing(self) -> Topology | None:
        """The topology as it carries now: links that are down have no capacity."""
        if self.topology is None or not self.down:
            return self.topology
        if self._standing is not None and self._standing[0] == self.version:
            return self._standing[1]
        links = tuple(
            replace(link, capacity_bps=0, capacity_back_bps=0) if link.name in self.down else link
            for link in self.topology.links
        )
        self._standing = self.version, replace(self.topology, links=links)
        return self._standing[1]

    def calendar_at(self, now_ms: int) -> Calendar | None:
        """The calendar with everything that is booked, rolled to ``now_ms``; None while no topology is known."""
        topology = self.standing()
        if topology is None:
            return None
        if self._calendar is not None and now_ms + BACK_MS < self._calendar.grid.begin_ms:
            self._calendar = None  # the clock was far ahead for a time: what is booked is laid out by this one
        if self._calendar is None:
            from tieline.network.calendar import Calendar

            self._calendar = Calendar(topology, now_ms, slot_ms=topology.slot_s * 1_000)
            for transfer in (*self.transfers.values(), *self.held):
                self._calendar.put_transfer(transfer)
            for circuit in (*self.circuits.values(), *self.held_circuits):
                self._calendar.put_circuit(circuit)
            self.note_waiting()
        self._calendar.roll(now_ms)
        return self._calendar

    def put_topology(self, topology: Topology) -> None:
        """Take a topology; links that it does not have are forgotten."""
        if self.topology is not None and self.topology.slot_s != topology.slot_s:
            self._calendar = None  # nothing is booked now: made anew when it is asked for, by the other slots
        self.topology = topology
        self.site_of = {node.name: node.site for node in topology.nodes if node.site}
        names = {link.name for link in topology.links}
        self.down = {name: None for name in self.down if name in names}
        self._rewired()

    def put_links(self, down: tuple[str, ...], up: tuple[str, ...]) -> None:
        """Note what was cut and what carries again."""
        self.down |= dict.fromkeys(down)
        for name in up:
            self.down.pop(name, None)
        self._rewired()

    def put_points(self, put: Iterable[Point], removed: Iterable[str] = ()) -> None:
        """Keep reference points, and let others go."""
        self.points |= {point.name: point for point in put}
        for name in removed:
            self.points.pop(name, None)

    def put_transfer(self, transfer: Transfer) -> None:
        """Keep a live transfer; an ended one leaves."""
        self.due_ms = 0
        self.changes += 1
        job = transfer.order.job
        if transfer.state in TRANSFER_ENDED:
            self._count(None, self.transfers.pop(transfer.id, None))
            self.top_ms = 0
            if job in self.brings:
                self.brings[job].pop(transfer.id, None)
                if not self.brings[job]:
                    del self.brings[job]
        else:
            self._count(transfer, self.transfers.get(transfer.id))
            self.transfers[transfer.id] = transfer
            if job:
                self.brings.setdefault(job, {})[transfer.id] = None
        if self._calendar is not None:
            self._calendar.put_transfer(transfer)
            self._looked_at(transfer.id)

    def put_circuit(self, circuit: Circuit) -> None:
        """Keep a live circuit; an ended one leaves."""
        self.changes += 1
        self.due_ms = 0
        if circuit.state in CIRCUIT_ENDED:
            self.top_ms = 0
            gone = self.circuits.pop(circuit.id, None)
            self._count(None, gone)
            self.grants += gone is not None
            if circuit.job in self.joins:
                self.joins[circuit.job].pop(circuit.id, None)
                if not self.joins[circuit.job]:
                    del self.joins[circuit.job]
        else:
            before = self.circuits.get(circuit.id)
            is_down = circuit.route is None
            self.grants += before is not None and (
                before.held_bps > circuit.held_bps or (is_down and before.route is not None)
            )
            self._count(circuit, before)
            self.circuits[circuit.id] = circuit
            if circuit.job:
                self.joins.setdefault(circuit.job, {})[circuit.id] = None
        if self._calendar is not None:
            self._calendar.put_circuit(circuit)
            self._looked_at(circuit.id)

    def hold(self, transfer: Transfer) -> None:
        """Count on a booking in the calendar that no event made yet, while a pass goes on; `give_back` ends it."""
        if self._calendar is not None:
            self.changes += 1
            self.held.append(transfer)
            self._calendar.put_transfer(transfer)

    def await_room(self, now_ms: int) -> None:
        """Somebody waits for a rate: note when time alone gives back some of what is booked or maintained."""
        calendar = self.calendar_at(now_ms)
        key = (self.changes, calendar.grid.first) if calendar is not None else ()
        if calendar is not None and key != self._room_key:
            from tieline.network.joint import more_ms

            self.room_ms, self._room_key = more_ms(calendar), key

    def has_room_again(self, now_ms: int) -> bool:
        """Whether that time has come; said once."""
        if not 0 < self.room_ms <= now_ms:
            return False
        self.room_ms = 0
        return True

    def is_mended(self, now_ms: int) -> bool:
        """Whether somebody waits for what is booked to be mended, and it is now; said once."""
        if not self.is_mend_awaited:
            return False
        calendar = self.calendar_at(now_ms)
        self.is_mend_awaited = calendar is not None and calendar.waiting().total > 0
        return not self.is_mend_awaited

    def hold_circuit(self, circuit: Circuit) -> None:
        """The same of a circuit."""
        if self._calendar is not None:
            self.changes += 1
            self.held_circuits.append(circuit)
            self._calendar.put_circuit(circuit)

    def give_back(self) -> None:
        """End what holding began; the events of the pass book it for good."""
        while self.held_circuits:
            self.changes += 1
            circuit = self.held_circuits.pop()
            if self._calendar is not None:
                self._calendar.put_circuit(replace(circuit, state=CircuitState.CANCELLED))
        while self.held:
            self.changes += 1
            transfer = self.held.pop()
            if self._calendar is not None:
                self._calendar.put_transfer(replace(transfer, state=TransferState.CANCELLED))

    def _rewired(self) -> None:
        self.version += 1
        self.grants += 1
        self.changes += 1
        self.due_ms = self.top_ms = 0
        topology = self.standing()
        if self._calendar is not None and topology is not None:
            self._calendar.rewire(topology)
            self.note_waiting()

    def note_waiting(self) -> None:
        """Keep who waits to be mended as of now, for those who show it."""
        if self._calendar is not None:
            self.waiting = frozenset(name for names in self._calendar.waiting() for name in names)

    def _looked_at(self, name: str) -> None:
        if name in self.waiting:
            self.waiting -= {name}

    def _count(self, booked: Transfer | Circuit | None, before: Transfer | Circuit | None) -> None:
        """Count live bookings of users and projects; what the exchange books for a run or a gang is not theirs."""
        for each, step in ((before, -1), (booked, 1)):
            if each is not None and not is_its_own(each):
                for counter, name in ((self.bookings_of, each.user), (self.project_bookings, each.project)):
                    counter[name] += step
                    if not counter[name]:
                        del counter[name]
