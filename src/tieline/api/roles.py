"""Roles: who may call what, in one table. What a caller may do with one thing is decided where that thing is read.

``ANYONE`` needs no token. Everything else is refused without one (401) and with one of another role (403). A site's
session reaches ``/v1/site/...`` and what the site needs besides: its records, its blobs, its own drain and leave.

A delegated token has its giver's roles and besides needs the scope that ``SCOPE_OF`` names; what has no row there is
not for delegated tokens at all, so that a new operation is closed to them until somebody opens it.
"""

from __future__ import annotations

from tieline.model.party import Role

ANYONE: tuple[Role, ...] = ()
READERS = (Role.ADMIN, Role.AUDITOR)
FOLLOWERS = (Role.ADMIN, Role.AUDITOR, Role.PEER)
PEOPLE = (Role.ADMIN, Role.OWNER, Role.USER, Role.AUDITOR)
PAYERS = (Role.ADMIN, Role.USER)
NETWORKERS = (Role.ADMIN, Role.OPERATOR)

ROLES: dict[str, tuple[Role, ...]] = {
    # who
    "read_exchange": ANYONE,
    "read_me": (*PEOPLE, Role.REGULATOR),
    "read_status": (*PEOPLE, Role.REGULATOR),
    "read_situation": (*PEOPLE, Role.REGULATOR),
    "read_task_schema": ANYONE,
    "read_document": ANYONE,
    "read_health": ANYONE,
    "read_readiness": ANYONE,
    "read_metrics": READERS,
    # records
    "store_record": (Role.ADMIN, Role.OWNER, Role.USER, Role.SITE),
    "list_records": (*PEOPLE, Role.SITE),
    "read_record": (*PEOPLE, Role.SITE),
    "read_chain": (*PEOPLE, Role.SITE),
    "rekey_owner": (Role.ADMIN, Role.OWNER, Role.SITE),
    # find, plan, quotes
    "find": PEOPLE,
    "plan": PEOPLE,
    "ask_quote": PAYERS,
    "read_quote": PEOPLE,
    "accept_quote": PAYERS,
    # jobs
    "submit_jobs": PAYERS,
    "list_jobs": PEOPLE,
    "read_job": PEOPLE,
    "read_job_why": PEOPLE,
    "read_job_history": PEOPLE,
    "stop_job": PAYERS,
    "read_job_log": PEOPLE,
    "stream_job_log": PEOPLE,
    # projects
    "create_project": (Role.ADMIN,),
    "list_projects": PEOPLE,
    "read_project": PEOPLE,
    "set_project": (Role.ADMIN,),
    "change_members": (Role.ADMIN, Role.OWNER, Role.USER),
    "close_project": (Role.ADMIN,),
    "reopen_project": (Role.ADMIN,),
    # money
    "list_usage": PEOPLE,
    "list_bills": PEOPLE,
    "list_usage_keys": PEOPLE,
    # the event log
    "list_events": PEOPLE,
    "stream_events": PEOPLE,
    "verify_events": READERS,
    "read_audit_head": FOLLOWERS,
    "list_audit_heads": FOLLOWERS,
    "read_audit_proof": FOLLOWERS,
    "read_audit_entry": READERS,
    "read_audit_range": READERS,
    # sites
    "list_sites": PEOPLE,
    "read_site": PEOPLE,
    "join_site": ANYONE,
    "accept_site": (Role.ADMIN,),
    "drain_site": (Role.ADMIN, Role.OWNER, Role.SITE),
    "undrain_site": (Role.ADMIN, Role.OWNER, Role.SITE),
    "leave_site": (Role.ADMIN, Role.OWNER, Role.SITE),
    # tokens
    "create_token": (Role.ADMIN, Role.OWNER),
    "list_tokens": (Role.ADMIN, Role.OWNER, Role.AUDITOR),
    "revoke_token": (Role.ADMIN,),
    "delegate_token": PEOPLE,
    # peers
    "read_greeting": ANYONE,
    "request_peering": ANYONE,
    "add_peer": (Role.ADMIN,),
    "list_peers": READERS,
    "accept_peer": (Role.ADMIN,),
    "grant_peer": (Role.ADMIN,),
    "clear_peer": (Role.ADMIN,),
    "remove_peer": (Role.ADMIN,),
    "add_root": (Role.ADMIN,),
    "list_roots": READERS,
    "remove_root": (Role.ADMIN,),
    "read_standing": (Role.PEER,),
    "read_peer_state": (Role.PEER,),
    "take_peer_orders": (Role.PEER,),
    "take_peer_ask": (Role.PEER,),
    "read_peer_reports": (Role.PEER,),
    "take_peer_answers": (Role.PEER,),
    "read_peer_logs": (Role.PEER,),
    "check_peer_blob": (Role.PEER,),
    "store_peer_blob": (Role.PEER,),
    "read_peer_blob": (Role.PEER,),
    "list_logs": FOLLOWERS,
    "read_log_records": FOLLOWERS,
    "read_log_snapshot": FOLLOWERS,
    "read_log_digest": FOLLOWERS,
    "read_log_buckets": FOLLOWERS,
    "fetch_log_records": FOLLOWERS,
    "stream_tail": FOLLOWERS,
    # the network
    "read_topology": (*PEOPLE, Role.OPERATOR),
    "change_topology": NETWORKERS,
    "change_links": NETWORKERS,
    # blobs
    "store_blob": (Role.ADMIN, Role.OWNER, Role.USER, Role.SITE),
    "check_blob": (*PEOPLE, Role.SITE),
    "read_blob": (*PEOPLE, Role.SITE),
    # the site's side
    "open_session": ANYONE,
    "stream_orders": (Role.SITE,),
    "report": (Role.SITE,),
    "beat": (Role.SITE,),
    "store_run_log": (Role.SITE,),
}

ANY_SCOPE = ""
SCOPE_OF: dict[str, str] = {
    "read_me": ANY_SCOPE,
    "read_status": "read:situation",
    "read_situation": "read:situation",
    "read_metrics": "audit",
    "store_record": "write:record",
    "list_records": "read:record",
    "read_record": "read:record",
    "read_chain": "read:record",
    "find": "find",
    "plan": "find",
    "ask_quote": "ask",
    "read_quote": "find",
    "accept_quote": "submit",
    "submit_jobs": "submit",
    "list_jobs": "read:job",
    "read_job": "read:job",
    "read_job_why": "read:job",
    "read_job_history": "read:job",
    "stop_job": "stop",
    "read_job_log": "read:log",
    "stream_job_log": "read:log",
    "list_projects": "read:job",
    "read_project": "read:job",
    "list_usage": "read:bill",
    "list_bills": "read:bill",
    "list_usage_keys": "read:bill",
    "list_events": "read:event",
    "stream_events": "read:event",
    "verify_events": "audit",
    "read_audit_head": "audit",
    "list_audit_heads": "audit",
    "read_audit_proof": "audit",
    "read_audit_entry": "audit",
    "read_audit_range": "audit",
    "list_sites": "read:site",
    "read_site": "read:site",
    "drain_site": "change:site",
    "undrain_site": "change:site",
    "leave_site": "change:site",
    "list_peers": "audit",
    "list_roots": "audit",
    "read_topology": "read:network",
    "change_topology": "change:network",
    "change_links": "change:network",
    "store_blob": "write:blob",
    "check_blob": "read:blob",
    "read_blob": "read:blob",
}
