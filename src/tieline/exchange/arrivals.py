"""Arrivals: how long bytes take as placing counts it: by what is booked where a topology is known, else by readings."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from tieline.exchange.measured import Measured
from tieline.exchange.network import Network
from tieline.exchange.readings import Readings
from tieline.model.evidence import Evidence
from tieline.model.transfer import TransferOrder
from tieline.ports import Distances, Transit

if TYPE_CHECKING:
    from tieline.network.arrival import Arrival, Ends
    from tieline.network.calendar import Calendar

MOST_KNOWN = 10_000  # answers of one moment that are kept
RANKS = tuple(Evidence)  # the strongest first


class WideArea(Measured):
    """`ports.Distances` over the calendar; for sites that the topology does not have, over readings."""

    def __init__(self, network: Network, readings: Readings, declared: Distances | None = None) -> None:
        super().__init__(network, readings, declared)
        self._ends: tuple[int, Ends] | None = None  # with the version that they are of
        self._known: dict[tuple[str, str, int, int], Transit | None] = {}
        self._known_at = (-1, -1)
        self._evidence: tuple[int, dict[str, Evidence]] | None = None  # of links, with the version that they are of

    def most_bps(self, source: str, target: str) -> int | None:
        """What the links at both ends carry in all, where they are known."""
        ends = self._ends_now()
        found = ends.most_bps(source, target) if ends is not None else None
        return super().most_bps(source, target) if found is None else found

    def transit(self, source: str, target: str, size_bytes: int, now_ms: int, due_ms: int = 0) -> Transit | None:
        """By the calendar as it is booked now. None: no way, or no room in all of it."""
        ends = self._ends_now()
        if ends is None or ends.most_bps(source, target) is None:
            return super().transit(source, target, size_bytes, now_ms, due_ms)
        at = (self.network.changes, now_ms)
        if self._known_at != at or len(self._known) >= MOST_KNOWN:
            self._known_at = at
            self._known.clear()
        key = (source, target, size_bytes, due_ms)
        if key not in self._known:
            self._known[key] = self._asked(source, target, size_bytes, now_ms, due_ms)
        return self._known[key]

    def _asked(self, source: str, target: str, size_bytes: int, now_ms: int, due_ms: int) -> Transit | None:
        from tieline.network.arrival import arrival

        calendar = self.network.calendar_at(now_ms)
        assert calendar is not None
        found = arrival(calendar, source, target, size_bytes, now_ms=now_ms)
        if found is None:
            return None
        order = TransferOrder(source=source, target=target, size_bytes=size_bytes, deadline_ms=due_ms)
        time_us = max(0, found.arrives_ms - now_ms) * 1_000
        largest = max(found.segments, key=lambda segment: segment.size_bytes, default=None)
        return Transit(
            time_us,
            price_micro_cny=price_of(self.network, calendar, order, found),
            rate_bps=size_bytes * 8_000_000 // time_us if time_us else 0,
            links=largest.path if largest is not None else (),
            evidence=self._weakest({link for segment in found.segments for link in segment.path}),
        )

    def _weakest(self, links: AbstractSet[str]) -> Evidence:
        """What the capacities of these links rest on at least."""
        assert self.network.topology is not None
        if self._evidence is None or self._evidence[0] != self.network.version:
            kept = {link.name: link.evidence for link in self.network.topology.links}
            self._evidence = self.network.version, kept
        of = self._evidence[1]
        return max(
            (of.get(name, Evidence.DECLARED) for name in sorted(links)), key=RANKS.index, default=Evidence.DECLARED
        )

    def _ends_now(self) -> Ends | None:
        """The ends of the topology as it stands; None where there is none."""
        network = self.network
        if network.topology is None:
            return None
        if self._ends is None or self._ends[0] != network.version:
            from tieline.network.arrival import ends_of
            from tieline.network.slots import wires_of

            standing = network.standing()
            assert standing is not None
            self._ends = network.version, ends_of(wires_of(standing))
        return self._ends[1]


def price_of(network: Network, calendar: Calendar, order: TransferOrder, found: Arrival) -> int:
    """What the tariff asks for a transfer on these segments."""
    from tieline.network.tariff import transfer_price

    return transfer_price(network.tariff, calendar.wires, order, found.segments)
