"""Signed requests: what holds, and each way in which it must not."""

import base64
import hashlib

import pytest

from tieline.drivers.peers.signing import MOST_VALID_S, SKEW_S, VALID_S, Nonces, Signer, claimed_of, verify_request
from tieline.model.error import TielineError
from tieline.ports import FakeClock
from tieline.registry import Key

NOW_MS = 1_763_000_000_000
NOW_S = NOW_MS // 1000
KEY, OTHER = Key(hashlib.sha256(b"a").digest()), Key(hashlib.sha256(b"b").digest())
HERE, FROM = "cn/exchange/main", "cn.sh/exchange/main"
KID = "cn.sh#exchange"
URL = "http://127.0.0.1:7070/v1/logs/cn.sh/records?after=3&limit=2000"


def signer(key=KEY, at_ms=NOW_MS):
    return Signer(FROM, key, KID, FakeClock(at_ms=at_ms))


def signed(method="POST", url=URL, body=b'{"a":1}', to=HERE, by=None, **headers):
    sent = {"Host": "127.0.0.1:7070", "Content-Type": "application/json", **headers}
    return method, url, (by or signer()).headers(method, url, to, sent, body=body)


def check(request, public=KEY.public, nonces=None, now_s=NOW_S, here=HERE):
    method, url, headers = request
    claimed = claimed_of(method, url, headers.items())
    verify_request(claimed, here, KID, public, Nonces(0) if nonces is None else nonces, now_s)
    return claimed


def refusal(*args, **names):
    with pytest.raises(TielineError) as caught:
        check(*args, **names)
    assert caught.value.code == "unauthenticated"
    return caught.value.reasons[0].code


def test_a_signed_request_is_believed_and_names_its_body():
    claimed = check(signed())
    assert claimed.exchange == FROM
    assert claimed.digest == hashlib.sha256(b'{"a":1}').digest()


def test_a_request_without_a_body_has_no_digest():
    assert check(signed(method="GET", body=None)).digest is None


def test_a_body_that_is_streamed_is_named_by_its_hash():
    digest = hashlib.sha256(b"stream").hexdigest()
    headers = signer().headers("PUT", URL, HERE, {"Host": "127.0.0.1:7070"}, digest=digest)
    assert check(("PUT", URL, headers)).digest.hex() == digest


def test_the_same_request_is_not_believed_twice():
    nonces, request = Nonces(0), signed()
    check(request, nonces=nonces)
    assert refusal(request, nonces=nonces) == "peer_replayed"
    assert len(nonces) == 1


def test_a_nonce_is_forgotten_only_after_its_signature_has_expired():
    nonces, request = Nonces(0), signed()
    check(request, nonces=nonces)
    last_s = NOW_S + VALID_S + SKEW_S
    assert refusal(request, nonces=nonces, now_s=last_s) == "peer_replayed"
    assert refusal(request, nonces=nonces, now_s=last_s + 1) == "peer_clock"
    check(signed(by=signer(at_ms=(last_s + 1) * 1000)), nonces=nonces, now_s=last_s + 1)
    assert len(nonces) == 1


def test_what_was_signed_before_nonces_were_remembered_may_be_a_replay():
    assert refusal(signed(), nonces=Nonces(NOW_S + 1)) == "peer_replayed"


def test_more_signed_requests_than_can_be_remembered_are_refused_by_name():
    nonces = Nonces(0, most=3)
    for _ in range(3):
        check(signed(), nonces=nonces)
    with pytest.raises(TielineError) as caught:
        check(signed(), nonces=nonces)
    assert caught.value.code == "rate_limited"
    check(signed(by=signer(at_ms=NOW_MS + 200_000)), nonces=nonces, now_s=NOW_S + 200)
    assert len(nonces) == 1


@pytest.mark.parametrize("off_s", [-SKEW_S - 1, SKEW_S + VALID_S + 1])
def test_a_clock_that_is_too_far_off_is_named(off_s):
    assert refusal(signed(), now_s=NOW_S + off_s) == "peer_clock"


@pytest.mark.parametrize("off_s", [-SKEW_S, SKEW_S + VALID_S])
def test_a_clock_within_the_skew_does_no_harm(off_s):
    check(signed(), now_s=NOW_S + off_s)


def test_a_request_to_another_exchange_cannot_be_passed_on():
    assert refusal(signed(to="cn.gd/exchange/main")) == "peer_misdirected"


def test_only_the_pinned_key_counts():
    assert refusal(signed(by=signer(OTHER))) == "peer_signature"
    assert refusal(signed(), public=OTHER.public) == "peer_signature"


def test_a_key_of_small_order_is_no_key():
    assert refusal(signed(), public="A" * 43) == "peer_signature"


def changed(request, **headers):
    method, url, sent = request
    return method, url, {**sent, **{name.replace("_", "-"): value for name, value in headers.items()}}


@pytest.mark.parametrize(
    "change",
    [
        lambda method, url, sent: ("GET", url, sent),
        lambda method, url, sent: (method, url.replace("after=3", "after=4"), sent),
        lambda method, url, sent: (method, url.replace("cn.sh", "cn.gd"), sent),
        lambda method, url, sent: (method, url.replace("7070", "7071"), sent),
        lambda method, url, sent: (method, url, {**sent, "Tieline-From": "cn.gd/exchange/main"}),
        lambda method, url, sent: (method, url, {**sent, "Content-Type": "text/plain"}),
        lambda method, url, sent: (method, url, {**sent, "Idempotency-Key": "k-2"}),
        lambda method, url, sent: (method, url, {**sent, "Last-Event-ID": "9"}),
        lambda method, url, sent: (method, url, {**sent, "Range": "bytes=0-1"}),
        lambda method, url, sent: (method, url, {**sent, "Signature": sent["Signature"][:-4] + "AA=:"}),
        lambda method, url, sent: (method, url, {**sent, "Signature": "tieline=:AA==:"}),
        lambda method, url, sent: (method, url, {**sent, "Signature": "garbage"}),
        lambda method, url, sent: (method, url, {k: v for k, v in sent.items() if k != "Signature-Input"}),
        lambda method, url, sent: (method, url, {k: v for k, v in sent.items() if k != "Content-Digest"}),
        lambda method, url, sent: (
            method,
            url,
            {**sent, "Content-Digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"},
        ),
        lambda method, url, sent: (
            method,
            url,
            {**sent, "Signature-Input": sent["Signature-Input"].replace("ed25519", "hmac-sha256")},
        ),
        lambda method, url, sent: (
            method,
            url,
            {**sent, "Signature-Input": sent["Signature-Input"].replace(' "@query"', "")},
        ),
        lambda method, url, sent: (
            method,
            url,
            {**sent, "Signature-Input": sent["Signature-Input"].replace("tieline-peer", "other")},
        ),
        lambda method, url, sent: (
            method,
            url,
            {**sent, "Signature-Input": sent["Signature-Input"].replace("cn.sh#exchange", "cn.gd#exchange")},
        ),
        lambda method, url, sent: (method, url, {**sent, "Signature-Input": "x" * 5_000}),
    ],
)
def test_whatever_is_changed_on_the_way_breaks_the_signature(change):
    assert refusal(change(*signed(**{"Idempotency-Key": "k-1"}))) == "peer_signature"


def test_a_header_that_stands_twice_is_refused():
    method, url, headers = signed()
    with pytest.raises(TielineError, match="stands there twice"):
        claimed_of(method, url, [*headers.items(), ("tieline-from", FROM)])


def test_a_signature_that_would_count_too_long_is_refused(monkeypatch):
    monkeypatch.setattr("tieline.drivers.peers.signing.VALID_S", MOST_VALID_S + 1)
    assert refusal(signed()) == "peer_signature"


def test_a_short_nonce_is_refused(monkeypatch):
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: "short")
    assert refusal(signed()) == "peer_signature"


def test_two_tries_of_one_call_are_two_signatures():
    one, two = signed(), signed()
    assert one[2]["Signature"] != two[2]["Signature"]
