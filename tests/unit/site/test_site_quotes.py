"""Ask before you take: the owner's answer as listed, countered or refused."""

from __future__ import annotations

from typing import Any

import msgspec
from site_offers import NOW_MS, ask, cores, offer, pool, state

from tieline.model.protocol import Quoted
from tieline.model.task import Resources, Task
from tieline.site import Held, Phase, SiteState
from tieline.site.pool import Counter
from tieline.site.quotes import answer

FLOOR = Counter(price_floor_micro_cny=15_000_000, max_duration_s=7_200, start_after_s=30, ttl_s=90)


def busy(until_s: int | None, cards: int = 4, **fields: Any) -> SiteState:
    """A site whose cards are held, to an end that is known or not."""
    held = Held(
        offer=offer("j-1.1", accelerator_count=cards, stop_after_s=until_s or 0, grace_s=5),
        phase=Phase.RUNNING,
        devices=tuple(range(cards)),
        started_ms=NOW_MS,
    )
    return msgspec.structs.replace(state(pool(**fields)), runs={"j-1.1": held})


def test_without_a_counter_the_answer_is_as_listed():
    assert answer(state(), ask(duration_s=600), NOW_MS) == Quoted(
        quote="q-1", price_micro_cny_per_unit_hour=20_000_000, duration_s=600, ttl_s=60
    )
    assert (
        answer(state(), ask(asked_price_micro_cny_per_unit_hour=1), NOW_MS).price_micro_cny_per_unit_hour == 20_000_000
    )


def test_the_owner_meets_a_wish_down_to_its_floor():
    here = state(pool(counter=FLOOR))

    def price(asked: int) -> int:
        quoted = answer(here, ask(asked_price_micro_cny_per_unit_hour=asked), NOW_MS)
        return quoted.price_micro_cny_per_unit_hour

    assert price(18_000_000) == 18_000_000
    assert price(15_000_000) == 15_000_000
    assert price(9_000_000) == 15_000_000
    assert price(0) == 20_000_000
    assert price(25_000_000) == 20_000_000


def test_the_owner_bounds_the_duration_and_wants_notice():
    quoted = answer(state(pool(counter=FLOOR)), ask(duration_s=9_000), NOW_MS)
    assert (quoted.duration_s, quoted.start_after_s, quoted.ttl_s) == (7_200, 30, 90)
    assert answer(state(pool(counter=FLOOR)), ask(duration_s=60), NOW_MS).duration_s == 60
    assert answer(state(pool(counter=FLOOR)), ask(), NOW_MS).duration_s == 7_200


def test_a_busy_pool_says_when_it_will_be_free():
    quoted = answer(busy(600), ask(), NOW_MS)
    assert (quoted.is_refused, quoted.start_after_s) == (False, 605)
    assert answer(busy(10, counter=FLOOR), ask(), NOW_MS).start_after_s == 30


def test_a_pool_whose_runs_have_no_end_refuses():
    quoted = answer(busy(None), ask(), NOW_MS)
    assert quoted.is_refused
    assert quoted.reason is not None
    assert quoted.reason.code == "accelerators_free"


def test_a_question_that_no_offer_could_follow_is_refused_with_the_same_reason():
    cases = {
        "pool_not_here": (state(), ask(pool="cn.demo.lab7/pool/x")),
        "site_draining": (state(is_drained_by_owner=True), ask()),
        "accelerators_total": (state(), ask(unit_count=9)),
        "policy_not_met": (state(pool(policy='user == "bob"')), ask()),
        "offer_wrong": (state(), ask(alternative=3)),
        "sandbox_missing": (state(pool(sandbox="")), ask()),
        "image_not_offered": (state(), ask(task=Task(resources=(Resources(accelerator="a100", image="u"),)))),
    }
    for code, (here, question) in cases.items():
        quoted = answer(here, question, NOW_MS)
        assert quoted.is_refused, code
        assert quoted.reason is not None
        assert quoted.reason.code == code


def test_cores_are_quoted_by_the_core():
    here = state(cores(core_count=4))
    question = ask(
        pool=f"{cores().id}", unit_count=4, task=Task(run="x", is_trusted=True, resources=(Resources(core_count=4),))
    )
    assert not answer(here, question, NOW_MS).is_refused
    assert answer(here, msgspec.structs.replace(question, unit_count=5), NOW_MS).reason.code == "cores_total"  # type: ignore[union-attr]
