"""The network as a picture: nodes where they stand, links as wide as they carry and as dark as they are booked.

Where a node has no place all nodes stand on a circle in their order, and the picture says so. The longitudes begin
after the widest gap, so that the date line cuts nothing; no coast is drawn, so that no boundary is claimed. What others
named is escaped. The same network gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from math import cos, hypot, log10, pi, radians, sin
from typing import TYPE_CHECKING, Final, NamedTuple

from tieline.cli import words
from tieline.cli.table import stamp
from tieline.model.quantity import show_duration, show_rate

if TYPE_CHECKING:
    from tieline.model.booking_api import CalendarView
    from tieline.model.network_api import TopologyView
    from tieline.model.topology import Link, Topology

WIDTH, HEIGHT, MARGIN, HEAD, FOOT = 960, 620, 60, 40, 40
MOST_NAMED: Final = 120  # nodes whose names are written; the others have them in a title
LONGEST: Final = 40  # letters of a name that are written
BEND: Final = 14.0  # between links that join the same two nodes
LEVELS: Final = ((50, "low"), (90, "mid"), (101, "full"))  # per cent booked below which a link is drawn so
STYLE: Final = """
:root{--ground:#fff;--ink:#1f2328;--dim:#656d76;--none:#b5bdc6;--low:#4c9a6a;--mid:#b58105;--full:#b42318;--node:#0550ae}
@media(prefers-color-scheme:dark){:root{--ground:#0d1117;--ink:#e6edf3;--dim:#9198a1;--none:#4b535d;--low:#56d364;
--mid:#e3b341;--full:#ff8f85;--node:#79c0ff}}
.ground{fill:var(--ground)}text{fill:var(--ink);font:11px system-ui,sans-serif}.head{font-size:15px;font-weight:600}
.note{fill:var(--dim);font-size:10px}.link{fill:none;stroke:var(--none)}.low{stroke:var(--low)}.mid{stroke:var(--mid)}
.full{stroke:var(--full)}.down{stroke:var(--full);stroke-dasharray:2 5}.node{fill:var(--node);stroke:var(--ground)}
.site{fill:var(--ground);stroke:var(--node);stroke-width:3}
""".strip()


class Held(NamedTuple):
    """What one direction of a link has and what of it is booked, in bit/s."""

    capacity_bps: int
    booked_bps: int


def drawn(found: TopologyView, calendar: CalendarView | None = None) -> str:
    """The whole picture. ``calendar``: what is booked in its first column; without it nothing is said of load."""
    topology = found.topology
    is_placed = all(node.place is not None for node in topology.nodes)
    at = _places(topology) if is_placed else _circle(topology)
    held = {} if calendar is None else _held(calendar)
    title = words.say(
        "network_is",
        name=topology.name,
        nodes=len(topology.nodes),
        links=len(topology.links),
        down=len(found.down),
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{_text(title)}</title><style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="head" x="20" y="26">{_text(title)}</text>',
    ]
    most_bps = max((_most(link) for link in topology.links), default=1) or 1
    seen: dict[tuple[str, str], int] = {}
    down = frozenset(found.down)
    for link in topology.links:
        ends = (min(link.a, link.b), max(link.a, link.b))
        turn = seen[ends] = seen.get(ends, -1) + 1
        parts.append(_link(link, at, _wide(_most(link), most_bps), turn, held, link.name in down))
    is_named = len(topology.nodes) <= MOST_NAMED
    for node in topology.nodes:
        x, y = at[node.name]
        kind, size = ("site", 6) if node.site else ("node", 5)
        said = node.name + (f" ({node.site})" if node.site else "")
        parts.append(
            f'<g><title>{_text(said)}</title><circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{size}"/></g>'
        )
        if is_named:
            parts.append(f'<text x="{x + 9:.1f}" y="{y - 7:.1f}">{_text(node.name[:LONGEST])}</text>')
    parts += _legend(None if calendar is None else calendar.from_ms, is_placed)
    return "\n".join((*parts, "</svg>\n"))


def _text(text: str) -> str:
    """What others named, as it may stand in XML."""
    return escape("".join(each if each.isprintable() else " " for each in text))


def _held(calendar: CalendarView) -> dict[tuple[str, str], Held]:
    """Of each link and where its direction begins."""
    return {
        (each.link, each.a): Held(each.capacity_bps[0], each.circuit_bps[0] + each.transfer_bps[0])
        for each in calendar.links
        if each.capacity_bps
    }


def _places(topology: Topology) -> dict[str, tuple[float, float]]:
    """Degrees on the paper, the middle latitude true to scale."""
    degrees = {}
    for node in topology.nodes:
        assert node.place is not None
        degrees[node.name] = (node.place.latitude_udeg / 1e6, node.place.longitude_udeg / 1e6)
    if not degrees:
        return {}
    east = sorted({longitude % 360 for _, longitude in degrees.values()})
    gaps = [((after - before) % 360 or 360, after) for before, after in zip(east[-1:] + east[:-1], east, strict=True)]
    gap, west = max(gaps)
    south, north = (pick(latitude for latitude, _ in degrees.values()) for pick in (min, max))
    squeeze = max(0.05, cos(radians((south + north) / 2)))
    wide, high = max(0.02, (360 - gap) * squeeze), max(0.02, north - south)
    scale = min((WIDTH - 2 * MARGIN) / wide, (HEIGHT - HEAD - FOOT - 2 * MARGIN) / high)
    left, top = (WIDTH - wide * scale) / 2, (HEIGHT - high * scale) / 2
    return {
        name: (left + ((longitude - west) % 360) * squeeze * scale, top + (north - latitude) * scale)
        for name, (latitude, longitude) in degrees.items()
    }


def _circle(topology: Topology) -> dict[str, tuple[float, float]]:
    around = min(WIDTH, HEIGHT - HEAD - FOOT) / 2 - MARGIN
    turns = {node.name: 2 * pi * at / len(topology.nodes) for at, node in enumerate(topology.nodes)}
    return {
        name: (WIDTH / 2 + 1.4 * around * sin(turn), HEIGHT / 2 - around * cos(turn)) for name, turn in turns.items()
    }


def _most(link: Link) -> int:
    return max(link.capacity_bps, link.capacity_back_bps or 0)


def _wide(bps: int, most_bps: int) -> float:
    """Ten times less is drawn half as wide, and nothing narrower than 1."""
    return max(1.0, 6.0 * 0.5 ** log10(most_bps / bps)) if bps else 1.0


def _link(
    link: Link,
    at: Mapping[str, tuple[float, float]],
    wide: float,
    turn: int,
    held: Mapping[tuple[str, str], Held],
    is_down: bool,
) -> str:
    """A line; the second and later ones between two nodes are bent, to either side in turn."""
    (x, y), (to_x, to_y) = at[min(link.a, link.b)], at[max(link.a, link.b)]
    long = hypot(to_x - x, to_y - y) or 1.0
    bend = 2 * BEND * ((turn + 1) // 2) * (1 if turn % 2 else -1)
    over_x, over_y = (x + to_x) / 2 - (to_y - y) / long * bend, (y + to_y) / 2 + (to_x - x) / long * bend
    said, used = [link.name], -1
    for source, target, capacity in (
        (link.a, link.b, link.capacity_bps),
        (link.b, link.a, link.capacity_bps if link.capacity_back_bps is None else link.capacity_back_bps),
    ):
        part = held.get((link.name, source))
        if part is None:
            said.append(f"{source} > {target}: {show_rate(capacity)}")
            continue
        percent = 100 * part.booked_bps // part.capacity_bps if part.capacity_bps else 0
        used = max(used, percent)
        booked, there = show_rate(part.booked_bps), show_rate(part.capacity_bps)
        said.append(f"{source} > {target}: " + words.say("map_booked", booked=booked, capacity=there, percent=percent))
    if link.delay_us:
        said.append(show_duration(link.delay_us))
    if is_down:
        said.append(words.say("state_cut"))
    kind = "down" if is_down else next((name for most, name in LEVELS if used < most), "full") if used >= 0 else ""
    line = f"M{x:.1f} {y:.1f}Q{over_x:.1f} {over_y:.1f} {to_x:.1f} {to_y:.1f}"
    classes = f"link {kind}".strip()
    shape = f'<path class="{classes}" stroke-width="{wide:.1f}" d="{line}"/>'
    return f"<g><title>{_text('; '.join(said))}</title>{shape}</g>"


def _legend(from_ms: int | None, is_placed: bool) -> list[str]:
    y, x, parts = HEIGHT - 22, 20, []
    signs = [("down", words.say("state_cut"))]
    if from_ms is not None:
        signs = [(name, words.say(f"map_{name}")) for _, name in LEVELS] + signs
    for kind, said in signs:
        parts.append(f'<path class="link {kind}" stroke-width="4" d="M{x} {y}h24"/>')
        parts.append(f'<text x="{x + 30}" y="{y + 4}">{_text(said)}</text>')
        x += 60 + 9 * len(said)
    notes = [words.say("map_wide")]
    if from_ms is not None:
        notes.append(words.say("map_at", at=stamp(from_ms)))
    if not is_placed:
        notes.append(words.say("map_circle"))
    parts.append(f'<text class="note" x="20" y="{HEIGHT - 6}">{_text("; ".join(notes))}</text>')
    return parts
