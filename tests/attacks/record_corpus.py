"""The attack corpus on records: what is sent, and the one rule that must refuse it."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any, NamedTuple

from record_world import (
    DAY_S,
    NOW_S,
    PAST_S,
    RecordWorld,
    base64url,
    compact,
    delegated,
    delegation,
    forged,
    header,
    honest,
    key_of,
    payload,
    weak_public,
)
from tieline.model.error import TielineError
from tieline.registry import sign_statement
from tieline.registry.keys import GROUP_ORDER

NEW = "cn.demo.lab7/pool/new"
KID = "cn.demo.lab7#k1"
A100 = "cn.demo.lab7/pool/a100"


def text(**changes: Any) -> bytes:
    return compact(payload(NEW, **changes))


class Attack(NamedTuple):
    name: str
    rule: str  # the reason code that must be given
    send: Callable[[RecordWorld], bytes]


def head_attack(name: str, rule: str, **changes: Any) -> Attack:
    """A valid record but for its header."""
    return Attack(name, rule, lambda _: forged(payload(NEW), header(KID, **changes), key_of(KID)))


def body_attack(name: str, rule: str, identifier: str = NEW, **changes: Any) -> Attack:
    """A record signed by the right key, whose payload says something that it must not."""
    return Attack(name, rule, lambda _: honest(identifier, **changes))


def raw_attack(name: str, rule: str, body: bytes) -> Attack:
    """Payload bytes that another reader could take for something else."""
    return Attack(name, rule, lambda _: forged(body, header(KID), key_of(KID)))


def spliced_attack(name: str, rule: str, inside: bytes) -> Attack:
    """Payload bytes with ``inside`` as the raw value of a field of the spec."""
    return raw_attack(name, rule, text(spec={"title": "HERE"}).replace(b'"HERE"', inside))


def whole_attack(name: str, rule: str, change: Callable[[bytes], bytes]) -> Attack:
    """A valid envelope, changed after it was signed."""
    return Attack(name, rule, lambda _: change(honest(NEW)))


def gift_attack(name: str, rule: str, giver: str, given: str, kid: str = "", **changes: Any) -> Attack:
    """A delegation ``<prefix>/<name>`` that gives what is not the giver's."""
    identifier = giver.replace("/", "/owner/") if giver.count("/") == 1 else giver
    return Attack(name, rule, lambda _: honest(identifier, kid, spec=delegation(given, **changes)))


def member(envelope: bytes, name: str, value: Any) -> bytes:
    return compact(json.loads(envelope) | {name: value})


def raised_scalar(envelope: bytes) -> bytes:
    """The second form of the same signature: S + L (RFC 8032, section 8.4)."""
    texts = json.loads(envelope)
    raw = decoded_text(texts["signature"])
    scalar = int.from_bytes(raw[32:], "little") + GROUP_ORDER
    return member(envelope, "signature", base64url(raw[:32] + scalar.to_bytes(32, "little")))


def decoded_text(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def stray_bits(envelope: bytes) -> bytes:
    """The same signature bytes in another text: the unused bits of the last digit are set."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    text = json.loads(envelope)["signature"]
    return member(envelope, "signature", text[:-1] + digits[digits.index(text[-1]) + 1])


def swapped(world: RecordWorld) -> bytes:
    """The payload of one record under the header and signature of another."""
    texts = json.loads(honest(NEW))
    return compact(texts | {"payload": json.loads(honest("cn.demo.lab7/pool/other"))["payload"]})


def by_hmac(_: RecordWorld) -> bytes:
    """HS256 with the public key, which everyone knows, as the secret."""
    head, body = header(KID, alg="HS256"), compact(payload(NEW))
    signed = f"{base64url(compact(head))}.{base64url(body)}".encode()
    mac = hmac.new(decoded_text(key_of(KID).public), signed, hashlib.sha256).digest()
    return forged(body, head, key_of(KID), signature=mac)


def changed(name: str, change: Callable[[str], str]) -> Callable[[bytes], bytes]:
    """Another text for one member of the envelope."""
    return lambda envelope: member(envelope, name, change(json.loads(envelope)[name]))


def backwards(envelope: bytes) -> bytes:
    """The same members in another order."""
    return json.dumps(dict(reversed(json.loads(envelope).items())), separators=(",", ":")).encode()


def duplicate_member(name: str) -> Callable[[bytes], bytes]:
    return lambda envelope: envelope[:-1] + f',"{name}":'.encode() + compact(json.loads(envelope)[name]) + b"}"


def next_of(world: RecordWorld, **changes: Any) -> bytes:
    """The next revision of the pool that is held at revision 2."""
    return honest(A100, **({"rev": 3, "prev": world.sha256(f"{A100}@2")} | changes))


HEADERS = (
    head_attack("algorithm none", "header_algorithm", alg="none"),
    Attack(
        "algorithm none without signature",
        "header_algorithm",
        lambda _: forged(payload(NEW), header(KID, alg="none"), key_of(KID), signature=b""),
    ),
    head_attack("algorithm confusion with ES256", "header_algorithm", alg="ES256"),
    head_attack("algorithm in another case", "header_algorithm", alg="ed25519"),
    head_attack("polymorphic EdDSA", "header_algorithm", alg="EdDSA"),
    Attack("HS256 keyed with the public key", "header_algorithm", by_hmac),
    head_attack("key fetched from jku", "header_key_source", jku="https://evil.example/keys"),
    head_attack("key fetched from x5u", "header_key_source", x5u="https://evil.example/cert"),
    head_attack("key embedded as jwk", "header_key_source", jwk={"crv": "Ed25519", "kty": "OKP"}),
    head_attack("certificate embedded as x5c", "header_key_source", x5c=["MIIB"]),
    head_attack("key set embedded as jwks", "header_key_source", jwks={"keys": []}),
    head_attack("critical extension", "header_critical", crit=["b64"]),
    head_attack("unencoded payload option", "header_field", b64=False),
    head_attack("key name left out", "header_field", kid=None),
    head_attack("key name with a traversal", "header_kid", kid="cn.demo.lab7/../x#k1"),
    head_attack("key name with a confusable letter", "header_kid", kid="cn.dеmo.lab7#k1"),
    head_attack("type of another statement", "header_type", typ="site-beat+jws"),
    head_attack("type without its suffix", "header_type", typ="cr"),
    Attack(
        "header with spaces", "json_form", lambda _: forged(payload(NEW), json.dumps(header(KID)).encode(), key_of(KID))
    ),
    Attack(
        "header field given twice",
        "json_duplicate",
        lambda _: forged(
            payload(NEW), compact(header("cn.demo.lab8#k1"))[:-1] + b',"kid":"cn.demo.lab7#k1"}', key_of(KID)
        ),
    ),
)
ENVELOPES = (
    whole_attack("padded base64", "base64_form", changed("signature", lambda text: text + "==")),
    whole_attack("base64 with stray bits", "base64_form", stray_bits),
    whole_attack("base64 with a line break", "base64_form", changed("payload", lambda text: text + "\n")),
    whole_attack("standard base64 alphabet", "base64_form", changed("payload", lambda text: "+/" + text)),
    whole_attack("trailing bytes", "json_trailing", lambda e: e + b"{}"),
    whole_attack("trailing line break", "json_form", lambda e: e + b"\n"),
    whole_attack("byte order mark", "json_bom", lambda e: b"\xef\xbb\xbf" + e),
    whole_attack("invalid UTF-8 in the envelope", "json_utf8", lambda e: e[:-1] + b',"x":"\xff"}'),
    whole_attack("not JSON at all", "json_syntax", lambda e: e.replace(b":", b"=")),
    whole_attack("empty body", "json_syntax", lambda e: b""),
    whole_attack("a list of envelopes", "envelope_member", lambda e: b"[" + e + b"]"),
    whole_attack("unprotected header beside the protected one", "envelope_member", lambda e: member(e, "header", "x")),
    whole_attack("signature left out", "envelope_member", lambda e: compact({"payload": "e30", "protected": "e30"})),
    whole_attack("payload left empty", "envelope_member", changed("payload", lambda text: "")),
    whole_attack("payload given twice", "json_duplicate", duplicate_member("payload")),
    whole_attack("envelope in another order", "json_form", backwards),
    whole_attack("size bomb", "envelope_size", changed("payload", lambda text: "A" * 70_000)),
    whole_attack("depth bomb as an envelope", "json_depth", lambda e: b"[" * 30_000),
    whole_attack("truncated signature", "envelope_member", changed("signature", lambda text: text[:-4])),
    whole_attack("malleable signature", "signature_malleable", raised_scalar),
    whole_attack("signature of zeros", "signature_wrong", changed("signature", lambda text: base64url(bytes(64)))),
    Attack("payload of one record under the signature of another", "signature_wrong", swapped),
    Attack(
        "forged with a key of one's own",
        "signature_wrong",
        lambda _: forged(payload(NEW), header(KID), key_of("thief")),
    ),
)
PAYLOADS = (
    raw_attack("duplicate key in the payload", "json_duplicate", text()[:-1] + b',"rev":2}'),
    raw_attack("duplicate key by another escape", "json_duplicate", text()[:-1] + b',"\\u0072ev":2}'),
    spliced_attack("float", "json_float", b"8.0"),
    spliced_attack("exponent", "json_float", b"8e0"),
    spliced_attack("number beyond all floats", "json_float", b"1e400"),
    spliced_attack("not a number", "json_float", b"NaN"),
    spliced_attack("integer beyond 2^53", "json_integer", b"9007199254740992"),
    spliced_attack("integer of 5,000 digits", "json_integer", b"9" * 5_000),
    spliced_attack("negative zero", "json_form", b"-0"),
    spliced_attack("null for a value", "json_null", b"null"),
    spliced_attack("depth bomb in the payload", "json_depth", b"[" * 9_000 + b"]" * 9_000),
    spliced_attack("seventeen levels", "json_depth", b"[" * 15 + b"]" * 15),
    spliced_attack("escaped NUL in a text", "json_nul", b'"a\\u0000b"'),
    spliced_attack("raw NUL in a text", "json_syntax", b'"a\0b"'),
    spliced_attack("half a surrogate pair", "json_syntax", b'"\\ud800"'),
    spliced_attack("letter written as an escape", "json_form", b'"\\u0061"'),
    spliced_attack("invalid UTF-8 in the payload", "json_utf8", b'"\xc3\x28"'),
    spliced_attack("overlong UTF-8 in the payload", "json_utf8", b'"\xc0\xaf"'),
    raw_attack("byte order mark in the payload", "json_bom", b"\xef\xbb\xbf" + text()),
    raw_attack("spaces in the payload", "json_form", text().replace(b",", b", ")),
    raw_attack(
        "names out of order", "json_form", text().replace(b'{"exp"', b'{"rev":1,"exp"').replace(b',"rev":1}', b"}")
    ),
    raw_attack("something after the payload", "json_trailing", text() + b"1"),
    raw_attack("field name beyond ASCII", "json_name", text(spec={"labels": {"価": "1"}})),
    body_attack("unknown field in the record", "record_form", root="cn.demo"),
    body_attack("revision as text", "record_form", rev="1"),
    body_attack("revision zero", "record_form", rev=0),
    body_attack("status of one's own making", "record_form", status="immortal"),
    body_attack("unknown field in the spec", "spec_form", spec={"is_trusted": True}),
    body_attack("negative capacity", "spec_form", spec={"core_count": -1}),
)
NAMES = (
    body_attack("confusable letter in the identifier", "identifier_form", "cn.demo.lab7/pool/а100", kid=KID),
    body_attack("punycode in the identifier", "identifier_form", "cn.demo.lab7/pool/xn--100-5cd", kid=KID),
    body_attack("upper case", "identifier_form", "cn.demo.lab7/pool/A100", kid=KID),
    body_attack("overlong identifier", "identifier_form", "cn.demo.lab7/pool/" + "a" * 200, kid=KID),
    body_attack("path traversal", "identifier_form", "cn.demo.lab7/pool/..", kid=KID),
    body_attack("empty label", "identifier_form", "cn.demo..lab7/pool/a", kid=KID),
    body_attack("kind that nobody knows", "kind_unknown", "cn.demo.lab7/weapon/a"),
    body_attack("kind other than in the identifier", "kind_mismatch", kind="site"),
    body_attack("prefix escape to the parent", "kid_prefix", "cn.demo/pool/a", kid=KID),
    body_attack("key of a sibling prefix", "kid_prefix", NEW, kid="cn.demo.lab8#k1"),
    body_attack("key of the parent prefix", "kid_prefix", NEW, kid="cn.demo#k1"),
    body_attack("prefix that only looks like a child", "root_unknown", "cn.demolab7/pool/a"),
    body_attack("prefix under no root", "root_unknown", "us.evil/pool/a"),
    body_attack("prefix too deep to be reached", "chain_depth", "cn.demo.a.b.c.d.e.f.g.h.i/pool/a"),
    body_attack("pool on another owner's site", "reference_foreign", spec={"site": "cn.demo.lab8/site/s1"}),
    body_attack("reference that is no identifier", "reference_form", spec={"site": "javascript:alert(1)"}),
    body_attack(
        "praise of oneself",
        "annotation_of_itself",
        "cn.demo.lab7/annotation/a",
        spec={"subject": "cn.demo.lab7/pool/a100", "says": "grade"},
    ),
    body_attack(
        "praise by one's own child",
        "annotation_of_itself",
        "cn.demo.lab7.team/annotation/a",
        spec={"subject": "cn.demo.lab7/pool/a100", "says": "grade"},
    ),
    body_attack("small-order key of a site", "key_weak", "cn.demo.lab7/site/s2", spec={"public": weak_public()}),
)
REVISIONS = (
    Attack("rollback to the first revision", "rev_behind", lambda world: world.envelopes[f"{A100}@1"]),
    Attack("revision skipped", "rev_skips", lambda world: next_of(world, rev=4)),
    Attack("wrong hash of the previous revision", "prev_wrong", lambda world: next_of(world, prev="00" * 32)),
    Attack("hash of the one before", "prev_wrong", lambda world: next_of(world, prev=world.sha256(f"{A100}@1"))),
    Attack("next revision without a hash", "rev_form", lambda world: next_of(world, prev=None)),
    body_attack("first revision with a hash", "rev_form", prev="00" * 32),
    Attack(
        "tombstone resurrected",
        "withdrawn",
        lambda world: honest("cn.demo.lab7/pool/gone", rev=3, prev=world.sha256("cn.demo.lab7/pool/gone@2")),
    ),
    body_attack("lease that ended", "lease_ended", nb=NOW_S - 2 * DAY_S, exp=NOW_S - DAY_S),
    body_attack("lease that has not begun", "lease_ahead", nb=NOW_S + DAY_S),
    body_attack("lease that ends before it begins", "lease_empty", nb=NOW_S, exp=NOW_S - 1),
    body_attack("lease of a lifetime", "lease_length", exp=NOW_S + 2_000 * DAY_S),
    body_attack("time beyond all calendars", "record_form", exp=2**53 - 1),
)
KEYS = (
    body_attack("key that was never delegated", "key_unknown", kid="cn.demo.lab7#k9"),
    Attack(
        "key of a site, which signs statements only",
        "key_unknown",
        lambda _: forged(payload(NEW), header("cn.demo.lab7#site"), key_of("site")),
    ),
    body_attack("expired key", "key_expired", "cn.demo.late/pool/a"),
    body_attack("key before its time", "key_ahead", "cn.demo.early/pool/a"),
    body_attack("revoked key", "key_revoked", "cn.demo.stolen/pool/a"),
    body_attack("revoked key with a date before", "key_revoked", "cn.demo.stolen/pool/a", nb=PAST_S),
    body_attack("prefix whose delegation ended", "delegation_expired", "cn.demo.ended/pool/a"),
    body_attack("prefix whose delegation was withdrawn", "delegation_withdrawn", "cn.demo.left/pool/a"),
    body_attack("kind that the prefix was not given", "kind_not_given", "cn.demo.small/pool/a"),
    body_attack("one identifier too many", "quota_full", "cn.demo.small/dataset/d3"),
)
GIFTS = (
    gift_attack("delegation of the parent", "delegation_above", "cn.demo.lab7/cn", "cn"),
    gift_attack("delegation of a sibling", "delegation_outside", "cn.demo.lab7/lab8", "cn.demo.lab8"),
    gift_attack("delegation of another root", "delegation_outside", "cn.demo.lab7/x", "cn.rival.x"),
    gift_attack("delegation of a look-alike", "delegation_outside", "cn.demo.lab7/x", "cn.demo.lab7x"),
    gift_attack("delegation to itself", "delegation_self", "cn.demo.lab7/lab7", "cn.demo.lab7"),
    gift_attack("delegation loop", "delegation_above", "cn.demo.lab7.team/lab7", "cn.demo.lab7"),
    gift_attack("delegation of another child", "delegation_name", "cn.demo.lab7/x", "cn.demo.lab7.y"),
    gift_attack("delegation of a grandchild", "delegation_name", "cn.demo.lab7/a.b", "cn.demo.lab7.a.b"),
    gift_attack("prefix given twice", "delegation_taken", "cn.demo/exchange/lab7", "cn.demo.lab7"),
    gift_attack("delegation by an expired key", "key_expired", "cn.demo.late/x", "cn.demo.late.x"),
    gift_attack(
        "delegation under its taker's key name", "kid_prefix", "cn.demo/evil", "cn.demo.evil", "cn.demo.evil#k1"
    ),
    gift_attack(
        "delegation of more than was given", "delegation_quota", "cn.demo.lab7/x", "cn.demo.lab7.x", max_records=101
    ),
    gift_attack(
        "delegated key under another prefix",
        "delegation_kid",
        "cn.demo.lab7/x",
        "cn.demo.lab7.x",
        keys=[delegated("cn.demo.lab8")],
    ),
    gift_attack(
        "delegated key named twice",
        "delegation_kid",
        "cn.demo.lab7/x",
        "cn.demo.lab7.x",
        keys=[delegated("cn.demo.lab7.x"), delegated("cn.demo.lab7.x", public=key_of("other").public)],
    ),
    gift_attack(
        "small-order delegated key",
        "key_weak",
        "cn.demo.lab7/x",
        "cn.demo.lab7.x",
        keys=[delegated("cn.demo.lab7.x", public=weak_public())],
    ),
    gift_attack(
        "delegated key without a lifetime",
        "delegation_window",
        "cn.demo.lab7/x",
        "cn.demo.lab7.x",
        keys=[delegated("cn.demo.lab7.x", exp=PAST_S - DAY_S)],
    ),
    Attack(
        "delegation forged by its taker",
        "signature_wrong",
        lambda _: forged(
            payload("cn.demo/owner/evil", spec=delegation("cn.demo.evil")),
            header("cn.demo#k1"),
            key_of("cn.demo.evil#k1"),
        ),
    ),
    Attack(
        "key name given to another key",
        "delegation_rekeyed",
        lambda world: honest(
            "cn.demo/owner/lab7",
            rev=2,
            prev=world.sha256("cn.demo/owner/lab7@1"),
            spec=delegation("cn.demo.lab7", keys=[delegated("cn.demo.lab7", public=key_of("other").public)]),
        ),
    ),
)


def widened(world: RecordWorld) -> bytes:
    """A prefix that may register datasets gives its child the right to register pools."""
    world.catalogue.forget("cn.demo.small/dataset/d2")  # make room, so that the quota is not what refuses
    spec = delegation("cn.demo.small.x", kinds=["dataset", "pool"], max_records=1)
    return honest("cn.demo.small/owner/x", spec=spec)


def beat(world: RecordWorld) -> bytes:
    """A heartbeat, signed with an owner's key, sent in as a record."""
    return sign_statement(payload(NEW), key_of(KID), KID, "site-beat")


OTHERS = (
    Attack("delegation that widens the kinds", "delegation_kinds", widened),
    Attack("statement replayed as a record", "header_type", beat),
)
ATTACKS: tuple[Attack, ...] = (*HEADERS, *ENVELOPES, *PAYLOADS, *NAMES, *REVISIONS, *KEYS, *GIFTS, *OTHERS)


def outcome(attack: Attack) -> str:
    """The rule that refuses the attack, or what happened instead."""
    world = RecordWorld()
    envelope = attack.send(world)
    before = world.state()
    try:
        admission = world.catalogue.admit(envelope, NOW_S)
    except TielineError as error:
        answer = error.reasons[0].code if error.code == "record_refused" else error.code
    else:
        return f"admitted as {admission.outcome}"
    return answer if world.state() == before else f"{answer}, and something changed"
