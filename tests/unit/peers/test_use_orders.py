"""Orders to a peer: many at once, as long as they are small, and none that holds up the others for ever."""

import asyncio
from types import SimpleNamespace

import pytest

from tieline.drivers.peers import use
from tieline.drivers.peers.use import ORDERS_BYTES, Use, batches
from tieline.model.error import TielineError
from tieline.model.protocol import Offer, PeerAnswer, PeerAnswers, Refused, Roll, Stop
from tieline.model.task import Task

ROLL = Roll(at_ms=1)


def offer(run, size=0):
    return Offer(run=run, job="j", epoch=1, pool="p", task=Task(run="x" * size), alternative=0, user="u")


class Peer:
    """Answers each request, but for those that it finds too large, and notes them."""

    def __init__(self, most=10**9, answers=None):
        self.most, self.answers, self.seen = most, answers, []

    async def call(self, _method, _path, _shape, *, body, **_):
        self.seen.append(body)
        if sum(len(getattr(order, "task", Task()).run) for order in body.orders) > self.most:
            raise TielineError("too_large", "the body is over its limit")
        return PeerAnswers(answers=(PeerAnswer(),) * (len(body.orders) if self.answers is None else self.answers))


def told(peer, *orders, roll=ROLL):
    duty = Use(SimpleNamespace(), SimpleNamespace(id="cn.b/exchange/main"), peer)
    return asyncio.run(duty._told(orders, roll))


def test_small_orders_go_in_one_request_and_large_ones_in_several_with_the_roll_in_the_first():
    peer = Peer()
    half = ORDERS_BYTES // 2
    large = [offer(f"r.{number}", min(half, 262_144)) for number in range(20)]
    assert told(peer, *large, Stop(run="s", epoch=1)) == (PeerAnswer(),) * 21
    assert 2 < len(peer.seen) < 21
    assert [body.roll for body in peer.seen] == [ROLL] + [None] * (len(peer.seen) - 1)
    assert [order.run for body in peer.seen for order in body.orders] == [*(each.run for each in large), "s"]
    few = Peer()
    told(few, *[offer(f"r.{number}") for number in range(64)])
    assert len(few.seen) == 1
    told(few)
    assert (few.seen[-1].orders, few.seen[-1].roll) == ((), ROLL)


def test_one_that_is_too_large_for_the_peer_is_refused_and_the_others_are_not(monkeypatch):
    monkeypatch.setattr(use, "ORDERS_BYTES", 1_000)
    answers = told(Peer(most=2_000), offer("small"), offer("large", 5_000), offer("last"))
    (refused,) = answers[1].reports
    assert (type(refused), refused.run, refused.reason.code) == (Refused, "large", "peer_too_large")
    assert answers[::2] == (PeerAnswer(), PeerAnswer())
    with pytest.raises(TielineError):
        told(Peer(most=-1), offer("small"))
    assert [len(batch) for batch in batches([offer("a"), offer("b", 5_000), offer("c")])] == [1, 1, 1]


def test_another_number_of_answers_than_orders_is_no_answer():
    for answers in (0, 3):
        with pytest.raises(TielineError, match="answers came"):
            told(Peer(answers=answers), offer("a"), offer("b"))
