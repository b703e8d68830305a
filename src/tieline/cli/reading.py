"""`reading` and `point`: what sites measured, what is known of a way, reference points, CATS metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import click

from tieline.cli import table, words
from tieline.cli.face import (
    Face,
    Verbs,
    as_json,
    confirmed,
    hint,
    note,
    option,
    pass_face,
    show_json,
    usage,
    verb,
    yes,
)

if TYPE_CHECKING:
    from tieline.model.cats import Instance
    from tieline.model.measuring import PointPage, ReadingPage, ReadingView, WayView
    from tieline.model.reading import Point

UDEG = 1_000_000
SOURCE = option("--source", default="", metavar="SITE", help="reading_source")
TARGET = option("--target", default="", metavar="POINT", help="reading_target")
LIMIT = option("--limit", default=100, type=click.IntRange(1, 1_000), help="reading_limit")


@click.group("reading", cls=Verbs, help="reading")
def reading() -> None:
    """Readings."""


@verb("ls", "reading_ls")
@SOURCE
@TARGET
@LIMIT
@as_json
@pass_face
def ls(face: Face, source: str, target: str, limit: int, as_json: bool) -> None:
    """The newest readings."""
    page = _page(face, source, target, limit)
    if as_json:
        show_json(page)
        return
    _show(page.readings)
    if page.next:
        note(words.say("reading_more", limit=min(1_000, 2 * limit)))
    _note_refuted(page)
    _note_undone(page)
    if page.refuted:
        hint("tieline reading refuted")
    elif not page.readings:
        hint("tieline point add NAME --address HOST:PORT")


@verb("refuted", "reading_refuted")
@SOURCE
@as_json
@pass_face
def refuted(face: Face, source: str, as_json: bool) -> None:
    """Readings that cannot be."""
    from tieline.model.reason import sentence

    page = _page(face, source, "", 1)
    if as_json:
        show_json(page.refuted)
        return
    table.show(
        ("measured_by", "measured_to", "method", "when", "why"),
        [
            (
                table.short(each.site),
                table.short(each.reading.target),
                each.reading.method.value,
                table.when(each.at_ms, page.as_of_ms),
                sentence(each.reason, words.language()),
            )
            for each in page.refuted
        ],
    )
    _note_refuted(page)


@verb("show", "reading_show")
@click.argument("source")
@click.argument("target")
@as_json
@pass_face
def show(face: Face, source: str, target: str, as_json: bool) -> None:
    """The way between two points."""
    from tieline.model.measuring import WayView

    path = f"/v1/ways?{urlencode({'source': source, 'target': target})}"
    way = face.call(lambda client: client.http.call("GET", path, WayView))
    if as_json:
        show_json(way)
        return
    table.pairs(_rows(way))
    _show(way.readings)
    if way.estimate_us is not None and way.estimate_error_ppm is not None:
        note(words.say("reading_estimate", percent=way.estimate_error_ppm // 10_000))


@verb("cats", "reading_cats")
@option("--from", "asker", default="", metavar="POINT", help="reading_from")
@as_json
@pass_face
def cats(face: Face, asker: str, as_json: bool) -> None:
    """CATS metrics."""
    from tieline.model.cats import CatsView

    path = f"/v1/cats?{urlencode({'point': asker})}"
    found = face.call(lambda client: client.http.call("GET", path, CatsView))
    if as_json:
        show_json(found)
        return
    table.show(
        ("pool", "site", "computing", "communication", "norm", "rtt", "rate"),
        [_scores(each) for each in found.instances],
        right=(2, 3, 4),
    )


@click.group("point", cls=Verbs, help="point")
def point() -> None:
    """Reference points."""


@verb("add", "point_add")
@click.argument("name")
@option("--at", "place", default="", metavar="LAT,LON", help="point_at")
@option("--address", default="", metavar="HOST:PORT", help="point_address")
@option("--region", default="", help="point_region")
@as_json
@pass_face
def add(face: Face, name: str, place: str, address: str, region: str, as_json: bool) -> None:
    """Name a reference point."""
    from tieline.model.measuring import PointsBody
    from tieline.model.reading import Point

    latitude, longitude = _place(place) if place else (None, None)
    made = Point(name=name, address=address, latitude_udeg=latitude, longitude_udeg=longitude, region=region)
    _changed(face, PointsBody(put=(made,)), as_json)
    if not as_json:
        hint(f"tieline find 'rtt({name}) < 1ms'", f"tieline circle --of {name} --within 1ms")


@verb("ls", "point_ls")
@as_json
@pass_face
def ls_points(face: Face, as_json: bool) -> None:
    """Every reference point."""
    from tieline.model.measuring import PointPage

    page = face.call(lambda client: client.http.call("GET", "/v1/points", PointPage))
    if as_json:
        show_json(page)
        return
    table.show(
        ("reference", "address", "place", "region"),
        [(each.name, each.address or "-", _placed(each), each.region or "-") for each in page.points],
    )
    if not page.points:
        hint("tieline point add NAME --at LAT,LON --address HOST:PORT")


@verb("rm", "point_rm")
@click.argument("name")
@yes
@as_json
@pass_face
def rm(face: Face, name: str, yes: bool, as_json: bool) -> None:
    """Take a reference point back."""
    from tieline.model.measuring import PointsBody

    confirmed(words.say("point_rm_asks", point=name), yes)
    _changed(face, PointsBody(remove=(name,)), as_json)


def _changed(face: Face, body: object, as_json: bool) -> None:
    from tieline.model.measuring import PointPage

    page: PointPage = face.call(lambda client: client.http.call("POST", "/v1/points", PointPage, body=body))
    if as_json:
        show_json(page)
        return
    note(words.say("point_there", count=len(page.points)))


def _page(face: Face, source: str, target: str, limit: int) -> ReadingPage:
    from tieline.model.measuring import ReadingPage

    asked = urlencode({"source": source, "target": target, "limit": limit})
    found: ReadingPage = face.call(lambda client: client.http.call("GET", f"/v1/readings?{asked}", ReadingPage))
    return found


def _show(readings: tuple[ReadingView, ...]) -> None:
    from tieline.model.quantity import show_duration

    rows = []
    for each in readings:
        said = each.reading
        is_timed = bool(said.p50_us)
        times = [show_duration(us) if is_timed else "-" for us in (said.min_us, said.p50_us, said.p99_us)]
        rows.append(
            (
                table.short(said.source),
                table.short(said.target),
                said.method.value,
                *times,
                f"{said.count}/{said.sent}",
                _measured(each),
                table.age(each.age_us // 1_000),
                words.say("reading_fresh" if each.is_fresh else "reading_stale"),
                words.term("evidence", said.evidence.value),
            )
        )
    columns: tuple[str, ...] = (
        "measured_by",
        "measured_to",
        "method",
        "least",
        "median",
        "p99",
        "answered",
        "measured",
        "age",
        "counts",
        "evidence",
    )
    shown: list[tuple[str, ...]] = [*rows]
    if any(each.via for each in readings):
        columns = (*columns, "via")
        shown = [(*row, each.via or "-") for row, each in zip(rows, readings, strict=True)]
    table.show(columns, shown, right=(3, 4, 5, 6))


def _measured(view: ReadingView) -> str:
    """What a reading says beside round trips."""
    from tieline.model.quantity import show_duration, show_rate
    from tieline.model.reading import OneWay

    said = view.reading
    if said.rate_bps:
        return show_rate(said.rate_bps)
    if said.path_mtu_bytes:
        return f"{said.path_mtu_bytes} B"
    if said.one_way is OneWay.CLOCKS:
        error = show_duration(said.clock_error_us)
        return words.say("one_way_clocks", time=show_duration(said.one_way_us), error=error)
    if said.one_way is OneWay.HALF:
        return words.say("one_way_half", time=show_duration(said.one_way_us))
    return "-"


def _rows(way: WayView) -> list[tuple[str, str]]:
    from tieline.model.quantity import show_duration, show_rate

    unknown = words.term("evidence", "unknown")

    def said(shown: str, evidence: str) -> str:
        return f"{shown} ({words.term('evidence', evidence)})"

    rows = [
        ("rtt", unknown if way.rtt_us is None else said(show_duration(way.rtt_us), way.rtt_evidence)),
        ("rate", unknown if way.rate_bps is None else said(show_rate(way.rate_bps), way.rate_evidence)),
    ]
    if way.apart_km is not None and way.light_us is not None and way.fibre_us is not None:
        rows.append(("apart", f"{way.apart_km:,} km"))
        rows.append(("light", show_duration(way.light_us)))
        rows.append(("fibre", show_duration(way.fibre_us)))
    rows.append(("estimate", unknown if way.estimate_us is None else show_duration(way.estimate_us)))
    return [(words.say(f"row_{name}"), text) for name, text in rows]


def _scores(instance: Instance) -> tuple[str, ...]:
    from tieline.model.quantity import show_duration, show_rate

    found = {metric.metric_type: metric.value for metric in instance.metrics}
    scores = [str(found.get(name, "-")) for name in ("computing_comb", "communication_comb", "norm_fi")]
    rtt = show_duration(found["rtt"]) if "rtt" in found else "-"
    rate = show_rate(found["rate"]) if "rate" in found else "-"
    return (table.short(instance.pool), table.short(instance.site), *scores, rtt, rate)


def _note_refuted(page: ReadingPage) -> None:
    for counted in page.counts:
        total = sum(each.count for each in counted.reasons)
        codes = ", ".join(f"{each.code} {each.count}" for each in counted.reasons)
        note(words.say("reading_refuted", count=total, site=counted.site, why=codes))


def _note_undone(page: ReadingPage) -> None:
    for counted in page.undone:
        total = sum(each.count for each in counted.reasons)
        codes = ", ".join(f"{each.code} {each.count}" for each in counted.reasons)
        note(words.say("reading_undone", count=total, site=counted.site, why=codes))


def _place(text: str) -> tuple[int, int]:
    from decimal import Decimal, InvalidOperation

    parts = text.split(",")
    try:
        degrees = [Decimal(part.strip()) for part in parts]
    except InvalidOperation:
        degrees = []
    if (
        len(degrees) != 2
        or not all(each.is_finite() for each in degrees)
        or abs(degrees[0]) > 90
        or abs(degrees[1]) > 180
    ):
        raise usage(words.say("point_bad", text=text[:40]))
    return int(degrees[0] * UDEG), int(degrees[1] * UDEG)


def _placed(each: Point) -> str:
    if each.latitude_udeg is None or each.longitude_udeg is None:
        return "-"
    return f"{each.latitude_udeg / UDEG:.4f},{each.longitude_udeg / UDEG:.4f}"


for _each in (ls, refuted, show, cats):
    reading.add_command(_each)
for _each in (add, ls_points, rm):
    point.add_command(_each)
