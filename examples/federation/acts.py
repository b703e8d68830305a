"""Acts: what the story does with the country, act by act; each checks what it claims, and goes on where that fails."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from country import BRANCH, PLACES, USERS, Country

from tieline.exchange.settlement import verify_usage
from tieline.model.api import JobView
from tieline.model.audit import HeadPage, HeadView
from tieline.model.job import JobState, Usage
from tieline.model.quantity import show_money
from tieline.model.reason import Reason, sentence
from tieline.model.record import DelegatedKey, Root
from tieline.registry import verify_chain

SIDES = ("steel", BRANCH, "shanghai", "hub")  # whose books are checked; the first two are those of the cut run
OVER = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
SILENT_MS = 5_000
UNREACHED = ("site_not_admitted", "site_silent", "branch_silent")
NEVER_S = 253_402_300_799


class Story:
    """One telling: ``say`` writes a line, ``facts`` holds the summary, ``wrong`` what did not hold."""

    def __init__(self, country: Country, say: Callable[[str], None], *, is_boxed: bool) -> None:
        self.country, self.say, self.is_boxed = country, say, is_boxed
        self.jobs: dict[str, str] = {}  # name of a task -> its job
        self.facts: dict[str, Any] = {}
        self.wrong: list[str] = []
        self.checks = 0
        self.peering_s = 0.0  # when the first link was asked for

    def check(self, holds: object, what: str) -> None:
        """Note what does not hold; the story goes on, and ends with exit code 1."""
        self.checks += 1
        if not holds:
            self.wrong.append(what)
            self.say(f"   FAILED: {what}")

    async def tell(self) -> None:
        await self.opened()
        await self.peered()
        await self.replicated()
        await self.found()
        await self.used()
        await self.cut_off()
        await self.mended()
        await self.paid()
        await self.audited()

    # -- who is here --------------------------------------------------------------------------------------------------

    async def opened(self) -> None:
        country = self.country
        await country.open()
        self.say("1. four exchanges and six sites, each of another owner, each a process of its own on this machine")
        owners = []
        for name, place in PLACES.items():
            self.say(f"   {country.id(name):<24} {place.scope}")
            for site in await country.clients[name].sites():
                owners.append(site.owner)
                for pool in site.pools:
                    emulated = " (emulated)" if pool.is_emulated else ""
                    cards = f"{pool.accelerator_count} x {pool.accelerator}{emulated}"
                    size = cards if pool.accelerator_count else f"{pool.core_count} cores"
                    price = show_money(pool.price_micro_cny_per_unit_hour)
                    self.say(f"     {pool.id:<26} {size:<28} {price:>6} CNY/h  {pool.sandbox or 'no sandbox'}")
        self.check(len(set(owners)) == len(owners) == 6, f"six sites of six owners ({len(set(owners))})")
        self.facts["owners"] = sorted(owners)
        if not self.is_boxed:
            self.say("   there is no bubblewrap here: the owners let these tasks run without a sandbox")

    # -- two consents -------------------------------------------------------------------------------------------------

    async def peered(self) -> None:
        country = self.country
        self.say("2. they peer: each link has two consents, and each side pins the key that the other proved")
        self.say("   $ tieline -x shanghai exchange peer add URL --role parent --use --cards 8 --card-hours 100")
        self.say("   $ tieline -x hub exchange peer accept cn.sh/exchange/main --use --cards 8 --card-hours 100")
        self.peering_s = time.monotonic()
        await country.peer()

        async def active() -> bool:
            return all(each.state == "active" for each in await self.branches())

        await country.until("every link is active", active)
        links = await self.branches()
        self.check(len(links) == 10, f"five links, each known at both ends ({len(links)})")
        pins = json.loads((await country.tieline("hub", "exchange", "peer", "ls", "--json")).out)
        for each in pins["branches"]:
            self.say(f"   hub pinned {each['fingerprint']} of {each['exchange']}, its {each['role']}")
        self.facts["links"] = len(links) // 2

    async def branches(self) -> list[Any]:
        """Every branch as every exchange sees it."""
        pages = [
            json.loads(await self.country.clients[name].http.raw("GET", "/v1/peers"))["branches"] for name in PLACES
        ]
        return [msgspec.convert(each, _Branch) for page in pages for each in page]

    # -- records ------------------------------------------------------------------------------------------------------

    async def replicated(self) -> None:
        country = self.country
        pools = [pool for name in PLACES for site in await country.clients[name].sites() for pool in site.pools]

        async def everywhere() -> bool:
            answers = [await country.clients[name].find("cores >= 1", kind="pool") for name in PLACES]
            return all(len(answer.offers) == len(pools) for answer in answers)

        await country.until("every exchange finds every pool", everywhere)
        seconds = time.monotonic() - self.peering_s
        count = len(pools)
        self.say(
            f"3. {seconds:.1f} s after the first word every exchange holds the records of all {count} pools, verified"
        )
        name = "cn.gd.cloud/pool/ascend"
        for at, pinned in (("shanghai", "hub"), ("steel", BRANCH)):
            chain = await country.clients[at].chain(name)
            envelopes = [each.encode() for each in chain.envelopes]
            verified = verify_chain(envelopes, [self.root(pinned)], int(time.time()))
            self.check(verified.record.id == name, f"{name} verifies at {at}")
            steps = len(verified.steps)
            self.say(f"   {at}'s copy of {name}: {steps} signatures from {pinned}'s key down to its owner's words hold")
        self.facts["pools"] = len(pools)

    def root(self, name: str) -> Root:
        """The key of an exchange, as somebody who checks would pin it."""
        prefix, public = PLACES[name].prefix, self.country.keys[self.country.id(name)]
        return Root(prefix=prefix, keys=(DelegatedKey(kid=f"{prefix}#exchange", public=public, nb=0, exp=NEVER_S),))

    # -- find ---------------------------------------------------------------------------------------------------------

    async def found(self) -> None:
        country, query = self.country, "count >= 4 and price < 20"
        self.say(
            f"4. $ tieline -x alice find '{query}' --budget-ms 2000      (alice is a user of the industry's exchange)"
        )

        async def whole() -> Any:
            said = await country.tieline("alice", "find", query, "--budget-ms", "2000", "--json")
            answer = json.loads(said.out)
            return answer if answer.get("offers") and not answer.get("is_partial") else None

        answer = await country.until("an answer from every branch", whole)
        for offer in answer["offers"]:
            cards = (
                f"{offer['attributes']['free']} of {offer['attributes']['count']} {offer['attributes']['accelerator']}"
            )
            price = show_money(int(offer["attributes"]["price_micro_cny"]))
            self.say(f"   {offer['id']:<26} {cards} free, {price} CNY per card-hour")
        for branch in answer["branches"]:
            age_ms = time.time() * 1000 - branch["as_of_ms"]
            self.say(f"   {branch['exchange']:<26} answered, as of {age_ms / 1000:.1f} s ago")
        names = [offer["id"] for offer in answer["offers"]]
        self.check(names == ["cn.gd.cloud/pool/ascend", "cn.sh.carrier/pool/a100"], f"found behind others: {names}")

    # -- use ----------------------------------------------------------------------------------------------------------

    async def used(self) -> None:
        country = self.country
        self.say("5. jobs across owners; what has cards here is emulated, the work is real")
        await asyncio.gather(
            self.submitted("alice", "furnace"),
            self.submitted("bob", "welds"),
        )
        furnace, welds = await asyncio.gather(self.over("alice", "furnace"), self.over("bob", "welds"))
        await self.tell_job("alice", furnace, "furnace 2 is the hottest: 1548.0 C of 9 readings")
        await self.tell_job("bob", welds, "seam 25: 95")
        self.check(furnace.runs[-1].via == country.id("shanghai"), "furnace ran behind shanghai")
        self.check(welds.runs[-1].via == country.id("hub"), "welds went by the hub")
        there = await country.clients[BRANCH].usage()
        users = [line.user for line in there.lines if line.pool == "cn.gd.cloud/pool/ascend"]
        self.say(f"   guangdong knows bob as {', '.join(users)}: each exchange is a user of the next")
        self.check(users == ["bob@cn.sh@cn"], f"the way of bob's job is in his name there ({users})")
        fetched = country.folder / "fetched"
        await country.tieline("alice", "fetch", self.jobs["furnace"], str(fetched))
        files = list(fetched.rglob("hottest.txt"))
        self.check(len(files) == 1 and "furnace 2" in files[0].read_text(), "the output of furnace was fetched")

    async def submitted(self, who: str, task: str) -> None:
        """Submit a task file by the command line."""
        file = self.task(task)
        said = await self.country.tieline(who, "run", "-y", "-d", "--json", str(file))
        self.jobs[task] = str(json.loads(said.out)[0]["id"])

    def task(self, name: str) -> Path:
        """The task file; where nothing isolates work, a copy that asks to be trusted."""
        file = Path(__file__).resolve().parent / "tasks" / f"{name}.yaml"
        if self.is_boxed:
            return file
        text = file.read_text().replace("workdir: ", f"workdir: {file.parent}/")
        copy = self.country.folder / file.name
        copy.write_text(f"{text}trusted: true\n")
        return copy

    async def over(self, who: str, task: str) -> JobView:
        """The job once it has ended."""
        client = self.country.clients[who]

        async def ended() -> JobView | None:
            view = await client.job(self.jobs[task])
            return view if view.job.state in OVER else None

        view: JobView = await self.country.until(f"{task} ends", ended)
        return view

    async def tell_job(self, who: str, view: JobView, last: str) -> None:
        """What became of a job, and that its output is here."""
        run, task = view.runs[-1], view.job.task
        said = (await self.country.clients[who].log(view.job.id)).decode().strip().splitlines()
        box = run.sandbox or "no sandbox"
        self.say(f"   {task.name} of {who}@{PLACES[USERS[who]].prefix}: behind {run.via}, on {run.pool}, {box}")
        self.say(f"     {said[-1] if said else '-'}")
        self.check(view.job.state is JobState.SUCCEEDED, f"{task.name} succeeded ({view.job.state.value})")
        self.check(len(view.runs) == 1, f"{task.name} was run once ({len(view.runs)})")
        self.check(said[-1:] == [last], f"{task.name} said what it had to ({said[-1:]})")

    # -- the cut ------------------------------------------------------------------------------------------------------

    async def cut_off(self) -> None:
        country = self.country
        alice = country.clients["alice"]
        await self.submitted("alice", "long")

        async def running() -> bool:
            return b"step 2:" in await alice.log(self.jobs["long"])

        await country.until("long runs", running)
        run = (await alice.job(self.jobs["long"])).runs[-1]
        country.cut()
        began_s = time.monotonic()
        self.check(run.via == country.id(BRANCH), f"long runs behind {BRANCH} ({run.via})")
        self.say(f"6. `long` of alice runs on {run.pool}; now every line to {BRANCH} is cut: a digger found the fibre")

        async def silent() -> bool:
            branches = [await country.branch(at, BRANCH) for at in ("hub", "steel")]
            return all(each.stale_ms > SILENT_MS and each.error is not None for each in branches)

        await country.until("hub and steel notice", silent)
        self.say("   what `tieline -x steel exchange status` says:")
        status = json.loads((await country.tieline("steel", "exchange", "status", "--json")).out)
        for each in status["branches"]:
            reason = msgspec.convert(each["error"], Reason) if each["error"] else None
            why = sentence(reason) if reason else "-"
            trouble = f"silent for {each['stale_ms'] / 1000:.0f} s: {why}" if reason else "heard"
            self.say(f"   {each['exchange']:<24} serial {each['serial']:>3}, {each['lag']} behind, {trouble}"[:160])
        await self.while_cut(run.pool)
        view = await alice.job(self.jobs["long"])
        self.check(view.job.state is JobState.RUNNING, f"alice's job is not given up ({view.job.state.value})")
        self.check(len(view.runs) == 1, "it is not placed a second time")

        async def ended_there() -> bool:
            lines = (await country.clients[BRANCH].usage()).lines
            return any((line.pool, line.origin) == (run.pool, country.id("steel")) for line in lines)

        await country.until("the run ends behind the cut", ended_there)
        self.say(
            f"   {time.monotonic() - began_s:.0f} s after the cut `long` has ended there; to alice it runs on, neither "
            "lost nor placed again"
        )
        self.facts["cut_s"] = round(time.monotonic() - began_s, 1)

    async def while_cut(self, pool: str) -> None:
        """What is known outside, and that the branch goes on alone."""
        country = self.country
        answer = json.loads(
            (await country.tieline("alice", "find", f'site == "{_site(pool)}"', "--kind", "pool", "--json")).out
        )
        (branch,) = [each for each in answer["branches"] if each["exchange"] == country.id(BRANCH)]
        age_s = time.time() - branch["as_of_ms"] / 1000
        self.check(answer.get("is_partial") and age_s > SILENT_MS / 2_000, "the answer says how old and partial it is")
        self.check(len(answer["offers"]) == 1, "its records stay: a silence is no death")
        self.say(
            f"   alice still finds its pools; the answer is marked partial, {branch['exchange']} {age_s:.0f} s old"
        )
        await self.submitted("alice", "later")
        job = (await country.clients["alice"].job(self.jobs["later"])).job
        self.check(job.state is JobState.QUEUED, f"later waits ({job.state.value})")
        why = json.loads((await country.tieline("alice", "why", self.jobs["later"], "--json")).out)
        reasons = msgspec.convert(why["reasons"], tuple[Reason, ...])
        self.check(any(each.code in UNREACHED for each in reasons), f"and says that nothing leads there ({reasons})")
        self.say("   `later` of alice asks for what only the branch has, and waits; `tieline why` says for its pools:")
        for each in reasons:
            self.say(f"     {each.count} x {sentence(each)}")
        await self.submitted("carol", "meanwhile")
        alone = await self.over("carol", "meanwhile")
        self.check(alone.job.state is JobState.SUCCEEDED, f"meanwhile succeeded ({alone.job.state.value})")
        self.say(
            f"   inside, carol of {PLACES[BRANCH].prefix} ran `meanwhile` on {alone.runs[-1].pool}: it goes on alone"
        )

    # -- the repair ---------------------------------------------------------------------------------------------------

    async def mended(self) -> None:
        country, alice = self.country, self.country.clients["alice"]
        await country.mend()
        began_s = time.monotonic()
        long = await self.over("alice", "long")
        seconds = time.monotonic() - began_s
        self.say(f"7. the lines are mended; {seconds:.1f} s later alice has the end of `long`, its log and its output")
        total = sum(number * number for number in range(1, 61))
        await self.tell_job("alice", long, f"step 60: {total}")
        steps = (await alice.log(long.job.id)).decode().split("step ")[1:]
        self.check([int(step.split(":")[0]) for step in steps] == list(range(1, 61)), "its log has every line once")
        (output,) = long.job.outputs
        self.check(int(await alice.read_blob(output.sha256)) == total, "its output is right")
        later = await self.over("alice", "later")
        self.check(later.job.state is JobState.SUCCEEDED, f"later succeeded ({later.job.state.value})")
        self.say(f"   `later`, which had waited for the branch, ran on {later.runs[-1].pool}")

        async def caught_up() -> bool:
            found = [await country.branch(at, BRANCH) for at in ("hub", "steel")]
            return all(each.is_listening and each.lag == 0 and each.error is None for each in found)

        await country.until("all branches are listened to again", caught_up)
        self.say("   hub and steel follow guangdong's records again: nothing is behind")
        self.facts["reconciled_s"] = round(seconds, 1)

    # -- money --------------------------------------------------------------------------------------------------------

    async def paid(self) -> None:
        """Every line across exchanges is held by both sides, word for word, and proved from keys alone."""
        country = self.country

        async def answered() -> list[Usage] | None:
            lines = [line for name in PLACES for line in (await country.clients[name].usage()).lines]
            return lines if all(line.given_answer for line in lines if line.origin) else None

        await country.until("every claim is answered", answered)
        books = {name: (await country.clients[name].usage()).lines for name in PLACES}
        self.say("8. the same signed words on both sides of each run")
        pairs = 0
        for name, lines in books.items():
            for line in lines:
                if not line.via:
                    continue
                other = next(each for each in PLACES if country.id(each) == line.via)
                same = [
                    each for each in books[other] if each.given_claim == line.claim and each.given_answer == line.answer
                ]
                pairs += len(same)
                self.check(len(same) == 1, f"{other} holds the words of {name} on {line.run}")
                self.check(all(each.charge_micro_cny == line.charge_micro_cny for each in same), "the same sum")
                self.check(verify_usage(line, country.keys) == (), f"{line.run} is proved from the exchanges' keys")
                self.say(
                    f"   {name:<9} pays {other:<9} {show_money(line.charge_micro_cny):>9} CNY for {line.unit_seconds}"
                    f" {line.unit}-seconds on {line.pool}"
                )
        self.check(pairs == 5, f"five lines between exchanges: one each, and two of the job by the hub ({pairs})")
        billed = [line.run for line in books["steel"] if line.job == self.jobs["long"]]
        self.check(len(billed) == 1, f"the run that was cut off is billed once ({len(billed)})")
        times = "once" if len(billed) == 1 else f"{len(billed)} times"
        self.say(f"   the run that was cut off is on alice's bill {times}; nothing anywhere is in dispute")
        self.check(
            not any(line.disputed_micro_cny for lines in books.values() for line in lines), "nothing is disputed"
        )
        pins = [word for name in PLACES for word in ("--pin", f"{country.id(name)}={country.keys[country.id(name)]}")]
        found = await asyncio.gather(
            *(country.tieline(name, "bill", "verify", "--json", *pins, status=None) for name in SIDES)
        )
        for name, said in zip(SIDES, found, strict=True):
            verdict = json.loads(said.out)
            sound = said.code == 0 and verdict["is_sound"] and not verdict["unpinned"]
            self.check(sound, f"the books of {name} hold")
            self.say(
                f"   $ tieline -x {name} bill verify --pin ...   {verdict['lines']} lines, {verdict['remote']} across "
                f"exchanges: {'every one holds' if sound else 'WRONG'}"
            )
        await self.forged(pins)
        self.facts["lines"] = {name: len(lines) for name, lines in books.items()}
        self.facts["between"] = pairs

    async def forged(self, pins: list[str]) -> None:
        """A bill taken away as a file proves itself without any exchange, and not when a figure is changed."""
        file = self.country.folder / "bill.json"
        file.write_text((await self.country.tieline("steel", "bill", "--json", "--receipts")).out)
        held = await self.country.tieline("nobody", "bill", "verify", "--file", str(file), *pins, status=None)
        bill = json.loads(file.read_text())
        bill["lines"][0]["charge_micro_cny"] -= 1
        file.write_text(json.dumps(bill))
        wrong = await self.country.tieline("nobody", "bill", "verify", "--file", str(file), *pins, status=None)
        self.check(held.code == 0, f"a bill in a file holds ({held.err.strip()})")
        self.check(wrong.code == 1, f"a changed bill does not ({wrong.code})")
        self.say(
            "   taken away as a file it holds as well; with one charge lowered by a millionth of a yuan it does not"
        )

    # -- audit --------------------------------------------------------------------------------------------------------

    async def audited(self) -> None:
        country = self.country
        self.say("9. the logs of both sides, checked elsewhere from a file and a key")
        for name in ("steel", BRANCH):
            file, key = country.folder / f"{name}.ndjson", country.keys[country.id(name)]
            await country.tieline(name, "audit", "export", str(file))
            held = await country.tieline("nobody", "audit", "verify", str(file), "--key", key, "--json", status=None)
            verdict = json.loads(held.out)
            self.check(held.code == 0 and verdict["is_verified"], f"the log of {name} holds")
            bent = country.folder / "bent.ndjson"
            bent.write_bytes(file.read_bytes().replace(b"alice", b"mallo", 1))
            wrong = await country.tieline("nobody", "audit", "verify", str(bent), "--key", key, status=None)
            self.check(wrong.code == 1, f"the log of {name} does not hold with a name changed ({wrong.code})")
            self.say(f"   {name:<9} {verdict['last']} entries hold; with one name in them changed they do not")
        await self.witnessed()

    async def witnessed(self) -> None:
        """What steel was shown of the branch's log binds the branch: its export must go on from there."""
        country = self.country
        client, other = country.clients["steel"], country.id(BRANCH)

        async def seen() -> HeadView | None:
            page = await client.http.call("GET", "/v1/audit/heads", HeadPage, params={"exchange": other})
            return page.heads[-1] if page.heads else None

        head: HeadView = await country.until(f"steel was shown a head of {BRANCH}'s log", seen)
        pin = country.folder / "witnessed.json"
        pin.write_text(json.dumps({"exchange": other, "public": country.keys[other], "statement": head.statement}))
        file = country.folder / f"{BRANCH}.ndjson"
        held = await country.tieline("nobody", "audit", "verify", str(file), "--pin", str(pin), status=None)
        self.check(held.code == 0, f"{BRANCH}'s log goes on from what steel was shown ({held.err.strip()})")
        self.say(
            f"   steel is a witness: {BRANCH} signed {head.size} entries to it before, and the log goes on from there"
        )

    def summary(self, seconds: float) -> dict[str, Any]:
        """The story as data."""
        return {
            **self.facts,
            "jobs": self.jobs,
            "checks": self.checks,
            "commands": self.country.commands,
            "failed": self.wrong,
            "seconds": round(seconds, 2),
        }


class _Branch(msgspec.Struct):
    exchange: str
    state: str


def _site(pool: str) -> str:
    """The site of a pool of this story: its owner's only one."""
    owner = pool.partition("/")[0]
    return next(
        f"{owner}/site/{site}"
        for place in PLACES.values()
        for site, name in place.sites
        if owner == f"{place.prefix}.{name}"
    )
