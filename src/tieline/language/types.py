"""The types of the language: what a value is counted in, and which units a number may carry beside it."""

from __future__ import annotations

from enum import StrEnum

from tieline.model.quantity import (
    MONEY_MICRO_CNY,
    RATE_BPS,
    SIZE_BYTES,
    TIME_US,
    scaled,
    show_duration,
    show_money,
    show_size,
)


class Type(StrEnum):
    """What an attribute holds. Numbers are integers of one base unit; `unknown` is apart from every value."""

    TEXT = "text"
    WORDS = "words"  # a set of texts
    FLAG = "flag"  # true or false
    COUNT = "count"
    SHARE = "share"  # 0.97, kept in millionths
    MONEY = "money"  # micro-yuan
    SIZE = "size"  # bytes
    DURATION = "duration"  # microseconds
    RATE = "rate"  # bit/s
    INSTANT = "instant"  # milliseconds since the Unix epoch


UNITS: dict[Type, dict[str, int]] = {
    Type.COUNT: {"": 1},
    Type.SHARE: {"": 10**6},
    Type.MONEY: MONEY_MICRO_CNY,
    Type.SIZE: SIZE_BYTES,
    Type.DURATION: TIME_US,
    Type.RATE: RATE_BPS,
}
SUFFIX: dict[Type, str] = {  # of a field that holds such a value: units come last
    Type.MONEY: "_micro_cny",
    Type.SIZE: "_bytes",
    Type.DURATION: "_us",
    Type.RATE: "_bps",
    Type.INSTANT: "_ms",
    Type.SHARE: "_millionths",
}
EXAMPLE: dict[Type, str] = {
    Type.TEXT: '"a100"',
    Type.COUNT: "8",
    Type.SHARE: "0.97",
    Type.MONEY: "20 CNY",
    Type.SIZE: "24GB",
    Type.DURATION: "1ms",
    Type.RATE: "10Gbps",
    Type.INSTANT: '"2026-01-31"',
    Type.FLAG: "true",
}
NUMERIC = frozenset({*UNITS, Type.INSTANT})
RANKED_BASE: dict[Type, int] = {  # what one of them counts as in a ranking
    Type.COUNT: 1,
    Type.SHARE: 10**6,
    Type.MONEY: 10**6,  # CNY
    Type.SIZE: 10**9,  # GB
    Type.DURATION: 10**3,  # ms
    Type.RATE: 10**9,  # Gbps
    Type.INSTANT: 86_400_000,  # days
}


def read_number(kind: Type, number: str, unit: str) -> int:
    """The value of ``number`` with ``unit`` in base units. Raises ValueError that says what would be right.

    Counts, shares and money may stand without a unit (a bare price is in CNY); sizes, durations and rates may not,
    except zero, because a missing unit there is a factor of a thousand waiting to happen.
    """
    units = UNITS[kind]
    if kind is Type.COUNT and unit:
        raise ValueError(f"a count has no unit, `{unit[:20]}` was given")
    if not unit and kind in (Type.SIZE, Type.DURATION, Type.RATE):
        if float(number) == 0:
            return 0
        raise ValueError(f"a {kind} needs its unit: {', '.join(units)}")
    if unit and unit not in units and unit.lower() not in {name.lower() for name in units}:
        raise ValueError(f"`{unit[:20]}` is not a unit of {kind}: {', '.join(name for name in units if name)}")
    value, sign = number.lstrip("-"), -1 if number.startswith("-") else 1
    if kind in (Type.COUNT, Type.SHARE):
        return sign * scaled(value, {"1": units[unit or ""]}, "1")
    return sign * scaled(f"{value} {unit}", units, "CNY")


def write_number(kind: Type, value: int) -> str:
    """The exact text of ``value``, which `read_number` reads back."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    if kind is Type.COUNT:
        return f"{value}"
    if kind is Type.SHARE:
        return sign + f"{size // 10**6}.{size % 10**6:06d}".rstrip("0").removesuffix(".")
    if kind is Type.MONEY:
        return sign + f"{size // 10**6}.{size % 10**6:06d}".rstrip("0").removesuffix(".") + " CNY"
    if kind is Type.INSTANT:
        return f'"{write_instant(value)}"'
    exact = {Type.SIZE: "B KB MB GB TB PB", Type.DURATION: "us ms s min h d", Type.RATE: "bps Kbps Mbps Gbps Tbps"}
    unit = next(name for name in reversed(exact[kind].split()) if size % UNITS[kind][name] == 0)
    return f"{sign}{size // UNITS[kind][unit]}{unit}" if size else "0"


def read_instant(text: str) -> int:
    """An ISO 8601 date or time (UTC where it says no zone) in milliseconds since the epoch, else ValueError."""
    import datetime as dt

    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return round(moment.timestamp() * 1000)


def write_instant(value_ms: int) -> str:
    """ISO 8601 in UTC, as short as it is exact."""
    import datetime as dt

    moment = dt.datetime.fromtimestamp(value_ms / 1000, dt.UTC)
    text = moment.isoformat(timespec="milliseconds").removesuffix("+00:00")
    return text.removesuffix(".000").removesuffix("T00:00:00") + ("" if text.endswith("T00:00:00.000") else "Z")


def show(kind: Type, value: int | str | bool | tuple[str, ...]) -> str:
    """``value`` as a person reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return ", ".join(value)
    if kind is Type.MONEY:
        return show_money(value) + " CNY"
    if kind is Type.SIZE:
        return show_size(value)
    if kind is Type.DURATION:
        return show_duration(value)
    if kind in (Type.RATE, Type.SHARE):
        return write_number(kind, value)
    return write_instant(value) if kind is Type.INSTANT else f"{value:,}"
