"""Authority: who may sign for a prefix, decided from roots that the verifier pinned and nothing that a record says.

::

    Authority cn            (unknown: no trust rests on it)
      Authority cn.demo     pinned: keys from the verifier's own list; the walk upwards ends here
        Authority cn.demo.lab7      given by record cn.demo/owner/lab7
          Authority cn.demo.lab7.x  given by record cn.demo.lab7/owner/x

A signature counts while every step between it and a pinned root holds *now*: key named, in its window, not revoked;
delegation neither withdrawn nor expired; kind given at every level. The shape is that of RPKI (RFC 6480) and Handle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tieline.model.kinds import KINDS, Writer
from tieline.model.quantity import MAX_INTEGER
from tieline.model.record import MAX_QUOTA, DelegatedKey, Delegation, Root, Status
from tieline.registry.keys import check_strong, public_bytes
from tieline.registry.rules import SKEW_S, refused, shown_time

MAX_DELEGATION_STEPS = 8
GIVING = tuple(name for name, kind in KINDS.items() if kind.writer is Writer.PARENT)  # owner, exchange


class TrustedKey(msgspec.Struct, frozen=True, gc=False):
    """A key of a prefix, decoded once."""

    kid: str
    public: bytes
    nb: int
    exp: int
    revoked_from: int
    text: str  # the public key, base64url


class Held(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of the newest revision of one identifier: small, for a million of them."""

    rev: int
    sha256: bytes  # of the payload: what the next revision names as its `prev`
    envelope_sha256: bytes  # of the whole envelope: what the store must give back
    nb: int
    exp: int
    status: Status
    kind: str
    key: TrustedKey  # that verified it
    authority: Authority  # of the identifier's prefix


class Authority:
    """One prefix: what it was given, by whom, and how many identifiers lie at or below it."""

    __slots__ = (
        "count",
        "envelope",
        "given_by",
        "held",
        "is_pinned",
        "keys",
        "kinds",
        "max_records",
        "parent",
        "prefix",
    )

    def __init__(self, prefix: str, parent: Authority | None) -> None:
        self.prefix = prefix
        self.parent = parent
        self.is_pinned = False
        self.given_by = ""  # identifier of the delegation
        self.held: Held | None = None  # the delegation's newest revision
        self.envelope = b""  # and its bytes
        self.keys: dict[str, TrustedKey] = {}
        self.kinds: frozenset[str] | None = None  # None: every kind
        self.max_records = MAX_QUOTA
        self.count = 0

    @property
    def is_known(self) -> bool:
        """Whether it is pinned or was given away by a record that is held."""
        return self.is_pinned or self.held is not None

    def pin(self, root: Root) -> None:
        """Take the verifier's word; raises `record_refused` (key_weak) for a key that is none."""
        self._take(root.keys, root.kinds or None, root.max_records)
        for key in self.keys.values():
            check_strong(key.public, key.kid)
        self.is_pinned = True

    def unpin(self) -> None:
        """Take the verifier's word back, and with it every key."""
        self.is_pinned = False
        self._take((), None, MAX_QUOTA)

    def give(self, given_by: str, held: Held, envelope: bytes, delegation: Delegation | None) -> None:
        """Take what the parent's record says; a withdrawn one (None) leaves the keys and fences them."""
        self.given_by, self.held, self.envelope = given_by, held, envelope
        if delegation is not None and not self.is_pinned:
            self._take(delegation.keys, delegation.kinds, delegation.max_records)

    def take_back(self) -> None:
        """Forget that it was ever given away; a pinned root keeps its keys."""
        self.given_by, self.held, self.envelope = "", None, b""
        if not self.is_pinned:
            self._take((), None, MAX_QUOTA)

    def upwards(self) -> Iterator[Authority]:
        """Itself and every prefix above it."""
        authority: Authority | None = self
        while authority is not None:
            yield authority
            authority = authority.parent

    def _take(self, keys: Iterable[DelegatedKey], kinds: Iterable[str] | None, max_records: int) -> None:
        trusted = {}
        for key in keys:
            public = public_bytes(key.public, key.kid)
            trusted[key.kid] = TrustedKey(key.kid, public, key.nb, key.exp, key.revoked_from, key.public)
        self.keys = trusted
        self.kinds = None if kinds is None else frozenset(kinds)
        self.max_records = max_records

    @property
    def steps(self) -> int:
        """Delegations between it and the nearest pinned root at or above it; -1 when there is none."""
        for steps, authority in enumerate(self.upwards()):
            if authority.is_pinned:
                return steps
        return -1


def named_key(kid: str) -> TrustedKey:
    """A key of which only the name is known; it verifies nothing."""
    return TrustedKey(kid, b"", 0, 0, 0, "")


def verifying_key(held: Held) -> TrustedKey:
    """The key that verified ``held``; of a record that was restored before its delegation, the one of that name."""
    return held.key if held.key.public else held.authority.keys.get(held.key.kid, held.key)


def signing_key(authority: Authority, kid: str, where: str) -> TrustedKey:
    """The key that ``authority`` knows by that name; raises key_unknown."""
    key = authority.keys.get(kid)
    if key is None:
        raise refused("key_unknown", where, kid=kid, prefix=authority.prefix)
    return key


def check_chain(
    authority: Authority, key: TrustedKey, kind: str, nb: int, now_s: int, where: str, is_new: bool
) -> tuple[int, int]:
    """Walk from a signature up to a pinned root; raises `record_refused` with the step that does not hold now.

    ``nb`` is when the record says that it was signed. A record that is held already outlives the revocation of its key
    unless it says it was signed at or after it; nothing ``is_new`` is believed any more, whatever date it states.
    An empty ``kind`` asks about the key alone. A key without bytes (a restored row's) is known by its name.
    Returns from when until before when the walk cannot end otherwise, as long as no delegation changes.
    """
    signer, at, name = authority, nb, kind
    from_s, until_s = 0, MAX_INTEGER
    while True:
        known = signer.keys.get(key.kid)
        if known is None or (known is not key and key.public and known.public != key.public):
            raise refused("key_unknown", where, kid=key.kid, prefix=signer.prefix)
        check_kind(signer, name, where)
        if signer is not authority:
            check_kind(signer, kind, where)
        check_key_window(known, now_s, where)
        check_revocation(known, at, now_s, where, is_new=is_new)
        from_s, until_s = max(from_s, known.nb - SKEW_S), min(until_s, known.exp + SKEW_S)
        if signer.is_pinned:
            return from_s, until_s
        held = signer.held
        if held is None or signer.parent is None:
            raise refused("root_unknown", where, prefix=signer.prefix)
        check_held_delegation(signer, held, now_s, where)
        until_s = min(until_s, held.exp + SKEW_S)
        signer, key, at, name, is_new = signer.parent, held.key, held.nb, held.kind, False


def check_held_delegation(authority: Authority, held: Held, now_s: int, where: str) -> None:
    """Refuse what rests on a delegation that was withdrawn or has ended."""
    if held.status is Status.WITHDRAWN:
        raise refused("delegation_withdrawn", where, prefix=authority.prefix)
    if now_s >= held.exp + SKEW_S:
        times = {"exp": shown_time(held.exp), "now": shown_time(now_s)}
        raise refused("delegation_expired", where, prefix=authority.prefix, **times)


def check_kind(authority: Authority, kind: str, where: str) -> None:
    """Refuse a kind that the prefix was not given."""
    if kind and authority.kinds is not None and kind not in authority.kinds:
        raise refused("kind_not_given", where, prefix=authority.prefix, kind=kind)


def check_key_window(key: TrustedKey, now_s: int, where: str) -> None:
    """Refuse a key before and after its time, give or take the clock skew."""
    if now_s < key.nb - SKEW_S:
        raise refused("key_ahead", where, kid=key.kid, nb=shown_time(key.nb), now=shown_time(now_s))
    if now_s >= key.exp + SKEW_S:
        raise refused("key_expired", where, kid=key.kid, exp=shown_time(key.exp), now=shown_time(now_s))


def check_revocation(key: TrustedKey, nb: int, now_s: int, where: str, is_new: bool) -> None:
    """Refuse what was signed after the key was revoked; a thief can write any date, so new things get no benefit."""
    if key.revoked_from and (nb >= key.revoked_from or (is_new and now_s >= key.revoked_from)):
        raise refused("key_revoked", where, kid=key.kid, revoked_from=shown_time(key.revoked_from))


def check_quota(authority: Authority, where: str, more: int = 0) -> None:
    """Refuse one identifier beyond ``more`` others when the prefix, or any above, would hold more than it was given."""
    level: Authority | None = authority
    while level is not None:
        if level.count + more >= level.max_records:
            count = level.count + more
            raise refused("quota_full", where, prefix=level.prefix, count=count, limit=level.max_records)
        level = level.parent
