"""Calendar: what is free and booked of each link over time, and what it costs."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.api.call import Call
from tieline.api.operation import operation
from tieline.exchange.bookings import ChangeTariff, ReadCalendar
from tieline.model.booking_api import CalendarView, TariffBody
from tieline.model.tariff import Tariff

Ms = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]


class CalendarQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of it."""

    link: Annotated[str, msgspec.Meta(max_length=200, description="only this link; without one, all of them")] = ""
    from_ms: Annotated[Ms, msgspec.Meta(description="from then; 0: from now")] = 0
    until_ms: Annotated[Ms, msgspec.Meta(description="until then; 0: as many slots as columns")] = 0
    columns: Annotated[int, msgspec.Meta(ge=1, le=2_016, description="at most so many; slots are put together")] = 48


@operation("GET", "/v1/calendar", tag="network", errors=("not_admitted", "not_found", "too_large"))
async def read_calendar(call: Call, query: CalendarQuery) -> CalendarView:
    """Rates of both directions of each link: what there is, what circuits and transfers hold, what is free.

    It says how much is booked and not by whom.
    """
    command = ReadCalendar(
        actor=call.actor, link=query.link, from_ms=query.from_ms, until_ms=query.until_ms, columns=query.columns
    )
    shown: CalendarView = await call.platform.ask(command)
    return shown


@operation("GET", "/v1/tariff", tag="network")
async def read_tariff(call: Call) -> Tariff:
    """What bytes and rates cost now, by class and hour."""
    return call.platform.view.network.tariff


@operation(
    "POST",
    "/v1/tariff",
    tag="network",
    is_change=True,
    example={
        "tariff": {
            "deadline_micro_cny_per_gb": 20_000,
            "circuit_micro_cny_per_gbps_hour": 30_000_000,
            "hours": [{"begin_s": 79_200, "end_s": 21_600, "permille": 400}],
        }
    },
)
async def change_tariff(call: Call, body: TariffBody) -> Tariff:
    """New prices for what is ordered from now on; what is booked keeps its own."""
    taken: Tariff = await call.platform.ask(call.command(ChangeTariff, tariff=body.tariff, why=body.why))
    return taken
