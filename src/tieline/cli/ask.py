"""`ask`: a quote before anything is taken."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from tieline.cli import table, words
from tieline.cli.face import (
    Face,
    as_json,
    as_tieline,
    confirmed,
    flag,
    hint,
    note,
    option,
    pass_context,
    pass_face,
    show_json,
    usage,
    verb,
    yes,
)
from tieline.cli.taskinput import Asked, asked, task_options

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.job import Job
    from tieline.model.plan import Quote

QUOTE = re.compile(r"q-[a-z0-9]+")


@verb("ask")
@click.argument("what", nargs=-1, type=click.UNPROCESSED, metavar="FILE | QUOTE | -- COMMAND...")
@task_options
@option("--pool", default="", metavar="ID", help="pool")
@option("--price", default="", metavar="CNY", help="ask_price")
@option("--duration", default="", metavar="TIME", help="ask_duration")
@flag("--accept", help="accept")
@yes
@as_json
@pass_face
@pass_context
def ask(
    ctx: click.Context,
    face: Face,
    what: tuple[str, ...],
    pool: str,
    price: str,
    duration: str,
    accept: bool,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Ask an owner for a price; with --accept, book it."""
    from tieline.model.quantity import duration_us, money_micro_cny

    known = what[0] if len(what) == 1 and QUOTE.fullmatch(what[0]) and "after_dashes" not in ctx.meta else ""
    work = Asked(works=()) if known else asked(ctx, what, options)
    if not known and len(work.works) != 1:
        raise usage(words.say("one_task"))
    try:
        price_micro_cny = money_micro_cny(price) if price else 0
        duration_s = duration_us(duration) // 1_000_000 if duration else 0
    except ValueError as error:
        raise usage(str(error)) from None

    async def whole(client: AsyncClient) -> tuple[Quote, Job | None]:
        if known:
            quote = await client.quote(known)
        else:
            (task,) = await work.packed(client)
            quote = await client.ask(task, pool=pool, price_micro_cny=price_micro_cny, duration_s=duration_s)
        if not as_json:
            _show(quote)
        if not accept or quote.state != "open":
            return quote, None
        confirmed(words.say("accept_it"), yes)
        return quote, await client.accept(quote.id, work.secrets, project=options["project"])

    quote, job = face.call(whole)
    if as_json:
        show_json({"quote": quote, "job": job})
    if quote.state == "refused":
        from tieline.model.error import TielineError

        raise TielineError("unplaceable", f"`{quote.pool}` does not quote for this", reasons=quote.reasons)
    if quote.state == "asked":
        raise as_tieline(
            "timeout", f"`{quote.site}` has not answered the question yet", f"tieline ask ... --pool {quote.pool}"
        )
    if quote.state == "open" and job is None:
        hint(f"tieline ask {quote.id} --accept")
    if job is not None:
        note(words.say("submitted", job=job.id.rpartition("/")[2], name=job.task.name))
        hint(f"tieline logs -f {job.id.rpartition('/')[2]}")


def _show(quote: Quote) -> None:
    from tieline.model.quantity import show_duration, show_money

    rows = [
        (
            quote.id,
            words.term("quote", "countered" if quote.is_countered else quote.state),
            quote.pool,
            quote.owner,
            f"{quote.unit_count} {words.term('unit', quote.unit)}",
            show_money(quote.listed_price_micro_cny_per_unit_hour),
            show_money(quote.asked_price_micro_cny_per_unit_hour) if quote.asked_price_micro_cny_per_unit_hour else "-",
            show_money(quote.price_micro_cny_per_unit_hour),
            show_duration(quote.duration_s * 1_000_000) if quote.duration_s else "-",
            table.stamp(quote.expires_ms) if quote.expires_ms else "-",
        )
    ]
    columns = ("quote", "state", "pool", "owner", "units", "listed", "asked", "price", "duration", "expires")
    table.show(columns, rows)
