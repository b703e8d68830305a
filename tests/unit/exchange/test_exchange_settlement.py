"""Claims and answers: what is paid, what is disputed and why, and what anybody can check of it afterwards."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from branches_world import PRICE, Federation, Node, keys_of
from exchange_world import task

from tieline.exchange.commands import TakeAnswer, TakePeerReports
from tieline.exchange.orders import offer_of
from tieline.exchange.settlement import adds_up, digest, verify_usage
from tieline.market import bills_of, charge_of
from tieline.model.error import TielineError
from tieline.model.job import JobState, Run, RunState, Usage
from tieline.model.peer import ANSWER, CLAIM, METER, MeterReading, UsageAnswer, UsageClaim
from tieline.model.protocol import Accepted, Ended, Outcome, PeerReport, Started
from tieline.registry import Key, open_statement, sign_statement

replace = msgspec.structs.replace
CORES = 2


class Case:
    """A's run behind B that has been running for ten seconds; what B says of it is up to the test."""

    def __init__(self, **fields: Any) -> None:
        self.world = Federation(loss=1.0)
        self.a, self.b = self.world.add("a"), self.world.add("b")
        self.b.join("lab", "one")
        self.world.join_up(self.a, self.b)
        (self.job,) = self.a.submit(task(cores=CORES, **fields))
        self.run: Run = self.a.run_of(self.job)
        self.serial = 0
        self.say(Accepted(run=self.run.id, epoch=1))
        self.say(Started(run=self.run.id, epoch=1))
        self.world.clock.advance(10_000)

    def say(self, report: Any) -> Outcome:
        self.serial += 1
        reports = (PeerReport(serial=self.serial, report=report),)
        (outcome,) = self.a.do(TakePeerReports(peer=self.b.id, session="s1", reports=reports))
        return outcome

    def claim(self, duration_ms: int = 9_000, **changes: Any) -> UsageClaim:
        run = self.run
        unit_seconds = changes.pop("unit_seconds", CORES * -(-duration_ms // 1_000))
        price = changes.get("price_micro_cny_per_unit_hour", PRICE)
        charge = charge_of(unit_seconds, price)
        said: dict[str, Any] = {
            "claim": self.b.id, "to": self.a.id, "origin_run": run.id, "origin_job": run.job, "epoch": 1,
            "first_run": f"{self.a.id}#{run.id}",
            "run": "j-there.1", "job": "cn.b/job/j-there", "user": "alice", "owner": run.owner, "pool": run.pool,
            "unit": "core", "unit_count": CORES, "duration_ms": duration_ms, "unit_seconds": unit_seconds,
            "price_micro_cny_per_unit_hour": PRICE, "charge_micro_cny": charge.charge_micro_cny,
            "remainder": charge.remainder, "state": "succeeded", "ended_ms": self.a.now_ms,
            "site_receipt": reading(self, max(0, duration_ms)),
        }  # fmt: skip
        return UsageClaim(**(said | changes))

    def end(self, claim: UsageClaim | str, *, key: Key | None = None, node: Node | None = None) -> Outcome:
        keys = (node or self.b).keys
        receipt = claim if isinstance(claim, str) else sign_statement(claim, key or keys.key, keys.kid, CLAIM).decode()
        return self.say(Ended(run=self.run.id, epoch=1, state="succeeded", exit_codes=(0,), receipt=receipt))

    @property
    def usage(self) -> Usage:
        return self.a.usages[self.run.id]

    def answer(self) -> UsageAnswer:
        said, _ = open_statement(self.usage.answer.encode(), ANSWER, UsageAnswer)
        return said


def test_a_sound_claim_is_paid_and_the_answer_says_so() -> None:
    case = Case()
    outcome = case.end(case.claim())
    assert outcome.is_ok
    assert outcome.answer == case.usage.answer
    answer = case.answer()
    assert (answer.by, answer.run, answer.accepted_ms) == (case.a.id, "j-there.1", 9_000)
    assert answer.claim_sha256 == digest(case.usage.claim)
    assert (answer.charge_micro_cny, answer.disputed_micro_cny, answer.why) == (18_000_000, 0, None)
    assert (case.usage.charge_micro_cny, case.usage.disputed_micro_cny) == (18_000_000, 0)
    assert case.a.view.charged_micro_cny == 18_000_000


def test_what_goes_beyond_what_was_observed_is_disputed_and_not_billed() -> None:
    case = Case()
    outcome = case.end(case.claim(duration_ms=3_600_000))
    assert outcome.is_ok
    assert case.usage.duration_ms == 10_000  # from the offer to the report, by our clock
    assert case.usage.charge_micro_cny == 20_000_000
    assert case.usage.disputed_micro_cny == CORES * PRICE - 20_000_000
    why = case.answer().why
    assert why is not None
    assert (why.code, why.values) == ("claim_over_observed", {"claimed_us": 3_600_000_000, "observed_us": 10_000_000})
    (bill,) = bills_of([case.usage], "user")
    assert (bill.charge_micro_cny, bill.disputed_micro_cny) == (20_000_000, CORES * PRICE - 20_000_000)
    assert bill.lines[0].via == case.b.id


def test_nothing_is_paid_beyond_the_hold() -> None:
    case = Case(budget_micro_cny=17_000_000, grace_s=0)
    case.end(case.claim())
    assert 0 < case.usage.charge_micro_cny <= 17_000_000
    assert case.usage.charge_micro_cny + case.usage.disputed_micro_cny == 18_000_000
    assert case.answer().why.code == "claim_over_hold"


DIFFERENT: list[tuple[str, dict[str, Any]]] = [
    ("claim", {"claim": "cn.x/exchange/main"}),
    ("to", {"to": "cn.x/exchange/main"}),
    ("run", {"origin_run": "j-other.1"}),
    ("first_run", {"first_run": "cn.a/exchange/main#j-other.1"}),
    ("job", {"origin_job": "cn.a/job/j-other"}),
    ("epoch", {"epoch": 2}),
    ("user", {"user": "mallory"}),
    ("owner", {"owner": "cn.x"}),
    ("pool", {"pool": "cn.b.lab/pool/two"}),
    ("unit", {"unit": "accelerator"}),
    ("unit_count", {"unit_count": CORES + 1}),
    ("price_micro_cny_per_unit_hour", {"price_micro_cny_per_unit_hour": PRICE + 1}),
]


@pytest.mark.parametrize(("field", "changes"), DIFFERENT, ids=[case[0] for case in DIFFERENT])
def test_a_claim_that_names_something_else_is_disputed_whole(field: str, changes: dict[str, Any]) -> None:
    case = Case()
    claim = case.claim(**changes)
    case.end(claim)
    assert (case.usage.charge_micro_cny, case.usage.unit_seconds) == (0, 0)
    assert case.usage.disputed_micro_cny == claim.charge_micro_cny
    why = case.answer().why
    assert (why.code, why.values["field"]) == ("claim_differs", field)
    assert case.a.ended(case.job).state is JobState.SUCCEEDED  # what it did is not in dispute


@pytest.mark.parametrize(
    "changes",
    [
        {"charge_micro_cny": 18_000_001},
        {"remainder": 1},
        {"unit_seconds": 1_000},
        {"charge_micro_cny": -5},
        {"charge_micro_cny": 2**53 - 1},
        {"duration_ms": -1, "unit_seconds": 0},
    ],
)
def test_a_claim_that_does_not_add_up_is_disputed_whole(changes: dict[str, Any]) -> None:
    case = Case()
    claim = case.claim(**changes) if "duration_ms" in changes else replace(case.claim(), **changes)
    case.end(claim)
    assert case.usage.charge_micro_cny == 0
    assert case.usage.disputed_micro_cny == max(0, claim.charge_micro_cny)
    assert case.answer().why.code == "claim_sum"
    assert not adds_up(claim)


@pytest.mark.parametrize("forged", ["{}", "x", "another key", "another type", "cut"])
def test_a_claim_that_the_pinned_key_did_not_sign_pays_nothing_and_claims_nothing(forged: str) -> None:
    case = Case()
    keys = case.b.keys
    good = sign_statement(case.claim(), keys.key, keys.kid, CLAIM).decode()
    text = {
        "another key": sign_statement(case.claim(), Key(b"x" * 32), keys.kid, CLAIM).decode(),
        "another type": sign_statement(case.claim(), keys.key, keys.kid, METER).decode(),
        "cut": good[:-9] + good[-8:],
    }.get(forged, forged)
    case.end(text)
    assert (case.usage.charge_micro_cny, case.usage.disputed_micro_cny) == (0, 0)
    assert case.answer().why.code == "claim_signature"
    assert verify_usage(case.usage, keys_of(case.world))


def test_without_a_claim_nothing_is_billed_and_there_is_no_line() -> None:
    case = Case()
    outcome = case.end("")
    assert outcome == Outcome(is_ok=True)
    assert case.run.id not in case.a.usages
    assert case.a.ended(case.job).state is JobState.SUCCEEDED


def test_an_end_that_comes_again_with_another_claim_gets_the_first_answer() -> None:
    case = Case()
    first = case.end(case.claim())
    count = len(case.a.events)
    again = case.end(case.claim(duration_ms=9_500))
    assert again.answer == first.answer
    assert [type(each).__name__ for each in case.a.events[count:]] == ["ReportsTaken"]
    case.a.crash()
    assert case.end(case.claim()).answer == first.answer


def test_a_claim_for_a_run_that_was_fenced_is_answered_and_pays_nothing() -> None:
    case = Case()
    case.a.do(TakePeerReports(peer=case.b.id, reports=()))
    case.world.clock.advance(case.a.limits.branch_lost_ms + 1)
    case.world.cut(case.a, case.b)
    case.world.pass_ms(1_000)
    assert case.a.view.recent[case.run.id].state is RunState.LOST
    outcome = case.end(case.claim())
    assert outcome.what == "stale"
    said, _ = open_statement(outcome.answer.encode(), ANSWER, UsageAnswer)
    assert (said.charge_micro_cny, said.disputed_micro_cny, said.why.code) == (0, 18_000_000, "claim_stale")
    assert case.run.id not in case.a.usages


def test_a_forgotten_run_is_answered_where_the_claim_is_new_and_not_where_it_may_have_been_paid() -> None:
    case = Case()
    case.run = replace(case.run, id="j-forgotten.1")
    assert case.end(case.claim()).answer
    case.serial -= 1
    assert case.end(case.claim()).answer == ""
    case.serial += 10
    sold = sign_statement(case.claim(to="cn.x/exchange/main"), case.b.keys.key, case.b.keys.kid, CLAIM).decode()
    assert case.end(sold).answer == ""  # it is not made to us


# -- the site's own reading -------------------------------------------------------------------------------------------


def reading(case: Case, duration_ms: int, key: Key | None = None, site: str = "", first_run: str | None = None) -> str:
    said = MeterReading(
        site=site or case.run.site, run="j-there.1", epoch=1, state="succeeded", duration_ms=duration_ms,
        first_run=f"{case.a.id}#{case.run.id}" if first_run is None else first_run,
    )  # fmt: skip
    return sign_statement(said, key or case.b.site_key("one"), "cn.x#site", METER).decode()


def test_what_the_site_did_not_measure_is_disputed() -> None:
    case = Case()
    case.end(case.claim(site_receipt=reading(case, 4_000)))
    assert case.usage.charge_micro_cny == 8_000_000
    assert case.answer().why.code == "claim_over_meter"
    case = Case()
    case.end(case.claim(site_receipt=reading(case, 9_000)))
    assert case.usage.charge_micro_cny == 18_000_000


def test_without_the_sites_word_nothing_is_paid_where_its_key_is_known() -> None:
    case = Case()
    case.end(case.claim(site_receipt=""))
    assert (case.usage.charge_micro_cny, case.usage.disputed_micro_cny) == (0, 18_000_000)
    assert case.answer().why.code == "claim_over_meter"


@pytest.mark.parametrize("what", ["key", "site"])
def test_a_reading_that_is_not_the_sites_bears_nothing_out(what: str) -> None:
    case = Case()
    wrong = {"key": {"key": Key(b"x" * 32)}, "site": {"site": "cn.b.lab/site/two"}}[what]
    case.end(case.claim(site_receipt=reading(case, 9_000, **wrong)))
    assert case.usage.charge_micro_cny == 0
    assert case.answer().why.code == "claim_over_meter"


@pytest.mark.parametrize("first_run", ["", "cn.a/exchange/main#j-other.1", "cn.x/exchange/main#j-here.1"])
def test_a_reading_of_another_run_at_that_site_bears_nothing_out(first_run: str) -> None:
    """A longer run's reading is the site's own and sound; said again for a short one, it is found by its name."""
    case = Case()
    replayed = reading(case, 9_000, first_run=first_run)
    case.end(case.claim(site_receipt=replayed))
    assert (case.usage.charge_micro_cny, case.usage.disputed_micro_cny) == (0, 18_000_000)
    why = case.answer().why
    named = {"run": case.run.id, "said": first_run or "j-there.1", "claimed": f"{case.a.id}#{case.run.id}"}
    assert (why.code, why.values) == ("meter_differs", named)
    keys = keys_of(case.world)
    assert [each.code for each in verify_usage(case.usage, keys)] == ["meter_differs"]
    unknown = {name: key for name, key in keys.items() if name != case.run.site}
    assert [each.code for each in verify_usage(case.usage, unknown)] == ["meter_differs"]
    case = Case()
    case.end(case.claim(site_receipt=reading(case, 9_000)))
    assert verify_usage(case.usage, keys_of(case.world)) == ()
    codes = {each.code for each in verify_usage(replace(case.usage, run="j-other.1"), keys)}
    assert codes == {"line_differs"}


def test_a_run_has_one_name_on_its_whole_way_and_the_site_signs_it() -> None:
    world = Federation()
    a, hub, b = world.add("a"), world.add("hub"), world.add("b")
    b.join("lab", "one")
    world.join_up(hub, b)
    a.knows(b)  # its key is pinned; it is not used directly
    world.join_up(a, hub)
    world.pass_ms(2_000)
    (job,) = a.submit(task(cores=CORES))
    run = a.run_of(job)
    world.pass_ms(3_000)
    (guest,) = b.own_runs(RunState.OFFERED)
    first = f"{a.id}#{run.id}"
    assert offer_of(b.view, guest, b.now_ms).first_run == first
    b.accept(guest)
    b.start(b.view.runs[guest.id])
    world.pass_ms(8_000)
    b.end(b.view.runs[guest.id])
    world.pass_ms(5_000)
    (middle,) = hub.usages.values()
    ours = a.usages[run.id]
    assert ours.charge_micro_cny > 0
    said, _ = open_statement(ours.site_receipt.encode(), METER, MeterReading)
    assert said.first_run == first
    keys = keys_of(world)
    for line in (ours, middle, b.usages[guest.id]):
        assert verify_usage(line, keys) == ()
    claim, _ = open_statement(middle.claim.encode(), CLAIM, UsageClaim)
    other = replace(claim, first_run="cn.a/exchange/main#j-other.1")
    wrong = replace(middle, claim=sign_statement(other, b.keys.key, b.keys.kid, CLAIM).decode())
    assert {"meter_differs", "line_differs"} <= {each.code for each in verify_usage(wrong, keys)}


@pytest.mark.parametrize(
    ("changes", "paid_s"),
    [
        ({}, 6),
        ({"duration_ms": 2_000}, 2),
        ({"key": Key(b"x" * 32)}, 0),
        ({"run": "j-other.1"}, 0),
        ({"epoch": 2}, 0),
        ({"site": "cn.b.lab/site/two"}, 0),
    ],
)
def test_an_exchange_bills_what_its_own_sites_reading_bears_out(changes: dict[str, Any], paid_s: int) -> None:
    world = Federation()
    b = world.add("b")
    b.join("lab", "one")
    (job,) = b.submit(task(cores=1))
    run = b.run_of(job)
    b.accept(run)
    b.start(b.view.runs[run.id])
    world.clock.advance(6_000)
    key = changes.pop("key", None) or b.site_key("one")
    said = {"site": run.site, "run": run.id, "epoch": 1, "state": "succeeded", "duration_ms": 6_000, **changes}
    receipt = sign_statement(MeterReading(**said), key, "cn.x#site", METER).decode()
    b.end(b.view.runs[run.id], receipt=receipt, duration_ms=6_000)
    assert b.usages[run.id].charge_micro_cny == paid_s * 1_000_000
    assert bool(b.usages[run.id].site_receipt) == bool(paid_s)


# -- answers ----------------------------------------------------------------------------------------------------------


def settled() -> tuple[Federation, Node, Node, Usage, Usage]:
    """Both sides' lines of one run, of which a part is in dispute."""
    world = Federation()
    a, b = world.add("a"), world.add("b")
    b.join("lab", "one")
    world.join_up(a, b)
    (job,) = a.submit(task(cores=CORES))
    run = a.run_of(job)
    world.pass_ms(2_000)
    (guest,) = b.own_runs(RunState.OFFERED)
    b.accept(guest)
    b.start(b.view.runs[guest.id])
    world.pass_ms(8_000)
    a.ahead_ms -= 5_000  # our clock went back: we have observed less
    b.end(b.view.runs[guest.id])
    world.pass_ms(3_000)
    return world, a, b, a.usages[run.id], b.usages[guest.id]


def test_both_sides_books_differ_by_exactly_what_is_in_dispute() -> None:
    world, _, _, ours, theirs = settled()
    assert ours.disputed_micro_cny == theirs.given_disputed_micro_cny > 0
    assert ours.charge_micro_cny + ours.disputed_micro_cny == theirs.charge_micro_cny
    assert (ours.claim, ours.answer) == (theirs.given_claim, theirs.given_answer)
    for usage in (ours, theirs):
        assert verify_usage(usage, keys_of(world)) == ()
        (bill,) = bills_of([usage], "user")
        assert bill.disputed_micro_cny == ours.disputed_micro_cny


@pytest.mark.parametrize(
    "changes",
    [
        {"charge_micro_cny": 0},
        {"disputed_micro_cny": -1, "charge_micro_cny": 18_000_001},
        {"by": "cn.x/exchange/main"},
        {"claim_sha256": "0" * 64},
        {"accepted_ms": 10**9},
        {"accepted_ms": -1},
    ],
)
def test_an_answer_that_does_not_fit_the_claim_is_not_kept(changes: dict[str, Any]) -> None:
    world = Federation()
    a, b = world.add("a"), world.add("b")
    b.join("lab", "one")
    world.join_up(a, b)
    a.submit(task(cores=CORES))
    world.pass_ms(1_000)
    (guest,) = b.own_runs(RunState.OFFERED)
    b.accept(guest)
    world.cut(a, b)
    world.clock.advance(9_000)
    b.end(b.view.runs[guest.id])
    usage = b.usages[guest.id]
    good = UsageAnswer(
        claim_sha256=digest(usage.given_claim), by=a.id, run=guest.id, accepted_ms=9_000,
        charge_micro_cny=usage.charge_micro_cny,
    )  # fmt: skip
    assert usage.charge_micro_cny == 18_000_000

    def say(answer: UsageAnswer, key: Key) -> None:
        b.do(TakeAnswer(peer=a.id, answer=sign_statement(answer, key, a.keys.kid, ANSWER).decode()))

    with pytest.raises(TielineError):
        say(replace(good, **changes), a.keys.key)
    with pytest.raises(TielineError):
        say(good, Key(b"x" * 32))
    assert b.view.guests[a.id].unanswered
    say(good, a.keys.key)
    assert not b.view.guests[a.id].unanswered
    kept = b.usages[guest.id].given_answer
    say(replace(good, accepted_ms=1), a.keys.key)  # the first one stands
    assert b.usages[guest.id].given_answer == kept


# -- anybody can check ------------------------------------------------------------------------------------------------

TAMPERED: list[tuple[str, str, dict[str, Any]]] = [
    ("more charged", "ours", {"charge_micro_cny": 1}),
    ("less disputed", "ours", {"disputed_micro_cny": 0}),
    ("another run", "ours", {"run": "j-other.1"}),
    ("another job", "ours", {"job": "j-other"}),
    ("without the claim", "ours", {"claim": ""}),
    ("without the answer", "ours", {"answer": ""}),
    ("through another", "ours", {"via": "cn.x/exchange/main"}),
    *(
        (f"another {each}", side, {each: "x"})
        for side in ("ours", "theirs")
        for each in (
            "user",
            "owner",
            "pool",
            "unit",
            "site_receipt",
        )
    ),
    *(
        (f"another {each}", side, {each: 7})
        for side in ("ours", "theirs")
        for each in (
            "duration_ms",
            "cpu_ms",
            "max_memory_bytes",
        )
    ),
    ("more units at a lower price", "ours", {"unit_count": CORES * 2, "price_micro_cny_per_unit_hour": PRICE // 2}),
    ("at another time", "theirs", {"ended_ms": 1}),
    ("more charged", "theirs", {"charge_micro_cny": 1}),
    ("less disputed", "theirs", {"given_disputed_micro_cny": 0}),
    ("another run", "theirs", {"run": "j-other.1"}),
    ("longer", "theirs", {"duration_ms": 10**6}),
    ("without the claim", "theirs", {"given_claim": ""}),
    ("without the answer", "theirs", {"given_answer": ""}),
    ("for another", "theirs", {"origin": "cn.x/exchange/main"}),
]


@pytest.mark.parametrize(("side", "changes"), [case[1:] for case in TAMPERED], ids=[" ".join(c[:2]) for c in TAMPERED])
def test_whatever_was_changed_in_a_line_is_found(side: str, changes: dict[str, Any]) -> None:
    world, _, _, ours, theirs = settled()
    usage = ours if side == "ours" else theirs
    assert verify_usage(usage, keys_of(world)) == ()
    assert verify_usage(replace(usage, **changes), keys_of(world))


def test_what_was_used_for_nothing_is_bound_too() -> None:
    world = Federation()
    a, b = world.add("a"), world.add("b")
    b.join("lab", "one", price=0)
    world.join_up(a, b)
    (job,) = a.submit(task(cores=CORES))
    world.pass_ms(2_000)
    (guest,) = b.own_runs(RunState.OFFERED)
    b.accept(guest)
    b.start(b.view.runs[guest.id])
    world.pass_ms(8_000)
    b.end(b.view.runs[guest.id])
    world.pass_ms(3_000)
    for usage in (next(each for each in a.usages.values() if each.job == job.id), b.usages[guest.id]):
        assert (usage.charge_micro_cny, verify_usage(usage, keys_of(world))) == (0, ())
        assert verify_usage(replace(usage, unit_seconds=usage.unit_seconds - 1), keys_of(world))


def test_words_of_another_line_are_not_this_lines() -> None:
    world, _, _, ours, theirs = settled()
    other = settled()[3]
    keys = keys_of(world)
    assert {reason.code for reason in verify_usage(replace(ours, answer=other.claim), keys)} == {"answer_signature"}
    assert verify_usage(replace(ours, claim=theirs.given_answer), keys)
    without = {name: key for name, key in keys.items() if name != ours.via}
    assert "claim_signature" in {reason.code for reason in verify_usage(ours, without)}
    swapped = {**keys, ours.via: keys["cn.a/exchange/main"]}
    assert "claim_signature" in {reason.code for reason in verify_usage(ours, swapped)}


def test_a_line_of_our_own_site_needs_no_words() -> None:
    line = Usage(
        run="r", job="j", user="u", owner="o", pool="p", unit="core", unit_count=1, duration_ms=1_000, unit_seconds=1,
        price_micro_cny_per_unit_hour=3_600, charge_micro_cny=1, remainder=0,
    )  # fmt: skip
    assert verify_usage(line, {}) == ()
    assert [reason.code for reason in verify_usage(replace(line, charge_micro_cny=2), {})] == ["claim_sum"]
