"""Secrets that pass through another exchange open at the site, for the program that they were sealed for."""

import base64

import pytest

from tieline.model.error import TielineError
from tieline.model.task import Mount, Resources, Task
from tieline.registry import seal, sealing_public
from tieline.registry.sealed import MOST_CHARACTERS, opened_for, program_of, sealed_for

PRIVATE, VALUES = b"s" * 32, {"API_KEY": "xyz", "program": "a name like any other", "values": "too"}
PUBLIC = sealing_public(PRIVATE)
TASK = Task(run="train", secrets=("API_KEY",), resources=(Resources(core_count=1, image="python:3.12"),))


def changed(**fields):
    return Task(**{"run": "train", "secrets": ("API_KEY",), "resources": TASK.resources, **fields})


def test_they_open_with_the_sites_key_for_that_program_however_much_of_it_is_booked():
    text = sealed_for(PUBLIC, VALUES, TASK, 0)
    assert opened_for(PRIVATE, text, TASK, 0) == VALUES
    assert opened_for(PRIVATE, text, changed(max_duration_s=5, resources=TASK.resources * 2), 1) == VALUES


@pytest.mark.parametrize(
    "fields",
    [
        {"run": "env"},
        {"setup": "env"},
        {"envs": {"LD_PRELOAD": "x"}},
        {"workdir": Mount(path=".", sha256="0" * 64)},
        {"mounts": (Mount(path="train", sha256="0" * 64),)},
        {"secrets": ("API_KEY", "B")},
        {"token": ("stop",)},
        {"resources": (Resources(core_count=1, image="evil"),)},
    ],
)
def test_who_carries_them_cannot_show_them_to_the_site_with_a_program_of_its_own(fields):
    other = changed(**fields)
    assert program_of(other, 0) != program_of(TASK, 0)
    with pytest.raises(TielineError, match="another program"):
        opened_for(PRIVATE, sealed_for(PUBLIC, VALUES, TASK, 0), other, 0)


def test_what_does_not_open_or_says_something_else_is_refused_with_the_same_words():
    good = sealed_for(PUBLIC, VALUES, TASK, 0)
    for text in ("", "x", "AAAA" * 30, good[:-2] + "AA", good[8:], "ä"):
        with pytest.raises(TielineError, match="do not open"):
            opened_for(PRIVATE, text, TASK, 0)
    with pytest.raises(TielineError, match="do not open"):
        opened_for(b"t" * 32, good, TASK, 0)


@pytest.mark.parametrize("content", [b"[]", b'{"values":{}}', b'{"program":"x","values":{"A":5}}', b"{", b'{"A":1}'])
def test_what_opens_and_is_no_object_of_texts_is_refused(content):
    text = base64.urlsafe_b64encode(seal(PUBLIC, content)).decode().rstrip("=")
    with pytest.raises(TielineError, match="do not open"):
        opened_for(PRIVATE, text, TASK, 0)


def test_what_is_sealed_is_bounded():
    with pytest.raises(TielineError, match="characters"):
        sealed_for(PUBLIC, {"A": "x" * MOST_CHARACTERS}, TASK, 0)
    with pytest.raises(TielineError):
        sealed_for("no key", VALUES, TASK, 0)
