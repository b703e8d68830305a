"""`network`: the topology of the wide area, what traffic it can carry, and what is cut.

What takes seconds of solving runs in this process, not in the exchange.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.calendar import tariff
from tieline.cli.design import design
from tieline.cli.face import (
    Decorator,
    Face,
    Verbs,
    as_json,
    as_tieline,
    hint,
    note,
    option,
    pass_face,
    show_json,
    usage,
    verb,
)
from tieline.cli.prove import prove

if TYPE_CHECKING:
    from tieline.model.network_api import NetworkChangedView, TopologyView
    from tieline.model.topology import Topology
    from tieline.model.trafficplan import ClassShare, DemandFile, DemandShare, TrafficPlan
    from tieline.network.topologyfile import Filed

FORMS = ("tieline", "graphml", "sndlib", "rfc8345")
CLASSES = ("protected", "deadline", "best_effort")
FULL_PERCENT = 90
MOST_SHOWN = 40  # rows of links that a table shows; `--json` gives all
MOST_PATHS = 3  # of one demand, in a table
FILE: Decorator = click.argument("file", metavar="FILE|-")
FORM = option("--format", "form", default=None, type=click.Choice(FORMS), help="network_format")
NAME = option("--name", default="", help="network_name")
CAPACITY = option("--capacity", default="10Gbit/s", metavar="RATE", help="network_capacity")
UNIT = option("--unit", default="1Mbit/s", metavar="RATE", help="network_unit")
WHY = option("--why", default="", help="network_why")


@click.group("network", cls=Verbs, help="network")
def network() -> None:
    """The network."""


@verb("import", "network_import")
@FILE
@FORM
@NAME
@CAPACITY
@UNIT
@WHY
@as_json
@pass_face
def import_(
    face: Face, file: str, form: str | None, name: str, capacity: str, unit: str, why: str, as_json: bool
) -> None:
    """Take a topology whole; for network operators."""
    from tieline.network.survey import checked

    topology = checked(_filed(file, form, name, capacity, unit).topology)
    changed = face.call(lambda client: client.change_topology(topology, why=why))
    _said(changed, as_json)
    if not as_json:
        hint("tieline network show", "tieline network plan --demands FILE")


@verb("show", "network_show")
@option("--as", "form", default=None, type=click.Choice(FORMS), help="network_as")
@option("--svg", default=None, type=click.Path(dir_okay=False, path_type=Path), help="network_svg")
@as_json
@pass_face
def show(face: Face, form: str | None, svg: Path | None, as_json: bool) -> None:
    """The topology, and what is cut."""
    found: TopologyView = face.call(lambda client: client.topology())
    if form is not None:
        from tieline.network.topologyfile import written

        click.echo(written(found.topology, form), nl=False)
        return
    if svg is not None:
        from tieline.cli.network_svg import drawn

        picture = drawn(found, face.call(lambda client: client.calendar(columns=1)))
        svg.write_text(picture, encoding="utf-8")
        sums = {"nodes": len(found.topology.nodes), "links": len(found.topology.links)}
        note(words.say("map_written", file=svg, **sums))
        return
    if as_json:
        show_json(found)
        return
    topology = found.topology
    down = dict.fromkeys(found.down)
    rows = [
        (
            link.name,
            f"{link.a} - {link.b}",
            _rates(link.capacity_bps, link.capacity_back_bps),
            _delay(link.delay_us),
            link.owner or "-",
            words.say("state_cut" if link.name in down else "state_up"),
            words.term("evidence", link.evidence),
        )
        for link in topology.links
    ]
    table.show(("link", "ends", "capacity", "delay", "owner", "state", "evidence"), rows, right=(2, 3))
    note(
        words.say(
            "network_is", name=topology.name, nodes=len(topology.nodes), links=len(topology.links), down=len(down)
        )
    )


@verb("check", "network_check")
@FILE
@FORM
@NAME
@CAPACITY
@UNIT
@as_json
@click.pass_context
def check(ctx: click.Context, file: str, form: str | None, name: str, capacity: str, unit: str, as_json: bool) -> None:
    """What is wrong or weak in a file; exit code 1 where something is wrong."""
    from tieline.network.survey import surveyed

    topology = _filed(file, form, name, capacity, unit).topology
    found = surveyed(topology)
    is_sound = not any(each.is_fatal for each in found)
    if as_json:
        show_json({"name": topology.name, "is_sound": is_sound, "findings": [each._asdict() for each in found]})
    else:
        rows = [
            (words.say("network_fault" if each.is_fatal else "network_weak"), each.code, each.sentence)
            for each in found
        ]
        table.show(("state", "code", "finding"), rows)
        if is_sound:
            counts = {"nodes": len(topology.nodes), "links": len(topology.links)}
            note(words.say("network_sound", name=topology.name, **counts))
    if not is_sound:
        ctx.exit(1)


@verb("plan", "network_plan")
@option("--demands", required=True, metavar="FILE|-", help="network_demands")
@option("--topology", "file", default="", metavar="FILE", help="network_topology")
@option("--cut", "cut", multiple=True, metavar="LINK", help="network_cut")
@option("--class", "traffic_class", default="best_effort", type=click.Choice(CLASSES), help="network_class")
@option("--at", default="", metavar="TIME", help="network_at")
@CAPACITY
@UNIT
@as_json
@pass_face
def plan(
    face: Face, demands: str, file: str, cut: tuple[str, ...], traffic_class: str, at: str, capacity: str, unit: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Which paths carry how much. Solved here, over the topology of the exchange or of a file."""
    from tieline.cli.solver import solving
    from tieline.model.transfer import TrafficClass
    from tieline.network.survey import checked
    from tieline.network.trafficplan import traffic_plan

    at_ms = _moment_ms(at)
    asked = _demands(demands, unit)
    down: tuple[str, ...] = ()
    if file:
        topology = checked(_filed(file, None, "", capacity, unit).topology)
    else:
        found: TopologyView = face.call(lambda client: client.topology())
        topology, down = found.topology, found.down
    with solving():
        made = traffic_plan(topology, asked, default=TrafficClass(traffic_class), at_ms=at_ms, down=down, cut=cut)
    if as_json:
        show_json(made)
        return
    _show_plan(topology, made)


@verb("cut", "network_cut")
@click.argument("links", nargs=-1, required=True, metavar="LINK...")
@WHY
@as_json
@pass_face
def cut(face: Face, links: tuple[str, ...], why: str, as_json: bool) -> None:
    """Note that links are down; for network operators."""
    _said(face.call(lambda client: client.change_links(down=links, why=why)), as_json)


@verb("restore", "network_restore")
@click.argument("links", nargs=-1, required=True, metavar="LINK...")
@WHY
@as_json
@pass_face
def restore(face: Face, links: tuple[str, ...], why: str, as_json: bool) -> None:
    """Note that links carry again; for network operators."""
    _said(face.call(lambda client: client.change_links(up=links, why=why)), as_json)


# -- below ------------------------------------------------------------------------------------------------------------


def _content(file: str) -> tuple[bytes, str]:
    """The bytes of a file or of stdin, one more than may be at most, and what to call it."""
    from tieline.network.import_values import MOST_BYTES

    if file == "-":
        return sys.stdin.buffer.read(MOST_BYTES + 1), "stdin"
    path = Path(file)
    if not path.is_file():
        raise usage(words.say("no_such_file", file=file))
    with path.open("rb") as opened:
        return opened.read(MOST_BYTES + 1), path.stem


def _filed(file: str, form: str | None, name: str, capacity: str, unit: str) -> Filed:
    from tieline.network.topologyfile import read

    content, source = _content(file)
    rates = {"capacity_bps": _rate("--capacity", capacity), "unit_bps": _rate("--unit", unit)}
    return read(content, source, form=form or "", name=name, **rates)


def _demands(file: str, unit: str) -> DemandFile:
    """What a file asks for: ours, or the demands of an SNDlib file."""
    from tieline.model.trafficplan import DemandFile, PlanDemand
    from tieline.network.documents import read
    from tieline.network.topologyfile import form_of
    from tieline.network.topologyfile import read as read_topology

    content, source = _content(file)
    if form_of(content) != "sndlib":
        return read(content, DemandFile, source)
    filed = read_topology(content, source, unit_bps=_rate("--unit", unit))
    return DemandFile(
        demands=tuple(
            PlanDemand(name=each.name, source=each.source, target=each.target, rate_bps=each.rate_bps)
            for each in filed.demands
        )
    )


def _rate(where: str, text: str) -> int:
    from tieline.model.quantity import RATE_BPS, scaled

    try:
        return scaled(text, RATE_BPS, "bit/s")
    except ValueError as error:
        raise usage(f"{where}: {error}") from None


def _moment_ms(text: str) -> int | None:
    from datetime import UTC, datetime

    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise as_tieline("invalid_request", f"`{text[:40]}` is no time such as 2026-11-21T08:00:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _said(changed: NetworkChangedView, as_json: bool) -> None:
    """What became of it, and of what is booked."""
    if as_json:
        show_json(changed)
        return
    from tieline.cli.show import said

    counts = {"nodes": changed.node_count, "links": changed.link_count, "down": len(changed.down)}
    note(words.say("network_is", name=changed.name, **counts))
    if changed.moved_circuits or changed.moved_transfers:
        moved = {"circuits": len(changed.moved_circuits), "transfers": len(changed.moved_transfers)}
        note(words.say("network_moved", **moved))
    if changed.waiting:
        note(words.say("network_waiting", waiting=changed.waiting))
    for each in changed.short:
        why = "; ".join(said(reason) for reason in each.reasons)
        note(words.say("network_short", subject=each.id, why=why))


def _show_plan(topology: Topology, made: TrafficPlan) -> None:
    _show_demands(made.demands)
    click.echo()
    rows = [
        (
            each.link,
            f"{each.source} > {each.target}",
            _rate_of(each.load_bps),
            _rate_of(each.capacity_bps),
            _percent(each.load_bps, each.capacity_bps),
        )
        for each in made.links[:MOST_SHOWN]
    ]
    table.show(("link", "ends", "load", "capacity", "used"), rows, right=(2, 3, 4))
    if len(made.links) > MOST_SHOWN:
        note(words.say("and_more", count=len(made.links) - MOST_SHOWN))
    _show_classes(made.classes)
    full = sum(100 * each.load_bps >= FULL_PERCENT * each.capacity_bps for each in made.links)
    most = _percent(made.links[0].load_bps, made.links[0].capacity_bps) if made.links else "0 %"
    note(words.say("plan_links", full=full, links=2 * len(topology.links), most=most))
    if made.cut is None:
        return
    amounts = (made.cut.untouched_bps, made.cut.refilled_bps, made.cut.replanned_bps)
    kept, refilled, replanned = (_rate_of(amount) for amount in amounts)
    note(words.say("plan_cut", links=", ".join(made.cut.links), kept=kept, refilled=refilled, replanned=replanned))
    click.echo()
    _show_demands(made.cut.demands)
    _show_classes(made.cut.classes)
    note(words.say("plan_steps", steps=made.cut.steps, least=_rate_of(made.cut.least_bps)))
    if made.cut.stopped:
        note(words.say("plan_stopped", demands=", ".join(made.cut.stopped)))


def _show_demands(demands: tuple[DemandShare, ...]) -> None:
    rows = []
    for each in demands:
        over = [f"{_rate_of(path.rate_bps)} {' > '.join(path.nodes)}" for path in each.paths[:MOST_PATHS]]
        if len(each.paths) > MOST_PATHS:
            over.append(words.say("and_more", count=len(each.paths) - MOST_PATHS))
        name, kind = each.name, words.term("class", each.traffic_class)
        rows.append((name, kind, _rate_of(each.asked_bps), _rate_of(each.carried_bps), "; ".join(over) or "-"))
    table.show(("demand", "class", "wanted", "carried", "paths"), rows, right=(2, 3))


def _show_classes(classes: tuple[ClassShare, ...]) -> None:
    for each in classes:
        note(
            words.say(
                "plan_sum",
                of=words.term("class", each.traffic_class),
                carried=_rate_of(each.carried_bps),
                asked=_rate_of(each.asked_bps),
                share=f"{each.least_ppm // 100 / 100:.2f} %",
            )
        )


def _rates(ahead: int, back: int | None) -> str:
    return _rate_of(ahead) if back is None else f"{_rate_of(ahead)} / {_rate_of(back)}"


def _rate_of(bps: int) -> str:
    from tieline.model.quantity import show_rate

    return show_rate(bps)


def _delay(us: int) -> str:
    from tieline.model.quantity import show_duration

    return show_duration(us) if us else "-"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part // whole if whole else 0} %"


for _each in (import_, show, check, plan, design, prove, cut, restore, tariff):
    network.add_command(_each)
