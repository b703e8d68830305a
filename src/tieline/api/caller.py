"""Caller: from a bearer to an actor. Secrets are compared by their sha256 only; a look-up tells nothing of a prefix."""

from __future__ import annotations

import hashlib

from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.party import Actor, Role

LOGIN = ("tieline login URL --token TOKEN",)


def actor_of(view: View, header: str, via: str, now_ms: int) -> Actor:
    """The caller that ``Authorization: Bearer <secret>`` names. Raises TielineError `unauthenticated`."""
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not secret or len(secret) > 2_000:
        raise TielineError("unauthenticated", "the header is not `Authorization: Bearer <token>`", hints=LOGIN)
    sha256 = hashlib.sha256(secret.strip().encode("latin-1", "replace")).hexdigest()
    token = view.tokens.get(sha256)
    if token is None:
        site = view.sites.get(view.sessions.get(sha256, ""))
        if site is None:
            raise TielineError("unauthenticated", "this token is not known here", hints=LOGIN)
        return Actor(name=site.id, roles=(Role.SITE,), owner=site.owner, via=via)
    if token.revoked_ms:
        raise TielineError("unauthenticated", f"token `{token.id}` was revoked", hints=LOGIN)
    if token.expires_ms and now_ms >= token.expires_ms:
        ago_s = (now_ms - token.expires_ms) // 1000
        raise TielineError("unauthenticated", f"token `{token.id}` expired {ago_s:,} s ago", hints=LOGIN)
    if token.uses_left == 0:
        raise TielineError("unauthenticated", f"token `{token.id}` is used up", hints=LOGIN)
    return Actor(name=token.name, roles=token.roles, owner=token.owner, token=token.id, via=via)
