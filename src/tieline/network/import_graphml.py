"""GraphML: topologies of the Internet Topology Zoo (Knight et al., IEEE JSAC 29, 2011), and our own written that way.

A document type, and so every entity, is refused before anything is read of it. Labels become names without spaces;
edges that occur twice are two links. Where a file says no capacity or no delay, `GUESS_BPS` and the length of a fibre
between the two places stand in, and the link's evidence is ``simulated``: nobody declared it. Our own export says all
and comes back as it was.
"""

from __future__ import annotations

import re
from typing import Any, Final
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from tieline.model.topology import Link, Node, Topology
from tieline.network.import_values import (
    GUESS_BPS,
    MOST_LINKS,
    MOST_NODES,
    Names,
    guessed_us,
    joined,
    number,
    place_of,
    rate_bps,
    refused,
    sized,
    topology_of,
    whole,
)

SPACE: Final = "http://graphml.graphdrawing.org/xmlns"
MOST_DEPTH: Final = 8
MOST_TEXT: Final = 65_536  # letters of one value
MOST_KEYS: Final = 1_000
NODE_FIELDS: Final = ("name", "owner", "site", "region", "locator", "latitude_udeg", "longitude_udeg")
LINK_NUMBERS: Final = ("capacity_bps", "capacity_back_bps", "delay_us", "mtu_bytes", "price_micro_cny_per_gb")
LINK_FIELDS: Final = ("name", *LINK_NUMBERS, "owner", "groups", "maintenance", "line", "evidence")
AT, EDGE = "\0at", "\0edge"  # what we note beside a file's values; no XML can say these
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_REFUSED = {"hyperedge": "edges with more than two ends", "port": "ports", "locator": "contents from elsewhere"}


def read(content: bytes, *, name: str = "", capacity_bps: int = GUESS_BPS) -> Topology:
    """The topology of a file. ``name`` stands in where the file has none."""
    parse = _Parse()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = parse.doctype
    parser.StartElementHandler = parse.begin
    parser.EndElementHandler = parse.end
    parser.CharacterDataHandler = parse.text
    parse.line = lambda: parser.CurrentLineNumber
    try:
        parser.Parse(sized(content), True)
    except expat.ExpatError as error:
        raise refused(
            f"the file is not well-formed XML: {expat.ErrorString(error.code)}", f"line {error.lineno}"
        ) from None
    if not parse.has_graph:
        raise refused("the file has no `graph` of GraphML", "line 1")
    return _topology(parse, name, capacity_bps)


class _Parse:
    """What the parser has seen so far."""

    def __init__(self) -> None:
        self.line: Any = None
        self.keys: dict[str, tuple[str, str]] = {}  # id -> what it is of, its name
        self.graph: dict[str, str] = {}
        self.nodes: dict[str, dict[str, str]] = {}
        self.edges: list[tuple[str, str, dict[str, str]]] = []
        self.has_graph = self.is_directed = False
        self._open: list[str] = []
        self._values: list[dict[str, str]] = []
        self._key = ""
        self._text: list[str] = []
        self._letters = 0

    @property
    def where(self) -> str:
        return f"line {self.line()}"

    def doctype(self, *_: object) -> None:
        raise refused("the file declares a document type, which may hold entities", self.where)

    def begin(self, tag: str, given: dict[str, str]) -> None:
        what = tag.removeprefix(SPACE + " ")
        if len(self._open) >= MOST_DEPTH:
            raise refused(f"elements are nested deeper than {MOST_DEPTH}", self.where)
        if what in _REFUSED:
            raise refused(f"`{what}` is not read: {_REFUSED[what]}", self.where)
        self._open.append(what)
        if what == "key":
            self._add_key(given)
        elif what == "graph":
            if self.has_graph:
                raise refused("the file has more than one graph", self.where)
            self.has_graph, self.is_directed = True, given.get("edgedefault") == "directed"
            self.graph["id"] = given.get("id", "")
            self._values.append(self.graph)
        elif what == "node":
            self._add_node(given)
        elif what == "edge":
            self._add_edge(given)
        elif what == "data":
            self._key, self._text, self._letters = given.get("key", ""), [], 0

    def text(self, letters: str) -> None:
        if self._open and self._open[-1] == "data":
            self._letters += len(letters)
            if self._letters > MOST_TEXT:
                raise refused(f"a value has more than {MOST_TEXT} letters", self.where)
            self._text.append(letters)

    def end(self, _tag: str) -> None:
        what = self._open.pop()
        if what == "data" and self._values and self._key in self.keys:
            self._values[-1][self.keys[self._key][1]] = "".join(self._text)
        elif what in ("graph", "node", "edge") and self._values:
            self._values.pop()

    def _add_key(self, given: dict[str, str]) -> None:
        if len(self.keys) >= MOST_KEYS:
            raise refused(f"the file has more than {MOST_KEYS} keys", self.where)
        self.keys[given.get("id", "")] = (given.get("for", ""), given.get("attr.name", given.get("id", "")))

    def _add_node(self, given: dict[str, str]) -> None:
        known = given.get("id", "")
        if known in self.nodes:
            raise refused(f"two nodes have the id `{known}`", self.where)
        if len(self.nodes) >= MOST_NODES:
            raise refused(f"the file has more than {MOST_NODES} nodes", self.where)
        self.nodes[known] = {AT: self.where}
        self._values.append(self.nodes[known])

    def _add_edge(self, given: dict[str, str]) -> None:
        if len(self.edges) >= MOST_LINKS:
            raise refused(f"the file has more than {MOST_LINKS} edges", self.where)
        values = {AT: self.where, EDGE: given.get("id", "")}
        self.edges.append((given.get("source", ""), given.get("target", ""), values))
        self._values.append(values)


def _topology(parse: _Parse, name: str, guess_bps: int) -> Topology:
    names, nodes = Names(), {}
    for known, values in parse.nodes.items():
        nodes[known] = _node(values, names.new(values.get("name") or values.get("label") or known))
    links, taken = [], Names()
    for source, target, values in parse.edges:
        for end in (source, target):
            if end not in nodes:
                raise refused(f"an edge ends at `{end}`, which is no node", values[AT])
        a, b = nodes[source], nodes[target]
        label = values.get("name") or values.get("id") or values[EDGE] or f"{a['name']}--{b['name']}"
        links.append(_link(values, a, b, taken.new(label), guess_bps))
    title = Names().new(parse.graph.get("name") or parse.graph.get("Network") or name or parse.graph["id"])
    return topology_of(title, list(nodes.values()), joined(links) if parse.is_directed else links)


def _node(values: dict[str, str], name: str) -> dict[str, Any]:
    where = values[AT]
    node: dict[str, Any] = {"name": name}
    node |= {field: values[field] for field in ("owner", "site", "region", "locator") if field in values}
    if "region" not in node and "Country" in values:
        node["region"] = values["Country"]
    if "latitude_udeg" in values and "longitude_udeg" in values:
        node["place"] = {field: whole(values[field], where) for field in ("latitude_udeg", "longitude_udeg")}
    elif "Latitude" in values and "Longitude" in values:
        latitude, longitude = number(values["Latitude"], where), number(values["Longitude"], where)
        node["place"] = place_of(latitude, longitude, where)
    return node


def _link(values: dict[str, str], a: dict[str, Any], b: dict[str, Any], name: str, guess_bps: int) -> dict[str, Any]:
    where = values[AT]
    link: dict[str, Any] = {"name": name, "a": a["name"], "b": b["name"]}
    link |= {field: whole(values[field], where) for field in LINK_NUMBERS if field in values}
    link |= {field: values[field] for field in ("owner", "line", "evidence") if field in values}
    if "groups" in values:
        link["groups"] = values["groups"].split()
    if "maintenance" in values:
        link["maintenance"] = [_window(span, where) for span in values["maintenance"].split()]
    is_guessed = False
    if "capacity_bps" not in link:
        stated = values.get("LinkSpeedRaw")
        link["capacity_bps"] = guess_bps if stated is None else rate_bps(number(stated, where), where)
        is_guessed = stated is None
    if "delay_us" not in link:
        link["delay_us"] = guessed_us(a.get("place"), b.get("place"))
        is_guessed = True
    if is_guessed and "evidence" not in link:
        link["evidence"] = "simulated"
    return link


def _window(span: str, where: str) -> dict[str, int]:
    begin, _, end = span.partition("/")
    return {"from_ms": whole(begin, where), "until_ms": whole(end, where)}


def written(topology: Topology) -> bytes:
    """The topology as GraphML; `read` gives back the same."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', f"<graphml xmlns={quoteattr(SPACE)}>"]
    lines.append('  <key id="graph.name" for="graph" attr.name="name" attr.type="string"/>')
    for what, fields in (("node", NODE_FIELDS), ("edge", LINK_FIELDS)):
        for field in fields:
            kind = "long" if field.endswith(("_udeg", "_bps", "_us", "_bytes", "_gb")) else "string"
            lines.append(f'  <key id="{what}.{field}" for="{what}" attr.name="{field}" attr.type="{kind}"/>')
    lines.append('  <graph edgedefault="undirected">')
    lines.append(f"    {_data('graph', {'name': topology.name})}")
    number_of = {node.name: at for at, node in enumerate(topology.nodes)}
    for at, node in enumerate(topology.nodes):
        lines.append(f'    <node id="n{at}">{_data("node", _values_of_node(node))}</node>')
    for link in topology.links:
        ends = f'source="n{number_of[link.a]}" target="n{number_of[link.b]}"'
        lines.append(f"    <edge {ends}>{_data('edge', _values_of_link(link))}</edge>")
    return "\n".join([*lines, "  </graph>", "</graphml>", ""]).encode()


def _data(what: str, values: dict[str, str]) -> str:
    for field, value in values.items():
        if _NO_XML.search(value):
            raise refused(f"`{field}` holds a character that XML cannot say: {value[:40]!r}", values["name"])
    cells = ((field, escape(value, {"\r": "&#13;"})) for field, value in values.items())
    return "".join(f'<data key="{what}.{field}">{value}</data>' for field, value in cells)


def _values_of_node(node: Node) -> dict[str, str]:
    values = {"name": node.name, "owner": node.owner, "site": node.site, "region": node.region, "locator": node.locator}
    values = {field: value for field, value in values.items() if value}
    if node.place is not None:
        values["latitude_udeg"] = str(node.place.latitude_udeg)
        values["longitude_udeg"] = str(node.place.longitude_udeg)
    return values


def _values_of_link(link: Link) -> dict[str, str]:
    values = {"name": link.name}
    values |= {field: str(getattr(link, field)) for field in LINK_NUMBERS if getattr(link, field) is not None}
    values |= {"owner": link.owner, "groups": " ".join(link.groups)}
    values["maintenance"] = " ".join(f"{window.from_ms}/{window.until_ms}" for window in link.maintenance)
    values |= {"line": link.line.value, "evidence": link.evidence.value}
    return {field: value for field, value in values.items() if value}
