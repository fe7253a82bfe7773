"""The last text of a twin's channel, where the channel holds text.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

STATEMENTS = (
    "alter table twin_channel add column text text",
    "comment on column twin_channel.text is 'last GOOD reading of a channel that holds text'",
    # Every fold rewrites the rows of the channels that it has frames of.
    "alter table twin_channel set (fillfactor = 50)",
    "alter table alert_policy_rule set (fillfactor = 50)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
