"""Proofs over the log: signed heads, that the log only grew, and that an entry is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from tieline.api.call import OPTIONAL_NAME, Call
from tieline.api.operation import operation
from tieline.api.peercaller import active_peer
from tieline.drivers.stores.heads import MOST_HEADS, heads_of, newest_heads
from tieline.drivers.stores.log import GENESIS
from tieline.drivers.stores.reader import event_view
from tieline.drivers.stores.tiles import Proofs
from tieline.model.audit import MOST_SIZE, GrowthView, HeadPage, HeadView, InclusionView, RangeView, Size
from tieline.model.error import TielineError
from tieline.model.party import Role

At = Annotated[Size, msgspec.Meta(description="number of entries of the tree; 0: as many as there are")]
First = Annotated[int, msgspec.Meta(ge=1, le=MOST_SIZE)]


class ProofQuery(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"old": "from", "new": "to"}
):
    """Between which lengths of the log."""

    old: Annotated[Size, msgspec.Meta(description="number of entries that were seen before")] = 0
    new: At = 0


class HeadsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which heads."""

    exchange: Annotated[
        str, msgspec.Meta(pattern=OPTIONAL_NAME, description="all kept heads of this one; else the newest of each")
    ] = ""
    after: Annotated[Size, msgspec.Meta(description="go on after this size")] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_HEADS)] = 100


class InclusionQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In which tree."""

    size: At = 0


class RangeQuery(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"first": "from", "last": "to"}
):
    """Which entries, in which tree."""

    first: Annotated[First, msgspec.Meta(description="the first entry")] = 1
    last: Annotated[Size, msgspec.Meta(description="the last entry; 0: the last of the tree")] = 0
    size: At = 0


@operation("GET", "/v1/audit/head", tag="log")
async def read_audit_head(call: Call) -> HeadView:
    """The head of the log as it is now, signed by the exchange.

    Whoever holds the exchange's public key can check it, and keep it: a later head has to extend it.
    """
    await _known(call)
    return await call.platform.heading.newest()


@operation("GET", "/v1/audit/heads", tag="log")
async def list_audit_heads(call: Call, query: HeadsQuery) -> HeadPage:
    """Signed heads that are kept here: our own, and those that peers showed us."""
    await _known(call)
    engine, exchange = call.platform.store.engine, query.exchange.replace("~", "/")
    if exchange:
        return HeadPage(heads=tuple(await call.platform.read(heads_of, engine, exchange, query.after, query.limit)))
    return HeadPage(heads=tuple(await call.platform.read(newest_heads, engine)))


@operation("GET", "/v1/audit/proof", tag="log", errors=("invalid_cursor",))
async def read_audit_proof(call: Call, query: ProofQuery) -> GrowthView:
    """That the log of `from` entries is the beginning of the log of `to` entries."""
    await _known(call)

    def proved() -> GrowthView:
        proofs = _proofs(call)
        new = query.new or proofs.tree.size
        return GrowthView(
            old=query.old,
            new=new,
            proof=_hex(proofs.consistency(query.old, new)),
            old_root=proofs.root(query.old).hex(),
            new_root=proofs.root(new).hex(),
        )

    return await call.platform.read(proved)


@operation("GET", "/v1/audit/entry/{seq}", tag="log", errors=("invalid_cursor",))
async def read_audit_entry(call: Call, seq: str, query: InclusionQuery) -> InclusionView:
    """One entry of the log with the proof that it is in the tree."""
    number = int(seq) if seq.isascii() and seq.isdigit() and len(seq) <= len(str(MOST_SIZE)) else 0

    def proved() -> InclusionView:
        proofs = _proofs(call)
        size = query.size or proofs.tree.size
        if not 1 <= number <= proofs.tree.size:
            raise TielineError("not_found", f"the log has no entry `{seq[:40]}`; it has {proofs.tree.size:,}")
        (row,) = call.platform.store.log_rows(number - 1, 1)
        proof = _hex(proofs.inclusion(number, size))
        return InclusionView(entry=event_view(row), size=size, root=proofs.root(size).hex(), proof=proof)

    return await call.platform.read(proved)


@operation("GET", "/v1/audit/range", tag="log", errors=("invalid_cursor",))
async def read_audit_range(call: Call, query: RangeQuery) -> RangeView:
    """What is needed beside the entries `from` to `to` to compute the root of the tree from them."""

    def proved() -> RangeView:
        proofs = _proofs(call)
        size = query.size or proofs.tree.size
        last = query.last or size
        left, right = proofs.around(query.first - 1, last, size)
        rows = call.platform.store.log_rows(query.first - 2, 1) if query.first > 1 else []
        before = rows[0].hash if rows else GENESIS
        return RangeView(
            first=query.first, last=last, size=size, before=before.hex(), left=_hex(left), right=_hex(right)
        )

    return await call.platform.read(proved)


async def _known(call: Call) -> None:
    """A peer must be an active one."""
    if call.actor.has(Role.PEER):
        await active_peer(call)


def _proofs(call: Call) -> Proofs:
    store = call.platform.store
    return Proofs(store.engine, store.tree)


def _hex(hashes: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(each.hex() for each in hashes)
