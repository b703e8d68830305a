"""Catalogue: the newest revision of every identifier, and the rules by which the next one is admitted.

::

    envelope -> bounds -> header -> payload -> lease -> key's prefix -> what is held -> chain -> spec -> quota
                                                             |                                            |
                                             parked: no delegation yet                                signature
                                                                                                          |
                                                                        stored | unchanged | equivocation +

A pure state machine: `judge` decides and changes nothing, `admit` also remembers, `restore` remembers what was judged
before. Cheap checks come first, the signature last. It keeps no record bytes except those of delegations: `resolve`
asks the caller's store for them. One writer per identifier, so that admitting twice equals once and order is free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import Identifier
from tieline.model.kinds import KINDS
from tieline.model.reason import Reason
from tieline.model.record import Delegation, Record, Root, Status
from tieline.model.spec import Spec
from tieline.registry.admission import (
    Admission,
    Head,
    Judged,
    Outcome,
    Proof,
    check_kid,
    check_lease,
    check_lease_end,
    check_succession,
    check_tombstone,
    checked_identity,
    head_of,
    held_of,
    prevails,
)
from tieline.registry.authority import GIVING, Authority, Held, TrustedKey, check_quota, named_key, signing_key
from tieline.registry.delegation import check_delegation
from tieline.registry.envelope import opened
from tieline.registry.intake import Intake
from tieline.registry.keys import check_signature, public_bytes
from tieline.registry.parking import Parking
from tieline.registry.resolution import Resolved, resolved
from tieline.registry.rules import SKEW_S, refused
from tieline.registry.specs import checked_spec
from tieline.registry.trust import Trust

MAX_PROOFS = 10_000

S = TypeVar("S", bound=Spec)


class Kept(NamedTuple):
    """What a record that is kept says; ``spec`` where it was read already."""

    record: Record
    spec: Spec | None

    def says(self, shape: type[S]) -> S:
        """Its spec, which is known to have that shape."""
        return self.spec if isinstance(self.spec, shape) else msgspec.convert(self.record.spec, shape)


class Catalogue:
    """Heads by identifier, and the authorities that the verifier's roots and their delegations make."""

    def __init__(self, roots: Iterable[Root] = ()) -> None:
        self._held: dict[str, Held] = {}
        self._trust = Trust()
        self._keys: dict[tuple[str, str], TrustedKey] = {}  # of restored rows, shared
        self._proofs: dict[str, Proof] = {}
        self._parking = Parking()
        self._expected: tuple[str, Sequence[Judged]] = ("", ())
        self._noted: dict[tuple[str, int], None] = {}
        self._frozen: dict[str, tuple[int, int]] = {}  # prefix -> since and until when its leases do not end
        for root in roots:
            self.pin(root)

    def pin(self, root: Root) -> None:
        """Trust ``root`` from now on; pinning a prefix again replaces its keys."""
        self._trust.pin(root)

    def unpin(self, prefix: str) -> None:
        """Trust ``prefix`` no longer by the verifier's own word; what rests on it alone does not count any more."""
        self._trust.unpin(prefix)

    # -- deciding -----------------------------------------------------------------------------------------------------

    def judge(self, envelope: bytes, now_s: int) -> Admission:
        """Decide about ``envelope`` and change nothing; raises TielineError `record_refused` naming the rule."""
        parcel = opened(envelope)
        record = parcel.record
        identifier = checked_identity(record)
        check_lease(record, now_s)
        kid = parcel.parts.kid
        check_kid(identifier, kid)
        authority = self._trust.find(identifier.prefix)
        if authority is None or not authority.is_known:
            self._trust.check_reachable(identifier)
            self._parking.check_room(identifier.prefix, envelope, now_s)
            nobody = Authority(identifier.prefix, None)
            fresh = held_of(parcel, named_key(kid), nobody)
            return Admission(
                outcome=Outcome.PARKED, identifier=identifier, record=record, held=fresh, envelope=envelope
            )
        held = self._held.get(record.id)
        if held is not None:
            check_succession(record, parcel.sha256, held, is_forked=(record.id, held.rev) in self._noted)
        key = signing_key(authority, kid, record.id)
        self._trust.check(authority, key, record.kind, record.nb, now_s, record.id, is_new=True)
        spec = checked_spec(identifier, record, KINDS[record.kind])
        if isinstance(spec, Delegation):
            check_delegation(authority, identifier, spec, self._trust.find(spec.prefix))
        if held is None:
            check_quota(authority, record.id)
        check_signature(key.public, parcel.parts.signed, kid, record.id)
        fresh = held_of(parcel, key, authority)
        outcome, other, instead = Outcome.STORED, "", None
        if held is not None and record.rev == held.rev:
            outcome = Outcome.UNCHANGED
            if parcel.sha256 != held.sha256:
                instead = fresh if prevails(fresh, held) else None
                outcome, other, fresh = Outcome.EQUIVOCATION, parcel.sha256.hex(), held
        return Admission(
            outcome=outcome,
            identifier=identifier,
            record=record,
            held=fresh,
            envelope=envelope,
            spec=spec,
            other_sha256=other,
            fresh=instead,
        )

    def intake(self, prefix: str, now_s: int) -> Intake:
        """For deciding about a peer's copies of the log of ``prefix``, in any order; changes nothing."""
        return Intake(self._held, self._trust, prefix, now_s)

    def expect(self, page: str, judged: Sequence[Judged]) -> None:
        """Note of what ``page`` was just made, so that `take` need not read it again. It decides nothing."""
        self._expected = (page, judged)

    def admit(self, envelope: bytes, now_s: int) -> Admission:
        """Decide about ``envelope`` and remember the decision; what waited for it is decided too (`released`)."""
        admission = self.judge(envelope, now_s)
        prefix = self._remember(admission, now_s)
        if not prefix or prefix not in self._parking.prefixes():
            return admission
        released: list[Admission] = []
        freed = [prefix]
        while freed:
            for waiting in self._parking.take(freed.pop(0)):
                following = self._decide_released(waiting, now_s)
                released.append(following)
                prefix = self._remember(following, now_s)
                if prefix:
                    freed.append(prefix)
        return msgspec.structs.replace(admission, released=tuple(released))

    def restore(self, envelope: bytes) -> Head:
        """Remember an envelope that was judged before, without judging again; what does not prevail changes nothing."""
        name = self.keep(envelope).id
        return head_of(Identifier.parse(name), self._held[name])

    def keep(self, envelope: bytes) -> Judged:
        """The same, and what it says."""
        parcel = opened(envelope)
        record = parcel.record
        identifier = checked_identity(record)
        authority = self._trust.authority(identifier.prefix)
        key = authority.keys.get(parcel.parts.kid) or named_key(parcel.parts.kid)
        fresh = held_of(parcel, key, authority)
        held = self._held.get(record.id)
        if held is None or prevails(fresh, held):
            self._keep(record.id, fresh, envelope, record)
        return Judged(Outcome.STORED, record.id, fresh, record, None, envelope)

    def take(self, page: str) -> Sequence[Judged]:
        """The same for the records of a page of one log; quick for what was just judged (`expect`)."""
        (expected, judged), self._expected = self._expected, ("", ())
        if expected is not page or not judged:
            return [self.keep(line.encode()) for line in page.splitlines()]
        known, added = self._held, 0
        for each in judged:
            name, held = each.id, each.held
            before = known.get(name)
            if before is None and held.kind not in GIVING:
                known[name] = held
                added += 1
            elif before is None or prevails(held, before):
                self._keep(name, held, each.envelope, each.record)
        for authority in judged[0].held.authority.upwards():
            authority.count += added
        return judged

    # -- answering ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._held

    def head(self, identifier: str) -> Head | None:
        """What is kept of ``identifier``, whether or not it is valid now."""
        held = self._held.get(identifier)
        return None if held is None else head_of(Identifier.parse(identifier), held)

    def standing(self, identifier: str, now_s: int) -> Reason | None:
        """Why ``identifier`` does not count now: withdrawn, lease over, chain broken; None when it counts."""
        held = self._held.get(identifier)
        if held is None:
            raise TielineError("not_found", f"no record of `{identifier}` is here")
        try:
            self._check_standing(identifier, held, now_s)
        except TielineError as error:
            return error.reasons[0]
        return None

    def resolve(
        self, identifier: str, now_s: int, fetch: Callable[[str], bytes | None], *, is_verified_again: bool = False
    ) -> Resolved:
        """The record that was verified when it was stored, if it counts now; ``fetch`` gives its bytes by identifier.

        Expiry, withdrawal and the whole chain are checked now, and that the bytes are those that were verified.
        ``is_verified_again`` checks the signature too. Raises `not_found`, `record_refused`.
        """
        held = self._held.get(identifier)
        if held is None:
            raise TielineError("not_found", f"no record of `{identifier}` is here", where=identifier)
        self._check_standing(identifier, held, now_s)
        envelope = fetch(identifier)
        if envelope is None:
            raise refused("store_altered", identifier, id=identifier)
        return resolved(identifier, held, envelope, is_verified_again=is_verified_again)

    def delegation(self, prefix: str) -> bytes | None:
        """The newest envelope that gives ``prefix`` away; None when it is pinned or unknown."""
        authority = self._trust.find(prefix)
        return None if authority is None or authority.held is None else authority.envelope

    def chain(self, prefix: str) -> tuple[bytes, ...]:
        """The delegations from below the pinned root down to ``prefix``: with a record, all that a verifier needs."""
        return self._trust.chain(prefix)

    def key(self, kid: str, now_s: int) -> str | None:
        """The public key (base64url) of that name, when its whole chain holds now; None otherwise."""
        return self._trust.key(kid, now_s)

    def count(self, prefix: str) -> int:
        """Identifiers at and below ``prefix``, withdrawn and expired ones included."""
        authority = self._trust.find(prefix)
        return 0 if authority is None else authority.count

    def proof(self, identifier: str) -> Proof | None:
        """The proof that the writer of ``identifier`` signed two payloads as one revision, where it was seen."""
        return self._proofs.get(identifier)

    def note_equivocation(self, identifier: str, rev: int) -> None:
        """Remember that the proof is kept elsewhere, so that it is not made again for each peer that shows it."""
        if len(self._noted) < MAX_PROOFS:
            self._noted[(identifier, rev)] = None

    def is_news(self, identifier: str, rev: int) -> bool:
        """Whether no such proof was noted yet; beyond `MAX_PROOFS` nothing is news."""
        return (identifier, rev) not in self._noted and len(self._noted) < MAX_PROOFS

    def waiting(self) -> tuple[str, ...]:
        """Prefixes whose delegations are waited for."""
        return self._parking.prefixes()

    # -- keeping ------------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Head]:
        """Every head, for a store."""
        return (head_of(Identifier.parse(identifier), held) for identifier, held in self._held.items())

    def proofs(self) -> tuple[Proof, ...]:
        """Every proof of equivocation, for a store."""
        return tuple(self._proofs.values())

    def load(self, rows: Iterable[Head], fetch: Callable[[str], bytes | None], proofs: Iterable[Proof] = ()) -> None:
        """Take rows of an earlier life, in any order; ``fetch`` is asked for the bytes of delegations only.

        Raises `record_refused` (store_altered) when those bytes are not the ones that the row names.
        """
        for row in rows:
            authority = self._trust.authority(row.prefix)
            held = Held(
                row.rev,
                bytes.fromhex(row.sha256),
                bytes.fromhex(row.envelope_sha256),
                row.nb,
                row.exp,
                Status(row.status),
                row.kind,
                self._shared_key(row.kid, row.public),
                authority,
            )
            if row.kind not in GIVING:
                self._keep(row.id, held, b"", None)
                continue
            envelope = fetch(row.id)
            if envelope is None:
                raise refused("store_altered", row.id, id=row.id)
            self._keep(row.id, held, envelope, resolved(row.id, held, envelope).record)
        for proof in proofs:
            self._proofs[proof.id] = proof

    def forget(self, identifier: str) -> None:
        """Drop a head whose lease ended or that was withdrawn, when the caller's retention says so."""
        held = self._held.pop(identifier, None)
        if held is None:
            return
        self._proofs.pop(identifier, None)
        for authority in held.authority.upwards():
            authority.count -= 1
        if held.kind in GIVING:
            self._trust.take_back(Identifier.parse(identifier))

    # -- silent branches ----------------------------------------------------------------------------------------------

    def leases(self, prefixes: Iterable[str]) -> list[int]:
        """When the leases under exactly these prefixes end (s), tombstones left out. Looks at all heads."""
        wanted = dict.fromkeys(prefixes)
        heads = self._held.values()
        return [held.exp for held in heads if held.authority.prefix in wanted and held.status is not Status.WITHDRAWN]

    def freeze(self, prefix: str, since_s: int, until_s: int) -> None:
        """Leases under ``prefix`` that ran at ``since_s`` do not end before ``until_s`` (`registry/silence.py`)."""
        self._frozen[prefix] = (since_s, until_s)

    def thaw(self, prefix: str) -> None:
        """They end again as they say."""
        self._frozen.pop(prefix, None)

    def is_stale(self, identifier: str, now_s: int) -> bool:
        """Whether it counts only because its branch is frozen."""
        held = self._held.get(identifier)
        return held is not None and now_s >= held.exp + SKEW_S and self._is_frozen(held, now_s)

    def _is_frozen(self, held: Held, now_s: int) -> bool:
        since_s, until_s = self._frozen.get(held.authority.prefix, (0, 0))
        return now_s < until_s and held.exp + SKEW_S > since_s

    # -- inside -------------------------------------------------------------------------------------------------------

    def _check_standing(self, identifier: str, held: Held, now_s: int) -> None:
        """Refuse what was stored and does not count now."""
        check_tombstone(identifier, held)
        if now_s >= held.exp + SKEW_S and not self._is_frozen(held, now_s):
            check_lease_end(identifier, held.exp, now_s)
        self._trust.check(held.authority, held.key, held.kind, held.nb, now_s, identifier, is_new=False)

    def _decide_released(self, envelope: bytes, now_s: int) -> Admission:
        try:
            return self.judge(envelope, now_s)
        except TielineError as error:
            parcel = opened(envelope)
            record = parcel.record
            identifier = Identifier.parse(record.id)
            authority = self._trust.authority(identifier.prefix)
            fresh = held_of(parcel, named_key(parcel.parts.kid), authority)
            return Admission(
                outcome=Outcome.REFUSED,
                identifier=identifier,
                record=record,
                held=fresh,
                envelope=envelope,
                reason=error.reasons[0],
            )

    def _remember(self, admission: Admission, now_s: int) -> str:
        """Let a decision take effect; gives the prefix that a stored delegation gave away."""
        if admission.outcome is Outcome.STORED:
            return self._keep(admission.record.id, admission.held, admission.envelope, admission.record)
        if admission.outcome is Outcome.PARKED:
            self._parking.add(admission.identifier.prefix, admission.envelope, now_s)
        elif admission.outcome is Outcome.EQUIVOCATION:
            self._prove(admission)
        return ""

    def _prove(self, admission: Admission) -> None:
        head = admission.head
        if head.id not in self._proofs and len(self._proofs) < MAX_PROOFS:
            self._proofs[head.id] = Proof(
                id=head.id,
                rev=head.rev,
                kept_sha256=head.sha256,
                other_sha256=admission.other_sha256,
                other_envelope=admission.envelope,
            )

    def _keep(self, identifier: str, held: Held, envelope: bytes, record: Record | None) -> str:
        if identifier not in self._held:
            level: Authority | None = held.authority
            while level is not None:
                level.count += 1
                level = level.parent
        self._held[identifier] = held
        if record is None or held.kind not in GIVING:
            return ""
        return self._trust.give(Identifier.parse(identifier), held, envelope, record)

    def _shared_key(self, kid: str, public: str) -> TrustedKey:
        key = self._keys.get((kid, public))
        if key is None:
            data = public_bytes(public) if public else b""
            key = self._keys[(kid, public)] = TrustedKey(kid, data, 0, 0, 0, public)
        return key
