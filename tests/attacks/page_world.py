"""A region that follows a hub which holds the records of two labs: where the attacks on pages happen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "exchange"))

from replica_world import START_MS, Exchange, Owner

from tieline.exchange.commands import PageTaken, TakePage
from tieline.model.error import TielineError
from tieline.model.record import Status
from tieline.ports import FakeClock
from tieline.registry import opened

LAB, NEIGHBOUR = "cn.lab0", "cn.lab1"
replace = msgspec.structs.replace


@dataclass
class PageWorld:
    """The hub, what the labs signed, and the region before it has taken anything of the labs."""

    clock: FakeClock = field(default_factory=lambda: FakeClock(at_ms=START_MS))

    def __post_init__(self) -> None:
        self.hub = Exchange("cn", self.clock)
        self.region = Exchange("eu", self.clock)
        parent = Owner("cn")
        self.lab, self.neighbour = Owner(LAB), Owner(NEIGHBOUR)
        self.hub.store(parent.give("lab0", max_records=40), parent.give("lab1", max_records=40))
        self.old = [self.lab.write(f"dataset/d{n:02}", size_bytes=n) for n in range(25)]
        self.hub.store(*self.old)
        self.hub.store(*[self.neighbour.write(f"dataset/e{n:02}", size_bytes=n) for n in range(8)])
        self.hub.store(self.lab.write("dataset/d03", size_bytes=303))
        self.hub.store(self.lab.write("dataset/d04", status=Status.WITHDRAWN))
        self.hub.store(*[self.lab.write("pool/gone", days=1), self.lab.write("pool/gone", status=Status.WITHDRAWN)])
        self.region.know(self.hub)
        self.delegations = [parent.latest[name] for name in sorted(parent.latest)]

    def latest(self, owner: Owner) -> list[bytes]:
        """What an owner holds now, in order of identifier."""
        return [owner.latest[name] for name in sorted(owner.latest)]

    def delegated(self) -> None:
        """The region knows who the labs are."""
        self.page("cn", self.delegations)

    def taken(self) -> None:
        """The region holds what the hub holds."""
        self.delegated()
        for prefix, owner in ((LAB, self.lab), (NEIGHBOUR, self.neighbour)):
            reply = self.page(prefix, self.latest(owner))
            assert not reply.refused, reply

    def page(self, prefix: str, envelopes: list[bytes], *, serial: int = 90, **more: Any) -> PageTaken:
        command = TakePage(
            peer=self.hub.id, prefix=prefix, session="s", serial=serial, envelopes=tuple(envelopes), **more
        )  # fmt: skip
        reply = self.region.do(command)
        assert isinstance(reply, PageTaken)
        return reply

    def honest(self) -> str:
        """Empty when all that the region holds of the labs is what they signed last, as far as it came."""
        held = self.region.heads()
        for prefix, owner in ((LAB, self.lab), (NEIGHBOUR, self.neighbour)):
            signed = {name: digest_of(data) for name, data in owner.latest.items()}
            for name, digest in held.items():
                if name.partition("/")[0] == prefix and signed.get(name) != digest:
                    return f"{name} is not what its owner signed last"
        return ""


def digest_of(envelope: bytes) -> str:
    return opened(envelope).sha256.hex()


class Attack(NamedTuple):
    name: str
    verdict: str
    run: Callable[[PageWorld], str]


def told(reply: PageTaken) -> str:
    """What a page came to, in words: how many were stored, and every rule that refused one."""
    rules = " ".join(f"{rule}={count}" for rule, count in sorted(reply.refused.items()))
    parts = [f"stored={reply.stored}", rules]
    parts += ["proved"] if reply.is_proved else []
    parts += ["parked"] if reply.parked else []
    parts += [f"proof={reply.equivocations}"] if reply.equivocations else []
    return " ".join(part for part in parts if part)


def caught(run: Callable[[], object]) -> str:
    """The reason of a refusal of the whole."""
    try:
        return f"not refused: {run()}"
    except TielineError as error:
        return error.reasons[0].code if error.reasons else error.code


def changed_byte(envelope: bytes, at: int = 40) -> bytes:
    """One digit of the payload is another."""
    other = b"B" if envelope[at : at + 1] != b"B" else b"C"
    return envelope[:at] + other + envelope[at + 1 :]


def changed_signature(envelope: bytes) -> bytes:
    at = len(envelope) - 30
    return changed_byte(envelope, at)
