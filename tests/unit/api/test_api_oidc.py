"""Identity providers: who they say somebody is, what is not believed, and what happens while keys change or fail."""

import base64
import hashlib
import hmac
import json
import sys
import time
from pathlib import Path

import msgspec
import pytest
from test_api_gate import refused
from test_api_jobs import HELLO

sys.path.insert(0, str(Path(__file__).parents[2]))
from oidc_provider import AUDIENCE, CLIENT, ProviderProcess, SigningKey, base64url
from tieline.api.oidc import IssuerFile, Issuers, Membership, OidcFile
from tieline.api.oidctoken import ALGORITHMS, MOST_CHARACTERS, keys_of
from tieline.model.error import TielineError
from tieline.model.party import Role
from tieline.model.peer import Peer, PeerRole, PeerState
from tieline.model.reason import CATALOGUE
from tieline.ports import FakeClock

GROUPS = {
    "hpc-admins": {"roles": ["admin", "user"]},
    "hpc-users": {"roles": ["user"]},
    "lab": {"roles": ["owner"], "owner": "lab7"},
    "watchers": {"roles": ["auditor"]},
}


@pytest.fixture(scope="module")
def process():
    running = ProviderProcess()
    yield running
    running.stop()


@pytest.fixture
def provider(process):
    """The one provider of this file, well-behaved again, with one key."""
    process.do("behave")
    process.do("rotate", keep=0)
    return process


class Ticks:
    """A clock for the age of keys that a test moves."""

    def __init__(self):
        self.at_s = 1_000.0

    def __call__(self):
        return self.at_s


def stated(provider, **fields):
    return {
        "alias": "corp",
        "issuer": provider.url,
        "client_id": CLIENT,
        "audience": [AUDIENCE, CLIENT],
        "user_claim": "preferred_username",
        "groups": GROUPS,
        **fields,
    }


def believe(world, provider, *more, **fields):
    """Let ``world`` believe the provider, with what differs."""
    world.ticks = Ticks()
    file = msgspec.convert({"issuers": [stated(provider, **fields), *more]}, OidcFile)
    world.platform.issuers = Issuers(file, world.keys.prefix, world.ticks)
    return world


@pytest.fixture
def trusting(fresh, provider):
    """An exchange of now that believes the provider."""
    return believe(fresh(clock=FakeClock(at_ms=int(time.time() * 1000))), provider)


def reason_of(answer, code="unauthenticated"):
    refused(answer, code)
    return answer.json()["reasons"][0]["code"]


def me(world, token):
    """Who the holder is, by a clock that goes with the provider's, unless a test moved it ahead."""
    world.clock.at_ms = max(world.clock.at_ms, int(time.time() * 1000))
    return world.bearer(token).get("/v1/me")


# -- who somebody is --------------------------------------------------------------------------------------------------


def test_a_user_of_the_provider_has_the_roles_of_its_groups_and_a_name_that_nobody_here_can_have(trusting, provider):
    said = me(trusting, provider.mint("alice", typ="at+jwt")).json()
    assert said["name"] == "corp:alice"
    assert said["roles"] == ["user", "owner"]
    assert said["owner"] == "cn.demo.lab7"
    assert said["right"] == "oidc corp"
    assert said["groups"] == ["corp:lab", "corp:hpc-users"]
    assert me(trusting, provider.mint("bob")).json()["roles"] == ["admin", "user"]
    refused(trusting.admin.post("/v1/tokens", json={"name": "corp:alice", "roles": ["user"]}), "invalid_request")


def test_an_identity_token_is_taken_like_an_access_token(trusting, provider):
    assert me(trusting, provider.mint("bob", claims={"aud": CLIENT})).json()["name"] == "corp:bob"


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_every_algorithm_of_the_list_is_verified(trusting, provider, alg):
    provider.do("rotate", alg=alg, keep=0)
    assert me(trusting, provider.mint()).status_code == 200


def test_somebody_in_no_group_that_has_a_role_here_is_told_so(trusting, provider):
    answer = me(trusting, provider.mint("mallory"))
    assert reason_of(answer, "forbidden") == "oidc_no_role"
    assert "corp:mallory" in answer.json()["message"]


def test_a_row_for_everybody_counts_for_everybody(fresh, provider):
    world = believe(
        fresh(clock=FakeClock(at_ms=int(time.time() * 1000))), provider, groups={"*": {"roles": ["regulator"]}}
    )
    assert me(world, provider.mint("mallory")).json()["roles"] == ["regulator"]


def test_claims_may_stand_deeper_or_under_a_name_with_dots(fresh, provider):
    world = fresh(clock=FakeClock(at_ms=int(time.time() * 1000)))
    token = provider.mint(claims={"groups": None, "realm_access": {"roles": ["hpc-users"]}, "https://x.y/n": "ann"})
    believe(world, provider, groups_claim="realm_access.roles", user_claim="https://x.y/n")
    assert me(world, token).json()["name"] == "corp:ann"


def test_an_address_names_somebody_only_when_the_provider_verified_it(fresh, provider):
    world = believe(fresh(clock=FakeClock(at_ms=int(time.time() * 1000))), provider, user_claim="email")
    claims = {"email": "a@x.example", "email_verified": True}
    assert me(world, provider.mint(claims=claims)).json()["name"] == "corp:a@x.example"
    for unproved in (False, "true", None):
        token = provider.mint(claims={**claims, "email_verified": unproved})
        assert reason_of(me(world, token)) == "oidc_claim"


def test_nobody_passes_for_the_user_of_a_peer_or_of_this_exchange_elsewhere(fresh, provider):
    world = believe(fresh(clock=FakeClock(at_ms=int(time.time() * 1000))), provider, user_claim="email")
    token = provider.mint(claims={"email": "a@cn.far", "email_verified": True})
    assert me(world, token).json()["name"] == "corp:a@cn.far"
    far = Peer(
        id="cn.far/exchange/main", prefix="cn.far", public="", url="http://127.0.0.1:9", role=PeerRole.PEER,
        state=PeerState.OFFERED,
    )  # fmt: skip
    world.platform.view.peers[far.id] = far
    assert reason_of(me(world, token)) == "name_of_peer"
    assert me(world, provider.mint(claims={"email": "a@cn.farther", "email_verified": True})).status_code == 200
    ours = provider.mint(claims={"email": f"a@{world.keys.prefix}", "email_verified": True})
    assert reason_of(me(world, ours)) == "name_of_peer"
    refused(world.admin.post("/v1/tokens", json={"name": "a@cn.far", "roles": ["user"]}), "invalid_request")


def test_two_providers_are_kept_apart(fresh, provider):
    other = ProviderProcess()
    try:
        world = fresh(clock=FakeClock(at_ms=int(time.time() * 1000)))
        believe(world, provider, stated(other, alias="other"))
        assert me(world, provider.mint("bob")).json()["name"] == "corp:bob"
        assert me(world, other.mint("bob")).json()["name"] == "other:bob"
        assert reason_of(me(world, other.mint(claims={"iss": provider.url}))) in ("oidc_key", "oidc_signature")
        assert [each["alias"] for each in world.http.get("/v1/exchange").json()["issuers"]] == ["corp", "other"]
    finally:
        other.stop()


def test_jobs_and_the_log_carry_the_name_and_the_right(trusting, provider):
    trusting.site("lab7", "gz1")
    client = trusting.bearer(provider.mint("alice"))
    answer = client.post("/v1/jobs", json=HELLO)
    assert answer.status_code == 201, answer.text
    (job,) = answer.json()["jobs"]
    assert job["user"] == "corp:alice"
    assert [each["id"] for each in client.get("/v1/jobs").json()["jobs"]] == [job["id"]]
    assert trusting.as_("alice", Role.USER).get("/v1/jobs").json()["jobs"] == []
    events = trusting.admin.get("/v1/events?limit=1000").json()["events"]
    assert [each["source"] for each in events if each["kind"] == "job_submitted"] == ["127.0.0.1 oidc corp"]
    made = client.post("/v1/tokens/delegated", json={"scopes": ["read:job"]})
    assert made.status_code == 201, made.text
    passed_on = me(trusting, made.json()["secret"]).json()
    assert (passed_on["name"], passed_on["groups"]) == ("corp:alice", ["corp:lab", "corp:hpc-users"])


# -- what is not believed ---------------------------------------------------------------------------------------------


def raw(header, claims, signature=b""):
    """A token with these very bytes."""
    parts = (each if isinstance(each, bytes) else json.dumps(each).encode() for each in (header, claims))
    return ".".join([*map(base64url, parts), base64url(signature)])


def claims_of(token):
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def symmetric(provider, alg, secret):
    """The confusion of RFC 8725, 2.1: the public key as the secret of an HMAC."""
    token = raw({"alg": alg, "kid": provider.published()[0]["kid"], "typ": "JWT"}, claims_of(provider.mint()))
    message = token.rpartition(".")[0]
    return f"{message}.{base64url(hmac.new(secret, message.encode(), hashlib.sha256).digest())}"


def public_text(provider):
    return json.dumps(provider.published()[0]).encode()


def pem_of(provider):
    from joserfc.jwk import RSAKey

    return RSAKey.import_key(provider.published()[0]).as_pem(private=False)


def own_key(provider, **head):
    """Signed by an attacker's key that the header brings along."""
    key = SigningKey(provider.published()[0]["kid"], "RS256")
    if "jwk" in head:
        head["jwk"] = key.shown()
    return key.token(claims_of(provider.mint()), **head)


def swapped(provider):
    """The signature of one token under the claims of another."""
    mine, theirs = provider.mint("alice"), provider.mint("bob")
    return ".".join([*theirs.split(".")[:2], mine.split(".")[2]])


def published_as(provider, **fields):
    """A token of the provider's key, while the key set says of it what is in ``fields``."""
    token = provider.mint()
    key = provider.published()[0]
    provider.do("rotate", keep=0)
    provider.do("behave", more_keys=[{**key, **fields}])
    return token


def now_s():
    return int(time.time())


NOW_S = now_s()
HOSTILE = {
    "no algorithm": (lambda p: raw({"alg": "none", "typ": "JWT"}, claims_of(p.mint())), "oidc_algorithm"),
    "no algorithm, by another spelling": (lambda p: raw({"alg": "nOnE"}, claims_of(p.mint())), "oidc_algorithm"),
    "no algorithm at all": (lambda p: raw({"typ": "JWT"}, claims_of(p.mint())), "oidc_algorithm"),
    "an algorithm that is a list": (lambda p: raw({"alg": ["RS256"]}, claims_of(p.mint())), "oidc_algorithm"),
    "an HMAC with the public key as JSON": (lambda p: symmetric(p, "HS256", public_text(p)), "oidc_algorithm"),
    "an HMAC with the public key as PEM": (lambda p: symmetric(p, "HS256", pem_of(p)), "oidc_algorithm"),
    "an algorithm beyond the list": (lambda p: p.mint(alg="RS512"), "oidc_algorithm"),
    "another algorithm than the key's": (lambda p: p.mint(alg="ES256"), "oidc_key"),
    "a key of its own under the provider's name": (own_key, "oidc_signature"),
    "a key in its header": (lambda p: own_key(p, jwk=True), "oidc_signature"),
    "an address of keys": (lambda p: own_key(p, jku="https://evil.example/keys"), "oidc_signature"),
    "an address of certificates": (lambda p: own_key(p, x5u="https://evil.example/x"), "oidc_signature"),
    "a path for a key name": (lambda p: p.mint(kid="../../etc/passwd"), "oidc_key"),
    "a key name that is a number": (lambda p: p.mint(kid=7), "oidc_form"),
    "a critical extension": (lambda p: p.mint(crit=["b64"], b64=False), "oidc_form"),
    "the type of a logout token": (lambda p: p.mint(typ="logout+jwt"), "oidc_type"),
    "the type of a proof of possession": (lambda p: p.mint(typ="dpop+jwt"), "oidc_type"),
    "a security event": (lambda p: p.mint(claims={"events": {}}), "oidc_type"),
    "no signature": (lambda p: p.mint().rpartition(".")[0] + ".", "oidc_signature"),
    "another's signature": (swapped, "oidc_signature"),
    "half a signature": (lambda p: p.mint()[:-170], "oidc_signature"),
    "another payload": (lambda p: p.mint().replace(".", ".A", 1), "oidc_form"),
    "two parts": (lambda p: p.mint().rpartition(".")[0], "oidc_form"),
    "five parts": (lambda p: p.mint() + ".AA.AA", "oidc_form"),
    "padding": (lambda p: p.mint() + "==", "oidc_form"),
    "claims that are a list": (lambda p: raw({"alg": "RS256"}, []), "oidc_form"),
    "claims that are no JSON": (lambda p: raw({"alg": "RS256"}, b"\xff\xfe"), "oidc_form"),
    "claims nested without end": (lambda p: raw({"alg": "RS256"}, b'{"a":' + b"[" * 9_000), "oidc_form"),
    "too long": (lambda p: p.mint(claims={"pad": "x" * MOST_CHARACTERS}), "oidc_form"),
    "an issuer that is not believed": (lambda p: p.mint(claims={"iss": "https://evil.example"}), "oidc_issuer"),
    "the issuer with a slash": (lambda p: p.mint(claims={"iss": p.url + "/"}), "oidc_issuer"),
    "no issuer": (lambda p: p.mint(claims={"iss": None}), "oidc_issuer"),
    "issuers": (lambda p: p.mint(claims={"iss": [p.url]}), "oidc_issuer"),
    "for somebody else": (lambda p: p.mint(claims={"aud": "mail"}), "oidc_audience"),
    "for nobody": (lambda p: p.mint(claims={"aud": None}), "oidc_audience"),
    "for an empty list": (lambda p: p.mint(claims={"aud": []}), "oidc_audience"),
    "for a part of our name": (lambda p: p.mint(claims={"aud": "tie"}), "oidc_audience"),
    "for an object": (lambda p: p.mint(claims={"aud": {"tieline": 1}}), "oidc_audience"),
    "asked for by another client": (lambda p: p.mint(claims={"azp": "game"}), "oidc_party"),
    "asked for by another client, as RFC 9068 has it": (
        lambda p: p.mint(claims={"azp": None, "client_id": "game"}),
        "oidc_party",
    ),
    "for several, and nobody asked": (lambda p: p.mint(claims={"aud": ["tieline", "x"], "azp": None}), "oidc_party"),
    "over": (lambda p: p.mint(claims={"exp": NOW_S - 120}), "oidc_expired"),
    "without an end": (lambda p: p.mint(claims={"exp": None}), "oidc_claim"),
    "an end that is text": (lambda p: p.mint(claims={"exp": str(NOW_S + 300)}), "oidc_claim"),
    "an end that is true": (lambda p: p.mint(claims={"exp": True}), "oidc_claim"),
    "an end beyond time": (lambda p: p.mint(claims={"exp": 1e30}), "oidc_claim"),
    "not yet": (lambda p: p.mint(claims={"nbf": NOW_S + 3_600}), "oidc_early"),
    "made tomorrow": (lambda p: p.mint(claims={"iat": NOW_S + 86_400}), "oidc_early"),
    "made at no time": (lambda p: p.mint(claims={"iat": None}), "oidc_claim"),
    "an end before it was made": (lambda p: p.mint(claims={"iat": now_s() + 30, "exp": now_s() + 20}), "oidc_claim"),
    "a life without measure": (lambda p: p.mint(claims={"exp": now_s() + 10**8}), "oidc_long"),
    "made long ago, to live on": (lambda p: p.mint(claims={"iat": 1}), "oidc_long"),
    "bound to a key": (lambda p: p.mint(claims={"cnf": {"jkt": "x"}}), "oidc_bound"),
    "bound to a certificate": (lambda p: p.mint(claims={"cnf": {"x5t#S256": "x"}}), "oidc_bound"),
    "a refresh token": (lambda p: p.mint(claims={"typ": "Refresh"}), "oidc_type"),
    "an offline token": (lambda p: p.mint(claims={"typ": "Offline"}), "oidc_type"),
    "no subject": (lambda p: p.mint(claims={"sub": None}), "oidc_claim"),
    "an empty subject": (lambda p: p.mint(claims={"sub": ""}), "oidc_claim"),
    "a subject that is a number": (lambda p: p.mint(claims={"sub": 7}), "oidc_claim"),
    "no user": (lambda p: p.mint(claims={"preferred_username": None}), "oidc_claim"),
    "a user with a line end": (lambda p: p.mint(claims={"preferred_username": "a\nb"}), "oidc_claim"),
    "a user with a space": (lambda p: p.mint(claims={"preferred_username": "a b"}), "oidc_claim"),
    "a user that is too long": (lambda p: p.mint(claims={"preferred_username": "a" * 161}), "oidc_claim"),
    "a key that is to encrypt": (lambda p: published_as(p, use="enc"), "oidc_key"),
    "a key for another algorithm": (lambda p: published_as(p, alg="RS512"), "oidc_key"),
    "a key that is not to verify": (lambda p: published_as(p, key_ops=["encrypt"]), "oidc_key"),
    "a key that is symmetric": (lambda p: published_as(p, kty="oct", k="AAAA"), "oidc_key"),
    "a weak key": (lambda p: published_as(p, n=base64url(b"\xc1" + b"\x01" * 127)), "oidc_key"),
}


@pytest.fixture(scope="module")
def steady(tmp_path_factory):
    """One exchange for all hostile tokens."""
    from api_world import World

    world = World(tmp_path_factory.mktemp("steady"), clock=FakeClock(at_ms=int(time.time() * 1000))).start()
    yield world
    world.stop()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_token_is_refused_with_a_named_reason(steady, provider, name):
    make, reason = HOSTILE[name]
    believe(steady, provider)
    before = steady.writer.position
    answer = me(steady, make(provider))
    assert reason_of(answer) == reason
    assert reason in CATALOGUE
    assert steady.writer.position == before
    provider.do("behave")
    provider.do("rotate", keep=0)
    steady.ticks.at_s += 1_000
    assert me(steady, provider.mint()).status_code == 200, "an honest token is believed after that"


def test_groups_that_are_none_give_no_roles(trusting, provider):
    for said in ({"hpc-admins": True}, 7, "hpc-admins,hpc-users", [["hpc-admins"]], [None], ["HPC-ADMINS"]):
        assert reason_of(me(trusting, provider.mint(claims={"groups": said})), "forbidden") == "oidc_no_role"
    assert me(trusting, provider.mint(claims={"groups": "hpc-users"})).json()["roles"] == ["user"]


def test_a_clock_that_is_a_little_off_is_borne(trusting, provider):
    believe(trusting, provider, skew_s=300)
    for claims in ({"exp": now_s() - 60, "iat": now_s() - 360}, {"nbf": now_s() + 240}, {"iat": now_s() + 240}):
        assert me(trusting, provider.mint(claims=claims)).status_code == 200, claims
    token = provider.mint()
    trusting.clock.advance(700_000)
    assert reason_of(me(trusting, token)) == "oidc_expired"


def test_without_a_configuration_no_provider_is_believed(fresh, provider):
    world = fresh(clock=FakeClock(at_ms=int(time.time() * 1000)))
    refused(me(world, provider.mint("bob")), "unauthenticated")
    assert world.http.get("/v1/exchange").json()["issuers"] == []


# -- keys that change, providers that fail ----------------------------------------------------------------------------


def test_keys_are_asked_for_once_and_again_when_a_new_one_appears(trusting, provider):
    before = provider.counts().get("keys", 0)
    first = provider.mint()
    for _ in range(5):
        assert me(trusting, first).status_code == 200
    assert provider.counts()["keys"] == before + 1
    provider.do("rotate", keep=1)
    trusting.ticks.at_s += 10
    second = provider.mint()
    assert me(trusting, second).status_code == 200
    assert me(trusting, first).status_code == 200, "the old key is still published"
    assert provider.counts()["keys"] == before + 2


def test_a_key_that_left_the_set_is_not_believed_once_the_set_was_seen(trusting, provider):
    old = provider.mint()
    assert me(trusting, old).status_code == 200
    provider.do("rotate", keep=0)
    trusting.ticks.at_s += 10
    assert me(trusting, provider.mint()).status_code == 200
    assert reason_of(me(trusting, old)) == "oidc_key"


def test_unknown_keys_cannot_make_the_exchange_flood_the_provider(trusting, provider):
    assert me(trusting, provider.mint()).status_code == 200
    before = provider.counts()["keys"]
    trusting.ticks.at_s += 10
    for number in range(20):
        assert reason_of(me(trusting, provider.mint(kid=f"made-up-{number}"))) == "oidc_key"
    assert provider.counts()["keys"] == before + 1


def test_another_key_under_a_known_name_is_found_and_floods_nobody(trusting, provider):
    kid = provider.published()[0]["kid"]
    assert me(trusting, provider.mint()).status_code == 200
    before = provider.counts()["keys"]
    provider.do("rotate", keep=0, kid=kid)
    for _ in range(5):
        assert reason_of(me(trusting, provider.mint())) == "oidc_signature", "not before the time has come"
    assert provider.counts()["keys"] == before
    trusting.ticks.at_s += 10
    assert me(trusting, provider.mint()).status_code == 200
    assert provider.counts()["keys"] == before + 1
    for _ in range(5):
        assert reason_of(me(trusting, swapped(provider))) == "oidc_signature"
    assert provider.counts()["keys"] == before + 1


def test_keys_that_nobody_confirmed_for_long_count_no_more(trusting, provider):
    believe(trusting, provider, kept_s=7_200)
    token = provider.mint()
    assert me(trusting, token).status_code == 200
    provider.do("behave", keys="down")
    trusting.ticks.at_s += 7_000
    assert me(trusting, token).status_code == 200
    trusting.ticks.at_s += 300
    assert reason_of(me(trusting, token)) == "oidc_unreachable"
    provider.do("behave")
    trusting.ticks.at_s += 10
    assert me(trusting, token).status_code == 200


def test_what_is_passed_on_ends_with_the_token_of_the_provider(trusting, provider):
    end_s = int(time.time()) + 120
    client = trusting.bearer(provider.mint("alice", claims={"exp": end_s}))
    made = client.post("/v1/tokens/delegated", json={"scopes": ["read:job"], "ttl_s": 86_400})
    assert made.status_code == 201, made.text
    assert made.json()["expires_ms"] == end_s * 1000


def test_old_keys_are_asked_for_again_meanwhile(trusting, provider):
    token = provider.mint()
    assert me(trusting, token).status_code == 200
    provider.do("rotate", keep=0)
    trusting.ticks.at_s += 3_601
    deadline = time.monotonic() + 60
    while me(trusting, token).status_code == 200:
        assert time.monotonic() < deadline, "a key that left the set is believed for ever"
        trusting.ticks.at_s += 10
        time.sleep(0.05)
    assert reason_of(me(trusting, token)) == "oidc_key"


@pytest.mark.parametrize("way", ["down", "redirect", "huge", "page", "stuck"])
def test_while_the_provider_fails_known_keys_serve_and_new_ones_do_not(trusting, provider, way, monkeypatch):
    monkeypatch.setattr("tieline.drivers.http.issuer.MOST_S", 1.0 if way == "stuck" else 30.0)
    known = provider.mint()
    assert me(trusting, known).status_code == 200
    provider.do("rotate", keep=0)
    new = provider.mint()
    before = provider.counts().get("elsewhere", 0)
    provider.do("behave", keys=way)
    trusting.ticks.at_s += 4_000
    assert me(trusting, known).status_code == 200
    assert reason_of(me(trusting, new)) == "oidc_unreachable"
    assert me(trusting, known).status_code == 200
    assert provider.counts().get("elsewhere", 0) == before, "a redirect was followed"
    provider.do("behave")
    trusting.ticks.at_s += 10
    assert me(trusting, new).status_code == 200


@pytest.mark.parametrize(
    "discovery",
    [
        {"jwks_uri": "https://evil.example/keys"},
        {"jwks_uri": "http://127.0.0.1:1/keys"},
        {"jwks_uri": "http://169.254.169.254/latest/meta-data"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://user@127.0.0.1/keys"},
        {"jwks_uri": None},
        {"issuer": "https://evil.example"},
        {"issuer": None},
    ],
    ids=str,
)
def test_a_discovery_document_leads_nowhere_else(trusting, provider, discovery):
    token = provider.mint()
    provider.do("behave", discovery=discovery)
    assert reason_of(me(trusting, token)) == "oidc_unreachable"


def test_a_provider_that_is_gone_is_named_and_everybody_else_goes_on(fresh, provider):
    gone = ProviderProcess()
    token = gone.mint("bob")
    gone.stop()
    world = believe(fresh(clock=FakeClock(at_ms=int(time.time() * 1000))), provider, stated(gone, alias="gone"))
    answer = me(world, token)
    assert reason_of(answer) == "oidc_unreachable"
    assert "`gone`" in answer.json()["message"]
    assert me(world, provider.mint()).status_code == 200
    assert world.admin.get("/v1/me").status_code == 200


# -- configuration ----------------------------------------------------------------------------------------------------

GOOD = {"alias": "corp", "issuer": "https://sso.example", "client_id": "tieline"}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "malformed"),
        (b"{}", "issuers"),
        (b'{"issuers":[]}', "length"),
        ([{**GOOD, "colour": "red"}], "colour"),
        ([{**GOOD, "alias": "Corp:x"}], "alias"),
        ([{**GOOD, "issuer": "http://sso.example"}], "https"),
        ([{**GOOD, "issuer": "https://sso.example", "groups": {"x": {"roles": ["root"]}}}], "roles"),
        ([{**GOOD, "groups": {"x": {"roles": ["site"]}}}], "keys only"),
        ([{**GOOD, "groups": {"x": {"roles": ["peer"]}}}], "keys only"),
        ([{**GOOD, "groups": {"x": {"roles": ["owner"]}}}], "owner"),
        ([{**GOOD, "groups": {"x": {"roles": ["user"], "owner": "lab7"}}}], "owner"),
        ([GOOD, GOOD], "alias"),
        ([GOOD, {**GOOD, "issuer": "https://two.example"}], "alias"),
    ],
    ids=str,
)
def test_a_configuration_that_means_nothing_is_refused_whole(tmp_path, content, word):
    data = content if isinstance(content, bytes) else json.dumps({"issuers": content}).encode()
    (tmp_path / "oidc.json").write_bytes(data)
    with pytest.raises(TielineError) as caught:
        Issuers.of(tmp_path, "cn.demo")
    assert caught.value.code in ("invalid_request", "check_failed")
    assert word in str(caught.value) or (not data and "truncated" in str(caught.value))


def test_every_setting_is_in_the_documentation():
    page = (Path(__file__).parents[3] / "docs" / "operate" / "identity.md").read_text()
    settings = [*IssuerFile.__struct_fields__, *Membership.__struct_fields__]
    assert [name for name in settings if f"`{name}`" not in page and f'"{name}"' not in page] == []
    example = page.partition("```json\n")[2].partition("```")[0]
    assert Issuers(msgspec.json.decode(example, type=OidcFile), "cn.demo").views()[0].alias == "corp"


def test_a_key_set_that_is_none_is_refused():
    for data in (b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[7]}', b'{"keys":[' + b"{}," * 100 + b"{}]}"):
        with pytest.raises(TielineError):
            keys_of(data)
    odd = [{"kty": kty, "kid": "a", "n": 7, "x": [], "crv": {}} for kty in ("RSA", "EC", "OKP", "oct", None, [], {})]
    assert keys_of(json.dumps({"keys": odd}).encode()) == ()


def test_the_list_of_algorithms_has_no_secret_ones():
    assert sorted(ALGORITHMS) == ["ES256", "Ed25519", "EdDSA", "RS256"]
