"""Only a process of the same exchange can say from where a request came; peers' nonces do not outlive their leader."""

import pytest
from following_parts import NOW_MS, SIBLINGS

from tieline.api.following.nonces import AHEAD_S, LedNonces, first_s
from tieline.api.following.sibling import VALID_MS, Siblings
from tieline.model.error import TielineError

STATED = SIBLINGS.stated("2001:db8::7", "POST", b"/v1/jobs?x=1", NOW_MS)
NONCE = "n" * 24


def test_a_sibling_is_believed() -> None:
    assert SIBLINGS.address(STATED, "POST", b"/v1/jobs?x=1", NOW_MS + VALID_MS) == "2001:db8::7"


@pytest.mark.parametrize(
    ("value", "method", "target", "now_ms", "why"),
    [
        (STATED, "GET", b"/v1/jobs?x=1", NOW_MS, "no process of this exchange"),
        (STATED, "POST", b"/v1/tokens", NOW_MS, "no process of this exchange"),
        (STATED.replace(b"::7", b"::8"), "POST", b"/v1/jobs?x=1", NOW_MS, "no process of this exchange"),
        (STATED, "POST", b"/v1/jobs?x=1", NOW_MS + VALID_MS + 1, "set the clocks"),
        (STATED, "POST", b"/v1/jobs?x=1", NOW_MS - VALID_MS - 1, "set the clocks"),
        (b"203.0.113.1", "POST", b"/v1/jobs?x=1", NOW_MS, "cannot be read"),
        (b"at=1;for=\xff;mac=", "POST", b"/v1/jobs?x=1", NOW_MS, "cannot be read"),
        (b"", "POST", b"/v1/jobs?x=1", NOW_MS, "cannot be read"),
        (
            Siblings(b"another exchange").stated("::1", "POST", b"/v1/jobs?x=1", NOW_MS),
            "POST",
            b"/v1/jobs?x=1",
            NOW_MS,
            "no process of this exchange",
        ),
    ],
)
def test_everybody_else_is_refused(value: bytes, method: str, target: bytes, now_ms: int, why: str) -> None:
    with pytest.raises(TielineError, match=why) as caught:
        SIBLINGS.address(value, method, target, now_ms)
    assert caught.value.code == "unauthenticated"


def test_a_new_leader_takes_nothing_that_an_old_one_can_have_taken() -> None:
    began_s = NOW_MS // 1000
    old, new = LedNonces(began_s - 1_000), LedNonces(first_s(NOW_MS))
    # The clocks of the two leaders differ by AHEAD_S, and the peer's is AHEAD_S ahead of the old leader's.
    created_s = began_s + 2 * AHEAD_S
    old.spend("cn/exchange/a", NONCE, created_s + 90, created_s, began_s + AHEAD_S)
    with pytest.raises(TielineError) as caught:
        new.spend("cn/exchange/a", NONCE, created_s + 90, created_s, created_s + 1)
    assert caught.value.reasons[0].code == "peer_replayed"


def test_a_leader_takes_nothing_from_the_future() -> None:
    now_s = NOW_MS // 1000
    nonces = LedNonces(0)
    with pytest.raises(TielineError) as caught:
        nonces.spend("cn/exchange/a", NONCE, now_s + 90, now_s + AHEAD_S + 1, now_s)
    assert caught.value.reasons[0].code == "peer_clock"
    nonces.spend("cn/exchange/a", NONCE, now_s + 90, now_s + AHEAD_S, now_s)
    with pytest.raises(TielineError) as caught:
        nonces.spend("cn/exchange/a", NONCE, now_s + 90, now_s + AHEAD_S, now_s)
    assert caught.value.reasons[0].code == "peer_replayed"
