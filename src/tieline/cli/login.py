"""`login`: remember an exchange, pin its key, and which one is used when none is named."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import Face, as_json, as_tieline, client_of, hint, note, option, pass_face, show_json, usage, verb

if TYPE_CHECKING:
    from tieline.client.context import Context, Contexts


@verb("login")
@click.argument("url", default="")
@option("--token", default="", metavar="TOKEN|-", help="token_secret")
@option("--name", default="", help="context_name")
@option("--fingerprint", default="", help="fingerprint")
@option("--ca-file", default="", type=click.Path(dir_okay=False), help="ca_file")
@as_json
@pass_face
def login(_face: Face, url: str, token: str, name: str, fingerprint: str, ca_file: str, as_json: bool) -> None:
    """Without a URL: the exchanges that are known; with a known name: use that one from now on."""
    from tieline.client import context

    stored = context.read()
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
    before = stored.contexts.get(name)
    if before is not None and before.fingerprint and before.fingerprint != known.fingerprint:
        raise as_tieline(
            "check_failed",
            f"the exchange at `{url}` has key {known.fingerprint}, `{name}` was pinned to {before.fingerprint}",
            f"tieline login {url} --name OTHER --fingerprint {known.fingerprint}  # if its operator says so",
        )
    context.keep(name, known)
    if as_json:
        show_json({"name": name, "url": url, "prefix": known.prefix, "fingerprint": known.fingerprint})
        return
    note(words.say("logged_in", name=name, url=url, fingerprint=known.fingerprint))
    hint("tieline status")


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
