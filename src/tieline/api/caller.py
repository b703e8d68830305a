"""Caller: from a bearer to an actor. There are four kinds of bearer, and none of them says which it is but by its form.

::

    tl-...       a token or a site's session: compared by its sha256 only; a look-up tells nothing of a prefix
    tld....      a delegated token: believed because of this exchange's signature, and void with what it rests on
    eyJ....      a token of an identity provider that `oidc.json` names (`api/oidc.py`)

Every actor says for the audit from where it came (`via`) and under which right it acts (`right`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tieline.exchange.permission import check_name
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.job import JOB_ENDED
from tieline.model.party import Actor, Role
from tieline.registry.delegated import PASSED_ON, is_delegated, opened_token, refusal

if TYPE_CHECKING:
    from tieline.api.platform import Platform

LOGIN = ("tieline login URL --token TOKEN",)
MOST_SECRET = 2_000
JWT = "eyJ"  # how the base64url of `{"` begins


async def caller_of(platform: Platform, header: str, via: str, now_ms: int) -> Actor:
    """The caller that ``Authorization: Bearer <secret>`` names. Raises TielineError `unauthenticated`."""
    scheme, _, secret = header.partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise TielineError("unauthenticated", "the header is not `Authorization: Bearer <token>`", hints=LOGIN)
    if is_delegated(secret):
        return await _delegated(platform, secret, via, now_ms)
    if platform.issuers is not None and secret.startswith(JWT):
        actor = await platform.issuers.actor(secret, via, now_ms // 1000)
        check_name(actor.name, platform.exchange.prefix, tuple(platform.view.peers.values()))
        return actor
    if len(secret) > MOST_SECRET:
        raise TielineError("unauthenticated", f"a token has at most {MOST_SECRET:,} characters", hints=LOGIN)
    return holder_of(platform.view, secret, via, now_ms)


def holder_of(view: View, secret: str, via: str, now_ms: int) -> Actor:
    """Whose token or session ``secret`` is. Raises TielineError `unauthenticated`."""
    sha256 = hashlib.sha256(secret.encode("latin-1", "replace")).hexdigest()
    token = view.tokens.get(sha256)
    if token is None:
        site = view.sites.get(view.sessions.get(sha256, ""))
        if site is None:
            raise TielineError("unauthenticated", "this token is not known here", hints=LOGIN)
        return Actor(name=site.id, roles=(Role.SITE,), owner=site.owner, via=via, right="session")
    if token.revoked_ms:
        raise TielineError("unauthenticated", f"token `{token.id}` was revoked", hints=LOGIN)
    if token.expires_ms and now_ms >= token.expires_ms:
        ago_s = (now_ms - token.expires_ms) // 1000
        raise TielineError("unauthenticated", f"token `{token.id}` expired {ago_s:,} s ago", hints=LOGIN)
    if token.uses_left == 0:
        raise TielineError("unauthenticated", f"token `{token.id}` is used up", hints=LOGIN)
    return Actor(
        name=token.name, roles=token.roles, owner=token.owner, token=token.id, via=via, right=f"token {token.id}"
    )


async def _delegated(platform: Platform, text: str, via: str, now_ms: int) -> Actor:
    """Who a delegated token stands for, as long as what it comes from and what it is bound to still live."""
    view, here = platform.view, platform.exchange.id
    token = opened_token(text, platform.keys.key.public, by=here, to=here, now_s=now_ms // 1000)
    if token.parent and not lives(view, token.parent, now_ms):
        raise refusal("token_parent", parent=token.parent)
    if token.job and not await is_live_job(platform, token.job):
        raise refusal("token_job_ended", job=token.job)
    if token.run and token.run not in view.runs:
        raise refusal("token_run_ended", run=token.run)
    return Actor(
        name=token.user,
        roles=tuple(role for role in token.roles if role in PASSED_ON),
        owner=token.owner,
        via=via,
        right=f"delegated {token.id}",
        groups=token.groups,
        scopes=token.scopes,
        project=token.project,
        job=token.job,
    )


def lives(view: View, name: str, now_ms: int) -> bool:
    """Whether the token of that id is here, neither revoked nor expired."""
    token = view.tokens.get(view.token_sha256.get(name, ""))
    return token is not None and not token.revoked_ms and not (token.expires_ms and now_ms >= token.expires_ms)


async def is_live_job(platform: Platform, name: str) -> bool:
    """Whether the job of that identifier is here and has not ended. Not every live job is in memory."""
    job = platform.view.jobs.get(name) or await platform.read(platform.store.job, name)
    return job is not None and job.state not in JOB_ENDED
