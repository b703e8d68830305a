"""Attempt: one run on this machine, from the bytes it needs to the results it leaves; the machine's word made real."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tieline.drivers.http import HttpClient
from tieline.drivers.siteprocess.cache import Cache
from tieline.drivers.siteprocess.gangs import Gangs
from tieline.drivers.siteprocess.home import write_private
from tieline.drivers.siteprocess.launching import launches, node_folders, opened_secrets
from tieline.drivers.siteprocess.laying import (
    Laid,
    bring,
    check_room,
    lay,
    names_data,
    take_away,
    wanted_data,
)
from tieline.drivers.siteprocess.patience import waited
from tieline.drivers.siteprocess.places import Rules
from tieline.drivers.siteprocess.results import (
    Listing,
    checkpoint_folder,
    listing_of,
    opened,
    pack_checkpoint,
    send_file,
    send_outputs,
)
from tieline.drivers.siteprocess.staging import needs_staging, stage
from tieline.drivers.siteprocess.tails import Tails
from tieline.model.error import TielineError
from tieline.model.job import Output
from tieline.model.protocol import Offer
from tieline.model.reason import Reason
from tieline.ports import Ending, Engine
from tieline.site import Held, Pool
from tieline.site import stimulus as seen
from tieline.site.configuration import SiteLimits
from tieline.site.instruction import Halt, HandOver
from tieline.site.meeting import first_rank

log = logging.getLogger("tieline.site")
CHECKPOINT_SHARE = 2  # of the grace, one part in so many may pass between the signal and SIGTERM
LEAST_GRACE_S = 0.3  # for a node that was started a moment ago, until there is a process that a signal can reach
LOOK_S = 0.1
DATA_REASONS = ("data_not_fetched", "data_wrong", "data_over_disk", "data_over_limit", "residency")


@dataclass(frozen=True)
class Ground:
    """What every attempt at this site stands on."""

    folder: str  # of all runs
    engines: dict[str, Engine]
    client: HttpClient
    is_open: asyncio.Event  # while there is a session
    cache: Cache
    rules: Rules  # by which data is fetched
    tails: Tails
    gangs: Gangs
    limits: SiteLimits
    readable: tuple[str, ...]
    sealing: bytes
    pool_of: Callable[[str], Pool | None]
    feel: Callable[[seen.Stimulus], None]
    failed: Callable[[BaseException], None]  # something here is broken: the process ends and is started anew


class Attempt:
    """One run. What it does are tasks of the loop; `close` ends them and leaves the run itself alone."""

    def __init__(self, ground: Ground, held: Held) -> None:
        self.ground = ground
        self.held = held
        self.run = held.run
        self.folder = f"{ground.folder}/{held.run}"
        self.nodes = node_folders(self.folder, held.nodes)
        self._main: asyncio.Task[None] | None = None
        self._halting: asyncio.Task[None] | None = None
        self._meeting: asyncio.Task[None] | None = None
        self._checkpoints: asyncio.Task[None] | None = None
        self._is_launching = False
        self._started = 0  # nodes, in rank order
        self._sent: Listing = ()
        self._wanted = asyncio.Event()
        self._packing = asyncio.Lock()
        self._laid: tuple[Laid, ...] = ()
        self._is_followed = False

    @property
    def engine(self) -> Engine:
        """Raises TielineError `unplaceable` where the engine is not here any more."""
        engine = self.ground.engines.get(self.held.engine)
        if engine is None:
            raise TielineError("unplaceable", f"there is no `{self.held.engine}` engine here")
        return engine

    @property
    def _has_checkpoint(self) -> bool:
        """Whether the checkpoint of the job lies here: with the first node of its gang."""
        offer = self.held.offer
        return offer.task.checkpoint is not None and (offer.part is None or first_rank(offer.part) == 0)

    # -- what the machine says ----------------------------------------------------------------------------------------

    def start(self, sealed: str) -> None:
        """Begin, or adopt what had begun before a crash."""
        if self._main is None:
            self._is_launching = True
            self._main = self._task(self._start(sealed))

    def adopt(self) -> None:
        """Watch what runs."""
        if self._main is None:
            self._started = len(self.nodes)
            self._follow_logs(is_new=False)
            self._meeting = self._task(self.ground.gangs.adopt(self.held))
            self._main = self._task(self._watch())

    def halt(self, told: Halt) -> None:
        """End it. A fence that comes after a stop takes the rest of the grace away."""
        if self._halting is not None:
            if not told.is_fenced:
                return
            self._halting.cancel()
        self._halting = self._task(self._halt(told))

    def hand_over(self, told: HandOver) -> None:
        """Bring the results to the exchange."""
        self._main = self._task(self._hand_over(told))

    def checkpoint_now(self) -> None:
        """Somebody wants a checkpoint before the period is over."""
        self._wanted.set()

    async def close(self) -> None:
        """End what is done here; the run goes on."""
        begun = (self._main, self._halting, self._meeting, self._checkpoints)
        tasks = [task for task in begun if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"run {self.run}")
        task.add_done_callback(self._seen)
        return task

    def _seen(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.ground.failed(error)

    # -- starting and watching ----------------------------------------------------------------------------------------

    async def _start(self, sealed: str) -> None:
        try:
            secrets = opened_secrets(self.held, sealed, self.ground.sealing)
            await self.ground.gangs.open(self.held)
            if needs_staging(self.held.offer):
                await self._stage()
            await self._launch(secrets)
        except (TielineError, OSError, TimeoutError) as error:
            why = error.message if isinstance(error, TielineError) else str(error) or "it took too long"
            log.warning("could not start", extra={"run": self.run, "why": why})
            await self._stop_nodes(LEAST_GRACE_S)
            self.ground.tails.drop(self.run)
            values = {"pool": self.held.offer.pool, "why": why[:500]}
            reason = Reason(code="start_failed", values=dict(values))
            if isinstance(error, TielineError) and error.reasons and error.reasons[0].code in DATA_REASONS:
                reason = error.reasons[0]
            self.ground.feel(seen.StartFailed(run=self.run, reason=reason))
            return
        self._is_launching = False
        self.ground.feel(seen.NodesStarted(run=self.run))
        await self._watch()

    async def _stage(self) -> None:
        """Lay the bytes out, once: what may have been started already is never laid out again."""
        mark = f"{self.folder}/staged"
        if os.path.exists(mark):  # noqa: ASYNC240, PTH110 - one look
            self._laid = laid_before(mark)
            return
        limits, offer = self.ground.limits, self.held.offer
        disk = offer.task.resources[offer.alternative].disk_bytes or limits.disk_bytes
        booked_ms = max((each.segments[-1].until_ms for each in offer.transfers if each.segments), default=0)
        async with asyncio.timeout(limits.stage_s + max(0.0, booked_ms / 1_000 - time.time())):
            self._laid = await self._lay_out(offer, disk)
        write_private(Path(mark), msgspec.json.encode(self._laid), is_durable=False)

    async def _lay_out(self, offer: Offer, disk: int) -> tuple[Laid, ...]:
        """Files that the task brings, and data that it names. Raises TielineError."""
        ground = self.ground
        if not names_data(offer):
            check_room(offer, (), disk)
            await stage(offer, self.nodes, ground.cache, disk)
            return ()
        wanted = await wanted_data(offer, ground.rules, ground.is_open, self._say)
        check_room(offer, wanted, disk)
        left = disk - sum(each.brought_bytes for each in wanted)
        try:
            async with asyncio.TaskGroup() as group:
                bringing = group.create_task(bring(wanted, self.folder, ground.cache, ground.rules, self._say))
                group.create_task(stage(offer, self.nodes, ground.cache, left))
        except* (TielineError, OSError) as errors:
            raise errors.exceptions[0] from None
        laid = bringing.result()
        works = [f"{where}/work" for where in self.nodes]
        await asyncio.to_thread(lay, laid, works, is_boxed=self.held.sandbox != "none")
        return laid

    def _say(self, text: str) -> None:
        """A line of the log before the task writes any."""
        path = self.engine.log(self.nodes[0])
        if not self._is_followed:
            self._follow_logs(is_new=not os.path.exists(path))  # noqa: PTH110 - one look
        os.makedirs(self.nodes[0], mode=0o700, exist_ok=True)  # noqa: PTH103 - text
        at = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(at, "wb", buffering=0) as file:
            file.write(f"[tieline] {text}\n".encode())

    async def _launch(self, secrets: dict[str, str]) -> None:
        ground, engine = self.ground, self.engine
        holds_memory = bool(getattr(engine, "holds_memory", False))
        pool = ground.pool_of(self.held.offer.pool)
        told = launches(
            self.held,
            self.folder,
            pool,
            ground.limits,
            secrets,
            holds_memory=holds_memory,
            readable=ground.readable,
            laid=self._laid,
        )
        if not self._is_followed:
            is_new = not os.path.exists(engine.log(self.nodes[0]))  # noqa: ASYNC240, PTH110 - one look
            self._follow_logs(is_new=is_new)
        for launch in told:
            self._started += 1
            await engine.start(launch)

    def _follow_logs(self, *, is_new: bool) -> None:
        self._is_followed = True
        engine = self.ground.engines.get(self.held.engine)
        if engine is not None:
            for node, where in enumerate(self.nodes):
                self.ground.tails.follow(self.run, node, engine.log(where), is_new=is_new)

    async def _watch(self) -> None:
        if self._has_checkpoint:
            self._checkpoints = self._task(self._keep_checkpoints())
        endings = await self._endings()
        if self._checkpoints is not None:
            self._checkpoints.cancel()
            await asyncio.gather(self._checkpoints, return_exceptions=True)
        self.ground.feel(seen.NodesEnded(run=self.run, endings=endings))

    async def _endings(self) -> tuple[Ending, ...]:
        """How all nodes ended. One that fails takes the others with it: a gang is whole or not at all."""
        if self.held.engine not in self.ground.engines:
            return (Ending(exit_code=128 + signal.SIGKILL),) * len(self.nodes)
        if len(self.nodes) == 1:
            return (await self.engine.wait(self.nodes[0]),)
        waits = [asyncio.ensure_future(self.engine.wait(where)) for where in self.nodes]
        stops: list[asyncio.Task[Ending]] = []
        try:
            for done in asyncio.as_completed(waits):
                if (await done).exit_code and not stops and self._halting is None:
                    grace_s = self.held.offer.task.grace_s
                    others = [where for where, wait in zip(self.nodes, waits, strict=True) if not wait.done()]
                    stops = [asyncio.create_task(self.engine.stop(where, grace_s)) for where in others]
            return tuple(wait.result() for wait in waits)
        finally:
            for task in (*waits, *stops):
                task.cancel()
            await asyncio.gather(*waits, *stops, return_exceptions=True)

    # -- ending -------------------------------------------------------------------------------------------------------

    async def _halt(self, told: Halt) -> None:
        if self._main is not None and self._is_launching:
            self._main.cancel()
            await asyncio.gather(self._main, return_exceptions=True)
            self._is_launching = False
            endings = await self._stop_nodes(LEAST_GRACE_S)
            self.ground.feel(seen.NodesEnded(run=self.run, endings=endings))
            return
        if self._main is None:  # it may have been started before a crash
            self._started = len(self.nodes)
            self._main = self._task(self._stop_and_watch(told))
            return
        await self._stop_in_order(told)

    async def _stop_and_watch(self, told: Halt) -> None:
        await self._stop_in_order(told)
        await self._watch()

    async def _stop_in_order(self, told: Halt) -> None:
        """A signal for a last checkpoint first, where there is time for one."""
        checkpoint = self.held.offer.task.checkpoint
        grace_s = max(float(told.grace_s), LEAST_GRACE_S)
        if checkpoint is not None and not told.is_fenced and told.grace_s > 0:
            folder = checkpoint_folder(self.nodes[0], checkpoint.path)
            before = await asyncio.to_thread(listing_of, folder)
            for where in self.nodes:
                await self.engine.signal(where, signal.Signals[checkpoint.signal])
            grace_s -= await self._await_checkpoint(folder, before, grace_s / CHECKPOINT_SHARE)
        await self._stop_nodes(grace_s)

    async def _await_checkpoint(self, folder: str, last: Listing, most_s: float) -> float:
        """Wait until ``folder`` changed and stands still, or the run ended; how long that took, in seconds."""
        loop = asyncio.get_running_loop()
        began, is_new = loop.time(), False
        while loop.time() - began < most_s and self._main is not None and not self._main.done():
            await asyncio.sleep(LOOK_S)
            now = await asyncio.to_thread(listing_of, folder)
            if is_new and now == last:
                break
            is_new, last = is_new or now != last, now
        return loop.time() - began

    async def _stop_nodes(self, grace_s: float) -> tuple[Ending, ...]:
        """Stop every node that was told to start, together."""
        nodes = self.nodes[: self._started]
        if not nodes or self.held.engine not in self.ground.engines:
            return ()
        return tuple(await asyncio.gather(*(self.engine.stop(where, grace_s) for where in nodes)))

    # -- results ------------------------------------------------------------------------------------------------------

    async def _hand_over(self, told: HandOver) -> None:
        ground, task = self.ground, self.held.offer.task
        outputs: tuple[Output, ...] = ()
        failure: Reason | None = None
        await ground.tails.finish(self.run)
        works = [f"{where}/work" for where in self.nodes]
        await asyncio.to_thread(take_away, self._laid or laid_before(f"{self.folder}/staged"), works)
        try:
            if told.with_checkpoint and self._has_checkpoint:
                await self._checkpoint()
            if told.with_outputs and task.outputs:
                limit = ground.limits.output_bytes
                outputs = await send_outputs(ground.client, ground.is_open, works, task.outputs, limit)
        except (TielineError, OSError) as error:
            why = error.message if isinstance(error, TielineError) else str(error)
            log.warning("results are not kept", extra={"run": self.run, "why": why})
            failure = Reason(code="outputs_not_kept", values={"why": why[:500]})
        ground.feel(seen.HandedOver(run=self.run, endings=told.endings, outputs=outputs, failure=failure))

    async def _keep_checkpoints(self) -> None:
        """Send the checkpoint folder once in a while, and when somebody asks."""
        checkpoint = self.held.offer.task.checkpoint
        assert checkpoint is not None
        while True:
            await waited(self._wanted, checkpoint.every_s)
            self._wanted.clear()
            try:
                await self._checkpoint()
            except (TielineError, OSError) as error:
                log.warning("a checkpoint is not kept", extra={"run": self.run, "why": str(error)})

    async def _checkpoint(self) -> None:
        """Pack the checkpoint of rank 0 and send it, if it is new. Raises TielineError."""
        checkpoint = self.held.offer.task.checkpoint
        assert checkpoint is not None
        ground = self.ground
        async with self._packing:
            limit = ground.limits.output_bytes
            packed = await pack_checkpoint(self.nodes[0], checkpoint.path, self._sent, limit)
            if packed is None:
                return
            try:
                await send_file(
                    ground.client, ground.is_open, lambda: opened(packed.path), packed.sha256, packed.size_bytes
                )
            finally:
                packed.path.unlink(missing_ok=True)
            self._sent = packed.listing
        ground.feel(seen.CheckpointKept(run=self.run, sha256=packed.sha256, size_bytes=packed.size_bytes))


def laid_before(mark: str) -> tuple[Laid, ...]:
    """What was laid for a run, as it was noted; nothing where nothing was, or by an older version."""
    try:
        return msgspec.json.decode(Path(mark).read_bytes() or b"[]", type=tuple[Laid, ...])
    except (OSError, msgspec.MsgspecError):
        return ()
