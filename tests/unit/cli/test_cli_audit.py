"""`tieline audit` as an auditor uses it: show, export, verify with nothing but a key, and what is remembered."""

import json

import pytest
from api_world import EXCHANGE

from tieline.exchange.commands import CreateToken
from tieline.model.audit import LogHead
from tieline.model.party import SYSTEM, Role
from tieline.registry.heads import sign_head


def grow(exchange, count=3):
    for _ in range(count):
        number = exchange.writer.position[0]
        exchange.do(CreateToken(actor=SYSTEM, sha256=f"{number:064x}", name=f"n{number}", roles=(Role.USER,)))


@pytest.fixture
def auditor(exchange, call):
    done = call("login", exchange.url, "--token", exchange.token("eve", Role.AUDITOR))
    assert done.exit_code == 0, done.output
    grow(exchange)
    return call


def public(exchange):
    return exchange.keys.key.public


def test_an_auditor_exports_the_log_and_anybody_verifies_it_offline(exchange, auditor, tmp_path, monkeypatch):
    file = tmp_path / "log.ndjson"
    made = auditor("audit", "export", file)
    assert made.exit_code == 0, made.output
    assert auditor("audit", "export", file).exit_code != 0  # never written over
    monkeypatch.setenv("TIELINE_HOME", str(tmp_path / "stranger"))  # who knows no exchange at all
    done = auditor("audit", "verify", file, "--key", public(exchange), "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["is_verified"], found["exchange"], found["first"]) == (True, EXCHANGE, 1)
    assert found["last"] == found["size"] >= 4
    lines = file.read_bytes().splitlines(keepends=True)
    for wrong in (lines[:-1], lines[:3] + lines[4:], [lines[0], lines[2], lines[1], *lines[3:]]):
        file.write_bytes(b"".join(wrong))
        done = auditor("audit", "verify", file, "--key", public(exchange), "--json")
        assert done.exit_code == 1
        assert json.loads(done.stdout)["broken_at"] >= 1


def test_a_part_of_the_log_proves_itself_too(exchange, auditor, tmp_path):
    file = tmp_path / "part.ndjson"
    made = auditor("audit", "export", file, "--from", 2, "--to", 3, "--json")
    assert made.exit_code == 0, made.output
    assert len(file.read_bytes().splitlines()) == 4
    done = auditor("audit", "verify", file, "--key", public(exchange))
    assert done.exit_code == 0, done.output
    other = auditor("audit", "verify", file, "--key", "A" * 43)
    assert other.exit_code == 1


def test_a_log_that_went_back_between_two_visits_is_found(exchange, auditor, home, tmp_path):
    assert auditor("audit", "verify", "--exchange").exit_code == 0
    grow(exchange)
    done = auditor("audit", "verify", "--exchange", "--json")
    said = json.loads(done.stdout)
    assert said["known"] < said["size"]
    file = tmp_path / "log.ndjson"
    assert auditor("audit", "export", file).exit_code == 0
    assert auditor("audit", "verify", file, "--pin", said["pin"]).exit_code == 0
    later = LogHead(exchange=EXCHANGE, size=9_999, root="ab" * 32, head="cd" * 32, at_ms=1)
    pin = {
        "exchange": EXCHANGE,
        "public": public(exchange),
        "statement": sign_head(later, exchange.keys.key, exchange.keys.kid).decode(),
    }
    (home / "audit" / f"{EXCHANGE.replace('/', '~')}.json").write_text(json.dumps(pin))
    done = auditor("audit", "verify", "--exchange")
    assert done.exit_code == 1
    assert "9,999 were signed before" in done.stderr
    done = auditor("audit", "verify", file, "--pin", said["pin"])
    assert done.exit_code == 1
    assert "9,999 were signed before" in done.stderr


def test_show_says_who_did_what_from_where_and_under_which_right(exchange, auditor):
    client = exchange.bearer("tl-admin-secret")
    assert client.post("/v1/tokens", json={"name": "shown", "roles": ["user"]}).status_code in (200, 201)
    done = auditor("audit", "show", "--kind", "token_created", "--source", "127.0.0.1", "--limit", 1000, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found
    assert all("127.0.0.1 token " in each["source"] and each["kind"] == "token_created" for each in found)
    shown = auditor("audit", "show", "--actor", found[-1]["actor"], "--subject", found[-1]["subject"])
    assert shown.exit_code == 0
    assert found[-1]["source"] in shown.stdout
    assert auditor("audit", "show", "--actor", "nobody", "--json").stdout.strip() == "[]"


def test_a_user_exports_nothing(exchange, call, tmp_path):
    assert call("login", exchange.url, "--token", exchange.token("bob", Role.USER)).exit_code == 0
    assert call("audit", "export", tmp_path / "log.ndjson").exit_code == 4
    assert list(tmp_path.glob("*log.ndjson*")) == []


@pytest.mark.parametrize("args", [("verify",), ("verify", "FILE", "--exchange"), ("verify", "FILE")])
def test_what_is_to_be_checked_must_be_said(call, tmp_path, args):
    file = tmp_path / "x"
    file.write_text("{}\n")
    assert call("audit", *[str(file) if each == "FILE" else each for each in args]).exit_code == 2


def test_a_part_is_tied_to_the_head_that_was_seen_before_it(exchange, auditor, home, tmp_path):
    """The pin is from before the part: the file brings the proof along, or is not believed."""
    pin = json.loads(auditor("audit", "verify", "--exchange", "--json").stdout)["pin"]
    seen = tmp_path / "seen.json"
    seen.write_bytes((home / "audit" / f"{EXCHANGE.replace('/', '~')}.json").read_bytes())
    assert str(home) in pin
    size = exchange.writer.position[0]
    grow(exchange, 5)
    part, bare = tmp_path / "part.ndjson", tmp_path / "bare.ndjson"
    assert auditor("audit", "export", part, "--from", size + 2, "--pin", seen).exit_code == 0
    done = auditor("audit", "verify", part, "--pin", seen, "--json")
    assert (done.exit_code, json.loads(done.stdout)["heads"]) == (0, 2)
    (home / "audit" / f"{EXCHANGE.replace('/', '~')}.json").unlink()
    assert auditor("audit", "export", bare, "--from", size + 2).exit_code == 0
    assert auditor("audit", "verify", bare, "--key", public(exchange)).exit_code == 0
    done = auditor("audit", "verify", bare, "--pin", seen, "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["reason"]["code"]) == (1, "export_unproved")
    done = auditor("--lang", "zh", "audit", "verify", bare, "--pin", seen)
    assert "请用 `--pin` 导出" in done.stderr
