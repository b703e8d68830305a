"""Device flow (RFC 8628): log in at an identity provider from a program that has no browser of its own.

The provider gives an address and a short code; a person opens the one and types the other, wherever there is a browser;
meanwhile the program asks, as often as it is allowed to, whether that has happened.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from tieline.model.error import TielineError

if TYPE_CHECKING:
    from tieline.drivers.http.issuer import Issuer

T = TypeVar("T")
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER_S = 5.0  # RFC 8628, section 3.5
MOST_INTERVAL_S = 60.0
MOST_WAIT_S = 1_800
FEW = Annotated[str, msgspec.Meta(max_length=16_384)]
AGAIN = ("tieline login URL --oidc",)


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """What a person needs to know, and what the program asks with."""

    device_code: FEW
    user_code: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
    verification_uri: Annotated[str, msgspec.Meta(max_length=500)]
    verification_uri_complete: Annotated[str, msgspec.Meta(max_length=800)] = ""
    expires_in: Annotated[int, msgspec.Meta(ge=1)] = MOST_WAIT_S
    interval: Annotated[int, msgspec.Meta(ge=0)] = 5


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider gave."""

    access_token: FEW
    id_token: FEW = ""
    refresh_token: FEW = ""
    expires_in: Annotated[int, msgspec.Meta(ge=0)] = 300

    def bearer(self, which: str) -> str:
        """The token that is sent to the exchange. Raises TielineError `check_failed` where the provider gave none."""
        token = self.id_token if which == "id" else self.access_token
        if not token:
            raise TielineError("check_failed", "the identity provider gave no identity token", hints=AGAIN)
        return token


async def started(issuer: Issuer, client_id: str, scopes: tuple[str, ...]) -> Started:
    """Begin. Raises TielineError for a provider without the device flow, or one that refuses the client."""
    endpoint = (await issuer.metadata()).device_authorization_endpoint
    if not endpoint:
        raise TielineError(
            "check_failed",
            f"the identity provider `{issuer.url}` has no device flow",
            hints=("tieline login URL --token TOKEN",),
        )
    status, answer = await issuer.form(endpoint, {"client_id": client_id, "scope": " ".join(scopes)})
    if status != 200:
        raise _refused(issuer, answer)
    found = _converted(answer, Started)
    for text in (found.user_code, found.verification_uri, found.verification_uri_complete):
        if not text.isprintable():
            raise TielineError("check_failed", "the identity provider's code or address cannot be shown")
    for uri in (found.verification_uri, found.verification_uri_complete):
        if uri and not uri.startswith(("https://", "http://")):
            raise TielineError("check_failed", f"`{uri}` is no address that a person could open")
    return found


async def granted(
    issuer: Issuer,
    client_id: str,
    begun: Started,
    *,
    clock_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Tokens:
    """What the person's consent gives. Raises `forbidden` when it is denied, `timeout` when the code's life is over."""
    endpoint = (await issuer.metadata()).token_endpoint
    until_s = clock_s() + min(begun.expires_in, MOST_WAIT_S)
    interval_s = min(float(begun.interval), MOST_INTERVAL_S)
    fields = {"grant_type": GRANT, "device_code": begun.device_code, "client_id": client_id}
    while clock_s() < until_s:
        await sleep(max(interval_s, 0.2))
        try:
            status, answer = await issuer.form(endpoint, fields)
        except TielineError as error:
            if error.code != "exchange_unreachable":
                raise
            interval_s = min(max(2 * interval_s, 1.0), MOST_INTERVAL_S)
            continue
        if status == 200:
            return _converted(answer, Tokens)
        error_code = answer.get("error")
        if error_code == "slow_down":
            interval_s = min(interval_s + SLOWER_S, MOST_INTERVAL_S)
        elif error_code != "authorization_pending":
            raise _refused(issuer, answer)
    raise TielineError("timeout", "nobody entered the code in time", hints=AGAIN)


async def refreshed(issuer: Issuer, client_id: str, refresh: str) -> Tokens:
    """New tokens for a refresh token. Raises `unauthenticated` when the provider takes it no more."""
    endpoint = (await issuer.metadata()).token_endpoint
    fields = {"grant_type": "refresh_token", "refresh_token": refresh, "client_id": client_id}
    status, answer = await issuer.form(endpoint, fields)
    if status == 200:
        return _converted(answer, Tokens)
    raise _refused(issuer, answer)


def _refused(issuer: Issuer, answer: dict[str, Any]) -> TielineError:
    said = str(answer.get("error", "no reason"))[:80]
    said = said if said.isprintable() else "no reason"
    if said == "access_denied":
        return TielineError("forbidden", "the login was denied", hints=AGAIN)
    if said == "expired_token":
        return TielineError("timeout", "nobody entered the code in time", hints=AGAIN)
    return TielineError("unauthenticated", f"the identity provider `{issuer.url}` refuses: {said}", hints=AGAIN)


def _converted(answer: dict[str, Any], shape: type[T]) -> T:
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        raise TielineError("check_failed", f"the identity provider's answer cannot be read: {error}") from None
