"""Address: the URL of a peer is an admin's word, and says whether the peer may be in a private network.

Private and loopback addresses are called only where the URL states one, so that no name can lead into this network,
however often it changes what it resolves to (`drivers/http/guard.py`).
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from typing import TYPE_CHECKING

from tieline.drivers.http.client import checked_url
from tieline.drivers.http.guard import Address, check_address, checking_resolver, unwrapped
from tieline.model.error import TielineError

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver


def stated_address(url: str) -> Address | None:
    """The address that the URL itself states, if it states one; ``localhost`` is loopback."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if host == "localhost":
        return ipaddress.ip_address("127.0.0.1")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_private_stated(url: str) -> bool:
    """Whether the URL states a private or loopback address itself."""
    address = stated_address(url)
    return address is not None and (unwrapped(address).is_private or unwrapped(address).is_loopback)


def check_url(url: str) -> None:
    """Refuse a URL that states an address which is never called, and plain HTTP beyond private networks.

    Raises TielineError `address_refused`, `invalid_request`.
    """
    address = stated_address(checked_url(url))
    if address is not None:
        check_address(url, address, is_private_stated=is_private_stated(url))
    if urllib.parse.urlsplit(url).scheme != "https" and not is_private_stated(url):
        raise TielineError(
            "address_refused",
            f"`{url}` is neither https nor a private address: anybody on the way could read and change what is said",
            hints=("tieline exchange peer add https://...",),
        )


def guarded_resolver(url: str) -> AbstractResolver:
    """A resolver for one peer's connections: each connection goes to an address that was looked at, and to no other."""
    may_be_private = is_private_stated(url)
    return checking_resolver(lambda _, address: check_address(url, address, is_private_stated=may_be_private))
