"""Runs of projections: versions beside each other, and who folds them.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    "alter table projection_checkpoint add column generation integer not null default 0",
    "comment on column projection_checkpoint.generation is "
    "'how often rebuilt tables were switched in; what was remembered of the rows before is void'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
