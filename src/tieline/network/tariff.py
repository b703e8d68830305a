"""Tariff: what bytes and rates cost, and what is charged of it.

A transfer is priced by bytes and class, hour by hour; a circuit by rate and hour. Hours of the day have factors (a
discount at night, a *shared window* in which several buy what is idle at a lower factor); every link of a path adds
its own price. A price is fixed when something is booked and never grows: being laid elsewhere is the network's
affair.

Charges follow receipts: bytes that arrived, time in which the path was proven and the rate was there. What was
booked and not carried is not charged, and no charge passes the booked price. Money is whole micro CNY; what rounding
leaves of a usage line is charged with its next receipt, so a line says the same however its receipts were cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import msgspec

from tieline.model.circuit import Circuit, CircuitOrder, Diversity, Former, Meter, Receipt
from tieline.model.job import Carried
from tieline.model.tariff import Hours, Tariff
from tieline.model.topology import Window
from tieline.model.transfer import Segment, TrafficClass, Transfer, TransferOrder

if TYPE_CHECKING:
    from tieline.network.slots import Wires

DAY_MS: Final = 86_400_000
HOUR_S: Final = 3_600
GB: Final = 10**9
GBPS: Final = 10**9
WHOLE: Final = 1_000  # permille
WORTH_OF_A_SECOND: Final = 1_000 * WHOLE * WHOLE
MOST_FORMER: Final = 16  # prices of a circuit that wait for a receipt
FULL_PERMILLE: Final = 970  # a circuit that carries so much of what it can is charged as whole


def transfer_price(tariff: Tariff, wires: Wires, order: TransferOrder, segments: Sequence[Segment]) -> int:
    """Micro CNY for the bytes of these segments; what is not booked yet costs the plain price."""
    kind = TrafficClass.DEADLINE if order.deadline_ms else TrafficClass.BEST_EFFORT
    plain = tariff.deadline_micro_cny_per_gb if order.deadline_ms else tariff.best_effort_micro_cny_per_gb
    total, booked = 0, 0
    for segment in segments:
        unit = plain + sum(wires.topology.links[wires.link[name]].price_micro_cny_per_gb for name in segment.path)
        for begin_ms, end_ms, permille in hours_of(
            tariff.hours, tariff.utc_offset_s, kind, segment.from_ms, segment.until_ms
        ):
            total += segment.rate_bps * (end_ms - begin_ms) * unit * permille
        booked += segment.rate_bps * (segment.until_ms - segment.from_ms)
    asked = order.size_bytes * 8_000
    if booked > asked:  # whole rates carry a little more than was asked
        total = total * asked // booked
    if not order.deadline_ms:
        total += max(0, asked - booked) * plain * WHOLE
    return -(-total // (8_000 * GB * WHOLE))


def circuit_price(tariff: Tariff, order: CircuitOrder) -> int:
    """Micro CNY for an hour of the least rate, at the plain hour; a spare route costs its share."""
    share = WHOLE if order.diversity is Diversity.NONE else WHOLE + tariff.spare_permille
    total = order.rate_bps * tariff.circuit_micro_cny_per_gbps_hour * share
    return -(-total // (GBPS * WHOLE))


def spare_price(tariff: Tariff, order: CircuitOrder) -> int:
    """The part of this that is for the spare path; it is not charged while there is none."""
    return circuit_price(tariff, order) - circuit_price(
        tariff, msgspec.structs.replace(order, diversity=Diversity.NONE)
    )


def metered_transfer(transfer: Transfer, receipt: Receipt) -> Transfer:
    """The transfer with what a receipt adds; more than was asked for costs nothing."""
    size, due_ms = transfer.order.size_bytes, transfer.order.deadline_ms
    more = min(receipt.moved_bytes, size - transfer.moved_bytes)
    is_late = bool(due_ms) and receipt.ended_ms > due_ms
    metered = msgspec.structs.replace(
        transfer,
        moved_bytes=transfer.moved_bytes + more,
        late_bytes=transfer.late_bytes + (more if is_late else 0),
        seq=max(transfer.seq, receipt.seq),
        begun_ms=transfer.begun_ms or receipt.begun_ms,
        line_ms=transfer.line_ms or receipt.ended_ms,
    )
    return msgspec.structs.replace(metered, charged_micro_cny=transfer_charge(carried_by(metered)))


def carried_by(transfer: Transfer) -> Carried:
    """What a usage line says of a transfer."""
    return Carried(
        size_bytes=transfer.priced_bytes or transfer.order.size_bytes,
        moved_bytes=transfer.moved_bytes,
        late_bytes=transfer.late_bytes,
        late_permille=transfer.late_permille,
        price_micro_cny=transfer.price_micro_cny,
    )


def transfer_charge(carried: Carried) -> int:
    """Micro CNY for everything that arrived, in all; late bytes at their share of the price."""
    worth = (carried.moved_bytes - carried.late_bytes) * WHOLE + carried.late_bytes * carried.late_permille
    return min(carried.price_micro_cny, carried.price_micro_cny * worth // (carried.size_bytes * WHOLE))


def resized_price(before: Circuit, after: Circuit, now_ms: int) -> Circuit:
    """The resized circuit that knows what it cost until now: time of which no receipt has come is charged at that."""
    until_ms, price = now_ms, before.price_micro_cny_per_hour
    former = before.former
    if len(former) >= MOST_FORMER:  # the two oldest become one, at the price that is less
        cheaper = min(former[:2], key=lambda each: each.price_micro_cny_per_hour)
        former = (msgspec.structs.replace(cheaper, until_ms=former[1].until_ms), *former[2:])
    was = Former(
        until_ms=until_ms,
        price_micro_cny_per_hour=price,
        spare_micro_cny_per_hour=before.spare_micro_cny_per_hour,
        hours=before.hours,
        utc_offset_s=before.utc_offset_s,
    )
    return msgspec.structs.replace(after, former=(*former, was))


def metered_spans(circuit: Circuit, receipt: Receipt) -> list[Circuit]:
    """The circuit as a receipt meters it, step by step: the time before each resize at the price that held then."""
    steps: list[Circuit] = []
    now, begin_ms = circuit, receipt.begun_ms
    for was in circuit.former:
        end_ms = min(was.until_ms, receipt.ended_ms)
        if begin_ms < end_ms and now.meter.until_ms < end_ms:
            priced = msgspec.structs.replace(
                now,
                price_micro_cny_per_hour=was.price_micro_cny_per_hour,
                spare_micro_cny_per_hour=was.spare_micro_cny_per_hour,
                hours=was.hours,
                utc_offset_s=was.utc_offset_s,
            )
            metered = metered_circuit(priced, msgspec.structs.replace(receipt, begun_ms=begin_ms, ended_ms=end_ms))
            now = msgspec.structs.replace(
                now, meter=metered.meter, seq=metered.seq, charged_micro_cny=metered.charged_micro_cny
            )
            steps.append(now)
            begin_ms = end_ms
    if begin_ms < receipt.ended_ms or not steps:
        steps.append(metered_circuit(now, msgspec.structs.replace(receipt, begun_ms=begin_ms)))
    last = steps[-1]
    left = tuple(was for was in circuit.former if was.until_ms > last.meter.until_ms)
    return [*steps[:-1], msgspec.structs.replace(last, former=left)]


def metered_circuit(circuit: Circuit, receipt: Receipt) -> Circuit:
    """The circuit with what a receipt adds.

    Only time in its windows whose path was proven counts, none of it twice, nothing while it was paused, and where less
    was carried than could be, that share. Without the spare path that was ordered, all the time, its part of the price
    is not charged. A day (UTC) has a usage line of its own, and so has a price; a line is charged by its whole seconds.
    """
    meter = circuit.meter
    begin_ms, day = max(receipt.begun_ms, meter.until_ms), receipt.ended_ms // DAY_MS
    proven_ms, worth = _proven(circuit, receipt, begin_ms) if receipt.is_path_proven else (0, 0)
    price = circuit.price_micro_cny_per_hour
    is_alone = circuit.spare is None or begin_ms < circuit.spare_from_ms
    if is_alone and circuit.order.diversity is not Diversity.NONE:
        price -= circuit.spare_micro_cny_per_hour
    if proven_ms and (not meter.line or (meter.day, meter.price_micro_cny_per_hour) != (day, price)):
        meter = Meter(
            line=meter.line + 1,
            day=day,
            price_micro_cny_per_hour=price,
            line_ms=receipt.ended_ms,
        )
    worth += meter.worth
    charge = worth // WORTH_OF_A_SECOND * meter.price_micro_cny_per_hour // HOUR_S
    after = msgspec.structs.replace(
        meter,
        until_ms=max(receipt.ended_ms, circuit.meter.until_ms),
        proven_ms=meter.proven_ms + proven_ms,
        worth=worth,
        charged_micro_cny=charge,
    )
    total = circuit.charged_micro_cny + charge - meter.charged_micro_cny
    return msgspec.structs.replace(circuit, meter=after, seq=receipt.seq, charged_micro_cny=total)


def _proven(circuit: Circuit, receipt: Receipt, begin_ms: int) -> tuple[int, int]:
    """Milliseconds in the windows, and what they are worth."""
    permille = WHOLE
    if receipt.computed_bps and receipt.goodput_bps * WHOLE < receipt.computed_bps * FULL_PERMILLE:
        permille = receipt.goodput_bps * WHOLE // receipt.computed_bps
    proven_ms = worth = 0
    for window in circuit.windows:
        for low, high in _without(
            circuit.paused, max(begin_ms, window.from_ms), min(receipt.ended_ms, window.until_ms)
        ):
            hours = hours_of(circuit.hours, circuit.utc_offset_s, TrafficClass.PROTECTED, low, high)
            proven_ms += high - low
            worth += sum((end - begin) * factor for begin, end, factor in hours) * permille
    return proven_ms, worth


def _without(paused: Sequence[Window], from_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
    """A span without the windows in it, which are in order of time and apart."""
    for window in paused:
        if from_ms < min(window.from_ms, until_ms):
            yield from_ms, min(window.from_ms, until_ms)
        from_ms = max(from_ms, window.until_ms)
    if from_ms < until_ms:
        yield from_ms, until_ms


def hours_of(
    hours: Sequence[Hours], utc_offset_s: int, kind: TrafficClass, from_ms: int, until_ms: int
) -> list[tuple[int, int, int]]:
    """A span cut where a factor changes: from, until, permille. Of several hours that hold the lowest counts."""
    mine = [hour for hour in hours if not hour.classes or kind in hour.classes]
    shift = utc_offset_s * 1_000
    edges = {from_ms, until_ms}
    for day in range((from_ms + shift) // DAY_MS, (until_ms + shift) // DAY_MS + 1):
        midnight = day * DAY_MS - shift
        edges |= {midnight + at * 1_000 for hour in mine for at in (hour.begin_s, hour.end_s)}
    cuts = sorted(edge for edge in edges if from_ms <= edge <= until_ms)
    return [
        (low, high, min((h.permille for h in mine if _holds(h.begin_s, h.end_s, low + shift)), default=WHOLE))
        for low, high in pairwise(cuts)
    ]


def _holds(begin_s: int, end_s: int, local_ms: int) -> bool:
    at = local_ms % DAY_MS
    if begin_s <= end_s:
        return begin_s * 1_000 <= at < end_s * 1_000
    return at >= begin_s * 1_000 or at < end_s * 1_000
