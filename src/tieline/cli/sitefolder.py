"""A site's own folder, as its owner handles it on the machine where the site is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tieline.model.api import JoinView, SiteView


def join_site(where: str, folder: Path, *, config: Path | None, owner: str, name: str) -> JoinView:
    """Make the site's keys in ``folder`` and join; ``where`` is a join token, or a URL where the site then waits."""
    from tieline.drivers import siteprocess

    return siteprocess.join(where, folder, config=config, owner=owner, name=name)


def change_folder(folder: Path, what: str) -> SiteView:
    """Drain, undrain or leave as the owner of the site in ``folder``."""
    from tieline.drivers import siteprocess

    return siteprocess.change(folder, what)


def owner_seed(folder: Path) -> bytes:
    """The owner's Ed25519 seed that a site's folder keeps."""
    from tieline.drivers import siteprocess

    return siteprocess.owner_seed(folder)
