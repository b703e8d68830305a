"""`bill verify`: lines that hold, and every way in which one does not, from a file alone."""

import hashlib
import json

import msgspec
import pytest

from tieline.cli.receipts import Receipts
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.settlement import Terms, claim_of, settle
from tieline.market import bills_of, usage_of
from tieline.model.job import Run, RunState
from tieline.model.peer import Origin
from tieline.registry import Key

replace = msgspec.structs.replace
A, B = "cn.a/exchange/main", "cn.b/exchange/main"
AT_MS = 1_763_000_000_000


def keys(prefix):
    return ExchangeKeys(Key(hashlib.sha256(prefix.encode()).digest()), prefix)


def run_of(name, **fields):
    return Run(
        id=name,
        job=f"cn.a/job/{name[:-2]}",
        epoch=1,
        state=RunState.SUCCEEDED,
        pool="cn.b.lab/pool/cpu",
        site="cn.b.lab/site/lab7",
        owner="cn.b.lab",
        user="ada",
        price_micro_cny_per_unit_hour=3_600_000_000,
        unit="core",
        unit_count=2,
        via=B,
        offered_ms=AT_MS,
        **fields,
    )


def line(name="j-1.1", claimed_ms=10_000, observed_ms=60_000):
    """A usage line of A for a run behind B that claims so much."""
    run = run_of(name)
    usage = usage_of(run, duration_ms=claimed_ms, ended_ms=AT_MS + claimed_ms)
    origin = Origin(peer=A, run=run.id, epoch=1, job=run.job, user="ada", first_run=f"{A}#{name}")
    claim = claim_of(B, keys("cn.b"), origin, run, usage, "succeeded")
    terms = Terms(A, keys("cn.a"), keys("cn.b").key.public, first_run=f"{A}#{name}")
    return settle(terms, run, claim, 10**12, AT_MS + observed_ms)


def receipts(*lines):
    said = {A: keys("cn.a").key.public, B: keys("cn.b").key.public}
    return Receipts(exchange=A, keys=said, lines=lines, bills=bills_of(lines, "user"))


@pytest.fixture
def verify(call, tmp_path):
    def work(what, *words):
        file = tmp_path / "receipts.json"
        file.write_bytes(msgspec.json.encode(what))
        done = call("bill", "verify", "--file", file, "--json", *words)
        assert done.exit_code in (0, 1), done.output
        found = json.loads(done.stdout)
        assert found["is_sound"] == (done.exit_code == 0)
        return {wrong["run"]: [why["code"] for why in wrong["reasons"]] for wrong in found["wrong"]}, found

    return work


def test_sound_lines_hold_without_an_exchange(verify):
    wrong, found = verify(receipts(line(), line("j-2.1")))
    assert wrong == {}
    assert (found["lines"], found["remote"], found["disputed_micro_cny"]) == (2, 2, 0)
    assert found["unpinned"] == [B]
    assert verify(receipts(line()), "--pin", f"{B}={keys('cn.b').key.public}")[1]["unpinned"] == []


def test_what_was_claimed_beyond_what_was_observed_is_in_dispute_and_the_line_holds(verify):
    wrong, found = verify(receipts(line(claimed_ms=90_000)))
    assert wrong == {}
    assert found["disputed_micro_cny"] == 60 * 1_000_000


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"charge_micro_cny": 1}, ["claim_sum", "line_differs", "line_differs"]),
        ({"disputed_micro_cny": 5}, ["line_differs"]),
        ({"claim": "{}"}, ["claim_signature", "answer_differs"]),
        ({"answer": ""}, ["answer_signature"]),
        ({"run": "j-9.1"}, ["line_differs"]),
    ],
)
def test_a_line_that_was_changed_is_named(verify, changes, codes):
    changed = replace(line(), **changes)
    wrong, _ = verify(receipts(changed, line("j-2.1")))
    assert list(wrong) == [changed.run]
    assert set(wrong[changed.run]) <= set(codes)
    assert wrong[changed.run]


def test_a_pinned_key_counts_instead_of_the_one_that_is_said(verify):
    other = keys("cn.evil").key.public
    wrong, _ = verify(receipts(line()), "--pin", f"{B}={other}")
    assert wrong == {"j-1.1": ["claim_signature"]}


def test_a_bill_that_is_not_its_lines_and_a_line_twice_are_named(verify):
    good = receipts(line(), line("j-2.1"))
    (bill,) = good.bills
    wrong, _ = verify(replace(good, bills=(replace(bill, charge_micro_cny=bill.charge_micro_cny - 1),)))
    assert wrong == {"ada": ["line_differs"]}
    wrong, _ = verify(replace(good, lines=(line(), line()), bills=()))
    assert wrong == {"j-1.1": ["line_differs"]}


def test_what_cannot_be_read_and_what_cannot_be_meant(call, tmp_path):
    file = tmp_path / "nothing.json"
    file.write_text("{}")
    assert "holds no receipts" in call("bill", "verify", "--file", file).output
    assert call("bill", "verify", "--file", file, "--pin", "x").exit_code == 2
    assert call("bill", "--receipts").exit_code == 2


def test_the_receipts_of_an_exchange_are_what_verify_reads(admin, tmp_path):
    file = tmp_path / "all.json"
    file.write_text(admin("bill", "--json", "--receipts").stdout)
    done = admin("bill", "verify", "--file", file)
    assert done.exit_code == 0, done.output
    assert "lines hold" in done.stderr
    assert admin("bill", "verify").exit_code == 0
