"""Packing: what a task takes along from this machine, as blobs by hash.

A folder becomes one deterministic tar (sorted names, no times, no owners), so that the same content has the same hash
and is sent once. ``.tielineignore`` (or ``.gitignore``) patterns of the top folder are left out, and so is ``.git``.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tieline.model.error import TielineError

MOST_BYTES = 2**30
MOST_FILES = 50_000


def ignored(folder: Path) -> list[str]:
    """Patterns of the top folder's ignore file; the common ones only (no negation)."""
    for name in (".tielineignore", ".gitignore"):
        path = folder / name
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            return [".git", *(line.strip().rstrip("/") for line in lines if line.strip() and line[0] not in "#!")]
    return [".git", "__pycache__"]


def files_below(folder: Path, patterns: list[str]) -> Iterator[Path]:
    """Files and links below ``folder`` in sorted order, without what is ignored; links are not followed."""
    for root, names, files in os.walk(folder, followlinks=False):
        relative = Path(root).relative_to(folder)
        names[:] = sorted(name for name in names if not _is_ignored(relative / name, patterns))
        for name in sorted([*files, *(each for each in names if (Path(root) / each).is_symlink())]):
            if not _is_ignored(relative / name, patterns):
                yield relative / name


def _is_ignored(path: Path, patterns: list[str]) -> bool:
    text = path.as_posix()
    return any(
        fnmatch.fnmatchcase(path.name, pattern) or fnmatch.fnmatchcase(text, pattern.lstrip("/"))
        for pattern in patterns
    )


def packed(folder: Path) -> IO[bytes]:
    """A tar of ``folder`` in a temporary file, at its beginning. Raises TielineError `too_large` over the limits."""
    if not folder.is_dir():
        raise TielineError("invalid_task", f"workdir `{folder}` is no folder", where="workdir")
    target: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        _fill(target, folder)
    except BaseException:
        target.close()
        raise
    target.seek(0)
    return target


def _fill(target: IO[bytes], folder: Path) -> None:
    size = 0
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for count, relative in enumerate(files_below(folder, ignored(folder))):
            path = folder / relative
            if count >= MOST_FILES:
                raise _too_large(folder, f"more than {MOST_FILES:,} files")
            info = archive.gettarinfo(path, relative.as_posix())
            if info is None or not (info.isreg() or info.issym()):
                continue
            if info.issym():
                _check_link(folder, relative, info.linkname)
            size += info.size
            if size > MOST_BYTES:
                raise _too_large(folder, f"more than {MOST_BYTES >> 20:,} MiB")
            _add(archive, info, path)


def _check_link(folder: Path, relative: Path, target: str) -> None:
    """Refuse a link that leads out of the folder: at a site there is nothing behind it."""
    inside = os.path.normpath(relative.parent / target)
    if os.path.isabs(target) or inside == ".." or inside.startswith("../"):  # noqa: PTH117 - a name, not a file here
        raise TielineError(
            "invalid_task",
            f"`{folder / relative}` is a link to `{target}`, which leads out of what is sent",
            hints=(f"list `{relative.as_posix()}` in `.tielineignore`, or put the file itself there",),
            where="workdir",
        )


def _add(archive: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> None:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    info.mode = 0o755 if info.mode & 0o100 else 0o644
    if info.issym():
        archive.addfile(info)
        return
    with open(path, "rb") as file:
        archive.addfile(info, file)


def packed_files(content: dict[str, bytes]) -> IO[bytes]:
    """A tar of files given as bytes, for programs that have no folder."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(content):
            info = tarfile.TarInfo(name)
            info.size = len(content[name])
            archive.addfile(info, io.BytesIO(content[name]))
    target.seek(0)
    return target


def digest_of(file: IO[bytes]) -> tuple[str, int]:
    """sha256 in hex and size; the file is at its beginning afterwards."""
    digest = hashlib.sha256()
    size = 0
    file.seek(0)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    file.seek(0)
    return digest.hexdigest(), size


def _too_large(folder: Path, what: str) -> TielineError:
    return TielineError(
        "too_large",
        f"workdir `{folder}` holds {what}",
        hints=(
            "list what is not needed in `.tielineignore`",
            "register large data as a dataset and name it in `data:`",
        ),
        where="workdir",
    )
