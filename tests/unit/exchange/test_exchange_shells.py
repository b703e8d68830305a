"""Shells: who may run a command beside a run, and what the log says of it."""

import pytest
from exchange_world import ADMIN, ALICE, World, task

from tieline.exchange.commands import ChangeProject, OpenShell, SubmitJobs
from tieline.model.error import TielineError
from tieline.model.event import ShellOpened
from tieline.model.party import Actor, Role
from tieline.model.project import Member, ProjectRole
from tieline.model.relay import WORDS_BYTES, ShellBody

MEMBER, MANAGER, STRANGER = (Actor(name=name, roles=(Role.USER,)) for name in ("bob", "mia", "eve"))
AUDITOR = Actor(name="audrey", roles=(Role.AUDITOR,))
OWNER = Actor(name="lab7", roles=(Role.OWNER,), owner="cn.demo.lab7")
ELSEWHERE = Actor(name="alice", roles=(Role.USER,), project="sound")  # her token is bound to another project


@pytest.fixture
def world():
    found = World()
    found.site = found.join("lab7", "gz1", core_count=16, memory_bytes=64 << 30)
    members = (
        Member(name="alice"),
        Member(name="bob"),
        Member(name="mia", role=ProjectRole.MANAGER),
    )
    found.do(ChangeProject(actor=ADMIN, project="vision", what="create", put=members))
    (found.job,) = found.do(SubmitJobs(actor=ALICE, tasks=(task(),), project="vision"))
    return found


def opened(world, actor=ALICE, **body):
    return world.do(OpenShell(actor=actor, job=world.job.id, body=ShellBody(**body)))


def refused(world, actor=ALICE, **body):
    """The code of the refusal, after which nothing is in the log."""
    before = len(world.events)
    with pytest.raises(TielineError) as caught:
        opened(world, actor, **body)
    assert len(world.events) == before
    return caught.value.code


def running(world):
    run = world.run_of(world.job)
    world.accept(run)
    world.start(run)
    return run


def test_who_may_stop_a_job_may_run_a_command_beside_it_and_nobody_else(world):
    assert refused(world) == "conflict"  # it does not run yet
    run = running(world)
    for actor in (ALICE, MANAGER, ADMIN):
        assert opened(world, actor) == (world.view.runs[run.id], 0)
        assert world.events[-1] == ShellOpened(
            job=world.job.id, run=run.id, by=actor.name, program="shell", words=0
        )  # fmt: skip
    assert [refused(world, actor) for actor in (MEMBER, AUDITOR)] == ["forbidden"] * 2
    assert [refused(world, actor) for actor in (STRANGER, OWNER, ELSEWHERE)] == ["not_found"] * 3
    world.end(run)
    assert refused(world) in ("conflict", "not_found")


def test_the_log_says_the_program_and_never_a_line_that_may_hold_a_secret(world):
    running(world)
    for command, program in (
        (("/usr/bin/env", "TOKEN=hush"), "/usr/bin/env"),
        (("TOKEN=hush",), "(not shown)"),
        (("mysql -phush",), "(not shown)"),
        (("\x1b]0;hush\x07",), "(not shown)"),
        (("x" * 201,), "(not shown)"),
    ):
        opened(world, command=command)
        assert (world.events[-1].program, world.events[-1].words) == (program, len(command))
        assert "hush" not in str(world.events[-1])
    opened(world, port=8888)
    assert world.events[-1].program == "port 8888"


def test_a_body_that_makes_no_sense_is_refused_whole(world):
    running(world)
    assert refused(world, node=1) == "invalid_request"
    assert refused(world, command=("a\0b",)) == "invalid_request"
    assert refused(world, command=("x" * WORDS_BYTES, "y")) == "invalid_request"
    assert refused(world, command=("true",), port=80) == "invalid_request"
