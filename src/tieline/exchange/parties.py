"""The exchange's own beginning, and the tokens of people, programs and sites."""

from __future__ import annotations

import msgspec

from tieline.exchange.commands import CreateExchange, CreateToken, Decision, RevokeToken
from tieline.exchange.permission import allow
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import ExchangeCreated, TokenCreated, TokenRevoked
from tieline.model.party import Role, Token
from tieline.ports import Ids


def create_exchange(view: View, command: CreateExchange, now_ms: int, ids: Ids) -> Decision:
    """Name the exchange and give its first admin a token; only an empty log accepts this."""
    if view.exchange is not None:
        raise TielineError("conflict", f"this is already `{view.exchange.id}`")
    admin = Token(
        id=ids.new("token"),
        sha256=command.admin_token_sha256,
        name="admin",
        roles=(Role.ADMIN, Role.USER),
        created_ms=now_ms,
        created_by=command.id,
    )
    created = ExchangeCreated(id=command.id, prefix=command.prefix, public=command.public, session=command.session)
    return Decision((created, TokenCreated(token=admin)), admin)


def create_token(view: View, command: CreateToken, now_ms: int, ids: Ids) -> Decision:
    """An admin gives tokens to anybody; an owner gives join tokens for its own sites."""
    if command.roles == (Role.JOIN,) and command.actor.has(Role.OWNER):
        if command.owner != command.actor.owner:
            raise TielineError("forbidden", f"you are the owner of `{command.actor.owner}`, not of `{command.owner}`")
    else:
        allow(command.actor, Role.ADMIN, what="make tokens")
    if Role.SITE in command.roles:
        raise TielineError("invalid_request", "the role `site` is given by a session, not by a token", where="roles")
    if Role.PEER in command.roles:
        raise TielineError("invalid_request", "the role `peer` is proved by a signature, not by a token", where="roles")
    if Role.JOIN in command.roles and (len(command.roles) > 1 or not command.owner):
        raise TielineError("invalid_request", "a join token has no other role, and names its owner", where="roles")
    if "@" in command.name:  # so are users of peers called: `alice@cn.a`
        raise TielineError("invalid_request", f"`{command.name}` reads as a user of another exchange", where="name")
    if Role.OWNER in command.roles and not command.owner:
        raise TielineError("invalid_request", "the role `owner` needs an owner", where="owner")
    token = Token(
        id=ids.new("token"),
        sha256=command.sha256,
        name=command.name,
        roles=command.roles,
        owner=owner_prefix(view, command.owner),
        created_ms=now_ms,
        created_by=command.actor.name,
        expires_ms=now_ms + command.ttl_s * 1000 if command.ttl_s else 0,
        uses_left=command.uses,
    )
    return Decision((TokenCreated(token=token),), token)


def revoke_token(view: View, command: RevokeToken, now_ms: int, ids: Ids) -> Decision:
    """From the commit on the token is worth nothing."""
    allow(command.actor, Role.ADMIN, what="revoke tokens")
    sha256 = view.token_sha256.get(command.id)
    if sha256 is None:
        raise TielineError("not_found", f"there is no token `{command.id}`", hints=("tieline token ls",))
    token = view.tokens[sha256]
    if token.revoked_ms:
        return Decision((), token)
    revoked = msgspec.structs.replace(token, revoked_ms=now_ms)
    return Decision((TokenRevoked(id=token.id, at_ms=now_ms),), revoked)


def owner_prefix(view: View, owner: str) -> str:
    """``lab7`` -> ``cn.demo.lab7``; a whole prefix stays as it is."""
    if not owner or owner == view.prefix or owner.startswith(view.prefix + "."):
        return owner
    return f"{view.prefix}.{owner}"


def spend(view: View, sha256: str, now_ms: int) -> Token:
    """The token with this hash if it may be used now; raises `token_refused`, the same words whatever is wrong."""
    token = view.tokens.get(sha256)
    good = (
        token is not None
        and not token.revoked_ms
        and (not token.expires_ms or now_ms < token.expires_ms)
        and token.uses_left != 0
    )
    if not good or token is None:
        raise TielineError(
            "token_refused",
            "the token is wrong, expired or used up",
            hints=("tieline token create --role join --owner NAME  # on the exchange",),
        )
    return token
