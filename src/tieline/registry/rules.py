"""How a rule of `model/rule.py` refuses: one error code, one reason code, one sentence made from it."""

from __future__ import annotations

from datetime import UTC, datetime

from tieline.model.error import TielineError
from tieline.model.reason import Reason, Value, sentence
from tieline.model.rule import RULES

SKEW_S = 300  # how far a writer's clock may be from the verifier's, either way
__all__ = ["RULES", "SKEW_S", "refused", "shown_time"]


def refused(rule: str, where: str = "", **values: Value) -> TielineError:
    """The refusal that ``rule`` makes of the thing named ``where``; the caller raises it."""
    assert rule in RULES, rule
    reason = Reason(code=rule, values=values)
    return TielineError("record_refused", sentence(reason), reasons=(reason,), where=where)


def shown_time(seconds: int) -> str:
    """Seconds since the epoch as RFC 3339 text in UTC."""
    if not 0 <= seconds <= 253_402_300_799:
        return f"{seconds} s since 1970"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
