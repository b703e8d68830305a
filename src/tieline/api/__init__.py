"""The HTTP API of an exchange: one table of operations, one gate, one error envelope."""
