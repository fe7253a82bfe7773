"""Who did what: indexes of the log by kind and actor, and of what was corrected and signed.

Revision ID: 0015
Revises: 0014
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# Facts alone: frames are most of a log, and nobody's doing. Hashes of four bytes, and one index for
# kinds and actors: it is written with every fact, and a second one, or one of texts, costs more
# than it spares the reader, who has to go through the actors of a kind, or the kinds of an actor.
STATEMENTS: tuple[str, ...] = (
    """
    create index event_doing on event (ledger_id, hashtext(type), hashtext(actor), position)
        where window_end_ns is null
    """,
    """
    create index event_mark on event (ledger_id, stream, position)
        where type in ('record.corrected', 'record.signed')
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
