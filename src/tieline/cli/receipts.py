"""Receipts: usage lines with everything that was signed about them, and the check of each from public keys alone.

What `tieline bill --json --receipts` writes is all that a check needs, also years later and with no exchange there. The
keys in it are those that the exchange said; whoever does not believe it gives the keys that the others' owners told.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tieline.exchange.settlement import verify_usage
from tieline.market import bills_of
from tieline.model.bill import Bill
from tieline.model.error import TielineError
from tieline.model.job import Usage
from tieline.model.peer import CLAIM, METER, MeterReading, UsageClaim
from tieline.model.reason import Reason
from tieline.registry import open_statement

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient

PAGE = 1_000
MOST_LINES = 1_000_000
MOST_FILE_BYTES = 2**30


class Receipts(msgspec.Struct, frozen=True, kw_only=True):
    """Usage lines, the bills made of them where there are any, and the keys as ``exchange`` says them."""

    exchange: str
    keys: dict[str, str]  # exchange or site -> public key, base64url
    lines: tuple[Usage, ...]
    bills: tuple[Bill, ...] = ()


class WrongLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line that does not hold, and everything that is wrong with it."""

    run: str
    reasons: tuple[Reason, ...]


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a check."""

    exchange: str
    is_sound: bool
    lines: int
    remote: int  # of them: across exchanges
    disputed_micro_cny: int
    wrong: tuple[WrongLine, ...]
    unpinned: tuple[str, ...]  # whose key was taken from the exchange


async def receipts_of(client: AsyncClient, bills: tuple[Bill, ...] | None = None) -> Receipts:
    """The receipts of everything that the caller may see, or of what stands on ``bills``."""
    wanted = {line.run for bill in bills or () for line in bill.lines}
    lines: list[Usage] = []
    after = ""
    while True:
        page = await client.usage("", after, PAGE)
        lines += [line for line in page.lines if bills is None or line.run in wanted]
        after = page.next_after
        if not after:
            break
        if len(lines) > MOST_LINES:
            raise TielineError("too_large", f"more than {MOST_LINES:,} usage lines")
    said = await client.usage_keys()
    keys = dict(said.keys)
    for site in dict.fromkeys(name for line in lines for name in _sites(line)):
        try:
            record = (await client.resolve(site)).record
            keys[site] = msgspec.json.decode(record, type=_SiteRecord).spec.public
        except (TielineError, msgspec.DecodeError, msgspec.ValidationError):
            continue  # its reading is then checked no further than that it is well-formed
    return Receipts(exchange=said.exchange, keys=keys, lines=tuple(lines), bills=bills or ())


def read_receipts(file: Path) -> Receipts:
    """What `tieline bill --json --receipts` wrote. Raises TielineError `invalid_request`."""
    if file.stat().st_size > MOST_FILE_BYTES:
        raise TielineError("too_large", f"`{file}` is over {MOST_FILE_BYTES:,} bytes", where="file")
    try:
        return msgspec.json.decode(file.read_bytes(), type=Receipts)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise TielineError(
            "invalid_request",
            f"`{file}` holds no receipts: {error}",
            where="file",
            hints=(f"tieline bill --json --receipts > {file}",),
        ) from None


def verified(receipts: Receipts, pins: dict[str, str]) -> Verified:
    """Check every line; a pinned key counts instead of the one that the exchange says."""
    keys = {**receipts.keys, **pins}
    wrong: dict[str, tuple[Reason, ...]] = {}
    for line in receipts.lines:
        twice = (_differs(line.run, "lines", 2, 1),) if line.run in wrong else ()
        wrong[line.run] = (*wrong.get(line.run, ()), *verify_usage(line, keys), *twice)
    for run, why in _bills_wrong(receipts):
        wrong[run] = (*wrong.get(run, ()), why)
    remote = [line for line in receipts.lines if line.via or line.origin]
    named = dict.fromkeys(name for line in remote for name in (line.via, line.origin) if name)
    found = tuple(WrongLine(run=run, reasons=reasons) for run, reasons in wrong.items() if reasons)
    return Verified(
        exchange=receipts.exchange,
        is_sound=not found,
        lines=len(receipts.lines),
        remote=len(remote),
        disputed_micro_cny=sum(line.disputed_micro_cny + line.given_disputed_micro_cny for line in remote),
        wrong=found,
        unpinned=tuple(name for name in named if name not in pins),
    )


def _bills_wrong(receipts: Receipts) -> list[tuple[str, Reason]]:
    """Bills that are not what their lines add up to, by the run of the first line that differs."""
    found: list[tuple[str, Reason]] = []
    lines = {line.run: line for line in receipts.lines}
    for bill in receipts.bills:
        runs = dict.fromkeys(line.run for line in bill.lines)
        made = bills_of([lines[run] for run in runs if run in lines], "owner" if bill.side == "owner" else "user")
        if made != (bill,):
            again = made[0].lines if made else ()
            first = next((a.run for a, b in zip(bill.lines, again, strict=False) if a != b), bill.party)
            charge = sum(each.charge_micro_cny for each in made)
            found.append((first, _differs(first, "bill", bill.charge_micro_cny, charge)))
    return found


def _differs(run: str, field: str, said: object, booked: object) -> Reason:
    return Reason(
        code="line_differs", values={"run": run[:200], "field": field, "said": str(said), "booked": str(booked)}
    )


class _SiteSpec(msgspec.Struct):
    public: str = ""


class _SiteRecord(msgspec.Struct):
    spec: _SiteSpec


def _sites(line: Usage) -> list[str]:
    """The sites whose readings stand in a line's claims."""
    found: list[str] = []
    for text in (line.claim, line.given_claim):
        try:
            claim = open_statement(text.encode(), CLAIM, UsageClaim)[0] if text else None
            if claim is not None and claim.site_receipt:
                found.append(open_statement(claim.site_receipt.encode(), METER, MeterReading)[0].site)
        except TielineError:
            continue
    return found
