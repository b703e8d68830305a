"""Peers out: signed calls to other exchanges, and the tasks that follow their logs.

`PeerClient` is the one way to call a peer; what uses compute behind a peer builds on it too.
"""

from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.signing import Claimed, Nonces, Signer, verify_request

__all__ = ["Claimed", "Nonces", "PeerClient", "Signer", "verify_request"]
