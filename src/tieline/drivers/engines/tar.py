"""Reading a tar stream that may be hostile: exact pieces, bounded headers, names that stay inside.

Source: POSIX.1-2017 `pax`, section "pax Interchange Format", and the long names of GNU tar. Sparse files are not read.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from tieline.model.error import TielineError

BLOCK = tarfile.BLOCKSIZE
CHUNK_BYTES = 1 << 18
HEADER_MOST_BYTES = 1 << 16  # of one extended header
GZIP = b"\x1f\x8b"
RATIO_FLOOR_BYTES = 1 << 20  # below this size no ratio is suspicious
NAMED = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}


@dataclass(frozen=True, kw_only=True)
class Most:
    """The bounds of one archive."""

    entries: int = 100_000
    total_bytes: int = 8 << 30
    path_bytes: int = 1_024
    depth: int = 64
    ratio: int = 200  # unpacked to packed; gzip itself cannot exceed 1032


class Source:
    """A stream of bytes read in exact pieces, decompressed no further than needed, within its bounds."""

    def __init__(self, chunks: Iterable[bytes], bounds: Most) -> None:
        self._chunks = iter(chunks)
        self._most = bounds
        self._ready = bytearray()  # decompressed, not yet read
        self._waiting = b""  # not yet decompressed
        self._inflate: zlib._Decompress | None = None
        self._packed_bytes = self._bytes = 0
        while len(self._ready) < len(GZIP) and self._pull():
            pass
        if self._ready.startswith(GZIP):
            self._waiting, self._ready, self._bytes = bytes(self._ready), bytearray(), 0
            self._inflate = zlib.decompressobj(wbits=31)

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes; raises TielineError at a premature end."""
        while len(self._ready) < size:
            if not self._pull():
                raise TielineError("invalid_request", f"the archive ends early, after {self._bytes:,} bytes")
        taken = bytes(self._ready[:size])
        del self._ready[:size]
        return taken

    def _pull(self) -> bool:
        if not self._waiting:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._packed_bytes += len(chunk)
            self._waiting = bytes(chunk)
        content = self._waiting if self._inflate is None else self._inflated()
        if self._inflate is None:
            self._waiting = b""
        self._ready += content
        self._bytes += len(content)
        bounds = self._most
        if self._bytes > bounds.total_bytes + (bounds.entries + 20) * 4 * BLOCK:
            raise TielineError("too_large", f"the archive unpacks to more than {bounds.total_bytes:,} bytes")
        if self._bytes > RATIO_FLOOR_BYTES and self._bytes > bounds.ratio * self._packed_bytes:
            raise TielineError("too_large", f"the archive unpacks to more than {bounds.ratio} times its size")
        return True

    def _inflated(self) -> bytes:
        assert self._inflate is not None
        try:
            content = self._inflate.decompress(self._waiting, CHUNK_BYTES)
        except zlib.error as error:
            raise TielineError("invalid_request", f"the archive is not valid gzip: {error}") from None
        self._waiting = self._inflate.unconsumed_tail
        if self._inflate.eof:  # another member may follow
            self._waiting = self._inflate.unused_data
            self._inflate = zlib.decompressobj(wbits=31)
        return content


def next_entry(source: Source) -> tarfile.TarInfo | None:
    """The next entry with its long names applied; None at the end of the archive."""
    given: dict[str, str] = {}
    for _ in range(8):  # an entry has one extended header of each kind at most
        try:
            info = tarfile.TarInfo.frombuf(source.read(BLOCK), "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return None
        except tarfile.HeaderError as error:
            raise TielineError("invalid_request", f"the archive is not a tar stream: {error}") from None
        if info.type in NAMED:
            given[NAMED[info.type]] = _text(_extension(source, info).partition(b"\0")[0])
        elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            given |= _records(_extension(source, info))
        elif info.type == tarfile.XGLTYPE:
            _extension(source, info)  # comments; what it may set for all entries is not wanted here
        else:
            return _with_names(info, given)
    raise TielineError("invalid_request", "the archive has too many headers for one entry")


def _with_names(info: tarfile.TarInfo, given: dict[str, str]) -> tarfile.TarInfo:
    if any(name.startswith("GNU.sparse") for name in given):
        raise TielineError(
            "invalid_request", f"`{info.name[:200]}` is a sparse file: pack it with `--hole-detection=none`"
        )
    info.name = given.get("path", info.name)
    info.linkname = given.get("linkpath", info.linkname)
    if "size" in given:
        if not given["size"].isascii() or not given["size"].isdigit() or len(given["size"]) > 18:
            raise TielineError("invalid_request", f"`{info.name[:200]}` states an absurd size")
        info.size = int(given["size"])
    return info


def _extension(source: Source, info: tarfile.TarInfo) -> bytes:
    if not 0 <= info.size <= HEADER_MOST_BYTES:
        raise TielineError("too_large", f"an extended header of the archive is over {HEADER_MOST_BYTES:,} bytes")
    return source.read(info.size + -info.size % BLOCK)[: info.size]


def _records(content: bytes) -> dict[str, str]:
    """``LENGTH KEY=VALUE\\n`` records of a pax header; only names and size count, the rest is left alone."""
    found: dict[str, str] = {}
    while content:
        length_text, _, _ = content.partition(b" ")
        length = int(length_text) if length_text.isdigit() and len(length_text) < 7 else 0
        key, equals, value = content[len(length_text) + 1 : length - 1].partition(b"=")
        if not len(length_text) + 3 <= length <= len(content) or not equals or content[length - 1 : length] != b"\n":
            raise TielineError("invalid_request", "an extended header of the archive is malformed")
        name = _text(key)
        if name in ("path", "linkpath", "size") or name.startswith("GNU.sparse"):
            found[name] = _text(value)
        content = content[length:]
    return found


def checked_path(name: str, bounds: Most) -> str:
    """``name`` without empty and ``.`` steps; raises TielineError where it leaves the target or is too long."""
    steps = [step for step in name.split("/") if step not in ("", ".")]
    if name.startswith("/"):
        raise TielineError("invalid_request", f"`{name[:200]}` in the archive is an absolute path")
    if ".." in steps:
        raise TielineError("invalid_request", f"`{name[:200]}` in the archive leaves its folder")
    if "\0" in name:
        raise TielineError("invalid_request", "a name in the archive holds a zero byte")
    if len(os.fsencode(name)) > bounds.path_bytes or any(len(os.fsencode(step)) > 255 for step in steps):
        raise TielineError("too_large", f"a path in the archive is over {bounds.path_bytes:,} bytes: `{name[:100]}`...")
    if len(steps) > bounds.depth:
        raise TielineError("too_large", f"`{name[:200]}` in the archive lies more than {bounds.depth} folders deep")
    return "/".join(steps)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
