from __future__ import annotations

import re
import threading
import time

import pytest

from tieline.drivers.clock import HOLD_MS, NAMES_FROM_MS, SystemClock, SystemIds
from tieline.ports import FakeClock


def test_the_clock_tells_milliseconds_since_the_epoch() -> None:
    before = time.time_ns() // 1_000_000
    now = SystemClock().now_ms()
    assert before <= now <= time.time_ns() // 1_000_000


def test_a_clock_that_is_set_back_a_little_stands_still_and_a_lot_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    at_ms = 1_800_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: at_ms * 1_000_000)
    clock = SystemClock()
    assert clock.now_ms() == at_ms
    at_ms -= 5_000
    assert clock.now_ms() == at_ms + 5_000
    at_ms += 6_000
    assert clock.now_ms() == at_ms
    at_ms -= HOLD_MS
    assert clock.now_ms() == at_ms


def test_names_sort_by_the_time_at_which_they_were_given() -> None:
    clock = FakeClock(at_ms=NAMES_FROM_MS + 1)
    ids = SystemIds(clock)
    given = []
    for _ in range(2_000):
        given.append(ids.new("job"))
        clock.advance(17)
    assert given == sorted(given)


def test_names_of_one_millisecond_differ_and_sort() -> None:
    ids = SystemIds(FakeClock(at_ms=NAMES_FROM_MS + 10**12))
    given = [ids.new("job") for _ in range(20_000)]
    assert len(set(given)) == len(given)
    assert given == sorted(given)


def test_names_never_repeat_when_the_clock_goes_back() -> None:
    clock = FakeClock()
    ids = SystemIds(clock)
    first = ids.new("quote")
    clock.advance(-1_000_000)
    assert ids.new("quote") > first


def test_a_name_says_its_kind_and_is_short() -> None:
    assert re.fullmatch(r"j-[0-9a-hjkmnp-tv-z]{12}", SystemIds().new("job"))
    assert SystemIds().new("quote").startswith("q-")


def test_threads_never_get_the_same_name() -> None:
    ids = SystemIds(FakeClock())
    given: list[str] = []
    threads = [threading.Thread(target=lambda: given.extend(ids.new("job") for _ in range(500))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 2_000
