"""An OpenID provider for the tests: discovery, rotating keys, the device flow with a page, refresh, groups.

It is a process of its own on loopback and signs with `cryptography`, not with the library that is tested against it::

    python tests/oidc_provider.py           prints its issuer, then serves until it is ended

What a person would do goes through `/activate`; what only a test may do (rotate keys, misbehave, sign what no provider
would sign) goes through `/_/...`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import json
import secrets
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

CLIENT = "tieline-cli"
AUDIENCE = "tieline"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
USERS: dict[str, dict[str, Any]] = {
    "alice": {"sub": "u-1", "preferred_username": "alice", "groups": ["lab", "hpc-users"]},
    "bob": {"sub": "u-2", "preferred_username": "bob", "groups": ["hpc-admins"]},
    "mallory": {"sub": "u-3", "preferred_username": "mallory", "groups": []},
}


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int, size: int = 0) -> str:
    return base64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class SigningKey:
    """One key with its algorithm, and how the key set shows it."""

    def __init__(self, kid: str, alg: str) -> None:
        self.kid, self.alg = kid, alg
        if alg == "RS256":
            self.secret: Any = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        elif alg == "ES256":
            self.secret = ec.generate_private_key(ec.SECP256R1())
        else:
            self.secret = ed25519.Ed25519PrivateKey.generate()

    def shown(self) -> dict[str, Any]:
        public: Any = self.secret.public_key()
        if self.alg == "RS256":
            numbers = public.public_numbers()
            shape = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
        elif self.alg == "ES256":
            point = public.public_numbers()
            shape = {"kty": "EC", "crv": "P-256", "x": _number(point.x, 32), "y": _number(point.y, 32)}
        else:
            shape = {"kty": "OKP", "crv": "Ed25519", "x": base64url(public.public_bytes_raw())}
        return {"kid": self.kid, "use": "sig", "alg": self.alg, **shape}

    def sign(self, message: bytes) -> bytes:
        if self.alg == "RS256":
            return self.secret.sign(message, padding.PKCS1v15(), hashes.SHA256())
        if self.alg == "ES256":
            r, s = decode_dss_signature(self.secret.sign(message, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return self.secret.sign(message)

    def token(self, claims: dict[str, Any], **head: Any) -> str:
        header = {"alg": self.alg, "kid": self.kid, "typ": "JWT", **head}
        header = {name: value for name, value in header.items() if value is not None}
        parts = (base64url(json.dumps(each).encode()) for each in (header, claims))
        message = ".".join(parts)
        return f"{message}.{base64url(self.sign(message.encode()))}"


class Provider:
    """The state of the process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.made = 0
        self.keys = [self.new_key("RS256")]
        self.codes: dict[str, dict[str, Any]] = {}  # by device code
        self.refreshes: dict[str, str] = {}  # refresh token -> user
        self.counts: Counter[str] = Counter()
        self.ways: dict[str, Any] = {}  # how to misbehave
        self.life_s = 300

    def new_key(self, alg: str) -> SigningKey:
        self.made += 1
        return SigningKey(f"key-{self.made}", alg)

    # -- what every provider has --------------------------------------------------------------------------------------

    async def discovery(self, _: web.Request) -> web.StreamResponse:
        self.counts["discovery"] += 1
        found = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
            **self.ways.get("discovery", {}),
        }
        return web.json_response({name: value for name, value in found.items() if value is not None})

    async def published(self, request: web.Request) -> web.StreamResponse:
        self.counts["keys"] += 1
        way = self.ways.get("keys", "")
        if way == "down":
            return web.Response(status=503)
        if way == "redirect":
            raise web.HTTPFound(f"{self.url}/elsewhere")
        if way == "huge":
            return web.Response(body=b'{"keys":[' + b" " * 1_000_000 + b"]}", content_type="application/json")
        if way == "page":
            return web.Response(text="<html>sign in</html>", content_type="text/html")
        if way == "stuck":
            await asyncio.sleep(60)
        extra = self.ways.get("more_keys", [])
        return web.json_response({"keys": [*extra, *[key.shown() for key in self.keys]]})

    async def elsewhere(self, _: web.Request) -> web.StreamResponse:
        self.counts["elsewhere"] += 1
        return web.json_response({"keys": [key.shown() for key in self.keys]})

    async def device(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        if form.get("client_id") != CLIENT:
            return web.json_response({"error": "invalid_client"}, status=401)
        code, user_code = secrets.token_urlsafe(24), f"{secrets.token_hex(2)}-{secrets.token_hex(2)}".upper()
        now_s = time.monotonic()
        life_s = self.ways.get("device_life_s", 300)
        self.codes[code] = {"user_code": user_code, "user": "", "ends_s": now_s + life_s, "slow": 0, "polls": 0}
        self.codes[code]["slow"] = self.ways.get("slow_down", 0)
        answer = {
            "device_code": code,
            "user_code": user_code,
            "verification_uri": f"{self.url}/activate",
            "verification_uri_complete": f"{self.url}/activate?user_code={user_code}",
            "expires_in": life_s,
            "interval": 1,
            **self.ways.get("device", {}),
        }
        return web.json_response(answer)

    async def page(self, request: web.Request) -> web.StreamResponse:
        code = html.escape(request.query.get("user_code", ""))
        return web.Response(
            text=f"<form method=post><input name=user_code value='{code}'><input name=user></form>",
            content_type="text/html",
        )

    async def activate(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        for each in self.codes.values():
            if each["user_code"] == form.get("user_code"):
                each["user"] = str(form.get("user", ""))
                return web.Response(text="you may close this page")
        return web.Response(status=404)

    async def token(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        self.counts[str(form.get("grant_type"))] += 1
        if form.get("client_id") != CLIENT:
            return web.json_response({"error": "invalid_client"}, status=401)
        if form.get("grant_type") == "refresh_token":
            user = self.refreshes.pop(str(form.get("refresh_token")), "")  # each is good once, as RFC 9700 advises
            return self.granted(user) if user else _error("invalid_grant")
        if form.get("grant_type") != DEVICE_GRANT:
            return _error("unsupported_grant_type")
        found = self.codes.get(str(form.get("device_code")))
        if found is None:
            return _error("invalid_grant")
        found["polls"] += 1
        if time.monotonic() > found["ends_s"]:
            return _error("expired_token")
        if found["polls"] <= found["slow"]:
            return _error("slow_down")
        if found["user"] == "nobody":
            return _error("access_denied")
        if not found["user"]:
            return _error("authorization_pending")
        del self.codes[str(form["device_code"])]
        return self.granted(found["user"])

    def granted(self, user: str) -> web.StreamResponse:
        refresh = secrets.token_urlsafe(24)
        self.refreshes[refresh] = user
        claims = self.claims(user)
        return web.json_response(
            {
                "access_token": self.keys[-1].token(claims, typ="at+jwt"),
                "id_token": self.keys[-1].token({**claims, "aud": CLIENT}),
                "refresh_token": refresh,
                "expires_in": self.life_s,
                "token_type": "Bearer",
            }
        )

    def claims(self, user: str) -> dict[str, Any]:
        now_s = int(time.time())
        times = {"iat": now_s, "nbf": now_s, "exp": now_s + self.life_s}
        return {"iss": self.url, "aud": AUDIENCE, "azp": CLIENT, **times, **USERS[user]}

    # -- what only a test may do --------------------------------------------------------------------------------------

    async def mint(self, request: web.Request) -> web.StreamResponse:
        """A token with whatever claims and header a test names; `key` is the index of a published key."""
        asked = await request.json()
        claims = self.claims(asked.get("user", "alice")) | asked.get("claims", {})
        claims = {name: value for name, value in claims.items() if value is not None}
        return web.Response(text=self.keys[asked.get("key", -1)].token(claims, **asked.get("head", {})))

    async def rotate(self, request: web.Request) -> web.StreamResponse:
        """A new key that signs from now on, under the name `kid`; `keep` says how many old ones stay published."""
        asked = await request.json()
        keep = asked.get("keep", 1)
        old = self.keys[len(self.keys) - keep :] if keep else []
        self.keys = [*old, self.new_key(asked.get("alg", "RS256"))]
        self.keys[-1].kid = asked.get("kid", self.keys[-1].kid)
        return web.json_response({"kid": self.keys[-1].kid})

    async def behave(self, request: web.Request) -> web.StreamResponse:
        """From now on as told; codes that nobody entered are forgotten."""
        asked = await request.json()
        self.codes.clear()
        self.life_s = asked.pop("life_s", 300)
        self.ways = asked
        return web.json_response({})

    async def pending(self, _: web.Request) -> web.StreamResponse:
        return web.json_response([each["user_code"] for each in self.codes.values() if not each["user"]])

    async def counted(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(dict(self.counts))

    def app(self) -> web.Application:
        made = web.Application()
        made.add_routes(
            [
                web.get("/.well-known/openid-configuration", self.discovery),
                web.get("/keys", self.published),
                web.get("/elsewhere", self.elsewhere),
                web.post("/device", self.device),
                web.get("/activate", self.page),
                web.post("/activate", self.activate),
                web.post("/token", self.token),
                web.post("/_/mint", self.mint),
                web.post("/_/rotate", self.rotate),
                web.post("/_/behave", self.behave),
                web.get("/_/counts", self.counted),
                web.get("/_/pending", self.pending),
            ]
        )
        return made


def _error(name: str) -> web.StreamResponse:
    return web.json_response({"error": name}, status=400)


async def _serve() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    runner = web.AppRunner(Provider(url).app())
    await runner.setup()
    await web.SockSite(runner, listener).start()
    print(url, flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


class ProviderProcess:
    """The provider as a test sees it: started, asked, ended."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, Path(__file__)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), "the provider did not start"
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def do(self, what: str, **fields: Any) -> httpx.Response:
        answer = self.http.post(f"/_/{what}", json=fields)
        answer.raise_for_status()
        return answer

    def mint(self, user: str = "alice", *, claims: dict[str, Any] | None = None, key: int = -1, **head: Any) -> str:
        """A token of ``user`` with other claims and another header; None leaves one out."""
        return self.do("mint", user=user, claims=claims or {}, key=key, head=head).text

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = self.http.get("/_/counts").json()
        return found

    def published(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get("/keys").json()["keys"]
        return found

    def pending(self) -> list[str]:
        """Codes that nobody has entered yet."""
        found: list[str] = self.http.get("/_/pending").json()
        return found

    def approve(self, user_code: str, user: str) -> None:
        answer = self.http.post("/activate", data={"user_code": user_code, "user": user})
        answer.raise_for_status()

    def stop(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


if __name__ == "__main__":
    asyncio.run(_serve())
