"""Moment: times and amounts as people type them, for what is booked."""

from __future__ import annotations

from tieline.cli import words
from tieline.cli.face import usage


def moment_ms(option: str, text: str, now_ms: int) -> int:
    """``2h`` from now, or RFC 3339, in milliseconds since the epoch; 0 for nothing."""
    from datetime import UTC, datetime

    from tieline.model.quantity import duration_us

    if not text:
        return 0
    try:
        return now_ms + duration_us(text) // 1_000
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise usage(words.say("no_moment", option=option, text=text[:40])) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def seconds(option: str, text: str) -> int:
    """``90min`` -> 5400."""
    from tieline.model.quantity import duration_us

    try:
        return duration_us(text) // 1_000_000
    except ValueError as error:
        raise usage(f"{option}: {error}") from None


def microseconds(option: str, text: str) -> int:
    """``5ms`` -> 5000; nothing -> 0."""
    from tieline.model.quantity import duration_us

    try:
        return duration_us(text) if text else 0
    except ValueError as error:
        raise usage(f"{option}: {error}") from None


def rate_bps(option: str, text: str) -> int:
    """``10Gbit/s`` -> 10000000000; nothing -> 0."""
    from tieline.model.quantity import RATE_BPS, scaled

    try:
        return scaled(text, RATE_BPS, "bit/s") if text else 0
    except ValueError as error:
        raise usage(f"{option}: {error}") from None


def bytes_of(option: str, text: str) -> int:
    """``2TB`` -> 2000000000000; never 0."""
    from tieline.model.quantity import size_bytes

    try:
        found = size_bytes(text)
    except ValueError as error:
        raise usage(f"{option}: {error}") from None
    if not found:
        raise usage(f"{option}: `{text}` is no size above zero")
    return found


def micro_cny(option: str, text: str | None) -> int | None:
    """``12.50`` -> 12500000; nothing -> None."""
    from tieline.model.quantity import money_micro_cny

    try:
        return None if text is None else money_micro_cny(text)
    except ValueError as error:
        raise usage(f"{option}: {error}") from None


def clock_ms() -> int:
    """Now."""
    import time

    return int(time.time() * 1_000)
