"""What a command beside a run said last reaches a caller that is slow, and what it left behind holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tieline.drivers.engines.beside import Beside
from tieline.drivers.siteprocess import shells
from tieline.model.relay import Channel, Purpose, Summons

WAIT_S = 60.0
TOLD = Summons(
    stream="0" * 32, site="cn.demo.lab7/site/gz1", purpose=Purpose.SHELL, run="j-1.1", who="alice", until_ms=0
)


class Slow:
    """A caller that takes a while over each message."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def send_bytes(self, data: bytes) -> None:
        await asyncio.sleep(0.1)
        self.heard.append(data)

    async def __aiter__(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield


@pytest.mark.parametrize(
    ("script", "least", "most"),
    [
        ("head -c 300000 /dev/zero; exit 3", 300_000, 300_000),
        ("echo kept; sleep 20 & exit 3", 5, 5),  # it holds the output, and says nothing
        ("yes & exit 3", 0, 3_000_000),  # it goes on saying something
    ],
)
def test_what_a_command_said_last_is_taken_and_what_it_left_behind_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, script: str, least: int, most: int
) -> None:
    monkeypatch.setattr(shells, "LAST_S", 0.05)
    monkeypatch.setattr(shells, "LAST_BYTES", 1_000_000)
    stream = Slow()
    how = Beside(words=("/bin/sh", "-c", script))
    code = asyncio.run(asyncio.wait_for(shells.carried(how, TOLD, stream), WAIT_S))  # type: ignore[arg-type]
    assert code == 3
    assert {each[0] for each in stream.heard} <= {Channel.OUTPUT}
    assert least <= sum(len(each) - 1 for each in stream.heard) <= most
