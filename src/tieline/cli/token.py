"""`token`: who may call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import Face, Verbs, as_json, hint, note, option, pass_face, show_json, verb

if TYPE_CHECKING:
    from tieline.model.api import TokenView

ROLES = ("admin", "owner", "operator", "user", "auditor", "regulator", "join")


@click.group("token", cls=Verbs, help="token")
def token() -> None:
    """Tokens."""


@verb("create", "token_create")
@click.argument("name")
@option("--role", "roles", multiple=True, type=click.Choice(ROLES), default=("user",), help="role")
@option("--owner", default="", metavar="PREFIX|NAME", help="token_owner")
@option("--ttl", default="1d", metavar="TIME", help="ttl")
@option("--uses", default=-1, type=click.IntRange(-1, 100_000), help="uses")
@as_json
@pass_face
def create(face: Face, name: str, roles: tuple[str, ...], owner: str, ttl: str, uses: int, as_json: bool) -> None:
    """Make a token; its secret is printed once, alone on stdout."""
    from tieline.model.party import Role

    ttl_s = _seconds(ttl)
    held = tuple(Role(role) for role in roles)
    made = face.call(lambda client: client.create_token(name, held, owner=owner, ttl_s=ttl_s, uses=uses))
    if as_json:
        show_json(made)
        return
    click.echo(made.secret)
    note(
        words.say(
            "token_made", id=made.id, roles=", ".join(role.value for role in made.roles), until=_until(made.expires_ms)
        )
    )
    hint("tieline site join TOKEN FOLDER" if "join" in roles else "tieline login URL --token TOKEN")


@verb("delegate", "token_delegate")
@option("--scope", "scopes", multiple=True, required=True, metavar="SCOPE", help="scope")
@option("--job", default="", help="token_job")
@option("--project", default="", help="token_project")
@option("--ttl", default="1h", metavar="TIME", help="delegate_ttl")
@as_json
@pass_face
def delegate(face: Face, scopes: tuple[str, ...], job: str, project: str, ttl: str, as_json: bool) -> None:
    """Pass a part of your own right on; the token is printed alone on stdout."""
    ttl_s = _seconds(ttl)
    made = face.call(lambda client: client.delegate_token(scopes, job=job, project=project, ttl_s=ttl_s))
    if as_json:
        show_json(made)
        return
    click.echo(made.secret)
    said = ", ".join(made.scopes) + (f" ({made.job})" if made.job else "")
    note(words.say("token_delegated", id=made.id, user=made.user, until=_until(made.expires_ms), scopes=said))


@verb("ls", "token_ls")
@as_json
@pass_face
def ls(face: Face, as_json: bool) -> None:
    """Tokens, without secrets."""
    found = face.call(lambda client: client.tokens())
    if as_json:
        show_json(found)
        return
    table.show(("id", "name", "roles", "owner", "expires", "uses_left", "state"), [_row(each) for each in found])


@verb("revoke", "token_revoke")
@click.argument("name", metavar="ID")
@as_json
@pass_face
def revoke(face: Face, name: str, as_json: bool) -> None:
    """Make a token worthless."""
    found = face.call(lambda client: client.revoke_token(name))
    if as_json:
        show_json(found)
    else:
        note(words.say("token_revoked", id=found.id))


def _seconds(text: str) -> int:
    from tieline.model.quantity import duration_us

    try:
        return duration_us(text) // 1_000_000
    except ValueError as error:
        raise click.UsageError(f"--ttl: {error}") from None


def _row(each: TokenView) -> tuple[str, ...]:
    return (
        each.id,
        each.name,
        ",".join(role.value for role in each.roles),
        each.owner or "-",
        _until(each.expires_ms),
        "-" if each.uses_left < 0 else str(each.uses_left),
        words.say("revoked") if each.is_revoked else words.say("valid"),
    )


def _until(ms: int) -> str:
    return table.stamp(ms) if ms else words.say("never")


for _each in (create, delegate, ls, revoke):
    token.add_command(_each)
