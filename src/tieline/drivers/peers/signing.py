"""Signing: requests between exchanges (RFC 9421) with their bodies covered by a digest (RFC 9530).

::

    Tieline-From: cn.sh/exchange/main           who calls: its key was pinned by the one that is called
    Tieline-To: cn/exchange/main                who is meant: a request cannot be passed on to a third exchange
    Content-Digest: sha-256=:...:               where there is a body
    Signature-Input: tieline=("@method" "@authority" "@path" "@query" "tieline-from" ...);created=;expires=;nonce=;...
    Signature: tieline=:...:                    Ed25519

The structure of a signature is the library's; keys, the strict Ed25519 check and the clock are ours. A signature counts
once: whoever verifies remembers its nonce until it has expired (`Nonces`), and refuses what was signed before it began
to remember. A signature covers every header that changes what the request means (`COVERED_WHERE_PRESENT`).
"""

from __future__ import annotations

import base64
import datetime as dt
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureAlgorithm,
    HTTPSignatureKeyResolver,
    InvalidSignature,
)
from http_message_signatures.exceptions import HTTPMessageSignaturesException

from tieline.model.error import TielineError
from tieline.model.reason import Reason, sentence
from tieline.ports import Clock
from tieline.registry import Key
from tieline.registry.keys import SIGNATURE_BYTES, check_signature, check_strong, public_bytes

FROM, TO = "tieline-from", "tieline-to"
LABEL = "tieline"
TAG = "tieline-peer"
ALWAYS = ("@method", "@authority", "@path", "@query", FROM, TO)
COVERED_WHERE_PRESENT = ("content-digest", "content-type", "idempotency-key", "last-event-id", "range")
VALID_S = 30  # what we sign counts for so long
MOST_VALID_S = 60  # and what we verify at most
SKEW_S = 60  # how far the clocks of two exchanges may be apart
MOST_NONCES = 50_000  # of one caller within their validity
MOST_NONCE_CHARACTERS = 64
MOST_FIELD_BYTES = 4_096  # of Signature-Input and Signature


class _Ed25519(HTTPSignatureAlgorithm):
    """Ed25519 with this project's keys and its strict check of signatures."""

    algorithm_id = "ed25519"

    def __init__(self, public_key: bytes | None = None, private_key: Key | None = None) -> None:
        self.public_key, self.private_key = public_key, private_key

    def sign(self, message: bytes) -> bytes:
        assert self.private_key is not None
        return self.private_key.sign(message)

    def verify(self, signature: bytes, message: bytes) -> None:
        assert self.public_key is not None
        if len(signature) != SIGNATURE_BYTES:
            raise InvalidSignature(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
        check_signature(self.public_key, signature + message, "request")


class _OneKey(HTTPSignatureKeyResolver):
    """Exactly one key of one name: nothing that a request says can choose another."""

    def __init__(self, kid: str, *, public: bytes | None = None, private: Key | None = None) -> None:
        self.kid, self.public, self.private = kid, public, private

    def resolve_public_key(self, key_id: str) -> Any:
        return self.public if key_id == self.kid else None

    def resolve_private_key(self, key_id: str) -> Any:
        assert key_id == self.kid
        return self.private


@dataclass
class _Message:
    """A request as the library reads it."""

    method: str
    url: str
    headers: dict[str, str]


class _Verifier(HTTPMessageVerifier):
    """The library's verifier with a clock that is given, so that tests and simulations can set it."""

    max_clock_skew = dt.timedelta(seconds=SKEW_S)

    def __init__(self, kid: str, public: bytes, now_s: int) -> None:
        super().__init__(signature_algorithm=_Ed25519, key_resolver=_OneKey(kid, public=public))
        self.now_s = now_s

    def validate_created_and_expires(self, sig_input: Any, max_age: dt.timedelta | None = None) -> None:  # noqa: ARG002
        """Both times are there, their distance is bounded, and now lies between them, give or take the skew."""
        created, expires = sig_input.params.get("created"), sig_input.params.get("expires")
        if type(created) is not int or type(expires) is not int:
            raise InvalidSignature("`created` and `expires` must both be stated")
        if not 0 < expires - created <= MOST_VALID_S:
            raise InvalidSignature(f"it would count for {expires - created} s, at most {MOST_VALID_S} s are allowed")
        if not created - SKEW_S <= self.now_s <= expires + SKEW_S:
            raise _ClockError(self.now_s - created)


class _ClockError(InvalidSignature):
    """The times of a signature are not now."""

    def __init__(self, off_s: int) -> None:
        super().__init__(f"it was signed {off_s} s ago by this exchange's clock")
        self.off_s = off_s


class Signer:
    """Signs requests of one exchange."""

    def __init__(self, exchange: str, key: Key, kid: str, clock: Clock) -> None:
        self.exchange = exchange
        self.kid = kid
        self.clock = clock
        self._signer = HTTPMessageSigner(signature_algorithm=_Ed25519, key_resolver=_OneKey(kid, private=key))

    def headers(
        self, method: str, url: str, to: str, headers: Mapping[str, str], *, body: bytes | None = None, digest: str = ""
    ) -> dict[str, str]:
        """``headers`` with those that sign the request to the exchange ``to``.

        ``url`` is absolute and encoded as it will be sent. ``digest`` is the sha256 (hex) of a body that is streamed;
        ``body`` is one that is at hand.
        """
        sent = {**headers, "Tieline-From": self.exchange, "Tieline-To": to}
        if body is not None or digest:
            value = bytes.fromhex(digest) if body is None else sha256(body).digest()
            sent["Content-Digest"] = _digest_field(value)
        present = {name.lower() for name in sent}
        created = dt.datetime.fromtimestamp(self.clock.now_ms() // 1000, tz=dt.UTC)
        self._signer.sign(
            _Message(method, url, sent),
            key_id=self.kid,
            created=created,
            expires=created + dt.timedelta(seconds=VALID_S),
            nonce=secrets.token_urlsafe(18),
            label=LABEL,
            tag=TAG,
            use_existing_digest="content-digest" in present,
            covered_component_ids=[*ALWAYS, *(name for name in COVERED_WHERE_PRESENT if name in present)],
        )
        return sent


@dataclass(frozen=True)
class Claimed:
    """What a request says of itself before anything is verified."""

    exchange: str
    method: str
    url: str
    headers: dict[str, str] = field(repr=False)

    @property
    def digest(self) -> bytes | None:
        """The sha256 that the body must have; None: there must be none. Only the verified field may be asked."""
        stated = self.headers.get("content-digest")
        return None if stated is None else _digest_of(stated)


def claimed_of(method: str, url: str, headers: Iterable[tuple[str, str]]) -> Claimed:
    """Read who claims to call. Raises TielineError `unauthenticated` (peer_signature) for what cannot be read."""
    found: dict[str, str] = {}
    wanted = (FROM, TO, "host", "signature-input", "signature", *COVERED_WHERE_PRESENT)
    for name, value in headers:
        lowered = name.lower()
        if lowered not in wanted:
            continue
        if lowered in found:
            raise _refused("peer_signature", why=f"`{lowered}` stands there twice")
        found[lowered] = value
    for name in (FROM, TO, "signature-input", "signature"):
        if not 0 < len(found.get(name, "")) <= MOST_FIELD_BYTES:
            raise _refused("peer_signature", why=f"`{name}` is missing or over {MOST_FIELD_BYTES:,} bytes")
    return Claimed(found[FROM], method, url, found)


def verify_request(claimed: Claimed, to: str, kid: str, public: str, nonces: Nonces, now_s: int) -> None:
    """Check the signature of ``claimed`` by the pinned key ``public``; its nonce is used up.

    Raises TielineError `unauthenticated` with one reason: peer_signature, peer_clock, peer_replayed, peer_misdirected;
    `rate_limited` when more signed requests came than can be remembered. The body is the caller's to check by `digest`.
    """
    if claimed.headers[TO] != to:
        raise _refused("peer_misdirected", to=claimed.headers[TO][:200], here=to)
    try:
        key = public_bytes(public)
        check_strong(key, "public")
        verifier = _Verifier(kid, key, now_s)
        required = [*ALWAYS, *(name for name in COVERED_WHERE_PRESENT if name in claimed.headers)]
        (result,) = verifier.verify(
            _Message(claimed.method, claimed.url, claimed.headers),
            max_age=None,
            expect_tag=TAG,
            require_components=required,
        )
        if claimed.headers.get("content-digest") is not None:
            _digest_of(claimed.headers["content-digest"])
    except _ClockError as error:
        raise _refused("peer_clock", off_s=error.off_s, limit_s=SKEW_S) from None
    except TielineError as error:
        raise _refused("peer_signature", why=error.message) from None
    except (HTTPMessageSignaturesException, ValueError) as error:
        raise _refused("peer_signature", why=str(error)[:200]) from None
    expires = result.parameters["expires"]
    assert isinstance(expires, int)
    nonces.spend(claimed.exchange, result.nonce or "", expires + SKEW_S, int(result.parameters["created"]), now_s)


class Nonces:
    """The nonces of verified signatures, each kept until its signature has expired."""

    def __init__(self, began_s: int, most: int = MOST_NONCES) -> None:
        """``began_s``: since when nonces are remembered; what was signed before could be a replay."""
        self.began_s = began_s
        self.most = most
        self._seen: dict[str, OrderedDict[str, int]] = {}

    def __len__(self) -> int:
        return sum(len(seen) for seen in self._seen.values())

    def spend(self, caller: str, nonce: str, until_s: int, created_s: int, now_s: int) -> None:
        """Use a nonce up. Raises TielineError `unauthenticated` (peer_replayed), `rate_limited`."""
        if not 16 <= len(nonce) <= MOST_NONCE_CHARACTERS:
            raise _refused("peer_signature", why=f"the nonce has {len(nonce)} characters, not 16 to 64")
        if created_s < self.began_s:
            raise _refused("peer_replayed", nonce=nonce)
        seen = self._seen.setdefault(caller, OrderedDict())
        while seen and next(iter(seen.values())) < now_s:
            seen.popitem(last=False)
        if nonce in seen:
            raise _refused("peer_replayed", nonce=nonce)
        if len(seen) >= self.most:
            raise TielineError(
                "rate_limited", f"`{caller}` sent {self.most:,} signed requests within their validity of {VALID_S} s"
            )
        seen[nonce] = until_s


def _digest_field(digest: bytes) -> str:
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


def _digest_of(stated: str) -> bytes:
    """The sha-256 of a Content-Digest field, the only one that we take."""
    head, tail = "sha-256=:", ":"
    if stated.startswith(head) and stated.endswith(tail):
        try:
            digest = base64.b64decode(stated[len(head) : -1], validate=True)
        except ValueError:
            digest = b""
        if len(digest) == 32:
            return digest
    raise _refused("peer_signature", why="`content-digest` is not one sha-256")


def _refused(code: str, **values: int | str) -> TielineError:
    reason = Reason(code=code, values=values)
    return TielineError("unauthenticated", f"the request is not believed: {sentence(reason)}", reasons=(reason,))
