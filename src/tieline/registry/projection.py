"""Projections: the same name in other schemes, as a table with round-trip tests. No conformance is claimed.

::

    ci:cn.demo.lab7/pool/a100          the identifier as a URI (RFC 3986, section 3: scheme and a rootless path)
    88.cn.demo.lab7/pool.a100          Handle-shaped (RFC 3651: prefix "/" suffix) industrial identifier 工业互联网标识:
        88.<prefix>/<kind>.<name>      a kind has no dot, so that the first dot of the suffix ends it
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import Identifier

INDUSTRY_PREFIX = "88."
URI_PREFIX = "ci:"


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """One row: how an identifier is written in another scheme, and read back."""

    scheme: str
    form: str
    to_text: Callable[[Identifier], str]
    from_text: Callable[[str], Identifier]


def handle_text(identifier: Identifier) -> str:
    """``88.<prefix>/<kind>.<name>``."""
    return f"{INDUSTRY_PREFIX}{identifier.prefix}/{identifier.kind}.{identifier.name}"


def handle_identifier(text: str) -> Identifier:
    """The identifier of a Handle-shaped name; raises TielineError `invalid_identifier`."""
    prefix, slash, suffix = text.removeprefix(INDUSTRY_PREFIX).partition("/")
    kind, dot, name = suffix.partition(".")
    if not text.startswith(INDUSTRY_PREFIX) or not slash or not dot or "/" in suffix:
        raise _not_of("handle", text)
    return Identifier.parse(f"{prefix}/{kind}/{name}")


def uri_text(identifier: Identifier) -> str:
    """``ci:<prefix>/<kind>/<name>``."""
    return f"{URI_PREFIX}{identifier}"


def uri_identifier(text: str) -> Identifier:
    """The identifier of a ``ci:`` URI; raises TielineError `invalid_identifier`."""
    if not text.startswith(URI_PREFIX):
        raise _not_of("uri", text)
    return Identifier.parse(text.removeprefix(URI_PREFIX))


PROJECTIONS: dict[str, Projection] = {
    "uri": Projection(scheme="uri", form="ci:<prefix>/<kind>/<name>", to_text=uri_text, from_text=uri_identifier),
    "handle": Projection(
        scheme="handle", form="88.<prefix>/<kind>.<name>", to_text=handle_text, from_text=handle_identifier
    ),
}


def _not_of(scheme: str, text: str) -> TielineError:
    return TielineError(
        "invalid_identifier", f"`{text[:200]}` has not the form `{PROJECTIONS[scheme].form}`", where=text[:200]
    )
