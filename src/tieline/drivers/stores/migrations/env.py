"""Alembic's entry: runs the revisions on the connection, and in the transaction, that the store hands over."""

from __future__ import annotations

from alembic import context

from tieline.drivers.stores.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,  # SQLite changes a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
