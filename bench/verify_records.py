"""Verified admission: 100,000 generated valid records of every kind, all accepted, against PyNaCl's verify alone.

Both are measured on the same bytes, in turns, in CPU seconds of one core. The anchor calls libsodium's verify through
PyNaCl on messages that are laid out for it beforehand; admission does everything from the envelope's bytes on.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter, process_time

from nacl.bindings import crypto_sign_open

from bench.record_world import NOW_S, World
from bench.row import Row
from tieline.model.record import MAX_RECORD_BYTES
from tieline.registry import Catalogue, Outcome
from tieline.registry.envelope import RECORD_TYPE, taken_apart
from tieline.registry.keys import public_bytes

RECORDS = 100_000
TURNS = 10
SEED = 20_260


def run() -> list[Row]:
    """One row: accepted records per CPU second beside verified signatures per CPU second."""
    world = World(SEED, owner_count=500)
    catalogue = Catalogue([world.root])
    for delegation in world.delegations():
        catalogue.admit(delegation, NOW_S)
    publics = {f"{owner}#k1": public_bytes(world.key(owner).public) for owner in world.owners}
    accepted = 0
    rates: list[tuple[float, float, float]] = []
    each = RECORDS // TURNS
    records = world.records(RECORDS)
    for _ in range(TURNS):
        envelopes = [next(records) for _ in range(each)]
        signed = []
        for envelope in envelopes:
            parts = taken_apart(envelope, RECORD_TYPE, MAX_RECORD_BYTES)
            signed.append((parts.signed, publics[parts.kid]))
        began = process_time()
        for message, public in signed:
            crypto_sign_open(message, public)
        verify_s = process_time() - began
        began, wall = process_time(), perf_counter()
        outcomes = [catalogue.admit(envelope, NOW_S).outcome for envelope in envelopes]
        rates.append((each / (process_time() - began), each / verify_s, each / (perf_counter() - wall)))
        accepted += outcomes.count(Outcome.STORED)
    if accepted != RECORDS:
        raise AssertionError(f"{RECORDS - accepted} of {RECORDS} valid records were not accepted")
    figure, anchor, wall_rate = (median(column) for column in zip(*rates, strict=True))
    return [
        Row(
            claim="verify_records: valid records admitted",
            figure=figure,
            unit="records/s of one core",
            anchor=anchor,
            anchor_name="PyNaCl verify alone, same bytes",
            ratio=median(admitted / verified for admitted, verified, _ in rates),
            target="0.65x",
            note=f"{accepted:,} of {RECORDS:,} accepted, median of {TURNS} turns, {wall_rate:,.0f}/s wall",
        )
    ]
