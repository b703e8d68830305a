"""Branches: what this exchange's users have behind a peer, and what is free there.

::

    BranchState of a peer --> its sites can be placed on, the shortest way to each     (last value only)
    a run with `via`      --> offered to the peer like to a site; the peer's reports are judged like a site's
    silence               --> nothing new is placed there; what runs there is frozen until `branch_lost_ms`, then fenced

A claim that comes with a run's end is answered once, with one signed word (`settlement`).
"""

from __future__ import annotations

import re

import msgspec

from tieline.exchange import runs as judging
from tieline.exchange.commands import Decision, Live, ReadLive, TakePeerReports
from tieline.exchange.hosting import active_peer
from tieline.exchange.orders import live_orders
from tieline.exchange.runs import lose_run, terms_of
from tieline.exchange.settlement import Terms, nothing_for
from tieline.exchange.showing import MOST_WAY
from tieline.exchange.view import View
from tieline.exchange.ways import is_above, is_admitted_by
from tieline.model.event import Events, ReportsTaken, RunEnded
from tieline.model.job import Output
from tieline.model.peer import BranchState, Peer, PeerState, SiteState
from tieline.model.project import Quota
from tieline.model.protocol import (
    Accepted,
    Ended,
    Lost,
    Offer,
    Outcome,
    PeerReport,
    Quoted,
    Refused,
    Reports,
    Roll,
    Stop,
)
from tieline.model.reason import Reason, Value
from tieline.place import Amount, SiteFlags
from tieline.ports import Ids

replace = msgspec.structs.replace
_encode = msgspec.json.Encoder().encode

MOST_LOST = 1_000  # runs behind a silent branch, of one tick; the others follow at the next
MOST_REASON_BYTES = 4_096
MOST_OUTPUTS = 10_000
SHA256 = re.compile(r"[0-9a-f]{64}")
WORD_MOST = 32
PLAIN_PATH = re.compile(r"(?!/)(?!(.*/)?\.\.(/|$))[^\0\\]{1,4096}")


# -- reports ----------------------------------------------------------------------------------------------------------


def take_peer_reports(view: View, command: TakePeerReports, now_ms: int, ids: Ids) -> Decision:
    """What a peer says of runs that we placed there: each report takes effect once, and the cursor moves with it.

    The reply has an outcome for each of the first reports: those up to the second one about the same run, which rests
    on the first. The caller submits the rest again.
    """
    peer = active_peer(view, command.peer)
    view.heard_ms[peer.id] = now_ms
    events: list[Events] = []
    outcomes: list[Outcome] = []
    seen: dict[str, None] = {}
    after = peer.reports_after if command.session == peer.reports_session else 0
    is_first = not peer.reports_session
    known = after
    for each in command.reports:
        run = getattr(each.report, "run", "")
        if run in seen:
            break
        seen[run] = None
        is_new = is_first or (each.serial > known and command.session == peer.reports_session)
        found, outcome = _taken(view, peer, each, is_new and bool(command.session), now_ms)
        events.extend(found)
        outcomes.append(outcome)
        after = max(after, each.serial)
    if command.session and (after, command.session) != (peer.reports_after, peer.reports_session):
        events.append(ReportsTaken(peer=peer.id, after=after, session=command.session))
    return Decision(tuple(events), tuple(outcomes))


def _taken(view: View, peer: Peer, said: PeerReport, is_new: bool, now_ms: int) -> tuple[list[Events], Outcome]:
    report = clean(said.report)
    events, outcome = judging.judge(view, peer.id, report, now_ms)
    if isinstance(report, Ended) and report.receipt:
        outcome = replace(outcome, answer=_answer(view, peer, report, events, is_new))
    return events, outcome


def _answer(view: View, peer: Peer, report: Ended, events: list[Events], is_new: bool) -> str:
    """Our answer to the claim in a report: the one of the line that it made or had made, or that nothing is paid.

    A run that is forgotten here may have been paid before; only a claim that is new in the list is then answered.
    """
    for event in events:
        if isinstance(event, RunEnded) and event.usage is not None:
            return event.usage.answer
    over = view.recent.get(report.run) or view.runs.get(report.run)
    if over is not None and over.via == peer.id:
        return over.answer or nothing_for(terms_of(view, over), report.receipt, "claim_stale")
    if not is_new or view.exchange is None:
        return ""
    return nothing_for(Terms(view.exchange.id, view.keys, peer.public), report.receipt, "claim_stale")


def clean(report: Reports) -> Reports:
    """A report with everything in it bounded: another exchange has not read it for us."""
    if isinstance(report, Accepted):
        return replace(report, sandbox=report.sandbox[:WORD_MOST], network=report.network[:WORD_MOST])
    if isinstance(report, Refused | Lost):
        return replace(report, reason=_bounded(report.reason))
    if isinstance(report, Quoted):
        return replace(report, reason=_bounded(report.reason) if report.reason is not None else None)
    if isinstance(report, Ended):
        return replace(
            report,
            exit_codes=report.exit_codes[:100],
            first_run="",
            outputs=tuple(output for output in report.outputs[:MOST_OUTPUTS] if _is_plain(output)),
            checkpoint=report.checkpoint if SHA256.fullmatch(report.checkpoint) else "",
            reason=_bounded(report.reason) if report.reason is not None else None,
        )
    return report


def _bounded(reason: Reason) -> Reason:
    if len(_encode(reason)) <= MOST_REASON_BYTES:
        return reason
    return Reason(code=reason.code[:64], values={"why": "the peer said more than can be kept"})


def _is_plain(output: Output) -> bool:
    is_counted = output.size_bytes >= 0 and output.node >= 0
    return is_counted and bool(SHA256.fullmatch(output.sha256)) and bool(PLAIN_PATH.fullmatch(output.path))


def read_live(view: View, command: ReadLive, now_ms: int, ids: Ids) -> Decision:
    """What a peer is told after a reconnect: every live run behind it, and their names as the roll."""
    orders = tuple(order for order in live_orders(view, command.peer, now_ms) if isinstance(order, Offer | Stop))
    names = tuple(view.runs_at.get(command.peer, ()))
    return Decision((), Live(roll=Roll(at_ms=now_ms, runs=names), orders=orders))


# -- what is free there -----------------------------------------------------------------------------------------------


def apply_branch(view: View, peer: str, state: BranchState, now_ms: int) -> None:
    """Let placing know what is free behind a peer, by its newest state; last value only.

    A site of our own is never behind a peer. Of several ways to a site that over a peer whose prefix contains the
    site's wins, since it signed what the site's owner is; then the shortest, then the first by name. A way that comes
    back here, is longer than `MOST_WAY`, or does not end with the exchange that admitted the site, is none.
    """
    view.heard_ms[peer] = now_ms
    ways = view.ways.setdefault(peer, {})
    before = dict(ways)
    ways.clear()
    led = {site.id: site for site in state.sites if _leads(view, peer, site)}
    for name, site in led.items():
        ways[name] = len(site.path) + (0 if is_above(peer, name) else MOST_WAY)
    for name in before:
        if name not in ways:
            _direct(view, name)
    for name, site in led.items():
        if _direct(view, name) == peer:
            _open(view, site, state.quota)
    view.supply.version += 1


def _leads(view: View, peer: str, site: SiteState) -> bool:
    """Whether a state names a usable way to a site that is not ours."""
    assert view.exchange is not None
    path = site.path
    is_way = bool(path) and path[0] == peer and len(path) <= MOST_WAY and len(set(path)) == len(path)
    ours = view.sites.get(site.id)
    is_theirs = view.exchange.id not in path and (ours is None or ours.has_left)
    return is_way and is_theirs and is_admitted_by(site.id, path[-1])


def _direct(view: View, site: str) -> str:
    """The peer that leads to a site now, and remember it; a site without any way is closed. Empty: none.

    Such a site stays another exchange's: who may use it is asked there, and a job that fits it alone waits.
    """
    found = min(((ways[site], peer) for peer, ways in view.ways.items() if site in ways), default=None)
    if found is None:
        if view.way_to(site):
            view.supply.pools.set_site(site, SiteFlags(is_remote=True))
            view.supply.touch(site)
        view.remote_sites.pop(site, None)
        view.said.pop(site, None)
        return ""
    view.remote_sites[site] = found[1]
    return found[1]


def _open(view: View, site: SiteState, quota: Quota) -> None:
    """What is free at a site behind a peer, and our quota there. Its pools that are not named are not for us."""
    pools = view.supply.pools
    flags = SiteFlags(is_admitted=True, is_draining=site.is_draining, is_silent=site.is_silent, is_remote=True)
    is_same = view.said.get(site.id) == site and pools.site_flags(site.id) == flags
    view.said[site.id] = site
    pools.set_site(site.id, flags)
    said = {pool.pool: pool for pool in site.pools}
    for row in pools.site_pools(site.id):
        pool, before = said.get(row.id), pools.free(row.id)
        amount = Amount(pool.accelerators, pool.cores, pool.memory_bytes) if pool is not None else Amount()
        pools.set_available(row.id, amount)
        pools.set_granted(row.id, quota.card_count if row.sells_accelerators else quota.core_count)
        is_same = is_same and pools.free(row.id) == before
    if not is_same:
        view.supply.touch(site.id)


def branches_due(view: View, now_ms: int) -> list[Events]:
    """Branches that fell silent, and the runs behind those that stayed so too long."""
    events: list[Events] = []
    for peer in view.peers.values():
        runs = view.runs_at.get(peer.id)
        if not runs and peer.id not in view.ways:
            continue
        heard_ms = view.heard_ms.setdefault(peer.id, now_ms)
        is_well = peer.state is PeerState.ACTIVE and peer.fault is None
        if peer.id in view.ways and not (is_well and now_ms - heard_ms <= view.limits.lease_ms):
            close_branch(view, peer.id)
        if not runs:
            continue
        values: dict[str, Value] = {"exchange": peer.id, "silent_us": (now_ms - heard_ms) * 1_000}
        if peer.state is PeerState.REMOVED:
            code = "branch_removed"
        elif now_ms - heard_ms > view.limits.branch_lost_ms:
            code = "branch_lost"
        else:
            continue
        for name in tuple(runs)[:MOST_LOST]:
            events.extend(lose_run(view, view.runs[name], now_ms, code, values))
    return events


def close_branch(view: View, peer: str) -> None:
    """Place nothing new behind a peer until it says again what is free there; other ways to its sites are taken."""
    for site in view.ways.pop(peer, {}):
        if view.remote_sites.get(site) != peer:
            continue
        leads = _direct(view, site)
        state = view.branches[leads].state if leads in view.branches else None
        said = state.sites if state is not None else ()
        known = next((each for each in said if each.id == site and _leads(view, leads, each)), None)
        if state is not None and known is not None:
            _open(view, known, state.quota)
        elif not leads:
            view.supply.pools.set_site(site, SiteFlags(is_admitted=True, is_silent=True, is_remote=True))
            view.supply.touch(site)
