"""Clock error: how far this machine's clock may be off, as the kernel's clock discipline says (adjtimex(2))."""

from __future__ import annotations

import ctypes

UNSYNCHRONISED = 0x0040  # STA_UNSYNC of <sys/timex.h>
ERROR = 5  # TIME_ERROR: nobody disciplines the clock


class _Timex(ctypes.Structure):
    """The head of ``struct timex``; the kernel writes 208 bytes."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    ]


def clock_error_us() -> int | None:
    """The most that the clock is off, in microseconds; None where nothing keeps it."""
    try:
        libc = ctypes.CDLL(None)
        said = _Timex()
        state = libc.adjtimex(ctypes.byref(said))
    except (OSError, AttributeError):
        return None
    if state < 0 or state == ERROR or said.status & UNSYNCHRONISED:
        return None
    return max(1, int(said.maxerror))
