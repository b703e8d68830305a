"""A run of a peer's user gives way like any borrower's: its job ends here, and is placed again over there."""

from __future__ import annotations

from branches_world import Federation
from exchange_world import task

from tieline.exchange.commands import ChangeProject, SubmitJobs
from tieline.model.event import StopRequested
from tieline.model.job import JobState, RunState
from tieline.model.party import Actor, Role
from tieline.model.project import Member, Quota
from tieline.model.task import Checkpoint, Resources

ADMIN = Actor(name="admin", roles=(Role.ADMIN,))
BOB = Actor(name="bob", roles=(Role.USER,))


def test_a_guest_gives_way_and_its_own_exchange_places_it_again() -> None:
    found = Federation()
    a, b = found.add("a"), found.add("b")
    b.join("lab", "one", cores=8, accelerator="a100", accelerator_count=8)
    found.join_up(a, b)
    six = (Resources(accelerator="a100", accelerator_count=6),)
    (asked,) = a.submit(task(resources=six, checkpoint=Checkpoint(path="kept")))
    found.pass_ms(3_000)
    (guest,) = b.own_runs(RunState.OFFERED)
    assert guest.is_preemptible
    b.accept(guest)
    b.start(b.view.runs[guest.id])
    found.pass_ms(2_000)
    assert a.view.jobs[asked.id].state is JobState.RUNNING
    assert not a.run_of(asked).is_preemptible, "what runs behind a peer is not asked by us"

    b.do(
        ChangeProject(actor=ADMIN, project="p", what="create", quota=Quota(card_count=8), put=(Member(name="bob"),)),
    )
    b.do(SubmitJobs(actor=BOB, tasks=(task(resources=six),), project="p"))
    (stop,) = [each for each in b.events if isinstance(each, StopRequested) and each.reason is not None]
    assert (stop.run, stop.reason.code) == (guest.id, "preempted_for_share")
    b.checkpoint(b.view.runs[guest.id])
    b.end(b.view.runs[guest.id], "stopped", 143)
    assert guest.job not in b.view.jobs, "bound to one pool, it is over here"
    found.pass_ms(3_000)
    again = a.view.jobs[asked.id]
    assert (again.attempts, again.losses, again.preemptions) == (0, 1, 0), "over there it is a loss like any other"
    assert again.checkpoint
    assert b.view.shares is not None
    assert b.view.shares.standing("p").held.accelerators == 6
