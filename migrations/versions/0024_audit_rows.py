"""What the audit trail is found by is kept by a projection, not by indexes of the log.

Every append wrote them, under the lock of the ledger; the trail is read rarely.

The projection `audit` folds the log that is there once a server runs. Until it has come to the head
the trail looks through what is missing in the log itself: right all the same, and slower.

Revision ID: 0024
Revises: 0023
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    """
    create table audit_block (
        block bigint not null,
        kind integer not null,
        who integer not null,
        ledger_id smallint not null,
        primary key (ledger_id, kind, who, block)
    )
    """,
    "comment on table audit_block is 'which types of facts which actors recorded where'",
    "comment on column audit_block.block is '128 positions of the log'",
    "comment on column audit_block.kind is 'hashtext(event.type)'",
    "comment on column audit_block.who is 'hashtext(event.actor)'",
    "create index audit_block_of_facts on audit_block (ledger_id, block)",
    "drop index event_fact",
    "drop index event_doing",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
