"""A real exchange and a site process: a borrower's run gives way with its checkpoint, and ends later as it should."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit" / "peers"))
from use_world import LIMITS, Site, ended, job, lines, log

from peer_world import Exchange, until

STEPS = 9
SITE = """\
title: a site
tier: edge
region: shanghai
pools:
  - name: cards
    accelerator: a100
    count: 4
    emulated: true
    cores: 8
    memory: 4GB
    price: 3600
"""
COUNTING = f"""\
trap 'echo told to stop' USR1
mkdir -p "$TIELINE_CHECKPOINT_DIR"
at=$(cat "$TIELINE_CHECKPOINT_DIR/at" 2>/dev/null || echo 0)
echo "begins at $at"
while [ "$at" -lt {STEPS} ]; do
  sleep 0.3 & wait $!
  at=$((at + 1))
  echo "$at" >"$TIELINE_CHECKPOINT_DIR/new" && mv "$TIELINE_CHECKPOINT_DIR/new" "$TIELINE_CHECKPOINT_DIR/at"
  echo "step $at"
done
"""


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    made = Exchange(tmp_path / "exchange", "cn.a", limits=LIMITS).start()
    yield made
    made.stop()


@pytest.fixture
def site(exchange: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    import use_world

    monkeypatch.setattr(use_world, "SITE", SITE)
    made = Site(exchange, tmp_path / "site")
    until(lambda: free_cards(exchange) == 4, why=lambda: (tmp_path / "site" / "site.log").read_text())
    yield made
    made.stop()


def free_cards(exchange: Exchange) -> int:
    pools = exchange.view.supply.pools
    return sum(pools.free(pools.at(at).id).accelerators for at in pools.live.tolist() if pools.flags["site_open"][at])


def submit(exchange: Exchange, project: str, name: str, script: str, cards: int, **more: Any) -> str:
    resources = [{"accelerator": "a100", "accelerator_count": cards}]
    task = {"name": name, "run": script, "resources": resources, "is_trusted": True, **more}
    answer = exchange.http.post("/v1/jobs", json={"tasks": [task], "project": project})
    assert answer.status_code < 300, answer.text
    return str(answer.json()["jobs"][0]["id"])


def test_a_borrower_gives_way_with_its_checkpoint_and_both_runs_are_billed(exchange: Exchange, site: Site) -> None:
    for name, quota in (("lends", 1), ("owns", 3)):
        body = {"id": name, "quota": {"card_count": quota}}
        answer = exchange.http.post("/v1/projects", json=body)
        assert answer.status_code < 300, answer.text
    kept = {"path": "kept", "every_s": 3600}
    borrower = submit(exchange, "lends", "count", COUNTING, 4, checkpoint=kept, grace_s=20)
    until(lambda: "step 3" in log(exchange, borrower), why=lambda: str(job(exchange, borrower)))

    wanted = submit(exchange, "owns", "short", "echo by right; sleep 0.5", 3)
    done = ended(exchange, wanted)
    assert done["job"]["state"] == "succeeded"
    waited = job(exchange, borrower)
    first = next(run for run in waited["runs"] if run["epoch"] == 1)
    assert first["state"] == "stopped"
    assert first["reason"]["code"] == "preempted_for_share"
    assert first["reason"]["values"] == {"job": wanted, "project": "owns"}

    over = ended(exchange, borrower)
    assert over["job"]["state"] == "succeeded", over
    assert (over["job"].get("attempts", 0), over["job"].get("losses", 0), over["job"]["preemptions"]) == (0, 0, 1)
    assert len(over["runs"]) == 2
    said = log(exchange, borrower)
    begun = int(next(line for line in said.splitlines() if line.startswith("begins at")).split()[-1])
    assert 3 <= begun < STEPS, said
    assert said.splitlines()[-1] == f"step {STEPS}"

    billed = [line for line in lines(exchange) if line["job"] == borrower]
    assert len(billed) == len({line["run"] for line in billed}) == 2
    assert all(line["project"] == "lends" and line["unit_count"] == 4 for line in billed)
    for line in billed:
        seconds = -(-line["duration_ms"] // 1000)
        assert line["unit_seconds"] == 4 * seconds
        assert line["charge_micro_cny"] == 4 * seconds * 3_600_000_000 // 3_600
    held = exchange.http.get("/v1/projects/lends").json()
    assert held["charge_micro_cny"] == sum(line["charge_micro_cny"] for line in billed)
    assert held["held_card_count"] == 0
