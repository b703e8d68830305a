"""Results of a run elsewhere: a cut connection goes on where it was cut, and what is large delays nobody else."""

import hashlib
import re

import httpx
import pytest
from relay import Relay
from use_world import LIMITS, MAKERS, Site, ended, job, placeable, submit

from peer_world import ADMIN, until
from tieline.drivers.peers.use import Use

pytestmark = pytest.mark.slow

MIB = 2**20
LARGE = "head -c 8388608 /dev/urandom > large && sha256sum large | cut -c1-64"


@pytest.fixture
def world(exchange, tmp_path):
    """A, B's relay as A sees it, and B with a site."""
    a, b = exchange("cn.a", makers=MAKERS, limits=LIMITS), exchange("cn.b", makers=MAKERS, limits=LIMITS)
    relay = Relay(b, b"GET /v1/peer/blobs/")
    answer = a.http.post("/v1/peers", json={"url": relay.url, "role": "peer"})
    assert answer.status_code < 300, answer.text
    b.accept(a, may_use=True)
    until(lambda: a.is_active(b) and b.is_active(a))
    site = Site(b, tmp_path / "site")
    until(lambda: placeable(a, site.id), why=lambda: str(a.branch(b)))
    yield a, b, relay
    site.stop()
    a.stop()
    relay.stop()


def fetched(exchange, view):
    """The bytes of the only output."""
    (output,) = view["job"]["outputs"]
    answer = httpx.get(
        f"{exchange.url}/v1/blobs/{output['sha256']}", headers={"Authorization": f"Bearer {ADMIN}"}, timeout=60
    )
    assert answer.headers["etag"] == f'"{output["sha256"]}"'
    return answer.content


def asked(relay):
    """From where on each request asked, and on which condition."""
    return [
        (int(found[1]), re.search(rb'(?i)if-range: "([0-9a-f]{64})"', head)[1].decode())
        for head in relay.heads
        if (found := re.search(rb"(?i)\r\nrange: bytes=(\d+)-", head))
    ]


def test_a_download_that_is_cut_goes_on_from_there(world):
    a, b, relay = world
    relay.cuts, relay.after_bytes = 3, 2 * MIB
    name = submit(a, name="large", run=LARGE, outputs=["large"])
    view = ended(a, name)
    b.stop()
    content = fetched(a, view)
    digest = hashlib.sha256(content).hexdigest()
    assert len(content) == 8 * MIB
    assert relay.cuts == 0
    starts = [start for start, condition in asked(relay) if condition == digest]
    assert len(starts) == 3
    assert starts == sorted(starts)
    assert MIB < starts[0] <= 2 * MIB
    assert relay.down_bytes < 9 * MIB  # what was under way at a cut came twice; a try from the beginning is 2 MiB


def test_what_is_large_delays_no_other_report_and_is_asked_for_again_after_a_restart(world):
    a, b, relay = world
    relay.is_held = True
    large = submit(a, name="large", run=LARGE, outputs=["large"])
    until(lambda: relay.heads, why=lambda: str(job(a, large)))
    for number in range(3):
        view = ended(a, submit(a, name=f"small-{number}", run="echo hello > none"))
        assert view["job"]["state"] == "succeeded"
    assert job(a, large)["job"]["state"] == "running"
    a.stop()
    a.start()
    until(lambda: len(relay.heads) > 1, why=lambda: str(job(a, large)))
    assert job(a, large)["job"]["state"] == "running"
    relay.cut()
    (use,) = [duty for duty in a.platform.federation.branches[b.id].duties if isinstance(duty, Use)]
    until(lambda: not use.results.is_heard)
    relay.is_held = relay.is_cut = False
    assert len(fetched(a, ended(a, large))) == 8 * MIB
    until(lambda: not b.view.guests[a.id].unanswered)
