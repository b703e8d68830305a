"""Secrets: sealed, outside the log, kept from the transaction that acknowledges a job to the one that ends it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tieline.drivers.stores.draft import Committed
from tieline.drivers.stores.inbox import Aside
from tieline.drivers.stores.store import Change
from tieline.exchange.commands import OfferTaken
from tieline.model.event import JobEnded
from tieline.model.protocol import Offer

MOST_SEALED_BYTES = 131_072


def kept_secret(job: str, sealed: bytes) -> Change:
    """The change that keeps the sealed secrets of ``job`` (an identifier); `Store.secret` reads them."""
    assert len(sealed) <= MOST_SEALED_BYTES, len(sealed)
    return ("secret", job, {"job": job, "sealed": sealed})


def guest_secrets(offers: Sequence[Offer]) -> Aside | None:
    """What is kept beside the jobs that a peer's offers become: sealed to the site by another exchange, opened by none.

    None where no offer has secrets.
    """
    sealed = {offer.run: offer.sealed.encode() for offer in offers if offer.sealed}

    def keep(reply: Any) -> list[Change]:
        is_new = isinstance(reply, OfferTaken) and reply.job and reply.run in sealed
        return [kept_secret(reply.job, sealed[reply.run])] if is_new else []

    return keep if sealed else None


def ended_secrets(entries: Iterable[Committed]) -> list[Change]:
    """The changes that drop the secrets of every job that ended: the writer's ``aside``."""
    return [("secret", entry.event.job, None) for entry in entries if type(entry.event) is JobEnded]
