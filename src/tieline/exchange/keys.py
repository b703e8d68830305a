"""Keys of an exchange: it signs delegations of its own prefix, and nothing in an owner's name."""

from __future__ import annotations

import msgspec

from tieline.model.kinds import KINDS
from tieline.model.peer import Peer
from tieline.model.record import MAX_LEASE_S, DelegatedKey, Delegation, Record, Root
from tieline.registry import Catalogue, Key, opened, sign

KEY_NAME = "exchange"
OWNER_QUOTA = 100_000
EXCHANGE_QUOTA = 5_000_000
KEY_YEARS_S = 10 * 365 * 86_400
BACKDATE_S = 300  # a site whose clock is a little behind must not see its delegation as not yet valid
GIVEN_KINDS = tuple(kind for kind in KINDS if kind != "exchange")


class ExchangeKeys:
    """The signing key and the prefix that it speaks for: the one root that this exchange pins."""

    def __init__(self, key: Key, prefix: str) -> None:
        self.key = key
        self.prefix = prefix
        self.kid = f"{prefix}#{KEY_NAME}"

    def root(self) -> Root:
        """What this exchange believes without a record."""
        key = DelegatedKey(kid=self.kid, public=self.key.public, nb=0, exp=253_402_300_799)
        return Root(prefix=self.prefix, keys=(key,))

    def catalogue(self) -> Catalogue:
        """An empty catalogue that trusts this exchange's own prefix."""
        return Catalogue([self.root()])

    def delegate(
        self, prefix: str, kid: str, public: str, title: str, now_s: int, before: bytes | None = None
    ) -> bytes:
        """The record that gives ``prefix`` to the holder of ``public``; ``before`` is the one that it follows."""
        name = prefix.removeprefix(self.prefix + ".")
        nb = now_s - BACKDATE_S
        spec = Delegation(
            prefix=prefix,
            keys=(DelegatedKey(kid=kid, public=public, nb=nb, exp=nb + KEY_YEARS_S),),
            kinds=GIVEN_KINDS,
            max_records=OWNER_QUOTA,
            title=title,
        )
        return self._signed(f"{self.prefix}/owner/{name}", msgspec.to_builtins(spec), nb, before)

    def delegate_exchange(self, peer: Peer, now_s: int, before: bytes | None = None) -> bytes:
        """The record that gives a child exchange its prefix, with every kind: it may give parts of it away itself."""
        nb = now_s - BACKDATE_S
        kid = f"{peer.prefix}#{KEY_NAME}"
        spec = Delegation(
            prefix=peer.prefix,
            keys=(DelegatedKey(kid=kid, public=peer.public, nb=nb, exp=nb + KEY_YEARS_S),),
            kinds=tuple(KINDS),
            max_records=EXCHANGE_QUOTA,
            title=peer.title,
            scope=peer.scope,
            url=peer.url,
        )
        name = f"{self.prefix}/exchange/{peer.prefix.removeprefix(self.prefix + '.')}"
        return self._signed(name, msgspec.to_builtins(spec), nb, before)

    def renew(self, before: bytes, now_s: int) -> bytes:
        """The same delegation with a new lease."""
        record = opened(before).record
        return self._signed(record.id, record.spec, now_s - BACKDATE_S, before)

    def revise(self, before: bytes, spec: Delegation, now_s: int) -> bytes:
        """The same delegation with other terms, and a new lease."""
        return self._signed(opened(before).record.id, msgspec.to_builtins(spec), now_s - BACKDATE_S, before)

    def _signed(self, name: str, spec: dict[str, object], nb: int, before: bytes | None) -> bytes:
        parcel = opened(before) if before is not None else None
        record = Record(
            id=name,
            kind=name.split("/")[1],
            rev=parcel.record.rev + 1 if parcel else 1,
            prev=parcel.sha256.hex() if parcel else "",
            nb=nb,
            exp=nb + MAX_LEASE_S,
            spec=spec,
        )
        return sign(record, self.key, self.kid)
