"""What is done with an owner's checkpoint over its log."""

from __future__ import annotations

from hashlib import sha256

import msgspec
from page_world import (
    LAB,
    NEIGHBOUR,
    PageWorld,
    caught,
    changed_signature,
    told,
)
from replica_world import START_MS, Owner, key_of

from tieline.model.record import Status
from tieline.registry.pages import CHECKPOINT_NAME, checkpoint_of, page_of

replace = msgspec.structs.replace


def good_checkpoint(world: PageWorld) -> str:
    world.delegated()
    return told(world.page(LAB, world.latest(world.lab), checkpoint=world.lab.checkpoint(100), page=0))


def old_checkpoint(world: PageWorld) -> str:
    """An outdated checkpoint over pages as they were then: true once, and not the owner's word any more."""
    world.delegated()
    records = world.latest(world.lab)
    first = world.lab.checkpoint(100)
    second = world.lab.checkpoint(50)
    world.page(LAB, [second])
    return told(world.page(LAB, records, checkpoint=first, page=0))


def withdrawn_checkpoint(world: PageWorld) -> str:
    world.delegated()
    records = world.latest(world.lab)
    first = world.lab.checkpoint(100)
    world.page(LAB, [world.lab.write(CHECKPOINT_NAME, status=Status.WITHDRAWN)])
    return told(world.page(LAB, records, checkpoint=first, page=0))


def forged_checkpoint(world: PageWorld) -> str:
    """The peer signs digests of pages that it changed, in the owner's name."""
    world.delegated()
    records = [changed_signature(each) for each in world.latest(world.lab)]
    body = page_of(records)
    digest = {"first": "dataset/d00", "count": len(records), "sha256": sha256(body).hexdigest()}
    spec = {"count": len(records), "pages": [digest]}
    checkpoint = Owner(LAB).forge(CHECKPOINT_NAME, spec=spec, key=key_of("thief"))
    return told(world.page(LAB, records, checkpoint=checkpoint, page=0))


def checkpoint_of_neighbour(world: PageWorld) -> str:
    """The neighbour signs digests of the lab's pages, changed by it."""
    world.delegated()
    records = [changed_signature(each) for each in world.latest(world.lab)]
    digest = {"first": "dataset/d00", "count": len(records), "sha256": sha256(page_of(records)).hexdigest()}
    checkpoint = Owner(NEIGHBOUR).forge(CHECKPOINT_NAME, spec={"count": len(records), "pages": [digest]})
    return told(world.page(LAB, records, checkpoint=checkpoint, page=0))


def swapped_page(world: PageWorld) -> str:
    world.delegated()
    records = world.latest(world.lab)
    checkpoint = world.lab.checkpoint(10)
    return told(world.page(LAB, [changed_signature(each) for each in records[:10]], checkpoint=checkpoint, page=1))


def page_out_of_range(world: PageWorld) -> str:
    world.delegated()
    records = world.latest(world.lab)
    return told(world.page(LAB, records, checkpoint=world.lab.checkpoint(100), page=7))


def checkpoint_over_others(world: PageWorld) -> str:
    """The lab's own checkpoint lists the neighbour's records: a signature for others proves nothing of theirs."""
    world.delegated()
    records = [changed_signature(each) for each in world.latest(world.neighbour)]
    digest = {"first": "dataset/e00", "count": len(records), "sha256": sha256(page_of(records)).hexdigest()}
    checkpoint = world.lab.write(CHECKPOINT_NAME, count=len(records), pages=[digest])
    return told(world.page(LAB, records, checkpoint=checkpoint, page=0))


def checkpoint_of_what_one_did_not_write(world: PageWorld) -> str:
    """An owner is shown a record that it never signed, and asked to sign a page with it."""
    forged = Owner(LAB).forge("dataset/planted", key=key_of("thief"))
    records = [*world.latest(world.lab), forged]
    keys = {f"{LAB}#exchange": key_of(LAB).public}
    return caught(lambda: checkpoint_of(LAB, records, keys, START_MS // 1000))
