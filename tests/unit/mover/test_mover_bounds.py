"""Bounds of a move: names, sizes and memory that others choose; credentials that nobody is to see."""

from __future__ import annotations

import pytest
from moody_server import bytes_of, moody, run

from tieline.drivers.mover import Terms, address_of, move
from tieline.drivers.mover.ends import About
from tieline.drivers.mover.files import FileSource, FileTarget
from tieline.drivers.mover.moving import MOST_CHUNK_BYTES, MOST_CHUNKS
from tieline.drivers.mover.web import HttpSource
from tieline.model.error import TielineError

BYTES = bytes_of(7, 95_321)
SMALL = Terms(chunk_bytes=10_000, streams=3, tries=2)


def test_what_moved_to_a_neighbour_of_a_like_name_is_kept(place, tmp_path):
    (tmp_path / "other").write_bytes(b"other bytes")

    async def all_three():
        async with moody(BYTES) as server:
            server.spoil = lambda start, part: None if start >= 50_000 else part
            with pytest.raises(TielineError):
                await move(HttpSource(address_of(server.url)), FileTarget(str(place / "it.bin")), SMALL)
            await move(FileSource(str(tmp_path / "other")), FileTarget(str(place / "it")), SMALL)
            server.spoil = lambda start, part: part
            return await move(HttpSource(address_of(server.url)), FileTarget(str(place / "it.bin")), SMALL)

    assert run(all_three()).resumed_bytes >= 10_000
    assert (place / "it.bin").read_bytes() == BYTES
    assert sorted(each.name for each in place.iterdir()) == ["it", "it.bin"]


@pytest.mark.parametrize("name", ["x" * 255, "算" * 85, "[a]*?"])
def test_a_file_may_have_any_name_that_a_file_system_takes(place, tmp_path, name):
    (tmp_path / "from").write_bytes(BYTES)
    run(move(FileSource(str(tmp_path / "from")), FileTarget(str(place / name)), SMALL))
    assert (place / name).read_bytes() == BYTES
    assert [each.name for each in place.iterdir()] == [name]


class Vast:
    """A source that says anything of its size."""

    name = "vast"

    def __init__(self, size_bytes: int, chunk_bytes: int = 0) -> None:
        self.said = About(size_bytes, "tag", chunk_bytes=chunk_bytes)

    async def about(self):
        return self.said

    async def close(self):
        pass


@pytest.mark.parametrize("source", [Vast(MOST_CHUNKS * MOST_CHUNK_BYTES + 1), Vast(2**40, MOST_CHUNK_BYTES + 1)])
def test_a_size_that_no_memory_holds_the_chunks_of_is_refused(place, source):
    with pytest.raises(TielineError, match=r"in chunks of 1,073,741,8\d\d, over 1,073,741,824") as refused:
        run(move(source, FileTarget(str(place / "it")), SMALL))
    assert refused.value.code == "too_large"
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Signature", "x-goog-signature", "X-Goog-Credential", "x-oss-signature", "X-Tos-Security-Token",
        "q-signature", "Signature", "sig", "token", "access_token", "api_key", "apikey", "password",
    ],
)  # fmt: skip
def test_an_address_with_a_credential_is_not_taken_from_an_argument(query, monkeypatch):
    text = f"https://x.example/y?a=1&{query}=do-not-show-me"
    with pytest.raises(TielineError, match="seen by everybody who lists processes") as refused:
        address_of(text)
    assert "do-not-show-me" not in str(refused.value)
    monkeypatch.setenv("SOURCE", text)
    assert "do-not-show-me" not in repr(address_of("env:SOURCE"))


def test_what_only_looks_like_a_credential_is_taken():
    for query in ("design=1", "tokens=3", "assignature=x", "page=2"):
        assert address_of(f"https://x.example/y?{query}").url.endswith(query)
