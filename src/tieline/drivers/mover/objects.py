"""Objects of an S3-compatible store as ends of a move, through s3fs (fsspec). Needs the extra ``s3``.

Keys, region and endpoint come from the environment and the files that AWS tools read (``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL`` ...). A target is one multipart upload: parts go up at once, nothing is seen before it is
completed, and a later try goes on with the parts that the store says it has. Parts of an unfinished upload cannot be
read, so that try reads what it had sent once more from the source, for the hash of the whole; it sends nothing twice.
"""

# ruff: noqa: ARG002 - one protocol for all ends

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from tieline.drivers.extras import bring
from tieline.drivers.mover.address import Address
from tieline.drivers.mover.ends import REPLACE, About, Division, Job
from tieline.drivers.mover.journal import Journal
from tieline.drivers.mover.pacing import Lane
from tieline.model.error import TielineError

PIECE_BYTES = 2**18
LEAST_PART_BYTES = 5 * 2**20  # of all parts but the last (S3's own limit)
MOST_PARTS = 10_000
PAGE = 1_000
MINE = "tieline-move"  # metadata of an upload
CODES = {
    "NoSuchKey": "not_found",
    "NoSuchBucket": "not_found",
    "404": "not_found",
    "NoSuchUpload": "conflict",
    "PreconditionFailed": "conflict",
    "412": "conflict",
    "InvalidRange": "conflict",
    "AccessDenied": "forbidden",
    "403": "forbidden",
    "InvalidAccessKeyId": "forbidden",
    "SignatureDoesNotMatch": "forbidden",
    "SlowDown": "rate_limited",
    "BadDigest": "check_failed",
    "QuotaExceeded": "storage_full",
    "XMinioStorageFull": "storage_full",
}


class Store:
    """Calls to one store."""

    def __init__(self, address: Address) -> None:
        self.name = address.name
        bucket, _, key = address.path.partition("/")
        self.at = {"Bucket": bucket, "Key": key}
        self._files: Any = None

    async def call(self, method: str, **options: Any) -> Any:
        """One operation of the S3 API. Raises TielineError."""
        files = self._opened()
        try:
            client = await files.set_session()
            return await getattr(client, method)(**self.at, **options)
        except Exception as error:  # noqa: BLE001 - of four libraries; what is not known is raised again
            raise self.meant(error) from None

    def meant(self, error: Exception) -> TielineError:
        """What a failed call means."""
        from aiohttp import ClientError as Broken
        from botocore.exceptions import (  # type: ignore[import-untyped]
            BotoCoreError,
            ClientError,
            NoCredentialsError,
        )

        if isinstance(error, ClientError):
            stated = error.response.get("Error", {})
            code = str(stated.get("Code", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            kind = CODES.get(code, "internal" if status >= 500 else "invalid_request")
            return TielineError(
                kind, f"`{self.name}`: the store says {code[:60]}: {str(stated.get('Message', ''))[:200]}"
            )
        if isinstance(error, NoCredentialsError):
            return TielineError(
                "unauthenticated",
                f"`{self.name}`: no key for this store is in the environment",
                hints=("AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... tieline transfer run ...",),
            )
        if isinstance(error, (BotoCoreError, Broken, OSError, TimeoutError)):
            return TielineError("exchange_unreachable", f"`{self.name}`: {type(error).__name__}")
        raise error

    async def close(self) -> None:
        """Close the connections."""
        files, self._files = self._files, None
        if files is not None and files._s3creator is not None:
            await files._s3creator.__aexit__(None, None, None)

    def _opened(self) -> Any:
        if self._files is None:
            try:
                import fsspec

                kind = fsspec.get_filesystem_class("s3")
            except ImportError:
                raise TielineError("unplaceable", "S3 stores need the extra `s3`", hints=(bring("s3"),)) from None
            self._files = kind(
                asynchronous=True, skip_instance_cache=True, config_kwargs={"connect_timeout": 10, "read_timeout": 60}
            )
        return self._files


class ObjectSource:
    """An object."""

    def __init__(self, address: Address) -> None:
        self.name = address.name
        self._store = Store(address)

    async def about(self) -> About:
        """As `Source`."""
        head = await self._store.call("head_object")
        return About(int(head["ContentLength"]), tag=str(head.get("ETag", "")))

    async def read(self, about: About, start: int, end: int, lane: Lane) -> AsyncGenerator[bytes, None]:
        """As `Source`."""
        found = await self._store.call("get_object", Range=f"bytes={start}-{end - 1}", IfMatch=about.tag)
        async with found["Body"] as body:
            try:
                while piece := await body.read(PIECE_BYTES):
                    yield piece
            except Exception as error:  # noqa: BLE001 - as in `Store.call`
                raise self._store.meant(error) from None

    async def close(self) -> None:
        """As `Source`."""
        await self._store.close()


class ObjectTarget:
    """An object that is to be."""

    is_ordered = False
    is_readable = False

    def __init__(self, address: Address, notes: Path, *, is_replacing: bool = False) -> None:
        """``notes`` is a folder for what a later try must know."""
        self.name = address.name
        self._store = Store(address)
        self._notes = notes
        self._is_replacing = is_replacing
        self._journal: Journal | None = None
        self._division = Division(0, 1)
        self._small = b""
        self.own_bytes = 0

    def chunk_bytes(self, size_bytes: int, wished: int) -> int:
        """As `Target`."""
        return max(wished, LEAST_PART_BYTES, -(-size_bytes // MOST_PARTS))

    async def open(self, job: Job) -> Mapping[int, str]:
        """As `Target`."""
        if not self._is_replacing:
            await self._check_free()
        self._division = job.division
        if job.division.chunk_count <= 1:  # one request is whole by itself
            return {}
        key = job.key or os.urandom(16).hex()
        self._notes.mkdir(parents=True, exist_ok=True, mode=0o700)
        named = hashlib.sha256(f"{self.name}\n{os.environ.get('AWS_ENDPOINT_URL', '')}\n{key}".encode()).hexdigest()
        self._journal = await asyncio.to_thread(Journal, self._notes / f"{named[:32]}.moves", job._replace(key=key))
        kept = await self._kept() if self._journal.head else {}
        if not kept:
            made = await self._store.call("create_multipart_upload", Metadata={MINE: key})
            self._journal.begin(str(made["UploadId"]))
        spans = map(job.division.span, kept)
        self.own_bytes = sum(end - start for start, end in spans)  # whose they are is not noted
        return kept

    async def put(self, index: int, chunk: bytes, sha256: str) -> None:
        """As `Target`."""
        if self._journal is None:
            self._small = chunk
            return
        made = await self._store.call(
            "upload_part",
            UploadId=self._journal.head,
            PartNumber=index + 1,
            Body=chunk,
            ContentMD5=base64.b64encode(hashlib.md5(chunk, usedforsecurity=False).digest()).decode(),
        )
        self._journal.note(index, sha256, str(made["ETag"]))

    async def read(self, index: int) -> bytes:
        """As `Target`."""
        raise AssertionError("the parts of an upload cannot be read")

    async def finish(self, sha256: str) -> None:
        """As `Target`."""
        if not self._is_replacing:
            await self._check_free()
        journal = self._journal
        if journal is None:
            await self._store.call("put_object", Body=self._small, Metadata={"sha256": sha256})
        else:
            parts = [{"PartNumber": index + 1, "ETag": entry.mark} for index, entry in sorted(journal.entries.items())]
            await self._store.call("complete_multipart_upload", UploadId=journal.head, MultipartUpload={"Parts": parts})
        size = int((await self._store.call("head_object"))["ContentLength"])
        if size != self._division.size_bytes:
            raise TielineError(
                "check_failed", f"`{self.name}` has {size:,} bytes, {self._division.size_bytes:,} were sent"
            )
        if journal is not None:
            journal.remove()

    async def drop(self) -> None:
        """As `Target`."""
        if self._journal is not None and self._journal.head:
            await self._store.call("abort_multipart_upload", UploadId=self._journal.head)
            self._journal.remove()

    async def close(self) -> None:
        """As `Target`."""
        if self._journal is not None:
            self._journal.close()
        await self._store.close()

    async def _check_free(self) -> None:
        try:
            await self._store.call("head_object")
        except TielineError as error:
            if error.code == "not_found":
                return
            raise
        raise TielineError("conflict", f"`{self.name}` is there already", hints=REPLACE)

    async def _kept(self) -> dict[int, str]:
        """The parts that both the journal and the store know; the journal is left with no others."""
        journal = self._journal
        assert journal is not None
        there: dict[int, str] = {}
        after = 0
        for _ in range(-(-MOST_PARTS // PAGE) + 1):
            try:
                page = await self._store.call(
                    "list_parts", UploadId=journal.head, MaxParts=PAGE, PartNumberMarker=after
                )
            except TielineError as error:
                if error.code in ("conflict", "not_found"):  # the store gave the upload up
                    return {}
                raise
            there |= {part["PartNumber"] - 1: part["ETag"] for part in page.get("Parts", ())}
            if not page.get("IsTruncated"):
                break
            after = int(page["NextPartNumberMarker"])
        for index, entry in list(journal.entries.items()):
            if there.get(index) != entry.mark:
                del journal.entries[index]
        return {index: entry.sha256 for index, entry in journal.entries.items()}
