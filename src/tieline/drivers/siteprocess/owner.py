"""The owner's own commands where the site is: drain, undrain, leave. Its word counts at once, heard or not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from tieline.drivers.clock import SystemClock
from tieline.drivers.http import HttpClient
from tieline.drivers.siteprocess.home import Home, Identity
from tieline.drivers.siteprocess.line import Line
from tieline.model.api import SiteView
from tieline.model.error import TielineError
from tieline.registry import Key

T = TypeVar("T")
WHATS = ("drain", "undrain", "leave")
TRIES = 20
WAIT_S = 0.25


def change(folder: Path, what: str) -> SiteView:
    """Let the site in ``folder`` drain, take work again, or leave; how the exchange sees it afterwards.

    Draining counts at once: a marker in the folder makes the running process refuse new runs, whether the exchange is
    reached or not. Raises TielineError `exchange_unreachable` when the exchange could not be told.
    """
    if what not in WHATS:
        raise TielineError("invalid_request", f"`{what}` is not {', '.join(WHATS)}")
    home = Home(folder)
    identity = home.identity
    home.mark("draining", is_set=what != "undrain")
    path = f"/v1/sites/{identity.site.replace('/', '~')}/{what}"
    view = asyncio.run(in_session(home, identity, lambda client: client.call("POST", path, SiteView)))
    if what == "leave":
        home.mark("left", is_set=True)
        home.mark("draining", is_set=False)
    return view


async def in_session(home: Home, identity: Identity, act: Callable[[HttpClient], Awaitable[T]]) -> T:
    """Act in the running process's session, or in one of our own where no process runs."""
    async with HttpClient(identity.url, proxy=identity.proxy, ca_file=identity.ca_file) as client:
        for _ in range(TRIES):
            client.bearer = home.session()
            if client.bearer:
                try:
                    return await act(client)
                except TielineError as error:
                    if error.code != "unauthenticated":
                        raise
            is_alone = False
            try:
                with home.lock():
                    is_alone = True
                    await _own_session(client, home, identity)
                    return await act(client)
            except TielineError as error:
                if is_alone or error.code != "conflict":
                    raise
            await asyncio.sleep(WAIT_S)  # the running process is between two sessions
    raise TielineError(
        "exchange_unreachable",
        f"the site's process has no session with `{identity.url}`",
        hints=("say it again once the exchange is back",),
    )


async def _own_session(client: HttpClient, home: Home, identity: Identity) -> None:
    line = Line(
        client,
        identity,
        Key(home.seed("site")),
        SystemClock(),
        welcomed=lambda _: None,
        ordered=lambda _: None,
        cut=lambda _: None,
    )
    await line.open()
