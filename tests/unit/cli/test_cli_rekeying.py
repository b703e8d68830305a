"""`tieline site rekey`, `id rekey` and `id resign`, one after the other, as an owner and an admin use them."""

import json
import re

from tieline.drivers import siteprocess
from tieline.drivers.siteprocess.home import Home
from tieline.registry import Key

OWNER = "cn.demo.lab3"


def ok(done):
    assert done.exit_code == 0, done.output
    return done


def test_an_owner_s_key_changes_and_what_was_registered_by_hand_is_signed_again(exchange, admin, tmp_path):
    secret = json.loads(
        ok(admin("token", "create", "join", "--role", "join", "--owner", "lab3", "--json")).stdout
    )["secret"]  # fmt: skip
    folder = tmp_path / "gz3"
    ok(admin("site", "join", secret, folder, "--owner", "lab3", "--no-start"))
    file = tmp_path / "data.yaml"
    file.write_text(f"id: {OWNER}/dataset/d\nspec: {{size_bytes: 1}}\n")
    ok(admin("id", "register", file, "--site", folder))

    done = ok(admin("site", "rekey", folder))
    assert f"{OWNER}#k2 speaks for {OWNER} now" in done.stderr
    said = json.loads(ok(admin("site", "rekey", folder, "--revoke", "--json")).stdout)
    assert (said["kid"], said["rev"]) == (f"{OWNER}#k3", 3)
    refused = admin("id", "checkpoint", OWNER, "--site", folder, "-y")
    assert refused.exit_code != 0  # a record of it is under another key
    done = ok(admin("id", "resign", OWNER, "--site", folder, "-y"))
    assert re.search(rf"{OWNER}/dataset/d\s+rev 1\s+{OWNER}#join", done.stderr)
    assert "1 records signed again" in done.stderr
    found = json.loads(ok(admin("id", "resolve", f"{OWNER}/dataset/d", "--json")).stdout)
    assert (found["rev"], found["kid"], found["is_valid"]) == (2, f"{OWNER}#k3", True)
    assert json.loads(ok(admin("id", "resign", OWNER, "--site", folder, "-y", "--json")).stdout) == []
    ok(admin("id", "checkpoint", OWNER, "--site", folder, "-y"))

    waiting = Key(Home(folder).make_next())
    assert admin("id", "rekey", OWNER, waiting.public).exit_code != 0  # nobody said yes
    done = ok(admin("id", "rekey", OWNER, waiting.public, "--revoke", "--yes"))
    assert f"{OWNER}#k4 speaks" in done.stderr
    ok(admin("site", "rekey", folder))
    assert siteprocess.owner_key(folder).public == waiting.public
    assert not Home(folder).has_next()


def test_a_user_gives_nobody_s_prefix_away(exchange, call):
    from tieline.model.party import Role

    assert call("login", exchange.url, "--token", exchange.token("bob", Role.USER)).exit_code == 0
    assert call("id", "rekey", OWNER, "A" * 43, "--yes").exit_code == 4
