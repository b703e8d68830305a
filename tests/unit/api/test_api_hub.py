"""The hub: who is woken by what was committed, and how a site's stream is resumed."""

import asyncio

import pytest

from tieline.api.hub import HEAD, MAILBOX, SITE_MEMORY, Hub, Mailbox, OverError, end_name
from tieline.drivers.stores.draft import Committed
from tieline.model import event as fact
from tieline.model.job import JobState
from tieline.model.party import Site
from tieline.model.protocol import Drain

SITE = "cn.demo.lab7/site/gz1"


def entry(seq, event, job=None, site=None):
    return Committed(seq, 0, "kind", event.subject, job, site, "alice", b"{}", b"", None, event)


def ended(seq, job="j-1"):
    return entry(seq, fact.JobEnded(job=f"cn.demo/job/{job}", state=JobState.SUCCEEDED, at_ms=1), job=job)


def opened(seq, session):
    return entry(seq, fact.SessionOpened(site=Site(id=SITE, owner="cn.demo.lab7", public="", session=session)))


def order(seq):
    return (seq, SITE, Drain(is_draining=bool(seq % 2)))


def hub_at(head):
    hub = Hub()
    hub.start(lambda: head)
    return hub


def test_a_waiter_for_the_end_of_a_job_is_not_woken_by_what_happens_before_it():
    async def story():
        hub = hub_at(0)
        with hub.waiting(end_name("j-1")) as over, hub.waiting("j-1") as anything:
            hub.tell_entries([entry(1, fact.CancelRequested(job="cn.demo/job/j-1", by="alice"), job="j-1")])
            assert anything.done()
            assert not over.done()
            hub.tell_entries([ended(2)])
            assert over.done()
        assert hub.waiters == {}
        assert hub.head == 2

    asyncio.run(story())


def test_entries_come_over_from_another_thread_in_order():
    async def story():
        hub = hub_at(0)
        seen = []
        hub.listeners.append(lambda entries: seen.extend(each.seq for each in entries))
        await asyncio.to_thread(lambda: [hub.take_entries([ended(seq)]) for seq in range(1, 200)])
        with hub.waiting(HEAD) as more:
            if hub.head < 199:
                await more
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert hub.head == 199
        assert seen == list(range(1, 200))

    asyncio.run(story())


def test_closing_wakes_everybody_and_nobody_waits_afterwards():
    async def story():
        hub = hub_at(0)
        mailbox = Mailbox()
        assert hub.open_line(SITE, 0, mailbox)
        with hub.waiting("j-1") as waiter:
            hub.close()
            assert waiter.done()
        with pytest.raises(OverError, match="stopping"):
            await mailbox.take(60)
        with hub.waiting("j-2") as late:
            assert late.done()
        assert not hub.open_line(SITE, 0, Mailbox())

    asyncio.run(story())


def test_a_broken_stream_is_resumed_with_exactly_what_it_missed():
    async def story():
        hub = hub_at(4)
        hub.tell_entries([opened(5, 1)])
        first = Mailbox()
        assert hub.open_line(SITE, 5, first)
        for seq in (6, 8, 9):
            hub.head = seq
            hub.tell_orders([order(seq)])
        assert [seq for seq, _, _ in await first.take(1)] == [6, 8, 9]
        hub.close_line(SITE, first)
        hub.head = 11
        hub.tell_orders([order(11)])
        second = Mailbox()
        assert hub.open_line(SITE, 8, second)
        assert [seq for seq, _, _ in await second.take(1)] == [9, 11]

    asyncio.run(story())


def test_a_new_session_ends_the_stream_of_the_older_one_and_forgets_its_orders():
    async def story():
        hub = hub_at(1)
        hub.tell_entries([opened(2, 1)])
        mailbox = Mailbox()
        assert hub.open_line(SITE, 2, mailbox)
        hub.head = 3
        hub.tell_orders([order(3)])
        hub.tell_entries([opened(4, 2)])
        with pytest.raises(OverError, match="newer session"):
            await mailbox.take(1)
        assert not hub.open_line(SITE, 2, Mailbox())
        fresh = Mailbox()
        assert hub.open_line(SITE, 4, fresh)
        assert await fresh.take(0.001) == ()

    asyncio.run(story())


def test_an_order_of_the_same_batch_as_the_session_is_not_given_twice():
    async def story():
        hub = hub_at(0)
        hub.tell_entries([opened(3, 1)])
        hub.tell_orders([order(2), order(4)])
        mailbox = Mailbox()
        hub.head = 4
        assert hub.open_line(SITE, 3, mailbox)
        assert [seq for seq, _, _ in await mailbox.take(1)] == [4]

    asyncio.run(story())


def test_a_session_of_a_batch_that_goes_on_after_it_can_be_followed_from_its_beginning():
    async def story():
        hub = hub_at(2)
        hub.tell_entries([opened(3, 1), ended(4), ended(5)])
        mailbox = Mailbox()
        assert hub.open_line(SITE, 3, mailbox)
        hub.tell_orders([order(6)])
        assert [seq for seq, _, _ in await mailbox.take(1)] == [6]

    asyncio.run(story())


def test_a_second_stream_ends_the_first_one():
    async def story():
        hub = hub_at(0)
        first, second = Mailbox(), Mailbox()
        assert hub.open_line(SITE, 0, first)
        assert hub.open_line(SITE, 0, second)
        with pytest.raises(OverError, match="newer stream"):
            await first.take(1)
        hub.close_line(SITE, first)
        hub.tell_orders([order(1)])
        assert len(await second.take(1)) == 1

    asyncio.run(story())


def test_a_stream_that_falls_behind_is_ended_and_its_memory_is_bounded():
    async def story():
        hub = hub_at(0)
        mailbox = Mailbox()
        assert hub.open_line(SITE, 0, mailbox)
        for seq in range(1, MAILBOX + 2):
            hub.head = seq
            hub.tell_orders([order(seq)])
        with pytest.raises(OverError, match="fell behind"):
            await mailbox.take(1)
        assert len(hub.line(SITE).recent) == SITE_MEMORY
        assert not hub.open_line(SITE, 1, Mailbox())

    asyncio.run(story())


def test_a_burst_of_offers_does_not_end_a_stream_that_is_read():
    async def story():
        hub = hub_at(0)
        mailbox = Mailbox()
        assert hub.open_line(SITE, 0, mailbox)
        hub.head = 5_000
        hub.tell_orders([order(seq) for seq in range(1, 5_001)])
        assert len(await mailbox.take(1)) == 5_000

    asyncio.run(story())


def test_orders_are_not_remembered_for_longer_than_they_can_matter():
    async def story():
        now = [1_000.0]
        hub = hub_at(2)
        hub.clock = lambda: now[0]
        hub.line(SITE)
        for seq, at_s in ((3, 1_000.0), (4, 1_050.0), (5, 1_070.0)):
            now[0], hub.head = at_s, seq
            hub.tell_orders([order(seq)])
        assert [each[0] for _, each in hub.line(SITE).recent] == [4, 5]
        assert not hub.open_line(SITE, 2, Mailbox())
        assert hub.open_line(SITE, 3, Mailbox())

    asyncio.run(story())


def test_a_cursor_beyond_the_log_is_not_resumed():
    async def story():
        hub = hub_at(7)
        assert not hub.open_line(SITE, 8, Mailbox())

    asyncio.run(story())
