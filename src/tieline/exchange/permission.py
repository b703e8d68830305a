"""Permission: what a caller's roles and ownership allow. What a caller may not see does not exist for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tieline.model.error import TielineError
from tieline.model.party import Actor, Role
from tieline.model.reason import Reason, sentence

if TYPE_CHECKING:
    from tieline.model.peer import Peer
    from tieline.model.task import Task


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


def sees_job(actor: Actor, user: str, project: str = "", *, is_member: bool = False) -> bool:
    """Whether the caller may see a job of ``user`` in ``project``, of which it is a member or not.

    A token that is bound to a project shows nothing of another one, whoever holds it.
    """
    if actor.project not in ("", project):
        return False
    is_its = actor.name == user or is_member
    return actor.has(Role.ADMIN, Role.AUDITOR) or (actor.has(Role.USER, Role.OWNER) and is_its)


def no_such(kind: str, name: str) -> TielineError:
    """The same answer for what does not exist and for what the caller may not see."""
    return TielineError("not_found", f"there is no {kind} `{name}` here, or you may not see it")


def check_run_token(actor: Actor, task: Task) -> None:
    """Refuse a task whose runs would be given a right that the caller's own token does not have.

    Raises TielineError `forbidden` (scope_missing).
    """
    held = ", ".join(actor.scopes)[:400]
    for scope in task.token:
        if actor.scopes and scope not in actor.scopes:
            cause = Reason(code="scope_missing", values={"scope": scope, "held": held})
            raise TielineError("forbidden", sentence(cause), where="token", reasons=(cause,))


def check_name(name: str, us: str, peers: Iterable[Peer]) -> None:
    """Refuse a name of our own that reads as that of a peer's user, who is called ``alice@cn.a`` here.

    ``us`` is our prefix. Raises TielineError `unauthenticated` (name_of_peer).
    """
    _, at, suffix = name.rpartition("@")
    if at and (suffix == us or any(peer.prefix == suffix for peer in peers)):
        cause = Reason(code="name_of_peer", values={"who": name[:200], "prefix": suffix[:200]})
        raise TielineError("unauthenticated", sentence(cause), reasons=(cause,))
