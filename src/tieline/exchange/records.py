"""Records: verified, kept as signed, withdrawn by their owner; others' copies are never believed."""

from __future__ import annotations

from tieline.exchange.commands import Decision, StoreRecord
from tieline.exchange.permission import allow
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import EquivocationSeen, RecordStored
from tieline.model.party import Role
from tieline.ports import Ids


def store_record(view: View, command: StoreRecord, now_ms: int, ids: Ids) -> Decision:
    """Who sends a record does not matter, only who signed it; yet a stranger may not fill the store."""
    allow(command.actor, Role.ADMIN, Role.OWNER, Role.USER, Role.SITE, what="register records")
    admission = view.catalogue.admit(command.envelope, now_ms // 1000)
    head = admission.head
    if admission.outcome == "equivocation":
        proof = EquivocationSeen(
            id=head.id,
            rev=head.rev,
            kept_sha256=head.sha256,
            other_sha256=admission.other_sha256,
            other_envelope=command.envelope.decode(),
        )
        return Decision((proof,), proof)
    stored = RecordStored(
        id=head.id,
        kind=head.kind,
        rev=head.rev,
        sha256=head.sha256,
        exp=head.exp,
        status=head.status,
        kid=head.kid,
        envelope=command.envelope.decode(),
    )
    if admission.outcome == "unchanged":
        return Decision((), stored)
    if admission.outcome == "parked":
        raise TielineError(
            "record_refused",
            f"the delegation of `{head.id}`'s prefix is not known here",
            hints=("tieline site join URL  # the exchange delegates a prefix to you",),
        )
    return Decision((stored,), stored)
