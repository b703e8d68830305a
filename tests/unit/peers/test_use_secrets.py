"""Secrets and a run's token on a site of another exchange: only the run has them, and only while it lives."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from use_world import LIMITS, MAKERS, ask, ended, job, log, used

from peer_world import until
from tieline.drivers.peers.client import PeerClient
from tieline.model.task import Task

pytestmark = pytest.mark.slow

VALUE = "correct-horse-battery-staple"
RUN = """\
printf '%s' "$API_KEY" | sha256sum | cut -c1-64
tr '\\0' ' ' < /proc/$$/cmdline | grep -c "$API_KEY"
printf '%s' "$TIELINE_TOKEN" > bearer
echo "$TIELINE_EXCHANGE"
"$TIELINE_PYTHON" -m tieline.cli why "$TIELINE_JOB_ID" --json > part 2>&1; mv part shown
for _ in {1..900}; do [ -e go ] && break; sleep 0.1; done
"""


@pytest.fixture
def said(monkeypatch):
    """Every body that one exchange sent to the other, and every answer."""
    bodies, opened, raw = [], PeerClient._opened, PeerClient.raw

    def listen(self, *words, data=None, **named):
        bodies.append(data if isinstance(data, bytes) else b"")
        return opened(self, *words, data=data, **named)

    async def answered(self, *words, **named):
        bodies.append(await raw(self, *words, **named))
        return bodies[-1]

    monkeypatch.setattr(PeerClient, "_opened", listen)
    monkeypatch.setattr(PeerClient, "raw", answered)
    return bodies


def found_in(folder, *words):
    return [file for file in folder.rglob("*") if file.is_file() and any(word in file.read_bytes() for word in words)]


def arguments(*words):
    """How many processes of this machine have one of these words among their arguments; without words, all."""
    found = 0
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            said = process.read_bytes()
            found += not words or any(word in said for word in words)
    return found


def test_a_run_elsewhere_has_its_secrets_and_a_token_of_its_own_and_no_exchange_between_does(exchange, tmp_path, said):
    a = exchange("cn.a", makers=MAKERS, limits=LIMITS)
    b = exchange("cn.b", makers=MAKERS, limits=LIMITS)
    site = used(a, b, tmp_path / "site")
    try:
        task = Task(name="far", run=RUN, secrets=("API_KEY",), token=("read:job", "read:log"))
        (made,) = ask(a, lambda client: client.submit(task, secrets={"API_KEY": VALUE}))
        assert a.store.secret(made.id) is not None
        work = until(lambda: next(iter((tmp_path / "site").rglob("bearer")), None), why=lambda: str(job(a, made.id)))
        bearer = until(work.read_text)
        (guest,) = b.view.jobs
        assert b.store.secret(guest) is not None
        shown = work.parent / "shown"
        until(shown.exists, why=lambda: log(a, made.id))
        assert made.id in shown.read_text(), shown.read_text()  # the run calls A itself

        assert arguments() > 1
        assert arguments(VALUE.encode(), bearer.encode()) == 0

        def as_run(path, method="GET"):
            return httpx.request(method, a.url + path, headers={"Authorization": f"Bearer {bearer}"}, timeout=30)

        name = made.id.replace("/", "~")
        assert as_run(f"/v1/jobs/{name}").json()["job"]["state"] in ("staging", "running")
        assert as_run("/v1/me").json()["scopes"] == ["read:job", "read:log"]
        assert as_run(f"/v1/jobs/{name}/stop", "POST").status_code == 403
        assert as_run("/v1/jobs").status_code == 403
        assert as_run("/v1/jobs", "POST").status_code == 403
        headers = {"Authorization": f"Bearer {bearer}"}
        assert httpx.get(f"{b.url}/v1/jobs", headers=headers, timeout=30).status_code == 401

        a.stop()  # the run ends while A is away
        (work.parent / "go").touch()
        until(lambda: b.store.secret(guest) is None)
        a.start()
        assert ended(a, made.id)["job"]["state"] == "succeeded"
        assert log(a, made.id).split() == [hashlib.sha256(VALUE.encode()).hexdigest(), "0", a.url]
        refused = as_run(f"/v1/jobs/{name}")
        assert refused.status_code == 401
        assert refused.json()["reasons"][0]["code"] in ("token_job_ended", "token_run_ended")
        until(lambda: a.store.secret(made.id) is None)
        events = json.dumps([each.http.get("/v1/events", params={"limit": 1000}).json() for each in (a, b)])
        assert VALUE not in events
        assert bearer not in events
    finally:
        site.stop()
    for each in (a, b):
        each.stop()
        assert found_in(each.folder, VALUE.encode(), bearer.encode()) == []
    assert len(said) > 10
    assert not any(VALUE.encode() in body or bearer.encode() in body for body in said)
