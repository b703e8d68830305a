"""Story: what is to happen in a world, as a list that can be kept, cut down and played again.

A story is made from a seed and nothing else. Everything that is not in it (the fate of each message, a backoff) is
drawn from the seed too, by concern, so that a story with some happenings left out plays the rest much as before.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec

from tieline.sim.chance import Chance

BURST_MS = 25_000  # within which a project has more work than usual
FILLING = 8  # jobs of it that take what cards there are
HORIZON_MS = 90_000  # everything of a story begins before this; then the faults end


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a task asks for, and how it goes."""

    steps: int = 1  # more than one: a pipeline
    nodes: int = 1
    cards: int = 0  # per node
    cores: int = 1  # per node
    duration_ms: int = 2_000
    exit_codes: tuple[int, ...] = (0,)
    retries: int = 0
    recovers: bool = False  # exit code 75 means: again
    budget_micro_cny: int = 0
    deadline_s: int = 0
    max_duration_s: int = 0
    priority: int = 0
    has_checkpoint: bool = False
    has_outputs: bool = False
    spans: bool = False  # its nodes may stand at several sites
    rate_bps: int = 0  # between every two of them
    project: int = 1  # of those that its user is in, in the order in which they were made


class Happening(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happens at ``at_ms``; ``what`` is a row of `HAPPENINGS`. Unused fields mean nothing."""

    at_ms: int
    what: str
    node: str = ""
    other: str = ""
    for_ms: int = 0
    number: int = 0
    shape: Shape | None = None


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """A world of a size, and what happens in it."""

    seed: int
    exchanges: int
    sites: int
    users: int
    happenings: tuple[Happening, ...]
    horizon_ms: int = HORIZON_MS

    @property
    def exchange_names(self) -> list[str]:
        """``x1`` is the hub; industry exchanges hang on several regions."""
        return [f"x{number}" for number in range(1, self.exchanges + 1)]

    @property
    def site_names(self) -> list[str]:
        """``s1`` on."""
        return [f"s{number}" for number in range(1, self.sites + 1)]

    @property
    def user_names(self) -> list[str]:
        """``u1`` on."""
        return [f"u{number}" for number in range(1, self.users + 1)]


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How large a world is, and how much happens."""

    exchanges: int = 3
    sites: int = 5
    users: int = 3
    steps: int = 60


class Kind(msgspec.Struct, frozen=True):
    """One row of the table: how likely, where it happens, how long and how much, and how it is told."""

    weight: int
    node: str  # site, exchange, user, any, or nothing
    told: str
    is_fault: bool = True
    other: str = ""
    for_ms: tuple[int, int] = (0, 0)
    number: tuple[int, int] = (0, 0)


HAPPENINGS: dict[str, Kind] = {
    # what people do
    "submit": Kind(300, "user", "{node} submits {shape}", is_fault=False),
    "stop": Kind(20, "user", "{node} stops one of its jobs", is_fault=False, number=(0, 1_000)),
    "ask": Kind(20, "user", "{node} asks for a quote and takes it", is_fault=False),
    "revise": Kind(30, "site", "the owner of {node} publishes a record anew", is_fault=False, number=(0, 1_000)),
    "withdraw": Kind(8, "site", "the owner of {node} withdraws a record", is_fault=False, number=(0, 1_000)),
    "drain": Kind(8, "site", "{node} drains for {for_s}", is_fault=False, for_ms=(2_000, 20_000)),
    "reclaim": Kind(10, "site", "the owner of {node} wants a card back", is_fault=False, number=(0, 1_000)),
    "backup": Kind(20, "exchange", "{node} is backed up", is_fault=False),
    "project": Kind(0, "exchange", "the admin of {node} makes or changes a project ({number})", is_fault=False,
                    number=(0, 10_000)),
    "network": Kind(0, "exchange", "the operator of {node} says what joins its sites ({number})", is_fault=False,
                    number=(0, 1_000)),
    # wires
    "loss": Kind(14, "any", "{number} of 1000 messages around {node} are lost for {for_s}",
                 for_ms=(2_000, 20_000), number=(50, 600)),
    "delay": Kind(10, "any", "messages around {node} take {number} ms longer for {for_s}",
                  for_ms=(2_000, 20_000), number=(50, 4_000)),
    "duplication": Kind(12, "any", "{number} of 1000 messages around {node} come twice for {for_s}",
                        for_ms=(5_000, 30_000), number=(100, 700)),
    "reordering": Kind(12, "any", "messages around {node} overtake each other by up to {number} ms for {for_s}",
                       for_ms=(5_000, 30_000), number=(50, 3_000)),
    "partition": Kind(14, "any", "{node} and {other} are cut apart for {for_s}", other="any", for_ms=(1_000, 30_000)),
    "one way cut": Kind(10, "any", "nothing passes from {node} to {other} for {for_s}",
                        other="any", for_ms=(1_000, 20_000)),
    "clog": Kind(8, "exchange", "the links of {node} clog one after the other within {for_s}", for_ms=(4_000, 20_000)),
    "slow": Kind(8, "exchange", "{node} takes {number} ms longer for everything for {for_s}",
                 for_ms=(3_000, 20_000), number=(100, 3_000)),
    "link cut": Kind(0, "exchange", "a link between sites of {node} is down for {for_s} ({number})",
                     for_ms=(2_000, 30_000), number=(0, 1_000)),
    # machines
    "crash": Kind(16, "any", "{node} crashes for {for_s}", for_ms=(100, 25_000)),
    "crash in a step": Kind(10, "site", "{node} dies after {number} instructions of its next step", number=(0, 3)),
    "crash in a commit": Kind(10, "exchange", "{node} dies while it keeps a batch", number=(0, 1)),
    "disk loss": Kind(5, "site", "{node} loses its machine for {for_s}", for_ms=(1_000, 20_000)),
    "rollback": Kind(4, "exchange", "{node} loses its disk and is restored from its last backup ({number}: noticed)",
                     for_ms=(500, 9_000), number=(0, 1)),
    "full disk": Kind(6, "exchange", "the disk of {node} is full for {for_s}", for_ms=(500, 8_000)),
    "full journal": Kind(5, "site", "the journal of {node} cannot be written for {for_s}", for_ms=(500, 8_000)),
    "skew": Kind(8, "any", "the clock of {node} jumps by {number} ms", number=(-20_000, 20_000)),
    # liars
    "over-claim": Kind(6, "site", "{node} claims more than was used for {for_s}", for_ms=(5_000, 40_000)),
    "late refusal": Kind(5, "site", "{node} refuses what it accepted for {for_s}", for_ms=(2_000, 15_000)),
    "oversold beat": Kind(5, "site", "{node} offers ten times what it has for {for_s}", for_ms=(5_000, 30_000)),
    "lying relay": Kind(6, "exchange", "{node} serves changed pages for {for_s}", for_ms=(3_000, 30_000)),
    "inflated claim": Kind(5, "exchange", "{node} makes more of what its peers owe it for {for_s}",
                           for_ms=(5_000, 40_000)),
    "false report": Kind(8, "site", "{node} reports the end of a run of another site", number=(0, 1_000)),
    "double end": Kind(8, "site", "{node} reports the end of a run once more, otherwise", number=(0, 1_000)),
    "wrong epoch": Kind(8, "site", "{node} reports a run under another epoch", number=(0, 1_000)),
    "forged beat": Kind(6, "site", "a stranger beats in the name of {node}"),
    "forged record": Kind(8, "site", "a stranger publishes in the name of the owner of {node}", number=(0, 1_000)),
    "changed bytes": Kind(5, "site", "a record of the owner of {node} arrives with changed bytes", number=(0, 1_000)),
    "replayed record": Kind(8, "site", "an old revision of the owner of {node} is sent again", number=(0, 1_000)),
    "resurrection": Kind(10, "site", "the owner of {node} publishes what it had withdrawn", number=(0, 1_000)),
    "equivocation": Kind(6, "site", "the owner of {node} signs two payloads as one revision", number=(0, 1_000)),
    "stolen key": Kind(5, "site", "somebody else signs with the key of the owner of {node}", number=(0, 1_000)),
    "revocation": Kind(4, "site", "the exchange of {node} revokes the key of its owner"),
}  # fmt: skip
FAULTS = tuple(what for what, kind in HAPPENINGS.items() if kind.is_fault)


def story_of(seed: int, size: Size, faults: tuple[str, ...] = FAULTS, horizon_ms: int = HORIZON_MS) -> Story:
    """The story of ``seed``. ``faults`` are those that may happen; what people do always may."""
    empty = Story(
        seed=seed, exchanges=size.exchanges, sites=size.sites, users=size.users, happenings=(), horizon_ms=horizon_ms
    )
    pick = Chance(seed).of("story")
    kinds = [what for what, kind in HAPPENINGS.items() if not kind.is_fault or what in faults]
    weights = [HAPPENINGS[what].weight for what in kinds]
    drawn = pick.choices(kinds, weights, k=size.steps)
    happenings = [_happening(what, empty, pick) for what in drawn]
    happenings += _sharing(empty, Chance(seed).of("projects"))
    happenings += _spanning(empty, Chance(seed).of("gangs"), faults)
    happenings.sort(key=lambda each: each.at_ms)
    return msgspec.structs.replace(empty, happenings=tuple(happenings))


def _sharing(story: Story, pick: Random) -> list[Happening]:
    """In three of ten stories one exchange has projects, and its users more work than it has cards."""
    if pick.random() < 0.7 or not story.users or story.horizon_ms < HORIZON_MS:
        return []
    user = pick.choice(story.user_names)
    exchange = story.exchange_names[story.user_names.index(user) % story.exchanges]
    terms = [(100, 8 * pick.randrange(1_250) + pick.choice((4, 6))), (200, 2 * pick.randrange(5_000) + 1)]
    terms.append((pick.randrange(story.horizon_ms), pick.randrange(10_000)))
    found = [Happening(at_ms=at_ms, what="project", node=exchange, number=number) for at_ms, number in terms]
    begin_ms = pick.randrange(1_000, story.horizon_ms - BURST_MS)
    for number in range(pick.randint(FILLING + 1, FILLING + 3)):
        borrows = number < FILLING
        shape = Shape(
            cards=2 if number < FILLING // 2 else 1 if borrows else pick.choice((1, 1, 2)),
            duration_ms=30_000 if borrows else pick.choice((1_000, 3_000, 20_000)),
            priority=0 if borrows else pick.choice((0, 0, 5, 20)),
            max_duration_s=pick.choice((0, 0, 0, 30)),
            has_checkpoint=pick.random() < 0.8,
            project=1 if borrows else 0,
        )
        at_ms = begin_ms + pick.randrange(5_000) + (0 if borrows else 8_000)
        found.append(Happening(at_ms=at_ms, what="submit", node=user, shape=shape))
    return found


def _spanning(story: Story, pick: Random, faults: tuple[str, ...]) -> list[Happening]:
    """In four of ten stories users of one exchange ask for more nodes together than any of its sites has."""
    names = story.exchange_names
    owned = Counter(names[place % len(names)] for place in range(len(story.site_names)))
    users = [user for at, user in enumerate(story.user_names) if owned[names[at % len(names)]] > 1]
    if pick.random() < 0.6 or not users or story.horizon_ms < HORIZON_MS:
        return []
    user = pick.choice(users)
    exchange = names[story.user_names.index(user) % len(names)]
    found = [Happening(at_ms=150, what="network", node=exchange, number=pick.randrange(1_000))]
    for _ in range(pick.randint(4, 9)):
        cards = pick.choice((0, 0, 1))
        shape = Shape(
            nodes=pick.choice((3, 4, 4)),
            cards=cards,
            cores=1 if cards else 2,
            duration_ms=pick.choice((300, 2_000, 8_000, 20_000)),
            exit_codes=pick.choice(((0,), (0,), (0,), (1, 0), (75, 0))),
            retries=pick.choice((0, 1, 3)),
            recovers=pick.random() < 0.5,
            budget_micro_cny=pick.choice((0, 0, 400_000)),
            max_duration_s=pick.choice((0, 0, 5, 30)),
            has_checkpoint=pick.random() < 0.3,
            has_outputs=pick.random() < 0.5,
            spans=True,
            rate_bps=pick.choice((0, 10**9)),
            steps=pick.choice((1, 1, 1, 2)),
        )
        found.append(Happening(at_ms=pick.randrange(1_000, story.horizon_ms), what="submit", node=user, shape=shape))
    cuts = [_happening("link cut", story, pick) for _ in range(pick.randint(0, 2) if "link cut" in faults else 0)]
    return found + [msgspec.structs.replace(cut, node=exchange) for cut in cuts]


def _happening(what: str, story: Story, pick: Random) -> Happening:
    kind = HAPPENINGS[what]
    places = {
        "site": story.site_names,
        "exchange": story.exchange_names,
        "user": story.user_names,
        "any": [*story.exchange_names, *story.site_names],
        "": [""],
    }
    node = pick.choice(places[kind.node])
    others = [name for name in places[kind.other] if name != node] or [""]
    return Happening(
        at_ms=pick.randrange(story.horizon_ms),
        what=what,
        node=node,
        other=pick.choice(others),
        for_ms=pick.randint(*kind.for_ms),
        number=pick.randint(*kind.number),
        shape=_shape(pick) if what in ("submit", "ask") else None,
    )


def _shape(pick: Random) -> Shape:
    cards = pick.choice((0, 0, 0, 1, 2))
    codes = pick.choice(((0,), (0,), (0,), (0,), (1, 0), (75, 0), (1, 1, 1)))
    return Shape(
        steps=pick.choice((1, 1, 1, 1, 2, 3)),
        nodes=pick.choice((1, 1, 1, 2)),
        cards=cards,
        cores=pick.randint(1, 3),
        duration_ms=pick.choice((300, 1_000, 3_000, 8_000, 20_000)),
        exit_codes=codes,
        retries=pick.choice((0, 1, 3)),
        recovers=pick.random() < 0.5,
        budget_micro_cny=pick.choice((0, 0, 0, 60_000, 400_000)),
        deadline_s=pick.choice((0, 0, 0, 15, 60)),
        max_duration_s=pick.choice((0, 0, 0, 5, 30)),
        priority=pick.choice((0, 0, 0, 5, -5)),
        has_checkpoint=pick.random() < 0.3,
        has_outputs=pick.random() < 0.3,
    )


def tell(happening: Happening) -> str:
    """One happening in words."""
    shape = happening.shape
    words = {
        "node": happening.node or "everywhere",
        "other": happening.other,
        "for_s": f"{happening.for_ms / 1000:g} s",
        "number": happening.number,
        "shape": _told(shape) if shape is not None else "",
    }
    return f"{happening.at_ms / 1000:7.3f} s  {HAPPENINGS[happening.what].told.format(**words)}"


def _told(shape: Shape) -> str:
    parts = [
        f"a job of {shape.duration_ms / 1000:g} s on {shape.cards or shape.cores} {'cards' if shape.cards else 'cores'}"
    ]
    if shape.nodes > 1:
        parts.append(f"{shape.nodes} nodes")
    if shape.spans:
        parts.append("over several sites" + (f" with {shape.rate_bps // 10**6} Mbit/s" if shape.rate_bps else ""))
    if shape.steps > 1:
        parts.append(f"{shape.steps} steps")
    if any(shape.exit_codes):
        parts.append(f"exit codes {', '.join(map(str, shape.exit_codes))}")
    if shape.retries:
        parts.append(f"{shape.retries} retries")
    if shape.budget_micro_cny:
        parts.append(f"a budget of {shape.budget_micro_cny} micro-yuan")
    if shape.deadline_s:
        parts.append(f"a deadline of {shape.deadline_s} s")
    if shape.max_duration_s:
        parts.append(f"at most {shape.max_duration_s} s")
    return ", ".join(parts)
