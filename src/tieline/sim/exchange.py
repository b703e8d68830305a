"""Exchange: one exchange of the simulated federation: the product's writer and use-cases over a simulated disk.

What the API's handlers do (know the caller, check a signature, turn a batch into commands) is done here in a few lines;
everything that decides is the product's. A crash takes the process with its view, queue and sessions; the disk stays,
unless it is lost too: then a backup is restored, and what was acknowledged since is forfeit and counted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from tieline.drivers.stores.draft import Committed, Ordered
from tieline.drivers.stores.writer import Writer
from tieline.exchange import commands as ask
from tieline.exchange import line
from tieline.exchange.asking import quoted_of
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.orders import order_of
from tieline.exchange.placing import schedule
from tieline.exchange.projection import load, rows
from tieline.exchange.queue import Queue
from tieline.exchange.shelf import Shelf
from tieline.exchange.view import View
from tieline.model import event as fact
from tieline.model.error import TielineError
from tieline.model.job import Usage
from tieline.model.limits import Limits
from tieline.model.party import Actor, Role
from tieline.model.peer import PeerState
from tieline.model.plan import Quote
from tieline.model.protocol import (
    Accepted,
    Ask,
    Beat,
    Hello,
    Outcomes,
    PaidClaims,
    PeerAnswers,
    PeerOrders,
    ReportPage,
    Welcome,
)
from tieline.ports import FakeIds
from tieline.registry import Key, open_statement, verify_statement
from tieline.registry.pulling import is_wanted
from tieline.registry.serving import Grant, answer, tail_line
from tieline.sim.archive import DiskArchive
from tieline.sim.books import Books
from tieline.sim.disk import Backup, CrashError, Disk
from tieline.sim.following import Follower
from tieline.sim.lying import Liar
from tieline.sim.network import Respond, Stream
from tieline.sim.picture import picture
from tieline.sim.timeline import NodeClock
from tieline.sim.using import Caller, inflated

if TYPE_CHECKING:
    from tieline.sim.world import World

LOOK_MS = 50  # between two looks whether an owner has answered
TURN_MS = 1  # from the first command that waits to the decision on all that do
TICK_MS = 500
PASSING = ("storage_full", "overloaded", "internal", "forbidden")
MOST_TOLD = 500  # records of one line of a tail
BATCH = 64
SHELF_BYTES = 20_000  # of whole jobs in memory: few, so that the others are fetched from the disk
ADMIN = Actor(name="admin", roles=(Role.ADMIN, Role.USER))


class StillWriter(Writer[View]):
    """The product's writer without its thread: `turn` decides on what waits, keeps it and answers."""

    def open(self) -> StillWriter:
        """Fill the view from the disk."""
        self._reload()
        self._tick_at = self._timer() + self._tick_s
        return self

    def turn(self) -> bool:
        """One batch; whether there is more to do at once."""
        self._turn(self._inbox.take(self._batch, 0))
        return bool(len(self._inbox)) or self._desk.is_more_to_place


class SimExchange:
    """One exchange. ``name`` is short (``x1``); its identifier is under its prefix."""

    def __init__(self, world: World, name: str, prefix: str) -> None:
        self.world, self.name, self.prefix = world, name, prefix
        self.id = f"{prefix}/exchange/main"
        self.clock = NodeClock(world.timeline)
        self.limits = Limits(tick_ms=TICK_MS)
        self.keys = ExchangeKeys(Key(hashlib.sha256(f"exchange {name}".encode()).digest()), prefix)
        self.ids = FakeIds(world.number_of(name))
        self.disk = Disk(world.faults)
        self.books = Books(self.name, world.checks, world.capacity, world.truth)
        self.archive = DiskArchive(self.disk)
        self.streams: dict[str, Stream] = {}  # by site
        self.tails: dict[str, Stream] = {}  # by the exchange that follows
        self.followers: dict[str, Follower] = {}  # by the exchange that is followed
        self.callers: dict[str, Caller] = {}  # by identifier of the exchange that is used
        self.polls: dict[str, tuple[Any, Respond]] = {}  # by the exchange that waits for reports
        self.is_cheat = False  # it ever made more of a claim than it is
        self.cheats_until_ms = 0
        self.set_backs = 0  # times that it was restored from a backup
        self.liar: Liar | None = None
        self._grown: dict[str, None] = {}  # prefixes of which records were stored
        self._told: dict[str, int] = {}  # and up to which serial its listeners know
        self.backup: Backup | None = None
        self.acknowledged: dict[str, int] = {}  # job -> position of the log when its user was answered
        self.forfeit: dict[str, None] = {}  # acknowledged, and lost with a disk
        self.is_up = False
        self.is_renewing = False
        self.is_set_back = False  # to a backup, and its operator does not know
        self.sessions = 1
        self.life = 0
        self._is_turning = False
        self._answered: list[Callable[[], None]] = []  # a future would hide what its callbacks raise
        self._ordered: list[Ordered] = []
        self._writer: StillWriter | None = None
        self.rejected: Counter[str] = Counter()

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, or begin again, from what the disk holds."""
        self.life += 1
        clock = self.clock
        writer = StillWriter(
            self.disk,  # type: ignore[arg-type]
            self._fresh_view,
            decide,
            schedule,
            rows,
            load,
            clock,
            self.ids,
            order_of=order_of,
            batch=BATCH,
            tick_ms=TICK_MS,
            timer=clock.timer_s,
        )
        writer.subscribe(self._note_records)
        writer.subscribe_orders(lambda orders: self._ordered.extend(orders))
        self._writer = writer.open()
        self.is_up = True
        self._is_turning = False
        self._told = {name: row["serial"] for name, row in self.disk.state["serial"].items()}
        self.followers.clear()
        self.callers.clear()
        self.polls.clear()
        for peer in self.view.peers.values():
            if peer.state is PeerState.ACTIVE:
                self.follow(peer.id)
        self._tick(self.life)

    def follow(self, peer: str) -> None:
        """Pull the logs of an active peer from now on, and use what is behind it."""
        other = self.world.exchange_named(peer)
        follower = self.followers[other.name] = Follower(self.world, self, other)
        follower.start()
        caller = self.callers[other.id] = Caller(self.world, self, other)
        caller.start()

    def _fresh_view(self) -> View:
        view = View(self.keys, self.limits)
        view.jobs = Shelf(self.disk.jobs_named, SHELF_BYTES)
        view.waiting = Queue(view.jobs.rows)
        return view

    def crash(self, down_ms: int) -> None:
        """The process dies, whatever it was doing, and is started again later."""
        if not self.is_up:
            return
        self.is_up = False
        self._writer = None
        for stream in (*self.streams.values(), *self.tails.values()):
            stream.close()
        self.streams.clear()
        self.tails.clear()
        self.world.chronicle.note(f"{self.name} crashed")
        self.world.timeline.after(down_ms, self._come_back)

    def crash_between(self, down_ms: int) -> None:
        """The process dies in the clear; what its view held must be what the disk tells."""
        if not self.is_up or self.disk.is_full:
            return
        self.hold_restart()
        self.crash(down_ms)

    def hold_restart(self) -> None:
        """What a view holds is what another one would be filled with, where all of it was kept."""
        before = picture(self.view)
        view = self._fresh_view()
        load(view, self.disk.tables(), self.clock.now_ms())
        for part, told in picture(view).items():
            self.world.checks.hold(
                "a restart changes nothing", told == before[part], self.name, part, told, "was", before[part]
            )

    def lose_disk(self, down_ms: int, *, is_noticed: bool) -> None:
        """The machine is gone; another one starts from the last backup. ``is_noticed``: by its own operator."""
        if self.backup is None or not self.is_up:
            return
        self.crash(down_ms)
        self.disk.restore(self.backup)
        seq = self.disk.position()[0]
        gone = [job for job, at in self.acknowledged.items() if at > seq]
        for job in gone:
            self.forfeit[job] = None
            del self.acknowledged[job]
        self.world.faults["acknowledged job lost with a disk"] += len(gone)
        self.books = self.books.again(self.disk.rows)
        self.world.faults["exchange set back to a backup"] += 1
        self.is_renewing = is_noticed
        self.is_set_back = not is_noticed
        self.set_backs += 1

    def renew(self) -> None:
        """Begin the logs anew, as an operator does who restored a backup."""
        self.is_renewing = self.is_set_back = False
        self.sessions += 1
        self.command(ask.RenewSession(session=f"{self.name}-{self.sessions}", why="restored"))

    def _come_back(self) -> None:
        if not self.is_up:
            self.world.chronicle.note(f"{self.name} is back")
            self.start()
            if self.is_renewing:
                self.renew()

    @property
    def usages(self) -> dict[str, Usage]:
        """Every usage line as it is kept now, by run."""
        rows = self.disk.state["usage"]
        return {run: msgspec.json.decode(row["doc"], type=Usage) for run, row in rows.items()}

    @property
    def greeting(self) -> ask.Greeting:
        """What it says of itself."""
        public = self.keys.key.public
        return ask.Greeting(id=self.id, prefix=self.prefix, public=public, url=f"http://{self.name}.example")

    @property
    def view(self) -> View:
        """As the writer sees it."""
        assert self._writer is not None
        return self._writer.view

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _tick(self, life: int) -> None:
        if life == self.life and self.is_up:
            self._turn(life)
            self.world.timeline.after(TICK_MS, lambda: self._tick(life))

    def command(self, command: ask.Command, then: Callable[[Any, TielineError | None], None] | None = None) -> None:
        """Hand in one command; ``then`` hears the reply or the refusal once it is kept."""
        self.commands((command,), lambda answers: then(*answers[0]) if then is not None else None)

    def commands(
        self, commands: Sequence[ask.Command], then: Callable[[list[tuple[Any, TielineError | None]]], None]
    ) -> None:
        """Hand in several, taken in together; ``then`` hears all answers, in order."""
        assert self._writer is not None
        answers: list[tuple[Any, TielineError | None] | None] = [None] * len(commands)

        def take(place: int, command: ask.Command, future: Future[Any]) -> None:
            error = future.exception()
            assert error is None or isinstance(error, TielineError), error
            answers[place] = (None, error) if error is not None else (future.result(), None)
            self._look_at(command, error)
            if all(each is not None for each in answers):
                then([each for each in answers if each is not None])

        def answered(future: Future[Any], place: int, command: ask.Command) -> None:
            self._answered.append(lambda: take(place, command, future))

        try:
            futures = self._writer.submit_many(commands)
        except TielineError as error:
            then([(None, error)] * len(commands))
            return
        for place, (command, future) in enumerate(zip(commands, futures, strict=True)):
            future.add_done_callback(partial(answered, place=place, command=command))
        if not self._is_turning:
            self._is_turning = True
            life = self.life
            self.world.timeline.after(TURN_MS, lambda: self._turn(life))

    def _look_at(self, command: ask.Command, error: TielineError | None) -> None:
        """What must hold of every answer."""
        if error is None:
            return
        self.rejected[error.code] += 1
        is_answer = error.code != "internal"
        self.world.checks.hold("no command meets a defect", is_answer, self.name, self.world.defect or error, command)
        if error.code in ("unplaceable", "kind_not_offered", "record_refused"):
            self.world.checks.hold("every refusal has a reason", bool(error.reasons), command, error)

    def _turn(self, life: int) -> None:
        if life != self.life or self._writer is None:
            return
        self._is_turning = False
        self._answered, self._ordered = [], []
        try:
            has_more = self._writer.turn()
        except CrashError:
            self.crash(self.world.chance.of(self.name).randrange(200, 8_000))
            has_more = False
        self.books.catch_up(self.disk.rows)
        for tell in self._answered:
            tell()
        self._tell()
        self._tell_records()
        if self.disk.has_reports and self.is_up:
            self.disk.has_reports = False
            self._tell_reports()
        if self.is_up:
            self.world.checks.hold(
                "no command meets a defect", self._writer.meters.defects == 0, self.name, self.world.defect
            )
            self.world.looked(self)
        if has_more and not self._is_turning:
            self._is_turning = True
            self.world.timeline.after(TURN_MS, lambda: self._turn(life))

    def _tell(self) -> None:
        """What was ordered, after the answers: a session that was opened in this batch hears of it."""
        for _, station, order in self._ordered:
            stream = self.streams.get(station)
            if stream is not None:
                stream.send(order)
            elif station in self.callers:
                self.callers[station].order(order)

    def _note_records(self, entries: Sequence[Committed]) -> None:
        for entry in entries:
            event = entry.event
            if isinstance(event, fact.RecordStored):
                self._grown[event.id.partition("/")[0]] = None
            elif isinstance(event, fact.RecordsTaken):
                self._grown.update((stored.id.partition("/")[0], None) for stored in event.records)

    def _tell_records(self) -> None:
        """What was stored, to all who listen."""
        grown, self._grown = self._grown, {}
        session, _ = self.archive.position()
        for prefix in grown:
            after = self._told.get(prefix, 0)
            records = self.archive.delta(prefix, after, MOST_TOLD)
            if not records:
                continue
            serial = self._told[prefix] = records[-1].serial
            line = tail_line(session, prefix, after, serial, [record.envelope for record in records])
            for source, stream in self.tails.items():
                if is_wanted(stream.prefixes, prefix):
                    stream.send(self._bent(line, source))

    # -- what others ask ----------------------------------------------------------------------------------------------

    def serve(self, source: str, kind: str, what: Any, respond: Respond) -> None:
        """One request, as the API's handlers take it. The answer is a reply or a TielineError."""
        try:
            HANDLERS[kind](self, source, what, respond)
        except TielineError as error:
            respond(error)

    def _simply(self, command: ask.Command, respond: Respond) -> None:
        self.command(command, lambda reply, error: respond(error if error is not None else reply))

    def _asked(self, _source: str, command: ask.Command, respond: Respond) -> None:
        """A command of a user, an owner or an admin. A job is acknowledged by its answer."""

        def answer(reply: Any, error: TielineError | None) -> None:
            if error is None and isinstance(command, ask.SubmitJobs | ask.AcceptQuote):
                jobs = reply if isinstance(reply, tuple) else (reply,)
                for job in jobs:
                    self._acknowledge(job.id)
            respond(error if error is not None else reply)

        self.command(command, answer)

    def _acknowledge(self, job: str) -> None:
        self.world.checks.hold("what is acknowledged is kept", job in self.disk.state["job"], self.name, job)
        self.acknowledged.setdefault(job, self.disk.position()[0])

    def _hello(self, source: str, what: tuple[bytes, str], respond: Respond) -> None:
        statement, bearer = what
        hello, _ = open_statement(statement, "site-hello", Hello)
        bearer_sha256 = hashlib.sha256(bearer.encode()).hexdigest()

        def answer(reply: Any, error: TielineError | None) -> None:
            if error is not None:
                respond(error)
                return
            site, orders = reply
            stream = self.world.stream(self.name, source, bearer)
            before = self.streams.get(site.id)
            if before is not None:
                before.close()
            self.streams[site.id] = stream
            respond(
                Welcome(
                    bearer=bearer,
                    protocol=site.protocol,
                    cursor=self.disk.position()[0],
                    lease_ms=self.limits.lease_ms,
                    beat_ms=self.limits.beat_ms,
                    exchange=self.id,
                    proof="",
                    is_admitted=site.is_admitted,
                    is_draining=site.is_draining,
                    orders=orders,
                )
            )

        self.command(ask.OpenSession(statement=statement, hello=hello, bearer_sha256=bearer_sha256), answer)

    def _of_session(self, bearer: str) -> str:
        site = self.view.sessions.get(hashlib.sha256(bearer.encode()).hexdigest())
        if site is None:
            raise TielineError("unauthenticated", "no such session")
        return site

    def _reports(self, _source: str, what: tuple[str, tuple[Any, ...]], respond: Respond) -> None:
        bearer, reports = what
        site = self._of_session(bearer)
        actor = Actor(name=site, roles=(Role.SITE,))

        def answer(answers: list[tuple[Any, TielineError | None]]) -> None:
            error = next((error for _, error in answers if error is not None), None)
            if error is not None:
                respond(error)
                return
            outcomes = tuple(outcome for outcome, _ in answers)
            for report, outcome in zip(reports, outcomes, strict=True):
                if isinstance(report, Accepted) and outcome.is_ok:
                    self.world.said_ok(site, report.run)
            respond(Outcomes(outcomes=outcomes))

        self.commands([ask.TakeReport(actor=actor, site=site, report=report) for report in reports], answer)

    def _beat(self, _source: str, what: tuple[str, bytes], respond: Respond) -> None:
        bearer, statement = what
        name = self._of_session(bearer)
        verify_statement(statement, self.view.sites[name].public, "site-beat")
        beat, _ = open_statement(statement, "site-beat", Beat)
        if beat.site != name:
            raise TielineError("forbidden", f"this is the heartbeat of `{beat.site}`")
        self._simply(ask.TakeBeat(actor=Actor(name=name, roles=(Role.SITE,)), site=name, beat=beat), respond)

    def _state(self, source: str, _: Any, respond: Respond) -> None:
        self._simply(ask.ReadState(peer=self.world.exchanges[source].id), respond)

    def _orders(self, source: str, orders: PeerOrders, respond: Respond) -> None:
        commands = line.commands_of(self.world.exchanges[source].id, orders)

        def answer(answers: list[tuple[Any, TielineError | None]]) -> None:
            if (failure := _passing(answers)) is not None:
                respond(failure)
                return
            replies = [reply if error is None else error for reply, error in answers]
            respond(line.answer_of(orders, replies[len(replies) - len(orders.orders) :]))

        if commands:
            self.commands(commands, answer)
        else:
            respond(PeerAnswers(answers=()))

    def _question(self, source: str, asked: Ask, respond: Respond) -> None:
        """A question for a quote: answered when the owner's site has answered."""

        life = self.life

        def look(quote: Quote) -> None:
            if life != self.life or not self.is_up:
                return
            found = self.view.quotes.get(quote.id) or msgspec.structs.replace(quote, state="refused")
            said = quoted_of(found, self.clock.now_ms())
            if said is not None:
                respond(said)
            else:
                self.world.timeline.after(LOOK_MS, lambda: look(quote))

        def answer(reply: Any, error: TielineError | None) -> None:
            if error is not None:
                respond(error)
            else:
                look(reply)

        self.command(ask.TakeAsk(peer=self.world.exchanges[source].id, ask=asked), answer)

    def _poll(self, source: str, what: tuple[str, int, int], respond: Respond) -> None:
        """Reports for a peer, as soon as there are any."""
        wait_ms = what[2]
        self.polls[source] = (what, respond)
        self._tell_reports(source)
        life = self.life

        def late() -> None:
            if self.is_up and self.life == life and self.polls.get(source) == (what, respond):
                del self.polls[source]
                respond(ReportPage(session=self.archive.position()[0]))

        self.world.timeline.after(wait_ms, late)

    def _tell_reports(self, only: str = "") -> None:
        for source in [only] if only else list(self.polls):
            (session, after, _), respond = self.polls[source]

            def answer(
                reply: Any, error: TielineError | None, source: str = source, respond: Respond = respond,
                asked: tuple[str, int] = (session, after),
            ) -> None:  # fmt: skip
                poll = self.polls.get(source)
                if poll is None or poll[1] is not respond:
                    return
                if error is None and not reply.reports and reply.session == asked[0]:
                    return  # it waits
                del self.polls[source]
                if error is None and self.cheats_until_ms > self.world.timeline.now_ms:
                    reply, count = inflated(reply, self.keys)
                    self.is_cheat = self.is_cheat or count > 0
                    self.world.faults["claim multiplied"] += count
                respond(error if error is not None else reply)

            peer = self.world.exchanges[source].id
            self.command(ask.ReadReports(peer=peer, session=session, after=after), answer)

    def _paid(self, source: str, claims: PaidClaims, respond: Respond) -> None:
        commands = line.payments_of(self.world.exchanges[source].id, claims)
        if commands:
            self.commands(commands, lambda answers: respond(_passing(answers) or True))
        else:
            respond(True)

    def _logs(self, source: str, request: Any, respond: Respond) -> None:
        respond(self._bent(answer(self.archive, request, Grant()), source))

    def _bent(self, said: Any, source: str) -> Any:
        """What is said of logs, as a relay that lies says it."""
        if self.liar is None:
            return said
        said, lie = self.liar.bend(said, self.world.chance.of(f"lies of {self.name}"))
        if lie:
            self.world.faults[f"relay lied: {lie}"] += 1
            self.world.chronicle.note(f"{self.name} lies to {source}: {lie}")
        return said

    def _tail(self, source: str, stream: Stream, respond: Respond) -> None:
        before = self.tails.get(source)
        if before is not None and before is not stream:
            before.is_open = False
        self.tails[source] = stream
        respond(True)


def _passing(answers: Sequence[tuple[Any, TielineError | None]]) -> TielineError | None:
    """What will pass (a full disk, a fault until it is cleared): then all is said again. Other refusals are answers."""
    return next((error for _, error in answers if error is not None and error.code in PASSING), None)


HANDLERS: dict[str, Callable[[SimExchange, str, Any, Respond], None]] = {
    "hello": SimExchange._hello,
    "reports": SimExchange._reports,
    "beat": SimExchange._beat,
    "command": SimExchange._asked,
    "logs": SimExchange._logs,
    "state": SimExchange._state,
    "orders": SimExchange._orders,
    "asked": SimExchange._question,
    "told": SimExchange._poll,
    "paid": SimExchange._paid,
    "tail": SimExchange._tail,
}
