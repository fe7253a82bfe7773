"""Keys of agents and integrations, and the places that streams belong to.

Revision ID: 0019
Revises: 0018
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    create table api_key (
        key_id text primary key,
        ledger_id smallint not null,
        secret_sha256 bytea not null check (octet_length(secret_sha256) = 32),
        name text not null,
        acts_as text not null,
        roles text[] not null,
        locations text[],
        assets text[],
        created_at timestamptz not null,
        created_by text not null,
        expires_at timestamptz,
        revoked_at timestamptz,
        last_used_at timestamptz
    ) with (fillfactor = 80)
    """,
    "create index api_key_by_name on api_key (ledger_id, name)",
    "comment on table api_key is 'what API keys are checked against; their story is in the log'",
    "comment on column api_key.secret_sha256 is 'of 256 random bits, which nothing can search'",
    "comment on column api_key.last_used_at is 'to within some minutes'",
    # --- places ---
    """
    create table stream_place (
        ledger_id smallint not null,
        stream text not null,
        place text not null,
        primary key (ledger_id, stream, place)
    )
    """,
    "comment on table stream_place is 'the assets, as streams, that a stream belongs to'",
    """
    create table stream_place_source (
        ledger_id smallint not null,
        source text not null,
        stream text not null,
        primary key (ledger_id, source, stream)
    )
    """,
    "comment on table stream_place_source is 'stream belongs wherever source belongs'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
