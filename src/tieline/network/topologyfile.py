"""Topology files: the form of a file is found out from its first letters, or stated; and written in each form.

::

    tieline    our own struct, in YAML (with units) or JSON     graphml    Topology Zoo
    sndlib     SNDlib native, with demands                      rfc8345    RFC 8345/8795 JSON
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from tieline.model.topology import Topology, TrafficDemand
from tieline.network import documents, import_graphml, import_rfc8345, import_sndlib
from tieline.network.import_values import GUESS_BPS, Names, refused, sized

FORMS: Final = ("tieline", "graphml", "sndlib", "rfc8345")


class Filed(NamedTuple):
    """What a file holds."""

    topology: Topology
    demands: tuple[TrafficDemand, ...] = ()


def form_of(content: bytes) -> str:
    """What a file seems to be."""
    start = content[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"?SNDlib"):
        return "sndlib"
    if start.startswith(b"<"):
        return "graphml"
    if start.startswith(b"{") and b"ietf-network:networks" in content[:65_536]:
        return "rfc8345"
    return "tieline"


def read(
    content: bytes,
    source: str,
    *,
    form: str = "",
    name: str = "",
    capacity_bps: int = GUESS_BPS,
    unit_bps: int = import_sndlib.UNIT_BPS,
) -> Filed:
    """The topology of a file, and its demands where the form has any. Not surveyed yet."""
    form = form or form_of(sized(content))
    if form == "graphml":
        return Filed(import_graphml.read(content, name=name, capacity_bps=capacity_bps))
    if form == "rfc8345":
        return Filed(import_rfc8345.read(content, network=name, capacity_bps=capacity_bps))
    if form == "sndlib":
        library = import_sndlib.read(content, name=name or Names().new(source), unit_bps=unit_bps)
        return Filed(library.topology, library.demands)
    assert form == "tieline", form
    tree = documents.plain(content, source)
    if not isinstance(tree, dict):
        raise refused(f"`{source}` is no topology: it holds no `nodes` and `links`", source)
    return Filed(documents.converted({"name": name or Names().new(source), **_named(tree, name)}, Topology, source))


def _named(tree: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if not (name and key == "name")}


def written(topology: Topology, form: str) -> bytes:
    """The topology in one of the forms; ends with a newline."""
    if form == "graphml":
        return import_graphml.written(topology)
    if form == "rfc8345":
        return import_rfc8345.written(topology)
    if form == "sndlib":
        return import_sndlib.written(topology)
    assert form == "tieline", form
    return msgspec.json.format(msgspec.json.encode(topology), indent=2) + b"\n"
