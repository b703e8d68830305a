"""Bill 账单: what one party owes or is owed over a time, with every line traceable to its run.

A bill repeats no event: each line names the run whose `run_ended` event carries the usage, and the sums are the sums of
the lines. The same lines appear once on an owner's bill and once on a user's, so that both sides add up to one figure.
"""

from __future__ import annotations

import msgspec

from tieline.model.job import Carried


class BillLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run's usage, rated: ``charge_micro_cny x 3600 + remainder == unit_seconds x price`` (micro-yuan-seconds)."""

    run: str
    job: str
    user: str
    owner: str
    pool: str
    unit: str  # accelerator, core, circuit or transfer
    unit_seconds: int
    price_micro_cny_per_unit_hour: int
    charge_micro_cny: int
    remainder: int  # micro-yuan-seconds, 0 <= remainder < 3600
    evidence: str = "measured"
    ended_ms: int = 0
    via: str = ""  # the exchange behind which it ran
    origin: str = ""  # the exchange whose user it was
    carried: Carried | None = None  # of a transfer: it is charged by its bytes
    disputed_micro_cny: int = 0  # claimed by `via` beyond the charge, or of the charge not accepted by `origin`


class BillSum(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the lines with one counterparty add up to."""

    party: str  # the user on an owner's bill, the owner on a user's
    run_count: int
    accelerator_seconds: int
    core_seconds: int
    charge_micro_cny: int
    remainder: int  # of all lines together; may exceed 3600, and is never turned into money
    disputed_micro_cny: int = 0


class Bill(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of one party's lines between two times, and their sums."""

    party: str
    side: str  # owner: what it earned; user: what it owes
    lines: tuple[BillLine, ...]
    sums: tuple[BillSum, ...]  # one for each counterparty, in order of name
    accelerator_seconds: int = 0
    core_seconds: int = 0
    charge_micro_cny: int = 0
    remainder: int = 0
    disputed_micro_cny: int = 0
    from_ms: int = 0  # first and last end of a run on it
    until_ms: int = 0
