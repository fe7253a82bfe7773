"""Payloads outside the event table.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    """
    create table archive_store (
        store_id smallint generated always as identity primary key,
        url text not null unique
    )
    """,
    "comment on table archive_store is 'a folder or bucket; its url may be changed when it moves'",
    # A file is announced before it is written and named until after it is deleted, so that
    # whatever a process that was killed has left behind is known by its row.
    """
    create table archive_segment (
        segment_id integer generated always as identity primary key,
        ledger_id smallint not null,
        store_id smallint not null references archive_store,
        state text not null check (state in ('writing', 'live', 'retired')),
        stream text not null,
        day date not null,
        path text not null,
        window_count integer not null,
        reading_count bigint not null,
        file_bytes bigint not null default 0,
        announced_at timestamptz not null default now(),
        first_position bigint not null,
        last_position bigint not null
    )
    """,
    "comment on table archive_segment is 'one Parquet file of the archive, see docs/archive.md'",
    """
    create index archive_segment_stream on archive_segment (ledger_id, stream, day)
        where state = 'live'
    """,
    """
    create index archive_segment_unsettled on archive_segment (ledger_id)
        where state <> 'live'
    """,
    """
    create table archived_payload (
        position bigint not null,
        segment_id integer not null references archive_segment,
        ledger_id smallint not null,
        row_group smallint not null,
        primary key (ledger_id, position)
    )
    """,
    "comment on table archived_payload is 'where the payload of a row of tier 1 lies'",
    """
    create table archive_progress (
        ledger_id smallint primary key,
        position bigint not null
    )
    """,
    "comment on table archive_progress is 'up to here no frame is left to be archived'",
    """
    create table erasure (
        position bigint not null,
        ledger_id smallint not null,
        finished_at timestamptz not null default now(),
        primary key (ledger_id, position)
    )
    """,
    "comment on table erasure is 'recorded erasures, by their event, that were carried out'",
    # A payload may be let go; what is erased by law takes its statistics along. Nothing else
    # of a row ever changes.
    """
    create or replace function refuse_event_change() returns trigger language plpgsql as $$
    begin
        if tg_op = 'UPDATE' and tg_table_name like 'event%' then
            if new.payload is null and new.payload_tier > old.payload_tier
                and (new.payload_tier = 1 or new.payload_tier = 2 and new.statistics is null)
            then
                old.payload := null;
                old.payload_tier := new.payload_tier;
                if new.payload_tier = 2 then
                    old.statistics := null;
                end if;
                if new is not distinct from old then
                    return new;
                end if;
            end if;
        end if;
        raise exception 'the event log is append-only: % of % is refused', tg_op, tg_table_name
            using errcode = 'integrity_constraint_violation';
    end $$
    """,
    "grant update (statistics) on event to current_user",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
