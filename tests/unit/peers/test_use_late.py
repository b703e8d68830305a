"""A peer that takes its time over what is free there: the answer says so, and does not wait."""

import pytest
from relay import Relay
from use_world import LIMITS, MAKERS

from peer_world import until

pytestmark = pytest.mark.slow


def test_find_names_the_branch_that_did_not_answer_in_time(exchange, tieline):
    a, b = exchange("cn.a", makers=MAKERS, limits=LIMITS), exchange("cn.b", makers=MAKERS, limits=LIMITS)
    relay = Relay(b, b"GET /v1/peer/state")
    try:
        assert a.http.post("/v1/peers", json={"url": relay.url, "role": "peer"}).status_code < 300
        b.accept(a, may_use=True)

        def branch(**body):
            (found,) = a.http.post("/v1/find", json={"query": "", "kind": "pool", **body}).json()["branches"] or [{}]
            return found

        until(lambda: a.is_active(b) and branch(branch_budget_ms=10_000).get("is_reached", True))
        assert "is_late" not in branch(branch_budget_ms=10_000)
        relay.is_held = True
        late = until(
            lambda: (found := branch(branch_budget_ms=100)).get("is_late") and found, why=lambda: str(branch())
        )
        assert late["as_of_ms"] > 0
        assert late["exchange"] == b.id
        said = tieline(a, "find", "cores >= 1")
        assert f"{b.id} did not answer in time" in said or f"{b.id} could not be asked" in said  # once it gave up
    finally:
        relay.is_held = False
        a.stop()
        relay.stop()
