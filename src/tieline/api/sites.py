"""Who joined, and on which terms."""

from __future__ import annotations

import hashlib

from tieline.api.call import Call, named
from tieline.api.exchange import exchange_view
from tieline.api.operation import Follow, operation
from tieline.api.stated import stated_caller
from tieline.exchange.commands import ChangeSite, Joined, JoinSite, ReadSites
from tieline.model.api import JoinBody, JoinStatement, JoinView, SitePage, SiteView
from tieline.model.jointoken import MARK, JoinToken
from tieline.registry import open_statement


@operation(
    "GET",
    "/v1/sites",
    tag="sites",
    follows=tuple(
        Follow(operation=name, parameter="site", pointer="/sites/0/id")
        for name in ("read_site", "accept_site", "drain_site", "undrain_site")
    ),
)
async def list_sites(call: Call) -> SitePage:
    """The sites in order of identifier; of another owner's site, private pools are left out."""
    return SitePage(sites=tuple(await call.platform.ask(ReadSites(actor=call.actor))))


@operation("GET", "/v1/sites/{site}", tag="sites")
async def read_site(call: Call, site: str) -> SiteView:
    """One site as it stands."""
    return await site_view(call, named(site))


@operation(
    "POST",
    "/v1/sites",
    tag="sites",
    status=201,
    is_change=True,
    errors=("token_refused", "unauthenticated", "forbidden", "record_refused"),
    example={"statement": '{"payload":"e30","protected":"e30","signature":"AA"}'},
)
async def join_site(call: Call, body: JoinBody) -> JoinView:
    """A site asks to join, with a statement signed by its owner's key.

    With a join token it is admitted at once; without one it waits until an admin accepts it.
    """
    sha256 = hashlib.sha256(secret_of(body.token).encode()).hexdigest() if body.token else ""
    statement = body.statement.encode()
    said, kid = open_statement(statement, "site-join", JoinStatement)
    token = call.platform.view.tokens.get(sha256)
    right = f"key {kid}" if token is None else f"token {token.id}, key {kid}"
    actor = stated_caller(call, f"{call.platform.exchange.prefix}.{said.owner}", right)
    command = JoinSite(actor=actor, key=call.key, digest=call.digest, statement=statement, token_sha256=sha256)
    joined: Joined = await call.platform.ask(command)
    call.note(site=joined.site)
    await call.platform.shown()
    return JoinView(
        site=joined.site,
        owner=joined.owner,
        is_admitted=joined.is_admitted,
        delegation=joined.delegation.decode(),
        exchange=exchange_view(call.platform),
    )


def secret_of(token: str) -> str:
    """The secret of a join token, which is sent whole or as its secret alone."""
    return JoinToken.parse(token).secret if token.startswith(MARK) else token


async def site_view(call: Call, name: str) -> SiteView:
    """One site through the caller's eyes."""
    found: tuple[SiteView, ...] = await call.platform.ask(ReadSites(actor=call.actor, site=name))
    return found[0]


async def _change(call: Call, site: str, what: str) -> SiteView:
    name = named(site)
    call.note(site=name)
    await call.platform.ask(call.command(ChangeSite, site=name, what=what))
    await call.platform.shown()
    return await site_view(call, name)


@operation("POST", "/v1/sites/{site}/accept", tag="sites", is_change=True)
async def accept_site(call: Call, site: str) -> SiteView:
    """The exchange's consent to a site that waits."""
    return await _change(call, site, "accept")


@operation("POST", "/v1/sites/{site}/drain", tag="sites", is_change=True)
async def drain_site(call: Call, site: str) -> SiteView:
    """No new runs; those that run go on."""
    return await _change(call, site, "drain")


@operation("POST", "/v1/sites/{site}/undrain", tag="sites", is_change=True)
async def undrain_site(call: Call, site: str) -> SiteView:
    """New runs again."""
    return await _change(call, site, "undrain")


@operation("POST", "/v1/sites/{site}/leave", tag="sites", is_change=True)
async def leave_site(call: Call, site: str) -> SiteView:
    """The site goes: its runs are placed elsewhere, its session is over."""
    return await _change(call, site, "leave")
