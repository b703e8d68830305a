"""`usage` and `bill`: what was used, by whom, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import Face, Verbs, as_json, flag, note, option, pass_face, show_json, verb
from tieline.cli.face import usage as mistake
from tieline.cli.paging import collected

if TYPE_CHECKING:
    from tieline.cli.receipts import Verified
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.bill import Bill, BillLine
    from tieline.model.job import Usage


@verb("usage")
@click.argument("job", default="")
@option("--project", default="", metavar="NAME", help="project_only")
@option("--limit", default=1000, type=click.IntRange(1, 100_000), help="limit")
@as_json
@pass_face
def usage(face: Face, job: str, project: str, limit: int, as_json: bool) -> None:
    """Usage lines, oldest first."""

    async def work(client: AsyncClient) -> list[Usage]:
        async def ask(after: str, count: int) -> tuple[tuple[Usage, ...], str]:
            page = await client.usage(job, after, count, project=project)
            return page.lines, page.next_after

        return await collected(ask, limit)

    lines = face.call(work)
    if as_json:
        show_json(lines)
        return
    from tieline.model.quantity import show_duration, show_money

    rows = [
        (
            line.run,
            line.user,
            line.pool,
            words.term("unit", line.unit),
            _amount(line),
            show_duration(line.duration_ms * 1000),
            _price(line),
            show_money(line.charge_micro_cny),
            words.term("evidence", line.evidence),
        )
        for line in lines
    ]
    columns = ("run", "user", "pool", "unit", "unit_seconds", "duration", "price", "charge", "evidence")
    table.show(columns, rows, right=(4, 6, 7))


@click.group("bill", cls=Verbs, help="bill", invoke_without_command=True)
@option("--owner", default=None, is_flag=False, flag_value="*", metavar="[PREFIX]", help="bill_owner")
@option("--user", default=None, is_flag=False, flag_value="*", metavar="[NAME]", help="bill_user")
@option("--project", default="", metavar="NAME", help="project_only")
@flag("--receipts", help="receipts")
@as_json
@pass_face
@click.pass_context
def bill(
    ctx: click.Context,
    face: Face,
    owner: str | None,
    user: str | None,
    project: str,
    receipts: bool,
    as_json: bool,
) -> None:
    """What users owe (--user, the default) or owners earned (--owner)."""
    if ctx.invoked_subcommand is not None:
        return
    if receipts and not as_json:
        raise mistake(words.say("receipts_json"))
    if owner is not None and user is not None:
        raise mistake(words.say("one_side"))
    side, party = ("owner", owner) if owner is not None else ("user", user or "*")
    bills = [
        each for each in face.call(lambda client: client.bills(side, project=project)) if party in ("*", each.party)
    ]
    if receipts:
        from tieline.cli.receipts import receipts_of

        show_json(face.call(lambda client: receipts_of(client, tuple(bills))))
        return
    if as_json:
        show_json(bills)
        return
    for number, each in enumerate(bills):
        if number:
            click.echo()
        _show(each)
    if not bills:
        note(words.say("no_bills"))


def _amount(line: Usage | BillLine) -> str:
    """Unit-seconds; of a transfer the bytes that arrived."""
    from tieline.model.quantity import show_size

    return f"{line.unit_seconds:,}" if line.carried is None else show_size(line.carried.moved_bytes)


def _price(line: Usage | BillLine) -> str:
    """For a unit-hour; of a transfer for the whole as it was booked."""
    from tieline.model.quantity import show_money

    carried = line.carried
    return show_money(line.price_micro_cny_per_unit_hour if carried is None else carried.price_micro_cny)


def _show(bill: Bill) -> None:
    from tieline.model.quantity import show_money

    note(words.say(f"bill_of_{bill.side}", party=bill.party, charge=show_money(bill.charge_micro_cny)))
    rows = [
        (
            line.run,
            line.owner if bill.side == "user" else line.user,
            _amount(line) + ("" if line.carried else f" {words.term('unit', line.unit)}-s"),
            _price(line),
            show_money(line.charge_micro_cny),
            words.term("evidence", line.evidence),
        )
        for line in bill.lines
    ]
    table.show(("run", "party", "units", "price", "charge", "evidence"), rows, right=(2, 3, 4))
    for each in bill.sums:
        note(
            "  "
            + words.say("bill_sum", party=each.party, runs=each.run_count, charge=show_money(each.charge_micro_cny))
        )
    if bill.disputed_micro_cny:
        note("  " + words.say("bill_disputed", amount=show_money(bill.disputed_micro_cny)))


@verb("verify", "bill_verify")
@option("--file", default=None, type=click.Path(dir_okay=False, exists=True, path_type=Path), help="receipts_file")
@option("--pin", default=(), multiple=True, metavar="NAME=KEY", help="pin")
@as_json
@pass_face
@click.pass_context
def verify(ctx: click.Context, face: Face, file: Path | None, pin: tuple[str, ...], as_json: bool) -> None:
    """Check every line that you may see; exit code 1 when one does not hold."""
    from tieline.cli.receipts import read_receipts, receipts_of, verified

    pins: dict[str, str] = {}
    for text in pin:
        name, _, key = text.partition("=")
        if not name or not key:
            raise mistake(words.say("pin_form", text=text))
        pins[name] = key
    receipts = read_receipts(file) if file is not None else face.call(receipts_of)
    found = verified(receipts, pins)
    if as_json:
        show_json(found)
    else:
        _show_verified(found)
    ctx.exit(0 if found.is_sound else 1)


def _show_verified(found: Verified) -> None:
    from tieline.model.quantity import show_money
    from tieline.model.reason import sentence

    for line in found.wrong:
        for why in line.reasons:
            click.echo(words.say("line_wrong", run=line.run, why=sentence(why, words.language())))
    if found.wrong:
        note(words.say("lines_wrong", wrong=len(found.wrong), lines=found.lines))
    else:
        disputed = show_money(found.disputed_micro_cny)
        note(words.say("lines_hold", lines=found.lines, remote=found.remote, disputed=disputed))
    if found.unpinned:
        note(words.say("keys_said", exchange=found.exchange, peer=found.unpinned[0]))


bill.add_command(verify)
