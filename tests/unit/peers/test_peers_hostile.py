"""Hostile peers: each lie is contained, named and shown; nobody else notices; and an honest answer heals it."""

import asyncio
import gzip
import json
import re
import socket
from pathlib import Path

import pytest
from aiohttp import web
from liar import Liar

from peer_world import until
from tieline.drivers.http.guard import check_address, why_refused
from tieline.drivers.http.issuer import Issuer
from tieline.drivers.peers import puller
from tieline.drivers.peers.address import check_url, guarded_resolver
from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.signing import Signer
from tieline.model.error import TielineError
from tieline.model.reason import CATALOGUE
from tieline.model.rule import RULES
from tieline.ports import FakeClock
from tieline.registry import Key, hearing


@pytest.fixture
def lied_to(exchange):
    """Us, an honest peer, a peer behind a liar, and the liar. The liar is honest until it is told to twist."""
    us, honest, real = exchange("cn"), exchange("org.good"), exchange("cn.bad")
    liar = Liar(real)
    try:
        assert us.add(honest).status_code == 201
        assert honest.add(us).status_code == 201
        assert us.http.post("/v1/peers", json={"url": liar.url, "role": "child"}).status_code == 201
        assert real.add(us, "parent").status_code == 201
        until(lambda: us.is_active(honest) and us.is_active(real))
        first = real.own("lab").publish("first")
        until(lambda: us.counts(first))
        yield us, honest, real, liar
    finally:
        liar.stop()


def trouble(us, peer):
    """What was refused of a branch by name, as the status shows it."""
    branch = us.branch(peer)
    assert branch["in_bytes"] > 0
    return [*branch["rejected"], *branch["refused"], *([branch["fault"]["code"]] if branch["fault"] else [])]


def contained(us, honest, peer, *codes):
    """The lie is counted by name in the status, every name can be said, and the honest peer goes on."""
    named = until(
        lambda: [code for code in trouble(us, peer) if code in codes], why=lambda: f"{codes}: {us.branch(peer)}"
    )
    assert all(code in CATALOGUE or code in RULES for code in named)
    name = honest.own("other").publish(f"d{len(us.view.cursors)}-{us.view.catalogue.count('org.good')}")
    until(lambda: us.counts(name))
    assert trouble(us, honest) == []


def pages(request):
    return request.path.endswith(("/records", "/fetch"))


def tails(request):
    return request.path == "/v1/tail"


def with_lines(change, **head):
    """A twist of pages: ``change(lines)`` instead of the lines."""

    async def twist(request, said):
        if not pages(request) or said.status != 200:
            return None
        return said.page(change(said.lines), **head)

    return twist


async def offline(request, said):
    return web.Response(status=502)


def lie(real, liar, twist, owner="more"):
    """Cut us off, let something happen over there, and twist what we then ask for; gives the names of what happened."""
    liar.twist = offline
    real.stop()
    real.start()
    real.platform.url = liar.url
    writing = real.own(owner)
    names = [writing.publish(f"d{each}") for each in range(3)]
    liar.twist = twist
    return names


def test_a_page_that_was_cut_or_mixed_is_refused_before_it_is_decoded(lied_to):
    us, honest, real, liar = lied_to

    async def cut(request, said):
        if not pages(request):
            return None
        return web.Response(status=200, headers=said.headers, body=said.body[:-40])

    names = lie(real, liar, cut)
    contained(us, honest, real, "page_cut", "page_count", "page_digest")
    assert not any(us.holds(name) for name in names)
    shown = until(lambda: (found := us.branch(real))["lag_ms"] > 0 and found)
    assert shown["lag"] >= len(names)
    liar.twist = None
    until(lambda: all(us.counts(name) for name in names))
    until(lambda: (us.branch(real)["lag"], us.branch(real)["lag_ms"]) == (0, 0))


def test_a_byte_that_was_changed_costs_that_record_and_no_other(lied_to):
    us, honest, real, liar = lied_to

    def change(lines):
        return [lines[0].replace(b'"payload":"e', b'"payload":"f'), *lines[1:]] if len(lines) > 1 else lines

    names = lie(real, liar, with_lines(change))
    until(lambda: sum(us.holds(name) for name in names) == 2)
    liar.twist = None
    contained(us, honest, real, *RULES)


def test_records_of_another_owner_in_a_log_are_refused_and_shown(lied_to):
    us, honest, real, liar = lied_to
    foreign = real.own("lab").envelope("stray")

    lie(real, liar, with_lines(lambda lines: [*lines, foreign]))
    contained(us, honest, real, "log_foreign", "peer_foreign")
    assert not us.holds("cn.bad.lab/dataset/stray")


def test_the_order_of_records_means_nothing_and_a_page_that_comes_again_is_proof(lied_to):
    us, honest, real, liar = lied_to

    async def replay(request, said):
        """The first page again, whatever was taken since."""
        return said.page([], serial=1) if request.path.endswith("/records") and "/cn.bad/" in request.path else None

    names = lie(real, liar, with_lines(lambda lines: list(reversed(lines))))
    until(lambda: all(us.counts(name) for name in names))
    assert trouble(us, real) == []
    lie(real, liar, replay, "others")
    contained(us, honest, real, "peer_rolled_back")


def test_an_answer_that_never_ends_is_cut_at_its_limit(lied_to, monkeypatch):
    us, honest, real, liar = lied_to
    sent = [0]

    async def endless(request, said):
        if not request.path.startswith("/v1/logs"):
            return
        out = web.StreamResponse()
        await out.prepare(request)
        while True:
            await out.write(b"x" * 2**20)
            sent[0] += 2**20

    lie(real, liar, endless)
    contained(us, honest, real, "peer_too_large", "peer_stalled")
    assert sent[0] < 200 * 2**20


def test_an_answer_that_is_small_only_while_it_is_packed_is_cut(lied_to, monkeypatch):
    us, honest, real, liar = lied_to
    bomb = gzip.compress(b"0" * (64 * 2**20))

    async def twist(request, said):
        if not pages(request):
            return None
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    lie(real, liar, twist)
    contained(us, honest, real, "peer_too_large")


def test_a_peer_that_stalls_or_trickles_is_left_waiting_alone(lied_to, monkeypatch):
    us, honest, real, liar = lied_to

    async def trickle(request, said):
        if not request.path.startswith("/v1/logs"):
            return None
        out = web.StreamResponse()
        await out.prepare(request)
        for _ in range(600):
            await out.write(b" ")
            await asyncio.sleep(0.2)
        return out

    with monkeypatch.context() as short:
        short.setattr(puller, "PAGE_S", 1.0)
        names = lie(real, liar, trickle)
        contained(us, honest, real, "peer_stalled")
    liar.twist = None
    until(lambda: all(us.counts(name) for name in names))


def test_a_redirect_is_never_followed(lied_to):
    us, _, real, liar = lied_to
    asked = []

    async def twist(request, said):
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data"})

    lie(real, liar, twist)
    until(lambda: len(asked) > 1)
    until(lambda: "redirected (302)" in json.dumps(us.branch(real)["error"]))
    assert us.branch(real)["freshness"] in ("fresh", "stale")
    assert trouble(us, real) == []  # nothing that it sent was refused: it sent nothing
    assert not any("meta-data" in path for path in asked)


def test_an_answer_that_is_nonsense_is_named(lied_to):
    us, honest, real, liar = lied_to

    async def twist(request, said):
        return web.json_response([[[[]]]]) if request.path.startswith("/v1/logs") else None

    lie(real, liar, twist)
    contained(us, honest, real, "peer_garbled")


def test_serials_that_go_back_in_one_session_are_proof(lied_to):
    us, honest, real, liar = lied_to

    async def twist(request, said):
        if request.path != "/v1/logs":
            return None
        body = json.loads(said.body)
        for line in body["logs"]:
            line["serial"] = 0
        body["head"] = 1
        return web.json_response(body)

    lie(real, liar, twist)
    contained(us, honest, real, "peer_rolled_back")
    asked = len(liar.calls)
    name = real.own("late").publish("x")
    liar.twist = None
    assert not us.holds(name)
    assert us.branch(real)["fault"]["code"] == "peer_rolled_back"
    assert len(liar.calls) <= asked + 3  # nothing more is asked of it
    assert us.http.post(f"/v1/peers/{real.id.replace('/', '~')}/clear").status_code == 200
    until(lambda: us.counts(name))


def test_a_tail_that_says_nonsense_or_skips_is_no_way_in(lied_to):
    us, honest, real, liar = lied_to
    said_line = {"session": "s-cn.bad", "prefix": "cn.bad.lab", "after": 0, "serial": 9_000, "body": "AAAA", "count": 1}

    async def twist(request, said):
        if not tails(request):
            return None
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await out.prepare(request)
        await out.write(b":\n\n")
        await out.write(b"event: log\ndata: " + json.dumps(said_line).encode() + b"\n\n")
        await asyncio.sleep(0.5)
        await out.write(b"event: log\ndata: {]\n\n")
        await asyncio.sleep(30)
        return out

    names = lie(real, liar, twist)
    until(lambda: all(us.counts(name) for name in names))
    name = honest.own("lab").publish("y")
    until(lambda: us.counts(name))


def test_a_tail_that_falls_silent_is_opened_anew_at_once(lied_to, monkeypatch):
    """Not only when the logs would be listed again without one: after a cut the next record comes as fast as ever."""
    us, _, real, liar = lied_to
    monkeypatch.setattr(puller, "SILENCE_S", 4.0)  # an honest tail says something every 3 s
    monkeypatch.setattr(hearing, "POLL_MS", 3_600_000)
    silent = []

    async def twist(request, said):
        if not tails(request) or len(silent) == 2:
            return None
        silent.append(request.path)
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await out.prepare(request)
        await out.write(b":\n\n")
        await asyncio.sleep(30)
        return out

    lie(real, liar, twist)
    until(lambda: len(silent) == 2 and liar.calls.count("/v1/tail") >= 4 and us.branch(real)["is_listening"])
    name = real.own("lab").publish("after")
    until(lambda: us.counts(name))


# -- addresses --------------------------------------------------------------------------------------------------------


def client(url):
    return PeerClient(
        url, "cn.bad/exchange/main", Signer("cn/exchange/main", Key(bytes(32)), "cn#exchange", FakeClock())
    )


def resolving(*answers):
    """A name server that gives another address each time."""
    left = list(answers)

    async def getaddrinfo(self, host, port, **_):
        where = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (where, port))]

    return getaddrinfo


@pytest.mark.parametrize(
    ("where", "why"),
    [("169.254.169.254", "metadata"), ("10.0.0.7", "private"), ("127.0.0.1", "loopback"), ("100.64.0.9", "private")],
)
def test_a_name_that_leads_into_this_network_is_not_called(monkeypatch, where, why):
    async def story():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(type(loop), "getaddrinfo", resolving(where))
        async with client("https://exchange.example:4433") as calling:
            await calling.raw("GET", "/v1/logs")

    with pytest.raises(TielineError) as caught:
        asyncio.run(story())
    assert caught.value.code == "address_refused"
    assert caught.value.reasons[0].values["why"] == why


async def everything(chunks):
    async for _ in chunks:
        pass


async def no_bytes():
    yield b""


SHA256 = "0" * 64
WAYS = {
    "a question": lambda client: client.raw("GET", "/v1/peer/state"),
    "a page": lambda client: client.page("/v1/logs/cn/records"),
    "the tail": lambda client: everything(client.listen("/v1/tail")),
    "bytes of a run": lambda client: everything(client.download(f"/v1/peer/blobs/{SHA256}", limit_bytes=9)),
    "bytes for a run": lambda client: client.upload(f"/v1/peer/blobs/{SHA256}", SHA256, no_bytes),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_peer_looks_where_its_name_leads(monkeypatch, way):
    async def story():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(type(loop), "getaddrinfo", resolving("169.254.169.254"))
        async with client("https://exchange.example") as calling:
            await WAYS[way](calling)

    with pytest.raises(TielineError, match="metadata address") as caught:
        asyncio.run(story())
    assert caught.value.code == "address_refused"


@pytest.mark.parametrize(
    ("where", "is_called"),
    [("169.254.169.254", False), ("127.0.0.1", False), ("224.0.0.1", False), ("10.1.2.3", True)],
)
@pytest.mark.parametrize("call", ["metadata", "form"])
def test_an_identity_provider_may_be_in_a_private_network_and_nowhere_else_that_no_provider_is(
    monkeypatch, where, is_called, call
):
    async def story():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(type(loop), "getaddrinfo", resolving(where))
        monkeypatch.setattr(type(loop), "sock_connect", refusing)
        provider = Issuer("https://sso.example")
        await (provider.metadata() if call == "metadata" else provider.form("https://sso.example/token", {}))

    async def refusing(self, sock, address):
        raise ConnectionRefusedError("called")

    with pytest.raises(TielineError) as caught:
        asyncio.run(story())
    assert ("is not called" in caught.value.message) is not is_called, caught.value.message


def test_there_is_no_other_way_out():
    """Connections are made in these modules, each with a guard or to an address that its own operator stated."""
    source = Path(puller.__file__).parents[2]
    opening = re.compile(r"TCPConnector|ClientSession\(|open_connection|create_connection|urlopen|import http\.client")
    found = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if any(opening.search(line) for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    }
    assert found <= {
        "drivers/peers/client.py",  # guarded
        "drivers/http/issuer.py",  # guarded
        "drivers/probes/addresses.py",  # guarded: what a site measures, and nothing inside its owner's network
        "drivers/http/client.py",  # of clients and sites, to the exchange that they pinned
        "cli/oneshot.py",  # the same
        "api/following/forwarding.py",  # to the process that holds the lock of our own database
        "drivers/probes/tcp.py",  # of sites, to doors whose address was looked at
        "drivers/siteprocess/gang.py",  # to a node of a gang on this machine
        "drivers/doors/through.py",  # to a socket of this machine
        "drivers/mover/web.py",  # of whoever moves bytes, to the addresses that he names
    }


def test_a_name_that_changes_between_two_connections_is_looked_at_each_time(monkeypatch):
    async def story():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(type(loop), "getaddrinfo", resolving("93.184.216.34", "127.0.0.1"))
        resolver = guarded_resolver("https://exchange.example")
        (first,) = await resolver.resolve("exchange.example", 443)
        assert first["host"] == "93.184.216.34"
        with pytest.raises(TielineError, match="loopback"):
            await resolver.resolve("exchange.example", 443)

    asyncio.run(story())


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.7:7070",
        "http://127.0.0.1",
        "http://[::1]:1",
        "http://localhost:1",
        "https://93.184.216.34",
        "https://a.b",
    ],
)
def test_what_an_admin_stated_is_called(url):
    check_url(url)


@pytest.mark.parametrize("host", ["①69.254.169.254", "１２７.0.0.1", "127。0。0。1", "ｌocalhost", "%31%32%37.0.0.1"])
def test_a_host_that_is_read_as_another_later_is_no_address(host):
    with pytest.raises(TielineError) as caught:
        client(f"https://{host}:1")
    assert caught.value.code == "invalid_request"


def test_no_spelling_of_an_address_gets_around_the_rule():
    import ipaddress

    for text in (
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1",
        "ff02::1",
        "::",
        "0.0.0.0",
    ):
        address = ipaddress.ip_address(text)
        assert why_refused(address, is_private_stated=True), text
        with pytest.raises(TielineError):
            check_address("http://x", address, is_private_stated=True)
