"""`transfer run` and `transfer follow`: bytes are moved by this process, progress on stderr, the result on stdout."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from tieline.cli import words
from tieline.cli.face import Face, as_json, flag, is_terminal, note, option, pass_face, show_json, usage, verb

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.drivers.mover import Address, Moved, Progress, Source, Target, Terms
    from tieline.drivers.mover.doors import Asks
    from tieline.model.circuit import Receipt
    from tieline.model.passing import PassBody
    from tieline.model.transfer import Transfer

SAID_S = 10.0  # between two lines of progress where no person reads them
FOLLOW_S = 1.0


@verb("run", "transfer_run")
@option("--from", "source", required=True, metavar="ADDRESS", help="move_from")
@option("--to", "target", required=True, metavar="ADDRESS", help="move_to")
@option("--rate", default="", metavar="RATE", help="move_rate")
@option("--transfer", default="", metavar="TRANSFER", help="move_transfer")
@option("--streams", default=4, type=click.IntRange(1, 64), help="move_streams")
@option("--bind", "addresses", multiple=True, metavar="IP", help="move_bind")
@option("--sha256", default="", metavar="HEX", help="move_sha256")
@flag("--replace", "is_replacing", help="move_replace")
@option("--stall-s", default=30.0, type=click.FloatRange(1, 3_600), help="move_stall")
@as_json
@pass_face
def run_transfer(
    face: Face,
    source: str,
    target: str,
    rate: str,
    transfer: str,
    streams: int,
    addresses: tuple[str, ...],
    sha256: str,
    is_replacing: bool,
    stall_s: float,
    as_json: bool,
) -> None:
    """Move bytes."""
    from tieline.drivers.mover import Terms, address_of

    if rate and transfer:
        raise usage(words.say("move_rate_or_transfer"))
    if addresses and not transfer:
        raise usage(words.say("move_bind_needs_transfer"))
    begin, end = address_of(source), address_of(target)
    if begin.scheme == "blob" and not begin.path:
        raise usage(words.say("move_from_blob"))
    if begin.scheme == "door" and not begin.path:
        raise usage(words.say("move_from_door"))
    if end.scheme in ("blob", "door") and end.path:
        raise usage(words.say("move_to_named"))
    terms = Terms(streams=streams, sha256=_digest(sha256), stall_s=stall_s)
    needs_exchange = bool(transfer) or bool({"blob", "door"} & {begin.scheme, end.scheme})
    line = Line()
    moving = _Moving(begin, end, terms, line, is_replacing=is_replacing)
    if needs_exchange:
        moved = face.call(lambda client: moving.run(client, transfer, addresses, _rate_bps(rate)))
    else:
        moved = asyncio.run(moving.run(None, "", (), _rate_bps(rate)))
    line.end()
    if as_json:
        show_json(moved)
        return
    _say_moved(moved)


@verb("follow", "transfer_follow")
@click.argument("transfer")
@as_json
@pass_face
def follow_transfer(face: Face, transfer: str, as_json: bool) -> None:
    """Follow a transfer by its receipts."""
    line = Line()
    found = face.call(lambda client: _followed(client, transfer, line))
    line.end()
    if as_json:
        show_json(found)
        return
    click.echo(words.say("transfer_is", transfer=found.id, state=words.word(found.state.value)))


# -- moving -----------------------------------------------------------------------------------------------------------


class _Moving:
    """One move, from words to ends."""

    def __init__(self, begin: Address, end: Address, terms: Terms, line: Line, *, is_replacing: bool) -> None:
        self.begin, self.end, self.terms, self.line = begin, end, terms, line
        self.is_replacing = is_replacing

    async def run(self, client: AsyncClient | None, transfer: str, addresses: tuple[str, ...], rate_bps: int) -> Moved:
        """Move. Raises TielineError."""
        from tieline.drivers.mover import Lane, Schedule, move

        source, target = self._source(client), self._target(client)
        if client is not None and transfer:
            return await self._booked(client, transfer, addresses, source, target)
        lane = Lane(schedule=Schedule.always(rate_bps))
        return await move(source, target, self.terms, (lane,), self.line.show)

    async def _booked(
        self, client: AsyncClient, transfer: str, addresses: tuple[str, ...], source: Source, target: Target
    ) -> Moved:
        from tieline.drivers.mover.booked import Booking

        async def look() -> Transfer:
            return await client.transfer(transfer)

        async def send(receipt: Receipt) -> None:
            await client.give_receipt(receipt)

        booking = Booking(look=look, send=send, addresses=addresses, is_whole=True)
        moved = await booking.carry(source, target, self.terms, self.line.show)
        unbound = sum(not each.is_bound for each in moved.paths)
        if unbound and (addresses or len(moved.paths) > 1):
            self.line.end()
            note(words.say("paths_paced", count=unbound, all=len(moved.paths)))
        return moved

    def _source(self, client: AsyncClient | None) -> Source:
        begin = self.begin
        if begin.scheme == "file":
            from tieline.drivers.mover.files import FileSource

            return FileSource(begin.path)
        if begin.scheme == "s3":
            from tieline.drivers.mover.objects import ObjectSource

            return ObjectSource(begin)
        if begin.scheme == "blob":
            from tieline.drivers.mover.blobs import BlobSource

            assert client is not None
            return BlobSource(client.http, begin.path)
        if begin.scheme == "door":
            from tieline.drivers.clock import SystemClock
            from tieline.drivers.mover.doors import DoorSource

            assert client is not None
            return DoorSource(begin.url, begin.path, asks(client), SystemClock(), relay=client.http)
        from tieline.drivers.mover.web import HttpSource

        return HttpSource(begin)

    def _target(self, client: AsyncClient | None) -> Target:
        end = self.end
        if end.scheme == "file":
            from tieline.drivers.mover.files import FileTarget

            return FileTarget(end.path, is_replacing=self.is_replacing)
        if end.scheme == "s3":
            from tieline.client.context import home
            from tieline.drivers.mover.objects import ObjectTarget

            return ObjectTarget(end, home() / "moves", is_replacing=self.is_replacing)
        if end.scheme == "blob":
            from tieline.drivers.mover.blobs import BlobTarget

            assert client is not None
            return BlobTarget(client.http)
        if end.scheme == "door":
            from tieline.drivers.clock import SystemClock
            from tieline.drivers.mover.doors import DoorTarget

            assert client is not None
            return DoorTarget(end.url, asks(client), SystemClock(), relay=client.http)
        from tieline.drivers.mover.web import HttpTarget

        return HttpTarget(end)


def asks(client: AsyncClient) -> Asks:
    """What asks the exchange for passes."""
    from tieline.client.asynchronous import in_path
    from tieline.model.passing import PassView

    async def ask(site: str, body: PassBody) -> PassView:
        return await client.http.call("POST", f"/v1/sites/{in_path(site)}/passes", PassView, body=body)

    return ask


async def _followed(client: AsyncClient, transfer: str, line: Line) -> Transfer:
    from tieline.drivers.mover.progress import Meter
    from tieline.model.transfer import TRANSFER_ENDED

    found = await client.transfer(transfer)
    meter = Meter(found.order.size_bytes, 0, time.monotonic())
    while found.state not in TRANSFER_ENDED:
        line.show(meter.look(time.monotonic(), found.moved_bytes, found.moved_bytes))
        await asyncio.sleep(FOLLOW_S)
        found = await client.transfer(transfer)
    return found


# -- saying -----------------------------------------------------------------------------------------------------------


class Line:
    """Progress on stderr: one line that is written over for a person, a line once in a while otherwise."""

    def __init__(self) -> None:
        self._is_open = False
        self._said_s = time.monotonic()

    def show(self, progress: Progress) -> None:
        """Say how far it is."""
        text = _progress(progress)
        if is_terminal(sys.stderr):
            click.echo(f"\r\033[K{text}", err=True, nl=False)
            self._is_open = True
        elif time.monotonic() - self._said_s >= SAID_S:
            self._said_s = time.monotonic()
            note(text)

    def end(self) -> None:
        """What follows begins on a line of its own."""
        if self._is_open:
            note()
            self._is_open = False


def _progress(progress: Progress) -> str:
    from tieline.model.quantity import show_duration, show_rate, show_size

    left = words.say("moving_unknown") if progress.left_s is None else show_duration(progress.left_s * 1_000_000)
    return words.say(
        "moving_now",
        share=progress.permille // 10,
        moved=show_size(progress.moved_bytes + progress.resumed_bytes),
        size=show_size(progress.size_bytes),
        rate=show_rate(progress.rate_bps),
        left=left,
    )


def _say_moved(moved: Moved) -> None:
    from tieline.model.quantity import show_duration, show_rate, show_size

    values: dict[str, Any] = {
        "size": show_size(moved.size_bytes),
        "took": show_duration((moved.ended_ms - moved.begun_ms) * 1_000),
        "rate": show_rate(moved.goodput_bps),
        "sha256": moved.sha256,
    }
    note(words.say("moved_whole", **values))
    if moved.resumed_bytes:
        note(words.say("moved_before", size=show_size(moved.resumed_bytes)))
    click.echo(moved.target)


def _rate_bps(text: str) -> int:
    from tieline.model.quantity import RATE_BPS, scaled

    if not text:
        return 0
    try:
        rate = scaled(text, RATE_BPS, "bit/s")
    except ValueError as error:
        raise usage(f"--rate: {error}") from None
    if rate < 1_000:
        raise usage(words.say("move_rate_least"))
    return rate


def _digest(text: str) -> str:
    if text and (len(text) != 64 or set(text) - set("0123456789abcdef")):
        raise usage(words.say("move_no_sha256"))
    return text
