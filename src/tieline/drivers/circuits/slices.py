"""Slices: a circuit in the words of RFC 9543, as the IETF's model `ietf-network-slice-service` writes them. Pure.

One point-to-point construct each way, its rate as `one-way-bandwidth`, its latency bound as `one-way-delay-maximum`.
The model has no word for a route: whoever takes the slice chooses one that keeps the bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring

from tieline.model.circuit import Circuit
from tieline.model.error import TielineError
from tieline.model.topology import Line

MODULE: Final = "ietf-network-slice-service"
NAMESPACE: Final = f"urn:ietf:params:xml:ns:yang:{MODULE}"
NETCONF: Final = "urn:ietf:params:xml:ns:netconf:base:1.0"
GROUP: Final = "line"
MEGA: Final = 1_000_000
Tree = Mapping[str, Any]


def slice_of(circuit: Circuit) -> dict[str, Any]:
    """The slice of a circuit, as a tree of the model. Raises TielineError for a line that is a model of attributes."""
    if circuit.order.line is not Line.IP:
        raise TielineError(
            "invalid_request",
            f"a controller is asked for IP; a line of type `{circuit.order.line}` is a model",
            where=circuit.id,
        )
    order = circuit.order
    return {
        "id": circuit.id,
        "description": order.label or f"{order.a} to {order.b}",
        "service-slo-sle-policy": {"slo-policy": {"mtu": order.mtu_bytes}},
        "sdps": {"sdp": [{"id": "1", "node-id": order.a}, {"id": "2", "node-id": order.b}]},
        "connection-groups": {
            "connection-group": [
                {
                    "id": GROUP,
                    "connectivity-type": "point-to-point",
                    "connectivity-construct": [_construct(1, "1", "2", circuit), _construct(2, "2", "1", circuit)],
                }
            ]
        },
    }


def _construct(number: int, sender: str, receiver: str, circuit: Circuit) -> dict[str, Any]:
    rate = circuit.held_bps
    if number == 2 and circuit.back_bps is not None:
        rate = circuit.back_bps
    bounds = [{"metric-type": "one-way-bandwidth", "metric-unit": "Mbps", "bound": str(-(-rate // MEGA))}]
    if circuit.order.latency_us:
        bounds.append(
            {
                "metric-type": "one-way-delay-maximum",
                "metric-unit": "microseconds",
                "bound": str(circuit.order.latency_us),
            }
        )
    return {
        "id": number,
        "p2p-sender-sdp": sender,
        "p2p-receiver-sdp": receiver,
        "service-slo-sle-policy": {"slo-policy": {"metric-bound": bounds}},
    }


def configuration(slices: Sequence[Tree], removed: Sequence[str] = ()) -> str:
    """The `<config>` of a NETCONF edit: slices that replace what stood under their names, and names that go."""
    config = Element(f"{{{NETCONF}}}config")
    services = SubElement(config, f"{{{NAMESPACE}}}network-slice-services")
    for each in slices:
        made = SubElement(services, f"{{{NAMESPACE}}}slice-service", {f"{{{NETCONF}}}operation": "replace"})
        _written(made, each)
    for name in removed:
        gone = SubElement(services, f"{{{NAMESPACE}}}slice-service", {f"{{{NETCONF}}}operation": "remove"})
        SubElement(gone, f"{{{NAMESPACE}}}id").text = name
    return tostring(config, encoding="unicode")


def _written(parent: Element, tree: Tree) -> None:
    for name, value in tree.items():
        for each in value if isinstance(value, list) else [value]:
            child = SubElement(parent, f"{{{NAMESPACE}}}{name}")
            if isinstance(each, Mapping):
                _written(child, each)
            else:
                child.text = str(each)
