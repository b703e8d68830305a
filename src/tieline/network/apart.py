"""Apart: distances along the great circle from one place to many at once; the same formula as `physics.distance_m`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tieline.model.topology import Place
from tieline.network.physics import EARTH_M


class Apart:
    """Places by their row; those that nobody states are nowhere (NaN)."""

    def __init__(self, places: Sequence[Place | None]) -> None:
        degrees = [(np.nan, np.nan) if each is None else (each.latitude_udeg, each.longitude_udeg) for each in places]
        radians = np.radians(np.array(degrees, float).reshape(-1, 2) / 1e6)
        self.latitude, self.longitude = radians[:, 0], radians[:, 1]

    def metres(self, here: Place) -> NDArray[np.float64]:
        """How far each of them is; NaN where that is not known."""
        latitude, longitude = np.radians(here.latitude_udeg / 1e6), np.radians(here.longitude_udeg / 1e6)
        half = np.sin((self.latitude - latitude) / 2) ** 2
        half += np.cos(latitude) * np.cos(self.latitude) * np.sin((self.longitude - longitude) / 2) ** 2
        found: NDArray[np.float64] = 2 * EARTH_M * np.arcsin(np.sqrt(np.minimum(1.0, half)))
        return found
