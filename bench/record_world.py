"""A seeded registry of records of every kind: one root, two exchanges below it, owners below those."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

from tieline.model.kinds import KINDS, Writer
from tieline.model.record import DelegatedKey, Link, Record, Root
from tieline.registry import Key, sign

NOW_S = 1_790_000_000
DAY_S = 86_400
ROOT = "cn"
EXCHANGES = ("cn.sh", "cn.gz")
WORDS = ("train", "infer", "算力", "资源池", "推理", "质检", "digits", "vision", "wind", "hydro", "edge", "云")
VENDORS = {"a100": "nvidia", "h20": "nvidia", "ascend-910b": "ascend", "mlu-590": "cambricon", "": ""}


class World:
    """Keys from names, delegations from the root down, and as many valid records as asked."""

    def __init__(self, seed: int, owner_count: int) -> None:
        self.random = random.Random(seed)
        self.owners = [f"{EXCHANGES[n % len(EXCHANGES)]}.lab{n}" for n in range(owner_count)]
        self.root = Root(prefix=ROOT, keys=(self.named_key(ROOT),))

    def key(self, prefix: str) -> Key:
        """The signing key of ``prefix``."""
        return Key(hashlib.sha256(f"bench {prefix}".encode()).digest())

    def named_key(self, prefix: str) -> DelegatedKey:
        """Its public half, as a delegation states it."""
        return DelegatedKey(
            kid=f"{prefix}#k1", public=self.key(prefix).public, nb=NOW_S - 30 * DAY_S, exp=NOW_S + 400 * DAY_S
        )

    def signed(self, record: Record) -> bytes:
        """The envelope of ``record``, by the key of its prefix."""
        prefix = record.id.partition("/")[0]
        return sign(record, self.key(prefix), f"{prefix}#k1")

    def delegations(self) -> Iterator[bytes]:
        """The envelopes that give every prefix away, parents first."""
        for prefix in (*EXCHANGES, *self.owners):
            parent, _, name = prefix.rpartition(".")
            kind = "exchange" if prefix in EXCHANGES else "owner"
            spec = {
                "prefix": prefix,
                "title": f"{self.random.choice(WORDS)} {name}",
                "keys": [self.named_key(prefix)],
                "kinds": sorted(KINDS),
                "max_records": 1_000_000 if kind == "exchange" else 100_000,
            }
            yield self.signed(self._record(f"{parent}/{kind}/{name}", kind, spec))

    def records(self, count: int) -> Iterator[bytes]:
        """``count`` valid records of every kind that an owner writes, over all owners."""
        kinds = [name for name, kind in KINDS.items() if kind.writer is not Writer.PARENT]
        for number in range(count):
            owner = self.random.choice(self.owners)
            kind = self.random.choice(kinds)
            record = self._record(f"{owner}/{kind}/n{number}", kind, self._spec(kind, owner))
            yield self.signed(record)

    def _record(self, identifier: str, kind: str, spec: dict[str, Any]) -> Record:
        pick = self.random
        rev = pick.choice((1, 1, 1, 2, 17))
        links = (Link(rel="part-of", id=f"{pick.choice(self.owners)}/app/a1"),) if pick.random() < 0.2 else ()
        return Record(
            id=identifier,
            kind=kind,
            rev=rev,
            prev="" if rev == 1 else hashlib.sha256(identifier.encode()).hexdigest(),
            nb=NOW_S - pick.randrange(DAY_S),
            exp=NOW_S + DAY_S + pick.randrange(30 * DAY_S),
            spec=spec,
            links=links,
        )

    def _spec(self, kind: str, owner: str) -> dict[str, Any]:
        pick = self.random
        spec: dict[str, Any] = {
            "title": " ".join(pick.sample(WORDS, 3)),
            "description": " ".join(pick.choices(WORDS, k=12)),
            "tags": pick.sample(WORDS, 2),
            "labels": {"rack": str(pick.randrange(100))},
        }
        site = f"{owner}/site/s{pick.randrange(9)}"
        if kind == "pool":
            accelerator = pick.choice(sorted(VENDORS))
            spec |= {
                "site": site,
                "compute_class": "ai" if accelerator else "general",
                "architecture": pick.choice(("x86_64", "aarch64")),
                "accelerator": accelerator,
                "vendor": VENDORS[accelerator],
                "accelerator_count": pick.randrange(1, 9) * 8 if accelerator else 0,
                "core_count": pick.randrange(8, 512),
                "memory_bytes": pick.randrange(2**34, 2**42),
                "price_micro_cny_per_accelerator_hour": pick.randrange(10**5, 10**8),
                "energy": pick.choice(("hydro", "wind", "grid")),
                "policy": "demand.cores <= 64",
                "evidence": {"core_count": "measured"},
            }
        elif kind == "site":
            spec |= {"tier": pick.choice(("hub", "region", "edge")), "region": "shanghai"}
        elif kind == "link":
            spec |= {"ends": [site, f"{pick.choice(self.owners)}/site/s1"], "rate_bps": 10**11, "rtt_us": 900}
        elif kind in ("dataset", "model"):
            spec |= {"size_bytes": pick.randrange(2**40), "sha256": "ab" * 32, "sites": [site]}
        elif kind == "agent":
            spec |= {"url": "https://agent.example", "skills": pick.sample(WORDS, 2)}
        elif kind == "annotation":
            spec |= {"subject": f"{pick.choice(EXCHANGES)}/exchange/e1", "says": "probe", "readings": {"rtt_us": 12}}
            spec["subject"] = f"{pick.choice([o for o in self.owners if o != owner])}/site/s1"
        return spec
