"""Recorded handshakes: what one end of each protocol version said, and what it must be answered.

``python tests/unit/api/api_recording.py`` writes the recordings of the newest version. Those of an older version are
never written again: they are what is out there.

A line is one step. In an expected answer ``$name`` takes whatever stands there, and stands for it from then on; an
answer may hold more than is expected of it, never less.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from api_world import NOW_MS, Site

from tieline.model.party import Role
from tieline.model.protocol import PROTOCOL, Beaten, Orders, Outcome, Welcome
from tieline.ports import Ending, FakeClock

FOLDER = Path(__file__).parents[2] / "recordings"
TOKEN = "tl-recorded-join"  # what the recorded site joined with
OWNER, NAME = "recorded", "one"
TASK = {"name": "recorded", "run": "echo hello", "resources": [{"core_count": 1}]}
WELL = Ending(exit_code=0, started_ms=NOW_MS, ended_ms=NOW_MS + 1_500)
ADDED_IN_3 = {"offer": ("part",)}


def lines(path: Path) -> list[dict[str, Any]]:
    """The steps of a recording."""
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- what a site said --------------------------------------------------------------------------------------------------


def recorded_site(version: int) -> list[dict[str, Any]]:
    """A site that joins, opens a session, offers a pool, runs one job and answers one question."""
    site = Site(SimpleNamespace(clock=FakeClock(at_ms=NOW_MS)), OWNER, NAME, protocols=(version,))
    records = [site.envelope(*record) for record in site.records()]
    beat = site.beat_statement()

    def reported(kind: str, **fields: Any) -> dict[str, Any]:
        run = {} if kind == "quoted" else {"run": "$run", "epoch": 1}
        return {"report": kind, **run, **fields}

    def post(path: str, body: Any, answer: Any, status: int = 200, bearer: str = "$bearer") -> dict[str, Any]:
        return {"post": path, "bearer": bearer, "body": body, "status": status, "answer": answer}

    return [
        {"token": TOKEN, "owner": OWNER},
        post(
            "/v1/sites",
            {"token": TOKEN, "statement": site.join_statement()},
            {"site": site.id, "owner": site.prefix, "is_admitted": True},
            201,
            "",
        ),
        post(
            "/v1/site/sessions",
            {"statement": site.hello()},
            {"bearer": "$bearer", "protocol": version, "cursor": "$cursor", "is_admitted": True, "lease_ms": 10_000},
            201,
            "",
        ),
        *[post("/v1/records", {"envelope": record}, {"is_valid": True, "rev": 1}, 201) for record in records],
        post("/v1/site/heartbeat", {"statement": beat}, {}),
        {"submit": TASK, "job": "$job"},
        {
            "stream": "/v1/site/stream?after=$cursor",
            "orders": [
                {"order": "offer", "run": "$run", "job": "$job", "epoch": 1, "pool": site.pool, "core_count": 1}
            ],
        },
        post(
            "/v1/site/reports",
            {"reports": [reported("accepted", sandbox="bubblewrap", network="host")]},
            {"outcomes": [{"is_ok": True}]},
        ),
        {"log": "/v1/site/runs/$run/log?node=0&offset=0", "content": "hello\n", "answer": {"offset": 6}},
        post(
            "/v1/site/reports",
            {
                "reports": [
                    reported("started", at_ms=NOW_MS, devices=[]),
                    reported(
                        "ended", state="succeeded", exit_codes=[0], duration_ms=1_500, cpu_ms=10, is_start_failure=False
                    ),
                    reported(
                        "ended", state="succeeded", exit_codes=[0], duration_ms=1_500, cpu_ms=10, is_start_failure=False
                    ),
                ]
            },
            {"outcomes": [{"is_ok": True}, {"is_ok": True}, {"is_ok": True}]},
        ),
        {"state": "$job", "is": "succeeded"},
        {"ask": TASK, "quote": "$quote"},
        {
            "stream": "/v1/site/stream?after=$last",
            "orders": [{"order": "ask", "quote": "$quote", "pool": site.pool, "unit_count": 1}],
        },
        post(
            "/v1/site/reports",
            {
                "reports": [
                    reported("quoted", quote="$quote", price_micro_cny_per_unit_hour=900_000, start_after_s=0, ttl_s=30)
                ]
            },
            {"outcomes": [{"is_ok": True}]},
        ),
        {"quoted": "$quote", "price_micro_cny_per_unit_hour": 900_000},
    ]


class Player:
    """Plays what a site said against a running exchange whose clock stands where it stood then."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.names: dict[str, Any] = {}
        self.user = world.as_("alice", Role.USER)

    def play(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            kind = next(iter(step))
            getattr(self, f"_{kind}")(step)

    def filled(self, tree: Any) -> Any:
        """``tree`` with what the names stand for."""
        if isinstance(tree, str) and "$" in tree:
            if tree in self.names:
                return self.names[tree]
            for name in sorted(self.names, key=len, reverse=True):
                tree = tree.replace(name, str(self.names[name]))
            return tree
        if isinstance(tree, dict):
            return {name: self.filled(value) for name, value in tree.items()}
        return [self.filled(value) for value in tree] if isinstance(tree, list) else tree

    def expect(self, expected: Any, found: Any, where: str = "answer") -> None:
        """``found`` holds at least ``expected``."""
        if isinstance(expected, str) and expected.startswith("$") and expected not in self.names:
            self.names[expected] = found
        elif isinstance(expected, dict):
            for name, value in expected.items():
                assert name in found, f"{where}: `{name}` is missing in {found}"
                self.expect(value, found[name], f"{where}.{name}")
        elif isinstance(expected, list):
            assert len(expected) == len(found), f"{where}: {found}"
            for at, (value, other) in enumerate(zip(expected, found, strict=True)):
                self.expect(value, other, f"{where}[{at}]")
        else:
            assert found == self.filled(expected), f"{where}: {found!r}, not {expected!r}"

    def _token(self, step: dict[str, Any]) -> None:
        self.world.token_with(step["token"], "recorded-join", (Role.JOIN,), owner=step["owner"])

    def _post(self, step: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {self.filled(step['bearer'])}"} if step["bearer"] else {}
        answer = self.world.http.post(self.filled(step["post"]), json=self.filled(step["body"]), headers=headers)
        assert answer.status_code == step["status"], f"{step['post']}: {answer.text}"
        self.expect(step["answer"], answer.json(), step["post"])

    def _log(self, step: dict[str, Any]) -> None:
        headers = {
            "Authorization": f"Bearer {self.names['$bearer']}",
            "Content-Type": "application/octet-stream",
        }
        answer = self.world.http.post(self.filled(step["log"]), content=step["content"], headers=headers)
        self.expect(step["answer"], answer.json(), step["log"])

    def _submit(self, step: dict[str, Any]) -> None:
        answer = self.user.post("/v1/jobs", json={"tasks": [step["submit"]]})
        assert answer.status_code == 201, answer.text
        self.names[step["job"]] = answer.json()["jobs"][0]["id"]

    def _ask(self, step: dict[str, Any]) -> None:
        answer = self.user.post("/v1/quotes", json={"task": step["ask"]})
        assert answer.status_code == 201, answer.text
        self.names[step["quote"]] = answer.json()["id"]

    def _stream(self, step: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {self.names['$bearer']}"}
        wanted, got = step["orders"], []
        with self.world.http.stream("GET", self.filled(step["stream"]), headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self.names["$last"] = value
                elif name == "data":
                    got.append(json.loads(value))
                    if len(got) == len(wanted):
                        break
        self.expect(wanted, got, step["stream"])

    def _state(self, step: dict[str, Any]) -> None:
        job = self.names[step["state"]].replace("/", "~")
        assert self.user.get(f"/v1/jobs/{job}").json()["job"]["state"] == step["is"]

    def _quoted(self, step: dict[str, Any]) -> None:
        quote = self.user.get(f"/v1/quotes/{self.names[step['quoted']]}").json()
        assert quote["state"] == "open"
        assert quote["price_micro_cny_per_unit_hour"] == step["price_micro_cny_per_unit_hour"]


# -- what an exchange said ---------------------------------------------------------------------------------------------

POOL = "cn.demo.lab7/pool/cores"
OFFER = {
    "order": "offer",
    "run": "j-recorded.1",
    "job": "cn.demo/job/j-recorded",
    "epoch": 1,
    "pool": POOL,
    "task": {**TASK, "is_trusted": True},
    "alternative": 0,
    "user": "alice",
    "user_owner": "cn.demo.uni",
    "core_count": 1,
    "price_micro_cny_per_unit_hour": 20_000_000,
    "stop_after_s": 600,
    "state": "offered",
    "data_class": [],
    "residency": [],
    "ttl_ms": 5_000,
}
ASK = {
    "order": "ask",
    "quote": "q-recorded",
    "pool": POOL,
    "task": {**TASK, "is_trusted": True},
    "alternative": 0,
    "user": "alice",
    "user_owner": "cn.demo.uni",
    "unit_count": 1,
    "price_micro_cny_per_unit_hour": 20_000_000,
    "duration_s": 60,
    "data_class": [],
    "residency": [],
}
WELCOME = {
    "bearer": "recorded",
    "protocol": 0,
    "cursor": 7,
    "lease_ms": 10_000,
    "beat_ms": 3_000,
    "exchange": "cn.demo/exchange/main",
    "proof": "{}",
    "is_admitted": True,
    "is_draining": False,
    "orders": [],
}


def recorded_exchange(version: int) -> list[dict[str, Any]]:
    """An exchange that welcomes a site, offers a run and lets it end, offers another and fences it, and asks.

    Since version 3 it offers two parts of gangs too: one that starts once all are accepted, and one that is given up.
    """

    def said(message: dict[str, Any], **fields: Any) -> dict[str, Any]:
        return {**message, **fields}

    ok = {"is_ok": True, "what": "ok"}
    second = {"run": "j-second.3", "job": "cn.demo/job/j-second", "epoch": 3}
    steps = [
        {"welcome": said(WELCOME, protocol=version), "does": []},
        {"order": said(OFFER), "does": ["persist accepting durably", "send Accepted"]},
        {"outcome": ok, "does": ["persist launching", "start"]},
        {"happens": "nodes_started", "run": OFFER["run"], "does": ["persist running", "send Started"]},
        {"outcome": ok, "does": []},
        {"order": said({"order": "drain", "is_draining": True}), "does": []},
        {"order": said({"order": "drain", "is_draining": False}), "does": []},
        {"happens": "nodes_ended", "run": OFFER["run"], "does": ["persist finishing", "handover"]},
        {"happens": "handed_over", "run": OFFER["run"], "does": ["withdraw", "persist ended", "send Ended"]},
        {"outcome": ok, "does": ["forget"]},
        {"order": said(OFFER, **second), "does": ["persist accepting durably", "send Accepted"]},
        {"outcome": {"is_ok": False, "what": "stale"}, "does": ["withdraw", "forget"]},
        {"order": said(ASK), "does": "quoted"},
        {"beaten": {"stale": [], "is_resync": False}},
        {
            "order": {"order": "stop", "run": "j-nobody.1", "epoch": 1, "why": "cancelled", "is_fenced": False},
            "does": [],
        },
    ]
    return steps if version < 3 else [*steps, *gangs(said)]


def gangs(said: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """Two parts of gangs over two sites."""
    ok, wait = {"is_ok": True, "what": "ok"}, {"is_ok": False, "what": "wait"}
    third = {"run": "j-third.1", "job": "cn.demo/job/j-third", "part": part_of("j-third.1")}
    fourth = {"run": "j-fourth.2", "job": "cn.demo/job/j-fourth", "epoch": 2, "part": part_of("j-fourth.2")}
    stop = {"order": "stop", "run": "j-fourth.2", "epoch": 2, "why": "the gang ends", "is_fenced": False}
    return [
        {"order": said(OFFER, **third), "does": ["persist accepting durably", "send Accepted"]},
        {"outcome": wait, "does": []},
        {"order": said(OFFER, **third, state="accepted"), "does": ["send Accepted"]},
        {"outcome": ok, "does": ["persist launching", "start"]},
        {"happens": "nodes_started", "run": "j-third.1", "does": ["persist running", "send Started"]},
        {"outcome": ok, "does": []},
        {"happens": "nodes_ended", "run": "j-third.1", "does": ["persist finishing", "handover"]},
        {"happens": "handed_over", "run": "j-third.1", "does": ["withdraw", "persist ended", "send Ended"]},
        {"outcome": ok, "does": ["forget"]},
        {"order": said(OFFER, **fourth), "does": ["persist accepting durably", "send Accepted"]},
        {"outcome": wait, "does": []},
        {"order": stop, "does": ["withdraw", "persist ended", "send Ended"]},
        {"outcome": ok, "does": ["forget"]},
    ]


def part_of(run: str) -> dict[str, Any]:
    """The first of two parts of a gang of three nodes."""
    members = [
        {"run": run, "site": "cn.demo.lab7/site/gz1", "rank": 0, "nodes": 1},
        {"run": f"{run}.1", "site": "cn.demo.lab8/site/sh1", "rank": 1, "nodes": 2},
    ]
    return {"member": 0, "members": members, "number": 40_001, "ports": [29_500], "circuits": ["cn.demo/circuit/c-1"]}


DECODE = {"welcome": Welcome, "order": Orders, "outcome": Outcome, "beaten": Beaten}


def decoded(step: dict[str, Any]) -> tuple[str, Any]:
    """The kind of a step and its message as this version understands it."""
    kind = next(iter(step))
    return kind, msgspec.json.decode(msgspec.json.encode(step[kind]), type=DECODE[kind]) if kind in DECODE else None


def main() -> None:
    """Write the recordings of the newest version; older ones only where there are none."""
    for version in (PROTOCOL - 1, PROTOCOL):
        for name, record in (("site", recorded_site), ("exchange", recorded_exchange)):
            path = FOLDER / f"{name}-{version}.jsonl"
            if version == PROTOCOL or not path.exists():
                steps = record(version)
                path.write_text("".join(json.dumps(step, ensure_ascii=False) + "\n" for step in steps))
                sys.stdout.write(f"{path.name}: {len(steps)} steps\n")


if __name__ == "__main__":
    main()
