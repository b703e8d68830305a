"""The command as a whole: quick, lazy, and an error is one message with an exit code."""

import subprocess
import sys

import pytest

from tieline import __version__
from tieline.cli.face import complain
from tieline.cli.main import COMMANDS
from tieline.model.error import CODES, TielineError
from tieline.model.reason import Reason

LIMIT = {"limit_micro_cny": 3_200_000, "lowest_micro_cny": 3_450_000}
VERBS = (
    "up down status login find ask plan run ps logs exec attach why stop fetch usage bill site exchange id "
    "project network reading point circle transfer circuit calendar token events audit schema demo check sim "
    "lab"
)


def test_the_verbs_are_those_of_the_design_and_have_no_aliases():
    assert [name for name, (_, line) in COMMANDS.items() if line] == VERBS.split()


@pytest.mark.parametrize("words", ["--version", "--help"])
def test_version_and_help_import_nothing_heavy(words):
    code = (
        "import sys\nfrom tieline.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'aiohttp', 'asyncio', 'msgspec', 'numpy', 'litestar', 'sqlalchemy', 'rich', 'yaml', 'nacl', 'lark'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_list_of_jobs_needs_no_aiohttp(exchange, admin):
    code = (
        "import sys\nfrom tieline.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "sys.exit(', '.join(sorted({'aiohttp', 'numpy', 'sqlalchemy', 'litestar', 'rich'} & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "ps"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_told(call):
    assert call("--version").stdout == f"tieline {__version__}\n"


def test_a_verb_that_is_not_there_is_a_usage_error_with_the_nearest_one(call):
    done = call("rum")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "run?" in done.stderr


def test_an_option_that_is_not_there_is_a_usage_error(call):
    done = call("ps", "--wrong")
    assert done.exit_code == 2
    assert "--wrong" in done.stderr
    assert "hint: tieline ps --help" in done.stderr


def test_without_an_exchange_the_way_to_one_is_told(call):
    done = call("ps")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "error: no exchange is known yet" in done.stderr
    assert "hint: tieline up" in done.stderr


def test_an_exchange_that_does_not_answer_is_told_by_its_address(call, monkeypatch):
    monkeypatch.setattr("tieline.drivers.http.backoff.Backoff.next_s", lambda self: 0.0)
    done = call("-x", "http://127.0.0.1:9", "ps")
    assert done.exit_code == 1
    assert "http://127.0.0.1:9" in done.stderr


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_ends_with_its_exit_code(code, capsys):
    assert complain(TielineError(code, "what happened")) == CODES[code].exit
    assert capsys.readouterr().err == "error: what happened\n"


def test_an_interruption_is_130(capsys):
    assert complain(KeyboardInterrupt()) == 130


def test_an_error_shows_counted_reasons_aligned_and_then_hints(capsys, monkeypatch):
    monkeypatch.setenv("LANG", "C")
    complain(
        TielineError(
            "unplaceable",
            "no placement for `train`",
            reasons=(
                Reason(
                    code="price_above", count=9, values={"limit_micro_cny": 3_200_000, "lowest_micro_cny": 3_450_000}
                ),
                Reason(code="accelerator_kind", count=1041, values={"asked": "ascend-910b"}),
            ),
            hints=("tieline find ''",),
        )
    )
    assert capsys.readouterr().err.splitlines() == [
        "error: no placement for `train`",
        "  1,041  accelerator is not ascend-910b",
        "      9  price above 3.20 CNY per unit-hour (lowest 3.45)",
        "",
        "hint: tieline find ''",
    ]


def test_what_an_error_quotes_cannot_drive_the_terminal(capsys):
    complain(TielineError("not_found", "no `\x1b[2Jx`"))
    assert "\x1b" not in capsys.readouterr().err
