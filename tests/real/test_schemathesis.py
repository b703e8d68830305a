"""Schemathesis against the served document: all its phases (examples, coverage, fuzzing, stateful), all its checks.

Only the three event streams are left out, because they do not end; they have tests of their own
(tests/unit/api/test_api_streams.py). The run is bounded in time and seeded.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "api"))

from api_world import ADMIN, World

from tieline.api.app import OPERATIONS
from tieline.api.operation import EVENTS
from tieline.api.roles import ROLES
from tieline.model.party import Role

SEED = 20_261_121
OUTWARD = ("add_peer",)  # calls whatever address it is given; tests/unit/peers has its own
STREAMS = tuple(operation.id for operation in OPERATIONS if operation.gives == EVENTS)
CONFIG = """
hooks = "{hooks}"

# 400 is also what a well-formed request is answered that means something impossible; the custom check of the hooks
# holds that its code then says so. The others are refusals by state: 409 conflict, 410 expired, 416 no such range,
# 422 what does not verify or can never be placed, 426 no common protocol.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "410", "416", "422", "426"]
"""


@pytest.fixture
def world(tmp_path):
    running = World(tmp_path / "exchange", tick_ms=250)
    running.folder.mkdir()
    running.start()
    yield running
    running.stop()


def schemathesis(world, folder, token, seconds, *options):
    """The report of one run; fails with it when anything was found."""
    folder.mkdir()
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG.format(hooks=Path(__file__).with_name("schemathesis_hooks.py")))
    left_out = [part for name in (*STREAMS, *OUTWARD) for part in ("--exclude-operation-id", name)]
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("st")),
            "--config-file",
            str(config),
            "run",
            f"{world.url}/v1/openapi.json",
            *("--header", f"Authorization: Bearer {token}"),
            *("--phases", "examples,coverage,fuzzing,stateful"),
            *("--checks", "all"),
            *("--seed", str(SEED)),
            *("--max-examples", "12"),
            *("--max-time", str(seconds)),
            *("--request-timeout", "20"),
            "--continue-on-failure",
            "--no-color",
            *left_out,
            *options,
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=seconds + 120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    report = re.sub(r"\n.*curl .*\n", "\n", done.stdout)
    failures = report[report.find("= FAILURES") :] if "= FAILURES" in report else report[-20_000:]
    assert done.returncode == 0, failures[:20_000] + done.stderr[-5_000:]
    return report


@pytest.mark.slow
def test_the_document_and_the_exchange_agree_for_an_admin(world, tmp_path):
    for name in ("gz1", "gz2", "gz3"):
        world.site("lab7", name)
    report = schemathesis(world, tmp_path / "admin", ADMIN, 60)
    tested = len(OPERATIONS) - len(STREAMS) - len(OUTWARD) - 1  # the document itself is what is read
    assert f"Tested: {tested}" in report, report[-3_000:]
    assert world.admin.get("/v1/me").status_code == 200, "the token of the run was lost on the way"
    assert world.writer.meters.defects == 0
    assert world.admin.get("/v1/events/verify").json()["is_verified"] is True


@pytest.mark.slow
def test_the_document_and_the_exchange_agree_for_a_site(world, tmp_path):
    site = world.site()
    reached = [name for name, roles in ROLES.items() if Role.SITE in roles and name not in (*STREAMS, "leave_site")]
    chosen = [part for name in reached for part in ("--include-operation-id", name)]
    report = schemathesis(world, tmp_path / "site", site.welcome.bearer, 15, *chosen)
    assert f"Tested: {len(reached)}" in report, report[-3_000:]
    assert site.http.post("/v1/site/reports", json={"reports": []}).status_code == 200
    assert world.writer.meters.defects == 0
