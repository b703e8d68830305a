# ruff: noqa: E501 - one attribute, one row
"""The attributes that expressions speak of, as two tables: `offer` for queries, `demand` for owners' policies.

One row says an attribute's name, its Chinese name (an alias), its type, the kinds that have it, where its value comes
from, and what it means in both languages. Checking, evaluation, the columns of the index, answers and the reference
pages all come from these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tieline.language.types import SUFFIX, Type
from tieline.model import kinds as model

POOL = ("pool",)
PLACED = ("pool", "site")
BYTES = ("dataset", "model")
ANY: tuple[str, ...] = ()
KINDS = tuple(name for name, kind in model.KINDS.items() if kind.is_findable)


class Attribute(NamedTuple):
    """One row. ``kinds`` empty: every kind has it. ``argument``: what a function is called with; empty: no function."""

    name: str
    zh: str
    type: Type
    kinds: tuple[str, ...]
    source: str
    meaning: str
    meaning_zh: str
    argument: str = ""

    @property
    def field(self) -> str:
        """Its name in an offer's ``attributes``: the unit comes last."""
        return self.name + SUFFIX.get(self.type, "")


T, W, F, N = Type.TEXT, Type.WORDS, Type.FLAG, Type.COUNT
OFFER: tuple[Attribute, ...] = (
    Attribute("id", "标识", T, ANY, "Record.id", "identifier", "统一标识"),
    Attribute("kind", "种类", T, ANY, "Record.kind", "pool, site, dataset, model, agent ...", "资源池、节点、数据集、模型、智能体等"),
    Attribute("owner", "主体", T, ANY, "prefix of Record.id", "prefix of the owner who signed the record", "签署记录的提供主体前缀"),
    Attribute("name", "名称", T, ANY, "last part of Record.id", "last part of the identifier", "标识的最后一段"),
    Attribute("title", "标题", T, ANY, "Spec.title", "title given by the owner", "提供主体给出的标题"),
    Attribute("status", "状态", T, ANY, "Record.status, the site's heartbeat", "active, draining, or silent where the site was not heard", "active（可用）、draining（排空）、silent（失联）"),
    Attribute("tags", "标签", W, ANY, "Spec.tags", "words that the owner attached", "提供主体附加的词"),
    Attribute("updated", "更新", Type.INSTANT, ANY, "when the record was stored", "when the record was last stored", "记录最近一次入库的时间"),
    Attribute("site", "节点", T, PLACED, "PoolSpec.site; a site's own id", "identifier of the site", "所在算力节点的标识"),
    Attribute("tier", "层级", T, PLACED, "SiteSpec.tier of its site", "hub, region or edge", "枢纽 hub、区域 region、边缘 edge"),
    Attribute("region", "地区", T, PLACED, "SiteSpec.region of its site", "region that the site states", "算力节点申报的地区"),
    Attribute("has_door", "直达口", F, PLACED, "SiteSpec.door of its site", "the site opened a door", "算力节点开放了直达口"),
    Attribute("declared_by", "代报", T, PLACED, "SiteSpec.declared_by of its site", "who fronts for machines that install nothing", "代为申报者"),
    Attribute("access", "开放", T, POOL, "PoolSpec.access", "public, partner or private", "公共 public、合作 partner、专用 private"),
    Attribute("class", "类别", T, POOL, "PoolSpec.compute_class", "general, ai or super", "通算 general、智算 ai、超算 super"),
    Attribute("architecture", "架构", T, POOL, "PoolSpec.architecture", "instruction set of the cores", "处理器指令集架构"),
    Attribute("accelerator", "加速卡", T, POOL, "PoolSpec.accelerator", "kind of accelerator, such as a100 or ascend-910b; none where cores are sold", "加速卡型号，如 a100、ascend-910b；仅售核时为 none"),
    Attribute("vendor", "厂商", T, POOL, "PoolSpec.vendor", "maker of the accelerator", "加速卡厂商"),
    Attribute("count", "卡数", N, POOL, "PoolSpec.accelerator_count", "accelerators in all", "加速卡总数"),
    Attribute("free", "空闲", N, POOL, "the site's heartbeat", "accelerators free now", "当前空闲加速卡数"),
    Attribute("gpu", "GPU", N, POOL, "PoolSpec.accelerator_count of that family", "accelerators in all if they are GPUs, else 0", "GPU 类加速卡总数，其他为 0"),
    Attribute("npu", "NPU", N, POOL, "PoolSpec.accelerator_count of that family", "accelerators in all if they are NPUs, else 0", "NPU 类加速卡总数，其他为 0"),
    Attribute("accelerator_memory", "显存", Type.SIZE, POOL, "PoolSpec.accelerator_memory_bytes", "memory of one accelerator", "单卡显存"),
    Attribute("cores", "核数", N, POOL, "PoolSpec.core_count", "processor cores in all", "处理器核总数"),
    Attribute("cores_free", "空闲核数", N, POOL, "the site's heartbeat", "processor cores free now", "当前空闲处理器核数"),
    Attribute("memory", "内存", Type.SIZE, POOL, "PoolSpec.memory_bytes", "memory in all", "内存总量"),
    Attribute("memory_free", "空闲内存", Type.SIZE, POOL, "the site's heartbeat", "memory free now", "当前空闲内存"),
    Attribute("disk", "磁盘", Type.SIZE, POOL, "PoolSpec.disk_bytes", "disk in all", "磁盘总量"),
    Attribute("price", "价格", Type.MONEY, POOL, "PoolSpec.price_micro_cny_per_accelerator_hour", "CNY per accelerator-hour, per core-hour where there is no accelerator", "每卡时价格（元）；无加速卡时为每核时"),
    Attribute("energy", "能源", T, POOL, "PoolSpec.energy", "energy source", "能源类型"),
    Attribute("sandbox", "沙箱", T, POOL, "PoolSpec.sandbox", "bubblewrap, container or none", "隔离方式：bubblewrap、container、none"),
    Attribute("engines", "引擎", W, POOL, "PoolSpec.engines", "engines that run work there", "可用执行引擎"),
    Attribute("networks", "网络模式", W, POOL, "PoolSpec.networks", "none, host: networks that a run may have", "任务可用网络：none、host"),
    Attribute("is_emulated", "仿真", F, POOL, "PoolSpec.is_emulated", "the accelerators are stand-ins", "加速卡为仿真"),
    Attribute("sites", "副本节点", W, BYTES, "DatasetSpec.sites, ModelSpec.sites", "sites that hold a copy", "持有副本的算力节点"),
    Attribute("size", "大小", Type.SIZE, BYTES, "DatasetSpec.size_bytes, ModelSpec.size_bytes", "size of its bytes", "数据大小"),
    Attribute("sha256", "摘要", T, BYTES, "DatasetSpec.sha256, ModelSpec.sha256", "hash of its bytes", "数据摘要"),
    Attribute("licence", "许可", T, BYTES, "DatasetSpec.licence, ModelSpec.licence", "licence", "许可协议"),
    Attribute("residency", "驻留", T, ("dataset",), "DatasetSpec.residency", "how far it may travel: site, owner, exchange, anywhere", "可流动范围：site、owner、exchange、anywhere"),
    Attribute("data_class", "数据分级", T, ("dataset",), "DatasetSpec.data_class", "class of the data", "数据类别级别"),
    Attribute("source", "来源", T, ("dataset",), "DatasetSpec.source", "where the data came from", "数据来源"),
    Attribute("media_type", "格式", T, ("dataset",), "DatasetSpec.media_type", "media type", "媒体类型"),
    Attribute("task", "用途", T, ("model",), "ModelSpec.task", "what the model does", "模型用途"),
    Attribute("framework", "框架", T, ("model",), "ModelSpec.framework", "framework that loads it", "模型框架"),
    Attribute("skills", "技能", W, ("agent",), "AgentSpec.skills", "what the agent can do", "智能体技能"),
    Attribute("protocols", "协议", W, ("agent",), "AgentSpec.protocols", "protocols that it speaks", "智能体协议"),
    Attribute("version", "版本", T, ("agent",), "AgentSpec.version", "version", "版本"),
    Attribute("url", "地址", T, ("agent", "app", "endpoint"), "AgentSpec.url, PartySpec.url", "where it answers", "服务地址"),
    Attribute("ends", "端点", W, ("link",), "LinkSpec.ends", "sites that the link joins", "链路两端"),
    Attribute("link_rate", "链路带宽", Type.RATE, ("link",), "LinkSpec.rate_bps", "rate of the link", "链路速率"),
    Attribute("link_rtt", "链路时延", Type.DURATION, ("link",), "LinkSpec.rtt_us", "round trip over the link", "链路往返时延"),
    Attribute("prefix", "前缀", T, ("owner", "exchange"), "Delegation.prefix", "prefix that was given to it", "获得的前缀"),
    Attribute("may_register", "可登记", W, ("owner", "exchange"), "Delegation.kinds", "kinds that it may register", "可登记的种类"),
    Attribute("rtt", "时延", Type.DURATION, PLACED, "readings", "measured round trip between the point and the site", "测量点与算力节点间的实测往返时延", "point"),
    Attribute("bandwidth", "带宽", Type.RATE, PLACED, "readings", "measured rate between the point and the site", "测量点与算力节点间的实测速率", "point"),
    Attribute("has", "含有", F, ANY, "Spec.tags", "the tag is attached", "附有该标签", "tag"),
    Attribute("label", "标记", T, ANY, "Spec.labels", "value of the owner's label; unknown where it is not set", "提供主体标记的值；未设置为未知", "label"),
    Attribute("evidence", "证据", T, ANY, "Spec.evidence", "what the attribute rests on: measured, declared, emulated, simulated or unknown", "该属性的依据：实测、申报、仿真、推演、未知", "attribute"),
    Attribute("metric", "指标", Type.SHARE, ("model",), "ModelSpec.metrics_millionths", "metric of the model, such as accuracy", "模型指标，如 accuracy", "metric"),
)  # fmt: skip

DEMAND: tuple[Attribute, ...] = (
    Attribute("user", "用户", T, ANY, "who submits", "who asks", "请求的用户"),
    Attribute("user_owner", "用户主体", T, ANY, "prefix of the user", "prefix of the party that the user belongs to", "用户所属主体前缀"),
    Attribute("role", "角色", T, ANY, "role of the user's token", "admin, owner, user, auditor or regulator", "角色：admin、owner、user、auditor、regulator"),
    Attribute("signed", "已签名", F, ANY, "the submission", "the demand carries the user's own signature", "需求带有用户签名"),
    Attribute("name", "名称", T, ANY, "Task.name", "name of the task", "任务名称"),
    Attribute("kind", "类型", T, ANY, "Task.type", "kind of the task", "任务类型"),
    Attribute("accelerator", "加速卡", T, ANY, "Resources.accelerator", "kind of accelerator asked for", "请求的加速卡型号"),
    Attribute("accelerators", "总卡数", N, ANY, "Resources.accelerator_count x Task.nodes", "accelerators in all", "加速卡总数"),
    Attribute("accelerators_per_node", "每节点卡数", N, ANY, "Resources.accelerator_count", "accelerators of one node", "每节点加速卡数"),
    Attribute("cores", "核数", N, ANY, "Resources.core_count x Task.nodes", "processor cores in all", "处理器核总数"),
    Attribute("memory", "内存", Type.SIZE, ANY, "Resources.memory_bytes x Task.nodes", "memory in all", "内存总量"),
    Attribute("disk", "磁盘", Type.SIZE, ANY, "Resources.disk_bytes x Task.nodes", "disk in all", "磁盘总量"),
    Attribute("nodes", "节点数", N, ANY, "Task.nodes", "members of the gang", "任务节点数"),
    Attribute("image", "镜像", T, ANY, "Resources.image", "container image asked for; unknown where none is", "请求的容器镜像；未请求为未知"),
    Attribute("network", "网络模式", T, ANY, "Task.network", "network required: none, host; any where no one is", "要求的网络：none、host；不限为 any"),
    Attribute("is_trusted", "可信", F, ANY, "Task.is_trusted", "asks to run without a sandbox", "请求不经沙箱运行"),
    Attribute("duration", "时长", Type.DURATION, ANY, "Task.max_duration_s", "longest time of one run; unknown where no limit is set", "单次运行最长时间；未设置为未知"),
    Attribute("deadline", "截止", Type.DURATION, ANY, "Task.deadline_s", "from submission; unknown where none is set", "自提交起的截止时间；未设置为未知"),
    Attribute("priority", "优先级", N, ANY, "Task.priority", "higher goes first", "数值大者优先"),
    Attribute("price", "出价", Type.MONEY, ANY, "Resources.max_price_micro_cny, or the price asked in a quote", "most that the asker would pay per unit-hour; unknown where it is not said", "每单位小时最高出价；未说明为未知"),
    Attribute("budget", "预算", Type.MONEY, ANY, "Task.budget_micro_cny", "budget; unknown where none is set", "预算；未设置为未知"),
    Attribute("data_class", "数据分级", W, ANY, "DatasetSpec.data_class of Task.data", "classes of the data that the task reads", "任务读取数据的类别级别"),
    Attribute("residency", "驻留", W, ANY, "DatasetSpec.residency, DataUse.residency", "residencies of the data that the task reads", "任务读取数据的驻留要求"),
    Attribute("has_secrets", "含密钥", F, ANY, "Task.secrets", "the task carries secrets", "任务携带密钥"),
    Attribute("label", "标记", T, ANY, "Task.labels", "value of the task's label; unknown where it is not set", "任务标记的值；未设置为未知", "label"),
)  # fmt: skip

TABLES: Mapping[str, Mapping[str, Attribute]] = {
    "offer": {row.name: row for row in OFFER},
    "demand": {row.name: row for row in DEMAND},
}
ALIASES: Mapping[str, Mapping[str, str]] = {
    "offer": {row.zh: row.name for row in OFFER},
    "demand": {row.zh: row.name for row in DEMAND},
}
