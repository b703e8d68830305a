"""Drivers of circuits: each makes `tieline.ports.Circuits` true on some kind of router."""
