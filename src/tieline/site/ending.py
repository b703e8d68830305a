"""Endings: what the terminal report of a run says, made from how its nodes ended and why it was stopped."""

from __future__ import annotations

from tieline.model.job import Output
from tieline.model.protocol import Ended
from tieline.model.quantity import show_duration, show_size
from tieline.model.reason import Reason
from tieline.ports import Ending
from tieline.site.state import Held

EXIT_CODES_MOST = 100  # reported; a larger gang's codes are those of its first ranks


def report_of(
    held: Held, endings: tuple[Ending, ...], outputs: tuple[Output, ...] = (), failure: Reason | None = None
) -> Ended:
    """The one terminal report of a run whose nodes are gone."""
    state, reason = _verdict(held, endings)
    if state == "succeeded" and failure is not None:
        state, reason = "failed", failure
    began = min((ending.started_ms for ending in endings if ending.started_ms), default=0)
    over = max((ending.ended_ms for ending in endings), default=0)
    return Ended(
        run=held.run,
        epoch=held.offer.epoch,
        first_run=held.offer.first_run,
        state=state,
        exit_codes=tuple(ending.exit_code for ending in endings[:EXIT_CODES_MOST]),
        duration_ms=max(0, over - began) if began else 0,
        cpu_ms=sum(ending.cpu_ms for ending in endings),
        max_memory_bytes=sum(ending.max_memory_bytes for ending in endings),
        outputs=outputs,
        checkpoint=held.checkpoint,
        reason=reason,
    )


def _verdict(held: Held, endings: tuple[Ending, ...]) -> tuple[str, Reason | None]:
    first = first_failure(endings)
    if held.is_fenced:
        return "stopped", held.reason or Reason(code="lost", values={"run": held.run, "site": ""})
    if first is None and endings and not held.is_stopping:
        return "succeeded", None
    if first is not None and first.limit and not held.is_stopping:
        state = "stopped" if first.limit == "time" else "failed"
        return state, Reason(code="limit_reached", values={"limit": first.limit, "value": _limit_of(held, first.limit)})
    if held.is_stopping or not endings:
        return "stopped", held.reason
    assert first is not None
    if first.phase == "setup":
        return "failed", Reason(code="setup_failed", values={"exit_code": first.exit_code, "pool": held.offer.pool})
    if first.exit_code > 128:
        return "failed", Reason(code="signal", values={"signal": first.exit_code - 128, "pool": held.offer.pool})
    return "failed", Reason(code="exit_code", values={"exit_code": first.exit_code, "pool": held.offer.pool})


def first_failure(endings: tuple[Ending, ...]) -> Ending | None:
    """The node that failed first: what the others ended of is its doing."""
    return min((ending for ending in endings if ending.exit_code), key=lambda ending: ending.ended_ms, default=None)


def _limit_of(held: Held, limit: str) -> str:
    resources = held.offer.task.resources[held.offer.alternative]
    if limit == "time":
        return show_duration(held.offer.stop_after_s * 1_000_000)
    if limit == "memory":
        return show_size(held.offer.memory_bytes // held.nodes)
    return show_size(resources.disk_bytes)


def time_reached(held: Held) -> Reason:
    """Why a run whose time is over is being stopped."""
    return Reason(code="limit_reached", values={"limit": "time", "value": _limit_of(held, "time")})


def could_not_start(held: Held, reason: Reason) -> Ended:
    """The owner's side could not start it: nothing is billed."""
    return Ended(
        run=held.run,
        epoch=held.offer.epoch,
        state="failed",
        reason=reason,
        checkpoint=held.checkpoint,
        is_start_failure=True,
    )


def lost_here(run: str, epoch: int, site: str, pool: str) -> Ended:
    """The exchange believes a run to be here of which nothing is known here: it is not, and bills nothing."""
    reason = Reason(code="lost", values={"site": site, "run": run, "pool": pool})
    return Ended(run=run, epoch=epoch, state="failed", reason=reason, is_start_failure=True)
