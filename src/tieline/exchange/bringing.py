"""Bringing: the transfers of a run's data, booked with the run, on its site's order, and ended with it.

::

    placed --> a transfer for each dataset that is elsewhere, then the run is offered: its order has their segments
    it is accepted --> the site brings what has a place, at the booked times and rates; once the run runs, that is over
    the run runs --> the work reads all other data at its times and rates; then the transfer has served
    the run is refused, lost, over --> its transfers are cancelled; the next run books its own

Where the record of a dataset names no place, the site tells the work which transfers are its own, so that it can have
its bytes moved so (`TIELINE_TRANSFERS`, `tieline transfer run --transfer`), which receipts then say. A job with a
deadline books transfers with one: they are not moved out of their time for anybody. All others are best effort.
"""

from __future__ import annotations

import msgspec

from tieline.exchange.arrivals import price_of
from tieline.exchange.network import Network
from tieline.exchange.view import View
from tieline.model.event import Events, TransferChanged
from tieline.model.job import Job, Run, RunState
from tieline.model.plan import Candidate
from tieline.model.transfer import Transfer, TransferOrder, TransferState
from tieline.ports import Ids

replace = msgspec.structs.replace

MOST_LIVE = 10_000  # transfers at once, above which data comes as fast as it can
MOST_OVER = 1_000  # transfers that one tick ends; the others follow at the next


def brought(
    view: View,
    job: Job,
    run: Run,
    candidate: Candidate,
    now_ms: int,
    ids: Ids,
    room_micro_cny: int | None = None,
) -> list[TransferChanged]:
    """The bookings that bring a run's data, as placing counted on them. The calendar holds them until `give_back`.

    A dataset between sites that the topology does not have is not booked, nor one that finds no room any more, nor one
    that costs more than ``room_micro_cny``, which the project has beside the run (None: no bound), leaves beside its
    other bookings: it comes as fast as it can.
    """
    from tieline.network.arrival import arrival

    network = view.network
    due_ms = due_of(job)
    events: list[TransferChanged] = []
    if room_micro_cny is not None and candidate.transfers:
        room_micro_cny -= sum(
            each.price_micro_cny - each.charged_micro_cny
            for each in (*network.transfers.values(), *network.held)
            if each.project == job.project
        )
    for trip in candidate.transfers if network.topology is not None else ():
        if len(network.transfers) >= MOST_LIVE:
            break
        calendar = network.calendar_at(now_ms)
        assert calendar is not None
        if calendar.waiting().total:
            break  # who was booked before a failure gets his room first
        found = arrival(calendar, trip.source, candidate.site, trip.size_bytes, now_ms=now_ms)
        if found is None or not found.segments:
            continue
        order = TransferOrder(
            source=trip.source,
            target=candidate.site,
            size_bytes=trip.size_bytes,
            deadline_ms=due_ms if found.arrives_ms <= due_ms else 0,
            label=trip.data[:200],
            job=job.id,
        )
        price = price_of(network, calendar, order, found)
        if room_micro_cny is not None:
            if price > max(0, room_micro_cny):
                continue
            room_micro_cny -= price
        transfer = Transfer(
            id=ids.new("transfer"),
            order=order,
            user=job.user,
            segments=found.segments,
            price_micro_cny=price,
            arrives_ms=found.arrives_ms,
            late_permille=network.tariff.late_permille,
            project=job.project,
            booked_ms=now_ms,
            changed_ms=now_ms,
            run=run.id,
        )
        network.hold(transfer)
        events.append(TransferChanged(transfer=transfer, why=f"brings data to {run.id}"))
    return events


def due_of(job: Job) -> int:
    """Until when the data has to be there so that the longest run ends before the deadline; 0: whenever."""
    task = job.task
    return job.submitted_ms + (task.deadline_s - task.max_duration_s) * 1_000 if task.deadline_s else 0


def transfers_of(network: Network, run: Run) -> tuple[Transfer, ...]:
    """The live transfers that bring a run's data, in the order in which they were booked."""
    names = network.brings.get(run.job, ())
    return tuple(each for name in names if (each := network.transfers[name]).run == run.id)


def brought_due(view: View, now_ms: int) -> list[Events]:
    """Transfers whose run is over, or has had the time that was booked for its data: they end."""
    events: list[Events] = []
    network = view.network
    for names in network.brings.values():
        for name in names:
            transfer = network.transfers[name]
            state = _over(view, transfer, now_ms) if transfer.run and len(events) < MOST_OVER else None
            if state is not None:
                ended = replace(transfer, state=state, changed_ms=now_ms)
                why = "its time is over" if state is TransferState.ARRIVED else "its run is over"
                events.append(TransferChanged(transfer=ended, why=why))
    return events


def _over(view: View, transfer: Transfer, now_ms: int) -> TransferState | None:
    run = view.runs.get(transfer.run)
    if run is None:
        return TransferState.CANCELLED
    if run.state is not RunState.RUNNING:
        return None
    if _is_laid(view, transfer):  # all of it is there, brought or found there: its room is for others
        return TransferState.ARRIVED
    return TransferState.ARRIVED if 0 < transfer.arrives_ms <= now_ms else None


def _is_laid(view: View, transfer: Transfer) -> bool:
    """Whether the site had to have the data there before the run could start."""
    job = view.jobs.peek(transfer.order.job)
    for use in job.task.data if job is not None else ():
        if use.id[:200] == transfer.order.label and use.path:
            fact = view.supply.datasets.get(use.id)
            return fact is not None and bool(fact.spec.fetched)
    return False
