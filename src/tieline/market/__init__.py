"""What it cost: usage becomes a charge once, in integers, and charges become bills that add up on both sides.

Decides: unit-seconds, charges, remainders, holds, when a run must stop for its budget, bills. Never: who pays when, in
which currency an account is kept, or what a price should be. Cost: a few integer operations a line.

>>> charge_of(unit_seconds=90, price_micro_cny_per_unit_hour=2_500_001)
Charge(charge_micro_cny=62500, remainder=90)
"""

from tieline.market.bill import bill_of, bills_of
from tieline.market.rating import Charge, charge_of, covered_s, hold_of, stop_after_s, unit_seconds_of, usage_of

__all__ = [
    "Charge",
    "bill_of",
    "bills_of",
    "charge_of",
    "covered_s",
    "hold_of",
    "stop_after_s",
    "unit_seconds_of",
    "usage_of",
]
