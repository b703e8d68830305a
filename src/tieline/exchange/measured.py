"""Measured: what is known of the way between two points from readings; else unknown, or as it was declared.

A *point* is a site's identifier, a reference point, or a node of the topology at which a site's traffic begins.
``rtt_us`` and ``read_bps`` answer from readings alone, and ``may_read`` from what sites are told to measure: reference
points with an address, and doors. ``rate_bps`` is what bytes are planned by: where nobody measured
it, the rate that was declared for all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping

from tieline.exchange.network import Network
from tieline.exchange.readings import Readings
from tieline.model.door import door_url
from tieline.model.evidence import Evidence
from tieline.model.spec import SiteSpec
from tieline.ports import ConstantDistances, Distances


class Measured(Distances):
    """`ports.Distances` over what a view holds."""

    def __init__(self, network: Network, readings: Readings, declared: Distances | None = None) -> None:
        self.network = network
        self.readings = readings
        self.declared = declared or ConstantDistances()
        self.specs: Mapping[str, SiteSpec] = {}  # of all sites that have a record here

    def rtt_us(self, source: str, target: str) -> int | None:
        """The measured round trip; None: unknown."""
        found = self.readings.rtt_us(self._end(source), self._end(target))
        return found if found is not None else self.declared.rtt_us(source, target)

    def read_bps(self, source: str, target: str) -> int | None:
        """The measured rate; None: unknown."""
        return self.readings.rate_bps(self._end(source), self._end(target))

    def may_read(self, function: str, point: str, site: str) -> bool:
        """Whether sites are told to measure this way: to a reference point's address, or to the door of either end."""
        end = self._end(point)
        named = self.network.points.get(end)
        if named is not None:
            return function == "rtt" and bool(named.address)
        one, other = self.specs.get(end), self.specs.get(site)
        if one is None or other is None or end == site:
            return False
        return bool(door_url(one.door) or door_url(other.door))

    def rate_bps(self, source: str, target: str) -> int | None:
        """The measured rate, else the declared one; None: no limit, or unknown."""
        found = self.read_bps(source, target)
        return found if found is not None else self.declared.rate_bps(source, target)

    def rate_evidence(self, source: str, target: str) -> Evidence:
        """What the rate rests on: on emulation as soon as a laboratory has a part in what is held."""
        if self.read_bps(source, target) is None:
            return self.declared.rate_evidence(source, target)
        return Evidence.EMULATED if self.readings.is_emulated else Evidence.MEASURED

    def _end(self, point: str) -> str:
        """What readings call a point."""
        return point if point in self.network.points else self.network.site_of.get(point, point)
