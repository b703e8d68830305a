"""Passing a right on: a token that can do less than its giver, for less long, and that is nowhere stored."""

from __future__ import annotations

import secrets

from tieline.api.call import Call, named
from tieline.api.caller import is_live_job
from tieline.api.jobs import job_id, visible_job
from tieline.api.operation import operation
from tieline.model.api import DelegateBody, DelegatedMade
from tieline.model.error import TielineError
from tieline.model.peer import DelegatedToken
from tieline.registry.delegated import check_narrower, passed_on, sealed_token

BETWEEN_EXCHANGES = "run"
MOST_GROUP_CHARACTERS = 1_500


@operation(
    "POST",
    "/v1/tokens/delegated",
    tag="tokens",
    status=201,
    errors=("not_found", "conflict"),
    example={"scopes": ["read:job"], "ttl_s": 600},
)
async def delegate_token(call: Call, body: DelegateBody) -> DelegatedMade:
    """Pass a part of your own right on, for at most 24 hours.

    The token has the named scopes and none of the others, it acts in your name, and it ends with the token that it
    comes from. Bound to a job, it is good for that job alone and void once the job has ended. It cannot be passed on.
    """
    actor, platform = call.actor, call.platform
    if BETWEEN_EXCHANGES in body.scopes:
        raise TielineError("invalid_request", "`run` is passed on between exchanges only", where="scopes")
    project = body.project or actor.project
    check_narrower(actor, body.scopes, project)
    job = ""
    if body.job:
        job = job_id(platform, named(body.job.replace("/", "~"), "job"))
        await visible_job(platform, actor, job)
        if not await is_live_job(platform, job):
            raise TielineError("conflict", f"`{job}` has ended: a token for it would be void", where="job")
    now_s = platform.clock.now_ms() // 1000
    token = DelegatedToken(
        id=f"d-{secrets.token_hex(8)}",
        by=platform.exchange.id,
        to=platform.exchange.id,
        user=actor.name,
        scopes=tuple(dict.fromkeys(body.scopes)),
        nb_s=now_s,
        exp_s=_end_s(call, now_s + body.ttl_s),
        owner=actor.owner,
        project=project,
        job=job,
        roles=passed_on(actor),
        groups=_few(actor.groups),
        parent=actor.token,
    )
    secret = sealed_token(token, platform.keys.key, platform.keys.kid)
    call.note(token=token.id)
    return DelegatedMade(
        id=token.id,
        secret=secret,
        user=token.user,
        scopes=token.scopes,
        job=token.job,
        expires_ms=token.exp_s * 1000,
    )


def _few(groups: tuple[str, ...]) -> tuple[str, ...]:
    """As many groups as a token has room for; without the others it can only do less."""
    found, room = [], MOST_GROUP_CHARACTERS
    for group in groups[:64]:
        room -= len(group.encode())
        if room < 0:
            break
        found.append(group)
    return tuple(found)


def _end_s(call: Call, wanted_s: int) -> int:
    """When the token ends: never after the one that it comes from."""
    view, actor = call.platform.view, call.actor
    parent = view.tokens.get(view.token_sha256.get(actor.token, ""))
    ends_s = parent.expires_ms // 1000 if parent is not None else actor.ends_s
    return min(wanted_s, ends_s) if ends_s else wanted_s
