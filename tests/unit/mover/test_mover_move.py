"""Moving: all bytes or none, whatever the peer, the disk and the clock do."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import stat
import time

import pytest
from moody_server import bytes_of, moody, run

from tieline.drivers.mover import Lane, Schedule, Terms, address_of, lanes_of, move
from tieline.drivers.mover.files import FileSource, FileTarget
from tieline.drivers.mover.pacing import Span
from tieline.drivers.mover.web import SO_MARK, HttpSource, HttpTarget, _marked
from tieline.model.error import TielineError
from tieline.model.transfer import Segment

SMALL = Terms(chunk_bytes=10_000, streams=4, tries=4, stall_s=5)
BYTES = bytes_of(1, 95_321)
DIGEST = hashlib.sha256(BYTES).hexdigest()


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def fetched(place, terms=SMALL, lanes=(), spoil=None, content=BYTES, **mood):
    """Move what a server gives to ``place/it``; the result and the server."""

    async def work():
        async with moody(content) as server:
            for name, value in mood.items():
                setattr(server, name, value)
            if spoil is not None:
                server.spoil = spoil
            source = HttpSource(address_of(server.url + "/it"))
            return await move(source, FileTarget(str(place / "it")), terms, lanes), server

    return run(work())


@pytest.mark.parametrize("size", [0, 1, 9_999, 10_000, 10_001, 95_321])
def test_a_file_of_any_size_arrives_whole_over_several_streams(place, size):
    moved, server = fetched(place, content=BYTES[:size])
    assert (place / "it").read_bytes() == BYTES[:size]
    assert (moved.size_bytes, moved.moved_bytes, moved.resumed_bytes) == (size, size, 0)
    assert moved.sha256 == hashlib.sha256(BYTES[:size]).hexdigest()
    assert hidden(place) == []
    assert len(server.asked) == -(-size // 10_000) + 2  # one for each chunk, a look before and a look after


def test_files_are_moved_with_the_rights_that_the_umask_gives(place, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    run(move(FileSource(str(tmp_path / "from")), FileTarget(str(place / "it")), SMALL))
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((place / "it").stat().st_mode) == 0o666 & ~mask


def test_a_connection_that_is_cut_goes_on_where_it_was(place):
    moved, server = fetched(place, spoil=lambda _, part: part[:6_000])
    assert (place / "it").read_bytes() == BYTES
    assert moved.retry_count == 9
    assert "bytes=6000-9999" in server.asked


def test_an_empty_file_of_a_server_that_gives_no_range_of_it_is_moved(place):
    moved, _ = fetched(place, content=b"", refuses_empty=True)
    assert (place / "it").read_bytes() == b""
    assert moved.size_bytes == 0


def test_a_peer_that_gives_a_byte_for_each_connection_is_given_up(place):
    with pytest.raises(TielineError) as caught:
        fetched(place, spoil=lambda _, part: part[:1], content=bytes_of(7, 200_000), terms=Terms(tries=3))
    assert caught.value.code == "exchange_unreachable"


def test_a_peer_that_never_answers_is_given_up_and_what_arrived_is_kept(place):
    with pytest.raises(TielineError) as caught:
        fetched(place, spoil=lambda start, part: None if start >= 50_000 else part)
    assert caught.value.code == "exchange_unreachable"
    assert not (place / "it").exists()
    assert len(hidden(place)) == 2


def test_a_later_try_moves_only_what_is_missing(place):
    with pytest.raises(TielineError):
        fetched(place, spoil=lambda start, part: None if start >= 50_000 else part)

    # the same address and tag: another server on another port is another source
    async def twice():
        async with moody(BYTES) as server:
            server.spoil = lambda start, part: None if start >= 50_000 else part
            source = lambda: HttpSource(address_of(server.url + "/it"))  # noqa: E731
            with pytest.raises(TielineError):
                await move(source(), FileTarget(str(place / "it")), SMALL)
            server.spoil = lambda start, part: part
            server.asked.clear()
            return await move(source(), FileTarget(str(place / "it")), SMALL), server

    moved, server = run(twice())
    assert (place / "it").read_bytes() == BYTES
    assert moved.resumed_bytes >= 10_000
    assert moved.moved_bytes + moved.resumed_bytes == len(BYTES)
    assert len(server.asked) == 2 + -(-moved.moved_bytes // 10_000)
    assert hidden(place) == []  # of the first source too


def test_chunks_that_a_crash_tore_are_moved_again(place, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)

    class Dying(FileTarget):
        async def put(self, index, chunk, sha256):
            if index == 7:
                raise TielineError("internal", "the power is cut")
            await super().put(index, chunk, sha256)

    alone = Terms(chunk_bytes=10_000, streams=1)
    with pytest.raises(TielineError, match="power"):
        run(move(FileSource(str(tmp_path / "from")), Dying(str(place / "it")), alone))
    (part,) = place.glob(".*.part")
    with open(part, "r+b") as file:
        file.seek(25_000)
        file.write(b"torn")
    (journal,) = place.glob(".*.moves")
    with open(journal, "ab") as file:
        file.write(b"8 " + b"0" * 63)  # a line without its end
    moved = run(move(FileSource(str(tmp_path / "from")), FileTarget(str(place / "it")), alone))
    assert moved.resumed_bytes == 60_000
    assert (place / "it").read_bytes() == BYTES


def test_a_source_that_changes_meanwhile_is_refused_and_nothing_is_seen(place):
    async def work():
        async with moody(BYTES) as server:

            def spoil(start, part):
                server.tag = '"two"'
                return part

            server.spoil = spoil
            await move(HttpSource(address_of(server.url)), FileTarget(str(place / "it")), SMALL)

    with pytest.raises(TielineError, match="changed while it was moved") as caught:
        run(work())
    assert caught.value.code == "conflict"
    assert not (place / "it").exists()


@pytest.mark.parametrize("how", ["written", "replaced", "shorter"])
def test_a_file_that_changes_meanwhile_is_refused(place, tmp_path, how):
    path = tmp_path / "from"
    path.write_bytes(BYTES)

    class Changing(FileTarget):
        async def put(self, index, chunk, sha256):
            if index == 3:
                if how == "written":
                    os.utime(path, ns=(1, 1))
                elif how == "replaced":
                    path.unlink()
                    path.write_bytes(BYTES)
                else:
                    os.truncate(path, 5)
            await super().put(index, chunk, sha256)

    with pytest.raises(TielineError) as caught:
        run(move(FileSource(str(path)), Changing(str(place / "it")), SMALL))
    assert caught.value.code == "conflict"
    assert not (place / "it").exists()


def test_other_bytes_than_promised_leave_nothing(place):
    terms = Terms(chunk_bytes=10_000, sha256="0" * 64)
    with pytest.raises(TielineError, match="nothing is kept") as caught:
        fetched(place, terms=terms)
    assert caught.value.code == "check_failed"
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ({"is_ranged": False, "says_length": False}, "does not say how many bytes"),
        ({"content": BYTES, "terms": Terms(limit_bytes=95_320)}, "over 95,320"),
    ],
)
def test_a_source_without_bounds_is_refused(place, mood, words):
    with pytest.raises(TielineError, match=words):
        fetched(place, **mood)
    assert list(place.iterdir()) == []


def test_a_server_without_ranges_is_read_in_one_go_and_begun_anew_when_it_breaks(place):
    tries = []

    def spoil(start, part):
        tries.append(start)
        return part[:33_333] if len(tries) == 2 else part

    moved, server = fetched(place, spoil=spoil, is_ranged=False)
    assert (place / "it").read_bytes() == BYTES
    assert moved.retry_count == 1
    assert server.asked.count("") == 2


def test_a_peer_that_drips_is_stalled(place):
    async def work():
        async def drip(reader, writer):
            open_ones.add(writer)
            request = await reader.readuntil(b"\r\n\r\n")
            is_look = b"bytes=0-0" in request
            start = int(request.partition(b"bytes=")[2].partition(b"-")[0])
            length = 1 if is_look else 10_000 - start
            writer.write(
                b'HTTP/1.1 206 Partial Content\r\nETag: "x"\r\nContent-Length: %d\r\n' % length
                + b"Content-Range: bytes %d-%d/10000\r\nConnection: close\r\n\r\n" % (start, start + length - 1)
            )
            writer.write(b"x")
            try:
                while not is_look and not reader.at_eof():
                    await writer.drain()
                    await asyncio.sleep(0.02)
                    writer.write(b"x")
            except OSError:
                pass
            finally:
                writer.close()
                open_ones.discard(writer)

        open_ones = set()
        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        terms = Terms(streams=1, stall_s=0.2, tries=2)
        try:
            await move(HttpSource(address_of(url)), FileTarget(str(place / "it")), terms)
        finally:
            server.close()
            while open_ones:  # noqa: ASYNC110 - of the server, which has no word for it
                await asyncio.sleep(0.01)

    with pytest.raises(TielineError, match="next to nothing"):
        run(asyncio.wait_for(work(), 60))


def test_a_full_disk_is_known_before_anything_moves(place, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    target = FileTarget(str(place / "it"), reserve_bytes=2**62)
    with pytest.raises(TielineError, match="do not fit") as caught:
        run(move(FileSource(str(tmp_path / "from")), target, SMALL))
    assert caught.value.code == "storage_full"
    assert list(place.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_what_a_later_try_goes_on_with(place, tmp_path, monkeypatch):
    (tmp_path / "from").write_bytes(BYTES)
    real = os.pwrite

    def full(descriptor, data, at):
        if at >= 40_000:
            raise OSError(28, "No space left on device")
        return real(descriptor, data, at)

    monkeypatch.setattr("tieline.drivers.mover.files.os.pwrite", full)
    alone = Terms(chunk_bytes=10_000, streams=1)
    with pytest.raises(TielineError) as caught:
        run(move(FileSource(str(tmp_path / "from")), FileTarget(str(place / "it")), alone))
    assert caught.value.code == "storage_full"
    assert not (place / "it").exists()
    monkeypatch.undo()
    moved = run(move(FileSource(str(tmp_path / "from")), FileTarget(str(place / "it")), alone))
    assert moved.resumed_bytes == 40_000


def test_what_is_there_is_not_replaced_unasked_even_if_it_comes_meanwhile(place, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    (place / "it").write_bytes(b"mine")
    source = lambda: FileSource(str(tmp_path / "from"))  # noqa: E731
    with pytest.raises(TielineError, match="there already"):
        run(move(source(), FileTarget(str(place / "it")), SMALL))

    class Racing(FileTarget):
        async def finish(self, sha256):
            (place / "other").write_bytes(b"mine")
            await super().finish(sha256)

    with pytest.raises(TielineError, match="there already"):
        run(move(source(), Racing(str(place / "other")), SMALL))
    assert (place / "other").read_bytes() == b"mine"
    run(move(source(), FileTarget(str(place / "it"), is_replacing=True), SMALL))
    assert (place / "it").read_bytes() == BYTES


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_a_target_that_is_no_plain_file_is_refused(place, tmp_path, kind):
    (tmp_path / "from").write_bytes(BYTES)
    path = place / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    with pytest.raises(TielineError):
        run(move(FileSource(str(tmp_path / "from")), FileTarget(str(path), is_replacing=True), SMALL))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("kind", ["nothing", "folder", "pipe"])
def test_a_source_that_is_no_plain_file_is_refused(place, tmp_path, kind):
    path = tmp_path / "from"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(TielineError):
        run(move(FileSource(str(path)), FileTarget(str(place / "it")), SMALL))


def test_two_who_move_the_same_to_one_place_do_not_meet(place, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)

    async def both():
        slow = [Lane(schedule=Schedule.always(2_000_000))]
        source = lambda: FileSource(str(tmp_path / "from"))  # noqa: E731
        first = asyncio.create_task(move(source(), FileTarget(str(place / "it")), SMALL, slow))
        while not hidden(place):  # noqa: ASYNC110 - a file appears
            await asyncio.sleep(0.001)
        with pytest.raises(TielineError, match="another process"):
            await move(source(), FileTarget(str(place / "it")), SMALL, [Lane(schedule=Schedule.always(10**9))])
        await first

    run(both())
    assert (place / "it").read_bytes() == BYTES


def test_a_put_is_sent_in_order_and_never_whole_with_a_wrong_hash(tmp_path):
    (tmp_path / "from").write_bytes(BYTES)

    async def work(terms):
        async with moody(b"") as server:
            source = FileSource(str(tmp_path / "from"))
            try:
                await move(source, HttpTarget(address_of(server.url + "/up")), terms)
            finally:
                await asyncio.sleep(0.05)  # what was cut is noticed
                stored.update(server.stored)

    stored = {}
    run(work(SMALL))
    assert stored == {"/up": BYTES}
    stored.clear()
    with pytest.raises(TielineError, match="nothing is kept"):
        run(work(Terms(chunk_bytes=10_000, sha256="0" * 64)))
    assert stored == {}


class Hand:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self):
        return self.now


class Ticking(FileTarget):
    """Each chunk that is put takes so long as 10,000 bytes at 50,000 a second."""

    def __init__(self, path, clock):
        super().__init__(path)
        self.clock = clock

    async def put(self, index, chunk, sha256):
        await super().put(index, chunk, sha256)
        self.clock.now += 0.2


def test_a_peer_that_takes_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("tieline.drivers.mover.body.STALL_S", 0.3)
    (tmp_path / "from").write_bytes(bytes(2**25))  # more than any buffer on the way holds

    async def work():
        async def deaf(reader, writer):
            open_ones.append(writer)

        open_ones = []
        server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1_000)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        try:
            await move(FileSource(str(tmp_path / "from")), HttpTarget(address_of(url)), Terms())
        finally:
            for writer in open_ones:
                writer.close()
            server.close()

    with pytest.raises(TielineError, match="took nothing"):
        run(asyncio.wait_for(work(), 60))


def test_packets_are_marked_or_it_is_said_that_they_cannot_be():
    info = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 9))
    if os.geteuid():
        with pytest.raises(TielineError, match="cannot be marked"):
            _marked(info, 7)
        return
    try:
        made = _marked(info, 7)
    except TielineError:
        pytest.skip("needs root to mark packets")
    assert made.getsockopt(socket.SOL_SOCKET, SO_MARK) == 7
    made.close()


def booked(path, begin_ms, length_ms, rate_bps):
    return Segment(path=(path,), is_forward=(True,), from_ms=begin_ms, until_ms=begin_ms + length_ms, rate_bps=rate_bps)


def test_several_paths_carry_at_once_each_bound_to_its_address(place):
    now_ms = int(time.time() * 1000)
    rate = 8 * len(BYTES)  # a second for all of it
    lanes = lanes_of(
        [booked("a", now_ms, 60_000, rate), booked("b", now_ms, 60_000, rate // 8)], ["127.0.0.1", "127.0.0.3"]
    )
    moved, server = fetched(place, terms=Terms(chunk_bytes=5_000, streams=2), lanes=lanes)
    assert (place / "it").read_bytes() == BYTES
    assert server.addresses == {"127.0.0.1", "127.0.0.3"}
    assert all(each.is_bound and each.moved_bytes for each in moved.paths)
    assert sum(each.moved_bytes for each in moved.paths) == len(BYTES)
    assert moved.paths[0].moved_bytes > moved.paths[1].moved_bytes


def test_when_the_booked_time_is_over_the_rest_is_named_and_what_moved_is_kept(place, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    long_ago = lanes_of([booked("a", 1_000_000, 1_000, 10**9)])
    with pytest.raises(TielineError, match="95,321 of 95,321 bytes have not moved") as caught:
        run(move(FileSource(str(tmp_path / "from")), FileTarget(str(place / "it")), SMALL, long_ago))
    assert caught.value.code == "conflict"
    assert not (place / "it").exists()


def test_a_booking_that_is_too_short_moves_what_it_can(place, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    clock = Hand()
    lane = Lane(schedule=Schedule((Span(10.0, 11.0, 8 * 50_000.0),)), now_s=clock)
    clock.now = 10.0
    with pytest.raises(TielineError, match="have not moved") as caught:
        run(move(FileSource(str(tmp_path / "from")), Ticking(str(place / "it"), clock), SMALL, [lane]))
    assert caught.value.code == "conflict"
    assert not (place / "it").exists()
    moved = run(move(FileSource(str(tmp_path / "from")), FileTarget(str(place / "it")), SMALL))
    assert (place / "it").read_bytes() == BYTES
    assert 10_000 <= moved.resumed_bytes <= 50_000


def test_progress_grows_and_ends_at_the_whole(place, tmp_path, monkeypatch):
    monkeypatch.setattr("tieline.drivers.mover.moving.LOOK_S", 0.02)
    (tmp_path / "from").write_bytes(BYTES)
    seen = []
    lane = Lane(schedule=Schedule.always(8 * 400_000))
    run(move(FileSource(str(tmp_path / "from")), FileTarget(str(place / "it")), SMALL, [lane], seen.append))
    assert [each.moved_bytes for each in seen] == sorted(each.moved_bytes for each in seen)
    assert len(seen) > 2
    assert (seen[-1].moved_bytes, seen[-1].permille, seen[-1].left_s) == (len(BYTES), 1000, 0)
    assert any(0 < each.permille < 1000 and each.rate_bps > 0 for each in seen)


def test_what_was_read_ahead_of_its_rate_has_not_moved_yet(place, tmp_path, monkeypatch):
    monkeypatch.setattr("tieline.drivers.mover.moving.LOOK_S", 0.02)
    (tmp_path / "from").write_bytes(b"a" * 60_000)  # four connections read 40,000 bytes of it at once
    seen = []
    lane = Lane(schedule=Schedule.always(8 * 40_000))
    run(move(FileSource(str(tmp_path / "from")), FileTarget(str(place / "it")), SMALL, [lane], seen.append))
    assert any(0 < each.moved_bytes < 30_000 for each in seen)
    assert all(each.left_s != 0 for each in seen if each.moved_bytes < 60_000)
