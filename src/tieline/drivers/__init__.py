"""The outside world: processes, HTTP, stores, circuits. Everything that blocks, waits or fails lives here."""
