"""`id`: identifiers and their signed records. What is verified is verified here, without believing the exchange."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import (
    Face,
    Verbs,
    as_json,
    as_tieline,
    confirmed,
    flag,
    hint,
    note,
    option,
    pass_face,
    show_json,
    verb,
    yes,
)

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.client.context import Context
    from tieline.model.api import ChainView, RecordView
    from tieline.model.record import Root

_FILE = click.Path(dir_okay=False, exists=True, path_type=Path)
_FOLDER = click.Path(file_okay=False, exists=True, path_type=Path)
with_lease = option("--lease", default="90d", metavar="TIME", help="lease")


def with_key(function: Callable[..., None]) -> Callable[..., None]:
    """Whose key signs: a file of its own, or the folder of a site."""
    for names, kind, about in ((("--site", "folder"), _FOLDER, "key_site"), (("--key",), _FILE, "key")):
        function = option(*names, default=None, type=kind, help=about)(function)
    return function


@click.group("id", cls=Verbs, help="id")
def record() -> None:
    """Identifiers and records."""


@verb("resolve", "id_resolve")
@click.argument("identifier")
@as_json
@pass_face
def resolve(face: Face, identifier: str, as_json: bool) -> None:
    """The record of an identifier, as the exchange keeps it."""
    found = face.call(lambda client: client.resolve(identifier))
    if as_json:
        show_json(found)
        return
    _show(found)


@verb("verify", "id_verify")
@click.argument("identifier")
@option("--root", default="", metavar="PREFIX=KEY", help="root")
@as_json
@pass_face
def verify(face: Face, identifier: str, root: str, as_json: bool) -> None:
    """Verify every signature from the pinned root down to the record, on this machine."""
    from tieline.registry import verify_chain

    async def work(client: AsyncClient) -> tuple[ChainView, Context]:
        return await client.chain(identifier), client.context

    chain, context = face.call(work)
    pinned = _root(root, chain, context)
    verified = verify_chain([each.encode() for each in chain.envelopes], [pinned], int(time.time()))
    if verified.record.id != identifier:
        raise as_tieline(
            "check_failed", f"the exchange sent the record of `{verified.record.id}`, `{identifier}` was asked"
        )
    if as_json:
        show_json(verified)
        return
    for step in verified.steps:
        click.echo("\t".join((step.id, f"rev {step.rev}", step.kid, step.fingerprint, table.stamp(step.exp * 1000))))
    note(words.say("verified", id=identifier, root=verified.root, steps=len(verified.steps)))


@verb("register", "id_register")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@with_key
@with_lease
@yes
@as_json
@pass_face
def register(
    face: Face, file: str, key: Path | None, folder: Path | None, lease: str, yes: bool, as_json: bool
) -> None:
    """Sign a record from a YAML or JSON file with the owner's key, here, and store it."""
    from tieline.cli.signing import key_of, read_draft, signed_next

    draft = read_draft(file)
    owner_key = key_of(key, folder)
    lease_s = _lease_s(lease)

    async def work(client: AsyncClient) -> RecordView:
        envelope = await signed_next(client, draft, owner_key, int(time.time()), lease_s)
        note(words.say("signed", id=draft.id, fingerprint=owner_key.fingerprint))
        confirmed(words.say("store_it"), yes or not sys.stdin.isatty())
        return await client.register(envelope)

    _stored(face.call(work), as_json)


@verb("withdraw", "id_withdraw")
@click.argument("identifier")
@with_key
@yes
@as_json
@pass_face
def withdraw(face: Face, identifier: str, key: Path | None, folder: Path | None, yes: bool, as_json: bool) -> None:
    """Sign the tombstone of a record, here, and store it. An identifier is never used again."""
    from tieline.cli.signing import key_of, signed_withdrawal

    owner_key = key_of(key, folder)
    confirmed(words.say("withdraw_it", id=identifier), yes)

    async def work(client: AsyncClient) -> RecordView:
        return await client.register(await signed_withdrawal(client, identifier, owner_key, int(time.time())))

    _stored(face.call(work), as_json)


@verb("checkpoint", "id_checkpoint")
@click.argument("prefix")
@with_key
@with_lease
@yes
@as_json
@pass_face
def checkpoint(
    face: Face, prefix: str, key: Path | None, folder: Path | None, lease: str, yes: bool, as_json: bool
) -> None:
    """Sign digests of pages of all records of a prefix, so that others verify a page by one signature."""
    from tieline.cli.signing import key_of, signed_checkpoint

    owner_key = key_of(key, folder)
    lease_s = _lease_s(lease)

    async def work(client: AsyncClient) -> RecordView:
        envelope, spec = await signed_checkpoint(client, prefix, owner_key, int(time.time()), lease_s)
        note(words.say("checkpointed", count=spec.count, pages=len(spec.pages), prefix=prefix))
        confirmed(words.say("store_it"), yes or not sys.stdin.isatty())
        return await client.register(envelope)

    _stored(face.call(work), as_json)


@verb("rekey", "id_rekey")
@click.argument("prefix")
@click.argument("public", metavar="PUBLIC")
@flag("--revoke", "is_revoking", help="revoke_keys")
@yes
@as_json
@pass_face
def rekey(face: Face, prefix: str, public: str, is_revoking: bool, yes: bool, as_json: bool) -> None:
    """As an admin, where the owner's own key was lost or stolen."""
    confirmed(words.say("rekey_it", owner=prefix, public=public), yes)
    found = face.call(lambda client: client.rekey_owner(prefix, public, is_revoking=is_revoking))
    if as_json:
        show_json(found)
    else:
        note(words.say("rekeyed", owner=found.owner, kid=found.kid))


@verb("resign", "id_resign")
@click.argument("prefix")
@with_key
@with_lease
@yes
@as_json
@pass_face
def resign(
    face: Face, prefix: str, key: Path | None, folder: Path | None, lease: str, yes: bool, as_json: bool
) -> None:
    """Sign again, here, what another key signed: look at the list, a thief may have written some of it."""
    from tieline.cli.signing import key_of, signed_again, signed_by_others

    owner_key = key_of(key, folder)
    lease_s = _lease_s(lease)

    async def work(client: AsyncClient) -> list[RecordView]:
        found = await signed_by_others(client, prefix, owner_key)
        for each in found:
            note("\t".join((each.id, f"rev {each.rev}", each.kid, words.word(each.status))))
        if found:
            confirmed(words.say("resign_them", count=len(found)), yes)
        now_s = int(time.time())
        return [await client.register(await signed_again(client, each, owner_key, now_s, lease_s)) for each in found]

    stored = face.call(work)
    if as_json:
        show_json([{"id": each.id, "rev": each.rev, "kid": each.kid} for each in stored])
    else:
        note(words.say("resigned", count=len(stored)))
        hint(f"tieline id checkpoint {prefix} " + (f"--site {folder}" if folder else f"--key {key}"))


def _stored(found: RecordView, as_json: bool) -> None:
    if as_json:
        show_json(found)
    else:
        click.echo(found.id)
        note(words.say("stored", id=found.id, rev=found.rev, status=words.word(found.status)))


def _lease_s(text: str) -> int:
    from tieline.model.quantity import duration_us

    try:
        return duration_us(text) // 1_000_000
    except ValueError as error:
        raise click.UsageError(f"--lease: {error}") from None


def _root(stated: str, chain: ChainView, context: Context) -> Root:
    """The root to believe: the stated one, or the one that was pinned at login; never the exchange's own word."""
    from tieline.model.record import DelegatedKey, Root
    from tieline.registry import fingerprint

    if stated:
        prefix, sign, public = stated.partition("=")
        if not sign:
            raise click.UsageError("--root PREFIX=KEY")
    else:
        if not context.fingerprint:
            raise as_tieline(
                "check_failed",
                f"no key of the exchange at `{context.url}` is pinned, so nothing can be verified against it",
                f"tieline login {context.url} --token TOKEN",
                "tieline id verify ID --root PREFIX=KEY",
            )
        if fingerprint(chain.root_public) != context.fingerprint or (context.prefix and chain.root != context.prefix):
            raise as_tieline(
                "check_failed",
                f"the chain rests on `{chain.root}` {fingerprint(chain.root_public)}, "
                f"pinned is `{context.prefix or chain.root}` {context.fingerprint}",
            )
        prefix, public = chain.root, chain.root_public
    key = DelegatedKey(kid=f"{prefix}#exchange", public=public, nb=0, exp=253_402_300_799)
    return Root(prefix=prefix, keys=(key,))


def _show(found: RecordView) -> None:
    import msgspec

    rows = [
        ("id", found.id),
        ("kind", words.word(found.kind)),
        ("rev", str(found.rev)),
        ("status", words.word(found.status)),
        ("expires", table.stamp(found.exp * 1000)),
        ("kid", found.kid),
        ("sha256", found.sha256),
        ("is_valid", words.say("yes") if found.is_valid else f"{words.say('no')}: {table.clean(found.why_not)}"),
    ]
    table.pairs([(words.say("col_" + name), text) for name, text in rows])
    if found.equivocation:
        note(words.say("equivocation", hashes=", ".join(found.equivocation)))
    click.echo(msgspec.json.format(bytes(found.record), indent=2).decode())


for _each in (resolve, verify, register, withdraw, checkpoint, rekey, resign):
    record.add_command(_each)
