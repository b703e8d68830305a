"""What a peer can do to a follower."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
from page_world import (
    LAB,
    NEIGHBOUR,
    PageWorld,
)
from replica_world import Following, Owner

from tieline.model.reason import Reason
from tieline.registry import follow
from tieline.registry.pages import MAX_PAGE_BYTES, page_of
from tieline.registry.serving import (
    BucketsAnswer,
    DigestAnswer,
    LogLine,
    LogsAnswer,
    PageAnswer,
    SnapshotAnswer,
)

replace = msgspec.structs.replace


def followed(world: PageWorld, twist: Callable[[Any], Any], *, before: int = 0) -> Following:
    """Follow a peer whose answers are twisted, after ``before`` ms of honesty."""
    following = Following(world.region, world.hub)
    if before:
        following.run(until_ms=world.clock.now_ms() + before)
    following.twist = twist
    following.run(until_ms=world.clock.now_ms() + 400_000)
    return following


def seen(following: Following) -> str:
    """What is shown of the peer: the fault, or else the last error."""
    shown = follow.standing(following.state)
    if shown.fault is not None:
        assert following.blames == [shown.fault.code]
        return f"blamed {shown.fault.code}"
    return f"paused {shown.error.code}" if shown.error is not None else "well"


def on_pages(change: Callable[[PageAnswer], Any], prefix: str = LAB) -> Callable[[Any], Any]:
    """Twist the pages of one log."""
    return lambda reply: change(reply) if isinstance(reply, PageAnswer) and reply.prefix == prefix else reply


def others_arrive(world: PageWorld, verdict: str) -> str:
    """The neighbour's log is not held up by what happens to the lab's."""
    assert world.region.heads(NEIGHBOUR) == world.hub.heads(NEIGHBOUR), verdict
    return verdict


def paged(change: Callable[[PageAnswer], Any]) -> Callable[[PageWorld], str]:
    return lambda world: others_arrive(world, seen(followed(world, on_pages(change))))


def grown(reply: PageAnswer) -> PageAnswer:
    body = b"A" * (MAX_PAGE_BYTES + 1)
    return replace(reply, body=body)


def with_body(reply: PageAnswer, body: bytes, **more: Any) -> PageAnswer:
    return replace(reply, body=body, sha256=sha256(body).hexdigest(), **more)


def foreign_in_log(reply: PageAnswer) -> PageAnswer:
    body = page_of([Owner(NEIGHBOUR).forge("dataset/e00")])
    return with_body(reply, body, count=1)


def rolled_back_log(world: PageWorld) -> str:
    def shrink(reply: Any) -> Any:
        if not isinstance(reply, LogsAnswer):
            return reply
        logs = tuple(replace(log, serial=3) if log.prefix == LAB else log for log in reply.logs)
        return replace(reply, logs=logs)

    return seen(followed(world, shrink, before=50_000))


def rolled_back_head(world: PageWorld) -> str:
    return seen(
        followed(world, lambda reply: replace(reply, head=1) if isinstance(reply, LogsAnswer) else reply, before=50_000)
    )


def ever_new_sessions(world: PageWorld) -> str:
    count = [0]

    def renumber(reply: Any) -> Any:
        count[0] += 1
        return replace(reply, session=f"s{count[0]}")

    following = followed(world, renumber)
    asked = sum(following.counts.values())
    return "bounded" if asked < 5_000 else f"{asked} questions"


def many_logs(world: PageWorld) -> str:
    def multiply(reply: Any) -> Any:
        if not isinstance(reply, LogsAnswer):
            return reply
        number = int(reply.next_after.removeprefix("zz.l") or 0) if reply.next_after else 0
        lines = tuple(LogLine(prefix=f"zz.l{number * 5_000 + n:07}", serial=0) for n in range(5_000))
        return replace(reply, logs=(*reply.logs, *lines), next_after=f"zz.l{number + 1:07}")

    following = Following(world.region, world.hub)
    following.twist = multiply
    for _ in range(60):
        if following.mail:
            following.hear(following.mail.pop(0))
    return "bounded" if len(following.state.logs) <= 100_000 else f"{len(following.state.logs)} logs"


def stalled(world: PageWorld) -> str:
    following = Following(world.region, world.hub)
    following.run()
    following._ask = lambda action: None  # type: ignore[method-assign] # it takes the question and says nothing
    following.hear(follow.TailEnded(reason=Reason(code="peer_stalled")))
    following.run(until_ms=world.clock.now_ms() + 200_000)
    return seen(following)


def on_digests(change: Callable[[Any], Any]) -> Callable[[PageWorld], str]:
    """Twist what is compared, when something is missing here."""

    def run(world: PageWorld) -> str:
        following = Following(world.region, world.hub)
        following.run()
        world.region.archive.forget(f"{LAB}/dataset/d09")
        following.twist = change
        following.run(until_ms=world.clock.now_ms() + 700_000)
        return others_arrive(world, seen(following))

    return run


def bad_digest(reply: Any) -> Any:
    return replace(reply, body=reply.body[:-3]) if isinstance(reply, DigestAnswer) and reply.prefix == LAB else reply


def bad_buckets(reply: Any) -> Any:
    if not isinstance(reply, BucketsAnswer):
        return reply
    body = b"dataset/d00 not-a-hash\n"
    return replace(reply, body=body, sha256=sha256(body).hexdigest())


def endless_buckets(reply: Any) -> Any:
    return replace(reply, next_bucket=4_095) if isinstance(reply, BucketsAnswer) else reply


def lying_snapshot(world: PageWorld) -> str:
    world.hub.store(world.lab.checkpoint(10))

    def lie(reply: Any) -> Any:
        return replace(reply, pages=reply.page) if isinstance(reply, SnapshotAnswer) else reply

    return others_arrive(world, seen(followed(world, lie)))
