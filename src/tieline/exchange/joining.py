"""Joining: which sites can be in one gang, by the calendar where a topology has them, else by readings.

A rate is booked, so only a topology can give one. A round trip is that of the quickest path that carries the rate where
the topology has both ends, else the measured one; of two that nobody measured it is unknown, and they are not joined.
Who asks for neither is joined with everybody. A site behind another exchange takes no part, nor one whose process does
not know yet that a member waits for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from tieline.exchange.view import View
from tieline.model.circuit import CircuitOrder
from tieline.model.door import door_url
from tieline.model.protocol import PROTOCOL_GANGS
from tieline.model.task import Span
from tieline.place.coded import Flags, Numbers

if TYPE_CHECKING:
    from tieline.network.joint import Joined, Joint

FEW: Final = 64  # sites of which every two are asked for, known to be measured or not
MOST: Final = 2**62
MOST_JOINTS: Final = 8  # that are kept


class Joining:
    """`place.gangs.Between` over a view, from now until ``until_ms`` (0: for ever).

    ``is_idle``: over what there would be if nothing were booked and nothing cut. ``mtu_bytes``: of the links that
    count; None: as a span asks.
    """

    def __init__(
        self, view: View, now_ms: int, until_ms: int = 0, *, is_idle: bool = False, mtu_bytes: int | None = None
    ) -> None:
        self._view, self._now_ms, self._until_ms, self._is_idle = view, now_ms, until_ms, is_idle
        self._mtu_bytes = mtu_bytes
        self._joints: dict[bool, Joint | None] = {}

    def takes_part(self, sites: Sequence[str]) -> Flags:
        """As `Between`."""
        return np.fromiter(map(self._may, sites), np.bool_, len(sites))

    def meeting(self, sites: Sequence[str]) -> Flags:
        """As `Between`: two sites meet where one of them lets the other in, by its door or by the relay."""
        if self._is_idle:  # an owner may open a door at any time
            return np.ones((len(sites), len(sites)), np.bool_)
        lets_in = np.fromiter((self._has_door(site) or self._is_relayed(site) for site in sites), np.bool_, len(sites))
        found: Flags = lets_in[:, None] | lets_in[None, :]
        return found

    def allowed(self, sites: Sequence[str], span: Span) -> Flags:
        """As `Between`."""
        joint = self.joint(span)
        if not span.rate_bps and not span.rtt_us:
            return np.ones((len(sites), len(sites)), np.bool_)
        found: Flags = np.zeros((len(sites), len(sites)), np.bool_)
        if joint is not None:
            found = joint.allowed(sites, span.rate_bps, span.rtt_us)
        if not span.rate_bps:
            self._measured(sites, span.rtt_us, found)
        return found

    def most_joined(self, sites: Sequence[str], span: Span) -> Numbers:
        """As `Between`."""
        joint = self.joint(span)
        return np.full(len(sites), MOST, np.int64) if joint is None else joint.most_joined(sites, span.rate_bps)

    def first(self, site: str) -> Joined:
        """As `Between`."""
        from tieline.network.joint import Joined

        joint = next((each for each in self._joints.values() if each is not None), None)
        return Joined((site,), np.zeros(0, np.int64), {}) if joint is None else joint.first(site)

    def extended(self, held: Joined, site: str, span: Span) -> Joined | None:
        """As `Between`."""
        joint = self.joint(span)
        return None if joint is None else joint.extended(held, site, span.rate_bps, span.rtt_us)

    def joint(self, span: Span) -> Joint | None:
        """What links have free for such a span; None where no topology is known."""
        is_booked = span.rate_bps > 0
        if is_booked not in self._joints:
            self._joints[is_booked] = self._made(span)
        return self._joints[is_booked]

    def rtt_us(self, one: str, other: str, span: Span) -> int | None:
        """The round trip of two sites: of their path, or as it was measured; None: unknown."""
        joint = self.joint(span)
        if joint is not None and joint.knows(one) and joint.knows(other):
            return joint.rtt_us(one, other, span.rate_bps)
        return self._view.distances.rtt_us(one, other)

    def meets(self, one: str, other: str) -> str:
        """How nodes of two sites reach each other."""
        return "door" if self._has_door(one) or self._has_door(other) else "relay"

    def _has_door(self, site: str) -> bool:
        spec = self._view.supply.site_specs.get(site)
        return spec is not None and bool(door_url(spec.door))

    def _is_relayed(self, site: str) -> bool:
        spec = self._view.supply.site_specs.get(site)
        return bool(self._view.limits.relay_streams) and spec is not None and spec.relay

    def _made(self, span: Span) -> Joint | None:
        """The same question of the same calendar has the same joint, whoever asks."""
        network = self._view.network
        mtu_bytes = mtu_of(span) if self._mtu_bytes is None else self._mtu_bytes
        if network.topology is None:
            return None
        from tieline.network.joint import MOST_ROUTES, idle
        from tieline.network.joint import joint as joint_of

        calendar = None if self._is_idle else network.calendar_at(self._now_ms)
        key: tuple[int, ...] = (network.version, mtu_bytes)
        if calendar is not None:
            key = (network.changes, calendar.grid.first, -(-self._until_ms // calendar.grid.slot_ms), mtu_bytes)
        joint = network.joints.get(key)
        if joint is None:
            if len(network.joints) >= MOST_JOINTS:
                network.joints.clear()
            joint = network.joints[key] = (
                idle(network.topology, mtu_bytes=mtu_bytes)
                if calendar is None
                else joint_of(calendar, self._now_ms, self._until_ms, mtu_bytes=mtu_bytes)
            )
        joint.routes = MOST_ROUTES
        return joint

    def _may(self, name: str) -> bool:
        site = self._view.sites.get(name)
        if site is None or site.has_left or self._view.way_to(name):
            return False
        return site.protocol >= PROTOCOL_GANGS or (self._is_idle and not site.protocol)

    def _measured(self, sites: Sequence[str], most_us: int, found: Flags) -> None:
        """Join those of which the topology does not have both, and of which the round trip is known."""
        at = {name: number for number, name in enumerate(sites)}
        joint = self._joints.get(False)
        has = np.array([joint is not None and joint.knows(name) for name in sites], np.bool_)
        if self._is_idle:  # a reading may come
            found |= ~(has[:, None] & has[None, :])
            return
        for one, number in at.items():
            others = [at[each.target] for each in self._view.readings.of(one) if each.target in at]
            for other in others if len(sites) > FEW else range(number):
                if has[number] and has[other]:
                    continue
                rtt_us = self._view.distances.rtt_us(one, sites[other])
                if rtt_us is not None and rtt_us <= most_us:
                    found[number, other] = found[other, number] = True


def mtu_of(span: Span) -> int:
    """What every link of a circuit of a span has to carry unfragmented; 0 where none is booked."""
    if not span.rate_bps:
        return 0
    from tieline.network.lease import needed_mtu

    return needed_mtu(CircuitOrder(a="", b="", rate_bps=span.rate_bps))
