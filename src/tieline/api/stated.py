"""Stated: who calls without a token, as the signed statement in the body says. The use-case proves it or refuses."""

from __future__ import annotations

from tieline.api.call import Call
from tieline.model.party import Actor


def stated_caller(call: Call, name: str, right: str) -> Actor:
    """The caller for the audit: whom the statement names, from where, and by which key or token it acts.

    It has no roles: what follows from the statement rests on its signature alone.
    """
    return Actor(name=name[:200], via=call.via, right=right[:160])
