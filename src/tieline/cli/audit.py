"""`audit`: who did what, from where and under which right; exports that prove themselves; what is known of a log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from tieline.cli import table, words
from tieline.cli.face import (
    Face,
    Verbs,
    as_json,
    as_tieline,
    flag,
    hint,
    note,
    option,
    pass_face,
    show_json,
    usage,
    verb,
)

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.drivers.stores.export import Growth
    from tieline.model.api import EventView, ExchangeView
    from tieline.model.audit import ExportView, HeadView, LogHead

PAGE = 1_000
MOST_HEADS = 1_000
MOST_WHY = 120


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of the log of one exchange."""

    exchange: str
    public: str
    statement: str


@click.group("audit", cls=Verbs, help="audit")
def audit() -> None:
    """Audit."""


# -- show -------------------------------------------------------------------------------------------------------------


@verb("show", "audit_show")
@option("--actor", default="", help="audit_actor")
@option("--kind", default="", help="audit_kind")
@option("--subject", default="", help="audit_subject")
@option("--source", default="", help="audit_source")
@option("--after", default=0, type=click.IntRange(0), help="after")
@option("--limit", default=100, type=click.IntRange(1, 100_000), help="limit")
@as_json
@pass_face
def show(face: Face, after: int, limit: int, as_json: bool, **wanted: str) -> None:
    """Entries of the log that fit every filter, oldest first."""
    found = face.call(lambda client: _found(client, after, limit, wanted))
    if as_json:
        show_json(found)
        return
    columns = ("entry", "time", "actor", "kind", "subject", "source", "why")
    table.show(columns, [_row(each) for each in found], right=(0,))


async def _found(client: AsyncClient, after: int, limit: int, wanted: dict[str, str]) -> list[EventView]:
    found: list[EventView] = []
    while len(found) < limit:
        page = await client.events(after, PAGE)
        found += [each for each in page.events if _fits(each, wanted)]
        if page.next_after <= after:
            break
        after = page.next_after
    return found[:limit]


def _fits(event: EventView, wanted: dict[str, str]) -> bool:
    exact = ("actor", "kind", "subject")
    return wanted["source"] in event.source and all(wanted[name] in ("", getattr(event, name)) for name in exact)


def _row(event: EventView) -> tuple[str, ...]:
    said = (event.actor, event.kind, event.subject, event.source or "-", _why(event))
    return (f"{event.seq}", table.stamp(event.time_ms), *map(table.clean, said))


def _why(event: EventView) -> str:
    """What the entry itself states as its cause, where it states one."""
    body = msgspec.json.decode(event.body)
    found = body.get("why") if type(body) is dict else None
    return found[:MOST_WHY] if type(found) is str and found else "-"


# -- export -----------------------------------------------------------------------------------------------------------


@verb("export", "audit_export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@option("--from", "first", default=1, type=click.IntRange(1), help="audit_from")
@option("--to", "last", default=0, type=click.IntRange(0), help="audit_to")
@option("--pin", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="audit_pin")
@as_json
@pass_face
def export(face: Face, file: Path, first: int, last: int, pin: Path | None, as_json: bool) -> None:
    """Write FILE whole or not at all; it is checked before it gets its name.

    A head that was seen before, also one from before the part, is proved in it: the pinned one, and the remembered one.
    """
    if file.exists():
        raise as_tieline("conflict", f"`{file}` exists already: an export is never written over")
    partial = file.with_name(f".{file.name}.partial")
    try:
        exchange, known = face.call(lambda client: _export(client, partial, first, last, pin))
        found = _verified(partial, exchange.public, known)
        if not found.is_verified:
            raise as_tieline("check_failed", f"what the exchange gave does not hold at {found.broken_at}: {found.why}")
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)
    if as_json:
        show_json(found)
        return
    at = table.stamp(found.signed_ms)
    note(words.say("audit_exported", file=str(file), first=found.first, last=found.last, size=found.size, at=at))
    hint(f"tieline audit verify {file} --key {exchange.public}")


async def _export(
    client: AsyncClient, partial: Path, first: int, last: int, pin: Path | None
) -> tuple[ExchangeView, LogHead | None]:
    from tieline.drivers.stores.export import begin_line, end_line, entry_line
    from tieline.model.audit import HeadView, RangeView

    exchange = await _exchange(client)
    head = await client.http.call("GET", "/v1/audit/head", HeadView)
    asked = {"from": first, "to": last, "size": head.size}
    beside = await client.http.call("GET", "/v1/audit/range", RangeView, params=asked)
    heads = [*await _heads(client, exchange.id, first, beside.last, head.size), head]
    known = _seen(exchange.id, pin)
    growths = [] if known is None else await _growths(client, known, head.size)
    with partial.open("xb") as out:
        out.write(begin_line(exchange.id, beside, [each.statement for each in heads], growths))
        after = first - 1
        while after < beside.last:
            page = await client.events(after, min(PAGE, beside.last - after))
            if not page.events or page.next_after <= after:
                raise as_tieline(
                    "forbidden", f"entry {after + 1} is not shown to you", "tieline token create --role auditor NAME"
                )
            out.writelines(entry_line(each) for each in page.events)
            after = page.next_after
        out.write(end_line(beside.last - first + 1))
    return exchange, known


def _seen(exchange: str, pin: Path | None) -> LogHead | None:
    """The head that was seen before: the pinned one, or the one that is remembered of this exchange."""
    if pin is not None:
        return _head(_pin(pin))
    path = _pin_path(exchange)
    return _head(_pin(path)) if path.exists() else None


async def _growths(client: AsyncClient, known: LogHead, size: int) -> list[Growth]:
    """The proof that the log goes on from a head; of one that is longer than the log there is none."""
    from tieline.drivers.stores.export import Growth
    from tieline.model.audit import GrowthView

    if not 0 < known.size < size:
        return []
    asked = {"from": known.size, "to": size}
    found = await client.http.call("GET", "/v1/audit/proof", GrowthView, params=asked)
    return [Growth(size=known.size, proof=found.proof)]


async def _heads(client: AsyncClient, exchange: str, first: int, last: int, size: int) -> list[HeadView]:
    """The kept heads over the lengths from ``first`` to ``last``, without the one over ``size``."""
    from tieline.model.audit import HeadPage

    asked = {"exchange": exchange, "after": first - 1, "limit": MOST_HEADS}
    page = await client.http.call("GET", "/v1/audit/heads", HeadPage, params=asked)
    return [each for each in page.heads if each.size <= last and each.size < size]


async def _exchange(client: AsyncClient) -> ExchangeView:
    """Who answers; with the key that was pinned at the login, where one was."""
    from tieline.client.context import chosen
    from tieline.model.api import ExchangeView

    found = await client.http.call("GET", "/v1/exchange", ExchangeView)
    context = click.get_current_context().find_object(Face)
    pinned = chosen(context.exchange if context is not None else "").fingerprint
    from tieline.registry import fingerprint

    if pinned and pinned != fingerprint(found.public):
        raise as_tieline("check_failed", f"`{found.id}` answers with another key than {pinned}, which was pinned")
    return found


# -- verify -----------------------------------------------------------------------------------------------------------


@verb("verify", "audit_verify")
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@option("--key", default="", metavar="PUBLIC", help="audit_key")
@option("--pin", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="audit_pin")
@flag("--exchange", "is_online", help="audit_exchange")
@as_json
@pass_face
@click.pass_context
def verify(
    ctx: click.Context, face: Face, file: Path | None, key: str, pin: Path | None, is_online: bool, as_json: bool
) -> None:
    """FILE with nothing but a public key, or the log of the exchange since the last time."""
    if is_online == (file is not None):
        raise usage("FILE | --exchange")
    if file is None:
        face.call(lambda client: _online(client, as_json))
        return
    if bool(key) == (pin is not None):
        raise usage("--key | --pin")
    known = None
    if pin is not None:
        remembered = _pin(pin)
        key, known = remembered.public, _head(remembered)
    found = _verified(file, key, known)
    if as_json:
        show_json(found)
    elif found.is_verified:
        note(words.say("audit_holds", exchange=table.clean(found.exchange), first=found.first, last=found.last,
                       at=table.stamp(found.signed_ms), heads=found.heads))  # fmt: skip
    else:
        from tieline.model.reason import sentence

        why = sentence(found.reason, words.language()) if found.reason is not None else found.why
        note(words.say("audit_broken", at=found.broken_at, why=table.clean(why)))
    ctx.exit(0 if found.is_verified else 1)


def _verified(file: Path, public: str, known: LogHead | None) -> ExportView:
    from tieline.drivers.stores.export import MOST_LINE_BYTES, verify_export

    with file.open("rb") as source:
        return verify_export(iter(lambda: source.readline(MOST_LINE_BYTES + 1), b""), public, known)


async def _online(client: AsyncClient, as_json: bool) -> None:
    """Compare the head of the log with the one that was remembered, then remember it."""
    from tieline.model.audit import GrowthView, HeadView
    from tieline.model.reason import sentence
    from tieline.registry.heads import check_growth, checked_head

    exchange = await _exchange(client)
    path = _pin_path(exchange.id)
    before = _pin(path) if path.exists() else None
    head = await client.http.call("GET", "/v1/audit/head", HeadView)
    public = before.public if before is not None else exchange.public
    new = checked_head(head.statement.encode(), public, exchange.id)
    old = _head(before) if before is not None else None
    if old is not None:
        proof: tuple[str, ...] = ()
        if 0 < old.size < new.size:
            asked = {"from": old.size, "to": new.size}
            proof = (await client.http.call("GET", "/v1/audit/proof", GrowthView, params=asked)).proof
        fault = check_growth(old, new, proof)
        if fault is not None:
            why = f"`{exchange.id}`: {sentence(fault, words.language())}"
            raise as_tieline(
                "check_failed", why, f"tieline audit verify FILE --pin {path}  # keep {path}: it is the proof"
            )
    _remember(path, Pin(exchange=exchange.id, public=public, statement=head.statement))
    if as_json:
        show_json(
            {
                "exchange": exchange.id,
                "size": new.size,
                "known": old.size if old is not None else None,
                "pin": str(path),
            }
        )
    elif old is None:
        note(words.say("audit_first_seen", exchange=exchange.id, size=new.size))
    else:
        note(words.say("audit_goes_on", exchange=exchange.id, size=new.size, known=old.size))


# -- what is remembered -----------------------------------------------------------------------------------------------


def _pin_path(exchange: str) -> Path:
    from tieline.client.context import home
    from tieline.model.identifier import Identifier

    Identifier.parse(exchange)  # whatever answers: its name must not lead out of the folder
    return home() / "audit" / f"{exchange.replace('/', '~')}.json"


def _pin(path: Path) -> Pin:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pin)
    except msgspec.MsgspecError as error:
        raise as_tieline("invalid_request", f"`{path}` is not what was remembered of a log: {error}") from None


def _head(pin: Pin) -> LogHead:
    from tieline.registry.heads import checked_head

    return checked_head(pin.statement.encode(), pin.public, pin.exchange)


def _remember(path: Path, pin: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}")
    partial.write_bytes(msgspec.json.encode(pin) + b"\n")
    partial.rename(path)


for _each in (show, export, verify):
    audit.add_command(_each)
