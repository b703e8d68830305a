"""Topologies: what network operators declare, and what is cut and restored.

What was booked is mended in the same decision, or a few at a time where there is more; until then nothing new is
booked.
"""

from __future__ import annotations

from collections.abc import Sequence

from tieline.exchange.commands import ChangeLinks, ChangeTopology, Decision, ReadTopology
from tieline.exchange.network import Network
from tieline.exchange.permission import allow
from tieline.exchange.transfers import mending
from tieline.exchange.view import View
from tieline.model.circuit import CircuitState
from tieline.model.error import TielineError
from tieline.model.event import CircuitChanged, Events, LinksChanged, TopologyChanged, TransferChanged
from tieline.model.network_api import NetworkChangedView, ShortView, TopologyView
from tieline.model.party import Role
from tieline.model.topology import Topology
from tieline.model.transfer import TransferState
from tieline.ports import Ids

MOST_NAMED = 5  # bookings or links that a sentence lists
MOST_NODES = 2_000  # of an exchange's own topology: its calendar keeps a week of every link three times,
MOST_LINKS = 2_000  # 48 KB a direction


def change_topology(view: View, command: ChangeTopology, now_ms: int, ids: Ids) -> Decision:
    """Take a topology whole. Refused whole: what is not sound, and what would leave live bookings without an end."""
    from tieline.network.survey import checked

    allow(command.actor, Role.ADMIN, Role.OPERATOR, what="change the topology")
    _check_size(command.topology)
    topology = checked(command.topology, "topology")
    network = view.network
    names = {link.name for link in topology.links}
    down = tuple(name for name in network.down if name in names)
    if topology == network.topology:
        return Decision((), _changed(topology, down, ()))
    _check_ends(network, topology)
    _check_slots(network, topology)
    why = command.why or f"declared by {command.actor.name}"
    found = mending(view, now_ms, _standing(topology, down))
    reply = _changed(topology, down, found.events, found.waiting)
    return Decision((TopologyChanged(topology=topology, why=why), *found.events), reply)


def change_links(view: View, command: ChangeLinks, now_ms: int, ids: Ids) -> Decision:
    """Cut links and restore them. Those that are so already are left out; a change of nothing is none."""
    allow(command.actor, Role.ADMIN, Role.OPERATOR, what="cut or restore links")
    network = view.network
    topology = _known(network)
    _check_links(topology, command)
    cut = tuple(dict.fromkeys(name for name in command.down if name not in network.down))
    restored = tuple(dict.fromkeys(name for name in command.up if name in network.down))
    down = tuple(name for name in (*network.down, *cut) if name not in restored)
    if not cut and not restored:
        return Decision((), _changed(topology, down, ()))
    why = command.why or f"told by {command.actor.name}"
    found = mending(view, now_ms, _standing(topology, down))
    reply = _changed(topology, down, found.events, found.waiting)
    return Decision((LinksChanged(down=cut, up=restored, why=why), *found.events), reply)


def read_topology(view: View, command: ReadTopology, now_ms: int, ids: Ids) -> Decision:
    """The topology as it was declared, and what is down."""
    network = view.network
    return Decision((), TopologyView(topology=_known(network), down=tuple(network.down), changes=network.changes))


def _known(network: Network) -> Topology:
    if network.topology is None:
        raise TielineError("not_found", "no topology is known here yet", hints=("tieline network import FILE",))
    return network.topology


def _check_size(topology: Topology) -> None:
    nodes, links = len(topology.nodes), len(topology.links)
    if nodes > MOST_NODES or links > MOST_LINKS:
        what = f"{nodes:,} nodes and {links:,} links are over the {MOST_NODES:,} and {MOST_LINKS:,} of an exchange"
        raise TielineError("too_large", what, where="topology")


def _check_links(topology: Topology, command: ChangeLinks) -> None:
    if not command.down and not command.up:
        raise TielineError("invalid_request", "no link is named", where="down")
    names = {link.name for link in topology.links}
    for where, given in (("down", command.down), ("up", command.up)):
        for name in given:
            if name not in names:
                hints = ("tieline network show",)
                raise TielineError("not_found", f"there is no link `{name}`", where=where, hints=hints)
    for name in command.up:
        if name in command.down:
            raise TielineError("invalid_request", f"link `{name}` is to be cut and restored at once", where="up")


def _check_ends(network: Network, topology: Topology) -> None:
    """Refuse to lose a place where something that is booked begins or ends."""
    places = {node.name for node in topology.nodes} | {node.site for node in topology.nodes if node.site}
    booked = [
        *((each.id, each.order.a, each.order.b) for each in network.circuits.values()),
        *((each.id, each.order.source, each.order.target) for each in network.transfers.values()),
    ]
    lost = [(name, end) for name, *ends in booked for end in ends if end not in places]
    if lost:
        shown = ", ".join(f"`{name}` at `{end}`" for name, end in lost[:MOST_NAMED])
        more = f" and {len(lost) - MOST_NAMED} more" if len(lost) > MOST_NAMED else ""
        raise TielineError(
            "conflict",
            f"{len(lost)} ends of live bookings are no places of the new topology: {shown}{more}",
            where="topology",
            hints=("tieline circuit cancel CIRCUIT", "tieline transfer cancel TRANSFER"),
        )


def _check_slots(network: Network, topology: Topology) -> None:
    """Refuse other slots while something is booked by those of now."""
    live = len(network.circuits) + len(network.transfers)
    if live and network.topology is not None and network.topology.slot_s != topology.slot_s:
        raise TielineError(
            "conflict",
            f"{live} live bookings are by slots of {network.topology.slot_s} s; {topology.slot_s} s were declared",
            where="topology.slot_s",
        )


def _standing(topology: Topology, down: Sequence[str]) -> Topology:
    """The topology as it will carry once the decision is applied."""
    after = Network()
    after.put_topology(topology)
    after.put_links(tuple(down), ())
    standing = after.standing()
    assert standing is not None
    return standing


def _changed(topology: Topology, down: Sequence[str], events: Sequence[Events], waiting: int = 0) -> NetworkChangedView:
    circuits = [event.circuit for event in events if isinstance(event, CircuitChanged)]
    transfers = [event.transfer for event in events if isinstance(event, TransferChanged)]
    return NetworkChangedView(
        name=topology.name,
        node_count=len(topology.nodes),
        link_count=len(topology.links),
        down=tuple(down),
        waiting=waiting,
        moved_circuits=tuple(each.id for each in circuits if each.state is not CircuitState.DOWN),
        moved_transfers=tuple(each.id for each in transfers if each.state is not TransferState.SHORT),
        short=(
            *(
                ShortView(id=each.id, short_bytes=0, reasons=each.reasons)
                for each in circuits
                if each.state is CircuitState.DOWN
            ),
            *(
                ShortView(id=each.id, short_bytes=each.short_bytes, reasons=each.reasons)
                for each in transfers
                if each.state is TransferState.SHORT
            ),
        ),
    )
