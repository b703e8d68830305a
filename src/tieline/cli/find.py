"""`find`: which offers fit, ranked, and why the others do not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import Face, as_json, is_terminal, note, option, pass_face, show_json, verb

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.plan import Answer, Offer

EXPRESSION = re.compile(r"[<>=()!]")
MAYBE = re.compile(r"\b(and|or|not|in)\b")  # an expression, or words such as `models and agents`


@verb("find")
@click.argument("query", nargs=-1)
@option("--kind", default="", help="kind")
@option("--order", default="price", help="order")
@option("--limit", default=20, type=click.IntRange(1, 1000), help="limit")
@option("--partner", multiple=True, help="partner")
@option("--budget-ms", default=200, type=click.IntRange(0, 10_000), help="branch_budget")
@option("--as", "form", type=click.Choice(["expression", "words"]), default=None, help="form")
@as_json
@pass_face
def find(
    face: Face,
    query: tuple[str, ...],
    kind: str,
    order: str,
    limit: int,
    partner: tuple[str, ...],
    budget_ms: int,
    form: str | None,
    as_json: bool,
) -> None:
    """QUERY is an expression (`npu >= 8 and price < 20`) or words."""
    from tieline.model.error import TielineError

    text = " ".join(query).strip()
    is_expression = form == "expression" or (form is None and EXPRESSION.search(text) is not None)
    is_maybe = form is None and not is_expression and MAYBE.search(text) is not None

    async def work(client: AsyncClient) -> Answer:
        if is_maybe:
            try:
                return await ask(client, True)
            except TielineError as error:
                if error.code != "invalid_expression":
                    raise
        return await ask(client, is_expression)

    async def ask(client: AsyncClient, is_expression: bool) -> Answer:
        return await client.find(
            text if is_expression else "",
            words="" if is_expression else text,
            kind=kind,
            order=order,
            limit=limit,
            partners=partner,
            branch_budget_ms=budget_ms,
        )

    answer = face.call(work)
    if as_json:
        show_json(answer)
        return
    _show(answer)


def _show(answer: Answer) -> None:
    from tieline.cli.show import show_nearest, show_reasons

    rows = [_row(number, each) for number, each in enumerate(answer.offers, 1)]
    columns: tuple[str, ...] = ("rank", "id", "kind", "owner", "price", "free", "evidence", "via")
    if is_terminal() and not any(each.via or each.is_stale for each in answer.offers):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    if rows:
        table.show(columns, rows, right=(0, 4))
    note(words.say("found", matched=answer.matched, considered=answer.considered, shown=len(rows)))
    if answer.reasons:
        note("  " + words.say("lost_head", count=answer.considered - answer.matched))
        show_reasons(answer.reasons)
    show_nearest(answer.nearest)
    for branch in answer.branches:
        if not branch.is_reached:
            note("  " + words.say("unreachable", branch=branch.exchange))
            if branch.silent_since_ms:
                key = "branch_frozen" if branch.is_frozen else "branch_stale"
                age = table.age(answer.as_of_ms - branch.silent_since_ms)
                note("    " + words.say(key, age=age, stale=branch.stale))
        elif answer.is_partial:
            key = "branch_late" if branch.is_late else "branch_as_of"
            note("  " + words.say(key, branch=branch.exchange, when=table.when(branch.as_of_ms, answer.as_of_ms)))


def _row(number: int, offer: Offer) -> tuple[str, ...]:
    said = offer.attributes
    return (
        str(number),
        offer.id,
        words.word(offer.kind),
        offer.owner,
        _price(said),
        _free(said),
        _evidence(offer),
        " ".join(each for each in (offer.via, words.say("stale") if offer.is_stale else "") if each) or "-",
    )


def _price(said: dict[str, object]) -> str:
    from tieline.model.quantity import show_money

    for name in ("price", "price_micro_cny", "price_micro_cny_per_accelerator_hour"):
        value = said.get(name)
        if isinstance(value, int):
            return show_money(value)
        if isinstance(value, float):
            return f"{value:,.2f}"
    return "-"


def _free(said: dict[str, object]) -> str:
    """What is free of what is sold: accelerators where there are some, else cores."""
    accelerator = str(said.get("accelerator") or "")
    for free, total, unit in (
        ("free", "accelerators", accelerator),
        ("accelerators_free", "accelerator_count", accelerator),
        ("cores_free", "cores", words.say("unit_core")),
        ("cores_free", "core_count", words.say("unit_core")),
    ):
        if said.get(total) and free in said:
            return f"{said[free]}/{said[total]} {unit}".rstrip()
    return "-"


def _evidence(offer: Offer) -> str:
    """The evidence of its values, the weakest told by name: a table has room for one word each."""
    kinds = sorted(set(offer.evidence.values()))
    return ", ".join(words.term("evidence", each) for each in kinds) or "-"
