"""Objects of the thread, for lists: how each stood, as it was known when.

Revision ID: 0020
Revises: 0019
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

STILL_KNOWN = 2**63 - 1

STATEMENTS = (
    # One row for each change of how an object stands, or of what it is found by.
    """
    create table object_version (
        ledger_id smallint not null,
        known_from bigint not null,
        known_to bigint not null,
        stream text collate "C" not null,
        category text collate "C" not null,
        state text not null,
        created_at timestamptz not null,
        since timestamptz not null,
        due_at timestamptz,
        attributes text[] not null,
        primary key (ledger_id, stream, known_from)
    )
    """,
    "comment on column object_version.known_to is 'position from which on a later row counts'",
    "comment on column object_version.category is 'what stands before the colon of the stream'",
    "comment on column object_version.created_at is 'when the first of it was true'",
    "comment on column object_version.since is 'since when it stands so'",
    "comment on column object_version.due_at is 'when something about it runs out'",
    "comment on column object_version.attributes is 'what it is found by, each as name=value'",
    # As it is known now, which is what is nearly always asked.
    f"""
    create unique index object_version_now on object_version (ledger_id, stream)
        where known_to = {STILL_KNOWN}
    """,
    f"""
    create index object_version_state on object_version
        (ledger_id, category, state, created_at, stream)
        where known_to = {STILL_KNOWN}
    """,
    f"""
    create index object_version_attributes on object_version using gin (attributes)
        where known_to = {STILL_KNOWN}
    """,
    f"""
    create index object_version_since on object_version (ledger_id, category, since, stream)
        where known_to = {STILL_KNOWN}
    """,
    f"""
    create index object_version_due on object_version (ledger_id, category, due_at, stream)
        where known_to = {STILL_KNOWN} and due_at is not null
    """,
    # As of any position.
    """
    create index object_version_created on object_version
        (ledger_id, category, created_at, stream)
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
