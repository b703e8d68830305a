"""Logging in at an identity provider: the device flow from end to end, renewal, and what can go wrong in it."""

import json
import stat
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from oidc_provider import AUDIENCE, CLIENT, ProviderProcess
from tieline.api.oidc import Issuers, OidcFile
from tieline.client import context as contexts
from tieline.client.asynchronous import AsyncClient
from tieline.client.device import Started, granted, started
from tieline.client.renewal import Renewal
from tieline.client.synchronous import Client
from tieline.drivers.http.issuer import Issuer
from tieline.model.error import TielineError


@pytest.fixture(scope="module")
def process():
    running = ProviderProcess()
    yield running
    running.stop()


@pytest.fixture
def provider(process):
    process.do("behave")
    return process


@pytest.fixture
def trusting(exchange, provider):
    """The exchange believes the provider; its clock goes with the provider's."""
    stated = {
        "alias": "corp",
        "issuer": provider.url,
        "client_id": CLIENT,
        "audience": [AUDIENCE, CLIENT],
        "user_claim": "preferred_username",
        "groups": {"hpc-admins": {"roles": ["admin"]}, "hpc-users": {"roles": ["user"]}},
    }
    exchange.platform.issuers = Issuers(msgspec.convert({"issuers": [stated]}, OidcFile), exchange.keys.prefix)
    exchange.clock.at_ms = int(time.time() * 1000)
    yield exchange
    exchange.platform.issuers = None


def somebody(provider, user):
    """A thread that does what a person does: waits for a code and enters it."""

    def enter():
        deadline = time.monotonic() + 60
        while not (codes := provider.pending()):
            assert time.monotonic() < deadline, "no code was asked for"
            time.sleep(0.05)
        provider.approve(codes[-1], user)

    thread = threading.Thread(target=enter)
    thread.start()
    return thread


def logged_in(call, trusting, provider, user="alice", *more):
    person = somebody(provider, user)
    done = call("login", trusting.url, "--oidc", *more)
    person.join(60)
    return done


def test_a_person_logs_in_with_a_code_and_is_who_the_provider_says(call, trusting, provider, home):
    done = logged_in(call, trusting, provider)
    assert done.exit_code == 0, done.output
    assert f"{provider.url}/activate" in done.stderr
    status = call("status")
    assert status.exit_code == 0, status.output
    assert "corp:alice (user)" in status.stdout
    stored = home / "contexts.json"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    login = contexts.read().contexts["cn.demo"].login
    assert (login.alias, login.issuer, bool(login.refresh)) == ("corp", provider.url, True)
    assert contexts.read().contexts["cn.demo"].token not in done.output
    assert login.refresh not in done.output


def test_a_token_that_is_about_to_end_is_renewed_once_for_all_processes(call, trusting, provider):
    provider.do("behave", life_s=10)  # shorter than the margin: every call finds it ending
    assert logged_in(call, trusting, provider).exit_code == 0
    first = contexts.read().contexts["cn.demo"]
    before = provider.counts().get("refresh_token", 0)
    provider.do("behave", life_s=3_600)
    assert call("ps").exit_code == 0
    second = contexts.read().contexts["cn.demo"]
    assert second.token != first.token
    assert second.login.refresh != first.login.refresh
    assert call("ps").exit_code == 0
    with Client(context="cn.demo") as client:
        assert client.me().name == "corp:alice"
    assert provider.counts()["refresh_token"] == before + 1


def test_two_clients_that_share_a_context_use_a_refresh_token_once(call, trusting, provider):
    provider.do("behave", life_s=10)
    assert logged_in(call, trusting, provider).exit_code == 0
    known = contexts.chosen()
    before = provider.counts().get("refresh_token", 0)
    provider.do("behave", life_s=3_600)
    found = []

    def renew():
        import asyncio

        found.append(asyncio.run(Renewal(known)()))

    threads = [threading.Thread(target=renew) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert len(set(found)) == 1
    assert provider.counts()["refresh_token"] == before + 1


def test_a_refresh_token_that_is_no_good_any_more_asks_for_a_new_login(call, trusting, provider):
    provider.do("behave", life_s=10)
    assert logged_in(call, trusting, provider).exit_code == 0
    known = contexts.chosen()
    spoilt = msgspec.structs.replace(known, login=msgspec.structs.replace(known.login, refresh="gone"))
    contexts.keep("cn.demo", spoilt)
    done = call("ps")
    assert done.exit_code == 4
    assert f"tieline login {trusting.url} --oidc corp" in done.stderr


def test_while_the_provider_is_away_a_token_serves_to_its_end(call, trusting, provider):
    gone = ProviderProcess()
    gone.stop()
    assert logged_in(call, trusting, provider).exit_code == 0
    known = contexts.chosen()
    now_ms = time.time_ns() // 1_000_000
    away = msgspec.structs.replace(known.login, issuer=gone.url, until_ms=now_ms + 20_000)
    contexts.keep("cn.demo", msgspec.structs.replace(known, login=away))
    assert call("ps").exit_code == 0
    over = msgspec.structs.replace(away, until_ms=now_ms - 1)
    contexts.keep("cn.demo", msgspec.structs.replace(known, login=over))
    done = call("ps")
    assert done.exit_code == 1
    assert gone.url in done.stderr


def test_a_token_from_the_environment_is_sent_as_it_is(call, trusting, provider, monkeypatch):
    assert logged_in(call, trusting, provider).exit_code == 0
    monkeypatch.setenv("TIELINE_TOKEN", "tl-wrong")
    assert contexts.chosen().login is None
    assert call("ps").exit_code == 4


def test_the_identity_token_is_sent_where_the_exchange_says_so(call, trusting, provider):
    found = trusting.platform.issuers.stated[provider.url]
    trusting.platform.issuers.stated[provider.url] = msgspec.structs.replace(found, bearer="id")
    assert logged_in(call, trusting, provider, "alice", "corp").exit_code == 0
    assert contexts.chosen().login.bearer == "id"
    assert call("ps").exit_code == 0


def test_a_denied_login_and_an_unknown_provider_change_nothing(call, trusting, provider):
    done = logged_in(call, trusting, provider, "nobody")
    assert done.exit_code == 4
    assert "denied" in done.stderr
    assert contexts.read().contexts == {}
    missing = call("login", trusting.url, "--oidc", "other")
    assert missing.exit_code == 1
    assert f"--oidc corp  # {provider.url}" in missing.stderr
    assert call("login", trusting.url, "--oidc", "corp", "--token", "x").exit_code == 2
    assert contexts.read().contexts == {}


def test_somebody_without_a_role_here_is_not_logged_in(call, trusting, provider):
    done = logged_in(call, trusting, provider, "mallory")
    assert done.exit_code == 4
    assert "corp:mallory" in done.stderr
    assert contexts.read().contexts == {}


def test_an_exchange_that_believes_nobody_says_so(call, exchange):
    done = call("login", exchange.url, "--oidc")
    assert done.exit_code == 1
    assert "no identity provider" in done.stderr


def test_the_key_is_compared_before_anybody_is_asked_to_log_in(call, trusting, provider):
    before = provider.counts().get("discovery", 0)
    done = call("login", trusting.url, "--oidc", "corp", "--fingerprint", "0" * 32)
    assert done.exit_code == 1
    assert provider.counts().get("discovery", 0) == before


# -- the flow itself, by a clock of the test --------------------------------------------------------------------------


class Waits:
    """A clock that goes by what is slept."""

    def __init__(self):
        self.at_s, self.slept = 0.0, []

    def __call__(self):
        return self.at_s

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.at_s += seconds


def flow(provider, waits, *, approve="", begun=None):
    import asyncio

    async def work():
        issuer = Issuer(provider.url)
        asked = begun or await started(issuer, CLIENT, ("openid",))
        if approve:
            provider.approve(asked.user_code, approve)
        return await granted(issuer, CLIENT, asked, clock_s=waits, sleep=waits.sleep)

    return asyncio.run(work())


def test_slow_down_makes_it_ask_less_often(provider):
    provider.do("behave", slow_down=2)
    waits = Waits()
    assert flow(provider, waits, approve="alice").access_token
    assert waits.slept == [1, 6, 11]


def test_it_ends_when_the_code_does(provider):
    provider.do("behave", device_life_s=20)
    waits = Waits()
    with pytest.raises(TielineError, match="in time") as caught:
        flow(provider, waits)
    assert caught.value.code == "timeout"
    assert waits.at_s <= 21


def test_a_code_that_the_provider_forgot_is_refused(provider):
    begun = Started(device_code="none", user_code="A", verification_uri="https://x.example", interval=0)
    with pytest.raises(TielineError, match="invalid_grant") as caught:
        flow(provider, Waits(), begun=begun)
    assert caught.value.code == "unauthenticated"


@pytest.mark.parametrize(
    "device",
    [
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https://x.example/\x1b[2J"},
        {"user_code": "A\x1b]0;evil\x07"},
        {"user_code": ""},
        {"user_code": None},
        {"verification_uri_complete": "file:///etc/passwd"},
        {"interval": -1},
        {"expires_in": "soon"},
        {"device_code": "x" * 20_000},
    ],
    ids=str,
)
def test_what_the_provider_shows_is_checked_before_it_is_shown(provider, device):
    import asyncio

    provider.do("behave", device=device)
    with pytest.raises(TielineError) as caught:
        asyncio.run(started(Issuer(provider.url), CLIENT, ("openid",)))
    assert caught.value.code == "check_failed"


@pytest.mark.parametrize("endpoint", ["device_authorization_endpoint", "token_endpoint"])
def test_endpoints_elsewhere_get_no_code_and_no_token(provider, endpoint):
    import asyncio

    provider.do("behave", discovery={endpoint: "https://evil.example/x"})
    with pytest.raises(TielineError, match=r"evil\.example") as caught:
        asyncio.run(started(Issuer(provider.url), CLIENT, ("openid",)))
    assert caught.value.code == "check_failed"


def test_a_provider_without_the_flow_is_named(provider):
    import asyncio

    provider.do("behave", discovery={"device_authorization_endpoint": None})
    with pytest.raises(TielineError, match="no device flow"):
        asyncio.run(started(Issuer(provider.url), CLIENT, ("openid",)))


def test_a_context_file_of_before_is_read_as_it_was(home):
    home.mkdir(parents=True)
    (home / "contexts.json").write_text(json.dumps({"current": "a", "contexts": {"a": {"url": "http://127.0.0.1:1"}}}))
    assert contexts.chosen().login is None
    assert AsyncClient.of(contexts.chosen()).http.renew is None
