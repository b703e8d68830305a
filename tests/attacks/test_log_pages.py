"""Every attack on pages of logs comes to its own verdict, and leaves nothing behind; the corpus is checked itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from page_corpus import ATTACKS, Attack, outcome

from tieline.exchange import replication
from tieline.registry import comparison, hearing, intake, opened, pages


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_on_a_page_comes_to_its_own_verdict(attack: Attack) -> None:
    verdict = outcome(attack)
    if attack.name == "lines of garbage":
        assert verdict.startswith("stored=1 ")
    else:
        assert verdict == attack.verdict


def test_no_attack_has_the_name_of_another() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names)) >= 50


def nothing(*_: Any, **__: Any) -> None:
    """A check that was forgotten."""


def believed(*_: Any, **__: Any) -> bool:
    """Every page is taken for proved."""
    return True


def split(body: bytes, count: int, digest: str) -> tuple[bytes, ...]:
    """A page is taken as it comes."""
    return tuple(body.split(b"\n")[:-1])


def any_prefix(self: Any, envelope: bytes) -> Any:
    """Whose log it is does not matter."""
    self._prefix = pages_of(envelope)
    self._begin = self._prefix + "/"
    return LOOK(self, envelope)


def pages_of(envelope: bytes) -> str:
    return opened(envelope).record.id.partition("/")[0]


def forgetful(self: Any, name: str) -> Any:
    """What came earlier in the same page is forgotten."""
    return self._held.get(name)


LOOK = intake.Intake._look

BUGS: dict[str, tuple[Any, str, Any, Sequence[str]]] = {
    "signatures of copies are not checked": (intake, "check_signature", nothing, ("a signature was changed",)),
    "tombstones end nothing": (intake, "check_newer", nothing, ("a tombstone is outbid",)),
    "the quota is not counted": (intake, "check_quota", nothing, ("a flood over the quota",)),
    "the key's name is not looked at": (intake, "check_kid", nothing, ("signed in the neighbour's name",)),
    "leases are not read": (intake, "check_lease", nothing, ("what expired is served",)),
    "delegations are not judged": (intake, "check_delegation", nothing, ("a delegation that widens",)),
    "every page is taken for proved": (
        replication,
        "is_proved",
        believed,
        ("a page in the place of another", "a page that the checkpoint does not have"),
    ),
    "whose log it is does not matter": (
        intake.Intake,
        "_look",
        any_prefix,
        ("another owner's records in a log", "a follower is fed another owner's records"),
    ),
    "a page's earlier lines are forgotten": (
        intake.Intake,
        "_newest",
        forgetful,
        ("every record comes twice", "old revisions follow new ones", "two payloads of one revision in one page"),
    ),
    "pages are not bounded": (replication, "check_page", nothing, ("a page of too many records",)),
    "pages are taken as they come": (
        hearing,
        "whole_page",
        split,
        ("a page cut between lines", "a line exchanged on the way", "an endless line"),
    ),
    "nobody asks who the peer is": (replication, "_check_peer", nothing, ("a page of a stranger",)),
    "owners sign what they did not write": (
        pages,
        "check_signature",
        nothing,
        ("a checkpoint of what one did not write",),
    ),
    "digests are taken as they come": (comparison, "read_entries", lambda prefix, body: {}, ("buckets of garbage",)),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_check_that_is_taken_out_is_missed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, replacement, noticing = BUGS[bug]
    attacks = {attack.name: attack for attack in ATTACKS}
    monkeypatch.setattr(module, name, replacement)
    for each in noticing:
        try:
            verdict = outcome(attacks[each])
        except AssertionError:
            continue
        assert verdict != attacks[each].verdict, each
