"""The table of kinds: every row stands for itself."""

from __future__ import annotations

import re

import msgspec
import pytest

from tieline.model.identifier import KIND
from tieline.model.kinds import KINDS, Writer
from tieline.model.spec import Spec


def test_the_kinds_of_the_design_are_there() -> None:
    assert set(KINDS) == set(
        "owner user exchange site pool link dataset model agent app endpoint annotation checkpoint".split()  # noqa: SIM905
    )


@pytest.mark.parametrize("name", KINDS)
def test_a_row_names_fields_that_its_spec_has(name: str) -> None:
    kind = KINDS[name]
    assert re.fullmatch(KIND, name)
    assert issubclass(kind.spec, Spec)
    fields = {field.name for field in msgspec.structs.fields(kind.spec)}
    assert {reference.field for reference in kind.references} <= fields
    assert set(kind.keys) <= fields
    assert kind.en
    assert re.search(r"[一-鿿]", kind.zh)


def test_an_empty_spec_is_enough_for_what_owners_describe() -> None:
    for name, kind in KINDS.items():
        if kind.writer is Writer.OWNER:
            assert msgspec.convert({}, kind.spec) == kind.spec(), name


def test_delegations_and_annotations_must_say_what_they_are_about() -> None:
    for name in ("owner", "exchange", "annotation"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({}, KINDS[name].spec)
