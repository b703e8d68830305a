"""`check`: what works on this machine, and how to mend what does not."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec

from tieline.cli import table, words
from tieline.cli.face import GREEN, RED, YELLOW, Face, as_json, coloured, pass_face, show_json, verb

LEAST_DISK_BYTES = 2**30
MOST_SKEW_S = 60
ENGINES = ("podman", "docker", "apptainer")
MOST_TRY_S = 30
LEAVING = """
import sys
from tieline.drivers.circuits.kernel.namespaces import leave
from tieline.model.error import TielineError
try:
    leave()
except TielineError as error:
    sys.exit(error.message)
"""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was tried. What is not required narrows what a site here can offer."""

    name: str
    works: bool
    is_required: bool
    found: str
    mend: str = ""


@verb("check")
@as_json
@pass_face
@click.pass_context
def check(ctx: click.Context, face: Face, as_json: bool) -> None:
    """Try everything that Tieline uses here; exit code 1 when something required does not work."""
    found = []
    for probe in PROBES:
        found += list(probe(face))
    if as_json:
        show_json(found)
    else:
        for each in found:
            _show(each)
    ctx.exit(1 if any(each.is_required and not each.works for each in found) else 0)


def _show(each: Finding) -> None:
    mark, colour = ("ok", GREEN) if each.works else ("--", YELLOW) if not each.is_required else ("no", RED)
    name = words.say(f"check_{each.name}")
    gap = " " * max(1, 18 - table.width(name))
    click.echo(f"{coloured(mark, colour)}  {name}{gap}{table.clean(each.found)}")
    if not each.works and each.mend:
        click.echo(f"      {words.say('mend')} {each.mend}")


def _python(_face: Face) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(
        name="python", works=sys.version_info >= (3, 11), is_required=True, found=version, mend="install Python 3.11"
    )


def _inventory(_face: Face) -> Iterator[Finding]:
    from tieline.drivers.engines import inventory
    from tieline.model.quantity import show_size

    seen = inventory.take(str(_data_folder()))
    yield Finding(
        name="disk",
        works=seen.disk_free_bytes >= LEAST_DISK_BYTES,
        is_required=True,
        found=f"{show_size(seen.disk_free_bytes)} free of {show_size(seen.disk_bytes)}",
        mend="free some room: an exchange refuses changes on a full disk",
    )
    yield Finding(
        name="machine",
        works=True,
        is_required=False,
        found=f"{seen.architecture}, {seen.core_count} cores, {show_size(seen.memory_bytes)} memory",
    )
    cards = ", ".join(f"{each.count} x {each.kind}" for each in seen.accelerators)
    yield Finding(
        name="accelerators",
        works=bool(cards),
        is_required=False,
        found=cards or "; ".join(seen.problems) or "none",
        mend="" if cards else "install the vendor's driver, or declare accelerators in the site's file",
    )


def _sandbox(_face: Face) -> Iterator[Finding]:
    from tieline.drivers.engines import sandbox

    seen = sandbox.found()
    why = "; ".join(sorted(set(seen.why_not.values())))
    yield Finding(
        name="sandbox",
        works=seen.works,
        is_required=False,
        found=f"{seen.version}, network {' and '.join(seen.networks)}" if seen.works else why,
        mend="apt-get install bubblewrap  # without it only trusted work is run here",
    )


def _cgroups(_face: Face) -> Iterator[Finding]:
    from tieline.drivers.engines.cgroups import Cgroups

    seen = Cgroups.found()
    works = {"memory", "cpu"} <= set(seen.versions())
    missing = "; ".join(f"{name}: {why}" for name, why in seen.missing.items())
    yield Finding(
        name="cgroups",
        works=works,
        is_required=False,
        found=", ".join(f"{name} ({version})" for name, version in seen.versions().items()) if works else missing,
        mend="run the site with `systemd-run --user --scope -p Delegate=yes`, or as root",
    )


def _container(_face: Face) -> Iterator[Finding]:
    programs = [name for name in ENGINES if shutil.which(name)]
    yield Finding(
        name="container",
        works=bool(programs),
        is_required=False,
        found=", ".join(programs) or "none of " + ", ".join(ENGINES),
        mend="apt-get install podman  # tasks with `image:` need one",
    )


def _laboratory(_face: Face) -> Iterator[Finding]:
    """Tried by a process of its own: who enters a network namespace does not come back."""
    import subprocess
    from importlib.util import find_spec

    from tieline.drivers.extras import bring

    if find_spec("pyroute2") is None:
        mend = bring("circuits")
        yield Finding(name="laboratory", works=False, is_required=False, found="pyroute2 is not installed", mend=mend)
        return
    try:
        tried = subprocess.run(
            [sys.executable, "-c", LEAVING], capture_output=True, text=True, timeout=MOST_TRY_S, check=False
        )
        why = tried.stderr.strip().splitlines()[-1:] if tried.returncode else []
    except (OSError, subprocess.TimeoutExpired) as error:
        why = [str(error)]
    yield Finding(
        name="laboratory",
        works=not why,
        is_required=False,
        found=why[0] if why else "network namespaces",
        mend="sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000  # as root",
    )


def _clock(_face: Face) -> Iterator[Finding]:
    first_s, first = time.time(), time.monotonic()
    time.sleep(0.05)
    drift_s = abs((time.time() - first_s) - (time.monotonic() - first))
    is_sane = first_s > 1_735_689_600  # 2025: a machine without a clock begins in 1970
    yield Finding(
        name="clock",
        works=is_sane and drift_s < 1,
        is_required=True,
        found=table.stamp(int(first_s * 1000)),
        mend="timedatectl set-ntp true  # signatures and leases need the time",
    )


def _exchange(face: Face) -> Iterator[Finding]:
    from tieline.model.error import TielineError

    try:
        began_ms = time.time() * 1000
        status = face.call(lambda client: client.status())
    except TielineError as error:
        is_known = "no exchange is known" not in error.message
        mend = next(iter(error.hints), "tieline login URL --token TOKEN")
        yield Finding(name="exchange", works=False, is_required=is_known, found=error.message, mend=mend)
        return
    yield Finding(name="exchange", works=True, is_required=True, found=f"{status.id} {status.version}")
    skew_s = abs(status.now_ms - began_ms) / 1000
    yield Finding(
        name="skew",
        works=skew_s < MOST_SKEW_S,
        is_required=True,
        found=f"{skew_s:.1f} s",
        mend="timedatectl set-ntp true  # on the machine whose clock is wrong",
    )


def _data_folder() -> Path:
    from tieline.client.context import home

    folder = home()
    while not folder.is_dir():
        folder = folder.parent
    return folder


PROBES: tuple[Callable[[Face], Iterator[Finding]], ...] = (
    _python,
    _clock,
    _inventory,
    _sandbox,
    _cgroups,
    _container,
    _laboratory,
    _exchange,
)
