"""Fair share: the project that holds least goes first, guarantees come before loans, and nobody waits for ever."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest

from tieline.model.project import Project, Quota
from tieline.model.reason import Reason, sentence
from tieline.place import Amount
from tieline.place.queue import turn_ms
from tieline.place.share import FULL_MS, HOUR_MS, MOST_WANTED, Shares

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
    bound_ms = FULL_MS + 2_000 * 60_000
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
    reason = shares.refusal("a", cards(asked), 95)
    assert (reason is not None) == is_refused
    if reason is not None:
        assert (reason.code, reason.values) == ("quota_cards", {"project": "a", "used": 5, "bound": 8, "asked": 4})


def test_cores_are_counted_where_there_are_no_cards_and_are_not_lent():
    shares = Shares(ALL, [project("a", core_count=100)])
    shares.hold("a", Amount(8, 400, 0))  # beside cards: not of this quota
    shares.hold("a", Amount(0, 90, 0))
    assert shares.refusal("a", Amount(0, 10, 0), 0) is None
    assert shares.refusal("a", Amount(8, 64, 0), 92) is None
    reason = shares.refusal("a", Amount(0, 11, 0), 0)
    assert reason is not None
    assert (reason.code, reason.values["used"]) == ("quota_cores", 90)
    shares.release("a", Amount(0, 90, 0))
    assert shares.refusal("a", Amount(0, 100, 0), 0) is None


def test_card_hours_of_the_month_end_with_the_last_second_of_the_cards():
    shares = Shares(ALL, [project("a", card_hours=2)])
    shares.use("a", 2 * HOUR_MS - 8_000, 0)
    assert shares.refusal("a", cards(8), 100) is None
    assert (shares.left("a").card_ms, shares.left("a").run_s(8), shares.left("a").run_s(3)) == (8_000, 1, 2)
    reason = shares.refusal("a", cards(9), 100)
    assert reason is not None
    assert (reason.code, reason.values) == ("quota_card_hours", {"project": "a", "used": 1, "bound": 2})
    assert shares.refusal("a", Amount(0, 50, 0), 100) is None


def test_money_of_the_month_bounds_whatever_is_asked():
    shares = Shares(ALL, [project("a", micro_cny=5_000_000)])
    shares.use("a", 0, 4_999_999)
    assert shares.refusal("a", Amount(0, 1, 0), 0) is None
    assert shares.left("a").micro_cny == 1
    shares.use("a", 0, 5_000_000)
    reason = shares.refusal("a", Amount(0, 1, 0), 0)
    assert reason is not None
    assert reason.code == "quota_money"
    assert shares.left("a").micro_cny == 0


def test_without_a_quota_nothing_is_bounded():
    shares = Shares(ALL, [project("a")])
    shares.hold("a", ALL)
    shares.use("a", 10**15, 10**15)
    assert shares.refusal("a", ALL, 0) is None
    assert shares.left("a") == (None, None)
    assert shares.left("a").run_s(4) is None


# -- borrowing --------------------------------------------------------------------------------------------------------


def lending():
    shares = Shares(ALL, [project("a", 40), project("b", 40), project("c", 20)])
    shares.hold("a", cards(40))
    return shares


def test_cards_are_lent_while_nobody_waits_for_them():
    assert lending().refusal("a", cards(60), 60) is None


def test_what_waits_by_right_keeps_its_cards_from_borrowers():
    shares = lending()
    shares.want("b", [8, 8])
    assert shares.refusal("a", cards(44), 60) is None
    reason = shares.refusal("a", cards(45), 60)
    assert reason is not None
    assert reason.code == "share_owed"
    assert reason.values == {"project": "a", "used": 40, "bound": 40, "asked": 45, "free": 60, "owed": 16, "to": "b"}
    assert shares.refusal("b", cards(8), 8) is None
    assert shares.refusal("c", cards(20), 20) is None, "within its own share"


def test_who_has_no_guarantee_borrows_all_that_it_holds():
    shares = lending()
    shares.want("b", [8])
    assert shares.refusal("", cards(52), 60) is None
    assert shares.refusal("", cards(53), 60) is not None
    shares.hold("", cards(52))
    assert shares.standing("").borrowed == 52


def test_a_gang_that_does_not_fit_its_guarantee_is_owed_nothing():
    shares = lending()
    shares.want("b", [41])
    shares.want("c", [21, 15, 6, 5])
    assert (shares.standing("b").owed, shares.standing("c").owed) == (0, 20)
    shares.hold("c", cards(10))
    assert shares.standing("c").owed == 6


def test_two_that_would_both_borrow_do_not_wait_for_each_other():
    shares = Shares(cards(9), [project("a", 4), project("b", 4)])
    for name in "ab":
        shares.hold(name, cards(2))
        shares.want(name, [4])
    assert shares.refusal("a", cards(4), 5) is None


def test_a_closed_list_of_waiting_jobs_is_looked_at():
    shares = Shares(cards(10_000), [project("a", 10_000)])
    shares.want("a", [1] * (MOST_WANTED + 50))
    assert shares.standing("a").owed == MOST_WANTED


def test_a_changed_quota_counts_at_once():
    shares = lending()
    shares.want("b", [8])
    shares.put(project("b", 4))
    assert shares.standing("b").owed == 0
    shares.put(project("a", 4))
    assert shares.standing("a").borrowed == 36


def test_asking_changes_nothing_and_more_than_is_held_cannot_come_back():
    shares = lending()
    before = [shares.standing(name) for name in "abc"]
    shares.refusal("nobody", cards(5), 5)
    shares.turn_ms("nobody", 5)
    for wrong in (cards(41), Amount(0, 1, 0)):
        with pytest.raises(AssertionError):
            shares.release("a", wrong)
    assert [shares.standing(name) for name in "abc"] == before
    assert "nobody" not in shares._accounts


def test_every_reason_has_its_numbers_in_both_languages():
    values = {"project": "a", "used": 5, "bound": 8, "asked": 4}
    shares = Shares(ALL, [project("a", 8, may_borrow=False)])
    shares.hold("a", cards(5))
    reason = shares.refusal("a", cards(4), 95)
    assert reason is not None
    for lang in ("en", "zh"):
        said = sentence(reason, lang)
        assert all(str(value) in said for value in values.values()), said


# -- the rule against its definition ----------------------------------------------------------------------------------


def drawn_rule(seed, shares_of):
    """A question, and all that it rests on."""
    draw = Random(seed)
    terms = {name: (draw.randint(0, 8), draw.random() < 0.7) for name in "abc"}
    shares = shares_of(cards(20), [project(name, bound, may_borrow=may) for name, (bound, may) in terms.items()])
    held, wants = dict.fromkeys(terms, 0), {}
    for name in terms:
        for _ in range(draw.randint(0, 3)):
            more = draw.randint(1, 4)
            shares.hold(name, cards(more))
            held[name] += more
        wants[name] = [draw.randint(1, 5) for _ in range(draw.randint(0, 3))]
        shares.want(name, wants[name])
    return shares, terms, held, wants, draw.randint(1, 6), draw.randint(0, 12)


def rule(terms, held, wants, asked, free):
    """May `a` take so many? By right, or as a loan that leaves others what they wait for by right."""
    bound, may_borrow = terms["a"]
    if held["a"] + asked <= bound:
        return True
    if bound and not may_borrow:
        return False
    owed = 0
    for name in "bc":
        room = terms[name][0] - held[name]
        for each in wants[name]:
            if each <= room:
                room -= each
                owed += each
    return not owed or free - asked >= owed


def wrong_answers(shares_of, seeds=600):
    wrong = 0
    for seed in range(seeds):
        shares, terms, held, wants, asked, free = drawn_rule(seed, shares_of)
        wrong += (shares.refusal("a", cards(asked), free) is None) != rule(terms, held, wants, asked, free)
    return wrong


def test_the_rule_answers_as_it_is_written():
    assert wrong_answers(Shares) == 0


class Generous(Shares):
    def _not_lent(self, account, asked, free_cards):
        return None


class OwedToItself(Shares):
    def _not_lent(self, account, asked, free_cards):
        is_short = account.owed and free_cards - asked.accelerators < self._owed
        is_right = account.held.accelerators + asked.accelerators <= account.project.quota.card_count
        return Reason(code="share_owed") if is_short and not is_right else super()._not_lent(account, asked, free_cards)


class WantsCount(Shares):
    def _owe(self, account):
        self._owed += sum(account.wanted) - account.owed
        account.owed = sum(account.wanted)


class OneTooMany(Shares):
    def _not_lent(self, account, asked, free_cards):
        return super()._not_lent(account, asked, free_cards + 1)


@pytest.mark.parametrize("planted", [Generous, OwedToItself, WantsCount, OneTooMany])
def test_a_mistake_in_the_rule_is_seen(planted):
    assert wrong_answers(planted) > 5


def test_more_free_never_refuses_and_more_held_never_allows():
    for seed in range(300):
        shares, _, _, _, asked, free = drawn_rule(seed, Shares)
        allowed = shares.refusal("a", cards(asked), free) is None
        if allowed:
            assert shares.refusal("a", cards(asked), free + 3) is None
        shares.hold("a", cards(2))
        if not allowed:
            assert shares.refusal("a", cards(asked), free) is not None
