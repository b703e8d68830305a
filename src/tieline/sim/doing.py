"""Doing: what each row of the table of happenings does to a world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tieline.exchange.commands import ChangeLinks, ChangeProject, ChangeTopology
from tieline.model.error import TielineError
from tieline.model.project import Member, Quota
from tieline.model.protocol import Ended
from tieline.registry import sign_statement
from tieline.sim.books import LIE
from tieline.sim.exchange import ADMIN, SimExchange
from tieline.sim.lying import Liar
from tieline.sim.network import WEATHERS
from tieline.sim.owner import STRANGER, SimOwner
from tieline.sim.revocation import revoke
from tieline.sim.site import SimSite
from tieline.sim.story import Happening
from tieline.sim.world import World
from tieline.site import stimulus as seen

Do = Callable[[World, Happening], None]


def begin(world: World, happening: Happening) -> None:
    """Plan one happening."""
    delay_ms = happening.at_ms
    world.timeline.after(delay_ms, lambda: _do(world, happening))


def _do(world: World, happening: Happening) -> None:
    world.faults[happening.what] += 1
    world.chronicle.note(f"{happening.what} {happening.node} {happening.other}")
    DOING[happening.what](world, happening)


def _site(world: World, happening: Happening) -> SimSite:
    return world.sites[happening.node]


def _exchange(world: World, happening: Happening) -> SimExchange:
    return world.exchanges[happening.node]


def _owner(world: World, happening: Happening) -> SimOwner:
    return world.owners[happening.node]


# -- people ------------------------------------------------------------------------------------------------------------


def _submit(world: World, happening: Happening) -> None:
    assert happening.shape is not None
    world.users[happening.node].submit(happening.shape)


def _ask(world: World, happening: Happening) -> None:
    assert happening.shape is not None
    world.users[happening.node].ask_for(happening.shape)


def _project(world: World, happening: Happening) -> None:
    """One of two projects of an exchange, with terms that follow from a number; all users there are in it."""
    exchange = _exchange(world, happening)
    if not exchange.is_up:
        return
    number, name = happening.number, f"p{happening.number % 2 + 1}"
    known = world.projects.setdefault(exchange.name, [])
    quota = Quota(
        card_count=number // 2 % 4,
        core_count=(0, 0, 0, 3)[number // 8 % 4],
        card_hours=(0, 0, 0, 0, 1)[number // 32 % 5],
        micro_cny=(0, 0, 0, 0, 900_000)[number // 160 % 5],
    )
    users = [user.name for user in world.users.values() if user.exchange == exchange.name]
    command = ChangeProject(
        actor=ADMIN,
        project=name,
        what="set" if name in exchange.view.projects else "create",
        quota=quota,
        weight=1 + number // 800 % 3,
        may_borrow=number // 2_400 % 4 > 0,
        put=() if name in exchange.view.projects else tuple(Member(name=user) for user in users),
    )

    def made(_: Any, error: TielineError | None) -> None:
        if error is None and name not in known:
            known.append(name)

    exchange.command(command, made)


def _network(world: World, happening: Happening) -> None:
    """The sites of an exchange are joined two by two and by way of a router; ``number`` says how widely."""
    exchange = _exchange(world, happening)
    if exchange.is_up:
        rate_bps = (1 + happening.number % 3) * 1_000_000_000
        exchange.command(ChangeTopology(actor=ADMIN, topology=world.topology_of(exchange, rate_bps)))


def _cut_link(world: World, happening: Happening) -> None:
    """One link of the network of an exchange is down for a while."""
    exchange = _exchange(world, happening)
    topology = exchange.view.network.topology if exchange.is_up else None
    if topology is not None:
        link = topology.links[happening.number % len(topology.links)].name
        _say_of_link(world, exchange, link, is_down=True)
        world.timeline.after(happening.for_ms, lambda: _say_of_link(world, exchange, link, is_down=False))


def _say_of_link(world: World, exchange: SimExchange, link: str, *, is_down: bool) -> None:
    """Its operator says it until it is heard."""

    def heard(_: Any, error: TielineError | None) -> None:
        if error is not None and error.code != "not_found":
            again()

    def again() -> None:
        world.timeline.after(1_000, lambda: _say_of_link(world, exchange, link, is_down=is_down))

    if exchange.is_up:
        named = (link,)
        exchange.command(ChangeLinks(actor=ADMIN, down=named if is_down else (), up=() if is_down else named), heard)
    else:
        again()


def _drain(world: World, happening: Happening) -> None:
    site = _site(world, happening)
    site.feel(seen.OwnerDrained(is_draining=True))
    world.timeline.after(happening.for_ms, lambda: site.feel(seen.OwnerDrained(is_draining=False)))


def _reclaim(world: World, happening: Happening) -> None:
    site = _site(world, happening)
    runs = list(site.state.runs)
    if runs:
        site.feel(seen.OwnerStopped(run=runs[happening.number % len(runs)], why="mine"))


def _backup(world: World, happening: Happening) -> None:
    exchange = _exchange(world, happening)
    exchange.backup = exchange.disk.backup()


# -- wires and machines ------------------------------------------------------------------------------------------------


def _weather(world: World, happening: Happening) -> None:
    world.network.change_weather(happening.what, happening.node, happening.for_ms, happening.number)


def _cut(world: World, happening: Happening) -> None:
    world.network.cut(happening.node, happening.other, happening.for_ms, is_one_way=happening.what == "one way cut")


def _clog(world: World, happening: Happening) -> None:
    others = [name for name in world.network.nodes if name != happening.node]
    world.network.clog(happening.node, others, happening.for_ms)


def _slow(world: World, happening: Happening) -> None:
    world.network.slow(happening.node, happening.for_ms, happening.number)


def _crash(world: World, happening: Happening) -> None:
    if happening.node in world.sites:
        world.sites[happening.node].crash(happening.for_ms)
    else:
        world.exchanges[happening.node].crash_between(happening.for_ms)


def _crash_in_step(world: World, happening: Happening) -> None:
    _site(world, happening).dies_after = happening.number


def _crash_in_commit(world: World, happening: Happening) -> None:
    exchange = _exchange(world, happening)
    exchange.disk.dies = ("before", "after")[happening.number]


def _lose_machine(world: World, happening: Happening) -> None:
    _site(world, happening).crash(happening.for_ms, loses_disk=True)


def _roll_back(world: World, happening: Happening) -> None:
    _exchange(world, happening).lose_disk(happening.for_ms, is_noticed=happening.number > 0)


def _fill_disk(world: World, happening: Happening) -> None:
    exchange = _exchange(world, happening)
    exchange.disk.is_full = True
    world.timeline.after(happening.for_ms, lambda: setattr(exchange.disk, "is_full", False))


def _fill_journal(world: World, happening: Happening) -> None:
    site = _site(world, happening)
    site.own_disk(True)
    world.timeline.after(happening.for_ms, lambda: site.own_disk(False))


def _skew(world: World, happening: Happening) -> None:
    node: SimSite | SimExchange = world.sites.get(happening.node) or world.exchanges[happening.node]
    node.clock.skew_ms = happening.number


# -- liars -------------------------------------------------------------------------------------------------------------


def _lie(world: World, happening: Happening) -> None:
    _site(world, happening).lies[happening.what] = world.timeline.now_ms + happening.for_ms


def _lie_as_relay(world: World, happening: Happening) -> None:
    exchange = _exchange(world, happening)
    exchange.liar = Liar()
    world.timeline.after(happening.for_ms, lambda: setattr(exchange, "liar", None))


def _cheat(world: World, happening: Happening) -> None:
    _exchange(world, happening).cheats_until_ms = world.timeline.now_ms + happening.for_ms


def _report_falsely(world: World, happening: Happening) -> None:
    """The end of a run of another site of this exchange, as well paid as can be."""
    site = _site(world, happening)
    exchange = world.exchanges[site.exchange]
    runs = [run for run in exchange.books.live_runs if exchange.books.runs[run].site != site.id]
    if runs:
        run = exchange.books.runs[runs[happening.number % len(runs)]]
        _say(world, site, "end of another's run reported", run.id, run.epoch)


def _report_epoch(world: World, happening: Happening) -> None:
    """The end of an own run under an epoch that it does not have."""
    site = _site(world, happening)
    exchange = world.exchanges[site.exchange]
    runs = [run for run in exchange.books.live_runs if exchange.books.runs[run].site == site.id]
    if runs:
        run = exchange.books.runs[runs[happening.number % len(runs)]]
        epoch = run.epoch + (1 if happening.number % 2 or run.epoch == 1 else -1)
        _say(world, site, "wrong epoch reported", run.id, epoch)


def _say(world: World, site: SimSite, what: str, run: str, epoch: int) -> None:
    """Report an end that the books will know by its exit code, should it ever be taken."""
    if site.bearer:
        world.faults[what] += 1
        site.say((Ended(run=run, epoch=epoch, state="succeeded", exit_codes=LIE, duration_ms=7_200_000),))


def _end_twice(world: World, happening: Happening) -> None:
    site = _site(world, happening)
    exchange = world.exchanges[site.exchange]
    over = [run for run in exchange.books.over if exchange.books.runs[run].site == site.id]
    if over:
        run = exchange.books.runs[over[happening.number % len(over)]]
        world.faults["end reported twice"] += 1
        site.say((Ended(run=run.id, epoch=run.epoch, state="failed", exit_codes=(9,), duration_ms=7_200_000),))


def _forge_beat(world: World, happening: Happening) -> None:
    """A beat in a site's name, signed by somebody else, under the bearer that was overheard."""
    site = _site(world, happening)
    exchange = world.exchanges[site.exchange]
    statement = sign_statement(site.beat_now(2**50), STRANGER, site.kid, "site-beat")
    world.faults["heartbeat forged"] += 1

    def look(reply: Any) -> None:
        world.checks.hold("a forged heartbeat is not heard", isinstance(reply, TielineError), site.name, reply)

    if exchange.is_up:
        exchange.serve("stranger", "beat", (site.bearer or "guessed", statement), look)


def _of_owner(do: Callable[[SimOwner, int], None]) -> Do:
    return lambda world, happening: do(_owner(world, happening), happening.number)


DOING: dict[str, Do] = {
    "submit": _submit,
    "stop": lambda world, happening: world.users[happening.node].stop(happening.number),
    "ask": _ask,
    "project": _project,
    "network": _network,
    "revise": _of_owner(SimOwner.revise),
    "withdraw": _of_owner(SimOwner.withdraw),
    "drain": _drain,
    "reclaim": _reclaim,
    "backup": _backup,
    **dict.fromkeys(WEATHERS, _weather),
    "partition": _cut,
    "one way cut": _cut,
    "clog": _clog,
    "slow": _slow,
    "link cut": _cut_link,
    "crash": _crash,
    "crash in a step": _crash_in_step,
    "crash in a commit": _crash_in_commit,
    "disk loss": _lose_machine,
    "rollback": _roll_back,
    "full disk": _fill_disk,
    "full journal": _fill_journal,
    "skew": _skew,
    "over-claim": _lie,
    "late refusal": _lie,
    "oversold beat": _lie,
    "lying relay": _lie_as_relay,
    "inflated claim": _cheat,
    "false report": _report_falsely,
    "double end": _end_twice,
    "wrong epoch": _report_epoch,
    "forged beat": _forge_beat,
    "forged record": _of_owner(SimOwner.forge),
    "changed bytes": _of_owner(SimOwner.change_bytes),
    "replayed record": _of_owner(SimOwner.replay),
    "resurrection": _of_owner(SimOwner.resurrect),
    "equivocation": _of_owner(SimOwner.equivocate),
    "stolen key": _of_owner(SimOwner.steal),
    "revocation": lambda world, happening: revoke(world, _owner(world, happening)),
}
