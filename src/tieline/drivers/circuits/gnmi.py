"""gNMI: circuits as slices of a controller (pygnmi). All of a call is one Set, which a target does whole or not at all.

Tested over gRPC on this machine with exchanges that were written down beforehand, not with a device.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tieline.drivers.circuits.slices import MODULE, slice_of
from tieline.drivers.circuits.told import told
from tieline.model.circuit import Circuit, Receipt
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.ports import Applied, PortCount

if TYPE_CHECKING:
    from pygnmi.client import gNMIclient

T = TypeVar("T")
ENCODING: Final = "json_ietf"


class GnmiCircuits:
    """Circuits of one controller. ``interfaces``: (node, link) -> what the target calls the port."""

    name = "gnmi"
    evidence = Evidence.DECLARED

    def __init__(self, client: gNMIclient, interfaces: Mapping[tuple[str, str], str] | None = None) -> None:
        self.client = client
        self.interfaces = dict(interfaces or {})
        self._lock = asyncio.Lock()

    async def apply(self, circuits: Sequence[Circuit]) -> Applied:
        """As `tieline.ports.Circuits`; the controller chooses the routes."""
        replaced = [(_path(circuit.id), slice_of(circuit)) for circuit in circuits]
        begun = time.perf_counter_ns()
        await self._asked(lambda: self.client.set(replace=replaced, encoding=ENCODING))
        took_us = (time.perf_counter_ns() - begun) // 1_000
        names = [circuit.id for circuit in circuits]
        return Applied(circuits=names, step_count=len(names), took_us=took_us, evidence=self.evidence)

    async def verify(self, circuit: Circuit, seq: int) -> Receipt:
        """As `tieline.ports.Circuits`: the controller's own word, which proves nothing."""
        path = f"{_path(circuit.id)}/status/oper-status/status"
        found = await self._values([path])
        if not found:
            raise TielineError("not_found", f"circuit `{circuit.id}` does not stand there", where=circuit.id)
        return told(circuit.id, seq, str(found[0]))

    async def counters(self) -> Sequence[PortCount]:
        """As `tieline.ports.Circuits`: ports whose names are known."""
        seen = []
        for (node, link), name in self.interfaces.items():
            state = await self._values([f"openconfig-interfaces:interfaces/interface[name={name}]/state"])
            if not state or not isinstance(state[0], Mapping):
                continue
            counters = state[0].get("counters", {})
            seen.append(
                PortCount(
                    link=link,
                    node=node,
                    sent_bytes=int(counters.get("out-octets", 0)),
                    received_bytes=int(counters.get("in-octets", 0)),
                    dropped_packets=int(counters.get("out-discards", 0)),
                    is_carrying=state[0].get("oper-status") == "UP",
                )
            )
        return seen

    async def withdraw(self, circuit: str) -> None:
        """As `tieline.ports.Circuits`."""
        path = _path(circuit)
        await self._asked(lambda: self.client.set(delete=[path], encoding=ENCODING))

    async def _values(self, paths: list[str]) -> list[Any]:
        answer = await self._asked(lambda: self.client.get(path=paths, encoding=ENCODING))
        notices = (answer or {}).get("notification", [])
        return [update["val"] for notice in notices for update in notice.get("update", ())]

    async def _asked(self, call: Callable[[], T]) -> T:
        from pygnmi.client import gNMIException

        async with self._lock:
            try:
                return await asyncio.to_thread(call)
            except gNMIException as error:
                raise TielineError("circuit_refused", f"the controller refused: {error}") from error


def _path(circuit: str) -> str:
    if not circuit or not frozenset(circuit).isdisjoint("[]/=\\"):
        raise TielineError("invalid_request", f"`{circuit}` cannot be said in a path of gNMI", where="id")
    return f"{MODULE}:network-slice-services/slice-service[id={circuit}]"
