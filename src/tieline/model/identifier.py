"""Identifier 统一标识: ``<prefix>/<kind>/<name>``, such as ``cn.sh.lab7/pool/a100`` (design, section 4).

::

    identifier = prefix "/" kind "/" name          at most 200 bytes, never reused
    prefix     = label *("." label)                at most 16 labels: the path of delegation
    name       = label *("." label)                chosen by the owner; says no price, place or size
    label      = alnum *(alnum / "-" / "_") alnum  lower-case a-z and 0-9; begins and ends with one of them
    kind       = a word of the table in `kinds.py`

Labels that begin with ``xn--`` are refused: they hide another alphabet (RFC 5890, section 2.3.2.1).
"""

from __future__ import annotations

import re

import msgspec

from tieline.model.error import TielineError

MAX_IDENTIFIER_BYTES = 200
MAX_PREFIX_LABELS = 16

LABEL = r"[a-z0-9]+(?:[_-]+[a-z0-9]+)*"
DOTTED = rf"{LABEL}(?:\.{LABEL})*"
KIND = r"[a-z]+(?:-[a-z0-9]+)*"
_IDENTIFIER = re.compile(rf"({DOTTED})/({KIND})/({DOTTED})")
_KIND = re.compile(KIND)
_ALIEN = re.compile(r"[^a-z0-9._/-]")
GRAMMAR = "the form is <prefix>/<kind>/<name>, lower case, such as `cn.demo.lab7/pool/a100`"


class Identifier(msgspec.Struct, frozen=True, order=True):
    """The stable name of one registered thing. ``str()`` gives its text back."""

    prefix: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.prefix}/{self.kind}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Identifier:
        """Read ``text``; raises TielineError `invalid_identifier` that says what is wrong and where."""
        match = _IDENTIFIER.fullmatch(text) if len(text) <= MAX_IDENTIFIER_BYTES else None
        if match is None or "xn--" in text or match[1].count(".") >= MAX_PREFIX_LABELS:
            flaw = _flaw(text)
            if flaw:
                raise TielineError("invalid_identifier", flaw, hints=(GRAMMAR,), where=text[:MAX_IDENTIFIER_BYTES])
            assert match is not None, text
        return cls(*match.groups())

    def is_under(self, prefix: str) -> bool:
        """Whether its prefix is ``prefix`` or was delegated from it."""
        return is_under(self.prefix, prefix)


def is_under(prefix: str, ancestor: str) -> bool:
    """Whether ``prefix`` is ``ancestor`` or below it, label by label (``cn.demo2`` is not below ``cn.demo``)."""
    return prefix == ancestor or (prefix.startswith(ancestor) and prefix[len(ancestor)] == ".")


def checked_prefix(text: str) -> str:
    """Give ``text`` back when it is a prefix; raises TielineError `invalid_identifier` otherwise."""
    flaw = _alien(text, "prefix") or _dotted_flaw(text, "prefix", 0)
    if not flaw and text.count(".") >= MAX_PREFIX_LABELS:
        flaw = _too_many_labels(text)
    if not flaw and "/" in text:
        flaw = f"prefix `{text}` holds a `/` at {text.index('/') + 1}"
    if flaw:
        raise TielineError("invalid_identifier", flaw, where=text[:MAX_IDENTIFIER_BYTES])
    return text


def _flaw(text: str) -> str:
    """The first thing that is wrong, in the order in which a person would look; empty when nothing is."""
    flaw = _alien(text, "identifier")
    if flaw:
        return flaw
    parts = text.split("/")
    if len(parts) != 3:
        return f"identifier `{text}` has {len(parts)} parts separated by `/`, not 3"
    prefix, kind, name = parts
    if prefix.count(".") >= MAX_PREFIX_LABELS:
        return _too_many_labels(prefix)
    flaw = _dotted_flaw(prefix, "prefix", 0)
    if flaw:
        return flaw
    if not _KIND.fullmatch(kind):
        return f"kind `{kind}` at {len(prefix) + 2} of `{text}` is not a lower-case word"
    return _dotted_flaw(name, "name", len(prefix) + len(kind) + 2)


def _too_many_labels(prefix: str) -> str:
    return f"prefix `{prefix}` has {prefix.count('.') + 1} labels, at most {MAX_PREFIX_LABELS} are allowed"


def _alien(text: str, what: str) -> str:
    if not text:
        return f"the {what} is empty"
    if len(text) > MAX_IDENTIFIER_BYTES:
        return f"{what} of {len(text)} characters is over the limit of {MAX_IDENTIFIER_BYTES}"
    match = _ALIEN.search(text)
    if match is None:
        return ""
    import unicodedata  # 1 MB of tables that only this refusal needs

    character = match[0]
    name = unicodedata.name(character, "a control character")
    shown = character if character.isprintable() else "?"
    return (
        f"character `{shown}` (U+{ord(character):04X} {name}) at {match.start() + 1} of the {what} "
        "is none of a-z 0-9 . _ - /"
    )


def _dotted_flaw(text: str, what: str, before: int) -> str:
    """What is wrong with dotted labels that begin ``before`` characters into the whole."""
    if not text:
        return f"the {what} is empty"
    at = before
    for label in text.split("."):
        if not label:
            return f"{what} `{text}` has an empty label at {at + 1}"
        if not label[0].isalnum() or not label[-1].isalnum():
            return f"label `{label}` at {at + 1} of the {what} does not begin and end with a letter or a digit"
        if label.startswith("xn--"):
            return f"label `{label}` at {at + 1} of the {what} hides another alphabet (`xn--`)"
        at += len(label) + 1
    return ""
