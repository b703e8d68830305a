"""Said: readings across exchanges. What sites signed is passed on as it is, to whoever is shown these sites.

::

    a peer asks  --> batches of the sites that it is shown, as they were signed, after its serial      (read_said)
    we are told  --> a batch counts where the peer leads to its site, the key of the site's record signed it,
                     and physics allows it; newer than what is held, whatever its age                  (take_said)

A peer may hold back; it can neither alter nor make a batch, and one that it sends again is older than what is held. A
reading of a reference point counts where the point has the same name and the same address here.
"""

from __future__ import annotations

from typing import NamedTuple

from tieline.exchange.commands import Command, Decision
from tieline.exchange.hosting import active_peer
from tieline.exchange.measuring import SKEW_MS, frame_of
from tieline.exchange.readings import MOST_OF_A_PEER
from tieline.exchange.showing import shown_to
from tieline.exchange.view import View
from tieline.model.measuring import PeerReadings, PeerReadingsBody
from tieline.model.reading import ReadingBatch
from tieline.model.reason import Reason, Value
from tieline.ports import Ids


class ReadSaid(Command, frozen=True, kw_only=True):
    """No events. What sites that a peer is shown measured. Reply: PeerReadings."""

    peer: str
    body: PeerReadingsBody


class Said(NamedTuple):
    """A batch that a peer passed on; the shell checked its signature against ``public``."""

    statement: str
    batch: ReadingBatch
    public: str


class TakeSaid(Command, frozen=True, kw_only=True):
    """Keep what a peer passed on. Reply: SaidTaken."""

    peer: str
    said: tuple[Said, ...]


class SaidTaken(NamedTuple):
    """How many readings were kept, how many physics refuted, and why whole batches or the rest of one were not."""

    kept: int
    refuted: int
    refused: tuple[Reason, ...]


def read_said(view: View, command: ReadSaid, now_ms: int, ids: Ids) -> Decision:
    """Batches of the sites that the peer is shown, ours and those behind us; none of what it leads to itself."""
    peer = active_peer(view, command.peer)
    readings, body = view.readings, command.body
    readings.turn(now_ms)
    session = str(readings.statements.began_ms)
    shown = {state.id: None for state in shown_to(view, peer)} if peer.may_use else {}
    after = body.after if body.session in ("", session) else 0
    page = readings.statements.page(after, body.sites, shown.__contains__)
    said = PeerReadings(session=session, after=page.after, is_more=page.is_more, statements=page.statements)
    return Decision((), said)


def take_said(view: View, command: TakeSaid, now_ms: int, ids: Ids) -> Decision:
    """Last value only. Each batch is judged by itself; what is refused says why, and changes nothing."""
    peer = active_peer(view, command.peer)
    readings = view.readings
    kept = wrong = 0
    refused: list[Reason] = []
    for said in command.said:
        if _is_early(view, said):
            continue
        why = _refusal(view, peer.id, said, now_ms)
        if why is not None:
            refused.append(why)
            continue
        frame = frame_of(view, said.batch.site, now_ms, is_far=True)
        more = readings.take_far(peer.id, said.batch.site, said.batch.readings, frame, said.statement)
        kept, wrong = kept + more[0], wrong + more[1]
        if more[2]:
            values: dict[str, Value] = {"exchange": peer.id, "most": MOST_OF_A_PEER}
            refused.append(Reason(code="reading_full", count=more[2], values=values))
    readings.forget_old()
    return Decision((), SaidTaken(kept, wrong, tuple(refused)))


def _is_early(view: View, said: Said) -> bool:
    """Whether a batch is of a site of which nothing is known here yet. Its peer is asked for it again once there is."""
    site = said.batch.site
    spec = view.supply.site_specs.get(site)
    is_somewhere = site in view.sites or site in view.remote_sites
    return spec is None or not spec.public or not said.public or not is_somewhere


def _refusal(view: View, peer: str, said: Said, now_ms: int) -> Reason | None:
    """Why a batch counts for nothing here; None: it is looked at."""
    site, spec = said.batch.site, view.supply.site_specs[said.batch.site]
    if site not in view.ways.get(peer, {}) or not view.way_to(site):
        return Reason(code="reading_not_behind", values={"exchange": peer, "site": site})
    if spec.public != said.public:
        return Reason(code="reading_unsigned", values={"site": site})
    if said.batch.at_ms > now_ms + SKEW_MS:
        return Reason(code="reading_ahead", values={"ahead_us": (said.batch.at_ms - now_ms) * 1000})
    return None
