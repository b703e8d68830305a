"""The weights of the score: recorded with a decision, so that it can be replayed.

The score of a pool is money per hour of work (micro-yuan), and the lowest wins::

    hourly   = price x units                                    what the owner charges
    waiting  = data time x (hourly + hour_micro_cny)            the units stand booked and the asker waits meanwhile
    carriage = bytes moved x transfer_micro_cny_per_gb          what carrying them costs, and
               + price of the transfers by the tariff           what the network's operator asks
    score    = hourly + (waiting + carriage) / expected hours   spread over the work that follows

Expected hours are the task's ``max_duration``, or `expected_s` where it states none: so data that takes an hour to come
weighs little before a week of work and much before a minute of it. Data time is when the last byte would be there if
its transfer were booked now (where no topology is known: bytes over the rate) from the best source, one dataset after
another, and 0 where a copy is at the site.
"""

from __future__ import annotations

import msgspec


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Weights of the score; see the module."""

    hour_micro_cny: int = 1_000_000  # what an hour of waiting is worth to the asker, also where units cost nothing
    transfer_micro_cny_per_gb: int = 0  # nobody bills transfers yet
    expected_s: int = 3_600  # of a run that states no duration
