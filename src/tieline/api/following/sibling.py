"""Sibling: how a process says from where a request came that it passes on, so that only its siblings can say that.

``Tieline-Forwarded: at=<ms>;for=<address>;mac=<hex>``. The mac is HMAC-SHA256 under a key that follows from the private
key of the exchange, over time, address, method and target. Whoever has the exchange's folder is the exchange; nobody
else can set the address that the audit keeps.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from tieline.model.error import TielineError

HEADER = b"tieline-forwarded"
VALID_MS = 30_000  # clocks of siblings may be so far apart
FIELD = re.compile(r"at=([0-9]{1,15});for=([0-9a-fA-F.:%]{0,64});mac=([0-9a-f]{64})")


class Siblings:
    """The processes of one exchange, by the seed that they share."""

    def __init__(self, seed: bytes) -> None:
        self._key = hashlib.sha256(b"tieline siblings\n" + seed).digest()

    def stated(self, address: str, method: str, target: bytes, now_ms: int) -> bytes:
        """The header's value for a request of ``address`` that is passed on."""
        mac = self._mac(now_ms, address, method, target)
        return f"at={now_ms};for={address};mac={mac}".encode("ascii")

    def address(self, value: bytes, method: str, target: bytes, now_ms: int) -> str:
        """The address that a sibling states. Raises TielineError `unauthenticated` where no sibling did."""
        match = FIELD.fullmatch(value.decode("latin-1"))
        if match is None:
            raise _refused("it cannot be read")
        at_ms, address, mac = int(match[1]), match[2], match[3]
        if not hmac.compare_digest(mac, self._mac(at_ms, address, method, target)):
            raise _refused("no process of this exchange made it")
        if abs(now_ms - at_ms) > VALID_MS:
            raise _refused(f"it is {abs(now_ms - at_ms):,} ms off, at most {VALID_MS:,} are allowed: set the clocks")
        return address

    def _mac(self, at_ms: int, address: str, method: str, target: bytes) -> str:
        said = b"\n".join((str(at_ms).encode(), address.encode(), method.encode(), target))
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()


def _refused(why: str) -> TielineError:
    return TielineError("unauthenticated", f"`Tieline-Forwarded` is for the processes of one exchange: {why}")
