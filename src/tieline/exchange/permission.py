"""Permission: what a caller's roles and ownership allow. What a caller may not see does not exist for it."""

from __future__ import annotations

from tieline.model.error import TielineError
from tieline.model.party import Actor, Role


def allow(actor: Actor, *roles: Role, what: str) -> None:
    """Refuse unless the caller holds one of ``roles``."""
    if not actor.has(*roles):
        named = " or ".join(role.value for role in roles)
        raise TielineError(
            "forbidden",
            f"`{actor.name}` may not {what}: this needs the role {named}",
            hints=("tieline status  # shows who you are",),
        )


def owns(actor: Actor, prefix: str) -> bool:
    """Whether the caller is an owner of ``prefix`` or of a prefix above it."""
    return (
        actor.has(Role.OWNER) and bool(actor.owner) and (prefix == actor.owner or prefix.startswith(actor.owner + "."))
    )


def sees_job(actor: Actor, user: str) -> bool:
    """Whether the caller may see a job of ``user``."""
    return actor.has(Role.ADMIN, Role.AUDITOR) or (actor.has(Role.USER, Role.OWNER) and actor.name == user)


def no_such(kind: str, name: str) -> TielineError:
    """The same answer for what does not exist and for what the caller may not see."""
    return TielineError("not_found", f"there is no {kind} `{name}` here, or you may not see it")
