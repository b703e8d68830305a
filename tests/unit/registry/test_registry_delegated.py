"""Delegated tokens: narrower than their giver, in time, for one exchange, believed because of the signature alone."""

import base64
import json

import msgspec
import pytest

from tieline.model.error import TielineError
from tieline.model.party import Actor, Role
from tieline.model.peer import DELEGATED, DelegatedToken
from tieline.model.reason import CATALOGUE
from tieline.model.scope import SCOPES
from tieline.registry import Key, sign_statement
from tieline.registry.delegated import (
    MARK,
    MOST_CHARACTERS,
    MOST_TTL_S,
    check_narrower,
    opened_token,
    require,
    sealed_token,
)

KEY = Key(b"a" * 32)
OTHER = Key(b"b" * 32)
KID = "cn#exchange"
A, B = "cn/exchange/main", "us/exchange/main"
NOW_S = 1_763_000_000
GOOD = DelegatedToken(
    id="d-1", by=A, to=B, user="alice", scopes=("run", "read:job"), nb_s=NOW_S, exp_s=NOW_S + 3_600, job="cn/job/j-1"
)


def change(**fields):
    return msgspec.structs.replace(GOOD, **fields)


def open_at_b(text, public=KEY.public, now_s=NOW_S):
    return opened_token(text, public, by=A, to=B, now_s=now_s)


def forged(payload, key=KEY, typ=DELEGATED):
    """A token with this very payload, whatever it says."""
    parts = json.loads(sign_statement(payload, key, KID, typ))
    return f"{MARK}{parts['protected']}.{parts['payload']}.{parts['signature']}"


def codes(caught):
    return [reason.code for reason in caught.value.reasons]


def test_what_was_signed_is_what_is_read():
    text = sealed_token(GOOD, KEY, KID)
    assert text.startswith(MARK)
    assert open_at_b(text) == GOOD
    assert open_at_b(text, now_s=NOW_S + 3_599) == GOOD


def test_the_same_token_is_the_same_word():
    assert sealed_token(GOOD, KEY, KID) == sealed_token(GOOD, KEY, KID)


def header(**changed):
    data = {"alg": "Ed25519", "kid": KID, "typ": "delegated-token+jws", **changed}
    text = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def with_header(**changed):
    """The good payload under another header, signed over it by the right key."""
    payload = sealed_token(GOOD, KEY, KID).split(".")[2]
    first = header(**changed)
    signature = base64.urlsafe_b64encode(KEY.sign(f"{first}.{payload}".encode())).rstrip(b"=").decode()
    return f"{MARK}{first}.{payload}.{signature}"


SEALED = sealed_token(GOOD, KEY, KID)
PLAIN = msgspec.to_builtins(GOOD)
HOSTILE = {
    "nothing": ("", "token_form"),
    "only its mark": (MARK, "token_form"),
    "no signature": (SEALED.rpartition(".")[0], "token_form"),
    "an empty signature": (SEALED.rpartition(".")[0] + ".", "token_form"),
    "four parts": (SEALED + ".AA", "token_form"),
    "a line end": (SEALED + "\n", "token_form"),
    "padding": (SEALED + "==", "token_form"),
    "too long": (MARK + "A" * MOST_CHARACTERS, "token_form"),
    "half a signature": (SEALED[:-43], None),
    "another signature": (SEALED[:-8] + "AAAAAAAA", None),
    "another payload": (SEALED.replace(SEALED.split(".")[2], SEALED.split(".")[2][:-4] + "fQAA"), None),
    "another key": (sealed_token(GOOD, OTHER, KID), "signature_wrong"),
    "another type of statement": (forged(PLAIN, typ="usage-claim"), "header_type"),
    "no algorithm": (with_header(alg="none"), "header_algorithm"),
    "a symmetric algorithm": (with_header(alg="HS256"), "header_algorithm"),
    "a key in its header": (with_header(jwk={"kty": "OKP"}), "header_key_source"),
    "an address of keys": (with_header(jku="https://evil.example/keys"), "header_key_source"),
    "a critical extension": (with_header(crit=["b64"]), "header_critical"),
    "a field that could narrow it": (forged({**PLAIN, "only_on": "mondays"}), "token_form"),
    "a field of another type": (forged({**PLAIN, "exp_s": "never"}), "token_form"),
    "no user": (forged({name: value for name, value in PLAIN.items() if name != "user"}), "token_form"),
    "a role that is none": (forged({**PLAIN, "roles": ["root"]}), "token_form"),
    "too many scopes": (forged({**PLAIN, "scopes": ["run"] * 33}), "token_form"),
    "no scope, which would be every scope": (forged({**PLAIN, "scopes": []}), "token_form"),
    "nobody": (forged({**PLAIN, "user": ""}), "token_form"),
    "no name": (forged({**PLAIN, "id": ""}), "token_form"),
    "another giver": (forged({**PLAIN, "by": "eu/exchange/main"}), "token_by"),
    "for another exchange": (forged({**PLAIN, "to": "eu/exchange/main"}), "token_to"),
    "not yet": (forged({**PLAIN, "nb_s": NOW_S + 301}), "token_early"),
    "over": (forged({**PLAIN, "nb_s": NOW_S - 60, "exp_s": NOW_S}), "token_expired"),
    "for ever": (forged({**PLAIN, "exp_s": NOW_S + MOST_TTL_S + 1}), "token_long"),
    "for a run elsewhere": (forged({**PLAIN, "run": "r-1", "exp_s": NOW_S + MOST_TTL_S + 1}), "token_long"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_token_is_refused_with_a_named_reason(name):
    text, reason = HOSTILE[name]
    with pytest.raises(TielineError) as caught:
        open_at_b(text)
    assert caught.value.code == "unauthenticated"
    assert codes(caught)
    assert reason is None or codes(caught) == [reason]
    assert all(code in CATALOGUE for code in codes(caught))


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"scopes": ()}, "scopes"),
        ({"scopes": ("everything",)}, "scopes"),
        ({"scopes": ("submit",)}, "scopes"),  # no single job
        ({"exp_s": NOW_S}, "ttl_s"),
        ({"exp_s": NOW_S + MOST_TTL_S + 1}, "ttl_s"),
    ],
)
def test_no_exchange_signs_what_none_would_take(fields, where):
    with pytest.raises(TielineError) as caught:
        sealed_token(change(**fields), KEY, KID)
    assert (caught.value.code, caught.value.where) == ("invalid_request", where)


def test_a_scope_and_its_bounds_are_required():
    bound = change(run="r-1", pool="us.x/pool/p")
    require(bound, "run", job="cn/job/j-1", run="r-1", pool="us.x/pool/p", user="alice")
    require(bound, "read:job")
    for fields in ({"job": "cn/job/j-2"}, {"run": "r-2"}, {"pool": "us.x/pool/q"}, {"user": "bob"}):
        with pytest.raises(TielineError) as caught:
            require(bound, "run", **fields)
        assert (caught.value.code, codes(caught)) == ("forbidden", ["token_bound"])
    with pytest.raises(TielineError, match="`stop`") as caught:
        require(bound, "stop")
    assert (caught.value.code, codes(caught)) == ("forbidden", ["scope_missing"])


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("role", list(Role))
def test_nobody_passes_on_what_no_role_of_theirs_allows(role, scope):
    giver = Actor(name="x", roles=(role,))
    if role in SCOPES[scope].roles and role is not Role.ADMIN:
        check_narrower(giver, (scope,))
        return
    with pytest.raises(TielineError) as caught:
        check_narrower(giver, (scope,))
    assert (caught.value.code, codes(caught)) == ("forbidden", ["scope_not_held"])


def test_what_was_passed_on_is_not_passed_on_again_and_stays_in_its_project():
    with pytest.raises(TielineError) as caught:
        check_narrower(Actor(name="x", roles=(Role.USER,), scopes=("find",)), ("find",))
    assert codes(caught) == ["token_again"]
    in_project = Actor(name="x", roles=(Role.USER,), project="p1")
    check_narrower(in_project, ("find",), "p1")
    with pytest.raises(TielineError) as caught:
        check_narrower(in_project, ("find",), "p2")
    assert codes(caught) == ["token_bound"]
