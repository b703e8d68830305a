"""Receipts: what was really carried. Everything that is charged of the network rests on them, and on nothing else.

Who runs the network is believed as it says; a site at one end of a transfer too. The user of a transfer may say that it
moved its own bytes: that is its own word (declared), and never makes them cheaper for being late.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tieline.exchange.bookings import TakeReceipt, keeps_to_job, refused, sees_booking
from tieline.exchange.commands import Decision
from tieline.exchange.permission import no_such
from tieline.exchange.view import View
from tieline.model.booking_api import ReceiptView
from tieline.model.circuit import Circuit, CircuitState, Diversity, Receipt
from tieline.model.error import TielineError
from tieline.model.event import CircuitChanged, Events, ReceiptStored, TransferChanged
from tieline.model.evidence import Evidence
from tieline.model.job import Usage
from tieline.model.party import Actor, Role
from tieline.model.reason import Reason
from tieline.model.transfer import Transfer, TransferState
from tieline.network.tariff import (
    FULL_PERMILLE,
    WHOLE,
    WORTH_OF_A_SECOND,
    carried_by,
    metered_spans,
    metered_transfer,
)
from tieline.ports import Ids

replace = msgspec.structs.replace
SKEW_MS: Final = 60_000  # that a clock elsewhere may be ahead
LONGEST_MS: Final = 31 * 86_400_000  # that one receipt may cover
MOST_SKIPPED: Final = 1_000  # numbers that may be left out: nobody uses up all that are left for others


def take_receipt(view: View, command: TakeReceipt, now_ms: int, ids: Ids) -> Decision:
    """Meter what was seen, once: a number that is not above the newest changes nothing."""
    receipt, network = command.receipt, view.network
    found: Transfer | Circuit | None = network.transfers.get(receipt.subject) or network.circuits.get(receipt.subject)
    if found is None:
        raise no_such("live transfer or circuit", receipt.subject)
    receipt, is_users = _believed(view, command.actor, found, receipt)
    _check_times(receipt, now_ms)
    # What its user says is numbered by itself: it never stands in the way of what a site or an operator saw.
    is_apart = isinstance(found, Transfer) and not is_users
    if receipt.seq <= (found.measured_seq if is_apart and isinstance(found, Transfer) else found.seq):
        return Decision((), _said(found, receipt, is_known=True))
    if receipt.seq > found.seq + MOST_SKIPPED:
        message = f"{receipt.seq} is more than {MOST_SKIPPED:,} above the newest receipt, {found.seq}"
        raise TielineError("invalid_request", message, where="receipt.seq")
    if isinstance(found, Transfer):
        return _of_transfer(view, found, receipt, now_ms, is_users=is_users)
    return _of_circuit(view, found, receipt, now_ms)


def _believed(view: View, actor: Actor, found: Transfer | Circuit, receipt: Receipt) -> tuple[Receipt, bool]:
    """The receipt with the evidence that the caller's word is worth, and whether it is its user's word.

    Raises `not_found`, `forbidden`.
    """
    if not keeps_to_job(actor, found):
        raise no_such("live transfer or circuit", receipt.subject)
    if actor.has(Role.ADMIN, Role.OPERATOR):
        return receipt, False
    if isinstance(found, Transfer) and actor.has(Role.SITE) and actor.name in ends_of(view, found):
        return receipt, False
    if not sees_booking(view, actor, found):
        raise no_such("live transfer or circuit", receipt.subject)
    if not isinstance(found, Transfer) or actor.name != found.user or actor.has(Role.AUDITOR):
        raise TielineError("forbidden", f"what is seen of `{found.id}` is for who runs the network to say")
    return replace(receipt, evidence=Evidence.DECLARED), True


def ends_of(view: View, transfer: Transfer) -> tuple[str, ...]:
    """The sites at both ends, whether they were named or their nodes were."""
    order, sites = transfer.order, view.network.site_of
    return (order.source, order.target, sites.get(order.source, ""), sites.get(order.target, ""))


def _check_times(receipt: Receipt, now_ms: int) -> None:
    if receipt.begun_ms > receipt.ended_ms:
        raise TielineError("invalid_request", "it ended before it began", where="receipt.ended_ms")
    if receipt.ended_ms > now_ms + SKEW_MS:
        ahead_s = (receipt.ended_ms - now_ms) // 1_000
        raise TielineError("invalid_request", f"it ends {ahead_s:,} s from now", where="receipt.ended_ms")
    if receipt.ended_ms - receipt.begun_ms > LONGEST_MS:
        raise TielineError("invalid_request", "it covers more than 31 days", where="receipt.begun_ms")


def _said(found: Transfer | Circuit, receipt: Receipt, *, is_known: bool = False) -> ReceiptView:
    return ReceiptView(
        subject=found.id,
        seq=receipt.seq,
        state=found.state.value,
        moved_bytes=found.moved_bytes if isinstance(found, Transfer) else 0,
        charged_micro_cny=found.charged_micro_cny,
        is_known=is_known,
    )


# -- transfers --------------------------------------------------------------------------------------------------------


def _of_transfer(view: View, before: Transfer, receipt: Receipt, now_ms: int, *, is_users: bool) -> Decision:
    heard = receipt
    if receipt.evidence is Evidence.DECLARED and before.order.deadline_ms:
        heard = replace(receipt, ended_ms=min(receipt.ended_ms, before.order.deadline_ms))
    after = replace(metered_transfer(before, heard), changed_ms=now_ms)
    if not is_users:
        after = replace(after, measured_seq=receipt.seq)
    promised = before.priced_bytes or before.order.size_bytes
    if after.moved_bytes >= promised:
        after = replace(after, state=TransferState.ARRIVED, short_bytes=before.order.size_bytes - promised)
    elif before.state is TransferState.BOOKED and after.moved_bytes:
        after = replace(after, state=TransferState.MOVING)
    usage = Usage(
        run=after.id,
        job=after.order.job,
        user=after.user,
        owner=view.prefix,
        pool="",
        unit="transfer",
        unit_count=1,
        duration_ms=max(0, receipt.ended_ms - after.begun_ms),
        unit_seconds=0,
        price_micro_cny_per_unit_hour=0,
        charge_micro_cny=after.charged_micro_cny,
        remainder=0,
        evidence=receipt.evidence.value,
        ended_ms=after.line_ms,
        project=after.project,
        carried=carried_by(after),
    )
    more = after.charged_micro_cny - before.charged_micro_cny
    why = "arrived" if after.state is TransferState.ARRIVED else f"receipt {receipt.seq}"
    stored = ReceiptStored(receipt=receipt, usage=usage, charged_micro_cny=more)
    return Decision((stored, TransferChanged(transfer=after, why=why)), _said(after, receipt))


# -- circuits ---------------------------------------------------------------------------------------------------------


def _of_circuit(view: View, before: Circuit, receipt: Receipt, now_ms: int) -> Decision:
    _check_path(before, receipt)
    events: list[Events] = []
    after = before
    for step in metered_spans(before, receipt):
        more = step.charged_micro_cny - after.charged_micro_cny
        usage = _line_of(view, after, step, receipt)
        if usage is not None or not events:
            events.append(ReceiptStored(receipt=receipt, usage=usage, charged_micro_cny=more))
        after = step
    state, reasons = _state_of(after, receipt)
    after = replace(after, state=state, reasons=reasons, receipt=receipt, changed_ms=now_ms)
    events.append(CircuitChanged(circuit=after, why=f"receipt {receipt.seq}: {state.value}"))
    return Decision(tuple(events), _said(after, receipt))


def _line_of(view: View, before: Circuit, after: Circuit, receipt: Receipt) -> Usage | None:
    """The usage line that a part of a receipt makes or goes on with."""
    meter = after.meter
    if not meter.line or (meter.line, meter.proven_ms) == (before.meter.line, before.meter.proven_ms):
        return None
    charge, remainder = divmod(meter.worth // WORTH_OF_A_SECOND * meter.price_micro_cny_per_hour, 3_600)
    return Usage(
        run=f"{after.id}.{meter.line}",
        job=after.job,
        user=after.user,
        owner=view.prefix,
        pool="",
        unit="circuit",
        unit_count=1,
        duration_ms=meter.proven_ms,
        unit_seconds=meter.worth // WORTH_OF_A_SECOND,
        price_micro_cny_per_unit_hour=meter.price_micro_cny_per_hour,
        charge_micro_cny=charge,
        remainder=remainder,
        evidence=receipt.evidence.value,
        ended_ms=meter.line_ms,
        project=after.project,
    )


def _check_path(circuit: Circuit, receipt: Receipt) -> None:
    """A proven path is one of those that the circuit was given. Raises `not_admitted` (receipt_path)."""
    if not receipt.is_path_proven:
        return
    for route in (circuit.route, circuit.spare):
        if route is not None and sorted(route.links) == sorted(receipt.path):
            return
    booked = ", ".join(circuit.route.links)[:200] if circuit.route is not None else "none"
    said = ", ".join(receipt.path)[:200] or "none"
    raise refused((Reason(code="receipt_path", values={"said": said, "booked": booked}),))


def _state_of(circuit: Circuit, receipt: Receipt) -> tuple[CircuitState, tuple[Reason, ...]]:
    """How a circuit stands by what was seen of it."""
    if circuit.route is None:
        return CircuitState.DOWN, circuit.reasons
    if any(window.from_ms <= receipt.ended_ms < window.until_ms for window in circuit.paused):
        return CircuitState.PAUSED, circuit.reasons
    if not receipt.is_path_proven:
        why = Reason(code="circuit_unproven", values={"seq": receipt.seq})
        return (CircuitState.DEGRADED if receipt.goodput_bps else CircuitState.DOWN), (why,)
    if receipt.goodput_bps * WHOLE < receipt.computed_bps * FULL_PERMILLE:
        values: dict[str, int | str] = {"goodput_bps": receipt.goodput_bps, "computed_bps": receipt.computed_bps}
        return CircuitState.DEGRADED, (Reason(code="circuit_slow", values=values),)
    if receipt.probe_bytes and receipt.probe_bytes < circuit.order.mtu_bytes:
        values = {"probe_bytes": receipt.probe_bytes, "asked_bytes": circuit.order.mtu_bytes}
        return CircuitState.DEGRADED, (Reason(code="circuit_small_packets", values=values),)
    is_whole = circuit.order.diversity is Diversity.NONE or circuit.spare is not None
    is_first = sorted(circuit.route.links) == sorted(receipt.path)
    if is_whole and is_first:
        return CircuitState.UP, ()
    return CircuitState.DEGRADED, (Reason(code="circuit_on_spare" if is_whole else "circuit_spare_lost"),)
