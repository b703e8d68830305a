"""Records: verified, kept as signed, withdrawn by their owner; others' copies are never believed."""

from __future__ import annotations

import msgspec

from tieline.exchange.commands import Decision, ForgetRecords, StoreRecord
from tieline.exchange.permission import allow
from tieline.exchange.view import View
from tieline.language import compile_policy
from tieline.model.error import TielineError
from tieline.model.event import EquivocationSeen, Events, RecordsForgotten, RecordStored
from tieline.model.party import Role
from tieline.model.spec import PoolSpec
from tieline.ports import Ids
from tieline.registry import Admission, Outcome

DAY_MS = 86_400_000


def store_record(view: View, command: StoreRecord, now_ms: int, ids: Ids) -> Decision:
    """Who sends a record does not matter, only who signed it; yet a stranger may not fill the store."""
    allow(command.actor, Role.ADMIN, Role.OWNER, Role.USER, Role.SITE, what="register records")
    admission = view.catalogue.judge(command.envelope, now_ms // 1000)
    head = admission.head
    if admission.outcome is Outcome.EQUIVOCATION:
        proof = EquivocationSeen(
            id=head.id,
            rev=head.rev,
            kept_sha256=head.sha256,
            other_sha256=admission.other_sha256,
            other_envelope=command.envelope.decode(),
        )
        events: list[Events] = [proof] if view.catalogue.is_news(head.id, head.rev) else []
        if admission.fresh is not None:
            _check_policy(admission)
            events.append(stored_of(msgspec.structs.replace(admission, held=admission.fresh)))
        return Decision(tuple(events), proof)
    if admission.outcome is Outcome.PARKED:
        raise TielineError(
            "record_refused",
            f"the delegation of `{head.id}`'s prefix is not known here",
            hints=("tieline site join URL  # the exchange delegates a prefix to you",),
        )
    _check_policy(admission)
    stored = stored_of(admission)
    return Decision(() if admission.outcome is Outcome.UNCHANGED else (stored,), stored)


def _check_policy(admission: Admission) -> None:
    """Refuse a pool whose owner's policy means nothing. Raises TielineError `invalid_expression`."""
    if isinstance(admission.spec, PoolSpec) and admission.spec.policy.strip():
        compile_policy(admission.spec.policy)


def forget_records(view: View, command: ForgetRecords, now_ms: int, ids: Ids) -> Decision:
    """Let go of what retention says; an active lease is never cut short."""
    due = []
    for name in command.ids:
        head = view.catalogue.head(name)
        if head is not None and head.exp * 1000 < now_ms - view.limits.record_days * DAY_MS:
            due.append(name)
    return Decision((RecordsForgotten(ids=tuple(due)),) if due else (), len(due))


def stored_of(admission: Admission) -> RecordStored:
    """The fact that follows from a record which was found good."""
    head = admission.head
    return RecordStored(
        id=head.id,
        kind=head.kind,
        rev=head.rev,
        sha256=head.sha256,
        exp=head.exp,
        status=head.status,
        kid=head.kid,
        envelope=admission.envelope.decode(),
    )
