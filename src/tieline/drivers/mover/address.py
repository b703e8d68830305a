"""Address: where bytes are or shall be, as somebody wrote it; credentials are never a part of it.

======================== =================================================================
``/path``, ``file:///p``  a file of this machine
``http://``, ``https://`` any server that answers ranges; a target is sent by PUT
``s3://bucket/key``       an S3-compatible store; keys and endpoint by the AWS_* environment
``blob:SHA256``           bytes that the exchange keeps; as a target ``blob:``
``door:SITE#SHA256``      a chunk behind the door of a site; as a target ``door:SITE``
``env:NAME``              the address that the environment variable NAME holds (signed ones)
======================== =================================================================
"""

from __future__ import annotations

import os
import re
import urllib.parse
from typing import NamedTuple

from tieline.model.error import TielineError

MOST_LETTERS = 4_096
SCHEMES = ("file", "http", "https", "s3", "blob", "door")
SIGNED = re.compile(  # what AWS, Google, Azure, Alibaba, Tencent and Huawei call it, and everybody else
    r"(?:^|[&?;])(?:(?:x-[a-z]{2,6}-|q-)?(?:signature|credential|security-token)|sig|sign|(?:[a-z]+[_-])?token|api[_-]?key"
    r"|password|secret)=",
    re.IGNORECASE,
)
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}")
DIGEST = re.compile(r"[0-9a-f]{64}")
DOOR = re.compile(r"([a-z0-9._-]{1,150}/site/[a-z0-9._-]{1,50})(?:#([0-9a-f]{64}))?")


class Address(NamedTuple):
    """One end of a move."""

    scheme: str
    url: str  # what is opened; may hold a signature
    path: str  # of a file; bucket and key; the sha256 of a blob
    name: str  # what people and logs are shown

    def __repr__(self) -> str:
        return f"Address({self.name})"


def address_of(text: str) -> Address:
    """Read an address. Raises TielineError `invalid_request`, which never repeats a credential."""
    if text.startswith("env:"):
        stated = os.environ.get(text[4:], "")
        if not stated or stated.startswith("env:"):
            raise _wrong(f"the environment variable `{text[4:100]}` holds no address")
        return _parsed(stated)
    if SIGNED.search(text):
        raise _wrong(
            "an address with a signature or token in it is seen by everybody who lists processes",
            "SOURCE=https://... tieline transfer run --from env:SOURCE --to FILE",
        )
    return _parsed(text)


def _parsed(text: str) -> Address:
    if not text or len(text) > MOST_LETTERS or any(ord(each) < 32 for each in text):
        raise _wrong(f"an address has 1 to {MOST_LETTERS:,} letters and no control characters")
    scheme, colon, rest = text.partition(":")
    if not colon or "/" in scheme or len(scheme) == 1:
        return Address("file", text, text, text)
    scheme = scheme.lower()
    if scheme == "blob":
        return _blob(rest)
    if scheme == "door":
        return _door(rest)
    if scheme not in SCHEMES:
        raise _wrong(f"`{scheme[:20]}:` is no kind of address that can be moved; there are {', '.join(SCHEMES)}")
    try:
        parts = urllib.parse.urlsplit(text)
        has_login = bool(parts.username or parts.password or "@" in parts.netloc)
        is_sound = parts.port is None or parts.port > 0
    except ValueError:
        has_login, is_sound = False, False
    if not is_sound:
        raise _wrong(f"this is no {scheme} address")
    if has_login:
        raise _wrong(f"a login in a {scheme} address is seen by everybody who lists processes; it is not taken")
    if scheme == "file":
        return _file(parts)
    if scheme == "s3":
        return _object(parts)
    if not parts.hostname or not parts.netloc.isascii() or parts.fragment:
        raise _wrong(f"this is no {scheme} address")
    shown = f"{scheme}://{parts.netloc}{parts.path}" + ("?..." if parts.query else "")
    return Address(scheme, text, parts.path, shown)


def _file(parts: urllib.parse.SplitResult) -> Address:
    path = urllib.parse.unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path or parts.query:
        raise _wrong("a file address is `file:///absolute/path`, on this machine")
    return Address("file", path, path, path)


def _object(parts: urllib.parse.SplitResult) -> Address:
    key = urllib.parse.unquote(parts.path[1:])
    is_shown = key and not any(ord(each) < 32 or ord(each) == 127 for each in key)  # names go into logs
    if not BUCKET.fullmatch(parts.netloc) or not is_shown or len(key.encode()) > 1_024 or parts.query or parts.fragment:
        raise _wrong("an S3 address is `s3://bucket/key`")
    path = f"{parts.netloc}/{key}"
    return Address("s3", f"s3://{path}", path, f"s3://{path}")


def _blob(digest: str) -> Address:
    if digest and not DIGEST.fullmatch(digest):
        raise _wrong("a blob is named by its sha256: `blob:` and 64 letters of 0-9a-f")
    return Address("blob", f"blob:{digest}", digest, f"blob:{digest}")


def _door(text: str) -> Address:
    found = DOOR.fullmatch(text)
    if found is None:
        raise _wrong("a door is named by its site, with the sha256 of a chunk: `door:cn.demo.lab7/site/gz1#SHA256`")
    return Address("door", found[1], found[2] or "", f"door:{text}")


def _wrong(message: str, *hints: str) -> TielineError:
    return TielineError("invalid_request", message, hints=hints)
