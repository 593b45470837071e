"""What alembic runs: the revisions that are missing, on the connection and in the transaction that it is given."""

from alembic import context

from serve.store.tables import revisions

context.configure(connection=context.config.attributes["connection"], version_table=revisions.name)
with context.begin_transaction():
    context.run_migrations()
