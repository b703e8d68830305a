"""Quantities: integers with the unit in the name, and the only place where text becomes one or the other way round.

Units inside: money in micro-yuan (``_micro_cny``), time in microseconds (``_us``) or milliseconds since the Unix epoch
(``_ms``), sizes in bytes (``_bytes``), rates in bit/s (``_bps``). Floats never enter a record, a price or a bill.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

MAX_INTEGER = 2**53 - 1  # the largest integer that every JSON reader keeps exact (RFC 8785, section 3.2.2.3)

TIME_US: dict[str, int] = {
    "us": 1,
    "µs": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "min": 60_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
SIZE_BYTES: dict[str, int] = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "PiB": 2**50,
}
RATE_BPS: dict[str, int] = {
    "bps": 1,
    "Kbps": 10**3,
    "Mbps": 10**6,
    "Gbps": 10**9,
    "Tbps": 10**12,
    "bit/s": 1,
    "kbit/s": 10**3,
    "Mbit/s": 10**6,
    "Gbit/s": 10**9,
    "Tbit/s": 10**12,
}
MONEY_MICRO_CNY: dict[str, int] = {"CNY": 10**6, "yuan": 10**6, "元": 10**6, "fen": 10**4, "分": 10**4}

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([^\s0-9.].*)?\Z")


def scaled(text: str, units: dict[str, int], default: str) -> int:
    """Read ``text`` such as ``1.5 ms`` into an integer of the table's base unit; a bare number has unit ``default``.

    Raises ValueError with the offending text when the number, the unit or the size (over 2^53 - 1) is absurd, or when
    the value is not a whole number of base units.
    """
    match = _NUMBER.match(text)
    if match is None or len(text) > 40:
        raise ValueError(f"`{text[:40]}` is not a number with a unit ({', '.join(units)})")
    unit = (match[2] or default).strip()
    factor = units.get(unit)
    if factor is None:
        folded = {name.lower(): value for name, value in units.items()}
        factor = folded.get(unit.lower())
    if factor is None:
        raise ValueError(f"`{unit[:20]}` is not a unit here; one of {', '.join(units)}")
    try:
        value = Decimal(match[1]) * factor
    except InvalidOperation:  # pragma: no cover - the pattern admits decimals only
        raise ValueError(f"`{text[:40]}` is not a number") from None
    if value > MAX_INTEGER:
        raise ValueError(f"`{text[:40]}` is larger than 2^53 - 1 base units")
    if value != value.to_integral_value():
        raise ValueError(f"`{text[:40]}` is not a whole number of base units")
    return int(value)


def money_micro_cny(text: str) -> int:
    """``3.20`` or ``3.20 CNY`` -> 3200000."""
    return scaled(text, MONEY_MICRO_CNY, "CNY")


def duration_us(text: str, default: str = "s") -> int:
    """``10s`` -> 10000000."""
    return scaled(text, TIME_US, default)


def size_bytes(text: str, default: str = "GB") -> int:
    """``24GB`` -> 24000000000."""
    return scaled(text, SIZE_BYTES, default)


def show_money(micro_cny: int) -> str:
    """3200000 -> ``3.20``; more digits only where they say something."""
    sign = "-" if micro_cny < 0 else ""
    whole, part = divmod(abs(micro_cny), 10**6)
    digits = f"{part:06d}"
    return f"{sign}{whole:,}.{digits[:2]}{digits[2:].rstrip('0')}"


def show_size(size: int) -> str:
    """24000000000 -> ``24 GB``."""
    for unit, factor in (("PB", 10**15), ("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"


def show_rate(bps: int) -> str:
    """2500000000 -> ``2.5 Gbit/s``."""
    for unit, factor in (("Tbit/s", 10**12), ("Gbit/s", 10**9), ("Mbit/s", 10**6), ("kbit/s", 10**3)):
        if bps >= factor:
            return f"{bps / factor:.2f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{bps} bit/s"


def show_duration(us: int) -> str:
    """1500 -> ``1.5 ms``; 5400000000 -> ``1 h 30 min``."""
    if us < 1_000:
        return f"{us} us"
    if us < 1_000_000:
        return f"{us / 1_000:.2f}".rstrip("0").rstrip(".") + " ms"
    if us < 60_000_000:
        return f"{us / 1_000_000:.2f}".rstrip("0").rstrip(".") + " s"
    minutes = us // 60_000_000
    if minutes < 60:
        seconds = us % 60_000_000 // 1_000_000
        return f"{minutes} min" + (f" {seconds} s" if seconds else "")
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    days, hours = divmod(hours, 24)
    return f"{days} d" + (f" {hours} h" if hours else "")
