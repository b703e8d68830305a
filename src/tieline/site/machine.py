"""The site's side of the protocol: ``step(state, stimulus, now_ms) -> (state, instructions)``, pure and synchronous.

What it holds to, whatever the exchange, the network or a crash does:

- An accepted run is journalled before it is reported, and starts only after its outcome says ``ok``.
- No device, core or byte of memory is held for two runs. The owner's rules are decided here, last.
- Of one job only the newest epoch starts; an older one here is ended first. Two members of a gang, of one epoch, live
  side by side; neither starts before the exchange says that every member of it is accepted.
- A run that began ends in one terminal report, which is repeated until its outcome came. Any stimulus may come twice,
  late, or in another order.

Cost: linear in the runs held here (tens to thousands); about 20 us for an offer at a site with 100 runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tieline.model import protocol as wire
from tieline.model.protocol import Accepted, Ended, Offer, Refused, Stop
from tieline.model.reason import Reason
from tieline.site import stimulus as seen
from tieline.site.admission import admit
from tieline.site.ending import could_not_start, lost_here, report_of, time_reached
from tieline.site.instruction import Adopt, Forget, HandOver, Instruction, Send, Start
from tieline.site.pool import Pool
from tieline.site.state import DONE_MOST, STARTED, Done, Entry, Held, Phase, SiteState
from tieline.site.stimulus import Stimulus
from tieline.site.turn import Turn, accepted_of, checkpoint_of, halt_of, replace, started_of

HOLD_LEAST_MS = 5_000


def step(state: SiteState, stimulus: Stimulus, now_ms: int) -> tuple[SiteState, list[Instruction]]:
    """What follows from ``stimulus`` at ``now_ms``. ``state`` stays as it was."""
    turn = Turn(state, now_ms)
    HANDLERS[type(stimulus)](turn, stimulus)
    return turn.state, turn.instructions


def next_ms(state: SiteState) -> int | None:
    """When `Ticked` next has something to do; None: never."""
    times = [held.stop_at_ms for held in state.runs.values() if held.may_run and not held.is_stopping]
    if state.is_connected:
        times += [_hold_until_ms(state, held) for held in state.runs.values() if _is_unanswered(held)]
    return min((time for time in times if time), default=None)


def recover(
    site: str, pools: Iterable[Pool], entries: Iterable[Entry], now_ms: int
) -> tuple[SiteState, list[Instruction]]:
    """The state after a crash, from what the journal holds, and what must be watched again.

    Runs that had begun to launch wait for a new outcome (secrets are in no journal); it adopts what was started.
    """
    runs: dict[str, Held] = {}
    done: dict[str, Ended] = {}
    instructions: list[Instruction] = []
    for entry in entries:
        if isinstance(entry, Done):
            done[entry.ended.run] = entry.ended
            continue
        held = entry
        if held.phase is Phase.LAUNCHING:
            held = replace(held, phase=Phase.ACCEPTING, offered_ms=now_ms)
        elif held.phase in (Phase.RUNNING, Phase.FINISHING):
            held = replace(held, phase=Phase.RUNNING)
            instructions.append(Adopt(held=held))
        if held.may_run and held.is_stopping:
            instructions.append(halt_of(held))
        runs[held.run] = held
    state = SiteState(
        site=site,
        pools={pool.id: pool for pool in pools},
        runs=runs,
        done=dict(list(done.items())[-DONE_MOST:]),
    )
    return state, instructions


# -- what the exchange says --------------------------------------------------------------------------------------------


def _welcomed(turn: Turn, welcome: seen.Welcomed) -> None:
    """Reconcile: what the exchange believes to be here, and what is."""
    turn.change(is_connected=True, lease_ms=welcome.lease_ms, is_drained_by_exchange=welcome.is_draining)
    live = {order.run: order for order in welcome.orders if isinstance(order, Offer)}
    for held in tuple(turn.state.runs.values()):
        if held.run not in live:
            turn.fence(held)
    for report in turn.state.owed.values():
        turn.do(Send(report=report))
    for order in welcome.orders:
        if isinstance(order, Offer):
            _reconcile(turn, order)
        elif isinstance(order, Stop):
            _stop(turn, order)


def _reconcile(turn: Turn, offer: Offer) -> None:
    if offer.run not in turn.state.owed:
        _offer(turn, offer)


def _ordered(turn: Turn, ordered: seen.Ordered) -> None:
    order = ordered.order
    if isinstance(order, Offer):
        _offer(turn, order)
    elif isinstance(order, Stop):
        _stop(turn, order)
    elif isinstance(order, wire.Drain):
        turn.change(is_drained_by_exchange=order.is_draining)


def _offer(turn: Turn, offer: Offer) -> None:
    """Take it or refuse it; an offer that is known is answered as before.

    One that says that the run was accepted comes after a reconnect, and when the whole gang of the run is booked.
    """
    state = turn.state
    is_new = offer.state == "offered"
    held = state.runs.get(offer.run)
    if held is not None:
        if not is_new and _is_unanswered(held):  # the exchange counts on it: let it answer, however long that took
            held = turn.hold_longer(held)
        turn.say_again(held)
        return
    if (ended := state.done.get(offer.run) or state.owed.get(offer.run)) is not None:
        turn.owe(ended)
        return
    if not is_new:
        turn.owe(lost_here(offer.run, offer.epoch, state.site, offer.pool))
        return
    if offer.ttl_ms <= 0:
        return  # too late: it has gone elsewhere
    admission = admit(state, offer)
    if isinstance(admission, Reason):
        turn.do(Send(report=Refused(run=offer.run, epoch=offer.epoch, reason=admission)))
        return
    for older in tuple(state.older(offer)):
        turn.fence(older)
    held = Held(
        offer=offer,
        phase=Phase.ACCEPTING,
        engine=admission.isolation.engine,
        sandbox=admission.isolation.sandbox,
        network=admission.isolation.network,
        devices=admission.devices,
        offered_ms=turn.now_ms,
    )
    turn.put(held, is_durable=True)
    turn.do(Send(report=accepted_of(held)))


def _stop(turn: Turn, stop: Stop) -> None:
    held = turn.state.runs.get(stop.run)
    if held is None:
        if (ended := turn.state.done.get(stop.run) or turn.state.owed.get(stop.run)) is not None:
            turn.owe(ended)
        return
    if held.offer.epoch != stop.epoch:
        return
    if stop.is_fenced:
        turn.fence(held)
    elif held.phase is Phase.ENDED:
        turn.say_again(held)
    else:
        turn.halt(held, None)


def _answered(turn: Turn, answered: seen.Answered) -> None:
    report, outcome = answered.report, answered.outcome
    if isinstance(report, Ended):
        _taken(turn, report)
    elif isinstance(report, wire.Quoted | Refused):
        return
    elif outcome.is_ok:
        if isinstance(report, Accepted):
            _accepted(turn, report, outcome.sealed)
    elif outcome.what == "wait" and isinstance(report, Accepted):
        return  # held until the offer comes again, or the hold is over
    elif (held := turn.state.runs.get(report.run)) is not None and held.offer.epoch == report.epoch:
        turn.fence(held)


def _accepted(turn: Turn, report: Accepted, sealed: str) -> None:
    """The run is ours: begin, once no older run of its job is left here."""
    held = turn.state.runs.get(report.run)
    if held is None:  # given up meanwhile, and the exchange counts on it
        if report.run not in turn.state.done and report.run not in turn.state.owed:
            turn.owe(lost_here(report.run, report.epoch, turn.state.site, ""))
        return
    if held.phase is not Phase.ACCEPTING:
        turn.say_again(held)
        return
    if held.is_stopping or any(turn.state.older(held.offer)):
        return
    held = turn.put(replace(held, phase=Phase.LAUNCHING, launched_ms=held.launched_ms or turn.now_ms))
    turn.do(Start(held=held, sealed=sealed))


def _taken(turn: Turn, report: Ended) -> None:
    """The terminal report has an outcome, whichever: the run is history."""
    state = turn.state
    if report.run in state.owed:
        turn.change(owed={run: ended for run, ended in state.owed.items() if run != report.run})
    held = state.runs.get(report.run)
    if held is None or held.phase is not Phase.ENDED:
        return
    done = {**state.done, report.run: report}
    for run in list(done)[: max(0, len(done) - DONE_MOST)]:
        del done[run]
    turn.change(runs={run: other for run, other in state.runs.items() if run != report.run}, done=done)
    turn.do(Forget(run=report.run, done=Done(ended=report)))


def _fenced(turn: Turn, fenced: seen.Fenced) -> None:
    for run in fenced.runs:
        held = turn.state.runs.get(run)
        if held is not None:
            turn.fence(held)


def _cut(turn: Turn, _: seen.Cut) -> None:
    turn.change(is_connected=False)


# -- what the nodes do -------------------------------------------------------------------------------------------------


def _nodes_started(turn: Turn, started: seen.NodesStarted) -> None:
    held = turn.state.runs.get(started.run)
    if held is None or held.phase is not Phase.LAUNCHING:
        return
    held = turn.put(replace(held, phase=Phase.RUNNING, started_ms=held.started_ms or turn.now_ms))
    if not held.is_fenced:
        turn.do(Send(report=started_of(held)))


def _start_failed(turn: Turn, failed: seen.StartFailed) -> None:
    held = turn.state.runs.get(failed.run)
    if held is not None and held.phase in STARTED:
        turn.end(held, report_of(held, ()) if held.is_stopping else could_not_start(held, failed.reason))


def _nodes_ended(turn: Turn, ended: seen.NodesEnded) -> None:
    held = turn.state.runs.get(ended.run)
    if held is None or not held.may_run:
        return
    report = report_of(held, ended.endings)
    if held.is_fenced or not ended.endings:
        turn.end(held, report)
        return
    held = turn.put(replace(held, phase=Phase.FINISHING))
    is_cut_short = report.state == "stopped" and report.reason is not None
    turn.do(
        HandOver(
            held=held,
            endings=ended.endings,
            with_outputs=report.state == "succeeded" or is_cut_short,
            with_checkpoint=report.state != "succeeded",
        )
    )
    turn.wake_newer(held)


def _checkpoint_kept(turn: Turn, kept: seen.CheckpointKept) -> None:
    held = turn.state.runs.get(kept.run)
    if held is None or held.phase is Phase.ENDED or held.is_fenced or held.checkpoint == kept.sha256:
        return
    held = turn.put(replace(held, checkpoint=kept.sha256, checkpoint_bytes=kept.size_bytes))
    if held.phase in STARTED:  # later the terminal report says it
        turn.do(Send(report=checkpoint_of(held)))


def _handed_over(turn: Turn, over: seen.HandedOver) -> None:
    held = turn.state.runs.get(over.run)
    if held is not None and held.phase is Phase.FINISHING:
        turn.end(held, report_of(held, over.endings, over.outputs, over.failure))


def _not_journalled(turn: Turn, failed: seen.NotJournalled) -> None:
    """What is not on the disk is not accepted."""
    held = turn.state.runs.get(failed.run)
    if held is None or not _is_unanswered(held):
        return
    turn.drop(held)
    reason = Reason(code="offer_wrong", values={"why": failed.why[:500]})
    turn.do(Send(report=Refused(run=held.run, epoch=held.offer.epoch, reason=reason)))


# -- what the owner and the clock do -----------------------------------------------------------------------------------


def _owner_drained(turn: Turn, drained: seen.OwnerDrained) -> None:
    turn.change(is_drained_by_owner=drained.is_draining)


def _owner_stopped(turn: Turn, stopped: seen.OwnerStopped) -> None:
    held = turn.state.runs.get(stopped.run)
    if held is not None:
        turn.halt(held, Reason(code="reclaimed", values={"why": stopped.why}))


def _ticked(turn: Turn, _: seen.Ticked) -> None:
    for held in tuple(turn.state.runs.values()):
        if held.may_run and not held.is_stopping and 0 < held.stop_at_ms <= turn.now_ms:
            turn.halt(held, time_reached(held))
        elif _is_unanswered(held) and turn.now_ms >= _hold_until_ms(turn.state, held) and turn.state.is_connected:
            turn.drop(held)
            if held.offer.part is not None:  # the exchange may have it as accepted, and the others wait for it
                turn.owe(lost_here(held.run, held.offer.epoch, turn.state.site, held.offer.pool))


def _is_unanswered(held: Held) -> bool:
    return held.phase is Phase.ACCEPTING and not held.launched_ms


def _hold_until_ms(state: SiteState, held: Held) -> int:
    """How long capacity is held for an exchange that does not answer: by then its own booking has long expired."""
    return held.offered_ms + max(held.offer.ttl_ms, HOLD_LEAST_MS) + state.lease_ms


HANDLERS: dict[type[Stimulus], Callable[[Turn, Any], None]] = {
    seen.Welcomed: _welcomed,
    seen.Ordered: _ordered,
    seen.Answered: _answered,
    seen.Fenced: _fenced,
    seen.Cut: _cut,
    seen.NodesStarted: _nodes_started,
    seen.StartFailed: _start_failed,
    seen.NodesEnded: _nodes_ended,
    seen.CheckpointKept: _checkpoint_kept,
    seen.HandedOver: _handed_over,
    seen.NotJournalled: _not_journalled,
    seen.OwnerDrained: _owner_drained,
    seen.OwnerStopped: _owner_stopped,
    seen.Ticked: _ticked,
}
