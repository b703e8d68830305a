"""The table of `make bench`: aligned for people, whole for machines, and honest about what failed."""

import sys

import msgspec
import pytest
from bench import __main__ as bench
from bench.row import Row


def test_columns_stand_below_one_another_also_with_wide_letters() -> None:
    rows = [
        Row(claim="找", figure=1234.5, unit="个/s", anchor=2, anchor_name="a", ratio=617.2, target="1", note="end"),
        Row(claim="longer claim", figure=0.0123, unit="s", note="end"),
    ]
    lines = bench.drawn(rows).splitlines()
    starts = {bench._width(line[: line.index("end")]) for line in lines[1:]}
    assert len(starts) == 1
    assert lines[1].split() == ["找", "1,234", "个/s", "2", "a", "617x", "1", "end"]
    assert "0.0123 s" in lines[2]


def test_a_benchmark_that_fails_is_a_row_that_says_why_and_the_exit_code_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "NAMES", ("missing",))
    monkeypatch.setattr(sys, "argv", ["bench", "missing", "--json"])
    assert bench.main() == 1
    (row,) = msgspec.json.decode(capsys.readouterr().out, type=list[Row])
    assert row.claim == "missing: failed"
    assert "No module named 'bench.missing'" in row.note


def test_an_unknown_name_is_refused_with_the_names_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "fast"])
    with pytest.raises(SystemExit) as refused:
        bench.main()
    assert refused.value.code == 2
    assert "there is no benchmark fast; there are cli_start" in capsys.readouterr().err
