"""Settlement 结算: what the exchange that ran it claims, what the one whose user it was pays, who can check it.

::

    B, when a run ends     claim_of    UsageClaim, signed: units, seconds, price, charge, the site's own reading inside
    A, when it hears that  settle      pays what it observed at most, from its offer to the report by its own clock, and
                                       never over the hold; UsageAnswer, signed: what it pays, what it disputes and why
    B, when it hears that  answered    keeps the answer beside its claim
    anybody, later         verify_usage   a usage line with both sides' words, from their public keys alone

Ed25519 is deterministic, so all of this is pure: the same facts give the same bytes. A signs one answer to one claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple, TypeVar

import msgspec

from tieline.exchange.keys import ExchangeKeys
from tieline.market import charge_of, unit_seconds_of, usage_of
from tieline.model.error import TielineError
from tieline.model.job import Carried, Run, Usage
from tieline.model.peer import ANSWER, CLAIM, METER, MeterReading, Origin, UsageAnswer, UsageClaim
from tieline.model.reason import Reason
from tieline.network.tariff import transfer_charge
from tieline.registry import open_statement, sign_statement, verify_statement

replace = msgspec.structs.replace
S = TypeVar("S")

MOST = 2**53 - 1
MOST_RECEIPT_BYTES = 16_384
MOST_READING_BYTES = 4_096


class Terms(NamedTuple):
    """What the exchange that pays knows of itself, of the other one, and of the site."""

    us: str  # exchange identifier
    keys: ExchangeKeys
    peer_public: str
    site_public: str = ""  # as the site's record says; empty: not known
    first_run: str = ""  # what the run is called where it was asked for first


# -- the exchange that ran it -----------------------------------------------------------------------------------------


def claim_of(us: str, keys: ExchangeKeys, origin: Origin, run: Run, usage: Usage, state: str) -> str:
    """Our signed claim to the exchange whose user it was, for the usage line of a run that is over."""
    claim = UsageClaim(
        claim=us,
        to=origin.peer,
        origin_run=origin.run,
        origin_job=origin.job,
        first_run=origin.first_run,
        epoch=origin.epoch,
        run=run.id,
        job=run.job,
        user=origin.user,
        owner=run.owner,
        pool=run.pool,
        unit=usage.unit,
        unit_count=usage.unit_count,
        duration_ms=usage.duration_ms,
        unit_seconds=usage.unit_seconds,
        price_micro_cny_per_unit_hour=usage.price_micro_cny_per_unit_hour,
        charge_micro_cny=usage.charge_micro_cny,
        remainder=usage.remainder,
        state=state,
        ended_ms=usage.ended_ms,
        cpu_ms=usage.cpu_ms,
        max_memory_bytes=usage.max_memory_bytes,
        site_receipt=usage.site_receipt,
    )
    return sign_statement(claim, keys.key, keys.kid, CLAIM).decode()


def answered(usage: Usage, text: str, public: str) -> Usage:
    """Our usage line with the other side's answer to our claim.

    Raises TielineError `unauthenticated` where the answer is not signed by ``public``, `conflict` where it is to
    something else or does not add up.
    """
    answer = _opened(text, public, ANSWER, UsageAnswer)
    total = answer.charge_micro_cny + answer.disputed_micro_cny
    is_sound = (
        answer.by == usage.origin
        and answer.run == usage.run
        and answer.claim_sha256 == digest(usage.given_claim)
        and min(answer.charge_micro_cny, answer.disputed_micro_cny, answer.accepted_ms) >= 0
        and total == usage.charge_micro_cny
        and answer.accepted_ms <= usage.duration_ms
    )
    if not is_sound:
        raise TielineError("conflict", f"the answer of `{usage.origin}` does not fit the claim for `{usage.run}`")
    return replace(usage, given_answer=text, given_disputed_micro_cny=answer.disputed_micro_cny)


# -- the exchange whose user it was -----------------------------------------------------------------------------------


def settle(terms: Terms, run: Run, receipt: str, held_micro_cny: int, now_ms: int) -> Usage | None:
    """Our usage line for a run behind a peer: what is paid of its claim, our signed answer, and what is in dispute.

    None without a receipt: nothing is billed, and there is nothing to answer. What is paid is bounded by what this
    exchange observed (from the offer to now), by the site's own reading where it is there, and by the hold.
    """
    if not receipt:
        return None
    line = usage_of(run, duration_ms=0, ended_ms=now_ms)
    line = replace(line, via=run.via, claim=receipt[:MOST_RECEIPT_BYTES])
    try:
        claim = _opened(receipt, terms.peer_public, CLAIM, UsageClaim)
    except TielineError:
        return replace(line, answer=_answer(terms, receipt, None, line, _why("claim_signature", run)))
    why = _difference(terms, run, claim)
    if why is None:
        line, why = _paid(terms, run, claim, line, held_micro_cny, now_ms)
    disputed = max(0, min(claim.charge_micro_cny, MOST)) - line.charge_micro_cny
    line = replace(
        line,
        disputed_micro_cny=disputed,
        cpu_ms=_bounded(claim.cpu_ms),
        max_memory_bytes=_bounded(claim.max_memory_bytes),
        site_receipt=claim.site_receipt,
    )
    return replace(line, answer=_answer(terms, receipt, claim, line, why))


def nothing_for(terms: Terms, receipt: str, code: str) -> str:
    """Our signed answer to a claim for a run that we do not pay at all; empty where the claim is not the peer's."""
    try:
        claim = _opened(receipt, terms.peer_public, CLAIM, UsageClaim)
    except TielineError:
        return ""
    if claim.to != terms.us:
        return ""
    why = Reason(code=code, values={"run": claim.origin_run[:200]})
    answer = UsageAnswer(
        claim_sha256=digest(receipt),
        by=terms.us,
        run=claim.run,
        accepted_ms=0,
        charge_micro_cny=0,
        disputed_micro_cny=_bounded(claim.charge_micro_cny),
        why=why,
    )
    return sign_statement(answer, terms.keys.key, terms.keys.kid, ANSWER).decode()


def _paid(
    terms: Terms, run: Run, claim: UsageClaim, line: Usage, held_micro_cny: int, now_ms: int
) -> tuple[Usage, Reason | None]:
    """The line with what is paid of a claim that is sound, and why the rest is not."""
    observed_ms = max(0, now_ms - run.offered_ms)
    metered_ms = claim.duration_ms
    replayed = None
    if terms.site_public:  # without its word nobody can say that it ran there at all
        reading = reading_of(claim.site_receipt, terms.site_public, run.site)
        replayed = _replayed(reading, claim, run.id) if reading is not None else None
        metered_ms = 0 if reading is None or replayed is not None else reading.duration_ms
    paid_ms = min(claim.duration_ms, observed_ms, metered_ms)
    most = usage_of(run, duration_ms=paid_ms, ended_ms=now_ms, most_micro_cny=held_micro_cny)
    unit_seconds = min(claim.unit_seconds, most.unit_seconds)
    charge = charge_of(unit_seconds, run.price_micro_cny_per_unit_hour)
    line = replace(
        line,
        duration_ms=paid_ms,
        unit_seconds=unit_seconds,
        charge_micro_cny=charge.charge_micro_cny,
        remainder=charge.remainder,
    )
    if unit_seconds == claim.unit_seconds:
        return line, None
    if replayed is not None:
        return line, replayed
    claimed = {"claimed_us": claim.duration_ms * 1_000}
    if metered_ms < min(claim.duration_ms, observed_ms):
        return line, Reason(code="claim_over_meter", values={**claimed, "metered_us": metered_ms * 1_000})
    if observed_ms < claim.duration_ms:
        return line, Reason(code="claim_over_observed", values={**claimed, "observed_us": observed_ms * 1_000})
    held = {"claimed_micro_cny": claim.charge_micro_cny, "held_micro_cny": held_micro_cny}
    return line, Reason(code="claim_over_hold", values=dict(held))


def _difference(terms: Terms, run: Run, claim: UsageClaim) -> Reason | None:
    """The first thing in which a claim differs from the run that we booked, or does not add up."""
    named = {
        "claim": (claim.claim, run.via),
        "to": (claim.to, terms.us),
        "run": (claim.origin_run, run.id),
        "job": (claim.origin_job, run.job),
        "first_run": (claim.first_run, terms.first_run),
        "epoch": (claim.epoch, run.epoch),
        "user": (claim.user, run.user),
        "owner": (claim.owner, run.owner),
        "pool": (claim.pool, run.pool),
        "unit": (claim.unit, run.unit),
        "unit_count": (claim.unit_count, run.unit_count),
        "price_micro_cny_per_unit_hour": (claim.price_micro_cny_per_unit_hour, run.price_micro_cny_per_unit_hour),
    }
    for field, (said, booked) in named.items():
        if said != booked:
            values = {"field": field, "said": str(said)[:200], "booked": str(booked)[:200]}
            return Reason(code="claim_differs", values=dict(values))
    return None if adds_up(claim) else _why("claim_sum", run)


def adds_up(line: UsageClaim | Usage) -> bool:
    """Whether seconds, price, charge and remainder follow from each other by the rules of `market.rating`.

    A transfer is charged by its bytes; the seconds of a circuit have factors and may be more than went by.
    """
    if isinstance(line, Usage) and line.carried is not None:
        return _bytes_add_up(line, line.carried)
    numbers = (
        line.duration_ms, line.unit_seconds, line.unit_count, line.price_micro_cny_per_unit_hour, line.charge_micro_cny,
    )  # fmt: skip
    if min(numbers) < 0 or max(numbers) > MOST:
        return False
    charge = charge_of(line.unit_seconds, line.price_micro_cny_per_unit_hour)
    is_circuit = isinstance(line, Usage) and line.unit == "circuit"
    return (is_circuit or line.unit_seconds <= unit_seconds_of(line.unit_count, line.duration_ms)) and (
        charge.charge_micro_cny,
        charge.remainder,
    ) == (line.charge_micro_cny, line.remainder)


def _bytes_add_up(line: Usage, carried: Carried) -> bool:
    numbers = (carried.late_bytes, carried.late_permille, carried.price_micro_cny)
    is_sound = min(numbers) >= 0 and carried.size_bytes > 0 and carried.late_bytes <= carried.moved_bytes
    return is_sound and (transfer_charge(carried), 0) == (line.charge_micro_cny, line.remainder)


def _answer(terms: Terms, receipt: str, claim: UsageClaim | None, line: Usage, why: Reason | None) -> str:
    answer = UsageAnswer(
        claim_sha256=digest(receipt),
        by=terms.us,
        run=claim.run[:200] if claim is not None else "",
        accepted_ms=line.duration_ms,
        charge_micro_cny=line.charge_micro_cny,
        disputed_micro_cny=line.disputed_micro_cny,
        why=why,
    )
    return sign_statement(answer, terms.keys.key, terms.keys.kid, ANSWER).decode()


def _why(code: str, run: Run) -> Reason:
    return Reason(code=code, values={"run": run.id})


def _bounded(value: int) -> int:
    return max(0, min(value, MOST))


# -- the site ---------------------------------------------------------------------------------------------------------


def reading_of(receipt: str, public: str, site: str) -> MeterReading | None:
    """What the site measured, where the receipt is really its own."""
    try:
        reading = _opened(receipt[: MOST_READING_BYTES + 1], public, METER, MeterReading)
    except TielineError:
        return None
    return reading if reading.site == site and reading.duration_ms >= 0 else None


def _replayed(reading: MeterReading, claim: UsageClaim, run: str) -> Reason | None:
    """Why a reading bears a claim out no more than any other: it is of another run at that site."""
    if reading.first_run == claim.first_run:
        return None
    said = reading.first_run or reading.run
    return Reason(code="meter_differs", values={"run": run, "said": said[:200], "claimed": claim.first_run[:200]})


def metered_ms(receipt: str, public: str, run: Run) -> int:
    """How long a run lasted by the site's signed reading; 0 where it is not the site's, or of another run."""
    reading = reading_of(receipt, public, run.site)
    is_its = reading is not None and (reading.run, reading.epoch) == (run.id, run.epoch)
    return reading.duration_ms if reading is not None and is_its else 0


# -- anybody ----------------------------------------------------------------------------------------------------------


def verify_usage(usage: Usage, keys: Mapping[str, str]) -> tuple[Reason, ...]:
    """What is wrong with a usage line and the words that both sides signed on it; empty: nothing.

    ``keys`` maps identifiers of exchanges and sites to their public keys (base64url), chosen by whoever verifies. A
    site's reading is checked where the site's key is among them.
    """
    found: list[Reason] = []
    if not adds_up(usage):
        found.append(Reason(code="claim_sum", values={"run": usage.run}))
    if usage.claim or usage.via:
        found += _verify_taken(usage, keys)
    if usage.given_claim or usage.origin:
        found += _verify_given(usage, keys)
    return tuple(found)


def _verify_taken(usage: Usage, keys: Mapping[str, str]) -> list[Reason]:
    claim, answer, found = _both(usage.claim, usage.answer, usage.via, "", keys, usage.run)
    if claim is None or answer is None:
        return found
    pairs = {
        "claim": (claim.claim, usage.via),
        "run": (claim.origin_run, usage.run),
        "job": (claim.origin_job, usage.job),
        "charge_micro_cny": (answer.charge_micro_cny, usage.charge_micro_cny),
        "disputed_micro_cny": (answer.disputed_micro_cny, usage.disputed_micro_cny),
        "claimed_micro_cny": (claim.charge_micro_cny, answer.charge_micro_cny + answer.disputed_micro_cny),
        "by": (answer.by, claim.to),
        "duration_ms": (answer.accepted_ms, usage.duration_ms),
        **_measured(claim, usage),
    }
    if answer.why is None or answer.why.code != "claim_differs":  # else the line says what was booked instead
        pairs |= {"user": (claim.user, usage.user), **_booked(claim, usage)}
        pairs["first_run"] = (claim.first_run, _first_run_of(claim, usage))
    if answer.why is None:
        pairs["unit_seconds"] = (claim.unit_seconds, usage.unit_seconds)
    return found + _differences(pairs, usage.run) + _verify_reading(claim, keys)


def _verify_given(usage: Usage, keys: Mapping[str, str]) -> list[Reason]:
    found: list[Reason] = []
    if not usage.given_answer:
        found.append(Reason(code="answer_missing", values={"run": usage.run, "exchange": usage.origin}))
    claim, answer, wrong = _both(usage.given_claim, usage.given_answer, "", usage.origin, keys, usage.run)
    found += [each for each in wrong if usage.given_answer or each.code != "answer_signature"]
    if claim is None:
        return found
    pairs: dict[str, tuple[object, object]] = {
        "to": (claim.to, usage.origin),
        "run": (claim.run, usage.run),
        "job": (claim.job, usage.job),
        "user": (f"{claim.user}@{usage.origin.partition('/')[0]}", usage.user),
        "duration_ms": (claim.duration_ms, usage.duration_ms),
        "unit_seconds": (claim.unit_seconds, usage.unit_seconds),
        "charge_micro_cny": (claim.charge_micro_cny, usage.charge_micro_cny),
        "ended_ms": (claim.ended_ms, usage.ended_ms),
        **_booked(claim, usage),
        **_measured(claim, usage),
    }
    if answer is not None:
        pairs["by"] = (answer.by, usage.origin)
        pairs["answered_run"] = (answer.run, usage.run)
        pairs["disputed_micro_cny"] = (answer.disputed_micro_cny, usage.given_disputed_micro_cny)
        pairs["claimed_micro_cny"] = (claim.charge_micro_cny, answer.charge_micro_cny + answer.disputed_micro_cny)
    return found + _differences(pairs, usage.run) + _verify_reading(claim, keys)


def _first_run_of(claim: UsageClaim, usage: Usage) -> str:
    """What the run is called where it was asked for first: our name of it, or what our own claim for it says."""
    if not usage.origin:
        return f"{claim.to}#{usage.run}"
    try:
        return open_statement(usage.given_claim.encode(), CLAIM, UsageClaim)[0].first_run
    except TielineError:
        return ""


def _booked(claim: UsageClaim, usage: Usage) -> dict[str, tuple[object, object]]:
    """What both sides agreed on when the run was offered."""
    return {
        "owner": (claim.owner, usage.owner),
        "pool": (claim.pool, usage.pool),
        "unit": (claim.unit, usage.unit),
        "unit_count": (claim.unit_count, usage.unit_count),
        "price_micro_cny_per_unit_hour": (claim.price_micro_cny_per_unit_hour, usage.price_micro_cny_per_unit_hour),
    }


def _measured(claim: UsageClaim, usage: Usage) -> dict[str, tuple[object, object]]:
    """What was measured over there and is not paid for; the site's reading as it was signed."""
    return {
        "cpu_ms": (_bounded(claim.cpu_ms), usage.cpu_ms),
        "max_memory_bytes": (_bounded(claim.max_memory_bytes), usage.max_memory_bytes),
        "site_receipt": (claim.site_receipt, usage.site_receipt),
    }


def _both(
    claim_text: str, answer_text: str, claims: str, answers: str, keys: Mapping[str, str], run: str
) -> tuple[UsageClaim | None, UsageAnswer | None, list[Reason]]:
    """Both statements with their signatures checked; who made them is read from them where it is not given."""
    found: list[Reason] = []
    claim = _checked(claim_text, claims, "claim", CLAIM, UsageClaim, keys)
    answer = _checked(answer_text, answers, "by", ANSWER, UsageAnswer, keys)
    if claim is None:
        found.append(Reason(code="claim_signature", values={"run": run}))
    if answer is None:
        found.append(Reason(code="answer_signature", values={"run": run}))
    elif answer.claim_sha256 != digest(claim_text):
        found.append(Reason(code="answer_differs", values={"run": run}))
    return claim, answer, found


def _checked(text: str, who: str, field: str, typ: str, shape: type[S], keys: Mapping[str, str]) -> S | None:
    try:
        said, _ = open_statement(text.encode(), typ, shape)
        named = who or str(getattr(said, field))
        return _opened(text, keys[named], typ, shape) if named in keys else None
    except TielineError:
        return None


def _verify_reading(claim: UsageClaim, keys: Mapping[str, str]) -> list[Reason]:
    """The site's reading, where there is one: of that run and, where the site's key is known, not below the claim."""
    if not claim.site_receipt:
        return []
    try:
        said, _ = open_statement(claim.site_receipt.encode(), METER, MeterReading)
    except TielineError:
        return [Reason(code="meter_signature", values={"run": claim.run})]
    replayed = _replayed(said, claim, claim.run)
    if replayed is not None:
        return [replayed]
    if said.site not in keys:
        return []
    reading = reading_of(claim.site_receipt, keys[said.site], said.site)
    if reading is None:
        return [Reason(code="meter_signature", values={"run": claim.run})]
    if reading.duration_ms >= claim.duration_ms:
        return []
    values = {"claimed_us": claim.duration_ms * 1_000, "metered_us": reading.duration_ms * 1_000}
    return [Reason(code="claim_over_meter", values=dict(values))]


def _differences(pairs: Mapping[str, tuple[object, object]], run: str) -> list[Reason]:
    return [
        Reason(code="line_differs", values={"run": run, "field": field, "said": str(said), "booked": str(booked)})
        for field, (said, booked) in pairs.items()
        if said != booked
    ]


def digest(text: str) -> str:
    """SHA-256 of a statement's bytes as signed."""
    return sha256(text.encode()).hexdigest()


def _opened(text: str, public: str, typ: str, shape: type[S]) -> S:
    """What the holder of ``public`` stated; raises TielineError `unauthenticated`."""
    if len(text) > MOST_RECEIPT_BYTES:
        raise TielineError("unauthenticated", f"the `{typ}` statement has {len(text):,} characters")
    try:
        return msgspec.convert(verify_statement(text.encode(), public, typ), shape)
    except msgspec.ValidationError as error:
        raise TielineError("unauthenticated", f"the `{typ}` statement has another shape: {error}") from None
