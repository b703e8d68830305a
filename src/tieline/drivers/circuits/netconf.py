"""NETCONF: circuits as slices of a controller (RFC 6241, ncclient). All of a call is one commit, or nothing of it is.

The candidate is locked, edited, validated and committed; whatever fails on the way discards it. Tested with
exchanges that were written down beforehand, not with a device.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring

from tieline.drivers.circuits.slices import NAMESPACE, configuration, slice_of
from tieline.drivers.circuits.told import told
from tieline.model.circuit import Circuit, Receipt
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.ports import Applied, PortCount

if TYPE_CHECKING:
    from ncclient.manager import Manager

INTERFACES: Final = "urn:ietf:params:xml:ns:yang:ietf-interfaces"


class NetconfCircuits:
    """Circuits of one controller. ``interfaces``: (node, link) -> what the controller calls the port."""

    name = "netconf"
    evidence = Evidence.DECLARED

    def __init__(self, manager: Manager, interfaces: Mapping[tuple[str, str], str] | None = None) -> None:
        self.manager = manager
        self.interfaces = dict(interfaces or {})
        self._lock = asyncio.Lock()

    async def apply(self, circuits: Sequence[Circuit]) -> Applied:
        """As `tieline.ports.Circuits`; the controller chooses the routes."""
        config = configuration([slice_of(circuit) for circuit in circuits])
        begun = time.perf_counter_ns()
        async with self._lock:
            await asyncio.to_thread(self._commit, config)
        took_us = (time.perf_counter_ns() - begun) // 1_000
        names = [circuit.id for circuit in circuits]
        return Applied(circuits=names, step_count=len(names), took_us=took_us, evidence=self.evidence)

    async def verify(self, circuit: Circuit, seq: int) -> Receipt:
        """As `tieline.ports.Circuits`: the controller's own word, which proves nothing."""
        asked = Element(f"{{{NAMESPACE}}}network-slice-services")
        service = SubElement(asked, f"{{{NAMESPACE}}}slice-service")
        SubElement(service, f"{{{NAMESPACE}}}id").text = circuit.id
        SubElement(service, f"{{{NAMESPACE}}}status")
        async with self._lock:
            data = await asyncio.to_thread(self._got, asked)
        if data.find(f".//{{{NAMESPACE}}}slice-service") is None:
            raise TielineError("not_found", f"circuit `{circuit.id}` does not stand there", where=circuit.id)
        status = data.findtext(f".//{{{NAMESPACE}}}oper-status/{{{NAMESPACE}}}status", "")
        return told(circuit.id, seq, status)

    async def counters(self) -> Sequence[PortCount]:
        """As `tieline.ports.Circuits`: ports whose names are known."""
        asked = Element(f"{{{INTERFACES}}}interfaces-state")
        async with self._lock:
            data = await asyncio.to_thread(self._got, asked)
        seen = {each.findtext(f"{{{INTERFACES}}}name", ""): each for each in data.iter(f"{{{INTERFACES}}}interface")}
        return [
            PortCount(
                link=link,
                node=node,
                sent_bytes=_number(seen[name], "out-octets"),
                received_bytes=_number(seen[name], "in-octets"),
                dropped_packets=_number(seen[name], "out-discards"),
                is_carrying=seen[name].findtext(f"{{{INTERFACES}}}oper-status") == "up",
            )
            for (node, link), name in self.interfaces.items()
            if name in seen
        ]

    async def withdraw(self, circuit: str) -> None:
        """As `tieline.ports.Circuits`."""
        async with self._lock:
            await asyncio.to_thread(self._commit, configuration((), (circuit,)))

    # -- in a thread ----------------------------------------------------------------------------------------------

    def _commit(self, config: str) -> None:
        from ncclient import NCClientError

        try:
            with self.manager.locked("candidate"):
                try:
                    self.manager.edit_config(target="candidate", config=config)
                    self.manager.validate("candidate")
                    self.manager.commit()
                except NCClientError:
                    self.manager.discard_changes()
                    raise
        except NCClientError as error:
            raise TielineError(
                "circuit_refused", f"the controller refused ({error}); its candidate was discarded"
            ) from error

    def _got(self, asked: Element) -> Any:
        from ncclient import NCClientError

        get: Callable[..., Any] = self.manager.get
        try:
            return get(filter=("subtree", tostring(asked, encoding="unicode"))).data_ele
        except NCClientError as error:
            raise TielineError("circuit_refused", f"the controller does not tell: {error}") from error


def _number(interface: Any, name: str) -> int:
    text = interface.findtext(f"{{{INTERFACES}}}statistics/{{{INTERFACES}}}{name}", "0")
    return int(text) if text.isdigit() else 0
