"""Seeded disasters over exchanges that use each other: what must hold whatever the network and the crashes do.

Each story is drawn from one number; a failing one names it. Planted mistakes must be caught, or the checks are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from branches_world import Federation, Node, keys_of
from exchange_world import task

from tieline.exchange import branches, guests, hosting, runs, settlement, view
from tieline.exchange import line as lines
from tieline.exchange.placing import demand_for, plan_demand
from tieline.exchange.settlement import verify_usage
from tieline.model import event as fact
from tieline.model.error import TielineError
from tieline.model.job import Job, RunState, Usage
from tieline.model.protocol import Outcome
from tieline.model.task import Retry

replace = msgspec.structs.replace
STEPS = 40
STORIES = 12
PLANTED_STORIES = 80


class Story:
    """Three exchanges in a row (a, hub, b), where a may also use b directly; one seed, one history."""

    def __init__(self, seed: int) -> None:
        self.world = Federation(seed, loss=0.1, doubling=0.15, delay_ms=1_500)
        self.random = self.world.random
        lost_ms = self.random.choice((20_000, 3_600_000))
        names = ("a", "hub", "b")
        skews = [self.random.randrange(-2_000, 2_001) for _ in names]
        self.a, self.hub, self.b = (
            self.world.add(name, ahead_ms=skew, branch_lost_ms=lost_ms) for name, skew in zip(names, skews, strict=True)
        )
        self.nodes = (self.a, self.hub, self.b)
        self.b.join("lab", "one", cores=8)
        self.b.join("lab", "two", cores=4, price=1_800_000_001)
        self.hub.join("mid", "own", cores=4)
        self.world.join_up(self.hub, self.b)
        if self.random.random() < 0.5:
            self.world.join_up(self.a, self.b)
        else:
            self.a.knows(self.b)
        self.world.join_up(self.a, self.hub)
        self.jobs: list[tuple[Node, str]] = []
        self.checked: Counter[str] = Counter()

    # -- what happens -------------------------------------------------------------------------------------------------

    def tell(self, steps: int = STEPS) -> None:
        """The story, then peace: everything heals and what is under way comes to its end."""
        for _ in range(steps):
            getattr(self, "do_" + self.random.choice(DEEDS))()
            self.work(0.5)
            self.world.pass_ms(self.random.choice((200, 1_000, 4_000)), step_ms=1_000)
        self.world.cuts.clear()
        self.world.loss = self.world.doubling = 0.0
        self.world.pass_ms(25_000)  # no site does anything: only what was said between exchanges is put right
        self.check_joined()
        for _ in range(200):
            self.work(1.0)
            self.world.pass_ms(3_000, step_ms=1_000)
            if self.is_over():
                break
        self.world.pass_ms(30_000, step_ms=2_000)
        self.check()

    def is_over(self) -> bool:
        """Whether nothing runs, and what waits has no money left to run on, and says so."""
        waiting = [(node, job) for node in self.nodes for job in node.view.jobs.values()]
        is_quiet = not any(node.view.runs or (node.view.guests and _is_live(node)) for node in self.nodes)
        return is_quiet and all(_is_spent(node, job) for node, job in waiting)

    def work(self, eagerness: float) -> None:
        """Sites go on with their runs."""
        for node in self.nodes:
            for run in node.own_runs(RunState.OFFERED, RunState.ACCEPTED, RunState.RUNNING):
                if self.random.random() >= eagerness:
                    continue
                if run.state is RunState.OFFERED:
                    node.refuse(run) if self.random.random() < 0.1 else node.accept(run)
                elif run.state is RunState.ACCEPTED:
                    node.start(run)
                elif run.is_stop_requested:
                    node.end(run, "stopped", 143)
                elif self.random.random() < 0.2:
                    node.checkpoint(run)
                elif self.random.random() < 0.5:
                    code = self.random.choice((0, 0, 0, 1))
                    node.end(run, "failed" if code else "succeeded", code, is_metered=self.random.random() < 0.7)

    def do_submit(self) -> None:
        node = self.random.choice((self.a, self.a, self.hub))
        fields: dict[str, Any] = {"cores": self.random.randrange(1, 5), "retry": Retry(limit=self.random.randrange(3))}
        if self.random.random() < 0.3:
            fields["budget_micro_cny"] = 40_000_000
        try:
            (job,) = node.submit(task(**fields))
        except TielineError:
            self.world.faults["nothing known to place on"] += 1
            return
        self.jobs.append((node, job.id))

    do_submit_again = do_submit

    def do_stop(self) -> None:
        live = [(node, job) for node, job in self.jobs if job in node.view.jobs]
        if live:
            node, job = self.random.choice(live)
            node.stop(job)
            self.world.faults["stopped"] += 1

    do_stop_again = do_stop

    def do_cut(self) -> None:
        one, other = self.random.sample(self.nodes, 2)
        self.world.cut(one, other)
        self.world.faults["cut"] += 1

    def do_heal(self) -> None:
        if self.world.cuts:
            self.world.cuts.remove(min(self.world.cuts, key=sorted))

    def do_crash(self) -> None:
        self.random.choice(self.nodes).crash()
        self.world.faults["crash"] += 1

    def do_wait(self) -> None:
        self.world.pass_ms(self.random.choice((5_000, 30_000)), step_ms=2_000)

    def do_skew(self) -> None:
        self.random.choice(self.nodes).ahead_ms -= self.random.randrange(3_000)
        self.world.faults["clock back"] += 1

    # -- what must hold -----------------------------------------------------------------------------------------------

    def hold_true(self, what: str, is_so: bool, detail: object = "") -> None:
        self.checked[what] += 1
        assert is_so, f"{what}: {detail}"

    def check_joined(self) -> None:
        """Both sides agree on what lives, and on what is to stop."""
        for host in self.nodes:
            for peer, guest in host.view.guests.items():
                user = self.world.nodes[peer]
                for name in guest.live:
                    run = user.view.runs.get(name)
                    self.hold_true("what was fenced does not go on", run is not None, (host.name, guest.runs[name]))
                    job = host.view.jobs[guest.runs[name].job]
                    is_asked = run is not None and run.is_stop_requested
                    self.hold_true("a stop arrives", job.is_cancel_requested or not is_asked, (host.name, name))

    def check(self) -> None:
        left = [list(node.view.jobs.values())[:1] for node in self.nodes]
        self.hold_true("every job ends or says why not", self.is_over(), left)
        for node, job in self.jobs:
            over = [each for each in node.events if isinstance(each, fact.JobEnded) and each.job == job]
            self.hold_true("a job ends once", len(over) == (0 if job in node.view.jobs else 1), job)
        keys = keys_of(self.world)
        for user in self.nodes:
            for host in self.nodes:
                if user is not host:
                    self._check_books(user, host)
            for usage in user.usages.values():
                self.hold_true("every line is proved", verify_usage(usage, keys) == (), verify_usage(usage, keys))
            total = sum(usage.charge_micro_cny for usage in user.usages.values())
            self.hold_true("the sum is that of the lines", user.view.charged_micro_cny == total, user.name)
            self._check_reload(user)

    def _check_books(self, user: Node, host: Node) -> None:
        """What the user's exchange pays and disputes is what the host's exchange claims, run for run."""
        ours = {usage.claim: usage for usage in user.usages.values() if usage.via == host.id}
        theirs = {usage.given_claim: usage for usage in host.usages.values() if usage.origin == user.id}
        for claim, usage in ours.items():
            self.hold_true("what is paid was claimed", claim in theirs, usage)
        for claim, usage in theirs.items():
            self.hold_true("every claim is answered", bool(usage.given_answer), usage)
            paid = ours.get(claim)
            accepted = usage.charge_micro_cny - usage.given_disputed_micro_cny
            self.hold_true(
                "the books differ by what is in dispute",
                accepted == (paid.charge_micro_cny if paid is not None else 0),
                (usage, paid),
            )
            if paid is not None:
                self.hold_true("both hold the same answer", paid.answer == usage.given_answer, usage)
        named = Counter((run.run, run.epoch) for run in _guests(host, user))
        self.hold_true("a run is taken in once", all(count == 1 for count in named.values()), named)
        asked = Counter(_origin_of(host, usage) for usage in theirs.values())
        self.hold_true("a run is claimed once", all(count == 1 for count in asked.values()), asked)

    def _check_reload(self, node: Node) -> None:
        again = node.reloaded()
        for peer, guest in node.view.guests.items():
            self.hold_true("a restart knows every guest", again.guests[peer].runs == guest.runs, peer)
            self.hold_true("nothing of a guest is live at the end", not guest.live and not guest.unanswered, peer)
        self.hold_true("a restart knows what was spent", again.spent == node.view.spent, node.name)


DEEDS = sorted(name.removeprefix("do_") for name in vars(Story) if name.startswith("do_"))


def _is_live(node: Node) -> bool:
    return any(guest.live for guest in node.view.guests.values())


def _is_spent(node: Node, job: Job) -> bool:
    plan = plan_demand(node.view, demand_for(node.view, job, node.now_ms), node.now_ms)
    return not plan.candidates and {reason.code for reason in plan.reasons} == {"budget_below"}


def _guests(host: Node, user: Node) -> list[Any]:
    return [
        each.job.origin
        for each in host.events
        if isinstance(each, fact.JobSubmitted) and each.job.origin is not None and each.job.origin.peer == user.id
    ]


def _origin_of(host: Node, usage: Usage) -> Any:
    submitted = (each.job for each in host.events if isinstance(each, fact.JobSubmitted) and each.job.id == usage.job)
    origin = next(submitted).origin
    return (origin.run, origin.epoch) if origin is not None else None


@pytest.mark.parametrize("seed", range(STORIES))
def test_whatever_happens_between_exchanges_nothing_is_billed_twice_and_every_job_ends(seed: int) -> None:
    story = Story(seed)
    story.tell()
    assert story.checked["every job ends or says why not"]


def test_the_stories_visit_every_fault_and_check_every_invariant(capsys: pytest.CaptureFixture[str]) -> None:
    faults: Counter[str] = Counter()
    checked: Counter[str] = Counter()
    for seed in range(100, 106):
        story = Story(seed)
        story.tell()
        faults.update(story.world.faults)
        checked.update(story.checked)
    with capsys.disabled():
        print(f"\nbranches: injected {dict(faults)}\nbranches: checked {dict(checked)}")
    for fault in ("lost request", "lost answer", "doubled", "cut", "crash", "clock back", "stopped"):
        assert faults[fault], fault
    for what in ("what is paid was claimed", "the books differ by what is in dispute", "both hold the same answer"):
        assert checked[what], what


def test_one_seed_is_one_history() -> None:
    stories = [Story(7), Story(7)]
    for story in stories:
        story.tell(20)
    first, second = ([node.events for node in story.nodes] for story in stories)
    assert first == second


# -- planted mistakes -------------------------------------------------------------------------------------------------


def forgetting_guests(patch: pytest.MonkeyPatch) -> None:
    """An offer that comes again is taken for a new one."""
    patch.setattr(hosting, "_said_of", None)
    before = hosting.take_offer

    def take(seen: Any, command: Any, now_ms: int, ids: Any) -> Any:
        guest = seen.guests.get(command.peer)
        kept = dict(guest.runs) if guest is not None else {}
        if guest is not None:
            guest.runs = {}
        try:
            offer = replace(command.offer, state="offered")
            return before(seen, replace(command, offer=offer), now_ms, ids)
        finally:
            if guest is not None:
                guest.runs = kept

    patch.setitem(_use_cases(), hosting.TakeOffer, take)


def answering_anew(patch: pytest.MonkeyPatch) -> None:
    """An end that comes again is answered as if nothing had been paid."""
    patch.setattr(
        branches,
        "_answer",
        lambda seen, peer, report, _events, _is_new: branches.nothing_for(
            settlement.Terms(seen.exchange.id, seen.keys, peer.public), report.receipt, "claim_stale"
        ),
    )


def paying_what_is_claimed(patch: pytest.MonkeyPatch) -> None:
    """The line bills the whole claim, and the answer still disputes a part."""
    before = settlement.settle

    def settle(terms: Any, run: Any, receipt: str, held: int, now_ms: int) -> Any:
        usage = before(terms, run, receipt, held, now_ms)
        if usage is None:
            return None
        return replace(usage, charge_micro_cny=usage.charge_micro_cny + usage.disputed_micro_cny + 1)

    patch.setattr(runs, "settle", settle)


def keeping_no_reports(patch: pytest.MonkeyPatch) -> None:
    """What a peer has to be told is not durable."""
    before = view.View.touch

    def touch(self: Any, table: str, key: str, value: Any) -> None:
        if table != "guest":
            before(self, table, key, value)

    patch.setattr(view.View, "touch", touch)


def without_fencing(patch: pytest.MonkeyPatch) -> None:
    """Rolls and fences are not heeded."""
    patch.setitem(_use_cases(), hosting.TakeRoll, lambda *_: hosting.Decision((), ()))
    patch.setattr(hosting, "fence", lambda *_: [])


def saying_nothing_again(patch: pytest.MonkeyPatch) -> None:
    """What could not be said is forgotten, and the live orders are not read again."""
    before = lines._failed

    def failed(state: Any, what: Any, now_ms: int) -> Any:
        return replace(before(state, what, now_ms), is_live_due=False)

    patch.setattr(lines, "_failed", failed)


def claiming_twice(patch: pytest.MonkeyPatch) -> None:
    """The exchange in the middle passes on the claim that it took, in place of its own."""
    before = runs.claim_of

    def claim(us: str, keys: Any, origin: Any, run: Any, usage: Any, state: str) -> str:
        return usage.claim or before(us, keys, origin, run, usage, state)

    patch.setattr(runs, "claim_of", claim)


def losing_answers(patch: pytest.MonkeyPatch) -> None:
    """Answers are given once, whether they arrive or not, and claims are told once."""
    before = lines._taken

    def taken(state: Any, what: Any) -> Any:
        outcomes = tuple(replace(each, answer="") for each in what.outcomes)
        return before(state, replace(what, outcomes=outcomes))

    patch.setattr(lines, "_taken", taken)


def serials_from_the_beginning(patch: pytest.MonkeyPatch) -> None:
    """After a restart the list of reports is numbered anew, in the same session."""
    before = guests.load_guests

    def loads(seen: Any, found: Any) -> None:
        before(seen, found)
        for guest in seen.guests.values():
            guest.serial = 0

    patch.setattr("tieline.exchange.projection.load_guests", loads)


def losing_at_once(patch: pytest.MonkeyPatch) -> None:
    """A silent branch loses its runs without fencing: late ends are billed all the same."""

    def answered(seen: Any, station: str, report: Any) -> Outcome:
        return Outcome(is_ok=True)

    patch.setattr(runs, "_answered", answered)
    patch.setattr(branches, "nothing_for", lambda *_: "")


PLANTED: list[Callable[[pytest.MonkeyPatch], None]] = [
    forgetting_guests,
    answering_anew,
    paying_what_is_claimed,
    keeping_no_reports,
    without_fencing,
    saying_nothing_again,
    claiming_twice,
    losing_answers,
    serials_from_the_beginning,
    losing_at_once,
]


def _use_cases() -> dict[type, Any]:
    from tieline.exchange.decide import USE_CASES

    return USE_CASES


@pytest.mark.parametrize("plant", PLANTED, ids=[plant.__name__ for plant in PLANTED])
def test_a_planted_mistake_is_found(plant: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        for seed in range(PLANTED_STORIES):
            try:
                Story(seed).tell()
            except (AssertionError, KeyError):
                return
    pytest.fail(f"{plant.__name__} was not found in {PLANTED_STORIES} stories")
