"""The async client: every operation of the API as a method. The synchronous face drives this one."""

from __future__ import annotations

import asyncio
import base64
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO, Self, TypeVar

import msgspec

from tieline.client.context import Context, chosen
from tieline.client.packing import digest_of, packed
from tieline.drivers.http import HttpClient, ServerEvent
from tieline.drivers.http.resume import resumed
from tieline.model import api
from tieline.model.bill import Bill
from tieline.model.booking_api import (
    CalendarView,
    CircuitBody,
    CircuitPage,
    CircuitView,
    NightBody,
    NightView,
    ReceiptBody,
    ReceiptPage,
    ReceiptView,
    ResizeBody,
    TariffBody,
    TransferBody,
    TransferPage,
    TransferView,
)
from tieline.model.circle import AccessPoint, Circle, CircleBody, CoverageBody, CoverageView, Measure
from tieline.model.circuit import Circuit, Receipt
from tieline.model.error import TielineError
from tieline.model.job import JOB_ENDED, Job
from tieline.model.network_api import LinksBody, NetworkChangedView, TopologyBody, TopologyView
from tieline.model.party import Role
from tieline.model.plan import Answer, Plan, Quote
from tieline.model.project import Member
from tieline.model.rekeying import RekeyBody, RekeyView
from tieline.model.tariff import Tariff
from tieline.model.task import Mount, Task
from tieline.model.topology import Topology
from tieline.model.transfer import Transfer

T = TypeVar("T")
CHUNK_BYTES = 1 << 20
MOST_BLOB_BYTES = 8 << 30
WAIT_S = 25


def renewal_of(known: Context) -> Callable[[], Awaitable[str]] | None:
    """What renews the token of ``known``; None where it is kept as it is."""
    if known.login is None:
        return None
    from tieline.client.renewal import Renewal

    return Renewal(known)


def in_path(identifier: str) -> str:
    """An identifier as it stands in a path: ``~`` for ``/``."""
    return urllib.parse.quote(identifier.replace("/", "~"), safe="~")


class AsyncClient:
    """One exchange as one caller. Close it, or use ``async with``.

    Raises TielineError for every refusal; its code, reasons and hints are the exchange's own.
    """

    def __init__(self, url: str = "", token: str = "", *, context: str = "") -> None:
        """Without a URL the context says which exchange (see `tieline.client.context`)."""
        known = Context(url=url, token=token) if url else chosen(context)
        self.context = known
        self.http = HttpClient(known.url, bearer=known.token, ca_file=known.ca_file)
        self.http.renew = renewal_of(known)
        self._sealing = ""

    @classmethod
    def of(cls, context: Context) -> AsyncClient:
        """A client of one known context."""
        made = cls(context.url, context.token)
        made.context = context
        made.http = HttpClient(context.url, bearer=context.token, ca_file=context.ca_file)
        made.http.renew = renewal_of(context)
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self.http.close()

    async def _get(self, path: str, reply: type[T], **params: str | int) -> T:
        return await self.http.call("GET", path, reply, params={k: v for k, v in params.items() if v != ""})

    async def _post(self, path: str, reply: type[T], body: msgspec.Struct | None = None, *, key: str = "") -> T:
        return await self.http.call("POST", path, reply, body=body, key=key)

    # -- who ----------------------------------------------------------------------------------------------------------

    async def exchange(self) -> api.ExchangeView:
        """Who answers, with the keys to pin."""
        return await self._get("/v1/exchange", api.ExchangeView)

    async def me(self) -> api.MeView:
        """The caller as the exchange sees it."""
        return await self._get("/v1/me", api.MeView)

    async def status(self) -> api.StatusView:
        """How the exchange is doing."""
        return await self._get("/v1/status", api.StatusView)

    async def situation(self) -> api.SituationView:
        """Supply, demand, prices and load in sums."""
        return await self._get("/v1/situation", api.SituationView)

    # -- records ------------------------------------------------------------------------------------------------------

    async def register(self, envelope: str) -> api.RecordView:
        """Store a signed record (a withdrawal is one too)."""
        return await self._post("/v1/records", api.RecordView, api.RecordBody(envelope=envelope))

    async def resolve(self, identifier: str) -> api.RecordView:
        """The record of an identifier."""
        return await self._get(f"/v1/records/{in_path(identifier)}", api.RecordView)

    async def chain(self, identifier: str) -> api.ChainView:
        """All that is needed to verify the record without believing the exchange."""
        return await self._get(f"/v1/chain/{in_path(identifier)}", api.ChainView)

    async def records(self, prefix: str = "", kind: str = "", after: str = "", limit: int = 100) -> api.RecordPage:
        """A page of records."""
        return await self._get("/v1/records", api.RecordPage, prefix=prefix, kind=kind, after=after, limit=limit)

    # -- find, plan, quotes -------------------------------------------------------------------------------------------

    async def find(
        self,
        query: str = "",
        *,
        words: str = "",
        kind: str = "",
        order: str = "price",
        limit: int = 20,
        partners: Sequence[str] = (),
        branch_budget_ms: int = 200,
    ) -> Answer:
        """Ranked offers, and counted reasons for the rest. Peers are asked what is free there for so long; 0: not."""
        body = api.FindBody(
            query=query,
            words=words,
            kind=kind,
            order=order,
            limit=limit,
            partners=tuple(partners),
            branch_budget_ms=branch_budget_ms,
        )
        return await self._post("/v1/find", Answer, body)

    async def plan(self, tasks: Sequence[Task], *, project: str = "") -> tuple[Plan, ...]:
        """A dry run: what would happen now."""
        body = api.PlanBody(tasks=tuple(tasks), project=project)
        return (await self._post("/v1/plans", api.PlanPage, body)).plans

    async def ask(
        self, task: Task, *, pool: str = "", price_micro_cny: int = 0, duration_s: int = 0, wait_s: float = 10
    ) -> Quote:
        """Ask an owner for a quote and wait for the answer."""
        body = api.QuoteBody(task=task, pool=pool, price_micro_cny=price_micro_cny, duration_s=duration_s)
        quote = await self._post("/v1/quotes", Quote, body)
        for _ in range(max(1, int(wait_s / 0.05))):
            if quote.state != "asked":
                break
            await asyncio.sleep(0.05)
            quote = await self.quote(quote.id)
        return quote

    async def quote(self, name: str) -> Quote:
        """A quote as it stands."""
        return await self._get(f"/v1/quotes/{in_path(name)}", Quote)

    async def accept(self, quote: str, secrets: dict[str, str] | None = None, *, project: str = "") -> Job:
        """Accept a quote: this books it."""
        body = api.AcceptBody(sealed_secrets=await self._sealed(secrets), project=project)
        return (await self._post(f"/v1/quotes/{in_path(quote)}/accept", api.JobView, body)).job

    # -- jobs ---------------------------------------------------------------------------------------------------------

    async def submit(
        self,
        *tasks: Task,
        pipeline: str = "",
        project: str = "",
        secrets: dict[str, str] | None = None,
        key: str = "",
    ) -> tuple[Job, ...]:
        """Submit one task, or several that run one after the other. The answer means: it will not be forgotten.

        Without a ``project`` the jobs count for the caller's only one, or for none.
        """
        sealed = await self._sealed(secrets)
        body = api.JobsBody(tasks=tasks, pipeline=pipeline, sealed_secrets=sealed, project=project)
        return (await self._post("/v1/jobs", api.JobPage, body, key=key)).jobs

    async def job(self, name: str, wait_s: int = 0) -> api.JobView:
        """A job with its runs; with ``wait_s`` the answer comes when it has ended, or then."""
        return await self._get(f"/v1/jobs/{in_path(name)}", api.JobView, wait_s=wait_s)

    async def wait(self, name: str, timeout_s: float | None = None) -> api.JobView:
        """Wait until the job has ended. Raises TielineError `timeout`."""
        deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        while True:
            left = WAIT_S if deadline is None else deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise TielineError("timeout", f"`{name}` has not ended after {timeout_s:g} s")
            view = await self.job(name, wait_s=max(1, min(WAIT_S, int(left))))
            if view.job.state in JOB_ENDED:
                return view

    async def jobs(
        self,
        state: str = "",
        user: str = "",
        before: str = "",
        limit: int = 100,
        *,
        pipeline: str = "",
        project: str = "",
    ) -> api.JobPage:
        """Jobs, newest first: the caller's own, or those of a project that it is in."""
        asked = {"state": state, "user": user, "pipeline": pipeline, "project": project, "before": before}
        return await self._get("/v1/jobs", api.JobPage, limit=limit, **asked)

    async def stop(self, name: str, why: str = "") -> Job:
        """Stop a job."""
        return (await self._post(f"/v1/jobs/{in_path(name)}/stop", api.JobView, api.StopBody(why=why))).job

    async def why(self, name: str) -> api.WhyView:
        """Why a job is where it is."""
        return await self._get(f"/v1/jobs/{in_path(name)}/why", api.WhyView)

    async def history(self, name: str) -> tuple[api.EventView, ...]:
        """Everything that happened to a job, oldest first."""
        return (await self._get(f"/v1/jobs/{in_path(name)}/history", api.EventPage)).events

    async def log(self, name: str, node: int = 0, offset: int = 0, run: str = "") -> bytes:
        """The output that is kept of the job's latest (or the named) run."""
        params: dict[str, str | int] = {"node": node, "offset": offset}
        if run:
            params["run"] = run
        return await self.http.raw("GET", f"/v1/jobs/{in_path(name)}/log", params=params)

    async def follow(self, name: str, node: int = 0) -> AsyncIterator[bytes]:
        """The output as it comes, over all runs, until the job has ended."""
        path = f"/v1/jobs/{in_path(name)}/log/stream"
        async for event in self.http.events(path, params={"node": node}):
            if event.event == "end":
                return
            if event.event in ("log", "message") and event.data:
                yield base64.b64decode(event.data)

    # -- the network --------------------------------------------------------------------------------------------------

    async def topology(self) -> TopologyView:
        """The topology as it was declared, and the links that are down."""
        return await self._get("/v1/network/topology", TopologyView)

    async def circle(self, place: str, measure: Measure) -> Circle:
        """The sites within a time of a place, outside and unknown, with the readings that say so."""
        return await self._post("/v1/circles", Circle, CircleBody(place=place, measure=measure))

    async def coverage(
        self, measure: Measure, points: Sequence[AccessPoint] = (), *, target_ppm: int = 750_000
    ) -> CoverageView:
        """The weighted share of access points that have compute within the bound, by region."""
        body = CoverageBody(measure=measure, points=tuple(points), target_ppm=target_ppm)
        return await self._post("/v1/circles/coverage", CoverageView, body)

    async def change_topology(self, topology: Topology, *, why: str = "") -> NetworkChangedView:
        """Declare the network anew, whole; for network operators."""
        body = TopologyBody(topology=topology, why=why)
        return await self._post("/v1/network/topology", NetworkChangedView, body)

    async def change_links(
        self, *, down: Sequence[str] = (), up: Sequence[str] = (), why: str = ""
    ) -> NetworkChangedView:
        """Cut and restore links; what is booked over them moves. For network operators."""
        body = LinksBody(down=tuple(down), up=tuple(up), why=why)
        return await self._post("/v1/network/links", NetworkChangedView, body)

    # -- projects -----------------------------------------------------------------------------------------------------

    async def projects(self) -> tuple[api.ProjectView, ...]:
        """The projects that the caller may see, without their members."""
        return (await self._get("/v1/projects", api.ProjectPage)).projects

    async def project(self, name: str) -> api.ProjectView:
        """One project with its members, what it used this month and what it holds now."""
        return await self._get(f"/v1/projects/{in_path(name)}", api.ProjectView)

    async def create_project(self, body: api.ProjectBody) -> api.ProjectView:
        """Make a project; for admins."""
        return await self._post("/v1/projects", api.ProjectView, body)

    async def set_project(self, name: str, body: api.ProjectSetBody) -> api.ProjectView:
        """Change the terms of a project; for admins."""
        return await self._post(f"/v1/projects/{in_path(name)}/set", api.ProjectView, body)

    async def change_members(
        self, name: str, put: Sequence[Member] = (), remove: Sequence[Member] = ()
    ) -> api.ProjectView:
        """Put users and groups into a project or take them out; for its managers and admins."""
        body = api.MembersBody(put=tuple(put), remove=tuple(remove))
        return await self._post(f"/v1/projects/{in_path(name)}/members", api.ProjectView, body)

    async def close_project(self, name: str, *, is_closed: bool = True) -> api.ProjectView:
        """Take no new jobs in a project, or take them again; for admins."""
        what = "close" if is_closed else "reopen"
        return await self._post(f"/v1/projects/{in_path(name)}/{what}", api.ProjectView)

    # -- transfers, circuits ------------------------------------------------------------------------------------------

    async def order_transfer(self, body: TransferBody, *, key: str = "") -> TransferView:
        """Book room for bytes, or say what would be booked."""
        return await self._post("/v1/transfers", TransferView, body, key=key)

    async def transfers(self, state: str = "", user: str = "", before: str = "", limit: int = 100) -> TransferPage:
        """Transfers, newest first: the caller's own, or for who runs the network everybody's."""
        asked = {"state": state, "user": user, "before": before}
        return await self._get("/v1/transfers", TransferPage, limit=limit, **asked)

    async def transfer(self, name: str) -> Transfer:
        """One transfer as it stands."""
        return (await self._get(f"/v1/transfers/{in_path(name)}", TransferView)).transfer

    async def cancel_transfer(self, name: str) -> Transfer:
        """Give its room back."""
        return (await self._post(f"/v1/transfers/{in_path(name)}/cancel", TransferView)).transfer

    async def book_night(self, body: NightBody, *, key: str = "") -> NightView:
        """Decide many transfers together."""
        return await self._post("/v1/nights", NightView, body, key=key)

    async def order_circuit(self, body: CircuitBody, *, key: str = "") -> CircuitView:
        """Book a circuit, or say what would be booked."""
        return await self._post("/v1/circuits", CircuitView, body, key=key)

    async def circuits(self, state: str = "", user: str = "", before: str = "", limit: int = 100) -> CircuitPage:
        """Circuits, newest first: the caller's own, or for who runs the network everybody's."""
        asked = {"state": state, "user": user, "before": before}
        return await self._get("/v1/circuits", CircuitPage, limit=limit, **asked)

    async def circuit(self, name: str) -> Circuit:
        """One circuit as it stands."""
        return (await self._get(f"/v1/circuits/{in_path(name)}", CircuitView)).circuit

    async def resize_circuit(self, name: str, rate_bps: int) -> CircuitView:
        """Another rate on the same routes."""
        return await self._post(f"/v1/circuits/{in_path(name)}/resize", CircuitView, ResizeBody(rate_bps=rate_bps))

    async def cancel_circuit(self, name: str) -> Circuit:
        """Give its rate back."""
        return (await self._post(f"/v1/circuits/{in_path(name)}/cancel", CircuitView)).circuit

    async def give_receipt(self, receipt: Receipt) -> ReceiptView:
        """Say what was seen of a transfer or a circuit."""
        return await self._post("/v1/receipts", ReceiptView, ReceiptBody(receipt=receipt))

    async def receipts(self, subject: str, after: int = 0, limit: int = 100) -> tuple[Receipt, ...]:
        """What was seen of one, oldest first."""
        page = await self._get(f"/v1/receipts/{in_path(subject)}", ReceiptPage, after=after, limit=limit)
        return page.receipts

    async def calendar(self, link: str = "", *, from_ms: int = 0, until_ms: int = 0, columns: int = 48) -> CalendarView:
        """What is free and booked of each link, or of one."""
        spans = {"from_ms": from_ms, "until_ms": until_ms, "columns": columns}
        return await self._get("/v1/calendar", CalendarView, link=link, **spans)

    async def tariff(self) -> Tariff:
        """What bytes and rates cost now."""
        return await self._get("/v1/tariff", Tariff)

    async def change_tariff(self, body: TariffBody) -> Tariff:
        """New prices for what is ordered from now on; for who runs the network."""
        return await self._post("/v1/tariff", Tariff, body)

    # -- money, log ---------------------------------------------------------------------------------------------------

    async def usage(self, job: str = "", after: str = "", limit: int = 1000, *, project: str = "") -> api.UsagePage:
        """Usage lines that the caller may see; of a project that it is in, all."""
        asked = {"job": job, "after": after, "project": project}
        return await self._get("/v1/usage", api.UsagePage, limit=limit, **asked)

    async def bills(
        self, side: str = "user", *, from_ms: int = 0, until_ms: int = 0, project: str = ""
    ) -> tuple[Bill, ...]:
        """Bills of runs that ended between two times (0: no bound): of users (owed) or of owners (earned)."""
        asked = {"side": side, "project": project}
        return (await self._get("/v1/bills", api.BillPage, from_ms=from_ms, until_ms=until_ms, **asked)).bills

    async def usage_keys(self) -> api.UsageKeys:
        """The keys of the exchanges whose words stand in usage lines, as this exchange pinned them."""
        return await self._get("/v1/usage/keys", api.UsageKeys)

    async def events(self, after: int = 0, limit: int = 1000, job: str = "") -> api.EventPage:
        """A page of the event log."""
        return await self._get("/v1/events", api.EventPage, after=after, limit=limit, job=job)

    async def stream(self, after: int = 0) -> AsyncIterator[ServerEvent]:
        """The event log as it grows."""
        async for event in self.http.events("/v1/events/stream", after=str(after)):
            yield event

    async def verify_log(self) -> api.VerifyView:
        """Whether the hash chain of the event log holds."""
        return await self._get("/v1/events/verify", api.VerifyView)

    # -- sites, tokens ------------------------------------------------------------------------------------------------

    async def sites(self) -> tuple[api.SiteView, ...]:
        """The sites that the caller may see."""
        return (await self._get("/v1/sites", api.SitePage)).sites

    async def site(self, name: str) -> api.SiteView:
        """One site."""
        return await self._get(f"/v1/sites/{in_path(name)}", api.SiteView)

    async def change_site(self, name: str, what: str) -> api.SiteView:
        """``what``: accept, drain, undrain or leave."""
        return await self._post(f"/v1/sites/{in_path(name)}/{what}", api.SiteView)

    async def rekey_owner(self, owner: str, public: str, *, is_revoking: bool = False) -> RekeyView:
        """As an admin: let ``public`` speak for ``owner``; ``is_revoking`` takes the word of its other keys."""
        return await self._post("/v1/keys", RekeyView, RekeyBody(owner=owner, public=public, is_revoking=is_revoking))

    async def create_token(
        self, name: str, roles: Sequence[Role], *, owner: str = "", ttl_s: int = 86_400, uses: int = -1
    ) -> api.TokenMade:
        """Make a token; its secret is in this answer only."""
        body = api.TokenBody(name=name, roles=tuple(roles), owner=owner, ttl_s=ttl_s, uses=uses)
        return await self._post("/v1/tokens", api.TokenMade, body)

    async def delegate_token(
        self, scopes: Sequence[str], *, job: str = "", project: str = "", ttl_s: int = 3_600
    ) -> api.DelegatedMade:
        """Pass a part of the caller's own right on; the token is stored nowhere."""
        body = api.DelegateBody(scopes=tuple(scopes), job=job, project=project, ttl_s=ttl_s)
        return await self._post("/v1/tokens/delegated", api.DelegatedMade, body)

    async def tokens(self) -> tuple[api.TokenView, ...]:
        """All tokens, without secrets."""
        return (await self._get("/v1/tokens", api.TokenPage)).tokens

    async def revoke_token(self, name: str) -> api.TokenView:
        """Make a token worthless."""
        return await self.http.call("DELETE", f"/v1/tokens/{in_path(name)}", api.TokenView)

    # -- blobs --------------------------------------------------------------------------------------------------------

    async def has_blob(self, digest: str) -> bool:
        """Whether the exchange keeps these bytes for this caller."""
        try:
            await self.http.raw("HEAD", f"/v1/blobs/{digest}")
        except TielineError as error:
            if error.code == "not_found":
                return False
            raise
        return True

    async def upload(self, file: IO[bytes]) -> api.BlobView:
        """Store bytes; sent once per content."""
        digest, size = await asyncio.to_thread(digest_of, file)
        if await self.has_blob(digest):
            return api.BlobView(sha256=digest, size_bytes=size)

        async def chunks() -> AsyncIterator[bytes]:
            file.seek(0)
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

        body: Callable[[], AsyncIterator[bytes]] = chunks
        kept = await self.http.call(
            "POST",
            "/v1/blobs",
            api.BlobView,
            body=body,
            key=f"blob-{digest}",
            headers={"Content-Type": "application/octet-stream"},
            total_s=3600,
        )
        if kept.sha256 != digest:
            raise TielineError("check_failed", f"the exchange kept {kept.sha256}, {digest} was sent")
        return kept

    async def download(self, digest: str, target: Path) -> int:
        """Fetch a blob into a file, verified by its hash, going on where it was cut; returns its size."""
        import hashlib

        seen = hashlib.sha256()
        size = 0
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        try:
            with open(partial, "wb") as file:  # noqa: ASYNC230 - pieces of a local file
                path = f"/v1/blobs/{digest}"
                async for chunk in resumed(self.http, path, digest, limit_bytes=MOST_BLOB_BYTES):
                    seen.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
            if seen.hexdigest() != digest:
                raise TielineError("check_failed", f"the bytes of {digest} have another hash")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return size

    async def read_blob(self, digest: str, limit_bytes: int = 64 << 20) -> bytes:
        """A small blob, verified by its hash."""
        import hashlib

        content = b"".join(
            [chunk async for chunk in self.http.download(f"/v1/blobs/{digest}", limit_bytes=limit_bytes)]
        )
        if hashlib.sha256(content).hexdigest() != digest:
            raise TielineError("check_failed", f"the bytes of {digest} have another hash")
        return content

    async def fetch(self, name: str, folder: Path) -> tuple[Path, ...]:
        """Fetch everything that a job left behind into ``folder``; names cannot lead out of it."""
        view = await self.job(name)
        written: list[Path] = []
        root = folder.resolve()  # noqa: ASYNC240 - a local folder
        for output in view.job.outputs:
            parts = [f"node-{output.node}"] if output.node else []
            target = root.joinpath(*parts, output.path).resolve()
            if target == root or not target.is_relative_to(root):
                raise TielineError("check_failed", f"output `{output.path}` leads out of `{folder}`")
            await self.download(output.sha256, target)
            written.append(target)
        return tuple(written)

    async def pack(self, task: Task, workdir: Path | None, files: Sequence[tuple[str, Path]] = ()) -> Task:
        """The task with what it takes along uploaded: its working folder, and files or folders by target path."""
        mounts = list(task.mounts)
        folder = None
        if workdir is not None:
            with await asyncio.to_thread(packed, workdir) as archive:
                kept = await self.upload(archive)
            folder = Mount(path=".", sha256=kept.sha256, size_bytes=kept.size_bytes, is_archive=True)
        for target, source in files:
            if source.is_dir():
                with await asyncio.to_thread(packed, source) as archive:
                    kept = await self.upload(archive)
            elif source.is_file():
                with open(source, "rb") as file:  # noqa: ASYNC230 - opened here, read in a thread
                    kept = await self.upload(file)
            else:
                raise TielineError("invalid_task", f"`{source}` is no file and no folder", where="file_mounts")
            mounts.append(
                Mount(path=target, sha256=kept.sha256, size_bytes=kept.size_bytes, is_archive=source.is_dir())
            )
        return msgspec.structs.replace(task, workdir=folder or task.workdir, mounts=tuple(mounts))

    async def _sealed(self, secrets: dict[str, str] | None) -> str:
        """Secrets sealed to the exchange's key (X25519 sealed box), so that only ciphertext is stored there."""
        if not secrets:
            return ""
        from nacl.public import PublicKey, SealedBox

        if not self._sealing:
            self._sealing = (await self.exchange()).sealing
        key = PublicKey(_unpadded(self._sealing))
        sealed: bytes = SealedBox(key).encrypt(msgspec.json.encode(secrets))
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
