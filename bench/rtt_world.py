"""Round trips between 490 PlanetLab hosts, as measured (`bench/rtt/SOURCES.md`): whole, symmetric, in microseconds."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Micros: TypeAlias = NDArray[np.int64]
FILE = Path(__file__).parent / "rtt" / "PlanetLabData_1.gz"


@cache
def planetlab_us() -> Micros:
    """Round trip from each host (row) to each other (column); 0 on the diagonal."""
    with gzip.open(FILE, "rt") as lines:
        return np.rint(np.loadtxt(lines) * 1_000).astype(np.int64)
