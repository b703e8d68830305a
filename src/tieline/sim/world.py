"""World: every node of a story, wired together, with what must hold between them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from tieline.exchange import commands as ask
from tieline.exchange.decide import decide
from tieline.model.api import JoinStatement
from tieline.model.error import TielineError
from tieline.model.job import JobState
from tieline.model.party import Role
from tieline.model.peer import PeerRole
from tieline.model.topology import Link, Node, Topology
from tieline.registry import follow, sealing_public, sign_statement
from tieline.sim.books import Amount
from tieline.sim.chance import Chance
from tieline.sim.convergence import difference
from tieline.sim.exchange import ADMIN, SimExchange
from tieline.sim.gangs import Stops
from tieline.sim.network import Network, Stream
from tieline.sim.owner import SimOwner
from tieline.sim.revocation import revoke
from tieline.sim.settling import hold_bills
from tieline.sim.sharing import Waits
from tieline.sim.site import SimSite
from tieline.sim.story import Story
from tieline.sim.timeline import START_MS, Chronicle, Timeline
from tieline.sim.topology import links_of, prefix_of, wanted_of
from tieline.sim.truth import Truth
from tieline.sim.user import SimUser
from tieline.sim.violation import Checks
from tieline.site import Pool

GB = 10**9
LOOK_EVERY = 12  # turns of an exchange between two whole comparisons of its view with its books
SETTLE_MS = 900_000  # after the faults: every lease, retry and backoff is over by then
LOOK_MS = 4_000
CALLS_MOST = 25  # of one line in that time, when nothing happens: beats, polls, states
PRICES = (3_600_000, 7_200_001, 9_999_999, 1_800_000)


class World:
    """One simulated federation."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.timeline = Timeline()
        self.chance = Chance(story.seed)
        self.chronicle = Chronicle(self.timeline)
        self.faults: Counter[str] = Counter()
        self.checks = Checks()
        self.truth = Truth()
        self.capacity: dict[str, Amount] = {}
        self.attempts: Counter[str] = Counter()  # by request: how often it really began, anywhere
        self.defect = ""  # what the product logged of one
        self.network = Network(self.timeline, self.chance, self.chronicle, self.faults)
        self._expected: dict[str, tuple[Callable[[Any], None], Callable[[], None]]] = {}
        self._turns = 0
        self.projects: dict[str, list[str]] = {}  # exchange -> those that were made there
        self._waits: dict[str, Waits] = {}
        self._stops: dict[str, Stops] = {}
        self.begun: dict[str, None] = {}  # gangs of which a member began, anywhere
        self.exchanges: dict[str, SimExchange] = {}
        self._by_id: dict[str, SimExchange] = {}
        self.sites: dict[str, SimSite] = {}
        self.users: dict[str, SimUser] = {}
        self.owners: dict[str, SimOwner] = {}
        self.links = links_of(story.exchange_names)
        self.wanted = wanted_of(story.exchange_names)
        self._build()

    # -- building -----------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        for place, name in enumerate(self.story.exchange_names):
            exchange = self.exchanges[name] = SimExchange(self, name, prefix_of(place))
            self._by_id[exchange.id] = exchange
            self.network.nodes[name] = exchange
            self.truth.keys[exchange.keys.kid] = exchange.keys.key.public_bytes
            exchange.start()
            exchange.command(
                ask.CreateExchange(
                    id=exchange.id,
                    prefix=exchange.prefix,
                    public=exchange.keys.key.public,
                    admin_token_sha256=hashlib.sha256(name.encode()).hexdigest(),
                    session=f"{name}-1",
                )
            )
        self.advance(10)
        names = self.story.exchange_names
        for place, name in enumerate(self.story.site_names):
            self._join(name, place, names[place % len(names)])
        for place, name in enumerate(self.story.user_names):
            user = self.users[name] = SimUser(self, name, names[place % len(names)])
            self.network.nodes[name] = user
        self.advance(500)
        for one, two, role in self.links:
            self._peer(self.exchanges[one], self.exchanges[two], role)
        self.advance(2_000)
        for exchange in self.exchanges.values():
            exchange.backup = exchange.disk.backup()
        for site in self.sites.values():
            site.start()

    def _peer(self, one: SimExchange, two: SimExchange, role: PeerRole) -> None:
        """Both say yes: ``two`` is a child or an equal of ``one``."""
        back = PeerRole.PARENT if role is PeerRole.CHILD else role
        nonce = f"peer-{one.name}-{two.name}-000000"
        for command in (
            ask.TakePeering(greeting=one.greeting, role=back, nonce=nonce, at_ms=two.clock.now_ms()),
            ask.AskPeer(actor=ADMIN, greeting=one.greeting, role=back, may_use=True),
        ):
            two.command(command)
            self.advance(3)
        one.command(ask.AskPeer(actor=ADMIN, greeting=two.greeting, role=role, may_use=True))
        self.advance(3)
        one.command(ask.ChangePeer(actor=ADMIN, peer=two.id, what="confirm"))
        self.advance(3)
        one.follow(two.id)
        two.follow(one.id)

    def exchange_named(self, identifier: str) -> SimExchange:
        """The exchange with this identifier."""
        return self._by_id[identifier]

    def _join(self, name: str, place: int, exchange_name: str) -> None:
        exchange = self.exchanges[exchange_name]
        label = f"lab{name[1:]}"
        owner = SimOwner(self, f"o{name[1:]}", exchange_name, f"{exchange.prefix}.{label}")
        self.owners[name] = self.network.nodes[owner.name] = owner
        pools = pools_of(owner.prefix, name, place)
        site = SimSite(self, name, exchange_name, owner.prefix, pools)
        self.sites[name] = self.network.nodes[name] = site
        sealing = sealing_public(hashlib.sha256(f"sealing {name}".encode()).digest())
        statement = JoinStatement(
            owner=label,
            owner_public=owner.keys[0].public,
            site=name,
            site_public=site.key.public,
            sealing=sealing,
            nonce=f"join-{name}-0000000000",
            at_ms=exchange.clock.now_ms(),
        )
        signed = sign_statement(statement, owner.keys[0], owner.kid, "site-join")
        token = hashlib.sha256(f"token {name}".encode()).hexdigest()
        exchange.command(ask.CreateToken(actor=ADMIN, sha256=token, name=name, roles=(Role.JOIN,), owner=owner.prefix))
        exchange.command(ask.JoinSite(statement=signed, token_sha256=token))
        self.advance(20)
        owner.publish(
            f"site/{name}", {"tier": "edge", "region": "shanghai", "public": site.key.public, "sealing": sealing}
        )
        for pool in pools:
            count = len(pool.devices)
            cards = {"accelerator": pool.accelerator, "accelerator_count": count} if count else {}
            self.capacity[pool.id] = (len(pool.devices), pool.core_count, pool.memory_bytes)
            owner.publish(
                f"pool/{pool.id.rpartition('/')[2]}",
                {
                    "site": site.id,
                    "sandbox": pool.sandbox,
                    "core_count": pool.core_count,
                    "memory_bytes": pool.memory_bytes,
                    "price_micro_cny_per_accelerator_hour": pool.price_micro_cny_per_unit_hour,
                    **cards,
                },
            )
        owner.publish("dataset/d0", {"size_bytes": place, "licence": "none"})

    def topology_of(self, exchange: SimExchange, rate_bps: int) -> Topology:
        """A network that joins the sites of an exchange two by two, and all of them by way of a router."""
        sites = [site for site in self.sites.values() if site.exchange == exchange.name]
        nodes = (Node(name="hub"), *(Node(name=site.name, site=site.id) for site in sites))
        pairs = [(site.name, "hub") for site in sites]
        pairs += [(one.name, two.name) for at, one in enumerate(sites) for two in sites[at + 1 :]]
        links = (Link(name=f"{a}-{b}", a=a, b=b, capacity_bps=rate_bps, delay_us=1_000) for a, b in pairs)
        return Topology(name=exchange.name, nodes=nodes, links=tuple(links))

    def number_of(self, name: str) -> int:
        """A seed for the names that a node gives."""
        return int.from_bytes(hashlib.sha256(f"{self.story.seed} {name}".encode()).digest()[:6], "big")

    def now_s(self) -> int:
        """True time."""
        return (START_MS + self.timeline.now_ms) // 1000

    # -- time ---------------------------------------------------------------------------------------------------------

    def advance(self, ms: int) -> None:
        """Let ``ms`` pass."""
        until_ms = self.timeline.now_ms + ms
        while self.timeline.run(until_ms):
            pass

    # -- streams ------------------------------------------------------------------------------------------------------

    def expect_stream(self, bearer: str, heard: Callable[[Any], None], broken: Callable[[], None]) -> None:
        """Who will read the stream of the session that ``bearer`` opens."""
        self._expected[bearer] = (heard, broken)

    def stream(self, source: str, target: str, bearer: str) -> Stream:
        """The stream of a session that was just opened."""
        heard, broken = self._expected.pop(bearer, (lambda _: None, lambda: None))
        return Stream(self.network, source, target, heard, broken)

    def said_ok(self, site_id: str, run: str) -> None:
        """An exchange answered an acceptance with ok (whether or not the answer arrives)."""
        site = self.sites[site_id.rpartition("/")[2]]
        site.said_ok[run] = None
        books = self.exchanges[site.exchange].books
        self.checks.hold("no member starts before all are accepted", books.gangs.may_start(books.runs[run]), run)

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check_site(self, site: SimSite) -> None:
        """Of what really runs at a site: no card, core or byte for two, and of one job one epoch."""
        hold = self.checks.hold
        running = site.running
        for pool in site.pools:
            here = [process for process in running if process.offer.pool == pool.id]
            devices = [device for process in here for device in process.devices]
            hold("no card is sold twice", len(devices) == len(dict.fromkeys(devices)), site.name, devices)
            hold("no card is sold twice", all(device in pool.devices for device in devices), site.name, devices)
            cores = sum(process.offer.core_count for process in here)
            memory = sum(process.offer.memory_bytes for process in here)
            hold("no core or byte is sold twice", cores <= pool.core_count, site.name, cores, pool.core_count)
            hold("no core or byte is sold twice", memory <= pool.memory_bytes, site.name, memory)
        attempts = dict.fromkeys((process.offer.job, process.offer.epoch) for process in running)
        alone = [process.offer.job for process in running if process.offer.part is None]
        hold(
            "of a job one run runs at a site",
            len(attempts) == len(dict.fromkeys(job for job, _ in attempts)) and len(alone) == len(dict.fromkeys(alone)),
            site.name,
            [process.offer.run for process in running],
        )

    def looked(self, exchange: SimExchange) -> None:
        """After a batch of an exchange; now and then its whole view is compared."""
        self._turns += 1
        if self._turns % LOOK_EVERY == 0:
            self.compare(exchange)

    def compare(self, exchange: SimExchange) -> None:
        """The view with the books, the acknowledged with the known, the waiting with their reasons."""
        hold, view, books, name = self.checks.hold, exchange.view, exchange.books, exchange.name
        waiting = [job for job in books.jobs if job not in books.ended]
        hold("no acknowledged job is lost", sorted(view.jobs) == sorted(waiting), name)
        for job in exchange.acknowledged:
            hold("no acknowledged job is lost", job in books.jobs, name, job)
        hold("live runs are those of the books", sorted(view.runs) == sorted(books.live_runs), name)
        for pool, held in books.held.items():
            if view.supply.pools.get(pool) is not None:
                hold("holds are those of the books", tuple(view.supply.pools.held(pool)) == held, name, pool)
        charged = sum(usage.charge_micro_cny for usage in books.usages.values())
        hold("money is conserved", charged == view.charged_micro_cny, name, charged, view.charged_micro_cny)
        for job in waiting:
            after = view.jobs[job].after
            hold("no job waits for what is over", not after or after not in books.ended, name, job, after)
            self.explained(exchange, job)
        self._waits.setdefault(name, Waits()).look(exchange, hold, self.timeline.now_ms)
        self._stops.setdefault(name, Stops()).look(exchange, hold, self.timeline.now_ms)
        if any(gang.is_over for gang in view.gangs.values()) and not exchange.disk.is_full:
            exchange.hold_restart()  # it is seldom that one crashes just then

    def explained(self, exchange: SimExchange, job: str) -> None:
        """Whoever asks why a job is where it is hears a reason."""
        now_ms = exchange.clock.now_ms()
        command = ask.WhyJob(actor=ADMIN, job=job)
        try:
            why = exchange_decide(exchange, command, now_ms)
        except TielineError as error:
            self.checks.hold("every waiting job is explained", False, exchange.name, job, error)
            return
        self.checks.hold("every waiting job is explained", bool(why.reasons), exchange.name, job, why.state)

    # -- the end ------------------------------------------------------------------------------------------------------

    def calm(self) -> None:
        """The faults are over: wires, disks and clocks are mended, whoever is down comes back."""
        self.network.calm()
        for exchange in self.exchanges.values():
            exchange.disk.is_full = False
            exchange.disk.dies = ""
            exchange.clock.skew_ms = 0
        for site in self.sites.values():
            site.lies.clear()
            site.is_full = False
            site.dies_after = None
            site.clock.skew_ms = 0

    def is_settled(self) -> bool:
        """Whether nothing is on its way any more; jobs may wait, for stated reasons."""
        for exchange in self.exchanges.values():
            if not exchange.is_up or exchange.view.runs or not all(each.is_idle for each in exchange.callers.values()):
                return False
        if any(user.waiting for user in self.users.values()) or not all(o.is_done for o in self.owners.values()):
            return False
        for site in self.sites.values():
            if not (site.is_up and site.bearer) or site.state.runs or site.state.owed or site.running:
                return False
        now_ms = self.timeline.now_ms + START_MS
        return not difference(self) and not any(
            job.state is not JobState.QUEUED or (not job.after and job.eligible_ms > now_ms)
            for exchange in self.exchanges.values()
            for job in (exchange.view.jobs[name] for name in sorted(exchange.view.jobs))
        )

    def settle(self) -> None:
        """Good days until everything has ended; then whatever is left over is a violation."""
        self.calm()
        self.advance(30_000)
        self._mend_faith()
        self.advance(30_000)
        for owner in self.owners.values():
            if owner.is_to_renew:
                revoke(self, owner)  # an exchange that was set back may have forgotten it
        self.advance(2_000)
        for owner in self.owners.values():
            owner.publish_again()
        left_ms = SETTLE_MS
        calm_for = 0
        while left_ms > 0 and calm_for < 3:
            if any(peer.fault for exchange in self.exchanges.values() for peer in exchange.view.peers.values()):
                self._mend_faith()  # proof of what was done before may come late
            calls = self.network.calls
            self.advance(LOOK_MS)
            left_ms -= LOOK_MS
            calm_for = calm_for + 1 if self.is_settled() else 0
            if calm_for > 1:
                calls = self.network.calls - calls
                most = CALLS_MOST * (len(self.sites) + 2 * len(self.links))
                self.checks.hold("a calm world is quiet", calls <= most, calls, "calls in", LOOK_MS, "ms")
        self._hold_end(is_settled=calm_for >= 3)

    def _mend_faith(self) -> None:
        """Operators look: whoever was set back begins its logs anew, and who was blamed for it is forgiven."""
        for exchange in self.exchanges.values():
            if exchange.is_set_back:
                exchange.renew()
        self.advance(1_000)
        for exchange in self.exchanges.values():
            for peer in exchange.view.peers.values():
                if peer.fault is not None:
                    self.faults["peer forgiven"] += 1
                    exchange.command(ask.ChangePeer(actor=ADMIN, peer=peer.id, what="clear"))
                    exchange.followers[self.exchange_named(peer.id).name].feel(follow.Cleared())

    def _hold_end(self, *, is_settled: bool) -> None:
        hold = self.checks.hold
        for site in self.sites.values():
            hold("a site comes back", site.is_up and bool(site.bearer), site.name)
            hold(
                "what runs comes to an end", not site.state.runs and not site.running, site.name, list(site.state.runs)
            )
            hold("what is owed is told", not site.state.owed and not site.outbox, site.name, list(site.outbox))
        for exchange in self.exchanges.values():
            hold("an exchange comes back", exchange.is_up, exchange.name)
            hold("what runs comes to an end", not exchange.view.runs, exchange.name, list(exchange.view.runs))
            joins = exchange.view.network.joins
            hold("no circuit lives without its gang", not joins and not exchange.view.gangs, exchange.name, joins)
            self.compare(exchange)
        for user in self.users.values():
            hold("every request is answered", not user.waiting, user.name, list(user.waiting))
        hold("catalogues converge", not (found := difference(self)), found)
        hold_bills(self)
        hold("everything settles", is_settled, "it has not")
        for owner in self.owners.values():
            self._hold_records(self.exchanges[owner.exchange], owner)

    def _hold_records(self, exchange: SimExchange, owner: SimOwner) -> None:
        for identifier, pages in owner.pages.items():
            head = exchange.view.catalogue.head(identifier)
            self.checks.hold(
                "catalogues converge",
                identifier in owner.disputed or (head is not None and head.rev == pages[-1].record.rev),
                exchange.name,
                identifier,
                "is at",
                head.rev if head else None,
                "its owner at",
                pages[-1].record.rev,
            )

    # -- the whole ----------------------------------------------------------------------------------------------------

    @property
    def sha256(self) -> str:
        """Of the whole history: everything that was noted, and the head of every log."""
        digest = hashlib.sha256(self.chronicle.sha256.encode())
        for exchange in self.exchanges.values():
            digest.update(exchange.disk.position()[1])
        return digest.hexdigest()


def exchange_decide(exchange: SimExchange, command: ask.Command, now_ms: int) -> Any:
    """A question that changes nothing."""
    return decide(exchange.view, command, now_ms, exchange.ids).reply


def pools_of(owner: str, name: str, place: int) -> tuple[Pool, ...]:
    """Cards at two of three sites, cores at all."""
    cores = Pool(
        id=f"{owner}/pool/{name}-cores", owner=owner, core_count=4 + place % 3 * 2, memory_bytes=64 * GB,
        sandbox="bubblewrap", price_micro_cny_per_unit_hour=PRICES[place % 4],
    )  # fmt: skip
    if place % 3 == 2:
        return (cores,)
    cards = Pool(
        id=f"{owner}/pool/{name}-cards", owner=owner, accelerator="a100", devices=(1, 3, 5, 7)[: 2 + place % 3],
        core_count=16, memory_bytes=64 * GB, sandbox="bubblewrap", price_micro_cny_per_unit_hour=PRICES[place % 4] * 10,
    )  # fmt: skip
    return (cards, cores)
