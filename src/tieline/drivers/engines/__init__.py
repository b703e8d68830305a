"""Engines: how a site runs things (processes, sandboxes, containers, behind one port), and what it knows of itself."""
