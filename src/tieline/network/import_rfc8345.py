"""Topologies in JSON after RFC 8345 (networks and links) and RFC 8795 (traffic engineering attributes).

Read and written: nodes, unidirectional links with their ends, and of the TE attributes the bandwidth (bytes a second,
RFC 8776, a decimal or a hexadecimal float), the delay metric (us, one way) and shared risk groups. What the standards
have no place for (owners, prices, maintenance, exact rates) stands in containers of our own, `tieline:node` and
`tieline:link`, which others ignore. It is the style of these models; no conformance is claimed that was not tested: no
YANG validator has seen it.
"""

from __future__ import annotations

import struct
from typing import Any, Final
from zlib import crc32

import msgspec

from tieline.model.topology import Link, Node, Topology
from tieline.network.import_values import GUESS_BPS, Names, joined, rate_bps, refused, sized, topology_of

NETWORKS: Final = "ietf-network:networks"
TOPOLOGY: Final = "ietf-network-topology:"
TE: Final = "ietf-te-topology:te"
OURS_NODE: Final = "tieline:node"
OURS_LINK: Final = "tieline:link"
BACK: Final = "tieline:back-of"  # of the second arc of a link of ours: the first one's `link-id`


def read(content: bytes, *, network: str = "", capacity_bps: int = GUESS_BPS) -> Topology:
    """The topology of a file; ``network``: which one, where it holds several."""
    try:
        whole = msgspec.json.decode(sized(content))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise refused(f"the file is not JSON: {error}", "") from None
    every = _list(_dict(_dict(whole, "").get(NETWORKS), NETWORKS), "network", NETWORKS)
    named = {_text(each, "network-id", f"network[{at}]"): each for at, each in enumerate(every)}
    if network and network not in named:
        raise refused(
            f"there is no network `{network}`; there are {', '.join(f'`{each}`' for each in named)}", NETWORKS
        )
    if not network and len(every) != 1:
        raise refused(f"the file holds {len(every)} networks: say which one is meant", NETWORKS)
    chosen = network or next(iter(named))
    nodes, ends = _nodes(named[chosen])
    return topology_of(Names().new(chosen), nodes, _links(named[chosen], ends, capacity_bps))


def _nodes(network: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    names, nodes, ends = Names(), [], {}
    for at, each in enumerate(_list(network, "node", "network")):
        where = f"node[{at}]"
        known = _text(each, "node-id", where)
        if known in ends:
            raise refused(f"two nodes have the id `{known}`", where)
        ends[known] = names.new(known)
        nodes.append({**_dict(each.get(OURS_NODE, {}), where), "name": ends[known]})
    return nodes, ends


def _links(network: dict[str, Any], ends: dict[str, str], guess_bps: int) -> list[dict[str, Any]]:
    names, arcs, ours, backs = Names(), [], [], set()
    for at, each in enumerate(_list(network, TOPOLOGY + "link", "network")):
        where = f"link[{at}]"
        known = _text(each, "link-id", where)
        a = _end(_dict(each.get("source"), where), "source-node", ends, where)
        b = _end(_dict(each.get("destination"), where), "dest-node", ends, where)
        if BACK in each:
            backs.add(_text(each, BACK, where))
        elif OURS_LINK in each:
            ours.append({**_dict(each[OURS_LINK], where), "name": names.new(known), "a": a, "b": b})
        else:
            arcs.append({"name": names.new(known), "a": a, "b": b, **_attributes(each, guess_bps, where)})
    lost = backs - {link["name"] for link in ours}
    if lost:
        raise refused(f"`{min(lost)}` has a way back and no way forth", TOPOLOGY + "link")
    return ours + joined(arcs)


def _attributes(link: dict[str, Any], guess_bps: int, where: str) -> dict[str, Any]:
    te = _dict(_dict(link.get(TE, {}), where).get("te-link-attributes", {}), where)
    stated = _dict(_dict(te.get("max-link-bandwidth", {}), where).get("te-bandwidth", {}), where).get("generic")
    capacity_bps = guess_bps if stated is None else rate_bps(8 * _bandwidth(stated, where), where)
    delay_us = te.get("te-delay-metric", 0)
    if not isinstance(delay_us, int):
        raise refused("`te-delay-metric` is a whole number of us", where)
    risks = _list(_dict(te.get("te-srlgs", {}), where), "value", where, dict_only=False)
    found: dict[str, Any] = {"capacity_bps": capacity_bps, "delay_us": delay_us}
    if risks:
        found["groups"] = [f"srlg-{risk}" for risk in risks if isinstance(risk, int)]
    if stated is None:
        found["evidence"] = "simulated"
    return found


def _bandwidth(stated: object, where: str) -> float:
    """Bytes a second; of a list of several, the first."""
    text = str(stated).split(",")[0].strip()
    try:
        value = float.fromhex(text) if text.lower().startswith("0x") else float(text)
    except (ValueError, OverflowError):
        raise refused(f"`{text[:40]}` is no bandwidth", where) from None
    if not 0 <= value < 1e300:
        raise refused(f"a bandwidth of {text[:40]} byte/s is not a finite positive number", where)
    return value


def _end(of: dict[str, Any], key: str, ends: dict[str, str], where: str) -> str:
    node = _text(of, key, where)
    if node not in ends:
        raise refused(f"a link ends at `{node}`, which is no node", where)
    return ends[node]


def _dict(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refused("an object is expected here", where)
    return value


def _list(of: dict[str, Any], key: str, where: str, *, dict_only: bool = True) -> list[Any]:
    value = of.get(key, [])
    if not isinstance(value, list) or (dict_only and not all(isinstance(each, dict) for each in value)):
        raise refused(f"`{key}` is a list{' of objects' if dict_only else ''}", where)
    return value


def _text(of: dict[str, Any], key: str, where: str) -> str:
    value = of.get(key)
    if not isinstance(value, str) or not value:
        raise refused(f"`{key}` is a text that is not empty", where)
    return value


def written(topology: Topology) -> bytes:
    """The topology as JSON, two arcs for each link; `read` gives back the same."""
    points: dict[str, list[dict[str, str]]] = {node.name: [] for node in topology.nodes}
    arcs = []
    for link in topology.links:
        for node in (link.a, link.b):
            points[node].append({"tp-id": link.name})
        back = link.capacity_bps if link.capacity_back_bps is None else link.capacity_back_bps
        arcs.append(_arc(link, link.name, link.a, link.b, link.capacity_bps, {OURS_LINK: _ours_of_link(link)}))
        arcs.append(_arc(link, f"{link.name}/back", link.b, link.a, back, {BACK: link.name}))
    nodes = [
        {"node-id": node.name, TOPOLOGY + "termination-point": points[node.name], OURS_NODE: _ours_of_node(node)}
        for node in topology.nodes
    ]
    network = {
        "network-id": topology.name,
        "network-types": {"ietf-te-topology:te-topology": {}},
        "node": nodes,
        TOPOLOGY + "link": arcs,
    }
    return msgspec.json.format(msgspec.json.encode({NETWORKS: {"network": [network]}}), indent=1)


def _arc(link: Link, known: str, a: str, b: str, rate: int, ours: dict[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "max-link-bandwidth": {"te-bandwidth": {"generic": _single(rate / 8).hex()}},
        "te-delay-metric": link.delay_us,
    }
    if link.groups:
        attributes["te-srlgs"] = {"value": [crc32(group.encode()) for group in link.groups]}
    return {
        "link-id": known,
        "source": {"source-node": a, "source-tp": link.name},
        "destination": {"dest-node": b, "dest-tp": link.name},
        TE: {"te-link-attributes": attributes},
        **ours,
    }


def _single(value: float) -> float:
    """As a float of 32 bits, which is what the standard's bandwidth is."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _ours_of_node(node: Node) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(node)
    del values["name"]
    return values


def _ours_of_link(link: Link) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(link)
    for said in ("name", "a", "b"):
        del values[said]
    return values
