"""Intake: what a peer's copies of one log say, decided envelope by envelope; nothing is changed.

A copy is judged by the same rules as what its owner sends, with one difference: it may skip revisions. One writer signs
them all, so the highest revision wins, an older one is no mistake of the peer, and order is free. Revisions that are
equal with payloads that are not are a proof against their writer, and everybody keeps the same one of them; what was
withdrawn stays withdrawn, by whichever revision (`admission.prevails`).

Cost: some 10 us beside the signature (`usual`), and nothing but a comparison for what is held already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import Identifier
from tieline.model.kinds import KINDS
from tieline.model.record import Delegation, Record, Status
from tieline.model.spec import CheckpointSpec, Spec
from tieline.registry.admission import Judged, Outcome, check_kid, check_lease, check_newer, checked_identity, prevails
from tieline.registry.authority import Authority, Held, TrustedKey, check_quota, signing_key
from tieline.registry.delegation import check_delegation
from tieline.registry.keys import check_signature
from tieline.registry.pages import CHECKPOINT_NAME
from tieline.registry.rules import refused
from tieline.registry.specs import check_spec, checked_spec
from tieline.registry.swift import Read, read_anyhow
from tieline.registry.trust import Trust
from tieline.registry.usual import Ground, usual


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A copy that breaks no rule as far as was looked; its signature comes next."""

    found: Read
    spec: Spec | None
    held: Held  # what would be kept
    envelope: bytes

    @property
    def id(self) -> str:
        """The identifier."""
        return self.found.record.id


class Intake:
    """One log being taken: remembers what it found good, so that what follows is judged as if that were held."""

    def __init__(self, held: Mapping[str, Held], trust: Trust, prefix: str, now_s: int) -> None:
        self._held = held
        self._trust = trust
        self._prefix = prefix
        self._now_s = now_s
        self._begin = prefix + "/"
        self._authority = trust.find(prefix)
        self._keys: dict[tuple[str, str], TrustedKey] = {}  # by name and kind: whose chain holds now
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
        """Decide about one copy; raises TielineError `record_refused` naming the rule. As `judge_all` for one."""
        (decided,) = self.judge_all((envelope,), is_proved=is_proved)
        if isinstance(decided, TielineError):
            raise decided
        return decided

    def judge_all(self, envelopes: Sequence[bytes], *, is_proved: bool = False) -> list[Judged | TielineError]:
        """Decide about copies in their order: what each comes to, or the refusal (`record_refused`) naming the rule.

        ``is_proved``: the owner's checkpoint was verified and covers these very bytes, so that one signature stands
        for all of theirs. Every other rule holds all the same.
        """
        page = usual(envelopes, self._ground(), is_proved=is_proved)
        looked: list[Judged | Candidate | TielineError] = [
            self._look(envelope) if judged is None else judged
            for judged, envelope in zip(page.judged, envelopes, strict=True)
        ]
        if not is_proved:  # one after the other: alone, each signature finds its tables out of the caches
            looked = [
                _verified(each, signed) if each is judged or isinstance(each, Candidate) else each
                for each, judged, signed in zip(looked, page.judged, page.signed, strict=True)
            ]
        decided: list[Judged | TielineError] = []
        fresh, held, room = self.fresh, self._held, self._room
        for each, judged in zip(looked, page.judged, strict=True):
            if isinstance(each, Candidate):
                decided.append(self._settled(each))
            elif each is not judged or judged is None:
                decided.append(each)
            else:
                name = judged.id
                is_new = name not in held
                if name in fresh or (is_new and self._added >= room):
                    decided.append(self._settled(_candidate(judged)))
                else:
                    self._added += is_new
                    fresh[name] = judged
                    decided.append(judged)
        return decided

    def _ground(self) -> Ground:
        authority = self._authority
        assert authority is not None, "asked about a log that waits"
        return Ground(self._prefix, self._held, authority, self._key, self._now_s)

    def _look(self, envelope: bytes) -> Judged | Candidate | TielineError:
        """Everything about a copy that neither its signature nor its neighbours can change."""
        try:
            found = read_anyhow(envelope)
            record = found.record
            if not record.id.startswith(self._begin):
                return refused("log_foreign", record.id[:200], prefix=self._prefix)
            held = self._held.get(record.id)
            if held is not None:
                settled = _settled_by(held, found, envelope)
                if settled is not None:
                    return settled
                check_newer(record, held)
            authority = self._authority
            assert authority is not None, "asked about a log that waits"
            spec, fresh = self._checked(found, authority)
        except TielineError as error:
            return error
        return Candidate(found, spec, fresh, envelope)

    def _settled(self, candidate: Candidate) -> Judged | TielineError:
        """A copy that was verified, beside what came before it in the same page."""
        found, record, fresh = candidate.found, candidate.found.record, candidate.held
        held = self._newest(record.id)
        if held is not None:
            settled = _settled_by(held, found, candidate.envelope)
            if settled is not None:
                return settled
            if record.rev == held.rev:
                return self._forked(candidate, held)
        try:
            if held is not None:
                check_newer(record, held)
            elif self._added >= self._room:
                check_quota(fresh.authority, record.id, self._added)
        except TielineError as error:
            return error
        self._added += held is None
        judged = Judged(Outcome.STORED, record.id, fresh, record, candidate.spec, candidate.envelope)
        self.fresh[record.id] = judged
        return judged

    def _forked(self, candidate: Candidate, held: Held) -> Judged:
        """Another payload of the revision that is held: which of them is kept does not rest on which came first."""
        found, spec, envelope = candidate.found, candidate.spec, candidate.envelope
        name, fresh = found.record.id, candidate.held
        if not prevails(fresh, held):
            return Judged(Outcome.EQUIVOCATION, name, held, found.record, spec, envelope, found.sha256)
        self.fresh[name] = Judged(Outcome.STORED, name, fresh, found.record, spec, envelope)
        return Judged(Outcome.EQUIVOCATION, name, held, found.record, spec, envelope, found.sha256, fresh)

    def checkpoint(self, envelope: bytes) -> CheckpointSpec | None:
        """What the owner's checkpoint lists, once its signature and chain are verified; None for one that is outdated.

        Raises TielineError `record_refused` for anything that is not this owner's checkpoint.
        """
        found = read_anyhow(envelope)
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
        spec, fresh = self._checked(found, authority)
        check_signature(fresh.key.public, found.signed, found.kid, record.id)
        assert isinstance(spec, CheckpointSpec)
        return spec

    def _newest(self, name: str) -> Held | None:
        fresh = self.fresh.get(name)
        return self._held.get(name) if fresh is None else fresh.held

    def _checked(self, found: Read, authority: Authority) -> tuple[Spec | None, Held]:
        """Everything but quota and signature, in the order of `Catalogue.judge`."""
        record, now_s = found.record, self._now_s
        identifier = checked_identity(record)
        check_lease(record, now_s, is_copy=True)
        key = self._key(found.kid, record)
        kind = KINDS[record.kind]
        spec = found.spec
        if spec is None:
            spec = checked_spec(identifier, record, kind)
        else:
            check_spec(identifier, record.links, spec, kind)
        if isinstance(spec, Delegation):
            check_delegation(authority, identifier, spec, self._trust.find(spec.prefix))
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

    def _key(self, kid: str, record: Record) -> TrustedKey:
        """The key that signed it, once its name and chain are found to hold; remembered unless dates matter."""
        key = self._keys.get((kid, record.kind))
        if key is not None:
            return key
        authority = self._authority
        assert authority is not None, "asked about a log that waits"
        check_kid(Identifier.parse(record.id), kid)
        key = signing_key(authority, kid, record.id)
        self._trust.check(authority, key, record.kind, record.nb, self._now_s, record.id, is_new=True)
        if not key.revoked_from:
            self._keys[(kid, record.kind)] = key
        return key


def _settled_by(held: Held, found: Read, envelope: bytes) -> Judged | None:
    """What is held already, or behind what is: for that no signature is needed."""
    record = found.record
    if record.rev < held.rev and not (record.status is Status.WITHDRAWN and held.status is not Status.WITHDRAWN):
        return Judged(Outcome.BEHIND, record.id, held, record, None, envelope)
    if found.sha256 == held.sha256:
        return Judged(Outcome.UNCHANGED, record.id, held, record, None, envelope)
    return None


def _verified(looked: Judged | Candidate, signed: bytes) -> Judged | Candidate | TielineError:
    key = looked.held.key
    if isinstance(looked, Candidate):
        signed = looked.found.signed
    try:
        check_signature(key.public, signed, key.kid, looked.id)
    except TielineError as error:
        return error
    return looked


def _candidate(judged: Judged) -> Candidate:
    held = judged.held
    found = Read(judged.record, judged.spec, held.key.kid, held.sha256, held.envelope_sha256, b"")
    return Candidate(found, judged.spec, held, judged.envelope)


def _room(authority: Authority | None) -> int:
    """How many more identifiers the prefix may hold, as every level above allows."""
    levels = authority.upwards() if authority is not None else ()
    return min((level.max_records - level.count for level in levels), default=0)
