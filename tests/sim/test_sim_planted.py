"""The checks are checked: each planted mistake is found, by the invariant that it breaks, and told as a short story."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tieline.cli.main import tieline
from tieline.model.error import TielineError
from tieline.sim.planted import MISTAKES, planted
from tieline.sim.play import Outcome, play
from tieline.sim.search import search
from tieline.sim.shrink import shrink
from tieline.sim.story import Size, Story, story_of

SIZE = Size()
SHOWN = {  # a seed that is known to show it; another is looked for when it does not any more
    "answer-first": 4, "drop-fence": 8, "pay-claims": 4, "pay-peers": 42, "lose-answers": 3, "keep-offers": 2,
    "skip-signature": 3, "believe-beats": 6, "raise-dead": 9, "take-older": 7, "trust-relay": 26,
    "ignore-revocation": 20, "lend-for-ever": 19, "blame-who-gave-way": 19, "forget-quotas": 6, "keep-first": 11,
    "leave-others": 29,
}  # fmt: skip
MOST_SEEDS = 200


def found(mistake: str) -> Outcome:
    """The first outcome in which one of the mistake's invariants breaks."""
    known = SHOWN.get(mistake, 1)
    for seed in (known, *range(1, MOST_SEEDS + 1)):
        with planted(mistake):
            outcome = play(story_of(seed, SIZE))
        if outcome.invariant:
            return outcome
    raise AssertionError(f"{MOST_SEEDS} seeds do not show `{mistake}`")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found_by_its_invariant(mistake: str) -> None:
    outcome = found(mistake)
    assert outcome.invariant in MISTAKES[mistake].found_by, outcome.what
    assert play(story_of(outcome.seed, SIZE)).invariant == "", "without the mistake the same story is a good one"


def test_at_least_ten_mistakes_are_planted() -> None:
    assert len(MISTAKES) >= 10


def test_a_mistake_is_taken_back_when_its_run_is_over() -> None:
    with pytest.raises(ZeroDivisionError), planted("bill-lost"):
        raise ZeroDivisionError
    assert search([1], SIZE).violations == ()


def test_there_is_no_such_mistake_to_be_planted() -> None:
    with pytest.raises(TielineError) as caught, planted("none such"):
        pass
    assert "pay-claims" in caught.value.hints[0]


def test_a_long_story_is_cut_down_to_the_two_things_that_matter() -> None:
    outcome = found("pay-claims")
    short = shrink(story_of(outcome.seed, SIZE), outcome, mistake="pay-claims")
    assert short.outcome.invariant == outcome.invariant
    assert sorted(each.what for each in short.story.happenings) == ["over-claim", "submit"]
    with planted("pay-claims"):
        assert play(short.story).invariant == outcome.invariant
    assert play(short.story).invariant == ""


def test_a_failing_seed_prints_its_command_and_its_story(tmp_path: Path) -> None:
    kept = tmp_path / "story.json"
    command = ["sim", "run", "--seed", str(SHOWN["pay-claims"]), "--planted", "pay-claims"]
    said = CliRunner().invoke(tieline, [*command, "--keep", str(kept)])
    assert said.exit_code == 1
    assert f"tieline sim run --seed {SHOWN['pay-claims']} " in said.stderr
    assert "claims more than was used" in said.stderr
    assert len(msgspec.json.decode(kept.read_bytes(), type=Story).happenings) == 2
    again = CliRunner().invoke(tieline, ["sim", "run", "--story", str(kept), "--planted", "pay-claims", "--no-shrink"])
    assert (again.exit_code, "nobody pays for more than was seen" in again.stderr) == (1, True)
    assert CliRunner().invoke(tieline, ["sim", "run", "--story", str(kept)]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--faults", "lost"], "there is no fault `lost`"),
        (["--seeds", "5..3"], "is not FIRST..LAST"),
        (["--seeds", "x"], "is not FIRST..LAST"),
        (["--seed", "1", "--seeds", "1..2"], "is not FIRST..LAST"),
        (["--seeds", "1..99999999"], "at most"),
        (["--planted", "nothing"], "there is no planted mistake"),
    ],
)
def test_what_cannot_be_played_is_refused(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(tieline, ["sim", "run", *arguments])
    assert done.exit_code != 0
    assert said in done.stderr


@pytest.mark.parametrize(
    "content", [b"{}", b"[", b'{"seed":1,"exchanges":1,"sites":1,"users":1,"happenings":[{"at_ms":1,"what":"x"}]}']
)
def test_a_file_that_is_no_story_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "story.json"
    path.write_bytes(content)
    done = CliRunner().invoke(tieline, ["sim", "run", "--story", str(path)])
    assert done.exit_code != 0
    assert "is no story" in done.stderr


def test_only_the_named_faults_happen() -> None:
    done = CliRunner().invoke(tieline, ["sim", "run", "--seeds", "1..3", "--faults", "loss, crash", "--json"])
    faults = msgspec.json.decode(done.stdout)["found"]["faults"]
    assert done.exit_code == 0
    assert ("crash" in faults, "partition" in faults, "rollback" in faults) == (True, False, False)
