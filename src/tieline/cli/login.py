"""`login`: remember an exchange, pin its key, and which one is used when none is named."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import Face, as_json, as_tieline, client_of, hint, note, option, pass_face, show_json, usage, verb

if TYPE_CHECKING:
    from tieline.client.context import Context, Contexts
    from tieline.model.api import IssuerView


@verb("login")
@click.argument("url", default="")
@option("--token", default="", metavar="TOKEN|-", help="token_secret")
@option("--oidc", default=None, is_flag=False, flag_value="", metavar="[ISSUER]", help="login_oidc")
@option("--name", default="", help="context_name")
@option("--fingerprint", default="", help="fingerprint")
@option("--ca-file", default="", type=click.Path(dir_okay=False), help="ca_file")
@as_json
@pass_face
def login(
    _face: Face, url: str, token: str, oidc: str | None, name: str, fingerprint: str, ca_file: str, as_json: bool
) -> None:
    """Without a URL: the exchanges that are known; with a known name: use that one from now on."""
    from tieline.client import context

    if oidc is not None and oidc.startswith(("http://", "https://")) and not url:
        url, oidc = oidc, ""  # `--oidc URL`: the URL is the exchange's
    if oidc is not None and token:
        raise usage(words.say("login_one_way"))
    stored = context.read()
    if oidc is not None and url in stored.contexts:
        name, url = name or url, stored.contexts[url].url
    if not url:
        _list(stored, as_json)
        return
    if not url.startswith(("http://", "https://")):
        if url not in stored.contexts:
            raise usage(words.say("no_such_context", name=url))
        context.write(context.Contexts(current=url, contexts=stored.contexts))
        note(words.say("uses", name=url))
        return
    token = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105 - no password: the mark for stdin
    known = pinned(context.Context(url=url, token=token, ca_file=ca_file), fingerprint)
    name = name or known.prefix
    _check_pin(stored, name, known)
    if oidc is not None:
        import msgspec

        given = _at_provider(known, name, oidc)
        # proved without renewing: what is given for a refresh token must not be lost before it is kept
        known = msgspec.structs.replace(
            pinned(msgspec.structs.replace(given, login=None), known.fingerprint), login=given.login
        )
    context.keep(name, known)
    if as_json:
        show_json({"name": name, "url": url, "prefix": known.prefix, "fingerprint": known.fingerprint})
        return
    note(words.say("logged_in", name=name, url=url, fingerprint=known.fingerprint))
    hint("tieline status")


def _check_pin(stored: Contexts, name: str, known: Context) -> None:
    """Refuse an exchange under a name that was pinned to another key."""
    before = stored.contexts.get(name)
    if before is not None and before.fingerprint and before.fingerprint != known.fingerprint:
        raise as_tieline(
            "check_failed",
            f"the exchange at `{known.url}` has key {known.fingerprint}, `{name}` was pinned to {before.fingerprint}",
            f"tieline login {known.url} --name OTHER --fingerprint {known.fingerprint}  # if its operator says so",
        )


def _at_provider(known: Context, name: str, alias: str) -> Context:
    """``known`` with the tokens of somebody who logs in at an identity provider, in whatever browser is at hand."""
    import asyncio
    import time

    from tieline.client.context import Login
    from tieline.client.device import granted, started
    from tieline.client.renewal import with_tokens
    from tieline.drivers.http.issuer import Issuer

    async def work() -> Context:
        async with client_of(known) as client:
            found = _chosen((await client.exchange()).issuers, alias, known.url)
        issuer = Issuer(found.issuer, hosts=found.hosts)
        begun = await started(issuer, found.client_id, found.scopes)
        note(words.say("login_open", url=begun.verification_uri, code=begun.user_code))
        if begun.verification_uri_complete:
            note(words.say("login_open_whole", url=begun.verification_uri_complete))
        tokens = await granted(issuer, found.client_id, begun)
        login = Login(
            name=name,
            alias=found.alias,
            issuer=found.issuer,
            client_id=found.client_id,
            bearer=found.bearer,
            hosts=found.hosts,
        )
        now_ms = time.time_ns() // 1_000_000
        return with_tokens(msgspec.structs.replace(known, login=login), tokens, now_ms)

    import msgspec

    return asyncio.run(work())


def _chosen(issuers: tuple[IssuerView, ...], alias: str, url: str) -> IssuerView:
    """The provider of that alias, or the only one. Raises TielineError that names those that there are."""
    fitting = [each for each in issuers if alias in ("", each.alias, each.issuer)]
    if len(fitting) == 1:
        return fitting[0]
    if not issuers:
        raise as_tieline("not_found", f"`{url}` believes no identity provider", f"tieline login {url} --token TOKEN")
    hints = [f"tieline login {url} --oidc {each.alias}  # {each.issuer}" for each in issuers]
    raise as_tieline("not_found", "name one of the identity providers of this exchange", *hints)


def pinned(known: Context, fingerprint: str = "") -> Context:
    """``known`` with the exchange's key and prefix, which the exchange proved to be there and the token to be good."""
    import asyncio

    import msgspec

    from tieline.model.api import ExchangeView
    from tieline.registry import fingerprint as fingerprint_of

    async def work() -> ExchangeView:
        async with client_of(known) as client:
            found = await client.exchange()
            if known.token:
                await client.me()
            return found

    found = asyncio.run(work())
    seen = fingerprint_of(found.public)
    if fingerprint and seen != fingerprint:
        raise as_tieline("check_failed", f"the exchange at `{known.url}` has key {seen}, not {fingerprint}")
    return msgspec.structs.replace(known, fingerprint=seen, prefix=found.prefix)


def _list(stored: Contexts, as_json: bool) -> None:
    if as_json:
        shown = {
            name: {
                "url": each.url,
                "prefix": each.prefix,
                "fingerprint": each.fingerprint,
                "current": name == stored.current,
            }
            for name, each in stored.contexts.items()
        }
        show_json(shown)
        return
    rows = [
        ("*" if name == stored.current else "", name, each.url, each.fingerprint)
        for name, each in stored.contexts.items()
    ]
    table.show(("current", "name", "url", "fingerprint"), rows)
    if not rows:
        hint("tieline up", "tieline login URL --token TOKEN")
