"""Intake: what a peer's copies of one log say, decided envelope by envelope; nothing is changed.

A copy is judged by the same rules as what its owner sends, with one difference: it may skip revisions. One writer signs
them all, so the highest revision wins, an older one is no mistake of the peer, and order is free. Revisions that are
equal with payloads that are not are a proof against their writer; what was withdrawn stays withdrawn.

Cost: about 10 us beside the signature, and nothing but a comparison for what is held already.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tieline.model.identifier import Identifier
from tieline.model.kinds import KINDS
from tieline.model.record import Delegation, Record, Status
from tieline.model.spec import CheckpointSpec, Spec
from tieline.registry.admission import Outcome, check_kid, check_lease, check_newer, checked_identity
from tieline.registry.authority import Authority, Held, TrustedKey, check_quota, signing_key
from tieline.registry.delegation import check_delegation
from tieline.registry.envelope import opened
from tieline.registry.keys import check_signature
from tieline.registry.pages import CHECKPOINT_NAME
from tieline.registry.rules import refused
from tieline.registry.specs import check_spec, checked_spec
from tieline.registry.swift import Read, read
from tieline.registry.trust import Trust


class Judged(msgspec.Struct, frozen=True, gc=False):
    """The decision about one copy. ``held`` is what would be kept; of an equivocation, what is."""

    outcome: Outcome
    id: str
    held: Held
    record: Record
    spec: Spec | None
    envelope: bytes
    other_sha256: bytes = b""  # of an equivocation: the payload that is not kept


class Intake:
    """One log being taken: remembers what it found good, so that what follows is judged as if that were held."""

    def __init__(self, held: Mapping[str, Held], trust: Trust, prefix: str, now_s: int) -> None:
        self._held = held
        self._trust = trust
        self._prefix = prefix
        self._now_s = now_s
        self._begin = prefix + "/"
        self._authority = trust.find(prefix)
        self._keys: dict[
            tuple[str, str], TrustedKey
        ] = {}  # by name and kind: whose chain holds now
        self._room = _room(self._authority)
        self._added = 0
        self.fresh: dict[str, Judged] = {}  # what is to be kept, by identifier; the newest revision of each

    @property
    def is_waiting(self) -> bool:
        """Whether nobody has given the prefix to anybody yet, as far as is known here: then nothing can be judged."""
        return self._authority is None or not self._authority.is_known

    def check_reachable(self) -> None:
        """Raise `record_refused` (root_unknown, chain_depth) when no delegation can ever make the prefix known."""
        if self._authority is None or not self._authority.is_known:
            self._trust.check_prefix(self._prefix)

    def judge(self, envelope: bytes, *, is_proved: bool = False) -> Judged:
        """Decide about one copy; raises TielineError `record_refused` naming the rule.

        ``is_proved``: its owner's checkpoint was verified and covers these very bytes, so that one signature stands
        for all of theirs. Every other rule holds all the same.
        """
        found = read(envelope) or _read_slowly(envelope)
        record = found.record
        if not record.id.startswith(self._begin):
            raise refused("log_foreign", record.id[:200], prefix=self._prefix)
        held = self._newest(record.id)
        if held is not None:
            if record.rev < held.rev:
                return Judged(Outcome.BEHIND, record.id, held, record, None, envelope)
            if found.sha256 == held.sha256:
                return Judged(Outcome.UNCHANGED, record.id, held, record, None, envelope)
            check_newer(record, held)
        authority = self._authority
        assert authority is not None, "asked about a log that waits"
        spec, fresh = self._checked(found, authority, held)
        if not is_proved:
            check_signature(fresh.key.public, found.signed, found.kid, record.id)
        if held is not None and record.rev == held.rev:
            return Judged(Outcome.EQUIVOCATION, record.id, held, record, spec, envelope, found.sha256)
        if held is None:
            self._added += 1
        judged = Judged(Outcome.STORED, record.id, fresh, record, spec, envelope)
        self.fresh[record.id] = judged
        return judged

    def checkpoint(self, envelope: bytes) -> CheckpointSpec | None:
        """What the owner's checkpoint lists, once its signature and chain are verified; None for one that is outdated.

        Raises TielineError `record_refused` for anything that is not this owner's checkpoint.
        """
        found = read(envelope) or _read_slowly(envelope)
        record = found.record
        if record.id != f"{self._prefix}/{CHECKPOINT_NAME}" or record.status is Status.WITHDRAWN:
            raise refused("checkpoint_other", record.id[:200], prefix=self._prefix)
        held = self._newest(record.id)
        if held is not None and (record.rev, found.sha256) != (held.rev, held.sha256) and record.rev <= held.rev:
            return None
        if held is not None:
            check_newer(record, held)
        authority = self._authority
        assert authority is not None, "asked about a log that waits"
        spec, fresh = self._checked(found, authority, held)
        check_signature(fresh.key.public, found.signed, found.kid, record.id)
        assert isinstance(spec, CheckpointSpec)
        return spec

    def _newest(self, name: str) -> Held | None:
        fresh = self.fresh.get(name)
        return self._held.get(name) if fresh is None else fresh.held

    def _checked(self, found: Read, authority: Authority, held: Held | None) -> tuple[Spec | None, Held]:
        """Everything but the signature, in the order of `Catalogue.judge`."""
        record, now_s = found.record, self._now_s
        identifier = checked_identity(record)
        check_lease(record, now_s, is_copy=True)
        key = self._keys.get((found.kid, record.kind)) or self._key(found, identifier, authority)
        kind = KINDS[record.kind]
        spec = found.spec
        if spec is None:
            spec = checked_spec(identifier, record, kind)
        else:
            check_spec(identifier, record.links, spec, kind)
        if isinstance(spec, Delegation):
            check_delegation(authority, identifier, spec, self._trust.find(spec.prefix))
        if held is None and self._added >= self._room:
            check_quota(authority, record.id, self._added)
        return spec, Held(
            record.rev,
            found.sha256,
            found.envelope_sha256,
            record.nb,
            record.exp,
            record.status,
            record.kind,
            key,
            authority,
        )

    def _key(self, found: Read, identifier: Identifier, authority: Authority) -> TrustedKey:
        """The key that signed it, once its name and chain are found to hold; remembered unless dates matter."""
        record = found.record
        check_kid(identifier, found.kid)
        key = signing_key(authority, found.kid, record.id)
        self._trust.check(authority, key, record.kind, record.nb, self._now_s, record.id, is_new=True)
        if not key.revoked_from:
            self._keys[(found.kid, record.kind)] = key
        return key


def _room(authority: Authority | None) -> int:
    """How many more identifiers the prefix may hold, as every level above allows."""
    levels = authority.upwards() if authority is not None else ()
    return min((level.max_records - level.count for level in levels), default=0)


def _read_slowly(envelope: bytes) -> Read:
    parcel = opened(envelope)
    return Read(parcel.record, None, parcel.parts.kid, parcel.sha256, parcel.envelope_sha256, parcel.parts.signed)
