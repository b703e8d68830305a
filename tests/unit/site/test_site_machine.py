"""The site's side of the protocol, told as stories: what happens, and what the site does about it."""

from __future__ import annotations

import msgspec
import pytest
from site_offers import NOW_MS, SITE, Story, core_offer, cores, offer, pool, state, words

from tieline.model.job import Output
from tieline.model.protocol import Accepted, Ask, CheckpointKept, Drain, Ended, Outcome, Refused, Resync, Started, Stop
from tieline.model.reason import Reason
from tieline.model.task import Task
from tieline.ports import Ending
from tieline.site import Done, Entry, Held, Phase, next_ms, recover
from tieline.site import stimulus as seen
from tieline.site.instruction import Forget, HandOver, Instruction, Send, Start

OK = Outcome(is_ok=True)
STALE = Outcome(is_ok=False, what="stale")
WELL = Ending(exit_code=0, started_ms=NOW_MS, ended_ms=NOW_MS + 1_500, cpu_ms=40, max_memory_bytes=7)


def report_in(instructions: list[Instruction], kind: type) -> object:
    """The one report of ``kind`` that is sent."""
    (found,) = [each.report for each in instructions if isinstance(each, Send) and isinstance(each.report, kind)]
    return found


def accepted(story: Story, run: str = "j-1.1", **fields: object) -> Accepted:
    """Offer a run; the site accepts."""
    report = report_in(story.order(offer(run, **fields)), Accepted)
    assert isinstance(report, Accepted)
    return report


def running(story: Story, run: str = "j-1.1", **fields: object) -> None:
    """Bring a run to where it runs."""
    story.tell(seen.Answered(report=accepted(story, run, **fields), outcome=OK))
    story.tell(seen.NodesStarted(run=run))
    assert story.state.runs[run].phase is Phase.RUNNING


def ended(story: Story, run: str = "j-1.1", *endings: Ending) -> Ended:
    """Let the nodes end and hand over; the terminal report."""
    story.tell(seen.NodesEnded(run=run, endings=endings or (WELL,)))
    told = story.tell(seen.HandedOver(run=run, endings=endings or (WELL,)))
    report = report_in(told, Ended)
    assert isinstance(report, Ended)
    return report


def test_a_run_goes_from_offer_to_its_end_in_this_order():
    story = Story()
    took = story.order(offer())
    assert words(took) == ["persist accepting durably", "send Accepted"]
    begun = story.tell(seen.Answered(report=report_in(took, Accepted), outcome=Outcome(is_ok=True, sealed="c2VhbA")))
    assert words(begun) == ["persist launching", "start"]
    assert isinstance(begun[1], Start)
    assert begun[1].sealed == "c2VhbA"
    assert words(story.tell(seen.NodesStarted(run="j-1.1"))) == ["persist running", "send Started"]
    over = story.tell(seen.NodesEnded(run="j-1.1", endings=(WELL,)))
    assert words(over) == ["persist finishing", "handover"]
    kept = (Output(path="model.bin", sha256="0" * 64, size_bytes=3),)
    told = story.tell(seen.HandedOver(run="j-1.1", endings=(WELL,), outputs=kept))
    assert words(told) == ["withdraw", "persist ended", "send Ended"]
    report = report_in(told, Ended)
    assert report == Ended(
        run="j-1.1", epoch=1, state="succeeded", exit_codes=(0,), duration_ms=1_500, cpu_ms=40, max_memory_bytes=7,
        outputs=kept,
    )  # fmt: skip
    assert words(story.tell(seen.Answered(report=report, outcome=OK))) == ["forget"]
    assert (story.state.runs, list(story.state.done)) == ({}, ["j-1.1"])


def test_secrets_are_in_no_journal():
    story = Story()
    took = accepted(story)
    told = story.tell(seen.Answered(report=took, outcome=Outcome(is_ok=True, sealed="c2VjcmV0")))
    journal = [msgspec.json.encode(each.held) for each in told if hasattr(each, "held")]
    assert not any(b"c2VjcmV0" in entry for entry in journal)


def test_devices_are_held_once_and_given_back_when_the_nodes_are_gone():
    story = Story()
    running(story, "j-1.1", nodes=3)
    assert story.state.runs["j-1.1"].devices == (0, 1, 2)
    refused = report_in(story.order(offer("j-2.1", nodes=2)), Refused)
    assert isinstance(refused, Refused)
    assert refused.reason == Reason(code="accelerators_free", values={"asked": 2, "most": 1})
    story.tell(seen.NodesEnded(run="j-1.1", endings=(WELL,) * 3))
    accepted(story, "j-3.1", nodes=4)
    assert story.state.runs["j-3.1"].devices == (0, 1, 2, 3)


def test_nodes_of_a_gang_get_their_devices_by_rank():
    story = Story()
    accepted(story, nodes=2, accelerator_count=4)
    held = story.state.runs["j-1.1"]
    assert [held.devices_of(0), held.devices_of(1)] == [(0, 1), (2, 3)]


def test_cores_and_memory_are_counted_too():
    story = Story(state(cores(core_count=4, memory_bytes=100)))
    story.order(core_offer("j-1.1", core_count=3, memory_bytes=60))
    first = report_in(story.order(core_offer("j-2.1", core_count=2)), Refused)
    second = report_in(story.order(core_offer("j-3.1", core_count=1, memory_bytes=50)), Refused)
    assert first.reason.code == "cores_free"
    assert second.reason.values == {"asked_bytes": 50, "most_bytes": 40}


def test_nothing_starts_when_the_exchange_has_changed_its_mind():
    story = Story()
    told = story.tell(seen.Answered(report=accepted(story), outcome=STALE))
    assert words(told) == ["withdraw", "forget"]
    assert not story.state.runs


def test_an_offer_that_comes_twice_is_accepted_twice_and_held_once():
    story = Story()
    accepted(story)
    assert words(story.order(offer())) == ["send Accepted"]
    assert len(story.state.runs) == 1


def test_an_outcome_that_comes_twice_starts_once():
    story = Story()
    took = accepted(story)
    story.tell(seen.Answered(report=took, outcome=OK))
    assert words(story.tell(seen.Answered(report=took, outcome=OK))) == []
    story.tell(seen.NodesStarted(run="j-1.1"))
    assert words(story.tell(seen.Answered(report=took, outcome=OK))) == ["send Started"]


def test_an_order_replayed_after_the_end_is_answered_with_the_end():
    story = Story()
    running(story)
    report = ended(story)
    story.tell(seen.Answered(report=report, outcome=OK))
    assert words(story.order(offer())) == ["send Ended"]
    assert words(story.order(Stop(run="j-1.1", epoch=1))) == ["send Ended"]
    story.tell(seen.Answered(report=report, outcome=STALE))
    assert story.state.owed == {}


def test_only_so_many_ended_runs_are_remembered():
    story = Story(state(cores()))
    for number in range(600):
        run = f"j-{number}.1"
        story.tell(seen.Answered(report=report_in(story.order(core_offer(run)), Accepted), outcome=OK))
        story.tell(seen.NodesEnded(run=run))
        story.tell(seen.Answered(report=story.state.runs[run].ended, outcome=OK))
    assert len(story.state.done) == 512
    assert "j-599.1" in story.state.done
    assert "j-0.1" not in story.state.done


# -- epochs ------------------------------------------------------------------------------------------------------------


def test_a_newer_epoch_ends_the_older_one_and_starts_only_when_it_is_gone():
    story = Story()
    running(story, "j-1.1")
    told = story.order(offer("j-1.2"))
    assert words(told) == ["persist running", "halt fenced", "persist accepting durably", "send Accepted"]
    newer = report_in(told, Accepted)
    assert words(story.tell(seen.Answered(report=newer, outcome=OK))) == []
    gone = story.tell(seen.NodesEnded(run="j-1.1", endings=(Ending(exit_code=137),)))
    assert words(gone) == ["withdraw", "persist ended", "send Ended", "send Accepted"]
    assert words(story.tell(seen.Answered(report=newer, outcome=OK))) == ["persist launching", "start"]


def test_an_older_epoch_is_refused_while_a_newer_one_is_here():
    story = Story()
    running(story, "j-1.2")
    refused = report_in(story.order(offer("j-1.1")), Refused)
    assert refused.reason == Reason(code="epoch_stale", values={"newest": "j-1.2"})


def test_a_fenced_run_is_ended_at_once_and_uploads_nothing():
    story = Story()
    running(story)
    told = story.tell(seen.Fenced(runs=("j-1.1", "j-9.1")))
    assert words(told) == ["persist running", "halt fenced"]
    over = story.tell(seen.NodesEnded(run="j-1.1", endings=(Ending(exit_code=137),)))
    assert words(over) == ["withdraw", "persist ended", "send Ended"]
    report = report_in(over, Ended)
    assert (report.state, report.outputs) == ("stopped", ())


def test_a_started_report_that_is_stale_fences_the_run():
    story = Story()
    running(story)
    told = story.tell(seen.Answered(report=Started(run="j-1.1", epoch=1), outcome=STALE))
    assert words(told) == ["persist running", "halt fenced"]


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_a_stop_gives_the_run_its_grace_and_its_checkpoint():
    story = Story()
    running(story, grace_s=9)
    assert words(story.order(Stop(run="j-1.1", epoch=1, why="asked"))) == ["persist running", "halt in 9 s"]
    assert words(story.order(Stop(run="j-1.1", epoch=1, why="asked"))) == []
    told = story.tell(seen.NodesEnded(run="j-1.1", endings=(Ending(exit_code=143),)))
    hand = told[-1]
    assert isinstance(hand, HandOver)
    assert (hand.with_outputs, hand.with_checkpoint) == (False, True)
    story.tell(seen.CheckpointKept(run="j-1.1", sha256="a" * 64, size_bytes=5))
    report = report_in(story.tell(seen.HandedOver(run="j-1.1", endings=hand.endings)), Ended)
    assert (report.state, report.exit_codes, report.checkpoint) == ("stopped", (143,), "a" * 64)


def test_a_stop_before_the_start_ends_the_run_without_one():
    story = Story()
    accepted(story)
    told = story.order(Stop(run="j-1.1", epoch=1))
    assert words(told) == ["withdraw", "persist ended", "send Ended"]
    assert report_in(told, Ended).state == "stopped"


def test_a_stop_while_bytes_are_laid_out_ends_it_without_exit_codes():
    story = Story()
    story.tell(seen.Answered(report=accepted(story), outcome=OK))
    assert words(story.order(Stop(run="j-1.1", epoch=1))) == ["persist launching", "halt in 5 s"]
    report = report_in(story.tell(seen.NodesEnded(run="j-1.1")), Ended)
    assert (report.state, report.exit_codes, report.duration_ms) == ("stopped", (), 0)


def test_a_stop_for_another_epoch_or_an_unknown_run_does_nothing():
    story = Story()
    running(story)
    assert words(story.order(Stop(run="j-1.1", epoch=7))) == []
    assert words(story.order(Stop(run="j-8.1", epoch=1))) == []


def test_a_stop_that_came_too_late_does_not_take_a_success_away():
    story = Story()
    running(story)
    story.tell(seen.NodesEnded(run="j-1.1", endings=(WELL,)))
    assert words(story.order(Stop(run="j-1.1", epoch=1))) == []
    assert report_in(story.tell(seen.HandedOver(run="j-1.1", endings=(WELL,))), Ended).state == "succeeded"


def test_a_run_is_stopped_when_its_time_is_over_even_if_nobody_is_heard():
    story = Story()
    running(story, stop_after_s=60)
    story.tell(seen.Cut())
    assert next_ms(story.state) == NOW_MS + 60_000
    assert words(story.tell(seen.Ticked(), after_ms=59_999)) == []
    assert words(story.tell(seen.Ticked(), after_ms=1)) == ["persist running", "halt in 5 s"]
    report = ended(story, "j-1.1", Ending(exit_code=0))
    assert report.state == "stopped"
    assert report.reason == Reason(code="limit_reached", values={"limit": "time", "value": "1 min"})


def test_the_owner_may_take_the_capacity_back():
    story = Story()
    running(story)
    assert words(story.tell(seen.OwnerStopped(run="j-1.1", why="maintenance")))[-1] == "halt in 5 s"
    report = ended(story, "j-1.1", Ending(exit_code=143))
    assert report.reason == Reason(code="reclaimed", values={"why": "maintenance"})


# -- how it ended ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "code", "values"),
    [
        (Ending(exit_code=3), "exit_code", {"exit_code": 3}),
        (Ending(exit_code=139), "signal", {"signal": 11}),
        (Ending(exit_code=2, phase="setup"), "setup_failed", {"exit_code": 2}),
        (Ending(exit_code=137, limit="memory"), "limit_reached", {"limit": "memory"}),
        (Ending(exit_code=137, limit="disk"), "limit_reached", {"limit": "disk"}),
    ],
)
def test_a_failure_says_why(ending: Ending, code: str, values: dict[str, int | str]):
    story = Story()
    running(story)
    report = ended(story, "j-1.1", ending)
    assert report.state == "failed"
    assert report.reason is not None
    assert report.reason.code == code
    assert values.items() <= report.reason.values.items()


def test_the_engine_s_own_time_limit_is_a_stop_by_limit():
    story = Story()
    running(story, stop_after_s=60)
    report = ended(story, "j-1.1", Ending(exit_code=143, limit="time"))
    assert (report.state, report.reason.code if report.reason else "") == ("stopped", "limit_reached")


def test_of_a_gang_the_first_failure_is_the_reason():
    story = Story()
    running(story, nodes=3)
    endings = (
        Ending(exit_code=143, started_ms=10, ended_ms=90, cpu_ms=1, max_memory_bytes=5),
        Ending(exit_code=4, started_ms=10, ended_ms=50, cpu_ms=2, max_memory_bytes=6),
        Ending(exit_code=143, started_ms=12, ended_ms=95, cpu_ms=4, max_memory_bytes=7),
    )
    report = ended(story, "j-1.1", *endings)
    assert report.exit_codes == (143, 4, 143)
    assert report.reason == Reason(code="exit_code", values={"exit_code": 4, "pool": pool().id})
    assert (report.duration_ms, report.cpu_ms, report.max_memory_bytes) == (85, 7, 18)


def test_what_cannot_be_started_is_a_start_failure_and_bills_nothing():
    story = Story()
    story.tell(seen.Answered(report=accepted(story), outcome=OK))
    why = Reason(code="start_failed", values={"pool": "p", "why": "no space"})
    told = story.tell(seen.StartFailed(run="j-1.1", reason=why))
    report = report_in(told, Ended)
    assert (report.state, report.is_start_failure, report.reason) == ("failed", True, why)


def test_a_success_whose_results_cannot_be_handed_over_is_a_failure():
    story = Story()
    running(story)
    story.tell(seen.NodesEnded(run="j-1.1", endings=(WELL,)))
    why = Reason(code="outputs_not_kept", values={"why": "too large"})
    report = report_in(story.tell(seen.HandedOver(run="j-1.1", endings=(WELL,), failure=why)), Ended)
    assert (report.state, report.reason) == ("failed", why)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_told_once_and_again_after_a_reconnect():
    story = Story()
    running(story)
    kept = seen.CheckpointKept(run="j-1.1", sha256="b" * 64, size_bytes=9)
    assert words(story.tell(kept)) == ["persist running", "send CheckpointKept"]
    assert words(story.tell(kept)) == []
    live = msgspec.structs.replace(offer(), state="running")
    told = story.tell(seen.Welcomed(orders=(live,)))
    assert words(told) == ["send Started", "send CheckpointKept"]
    assert report_in(told, CheckpointKept) == CheckpointKept(run="j-1.1", epoch=1, sha256="b" * 64, size_bytes=9)


# -- reconciliation ----------------------------------------------------------------------------------------------------


def test_a_welcome_stops_what_is_not_ours_any_more_and_keeps_what_is():
    story = Story()
    running(story, "j-1.1")
    running(story, "j-2.1")
    accepted(story, "j-3.1")
    live = msgspec.structs.replace(offer("j-2.1"), state="running")
    told = story.tell(seen.Welcomed(orders=(live,)))
    assert words(told) == ["persist running", "halt fenced", "withdraw", "forget", "send Started"]
    assert list(story.state.runs) == ["j-1.1", "j-2.1"]
    assert not story.state.runs["j-2.1"].is_fenced


def test_a_welcome_with_a_run_that_is_nowhere_here_says_that_it_is_lost():
    story = Story()
    live = msgspec.structs.replace(offer("j-1.1"), state="running")
    told = story.tell(seen.Welcomed(orders=(live,)))
    report = report_in(told, Ended)
    assert (report.state, report.is_start_failure) == ("failed", True)
    assert report.reason.code == "lost"
    assert report.reason.values["site"] == SITE
    assert words(story.tell(seen.Welcomed(orders=(live,)))) == ["send Ended"]
    story.tell(seen.Answered(report=report, outcome=OK))
    assert story.state.owed == {}


def test_a_welcome_offers_anew_and_brings_stops_along():
    story = Story()
    running(story, "j-1.1")
    orders = (
        msgspec.structs.replace(offer("j-1.1"), state="running"),
        Stop(run="j-1.1", epoch=1),
        offer("j-2.1"),
        offer("j-3.1", ttl_ms=0),
    )
    told = story.tell(seen.Welcomed(orders=orders, is_draining=False))
    assert words(told) == [
        "send Started", "persist running", "halt in 5 s", "persist accepting durably", "send Accepted",
    ]  # fmt: skip


def test_an_end_that_was_not_heard_is_told_again_after_a_reconnect():
    story = Story()
    running(story)
    ended(story)
    live = msgspec.structs.replace(offer(), state="running")
    assert words(story.tell(seen.Welcomed(orders=(live,)))) == ["send Ended"]
    assert words(story.tell(seen.Welcomed(orders=()))) == ["send Ended"]


def test_orders_that_are_not_for_the_machine_are_left_alone():
    story = Story()
    before = story.state
    question = Ask(quote="q", pool="p", task=Task(), alternative=0, user="u")
    assert words(story.order(question)) + words(story.order(Resync())) == []
    assert story.state == before


# -- drain, holding, crashes -------------------------------------------------------------------------------------------


def test_a_draining_site_takes_nothing_new_and_lets_runs_go_on():
    story = Story()
    running(story)
    story.order(Drain(is_draining=True))
    assert report_in(story.order(offer("j-2.1")), Refused).reason.code == "site_draining"
    assert story.state.runs["j-1.1"].phase is Phase.RUNNING
    story.order(Drain(is_draining=False))
    story.tell(seen.OwnerDrained(is_draining=True))
    assert report_in(story.order(offer("j-3.1")), Refused).reason.code == "site_draining"
    story.tell(seen.OwnerDrained(is_draining=False))
    accepted(story, "j-4.1")


def test_capacity_is_not_held_for_ever_for_an_exchange_that_does_not_answer():
    story = Story()
    story.tell(seen.Welcomed(lease_ms=2_000))
    took = accepted(story, ttl_ms=6_000)
    assert next_ms(story.state) == NOW_MS + 8_000
    assert words(story.tell(seen.Ticked(), after_ms=7_999)) == []
    assert words(story.tell(seen.Ticked(), after_ms=1)) == ["withdraw", "forget"]
    told = story.tell(seen.Answered(report=took, outcome=OK))
    assert report_in(told, Ended).is_start_failure


def test_capacity_is_held_while_the_line_is_cut():
    story = Story()
    accepted(story)
    story.tell(seen.Cut())
    assert words(story.tell(seen.Ticked(), after_ms=3_600_000)) == []
    assert list(story.state.runs) == ["j-1.1"]


def test_time_with_nothing_to_do_is_never_next():
    assert next_ms(state()) is None


def journal(story: Story) -> list[Entry]:
    """What lies on the disk: every run and every remembered end."""
    entries: list[Entry] = [Done(ended=report) for report in story.state.done.values()]
    return [*entries, *story.state.runs.values()]


def test_after_a_crash_a_running_run_is_watched_again_and_a_launching_one_asked_for_again():
    story = Story()
    running(story, "j-1.1")
    story.tell(seen.Answered(report=accepted(story, "j-2.1"), outcome=OK))
    again, told = recover(SITE, (pool(),), journal(story), NOW_MS)
    assert words(told) == ["adopt"]
    assert again.runs["j-2.1"].phase is Phase.ACCEPTING
    assert again.runs["j-2.1"].launched_ms
    after = Story(again)
    orders = tuple(msgspec.structs.replace(offer(run), state="accepted") for run in ("j-1.1", "j-2.1"))
    assert words(after.tell(seen.Welcomed(orders=orders))) == ["send Started", "send Accepted"]
    took = Accepted(run="j-2.1", epoch=1)
    assert words(after.tell(seen.Answered(report=took, outcome=OK))) == ["persist launching", "start"]


def test_after_a_crash_a_stop_goes_on():
    story = Story()
    running(story)
    story.order(Stop(run="j-1.1", epoch=1))
    _, told = recover(SITE, (pool(),), journal(story), NOW_MS)
    assert words(told) == ["adopt", "halt in 5 s"]


def test_after_a_crash_a_run_that_may_have_begun_is_stopped_when_it_is_not_ours_any_more():
    story = Story()
    story.tell(seen.Answered(report=accepted(story), outcome=OK))
    after = Story(recover(SITE, (pool(),), journal(story), NOW_MS)[0])
    assert words(after.tell(seen.Welcomed(orders=()))) == ["persist accepting", "halt fenced"]
    told = after.tell(seen.NodesEnded(run="j-1.1", endings=(Ending(exit_code=137),)))
    assert report_in(told, Ended).state == "stopped"


def test_after_a_crash_ended_runs_are_still_owed_and_remembered():
    story = Story()
    running(story, "j-1.1")
    story.tell(seen.Answered(report=ended(story, "j-1.1"), outcome=OK))
    running(story, "j-2.1")
    ended(story, "j-2.1")
    again, told = recover(SITE, (pool(),), journal(story), NOW_MS)
    assert told == []
    assert list(again.done) == ["j-1.1"]
    assert again.runs["j-2.1"].phase is Phase.ENDED


def test_after_a_crash_a_pool_that_became_smaller_is_not_oversold():
    story = Story()
    running(story, nodes=3)
    after = Story(recover(SITE, (pool(devices=(0, 1)),), journal(story), NOW_MS)[0])
    assert report_in(after.order(offer("j-2.1")), Refused).reason.values == {"asked": 1, "most": 0}


def test_the_journal_reads_back_what_was_written():
    story = Story()
    running(story, nodes=2, stop_after_s=5)
    held = story.state.runs["j-1.1"]
    assert msgspec.json.decode(msgspec.json.encode(held), type=Entry) == held
    done = Done(ended=ended(story, "j-1.1", WELL, WELL))
    assert msgspec.json.decode(msgspec.json.encode(done), type=Entry) == done


def test_what_never_began_leaves_nothing_to_be_remembered():
    story = Story()
    told = story.tell(seen.Answered(report=accepted(story), outcome=STALE))
    assert [each for each in told if isinstance(each, Forget)] == [Forget(run="j-1.1")]


def test_a_held_run_names_itself():
    assert Held(offer=offer("j-4.2"), phase=Phase.RUNNING).run == "j-4.2"
