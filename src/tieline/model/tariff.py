"""Tariff: what an operator asks for bytes and rates. Prices are whole micro CNY, factors a thousandth."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.transfer import TrafficClass

Price = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Permille = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
SecondOfDay = Annotated[int, msgspec.Meta(ge=0, le=86_400)]


class Hours(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hours of every day with a factor: a discount at night, or a shared window for classes that share what is idle."""

    begin_s: SecondOfDay  # of the day; an end before the beginning is on the next day
    end_s: SecondOfDay
    permille: Permille
    classes: tuple[TrafficClass, ...] = ()  # none: all of them


class Tariff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of one operator."""

    deadline_micro_cny_per_gb: Price = 0
    best_effort_micro_cny_per_gb: Price = 0
    circuit_micro_cny_per_gbps_hour: Price = 0
    spare_permille: Permille = 500  # of a circuit's price, for a spare route
    late_permille: Permille = 500  # of a transfer's price, for bytes that arrive after the deadline
    hours: Annotated[tuple[Hours, ...], msgspec.Meta(max_length=64)] = ()
    utc_offset_s: Annotated[int, msgspec.Meta(ge=-50_400, le=50_400)] = 28_800
