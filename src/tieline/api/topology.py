"""Topology: the network as its operators declare it, and which links carry now."""

from __future__ import annotations

from tieline.api.call import Call
from tieline.api.operation import operation
from tieline.exchange.commands import ChangeLinks, ChangeTopology, ReadTopology
from tieline.model.network_api import LinksBody, NetworkChangedView, TopologyBody, TopologyView

EXAMPLE = {
    "topology": {
        "name": "metro",
        "nodes": [{"name": "east"}, {"name": "west"}],
        "links": [{"name": "east-west", "a": "east", "b": "west", "capacity_bps": 10_000_000_000, "delay_us": 400}],
    },
    "why": "first light",
}


@operation("GET", "/v1/network/topology", tag="network")
async def read_topology(call: Call) -> TopologyView:
    """The topology as it was declared, and the links that are down."""
    found: TopologyView = await call.platform.ask(ReadTopology(actor=call.actor))
    return found


@operation("POST", "/v1/network/topology", tag="network", is_change=True, errors=("conflict",), example=EXAMPLE)
async def change_topology(call: Call, body: TopologyBody) -> NetworkChangedView:
    """Declare the network anew, whole.

    Refused whole, with numbers, where it is not sound: names that occur twice, ends that are no node, parts that no
    link joins, delays faster than light. What is booked is moved to what is left of it, as after a cut.
    """
    command = call.command(ChangeTopology, topology=body.topology, why=body.why)
    changed: NetworkChangedView = await call.platform.ask(command)
    return changed


@operation(
    "POST",
    "/v1/network/links",
    tag="network",
    is_change=True,
    errors=("not_found",),
    example={"down": ["east-west"], "why": "digger"},
)
async def change_links(call: Call, body: LinksBody) -> NetworkChangedView:
    """Note that links were cut, or carry again.

    Up to 40 circuits and transfers over them are moved in the same decision; more are mended a few at a time, and new
    orders are refused until all are. Who is short then is named, with what is missing.
    """
    command = call.command(ChangeLinks, down=body.down, up=body.up, why=body.why)
    changed: NetworkChangedView = await call.platform.ask(command)
    return changed
