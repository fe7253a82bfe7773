"""Plant and components, and twins as of a position.

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    """
    create table plant_interval (
        ledger_id smallint not null,
        facet smallint not null,
        statement smallint not null,
        finding smallint not null,
        required integer,
        subject text not null,
        source_position bigint not null,
        known_from bigint not null,
        known_to bigint not null,
        valid_from timestamptz not null,
        valid_to timestamptz not null,
        stated_place text,
        stated_slot text,
        place text,
        slot text,
        item_type text,
        title text,
        part_id text,
        roll_up text,
        primary key (ledger_id, subject, facet, source_position, known_from)
    )
    """,
    """
    comment on table plant_interval is
        'what was said of a location, asset or component, when it was true and when it was known'
    """,
    """
    comment on column plant_interval.facet is
        '1 where it stands, 2 what it is, 3 how it judges, 4 that it is given up'
    """,
    "comment on column plant_interval.source_position is 'of the event that says so'",
    "comment on column plant_interval.known_to is 'position that changed it; 2^63-1: it stands'",
    """
    create index plant_interval_by_subject on plant_interval (ledger_id, subject, valid_to)
        where known_to = 9223372036854775807
    """,
    """
    create index plant_interval_by_place on plant_interval (ledger_id, place, valid_to)
        where place is not null
    """,
    """
    create index plant_interval_finding on plant_interval (ledger_id, subject)
        where finding <> 0
    """,
    # The state of a twin's channels after every so many frames: what lies between is read again.
    """
    create table twin_history (
        ledger_id smallint not null,
        asset_id text not null,
        version bigint not null,
        position bigint not null,
        max_end_ns bigint not null,
        segment_start_ns bigint not null,
        channel text[] not null,
        value float8[] not null,
        text text[] not null,
        read_at_ns bigint[] not null,
        window_mean float8[] not null,
        window_end_ns bigint[] not null,
        window_reading_count integer[] not null,
        window_good_count integer[] not null,
        primary key (ledger_id, asset_id, version) include (segment_start_ns)
    )
    """,
    """
    comment on column twin_history.version is
        'of the telemetry stream: all frames up to it are in the row'
    """,
    "comment on column twin_history.max_end_ns is 'latest end of a window so far'",
    """
    comment on column twin_history.segment_start_ns is
        'earliest start of a window since the row before'
    """,
    "create index twin_history_by_time on twin_history (ledger_id, asset_id, max_end_ns, version)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
