"""Contexts: which exchange, with which token. Kept in one file, 0600, in the user's configuration folder.

``TIELINE_HOME`` moves the folder; ``TIELINE_EXCHANGE`` names the context or gives a URL; ``TIELINE_TOKEN`` the token.
Inside a laboratory (``TIELINE_LAB``, which `tieline lab exec` sets) they are the laboratory's own, and end with it:
what can be reached there cannot be reached outside, and the other way round.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from tieline.model.error import TielineError


class Login(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the token of a context is renewed: at which identity provider, and with what."""

    name: str  # of the context
    alias: str  # of the provider, as the exchange calls it
    issuer: str
    client_id: str
    bearer: str = "access"  # which of the provider's tokens is sent: `access` or `id`
    hosts: tuple[str, ...] = ()  # of the provider's endpoints, beside the issuer's own
    refresh: str = ""
    until_ms: int = 0  # when the token ends, by this machine's clock


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One exchange as one caller reaches it."""

    url: str
    token: str = ""
    fingerprint: str = ""  # of the exchange's key, pinned at login
    prefix: str = ""  # of the exchange, pinned with it
    ca_file: str = ""
    login: Login | None = None  # None: the token is kept as it is


class Contexts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of them, and which one is used when none is named."""

    current: str = ""
    contexts: dict[str, Context] = {}


def home() -> Path:
    """The folder that holds contexts, and the data of `tieline up`."""
    stated = os.environ.get("TIELINE_HOME", "")
    if stated:
        return Path(stated)
    base = os.environ.get("XDG_CONFIG_HOME", "") or str(Path.home() / ".config")
    return Path(base) / "tieline"


def place() -> Path:
    """The folder of the contexts that hold here: `home`, or that of the laboratory that this runs inside of."""
    lab = Path(os.environ.get("TIELINE_LAB", "")).name
    return home() / "labs" / lab if lab[:1].isalnum() else home()


def read() -> Contexts:
    """The stored contexts; none where there is no file."""
    path = place() / "contexts.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Contexts)
    except FileNotFoundError:
        return Contexts()
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise TielineError(
            "invalid_request", f"`{path}` cannot be read: {error}", hints=(f"rm {path}  # then log in again",)
        ) from None


def write(contexts: Contexts) -> None:
    """Store them whole or not at all, readable by this user only."""
    path = place() / "contexts.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(f".{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(contexts)))
    temporary.rename(path)


def keep(name: str, context: Context) -> None:
    """Store one context and make it the current one."""
    stored = read()
    write(Contexts(current=name, contexts={**stored.contexts, name: context}))


def forget(name: str) -> None:
    """Remove one context."""
    stored = read()
    rest = {other: context for other, context in stored.contexts.items() if other != name}
    write(Contexts(current=stored.current if stored.current in rest else next(iter(rest), ""), contexts=rest))


def chosen(name: str = "") -> Context:
    """The context that is named, given by the environment, or current. Raises TielineError when there is none."""
    name = name or os.environ.get("TIELINE_EXCHANGE", "")
    token = os.environ.get("TIELINE_TOKEN", "")
    if name.startswith(("http://", "https://")):
        return Context(url=name, token=token)
    stored = read()
    context = stored.contexts.get(name or stored.current)
    if context is None:
        named = f"there is no context `{name}`" if name else "no exchange is known yet"
        raise TielineError(
            "exchange_unreachable",
            named,
            hints=("tieline up  # an exchange and a site on this machine", "tieline login URL --token TOKEN"),
        )
    return msgspec.structs.replace(context, token=token, login=None) if token else context
