"""What an exchange takes of a peer's offer, and what it refuses with which reason; nothing of a refusal is kept."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from branches_world import PRICE, Federation, Node
from exchange_world import ADMIN, task

from tieline.exchange import hosting
from tieline.exchange.commands import ChangePeer, TakeAnswer, TakeOffer, TakePeerReports, TakeRoll, TakeStop, Tick
from tieline.exchange.orders import offer_of
from tieline.model.error import TielineError
from tieline.model.event import RunOffered
from tieline.model.job import JobState, RunState
from tieline.model.peer import ANSWER, DelegatedToken, UsageAnswer
from tieline.model.project import Quota, Spending
from tieline.model.protocol import Accepted, Ended, Lost, Offer, PeerReport, Refused, Roll, Started
from tieline.model.task import Resources
from tieline.registry import Key, sign_statement
from tieline.registry.delegated import sealed_token

replace = msgspec.structs.replace
POOL = "cn.b.lab/pool/one"


def world(**grants: Any) -> tuple[Federation, Node, Node]:
    """A may use B, and nothing is sent by itself."""
    found = Federation(loss=1.0)
    a, b = found.add("a"), found.add("b")
    b.join("lab", "one", cores=8, accelerator="a100", accelerator_count=8)
    b.join("lab", "plain", cores=8)
    found.join_up(a, b, **grants)
    return found, a, b


def offered(a: Node, cards: int = 2, **fields: Any) -> Offer:
    """The order that A's placing makes of a job for some cards."""
    resources = (Resources(accelerator="a100", accelerator_count=cards),) if cards else (Resources(core_count=2),)
    (job,) = a.submit(task(resources=resources, **fields))
    return offer_of(a.view, a.run_of(job), a.now_ms)


def answer(b: Node, offer: Offer, peer: str = "cn.a/exchange/main") -> Any:
    return b.do(TakeOffer(peer=peer, offer=offer)).reports


def token(a: Node, offer: Offer, *, key: Key | None = None, **changes: Any) -> Offer:
    """The offer with another token, signed by A unless told otherwise."""
    now_s = a.now_ms // 1_000
    said = {
        "id": offer.run, "by": a.id, "to": "cn.b/exchange/main", "user": offer.user, "scopes": ("run",), "nb_s": now_s,
        "exp_s": now_s + 600, "job": offer.job, "run": offer.run, "pool": offer.pool, **changes,
    }  # fmt: skip
    return replace(offer, token=sealed_token(DelegatedToken(**said), key or a.keys.key, a.keys.kid))


def test_an_offer_becomes_a_job_bound_to_its_pool_and_is_answered_with_what_there_is_to_say() -> None:
    _, a, b = world()
    offer = offered(a, max_duration_s=100, priority=9, deadline_s=1_000)
    assert answer(b, offer) == ()
    (job,) = b.view.jobs.values()
    assert (job.quote_pool, job.quote_price_micro_cny) == (POOL, PRICE)
    assert (job.task.priority, job.task.deadline_s, job.task.retry.limit) == (0, 0, 0)
    assert job.task.max_duration_s == offer.stop_after_s == 100
    assert job.origin.token == offer.run
    assert offer.token not in repr(job)
    (run,) = b.own_runs(RunState.OFFERED)
    assert run.stop_after_s == offer.stop_after_s
    assert answer(b, offer) == ()
    assert len(b.view.jobs) == 1
    b.accept(run)
    b.start(b.view.runs[run.id])
    again = replace(offer, state="running")
    assert [type(each) for each in answer(b, again)] == [Accepted, Started]
    b.end(b.view.runs[run.id])
    said = answer(b, again)
    assert [type(each) for each in said] == [Accepted, Started, Ended]
    assert (said[-1].run, said[-1].epoch) == (offer.run, offer.epoch)
    assert said[-1].receipt == b.usages[run.id].given_claim


CHANGED: list[tuple[str, Any, str]] = [
    ("another pool", {"pool": "cn.b.lab/pool/none"}, "token_bound"),
    ("another user", {"user": "root"}, "token_bound"),
    ("another run", {"run": "j-other.1"}, "token_bound"),
    ("no token", {"token": ""}, "token_form"),
    ("not its way", {"path": ("cn.x/exchange/main",)}, "path_wrong"),
    ("no way", {"path": ()}, "path_wrong"),
    ("been here", {"path": ("cn.b/exchange/main", "cn.a/exchange/main")}, "path_loops"),
    ("a loop", {"path": ("cn.a/exchange/main", "x", "cn.a/exchange/main")}, "path_loops"),
    ("too far", {"path": ("x", "y", "z", "cn.a/exchange/main")}, "path_long"),
    ("no first name", {"first_run": ""}, "offer_wrong"),
    ("another's first name", {"first_run": "cn.x/exchange/main#j-1.1"}, "offer_wrong"),
    ("the name of another run", {"first_run": "cn.a/exchange/main#j-other.1"}, "offer_wrong"),
    ("a first name without end", {"first_run": "cn.a/exchange/main#" + "x" * 201}, "offer_wrong"),
    ("too cheap", {"price_micro_cny_per_unit_hour": PRICE - 1}, "price_differs"),
    ("other units", {"accelerator_count": 1}, "units_differ"),
    ("less than nothing", {"accelerator_count": -2}, "offer_wrong"),
    ("less than no cores", {"core_count": -2}, "offer_wrong"),
    ("ends before it begins", {"stop_after_s": -1}, "offer_wrong"),
    ("dearer than money", {"price_micro_cny_per_unit_hour": 2**60}, "offer_wrong"),
    ("no checkpoint", {"checkpoint": "../x"}, "offer_wrong"),
    ("no alternative", {"alternative": 1}, "offer_wrong"),
    ("negative alternative", {"alternative": -1}, "offer_wrong"),
    ("secrets that its task does not name", {"sealed": "AAAA"}, "secrets_missing"),
    ("no secrets with a task that has some", {"task": task(secrets=("KEY",))}, "secrets_missing"),
    ("no token with a task that has one", {"task": task(token=("stop",))}, "secrets_missing"),
]


@pytest.mark.parametrize(("changes", "code"), [case[1:] for case in CHANGED], ids=[case[0] for case in CHANGED])
def test_what_is_wrong_with_an_offer_is_refused_by_name(changes: dict[str, Any], code: str) -> None:
    _, a, b = world()
    offer = replace(offered(a), **changes)
    (refused,) = answer(b, offer)
    assert isinstance(refused, Refused)
    assert (refused.run, refused.epoch) == (offer.run, offer.epoch)
    assert refused.reason.code == code
    assert not b.view.jobs
    assert not b.view.supply.demands
    assert a.id not in b.view.guests


TOKENS: list[tuple[str, dict[str, Any], str]] = [
    ("signed by another key", {"key": Key(b"x" * 32)}, "signature_wrong"),
    ("for another exchange", {"to": "cn.x/exchange/main"}, "token_to"),
    ("by another exchange", {"by": "cn.x/exchange/main"}, "token_by"),
    ("over", {"nb_s": 1_762_000_000, "exp_s": 1_762_000_600}, "token_expired"),
    ("not yet", {"nb_s": 1_764_000_000, "exp_s": 1_764_000_600}, "token_early"),
    ("of another scope", {"scopes": ("read:log",)}, "scope_missing"),
    ("for another run", {"run": "j-other.1"}, "token_bound"),
    ("for any run", {"run": ""}, "offer_wrong"),
    ("for any job", {"job": ""}, "offer_wrong"),
    ("for any pool", {"pool": ""}, "offer_wrong"),
]


@pytest.mark.parametrize(("changes", "code"), [case[1:] for case in TOKENS], ids=[case[0] for case in TOKENS])
def test_a_token_carries_what_the_run_needs_and_nothing_else(changes: dict[str, Any], code: str) -> None:
    _, a, b = world()
    (refused,) = answer(b, token(a, offered(a), **changes))
    assert isinstance(refused, Refused)
    assert refused.reason.code == code
    assert not b.view.jobs


def test_the_token_of_an_offer_ends_with_the_limits_of_its_run() -> None:
    _, a, _ = world()
    for wish, life_s in ((offered(a, max_duration_s=100), 100 + 5 + 3_600), (offered(a), 86_400)):
        _, payload, _ = wish.token.removeprefix("tld.").split(".")
        said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert said["exp_s"] - said["nb_s"] == life_s
        assert (said["user"], said["run"], said["scopes"]) == ("alice", wish.run, ["run"])


@pytest.mark.parametrize(
    ("quota", "what"),
    [
        (Quota(card_count=5), "cards"),
        (Quota(card_hours=2), "card-hours"),
        (Quota(micro_cny=2 * PRICE), "money"),
    ],
)
def test_a_quota_binds_over_live_runs_and_over_what_the_month_has_used(quota: Quota, what: str) -> None:
    _, a, b = world(quota=quota)
    first, second = offered(a, 3, max_duration_s=1_200), offered(a, 3, max_duration_s=1_800)
    assert answer(b, first) == ()
    (refused,) = answer(b, second)
    assert refused.reason.code == "peer_quota"
    assert refused.reason.values["what"] == what
    (run,) = b.own_runs(RunState.OFFERED)
    b.refuse(run)
    assert answer(b, second) == ()


def test_a_quota_of_cores_is_of_pools_that_sell_cores() -> None:
    _, a, b = world(quota=Quota(core_count=3))
    cards, one, two = offered(a), offered(a, 0), offered(a, 0)
    assert answer(b, cards) == ()
    assert answer(b, one) == ()
    (refused,) = answer(b, two)
    assert refused.reason.values["what"] == "cores"


def test_cards_are_not_offered_for_a_pool_of_cores() -> None:
    _, a, b = world()
    (refused,) = answer(b, replace(offered(a, 0), accelerator_count=1))
    assert refused.reason.code == "units_differ"


def test_what_was_used_this_month_counts_and_last_month_does_not() -> None:
    _, a, b = world(quota=Quota(micro_cny=1_000))
    b.view.spent[(a.id, "2025-10")] = Spending(project=a.id, month="2025-10", charge_micro_cny=5_000)
    offer = offered(a)
    b.view.spent[(a.id, "2025-11")] = Spending(project=a.id, month="2025-11", charge_micro_cny=1_001)
    (refused,) = answer(b, offer)
    assert refused.reason.code == "peer_quota"
    del b.view.spent[(a.id, "2025-11")]
    assert answer(b, offer) == ()


def test_a_peer_that_may_not_use_us_or_answers_no_claims_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found, a, b = world()
    offer = offered(a)
    b.knows(a, may_use=False)
    assert answer(b, offer)[0].reason.code == "use_not_granted"
    b.knows(a, may_use=True)
    monkeypatch.setattr("tieline.exchange.hosting.MOST_UNANSWERED", 1)
    assert answer(b, offer) == ()
    (run,) = b.own_runs(RunState.OFFERED)
    b.accept(run)
    found.clock.advance(1_000)
    b.end(b.view.runs[run.id])
    assert answer(b, offered(a))[0].reason.code == "claims_waiting"
    with pytest.raises(TielineError, match="no active peer"):
        answer(b, offer, "cn.x/exchange/main")


def test_a_newer_attempt_at_the_same_job_fences_the_older_one() -> None:
    _, a, b = world()
    offer = offered(a)
    assert answer(b, offer) == ()
    (old,) = b.own_runs(RunState.OFFERED)
    b.accept(old)
    again = offer.run.replace(".1", ".2")
    newer = token(a, replace(offer, run=again, first_run=f"{a.id}#{again}", epoch=2), run=again)
    assert answer(b, newer) == ()
    assert b.view.recent[old.id].state is RunState.LOST
    (run,) = b.own_runs(RunState.OFFERED)
    assert b.view.jobs[run.job].origin.epoch == 2
    older = replace(offer, epoch=7)
    assert answer(b, older)[0].reason.code == "epoch_stale"
    assert isinstance(answer(b, offer)[-1], Lost)


def test_a_run_that_goes_on_over_there_and_is_not_known_here_is_lost() -> None:
    _, a, b = world()
    (lost,) = answer(b, replace(offered(a), state="running"))
    assert isinstance(lost, Lost)
    assert lost.reason.code == "run_unknown"
    assert not b.view.jobs


def test_an_offer_that_finds_no_place_in_time_is_refused() -> None:
    found, a, b = world()
    offers = [offered(a, 6), offered(a, 2)]
    assert answer(b, offers[0]) == ()
    late = token(a, replace(offers[1], ttl_ms=3_000, accelerator_count=2))
    b.submit(task(resources=(Resources(accelerator="a100", accelerator_count=2),)))  # our own user was faster
    (refused,) = answer(b, late)
    assert refused.reason.code == "accelerators_free"
    found.pass_ms(40_000, is_looking=False)
    assert not b.view.guests[a.id].live
    assert isinstance(answer(b, offers[0])[-1], Lost)


def test_an_order_to_stop_a_run_that_is_not_there_says_nothing_and_does_nothing() -> None:
    _, a, b = world()
    offer = offered(a)
    answer(b, offer)
    for run, epoch in (("j-none.1", 1), (offer.run, 2)):
        assert b.do(TakeStop(peer=a.id, run=run, epoch=epoch, is_fenced=True)) == ()
    assert b.view.guests[a.id].live
    assert b.do(TakeStop(peer=a.id, run=offer.run, epoch=1)) == ()
    (job,) = [each for each in b.events if type(each).__name__ == "JobEnded"]
    assert job.state is JobState.CANCELLED
    (ended,) = b.do(TakeStop(peer=a.id, run=offer.run, epoch=1))
    assert ended.state == "stopped"
    assert ended.is_start_failure


def test_a_roll_fences_what_it_does_not_name_and_what_is_newer_than_it_stays() -> None:
    found, a, b = world()
    one = offered(a)
    found.clock.advance(1_000)
    two = offered(a)
    answer(b, one)
    answer(b, two)
    assert b.do(TakeRoll(peer=a.id, roll=Roll(at_ms=one.offered_ms, runs=()))) == ()
    assert b.do(TakeRoll(peer=a.id, roll=Roll(at_ms=two.offered_ms, runs=()))) == (one.run,)
    assert list(b.view.guests[a.id].live) == [two.run]
    assert b.do(TakeRoll(peer=a.id, roll=Roll(at_ms=two.offered_ms + 1, runs=(two.run,)))) == ()


def test_a_roll_that_names_nothing_fences_a_bounded_number_at_once_and_ticks_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosting, "MOST_FENCED", 2)
    found, a, b = world()
    offers = [offered(a, cards=1) for _ in range(6)]
    for offer in offers:
        answer(b, offer)
    live = b.view.guests[a.id].live
    found.clock.advance(1_000)
    at_ms = a.now_ms
    kept = offers[4].run
    assert b.do(TakeRoll(peer=a.id, roll=Roll(at_ms=at_ms, runs=()))) == (offers[0].run, offers[1].run)
    assert list(live) == [offer.run for offer in offers[2:]]
    assert b.do(TakeRoll(peer=a.id, roll=Roll(at_ms=1, runs=(kept,)))) == ()  # what it says of older ones holds
    before = len(b.events)
    b.do(Tick())
    assert list(live) == [kept, offers[5].run]
    codes = [each.reason.code for each in b.events[before:] if type(each).__name__ == "RunEnded"]
    assert codes == ["run_fenced", "run_fenced"]
    b.do(Tick())
    b.do(Tick())
    assert list(live) == [kept]
    assert not b.view.guests[a.id].unnamed


def test_the_runs_of_a_peer_that_is_none_any_more_are_asked_to_stop_a_bounded_number_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosting, "MOST_STOPPED", 2)
    _, a, b = world()
    for _ in range(5):
        answer(b, offered(a, cards=1))
    for run in b.own_runs(RunState.OFFERED):
        b.accept(run)
    b.do(ChangePeer(actor=ADMIN, peer=a.id, what="remove"))

    def asked() -> int:
        return sum(run.is_stop_requested for run in b.own_runs(RunState.ACCEPTED))

    counts = [asked()]
    for _ in range(4):
        b.do(Tick())
        counts.append(asked())
    assert counts == [0, 2, 4, 5, 5]


def test_reports_of_anybody_else_are_not_believed() -> None:
    found, a, b = world()
    c = found.add("c")
    a.knows(c)
    offer = offered(a)
    accepted = PeerReport(serial=1, report=Accepted(run=offer.run, epoch=offer.epoch))
    (outcome,) = a.do(TakePeerReports(peer=c.id, session="s1", reports=(accepted,)))
    assert (outcome.is_ok, outcome.what) == (False, "unknown")
    assert a.view.runs[offer.run].state is RunState.OFFERED
    with pytest.raises(TielineError):
        a.do(TakePeerReports(peer="cn.x/exchange/main", session="s1", reports=(accepted,)))
    (outcome,) = a.do(TakePeerReports(peer=b.id, session="s1", reports=(accepted,)))
    assert outcome.is_ok
    assert a.view.peers[b.id].reports_after == 1


def test_repeats_gaps_and_wrong_epochs_are_answered_like_a_sites() -> None:
    _, a, b = world()
    offer = offered(a)

    def say(serial: int, report: Any) -> Any:
        return a.do(TakePeerReports(peer=b.id, session="s1", reports=(PeerReport(serial=serial, report=report),)))[0]

    assert say(5, Accepted(run=offer.run, epoch=2)).what == "stale"
    assert say(9, Accepted(run=offer.run, epoch=1)).is_ok
    assert say(9, Accepted(run=offer.run, epoch=1)).is_ok
    assert say(3, Started(run=offer.run, epoch=1)).is_ok
    assert a.view.runs[offer.run].state is RunState.RUNNING
    assert a.view.peers[b.id].reports_after == 9
    assert say(10, Started(run="j-none.1", epoch=1)).what == "stale"
    assert len([each for each in a.events if isinstance(each, RunOffered)]) == 1


def test_reports_of_one_run_are_taken_one_after_the_other() -> None:
    _, a, b = world()
    offer = offered(a)
    reports = (
        PeerReport(serial=1, report=Accepted(run=offer.run, epoch=1)),
        PeerReport(serial=2, report=Started(run=offer.run, epoch=1)),
    )
    assert len(a.do(TakePeerReports(peer=b.id, session="s1", reports=reports))) == 1
    assert a.view.peers[b.id].reports_after == 1
    assert len(a.do(TakePeerReports(peer=b.id, session="s1", reports=reports[1:]))) == 1
    assert a.view.runs[offer.run].state is RunState.RUNNING


def test_an_answer_to_no_claim_of_ours_changes_nothing() -> None:
    _, a, b = world()
    said = UsageAnswer(claim_sha256="0" * 64, by=a.id, run="j-none.1", accepted_ms=0, charge_micro_cny=0)
    text = sign_statement(said, a.keys.key, a.keys.kid, ANSWER).decode()
    count = len(b.events)
    assert b.do(TakeAnswer(peer=a.id, answer=text)) is None
    assert len(b.events) == count
    with pytest.raises(TielineError):
        b.do(TakeAnswer(peer=a.id, answer="{}"))
