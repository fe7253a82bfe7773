"""Transparency: the roots of full tiles, and every checkpoint that was ever signed.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TABLES = ("tile", "checkpoint", "cosignature")

STATEMENTS = (
    # Tile n of level l + 1 is the run of roots 256 n … 256 n + 255 of level l: partial or full,
    # it is one range of the key. Level 0 itself is event.leaf_hash.
    """
    create table tile (
        number bigint not null,
        ledger_id smallint not null,
        level smallint not null,
        root bytea not null,
        primary key (ledger_id, level, number)
    )
    """,
    "comment on table tile is 'the root of each full tile (256 hashes) of the Merkle tree'",
    """
    create table checkpoint (
        size bigint not null,
        ledger_id smallint not null,
        signed_at timestamptz not null,
        note text not null,
        primary key (ledger_id, size)
    )
    """,
    "comment on column checkpoint.note is 'signed note, C2SP tlog-checkpoint'",
    """
    create table cosignature (
        size bigint not null,
        ledger_id smallint not null,
        received_at timestamptz not null,
        witness text not null,
        line text not null,
        primary key (ledger_id, size, line)
    )
    """,
    "comment on column cosignature.line is 'signature line of a witness, C2SP tlog-cosignature'",
    *(
        f"""
        create trigger {table}_append_only before update or delete or truncate on {table}
            for each statement execute function refuse_change()
        """
        for table in _TABLES
    ),
    f"revoke update, delete, truncate on {', '.join(_TABLES)} from current_user",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
