"""Joining: keys are made here and stay here; the exchange is recognised before it is told the token's secret."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
from pathlib import Path

from tieline.drivers.clock import SystemClock
from tieline.drivers.http import HttpClient
from tieline.drivers.siteprocess.home import FIRST_KEY, Home, Identity
from tieline.drivers.siteprocess.rekeying import given as given_by
from tieline.drivers.siteprocess.rekeying import name_of
from tieline.model.api import ExchangeView, JoinBody, JoinStatement, JoinView
from tieline.model.error import TielineError
from tieline.model.jointoken import MARK, JoinToken
from tieline.registry import Key, fingerprint, sealing_public, sign_statement
from tieline.site.siteyaml import parse_site

LABEL = re.compile(r"[a-z0-9]+(?:-+[a-z0-9]+)*")


async def join_site(
    folder: Path,
    *,
    token: str = "",
    url: str = "",
    owner: str = "",
    name: str = "",
    seed: bytes = b"",
    proxy: str = "",
    ca_file: str = "",
) -> JoinView:
    """Join with a token, or at ``url`` without one (then the site waits until an admin accepts it).

    ``owner`` and ``name`` are labels below the exchange's prefix; site.yaml, the token and the folder's name stand in
    for them. ``seed`` is the key of an owner that has one already. Raises TielineError: `token_refused` when the
    exchange is not the one that gave the token, and whatever the exchange says.
    """
    home = Home(folder)
    home.make_keys(seed)
    config = home.config()
    given = JoinToken.parse(token) if token else None
    proxy, ca_file = proxy or config.proxy, ca_file or config.ca_file
    async with HttpClient(given.url if given else url, proxy=proxy, ca_file=ca_file) as client:
        exchange = await client.call("GET", "/v1/exchange", ExchangeView)
        if given is not None and fingerprint(exchange.public) != given.fingerprint:
            raise TielineError(
                "token_refused",
                f"`{client.base_url}` shows the key {fingerprint(exchange.public)}, the token was given by "
                f"{given.fingerprint}: the secret was not sent",
                hints=("ask whoever gave you the token for a new one",),
            )
        owner = _label(owner or config.owner or _owner_of(given), "owner", "--owner NAME")
        name = _label(name or config.name or _name_for(home.folder), "site", "--name NAME")
        prefix = f"{exchange.prefix}.{owner}"
        statement = sign_statement(
            JoinStatement(
                owner=owner,
                owner_public=Key(home.seed("owner")).public,
                site=name,
                site_public=Key(home.seed("site")).public,
                sealing=sealing_public(home.seed("sealing")),
                nonce=os.urandom(16).hex(),
                at_ms=SystemClock().now_ms(),
                title=config.title,
            ),
            Key(home.seed("owner")),
            f"{prefix}#{FIRST_KEY}",
            "site-join",
        )
        body = JoinBody(token=given.secret if given else "", statement=statement.decode())
        joined = await client.call("POST", "/v1/sites", JoinView, body=body)
    _check(joined, exchange, prefix)
    home.keep_identity(
        Identity(
            url=client.base_url,
            exchange=exchange.id,
            public=exchange.public,
            site=joined.site,
            owner=joined.owner,
            kid=name_of(joined.delegation, Key(home.seed("owner")).public),
            delegation=joined.delegation,
            proxy=proxy,
            ca_file=ca_file,
        )
    )
    return joined


def join(where: str, folder: Path, *, config: Path | None = None, owner: str = "", name: str = "") -> JoinView:
    """`join_site` for a caller without a loop. ``where`` is a join token or a URL; ``config`` becomes site.yaml.

    Raises TielineError before anything is written when ``config`` cannot be read.
    """
    if config is not None:
        parse_site(config.read_bytes(), str(config))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copyfile(config, folder / "site.yaml")
    is_token = where.startswith(MARK)
    return asyncio.run(
        join_site(folder, token=where if is_token else "", url="" if is_token else where, owner=owner, name=name)
    )


def _check(joined: JoinView, exchange: ExchangeView, prefix: str) -> None:
    """What came back must be what was asked for, delegated by the key that is pinned."""
    given_by(joined.delegation, exchange.public, prefix)
    if joined.owner != prefix or not joined.site.startswith(f"{prefix}/site/"):
        raise TielineError("check_failed", f"the exchange gave `{joined.owner}` and not `{prefix}`")


def _owner_of(token: JoinToken | None) -> str:
    return token.owner.rpartition(".")[2] if token is not None else ""


def _name_for(folder: Path) -> str:
    """The folder's name, or the machine's where the folder is called after nothing in particular."""
    name = folder.name if folder.name not in ("site", "tieline", "") else socket.gethostname().partition(".")[0]
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63]


def _label(text: str, what: str, option: str) -> str:
    if not LABEL.fullmatch(text) or len(text) > 63:
        said = f"`{text[:63]}` cannot be the name of the {what}" if text else f"the {what} has no name"
        raise TielineError(
            "invalid_request",
            f"{said}: up to 63 lower-case letters, digits and `-`",
            hints=(f"tieline site join WHERE FOLDER {option}",),
        )
    return text
