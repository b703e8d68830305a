"""Values: the texts that task files write for counts, sizes, times, money, accelerators and paths, as shapes.

Sizes: 1 GB is 10^9 bytes and 1 GiB is 2^30 throughout Tieline; SkyPilot and dstack read GB as 2^30. So that a card sold
as 80 GB is one whichever way its driver counts, the least of a range is read with 10^9 and its most with 2^30.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple

from tieline.model.accelerators import MAX_NAME, VENDORS, architecture, named
from tieline.model.quantity import MONEY_MICRO_CNY, RATE_BPS, SIZE_BYTES, TIME_US, money_micro_cny, scaled
from tieline.model.taskfile.problem import shown
from tieline.model.taskfile.shapes import TRUTHS, Convert, Flag, Text, Whole

MAX_COUNT = 10_000_000
MAX_MONEY_MICRO_CNY = 10**12
MAX_SECONDS = 31_536_000
MAX_VALUE = 65_536  # characters of an environment variable
RETRIES = 3  # attempts after a failure where only `true` is said
MOST_BYTES = {**SIZE_BYTES, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40, "PB": 2**50}
NUMBER = r"[0-9]+(?:\.[0-9]+)?"


class Span(NamedTuple):
    """From ``least`` to ``most``; None: no such limit."""

    least: int | None
    most: int | None


class Ask(NamedTuple):
    """Accelerators of one kind: how many, and how much memory one of them has at least and at most (0: no limit)."""

    kind: str
    cards: Span
    memory: Span = Span(None, None)
    vendor: str = ""
    is_known: bool = True


class Cores(NamedTuple):
    """Cores of one instruction set (empty: any)."""

    number: Span
    architecture: str = ""


class Price(NamedTuple):
    """Money per hour in one currency, in millionths of its unit."""

    micro: int
    currency: str  # USD or CNY


def _count(text: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", text):
        raise ValueError(f"`{shown(text)}` is not a whole number such as `8`")
    if int(text) > MAX_COUNT:
        raise ValueError(f"{int(text):,} is more than {MAX_COUNT:,}")
    return int(text)


def _at_least_count(text: str) -> int:
    """``4``, ``4+`` or ``2.5+`` cores; a part of a core is a whole one."""
    match = re.fullmatch(rf"({NUMBER})\+?", text) if len(text) <= 20 else None
    if match is None:
        raise ValueError(f"`{shown(text)}` is not a number of cores such as `4` or `4+`")
    whole = int(Decimal(match[1]).to_integral_value(ROUND_CEILING))
    if whole > MAX_COUNT:
        raise ValueError(f"{whole:,} is more than {MAX_COUNT:,}")
    return whole


def _size(text: str, units: dict[str, int] = SIZE_BYTES) -> int:
    return scaled(text, units, "GB")


def _at_least_size(text: str) -> int:
    """``32``, ``32+``, ``64GB`` or ``64GB+``; a bare number is GB."""
    return _size(text.removesuffix("+"))


def span(text: str, read_least: Callable[[str], int], read_most: Callable[[str], int]) -> Span:
    """``2``, ``2..``, ``..4`` or ``2..4``."""
    words = text.replace(" ", "")
    if ".." not in words:
        return Span(read_least(words), read_most(words))
    low, _, high = words.partition("..")
    if not low and not high:
        raise ValueError(f"`{shown(text)}` is an empty range; write `2..`, `..4` or `2..4`")
    least, most = read_least(low) if low else None, read_most(high) if high else None
    if least is not None and most is not None and least > most:
        raise ValueError(f"`{shown(text)}` runs backwards: its least is above its most")
    return Span(least, most)


def count_span(text: str) -> Span:
    """A range of counts."""
    return span(text, _count, _count)


def size_span(text: str) -> Span:
    """A range of sizes; GB is 10^9 for the least and 2^30 for the most."""
    return span(text, _size, lambda high: _size(high, MOST_BYTES))


def _seconds(text: str) -> int:
    micro = scaled(text, TIME_US, "s")
    if micro % 1_000_000:
        raise ValueError(f"`{shown(text)}` is not a whole number of seconds")
    if micro // 1_000_000 > MAX_SECONDS:
        raise ValueError(f"`{shown(text)}` is longer than a year")
    return micro // 1_000_000


def _some_seconds(text: str) -> int:
    seconds = _seconds(text)
    if seconds < 1:
        raise ValueError("at least 1 s")
    return seconds


def _seconds_or_off(text: str) -> int:
    """Seconds; ``off`` and ``false`` are no limit (0), ``true`` is the default (0)."""
    return 0 if text.lower() in ("off", "false", "true", "no", "yes", "on") else _some_seconds(text)


def _attempts(text: str) -> int:
    """A number of further attempts; ``true`` is three."""
    if text.lower() in TRUTHS:
        return RETRIES if TRUTHS[text.lower()] else 0
    if not re.fullmatch(r"0|[1-9][0-9]{0,3}", text) or int(text) > 1_000:
        raise ValueError(f"`{shown(text)}` is neither true, false nor a number from 0 to 1,000")
    return int(text)


def _with_unit(units: dict[str, int], example: str) -> Callable[[str], int]:
    """Quantities whose unit must be said: a missing one is a factor of a thousand waiting to happen."""

    def read(text: str) -> int:
        if re.fullmatch(rf"\s*{NUMBER}\s*", text):
            raise ValueError(f"`{shown(text)}` has no unit; write it, such as `{example}`")
        return scaled(text, units, "")

    return read


def _budget(text: str) -> int:
    micro = money_micro_cny(text)
    if not 1 <= micro <= MAX_MONEY_MICRO_CNY:
        raise ValueError(f"`{shown(text)}` is not between 0.000001 and {MAX_MONEY_MICRO_CNY // 10**6:,} CNY")
    return micro


def _price(text: str) -> Price:
    """``2.5``, ``$2.5`` and ``2.5 USD`` are dollars, as peers mean them; ``20 CNY`` says its currency."""
    words = text.strip().removeprefix("$")
    units = {"USD": 10**6, **MONEY_MICRO_CNY}
    micro = scaled(words, units, "USD")
    if not 1 <= micro <= MAX_MONEY_MICRO_CNY:
        raise ValueError(f"`{shown(text)}` is not a price above zero and at most {MAX_MONEY_MICRO_CNY // 10**6:,}")
    unit = words.strip("0123456789. ").upper()
    return Price(micro, "USD" if unit in ("", "USD") else "CNY")


def accelerator(text: str) -> Ask:
    """SkyPilot's ``H100:8``; a bare name is one card."""
    name, colon, count = text.replace(" ", "").partition(":") if ":" in text else (text, "", "")
    found = named(name)
    number = _cards(count) if colon else 1
    return Ask(found.kind, Span(number, number), Span(found.memory_bytes or None, None), "", found.is_known)


def _cards(text: str) -> int:
    """A number of cards; whole, and at least one."""
    if re.fullmatch(rf"{NUMBER}", text) and "." in text and Decimal(text) % 1:
        raise ValueError(f"`{text[:20]}`: cards are given whole; write 1 or more")
    number = _count(text.removesuffix(".0"))
    if number < 1:
        raise ValueError("at least 1 card; leave accelerators out to ask for none")
    return number


def vendor_of(text: str) -> str:
    """The vendor that ``text`` names. Raises ValueError for one that the table does not have."""
    vendor = VENDORS.get(text.strip().lower())
    if vendor is None:
        raise ValueError(f"`{shown(text)}` is no vendor here: {', '.join(sorted(set(VENDORS.values())))}")
    return vendor


def gpus(text: str) -> tuple[Ask, ...]:
    """dstack's ``vendor:name,name:memory:count`` in any order: one `Ask` per name, or one for any kind."""
    vendor, names = "", ""
    memory: Span | None = None
    count: Span | None = None
    for token in text.replace(" ", "").split(":"):
        if not token:
            raise ValueError(f"`{shown(text)}` has an empty part between its colons")
        if token.lower() in VENDORS and not vendor:
            vendor = VENDORS[token.lower()]
        elif token[0].isalpha():
            if names:
                raise ValueError(f"`{shown(text)}` names accelerators twice; put several names as `A100,H100`")
            names = token
        elif re.fullmatch(r"[0-9]+[a-zA-Z]?", token) and not token.isdigit():
            raise ValueError(f"`{shown(token)}` is neither a name (`ascend-910b`) nor a size with its unit (`24GB`)")
        elif any(character.isalpha() for character in token):
            if memory is not None:
                raise ValueError(f"`{shown(text)}` states memory twice; a range is `24GB..80GB`")
            memory = size_span(token)
        else:
            if count is not None:
                raise ValueError(f"`{shown(text)}` states a count twice; a range is `1..2`")
            count = count_span(token)
    return asks(names.split(",") if names else [], vendor, count or Span(1, 1), memory or Span(None, None))


def asks(names: list[str], vendor: str, count: Span, memory: Span) -> tuple[Ask, ...]:
    """One `Ask` per name, or one for any kind. Memory in a name (`A100-80GB`) counts where none is stated."""
    if count.most is not None and count.most < 1:
        return ()
    if not names:
        return (Ask("any", count, memory, vendor),)
    if vendor == "google":  # dstack writes `tpu:v5e`
        names = [name if name.lower().startswith("tpu") else f"tpu-{name}" for name in names]
    found = [named(name) for name in names]
    stated = memory if memory != Span(None, None) else None
    return tuple(
        Ask(one.kind, count, stated or Span(one.memory_bytes or None, None), vendor, one.is_known) for one in found
    )


def cores(text: str) -> Cores:
    """dstack's ``arch:count`` in any order."""
    found, arch = None, ""
    for token in text.replace(" ", "").split(":"):
        if ".." in token or token.isdigit():
            if found is not None:
                raise ValueError(f"`{shown(text)}` states a count twice")
            found = count_span(token)
        elif arch:
            raise ValueError(f"`{shown(text)}` names an instruction set twice")
        else:
            arch = architecture(token)
    return Cores(found or Span(None, None), arch)


def env_item(text: str) -> tuple[str, str | None]:
    """``NAME=value`` or ``NAME``. What stands after the name is never shown: it may be a secret."""
    name, equals, value = text.partition("=")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"`{shown(name)}` is not a name of an environment variable: letters, digits and `_`")
    if len(value) > MAX_VALUE:
        raise ValueError(f"the value of `{name}` has {len(value):,} characters; at most {MAX_VALUE:,}")
    return name, value if equals else None


def signal_name(text: str) -> str:
    """``SIGUSR1`` or ``USR1``, one of those that a program can catch."""
    name = "SIG" + text.strip().upper().removeprefix("SIG")
    if name not in SIGNALS:
        raise ValueError(f"`{shown(text)}` is not one of {', '.join(SIGNALS)}")
    return name


SIGNALS = ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGINT", "SIGTERM", "SIGCONT")
SIZE_UNIT = r"(?:[KMGTPkmgtp][iI]?)?[bB]"
SIZE = rf"\s*{NUMBER}\s*(?:{SIZE_UNIT})?\s*"
DURATION = rf"\s*{NUMBER}\s*(?:us|µs|ms|s|min|m|h|d|w|S|MS|MIN|M|H|D|W)?\s*"


def _either(kinds: str, pattern: str) -> dict[str, object]:
    return {"type": [kinds, "string"], "minimum": 0, "pattern": f"^(?:{pattern})$"}


TEXT = Text()
LINE = Text("text of one line", 400, r"[^\x00-\x1f\x7f]*")
FLAG = Flag()
CORES = Convert("a number of cores such as `4` or `4+`", _at_least_count, _either("number", rf"{NUMBER}\+?"))
SIZE_AT_LEAST = Convert("a size such as `32`, `32+` or `64GB`", _at_least_size, _either("number", rf"{SIZE}\+?"))
SIZES = Convert(
    "a size or a range of sizes such as `24GB..80GB`", size_span, _either("number", rf"(?:{SIZE})?(?:\.\.(?:{SIZE})?)?")
)
SIZE_ONE = Convert("a size such as `100GB`", _size, _either("number", SIZE))
COUNTS = Convert(
    "a count or a range of counts such as `1..2`", count_span, _either("integer", r"[0-9 ]*(?:\.\.)?[0-9 ]*")
)
SECONDS = Convert("a time such as `90s`, `2h` or `1d`", _some_seconds, _either("number", DURATION))
SECONDS_OR_OFF = Convert(
    "a time such as `2h`, or `off`",
    _seconds_or_off,
    {"anyOf": [{"type": "boolean"}, _either("number", rf"{DURATION}|[Oo][Ff][Ff]|[Oo][Nn]|[Nn][Oo]|[Yy][Ee][Ss]")]},
)
GRACE = Convert("a time such as `30s`, at most 1 h, or `off`", _seconds_or_off, SECONDS_OR_OFF.stated)
ROUND_TRIP = Convert("a time with its unit, such as `1ms`", _with_unit(TIME_US, "1ms"), {"type": "string"})
RATE = Convert("a rate with its unit, such as `10Gbps`", _with_unit(RATE_BPS, "10Gbps"), {"type": "string"})
BUDGET = Convert("money in CNY, such as `100` or `100 CNY`", _budget, _either("number", rf"\s*{NUMBER}\s*\S*\s*"))
PRICE = Convert(
    "a price per hour such as `2.5` (USD) or `20 CNY`", _price, _either("number", rf"\s*\$?{NUMBER}\s*\S*\s*")
)
ACCELERATOR = Convert(
    "`NAME` or `NAME:COUNT`", accelerator, {"type": "string", "minLength": 1, "maxLength": MAX_NAME + 12}
)
ACCELERATOR_KEY = Convert("`NAME` or `NAME:COUNT`", accelerator, {"pattern": r"\S"})
GPUS = Convert(
    "`vendor:name:memory:count` in any order, such as `H100:80GB:1..2`, `24GB..80GB` or `2`",
    gpus,
    _either("integer", r".*\S.*"),
)
CPU = Convert("`arch:count`, such as `8`, `4..16` or `arm:8..`", cores, _either("integer", r".*\S.*"))
CARDS = Convert("a number of cards", _cards, {"type": ["number", "string"], "minimum": 1})
VENDOR = Convert("a vendor such as `nvidia` or `huawei`", vendor_of, {"type": "string"})
ARCHITECTURE = Convert("an instruction set such as `x86` or `arm`", architecture, {"type": "string"})
SIGNAL = Convert("a signal such as `SIGUSR1`", signal_name, {"type": "string"})
EXIT_CODE = Whole(0, 255)
PORTS = Text("a port, or a range or mapping of ports", 40, r"[0-9*]+(?:[-:][0-9]+)?")
RETRY = Convert(
    "`true`, `false` or a number of attempts",
    _attempts,
    {"anyOf": [FLAG.stated, {"type": "integer", "minimum": 0, "maximum": 1_000}]},
)
NAME = Text(
    "a name of at most 63 letters, digits, `.`, `_` and `-`",
    63,
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?",
    "it begins and ends with a letter or a digit",
)
ENV_NAME = Text("a name of an environment variable", 200, r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and `_`")
ENV_VALUE = Text("text", MAX_VALUE)
SCRIPT = Text("a script", 262_144)
