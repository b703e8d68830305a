"""Sealed: a run's secrets on their way through exchanges that must not read them.

::

    base64url( sealed box for the site's key ( {"program": "<sha256>", "values": {"HF_TOKEN": "..."}} ) )

They open with the site's key alone, and only for the program that they were sealed for: whoever carries them cannot
show them to the site again with a script of its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping

import msgspec

from tieline.model.error import TielineError
from tieline.model.task import Task
from tieline.registry.keys import seal, unseal

MOST_CHARACTERS = 98_304
_encode = msgspec.json.Encoder(order="deterministic").encode


class _Bound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    program: str
    values: dict[str, str]


_any = msgspec.json.Decoder(dict[str, str | dict[str, str]])


def program_of(task: Task, alternative: int) -> str:
    """SHA-256 of all that is carried out for ``task``: scripts, variables, what is laid out, and the image."""
    image = task.resources[alternative].image
    done = (task.setup, task.run, task.envs, task.secrets, task.token, task.workdir, task.mounts, image)
    return hashlib.sha256(_encode(done)).hexdigest()


def sealed_for(public: str, values: Mapping[str, str], task: Task, alternative: int) -> str:
    """``values`` for the holder of ``public`` (X25519, base64url) and for that program alone.

    Raises TielineError `invalid_request` for what is no key, `too_large`.
    """
    content = _encode(_Bound(program=program_of(task, alternative), values=dict(values)))
    text = base64.urlsafe_b64encode(seal(public, content)).rstrip(b"=").decode()
    if len(text) > MOST_CHARACTERS:
        raise TielineError("too_large", f"the sealed secrets have {len(text):,} characters, over {MOST_CHARACTERS:,}")
    return text


def opened_for(private: bytes, text: str, task: Task, alternative: int) -> dict[str, str]:
    """The values that were sealed for this program, or by the site's own exchange for whatever it offers.

    Raises TielineError `check_failed` for what does not open with this key or is of another program.
    """
    try:
        content = unseal(private, base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        found = _any.decode(content)
        plain = {name: value for name, value in found.items() if isinstance(value, str)}
        if len(plain) == len(found):
            return plain
        bound = msgspec.convert(found, _Bound)
    except (binascii.Error, ValueError, msgspec.MsgspecError, TielineError):
        raise TielineError("check_failed", "the task's secrets do not open with this site's key") from None
    if bound.program != program_of(task, alternative):
        raise TielineError("check_failed", "the task's secrets were sealed for another program")
    return bound.values
