from __future__ import annotations

import msgspec
import pytest

from tieline.model.limits import Limits, conflicts, reference
from tieline.model.record import MAX_LEASE_S


def test_every_limit_has_a_default_within_its_bounds_a_unit_and_a_meaning() -> None:
    rows = reference()
    assert [row.name for row in rows] == list(Limits.__struct_fields__)
    for row in rows:
        assert row.least <= row.default <= row.most, row
        assert len(row.meaning.split()) >= 3
        assert row.unit or not row.name.endswith(("_bytes", "_ms", "_s", "_days")), row
    assert {row.name: row.unit for row in rows}["upload_bytes_per_s"] == "bytes per second"


def test_the_defaults_contradict_nothing() -> None:
    assert conflicts(Limits()) == ()
    assert msgspec.convert({}, Limits) == Limits()


@pytest.mark.parametrize(
    "limits",
    [
        Limits(lease_ms=5_000),
        Limits(tick_ms=20_000),
        Limits(blob_bytes=2**50),
        Limits(log_bytes=2**50),
        Limits(peer_blobs_bytes=2**50),
        Limits(usage_days=10),
    ],
)
def test_two_limits_that_contradict_each_other_are_said(limits: Limits) -> None:
    (sentence,) = conflicts(limits)
    assert "`" in sentence


@pytest.mark.parametrize(
    "asked", [{"queue": 0}, {"tick_ms": 10**9}, {"leese_ms": 5}, {"lease_ms": "10"}, {"batch": -1}]
)
def test_a_limit_out_of_bounds_or_unknown_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(asked, Limits)


def test_records_are_remembered_longer_than_any_lease() -> None:
    (row,) = [row for row in reference() if row.name == "record_days"]
    assert row.least * 86_400 > MAX_LEASE_S
