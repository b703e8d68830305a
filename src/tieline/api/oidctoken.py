"""A provider's token: what it says, once its signature, its parties and its times are found good. Pure, without I/O.

The algorithm is one of a fixed list and must fit the key that the provider publishes under the token's `kid`; nothing
in a token's head can name, carry or fetch a key. An access token and an identity token pass the same checks: who made
it, for whom, through which client, from when to when.

There is no `nonce` to compare: what is checked here is shown by whoever bears it; nobody logged in at this exchange.

Sources: RFC 7519, RFC 8725 (best practices), OpenID Connect Core 1.0 section 3.1.3.7, RFC 9068, RFC 7800.
"""

from __future__ import annotations

from typing import Annotated, Any, Protocol

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from tieline.model.error import TielineError
from tieline.model.reason import Reason, Value, sentence
from tieline.registry.keys import base64url_bytes
from tieline.registry.rules import shown_time

MOST_CHARACTERS = 16_384
MOST_KEYS = 100
RSA_BYTES = (256, 1_024)  # of the modulus: 2,048 to 8,192 bits
ALGORITHMS = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP", "Ed25519": "OKP"}  # and the keys that they are made with
TYPES = ("", "jwt", "at+jwt", "application/at+jwt")
NEVER_SHOWN = ("refresh", "offline", "logout")  # what a claim `typ` says of tokens that are for the provider alone
PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
CURVES = {"EC": "P-256", "OKP": "Ed25519"}
HINT = ("tieline login URL --oidc",)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a token must fulfil to be believed here."""

    issuer: str
    audience: tuple[str, ...]  # one of these must be meant
    clients: tuple[str, ...]  # through which it may have been asked for, where it says so (`azp`, `client_id`)
    skew_s: int = 60
    life_s: int = 86_400  # from when it was made to its end


class _KeySet(msgspec.Struct, frozen=True):
    """RFC 7517, section 5."""

    keys: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(max_length=MOST_KEYS)]


class PublishedKey(msgspec.Struct, frozen=True):
    """A key of the provider that can verify."""

    kid: str
    kty: str
    alg: str  # the only one that it is for; empty: any that fits
    key: Any


class Verifier(Protocol):
    """What is used of joserfc's algorithms."""

    def verify(self, msg: bytes, sig: bytes, key: Any) -> bool:
        """Whether ``sig`` is a signature of ``msg`` by ``key``."""


def keys_of(data: bytes) -> tuple[PublishedKey, ...]:
    """The keys of a key set that can verify; others (to encrypt, weak, unknown, secret) are left out.

    Raises TielineError `check_failed` for what is no key set.
    """
    try:
        found = msgspec.json.decode(data, type=_KeySet).keys
    except (msgspec.DecodeError, RecursionError) as error:
        raise TielineError("check_failed", f"the key set cannot be read: {error}") from None
    keys = [_published(each) for each in found]
    return tuple(key for key in keys if key is not None)


def _published(given: dict[str, Any]) -> PublishedKey | None:
    kty, kid, alg = given.get("kty"), given.get("kid", ""), given.get("alg", "")
    if type(kty) is not str or type(kid) is not str or type(alg) is not str or kty not in PUBLIC:
        return None
    operations = given.get("key_ops", ["verify"])
    is_to_verify = given.get("use", "sig") == "sig" and type(operations) is list and "verify" in operations
    if not is_to_verify or (alg and ALGORITHMS.get(alg) != kty):
        return None
    if kty in CURVES and given.get("crv") != CURVES[kty]:
        return None
    kind: Any = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}[kty]
    try:
        if kty == "RSA" and not RSA_BYTES[0] <= len(base64url_bytes(given["n"].encode(), "n")) <= RSA_BYTES[1]:
            return None
        key = kind.import_key({"kty": kty, **{name: given[name] for name in PUBLIC[kty]}})
    except (JoseError, TielineError, AttributeError, KeyError, ValueError, TypeError):
        return None
    return PublishedKey(kid, kty, alg, key)


class Parts(msgspec.Struct, frozen=True):
    """A token taken apart; nothing in it is believed yet."""

    alg: str
    kid: str
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def taken_apart(text: str) -> Parts:
    """Split a compact token with every bound. Raises `unauthenticated`: oidc_form, oidc_algorithm, oidc_type."""
    if len(text) > MOST_CHARACTERS:
        raise refusal("oidc_form")
    try:
        head, body, tail = text.split(".")
        header = msgspec.json.decode(base64url_bytes(head.encode("ascii"), "header"), type=dict[str, Any])
        claims = msgspec.json.decode(base64url_bytes(body.encode("ascii"), "payload"), type=dict[str, Any])
        signature = base64url_bytes(tail.encode("ascii"), "signature")
    except (ValueError, msgspec.MsgspecError, TielineError, RecursionError):
        raise refusal("oidc_form") from None
    alg, kid, typ = header.get("alg"), header.get("kid", ""), header.get("typ", "")
    if type(kid) is not str or type(typ) is not str or "crit" in header or "b64" in header:
        raise refusal("oidc_form")
    if type(alg) is not str or alg not in ALGORITHMS:
        raise refusal("oidc_algorithm", asked=str(alg)[:64], known=", ".join(ALGORITHMS))
    if typ.lower() not in TYPES:
        raise refusal("oidc_type", seen=typ[:64])
    return Parts(alg, kid, claims, f"{head}.{body}".encode(), signature)


def key_for(parts: Parts, keys: tuple[PublishedKey, ...]) -> PublishedKey | None:
    """The key that the token names; where it names none, the only one that fits its algorithm."""
    kty = ALGORITHMS[parts.alg]
    fitting = [each for each in keys if each.kty == kty and each.alg in ("", parts.alg)]
    if parts.kid:
        fitting = [each for each in fitting if each.kid == parts.kid]
    return fitting[0] if len(fitting) == 1 else None


def is_signed(parts: Parts, key: PublishedKey) -> bool:
    """Whether ``key`` signed the token."""
    algorithm: Verifier = JWSRegistry.algorithms[parts.alg]
    try:
        return algorithm.verify(parts.signed, parts.signature, key.key)
    except (JoseError, ValueError, TypeError):
        return False


def check_claims(claims: dict[str, Any], rules: Rules, now_s: int) -> int:
    """Raise `unauthenticated` unless the token is the issuer's, for us, through a client of ours, and of now.

    The second in which it ends.
    """
    if claims.get("iss") != rules.issuer:
        raise refusal("oidc_issuer", seen=str(claims.get("iss"))[:200])
    subject = claims.get("sub")
    if type(subject) is not str or not subject:
        raise refusal("oidc_claim", claim="sub")
    _check_purpose(claims)
    _check_parties(claims, rules)
    begins, ends, made = (_seconds(claims, name) for name in ("nbf", "exp", "iat"))
    if made is None:
        raise refusal("oidc_claim", claim="iat")
    if ends is None:
        raise refusal("oidc_claim", claim="exp")
    if ends + rules.skew_s <= now_s:
        raise refusal("oidc_expired", ended=shown_time(int(ends)))
    for start in (begins, made):
        if start is not None and start - rules.skew_s > now_s:
            raise refusal("oidc_early", begins=shown_time(int(start)))
    if ends <= made:
        raise refusal("oidc_claim", claim="exp")
    if ends - made > rules.life_s:
        raise refusal("oidc_long", life_us=int(ends - made) * 1_000_000, most_us=rules.life_s * 1_000_000)
    return int(ends)


def _check_purpose(claims: dict[str, Any]) -> None:
    """It is to be shown by whoever bears it: no event, nothing to get others with, nothing that a key must prove."""
    if "events" in claims:
        raise refusal("oidc_type", seen="security event")
    stated = claims.get("typ")
    if type(stated) is str and stated.lower() in NEVER_SHOWN:
        raise refusal("oidc_type", seen=stated[:64])
    if "cnf" in claims:  # RFC 7800: of RFC 9449 or RFC 8705; as a plain bearer it may have been stolen
        raise refusal("oidc_bound")


def _check_parties(claims: dict[str, Any], rules: Rules) -> None:
    audience = claims.get("aud")
    meant = [audience] if type(audience) is str else audience
    if type(meant) is not list or not any(type(each) is str and each in rules.audience for each in meant):
        raise refusal("oidc_audience", seen=str(audience)[:200])
    for name in ("azp", "client_id"):
        if name in claims and claims[name] not in rules.clients:
            raise refusal("oidc_party", seen=str(claims[name])[:200])
    if len(meant) > 1 and "azp" not in claims and "client_id" not in claims:
        raise refusal("oidc_party", seen="nobody")


def _seconds(claims: dict[str, Any], name: str) -> float | None:
    """A time of a token; None where there is none. Raises `unauthenticated` (oidc_claim) for what is no time."""
    value = claims.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value < 253_402_300_800:
        raise refusal("oidc_claim", claim=name)
    return float(value)


def refusal(reason: str, code: str = "unauthenticated", **values: Value) -> TielineError:
    """One named reason as the refusal that the caller raises."""
    cause = Reason(code=reason, values=values)
    return TielineError(code, sentence(cause), reasons=(cause,), hints=HINT)
