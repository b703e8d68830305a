"""Chain: verify a record offline, from pinned roots and the envelopes that came with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import is_under
from tieline.model.record import Record, Root
from tieline.registry.admission import Admission, Head, Outcome
from tieline.registry.catalogue import Catalogue
from tieline.registry.keys import fingerprint
from tieline.registry.rules import refused

MAX_CHAIN_ENVELOPES = 1_000


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One signature that was verified."""

    id: str
    rev: int
    sha256: str
    kid: str
    fingerprint: str  # of the key that verified it
    exp: int


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What the last envelope says, and the signatures it rests on, the nearest to the root first."""

    record: Record
    root: str  # the pinned prefix that everything rests on
    steps: tuple[Step, ...]


def verify_chain(envelopes: Sequence[bytes], roots: Iterable[Root], now_s: int) -> Verified:
    """Verify the last of ``envelopes`` with the help of the others, which may come in any order.

    Raises TielineError `record_refused` with the first rule that any of them breaks; chain_incomplete when one is
    missing.
    """
    if not 1 <= len(envelopes) <= MAX_CHAIN_ENVELOPES:
        raise TielineError("invalid_request", f"{len(envelopes)} envelopes; 1 to {MAX_CHAIN_ENVELOPES} can be verified")
    pinned = tuple(roots)
    catalogue = Catalogue(pinned)
    decided: dict[bytes, Admission] = {}
    for envelope in envelopes:
        admission = catalogue.admit(envelope, now_s)
        for each in (admission, *admission.released):
            decided[each.envelope] = each
            if each.outcome is Outcome.REFUSED and each.reason is not None:
                raise refused(each.reason.code, each.head.id, **each.reason.values)
    for prefix in catalogue.waiting():
        raise refused("chain_incomplete", prefix=prefix)
    last = decided[envelopes[-1]]
    if last.outcome is Outcome.EQUIVOCATION:
        raise TielineError("conflict", f"`{last.head.id}` has two payloads as revision {last.head.rev}")
    needed = (*catalogue.chain(last.identifier.prefix), envelopes[-1])
    root = max((root.prefix for root in pinned if is_under(last.identifier.prefix, root.prefix)), key=len)
    return Verified(record=last.record, root=root, steps=tuple(_step(decided[envelope].head) for envelope in needed))


def _step(head: Head) -> Step:
    return Step(
        id=head.id,
        rev=head.rev,
        sha256=head.sha256,
        kid=head.kid,
        fingerprint=fingerprint(head.public),
        exp=head.exp,
    )
