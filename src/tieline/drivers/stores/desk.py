"""Desk: decides on one batch in memory. It keeps nothing and answers nobody: the writer does, once it is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from tieline.drivers.stores.draft import Draft
from tieline.drivers.stores.inbox import Waiting
from tieline.drivers.stores.meters import Meters
from tieline.drivers.stores.replies import ReplyCodec
from tieline.exchange.commands import Command, Decision
from tieline.model.error import TielineError
from tieline.model.party import SYSTEM, Actor
from tieline.ports import Ids

V = TypeVar("V")
Stored = Mapping[str, tuple[str, int, bytes]]  # idempotency key -> digest, time_ms, reply
Decide = Callable[[V, Any, int, Ids], Decision]
Schedule = Callable[[V, int, Ids, int], Iterable[Any]]
log = logging.getLogger("tieline.writer")

PASS_S = 0.1  # a placing pass that takes longer is cut shorter from then on
FIRST_PLACEMENTS, LEAST_PLACEMENTS = 256, 16
PLACING = Waiting(None)  # stands for the placing pass where a command is blamed


def source_of(actor: Actor) -> str | None:
    """From where and under which right a change was asked for, as the log keeps it."""
    return f"{actor.via} {actor.right}".strip()[:200] or None


def defect() -> TielineError:
    """What a caller hears of a bug of ours."""
    return TielineError("internal", "a defect in Tieline; nothing was changed, and its traceback is in the log")


def refusal(code: str, why: str) -> TielineError:
    """What a caller hears while nothing can be kept."""
    return TielineError(code, f"the store takes no changes now: {why}", hints=("tieline status",))


class Desk(Generic[V]):
    """Takes the commands of a batch one by one; a refused one leaves no trace."""

    def __init__(
        self,
        decide: Decide[V],
        schedule: Schedule[V],
        ids: Ids,
        codec: ReplyCodec,
        meters: Meters,
        *,
        growing: frozenset[type],
        room: Callable[[], None] | None,
        placements: int,
        idempotency_ms: int,
    ) -> None:
        self._decide, self._schedule, self._ids = decide, schedule, ids
        self._codec, self._meters = codec, meters
        self._growing, self._room = growing, room
        self._most_placements = placements
        self._placements = min(FIRST_PLACEMENTS, placements)
        self._idempotency_ms = idempotency_ms
        self.is_more_to_place = False

    def run(
        self,
        draft: Draft[V],
        items: Iterable[Waiting],
        stored: Stored,
        is_placing: bool,
        refused: tuple[str, str] | None,
    ) -> Waiting | None:
        """Decide on ``items``, then place what waits. While ``refused`` (code, why) only what changes nothing is taken.

        Returns the item whose events could not be applied, if there is one: the view is then spoilt.
        """
        low = _Once(self._room)
        for item in items:
            if item.command is None:
                self._take_changes(item, draft, refused)
            elif not self._take(item, item.command, draft, stored, low, refused):
                return item
        if is_placing and refused is None and not self._place(draft):
            return PLACING
        return None

    def _take_changes(self, item: Waiting, draft: Draft[V], refused: tuple[str, str] | None) -> None:
        if refused is not None:
            draft.answers.append((item, None, refusal(*refused)))
            return
        draft.changes.extend(item.changes)
        draft.answers.append((item, None, None))

    def _take(
        self,
        item: Waiting,
        command: Command,
        draft: Draft[V],
        stored: Stored,
        low: _Once,
        refused: tuple[str, str] | None,
    ) -> bool:
        """Decide on one command. False when its events could not be applied."""
        try:
            key = self._codec.key_of(command)
            if key and (before := self._before(command, key, draft, stored)) is not None:
                draft.replays += 1
                draft.answers.append((item, before[0], None))
                return True
            if type(command) in self._growing:
                low.check()
            decision = self._decide(draft.view, command, draft.now_ms, self._ids)
            if refused is not None and (decision.events or key):
                raise refusal(*refused)  # noqa: TRY301 - one answer for every refusal
            changes = item.aside(decision.reply) if item.aside is not None else ()
            reply = self._codec.encode(decision.reply) if key else b""
        except TielineError as error:
            draft.rejects += 1
            draft.answers.append((item, None, error))
            return True
        except Exception:
            log.exception("defect in deciding on %s", type(command).__name__)
            self._meters.defects += 1
            draft.answers.append((item, None, defect()))
            return True
        try:
            actor = command.actor.name
            for event in decision.events:
                draft.add(event, actor, source_of(command.actor))
        except Exception:
            log.exception("defect in applying what follows from %s", type(command).__name__)
            self._meters.defects += 1
            return False
        draft.changes.extend(changes)
        if key:
            draft.replies.append((key, command.digest, draft.now_ms, reply))
            draft.fresh[key] = (command.digest, decision.reply)
        draft.answers.append((item, decision.reply, None))
        return True

    def _place(self, draft: Draft[V]) -> bool:
        """The placing pass. False when its events could not be applied.

        How much it may place follows from how long that took before, since commands wait for it meanwhile: an exchange
        that places for seconds does not hear its sites.
        """
        begun_s = time.perf_counter()
        try:
            events = list(self._schedule(draft.view, draft.now_ms, self._ids, self._placements))
        except Exception:
            log.exception("defect in the placing pass")
            self._meters.defects += 1
            return True
        self.is_more_to_place = len(events) >= self._placements
        try:
            for event in events:
                draft.add(event, SYSTEM.name)
        except Exception:
            log.exception("defect in applying what the placing pass decided")
            self._meters.defects += 1
            return False
        took_s = time.perf_counter() - begun_s
        if took_s > PASS_S:
            self._placements = max(LEAST_PLACEMENTS, self._placements // 2)
        elif self.is_more_to_place and took_s < PASS_S / 4:
            self._placements = min(self._most_placements, self._placements * 2)
        return True

    def _before(self, command: Command, key: str, draft: Draft[V], stored: Stored) -> tuple[Any] | None:
        """The answer that this key was given before, in a tuple of one; None for a new key."""
        fresh = draft.fresh.get(key)
        if fresh is not None:
            digest, reply = fresh
        else:
            row = stored.get(key)
            if row is None or draft.now_ms - row[1] > self._idempotency_ms:
                return None
            digest, _, encoded = row
            try:
                reply = self._codec.decode(type(command), encoded) if digest == command.digest else None
            except msgspec.DecodeError as error:
                raise TielineError(
                    "idempotency_conflict",
                    f"the answer to `{command.key}` was kept in a shape that this version cannot read: {error}",
                    hints=("send the request with a new Idempotency-Key",),
                ) from None
        if digest != command.digest:
            raise TielineError(
                "idempotency_conflict",
                f"the idempotency key `{command.key}` was used for another request",
                hints=("send the request with a new Idempotency-Key",),
            )
        return (reply,)


class _Once:
    """A check that is made at most once for a batch."""

    def __init__(self, check: Callable[[], None] | None) -> None:
        self._check = check
        self._error: TielineError | None = None

    def check(self) -> None:
        """Raise what the check raised."""
        if self._check is not None:
            check, self._check = self._check, None
            try:
                check()
            except TielineError as error:
                self._error = error
        if self._error is not None:
            raise TielineError(self._error.code, self._error.message, hints=self._error.hints)
