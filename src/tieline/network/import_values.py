"""Values in files of others: names, rates, degrees and delays, as this project writes them; the rest is refused."""

from __future__ import annotations

import re
from math import isfinite
from typing import Any, Final

import msgspec

from tieline.model.error import TielineError
from tieline.model.topology import Place, Topology
from tieline.network.physics import DETOUR, FIBRE_US_PER_M, distance_m

MOST_BYTES: Final = 64 * 2**20
MOST_NODES: Final = 20_000
MOST_LINKS: Final = 100_000
GUESS_BPS: Final = 10**10  # of a link whose file says nothing

_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


def refused(what: str, where: str) -> TielineError:
    """The refusal of a whole file."""
    return TielineError("invalid_request", what, where=where)


def sized(content: bytes) -> bytes:
    """The same bytes, if they are not too many."""
    if len(content) > MOST_BYTES:
        raise TielineError("too_large", f"the file has {len(content)} bytes, at most {MOST_BYTES} are read")
    return content


class Names:
    """Names without spaces, none twice: what is there already gets a number."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._count: dict[str, int] = {}

    def new(self, text: str) -> str:
        """The name for a label; the second `Paris` becomes `Paris#2`."""
        plain = _SPACE.sub("-", text.strip())[:200] or "unnamed"
        name, count = plain, self._count.get(plain, 1)
        while name in self._taken:
            count += 1
            name = f"{plain[:190]}#{count}"
        self._count[plain] = count
        self._taken.add(name)
        return name


def number(text: str, where: str) -> float:
    """A finite decimal number."""
    try:
        value = float(text)
    except ValueError:
        raise refused(f"`{text[:40]}` is not a number", where) from None
    if not isfinite(value):
        raise refused(f"`{text[:40]}` is not a finite number", where)
    return value


def whole(text: str, where: str) -> int:
    """A whole number."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise refused(f"`{text[:40]}` is not a whole number", where)
    return int(text)


def rate_bps(value: float, where: str) -> int:
    """A capacity in bit/s."""
    if not 0 <= value <= 10**15:
        raise refused(f"a capacity of {value:g} bit/s is not between 0 and 1e15 bit/s", where)
    return round(value)


def place_of(latitude: float, longitude: float, where: str) -> dict[str, int]:
    """Degrees as a place."""
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise refused(f"{latitude:g} N, {longitude:g} E is no place on Earth", where)
    return {"latitude_udeg": round(latitude * 1e6), "longitude_udeg": round(longitude * 1e6)}


def guessed_us(a: dict[str, int] | None, b: dict[str, int] | None) -> int:
    """The delay of a fibre between two places, with the usual detour; 0: not known where they are."""
    if a is None or b is None:
        return 0
    return round(distance_m(Place(**a), Place(**b)) * DETOUR * FIBRE_US_PER_M)


def topology_of(name: str, nodes: list[dict[str, Any]], links: list[dict[str, Any]]) -> Topology:
    """The struct, every bound of its fields checked. Whether it is sound is `survey`'s affair."""
    if len(nodes) > MOST_NODES or len(links) > MOST_LINKS:
        most = f"at most {MOST_NODES} and {MOST_LINKS} are read"
        raise TielineError("too_large", f"the file has {len(nodes)} nodes and {len(links)} links, {most}")
    try:
        return msgspec.convert({"name": name, "nodes": nodes, "links": links}, Topology)
    except msgspec.ValidationError as error:
        raise refused(f"the topology breaks a bound: {error}", name) from None


def joined(arcs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Links of arcs: each with the first that leads back; alone it carries nothing back."""
    waiting: dict[tuple[str, str], list[dict[str, Any]]] = {}
    links = []
    for arc in arcs:
        if arc["delay_us"] < 0:
            raise refused(f"a delay of {arc['delay_us']} us breaks a bound: it is at least 0 us", arc["name"])
        back = waiting.get((arc["b"], arc["a"]))
        if back:
            first = back.pop(0)
            if arc["capacity_bps"] == first["capacity_bps"]:
                del first["capacity_back_bps"]
            else:
                first["capacity_back_bps"] = arc["capacity_bps"]
            first["delay_us"] = max(first["delay_us"], arc["delay_us"])
            continue
        links.append({**arc, "capacity_back_bps": 0})
        waiting.setdefault((arc["a"], arc["b"]), []).append(links[-1])
    return links
