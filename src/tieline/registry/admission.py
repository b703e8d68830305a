"""Admission: what can become of one envelope, and the checks that need only the record and what is held of it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import Identifier
from tieline.model.kinds import KINDS
from tieline.model.reason import Reason
from tieline.model.record import MAX_LEASE_S, Record, Status
from tieline.model.spec import Spec
from tieline.registry.authority import Authority, Held, TrustedKey, verifying_key
from tieline.registry.envelope import Opened
from tieline.registry.rules import SKEW_S, refused, shown_time


class Outcome(StrEnum):
    """What became of an envelope that broke no rule."""

    STORED = "stored"
    UNCHANGED = "unchanged"  # it is held already
    BEHIND = "behind"  # a newer revision is held; only from a copy, whose order says nothing
    EQUIVOCATION = "equivocation"  # its writer signed two payloads as one revision; one of them is kept (`prevails`)
    PARKED = "parked"  # its prefix's delegation is not known yet
    REFUSED = "refused"  # only among `released`: it waited and then broke a rule


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one identifier's newest revision, as a row of a table."""

    id: str
    prefix: str
    kind: str
    rev: int
    sha256: str  # of the payload bytes, hex
    envelope_sha256: str  # of the envelope, hex: the store must give these bytes back
    nb: int
    exp: int
    status: str
    kid: str
    public: str  # the key that verified it, base64url


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Two signed payloads of one revision: anyone can check both signatures against the same key."""

    id: str
    rev: int
    kept_sha256: str
    other_sha256: str
    other_envelope: bytes


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """The decision about one envelope. ``held`` is what is (or would be) kept; ``spec`` is the typed spec."""

    outcome: Outcome
    identifier: Identifier
    record: Record
    held: Held
    envelope: bytes
    spec: Spec | None = None
    other_sha256: str = ""  # of an equivocation: of this payload
    fresh: Held | None = None  # of an equivocation: what is kept from now on, where that is this payload
    reason: Reason | None = None  # of a refusal among `released`
    released: tuple[Admission, ...] = ()  # what had waited for this delegation, in order

    @property
    def head(self) -> Head:
        """What is (or would be) kept, as a row."""
        return head_of(self.identifier, self.held)


class Judged(msgspec.Struct, frozen=True, gc=False):
    """The decision about one copy. ``held`` is what would be kept; of an equivocation, what was kept before it."""

    outcome: Outcome
    id: str
    held: Held
    record: Record
    spec: Spec | None
    envelope: bytes
    other_sha256: bytes = b""  # of an equivocation: of this payload
    fresh: Held | None = None  # of an equivocation: what is kept from now on, where that is this payload


def held_of(parcel: Opened, key: TrustedKey, authority: Authority) -> Held:
    """What is to be remembered of a record."""
    record = parcel.record
    return Held(
        record.rev,
        parcel.sha256,
        parcel.envelope_sha256,
        record.nb,
        record.exp,
        record.status,
        record.kind,
        key,
        authority,
    )


def head_of(identifier: Identifier, held: Held) -> Head:
    """What is held, as a row."""
    return Head(
        id=str(identifier),
        prefix=identifier.prefix,
        kind=held.kind,
        rev=held.rev,
        sha256=held.sha256.hex(),
        envelope_sha256=held.envelope_sha256.hex(),
        nb=held.nb,
        exp=held.exp,
        status=held.status.value,
        kid=held.key.kid,
        public=verifying_key(held).text,
    )


def checked_identity(record: Record) -> Identifier:
    """The identifier of ``record``, whose kind must be its own and in the table, with a revision that makes sense."""
    try:
        identifier = Identifier.parse(record.id)
    except TielineError as error:
        raise refused("identifier_form", record.id[:200], why=error.message) from None
    if record.kind != identifier.kind:
        raise refused("kind_mismatch", record.id, kind=record.kind[:64], id=record.id)
    if record.kind not in KINDS:
        raise refused("kind_unknown", record.id, kind=record.kind[:64])
    if (record.rev == 1) != (record.prev == ""):
        why = "cannot have a `prev`" if record.prev else "needs the sha256 of the one before it as `prev`"
        raise refused("rev_form", record.id, rev=record.rev, why=why)
    return identifier


def check_lease(record: Record, now_s: int, *, is_copy: bool = False) -> None:
    """Refuse a lease that is empty, too long, not begun or over, give or take the clock skew.

    The tombstone of a copy counts after its lease too: whoever comes late must not believe what it ended.
    """
    nb, exp = record.nb, record.exp
    if exp <= nb:
        raise refused("lease_empty", record.id, nb=shown_time(nb), exp=shown_time(exp))
    if exp - nb > MAX_LEASE_S:
        raise refused("lease_length", record.id, days=(exp - nb) // 86_400, limit=MAX_LEASE_S // 86_400)
    if now_s < nb - SKEW_S:
        raise refused("lease_ahead", record.id, nb=shown_time(nb), now=shown_time(now_s))
    if not (is_copy and record.status is Status.WITHDRAWN):
        check_lease_end(record.id, exp, now_s)


def check_lease_end(identifier: str, exp: int, now_s: int) -> None:
    """Refuse what has expired."""
    if now_s >= exp + SKEW_S:
        raise refused("lease_ended", identifier, exp=shown_time(exp), now=shown_time(now_s))


def check_kid(identifier: Identifier, kid: str) -> None:
    """Refuse a key that is not one of the identifier's own prefix: one writer per identifier."""
    if not kid.startswith(f"{identifier.prefix}#"):
        raise refused("kid_prefix", str(identifier), kid=kid, prefix=identifier.prefix)


def prevails(fresh: Held, held: Held) -> bool:
    """Whether ``fresh`` is kept instead of ``held``, whichever was seen first, so that all who saw both keep the same.

    What is withdrawn stays so; else the higher revision, and of two payloads of one revision that with the smaller
    sha256. So what an exchange keeps is the greatest of all that it saw, in whatever order it saw it.
    """
    is_dead, was_dead = fresh.status is Status.WITHDRAWN, held.status is Status.WITHDRAWN
    if is_dead is not was_dead:
        return is_dead
    if fresh.rev != held.rev:
        return fresh.rev > held.rev
    return fresh.sha256 < held.sha256


def check_succession(record: Record, sha256: bytes, held: Held, *, is_forked: bool = False) -> None:
    """Refuse what does not follow the held revision. The same revision passes: it is a repeat or an equivocation.

    ``is_forked``: the held revision has two payloads, and which of them its writer goes on from is not known.
    """
    if record.rev == held.rev and sha256 == held.sha256:
        return
    if record.rev < held.rev:
        raise refused("rev_behind", record.id, rev=record.rev, held=held.rev)
    if record.rev == held.rev:
        return
    if record.status is not Status.WITHDRAWN:  # the same may be said again, by a key that is still believed
        check_tombstone(record.id, held)
    if record.rev > held.rev + 1:
        raise refused("rev_skips", record.id, rev=record.rev, held=held.rev, needed=held.rev + 1)
    if record.prev != held.sha256.hex() and not is_forked:
        raise refused("prev_wrong", record.id, held=held.rev, sha256=held.sha256.hex())


def check_newer(record: Record, held: Held) -> None:
    """Refuse of a copy what would follow a withdrawal. What lies between is not needed: one writer signs them all."""
    if record.rev > held.rev and record.status is not Status.WITHDRAWN:
        check_tombstone(record.id, held)


def check_tombstone(identifier: str, held: Held) -> None:
    """Refuse anything after a withdrawal."""
    if held.status is Status.WITHDRAWN:
        raise refused("withdrawn", identifier, id=identifier, rev=held.rev)
