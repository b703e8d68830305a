"""Queue order: priority with ageing, stable, bounded, and nobody waits for ever."""

import numpy as np

from tieline.place.queue import order, turn_ms

MINUTE_MS = 60_000


def ordered(jobs, **more):
    priorities, submitted = (np.array(column, np.int64) for column in zip(*jobs, strict=True))
    return order(priorities, submitted, ageing_ms=MINUTE_MS, **more).tolist()


def test_equal_priorities_go_in_order_of_submission():
    assert ordered([(0, 30), (0, 10), (0, 20)]) == [1, 2, 0]


def test_a_higher_priority_goes_first_by_its_head_start_and_no_further():
    assert ordered([(0, 0), (1, MINUTE_MS - 1)]) == [1, 0]
    assert ordered([(0, 0), (1, MINUTE_MS + 1)]) == [0, 1]


def test_ties_go_to_the_earlier_submission_and_then_keep_their_place():
    assert ordered([(1, MINUTE_MS), (0, 0), (0, 0)]) == [1, 2, 0]


def test_the_lowest_priority_is_served_before_anything_submitted_after_its_bound():
    bound_ms = 2_000 * MINUTE_MS
    assert turn_ms(-1_000, 0, MINUTE_MS) <= turn_ms(1_000, bound_ms, MINUTE_MS)
    assert ordered([(-1_000, 0), (1_000, bound_ms + 1)]) == [0, 1]


def test_what_waits_for_something_else_is_left_out():
    assert ordered([(0, 1), (0, 2), (0, 3)], eligible=np.array([True, False, True])) == [0, 2]


def test_a_bounded_pass_is_the_beginning_of_the_full_order():
    jobs = [(at % 3, (at * 7_919) % 1_000 * 1_000) for at in range(500)]
    full = ordered(jobs)
    assert [ordered(jobs, most=most) for most in (0, 1, 17, 500, 900)] == [full[:0], full[:1], full[:17], full, full]


def test_an_empty_queue_has_an_empty_order():
    none = np.zeros(0, np.int64)
    assert order(none, none).tolist() == []
