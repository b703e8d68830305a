"""Who leads is judged by what is seen in the store and one's own clock; a leader knows when it is none any more."""

from tieline.drivers.stores.leadership import FROZEN_S, LEASE_S, STARTING_S, Leader, Lease, Lookout, Seen, Standing
from tieline.drivers.stores.postgresql import Holder

HOLDER = Holder(17, "tieline node1:4711", "")


def seen(term: int = 2, led: int = 2, beat: int = 0, holder: Holder | None = HOLDER) -> Seen:
    return Seen(term, Leader(term=led, url="http://127.0.0.1:1", beat=beat), holder)


def test_who_holds_the_lock_and_says_so_leads() -> None:
    assert Lookout().judge(seen(), 100.0) is Standing.LED


def test_a_lock_that_nobody_holds_is_free_whatever_the_row_says() -> None:
    assert Lookout().judge(seen(holder=None), 100.0) is Standing.FREE


def test_a_new_writer_that_has_said_nothing_yet_is_starting() -> None:
    assert Lookout().judge(seen(term=3), 100.0) is Standing.STARTING
    assert Lookout().judge(Seen(1, None, HOLDER), 100.0) is Standing.STARTING


def looked(lookout: Lookout, what: Seen, begin_s: float, seconds: float) -> Standing:
    """The last of many looks at the same."""
    standing = Standing.FREE
    for at in range(round(seconds * 2) + 1):
        standing = lookout.judge(what, begin_s + at / 2)
    return standing


def test_a_leader_whose_row_does_not_change_stands_still() -> None:
    lookout = Lookout()
    assert looked(lookout, seen(beat=1), 100.0, FROZEN_S) is Standing.LED
    assert lookout.judge(seen(beat=1), 100.0 + FROZEN_S + 0.5) is Standing.FROZEN
    assert lookout.judge(seen(beat=2), 100.0 + FROZEN_S + 1.0) is Standing.LED


def test_one_that_fills_its_view_has_longer() -> None:
    lookout = Lookout()
    assert looked(lookout, seen(term=3), 100.0, STARTING_S) is Standing.STARTING
    assert lookout.judge(seen(term=3), 100.5 + STARTING_S) is Standing.FROZEN


def test_one_that_stood_still_itself_does_not_blame_the_leader() -> None:
    lookout = Lookout()
    assert lookout.judge(seen(beat=1), 100.0) is Standing.LED
    assert lookout.judge(seen(beat=1), 100.0 + 10 * FROZEN_S) is Standing.LED


def test_a_lease_ends_before_anybody_may_think_that_its_leader_stands_still() -> None:
    assert LEASE_S < FROZEN_S
    now_s = [100.0]
    lease = Lease(timer=lambda: now_s[0])
    assert not lease.holds
    begun_s = lease.begun()
    now_s[0] += 1.0
    lease.renew(begun_s)
    now_s[0] = begun_s + LEASE_S - 0.1
    assert lease.holds
    now_s[0] = begun_s + LEASE_S
    assert not lease.holds


def test_a_lease_that_was_ended_is_not_renewed_by_a_late_beat() -> None:
    lease = Lease(timer=lambda: 100.0)
    begun_s = lease.begun()
    lease.renew(begun_s)
    lease.end()
    lease.renew(begun_s)
    assert not lease.holds
