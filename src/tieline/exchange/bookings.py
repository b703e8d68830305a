"""Bookings: what may be asked of the calendar, who may ask, and what all of it has in common.

The calendar is the view's. A question copies what it tries on, so nothing changes before its events are applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from tieline.exchange.commands import Command
from tieline.exchange.permission import no_such
from tieline.exchange.projects import project_for
from tieline.exchange.view import View
from tieline.model.circuit import Circuit, CircuitOrder, Receipt
from tieline.model.error import TielineError
from tieline.model.party import Actor, Role
from tieline.model.reason import Reason, sentence
from tieline.model.tariff import Tariff
from tieline.model.transfer import Segment, Transfer, TransferOrder

if TYPE_CHECKING:
    from tieline.network.calendar import Calendar

Booked = TypeVar("Booked", Transfer, Circuit)
MOST_TRANSFERS: Final = 10_000  # live at once
MOST_CIRCUITS: Final = 2_000
WHOLE: Final = 1_000  # permille
HINT = ("tieline calendar",)


class OrderTransfer(Command, frozen=True, kw_only=True):
    """Book room for bytes. A dry run changes nothing. Reply: TransferView."""

    order: TransferOrder
    project: str = ""
    is_dry_run: bool = False


class CancelTransfer(Command, frozen=True, kw_only=True):
    """Reply: Transfer."""

    transfer: str


class LookAtCalendar(Command, frozen=True, kw_only=True):
    """No events. A copy of the calendar, to plan a night on it elsewhere. Reply: Calendar."""


class BookNight(Command, frozen=True, kw_only=True):
    """Book a batch as it was planned; ``planned`` are the segments of each order by its place. Reply: NightView."""

    orders: tuple[TransferOrder, ...]
    planned: Mapping[int, tuple[Segment, ...]]
    bound_bytes: int = 0  # no plan whatever carries more
    project: str = ""
    is_dry_run: bool = False


class OrderCircuit(Command, frozen=True, kw_only=True):
    """Book a circuit. A dry run changes nothing. Reply: CircuitView."""

    order: CircuitOrder
    project: str = ""
    is_dry_run: bool = False


class ResizeCircuit(Command, frozen=True, kw_only=True):
    """Another rate on the same route. Reply: CircuitView."""

    circuit: str
    rate_bps: int


class CancelCircuit(Command, frozen=True, kw_only=True):
    """Reply: Circuit."""

    circuit: str


class ReadCalendar(Command, frozen=True, kw_only=True):
    """No events. What is free and booked of each link, or of one. Reply: CalendarView."""

    link: str = ""
    from_ms: int = 0
    until_ms: int = 0
    columns: int = 48


class ChangeTariff(Command, frozen=True, kw_only=True):
    """New prices, for what is ordered from now on. Reply: Tariff."""

    tariff: Tariff
    why: str = ""


class TakeReceipt(Command, frozen=True, kw_only=True):
    """What was seen of a transfer or a circuit. Reply: ReceiptView."""

    receipt: Receipt


def calendar_of(view: View, now_ms: int) -> Calendar:
    """The calendar. Raises TielineError `not_admitted` (network_none) where no topology is known."""
    calendar = view.network.calendar_at(now_ms)
    if calendar is None:
        raise refused((Reason(code="network_none"),), "tieline network import FILE")
    return calendar


def order_calendar(view: View, user: str, project: str, now_ms: int, count: int = 1) -> Calendar:
    """The calendar, for so many new bookings. Raises `not_admitted`: while others wait to be mended (network_mending),
    and beyond what one user or one project may have booked at once (booking_user, booking_project)."""
    calendar = calendar_of(view, now_ms)
    check_mended(calendar)
    network, limits = view.network, view.limits
    for code, of, name, most in (
        ("booking_user", network.bookings_of, user, limits.user_bookings),
        ("booking_project", network.project_bookings, project, limits.project_bookings),
    ):
        if name and of[name] + count > most:
            values: dict[str, int | str] = {"name": name, "live": of[name], "asked": count, "most": most}
            raise refused((Reason(code=code, values=values),), "tieline transfer list", "tieline circuit list")
    return calendar


def check_mended(calendar: Calendar) -> None:
    """Refuse to book more while what was booked before still waits for its room: who came first is served first."""
    if waiting := calendar.waiting().total:
        raise refused((Reason(code="network_mending", values={"waiting": waiting}),), "tieline network show")


def refused(reasons: Sequence[Reason], *hints: str) -> TielineError:
    """The calendar's no, with the bound."""
    return TielineError("not_admitted", sentence(reasons[0]), reasons=tuple(reasons), hints=hints or HINT)


def sees_booking(view: View, actor: Actor, booked: Transfer | Circuit) -> bool:
    """Its user, the members of its project, and who runs or audits the network; a run, what brings its job's data."""
    if actor.project not in ("", booked.project) or not keeps_to_job(actor, booked):
        return False
    is_member = bool(booked.project) and view.members.role(actor, booked.project) is not None
    is_its = actor.name == booked.user or is_member
    return actor.has(Role.ADMIN, Role.OPERATOR, Role.AUDITOR) or (actor.has(Role.USER, Role.OWNER) and is_its)


def keeps_to_job(actor: Actor, booked: Transfer | Circuit) -> bool:
    """Whether a caller that is bound to one job has to do with ``booked``: its own user's transfer for that job."""
    if not actor.job:
        return True
    return isinstance(booked, Transfer) and booked.order.job == actor.job and booked.user == actor.name


def shown(view: View, booked: Booked) -> Booked:
    """A booking as it is shown: with a reason more while it waits to be mended."""
    if booked.id not in view.network.waiting:
        return booked
    return msgspec.structs.replace(booked, reasons=(Reason(code="booking_waits"), *booked.reasons))


def live_transfer(view: View, actor: Actor, name: str) -> Transfer:
    """A live transfer that the caller may change. Raises `not_found`, `forbidden`."""
    found = view.network.transfers.get(name)
    if found is None or not sees_booking(view, actor, found):
        raise no_such("live transfer", name)
    return _changeable(actor, found)


def live_circuit(view: View, actor: Actor, name: str) -> Circuit:
    """A live circuit that the caller may change. Raises `not_found`, `forbidden`."""
    found = view.network.circuits.get(name)
    if found is None or not sees_booking(view, actor, found):
        raise no_such("live circuit", name)
    return _changeable(actor, found)


def _changeable(actor: Actor, booked: Booked) -> Booked:
    if actor.name != booked.user and not actor.has(Role.ADMIN, Role.OPERATOR):
        raise TielineError("forbidden", f"`{booked.id}` belongs to `{booked.user}`")
    return booked


def check_label(label: str) -> None:
    """Raises `invalid_request` for what is not one line that can be shown."""
    if label and not label.isprintable():
        raise TielineError("invalid_request", "the label is not one line that can be shown", where="label")


def booking_project(view: View, actor: Actor, asked: str) -> str:
    """The project that a booking counts for; as of jobs."""
    return project_for(view, actor, asked, ())


def check_money(view: View, project: str, price_micro_cny: int, *, but: str = "") -> None:
    """Refuse what a project cannot pay this month beside what is booked for it: transfers, and an hour of each circuit.

    Raises `not_admitted` (quota_money). ``but``: the circuit that is priced anew.
    """
    if not project or view.shares is None:
        return
    left = view.shares.left(project).micro_cny
    if left is None:
        return
    booked = sum(
        each.price_micro_cny - each.charged_micro_cny
        for each in view.network.transfers.values()
        if each.project == project
    )
    booked += sum(
        dearest(each) for each in view.network.circuits.values() if each.project == project and each.id != but
    )
    if price_micro_cny + booked > left:
        bound = view.projects[project].quota.micro_cny
        used = bound - left + booked
        values: dict[str, int | str] = {"project": project, "used_micro_cny": used, "bound_micro_cny": bound}
        raise refused((Reason(code="quota_money", values=values),), f"tieline project show {project}")


def dearest(circuit: Circuit) -> int:
    """What a circuit's dearest hour costs."""
    most = max((each.permille for each in circuit.hours), default=WHOLE)
    return -(-circuit.price_micro_cny_per_hour * max(most, WHOLE) // WHOLE)
