"""Projects: who makes them, who is in them, which of them a job counts for, and what it may ask for."""

import msgspec
import pytest
from exchange_world import ADMIN, ALICE, World, task
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.exchange.commands import AcceptQuote, ChangeProject, PlanTasks, ReadProjects, StopJob, SubmitJobs, WhyJob
from tieline.exchange.membership import Membership
from tieline.exchange.projection import load, rows
from tieline.exchange.view import View, month_of
from tieline.model.error import TielineError
from tieline.model.event import ProjectChanged
from tieline.model.job import JobState
from tieline.model.limits import Limits
from tieline.model.party import Actor, Role
from tieline.model.project import Member, Project, ProjectRole, Quota
from tieline.model.protocol import Quoted
from tieline.model.task import Resources

BOB = Actor(name="bob", roles=(Role.USER,))
CAROL = Actor(name="carol", roles=(Role.USER,), groups=("corp:vision", "corp:all"))
AUDITOR = Actor(name="audrey", roles=(Role.AUDITOR,))
MANAGER = ProjectRole.MANAGER
PRICE = {"price_micro_cny_per_accelerator_hour": 3_600}


def make(world, name, *members, actor=ADMIN, **terms):
    return world.do(ChangeProject(actor=actor, project=name, what="create", put=members, **terms))


def change(world, name, what, actor=ADMIN, **fields):
    return world.do(ChangeProject(actor=actor, project=name, what=what, **fields))


def submit(world, *tasks, actor=ALICE, project=""):
    return world.do(SubmitJobs(actor=actor, tasks=tasks or (task(),), project=project))


def read(world, name="", actor=ADMIN):
    return world.do(ReadProjects(actor=actor, project=name))


def refused(world, call, *args, **fields):
    """The refusal, after which nothing has changed."""
    before = len(world.events)
    with pytest.raises(TielineError) as error:
        call(world, *args, **fields)
    assert len(world.events) == before
    return error.value


def code_of(error):
    return error.reasons[0].code if error.reasons else error.code


@pytest.fixture
def world():
    found = World()
    found.site = found.join("lab7", "gz1", core_count=16, memory_bytes=64 << 30, **PRICE)
    return found


# -- making and changing ----------------------------------------------------------------------------------------------


def test_an_admin_makes_a_project_and_nobody_else_does(world):
    made = make(world, "vision", Member(name="alice", role=MANAGER), quota=Quota(card_count=4), title="Vision")
    assert (made.id, made.quota.card_count, made.members[0].name) == ("vision", 4, "alice")
    assert made.created_ms == made.changed_ms == world.clock.now_ms()
    for actor in (ALICE, AUDITOR, Actor(name="lab7", roles=(Role.OWNER,), owner="cn.demo.lab7")):
        assert refused(world, make, "sound", actor=actor).code == "forbidden"
    assert refused(world, make, "vision").code == "conflict"


def test_every_change_is_a_fact_and_a_change_of_nothing_is_none(world):
    make(world, "vision", Member(name="alice"))
    before = len(world.events)
    change(world, "vision", "set", weight=1, title="", may_borrow=True)
    change(world, "vision", "members", put=(Member(name="alice"),))
    change(world, "vision", "reopen")
    assert len(world.events) == before
    world.clock.advance(1_000)
    changed = change(world, "vision", "set", weight=3, quota=Quota(core_count=8), priority_most=7)
    assert (changed.weight, changed.quota, changed.priority_most) == (3, Quota(core_count=8), 7)
    assert changed.changed_ms > changed.created_ms
    assert isinstance(world.events[-1], ProjectChanged)
    assert world.events[-1].why == "changed by admin"


def test_a_manager_changes_members_and_nothing_else(world):
    make(world, "vision", Member(name="alice", role=MANAGER), Member(name="carol"))
    change(world, "vision", "members", ALICE, put=(Member(name="bob"), Member(name="corp:all", is_group=True)))
    assert [member.name for member in world.view.projects["vision"].members] == ["alice", "bob", "carol", "corp:all"]
    assert refused(world, change, "vision", "set", ALICE, quota=Quota(card_count=100)).code == "forbidden"
    assert refused(world, change, "vision", "close", ALICE).code == "forbidden"
    assert refused(world, change, "vision", "members", BOB, put=(Member(name="eve"),)).code == "forbidden"
    assert refused(world, change, "vision", "members", AUDITOR, put=(Member(name="eve"),)).code == "forbidden"
    eve = Actor(name="eve", roles=(Role.USER,))
    assert refused(world, change, "vision", "members", eve, put=(Member(name="eve"),)).code == "not_found"
    change(world, "vision", "members", ALICE, remove=(Member(name="alice"),))  # also herself; any role is meant
    assert refused(world, change, "vision", "members", ALICE, put=(Member(name="alice"),)).code == "not_found"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"put": (Member(name="a"), Member(name="a", role=MANAGER))}, "invalid_request"),
        ({"put": (Member(name="alice"),), "remove": (Member(name="alice"),)}, "invalid_request"),
        ({"put": (Member(name="a\nb"),)}, "invalid_request"),
        ({"put": (Member(name=" a"),)}, "invalid_request"),
        ({"remove": (Member(name="alice", is_group=True),)}, "not_found"),
        ({"remove": (Member(name="nobody"),)}, "not_found"),
        ({"put": tuple(Member(name=f"u{n}") for n in range(10_000))}, "invalid_request"),
    ],
)
def test_members_that_cannot_be_are_refused_whole(world, fields, code):
    make(world, "vision", Member(name="alice"))
    assert refused(world, change, "vision", "members", **fields).code == code
    assert [member.name for member in world.view.projects["vision"].members] == ["alice"]


def test_who_may_see_a_project(world):
    make(world, "vision", Member(name="alice"), Member(name="corp:vision", is_group=True, role=MANAGER))
    make(world, "sound", Member(name="bob"))
    assert [each.id for each in read(world)] == [each.id for each in read(world, actor=AUDITOR)] == ["sound", "vision"]
    assert [(each.id, each.role, each.member_count, each.members) for each in read(world, actor=CAROL)] == [
        ("vision", "manager", 2, ())
    ]
    assert [member.name for member in read(world, "vision", ALICE)[0].members] == ["alice", "corp:vision"]
    assert refused(world, read, "vision", actor=BOB).code == "not_found"
    assert refused(world, read, "none").code == "not_found"


# -- work -------------------------------------------------------------------------------------------------------------


def test_a_job_counts_for_the_project_that_it_names_or_for_the_only_one(world):
    assert submit(world)[0].project == ""  # who is in none runs as before
    make(world, "vision", Member(name="alice"))
    steps = submit(world, task("one"), task("two"))
    assert [job.project for job in steps] == ["vision", "vision"]
    assert world.run_of(steps[0]).project == "vision"
    make(world, "sound", Member(name="alice"))
    several = refused(world, submit)
    assert several.code == "forbidden"
    assert several.reasons[0].values == {"who": "alice", "count": 2, "projects": "sound, vision"}
    assert submit(world, project="sound")[0].project == "sound"
    assert submit(world, actor=CAROL)[0].project == ""


def test_members_of_a_group_are_members(world):
    make(world, "vision", Member(name="corp:vision", is_group=True))
    make(world, "other", Member(name="carol", is_group=True))  # a group of her name is not she
    assert submit(world, actor=CAROL)[0].project == "vision"
    left = msgspec.structs.replace(CAROL, groups=("corp:all",))
    assert submit(world, actor=left)[0].project == ""
    assert code_of(refused(world, submit, actor=left, project="vision")) == "project_not_member"


def test_nobody_runs_in_a_project_of_others_or_in_a_closed_one(world):
    make(world, "vision", Member(name="alice"))
    for name in ("vision", "none"):  # whether there is one is not told
        wrong = refused(world, submit, actor=BOB, project=name)
        assert (wrong.code, code_of(wrong)) == ("forbidden", "project_not_member")
        assert wrong.message == f"`bob` is in no project `{name}` here"
    assert submit(world, actor=ADMIN, project="vision")[0].project == "vision"
    change(world, "vision", "close")
    assert code_of(refused(world, submit)) == "project_closed"  # the only one, and no way around it
    assert code_of(refused(world, submit, actor=ADMIN, project="vision")) == "project_closed"
    make(world, "sound", Member(name="alice"))
    assert submit(world)[0].project == "sound"  # the only one that is open
    change(world, "vision", "reopen")
    assert code_of(refused(world, submit)) == "project_several"


def test_a_token_that_is_bound_to_a_project_is_bound_to_it(world):
    make(world, "vision", Member(name="alice"))
    make(world, "sound", Member(name="alice"))
    bound = msgspec.structs.replace(ALICE, project="vision", scopes=("submit",))
    job = submit(world, actor=bound)[0]
    assert job.project == "vision"
    other = submit(world, project="sound")[0]
    assert code_of(refused(world, submit, actor=bound, project="sound")) == "token_bound"
    assert [each.id for each in read(world, actor=bound)] == ["vision"]
    assert refused(world, read, "sound", actor=bound).code == "not_found"
    assert world.do(WhyJob(actor=bound, job=job.id)).job == job.id
    for command in (WhyJob(actor=bound, job=other.id), StopJob(actor=bound, job=other.id)):
        with pytest.raises(TielineError, match="there is no live job"):
            world.do(command)
    elsewhere = msgspec.structs.replace(BOB, project="vision")  # a binding gives no right
    assert code_of(refused(world, submit, actor=elsewhere)) == "project_not_member"


def test_priority_is_bounded_by_the_project_and_an_admin_has_no_bound(world):
    make(world, "vision", Member(name="alice"), priority_most=5)
    assert submit(world, task(priority=5))[0].task.priority == 5
    over = refused(world, submit, task("a"), task("b", priority=6))
    assert over.reasons[0].values == {"asked": 6, "bound": 5, "whose": "project vision"}
    assert submit(world, task(priority=1_000), actor=ADMIN, project="vision")
    assert submit(world, task(priority=50), actor=BOB)
    assert code_of(refused(world, submit, task(priority=51), actor=BOB)) == "priority_over"

    def plan(world, priority):
        return world.do(PlanTasks(actor=ALICE, tasks=(task(priority=priority),)))

    assert plan(world, 5)
    assert code_of(refused(world, plan, 6)) == "priority_over"


def test_a_quote_is_accepted_under_the_same_rule(world):
    make(world, "vision", Member(name="alice"), priority_most=0)
    make(world, "sound", Member(name="bob"))
    quote = world.quote(task())
    world.report(world.site, Quoted(quote=quote.id, price_micro_cny_per_unit_hour=3_600, ttl_s=60))

    def accept(world, project=""):
        return world.do(AcceptQuote(actor=ALICE, quote=quote.id, project=project))

    assert code_of(refused(world, accept, "sound")) == "project_not_member"
    assert accept(world).project == "vision"


def test_an_exchange_may_ask_for_a_project_of_every_job():
    strict = World()
    strict.view.limits = Limits(project_needed=1)
    strict.join("lab7", "gz1", core_count=4, memory_bytes=8 << 30)
    assert code_of(refused(strict, submit)) == "project_needed"
    assert submit(strict, actor=ADMIN)[0].project == ""
    make(strict, "vision", Member(name="alice"))
    assert submit(strict)[0].project == "vision"


def test_members_see_the_jobs_of_their_project_and_managers_stop_them(world):
    make(
        world,
        "vision",
        Member(name="alice"),
        Member(name="bob"),
        Member(name="corp:vision", role=MANAGER, is_group=True),
    )
    (job,) = submit(world)
    assert world.do(WhyJob(actor=BOB, job=job.id)).state == "booked"
    with pytest.raises(TielineError, match="belongs to `alice`"):
        world.do(StopJob(actor=BOB, job=job.id))
    world.do(StopJob(actor=CAROL, job=job.id, why="enough"))
    assert job.id not in world.view.jobs.rows
    (own,) = submit(world, actor=Actor(name="dave", roles=(Role.USER,)))
    for actor in (BOB, CAROL):
        with pytest.raises(TielineError, match="there is no live job"):
            world.do(StopJob(actor=actor, job=own.id))


# -- what is used -----------------------------------------------------------------------------------------------------


def test_what_runs_used_is_counted_for_the_project_in_the_month_of_its_end(world):
    site = world.join(
        "lab8", "gpu", core_count=8, memory_bytes=8 << 30, accelerator="a100", accelerator_count=8, **PRICE
    )
    make(world, "vision", Member(name="alice"))
    cards = task(resources=(Resources(accelerator="a100", accelerator_count=2),))
    (job,) = submit(world, cards)
    (bare,) = submit(world, task(cores=3))
    run = world.run_of(job)
    world.start(run)
    world.start(world.run_of(bare))
    (shown,) = read(world, "vision")
    assert (shown.held_card_count, shown.held_core_count) == (2, 3)
    world.pass_ms(10_000, world.site, site)
    world.end(run, duration_ms=10_000)
    month = month_of(world.clock.now_ms())
    spent = world.view.spent[("vision", month)]
    assert (spent.card_ms, spent.charge_micro_cny) == (20_000, 20)
    (shown,) = read(world, "vision")
    assert (shown.held_card_count, shown.held_core_count, shown.month) == (0, 3, month)
    assert (shown.card_ms, shown.charge_micro_cny) == (20_000, 20)
    world.end(world.run_of(bare), duration_ms=4_000)
    assert world.view.spent[("vision", month)].charge_micro_cny == 20 + 12
    assert world.view.jobs.counts[JobState.RUNNING] == 0


def test_a_restart_knows_the_same_projects_members_and_spending(world):
    make(world, "vision", Member(name="alice", role=MANAGER), Member(name="corp:vision", is_group=True))
    change(world, "vision", "members", put=(Member(name="bob"),), remove=(Member(name="alice"),))
    (job,) = submit(world, actor=BOB)
    run = world.run_of(job)
    world.start(run)
    world.pass_ms(3_000, world.site)
    world.end(run, duration_ms=3_000)
    tables: dict[str, list] = {}
    for table, _, row in rows(world.view):
        tables.setdefault(table, []).append(row)
    again = View(world.keys)
    load(again, {name: tables.get(name, []) for name in (*tables, "peer", "cursor", "guest", "quote")}, 0)
    assert again.projects == world.view.projects
    assert again.spent == world.view.spent
    assert again.spent
    for actor in (ALICE, BOB, CAROL):
        assert again.members.of(actor) == world.view.members.of(actor)


# -- membership against a walk over everything ------------------------------------------------------------------------

NAMES = st.sampled_from(("a", "b", "c"))
MEMBERS = st.lists(
    st.builds(Member, name=NAMES, role=st.sampled_from(ProjectRole), is_group=st.booleans()),
    max_size=4,
    unique_by=lambda member: (member.name, member.is_group),
)
CALLERS = st.builds(
    Actor, name=NAMES, groups=st.lists(NAMES, max_size=2).map(tuple), project=st.sampled_from(("", "p1", "p2"))
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("p1", "p2", "p3")), MEMBERS), max_size=8), CALLERS)
def test_membership_says_what_a_walk_over_all_members_says(changes, caller):
    membership, projects = Membership(), {}
    for name, members in changes:
        projects[name] = Project(id=name, members=tuple(members))
        membership.put(projects[name])
    held = {}
    for name, project in projects.items():
        roles = {
            member.role
            for member in project.members
            if (member.name in caller.groups if member.is_group else member.name == caller.name)
        }
        if roles and caller.project in ("", name):
            held[name] = MANAGER if MANAGER in roles else ProjectRole.MEMBER
    assert membership.of(caller) == tuple(sorted(held))
    assert {name: membership.role(caller, name) for name in projects} == {name: held.get(name) for name in projects}
