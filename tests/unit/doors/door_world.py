"""A door on loopback, an exchange's key that gives passes, and a holder."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tieline.drivers.clock import SystemClock
from tieline.drivers.doors.door import Door, chunks_of
from tieline.drivers.doors.visitor import Visitor
from tieline.model.door import Pass, Right
from tieline.registry import Key
from tieline.registry.passes import issued
from tieline.site.configuration import DoorConfig

EXCHANGE = Key(b"e" * 32)
SITE = Key(b"s" * 32)
HOLDER = Key(b"h" * 32)
DOOR_SITE = "cn.demo.lab7/site/gz1"
HOLDER_SITE = "cn.demo.lab8/site/sh1"
KID = "cn.demo.lab8#site"
CLOCK = SystemClock()


def a_pass(key: Key = EXCHANGE, **fields: Any) -> str:
    now_ms = CLOCK.now_ms()
    values: dict[str, Any] = {
        "id": os.urandom(12).hex(),
        "door": DOOR_SITE,
        "holder": HOLDER_SITE,
        "public": HOLDER.public,
        "rights": (Right.ECHO, Right.RATE, Right.READ, Right.WRITE),
        "from_ms": now_ms,
        "until_ms": now_ms + 120_000,
        "most_bytes": 50_000_000,
    }
    return issued(Pass(**{**values, **fields}), key, "cn.demo#exchange")


def visitor(door: Door, text: str = "", key: Key = HOLDER) -> Visitor:
    return Visitor(door.url, text or a_pass(), SITE.public, key, KID, CLOCK)


@asynccontextmanager
async def open_door(folder: Path, **config: Any) -> AsyncIterator[Door]:
    made = DoorConfig(**{"bytes_per_s": 10**9, **config})
    door = await Door(made, DOOR_SITE, SITE, EXCHANGE.public, CLOCK, chunks_of(folder, made)).open()
    try:
        yield door
    finally:
        await door.close()
