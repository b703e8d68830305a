"""Tables: aligned for people, tab-separated for programs."""

from hypothesis import given
from hypothesis import strategies as st

from tieline.cli import table


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=5))
def test_every_line_begins_its_columns_at_the_same_place(rows):
    marked = [(first, "|" + second) for first, second in rows]
    starts = {table.width(line.partition("|")[0]) for line in table.lines(("a", "|b"), marked) if "|" in line[:60]}
    assert len([start for start in starts if start is not None]) >= 1


def test_wide_characters_count_as_two():
    assert table.width("算力") == 4
    assert table.lines(("名", "x"), [("算力", "1"), ("ab", "2")]) == ["名    x", "算力  1", "ab    2"]


def test_numbers_stand_on_the_right():
    assert table.lines(("n",), [("1",), ("10",)], right=(0,)) == [" n", " 1", "10"]


@given(st.text(), st.integers(1, 20))
def test_a_text_that_is_cut_fits(text, most):
    assert table.width(table.cut(text, most)) <= most


@given(st.text())
def test_what_is_shown_is_one_line_without_control_characters(text):
    assert table.clean(text).isprintable()


def test_a_pipe_gets_tabs_and_no_header(capsys):
    table.show(("job", "state"), [("j-1", "running")])
    assert capsys.readouterr().out == "j-1\trunning\n"


def test_a_terminal_gets_a_header(capsys, monkeypatch):
    monkeypatch.setattr(table, "is_terminal", lambda: True)
    monkeypatch.setenv("LANG", "C")
    table.show(("job", "state"), [("j-1", "running")])
    assert capsys.readouterr().out == "job  state\nj-1  running\n"
