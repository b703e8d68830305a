"""What owners signed: kept as signed, with what the exchange decided about it."""

from __future__ import annotations

import base64
from typing import Annotated

import msgspec

from tieline.api.call import Call, named
from tieline.api.operation import Follow, operation
from tieline.api.platform import Platform
from tieline.exchange.commands import StoreRecord
from tieline.model.api import ChainView, Id, RecordBody, RecordPage, RecordView
from tieline.model.error import TielineError
from tieline.model.event import EquivocationSeen, RecordStored
from tieline.model.identifier import is_under
from tieline.model.peer import PeerState
from tieline.model.reason import sentence
from tieline.model.record import Envelope


class RecordQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records."""

    prefix: Annotated[
        str, msgspec.Meta(max_length=200, description="of this prefix and what was delegated below it")
    ] = ""
    kind: Annotated[str, msgspec.Meta(max_length=32)] = ""
    after: Annotated[Id, msgspec.Meta(description="go on after this identifier (`next_after`)")] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


@operation(
    "POST",
    "/v1/records",
    tag="records",
    status=201,
    is_change=True,
    errors=("record_refused",),
    follows=(Follow(operation="read_record", parameter="record", pointer="/id"),),
    example={"envelope": '{"payload":"e30","protected":"e30","signature":"AA"}'},
)
async def store_record(call: Call, body: RecordBody) -> RecordView:
    """Verify and keep a signed record; a withdrawal is one too.

    The same record again changes nothing. A second payload of a revision that is kept is answered with the kept one
    and its proof of equivocation.
    """
    command = call.command(StoreRecord, envelope=body.envelope.encode())
    stored: RecordStored | EquivocationSeen = await call.platform.ask(command)
    await call.platform.shown()
    return await record_view(call.platform, stored.id)


@operation(
    "GET",
    "/v1/records",
    tag="records",
    follows=tuple(
        Follow(operation=name, parameter="record", pointer="/records/0/id") for name in ("read_record", "read_chain")
    ),
)
async def list_records(call: Call, query: RecordQuery) -> RecordPage:
    """Records in order of identifier."""
    platform = call.platform
    found = await platform.read(
        platform.store.records, prefix=query.prefix, kind=query.kind, after=query.after, limit=query.limit
    )
    views = tuple([_view(platform, record, ()) for record in found])
    return RecordPage(records=views, next_after=found[-1].id if len(found) == query.limit else "")


@operation("GET", "/v1/records/{record}", tag="records")
async def read_record(call: Call, record: str) -> RecordView:
    """The kept revision of one record."""
    return await record_view(call.platform, named(record))


@operation("GET", "/v1/chain/{record}", tag="records", errors=("record_refused",))
async def read_chain(call: Call, record: str) -> ChainView:
    """The envelopes from below the pinned root down to the record: all that a verifier needs.

    For a prefix that this exchange did not give, `root` is what it believes itself: a peer's, or one that is pinned.
    """
    platform, name = call.platform, named(record)
    stored = await platform.read(platform.store.record, name)
    if stored is None or not stored.envelope:
        raise no_record(name)
    chain = platform.view.catalogue.chain(name.partition("/")[0])
    root, public = _root_of(platform, name.partition("/")[0])
    return ChainView(
        root=root,
        root_public=public,
        envelopes=(*(envelope.decode() for envelope in chain), stored.envelope),
    )


def _root_of(platform: Platform, prefix: str) -> tuple[str, str]:
    """The nearest prefix above that is pinned here, and its key; its own where none is."""
    own, view = platform.exchange.prefix, platform.view
    pinned = {root.prefix: root.public for root in view.roots}
    pinned |= {
        peer.prefix: peer.public
        for peer in list(view.peers.values())
        if peer.state is PeerState.ACTIVE and not is_under(peer.prefix, own)
    }
    pinned[own] = platform.keys.key.public
    root = max((each for each in pinned if is_under(prefix, each)), key=len, default=own)
    return root, pinned[root]


def no_record(name: str) -> TielineError:
    """There is no such record."""
    return TielineError("not_found", f"no record of `{name}` is here", hints=("tieline find ''  # what is here",))


async def record_view(platform: Platform, name: str) -> RecordView:
    """A record as it is kept, and how it stands now."""
    stored = await platform.read(platform.store.record, name)
    if stored is None:
        raise no_record(name)
    proofs = await platform.read(platform.store.equivocations, name)
    return _view(platform, stored, [seen for proof in proofs for seen in (proof.kept_sha256, proof.other_sha256)])


def _view(platform: Platform, stored: RecordStored, equivocation: list[str] | tuple[str, ...]) -> RecordView:
    try:
        why = platform.view.catalogue.standing(stored.id, platform.clock.now_ms() // 1000)
    except TielineError as error:
        why = None
        why_not = error.message
    else:
        why_not = sentence(why) if why is not None else ""
    return RecordView(
        id=stored.id,
        kind=stored.kind,
        rev=stored.rev,
        sha256=stored.sha256,
        status=stored.status,
        exp=stored.exp,
        kid=stored.kid,
        is_valid=not why_not,
        why_not=why_not,
        envelope=stored.envelope,
        record=msgspec.Raw(payload_of(stored.envelope)),
        equivocation=tuple(dict.fromkeys(equivocation)),
    )


def payload_of(envelope: str) -> bytes:
    """The payload as it was signed; ``null`` once the bytes were let go (long after the record expired)."""
    if not envelope:
        return b"null"
    payload = msgspec.json.decode(envelope, type=Envelope).payload
    return base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
