"""`exchange`: other exchanges: who they are to us, what they may do here, and how each branch stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tieline.cli import table, words
from tieline.cli.backup import backup, restore
from tieline.cli.face import (
    Decorator,
    Face,
    Verbs,
    as_json,
    confirmed,
    flag,
    hint,
    note,
    option,
    pass_face,
    show_json,
    verb,
    yes,
)
from tieline.cli.root import root

if TYPE_CHECKING:
    from tieline.model.peering import BranchPage, BranchView
    from tieline.model.project import Quota

F = TypeVar("F", bound=Callable[..., Any])
ROLES = ("parent", "child", "peer")
QUOTA = {"cards": "card_count", "cores": "core_count", "card_hours": "card_hours", "cny": "micro_cny"}


@click.group("exchange", cls=Verbs, help="exchange")
def exchange() -> None:
    """Exchanges."""


@click.group("peer", cls=Verbs, help="peer")
def peer() -> None:
    """Peers."""


def grants(command: F) -> F:
    """The options that say what is granted, and what is pulled."""
    options: tuple[Decorator, ...] = (
        option("--kind", "kinds", multiple=True, metavar="KIND", help="peer_kind"),
        option("--prefix", "prefixes", multiple=True, metavar="PREFIX", help="peer_prefix"),
        option("--read/--no-read", "may_read", default=None, help="peer_read"),
        option("--use/--no-use", "may_use", default=None, help="peer_use"),
        option("--cards", default=None, type=click.IntRange(0), help="peer_cards"),
        option("--cores", default=None, type=click.IntRange(0), help="peer_cores"),
        option("--card-hours", default=None, type=click.IntRange(0), help="peer_card_hours"),
        option("--cny", default=None, type=click.IntRange(0), help="peer_cny"),
    )
    for each in reversed(options):
        command = each(command)
    return command


@verb("add", "peer_add")
@click.argument("url")
@option("--role", type=click.Choice(ROLES), default="peer", help="peer_role")
@option("--fingerprint", default="", metavar="HEX", help="peer_fingerprint")
@flag("--elsewhere", help="peer_elsewhere")
@grants
@as_json
@pass_face
def add(face: Face, url: str, role: str, fingerprint: str, elsewhere: bool, as_json: bool, **granted: Any) -> None:
    """Pin the key of the exchange at URL and ask it to peer; it is active once both sides have said yes."""
    from tieline.model.peer import PeerRole
    from tieline.model.peering import BranchView, PeerAddBody

    body = PeerAddBody(
        url=url, role=PeerRole(role), fingerprint=fingerprint, is_elsewhere=elsewhere, **_stated(granted)
    )
    found = face.call(lambda client: client.http.call("POST", "/v1/peers", BranchView, body=body))
    _said(found, as_json)


@verb("ls", "peer_ls")
@as_json
@pass_face
def ls(face: Face, as_json: bool) -> None:
    """Every exchange that is known here, with its key, its address and its grants."""
    page = _page(face)
    if as_json:
        show_json(page)
        return
    columns = ("exchange", "role", "state", "grants", "fingerprint", "url")
    table.show(columns, [_row(each) for each in page.branches])
    if not page.branches:
        hint("tieline exchange peer add URL")
    for each in page.branches:
        if each.state == "offered":
            hint(f"tieline exchange peer accept {each.exchange}")


@verb("accept", "peer_accept")
@click.argument("name", metavar="EXCHANGE")
@grants
@yes
@as_json
@pass_face
def accept(face: Face, name: str, yes: bool, as_json: bool, **granted: Any) -> None:
    """Say yes to an exchange that asked. Its fingerprint is shown first: compare it with what its owner says."""
    known = _one(_page(face), name)
    if known is not None:
        confirmed(
            words.say("peer_accept_asks", exchange=known.exchange, fingerprint=known.fingerprint, url=known.url), yes
        )
    _said(_change(face, name, "accept", granted), as_json)


@verb("grant", "peer_grant")
@click.argument("name", metavar="EXCHANGE")
@grants
@as_json
@pass_face
def grant(face: Face, name: str, as_json: bool, **granted: Any) -> None:
    """Change what a peer may do here, and what is pulled from it. What is not stated stays as it is."""
    before = _one(_page(face), name)
    _said(_change(face, name, "grant", granted, before), as_json)


@verb("clear", "peer_clear")
@click.argument("name", metavar="EXCHANGE")
@as_json
@pass_face
def clear(face: Face, name: str, as_json: bool) -> None:
    """Forget the proof against a peer, once its owner has explained itself."""
    from tieline.model.peering import BranchView

    found = face.call(lambda client: client.http.call("POST", f"/v1/peers/{_path(name)}/clear", BranchView))
    _said(found, as_json)


@verb("rm", "peer_rm")
@click.argument("name", metavar="EXCHANGE")
@yes
@as_json
@pass_face
def rm(face: Face, name: str, yes: bool, as_json: bool) -> None:
    """End peering: its key speaks for nothing here any more."""
    from tieline.model.peering import BranchView

    confirmed(words.say("peer_rm_asks", exchange=name), yes)
    found = face.call(lambda client: client.http.call("DELETE", f"/v1/peers/{_path(name)}", BranchView))
    _said(found, as_json)


@verb("status", "exchange_status")
@as_json
@pass_face
def status(face: Face, as_json: bool) -> None:
    """How each branch stands: what was taken, how far behind that is, how fresh, and what of it was refused."""
    from tieline.model.reason import sentence

    page = _page(face)
    if as_json:
        show_json(page)
        return
    known = [each for each in page.branches if each.state != "removed"]
    columns = ("exchange", "role", "state", "branch", "logs", "serial", "lag", "heard", "moved", "limited", "trouble")
    table.show(columns, [_status(each, page.now_ms) for each in known], right=(4, 5, 6, 8, 9))
    for each in known:
        if each.fault is not None:
            said = sentence(each.fault, words.language())
            note(words.say("peer_at_fault", exchange=each.exchange, why=said))
            hint(f"tieline exchange peer clear {each.exchange}")
        _silence(each, page.now_ms)
        for prefix in each.paused:
            note(words.say("peer_paused", exchange=each.exchange, prefix=prefix))
        for rule, count in each.refused.items():
            note(words.say("peer_refused_records", exchange=each.exchange, count=count, rule=rule))
        if each.equivocations:
            note(words.say("peer_equivocations", exchange=each.exchange, count=each.equivocations))
        for rule, count in each.rejected.items():
            note(words.say("peer_rejected", exchange=each.exchange, count=count, rule=rule))
    if not known:
        hint("tieline exchange peer add URL")


# -- below ------------------------------------------------------------------------------------------------------------


def _stated(granted: dict[str, Any], before: BranchView | None = None) -> dict[str, Any]:
    """The grants that were stated, as the fields of a body."""
    fields: dict[str, Any] = {}
    for name in ("kinds", "prefixes"):
        if granted[name]:
            fields[name] = tuple(each for each in granted[name] if each != "all")
    for name in ("may_read", "may_use"):
        if granted[name] is not None:
            fields[name] = granted[name]
    amounts = {QUOTA[name]: granted[name] for name in QUOTA if granted[name] is not None}
    if amounts:
        fields["quota"] = _quota(amounts, before)
    return fields


def _quota(amounts: dict[str, int], before: BranchView | None) -> Quota:
    import msgspec

    from tieline.model.project import Quota

    if "micro_cny" in amounts:
        amounts["micro_cny"] *= 1_000_000
    return msgspec.structs.replace(before.quota if before is not None else Quota(), **amounts)


def _change(face: Face, name: str, what: str, granted: dict[str, Any], before: BranchView | None = None) -> BranchView:
    from tieline.model.peering import BranchView, PeerGrantBody

    body = PeerGrantBody(**_stated(granted, before))
    return face.call(lambda client: client.http.call("POST", f"/v1/peers/{_path(name)}/{what}", BranchView, body=body))


def _page(face: Face) -> BranchPage:
    from tieline.model.peering import BranchPage

    return face.call(lambda client: client.http.call("GET", "/v1/peers", BranchPage))


def _one(page: BranchPage, name: str) -> BranchView | None:
    return next((each for each in page.branches if each.exchange == name), None)


def _path(name: str) -> str:
    from urllib.parse import quote

    return quote(name.replace("/", "~"), safe="~")


def _said(found: BranchView, as_json: bool) -> None:
    """What became of it."""
    if as_json:
        show_json(found)
        return
    state = words.term("peer", found.state)
    note(words.say("peer_stands", exchange=found.exchange, role=words.term("peer", found.role), state=state))
    note(words.say("peer_key", fingerprint=found.fingerprint))
    if found.state == "asked":
        hint("tieline exchange status")


def _row(each: BranchView) -> tuple[str, ...]:
    may = [words.say("peer_may_read")] * each.may_read + [words.say("peer_may_use")] * each.may_use
    return (
        each.exchange,
        words.term("peer", each.role),
        words.term("peer", each.state),
        ", ".join(may) or "-",
        each.fingerprint,
        each.url,
    )


def _status(each: BranchView, now_ms: int) -> tuple[str, ...]:
    from tieline.model.quantity import show_size

    return (
        each.exchange,
        words.term("peer", each.role),
        words.term("peer", each.state),
        words.term("freshness", each.freshness) or "-",
        f"{each.logs:,}",
        f"{each.serial:,}",
        f"{each.lag:,}" + (f", {table.age(each.lag_ms)}" if each.lag_ms else ""),
        table.when(each.heard_ms, now_ms),
        f"{show_size(each.in_bytes)} / {show_size(each.out_bytes)}",
        f"{sum(each.refused.values()) + sum(each.rejected.values()):,}",
        _trouble(each),
    )


def _silence(each: BranchView, now_ms: int) -> None:
    """What of a branch that is not heard goes stale."""
    silence = each.silence
    if silence is None:
        return
    values = {"exchange": each.exchange, "age": table.age(now_ms - silence.since_ms), "stale": silence.stale}
    key = "peer_frozen" if silence.is_frozen else "peer_silent"
    note(words.say(key, **values, alive=silence.alive, until=table.stamp(silence.until_ms)))


def _trouble(each: BranchView) -> str:
    from tieline.model.reason import sentence

    if each.fault is not None:
        return f"{words.term('peer', 'fault')}: {sentence(each.fault, words.language())}"
    if each.error is not None:
        return sentence(each.error, words.language())
    return each.use_error or "-"


for _each in (add, ls, accept, grant, clear, rm):
    peer.add_command(_each)
exchange.add_command(peer)
exchange.add_command(root)
exchange.add_command(status)
exchange.add_command(backup)
exchange.add_command(restore)
