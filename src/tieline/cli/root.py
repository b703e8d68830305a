"""`exchange root`: prefixes that are believed without peering, so that records of far branches prove themselves."""

from __future__ import annotations

import click

from tieline.cli import table, words
from tieline.cli.face import Face, Verbs, as_json, confirmed, hint, note, pass_face, show_json, verb, yes


@click.group("root", cls=Verbs, help="root")
def root() -> None:
    """Roots."""


@verb("add", "root_add")
@click.argument("prefix")
@click.argument("key")
@as_json
@pass_face
def add(face: Face, prefix: str, key: str, as_json: bool) -> None:
    """Believe what KEY signs for PREFIX, and what it gave away below. KEY is `public` of `GET /v1/exchange` there."""
    from tieline.model.peering import RootBody, RootView

    body = RootBody(prefix=prefix, public=key)
    found = face.call(lambda client: client.http.call("POST", "/v1/roots", RootView, body=body))
    if as_json:
        show_json(found)
        return
    note(words.say("root_stands", prefix=found.prefix))
    note(words.say("peer_key", fingerprint=found.fingerprint))


@verb("ls", "root_ls")
@as_json
@pass_face
def ls(face: Face, as_json: bool) -> None:
    """Every prefix that is believed here, with its key and, where peering pinned it, the peer."""
    from tieline.model.peering import RootPage

    page = face.call(lambda client: client.http.call("GET", "/v1/roots", RootPage))
    if as_json:
        show_json(page)
        return
    table.show(
        ("prefix", "fingerprint", "peer"), [(each.prefix, each.fingerprint, each.peer or "-") for each in page.roots]
    )
    if not page.roots:
        hint("tieline exchange root add PREFIX KEY")


@verb("rm", "root_rm")
@click.argument("prefix")
@yes
@as_json
@pass_face
def rm(face: Face, prefix: str, yes: bool, as_json: bool) -> None:
    """Believe PREFIX no longer: records that rest on it alone do not count any more."""
    from urllib.parse import quote

    from tieline.model.peering import RootView

    confirmed(words.say("root_rm_asks", prefix=prefix), yes)
    path = f"/v1/roots/{quote(prefix, safe='')}"
    found = face.call(lambda client: client.http.call("DELETE", path, RootView))
    if as_json:
        show_json(found)
        return
    note(words.say("root_gone", prefix=found.prefix))


for _each in (add, ls, rm):
    root.add_command(_each)
