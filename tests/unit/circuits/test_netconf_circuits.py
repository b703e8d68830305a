"""NETCONF by written exchanges: what ncclient sends is compared with the file, what it hears is read from there.

No device answered these: they were written after RFC 6241 and the slice model. They hold the driver to its words
and order (lock, edit, validate, commit; discard where something was refused), not a vendor to anything.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from fabric_world import circuit
from ncclient.capabilities import Capabilities
from ncclient.devices.default import DefaultDeviceHandler
from ncclient.manager import Manager
from ncclient.transport.session import Session

from tieline.drivers.circuits.netconf import NetconfCircuits
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.model.topology import Line

FOLDER = Path(__file__).parents[2] / "recordings/controllers"
CAPABILITIES = (
    "urn:ietf:params:netconf:base:1.1",
    "urn:ietf:params:netconf:capability:candidate:1.0",
    "urn:ietf:params:netconf:capability:validate:1.1",
)


def canonical(xml: str) -> str:
    return ET.canonicalize(re.sub(r'message-id="[^"]*"', "", xml), strip_text=True, rewrite_prefixes=True)


class Written(Session):
    """A session whose other side is a file of questions and answers, one after the other."""

    def __init__(self, name: str) -> None:
        super().__init__([])
        self._device_handler = DefaultDeviceHandler({"name": "default"})
        self._server_capabilities = Capabilities(CAPABILITIES)
        self._connected = True
        parts = (FOLDER / f"{name}.xml").read_text().split("<!-- exchange -->")[1:]
        self.exchanges = [part.split("<!-- answer -->") for part in parts]

    @property
    def connected(self):
        return True

    def send(self, message):
        expected, answer = self.exchanges.pop(0)
        assert canonical(message) == canonical(expected)
        number = re.search(r'message-id="([^"]*)"', message).group(1)
        self._dispatch_message(answer.strip().replace("MESSAGE-ID", number))

    def close(self):
        self._connected = False


def driver(name: str) -> tuple[NetconfCircuits, Written]:
    session = Written(name)
    made = Manager(session, session._device_handler, timeout=10)
    return NetconfCircuits(made, {("a", "ab"): "eth1", ("b", "ab"): "eth9"}), session


def test_circuits_are_one_commit():
    made, session = driver("netconf-applied")
    applied = asyncio.run(made.apply([circuit("k-1", latency_us=4_000), circuit("k-2", "ad", rate=2_500_000)]))
    assert applied.circuits == ["k-1", "k-2"]
    assert applied.evidence is Evidence.DECLARED
    assert session.exchanges == []


def test_what_a_controller_refuses_is_discarded_whole():
    made, session = driver("netconf-refused")
    with pytest.raises(TielineError, match="no resource for 10 Mbps") as caught:
        asyncio.run(made.apply([circuit("k-1")]))
    assert caught.value.code == "circuit_refused"
    assert session.exchanges == []  # discard-changes and unlock came


def test_a_controllers_word_is_declared_and_proves_nothing():
    made, session = driver("netconf-told")

    async def story():
        return await made.verify(circuit("k-1"), 4), await made.counters(), await made.withdraw("k-1")

    receipt, counters, _ = asyncio.run(story())
    assert (receipt.seq, receipt.evidence, receipt.is_path_proven) == (4, Evidence.DECLARED, False)
    assert receipt.lost_ppm == 0
    assert [(each.node, each.sent_bytes, each.received_bytes, each.is_carrying) for each in counters] == [
        ("a", 1_500_000, 90_000, True)
    ]
    assert session.exchanges == []


def test_a_line_that_is_a_model_is_not_sent():
    made, session = driver("netconf-applied")
    with pytest.raises(TielineError, match="is a model"):
        asyncio.run(made.apply([circuit(line=Line.PON)]))
    assert len(session.exchanges) == 5
