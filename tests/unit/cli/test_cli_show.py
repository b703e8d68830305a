"""What a plan says to people: beside the price of the cards, what bringing the data takes."""

import msgspec
import pytest

from tieline.cli.show import show_plan
from tieline.model.plan import Candidate, Plan, PlannedTransfer

TRIP = PlannedTransfer(
    data="cn.lab/dataset/d", source="cn.lab/site/home", size_bytes=90 * 10**9, time_us=144_000_000,
    rate_bps=5 * 10**9, rtt_us=12_500, links=("a-b", "b-c"), price_micro_cny=90_000,
)  # fmt: skip


def shown(capsys: pytest.CaptureFixture[str], *trips: PlannedTransfer) -> str:
    one = Candidate(pool="cn.lab/pool/p", site="cn.lab/site/s", owner="cn.lab", alternative=0, transfers=trips)
    show_plan(Plan(name="t", candidates=(one,), considered=1, fitting=1))
    return capsys.readouterr().err


def test_a_plan_says_how_the_data_comes(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, TRIP)
    assert (
        "  cn.lab/pool/p: brings cn.lab/dataset/d (90 GB) from cn.lab/site/home over a-b > b-c: "
        "5 Gbit/s (declared), round trip 12.5 ms, 2 min 24 s, 0.09 CNY; the work has to fetch it\n"
    ) in text
    assert "0.09 CNY; the site lays it before the start\n" in shown(capsys, msgspec.structs.replace(TRIP, is_laid=True))


def test_what_is_not_known_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    trip = PlannedTransfer(data="d\x1b[2J", source="s", size_bytes=1, time_us=1, rate_bps=10**10, evidence="unknown")
    text = shown(capsys, trip)
    assert (
        "brings d [2J (1 B) from s over a way that no topology says: 10 Gbit/s (assumed: nobody said or measured"
        in text
    )
    assert "10 Gbit/s (emulated)" in shown(capsys, msgspec.structs.replace(trip, evidence="emulated"))
    assert "round trip unknown" in text


def test_without_data_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "brings" not in shown(capsys)
