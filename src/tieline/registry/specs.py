"""What a record says, judged by the row of its kind: shape, references to other identifiers, keys, annotations."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import Identifier, is_under
from tieline.model.kinds import Kind, Reference, Writer
from tieline.model.record import Link, Record, Status
from tieline.model.spec import AnnotationSpec, Spec
from tieline.registry.keys import check_strong, public_bytes
from tieline.registry.rules import refused

LINKS = Reference(field="links")
parsed = lru_cache(maxsize=16_384)(Identifier.parse)  # many records name the same few sites


def checked_spec(identifier: Identifier, record: Record, kind: Kind) -> Spec | None:
    """The typed spec; None for a tombstone that says nothing more. Raises `record_refused`."""
    if not record.spec and record.status is Status.WITHDRAWN:
        return None
    try:
        spec = msgspec.convert(record.spec, kind.spec)
    except msgspec.ValidationError as error:
        raise refused("spec_form", record.id, kind=record.kind, why=str(error)) from None
    check_spec(identifier, record.links, spec, kind)
    return spec


def check_spec(identifier: Identifier, links: Iterable[Link], spec: Spec, kind: Kind) -> None:
    """Refuse what the row of the kind does not allow in a spec of the right shape."""
    for reference in kind.references:
        check_reference(identifier, reference, getattr(spec, reference.field))
    for link in links:
        check_target(identifier, "links", link.id, LINKS)
    for field in kind.keys:
        text = getattr(spec, field)
        if text:
            check_strong(public_bytes(text, field), field, str(identifier))
    if kind.writer is Writer.OBSERVER:
        assert isinstance(spec, AnnotationSpec)
        check_observer(identifier, parsed(spec.subject))


def check_reference(identifier: Identifier, reference: Reference, value: Any) -> None:
    """Refuse a field that does not hold identifiers of the kind that its row says."""
    for text in (value,) if isinstance(value, str) else value:
        if text:
            check_target(identifier, reference.field, text, reference)


def check_target(identifier: Identifier, field: str, text: str, reference: Reference) -> None:
    """Refuse one identifier that is malformed, of another kind, or another owner's where it must be one's own."""
    try:
        target = parsed(text)
    except TielineError as error:
        raise refused("reference_form", str(identifier), field=field, id=text[:200], why=error.message) from None
    if reference.kind and target.kind != reference.kind:
        why = f"kind `{reference.kind}` is wanted"
        raise refused("reference_form", str(identifier), field=field, id=text, why=why)
    if reference.is_own and target.prefix != identifier.prefix:
        raise refused("reference_foreign", str(identifier), field=field, id=text)


def check_observer(identifier: Identifier, subject: Identifier) -> None:
    """Refuse praise of oneself: an annotation by the subject's own prefix, or by one that it delegated."""
    if is_under(identifier.prefix, subject.prefix):
        raise refused("annotation_of_itself", str(identifier), subject=str(subject), prefix=identifier.prefix)
