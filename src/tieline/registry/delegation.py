"""Delegation: what a prefix may give away, and to which keys."""

from __future__ import annotations

from collections.abc import Mapping

from tieline.model.identifier import Identifier, is_under
from tieline.model.record import Delegation, Status
from tieline.registry.authority import MAX_DELEGATION_STEPS, Authority, TrustedKey
from tieline.registry.keys import check_strong, public_bytes
from tieline.registry.rules import refused, shown_time


def check_delegation(authority: Authority, record: Identifier, spec: Delegation, taker: Authority | None) -> None:
    """Refuse a delegation that gives what is not the giver's to give. ``taker`` is the prefix given, where known."""
    where = str(record)
    check_below(record, spec, where)
    check_free(taker, spec, where)
    steps = authority.steps + 1
    if steps > MAX_DELEGATION_STEPS:
        raise refused("chain_depth", where, prefix=spec.prefix, steps=steps, limit=MAX_DELEGATION_STEPS)
    check_width(authority, spec, where)
    check_delegated_keys(spec, {} if taker is None else taker.keys, where)


def check_free(taker: Authority | None, spec: Delegation, where: str) -> None:
    """A prefix that another record holds is free again only once that record is withdrawn."""
    if taker is None or taker.held is None or taker.given_by == where:
        return
    if taker.held.status is not Status.WITHDRAWN:
        raise refused("delegation_taken", where, given=spec.prefix, holder=taker.given_by)


def check_below(record: Identifier, spec: Delegation, where: str) -> None:
    """The prefix given must be the record's own prefix and name, joined: one label below, and the same for all."""
    given, prefix = spec.prefix, record.prefix
    if given == prefix:
        raise refused("delegation_self", where, prefix=prefix)
    if is_under(prefix, given):
        raise refused("delegation_above", where, given=given, prefix=prefix)
    if not is_under(given, prefix):
        raise refused("delegation_outside", where, given=given, prefix=prefix)
    if given != f"{prefix}.{record.name}" or "." in record.name:
        needed = f"{prefix}.{record.name.replace('.', '-')}"
        raise refused("delegation_name", where, id=where, needed=needed, given=given)


def check_width(authority: Authority, spec: Delegation, where: str) -> None:
    """Neither more kinds nor more records than the giver has, at any level above."""
    for level in authority.upwards():
        for kind in spec.kinds:
            if level.kinds is not None and kind not in level.kinds:
                raise refused("delegation_kinds", where, prefix=level.prefix, kind=kind)
        if spec.max_records > level.max_records:
            raise refused(
                "delegation_quota", where, prefix=level.prefix, asked=spec.max_records, limit=level.max_records
            )
        if level.is_pinned:
            break


def check_delegated_keys(spec: Delegation, before: Mapping[str, TrustedKey], where: str) -> None:
    """Each key is named under the prefix given, once, has a window, is a sound point, and keeps its name for ever."""
    seen: dict[str, None] = {}
    for key in spec.keys:
        if key.kid in seen or key.kid.partition("#")[0] != spec.prefix:
            raise refused("delegation_kid", where, kid=key.kid, given=spec.prefix)
        seen[key.kid] = None
        if key.exp <= key.nb:
            raise refused("delegation_window", where, kid=key.kid, exp=shown_time(key.exp), nb=shown_time(key.nb))
        public = public_bytes(key.public, key.kid)
        check_strong(public, key.kid, where)
        named = before.get(key.kid)
        if named is not None and named.public != public:
            raise refused("delegation_rekeyed", where, kid=key.kid)
