"""The event log: ledgers, events, and the keys under which each event is recorded once.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    # One row a ledger: its head. Locking it orders all appends to the ledger.
    """
    create table ledger (
        ledger_id smallint generated always as identity primary key,
        name text not null unique,
        position bigint not null default 0,
        recorded_at timestamptz not null default 'epoch',
        frontier bytea not null default '',
        root bytea not null
    )
    """,
    "comment on column ledger.frontier is 'perfect subtrees, 32 bytes each, largest first'",
    "comment on column ledger.root is 'RFC 6962 tree hash of all leaves'",
    """
    create table event (
        position bigint not null,
        version bigint not null,
        occurred_at timestamptz not null,
        recorded_at timestamptz not null,
        sequence bigint,
        window_start_ns bigint,
        window_end_ns bigint,
        event_id uuid not null,
        correlation_id uuid,
        causation_id uuid,
        reading_count integer,
        ledger_id smallint not null,
        schema_version smallint not null,
        payload_tier smallint not null default 0,
        stream text not null,
        type text not null,
        actor text not null,
        source text,
        traceparent text,
        payload_sha256 bytea not null,
        leaf_hash bytea not null,
        statistics bytea,
        payload bytea,
        primary key (ledger_id, position)
    ) partition by range (position)
    """,
    "comment on column event.payload_tier is '0 in this row, 1 in the archive, 2 erased'",
    "comment on column event.statistics is 'per channel of a frame, see docs/frame-format.md'",
    # Payloads of frames are compressed already.
    "alter table event alter column payload set storage external",
    "alter table event alter column statistics set storage main",
    "create index event_stream on event (ledger_id, stream, version)",
    """
    create index event_window on event (ledger_id, stream, window_end_ns, window_start_ns)
        where window_end_ns is not null
    """,
    # Unique keys of a partitioned table would have to contain the position; these stand beside.
    """
    create table stream_head (
        ledger_id smallint not null,
        stream text not null,
        version bigint not null,
        primary key (ledger_id, stream)
    )
    """,
    """
    create table event_identity (
        event_id uuid not null,
        position bigint not null,
        ledger_id smallint not null,
        primary key (ledger_id, event_id)
    )
    """,
    """
    create table source_sequence (
        sequence bigint not null,
        position bigint not null,
        ledger_id smallint not null,
        source text not null,
        primary key (ledger_id, source, sequence)
    )
    """,
    """
    create table idempotency_key (
        first_position bigint not null,
        last_position bigint not null,
        ledger_id smallint not null,
        key text not null,
        content_sha256 bytea not null,
        primary key (ledger_id, key)
    )
    """,
    # Append-only is the database's word, not ours: only a payload may be let go, never changed.
    """
    create function refuse_event_change() returns trigger language plpgsql as $$
    begin
        if tg_op = 'UPDATE' and tg_table_name like 'event%'
            and new.payload is null and new.payload_tier > old.payload_tier
            and to_jsonb(new) - '{payload,payload_tier}'::text[]
              = to_jsonb(old) - '{payload,payload_tier}'::text[]
        then
            return new;
        end if;
        raise exception 'the event log is append-only: % of % is refused', tg_op, tg_table_name
            using errcode = 'integrity_constraint_violation';
    end $$
    """,
    """
    create function refuse_change() returns trigger language plpgsql as $$
    begin
        raise exception 'the event log is append-only: % of % is refused', tg_op, tg_table_name
            using errcode = 'integrity_constraint_violation';
    end $$
    """,
    """
    create trigger event_append_only before update or delete on event
        for each row execute function refuse_event_change()
    """,
    """
    create trigger event_not_truncated before truncate on event
        for each statement execute function refuse_change()
    """,
    *(
        f"""
        create trigger {table}_append_only before update or delete or truncate on {table}
            for each statement execute function refuse_change()
        """
        for table in ("event_identity", "source_sequence", "idempotency_key")
    ),
    # Partitions of five million positions, made before they are needed.
    """
    create function ensure_event_partitions(up_to bigint) returns void language plpgsql as $$
    declare
        partition_size constant bigint := 5000000;
        partition_name text;
    begin
        for n in 0 .. up_to / partition_size loop
            partition_name := 'event_p' || lpad(n::text, 6, '0');
            continue when to_regclass(partition_name) is not null;
            perform pg_advisory_xact_lock(x'68656465'::int);
            -- to_regclass would answer from a cache that is older than the lock.
            continue when exists (select from pg_class where relname = partition_name
                and relnamespace = current_schema()::regnamespace);
            execute format('create table %I (like event including all)', partition_name);
            execute format('create trigger %I before truncate on %I
                for each statement execute function refuse_change()',
                partition_name || '_not_truncated', partition_name);
            execute format('revoke update, delete, truncate on %I from current_user',
                partition_name);
            execute format('alter table event attach partition %I for values from (%s) to (%s)',
                partition_name, n * partition_size, (n + 1) * partition_size);
        end loop;
    end $$
    """,
    "select ensure_event_partitions(0)",
    "revoke update, delete, truncate on event from current_user",
    "grant update (payload, payload_tier) on event to current_user",
    """
    revoke update, delete, truncate on event_identity, source_sequence, idempotency_key
        from current_user
    """,
    "revoke delete, truncate on ledger, stream_head from current_user",
    # What a person or a BI tool reads; facts as JSON, frames as their window.
    """
    create view event_log as
    select l.name as ledger, e.position, e.stream, e.version, e.type, e.schema_version,
        e.event_id, e.occurred_at, e.recorded_at, e.actor, e.correlation_id, e.causation_id,
        e.traceparent,
        case when e.window_end_ns is null then convert_from(e.payload, 'UTF8')::jsonb end as fact,
        e.window_start_ns, e.window_end_ns, e.reading_count,
        encode(e.payload_sha256, 'hex') as payload_sha256, encode(e.leaf_hash, 'hex') as leaf_hash
    from event e join ledger l using (ledger_id)
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
