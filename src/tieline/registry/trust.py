"""Trust: every authority that the verifier's roots and the delegations below them make, and what they vouch for now.

Walking a chain to its root costs microseconds, and nearly every question finds the same chain intact: so the walk's
outcome is kept per key, as the time within which it cannot change, and forgotten whenever any delegation changes.
"""

from __future__ import annotations

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import Identifier
from tieline.model.record import Delegation, Record, Root, Status
from tieline.registry.authority import (
    GIVING,
    MAX_DELEGATION_STEPS,
    Authority,
    Held,
    TrustedKey,
    check_chain,
)
from tieline.registry.envelope import opened
from tieline.registry.rules import refused


class Warrant(msgspec.Struct, frozen=True, gc=False):
    """From ``from_s`` until before ``until_s`` the key speaks for its prefix about a kind, however new the record."""

    public: bytes
    from_s: int
    until_s: int
    change: int  # the last one that the walk can have seen


class Trust:
    """Authorities by prefix. Changed by `pin`, `give` and `take_back` alone, from one thread; any thread may ask.

    Each change is counted after it is made, so that an answer that saw half of it is never kept.
    """

    def __init__(self) -> None:
        self._authorities: dict[str, Authority] = {}
        self._change = 0
        self._warrants: dict[tuple[str, str], Warrant] = {}  # by key name and kind

    def find(self, prefix: str) -> Authority | None:
        """The authority of ``prefix``, where it was heard of."""
        return self._authorities.get(prefix)

    def authority(self, prefix: str) -> Authority:
        """The authority of ``prefix``, made with all above it where it was never heard of."""
        authority = self._authorities.get(prefix)
        if authority is None:
            above = prefix.rpartition(".")[0]
            authority = Authority(prefix, self.authority(above) if above else None)
            self._authorities[prefix] = authority
        return authority

    def pin(self, root: Root) -> None:
        """Trust ``root`` from now on; pinning a prefix again replaces its keys."""
        self.authority(root.prefix).pin(root)
        self._changed()

    def unpin(self, prefix: str) -> None:
        """Trust ``prefix`` no longer by the verifier's word; where a record gave it away, that is what counts again."""
        authority = self._authorities.get(prefix)
        if authority is None or not authority.is_pinned:
            return
        authority.unpin()
        if authority.held is not None:
            spec = opened(authority.envelope).record.spec
            given = msgspec.convert(spec, Delegation) if spec else None
            authority.give(authority.given_by, authority.held, authority.envelope, given)
        self._changed()

    def give(self, identifier: Identifier, held: Held, envelope: bytes, record: Record) -> str:
        """Let the delegation ``record`` take effect, or end where it was withdrawn; gives the prefix concerned."""
        assert held.kind in GIVING, held.kind
        if "." in identifier.name:
            return ""  # only a tombstone gets here, and it ends nothing
        giver = str(identifier)
        taker = self.authority(f"{identifier.prefix}.{identifier.name}")
        if taker.given_by not in ("", giver) and held.status is Status.WITHDRAWN:
            return ""  # the prefix went to another record since
        taker.give(giver, held, envelope, msgspec.convert(record.spec, Delegation) if record.spec else None)
        self._changed()
        return taker.prefix

    def take_back(self, identifier: Identifier) -> None:
        """Forget what the delegation ``identifier`` gave away."""
        taker = self._authorities.get(f"{identifier.prefix}.{identifier.name}")
        if taker is not None and taker.given_by == str(identifier):
            taker.take_back()
            self._changed()

    def _changed(self) -> None:
        self._change += 1
        self._warrants.clear()

    def check(
        self, authority: Authority, key: TrustedKey, kind: str, nb: int, now_s: int, where: str, is_new: bool
    ) -> None:
        """As `check_chain`, and much faster when nothing is wrong."""
        name, change = (key.kid, kind), self._change
        warrant = self._warrants.get(name)
        if (
            warrant is not None
            and warrant.change == change
            and warrant.from_s <= now_s < warrant.until_s
            and (warrant.public == key.public or not key.public)
        ):
            return
        from_s, until_s = check_chain(authority, key, kind, nb, now_s, where, is_new)
        known = authority.keys.get(key.kid)
        if known is not None and not known.revoked_from:  # else it depends on each record
            self._warrants[name] = Warrant(known.public, from_s, until_s, change)

    def check_reachable(self, identifier: Identifier) -> None:
        """Refuse an identifier whose prefix no pinned root can ever reach."""
        self.check_prefix(identifier.prefix, str(identifier))

    def check_prefix(self, whole: str, where: str = "") -> None:
        """Refuse a prefix that no pinned root can ever reach."""
        prefix, steps = whole, 0
        while prefix:
            authority = self._authorities.get(prefix)
            if authority is not None and authority.is_pinned:
                break
            prefix, steps = prefix.rpartition(".")[0], steps + 1
        if not prefix:
            raise refused("root_unknown", where, prefix=whole)
        if steps > MAX_DELEGATION_STEPS:
            raise refused("chain_depth", where, prefix=whole, steps=steps, limit=MAX_DELEGATION_STEPS)

    def chain(self, prefix: str) -> tuple[bytes, ...]:
        """The delegations from below the pinned root down to ``prefix``."""
        found: list[bytes] = []
        authority = self._authorities.get(prefix)
        while authority is not None and not authority.is_pinned and authority.held is not None:
            found.append(authority.envelope)
            authority = authority.parent
        return tuple(reversed(found))

    def key(self, kid: str, now_s: int) -> str | None:
        """The public key (base64url) of that name, when its whole chain holds now; None otherwise."""
        authority = self._authorities.get(kid.partition("#")[0])
        key = None if authority is None else authority.keys.get(kid)
        if authority is None or key is None:
            return None
        try:
            self.check(authority, key, "", now_s, now_s, kid, is_new=True)
        except TielineError:
            return None
        return key.text
