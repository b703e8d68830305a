"""Issuer: calls to one OpenID provider: its discovery document, its keys, its token endpoint, and nowhere else.

Every address is on the host of the configured issuer, or on one that was configured beside it; https, unless the host
is this machine; no redirect is followed; answers are bounded and timed. What a document or a token names (`jku`, `x5u`,
another host) is never called. An admin's provider may be in a private network, but no name leads to addresses where no
provider is (cloud metadata, link-local ...), and to this machine only where the URL says so.

Sources: OpenID Connect Discovery 1.0 (section 4), RFC 8414, RFC 7517, RFC 8628.
"""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from tieline import __version__
from tieline.drivers.http.client import is_loopback, whole_answer
from tieline.drivers.http.guard import Address, check_address, checking_resolver
from tieline.model.error import TielineError

DOCUMENT_BYTES = 262_144
MOST_S = 10.0
WELL_KNOWN = "/.well-known/openid-configuration"


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What is used of a discovery document."""

    issuer: str
    jwks_uri: str
    token_endpoint: str = ""
    device_authorization_endpoint: str = ""


class Issuer:
    """One provider. Raises TielineError `exchange_unreachable` without an answer, `check_failed` for a wrong one."""

    def __init__(self, url: str, *, hosts: Sequence[str] = (), ca_file: str = "") -> None:
        """``url`` as tokens name it in `iss`; ``hosts`` (``host`` or ``host:port``) may hold its endpoints besides."""
        self.url = url
        self.ca_file = ca_file
        self.hosts = (_authority(url), *hosts)
        self._checked(url, "issuer")

    async def metadata(self) -> Metadata:
        """The discovery document, which must name this very issuer and stay on its hosts."""
        body = await self._answer("GET", self.url.rstrip("/") + WELL_KNOWN)
        try:
            found = msgspec.json.decode(body[1], type=Metadata)
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._wrong(f"its discovery document cannot be read: {error}") from None
        if found.issuer != self.url:
            raise self._wrong(f"its discovery document is of `{found.issuer[:200]}`")
        for name in ("jwks_uri", "token_endpoint", "device_authorization_endpoint"):
            if getattr(found, name):
                self._checked(getattr(found, name), name)
        return found

    async def keys(self) -> bytes:
        """The key set (RFC 7517) as it was sent."""
        found = await self.metadata()
        return (await self._answer("GET", found.jwks_uri))[1]

    async def form(self, url: str, fields: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of a POST to an endpoint; 4xx are answers here, as OAuth has it."""
        self._checked(url, "endpoint")
        status, body = await self._answer("POST", url, fields)
        try:
            return status, msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise self._wrong(f"POST {urllib.parse.urlsplit(url).path}: the answer is no JSON object") from None

    async def _answer(self, method: str, url: str, fields: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        what = f"{method} {url[:200]}"
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(
                        ssl=self._tls(), use_dns_cache=False, resolver=checking_resolver(self._check_address)
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    trust_env=not is_loopback(url),
                    timeout=aiohttp.ClientTimeout(total=MOST_S),
                    headers={"User-Agent": f"tieline/{__version__}", "Accept-Encoding": "identity"},
                ) as session,
                session.request(
                    method, url, data=fields, allow_redirects=False, headers={"Accept": "application/json"}
                ) as response,
            ):
                status = response.status
                if 300 <= status < 400:
                    raise self._wrong(f"{what}: it redirects, and redirects are not followed")
                if status >= 500 or (method == "GET" and status != 200):
                    raise self._unreachable(f"{what}: status {status}")
                return status, await whole_answer(response, DOCUMENT_BYTES, what)
        except TielineError as error:
            if error.code == "address_refused":
                raise self._unreachable(error.message) from None
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unreachable(f"{what}: {str(error)[:200] or type(error).__name__}") from None

    def _checked(self, url: str, name: str) -> None:
        """Refuse an address that is not on the issuer's hosts, or not protected on its way."""
        try:
            parts = urllib.parse.urlsplit(url)
            authority = _authority(url)
        except ValueError:
            raise self._wrong(f"its {name} is no address") from None
        if len(url) > 500 or not url.isascii() or not url.isprintable() or parts.username or parts.fragment:
            raise self._wrong(f"its {name} is no address")
        if authority not in self.hosts and parts.hostname not in self.hosts:
            raise self._wrong(f"its {name} is on `{authority}`, not on {', '.join(self.hosts)}")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(url)):
            raise self._wrong(f"its {name} is not https")

    def _check_address(self, host: str, address: Address) -> None:
        """Refuse what the name of an endpoint leads to, where no provider can be."""
        if all(host != known.rpartition(":")[0] and host != known for known in self.hosts):
            return  # the proxy that the environment of this process states
        if address.is_loopback and not is_loopback(self.url):
            check_address(self.url, address, is_private_stated=False)
        check_address(self.url, address, is_private_stated=True)

    def _tls(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=self.ca_file) if self.ca_file else True

    def _wrong(self, why: str) -> TielineError:
        return TielineError("check_failed", f"the identity provider `{self.url[:200]}`: {why}")

    def _unreachable(self, why: str) -> TielineError:
        message = f"the identity provider `{self.url[:200]}` does not answer: {why}"
        return TielineError("exchange_unreachable", message)


def _authority(url: str) -> str:
    """``host:port`` of an address, with the scheme's own port where none is written."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
