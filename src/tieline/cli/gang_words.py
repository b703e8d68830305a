"""Gang words: what is said of gangs over several sites; a part of `cli.words`."""

# ruff: noqa: E501 - a table: one row, one line

from __future__ import annotations

GANG_WORDS: dict[str, tuple[str, str]] = {
    "opt_sites": ("its nodes may stand at up to so many sites, 2 to 8", "其计算节点最多可分布于几个算力节点（2 至 8）"),
    "sites_nodes": ("`--sites` is for several nodes: add `--nodes`", "`--sites` 用于多个计算节点：请加 `--nodes`"),
    "gang_head": ("a gang in {members} pools at {sites} sites, all or nothing:", "跨域组网：{sites} 个节点的 {members} 个资源池，全部预留或全不预留："),
    "gang_sum": ("{cost} CNY/h: cards {cards}, network {ways}; no choice of sites costs less than {bound} (gap {gap})", "{cost} 元/时：算力 {cards}，网络 {ways}；任何选点方案不低于 {bound}（差距 {gap}）"),
    "gang_members": ("{run} and {more} more", "{run} 等 {more} 个"),
    "gang_ended": ("  ranks {ranks} on {pool} ({site}): {state}", "  计算节点 {ranks} 位于 {pool}（{site}）：{state}"),
    "field_gang_of": ("joins the gang of", "所属组网任务"),
    "word_offered": ("offered", "已发出"),
    "word_accepted": ("accepted", "已接受"),
    "word_lost": ("lost", "失联"),
    "word_refused": ("refused", "被拒绝"),
    "word_stopped": ("stopped", "已停止"),
    "meets_door": ("door", "直达口"),
    "meets_relay": ("relay", "中继"),
    "col_ranks": ("ranks", "序号"),
    "col_gang_nodes": ("nodes", "计算节点数"),
    "col_end_a": ("from", "自"),
    "col_end_b": ("to", "至"),
    "col_meets": ("meet by", "相通方式"),
}  # fmt: skip
