"""Rekeying: the exchange gives an owner's prefix to another key of that owner, and takes the word of the others.

The owner asks with a key that is believed here. Where it has none any more, because it was lost or somebody else has
it, an admin says which key is the owner's.
"""

from __future__ import annotations

import msgspec

from tieline.exchange.commands import Decision, Rekey
from tieline.exchange.keys import BACKDATE_S, KEY_YEARS_S
from tieline.exchange.permission import allow, no_such, owns
from tieline.exchange.records import stored_of
from tieline.exchange.sites import use_nonce
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.party import Role
from tieline.model.record import DelegatedKey, Delegation, Record, Status
from tieline.model.rekeying import REKEY, RekeyStatement, RekeyView
from tieline.ports import Ids
from tieline.registry import open_statement, opened, verify_statement

OVERLAP_S = 30 * 86_400  # in which the owner signs its records again
MOST_KEYS = 16

replace = msgspec.structs.replace


def rekey_owner(view: View, command: Rekey, now_ms: int, ids: Ids) -> Decision:
    """The next revision of the owner's delegation. Reply: RekeyView. Nothing happens when it says so already."""
    now_s = now_ms // 1000
    owner, public, is_revoking = _asked(view, command, now_ms)
    before, record = _given(view, owner)
    spec = msgspec.convert(record.spec, Delegation)
    keys = _keys(spec, public, f"{owner}#k{record.rev + 1}", now_s, is_revoking=is_revoking)
    if keys == spec.keys:
        return Decision((), _view(owner, public, spec, record.rev, before))
    changed = replace(spec, keys=keys)
    stored = stored_of(view.catalogue.judge(view.keys.revise(before, changed, now_s), now_s))
    return Decision((stored,), _view(owner, public, changed, stored.rev, stored.envelope.encode()))


def _asked(view: View, command: Rekey, now_ms: int) -> tuple[str, str, bool]:
    """Which owner, which key, and whether the others are revoked; whoever asks may ask that."""
    actor = command.actor
    allow(actor, Role.ADMIN, Role.OWNER, Role.SITE, what="change an owner's keys")
    if not command.statement:
        allow(actor, Role.ADMIN, what="change an owner's keys without a statement that the owner signed")
        if not command.owner or not command.public:
            raise TielineError("invalid_request", "`owner` and `public` are missing", where="owner")
        return command.owner, command.public, command.is_revoking
    said, kid = open_statement(command.statement, REKEY, RekeyStatement)
    is_its_own = owns(actor, said.owner) or (actor.has(Role.SITE) and actor.owner == said.owner)
    if not (is_its_own or actor.has(Role.ADMIN)):
        raise no_such("owner", said.owner)
    known = view.catalogue.key(kid, now_ms // 1000) if kid.startswith(f"{said.owner}#") else None
    if known is None:
        raise TielineError(
            "forbidden",
            f"the key `{kid[:200]}` does not speak for `{said.owner}` here now",
            hints=(f"tieline id rekey {said.owner} {said.public} --revoke  # an admin of the exchange",),
        )
    verify_statement(command.statement, known, REKEY)
    use_nonce(view, said.nonce, said.at_ms, now_ms)
    return said.owner, said.public, said.is_revoking


def _given(view: View, owner: str) -> tuple[bytes, Record]:
    """The delegation that is this exchange's own to change."""
    parent, _, label = owner.rpartition(".")
    before = view.catalogue.delegation(owner)
    record = opened(before).record if before is not None else None
    if before is None or record is None or parent != view.prefix or record.id != f"{parent}/owner/{label}":
        raise no_such("owner", owner)
    if record.status is Status.WITHDRAWN:
        raise TielineError("conflict", f"`{owner}` was withdrawn", where="owner")
    return before, record


def _keys(spec: Delegation, public: str, kid: str, now_s: int, *, is_revoking: bool) -> tuple[DelegatedKey, ...]:
    """The keys from now on; the oldest go where there are too many, and count for nothing then either."""
    own = next((key for key in spec.keys if key.public == public), None)
    if own is not None and own.revoked_from:
        raise TielineError("conflict", f"the key `{own.kid}` was revoked, and stays so", where="public")
    nb = now_s - BACKDATE_S
    fresh = own or DelegatedKey(kid=kid, public=public, nb=nb, exp=nb + KEY_YEARS_S)
    others = [_ended(key, now_s, is_revoking=is_revoking) for key in spec.keys if key is not own]
    return (*others[-(MOST_KEYS - 1) :], fresh)


def _ended(key: DelegatedKey, now_s: int, *, is_revoking: bool) -> DelegatedKey:
    if key.revoked_from:
        return key
    if is_revoking:
        return replace(key, revoked_from=now_s)
    end = max(key.nb + 1, now_s + OVERLAP_S)
    return key if key.exp <= end else replace(key, exp=end)


def _view(owner: str, public: str, spec: Delegation, rev: int, envelope: bytes) -> RekeyView:
    kid = next(key.kid for key in spec.keys if key.public == public)
    return RekeyView(owner=owner, kid=kid, rev=rev, delegation=envelope.decode())
