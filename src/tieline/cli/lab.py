"""`lab`: a network of namespaces on this machine, in which circuits are laid, measured, cut and healed for real."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tieline.cli import table, words
from tieline.cli.face import (
    Face,
    Verbs,
    as_json,
    as_tieline,
    flag,
    hint,
    note,
    option,
    pass_face,
    show_json,
    usage,
    verb,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from tieline.cli.processes import Started
    from tieline.client.asynchronous import AsyncClient
    from tieline.drivers.lab.wording import Seen

MOST_FILE_BYTES = 16 * 2**20
NAME = re.compile(r"\A[a-z0-9][a-z0-9._-]{0,62}\Z")
MODULE = "tieline.drivers.lab"
which = option("--lab", "name", default="", help="lab_which")


@click.group("lab", cls=Verbs, help="lab")
def lab() -> None:
    """Laboratories."""


@verb("up", "lab_up")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@option("--name", default="", help="lab_name")
@as_json
def up(file: Path, name: str, as_json: bool) -> None:
    """Build a laboratory and wait until it stands. Where one of that name stands, nothing changes."""
    import msgspec

    from tieline.cli.processes import spawn
    from tieline.drivers.circuits.kernel.addressing import Addressing
    from tieline.network.survey import checked
    from tieline.network.topologyfile import read

    if file.stat().st_size > MOST_FILE_BYTES:
        raise as_tieline("too_large", f"`{file}` has more than {MOST_FILE_BYTES} bytes")
    topology = checked(read(file.read_bytes(), str(file)).topology)
    addressing = Addressing(topology)
    name = name or topology.name
    if not NAME.match(name):
        raise usage(f"`{name}` is no name of a laboratory: a-z, 0-9, `.`, `_`, `-`")
    folder = _folder(name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(folder):
        if _kept(folder) is None:
            for left in ("ready", "refused.json"):
                (folder / left).unlink(missing_ok=True)
            (folder / "topology.json").write_bytes(msgspec.json.encode(topology))
            started: Started = spawn("lab", [str(folder)], folder / "log", module=MODULE)
            (folder / "process.json").write_bytes(msgspec.json.encode(started))
            _await_ready(folder, started)
        else:
            note(words.say("lab_stands", name=name))
    seen: Seen = _ask(folder, lambda laboratory: laboratory.show())
    if as_json:
        show_json(seen)
        return
    count = {"nodes": len(addressing.numbers), "sites": len(addressing.sites), "links": len(topology.links)}
    note(words.say("lab_ready", name=name, **count))
    if seen.fibre == "pair":
        note(words.say("lab_pairs"))
    hint("tieline lab show")


@verb("ls", "lab_ls")
@as_json
def ls(as_json: bool) -> None:
    """The laboratories that stand."""
    found = _standing()
    if as_json:
        show_json([{"name": name, "folder": str(_folder(name)), "pid": pid} for name, pid in found.items()])
        return
    rows = [(name, str(pid), str(_folder(name))) for name, pid in found.items()]
    table.show(("laboratory", "pid", "folder"), rows, right=(1,))


@verb("show", "lab_show")
@which
@as_json
def show(name: str, as_json: bool) -> None:
    """Links with their counters, circuits with the addresses of their ends, events."""
    seen: Seen = _ask(_chosen(name), lambda laboratory: laboratory.show())
    if as_json:
        show_json(seen)
        return
    from tieline.model.quantity import show_duration, show_rate, show_size

    table.show(
        ("link", "ends", "state", "capacity", "delay", "sent", "sent_back"),
        [
            (
                each.name, f"{each.a}, {each.b}", words.say("state_up" if each.is_up else "state_cut"),
                show_rate(each.capacity_bps), show_duration(each.delay_us),
                show_size(each.sent_bytes), show_size(each.sent_back_bytes),
            )
            for each in seen.links
        ],
        right=(3, 4, 5, 6),
    )  # fmt: skip
    if seen.circuits:
        click.echo()
        table.show(
            ("laid", "held", "on", "ends_at"),
            [
                (
                    each.circuit.id, show_rate(each.circuit.held_bps),
                    ", ".join(each.on) or words.say("lab_igp"), ", ".join(each.ends),
                )
                for each in seen.circuits
            ],
            right=(1,),
        )  # fmt: skip
    if seen.events:
        click.echo()
        table.show(
            ("at", "happened", "subject", "took"),
            [
                (table.stamp(each.at_ms), each.what, each.subject, show_duration(each.took_us))
                for each in seen.events[-20:]
            ],
            right=(3,),
        )


@verb("cut", "lab_cut")
@click.argument("link", metavar="LINK")
@which
def cut(link: str, name: str) -> None:
    """Take the light from a link: what is under way is lost."""
    _ask(_chosen(name), lambda laboratory: laboratory.ask("cut", link=link))


@verb("restore", "lab_restore")
@click.argument("link", metavar="LINK")
@which
def restore(link: str, name: str) -> None:
    """Give a link its light again."""
    _ask(_chosen(name), lambda laboratory: laboratory.ask("restore", link=link))


@verb("exec", "lab_exec")
@click.argument("place", metavar="SITE|NODE|manager")
@click.argument("command", nargs=-1, metavar="-- COMMAND...")
@which
def execute(place: str, command: tuple[str, ...], name: str) -> None:
    """Become a command that runs inside one of the networks, as root of the laboratory and of nothing else."""
    import os

    from tieline.drivers.circuits.kernel.addressing import MANAGER_PLACE
    from tieline.drivers.circuits.kernel.namespaces import join

    folder = _chosen(name)
    if not command:
        raise usage(words.say("lab_no_command"))
    seen: Seen = _ask(folder, lambda laboratory: laboratory.show())
    places = {**seen.nodes, **seen.sites, MANAGER_PLACE: seen.manager}
    if place not in places:
        raise as_tieline("not_found", words.say("lab_no_place", place=place, names=", ".join(sorted(places))))
    pid = _kept(folder)
    if pid is None:
        raise as_tieline("not_found", words.say("lab_none"), "tieline lab up FILE")
    join(pid, places[place])
    os.environ["TIELINE_LAB"] = folder.name  # its own contexts: see `client.context`
    os.execvp(command[0], command)  # noqa: S606 - the command is what was asked for


@verb("follow", "lab_follow")
@which
@flag("--once", "is_once", help="lab_once")
@pass_face
def follow(face: Face, name: str, is_once: bool) -> None:
    """Follow the exchange until interrupted, as its network operator."""
    from tieline.cli.lab_follow import Follower
    from tieline.drivers.lab.control import LabCircuits, Laboratory

    laboratory = Laboratory(_chosen(name))

    async def work(client: AsyncClient) -> None:
        follower = Follower(client, laboratory, LabCircuits(laboratory), note)
        await (follower.once() if is_once else follower.follow())

    face.call(work)


@verb("down", "lab_down")
@click.argument("name", required=False, default="")
def down(name: str) -> None:
    """End a laboratory with all that runs inside, and wait until nothing is left of it, however its keeper ended."""
    import shutil

    import msgspec

    from tieline.cli.processes import Started, end

    is_left = bool(NAME.match(name)) and (_folder(name) / "process.json").exists()  # its keeper may have been killed
    folder = _folder(name) if is_left else _chosen(name)
    started = msgspec.json.decode((folder / "process.json").read_bytes(), type=Started)
    for each in _inside(started):
        end(each)
    end(started)
    shutil.rmtree(folder, ignore_errors=True)
    note(words.say("lab_ended", name=folder.name))


for _command in (up, ls, show, cut, restore, execute, follow, down):
    lab.add_command(_command)


def _folder(name: str) -> Path:
    from tieline.client.context import home

    return home() / "labs" / name


def _kept(folder: Path) -> int | None:
    """The process that keeps a laboratory, if one does."""
    import msgspec

    from tieline.cli.processes import Started, is_alive

    try:
        started = msgspec.json.decode((folder / "process.json").read_bytes(), type=Started)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return started.pid if is_alive(started) else None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One at a time: two that build the same laboratory at once would leave one that nobody finds again."""
    import fcntl
    import os

    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _inside(keeper: Started) -> list[Started]:
    """Processes that stand in a network that the keeper holds, but for the keeper and what it started.

    Each would keep its network there after the laboratory has ended.
    """
    from tieline.cli.processes import Started, is_alive, start_of

    if not is_alive(keeper):
        return []
    held = {_network(f"/proc/{keeper.pid}/fd/{each.name}") for each in Path(f"/proc/{keeper.pid}/fd").iterdir()}
    held -= {"", _network("/proc/self/ns/net")}
    children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal() and each.name not in (str(keeper.pid), *children):
            start = start_of(int(each.name))
            if start and _network(f"{each}/ns/net") in held:
                found.append(Started(name="inside", pid=int(each.name), start=start))
    return found


def _network(path: str) -> str:
    """Which network a link of /proc leads to; empty where it leads elsewhere, or may not be read."""
    try:
        where = str(Path(path).readlink())
    except OSError:
        return ""
    return where if where.startswith("net:[") else ""


def _standing() -> dict[str, int]:
    """Name -> process of every laboratory that stands."""
    base = _folder("-").parent
    names = sorted(each.name for each in base.iterdir()) if base.is_dir() else []
    return {name: pid for name in names if (pid := _kept(base / name)) is not None}


def _chosen(name: str) -> Path:
    """The folder of the laboratory that is meant. Raises TielineError where that is not clear."""
    found = _standing()
    if name:
        if name not in found:
            raise as_tieline("not_found", words.say("lab_none"), "tieline lab ls")
        return _folder(name)
    if not found:
        raise as_tieline("not_found", words.say("lab_none"), "tieline lab up FILE")
    if len(found) > 1:
        raise usage(words.say("lab_which", names=", ".join(found)))
    return _folder(next(iter(found)))


def _ask(folder: Path, work: Any) -> Any:
    import asyncio

    from tieline.drivers.lab.control import Laboratory

    async def whole() -> Any:
        asked: Coroutine[Any, Any, Any] = work(Laboratory(folder))
        return await asked

    return asyncio.run(whole())


def _await_ready(folder: Path, started: Any) -> None:
    """Wait until the laboratory answers. Raises TielineError with what refused it."""
    import msgspec

    from tieline.cli.processes import await_file
    from tieline.model.error import ErrorEnvelope, TielineError

    try:
        await_file(folder / "ready", started, folder / "log")
    except TielineError:
        refused = folder / "refused.json"
        if refused.exists():
            raise msgspec.json.decode(refused.read_bytes(), type=ErrorEnvelope).raised() from None
        raise
