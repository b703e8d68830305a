"""What `exec` and `attach` say, in both languages."""

from __future__ import annotations

EXEC_WORDS: dict[str, tuple[str, str]] = {
    "do_exec": ("run a command (or a shell) beside a running job", "在运行中的任务旁执行命令（或打开终端）"),
    "do_attach": ("follow a job, with its ports on this machine", "跟随任务输出，并把其端口接到本机"),
    "do_site_door": ("open or close the door of a site, or show it", "打开、关闭或查看节点的直达口"),
    "door_open": ("{site}: the door is open; stated: {url}", "{site}：直达口已打开；记录中为 {url}"),
    "door_closed": ("{site}: the door is closed", "{site}：直达口已关闭"),
    "opt_terminal": ("give the command a terminal", "为命令分配终端"),
    "opt_no_terminal": ("give it none", "不分配终端"),
    "opt_forward": ("a port of the job here, such as 8888 or 9000:8888", "把任务的端口接到本机，如 8888 或 9000:8888"),
    "terminal_both": ("--terminal or --no-terminal, not both", "--terminal 与 --no-terminal 只能选一个"),
    "no_port": ("`{text}` is not PORT or LOCAL:PORT", "`{text}` 不是 PORT 或 LOCAL:PORT"),
    "forwarding": ("127.0.0.1:{local} -> port {remote} of {job}", "127.0.0.1:{local} -> {job} 的端口 {remote}"),
}  # fmt: skip
