"""What seeded disasters have found, each as the smallest story that shows it."""

from __future__ import annotations

from exchange_world import World, task

from tieline.exchange import line
from tieline.model.event import JobEnded
from tieline.model.protocol import Accepted, Ended, Outcome, PeerReport, Started, Stop

STALE = Outcome(is_ok=False, what="stale")


def test_a_job_that_ends_with_its_pipeline_is_not_ended_again_by_its_own_deadline() -> None:
    world = World()
    world.join("lab7", "gz1", core_count=4)
    first, second = world.submit(task("one", deadline_s=5), task("two", deadline_s=5))
    world.pass_ms(8_000, "cn.demo.lab7/site/gz1")  # the offer is not answered, and runs out with both deadlines
    ended = [event.job for event in world.events if isinstance(event, JobEnded)]
    assert ended == [first.id, second.id]


def taken(*reports: Accepted | Started | Ended) -> line.LineState:
    """The line after a page whose first report was found stale."""
    state, _ = line.begin("cn.b/exchange/main", 0)
    numbered = tuple(PeerReport(serial=at, report=report) for at, report in enumerate(reports, 1))
    take = line.Take(take=7, session="s1", reports=numbered)
    state = line.replace(state, is_live_due=False, reading=0, saying=9, session="s1", takes=(take,))
    return line.step(state, line.Taken(take=7, outcomes=(STALE,)), 1)[0]


def test_what_has_ended_behind_a_peer_is_not_stopped_there() -> None:
    accepted, ended = Accepted(run="j-1.1", epoch=1), Ended(run="j-1.1", epoch=1, state="succeeded")
    assert taken(accepted, ended).waiting == ()


def test_what_goes_on_behind_a_peer_without_us_is_stopped_there() -> None:
    accepted, other = Accepted(run="j-1.1", epoch=1), Ended(run="j-2.1", epoch=1, state="succeeded")
    stop = Stop(run="j-1.1", epoch=1, why="stale", is_fenced=True)
    assert taken(accepted, other).waiting == (stop,)
