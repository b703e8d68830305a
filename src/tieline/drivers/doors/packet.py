"""Packet: one echo, over UDP or TCP. Whoever does not hold the session's key can neither ask nor answer.

::

    "TL" version kind | session (8) | seq (8) | asked (8) | heard (8) | said (8) | padding | tag (16)
      asked, heard, said   nanoseconds since the epoch by the clocks of the asker, the door, the door
      tag                  keyed BLAKE2b over all before it (RFC 7693)

An answer is as long as the ask, or shorter where the ask wants that (to find the path MTU of one direction): a door
cannot be used to make traffic larger.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from enum import IntEnum
from typing import NamedTuple

HEAD = struct.Struct("!2sBB8sQqqq")
MAGIC, VERSION = b"TL", 1
TAG_BYTES = 16
LEAST_BYTES = HEAD.size + TAG_BYTES
MOST_BYTES = 9_188  # 9,216 with the headers of IPv4 and UDP: the largest frames that networks carry
KEY_BYTES = 32


class Kind(IntEnum):
    """What a packet is."""

    ASK = 1  # answer as long as this
    ASK_SHORT = 2  # answer as short as can be
    ANSWER = 3


class Packet(NamedTuple):
    """One packet, its tag checked."""

    kind: Kind
    session: bytes
    seq: int
    asked_ns: int
    heard_ns: int
    said_ns: int
    size_bytes: int


def session_of(data: bytes) -> bytes | None:
    """Which session a packet claims; None for what has not the form of one."""
    if not LEAST_BYTES <= len(data) <= MOST_BYTES or data[:2] != MAGIC or data[2] != VERSION:
        return None
    return data[4:12]


def packed(
    key: bytes, kind: Kind, session: bytes, seq: int, asked_ns: int, heard_ns: int = 0, said_ns: int = 0, size: int = 0
) -> bytes:
    """A packet of ``size`` bytes, `LEAST_BYTES` at least."""
    head = HEAD.pack(MAGIC, VERSION, kind, session, seq, asked_ns, heard_ns, said_ns)
    body = head.ljust(max(size, LEAST_BYTES) - TAG_BYTES, b"\0")
    return body + _tag(key, body)


def unpacked(key: bytes, data: bytes) -> Packet | None:
    """What a packet says; None for one whose tag the holder of ``key`` did not make."""
    if session_of(data) is None or not hmac.compare_digest(_tag(key, data[:-TAG_BYTES]), data[-TAG_BYTES:]):
        return None
    _, _, kind, session, seq, asked_ns, heard_ns, said_ns = HEAD.unpack_from(data)
    if kind not in (Kind.ASK, Kind.ASK_SHORT, Kind.ANSWER):
        return None
    return Packet(Kind(kind), session, seq, asked_ns, heard_ns, said_ns, len(data))


def _tag(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=TAG_BYTES, key=key).digest()
