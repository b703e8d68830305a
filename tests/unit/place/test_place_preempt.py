"""Preemption: the least work is lost, in one pool, never more than needed, never from whom nothing may be taken."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest

from tieline.model.project import Project, Quota
from tieline.model.reason import sentence
from tieline.place import Amount, preempt
from tieline.place.preempt import GiveWay, Live, Need, Room, give_way, why_stopped, why_waiting
from tieline.place.share import Shares

NOW_MS = 1_000_000
RIGHT = Need("x.cn/job/new", "mine", 0, is_by_right=True)
URGENT = Need("x.cn/job/new", "mine", 50, is_by_right=False)


def run(name, cards, since_ms, project="theirs", **more):
    terms = {"priority": 0, "is_preemptible": True, **more}
    return Live(name, project, amount=Amount(cards), kept_ms=NOW_MS - since_ms, **terms)


def room(needed, *runs, free=0, pool="x.cn/pool/a"):
    return Room(pool, Amount(needed), Amount(free), runs)


def stopped(need, *rooms, lent=100, **more):
    answer = give_way(need, rooms, {"theirs": lent}, now_ms=NOW_MS, **more)
    return None if answer is None else (answer.pool[-1], sorted(each.id for each in answer.runs))


def test_the_run_whose_checkpoint_is_newest_gives_way():
    assert stopped(RIGHT, room(4, run("old", 4, 900), run("new", 4, 10), run("mid", 4, 500))) == ("a", ["new"])


def test_lost_work_counts_by_the_cards_that_did_it():
    assert stopped(RIGHT, room(4, run("wide", 8, 100), run("narrow", 4, 150))) == ("a", ["narrow"])


def test_what_is_free_is_used_before_anything_is_stopped():
    assert stopped(RIGHT, room(4, run("one", 1, 10), run("two", 2, 30), free=3)) == ("a", ["one"])


def test_room_is_made_in_one_pool_and_in_the_cheapest():
    first = room(4, run("p", 2, 10), pool="x.cn/pool/a")
    second = room(4, run("q", 2, 500), run("r", 2, 500), pool="x.cn/pool/b")
    third = room(4, run("s", 4, 400), pool="x.cn/pool/c")
    assert stopped(RIGHT, first, second, third) == ("c", ["s"])


def test_runs_that_are_stopping_already_are_room_that_comes():
    assert stopped(RIGHT, room(4, run("going", 4, 900, is_stopping=True), run("other", 4, 1))) == ("a", [])
    assert stopped(RIGHT, room(6, run("going", 4, 900, is_stopping=True), run("other", 4, 1))) == ("a", ["other"])


@pytest.mark.parametrize("terms", [{"is_preemptible": False}, {"project": "mine"}, {"project": "within"}])
def test_who_may_not_be_preempted_is_left_alone(terms):
    assert stopped(RIGHT, room(4, run("one", 4, 10, **terms))) is None


def test_priority_takes_only_from_what_is_lower_by_the_margin():
    own = {"project": "mine"}
    assert stopped(URGENT, room(4, run("one", 4, 10, priority=40, **own))) == ("a", ["one"])
    assert stopped(URGENT, room(4, run("one", 4, 10, priority=41, **own))) is None


def test_no_priority_takes_what_is_within_the_share_of_another_project():
    assert stopped(URGENT, room(4, run("one", 4, 10)), lent=0) is None
    assert stopped(URGENT, room(4, run("one", 4, 10)), lent=1) == ("a", ["one"])
    assert stopped(Need("j", "mine", 0, is_by_right=False), room(4, run("one", 4, 10))) is None


def test_a_borrower_gives_back_what_it_borrowed_and_the_last_gang_as_a_whole():
    runs = [run(name, 4, 10) for name in "pqr"]
    assert stopped(RIGHT, room(8, *runs), lent=4) is None
    assert stopped(RIGHT, room(8, *runs), lent=5) == ("a", ["p", "q"])


def test_cores_are_taken_by_priority_and_never_by_right():
    cores = Live("one", "theirs", 0, Amount(0, 8, 100), NOW_MS - 10, is_preemptible=True)
    asked = Room("x.cn/pool/a", Amount(0, 8, 50), Amount(), (cores,))
    assert stopped(URGENT, asked, lent=0) == ("a", ["one"])
    assert stopped(RIGHT, asked) is None


def test_of_equal_losses_the_one_that_gave_way_less_often_is_taken():
    assert stopped(RIGHT, room(4, run("a", 4, 10, preemptions=2), run("b", 4, 10))) == ("a", ["b"])


def test_no_more_runs_are_stopped_than_one_pass_may():
    ones = [run(f"r{at}", 1, 10) for at in range(6)]
    assert stopped(RIGHT, room(5, *ones), most=4) is None
    assert stopped(RIGHT, room(5, *ones), most=5) is not None


def test_what_an_owner_took_away_is_made_up_for_and_what_is_not_asked_is_not():
    shrunk = Room("x.cn/pool/a", Amount(4, 0, 0), Amount(-2, -8, 0), (run("p", 4, 10), run("q", 2, 10)))
    assert stopped(RIGHT, shrunk) == ("a", ["p", "q"])


def test_a_search_that_is_cut_short_says_so_and_spares_what_it_can():
    draw = Random(5)
    runs = [run(f"r{at:03}", draw.randint(1, 4), draw.randint(1, 9_000)) for at in range(400)]
    asked = room(33, *runs)
    cut = give_way(RIGHT, [asked], {"theirs": 2_000}, now_ms=NOW_MS, most=32, rounds=50)
    assert cut is not None
    assert not cut.is_least
    check_sound(RIGHT, [asked], {"theirs": 2_000}, 32, cut)


def test_the_order_in_which_runs_and_pools_are_told_does_not_matter():
    for seed in range(60):
        need, rooms, borrowed, most = drawn(seed)
        turned = [each._replace(runs=each.runs[::-1]) for each in reversed(rooms)]
        assert give_way(need, rooms, borrowed, now_ms=NOW_MS, most=most) == give_way(
            need, turned, borrowed, now_ms=NOW_MS, most=most
        )


def test_both_sides_are_told_why_in_both_languages():
    victim = run("one", 4, 10, priority=-3)
    answer = GiveWay("x.cn/pool/a", (victim,), 40, is_least=True)
    for lang in ("en", "zh"):
        assert "mine" in sentence(why_stopped(RIGHT, victim), lang)
        said = sentence(why_stopped(URGENT, victim), lang)
        assert all(part in said for part in (URGENT.job, "50", "-3"))
        assert "x.cn/pool/a" in sentence(why_waiting(answer), lang)


# -- against every subset ---------------------------------------------------------------------------------------------


def drawn(seed):
    draw = Random(seed)
    need = Need("j", "mine", draw.choice([0, 10, 20]), is_by_right=draw.random() < 0.6)
    rooms = []
    for pool in "ab"[: draw.randint(1, 2)]:
        runs = []
        for at in range(draw.randint(1, 7)):
            amount = Amount(draw.randint(1, 4), draw.randint(0, 4), draw.randint(0, 2))
            since_ms, preemptions = draw.randint(-1, 6), draw.randint(0, 1)
            flags = {"is_preemptible": draw.random() < 0.85, "is_stopping": draw.random() < 0.08}
            project, priority = draw.choice(["mine", "theirs", "others", ""]), draw.choice([-10, 0, 5, 10])
            kept_ms = NOW_MS - since_ms
            runs.append(Live(f"{pool}{at}", project, priority, amount, kept_ms, preemptions=preemptions, **flags))
        needed = Amount(draw.randint(1, 8), draw.randint(0, 6), draw.randint(0, 3))
        free = Amount(draw.randint(-1, 2), draw.randint(0, 2), draw.randint(0, 1))
        rooms.append(Room(f"x.cn/pool/{pool}", needed, free, tuple(runs)))
    borrowed = {name: draw.randint(0, 7) for name in ("theirs", "others", "")}
    return need, rooms, borrowed, draw.randint(1, 5)


def is_enough(asked, runs):
    """Whether the demand fits when these and those that are stopping are gone."""
    gone = [each for each in asked.runs if each.is_stopping] + list(runs)
    return all(not asked.needed[at] or asked.free[at] + sum(each.amount[at] for each in gone) >= asked.needed[at]
               for at in range(3))  # fmt: skip


def is_allowed(need, borrowed, runs):
    """The rule as the page of the module has it, one by one: some order exists in which each may be taken."""
    for each in runs:
        lower = each.priority + 10 <= need.priority
        if not each.is_preemptible or each.is_stopping:
            return False
        if not (lower or (need.is_by_right and each.project != need.project)):
            return False
    for name in {each.project for each in runs} - {need.project}:
        left = borrowed.get(name, 0)
        for each in sorted((each for each in runs if each.project == name), key=lambda each: each.amount):
            if left <= 0:
                return False
            left -= each.amount.accelerators
    return True


def price(runs):
    lost = sum(max(0, NOW_MS - each.kept_ms) * each.amount.accelerators for each in runs)
    return lost, sum(each.preemptions for each in runs), len(runs)


def check_sound(need, rooms, borrowed, most, answer):
    """What must hold of every answer, the best one or not."""
    asked = next(each for each in rooms if each.pool == answer.pool)
    assert set(answer.runs) <= set(asked.runs), "of one pool"
    assert len(answer.runs) <= most, "bounded"
    assert is_enough(asked, answer.runs), "enough"
    assert is_allowed(need, borrowed, answer.runs), "allowed"
    for each in answer.runs:
        assert not is_enough(asked, [other for other in answer.runs if other is not each]), "no more than needed"
    assert answer.lost_unit_ms == price(answer.runs)[0], "counted"


def check(seed):
    """Compare with all subsets; how many runs give way, None where nobody can."""
    need, rooms, borrowed, most = drawn(seed)
    answer = give_way(need, rooms, borrowed, now_ms=NOW_MS, most=most)
    prices = [
        price(runs)
        for asked in rooms
        for count in range(most + 1)
        for runs in combinations(asked.runs, count)
        if is_enough(asked, runs) and is_allowed(need, borrowed, runs)
    ]
    assert (answer is None) == (not prices), "found"
    if answer is None:
        return None
    check_sound(need, rooms, borrowed, most, answer)
    assert answer.is_least
    assert price(answer.runs) == min(prices), "least"
    return len(answer.runs)


def caught(seeds=400):
    """In how many cases the check sees that something is wrong."""
    count = 0
    for seed in range(seeds):
        try:
            check(seed)
        except AssertionError:
            count += 1
    return count


def test_the_answer_is_the_best_of_all_subsets():
    sizes = [check(seed) for seed in range(800)]
    assert min(sizes.count(size) for size in (None, 0, 1, 2, 3)) > 10, "every kind of case was met"


def anybody(need, each, borrowed):
    return not each.is_stopping


def equals(need, each, borrowed):
    return may_give_way(need, each._replace(priority=each.priority - preempt.MARGIN), borrowed)


def stopping_again(need, each, borrowed):
    return may_give_way(need, each._replace(is_stopping=False), borrowed)


def from_anybody(need, each, borrowed):
    return may_give_way(need, each, dict.fromkeys(borrowed, 1))


may_give_way = preempt.may_give_way
PLANTED = {
    "non-preemptible ones too": ("may_give_way", anybody),
    "equals in priority": ("may_give_way", equals),
    "those that are stopping": ("may_give_way", stopping_again),
    "by count alone": ("cost_of", lambda runs, now_ms: (0, 0, len(list(runs)))),
    "no search": ("_branch", lambda *given: None),
    "in cards alone": ("_less", lambda short, each: Amount(max(0, short[0] - each.amount[0]))),
    "what is coming forgotten": ("_short", lambda asked: Amount(*(
        max(0, more - has) if more else 0 for more, has in zip(asked.needed, asked.free, strict=True)))),
}  # fmt: skip


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_mistake_in_the_choice_is_seen(mistake, monkeypatch):
    name, wrong = PLANTED[mistake]
    monkeypatch.setattr(preempt, name, wrong)
    assert caught() > 3


def test_taking_from_a_guaranteed_share_is_seen(monkeypatch):
    """Two guards keep it: that of the single run, and that of the set."""
    monkeypatch.setattr(preempt, "may_give_way", from_anybody)
    monkeypatch.setattr(preempt.Search, "may_join", lambda search, runs, each: True)
    assert caught() > 3


def test_giving_back_more_than_was_borrowed_is_seen(monkeypatch):
    monkeypatch.setattr(preempt.Search, "may_join", lambda search, runs, each: True)
    assert caught() > 3


# -- with shares ------------------------------------------------------------------------------------------------------


def test_nobody_below_its_share_waits_while_borrowers_hold_what_it_needs():
    """One pool whose cards are all guaranteed, filled at random by borrowers: who comes by right always gets in."""
    made = 0
    for seed in range(150):
        draw = Random(seed)
        terms = [Project(id=name, quota=Quota(card_count=draw.randint(2, 8))) for name in "abc"]
        total = sum(each.quota.card_count for each in terms)
        shares = Shares(Amount(total), terms)
        runs, free = [], total
        while free:
            owner, cards = draw.choice(["a", "b", "c", ""]), draw.randint(1, min(4, free))
            shares.hold(owner, Amount(cards))
            runs.append(run(f"r{len(runs):02}", cards, draw.randint(0, 99), project=owner))
            free -= cards
        for each in terms:
            asked = draw.randint(1, each.quota.card_count)
            if not shares.is_by_right(each.id, asked):
                continue
            borrowed = {name: shares.standing(name).borrowed for name in ("a", "b", "c", "")}
            need = Need("j", each.id, 0, is_by_right=True)
            answer = give_way(need, [room(asked, *runs, free=free)], borrowed, now_ms=NOW_MS, most=32)
            assert answer is not None, seed
            check_sound(need, [room(asked, *runs, free=free)], borrowed, 32, answer)
            for gone in answer.runs:
                shares.release(gone.project, gone.amount)
                assert not shares.is_by_right(gone.project, gone.amount.accelerators) or len(answer.runs) > 1
                runs.remove(gone)
                free += gone.amount.accelerators
            shares.hold(each.id, Amount(asked))
            runs.append(run(f"n{len(runs):02}{each.id}", asked, 0, project=each.id))
            free -= asked
            made += 1
    assert made > 100
