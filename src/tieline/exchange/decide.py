"""Decide: one table from command to use-case. A use-case changes nothing; the writer applies what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tieline.exchange import bookings as book
from tieline.exchange import commands as ask
from tieline.exchange.asking import take_ask
from tieline.exchange.branches import read_live, take_peer_reports
from tieline.exchange.calendar import change_tariff, read_calendar
from tieline.exchange.cats import read_cats
from tieline.exchange.circles import ReadGround, read_ground
from tieline.exchange.circuits import cancel_circuit, order_circuit, resize_circuit
from tieline.exchange.crossing import AllowProbes, allow_probes
from tieline.exchange.hosting import read_reports, take_answer, take_offer, take_roll, take_stop
from tieline.exchange.jobs import stop_job, submit_jobs
from tieline.exchange.measuring import change_points, plan_probes, read_readings, read_way, take_readings
from tieline.exchange.nights import book_night, look_at_calendar
from tieline.exchange.parties import create_exchange, create_token, revoke_token
from tieline.exchange.peers import (
    ask_peer,
    blame_peer,
    change_peer,
    read_branches,
    renew_session,
    take_branch,
    take_peering,
)
from tieline.exchange.placing import plan_tasks
from tieline.exchange.projects import change_project, read_projects
from tieline.exchange.quotes import accept_quote, ask_quote
from tieline.exchange.reading import read_sites, read_situation, read_state, why_job
from tieline.exchange.receipts import take_receipt
from tieline.exchange.records import forget_records, store_record
from tieline.exchange.rekeying import rekey_owner
from tieline.exchange.replication import take_page
from tieline.exchange.roots import change_root
from tieline.exchange.runs import take_report
from tieline.exchange.said import ReadSaid, TakeSaid, read_said, take_said
from tieline.exchange.shells import open_shell
from tieline.exchange.sites import change_site, join_site, open_session, take_beat
from tieline.exchange.ticking import tick
from tieline.exchange.topologies import change_links, change_topology, read_topology
from tieline.exchange.transfers import cancel_transfer, order_transfer
from tieline.exchange.view import View
from tieline.ports import Ids

USE_CASES: dict[type, Callable[[View, Any, int, Ids], ask.Decision]] = {
    ask.CreateExchange: create_exchange,
    ask.CreateToken: create_token,
    ask.RevokeToken: revoke_token,
    ask.StoreRecord: store_record,
    ask.ForgetRecords: forget_records,
    ask.Rekey: rekey_owner,
    ask.JoinSite: join_site,
    ask.ChangeSite: change_site,
    ask.OpenSession: open_session,
    ask.TakeReport: take_report,
    ask.TakeBeat: take_beat,
    ask.SubmitJobs: submit_jobs,
    ask.ChangeProject: change_project,
    ask.ReadProjects: read_projects,
    ask.StopJob: stop_job,
    ask.OpenShell: open_shell,
    ask.AskQuote: ask_quote,
    ask.AcceptQuote: accept_quote,
    ask.PlanTasks: plan_tasks,
    ask.WhyJob: why_job,
    ask.ReadSites: read_sites,
    ask.ReadSituation: read_situation,
    ask.RenewSession: renew_session,
    ask.AskPeer: ask_peer,
    ask.TakePeering: take_peering,
    ask.ChangePeer: change_peer,
    ask.BlamePeer: blame_peer,
    ask.ChangeRoot: change_root,
    ask.TakePage: take_page,
    ask.TakeBranch: take_branch,
    ask.ReadBranches: read_branches,
    ask.TakeOffer: take_offer,
    ask.TakeAsk: take_ask,
    ask.TakeStop: take_stop,
    ask.TakeRoll: take_roll,
    ask.ReadLive: read_live,
    ask.ReadReports: read_reports,
    ask.TakePeerReports: take_peer_reports,
    ask.TakeAnswer: take_answer,
    ask.ReadState: read_state,
    ask.ChangeTopology: change_topology,
    ask.ChangeLinks: change_links,
    ask.ReadTopology: read_topology,
    ReadGround: read_ground,
    book.OrderTransfer: order_transfer,
    book.CancelTransfer: cancel_transfer,
    book.LookAtCalendar: look_at_calendar,
    book.BookNight: book_night,
    book.OrderCircuit: order_circuit,
    book.ResizeCircuit: resize_circuit,
    book.CancelCircuit: cancel_circuit,
    book.ReadCalendar: read_calendar,
    book.ChangeTariff: change_tariff,
    book.TakeReceipt: take_receipt,
    ask.TakeReadings: take_readings,
    ReadSaid: read_said,
    TakeSaid: take_said,
    AllowProbes: allow_probes,
    ask.PlanProbes: plan_probes,
    ask.ChangePoints: change_points,
    ask.ReadReadings: read_readings,
    ask.ReadWay: read_way,
    ask.ReadCats: read_cats,
    ask.Tick: tick,
}


def decide(view: View, command: ask.Command, now_ms: int, ids: Ids) -> ask.Decision:
    """The decision on ``command``; raises TielineError to refuse it whole."""
    return USE_CASES[type(command)](view, command, now_ms, ids)
