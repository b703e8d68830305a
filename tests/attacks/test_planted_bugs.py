"""The corpus is checked itself: each check is taken out, one at a time, and the corpus must notice."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

import pytest
from record_corpus import ATTACKS, outcome

from tieline.registry import admission, catalogue, delegation, envelope, trust


def nothing(*_: Any, **__: Any) -> None:
    """A check that was forgotten."""


def only_keys(*_: Any, **__: Any) -> tuple[int, int]:
    """The chain is not walked: whoever has a delegated key is believed for ever."""
    return 0, 2**53


def never_revoked(authority: Any, key: Any, nb: int, now_s: int, where: str, is_new: bool) -> None:
    """Revocation lists are not read."""


def lax_base64(text: bytes, part: str) -> bytes:
    """Python's own decoder, which forgives."""
    return urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def lax_json(data: bytes, part: str) -> Any:
    """The standard library's reader: the last of two equal names wins, floats are welcome."""
    return json.loads(data)


def any_header(data: bytes) -> tuple[str, str]:
    """The header is believed: whatever algorithm, whatever extra fields."""
    fields = json.loads(lax_base64(data, ""))
    return fields["kid"], fields["typ"].removesuffix("+jws")


BUGS: dict[str, tuple[Any, str, Any, str]] = {
    "the signature is not checked": (catalogue, "check_signature", nothing, "forged with a key of one's own"),
    "the chain is not walked": (trust, "check_chain", only_keys, "prefix whose delegation was withdrawn"),
    "any key may sign for any prefix": (catalogue, "check_kid", nothing, "key of a sibling prefix"),
    "revisions are not compared": (catalogue, "check_succession", nothing, "wrong hash of the previous revision"),
    "tombstones are forgotten": (admission, "check_tombstone", nothing, "tombstone resurrected"),
    "revocation is not read": ("authority", "check_revocation", never_revoked, "revoked key"),
    "the key's window is not read": ("authority", "check_key_window", nothing, "expired key"),
    "allowed kinds are not read": ("authority", "check_kind", nothing, "kind that the prefix was not given"),
    "the quota is not counted": (catalogue, "check_quota", nothing, "one identifier too many"),
    "a delegation may widen": (delegation, "check_width", nothing, "delegation that widens the kinds"),
    "a delegation may climb": (delegation, "check_below", nothing, "delegation of the parent"),
    "a prefix may be given twice": (delegation, "check_free", nothing, "prefix given twice"),
    "delegated keys are not looked at": (delegation, "check_delegated_keys", nothing, "small-order delegated key"),
    "leases are not read": (catalogue, "check_lease", nothing, "lease that ended"),
    "base64 is read as Python reads it": (envelope, "base64url_bytes", lax_base64, "base64 with stray bits"),
    "JSON is read as Python reads it": (envelope, "decoded", lax_json, "duplicate key in the payload"),
    "headers are believed": (envelope, "header", any_header, "key fetched from jku"),
    "the scalar is not compared": ("keys", "GROUP_ORDER", 2**256, "malleable signature"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_corpus_catches_a_planted_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, replacement, victim = BUGS[bug]
    target = f"tieline.registry.{where}.{name}" if isinstance(where, str) else f"{where.__name__}.{name}"
    monkeypatch.setattr(target, replacement)
    caught = [attack.name for attack in ATTACKS if escapes(attack)]
    assert victim in caught, f"{len(caught)} of {len(ATTACKS)} attacks were noticed: {caught}"


def escapes(attack: Any) -> bool:
    """Whether the attack is answered otherwise than it should be; a crash is noticed too."""
    try:
        return outcome(attack) != attack.rule
    except Exception:  # noqa: BLE001 - a planted bug may break anything
        return True


def test_without_a_bug_the_corpus_is_silent() -> None:
    assert [attack.name for attack in ATTACKS if escapes(attack)] == []
