"""Nearby: whom to measure next to find the nearest of many sites with few probes.

Sites measure each other, and two that stand side by side look alike from everywhere: where p measured the place, a site
s beside the place has nearly the same round trip to p. So sites are ranked by the mean of these differences, after each
probe anew (the idea of landmarks; Ng and Zhang, INFOCOM 2002). The first probes go to two sites that are in the middle
of the others. It only chooses: a measurement decides.

Of 490 PlanetLab hosts, 100 of them sites, ten such probes misjudge about one user in a hundred, and ten by lot half of
them (`bench/circle_accuracy`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

Between = Callable[[str, str], int | None]  # round trip between two sites, microseconds; None: unknown
LANDMARKS: Final = 2
MOST_MIDDLE: Final = 200  # sites among which landmarks are sought
MOST_COMPARED: Final = 16  # probed sites that a site is compared with, the nearest first


def ranked(seen_us: Mapping[str, int], sites: Sequence[str], between: Between) -> list[str]:
    """``sites`` that are not in ``seen_us``, in the order in which to measure them.

    >>> far = {("a", "b"): 9, ("a", "c"): 2, ("b", "c"): 8}
    >>> between = lambda one, other: far[min(one, other), max(one, other)]
    >>> ranked({"a": 3}, ["b", "c"], between)
    ['c', 'b']
    """
    others = [site for site in sites if site not in seen_us]
    if not seen_us:
        first = landmarks(others, between)
        return first + [site for site in others if site not in first]
    compared = nearest(seen_us)

    def apart(site: str) -> tuple[bool, float, str]:
        known = [abs(seen_us[probe] - us) for probe in compared if (us := between(probe, site)) is not None]
        return not known, sum(known) / max(1, len(known)), site

    return sorted(others, key=apart)


def nearest(seen_us: Mapping[str, int]) -> list[str]:
    """The measured sites that others are compared with."""
    return sorted(seen_us, key=lambda site: (seen_us[site], site))[:MOST_COMPARED]


def looked_at(sites: Sequence[str]) -> list[str]:
    """Sites among which landmarks are sought: evenly many of all."""
    return sorted(sites)[:: -(-len(sites) // MOST_MIDDLE) or 1]


def landmarks(sites: Sequence[str], between: Between, count: int = LANDMARKS) -> list[str]:
    """Sites in the middle of the others: each lowers the sum of distances to the nearest landmark most."""
    looked = looked_at(sites)
    shortest: dict[str, int] = {}
    chosen: list[str] = []
    while len(chosen) < min(count, len(looked)):

        def left(site: str) -> tuple[int, int, str]:
            times = {other: us for other in looked if (us := _apart(site, other, between)) is not None}
            closer = {other: min(us, shortest.get(other, us)) for other, us in times.items()}
            kept = {other: us for other, us in shortest.items() if other not in closer}
            return len(looked) - len(closer) - len(kept), sum(closer.values()) + sum(kept.values()), site

        best = min((site for site in looked if site not in chosen), key=left)
        for other in looked:
            us = _apart(best, other, between)
            if us is not None:
                shortest[other] = min(us, shortest.get(other, us))
        chosen.append(best)
    return chosen


def _apart(one: str, other: str, between: Between) -> int | None:
    return 0 if one == other else between(one, other)
