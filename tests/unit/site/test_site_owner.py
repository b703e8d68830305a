"""What the owner says: records, draining, leaving, joining."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from scripted_exchange import (
    CORES,
    MACHINE,
    OWNER,
    OWNER_FILE,
    SITE,
    Exchange,
    go,
    home_at,
    offer,
    running,
    serving,
    site,
)  # fmt: skip
from site_offers import ask

from tieline.drivers.siteprocess import change, has_joined, join_site, owner_key, owner_seed, publisher
from tieline.drivers.siteprocess.home import Home
from tieline.drivers.siteprocess.process import SiteProcess
from tieline.model.error import TielineError
from tieline.model.jointoken import JoinToken
from tieline.model.protocol import (
    Drain,
    Quoted,
    Refused,
)  # fmt: skip
from tieline.model.record import Status
from tieline.model.task import Resources, Task
from tieline.registry import Key, opened

# -- the owner ---------------------------------------------------------------------------------------------------------


def test_the_records_are_published_before_the_first_beat_and_go_on_after_a_loss_of_memory(
    tmp_path: Path,
):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            async with running(home):
                await exchange.until(lambda: exchange.beats)
                assert {SITE, CORES} <= set(exchange.records)
                beat = exchange.beats[0]
                assert [(pool.pool, pool.cores) for pool in beat.pools] == [(CORES, 8)]
                await exchange.until(lambda: len(exchange.beats) >= 3)
                assert [
                    later.seq > earlier.seq for earlier, later in zip(exchange.beats, exchange.beats[1:], strict=False)
                ]
            posts = exchange.record_posts
            async with running(home):
                await exchange.until(lambda: exchange.sessions == 2)
                await asyncio.sleep(0.2)
                assert exchange.record_posts == posts, "nothing had changed"
            (tmp_path / "records.json").unlink()
            (tmp_path / "site.yaml").write_text(OWNER_FILE.replace("0.1", "0.2"))
            async with running(Home(tmp_path)):
                price = "price_micro_cny_per_accelerator_hour"
                await exchange.until(lambda: exchange.records[CORES].spec.get(price) == 200_000)
                assert exchange.records[CORES].rev == 2

    go(story)


class Deaf(Exchange):
    """Answers nothing about one record for a while: it has taken it all the same, or has not."""

    is_deaf, takes = True, True

    async def record(self, request):
        body = await request.read() if request.method == "POST" else b""
        if not (self.is_deaf and CORES.encode() in _payload(body)):
            return await super().record(request)
        if self.takes:
            await super().record(request)
        return self.error("overloaded")


def _payload(body: bytes) -> bytes:
    return opened(json.loads(body)["envelope"].encode()).record.id.encode() if body else b""


@pytest.mark.parametrize("takes", [True, False])
def test_what_was_said_without_an_answer_is_not_forgotten(tmp_path: Path, takes: bool, monkeypatch):
    monkeypatch.setattr(publisher, "AGAIN_S", 0.1)

    async def story() -> None:
        async with serving(Deaf()) as exchange:
            exchange.takes = takes
            home = home_at(tmp_path, exchange)
            async with running(home):
                await exchange.until(lambda: home.heads().get(CORES))
                assert home.heads()[CORES].kid == publisher.UNSURE
            if takes:  # the process that comes next offers it no more, and knows that it was offered
                (tmp_path / "site.yaml").write_text("pools: [{name: other, cores: 1}]")
                exchange.is_deaf = False
                async with running(Home(tmp_path)):
                    await exchange.until(lambda: exchange.records[CORES].status is Status.WITHDRAWN)
            else:
                async with running(Home(tmp_path)):
                    exchange.is_deaf = False
                    await exchange.until(lambda: CORES in exchange.records)
                    await exchange.until(lambda: home.heads()[CORES].kid == f"{OWNER}#join")

    go(story)


def test_a_pool_that_is_not_offered_any_more_is_withdrawn(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            async with running(home):
                await exchange.until(lambda: CORES in exchange.records)
            (tmp_path / "site.yaml").write_text("pools: [{name: other, cores: 1}]")
            async with running(Home(tmp_path)):
                await exchange.until(lambda: exchange.records[CORES].status is Status.WITHDRAWN)

    go(story)


def test_machines_that_install_nothing_are_fronted_for(tmp_path: Path):
    async def story() -> None:
        fronts = "fronts: [{name: cloud1, file: cloud1.csv, every: 1s}]\n"
        tmp_path.joinpath("cloud1.csv").write_text("name,cores\ncpus,64\n")
        async with site(tmp_path, owner_file=OWNER_FILE + fronts) as (exchange, _):
            place = "cn.demo.lab7/site/cloud1"
            await exchange.until(lambda: "cn.demo.lab7/pool/cloud1-cpus" in exchange.records)
            assert exchange.records[place].spec["declared_by"] == "cn.demo.lab7"
            tmp_path.joinpath("cloud1.csv").write_text("name,cores\ncpus,zero\n")
            await asyncio.sleep(1.2)
            assert exchange.records["cn.demo.lab7/pool/cloud1-cpus"].status is Status.ACTIVE
            tmp_path.joinpath("cloud1.csv").write_text("name,cores\nmore,65\n")
            gone = "cn.demo.lab7/pool/cloud1-cpus"
            await exchange.until(lambda: exchange.records[gone].status is Status.WITHDRAWN)

    go(story)


def test_a_question_is_answered_by_the_owner_s_rules(tmp_path: Path):
    async def story() -> None:
        counter = OWNER_FILE.replace("price: 0.1", "price: 0.1, counter: {price_floor: 0.05}")
        async with site(tmp_path, owner_file=counter) as (exchange, _):
            task = Task(run="x", is_trusted=True, resources=(Resources(core_count=1),))
            exchange.order(ask(pool=CORES, task=task, asked_price_micro_cny_per_unit_hour=10_000))
            quoted = (await exchange.until(lambda: exchange.of(Quoted)))[0]
            assert (quoted.is_refused, quoted.price_micro_cny_per_unit_hour) == (False, 50_000)

    go(story)


def test_draining_is_the_owner_s_word_with_and_without_the_exchange(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, process):
            view = await asyncio.to_thread(change, tmp_path, "drain")
            assert (view.id, exchange.changes) == (SITE, ["drain"])
            await exchange.until(lambda: process.state.is_drained_by_owner)
            exchange.order(offer())
            refused = (await exchange.until(lambda: exchange.of(Refused)))[0]
            assert refused.reason.code == "site_draining"
            await exchange.until(lambda: exchange.beats[-1].health == "draining")
            assert exchange.beats[-1].pools[0].cores == 0
            await exchange.until(lambda: exchange.records[SITE].status is Status.DRAINING)
            await asyncio.to_thread(change, tmp_path, "undrain")
            await exchange.until(lambda: not process.state.is_drained_by_owner)
            exchange.order(offer("j-2.1"))
            await exchange.ended("j-2.1")

    go(story)


def test_a_drain_from_the_exchange_is_obeyed_too(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            exchange.order(Drain(is_draining=True))
            exchange.order(offer())
            assert (await exchange.until(lambda: exchange.of(Refused)))[0].reason.code == "site_draining"

    go(story)


def test_a_word_that_was_given_while_nobody_listened_is_told_at_the_next_welcome(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            home.mark("draining", is_set=True)
            async with running(home):
                await exchange.until(lambda: exchange.changes == ["drain"])

    go(story)


def test_the_owner_s_command_opens_a_session_of_its_own_where_no_process_runs(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home_at(tmp_path, exchange)
            await asyncio.to_thread(change, tmp_path, "drain")
            assert (exchange.changes, exchange.sessions) == (["drain"], 1)

    go(story)


def test_a_site_that_left_ends_its_process_and_does_not_start_again(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            process = SiteProcess(home, machine=MACHINE, is_measuring=False)
            task = asyncio.create_task(process.run())
            await exchange.until(lambda: exchange.streams)
            await asyncio.to_thread(change, tmp_path, "leave")
            await asyncio.wait_for(task, 10)
            assert exchange.changes == ["leave"]
            with pytest.raises(TielineError, match="has left"):
                await SiteProcess(home, machine=MACHINE).run()

    go(story)


def test_an_unknown_change_is_refused(tmp_path: Path):
    with pytest.raises(TielineError, match="is not drain"):
        change(tmp_path, "explode")


def test_only_one_process_runs_a_site(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (_, process):
            with pytest.raises(TielineError, match="another process"):
                await SiteProcess(process.home, machine=MACHINE).run()

    go(story)


def test_a_folder_that_has_not_joined_says_how(tmp_path: Path):
    with pytest.raises(TielineError, match="no site has joined") as caught:
        SiteProcess(Home(tmp_path))
    assert caught.value.hints


# -- joining -----------------------------------------------------------------------------------------------------------


def token_of(exchange: Exchange, **fields: str) -> str:
    values = {"url": exchange.url, "fingerprint": exchange.key.fingerprint, "secret": "s3cret", "owner": "cn.demo.lab7"}
    return str(JoinToken(**(values | fields)))


def test_a_site_joins_with_a_token_and_pins_the_exchange(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            joined = await join_site(tmp_path / "gz1", token=token_of(exchange))
            assert (joined.site, joined.is_admitted) == (SITE, True)
            assert exchange.joins[0].token == "s3cret"
            home = Home(tmp_path / "gz1")
            assert (home.identity.public, home.identity.kid) == (exchange.key.public, "cn.demo.lab7#join")
            assert has_joined(tmp_path / "gz1")
            for name in ("owner", "site", "sealing"):
                path = tmp_path / "gz1/keys" / name
                assert path.stat().st_mode & 0o777 == 0o600
            assert owner_key(tmp_path / "gz1").public == Key(owner_seed(tmp_path / "gz1")).public
            assert b"s3cret" not in (tmp_path / "gz1/identity.json").read_bytes()

    go(story)


def test_a_token_of_another_exchange_does_not_give_its_secret_away(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            with pytest.raises(TielineError) as caught:
                await join_site(tmp_path, token=token_of(exchange, fingerprint="0" * 32))
            assert caught.value.code == "token_refused"
            assert exchange.joins == []
            assert not has_joined(tmp_path)

    go(story)


def test_a_site_without_a_token_waits(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            joined = await join_site(tmp_path / "gz2", url=exchange.url, owner="lab8", name="hall-1")
            assert (joined.site, joined.is_admitted) == ("cn.demo.lab8/site/hall-1", False)

    go(story)


def test_a_delegation_by_another_key_is_not_believed(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange(answers_as=Key(b"x" * 32))) as exchange:
            with pytest.raises(TielineError) as caught:
                await join_site(tmp_path / "gz1", token=token_of(exchange))
            assert caught.value.code == "record_refused"
            assert not has_joined(tmp_path / "gz1")

    go(story)


@pytest.mark.parametrize("fields", [{"owner": "Lab 7"}, {"name": "a.b"}, {"name": "x" * 64}])
def test_names_that_cannot_be_are_refused_before_anything_is_sent(tmp_path: Path, fields: dict[str, str]):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            with pytest.raises(TielineError, match="lower-case"):
                await join_site(tmp_path / "gz1", token=token_of(exchange), **fields)
            assert exchange.joins == []

    go(story)


def test_an_owner_with_a_key_keeps_it(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            await join_site(tmp_path / "gz1", token=token_of(exchange), seed=b"o" * 32)
            assert owner_seed(tmp_path / "gz1") == b"o" * 32
            with pytest.raises(TielineError, match="another owner"):
                await join_site(tmp_path / "gz1", token=token_of(exchange), seed=b"p" * 32)

    go(story)


def test_words_that_are_no_token_are_refused(tmp_path: Path):
    with pytest.raises(TielineError, match="no join token"):
        go(lambda: join_site(tmp_path, token="tl1.!!!"))
