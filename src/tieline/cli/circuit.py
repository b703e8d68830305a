"""`circuit`: a rate between two ends for a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import (
    Face,
    Verbs,
    as_json,
    confirmed,
    hint,
    is_terminal,
    note,
    option,
    pass_face,
    show_json,
    usage,
    verb,
    yes,
)
from tieline.cli.moment import clock_ms, micro_cny, microseconds, moment_ms, rate_bps, seconds
from tieline.cli.paging import collected
from tieline.cli.transfer import DRY_RUN, MOST_SHOWN, PROJECT

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.booking_api import CircuitView
    from tieline.model.circuit import Circuit, Receipt, Recurrence, Route

STATES = ("ordered", "up", "paused", "degraded", "down", "ended", "cancelled")
COLUMNS = ("circuit", "state", "user", "source", "target", "rate", "route", "until", "cny_hour", "charge")


@click.group("circuit", cls=Verbs, help="circuit")
def circuit() -> None:
    """Circuits."""


@verb("order", "circuit_order")
@click.argument("a")
@click.argument("b")
@click.argument("rate")
@option("--most", default="", metavar="RATE", help="most")
@option("--latency", default="", metavar="TIME", help="latency")
@option("--diversity", default="none", type=click.Choice(("none", "link", "node", "group")), help="diversity")
@option("--from", "begin", default="", metavar="TIME", help="circuit_from")
@option("--until", default="", metavar="TIME", help="circuit_until")
@option("--every", default="", metavar="TIME", help="every")
@option("--begin", "offset", default="0s", metavar="TIME", help="begin")
@option("--length", default="", metavar="TIME", help="length")
@option("--line", default="ip", type=click.Choice(("ip", "otn", "osu", "pon")), help="line")
@option("--mtu", default=1_400, type=click.IntRange(1_280, 65_535), help="mtu")
@option("--limit", default=None, metavar="CNY", help="hour_limit")
@option("--label", default="", help="label")
@PROJECT
@DRY_RUN
@as_json
@pass_face
def order(
    face: Face,
    a: str,
    b: str,
    rate: str,
    most: str,
    latency: str,
    diversity: str,
    begin: str,
    until: str,
    every: str,
    offset: str,
    length: str,
    line: str,
    mtu: int,
    limit: str | None,
    label: str,
    project: str,
    is_dry_run: bool,
    as_json: bool,
) -> None:
    """Book a circuit."""
    from tieline.model.booking_api import CircuitBody
    from tieline.model.circuit import CircuitOrder, Diversity
    from tieline.model.topology import Line

    now_ms = clock_ms()
    asked = CircuitOrder(
        a=a,
        b=b,
        rate_bps=rate_bps("RATE", rate),
        most_bps=rate_bps("--most", most),
        latency_us=microseconds("--latency", latency),
        diversity=Diversity(diversity),
        from_ms=moment_ms("--from", begin, now_ms),
        until_ms=moment_ms("--until", until, now_ms),
        recurrence=_recurrence(every, offset, length),
        line=Line(line),
        mtu_bytes=mtu,
        limit_micro_cny_per_hour=micro_cny("--limit", limit),
        label=label,
    )
    body = CircuitBody(order=asked, project=project, is_dry_run=is_dry_run)
    made = face.call(lambda client: client.order_circuit(body))
    if as_json:
        show_json(made)
        return
    _say_booked(made, is_dry_run=is_dry_run)
    if asked.line is not Line.IP:
        note(words.say("line_modelled"))
    if not is_dry_run:
        click.echo(made.circuit.id)


@verb("ls", "circuit_ls")
@option("--state", default="", type=click.Choice(("", *STATES)), help="booking_state")
@option("--user", default="", metavar="NAME", help="booking_user")
@option("--limit", default=100, type=click.IntRange(1, 100_000), help="limit")
@as_json
@pass_face
def ls(face: Face, state: str, user: str, limit: int, as_json: bool) -> None:
    """Circuits, newest first."""

    async def work(client: AsyncClient) -> list[Circuit]:
        async def ask(before: str, count: int) -> tuple[tuple[Circuit, ...], str]:
            page = await client.circuits(state, user, before, count)
            return page.circuits, page.next_before

        return await collected(ask, limit)

    found = face.call(work)
    if as_json:
        show_json(found)
        return
    table.show(COLUMNS, [_row(each) for each in found], right=(5, 8, 9))
    if not found and is_terminal():
        hint("tieline circuit order A B 1Gbit/s")


@verb("show", "circuit_show")
@click.argument("name")
@as_json
@pass_face
def show(face: Face, name: str, as_json: bool) -> None:
    """One circuit."""
    from tieline.model.quantity import show_money
    from tieline.model.reason import sentence

    async def work(client: AsyncClient) -> tuple[Circuit, tuple[Receipt, ...]]:
        found = await client.circuit(name)
        return found, await client.receipts(found.id, max(0, found.seq - MOST_SHOWN))

    found, receipts = face.call(work)
    if as_json:
        show_json(found)
        return
    windows = [f"{table.stamp(each.from_ms)} - {table.stamp(each.until_ms)}" for each in found.windows[:3]]
    rows = [
        (words.say("col_circuit"), found.id),
        (words.say("col_state"), words.word(found.state.value)),
        (words.say("field_user"), found.user),
        (words.say("col_source"), found.order.a),
        (words.say("col_target"), found.order.b),
        (words.say("col_rate"), _rates(found)),
        (words.say("col_route"), _route(found.route)),
        (words.say("field_spare"), _route(found.spare)),
        (words.say("field_windows"), "; ".join(windows) or "-"),
        (words.say("col_until"), _until(found)),
        (words.say("col_cny_hour"), show_money(found.price_micro_cny_per_hour)),
        (words.say("col_charge"), show_money(found.charged_micro_cny)),
    ]
    if found.job:
        rows.append((words.say("field_gang_of"), found.job))
    if found.order.label:
        rows.append((words.say("field_label"), found.order.label))
    rows += [(words.say("field_why"), sentence(why, words.language())) for why in found.reasons]
    table.pairs(rows)
    if receipts:
        click.echo()
        _show_receipts(receipts)


@verb("resize", "circuit_resize")
@click.argument("name")
@click.argument("rate")
@as_json
@pass_face
def resize(face: Face, name: str, rate: str, as_json: bool) -> None:
    """Another rate."""
    asked = rate_bps("RATE", rate)
    made = face.call(lambda client: client.resize_circuit(name, asked))
    if as_json:
        show_json(made)
        return
    _say_booked(made, is_dry_run=False)


@verb("cancel", "circuit_cancel")
@click.argument("name")
@yes
@as_json
@pass_face
def cancel(face: Face, name: str, yes: bool, as_json: bool) -> None:
    """Give its rate back."""
    from tieline.model.quantity import show_money

    confirmed(words.say("cancel_it", name=name), yes)
    ended = face.call(lambda client: client.cancel_circuit(name))
    if as_json:
        show_json(ended)
        return
    note(words.say("circuit_gone", circuit=ended.id, charge=show_money(ended.charged_micro_cny)))


# -- below ------------------------------------------------------------------------------------------------------------


def _recurrence(every: str, offset: str, length: str) -> Recurrence | None:
    from tieline.model.circuit import Recurrence

    if not every and not length:
        return None
    if not every or not length:
        raise usage(words.say("every_and_length"))
    return Recurrence(
        period_s=seconds("--every", every), begin_s=seconds("--begin", offset), length_s=seconds("--length", length)
    )


def _say_booked(made: CircuitView, *, is_dry_run: bool) -> None:
    from tieline.model.quantity import show_duration, show_money

    found = made.circuit
    delay_us = found.route.delay_us if found.route is not None else 0
    values = {
        "rate": _rates(found),
        "route": _route(found.route),
        "delay": show_duration(delay_us),
        "price": show_money(found.price_micro_cny_per_hour),
    }
    if is_dry_run:
        note(words.say("circuit_would", **values))
    else:
        note(words.say("circuit_booked", circuit=found.id, **values))
    if made.moved:
        note(words.say("others_moved", count=len(made.moved)))
    if made.shrunk:
        note(words.say("others_shrunk", count=len(made.shrunk)))


def _rates(found: Circuit) -> str:
    from tieline.model.quantity import show_rate

    order = found.order
    least, held = show_rate(order.rate_bps), show_rate(found.held_bps)
    return least if order.most_bps <= order.rate_bps else f"{held} ({least} - {show_rate(order.most_bps)})"


def _route(route: Route | None) -> str:
    return "-" if route is None else " > ".join(route.nodes)


def _until(found: Circuit) -> str:
    return table.stamp(found.order.until_ms) if found.order.until_ms else words.say("for_ever")


def _row(each: Circuit) -> tuple[str, ...]:
    from tieline.model.quantity import show_money

    return (
        each.id,
        words.word(each.state.value),
        each.user,
        each.order.a,
        each.order.b,
        _rates(each),
        _route(each.route),
        _until(each),
        show_money(each.price_micro_cny_per_hour),
        show_money(each.charged_micro_cny),
    )


def _show_receipts(receipts: tuple[Receipt, ...]) -> None:
    from tieline.model.quantity import show_rate

    rows = [
        (
            f"{each.seq}",
            table.stamp(each.ended_ms),
            words.say("yes" if each.is_path_proven else "no"),
            show_rate(each.goodput_bps),
            words.term("evidence", each.evidence),
        )
        for each in receipts
    ]
    table.show(("seq", "until", "proven", "goodput", "evidence"), rows, right=(0, 3))


for _each in (order, ls, show, resize, cancel):
    circuit.add_command(_each)
