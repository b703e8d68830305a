"""Coverage map: a coverage as one SVG file that needs nothing else, legible on light and dark ground.

Access points are discs (inside), half discs (by estimate), crosses (outside) and rings (unknown), larger with their
weight; sites with compute are squares. Degrees are drawn with the middle latitude true to scale; there is no coast
line, so that no boundary is claimed. What others named is escaped. The same coverage gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape as escape_html
from math import cos, radians, sqrt
from typing import Final, NamedTuple

from tieline.model.circle import Bound, Coverage, CoverageView, PointStanding, SitePlace, Standing
from tieline.model.quantity import show_duration

WIDTH, HEIGHT, SIDE, MARGIN = 960, 620, 240, 28
MOST_REGIONS: Final = 18  # bars at the side; the others are summed
KM_PER_DEGREE: Final = 111.195
WORDS: Final = {
    "title": "{share} of the weight of {points} access points has compute within {within} ({bound}); asked: {target}",
    "round_trip": "round trip",
    "one_way": "one way",
    "inside": "inside",
    "estimated": "inside by estimate",
    "outside": "outside",
    "unknown": "unknown",
    "site": "site with compute",
    "unplaced": "without a place, not drawn: {count}",
    "rest": "{count} more",
}
STYLE: Final = """
:root{--ground:#fff;--ink:#1f2328;--faint:#d0d7de;--in:#116329;--out:#b42318;--dim:#656d76;--site:#0550ae}
@media(prefers-color-scheme:dark){
:root{--ground:#0d1117;--ink:#e6edf3;--faint:#30363d;--in:#56d364;--out:#ff8f85;--dim:#9198a1;--site:#79c0ff}}
.ground{fill:var(--ground)}text{fill:var(--ink);font:12px system-ui,sans-serif}.head{font-size:15px;font-weight:600}
.grid{stroke:var(--faint);fill:none}.note{fill:var(--dim);font-size:10px}.site{fill:var(--site);stroke:var(--ground)}
.inside{fill:var(--in);stroke:var(--ground)}.estimated{fill:none;stroke:var(--in);stroke-width:2}
.half{fill:var(--in)}.outside{stroke:var(--out);stroke-width:2.5;fill:none}
.unknown{fill:none;stroke:var(--dim);stroke-width:2;stroke-dasharray:3 2}.bar{fill:var(--in)}.rest{fill:var(--faint)}
""".strip()


class _Frame(NamedTuple):
    """How degrees become places on the paper."""

    west: float
    north: float
    scale: float  # of a degree of latitude
    squeeze: float  # of a degree of longitude against one of latitude

    def at(self, latitude: float, longitude: float) -> tuple[float, float]:
        """Where a place is drawn."""
        east = (longitude - self.west) % 360
        return MARGIN + east * self.squeeze * self.scale, 64 + (self.north - latitude) * self.scale


def drawn(seen: CoverageView, words: Mapping[str, str] | None = None) -> str:
    """The map. ``words`` replaces those of `WORDS`, for readers of another language."""
    said = {**WORDS, **(words or {})}
    points = [point for point in seen.points if point.latitude_udeg is not None and point.longitude_udeg is not None]
    sites = [site for site in seen.sites if site.latitude_udeg is not None and site.longitude_udeg is not None]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{_text(_title(seen, said))}</title><style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="head" x="{MARGIN}" y="30">{_text(_title(seen, said))}</text>',
    ]
    if points or sites:
        frame = _framed([*map(_degrees, points), *map(_degrees, sites)])
        parts += _grid(frame)
        heaviest = max((point.weight for point in points), default=1) or 1
        for point in sorted(points, key=lambda each: (-each.weight, each.point)):
            parts.append(_point(point, frame, heaviest))
        parts += [_site(site, frame) for site in sites]
    parts += _legend(seen, said, len(seen.points) - len(points))
    parts += _bars(seen.regions, said)
    return "\n".join((*parts, "</svg>\n"))


def _text(text: str) -> str:
    """What others named, as it may stand in XML."""
    return escape_html("".join(each if each.isprintable() else " " for each in text))


def _title(seen: CoverageView, said: Mapping[str, str]) -> str:
    measure = seen.measure
    return said["title"].format(
        share=_percent(seen.whole.share_ppm),
        points=f"{seen.whole.points:,}",
        within=show_duration(measure.within_us),
        bound=said["round_trip" if measure.bound is Bound.ROUND_TRIP else "one_way"],
        target=_percent(seen.target_ppm),
    )


def _percent(ppm: int) -> str:
    return f"{ppm // 10_000}.{ppm % 10_000 // 1_000} %"


def _degrees(thing: PointStanding | SitePlace) -> tuple[float, float]:
    assert thing.latitude_udeg is not None
    assert thing.longitude_udeg is not None
    return thing.latitude_udeg / 1e6, thing.longitude_udeg / 1e6


def _framed(places: list[tuple[float, float]]) -> _Frame:
    """The smallest frame around all places; it begins after the widest gap, so that the date line cuts nothing."""
    latitudes = [latitude for latitude, _ in places]
    east = sorted({longitude % 360 for _, longitude in places})
    gaps = [((after - before) % 360 or 360, after) for before, after in zip(east[-1:] + east[:-1], east, strict=True)]
    gap, west = max(gaps)
    squeeze = max(0.05, cos(radians((min(latitudes) + max(latitudes)) / 2)))
    wide = max(0.02, 360 - gap) * squeeze
    high = max(0.02, max(latitudes) - min(latitudes))
    scale = min((WIDTH - SIDE - 3 * MARGIN) / wide, (HEIGHT - 64 - 96) / high)
    return _Frame(west, max(latitudes), scale, squeeze)


def _grid(frame: _Frame) -> list[str]:
    """Lines of whole steps of degrees with their labels, and what 1-2-5 kilometres measure."""
    right, bottom = WIDTH - SIDE - 2 * MARGIN, HEIGHT - 84
    step = next(
        each
        for each in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 45, 90)
        if each * frame.scale >= 70 or each == 90
    )
    parts = []
    latitude = int((frame.north + 20 / frame.scale) / step) * step
    while (y := frame.at(latitude, frame.west)[1]) < bottom:
        if y >= 46 and abs(latitude) <= 90:
            parts.append(f'<path class="grid" d="M{MARGIN - 12} {y:.1f}H{right}"/>')
            parts.append(f'<text class="note" x="{MARGIN - 12}" y="{y - 3:.1f}">{latitude:g}°</text>')
        latitude = round(latitude - step, 6)
    longitude = (int(frame.west / step) + 1) * step
    for _ in range(64):
        x = frame.at(frame.north, longitude)[0]
        if not MARGIN <= x < right:
            break
        parts.append(f'<path class="grid" d="M{x:.1f} 46V{bottom}"/>')
        shown = (longitude + 180) % 360 - 180
        parts.append(f'<text class="note" x="{x + 3:.1f}" y="{bottom - 3}">{shown:g}°</text>')
        longitude = round(longitude + step, 6)
    lengths = [unit * 10**power for power in range(-1, 5) for unit in (1, 2, 5)]
    km = max(each for each in lengths if each == lengths[0] or each / KM_PER_DEGREE * frame.scale <= 160)
    long = km / KM_PER_DEGREE * frame.scale
    parts.append(
        f'<path class="unknown" style="stroke-dasharray:none" d="M{right - long:.1f} {bottom + 16}h{long:.1f}"/>'
    )
    parts.append(f'<text class="note" x="{right - long:.1f}" y="{bottom + 12}">{km:g} km</text>')
    return parts


def _point(point: PointStanding, frame: _Frame, heaviest: int) -> str:
    x, y = frame.at(*_degrees(point))
    size = 3 + 7 * sqrt(point.weight / heaviest)
    said = f"{point.point} ({point.weight:,})"
    if point.site:
        said += f": {point.site}, {show_duration(point.p50_us)}"
    return f"<g><title>{_text(said)}</title>{_mark(_class(point), x, y, size)}</g>"


def _class(point: PointStanding) -> str:
    if point.standing is Standing.INSIDE:
        return "estimated" if point.is_estimate else "inside"
    return point.standing.value


def _mark(kind: str, x: float, y: float, size: float) -> str:
    if kind == "outside":
        half = size * 0.75
        long = f"{2 * half:.1f}"
        lines = f"M{x - half:.1f} {y - half:.1f}l{long} {long}m0 -{long}l-{long} {long}"
        return f'<path class="outside" d="{lines}"/>'
    made = f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
    if kind == "estimated":
        made += f'<path class="half" d="M{x:.1f} {y - size:.1f}a{size:.1f} {size:.1f} 0 0 0 0 {2 * size:.1f}z"/>'
    return made


def _site(site: SitePlace, frame: _Frame) -> str:
    x, y = frame.at(*_degrees(site))
    shape = f'<rect class="site" x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10"/>'
    return f"<g><title>{_text(site.site)}</title>{shape}</g>"


def _legend(seen: CoverageView, said: Mapping[str, str], unplaced: int) -> list[str]:
    """Every sign with its word and the weight that it stands for."""
    whole, y = seen.whole, HEIGHT - 44
    parts, x = [], MARGIN + 6.0
    sums = (
        ("inside", whole.covered),
        ("estimated", whole.estimated),
        ("outside", whole.outside),
        ("unknown", whole.unknown),
    )
    for kind, weight in sums:
        if kind == "estimated" and not weight:
            continue
        text = f"{said[kind]}: {weight:,}"
        parts += [_mark(kind, x, y, 7), f'<text x="{x + 14:.1f}" y="{y + 4}">{_text(text)}</text>']
        x += 40 + 9 * len(text)
    parts.append(f'<rect class="site" x="{x - 5:.1f}" y="{y - 5}" width="10" height="10"/>')
    parts.append(f'<text x="{x + 14:.1f}" y="{y + 4}">{_text(said["site"])}</text>')
    if unplaced:
        text = said["unplaced"].format(count=f"{unplaced:,}")
        parts.append(f'<text class="note" x="{MARGIN}" y="{HEIGHT - 14}">{_text(text)}</text>')
    return parts


def _bars(regions: tuple[Coverage, ...], said: Mapping[str, str]) -> list[str]:
    """The share of each region, the heaviest first."""
    ranked = sorted(regions, key=lambda each: (-each.weight, each.region))
    parts, left = [], WIDTH - SIDE - MARGIN
    for number, each in enumerate(ranked[:MOST_REGIONS]):
        y, long = 64 + number * 28, each.share_ppm * SIDE // 1_000_000
        name = each.region[:24] or "-"
        parts += [
            f'<text x="{left}" y="{y}">{_text(name)}</text>',
            f'<text x="{left + SIDE}" y="{y}" text-anchor="end">{_percent(each.share_ppm)}</text>',
            f'<rect class="rest" x="{left}" y="{y + 5}" width="{SIDE}" height="6"/>',
            f'<rect class="bar" x="{left}" y="{y + 5}" width="{long}" height="6"/>',
        ]
    if len(ranked) > MOST_REGIONS:
        text = said["rest"].format(count=f"{len(ranked) - MOST_REGIONS:,}")
        parts.append(f'<text class="note" x="{left}" y="{64 + MOST_REGIONS * 28}">{_text(text)}</text>')
    return parts
