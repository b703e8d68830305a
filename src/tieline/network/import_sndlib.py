"""SNDlib native format: networks and traffic matrices of the Survivable Network Design Library (Orlowski et al.,
Networks 55, 2010).

::

    ?SNDlib native format; type: network; version: 1.0
    NODES ( <node> ( <longitude> <latitude> ) ... )
    LINKS ( <link> ( <source> <target> ) <capacity> <its cost> <routing cost> <setup cost> ( <module> <cost> ... ) ... )
    DEMANDS ( <demand> ( <source> <target> ) <routing unit> <value> <longest path> ... )

Capacities and demands have no unit in the format: ``unit_bps`` says it (most of the library's are Mbit/s). A link
without capacity gets its largest module. Delays are those of a fibre between the places, so evidence is ``simulated``.
The format has no word for owners, delays, prices, groups, maintenance or two capacities of one link: `written` refuses
the last and leaves the others out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tieline.model.topology import Topology, TrafficDemand
from tieline.network.import_values import (
    GUESS_BPS,
    MOST_LINKS,
    Names,
    guessed_us,
    number,
    place_of,
    rate_bps,
    refused,
    sized,
    topology_of,
)

UNIT_BPS: Final = 10**6
MOST_DEMANDS: Final = 400_000
MOST_TOKENS: Final = 8_000_000
_TOKEN = re.compile(r"[()]|[^\s()]+")
_HEAD = "?SNDlib native format"


class Library(NamedTuple):
    """What one file holds."""

    topology: Topology
    demands: tuple[TrafficDemand, ...]


class _Token(NamedTuple):
    text: str
    line: int

    @property
    def where(self) -> str:
        return f"line {self.line}"


def read(content: bytes, *, name: str = "sndlib", unit_bps: int = UNIT_BPS) -> Library:
    """The network and the demands of a file."""
    try:
        text = sized(content).decode()
    except UnicodeDecodeError as error:
        raise refused(f"the file is not UTF-8 at byte {error.start}", "line 1") from None
    if not text.startswith(_HEAD):
        raise refused(f"the file does not begin with `{_HEAD}`", "line 1")
    parts = _parts(_Stream(text))
    nodes, ends = _nodes(parts.get("NODES", []))
    links = _links(parts.get("LINKS", []), nodes, ends, unit_bps)
    demands = _demands(parts.get("DEMANDS", []), nodes, ends, unit_bps)
    return Library(topology_of(Names().new(name), nodes, links), demands)


class _Stream:
    """Tokens without comments, and where they stand."""

    def __init__(self, text: str) -> None:
        self._tokens = self._all(text)
        self.last = _Token("", 1)

    def _all(self, text: str) -> Iterator[_Token]:
        count = 0
        for line, row in enumerate(text.split("\n"), 1):
            if line > 1:  # the first says what the file is
                for found in _TOKEN.finditer(row.partition("#")[0]):
                    count += 1
                    if count > MOST_TOKENS:
                        raise refused(f"the file has more than {MOST_TOKENS} words", f"line {line}")
                    yield _Token(found[0], line)

    def next(self) -> _Token | None:
        """The next token; None at the end."""
        token = next(self._tokens, None)
        if token is not None:
            self.last = token
        return token

    def need(self, what: str = "") -> _Token:
        """The next token, which must be there, and must be ``what`` if that is given."""
        token = self.next()
        if token is None:
            raise refused(f"the file ends where {f'`{what}`' if what else 'more'} is expected", self.last.where)
        if what and token.text != what:
            raise refused(f"`{token.text[:40]}` stands where `{what}` is expected", token.where)
        return token


Row = list[Any]  # tokens, and rows in brackets


def _parts(stream: _Stream) -> dict[str, Row]:
    """Every section as nested rows; depth at most 4."""
    parts: dict[str, Row] = {}
    while (token := stream.next()) is not None:
        if not re.fullmatch(r"[A-Z_]+", token.text):
            raise refused(f"`{token.text[:40]}` stands where a section is expected", token.where)
        if token.text in parts:
            raise refused(f"section {token.text} occurs twice", token.where)
        stream.need("(")
        parts[token.text] = _row(stream, 1)
    return parts


def _row(stream: _Stream, depth: int) -> Row:
    if depth > 4:
        raise refused("brackets are nested deeper than 4", stream.last.where)
    row: Row = []
    while (token := stream.need()).text != ")":
        row.append(_row(stream, depth + 1) if token.text == "(" else token)
    return row


def _shaped(row: Row, at: int, shape: str) -> Row:
    """The next fields of a row: ``t`` a token, ``r`` a row."""
    fields = row[at : at + len(shape)]
    rest = next((each for each in row[at:] if isinstance(each, _Token)), _Token("", 1))
    if len(fields) < len(shape):
        raise refused(f"an entry has {len(fields)} fields of {len(shape)}", rest.where)
    for field, kind in zip(fields, shape, strict=True):
        if isinstance(field, _Token) != (kind == "t"):
            raise refused("a word and brackets stand in the wrong order", rest.where)
    return fields


def _pair(row: Row, where: str) -> tuple[_Token, _Token]:
    if len(row) != 2 or not all(isinstance(each, _Token) for each in row):
        raise refused("brackets hold two words here", where)
    return row[0], row[1]


def _nodes(part: Row) -> tuple[list[dict[str, Any]], dict[str, int]]:
    names = Names()
    nodes: list[dict[str, Any]] = []
    ends: dict[str, int] = {}
    for at in range(0, len(part), 2):
        label, degrees = _shaped(part, at, "tr")
        if label.text in ends:
            raise refused(f"two nodes are named `{label.text}`", label.where)
        east, north = _pair(degrees, label.where)
        ends[label.text] = len(nodes)
        node: dict[str, Any] = {"name": names.new(label.text)}
        # Some of the library's networks are drawn on paper, not on Earth: their coordinates are no degrees.
        longitude, latitude = number(east.text, east.where), number(north.text, north.where)
        if -90 <= latitude <= 90 and -180 <= longitude <= 180:
            node["place"] = place_of(latitude, longitude, label.where)
        nodes.append(node)
    return nodes, ends


def _ends(row: Row, ends: dict[str, int], label: _Token) -> tuple[int, int]:
    source, target = _pair(row, label.where)
    for end in (source, target):
        if end.text not in ends:
            raise refused(f"`{label.text}` ends at `{end.text}`, which is no node", end.where)
    return ends[source.text], ends[target.text]


def _links(part: Row, nodes: list[dict[str, Any]], ends: dict[str, int], unit_bps: int) -> list[dict[str, Any]]:
    names = Names()
    links: list[dict[str, Any]] = []
    for at in range(0, len(part), 7):
        label, pair, capacity, _, _, _, modules = _shaped(part, at, "trttttr")
        if len(links) >= MOST_LINKS:
            raise refused(f"the file has more than {MOST_LINKS} links", label.where)
        a, b = (nodes[end] for end in _ends(pair, ends, label))
        rate = number(capacity.text, label.where)
        if rate == 0 and modules:
            rate = max(number(each.text, label.where) for each in modules[::2] if isinstance(each, _Token))
        capacity_bps = rate_bps(rate * unit_bps, label.where) if rate else (0 if modules else GUESS_BPS)
        links.append(
            {
                "name": names.new(label.text),
                "a": a["name"],
                "b": b["name"],
                "capacity_bps": capacity_bps,
                "delay_us": guessed_us(a.get("place"), b.get("place")),
                "evidence": "simulated",
            }
        )
    return links


def _demands(part: Row, nodes: list[dict[str, Any]], ends: dict[str, int], unit_bps: int) -> tuple[TrafficDemand, ...]:
    names = Names()
    demands: list[TrafficDemand] = []
    for at in range(0, len(part), 5):
        label, pair, routing, value, _ = _shaped(part, at, "trttt")
        if len(demands) >= MOST_DEMANDS:
            raise refused(f"the file has more than {MOST_DEMANDS} demands", label.where)
        source, target = _ends(pair, ends, label)
        rate = number(routing.text, label.where) * number(value.text, label.where) * unit_bps
        demands.append(
            TrafficDemand(
                name=names.new(label.text),
                source=nodes[source]["name"],
                target=nodes[target]["name"],
                rate_bps=rate_bps(rate, label.where),
            )
        )
    return tuple(demands)


def written(topology: Topology, demands: tuple[TrafficDemand, ...] = (), *, unit_bps: int = UNIT_BPS) -> bytes:
    """What the format can say of a network. Names with brackets or `#` are refused: the format has no quotes."""
    names = [node.name for node in topology.nodes] + [link.name for link in topology.links]
    for name in names + [each.name for each in demands]:
        if re.search(r"[()#]", name):
            raise refused(f"`{name}` cannot be said in SNDlib's format", name)
    for link in topology.links:
        if link.capacity_back_bps not in (None, link.capacity_bps):
            two = f"{link.capacity_bps} and {link.capacity_back_bps} bit/s"
            raise refused(f"link `{link.name}` has two capacities, {two}; the format has one", link.name)
    lines = [f"{_HEAD}; type: network; version: 1.0", f"# network {topology.name}", "NODES ("]
    for node in topology.nodes:
        place = node.place
        # A place that is not known is said by what is no degree.
        degrees = "1000 1000" if place is None else f"{place.longitude_udeg / 1e6:.6f} {place.latitude_udeg / 1e6:.6f}"
        lines.append(f"  {node.name} ( {degrees} )")
    lines += [")", "LINKS ("]
    for link in topology.links:
        # A capacity of 0 is a module of 0, as none at all would be taken for an unknown one.
        module = "" if link.capacity_bps else "0 0 "
        rate = _amount(link.capacity_bps, unit_bps)
        lines.append(f"  {link.name} ( {link.a} {link.b} ) {rate} 0 0 0 ( {module})")
    lines += [")", "DEMANDS ("]
    lines += [
        f"  {each.name} ( {each.source} {each.target} ) 1 {_amount(each.rate_bps, unit_bps)} UNLIMITED"
        for each in demands
    ]
    return "\n".join([*lines, ")", ""]).encode()


def _amount(rate: int, unit_bps: int) -> str:
    return repr(rate / unit_bps)
