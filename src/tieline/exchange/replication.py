"""Replication: pages of a peer's logs, verified here record by record or by their owner's checkpoint, and taken."""

from __future__ import annotations

import msgspec

from tieline.exchange.commands import Decision, PageTaken, TakePage
from tieline.exchange.permission import allow
from tieline.exchange.view import View
from tieline.exchange.ways import is_ours
from tieline.model.error import TielineError
from tieline.model.event import EquivocationSeen, Events, RecordsTaken
from tieline.model.party import Role
from tieline.model.peer import Cursor, PeerState
from tieline.ports import Ids
from tieline.registry import Intake, Judged, Outcome, Silence
from tieline.registry.pages import check_page, is_proved, page_of

replace = msgspec.structs.replace


def take_page(view: View, command: TakePage, now_ms: int, ids: Ids) -> Decision:
    """Take what is good of a page; what is refused is counted by rule, and the cursor moves on either way.

    Who brings a record does not matter, only who signed it: a copy of our own records is taken too where it is newer
    than what we hold, which is how an exchange that lost its newest records gets them back. Only where nothing can be
    judged yet, because the prefix was not given to anybody as far as is known here, the cursor stays.
    """
    allow(command.actor, Role.ADMIN, what="take pages of a peer's logs")
    _check_peer(view, command)
    check_page(command.envelopes)
    intake = view.catalogue.intake(command.prefix, now_ms // 1000)
    if intake.is_waiting:
        return Decision((), _waiting(intake, len(command.envelopes)))
    proved = _is_proved(intake, command)
    kept: list[Judged] = []
    proofs: dict[str, EquivocationSeen] = {}
    refused: dict[str, int] = {}
    unchanged = equivocations = 0
    for judged in intake.judge_all(command.envelopes, is_proved=proved):
        if isinstance(judged, TielineError):
            rule = judged.reasons[0].code
            refused[rule] = refused.get(rule, 0) + 1
            continue
        if judged.outcome is Outcome.STORED:
            kept.append(judged)
        elif judged.outcome is Outcome.EQUIVOCATION:
            equivocations += 1
            if judged.fresh is not None:
                kept.append(replace(judged, held=judged.fresh))
            if view.catalogue.is_news(judged.id, judged.held.rev):
                proofs.setdefault(judged.id, _proof(judged))
        else:
            unchanged += 1
    cursor = Cursor(
        peer=command.peer,
        prefix=command.prefix,
        session=command.session,
        serial=command.serial,
        taken_ms=now_ms,
    )
    taken = PageTaken(
        stored=len(kept),
        unchanged=unchanged,
        equivocations=equivocations,
        refused=refused,
        is_proved=proved,
    )
    if not kept and not proofs and _is_known(view, cursor):
        return Decision((), taken)
    page = page_of([each.envelope for each in kept]).decode()
    view.catalogue.expect(page, kept)
    events: tuple[Events, ...] = (RecordsTaken(cursor=cursor, page=page), *proofs.values())
    return Decision(events, taken)


def guard_branch(view: View, peer: str, heard_ms: int, now_ms: int, *, is_silent: bool) -> None:
    """Freeze the leases of what came from a peer that is not heard, when too many would end at once; else let them end.

    ``heard_ms``: when it was last heard. Last value only, like all that is known of branches; a log that another peer
    serves too, and who is heard, is not frozen. Nor is what is written here.
    """
    silence = view.silences.get(peer)
    if not is_silent and silence is None:
        return  # heard, as nearly always: nothing of it is frozen
    prefixes = [prefix for name, prefix in view.cursors if name == peer and not is_ours(view, prefix)]
    if not is_silent:
        del view.silences[peer]
        for prefix in prefixes:
            view.catalogue.thaw(prefix)
        return
    if silence is None:
        silence = Silence.of(heard_ms // 1000, view.catalogue.leases(prefixes))
        view.silences[peer] = silence
    staleness = silence.staleness(now_ms // 1000)
    heard = {prefix: None for name, prefix in view.cursors if name != peer and name not in view.silences}
    for prefix in prefixes:
        if staleness.is_frozen and prefix not in heard:
            view.catalogue.freeze(prefix, silence.since_s, staleness.until_s)
        else:
            view.catalogue.thaw(prefix)


def _check_peer(view: View, command: TakePage) -> None:
    peer = view.peers.get(command.peer)
    if peer is None or peer.state is not PeerState.ACTIVE:
        raise TielineError("not_found", f"`{command.peer}` is no peer of this exchange", where="peer")
    if peer.fault is not None:
        raise TielineError(
            "conflict", f"nothing is taken from `{command.peer}`: there is proof against it", reasons=(peer.fault,)
        )


def _waiting(intake: Intake, count: int) -> PageTaken:
    """Nothing of the page can be judged: it waits for a delegation, or for a root that nobody pinned."""
    try:
        intake.check_reachable()
    except TielineError as error:
        return PageTaken(parked=count, refused={error.reasons[0].code: count})
    return PageTaken(parked=count)


def _is_proved(intake: Intake, command: TakePage) -> bool:
    """Whether the owner's checkpoint covers these very bytes; one that does not verify proves nothing."""
    if not command.checkpoint or command.page < 0:
        return False
    try:
        checkpoint = intake.checkpoint(command.checkpoint)
    except TielineError:
        return False
    return checkpoint is not None and is_proved(command.envelopes, command.page, checkpoint)


def _is_known(view: View, cursor: Cursor) -> bool:
    """Whether the cursor stands there already: a repeated page leaves no trace in the log."""
    held = view.cursors.get((cursor.peer, cursor.prefix))
    return held is not None and (held.session, held.serial) == (cursor.session, cursor.serial)


def _proof(judged: Judged) -> EquivocationSeen:
    return EquivocationSeen(
        id=judged.id,
        rev=judged.held.rev,
        kept_sha256=judged.held.sha256.hex(),
        other_sha256=judged.other_sha256.hex(),
        other_envelope=judged.envelope.decode(),
    )
