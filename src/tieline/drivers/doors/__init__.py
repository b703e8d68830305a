"""Doors: the echo and chunk port of a site whose owner opened one. Nothing here listens unless `door:` says so."""
