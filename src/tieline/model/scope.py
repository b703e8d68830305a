"""Scope 权限范围: what a delegated token may be narrowed to. A token without a scope has no part of what it covers."""

from __future__ import annotations

from typing import NamedTuple

from tieline.model.party import Role


class Scope(NamedTuple):
    """One right that can be passed on by itself."""

    roles: tuple[Role, ...]  # who has it to give: one of these
    is_of_job: bool  # it can be bound to one job; the others say nothing of a single job
    meaning: str
    meaning_zh: str


_PEOPLE = (Role.ADMIN, Role.OWNER, Role.USER, Role.AUDITOR)
_PAYERS = (Role.ADMIN, Role.USER)
_READERS = (Role.ADMIN, Role.AUDITOR)
_NETWORK = (*_PEOPLE, Role.OPERATOR)
_OPERATORS = (Role.ADMIN, Role.OPERATOR)

SCOPES: dict[str, Scope] = {
    "run": Scope(_PAYERS, True, "have a run carried out at another exchange", "在另一平台上执行一次运行"),
    "read:job": Scope(_PEOPLE, True, "see jobs, why they wait, what happened to them", "查看任务、等待原因与经过"),
    "read:log": Scope(_PEOPLE, True, "read the output of jobs", "读取任务输出"),
    "read:blob": Scope(_PEOPLE, True, "fetch results and inputs", "取回结果与输入"),
    "stop": Scope(_PAYERS, True, "stop jobs", "停止任务"),
    "find": Scope(_PEOPLE, False, "find offers, see plans and quotes", "查找供给，查看方案与报价"),
    "ask": Scope(_PAYERS, False, "ask owners for quotes", "向提供主体询价"),
    "submit": Scope(_PAYERS, False, "submit jobs and accept quotes", "提交任务，接受报价"),
    "write:blob": Scope((Role.ADMIN, Role.OWNER, Role.USER), False, "send inputs", "上传输入"),
    "read:bill": Scope(_PEOPLE, False, "see usage and bills", "查看计量与账单"),
    "read:record": Scope(_PEOPLE, False, "resolve identifiers and their records", "解析标识及其记录"),
    "write:record": Scope((Role.ADMIN, Role.OWNER, Role.USER), False, "store signed records", "存入签名记录"),
    "read:site": Scope(_PEOPLE, False, "see sites", "查看算力节点"),
    "change:site": Scope((Role.ADMIN, Role.OWNER), False, "drain, resume, withdraw sites", "排空、恢复和撤出算力节点"),
    "read:network": Scope(
        (*_PEOPLE, Role.OPERATOR), False, "see the network and what is booked of it", "查看网络与预留"
    ),
    "read:transfer": Scope((*_PEOPLE, Role.OPERATOR), True, "see transfers and receipts", "查看数据传输与凭据"),
    "write:receipt": Scope((*_PAYERS, Role.OPERATOR), True, "say what was carried", "提交传输凭据"),
    "book": Scope(
        (*_PAYERS, Role.OPERATOR),
        False,
        "order, change and cancel transfers and circuits",
        "预订、变更和取消传输与专线",
    ),
    "change:network": Scope(_OPERATORS, False, "change the topology, cut links", "变更拓扑，断开链路"),
    "read:event": Scope(_PEOPLE, False, "read the event log", "读取事件日志"),
    "read:situation": Scope((*_NETWORK, Role.REGULATOR), False, "see the situation in sums", "查看总体态势"),
    "audit": Scope(_READERS, False, "verify the event log and read metrics", "核验事件日志，读取指标"),
}
