"""Data that a task names: laid by the site as its owner's record says, at booked rates, or refused by name."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import os
import socket
import tarfile
import time
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web
from scripted_exchange import (
    OWNER,
    OWNER_FILE,
    PREFIX,
    SITE,
    Exchange,
    go,
    home_at,
    offer,
    running,
    serving,
    site,
    tar_of,
)

from tieline.drivers.doors.door import chunks_of
from tieline.drivers.engines.sandbox import found
from tieline.drivers.siteprocess.datasets import Dataset
from tieline.drivers.siteprocess.places import places_of
from tieline.model.protocol import Ended, Stop
from tieline.model.record import DelegatedKey, Delegation, Record
from tieline.model.spec import DataPlace, DatasetSpec
from tieline.model.task import Checkpoint, DataUse, Mount, Resources
from tieline.model.taskfile import parse_tasks
from tieline.model.transfer import Segment, Transfer, TransferOrder
from tieline.registry import Key, sign
from tieline.site.configuration import DoorConfig

DATA = f"{PREFIX}.lab8/dataset/digits"
FAR = f"{PREFIX}.lab8/site/sz1"
BYTES = bytes(range(256)) * 6_000  # 1.5 MB, six chunks
DIGEST = hashlib.sha256(BYTES).hexdigest()
LOOPBACK = "data: {inner: [127.0.0.0/8]}\n"
PUBLISHER = Key(b"p" * 32)


class Published(Exchange):
    """An exchange with datasets, transfers and receipts; the bytes are at `/bytes` of the same server."""

    def __init__(self, content: bytes = BYTES) -> None:
        super().__init__()
        self.content = content
        self.specs: dict[str, dict[str, Any]] = {}
        self.signer = PUBLISHER
        self.transfers: dict[str, Transfer] = {}
        self.receipts: list[dict[str, Any]] = []
        self.spans: list[str] = []
        self.gate = asyncio.Event()  # from the second half of the bytes on
        self.gate.set()
        self.status = 200
        self.is_taking = True  # receipts

    def publish(self, name: str = DATA, **spec: Any) -> None:
        places = spec.pop("places", [{"url": f"{self.url}/bytes"}])
        self.specs[name] = {"size_bytes": len(BYTES), "sha256": DIGEST, "places": places, **spec}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith("/v1/chain/"):
            return self.chain(path.rsplit("/", 1)[-1].replace("~", "/"))
        if path.startswith("/v1/transfers/"):
            found = self.transfers.get(path.rsplit("/", 1)[-1])
            return self.error("not_found") if found is None else self.json({"transfer": found})
        if path == "/v1/receipts" and not self.is_taking:
            return self.error("overloaded")
        if path == "/v1/receipts":
            self.receipts.append(msgspec.json.decode(await request.read())["receipt"])
            said = {"subject": "t-1", "seq": 1, "state": "moving", "is_known": False}
            return self.json({**said, "moved_bytes": 1, "charged_micro_cny": 1})
        if path == "/bytes":
            return await self.ranged(request)
        return await super().handle(request)

    async def ranged(self, request: web.Request) -> web.StreamResponse:
        if self.status != 200:
            return web.Response(status=self.status, headers={"Location": "http://127.0.0.2:9/"})
        first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
        start, end = int(first), int(last) + 1
        if start or end > 1:
            self.spans.append(f"{start}-{end}")
        if start >= len(self.content) // 2:
            await self.gate.wait()
        headers = {"ETag": '"1"', "Content-Range": f"bytes {start}-{end - 1}/{len(self.content)}"}
        return web.Response(status=206, body=self.content[start:end], headers=headers)

    def chain(self, name: str) -> web.Response:
        if name not in self.specs:
            return self.error("not_found")
        now, prefix = int(time.time()), name.partition("/")[0]
        is_own = prefix == OWNER
        owner_key = cast(Key, self.owner_key) if is_own else PUBLISHER
        keys = (DelegatedKey(kid=f"{prefix}#join", public=owner_key.public, nb=now - 60, exp=now + 10**6),)
        given = Delegation(prefix=prefix, keys=keys, kinds=("dataset",), max_records=9)
        times = {"rev": 1, "nb": now - 60, "exp": now + 10**6}
        called = f"{PREFIX}/owner/{prefix.rpartition('.')[2]}"
        owner = Record(id=called, kind="owner", spec=msgspec.to_builtins(given), **times)
        record = Record(id=name, kind="dataset", spec=self.specs[name], **times)
        envelopes = [
            sign(owner, self.key, f"{PREFIX}#exchange").decode(),
            sign(record, owner_key if is_own else self.signer, f"{prefix}#join").decode(),
        ]
        return self.json({"root": PREFIX, "root_public": self.key.public, "envelopes": envelopes})


def reading(run: str = "j-1.1", script: str = "cat in/digits | sha256sum", **fields: Any):
    fields = {"data": (DataUse(id=DATA, path="in/digits"),), **fields}
    return offer(run, script, **fields)


def told(story, folder: Path, more: str = LOOPBACK, exchange: Published | None = None) -> None:
    async def whole() -> None:
        served = exchange or Published()
        async with site(folder, served, owner_file=OWNER_FILE + more) as (_, process):
            await story(served, process)

    go(whole)


def a_transfer(rate_bps: int, seconds: float, **more: Any) -> Transfer:
    now_ms = int(time.time() * 1_000)
    segment = Segment(
        path=("l",), is_forward=(True,), from_ms=now_ms, until_ms=now_ms + int(seconds * 1_000), rate_bps=rate_bps
    )
    order = TransferOrder(source=FAR, target=SITE, size_bytes=len(BYTES), label=DATA, job=f"{PREFIX}/job/j-1")
    return Transfer(id="t-1", order=order, user="alice", segments=(segment,), run="j-1.1", **more)


async def refusal(exchange: Published, run: str = "j-1.1") -> Ended:
    ended = await exchange.ended(run)
    assert (ended.state, ended.is_start_failure) == ("failed", True)
    assert ended.reason is not None
    return ended


# -- brought -----------------------------------------------------------------------------------------------------------


def test_the_bytes_of_the_record_are_there_before_the_start_and_kept_for_the_next_run(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        exchange.order(reading())
        assert (await exchange.ended()).state == "succeeded"
        log = exchange.logs["j-1.1", 0].decode()
        assert f"{DIGEST}  -" in log
        assert f"[tieline] data {DATA}: 1.5 MB from {exchange.url}/bytes\n" in log
        assert "1.5 MB of 1.5 MB, 100 %" in log
        asked = len(exchange.spans)
        exchange.order(reading("j-2.1", outputs=("in/*",)))
        ended = await exchange.ended("j-2.1")
        assert (ended.state, ended.outputs) == ("succeeded", ()), "what was laid is no result"
        assert len(exchange.spans) == asked, "the cache has it"
        await exchange.until(lambda: not list(tmp_path.glob("runs/*/data")))

    told(story, tmp_path)


def test_a_receipt_that_nobody_takes_does_not_bring_the_bytes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tieline.drivers.mover.booked.RETRY_S", 0.01)

    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        exchange.transfers["t-1"] = a_transfer(10**9, 60)
        exchange.is_taking = False
        exchange.order(reading(transfers=(exchange.transfers["t-1"],)))
        assert (await exchange.ended()).state == "succeeded", exchange.of(Ended)
        assert len(exchange.spans) == len(set(exchange.spans)) == 6

    told(story, tmp_path)


def test_a_transfer_is_kept_to_receipted_and_not_handed_to_the_work(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        exchange.publish(sites=[FAR])
        booked = a_transfer(4_000_000, 6)
        exchange.transfers["t-1"] = booked
        exchange.order(reading(script="echo ${TIELINE_TRANSFERS:-none}; sha256sum < in/digits", transfers=(booked,)))
        began = time.monotonic()
        assert (await exchange.until(lambda: exchange.of(Ended), 60))[0].state == "succeeded", exchange.of(Ended)
        assert time.monotonic() - began > 1.0, "1.5 MB at 4 Mbit/s are 3 s, a quarter more at the peak"
        log = exchange.logs["j-1.1", 0].decode()
        assert "as booked" in log
        assert log.endswith(f"none\n{DIGEST}  -\n")
        assert sum(each["moved_bytes"] for each in exchange.receipts) == len(BYTES)
        assert exchange.receipts[-1]["sha256"] == DIGEST

    told(story, tmp_path)


def test_a_booking_that_cannot_be_looked_at_keeps_no_job_from_its_data(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        exchange.order(reading(transfers=(a_transfer(10**9, 60),)))  # the exchange knows it no more
        assert (await exchange.ended()).state == "succeeded", exchange.of(Ended)
        assert not exchange.receipts

    told(story, tmp_path)


def test_what_one_booking_brought_is_not_charged_to_the_next_one(tmp_path: Path):
    """A run that was stopped half way had its receipts; the next one goes on from there with a booking of its own."""

    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        first = a_transfer(10**9, 60)
        second = msgspec.structs.replace(first, id="t-2", run="j-2.1")
        exchange.transfers = {each.id: each for each in (first, second)}
        exchange.gate.clear()
        exchange.order(reading(transfers=(first,)))
        await exchange.until(lambda: chunks_in(tmp_path) == 3, 30)
        exchange.order(Stop(run="j-1.1", epoch=1))
        await exchange.ended()
        exchange.gate.set()
        exchange.order(reading("j-2.1", transfers=(second,)))
        assert (await exchange.ended("j-2.1")).state == "succeeded"
        seconds = [each["moved_bytes"] for each in exchange.receipts if each["subject"] == "t-2"]
        assert sum(seconds) == len(BYTES) - 3 * 2**18

    told(story, tmp_path)


def test_a_cache_on_another_file_system_is_copied_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("tieline.drivers.siteprocess.laying.os.link", refused)
    monkeypatch.setattr("tieline.drivers.siteprocess.laying.os.copy_file_range", refused)

    async def story(exchange: Published, _process) -> None:
        exchange.publish(places=[{"url": f"blob:{exchange.put(BYTES)}"}])
        exchange.order(reading())
        assert (await exchange.ended()).state == "succeeded"
        assert f"{DIGEST}  -" in exchange.logs["j-1.1", 0].decode()

    told(story, tmp_path, more="")


def test_a_copy_leaves_the_site_its_own_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tieline.drivers.siteprocess.laying.RESERVE_BYTES", 2**62)

    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        exchange.order(reading())
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert ended.reason.code == "start_failed", "another site may have room"
        assert f"a copy of the data takes {len(BYTES):,} bytes" in ended.reason.values["why"]

    told(story, tmp_path)


def test_a_blob_of_the_exchange_is_a_place_too(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        exchange.publish(places=[{"url": f"blob:{exchange.put(BYTES)}"}])
        exchange.order(reading())
        assert (await exchange.ended()).state == "succeeded"
        assert f"{DIGEST}  -" in exchange.logs["j-1.1", 0].decode()
        assert not exchange.spans

    told(story, tmp_path, more="")


def test_a_blob_that_one_user_may_read_is_not_shown_to_another_from_the_cache(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        exchange.publish(places=[{"url": f"blob:{exchange.put(BYTES)}"}])
        exchange.order(reading(user="alice"))
        assert (await exchange.ended()).state == "succeeded"
        exchange.blobs.clear()  # as the exchange answers who may not read it
        exchange.order(reading("j-2.1", user="alice"))
        assert (await exchange.ended("j-2.1")).state == "succeeded", "the cache has it"
        exchange.order(reading("j-3.1", user="mallory"))
        ended = await refusal(exchange, "j-3.1")
        assert ended.reason is not None
        assert ended.reason.code == "data_not_fetched"

    told(story, tmp_path, more="")


def test_a_dataset_without_a_place_is_left_to_the_work_with_its_transfer(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        exchange.publish(places=[], sites=[FAR])
        exchange.order(reading(script="echo $TIELINE_TRANSFERS", transfers=(a_transfer(10**9, 1),)))
        assert (await exchange.ended()).state == "succeeded"
        log = exchange.logs["j-1.1", 0].decode()
        assert log.endswith(f"t-1 {DATA}\n")
        assert "names no place" in log
        assert not exchange.receipts

    told(story, tmp_path)


def test_a_site_that_ended_in_the_middle_goes_on_where_it_was(tmp_path: Path):
    async def story() -> None:
        async with serving(Published()) as served:
            exchange = cast(Published, served)
            home = home_at(tmp_path, exchange, OWNER_FILE + LOOPBACK)
            exchange.publish(places=[{"url": "http://127.0.0.1:1/never"}, {"url": f"{exchange.url}/bytes"}])
            exchange.gate.clear()
            async with running(home):
                await exchange.until(lambda: exchange.streams)
                exchange.order(reading())
                await exchange.until(lambda: chunks_in(tmp_path) == 3, 30)
            exchange.gate.set()
            exchange.live = [reading(state="accepted")]
            before = len(exchange.spans)
            async with running(home):
                assert (await exchange.until(lambda: exchange.of(Ended), 60))[0].state == "succeeded"
            assert f"{DIGEST}  -" in exchange.logs["j-1.1", 0].decode()
            assert len(exchange.spans) - before == 3, "the first half was there"

    go(story)


def test_a_place_that_says_nothing_keeps_nobody_from_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tieline.drivers.siteprocess.laying.ABOUT_S", 0.2)

    async def story(exchange: Published, _process) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
            port = silent.getsockname()[1]
            exchange.publish(places=[{"url": f"http://127.0.0.1:{port}/bytes"}, {"url": f"{exchange.url}/bytes"}])
            exchange.order(reading())
            assert (await exchange.ended()).state == "succeeded", exchange.of(Ended)

    told(story, tmp_path)


def test_an_answer_that_makes_no_sense_is_not_taken_for_other_bytes(tmp_path: Path):
    """What one site is shown there, such as the page of a proxy that wants a login, need not be what others see."""

    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        exchange.status = 206
        exchange.order(reading())
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert (ended.reason.code, ended.reason.values["lasting"]) == ("data_not_fetched", 1)
        assert "which part it sends" in ended.reason.values["why"]

    told(story, tmp_path)


def test_a_place_cannot_speak_for_the_site(tmp_path: Path):
    """Its words are no reason of this site, and its disk is not this site's: the next place is asked."""
    said = {
        "code": "storage_full",
        "message": "I\nam full",
        "reasons": [{"code": "data_wrong", "values": {"data": "x"}}],
    }

    async def story(exchange: Published, _process) -> None:
        async def answer(request: web.BaseRequest) -> web.Response:
            return web.json_response(said, status=507)

        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        liar = f"http://127.0.0.1:{runner.addresses[0][1]}/bytes"
        try:
            exchange.publish(places=[{"url": liar}, {"url": f"{exchange.url}/bytes"}])
            exchange.order(reading())
            assert (await exchange.ended()).state == "succeeded", exchange.of(Ended)
            exchange.publish(places=[{"url": liar}], sha256="0" * 64)
            exchange.order(reading("j-2.1"))
            ended = await refusal(exchange, "j-2.1")
            assert ended.reason is not None
            assert (ended.reason.code, ended.reason.values["why"]) == ("data_not_fetched", "I am full")
        finally:
            await runner.cleanup()

    told(story, tmp_path)


def test_a_blob_of_a_task_is_never_taken_for_a_dataset_nor_a_dataset_for_a_blob(tmp_path: Path):
    """The cache calls both by hashes, and a task may bring any words along."""

    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        exchange.order(reading())
        assert (await exchange.ended()).state == "succeeded"
        (kept,) = kept_in(tmp_path)
        words = f"{DATA}\n{DIGEST}".encode()
        for run, content in enumerate((words, kept.name.encode()), 2):
            mount = Mount(path="mine", sha256=exchange.put(content))
            exchange.order(offer(f"j-{run}.1", "cat mine", mounts=(mount,)))
            assert (await exchange.ended(f"j-{run}.1")).state == "succeeded"
            assert exchange.logs[f"j-{run}.1", 0] == content
        assert chunks_of(tmp_path, DoorConfig()).path(hashlib.sha256(words).hexdigest()).read_bytes() == words
        kept.unlink()
        exchange.order(reading("j-4.1"))
        assert (await exchange.ended("j-4.1")).state == "succeeded"
        assert f"{DIGEST}  -" in exchange.logs["j-4.1", 0].decode()

    told(story, tmp_path)


def test_a_place_with_other_bytes_is_not_fetched_again_for_the_sake_of_one_that_is_down(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        exchange.publish(places=[{"url": f"{exchange.url}/bytes"}, {"url": "http://127.0.0.1:1/never"}])
        exchange.order(reading())
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert ended.reason.code == "data_not_fetched"
        assert len(exchange.spans) == 6, "once"

    told(story, tmp_path, exchange=Published(BYTES[::-1]))


def kept_in(folder: Path) -> list[Path]:
    """What is whole in the cache."""
    return [path for path in folder.glob("cache/*") if not path.name.startswith(".")]


def chunks_in(folder: Path) -> int:
    """That are whole, as the journals of moves say."""
    return sum(path.read_bytes().count(b"\n") - 1 for path in folder.glob("cache/.*.moves"))


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoilt", [BYTES[:-1] + b"x", BYTES[:-1], BYTES + b"x"])
def test_other_bytes_than_the_record_says_are_shown_to_nobody(tmp_path: Path, spoilt: bytes):
    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        exchange.order(reading())
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert (ended.reason.code, ended.reason.values["data"]) == ("data_wrong", DATA)
        assert len(spoilt) == len(BYTES) or not exchange.spans, "a size is seen before anything moves"
        assert not kept_in(tmp_path)

    told(story, tmp_path, exchange=Published(spoilt))


@pytest.mark.parametrize(
    ("url", "status", "why"),
    [
        ("{here}/bytes", 200, "leads to 127.0.0.1, which is loopback"),
        ("http://169.254.169.254/latest", 200, "leads to 169.254.169.254, which is metadata"),
        ("http://[::ffff:10.0.0.1]/x", 200, "which is private"),
        ("s3://bucket/key", 200, "does not list the bucket `bucket`"),
        ("blob:" + "0" * 64, 200, "is not the sha256 of the record"),
        ("https://user:secret@example.org/x", 200, "a login"),
        ("https://example.org/x?token=abc", 200, "signature or token"),
    ],
)
def test_an_address_that_this_owner_did_not_allow_is_not_called(tmp_path: Path, url: str, status: int, why: str):
    async def story(exchange: Published, _process) -> None:
        exchange.publish(places=[{"url": url.format(here=exchange.url)}])
        exchange.order(reading())
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert ended.reason.code == "data_not_fetched"
        assert why in ended.reason.values["why"]
        assert "secret" not in str(ended.reason)
        assert not exchange.spans

    told(story, tmp_path, more="")


HOSTILE = [
    "http://" + "a" * 70 + ".example/x",
    "http://" + "a." * 200 + "example/x",
    "http://[::1/x",
    "http://127.0.0.1:99999/x",
    "http://%00.example/x",
    "http://:80/",
    "http://.../x",
    "s3://lake/" + "k" * 1_500,
    "s3://lake/k%0A[tieline]%20forged",
    "door:x",
    "door:cn.demo.lab8/site/sz1",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_an_address_that_is_none_ends_the_run_and_not_the_site(tmp_path: Path, url: str):
    async def story(exchange: Published, _process) -> None:
        exchange.publish(places=[{"url": url}])
        exchange.order(reading())
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert ended.reason.code == "data_not_fetched"
        exchange.order(offer("j-2.1", "true"))
        assert (await exchange.ended("j-2.1")).state == "succeeded"

    told(story, tmp_path, more="data: {buckets: [lake]}\n")


def test_a_path_with_a_nul_is_no_file(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        exchange.publish(places=[{"url": "file:///%00", "site": SITE}])
        exchange.order(reading(script="true"))
        assert (await exchange.ended()).state == "succeeded"
        assert "names no place" in exchange.logs["j-1.1", 0].decode()

    told(story, tmp_path, more="readable: [/]\n")


def test_a_redirect_does_not_lead_to_what_is_not_allowed(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        exchange.status = 302
        exchange.order(reading())
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert "leads to 127.0.0.2, which is loopback" in ended.reason.values["why"]

    told(story, tmp_path, more="data: {inner: [127.0.0.1/32]}\n")


def test_a_record_that_its_owner_did_not_sign_is_not_believed(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        exchange.signer = Key(b"x" * 32)
        exchange.order(reading())
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert (ended.reason.code, exchange.spans) == ("data_not_fetched", [])
        assert "not proved" in ended.reason.values["why"]

    told(story, tmp_path)


@pytest.mark.parametrize(
    ("spec", "use", "scope"),
    [
        ({"residency": "site", "sites": [FAR]}, "", "site"),
        ({"residency": "owner"}, "", "owner"),
        ({}, "owner", "owner"),
    ],
)
def test_residency_binds_the_mover_whoever_placed_the_run(tmp_path: Path, spec: dict[str, Any], use: str, scope: str):
    async def story(exchange: Published, _process) -> None:
        exchange.publish(**spec)
        exchange.order(reading(data=(DataUse(id=DATA, path="in/digits", residency=use),)))
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert (ended.reason.code, ended.reason.values["scope"]) == ("residency", scope)
        assert not exchange.spans

    told(story, tmp_path)


@pytest.mark.parametrize(("disk_bytes", "code"), [(2_000_000, "data_over_disk"), (0, "data_over_limit")])
def test_files_and_data_together_have_to_fit_the_disk_before_anything_moves(tmp_path: Path, disk_bytes: int, code: str):
    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        mount = Mount(path="more", sha256=exchange.put(b"x" * 600_000), size_bytes=600_000)
        resources = (Resources(core_count=1, disk_bytes=disk_bytes),)
        exchange.order(reading(mounts=(mount,), resources=resources))
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert ended.reason.code == code
        assert ended.reason.values == {"files_bytes": 600_000, "data_bytes": len(BYTES), "most_bytes": 2_000_000}
        assert not exchange.spans
        assert not [path for path in exchange.requests if path.startswith("GET /v1/blobs")]

    told(story, tmp_path, more=LOOPBACK + "limits: {disk: 2MB}\n")


def test_archives_together_unpack_to_no_more_than_the_disk(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        mounts = tuple(
            Mount(path=name, sha256=exchange.put(tar_of(**{name: name * 700_000})), is_archive=True) for name in "ab"
        )
        resources = (Resources(core_count=1, disk_bytes=1_000_000),)
        exchange.order(offer("j-1.1", "true", mounts=mounts[:1], resources=resources))
        assert (await exchange.ended()).state == "succeeded"
        exchange.order(offer("j-2.1", "true", mounts=mounts, resources=resources))
        ended = await refusal(exchange, "j-2.1")
        assert ended.reason is not None
        assert "300,000" in ended.reason.values["why"]

    told(story, tmp_path)


def test_a_dataset_without_a_record_is_not_fetched(tmp_path: Path):
    async def story(exchange: Published, _process) -> None:
        exchange.order(reading())
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert ended.reason.code == "data_not_fetched"

    told(story, tmp_path)


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (("d", "d"), "where another dataset is laid"),
        (("d", "d/e"), "where another dataset is laid"),
        ((".",), "the work folder itself"),
        (("../d",), "does not lie below the work folder"),
        (("/d",), "does not lie below the work folder"),
        (("mine/d",), "cannot be laid there"),
        (("kept/d",), "lies where the checkpoint is"),
        (("link/d",), "does not lie below the work folder"),
    ],
)
def test_a_path_that_leaves_or_is_taken_is_refused(tmp_path: Path, paths: tuple[str, ...], why: str):
    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        archive = archive_with_a_link("link", ".")
        files = [Mount(path="mine/d", sha256=exchange.put(b"x"))]
        files.append(Mount(path="a", sha256=exchange.put(archive), is_archive=True))
        data = tuple(DataUse(id=DATA, path=path.replace("link", "a/link")) for path in paths)
        exchange.order(reading(data=data, mounts=tuple(files), checkpoint=Checkpoint(path="kept")))
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert why in str(ended.reason.values)

    told(story, tmp_path)


def archive_with_a_link(name: str, target: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        archive.addfile(info)
    return buffer.getvalue()


# -- held here ---------------------------------------------------------------------------------------------------------


def test_what_the_owner_holds_is_seen_without_a_copy(tmp_path: Path):
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "a").write_text("alga")

    async def story(exchange: Published, _process) -> None:
        exchange.publish(places=[])
        exchange.order(reading(script="cat in/digits/a; readlink -f in/digits/a"))
        assert (await exchange.ended()).state == "succeeded"
        assert exchange.logs["j-1.1", 0].decode().endswith(f"alga{lake}/a\n")
        assert (lake / "a").exists()
        assert not list((tmp_path / "home" / "cache").iterdir())

    told(story, tmp_path / "home", more=f"data: {{held: [{{id: {DATA}, path: {lake}}}]}}\n")


def test_a_door_gives_what_is_held_of_the_owners_own_datasets_under_its_hash(tmp_path: Path):
    (tmp_path / "digits").write_bytes(BYTES)
    own = f"{OWNER}/dataset/digits"

    async def story(exchange: Published, process) -> None:
        exchange.publish(places=[])
        chunks = chunks_of(process.home.folder, DoorConfig())
        link = tmp_path / "home/held" / DIGEST
        assert not await process.holding.look(), "there is no record yet"
        assert chunks.path(DIGEST) is None
        exchange.publish(own, places=[])
        (tmp_path / "home/held").touch()
        assert not await process.holding.look(), "no folder can be made there"
        (tmp_path / "home/held").unlink()
        exchange.specs[own]["sha256"] = "../../way-out"
        assert await process.holding.look()
        assert not (tmp_path / "way-out").is_symlink()
        exchange.publish(own, places=[])
        assert await process.holding.look()
        assert (str(link.readlink()), chunks.path(DIGEST)) == (str(tmp_path / "digits"), link)
        (tmp_path / "digits").write_bytes(BYTES + b"x")
        assert not await process.holding.look(), "it is another file now"
        assert chunks.path(DIGEST) is None

    held = ", ".join(f"{{id: {name}, path: {tmp_path}/digits}}" for name in (own, DATA))
    told(story, tmp_path / "home", more=f"data: {{held: [{held}]}}\n")


def test_the_place_beside_which_a_transfer_is_booked_is_read_first():
    places = [DataPlace(url=f"https://{name}", site=name) for name in ("", "b", "a")]
    dataset = Dataset(DATA, "x", DatasetSpec(size_bytes=1, sha256=DIGEST, places=tuple(places)))
    assert [place.site for place in places_of(dataset, "a")] == ["a", "", "b"]
    assert places_of(dataset, "")[0].site == ""


def test_a_file_that_a_record_names_is_shown_only_where_every_task_may_see_it(tmp_path: Path):
    lake, vault = tmp_path / "lake", tmp_path / "vault"
    for folder in (lake, vault):
        folder.mkdir()
        (folder / "digits").write_bytes(BYTES)
    (lake / "way-out").symlink_to(vault / "digits")

    async def story(exchange: Published, _process) -> None:
        for run, path in (("j-1.1", lake / "digits"), ("j-2.1", vault / "digits"), ("j-3.1", lake / "way-out")):
            exchange.publish(places=[{"url": f"file://{path}", "site": SITE}])
            exchange.order(reading(run, script="sha256sum < in/digits || true"))
            assert (await exchange.ended(run)).state == "succeeded"
            is_seen = DIGEST in exchange.logs[run, 0].decode()
            assert is_seen == (run == "j-1.1"), path

    told(story, tmp_path / "home", more=f"readable: [{lake}]\n")


def test_a_held_file_of_another_size_is_not_taken_for_the_dataset(tmp_path: Path):
    (tmp_path / "digits").write_bytes(BYTES + b"x")

    async def story(exchange: Published, _process) -> None:
        exchange.publish(places=[])
        exchange.order(reading())
        ended = await refusal(exchange)
        assert ended.reason is not None
        assert (ended.reason.code, ended.reason.values["lasting"]) == ("data_not_fetched", 1), (
            "another site may have it"
        )

    told(story, tmp_path / "home", more=f"data: {{held: [{{id: {DATA}, path: {tmp_path}/digits}}]}}\n")


@pytest.mark.skipif(not found().works, reason=f"no sandbox works here: {'; '.join(found().why_not.values())}")
def test_in_a_sandbox_data_is_read_only_and_nothing_else_of_the_site_is_seen(tmp_path: Path):
    lake = tmp_path / "lake"
    lake.mkdir()
    lake.chmod(0o777)  # what the file system would allow, the mount does not
    (lake / "a").write_text("alga")
    os.chmod(tmp_path, 0o755)  # noqa: PTH101 - a task of user 65534 comes through

    async def story(exchange: Published, _process) -> None:
        exchange.publish()
        exchange.publish(f"{DATA}2", places=[])
        script = (
            "sha256sum < in/digits; cat lake/a; (echo x > in/digits) 2>/dev/null || echo kept;"
            "chmod 777 in/digits 2>/dev/null || echo kept; rm -f in/digits 2>/dev/null || echo kept;"
            f"(echo x > lake/b) 2>/dev/null || echo kept; ls {tmp_path}/home/cache 2>/dev/null | wc -l"
        )
        data = (DataUse(id=DATA, path="in/digits"), DataUse(id=f"{DATA}2", path="lake"))
        exchange.order(reading(script=script, data=data, is_trusted=False))
        assert (await exchange.ended()).state == "succeeded"
        assert [path.name for path in lake.iterdir()] == ["a"]
        log = exchange.logs["j-1.1", 0].decode()
        assert log.endswith(f"{DIGEST}  -\nalga{'kept' + chr(10)}kept\nkept\nkept\n0\n"), log
        with contextlib.suppress(FileNotFoundError):
            assert not list((tmp_path / "home/runs/j-1.1").glob("node-0/work/in/*"))
        (kept,) = kept_in(tmp_path / "home")
        assert hashlib.sha256(kept.read_bytes()).hexdigest() == DIGEST

    more = f"data: {{inner: [127.0.0.0/8], held: [{{id: {DATA}2, path: {lake}}}]}}\n"
    told(story, tmp_path / "home", more=more)


def test_the_example_is_a_task_a_record_and_the_bytes_of_it():
    folder = Path(__file__).parents[3] / "examples/tasks/data"
    (parsed,) = parse_tasks((folder / "data.yaml").read_bytes(), "data.yaml")
    said = msgspec.json.decode((folder / "dataset.json").read_bytes())
    spec = msgspec.convert(said["spec"], DatasetSpec)
    assert parsed.task.data == (DataUse(id=said["id"], path="data/corpus.txt"),)
    content = (folder / "corpus.txt").read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (spec.size_bytes, spec.sha256)
