"""Which nodes of a gang are reached: by people by rank, by sites while they are members of one live gang."""

from __future__ import annotations

import pytest
from exchange_world import ALICE
from gang_world import GangWorld

from tieline.exchange.commands import OpenShell
from tieline.exchange.meeting import check_meets, node_among
from tieline.model.error import TielineError
from tieline.model.event import ShellOpened
from tieline.model.job import Job, Run
from tieline.model.party import Actor, Role
from tieline.model.relay import ShellBody


@pytest.fixture
def world() -> GangWorld:
    return GangWorld()


@pytest.fixture
def job(world: GangWorld) -> Job:
    return world.submitted()


@pytest.fixture
def runs(world: GangWorld, job: Job) -> list[Run]:
    return world.book(job)


def opened(world: GangWorld, job: Job, node: int) -> tuple[str, int]:
    found = world.do(OpenShell(actor=ALICE, job=job.id, body=ShellBody(node=node)))
    return found.run.id, found.local


def code_of(world: GangWorld, job: Job, node: int) -> str:
    with pytest.raises(TielineError) as caught:
        opened(world, job, node)
    return caught.value.code


def met(world: GangWorld, holder: str, run: Run, role: Role = Role.SITE) -> str:
    """What a site hears that asks for a pass to the nodes of ``run``; empty: it is given one."""
    try:
        check_meets(world.view, Actor(name=holder, roles=(role,)), run.site, run.id)
    except TielineError as error:
        return error.code
    return ""


def test_a_node_is_reached_by_its_rank_in_the_gang(world: GangWorld, job: Job, runs: list[Run]) -> None:
    assert [code_of(world, job, node) for node in (0, 3)] == ["conflict"] * 2  # nothing runs yet
    for run in runs:
        world.accepts(run)
    for run in runs[:2]:
        world.accepts(run)
        world.starts(run)
    assert [opened(world, job, node) for node in range(3)] == [(runs[0].id, 0), (runs[0].id, 1), (runs[1].id, 0)]
    assert code_of(world, job, 3) == "conflict"  # that one starts later
    world.accepts(runs[2])
    world.starts(runs[2])
    assert opened(world, job, 3) == (runs[2].id, 0)
    assert world.events[-1] == ShellOpened(job=job.id, run=runs[2].id, by=ALICE.name, program="shell", words=0)
    assert code_of(world, job, 4) == "invalid_request"
    world.ends(runs[0])
    assert code_of(world, job, 1) == "conflict"  # over, while the others go on
    assert opened(world, job, 2) == (runs[1].id, 0)


def test_members_of_one_live_gang_are_let_to_each_other_and_nobody_else_is(
    world: GangWorld, job: Job, runs: list[Run]
) -> None:
    a, b, c = world.sites
    stranger = world.join("eve", "s", core_count=4)
    assert met(world, a, runs[1]) == "conflict"  # nobody has accepted
    for run in runs[:2]:
        world.accepts(run)
    assert met(world, a, runs[1]) == "conflict"  # the gang is not whole
    world.accepts(runs[2])
    assert [met(world, holder, run) for holder in (a, b, c) for run in runs if run.site != holder] == [""] * 6
    assert met(world, stranger, runs[0]) == "not_found"
    assert met(world, a, runs[1], Role.ADMIN) == "not_found"
    elsewhere = world.book(world.submitted())  # another gang over the same sites
    assert met(world, a, elsewhere[1]) == "conflict"
    with pytest.raises(TielineError, match="no run"):  # the door of one site, the run of another
        check_meets(world.view, Actor(name=a, roles=(Role.SITE,)), c, runs[1].id)
    for run in runs:
        world.accepts(run)
        world.starts(run)
    world.ends(runs[1], "failed", 1)
    assert met(world, a, runs[1]) == "not_found"
    assert met(world, a, runs[2]) == ""  # until it is stopped
    assert met(world, b, runs[2]) == "not_found"
    world.cancel(job)
    world.tick()
    for run in (runs[0], runs[2]):
        world.ends(run, "stopped")
    assert met(world, a, runs[2]) == "not_found"


def test_a_rank_belongs_to_one_run_of_an_epoch(runs: list[Run]) -> None:
    found = [node_among(runs, rank) for rank in range(5)]
    assert [(each.run.member, each.local) if each else None for each in found] == [(0, 0), (0, 1), (1, 0), (2, 0), None]
    assert node_among([], 0) is None
