"""What is said of gangs over several pools: the plan, the waiting, the end, and where it stands meanwhile."""

import asyncio

import msgspec
import pytest

from tieline.cli import words
from tieline.cli.events import event_line
from tieline.cli.follow import conclude
from tieline.cli.gang import progress
from tieline.cli.ps import _run
from tieline.cli.show import show_plan
from tieline.model.api import EventView, JobView, WhyView
from tieline.model.event import GangBroken, RunOffered
from tieline.model.job import Break, Job, JobState, Run, RunState
from tieline.model.plan import Candidate, Plan, PlannedGang, PlannedMember, PlannedWay
from tieline.model.reason import Reason
from tieline.model.task import Span, Task

EAST = Candidate(
    pool="cn.east/pool/a", site="cn.east/site/s", owner="cn.east", alternative=0, accelerator="a100",
    unit="accelerator", unit_count=16, price_micro_cny_per_unit_hour=10_000_000, cost_micro_cny_per_hour=160_000_000,
    sandbox="bubblewrap",
)  # fmt: skip
WEST = Candidate(
    pool="cn.west/pool/b", site="cn.west/site/t\x1b[2J", owner="cn.west", alternative=0, accelerator="a100",
    unit="accelerator", unit_count=8, price_micro_cny_per_unit_hour=9_000_000, cost_micro_cny_per_hour=72_000_000,
)  # fmt: skip
WAY = PlannedWay(
    a=EAST.site, b=WEST.site, meets="door", links=("e-x", "x-w"), rate_bps=10**9, rtt_us=12_500,
    price_micro_cny_per_hour=3_000_000,
)  # fmt: skip
GANG = PlannedGang(
    members=(PlannedMember(candidate=EAST, nodes=2, rank=0), PlannedMember(candidate=WEST, nodes=1, rank=2)),
    ways=(WAY,),
    cost_micro_cny_per_hour=235_000_000,
    bound_micro_cny_per_hour=200_000_000,
)
ROOM = Reason(code="accelerators_free", count=2, values={"asked": 24, "most": 16})


def planned(capsys, gang: PlannedGang) -> str:
    show_plan(Plan(name="t", candidates=(), considered=2, reasons=(ROOM,), gang=gang))
    return capsys.readouterr().err


def test_a_plan_shows_members_ways_and_what_all_of_it_costs(capsys):
    lines = [" ".join(line.split()) for line in planned(capsys, GANG).splitlines()]
    assert "a gang in 2 pools at 2 sites, all or nothing:" in lines
    assert "0-1 cn.east/pool/a cn.east/site/s cn.east 2 a100 x16 10.00 160.00 bubblewrap declared" in lines
    assert "2 cn.west/pool/b cn.west/site/t [2J cn.west 1 a100 x8 9.00 72.00 none declared" in lines
    assert "cn.east/site/s cn.west/site/t [2J door e-x > x-w 1 Gbit/s 12.5 ms 3.00" in lines
    assert "235.00 CNY/h: cards 232.00, network 3.00; no choice of sites costs less than 200.00 (gap 17.5%)" in lines
    assert not any("would wait" in line for line in lines)
    assert "2 fewer than 24 accelerators free now (most 16)" in lines  # why it is no single pool


def test_what_is_not_booked_and_not_known_is_said(capsys):
    bare = PlannedWay(a="cn.east/site/s", b="cn.west/site/t", meets="relay")
    gang = msgspec.structs.replace(GANG, ways=(bare,), bound_micro_cny_per_hour=0)
    text = planned(capsys, gang)
    assert "cn.east/site/s cn.west/site/t relay - - unknown 0.00" in " ".join(text.split())
    assert "(gap -)" in text


def test_it_is_said_in_chinese(capsys):
    words.choose("zh")
    try:
        text = planned(capsys, GANG)
    finally:
        words.choose("")
    assert "跨域组网：2 个节点的 2 个资源池" in text
    assert "直达口" in text
    assert "235.00 元/时：算力 232.00，网络 3.00" in text


def run(member: int, state: RunState, **values) -> Run:
    made = {
        "id": f"x/job/j.1.{member}" if member else "x/job/j.1", "job": "x/job/j", "epoch": 1, "pool": f"p{member}",
        "site": f"s{member}", "owner": f"o{member}", "user": "ada", "price_micro_cny_per_unit_hour": 1, "members": 2,
        "member": member, "rank": member * 2, "nodes": 2,
    }  # fmt: skip
    return Run(**{**made, **values}, state=state)


def job(state: JobState = JobState.SUCCEEDED, **values) -> Job:
    task = Task(nodes=4, span=Span())
    made = {"id": "x/job/j", "user": "ada", "task": task, "submitted_ms": 1, "epoch": 1, "run": "x/job/j.1"}
    return Job(**{**made, **values}, state=state)


def test_the_end_names_every_part(capsys):
    older = run(0, RunState.LOST, epoch=0, pool="gone", id="x/job/j.0")
    runs = (older, run(1, RunState.SUCCEEDED), run(0, RunState.SUCCEEDED, started_ms=1_000, ended_ms=3_000))
    conclude(JobView(job=job(members=2), runs=runs))
    said = capsys.readouterr().err
    assert "j succeeded after 2 s on p0 and 1 more, 0.00 CNY" in said
    assert "  ranks 0-1 on p0 (s0): succeeded\n  ranks 2-3 on p1 (s1): succeeded\n" in said
    assert "gone" not in said


def test_a_job_with_one_run_ends_as_before(capsys):
    alone = run(0, RunState.SUCCEEDED, members=0, nodes=0, started_ms=1_000, ended_ms=3_000)
    conclude(JobView(job=job(), runs=(alone,)))
    said = capsys.readouterr().err
    assert "j succeeded after 2 s on p0, 0.00 CNY" in said
    assert "ranks" not in said


def test_ps_says_to_people_how_many_more_runs_there_are(monkeypatch):
    assert _run(job(members=3)) == "x/job/j.1"  # programs find the run and nothing else
    monkeypatch.setattr("tieline.cli.ps.is_terminal", lambda: True)
    assert _run(job(members=3)) == "x/job/j.1 and 2 more"
    assert _run(job()) == "x/job/j.1"


def line_of(event) -> str:
    raw = msgspec.Raw(msgspec.json.encode(event))
    seen = EventView(
        seq=1, time_ms=0, kind=type(event).__struct_config__.tag, subject="", actor="", source="", hash="", body=raw
    )
    return event_line(seen).rpartition("\t")[2]


def test_the_history_says_who_got_which_ranks_and_who_broke_it():
    assert line_of(RunOffered(run=run(1, RunState.OFFERED))) == "p1 [2-3]"
    why = Break(reason=Reason(code="lost", values={"site": "s1", "run": "r", "pool": "p1"}), site="s1")
    assert line_of(GangBroken(job="x/job/j", run="x/job/j.1.1", why=why)).startswith("s1: ")


class Client:
    """Answers `why` from a list, the last one for ever."""

    def __init__(self, *answers: tuple[str, Reason | None], nodes: Task) -> None:
        self.answers, self.task, self.asked = list(answers), nodes, asyncio.Event()

    async def job(self, name: str) -> JobView:
        return JobView(job=job(task=self.task), runs=())

    async def why(self, name: str) -> WhyView:
        state, reason = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if len(self.answers) == 1:
            self.asked.set()
        reasons = (reason,) if reason is not None else ()
        return WhyView(
            job=name, state=state, reasons=reasons, considered=0, nearest=None, plan=None, via="", as_of_ms=0
        )


def waits(accepted: int) -> Reason:
    return Reason(code="gang_waits", values={"accepted": accepted, "members": 3, "site": "cn.west/site/t"})


def test_whoever_waits_sees_each_change_once(capsys, monkeypatch):
    monkeypatch.setattr("tieline.cli.gang.LOOK_S", 0.001)
    answers = [("booked", waits(1)), ("booked", waits(1)), ("booked", waits(2)), ("succeeded", None)]

    async def follow() -> None:
        client = Client(*answers, nodes=Task(nodes=4, span=Span()))
        async with progress(client, "j"):
            await asyncio.wait_for(client.asked.wait(), 60)

    asyncio.run(follow())
    assert capsys.readouterr().err == (
        "  booked: 1 of the 3 parts of its gang are accepted; waits for the answer of cn.west/site/t\n"
        "  booked: 2 of the 3 parts of its gang are accepted; waits for the answer of cn.west/site/t\n"
    )


@pytest.mark.parametrize("is_quiet", [True, False])
def test_other_jobs_and_programs_are_told_nothing(capsys, is_quiet):
    async def follow() -> None:
        client = Client(("booked", waits(1)), nodes=Task(nodes=4, span=Span() if is_quiet else None))
        async with progress(client, "j", is_quiet=is_quiet):
            pass
        assert not client.asked.is_set()

    asyncio.run(follow())
    assert capsys.readouterr().err == ""


def test_the_command_line_asks_for_sites(call):
    done = call("plan", "--sites", "2", "--", "true")
    assert done.exit_code == 2
    assert "add `--nodes`" in done.output
    assert call("plan", "--sites", "9", "--nodes", "9", "--", "true").exit_code == 2
