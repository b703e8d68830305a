"""JSON logs: one object per line, known fields only, no secrets."""

from __future__ import annotations

import io
import json
import logging

import pytest

from tieline.drivers.jsonlog import JsonFormatter, hidden, log_to


def line_of(message: str, *args: object, **extra: object) -> dict[str, object]:
    record = logging.makeLogRecord(
        {"name": "tieline.site", "levelno": 20, "levelname": "INFO", "msg": message, "args": args}
    )
    record.__dict__.update(extra)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return dict(json.loads(text))


def test_a_line_says_when_who_what_and_for_which_job_and_request():
    line = line_of("ended %s", "well", job="j-1", run="j-1.1", request="r-9", duration_ms=12)
    assert line["message"] == "ended well"
    assert (line["level"], line["logger"]) == ("info", "tieline.site")
    assert (line["job"], line["run"], line["request"], line["duration_ms"]) == ("j-1", "j-1.1", "r-9", 12)
    assert str(line["time"]).endswith("+00:00")


def test_fields_that_are_not_known_do_not_get_out():
    assert "password" not in line_of("x", password="hunter2")


@pytest.mark.parametrize(
    "text", ["Authorization: Bearer abcdef12345", "token tl1.eyJ1Ijoi", "with tl-0123456789abcdef"]
)
def test_bearers_and_tokens_are_cut_wherever_they_stand(text: str):
    shown = str(line_of(text, why=text))
    for secret in ("abcdef12345", "eyJ1Ijoi", "0123456789abcdef"):
        assert secret not in shown
    assert hidden("a site and a job") == "a site and a job"


def test_line_ends_and_control_characters_of_a_message_cannot_forge_a_line():
    assert line_of('x\n{"level":"error"}')["message"] == 'x\n{"level":"error"}'


def test_an_exception_is_kept_within_the_line():
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        log_to(stream)
        try:
            int("Bearer abcdef12345")
        except ValueError:
            logging.getLogger("tieline").exception("failed")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    (line,) = stream.getvalue().splitlines()
    assert "ValueError" in json.loads(line)["exception"]
    assert "abcdef12345" not in line
