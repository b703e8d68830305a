"""Router: one Linux kernel network as a router, by netlink. Every change can be done twice, and has its opposite.

Calls are synchronous and belong into threads without an event loop (pyroute2 brings its own). What was found out
about kernels: segments are given to pyroute2 last first, a local segment must not hang on ``lo``, and a policy pins no
port: what goes out of which port is said by the route to the segment, made here by `steer`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, Final

from tieline.drivers.circuits.kernel.namespaces import inside

if TYPE_CHECKING:
    from pyroute2 import IPRoute

INET: Final = 2
INET6: Final = 10
IPV6_FRAMES: Final = 0x86DD
NODAD: Final = 2  # an address is used at once, without asking whether it is unique
GONE: Final = (2, 3, 19)  # ENOENT, ESRCH, ENODEV: what should go is not there
MAIN: Final = 254
ROOT: Final = 0x1_0000  # handle of a port's queue
WHOLE: Final = 1  # class of all that the port carries
REST: Final = 0xFFFF  # class of what belongs to no circuit
POLICY_METRIC: Final = 512
IGP_METRIC: Final = 1_024
TICK_BYTES: Final = 3_200  # a burst of at least two full frames


class Router:
    """A network that is held open by a descriptor. ``name`` is the node."""

    def __init__(self, name: str, network: int) -> None:
        self.name = name
        self.network = network
        self._mine = threading.local()

    @property
    def netlink(self) -> IPRoute:
        """The socket of this thread: pyroute2 opens one for each, in the network in which the thread stands."""
        made: IPRoute | None = getattr(self._mine, "netlink", None)
        if made is None:
            from pyroute2 import IPRoute

            with inside(self.network):
                made = self._mine.netlink = IPRoute()
        return made

    def close(self) -> None:
        """Let the socket of this thread go; the network stays."""
        made = getattr(self._mine, "netlink", None)
        if made is not None:
            made.close()
            del self._mine.netlink

    # -- ports ----------------------------------------------------------------------------------------------------

    def set_up(self, name: str, mtu_bytes: int) -> int:
        """Switch a port on; gives its index."""
        index = int(self.netlink.link_lookup(ifname=name)[0])
        self.netlink.link("set", index=index, state="up", mtu=mtu_bytes)
        return index

    def join(self, name: str, other: Router, other_name: str, mtu_bytes: int) -> tuple[int, int]:
        """A cable without delay to another network; gives the indices of both ports."""
        self.netlink.link("add", ifname=name, kind="veth", peer={"ifname": other_name, "net_ns_fd": other.network})
        return self.set_up(name, mtu_bytes), other.set_up(other_name, mtu_bytes)

    def address(self, index: int, address: str, length: int) -> None:
        """Give a port an address."""
        family = INET6 if ":" in address else INET
        extra = {"flags": NODAD} if family == INET6 else {}
        self.netlink.addr("replace", index=index, address=address, prefixlen=length, family=family, **extra)

    def no_address(self, index: int, address: str, length: int) -> None:
        """The opposite of `address`."""
        family = INET6 if ":" in address else INET
        self._gone(lambda: self.netlink.addr("del", index=index, address=address, prefixlen=length, family=family))

    def ports(self) -> Mapping[int, tuple[str, int, int, int, bool]]:
        """Index -> name, bytes sent, bytes received, packets dropped on the way out, whether there is light."""
        found = {}
        for link in self.netlink.get_links():
            stats = link.get_attr("IFLA_STATS64")
            found[link["index"]] = (
                link.get_attr("IFLA_IFNAME"),
                stats["tx_bytes"],
                stats["rx_bytes"],
                stats["tx_dropped"],
                bool(link.get_attr("IFLA_CARRIER")),
            )
        return found

    # -- routes ---------------------------------------------------------------------------------------------------

    def route(
        self, prefix: str, index: int, via: str = "", metric: int = IGP_METRIC, source: str = "", mtu_bytes: int = 0
    ) -> None:
        """Where a prefix lies: behind ``via``, or at the port itself."""
        given: dict[str, Any] = {"priority": metric} if ":" in prefix else {}
        if via:
            given["gateway"] = via
        if source:
            given["prefsrc"] = source
        if mtu_bytes:
            given["metrics"] = {"mtu": mtu_bytes}
        self.netlink.route("replace", family=_family(prefix), dst=prefix, oif=index, **given)

    def no_route(self, prefix: str, metric: int = IGP_METRIC) -> None:
        """The opposite of `route`."""
        given = {"priority": metric} if ":" in prefix else {}
        self._gone(lambda: self.netlink.route("del", family=_family(prefix), dst=prefix, **given))

    def policy(self, prefix: str, segments: Sequence[str], index: int) -> None:
        """Send what goes to ``prefix`` through these segments, the first first (H.Encaps, RFC 8986)."""
        way = {"type": "seg6", "mode": "encap", "segs": ",".join(reversed(segments))}
        given: dict[str, Any] = {"priority": POLICY_METRIC} if ":" in prefix else {}
        self.netlink.route("replace", family=_family(prefix), dst=prefix, oif=index, encap=way, **given)

    def no_policy(self, prefix: str) -> None:
        """The opposite of `policy`: the prefix goes as all others do."""
        self.no_route(prefix, POLICY_METRIC)

    def segment(self, address: str, index: int, action: str, inner: str = "") -> None:
        """Be a segment: ``End`` (a step), ``End.DT6`` (IPv6 inside), ``End.DX4`` (IPv4 inside, for ``inner``)."""
        way: dict[str, Any] = {"type": "seg6local", "action": action}
        if action == "End.DT6":
            way["table"] = MAIN
        if action == "End.DX4":
            way["nh4"] = inner
        self.netlink.route("replace", family=INET6, dst=f"{address}/128", oif=index, encap=way, priority=POLICY_METRIC)

    def no_segment(self, address: str) -> None:
        """The opposite of `segment`."""
        self.no_route(f"{address}/128", POLICY_METRIC)

    # -- queues ---------------------------------------------------------------------------------------------------

    def shaped(self, index: int, rate_bps: int) -> None:
        """Let a port send no faster than its link carries (HTB)."""
        self.netlink.tc("add", "htb", index, ROOT, default=REST)
        self.shape(index, WHOLE, rate_bps, rate_bps)
        self.shape(index, REST, rate_bps, rate_bps)

    def shape(self, index: int, minor: int, rate_bps: int, most_bps: int) -> None:
        """A class of a port's traffic: what it is sure of, and what it may have where there is room."""
        rate, most = max(1_000, rate_bps // 8), max(1_000, most_bps // 8)  # bytes a second
        self.netlink.tc(
            "replace-class", "htb", index, ROOT | minor,
            parent=ROOT if minor == WHOLE else ROOT | WHOLE, prio=7 if minor == REST else 0,
            rate=rate, ceil=most, burst=max(TICK_BYTES, rate // 500), cburst=max(TICK_BYTES, most // 500),
            quantum=TICK_BYTES * 2,
        )  # fmt: skip

    def no_shape(self, index: int, minor: int) -> None:
        """The opposite of `shape`; what waits in it is lost."""
        self._gone(lambda: self.netlink.tc("del-class", None, index, ROOT | minor, parent=ROOT | WHOLE))

    def classify(self, index: int, order: int, segment: str, minor: int) -> None:
        """Put what goes to segments with the first 80 bits of ``segment`` into a class."""
        words = IPv6Address(segment).packed
        keys = [f"0x{words[at : at + 4].hex()}/0xffffffff+{24 + at}" for at in (0, 4)]
        keys.append(f"0x{words[8:10].hex()}0000/0xffff0000+32")
        self.no_classify(index, order)
        self.netlink.tc(
            "add-filter", "u32", index, parent=ROOT, prio=order, protocol=IPV6_FRAMES, target=ROOT | minor, keys=keys
        )

    def no_classify(self, index: int, order: int) -> None:
        """The opposite of `classify`."""
        self._gone(
            lambda: self.netlink.tc("del-filter", None, index, parent=ROOT, info=(order << 16) | _swapped(IPV6_FRAMES))
        )

    def classes(self, index: int) -> Mapping[int, tuple[int, int]]:
        """Minor number of each class of a port -> bytes sent, packets dropped."""
        found = {}
        for each in self.netlink.get_classes(index):
            stats = each.get_attr("TCA_STATS")
            found[each["handle"] & 0xFFFF] = (stats["bytes"], stats["drop"])
        return found

    def _gone(self, call: Callable[[], object]) -> None:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            call()
        except NetlinkError as error:
            if error.code not in GONE:
                raise


def closed(networks: Sequence[int]) -> None:
    """Let descriptors go."""
    for network in [each for each in networks if each >= 0]:
        with suppress(OSError):
            os.close(network)


def _family(prefix: str) -> int:
    return INET6 if ":" in prefix else INET


def _swapped(value: int) -> int:
    return int.from_bytes(value.to_bytes(2, "big"), "little")
