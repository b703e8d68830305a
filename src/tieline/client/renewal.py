"""Renewal: the bearer of a context whose tokens end, renewed with its refresh token shortly before they do.

A refresh token may be good for one use only (RFC 9700, section 4.14.2), and several processes share one context. So the
file is read again under a lock before the token is used: whoever comes second finds what the first was given.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from tieline.client import context as contexts
from tieline.client.context import Context
from tieline.client.device import Tokens, refreshed
from tieline.model.error import TielineError

EARLY_MS = 30_000  # before the end; also what a clock may be off


class Renewal:
    """Call it for the bearer of one context as it is good now."""

    def __init__(self, context: Context, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        assert context.login is not None
        self._known = context
        self._now_ms = now_ms
        self._one = asyncio.Lock()

    async def __call__(self) -> str:
        """The bearer. Raises TielineError `unauthenticated` when only a new login can help."""
        async with self._one:
            if self._is_ending(self._known):
                try:
                    self._known = await asyncio.to_thread(self._renewed)
                except TielineError as error:
                    if error.code != "exchange_unreachable" or self._is_over():
                        raise
            return self._known.token

    def _is_over(self) -> bool:
        return self._known.login is None or self._now_ms() >= self._known.login.until_ms

    def _is_ending(self, known: Context) -> bool:
        return known.login is not None and self._now_ms() >= known.login.until_ms - EARLY_MS

    def _renewed(self) -> Context:
        """In a thread: what another process was given meanwhile, or what the provider gives now."""
        assert self._known.login is not None
        with _locked():
            stored = contexts.read().contexts.get(self._known.login.name, self._known)
            if stored.url != self._known.url or stored.login is None:
                stored = self._known
            if not self._is_ending(stored):
                return stored
            found = with_tokens(stored, asyncio.run(_asked(stored)), self._now_ms())
            assert found.login is not None
            everything = contexts.read()
            if found.login.name in everything.contexts:
                kept = {**everything.contexts, found.login.name: found}
                contexts.write(msgspec.structs.replace(everything, contexts=kept))
            return found


def with_tokens(known: Context, tokens: Tokens, now_ms: int) -> Context:
    """``known`` with what its provider gave; a refresh token that is not replaced stays."""
    assert known.login is not None
    login = msgspec.structs.replace(
        known.login,
        refresh=tokens.refresh_token or known.login.refresh,
        until_ms=now_ms + tokens.expires_in * 1000,
    )
    return msgspec.structs.replace(known, token=tokens.bearer(login.bearer), login=login)


async def _asked(known: Context) -> Tokens:
    from tieline.drivers.http.issuer import Issuer

    login = known.login
    assert login is not None
    if not login.refresh:
        raise TielineError(
            "unauthenticated",
            f"the login at `{login.issuer}` is over, and the provider gave no refresh token",
            hints=(f"tieline login {known.url} --oidc {login.alias}",),
        )
    try:
        return await refreshed(Issuer(login.issuer, hosts=login.hosts), login.client_id, login.refresh)
    except TielineError as error:
        if error.code != "unauthenticated":
            raise
        hint = f"tieline login {known.url} --oidc {login.alias}"
        raise TielineError("unauthenticated", error.message, hints=(hint,)) from None


@contextmanager
def _locked() -> Iterator[None]:
    """One process at a time; the lock ends with whoever holds it."""
    path = contexts.home() / "contexts.lock"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
