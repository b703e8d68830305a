"""Greeting: what two exchanges say before they are peers, each statement signed with the key that it names."""

from __future__ import annotations

import msgspec

from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.signing import Signer
from tieline.exchange.commands import Greeting
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.sites import SKEW_MS
from tieline.model.error import TielineError
from tieline.model.peer import GREETING, PEERING, Introduction, Peer, PeerRole
from tieline.model.peering import GreetingView, PeerRequestBody, PeerStanding
from tieline.registry import open_statement, sign_statement, verify_statement

GREET_S = 10.0
GREET_BYTES = 262_144
OTHER_SIDE = {PeerRole.PARENT: PeerRole.CHILD, PeerRole.CHILD: PeerRole.PARENT, PeerRole.PEER: PeerRole.PEER}


def other_side(role: PeerRole) -> PeerRole:
    """What we are to the exchange that is ``role`` to us."""
    return OTHER_SIDE[role]


def said_greeting(said: Introduction, keys: ExchangeKeys) -> str:
    """The signed greeting."""
    return sign_statement(said, keys.key, keys.kid, GREETING).decode()


def introduction(said: Introduction) -> Greeting:
    """What is kept of it."""
    return Greeting(
        id=said.id, prefix=said.prefix, public=said.public, url=said.url, scope=said.scope, title=said.title
    )


def checked_introduction(statement: str, nonce: str, now_ms: int, typ: str = GREETING) -> Introduction:
    """What was said, once it is proved by the key that it names, with our ``nonce`` where we gave one, and now.

    Raises TielineError `unauthenticated`.
    """
    said, kid = open_statement(statement.encode(), typ, Introduction)
    if kid != f"{said.prefix}#exchange":
        raise TielineError("unauthenticated", f"the key `{kid}` is not that of an exchange of `{said.prefix}`")
    verify_statement(statement.encode(), said.public, typ)
    if nonce and said.nonce != nonce:
        raise TielineError("unauthenticated", f"`{said.id}` did not sign the nonce that it was asked to sign")
    if abs(now_ms - said.at_ms) > SKEW_MS:
        away_s = abs(now_ms - said.at_ms) // 1000
        raise TielineError(
            "unauthenticated",
            f"the clock of `{said.id}` is {away_s:,} s away from this exchange's",
            hints=("set the clocks (for example with chrony)",),
        )
    return said


async def greet(signer: Signer, url: str, nonce: str) -> str:
    """The greeting statement of whoever answers at ``url``; nothing of it is believed yet.

    Raises TielineError `address_refused`, `exchange_unreachable`, `timeout`, `too_large`, `check_failed`.
    """
    async with PeerClient(url, "", signer, total_s=GREET_S, limit_bytes=GREET_BYTES) as client:
        return (await client.call("GET", "/v1/greeting", GreetingView, params={"nonce": nonce})).statement


async def ask_to_peer(signer: Signer, peer: Peer, said: Introduction, keys: ExchangeKeys) -> PeerStanding:
    """Ask the exchange whose key we pinned to peer with us; how we stand there now. Asking again does no harm.

    Raises TielineError: what it answered, or why there was no answer.
    """
    asked = msgspec.structs.replace(said, to=peer.id, role=other_side(peer.role))
    statement = sign_statement(asked, keys.key, keys.kid, PEERING).decode()
    async with PeerClient(peer.url, peer.id, signer, total_s=GREET_S, limit_bytes=GREET_BYTES) as client:
        body = PeerRequestBody(statement=statement)
        return await client.call("POST", "/v1/peers/requests", PeerStanding, body=body, key=None)
