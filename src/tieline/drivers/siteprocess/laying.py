"""Laying: the data that a task names, brought here before its start and shown to the work where it asked for it.

::

    held here                 seen read-only where it lies, no copy
    its record names places   moved into the cache, at the rates and times that were booked, hashed; seen read-only
    neither                   left to the work: `TIELINE_TRANSFERS` says what was booked for it

In a sandbox the work sees the very file of the cache; without one it gets a copy, since nothing else keeps it from
writing. What was laid is taken away before results are looked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from tieline.drivers.http.backoff import Backoff
from tieline.drivers.mover import Progress, Terms, move
from tieline.drivers.mover.files import FileTarget
from tieline.drivers.mover.pacing import Lane, Schedule
from tieline.drivers.siteprocess.cache import RESERVE_BYTES, Cache
from tieline.drivers.siteprocess.datasets import Dataset, check_residency, dataset_of, refused
from tieline.drivers.siteprocess.delivery import carried
from tieline.drivers.siteprocess.patience import patiently
from tieline.drivers.siteprocess.places import Rules, held_at, places_of, source_of
from tieline.drivers.siteprocess.staging import below, steps_of
from tieline.model.error import TielineError
from tieline.model.protocol import Offer
from tieline.model.quantity import show_rate, show_size
from tieline.model.reason import Reason, sentence
from tieline.model.spec import DataPlace
from tieline.model.task import DataUse
from tieline.model.transfer import Transfer

ROUNDS = 3  # over all places, before another site is tried
STREAMS = 8  # of all moves of one run together
SAID_S = 10.0  # between two words about one move
ABOUT_S = 30.0  # until a place has said how many bytes it has; then the next one is asked
COPY_BYTES = 2**24
NO_SHARING = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)  # between or within these file systems
WRONG = ("check_failed", "too_large")  # other bytes than the record says

Say = Callable[[str], None]


class Laid(msgspec.Struct, frozen=True):
    """One dataset where the work sees it."""

    data: str
    source: str  # a file or folder of this machine
    path: str  # below the work folder
    is_held: bool = False  # it lies here by the owner's word; otherwise it was brought for this run


class Wanted(NamedTuple):
    """One dataset that this site lays."""

    use: DataUse
    dataset: Dataset
    held: str  # where it lies here; empty: it has to be brought
    transfer: Transfer | None  # that was booked for it
    user: str  # of the job

    @property
    def brought_bytes(self) -> int:
        """What it takes of the run's disk."""
        return 0 if self.held else self.dataset.spec.size_bytes


def names_data(offer: Offer) -> bool:
    """Whether the task asks for a dataset at a path."""
    return any(use.id and use.path for use in offer.task.data)


async def wanted_data(offer: Offer, rules: Rules, is_open: asyncio.Event, say: Say) -> tuple[Wanted, ...]:
    """The data that is laid here. Raises TielineError for what may not come here or has no proved record."""
    found: list[Wanted] = []
    booked = {each.order.label: each for each in offer.transfers}
    for use in offer.task.data:
        if not (use.id and use.path):
            continue
        now_s = rules.clock.now_ms() // 1_000
        dataset = await patiently(
            lambda name=use.id, now_s=now_s: dataset_of(rules.client, rules.identity, name, now_s),  # type: ignore[misc]
            is_open,
            "the record of a dataset",
        )
        check_residency(dataset, use, rules.identity)
        held = await asyncio.to_thread(held_at, dataset, rules)
        if held or places_of(dataset, ""):
            found.append(Wanted(use, dataset, held, booked.get(use.id[:200]), offer.user))
        else:
            say(f"data {use.id}: its record names no place that can be read from here; the work has to fetch it")
    checkpoint = offer.task.checkpoint
    _check_apart([steps_of(each.use.path) for each in found], steps_of(checkpoint.path) if checkpoint else None)
    return tuple(found)


def _check_apart(paths: Sequence[Sequence[str]], checkpoint: Sequence[str] | None) -> None:
    """What is seen read-only cannot hold another thing, and the work folder itself is to be written.

    Nor is it a part of a checkpoint, which would be sent with it and then be in its way.
    """
    for at, path in enumerate(paths):
        shown = "/".join(path)[:200]
        if not path:
            raise TielineError("invalid_task", "data is not laid as the work folder itself: name a path", where="data")
        if any(path[: len(other)] == other for index, other in enumerate(paths) if index != at):
            raise TielineError("invalid_task", f"`{shown}` lies where another dataset is laid", where="data")
        if checkpoint is not None and (path[: len(checkpoint)] == checkpoint or checkpoint[: len(path)] == path):
            raise TielineError("invalid_task", f"`{shown}` lies where the checkpoint is, which is sent", where="data")


def check_room(offer: Offer, wanted: Sequence[Wanted], limit_bytes: int) -> None:
    """Refuse, before anything moves, what does not fit the run's disk. Raises TielineError with the numbers."""
    task = offer.task
    mounts = (*task.mounts, *((task.workdir,) if task.workdir is not None else ()))
    files = sum(mount.size_bytes for mount in mounts)
    data = sum(each.brought_bytes for each in wanted)
    if files + data <= limit_bytes:
        return
    is_asked = bool(task.resources[offer.alternative].disk_bytes)
    reason = Reason(
        code="data_over_disk" if is_asked else "data_over_limit",
        values={"files_bytes": files, "data_bytes": data, "most_bytes": limit_bytes},
    )
    raise TielineError("too_large", sentence(reason), reasons=(reason,))


async def bring(wanted: Sequence[Wanted], folder: str, cache: Cache, rules: Rules, say: Say) -> tuple[Laid, ...]:
    """Fetch everything at once, each at its own times: what they are laid as. Raises TielineError (`data_...`)."""
    store = Path(folder, "data")
    await asyncio.to_thread(store.mkdir, parents=True, exist_ok=True, mode=0o700)
    remote = [each for each in wanted if not each.held]
    streams = max(1, STREAMS // max(1, len(remote)))

    async def one(each: Wanted, link: Path) -> None:
        fetching = _Fetching(each, rules, streams, say)
        async with cache.kept(fetching.name, fetching.fetch) as blob:
            await asyncio.to_thread(_link, blob, link)

    laid: list[Laid] = []
    try:
        async with asyncio.TaskGroup() as group:
            for at, each in enumerate(wanted):
                path = "/".join(steps_of(each.use.path))
                source = each.held or str(store / str(at))
                laid.append(Laid(each.dataset.id, source, path, is_held=bool(each.held)))
                if not each.held:
                    group.create_task(one(each, Path(source)))
                else:
                    say(f"data {each.dataset.id}: held here")
    except* (TielineError, OSError) as errors:
        raise errors.exceptions[0] from None
    return tuple(laid)


def lay(laid: Sequence[Laid], works: Sequence[str], *, is_boxed: bool) -> None:
    """Make the places in every node's work folder: empty ones to mount on in a sandbox, links and copies without one.

    Raises TielineError `invalid_task` where something is there already.
    """
    for each in laid:
        for work in works:
            steps = steps_of(each.path)
            with below(work, steps, each.path) as at:
                try:
                    _lay_one(each, steps[-1], at, is_boxed=is_boxed)
                except OSError as error:
                    raise TielineError(
                        "invalid_task", f"`{each.path[:200]}` cannot be laid there: {error.strerror}", where="data"
                    ) from None


def _lay_one(each: Laid, name: str, at: int, *, is_boxed: bool) -> None:
    if not is_boxed and each.is_held:
        os.symlink(each.source, name, dir_fd=at)
        return
    if Path(each.source).is_dir():
        os.mkdir(name, 0o755, dir_fd=at)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(name, flags, 0o444, dir_fd=at)
    try:
        if not is_boxed:
            _copy(each.source, made)
    finally:
        os.close(made)


def take_away(laid: Sequence[Laid], works: Sequence[str]) -> None:
    """Remove what was laid from the work folders, as far as it is there: it is no result."""
    for each in laid:
        for work in works:
            steps = steps_of(each.path)
            with contextlib.suppress(OSError, TielineError), below(work, steps, each.path, is_made=False) as at:
                try:
                    os.unlink(steps[-1], dir_fd=at)
                except IsADirectoryError:
                    os.rmdir(steps[-1], dir_fd=at)


def _link(blob: Path, link: Path) -> None:
    """One more name of a file of the cache, which may then forget it; a copy where there can be no such name."""
    blob.chmod(0o444)
    link.unlink(missing_ok=True)
    try:
        os.link(blob, link)
    except OSError as error:
        if error.errno not in (*NO_SHARING, errno.EPERM, errno.EMLINK):
            raise
        made = os.open(link, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            _copy(str(blob), made)
        finally:
            os.close(made)


def _copy(source: str, target: int) -> None:
    """Copy a file inside the kernel, sharing its blocks where the file system can, and from one to another else.

    Raises TielineError `storage_full` before the site's own disk would be full.
    """
    with open(source, "rb", buffering=0) as file:
        size, room = os.fstat(file.fileno()).st_size, os.fstatvfs(target)
        if size + RESERVE_BYTES > room.f_bavail * room.f_frsize:
            free = f"{room.f_bavail * room.f_frsize:,} are free, of which {RESERVE_BYTES:,} stay so"
            raise TielineError("storage_full", f"a copy of the data takes {size:,} bytes, and {free}")
        try:
            while os.copy_file_range(file.fileno(), target, COPY_BYTES):
                pass
        except OSError as error:
            if error.errno not in NO_SHARING:
                raise
            while piece := file.read(COPY_BYTES):
                view = memoryview(piece)
                while view:
                    view = view[os.write(target, view) :]


class _Fetching:
    """One dataset on its way, from the first of its places that has it."""

    def __init__(self, wanted: Wanted, rules: Rules, streams: int, say: Say) -> None:
        self.wanted, self.rules, self.streams = wanted, rules, streams
        self.dataset = wanted.dataset
        self._say = say
        self._said_s = 0.0
        digest = f"{self.dataset.id}\n{self.dataset.spec.sha256}"
        if any(place.url.startswith("blob:") for place in self.dataset.spec.places):
            digest += f"\n{wanted.user}"  # not everybody may read a blob: what one may is not shown to another
        # By the dataset too: who knows the hash of somebody's bytes does not get them by naming it in a record. And no
        # bare hash: a blob of just these words would have that name, and be taken for the dataset.
        self.name = f"data-{hashlib.sha256(digest.encode()).hexdigest()}"

    async def fetch(self, target: Callable[[], FileTarget]) -> None:
        """Move the bytes. Raises TielineError: `storage_full`, or why no place has them."""
        booked = self.wanted.transfer
        places = places_of(self.dataset, booked.order.source if booked is not None else "")
        waits = Backoff(first_s=0.5, most_s=10.0)
        failures: dict[str, TielineError] = {}
        for left in range(ROUNDS - 1, -1, -1):
            for place in places:
                if place.url in failures and not failures[place.url].transient:
                    continue  # what has other bytes is not fetched whole once more
                try:
                    await self._from(place, target)
                except ValueError as error:  # an address that no library here takes
                    failures[place.url] = TielineError("invalid_request", f"`{place.url[:200]}`: {error}"[:400])
                except TielineError as error:
                    if target().path.exists():  # it is whole, and nobody could be told
                        return
                    if error.code == "storage_full":
                        raise
                    failures[place.url] = error
                else:
                    return
            if not left or not any(error.transient for error in failures.values()):
                break
            await asyncio.sleep(waits.next_s())
        raise self._refused(failures)

    async def _from(self, place: DataPlace, target: Callable[[], FileTarget]) -> None:
        size = self.dataset.spec.size_bytes
        source = source_of(place, self.dataset, self.rules)
        try:
            async with asyncio.timeout(ABOUT_S):
                found = (await source.about()).size_bytes
        except TimeoutError:
            await source.close()
            raise TielineError("timeout", f"`{source.name}` said nothing of itself for {ABOUT_S:g} s") from None
        except TielineError as error:
            await source.close()
            if error.code in WRONG:  # it has not shown any bytes yet
                raise TielineError("invalid_request", error.message) from None
            raise
        if found != size:
            await source.close()
            raise TielineError("check_failed", f"`{source.name}` has {found:,} bytes, and the record says {size:,}")
        terms = Terms(sha256=self.dataset.spec.sha256, limit_bytes=size, streams=self.streams)
        booked = self.wanted.transfer
        self._say(f"data {self.dataset.id}: {show_size(size)} from {source.name}{' as booked' * (booked is not None)}")
        lanes: tuple[Lane, ...] = ()
        if booked is not None and place.site in ("", booked.order.source) and booked.order.size_bytes >= size:
            if await carried(self.rules.client, booked, source, target(), terms, self._told):
                return
            await source.close()
            source = source_of(place, self.dataset, self.rules)
            if booked.segments:  # what is late goes on at the rate that it had
                lanes = (Lane(schedule=Schedule.always(booked.segments[-1].rate_bps)),)
        await move(source, target(), terms, lanes, self._told)

    def _told(self, progress: Progress) -> None:
        now_s = time.monotonic()
        is_over = progress.kept_bytes + progress.resumed_bytes >= progress.size_bytes
        if not is_over and now_s - self._said_s < SAID_S:
            return
        self._said_s = now_s
        there = show_size(progress.moved_bytes + progress.resumed_bytes)
        self._say(
            f"data {self.dataset.id}: {there} of {show_size(progress.size_bytes)}, {progress.permille // 10} %, "
            f"{show_rate(progress.rate_bps)}"
        )

    def _refused(self, failures: dict[str, TielineError]) -> TielineError:
        why = "; ".join(error.message for error in failures.values())[:400]
        if all(error.code in WRONG for error in failures.values()):
            return refused("data_wrong", self.dataset.id, why=why)
        lasting = int(not any(error.transient for error in failures.values()))
        return refused("data_not_fetched", self.dataset.id, why=why, lasting=lasting)
