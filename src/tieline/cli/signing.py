"""Signing records on the owner's own machine: the key never leaves it."""

from __future__ import annotations

import base64
import binascii
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import Identifier
from tieline.model.record import MAX_QUOTA, MAX_RECORD_DEPTH, Delegation, Link, Record, Status
from tieline.model.spec import CheckpointSpec
from tieline.registry import Key, opened, sign
from tieline.registry.pages import CHECKPOINT_NAME, checkpoint_of

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.api import RecordView

MOST_BYTES = 65_536
BACKDATE_S = 60
RECORDS_AT_ONCE = 1_000


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file says of one identifier; the rest (revision, lease, signature) is made when it is signed."""

    id: Annotated[str, msgspec.Meta(max_length=200)]
    kind: str = ""
    spec: dict[str, Any] = {}
    links: tuple[Link, ...] = ()
    aka: tuple[str, ...] = ()
    status: Status = Status.ACTIVE


def read_draft(name: str) -> Draft:
    """The record that a YAML or JSON file states. Raises TielineError `invalid_request`."""
    if name == "-":
        text = sys.stdin.buffer.read(MOST_BYTES + 1)
    else:
        with open(name, "rb") as file:
            text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise TielineError("too_large", f"`{name}` is over {MOST_BYTES:,} bytes, the most that a record may be")
    try:
        draft = msgspec.convert(_tree(text), Draft)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise TielineError("invalid_request", f"`{name}` is no record: {error}".splitlines()[0]) from None
    identifier = Identifier.parse(draft.id)
    if draft.kind not in ("", identifier.kind):
        raise TielineError("invalid_request", f"`{name}`: kind `{draft.kind}` is not the kind of `{draft.id}`")
    return draft


def _tree(text: bytes) -> Any:
    """The value of a YAML document without aliases and tags: nothing unfolds, nothing is constructed."""
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_RECORD_DEPTH:
                raise ValueError(f"nested deeper than {MAX_RECORD_DEPTH} levels")
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 0
                raise ValueError(f"line {line}: an alias cannot stand in a record")  # noqa: TRY004 - no programmer error
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from None


def key_of(file: Path | None, folder: Path | None) -> Key:
    """The owner's key, from a file of its own or from a site's folder. Raises TielineError `invalid_request`."""
    if (file is None) == (folder is None):
        raise TielineError(
            "invalid_request",
            "name the owner's key",
            hints=("tieline id register FILE --site FOLDER", "... --key FILE"),
        )
    if folder is not None:
        from tieline.drivers.siteprocess import owner_seed

        return Key(owner_seed(folder))
    assert file is not None
    return Key(seed_of(file.read_bytes()[:1024], str(file)))


def seed_of(content: bytes, name: str) -> bytes:
    """32 bytes: raw, or as hex or base64 text."""
    if len(content) == 32:
        return content
    text = content.strip()
    try:
        if len(text) == 64:
            return bytes.fromhex(text.decode())
        seed = base64.b64decode(text.translate(bytes.maketrans(b"-_", b"+/")) + b"=" * (-len(text) % 4), validate=True)
        if len(seed) == 32:
            return seed
    except (ValueError, binascii.Error):
        pass
    raise TielineError("invalid_request", f"`{name}` holds no Ed25519 seed: 32 bytes, raw, hex or base64")


async def signed_next(client: AsyncClient, draft: Draft, key: Key, now_s: int, lease_s: int) -> str:
    """The envelope of the next revision of ``draft``'s identifier."""
    identifier = Identifier.parse(draft.id)
    rev, prev = await _head(client, draft.id)
    nb = now_s - BACKDATE_S
    record = Record(
        id=draft.id,
        kind=identifier.kind,
        rev=rev + 1,
        prev=prev,
        nb=nb,
        exp=nb + lease_s,
        status=draft.status,
        spec=draft.spec,
        links=draft.links,
        aka=draft.aka,
    )
    return sign(record, key, await _kid(client, identifier.prefix, key)).decode()


async def signed_withdrawal(client: AsyncClient, identifier: str, key: Key, now_s: int) -> str:
    """The envelope of the tombstone of ``identifier``: what it last said, withdrawn."""
    found = await client.resolve(identifier)
    last = opened(found.envelope.encode()).record
    nb = max(last.nb, now_s - BACKDATE_S)
    record = msgspec.structs.replace(
        last, rev=last.rev + 1, prev=found.sha256, status=Status.WITHDRAWN, nb=nb, exp=max(last.exp, nb + 86_400)
    )
    return sign(record, key, await _kid(client, Identifier.parse(identifier).prefix, key)).decode()


async def signed_by_others(client: AsyncClient, prefix: str, key: Key) -> list[RecordView]:
    """The records of ``prefix`` that are under another key than this; its checkpoint is made anew instead."""
    kid = await _kid(client, prefix, key)
    return [each for each in await _views(client, prefix) if each.kid != kid and not _is_checkpoint(each.id)]


async def signed_again(client: AsyncClient, found: RecordView, key: Key, now_s: int, lease_s: int) -> str:
    """The envelope of what the record last said, as the next revision; tombstones stay tombstones."""
    last = opened(found.envelope.encode()).record
    nb = max(last.nb, now_s - BACKDATE_S)
    record = msgspec.structs.replace(last, rev=last.rev + 1, prev=found.sha256, nb=nb, exp=nb + lease_s)
    return sign(record, key, await _kid(client, Identifier.parse(found.id).prefix, key)).decode()


def _is_checkpoint(identifier: str) -> bool:
    return identifier.partition("/")[2] == CHECKPOINT_NAME


async def signed_checkpoint(
    client: AsyncClient, prefix: str, key: Key, now_s: int, lease_s: int
) -> tuple[str, CheckpointSpec]:
    """The envelope of the owner's digests of all its records, as the exchange shows them, and what it says.

    Each record is verified with ``key`` first: nobody signs here what it did not write. Raises `record_refused` for a
    record that is not under ``key``'s signature.
    """
    kid = await _kid(client, prefix, key)
    envelopes = [view.envelope.encode() for view in await _views(client, prefix)]
    made = checkpoint_of(prefix, envelopes, {kid: key.public}, now_s)
    draft = Draft(id=f"{prefix}/{CHECKPOINT_NAME}", spec=msgspec.to_builtins(made.spec))
    return await signed_next(client, draft, key, now_s, lease_s), made.spec


async def _views(client: AsyncClient, prefix: str) -> list[RecordView]:
    """Every record of exactly this prefix."""
    found: list[RecordView] = []
    after = f"{prefix}/"  # those of the prefixes below it sort before
    while len(found) <= MAX_QUOTA:
        page = await client.records(prefix=prefix, after=after, limit=RECORDS_AT_ONCE)
        found += [view for view in page.records if view.id.startswith(f"{prefix}/")]
        if not page.next_after or page.next_after <= after:
            return found
        after = page.next_after
    raise TielineError("too_large", f"`{prefix}` has more than {MAX_QUOTA:,} records")


async def _head(client: AsyncClient, identifier: str) -> tuple[int, str]:
    """Revision and payload hash of what is stored; 0 where there is nothing yet."""
    try:
        found = await client.resolve(identifier)
    except TielineError as error:
        if error.code == "not_found":
            return 0, ""
        raise
    return found.rev, found.sha256


async def _kid(client: AsyncClient, prefix: str, key: Key) -> str:
    """The name under which ``prefix`` was given to ``key``. Raises TielineError `forbidden` when it was not."""
    exchange = await client.exchange()
    if prefix == exchange.prefix:
        return f"{prefix}#exchange"
    parent, _, label = prefix.rpartition(".")
    try:
        found = await client.resolve(f"{parent}/owner/{label}")
    except TielineError as error:
        if error.code != "not_found":
            raise
        raise TielineError(
            "forbidden", f"`{prefix}` was given to nobody here", hints=("tieline site join URL",)
        ) from None
    given = msgspec.convert(opened(found.envelope.encode()).record.spec, Delegation)
    for each in given.keys:
        if each.public == key.public and not each.revoked_from:
            return each.kid
    raise TielineError("forbidden", f"key {key.fingerprint} is none of `{prefix}`'s")
