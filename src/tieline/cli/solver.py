"""Solver: what a solver prints by itself goes to stderr, so that data on stdout stays data.

HiGHS, as scipy brings it, prints a line of its own from C now and then, however quiet it is asked to be. It goes past
`sys.stdout`, and C keeps it in a buffer of its own: so the descriptor is what is turned, and the buffer emptied first.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STDOUT, STDERR = 1, 2


@contextmanager
def solving() -> Iterator[None]:
    """While this is open, what C prints is on stderr."""
    c = ctypes.CDLL(None)
    sys.stdout.flush()
    c.fflush(None)
    kept = os.dup(STDOUT)
    try:
        os.dup2(STDERR, STDOUT)
        yield
    finally:
        c.fflush(None)
        os.dup2(kept, STDOUT)
        os.close(kept)
