"""`transfer`: bytes from here to there: booked, shown, cancelled, moved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import (
    Face,
    Verbs,
    as_json,
    as_tieline,
    confirmed,
    flag,
    hint,
    is_terminal,
    note,
    option,
    pass_face,
    show_json,
    verb,
    yes,
)
from tieline.cli.moment import bytes_of, clock_ms, micro_cny, moment_ms
from tieline.cli.moving import follow_transfer, run_transfer
from tieline.cli.paging import collected

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.circuit import Receipt
    from tieline.model.transfer import Segment, Transfer, TransferOrder

PROJECT = option("--project", default="", metavar="NAME", help="booking_project")
DRY_RUN = flag("--dry-run", "is_dry_run", help="dry_run")
STATES = ("booked", "moving", "arrived", "short", "failed", "cancelled")
MOST_SHOWN = 20  # segments of one transfer; `--json` gives all
MOST_FILE_BYTES = 4_000_000


@click.group("transfer", cls=Verbs, help="transfer")
def transfer() -> None:
    """Bytes."""


@verb("order", "transfer_order")
@click.argument("source")
@click.argument("target")
@click.argument("size")
@option("--by", default="", metavar="TIME", help="by")
@option("--earliest", default="", metavar="TIME", help="earliest")
@flag("--one-path", "is_whole", help="one_path")
@flag("--partial", "is_partial", help="partial")
@option("--limit", default=None, metavar="CNY", help="price_limit")
@option("--label", default="", help="label")
@option("--job", default="", metavar="JOB", help="for_job")
@PROJECT
@DRY_RUN
@as_json
@pass_face
def order(
    face: Face,
    source: str,
    target: str,
    size: str,
    by: str,
    earliest: str,
    is_whole: bool,
    is_partial: bool,
    limit: str | None,
    label: str,
    job: str,
    project: str,
    is_dry_run: bool,
    as_json: bool,
) -> None:
    """Book room for bytes."""
    from tieline.model.booking_api import TransferBody
    from tieline.model.transfer import TransferOrder

    now_ms = clock_ms()
    asked = TransferOrder(
        source=source,
        target=target,
        size_bytes=bytes_of("SIZE", size),
        earliest_ms=moment_ms("--earliest", earliest, now_ms),
        deadline_ms=moment_ms("--by", by, now_ms),
        is_splittable=not is_whole,
        is_partial_useful=is_partial,
        limit_micro_cny=micro_cny("--limit", limit),
        label=label,
        job=job,
    )
    body = TransferBody(order=asked, project=project, is_dry_run=is_dry_run)
    made = face.call(lambda client: client.order_transfer(body))
    if as_json:
        show_json(made)
        return
    _say_booked(made.transfer, is_dry_run=is_dry_run)
    if made.moved:
        note(words.say("others_moved", count=len(made.moved)))
    if not is_dry_run:
        click.echo(made.transfer.id)
        hint(f"tieline transfer run --transfer {made.transfer.id} --from ... --to ...")


@verb("ls", "transfer_ls")
@option("--state", default="", type=click.Choice(("", *STATES)), help="booking_state")
@option("--user", default="", metavar="NAME", help="booking_user")
@option("--limit", default=100, type=click.IntRange(1, 100_000), help="limit")
@as_json
@pass_face
def ls(face: Face, state: str, user: str, limit: int, as_json: bool) -> None:
    """Transfers, newest first."""

    async def work(client: AsyncClient) -> list[Transfer]:
        async def ask(before: str, count: int) -> tuple[tuple[Transfer, ...], str]:
            page = await client.transfers(state, user, before, count)
            return page.transfers, page.next_before

        return await collected(ask, limit)

    found = face.call(work)
    if as_json:
        show_json(found)
        return
    columns = ("transfer", "state", "user", "source", "target", "size", "moved", "arrives", "booked_cny", "charge")
    table.show(columns, [_row(each) for each in found], right=(5, 6, 8, 9))
    if not found and is_terminal():
        hint("tieline transfer order SOURCE TARGET SIZE --by 2h")


@verb("show", "transfer_show")
@click.argument("name")
@as_json
@pass_face
def show(face: Face, name: str, as_json: bool) -> None:
    """One transfer."""
    from tieline.model.quantity import show_money, show_size
    from tieline.model.reason import sentence

    async def work(client: AsyncClient) -> tuple[Transfer, tuple[Receipt, ...]]:
        found = await client.transfer(name)
        return found, await client.receipts(found.id, max(0, found.seq - MOST_SHOWN))

    found, receipts = face.call(work)
    if as_json:
        show_json(found)
        return
    rows = [
        (words.say("col_transfer"), found.id),
        (words.say("col_state"), words.word(found.state.value)),
        (words.say("field_user"), found.user),
        (words.say("col_source"), found.order.source),
        (words.say("col_target"), found.order.target),
        (words.say("col_size"), show_size(found.order.size_bytes)),
        (words.say("field_deadline"), _deadline(found)),
        (words.say("col_arrives"), table.stamp(found.arrives_ms) if found.arrives_ms else "-"),
        (words.say("col_moved"), show_size(found.moved_bytes)),
        (words.say("col_booked_cny"), show_money(found.price_micro_cny)),
        (words.say("col_charge"), show_money(found.charged_micro_cny)),
    ]
    if found.short_bytes:
        rows.append((words.say("field_short"), show_size(found.short_bytes)))
    if found.order.label:
        rows.append((words.say("field_label"), found.order.label))
    rows += [(words.say("field_why"), sentence(why, words.language())) for why in found.reasons]
    table.pairs(rows)
    if found.segments:
        click.echo()
        _show_segments(found.segments)
    if receipts:
        click.echo()
        _show_receipts(receipts)


@verb("cancel", "transfer_cancel")
@click.argument("name")
@yes
@as_json
@pass_face
def cancel(face: Face, name: str, yes: bool, as_json: bool) -> None:
    """Give its room back."""
    from tieline.model.quantity import show_money, show_size

    confirmed(words.say("cancel_it", name=name), yes)
    ended = face.call(lambda client: client.cancel_transfer(name))
    if as_json:
        show_json(ended)
        return
    moved, charge = show_size(ended.moved_bytes), show_money(ended.charged_micro_cny)
    note(words.say("transfer_gone", transfer=ended.id, moved=moved, charge=charge))


@verb("night", "transfer_night")
@click.argument("file", type=click.Path(dir_okay=False, exists=True, allow_dash=True))
@flag("--partial", "is_partial", help="partial_night")
@PROJECT
@DRY_RUN
@as_json
@pass_face
def night(face: Face, file: str, is_partial: bool, project: str, is_dry_run: bool, as_json: bool) -> None:
    """Decide many orders together."""
    from tieline.model.booking_api import NightBody
    from tieline.model.quantity import show_size
    from tieline.model.reason import sentence

    body = NightBody(orders=_orders(file), is_partial=is_partial, project=project, is_dry_run=is_dry_run)
    made = face.call(lambda client: client.book_night(body))
    if as_json:
        show_json(made)
        return
    columns = ("transfer", "state", "user", "source", "target", "size", "moved", "arrives", "booked_cny", "charge")
    table.show(columns, [_row(each) for each in made.transfers], right=(5, 6, 8, 9))
    for left in made.left_out:
        note(words.say("night_left", place=left.place + 1, why=sentence(left.reasons[0], words.language())))
    sums = {"carried": made.carried_bytes, "asked": made.asked_bytes, "bound": made.bound_bytes}
    shown = {name: show_size(size) for name, size in sums.items()}
    note(words.say("night_is", booked=len(made.transfers), orders=len(body.orders), **shown))
    if is_dry_run:
        note(words.say("night_dry"))


# -- below ------------------------------------------------------------------------------------------------------------


def _orders(file: str) -> tuple[TransferOrder, ...]:
    """The orders of a JSON file: a list of them, as `transfer show --json` gives under `order`."""
    import sys

    import msgspec

    from tieline.model.booking_api import Orders

    content = sys.stdin.buffer.read(MOST_FILE_BYTES + 1) if file == "-" else Path(file).read_bytes()
    if len(content) > MOST_FILE_BYTES:
        raise as_tieline("too_large", f"`{file}` is over {MOST_FILE_BYTES:,} bytes")
    try:
        return msgspec.json.decode(content, type=Orders)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise as_tieline("invalid_request", f"`{file}` is no list of orders: {error}") from None


def _say_booked(made: Transfer, *, is_dry_run: bool) -> None:
    from tieline.model.quantity import show_money, show_size

    values = {"arrives": table.stamp(made.arrives_ms), "price": show_money(made.price_micro_cny)}
    size = show_size(made.order.size_bytes)
    if made.arrives_ms and is_dry_run:
        note(words.say("transfer_would", **values))
    elif made.arrives_ms:
        note(words.say("transfer_booked", transfer=made.id, size=size, **values))
    else:
        booked = sum(each.size_bytes for each in made.segments)
        note(words.say("transfer_waits", booked=show_size(booked), size=size))
    _show_segments(made.segments, err=True)


def _show_segments(segments: tuple[Segment, ...], *, err: bool = False) -> None:
    from tieline.model.quantity import show_rate

    rows = [
        (table.stamp(each.from_ms), table.stamp(each.until_ms), show_rate(each.rate_bps), " > ".join(each.path))
        for each in segments[:MOST_SHOWN]
    ]
    table.show(("from", "until", "rate", "path"), rows, right=(2,), err=err)
    if len(segments) > MOST_SHOWN:
        note(words.say("and_more", count=len(segments) - MOST_SHOWN))


def _show_receipts(receipts: tuple[Receipt, ...]) -> None:
    from tieline.model.quantity import show_size

    rows = [
        (f"{each.seq}", table.stamp(each.ended_ms), show_size(each.moved_bytes), words.term("evidence", each.evidence))
        for each in receipts
    ]
    table.show(("seq", "until", "moved", "evidence"), rows, right=(0, 2))


def _deadline(found: Transfer) -> str:
    return table.stamp(found.order.deadline_ms) if found.order.deadline_ms else words.say("best_effort")


def _row(each: Transfer) -> tuple[str, ...]:
    from tieline.model.quantity import show_money, show_size

    return (
        each.id,
        words.word(each.state.value),
        each.user,
        each.order.source,
        each.order.target,
        show_size(each.order.size_bytes),
        show_size(each.moved_bytes),
        table.stamp(each.arrives_ms) if each.arrives_ms else "-",
        show_money(each.price_micro_cny),
        show_money(each.charged_micro_cny),
    )


for _each in (order, ls, show, cancel, night, run_transfer, follow_transfer):
    transfer.add_command(_each)
