"""What an error says where a library is missing."""

from __future__ import annotations

import asyncio
import re
import tomllib

import fsspec
import pytest

from tieline.drivers.extras import ROOT, bring
from tieline.drivers.mover.address import address_of
from tieline.drivers.mover.objects import Store
from tieline.model.error import TielineError

SOURCES = ROOT / "src" / "tieline"


def test_in_a_checkout_the_pinned_versions_are_taken_and_elsewhere_the_extra(tmp_path):
    assert bring("circuits") == f"make -C {ROOT} extras  # for `circuits`"
    assert re.search(r"^extras:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert bring("circuits", tmp_path) == "pip install 'tieline[circuits]'"


def test_every_extra_that_an_error_names_is_one_of_the_package():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name for path in SOURCES.rglob("*.py") for name in re.findall(r'bring\("([^"]+)"\)', path.read_text())}
    assert named
    assert named <= set(known)


def test_a_store_without_its_library_is_refused_with_the_command_that_brings_it(monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(TielineError) as caught:
        asyncio.run(Store(address_of("s3://bucket/key")).call("head_object"))
    assert caught.value.hints == (bring("s3"),)
