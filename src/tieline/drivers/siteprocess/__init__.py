"""The site process: the shell around `tieline.site`, and what its owner does with its folder.

Everything is imported when it is called: a command line that only asks whether a site has joined pays for nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tieline.model.api import JoinView, SiteView
    from tieline.model.rekeying import RekeyView
    from tieline.registry import Key

__all__ = ["change", "has_joined", "join", "join_site", "owner_key", "owner_seed", "rekey", "run_site"]


def run_site(folder: Path | str) -> int:
    """Run the site of ``folder`` until SIGTERM; runs go on without it. The exit code; see `entry.run_site`."""
    from tieline.drivers.siteprocess.entry import run_site as run

    return run(Path(folder))


async def join_site(
    folder: Path | str,
    *,
    token: str = "",
    url: str = "",
    owner: str = "",
    name: str = "",
    seed: bytes = b"",
    proxy: str = "",
    ca_file: str = "",
) -> JoinView:
    """Make keys in ``folder`` and join the exchange of ``token``, or the one at ``url``; see `joining.join_site`."""
    from tieline.drivers.siteprocess import joining

    return await joining.join_site(
        Path(folder), token=token, url=url, owner=owner, name=name, seed=seed, proxy=proxy, ca_file=ca_file
    )


def join(where: str, folder: Path | str, *, config: Path | None = None, owner: str = "", name: str = "") -> JoinView:
    """`join_site` for a caller without a loop. ``where``: a join token, or a URL. ``config`` is copied to site.yaml."""
    from tieline.drivers.siteprocess import joining

    return joining.join(where, Path(folder), config=config, owner=owner, name=name)


def change(folder: Path | str, what: str) -> SiteView:
    """Drain, undrain or leave as the owner of the site in ``folder``, whether its process runs or not."""
    from tieline.drivers.siteprocess import owner

    return owner.change(Path(folder), what)


def rekey(folder: Path | str, seed: bytes = b"", *, is_revoking: bool = False) -> RekeyView:
    """Let another key speak for the owner of the site in ``folder``; see `rekeying.rekey`."""
    from tieline.drivers.siteprocess import rekeying

    return rekeying.rekey(Path(folder), seed, is_revoking=is_revoking)


def has_joined(folder: Path | str) -> bool:
    """Whether the site of ``folder`` has joined an exchange."""
    return Path(folder, "identity.json").is_file()


def owner_seed(folder: Path | str) -> bytes:
    """The owner's Ed25519 seed, which signs the records of its prefix."""
    from tieline.drivers.siteprocess.home import Home

    return Home(Path(folder)).seed("owner")


def owner_key(folder: Path | str) -> Key:
    """The owner's key."""
    from tieline.registry import Key

    return Key(owner_seed(folder))
