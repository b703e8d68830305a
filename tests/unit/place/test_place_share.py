"""Fair share: the project that holds least goes first, guarantees come before loans, and nobody waits for ever."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest

from tieline.model.project import Project, Quota
from tieline.model.reason import sentence
from tieline.place import Amount
from tieline.place import share as engine
from tieline.place.queue import turn_ms
from tieline.place.share import FULL_MS, HOUR_MS, NO_BOUND, Over, Shares, Use, first_over

ALL = Amount(100, 1_000, 10_000)


def project(name, cards=0, **more):
    fields = {key: more.pop(key) for key in ("weight", "may_borrow") if key in more}
    return Project(id=name, quota=Quota(card_count=cards, **more), **fields)


def cards(count):
    return Amount(accelerators=count)


# -- whose turn it is -------------------------------------------------------------------------------------------------


def test_the_example_of_the_paper_ends_as_it_does_there():
    """Ghodsi et al., NSDI 2011, section 4.1: 9 cores and 18 GB, tasks of <1, 4> and <3, 1>: three of A and two of B."""
    assert filled(Amount(0, 9, 18), {"a": (Amount(0, 1, 4), 1), "b": (Amount(0, 3, 1), 1)}) == {"a": 3, "b": 2}


def filled(capacity, tasks, shares_of=Shares):
    """Give each project in its turn one task more until the next one does not fit."""
    shares = shares_of(capacity, [project(name, weight=weight) for name, (_, weight) in tasks.items()])
    free, counts = capacity, dict.fromkeys(tasks, 0)
    while True:
        name = min(tasks, key=lambda name: (shares.turn_ms(name, 0), name))
        asked = tasks[name][0]
        free = Amount(*(has - more for has, more in zip(free, asked, strict=True)))
        if min(free) < 0:
            return counts
        shares.hold(name, asked)
        counts[name] += 1


def defined(capacity, tasks):
    """Algorithm 1 of the paper with exact fractions and weights, written from it and from nothing here."""
    used, counts = [0, 0, 0], dict.fromkeys(tasks, 0)
    while True:
        by_share = {}
        for name, (asked, weight) in tasks.items():
            parts = [Fraction(counts[name] * asked[at], capacity[at]) for at in range(3) if capacity[at]]
            by_share[name] = max(parts) / weight
        name = min(tasks, key=lambda name: (by_share[name], name))
        used = [has + more for has, more in zip(used, tasks[name][0], strict=True)]
        if any(has > most for has, most in zip(used, capacity, strict=True)):
            return counts
        counts[name] += 1


def drawn_filling(seed):
    draw = Random(seed)
    capacity = Amount(*(draw.randint(8, 60) for _ in range(3)))
    names = "abcd"[: draw.randint(2, 4)]
    return capacity, {name: (Amount(*(draw.randint(1, 4) for _ in range(3))), draw.randint(1, 3)) for name in names}


def differs(shares_of, seeds=300):
    return sum(filled(*drawn_filling(seed), shares_of) != defined(*drawn_filling(seed)) for seed in range(seeds))


def test_turns_give_what_the_definition_gives():
    assert differs(Shares) == 0


class WithoutWeight(Shares):
    def turn_ms(self, project, turn_ms):
        weight = self._known(project).project.weight
        return turn_ms + (super().turn_ms(project, turn_ms) - turn_ms) * weight


class CardsAlone(Shares):
    def _parts(self, account):
        return super()._parts(account)[:1]


class Summed(Shares):
    def _parts(self, account):
        return [(sum(account.held), sum(self.capacity))]


@pytest.mark.parametrize("planted", [WithoutWeight, CardsAlone, Summed])
def test_a_mistake_in_the_share_is_seen(planted):
    assert differs(planted) > 30


def test_the_share_is_that_of_what_a_project_holds_most_of_by_its_weight():
    shares = Shares(ALL, [project("a", weight=2)])
    shares.hold("a", Amount(10, 500, 100))
    assert shares.standing("a").share == Fraction(1, 4)
    assert shares.turn_ms("a", 7) == 7 + FULL_MS // 4


def test_a_turn_never_comes_before_its_own_grows_with_what_is_held_and_has_an_end():
    shares = Shares(ALL)
    seen = []
    for _ in range(12):
        seen.append(shares.turn_ms("a", 1_000))
        shares.hold("a", cards(10))  # 120 of 100 in the end: a pool went away
    assert (seen[0], seen[-1]) == (1_000, 1_000 + FULL_MS)
    assert seen == sorted(seen)
    for _ in range(12):
        shares.release("a", cards(10))
    assert shares.turn_ms("a", 1_000) == 1_000


def test_who_holds_everything_still_goes_before_what_comes_a_day_later():
    shares = Shares(ALL)
    shares.hold("hog", ALL)
    old = shares.turn_ms("hog", turn_ms(-1_000, 0))
    bound_ms = 2 * FULL_MS + 2_000 * 60_000
    assert old <= shares.turn_ms("new", turn_ms(1_000, bound_ms))
    assert old > shares.turn_ms("new", turn_ms(1_000, 0))


def test_capacity_that_went_away_counts_as_all_of_it():
    shares = Shares(Amount(0, 10, 10))
    shares.hold("a", cards(1))
    assert (shares.standing("a").share, shares.turn_ms("a", 0)) == (1, FULL_MS)


# -- quotas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "is_refused"), [(3, False), (4, True)])
def test_who_may_not_borrow_stops_at_its_cards(asked, is_refused):
    shares = Shares(ALL, [project("a", 8, may_borrow=False)])
    shares.hold("a", cards(5))
    reason = shares.refusal("a", cards(asked))
    assert (reason is not None) == is_refused
    if reason is not None:
        assert (reason.code, reason.values) == ("quota_cards", {"project": "a", "used": 5, "bound": 8, "asked": 4})


def test_cores_are_counted_where_there_are_no_cards_and_are_not_lent():
    shares = Shares(ALL, [project("a", core_count=100)])
    shares.hold("a", Amount(8, 400, 0))  # beside cards: not of this quota
    shares.hold("a", Amount(0, 90, 0))
    assert shares.refusal("a", Amount(0, 10, 0)) is None
    assert shares.refusal("a", Amount(8, 64, 0)) is None
    reason = shares.refusal("a", Amount(0, 11, 0))
    assert reason is not None
    assert (reason.code, reason.values["used"]) == ("quota_cores", 90)
    shares.release("a", Amount(0, 90, 0))
    assert shares.refusal("a", Amount(0, 100, 0)) is None


def test_card_hours_of_the_month_end_with_the_last_second_of_the_cards():
    shares = Shares(ALL, [project("a", card_hours=2)])
    shares.use("a", 2 * HOUR_MS - 8_000, 0)
    assert shares.refusal("a", cards(8)) is None
    assert shares.refusal("a", cards(8), least_s=2) is not None
    left = shares.left("a")
    assert (left.card_ms, left.run_s(8), left.run_s(3), left.run_s(2, 3), left.run_s(0)) == (8_000, 1, 2, 1, None)
    reason = shares.refusal("a", cards(9))
    assert reason is not None
    assert (reason.code, reason.values) == ("quota_card_hours", {"project": "a", "used": 2, "bound": 2})
    assert shares.refusal("a", Amount(0, 50, 0)) is None


def test_money_of_the_month_bounds_whatever_is_asked():
    shares = Shares(ALL, [project("a", micro_cny=5_000_000)])
    shares.use("a", 0, 4_999_999)
    assert shares.refusal("a", Amount(0, 1, 0)) is None
    assert shares.left("a").micro_cny == 1
    shares.use("a", 0, 5_000_000)
    reason = shares.refusal("a", Amount(0, 1, 0))
    assert reason is not None
    assert reason.code == "quota_money"
    assert shares.left("a").micro_cny == 0


def test_what_is_pledged_to_live_runs_counts_beside_what_was_spent():
    shares = Shares(ALL, [project("a", card_hours=2, micro_cny=100)])
    shares.use("a", HOUR_MS, 40)
    shares.hold("a", cards(4), HOUR_MS // 2, 50)
    assert shares.left("a") == (HOUR_MS // 2, 10)
    shares.use("a", 0, 0)  # a new month began while the run lives
    assert shares.left("a") == (3 * HOUR_MS // 2, 50)
    with pytest.raises(AssertionError):
        shares.release("a", cards(4), HOUR_MS, 50)
    shares.release("a", cards(4), HOUR_MS // 2, 50)
    assert shares.left("a") == (2 * HOUR_MS, 100)


def test_without_a_quota_nothing_is_bounded():
    shares = Shares(ALL, [project("a")])
    shares.hold("a", ALL)
    shares.use("a", 10**15, 10**15)
    assert shares.refusal("a", ALL) is None
    assert shares.left("a") == NO_BOUND
    assert shares.left("a").run_s(4) is None


def test_a_lowered_quota_refuses_only_more_of_the_same():
    shares = Shares(ALL, [project("a", 2, core_count=2, may_borrow=False)])
    shares.hold("a", cards(4))
    shares.hold("a", Amount(0, 1, 0))
    assert shares.refusal("a", cards(1)) is not None
    assert shares.refusal("a", Amount(0, 1, 0)) is None


# -- borrowing --------------------------------------------------------------------------------------------------------


def lending():
    shares = Shares(ALL, [project("a", 40), project("b", 40), project("c", 20)])
    shares.hold("a", cards(40))
    return shares


def test_who_borrows_goes_after_who_comes_by_right_for_a_day_and_no_longer():
    shares = lending()
    by_right, borrowing = shares.turn_ms("b", 0, 40), shares.turn_ms("b", 0, 41)
    assert (by_right, borrowing) == (0, FULL_MS)
    assert shares.turn_ms("a", 0, 1) == FULL_MS * 40 // 100 + FULL_MS
    assert shares.turn_ms("a", 0) == FULL_MS * 40 // 100, "cores are had by nobody's right"
    assert shares.turn_ms("", 0, 1) == FULL_MS, "nothing is guaranteed to who is in no project"


def test_where_nothing_is_guaranteed_nobody_borrows():
    shares = Shares(ALL, [project("a"), project("b", weight=2)])
    shares.hold("a", cards(10))
    assert (shares.turn_ms("a", 0, 5), shares.turn_ms("b", 0, 5)) == (FULL_MS // 10, 0)


def test_what_is_held_beyond_the_guarantee_is_borrowed():
    shares = lending()
    shares.hold("a", cards(9))
    shares.hold("", cards(3))
    assert [shares.borrowed(name) for name in ("a", "b", "")] == [9, 0, 3]
    assert (shares.is_by_right("b", 40), shares.is_by_right("b", 41), shares.is_by_right("a", 1)) == (
        True,
        False,
        False,
    )
    assert not shares.is_by_right("b", 0)


def test_a_changed_quota_counts_at_once():
    shares = lending()
    shares.put(project("a", 4))
    assert shares.standing("a").borrowed == 36
    shares.put(project("a"))
    shares.put(project("b"))
    shares.put(project("c"))
    assert shares.turn_ms("b", 0, 5) == 0, "nothing is guaranteed to anybody any more"


def test_asking_changes_nothing_and_more_than_is_held_cannot_come_back():
    shares = lending()
    before = [shares.standing(name) for name in "abc"]
    shares.refusal("nobody", cards(5))
    shares.turn_ms("nobody", 5, 5)
    for wrong in (cards(41), Amount(0, 1, 0)):
        with pytest.raises(AssertionError):
            shares.release("a", wrong)
    assert [shares.standing(name) for name in "abc"] == before
    assert "nobody" not in shares._accounts


def test_every_reason_has_its_numbers_in_both_languages():
    values = {"project": "a", "used": 5, "bound": 8, "asked": 4}
    shares = Shares(ALL, [project("a", 8, may_borrow=False)])
    shares.hold("a", cards(5))
    reason = shares.refusal("a", cards(4))
    assert reason is not None
    for lang in ("en", "zh"):
        said = sentence(reason, lang)
        assert all(str(value) in said for value in values.values()), said


# -- quotas against their definition ----------------------------------------------------------------------------------


def drawn_quota(seed):
    """A quota, what is used of it, what is asked, and whether more cards may be borrowed."""
    draw = Random(seed)
    quota = Quota(
        card_count=draw.choice((0, 3, 6)), core_count=draw.choice((0, 5)), card_hours=draw.choice((0, 2)),
        micro_cny=draw.choice((0, 9)),
    )  # fmt: skip
    used = Use(draw.randint(0, 6), draw.randint(0, 5), draw.randint(0, 2 * HOUR_MS), draw.randint(0, 9))
    asked = Use(draw.randint(0, 3), draw.randint(0, 2), draw.choice((0, 1, HOUR_MS)), draw.randint(0, 2))
    return quota, used, asked, draw.random() < 0.5


def defined_over(quota, used, asked, may_borrow):
    """The names of all quotas that would be broken, one by one."""
    bounds = (0 if may_borrow else quota.card_count, quota.core_count, quota.card_hours * HOUR_MS, quota.micro_cny)
    names = ("card_count", "core_count", "card_hours", "micro_cny")
    rows = zip(names, used, bounds, asked, strict=True)
    return [name for name, has, bound, more in rows if bound and more and has + more > bound]


def wrong_answers(seeds=600):
    wrong = 0
    for seed in range(seeds):
        quota, used, asked, may_borrow = drawn_quota(seed)
        found = engine.first_over(quota, used, asked, may_borrow=may_borrow)
        expected = defined_over(quota, used, asked, may_borrow)
        wrong += (found.what if found else None) != (expected[0] if expected else None)
    return wrong


def test_quotas_answer_as_they_are_written():
    assert wrong_answers() == 0


PLANTED = {
    "borrows always": lambda quota, used, asked, may_borrow: first_over(quota, used, asked, may_borrow=True),
    "never borrows": lambda quota, used, asked, may_borrow: first_over(quota, used, asked, may_borrow=False),
    "one too many": lambda quota, used, asked, may_borrow: first_over(
        quota, used, Use(*(max(0, each - 1) for each in asked)), may_borrow=may_borrow
    ),
    "counts what is not asked": lambda quota, used, asked, may_borrow: first_over(
        quota, Use(*(each + 1 for each in used)), asked, may_borrow=may_borrow
    ),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_mistake_in_the_quotas_is_seen(mistake, monkeypatch):
    wrong = PLANTED[mistake]
    monkeypatch.setattr(engine, "first_over", lambda *given, may_borrow: wrong(*given, may_borrow))
    assert wrong_answers() > 5


def test_amounts_are_told_in_the_units_of_the_quota():
    over = first_over(Quota(card_hours=2), Use(card_ms=HOUR_MS + 1), Use(card_ms=HOUR_MS), may_borrow=True)
    assert over == Over("card_hours", 2, 2, 1)


def test_more_held_never_allows_and_more_asked_never_does():
    for seed in range(300):
        quota, used, asked, may_borrow = drawn_quota(seed)
        if first_over(quota, used, asked, may_borrow=may_borrow) is not None:
            more = Use(*(each + 1 for each in used))
            assert first_over(quota, more, asked, may_borrow=may_borrow) is not None
            larger = Use(*(each + 1 for each in asked))
            assert first_over(quota, used, larger, may_borrow=may_borrow) is not None
