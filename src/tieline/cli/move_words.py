"""Move words: what `transfer run` and `transfer follow` say, in English and Chinese; a part of `cli.words`."""

# ruff: noqa: E501 - a table: one row, one line

from __future__ import annotations

MOVE_WORDS: dict[str, tuple[str, str]] = {
    "do_transfer": ("bytes from here to there: order, move, follow", "数据传输：订购、搬运、跟踪"),
    "do_transfer_run": ("move bytes between files, web servers, S3 stores and blobs; at a booked rate, and on from where a try was cut", "在文件、网站、S3 存储与平台数据块之间搬运数据，可按预留速率，可断点续传"),
    "do_transfer_follow": ("follow a transfer until it has ended", "跟踪传输直至结束"),
    "opt_move_from": ("a path, http(s)://, s3://BUCKET/KEY, blob:SHA256, door:SITE#SHA256, or env:NAME", "路径、http(s)://、s3://桶/键、blob:SHA256、door:节点#SHA256 或 env:变量名"),
    "opt_move_to": ("a path, http(s):// (PUT), s3://BUCKET/KEY, blob:, door:SITE, or env:NAME", "路径、http(s)://（PUT）、s3://桶/键、blob:、door:节点 或 env:变量名"),
    "opt_move_rate": ("at most this rate, such as 10Mbit/s", "速率上限，如 10Mbit/s"),
    "opt_move_transfer": ("obey this booking: its times, rates and paths", "按该预留的时间、速率与路径搬运"),
    "opt_move_streams": ("connections at once", "并行连接数"),
    "opt_move_bind": ("address of this machine for one booked path, in order; may be given again", "为一条预留路径绑定的本机地址，按次序，可多次指定"),
    "opt_move_sha256": ("what the whole must be; otherwise nothing is kept", "整体应有的 sha256，不符则不保留"),
    "opt_move_replace": ("take the place of what is there", "替换已有目标"),
    "opt_move_stall": ("a peer that sends next to nothing for so many seconds is asked anew", "对端停滞多少秒后重新连接"),
    "moved_whole": ("moved {size} in {took} at {rate}; sha256 {sha256}", "已搬运 {size}，用时 {took}，速率 {rate}；sha256 {sha256}"),
    "moved_before": ("{size} were there from an earlier try", "其中 {size} 来自此前的尝试"),
    "moving_now": ("{share} %  {moved} of {size}  {rate}  {left} left", "{share} %  {moved}/{size}  {rate}  剩余 {left}"),
    "moving_unknown": ("?", "未知"),
    "paths_paced": ("{count} of {all} paths are paced but not bound: routing chooses the way of their packets", "{all} 条路径中有 {count} 条仅限速、未绑定：其报文路径由路由决定"),
    "move_rate_or_transfer": ("--rate and --transfer exclude each other: a booking has its rates", "--rate 与 --transfer 不能同时使用：预留自有其速率"),
    "move_bind_needs_transfer": ("--bind is for the paths of a booking (--transfer)", "--bind 用于预留的路径（--transfer）"),
    "move_from_blob": ("--from blob: needs the sha256 of the blob", "--from blob: 后须给出数据块的 sha256"),
    "move_from_door": ("--from door:SITE needs # and the sha256 of the chunk", "--from door:节点 后须给出 # 和分块的 sha256"),
    "move_to_named": ("--to blob: and door: get their name from what arrives; give the sha256 by --sha256", "--to blob: 与 door: 以到达的内容命名；sha256 请用 --sha256 给出"),
    "move_rate_least": ("--rate: at least 1 kbit/s", "--rate：至少 1 kbit/s"),
    "move_no_sha256": ("--sha256: 64 letters of 0-9a-f", "--sha256：64 个 0-9a-f 字符"),
    "transfer_is": ("{transfer} is {state}", "{transfer} {state}"),
}  # fmt: skip
