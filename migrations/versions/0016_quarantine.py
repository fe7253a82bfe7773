"""What the quarantine policy remembers: CRITICAL verdicts, and what came out of runs.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    # Both by the event that said so, so that its correction finds the row.
    """
    create table quarantine_verdict (
        position bigint not null,
        ledger_id smallint not null,
        known_position bigint not null,
        event_id uuid not null,
        subject text not null,
        inspection_id text not null,
        primary key (ledger_id, position)
    )
    """,
    "comment on table quarantine_verdict is 'inspections with the verdict CRITICAL'",
    "comment on column quarantine_verdict.known_position is "
    "'of the event, or of the correction that made its verdict CRITICAL'",
    "create index quarantine_verdict_subject on quarantine_verdict (ledger_id, subject)",
    """
    create table quarantine_output (
        position bigint not null,
        ledger_id smallint not null,
        run text not null,
        node text not null,
        primary key (ledger_id, position)
    )
    """,
    "comment on table quarantine_output is 'parts and lots that came out of a process run'",
    "create index quarantine_output_run on quarantine_output (ledger_id, run)",
    """
    create table quarantine_waiting (
        position bigint not null,
        ledger_id smallint not null,
        node text not null,
        primary key (ledger_id, node, position)
    )
    """,
    "comment on table quarantine_waiting is "
    "'parts and lots that a verdict, by its position, concerns and that nobody has told of yet'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
