"""Secrets: sealed, outside the log, kept from the transaction that acknowledges a job to the one that ends it."""

from __future__ import annotations

from collections.abc import Iterable

from tieline.drivers.stores.draft import Committed
from tieline.drivers.stores.store import Change
from tieline.model.event import JobEnded

MOST_SEALED_BYTES = 131_072


def kept_secret(job: str, sealed: bytes) -> Change:
    """The change that keeps the sealed secrets of ``job`` (an identifier); `Store.secret` reads them."""
    assert len(sealed) <= MOST_SEALED_BYTES, len(sealed)
    return ("secret", job, {"job": job, "sealed": sealed})


def ended_secrets(entries: Iterable[Committed]) -> list[Change]:
    """The changes that drop the secrets of every job that ended: the writer's ``aside``."""
    return [("secret", entry.event.job, None) for entry in entries if type(entry.event) is JobEnded]
