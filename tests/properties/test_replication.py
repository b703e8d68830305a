"""Replication is free of order and repetition: whatever pages are shuffled, doubled, cut and mixed with what an owner
says itself, everybody ends with the newest revision of everything, and what was withdrawn stays withdrawn.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "exchange"))

from replica_world import START_MS, Exchange, Owner

from tieline.exchange.commands import TakePage
from tieline.model.error import TielineError
from tieline.model.record import Status
from tieline.ports import FakeClock
from tieline.registry import opened
from tieline.registry.pages import page_of, whole_page

LAB = "cn.lab0"
CALLS = some.lists(some.tuples(some.integers(0, 4), some.sampled_from(["say", "say", "say", "withdraw"])), max_size=14)


def history(calls: list[tuple[int, str]]) -> tuple[Owner, list[bytes]]:
    """What an owner signs over time, and everything of it in order."""
    owner = Owner(LAB)
    signed: list[bytes] = []
    gone: dict[str, None] = {}
    for turn, (number, call) in enumerate(calls):
        name = f"dataset/d{number}"
        if name in gone:
            continue
        if call == "withdraw" and f"{LAB}/{name}" in owner.latest:
            gone[name] = None
            signed.append(owner.write(name, status=Status.WITHDRAWN))
        else:
            signed.append(owner.write(name, size_bytes=turn))
    return owner, signed


def follower() -> Exchange:
    clock = FakeClock(at_ms=START_MS)
    hub, region = Exchange("cn", clock), Exchange("eu", clock)
    region.know(hub)
    region.do(page("cn", [Owner("cn").give("lab0")], 1))
    return region


def page(prefix: str, envelopes: list[bytes], serial: int, **more: Any) -> TakePage:
    return TakePage(
        peer="cn/exchange/main", prefix=prefix, session="s", serial=serial, envelopes=tuple(envelopes), **more
    )


@settings(max_examples=60, deadline=None)
@given(calls=CALLS, data=some.data())
def test_any_order_of_pages_ends_in_the_newest_revisions(calls: list[tuple[int, str]], data: Any) -> None:
    owner, signed = history(calls)
    region = follower()
    served = data.draw(some.permutations(signed + signed[::2]), label="served")
    serial = 0
    while served:
        size = data.draw(some.integers(1, 5), label="size")
        serial += 1
        reply = region.do(page(LAB, served[:size], serial))
        assert not reply.refused
        served = served[size:]
        assert len(region.heads(LAB)) <= 5
    assert region.heads(LAB) == {name: opened(envelope).sha256.hex() for name, envelope in owner.latest.items()}


@settings(max_examples=40, deadline=None)
@given(calls=CALLS.filter(bool), data=some.data())
def test_a_page_that_was_cut_or_exchanged_is_seen_whole_or_not_at_all(calls: list[tuple[int, str]], data: Any) -> None:
    _, signed = history(calls)
    from hashlib import sha256

    body = page_of(signed)
    digest = sha256(body).hexdigest()
    assert whole_page(body, len(signed), digest) == tuple(signed)
    at = data.draw(some.integers(0, len(body) - 1))
    for broken in (body[:at], body[:at] + b"~" + body[at + 1 :], body + body, body[at:]):
        if broken == body:
            continue
        with pytest.raises(TielineError) as caught:
            whole_page(broken, len(signed), digest)
        assert caught.value.code == "page_refused"


@settings(max_examples=40, deadline=None)
@given(calls=CALLS, later=CALLS, data=some.data())
def test_checkpoints_and_records_one_by_one_end_alike(
    calls: list[tuple[int, str]], later: list[tuple[int, str]], data: Any
) -> None:
    """A checkpoint proves pages of its day; what came since, in any mixture with it, wins by its revision."""
    owner, signed = history(calls)
    before = [owner.latest[name] for name in sorted(owner.latest)]
    checkpoint = owner.checkpoint(page_records=3)
    since = []
    for turn, (number, _) in enumerate(later):
        envelope = owner.latest.get(f"{LAB}/dataset/d{number}")
        if envelope is None or opened(envelope).record.status is not Status.WITHDRAWN:
            since.append(owner.write(f"dataset/d{number}", size_bytes=100 + turn))
    pages = [(before[at : at + 3], at // 3) for at in range(0, len(before), 3)]
    steps: list[tuple[list[bytes], int]] = [*pages, *[([each], -1) for each in (*signed, *since, checkpoint)]]
    region = follower()
    proved = 0
    for serial, (envelopes, number) in enumerate(data.draw(some.permutations(steps), label="steps"), 1):
        proof = {"checkpoint": checkpoint, "page": number} if number >= 0 else {}
        reply = region.do(page(LAB, envelopes, serial, **proof))
        assert not reply.refused
        proved += reply.is_proved
    assert proved == len(pages)
    assert region.heads(LAB) == {name: opened(envelope).sha256.hex() for name, envelope in owner.latest.items()}
