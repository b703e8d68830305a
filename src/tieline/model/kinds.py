"""Kinds: the table of what an identifier can name. A new kind is a new row; nothing else changes.

Each row says what a record of that kind must look like, which of its fields are identifiers or keys, and who writes it.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tieline.model.record import Delegation
from tieline.model.spec import (
    AgentSpec,
    AnnotationSpec,
    CheckpointSpec,
    DatasetSpec,
    LinkSpec,
    ModelSpec,
    PartySpec,
    PoolSpec,
    SiteSpec,
    Spec,
)


class Writer(StrEnum):
    """Whose key signs a record of this kind. It is always a key of the identifier's own prefix."""

    PARENT = "parent"  # whoever gives a prefix away signs the record that says so
    OWNER = "owner"  # the owner of the thing
    OBSERVER = "observer"  # anyone but the subject's owner


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A field of the spec that holds one identifier or several; empty text means none."""

    field: str
    kind: str = ""  # of what it points to; empty: any
    is_own: bool = False  # must lie under the prefix of the record itself


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    spec: type[Spec]
    writer: Writer
    is_findable: bool
    en: str
    zh: str
    references: tuple[Reference, ...] = ()
    keys: tuple[str, ...] = ()  # fields that hold an Ed25519 public key; empty text means none


SITES = (Reference(field="sites", kind="site"),)

KINDS: dict[str, Kind] = {
    "owner": Kind(spec=Delegation, writer=Writer.PARENT, is_findable=True, en="owner", zh="提供主体"),
    "exchange": Kind(spec=Delegation, writer=Writer.PARENT, is_findable=True, en="exchange", zh="互联互通平台"),
    "user": Kind(spec=PartySpec, writer=Writer.OWNER, is_findable=False, en="user", zh="用户", keys=("public",)),
    "site": Kind(spec=SiteSpec, writer=Writer.OWNER, is_findable=True, en="site", zh="算力节点", keys=("public",)),
    "pool": Kind(
        spec=PoolSpec,
        writer=Writer.OWNER,
        is_findable=True,
        en="pool",
        zh="资源池",
        references=(Reference(field="site", kind="site", is_own=True),),
    ),
    "link": Kind(
        spec=LinkSpec,
        writer=Writer.OWNER,
        is_findable=True,
        en="link",
        zh="链路",
        references=(Reference(field="ends", kind="site"),),
    ),
    "dataset": Kind(
        spec=DatasetSpec, writer=Writer.OWNER, is_findable=True, en="dataset", zh="数据集", references=SITES
    ),
    "model": Kind(spec=ModelSpec, writer=Writer.OWNER, is_findable=True, en="model", zh="模型", references=SITES),
    "agent": Kind(spec=AgentSpec, writer=Writer.OWNER, is_findable=True, en="agent", zh="智能体"),
    "app": Kind(spec=PartySpec, writer=Writer.OWNER, is_findable=True, en="app", zh="应用", keys=("public",)),
    "endpoint": Kind(
        spec=PartySpec, writer=Writer.OWNER, is_findable=True, en="endpoint", zh="服务端点", keys=("public",)
    ),
    "annotation": Kind(
        spec=AnnotationSpec,
        writer=Writer.OBSERVER,
        is_findable=False,
        en="annotation",
        zh="注记",
        references=(Reference(field="subject"),),
    ),
    "checkpoint": Kind(
        spec=CheckpointSpec, writer=Writer.OWNER, is_findable=False, en="checkpoint of records", zh="记录检查点"
    ),
}
