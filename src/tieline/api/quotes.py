"""Ask before you take."""

from __future__ import annotations

from tieline.api.call import Call, named
from tieline.api.operation import Follow, operation
from tieline.api.reading import check_taken_along
from tieline.api.sealing import kept_secrets
from tieline.exchange.commands import AcceptQuote, AskQuote
from tieline.exchange.permission import no_such, owns
from tieline.model.api import AcceptBody, JobView, QuoteBody
from tieline.model.job import Job
from tieline.model.party import Role
from tieline.model.plan import Quote

TASK_ERRORS = ("invalid_task", "invalid_expression", "unplaceable", "kind_not_offered")


@operation(
    "POST",
    "/v1/quotes",
    tag="quotes",
    status=201,
    is_change=True,
    errors=(*TASK_ERRORS, "not_found"),
    follows=(
        Follow(operation="read_quote", parameter="quote", pointer="/id"),
        Follow(operation="accept_quote", parameter="quote", pointer="/id"),
    ),
    example={"task": {"name": "hello", "run": "echo hello"}, "duration_s": 60},
)
async def ask_quote(call: Call, body: QuoteBody) -> Quote:
    """Ask for a quote for one task: at the best fitting pool, or at the named one.

    The answer is `asked`; it becomes `open` or `refused` when the owner's site has answered.
    """
    await check_taken_along(call.platform, call.actor, (body.task,))
    quote: Quote = await call.platform.ask(
        call.command(
            AskQuote,
            task=body.task,
            pool=body.pool,
            price_micro_cny=body.price_micro_cny,
            duration_s=body.duration_s,
        )
    )
    return quote


@operation("GET", "/v1/quotes/{quote}", tag="quotes")
async def read_quote(call: Call, quote: str) -> Quote:
    """A quote as it stands."""
    return await visible_quote(call, named(quote))


@operation(
    "POST",
    "/v1/quotes/{quote}/accept",
    tag="quotes",
    status=201,
    is_change=True,
    errors=(*TASK_ERRORS, "quote_expired"),
    example={},
)
async def accept_quote(call: Call, quote: str, body: AcceptBody) -> JobView:
    """Accept an open quote: this books it, on that pool at that price, or not at all."""
    name = named(quote)
    asked = await visible_quote(call, name)
    keep = kept_secrets(call.platform, body.sealed_secrets, (asked.task,))
    job: Job = await call.platform.ask(call.command(AcceptQuote, quote=name, project=body.project), keep)
    call.note(job=job.id)
    return JobView(job=job, runs=())


async def visible_quote(call: Call, name: str) -> Quote:
    """The quote, if the caller may see it."""
    found = await call.platform.read(call.platform.store.quote, name)
    actor = call.actor
    if found is None or not (
        found.user == actor.name or actor.has(Role.ADMIN, Role.AUDITOR) or owns(actor, found.owner)
    ):
        raise no_such("quote", name)
    return found
