"""Watching wrappers: what every engine that stands a wrapper beside its run has in common.

A pidfd per run tells when the wrapper is gone, for own children and for adopted runs alike, with neither a thread nor a
poll per task. What needs looking at (disk use, stuck wrappers, memory where no control group holds it) is done by one
round for all runs, a few times a second, only while something runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from tieline.drivers.engines import cgroups, members, remains, run_folder, spawn
from tieline.drivers.engines.cgroups import Spent
from tieline.drivers.engines.disk import used_bytes
from tieline.drivers.engines.run_folder import Identity, Setting
from tieline.ports import Ending, Launch

ROUND_S = 0.25
POLL_S = 0.05  # where the kernel has no pidfd
CLEAR_S = 5.0  # how long killed processes may take to vanish
STUCK_S = 2.0  # how long a wrapper may take between writing the exit code and ending
LATE_S = 2.0  # how much longer than its time limit a run may last before the engine stops it itself
DISK_SHARE = 20  # one part in so many of the time goes into measuring a folder


@dataclass
class Watch:
    """One running wrapper."""

    known: Setting
    who: Identity
    descriptor: int  # pidfd, or -1
    is_child: bool
    ended: asyncio.Future[Ending]
    began_s: float
    look_again_s: float = 0.0  # at the disk
    max_memory_bytes: int = 0
    is_stopping: bool = False
    tasks: set[asyncio.Task[object]] = field(default_factory=set)


class WatchedEngine(ABC):
    """The part of an `Engine` that starts, adopts, stops and concludes runs through their wrappers."""

    def __init__(self) -> None:
        self._watches: dict[str, Watch] = {}
        self._clearing: dict[str, asyncio.Task[Ending]] = {}
        self._removals: set[tuple[str, ...]] = set()
        self._rounds: asyncio.Task[None] | None = None

    @property
    @abstractmethod
    def way(self) -> spawn.Way:
        """How its wrappers enter the place where their tasks run."""

    @property
    @abstractmethod
    def holds_memory(self) -> bool:
        """Whether something keeps a task to its memory limit; else the engine looks."""

    def _spent(self, known: Setting) -> Spent:
        """What the task used, as its control groups tell."""
        return cgroups.spent(known.cgroups)

    async def start(self, launch: Launch) -> None:
        """See `Engine.start`."""
        folder = launch.folder
        if folder in self._watches or folder in self._clearing or run_folder.ended(folder) is not None:
            return
        if run_folder.identity(folder) is not None:
            self._adopt(folder)
            return
        known, pid = spawn.spawn(launch, self.way)
        started = members.process(pid)
        self._watch(folder, known, Identity(pid, started.start_ticks if started else 0), is_child=True)

    async def wait(self, folder: str) -> Ending:
        """See `Engine.wait`."""
        done = run_folder.ended(folder)
        if done is not None:
            return done
        watch = self._watches.get(folder)
        if watch is None and folder not in self._clearing:
            watch = self._adopt(folder)
        if watch is None:
            return await asyncio.shield(self._clear_soon(folder))
        return await asyncio.shield(watch.ended)

    async def signal(self, folder: str, number: int) -> None:
        """See `Engine.signal`. SIGUSR1 and SIGUSR2 reach only processes that catch them: they ask for a checkpoint."""
        watch = self._watches.get(folder) or (self._adopt(folder) if run_folder.ended(folder) is None else None)
        if watch is not None:
            self._send(folder, watch, number)

    async def stop(self, folder: str, grace_s: float) -> Ending:
        """See `Engine.stop`."""
        watch = self._watches.get(folder) or (self._adopt(folder) if run_folder.ended(folder) is None else None)
        if watch is None:
            return await self.wait(folder)
        with contextlib.suppress(OSError):
            run_folder.put(folder, "stopping", f"{int(grace_s) + 1}\n".encode())
        watch.is_stopping = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        done = None
        while done is None and not self._send(folder, watch, signal.SIGTERM) and loop.time() < deadline:
            done = await self._within(watch, 0.02)  # it has not come to life yet
        done = done or await self._within(watch, deadline - loop.time())
        if done is None:
            self._send(folder, watch, signal.SIGKILL)
            done = await self._within(watch, CLEAR_S)
        if done is None:
            members.kill(remains.of_run(folder, watch.known, watch.who))
        return await asyncio.shield(watch.ended)

    def log(self, folder: str) -> str:
        """See `Engine.log`."""
        return f"{folder}/log"

    async def close(self) -> None:
        """Stop watching. Runs go on; whoever opens their folders later adopts them."""
        tasks = [task for watch in self._watches.values() for task in watch.tasks]
        tasks += [*([self._rounds] if self._rounds else []), *self._clearing.values()]
        for watch in self._watches.values():
            self._unwatch(watch)
            watch.ended.cancel()
        self._watches.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Watching

    def _adopt(self, folder: str) -> Watch | None:
        """Watch a run that somebody else started, if its wrapper is alive."""
        known, who = run_folder.setting(folder), run_folder.identity(folder)
        if known is None or who is None or known.boot != run_folder.boot():
            return None
        if not members.is_alive(who.pid, who.start_ticks):
            return None
        return self._watch(folder, known, who, is_child=False)

    def _watch(self, folder: str, known: Setting, who: Identity, *, is_child: bool) -> Watch:
        loop = asyncio.get_running_loop()
        descriptor = -1
        with contextlib.suppress(OSError, AttributeError):
            descriptor = os.pidfd_open(who.pid)
        began_s = time.time() if is_child else run_folder.began_ms(folder) / 1000
        watch = Watch(known, who, descriptor, is_child, loop.create_future(), began_s)
        self._watches[folder] = watch
        if descriptor >= 0:
            loop.add_reader(descriptor, self._exited, folder)
        if descriptor < 0 or not (is_child or members.is_alive(who.pid, who.start_ticks)):
            loop.call_soon(self._look_for, folder)  # it may have ended before we held on to it
        if self._rounds is None or self._rounds.done():
            self._rounds = loop.create_task(self._go_round())
        return watch

    def _unwatch(self, watch: Watch) -> None:
        if watch.descriptor >= 0:
            asyncio.get_running_loop().remove_reader(watch.descriptor)
            os.close(watch.descriptor)
            watch.descriptor = -1

    def _look_for(self, folder: str) -> None:
        watch = self._watches.get(folder)
        if watch is not None and not members.is_alive(watch.who.pid, watch.who.start_ticks):
            self._exited(folder)

    def _exited(self, folder: str) -> None:
        """The wrapper is gone."""
        watch = self._watches[folder]
        self._unwatch(watch)
        cpu_ms = 0
        if watch.is_child:
            with contextlib.suppress(ChildProcessError):
                _, _, usage = os.wait4(watch.who.pid, 0)
                if watch.known.container:  # that was its client
                    usage = resource.struct_rusage([0] * 16)
                cpu_ms = int((usage.ru_utime + usage.ru_stime) * 1000)
                if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:  # else it is ours: inherited
                    watch.max_memory_bytes = max(watch.max_memory_bytes, usage.ru_maxrss * 1024)
        who = run_folder.identity(folder)
        if watch.is_child and who is not None and who.pid != watch.who.pid:  # another wrapper was there first
            del self._watches[folder]
            other = self._adopt(folder)
            task = asyncio.ensure_future(self._clear_soon(folder)) if other is None else other.ended
            task.add_done_callback(lambda done: _pass_on(done, watch.ended))
            return
        if not remains.are_none(folder, watch.known, watch.who):
            self._clear_soon(folder, cpu_ms)
            return
        try:
            self._conclude(folder, watch.known, cpu_ms, watch)
        except Exception as error:
            self._fail(folder, error)
            raise

    def _fail(self, folder: str, error: BaseException) -> None:
        """Tell whoever waits that the ending cannot be told, instead of letting them wait for ever."""
        watch = self._watches.pop(folder, None)
        if watch is not None and not watch.ended.done():
            watch.ended.set_exception(error)

    def _conclude(self, folder: str, known: Setting, cpu_ms: int, watch: Watch | None) -> Ending:
        ending = run_folder.ended(folder)
        if ending is None:
            seen = watch.max_memory_bytes if watch else 0
            ending = run_folder.close(folder, known, self._spent(known), cpu_ms=cpu_ms, max_memory_bytes=seen)
        if not cgroups.remove(known.cgroups):
            self._removals.add(known.cgroups)
        if watch is not None:
            self._watches.pop(folder, None)
            if not watch.ended.done():
                watch.ended.set_result(ending)
        return ending

    # Ending what is left

    def _clear_soon(self, folder: str, cpu_ms: int = 0) -> asyncio.Task[Ending]:
        task = self._clearing.get(folder)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._clear(folder, cpu_ms))
            self._clearing[folder] = task
            task.add_done_callback(lambda done: self._cleared(folder, done))
        return task

    def _cleared(self, folder: str, done: asyncio.Task[Ending]) -> None:
        self._clearing.pop(folder, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            self._fail(folder, error)

    async def _clear(self, folder: str, cpu_ms: int) -> Ending:
        """Kill everything that a run without a wrapper left behind, then conclude it."""
        watch = self._watches.get(folder)
        known = watch.known if watch else run_folder.setting(folder)
        if known is None or (who := run_folder.claimed(folder)) is None:
            return Ending(exit_code=128 + signal.SIGKILL)
        if known.boot == run_folder.boot():
            loop = asyncio.get_running_loop()
            deadline = loop.time() + CLEAR_S
            while left := remains.of_run(folder, known, who):
                members.kill(left)
                if loop.time() > deadline:
                    break
                await asyncio.sleep(0.01)
        return self._conclude(folder, known, cpu_ms, watch)

    def _send(self, folder: str, watch: Watch, number: int) -> int:
        if watch.ended.done():
            return 0
        is_sandboxed = watch.known.sandbox != "none"
        return members.send(remains.of_task(folder, watch.known, watch.who), number, is_sandboxed=is_sandboxed)

    async def _within(self, watch: Watch, seconds: float) -> Ending | None:
        done, _ = await asyncio.wait({watch.ended}, timeout=max(seconds, 0))
        return watch.ended.result() if done else None

    # The round

    async def _go_round(self) -> None:
        while self._watches or self._removals:
            has_pidfd = all(watch.descriptor >= 0 for watch in self._watches.values())
            await asyncio.sleep(ROUND_S if has_pidfd else POLL_S)
            self._removals = {groups for groups in self._removals if not cgroups.remove(groups)}
            for folder, watch in list(self._watches.items()):
                if watch.descriptor < 0:
                    self._look_for(folder)
                self._look_at(folder, watch)

    def _look_at(self, folder: str, watch: Watch) -> None:
        known, now_s = watch.known, time.time()
        if watch.ended.done() or watch.descriptor < 0:
            return
        wrote_ms = run_folder.exited_ms(folder)
        if wrote_ms and now_s - wrote_ms / 1000 > STUCK_S:  # a stray holds the log open
            members.kill(remains.of_run(folder, known, watch.who))
        if watch.is_stopping:
            return
        if known.duration_s and now_s - watch.began_s > known.duration_s + LATE_S:
            self._end_by(folder, watch, "time", known.grace_s)
        elif known.memory_bytes and not self.holds_memory:
            self._look_at_memory(folder, watch)
        if known.disk_bytes and now_s >= watch.look_again_s:
            watch.look_again_s = float("inf")
            self._keep(watch, self._look_at_disk(folder, watch))

    def _look_at_memory(self, folder: str, watch: Watch) -> None:
        found = (members.process(pid) for pid in remains.of_task(folder, watch.known, watch.who))
        resident = sum(entry.resident_bytes for entry in found if entry is not None)
        watch.max_memory_bytes = max(watch.max_memory_bytes, resident)
        if resident > watch.known.memory_bytes:
            self._end_by(folder, watch, "memory", 0)

    async def _look_at_disk(self, folder: str, watch: Watch) -> None:
        began_s = time.time()
        used = await used_bytes(run_folder.writable(folder), watch.known.disk_bytes)
        if used > watch.known.disk_bytes and not watch.is_stopping:
            self._end_by(folder, watch, "disk", watch.known.grace_s)
        now_s = time.time()
        watch.look_again_s = now_s + (now_s - began_s) * DISK_SHARE

    def _end_by(self, folder: str, watch: Watch, limit: str, grace_s: float) -> None:
        watch.is_stopping = True
        with contextlib.suppress(OSError):
            run_folder.put(folder, "limit", limit.encode())
        self._keep(watch, self.stop(folder, grace_s))

    def _keep(self, watch: Watch, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        watch.tasks.add(task)
        task.add_done_callback(watch.tasks.discard)


def _pass_on(done: asyncio.Future[Ending], waiting: asyncio.Future[Ending]) -> None:
    if not waiting.done() and not done.cancelled() and done.exception() is None:
        waiting.set_result(done.result())
