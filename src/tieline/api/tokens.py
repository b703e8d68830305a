"""Who may call. A token's secret is in one answer only; what is kept is its hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from tieline.api.call import Call, named
from tieline.api.operation import Follow, operation
from tieline.exchange.commands import CreateToken, RevokeToken
from tieline.exchange.permission import owns
from tieline.model.api import TokenBody, TokenMade, TokenPage, TokenView
from tieline.model.error import TielineError
from tieline.model.jointoken import JoinToken
from tieline.model.party import Role, Token


@operation(
    "POST",
    "/v1/tokens",
    tag="tokens",
    status=201,
    is_change=True,
    follows=(Follow(operation="revoke_token", parameter="token", pointer="/id"),),
    example={"name": "alice", "roles": ["user"], "ttl_s": 86_400},
)
async def create_token(call: Call, body: TokenBody) -> TokenMade:
    """Make a token. This answer is the only place where its secret is seen.

    With an idempotency key, the same request is answered with the same secret.
    """
    if body.uses != -1 and Role.JOIN not in body.roles:
        raise TielineError("invalid_request", "only the uses of a join token are counted", where="uses")
    secret = new_secret(call)
    token: Token = await call.platform.ask(
        call.command(
            CreateToken,
            sha256=hashlib.sha256(secret.encode()).hexdigest(),
            name=body.name,
            roles=body.roles,
            owner=body.owner,
            ttl_s=body.ttl_s,
            uses=body.uses,
        )
    )
    if Role.JOIN in token.roles:
        platform = call.platform
        secret = str(JoinToken(url=platform.url, fingerprint=platform.fingerprint, secret=secret, owner=token.owner))
    return TokenMade(id=token.id, secret=secret, name=token.name, roles=token.roles, expires_ms=token.expires_ms)


@operation("GET", "/v1/tokens", tag="tokens")
async def list_tokens(call: Call) -> TokenPage:
    """Tokens without their secrets: all of them; for an owner, those of its own prefix."""
    found = await call.platform.read(call.platform.store.tokens)
    actor = call.actor
    sees_all = actor.has(Role.ADMIN, Role.AUDITOR)
    return TokenPage(tokens=tuple([token_view(token) for token in found if sees_all or owns(actor, token.owner)]))


@operation("DELETE", "/v1/tokens/{token}", tag="tokens", is_change=True)
async def revoke_token(call: Call, token: str) -> TokenView:
    """Make a token worthless from now on; revoking it again changes nothing.

    Nobody revokes the token that the request itself came with.
    """
    name = named(token)
    if name == call.actor.token:
        raise TielineError(
            "conflict", f"`{name}` is the token that you are using", hints=("use another admin's token",)
        )
    revoked: Token = await call.platform.ask(call.command(RevokeToken, id=name))
    return token_view(call.platform.view.tokens.get(revoked.sha256, revoked))


def new_secret(call: Call) -> str:
    """A secret of 256 bits: random, or for an idempotency key the one that only this exchange can derive from it."""
    if not call.key:
        return f"tl-{secrets.token_urlsafe(32)}"
    said = f"token\n{call.actor.name}\n{call.key}\n{call.digest}"
    return f"tl-{hmac.new(call.platform.token_seed, said.encode(), hashlib.sha256).hexdigest()}"


def token_view(token: Token) -> TokenView:
    """A token as others see it."""
    return TokenView(
        id=token.id,
        name=token.name,
        roles=token.roles,
        owner=token.owner,
        created_ms=token.created_ms,
        created_by=token.created_by,
        expires_ms=token.expires_ms,
        uses_left=token.uses_left,
        is_revoked=bool(token.revoked_ms),
    )
