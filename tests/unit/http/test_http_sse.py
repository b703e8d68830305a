"""The event-stream parser: the same events for every way of cutting the bytes, and never more memory than allowed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.drivers.http import ServerEvent, SseParser
from tieline.drivers.http.backoff import Backoff
from tieline.model.error import TielineError

STREAM = (
    b'\xef\xbb\xbf: welcome\n\nid: 1\nevent: order\ndata: {"a":\ndata: 1}\n\n'
    b"data:no space\r\n\r\nid:3\rdata: cr\r\rid\ndata\n\nretry: 250\n"
    b"data: \xe6\xb1\x87\n\nevent: empty\n\ndata: unfinished\n"
)
EVENTS = [
    ServerEvent("1", "order", b'{"a":\n1}'),
    ServerEvent("1", "message", b"no space"),
    ServerEvent("3", "message", b"cr"),
    ServerEvent("", "message", b""),
    ServerEvent("", "message", "汇".encode()),
]


def parse(chunks: list[bytes]) -> list[ServerEvent]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def feed_often(parser: SseParser, chunk: bytes) -> None:
    for _ in range(1_000):
        parser.feed(chunk)


def test_a_stream_is_read_as_the_standard_says():
    assert parse([STREAM]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_how_the_bytes_are_cut_changes_nothing(cuts: list[int]):
    edges = [0, *sorted(cuts), len(STREAM)]
    assert parse([STREAM[start:end] for start, end in itertools.pairwise(edges)]) == EVENTS


def test_the_bytes_one_by_one_give_the_same_events():
    assert parse([STREAM[at : at + 1] for at in range(len(STREAM))]) == EVENTS


@given(st.binary(max_size=400))
def test_any_bytes_are_survived(noise: bytes):
    for event in parse([noise[:7], noise[7:]]):
        assert isinstance(event.data, bytes)


def test_an_endless_line_is_refused_before_it_fills_the_memory():
    parser = SseParser(limit_bytes=1_000)
    with pytest.raises(TielineError, match="over 1,000 bytes"):
        feed_often(parser, b"x" * 100)


def test_an_event_of_endlessly_many_lines_is_refused():
    parser = SseParser(limit_bytes=1_000)
    with pytest.raises(TielineError) as caught:
        feed_often(parser, b"data: y\n")
    assert caught.value.code == "too_large"


def test_retry_and_last_id_are_kept_for_the_one_who_reconnects():
    parser = SseParser()
    parser.feed(b"retry: 1500\nid: 42\n\n")
    assert (parser.retry_ms, parser.last_id) == (1500, "42")


def test_an_id_with_a_nul_and_a_retry_that_is_no_number_are_ignored():
    parser = SseParser()
    parser.feed(b"id: 4\n\nid: a\0b\nretry: soon\n\n")
    assert (parser.retry_ms, parser.last_id) == (None, "4")


def test_waits_grow_to_a_ceiling_and_start_again_after_a_success():
    backoff = Backoff(first_s=1.0, most_s=8.0, draw=lambda: 1.0)
    assert [backoff.next_s() for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    backoff.reset()
    assert backoff.next_s() == 1


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 200))
def test_a_wait_is_never_longer_than_the_ceiling(drawn: float, tries: int):
    backoff = Backoff(first_s=0.2, most_s=30.0, draw=lambda: drawn)
    assert all(0 <= backoff.next_s() <= 30 for _ in range(tries + 1))
