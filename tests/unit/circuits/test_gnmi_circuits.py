"""gNMI by written exchanges: pygnmi speaks gRPC with a server on this machine that answers from a file.

No device answered these: they were written after the gNMI specification and the slice model.
"""

from __future__ import annotations

import asyncio
import json
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from fabric_world import circuit
from google.protobuf.json_format import MessageToDict, ParseDict
from pygnmi.client import gNMIclient
from pygnmi.spec.v080 import gnmi_pb2, gnmi_pb2_grpc

from tieline.drivers.circuits.gnmi import GnmiCircuits
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence

FOLDER = Path(__file__).parents[2] / "recordings/controllers"


def plain(message) -> object:
    """A message as data, values decoded."""
    tree = MessageToDict(message)
    for update in tree.get("replace", ()):
        value = next(each.val.json_ietf_val for each in message.replace)
        del update["val"]
        update["json"] = json.loads(value)
    return tree


class Written(gnmi_pb2_grpc.gNMIServicer):
    def __init__(self, name: str) -> None:
        self.exchanges = json.loads((FOLDER / f"{name}.json").read_text())["exchanges"]
        self.wrong: list[object] = []

    def Capabilities(self, request, context):  # noqa: N802
        return ParseDict(
            {"supportedEncodings": ["JSON_IETF"], "gNMIVersion": "0.8.0", "supportedModels": []},
            gnmi_pb2.CapabilityResponse(),
        )

    def Set(self, request, context):  # noqa: N802
        return self._answer(request, context, gnmi_pb2.SetResponse())

    def Get(self, request, context):  # noqa: N802
        return self._answer(request, context, gnmi_pb2.GetResponse())

    def _answer(self, request, context, into):
        exchange = self.exchanges.pop(0)
        if plain(request) != exchange["asked"]:
            self.wrong.append(plain(request))
        if "refused" in exchange:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, exchange["refused"])
        for notice in exchange["answered"].get("notification", ()):
            for update in notice["update"]:
                text = json.dumps(update.pop("json")).encode()
                made = into.notification.add().update.add()
                ParseDict(update, made)
                made.val.json_ietf_val = text
        return into


@contextmanager
def controller(name: str):
    server = grpc.server(futures.ThreadPoolExecutor(2))
    written = Written(name)
    gnmi_pb2_grpc.add_gNMIServicer_to_server(written, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with gNMIclient(target=("127.0.0.1", port), insecure=True, gnmi_timeout=30) as client:
            yield GnmiCircuits(client, {("a", "ab"): "eth1", ("b", "ab"): "eth9"})
        assert written.wrong == []
        assert written.exchanges == []
    finally:
        server.stop(None).wait()


def test_circuits_are_set_asked_for_and_deleted():
    with controller("gnmi-told") as driver:

        async def story():
            applied = await driver.apply([circuit("k-1", latency_us=4_000)])
            receipt, counters = await driver.verify(circuit("k-1"), 2), await driver.counters()
            await driver.withdraw("k-1")
            return applied, receipt, counters

        applied, receipt, counters = asyncio.run(story())
    assert applied.circuits == ["k-1"]
    assert (receipt.evidence, receipt.is_path_proven, receipt.lost_ppm) == (Evidence.DECLARED, False, 0)
    assert [(each.node, each.sent_bytes, each.is_carrying) for each in counters] == [("a", 1_500_000, True)]


def test_what_a_controller_refuses_is_said():
    with controller("gnmi-refused") as driver, pytest.raises(TielineError) as caught:
        asyncio.run(driver.apply([circuit("k-1")]))
    assert caught.value.code == "circuit_refused"


def test_a_name_that_is_no_name_is_not_sent():
    with pytest.raises(TielineError, match="cannot be said"):
        asyncio.run(GnmiCircuits(None).withdraw("k]/x"))  # type: ignore[arg-type]
