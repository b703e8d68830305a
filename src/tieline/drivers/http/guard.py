"""Guard: which network addresses are called. A URL is somebody's word; what its name resolves to is the word of whoever
runs the name server, and may change between two calls.

Never called: link-local addresses (where clouds keep their metadata), multicast, unspecified and reserved ones. Private
and loopback addresses are called only where whoever stated the URL may lead there.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from tieline.model.error import TielineError
from tieline.model.reason import Reason, sentence

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
METADATA = (
    ipaddress.ip_address("169.254.169.254"),
    ipaddress.ip_address("100.100.100.200"),
    ipaddress.ip_address("192.0.0.192"),
    ipaddress.ip_address("fd00:ec2::254"),
)
SHARED = ipaddress.ip_network("100.64.0.0/10")  # between a provider and its customers (RFC 6598): nobody's public host


def why_refused(address: Address, *, is_private_stated: bool) -> str:
    """The word for why ``address`` is not called; empty when it may be."""
    inner = unwrapped(address)
    if inner in METADATA:
        return "metadata"
    for word, is_so in (
        ("link-local", inner.is_link_local),
        ("multicast", inner.is_multicast),
        ("unspecified", inner.is_unspecified),
    ):
        if is_so:
            return word
    if inner.is_loopback:
        return "" if is_private_stated else "loopback"
    if inner.is_private or inner in SHARED:
        return "" if is_private_stated else "private"
    return "reserved" if inner.is_reserved or not inner.is_global else ""


def unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for (mapped, 6to4, NAT64), or the address itself."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def check_address(url: str, address: Address, *, is_private_stated: bool) -> None:
    """Refuse one address that ``url`` states or resolves to. Raises TielineError `address_refused`."""
    why = why_refused(address, is_private_stated=is_private_stated)
    if why:
        reason = Reason(code="peer_address", values={"address": str(address), "why": why})
        raise TielineError("address_refused", f"`{url}` is not called: {sentence(reason)}", reasons=(reason,))


def checking_resolver(check: Callable[[str, Address], None]) -> AbstractResolver:
    """A resolver for connections that go to an address which ``check(host, address)`` saw, and to no other."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Checking(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            import asyncio

            found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
            results = []
            for kind, _, number, _, where in found:
                check(host, ipaddress.ip_address(str(where[0]).partition("%")[0]))
                results.append(
                    ResolveResult(
                        hostname=host,
                        host=str(where[0]),
                        port=int(where[1]),
                        family=kind,
                        proto=number,
                        flags=socket.AI_NUMERICHOST,
                    )
                )
            return results

        async def close(self) -> None:
            """Nothing is held."""

    return Checking()
