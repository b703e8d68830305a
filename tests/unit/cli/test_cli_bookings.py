"""`tieline transfer`, `circuit`, `calendar` and `network tariff`: booked, shown, billed and cancelled by hand."""

import json

import pytest
from api_world import ADMIN

from tieline.exchange.bookings import TakeReceipt
from tieline.exchange.commands import ChangeTopology
from tieline.model.circuit import Receipt
from tieline.model.party import SYSTEM, Role
from tieline.model.topology import Link, Node, Topology

GB = 10**9
PAIR = Topology(
    name="pair",
    nodes=(Node(name="east"), Node(name="west")),
    links=(
        Link(name="ew", a="east", b="west", capacity_bps=10 * GB, delay_us=1_000, mtu_bytes=9_000),
        Link(name="we", a="west", b="east", capacity_bps=10 * GB, delay_us=2_000, mtu_bytes=9_000),
    ),
)
TARIFF = {
    "deadline_micro_cny_per_gb": 1_000,
    "circuit_micro_cny_per_gbps_hour": 6_000_000,
    "hours": [{"begin_s": 79_200, "end_s": 21_600, "permille": 1_000, "classes": ["protected"]}],
}


@pytest.fixture
def people(exchange, call, tmp_path):
    """An admin and two users, each logged in, over a network with prices."""
    exchange.do(ChangeTopology(actor=SYSTEM, topology=PAIR))
    call("login", exchange.url, "--token", ADMIN, "--name", "admin")
    for name in ("amy", "bea"):
        call("login", exchange.url, "--token", exchange.token(name, Role.USER), "--name", name)
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps(TARIFF))
    done = call("-x", "admin", "network", "tariff", "set", prices)
    assert done.exit_code == 0, done.stderr

    def as_(who, *args, **more):
        return call("-x", who, *args, **more)

    return as_


def data(done):
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def listed(done, name):
    """The row of one booking; other tests have theirs in the same exchange."""
    return [row for line in done.stdout.splitlines() if (row := line.split("\t"))[0] == name]


def test_a_transfer_from_its_order_to_its_bill(exchange, people):
    dry = people("amy", "transfer", "order", "east", "west", "100GB", "--by", "2h", "--dry-run")
    assert dry.stdout == ""
    assert "for 0.10 CNY" in dry.stderr
    made = people("amy", "transfer", "order", "east", "west", "100GB", "--by", "2h", "--label", "weights")
    assert made.exit_code == 0, made.stderr
    name = made.stdout.strip()
    assert f"{name} is booked: 100 GB" in made.stderr
    (row,) = listed(people("amy", "transfer", "ls"), name)
    assert (row[0], row[1], row[5], row[8]) == (name, "booked", "100 GB", "0.10")
    assert people("bea", "transfer", "ls").stdout == ""
    assert people("bea", "transfer", "show", name).exit_code == 1
    now_ms = exchange.clock.now_ms()
    seen = Receipt(subject=name, seq=1, begun_ms=now_ms - 1, ended_ms=now_ms, moved_bytes=50 * GB)
    exchange.do(TakeReceipt(actor=SYSTEM, receipt=seen))
    shown = people("amy", "transfer", "show", name).stdout
    for line in ("state\tmoving", "arrived\t50 GB", "label\tweights", "CNY\t0.05", "1\t"):
        assert line in shown
    assert "已到达\t50 GB" in people("amy", "--lang", "zh", "transfer", "show", name).stdout
    assert data(people("amy", "transfer", "show", name, "--json"))["moved_bytes"] == 50 * GB
    bill = [line for line in people("amy", "bill").stdout.splitlines() if line.startswith(name)]
    assert bill[0].split("\t")[2:5] == ["50 GB", "0.10", "0.05"]
    assert [line["run"] for line in data(people("amy", "usage", "--json"))].count(name) == 1
    gone = people("amy", "transfer", "cancel", name, "-y")
    assert gone.stderr == f"{name} is cancelled; 50 GB arrived, 0.05 CNY\n"
    assert people("amy", "transfer", "ls", "--state", "booked").stdout == ""


def test_a_refusal_is_exit_code_3_and_says_the_bound(people):
    done = people("amy", "transfer", "order", "east", "west", "1PB", "--by", "1h")
    assert done.exit_code == 3
    assert done.stderr.count("even an empty network needs") == 1
    assert (
        "即使网络空闲" in people("amy", "--lang", "zh", "transfer", "order", "east", "west", "1PB", "--by", "1h").stderr
    )
    assert "hint: tieline calendar" in done.stderr
    done = people("amy", "circuit", "order", "east", "west", "1Gbit/s", "--latency", "100us")
    assert done.exit_code == 3
    assert "the quickest path takes 1 ms one way; 100 us were asked" in done.stderr
    assert "`0B` is no size above zero" in people("amy", "transfer", "order", "east", "west", "0B", "--by", "1h").stderr
    for wrong in (("1XB", "--by", "1h"), ("1GB", "--by", "soon"), ("1GB", "--limit", "much")):
        assert people("amy", "transfer", "order", "east", "west", *wrong).exit_code == 2
    assert people("amy", "circuit", "order", "east", "west", "1Gbit/s", "--every", "1d").exit_code == 2


def test_a_circuit_is_ordered_resized_and_cancelled(people):
    made = people("amy", "circuit", "order", "east", "west", "1Gbit/s", "--diversity", "link", "--most", "2Gbit/s",
                  "--every", "1d", "--begin", "1h", "--length", "2h", "--limit", "30")  # fmt: skip
    assert made.exit_code == 0, made.stderr
    name = made.stdout.strip()
    assert "over east > west, 1 ms one way, 9.00 CNY an hour" in made.stderr
    found = data(people("amy", "circuit", "show", name, "--json"))
    assert found["spare"]["links"] == ["we"]
    assert found["granted_bps"] == 2 * GB
    shown = people("amy", "circuit", "show", name).stdout
    assert "rate\t2 Gbit/s (1 Gbit/s - 2 Gbit/s)" in shown
    assert "until\tit is cancelled" in shown
    over = people("amy", "circuit", "resize", name, "20Gbit/s")
    assert over.exit_code == 3
    assert "is the most in all of its windows" in over.stderr
    more = data(people("amy", "circuit", "resize", name, "3Gbit/s", "--json"))
    assert more["circuit"]["granted_bps"] == 3 * GB
    assert [row[1] for row in listed(people("amy", "circuit", "ls"), name)] == ["ordered"]
    model = people("amy", "circuit", "order", "east", "west", "1Gbit/s", "--line", "otn", "--dry-run")
    assert "a model of its attributes" in model.stderr
    assert people("amy", "circuit", "cancel", name, "-y").stderr == f"{name} is cancelled; 0.00 CNY\n"


def test_the_calendar_is_a_table_a_picture_and_json(people, tmp_path):
    made = people("amy", "circuit", "order", "east", "west", "5Gbit/s")
    rows = [line.split("\t") for line in people("bea", "calendar", "--columns", 4).stdout.splitlines()]
    assert [row[:4] for row in rows if row[0] == "ew"] == [
        ["ew", "east > west", "10 Gbit/s", "5 Gbit/s"],
        ["ew", "west > east", "10 Gbit/s", "5 Gbit/s"],
    ]
    assert rows[0][4] == "▄▄▄▄"
    picture = tmp_path / "calendar.svg"
    done = people("bea", "calendar", "ew", "--until", "2h", "--svg", picture)
    assert done.exit_code == 0, done.stderr
    text = picture.read_text()
    assert text.startswith("<svg")
    assert "5,000,000,000 of 10,000,000,000 bit/s" in text
    assert len(data(people("bea", "calendar", "ew", "--json"))["links"]) == 2
    assert people("bea", "calendar", "nowhere").exit_code == 1
    people("amy", "circuit", "cancel", made.stdout.strip(), "-y")


def test_a_night_is_decided_from_a_file(exchange, people, tmp_path):
    due_ms = exchange.clock.now_ms() + 3_600_000
    orders = [
        {"source": "east", "target": "west", "size_bytes": size * GB, "deadline_ms": due_ms}
        for size in (2_000, 2_000, 8_000)
    ]
    file = tmp_path / "night.json"
    file.write_text(json.dumps(orders))
    done = people("amy", "transfer", "night", file, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "of 3 orders" in done.stderr
    assert done.stderr.endswith("nothing is booked: this was a dry run\n")
    assert people("amy", "transfer", "ls", "--state", "booked").stdout == ""
    file.write_text("[]")
    assert people("amy", "transfer", "night", file).exit_code == 2
    file.write_bytes(b"\xff\x00")
    assert people("amy", "transfer", "night", file).exit_code == 2


def test_prices_are_shown_to_all_and_set_by_who_runs_the_network(people, tmp_path):
    shown = people("bea", "network", "tariff", "show").stdout
    assert "an hour of 1 Gbit/s\t6.00 CNY" in shown
    assert "from 22:00 to 06:00 (UTC+08:00), protected\t100 %" in shown
    prices = tmp_path / "p.json"
    prices.write_text(json.dumps(TARIFF))
    assert people("bea", "network", "tariff", "set", prices).exit_code == 4
    prices.write_text('{"deadline_micro_cny_per_gb": -1}')
    assert people("admin", "network", "tariff", "set", prices).exit_code == 2
