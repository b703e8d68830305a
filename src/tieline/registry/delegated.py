"""Delegated tokens: a right that an exchange passes on in one signed word, narrower than the right it comes from.

::

    tld.H.P.S     the compact form (RFC 7515, section 7.1) of a statement of type `delegated-token`
      H = {"alg":"Ed25519","kid":"<prefix>#exchange","typ":"delegated-token+jws"}
      P = a `DelegatedToken` as canonical JSON

The same token is a bearer at the exchange that signed it, and goes with an offer to another exchange, which checks it
with the key that it pinned. Nothing of it is stored: it is believed because of its signature, its times, and because
the job that it is bound to still lives, which the caller of `opened_token` knows.
"""

from __future__ import annotations

import re

import msgspec

from tieline.model.error import TielineError
from tieline.model.party import Actor, Role
from tieline.model.peer import DELEGATED, DelegatedToken
from tieline.model.reason import Reason, Value, sentence
from tieline.model.scope import SCOPES
from tieline.registry.envelope import sign_statement, verify_statement
from tieline.registry.keys import Key
from tieline.registry.rules import SKEW_S, shown_time

MARK = "tld."
MOST_CHARACTERS = 6_000
MOST_TTL_S = 86_400
MOST_RUN_S = 400 * 86_400  # of a run's own token at the exchange that keeps the run: it is void when the run is over
TTL_S = 3_600
# an admin's own right is never passed on
PASSED_ON = (Role.OWNER, Role.OPERATOR, Role.USER, Role.AUDITOR, Role.REGULATOR)
_FORM = re.compile(r"tld\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
HINT = ("tieline token delegate --scope SCOPE",)


def is_delegated(text: str) -> bool:
    """Whether a bearer says of itself that it is a delegated token."""
    return text.startswith(MARK)


def sealed_token(token: DelegatedToken, key: Key, kid: str) -> str:
    """``token`` as one word, signed by the exchange that passes the right on.

    Raises TielineError `invalid_request` for what no exchange would take: no scope or an unknown one, a life that is
    not positive or longer than `most_s`, a job's token with a scope that is of no job.
    """
    _check_form(token)
    envelope = msgspec.json.decode(sign_statement(token, key, kid, DELEGATED), type=dict[str, str])
    text = f"{MARK}{envelope['protected']}.{envelope['payload']}.{envelope['signature']}"
    if len(text) > MOST_CHARACTERS:
        raise TielineError("too_large", f"the token has {len(text):,} characters, over {MOST_CHARACTERS:,}")
    return text


def opened_token(text: str, public: str, *, by: str, to: str, now_s: int) -> DelegatedToken:
    """What a token says, once proved: signed by ``public`` (base64url), made by exchange ``by`` for ``to``, in time.

    Raises TielineError `unauthenticated` with a reason: token_form, token_by, token_to, token_early, token_expired,
    token_long, or the rule that its signature breaks. A writer's clock may be ahead by `SKEW_S`; an end is an end.
    """
    match = _FORM.fullmatch(text) if len(text) <= MOST_CHARACTERS else None
    if match is None:
        raise refusal("token_form")
    envelope = f'{{"payload":"{match[2]}","protected":"{match[1]}","signature":"{match[3]}"}}'.encode()
    try:
        token = msgspec.convert(verify_statement(envelope, public, DELEGATED), DelegatedToken)
    except msgspec.ValidationError:
        raise refusal("token_form") from None
    if not token.scopes or not token.user or not token.id:  # no scope would mean every scope further on
        raise refusal("token_form")
    if token.by != by:
        raise refusal("token_by", by=token.by[:200], asked=by)
    if token.to != to:
        raise refusal("token_to", to=token.to[:200], asked=to)
    if token.nb_s > now_s + SKEW_S:
        raise refusal("token_early", begins=shown_time(token.nb_s))
    if token.exp_s <= now_s:
        raise refusal("token_expired", token=token.id[:80], ended=shown_time(token.exp_s))
    if token.exp_s - token.nb_s > most_s(token):
        raise refusal("token_long", most_us=most_s(token) * 1_000_000)
    return token


def most_s(token: DelegatedToken) -> int:
    """How long a token may live: a run's own as long as a run may go on, any other a day."""
    return MOST_RUN_S if token.run and token.by == token.to else MOST_TTL_S


def require(token: DelegatedToken, scope: str, *, job: str = "", run: str = "", pool: str = "", user: str = "") -> None:
    """Refuse with `forbidden` unless ``token`` has ``scope`` and is not bound to another job, run, pool or user.

    What is left empty is not compared, so that a caller states all that it knows of the matter.
    """
    check_scope(token.scopes, scope)
    for name, bound, asked in (
        ("job", token.job, job),
        ("run", token.run, run),
        ("pool", token.pool, pool),
        ("user", token.user, user),
    ):
        if bound and asked and bound != asked:
            raise refusal("token_bound", "forbidden", what=name, bound=bound[:200], asked=asked[:200])


def check_scope(scopes: tuple[str, ...], scope: str) -> None:
    """Refuse with `forbidden` and the name of the scope that is missing."""
    if scope not in scopes:
        raise refusal("scope_missing", "forbidden", scope=scope, held=", ".join(scopes)[:400] or "none")


def check_narrower(giver: Actor, scopes: tuple[str, ...], project: str = "") -> None:
    """Refuse to pass on what ``giver`` does not have: a scope of none of its roles, another project, a passed-on right.

    Raises TielineError `forbidden` (scope_not_held, token_again, token_bound), `invalid_request` for unknown scopes.
    """
    if giver.scopes:
        raise refusal("token_again", "forbidden")
    for scope in scopes:
        _check_known(scope)
        if not any(role in SCOPES[scope].roles for role in passed_on(giver)):
            raise refusal("scope_not_held", "forbidden", scope=scope, who=giver.name[:200])
    if giver.project and project != giver.project:
        raise refusal("token_bound", "forbidden", what="project", bound=giver.project, asked=project or "none")


def passed_on(giver: Actor) -> tuple[Role, ...]:
    """The giver's roles as far as they can be passed on."""
    return tuple(role for role in giver.roles if role in PASSED_ON)


def refusal(reason: str, code: str = "unauthenticated", **values: Value) -> TielineError:
    """One named reason as the refusal that the caller raises."""
    cause = Reason(code=reason, values=values)
    return TielineError(code, sentence(cause), reasons=(cause,), hints=HINT)


def _check_form(token: DelegatedToken) -> None:
    if not token.scopes:
        raise TielineError("invalid_request", "a delegated token has at least one scope", where="scopes")
    for scope in token.scopes:
        _check_known(scope)
        if token.job and not SCOPES[scope].is_of_job:
            raise TielineError("invalid_request", f"`{scope}` cannot be bound to one job", where="scopes")
    life_s = token.exp_s - token.nb_s
    if not 0 < life_s <= most_s(token):
        raise TielineError("invalid_request", f"{life_s:,} s is no life of 1 to {most_s(token):,} s", where="ttl_s")


def _check_known(scope: str) -> None:
    if scope not in SCOPES:
        known = ", ".join(SCOPES)
        raise TielineError("invalid_request", f"there is no scope `{scope[:80]}`; there are {known}", where="scopes")
