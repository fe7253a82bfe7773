"""Who did what: indexes of its facts, by kind and actor, and of what was corrected and signed.

Revision ID: 0015
Revises: 0014
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# Facts alone: frames are most of a log, and nobody's doing. Two indexes are written with each fact,
# so they are of what is cheap: positions, which go to the end only, and four-byte hashes of kind
# and actor, in one. Readers go through the actors of a kind, or the kinds of an actor, and compare
# the texts; indexes of the texts, one for each, cost an append about twice as much.
STATEMENTS: tuple[str, ...] = (
    "create index event_fact on event (ledger_id, position) where window_end_ns is null",
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
