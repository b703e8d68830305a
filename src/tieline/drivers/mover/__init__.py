"""Mover: bytes from one place to another, in chunks that are known by their hash.

::

    Source (about, read a range)  ->  lanes (a token bucket for each path)  ->  Target (put a chunk, finish)
                                            hash of every chunk, and of the whole at the end

What arrived before a crash is not asked for again. A target shows all of the bytes, verified, or none of them.
"""

from tieline.drivers.mover.address import Address, address_of
from tieline.drivers.mover.ends import About, Source, Target
from tieline.drivers.mover.moving import Moved, Terms, move
from tieline.drivers.mover.pacing import Lane, Schedule, lanes_of
from tieline.drivers.mover.progress import Progress

__all__ = [
    "About",
    "Address",
    "Lane",
    "Moved",
    "Progress",
    "Schedule",
    "Source",
    "Target",
    "Terms",
    "address_of",
    "lanes_of",
    "move",
]
