"""Caller: whose connection over loopback it is, as the kernel says."""

from __future__ import annotations

import contextlib
import socket
import sys

ESTABLISHED = "01"
MAPPED = "0" * 16 + f"{int.from_bytes(bytes((0, 0, 255, 255)), sys.byteorder):08X}"  # ::ffff:0:0/96 there


def caller_user(peer: tuple[str, int], own: tuple[str, int]) -> int:
    """The user of the socket at the other end of a connection over loopback, as /proc/net says; -1: it cannot be told,
    because it was closed meanwhile (older kernels then say 0)."""
    here, there = _hex(own), _hex(peer)
    mapped = f"{MAPPED}{there} {MAPPED}{here}"  # an IPv6 socket that calls an IPv4 address
    for table, wanted in (("tcp", f"{there} {here}"), ("tcp6", mapped)):
        with contextlib.suppress(OSError), open(f"/proc/net/{table}") as lines:
            for line in lines:
                if wanted in line:
                    fields = line.split()
                    return int(fields[7]) if fields[3] == ESTABLISHED or fields[7] != "0" else -1
    return -1


def _hex(where: tuple[str, int]) -> str:
    """As /proc/net writes an address: in the byte order of the machine."""
    number = int.from_bytes(socket.inet_aton(where[0]), sys.byteorder)
    return f"{number:08X}:{where[1]:04X}"
