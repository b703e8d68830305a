"""dstack's fields (its reference of August 2026): what each becomes here, or why it is not applied.

``types`` says which values of `type` know a key. Only `type: task` runs here; the others are read, so that a mistake in
them is found, and refused when they are planned.
"""

# ruff: noqa: E501 - one row per line reads as the table that it is

from __future__ import annotations

from tieline.model.taskfile.fields import Field
from tieline.model.taskfile.shapes import Choice, Convert, Free, Text, Whole
from tieline.model.taskfile.values import (
    ARCHITECTURE,
    COUNTS,
    CPU,
    ENV_NAME,
    ENV_VALUE,
    FLAG,
    GPUS,
    LINE,
    PORTS,
    PRICE,
    SCRIPT,
    SECONDS,
    SECONDS_OR_OFF,
    SIZE_ONE,
    SIZES,
    TEXT,
    VENDOR,
    env_item,
)

TYPES = ("task", "service", "dev-environment", "fleet", "gateway", "volume")
RUNS = ("task", "service", "dev-environment")
HIRED = (*RUNS, "fleet")
FREE = Free()
LABEL = Text("text", 400)
SERVED = "nothing here runs this type: planning refuses it with `kind_not_offered`"
CLOUD = "chooses among a cloud's machines; say `resources`, or a condition in `where`"
IDLE = "a run holds its resources until it ends, and nothing idles after it"
CONTAINER = "concerns the container that dstack starts; here the site's engine decides"
PORT = "nothing listens at a site by default; a run's ports are not opened"
DATA = "data that no record here names: planning refuses it with `data_unknown`"
ENV_ITEM = Convert(
    "`NAME=value`, or `NAME` to be taken from the submitter's environment",
    env_item,
    {"type": "string", "maxLength": 65_800, "pattern": r"^[A-Za-z_][A-Za-z0-9_]*(?:=[\s\S]*)?$"},
)
BLOCKS = Text("a number or `auto`", 10, r"[1-9][0-9]*|auto")

_RUN: tuple[Field, ...] = (
    Field("env[]", ENV_ITEM, "`Task.env`s; a bare name is a secret from the submitter's environment", most=512, types=HIRED, example="env: [HF_TOKEN, DEBUG=on]"),
    Field("env.*", ENV_VALUE, "`Task.envs`; null or `${{ secrets.NAME }}`: a secret from the submitter's environment", key=ENV_NAME, most=512, is_null_kept=True, types=HIRED, example="env: {DEBUG: on}"),
    Field("python", Text("a version of Python", 10, r"[0-9]+(?:\.[0-9]+)*"), absent="the site's own Python runs, unless an `image` is named", types=RUNS),
    Field("nvcc", FLAG, absent="chooses dstack's base image; name an `image` that has it", silent=(False,), types=RUNS),
    Field("docker", FLAG, absent=CONTAINER, silent=(False,), types=RUNS),
    Field("user", LINE, absent="a run's user is the site's choice", types=RUNS),
    Field("privileged", FLAG, absent="no site gives a task more rights than it has itself", silent=(False,), types=RUNS),
    Field("entrypoint", LINE, absent="`commands` are what runs, in the image as well", types=RUNS),
    Field("working_dir", TEXT, "a folder below the working directory in which `commands` start", types=RUNS, example="working_dir: src"),
    Field("home_dir", LINE, absent=CONTAINER, types=RUNS),
    Field("shell", LINE, absent="bash runs the commands", silent=("bash", "sh"), types=RUNS),
    Field("registry_auth.username", LINE, absent="a site pulls images with its own credentials", types=RUNS),
    Field("registry_auth.password", TEXT, absent="a site pulls images with its own credentials", types=RUNS),
    Field("single_branch", FLAG, absent="no repository is cloned at the site", silent=(False, True), types=RUNS),
    Field("repos[]", LINE, "a local path: `ParsedTask.workdir`; a URL: data that no record here names (`data_unknown`)", most=1, types=RUNS, example="repos: [.]"),
    Field("repos[].local_path", LINE, "`ParsedTask.workdir`"),
    Field("repos[].url", LINE, DATA),
    Field("repos[].branch", LINE, absent="the folder is taken as it is"),
    Field("repos[].hash", LINE, absent="the folder is taken as it is"),
    Field("repos[].path", LINE, "only the working directory itself (`.`)"),
    Field("repos[].if_exists", Choice("error", "skip"), absent="a run's folder begins empty"),
    Field("files[]", LINE, "`LOCAL` or `LOCAL:TARGET`: a local file or folder, laid at the target", types=RUNS, example="files: ['data:train']"),
    Field("files[].local_path", LINE, "a path on the submitter's machine"),
    Field("files[].path", LINE, "where it is laid in the working directory"),
    Field("volumes[]", LINE, f"`NAME:PATH`: {DATA}; `/FOLDER:PATH`: not applied, an owner's folders are not opened to tasks", types=RUNS),
    Field("volumes[].name", LINE, DATA),
    Field("volumes[].instance_path", LINE, absent="an owner's folders are not opened to tasks"),
    Field("volumes[].path", LINE, "where it would be mounted"),
    Field("volumes[].optional", FLAG, absent="an owner's folders are not opened to tasks", silent=(True, False)),
    Field("setup[]", SCRIPT, "`Task.setup`, line by line", types=RUNS),
    Field("ports[]", PORTS, absent=PORT, types=("task", "dev-environment")),
    Field("ports[].local_port", Whole(1, 65_535), absent=PORT),
    Field("ports[].container_port", Whole(1, 65_535), absent=PORT),
    Field("commands[]", SCRIPT, "`Task.run`: one after the other, until one fails", types=("task", "service"), example="commands: [python train.py]"),
    Field("nodes", Whole(1, 100_000), "`Task.nodes`: a gang, within one site where no `span` is given", types=("task",), example="nodes: 4"),
    Field("groups[]", FREE, "`Task.type` = `node-groups`: `kind_not_offered`", types=("task",)),
    Field("startup_order", Choice("any", "master-first", "workers-first"), absent="all nodes start together", silent=("any",), types=RUNS),
    Field("stop_criteria", Choice("all-done", "master-done"), absent="a run ends when all its nodes have ended", silent=("all-done",), types=RUNS),
    Field("schedule.cron", TEXT, absent="a job is submitted when it is submitted", types=RUNS),
    Field("schedule.cron[]", TEXT, absent="a job is submitted when it is submitted", types=RUNS),
    Field("utilization_policy.min_gpu_utilization", Whole(0, 100), absent="a run is not stopped for being idle", types=RUNS),
    Field("utilization_policy.time_window", SECONDS, absent="a run is not stopped for being idle", types=RUNS),
    Field("stop_duration", SECONDS_OR_OFF, "`Task.grace_s`, at most 1 h", types=RUNS, example="stop_duration: 5m"),
)  # fmt: skip

_HIRE: tuple[Field, ...] = (
    Field("backends[]", LINE, "first part of `Resources.infra`: a cloud that is no site here fits nothing, and the plan says so", most=64, types=HIRED, example="backends: [aws]"),
    Field("regions[]", LINE, "second part of `Resources.infra`", most=64, types=HIRED),
    Field("availability_zones[]", LINE, "third part of `Resources.infra`", most=64, types=HIRED),
    Field("instance_types[]", LINE, absent=CLOUD, types=HIRED),
    Field("instances[]", FREE, absent=CLOUD, types=HIRED),
    Field("reservation", LINE, absent=CLOUD, types=HIRED),
    Field("fleets[]", LINE, absent="fleets are dstack's; say `owners` or a condition in `where`", types=HIRED),
    Field("spot_policy", Choice("spot", "on-demand", "auto"), absent="nothing here is sold as spot: an owner drains with notice, and a lost run is placed again", silent=("on-demand", "auto"), types=HIRED),
    Field("max_price", PRICE, "`Resources.max_price_micro_cny`: USD per node-hour, shared out over the node's accelerators (or cores)", types=HIRED, example="max_price: 2.5"),
    Field("idle_duration", SECONDS_OR_OFF, absent=IDLE, silent=(0,), types=HIRED),
    Field("creation_policy", Choice("reuse", "reuse-or-create"), absent="nothing is created: sites are there", types=HIRED),
    Field("termination_policy", LINE, absent=IDLE, types=HIRED),
    Field("termination_idle_time", SECONDS_OR_OFF, absent=IDLE, types=HIRED),
    Field("pool_name", LINE, absent="pools of dstack; say `owners` or a condition in `where`", types=HIRED),
    Field("instance_name", LINE, absent=CLOUD, types=HIRED),
    Field("backend_options[]", FREE, absent=CLOUD, types=HIRED),
    Field("tags.*", LABEL, "`Task.labels`", key=Text("a label", 64), most=64),
    Field("resources.cpu", CPU, "`Resources.core_count`, the least of the range; `architecture`", types=HIRED, example="cpu: arm:8.."),
    Field("resources.cpu.arch", ARCHITECTURE, "`Resources.architecture`", types=HIRED),
    Field("resources.cpu.count", COUNTS, "`Resources.core_count`, the least of the range", types=HIRED),
    Field("resources.memory", SIZES, "`Resources.memory_bytes`, the least of the range", types=HIRED, example="memory: 128GB..256GB"),
    Field("resources.shm_size", SIZE_ONE, absent="shared memory is part of `memory`: it has no limit of its own", types=HIRED),
    Field("resources.gpu", GPUS, "`Resources.accelerator`, `accelerator_count` (the least of the range), `accelerator_memory_bytes`", types=HIRED, example="gpu: H100:80GB:1..2"),
    Field("resources.gpu.vendor", VENDOR, "`vendor == ...` joins `where`", types=HIRED),
    Field("resources.gpu.name", LINE, "`Resources.accelerator`; several, with commas: alternatives", types=HIRED),
    Field("resources.gpu.name[]", LINE, "alternatives", most=64, types=HIRED),
    Field("resources.gpu.count", COUNTS, "`Resources.accelerator_count`, the least of the range", types=HIRED),
    Field("resources.gpu.memory", SIZES, "`Resources.accelerator_memory_bytes`, `accelerator_memory_most_bytes`", types=HIRED),
    Field("resources.gpu.total_memory", SIZES, "shared out over the cards", types=HIRED),
    Field("resources.gpu.compute_capability", TEXT, absent="pools do not state it; name the kinds that have it", types=HIRED),
    Field("resources.disk", SIZES, "`Resources.disk_bytes`, the least of the range", types=HIRED, example="disk: 200GB"),
    Field("resources.disk.size", SIZES, "`Resources.disk_bytes`, the least of the range", types=HIRED),
)  # fmt: skip

_OTHERS: tuple[Field, ...] = (
    Field("port", PORTS, absent=SERVED, types=("service",)),
    Field("gateway", LINE, absent=SERVED, types=("service",)),
    Field("strip_prefix", FLAG, absent=SERVED, types=("service",)),
    Field("model", LINE, absent=SERVED, types=("service",)),
    Field("model.type", LINE, absent=SERVED, types=("service",)),
    Field("model.name", LINE, absent=SERVED, types=("service",)),
    Field("model.format", LINE, absent=SERVED, types=("service",)),
    Field("model.prefix", LINE, absent=SERVED, types=("service",)),
    Field("model.chat_template", TEXT, absent=SERVED, types=("service",)),
    Field("model.eos_token", LINE, absent=SERVED, types=("service",)),
    Field("https", TEXT, absent=SERVED, types=("service",)),
    Field("auth", FLAG, absent=SERVED, types=("service",)),
    Field("replicas", COUNTS, absent=SERVED, types=("service",)),
    Field("replicas[]", FREE, absent=SERVED, types=("service",)),
    Field("scaling.metric", LINE, absent=SERVED, types=("service",)),
    Field("scaling.target", TEXT, absent=SERVED, types=("service",)),
    Field("scaling.scale_up_delay", SECONDS, absent=SERVED, types=("service",)),
    Field("scaling.scale_down_delay", SECONDS, absent=SERVED, types=("service",)),
    Field("scaling.window", SECONDS, absent=SERVED, types=("service",)),
    Field("rate_limits[]", FREE, absent=SERVED, types=("service",)),
    Field("probes[]", FREE, absent=SERVED, types=("service",)),
    Field("router", FREE, absent=SERVED, types=("service",)),
    Field("ide", LINE, absent=SERVED, types=("dev-environment",)),
    Field("version", LINE, absent=SERVED, types=("dev-environment",)),
    Field("init[]", SCRIPT, absent=SERVED, types=("dev-environment",)),
    Field("inactivity_duration", SECONDS_OR_OFF, absent=SERVED, types=("dev-environment",)),
    Field("nodes", COUNTS, absent=SERVED, types=("fleet",)),
    Field("nodes.min", Whole(0, 100_000), absent=SERVED, types=("fleet",)),
    Field("nodes.max", Whole(0, 100_000), absent=SERVED, types=("fleet",)),
    Field("nodes.target", Whole(0, 100_000), absent=SERVED, types=("fleet",)),
    Field("placement", Choice("any", "cluster"), absent=SERVED, types=("fleet",)),
    Field("blocks", BLOCKS, absent=SERVED, types=("fleet",)),
    Field("ssh_config", FREE, absent=SERVED, types=("fleet",)),
    Field("backend", LINE, absent=SERVED, types=("gateway", "volume")),
    Field("region", LINE, absent=SERVED, types=("gateway", "volume")),
    Field("domain", LINE, absent=SERVED, types=("gateway",)),
    Field("default", FLAG, absent=SERVED, types=("gateway",)),
    Field("public_ip", FLAG, absent=SERVED, types=("gateway",)),
    Field("certificate", FREE, absent=SERVED, types=("gateway",)),
    Field("router", FREE, absent=SERVED, types=("gateway",)),
    Field("instance_type", LINE, absent=SERVED, types=("gateway",)),
    Field("replicas", Whole(1, 1_000), absent=SERVED, types=("gateway",)),
    Field("size", SIZE_ONE, absent=SERVED, types=("volume",)),
    Field("volume_id", LINE, absent=SERVED, types=("volume",)),
    Field("availability_zone", LINE, absent=SERVED, types=("volume",)),
    Field("auto_cleanup_duration", SECONDS_OR_OFF, absent=SERVED, types=("volume",)),
)  # fmt: skip

DSTACK: tuple[Field, ...] = (
    Field("type", Choice(*TYPES), "`Task.type`; everything but `task`: `kind_not_offered`", example="type: task"),
    *_RUN,
    *_HIRE,
    *_OTHERS,
)
