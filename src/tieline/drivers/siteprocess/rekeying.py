"""Rekeying: the owner's next key, from the moment it is made until it speaks for the prefix.

The next key waits in the folder until the exchange's delegation names it: because the owner asked with the key that it
has, or because an admin said so. Whoever sees that first, this command or the running process, lets it take over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec

from tieline.drivers.clock import SystemClock
from tieline.drivers.http import HttpClient
from tieline.drivers.siteprocess.home import NEXT, Home, Identity
from tieline.drivers.siteprocess.owner import in_session
from tieline.model.api import RecordBody, RecordView
from tieline.model.error import TielineError
from tieline.model.record import DelegatedKey, Delegation, Root
from tieline.model.rekeying import REKEY, RekeyBody, RekeyStatement, RekeyView
from tieline.registry import Key, opened, sign_statement, verify_chain

LAST_SECOND = 253_402_300_799


def rekey(folder: Path, seed: bytes = b"", *, is_revoking: bool = False) -> RekeyView:
    """Let another key speak for the owner of the site in ``folder``: ``seed``, or one that is made there.

    The running process signs everything again with it by itself. Raises TielineError `forbidden` where the exchange
    believes the owner's key no more; the next key waits then, until an admin has named it.
    """
    home = Home(folder)
    identity = home.identity
    if seed and seed == home.seed("owner"):
        raise TielineError("conflict", f"this key is `{identity.owner}`'s already")
    fresh = Key(home.make_next(seed))
    return asyncio.run(in_session(home, identity, lambda client: _asked(client, home, fresh, is_revoking=is_revoking)))


async def _asked(client: HttpClient, home: Home, fresh: Key, *, is_revoking: bool) -> RekeyView:
    identity = await newest(client, home)
    now_s = SystemClock().now_ms() // 1000
    kid = usable(identity, fresh.public, now_s)
    is_revoked = not usable(identity, Key(home.seed("owner")).public, now_s)  # by us, before an answer was lost
    if not kid or (is_revoking and not is_revoked):
        statement = RekeyStatement(
            owner=identity.owner,
            public=fresh.public,
            is_revoking=is_revoking,
            nonce=os.urandom(16).hex(),
            at_ms=SystemClock().now_ms(),
        )
        known = settle(home)
        signed = sign_statement(statement, Key(home.seed("owner")), known.kid, REKEY)
        view = await client.call("POST", "/v1/keys", RekeyView, body=RekeyBody(statement=signed.decode()))
        identity = checked(known, view.delegation)
        kid = usable(identity, fresh.public, SystemClock().now_ms() // 1000)
        if not kid:
            raise TielineError(
                "check_failed", f"the exchange did not give `{identity.owner}` to the key that was asked"
            )
    home.revise_identity(msgspec.structs.replace(home.identity, delegation=identity.delegation))
    identity = settle(home)  # should a crash come in between, the next start does it
    rev = opened(identity.delegation.encode()).record.rev
    return RekeyView(owner=identity.owner, kid=kid, rev=rev, delegation=identity.delegation)


def settle(home: Home) -> Identity:
    """Let the next key take over where the delegation that is kept here names it already; who the site is then.

    The key's name is what the delegation says of the key that is there: a command and the running process may both
    have written, and neither waits for the other.
    """
    now_s = SystemClock().now_ms() // 1000
    with contextlib.suppress(TielineError):  # nothing waits, or somebody else has just let it take over
        if usable(home.identity, Key(home.seed(NEXT)).public, now_s):
            home.adopt_next()
    identity = home.identity
    kid = usable(identity, Key(home.seed("owner")).public, now_s) or identity.kid
    if kid != identity.kid:
        identity = msgspec.structs.replace(identity, kid=kid)
        home.revise_identity(identity)
    return identity


async def newest(client: HttpClient, home: Home) -> Identity:
    """The identity with the newest delegation that the exchange has; an exchange that was set back gets ours.

    Raises TielineError `check_failed` for one that the pinned key of the exchange does not prove.
    """
    identity = home.identity
    parent, _, label = identity.owner.rpartition(".")
    try:
        view = await client.call("GET", f"/v1/records/{parent}~owner~{label}", RecordView)
    except TielineError as error:
        if error.code != "not_found":
            raise
        return identity
    identity = home.identity  # it may have changed meanwhile
    found = checked(identity, view.envelope)
    ours = opened(identity.delegation.encode()).record.rev if identity.delegation else 0
    if view.rev < ours:
        await client.call("POST", "/v1/records", RecordView, body=RecordBody(envelope=identity.delegation))
    return found if view.rev > ours else identity


def checked(identity: Identity, envelope: str) -> Identity:
    """The identity with another delegation of its prefix, once the pinned key of the exchange proves it."""
    given(envelope, identity.public, identity.owner)
    return msgspec.structs.replace(identity, delegation=envelope)


def given(envelope: str, public: str, owner: str) -> Delegation:
    """What the exchange that holds ``public`` gave to ``owner``. Raises TielineError."""
    parent = owner.rpartition(".")[0]
    key = DelegatedKey(kid=opened(envelope.encode()).parts.kid, public=public, nb=0, exp=LAST_SECOND)
    now_s = SystemClock().now_ms() // 1000
    verified = verify_chain([envelope.encode()], [Root(prefix=parent, keys=(key,))], now_s)
    spec = msgspec.convert(verified.record.spec, Delegation)
    if spec.prefix != owner:
        raise TielineError("check_failed", f"the exchange gave `{spec.prefix}` and not `{owner}`")
    return spec


def usable(identity: Identity, public: str, now_s: int) -> str:
    """Under which name a key speaks for the owner, as the delegation that is kept says; empty when it does not."""
    for key in _keys(identity.delegation):
        if key.public == public and key.exp > now_s and not key.revoked_from:
            return key.kid
    return ""


def name_of(delegation: str, public: str) -> str:
    """Under which name a delegation knows a key. Raises TielineError `check_failed` when it does not."""
    for key in _keys(delegation):
        if key.public == public:
            return key.kid
    raise TielineError("check_failed", "the exchange gave the prefix to another key")


def _keys(delegation: str) -> tuple[DelegatedKey, ...]:
    return msgspec.convert(opened(delegation.encode()).record.spec, Delegation).keys if delegation else ()
