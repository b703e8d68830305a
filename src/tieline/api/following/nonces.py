"""Nonces where leaders change: what an old leader took, a new one must not take again.

Every leader remembers the nonces of signed requests by itself (`drivers/peers/signing.py`). So a new one believes only
what was signed after everything that an old one can have taken: a leader here takes nothing that was signed more than
`AHEAD_S` ahead of its clock, and a new one nothing that was signed until `AHEAD_S` after it began. Peers wait for those
seconds: they are answered `not_leader` with Retry-After.
"""

from __future__ import annotations

from tieline.api.peercaller import not_believed
from tieline.drivers.peers.signing import Nonces

AHEAD_S = 5  # how far a peer's clock may be ahead of ours; and how far the clocks of siblings may be apart


class LedNonces(Nonces):
    """The nonces of one leader; ``began_s`` as `first_s` gives it."""

    def spend(self, caller: str, nonce: str, until_s: int, created_s: int, now_s: int) -> None:
        """Use a nonce up. Raises TielineError `unauthenticated` (peer_replayed, peer_clock), `rate_limited`."""
        if created_s - now_s > AHEAD_S:
            raise not_believed("peer_clock", off_s=created_s - now_s, limit_s=AHEAD_S)
        super().spend(caller, nonce, until_s, created_s, now_s)


def first_s(began_ms: int) -> int:
    """The first second of a signature that a leader takes which began then and has followed another."""
    return began_ms // 1000 + 2 * AHEAD_S + 1
