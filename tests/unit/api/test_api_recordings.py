"""Protocol versions N and N-1 understand each other: recorded handshakes of both ends are played to this version."""

import base64
import json
import sys
from pathlib import Path

import pytest
from api_recording import ADDED_IN_3, FOLDER, WELL, Player, decoded, lines, recorded_exchange, recorded_site
from api_world import Site

from tieline.model.protocol import PROTOCOL, PROTOCOL_LEAST
from tieline.site import quotes
from tieline.site import stimulus as seen
from tieline.site.instruction import Send

sys.path.insert(0, str(Path(__file__).parents[1] / "site"))

from site_offers import Story, cores, state, words

VERSIONS = (PROTOCOL_LEAST, PROTOCOL)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_site_of_that_version_said_is_answered_as_it_was_then(fresh, version):
    Player(fresh()).play(lines(FOLDER / f"site-{version}.jsonl"))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_an_exchange_of_that_version_said_is_obeyed_as_it_was_then(version):
    obey(lines(FOLDER / f"exchange-{version}.jsonl"))


def obey(steps):
    """Let a site live through the recording, and do at each step what is recorded."""
    story = Story(state(cores(owner="cn.demo.lab7")))
    sent = None
    for step in steps:
        kind, message = decoded(step)
        if kind == "welcome":
            told = story.tell(
                seen.Welcomed(orders=message.orders, lease_ms=message.lease_ms, is_draining=message.is_draining)
            )
        elif kind == "order" and step["does"] == "quoted":
            answer = quotes.answer(story.state, message, story.now_ms)
            assert (answer.quote, answer.is_refused) == (message.quote, False)
            continue
        elif kind == "order":
            told = story.order(message)
        elif kind == "outcome":
            told = story.tell(seen.Answered(report=sent, outcome=message))
        elif kind == "happens":
            told = story.tell(STIMULI[step["happens"]](step["run"]))
        else:
            continue
        assert words(told) == step["does"], step
        sent = next((each.report for each in told if isinstance(each, Send)), sent)


STIMULI = {
    "nodes_started": lambda run: seen.NodesStarted(run=run),
    "nodes_ended": lambda run: seen.NodesEnded(run=run, endings=(WELL,)),
    "handed_over": lambda run: seen.HandedOver(run=run, endings=(WELL,)),
}


def with_unknown(tree):
    """Every message with a field that nobody knows yet."""
    if isinstance(tree, dict):
        more = {name: with_unknown(value) for name, value in tree.items()}
        is_message = {"order", "report", "is_ok", "bearer", "stale"} & set(tree)
        return {**more, "of_a_later_version": {"x": [1]}} if is_message else more
    return [with_unknown(value) for value in tree] if isinstance(tree, list) else tree


def test_what_a_later_version_adds_is_passed_over_by_both_ends(fresh):
    obey([{**step, **{kind: with_unknown(step[kind]) for kind in ("welcome", "order", "outcome") if kind in step}}
          for step in recorded_exchange(PROTOCOL)])  # fmt: skip
    steps = recorded_site(PROTOCOL)
    for step in steps:
        if "body" in step and "reports" in step["body"]:
            step["body"] = with_unknown(step["body"])
    Player(fresh()).play(steps)


def test_the_recordings_of_the_older_version_hold_nothing_that_came_later():
    seen_kinds = set()
    for step in lines(FOLDER / "exchange-2.jsonl") + lines(FOLDER / "site-2.jsonl"):
        for kind, message in messages(step):
            seen_kinds.add(kind)
            assert not set(ADDED_IN_3.get(kind, ())) & set(message), step
    assert set(ADDED_IN_3) <= seen_kinds


def messages(step):
    """The kinds and messages of a step, whoever sent it."""
    if "welcome" in step:
        yield "welcome", step["welcome"]
    if "order" in step:
        yield step["order"]["order"], step["order"]
    body = step.get("body", {})
    for report in body.get("reports", ()):
        yield report["report"], report
    if step.get("post") == "/v1/site/heartbeat":
        payload = json.loads(body["statement"])["payload"]
        yield "beat", json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_the_recordings_of_this_version_are_what_it_says():
    assert lines(FOLDER / f"exchange-{PROTOCOL}.jsonl") == recorded_exchange(PROTOCOL)
    assert lines(FOLDER / f"site-{PROTOCOL}.jsonl") == recorded_site(PROTOCOL)


def test_ends_that_share_no_version_part_with_a_clear_word(fresh):
    world = fresh()
    steps = recorded_site(PROTOCOL_LEAST)
    player = Player(world)
    player.play(steps[:2])
    for protocols in ((PROTOCOL_LEAST - 1,), (PROTOCOL + 1, PROTOCOL + 2)):
        site = Site(world, "recorded", "one", protocols=protocols)
        site.nonce = 100 * protocols[0] + 100
        answer = world.http.post("/v1/site/sessions", json={"statement": site.hello()})
        assert (answer.status_code, answer.json()["code"]) == (426, "version_not_supported")
