"""Call: one request on its way through the API: who calls, what was sent, and what the log will say about it."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import parse_qsl

import msgspec

from tieline.api.answer import GoneError, ThrottledError
from tieline.api.operation import JSON, Operation
from tieline.exchange.commands import Command
from tieline.model.error import TielineError
from tieline.model.party import ANONYMOUS, Actor

if TYPE_CHECKING:
    from litestar.types import HTTPReceiveMessage, HTTPScope, Receive

    from tieline.api.platform import Platform
    from tieline.api.rates import Meter
    from tieline.drivers.peers.tally import Tally

T = TypeVar("T")
C = TypeVar("C", bound=Command)
D = TypeVar("D")
BODY_S = 60.0  # a JSON body must be whole by then
STALL_S = 60.0  # a chunk of a stream must come by then
MOST_WAIT_S = 10.0  # a sender is slowed down for so long, and refused beyond
MOST_PARAMETERS = 32
MOST_QUERY_BYTES = 16_384
_names = random.Random()  # noqa: S311 - names for the log, no secrets; the system draws for 30 us each
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
KEY = re.compile(r"[!-~]{1,200}")
NAME = re.compile(r"[a-z0-9][a-z0-9._~-]{0,199}")
NAME_PATTERN = f"^{NAME.pattern}$"
OPTIONAL_NAME = r"\A([a-z0-9][a-z0-9._~/-]{0,199})?\Z"  # of a query, where `/` needs no other spelling
KEY_PATTERN = f"^{KEY.pattern}$"


class Call:
    """One request. Made by the gate, given to the handler; ``scope["state"]["call"]`` holds it."""

    __slots__ = (
        "actor",
        "digest",
        "key",
        "meter",
        "notes",
        "operation",
        "platform",
        "read_bytes",
        "receive",
        "refused",
        "request_id",
        "scope",
        "tally",
    )

    def __init__(self, platform: Platform, scope: HTTPScope) -> None:
        self.platform = platform
        self.scope = scope
        self.receive: Receive | None = None
        self.actor: Actor = ANONYMOUS
        self.refused: TielineError | None = None  # why the bearer was not believed
        self.meter: Meter | None = None
        self.tally: Tally | None = None  # of the peer that calls
        self.operation: Operation | None = None
        self.key = ""
        self.digest = ""
        self.read_bytes = 0
        self.notes: dict[str, str] = {}  # for the log: job, run, site
        asked = self.header(b"x-request-id")
        self.request_id = asked if REQUEST_ID.fullmatch(asked) else f"{_names.getrandbits(64):016x}"

    # -- what was sent ------------------------------------------------------------------------------------------------

    @overload
    def header(self, name: bytes) -> str: ...

    @overload
    def header(self, name: bytes, absent: D) -> str | D: ...

    def header(self, name: bytes, absent: object = "") -> object:
        """The first header of that (lower-case) name, or ``absent``."""
        for key, value in self.scope["headers"]:
            if key == name:
                return value.decode("latin-1")
        return absent

    @property
    def via(self) -> str:
        """The network address that the request came from."""
        client = self.scope.get("client")
        return client[0] if client else ""

    def query(self, kind: type[T]) -> T:
        """The query string as ``kind``. Raises `invalid_request` for what is unknown, repeated or wrong."""
        text = self.scope["query_string"]
        if len(text) > MOST_QUERY_BYTES:
            raise TielineError("invalid_request", f"the query is over {MOST_QUERY_BYTES:,} bytes", where="query")
        try:
            pairs = parse_qsl(text.decode("ascii"), True, errors="strict", max_num_fields=MOST_PARAMETERS)
        except ValueError as error:
            raise TielineError("invalid_request", f"the query cannot be read: {error}", where="query") from None
        found: dict[str, str] = {}
        for name, value in pairs:
            if name in found:
                raise TielineError("invalid_request", f"the parameter `{name[:64]}` stands there twice", where="query")
            found[name] = value
        try:
            return msgspec.convert(found, kind, strict=False)
        except msgspec.ValidationError as error:
            raise mismatch(error, "query") from None

    async def body(self, kind: type[T]) -> T:
        """The JSON body as ``kind``; also its digest, for the idempotency key."""
        self.expect(JSON)
        try:
            async with asyncio.timeout(BODY_S):
                content = await self.whole(self.platform.limits.body_bytes)
        except TimeoutError:
            raise TielineError("timeout", f"the body was not whole after {BODY_S:.0f} s") from None
        if self.key:
            self.digest = hashlib.sha256(self.scope["path"].encode() + b"\n" + content).hexdigest()
        return decode(content, kind)

    def expect(self, media: str) -> None:
        """Refuse another content type with `unsupported_media`."""
        given = self.header(b"content-type")
        kind, _, parameters = given.partition(";")
        charset = parameters.strip().lower().removeprefix("charset=").strip('"')
        if kind.strip().lower() != media or (media == JSON and charset not in ("", "utf-8", "utf8")):
            said = f"`{given[:80]}`" if given else "no content type"
            raise TielineError("unsupported_media", f"this reads `{media}`, not {said}", where="Content-Type")

    async def whole(self, limit_bytes: int) -> bytes:
        """The whole body; refused before it is read where its length says so."""
        parts = [part async for part in self.chunks(limit_bytes)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """The body as it comes, at the caller's rate. Raises `too_large`, `rate_limited`, `timeout`; GoneError."""
        length = self.header(b"content-length")
        if length and (not length.isdigit() or int(length) > limit_bytes):
            raise too_large(limit_bytes)
        assert self.receive is not None
        while True:
            try:
                async with asyncio.timeout(STALL_S):
                    message: HTTPReceiveMessage = await self.receive()  # type: ignore[assignment]
            except TimeoutError:
                raise TielineError("timeout", f"nothing of the body came for {STALL_S:.0f} s") from None
            if message["type"] == "http.disconnect":
                raise GoneError
            part = message.get("body", b"")
            self.read_bytes += len(part)
            if self.read_bytes > limit_bytes:
                raise too_large(limit_bytes)
            if part:
                await self._pay(len(part))
                yield part
            if not message.get("more_body", False):
                return

    async def _pay(self, size: int) -> None:
        if self.meter is None:
            return
        wait_s = self.platform.rates.body(self.meter, size)
        if wait_s > MOST_WAIT_S:
            limit = self.platform.limits.upload_bytes_per_s
            raise ThrottledError("rate_limited", f"over {limit:,} bytes a second from `{self.actor.name}`", wait_s)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    # -- what is asked ------------------------------------------------------------------------------------------------

    def take_key(self) -> None:
        """Read the Idempotency-Key; it counts for this caller and this operation only."""
        given = self.header(b"idempotency-key", None)
        if given is None:
            return
        if not KEY.fullmatch(given):
            raise TielineError(
                "invalid_request", "the key is not 1 to 200 visible ASCII characters", where="Idempotency-Key"
            )
        assert self.operation is not None
        self.key = f"{self.operation.id} {given}"  # the writer adds the caller
        self.digest = hashlib.sha256(self.scope["path"].encode()).hexdigest()

    def command(self, kind: type[C], **fields: Any) -> C:
        """A command of this caller with its idempotency key."""
        return kind(actor=self.actor, key=self.key, digest=self.digest, **fields)

    def note(self, **names: str) -> None:
        """Say in the log what this call was about."""
        self.notes.update(names)


def too_large(limit_bytes: int) -> TielineError:
    """The refusal of a body over its limit."""
    return TielineError("too_large", f"the body is over its limit of {limit_bytes:,} bytes")


def mismatch(error: msgspec.ValidationError, root: str = "") -> TielineError:
    """A validation error with its place apart from its message."""
    message, _, place = str(error).partition(" - at ")
    where = place.replace("`", "").replace("$.", "").replace("$", "") or root
    return TielineError("invalid_request", message[:1].lower() + message[1:], where=where)


def decode(content: bytes, kind: type[T]) -> T:
    """JSON as ``kind``. Raises TielineError `invalid_request` that says what and where."""
    try:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.ValidationError as error:
            if "got `float`" not in str(error):
                raise
            return msgspec.convert(_whole_numbers(msgspec.json.decode(content)), kind)
    except msgspec.ValidationError as error:
        raise mismatch(error, "body") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TielineError("invalid_request", f"the body is not JSON: {error}", where="body") from None
    except RecursionError:
        raise TielineError("invalid_request", "the body is nested too deeply", where="body") from None


def _whole_numbers(tree: Any) -> Any:
    """``3.0`` as 3: JSON knows one kind of number, and a schema's integer is one without a fraction."""
    if isinstance(tree, float):
        return int(tree) if tree.is_integer() else tree
    if isinstance(tree, dict):
        return {name: _whole_numbers(value) for name, value in tree.items()}
    return [_whole_numbers(value) for value in tree] if isinstance(tree, list) else tree


def named(text: str, where: str = "path") -> str:
    """An identifier from a path: ``~`` (or ``%2F``) is ``/``. Raises `invalid_identifier` for what cannot be one."""
    if not NAME.fullmatch(text):
        raise TielineError(
            "invalid_identifier",
            f"`{text[:80]}` is no identifier: lower-case letters, digits, `.`, `_`, `-`, and `~` for `/`",
            where=where,
        )
    return text.replace("~", "/")
