"""Home: the folder of a site, and everything in it that is not a run.

::

    site.yaml        what the owner says (optional)
    identity.json    which exchange the site has joined, under which name, and the key of it that is pinned
    keys/            owner, site, sealing: seeds, 0600. Whoever has `owner` speaks for the owner; `owner.next` will
    records.json     newest revision of every record that was signed here
    readings.json    what the probes read
    runs/RUN/        run.json (the journal's entry), node-0/ node-1/ ... (the engine's folders)
    cache/           blobs that tasks brought along, by sha256, and datasets that were fetched
    held/            links to the owner's own datasets, by sha256, for the door
    session, draining, left, lock
                     the open session's bearer (0600), the owner's markers, and who runs the site
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from tieline.model.error import TielineError
from tieline.site.configuration import SiteConfig
from tieline.site.records import Head

SEED_BYTES = 32
NEXT = "owner.next"
FIRST_KEY = "join"
T = TypeVar("T")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who the site is, and to which exchange it belongs."""

    url: str
    exchange: str  # identifier
    public: str  # the exchange's key, pinned
    site: str  # identifier
    owner: str  # prefix
    kid: str  # name of the owner's key
    delegation: str = ""  # envelope
    proxy: str = ""
    ca_file: str = ""


class Home:
    """A site's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.runs = self.folder / "runs"
        self.cache = self.folder / "cache"

    # -- what is written once -----------------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """Raises TielineError `conflict` for a folder whose site has not joined."""
        found = self._read("identity.json", Identity)
        if found is None:
            raise TielineError(
                "conflict", f"no site has joined from `{self.folder}`", hints=("tieline site join TOKEN FOLDER",)
            )
        return found

    def keep_identity(self, identity: Identity) -> None:
        """Remember where the site belongs; a mark that it had left is taken away."""
        self.revise_identity(identity)
        (self.folder / "left").unlink(missing_ok=True)

    def revise_identity(self, identity: Identity) -> None:
        """Remember what changed of it: which key speaks for the owner."""
        self._keep("identity.json", msgspec.json.encode(identity))

    def seed(self, name: str) -> bytes:
        """The seed of a key. Raises TielineError `not_found` when it was never made, `conflict` when it is no seed."""
        path = self.folder / "keys" / name
        try:
            seed = base64.b64decode(path.read_bytes(), validate=True)
        except FileNotFoundError:
            raise TielineError(
                "not_found", f"there is no key `{path}`", hints=("tieline site join TOKEN FOLDER",)
            ) from None
        except binascii.Error:
            seed = b""
        if len(seed) != SEED_BYTES:
            raise TielineError("conflict", f"`{path}` is no key; restore it from a backup")
        return seed

    def make_keys(self, owner: bytes = b"") -> None:
        """Make the keys that are not there yet; ``owner`` is the seed of an owner that has one already."""
        keys = self.folder / "keys"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        keys.mkdir(exist_ok=True, mode=0o700)
        given = {"owner": owner, "site": b"", "sealing": b""}
        for name, seed in given.items():
            if not (keys / name).exists():
                write_private(keys / name, base64.b64encode(seed or os.urandom(SEED_BYTES)))
            elif seed and self.seed(name) != seed:
                raise TielineError("conflict", f"`{keys / name}` holds another owner's key")

    def make_next(self, seed: bytes = b"") -> bytes:
        """The seed of the owner's next key: the given one, the one that waits already, or a new one."""
        path = self.folder / "keys" / NEXT
        if seed or not path.exists():
            write_private(path, base64.b64encode(seed or os.urandom(SEED_BYTES)))
        return self.seed(NEXT)

    def has_next(self) -> bool:
        """Whether a key waits for the exchange to give it the owner's prefix."""
        return (self.folder / "keys" / NEXT).exists()

    def adopt_next(self) -> None:
        """The next key is the owner's from now on, unless somebody else saw to that."""
        keys = self.folder / "keys"
        with contextlib.suppress(FileNotFoundError):
            (keys / NEXT).rename(keys / "owner")
        sync_folder(keys)

    def identity_stamp(self) -> int:
        """Changes when somebody wrote `identity.json`."""
        with contextlib.suppress(OSError):
            return (self.folder / "identity.json").stat().st_mtime_ns
        return 0

    def config(self) -> SiteConfig:
        """What ``site.yaml`` says; the defaults without one. Raises TielineError with the place of each mistake."""
        path = self.folder / "site.yaml"
        if not path.exists():
            return SiteConfig()
        from tieline.site.siteyaml import parse_site  # here: an owner without a file does not pay for its reader

        return parse_site(path.read_bytes(), str(path))

    # -- what changes -------------------------------------------------------------------------------------------------

    def heads(self) -> dict[str, Head]:
        """The newest revision of every record that was signed here."""
        found = self._read("records.json", tuple[Head, ...]) or ()
        return {head.id: head if head.kid else msgspec.structs.replace(head, kid=_first(head.id)) for head in found}

    def keep_heads(self, heads: dict[str, Head], *, is_durable: bool = True) -> None:
        """Remember them."""
        self._keep("records.json", msgspec.json.encode(tuple(heads.values())), is_durable=is_durable)

    def readings(self) -> dict[str, int]:
        """What the probes read, once they did."""
        return self._read("readings.json", dict[str, int]) or {}

    def keep_readings(self, readings: dict[str, int]) -> None:
        """Remember them."""
        self._keep("readings.json", msgspec.json.encode(readings))

    def session(self) -> str:
        """The bearer of the open session; empty when there is none."""
        with contextlib.suppress(OSError):
            return (self.folder / "session").read_text()
        return ""

    def keep_session(self, bearer: str) -> None:
        """Let the owner's commands on this machine use the session; an empty bearer ends that."""
        if bearer:
            write_private(self.folder / "session", bearer.encode(), is_durable=False)
        else:
            (self.folder / "session").unlink(missing_ok=True)

    def has(self, marker: str) -> bool:
        """Whether the owner set ``marker`` (draining, left)."""
        return (self.folder / marker).exists()

    def mark(self, marker: str, *, is_set: bool) -> None:
        """Set or take away the owner's marker."""
        path = self.folder / marker
        if is_set:
            write_private(path, b"")
        else:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only process that runs this site. Raises TielineError `conflict` when another one does."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise TielineError("conflict", f"another process runs the site in `{self.folder}`") from None
            yield
        finally:
            os.close(descriptor)

    # -- below --------------------------------------------------------------------------------------------------------

    def _read(self, name: str, kind: type[T]) -> T | None:
        path = self.folder / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise TielineError("conflict", f"`{path}` cannot be read: {error}") from None

    def _keep(self, name: str, content: bytes, *, is_durable: bool = True) -> None:
        write_private(self.folder / name, content, is_durable=is_durable)


def _first(identifier: str) -> str:
    """The name of the owner's first key: nothing but that one was used by versions that did not note it."""
    return f"{identifier.partition('/')[0]}#{FIRST_KEY}"


def write_private(path: Path, content: bytes, *, is_durable: bool = True) -> None:
    """Write a file that only this user can read, whole or not at all; ``is_durable`` survives a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            file.write(content)
            if is_durable:
                os.fsync(descriptor)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if is_durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
