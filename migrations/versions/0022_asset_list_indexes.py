"""Indexes for the lists of process runs, newest first, and of one asset's work orders.

Revision ID: 0022
Revises: 0021
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    create index process_run_started on process_run (ledger_id, started_at, run_id)
    """,
    """
    create index work_order_requested on work_order (ledger_id, asset_id, requested_at)
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
