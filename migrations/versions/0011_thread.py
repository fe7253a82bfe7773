"""The thread: nodes and links, each known from a position to a position.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

STATEMENTS = (
    # Numbered by first mention, so that what is near in time is near on disk; the ledger's number
    # stands in the upper 16 bits, so that a link finds its nodes by one number.
    """
    create table thread_node (
        id bigint primary key,
        first_position bigint not null,
        state_from bigint not null default 0,
        state_valid_from timestamptz not null default '-infinity',
        state_place bigint not null default 0,
        ledger_id smallint not null,
        kind smallint not null,
        state smallint not null default 0,
        key text not null,
        unique (ledger_id, key)
    ) with (fillfactor = 85)
    """,
    "comment on column thread_node.state_from is 'position since which state is known and holds'",
    "comment on column thread_node.state_place is 'position that orders states of one valid time'",
    # What each event said of how a node stands.
    """
    create table thread_standing (
        node bigint not null,
        valid_from timestamptz not null,
        place bigint not null,
        rec_from bigint not null,
        rec_to bigint not null,
        ledger_id smallint not null,
        state smallint not null
    )
    """,
    "comment on column thread_standing.place is 'the event; of a correction: what it corrects'",
    "create index thread_standing_node on thread_standing (node, valid_from, place)",
    """
    create index thread_standing_recorded on thread_standing
        using brin (rec_from) with (pages_per_range = 32, autosummarize = on)
    """,
    # From what bears on something to what it bears on. Columns that most links lack come last:
    # where they are null they take no room.
    """
    create table thread_edge (
        src bigint not null,
        dst bigint not null,
        valid_from timestamptz not null,
        rec_from bigint not null,
        rec_to bigint not null,
        ledger_id smallint not null,
        kind smallint not null,
        quantity float8,
        valid_to timestamptz,
        said_at bigint,
        ended_at bigint,
        place bigint,
        unit text
    )
    """,
    "comment on column thread_edge.rec_to is 'position since which it is not known; open: 2^63-1'",
    "comment on column thread_edge.said_at is 'event of the link; null: the one at rec_from'",
    "comment on column thread_edge.ended_at is 'event of the end at valid_to'",
    "comment on column thread_edge.place is 'what a correction stands for; null: no correction'",
    "create index thread_edge_out on thread_edge (src, kind)",
    "create index thread_edge_in on thread_edge (dst, kind)",
    """
    create index thread_edge_recorded on thread_edge
        using brin (rec_from) with (pages_per_range = 32, autosummarize = on)
    """,
    "create index thread_edge_said on thread_edge (said_at) where said_at is not null",
    # What each event said of a link's end, whether or not the link is known yet.
    """
    create table thread_end (
        src bigint not null,
        dst bigint not null,
        valid_at timestamptz not null,
        place bigint not null,
        rec_from bigint not null,
        rec_to bigint not null,
        ledger_id smallint not null,
        kind smallint not null
    )
    """,
    "create index thread_end_link on thread_end (kind, src, dst)",
    "create index thread_end_recorded on thread_end (ledger_id, rec_from)",
    # Which correction stands for which event.
    """
    create table thread_correction (
        ledger_id smallint not null,
        position bigint not null,
        place bigint not null,
        primary key (ledger_id, position)
    )
    """,
    "create index thread_correction_place on thread_correction (ledger_id, place)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
