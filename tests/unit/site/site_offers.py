"""Offers, pools and states for the tests of a site."""

from __future__ import annotations

from typing import Any

import msgspec

from tieline.model.protocol import Ask, Offer
from tieline.model.task import Resources, Task
from tieline.site import Pool, SiteState, step
from tieline.site.instruction import Instruction
from tieline.site.stimulus import Ordered, Stimulus

OWNER = "cn.demo.lab7"
SITE = f"{OWNER}/site/gz1"
NOW_MS = 1_700_000_000_000


def pool(**fields: Any) -> Pool:
    """Four cards, eight cores, at 20 CNY an hour, in a sandbox."""
    values: dict[str, Any] = {
        "id": f"{OWNER}/pool/a100",
        "owner": OWNER,
        "accelerator": "a100",
        "devices": (0, 1, 2, 3),
        "core_count": 8,
        "memory_bytes": 64 * 10**9,
        "disk_bytes": 10**12,
        "price_micro_cny_per_unit_hour": 20_000_000,
        "sandbox": "bubblewrap",
        "networks": ("host", "none"),
    }
    return Pool(**(values | fields))


def cores(**fields: Any) -> Pool:
    """Eight cores without a sandbox."""
    return pool(
        **(
            {"id": f"{OWNER}/pool/cores", "accelerator": "", "devices": (), "sandbox": "", "networks": ("host",)}
            | fields
        )
    )


def state(*pools: Pool, **fields: Any) -> SiteState:
    """A site with these pools and no runs."""
    return SiteState(site=SITE, pools={each.id: each for each in pools or (pool(),)}, **fields)


def offer(run: str = "j-1.1", **fields: Any) -> Offer:
    """One card for one node, by the rules of `pool()`."""
    job, _, epoch = run.rpartition(".")
    task_fields = {name: fields.pop(name) for name in list(fields) if name in Task.__struct_fields__}
    resources = task_fields.pop("resources", (Resources(accelerator="a100", accelerator_count=1),))
    values: dict[str, Any] = {
        "run": run,
        "job": f"cn.demo/job/{job}",
        "epoch": int(epoch),
        "pool": f"{OWNER}/pool/a100",
        "task": Task(run="true", resources=resources, **task_fields),
        "alternative": 0,
        "user": "alice",
        "user_owner": "cn.demo.uni",
        "accelerator_count": task_fields.get("nodes", 1),
        "price_micro_cny_per_unit_hour": 20_000_000,
    }
    return Offer(**(values | fields))


def core_offer(run: str = "j-1.1", **fields: Any) -> Offer:
    """One core, trusted, by the rules of `cores()`."""
    values: dict[str, Any] = {
        "pool": f"{OWNER}/pool/cores",
        "resources": (Resources(core_count=1),),
        "accelerator_count": 0,
        "core_count": fields.get("nodes", 1),
        "is_trusted": True,
    }
    return offer(run, **(values | fields))


def ask(**fields: Any) -> Ask:
    """A question for one card."""
    values: dict[str, Any] = {
        "quote": "q-1",
        "pool": f"{OWNER}/pool/a100",
        "task": Task(run="true", resources=(Resources(accelerator="a100", accelerator_count=1),)),
        "alternative": 0,
        "user": "alice",
        "user_owner": "cn.demo.uni",
        "unit_count": 1,
        "price_micro_cny_per_unit_hour": 20_000_000,
    }
    return Ask(**(values | fields))


class Story:
    """A site to which things happen one after the other."""

    def __init__(self, begin: SiteState | None = None) -> None:
        self.state = begin or state()
        self.now_ms = NOW_MS

    def tell(self, what: Stimulus, after_ms: int = 0) -> list[Instruction]:
        """What the site does about it."""
        self.now_ms += after_ms
        self.state, instructions = step(self.state, what, self.now_ms)
        return instructions

    def order(self, order: Any) -> list[Instruction]:
        """An order came."""
        return self.tell(Ordered(order=order))


def words(instructions: list[Instruction]) -> list[str]:
    """Instructions as short words, for tests that read as stories."""
    return [_word(msgspec.structs.asdict(each), type(each).__name__) for each in instructions]


def _word(fields: dict[str, Any], name: str) -> str:
    if name == "Send":
        report = fields["report"]
        return f"send {type(report).__name__}"
    if name == "Persist":
        return f"persist {fields['held'].phase.value}" + (" durably" if fields["is_durable"] else "")
    if name == "Halt":
        return "halt fenced" if fields["is_fenced"] else f"halt in {fields['grace_s']} s"
    return name.lower()
