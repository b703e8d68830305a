"""Story: what the demo does, act by act, against real processes; each act checks what it claims.

Nothing here is simulated but the accelerators of one owner, which say so wherever they are shown.
"""

# ruff: noqa: E501 - a line says one thing in two languages

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tieline.cli.signing import Draft, signed_next
from tieline.cli.stage import PREFIX, Actor, Stage
from tieline.client import AsyncClient
from tieline.model.api import JobView
from tieline.model.error import TielineError
from tieline.model.job import Job, JobState
from tieline.model.party import Role
from tieline.model.quantity import show_money
from tieline.model.reason import sentence
from tieline.model.record import Link
from tieline.model.task import Resources, Task
from tieline.model.taskfile import parse_tasks
from tieline.registry import Key, verify_chain

LEASE_S = 90 * 86_400
Say = Callable[..., None]


class Story:
    """One telling: ``say(en, zh, **values)`` writes a line, ``facts`` collects the summary, ``wrong`` what failed."""

    def __init__(
        self, stage: Stage, client: AsyncClient, say: Say, tasks: Path, owner_key: Key, is_boxed: bool
    ) -> None:
        self.stage, self.admin, self.say, self.tasks = stage, client, say, tasks
        self.owner_key = owner_key
        self.is_boxed = is_boxed
        self.user: AsyncClient = client
        self.jobs: dict[str, JobView] = {}
        self.facts: dict[str, Any] = {}
        self.wrong: list[str] = []

    def check(self, holds: object, what: str) -> None:
        """Note what does not hold; the demo goes on, and ends with exit code 1."""
        if not holds:
            self.wrong.append(what)
            self.say("   FAILED: {what}", "   失败：{what}", what=what)

    async def load(self, name: str) -> tuple[Task, ...]:
        """The tasks of a file below ``examples/tasks``, with their bytes uploaded."""
        path = self.tasks / name
        packed = []
        for parsed in parse_tasks(path.read_bytes(), name):
            folder = path.parent / parsed.workdir if parsed.workdir else None
            files = [(file.path, self.source(path.parent, file.source)) for file in parsed.files]
            task = await self.user.pack(parsed.task, folder, files)
            packed.append(task if self.is_boxed else msgspec.structs.replace(task, is_trusted=True))
        return tuple(packed)

    def source(self, folder: Path, name: str) -> Path:
        """A file beside the task file; the digits are those that ship with scikit-learn."""
        path = folder / name
        return digits_file() if not path.exists() and path.name == "digits.csv.gz" else path

    def mine(self, **fields: Any) -> Task:
        """A small task of the demo's own."""
        return Task(is_trusted=not self.is_boxed, **fields)

    async def wait(self, job: Job, timeout_s: float = 50) -> JobView:
        """The job once it has ended."""
        view = await self.user.wait(job.id, timeout_s)
        self.jobs[view.job.task.name] = view
        return view

    # -- acts ---------------------------------------------------------------------------------------------------------

    async def tell(self) -> None:
        """All acts. The long job runs while the others are told."""
        made = await self.admin.create_token("ada", [Role.USER])
        async with self.stage.client(made.secret) as self.user:
            await self.sites()
            await self.found()
            await self.dataset()
            (long,) = await self.user.submit(*await self.load("long/long.yaml"))
            trained, gang, steps = await asyncio.gather(self.digits(), self.gang(), self.pipeline())
            self.tell_jobs(trained, gang, steps)
            await self.lost(long)
            await self.joined()
            await self.quote()
            await self.refusal()
            await self.records(trained)
            await self.history()
            await self.money()

    async def sites(self) -> None:
        """Who is here."""
        sites = await self.admin.sites()
        self.say(
            "1. {count} sites of {count} owners joined {exchange}, each a process of its own that only dials out",
            "1. {count} 个主体的 {count} 个算力节点加入了 {exchange}，各为独立进程，只向外连接",
            count=len(sites), exchange=f"{PREFIX}/exchange/main",
        )  # fmt: skip
        rows = []
        for site in sites:
            for pool in site.pools:
                size = (
                    f"{pool.accelerator_count} x {pool.accelerator}{' (emulated)' if pool.is_emulated else ''}"
                    if pool.accelerator_count
                    else f"{pool.core_count} cores"
                )
                price = show_money(pool.price_micro_cny_per_unit_hour)
                self.say("   {id:<30} {size:<28} {price:>6} CNY/h  {tier}, {box}", None, id=pool.id, size=size,
                         price=price, tier=site.tier, box=pool.sandbox or "no sandbox")  # fmt: skip
            rows.append({"id": site.id, "owner": site.owner, "tier": site.tier, "pools": [p.id for p in site.pools]})
        self.facts["sites"] = rows
        self.check(len({site.owner for site in sites}) == 4, "four owners")

    async def found(self) -> None:
        """Ranked answers, and why the others lost."""
        query = "cores >= 2 and price < 1"
        answer = await self.user.find(query, kind="pool")
        self.say("2. tieline find '{query}'", None, query=query)
        for offer in answer.offers:
            price = show_money(int(offer.attributes.get("price_micro_cny", 0)))
            self.say(
                "   {id:<30} {price} CNY per core-hour", "   {id:<30} 每核小时 {price} 元", id=offer.id, price=price
            )
        for reason in answer.reasons:
            self.say("   {count} lost: {why}", "   {count} 个落选：{why}", count=reason.count, why=reason)
        if answer.nearest:
            self.say(
                "   nearest change: {term} to {needed} admits {admits} more",
                "   最接近的放宽：{term} 改为 {needed}，可多得 {admits} 个",
                term=answer.nearest.term, needed=answer.nearest.needed, admits=answer.nearest.admits,
            )  # fmt: skip
        self.check(answer.offers and answer.reasons, "find answers with reasons")

    async def register(self, draft: Draft) -> str:
        """Sign a record with the owner's key, here, and store it."""
        envelope = await signed_next(self.admin, draft, self.owner_key, int(time.time()), LEASE_S)
        return (await self.admin.register(envelope)).id

    async def dataset(self) -> None:
        """The training data as a record of its owner."""
        import hashlib

        content = digits_file().read_bytes()
        self.dataset_id = f"{PREFIX}.lab/dataset/digits"
        spec = {
            "title": "Handwritten digits",
            "description": "1797 images of 8 x 8 pixels with labels 手写数字",
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "sites": [self.stage.sites["shanghai"].id],
            "source": "ships with scikit-learn",
            "tags": ["digits", "images", "手写数字"],
        }
        await self.register(Draft(id=self.dataset_id, spec=spec))

    async def digits(self) -> JobView:
        """A SkyPilot file that trains a real classifier."""
        (task,) = await self.load("digits/train.yaml")
        self.plan = (await self.user.plan([task]))[0]
        (job,) = await self.user.submit(task)
        return await self.wait(job)

    async def gang(self) -> JobView:
        """Two nodes that talk to each other."""
        (job,) = await self.user.submit(*await self.load("gang/gang.yaml"))
        return await self.wait(job)

    async def pipeline(self) -> list[JobView]:
        """Three steps that hand their outputs on."""
        jobs = await self.user.submit(*await self.load("pipeline/pipeline.yaml"), pipeline="words")
        return [await self.wait(job) for job in jobs]

    def tell_jobs(self, trained: JobView, gang: JobView, steps: list[JobView]) -> None:
        """What became of the short jobs."""
        self.say(
            "3. plan of examples/tasks/digits/train.yaml, a SkyPilot file",
            "3. SkyPilot 任务文件 examples/tasks/digits/train.yaml 的调度方案",
        )
        for candidate in self.plan.candidates[:3]:
            self.say(
                "   {mark} {pool:<30} {cost} CNY an hour", "   {mark} {pool:<30} 每小时 {cost} 元",
                mark="*" if candidate.is_chosen else " ", pool=candidate.pool,
                cost=show_money(candidate.cost_micro_cny_per_hour),
            )  # fmt: skip
        for reason in self.plan.reasons:
            self.say("     {count} lost: {why}", "     {count} 个落选：{why}", count=reason.count, why=reason)
        for view in (trained, gang, *steps):
            self.check(view.job.state is JobState.SUCCEEDED, f"{view.job.task.name} succeeded ({view.job.state})")

    async def output(self, view: JobView, path: str) -> bytes:
        """One file that a job left behind."""
        for output in view.job.outputs:
            if output.path == path:
                return await self.user.read_blob(output.sha256)
        raise TielineError("not_found", f"`{view.job.task.name}` left no `{path}` behind")

    async def lost(self, long: Job) -> None:
        """SIGKILL a site in mid-run; the job goes on elsewhere from its checkpoint."""
        trained, gang = self.jobs["digits"], self.jobs["gang"]
        metrics = json.loads(await self.output(trained, "metrics.json"))
        self.facts["accuracy"] = metrics["accuracy"]
        self.check(metrics["accuracy"] > 0.95, "the classifier is good")
        said = (await self.user.log(gang.job.id)).decode().strip().splitlines()
        count = (await self.output(self.jobs["count"], "count.txt")).decode().strip()
        self.check(count == "7", "the pipeline counted 7 words")
        self.say(
            "4. digits: accuracy {accuracy:.4f}, model fetched by hash; gang: {gang}; pipeline: {count} words in 3 steps",
            "4. 数字分类：准确率 {accuracy:.4f}，模型按哈希取回；双节点：{gang}；流水线：三步得 {count} 个词",
            accuracy=metrics["accuracy"], gang=said[-1] if said else "-", count=count,
        )  # fmt: skip
        for _ in range(400):
            view = await self.user.job(long.id)
            if view.job.checkpoint and view.job.state is JobState.RUNNING:
                break
            await asyncio.sleep(0.05)
        run = view.runs[-1]
        actor = next(each for each in self.stage.sites.values() if each.id == run.site)
        cut_ms = time.time_ns() // 1_000_000
        self.stage.power_cut(actor)
        self.say(
            "5. SIGKILL of {site} while `long` runs there with checkpoint {sha256}",
            "5. `long` 运行中，杀死 {site}（SIGKILL），其检查点为 {sha256}",
            site=run.site, sha256=view.job.checkpoint[:12],
        )  # fmt: skip
        view = await self.wait(long)
        state = json.loads(await self.output(view, "result.json"))
        resumed_s = (view.runs[-1].started_ms - cut_ms) / 1000
        self.facts["lost"] = {"site": run.site, "lives": state["lives"], "seconds_to_resume": resumed_s}
        self.say(
            "   {wait:.1f} s later it ran on {site}, from step {at} of {all}: it did not start over",
            "   {wait:.1f} 秒后在 {site} 上继续，从第 {at}/{all} 步开始，没有重来",
            site=view.runs[-1].site, wait=resumed_s, at=state["lives"][-1]["from"], all=state["at"],
        )  # fmt: skip
        self.check(view.job.state is JobState.SUCCEEDED, "long succeeded")
        self.check(state["lives"][-1]["from"] > 0, "long went on from its checkpoint")
        self.check(view.runs[-1].site != run.site, "long finished elsewhere")
        await self.returned(actor, run.id)

    async def returned(self, actor: Actor, run: str) -> None:
        """The killed site comes back: it finds its fenced run, stops it, and nobody is billed for it."""
        self.stage.start_site(actor)
        await self.stage.await_sites(self.admin)
        for _ in range(100):
            if not await asyncio.to_thread(_alive_below, actor.folder / "runs" / run):
                break
            await asyncio.sleep(0.1)
        left = await asyncio.to_thread(_alive_below, actor.folder / "runs" / run)
        self.check(not left, f"the fenced run was stopped ({left} processes left)")
        lines = (await self.user.usage()).lines
        self.check(all(line.run != run for line in lines), "the lost run is on no bill")
        self.say(
            "   the site came back, stopped its fenced run {run}, and bills nothing for it",
            "   该节点恢复后停止了被隔离的运行 {run}，不计费",
            run=run,
        )  # fmt: skip

    async def joined(self) -> None:
        """Five nodes for which no single owner of two has room: both take their part, or neither."""
        (four,) = await self.load("gang_sites/gang.yaml")
        owners = (f"{PREFIX}.lab", f"{PREFIX}.plant")
        task = msgspec.structs.replace(four, nodes=5, owners=owners)
        (plan,) = await self.user.plan([task])
        self.check(plan.gang is not None and not plan.candidates, "no single pool has room for five nodes")
        (job,) = await self.user.submit(task)
        view = await self.wait(job)
        learned = json.loads(await self.output(view, "model.json"))
        parts = ", ".join(f"{run.nodes} at {run.site}" for run in view.runs)
        self.say(
            "6. five nodes over two owners learn one model together: {parts}; error {error:.0e}",
            "6. 跨两个主体的五个计算节点共同训练一个模型：{parts}；误差 {error:.0e}",
            parts=parts, error=learned["error"],
        )  # fmt: skip
        self.check(view.job.state is JobState.SUCCEEDED, "the gang over two owners succeeded")
        self.check({run.owner for run in view.runs} == set(owners), "both owners took their part")
        self.check(learned["nodes"] == 5, "five nodes learned")

    async def quote(self) -> None:
        """Ask before you take: a counter, accepted."""
        task = self.mine(
            name="inference",
            run="echo answered on $TIELINE_NUM_GPUS_PER_NODE cards; sleep 1",
            resources=(Resources(accelerator="ascend-910b", accelerator_count=2),),
        )
        quote = await self.user.ask(task, price_micro_cny=10_000_000, duration_s=600)
        self.check(quote.state == "open", f"the quote is open ({quote.state})")
        self.check(quote.is_countered, "the owner countered")
        self.say(
            "7. asked {pool} for 2 cards at 10.00 (listed {listed}); the owner countered {price} CNY; accepted",
            "7. 向 {pool} 询价 2 张卡、10.00 元（挂牌 {listed}）；主体还价 {price} 元；接受",
            pool=quote.pool, listed=show_money(quote.listed_price_micro_cny_per_unit_hour),
            price=show_money(quote.price_micro_cny_per_unit_hour),
        )  # fmt: skip
        view = await self.wait(await self.user.accept(quote.id))
        self.check(view.job.state is JobState.SUCCEEDED, "the quoted job succeeded")
        price = view.runs[-1].price_micro_cny_per_unit_hour
        self.check(price == quote.price_micro_cny_per_unit_hour, "the run was booked at the quoted price")

    async def refusal(self) -> None:
        """What nothing here can run is refused with its reasons."""
        task = self.mine(name="big", run="true", resources=(Resources(accelerator="h100", accelerator_count=8),))
        try:
            await self.user.submit(task)
        except TielineError as error:
            self.say(
                "8. refused ({code}): {message}", "8. 拒绝（{code}）：{message}", code=error.code, message=error.message
            )
            for reason in error.reasons:
                self.say("   {count} because {why}", "   {count} 个因为{why}", count=reason.count, why=reason)
            self.check(error.reasons, "the refusal has reasons")
        else:
            self.check(False, "eight H100 are refused")

    async def records(self, trained: JobView) -> None:
        """The classifier and an agent as signed records beside the pools: found, resolved, verified here."""
        model = next(output for output in trained.job.outputs if output.path == "model.joblib")
        run = trained.runs[-1]
        model_id, agent_id = f"{PREFIX}.lab/model/digits-svc", f"{PREFIX}.lab/agent/digit-reader"
        data = await self.user.resolve(self.dataset_id)
        await self.register(
            Draft(
                id=model_id,
                spec={
                    "title": "Digit classifier",
                    "description": "support-vector classifier of handwritten digits 手写数字分类器",
                    "sha256": model.sha256,
                    "size_bytes": model.size_bytes,
                    "sites": [run.site],
                    "framework": "scikit-learn",
                    "task": "image classification",
                    "metrics_millionths": {"accuracy": round(self.facts["accuracy"] * 1_000_000)},
                },
                links=(Link(rel="trained-on", id=self.dataset_id, sha256=data.sha256),),
            )
        )
        skills = ["read digits", "识别手写数字"]
        await self.register(
            Draft(id=agent_id, spec={"title": "Digit reader", "skills": skills, "protocols": ["a2a"]},
                  links=(Link(rel="uses", id=model_id),))
        )  # fmt: skip
        names = (self.dataset_id, model_id, agent_id)
        found = [(await self.user.find(words=words)).offers for words in ("digits", "手写数字")]
        kinds = sorted({offer.kind for answer in found for offer in answer})
        self.say(
            "9. find 'digits' and '手写数字' give {kinds}",
            "9. 用 'digits' 和 '手写数字' 查到 {kinds}",
            kinds=", ".join(kinds),
        )
        self.check(all(any(offer.id == name for answer in found for offer in answer) for name in names), "all found")
        root = self.stage_root(await self.user.exchange())
        for name in names:
            chain = await self.user.chain(name)
            verified = verify_chain([each.encode() for each in chain.envelopes], [root], int(time.time()))
            self.check(verified.record.id == name, f"{name} verifies")
            self.say(
                "   {id:<30} rev {rev}, {steps} signatures from the pinned root down to it verified here",
                "   {id:<30} 第 {rev} 版，自信任根起 {steps} 个签名已在本地验证",
                id=name, rev=verified.record.rev, steps=len(verified.steps),
            )  # fmt: skip
        self.facts["records"] = list(names)

    @staticmethod
    def stage_root(exchange: Any) -> Any:
        """What this machine pins: the prefix and key of its own exchange."""
        from tieline.model.record import DelegatedKey, Root

        key = DelegatedKey(kid=f"{exchange.prefix}#exchange", public=exchange.public, nb=0, exp=253_402_300_799)
        return Root(prefix=exchange.prefix, keys=(key,))

    async def history(self) -> None:
        """What happened to the long job, and how each run was isolated."""
        events = await self.user.history(self.jobs["long"].job.id)
        self.say(
            "10. history of long: {events}",
            "10. long 的经过：{events}",
            events=", ".join(_counted([e.kind for e in events])),
        )
        boxes = _counted([run.sandbox or "none" for view in self.jobs.values() for run in view.runs if run.sandbox])
        note = "" if self.is_boxed else " (no bubblewrap here: the owners trust ada by name)"
        self.say(
            "   isolation of the runs: {boxes}{note}",
            "   各次运行的隔离方式：{boxes}{note}",
            boxes=", ".join(boxes),
            note=note,
        )

    async def money(self) -> None:
        """One bill per owner that adds up to the user's, and the chain of the log."""
        owners = await self.admin.bills("owner")
        (mine,) = [bill for bill in await self.user.bills("user") if bill.party == "ada"]
        self.say("11. bills, at the booked prices", "11. 账单，按预留价格")
        for bill in owners:
            self.say(
                "   {owner:<18} {lines} runs  {charge:>10} CNY", "   {owner:<18} {lines} 次运行  {charge:>10} 元",
                owner=bill.party, lines=len(bill.lines), charge=show_money(bill.charge_micro_cny),
            )  # fmt: skip
        total = sum(bill.charge_micro_cny for bill in owners)
        self.say(
            "   ada owes {charge} CNY; the owners' bills add up to {total}", "   ada 应付 {charge} 元；各主体账单之和为 {total} 元",
            charge=show_money(mine.charge_micro_cny),
            total=show_money(total),
        )  # fmt: skip
        self.check(total == mine.charge_micro_cny, "the bills add up")
        billed = [line.run for bill in owners for line in bill.lines]
        self.check(len(billed) == len(set(billed)), "no run is billed twice")
        long_lines = [line for line in mine.lines if line.job == self.jobs["long"].job.id]
        self.check(len(long_lines) == 1, "the lost job appears once on the bill")
        chain = await self.admin.verify_log()
        self.check(chain.is_verified, "the event log's chain verifies")
        self.say(
            "   event log: {events} entries, hash chain verified up to {head}" if chain.is_verified else "   event log: BROKEN",
            "   事件日志：{events} 条，哈希链已验证至 {head}" if chain.is_verified else "   事件日志：哈希链断裂",
            events=chain.events, head=chain.head[:16],
        )  # fmt: skip
        self.facts["bills"] = {
            "owners": {bill.party: bill.charge_micro_cny for bill in owners}, "ada": mine.charge_micro_cny,
        }  # fmt: skip
        self.facts["chain_verified"] = chain.is_verified

    def summary(self, seconds: float) -> dict[str, Any]:
        """The demo as data."""
        jobs = {
            name: {
                "id": view.job.id,
                "state": view.job.state.value,
                "charged_micro_cny": view.job.charged_micro_cny,
                "runs": [
                    {"id": run.id, "site": run.site, "state": run.state.value, "sandbox": run.sandbox}
                    for run in view.runs
                ],
            }
            for name, view in self.jobs.items()
        }
        return {**self.facts, "jobs": jobs, "failed": self.wrong, "seconds": round(seconds, 2)}


def digits_file() -> Path:
    """The handwritten digits that ship with scikit-learn. Raises TielineError where it is not installed."""
    from importlib.util import find_spec

    from tieline.drivers.extras import bring

    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise TielineError(
            "not_found",
            "the demo trains with scikit-learn, which is not installed",
            hints=(bring("demo"),),
        )
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"


def _alive_below(folder: Path) -> int:
    """How many processes work in ``folder`` or were started with a path below it."""
    import psutil

    count = 0
    for process in psutil.process_iter(["cmdline", "cwd"]):
        said = [process.info["cwd"] or "", *(process.info["cmdline"] or ())]
        count += any(str(folder) in word for word in said)
    return count


def _counted(words: list[str]) -> list[str]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return [f"{count} x {word}" if count > 1 else word for word, count in counts.items()]


def temporary() -> Path:
    """A folder that is removed when the demo ends."""
    return Path(tempfile.mkdtemp(prefix="tieline-demo-"))


def shown(value: Any, lang: str) -> Any:
    """A reason as a sentence; anything else as it is."""
    from tieline.model.reason import Reason

    return sentence(value, lang) if isinstance(value, Reason) else value
