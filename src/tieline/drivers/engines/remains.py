"""What a run has running: its task's processes, everything that belongs to it, and whether anything is left."""

from __future__ import annotations

import os

from tieline.drivers.engines import cgroups, members, run_folder
from tieline.drivers.engines.run_folder import Identity, Setting


def of_task(folder: str, known: Setting, who: Identity) -> list[int]:
    """The processes of the task, without the wrapper and its helpers."""
    if known.cgroups:
        return cgroups.processes_in(known.cgroups)
    processes = members.table()
    if known.sandbox == "bubblewrap":
        init = run_folder.sandbox_init(folder)
        return members.descendants(init, processes) if init else []
    task = run_folder.task(folder)
    helpers = {entry.pid for entry in processes.values() if entry.parent == who.pid and entry.pid != task}
    ours = members.of_session(who.pid, who.start_ticks, known.mark, processes)
    return [pid for pid in ours if not {pid, processes[pid].parent} & helpers and pid != who.pid]


def of_run(folder: str, known: Setting, who: Identity) -> list[int]:
    """Every process of the run, wrapper and helpers included."""
    found = members.of_session(who.pid, who.start_ticks, known.mark, members.table()) if who.pid else []
    found += cgroups.processes_in(known.cgroups)
    if known.sandbox == "bubblewrap" and (init := run_folder.sandbox_init(folder)):
        found.append(init)
    return list(dict.fromkeys(found))


def are_none(folder: str, known: Setting, who: Identity) -> bool:
    """Whether a wrapper that just ended left nothing behind, as cheaply as can be told."""
    if run_folder.exited(folder) is None:
        return False
    if known.container:  # the wrapper removed it
        return True
    if known.cgroups:
        return not cgroups.processes_in(known.cgroups)
    if known.sandbox == "bubblewrap":
        return not run_folder.sandbox_init(folder)
    try:
        os.killpg(who.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
