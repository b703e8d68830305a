"""The fields that Tieline adds: they may stand in a task of either dialect."""

# ruff: noqa: E501 - one row per line reads as the table that it is

from __future__ import annotations

from tieline.model.taskfile.fields import Field
from tieline.model.taskfile.shapes import Choice, Text, Whole
from tieline.model.taskfile.values import (
    BUDGET,
    ENV_NAME,
    ENV_VALUE,
    EXIT_CODE,
    FLAG,
    GRACE,
    LINE,
    NAME,
    RATE,
    RETRY,
    ROUND_TRIP,
    SECONDS,
    SECONDS_OR_OFF,
    SIGNAL,
    SIZE_ONE,
    TEXT,
)

OWNER = Text("the prefix of an owner, such as `cn.sh.lab7`", 200, r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", "lower case")
IDENTIFIER = Text("an identifier, such as `cn.sh.lab7/dataset/digits`", 200, r"[a-z0-9][a-z0-9._/-]*", "lower case")
POINT = Text("a site or a named reference point, such as `shanghai`", 100, r'[^"\\\n]+')
RESIDENCY = Choice("anywhere", "site", "owner", "exchange")
LABEL = Text("text", 400)
PROJECT = Text("the name of a project, such as `vision`", 64, r"[a-z0-9][a-z0-9._-]*", "lower case")
SITES = Whole(2, 8)
RETRIED = ("no-capacity", "interruption", "error")

OWN: tuple[Field, ...] = (
    Field("name", NAME, "`Task.name`; `task` where none is given", example="name: train"),
    Field("image", LINE, "`Resources.image` of every alternative: a requirement", example="image: docker.io/library/python:3.12"),
    Field("where", TEXT, "a condition on offers, added to every alternative's `where`", example="where: npu >= 8 and price < 20"),
    Field("owners[]", OWNER, "`Task.owners`: only these may run it", is_lone=True, example="owners: [cn.sh.lab7]"),
    Field("data[]", IDENTIFIER, "`Task.data`: datasets that the task reads", most=64, is_lone=True, example="data: cn.sh.lab7/dataset/digits"),
    Field("data[].id", IDENTIFIER, "identifier of the dataset"),
    Field("data[].site", IDENTIFIER, "identifier of the site that holds the bytes, where there is no dataset record"),
    Field("data[].size", SIZE_ONE, "how many bytes they are", example="size: 2TB"),
    Field("data[].path", TEXT, "where they are laid in the working directory", example="path: data/train"),
    Field("data[].residency", RESIDENCY, "how far they may travel; binds placing and moving", example="residency: owner"),
    Field("network", Choice("none", "host"), "`Task.network`: the network that the run must have", example="network: none"),
    Field("network.mode", Choice("none", "host"), "`Task.network`"),
    Field("network.from", POINT, "the point that `rtt` and `bandwidth` are measured from", example="from: shanghai"),
    Field("network.rtt", ROUND_TRIP, "the longest round trip: `rtt(from) <= ...` joins `where`", example="rtt: 1ms"),
    Field("network.bandwidth", RATE, "the least rate: `bandwidth(from) >= ...` joins `where`", example="bandwidth: 10Gbps"),
    Field("span", SITES, "`Task.span`: the nodes may stand at up to so many sites 跨域组网, where no pool has room for all", example="span: 4"),
    Field("span.sites", SITES, "`Span.sites`: at how many sites at most; 8"),
    Field("span.rate", RATE, "`Span.rate_bps`: between every two sites, both ways, booked with the cards", example="rate: 1Gbps"),
    Field("span.rtt", ROUND_TRIP, "`Span.rtt_us`: the longest round trip between any two sites, at most 60 s", example="rtt: 20ms"),
    Field("span.ports[]", Whole(1, 65_535), "`Span.ports`: TCP ports on which nodes are reached from other sites, beside MASTER_PORT", most=16, is_lone=True, example="ports: [29500]"),
    Field("checkpoint", TEXT, "`Checkpoint.path`, with the defaults of the rest", example="checkpoint: ckpt"),
    Field("checkpoint.path", TEXT, "the folder that is uploaded, and restored on the next run"),
    Field("checkpoint.every", SECONDS, "`Checkpoint.every_s`, 1 s to 1 d; 60 s", example="every: 5min"),
    Field("checkpoint.signal", SIGNAL, "`Checkpoint.signal`: sent before the folder is uploaded; SIGUSR1"),
    Field("retry", RETRY, "`Retry.limit`: more attempts after a failure; `true` is 3", example="retry: 5"),
    Field("retry.limit", Whole(0, 1_000), "`Retry.limit`: more attempts after a failure; a lost run never counts"),
    Field("retry.on_exit_codes[]", EXIT_CODE, "`Retry.on_exit_codes`: these always mean: recover", is_lone=True),
    Field("retry.on_events[]", Choice(*RETRIED), "`error`: as `retry: true`; lost runs and full sites are tried again anyway", most=3),
    Field("retry.duration", SECONDS, absent="attempts are limited by number; write `retry.limit` or `deadline`"),
    Field("deadline", SECONDS, "`Task.deadline_s`: from submission", example="deadline: 6h"),
    Field("max_duration", SECONDS_OR_OFF, "`Task.max_duration_s`: of one run", example="max_duration: 2h"),
    Field("grace", GRACE, "`Task.grace_s`: between SIGTERM and SIGKILL, at most 1 h", example="grace: 30s"),
    Field("budget", BUDGET, "`Task.budget_micro_cny`: the run is stopped before it is exceeded", example="budget: 100 CNY"),
    Field("outputs[]", TEXT, "`Task.outputs`: paths or globs fetched back by hash", most=64, is_lone=True, example="outputs: [model.bin, 'plots/*.png']"),
    Field("trusted", FLAG, "`Task.is_trusted`: asks to run without a sandbox; owners decide", example="trusted: true"),
    Field("priority", Whole(-1_000, 1_000), "`Task.priority`: higher goes first", example="priority: 10"),
    Field("project", PROJECT, "the project that the job counts for; the submitter's only one where none is given", example="project: vision"),
    Field("labels.*", LABEL, "`Task.labels`", key=Text("a label", 64), most=64, example="labels: {phase: pilot}"),
    Field("secrets[]", ENV_NAME, "`Task.secrets`: values come from the submitter's environment", most=64, example="secrets: [HF_TOKEN]"),
    Field("secrets.*", ENV_VALUE, "`Task.secrets`: sealed to the accepting site; null: from the submitter's environment", key=ENV_NAME, most=64, is_null_kept=True, example="secrets: {HF_TOKEN: null}"),
    Field("token[]", Choice("read:job", "read:log", "read:blob", "read:transfer", "write:receipt", "stop"), "`Task.token`: what the run itself may do to its job, with `TIELINE_TOKEN` in its environment", most=6, is_lone=True, example="token: [read:job, read:log]"),
)  # fmt: skip
