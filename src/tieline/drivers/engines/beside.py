"""Beside: how a command is run beside a run that an engine of ours holds, with no more rights than the run has."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tieline.drivers.engines import members, run_folder, seccomp
from tieline.drivers.engines.bare import BOX
from tieline.drivers.engines.sandbox import NOBODY
from tieline.model.error import TielineError

HELPER = str(Path(__file__).with_name("join.py"))
SHELL = ("/bin/sh", "-c", "[ -x /bin/bash ] && exec /bin/bash -i; exec /bin/sh -i")
ENVIRONMENT_BYTES = 2**22


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What `join.py` is told. It travels in memory: the environment holds the run's secrets."""

    task: int  # a process of the run, whose limits are taken
    init: int  # process 1 of its sandbox; 0: there is none
    namespace: int  # inode of that one's process name space
    groups: Sequence[str]
    user: int  # to become, -1: stay
    filter: str  # seccomp program, hex
    folder: str
    environment: Mapping[str, str]
    command: Sequence[str]
    port: int
    address: str  # of the node, where the port is looked for first
    has_terminal: bool


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """How to start it: words, and what stands on a descriptor of its own (nothing: no descriptor is given)."""

    words: Sequence[str]
    told: bytes = b""


def beside(
    engine: Any, folder: str, *, command: Sequence[str], port: int = 0, has_terminal: bool = False, term: str = ""
) -> Beside:
    """How to run ``command`` (none: a shell) or reach ``port`` beside the node in ``folder``.

    Raises TielineError `conflict` where nothing runs there, `unplaceable` where the engine offers no way in.
    """
    known = run_folder.setting(folder)
    if known is None or run_folder.exited(folder) is not None:
        raise TielineError("conflict", "the run has no process any more")
    if known.container:
        return _in_container(engine, known.container, folder, command, port, has_terminal)
    task, init, namespace = run_folder.task(folder), 0, 0
    if known.sandbox == BOX:
        init = run_folder.sandbox_init(folder)
        task = _child(init)
        if not init or not task:
            raise TielineError("conflict", "the run's sandbox is not there yet, or not any more")
        namespace = os.stat(f"/proc/{init}/ns/pid").st_ino  # noqa: PTH116 - a link to nowhere
    if members.process(task) is None:
        raise TielineError("conflict", "the run has no process any more")
    environment = _environment(task, term)
    entry = Entry(
        task=task,
        init=init,
        namespace=namespace,
        groups=known.cgroups,
        user=NOBODY if init else -1,
        filter=seccomp.program().hex() if init else "",
        folder=f"{folder}/work",
        environment=environment,
        command=tuple(command) or SHELL,
        port=port,
        address=_address(environment),
        has_terminal=has_terminal,
    )
    return Beside(words=(sys.executable, "-I", "-S", HELPER), told=msgspec.json.encode(entry))


def _in_container(engine: Any, name: str, folder: str, command: Sequence[str], port: int, has_terminal: bool) -> Beside:
    """By the runtime's own `exec`, which keeps the container's limits. Its secrets are the run's first process's."""
    runtime = engine.way.runtime
    if not runtime.has_server or port:
        what = "a port of a container" if port else f"a command beside a run of {runtime.kind}"
        raise TielineError("unplaceable", f"{what} cannot be reached")
    flags = ["--interactive", *(["--tty"] if has_terminal else []), "--workdir", f"{folder}/work"]
    return Beside(words=runtime.words("exec", *flags, name, *(command or SHELL)))


def _child(init: int) -> int:
    """The first process that the init of a sandbox started: the task."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{init}/task/{init}/children").read_text().split()[0])
    return 0


def _address(environment: Mapping[str, str]) -> str:
    """The node's own among those of its gang, as it was told."""
    with contextlib.suppress(KeyError, ValueError, IndexError):
        found = environment["TIELINE_NODE_IPS"].split("\n")[int(environment["TIELINE_NODE_RANK"])]
        if ipaddress.IPv4Address(found).is_loopback:
            return found
    return "127.0.0.1"


def _environment(task: int, term: str) -> dict[str, str]:
    """The environment that the task was started with. Raises TielineError `conflict` when it is gone."""
    try:
        with open(f"/proc/{task}/environ", "rb") as file:
            content = file.read(ENVIRONMENT_BYTES)
    except OSError as error:
        raise TielineError("conflict", f"the run cannot be looked at: {error.strerror}") from None
    pairs = (each.partition(b"=") for each in content.split(b"\0") if b"=" in each)
    found = {name.decode("utf-8", "surrogateescape"): value.decode("utf-8", "replace") for name, _, value in pairs}
    return {**found, "TERM": term} if term else found
