"""The rules that a signed record must keep: one stable code each, with its sentence in English and Chinese.

The checks live in `registry/`; the reason catalogue takes these sentences up, so that every channel can say them.
Times in values are RFC 3339 text, sizes end in ``_bytes``.
"""

from __future__ import annotations

RULES: dict[str, tuple[str, str]] = {
    # the JSON of envelope, header and payload ({part})
    "envelope_size": (
        "envelope of {size_bytes} is over the limit of {limit_bytes}",
        "信封 {size_bytes} 超过上限 {limit_bytes}",
    ),
    "json_bom": ("the {part} begins with a byte order mark", "{part} 以字节序标记开头"),
    "json_utf8": ("the {part} is not UTF-8 at byte {at}", "{part} 第 {at} 字节不是 UTF-8"),
    "json_syntax": ("the {part} is not JSON: {why}", "{part} 不是 JSON：{why}"),
    "json_trailing": ("something follows the {part} at byte {at}", "{part} 在第 {at} 字节之后还有内容"),
    "json_duplicate": ("`{name}` is given twice in the {part}", "{part} 中 `{name}` 重复"),
    "json_float": ("the {part} holds `{number}`: only integers are exact", "{part} 含 `{number}`：只允许整数"),
    "json_integer": ("the {part} holds an integer beyond 2^53 - 1", "{part} 含超过 2^53 - 1 的整数"),
    "json_null": ("the {part} holds null: leave the field out", "{part} 含 null：请省略该字段"),
    "json_nul": ("the {part} holds the character U+0000", "{part} 含字符 U+0000"),
    "json_name": (
        "the {part} holds the field name `{name}`: names are ASCII",
        "{part} 含字段名 `{name}`：字段名须为 ASCII",
    ),
    "json_depth": ("the {part} is nested deeper than {limit}", "{part} 嵌套超过 {limit} 层"),
    "json_form": ("the {part} is not sorted compact JSON (RFC 8785)", "{part} 不是排序紧凑 JSON（RFC 8785）"),
    # the envelope and its header
    "envelope_member": (
        "the envelope is not an object of exactly payload, protected and signature: {why}",
        "信封不是恰含 payload、protected、signature 的对象：{why}",
    ),
    "base64_form": (
        "the {part} is not base64url without padding in its one form",
        "{part} 不是唯一形式的无填充 base64url",
    ),
    "header_algorithm": ("algorithm `{asked}` is not Ed25519", "算法 `{asked}` 不是 Ed25519"),
    "header_key_source": (
        "header field `{field}` names a key: the verifier chooses the keys",
        "首部字段 `{field}` 自带密钥：密钥由验证方选定",
    ),
    "header_critical": (
        "header field `crit` asks for extensions that are not known here",
        "首部字段 `crit` 要求未知扩展",
    ),
    "header_field": ("header field `{field}` is unknown or missing", "首部字段 `{field}` 未知或缺失"),
    "header_type": ("type `{seen}` is not `{asked}`", "类型 `{seen}` 不是 `{asked}`"),
    "header_kid": ("key name `{kid}` is not `<prefix>#<name>`", "密钥名 `{kid}` 不是 `<前缀>#<名称>`"),
    # the record as one of a log that a peer serves
    "log_foreign": ("it does not belong to the log of `{prefix}`", "不属于前缀 `{prefix}` 的日志"),
    "checkpoint_other": ("it is not the checkpoint of `{prefix}`", "不是前缀 `{prefix}` 的检查点"),
    # the record by itself
    "record_form": ("the record has another shape: {why}", "记录结构不符：{why}"),
    "identifier_form": ("{why}", "统一标识不合语法：{why}"),
    "kind_mismatch": ("kind `{kind}` is not the kind in `{id}`", "类型 `{kind}` 与 `{id}` 中的类型不同"),
    "kind_unknown": ("kind `{kind}` is not in the table of kinds", "类型 `{kind}` 不在类型表中"),
    "rev_form": ("revision {rev} {why}", "修订 {rev}：{why}"),
    "lease_empty": ("the lease ends at {exp}, not after it begins at {nb}", "租约止于 {exp}，不晚于起始 {nb}"),
    "lease_length": ("the lease is {days} days long, at most {limit} are allowed", "租约长 {days} 天，最多 {limit} 天"),
    "lease_ahead": ("not valid before {nb}, and it is {now}", "{nb} 之前无效，当前 {now}"),
    "lease_ended": ("the lease ended at {exp}, and it is {now}", "租约已于 {exp} 结束，当前 {now}"),
    # the record after what is held already
    "withdrawn": ("`{id}` was withdrawn at revision {rev} and stays so", "`{id}` 已在修订 {rev} 注销，不可恢复"),
    "rev_behind": ("revision {rev} is not newer than {held}, which is held", "修订 {rev} 不比已有的 {held} 新"),
    "rev_skips": (
        "revision {rev} skips: {held} is held, {needed} is next",
        "修订 {rev} 跳号：已有 {held}，下一个应为 {needed}",
    ),
    "prev_wrong": (
        "`prev` is not the sha256 of revision {held}, which is {sha256}",
        "`prev` 不是修订 {held} 的 sha256 {sha256}",
    ),
    # the chain of trust
    "kid_prefix": ("key `{kid}` is not a key of prefix `{prefix}`", "密钥 `{kid}` 不属于前缀 `{prefix}`"),
    "root_unknown": (
        "prefix `{prefix}` is under no root that is pinned here",
        "前缀 `{prefix}` 不在本处信任的任何根之下",
    ),
    "chain_depth": (
        "prefix `{prefix}` is {steps} delegations below its root, at most {limit} are allowed",
        "前缀 `{prefix}` 距根 {steps} 次委托，最多 {limit} 次",
    ),
    "chain_incomplete": (
        "the delegation of prefix `{prefix}` is not among what was given",
        "所给材料中没有前缀 `{prefix}` 的委托",
    ),
    "parking_full": (
        "the delegation of `{prefix}` is unknown, and too much waits for delegations already",
        "`{prefix}` 的委托未知，且等待队列已满",
    ),
    "key_unknown": (
        "key `{kid}` is not one that prefix `{prefix}` was given",
        "密钥 `{kid}` 不是前缀 `{prefix}` 获得的密钥",
    ),
    "key_ahead": ("key `{kid}` is not valid before {nb}, and it is {now}", "密钥 `{kid}` 在 {nb} 之前无效，当前 {now}"),
    "key_expired": ("key `{kid}` expired at {exp}, and it is {now}", "密钥 `{kid}` 已于 {exp} 过期，当前 {now}"),
    "key_revoked": ("key `{kid}` is revoked from {revoked_from}", "密钥 `{kid}` 自 {revoked_from} 起吊销"),
    "key_weak": ("{field} is not a sound Ed25519 public key", "{field} 不是可靠的 Ed25519 公钥"),
    "kind_not_given": ("prefix `{prefix}` was not given kind `{kind}`", "前缀 `{prefix}` 未获授权登记类型 `{kind}`"),
    "quota_full": (
        "prefix `{prefix}` holds {count} identifiers and was given {limit}",
        "前缀 `{prefix}` 已有 {count} 个标识，配额 {limit}",
    ),
    "signature_malleable": (
        "the signature's scalar is not reduced (RFC 8032, 5.1.7)",
        "签名标量未约减（RFC 8032 5.1.7）",
    ),
    "signature_wrong": ("the signature does not verify under key `{kid}`", "签名未通过密钥 `{kid}` 的验证"),
    # what the record says
    "spec_form": ("the spec is not that of kind `{kind}`: {why}", "内容不符合类型 `{kind}`：{why}"),
    "reference_form": ("`{field}` names `{id}`: {why}", "`{field}` 指向 `{id}`：{why}"),
    "reference_foreign": ("`{field}` names `{id}`, which another owner writes", "`{field}` 指向他人的 `{id}`"),
    "annotation_of_itself": (
        "an annotation of `{subject}` under `{prefix}` would be its owner's own word",
        "`{prefix}` 对 `{subject}` 的注记等于自评",
    ),
    # delegation
    "delegation_withdrawn": ("the delegation of prefix `{prefix}` was withdrawn", "前缀 `{prefix}` 的委托已撤销"),
    "delegation_expired": (
        "the delegation of prefix `{prefix}` ended at {exp}, and it is {now}",
        "前缀 `{prefix}` 的委托已于 {exp} 结束，当前 {now}",
    ),
    "delegation_self": ("prefix `{prefix}` cannot be delegated to itself", "前缀 `{prefix}` 不能委托给自己"),
    "delegation_above": (
        "prefix `{given}` is above `{prefix}`, which cannot give it away",
        "前缀 `{given}` 在 `{prefix}` 之上，不能由其委托",
    ),
    "delegation_outside": ("prefix `{given}` is not below `{prefix}`", "前缀 `{given}` 不在 `{prefix}` 之下"),
    "delegation_name": (
        "`{id}` can delegate `{needed}` only, not `{given}`",
        "`{id}` 只能委托 `{needed}`，不能委托 `{given}`",
    ),
    "delegation_taken": ("prefix `{given}` is held by `{holder}`", "前缀 `{given}` 已由 `{holder}` 持有"),
    "delegation_kinds": (
        "prefix `{prefix}` gives away kind `{kind}`, which it was not given",
        "前缀 `{prefix}` 授出了自己没有的类型 `{kind}`",
    ),
    "delegation_quota": (
        "prefix `{prefix}` gives away {asked} records and was given {limit}",
        "前缀 `{prefix}` 授出配额 {asked}，自身只有 {limit}",
    ),
    "delegation_kid": (
        "key name `{kid}` is not `{given}#<name>`, each once",
        "密钥名 `{kid}` 不是 `{given}#<名称>`，或重复出现",
    ),
    "delegation_rekeyed": (
        "key name `{kid}` belongs to another key already: give the new key a new name",
        "密钥名 `{kid}` 已属于另一密钥：请为新密钥另取名称",
    ),
    "delegation_window": (
        "key `{kid}` expires at {exp}, not after it begins at {nb}",
        "密钥 `{kid}` 过期于 {exp}，不晚于起始 {nb}",
    ),
    # the store
    "store_altered": (
        "the store gives other bytes for `{id}` than were verified",
        "存储返回的 `{id}` 与验证时的字节不同",
    ),
}
