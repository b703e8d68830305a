"""Reason 原因: why something was refused or chosen, counted, with numbers and units.

A reason is data. Its sentence is made from the catalogue below, at the edge, in the reader's language; the command
line, the API, the console and the tests all read the one structure, and there is no second explanation code.
Values carry their unit as the suffix of their name (``limit_micro_cny``) and are formatted by it.
"""

from __future__ import annotations

import msgspec

from tieline.model.quantity import show_duration, show_money, show_size
from tieline.model.rule import RULES

Value = int | str
REFUSED = "refused_by_owner"


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One counted cause: how many candidates it concerns, and the numbers that would change it."""

    code: str
    count: int = 1
    values: dict[str, Value] = {}


class Relaxation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The nearest change of the ask that would help: which term, from what to what, and how many it would admit."""

    term: str
    asked: str
    needed: str
    admits: int = 0


CATALOGUE: dict[str, tuple[str, str]] = {
    # the code, and its sentence in English and in Chinese
    "query_not_met": ("`{term}` does not hold (nearest: {nearest})", "不满足 `{term}`（最接近：{nearest}）"),
    "query_unknown": ("`{term}` is unknown: no reading", "`{term}` 未知：没有测量值"),
    "reading_not_own": ("says that {source} measured, and {site} signed it", "声称由 {source} 测得，而签名者为 {site}"),
    "reading_of_itself": ("{site} measured the way to itself", "{site} 测量的是到自身的路径"),
    "reading_target": ("{target} is no site and no reference point that is known here", "{target} 不是此处已知的算力节点或测量点"),
    "reading_backwards": ("ended before it began ({begun_ms} ms, {ended_ms} ms)", "结束早于开始（{begun_ms} ms、{ended_ms} ms）"),
    "reading_ahead": ("ended {ahead_us} ahead of this exchange's clock", "结束时间超前本平台时钟 {ahead_us}"),
    "reading_old": ("ended {age_us} ago; at most {most_us} is taken", "结束于 {age_us} 之前；最多接受 {most_us}"),
    "reading_count": ("{count} answers to {sent} probes", "{sent} 个探测得到 {count} 个应答"),
    "reading_order": ("least {min_us}, median {p50_us} and 99th percentile {p99_us} are out of order", "最小值 {min_us}、中位数 {p50_us} 与 99 分位 {p99_us} 次序不符"),
    "reading_empty": ("a least round trip of {min_us} from {count} answers", "{count} 个应答的最小往返为 {min_us}"),
    "reading_longer": ("a round trip of {p99_us} in a measurement that took {took_us}", "测量历时 {took_us}，却有 {p99_us} 的往返"),
    "reading_one_way": ("one way takes {one_way_us}, more than there and back: {p99_us}", "单向 {one_way_us}，超过往返 {p99_us}"),
    "reading_mtu": ("a path MTU of {path_mtu_bytes} carries no IP packet", "路径 MTU {path_mtu_bytes} 无法承载 IP 报文"),
    "reading_rate_short": ("{rate_bps} bit/s from {moved_bytes}: less than 0.1 ms of it", "由 {moved_bytes} 得出 {rate_bps} bit/s：不足 0.1 毫秒"),
    "reading_rate_over": ("{rate_bps} bit/s, and all links of {site} carry {most_bps} bit/s", "{rate_bps} bit/s，而 {site} 全部链路仅 {most_bps} bit/s"),
    "reading_light": ("{claimed_us} for {apart_km} km; light in vacuum takes {least_us}", "{apart_km} km 仅 {claimed_us}；真空中的光需要 {least_us}"),
    "query_no_kind": ("no kind of offer has all of these attributes: {attributes}", "没有一种供给同时具有这些属性：{attributes}"),
    "words_not_met": ("none of the words `{words}` is found", "不含“{words}”中的任何词"),
    "policy_not_met": ("the owner's policy does not admit this demand: `{term}`", "提供主体的策略不接受该需求：`{term}`"),
    "policy_unknown": ("the owner's policy cannot be decided: `{term}` is unknown", "提供主体的策略无法判定：`{term}` 未知"),
    "accelerator_kind": ("accelerator is not {asked}", "加速卡不是 {asked}"),
    "accelerator_memory": ("accelerator memory below {asked_bytes} (most {most_bytes})", "加速卡显存低于 {asked_bytes}（最多 {most_bytes}）"),
    "accelerator_memory_over": ("accelerator memory above {asked_bytes} (least {least_bytes})", "加速卡显存高于 {asked_bytes}（最少 {least_bytes}）"),
    "architecture": ("architecture is not {asked}", "处理器架构不是 {asked}"),
    "cores_not_sold": ("sells accelerators, and only cores were asked", "出售加速卡，而任务只需要处理器核"),
    "accelerators_total": ("fewer than {asked} accelerators in all (most {most})", "加速卡总数少于 {asked}（最多 {most}）"),
    "accelerators_free": ("fewer than {asked} accelerators free now (most {most})", "当前空闲加速卡少于 {asked}（最多 {most}）"),
    "cores_total": ("fewer than {asked} cores in all (most {most})", "核数总量少于 {asked}（最多 {most}）"),
    "cores_free": ("fewer than {asked} cores free now (most {most})", "当前空闲核数少于 {asked}（最多 {most}）"),
    "memory_total": ("less than {asked_bytes} memory in all (most {most_bytes})", "内存总量少于 {asked_bytes}（最多 {most_bytes}）"),
    "memory_free": ("less than {asked_bytes} memory free now (most {most_bytes})", "当前空闲内存少于 {asked_bytes}（最多 {most_bytes}）"),
    "disk_total": ("less than {asked_bytes} disk (most {most_bytes})", "磁盘少于 {asked_bytes}（最多 {most_bytes}）"),
    "price_above": ("price above {limit_micro_cny} CNY per unit-hour (lowest {lowest_micro_cny})", "单价高于每单位小时 {limit_micro_cny} 元（最低 {lowest_micro_cny}）"),
    "budget_below": ("budget {budget_micro_cny} CNY does not cover a second and the time to stop, {least_us} (needs {lowest_micro_cny})", "预算 {budget_micro_cny} 元不足以运行一秒并停止，共 {least_us}（至少 {lowest_micro_cny}）"),
    "deadline_missed": ("would end after the deadline (earliest {earliest_us} too late)", "将晚于截止时间（至少晚 {earliest_us}）"),
    "owner_not_asked": ("owner is not among {asked}", "提供主体不在 {asked} 之中"),
    "residency": ("data {data} may not leave its {scope}", "数据 {data} 不得离开其{scope}"),
    "data_unknown": ("data {data} has no record here", "数据 {data} 在此没有记录"),
    "gang_nodes": ("room for {most} of {asked} nodes over all sites that fit", "所有符合条件的节点合计仅可容纳 {asked} 个计算节点中的 {most} 个"),
    "gang_sites": ("room for {most} of {asked} nodes over the {sites} sites that have most", "容量最大的 {sites} 个节点合计仅可容纳 {asked} 个计算节点中的 {most} 个"),
    "gang_apart": ("room for {most} of {asked} nodes over sites that have {rate_bps} bit/s and a round trip of {rtt_us} between every two (0: any)", "两两之间速率达到 {rate_bps} bit/s 且往返不超过 {rtt_us}（0 表示不限）的节点合计仅可容纳 {asked} 个计算节点中的 {most} 个"),
    "gang_joint": ("no sites with room for {asked} nodes were found that have {rate_bps} bit/s between every two at once", "未找到两两之间能同时达到 {rate_bps} bit/s 且可容纳 {asked} 个计算节点的节点组合"),
    "data_rate_unknown": ("no known rate to bring {data} here", "将 {data} 传到此处的速率未知"),
    "image_not_offered": ("no container engine for `image: {asked}`", "没有容器引擎可运行 `image: {asked}`"),
    "image_required": ("runs only tasks that name an `image`", "仅运行指定了 `image` 的任务"),
    "sandbox_missing": ("no sandbox, and the work is not trusted there", "没有沙箱，且任务在该处不受信任"),
    "network_not_offered": ("network `{asked}` is not offered", "不提供网络模式 `{asked}`"),
    "site_draining": ("site is draining", "算力节点正在排空"),
    "pool_draining": ("pool is draining", "资源池正在排空"),
    "site_silent": ("site is silent: no heartbeat within its lease", "算力节点失联：租约内没有心跳"),
    "site_not_admitted": ("site is not admitted here, and no exchange leads to it now", "算力节点未在此准入，目前也没有平台通向它"),
    "access_private": ("pool is private to its owner", "资源池仅供其主体使用"),
    "access_partner": ("pool is open to its owner's partners only", "资源池仅对合作方开放"),
    "pool_not_asked": ("is not {asked}, the only pool that was asked", "不是唯一请求的资源池 {asked}"),
    "no_pools": ("no pool is offered here", "此处没有任何资源池"),
    "record_expired": ("record expired", "记录已过期"),
    "refused_by_owner": ("owner's site refused: {why}", "提供主体的节点拒绝：{why}"),
    "recently_failed": ("a run of this job failed or was lost here", "该任务曾在此失败或失联"),
    "kind_not_offered": ("nothing here can run `type: {asked}`", "此处无法运行 `type: {asked}`"),
    "infra_not_here": ("`infra: {asked}` names a cloud that is no site of this exchange", "`infra: {asked}` 指向的云不是本平台的节点"),
    "site_not_asked": ("is not at `infra: {asked}`", "不在 `infra: {asked}`"),
    "held_back": ("held back for {job}, which has waited longer", "为等待更久的 {job} 保留"),
    "waiting_for_dependency": ("waits for {job}, which is {state}", "等待 {job}（{state}）"),
    "waiting_for_retry": ("waits {wait_us} before its next attempt", "{wait_us} 后重试"),
    "waiting_for_pass": ("will be considered at the next placing pass", "等待下一轮调度"),
    "waiting_for_answer": ("waits for the answer of {site}", "等待 {site} 的答复"),
    "waiting_for_room": ("waits until {runs} runs on {pool} have given way", "等待 {pool} 上的 {runs} 个运行让出资源"),
    "quota_cards": ("project {project} holds {used} of its {bound} cards and may not borrow; {asked} more were asked", "项目 {project} 已占用 {used} 张加速卡，上限 {bound}，且不可借用；另请求 {asked} 张"),
    "quota_cores": ("project {project} holds {used} of its {bound} cores; {asked} more were asked", "项目 {project} 已占用 {used} 个核，上限 {bound}；另请求 {asked} 个"),
    "quota_card_hours": ("project {project} used or pledged {used} of its {bound} card-hours of this month", "项目 {project} 本月已用或已预留 {used} 卡时，上限 {bound}"),
    "quota_money": ("project {project} spent or pledged {used_micro_cny} of its {bound_micro_cny} CNY of this month", "项目 {project} 本月已用或已预留 {used_micro_cny} 元，上限 {bound_micro_cny} 元"),
    "project_not_member": ("`{who}` is in no project `{project}` here", "`{who}` 不属于此处的项目 `{project}`"),
    "project_several": ("`{who}` is in {count} projects: {projects}", "`{who}` 属于 {count} 个项目：{projects}"),
    "project_needed": ("every job here counts for a project, and `{who}` is in none", "此处的任务均须归属项目，而 `{who}` 不属于任何项目"),
    "project_closed": ("project {project} is closed and takes no new jobs", "项目 {project} 已关闭，不再接受新任务"),
    "priority_over": ("priority {asked} is over {bound}, the highest that {whose} may ask for", "优先级 {asked} 超过 {whose} 可请求的上限 {bound}"),
    "preempted_for_share": ("gave way to {job}, which is within the share of project {project}", "为项目 {project} 份额内的 {job} 让出资源"),
    "preempted_for_priority": ("gave way to {job}, whose priority is {priority}; its own is {own}", "为优先级 {priority} 的 {job} 让出资源；自身优先级为 {own}"),
    "chosen_cheapest": ("{pool} had the lowest total cost, {cost_micro_cny} CNY an hour", "{pool} 总成本最低，每小时 {cost_micro_cny} 元"),
    "chosen_only": ("{pool} was the only one that fitted", "只有 {pool} 符合要求"),
    "gang_waits": ("{accepted} of the {members} members of its gang are accepted; waits for the answer of {site}", "组网的 {members} 个成员中已有 {accepted} 个获接受；等待 {site} 的答复"),
    "gang_staging": ("all {members} members of its gang are accepted, {started} run; being prepared on {pool}", "组网的 {members} 个成员均已接受，{started} 个已运行；正在 {pool} 准备"),
    "gang_running": ("its gang runs on {members} pools at {sites} sites: {pool}", "组网运行于 {sites} 个节点的 {members} 个资源池：{pool}"),
    "gang_ending": ("its gang cannot go on without {site}: {why}; {left} of its {members} runs are being ended", "缺少 {site}，组网无法继续：{why}；{members} 个运行中还有 {left} 个正在结束"),
    "gang_broken": ("its gang could not go on without {site}: {why}", "缺少 {site}，组网无法继续：{why}"),
    "staging_at": ("being prepared on {pool}", "正在 {pool} 准备"),
    "running": ("running on {pool}", "正在 {pool} 运行"),
    "exit_code": ("exit code {exit_code} on {pool}", "在 {pool} 上退出码 {exit_code}"),
    "signal": ("ended by signal {signal} on {pool}", "在 {pool} 上被信号 {signal} 终止"),
    "lost": ("{site} was lost; run {run} is fenced", "{site} 失联；运行 {run} 已隔离"),
    "offer_expired": ("{site} did not answer the offer of {run} in time", "{site} 未及时答复 {run} 的预留请求"),
    "limit_reached": ("stopped at its {limit} limit of {value}", "达到{limit}上限 {value}，已停止"),
    "attempts_exhausted": ("{attempts} attempts were made, {allowed} are allowed", "已尝试 {attempts} 次，允许 {allowed} 次"),
    "cancelled_by": ("cancelled by {who}", "由 {who} 取消"),
    "dependency_failed": ("{job} ended {state}", "{job} 以 {state} 结束"),
    "pool_not_here": ("`{pool}` is not offered by this site", "该算力节点不提供 `{pool}`"),
    "epoch_stale": ("run {newest} of the same job is here and newer", "该任务较新的运行 {newest} 已在此处"),
    "offer_wrong": ("the offer cannot be run as it stands: {why}", "该调度要约无法执行：{why}"),
    "reclaimed": ("the owner took the capacity back: {why}", "提供主体收回资源：{why}"),
    "outputs_not_kept": ("the results could not be handed over: {why}", "结果未能交付：{why}"),
    "setup_failed": ("setup failed with exit code {exit_code} on {pool}", "在 {pool} 上 setup 失败，退出码 {exit_code}"),
    "start_failed": ("could not be started on {pool}: {why}", "无法在 {pool} 启动：{why}"),
    "token_form": ("this is no delegated token of a form that is known here", "转授令牌的格式无法识别"),
    "token_by": ("the delegated token was signed by `{by}`, not by `{asked}`", "转授令牌由 `{by}` 签发，而非 `{asked}`"),
    "token_to": ("the delegated token is for `{to}`, not for `{asked}`", "转授令牌适用于 `{to}`，而非 `{asked}`"),
    "token_early": ("the delegated token is not valid before {begins}", "转授令牌在 {begins} 之前无效"),
    "token_expired": ("delegated token `{token}` ended at {ended}", "转授令牌 `{token}` 已于 {ended} 失效"),
    "token_long": ("the delegated token would live longer than {most_us}", "转授令牌的有效期超过 {most_us}"),
    "token_bound": ("the delegated token is bound to {what} `{bound}`, not to `{asked}`", "转授令牌仅限{what} `{bound}`，不适用于 `{asked}`"),
    "token_again": ("a delegated token cannot be passed on", "转授令牌不可再次转授"),
    "token_parent": ("token `{parent}`, which it comes from, was revoked or expired", "其来源令牌 `{parent}` 已吊销或过期"),
    "token_job_ended": ("the job of the delegated token, `{job}`, has ended", "转授令牌对应的任务 `{job}` 已结束"),
    "token_run_ended": ("the run that the token was given to, `{run}`, has ended", "令牌所属的运行 `{run}` 已结束"),
    "scope_missing": ("this needs the scope `{scope}`; the delegated token has {held}", "需要权限范围 `{scope}`；转授令牌仅有 {held}"),
    "scope_not_held": ("`{who}` has no right to `{scope}` that could be passed on", "`{who}` 没有可转授的 `{scope}` 权限"),
    "scope_never": ("`{operation}` is not for delegated tokens", "`{operation}` 不接受转授令牌"),
    "oidc_form": ("this is no signed token of an identity provider", "这不是身份提供方的签名令牌"),
    "oidc_algorithm": ("the provider's token is signed by `{asked}`; taken are {known}", "令牌的签名算法为 `{asked}`；仅接受 {known}"),
    "oidc_type": ("a token of type `{seen}` is not for calls", "类型为 `{seen}` 的令牌不能用于调用"),
    "oidc_bound": ("the token is bound to a key that its bearer has to prove, which is not done here", "该令牌绑定持有者须证明的密钥，此处不作此证明"),
    "oidc_long": ("the provider's token lives for {life_us}, at most {most_us} are taken", "身份提供方的令牌有效期为 {life_us}，最多接受 {most_us}"),
    "oidc_issuer": ("`{seen}` is no identity provider that is believed here", "`{seen}` 不是此处信任的身份提供方"),
    "oidc_key": ("`{issuer}` publishes no key `{kid}` that fits the token", "`{issuer}` 未公布适用于该令牌的密钥 `{kid}`"),
    "oidc_unreachable": ("the keys of `{issuer}` cannot be had: {why}", "无法取得 `{issuer}` 的密钥：{why}"),
    "oidc_signature": ("the signature is not by the provider's key `{kid}`", "签名并非出自身份提供方的密钥 `{kid}`"),
    "oidc_audience": ("the token is for `{seen}`, not for this exchange", "该令牌面向 `{seen}`，而非本平台"),
    "oidc_party": ("the token was asked for by `{seen}`, which is no client of this exchange", "该令牌由 `{seen}` 申请，并非本平台的客户端"),
    "oidc_expired": ("the token of the identity provider ended at {ended}", "身份提供方的令牌已于 {ended} 失效"),
    "oidc_early": ("the token of the identity provider is not valid before {begins}", "身份提供方的令牌在 {begins} 之前无效"),
    "oidc_claim": ("the token has no usable `{claim}`", "令牌中没有可用的 `{claim}`"),
    "name_of_peer": ("`{who}` reads as a user of the exchange of `{prefix}`", "`{who}` 与 `{prefix}` 平台的用户同名"),
    "oidc_no_role": ("`{who}` is in no group that has a role here", "`{who}` 所在的组在此没有任何角色"),
    "not_applied": ("`{field}` means nothing here and is not applied: {why}", "`{field}` 在此无意义，未应用：{why}"),
    "peer_unknown": ("`{exchange}` is no peer of this exchange", "`{exchange}` 不是本平台的对等平台"),
    "peer_not_active": ("`{exchange}` is known here and not active: {state}", "`{exchange}` 在此已知但未激活：{state}"),
    "peer_signature": ("the signature does not hold: {why}", "签名不成立：{why}"),
    "peer_clock": ("it was signed {off_s} s ago by the clock here; {limit_s} s are allowed", "按本平台时钟，签名于 {off_s} 秒前；允许偏差 {limit_s} 秒"),
    "peer_replayed": ("it was sent before, or signed before this exchange began to remember", "该请求已发送过，或签名早于本平台开始记录"),
    "peer_misdirected": ("it is addressed to `{to}`, and this is `{here}`", "请求发往 `{to}`，而此处是 `{here}`"),
    "peer_body": ("the body is not the one that was signed", "请求体与签名内容不符"),
    "peer_unreachable": ("it does not answer: {why}", "无应答：{why}"),
    "peer_too_large": ("its answer is too large: {why}", "应答过大：{why}"),
    "peer_garbled": ("its answer is not what this version understands: {why}", "应答无法理解：{why}"),
    "peer_refused": ("it refuses: {why}", "对方拒绝：{why}"),
    "peer_address": ("{address} is a {why} address", "{address} 属于 {why} 地址"),
    "peer_stalled": ("it does not answer, and does not hang up either", "对方既不答复也不断开"),
    "peer_error": ("it answered `{error}`: {why}", "对方答复 `{error}`：{why}"),
    "peer_rolled_back": ("{what} went back to {seen}; {known} was seen before", "{what} 倒退至 {seen}，此前为 {known}"),
    "log_rolled_back": ("its log of events has {seen} entries; {known} were signed before", "其事件日志有 {seen} 条，此前已签名 {known} 条"),
    "log_forked": ("its log of {seen} entries does not go on from the {known} that it had signed", "其 {seen} 条的事件日志不是此前签名的 {known} 条的延续"),
    "log_shown_otherwise": ("it signed two histories: `{by}` was shown a log of {known} entries that the {seen} shown here do not go on from", "其签名了两套历史：向 `{by}` 展示的 {known} 条日志与此处所见 {seen} 条不一致"),
    "log_gap": ("entry {entry} is missing: {seen} follows {last}", "缺少第 {entry} 条：{last} 之后为 {seen}"),
    "log_unreadable": ("entry {entry} cannot be read as it was written", "第 {entry} 条无法按写入时的形式读取"),
    "log_changed": ("entry {entry} does not hash to what the chain states: it, or what came before it, was changed", "第 {entry} 条的哈希与链不符：该条或其之前的内容被改动"),
    "log_unknown": ("entry {entry} is not an event that this version knows", "第 {entry} 条不是此版本已知的事件"),
    "log_misfiled": ("entry {entry} is filed under another kind, subject, job or site than its body states", "第 {entry} 条的类别、对象、任务或节点与正文不符"),
    "log_witnessed": ("entry {entry} has another hash than was witnessed", "第 {entry} 条的哈希与此前所见不同"),
    "log_end_missing": ("the log ends at entry {entry}, but entry {known} was witnessed: the end is missing", "日志止于第 {entry} 条，但第 {known} 条曾被见证：末尾缺失"),
    "export_form": ("{what}", "{what}"),
    "export_cut": ("the file ends after entry {last}: entries {entry} to {end} are missing", "文件止于第 {last} 条：缺少第 {entry} 至 {end} 条"),
    "export_cut_line": ("the file is cut at entry {entry}", "文件在第 {entry} 条处被截断"),
    "export_more": ("something stands after its end, or another number of entries is stated", "结尾之后另有内容，或条目数不符"),
    "export_signature": ("a head of the log is not genuine: {why}", "日志头不真实：{why}"),
    "export_foreign": ("the file is of the log of `{seen}`, not of `{asked}`", "该文件属于 `{seen}` 的日志，而非 `{asked}`"),
    "export_head_foreign": ("a head in the file is of the log of `{seen}`, not of `{asked}`: not genuine", "文件中的日志头属于 `{seen}` 的日志，而非 `{asked}`"),
    "export_order": ("the heads are out of order: {seen} follows {last}", "日志头次序有误：{last} 之后为 {seen}"),
    "export_size": ("the last head is over {seen} entries, the file states {known}", "末个日志头对应 {seen} 条，文件声明 {known} 条"),
    "export_root": ("the entries up to {entry} are not those whose root was signed", "截至第 {entry} 条的内容与签名的根不符"),
    "export_unproved": ("nothing in the file shows that it goes on from the head over {known} entries: export it with `--pin`", "文件无法证明其延续 {known} 条的日志头：请用 `--pin` 导出"),
    "peer_renumbers": ("it began its logs anew {times} times within hours", "其日志在数小时内重新编号 {times} 次"),
    "peer_foreign": ("its log of `{prefix}` holds {records} records of others", "其 `{prefix}` 日志中有 {records} 条他人的记录"),
    "log_parked": ("the log of `{prefix}` waits: no delegation of that prefix is known here", "`{prefix}` 的日志等待中：此处未知该前缀的委托"),
    "log_flooded": ("the log of `{prefix}` holds more than its prefix was given", "`{prefix}` 的日志超过该前缀的配额"),
    "log_not_here": ("there is no such log or page, or it may not be read", "没有该日志或页，或无权读取"),
    "logs_many": ("it serves more than {limit} logs", "其日志超过 {limit} 个"),
    "page_size": ("a page of {size_bytes} is over the limit of {limit_bytes}", "页大小 {size_bytes} 超过上限 {limit_bytes}"),
    "page_records": ("a page of {count} records is over the limit of {limit}", "一页含 {count} 条记录，超过上限 {limit}"),
    "page_cut": ("the page ends in the middle of a line", "页在一行中间中断"),
    "page_count": ("the page holds {count} lines, {stated} were stated", "页含 {count} 行，声明为 {stated} 行"),
    "page_digest": ("the page's bytes are not those whose sha256 was stated", "页的字节与声明的 sha256 不符"),
    "page_other": ("the answer is about {seen}, asked was {asked}", "答复涉及 {seen}，所问为 {asked}"),
    "page_order": ("the answer goes back: serial {seen} after {asked}", "答复倒退：{asked} 之后为 {seen}"),
    "page_form": ("the answer cannot be read: {why}", "答复无法读取：{why}"),
    "sealing_unknown": ("no key is known that secrets could be sealed to there", "未知可用于加密密钥的对端节点公钥"),
    "secrets_missing": ("the run's secrets did not come sealed with its offer", "要约未附带加密的密钥"),
    "branch_silent": ("{exchange} is silent: what is behind it is not known now", "{exchange} 失联：其后方情况暂不可知"),
    "branch_lost": ("{exchange} was silent for {silent_us}; run {run} is fenced", "{exchange} 已失联 {silent_us}；运行 {run} 已隔离"),
    "branch_removed": ("{exchange} is no peer any more; run {run} is fenced", "{exchange} 已不是对等平台；运行 {run} 已隔离"),
    "lost_behind": ("{exchange} lost run {run}: {why}", "{exchange} 丢失运行 {run}：{why}"),
    "run_fenced": ("{exchange} fenced its run {run}", "{exchange} 已隔离其运行 {run}"),
    "run_unknown": ("run {run} is not known here any more", "运行 {run} 在此已无记录"),
    "use_not_granted": ("{exchange} may not use what is offered here", "{exchange} 无权使用此处的供给"),
    "path_wrong": ("the offer did not come the way that it says: {path}", "要约路径不实：{path}"),
    "path_loops": ("the offer has been here before: {path}", "要约已经过此处：{path}"),
    "path_long": ("the offer passed {hops} exchanges, {most} are allowed", "要约经过 {hops} 个平台，最多 {most} 个"),
    "price_differs": ("the price of {pool} is {listed_micro_cny} CNY per unit-hour, not {offered_micro_cny}", "{pool} 的单价为每单位小时 {listed_micro_cny} 元，而非 {offered_micro_cny}"),
    "units_differ": ("{pool} books {booked} units for this, not {offered}", "{pool} 对此任务预留 {booked} 个单位，而非 {offered}"),
    "quote_not_open": ("quote {quote} for {pool} is not open here any more", "{pool} 的报价 {quote} 在此已失效"),
    "quote_peer_gone": ("{exchange}, which the quote came from, may not be used now", "报价来源平台 {exchange} 当前不可用"),
    "peer_quotes": ("{exchange} has {most} quotes open here already", "{exchange} 在此已有 {most} 项未结报价"),
    "peer_quota": ("the quota of {exchange} for {what} is {limit}; {held} are used, {asked} more were asked", "{exchange} 的{what}配额为 {limit}；已用 {held}，另请求 {asked}"),
    "quota_behind": ("more than our quota at the exchange that leads there: {asked} asked, {most} at most", "超出本平台在对端平台的配额：请求 {asked}，最多 {most}"),
    "peer_storage": ("{exchange} may keep {limit_bytes} of blobs here; {held_bytes} are kept or coming", "{exchange} 在此最多保存 {limit_bytes} 数据块；已保存或正在接收 {held_bytes}"),
    "claims_waiting": ("{claims} claims to {exchange} are not answered", "对 {exchange} 的 {claims} 项计量声明未获答复"),
    "order_refused": ("it cannot carry out the order: {why}", "对方无法执行指令：{why}"),
    "reports_repeated": ("it says nothing but what is known", "对方只重复已知内容"),
    "answer_incomplete": ("it answered another number of orders than was said", "对方答复的指令数量不符"),
    "claim_signature": ("the claim for {run} is not signed by the exchange that ran it", "对 {run} 的计量声明未经承运平台签名"),
    "claim_differs": ("the claim says {field} {said}; booked was {booked}", "计量声明的 {field} 为 {said}；预留的为 {booked}"),
    "claim_sum": ("the figures of {run} do not add up", "{run} 的数字不相符"),
    "claim_over_observed": ("claimed are {claimed_us}, observed were {observed_us}", "声明 {claimed_us}，实际观测 {observed_us}"),
    "claim_over_meter": ("claimed are {claimed_us}, the site measured {metered_us}", "声明 {claimed_us}，算力节点测得 {metered_us}"),
    "claim_over_hold": ("claimed are {claimed_micro_cny} CNY, {held_micro_cny} were held", "声明 {claimed_micro_cny} 元，冻结 {held_micro_cny} 元"),
    "claim_stale": ("{run} was fenced or is not known: it bills nothing", "{run} 已隔离或无记录：不计费"),
    "answer_missing": ("{exchange} has not answered the claim for {run}", "{exchange} 尚未答复对 {run} 的计量声明"),
    "answer_signature": ("the answer to the claim for {run} is not signed by the exchange that pays", "对 {run} 计量声明的答复未经付费平台签名"),
    "answer_differs": ("the answer for {run} is to another claim", "对 {run} 的答复针对另一项声明"),
    "line_differs": ("{field} of {run} was signed as {said}, the line says {booked}", "{run} 的 {field} 签名值为 {said}，账目为 {booked}"),
    "meter_differs": ("the site's reading for {run} is of {said}, claimed is {claimed}", "{run} 所附计量属于 {said}，声明的为 {claimed}"),
    "meter_signature": ("the site's reading of {run} is not signed by the site", "{run} 的计量未经算力节点签名"),
    **RULES,
    "task_yaml": ("line {line}, column {column}: {what}", "第 {line} 行第 {column} 列：{what}"),
    "task_duplicate": ("line {line}, column {column}: `{key}` is written twice, first at {first}", "第 {line} 行第 {column} 列：`{key}` 重复，首次见于 {first}"),
    "task_value": ("line {line}, column {column}: `{field}`: {what}", "第 {line} 行第 {column} 列：`{field}`：{what}"),
    "task_unknown": ("line {line}, column {column}: unknown key `{key}`", "第 {line} 行第 {column} 列：未知字段 `{key}`"),
    "task_unknown_near": ("line {line}, column {column}: unknown key `{key}`, did you mean `{near}`", "第 {line} 行第 {column} 列：未知字段 `{key}`，是否为 `{near}`"),
    "task_unknown_foreign": ("line {line}, column {column}: `{key}` is not of this dialect, write `{near}`", "第 {line} 行第 {column} 列：`{key}` 不属于该方言，请写 `{near}`"),
    "task_price": ("{asked} per node-hour is taken as {limit_micro_cny} CNY per {unit}-hour ({units} to a node, {rate})", "每节点小时 {asked} 折合每 {unit} 小时 {limit_micro_cny} 元（每节点 {units}，{rate}）"),
    "task_range_least": ("`{field}`: the least of its range is taken, {taken}", "`{field}`：取区间下限 {taken}"),
    "task_accelerator_near": ("line {line}, column {column}: `{asked}` is no known kind of accelerator, did you mean `{near}`", "第 {line} 行第 {column} 列：未知加速卡型号 `{asked}`，是否为 `{near}`"),
    "task_accelerator_unknown": ("line {line}, column {column}: `{asked}` is no known kind of accelerator; pools may still offer it", "第 {line} 行第 {column} 列：未知加速卡型号 `{asked}`；仍可能有资源池提供"),
    "task_machine_image": ("`{asked}` is a cloud's machine image, which no site can start; name a container, `docker:...`", "`{asked}` 是云的机器镜像，算力节点无法启动；请写容器镜像 `docker:...`"),
    "network_none": ("no topology is known here", "此处没有已知的网络拓扑"),
    "network_unknown_end": ("`{end}` is no node or site of the network", "`{end}` 不是该网络的节点或算力节点"),
    "network_same_end": ("both ends are `{end}`", "两端均为 `{end}`"),
    "network_no_path": ("no path leads from `{source}` to `{target}`", "从 `{source}` 到 `{target}` 没有路径"),
    "calendar_too_far": ("the calendar reaches {ahead_us} ahead", "日历仅覆盖未来 {ahead_us}"),
    "transfer_physical": ("even an empty network needs {needed_us} at {most_bps} bit/s; there are {asked_us}", "即使网络空闲，以 {most_bps} bit/s 也需 {needed_us}；仅有 {asked_us}"),
    "transfer_no_room": ("there is room for {room_bytes} of {asked_bytes} before the deadline, all else moved as far as promises allow", "截止时间前仅能传输 {asked_bytes} 中的 {room_bytes}，其他传输已在承诺范围内调整"),
    "transfer_partial": ("{left_bytes} of {asked_bytes} find no room before the deadline", "{asked_bytes} 中的 {left_bytes} 在截止时间前没有空闲带宽"),
    "transfer_dear": ("it is {hops} hops long and its links are {full_percent} % full: it would displace more than it carries", "路径长 {hops} 跳且链路已占用 {full_percent}%：挤占将多于其传输量"),
    "transfer_price": ("it costs {price_micro_cny} CNY, over the limit of {limit_micro_cny}", "费用为 {price_micro_cny} 元，超过限价 {limit_micro_cny} 元"),
    "transfer_short": ("a failure took its room: {short_bytes} of {asked_bytes} arrive after the deadline", "故障占去其带宽：{asked_bytes} 中的 {short_bytes} 将晚于截止时间到达"),
    "transfer_later": ("moving nobody, it would be there {late_us} after its deadline", "在不调整他人的情况下，将晚于期限 {late_us} 到达"),
    "circuit_later": ("what moves now keeps its room: it would be admitted from {wait_us} on", "正在传输的数据保留其带宽；自 {wait_us} 后起可以承诺"),
    "transfer_unseen": ("its room is over, and nothing was heard of {left_bytes} of {asked_bytes}", "预留时段已结束，{asked_bytes} 中的 {left_bytes} 没有到达凭据"),
    "night_left_out": ("it is not in the plan that carries most of the batch", "不在使该批次传输量最大的方案之中"),
    "night_large": ("{columns} rates would be looked for, over {most} at once: fewer orders, or sooner deadlines", "需求解 {columns} 个速率，一次至多 {most} 个：请减少订单或提前期限"),
    "receipt_path": ("the receipt names the path {said}, and {booked} is booked", "凭据所述路径为 {said}，而预留路径为 {booked}"),
    "circuit_unproven": ("receipt {seq} does not prove its path", "凭据 {seq} 未证明其路径"),
    "circuit_slow": ("it carries {goodput_bps} bit/s of the {computed_bps} that its rate and headers allow", "实际承载 {goodput_bps} bit/s，而其速率与报头允许 {computed_bps} bit/s"),
    "circuit_small_packets": ("packets of {probe_bytes} pass whole, and {asked_bytes} were asked", "可整包通过 {probe_bytes} 的报文，而要求 {asked_bytes}"),
    "circuit_rate_none": ("a circuit of {asked_bps} bit/s carries nothing", "{asked_bps} bit/s 的专线无法传输"),
    "circuit_over": ("it would end {late_us} before it begins", "结束时间早于开始时间 {late_us}"),
    "circuit_windows_overlap": ("its window ends {length_us} after a turn begins, and the next turn begins after {period_us}", "时间窗在一轮开始后 {length_us} 结束，而下一轮在 {period_us} 后开始"),
    "circuit_windows_many": ("more than {most} windows within what the calendar holds", "日历范围内的时间窗多于 {most} 个"),
    "circuit_physical": ("the quickest path takes {least_us} one way; {asked_us} were asked", "最快路径单向需 {least_us}；要求 {asked_us}"),
    "circuit_mtu": ("packets of {asked_bytes} are {needed_bytes} with what a circuit adds, and no path carries them whole", "{asked_bytes} 的报文加上专线封装为 {needed_bytes}，没有路径可整包承载"),
    "circuit_no_room": ("{most_bps} bit/s is the most in all of its windows; {asked_bps} were asked", "全部时间窗内最多 {most_bps} bit/s；要求 {asked_bps}"),
    "circuit_no_spare": ("no spare path keeps clear of the first by {diversity}", "没有按 {diversity} 与主路径分离的备用路径"),
    "circuit_price": ("it costs {price_micro_cny} CNY an hour, over the limit of {limit_micro_cny}", "每小时费用 {price_micro_cny} 元，超过限价 {limit_micro_cny} 元"),
    "circuit_spare_lost": ("a failure took its spare path, and there is no other", "故障使备用路径失效，且无其他备用路径"),
    "circuit_on_spare": ("a failure took its path: it stands on the spare one", "主路径故障，已切换至备用路径"),
    "circuit_rerouted": ("a failure took its path: it stands on a new one", "路径故障，已切换至新路径"),
    "circuit_down": ("a failure took its path, and none with {asked_bps} bit/s is left", "路径故障，且没有可承载 {asked_bps} bit/s 的路径"),
    "circle_itself": ("it is the place itself", "即该地点本身"),
    "circle_no_reading": ("no direct reading between the two", "两者之间没有直接测量值"),
    "circle_relayed": ("measured through the relay only ({p50_us}), which is no direct way", "仅经中继测得（{p50_us}），并非直达"),
    "circle_not_measured": ("the reading is {evidence}: only what was measured decides", "该值为 {evidence}：仅实测可作判定"),
    "circle_unanswered": ("none of {sent} probes was answered", "{sent} 个探测均无应答"),
    "circle_few_samples": ("{count} samples, and at least {least} say something of a distribution", "仅 {count} 个样本，至少需要 {least} 个"),
    "circle_stale": ("the newest reading is {age_us} old, and at most {most_us} are taken", "最新测量值已有 {age_us}，最多采用 {most_us} 内的"),
    "circle_ahead": ("the reading ended {ahead_us} after now: a clock is wrong", "测量结束于当前时间之后 {ahead_us}：时钟有误"),
    "circle_disordered": ("least {min_us}, median {p50_us}, p99 {p99_us} are in no order that times can have", "最小 {min_us}、中位 {p50_us}、p99 {p99_us} 的次序不可能成立"),
    "circle_faster_than_light": ("a round trip of {min_us} was claimed, and light needs {light_us} for the stated distance: a place or a clock is wrong", "声称往返 {min_us}，而光走完所述距离需 {light_us}：位置或时钟有误"),
    "circle_beyond_light": ("light alone needs {light_us} for the stated distance; the bound is {within_us}", "仅光走完所述距离就需 {light_us}；界限为 {within_us}"),
    "circle_ends_disagree": ("one end measured {least_us}, the other {most_us}: on both sides of the bound", "一端测得 {least_us}，另一端测得 {most_us}：分处界限两侧"),
    "circle_loose_clocks": ("the slower direction takes {one_way_us} by clocks that are known to {error_us} only", "较慢方向按时钟为 {one_way_us}，而时钟误差达 {error_us}"),
}  # fmt: skip


def show_value(name: str, value: Value) -> str:
    """Format ``value`` by the unit that ends its name."""
    if isinstance(value, str):
        return value
    if name.endswith("_micro_cny"):
        return show_money(value)
    if name.endswith("_bytes"):
        return show_size(value)
    if name.endswith("_us"):
        return show_duration(value)
    return f"{value:,}"


class _Shown(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "-"


def sentence(reason: Reason, lang: str = "en") -> str:
    """Say ``reason`` in one sentence; a code that is not in the catalogue is said as itself with its values."""
    shown = _Shown({name: show_value(name, value) for name, value in reason.values.items()})
    template = CATALOGUE.get(reason.code)
    if reason.code == REFUSED and len(shown) > 1 and shown["why"] in CATALOGUE and shown["why"] != REFUSED:
        shown["why"] = sentence(
            Reason(code=shown["why"], values=reason.values), lang
        )  # what was said there, with its figures
    if template is None:
        return " ".join([reason.code, *(f"{name}={value}" for name, value in shown.items())])
    return template[1 if lang == "zh" else 0].format_map(shown)
