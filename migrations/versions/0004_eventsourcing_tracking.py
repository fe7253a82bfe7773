"""What applications of the `eventsourcing` library keep beside the log, and an index on theirs.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    # How far a projection or process has come in the notifications of an application.
    """
    create table eventsourcing_tracking (
        notification_id bigint not null,
        ledger_id smallint not null,
        tracker text not null,
        application text not null,
        primary key (ledger_id, tracker, application)
    )
    """,
    # Snapshots may be dropped and taken anew; they are no part of the log.
    """
    create table eventsourcing_snapshot (
        originator_version bigint not null,
        ledger_id smallint not null,
        category text not null,
        purpose text not null,
        originator_id text not null,
        originator_id_type text not null,
        topic text not null,
        state bytea not null,
        primary key (ledger_id, category, purpose, originator_id, originator_version)
    )
    """,
    # An application reads its own events, however much else the ledger holds.
    """
    create index event_of_application on event (ledger_id, split_part(stream, ':', 1), position)
        where type = 'eventsourcing.event_recorded'
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
