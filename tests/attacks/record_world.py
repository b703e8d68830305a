"""A small registry with a past, and a forge that can make any envelope, for the attack corpus.

::

    cn.demo (pinned)                         another root, cn.rival, is pinned too
      cn.demo.lab7    every kind             pool/a100 at revision 2, pool/gone withdrawn, pool/fork at revision 1
        cn.demo.lab7.team
      cn.demo.lab8    every kind             the neighbour
      cn.demo.small   dataset only, quota 2  both used
      cn.demo.late    key expired            cn.demo.early  key not yet valid
      cn.demo.stolen  key revoked            cn.demo.ended  delegation expired       cn.demo.left  delegation withdrawn
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from typing import Any

from tieline.model.kinds import KINDS
from tieline.model.record import DelegatedKey, Record, Root, Status
from tieline.registry import Catalogue, Key, opened, sign

DAY_S = 86_400
NOW_S = 1_790_000_000
PAST_S = NOW_S - 30 * DAY_S  # when everything was registered
KINDS_ALL = tuple(sorted(KINDS))


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def key_of(name: str) -> Key:
    return Key(hashlib.sha256(f"attack {name}".encode()).digest())


def compact(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def delegated(prefix: str, name: str = "k1", **changes: Any) -> dict[str, Any]:
    kid = f"{prefix}#{name}"
    return {
        "kid": kid,
        "public": key_of(kid).public,
        "nb": PAST_S - DAY_S,
        "exp": NOW_S + 300 * DAY_S,
    } | changes


def delegation(prefix: str, **changes: Any) -> dict[str, Any]:
    return {"prefix": prefix, "keys": [delegated(prefix)], "kinds": list(KINDS_ALL), "max_records": 100} | changes


def payload(identifier: str, /, **changes: Any) -> dict[str, Any]:
    """A valid payload of revision 1, with ``changes``; a change to None leaves the field out."""
    kind = identifier.split("/")[1] if identifier.count("/") == 2 else "pool"
    fields = {"id": identifier, "kind": kind, "rev": 1, "nb": NOW_S - 60, "exp": NOW_S + 7 * DAY_S} | changes
    return {name: value for name, value in fields.items() if value is not None}


def header(kid: str, /, **changes: Any) -> dict[str, Any]:
    fields = {"alg": "Ed25519", "kid": kid, "typ": "cr+jws"} | changes
    return {name: value for name, value in fields.items() if value is not None}


def forged(
    body: bytes | dict[str, Any], head: bytes | dict[str, Any], key: Key, signature: bytes | None = None
) -> bytes:
    """Any envelope: nothing is checked, everything can be replaced."""
    body = body if isinstance(body, bytes) else compact(body)
    head = head if isinstance(head, bytes) else compact(head)
    texts = {"payload": base64url(body), "protected": base64url(head)}
    signed = f"{texts['protected']}.{texts['payload']}".encode()
    texts["signature"] = base64url(key.sign(signed) if signature is None else signature)
    return compact(texts)


def honest(identifier: str, kid: str = "", **changes: Any) -> bytes:
    """An envelope by the key that should sign ``identifier``, whatever ``changes`` make of its payload."""
    kid = kid or f"{identifier.partition('/')[0]}#k1"
    return forged(payload(identifier, **changes), header(kid), key_of(kid))


def weak_public() -> str:
    """The neutral element of the curve: a point of order 1."""
    return base64url(b"\x01" + bytes(31))


class RecordWorld:
    """The registry of the picture above, at NOW_S."""

    def __init__(self) -> None:
        roots = [Root(prefix=prefix, keys=(DelegatedKey(**delegated(prefix)),)) for prefix in ("cn.demo", "cn.rival")]
        self.catalogue = Catalogue(roots)
        self.envelopes: dict[str, bytes] = {}
        old = {"nb": PAST_S, "exp": NOW_S + 60 * DAY_S}
        for name, changes in {
            "lab7": {},
            "lab8": {},
            "small": {"kinds": ["dataset", "owner"], "max_records": 2},
            "late": {"keys": [delegated("cn.demo.late", exp=NOW_S - DAY_S)]},
            "early": {"keys": [delegated("cn.demo.early", nb=NOW_S + DAY_S)]},
            "stolen": {"keys": [delegated("cn.demo.stolen", revoked_from=NOW_S - DAY_S)]},
            "ended": {},
            "left": {},
        }.items():
            lease = old | ({"exp": NOW_S - DAY_S} if name == "ended" else {})
            spec = delegation(f"cn.demo.{name}", **changes)
            self.register(f"cn.demo/owner/{name}", spec=spec, **lease)
        self.register("cn.demo.lab7/owner/team", spec=delegation("cn.demo.lab7.team", max_records=10), **old)
        self.register("cn.demo/owner/left", status="withdrawn", **old)
        for number in (1, 2):
            self.register(f"cn.demo.small/dataset/d{number}", **old)
        self.register("cn.demo.lab7/site/s1", spec={"public": key_of("site").public}, **old)
        self.register("cn.demo.lab7/pool/a100", spec={"core_count": 8}, **old)
        self.register("cn.demo.lab7/pool/a100", spec={"core_count": 16}, **old)
        self.register("cn.demo.lab7/pool/gone", **old)
        self.register("cn.demo.lab7/pool/gone", status="withdrawn", **old)
        self.register("cn.demo.lab7/pool/fork", spec={"core_count": 1}, **old)

    def register(self, identifier: str, **changes: Any) -> None:
        """Admit the next revision as its writer signs it, at the time it was signed."""
        held = self.catalogue.head(identifier)
        if held is not None:
            changes |= {"rev": held.rev + 1, "prev": held.sha256}
        kid = f"{identifier.partition('/')[0]}#k1"
        spec = changes.pop("spec", {})
        record = Record(
            id=identifier,
            kind=identifier.split("/")[1],
            rev=changes.get("rev", 1),
            prev=changes.get("prev", ""),
            nb=changes["nb"],
            exp=changes["exp"],
            status=Status(changes.get("status", "active")),
            spec=spec,
        )
        envelope = sign(record, key_of(kid), kid)
        admission = self.catalogue.admit(envelope, PAST_S)
        assert admission.outcome == "stored", admission
        self.envelopes[f"{identifier}@{record.rev}"] = envelope

    def sha256(self, revision: str) -> str:
        """The payload hash of ``id@rev``."""
        return opened(self.envelopes[revision]).sha256.hex()

    def state(self) -> tuple[Any, ...]:
        """Everything that an attack could change."""
        catalogue = self.catalogue
        prefixes = sorted({row.prefix for row in catalogue.rows()})
        return (
            tuple(catalogue.rows()),
            catalogue.proofs(),
            catalogue.waiting(),
            tuple((prefix, catalogue.count(prefix), catalogue.delegation(prefix)) for prefix in prefixes),
        )
