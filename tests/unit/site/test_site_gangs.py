"""A gang over several sites, as one of them lives through it: accepted, told to wait, offered again, started or not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from site_offers import NOW_MS, SITE, Story, offer, pool, state, words

from tieline.model.job import Member
from tieline.model.protocol import Accepted, Ended, Offer, Outcome, Part, Stop
from tieline.model.reason import Reason
from tieline.model.task import Span
from tieline.ports import Ending
from tieline.site import Held, Phase, next_ms, recover
from tieline.site import stimulus as seen
from tieline.site.admission import MOST_MEMBERS, MOST_NODES, admit
from tieline.site.instruction import Instruction, Send

replace = msgspec.structs.replace
OK, WAIT = Outcome(is_ok=True), Outcome(is_ok=False, what="wait")
FIRST, SECOND = "j-1.1", "j-1.1.1"
MEMBERS = (
    Member(run=FIRST, site=SITE, rank=0, nodes=1),
    Member(run=SECOND, site=SITE, rank=1, nodes=1),
    Member(run="j-1.1.2", site="cn.demo.lab8/site/sh1", rank=2, nodes=2),
)
PART = Part(member=0, members=MEMBERS, number=7, ports=(29_500,))
LEASE_MS = 10_000


def part(member: int = 0, **fields: Any) -> Offer:
    """One of two parts of a gang that stand here; the third stands elsewhere."""
    whole = offer(FIRST, span=Span(), ttl_ms=5_000)
    return replace(whole, run=MEMBERS[member].run, part=replace(PART, member=member), **fields)


def sent(instructions: list[Instruction], kind: type) -> list[Any]:
    return [each.report for each in instructions if isinstance(each, Send) and isinstance(each.report, kind)]


def waiting(*parts: int) -> Story:
    """A site that accepted its parts and was told to wait."""
    story = Story()
    story.tell(seen.Welcomed(orders=(), lease_ms=LEASE_MS))
    for member in parts or (0,):
        (said,) = sent(story.order(part(member)), Accepted)
        assert words(story.tell(seen.Answered(report=said, outcome=WAIT))) == []
    return story


def test_it_is_held_and_not_started_until_the_offer_comes_again():
    story = waiting()
    again = story.order(part(state="accepted"))
    assert words(again) == ["send Accepted"]
    (said,) = sent(again, Accepted)
    assert words(story.tell(seen.Answered(report=said, outcome=OK))) == ["persist launching", "start"]
    assert words(story.order(part(state="accepted"))) == [], "it is being started"


def test_two_parts_at_one_site_live_side_by_side():
    story = waiting(0, 1)
    assert [held.devices for held in story.state.runs.values()] == [(0,), (1,)]
    for member, run in enumerate((FIRST, SECOND)):
        (said,) = sent(story.order(part(member, state="accepted")), Accepted)
        story.tell(seen.Answered(report=said, outcome=OK))
        assert story.state.runs[run].phase is Phase.LAUNCHING
    story.tell(seen.NodesStarted(run=FIRST))
    over = Ending(exit_code=0, started_ms=NOW_MS, ended_ms=NOW_MS)
    assert words(story.tell(seen.NodesEnded(run=FIRST, endings=(over,)))) == ["persist finishing", "handover"]


def test_a_newer_gang_waits_for_the_older_one_to_be_gone_and_an_older_one_is_not_taken():
    story = waiting(0)
    story.tell(seen.Answered(report=Accepted(run=FIRST, epoch=1, sandbox="", network=""), outcome=OK))
    story.tell(seen.NodesStarted(run=FIRST))
    names = tuple(replace(each, run=each.run.replace(".1", ".2", 1)) for each in MEMBERS)
    newer = replace(part(), run="j-1.2", epoch=2, part=replace(PART, members=names))
    assert words(story.order(newer)) == ["persist running", "halt fenced", "persist accepting durably", "send Accepted"]
    said = Accepted(run="j-1.2", epoch=2, sandbox="bubblewrap", network="host")
    assert words(story.tell(seen.Answered(report=said, outcome=OK))) == []
    gone = story.tell(seen.NodesEnded(run=FIRST))
    assert [report.run for report in sent(gone, Accepted)] == ["j-1.2"]
    refused = admit(story.state, part(1))
    assert isinstance(refused, Reason)
    assert refused.code == "epoch_stale"


def test_another_run_of_the_same_epoch_that_is_not_of_the_same_gang_is_not_taken():
    story = waiting(0)
    others = (MEMBERS[0], replace(MEMBERS[1], site="cn.demo.lab8/site/sh1"), replace(MEMBERS[2], site=SITE))
    for odd in (
        replace(part(1), part=None),
        replace(part(), run="j-1.1.2", task=replace(part().task, nodes=2), accelerator_count=2,
                part=replace(PART, member=2, members=others)),
    ):  # fmt: skip
        refused = admit(story.state, odd)
        assert isinstance(refused, Reason)
        assert refused.code == "epoch_stale"


def test_what_is_held_for_a_gang_that_nobody_confirms_is_let_go_and_said():
    story = waiting()
    due_ms = next_ms(story.state)
    assert due_ms == NOW_MS + 5_000 + LEASE_MS
    assert words(story.tell(seen.Ticked(), 5_000 + LEASE_MS - 1)) == []
    told = story.tell(seen.Ticked(), 1)
    assert words(told) == ["withdraw", "forget", "send Ended"]
    (over,) = sent(told, Ended)
    assert (over.state, over.is_start_failure, over.reason.code) == ("failed", True, "lost")
    again = story.order(part(state="accepted"))
    assert [each.run for each in sent(again, Ended)] == [FIRST], "it is not here any more"
    assert words(story.tell(seen.Answered(report=over, outcome=OK))) == []
    assert not story.state.owed


def test_a_confirmation_that_comes_late_gives_it_time_to_be_answered():
    story = waiting()
    story.tell(seen.Cut(), 60_000)
    assert next_ms(story.state) is None, "nobody can answer"
    told = story.tell(seen.Welcomed(orders=(part(state="accepted"),), lease_ms=LEASE_MS))
    assert words(told) == ["send Accepted"]
    assert words(story.tell(seen.Ticked(), 5_000)) == []
    (said,) = sent(told, Accepted)
    assert words(story.tell(seen.Answered(report=said, outcome=OK))) == ["persist launching", "start"]


def test_a_gang_that_was_given_up_meanwhile_is_let_go_at_the_next_welcome():
    story = waiting(0, 1)
    assert words(story.tell(seen.Welcomed(orders=(), lease_ms=LEASE_MS))) == ["withdraw", "forget"] * 2
    assert not story.state.runs


def test_a_stop_ends_what_waits_and_nothing_is_started_after_it():
    story = waiting()
    told = story.order(Stop(run=FIRST, epoch=1, why="the gang ends"))
    assert words(told) == ["withdraw", "persist ended", "send Ended"]
    late = Accepted(run=FIRST, epoch=1, sandbox="bubblewrap", network="host")
    assert words(story.tell(seen.Answered(report=late, outcome=OK))) == ["send Ended"]


def test_an_acceptance_of_a_run_that_is_not_here_is_answered_with_its_end():
    story = Story()
    (over,) = sent(story.order(part(state="accepted")), Ended)
    assert (over.run, over.is_start_failure) == (FIRST, True)
    assert not story.state.runs


@pytest.mark.parametrize("phase", [Phase.ACCEPTING, Phase.LAUNCHING, Phase.RUNNING, Phase.FINISHING])
def test_a_crash_in_any_phase_leaves_both_parts_as_they_were(phase: Phase):
    story = waiting(0, 1)
    held = [replace(each, phase=phase, launched_ms=0 if phase is Phase.ACCEPTING else NOW_MS)
            for each in story.state.runs.values()]  # fmt: skip
    again, _ = recover(SITE, (pool(),), held, NOW_MS + 1)
    assert list(again.runs) == [FIRST, SECOND]
    assert [each.offer.part for each in again.runs.values()] == [part(0).part, part(1).part]
    later = Story(again)
    orders = (part(0, state="accepted"), part(1, state="accepted"))
    told = later.tell(seen.Welcomed(orders=orders, lease_ms=LEASE_MS))
    assert [type(each.report) for each in told if isinstance(each, Send)] != []
    for said in sent(told, Accepted):
        later.tell(seen.Answered(report=said, outcome=OK))
    assert all(each.phase in (Phase.LAUNCHING, Phase.RUNNING) for each in later.state.runs.values())


def test_what_is_journalled_of_it_is_read_again():
    story = waiting()
    held = story.state.runs[FIRST]
    assert msgspec.json.decode(msgspec.json.encode(held), type=Held) == held


@pytest.mark.parametrize(
    "wrong",
    [
        {"member": 3},
        {"member": -1},
        {"member": 1},
        {"members": MEMBERS[:1]},
        {"members": ()},
        {"members": (replace(MEMBERS[0], site="cn.demo.lab8/site/sh1"), *MEMBERS[1:])},
        {"members": (replace(MEMBERS[0], nodes=2), *MEMBERS[1:])},
        {"members": (MEMBERS[0], replace(MEMBERS[1], rank=2), MEMBERS[2])},
        {"members": (MEMBERS[0], replace(MEMBERS[1], nodes=0), MEMBERS[2])},
        {"members": (MEMBERS[0], replace(MEMBERS[1], nodes=-1), MEMBERS[2])},
        {"members": (*MEMBERS[:2], replace(MEMBERS[2], nodes=MOST_NODES))},
        {"members": (*MEMBERS[:2], replace(MEMBERS[2], run="../../etc"))},
        {"members": (*MEMBERS[:2], replace(MEMBERS[2], run=FIRST))},
        {"members": tuple(Member(run=f"j-1.1.{at}", site=SITE, rank=at, nodes=1) for at in range(MOST_MEMBERS + 1))},
        {"ports": (0,)},
        {"ports": (65_536,)},
        {"ports": tuple(range(1, 18))},
    ],
)
def test_a_part_that_no_honest_exchange_offers_is_refused(wrong: dict[str, Any]):
    refused = admit(state(), replace(part(), part=replace(PART, **wrong)))
    assert isinstance(refused, Reason), wrong
    assert refused.code == "offer_wrong"


def test_a_part_of_one_node_needs_a_network_to_meet_on_too():
    refused = admit(state(pool(networks=("none",))), part())
    assert isinstance(refused, Reason)
    assert refused.code == "network_not_offered"
