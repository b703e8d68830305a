"""Addresses: where the probes of a site may go. A plan is the exchange's word, and a record somebody else's.

Addresses that everybody can reach are probed. Private, loopback and link-local ones are inside the owner's network, or
inside somebody's: they are probed only where the owner's file lists their network (`probe_inner`), or where they are
this machine and the exchange is on it too. Metadata services and multicast are never called.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tieline.drivers.http import HttpClient
from tieline.drivers.http.client import CONNECTIONS, KEEPALIVE_S
from tieline.drivers.http.guard import METADATA, Address, checking_resolver, unwrapped, why_refused
from tieline.model.error import TielineError
from tieline.model.reason import Reason, sentence

if TYPE_CHECKING:
    import aiohttp

INNER = ("private", "loopback", "link-local")


class Addresses:
    """``inner`` are networks (CIDR) that the owner lists; ``is_local``: the exchange is on this machine."""

    def __init__(self, inner: Sequence[str] = (), *, is_local: bool = False) -> None:
        self.inner = tuple(ipaddress.ip_network(each) for each in inner)
        self.is_local = is_local

    def check(self, host: str, address: Address) -> None:
        """Raises TielineError `address_refused` with the reason where a probe may not go."""
        why = why_refused(address, is_private_stated=False)
        meant = unwrapped(address)
        if not why or (why in INNER and meant not in METADATA and self._is_listed(meant)):
            return
        code = "probe_inner" if why in INNER else "peer_address"
        reason = Reason(code=code, values={"address": str(address), "why": why})
        raise TielineError(
            "address_refused",
            f"`{host[:200]}` is not probed: {sentence(reason)}",
            reasons=(reason,),
            hints=("probe_inner: [10.0.0.0/8]  # in site.yaml, by its owner",) if code == "probe_inner" else (),
        )

    def _is_listed(self, address: Address) -> bool:
        return (self.is_local and address.is_loopback) or any(address in network for network in self.inner)

    def connector(self, **fields: Any) -> aiohttp.TCPConnector:
        """For connections by name: each goes to an address that was looked at."""
        import aiohttp

        return aiohttp.TCPConnector(resolver=checking_resolver(self.check), use_dns_cache=False, **fields)


class CheckedClient(HttpClient):
    """Tried once, by way of addresses that may be probed."""

    def __init__(self, url: str, addresses: Addresses) -> None:
        super().__init__(url, attempts=1)
        self.addresses = addresses

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=self.addresses.connector(limit=CONNECTIONS, keepalive_timeout=KEEPALIVE_S, ssl=self._tls()),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session
