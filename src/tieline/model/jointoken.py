"""Join token: the exchange's consent given beforehand, with what the site needs to reach and to recognise it.

``tl1.`` and the base64url of a small JSON object: the exchange's address, the fingerprint of its key (which the site
pins) and the secret. It is one word, so that it can be copied from a message into a command.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec

from tieline.model.error import TielineError

MARK = "tl1."
MOST_CHARACTERS = 2_000


class JoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a join token carries."""

    url: Annotated[str, msgspec.Meta(max_length=500)]
    fingerprint: Annotated[str, msgspec.Meta(max_length=200)]
    secret: Annotated[str, msgspec.Meta(max_length=200)]
    owner: Annotated[str, msgspec.Meta(max_length=200)] = ""  # prefix of the owner that it is for; empty: not said

    def __str__(self) -> str:
        return MARK + base64.urlsafe_b64encode(msgspec.json.encode(self)).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Read what ``str()`` gave. Raises TielineError `token_refused` for anything else."""
        body = text.removeprefix(MARK) if text.startswith(MARK) and len(text) <= MOST_CHARACTERS else "!"
        try:
            return msgspec.json.decode(base64.b64decode(body + "=" * (-len(body) % 4), b"-_", validate=True), type=cls)
        except (ValueError, binascii.Error, msgspec.MsgspecError):
            raise TielineError(
                "token_refused",
                f"this is no join token: one begins with `{MARK}`",
                hints=("tieline token create NAME --role join --owner OWNER  # on the exchange",),
            ) from None
